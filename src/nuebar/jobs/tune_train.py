"""What ``nuebar tune train`` does: read sets, train a density, measure it, write its folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.calibration import load_table
from nuebar.io.files import output_folder, read_json
from nuebar.tune.recipes import RECIPES, Recipe, recipe_from
from nuebar.tune.store import describe_training, save_density
from nuebar.tune.train import TrainedDensity, distances_of, load_sets, probabilities_of, train_density

__all__ = ["TrainJob", "chosen_recipe", "run_train"]

Progress = Callable[[str, int, int], None]
CHECKPOINT, LOG = "checkpoint.safetensors", "training.log"


@dataclass(frozen=True)
class TrainJob:
    """What ``nuebar tune train`` was asked for.

    Attributes:
        recipe: A word of :data:`nuebar.tune.recipes.RECIPES`, or the path of a JSON file (``best.json`` of a search).
        training: Folder of the training set.
        validation: Folders of validation sets.
        seed: Instead of the recipe's.
        epochs: Instead of the recipe's; the schedule is stretched with it.
        max_seconds: Budget of time, over all resumptions.
        command: For the model's description.
    """

    recipe: str
    training: str
    validation: tuple[str, ...] = ()
    seed: int | None = None
    epochs: int | None = None
    max_seconds: float | None = None
    command: str = ""


def chosen_recipe(job: TrainJob) -> Recipe:
    """The recipe with its changes.

    Raises:
        NuebarError: There is no such recipe, or the change is impossible.
    """
    if job.recipe in RECIPES:
        recipe = RECIPES[job.recipe]
    elif Path(job.recipe).is_file():
        told = read_json(job.recipe)
        recipe = recipe_from(told.get("recipe", told), job.recipe)
    else:
        raise NuebarError(f"recipe: expected one of {', '.join(RECIPES)} or a JSON file, got {job.recipe!r}")
    changes: dict[str, Any] = {}
    if job.seed is not None:
        changes["seed"] = job.seed
    if job.epochs is not None:
        if job.epochs < 1:
            raise NuebarError(f"epochs: expected a whole number above 0, got {job.epochs}")
        changes |= {"epochs": job.epochs, "period": recipe.period * job.epochs / recipe.epochs}
    return replace(recipe, **changes)


def run_train(job: TrainJob, folder: str | os.PathLike[str], *, progress: Progress | None = None) -> TrainedDensity:
    """Train, or continue, and write the model.

    Args:
        job: What is wanted.
        folder: Of the model; the checkpoint and the log lie there, too. The same command continues.
        progress: Called while reading and training.

    Returns:
        The trained density.
    """
    recipe = chosen_recipe(job)
    sets = load_sets(job.training, job.validation, charges=recipe.kind != "tede", progress=progress)
    out = output_folder(folder)
    trained = train_density(
        recipe,
        sets,
        checkpoint=out / CHECKPOINT,
        log=str(out / LOG),
        max_seconds=job.max_seconds,
        progress=progress,
    )
    metrics = {Path(path).name: _metrics(trained, path) for path in job.validation}
    save_density(trained.density, out, training=describe_training(trained, job.command), metrics=metrics)
    return trained


def _metrics(trained: TrainedDensity, folder: str) -> dict[str, Any]:
    """Mean and largest distances on a set, source by source."""
    table = load_table(folder)
    d = distances_of(probabilities_of(trained.density, table.parameters), table)
    return {
        name: {
            "mean": [float(f"{x:.4g}") for x in np.mean(values, axis=0)],
            "largest": [float(f"{x:.4g}") for x in np.max(values, axis=0)],
        }
        for name, values in zip(("d1", "d2", "d_inf"), d, strict=True)
    }
