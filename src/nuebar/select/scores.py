"""Distributions of scores: how much of a class is above a threshold, with its variance.

:class:`ScoreSample` keeps every score, sorted: thresholds are exact. :class:`ScoreHistogram` counts them in fine bins
of the logit: it adds up over chunks and processes, and its thresholds are edges of bins, at which counts are exact,
too; what is beyond the range of the bins is counted below and above them. Both take weights, for importance sampling.

Pairs that were made of the same single events are not independent. With the numbers of their two events
(``clusters``) a sample counts all pairs of pairs that share an event,

    Var(f) = Σ_(a,b share an event) w_a (h_a − f) w_b (h_b − f) / (Σ w)²,   h = 1 above the threshold, else 0,

the variance of a U-statistic (W. Hoeffding, Ann. Math. Stat. 19 (1948) 293; as an estimate with two-way clusters:
A. Cameron, J. Gelbach and D. Miller, J. Bus. Econ. Stat. 29 (2011) 238). Without clusters the sum runs over a = b.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.select.counting import Share, weighted_interval

__all__ = ["Kept", "ScoreDistribution", "ScoreHistogram", "ScoreSample", "shares"]

_NEAR = 100  # scores at an end, whose heaviest weight one more event might have
_ROUNDING = 1e-12  # of sums of weights


class Kept(NamedTuple):
    """What is above thresholds; arrays of their shape.

    Attributes:
        share: Weight above over all weight.
        variance: Of the share.
        single: The share of one event more: by the heaviest weight of the 100 highest scores where nothing is above,
            of the 100 lowest where everything is.
    """

    share: np.ndarray
    variance: np.ndarray
    single: np.ndarray


class ScoreDistribution(Protocol):
    """What operating points are found from."""

    @property
    def thresholds(self) -> np.ndarray:
        """Thresholds at which the share changes, increasing."""
        ...

    def share(self, thresholds: ArrayLike) -> np.ndarray:
        """The share with a score of at least each threshold."""
        ...

    def kept(self, thresholds: ArrayLike) -> Kept:
        """The same with what its error needs."""
        ...

    def threshold_below(self, share: float) -> float:
        """The lowest threshold above which there is no more than a share."""
        ...


def shares(kept: Kept) -> list[Share]:
    """Values with their intervals, one for each threshold.

    Args:
        kept: Of :meth:`ScoreDistribution.kept`.
    """
    low, high, effective = weighted_interval(kept.share, kept.variance, kept.single)
    columns = (np.atleast_1d(a).tolist() for a in (kept.share, low, high, effective))
    return [Share(*row) for row in zip(*columns, strict=True)]


# ---------------------------------------------------------------- every score


@dataclass(frozen=True, eq=False)
class ScoreSample:
    """All scores of a class, sorted; make one with :meth:`of`.

    Attributes:
        scores: Increasing, shape ``(n,)``.
        weights: In that order, or ``None``: all one.
        sums: Shape ``(n + 1, 3)``, or ``None`` without weights: from the highest score on, the sum of weights, of the
            products of weights of pairs above that share an event, and of those with one of the two above.
    """

    scores: np.ndarray
    weights: np.ndarray | None
    sums: np.ndarray | None

    @classmethod
    def of(
        cls,
        scores: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        clusters: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> ScoreSample:
        """Sort scores.

        Args:
            scores: Shape ``(n,)``; infinities are allowed.
            weights: Of each, not negative; ones by default.
            clusters: The numbers of the prompt and of the delayed event of each pair, shape ``(n,)`` both; the same
                number is the same event.

        Raises:
            NuebarError: Nothing, NaN, or lengths that do not match.
        """
        s = _checked_scores(scores)
        order = np.argsort(s, kind="stable")
        if weights is None and clusters is None:
            return cls(s[order], None, None)
        w = np.ones(s.size) if weights is None else _checked_weights(weights, s.size)
        if not w.sum() > 0:
            raise NuebarError("weights: expected a sum above 0, got 0")
        down = order[::-1]
        above, cross = _squares(w, down) if clusters is None else _clustered(w, down, clusters)
        sums = np.zeros((s.size + 1, 3))
        for i, column in enumerate((w[down], above, cross)):
            np.cumsum(column, out=sums[1:, i])
        return cls(s[order], w[order], sums)

    @property
    def thresholds(self) -> np.ndarray:
        """The distinct scores, increasing."""
        return np.unique(self.scores)

    def share(self, thresholds: ArrayLike) -> np.ndarray:
        """The share with a score of at least each threshold."""
        number = self._number(thresholds)
        return number / self.scores.size if self.sums is None else self.sums[number, 0] / self.sums[-1, 0]

    def kept(self, thresholds: ArrayLike) -> Kept:
        """The same with what its error needs."""
        n, number = self.scores.size, self._number(thresholds)
        if self.weights is None or self.sums is None:
            share = number / n
            return Kept(share, share * (1 - share) / n, np.full(share.shape, 1 / n))
        total, _, everything = self.sums[-1]
        passed, above, cross = np.moveaxis(self.sums[number], -1, 0)
        share = passed / total
        variance = np.maximum(above - 2 * share * cross + share**2 * everything, 0) / total**2
        w, least = self.weights, 1 / n * total
        single = np.full(number.shape, w.max())
        single[number == 0] = w[-_NEAR:].max() or least
        single[number == n] = w[:_NEAR].max() or least
        return Kept(share, variance, single / total)

    def _number(self, thresholds: ArrayLike) -> np.ndarray:
        return self.scores.size - np.searchsorted(self.scores, np.atleast_1d(np.asarray(thresholds, float)), "left")

    def threshold_below(self, share: float) -> float:
        """The lowest threshold above which there is no more than a share; ∞ if none is high enough."""
        n = self.scores.size
        most = share * (1 + _ROUNDING)
        if self.sums is None:
            number = min(int(np.floor(most * n)), n)
        else:
            number = int(np.searchsorted(self.sums[:, 0], most * self.sums[-1, 0], side="right")) - 1
        if number == n:
            return -np.inf
        return float(np.nextafter(self.scores[n - 1 - number], np.inf))


def _squares(weights: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    square = weights[down] ** 2
    return square, square


def _clustered(
    weights: np.ndarray, down: np.ndarray, clusters: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """What each pair, from the highest score on, adds to the sums over pairs that share an event."""
    first, second = (np.asarray(c) for c in clusters)
    if first.shape != weights.shape or second.shape != weights.shape:
        raise NuebarError(f"clusters: expected two arrays of {weights.size} numbers, got {first.shape}, {second.shape}")
    w = weights[down]
    _, events = np.unique(np.stack([first[down], second[down]], axis=1), return_inverse=True)
    events = np.sort(events.reshape(-1, 2), axis=1)
    before, total = _same(events.ravel(), np.repeat(w, 2))
    # Pairs of the same two events share both, but are counted once.
    twice, both = _same(events[:, 0] * (events.max() + 1) + events[:, 1], w)
    above = w**2 + 2 * w * (before.reshape(-1, 2).sum(axis=1) - twice)
    cross = w * (total.reshape(-1, 2).sum(axis=1) - both)
    return above, cross


def _same(codes: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight of the rows before that have the same code, and of all that have it."""
    order = np.argsort(codes, kind="stable")
    running = np.cumsum(weights[order])
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    sizes = np.diff(np.append(starts, codes.size))
    at_start = running[starts] - weights[order][starts]
    at_end = running[starts + sizes - 1]
    before, total = np.empty(codes.size), np.empty(codes.size)
    before[order] = running - weights[order] - np.repeat(at_start, sizes)
    total[order] = np.repeat(at_end - at_start, sizes)
    return np.maximum(before, 0), total


# ---------------------------------------------------------------- bins


@dataclass(frozen=True, eq=False)
class ScoreHistogram:
    """Scores in even bins; ``a + b`` are both samples together.

    Attributes:
        low: Lower edge of the first bin.
        high: Upper edge of the last bin.
        entries: int64, shape ``(bins + 2,)``: below, in the bins, above.
        weight: Sum of weights, as entries.
        square: Sum of their squares.
        heaviest: Largest weight.
    """

    low: float
    high: float
    entries: np.ndarray
    weight: np.ndarray
    square: np.ndarray
    heaviest: np.ndarray

    @classmethod
    def of(
        cls,
        scores: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        low: float = -64.0,
        high: float = 64.0,
        bins: int = 2**16,
    ) -> ScoreHistogram:
        """Count scores.

        Args:
            scores: Shape ``(n,)``; infinities are allowed.
            weights: Of each, not negative; ones by default.
            low: See class.
            high: See class.
            bins: How many; by default a logit has 512.

        Raises:
            NuebarError: NaN, no range, or lengths that do not match.
        """
        if not (bins >= 1 and np.isfinite(low) and np.isfinite(high) and low < high):
            raise NuebarError(f"score histogram: expected bins in a finite range, got {bins} from {low} to {high}")
        s = np.asarray(scores, float)
        s = s if s.size == 0 else _checked_scores(s)
        place = np.searchsorted(np.linspace(low, high, bins + 1), s, side="right")
        size = bins + 2
        entries = np.bincount(place, minlength=size).astype(np.int64)
        if weights is None:
            return cls(low, high, entries, entries.astype(float), entries.astype(float), (entries > 0).astype(float))
        w = _checked_weights(weights, s.size)
        heaviest = np.zeros(size)
        np.maximum.at(heaviest, place, w)
        return cls(low, high, entries, np.bincount(place, w, size), np.bincount(place, w**2, size), heaviest)

    def __add__(self, other: ScoreHistogram) -> ScoreHistogram:
        """Both samples together.

        Raises:
            NuebarError: Other bins.
        """
        mine, theirs = ((h.low, h.high, h.entries.size - 2) for h in (self, other))
        if mine != theirs:
            raise NuebarError(f"score histogram: expected bins (low, high, number) {mine}, got {theirs}")
        return replace(
            self,
            entries=self.entries + other.entries,
            weight=self.weight + other.weight,
            square=self.square + other.square,
            heaviest=np.maximum(self.heaviest, other.heaviest),
        )

    @property
    def thresholds(self) -> np.ndarray:
        """−∞ and the edges."""
        return np.append(-np.inf, np.linspace(self.low, self.high, self.entries.size - 1))

    def share(self, thresholds: ArrayLike) -> np.ndarray:
        """The share with a score of at least each threshold, which is raised to the next edge; 0 beyond the last."""
        return self.kept(thresholds).share

    def kept(self, thresholds: ArrayLike) -> Kept:
        """The same with what its error needs."""
        if not self.weight.sum() > 0:
            raise NuebarError("score histogram: expected at least one score with a weight, got none; count some first")
        first = np.searchsorted(self.thresholds, np.atleast_1d(np.asarray(thresholds, float)), side="left")
        weight, square = (np.append(np.cumsum(a[::-1])[::-1], 0.0) for a in (self.weight, self.square))
        share = weight[first] / weight[0]
        variance = ((1 - 2 * share) * square[first] + share**2 * square[0]) / weight[0] ** 2
        running, single = np.cumsum(self.entries), np.full(first.shape, self.heaviest.max())
        top = int(np.searchsorted(running, max(running[-1] - _NEAR, 0), side="right"))
        bottom = int(np.searchsorted(running, min(_NEAR, running[-1]), side="left")) + 1
        single[share <= 0] = self.heaviest[top:].max()
        single[share >= 1] = self.heaviest[:bottom].max()
        return Kept(share, np.maximum(variance, 0), single / weight[0])

    def threshold_below(self, share: float) -> float:
        """The lowest edge above which there is no more than a share; ∞ if none is high enough."""
        above = np.cumsum(self.weight[::-1])[::-1]
        fits = np.flatnonzero(above <= share * (1 + _ROUNDING) * above[0])
        return float(self.thresholds[fits[0]]) if fits.size else np.inf


# ---------------------------------------------------------------- checks


def _checked_scores(scores: ArrayLike) -> np.ndarray:
    s = np.asarray(scores, float)
    if s.ndim != 1 or not s.size:
        raise NuebarError(f"scores: expected at least one, in one row, got shape {s.shape}")
    bad = np.flatnonzero(np.isnan(s))
    if bad.size:
        raise NuebarError(f"scores: expected numbers, got NaN at pair {bad[0]}; check the classifier's features")
    return s


def _checked_weights(weights: ArrayLike, n: int) -> np.ndarray:
    w = np.asarray(weights, float)
    if w.shape != (n,) or not np.all(np.isfinite(w) & (w >= 0)):
        raise NuebarError(f"weights: expected {n} finite numbers that are not negative, got shape {w.shape}")
    return w
