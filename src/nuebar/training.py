"""The one training loop: minibatches as a function of (seed, step), patience, checkpoints and exact resumption.

Everything that a step depends on is in the state that a checkpoint holds: the weights, the optimiser's state, the
best weights so far and the counters. A minibatch depends on the step and the seed only. So a training that was killed
and continued ends with the same bits as one that was not, on the same machine with the same number of threads.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from nuebar.errors import NuebarError
from nuebar.io.arrays import load_arrays, save_arrays

__all__ = [
    "Point",
    "StoredBatches",
    "Trained",
    "Training",
    "count_parameters",
    "generator",
    "named_arrays",
    "train",
    "with_arrays",
]

Model = TypeVar("Model")
Batches = Callable[[int], Any]
Loss = Callable[[Any, Any], Array]
Progress = Callable[[str, int, int], None]

FORMAT = 1
NOT_COMPARED = ("max_seconds", "checkpoint_seconds", "log")  # they change how long, not what is computed


@dataclass(frozen=True, kw_only=True)
class Training:
    """Settings of a training.

    Attributes:
        max_steps: Optimiser steps at most.
        batch: Rows of a minibatch.
        seed: Of the initial weights and the minibatches.
        validate_every: Steps between validations; early stopping and the best weights are judged there.
        patience: Validations without improvement after which it stops; ``None`` never stops early.
        goal: It has converged when the validation falls to this; ``None`` for no goal.
        max_seconds: Budget of time over all resumptions; ``None`` for no limit.
        checkpoint_seconds: Time between checkpoints.
        log: Text file to which a line is added at every validation.
    """

    max_steps: int
    batch: int = 1024
    seed: int = 0
    validate_every: int = 1000
    patience: int | None = None
    goal: float | None = None
    max_seconds: float | None = None
    checkpoint_seconds: float = 60.0
    log: str | None = None

    def __post_init__(self) -> None:
        """Refuse settings with which nothing could be trained."""
        whole = {"max_steps": 1, "batch": 1, "seed": 0, "validate_every": 1, "patience": 1}
        for name, least in whole.items():
            value = getattr(self, name)
            if value is None and name == "patience":
                continue
            if type(value) is not int or value < least:
                raise NuebarError(
                    f"training setting {name}: expected a whole number of at least {least}, got {value!r}"
                )
        for name in ("goal", "max_seconds", "checkpoint_seconds"):
            value = getattr(self, name)
            if value is None and name != "checkpoint_seconds":
                continue
            if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise NuebarError(f"training setting {name}: expected a finite number of at least 0, got {value!r}")

    def identity(self) -> dict[str, Any]:
        """What the result depends on, for the comparison with a checkpoint."""
        return {k: v for k, v in asdict(self).items() if k not in NOT_COMPARED}


@dataclass(frozen=True)
class Point:
    """One line of the history.

    Attributes:
        step: Optimiser steps done.
        loss: Mean training loss since the point before.
        validation: Validation after that step.
        seconds: Time spent so far; not part of comparisons.
    """

    step: int
    loss: float
    validation: float
    seconds: float = field(compare=False)


@dataclass(frozen=True)
class Trained(Generic[Model]):
    """A trained model, and why the training ended.

    Attributes:
        model: With the weights of the best validation.
        history: One point per validation.
        reason: ``converged`` (the goal), ``patience``, ``steps`` or ``budget`` (of time).
        step: Optimiser steps done.
        best_step: The step whose weights were kept.
        best: Their validation.
        seconds: Time spent, over all resumptions.
    """

    model: Model
    history: tuple[Point, ...]
    reason: str
    step: int
    best_step: int
    best: float
    seconds: float


def train(
    model: Model,
    loss: Loss,
    batches: Batches,
    validate: Callable[[Model], float] | None,
    optimiser: optax.GradientTransformation,
    settings: Training,
    *,
    trainable: Any = eqx.is_inexact_array,
    checkpoint: str | os.PathLike[str] | None = None,
    identity: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    report: Callable[[int, float], None] | None = None,
) -> Trained[Model]:
    """Minimise a loss over minibatches.

    Args:
        model: Pytree with the initial weights; it is not changed.
        loss: ``loss(model, batch) -> scalar``, pure JAX. What is random in it comes with the batch.
        batches: ``batches(step) -> pytree of arrays``, a pure function; steps count from 0.
        validate: ``validate(model) -> number``, the smaller the better; without it the mean training loss is taken.
        optimiser: From optax; schedules count their steps in its state.
        settings: How much and how long.
        trainable: Which leaves are trained (a function of a leaf, or a pytree of bools); by default all arrays of
            floats, normalisations kept as arrays included.
        checkpoint: File to save to and to resume from.
        identity: JSON-able description of model, data and optimiser: a checkpoint with another one is refused.
        progress: Called as ``progress("training", steps done, steps at most)`` at every validation.
        report: Called as ``report(step, validation)`` at every validation; it may raise to stop.

    Returns:
        The model of the best validation.

    Raises:
        NuebarError: The loss is no finite number, or the checkpoint belongs to another training.
    """
    weights, rest = eqx.partition(model, trainable)
    weights = _copy(weights)  # a step writes the new weights over the old ones (donation)
    step = eqx.filter_jit(_make_step(loss, optimiser), donate="all-except-first")
    state = _State(weights, _copy(optimiser.init(weights)), weights)
    told = {"settings": settings.identity(), **dict(identity or {})}
    if checkpoint is not None and Path(checkpoint).exists():
        state = _resume(Path(checkpoint), state, told)
    state.best_weights = _copy(state.best_weights)  # which no step writes over
    clock, saved = time.monotonic() - state.seconds, time.monotonic()
    reason = _finished(state, settings)
    batch = None if reason else _on_device(batches(state.step))
    while not reason:
        state.weights, state.optimiser, value = step((rest, batch), state.weights, state.optimiser)
        state.step += 1
        if state.step < settings.max_steps:
            batch = _on_device(batches(state.step))  # while the device still computes
        _add_loss(state, float(value), checkpoint)
        state.seconds = time.monotonic() - clock
        if state.step % settings.validate_every == 0 or state.step == settings.max_steps:
            _validate(state, rest, validate, settings, clock)
            if report is not None:
                report(state.step, state.history[-1].validation)
            if progress is not None:
                progress("training", state.step, settings.max_steps)
        reason = _finished(state, settings)
        if checkpoint is not None and (reason or time.monotonic() - saved >= settings.checkpoint_seconds):
            _save(Path(checkpoint), state, told)
            saved = time.monotonic()
    if not state.history:  # the budget ended before the first validation: judge what there is
        _validate(state, rest, validate, settings, clock)
    if progress is not None:
        progress("training", settings.max_steps, settings.max_steps)
    best: Model = eqx.combine(state.best_weights, rest)
    history = tuple(state.history)
    return Trained(best, history, reason, state.step, state.best_step, state.best, state.seconds)


# ---------------------------------------------------------------- minibatches


def generator(seed: int, *counters: int) -> np.random.Generator:
    """A random generator that is a function of the seed and the counters (Philox), as minibatches need it.

    Args:
        seed: At least 0.
        *counters: Up to three numbers of at least 0 that count streams, such as epoch or step.
    """
    if seed < 0 or len(counters) > 3 or any(c < 0 for c in counters):
        raise NuebarError(
            f"random numbers: expected a seed and up to three counters of at least 0, got {seed, *counters}"
        )
    # The lowest of the four words counts inside a stream.
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, *counters, *[0] * (3 - len(counters))]))


class StoredBatches:
    """Minibatches of stored rows: every epoch in its own order, which is a function of (seed, epoch).

    Args:
        arrays: Pytree of arrays (memory-mapped ones too) with rows on the first axis.
        batch: Rows of a minibatch; the last incomplete one of an epoch is left out.
        seed: Of the orders.
        block: Rows that stay together: 1 shuffles single rows, more reads contiguous blocks of a file.
    """

    def __init__(self, arrays: Any, batch: int, seed: int = 0, *, block: int = 1) -> None:
        sizes = {np.shape(a)[0] for a in jax.tree.leaves(arrays)}
        if len(sizes) != 1 or not 0 < batch <= min(sizes):
            raise NuebarError(
                f"minibatches: expected arrays of one length of at least {batch} rows, got {sorted(sizes)}"
            )
        if block < 1 or batch % block:
            raise NuebarError(f"minibatches: expected a block that divides the {batch} rows of a batch, got {block}")
        self._arrays, self._batch, self._seed, self._block = arrays, batch, seed, block
        self._rows = sizes.pop() // block * block
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, int))

    @property
    def steps_per_epoch(self) -> int:
        """Minibatches of an epoch."""
        return self._rows // self._batch

    def __call__(self, step: int) -> Any:
        """The minibatch of a step."""
        epoch, k = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            blocks = generator(self._seed, epoch).permutation(self._rows // self._block)
            self._order = (epoch, blocks)
        each = self._batch // self._block
        blocks = self._order[1][k * each : (k + 1) * each]
        rows = blocks if self._block == 1 else (blocks[:, None] * self._block + np.arange(self._block)).ravel()
        return jax.tree.map(lambda a: np.asarray(a[rows]), self._arrays)


# ---------------------------------------------------------------- arrays by name


def named_arrays(tree: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """The array leaves of a pytree by their path, such as ``layers.0.weight``.

    Args:
        tree: Any pytree; leaves that are no arrays are left out.
        prefix: Put before every name.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {prefix + _path(path): np.asarray(leaf) for path, leaf in leaves if eqx.is_array(leaf)}


def with_arrays(tree: Model, arrays: Mapping[str, np.ndarray], where: str, prefix: str = "") -> Model:
    """A copy of a pytree whose array leaves are replaced by name; every one must be there, in its shape and type.

    Args:
        tree: The skeleton.
        arrays: As from :func:`named_arrays`; names without the prefix are ignored.
        where: For the message: the file.
        prefix: Before every name.

    Raises:
        NuebarError: A name is missing or too many, or a shape or type differs.
    """
    expected = named_arrays(tree, prefix)
    given = {name for name in arrays if name.startswith(prefix)}
    if given != set(expected):
        other = sorted(given ^ set(expected))
        raise NuebarError(
            f"{where}: expected the arrays of this model, but {', '.join(other[:3])} differ; build it again"
        )
    for name, old in expected.items():
        new = arrays[name]
        if new.shape != old.shape or new.dtype != old.dtype:
            raise NuebarError(
                f"{where}: array {name!r}: expected {old.dtype} of shape {list(old.shape)}, got {new.dtype} of shape "
                f"{list(new.shape)}; build it again"
            )

    def replaced(path: Any, leaf: Any) -> Any:
        return jnp.array(arrays[prefix + _path(path)]) if eqx.is_array(leaf) else leaf

    new_tree: Model = jax.tree_util.tree_map_with_path(replaced, tree)
    return new_tree


def count_parameters(tree: Any, trainable: Any = eqx.is_inexact_array) -> int:
    """How many numbers are trained."""
    return sum(int(leaf.size) for leaf in jax.tree.leaves(eqx.filter(tree, trainable)))


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


# ---------------------------------------------------------------- inside the loop


@dataclass
class _State:
    """Everything that the next step depends on."""

    weights: Any
    optimiser: Any
    best_weights: Any
    step: int = 0
    best: float = math.inf
    best_step: int = 0
    waited: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    seconds: float = 0.0
    history: list[Point] = field(default_factory=list)


def _make_step(loss: Loss, optimiser: optax.GradientTransformation) -> Callable[..., Any]:
    knowing = optax.with_extra_args_support(optimiser)  # some schedules look at the loss

    def step(constant: Any, weights: Any, state: Any) -> tuple[Any, Any, Array]:
        rest, batch = constant
        value, slope = eqx.filter_value_and_grad(lambda w: loss(eqx.combine(w, rest), batch))(weights)
        updates, state = knowing.update(slope, state, weights, value=value)
        return eqx.apply_updates(weights, updates), state, value

    return step


def _on_device(batch: Any) -> Any:
    return jax.tree.map(jnp.asarray, batch)


def _copy(tree: Any) -> Any:
    return jax.tree.map(lambda a: jnp.array(a, copy=True), tree)


def _add_loss(state: _State, value: float, checkpoint: str | os.PathLike[str] | None) -> None:
    if not math.isfinite(value):
        kept = f"; the last good state is in {checkpoint}" if checkpoint is not None else ""
        raise NuebarError(
            f"training: expected a finite loss, got {value} at step {state.step}; lower the learning rate or clip the "
            f"gradient{kept}"
        )
    state.loss_sum += value
    state.loss_count += 1


def _validate(
    state: _State, rest: Any, validate: Callable[[Any], float] | None, settings: Training, clock: float
) -> None:
    """Judge the weights, keep them if they are the best, and write a line."""
    loss = state.loss_sum / max(state.loss_count, 1)
    value = loss if validate is None else float(validate(eqx.combine(state.weights, rest)))
    if not math.isfinite(value):
        raise NuebarError(f"training: expected a finite validation, got {value} at step {state.step}; check its data")
    state.loss_sum, state.loss_count = 0.0, 0
    state.waited += 1
    if value < state.best:
        state.best, state.best_step, state.waited = value, state.step, 0
        state.best_weights = _copy(state.weights)
    state.seconds = time.monotonic() - clock
    state.history.append(Point(state.step, loss, value, state.seconds))
    if settings.log is not None:
        _log(settings.log, state)


def _log(path: str, state: _State) -> None:
    p = state.history[-1]
    line = f"step {p.step} loss {p.loss:.6g} validation {p.validation:.6g} best {state.best:.6g} {p.seconds:.1f} s\n"
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        raise NuebarError(f"{path}: the log cannot be written ({error.strerror}); choose another place") from error


def _finished(state: _State, settings: Training) -> str:
    """The reason to stop, or nothing."""
    if settings.goal is not None and state.best <= settings.goal:
        return "converged"
    if settings.patience is not None and state.waited >= settings.patience:
        return "patience"
    if state.step >= settings.max_steps:
        return "steps"
    if settings.max_seconds is not None and state.seconds >= settings.max_seconds:
        return "budget"
    return ""


# ---------------------------------------------------------------- checkpoints

COUNTERS = ("step", "best_step", "waited", "loss_sum", "loss_count", "seconds")


def _save(path: Path, state: _State, told: Mapping[str, Any]) -> None:
    arrays = named_arrays(state.weights, "weights.") | named_arrays(state.best_weights, "best.")
    arrays |= named_arrays(state.optimiser, "optimiser.")
    counters = {name: getattr(state, name) for name in COUNTERS}
    history = [[p.step, p.loss, p.validation, p.seconds] for p in state.history]
    best = None if math.isinf(state.best) else state.best
    told = {"format": FORMAT, "told": dict(told), "counters": counters, "best": best, "history": history}
    save_arrays(path, arrays, told)


def _resume(path: Path, state: _State, told: Mapping[str, Any]) -> _State:
    """The state of a checkpoint, if it belongs to this training."""
    arrays, metadata = load_arrays(path)
    if metadata.get("format") != FORMAT:
        raise NuebarError(
            f"{path}: expected a checkpoint of format {FORMAT}, got {metadata.get('format')!r}; remove it"
        )
    _compare(path, metadata.get("told"), _plain(told))
    try:
        counters = {name: type(getattr(state, name))(metadata["counters"][name]) for name in COUNTERS}
        history = [Point(int(p[0]), float(p[1]), float(p[2]), float(p[3])) for p in metadata["history"]]
        best = math.inf if metadata["best"] is None else float(metadata["best"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise NuebarError(f"{path}: the checkpoint is incomplete ({error}); remove it to start again") from error
    return _State(
        with_arrays(state.weights, arrays, str(path), "weights."),
        with_arrays(state.optimiser, arrays, str(path), "optimiser."),
        with_arrays(state.best_weights, arrays, str(path), "best."),
        best=best,
        history=history,
        **counters,
    )


def _plain(told: Mapping[str, Any]) -> Any:
    """As JSON would give it back."""
    import json

    return json.loads(json.dumps(told))


def _compare(path: Path, saved: Any, wanted: Any) -> None:
    """Refuse a checkpoint of another training, with the first difference."""
    saved, wanted = _flat(saved), _flat(wanted)
    for key in sorted(set(saved) | set(wanted)):
        if saved.get(key) != wanted.get(key):
            raise NuebarError(
                f"{path}: the checkpoint is of another training: {key} is {saved.get(key)!r} there and "
                f"{wanted.get(key)!r} here; remove it, or choose another file"
            )


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix or "description": tree}
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return out
