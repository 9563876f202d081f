"""How much of an event's light is seen, against the centre: the true map, the corrected one and what is left.

The true map is a table over radius and cos θ, times a pattern in azimuth that no correction knows. The correction
is the same table sampled at calibration points only, and interpolated. What is left after it (between the points, in
azimuth, and by the vertex resolution where the map is steep) is the position-dependent part of the energy
resolution.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from nuebar.errors import NuebarError
from nuebar.kernels import njit

__all__ = ["UniformityMap", "flat_map", "local_light", "uniformity_map"]


class UniformityMap(NamedTuple):
    """Light relative to the centre on even grids of radius and cos θ.

    Attributes:
        radius_m: Largest radius of the tables; beyond it the last row holds.
        true: Shape ``(radii, angles)``, first radius 0, angles from cos θ = -1 to 1.
        corrected: What the correction believes, same shape.
        azimuth: Amplitude at the edge of the pattern in azimuth, as a fraction.
        folds: Periods of the pattern in a turn.
    """

    radius_m: float
    true: np.ndarray
    corrected: np.ndarray
    azimuth: float
    folds: float


_RADIAL_CELLS, _ANGULAR_CELLS = (160, 480), (40, 120)  # fewest and most


def flat_map(radius_m: float) -> UniformityMap:
    """The same light everywhere."""
    ones = np.ones((2, 2))
    return UniformityMap(radius_m, ones, ones, 0.0, 4.0)


def uniformity_map(
    radius_m: np.ndarray,
    cos_theta: np.ndarray,
    ratio: np.ndarray,
    *,
    calibration_radius_m: np.ndarray,
    calibration_cos_theta: np.ndarray,
    azimuth: float = 0.0,
    folds: float = 4.0,
) -> UniformityMap:
    """Build the maps from a table.

    Args:
        radius_m: Radii of the table, increasing from 0, shape ``(n,)``.
        cos_theta: Angles of the table, increasing from -1 to 1, shape ``(m,)``.
        ratio: Light relative to the centre, shape ``(n, m)``.
        calibration_radius_m: Radii at which calibration sources stood, increasing; constant outside them.
        calibration_cos_theta: Angles at which they stood, likewise.
        azimuth: Relative amplitude at the edge of a pattern cos(folds·φ), growing as r³; not corrected.
        folds: Periods of that pattern.

    Returns:
        The map as it is, and as the correction believes it.

    Raises:
        NuebarError: The table is not a grid or not positive, is not 1 at the centre, or the calibration points do not
            increase.
    """
    radius, angle = np.asarray(radius_m, float), np.asarray(cos_theta, float)
    ratio = np.asarray(ratio, float)
    points_r, points_c = np.asarray(calibration_radius_m, float), np.asarray(calibration_cos_theta, float)
    _require_rising("radius_m", radius, 0.0, math.inf)
    _require_rising("cos_theta", angle, -1.0, 1.0)
    _require_rising("calibration_radius_m", points_r)
    _require_rising("calibration_cos_theta", points_c)
    if ratio.shape != (radius.size, angle.size) or not np.all((ratio > 0) & np.isfinite(ratio)):
        raise NuebarError(
            f"uniformity: expected positive ratios of shape ({radius.size}, {angle.size}), got shape {ratio.shape} "
            f"with values from {np.min(ratio, initial=np.inf):g} to {np.max(ratio, initial=-np.inf):g}; correct the map"
        )
    if not np.allclose(ratio[0], 1.0, rtol=0, atol=1e-6):
        raise NuebarError(
            f"uniformity: expected a ratio of 1 at the centre, got {ratio[0].tolist()}; divide the map by it"
        )
    r = _even_grid(0.0, radius[-1], np.concatenate([radius, points_r]), *_RADIAL_CELLS)
    c = _even_grid(-1.0, 1.0, np.concatenate([angle, points_c]), *_ANGULAR_CELLS)
    true = _bilinear(radius, angle, ratio, r, c)
    seen = _bilinear(r, c, true, points_r, points_c)
    return UniformityMap(float(radius[-1]), true, _bilinear(points_r, points_c, seen, r, c), azimuth, folds)


def _require_rising(name: str, grid: np.ndarray, first: float | None = None, last: float | None = None) -> None:
    rising = grid.ndim == 1 and grid.size > 0 and bool(np.all(np.isfinite(grid)) and np.all(np.diff(grid) > 0))
    if first is not None and last is not None:
        rising = rising and grid.size > 1 and grid[0] == first and (grid[-1] == last or last == math.inf)
        expected = f"values that increase from {first:g}" + (f" to {last:g}" if last < math.inf else "")
    else:
        expected = "one or more values that increase"
    if not rising:
        raise NuebarError(f"uniformity.{name}: expected {expected}, got {grid.tolist()}; sort or complete them")


def _even_grid(low: float, high: float, points: np.ndarray, fewest: int, most: int) -> np.ndarray:
    """The even grid that has the given points among its own, or nearly so: there the tables bend."""
    place = np.clip((points - low) / (high - low), 0.0, 1.0)

    def miss(cells: int) -> tuple[float, int]:
        return round(float(np.abs(place - np.rint(place * cells) / cells).max()), 9), cells

    return np.linspace(low, high, min(range(fewest, most + 1), key=miss) + 1)


def _bilinear(r0: np.ndarray, c0: np.ndarray, values: np.ndarray, r: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Values on a grid (r0, c0), interpolated to another; constant outside."""
    by_radius = np.array([np.interp(r, r0, values[:, j]) for j in range(c0.size)]).T
    return np.array([np.interp(c, c0, row) for row in by_radius])


@njit
def local_light(x_m: float, y_m: float, z_m: float, maps: UniformityMap, corrected: bool) -> float:
    """Light relative to the centre at a place; of the correction if ``corrected``."""
    table = maps.corrected if corrected else maps.true
    rows, columns = table.shape
    radius = math.sqrt(x_m * x_m + y_m * y_m + z_m * z_m)
    cos = z_m / radius if radius > 0.0 else 0.0
    r = min(radius / maps.radius_m, 1.0) * (rows - 1)
    c = 0.5 * (cos + 1.0) * (columns - 1)
    i, j = min(int(r), rows - 2), min(int(c), columns - 2)
    f, g = r - i, c - j
    low = table[i, j] + g * (table[i, j + 1] - table[i, j])
    high = table[i + 1, j] + g * (table[i + 1, j + 1] - table[i + 1, j])
    light = low + f * (high - low)
    if not corrected and maps.azimuth != 0.0:
        edge = min(radius / maps.radius_m, 1.0)
        light *= 1.0 + maps.azimuth * edge**3 * math.cos(maps.folds * math.atan2(y_m, x_m))
    return light
