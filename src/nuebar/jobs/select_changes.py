"""How what classifiers keep changes with the detector and with the rate of singles, at fixed thresholds.

Efficiencies are of antineutrinos of the sample, whose positions are recovered from the features; backgrounds are of the
recombined accidental pairs, with their weights. Neither is trained on by anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nuebar.jobs.select_evaluate import Distributions, Sample, pairs_of_features
from nuebar.select.classifier import Classifier
from nuebar.select.robustness import Change, changes, rate_changes

__all__ = ["PAIRS", "Changed", "changed"]

PAIRS = 200_000
"""Antineutrino pairs that are shifted, at most."""

_ENERGY_EDGES_MeV = (0.7, 1.0, 2.0, 4.0, 12.0)  # of the background, which is known in few bins only
_EDGE_m = 0.5  # of the fiducial volume, likewise


@dataclass(frozen=True, eq=False)
class Changed:
    """Changes by label; the shifts are the same everywhere.

    Attributes:
        efficiency: One for each shift, of the share of antineutrinos that is kept.
        background: Likewise, of the share of accidental pairs.
        rates: Rows of :func:`nuebar.select.robustness.rate_changes`.
    """

    efficiency: Mapping[str, tuple[Change, ...]]
    background: Mapping[str, tuple[Change, ...]]
    rates: Mapping[str, list[dict[str, Any]]]

    def record(self) -> dict[str, Any]:
        """For JSON: ``changes`` of ``efficiency`` and ``background``, and ``rate_changes``, each by label."""
        moved = {
            what: {label: [c.record() for c in row] for label, row in found.items()}
            for what, found in (("efficiency", self.efficiency), ("background", self.background))
        }
        return {"changes": moved, "rate_changes": dict(self.rates)}


def changed(
    classifiers: Mapping[str, Classifier],
    thresholds: Mapping[str, float],
    found: Mapping[str, Distributions],
    sample: Sample,
    *,
    singles: Sequence[float] = (0.5, 1.0, 2.0),
    tell: Callable[[str], None] | None = None,
) -> Changed:
    """Shift the detector, and the rate of singles, under each classifier.

    Args:
        classifiers: By label.
        thresholds: Least score that each keeps.
        found: Their distributions, in the window of the selection.
        sample: The pairs.
        singles: Factors on the rate.
        tell: Called with the label before each.
    """
    config, drawn = sample.config, sample.recombined
    pairs = pairs_of_features(sample.signal[:PAIRS])
    inner, outer = config.detector.fiducial_radius_m, config.detector.radius_m
    edges = sorted({0.0, max(inner - _EDGE_m, 0.5 * inner), inner, outer})
    bins = {"energy_edges_MeV": _ENERGY_EDGES_MeV, "radius_edges_m": edges}
    mixed: dict[str, Any] = {"weights": drawn.weights, "clusters": drawn.clusters, "captures": False, **bins}
    efficiency, background, rates = {}, {}, {}
    for label, classifier in classifiers.items():
        if tell is not None:
            tell(label)
        at = thresholds[label]
        efficiency[label] = changes(classifier, pairs, at, config.pairs)
        background[label] = changes(classifier, drawn.pairs, at, config.pairs, **mixed)
        d = found[label]
        rates[label] = rate_changes(d.signal, d.background, config, at, singles=singles)
    return Changed(efficiency, background, rates)
