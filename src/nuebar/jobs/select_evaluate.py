"""What classifiers do with pairs that none of them was trained on: distributions of scores and operating points.

Backgrounds are counted twice: on the accidental pairs of the sample, and on weighted pairs recombined from its single
events (:mod:`nuebar.select.recombine`), which reach far below one pair of the sample. The sampling with more effective
events above the threshold is quoted and named (``sampled``), the other one stands beside it. Both are of accidentals
that were kept from training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.select.classifier import Classifier, score_in_chunks
from nuebar.select.config import SelectionConfig
from nuebar.select.counting import Share, binomial_interval
from nuebar.select.cuts import BoxCuts, inside
from nuebar.select.features import FEATURES, column
from nuebar.select.matrices import ACCIDENTALS, IBD, Matrices, Split
from nuebar.select.operating_point import (
    BALANCED,
    OperatingPoint,
    Rates,
    at_threshold,
    by_background,
    by_efficiency,
    by_f1,
    by_purity,
)
from nuebar.select.recombine import Recombined, recombine, singles_of_pairs
from nuebar.select.scores import ScoreSample, shares

__all__ = [
    "LEVELS",
    "POINTS",
    "RESOLVED",
    "BEYOND_m",
    "Distributions",
    "Sample",
    "Scored",
    "cuts_of",
    "cuts_point",
    "held_out_sample",
    "operating_points",
    "pairs_of_features",
    "point_record",
    "singles_of_features",
]

LEVELS = (1.0, 0.1, 0.01)
"""Backgrounds at which efficiencies are told, relative to that of the cuts."""

POINTS = ("cuts", "cuts-0.1", "cuts-0.01", "f1", "f1-balanced", "efficiency", "purity")
"""Names of operating points."""

RESOLVED = 10.0
"""Effective background events from which on a background counts as measured."""

BEYOND_m = 5.0
"""Distance beyond which ``nuebar select apply`` scores no pair by default, as comparisons do."""

_DT = FEATURES.index("dt_us")


@dataclass(frozen=True, eq=False)
class Sample:
    """Held-out pairs, all of one window.

    Attributes:
        signal: Features of antineutrinos, shape ``(n, 10)``.
        accidentals: Features of accidental pairs, shape ``(m, 10)``.
        mixed: Features of recombined accidental pairs, shape ``(k, 10)``.
        recombined: Their weights, events and strata.
        config: The selection.
        ceiling: Share of the antineutrino pairs of the files that is within the window and above the threshold.
    """

    signal: np.ndarray
    accidentals: np.ndarray
    mixed: np.ndarray
    recombined: Recombined
    config: SelectionConfig
    ceiling: float

    def ceiling_at(self, window_ms: float) -> float:
        """The ceiling of a shorter window."""
        return self.ceiling * float(np.mean(column(self.signal, "dt_us") <= 1e3 * window_ms))

    def mixed_at(self, window_ms: float) -> np.ndarray:
        """Recombined pairs of a shorter window: accidental times are even, so they shrink."""
        if window_ms == self.config.pairs.window_ms:
            return self.mixed
        out = self.mixed.copy()
        out[:, _DT] *= np.float32(window_ms / self.config.pairs.window_ms)
        return out

    def record(self) -> dict[str, Any]:
        """For JSON: how many, and how the background was sampled."""
        return {
            "ibd": len(self.signal),
            "accidentals": len(self.accidentals),
            "recombined": self.recombined.record(),
            "ceiling": self.ceiling,
            "window_ms": self.config.pairs.window_ms,
            "threshold_MeV": self.config.pairs.threshold_MeV,
        }


def held_out_sample(
    matrices: Matrices,
    splits: Mapping[str, Split],
    config: SelectionConfig,
    *,
    part: str = "test",
    pairs: int | None = None,
    singles: int = 200_000,
    per_single: float = 0.1,
    seed: int = 1,
) -> Sample:
    """Pairs of the test part, and what is recombined from their accidentals.

    Args:
        matrices: Prepared pairs.
        splits: Rows of both classes.
        config: The selection.
        part: ``train`` for fits of cuts, ``test`` for everything that is quoted.
        pairs: Of each class, at most.
        singles: To recombine, at most; both events of a pair are one each.
        per_single: Recombined pairs of each stratum, by the number of singles.
        seed: Of the draws.

    Raises:
        NuebarError: Fewer than two singles are wanted.
    """
    if singles < 2:
        raise NuebarError(f"singles: expected at least 2 to recombine, got {singles}")
    signal = np.array(matrices.ibd[splits[IBD].rows(part)][:pairs])
    accidentals = matrices.accidentals[splits[ACCIDENTALS].rows(part)][:pairs]
    events = singles_of_features(np.array(accidentals[: (singles + 1) // 2]))
    drawn = recombine(events, config.pairs, per_stratum=max(round(per_single * len(events["x_m"])), 100), seed=seed)
    about = matrices.about[IBD]
    # Files of both classes hold the accidentals, too: there the pairs that do not exist are not known.
    known = about.get("made_from", {}).get("label") is None
    ceiling = about["rows"] / about["read"] if known else 1.0
    return Sample(signal, accidentals, drawn.features(), drawn, config, float(ceiling))


def pairs_of_features(features: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of pairs from their features: the inverse of :func:`~nuebar.select.features.features_of`.

    Args:
        features: Shape ``(n, 10)``.

    Returns:
        :data:`~nuebar.select.features.PAIR_COLUMNS`, float64 of shape ``(n,)``: positions to the rounding of the
        features, some 10 µm, and millimetres at the poles.
    """
    out: dict[str, np.ndarray] = {}
    for part in ("prompt", "delayed"):
        r3, cos, phi = (
            column(features, name).astype(float) for name in (f"r3_{part}_m3", f"cos_theta_{part}", f"phi_{part}")
        )
        r = np.cbrt(r3)
        across = r * np.sqrt(np.maximum(1 - cos**2, 0.0))
        out[f"{part}_e_rec_MeV"] = column(features, f"e_{part}_MeV").astype(float)
        out[f"{part}_x_m"], out[f"{part}_y_m"] = across * np.cos(phi), across * np.sin(phi)
        out[f"{part}_z_m"] = r * cos
    out["dt_ns"] = 1e3 * column(features, "dt_us").astype(float)
    return out


def singles_of_features(features: np.ndarray) -> dict[str, np.ndarray]:
    """Both events of accidental pairs as singles, from their features.

    Args:
        features: Shape ``(n, 10)``.

    Returns:
        ``e_rec_MeV``, ``x_m``, ``y_m``, ``z_m`` of shape ``(2 n,)``.
    """
    return singles_of_pairs(pairs_of_features(features))


def cuts_of(config: SelectionConfig, window_ms: float | None = None) -> BoxCuts:
    """The box cuts of a selection; a time beyond a shorter window is the window."""
    cuts = BoxCuts.of(config)
    if window_ms is not None and cuts.dt_ms is not None:
        return replace(cuts, dt_ms=min(cuts.dt_ms, window_ms))
    return cuts


@dataclass(frozen=True, eq=False)
class Distributions:
    """Scores of a classifier in a window.

    Attributes:
        signal: Of antineutrinos.
        background: Of recombined accidental pairs, weighted.
        plain: Of the accidental pairs of the sample.
        inside: Of antineutrinos in the fiducial volume; ``None`` if there are none.
        outside: Of those outside.
        outer_weight: Weight of recombined pairs outside, in the order of ``outer_scores``.
        outer_scores: Their scores.
        distant: Scores of antineutrinos whose vertices are more than :data:`BEYOND_m` apart.
    """

    signal: ScoreSample
    background: ScoreSample
    plain: ScoreSample
    inside: ScoreSample | None
    outside: ScoreSample | None
    outer_weight: np.ndarray
    outer_scores: np.ndarray
    distant: np.ndarray

    def samplings(self) -> dict[str, ScoreSample]:
        """Both samplings of the background by name."""
        return {"recombined": self.background, "pairs": self.plain}

    def checks(self, threshold: float) -> dict[str, Any]:
        """The background above a threshold by both samplings, under ``by_recombined`` and ``by_pairs``."""
        return {f"by_{name}": _share(d, threshold).record() for name, d in self.samplings().items()}

    def beyond(self, threshold: float) -> dict[str, Any]:
        """The share of the accepted antineutrinos that is beyond :data:`BEYOND_m`; ``None`` if none is accepted."""
        far = int(np.count_nonzero(self.distant >= threshold))
        kept = int(self.signal.scores.size - np.searchsorted(self.signal.scores, threshold, "left"))
        if not kept:
            return {f"beyond_{BEYOND_m:g}_m": None}
        low, high = binomial_interval(far, kept)
        return {f"beyond_{BEYOND_m:g}_m": Share(far / kept, float(low), float(high), float(far)).record()}

    def regions(self, threshold: float) -> dict[str, Any]:
        """Efficiencies inside and outside of the fiducial volume at a threshold, and the background outside."""
        found: dict[str, Any] = {
            f"efficiency_{name}": None if d is None else _share(d, threshold).record()
            for name, d in (("inside", self.inside), ("outside", self.outside))
        }
        found["background_outside"] = float(self.outer_weight[self.outer_scores >= threshold].sum())
        return found


@dataclass(frozen=True, eq=False)
class Scored:
    """A sample with the scores of a classifier.

    Attributes:
        sample: The pairs.
        name: Of the classifier.
        signal: Scores, shape ``(n,)``.
        accidentals: Scores, shape ``(m,)``.
        mixed: Window → scores of recombined pairs, shape ``(k,)``.
    """

    sample: Sample
    name: str
    signal: np.ndarray
    accidentals: np.ndarray
    mixed: Mapping[float, np.ndarray]

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        sample: Sample,
        windows_ms: Sequence[float],
        tell: Callable[[str], None] | None = None,
    ) -> Scored:
        """Score everything once.

        Args:
            classifier: Any one.
            sample: The pairs.
            windows_ms: Windows that will be asked for.
            tell: Called with the classifier's name before.
        """
        if tell is not None:
            tell(classifier.name)
        return cls(
            sample,
            classifier.name,
            score_in_chunks(classifier, sample.signal),
            score_in_chunks(classifier, sample.accidentals),
            {w: score_in_chunks(classifier, sample.mixed_at(w)) for w in windows_ms},
        )

    def distributions(self, window_ms: float, *, only_inside: bool = False) -> Distributions:
        """Distributions of the pairs within a window.

        Args:
            window_ms: The window.
            only_inside: Pairs outside of the fiducial volume are never kept.
        """
        config = self.sample.config
        radius, on = config.detector.fiducial_radius_m, config.cuts.fiducial_on
        limit = 1e3 * window_ms
        parts = []
        for features, scores in ((self.sample.signal, self.signal), (self.sample.accidentals, self.accidentals)):
            near = inside(features, radius, on)
            kept = column(features, "dt_us") <= limit
            far = column(features, "dr_m") > BEYOND_m
            if not kept.any():
                raise NuebarError(f"window of {window_ms:g} ms: expected pairs of both classes in it, got none")
            values = np.where(near, scores, -np.inf) if only_inside else scores
            parts.append((values[kept], near[kept], far[kept]))
        (signal, near, far), (accidentals, _, _) = parts
        mixed, mixed_near = self.mixed[window_ms], inside(self.sample.mixed, radius, on)
        if only_inside:
            mixed = np.where(mixed_near, mixed, -np.inf)
        drawn = self.sample.recombined
        return Distributions(
            ScoreSample.of(signal),
            ScoreSample.of(mixed, drawn.weights, clusters=drawn.clusters),
            ScoreSample.of(accidentals),
            ScoreSample.of(signal[near]) if near.any() else None,
            ScoreSample.of(signal[~near]) if not near.all() else None,
            drawn.weights[~mixed_near],
            mixed[~mixed_near],
            signal[far],
        )


def cuts_point(cuts: Distributions, rates: Rates) -> tuple[OperatingPoint, str]:
    """What the box cuts keep, with the background of the sampling that knows it best, and which one that is."""
    return _known_best(cuts, lambda background: at_threshold(cuts.signal, background, 0.0, rates, how="cuts"))


def operating_points(
    found: Distributions,
    cuts: Distributions,
    rates: Rates,
    *,
    efficiency: float | None = None,
    purity: float | None = None,
) -> dict[str, Any]:
    """Every operating point of :data:`POINTS`, for JSON.

    Args:
        found: Scores of the classifier.
        cuts: Those of the box cuts on the same pairs.
        rates: Real rates.
        efficiency: Wanted; that of the cuts by default.
        purity: Wanted; that of the cuts by default.

    Returns:
        Name → record; ``missing`` in it says why there is none.
    """
    base, _ = cuts_point(cuts, rates)
    signal, share = found.signal, base.background.value
    wanted_efficiency = base.efficiency.value if efficiency is None else efficiency
    wanted_purity = min(base.purity.value, 1 - 1e-9) if purity is None else purity
    ways: dict[str, Callable[[ScoreSample], OperatingPoint]] = {
        "cuts": lambda b: by_background(signal, b, share, rates),
        "cuts-0.1": lambda b: by_background(signal, b, 0.1 * share, rates),
        "cuts-0.01": lambda b: by_background(signal, b, 0.01 * share, rates),
        "f1": lambda b: by_f1(signal, b, rates),
        "f1-balanced": lambda b: by_f1(signal, b, BALANCED),
        "efficiency": lambda b: by_efficiency(signal, b, wanted_efficiency, rates),
        "purity": lambda b: by_purity(signal, b, wanted_purity, rates),
    }
    records: dict[str, Any] = {}
    for name, way in ways.items():
        try:
            records[name] = point_record(*_known_best(found, way), found)
        except NuebarError as error:
            records[name] = {"missing": str(error)}
    return records


def point_record(point: OperatingPoint, sampled: str, found: Distributions) -> dict[str, Any]:
    """An operating point for JSON, with both regions and the background by either sampling.

    Args:
        point: The point.
        sampled: Which sampling its background is of.
        found: For the others.
    """
    return {
        **point.record(),
        "resolved": point.background.effective >= RESOLVED,
        "sampled": sampled,
        **found.regions(point.threshold),
        **found.beyond(point.threshold),
        **found.checks(point.threshold),
    }


def _known_best(found: Distributions, way: Callable[[ScoreSample], OperatingPoint]) -> tuple[OperatingPoint, str]:
    """The point of the sampling with more effective background events above the threshold."""
    points: dict[str, OperatingPoint] = {}
    problem: NuebarError | None = None
    for name, background in found.samplings().items():
        try:
            points[name] = way(background)
        except NuebarError as error:
            problem = problem or error
    if not points:
        assert problem is not None
        raise problem
    name = max(points, key=lambda n: points[n].background.effective)
    return points[name], name


def _share(distribution: ScoreSample, threshold: float) -> Share:
    (share,) = shares(distribution.kept([threshold]))
    return share
