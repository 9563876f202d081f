"""Pictures of ``nuebar select``: the published figures for our pairs, and those of explanations."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nuebar.io.files import output_folder
from nuebar.report import selection_plots as plots
from nuebar.report.plots import save
from nuebar.report.tuning_plots import training_curves
from nuebar.select.cuts import BoxCuts
from nuebar.select.operating_point import BALANCED, at_threshold, by_background, by_f1, curves, efficiency_at

if TYPE_CHECKING:
    from nuebar.jobs.select_compare import Shown
    from nuebar.jobs.select_explain import Explained

__all__ = ["draw_comparison", "draw_explained", "draw_training"]

_SHOWN = 200_000  # pairs of a class in a histogram
_LEVELS = np.geomspace(1e-9, 1e-3, 37)
_VERTICES = {"prompt": "the prompt vertex", "both": "both vertices"}


def draw_comparison(shown: Shown, out: str | os.PathLike[str]) -> list[Path]:
    """Features, cut flow, outputs, thresholds, efficiency against background, efficiency curves, calibration, changes.

    Args:
        shown: Of :func:`nuebar.jobs.select_compare.run_compare`.
        out: Where the pictures go.
    """
    place = output_folder(out)
    rates, flow, scored = shown.rates, shown.flow, shown.scored
    base = at_threshold(shown.cuts.signal, shown.cuts.background, 0.0, rates, how="cuts")
    figures: dict[str, Any] = {}
    for label, distributions in shown.found.items():
        signal, background = distributions.signal, distributions.background
        sample = scored[label].sample
        if not figures:
            figures["features"] = plots.feature_distributions(sample.signal[:_SHOWN], sample.accidentals[:_SHOWN])
            rows = flow["tables"][flow["fiducial_on"]]["grouped"]
            figures["cut-flow"] = plots.cut_flow_bars(rows, note=f"fiducial volume on {flow['fiducial_on']}")
        at = by_background(signal, background, base.background.value, rates)
        threshold = at.threshold if np.isfinite(at.threshold) else None
        figures[f"scores-{label}"] = plots.score_distribution(
            scored[label].signal[:_SHOWN], scored[label].accidentals[:_SHOWN], threshold=threshold, title=label
        )
        balanced, real = (curves(signal, background, r) for r in (BALANCED, rates))
        best = by_f1(signal, background, rates)
        figures[f"thresholds-{label}"] = plots.threshold_curves(balanced, real, best=best, title=label)
        figures[f"shares-{label}"] = plots.selected_shares(real, cuts=base, title=label)
    levels = {label: efficiency_at(d.signal, d.background, _LEVELS) for label, d in shown.found.items()}
    stars = {f"cuts, fiducial volume on {_VERTICES[on]}": point for on, point in shown.volumes.items()}
    figures["background"] = plots.efficiency_against_background(levels, stars, per_day=rates.accidental)
    figures["efficiency"] = plots.efficiency_bins(shown.bins)
    figures["calibration"] = plots.calibration(shown.reliable)
    figures["changes"] = plots.shift_changes(shown.changed.efficiency, background=shown.changed.background)
    return _saved(figures, place)


def draw_explained(found: Explained, out: str | os.PathLike[str]) -> list[Path]:
    """Importance, beeswarm, waterfalls, dependences of the two strongest features, boundary.

    Args:
        found: Of :func:`nuebar.jobs.select_explain.run_explain`.
        out: Where the pictures go.
    """
    place = output_folder(out)
    order = found.importance.order
    explanation = found.explanation
    cuts = BoxCuts.of(found.config)
    box = (cuts.dr_m, 1e3 * cuts.dt_ms) if cuts.dr_m is not None and cuts.dt_ms is not None else None
    a, b = (found.line.get(name, 0.0) for name in ("a_per_m", "b_per_us"))
    line = (a, b) if a + b > 0 else None
    figures: dict[str, Any] = {
        "importance": plots.importance_bars(found.importance.record()),
        "beeswarm": plots.beeswarm(explanation, order=order),
        "dependence": plots.dependences(
            [explanation.dependence(order[0], order[1]), explanation.dependence(order[1], order[0])]
        ),
        "boundary": plots.decision_boundary(found.boundary, box=box, line=line),
    }
    for title, local in found.local.items():
        figures["waterfall-" + title.replace("typical ", "").replace(" ", "-")] = plots.waterfall(local, title=title)
    return _saved(figures, place)


def draw_training(history: Any, label: str, out: str | os.PathLike[str]) -> list[Path]:
    """Loss and cross-entropy of the validation pairs against the step.

    Args:
        history: Lines of (step, loss, cross-entropy, seconds).
        label: For the title.
        out: Where the picture goes.
    """
    figure = training_curves({label: history})
    figure.axes[1].set_ylabel("validation cross-entropy")
    return _saved({"training": figure}, output_folder(out))


def _saved(figures: Mapping[str, Any], place: Path) -> list[Path]:
    paths = []
    for name, figure in figures.items():
        save(figure, place / f"{name}.png")
        paths.append(place / f"{name}.png")
    return paths
