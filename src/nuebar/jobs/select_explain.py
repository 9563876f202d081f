"""What ``nuebar select explain`` does: Shapley values of held-out pairs and of pairs that the user names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.arrays import save_arrays
from nuebar.io.events import EventFile
from nuebar.io.files import output_folder
from nuebar.io.results import save_result
from nuebar.jobs.select_data import PairFiles, check_limits, prepared, splits_of
from nuebar.jobs.select_lines import box_line, line_record
from nuebar.jobs.select_train import PAIRS
from nuebar.run.lock import hold
from nuebar.select.classifier import Classifier
from nuebar.select.config import SelectionConfig, load_selection
from nuebar.select.explain import (
    Background,
    Boundary,
    Explanation,
    Importance,
    LocalExplanation,
    balanced_background,
    boundary,
    explain,
    explain_exactly,
    importance,
)
from nuebar.select.features import PAIR_COLUMNS, features_of
from nuebar.select.matrices import ACCIDENTALS, IBD, Matrices, Split
from nuebar.select.store import describe_classifier, load_classifier

__all__ = ["Explained", "SelectExplainJob", "explain_report", "run_explain"]

Progress = Callable[[str, int, int], None]

TYPICAL = {"true positive": 1, "true negative": 0}


@dataclass(frozen=True, kw_only=True)
class SelectExplainJob:
    """What ``nuebar select explain`` was asked for.

    Attributes:
        files: The pairs.
        classifier: Word or folder.
        selection: Name or TOML file.
        events: How many held-out pairs are explained, half of each class.
        sample: Files of pairs whose rows ``named`` are; the explained pairs themselves by default.
        columns: TOML file with a column map of these files.
        named: Rows to explain one by one.
        output: ``probability`` or ``logit``.
        background: Pairs that unknown features are taken from.
        threshold: Of the boundary; that of the operating point ``cuts`` by default, or 0.
        seed: Of everything random.
    """

    files: PairFiles = field(default_factory=PairFiles)
    classifier: str = "network"
    selection: str = "published"
    events: int = 20_000
    sample: str | None = None
    columns: str | None = None
    named: tuple[int, ...] = ()
    output: str = "probability"
    background: int = 200
    threshold: float | None = None
    seed: int = 1


@dataclass(frozen=True, eq=False)
class Explained:
    """Everything that is drawn and told.

    Attributes:
        explanation: Of the held-out pairs, antineutrinos first.
        importance: Of the features.
        local: Title → one pair.
        boundary: In ΔR and Δt.
        line: ``a_per_m``, ``b_per_us`` and what else is known of the line with the background of the box cuts, or
            ``missing`` with the reason.
        config: The selection.
    """

    explanation: Explanation
    importance: Importance
    local: Mapping[str, LocalExplanation]
    boundary: Boundary
    line: Mapping[str, Any]
    config: SelectionConfig

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kind": "explanation",
            **self.explanation.record(),
            "importance": self.importance.record(),
            "local": {title: local.record() for title, local in self.local.items()},
            "boundary": self.boundary.record(),
            "line": dict(self.line),
        }


def run_explain(
    job: SelectExplainJob, folder: str | os.PathLike[str], *, progress: Progress | None = None
) -> Explained:
    """Explain, and write ``explain.json`` and ``shapley.safetensors``.

    Args:
        job: What is wanted.
        folder: Of the output.
        progress: Called as ``progress(what, done, total)``.
    """
    config = load_selection(job.selection)
    about = describe_classifier(job.classifier)
    check_limits(about.get("training", {}), config, f"classifier {job.classifier!r}")
    classifier = load_classifier(job.classifier)
    if job.events < 4 or job.events % 2:
        raise NuebarError(f"events: expected an even number from 4 on, half of each class, got {job.events}")
    named = _named(job, config) if job.sample is not None else None
    out = output_folder(folder)
    with hold(out):
        matrices = prepared(job.files, config, out / PAIRS, progress=progress)
        splits = splits_of(matrices)
        half = job.events // 2
        ibd, accidentals = (
            np.array(a[splits[name].rows("test")][:half])
            for name, a in ((IBD, matrices.ibd), (ACCIDENTALS, matrices.accidentals))
        )
        background = balanced_background(
            *(
                np.array(a[splits[name].rows("train")][: max(half, job.background)])
                for name, a in ((IBD, matrices.ibd), (ACCIDENTALS, matrices.accidentals))
            ),
            rows=job.background,
            groups=_groups(job.background),
            seed=job.seed,
        )
        x = np.concatenate([ibd, accidentals])
        labels = np.repeat([1, 0], [len(ibd), len(accidentals)])
        if named is None and job.named and not 0 <= min(job.named) <= max(job.named) < len(x):
            raise NuebarError(f"--event: expected numbers from 0 to {len(x) - 1}, got {list(job.named)}")
        explanation = explain(
            classifier, x, background, labels=labels, output=job.output, seed=job.seed, progress=progress
        )
        local = _local(job, classifier, explanation, background, named, progress)
        edge = job.threshold if job.threshold is not None else _stored_threshold(about)
        found = Explained(
            explanation,
            importance(explanation, seed=job.seed),
            local,
            boundary(classifier, ibd, edge, dt_us=np.linspace(0, 1e3 * config.pairs.window_ms, 41), seed=job.seed),
            _line(matrices, splits, config, job.seed),
            config,
        )
        save_arrays(out / "shapley.safetensors", explanation.arrays(), {"features": "nuebar.select.features.FEATURES"})
        save_result(out / "explain.json", found.record())
    return found


def explain_report(found: Explained) -> str:
    """Importance of the features with its error, and every single pair."""
    told = found.importance.record()
    lines = [
        f"{len(found.explanation.values):,} pairs, {told['explains']}: mean size of the Shapley values",
        f"  {'feature':18s} {'mean':>18s} {'rank':>7s} {'published':>10s} {'above the next':>15s}",
    ]
    for row in told["features"]:
        low, high = row["rank_interval"]
        rank = f"{row['rank']}" if low == high else f"{low}-{high}"
        above = row["sigmas_above_next"]
        lines.append(
            f"  {row['feature']:18s} {row['mean']:9.5f} ± {row['error']:.5f} {rank:>7s} {row['published_rank']:10d} "
            + (f"{above:13.1f} σ" if above is not None else "")
        )
    for title, local in found.local.items():
        told = local.record()
        lines += ["", f"{title}: {told['explains']} {told['output']:.6g}, base {told['base']:.6g}"]
        lines += [
            f"  {row['feature']:18s} = {row['at']:<12.6g} {row['value']:+.5f} ± {row['error']:.5f}"
            for row in told["features"]
        ]
    return "\n".join(lines)


def _line(matrices: Matrices, splits: Mapping[str, Split], config: SelectionConfig, seed: int) -> dict[str, Any]:
    try:
        return line_record(box_line(matrices, splits, config, seed=seed)) or {}
    except NuebarError as error:
        return {"missing": str(error)}


def _local(
    job: SelectExplainJob,
    classifier: Classifier,
    explanation: Explanation,
    background: Background,
    named: np.ndarray | None,
    progress: Progress | None,
) -> dict[str, LocalExplanation]:
    """Typical pairs and those that were named, with exact values."""
    rows: dict[str, tuple[np.ndarray, int | None]] = {}
    for title, kind in TYPICAL.items():
        row = explanation.typical(kind)
        rows[f"typical {title}"] = (explanation.features[row], kind)
    for k, number in enumerate(job.named):
        if named is None:
            assert explanation.labels is not None
            rows[f"event {number}"] = (explanation.features[number], int(explanation.labels[number]))
        else:
            rows[f"event {number}"] = (named[k], None)
    found = {}
    for title, (features, label) in rows.items():
        exact = explain_exactly(
            classifier,
            features[None],
            background,
            labels=None if label is None else [label],
            output=job.output,
            progress=progress,
        )
        found[title] = exact.local(0)
    return found


def _named(job: SelectExplainJob, config: SelectionConfig) -> np.ndarray:
    """Features of the named rows of the user's files, in the order of the names."""
    if not job.named:
        raise NuebarError("expected --event NUMBER with --sample, got none; name the rows to explain")
    events = EventFile(str(job.sample), PAIR_COLUMNS, column_map=job.columns, radius_m=config.detector.radius_m)
    wanted = np.array(job.named)
    if wanted.min() < 0 or wanted.max() >= events.n_rows:
        raise NuebarError(
            f"{events.paths[0]}: --event: expected rows from 0 to {events.n_rows - 1}, got {list(job.named)}"
        )
    found = np.empty((wanted.size, 10), np.float32)
    first = 0
    for batch in events.batches():
        rows = len(batch["dt_ns"])
        here = np.flatnonzero((wanted >= first) & (wanted < first + rows))
        if here.size:
            found[here] = features_of({name: batch[name][wanted[here] - first] for name in PAIR_COLUMNS})
        first += rows
    return found


def _groups(rows: int) -> int:
    """As many groups as go into half of the background, at most 20: they are the units of the errors."""
    half = rows // 2
    return next((g for g in range(min(20, half), 0, -1) if half % g == 0), 1)


def _stored_threshold(about: Mapping[str, Any]) -> float:
    point = about.get("metrics", {}).get("points", {}).get("cuts", {})
    return float(point.get("threshold", 0.0))
