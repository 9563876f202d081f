"""Training of the densities: minibatches of simulated calibration data, the loss, and the validation.

The loss is the Kullback-Leibler divergence from the data to the model, but for the entropy of the data, which no weight
changes: the mean of −ln p over bins (TEDE) or events (flows), and over sources and points. Judged is the mean
Cramér-von Mises distance d₂ between the distribution functions, on both validation sets (arXiv:2507.23297).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.io.calibration import CalibrationTable, StoredCharges, load_table, stored_charges
from nuebar.predict.box import Provenance
from nuebar.stats.distances import cdf_distances
from nuebar.training import Point, Training, count_parameters, generator, train
from nuebar.tune.density import Density
from nuebar.tune.planar import PlanarFlow, log_density_of, new_networks
from nuebar.tune.recipes import Recipe, optimiser_of
from nuebar.tune.spline import SplineFlow, Warp, moved, new_network, reference, spline_log_slope, splines
from nuebar.tune.tede import Tede, TedeSettings, new_encoder

__all__ = ["Sets", "TrainedDensity", "distances_of", "load_sets", "probabilities_of", "train_density"]

Progress = Callable[[str, int, int], None]
_VALIDATED = 150  # points of a validation set that are looked at during the training
_BLOCK = 64  # points of one evaluation
_GUESSED = 1024  # points whose reference spectra are made together


@dataclass(frozen=True, eq=False)
class Sets:
    """Data of a training.

    Attributes:
        table: Histograms of the training set.
        charges: Its charges on disk, for flows.
        validation: Histograms of the validation sets.
        digest: Of the training histograms.
    """

    table: CalibrationTable
    charges: StoredCharges | None
    validation: tuple[CalibrationTable, ...]
    digest: str

    @property
    def limits(self) -> tuple[tuple[float, float], ...]:
        """(low, high) of the training grid."""
        p = self.table.parameters
        return tuple((float(a), float(b)) for a, b in zip(p.min(axis=0), p.max(axis=0), strict=True))


@dataclass(frozen=True, eq=False)
class TrainedDensity:
    """A trained density and how the training went.

    Attributes:
        density: With the weights of the best validation.
        recipe: Of the training.
        history: One point per validation.
        reason: Why it ended: patience, steps or budget.
        best: The best validation: mean d₂.
        best_step: Its step.
        steps: Steps done.
        seconds: Time spent, over all resumptions.
        weights: Trained numbers.
        digest: Of the training data.
    """

    density: Density
    recipe: Recipe
    history: tuple[Point, ...]
    reason: str
    best: float
    best_step: int
    steps: int
    seconds: float
    weights: int
    digest: str


def load_sets(
    training: str | os.PathLike[str],
    validation: tuple[str | os.PathLike[str], ...] = (),
    *,
    charges: bool,
    progress: Progress | None = None,
) -> Sets:
    """Read the histograms of the sets and open the charges.

    Args:
        training: Folder of the training set, from ``nuebar simulate calibration``.
        validation: Folders of validation sets; without one the training set is looked at.
        charges: Whether charges are wanted, too.
        progress: Called while reading.

    Returns:
        The sets, their charges mapped and not read.

    Raises:
        NuebarError: A set is missing or of other sources, bins or scale, or its points span no volume.
    """
    table = load_table(training, progress=progress)
    others = tuple(load_table(folder, progress=progress) for folder in validation)
    for folder, other in zip(validation, others, strict=True):
        same = other.edges.shape == table.edges.shape and np.allclose(other.edges, table.edges)
        if other.sources != table.sources or not same or other.pe_to_observable != table.pe_to_observable:
            raise NuebarError(
                f"{folder}: expected the sources {', '.join(table.sources)} and the bins of the training set "
                f"{training}, got {', '.join(other.sources)} in {other.edges.size - 1} bins; use one plan for both"
            )
    low, high = table.parameters.min(axis=0), table.parameters.max(axis=0)
    if not np.all(high > low):
        raise NuebarError(f"{training}: expected points that span kB, fC and light yield, got {low} to {high}")
    if np.any(table.counts[:, :, 1:-1].sum(axis=2) == 0):
        k = int(np.argwhere(table.counts[:, :, 1:-1].sum(axis=2) == 0)[0][0])
        raise NuebarError(
            f"{training}: expected events of every source inside the bins, got none at the point {table.parameters[k]}"
        )
    digest = hashlib.blake2b(np.ascontiguousarray(table.counts).tobytes(), digest_size=16)
    digest.update(np.ascontiguousarray(table.parameters).tobytes())
    return Sets(table, stored_charges(training) if charges else None, others or (table,), digest.hexdigest())


def train_density(
    recipe: Recipe,
    sets: Sets,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    log: str | None = None,
    max_seconds: float | None = None,
    max_steps: int | None = None,
    progress: Progress | None = None,
    report: Callable[[int, float], None] | None = None,
) -> TrainedDensity:
    """Train a density; the same command continues after a kill with the same result.

    Args:
        recipe: How.
        sets: On what.
        checkpoint: File to save to and to resume from.
        log: Text file to which a line is added at every validation.
        max_seconds: Budget of time, over all resumptions.
        max_steps: Fewer steps than the recipe says, with its schedule.
        progress: Called as ``progress("training", steps done, steps at most)``.
        report: Called as ``report(step, validation)`` at every validation; it may raise to stop.

    Returns:
        The density with the weights of its best validation, and how it got there.

    Raises:
        NuebarError: The data have too few points for a batch, or the loss is no finite number.
    """
    with jax.enable_x64(True):
        work = _WORK[recipe.kind](recipe, sets)
        settings = Training(
            max_steps=min(recipe.epochs * work.steps_per_epoch, max_steps or 2**62),
            batch=recipe.batch,
            seed=recipe.seed,
            validate_every=recipe.validate_every,
            patience=recipe.patience,
            max_seconds=max_seconds,
            log=log,
        )
        done = train(
            work.model,
            work.loss,
            work.batches,
            _Judge(work, sets),
            optimiser_of(recipe, work.steps_per_epoch),
            settings,
            trainable=work.trainable,
            checkpoint=checkpoint,
            identity={"recipe": recipe.told(), "data": sets.digest},
            progress=progress,
            report=report,
        )
    return TrainedDensity(
        work.density(done.model),
        recipe,
        done.history,
        done.reason,
        done.best,
        done.best_step,
        done.step,
        done.seconds,
        count_parameters(done.model),
        sets.digest,
    )


class _Judge:
    """Mean d₂ over sources, points and validation sets, each set weighing the same."""

    def __init__(self, work: _Work, sets: Sets) -> None:
        self._work = work
        self._sets = [_some(table, _VALIDATED) for table in sets.validation]

    def __call__(self, model: Any) -> float:
        density = self._work.density(model)
        found = [float(distances_of(_fast(density, table.parameters), table)[1].mean()) for table in self._sets]
        return float(np.mean(found))


def _some(table: CalibrationTable, points: int) -> CalibrationTable:
    """Points spread over a table."""
    rows = np.unique(np.linspace(0, len(table.parameters) - 1, min(points, len(table.parameters))).astype(int))
    return replace(
        table,
        data_set=table.data_set[rows],
        parameters=table.parameters[rows],
        events=table.events[rows],
        counts=table.counts[rows],
    )


def probabilities_of(density: Density, parameters: np.ndarray) -> np.ndarray:
    """Probabilities of the bins at many points, unchecked.

    Args:
        density: The density.
        parameters: Rows of ``RESPONSE``, shape ``(points, 3)``.

    Returns:
        float64, shape ``(points, sources, bins)``.
    """
    with jax.enable_x64(True):
        return _fast(density, parameters)


def _fast(density: Density, parameters: np.ndarray) -> np.ndarray:
    n = len(parameters)
    block = min(_BLOCK, n)
    padded = np.concatenate([parameters, np.repeat(parameters[-1:], -n % block, axis=0)])
    parts = [np.asarray(_probabilities(density, padded[k : k + block])) for k in range(0, len(padded), block)]
    return np.concatenate(parts)[:n]


@eqx.filter_jit
def _probabilities(density: Density, parameters: ArrayLike) -> Array:
    return jnp.exp(jax.vmap(density.log_probabilities)(parameters))


def distances_of(probabilities: np.ndarray, table: CalibrationTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """d₁, d₂ and d∞ between model and data, each of shape ``(points, sources)``.

    Args:
        probabilities: Shape ``(points, sources, bins)``.
        table: The data at the same points.
    """
    counts = table.counts[:, :, 1:-1].astype(float)
    d = cdf_distances(counts / counts.sum(axis=2, keepdims=True), probabilities, table.edges)
    return np.asarray(d.d1), np.asarray(d.d2), np.asarray(d.d_inf)


# ---------------------------------------------------------------- what differs between the densities


@dataclass(frozen=True, eq=False)
class _Work:
    """A training of one kind.

    Attributes:
        recipe: How.
        model: Initial weights.
        loss: Of a model and a batch.
        batches: Of a step.
        steps_per_epoch: Steps that see every point once.
        density: Model → density.
        trainable: Which leaves of the model are trained.
    """

    recipe: Recipe
    model: Any
    loss: Callable[[Any, Any], Array]
    batches: Callable[[int], Any]
    steps_per_epoch: int
    density: Callable[[Any], Density] = field(repr=False)
    trainable: Any = eqx.is_inexact_array


def _common(recipe: Recipe, sets: Sets) -> dict[str, Any]:
    t = sets.table
    return {
        "sources": t.sources,
        "edges_observable": tuple(float(e) for e in t.edges),
        "pe_to_observable": t.pe_to_observable,
        "limits": sets.limits,
        "provenance": Provenance(
            {"training_data": sets.digest, "set": t.name, "points": str(len(t.parameters)), "seed": str(recipe.seed)}
        ),
    }


def _tede(recipe: Recipe, sets: Sets) -> _Work:
    table, common, settings = sets.table, _common(recipe, sets), recipe.settings
    assert isinstance(settings, TedeSettings)
    low, high = np.array(sets.limits).T
    unit = ((table.parameters - low) / (high - low)).astype(np.float32)
    n_sources = len(table.sources)
    counts = table.counts[:, :, 1:-1]
    if counts.max() < 2**16:
        counts = counts.astype(np.uint16)  # half the memory
    rows = len(unit) * n_sources
    _require_rows(rows, recipe.batch, "histograms")
    warp, guess, shifts = None, np.zeros((1, n_sources, 1), np.float32), np.zeros((1, n_sources), np.float32)
    if settings.reference:
        warp = Warp(reference(2.0 * unit - 1, counts, table.edges, settings.reference))
        guess, shifts = _guessed(warp, 2 * unit - 1, table.edges), np.asarray(warp.shift(jnp.asarray(2 * unit - 1)))
    order: list[Any] = [-1, None]

    def batches(step: int) -> Any:
        epoch, k = divmod(step, rows // recipe.batch)
        if order[0] != epoch:
            order[:] = [epoch, generator(recipe.seed, epoch).permutation(rows)]
        point, source = np.divmod(order[1][k * recipe.batch : (k + 1) * recipe.batch], n_sources)
        first = guess[point % len(guess), source], shifts[point % len(shifts), source]
        return unit[point], source, counts[point, source], first, np.uint32(step)

    def loss(model: Any, batch: Any) -> Array:
        at, source, n, (first, shift), step = batch
        key = jax.random.fold_in(jax.random.key(recipe.seed), step) if settings.dropout > 0 else None
        share = n.astype(jnp.float32)
        share = share / share.sum(axis=1, keepdims=True)
        logits = model(at, source, key) / settings.temperature
        if settings.reference:
            logits = moved(logits, shift, table.edges) + first
        log_p = jax.nn.log_softmax(logits, axis=1)
        return -(share * log_p).sum(axis=1).mean()

    model = new_encoder(settings, n_sources, table.edges.size - 1, recipe.seed, warp)
    trainable = jax.tree.map(eqx.is_inexact_array, model)
    if warp is not None:
        trainable = eqx.tree_at(lambda e: e.warp, trainable, jax.tree.map(lambda _: False, model.warp))
    steps = rows // recipe.batch
    return _Work(recipe, model, loss, batches, steps, lambda m: Tede(**common, encoder=m), trainable)


def _guessed(warp: Warp, unit: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Ln of the reference spectra at all points, float32."""
    one = jax.jit(lambda u: warp.log_probabilities(u, edges))
    parts = [np.asarray(one(unit[k : k + _GUESSED])) for k in range(0, len(unit), _GUESSED)]
    return np.concatenate(parts)


def _planar(recipe: Recipe, sets: Sets) -> _Work:
    common, edges = _common(recipe, sets), sets.table.edges
    low, high = np.array(sets.limits).T
    unit = ((sets.table.parameters - low) / (high - low)).astype(np.float32)
    ends = edges.astype(np.float32)

    def loss(model: Any, batch: Any) -> Array:
        at, x = batch
        return _mean_loss(log_density_of(model(at), jnp.clip(x, ends[0], ends[-1]), ends), x, ends)

    model = new_networks(recipe.settings, len(sets.table.sources), recipe.seed)  # type: ignore[arg-type]
    batches = _Events(recipe, sets, unit)
    return _Work(recipe, model, loss, batches, batches.steps_per_epoch, lambda m: PlanarFlow(**common, networks=m))


def _spline(recipe: Recipe, sets: Sets) -> _Work:
    common, edges = _common(recipe, sets), sets.table.edges
    low, high = np.array(sets.limits).T
    unit = (2 * (sets.table.parameters - low) / (high - low) - 1).astype(np.float32)
    ends = edges.astype(np.float32)

    def loss(model: Any, batch: Any) -> Array:
        at, x = batch
        shift, knots, inside = splines(model, at, edges, jnp.float32)
        logs = jnp.log(jnp.clip(x, ends[0], ends[-1]))
        log_p = spline_log_slope(knots, logs - shift[..., None]) - logs - inside[..., None]
        return _mean_loss(log_p, x, ends)

    intervals = recipe.settings.intervals  # type: ignore[union-attr]
    start = reference(unit.astype(float), sets.table.counts[:, :, 1:-1], edges, intervals)
    model = new_network(recipe.settings, start, recipe.seed)  # type: ignore[arg-type]
    batches = _Events(recipe, sets, unit)
    return _Work(recipe, model, loss, batches, batches.steps_per_epoch, lambda m: SplineFlow(**common, network=m))


def _mean_loss(log_p: Array, x: Array, ends: np.ndarray) -> Array:
    """Mean over the events in the range of each source, then over sources and points."""
    inside = (x >= ends[0]) & (x <= ends[-1])
    return -((log_p * inside).sum(axis=-1) / jnp.maximum(inside.sum(axis=-1), 1)).mean()


class _Events:
    """Minibatches of charges: points in random order, of each a stretch of its events from a random place."""

    def __init__(self, recipe: Recipe, sets: Sets, unit: np.ndarray) -> None:
        if sets.charges is None:
            raise NuebarError("a flow is trained on charges: expected a training set with samples, got histograms only")
        self._recipe, self._unit = recipe, unit
        self._factor = np.float32(sets.charges.pe_to_observable)
        self._views: dict[int, np.ndarray] = {}
        for chunk in sets.charges.chunks:
            for row, data_set in enumerate(chunk.data_set):
                self._views.setdefault(int(data_set), chunk.n_pe[:, chunk.offsets[row] : chunk.offsets[row + 1]])
        self._numbers = [int(d) for d in sets.table.data_set]
        _require_rows(len(unit), recipe.batch, "points")
        fewest = min(view.shape[1] for view in self._views.values())
        if fewest < recipe.events:
            raise NuebarError(
                f"expected at least {recipe.events} events of a source at every point, as the recipe takes in a step, "
                f"got {fewest}; lower the recipe's events"
            )
        self.steps_per_epoch = len(unit) // recipe.batch
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, int))

    def __call__(self, step: int) -> Any:
        epoch, k = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, generator(self._recipe.seed, epoch).permutation(len(self._unit)))
        rows = self._order[1][k * self._recipe.batch : (k + 1) * self._recipe.batch]
        places = generator(self._recipe.seed, epoch, k + 1).random(len(rows))
        n = self._recipe.events
        x = []
        for row, place in zip(rows, places, strict=True):
            view = self._views[self._numbers[row]]
            first = int(place * (view.shape[1] - n + 1))
            x.append(view[:, first : first + n])
        return self._unit[rows], np.stack(x) * self._factor


def _require_rows(rows: int, batch: int, what: str) -> None:
    if rows < batch:
        raise NuebarError(f"expected at least {batch} {what} in the training set, a batch, got {rows}; lower the batch")


_WORK: Mapping[str, Callable[[Recipe, Sets], _Work]] = {"tede": _tede, "planar": _planar, "spline": _spline}
