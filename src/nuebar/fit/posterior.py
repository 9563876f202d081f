"""The posterior of a spectrum fit by NUTS: the same cost as the fit's, averaged over instead of minimised.

The density is exp(−χ²/2), χ² the whole cost of the fit: the spectrum and the pulls, which are the priors of the
nuisance parameters. Parameters without a pull have a flat prior within their limits.

Which likelihood this is: "poisson" is exact. "barlow-beeston" has one unknown expectation a bin that is profiled, not
integrated out. The χ² statistics are Gaussian forms without ln V. For "cnp" and "neyman" that is right as far as the
statistical variance goes: V of the first is made so that the slope of χ² alone has no bias (Ji et al.,
arXiv:1903.07185), and V of the second is constant; "pearson" lacks ln μ and with it is biased by half an event a bin.
What all but "poisson" leave out is that bin-to-bin deviations with variance V_shape, integrated out instead of
profiled, give a factor Π (1 + V_shape/V_statistical)^(−1/2), which depends on the parameters as V_shape grows with the
square of the counts. :func:`log_determinant` has both, for any statistic; it moves Δm²21 and sin²θ12 by about a tenth
of a standard deviation, at 59 days and at six years. It is left out by default, so that posterior and fit differ in
nothing but how nuisances are removed; ``determinant=True`` samples with it, and :meth:`Posterior.reweighted` tells what
it moves.

Several minima of Δm²31 are passed by filling the barriers between them (:mod:`nuebar.fit.barriers`); draws then carry
weights. A posterior whose chains disagree, or whose weights leave too few draws, says that it is not valid.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nuebar.errors import NuebarError
from nuebar.fit.barriers import Filling, profiled
from nuebar.fit.many import _slim, _tells_cores
from nuebar.fit.result import FitResult
from nuebar.fit.spectrum_fit import COSTS, SpectrumFit
from nuebar.fit.starts import run_from_starts
from nuebar.parameters import OSCILLATION, ParameterSet
from nuebar.predict.compact import CompactHarmonic
from nuebar.predict.harmonic import HarmonicPredictor
from nuebar.predict.spectrum import SpectrumModel
from nuebar.stats.likelihood import BarlowBeestonCost, Cost, PearsonCost, Term
from nuebar.stats.minimise import Problem
from nuebar.stats.sample import EFFECTIVE_PER_CHAIN, R_HAT, Samples, effective_sizes, sample, split_r_hat

__all__ = [
    "Posterior",
    "angles_and_logarithms",
    "determinants",
    "lightened",
    "log_determinant",
    "posterior",
    "sample_term",
]

REACH = 12.0
"""Walls of a parameter without limits, in standard deviations of the fit: a normal density leaves 4·10⁻³³ outside."""
TOO_FAR = 9.0
"""A draw beyond this many of them says that the walls are too close."""
BARRIER = "dm2_31_eV2"
GRID = 61
"""Points of the profile; over the widest window of Δm²31, 10⁻³ eV², eleven for each oscillation (1.9·10⁻⁴ eV²)."""
PRIOR_sigma = 6.0
"""Half width of the profile along a parameter with a prior."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Posterior:
    """Draws of a posterior with weights, and whether to trust them.

    Attributes:
        names: Free parameters.
        values: Draws, shape ``(n, d)``, chain after chain.
        weights: Of the draws, mean one, shape ``(n,)``; all one where no barrier was filled.
        chi2: Cost of the draws, shape ``(n,)``.
        chains: Number of chains.
        limits: Of every parameter, between which it was sampled; infinite for none.
        effective: Independent draws that they are worth, by parameter, weights included.
        r_hat: Split R̂ by parameter, the larger of draws and weighted draws.
        divergent: Fraction of divergent transitions.
        barrier: Height in χ² of the highest barrier that was filled; 0 for none.
        n_calls: Evaluations of the cost and its slope.
        seconds: Wall time of the sampling, compilation included.
        valid: Whether every check was passed.
        reason: "converged", or what was not.
    """

    names: tuple[str, ...]
    values: np.ndarray
    weights: np.ndarray
    chi2: np.ndarray
    chains: int
    limits: tuple[tuple[float, float], ...]
    effective: np.ndarray
    r_hat: np.ndarray
    divergent: float
    barrier: float
    n_calls: int
    seconds: float
    valid: bool
    reason: str

    def index(self, name: str) -> int:
        """Column of a parameter.

        Raises:
            NuebarError: There is none of that name.
        """
        if name not in self.names:
            raise NuebarError(f"posterior: no free parameter {name!r}; there are {', '.join(self.names)}")
        return self.names.index(name)

    @property
    def mean(self) -> np.ndarray:
        """Shape ``(d,)``."""
        return np.asarray(self.weights @ self.values / self.weights.sum())

    @property
    def covariance(self) -> np.ndarray:
        """Shape ``(d, d)``."""
        moved = self.values - self.mean
        return np.asarray((moved * self.weights[:, None]).T @ moved / self.weights.sum())

    @property
    def sigma(self) -> np.ndarray:
        """Standard deviations, shape ``(d,)``."""
        return np.sqrt(np.diag(self.covariance))

    def quantile(self, name: str, q: float | Sequence[float]) -> np.ndarray:
        """Quantiles of one parameter, in the shape of q."""
        x = self.values[:, self.index(name)]
        order = np.argsort(x, kind="stable")
        w = self.weights[order]
        return np.interp(np.asarray(q, float), (np.cumsum(w) - 0.5 * w) / w.sum(), x[order])

    def highest_density(self, name: str, share: float = 0.6827) -> tuple[tuple[float, float], ...]:
        """Where the density is highest: intervals that hold a share of it, several if it has several peaks.

        From a kernel estimate, reflected at the limits; the level is the quantile of the densities of the draws, so
        that the share is right however smooth the estimate is (R. J. Hyndman, Am. Stat. 50 (1996) 120).

        Raises:
            NuebarError: The share is not between 0 and 1.
        """
        if not 0.0 < share < 1.0:
            raise NuebarError(f"highest density: expected a share between 0 and 1, got {share}")
        k = self.index(name)
        grid, density = _density(self.values[:, k], self.weights, self.limits[k])
        at = np.interp(self.values[:, k], grid, density)
        order = np.argsort(-at, kind="stable")
        total = np.cumsum(self.weights[order]) / self.weights.sum()
        level = at[order][min(int(np.searchsorted(total, share)), at.size - 1)]
        return _above(grid, density, float(level))

    def reweighted(self, log_ratio: np.ndarray) -> Posterior:
        """The posterior whose density is this one times exp(log_ratio), one number a draw, up to a constant."""
        weights = self.weights * np.exp(log_ratio - np.max(log_ratio))
        return _judged(replace(self, weights=weights / weights.mean()))

    def equal(self, n: int, seed: int = 0) -> np.ndarray:
        """About n draws of equal weight, for pictures, shape ``(n, d)``."""
        edges = np.cumsum(self.weights) / self.weights.sum()
        at = (np.arange(n) + np.random.default_rng(seed).uniform()) / n
        return self.values[np.minimum(np.searchsorted(edges, at), len(edges) - 1)]


class LogDeterminant(eqx.Module):
    """−½ Σ ln(1 + V_shape/V_statistical), and −½ Σ ln μ for Pearson's χ², as a function of all parameters."""

    cost: Cost
    model: SpectrumModel
    extra: Array | None

    def __call__(self, x: Array) -> Array:
        """A scalar."""
        mu, variance = self.model(x)
        extra = variance if self.extra is None else variance + self.extra
        if isinstance(self.cost, BarlowBeestonCost):
            b = self.cost.profiled(mu, extra)  # ∂²/∂b² of the bin's likelihood is n/b² + 1/V
            ratio = jnp.where(self.cost.counts > 0, self.cost.counts * extra / jnp.where(b > 0, b, 1.0) ** 2, 0.0)
        else:
            statistical = self.cost.variance(mu)
            ratio = extra / jnp.where(statistical > 0, statistical, 1.0)
        out = jnp.log1p(ratio)
        if isinstance(self.cost, PearsonCost):
            out = out + jnp.log(jnp.where(mu > 0, mu, 1.0))
        return -0.5 * jnp.sum(out)


def log_determinant(fit: SpectrumFit) -> LogDeterminant | None:
    """What exp(−χ²/2) lacks, see the top of this file; None where it lacks nothing ("poisson", a fixed covariance)."""
    extra = None if fit.mc_covariance is None else np.asarray(fit.mc_covariance, float)
    if extra is not None and extra.ndim == 2:
        if fit.statistic != "barlow-beeston":
            return None
        extra = np.diag(extra).copy()
    if fit.statistic == "poisson":
        return None
    cost = COSTS[fit.statistic](np.asarray(fit.counts, float))
    return LogDeterminant(cost, fit.model, None if extra is None else jnp.asarray(extra))


def posterior(
    fit: SpectrumFit,
    *,
    result: FitResult | None = None,
    n_samples: int = 4000,
    chains: int = 4,
    seed: int = 0,
    determinant: bool = False,
    barriers: bool = True,
    progress: Progress | None = None,
) -> Posterior:
    """Sample the posterior of a fit.

    Args:
        fit: Data, model, parameters; its pulls are the priors.
        result: Its best fit, if it is known already.
        n_samples: Draws of all chains together.
        chains: Of NUTS, side by side.
        seed: The same seed gives the same draws.
        determinant: Sample with :func:`log_determinant`.
        barriers: Look for several minima of Δm²31 and fill the barriers between them.
        progress: Called with (what, done, total).

    Returns:
        The draws of the free parameters.

    Raises:
        NuebarError: Nothing is free, or as :func:`nuebar.stats.sample.sample`.
    """
    if not fit.parameters.free:
        raise NuebarError("posterior: expected at least one free parameter, got none; free one")
    light = lightened(fit)
    if result is None:
        result, _ = run_from_starts(light, BARRIER)
    p = light.parameters
    start = np.array([result.parameters[n].value for n in p])
    order, q = [n for n in p if not p[n].fixed], p[BARRIER]
    covariance = None
    if result.valid and set(order) == set(result.parameter_order):
        at = [result.parameter_order.index(n) for n in order]
        covariance = result.covariance[np.ix_(at, at)]
    lower = np.array([-np.inf if q.bounds[0] is None else q.bounds[0] for q in p.values()])
    upper = np.array([np.inf if q.bounds[1] is None else q.bounds[1] for q in p.values()])
    return sample_term(
        light.problem(),
        p.names,
        start,
        free=order,
        lower=lower,
        upper=upper,
        covariance=covariance,
        barrier=BARRIER if barriers and BARRIER in order else None,
        within=None if q.sigma is None else (q.value - PRIOR_sigma * q.sigma, q.value + PRIOR_sigma * q.sigma),
        extra=log_determinant(light) if determinant else None,
        n_samples=n_samples,
        chains=chains,
        seed=seed,
        progress=progress,
    )


def determinants(fit: SpectrumFit, draws: Posterior, result: FitResult) -> np.ndarray:
    """:func:`log_determinant` at the draws, shape ``(n,)``; zeros where there is none."""
    light = lightened(fit)
    function = log_determinant(light)
    if function is None:
        return np.zeros(len(draws.values))
    names = light.parameters.names
    x = np.tile([result.parameters[n].value for n in names], (len(draws.values), 1))
    x[:, [names.index(n) for n in draws.names]] = draws.values
    return np.asarray(_at_all(function, jnp.asarray(x)))


def angles_and_logarithms(draws: Posterior, result: FitResult) -> np.ndarray:
    """Logarithm of the prior flat in mixing angles and in ln Δm², over the one flat in sin²θ and Δm², at the draws.

    dθ = d(sin²θ) / (2 sinθ cosθ), and d ln Δm² = dΔm²/Δm². Of parameters without a pull only: what is known of the
    others does not depend on the choice.

    Returns:
        Shape ``(n,)``.
    """
    out = np.zeros(len(draws.values))
    for k, name in enumerate(draws.names):
        if name not in OSCILLATION or result.parameters[name].prior is not None:
            continue
        x = draws.values[:, k]
        out -= 0.5 * np.log(x * (1.0 - x)) if name.startswith("sin2_") else np.log(np.abs(x))
    return out


def sample_term(
    cost: Term | Problem,
    names: Sequence[str],
    start: np.ndarray,
    *,
    free: Sequence[str] | None = None,
    lower: np.ndarray | None = None,
    upper: np.ndarray | None = None,
    covariance: np.ndarray | None = None,
    barrier: str | None = None,
    within: tuple[float, float] | None = None,
    extra: Callable[[Array], Array] | None = None,
    n_samples: int = 4000,
    chains: int = 4,
    seed: int = 0,
    progress: Progress | None = None,
) -> Posterior:
    """Sample exp(−cost/2) of any cost.

    Args:
        cost: The cost, or its compiled form.
        names: Of all parameters, in the order of its vector.
        start: A minimum, shape ``(parameters,)``.
        free: Which are sampled; all by default, the others stay at the start.
        lower: Limits of all parameters, −inf for none.
        upper: Likewise.
        covariance: Of the free ones; from the curvature JᵀJ at the start if not given.
        barrier: A parameter along which the cost may have several minima.
        within: Where to look for them; between its limits by default.
        extra: Added to the logarithm of the density, a function of all parameters; an equinox module.
        n_samples: Draws of all chains together.
        chains: Number of chains.
        seed: Of everything random.
        progress: Called with (what, done, total).

    Returns:
        The draws.
    """
    problem = cost if isinstance(cost, Problem) else Problem(cost)
    began = time.perf_counter()
    names, start = tuple(names), np.array(start, float)
    free = names if free is None else tuple(free)
    at = np.array([names.index(n) for n in free])
    low = np.full(start.size, -np.inf) if lower is None else np.array(lower, float)
    high = np.full(start.size, np.inf) if upper is None else np.array(upper, float)
    if covariance is None or not _positive(covariance):
        covariance = _inverse(problem.curvature(start)[np.ix_(at, at)] / 2.0)
    sigma = np.sqrt(np.diag(covariance))
    walls = np.array([low[at], high[at]])
    open_ = ~np.isfinite(walls)
    walls = np.where(open_, start[at] + REACH * sigma * np.array([[-1.0], [1.0]]), walls)
    filling, height = None, 0.0
    if barrier is not None:
        k = free.index(barrier)
        ends = np.clip(within or (-np.inf, np.inf), walls[0, k], walls[1, k])
        grid = np.linspace(float(ends[0]), float(ends[1]), GRID)
        mask = np.isin(np.arange(start.size), at)
        profile = profiled(problem, start, int(at[k]), grid, free=mask, lower=low, upper=high)
        filling = profile.filling()
        if filling is not None:
            height = 2.0 * float(np.max(filling.height))
            stretch = np.ones(at.size)
            stretch[k] = max(1.0, profile.spread() / sigma[k])
            covariance = covariance * np.outer(stretch, stretch)
    along = None if barrier is None else free.index(barrier)
    density = _Density(problem.term, jnp.asarray(start), tuple(int(i) for i in at), filling, along, extra)
    drawn = sample(
        density,
        free,
        walls[0],
        walls[1],
        method="nuts",
        start=np.clip(start[at], walls[0], walls[1]),
        covariance=covariance,
        n_samples=n_samples,
        chains=chains,
        seed=seed,
        progress=progress,
    )
    return _finished(drawn, density, problem, chains, walls, open_, start[at], sigma, height, began)


# ---------------------------------------------------------------- helpers


class _Density(eqx.Module):
    """Logarithm of the density that is sampled, a function of the free parameters."""

    term: Term
    base: Array
    free: tuple[int, ...] = eqx.field(static=True)
    filling: Filling | None
    along: int | None = eqx.field(static=True)
    extra: Callable[[Array], Array] | None

    def whole(self, x: Array) -> Array:
        """All parameters."""
        return self.base.at[jnp.array(self.free)].set(x)

    def filled(self, x: Array) -> Array:
        """What the barriers are filled with."""
        return jnp.zeros(()) if self.filling is None or self.along is None else self.filling(x[self.along])

    def added(self, x: Array) -> Array:
        """Everything but −χ²/2."""
        return self.filled(x) + (0.0 if self.extra is None else self.extra(self.whole(x)))

    def __call__(self, x: Array) -> Array:
        """−χ²/2 and what is added."""
        return -0.5 * self.term(self.whole(x)) + self.added(x)


@eqx.filter_jit
def _at_all(function: Callable[[Array], Array], x: Array) -> Array:
    return jax.lax.map(function, x, batch_size=64)


def _finished(
    drawn: Samples,
    density: _Density,
    problem: Problem,
    chains: int,
    walls: np.ndarray,
    open_: np.ndarray,
    start: np.ndarray,
    sigma: np.ndarray,
    height: float,
    began: float,
) -> Posterior:
    n = len(drawn.values)
    added = np.asarray(_at_all(density.added, jnp.asarray(drawn.values)))
    weights = np.ones(n)
    if density.filling is not None:
        weights = np.exp(-np.asarray(_at_all(density.filled, jnp.asarray(drawn.values))))
    limits = np.where(open_, np.array([[-np.inf], [np.inf]]), walls)
    wrong = [] if drawn.valid else [drawn.reason]
    for k in np.flatnonzero(open_.any(axis=0)):
        if np.max(np.abs(drawn.values[:, k] - start[k])) > TOO_FAR * sigma[k]:
            wrong.append(f"{drawn.names[k]} has no limits and draws beyond {TOO_FAR:g} standard deviations of the fit")
    assert drawn.r_hat is not None
    assert drawn.divergent is not None
    out = Posterior(
        names=drawn.names,
        values=drawn.values,
        weights=weights / weights.mean(),
        chi2=-2.0 * (drawn.log_likelihood - added),
        chains=chains,
        limits=tuple((float(a), float(b)) for a, b in limits.T),
        effective=drawn.effective,
        r_hat=drawn.r_hat,
        divergent=drawn.divergent,
        barrier=height,
        n_calls=drawn.n_calls,
        seconds=time.perf_counter() - began,
        valid=not wrong,
        reason="; ".join(wrong) or "converged",
    )
    return out if density.filling is None else _judged(out)


def _judged(draws: Posterior) -> Posterior:
    """With the effective size and R̂ of weighted draws; see :class:`Posterior`.

    The error of a weighted mean is that of the mean of w (x − mean) over the mean weight, whose effective size the
    chains tell; the variance of x over its square is the number of independent draws.
    """
    shape = (draws.chains, len(draws.values) // draws.chains, len(draws.names))
    w = draws.weights.reshape(shape[:2])[..., None]
    g = w * (draws.values - draws.mean).reshape(shape)
    size = effective_sizes(g)
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = size * np.diag(draws.covariance) / g.reshape(-1, shape[2]).var(axis=0)
    r_hat = np.maximum(draws.r_hat, split_r_hat(g))
    wrong = [] if draws.valid else [draws.reason]
    if not (r_hat <= R_HAT).all() and draws.valid:
        wrong.append(f"R-hat of the weighted draws is {np.max(r_hat):.3f}, more than {R_HAT}")
    if not (effective >= EFFECTIVE_PER_CHAIN * draws.chains).all() and draws.valid:
        wrong.append(f"weights leave {np.min(effective):.0f} effective draws")
    return replace(draws, effective=effective, r_hat=r_hat, valid=not wrong, reason="; ".join(wrong) or "converged")


def lightened(fit: SpectrumFit) -> SpectrumFit:
    """The same fit, faster: the harmonic predictor in its compact form, pulls that are fixed at zero left out."""
    model = _slim(fit)
    if isinstance(model.predictor, HarmonicPredictor):
        model = replace(model, predictor=CompactHarmonic.of(model.predictor, cores=_tells_cores(model)))
    kept = ParameterSet([p for n, p in fit.parameters.items() if n in model.names])
    return replace(fit, model=model, parameters=kept)


def _positive(matrix: np.ndarray) -> bool:
    diagonal = np.diag(matrix)
    if not (np.isfinite(matrix).all() and (diagonal > 0).all()):
        return False
    unit = np.sqrt(diagonal)
    return bool(np.linalg.eigvalsh(matrix / np.outer(unit, unit))[0] > 1e-9)


def _inverse(normal: np.ndarray) -> np.ndarray:
    """Inverse of a curvature; directions without any get a large variance."""
    unit = np.sqrt(np.where(np.diag(normal) > 0, np.diag(normal), 1.0))
    values, vectors = np.linalg.eigh(normal / np.outer(unit, unit))
    return np.asarray((vectors / np.maximum(values, 1e-6)) @ vectors.T / np.outer(unit, unit))


def _density(x: np.ndarray, weights: np.ndarray, limits: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Kernel density on a grid; half of Silverman's width, as several peaks must not be smeared into one."""
    bins = 2048
    low, high = float(x.min()), float(x.max())
    w = weights / weights.sum()
    order = np.argsort(x)
    q1, q3 = np.interp((0.25, 0.75), np.cumsum(w[order]), x[order])
    spread = float(np.sqrt(w @ (x - w @ x) ** 2))
    h = 0.5 * 1.06 * min(spread, (q3 - q1) / 1.349 or spread) * (1.0 / (w @ w)) ** -0.2
    if not h > 0:
        raise NuebarError("density: expected draws that differ, got equal ones; leave out what is fixed")
    left = max(limits[0], low - 4.0 * h)
    right = min(limits[1], high + 4.0 * h)
    edges = np.linspace(left, right, bins + 1)
    counts = np.histogram(x, edges, weights=w)[0]
    step = edges[1] - edges[0]
    reach = min(int(np.ceil(5.0 * h / step)), bins - 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / h) ** 2)
    kernel /= kernel.sum() * step
    padded = np.concatenate([counts[:reach][::-1], counts, counts[::-1][:reach]])
    return 0.5 * (edges[1:] + edges[:-1]), np.convolve(padded, kernel, mode="valid")


def _above(grid: np.ndarray, density: np.ndarray, level: float) -> tuple[tuple[float, float], ...]:
    """Intervals in which a curve is above a level."""
    step = grid[1] - grid[0]
    up = np.concatenate([[False], density >= level, [False]])
    first, last = np.flatnonzero(up[1:] & ~up[:-1]), np.flatnonzero(up[:-1] & ~up[1:]) - 1
    return tuple(
        (float(grid[a] - 0.5 * step), float(grid[b] + 0.5 * step)) for a, b in zip(first, last, strict=True) if b > a
    )
