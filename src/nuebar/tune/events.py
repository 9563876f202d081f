"""Compiled kernels for single events: a monotone spline, its inverse, and tables between knots.

The interval of a value is found from an even grid of guides and a few steps to the right, so an event costs two
logarithms and a division.
"""

from __future__ import annotations

import numpy as np

from nuebar.kernels import njit

__all__ = ["EvenTable", "MonotoneSpline", "hermite"]

_GUIDES = 4096  # cells: one or two knots in each


class MonotoneSpline:
    """A monotone rational-quadratic spline (C. Durkan et al., arXiv:1906.04032) in numpy.

    Attributes:
        rows: One of every interval: left end, width, value there, height, slopes at both ends.
    """

    def __init__(
        self,
        x: np.ndarray,
        width: np.ndarray,
        y: np.ndarray,
        height: np.ndarray,
        left: np.ndarray,
        right: np.ndarray,
    ) -> None:
        """Take the arrays of :class:`nuebar.tune.spline.Knots`, each of shape ``(intervals,)``."""
        self.rows = np.ascontiguousarray(np.stack([x, width, y, height, left, right], axis=1), dtype=float)

    def log_density(self, x: np.ndarray, shift: float, low: float, high: float) -> np.ndarray:
        """Ln of the derivative of the spline of ln x − shift with respect to x; −inf outside ``low <= x <= high``.

        Args:
            x: Values, shape ``(values,)``.
            shift: Of ln x.
            low: Lowest value, above zero.
            high: Highest value.
        """
        at, width, _, height, before, after = self.rows.T
        slope = height / width
        sizes = np.ascontiguousarray(
            np.stack([at, 1 / width, slope, before, after, before + after - 2 * slope], axis=1)
        )
        guides, cells = _guides(at, float(at[-1] + width[-1]))
        out: np.ndarray = _log_density(x, shift, low, high, np.ascontiguousarray(at), sizes, guides, cells)
        return out

    def inverse(self, y: np.ndarray, shift: float) -> np.ndarray:
        """The x at which the spline of ln x − shift takes values.

        Args:
            y: Between 0 and 1, shape ``(values,)``.
            shift: Of ln x.
        """
        guides, cells = _guides(self.rows[:, 2], float(self.rows[-1, 2] + self.rows[-1, 3]))
        out: np.ndarray = _inverse(y, shift, self.rows, guides, cells)
        return out


class EvenTable:
    """Values on an even grid, interpolated by polynomials of fifth degree through the six nearest.

    Attributes:
        values: On the grid, shape ``(knots,)``.
    """

    def __init__(self, low: float, high: float, values: np.ndarray) -> None:
        """Keep the values; six at least."""
        self.values = np.ascontiguousarray(values, dtype=float)
        self._low, self._cells = low, (self.values.size - 1) / (high - low)

    def at(self, x: np.ndarray) -> np.ndarray:
        """Interpolated values; −inf outside the grid.

        Args:
            x: Shape ``(values,)``.
        """
        out: np.ndarray = _lagrange(x, self._low, self._cells, self.values)
        return out


def hermite(at: np.ndarray, x: np.ndarray, y: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Cubics through values and derivatives; the ends outside.

    Args:
        at: Where, shape ``(values,)``.
        x: Rising, shape ``(knots,)``.
        y: Values there.
        slope: Derivatives there.
    """
    guides, cells = _guides(x[:-1], float(x[-1]))
    out: np.ndarray = _hermite(at, x, y, slope, guides, cells)
    return out


def _guides(left: np.ndarray, end: float) -> tuple[np.ndarray, float]:
    """The interval that holds the left end of every cell of an even grid, and cells per unit."""
    grid = np.linspace(left[0], end, _GUIDES + 1)[:-1]
    # A cell to the left as well: rounding may put a value one cell too far.
    first = np.searchsorted(left, np.concatenate([grid[:1], grid[:-1]]), side="right") - 1
    return np.maximum(first, 0).astype(np.int64), _GUIDES / (end - float(left[0]))


@njit
def _interval(value, left, guides, cells):  # type: ignore[no-untyped-def]
    cell = min(max(int((value - left[0]) * cells), 0), guides.size - 1)
    k = guides[cell]
    while k + 1 < left.size and value >= left[k + 1]:
        k += 1
    return k


@njit
def _log_density(x, shift, low, high, left, sizes, guides, cells):  # type: ignore[no-untyped-def]
    out = np.empty(x.size)
    for e in range(x.size):
        if not low <= x[e] <= high:
            out[e] = -np.inf
            continue
        t = np.log(x[e]) - shift
        k = _interval(t, left, guides, cells)
        slope, z = sizes[k, 2], (t - sizes[k, 0]) * sizes[k, 1]
        rest, mixed = 1 - z, z * (1 - z)
        top = sizes[k, 4] * z * z + 2 * slope * mixed + sizes[k, 3] * rest * rest
        below = slope + sizes[k, 5] * mixed
        out[e] = np.log(slope * slope * top / (below * below * x[e]))
    return out


@njit
def _inverse(y, shift, rows, guides, cells):  # type: ignore[no-untyped-def]
    out = np.empty(y.size)
    left = rows[:, 2]
    for e in range(y.size):
        at, width, base, height, before, after = rows[_interval(y[e], left, guides, cells)]
        slope, up = height / width, y[e] - base
        both = before + after - 2 * slope
        a = height * (slope - before) + up * both
        b = height * before - up * both
        c = -slope * up
        z = 2 * c / (-b - np.sqrt(max(b * b - 4 * a * c, 0.0)))  # the root that does not cancel
        out[e] = np.exp(at + width * min(max(z, 0.0), 1.0) + shift)
    return out


@njit
def _lagrange(x, low, cells, values):  # type: ignore[no-untyped-def]
    out = np.empty(x.size)
    last = values.size - 1
    for e in range(x.size):
        place = (x[e] - low) * cells
        if not -1e-9 <= place <= last + 1e-9:
            out[e] = -np.inf
            continue
        k = min(max(int(place) - 2, 0), last - 5)
        p = place - k  # knots are at 0 to 5
        a, b, c, d, f, g = p, p - 1, p - 2, p - 3, p - 4, p - 5
        ab, fg = a * b, f * g
        out[e] = (
            -b * c * d * fg * values[k] / 120
            + a * c * d * fg * values[k + 1] / 24
            - ab * d * fg * values[k + 2] / 12
            + ab * c * fg * values[k + 3] / 12
            - ab * c * d * g * values[k + 4] / 24
            + ab * c * d * f * values[k + 5] / 120
        )
    return out


@njit
def _hermite(at, x, y, slope, guides, cells):  # type: ignore[no-untyped-def]
    out = np.empty(at.size)
    left = x[:-1]
    for e in range(at.size):
        k = _interval(at[e], left, guides, cells)
        h = x[k + 1] - x[k]
        t = min(max((at[e] - x[k]) / h, 0.0), 1.0)
        rise, a, b = y[k + 1] - y[k], slope[k] * h, slope[k + 1] * h
        out[e] = y[k] + t * (a + t * (3 * rise - 2 * a - b + t * (a + b - 2 * rise)))
    return out
