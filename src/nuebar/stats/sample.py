"""Samples of a posterior: Hamiltonian Monte Carlo (NUTS) and nested sampling behind one call.

`sample` draws from likelihood × prior inside a box. Both methods work on the whole of it through one change of
variables: a logit maps the box to all of space, y = ln (x - lower)/(upper - x), and there a Gaussian approximation
(start and covariance, as a fit gives them) sets the scale along every axis, however strongly they are correlated.

* NUTS (Hoffman and Gelman, J. Mach. Learn. Res. 15 (2014) 1593, as blackjax has it) moves in q with y = y0 + A q,
  A Aᵀ the covariance of y, which the warm-up measures again from all chains.
* Nested sampling (UltraNest: Buchner, J. Open Source Softw. 6 (2021) 3001) draws from a prior; with a covariance it
  draws from Student-t variables in q and carries the ratio of the flat prior to that density in the likelihood.
  That leaves posterior and evidence as they are, cuts nothing off, and saves the way from the box to the peak
  (the idea: Petrosyan and Handley, Phys. Sci. Forum 5 (2022) 51).

The quality is judged by the split R̂ and the effective sample size of Vehtari et al., Bayesian Anal. 16 (2021) 667
(without ranks), and, for nested sampling, by UltraNest's test of insertion orders.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit, gammaln, stdtrit

from nuebar.errors import NuebarError
from nuebar.stats.likelihood import require_x64

__all__ = ["Samples", "effective_sizes", "sample", "split_r_hat"]

LogDensity = Callable[[Array], Array]
Progress = Callable[[str, int, int], None]

R_HAT = 1.01
"""Largest R̂ of a valid result (Vehtari et al. 2021, section 4)."""
EFFECTIVE_PER_CHAIN = 100
"""Smallest effective sample size of a valid result, times the chains (the same)."""
EFFECTIVE_NESTED = 400
DIVERGENT = 0.01
"""Largest fraction of divergent transitions of a valid result, nominal."""

ACCEPTANCE = 0.8
MAX_DOUBLINGS = 8
"""At most 255 steps a transition: whitened posteriors need 3 to 15."""
BLOCK = 200
"""Transitions of one call of the compiled program, whatever the number of draws."""
WARM_UP = 2
"""Blocks, every one of which improves the whitening."""

LOGISTIC_SIGMA = math.pi / math.sqrt(3.0)
"""Standard deviation of y for a flat density in the box: none should be wider."""
STUDENT_NU = 5.0
STUDENT_SCALE = 1.5
"""Of the variables that nested sampling draws from: broader than the Gaussian in the middle and in the tails."""
LIVE_POINTS = 400
MOST_CALLS = 1_000_000
"""Unless told otherwise: fifty times what a posterior of three to eight parameters takes."""
BUFFER = 512
"""Points handed to the compiled program at a time; it evaluates as many of them as are wanted."""
LOG_ZERO = -1e100
"""What UltraNest is told where the likelihood is zero, since it wants a number."""
DRAWN = 64
"""Points at least that are proposed together."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Draws from a posterior and whether to trust them.

    Attributes:
        method: nuts or nested.
        names: Of the parameters.
        values: Equally weighted draws, shape ``(n, d)``; for NUTS chain after chain.
        log_likelihood: Of the draws, shape ``(n,)``.
        mean: Shape ``(d,)``; for nested sampling with the weights.
        covariance: Shape ``(d, d)``, likewise.
        effective: Number of independent draws that they are worth, by parameter.
        r_hat: Split R̂ by parameter; None for nested sampling.
        divergent: Fraction of divergent transitions; None for nested sampling.
        log_evidence: ln of ∫ likelihood × prior; None for NUTS.
        log_evidence_error: Its standard deviation.
        n_calls: Evaluations of the likelihood (NUTS: with their gradients), the warm-up included.
        seconds: Wall time, compilation included.
        valid: Whether every check was passed.
        reason: Which was not, with numbers.
    """

    method: str
    names: tuple[str, ...]
    values: np.ndarray
    log_likelihood: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    effective: np.ndarray
    r_hat: np.ndarray | None
    divergent: float | None
    log_evidence: float | None
    log_evidence_error: float | None
    n_calls: int
    seconds: float
    valid: bool
    reason: str

    @property
    def sigma(self) -> np.ndarray:
        """Standard deviations, shape ``(d,)``."""
        return np.sqrt(np.diag(self.covariance))

    def column(self, name: str) -> np.ndarray:
        """The draws of one parameter, shape ``(n,)``."""
        if name not in self.names:
            raise NuebarError(f"samples: no parameter {name!r}; there are {', '.join(self.names)}")
        return self.values[:, self.names.index(name)]


def sample(
    log_likelihood: LogDensity,
    names: Sequence[str],
    lower: ArrayLike,
    upper: ArrayLike,
    *,
    method: Literal["nuts", "nested"] = "nuts",
    log_prior: LogDensity | None = None,
    start: ArrayLike | None = None,
    covariance: ArrayLike | None = None,
    n_samples: int = 4000,
    chains: int = 4,
    seed: int = 0,
    live_points: int = LIVE_POINTS,
    batch: int = 16,
    max_calls: int | None = None,
    progress: Progress | None = None,
) -> Samples:
    """Draw from the posterior of a likelihood inside a box, by default with a flat prior.

    Functions that are equinox modules (or ``jax.tree_util.Partial``) share their compiled program with all others of
    the same structure and shapes, so that the next data set compiles nothing; plain functions compile anew.

    Args:
        log_likelihood: Pure JAX: parameters, shape ``(d,)``, to a float64 scalar; NUTS needs it differentiable.
            −inf forbids a point.
        names: Of the parameters, d of them.
        lower: Lower walls, finite, shape ``(d,)``.
        upper: Upper walls.
        method: NUTS for smooth likelihoods with one peak; nested sampling for several, and for the evidence.
        log_prior: Added to the log-likelihood; pure JAX. Relative to the flat prior, that is to say the evidence
            wants its exponential to average to one over the box.
        start: A point near the maximum, inside the walls; searched for if not given and needed.
        covariance: Approximate covariance, as of a fit; from the second derivatives at the start if not given.
            Without it nested sampling draws from the plain box.
        n_samples: Draws wanted; NUTS rounds up to the same number in every chain, nested sampling gives no more
            than its weighted points are worth.
        chains: Of NUTS, 2 or more, side by side in one program.
        seed: Of everything random; the same seed gives the same draws.
        live_points: Of nested sampling.
        batch: Points that nested sampling evaluates side by side.
        max_calls: Budget of likelihood evaluations; what is there when it is used up comes back as not valid.
        progress: Called as ``progress(what, done, total)``; total is 0 where nobody knows.

    Returns:
        The draws with their quality.

    Raises:
        NuebarError: In single precision, for arguments that make no sense, if the likelihood is not finite at the
            start, or if the package of the method is missing.
    """
    require_x64()
    began = time.perf_counter()
    target = _target(log_likelihood, log_prior, names, lower, upper)
    _check_numbers(n_samples=(n_samples, 2), live_points=(live_points, 20), batch=(batch, 1), seed=(seed, 0))
    tick = progress or (lambda *_: None)
    budget = MOST_CALLS if max_calls is None else int(max_calls)
    _check_numbers(max_calls=(budget, 1))
    if method == "nuts":
        _check_numbers(chains=(chains, 2))
        _blackjax()
        found = _nuts(target, _frame(target, start, covariance), n_samples, chains, seed, budget, tick)
    elif method == "nested":
        frame = None if covariance is None else _frame(target, start, covariance)
        found = _nested(target, frame, tuple(names), n_samples, seed, live_points, batch, budget, tick)
    else:
        raise NuebarError(f"sampling: method is 'nuts' or 'nested', got {method!r}")
    return Samples(method=method, names=tuple(names), seconds=time.perf_counter() - began, **found)


# The posterior in a box, and in all of space


class _Target(eqx.Module):
    """Likelihood and prior in a box, and the map from all of space to it."""

    log_likelihood: LogDensity
    log_prior: LogDensity | None
    lower: Array
    upper: Array

    def parameters(self, y: Array) -> Array:
        """The point of the box."""
        return self.lower + (self.upper - self.lower) * jax.nn.sigmoid(y)

    def log_jacobian(self, y: Array) -> Array:
        """Logarithm of |dx/dy| in units of the box: the density of y under the flat prior."""
        return (jax.nn.log_sigmoid(y) + jax.nn.log_sigmoid(-y)).sum()

    def prior(self, x: Array) -> Array:
        """Logarithm of the prior over the flat one."""
        return jnp.zeros(()) if self.log_prior is None else self.log_prior(x)

    def posterior(self, x: Array) -> Array:
        """Logarithm of likelihood × prior."""
        return self.log_likelihood(x) + self.prior(x)

    def __call__(self, y: Array) -> Array:
        """Logarithm of the posterior density of y."""
        return self.posterior(self.parameters(y)) + self.log_jacobian(y)


class _Frame(NamedTuple):
    """Whitened coordinates q of space: y = origin + axes @ q."""

    origin: Any
    axes: Any


def _target(
    log_likelihood: LogDensity, log_prior: LogDensity | None, names: Sequence[str], lower: ArrayLike, upper: ArrayLike
) -> _Target:
    low, high = np.asarray(lower, float), np.asarray(upper, float)
    d = len(names)
    if d == 0 or len(set(names)) != d or low.shape != (d,) or high.shape != (d,):
        raise NuebarError(
            f"sampling: expected different names and as many walls as names, got names {list(names)} and walls of "
            f"shapes {low.shape} and {high.shape}"
        )
    for name, a, b in zip(names, low, high, strict=True):
        if not -math.inf < a < b < math.inf:
            raise NuebarError(f"sampling: {name!r} needs finite walls, lower < upper, got {a:g} and {b:g}")
    return _Target(log_likelihood, log_prior, jnp.asarray(low), jnp.asarray(high))


def _check_numbers(**numbers: tuple[int, int]) -> None:
    for name, (value, least) in numbers.items():
        if value != int(value) or value < least:
            raise NuebarError(f"sampling: {name} is a whole number of at least {least}, got {value}")


def _frame(target: _Target, start: ArrayLike | None, covariance: ArrayLike | None) -> _Frame:
    """Whitening at the start, from the covariance of the parameters or the second derivatives."""
    low, high = np.asarray(target.lower), np.asarray(target.upper)
    d, width = low.size, high - low
    if covariance is not None:
        covariance = np.asarray(covariance, float)
        good = covariance.shape == (d, d) and np.isfinite(covariance).all() and (np.diag(covariance) > 0).all()
        if not good or not (np.linalg.eigvalsh(_correlation(covariance)) > 1e-10).all():
            raise NuebarError(f"sampling: expected a positive definite covariance of shape {(d, d)}, got {covariance}")
    if start is None:
        y = _climb(target)
    else:
        x = np.asarray(start, float)
        if x.shape != (d,) or not ((low <= x) & (x <= high)).all():
            raise NuebarError(f"sampling: expected a start of shape {(d,)} inside the walls, got {x.tolist()}")
        margin = 1e-3 * width if covariance is None else np.minimum(0.5 * np.sqrt(np.diag(covariance)), 0.1 * width)
        x = np.clip(x, low + margin, high - margin)
        y = np.log((x - low) / (high - x))
    value = float(_value(target, y))
    if not np.isfinite(value):
        x = low + width * expit(y)
        raise NuebarError(
            f"sampling: ln of likelihood and prior is {value} at {x.tolist()}; start where both are finite"
        )
    if covariance is None:
        spread = _inverse_magnitude(-np.asarray(_hessian(target, y)))
    else:
        slope = width * expit(y) * expit(-y)  # dx/dy
        spread = covariance / np.outer(slope, slope)
    shrink = np.minimum(1.0, LOGISTIC_SIGMA / np.sqrt(np.diag(spread)))
    return _Frame(y, np.linalg.cholesky(spread * np.outer(shrink, shrink)))


def _correlation(covariance: np.ndarray) -> np.ndarray:
    sigma = np.sqrt(np.diag(covariance))
    return covariance / np.outer(sigma, sigma)


def _inverse_magnitude(hessian: np.ndarray) -> np.ndarray:
    """Inverse of a matrix with its eigenvalues made positive; where it is flat or not finite, the logistic width."""
    floor = LOGISTIC_SIGMA**-2
    if not np.isfinite(hessian).all():
        return np.eye(len(hessian)) / floor
    values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
    return (vectors / np.maximum(np.abs(values), floor)) @ vectors.T


def _climb(target: _Target) -> np.ndarray:
    """The maximum in space, from the middle of the box."""

    def down(y: np.ndarray) -> tuple[float, np.ndarray]:
        got = _value_and_slope(target, y)
        value, slope = -float(got[0]), -np.asarray(got[1], float)
        return (value, slope) if np.isfinite(value) and np.isfinite(slope).all() else (1e300, np.zeros_like(slope))

    return np.asarray(minimize(down, np.zeros(target.lower.size), jac=True, method="L-BFGS-B").x, float)


@eqx.filter_jit
def _value(target: _Target, y: ArrayLike) -> Array:
    return target(jnp.asarray(y))


@eqx.filter_jit
def _value_and_slope(target: _Target, y: ArrayLike) -> tuple[Array, Array]:
    return jax.value_and_grad(target)(jnp.asarray(y))


@eqx.filter_jit
def _hessian(target: _Target, y: ArrayLike) -> Array:
    return jax.hessian(target)(jnp.asarray(y))


# NUTS


class _Chains(NamedTuple):
    """What one block of transitions gives: by transition, then by chain."""

    y: Any
    log_likelihood: Any
    divergent: Any
    steps: Any


def _nuts(
    target: _Target, frame: _Frame, n_samples: int, chains: int, seed: int, budget: int, tick: Progress
) -> dict[str, Any]:
    """Warm up in blocks, each of which whitens better, then sample in blocks of the same program."""
    each = -(-n_samples // chains)
    total = WARM_UP + -(-each // BLOCK)
    random = np.random.default_rng(seed)
    y = frame.origin + random.standard_normal((chains, frame.origin.size)) @ frame.axes.T
    step = _start_step(frame.origin.size)
    calls, done, kept = 0, 0, []
    for block in range(total):
        adapt = block < WARM_UP
        keys = random.integers(0, 2**32, (BLOCK, chains, 2), dtype=np.uint32)  # of threefry, two words each
        q = np.linalg.solve(frame.axes, (y - frame.origin).T).T
        arrays = _advance(target, frame.origin, frame.axes, q, step, keys, np.asarray(adapt))
        step, got = jax.tree.map(np.asarray, arrays)
        y = got.y[-1]
        calls += int(got.steps.sum()) + chains
        done = block + 1
        tick("warm-up" if adapt else "sampling", done * BLOCK, total * BLOCK)
        if adapt:
            frame = _whitened(frame, got.y[BLOCK // 2 :])
            step = _start_step(frame.origin.size) if done < WARM_UP else step
        else:
            kept.append(got)
        if calls >= budget and done < total:
            break
    if not kept:
        raise NuebarError(
            f"sampling: the budget of {budget} likelihood evaluations was used up by the warm-up ({done} of {WARM_UP} "
            "blocks); raise max_calls"
        )
    return _nuts_result(target, kept, each, calls, done < total)


def _nuts_result(target: _Target, kept: list[_Chains], each: int, calls: int, cut: bool) -> dict[str, Any]:
    whole = _Chains(*(np.concatenate(parts)[:each].swapaxes(0, 1) for parts in zip(*kept, strict=True)))
    draws = np.asarray(target.lower) + np.asarray(target.upper - target.lower) * expit(whole.y)
    chains, _, d = draws.shape
    values = draws.reshape(-1, d)
    effective, r_hat = effective_sizes(draws), split_r_hat(draws)
    divergent = float(np.mean(whole.divergent))
    wrong = []
    if cut:
        wrong.append(f"the budget was used up after {draws.shape[1]} draws in every chain")
    if not (r_hat <= R_HAT).all():
        wrong.append(f"R-hat is {np.max(r_hat):.3f}, more than {R_HAT}: the chains disagree")
    if not (effective >= EFFECTIVE_PER_CHAIN * chains).all():
        wrong.append(f"{np.min(effective):.0f} effective draws, fewer than {EFFECTIVE_PER_CHAIN * chains}")
    if divergent > DIVERGENT:
        wrong.append(f"{100 * divergent:.1f} % of the transitions diverge: there is a corner or a jump")
    return {
        "values": values,
        "log_likelihood": np.asarray(whole.log_likelihood).reshape(-1),
        "mean": values.mean(axis=0),
        "covariance": np.atleast_2d(np.cov(values, rowvar=False)),
        "effective": effective,
        "r_hat": r_hat,
        "divergent": divergent,
        "log_evidence": None,
        "log_evidence_error": None,
        "n_calls": calls,
        "valid": not wrong,
        "reason": "; ".join(wrong),
    }


def _whitened(frame: _Frame, y: np.ndarray) -> _Frame:
    """The frame of the draws seen, drawn a little towards the one they were made in; shape (n, chains, d)."""
    draws = y.reshape(-1, y.shape[-1])
    weight = len(draws) / (len(draws) + 5.0 * draws.shape[1])
    spread = weight * np.atleast_2d(np.cov(draws, rowvar=False)) + (1.0 - weight) * frame.axes @ frame.axes.T
    good = np.isfinite(spread).all() and (np.linalg.eigvalsh(_correlation(spread)) > 1e-12).all()
    return _Frame(draws.mean(axis=0), np.linalg.cholesky(spread)) if good else frame


def _blackjax() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import blackjax  # type: ignore[import-untyped]
    except ImportError as error:
        raise NuebarError("sampling with NUTS needs blackjax: pip install 'nuebar[tune]'") from error
    return blackjax


class _Step(NamedTuple):
    """Dual averaging of ln(step), Hoffman and Gelman (2014), equation 6; γ = 0.05, t0 = 10, κ = 0.75."""

    log_step: ArrayLike
    log_average: ArrayLike
    error: ArrayLike
    t: ArrayLike
    centre: ArrayLike

    def updated(self, acceptance: Array) -> _Step:
        """After one more transition."""
        t = self.t + 1.0
        error = self.error + (ACCEPTANCE - acceptance - self.error) / (t + 10.0)
        log_step = self.centre - jnp.sqrt(t) / 0.05 * error
        fresh = t**-0.75
        return _Step(log_step, fresh * log_step + (1.0 - fresh) * self.log_average, error, t, self.centre)


def _start_step(d: int) -> _Step:
    log_step = -0.25 * math.log(d)
    return _Step(*(np.asarray(a) for a in (log_step, log_step, 0.0, 0.0, log_step + math.log(2.0))))


@eqx.filter_jit
def _advance(
    target: _Target,
    origin: ArrayLike,
    axes: ArrayLike,
    q: ArrayLike,
    step: _Step,
    keys: ArrayLike,
    adapt: ArrayLike,
) -> tuple[_Step, _Chains]:
    """A block of transitions of all chains, side by side; one program for warm-up and sampling."""
    blackjax = _blackjax()
    kernel = blackjax.nuts.build_kernel()
    origin, axes = jnp.asarray(origin), jnp.asarray(axes)
    unit = jnp.ones_like(origin)

    def space(q: Array) -> Array:
        return origin + (axes * q).sum(axis=1)

    def log_density(q: Array) -> Array:
        return target(space(q))

    def move(carry: tuple[Any, _Step], keys: Array) -> tuple[tuple[Any, _Step], Any]:
        states, step = carry
        size = jnp.exp(jnp.where(adapt, step.log_step, step.log_average))

        def one(key: Array, state: Any) -> tuple[Any, Any]:
            return kernel(key, state, log_density, size, unit, MAX_DOUBLINGS)

        states, info = jax.vmap(one)(jax.random.wrap_key_data(keys, impl="threefry2x32"), states)
        after = step.updated(jnp.nan_to_num(info.acceptance_rate).mean())
        step = jax.tree.map(lambda a, b: jnp.where(adapt, a, b), after, step)
        return (states, step), (states.position, states.logdensity, info.is_divergent, info.num_integration_steps)

    states = jax.vmap(lambda q: blackjax.nuts.init(q, log_density))(jnp.asarray(q))
    step = jax.tree.map(jnp.asarray, step)
    (_, step), (positions, values, divergent, steps) = jax.lax.scan(move, (states, step), jnp.asarray(keys))
    y = jax.vmap(jax.vmap(space))(positions)
    extra = jax.vmap(jax.vmap(lambda y: target.log_jacobian(y) + target.prior(target.parameters(y))))(y)
    return step, _Chains(y, values - extra, divergent, steps)


# Nested sampling


def _nested(
    target: _Target,
    frame: _Frame | None,
    names: tuple[str, ...],
    n_samples: int,
    seed: int,
    live_points: int,
    batch: int,
    budget: int,
    tick: Progress,
) -> dict[str, Any]:
    """Run UltraNest on the unit cube, whose points are first made prior draws of the whitened space or the box."""
    low, high = np.asarray(target.lower), np.asarray(target.upper)
    space = None if frame is None else _Frame(frame.origin, STUDENT_SCALE * frame.axes)
    calls, undefined = 0, 0

    def log_likelihood(points: np.ndarray) -> np.ndarray:
        nonlocal calls, undefined
        values = _in_batches(target, space, points, batch)
        calls += len(points)
        undefined += int(np.isnan(values).sum())
        if (values == np.inf).any():
            raise NuebarError(f"sampling: ln of likelihood and prior is +inf at {points[values == np.inf][0].tolist()}")
        tick("nested sampling", calls, 0)
        return np.where(np.isfinite(values), values, LOG_ZERO)

    def transform(cube: np.ndarray) -> np.ndarray:
        return low + (high - low) * cube if frame is None else stdtrit(STUDENT_NU, cube)

    with _quiet_ultranest(seed) as (ultranest, mlfriends):
        sampler = ultranest.ReactiveNestedSampler(
            list(names), log_likelihood, transform, log_dir=None, vectorized=True, ndraw_min=DRAWN
        )
        got = sampler.run(
            show_status=False,
            viz_callback=False,
            log_interval=1,  # how many points are proposed would otherwise depend on the clock
            min_num_live_points=live_points,
            max_ncalls=budget,
            min_ess=EFFECTIVE_NESTED,
            region_class=mlfriends.MLFriends if frame is None else mlfriends.RobustEllipsoidRegion,
        )
    return _nested_result(target, space, got, n_samples, seed, calls, undefined, calls >= budget)


def _nested_result(
    target: _Target,
    space: _Frame | None,
    got: dict[str, Any],
    n_samples: int,
    seed: int,
    calls: int,
    undefined: int,
    cut: bool,
) -> dict[str, Any]:
    weighted = got["weighted_samples"]
    weights, points = np.asarray(weighted["weights"], float), np.asarray(weighted["points"], float)
    weights = weights / weights.sum()
    seen = weights > 0.0
    weights, points, values = weights[seen], points[seen], np.asarray(weighted["logl"], float)[seen]
    x = points if space is None else np.asarray(_into_box(target, space, points))
    mean = weights @ x
    moved = x - mean
    effective = 1.0 / (weights**2).sum()
    rows = _systematic(weights, max(1, min(n_samples, int(effective))), seed)
    wrong = []
    if cut:
        wrong.append("the budget of likelihood evaluations was used up")
    if undefined:
        wrong.append(f"the likelihood or the prior is NaN at {undefined} of {calls} points")
    if effective < EFFECTIVE_NESTED:
        wrong.append(f"{effective:.0f} effective draws, fewer than {EFFECTIVE_NESTED}")
    if not got["insertion_order_MWW_test"]["converged"]:
        wrong.append("the insertion orders of the live points are not uniform")
    return {
        "values": x[rows],
        "log_likelihood": values[rows] - np.asarray(_excess(target, space, points[rows])),
        "mean": mean,
        "covariance": (moved * weights[:, None]).T @ moved / (1.0 - (weights**2).sum()),
        "effective": np.full(x.shape[1], effective),
        "r_hat": None,
        "divergent": None,
        "log_evidence": float(got["logz"]),
        "log_evidence_error": float(got["logzerr"]),
        "n_calls": calls,
        "valid": not wrong,
        "reason": "; ".join(wrong),
    }


def _log_student(z: Array) -> Array:
    """Logarithm of the density of Student's t, summed over the variables."""
    half = 0.5 * (STUDENT_NU + 1.0)
    norm = gammaln(half) - gammaln(0.5 * STUDENT_NU) - 0.5 * math.log(STUDENT_NU * math.pi)
    return (norm - half * jnp.log1p(z * z / STUDENT_NU)).sum()


def _box_and_excess(target: _Target, space: _Frame | None, z: Array) -> tuple[Array, Array]:
    """The point of the box, and what the likelihood that nested sampling sees has more than the real one."""
    if space is None:
        return z, target.prior(z)
    y = space.origin + (space.axes * z).sum(axis=1)
    x = target.parameters(y)
    log_volume = jnp.log(jnp.abs(jnp.diag(space.axes))).sum()  # axes are triangular
    return x, target.prior(x) + target.log_jacobian(y) + log_volume - _log_student(z)


@eqx.filter_jit
def _into_box(target: _Target, space: _Frame | None, points: ArrayLike) -> Array:
    return jax.vmap(lambda z: _box_and_excess(target, space, z)[0])(jnp.asarray(points))


@eqx.filter_jit
def _excess(target: _Target, space: _Frame | None, points: ArrayLike) -> Array:
    return jax.vmap(lambda z: _box_and_excess(target, space, z)[1])(jnp.asarray(points))


def _in_batches(target: _Target, space: _Frame | None, points: np.ndarray, batch: int) -> np.ndarray:
    """Logarithm of likelihood × prior as nested sampling sees it: one program for any number of points."""
    room = batch * -(-BUFFER // batch)
    parts = []
    for first in range(0, len(points), room):
        part = points[first : first + room]
        buffer = np.concatenate([part, np.repeat(part[-1:], room - len(part), axis=0)])
        values = _batches(target, space, buffer.reshape(-1, batch, points.shape[1]), -(-len(part) // batch))
        parts.append(np.asarray(values)[: len(part)])
    return np.concatenate(parts)


@eqx.filter_jit
def _batches(target: _Target, space: _Frame | None, points: ArrayLike, n: ArrayLike) -> Array:
    points = jnp.asarray(points)

    def one(z: Array) -> Array:
        x, excess = _box_and_excess(target, space, z)
        return target.log_likelihood(x) + excess

    def fill(k: Array, values: Array) -> Array:
        return values.at[k].set(jax.vmap(one)(points[k]))

    return jax.lax.fori_loop(0, jnp.asarray(n), fill, jnp.zeros(points.shape[:2])).reshape(-1)


def _systematic(weights: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Rows of n equally weighted draws (systematic resampling), shuffled."""
    random = np.random.default_rng(seed)
    edges = np.cumsum(weights)
    rows = np.searchsorted(edges / edges[-1], (np.arange(n) + random.uniform()) / n)
    return random.permutation(np.minimum(rows, len(weights) - 1))


@contextmanager
def _quiet_ultranest(seed: int) -> Iterator[Any]:
    """UltraNest without words and files; NumPy's global generator, which it uses, is put back afterwards."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ultranest  # type: ignore[import-untyped]
            from ultranest import mlfriends
    except ImportError as error:
        raise NuebarError("nested sampling needs ultranest: pip install 'nuebar[tune]'") from error
    logger = logging.getLogger("ultranest")
    if not logger.handlers:  # it would add one that writes to the terminal
        logger.addHandler(logging.NullHandler())
    level, propagate = logger.level, logger.propagate
    state = np.random.get_state()
    try:
        logger.setLevel(logging.CRITICAL)
        logger.propagate = False
        np.random.seed(seed % 2**32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield ultranest, mlfriends
    finally:
        np.random.set_state(state)
        logger.setLevel(level)
        logger.propagate = propagate


# Diagnostics


def split_r_hat(draws: np.ndarray) -> np.ndarray:
    """Split R̂: how much wider the chains are together than each of their halves.

    Vehtari et al. (2021), equations 1 to 4, on halves of chains.

    Args:
        draws: Shape ``(chains, n, d)``, n of 4 or more.

    Returns:
        Shape ``(d,)``; 1 for chains that agree, infinity for those that stand still at different points.
    """
    halves = _halves(draws)
    n = halves.shape[1]
    within = halves.var(axis=1, ddof=1).mean(axis=0)
    between = halves.mean(axis=1).var(axis=0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.sqrt((n - 1) / n + between / within)
    return np.where(within > 0, ratio, np.inf)


def effective_sizes(draws: np.ndarray) -> np.ndarray:
    """Effective sample size of the mean or of the variance, whichever is smaller.

    Autocorrelations of all half chains together, summed by Geyer's initial monotone sequence: Vehtari et al. (2021),
    equations 10 to 13. Chains of NUTS alternate, so that means are often worth more than as many independent draws
    and variances less.

    Args:
        draws: Shape ``(chains, n, d)``, n of 4 or more.

    Returns:
        Shape ``(d,)``; at most ``chains · n · log10(chains · n)``, 0 for chains that stand still.
    """
    halves = _halves(draws)
    squares = (halves - halves.mean(axis=(0, 1))) ** 2
    return np.minimum(_effective(halves), _effective(squares))


def _effective(halves: np.ndarray) -> np.ndarray:
    m, n, d = halves.shape
    moved = halves - halves.mean(axis=1, keepdims=True)
    size = 2 ** int(np.ceil(np.log2(2 * n)))
    spectrum = np.abs(np.fft.rfft(moved, size, axis=1)) ** 2
    covariance = np.fft.irfft(spectrum, size, axis=1)[:, :n].mean(axis=0) / n
    within = covariance[0] * n / (n - 1)
    total = covariance[0] + halves.mean(axis=1).var(axis=0, ddof=1)
    out = np.zeros(d)
    for k in range(d):
        if within[k] > 0:
            rho = 1.0 - (within[k] - covariance[:, k]) / total[k]
            rho[0] = 1.0
            out[k] = m * n / max(_geyer(rho), 1.0 / np.log10(m * n))
    return out


def _geyer(rho: np.ndarray) -> float:
    """-1 + 2 Σ of the pairs ρ_2k + ρ_(2k+1) while they are positive, none larger than the one before."""
    pairs = rho[: 2 * (len(rho) // 2)].reshape(-1, 2).sum(axis=1)
    stop = np.flatnonzero(pairs <= 0)
    pairs = pairs[: stop[0]] if stop.size else pairs
    return float(-1.0 + 2.0 * np.minimum.accumulate(pairs).sum()) if pairs.size else 0.0


def _halves(draws: np.ndarray) -> np.ndarray:
    draws = np.asarray(draws, float)
    if draws.ndim != 3 or draws.shape[1] < 4:
        raise NuebarError(f"chains: expected shape (chains, n, d) with n of 4 or more, got {draws.shape}")
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])
