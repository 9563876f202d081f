"""The search for a recipe of the network over pairs on disk: what ``nuebar select search`` calls."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from nuebar.io.files import output_folder
from nuebar.jobs.select_data import PairFiles, prepared, splits_of
from nuebar.jobs.select_train import PAIRS, SelectTrainJob, chosen_recipe
from nuebar.jobs.tune_search import importance_rows, trial_rows
from nuebar.run.lock import hold
from nuebar.select.config import load_selection
from nuebar.select.search import search
from nuebar.tune.search import SearchResult

__all__ = ["SelectSearchJob", "run_search", "search_report"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class SelectSearchJob:
    """What ``nuebar select search`` was asked for.

    Attributes:
        files: The pairs.
        selection: Name or TOML file.
        recipe: What is not searched, and the first trial: a word or a JSON file.
        trials: In all.
        trial_pairs: That a trial trains on, both classes and repetitions counted.
        pairs: Of each class, to choose from at most.
        max_seconds: Time of a trial at most.
        timeout: No trial is begun after this time, in seconds.
        pruner: median, halving or none.
        seed: Of everything.
    """

    files: PairFiles = field(default_factory=PairFiles)
    selection: str = "published"
    recipe: str = "network"
    trials: int = 30
    trial_pairs: int = 10_000_000
    pairs: int | None = None
    max_seconds: float | None = None
    timeout: float | None = None
    pruner: str = "median"
    seed: int = 1


def run_search(
    job: SelectSearchJob, folder: str | os.PathLike[str], *, progress: Progress | None = None
) -> SearchResult:
    """Search, or continue the search of a folder.

    Args:
        job: What is wanted.
        folder: Where the study is kept: ``study.journal``, ``study.json`` and ``best.json``; prepared pairs, too.
        progress: Called as ``progress(what, done, total)``.

    Raises:
        NuebarError: Pairs cannot be read, the folder has another study or another search is at work in it, or no
            trial could be completed.
    """
    config = load_selection(job.selection)
    base = chosen_recipe(SelectTrainJob(recipe=job.recipe))
    out = output_folder(folder)
    with hold(out):
        matrices = prepared(job.files, config, out / PAIRS, progress=progress)
        return search(
            matrices,
            out,
            trials=job.trials,
            pairs=job.trial_pairs,
            seed=job.seed,
            max_seconds=job.max_seconds,
            timeout=job.timeout,
            pruner=job.pruner,
            base=base,
            splits=splits_of(matrices, job.pairs),
            progress=progress,
        )


def search_report(result: SearchResult) -> str:
    """The best trials, and what mattered."""
    lines = ["  ".join(str(cell) for cell in row) for row in trial_rows(result)]
    lines += [f"importance of {name}: {share}" for name, share in importance_rows(result)]
    return "\n".join(lines)
