"""Is a whole chain of analysis calibrated: one verdict on the pulls of many parameters over many seeds. Numbers only.

Truths are drawn, data simulated from them and fitted. If values and errors are right, every pull
(fitted − true)/error is a standard normal number, and the squared Mahalanobis distance between fit and truth a χ² with
as many degrees of freedom as parameters. :func:`calibration` tests both in several ways and corrects for the number of
tests with Holm's method: all of them together fail a right chain with a probability of at most the level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from nuebar.errors import NuebarError
from nuebar.stats.ranks import family, pull_summary

__all__ = [
    "PRIOR_DOMINATED",
    "Calibration",
    "JointPull",
    "ParameterPull",
    "anderson_darling",
    "anderson_darling_tail",
    "calibration",
    "mahalanobis",
]

PRIOR_DOMINATED = 0.9
"""Error after the fit over width of the prior from which a parameter is the prior's: by then the data hold
1/0.9² − 1 = 23 % of the information that the prior has."""

LEAST_SEEDS = 8
"""From here on the limiting distribution of Anderson and Darling's statistic is good to 0.005."""

_A2_INTERVALS = 24
_A2_NODES = 40
_A2_CERTAIN = 0.05
"""P(A² > 0.05) = 1 − 10⁻¹⁰. From here on the sum below converges within 24 intervals: e^(−u x/2) with u > 47 · 48."""


@dataclass(frozen=True)
class ParameterPull:
    """Pulls of one parameter.

    Attributes:
        name: Of the parameter.
        mean: Of the pulls.
        mean_error: Its standard error.
        p_mean: Student's t test of mean zero.
        width: Standard deviation of the pulls.
        width_error: width/√(2(N − 1)), normal pulls.
        p_width: Two-sided χ² test of width one.
        p_shape: Anderson and Darling's test of a standard normal distribution, no parameter fitted.
        largest: The pull that is farthest from zero.
        p_largest: Chance that one of N standard normal numbers is farther.
        prior_ratio: Median error after the fit over width of the prior; None without a prior.
        prior_dominated: Whether that is above the limit: then the pull tests how the prior is handled, not the chain.
    """

    name: str
    mean: float
    mean_error: float
    p_mean: float
    width: float
    width_error: float
    p_width: float
    p_shape: float
    largest: float
    p_largest: float
    prior_ratio: float | None
    prior_dominated: bool


@dataclass(frozen=True)
class JointPull:
    """Squared Mahalanobis distances of all parameters of interest together.

    Attributes:
        dof: Number of parameters.
        mean: Of the distances; ``dof`` is expected.
        mean_error: √(2 dof/N).
        p_sum: Two-sided χ² test of their sum: errors as a whole too small or too large.
        p_shape: Anderson and Darling's test of the χ² distribution.
    """

    dof: int
    mean: float
    mean_error: float
    p_sum: float
    p_shape: float


@dataclass(frozen=True)
class Calibration:
    """Verdict on a chain.

    Attributes:
        parameters: One record each.
        joint: Of the parameters of interest together; None where no distances were given.
        used: Seeds whose fits are tested.
        failed: Seeds whose fits failed: not tested.
        most_failed: Share of failed seeds that is tolerated.
        corrected: Holm's corrected p-value of every test, by "parameter: test".
        p_value: The smallest of them: that of the family.
        worst: Name of its test.
        level: Chance that a right chain fails, at most.
        consistent: The p-value is above the level, and no more seeds failed than tolerated.
    """

    parameters: tuple[ParameterPull, ...]
    joint: JointPull | None
    used: int
    failed: int
    most_failed: float
    corrected: dict[str, float]
    p_value: float
    worst: str
    level: float
    consistent: bool

    @property
    def prior_dominated(self) -> tuple[str, ...]:
        """Names of the parameters that are flagged."""
        return tuple(p.name for p in self.parameters if p.prior_dominated)


def calibration(
    pulls: ArrayLike,
    names: Sequence[str],
    *,
    failed: ArrayLike | None = None,
    prior_ratio: ArrayLike | None = None,
    prior_limit: float = PRIOR_DOMINATED,
    distances: ArrayLike | None = None,
    dof: int | None = None,
    level: float = 0.01,
    most_failed: float = 0.05,
) -> Calibration:
    """Test the pulls of a chain, parameter by parameter and together.

    Four tests of every parameter (mean, width, shape, largest) and two of the distances make the family. Parameters
    that are dominated by their prior are in it too: where truths and centres of constraints are drawn, theirs is a
    standard normal pull like any other.

    Failed fits are not a random choice of all fits, so many of them make the rest look better or worse than it is: they
    are counted, and above ``most_failed`` the chain is not consistent whatever the pulls say.

    Args:
        pulls: (fitted − true)/error, shape ``(seeds, parameters)``.
        names: Of the parameters.
        failed: Seeds whose fit failed, truth values of shape ``(seeds,)``. Their pulls may be anything, also NaN; all
            others must be finite numbers.
        prior_ratio: Error after the fit over width of the prior, shape ``(parameters,)`` or ``(seeds, parameters)``;
            NaN for a parameter without a prior, in all its seeds.
        prior_limit: From which ratio on a parameter is flagged.
        distances: Squared distances of :func:`mahalanobis`, shape ``(seeds,)``, with ``dof``.
        dof: Number of parameters in the distances.
        level: Of the whole family.
        most_failed: Share of the seeds that may fail.

    Raises:
        NuebarError: Shapes that do not match, names that repeat, a pull or a distance of a good fit that is not a
            finite number, fewer than 8 good fits, or pulls that are all the same.
    """
    table, names = np.asarray(pulls, float), tuple(names)
    if table.ndim != 2 or table.shape[1] != len(names) or not names:
        raise NuebarError(f"pulls must be of shape (seeds, {len(names)} parameters), got {table.shape}")
    if len(set(names)) < len(names):
        raise NuebarError(f"names must differ, got {next(n for n in names if names.count(n) > 1)!r} twice")
    bad = _failures(failed, len(table))
    good = table[~bad]
    if len(good) < LEAST_SEEDS:
        raise NuebarError(f"expected at least {LEAST_SEEDS} seeds with a good fit, got {len(good)} of {len(table)}")
    _refuse_gaps(table, bad, names)
    parameters = _per_parameter(good, names, _ratios(prior_ratio, bad, len(names)), prior_limit)
    joint = _joint(distances, dof, bad)
    tests = {f"{p.name}: {t}": getattr(p, f"p_{t}") for p in parameters for t in ("mean", "width", "shape", "largest")}
    if joint is not None:
        tests |= {"all together: sum": joint.p_sum, "all together: shape": joint.p_shape}
    verdict = family(tests, level)
    p_value = verdict.corrected[verdict.worst]
    return Calibration(
        parameters=parameters,
        joint=joint,
        used=len(good),
        failed=int(bad.sum()),
        most_failed=float(most_failed),
        corrected=verdict.corrected,
        p_value=p_value,
        worst=verdict.worst,
        level=level,
        consistent=p_value > level and bool(bad.sum() <= most_failed * bad.size),
    )


def mahalanobis(values: ArrayLike, truths: ArrayLike, covariances: ArrayLike) -> np.ndarray:
    """Squared distances (x − t)ᵀ C⁻¹ (x − t) between fits and truths, for :func:`calibration`.

    Args:
        values: Fitted, shape ``(seeds, parameters)``. A seed with a NaN anywhere gets a NaN: a failed fit.
        truths: Of the same shape, or one for all seeds, shape ``(parameters,)``.
        covariances: Of the fits, shape ``(seeds, parameters, parameters)``.

    Returns:
        Shape ``(seeds,)``.

    Raises:
        NuebarError: Shapes that do not match, or a covariance that is not positive definite.
    """
    v, c = np.asarray(values, float), np.asarray(covariances, float)
    t = np.asarray(truths, float)
    fits = v.ndim == 2 and c.shape == (*v.shape, v.shape[-1]) and t.shape in (v.shape, v.shape[1:])
    if not fits or v.size == 0:
        raise NuebarError(
            "values must be of shape (seeds, parameters), covariances (seeds, parameters, parameters) and truths like "
            f"values, got {v.shape}, {c.shape} and {t.shape}"
        )
    off = v - t
    out = np.full(len(v), np.nan)
    for seed in np.flatnonzero(np.isfinite(off).all(axis=1) & np.isfinite(c).all(axis=(1, 2))):
        # Parameters differ by many powers of ten: correlations have the better condition.
        sigma = np.sqrt(np.maximum(np.diag(c[seed]), 0.0))
        try:
            with np.errstate(invalid="ignore", divide="ignore"):
                factor = np.linalg.cholesky(np.nan_to_num(c[seed] / np.outer(sigma, sigma)))
        except np.linalg.LinAlgError as error:
            raise NuebarError(
                f"covariances must be positive definite, that of seed {seed} is not: mark its fit as failed"
            ) from error
        out[seed] = np.sum(np.linalg.solve(factor, off[seed] / sigma) ** 2)
    return out


def anderson_darling(log_below: ArrayLike, log_above: ArrayLike) -> np.ndarray:
    """p-values of Anderson and Darling's test that numbers follow a given distribution, nothing fitted.

    A² = −N − Σ (2i − 1)/N [ln F(x_i) + ln(1 − F(x_{N+1−i}))], x sorted (Ann. Math. Stat. 23 (1952) 193), weighs the
    tails, where Kolmogorov's distance is blind. The p-value is that of N → ∞, good to 0.005 from N = 8 on.

    Args:
        log_below: ln F of the numbers, shape ``(N, ...)``.
        log_above: ln(1 − F), the same shape; both, since one has no digits where the other is near 0.

    Returns:
        Shape ``(...)``.
    """
    below, above = np.sort(np.asarray(log_below, float), axis=0), np.sort(np.asarray(log_above, float), axis=0)
    n = len(below)
    weight = (2 * np.arange(1, n + 1) - 1) / n
    # ln(1 − F) rises where x falls: sorted, it is in the order that the formula asks for.
    return anderson_darling_tail(-n - np.tensordot(weight, below + above, axes=1))


def anderson_darling_tail(statistic: ArrayLike) -> np.ndarray:
    """P(A² > statistic) for N → ∞.

    A² is then Σ Z_j²/(j(j + 1)) with standard normal Z_j, whose tail is Smirnov's alternating sum
    1/π Σ_k (−1)^(k+1) ∫ e^(−ux/2)/(u √|D(u)|) du over u from (2k−1)2k to 2k(2k+1), with the Fredholm determinant
    D(u) = −cos(π/2 √(1 + 4u))/(πu) that vanishes at both ends. Sources: T. W. Anderson and D. A. Darling, Ann. Math.
    Stat. 23 (1952) 193, section 4; N. V. Smirnov (1937), in J. Durbin, *Distribution theory for tests based on the
    sample distribution function*, SIAM 1973.

    Args:
        statistic: Any shape.

    Returns:
        Of the same shape; all digits also where it is small.
    """
    x = np.asarray(statistic, float)
    k = np.arange(1, _A2_INTERVALS + 1)[:, None]
    low, high = (2 * k - 1.0) * 2 * k, 2 * k * (2 * k + 1.0)
    angle = (np.arange(_A2_NODES) + 0.5) * np.pi / _A2_NODES
    u = 0.5 * (low + high) + 0.5 * (high - low) * np.cos(angle)  # Chebyshev: the ends are inverse square roots
    determinant = np.abs(np.cos(0.5 * np.pi * np.sqrt(1 + 4 * u))) / (np.pi * u)
    weight = (-1.0) ** (k + 1) * np.sqrt((u - low) * (high - u) / determinant) / (u * _A2_NODES)
    tail = np.sum(weight * np.exp(-0.5 * u * np.maximum(x, _A2_CERTAIN)[..., None, None]), axis=(-2, -1))
    return np.clip(np.where(x > _A2_CERTAIN, tail, 1.0), 0.0, 1.0)


def _failures(failed: ArrayLike | None, seeds: int) -> np.ndarray:
    bad = np.zeros(seeds, bool) if failed is None else np.asarray(failed)
    if bad.shape != (seeds,) or bad.dtype != bool:
        raise NuebarError(f"failed must be {seeds} truth values, one per seed, got {bad.dtype} of shape {bad.shape}")
    return bad


def _refuse_gaps(table: np.ndarray, bad: np.ndarray, names: tuple[str, ...]) -> None:
    gaps = np.argwhere(~np.isfinite(table) & ~bad[:, None])
    if len(gaps):
        seed, column = gaps[0]
        raise NuebarError(
            f"pulls must be finite numbers, got {table[seed, column]} for {names[column]!r} in row {seed} "
            f"({len(gaps)} such entries): mark the seed as failed"
        )


def _ratios(prior_ratio: ArrayLike | None, bad: np.ndarray, columns: int) -> np.ndarray:
    """Median over the good seeds; NaN without a prior."""
    if prior_ratio is None:
        return np.full(columns, np.nan)
    ratio = np.asarray(prior_ratio, float)
    if ratio.shape not in ((columns,), (len(bad), columns)):
        raise NuebarError(f"prior_ratio must be of shape ({columns},) or ({len(bad)}, {columns}), got {ratio.shape}")
    ratio = ratio[None, :] if ratio.ndim == 1 else ratio[~bad]
    none = np.isnan(ratio)
    if np.any(none.any(axis=0) != none.all(axis=0)) or not np.all(none | (np.isfinite(ratio) & (ratio >= 0))):
        raise NuebarError(
            "prior_ratio must be finite and at least 0, or NaN in all seeds for a parameter without prior"
        )
    return np.median(ratio, axis=0)


def _per_parameter(
    pulls: np.ndarray, names: tuple[str, ...], ratios: np.ndarray, limit: float
) -> tuple[ParameterPull, ...]:
    s = pull_summary(pulls, np.ones_like(pulls), 0.0)
    shape = anderson_darling(stats.norm.logcdf(pulls), stats.norm.logsf(pulls))
    largest = pulls[np.argmax(np.abs(pulls), axis=0), np.arange(len(names))]
    # 1 − (1 − p)^N without the loss of digits
    p_largest = -np.expm1(len(pulls) * np.log1p(-2 * stats.norm.sf(np.abs(largest))))
    return tuple(
        ParameterPull(
            name=name,
            mean=float(s.mean[k]),
            mean_error=float(s.mean_error[k]),
            p_mean=float(s.p_mean[k]),
            width=float(s.width[k]),
            width_error=float(s.width_error[k]),
            p_width=float(s.p_width[k]),
            p_shape=float(shape[k]),
            largest=float(largest[k]),
            p_largest=float(p_largest[k]),
            prior_ratio=None if np.isnan(ratios[k]) else float(ratios[k]),
            prior_dominated=bool(ratios[k] > limit),
        )
        for k, name in enumerate(names)
    )


def _joint(distances: ArrayLike | None, dof: int | None, bad: np.ndarray) -> JointPull | None:
    if distances is None and dof is None:
        return None
    if distances is None or dof is None or dof < 1:
        raise NuebarError(f"distances need a dof of at least 1, the number of their parameters, got {dof}")
    squares = np.asarray(distances, float)
    if squares.shape != bad.shape:
        raise NuebarError(f"distances must be {bad.size}, one per seed, got shape {squares.shape}")
    wrong = np.flatnonzero(~(np.isfinite(squares) & (squares >= 0)) & ~bad)
    if len(wrong):
        raise NuebarError(
            f"distances must be finite and at least 0, got {squares[wrong[0]]} in row {wrong[0]}: "
            "mark the seed as failed"
        )
    d2 = squares[~bad]
    total, expected = d2.sum(), dof * d2.size
    return JointPull(
        dof=int(dof),
        mean=float(d2.mean()),
        mean_error=float(np.sqrt(2 * dof / d2.size)),
        p_sum=float(min(1.0, 2 * min(stats.chi2.cdf(total, expected), stats.chi2.sf(total, expected)))),
        p_shape=float(anderson_darling(stats.chi2.logcdf(d2, dof), stats.chi2.logsf(d2, dof))),
    )
