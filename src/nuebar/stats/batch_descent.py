"""Descents of many small problems side by side: toys, starts, points of a scan.

Both descents are loops in numpy around a function that is compiled once and evaluates many points at a time; points
that have arrived are not evaluated again. Parameters are rows of one array, one row a problem.

* `quasi_newton` needs cost and slope only. It starts from one curvature for all problems, exact where they are all
  alike, and corrects it for each by Broyden, Fletcher, Goldfarb and Shanno's update (Nocedal and Wright, Numerical
  Optimization, 2nd edition, equation 6.17). It stops at walls and at anything strange.
* `levenberg_marquardt` takes the curvature JᵀJ of every point and is given what remains: the rules of
  `nuebar.stats.gauss_newton` (Moré 1978), with limits by projection.

The cost is a sum of squares rᵀr, the slope Jᵀr, the curvature JᵀJ, as there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nuebar.errors import NuebarError

__all__ = ["Descents", "levenberg_marquardt", "quasi_newton"]

Slopes = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
Curvatures = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]

_SHORTER = 0.25
_ARMIJO = 1e-4
_ROUNDING = 1e-12  # of the cost: what counts as no rise
_CURVED = 1e-8  # sᵀy over |s| |y|: less is no curvature
_RIDGE = 1e-12
_DAMPING_START, _DAMPING_LOWEST, _DAMPING_HIGHEST = 1e-4, 1e-12, 1e14


class Descents(NamedTuple):
    """Where many descents ended.

    Attributes:
        values: Shape `(n, d)`.
        cost: Shape `(n,)`.
        edm: Estimated distance to the minimum in units of the cost, `(n,)`.
        n_calls: Evaluations of each problem, `(n,)`.
        converged: Whether `edm` reached the tolerance, `(n,)`.
    """

    values: np.ndarray
    cost: np.ndarray
    edm: np.ndarray
    n_calls: np.ndarray
    converged: np.ndarray


def quasi_newton(
    evaluate: Slopes,
    start: np.ndarray,
    curvature: np.ndarray,
    *,
    lower: np.ndarray,
    upper: np.ndarray,
    n_iterations: int = 20,
    tol: float = 1e-8,
) -> Descents:
    """Descend with one curvature for all, corrected on the way.

    Args:
        evaluate: From numbers of problems, shape `(m,)`, and their points, `(m, d)`, to costs, `(m,)`, and slopes
            Jᵀr, `(m, d)`.
        start: Shape `(n, d)`, inside the limits.
        curvature: JᵀJ somewhere near, shape `(d, d)`, positive definite.
        lower: Lower limits, shape `(d,)`; a descent that would cross one ends there and is not converged.
        upper: Upper limits, likewise.
        n_iterations: Most evaluations of one problem after the first.
        tol: Stop when the estimated distance to the minimum is below it.

    Raises:
        NuebarError: The curvature is not positive definite.
    """
    unit = 1.0 / np.sqrt(np.diag(curvature))
    try:
        root = np.linalg.cholesky(curvature * np.outer(unit, unit))
    except np.linalg.LinAlgError as error:
        raise NuebarError("many fits: the curvature at the start is not positive definite; fix a parameter") from error
    axes = unit[:, None] * np.linalg.inv(root).T  # x = axes z: the curvature is one in z
    n, d = start.shape
    x, calls = start.copy(), np.ones(n, int)
    cost, slope = (np.array(a, float) for a in evaluate(np.arange(n), x))
    slope = slope @ axes
    edm = (slope**2).sum(axis=1)
    left = np.flatnonzero(np.isfinite(cost) & np.isfinite(edm) & ~(edm <= tol))
    inverse = np.tile(np.eye(d), (left.size, 1, 1))
    step = -slope[left]
    for _ in range(n_iterations):
        trial = x[left] + step @ axes.T
        inside = ((trial >= lower) & (trial <= upper)).all(axis=1)
        left, inverse, step, trial = left[inside], inverse[inside], step[inside], trial[inside]
        if not left.size:
            break
        new_cost, new_slope = (np.asarray(a, float) for a in evaluate(left, trial))
        new_slope = new_slope @ axes
        calls[left] += 1
        old, promised = cost[left], 2.0 * (slope[left] * step).sum(axis=1)
        good = np.isfinite(new_cost) & np.isfinite(new_slope).all(axis=1)
        good &= new_cost <= old + _ARMIJO * promised + _ROUNDING * np.abs(old)
        _correct(inverse, step, np.where(good[:, None], new_slope - slope[left], 0.0), good)
        there = left[good]
        x[there], cost[there], slope[there] = trial[good], new_cost[good], new_slope[good]
        ahead = -np.einsum("nij,nj->ni", inverse, slope[left])
        edm[left] = np.where(good, -(slope[left] * ahead).sum(axis=1), edm[left])
        step = np.where(good[:, None], ahead, _SHORTER * step)
        going = ~(edm[left] <= tol) & (edm[left] >= 0)
        left, inverse, step = left[going], inverse[going], step[going]
    return Descents(x, cost, edm, calls, (edm <= tol) & (edm >= 0))


def _correct(inverse: np.ndarray, s: np.ndarray, y: np.ndarray, good: np.ndarray) -> None:
    """BFGS's update of inverse curvatures in place, where it keeps them positive."""
    product = (s * y).sum(axis=1)
    usable = good & (product > _CURVED * np.linalg.norm(s, axis=1) * np.linalg.norm(y, axis=1))
    rho = np.where(usable, 1.0 / np.where(usable, product, 1.0), 0.0)
    hy = np.einsum("nij,nj->ni", inverse, y)
    yhy = (y * hy).sum(axis=1)
    inverse += (rho * (1.0 + rho * yhy))[:, None, None] * s[:, :, None] * s[:, None, :]
    cross = hy[:, :, None] * s[:, None, :]
    inverse -= rho[:, None, None] * (cross + cross.swapaxes(1, 2))


def levenberg_marquardt(
    evaluate: Curvatures,
    start: np.ndarray,
    *,
    lower: np.ndarray,
    upper: np.ndarray,
    n_iterations: int = 100,
    tol: float = 1e-8,
) -> Descents:
    """Descend with the curvature of every point, inside limits.

    Args:
        evaluate: As for `quasi_newton`, and the curvatures, `(m, d, d)`, behind the costs and slopes.
        start: Shape `(n, d)`, inside the limits.
        lower: Lower limits, shape `(d,)`.
        upper: Upper limits.
        n_iterations: Most evaluations of one problem after the first.
        tol: Stop when the estimated distance to the minimum inside the limits is below it.
    """
    n, d = start.shape
    x, calls = start.copy(), np.ones(n, int)
    cost, slope, normal = (np.array(a, float) for a in evaluate(np.arange(n), x))
    bad = ~_finite(cost, slope, normal)
    slope[bad], normal[bad] = 0.0, np.eye(d)
    cost[bad] = np.inf
    damping = np.full(n, _DAMPING_START)
    edm = np.where(bad, np.inf, _distance(x, slope, normal, lower, upper))
    for _ in range(n_iterations):
        left = np.flatnonzero(~(edm <= tol) & (damping < _DAMPING_HIGHEST) & ~bad)
        if not left.size:
            break
        g, a = slope[left], normal[left]
        moved = np.clip(x[left] - _solved(x[left], g, a, g, damping[left], lower, upper), lower, upper) - x[left]
        promised = -(2.0 * (g * moved).sum(axis=1) + np.einsum("ni,nij,nj->n", moved, a, moved))
        trial = x[left] + moved
        found = [np.asarray(v, float) for v in evaluate(left, trial)]
        calls[left] += 1
        accept = _finite(*found) & (found[0] <= cost[left])
        with np.errstate(invalid="ignore"):
            ratio = (cost[left] - found[0]) / np.where(promised > 0, promised, 1.0)
        factor = np.where(accept, np.where(ratio > 0.75, 0.1, np.where(ratio > 0.25, 1.0, 4.0)), 10.0)
        damping[left] = np.clip(damping[left] * factor, _DAMPING_LOWEST, _DAMPING_HIGHEST)
        there = left[accept]
        x[there], cost[there], slope[there], normal[there] = (v[accept] for v in (trial, *found))
        edm[there] = _distance(x[there], slope[there], normal[there], lower, upper)
    return Descents(x, cost, edm, calls, edm <= tol)


def _finite(cost: np.ndarray, slope: np.ndarray, normal: np.ndarray) -> np.ndarray:
    return np.isfinite(cost) & np.isfinite(slope).all(axis=1) & np.isfinite(normal).all(axis=(1, 2))


def _distance(x: np.ndarray, slope: np.ndarray, normal: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    edm = (slope * _solved(x, slope, normal, slope, np.zeros(len(x)), lower, upper)).sum(axis=1)
    return np.where(edm >= 0, edm, np.inf)


def _solved(
    x: np.ndarray,
    slope: np.ndarray,
    normal: np.ndarray,
    right: np.ndarray,
    damping: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
) -> np.ndarray:
    """(A + damping)⁻¹ applied to `right` in Moré's units, over the parameters that no limit holds."""
    diagonal = np.diagonal(normal, axis1=1, axis2=2)
    out = ((x <= lower) & (slope > 0)) | ((x >= upper) & (slope < 0)) | ~(diagonal > 0)
    scale = np.where(out, 0.0, 1.0 / np.sqrt(np.where(out, 1.0, diagonal)))
    stiff = normal * scale[:, :, None] * scale[:, None, :]
    k = np.arange(x.shape[1])
    stiff[:, k, k] = np.where(out, 1.0, stiff[:, k, k]) + damping[:, None] + _RIDGE
    return scale * np.linalg.solve(stiff, (scale * right)[:, :, None])[:, :, 0]
