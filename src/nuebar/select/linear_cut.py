"""A straight line in the plane of ΔR and Δt, as a cut: a ΔR + b Δt ≤ 1.

The talk on arXiv:2406.12901 notes that the boundary which the network has learned there is close to a line and can be
used as a cut. Here (a, b) is fitted: for each direction of the line its distance from the origin is the largest at
which the background is no more than wanted (a weighted quantile, exact), and the direction is the one with the most
antineutrinos. That number is a staircase in the angle, of steps that get finer with more events: a scan finds the best
of 181 angles, golden sections refine its neighbourhood, and the best angle that was tried is taken.

A line fitted to few background events fits their fluctuations: score it on others, or fit it to weighted pairs
(:mod:`nuebar.select.recombine`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.select.classifier import checked_features
from nuebar.select.cuts import DISTANCE, TIME, BoxCuts
from nuebar.select.features import column

__all__ = ["LinearCut", "LinearFit", "fit_linear_cut"]

_ANGLES = 181
_SECTIONS = 24  # of the golden ratio: the angle to 1e-6
_GOLDEN = (np.sqrt(5) - 1) / 2
_INSIDE = 1 - 1e-9  # of the first pair that is too much: float32 features are 1e-7 apart


@dataclass(frozen=True, kw_only=True)
class LinearCut:
    """Pairs below the line that pass the other cuts.

    Attributes:
        a_per_m: a.
        b_per_us: b.
        base: Cuts beside it: fiducial volume and energies, for instance. None by default.
        name: What tables call it.
    """

    a_per_m: float
    b_per_us: float
    base: BoxCuts = field(default_factory=BoxCuts)
    name: str = "linear cut"

    def __post_init__(self) -> None:
        """Refuse what is no line with the origin below it."""
        if not (0 <= self.a_per_m < np.inf and 0 <= self.b_per_us < np.inf):
            raise NuebarError(
                f"linear cut: expected a and b that are not negative, got {self.a_per_m}, {self.b_per_us}"
            )

    def passes(self, features: np.ndarray) -> np.ndarray:
        """Whether a pair is kept, shape ``(n,)``."""
        return self.score(features) >= 0

    def score(self, features: np.ndarray) -> np.ndarray:
        """1 − a ΔR − b Δt, not below 0 for a pair that is kept; −∞ where the other cuts fail."""
        dr, dt = _plane(features)
        return np.where(self.base.passes(features), 1 - self.a_per_m * dr - self.b_per_us * dt, -np.inf)


@dataclass(frozen=True)
class LinearFit:
    """A fitted line.

    Attributes:
        cut: The line.
        efficiency: Share of the antineutrinos of the fit that it keeps.
        background: Share of its accidental pairs, by weight.
        background_pairs: How many of them are below the line: few fluctuate.
        wanted: The share of accidentals that was asked for.
    """

    cut: LinearCut
    efficiency: float
    background: float
    background_pairs: int
    wanted: float


def fit_linear_cut(
    signal: np.ndarray,
    background: np.ndarray,
    background_share: float,
    *,
    base: BoxCuts | None = None,
    signal_weights: ArrayLike | None = None,
    background_weights: ArrayLike | None = None,
) -> LinearFit:
    """The line with the largest efficiency at a share of the background.

    Args:
        signal: Features of antineutrinos.
        background: Features of accidental pairs, all of them: shares count also those that the other cuts take away.
        background_share: Of the accidental pairs, at most.
        base: Cuts beside the line; their time and distance are dropped, which the line replaces.
        signal_weights: Of each antineutrino; ones by default.
        background_weights: Of each accidental pair.

    Returns:
        The line and what it keeps of the events of the fit. ``a = b = 0`` where the other cuts alone keep no more.

    Raises:
        NuebarError: A share that is not between 0 and 1, no events, or weights that do not match.
    """
    if not 0 < background_share <= 1:
        raise NuebarError(f"background: expected a share of the pairs above 0, at most 1, got {background_share}")
    base = (base or BoxCuts()).without(TIME, DISTANCE)
    good = _Plane.of(signal, signal_weights, base, "signal")
    bad = _Plane.of(background, background_weights, base, "background")
    budget = background_share * bad.total * (1 + 1e-12)
    if bad.weights.sum() <= budget:
        return _fitted(LinearCut(a_per_m=0.0, b_per_us=0.0, base=base), good, bad, background_share)
    if not good.weights.sum() > 0:
        raise NuebarError("linear cut: no antineutrino passes the other cuts; loosen them")
    scale = good.scale()

    def line(angle: float) -> tuple[float, float]:
        slope = np.cos(angle) / scale[0], np.sin(angle) / scale[1]
        end = _INSIDE * bad.quantile(slope, budget)
        return (slope[0] / end, slope[1] / end) if end > 0 else (np.inf, np.inf)

    angle = _best_angle(lambda angle: good.below(line(angle)))
    a, b = line(angle)
    if not np.isfinite(a + b):
        raise NuebarError("linear cut: background at the origin exceeds what is wanted at once; ask for more of it")
    return _fitted(LinearCut(a_per_m=float(a), b_per_us=float(b), base=base), good, bad, background_share)


@dataclass(frozen=True, eq=False)
class _Plane:
    """Pairs that pass the other cuts."""

    dr_m: np.ndarray
    dt_us: np.ndarray
    weights: np.ndarray
    total: float  # weight of all pairs

    @classmethod
    def of(cls, features: np.ndarray, weights: ArrayLike | None, base: BoxCuts, what: str) -> _Plane:
        w = np.ones(len(features)) if weights is None else np.asarray(weights, float)
        if w.shape != (len(features),) or not np.all(np.isfinite(w) & (w >= 0)) or not w.sum() > 0:
            raise NuebarError(
                f"linear cut, {what}: expected a finite weight that is not negative for each of {len(features)} pairs, "
                f"with a sum above 0, got shape {w.shape}"
            )
        dr, dt = _plane(features)
        kept = base.passes(features)
        return cls(dr[kept], dt[kept], w[kept], float(w.sum()))

    def scale(self) -> tuple[float, float]:
        """Typical distance and time, so that angles are even."""
        return tuple(float(np.average(v, weights=self.weights)) or 1.0 for v in (self.dr_m, self.dt_us))  # type: ignore[return-value]

    def quantile(self, slope: tuple[float, float], budget: float) -> float:
        """Distance of the first pair that exceeds a weight, along a direction."""
        along = slope[0] * self.dr_m + slope[1] * self.dt_us
        order = np.argsort(along)
        first = int(np.searchsorted(np.cumsum(self.weights[order]), budget, side="right"))
        return float(along[order[min(first, along.size - 1)]])

    def below(self, line: tuple[float, float]) -> float:
        """Share of all pairs below a line."""
        if not np.isfinite(line[0] + line[1]):
            return 0.0
        return float(self.weights[line[0] * self.dr_m + line[1] * self.dt_us <= 1].sum()) / self.total


def _plane(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    features = checked_features(features)
    return column(features, "dr_m").astype(float), column(features, "dt_us").astype(float)


def _fitted(cut: LinearCut, good: _Plane, bad: _Plane, wanted: float) -> LinearFit:
    line = cut.a_per_m, cut.b_per_us
    number = int(np.count_nonzero(line[0] * bad.dr_m + line[1] * bad.dt_us <= 1))
    return LinearFit(cut, good.below(line), bad.below(line), number, wanted)


def _best_angle(efficiency: Callable[[float], float]) -> float:
    """The angle from 0 (a cut on ΔR alone) to π/2 (on Δt alone) with the most antineutrinos."""
    tried: dict[float, float] = {}

    def value(angle: float) -> float:
        if angle not in tried:
            tried[angle] = efficiency(angle)
        return tried[angle]

    angles = np.linspace(0, np.pi / 2, _ANGLES).tolist()
    best = max(range(_ANGLES), key=lambda i: value(angles[i]))
    low, high = angles[max(best - 1, 0)], angles[min(best + 1, _ANGLES - 1)]
    for _ in range(_SECTIONS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, right) if value(left) >= value(right) else (left, high)
    return max(tried, key=lambda angle: tried[angle])
