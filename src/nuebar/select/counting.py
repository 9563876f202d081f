"""Shares of events with honest errors: Clopper-Pearson intervals, also for weighted and for no events.

Binomial intervals are the central ones of C. Clopper and E. Pearson (Biometrika 26 (1934) 404), at 68.27 % by default.
A weighted share takes the interval of an unweighted one with the same value and variance: N_eff = f (1 − f)/V tries,
of which f N_eff passed. For small shares this is the scaled Poisson distribution (G. Bohm and G. Zech, NIM A 748
(2014) 1).
A share of 0 or 1 has no variance of its own; one event there counts as much as the heaviest weight that it might have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from nuebar.errors import NuebarError

__all__ = ["ONE_SIGMA", "Share", "binomial_interval", "binomial_upper", "weighted_interval"]

ONE_SIGMA = 0.682689492137086
"""Probability within one standard deviation of a normal distribution."""


@dataclass(frozen=True)
class Share:
    """A share with its central 68.27 % interval.

    Attributes:
        value: The share.
        low: Lower end.
        high: Upper end.
        effective: Events that passed, or as many unweighted ones as have the same relative error.
    """

    value: float
    low: float
    high: float
    effective: float

    def times(self, factor: float) -> Share:
        """The same in another unit: pairs a day, per cent."""
        return Share(factor * self.value, factor * self.low, factor * self.high, self.effective)

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "effective": self.effective}


def binomial_interval(passed: ArrayLike, total: ArrayLike, *, cl: float = ONE_SIGMA) -> tuple[np.ndarray, np.ndarray]:
    """Central Clopper-Pearson interval: covers with at least ``cl``, whatever the true share.

    Args:
        passed: k; may be effective numbers, which need not be whole.
        total: n, with 0 ≤ k ≤ n. No tries at all give 0 to 1.
        cl: Confidence level.

    Returns:
        Low and high end, of the joint shape.

    Raises:
        NuebarError: Numbers out of order, or a level outside of (0, 1).
    """
    if not 0 < cl < 1:
        raise NuebarError(f"cl: expected a probability between 0 and 1, got {cl}")
    k, n = np.broadcast_arrays(np.asarray(passed, float), np.asarray(total, float))
    if not np.all((k >= 0) & (k <= n) & np.isfinite(n)):
        raise NuebarError(f"binomial interval: expected 0 <= passed <= total, got {passed!r} and {total!r}")
    tail = (1 - cl) / 2
    with np.errstate(invalid="ignore"):
        low = np.where(k > 0, stats.beta.ppf(tail, k, n - k + 1), 0.0)
        high = np.where(k < n, stats.beta.isf(tail, k + 1, n - k), 1.0)
    return low, high


def binomial_upper(passed: float, total: float, *, cl: float = 0.9) -> float:
    """One-sided upper limit of a share: 1 − (1 − cl)^(1/n) if none of n passed, 2.303/n at 90 %.

    Args:
        passed: k, which may be an effective number.
        total: n.
        cl: Confidence level.

    Raises:
        NuebarError: The numbers are no share, or the level is not between 0 and 1.
    """
    if not 0 < cl < 1 or not 0 <= passed <= total:
        raise NuebarError(f"upper limit: expected 0 <= passed <= total and 0 < cl < 1, got {passed}, {total}, {cl}")
    return float(stats.beta.isf(1 - cl, passed + 1, total - passed)) if passed < total else 1.0


def weighted_interval(
    share: ArrayLike, variance: ArrayLike, single: ArrayLike, *, cl: float = ONE_SIGMA
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interval of a share that was estimated from weighted events.

    Args:
        share: f, from 0 to 1.
        variance: Of f.
        single: The share that one more event would add: its weight over the sum of weights. Used at 0 and at 1, where
            the variance says nothing.
        cl: Confidence level.

    Returns:
        Low end, high end, and the effective number of events that passed (0 for none).
    """
    f, v, one = np.broadcast_arrays(np.asarray(share, float), np.asarray(variance, float), np.asarray(single, float))
    f = np.clip(f, 0.0, 1.0)  # sums of weights leave it by rounding
    known = (f > 0) & (f < 1) & (v > 0)
    tries = np.where(known, f * (1 - f) / np.where(known, v, 1.0), 1 / one)
    passed = np.minimum(f * tries, tries)
    low, high = binomial_interval(passed, tries, cl=cl)
    return low, high, passed
