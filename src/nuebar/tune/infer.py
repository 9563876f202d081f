"""Tune the response to calibration data: a fit, NUTS or nested sampling, and a judgement of the result.

Minuit always runs first, from the deepest valleys of a coarse scan: it gives the best fit, its errors, and the start of
the samplers. NUTS runs on a Chebyshev interpolant of ln L within six standard deviations of the best fit, which costs
microseconds where a network costs a millisecond; how far it is from the network is measured at the posterior's own
samples, and if that is more than 0.01 of ln L, the sampler runs again on the network. Nested sampling always asks the
network, so it is the independent one.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nuebar.errors import NuebarError
from nuebar.io.results import versions
from nuebar.io.tunings import Goodness, TuningResult, load_tuning, save_tuning
from nuebar.stats.chebyshev import ChebyshevInterpolant
from nuebar.stats.minimise import Minimum, minimise
from nuebar.stats.sample import Samples, sample
from nuebar.tune.data import CalibrationData
from nuebar.tune.density import RESPONSE, Density
from nuebar.tune.goodness import ALARM, goodness_of_fit, warnings
from nuebar.tune.likelihood import (
    NORM_LIMITS,
    Priors,
    ResponseLikelihood,
    ResponseProblem,
    coarse_start,
    norm_names,
)

__all__ = ["TuningResult", "infer", "load_tuning", "save_tuning"]

Progress = Callable[[str, int, int], None]

METHODS = ("minuit", "nuts", "nested")
TOLERANCE = 1e-4
"""Estimated distance to the minimum in units of χ²: 0.007 σ. Networks in single precision reach no closer."""

ROUGH_TOLERANCE = 0.02
"""The same where ln L has kinks (single events, spline flow), near which no minimum is smoother: 0.1 σ."""

STARTS = 5
REACH = 6.0
"""Half width of the interpolated region in standard deviations of the whitened parameters."""

ORDERS = (6, 8, 10, 12, 14)
INTERPOLATION_ERROR = 0.01
"""Of ln L, above which draws of the interpolant are corrected; posteriors then differ by less than 1 %."""

CORRECTABLE = 0.5
"""Of ln L, above which they are not corrected but the density itself is sampled."""

MOST_REJECTED = 10  # samples for one inside the box; beyond that the box is sampled itself
_AIM = 0.6  # of the allowed error, at points of the Gaussian, before the sampler runs
_SPARE = 1.6  # draws of an interpolant for one that is wanted, where they are corrected
_CHECKED = 256  # posterior samples at which interpolant and network are compared


def infer(
    data: CalibrationData,
    density: Density,
    *,
    method: Literal["minuit", "nuts", "nested"] = "minuit",
    unbinned: bool = False,
    norms: Literal["closed", "free"] = "closed",
    priors: Priors | None = None,
    minos: bool = True,
    seed: int = 0,
    n_samples: int = 4000,
    interpolate: bool = True,
    n_replicas: int = 1000,
    progress: Progress | None = None,
) -> TuningResult:
    """The response parameters that calibration data want.

    Args:
        data: Counts, and charges if the likelihood shall be unbinned.
        density: Knows p(x | response, source).
        method: minuit: best fit, Hessian and Minos. nuts or nested: samples of the posterior too.
        unbinned: Whether single charges are used.
        norms: closed: relative norms are integrated out, or profiled where there is a background; free: they are
            parameters, flat in [0.8, 1.2].
        priors: Gaussian knowledge of the response; flat in the box of the density otherwise.
        minos: Whether to look for asymmetric errors.
        seed: Of samples and replicas.
        n_samples: Draws wanted.
        interpolate: Whether NUTS may use an interpolant.
        n_replicas: Simulated data sets for the goodness of fit; 0 leaves it out.
        progress: Called as ``progress(what, done, total)``.

    Returns:
        The result; one that failed is returned with the reason, not raised.

    Raises:
        NuebarError: The data do not suit the density, or an option is unknown.
    """
    if method not in METHODS or norms not in ("closed", "free"):
        raise NuebarError(
            f"method is one of {', '.join(METHODS)} and norms are closed or free, got {method!r} and {norms!r}"
        )
    began = time.perf_counter()
    tick = progress or (lambda *_: None)
    with jax.enable_x64(True):
        likelihood = ResponseLikelihood.build(data, density, unbinned=unbinned, priors=priors)
        found = _fitted(likelihood, data, density, free_norms=norms == "free", minos=minos, tick=tick)
        drawn = None
        if method != "minuit":
            direct = method == "nested" or not interpolate
            drawn = _sampled(likelihood, found, method, n_samples, seed, direct=direct, tick=tick)
        goodness = None
        if n_replicas:
            tick("replicas", 0, n_replicas)
            goodness = _goodness(likelihood, found, drawn, data, density, n_replicas, seed)
        result = _result(likelihood, found, drawn, goodness, data, density, method, norms, seed)
    result = replace(result, warnings=(*warnings(result), *_doubts(found, drawn)))
    return replace(result, seconds=time.perf_counter() - began)


@dataclass(frozen=True, eq=False)
class _Fit:
    minimum: Minimum
    information: np.ndarray
    n_calls: int
    n_expansions: int

    @property
    def n(self) -> int:
        return len(RESPONSE)

    @property
    def covariance(self) -> np.ndarray:
        """From the Hessian, or, where that has none (a best fit in a corner), from the expected information."""
        if np.isfinite(self.minimum.covariance).all():
            return self.minimum.covariance
        return np.linalg.inv(self.information)


@dataclass(frozen=True, eq=False)
class _Draws:
    samples: Samples
    interpolation_error: float
    n_direct: int
    note: str


def _walls(likelihood: ResponseLikelihood, *, free_norms: bool) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the parameters and their limits, shape ``(2, n)``."""
    if not free_norms:
        return RESPONSE, np.array(likelihood.limits).T
    return (*RESPONSE, *norm_names(likelihood.sources)), np.array(
        [*likelihood.limits, *[NORM_LIMITS] * len(likelihood.sources)]
    ).T


def _fitted(
    likelihood: ResponseLikelihood,
    data: CalibrationData,
    density: Density,
    *,
    free_norms: bool,
    minos: bool,
    tick: Progress,
) -> _Fit:
    """Scan, descend from the best valleys, certify the lowest."""
    tick("scan", 0, 1)
    starts = coarse_start(likelihood, np.asarray(data.counts, float), density, STARTS)
    problem = ResponseProblem(likelihood)
    box = np.array(likelihood.limits).T
    free = np.ones(len(RESPONSE), bool)
    ends = [problem.descend(start, box[0], box[1], free, 20, 1.0) for start in starts]
    best = np.asarray(min(ends, key=lambda end: float(end.cost)).values)
    names, walls = _walls(likelihood, free_norms=free_norms)
    if free_norms:
        best = np.concatenate([best, np.clip(likelihood.norms(best)[0], *NORM_LIMITS)])
    tick("minuit", 0, 1)
    wanted = RESPONSE if minos else ()
    tol = ROUGH_TOLERANCE if likelihood.rough else TOLERANCE
    minimum = minimise(problem, best, names=names, lower=walls[0], upper=walls[1], minos=wanted, tol=tol)
    return _Fit(minimum, problem.expansion(minimum.values)[1], problem.n_calls, problem.n_expansions)


# --- sampling -------------------------------------------------------------------------------------------------


class _Direct(eqx.Module):
    """ln (likelihood × prior) over its value at the best fit."""

    likelihood: ResponseLikelihood
    highest: Array

    def __call__(self, x: Array) -> Array:
        return self.likelihood.log_posterior(x) - self.highest


class _Interpolated(eqx.Module):
    """The same for the response from an interpolant in whitened parameters, and exactly for free norms.

    Beyond the walls of the interpolant, where a Gaussian is below exp(−18), it falls on as a Gaussian would.
    """

    interpolant: ChebyshevInterpolant
    centre: Array
    whiten: Array
    lower: Array
    upper: Array
    events: Array | None

    def __call__(self, x: Array) -> Array:
        n = len(RESPONSE)
        u = self.whiten @ (x[:n] - self.centre)
        inside = jnp.clip(u, self.lower, self.upper)
        beyond = jnp.abs(u - inside)
        value = self.interpolant(inside) - jnp.sum(REACH * beyond + 0.5 * beyond**2)
        if self.events is None:
            return value
        norms = x[n:]
        return value + jnp.sum(self.events * (jnp.log(norms) - norms + 1.0))


class _Whitened(eqx.Module):
    """A target as a function of whitened parameters."""

    target: _Direct | _Interpolated
    centre: Array
    axes: Array

    def __call__(self, u: Array) -> Array:
        return self.target(self.centre + self.axes @ u)


def _sampled(
    likelihood: ResponseLikelihood,
    fit: _Fit,
    method: Literal["nuts", "nested"],
    n_samples: int,
    seed: int,
    *,
    direct: bool,
    tick: Progress,
) -> _Draws:
    minimum = fit.minimum
    free_norms = len(minimum.names) > fit.n
    names, walls = _walls(likelihood, free_norms=free_norms)
    highest = -0.5 * minimum.cost
    n_direct, error, note = 0, math.nan, ""

    def draw(target: _Direct | _Interpolated, wanted: int = n_samples) -> Samples:
        options: dict[str, Any] = {"n_samples": wanted, "seed": seed, "progress": tick, "method": method}
        inner = None if method == "nested" else _sampled_whitened(target, names, walls, fit, options)
        if inner is not None:
            return inner
        return sample(target, names, walls[0], walls[1], start=minimum.values, covariance=fit.covariance, **options)

    # With a background, norms and response do not separate.
    if not direct and not (free_norms and likelihood.background is not None):
        tick("interpolant", 0, 1)
        target, n_direct, expected = _interpolated(likelihood, fit, highest, seed)
        if target is not None and method == "nuts" and expected > INTERPOLATION_ERROR:
            samples = draw(target, math.ceil(_SPARE * n_samples))
            exact = likelihood.batch(samples.values) - highest
            error = float(np.abs(samples.log_likelihood - exact).max())
            n_direct += len(exact)
            if (corrected := _corrected(samples, exact, n_samples, seed)) is not None:
                note = f"ln L was interpolated to {error:.2g} only, so its draws were corrected with the density itself"
                return _Draws(corrected, error, n_direct, note)
        elif target is not None:
            samples = draw(target)
            rows = np.random.default_rng(seed).permutation(len(samples.values))[:_CHECKED]
            points = samples.values[rows]
            exact = likelihood.batch(points) - highest
            n_direct += len(points)
            error = float(np.abs(samples.log_likelihood[rows] - exact).max())
            if error <= INTERPOLATION_ERROR:
                return _Draws(samples, error, n_direct, note)
        note = f"ln L could not be interpolated to {INTERPOLATION_ERROR:g}, so the density itself was sampled"
        error = math.nan
    samples = draw(_Direct(likelihood, jnp.asarray(highest)))
    return _Draws(samples, error, n_direct + samples.n_calls, note)


def _corrected(samples: Samples, exact: np.ndarray, n_samples: int, seed: int) -> Samples | None:
    """Draws of the posterior from those of an interpolant, by rejection; None where too few are left.

    Args:
        samples: Of the interpolant.
        exact: ln L at them.
        n_samples: How many are wanted.
        seed: Of the rejection.
    """
    log_weight = exact - samples.log_likelihood
    accepted = np.log(np.random.default_rng([seed, 3]).random(len(exact))) < log_weight - log_weight.max()
    rows = np.flatnonzero(accepted)
    if len(rows) < n_samples:
        return None
    effective = samples.effective * len(rows) / len(exact)
    rows = rows[np.linspace(0, len(rows) - 1, n_samples).round().astype(int)]
    kept = samples.values[rows]
    return replace(
        samples,
        values=kept,
        log_likelihood=exact[rows],
        mean=kept.mean(axis=0),
        covariance=np.cov(kept, rowvar=False),
        effective=effective,
    )


def _sampled_whitened(
    target: _Direct | _Interpolated,
    names: tuple[str, ...],
    walls: np.ndarray,
    fit: _Fit,
    options: dict[str, Any],
) -> Samples | None:
    """Within six standard deviations of the whitened parameters; what falls outside the box is thrown away.

    A map of the box to all of space bends, by the square of a standard deviation over the width of the box; that is
    little, but more than the 0.02 standard deviations that correlations of 0.99 leave in the thinnest direction. Where
    the box cuts the posterior, the likelihood is followed beyond it and its samples there are rejected, which leaves
    those of the posterior in the box.

    Returns:
        The samples; None where fewer than one in :data:`MOST_REJECTED` would lie inside.
    """
    centre, axes = fit.minimum.values, np.linalg.cholesky(fit.covariance)
    gaussian = _x_of(centre, axes, np.random.default_rng([options["seed"], 2]).standard_normal((4096, len(centre))))
    share = float(_inside(gaussian, walls).mean())
    if share * MOST_REJECTED < 1.0:
        return None
    times = 1 if share > 0.999 else math.ceil(1.1 / share)
    lower, upper = _reach(walls, centre, axes)
    whitened = _Whitened(target, jnp.asarray(centre), jnp.asarray(axes))
    start = np.zeros(len(centre))
    wanted = {**options, "n_samples": times * options["n_samples"]}
    got = sample(whitened, names, lower, upper, start=start, covariance=np.eye(len(centre)), **wanted)
    values = _x_of(centre, axes, got.values)
    rows = np.flatnonzero(_inside(values, walls))
    if len(rows) * MOST_REJECTED < len(values):
        return None
    effective = got.effective * len(rows) / len(values)
    if len(rows) > options["n_samples"]:
        rows = rows[np.linspace(0, len(rows) - 1, options["n_samples"]).round().astype(int)]
    kept = values[rows]
    return replace(
        got,
        values=kept,
        log_likelihood=got.log_likelihood[rows],
        mean=kept.mean(axis=0),
        covariance=np.cov(kept, rowvar=False),
        effective=effective,
    )


def _inside(x: np.ndarray, walls: np.ndarray) -> np.ndarray:
    return ((x >= walls[0]) & (x <= walls[1])).all(axis=1)


def _reach(walls: np.ndarray, centre: np.ndarray, axes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Walls in whitened parameters: six standard deviations, or what the box needs if that is less."""
    corners = np.array(list(itertools.product(*walls.T))) - centre
    whitened = np.linalg.solve(axes, corners.T).T
    # Never flat, should the best fit lie on a wall.
    return np.maximum(-REACH, np.minimum(whitened.min(axis=0), -0.1)), np.minimum(
        REACH, np.maximum(whitened.max(axis=0), 0.1)
    )


def _interpolated(
    likelihood: ResponseLikelihood, fit: _Fit, highest: float, seed: int
) -> tuple[_Interpolated | None, int, float]:
    """The interpolant of lowest order that is good at points of the Gaussian, the evaluations it took and its error.

    Where a higher order does not halve the error, ln L has kinks, and the best one that can be corrected is given.
    """
    n = fit.n
    centre = fit.minimum.values[:n]
    covariance = fit.covariance[:n, :n]
    axes = np.linalg.cholesky(covariance)
    whiten = np.linalg.inv(axes)
    box = np.array(likelihood.limits).T
    lower, upper = _reach(box, centre, axes)

    def log_posterior(u: np.ndarray) -> np.ndarray:
        return likelihood.batch(centre + u @ axes.T) - highest

    u = np.random.default_rng([seed, 1]).standard_normal((4 * _CHECKED, n))
    x = centre + u @ axes.T
    inside = _inside(x, box) & ((u >= lower) & (u <= upper)).all(axis=1)
    u = u[inside][:_CHECKED] if inside.any() else np.zeros((1, n))
    truth = log_posterior(u)
    calls = len(u)
    events = likelihood.events if len(fit.minimum.names) > n else None
    best: tuple[float, _Interpolated | None] = (math.inf, None)
    for order in ORDERS:
        try:
            made = ChebyshevInterpolant.build(log_posterior, lower, upper, order, batch=64)
        except NuebarError:  # not finite somewhere around: nothing that could be interpolated
            return None, calls, math.nan
        calls += made.n_nodes
        target = _Interpolated(
            made, jnp.asarray(centre), jnp.asarray(whiten), jnp.asarray(lower), jnp.asarray(upper), None
        )
        error = float(np.abs(np.asarray(_values(target, jnp.asarray(_x_of(centre, axes, u)))) - truth).max())
        whole = eqx.tree_at(lambda t: t.events, target, events, is_leaf=lambda a: a is None)
        if error <= _AIM * INTERPOLATION_ERROR:
            return whole, calls, error
        slow = best[0] <= CORRECTABLE and error > 0.5 * best[0]
        if error < best[0]:
            best = (error, whole)
        if slow:
            break
    return (best[1] if best[0] <= CORRECTABLE else None), calls, max(best[0], 1.01 * INTERPOLATION_ERROR)


def _x_of(centre: np.ndarray, axes: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Parameters of whitened points."""
    return centre + u @ axes.T


@eqx.filter_jit
def _values(target: _Interpolated, points: Array) -> Array:
    return jax.vmap(target)(points)


# --- the record -----------------------------------------------------------------------------------------------


def _goodness(
    likelihood: ResponseLikelihood,
    fit: _Fit,
    drawn: _Draws | None,
    data: CalibrationData,
    density: Density,
    n_replicas: int,
    seed: int,
) -> Goodness:
    best = fit.minimum.values[: fit.n]
    return goodness_of_fit(
        data,
        density,
        best,
        fit.minimum.covariance[: fit.n, : fit.n],
        norms=_norms(likelihood, fit)[0],
        samples=None if drawn is None else drawn.samples.values[:, : fit.n],
        precision=np.asarray(likelihood.precision),
        free=np.array([name not in fit.minimum.at_limit for name in RESPONSE]),
        n_replicas=n_replicas,
        seed=seed,
    )


def _norms(likelihood: ResponseLikelihood, fit: _Fit) -> tuple[np.ndarray, np.ndarray]:
    if len(fit.minimum.names) > fit.n:
        return fit.minimum.values[fit.n :], fit.minimum.errors[fit.n :]
    return likelihood.norms(fit.minimum.values)


def _result(
    likelihood: ResponseLikelihood,
    fit: _Fit,
    drawn: _Draws | None,
    goodness: Goodness | None,
    data: CalibrationData,
    density: Density,
    method: str,
    norms: str,
    seed: int,
) -> TuningResult:
    n, minimum = fit.n, fit.minimum
    values, errors = minimum.values[:n], minimum.errors[:n]
    mean, covariance = values, minimum.covariance[:n, :n]
    norm_values, norm_errors = _norms(likelihood, fit)
    samples = None
    if drawn is not None:
        got = drawn.samples
        samples, mean, covariance = got.values[:, :n], got.mean[:n], got.covariance[:n, :n]
        errors = got.sigma[:n]
        norm_errors = got.sigma[n:] if len(minimum.names) > n else norm_errors
    prior = float(likelihood.log_prior(values))
    # Samples against a wall may be right; of data that the density cannot make they are right about nothing.
    cornered = ""
    if minimum.at_limit and goodness is not None and goodness.p_value < ALARM:
        cornered = f"the data do not fit, and {', '.join(minimum.at_limit)} ended on a limit"
    return TuningResult(
        names=RESPONSE,
        best=dict(zip(RESPONSE, values.tolist(), strict=True)),
        errors=dict(zip(RESPONSE, errors.tolist(), strict=True)),
        minos={name: (i.minus, i.plus) for name, i in minimum.minos.items()},
        mean=np.asarray(mean),
        covariance=np.asarray(covariance),
        samples=samples,
        norms=dict(zip(likelihood.sources, norm_values.tolist(), strict=True)),
        norm_errors=dict(zip(likelihood.sources, norm_errors.tolist(), strict=True)),
        at_limit=minimum.at_limit,
        limits=dict(zip(RESPONSE, likelihood.limits, strict=True)),
        log_likelihood=-0.5 * minimum.cost - prior,
        method=method,
        unbinned=likelihood.unbinned,
        norm_treatment=norms,
        density=density.name,
        density_provenance={str(k): str(v) for k, v in density.provenance.items()},
        data={source: round(float(k)) for source, k in zip(data.sources, np.asarray(likelihood.events), strict=True)},
        seed=seed,
        valid=(minimum.valid if drawn is None else drawn.samples.valid) and not cornered,
        reason=_advice(minimum.reason) if drawn is None else (cornered or drawn.samples.reason or "converged"),
        goodness=goodness,
        # The sampler was given ln L over its highest value, which the evidence gets back.
        log_evidence=_number(None if drawn is None else drawn.samples.log_evidence) - 0.5 * minimum.cost,
        effective=math.nan if drawn is None else float(np.min(drawn.samples.effective)),
        r_hat=math.nan if drawn is None or drawn.samples.r_hat is None else float(np.max(drawn.samples.r_hat)),
        interpolation_error=math.nan if drawn is None else drawn.interpolation_error,
        n_calls=fit.n_calls + fit.n_expansions + (drawn.n_direct if drawn else 0),
        n_gradients=fit.n_expansions,
        versions=versions(),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _advice(reason: str) -> str:
    """What one can do about a best fit on an edge here."""
    general = "widen the limit or fix the parameter"
    return reason.replace(general, "give a prior, or train a density with a wider grid")


def _doubts(fit: _Fit, drawn: _Draws | None) -> tuple[str, ...]:
    """What else a user must know."""
    told = []
    if drawn is None:
        if not fit.minimum.valid and not fit.minimum.at_limit:
            told.append(f"the fit is not valid: {_advice(fit.minimum.reason)}")
        return tuple(told)
    if not drawn.samples.valid:
        told.append(f"the samples are not valid: {drawn.samples.reason}")
    if not fit.minimum.valid and not fit.minimum.at_limit:
        told.append(f"the fit before the sampling is not valid: {_advice(fit.minimum.reason)}")
    if drawn.note:
        told.append(drawn.note)
    return tuple(told)
