"""The published surrogate of the oscillated spectrum: a plain network from four parameters to the bins.

A feed-forward network takes sin²θ12, sin²θ13, Δm²21, Δm²31 and puts out the counts of 400 bins: two hidden layers of
400 nodes with ReLU, mean squared error, RMSprop with a learning rate of 0.02, five million spectra within ±3σ (±5σ in
sin²θ13) of PDG 2022 (Y. Malyshkin for JUNO, "Novel Fitting Approach Based on a Neural Network for JUNO", section 3.2).
It is the baseline that the exact predictors are measured against; :data:`PLAIN` is the best that such a network does
with a better recipe. Neither knows matter or single cores.

The weights and the arithmetic of the layers are float32; scaling to counts is float64.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.io.files import atomic_path
from nuebar.io.models import load_model, save_model
from nuebar.io.results import versions
from nuebar.parameters import OSCILLATION
from nuebar.predict.batch import BatchHarmonic
from nuebar.predict.box import Box, Provenance, check_inside, check_parameters
from nuebar.predict.harmonic import HarmonicPredictor
from nuebar.predict.smooth import with_cached_derivatives
from nuebar.training import (
    StoredBatches,
    Trained,
    Training,
    count_parameters,
    generator,
    named_arrays,
    train,
    with_arrays,
)

__all__ = [
    "ACTIVATIONS",
    "PLAIN",
    "PUBLISHED",
    "PUBLISHED_BOX",
    "PUBLISHED_DECAYING",
    "SMALLER",
    "Architecture",
    "EDGES_MeV",
    "NetworkPredictor",
    "Recipe",
    "accuracy",
    "input_scales",
    "load_network",
    "parameter_sets",
    "save_network",
    "train_network",
]

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}
INPUTS = ("printed", "standardised")
OUTPUTS = ("counts", "standardised", "basis")
UNITS = np.array([1.0, 1e-2, 1e-5, 1e-3])  # of OSCILLATION, as PDG prints them

EDGES_MeV = np.linspace(0.8, 8.8, 401)
"""The 400 bins of 20 keV."""

PUBLISHED_BOX: Box = {
    "sin2_th12": (0.268, 0.346),  # 0.307 ± 3·0.013
    "sin2_th13": (0.0185, 0.0255),  # 0.0220 ± 5·0.0007
    "dm2_21_eV2": (6.99e-5, 8.07e-5),  # (7.53 ± 3·0.18)e-5
    "dm2_31_eV2": (2.4133e-3, 2.6113e-3),  # Δm²32 + Δm²21 = (2.437 + 0.0753 ± 3·0.033)e-3, normal ordering
}
"""PDG 2022 (PTEP 2022, 083C01) ±3σ, and ±5σ in sin²θ13."""

SIGNIFICANT = 0.01  # of the largest bin: smaller ones are left out of relative errors, and floor the scale of others
LARGEST_WIDTH, MOST_LAYERS = 20_000, 20
BLOCK = 8192  # spectra made at once


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a network looks like; everything needed to build its skeleton, together with the bins and the box.

    Attributes:
        hidden: Nodes of the hidden layers.
        activation: One of :data:`ACTIVATIONS`.
        inputs: ``printed``: parameters in the units in which PDG prints them; ``standardised``: zero mean and unit
            variance over the box.
        outputs: ``counts``: in units of their mean over bins and training spectra; ``standardised``: every bin
            relative to its mean and spread; ``basis``: coefficients of the leading singular vectors of the training
            spectra relative to their mean.
        components: Number of singular vectors, for ``basis``.
    """

    hidden: tuple[int, ...] = (400, 400)
    activation: str = "relu"
    inputs: str = "standardised"
    outputs: str = "standardised"
    components: int = 0

    def __post_init__(self) -> None:
        """Refuse what no network can be built from."""
        for name, choices in (("activation", tuple(ACTIVATIONS)), ("inputs", INPUTS), ("outputs", OUTPUTS)):
            if getattr(self, name) not in choices:
                raise NuebarError(f"network {name}: expected one of {', '.join(choices)}, got {getattr(self, name)!r}")
        object.__setattr__(self, "hidden", tuple(self.hidden))
        good = all(type(n) is int and 0 < n <= LARGEST_WIDTH for n in self.hidden)
        if not good or not 0 < len(self.hidden) <= MOST_LAYERS:
            raise NuebarError(
                f"network hidden: expected 1 to {MOST_LAYERS} layers of 1 to {LARGEST_WIDTH} nodes, got {self.hidden}"
            )
        if type(self.components) is not int or (self.outputs == "basis") != (self.components > 0):
            raise NuebarError(
                f"network components: expected a number above 0 for a basis and 0 otherwise, got {self.components!r}"
            )


class Dense(eqx.Module):
    """x W + b with W of shape ``(inputs, outputs)``, float32."""

    weight: Array
    bias: Array


class Network(eqx.Module):
    """Layers with one activation between them, and none after the last."""

    activation: str = eqx.field(static=True)
    layers: tuple[Dense, ...]

    def __call__(self, x: Array) -> Array:
        """Outputs of one row of inputs, float32."""
        for layer in self.layers[:-1]:
            x = ACTIVATIONS[self.activation](x @ layer.weight + layer.bias)
        return x @ self.layers[-1].weight + self.layers[-1].bias


class NetworkPredictor(eqx.Module):
    """A plain network as a predictor in vacuum.

    Attributes:
        edges_MeV: Bins of reconstructed energy, ``bins + 1`` numbers.
        limits: (low, high) of the four parameters between which it was trained.
        architecture: What it looks like.
        provenance: What it was trained on.
        core_names: Empty: cores cannot be told apart.
        network: The layers, float32.
        offset: Counts per bin where the outputs are zero, shape ``(bins,)``.
        scale: Counts per unit of output: shape ``(bins,)``, or ``(components, bins)`` for a basis.
        flat: Counts per bin without oscillations (of the training spectra, not learned).
    """

    edges_MeV: tuple[float, ...] = eqx.field(static=True)
    limits: tuple[tuple[float, float], ...] = eqx.field(static=True)
    architecture: Architecture = eqx.field(static=True)
    provenance: Provenance = eqx.field(static=True)
    network: Network
    offset: Array
    scale: Array
    flat: Array

    @property
    def name(self) -> str:
        """How the predictor is called in results and on the command line."""
        return "network"

    @property
    def core_names(self) -> tuple[str, ...]:
        """Empty: cores cannot be told apart."""
        return ()

    @property
    def edges(self) -> np.ndarray:
        """Bins of reconstructed energy in MeV, shape ``(bins + 1,)``."""
        return np.array(self.edges_MeV)

    @property
    def box(self) -> Box:
        """Limits of all four parameters."""
        return dict(zip(OSCILLATION, self.limits, strict=True))

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """The four oscillation parameters; it knows no matter density."""
        return OSCILLATION

    @property
    def nbytes(self) -> int:
        """Size of weights and scales."""
        return sum(x.nbytes for x in jax.tree.leaves(self))

    @property
    def n_weights(self) -> int:
        """Trained numbers (322,800 as published)."""
        return count_parameters(self.network)

    def predict(self, parameters: Mapping[str, ArrayLike]) -> Array:
        """Expected signal counts per bin.

        Args:
            parameters: The four oscillation parameters by name.

        Returns:
            Counts, shape ``(bins,)``, float64.

        Raises:
            NuebarError: A parameter outside the box, or an unknown one.
        """
        check_parameters(parameters, OSCILLATION, OSCILLATION)
        self.check(parameters)
        return _predict(self, jnp.stack([jnp.asarray(parameters[n], float) for n in OSCILLATION]))

    def channels(self, p: ArrayLike) -> Array:
        """Counts as one row, shape ``(1, bins)``, unchecked.

        Args:
            p: The four numbers of ``OSCILLATION``.
        """
        return _channels(self, p)

    def many(self, parameters: np.ndarray) -> np.ndarray:
        """Counts of many parameter sets, checked.

        Args:
            parameters: Rows of ``OSCILLATION``, float64, shape ``(n, 4)``.

        Returns:
            Counts, float64, shape ``(n, bins)``.

        Raises:
            NuebarError: Parameters are not finite or of another shape.
        """
        rows = np.asarray(parameters, dtype=float)
        if rows.ndim != 2 or rows.shape[1] != len(OSCILLATION) or not np.all(np.isfinite(rows)):
            raise NuebarError(f"expected finite parameters of shape (n, 4), got {rows.shape}")
        self.check(dict(zip(OSCILLATION, rows.T, strict=True)))
        parts = [np.asarray(_many(self, rows[k : k + BLOCK])) for k in range(0, len(rows), BLOCK)]
        return np.concatenate(parts) if parts else np.empty((0, len(self.edges_MeV) - 1))

    def unoscillated(self) -> Array:
        """Counts per bin without oscillations."""
        return self.flat

    def check(self, parameters: Mapping[str, ArrayLike]) -> None:
        """Refuse parameters outside the box (concrete values only)."""
        check_inside(parameters, self.box, "network")


def _counts(predictor: NetworkPredictor, p: Array) -> Array:
    shift, width = input_scales(predictor.architecture, predictor.limits)
    y = predictor.network(((p - shift) / width).astype(jnp.float32)).astype(float)
    return predictor.offset + (y @ predictor.scale if predictor.scale.ndim == 2 else y * predictor.scale)


_predict = jax.jit(_counts)
_many = jax.jit(jax.vmap(_counts, in_axes=(None, 0)))


@with_cached_derivatives
def _channels(predictor: NetworkPredictor, p: Array) -> Array:
    return _counts(predictor, jnp.asarray(p))[None]


def input_scales(architecture: Architecture, limits: tuple[tuple[float, float], ...]) -> tuple[np.ndarray, np.ndarray]:
    """Shift and width of the inputs."""
    if architecture.inputs == "printed":
        return np.zeros(len(UNITS)), UNITS
    low, high = np.array(limits).T
    return 0.5 * (low + high), (high - low) / np.sqrt(12.0)


def _layers(architecture: Architecture, n_outputs: int, weight: Callable[[int, int], Any]) -> Network:
    sizes = (len(OSCILLATION), *architecture.hidden, n_outputs)
    zeros: Any = np.zeros((), np.float32)
    biases: list[Any] = [np.broadcast_to(zeros, n) for n in sizes[1:]]
    layers = [Dense(weight(*n), bias) for n, bias in zip(pairwise(sizes), biases, strict=True)]
    return Network(architecture.activation, tuple(layers))


def _network(architecture: Architecture, n_outputs: int, seed: int) -> Network:
    """Normal weights of variance gain / inputs (K. He et al., arXiv:1502.01852: 2 for ReLU), no bias."""
    random = generator(seed, 3)
    gain = 1.0 if architecture.activation == "tanh" else 2.0

    def weight(n_in: int, n_out: int) -> Any:
        return (random.standard_normal((n_in, n_out)) * np.sqrt(gain / n_in)).astype(np.float32)

    network: Network = jax.tree.map(jnp.array, _layers(architecture, n_outputs, weight))
    return network


def _skeleton(architecture: Architecture, n_outputs: int) -> Network:
    """Shapes and types only: it takes no memory, whatever sizes a file claims."""
    zero = np.zeros((), np.float32)
    return _layers(architecture, n_outputs, lambda n_in, n_out: np.broadcast_to(zero, (n_in, n_out)))


# ---------------------------------------------------------------- on disk


def save_network(
    predictor: NetworkPredictor,
    folder: str | os.PathLike[str],
    *,
    training: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
) -> tuple[Path, Path]:
    """Write a network predictor.

    Args:
        predictor: What to write.
        folder: Output folder, made if missing.
        training: How it was trained, JSON-able.
        metrics: How accurate it is, from :func:`accuracy`.

    Returns:
        The two files.
    """
    description = {
        "kind": "network",
        "architecture": asdict(predictor.architecture),
        "box": {n: list(v) for n, v in predictor.box.items()},
        "provenance": dict(predictor.provenance),
        "training": dict(training or {}),
        "metrics": dict(metrics or {}),
        "versions": versions(),
    }
    scales = {n: np.asarray(getattr(predictor, n)) for n in ("offset", "scale", "flat")}
    arrays = {"edges_MeV": predictor.edges, **scales, **named_arrays(predictor.network, "network.")}
    return save_model(folder, arrays, description)


def load_network(folder: str | os.PathLike[str]) -> NetworkPredictor:
    """Read a network predictor back.

    Args:
        folder: As written by :func:`save_network`.

    Returns:
        The predictor.

    Raises:
        NuebarError: The folder does not hold a network predictor of this format, or its arrays do not fit.
    """
    arrays, d = load_model(folder)
    if d.get("kind") != "network":
        raise NuebarError(f"{folder}: expected a network predictor, got kind {d.get('kind')!r}; use its own loader")
    try:
        told = dict(d["architecture"])
        architecture = Architecture(**{**told, "hidden": tuple(told["hidden"])})
        limits = tuple((float(d["box"][n][0]), float(d["box"][n][1])) for n in OSCILLATION)
        provenance = Provenance({str(k): str(v) for k, v in d["provenance"].items()})
        edges, offset, scale, flat = (arrays.pop(n) for n in ("edges_MeV", "offset", "scale", "flat"))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise NuebarError(
            f"{folder}: the description of the network is incomplete ({type(error).__name__}: {error}); build it again"
        ) from error
    if not all(0 < low < high < np.inf for low, high in limits):
        raise NuebarError(f"{folder}: expected a box of (low, high) above 0, got {limits}; build the network again")
    bins = edges.size - 1
    shapes = ((offset, (bins,)), (scale, (architecture.components or bins,)), (flat, (bins,)))
    for array, shape in (*shapes, (edges, (bins + 1,))):
        wanted = (*shape, bins) if array is scale and architecture.components else shape
        if array.shape != wanted or array.dtype != np.float64 or bins < 1:
            raise NuebarError(f"{folder}: expected float64 of shape {wanted}, got {array.dtype} of {array.shape}")
    skeleton = _skeleton(architecture, architecture.components or bins)
    network = with_arrays(skeleton, arrays, str(folder), "network.")
    if any(not name.startswith("network.") for name in arrays):
        raise NuebarError(f"{folder}: expected the arrays of a network, got {sorted(arrays)}; build it again")
    return NetworkPredictor(
        tuple(float(e) for e in edges), limits, architecture, provenance, network,
        jnp.asarray(offset), jnp.asarray(scale), jnp.asarray(flat),
    )  # fmt: skip


# ---------------------------------------------------------------- recipes


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Attributes:
        name: For records and logs.
        architecture: What is trained.
        training: Steps, batch, seed, patience and budget.
        optimiser: ``rmsprop`` or ``adam``.
        learning_rate: The largest one.
        decay: ``constant``, ``exponential`` or ``cosine`` over the steps of the training.
        last: Learning rate at the end, as a fraction of the largest.
        warm_up: Steps of linear increase at the start.
        n_sets: Parameter sets, for training and validation together.
        train_fraction: Part of them that is trained on; the rest is for validation.
        n_validation: How many of the rest are looked at.
    """

    name: str
    architecture: Architecture
    training: Training
    optimiser: str = "rmsprop"
    learning_rate: float = 0.02
    decay: str = "constant"
    last: float = 1e-4
    warm_up: int = 0
    n_sets: int = 5_000_000
    train_fraction: float = 0.7
    n_validation: int = 16_384

    def __post_init__(self) -> None:
        """Refuse a recipe that cannot be followed."""
        for name, choices in (("optimiser", ("rmsprop", "adam")), ("decay", ("constant", "exponential", "cosine"))):
            if getattr(self, name) not in choices:
                raise NuebarError(f"recipe {name}: expected one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if not 0 < self.learning_rate < np.inf or not 0 < self.last <= 1 or not 0 < self.train_fraction < 1:
            raise NuebarError(
                f"recipe {self.name!r}: expected a learning rate above 0, a last one within (0, 1] of it and a "
                f"training fraction within (0, 1), got {self.learning_rate}, {self.last}, {self.train_fraction}"
            )
        if self.n_train < self.training.batch or self.n_sets <= self.n_train:
            raise NuebarError(
                f"recipe {self.name!r}: expected more parameter sets than {self.n_sets}: a batch of "
                f"{self.training.batch} to train on, and at least one to validate; raise n_sets"
            )

    @property
    def n_train(self) -> int:
        """Parameter sets that are trained on: whole batches."""
        return int(self.n_sets * self.train_fraction) // self.training.batch * self.training.batch

    def schedule(self) -> optax.Schedule:
        """Learning rate as a function of the step."""
        steps = max(self.training.max_steps - self.warm_up, 1)
        if self.decay == "constant":
            after: optax.Schedule = optax.constant_schedule(self.learning_rate)
        elif self.decay == "exponential":
            after = optax.exponential_decay(self.learning_rate, steps, self.last)
        else:
            after = optax.cosine_decay_schedule(self.learning_rate, steps, self.last)
        if not self.warm_up:
            return after
        return optax.join_schedules(
            [optax.linear_schedule(0.0, self.learning_rate, self.warm_up), after], [self.warm_up]
        )

    def gradient_transformation(self) -> optax.GradientTransformation:
        """The optimiser; RMSprop with the forgetting 0.9 and the epsilon 1e-7 of Keras."""
        rate = self.schedule()
        return optax.rmsprop(rate, decay=0.9, eps=1e-7) if self.optimiser == "rmsprop" else optax.adam(rate)

    def identity(self) -> dict[str, Any]:
        """What the result depends on, JSON-able."""
        return {**asdict(self), "training": self.training.identity()}


PUBLISHED = Recipe(
    name="published",
    architecture=Architecture(),
    training=Training(max_steps=100_000, batch=1024, validate_every=1000),
)
"""As published: ReLU, RMSprop at a constant 0.02. Batch, length and normalisation are not stated there and are ours:
with inputs as printed and counts scaled to about 1, it ends at the mean spectrum whatever the parameters. The
standardisation is affine and could be absorbed by the first and the last layer: the network is the published one."""

PUBLISHED_DECAYING = replace(PUBLISHED, name="published-decaying", decay="cosine", last=1e-4)
"""The same with a learning rate that falls: at a constant 0.02 the weights never come to rest."""

PLAIN = Recipe(
    name="plain",
    architecture=Architecture(activation="gelu", outputs="basis", components=24),
    training=Training(max_steps=100_000, batch=1024, validate_every=1000),
    optimiser="adam",
    learning_rate=5e-3,
    decay="cosine",
    last=1e-4,
    warm_up=1000,
)
"""The best that a plain network does: smooth activation, standardised inputs, reduced basis, Adam, cosine decay."""

SMALLER = {
    f"2x{n}": replace(
        PUBLISHED_DECAYING, name=f"published-2x{n}", architecture=replace(PUBLISHED.architecture, hidden=(n, n))
    )
    for n in (100, 200)
}
"""More compact networks with the published recipe."""


# ---------------------------------------------------------------- training


def parameter_sets(box: Box, seed: int, first: int, n: int) -> np.ndarray:
    """Uniform parameter sets number ``first`` to ``first + n - 1`` of an endless list that the seed defines.

    Args:
        box: Limits of the four oscillation parameters.
        seed: Of the list.
        first: Number of the first set.
        n: How many.

    Returns:
        Rows of ``OSCILLATION``, float64, shape ``(n, 4)``: the same set whatever the cut into blocks.
    """
    low, high = np.array([box[name] for name in OSCILLATION]).T
    # One tick of the counter yields four numbers: those of one set.
    random = np.random.Generator(np.random.Philox(key=seed, counter=[first, 0, 0, 1]))
    rows: np.ndarray = low + (high - low) * random.random((n, len(OSCILLATION)))
    return rows


def train_network(
    harmonic: HarmonicPredictor,
    recipe: Recipe = PUBLISHED,
    *,
    box: Box = PUBLISHED_BOX,
    edges_MeV: np.ndarray = EDGES_MeV,
    stored: str | os.PathLike[str] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[NetworkPredictor, Trained[Network], dict[str, Any]]:
    """Train a network on spectra of a harmonic predictor.

    Args:
        harmonic: In vacuum (``matter=False``), with windows that cover the box; a tolerance of 1e-8 is enough.
        recipe: What is trained and how.
        box: Limits of the parameters.
        edges_MeV: Bins of the network; consecutive bins of the predictor.
        stored: A ``.npy`` file to keep the spectra in (4 bytes a bin), made if missing; by default they are made on
            the fly.
        checkpoint: File to save to and to resume from.
        progress: Called as ``progress(what, done, total)``.

    Returns:
        The predictor, the record of the loop, and what :func:`save_network` takes as ``training``.
    """
    started = recipe.training
    spectra = _Spectra(harmonic, recipe, box, edges_MeV)
    offset, scale, encode, weight = _outputs(spectra)
    data_hash = spectra.fingerprint()
    identity = {"recipe": recipe.identity(), "training_data": data_hash}
    if stored is None:
        batches: Callable[[int], Any] = _Generated(spectra, encode)
    else:
        batches = _stored(spectra, Path(stored), encode, data_hash, progress)
    x, s = spectra(recipe.n_train, min(recipe.n_validation, recipe.n_sets - recipe.n_train))
    validate = _validation(x, encode(s), weight)
    network = _network(recipe.architecture, len(encode(s[:1])[0]), started.seed)
    trained = train(
        network, partial(_loss, weight), batches, validate, recipe.gradient_transformation(), started,
        checkpoint=checkpoint, identity=identity, progress=progress,
    )  # fmt: skip
    provenance = {**harmonic.provenance, "predictor": "network", "recipe": recipe.name, "training_data": data_hash}
    predictor = NetworkPredictor(
        edges_MeV=tuple(float(e) for e in edges_MeV),
        limits=spectra.limits,
        architecture=recipe.architecture,
        provenance=Provenance(provenance),
        network=trained.model,
        offset=jnp.asarray(offset),
        scale=jnp.asarray(scale),
        flat=jnp.asarray(np.asarray(harmonic.unoscillated())[spectra.bins]),
    )
    return predictor, trained, {**identity, **_record(trained)}


def accuracy(
    predictor: NetworkPredictor, harmonic: HarmonicPredictor, *, n: int = 20_000, seed: int = 1
) -> dict[str, float]:
    """Errors of a network against the predictor whose spectra it learned, at parameters that it has not seen.

    Args:
        predictor: The network.
        harmonic: In vacuum.
        n: Parameter sets, uniform in the box.
        seed: Of the sets; another one than that of the training.

    Returns:
        Quantiles of |network / truth - 1| over sets and bins above 1 % of the largest (``relative_median``,
        ``relative_90``, ``relative_99.9``, ``relative_largest``), the part within 0.1 % (``within_0.1_percent``), and
        quantiles of Σ (network - truth)² / truth over the bins (``chi2_median``, ``chi2_99``).
    """
    exact = BatchHarmonic(harmonic, _slice(harmonic.edges, predictor.edges))
    relative, chi2 = [], []
    for first in range(0, n, BLOCK):
        p = parameter_sets(predictor.box, seed + 2**32, first, min(BLOCK, n - first))
        truth, got = exact(p).astype(float), predictor.many(p)
        significant = truth.mean(axis=0) > SIGNIFICANT * truth.mean(axis=0).max()
        relative.append(np.abs(got[:, significant] / truth[:, significant] - 1.0))
        chi2.append(np.sum((got - truth)[:, significant] ** 2 / truth[:, significant], axis=1))
    r, c = np.concatenate(relative), np.concatenate(chi2)
    median, most, rare = np.quantile(r, (0.5, 0.9, 0.999))
    return {
        "relative_median": float(median),
        "relative_90": float(most),
        "relative_99.9": float(rare),
        "relative_largest": float(r.max()),
        "within_0.1_percent": float(np.mean(r < 1e-3)),
        "chi2_median": float(np.median(c)),
        "chi2_99": float(np.quantile(c, 0.99)),
    }


class _Spectra:
    """The numbered training spectra: parameters from the seed, counts from the harmonic predictor."""

    def __init__(self, harmonic: HarmonicPredictor, recipe: Recipe, box: Box, edges_MeV: np.ndarray) -> None:
        if set(box) != set(OSCILLATION) or not all(0 < low < high for low, high in box.values()):
            raise NuebarError(f"network box: expected (low, high) above 0 of {', '.join(OSCILLATION)}, got {dict(box)}")
        self.harmonic, self.recipe, self.box = harmonic, recipe, dict(box)
        self.bins = _slice(harmonic.edges, np.asarray(edges_MeV))
        self.batch = BatchHarmonic(harmonic, self.bins)
        self.limits = tuple((float(box[n][0]), float(box[n][1])) for n in OSCILLATION)
        self.shift, self.width = input_scales(recipe.architecture, self.limits)

    def __call__(self, first: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and counts of the sets, float32."""
        p = parameter_sets(self.box, self.recipe.training.seed, first, n)
        return ((p - self.shift) / self.width).astype(np.float32), self.batch(p)

    def fingerprint(self) -> str:
        """Of everything that the spectra depend on."""
        digest = hashlib.blake2b(digest_size=16)
        for leaf in jax.tree.leaves(self.harmonic.total):
            digest.update(np.ascontiguousarray(leaf).tobytes())
        r = self.recipe
        told = [self.limits, self.bins.start, self.bins.stop, r.training.seed, r.n_sets, r.architecture.inputs]
        digest.update(json.dumps(told).encode())
        return digest.hexdigest()


class _Generated:
    """Minibatches made on the fly: blocks of consecutive sets, in an order that is a function of (seed, epoch)."""

    def __init__(self, spectra: _Spectra, encode: Callable[[np.ndarray], np.ndarray]) -> None:
        self._spectra, self._encode = spectra, encode
        self._batch, self._seed = spectra.recipe.training.batch, spectra.recipe.training.seed
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, int))
        steps = spectra.recipe.n_train // self._batch
        # Batches that are made at once: as many as a block holds, but a whole number of times in an epoch.
        self._each = next(k for k in range(max(1, BLOCK // self._batch), 0, -1) if k <= steps)
        self._blocks = max(1, steps // self._each)
        self._made: tuple[int, Any] = (-1, None)

    def __call__(self, step: int) -> Any:
        number, k = divmod(step, self._each)
        if self._made[0] != number:
            epoch, position = divmod(number, self._blocks)
            if self._order[0] != epoch:
                self._order = (epoch, generator(self._seed, epoch, 1).permutation(self._blocks))
            rows = self._each * self._batch
            x, s = self._spectra(int(self._order[1][position]) * rows, rows)
            self._made = (number, (x, self._encode(s)))
        part = slice(k * self._batch, (k + 1) * self._batch)
        return tuple(a[part] for a in self._made[1])


def _stored(
    spectra: _Spectra,
    path: Path,
    encode: Callable[[np.ndarray], np.ndarray],
    data_hash: str,
    progress: Callable[[str, int, int], None] | None,
) -> Callable[[int], Any]:
    """Minibatches from a file with one row per spectrum: the counts, then the inputs."""
    n, bins = spectra.recipe.n_train, spectra.bins.stop - spectra.bins.start
    path = path.with_name(f"{path.stem}-{data_hash}.npy")  # the content in the name: never another training's spectra
    if not path.exists():
        with atomic_path(path) as temporary:
            rows = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=(n, bins + len(OSCILLATION)))
            for first in range(0, n, BLOCK):
                part = slice(first, min(first + BLOCK, n))
                rows[part, bins:], rows[part, :bins] = spectra(first, part.stop - first)
                if progress is not None:
                    progress("spectra", part.stop, n)
            rows.flush()
            del rows
    try:
        table = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise NuebarError(f"{path}: no file of stored spectra, or truncated ({error}); remove it") from error
    if table.shape != (n, bins + len(OSCILLATION)) or table.dtype != np.float32:
        raise NuebarError(
            f"{path}: expected float32 of shape {(n, bins + 4)}, got {table.dtype} of {table.shape}; remove it"
        )
    settings = spectra.recipe.training
    rows_of = StoredBatches(table, settings.batch, settings.seed, block=settings.batch)

    def batch(step: int) -> Any:
        rows = rows_of(step)
        return rows[:, bins:], encode(rows[:, :bins])

    return batch


def _outputs(spectra: _Spectra) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], np.ndarray], np.ndarray]:
    """Offset and scale of the counts, the way from counts to targets, and the weights of the squared errors."""
    architecture = spectra.recipe.architecture
    bins = spectra.bins.stop - spectra.bins.start
    sample = spectra(0, min(2 * BLOCK, spectra.recipe.n_train))[1].astype(float)
    mean = sample.mean(axis=0)
    if architecture.outputs == "counts":
        unit = np.float32(mean.mean())
        return np.zeros(bins), np.full(bins, float(unit)), lambda s: s / unit, np.ones((), np.float32)
    floor = np.maximum(mean, SIGNIFICANT * mean.max())
    offset = mean.astype(np.float32)
    if architecture.outputs == "standardised":
        scale = np.maximum(sample.std(axis=0), 1e-3 * floor)
        scale32 = scale.astype(np.float32)
        return mean, scale, lambda s: (s - offset) / scale32, np.ones((), np.float32)
    k = architecture.components
    if k > bins:
        raise NuebarError(f"network components: expected at most the {bins} bins, got {k}; lower them")
    relative = (sample - mean) / floor
    squared, vectors = np.linalg.eigh(relative.T @ relative / len(sample))  # seconds faster than the SVD of the sample
    spread, rows = np.sqrt(np.maximum(squared[::-1][:k], 1e-16 * squared[-1])), vectors[:, ::-1][:, :k].T
    # Between the coefficients themselves, whose small ones are lost in float32, and unit variance for all.
    unit_k = np.sqrt(spread * spread[0])
    scale = unit_k[:, None] * rows * floor
    project = ((rows / floor).T / unit_k).astype(np.float32)
    return mean, scale, lambda s: (s - offset) @ project, (spread / spread[0]).astype(np.float32)


def _loss(weight: np.ndarray, network: Network, batch: tuple[Array, Array]) -> Array:
    """Mean squared error of the outputs."""
    x, y = batch
    difference = jax.vmap(network)(x) - y
    squared = jnp.mean(difference * difference, axis=0)
    return jnp.mean(squared * weight)


def _validation(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Callable[[Network], float]:
    loss = eqx.filter_jit(partial(_loss, weight))
    parts = [(jnp.asarray(x[k : k + 2048]), jnp.asarray(y[k : k + 2048])) for k in range(0, len(x), 2048)]
    sizes = np.array([len(p[0]) for p in parts])

    def validate(network: Network) -> float:
        return float(np.average([float(loss(network, part)) for part in parts], weights=sizes))

    return validate


def _slice(edges: np.ndarray, wanted: np.ndarray) -> slice:
    """Where the wanted bins are among the bins of a predictor."""
    first = int(np.argmin(np.abs(edges - wanted[0])))
    part = edges[first : first + wanted.size]
    if part.size != wanted.size or not np.allclose(part, wanted, rtol=0.0, atol=1e-6):
        raise NuebarError(
            f"network bins: expected consecutive bins of the predictor ({edges[0]:g} to {edges[-1]:g} MeV), got "
            f"{wanted.size - 1} bins from {wanted[0]:g} to {wanted[-1]:g} MeV; choose edges that it has"
        )
    return slice(first, first + wanted.size - 1)


def _record(trained: Trained[Network]) -> dict[str, Any]:
    return {
        "reason": trained.reason,
        "steps": trained.step,
        "best_step": trained.best_step,
        "validation": trained.best,
        "seconds": trained.seconds,
        "history": [[p.step, p.loss, p.validation] for p in trained.history],
        "processors": os.cpu_count(),
        "optax": optax.__version__,
        "equinox": eqx.__version__,
    }
