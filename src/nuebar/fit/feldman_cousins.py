"""Feldman-Cousins regions: intervals and contours whose coverage comes from toys instead of Wilks's theorem.

At every point θ of a grid, Δχ²(θ) = χ²(θ) - χ²_min of the data, profiled over all other parameters, is compared with
its distribution over toys that are drawn at θ; the region of a confidence level holds the points whose Δχ² is not
larger than the quantile of the toys there, the critical value (G. J. Feldman and R. D. Cousins, PRD 57, 3873 (1998)).
Fits respect the limits of the parameters, which is what makes an interval right where the best fit lies on one.

The other parameters of the toys are at their profiled values, those that fit the data best at θ, and the centres of
their constraints fluctuate around these (the profile construction, arXiv:2207.14353). It covers exactly for the
parameters of the region; over unknown nuisance parameters its coverage is approximate, as for any method that does not
scan them.

Toy number k takes the same random numbers at all points, counts by inverting the Poisson distribution: critical values
are smooth along the grid, and a result depends on the seed and the numbers of toys only. Batches of toys are drawn
until the p-value of a point is clearly on one side of every level (:class:`Sampling`). The rules of this module know
no spectrum: any function from numbers of toys to Δχ² will do. Fits of spectra are in
:class:`nuebar.fit.profile_construction.ProfileConstruction`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from nuebar.errors import NuebarError
from nuebar.fit.profile import delta_chi2_level

__all__ = ["ENOUGH", "LEVELS", "Critical", "PointToys", "Region", "Sampling", "Segment", "sample", "split"]

LEVELS = (0.6827, 0.90, 0.9545, 0.9973)
ENOUGH = 10.0
"""Toys above a critical value that resolve it: (1 - level) of them are then known to a third."""

Toys = Callable[[range], np.ndarray]
"""From numbers of toys to their Δχ², NaN where a fit failed."""


@dataclass(frozen=True)
class Sampling:
    """How many toys a point gets.

    Attributes:
        toys: At most.
        batch: So many at a time; the last batch may be smaller.
        levels: Confidence levels, increasing.
        adaptive: Stop after a batch if the p-value is decided for every level.
        n_sigma: Decided: so many standard deviations, those of a p-value at the level, away from it.
    """

    toys: int = 2000
    batch: int = 500
    levels: tuple[float, ...] = LEVELS
    adaptive: bool = True
    n_sigma: float = 3.0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.batch < 2 or self.toys < 2:
            raise NuebarError(f"toys: expected at least two of them and in a batch, got {self.toys} and {self.batch}")
        inside = all(0 < lo < hi < 1 for lo, hi in zip((1e-9, *self.levels), self.levels, strict=False))
        if not self.levels or not inside:
            raise NuebarError(f"levels: expected increasing numbers between 0 and 1 such as 0.9, got {self.levels}")
        if not self.n_sigma > 0:
            raise NuebarError(f"adaptive toys: expected a number of standard deviations above 0, got {self.n_sigma}")

    def decided(self, observed: float, delta_chi2: np.ndarray) -> bool:
        """Whether more toys would hardly change on which side of any level a point is.

        Far outside no toy reaches the data, and the p-value alone would need 9/(1 - level) toys. There the tail of
        Δχ² tells: that of χ² falls at least as exp(-x/2), so beyond the 90 % quantile of the toys the p-value is
        below 0.1 exp(-(observed - quantile)/2), and a quarter of 1 - level is enough.
        """
        good = delta_chi2[np.isfinite(delta_chi2)]
        if good.size < 2:
            return False
        share = float(np.mean(good >= observed))
        beyond = 0.1 * math.exp(-0.5 * max(observed - float(np.quantile(good, 0.9)), 0.0))
        for level in self.levels:
            alpha = 1.0 - level
            near = abs(share - alpha) < self.n_sigma * math.sqrt(alpha * level / good.size)
            if near and beyond > 0.25 * alpha:
                return False
        return True


@dataclass(frozen=True)
class Critical:
    """A critical value with the 68 % interval that order statistics give; ``high`` is infinite with too few toys."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class PointToys:
    """Data and toys at one point of the grid.

    Attributes:
        theta: The point.
        observed: Δχ² of the data.
        delta_chi2: Of the toys, shape ``(toys,)``; NaN where a fit failed.
    """

    theta: tuple[float, ...]
    observed: float
    delta_chi2: np.ndarray

    @property
    def good(self) -> np.ndarray:
        """Δχ² of the toys whose fits are valid, increasing."""
        return np.sort(self.delta_chi2[np.isfinite(self.delta_chi2)])

    @property
    def failed(self) -> int:
        """Toys without a valid Δχ²."""
        return int(np.sum(~np.isfinite(self.delta_chi2)))

    @property
    def p_value(self) -> float:
        """Share of the toys that are at least as far from θ as the data; NaN if data or all toys failed.

        The plain share: a point is accepted exactly where it is not below 1 - level.
        """
        good = self.good
        return float(np.mean(good >= self.observed)) if good.size and np.isfinite(self.observed) else math.nan

    @property
    def p_error(self) -> float:
        """Its binomial error, from (k + 1)/(n + 2) so that it is not zero without any toy."""
        n = self.good.size
        if not n:
            return math.nan
        p = (self.p_value * n + 1.0) / (n + 2.0)
        return math.sqrt(p * (1.0 - p) / n)

    def critical(self, level: float) -> Critical:
        """The largest Δχ² that is accepted: the toy with (1 - level) of all at it or above."""
        good, alpha = self.good, 1.0 - level
        if not good.size:
            return Critical(math.nan, math.nan, math.nan)
        n = good.size

        def from_above(rank: float) -> float:
            k = math.ceil(rank - 1e-9)
            return math.inf if k < 1 else float(good[max(n - k, 0)])

        spread = math.sqrt(n * alpha * level)
        value = from_above(max(n * alpha, 1.0))
        high = from_above(n * alpha - spread)
        return Critical(value, min(from_above(n * alpha + spread), value), max(high, value))

    def near(self, level: float) -> bool:
        """Whether the p-value is within three standard deviations of a level, or not known."""
        alpha, n = 1.0 - level, self.good.size
        return not n or not abs(self.p_value - alpha) >= 3.0 * math.sqrt(alpha * level / n)

    def accepted(self, level: float) -> bool:
        """Whether the region of a level holds the point."""
        return bool(self.observed <= self.critical(level).value)


def sample(toys: Toys, observed: float, sampling: Sampling = Sampling()) -> np.ndarray:
    """Δχ² of as many toys as one point needs, in batches; the numbers of toys begin at 0.

    Args:
        toys: What draws and fits them.
        observed: Δχ² of the data.
        sampling: How many.
    """
    parts: list[np.ndarray] = []
    for first in range(0, sampling.toys, sampling.batch):
        numbers = range(first, min(first + sampling.batch, sampling.toys))
        parts.append(np.asarray(toys(numbers), float))
        if sampling.adaptive and sampling.decided(observed, np.concatenate(parts)):
            break
    return np.concatenate(parts)


@dataclass(frozen=True)
class Segment:
    """A connected piece of a region of one parameter.

    Attributes:
        low: Lower end, between two points of the grid.
        high: Upper end.
        low_error: What the number of toys leaves open at the lower end, 68 %; 0 at an end of the grid.
        high_error: Likewise.
        open_low: Whether it reaches the lower end of the grid (or of an ordering's part of it): a limit of the
            parameter, or a grid that is too short.
        open_high: Likewise.
    """

    low: float
    high: float
    low_error: float = 0.0
    high_error: float = 0.0
    open_low: bool = False
    open_high: bool = False


@dataclass(frozen=True, eq=False)
class Region:
    """Data and toys on a grid of one or two parameters.

    Attributes:
        names: The parameters.
        axes: Their values, increasing, one array each.
        points: One for each point of the grid, the last parameter varies fastest.
        best: Best fit of the parameters.
        levels: Confidence levels.
    """

    names: tuple[str, ...]
    axes: tuple[np.ndarray, ...]
    points: tuple[PointToys, ...]
    best: tuple[float, ...]
    levels: tuple[float, ...] = LEVELS

    def __post_init__(self) -> None:
        """Refuse another number of points."""
        if len(self.points) != math.prod(self.shape) or len(self.names) != len(self.axes):
            raise NuebarError(
                f"region: expected {math.prod(self.shape)} points of {len(self.axes)} parameters, got "
                f"{len(self.points)} of {len(self.names)}"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Points along each axis."""
        return tuple(len(a) for a in self.axes)

    @property
    def observed(self) -> np.ndarray:
        """Δχ² of the data on the grid."""
        return np.array([p.observed for p in self.points]).reshape(self.shape)

    @property
    def p_value(self) -> np.ndarray:
        """p-values on the grid."""
        return np.array([p.p_value for p in self.points]).reshape(self.shape)

    def critical(self, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Critical values on the grid, and their lower and upper limits."""
        found = [p.critical(level) for p in self.points]
        rows = np.array([[c.value, c.low, c.high] for c in found]).T
        value, low, high = (r.reshape(self.shape) for r in rows)
        return value, low, high

    def accepted(self, level: float) -> np.ndarray:
        """Which points the region of a level holds."""
        return np.array([p.accepted(level) for p in self.points]).reshape(self.shape)

    def wilks(self, level: float) -> np.ndarray:
        """Which points the ordinary region holds: Δχ² of χ² with as many degrees of freedom as parameters."""
        return np.asarray(self.observed <= delta_chi2_level(level, len(self.names)))

    def excess(self, level: float) -> np.ndarray:
        """√Δχ² - √(critical value): zero on the border of the region, and straight where χ² is a parabola."""
        return _excess(self.observed, self.critical(level)[0])

    def deciding(self, level: float) -> np.ndarray:
        """Points that decide on the border of a region: on both sides of it, and ends of the grid that are near it."""
        inside = self.accepted(level)
        out = np.zeros(self.shape, bool)
        for d, axis in enumerate(self.axes):
            # Views: what is written into `marks` is written into `out`.
            marks, within = np.moveaxis(out, d, 0), np.moveaxis(inside, d, 0)
            near = np.moveaxis(np.reshape([p.near(level) for p in self.points], self.shape), d, 0)
            for rows in split(axis):
                part, held = marks[rows], within[rows]
                change = held[1:] != held[:-1]
                part[1:] |= change
                part[:-1] |= change
                for end in (0, -1):
                    part[end] |= near[rows][end]
        corners = [np.searchsorted(a, b) + np.array([-1, 0]) for a, b in zip(self.axes, self.best, strict=True)]
        if not inside.any():  # a region that is smaller than a cell of the grid
            out[np.ix_(*(np.clip(c, 0, n - 1) for c, n in zip(corners, self.shape, strict=True)))] = True
        return out

    def deciding_toys(self, level: float) -> int | None:
        """The fewest valid toys of a point that decides on the border; None if no point does."""
        found = [p.good.size for p, d in zip(self.points, self.deciding(level).ravel(), strict=True) if d]
        return min(found, default=None)

    def resolved(self, level: float) -> bool:
        """Whether the toys resolve the border of a region: enough of them beyond the critical values that decide."""
        n = self.deciding_toys(level)
        return n is None or (1.0 - level) * n >= ENOUGH

    def segments(self, level: float) -> tuple[Segment, ...]:
        """The pieces of a one-dimensional region; their ends lie between points, by a straight line of the excess."""
        value, low, high = self.critical(level)
        middle, small, large = (self._pieces(_excess(self.observed, c)) for c in (value, low, high))
        out = []
        for m in middle:
            # With critical values a little smaller or larger a piece may vanish, or be one with its neighbour.
            s = next((p for p in small if p.low <= m.high and p.high >= m.low), None)
            b = next((p for p in large if p.low <= m.high and p.high >= m.low), m)
            centre = 0.5 * (m.low + m.high)
            ends = (centre, centre) if s is None else (s.low, s.high)
            out.append(replace(m, low_error=abs(b.low - ends[0]) / 2, high_error=abs(b.high - ends[1]) / 2))
        return tuple(out)

    def wilks_segments(self, level: float) -> tuple[Segment, ...]:
        """The same for Δχ² = 1 (68.27 %) and so on."""
        return self._pieces(_excess(self.observed, np.full(self.shape, delta_chi2_level(level, 1))))

    def _pieces(self, excess: np.ndarray) -> tuple[Segment, ...]:
        if len(self.axes) != 1:
            raise NuebarError(
                f"segments: expected a region of one parameter, got {', '.join(self.names)}; see accepted"
            )
        out: list[Segment] = []
        for rows in split(self.axes[0]):
            x, y = self.axes[0][rows], excess[rows]
            if x[0] <= self.best[0] <= x[-1] and not np.any(x == self.best[0]):
                k = int(np.searchsorted(x, self.best[0]))
                # Data fit best there: as far inside as the lower of its neighbours, whatever its critical value.
                x, y = np.insert(x, k, self.best[0]), np.insert(y, k, min(y[k - 1], y[k], 0.0))
            out += _runs(x, np.where(np.isfinite(y), y, np.inf))
        return tuple(out)


def split(axis: np.ndarray) -> list[slice]:
    """The parts of an axis of one sign: the two orderings of Δm²31."""
    if axis[0] >= 0 or axis[-1] <= 0 or not np.any(np.diff(np.sign(axis))):
        return [slice(0, len(axis))]
    k = int(np.searchsorted(axis, 0.0))
    return [slice(0, k), slice(k, len(axis))]


def _excess(observed: np.ndarray, critical: np.ndarray) -> np.ndarray:
    top = np.nanmax(np.where(np.isfinite(critical), critical, np.nan), initial=0.0)
    limited = np.where(np.isposinf(critical), max(top, 1.0) * 4.0, critical)  # some large number: no toy says more
    return np.sqrt(np.maximum(observed, 0.0)) - np.sqrt(limited)


def _runs(x: np.ndarray, y: np.ndarray) -> list[Segment]:
    """Where y ≤ 0, with ends by interpolation."""
    inside = np.flatnonzero(y <= 0)
    if not inside.size:
        return []
    out = []
    for run in np.split(inside, np.flatnonzero(np.diff(inside) > 1) + 1):
        a, b = int(run[0]), int(run[-1])
        low, high = _zero(x, y, a, a - 1), _zero(x, y, b, b + 1)
        out.append(Segment(low, high, open_low=a == 0, open_high=b == x.size - 1))
    return out


def _zero(x: np.ndarray, y: np.ndarray, inner: int, outer: int) -> float:
    if not 0 <= outer < x.size or not np.isfinite(y[outer]):
        return float(x[inner])
    return float(x[inner] - y[inner] * (x[outer] - x[inner]) / (y[outer] - y[inner]))
