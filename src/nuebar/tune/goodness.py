"""Whether calibration data look like what a density can make: tests against replicas, and sentences.

Replicas are data sets of the density at points of the posterior. Each is fitted as the data were, to first order: one
step of Fisher's scoring from the best fit, with ln p taken as linear in the parameters. That is good to about the
square of a parameter's change in units of its error times the bending of ln p over one error, far below the noise of a
thousand replicas for ten thousand events; it is what makes the p-values uniform rather than too large by the number of
fitted parameters. Three statistics are compared for every source:

* Poisson's deviance of bins merged to 5 expected events or more: for everything, sharp for nothing;
* the largest local difference, as significance of the window, over windows of several widths: for an unknown peak;
* Kolmogorov and Smirnov's distance: for shifted and for wrongly wide peaks.

Where fewer than 50 replicas lie above, their tail is continued as an exponential of uncertain slope, which for the
deviance is on the cautious side: the p-values are rather too large.
"""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nuebar.io.tunings import Goodness, SourceGoodness, TuningResult
from nuebar.tune.data import CalibrationData
from nuebar.tune.density import RESPONSE, Density
from nuebar.tune.likelihood import NORM_LIMITS, Table, table_of, with_slopes

__all__ = ["ALARM", "goodness_of_fit", "warnings"]

ALARM = 1e-3
"""Family-wise p-value below which data are said to lie outside what the density can make."""

CLOSE = 2.0  # standard deviations; nearer to an edge, more than 2 % of a Gaussian posterior is beyond
MERGED = 5.0  # expected events of a bin in the deviance
WINDOWS = (4, 8, 16, 32, 64)  # bins; a peak of 1 to 16 MeV has a full width of 4 to 40 bins of 0.02
LEAST = 1.0  # events that a window is taken to expect at least: a lone one in the desert is no peak
SMALLEST = 1e-15  # p-value: further than that no continued tail is worth a number
TAIL_REPLICAS = 50  # that give the slope of the tail: to 14 %
LARGEST_LOG_CHANGE = 5.0  # of a linearised ln p; in far tails, where nothing is expected, slopes are steep


def goodness_of_fit(
    data: CalibrationData,
    density: Density,
    best: ArrayLike,
    covariance: ArrayLike,
    *,
    norms: ArrayLike | None = None,
    samples: ArrayLike | None = None,
    precision: ArrayLike | None = None,
    free: ArrayLike | None = None,
    n_replicas: int = 1000,
    seed: int = 0,
) -> Goodness:
    """Compare data with replicas of the best fit; double precision must be on.

    Args:
        data: What was fitted; its counts are used, also after an unbinned fit.
        density: What it was fitted with.
        best: Response at the best fit, shape ``(3,)``.
        covariance: Of the response, for replicas where there are no samples.
        norms: Relative norms at the best fit, shape ``(sources,)``; one if None.
        samples: Posterior, shape ``(draws, 3)``.
        precision: Inverse covariance of Gaussian priors of the fit.
        free: Which parameters a replica may fit; those on an edge of the box may not.
        n_replicas: How many.
        seed: Of the replicas.
    """
    random = np.random.default_rng(seed)
    best = np.asarray(best, float)
    table = table_of(density, tuple(data.sources))
    model = _Model(data, table, best, norms)
    away = _away(best, covariance, samples, n_replicas, random)
    drawn = random.poisson(model.expected_at(away)).astype(np.float64)
    counts = np.concatenate([np.asarray(data.counts, float)[None], drawn])
    step = model.refitted(counts, precision, free)
    step[0] = 0.0  # the data were fitted already
    edges = np.asarray(data.edges, float)
    tests, sources = [], []
    total = np.zeros(n_replicas + 1)
    n_bins = 0
    for s, name in enumerate(data.sources):
        n, mu = counts[:, s], model.fitted(step, counts, s)
        deviance, merged = _deviance(n, mu)
        n_sum, mu_sum = (np.cumsum(np.pad(a, ((0, 0), (1, 0))), axis=1) for a in (n, mu))
        local, signed, window = _local(n_sum, mu_sum)
        distance = _distance(n_sum, mu_sum)
        total += deviance
        n_bins += merged
        p = [_p_value(t) for t in (deviance, local, distance)]
        tests += [deviance, local, distance]
        sources.append(
            SourceGoodness(
                source=name,
                events=int(n[0].sum()),
                n_bins=merged,
                deviance=float(deviance[0]),
                p_deviance=p[0],
                local=float(signed),
                local_range=(float(edges[window[0]]), float(edges[window[1]])),
                p_local=p[1],
                distance=float(distance[0]),
                p_distance=p[2],
            )
        )
    return Goodness(
        sources=tuple(sources),
        deviance=float(total[0]),
        n_dof=n_bins - len(data.sources) - len(RESPONSE),
        p_deviance=_p_value(total),
        p_value=_family_wise([*tests, total]),
        n_replicas=n_replicas,
    )


def warnings(result: TuningResult) -> tuple[str, ...]:
    """What a user must know about a result before its numbers are used, in plain sentences.

    Args:
        result: A tuning.

    Returns:
        Nothing where all is well.
    """
    told = [
        f"the best fit lies on the edge of the range of {name}, beyond which the density was not trained or the norm "
        "is not believed: the errors there are not to be trusted"
        for name in result.at_limit
    ]
    near = [
        f"the norm of {name.removeprefix('norm_')} is {value:.3f}, at the limit of its range "
        f"{NORM_LIMITS[0]:g} to {NORM_LIMITS[1]:g}: check its number of events and its background"
        for name, value in result.norms.items()
        if name not in result.at_limit and not NORM_LIMITS[0] + 1e-6 < value < NORM_LIMITS[1] - 1e-6
    ]
    if result.samples is None:
        told += [
            f"the best fit of {name} lies {gap:.1f} standard deviations from the edge {edge:g} of its range: the "
            "posterior is cut there, so take samples (nuts or nested) instead of the Hessian"
            for name, edge, gap in _close_edges(result)
        ]
    return (*told, *near, *(_misfits(result.goodness) if result.goodness else ()))


def _close_edges(result: TuningResult) -> list[tuple[str, float, float]]:
    """Parameters not on an edge but closer to it than :data:`CLOSE`, with the edge and the distance in errors."""
    found = []
    for name, limits in result.limits.items():
        for edge in limits:
            gap = abs(result.best[name] - edge) / result.errors[name]
            if name not in result.at_limit and gap < CLOSE:
                found.append((name, edge, gap))
    return found


def _misfits(goodness: Goodness) -> list[str]:
    if not goodness.p_value < ALARM:
        return []
    told = []
    for s in sorted(goodness.sources, key=lambda s: (s.p_value, -abs(s.local))):
        # Sources that suffer for another one's sake are told too: only the user knows which of them is right.
        if s.p_value < ALARM / len(goodness.sources):
            low, high = s.local_range
            kind = "excess" if s.local > 0 else "deficit"
            sign = "<" if s.p_value < 10 * SMALLEST else "="
            p_value = f"p {sign} {max(s.p_value, 10 * SMALLEST):.1g}"
            told.append(
                f"the data of {s.source} lie outside what the density can make ({p_value}): deviance {s.deviance:.0f} "
                f"of {s.n_bins} bins, largest {kind} {abs(s.local):.1f} sigma between {low:.2f} and {high:.2f}; do not "
                "use the result before it is understood"
            )
    return told or [
        f"the data of all sources together lie outside what the density can make (p = {goodness.p_value:.1g}), with "
        "no single source to blame; do not use the result before it is understood"
    ]


class _Model:
    """Expected counts around the best fit, ln p being linear in the response."""

    def __init__(self, data: CalibrationData, table: Table, best: np.ndarray, norms: ArrayLike | None) -> None:
        logs, slopes = (np.asarray(a) for a in _tabulated(table, best))
        events = np.asarray(data.counts, float).sum(axis=1)
        self.background = np.zeros(logs.shape) if data.background is None else np.asarray(data.background, float)
        self.probability = np.exp(logs)
        self.slopes = slopes - np.einsum("sk,skj->sj", self.probability, slopes)[:, None, :]
        scale = np.ones(len(events)) if norms is None else np.asarray(norms, float)
        self.signal = scale * (events - self.background.sum(axis=1))

    def expected_at(self, away: np.ndarray) -> np.ndarray:
        """Counts of points at distances ``(n, 3)`` from the best fit, shape ``(n, sources, bins)``."""
        return np.stack(
            [self.signal[s] * self._shape(away, s) + self.background[s] for s in range(len(self.signal))], axis=1
        )

    def fitted(self, step: np.ndarray, counts: np.ndarray, s: int) -> np.ndarray:
        """Expected counts of one source after the fits: its norm makes their sum that of the counts."""
        signal = counts[:, s].sum(axis=1) - self.background[s].sum()
        return np.maximum(signal, 0.0)[:, None] * self._shape(step, s) + self.background[s] + 1e-300

    def refitted(self, counts: np.ndarray, precision: ArrayLike | None, free: ArrayLike | None) -> np.ndarray:
        """One step of scoring for every data set, shape ``(n, 3)``."""
        signal = self.signal[:, None] * self.probability
        share = signal / np.maximum(signal + self.background, 1e-300)
        pulls = (share[..., None] * self.slopes).reshape(-1, len(RESPONSE))
        information = np.einsum("sk,ski,skj->ij", signal * share, self.slopes, self.slopes)
        if precision is not None:
            information = information + np.asarray(precision, float)
        moves = np.ones(len(RESPONSE), bool) if free is None else np.asarray(free, bool)
        excess = counts - (signal + self.background)
        score = excess.reshape(len(counts), -1) @ pulls
        step = np.zeros_like(score)
        if moves.any():
            unit = 1.0 / np.sqrt(np.diag(information)[moves])
            inverse = np.linalg.inv(information[np.ix_(moves, moves)] * np.outer(unit, unit)) * np.outer(unit, unit)
            step[:, moves] = score[:, moves] @ inverse
        return step

    def _shape(self, away: np.ndarray, s: int) -> np.ndarray:
        change = np.clip(away @ self.slopes[s].T, -LARGEST_LOG_CHANGE, LARGEST_LOG_CHANGE)
        shape = self.probability[s] * np.exp(change)
        return shape / shape.sum(axis=1, keepdims=True)


@partial(jax.jit, static_argnums=0)
def _tabulated(table: Table, response: Array) -> tuple[Array, Array]:
    return with_slopes(table, response)


def _away(
    best: np.ndarray, covariance: ArrayLike, samples: ArrayLike | None, n: int, random: np.random.Generator
) -> np.ndarray:
    if samples is not None:
        draws = np.asarray(samples, float)
        return draws[random.integers(len(draws), size=n)] - best
    covariance = np.asarray(covariance, float)
    if not np.isfinite(covariance).all():  # no curvature there: replicas of the best fit alone
        return np.zeros((n, len(best)))
    values, vectors = np.linalg.eigh(covariance)
    return random.standard_normal((n, len(best))) @ (vectors * np.sqrt(np.maximum(values, 0.0))).T


def _deviance(counts: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, int]:
    """Of merged bins, which the first expectation decides; and their number."""
    firsts, sum_ = [0], 0.0
    for k, mu in enumerate(expected[0]):
        if sum_ >= MERGED:
            firsts.append(k)
            sum_ = 0.0
        sum_ += mu
    if sum_ < MERGED and len(firsts) > 1:
        firsts.pop()
    n, mu = (np.add.reduceat(a, firsts, axis=1) for a in (counts, expected))
    return _twice_log_ratio(n, mu).sum(axis=1), len(firsts)


def _twice_log_ratio(n: np.ndarray, mu: np.ndarray) -> np.ndarray:
    return 2.0 * (n * np.log(np.maximum(n, 1e-300) / mu) - n + mu)


def _local(n_sum: np.ndarray, mu_sum: np.ndarray) -> tuple[np.ndarray, float, tuple[int, int]]:
    """Largest −2 ln ratio over the windows, from cumulated counts; for the first row its signed root and window too."""
    bins = n_sum.shape[1] - 1
    largest, signed, window = np.zeros(len(n_sum)), 0.0, (0, bins)
    for width in WINDOWS:
        firsts = np.arange(0, max(bins - width, 0) + 1, max(width // 4, 1))
        lasts = np.minimum(firsts + width, bins)
        n, mu = n_sum[:, lasts] - n_sum[:, firsts], np.maximum(mu_sum[:, lasts] - mu_sum[:, firsts], LEAST)
        ratio = _twice_log_ratio(n, mu)
        ratio[(n < LEAST) & (mu <= LEAST)] = 0.0  # nothing where next to nothing is expected
        k = int(ratio[0].argmax())
        if ratio[0, k] > largest[0]:
            signed = float(np.sign(n[0, k] - mu[0, k]) * np.sqrt(ratio[0, k]))
            window = (int(firsts[k]), int(lasts[k]))
        largest = np.maximum(largest, ratio.max(axis=1))
    return largest, signed, window


def _distance(n_sum: np.ndarray, mu_sum: np.ndarray) -> np.ndarray:
    total = np.maximum(n_sum[:, -1:], 1.0)
    return np.abs(n_sum / total - mu_sum / mu_sum[:, -1:]).max(axis=1) * np.sqrt(total[:, 0])


def _p_value(statistic: np.ndarray) -> float:
    """Of the first entry among the others."""
    value, replicas = statistic[0], statistic[1:]
    share = min(0.5, TAIL_REPLICAS / len(replicas))
    edge = np.quantile(replicas, 1.0 - share)
    above = replicas[replicas > edge]
    if value <= edge or not len(above):
        return float((1 + np.sum(replicas >= value)) / (1 + len(replicas)))
    # Averaged over what is not known of the slope: (1 + y/mβ)⁻ᵐ instead of exp(−y/β), m draws having a mean of β.
    tail = (1.0 + (value - edge) / np.sum(above - edge)) ** -len(above)
    return float(max(share * tail, SMALLEST))


def _family_wise(tests: list[np.ndarray]) -> float:
    """Probability that the smallest p-value of all tests is smaller, which replicas give with all correlations."""
    smallest = min(_p_value(t) for t in tests)
    n = len(tests[0]) - 1
    ranks = [np.argsort(np.argsort(-t[1:])) for t in tests]  # 0 for the largest
    replicas = (np.min(ranks, axis=0) + 1.0) / (n + 1.0)
    median = min(float(np.median(replicas)), 0.5)
    looks = np.log(0.5) / np.log1p(-median)  # as many independent tests have this median
    return float(-np.expm1(looks * np.log1p(-min(smallest, 1.0 - 1e-16))))
