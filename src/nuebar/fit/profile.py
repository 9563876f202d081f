"""Profile scans and contours: Δχ² of some parameters with all others minimised."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from nuebar.errors import NuebarError
from nuebar.fit.result import FitResult
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.stats.minimise import Problem

__all__ = ["Scan", "delta_chi2_level", "scan"]

MAX_STEPS = 30
TOLERANCE = 1e-4  # estimated distance to the profiled minimum in units of χ²

Progress = Callable[[int, int], None]


def delta_chi2_level(cl: float, dof: int) -> float:
    """Δχ² that a region with this confidence level and number of parameters reaches (Wilks).

    Args:
        cl: Probability content, in (0, 1), e.g. 0.6827.
        dof: Number of parameters of the region: 1 for an interval, 2 for a contour.

    Raises:
        NuebarError: The level is not between 0 and 1.
    """
    if not 0 < cl < 1:
        raise NuebarError(f"expected a confidence level between 0 and 1, got {cl}; 68.27 % is 0.6827")
    return float(chi2.ppf(cl, dof))


@dataclass(frozen=True)
class Scan:
    """Δχ² on a grid.

    Attributes:
        names: The scanned parameters.
        grids: Their values, one array each.
        delta_chi2: Shape of the grids; the best fit of the scan itself is not below zero by more than rounding.
        converged: Whether each point reached its profiled minimum.
    """

    names: tuple[str, ...]
    grids: tuple[np.ndarray, ...]
    delta_chi2: np.ndarray
    converged: np.ndarray

    def rows(self) -> np.ndarray:
        """One row a point: the scanned values and Δχ²."""
        mesh = np.meshgrid(*self.grids, indexing="ij")
        return np.column_stack([*[m.ravel() for m in mesh], self.delta_chi2.ravel()])


def scan(
    fit: SpectrumFit,
    result: FitResult,
    names: Sequence[str],
    *,
    n_points: int = 25,
    n_sigma: float = 3.8,
    grids: Sequence[np.ndarray] | None = None,
    problem: Problem | None = None,
    progress: Progress | None = None,
) -> Scan:
    """Profile Δχ² on a grid around the best fit.

    Args:
        fit: The fit.
        result: Its result (not blinded).
        names: One or two parameters (more work, but cost grows with the power).
        n_points: Points per parameter.
        n_sigma: Half width of the grid in standard errors, cut at the limits.
        grids: The grids themselves, instead.
        problem: The compiled cost, to reuse one.
        progress: Called with (points done, points in all).

    Returns:
        The scan.
    """
    order = list(fit.parameters.names)
    for name in names:
        fit.parameters.known(name)
    problem = problem or fit.problem()
    chosen = [_grid(fit, result, n, n_points, n_sigma) for n in names] if grids is None else list(grids)
    free = np.array([not fit.parameters[n].fixed and n not in names for n in order])
    where = [order.index(n) for n in names]
    best = np.array([result.parameters[n].value for n in order])
    slope = _conditional_slope(result, order, names)
    shape = tuple(len(g) for g in chosen)
    out, good = np.empty(shape), np.empty(shape, dtype=bool)
    points = _snake(shape)
    for done, index in enumerate(points):
        target = np.array([g[i] for g, i in zip(chosen, index, strict=True)])
        x = best + slope @ (target - best[where])
        x[where] = target
        out[index], good[index] = _profile(problem, x, free, fit)
        if progress is not None:
            progress(done + 1, len(points))
    return Scan(tuple(names), tuple(chosen), out - result.chi2, good)


def _snake(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(n) for n in shape)))


def _grid(fit: SpectrumFit, result: FitResult, name: str, n: int, n_sigma: float) -> np.ndarray:
    p = result.parameters[name]
    if not np.isfinite(p.error) or p.error <= 0:
        raise NuebarError(f"no scan of {name!r}: it has no error (fixed, or the fit is not valid)")
    low, high = fit.parameters[name].bounds
    start, stop = p.value - n_sigma * p.error, p.value + n_sigma * p.error
    start = start if low is None else max(start, low)
    stop = stop if high is None else min(stop, high)
    return np.linspace(start, stop, n)


def _conditional_slope(result: FitResult, order: list[str], names: Sequence[str]) -> np.ndarray:
    """How the other parameters follow the scanned ones, from the covariance: the start of each point."""
    free = list(result.parameter_order)
    slope = np.zeros((len(order), len(names)))
    scanned = [n for n in names if n in free]
    if not scanned:
        return slope
    k = [free.index(n) for n in scanned]
    gain = result.covariance[:, k] @ np.linalg.inv(result.covariance[np.ix_(k, k)])
    for row, name in zip(gain, free, strict=True):
        for column, scanned_name in zip(row, scanned, strict=True):
            slope[order.index(name), list(names).index(scanned_name)] = column
    return slope


def _profile(problem: Problem, x: np.ndarray, free: np.ndarray, fit: SpectrumFit) -> tuple[float, bool]:
    """Minimise over the free parameters from a good start; the cost, and whether it converged."""
    low = np.array([-np.inf if p.bounds[0] is None else p.bounds[0] for p in fit.parameters.values()])
    high = np.array([np.inf if p.bounds[1] is None else p.bounds[1] for p in fit.parameters.values()])
    end = problem.descend(np.clip(x, low, high), low, high, free, MAX_STEPS, TOLERANCE)
    return float(end.cost), bool(end.converged)
