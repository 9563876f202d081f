"""Is a posterior what it claims to be: ranks, coverage and pulls over many data sets. Numbers only.

If truths are drawn from the prior and data from the truths, a truth is one more draw from its posterior: its rank
among L posterior samples is uniform on 0 … L (simulation-based calibration, Talts et al., arXiv:1804.06788),
and a credible region of level α holds it in a share α of the data sets. At one fixed truth both hold as well as the
posterior is Gaussian and the prior flat. Every function gives p-values; :func:`family` makes one verdict of many.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from nuebar.errors import NuebarError

__all__ = [
    "LEVELS",
    "Coverage",
    "Family",
    "Pulls",
    "Uniformity",
    "coverage",
    "family",
    "joint_ranks",
    "pull_summary",
    "ranks",
    "thin",
    "uniformity",
]

LEVELS = (0.1, 0.3, 0.5, 0.6827, 0.8, 0.9, 0.9545)
"""Default credible levels."""

_MAD_TO_SIGMA = 1.482602218505602
"""1/Φ⁻¹(3/4): the median absolute deviation of a normal distribution is σ over this."""

_MAD_NOISE = 1.1664
"""√N times the relative error of a σ from the median absolute deviation, normal: its efficiency is 36.74 % of that
of the standard deviation (Rousseeuw and Croux, J. Am. Stat. Assoc. 88 (1993) 1273), so 1/√(2 · 0.3674)."""

_MEDIAN_NOISE = float(np.sqrt(np.pi / 2))
"""√N/σ times the error of the median of normal numbers: 1.2533."""

_NO_DOUBT = 1e-8
"""Below this p-value the continuous Kolmogorov distribution, an upper bound, replaces 1 − (a sum near one)."""


_SINGULAR = 1e12
"""Condition of a correlation matrix above which its inverse has too few digits."""


@dataclass(frozen=True)
class Uniformity:
    """p-values of uniform ranks, shape ``(parameters,)``.

    Attributes:
        chi_square: Pearson's χ² of the ranks in bins, asymptotic.
        kolmogorov: Kolmogorov's statistic of discrete ranks, exact.
        bins: Bins of the χ².
    """

    chi_square: np.ndarray
    kolmogorov: np.ndarray
    bins: int

    @property
    def p_value(self) -> np.ndarray:
        """Both in one: twice the smaller (Bonferroni), at most one."""
        return np.minimum(1.0, 2.0 * np.minimum(self.chi_square, self.kolmogorov))


@dataclass(frozen=True)
class Coverage:
    """How often credible regions hold the truth; arrays of shape ``(levels, ...)``.

    Attributes:
        levels: What was asked, shape ``(levels,)``.
        nominal: What L discrete samples can offer next to it, shape ``(levels,)``: the probability to compare with.
        observed: Share of the data sets whose region holds the truth.
        low: Lower end of its 68.27 % Clopper-Pearson interval.
        high: Upper end.
        p_value: Two-sided binomial (twice the smaller tail) of the observed number, given ``nominal``.
        sets: Number of data sets.
    """

    levels: np.ndarray
    nominal: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_value: np.ndarray
    sets: int


@dataclass(frozen=True)
class Pulls:
    """Summary of estimates against truths over data sets; arrays of the shape of one estimate.

    Attributes:
        mean: Of the pulls (value − truth)/error.
        mean_error: Its standard error.
        p_mean: Student's t test of mean zero.
        width: Standard deviation of the pulls.
        width_error: width/√(2(N − 1)), normal pulls.
        p_width: Two-sided χ² test of variance one, normal pulls: heavy tails fail it too.
        bias: Median of value − truth.
        bias_error: 1.2533 · standard deviation/√N, the normal error of a median, not the one by order statistics
            (which needs no shape but is itself uncertain by N^(−1/4)).
        p_bias: Sign test of median zero, exact for any shape.
        spread: Standard deviation of value − truth over the root mean square of the errors.
        spread_error: Normal, errors taken as independent of the values.
        spread_median: 1.4826 · median absolute deviation over the median error.
        spread_median_error: As spread_error.
        sets: Number of data sets N.
    """

    mean: np.ndarray
    mean_error: np.ndarray
    p_mean: np.ndarray
    width: np.ndarray
    width_error: np.ndarray
    p_width: np.ndarray
    bias: np.ndarray
    bias_error: np.ndarray
    p_bias: np.ndarray
    spread: np.ndarray
    spread_error: np.ndarray
    spread_median: np.ndarray
    spread_median_error: np.ndarray
    sets: int


@dataclass(frozen=True)
class Family:
    """Verdict on many tests.

    Attributes:
        passes: No corrected p-value is below the level.
        corrected: Holm's corrected p-values by name.
        worst: Name of the smallest.
        level: Chance that a family of true hypotheses fails, at most.
    """

    passes: bool
    corrected: dict[str, float]
    worst: str
    level: float


def _finite(values: ArrayLike, name: str) -> np.ndarray:
    array = np.asarray(values, float)
    bad = np.argwhere(~np.isfinite(array))
    if array.size == 0 or len(bad):
        where = f"{array[tuple(bad[0])]} at [{', '.join(map(str, bad[0]))}]" if len(bad) else f"shape {array.shape}"
        raise NuebarError(f"{name} must be finite numbers, got {where}: leave out the data sets that failed")
    return array


def _pair(samples: ArrayLike, truth: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    s, t = _finite(samples, "samples"), _finite(truth, "truth")
    if s.ndim < 2 or s.shape[:-2] + s.shape[-1:] != t.shape:
        raise NuebarError(
            "samples must be of shape (..., samples, parameters) and truth of shape (..., parameters), "
            f"got {s.shape} and {t.shape}"
        )
    return s, t


def thin(samples: ArrayLike, effective: ArrayLike) -> np.ndarray:
    """As many evenly spaced samples of a chain as are independent.

    Correlated samples make ranks pile up at the ends even when the posterior is right (Talts et al.).

    Args:
        samples: In the order of the chain, shape ``(..., samples, parameters)``.
        effective: Effective sample size, or several (data sets, parameters): the least counts, since ranks of one
            study need one number of samples.

    Returns:
        Shape ``(..., kept, parameters)``, with kept = ⌊least effective⌋ but no more than there are.

    Raises:
        NuebarError: An effective size below 1.
    """
    s = np.asarray(samples)
    if s.ndim < 2:
        raise NuebarError(f"samples must be of shape (..., samples, parameters), got {s.shape}")
    least = float(np.min(_finite(effective, "effective sample size")))
    if least < 1:
        raise NuebarError(f"effective sample size must be at least 1, got {least:g}: run the chain longer")
    n = s.shape[-2]
    kept = min(int(least), n)
    return s[..., np.arange(kept) * n // kept, :]


def ranks(samples: ArrayLike, truth: ArrayLike, *, effective: ArrayLike | None = None) -> np.ndarray:
    """Rank of every true parameter among its posterior samples: how many are below it.

    Highest-density ranks, for :func:`coverage` with ``region="highest"``, are the ranks of the log posterior:
    ``ranks(log_samples[..., None], log_truth[..., None])``.

    Args:
        samples: Equally weighted, in the order of the chain, shape ``(..., samples, parameters)``.
        truth: Shape ``(..., parameters)``.
        effective: Effective sample size(s): the samples are thinned to it, see :func:`thin`.

    Returns:
        int64, shape ``(..., parameters)``, from 0 to L, where L is the number of samples after thinning.

    Raises:
        NuebarError: Shapes that do not match, numbers that are not finite.
    """
    s, t = _pair(samples, truth)
    if effective is not None:
        s = thin(s, effective)
    return (s < t[..., None, :]).sum(axis=-2)


def joint_ranks(samples: ArrayLike, truth: ArrayLike, *, effective: ArrayLike | None = None) -> np.ndarray:
    """Rank of the truth in density, for posteriors near a Gaussian: samples farther out in Mahalanobis distance.

    Centre and covariance are those of the samples and the truth together, which keeps all L + 1 points exchangeable:
    the ranks of a right posterior are uniform exactly, of whatever shape it is.

    Args:
        samples: Shape ``(..., samples, parameters)``.
        truth: Shape ``(..., parameters)``.
        effective: As for :func:`ranks`.

    Returns:
        int64, shape ``(...)``, from 0 (no sample is farther out) to L.

    Raises:
        NuebarError: As :func:`ranks`, or too few samples for a covariance.
    """
    s, t = _pair(samples, truth)
    if effective is not None:
        s = thin(s, effective)
    n, dim = s.shape[-2:]
    if n <= dim:
        raise NuebarError(f"samples must be more than the {dim} parameters to have a covariance, got {n}")
    points = np.concatenate([s, t[..., None, :]], axis=-2)
    points = points - points.mean(axis=-2, keepdims=True)
    scale = points.std(axis=-2, keepdims=True)
    if not np.all(scale > 0):
        raise NuebarError("samples must vary in every parameter, got one that is constant: leave it out")
    points = points / scale
    covariance = np.swapaxes(points, -1, -2) @ points / (n + 1)
    if np.max(np.linalg.cond(covariance)) > _SINGULAR:
        raise NuebarError("samples must span all parameters, got a singular covariance: leave a parameter out")
    distance = (points @ np.linalg.inv(covariance) * points).sum(axis=-1)
    return (distance[..., :-1] > distance[..., -1:]).sum(axis=-1)


def _checked_ranks(ranks: ArrayLike, n_samples: int) -> np.ndarray:
    r = np.asarray(ranks)
    if r.ndim == 0 or r.size == 0 or not np.issubdtype(r.dtype, np.integer):
        raise NuebarError(f"ranks must be whole numbers of shape (sets, ...), got {r.dtype} of shape {r.shape}")
    if n_samples < 1 or r.min() < 0 or r.max() > n_samples:
        raise NuebarError(
            f"ranks among {n_samples} samples must lie in 0 … {n_samples}, got {r.min()} to {r.max()}: "
            "n_samples is the number of samples after thinning"
        )
    return r


def uniformity(ranks: ArrayLike, n_samples: int, *, bins: int | None = None) -> Uniformity:
    """Are ranks uniform on 0 … n_samples?

    The χ² sees too narrow and too wide posteriors, Kolmogorov's test a shift. Both know that ranks are discrete: bins
    need not hold equally many of them, and the distribution of Kolmogorov's statistic is that of n numbers on L + 1
    values.

    Args:
        ranks: Of :func:`ranks` or :func:`joint_ranks`, shape ``(sets, parameters)`` or ``(sets,)``.
        n_samples: L, the number of samples after thinning.
        bins: Of the χ²; by default 2 to 20, with at least 10 expected in each from 20 data sets on.

    Raises:
        NuebarError: Ranks outside 0 … n_samples, or bins that are not in 2 … n_samples + 1.
    """
    r = _checked_ranks(ranks, n_samples)
    r = r.reshape(r.shape[0], -1)
    sets, values = r.shape[0], n_samples + 1
    bins = min(max(2, min(sets // 10, 20)), values) if bins is None else bins
    if not 2 <= bins <= values:
        raise NuebarError(f"bins must lie between 2 and n_samples + 1 = {values}, got {bins}")
    expected = sets / values * np.bincount(np.arange(values) * bins // values, minlength=bins)
    chi, kolmogorov = np.empty(r.shape[1]), np.empty(r.shape[1])
    for column, of in enumerate(r.T):
        counts = np.bincount(of * bins // values, minlength=bins)
        chi[column] = stats.chi2.sf(((counts - expected) ** 2 / expected).sum(), bins - 1)
        kolmogorov[column] = _kolmogorov(np.bincount(of, minlength=values))
    return Uniformity(chi, kolmogorov, bins)


def _kolmogorov(counts: np.ndarray) -> float:
    """P(D ≥ observed) of counts in equally likely cells, D = max |cumulated counts − expected|.

    Exact: cumulated Poisson counts that stay inside the band, conditional on their sum (Durbin, *Distribution theory
    for tests based on the sample distribution function*, SIAM 1973).
    """
    sets, cells = int(counts.sum()), counts.size
    line = sets * np.arange(1, cells + 1) / cells
    largest = np.abs(np.cumsum(counts) - line).max()
    bound = float(stats.kstwo.sf(largest / sets, sets))  # of continuous numbers: never smaller than the discrete one
    if bound < _NO_DOUBT:
        return bound
    reach = largest * (1 - 1e-9)  # staying inside means staying below the observed distance
    low = np.maximum(np.floor(line - reach).astype(int) + 1, 0)
    high = np.minimum(np.ceil(line + reach).astype(int) - 1, sets)
    widest = int((high - low + np.diff(low, prepend=0)).max())
    step = stats.poisson.pmf(np.arange(widest + 1), sets / cells)
    inside, start = np.ones(1), 0
    for lo, hi in zip(low, high, strict=True):
        if hi < lo:
            return 1.0
        inside, start = np.convolve(inside, step)[lo - start : hi - start + 1], lo
    total = inside[sets - start] / stats.poisson.pmf(sets, sets)
    return float(np.clip(1.0 - total, 0.0, 1.0))


def coverage(ranks: ArrayLike, n_samples: int, *, levels: ArrayLike = LEVELS, region: str = "central") -> Coverage:
    """How often credible regions hold the truth, from its ranks.

    A truth of rank r among L samples sits at the quantile u = (r + ½)/(L + 1). The central interval of level α holds
    it if |2u − 1| ≤ α, the highest-density region if 1 − u ≤ α (r counts samples of lower density). Uniform ranks do
    so with a probability close to α, which is counted and used in its place. Levels of one parameter are correlated.

    Args:
        ranks: Of :func:`ranks` with ``region="central"``, of :func:`joint_ranks` or of a log posterior with
            ``"highest"``; shape ``(sets, ...)``.
        n_samples: L, the number of samples after thinning.
        levels: Credible levels between 0 and 1.
        region: ``"central"`` or ``"highest"``.

    Raises:
        NuebarError: Ranks outside 0 … n_samples, levels outside (0, 1), an unknown region.
    """
    r = _checked_ranks(ranks, n_samples)
    alpha = np.atleast_1d(_finite(levels, "levels"))
    if alpha.ndim != 1 or not np.all((alpha > 0) & (alpha < 1)):
        raise NuebarError(f"levels must be numbers between 0 and 1, got {alpha.tolist()}")
    u = (np.arange(n_samples + 1) + 0.5) / (n_samples + 1)
    needed = {"central": np.abs(2 * u - 1), "highest": 1 - u}.get(region)
    if needed is None:
        raise NuebarError(f"region must be 'central' or 'highest', got {region!r}")
    held = needed <= alpha[:, None] + 1e-12
    nominal, sets = held.mean(axis=1), r.shape[0]
    number = held[:, r].sum(axis=1)
    tail = (1 - 0.682689492137086) / 2
    with np.errstate(invalid="ignore"):
        low = np.where(number > 0, stats.beta.ppf(tail, number, sets - number + 1), 0.0)
        high = np.where(number < sets, stats.beta.isf(tail, number + 1, sets - number), 1.0)
    chance = nominal.reshape((-1,) + (1,) * (r.ndim - 1))
    tails = np.minimum(stats.binom.cdf(number, sets, chance), stats.binom.sf(number - 1, sets, chance))
    return Coverage(alpha, nominal, number / sets, low, high, np.minimum(1.0, 2 * tails), sets)


def pull_summary(values: ArrayLike, errors: ArrayLike, truth: ArrayLike) -> Pulls:
    """Bias, spread and error bars of estimates over data sets.

    Args:
        values: Estimates, shape ``(sets, ...)``.
        errors: Their estimated standard errors, the same shape.
        truth: Anything that broadcasts to that shape.

    Raises:
        NuebarError: Fewer than 3 data sets, shapes that do not match, errors not above 0, values without spread.
    """
    v, e, t = _finite(values, "values"), _finite(errors, "errors"), _finite(truth, "truth")
    fits = t.ndim <= v.ndim and all(a in (1, b) for a, b in zip(t.shape[::-1], v.shape[::-1], strict=False))
    if v.ndim == 0 or v.shape[0] < 3 or v.shape != e.shape or not fits:
        raise NuebarError(
            "values and errors must be of one shape (sets, ...), with at least 3 sets, and truth broadcast to it, "
            f"got {v.shape}, {e.shape} and {t.shape}"
        )
    if not np.all(e > 0):
        raise NuebarError(f"errors must be above 0, got {e.min():g}: leave out the fits that failed")
    n, off = v.shape[0], v - t
    pull = off / e
    width, sigma = pull.std(axis=0, ddof=1), off.std(axis=0, ddof=1)
    if not np.all((sigma > 0) & (width > 0)):
        raise NuebarError("values must differ between data sets, got all the same: are the data sets distinct?")
    mean, mean_error = pull.mean(axis=0), width / np.sqrt(n)
    chi2 = (n - 1) * width**2
    above, below = (off > 0).sum(axis=0), (off < 0).sum(axis=0)
    spread, spread_error = _spread(sigma, e)
    middle, middle_error = _median_spread(off, e)
    return Pulls(
        mean=mean,
        mean_error=mean_error,
        p_mean=2 * stats.t.sf(np.abs(mean) / mean_error, n - 1),
        width=width,
        width_error=width / np.sqrt(2 * (n - 1)),
        p_width=2 * np.minimum(stats.chi2.cdf(chi2, n - 1), stats.chi2.sf(chi2, n - 1)),
        bias=np.median(off, axis=0),
        bias_error=_MEDIAN_NOISE * sigma / np.sqrt(n),
        p_bias=np.minimum(1.0, 2 * stats.binom.cdf(np.minimum(above, below), above + below, 0.5)),
        spread=spread,
        spread_error=spread_error,
        spread_median=middle,
        spread_median_error=middle_error,
        sets=n,
    )


def _spread(sigma: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviation over the root mean square error, as variances add, and the error of the ratio."""
    n, square = errors.shape[0], errors**2
    mean = square.mean(axis=0)
    ratio = sigma / np.sqrt(mean)
    relative = 1 / (2 * (n - 1)) + square.var(axis=0, ddof=1) / (4 * n * mean**2)
    return ratio, ratio * np.sqrt(relative)


def _median_spread(off: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n, middle = errors.shape[0], np.median(errors, axis=0)
    ratio = _MAD_TO_SIGMA * np.median(np.abs(off - np.median(off, axis=0)), axis=0) / middle
    noise = _MEDIAN_NOISE * errors.std(axis=0, ddof=1) / middle
    return ratio, np.sqrt((_MAD_NOISE * ratio) ** 2 + (noise * ratio) ** 2) / np.sqrt(n)


def family(p_values: Mapping[str, float], level: float = 0.01) -> Family:
    """One verdict on many tests: Holm's correction (Scand. J. Stat. 6 (1979) 65), right under any correlation.

    The k-th smallest of m p-values is multiplied by m + 1 − k and made monotone. A family of true hypotheses fails
    with a probability of at most ``level``: 0.01 says "consistent at 99 %".

    Args:
        p_values: By name.
        level: Of the whole family.

    Raises:
        NuebarError: No p-value, or one that is not between 0 and 1.
    """
    if not p_values:
        raise NuebarError("p_values must hold at least one test, got none")
    for name, p in p_values.items():
        if not 0 <= p <= 1:
            raise NuebarError(f"p_values must lie between 0 and 1, got {p} for {name!r}")
    order = sorted(p_values, key=lambda name: p_values[name])
    raised = [float(p_values[name]) * (len(order) - k) for k, name in enumerate(order)]
    holm = dict(zip(order, np.minimum(np.maximum.accumulate(raised), 1.0).tolist(), strict=True))
    return Family(holm[order[0]] >= level, {name: holm[name] for name in p_values}, order[0], level)
