"""Training of the network: minibatches from disk, binary cross-entropy, validation on pairs that are kept apart.

Every minibatch is half antineutrinos, half accidentals, and a function of (seed, step). With close pairs
(:mod:`nuebar.select.near`) the accidentals have the density q instead of p, and the network is asked for its logit
plus nothing but what is known, ln(q/p): so the logit itself remains that of signal against ordinary accidentals, and
efficiencies at backgrounds far below one pair in the training data can be judged.

The loss of a large minibatch is summed over blocks that fit into the processor's cache, with the gradient of each
block at once: the same number, several times as fast.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nuebar.errors import NuebarError
from nuebar.select.classifier import Classifier
from nuebar.select.matrices import ACCIDENTALS, IBD, Matrices, Split, split_of
from nuebar.select.near import NearPairs, Singles, mixed
from nuebar.select.network import NetworkClassifier, new_network
from nuebar.select.recipes import Recipe, optimiser_of
from nuebar.training import Point, StoredBatches, Training, generator, train

__all__ = [
    "BACKGROUNDS",
    "HeldOut",
    "PairBatches",
    "TrainedNetwork",
    "cross_entropy",
    "held_out",
    "metrics_of",
    "train_network",
]

Progress = Callable[[str, int, int], None]

BACKGROUNDS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
"""Shares of the accidental pairs at which efficiencies are told."""

_BLOCK = 64  # rows of a file that stay together
_CACHE_ROWS = 2048  # of a block of the gradient
_SAMPLE = 200_000  # pairs of a class that means and deviations are measured on
_RESERVE = 2**20  # singles that close pairs are made with, new ones in every epoch
_VALIDATED = 200_000  # pairs of a class that are looked at during the training
_STREAMS = {"ibd": 0, "accidentals": 1, "near": 2, "held": 3}


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A trained network and how the training went.

    Attributes:
        network: With the weights of the best validation.
        recipe: Of the training.
        splits: Class → which rows were trained on, validated on, and kept.
        history: One point per validation.
        reason: Why it ended: patience, steps or budget.
        best: The best validation: cross-entropy.
        best_step: Its step.
        steps: Steps done.
        seconds: Time spent, over all resumptions.
        digest: Of the prepared data.
        made_from: What :func:`~nuebar.select.matrices.prepare` noted of the data.
        metrics: Of the validation pairs, see :func:`metrics_of`.
    """

    network: NetworkClassifier
    recipe: Recipe
    splits: Mapping[str, Split]
    history: tuple[Point, ...]
    reason: str
    best: float
    best_step: int
    steps: int
    seconds: float
    digest: str
    made_from: Mapping[str, Any]
    metrics: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Pairs to judge by.

    Attributes:
        ibd: Features, shape ``(n, 10)``.
        accidentals: Features, shape ``(m, 10)``, a share of them close.
        ibd_log_ratio: ln(q/p) of the first.
        log_ratio: ln(q/p) of the second: a pair counts exp(-ln(q/p)).
    """

    ibd: np.ndarray
    accidentals: np.ndarray
    ibd_log_ratio: np.ndarray
    log_ratio: np.ndarray


class PairBatches:
    """Minibatches of both classes, a function of (seed, step).

    Args:
        ibd: Features of antineutrinos, memory-mapped; the rows to train on.
        accidentals: Likewise.
        batch: Pairs of a minibatch, half of each class.
        seed: Of everything random.
        near: How close pairs are made; ``None`` for none.
    """

    def __init__(
        self, ibd: np.ndarray, accidentals: np.ndarray, batch: int, seed: int, near: NearPairs | None = None
    ) -> None:
        half = batch // 2
        block = next(b for b in (_BLOCK, 32, 16, 8, 4, 2, 1) if half % b == 0)
        for name, rows in ((IBD, ibd), (ACCIDENTALS, accidentals)):
            if len(rows) // block * block < half:
                raise NuebarError(
                    f"training: expected at least {half} pairs of the class {name}, half a minibatch, got {len(rows)}; "
                    "take a smaller batch or more pairs"
                )
        self._batches = {
            name: StoredBatches(rows, half, seed * len(_STREAMS) + _STREAMS[name], block=block)
            for name, rows in ((IBD, ibd), (ACCIDENTALS, accidentals))
        }
        self._accidentals, self._half, self._seed, self._near = accidentals, half, seed, near
        self._reserve: tuple[int, Singles | None] = (-1, None)

    @property
    def steps_per_epoch(self) -> int:
        """Minibatches that show the larger class once."""
        return max(b.steps_per_epoch for b in self._batches.values())

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """Features, labels and ln(q/p) of a step's pairs, antineutrinos first; float32."""
        ibd, accidentals = (self._batches[name](step) for name in (IBD, ACCIDENTALS))
        offset = np.zeros(2 * self._half, np.float32)
        if self._near is not None:
            rng = generator(self._seed, _STREAMS["near"], step)
            accidentals, offset[self._half :] = mixed(self._near, accidentals, self._singles(step), rng)
            offset[: self._half] = self._near.log_ratio(ibd)
        label = np.repeat(np.array([1, 0], np.float32), self._half)
        return {"features": np.concatenate([ibd, accidentals]), "label": label, "offset": offset}

    def _singles(self, step: int) -> Singles:
        """The reserve of an epoch: a stretch of the file, from a random place on."""
        epoch = step // self._batches[ACCIDENTALS].steps_per_epoch
        if self._reserve[0] != epoch:
            rows = len(self._accidentals)
            first = int(generator(self._seed, _STREAMS["near"], 0, epoch + 1).integers(rows))
            taken = np.arange(first, first + min(_RESERVE, rows)) % rows
            self._reserve = (epoch, Singles(self._accidentals[np.sort(taken)]))
        assert self._reserve[1] is not None
        return self._reserve[1]


def cross_entropy(network: NetworkClassifier, batch: Mapping[str, Array]) -> Array:
    """Mean of ln(1 + exp(∓ logit)), with what is known of close pairs taken off the logit.

    Args:
        network: What is trained.
        batch: From :class:`PairBatches`.
    """
    weights, rest = eqx.partition(network, trainable(network))
    rows = batch["label"].shape[0]
    block = next(b for b in range(min(_CACHE_ROWS, rows), 0, -1) if rows % b == 0)
    blocks = jax.tree.map(lambda a: a.reshape(rows // block, block, *a.shape[1:]), dict(batch))
    return _summed(weights, (rest, blocks)) / rows


def trainable(network: NetworkClassifier) -> Any:
    """Which leaves are trained: weights and biases."""
    none = jax.tree.map(lambda _: False, network)
    both = jax.tree.map(lambda _: True, (network.weights, network.biases))
    return eqx.tree_at(lambda n: (n.weights, n.biases), none, both)


def _block_sum(weights: Any, rest: Any, batch: Mapping[str, Array]) -> Array:
    z = eqx.combine(weights, rest).logits(batch["features"]) - batch["offset"]
    return jnp.sum(jax.nn.softplus(z) - batch["label"] * z)


@jax.custom_vjp
def _summed(weights: Any, constant: Any) -> Array:
    rest, blocks = constant
    total, _ = jax.lax.scan(lambda t, b: (t + _block_sum(weights, rest, b), None), jnp.zeros((), jnp.float32), blocks)
    return total


def _summed_forward(weights: Any, constant: Any) -> tuple[Array, Any]:
    rest, blocks = constant

    def add(so_far: Any, block: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, so_far, jax.value_and_grad(_block_sum)(weights, rest, block)), None

    start = jnp.zeros((), jnp.float32), jax.tree.map(jnp.zeros_like, weights)
    (total, slope), _ = jax.lax.scan(add, start, blocks)
    return total, slope


def _summed_backward(slope: Any, g: Array) -> tuple[Any, None]:
    return jax.tree.map(lambda s: g * s, slope), None


_summed.defvjp(_summed_forward, _summed_backward)


def held_out(
    matrices: Matrices,
    splits: Mapping[str, Split],
    part: str,
    *,
    near: NearPairs | None = None,
    pairs: int | None = None,
    seed: int = 1,
) -> HeldOut:
    """Pairs that were not trained on.

    Args:
        matrices: Prepared data.
        splits: From :func:`~nuebar.select.matrices.split_of`.
        part: ``validation`` or ``test``.
        near: How close pairs are made; ``None`` for none.
        pairs: Of each class, at most; the first ones.
        seed: Of the close pairs.
    """
    ibd = np.array(matrices.ibd[splits[IBD].rows(part)][:pairs])
    accidentals = matrices.accidentals[splits[ACCIDENTALS].rows(part)]
    kept, log_ratio = np.array(accidentals[:pairs]), np.zeros(len(accidentals[:pairs]))
    if near is not None:
        rng = generator(seed, _STREAMS["held"], ("validation", "test").index(part))
        kept, log_ratio = mixed(near, kept, Singles(accidentals[:_RESERVE]), rng)
    return HeldOut(ibd, kept, near.log_ratio(ibd) if near is not None else np.zeros(len(ibd)), log_ratio)


def metrics_of(classifier: Classifier, data: HeldOut, backgrounds: tuple[float, ...] = BACKGROUNDS) -> dict[str, Any]:
    """How good a classifier is on pairs that it was not trained on.

    Args:
        classifier: Any one.
        data: The pairs.
        backgrounds: Shares of the accidentals that are let through.

    Returns:
        ``cross_entropy`` (with the weights that the pairs were made with), ``efficiency``: background → share of the
        antineutrinos that are kept; ``nothing`` for a background of fewer than ten pairs.
    """
    signal, noise = classifier.score(data.ibd), classifier.score(data.accidentals)
    loss = _loss(signal - data.ibd_log_ratio, noise - data.log_ratio)
    order = np.argsort(-noise, kind="stable")
    passed = np.cumsum(np.exp(-data.log_ratio[order])) / len(order)
    kept: dict[str, float] = {}
    for background in backgrounds:
        n = int(np.searchsorted(passed, background))
        if 10 <= n < len(order):
            kept[f"{background:g}"] = float(np.mean(signal > noise[order[n]]))
    return {"cross_entropy": loss, "efficiency": kept, "pairs": [len(signal), len(noise)]}


def _loss(signal: np.ndarray, noise: np.ndarray) -> float:
    return float(0.5 * np.mean(np.logaddexp(0.0, -signal)) + 0.5 * np.mean(np.logaddexp(0.0, noise)))


def train_network(
    recipe: Recipe,
    matrices: Matrices,
    *,
    splits: Mapping[str, Split] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    log: str | None = None,
    max_seconds: float | None = None,
    max_steps: int | None = None,
    progress: Progress | None = None,
    report: Callable[[int, float], None] | None = None,
) -> TrainedNetwork:
    """Train the network; the same call continues after a kill with the same result.

    Args:
        recipe: How.
        matrices: On what, from :func:`~nuebar.select.matrices.prepare`.
        splits: Class → rows; by default those of :func:`~nuebar.select.matrices.split_of`, whose ``train`` is the
            number to make a training smaller by.
        checkpoint: File to save to and to resume from.
        log: Text file to which a line is added at every validation.
        max_seconds: Budget of time, over all resumptions.
        max_steps: Fewer steps than the recipe says, with its schedule.
        progress: Called as ``progress("training", steps done, steps at most)``.
        report: Called as ``report(number, cross-entropy)`` at every validation, numbered from 1 in each call; it may
            raise to stop.

    Returns:
        The network with the weights of its best validation, and how it got there.

    Raises:
        NuebarError: There are too few pairs, or the loss is no finite number.
    """
    arrays = {IBD: matrices.ibd, ACCIDENTALS: matrices.accidentals}
    splits = dict(splits or {name: split_of(name, len(a)) for name, a in arrays.items()})
    rows = {name: a[splits[name].rows("train")] for name, a in arrays.items()}
    near = None
    if recipe.near:
        near = NearPairs.of(np.array(rows[ACCIDENTALS][:_RESERVE]), matrices.window_us, share=recipe.near)
    batches = PairBatches(rows[IBD], rows[ACCIDENTALS], recipe.batch, recipe.seed, near)
    steps = max(round(recipe.epochs * batches.steps_per_epoch), 1)
    judged = held_out(matrices, splits, "validation", near=near, pairs=_VALIDATED, seed=recipe.seed)
    settings = Training(
        max_steps=min(steps, max_steps or steps),
        batch=recipe.batch,
        seed=recipe.seed,
        validate_every=max(round(min(steps, max_steps or steps) / recipe.validations), 1),
        patience=recipe.patience,
        max_seconds=max_seconds,
        log=log,
    )
    sample = np.concatenate([np.array(a[:_SAMPLE]) for a in rows.values()])
    network = new_network(recipe.seed, sample, hidden=recipe.hidden, inputs=recipe.inputs)
    judge = _Judge(judged, report)
    done = train(
        network,
        cross_entropy,
        batches,
        judge,
        optimiser_of(recipe, steps),
        settings,
        trainable=trainable(network),
        checkpoint=checkpoint,
        identity={
            "recipe": recipe.told(),
            "data": matrices.digest,
            "splits": {name: vars(split) for name, split in splits.items()},
        },
        progress=progress,
    )
    return TrainedNetwork(
        done.model,
        recipe,
        splits,
        done.history,
        done.reason,
        done.best,
        done.best_step,
        done.step,
        done.seconds,
        matrices.digest,
        matrices.about,
        metrics_of(done.model, judged),
    )


@dataclass(eq=False)
class _Judge:
    """Cross-entropy on validation pairs."""

    data: HeldOut
    report: Callable[[int, float], None] | None
    calls: int = 0

    def __call__(self, network: NetworkClassifier) -> float:
        data = self.data
        value = _loss(network.score(data.ibd) - data.ibd_log_ratio, network.score(data.accidentals) - data.log_ratio)
        self.calls += 1
        if self.report is not None:
            self.report(self.calls, value)
        return value
