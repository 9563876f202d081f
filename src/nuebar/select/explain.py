"""Why a pair was taken: Shapley values of a classifier's output. The one door to shap, an optional dependency.

The value of a feature is what knowing it adds to the output, averaged over all orders in which features become known;
features that are not known yet are those of a background pair (interventional values: S. Lundberg and S.-I. Lee,
arXiv:1705.07874; D. Janzing et al., arXiv:1910.13413). With a background of as many antineutrinos as accidentals all
values of a pair and 0.5 add up to its probability, as published. Two methods, of the same numbers:

``exact``
    All 1024 sets of known features times all background pairs: for single pairs.
``sampled``
    One random order and its reverse for each background pair (antithetic sampling: R. Mitchell et al., JMLR 23 (2022)
    43): 18 evaluations instead of 1022, and the sum of the values stays exact. With 200 background pairs a value is
    good to 0.01 of probability; as many evaluations spent on exact values for fewer background pairs are worse, as are
    orders without their reverse, which makes features that interact in twos exact. A few pairs are done both ways and
    the difference is reported.

Errors are a bootstrap over pairs and over groups of the background: other background pairs give other values. Sampling
makes the mean absolute value of a feature that hardly matters too large; the pairs done both ways say by how much.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.select.classifier import Classifier, checked_features, score_in_chunks
from nuebar.select.features import FEATURES, column
from nuebar.training import generator

__all__ = [
    "OUTPUTS",
    "PUBLISHED_ORDER",
    "TOLERANCE",
    "Background",
    "Boundary",
    "Dependence",
    "Explanation",
    "Importance",
    "LocalExplanation",
    "against_shap",
    "as_shap",
    "balanced_background",
    "boundary",
    "explain",
    "explain_exactly",
    "importance",
    "require_shap",
]

Progress = Callable[[str, int, int], None]

OUTPUTS = ("probability", "logit")
"""What may be explained."""

PUBLISHED_ORDER = (
    "dr_m", "e_delayed_MeV", "r3_prompt_m3", "dt_us", "e_prompt_MeV", "r3_delayed_m3",
    "cos_theta_delayed", "cos_theta_prompt", "phi_prompt", "phi_delayed",
)  # fmt: skip
"""Features by importance: talk on arXiv:2406.12901, "Interpretability, global". The sixth name is hard to read there
(nominal)."""

TOLERANCE = 1e-6
"""Largest difference of the sum of values and base from the output, relative to the larger of 1 and the output."""

_N = len(FEATURES)
_EVENTS = 32  # at a time
_ROWS = 2**18  # of an exact evaluation at a time
_MOST_EXACT = 10_000  # pairs: half an hour
_STREAMS = {"background": 0, "orders": 1, "bootstrap": 2, "boundary": 3}


# ---------------------------------------------------------------- background


@dataclass(frozen=True, eq=False)
class Background:
    """Pairs that unknown features are taken from.

    Attributes:
        features: float32, shape ``(rows, 10)``; one group after the other.
        groups: How many; all of one size. They are the units of the errors.
    """

    features: np.ndarray
    groups: int = 1

    def __post_init__(self) -> None:
        """Refuse nothing, and groups of different size."""
        rows = len(checked_features(self.features))
        if self.groups < 1 or not rows or rows % self.groups:
            raise NuebarError(f"background: expected rows in {self.groups} groups of one size, got {rows} rows")


def balanced_background(
    ibd: np.ndarray, accidentals: np.ndarray, *, rows: int = 200, groups: int = 20, seed: int = 1
) -> Background:
    """As many antineutrinos as accidentals, in every group: the base value is near 0.5.

    Args:
        ibd: Features of antineutrinos.
        accidentals: Features of accidental pairs.
        rows: Of the background, drawn from these without replacement.
        groups: Into which they go.
        seed: Of the draw.

    Raises:
        NuebarError: Rows do not make such groups, or a class has too few pairs.
    """
    half = rows // 2
    if groups < 1 or half < groups or rows != 2 * half or half % groups:
        raise NuebarError(f"background: expected rows in {groups} groups with half of each class, got {rows}")
    parts = []
    for k, (name, x) in enumerate((("antineutrinos", ibd), ("accidental pairs", accidentals))):
        if len(checked_features(x)) < half:
            raise NuebarError(f"background: expected at least {half} {name}, got {len(x)}; take fewer rows")
        taken = generator(seed, _STREAMS["background"], k).choice(len(x), half, replace=False)
        parts.append(np.array(x[taken]).reshape(groups, half // groups, _N))
    return Background(np.concatenate(parts, axis=1).reshape(rows, _N), groups)


# ---------------------------------------------------------------- results


@dataclass(frozen=True, eq=False)
class LocalExplanation:
    """Why one pair got its output.

    Attributes:
        features: Its features, shape ``(10,)``.
        values: Shapley values, shape ``(10,)``.
        errors: Of the values, from the groups of the background, shape ``(10,)``.
        base: Mean output of the background.
        output: Of the pair: base plus the sum of the values.
        kind: One of :data:`OUTPUTS`.
        label: 1 for an antineutrino, 0 for an accidental pair, ``None`` if not known.
    """

    features: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    base: float
    output: float
    kind: str
    label: int | None = None

    @property
    def order(self) -> np.ndarray:
        """Numbers of the features, the largest value first."""
        return np.argsort(-np.abs(self.values), kind="stable")

    def record(self) -> dict[str, Any]:
        """For JSON, the largest value first."""
        rows = [
            {
                "feature": FEATURES[j],
                "at": float(self.features[j]),
                "value": float(self.values[j]),
                "error": float(self.errors[j]),
            }
            for j in self.order
        ]
        return {
            "explains": self.kind,
            "label": self.label,
            "base": self.base,
            "output": self.output,
            "features": rows,
        }


@dataclass(frozen=True, eq=False)
class Dependence:
    """Values of a feature against the feature.

    Attributes:
        name: The feature.
        x: Its values, shape ``(n,)``.
        values: Its Shapley values.
        colour_name: Another feature.
        colour: Its values.
        kind: One of :data:`OUTPUTS`.
    """

    name: str
    x: np.ndarray
    values: np.ndarray
    colour_name: str
    colour: np.ndarray
    kind: str


@dataclass(frozen=True, eq=False)
class Explanation:
    """Shapley values of pairs.

    Attributes:
        classifier: Name.
        kind: What is explained, one of :data:`OUTPUTS`.
        method: ``"exact"`` or ``"sampled"``.
        features: float32, shape ``(n, 10)``.
        labels: 1 for antineutrinos, 0 for accidental pairs, shape ``(n,)``; ``None`` if not known.
        outputs: Shape ``(n,)``.
        base: Mean output of the background.
        base_error: From its groups.
        values: float64, shape ``(n, 10)``: base plus their sum is the output.
        group_values: float32, shape ``(groups, n, 10)``: from each group of the background alone.
        residual: Largest relative difference of that sum from the output; below :data:`TOLERANCE`.
        background_rows: How many.
        check: For sampled values: how far they are from exact ones, see :func:`explain`.
        seconds: Spent.
    """

    classifier: str
    kind: str
    method: str
    features: np.ndarray
    labels: np.ndarray | None
    outputs: np.ndarray
    base: float
    base_error: float
    values: np.ndarray
    group_values: np.ndarray
    residual: float
    background_rows: int
    check: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def local(self, row: int) -> LocalExplanation:
        """One of the pairs; its errors are those of the background and of the sampling.

        Raises:
            NuebarError: There is no such row.
        """
        if not 0 <= row < len(self.values):
            raise NuebarError(f"explanation: expected a pair from 0 to {len(self.values) - 1}, got {row}")
        label = None if self.labels is None else int(self.labels[row])
        errors = _spread(self.group_values[:, row])
        value = self.features[row], self.values[row], errors, self.base, float(self.outputs[row]), self.kind, label
        return LocalExplanation(*value)

    def typical(self, label: int, *, threshold: float | None = None) -> int:
        """The row of the correctly classified pair whose values are the nearest to the median ones of its class.

        Args:
            label: 1 for a true positive, 0 for a true negative.
            threshold: Least output of a positive; by default 0.5, or a logit of 0.

        Raises:
            NuebarError: Labels are not known, or no pair of this label is classified correctly.
        """
        if self.labels is None:
            raise NuebarError("typical pair: expected labels, got none; give them to explain")
        least = {"probability": 0.5, "logit": 0.0}[self.kind] if threshold is None else threshold
        right = np.flatnonzero((self.labels == label) & ((self.outputs >= least) == (label == 1)))
        if not right.size:
            raise NuebarError(f"typical pair: none of label {label} is classified correctly at {least:g}")
        values = self.values[right]
        return int(right[np.argmin(np.abs(values - np.median(values, axis=0)).sum(axis=1))])

    def dependence(self, name: str, colour: str) -> Dependence:
        """How the values of a feature go with it, and with another one."""
        x, c = (np.array(column(self.features, n)) for n in (name, colour))
        return Dependence(name, x, np.array(column(self.values, name)), colour, c, self.kind)

    def arrays(self) -> dict[str, np.ndarray]:
        """For :func:`nuebar.io.arrays.save_arrays`; without the groups."""
        arrays = {"features": self.features, "values": self.values, "outputs": self.outputs}
        return arrays if self.labels is None else arrays | {"labels": self.labels}

    def record(self) -> dict[str, Any]:
        """What was done, for JSON."""
        return {
            "classifier": self.classifier,
            "explains": self.kind,
            "method": self.method,
            "pairs": len(self.values),
            "background": {"rows": self.background_rows, "groups": len(self.group_values)},
            "base": {"value": self.base, "error": self.base_error},
            "additivity": {"largest_relative_difference": self.residual, "tolerance": TOLERANCE},
            "check": dict(self.check),
            "seconds": round(self.seconds, 2),
        }


@dataclass(frozen=True, eq=False)
class Importance:
    """Mean size of the Shapley values of each feature, and how sure their order is.

    Attributes:
        kind: One of :data:`OUTPUTS`.
        mean: Mean absolute value, shape ``(10,)``, in the order of :data:`~nuebar.select.features.FEATURES`.
        error: Of the mean: pairs and background drawn again.
        error_pairs: With the same background.
        error_background: With the same pairs.
        draws: Means of the bootstrap, shape ``(draws, 10)``.
    """

    kind: str
    mean: np.ndarray
    error: np.ndarray
    error_pairs: np.ndarray
    error_background: np.ndarray
    draws: np.ndarray

    @property
    def order(self) -> tuple[str, ...]:
        """Features, the most important one first."""
        return tuple(FEATURES[j] for j in np.argsort(-self.mean, kind="stable"))

    def ranks(self) -> np.ndarray:
        """Ranks from 1 on of the features in each draw of the bootstrap, shape ``(draws, 10)``."""
        return np.argsort(np.argsort(-self.draws, axis=1, kind="stable"), axis=1) + 1

    def separation(self, first: str, second: str) -> float:
        """Standard deviations by which one feature is more important than another."""
        a, b = FEATURES.index(first), FEATURES.index(second)
        error = float(np.std(self.draws[:, a] - self.draws[:, b], ddof=1))
        difference = float(self.mean[a] - self.mean[b])
        return difference / error if error > 0 else math.copysign(math.inf, difference) if difference else 0.0

    def record(self) -> dict[str, Any]:
        """For JSON: the order with the ranks' 68 % intervals beside the published one, and where both disagree."""
        low, high = (np.round(np.quantile(self.ranks(), q, axis=0)).astype(int) for q in (0.1587, 0.8413))
        order = self.order
        rows = []
        for k, name in enumerate(order):
            j = FEATURES.index(name)
            row: dict[str, Any] = {
                "feature": name,
                "rank": k + 1,
                "rank_interval": [int(low[j]), int(high[j])],
                "published_rank": PUBLISHED_ORDER.index(name) + 1,
                "mean": float(self.mean[j]),
                "error": float(self.error[j]),
                "error_pairs": float(self.error_pairs[j]),
                "error_background": float(self.error_background[j]),
            }
            after = order[k + 1 : k + 2]
            row["sigmas_above_next"] = _finite(self.separation(name, after[0])) if after else None
            rows.append(row)
        swapped = [
            {"published_first": a, "published_second": b, "sigmas_against": _finite(self.separation(b, a))}
            for i, a in enumerate(PUBLISHED_ORDER)
            for b in PUBLISHED_ORDER[i + 1 :]
            if order.index(a) > order.index(b)
        ]
        return {
            "explains": self.kind,
            "order": list(order),
            "published_order": list(PUBLISHED_ORDER),
            "features": rows,
            "against_published": swapped,
        }


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def _spread(groups: np.ndarray) -> np.ndarray:
    """Error of the mean over the first axis; not known with one group."""
    if len(groups) < 2:
        return np.full(groups.shape[1:], np.nan)
    return np.asarray(np.std(groups.astype(float), axis=0, ddof=1) / math.sqrt(len(groups)))


# ---------------------------------------------------------------- values


def explain(
    classifier: Classifier,
    features: np.ndarray,
    background: Background,
    *,
    labels: ArrayLike | None = None,
    output: str = "probability",
    seed: int = 1,
    checked: int = 32,
    progress: Progress | None = None,
) -> Explanation:
    """Sampled Shapley values of many pairs.

    Args:
        classifier: Any one.
        features: Pairs, float32, shape ``(n, 10)``.
        background: Such as from :func:`balanced_background`.
        labels: 1 for antineutrinos, 0 for accidental pairs.
        output: One of :data:`OUTPUTS`.
        seed: Of the orders. Pair k has the same values whatever comes after it.
        checked: Pairs, evenly spaced, whose exact values are computed, too. ``check`` then has, by feature, the root
            mean square of the difference and that of the mean absolute values.
        progress: Called as ``progress("explaining", pairs done, pairs)``.

    Raises:
        NuebarError: Inputs of a wrong shape, a logit that is not finite, or values that do not add up.
    """
    start = time.perf_counter()
    x = _checked(features, output)
    base, outputs = _outputs(classifier, background.features, output), _outputs(classifier, x, output)
    groups = np.empty((background.groups, len(x), _N), np.float32)
    values = np.empty((len(x), _N))
    for first in range(0, len(x), _EVENTS):
        piece = slice(first, min(first + _EVENTS, len(x)))
        rng = generator(seed, _STREAMS["orders"], first // _EVENTS)
        found = _sampled(classifier, x[piece], background, outputs[piece], base, output, rng)
        groups[:, piece], values[piece] = found, found.mean(axis=0)
        if progress is not None:
            progress("explaining", piece.stop, len(x))
    spaced = np.unique(np.linspace(0, len(x) - 1, min(checked, len(x))).astype(int))
    check = _compare(classifier, x[spaced], values[spaced], background, output) if spaced.size else {}
    told = _labels(labels, len(x))
    result = _added(classifier, background, output, "sampled", x, told, outputs, base, values, groups, check)
    return _timed(result, start)


def explain_exactly(
    classifier: Classifier,
    features: np.ndarray,
    background: Background,
    *,
    labels: ArrayLike | None = None,
    output: str = "probability",
    progress: Progress | None = None,
) -> Explanation:
    """Exact Shapley values of a few pairs: 1024 evaluations for each of them and each background pair.

    Args:
        classifier: Any one.
        features: Pairs, float32, shape ``(n, 10)``.
        background: As for :func:`explain`; for this background the values are exact.
        labels: 1 for antineutrinos, 0 for accidental pairs.
        output: One of :data:`OUTPUTS`.
        progress: As for :func:`explain`.

    Raises:
        NuebarError: As :func:`explain`, or more than 10,000 pairs.
    """
    start = time.perf_counter()
    x = _checked(features, output)
    if len(x) > _MOST_EXACT:
        raise NuebarError(f"exact values: expected at most {_MOST_EXACT} pairs, got {len(x)}; sample them")
    base, outputs = _outputs(classifier, background.features, output), _outputs(classifier, x, output)
    groups = np.empty((background.groups, len(x), _N))
    for k, row in enumerate(x):
        groups[:, k] = _exact(classifier, row, background, output)
        if progress is not None:
            progress("explaining", k + 1, len(x))
    told, values = _labels(labels, len(x)), groups.mean(axis=0)
    found = _added(
        classifier, background, output, "exact", x, told, outputs, base, values, groups.astype(np.float32), {}
    )
    return _timed(found, start)


def _timed(found: Explanation, start: float) -> Explanation:
    return replace(found, seconds=time.perf_counter() - start)


def _sampled(
    classifier: Classifier,
    x: np.ndarray,
    background: Background,
    outputs: np.ndarray,
    base: np.ndarray,
    output: str,
    rng: np.random.Generator,
) -> np.ndarray:
    """Values of a few pairs from each group, shape ``(groups, n, 10)``."""
    n, rows = len(x), background.features
    # Place of each feature in the order: a random permutation for each pair and background pair.
    place = np.argsort(rng.random((_EVENTS, len(rows), _N), np.float32), axis=-1)[:n]
    known = place[:, :, None, :] < np.arange(1, _N)[:, None]  # (pairs, background pairs, features known, features)
    both = np.stack([known, ~known])
    mixed = np.where(both, x[:, None, None, :], rows[:, None, :]).reshape(-1, _N)
    middle = _outputs(classifier, mixed, output).reshape(2, n, len(rows), _N - 1)
    nothing = np.broadcast_to(base[:, None], (n, len(rows), 1))
    everything = np.broadcast_to(outputs[:, None, None], (n, len(rows), 1))
    forward = np.diff(np.concatenate([nothing, middle[0], everything], axis=-1))
    backward = -np.diff(np.concatenate([everything, middle[1], nothing], axis=-1))
    steps = np.take_along_axis(0.5 * (forward + backward), place, axis=-1)
    return np.asarray(np.moveaxis(steps.reshape(n, background.groups, -1, _N).mean(axis=2), 1, 0))


def _exact(classifier: Classifier, row: np.ndarray, background: Background, output: str) -> np.ndarray:
    """Values of one pair from each group, shape ``(groups, 10)``."""
    sets = (np.arange(2**_N)[:, None] >> np.arange(_N)) & 1 == 1
    size = sets.sum(axis=1)
    factorial = np.array([math.factorial(k) for k in range(_N + 1)], float)
    gains = np.where(sets, size[:, None] - 1, size[:, None])  # known before the feature
    weights = factorial[gains] * factorial[_N - 1 - gains] / factorial[_N] * np.where(sets, 1.0, -1.0)
    rows = background.features.reshape(background.groups, -1, _N)
    step = max(1, _ROWS // (len(sets) * rows.shape[1]))
    found = []
    for first in range(0, len(rows), step):
        some = rows[first : first + step]
        mixed = np.where(sets[:, None, None, :], row, some)
        worth = _outputs(classifier, mixed.reshape(-1, _N), output).reshape(mixed.shape[:-1]).mean(axis=2)
        found.append(worth.T @ weights)
    return np.concatenate(found)


def _compare(
    classifier: Classifier, x: np.ndarray, values: np.ndarray, background: Background, output: str
) -> dict[str, Any]:
    exact = np.stack([_exact(classifier, row, background, output).mean(axis=0) for row in x])
    return {
        "pairs": len(x),
        "rms": dict(zip(FEATURES, np.sqrt(np.mean((values - exact) ** 2, axis=0)).tolist(), strict=True)),
        "mean_absolute_sampled": dict(zip(FEATURES, np.abs(values).mean(axis=0).tolist(), strict=True)),
        "mean_absolute_exact": dict(zip(FEATURES, np.abs(exact).mean(axis=0).tolist(), strict=True)),
    }


def _added(
    classifier: Classifier,
    background: Background,
    output: str,
    method: str,
    x: np.ndarray,
    labels: np.ndarray | None,
    outputs: np.ndarray,
    base: np.ndarray,
    values: np.ndarray,
    groups: np.ndarray,
    check: Mapping[str, Any],
) -> Explanation:
    """The result, if the values add up to outputs that are computed again, in another order of pairs."""
    again = _outputs(classifier, np.ascontiguousarray(x[::-1]), output)[::-1]
    mean = float(_outputs(classifier, np.ascontiguousarray(background.features[::-1]), output).mean())
    off = np.abs(mean + values.sum(axis=1) - again) / np.maximum(1.0, np.abs(again))
    worst = int(np.argmax(off))
    if not off[worst] <= TOLERANCE:
        raise NuebarError(
            f"Shapley values of pair {worst}: expected base and values to add up to {again[worst]:.9g} within "
            f"{TOLERANCE:g}, got {mean + values[worst].sum():.9g}; the classifier gives different scores for the same "
            "pair"
        )
    error = float(_spread(base.reshape(len(groups), -1).mean(axis=1)))
    return Explanation(
        classifier.name,
        output,
        method,
        x,
        labels,
        outputs,
        float(base.mean()),
        error,
        values,
        groups,
        float(off[worst]),
        base.size,
        check,
    )


def _checked(features: np.ndarray, output: str) -> np.ndarray:
    x = np.array(checked_features(features))
    if output not in OUTPUTS:
        raise NuebarError(f"output: expected one of {', '.join(OUTPUTS)}, got {output!r}")
    if not len(x):
        raise NuebarError("explanation: expected at least one pair, got none")
    return x


def _labels(labels: ArrayLike | None, n: int) -> np.ndarray | None:
    if labels is None:
        return None
    told = np.asarray(labels)
    if told.shape != (n,) or not np.all((told == 0) | (told == 1)):
        raise NuebarError(f"labels: expected {n} numbers that are 0 or 1, got shape {told.shape}")
    return told.astype(np.int8)


def _outputs(classifier: Classifier, x: np.ndarray, output: str) -> np.ndarray:
    from scipy.special import expit

    logits = score_in_chunks(classifier, x)
    if output == "probability":
        return np.asarray(expit(logits))
    if not np.all(np.isfinite(logits)):
        raise NuebarError(
            f"classifier {classifier.name!r}: expected finite logits, got infinite ones; explain the probability"
        )
    return logits


# ---------------------------------------------------------------- importance


def importance(explanation: Explanation, *, draws: int = 200, seed: int = 1) -> Importance:
    """Mean absolute values with bootstrap errors (B. Efron, Ann. Statist. 7 (1979) 1).

    Args:
        explanation: Of many pairs, from a background of at least two groups.
        draws: Of the bootstrap.
        seed: Of it.

    Raises:
        NuebarError: There are too few pairs, groups or draws.
    """
    groups, n = explanation.group_values.shape[:2]
    if min(groups, n, draws) < 2:
        raise NuebarError(f"importance: expected at least 2 groups, pairs and draws, got {groups}, {n} and {draws}")
    flat = explanation.group_values.reshape(groups, -1)
    size = np.abs(explanation.values)
    both, pairs, background = (np.empty((draws, _N)) for _ in range(3))
    for k in range(draws):
        rng = generator(seed, _STREAMS["bootstrap"], k)
        again = rng.multinomial(n, np.full(n, 1 / n)) / n
        shares = (rng.multinomial(groups, np.full(groups, 1 / groups)) / groups).astype(np.float32)
        other = np.abs(shares @ flat).reshape(n, _N)
        both[k], pairs[k], background[k] = again @ other, again @ size, other.mean(axis=0)
    error, of_pairs, of_background = (np.std(d, axis=0, ddof=1) for d in (both, pairs, background))
    return Importance(explanation.kind, size.mean(axis=0), error, of_pairs, of_background, both)


# ---------------------------------------------------------------- boundary


@dataclass(frozen=True, eq=False)
class Boundary:
    """What a classifier keeps in the plane of ΔR and Δt.

    Attributes:
        dr_m: Distances, shape ``(a,)``.
        dt_us: Times, shape ``(b,)``.
        kept: Share of the pairs that would be kept there, shape ``(a, b)``.
        threshold: On the score.
        classifier: Name.
    """

    dr_m: np.ndarray
    dt_us: np.ndarray
    kept: np.ndarray
    threshold: float
    classifier: str

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "classifier": self.classifier,
            "threshold": self.threshold if math.isfinite(self.threshold) else str(self.threshold),
            "dr_m": self.dr_m.tolist(),
            "dt_us": self.dt_us.tolist(),
            "kept": self.kept.tolist(),
        }


def boundary(
    classifier: Classifier,
    features: np.ndarray,
    threshold: float,
    *,
    dr_m: ArrayLike | None = None,
    dt_us: ArrayLike | None = None,
    pairs: int = 200,
    seed: int = 1,
) -> Boundary:
    """The learned boundary: pairs whose ΔR and Δt are set to those of a grid, all else as it is.

    Args:
        classifier: Any one.
        features: Antineutrino pairs; others would show where accidentals pass.
        threshold: Least score that is kept.
        dr_m: Distances; 41 from 0 to 4 m by default.
        dt_us: Times; 41 from 0 to 2000 µs by default.
        pairs: How many of the pairs are used, drawn at random.
        seed: Of the draw.

    Raises:
        NuebarError: There are no pairs, or a grid is not of finite numbers that are not negative.
    """
    x = checked_features(features)
    if not len(x) or pairs < 1:
        raise NuebarError("boundary: expected at least one pair, got none")
    distances = np.asarray(np.linspace(0, 4, 41) if dr_m is None else dr_m, float)
    times = np.asarray(np.linspace(0, 2000, 41) if dt_us is None else dt_us, float)
    for name, grid in (("dr_m", distances), ("dt_us", times)):
        if grid.ndim != 1 or not grid.size or not np.all(np.isfinite(grid) & (grid >= 0)):
            raise NuebarError(f"boundary, {name}: expected finite numbers that are not negative")
    some = generator(seed, _STREAMS["boundary"]).permutation(len(x))[:pairs]
    base = np.array(x[np.sort(some)])
    kept = np.empty((distances.size, times.size))
    for i, distance in enumerate(distances):
        moved = np.repeat(base[None], times.size, axis=0)
        moved[:, :, FEATURES.index("dr_m")] = distance
        moved[:, :, FEATURES.index("dt_us")] = times[:, None]
        scores = score_in_chunks(classifier, moved.reshape(-1, _N)).reshape(times.size, len(base))
        kept[i] = np.mean(scores >= threshold, axis=1)
    return Boundary(distances, times, kept, float(threshold), classifier.name)


# ---------------------------------------------------------------- shap


def require_shap() -> Any:
    """The module, or one sentence that says how to get it."""
    try:
        import shap  # type: ignore[import-untyped]
    except ImportError as error:
        raise NuebarError(
            "this needs the package shap, which is missing: pip install 'nuebar[select]' or shap"
        ) from error
    return shap


def as_shap(explanation: Explanation, names: Sequence[str] = FEATURES) -> Any:
    """The same values as ``shap.Explanation``, for the plots of shap.

    Args:
        explanation: What to hand over.
        names: Of the features.
    """
    base = np.full(len(explanation.values), explanation.base)
    data, values = explanation.features, explanation.values
    return require_shap().Explanation(values, base_values=base, data=data, feature_names=list(names))


def against_shap(
    classifier: Classifier, explanation: Explanation, background: Background, *, pairs: int = 3
) -> dict[str, float]:
    """Shapley values of the first pairs by shap's own exact explainer: the root mean square difference by feature.

    Args:
        classifier: The same one.
        explanation: From it.
        background: The same one.
        pairs: How many; a second or so each.
    """
    shap = require_shap()
    x = explanation.features[:pairs]

    def model(rows: np.ndarray) -> np.ndarray:
        return _outputs(classifier, np.ascontiguousarray(rows, np.float32), explanation.kind)

    masker = shap.maskers.Independent(background.features, max_samples=len(background.features))
    theirs = np.asarray(shap.explainers.ExactExplainer(model, masker)(x, silent=True).values)
    rms = np.sqrt(np.mean((theirs - explanation.values[: len(x)]) ** 2, axis=0))
    return dict(zip(FEATURES, rms.tolist(), strict=True))
