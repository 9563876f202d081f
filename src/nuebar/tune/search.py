"""Search for the recipe of a density: trainings of a fixed budget over ranges, proposed, pruned and kept by Optuna.

Proposals come from a tree-structured Parzen estimator (J. Bergstra et al., NeurIPS 24, 2011; Optuna: T. Akiba et al.,
arXiv:1907.10902) that minimises d₂ on the validation sets; a median or successive-halving rule ends trainings that lag
behind. The ranges of TEDE and of the planar flow are those of the published table (A. Gavrikov, A. Serafini,
D. Dolzhikov for JUNO, arXiv:2507.23297, hyper-parameter optimisation); those of the spline flow are ours.

The first trial is the recipe from which the ranges were left, so the best one is never worse than it. Every proposal is
a function of (seed, trial, parameter) and of the trials before. So a search that was killed and continued makes the
proposals of one that was not, and loses only the work of the trial that was running, which is repeated.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.calibration import CalibrationTable
from nuebar.io.files import output_folder, write_json
from nuebar.io.results import versions
from nuebar.tune.recipes import RECIPES, Recipe
from nuebar.tune.train import Sets, train_density

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

__all__ = [
    "BASES",
    "PRUNERS",
    "RANGES",
    "TRIALS",
    "Range",
    "SearchResult",
    "TrialRecord",
    "finished_trials",
    "open_study",
    "propose",
    "quiet_optuna",
    "search",
    "validated",
    "write_study",
]

log = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]

FORMAT = 1
_NAME = "search"  # of the study in its journal
JOURNAL, STUDY, BEST = "study.journal", "study.json", "best.json"
PRUNERS = ("median", "halving", "none")
_VALIDATIONS = 10  # of a trial
_UNJUDGED = 3  # validations before the median is asked: learning rates need time to fall
_STARTUP = 10  # random trials before the estimator is asked
_COMPARED = 5  # trials before anything is pruned
_ATTEMPTS = 3  # of a trial during which the process ended, for want of memory perhaps
_TOP = 5  # trials that importance looks at, at least


@dataclass(frozen=True, kw_only=True)
class Range:
    """Where one number or word of a recipe is searched.

    Attributes:
        name: Of the parameter; unique among the ranges of a density.
        low: Lowest value.
        high: Highest value, included.
        step: Between values, which are whole numbers then; ``None`` for any number between.
        log: Whether it is the logarithm that is spread evenly.
        power: Whether the recipe has two to the power of the value.
        choices: The values, instead of low and high.
        only: (name of an earlier range, its value): searched only then.
        entry: Of the recipe, with ``settings.`` before the sizes; the name where it is empty.
    """

    name: str
    low: float = 0.0
    high: float = 0.0
    step: int | None = None
    log: bool = False
    power: bool = False
    choices: tuple[str | int, ...] = ()
    only: tuple[str, str] | None = None
    entry: str = ""

    def holds(self, value: Any) -> bool:
        """Whether a value lies inside."""
        if self.choices:
            return value in self.choices
        inside = self.low <= value <= self.high
        return inside and (self.step is None or (value - self.low) % self.step == 0)

    def wanted(self, params: Mapping[str, Any]) -> bool:
        """Whether it is searched, given the values of the earlier ranges."""
        return self.only is None or params.get(self.only[0]) == self.only[1]

    def ask(self, trial: Trial) -> Any:
        """The value that a trial proposes."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if self.step is not None:
            return trial.suggest_int(self.name, int(self.low), int(self.high), step=self.step)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)

    def nearest(self, value: Any) -> Any:
        """The value of this range nearest to that of a recipe; ``None`` for a word that is no choice."""
        if self.choices:
            return value if value in self.choices else None
        value = math.log2(value) if self.power else value
        value = min(max(value, self.low), self.high)
        return value if self.step is None else int(self.low + self.step * round((value - self.low) / self.step))


_ADAM = (
    Range(name="beta1", low=0.5, high=0.95, only=("optimiser", "adamw")),
    Range(name="beta2", low=0.9, high=0.999, only=("optimiser", "adamw")),
)
_FALLS = (
    Range(name="period", low=5, high=75, step=1, only=("schedule", "cosine")),
    Range(name="factor", low=0.8, high=0.99, only=("schedule", "plateau"), entry="decay"),
)
_RATE = Range(name="rate", low=0.8, high=0.99, only=("schedule", "exponential"), entry="decay")

RANGES: Mapping[str, tuple[Range, ...]] = {
    "tede": (
        Range(name="tokens", low=1, high=5, step=1, entry="settings.tokens"),
        Range(name="width", low=50, high=500, step=50, entry="settings.width"),
        Range(name="heads", choices=(5, 10, 25), entry="settings.heads"),  # all of them divide every width
        Range(name="layers", low=1, high=5, step=1, entry="settings.layers"),
        Range(name="feed_forward", low=32, high=480, step=32, entry="settings.feed_forward"),
        Range(name="dropout", low=0.0, high=0.5, entry="settings.dropout"),
        Range(name="activation", choices=("relu", "gelu"), entry="settings.activation"),
        Range(name="temperature", low=0.25, high=3.0, entry="settings.temperature"),
        Range(name="optimiser", choices=("adamw", "rmsprop")),
        Range(name="learning_rate", low=1e-5, high=1e-2, log=True),
        Range(name="schedule", choices=("exponential", "plateau", "cosine", "constant")),
        Range(name="weight_decay", low=1e-6, high=1e-1, log=True),
        Range(name="log2_batch", low=4, high=9, step=1, power=True, entry="batch"),
        *_ADAM,
        Range(name="alpha", low=0.9, high=0.999, only=("optimiser", "rmsprop")),
        *_FALLS,
        _RATE,
    ),
    # Optimiser, learning rate, weight decay and batch are fixed there; ours is ten points with five sources, so 50.
    "planar": (
        Range(name="flows", low=100, high=200, step=5, entry="settings.flows"),
        Range(name="units", low=10, high=50, step=5, entry="settings.units"),
        Range(name="activation", choices=("relu", "gelu", "tanh", "silu"), entry="settings.activation"),
        *(replace(r, only=None) for r in _ADAM),
        Range(name="schedule", choices=("plateau", "cosine")),
        *_FALLS,
    ),
    # Ours. A cosine ends with the trial, whatever its length.
    "spline": (
        Range(name="intervals", low=32, high=192, step=16, entry="settings.intervals"),
        Range(name="units", low=32, high=160, step=16, entry="settings.units"),
        Range(name="activation", choices=("gelu", "silu", "tanh"), entry="settings.activation"),
        Range(name="learning_rate", low=1e-4, high=1e-2, log=True),
        Range(name="weight_decay", low=1e-6, high=1e-1, log=True),
        Range(name="log2_batch", low=2, high=6, step=1, power=True, entry="batch"),
        *(replace(r, only=None) for r in _ADAM),
        Range(name="schedule", choices=("cosine", "exponential", "constant")),
        Range(name="floor", low=1e-4, high=1e-1, log=True, only=("schedule", "cosine")),
        _RATE,
    ),
}
"""What is searched, by density: the published table, and ours for the spline flow."""

BASES: Mapping[str, Recipe] = {
    "tede": RECIPES["tede-published"],
    "planar": RECIPES["planar-published"],
    "spline": RECIPES["spline"],
}
"""The recipe that is tried first, and has what is not searched."""

TRIALS: Mapping[str, int] = {"tede": 250, "planar": 25, "spline": 50}
"""Trials of a whole search: the published numbers, and ours for the spline flow."""


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    Attributes:
        number: From 0.
        state: complete; pruned (it lagged behind); failed (see reason); running.
        value: The best mean d₂ of its validations; ``None`` before the first one.
        params: Proposed value of every range that was searched, by name.
        values: (step, mean d₂) of the validations.
        seconds: Time that it took.
        reason: Why it ended: steps, budget, pruned, or the sentence of the failure.
        attempts: More than one if the process ended during it.
    """

    number: int
    state: str
    value: float | None
    params: Mapping[str, Any]
    values: tuple[tuple[int, float], ...]
    seconds: float
    reason: str
    attempts: int


@dataclass(frozen=True, eq=False)
class SearchResult:
    """A search.

    Attributes:
        kind: tede, planar or spline.
        best: The best recipe, as its trial trained it.
        value: Its mean d₂.
        number: Its trial.
        trials: All of them.
        importance: Share of each range that ten complete trials searched in reaching the best ones, the largest first;
            empty if unknown.
        importance_note: Why it is unknown.
    """

    kind: str
    best: Recipe
    value: float
    number: int
    trials: tuple[TrialRecord, ...]
    importance: Mapping[str, float] = field(default_factory=dict)
    importance_note: str = ""


def search(
    kind: str,
    sets: Sets,
    folder: str | os.PathLike[str],
    *,
    trials: int,
    max_steps: int,
    seed: int = 1,
    max_seconds: float | None = None,
    timeout: float | None = None,
    pruner: str = "median",
    base: Recipe | None = None,
    ranges: tuple[Range, ...] | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Search for a recipe; the same call continues a search in its folder, and more trials extend it.

    The folder gets ``study.journal`` (Optuna's storage), and after every trial ``study.json`` (all trials) and
    ``best.json`` (the best recipe). One process at a time.

    Args:
        kind: tede, planar or spline.
        sets: Data; a flow needs charges.
        folder: Where the study is kept.
        trials: How many in all, those of earlier calls included; the published numbers are in :data:`TRIALS`.
        max_steps: Steps of a trial at most. There are ten validations in it.
        seed: Of the proposals, the weights and the minibatches.
        max_seconds: Time of a trial at most.
        timeout: No trial is begun after this time, in seconds.
        pruner: median, halving or none.
        base: What is not searched, and the first trial; by default that of :data:`BASES`.
        ranges: What is searched; by default those of :data:`RANGES`.
        progress: Called as ``progress("search", steps done, steps at most)``.

    Returns:
        The best recipe, and all trials.

    Raises:
        NuebarError: The package is missing, the folder has another study, or no trial could be completed.
    """
    _check(kind, sets, trials, max_steps, seed, max_seconds, timeout, pruner)
    plan = _Plan(kind, base or BASES[kind], RANGES[kind] if ranges is None else ranges, sets, max_steps, seed)
    if plan.base.kind != kind:
        raise NuebarError(f"search: expected a base recipe of the kind {kind}, got {plan.base.kind}; choose another")
    begun = time.monotonic()
    with quiet_optuna() as optuna:
        place = output_folder(folder)
        identity = plan.identity() | {"max_seconds": max_seconds, "pruner": pruner}
        study, begin = open_study(optuna, place, identity, pruner, plan)
        while (done := finished_trials(study)) < trials:
            if timeout is not None and time.monotonic() - begun >= timeout:
                break
            trial = begin(done)
            if trial is not None:
                write_study(optuna, place, study, plan, identity)
                _run(optuna, study, trial, plan, max_seconds, trials, progress)
            write_study(optuna, place, study, plan, identity)
        if progress is not None:
            progress("search", trials * max_steps, trials * max_steps)
        result = write_study(optuna, place, study, plan, identity)
    if result is None:
        reasons = [r.reason for r in _records(study) if r.reason]
        why = f"; the last one: {reasons[-1]}" if reasons else ""
        raise NuebarError(f"{place}: expected a complete trial, got none of {finished_trials(study)}{why}")
    return result


def propose(trial: Trial, ranges: tuple[Range, ...], before: Callable[[int], None] | None = None) -> dict[str, Any]:
    """Ask a trial for a value of every range that applies.

    Args:
        trial: Of Optuna.
        ranges: In an order in which conditions come before what depends on them.
        before: Called with the number of the range before it is asked.

    Returns:
        Values by the name of the range.
    """
    params: dict[str, Any] = {}
    for i, one in enumerate(ranges):
        if before is not None:
            before(i)
        if one.wanted(params):
            params[one.name] = one.ask(trial)
    return params


@dataclass(frozen=True, eq=False)
class _Plan:
    """What the trials have in common."""

    kind: str
    base: Recipe
    ranges: tuple[Range, ...]
    sets: Sets
    max_steps: int
    seed: int

    def recipe(self, params: Mapping[str, Any]) -> Recipe:
        """The recipe of a proposal: the base with its values, and with the length of a trial."""
        entries: dict[str, Any] = {}
        sizes: dict[str, Any] = {}
        for one in self.ranges:
            if one.name in params:
                value = 2 ** params[one.name] if one.power else params[one.name]
                where, _, name = (one.entry or one.name).rpartition(".")
                (sizes if where else entries)[name] = value
        table = self.sets.table
        rows = len(table.parameters) * (len(table.sources) if self.kind == "tede" else 1)
        per_epoch = max(rows // entries.get("batch", self.base.batch), 1)
        entries |= {
            "settings": replace(self.base.settings, **sizes),
            "epochs": math.ceil(self.max_steps / per_epoch),
            "warm_up": min(self.base.warm_up, self.max_steps // _VALIDATIONS),
            "patience": None,
            "validate_every": math.ceil(self.max_steps / _VALIDATIONS),
            "seed": self.seed,
        }
        if self.kind != "tede":
            entries["events"] = min(self.base.events, int(table.events.min()))
        if not any((one.entry or one.name) == "period" for one in self.ranges):
            entries["period"] = self.max_steps / per_epoch
        return replace(self.base, **entries)

    def first(self) -> dict[str, Any]:
        """The proposal nearest to the base; empty if a word of it is not among the choices."""
        told = {**asdict(self.base), **{f"settings.{k}": v for k, v in asdict(self.base.settings).items()}}
        params: dict[str, Any] = {}
        for one in self.ranges:
            if one.wanted(params):
                params[one.name] = one.nearest(told[one.entry or one.name])
        return {} if None in params.values() else params

    def identity(self) -> dict[str, Any]:
        """All that the trials depend on, as JSON keeps it."""
        data = {"training": self.sets.digest, "validation": [_digest(table) for table in self.sets.validation]}
        ranges = {
            one.name: [list(v) if isinstance(v, tuple) else v for v in asdict(one).values()] for one in self.ranges
        }
        return {
            "format": FORMAT,
            "kind": self.kind,
            "data": data,
            "ranges": ranges,
            "base": self.base.told(),
            "max_steps": self.max_steps,
            "seed": self.seed,
        }


def _digest(table: CalibrationTable) -> str:
    digest = hashlib.blake2b(np.ascontiguousarray(table.counts).tobytes(), digest_size=16)
    digest.update(np.ascontiguousarray(table.parameters).tobytes())
    return digest.hexdigest()


def _check(
    kind: str,
    sets: Sets,
    trials: int,
    max_steps: int,
    seed: int,
    max_seconds: float | None,
    timeout: float | None,
    pruner: str,
) -> None:
    for name, word, choices in (("kind", kind, tuple(RANGES)), ("pruner", pruner, PRUNERS)):
        if word not in choices:
            raise NuebarError(f"search {name}: expected one of {', '.join(choices)}, got {word!r}")
    for name, value, least in (("trials", trials, 1), ("max_steps", max_steps, 1), ("seed", seed, 0)):
        if type(value) is not int or value < least:
            raise NuebarError(f"search {name}: expected a whole number of at least {least}, got {value!r}")
    for name, limit in (("max_seconds", max_seconds), ("timeout", timeout)):
        if limit is not None and not 0 < limit < math.inf:
            raise NuebarError(f"search {name}: expected a finite number of seconds above 0, got {limit!r}")
    if kind != "tede" and sets.charges is None:
        raise NuebarError(f"a search for {kind} trains on charges: load the sets with charges, or search for tede")


# ---------------------------------------------------------------- Optuna


@contextmanager
def quiet_optuna() -> Iterator[Any]:
    """The package, silent unless something is wrong."""
    try:
        import optuna
        import optuna.storages.journal
    except ImportError as error:
        raise NuebarError(
            "the search for recipes needs the package optuna, which is missing; install nuebar[tune]"
        ) from error
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield optuna
    finally:
        optuna.logging.set_verbosity(before)


class _NoLock:
    """The journal has one writer."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None


def open_study(
    optuna: Any, place: Path, identity: dict[str, Any], pruner: str, plan: _Plan
) -> tuple[Study, Callable[[int], Trial | None]]:
    """The study of a folder, and what begins its next trial.

    Args:
        optuna: From :func:`quiet_optuna`.
        place: The folder.
        identity: All that the trials depend on; a folder with another one is refused.
        pruner: median, halving or none.
        plan: What the trials have in common.

    Returns:
        The study, and a function of the number of trials done that gives the next one, with the proposals of all
        ranges; ``None`` for one that is given up, as the process ended too often during it.

    Raises:
        NuebarError: The folder has another study, or no journal of a search.
    """
    path = place / JOURNAL
    if not path.exists() and (place / STUDY).exists():
        raise NuebarError(f"{place}: expected {JOURNAL} beside {STUDY}; choose another folder")
    try:
        _whole_lines(path)
        backend = optuna.storages.journal.JournalFileBackend(str(path), lock_obj=_NoLock())
        storage = optuna.storages.JournalStorage(backend)
    except (OSError, ValueError, KeyError) as error:
        raise NuebarError(f"{path}: expected a journal of Optuna, got {error}; choose another folder") from error
    options = {
        "storage": storage,
        "study_name": _NAME,
        "sampler": _sampler(optuna, plan.seed, 0, 0),
        "pruner": _pruner(optuna, pruner, identity),
    }
    names = [study.study_name for study in storage.get_all_studies()]
    if names not in ([], [_NAME]):
        raise NuebarError(f"{path}: expected a journal of a search, got the study {names[0]!r}; choose another folder")
    study = optuna.load_study(**options) if names else optuna.create_study(direction="minimize", **options)
    if "identity" in study.user_attrs:
        _compare(place, study.user_attrs["identity"], identity)
    else:
        study.set_user_attr("identity", identity)
    if not study.get_trials(deepcopy=False) and plan.first():
        study.enqueue_trial(plan.first())

    def begin(number: int) -> Trial | None:
        study.sampler = _sampler(optuna, plan.seed, number, 0)
        left = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
        if left:  # the process ended during it
            study_id = storage.get_study_id_from_name(_NAME)
            trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, left[0].number)
            trial = optuna.trial.Trial(study, trial_id)
        else:
            trial = study.ask()
        attempts = trial.user_attrs.get("attempts", 0) + 1
        if attempts > _ATTEMPTS:
            trial.set_user_attr("reason", f"the process ended {_ATTEMPTS} times during it")
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return None
        trial.set_user_attr("attempts", attempts)
        _ = trial.relative_params  # now, with this sampler

        def reseed(parameter: int) -> None:
            study.sampler = _sampler(optuna, plan.seed, number, parameter + 1)

        propose(trial, plan.ranges, reseed)
        return trial

    return study, begin


def _whole_lines(path: Path) -> None:
    """Cut off a last line that a power failure left unfinished."""
    if path.exists():
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            with open(path, "r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)


def _sampler(optuna: Any, seed: int, number: int, draw: int) -> Any:
    state = int(np.random.SeedSequence([seed, number, draw]).generate_state(1)[0])
    return optuna.samplers.TPESampler(seed=state, n_startup_trials=_STARTUP, multivariate=True, constant_liar=False)


def _pruner(optuna: Any, name: str, identity: Mapping[str, Any]) -> Any:
    every = math.ceil(identity["max_steps"] / _VALIDATIONS)
    if name == "median":
        return optuna.pruners.MedianPruner(
            n_startup_trials=_COMPARED, n_warmup_steps=_UNJUDGED * every, n_min_trials=_COMPARED
        )
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=2 * every, reduction_factor=2)
    return optuna.pruners.NopPruner()


def _compare(place: Path, kept: Any, wanted: Any) -> None:
    """Refuse another study, with the first difference."""
    kept, wanted = _flat(kept), _flat(wanted)
    for key in [*wanted, *kept]:
        if kept.get(key) != wanted.get(key):
            raise NuebarError(
                f"{place}: expected the study of this search, got another: {key} is {kept.get(key)!r} there and "
                f"{wanted.get(key)!r} here; choose another folder, or give what began it"
            )


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return out


def finished_trials(study: Study) -> int:
    """How many trials have ended, however."""
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def _run(
    optuna: Any,
    study: Study,
    trial: Trial,
    plan: _Plan,
    max_seconds: float | None,
    trials: int,
    progress: Progress | None,
) -> None:
    """Train a proposal and tell how it went.

    A failed one is told as pruned: so the sampler learns to avoid its like, as it does not from Optuna's failures.
    """
    known = {step for step, _ in validated(study.get_trials(deepcopy=False)[trial.number])}
    done, begun = trial.number * plan.max_steps, time.monotonic()

    def report(step: int, value: float) -> None:
        if step not in known:  # from before the process ended
            trial.report(value, step)
        if progress is not None:
            progress("search", min(done + step, trials * plan.max_steps), trials * plan.max_steps)
        if trial.should_prune():
            raise optuna.TrialPruned

    if progress is not None:
        progress("search", done, trials * plan.max_steps)
    value, state, failed, reason = None, optuna.trial.TrialState.PRUNED, False, "pruned"
    try:
        trained = train_density(
            plan.recipe(trial.params),
            plan.sets,
            max_steps=plan.max_steps,
            max_seconds=max_seconds,
            report=report,
        )
        value, state, reason = trained.best, optuna.trial.TrialState.COMPLETE, trained.reason
    except optuna.TrialPruned:
        pass
    except (NuebarError, MemoryError) as error:
        failed, reason = True, str(error) or "out of memory"
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        failed, reason = True, "out of memory of the device"
    for name, told in (("reason", reason), ("failed", failed), ("seconds", time.monotonic() - begun)):
        trial.set_user_attr(name, told)
    study.tell(trial, value, state=state)
    log.info("trial %d: %s", trial.number, reason)
    jax.clear_caches()  # no other trial has its shapes


# ---------------------------------------------------------------- what is kept


def validated(trial: FrozenTrial) -> tuple[tuple[int, float], ...]:
    """(step, value) of the validations of a trial, in order."""
    return tuple(sorted((int(step), float(value)) for step, value in trial.intermediate_values.items()))


def _records(study: Study) -> tuple[TrialRecord, ...]:
    records = []
    for trial in study.get_trials(deepcopy=False):
        told, values = trial.user_attrs, validated(trial)
        state = {"COMPLETE": "complete", "RUNNING": "running", "FAIL": "failed"}.get(trial.state.name, "pruned")
        if trial.state.name == "WAITING":
            continue
        if told.get("failed"):
            state = "failed"
        value = trial.value if state == "complete" else min((v for _, v in values), default=None)
        seconds, reason = float(told.get("seconds", 0.0)), str(told.get("reason", ""))
        attempts = int(told.get("attempts", 1))
        params = dict(trial.params)
        records.append(TrialRecord(trial.number, state, value, params, values, seconds, reason, attempts))
    return tuple(records)


def write_study(
    optuna: Any, place: Path, study: Study, plan: _Plan, identity: Mapping[str, Any]
) -> SearchResult | None:
    """Write ``study.json`` and ``best.json``, each in one step.

    Args:
        optuna: From :func:`quiet_optuna`.
        place: The folder.
        study: Of :func:`open_study`.
        plan: What the trials have in common.
        identity: All that they depend on.

    Returns:
        The search so far; ``None`` without a complete trial.
    """
    records = _records(study)
    complete = [r for r in records if r.state == "complete" and r.value is not None]
    importance, note = _importance(optuna, study, len(complete))
    told: dict[str, Any] = {"format": FORMAT, "identity": dict(identity), "versions": versions()}
    result = None
    if complete:
        best = min(complete, key=lambda r: (r.value, r.number))
        recipe = plan.recipe(best.params)
        assert best.value is not None
        result = SearchResult(plan.kind, recipe, best.value, best.number, records, importance, note)
        write_json(place / BEST, recipe.told())
        told["best"] = {"number": best.number, "value": best.value, "recipe": recipe.told()}
    told |= {"importance": importance, "importance_note": note, "trials": [asdict(r) for r in records]}
    write_json(place / STUDY, told)
    return result


def _importance(optuna: Any, study: Study, complete: int) -> tuple[dict[str, float], str]:
    """PED-ANOVA (S. Watanabe et al., arXiv:2304.10255): what sets the best trials apart from the others."""
    if complete < 2 * _TOP:
        return {}, f"importance needs {2 * _TOP} complete trials, there are {complete}"
    searched = Counter(n for t in study.get_trials(deepcopy=False) if t.state.name == "COMPLETE" for n in t.params)
    params = [name for name, times in searched.items() if times >= 2 * _TOP]  # what few trials had is noise
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that a range does not apply to all trials
            evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=max(0.1, _TOP / complete))
            found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=params)
    except (ImportError, ValueError, RuntimeError, AttributeError) as error:
        return {}, f"importance could not be computed: {error}"
    if not all(math.isfinite(v) for v in found.values()):
        return {}, "importance could not be computed: it is not finite"
    return {name: float(value) for name, value in found.items()}, ""
