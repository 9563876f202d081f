"""What ``nuebar select compare`` does: cuts, lines, networks, trees and the likelihood ratio on the same pairs.

Backgrounds are shares of the accidental pairs in the window; efficiencies are shares of the antineutrino pairs in the
window, and times ``ceiling`` those of all antineutrino pairs of the files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.files import atomic_write_text, output_folder
from nuebar.io.results import git_commit, save_result, versions
from nuebar.jobs.select_changes import Changed, changed
from nuebar.jobs.select_data import PairFiles, check_limits, prepared, splits_of
from nuebar.jobs.select_evaluate import (
    LEVELS,
    Distributions,
    Sample,
    Scored,
    cuts_of,
    cuts_point,
    held_out_sample,
    operating_points,
    point_record,
)
from nuebar.jobs.select_lines import LINES, fitted_lines, line_record
from nuebar.jobs.select_text import compare_report
from nuebar.jobs.select_train import PAIRS, describe_fit
from nuebar.run.lock import hold
from nuebar.select.classifier import Classifier
from nuebar.select.config import FIDUCIAL_ON, SelectionConfig, load_selection
from nuebar.select.cut_flow import cut_flow
from nuebar.select.linear_cut import LinearFit
from nuebar.select.matrices import Matrices, Split
from nuebar.select.operating_point import Level, OperatingPoint, Rates, efficiency_at
from nuebar.select.ratio import fit_ratio
from nuebar.select.robustness import EfficiencyCurve, Reliability, efficiency_curves, reliability
from nuebar.select.store import describe_classifier, load_classifier, save_classifier
from nuebar.select.trees import require_xgboost, train_trees

__all__ = ["SelectCompareJob", "Shown", "run_compare"]

Progress = Callable[[str, int, int], None]

_CURVE = np.geomspace(1e-9, 1.0, 91)
_ROWS = 2**20


@dataclass(frozen=True, kw_only=True)
class SelectCompareJob:
    """What ``nuebar select compare`` was asked for.

    Attributes:
        files: The pairs.
        models: Words or folders of trained classifiers.
        selection: Name or TOML file.
        trees: Whether boosted trees are trained here.
        ratio: Whether the likelihood ratio is measured here.
        pairs: Of each class, to train trees, ratio and lines on at most.
        test: Of each class, to judge by at most.
        singles: To recombine, at most.
        windows_ms: Windows, at most that of the selection; that one is the first.
        factors: Rates of singles, relative to the selection's.
        efficiency: Wanted; that of the cuts by default.
        purity: Wanted; that of the cuts by default.
        seed: Of trees and recombination.
        command: For the record.
    """

    files: PairFiles = field(default_factory=PairFiles)
    models: tuple[str, ...] = ("network",)
    selection: str = "published"
    trees: bool = False
    ratio: bool = True
    pairs: int | None = None
    test: int | None = None
    singles: int = 200_000
    windows_ms: tuple[float, ...] = ()
    factors: tuple[float, ...] = (0.5, 1.0, 2.0)
    efficiency: float | None = None
    purity: float | None = None
    seed: int = 1
    command: str = ""


@dataclass(frozen=True, eq=False)
class Shown:
    """What pictures are made of, in the window of the selection.

    Attributes:
        scored: Label → scores of a classifier.
        found: Label → its distributions.
        cuts: Those of the cuts.
        volumes: What the cuts keep with the fiducial volume on one vertex and on both, that of the selection first.
        bins: Label → efficiency curves.
        reliable: Label → reliability.
        changed: With the detector.
        flow: Record of the cut flow of antineutrinos.
        rates: Real ones.
    """

    scored: Mapping[str, Scored]
    found: Mapping[str, Distributions]
    cuts: Distributions
    volumes: Mapping[str, OperatingPoint]
    bins: Mapping[str, Mapping[str, EfficiencyCurve]]
    reliable: Mapping[str, Reliability]
    changed: Changed
    flow: Mapping[str, Any]
    rates: Rates


def run_compare(
    job: SelectCompareJob,
    folder: str | os.PathLike[str],
    *,
    pictures: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compare, and write ``compare.json`` and ``compare.txt``.

    Args:
        job: What is wanted.
        folder: Of the output; trees and ratio are kept there and not made again.
        pictures: Whether the published figures are drawn.
        progress: Called as ``progress(what, done, total)``.

    Returns:
        What is in ``compare.json``.
    """
    begun = time.monotonic()
    config = load_selection(job.selection)
    windows = _windows(job, config)
    if not job.factors or min(job.factors) <= 0:
        raise NuebarError(f"singles factors: expected numbers above 0, got {list(job.factors)}")
    for name, value in (("efficiency", job.efficiency), ("purity", job.purity)):
        if value is not None and not 0 < value < 1:
            raise NuebarError(f"{name}: expected a share between 0 and 1, got {value}")
    if job.trees:
        require_xgboost()
    out = output_folder(folder)
    with hold(out):
        matrices = prepared(job.files, config, out / PAIRS, progress=progress)
        splits = splits_of(matrices, job.pairs)
        models = _models(job, matrices, splits, config, out, progress)
        sample = held_out_sample(matrices, splits, config, pairs=job.test, singles=job.singles, seed=job.seed)
        flows = _flows(config, sample)
        judged, shown = _judged(job, config, windows, models, matrices, splits, sample, flows["ibd"], progress)
        record = {
            "kind": "selection comparison",
            "command": job.command,
            "selection": asdict(replace(config, source=Path(config.source).name)),
            "sample": {**sample.record(), "data": matrices.digest},
            "cut_flow": flows,
            **judged,
            "seed": job.seed,
            "seconds": round(time.monotonic() - begun, 1),
            "commit": git_commit(Path(__file__).parent),
            "versions": versions(),
        }
        save_result(out / "compare.json", record)
        atomic_write_text(out / "compare.txt", compare_report(record) + "\n")
        if pictures and shown.found:
            from nuebar.jobs.select_pictures import draw_comparison

            draw_comparison(shown, out)
    return record


# ---------------------------------------------------------------- classifiers


def _windows(job: SelectCompareJob, config: SelectionConfig) -> tuple[float, ...]:
    longest = config.pairs.window_ms
    wanted = job.windows_ms or tuple(w for w in (1.0,) if w < longest)
    for window in wanted:
        if not 0 < window <= longest:
            raise NuebarError(
                f"windows: expected milliseconds above 0, at most the {longest:g} of the selection, got {window:g}"
            )
    return (longest, *(w for w in dict.fromkeys(wanted) if w != longest))


def _models(
    job: SelectCompareJob,
    matrices: Matrices,
    splits: Mapping[str, Split],
    config: SelectionConfig,
    out: Path,
    progress: Progress | None,
) -> dict[str, tuple[Classifier, dict[str, Any]]]:
    """Label → classifier and what is known of it."""
    found: dict[str, tuple[Classifier, dict[str, Any]]] = {}
    for word in job.models:
        about = describe_classifier(word)
        training = about.get("training", {})
        check_limits(training, config, f"classifier {word!r}")
        _check_apart(word, training, matrices, splits)
        label = str(about["classifier"]) if str(about["classifier"]) not in found else Path(word).name
        if label in found:
            raise NuebarError(f"models: expected different ones, got {word!r} twice; remove one")
        same = training.get("data") == matrices.digest
        told = {"from": Path(word).name, "digest": about.get("digest"), "trained_on_these_files": same}
        found[label] = (load_classifier(word), told)
    if job.ratio and "ratio" not in found:
        make = partial(fit_ratio, matrices, radius_m=config.detector.radius_m, pairs=job.pairs, splits=splits)
        found["ratio"] = (_stored("ratio", make, matrices, splits, out, progress), {"from": "here"})
    if job.trees and "trees" not in found:
        sizes = {} if job.pairs is None else {"pairs": job.pairs}
        grow = partial(train_trees, matrices, **sizes, seed=job.seed, splits=splits, progress=progress)
        found["trees"] = (_stored("trees", grow, matrices, splits, out, progress), {"from": "here"})
    return found


def _check_apart(word: str, training: Mapping[str, Any], matrices: Matrices, splits: Mapping[str, Split]) -> None:
    """Refuse a classifier that was trained on what it would be judged by."""
    if training.get("data") != matrices.digest:
        return
    for name, split in splits.items():
        rows = training["rows"][name]
        if (rows["validation"], rows["test"]) != (split.validation, split.test):
            raise NuebarError(
                f"classifier {word!r}: its training kept {rows['test']} pairs of the class {name} for the test, here "
                f"it would be {split.test}; train it again"
            )


def _stored(
    name: str,
    make: Callable[[], Any],
    matrices: Matrices,
    splits: Mapping[str, Split],
    out: Path,
    progress: Progress | None,
) -> Classifier:
    """A classifier of an earlier call for the same pairs, or a new one."""
    training = describe_fit(matrices, splits, "nuebar select compare")
    if (out / name / "model.json").is_file():
        before = describe_classifier(out / name).get("training", {})
        if all(before.get(key) == training[key] for key in ("data", "rows")):
            return load_classifier(out / name)
    if progress is not None:
        progress(name, 0, 1)
    made: Classifier = make()
    save_classifier(made, out / name, training=training)  # type: ignore[arg-type]
    return made


# ---------------------------------------------------------------- numbers


def _flows(config: SelectionConfig, sample: Sample) -> dict[str, Any]:
    cuts = cuts_of(config)
    return {
        name: cut_flow(cuts, _pieces(features)).record()
        for name, features in (("ibd", sample.signal), ("accidentals", sample.accidentals))
    }


def _pieces(features: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(features), _ROWS):
        yield features[start : start + _ROWS]


def _judged(
    job: SelectCompareJob,
    config: SelectionConfig,
    windows: tuple[float, ...],
    models: Mapping[str, tuple[Classifier, dict[str, Any]]],
    matrices: Matrices,
    splits: Mapping[str, Split],
    sample: Sample,
    flow: Mapping[str, Any],
    progress: Progress | None,
) -> tuple[dict[str, Any], Shown]:
    """Classifiers, scenarios, curves and changes of the record, and what is drawn."""
    steps = 2 * len(models) + 1 + len(LINES) * len(windows)
    done = 0

    def tell(name: str) -> None:
        nonlocal done
        if progress is not None:
            progress(f"judging {name}", done, steps)
        done += 1

    cuts = {w: Scored.of(cuts_of(config, w), sample, (w,)).distributions(w) for w in windows}
    bases = {w: cuts_point(d, Rates.of(_at(config, w)))[0] for w, d in cuts.items()}
    scored = {label: Scored.of(classifier, sample, windows, tell) for label, (classifier, _) in models.items()}
    shares = {w: b.background.value for w, b in bases.items()}
    lines = fitted_lines(matrices, splits, config, shares, singles=job.singles, seed=job.seed + 1, tell=tell)
    scenarios, curves = [], {}
    for w in windows:
        rates = Rates.of(_at(config, w))
        found = {label: s.distributions(w) for label, s in scored.items()}
        inner = {label: s.distributions(w, only_inside=True) for label, s in scored.items()}
        levels = {label: _levels(d, shares[w], inner[label]) for label, d in found.items()}
        for label, fits in lines[w].items():
            levels[label] = _line_levels(fits, sample, w, shares[w])
        curves[f"{w:g} ms"] = {label: _curve(d) for label, d in found.items()}
        for factor in job.factors:
            scaled = Rates(rates.ibd, rates.accidental * factor**2)
            scenarios.append(
                {
                    "window_ms": w,
                    "singles_factor": factor,
                    "rates_per_day": {"ibd": scaled.ibd, "accidental": scaled.accidental},
                    "ceiling": sample.ceiling_at(w),
                    "cuts": point_record(*cuts_point(cuts[w], scaled), cuts[w]),
                    "points": {
                        label: operating_points(d, cuts[w], scaled, efficiency=job.efficiency, purity=job.purity)
                        for label, d in found.items()
                    },
                    "levels": levels,
                }
            )
    fitted = {f"{w:g} ms": {k: [line_record(f) for f in v] for k, v in fits.items()} for w, fits in lines.items()}
    about = {label: told for label, (_, told) in models.items()}
    w = windows[0]
    classifiers = {label: classifier for label, (classifier, _) in models.items()}
    volumes = _volumes(config, cuts[w], sample)
    points = {on: point for on, (point, _) in volumes.items()}
    shown = _shown(job, classifiers, scored, cuts[w], shares[w], sample, points, flow, tell)
    if progress is not None:
        progress("judging", steps, steps)
    told = {
        "classifiers": about,
        "lines": fitted,
        "scenarios": scenarios,
        "cuts_by_volume": {on: record for on, (_, record) in volumes.items()},
        "curves": curves,
        "efficiency_curves": {k: {name: c.record() for name, c in v.items()} for k, v in shown.bins.items()},
        "calibration": {label: found.record() for label, found in shown.reliable.items()},
        **shown.changed.record(),
    }
    return told, shown


def _shown(
    job: SelectCompareJob,
    classifiers: Mapping[str, Classifier],
    scored: Mapping[str, Scored],
    cuts: Distributions,
    share: float,
    sample: Sample,
    volumes: Mapping[str, OperatingPoint],
    flow: Mapping[str, Any],
    tell: Callable[[str], None],
) -> Shown:
    """Efficiency curves and changes at the background of the cuts, and how far the scores are logits."""
    config = sample.config
    window = config.pairs.window_ms
    found = {label: s.distributions(window) for label, s in scored.items()}
    thresholds = {"cuts": 0.0} | {label: d.background.threshold_below(share) for label, d in found.items()}
    bins = {"cuts": efficiency_curves(sample.signal, cuts_of(config).passes(sample.signal))}
    bins |= {label: efficiency_curves(sample.signal, s.signal >= thresholds[label]) for label, s in scored.items()}
    reliable = {label: reliability(s.signal, s.accidentals) for label, s in scored.items()}
    all_, known = {"cuts": cuts_of(config), **classifiers}, {"cuts": cuts, **found}
    moved = changed(all_, thresholds, known, sample, singles=job.factors, tell=tell)
    return Shown(scored, found, cuts, volumes, bins, reliable, moved, flow, Rates.of(config))


def _volumes(config: SelectionConfig, cuts: Distributions, sample: Sample) -> dict[str, tuple[OperatingPoint, Any]]:
    """What the cuts keep with the fiducial volume on one vertex and on both, that of the selection first."""
    window, own = config.pairs.window_ms, config.cuts.fiducial_on
    found = {}
    for on in sorted(FIDUCIAL_ON, key=lambda name: name != own):
        other = cuts_of(replace(config, cuts=replace(config.cuts, fiducial_on=on)))
        d = cuts if on == own else Scored.of(other, sample, (window,)).distributions(window)
        point, sampled = cuts_point(d, Rates.of(config))
        found[on] = point, point_record(point, sampled, d)
    return found


def _at(config: SelectionConfig, window_ms: float) -> SelectionConfig:
    return replace(config, pairs=replace(config.pairs, window_ms=window_ms))


def _levels(found: Distributions, cuts_share: float, inner: Distributions | None = None) -> list[dict[str, Any]]:
    """Efficiencies at fractions of the background of the cuts."""
    out: list[dict[str, Any]] = []
    for factor in LEVELS:
        try:
            level, sampled = _level(found, factor * cuts_share)
            record = {"of_cuts": factor, "sampled": sampled, **_level_record(level, found)}
            if inner is not None:
                # The same background, all of it from the fiducial volume.
                within, _ = _level(inner, factor * cuts_share)
                told = {"threshold": _number(within.threshold), "efficiency": within.efficiency.record()}
                record["only_fiducial"] = told
        except NuebarError as error:
            record = {"of_cuts": factor, "missing": str(error)}
        out.append(record)
    return out


def _level(found: Distributions, share: float) -> tuple[Level, str]:
    """By the sampling with more effective events above the threshold, and its name."""
    levels = {name: efficiency_at(found.signal, d, [share])[0] for name, d in found.samplings().items()}
    name = max(levels, key=lambda n: levels[n].measured.effective)
    return levels[name], name


def _level_record(level: Level, found: Distributions) -> dict[str, Any]:
    return {
        "background": level.background,
        "threshold": _number(level.threshold),
        "efficiency": level.efficiency.record(),
        "measured": level.measured.record(),
        "resolved": bool(level.resolved),
        **found.regions(level.threshold),
        **found.beyond(level.threshold),
        **found.checks(level.threshold),
    }


def _number(value: float) -> float | str:
    return float(value) if np.isfinite(value) else str(value)


def _curve(found: Distributions) -> dict[str, list[float]]:
    """Efficiency against background, where the background is more than a few pairs."""
    thresholds = np.array([found.background.threshold_below(b) for b in _CURVE])
    kept = found.background.kept(thresholds)
    good = (kept.share > 0) & (kept.variance < 0.1 * kept.share**2)
    efficiency = found.signal.share(thresholds)
    return {"background": kept.share[good].tolist(), "efficiency": efficiency[good].tolist()}


def _line_levels(fits: list[LinearFit | None], sample: Sample, window_ms: float, share: float) -> list[dict[str, Any]]:
    """Each line moved, parallel to itself, to where the background of the held-out pairs is as wanted."""
    out = []
    for k, fit in enumerate(fits):
        if fit is None:
            out.append({"of_cuts": LEVELS[k], "missing": "too few pairs to fit a line for this background"})
            continue
        found = Scored.of(fit.cut, sample, (window_ms,)).distributions(window_ms)
        out.append(_levels(found, share)[k])
    return out
