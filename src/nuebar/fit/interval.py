"""Intervals from the profile of Δχ², for parameters whose likelihood is no parabola."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nuebar.errors import NuebarError
from nuebar.fit.profile import scan
from nuebar.fit.result import FitResult
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.stats.minimise import Problem

__all__ = ["ProfileInterval", "likelihood_root", "profile_interval"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class ProfileInterval:
    """Where Δχ² stays below a level, from end to end: values between two minima count, too.

    Attributes:
        name: The parameter.
        grid: Its values, shape ``(points,)``.
        delta_chi2: Profiled, of the same shape, not below zero.
        level: Of Δχ².
        low: Lower end.
        high: Upper end.
    """

    name: str
    grid: np.ndarray
    delta_chi2: np.ndarray
    level: float
    low: float
    high: float


def profile_interval(
    fit: SpectrumFit,
    result: FitResult,
    name: str,
    grid: Sequence[float] | np.ndarray,
    *,
    level: float = 1.0,
    problem: Problem | None = None,
    progress: Progress | None = None,
) -> ProfileInterval:
    """The interval of a parameter from its profile on a grid, ends interpolated between the points.

    Args:
        fit: The fit.
        result: Its result, at the lowest minimum.
        name: The parameter.
        grid: Increasing values around the best fit.
        level: Δχ² at the ends; 1 for 68.3 % of a normal likelihood.
        problem: The compiled cost, to reuse one.
        progress: Called with (points done, points in all).

    Raises:
        NuebarError: The grid does not increase, or does not contain the best fit.
    """
    best = result.parameters[name].value
    points = np.asarray(grid, dtype=float)
    if points.ndim != 1 or points.size < 2 or np.any(np.diff(points) <= 0) or not points[0] <= best <= points[-1]:
        raise NuebarError(f"profile of {name}: expected increasing values around the best fit {best:.6g}, got others")
    found = scan(fit, result, [name], grids=[points], problem=problem, progress=progress)
    heights = np.maximum(found.delta_chi2, 0.0)
    # The best fit is a point too, even if all others are above the level.
    order = np.argsort(np.append(points, best), kind="stable")
    x, y = np.append(points, best)[order], np.append(heights, 0.0)[order]
    inside = np.flatnonzero(y <= level)
    low, high = _crossing(x, y, level, int(inside[0]), -1), _crossing(x, y, level, int(inside[-1]), 1)
    return ProfileInterval(name, points, heights, level, low, high)


def _crossing(x: np.ndarray, y: np.ndarray, level: float, last: int, step: int) -> float:
    """Where √Δχ² crosses: it is straight where Δχ² is a parabola. The end of the grid where it does not."""
    beyond = last + step
    if not 0 <= beyond < x.size:
        return float(x[last])
    a, b = np.sqrt(y[last]), np.sqrt(y[beyond])
    return float(x[last] + (x[beyond] - x[last]) * (np.sqrt(level) - a) / (b - a))


def likelihood_root(
    fit: SpectrumFit, result: FitResult, name: str, value: float, *, problem: Problem | None = None
) -> float:
    """Signed square root of Δχ² between the best fit and a value: normal where Wilks' theorem holds.

    Args:
        fit: The fit.
        result: Its result.
        name: A free parameter.
        value: The hypothesis.
        problem: The compiled cost, to reuse one.

    Returns:
        Positive if the best fit lies above the value.
    """
    found = scan(fit, result, [name], grids=[np.array([value])], problem=problem)
    size = float(np.sqrt(max(float(found.delta_chi2[0]), 0.0)))
    return float(np.copysign(size, result.parameters[name].value - value))
