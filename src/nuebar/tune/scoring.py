"""Thousands of fits at once: ln p of every bin as a polynomial of the response, and ln L of every data set from it.

ln L of a data set is the dot product of its weights with the table ln p(φ). Within some standard deviations of a point
the table is smooth in φ, so it is replaced by its Chebyshev interpolant in whitened parameters, truncated at a total
degree: then ln L of D data sets are D polynomials, whose coefficients are one matrix product, and fits and posteriors
cost no further look at the density, but for a last step of every fit with the density's own gradient. How far the
polynomials are from the density is measured for every data set.

A data set's likelihood is that of :mod:`nuebar.tune.likelihood` with norms in closed form and without background.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike
from scipy.stats import norm, qmc

from nuebar.errors import NuebarError
from nuebar.tune.density import RESPONSE, Density, response_vector
from nuebar.tune.likelihood import ResponseLikelihood, ResponseProblem, Table, table_of, with_slopes

__all__ = ["BatchFits", "BatchPosteriors", "Surrogate", "batched_fits", "batched_posteriors"]

REACH = 6.0
"""Half width of the region of the polynomials in standard deviations of the whitened parameters."""

ORDERS = (4, 6, 8, 12)
TOLERANCE = 0.1
"""Of ln L at the points of the check, of which it is the largest difference. Best fits do not feel it, as they end with
a step of the density itself; shares of a posterior change by a third of the typical difference."""

_N = len(RESPONSE)
_BATCH = 64
_CHECKS = 32  # points at which polynomials and density are compared
_CHECK_WIDTH = 2.0  # standard deviations of these points: a best fit's and a posterior's add up to 1.4
_CENTRE_TOLERANCE = 1e-3  # of χ²: the centre need not be the best fit of anything
_SHIFT = 0.05
"""Of that step, in standard deviations: where it is longer, another one follows. What the last one leaves is its square
times the skewness of ln L and less than 0.01 standard deviations."""

_POLISHES = 4
_STEPS = 60
_LONGEST = 3.0  # a Newton step in standard deviations
_DONE = 1e-10  # Newton's estimate of the distance in χ²
_SOFTEST = 0.1  # least curvature of a Newton step; near one where the whitening is right
_WIDER = 1.25  # proposals of importance sampling in standard deviations


@dataclass(frozen=True, eq=False)
class Surrogate:
    """ln p around a point as polynomials.

    Attributes:
        centre: Response at the middle, shape ``(3,)``.
        axes: Response = centre + axes @ u; u is whitened, shape ``(3, 3)``.
        reach: Polynomials hold for |u| up to here.
        order: Total degree.
        middle: ln p at the centre, shape ``(entries,)``.
        terms: Coefficients of ln p − middle, shape ``(terms, entries)``.
        exponents: Degrees of every term in the three u, shape ``(terms, 3)``.
        check: u of the points of the check, shape ``(points, 3)``.
        check_table: ln p − middle there, shape ``(points, entries)``.
        limits: Box of the response.
        nodes: Evaluations of the density.
    """

    centre: np.ndarray
    axes: np.ndarray
    reach: float
    order: int
    middle: np.ndarray
    terms: np.ndarray
    exponents: np.ndarray
    check: np.ndarray
    check_table: np.ndarray
    limits: np.ndarray
    nodes: int

    @classmethod
    def build(
        cls, table: Table, centre: np.ndarray, axes: np.ndarray, limits: np.ndarray, order: int, reach: float = REACH
    ) -> Surrogate:
        """Evaluate a table at (order + 1)³ Chebyshev nodes.

        Nodes may lie beyond the box, where networks are as smooth as inside; data sets are never compared there.

        Args:
            table: Response to ln p, shape ``(sources, entries)``.
            centre: Middle, in the box.
            axes: A root of the covariance of the smallest data set.
            limits: (low, high), shape ``(3, 2)``.
            order: Total degree of the polynomials.
            reach: Half width in standard deviations.

        Raises:
            NuebarError: The table is not finite somewhere.
        """
        nodes = np.cos(np.pi * (np.arange(order + 1) + 0.5) / (order + 1))
        t = np.array(list(itertools.product(nodes, repeat=_N)))
        check = _check_points(centre, axes, limits, reach)
        u = np.concatenate([np.zeros((1, _N)), reach * t, check])
        values = _tables(table, centre + u @ axes.T)
        bad = ~np.isfinite(values).all(axis=1)
        if bad.any():
            where = ", ".join(f"{x:.6g}" for x in (centre + u[bad] @ axes.T)[0])
            raise NuebarError(f"the density's ln p is not finite at {where}; train it on a wider grid or stay inside")
        middle = values[0]
        rows = values[1:] - middle
        exponents = np.array([e for e in itertools.product(range(order + 1), repeat=_N) if sum(e) <= order])
        cosines = _chebyshev(t, order)[0]
        analysis = _products(cosines, exponents) * np.prod(np.where(exponents > 0, 2.0, 1.0), axis=1) / len(t)
        terms = analysis.T @ rows[: len(t)]
        return cls(centre, axes, reach, order, middle, terms, exponents, check, rows[len(t) :], limits, len(u))

    def coefficients(self, weights: np.ndarray) -> np.ndarray:
        """Polynomials of ln L over its value at the centre, shape ``(sets, terms)``; weights ``(sets, entries)``."""
        return weights @ self.terms.T

    def error(self, weights: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        """Largest difference from the density's ln L at the points of the check, shape ``(sets,)``."""
        basis = _products(_chebyshev(self.check / self.reach, self.order)[0], self.exponents)
        return np.asarray(np.abs(coefficients @ basis.T - weights @ self.check_table.T).max(axis=1))

    def response(self, u: np.ndarray) -> np.ndarray:
        """Response of whitened points."""
        return self.centre + u @ self.axes.T

    def whitened(self, response: np.ndarray) -> np.ndarray:
        """Whitened points of responses."""
        return np.linalg.solve(self.axes, (np.asarray(response) - self.centre).T).T


@dataclass(frozen=True, eq=False)
class BatchFits:
    """Best fits of many data sets.

    Attributes:
        best: Shape ``(sets, 3)``, in the box.
        errors: From the expected information at the best fit, shape ``(sets, 3)``.
        covariance: Shape ``(sets, 3, 3)``.
        log_likelihood: At the best fit, shape ``(sets,)``; :func:`nuebar.tune.likelihood.ResponseLikelihood` has the
            same.
        at_limit: On a wall of the box, shape ``(sets, 3)``.
        valid: Converged, inside the region of the polynomials.
        shift: How far the last step with the density's own gradient led, in standard deviations, shape ``(sets,)``.
        interpolation_error: Largest difference in ln L between polynomials and density at points around, shape
            ``(sets,)``; it matters to posteriors.
        seconds: Wall time of everything, compilation included.
        surrogate: The polynomials.
        coefficients: Of every data set, shape ``(sets, terms)``.
    """

    best: np.ndarray
    errors: np.ndarray
    covariance: np.ndarray
    log_likelihood: np.ndarray
    at_limit: np.ndarray
    valid: np.ndarray
    shift: np.ndarray
    interpolation_error: np.ndarray
    seconds: float
    surrogate: Surrogate
    coefficients: np.ndarray


@dataclass(frozen=True, eq=False)
class BatchPosteriors:
    """Posteriors of many data sets: flat prior in the box, norms averaged over.

    Attributes:
        mean: Shape ``(sets, 3)``.
        covariance: Shape ``(sets, 3, 3)``.
        below: Posterior probability of less than the truth, shape ``(sets, 3)``; NaN without truths.
        lower_density: Posterior probability of a lower density than that at the truth, shape ``(sets,)``.
        effective: Effective number of points, shape ``(sets,)``.
    """

    mean: np.ndarray
    covariance: np.ndarray
    below: np.ndarray
    lower_density: np.ndarray
    effective: np.ndarray


def batched_fits(
    density: Density,
    weights: ArrayLike,
    around: ArrayLike,
    *,
    sources: Sequence[str] | None = None,
    unbinned: bool = False,
    orders: Sequence[int] = ORDERS,
    tolerance: float = TOLERANCE,
    reach: float = REACH,
) -> BatchFits:
    """Fit many data sets of about the same response.

    Args:
        density: Knows ln p.
        weights: Of :func:`nuebar.tune.data.weights`: counts, or weights of the knots, shape
            ``(sets, sources, entries)``. The width of the region is that of the smallest data set.
        around: Response to start from; the middle is the best fit of the sum of all data sets.
        sources: Rows of the weights; those of the density by default.
        unbinned: Whether weights are those of knots.
        orders: Degrees of the polynomials to be tried.
        tolerance: Of ln L; the first order within it is taken, else the last one.
        reach: Half width of the region in standard deviations; doubled once if a best fit lies beyond.

    Returns:
        One row a data set.

    Raises:
        NuebarError: Weights of another shape or not finite, a source without events, a start outside the box.
    """
    began = time.perf_counter()
    sources = tuple(density.sources if sources is None else sources)
    w = np.asarray(weights, float)
    entries = len(density.knots) if unbinned else len(density.edges) - 1
    if w.ndim != 3 or not len(w) or w.shape[1:] != (len(sources), entries):
        raise NuebarError(
            f"weights: expected shape (sets, {len(sources)}, {entries}), sources and entries of the density's tables, "
            f"got {w.shape}"
        )
    events = w.sum(axis=2)
    if not (np.isfinite(w).all() and (events > 0).all()):
        raise NuebarError("weights: expected finite numbers and events of every source in every set; leave sets out")
    limits = np.array(density.limits, float)
    start = response_vector(dict(zip(RESPONSE, np.asarray(around, float), strict=True)), density.limits, density.name)
    with jax.enable_x64(True):
        table = table_of(density, sources, unbinned=unbinned)
        centre, axes = _middle(density, table, w, events, start, sources, unbinned)
        flat = w.reshape(len(w), -1)
        for width in (reach, 2.0 * reach):  # twice as far where a best fit was beyond
            surrogate, coefficients, error = _polynomials(table, centre, axes, limits, flat, orders, tolerance, width)
            u, best, converged = _maximised(surrogate, coefficients)
            if (np.abs(u) <= width).all():
                break
        best, shift, covariance, height = _polished(
            table, w, events, _steps(density, w.shape[2], unbinned), best, limits
        )
    return BatchFits(
        best=best,
        errors=np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)),
        covariance=covariance,
        log_likelihood=height,
        at_limit=(best <= limits[:, 0]) | (best >= limits[:, 1]),
        valid=converged & (np.abs(u) <= width).all(axis=1) & (shift <= _SHIFT),
        shift=shift,
        interpolation_error=error,
        seconds=time.perf_counter() - began,
        surrogate=surrogate,
        coefficients=coefficients,
    )


def batched_posteriors(
    fits: BatchFits, truth: ArrayLike | None = None, *, points: int = 2048, seed: int = 0
) -> BatchPosteriors:
    """Posteriors of the data sets by importance sampling with quasi-random points.

    The share of the posterior below the truth is uniform over data sets whose truths come from the prior: it is the
    rank among infinitely many samples.

    Args:
        fits: Of :func:`batched_fits`. A posterior ends where the polynomials do: many data sets of one point want a
            reach of 9, a single one is in the middle of its own.
        truth: Responses, shape ``(3,)`` or ``(sets, 3)``.
        points: A power of two.
        seed: Of the points, which all data sets share up to a scale.
    """
    s = fits.surrogate
    sets = len(fits.best)
    z = norm.ppf(qmc.Sobol(_N, seed=np.random.default_rng(seed)).random(points))
    best = s.whitened(fits.best)
    true = None if truth is None else np.broadcast_to(np.asarray(truth, float), (sets, _N))
    mean, below = np.full((sets, _N), np.nan), np.full((sets, _N), np.nan)
    covariance, lower = np.full((sets, _N, _N), np.nan), np.full(sets, np.nan)
    effective = np.zeros(sets)
    whiten = np.linalg.inv(s.axes)
    cubes = np.zeros((sets, s.order + 1, s.order + 1, s.order + 1))
    cubes[:, *s.exponents.T] = fits.coefficients
    for i in range(sets):
        if not np.isfinite(fits.covariance[i]).all():
            continue
        root = _WIDER * np.linalg.cholesky(whiten @ fits.covariance[i] @ whiten.T)
        centre = best[i]
        for _ in range(2):  # the second time with the moments of the first, where walls cut much away
            u = centre + z @ root.T
            x = s.response(u)
            inside = ((x >= s.limits[:, 0]) & (x <= s.limits[:, 1])).all(axis=1) & (np.abs(u) <= s.reach).all(axis=1)
            log_p = _values(cubes[i], u / s.reach, s.order)
            log_w = np.where(inside, log_p + 0.5 * (z**2).sum(axis=1), -np.inf)
            w = np.exp(log_w - log_w.max()) if inside.any() else np.ones(points)
            w /= w.sum()
            effective[i] = 1 / (w @ w) if inside.any() else 0.0
            mean_u = w @ u
            d = u - mean_u
            spread = (d * w[:, None]).T @ d
            if effective[i] > 0.25 * points or effective[i] < 10:
                break
            centre, root = mean_u, _WIDER * np.linalg.cholesky(spread + 1e-9 * np.eye(_N))
        mean[i] = s.response(mean_u)
        covariance[i] = s.axes @ spread @ s.axes.T
        if true is not None:
            below[i] = np.minimum(w @ (x < true[i]), 1.0)
            at = s.whitened(true[i])
            near = (np.abs(at) <= s.reach).all()
            level = _values(cubes[i], at[None] / s.reach, s.order)[0] if near else -np.inf
            lower[i] = min(w @ (log_p < level), 1.0)
    return BatchPosteriors(mean, covariance, below, lower, effective)


def _polynomials(
    table: Table,
    centre: np.ndarray,
    axes: np.ndarray,
    limits: np.ndarray,
    weights: np.ndarray,
    orders: Sequence[int],
    tolerance: float,
    reach: float,
) -> tuple[Surrogate, np.ndarray, np.ndarray]:
    """Those of the first order that is good enough, or of the last."""
    if not orders:
        raise NuebarError("orders: expected at least one degree, got none; give one like 6")
    for order in orders:
        surrogate = Surrogate.build(table, centre, axes, limits, order, reach)
        coefficients = surrogate.coefficients(weights)
        error = surrogate.error(weights, coefficients)
        if error.max() <= tolerance:
            break
    return surrogate, coefficients, error


# --- around what ----------------------------------------------------------------------------------------------


def _middle(
    density: Density,
    table: Table,
    weights: np.ndarray,
    events: np.ndarray,
    start: np.ndarray,
    sources: tuple[str, ...],
    unbinned: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Best fit of the sum, and a root of the covariance that the smallest data set will have."""
    total = events.sum(axis=1)
    smallest = events[np.argmin(total)]
    mean = weights.sum(axis=0)
    mean *= (smallest / mean.sum(axis=1))[:, None]
    likelihood = ResponseLikelihood(
        weights=jnp.asarray(mean),
        events=jnp.asarray(smallest),
        signal=jnp.asarray(smallest),
        background=None,
        steps=jnp.asarray(_steps(density, weights.shape[2], unbinned)),
        centre=jnp.zeros(_N),
        precision=jnp.zeros((_N, _N)),
        table=table,
        sources=sources,
        limits=tuple((float(low), float(high)) for low, high in density.limits),
        unbinned=unbinned,
    )
    problem = ResponseProblem(likelihood)
    low, high = np.array(density.limits, float).T
    found = problem.descend(start, low, high, np.ones(_N, bool), 40, _CENTRE_TOLERANCE)
    centre = np.clip(np.asarray(found.values), low, high)
    information = problem.expansion(centre)[1]
    unit = np.sqrt(np.diag(information))
    if not (np.isfinite(information).all() and (unit > 0).all()):
        raise NuebarError(f"the density {density.name!r} does not depend on every response parameter around {centre}")
    # The inverse of the root of the scaled information: stable where parameters nearly compensate each other.
    root = np.linalg.cholesky(information / np.outer(unit, unit))
    axes = np.linalg.inv(root).T / unit[:, None]
    return centre, axes


def _steps(density: Density, entries: int, unbinned: bool) -> np.ndarray:
    """What of the observable an entry of the table stands for."""
    return np.gradient(np.asarray(density.knots, float)) if unbinned else np.ones(entries)


def _looked_at(
    table: Table, weights: np.ndarray, events: np.ndarray, steps: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Heights of ln L of every data set at a point of its own, its gradient and the expected information."""
    batch = min(_BATCH, 1 << (len(points) - 1).bit_length())
    parts = []
    for first in range(0, len(points), batch):
        rows = np.minimum(np.arange(first, first + batch), len(points) - 1)
        part = _look(table, weights[rows], events[rows], steps, points[rows])
        parts.append([np.asarray(a)[: len(points) - first] for a in part])
    values, gradients, informations = (np.concatenate(a) for a in zip(*parts, strict=True))
    return values, gradients, informations


@partial(jax.jit, static_argnums=0)
def _look(table: Table, weights: Array, events: Array, steps: Array, points: Array) -> tuple[Array, Array, Array]:
    def one(w: Array, n: Array, x: Array) -> tuple[Array, Array, Array]:
        values, slopes = with_slopes(table, x)
        expected = n[:, None] * jnp.exp(values) * steps
        information = jnp.einsum("sk,ski,skj->ij", expected, slopes, slopes)
        return jnp.sum(w * values), jnp.einsum("sk,ski->i", w, slopes), information

    return jax.vmap(one)(weights, events, points)


def _polished(
    table: Table, weights: np.ndarray, events: np.ndarray, steps: np.ndarray, best: np.ndarray, limits: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Steps of Fisher's scoring with the density itself; data sets on a wall stay there.

    Returns:
        Best fits, lengths of their last steps in standard deviations, covariances, and ln L.
    """
    low, high = limits.T
    best = best.copy()
    shift, covariance, height = np.full(len(best), np.inf), np.empty((len(best), _N, _N)), np.empty(len(best))
    for _ in range(_POLISHES):
        todo = np.flatnonzero(shift > _SHIFT)
        if not todo.size:
            break
        x = best[todo]
        value, gradient, information = _looked_at(table, weights[todo], events[todo], steps, x)
        unit = np.sqrt(np.diagonal(information, axis1=1, axis2=2))
        units = unit[:, :, None] * unit[:, None]
        slope, held = gradient / unit, (x <= low) | (x >= high)
        step = _newton(information / units, slope, held)
        distance = (step * slope).sum(axis=1)
        shift[todo] = np.sqrt(np.maximum(distance, 0.0))
        best[todo] = np.clip(x + step / unit, low, high)
        covariance[todo] = np.linalg.inv(information / units) / units
        height[todo] = value + 0.5 * distance
    return best, shift, covariance, height


def _check_points(centre: np.ndarray, axes: np.ndarray, limits: np.ndarray, reach: float) -> np.ndarray:
    u = np.random.default_rng(1).standard_normal((64 * _CHECKS, _N)) * _CHECK_WIDTH
    x = centre + u @ axes.T
    inside = ((x >= limits[:, 0]) & (x <= limits[:, 1])).all(axis=1) & (np.abs(u) <= reach).all(axis=1)
    u = u[inside][:_CHECKS]
    return np.concatenate([u, np.zeros((_CHECKS - len(u), _N))])


def _tables(table: Table, points: np.ndarray) -> np.ndarray:
    parts = []
    for first in range(0, len(points), _BATCH):
        part = points[first : first + _BATCH]
        filled = np.concatenate([part, np.repeat(part[-1:], _BATCH - len(part), axis=0)])
        parts.append(np.asarray(_many_tables(table, filled))[: len(part)])
    return np.concatenate(parts).reshape(len(points), -1)


@partial(jax.jit, static_argnums=0)
def _many_tables(table: Table, points: Array) -> Array:
    return jax.vmap(table)(points)


# --- polynomials ----------------------------------------------------------------------------------------------


def _chebyshev(t: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """T_k and its first two derivatives, shapes ``(..., order + 1)``."""
    rows = np.ones((3, order + 1, *t.shape))
    rows[1:, 0] = 0.0
    rows[0, 1:2], rows[2, 1:2] = t, 0.0
    for k in range(2, order + 1):
        rows[0, k] = 2 * t * rows[0, k - 1] - rows[0, k - 2]
        rows[1, k] = 2 * rows[0, k - 1] + 2 * t * rows[1, k - 1] - rows[1, k - 2]
        rows[2, k] = 4 * rows[1, k - 1] + 2 * t * rows[2, k - 1] - rows[2, k - 2]
    moved = np.moveaxis(rows, 1, -1)
    return moved[0], moved[1], moved[2]


def _products(rows: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Terms at points, shape ``(points, terms)``, from the T_k of every variable, ``(points, 3, order + 1)``."""
    return rows[:, 0, exponents[:, 0]] * rows[:, 1, exponents[:, 1]] * rows[:, 2, exponents[:, 2]]


def _values(cube: np.ndarray, t: np.ndarray, order: int) -> np.ndarray:
    """One polynomial at many points."""
    rows = _chebyshev(t, order)[0]
    inner = (cube.reshape(-1, order + 1) @ rows[:, 2].T).reshape(order + 1, order + 1, -1)
    outer = (inner * np.ascontiguousarray(rows[:, 1].T)).sum(axis=1)
    return np.asarray((outer * rows[:, 0].T).sum(axis=0))


def _value(s: Surrogate, coefficients: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Height of ln L over its value at the centre, one point for each data set, shape ``(sets,)``."""
    return np.asarray((coefficients * _products(_chebyshev(u / s.reach, s.order)[0], s.exponents)).sum(axis=1))


def _derivatives(s: Surrogate, coefficients: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same with gradient ``(sets, 3)`` and second derivatives ``(sets, 3, 3)``, by u."""
    rows = _chebyshev(u / s.reach, s.order)
    gathered = [[rows[d][:, k, s.exponents[:, k]] for d in range(3)] for k in range(_N)]

    def derivative(*degree: int) -> np.ndarray:
        term = coefficients * gathered[0][degree[0]] * gathered[1][degree[1]] * gathered[2][degree[2]]
        return np.asarray(term.sum(axis=1)) / s.reach ** sum(degree)

    unit = np.eye(_N, dtype=int)
    gradient = np.stack([derivative(*row) for row in unit], axis=1)
    hessian = np.empty((len(u), _N, _N))
    for i, j in itertools.combinations_with_replacement(range(_N), 2):
        hessian[:, i, j] = hessian[:, j, i] = derivative(*(unit[i] + unit[j]))
    return derivative(0, 0, 0), gradient, hessian


# --- all best fits --------------------------------------------------------------------------------------------


def _maximised(s: Surrogate, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Newton's method for all data sets together, walls by an active set.

    Returns:
        Whitened best fits, the same as responses, and which converged.
    """
    unit = np.sqrt(np.diag(s.axes @ s.axes.T))
    to_u = np.linalg.inv(s.axes) * unit  # u = to_u @ x, where response = centre + unit · x
    low, high = (s.limits.T - s.centre) / unit
    x = np.zeros((len(coefficients), _N))
    damping, done = np.ones(len(x)), np.zeros(len(x), bool)
    for _ in range(_STEPS):
        todo = np.flatnonzero(~done)
        if not todo.size:
            break
        here = x[todo]
        value, gradient, hessian = _derivatives(s, coefficients[todo], here @ to_u.T)
        values, vectors = np.linalg.eigh(-hessian)
        curved = (vectors * np.maximum(values, _SOFTEST)[:, None]) @ np.swapaxes(vectors, 1, 2)
        slope, normal = gradient @ to_u, to_u.T @ curved @ to_u
        held = ((here <= low) & (slope < 0)) | ((here >= high) & (slope > 0))
        step = _newton(normal, slope, held)
        distance = (step * slope).sum(axis=1)
        for _ in range(_N - 1):  # a step along others may lead through a wall on which a data set is
            held |= ((here <= low) & (step < 0)) | ((here >= high) & (step > 0))
            step = _newton(normal, slope, held)
        wall = np.where(step > 0, high, low)
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.where(step != 0, (wall - here) / step, np.inf)
        length = np.minimum(damping[todo], _LONGEST / np.maximum(np.linalg.norm(step @ to_u.T, axis=1), 1e-300))
        stopped = room <= length[:, None] * (1 + 1e-12)
        length = np.minimum(length, room.min(axis=1))
        new = here + length[:, None] * step
        first = stopped & (room <= room.min(axis=1, keepdims=True) * (1 + 1e-12))
        new = np.clip(np.where(first, wall, new), low, high)
        outside = (np.abs(new @ to_u.T) > 1.5 * s.reach).any(axis=1)  # polynomials mean nothing out there
        better = (_value(s, coefficients[todo], new @ to_u.T) > value) & ~outside
        x[todo] = np.where(better[:, None], new, here)
        damping[todo] = np.where(better, np.minimum(1.0, 2 * damping[todo]), 0.25 * damping[todo])
        done[todo] = distance < _DONE
    return x @ to_u.T, np.clip(s.centre + unit * x, *s.limits.T), done


def _newton(normal: np.ndarray, slope: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Newton's steps in the parameters that are not held, shape ``(sets, 3)``."""
    free = ~held
    reduced = np.where(free[:, :, None] & free[:, None], normal, 0.0) + np.eye(_N) * held[:, None]
    step = np.linalg.solve(reduced, np.where(free, slope, 0.0)[..., None])[..., 0]
    return np.where(free, step, 0.0)
