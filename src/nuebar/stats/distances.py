"""Distances between distributions of one observable, and how small they can be with a finite sample.

With F and G the cumulative distributions,

    d_p = (∫ |F(x) − G(x)|^p dx)^(1/p),    d_∞ = max |F − G|:

p = 1 is the Wasserstein distance (units of x: the mean distance that events must be moved), p = 2 the Cramér-von Mises
distance in the form without weight (units of √x), p = ∞ the Kolmogorov-Smirnov distance (no unit). They tell how far a
model of a spectrum is from a sample; :func:`statistical_floor` tells what a perfect model would get.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nuebar.errors import NuebarError

__all__ = ["Distances", "Floor", "cdf_distances", "sample_distances", "statistical_floor"]

_CDF_TOLERANCE = 1e-6
"""Downward steps of a tabulated or single-precision CDF that are taken for rounding."""

_CDF_ENDS = 1e-3
"""How much probability a CDF may leave outside the limits: more is a distribution of another range."""


@dataclass(frozen=True)
class Distances:
    """Three distances, each of the shape of the batch (0-dimensional for one pair).

    Attributes:
        d1: Wasserstein, in units of x.
        d2: Cramér-von Mises, in units of √x.
        d_inf: Kolmogorov-Smirnov, between 0 and 1.
    """

    d1: np.ndarray
    d2: np.ndarray
    d_inf: np.ndarray


@dataclass(frozen=True)
class Floor:
    """Distances that the true distribution has from finite samples of itself.

    Attributes:
        mean: Mean over the samples; its own error is ``spread / sqrt(draws)``.
        spread: Standard deviation over the samples.
        upper: 95 % quantile over the samples: a model above it is told from the truth at 95 %.
        draws: Number of samples.
    """

    mean: Distances
    spread: Distances
    upper: Distances
    draws: int


def _edges(edges: ArrayLike) -> np.ndarray:
    array = np.asarray(edges, float)
    if array.ndim != 1 or array.size < 2 or not np.all(np.isfinite(array)) or not np.all(np.diff(array) > 0):
        raise NuebarError(f"edges must be at least two finite ascending numbers, got an array of shape {array.shape}")
    return array


def _shares(counts: ArrayLike, bins: int, name: str) -> np.ndarray:
    """Shares of the bins, adding up to one along the last axis."""
    array = np.asarray(counts, float)
    if array.ndim == 0 or array.shape[-1] != bins:
        raise NuebarError(f"{name} must have {bins} bins along its last axis, as the edges say, got {array.shape}")
    bad = np.argwhere(~(np.isfinite(array) & (array >= 0)))
    if len(bad):
        where = ", ".join(str(i) for i in bad[0])
        raise NuebarError(f"{name} must be finite and at least 0, got {array[tuple(bad[0])]} at [{where}]")
    total = array.sum(axis=-1, keepdims=True)
    if not np.all(total > 0):
        where = ", ".join(str(i) for i in np.argwhere(total[..., 0] == 0)[0])
        raise NuebarError(f"{name} has no events in row [{where}]: leave it out of the comparison")
    return array / total


def _integrals(left: np.ndarray, right: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """∫|f| and ∫f² of a function that is linear in every segment, over the last axis.

    Exact: a segment with values a, b at its ends has ∫f² = h (a² + ab + b²)/3, and ∫|f| = h (|a| + |b|)/2 where the
    signs agree, h (a² + b²) / (2 (|a| + |b|)) (two triangles) where f changes sign.
    """
    size = np.abs(left) + np.abs(right)
    squares = left**2 + right**2
    crossed = squares / np.where(size > 0, size, 1.0)
    absolute = 0.5 * np.where(left * right < 0, crossed, size)
    return (absolute * width).sum(axis=-1), ((squares + left * right) * width).sum(axis=-1) / 3.0


def _distances(left: np.ndarray, right: np.ndarray, width: np.ndarray, largest: np.ndarray) -> Distances:
    first, second = _integrals(left, right, width)
    return Distances(np.asarray(first), np.sqrt(second), np.asarray(largest))


def cdf_distances(observed: ArrayLike, expected: ArrayLike, edges: ArrayLike) -> Distances:
    """Distances between binned distributions, which are normalised here.

    Events are taken as uniform inside their bin, so both CDFs are linear in a bin and the integrals exact. What the
    binning hides (a peak much narrower than a bin) they cannot see.

    Args:
        observed: Counts, or anything proportional to them, shape ``(..., bins)``.
        expected: The same of the other distribution; leading axes broadcast.
        edges: Ascending, shape ``(bins + 1,)``.

    Raises:
        NuebarError: Shapes differ, an entry is negative or not finite, or a row is empty.
    """
    e = _edges(edges)
    p, q = (_shares(a, e.size - 1, name) for a, name in ((observed, "observed"), (expected, "expected")))
    try:
        difference = np.cumsum(p - q, axis=-1)
    except ValueError as error:
        raise NuebarError(f"observed {p.shape} and expected {q.shape} have leading axes that do not match") from error
    difference[..., -1] = 0.0  # both CDFs end at one
    before = np.concatenate([np.zeros_like(difference[..., :1]), difference[..., :-1]], axis=-1)
    return _distances(before, difference, np.diff(e), np.abs(difference).max(axis=-1))


def sample_distances(
    values: ArrayLike,
    cdf: Callable[[np.ndarray], ArrayLike] | tuple[ArrayLike, ArrayLike],
    *,
    limits: tuple[float, float] | None = None,
    points: int = 20_001,
) -> Distances:
    """Distances between unbinned values and a continuous distribution.

    The empirical CDF is the exact step function, and ``d_inf`` the exact two-sided Kolmogorov-Smirnov statistic. For
    ``d1`` and ``d2`` the CDF is linear between the points of a grid joined with the values: exact for a table, and for
    a callable off by at most δ = step²/12 · ∫|F″| dx in d1 and 2 d_inf δ in d2², with step = range/(points − 1). A
    peak of standard deviation s has ∫|F″| dx = 0.8/s: δ = 1e-6 at s = 0.05 in a range of 16, for the default grid.

    Args:
        values: The sample, shape ``(events,)``, inside the limits.
        cdf: F as a function of an array; or a table (x, F) of a CDF that is linear between its points.
        limits: Range that holds the whole distribution, wanted with a callable; a table has its own.
        points: Of the grid for a callable.

    Raises:
        NuebarError: No values, values outside the range, or a CDF that does not ascend from 0 to 1 in it.
    """
    v = np.sort(np.asarray(values, float).ravel())
    if v.size == 0:
        raise NuebarError("values must hold at least one event, got none")
    if callable(cdf):
        if limits is None:
            raise NuebarError("limits = (low, high) of the distribution are wanted when cdf is a function")
        grid = _edges(np.linspace(limits[0], limits[1], points))
    else:
        grid = _edges(cdf[0])
    if not (v[0] >= grid[0] and v[-1] <= grid[-1]):
        raise NuebarError(
            f"values must lie in [{grid[0]:g}, {grid[-1]:g}], got {v[0]:g} to {v[-1]:g}: select them before"
        )
    x = np.sort(np.concatenate([grid, v]))
    smooth = _cdf(cdf(x), x) if callable(cdf) else np.interp(x, grid, _cdf(cdf[1], grid))
    steps = np.searchsorted(v, x[:-1], side="right") / v.size
    at, rank = np.interp(v, x, smooth), np.arange(v.size + 1) / v.size
    largest = np.maximum(rank[1:] - at, at - rank[:-1]).max()
    return _distances(smooth[:-1] - steps, smooth[1:] - steps, np.diff(x), largest)


def _cdf(values: ArrayLike, x: np.ndarray) -> np.ndarray:
    """F at ascending x, checked."""
    f = np.asarray(values, float)
    if f.shape != x.shape:
        raise NuebarError(f"cdf must have one number per value of x, expected shape {x.shape}, got {f.shape}")
    ends = abs(f[0]) <= _CDF_ENDS and abs(f[-1] - 1.0) <= _CDF_ENDS
    if not (ends and np.all(np.diff(f) >= -_CDF_TOLERANCE)):  # NaN compares false
        raise NuebarError(
            f"cdf must ascend from 0 to 1 between {x[0]:g} and {x[-1]:g}, got {f[0]:.4g} to {f[-1]:.4g}, least step "
            f"{np.diff(f).min():.2g}: normalise it inside the limits"
        )
    return f


def statistical_floor(
    probabilities: ArrayLike, edges: ArrayLike, events: ArrayLike, *, draws: int = 200, seed: int = 20250731
) -> Floor:
    """Distances that a perfect model has from samples of ``events`` events: multinomial draws from itself.

    They fall as 1/√events. As checks: the mean of d2² is ∫F(1 − F) dx / events up to the bin width, and the mean of
    d_inf tends to √(π/2) ln 2/√events = 0.8687/√events from below (mean of Kolmogorov's limiting distribution;
    Kolmogorov, Giorn. Ist. Ital. Attuari 4 (1933) 83), reached when every bin has a small share.

    Args:
        probabilities: Of the bins, or proportional to them, shape ``(..., bins)``.
        edges: Ascending, shape ``(bins + 1,)``.
        events: Events of a sample: a whole number, or one per row.
        draws: Samples drawn, at least 2; the 95 % quantile wants 100 or more.
        seed: Of the draws.

    Raises:
        NuebarError: As :func:`cdf_distances`, or events or draws that are no such numbers.
    """
    e = _edges(edges)
    p = _shares(probabilities, e.size - 1, "probabilities")
    n = np.asarray(events)
    if not (np.all(n >= 1) and np.all(n == np.floor(n))):
        raise NuebarError(f"events must be whole numbers above 0, got {events!r}")
    if draws < 2:
        raise NuebarError(f"draws must be at least 2, got {draws}")
    random = np.random.default_rng(seed)
    drawn = [cdf_distances(random.multinomial(n.astype(int), p), p, e) for _ in range(draws)]
    table = {name: np.stack([getattr(d, name) for d in drawn]) for name in ("d1", "d2", "d_inf")}
    return Floor(
        mean=Distances(**{k: np.asarray(a.mean(axis=0)) for k, a in table.items()}),
        spread=Distances(**{k: np.asarray(a.std(axis=0, ddof=1)) for k, a in table.items()}),
        upper=Distances(**{k: np.asarray(np.quantile(a, 0.95, axis=0)) for k, a in table.items()}),
        draws=draws,
    )
