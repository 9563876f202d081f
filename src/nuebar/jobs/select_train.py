"""What ``nuebar select train`` does: prepare pairs, train a classifier, judge it, write its folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nuebar.errors import NuebarError
from nuebar.io.files import output_folder, read_json
from nuebar.jobs.select_data import PairFiles, prepared, splits_of
from nuebar.jobs.select_evaluate import Scored, cuts_of, held_out_sample, operating_points
from nuebar.run.lock import hold
from nuebar.select.classifier import Classifier
from nuebar.select.config import SelectionConfig, load_selection
from nuebar.select.matrices import ACCIDENTALS, IBD, Matrices, Split
from nuebar.select.operating_point import BALANCED, Rates
from nuebar.select.ratio import RatioClassifier, fit_ratio
from nuebar.select.recipes import RECIPES, Recipe, recipe_from
from nuebar.select.store import describe_training, save_classifier
from nuebar.select.train import TrainedNetwork, train_network
from nuebar.select.trees import TreesClassifier, require_xgboost, train_trees

__all__ = [
    "OTHERS",
    "SelectTrainJob",
    "TrainedClassifier",
    "chosen_recipe",
    "describe_fit",
    "run_train",
    "train_report",
]

Progress = Callable[[str, int, int], None]
CHECKPOINT, LOG, PAIRS = "checkpoint.safetensors", "training.log", "pairs"
OTHERS = ("trees", "ratio")
"""Words for classifiers that are no networks."""


@dataclass(frozen=True, kw_only=True)
class SelectTrainJob:
    """What ``nuebar select train`` was asked for.

    Attributes:
        files: The pairs.
        recipe: A word of :data:`nuebar.select.recipes.RECIPES` or :data:`OTHERS`, or a JSON file (``best.json`` of a
            search).
        selection: Name or TOML file: window, threshold, cuts and rates.
        pairs: Of each class, to train on at most.
        epochs: Instead of the recipe's.
        seed: Instead of the recipe's.
        max_seconds: Budget of time, over all resumptions.
        singles: Recombined for the thresholds of the model, at most.
        command: For the model's description.
    """

    files: PairFiles = field(default_factory=PairFiles)
    recipe: str = "network"
    selection: str = "published"
    pairs: int | None = None
    epochs: float | None = None
    seed: int | None = None
    max_seconds: float | None = None
    singles: int = 200_000
    command: str = ""


@dataclass(frozen=True, eq=False)
class TrainedClassifier:
    """What a training gave.

    Attributes:
        classifier: The classifier.
        config: The selection that it was trained for.
        training: What its description tells of the training.
        metrics: What it tells of the accuracy.
        network: More of a network; ``None`` for the others.
    """

    classifier: Classifier
    config: SelectionConfig
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]
    network: TrainedNetwork | None = None


def chosen_recipe(job: SelectTrainJob) -> Recipe:
    """The recipe of a network with its changes.

    Raises:
        NuebarError: There is no such recipe, or the change is impossible.
    """
    if job.recipe in RECIPES:
        recipe = RECIPES[job.recipe]
    elif Path(job.recipe).is_file():
        told = read_json(job.recipe)
        recipe = recipe_from(told.get("recipe", told), job.recipe)
    else:
        known = ", ".join((*RECIPES, *OTHERS))
        raise NuebarError(f"recipe: expected one of {known} or a JSON file, got {job.recipe!r}")
    changes = {name: value for name in ("epochs", "seed") if (value := getattr(job, name)) is not None}
    return replace(recipe, **changes)


def run_train(
    job: SelectTrainJob, folder: str | os.PathLike[str], *, progress: Progress | None = None
) -> TrainedClassifier:
    """Train, or continue, judge on the pairs that were kept, and write the model.

    Args:
        job: What is wanted.
        folder: Of the model; checkpoint, log and prepared pairs lie there, too. The same command continues.
        progress: Called while reading and training.

    Returns:
        The classifier with its metrics.
    """
    config = load_selection(job.selection)
    recipe = None if job.recipe in OTHERS else chosen_recipe(job)
    if recipe is None and (job.epochs is not None or job.max_seconds is not None):
        raise NuebarError(f"recipe {job.recipe!r}: it has no epochs and no budget of time; leave both out")
    if job.recipe == "trees":
        require_xgboost()
    out = output_folder(folder)
    with hold(out):
        matrices = prepared(job.files, config, out / PAIRS, progress=progress)
        splits = splits_of(matrices, job.pairs)
        network: TrainedNetwork | None = None
        classifier: Any
        if recipe is not None:
            network = train_network(
                recipe,
                matrices,
                splits=splits,
                checkpoint=out / CHECKPOINT,
                log=str(out / LOG),
                max_seconds=job.max_seconds,
                progress=progress,
            )
            classifier, training = network.network, describe_training(network, job.command)
        else:
            classifier = _other(job, matrices, splits, config, progress)
            training = describe_fit(matrices, splits, job.command)
        metrics = _metrics(classifier, matrices, splits, config, job, progress)
        if network is not None:
            metrics = {"validation": dict(network.metrics), **metrics}
        save_classifier(
            classifier,
            out,
            training=training,
            metrics=metrics,
            provenance={"selection": config.title, "pairs": matrices.digest},
        )
    return TrainedClassifier(classifier, config, training, metrics, network)


def describe_fit(matrices: Matrices, splits: Mapping[str, Split], command: str) -> dict[str, Any]:
    """What the description of a classifier that is no network tells of its training.

    Args:
        matrices: Prepared pairs.
        splits: Rows of both classes.
        command: That made it.
    """
    rows = {name: {k: matrices.about[name][k] for k in ("rows", "read")} for name in splits}
    return {
        "command": command,
        "data": matrices.digest,
        "window_ms": matrices.about["window_ms"],
        "threshold_MeV": matrices.about["threshold_MeV"],
        "rows": {
            name: {"prepared": rows[name]["rows"], "read": rows[name]["read"], **vars(split)}
            for name, split in splits.items()
        },
        "sources": {name: [str(s[0]) for s in matrices.about[name]["made_from"]["sources"]] for name in splits},
    }


def train_report(trained: TrainedClassifier) -> str:
    """How the training went and what the classifier does on pairs that it has not seen."""
    lines = []
    if (n := trained.network) is not None:
        lines.append(
            f"{n.network.n_weights:,} weights, {n.steps:,} steps in {n.seconds:.0f} s, ended by {n.reason}; "
            f"cross-entropy {n.best:.6g} at step {n.best_step:,}"
        )
    rows = trained.training["rows"]
    for name, what in ((IBD, "antineutrino"), (ACCIDENTALS, "accidental")):
        read, kept = rows[name]["read"], rows[name]["prepared"]
        if kept < read:
            lines.append(
                f"{read - kept:,} of {read:,} {what} rows are no pairs of the selection (time below 0 or beyond the "
                "window, or an energy below the threshold)"
            )
    lines.append(
        f"trained on {rows[IBD]['train']:,} antineutrino and {rows[ACCIDENTALS]['train']:,} accidental pairs within "
        f"{trained.training['window_ms']:g} ms; judged on {rows[IBD]['test']:,} and "
        f"{rows[ACCIDENTALS]['test']:,} others"
    )
    per_day = trained.metrics["rates"]["real"]["accidental"]
    lines.append(
        f"{'operating point':16s} {'threshold':>10s} {'efficiency':>11s} {'background/day':>15s} {'purity':>9s}"
    )
    for name, point in trained.metrics["points"].items():
        if "missing" in point:
            lines.append(f"{name:16s} {point['missing']}")
            continue
        at = point["threshold"]
        lines.append(
            f"{name:16s} {at if isinstance(at, str) else f'{at:.4f}':>10s} {point['efficiency']['value']:11.4%} "
            f"{point['background']['value'] * per_day:15.4g} {point['purity']['value']:9.4%}"
            + ("  (F1 and purity of as many of both)" if name == "f1-balanced" else "")
            + ("" if point.get("resolved", True) else "  (too few background pairs: no measurement)")
        )
    return "\n".join(lines)


def _other(
    job: SelectTrainJob,
    matrices: Matrices,
    splits: Mapping[str, Split],
    config: SelectionConfig,
    progress: Progress | None,
) -> TreesClassifier | RatioClassifier:
    if job.recipe == "ratio":
        return fit_ratio(matrices, radius_m=config.detector.radius_m, pairs=job.pairs, splits=splits)
    sizes = {} if job.pairs is None else {"pairs": job.pairs}
    return train_trees(matrices, **sizes, seed=job.seed or 1, splits=splits, progress=progress)


def _metrics(
    classifier: Classifier,
    matrices: Matrices,
    splits: Mapping[str, Split],
    config: SelectionConfig,
    job: SelectTrainJob,
    progress: Progress | None,
) -> dict[str, Any]:
    """Thresholds with what they keep, from the pairs that were kept for the test."""
    if progress is not None:
        progress("judging", 0, 1)
    sample = held_out_sample(matrices, splits, config, singles=job.singles)
    window = config.pairs.window_ms
    cuts = Scored.of(cuts_of(config), sample, (window,)).distributions(window)
    both = Scored.of(classifier, sample, (window,)).distributions(window)
    rates = Rates.of(config)
    return {
        "test": sample.record(),
        "rates": {"real": vars(rates), "balanced": vars(BALANCED)},
        "points": operating_points(both, cuts, rates),
    }
