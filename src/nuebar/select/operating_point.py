"""Where to cut on a score: thresholds, what they keep of both classes, and what that means at the real rates.

With S antineutrinos and B accidental pairs, of which a threshold keeps the shares ε and f,

    purity = S ε / (S ε + B f),   F₁ = 2 S ε / (S ε + B f + S),

the harmonic mean of purity and efficiency. Balanced classes, as published, have S = B. A background is given as the
share of the pairs in the window that is kept and, at the real rates, per day. Its errors hold for any small number of
events and for weighted ones (:mod:`nuebar.select.counting`); with none above the threshold the interval is an upper
limit.

Thresholds by F₁ and by purity are chosen with the background at the upper end of its error: otherwise they would go to
where the sample happens to have no background, and promise too much. What is reported is the measured background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.select.config import SelectionConfig
from nuebar.select.counting import Share
from nuebar.select.scores import Kept, ScoreDistribution, ScoreHistogram, shares

__all__ = [
    "BALANCED",
    "Curves",
    "Level",
    "OperatingPoint",
    "Rates",
    "at_threshold",
    "by_background",
    "by_efficiency",
    "by_f1",
    "by_purity",
    "curves",
    "efficiency_at",
]

_NOTHING = 1.841  # events: upper end of the central 68.27 % interval if none was seen, -ln(0.1587)
_RESOLVED = 10.0  # effective background events from which on a level is called measured


@dataclass(frozen=True)
class Rates:
    """How many pairs of both classes there are.

    Attributes:
        ibd: Antineutrino pairs, a day.
        accidental: Accidental pairs in the window, a day.
        name: ``"real"`` or ``"balanced"``.
    """

    ibd: float
    accidental: float
    name: str = "real"

    def __post_init__(self) -> None:
        """Refuse rates that make no purity."""
        if not (0 < self.ibd < np.inf and 0 < self.accidental < np.inf):
            raise NuebarError(f"rates: expected numbers above 0, got {self.ibd} and {self.accidental}")

    @classmethod
    def of(cls, config: SelectionConfig) -> Rates:
        """Those of a selection file."""
        return cls(config.rates.ibd_per_day, config.accidentals_per_day)


BALANCED = Rates(1.0, 1.0, "balanced")
"""As many accidentals as antineutrinos, as in the published figures."""


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and what it does.

    Attributes:
        how: What it was chosen by.
        threshold: Pairs with at least this score are kept.
        efficiency: Share of the antineutrinos that is kept.
        background: Share of the accidental pairs that is kept.
        purity: Share of antineutrinos among what is kept.
        f1: Harmonic mean of both.
        rates: At which purity and F₁ are meant.
    """

    how: str
    threshold: float
    efficiency: Share
    background: Share
    purity: Share
    f1: float
    rates: Rates

    @property
    def ibd_per_day(self) -> Share:
        """Antineutrinos kept."""
        return self.efficiency.times(self.rates.ibd)

    @property
    def background_per_day(self) -> Share:
        """Accidentals kept."""
        return self.background.times(self.rates.accidental)

    def record(self) -> dict[str, Any]:
        """For JSON; an infinite threshold is a text."""
        finite = bool(np.isfinite(self.threshold))
        return {
            "how": self.how,
            "threshold": self.threshold if finite else str(self.threshold),
            "probability": float(_probability(np.asarray(self.threshold))),
            **{name: getattr(self, name).record() for name in ("efficiency", "background", "purity")},
            "f1": self.f1,
            "rates": asdict(self.rates),
            "ibd_per_day": self.ibd_per_day.record(),
            "background_per_day": self.background_per_day.record(),
        }


def at_threshold(
    signal: ScoreDistribution,
    background: ScoreDistribution,
    threshold: float,
    rates: Rates,
    *,
    how: str = "threshold",
) -> OperatingPoint:
    """What a threshold keeps.

    Args:
        signal: Scores of antineutrinos.
        background: Scores of accidental pairs.
        threshold: Least score that is kept; 0 for cuts.
        rates: For purity and F₁.
        how: Goes into the result.

    Raises:
        NuebarError: The threshold is not a number.
    """
    if np.isnan(threshold):
        raise NuebarError("threshold: expected a number, got NaN")
    (efficiency,), (false,) = shares(signal.kept([threshold])), shares(background.kept([threshold]))
    value = float(_purity(efficiency.value, false.value, rates))
    # Purity rises with the efficiency and falls with the background: the two errors add in quadrature.
    low = [_purity(efficiency.low, false.value, rates), _purity(efficiency.value, false.high, rates)]
    high = [_purity(efficiency.high, false.value, rates), _purity(efficiency.value, false.low, rates)]
    down, up = float(np.hypot(*(value - np.array(low)))), float(np.hypot(*(np.array(high) - value)))
    purity = Share(value, max(value - down, 0.0), min(value + up, 1.0), false.effective)
    f1 = float(_f1(efficiency.value, false.value, rates))
    return OperatingPoint(how, float(threshold), efficiency, false, purity, f1, rates)


def by_f1(signal: ScoreDistribution, background: ScoreDistribution, rates: Rates) -> OperatingPoint:
    """The threshold of the largest F₁, with the background at the upper end of its error.

    Args:
        signal: Scores of antineutrinos.
        background: Scores of accidental pairs.
        rates: Of both, a day.

    Returns:
        The operating point.
    """
    t, eff, false = _candidates(signal, background)
    best = int(np.argmax(_f1(eff, false, rates)))
    return at_threshold(signal, background, t[best], rates, how=f"largest F1, {rates.name} rates")


def by_efficiency(
    signal: ScoreDistribution, background: ScoreDistribution, wanted: float, rates: Rates
) -> OperatingPoint:
    """The highest threshold with at least a wanted efficiency.

    Args:
        signal: Scores of antineutrinos.
        background: Scores of accidental pairs.
        wanted: Least efficiency, a share.
        rates: Of both, a day.

    Returns:
        The operating point.

    Raises:
        NuebarError: The efficiency is not between 0 and 1.
    """
    if not 0 < wanted <= 1:
        raise NuebarError(f"efficiency: expected a share above 0, at most 1, got {wanted}")
    t, eff, _ = _candidates(signal, background)
    enough = np.flatnonzero(eff >= wanted * (1 - 1e-12))
    return at_threshold(signal, background, t[enough[-1]], rates, how=f"efficiency of at least {wanted:g}")


def by_purity(signal: ScoreDistribution, background: ScoreDistribution, wanted: float, rates: Rates) -> OperatingPoint:
    """The threshold of the largest efficiency among those with at least a wanted purity at the upper end of background.

    Args:
        signal: Scores of antineutrinos.
        background: Scores of accidental pairs.
        wanted: Least purity, a share.
        rates: Of both, a day.

    Returns:
        The operating point.

    Raises:
        NuebarError: The purity is not between 0 and 1, or no threshold has it.
    """
    if not 0 < wanted < 1:
        raise NuebarError(f"purity: expected a share between 0 and 1, got {wanted}")
    t, eff, false = _candidates(signal, background)
    pure = _purity(eff, false, rates)
    enough = np.flatnonzero((pure >= wanted) & (eff > 0))
    if not enough.size:
        raise NuebarError(
            f"purity: no threshold reaches {wanted:g} at {rates.name} rates, the largest is {pure.max():.6g}; ask for "
            "less, or score more accidental pairs"
        )
    return at_threshold(signal, background, t[enough[0]], rates, how=f"purity of at least {wanted:g}")


def by_background(
    signal: ScoreDistribution, background: ScoreDistribution, share: float, rates: Rates
) -> OperatingPoint:
    """The lowest threshold that keeps no more than a share of the accidental pairs: that of another classifier.

    Both classifiers should be counted on the same pairs.

    Args:
        signal: Scores of antineutrinos.
        background: Scores of accidental pairs.
        share: For instance ``cuts.background.value`` of an operating point of the cuts.
        rates: For purity and F₁.

    Raises:
        NuebarError: The share is not between 0 and 1, or no threshold goes so low.
    """
    t = _lowest_threshold(background, share)
    return at_threshold(signal, background, t, rates, how=f"background of at most {share:.4g} of the pairs")


def _lowest_threshold(background: ScoreDistribution, share: float) -> float:
    if not 0 <= share <= 1:
        raise NuebarError(f"background: expected a share of the pairs from 0 to 1, got {share}")
    t = background.threshold_below(share)
    if t == np.inf:
        raise NuebarError(
            f"background: no threshold keeps only {share:g} of the pairs; the scores of accidentals reach the end of "
            "their range, as those of cuts do"
        )
    return t


# ---------------------------------------------------------------- curves


@dataclass(frozen=True, eq=False)
class Curves:
    """What thresholds do; all arrays of shape ``(thresholds,)``.

    Attributes:
        rates: At which purity and F₁ are meant.
        threshold: Logit, increasing.
        probability: The same as a probability for balanced classes.
        efficiency: Share of antineutrinos; ``_low`` and ``_high`` are its 68.27 % interval.
        efficiency_low: See there.
        efficiency_high: See there.
        background: Share of accidental pairs.
        background_low: See there.
        background_high: See there.
        purity: 0 where nothing is kept.
        f1: Harmonic mean of both.
    """

    rates: Rates
    threshold: np.ndarray
    probability: np.ndarray
    efficiency: np.ndarray
    efficiency_low: np.ndarray
    efficiency_high: np.ndarray
    background: np.ndarray
    background_low: np.ndarray
    background_high: np.ndarray
    purity: np.ndarray
    f1: np.ndarray


def curves(
    signal: ScoreDistribution,
    background: ScoreDistribution,
    rates: Rates,
    *,
    thresholds: ArrayLike | None = None,
    points: int = 401,
) -> Curves:
    """Efficiency, background, purity and F₁ against the threshold.

    Args:
        signal: Scores of antineutrinos.
        background: Scores of accidental pairs.
        rates: For purity and F₁.
        thresholds: Logits; by default even ones over the range of the finite scores of antineutrinos.
        points: How many.

    Raises:
        NuebarError: Scores are not finite, or there are too few points.
    """
    if thresholds is None:
        t = signal.thresholds
        if isinstance(signal, ScoreHistogram):
            t = t[:-1][signal.entries[:-1] > 0]
        t = t[np.isfinite(t)]
        if not t.size or points < 2:
            raise NuebarError(f"curves: expected finite scores and at least 2 points, got {t.size} and {points}")
        thresholds = np.linspace(t[0], t[-1], points)
    t = np.sort(np.asarray(thresholds, float))
    kept = [_columns(d.kept(t)) for d in (signal, background)]
    (eff, eff_low, eff_high), (false, false_low, false_high) = kept
    return Curves(
        rates,
        t,
        _probability(t),
        eff,
        eff_low,
        eff_high,
        false,
        false_low,
        false_high,
        _purity(eff, false, rates),
        _f1(eff, false, rates),
    )


@dataclass(frozen=True)
class Level:
    """Efficiency at a level of background.

    Attributes:
        background: Share of the accidental pairs that was asked for.
        threshold: The lowest one with no more.
        efficiency: Its interval holds the error of the threshold, too: the background above it is only measured.
        measured: The background that was found above it.
        resolved: Whether that is 10 effective events or more. A level that is not is no measurement.
    """

    background: float
    threshold: float
    efficiency: Share
    measured: Share
    resolved: bool


def efficiency_at(
    signal: ScoreDistribution, background: ScoreDistribution, levels: Sequence[float] | np.ndarray
) -> tuple[Level, ...]:
    """Efficiency against the level of background.

    Args:
        signal: Scores of antineutrinos.
        background: Scores of accidental pairs.
        levels: Shares of the accidental pairs.

    Raises:
        NuebarError: A level is not between 0 and 1, or no threshold goes so low.
    """
    return tuple(_level(signal, background, float(level)) for level in levels)


def _level(signal: ScoreDistribution, background: ScoreDistribution, level: float) -> Level:
    t = _lowest_threshold(background, level)
    (efficiency,), (found,) = shares(signal.kept([t])), shares(background.kept([t]))
    # If the true background is at the end of its interval, these thresholds would have given the level.
    strict = background.threshold_below(level * found.value / found.high) if found.value > 0 else np.inf
    loose = background.threshold_below(min(level * found.value / found.low, 1.0)) if found.low > 0 else -np.inf
    worst, best = signal.share([max(strict, t), min(loose, t)])
    down = np.hypot(efficiency.value - efficiency.low, efficiency.value - worst)
    up = np.hypot(efficiency.high - efficiency.value, best - efficiency.value)
    low, high = max(efficiency.value - float(down), 0.0), min(efficiency.value + float(up), 1.0)
    share = Share(efficiency.value, low, high, efficiency.effective)
    return Level(level, t, share, found, found.effective >= _RESOLVED)


# ---------------------------------------------------------------- arithmetic


def _candidates(signal: ScoreDistribution, background: ScoreDistribution) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds worth a look, the efficiency there and the background plus its error.

    Between scores of antineutrinos a higher threshold is never worse.
    """
    coarse = [d for d in (signal, background) if isinstance(d, ScoreHistogram)]
    t = (coarse[0] if coarse else signal).thresholds
    if len(coarse) == 2 and not np.array_equal(t, coarse[1].thresholds):
        raise NuebarError("score histograms: expected the same bins for both classes; count them with the same range")
    kept = background.kept(t)
    error = np.where(kept.share > 0, np.sqrt(kept.variance), _NOTHING * kept.single)
    return t, signal.share(t), kept.share + error


def _columns(kept: Kept) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found = shares(kept)
    return kept.share, np.array([s.low for s in found]), np.array([s.high for s in found])


def _purity(efficiency: ArrayLike, false: ArrayLike, rates: Rates) -> np.ndarray:
    good, bad = rates.ibd * np.asarray(efficiency), rates.accidental * np.asarray(false)
    kept = np.asarray(good + bad)
    return np.asarray(np.divide(good, kept, out=np.zeros_like(kept), where=kept > 0))


def _f1(efficiency: ArrayLike, false: ArrayLike, rates: Rates) -> np.ndarray:
    good, bad = rates.ibd * np.asarray(efficiency), rates.accidental * np.asarray(false)
    return np.asarray(2 * good / (good + bad + rates.ibd))


def _probability(logit: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    return np.asarray(expit(logit))
