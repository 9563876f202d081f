"""Search for the recipe of the network: short trainings over ranges, proposed, pruned and kept by Optuna.

How proposals are made, kept and resumed is that of :mod:`nuebar.tune.search`; here are the ranges and the training. The
published search is not described in numbers, so the ranges are ours (nominal). The number that is minimised is the
cross-entropy of validation pairs; the pairs kept for the test take no part.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax

from nuebar.errors import NuebarError
from nuebar.io.files import output_folder
from nuebar.select.matrices import ACCIDENTALS, IBD, Matrices, Split, split_of
from nuebar.select.recipes import RECIPES, Recipe
from nuebar.select.train import train_network
from nuebar.tune.search import (
    PRUNERS,
    Range,
    SearchResult,
    finished_trials,
    open_study,
    quiet_optuna,
    validated,
    write_study,
)

__all__ = ["RANGES", "search"]

Progress = Callable[[str, int, int], None]

_KIND = "pairs"
_VALIDATIONS = 10

RANGES: tuple[Range, ...] = (
    Range(name="inputs", choices=("linear", "shaped")),
    Range(name="learning_rate", low=1e-4, high=1e-2, log=True),
    Range(name="weight_decay", low=1e-6, high=1e-1, log=True),
    Range(name="log2_batch", low=10, high=15, step=1, power=True, entry="batch"),
    Range(name="beta1", low=0.5, high=0.95),
    Range(name="beta2", low=0.9, high=0.999),
    Range(name="schedule", choices=("cosine", "constant")),
    Range(name="floor", low=1e-4, high=1e-1, log=True, only=("schedule", "cosine")),
)
"""What is searched, with the published layers; the share of close pairs is not, as it changes what is minimised."""


@dataclass(frozen=True, eq=False)
class _Plan:
    """What the trials have in common."""

    base: Recipe
    ranges: tuple[Range, ...]
    matrices: Matrices
    splits: Mapping[str, Split]
    pairs: int  # of a trial, of both classes
    seed: int
    kind: str = _KIND

    def recipe(self, params: Mapping[str, Any]) -> Recipe:
        """The base with the values of a proposal, as long as a trial."""
        entries = {
            one.entry or one.name: 2 ** params[one.name] if one.power else params[one.name]
            for one in self.ranges
            if one.name in params
        }
        batch = entries.get("batch", self.base.batch)
        steps = max(self.pairs // batch, 1)
        per_epoch = max(split.train for split in self.splits.values()) // (batch // 2)
        return replace(
            self.base,
            **entries,
            epochs=steps / max(per_epoch, 1),
            warm_up=min(self.base.warm_up, steps // _VALIDATIONS),
            patience=None,
            validations=_VALIDATIONS,
            seed=self.seed,
        )

    def first(self) -> dict[str, Any]:
        """The proposal nearest to the base."""
        told = asdict(self.base)
        params: dict[str, Any] = {}
        for one in self.ranges:
            if one.wanted(params):
                params[one.name] = one.nearest(told[one.entry or one.name])
        return {} if None in params.values() else params

    def identity(self) -> dict[str, Any]:
        """All that the trials depend on, as JSON keeps it."""
        return {
            "kind": self.kind,
            "data": self.matrices.digest,
            "splits": {name: vars(split) for name, split in self.splits.items()},
            "ranges": {
                r.name: [list(v) if isinstance(v, tuple) else v for v in asdict(r).values()] for r in self.ranges
            },
            "base": self.base.told(),
            "max_steps": _VALIDATIONS,  # what is pruned counts validations, as batches differ
            "pairs": self.pairs,
            "seed": self.seed,
        }


def search(
    matrices: Matrices,
    folder: str | os.PathLike[str],
    *,
    trials: int,
    pairs: int,
    seed: int = 1,
    max_seconds: float | None = None,
    timeout: float | None = None,
    pruner: str = "median",
    base: Recipe | None = None,
    ranges: tuple[Range, ...] | None = None,
    splits: Mapping[str, Split] | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Search for a recipe; the same call continues a search in its folder, and more trials extend it.

    The folder gets the files that :func:`nuebar.tune.search.search` writes.

    Args:
        matrices: From :func:`~nuebar.select.matrices.prepare`.
        folder: Where the study is kept.
        trials: How many in all, those of earlier calls included.
        pairs: That a trial trains on, both classes and repetitions counted; the same for every batch.
        seed: Of the proposals, the weights and the minibatches.
        max_seconds: Time of a trial at most.
        timeout: No trial is begun after this time, in seconds.
        pruner: median, halving or none.
        base: What is not searched, and the first trial; by default the recipe ``network``.
        ranges: What is searched; by default :data:`RANGES`.
        splits: As for :func:`~nuebar.select.train.train_network`.
        progress: Called as ``progress("search", trials done, trials)``.

    Returns:
        The best recipe, and all trials.

    Raises:
        NuebarError: Optuna is missing, the folder has another study, or no trial could be completed.
    """
    for name, value, least in (("trials", trials, 1), ("pairs", pairs, 2), ("seed", seed, 0)):
        if type(value) is not int or value < least:
            raise NuebarError(f"search {name}: expected a whole number of at least {least}, got {value!r}")
    if pruner not in PRUNERS:
        raise NuebarError(f"search pruner: expected one of {', '.join(PRUNERS)}, got {pruner!r}")
    rows = {IBD: len(matrices.ibd), ACCIDENTALS: len(matrices.accidentals)}
    splits = dict(splits or {name: split_of(name, n) for name, n in rows.items()})
    plan: Any = _Plan(base or RECIPES["network"], RANGES if ranges is None else ranges, matrices, splits, pairs, seed)
    begun = time.monotonic()
    with quiet_optuna() as optuna:
        place = output_folder(folder)
        identity = plan.identity() | {"max_seconds": max_seconds, "pruner": pruner}
        study, begin = open_study(optuna, place, identity, pruner, plan)
        while (done := finished_trials(study)) < trials:
            if timeout is not None and time.monotonic() - begun >= timeout:
                break
            if progress is not None:
                progress("search", done, trials)
            trial = begin(done)
            if trial is not None:
                write_study(optuna, place, study, plan, identity)
                _run(optuna, study, trial, plan, max_seconds)
            write_study(optuna, place, study, plan, identity)
        if progress is not None:
            progress("search", trials, trials)
        result = write_study(optuna, place, study, plan, identity)
    if result is None:
        raise NuebarError(f"{place}: expected a complete trial, got none of {finished_trials(study)}; see study.json")
    return result


def _run(optuna: Any, study: Any, trial: Any, plan: Any, max_seconds: float | None) -> None:
    """Train a proposal and tell how it went; a failed one is told as pruned, so that its like are avoided."""
    known = {step for step, _ in validated(study.get_trials(deepcopy=False)[trial.number])}
    begun = time.monotonic()

    def report(number: int, value: float) -> None:
        if number not in known and number <= _VALIDATIONS:
            trial.report(value, number)
        if trial.should_prune():
            raise optuna.TrialPruned

    value, state, failed, reason = None, optuna.trial.TrialState.PRUNED, False, "pruned"
    try:
        trained = train_network(
            plan.recipe(trial.params), plan.matrices, splits=plan.splits, max_seconds=max_seconds, report=report
        )
        if math.isfinite(trained.best):
            value, state, reason = trained.best, optuna.trial.TrialState.COMPLETE, trained.reason
    except optuna.TrialPruned:
        pass
    except (NuebarError, MemoryError) as error:
        failed, reason = True, str(error) or "out of memory"
    for name, told in (("reason", reason), ("failed", failed), ("seconds", time.monotonic() - begun)):
        trial.set_user_attr(name, told)
    study.tell(trial, value, state=state)
    jax.clear_caches()  # no other trial has its shapes
