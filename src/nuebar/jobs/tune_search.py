"""The search for a recipe over sets on disk: what ``nuebar tune search`` calls."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from nuebar.errors import NuebarError
from nuebar.io.files import output_folder
from nuebar.run.lock import hold
from nuebar.tune.search import BASES, TRIALS, SearchResult, search
from nuebar.tune.train import load_sets

__all__ = ["SearchJob", "importance_rows", "run_search", "trial_rows"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class SearchJob:
    """What ``nuebar tune search`` was asked for.

    Attributes:
        kind: tede, planar or spline.
        training: Folder of the training set.
        validation: Folders of the validation sets.
        trials: In all; by default the published number (TEDE 250, planar flow 25), and 50 for the spline flow.
        max_steps: Steps of a trial at most.
        max_seconds: Time of a trial at most.
        timeout: No trial is begun after this time, in seconds.
        pruner: median, halving or none.
        events: Events of every source and point in a step of a flow, instead of those of its recipe.
        seed: Of everything.
    """

    kind: str
    training: str
    validation: tuple[str, ...] = ()
    trials: int | None = None
    max_steps: int = 5000
    max_seconds: float | None = None
    timeout: float | None = None
    pruner: str = "median"
    events: int | None = None
    seed: int = 1


def run_search(job: SearchJob, folder: str | os.PathLike[str], *, progress: Progress | None = None) -> SearchResult:
    """Search, or continue the search of a folder.

    Args:
        job: What is wanted.
        folder: Where the study is kept: ``study.journal``, ``study.json`` and ``best.json``.
        progress: Called as ``progress(what, done, total)``.

    Raises:
        NuebarError: A set cannot be read, the folder has another study or another search is at work in it, or no
            trial could be completed.
    """
    if job.kind not in BASES:
        raise NuebarError(f"search kind: expected one of {', '.join(BASES)}, got {job.kind!r}")
    base = BASES[job.kind]
    if job.events is not None:
        base = replace(base, events=job.events)
    with hold(output_folder(folder)):
        sets = load_sets(job.training, job.validation, charges=job.kind != "tede", progress=progress)
        return search(
            job.kind,
            sets,
            folder,
            trials=TRIALS[job.kind] if job.trials is None else job.trials,
            max_steps=job.max_steps,
            seed=job.seed,
            max_seconds=job.max_seconds,
            timeout=job.timeout,
            pruner=job.pruner,
            base=base,
            progress=progress,
        )


def trial_rows(result: SearchResult, most: int = 10) -> list[tuple[int, str, str, str, str]]:
    """The best trials, for a table: number, state, d₂, seconds, and what was proposed.

    Args:
        result: Of a search.
        most: Rows.
    """
    judged = sorted(
        (t for t in result.trials if t.value is not None), key=lambda t: (t.state != "complete", t.value, t.number)
    )
    return [
        (
            t.number,
            t.state,
            f"{t.value:.4g}",
            f"{t.seconds:.0f}",
            ", ".join(f"{k} {_short(v)}" for k, v in t.params.items()),
        )
        for t in judged[:most]
    ]


def importance_rows(result: SearchResult) -> list[tuple[str, str]]:
    """Share of each range in reaching the best trials, for a table; none if it is unknown."""
    return [(name, f"{100 * share:.0f} %") for name, share in result.importance.items()]


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
