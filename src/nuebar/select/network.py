"""The published network: ten features of a pair, three hidden layers of ReLU units, one sigmoid output.

Layers of 96, 240 and 240 units and their inputs (82 417 weights) as in A. Gavrikov, A. Serafini et al., "Interpretable
machine learning approach for electron antineutrino selection in a large liquid scintillator detector",
arXiv:2406.12901. What the sigmoid is applied to, the logit, is the score: probabilities of 1 - 1e-12 stay apart.

A fixed map stands between the features and the first layer, so that users give raw features:

- ``linear``: every feature minus its mean, over its standard deviation. The logit of the time difference is a straight
  line, as captures follow an exponential and accidentals are even.
- ``shaped``: ΔR becomes ln(ΔR + 0.1 m) before: what matters is whether it is small, over three decades of volume.

Means and deviations are measured on training pairs, half of each class, and are kept with the weights. Weights and
layers are float32; a score is float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.select.classifier import checked_features
from nuebar.select.features import FEATURES

__all__ = ["BLOCK_ROWS", "HIDDEN", "INPUTS", "WEIGHTS", "NetworkClassifier", "new_network", "skeleton"]

HIDDEN = (96, 240, 240)
"""Units of the published layers."""

WEIGHTS = 82_417
"""Weights and biases of the published network."""

INPUTS = ("linear", "shaped")
"""Maps from features to inputs."""

BLOCK_ROWS = 4096
"""Pairs of one evaluation: what lies between two layers stays in the processor's cache."""

_LARGEST_LAYER, _MOST_LAYERS = 4096, 10
_DR = FEATURES.index("dr_m")
_SOFT_m = 0.1  # the vertex resolution: below it ΔR says nothing more


class NetworkClassifier(eqx.Module):
    """A network that tells antineutrino pairs from accidental ones.

    Attributes:
        weights: Of every layer, float32, shapes ``(in, out)``.
        biases: Of every layer, float32, shapes ``(out,)``.
        shift: Subtracted from the mapped features, float32, shape ``(10,)``; not trained.
        scale: Divides them then, likewise.
        inputs: One of :data:`INPUTS`.
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    shift: Array
    scale: Array
    inputs: str = eqx.field(static=True, default="linear")

    @property
    def name(self) -> str:
        """For tables and figures."""
        return "network"

    @property
    def hidden(self) -> tuple[int, ...]:
        """Units of the hidden layers."""
        return tuple(int(b.shape[0]) for b in self.biases[:-1])

    @property
    def n_weights(self) -> int:
        """Trained numbers."""
        return sum(int(a.size) for a in (*self.weights, *self.biases))

    def logits(self, features: ArrayLike) -> Array:
        """Logits in pure JAX, differentiable in features and weights.

        Args:
            features: Columns of :data:`~nuebar.select.features.FEATURES`, shape ``(..., 10)``.

        Returns:
            float32, shape ``(...)``.
        """
        h = (mapped(jnp.asarray(features, jnp.float32), self.inputs) - self.shift) / self.scale
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = jax.nn.relu(h @ weight + bias)
        return (h @ self.weights[-1] + self.biases[-1])[..., 0]

    def score(self, features: np.ndarray) -> np.ndarray:
        """Logits of pairs: ln odds of an antineutrino against an accidental for classes of equal size.

        Pairs are taken in blocks of one size, so that a pair's bits do not depend on its neighbours.

        Args:
            features: float32, shape ``(n, 10)``.

        Returns:
            float64, shape ``(n,)``.
        """
        x = checked(features)
        out = np.empty(len(x))
        for start in range(0, len(x), BLOCK_ROWS):
            block = x[start : start + BLOCK_ROWS]
            rows = len(block)
            if rows < BLOCK_ROWS:
                block = np.concatenate([block, np.repeat(block[-1:], BLOCK_ROWS - rows, axis=0)])
            out[start : start + rows] = np.asarray(_logits(self, block))[:rows]
        return out


@eqx.filter_jit
def _logits(network: NetworkClassifier, features: ArrayLike) -> Array:
    return network.logits(features)


def mapped(features: Array, inputs: str) -> Array:
    """Features before they are standardised.

    Args:
        features: Shape ``(..., 10)``.
        inputs: One of :data:`INPUTS`.
    """
    if inputs == "linear":
        return features
    return features.at[..., _DR].set(jnp.log(features[..., _DR] + _SOFT_m))


def checked(features: np.ndarray) -> np.ndarray:
    """The same features, if they are a finite float32 matrix of ten columns.

    Raises:
        NuebarError: They are not.
    """
    x = checked_features(features)
    good = np.isfinite(x)
    if not np.all(good):
        row, column = np.argwhere(~good)[0]
        raise NuebarError(
            f"features, row {row}, column {FEATURES[column]!r}: expected a finite number, got {x[row, column]}"
        )
    return x


def new_network(
    seed: int, sample: np.ndarray, *, hidden: Sequence[int] = HIDDEN, inputs: str = "linear"
) -> NetworkClassifier:
    """A network to train: normal weights of variance 2/in (K. He et al., arXiv:1502.01852), biases zero.

    Args:
        seed: Of the weights.
        sample: Training features of both classes, shape ``(n, 10)``: their means and deviations are kept.
        hidden: Units of the hidden layers.
        inputs: One of :data:`INPUTS`.

    Raises:
        NuebarError: A feature is the same in all pairs.
    """
    network = skeleton(hidden, inputs)
    x = np.asarray(mapped(jnp.asarray(checked(sample)), inputs), np.float64)
    scale = x.std(axis=0)
    if not len(x) or not np.all(scale > 0):
        constant = FEATURES[int(np.argmin(scale))] if len(x) else "all of them, as there are no pairs"
        raise NuebarError(f"training features: expected values that differ, got the same everywhere in {constant}")
    rng = np.random.Generator(np.random.Philox(key=seed))
    weights = [
        jnp.asarray(rng.normal(0.0, math.sqrt((2.0 if i < len(hidden) else 1.0) / w.shape[0]), w.shape), jnp.float32)
        for i, w in enumerate(network.weights)
    ]
    return NetworkClassifier(
        tuple(weights),
        network.biases,
        jnp.asarray(x.mean(axis=0), jnp.float32),
        jnp.asarray(scale, jnp.float32),
        inputs,
    )


def skeleton(hidden: Sequence[int] = HIDDEN, inputs: str = "linear") -> NetworkClassifier:
    """A network of zeros, for what was stored.

    Raises:
        NuebarError: There are no layers, too many, or too large ones, or the map is unknown.
    """
    if inputs not in INPUTS:
        raise NuebarError(f"network inputs: expected one of {', '.join(INPUTS)}, got {inputs!r}")
    sizes = tuple(hidden)
    if not 1 <= len(sizes) <= _MOST_LAYERS or any(type(n) is not int or not 1 <= n <= _LARGEST_LAYER for n in sizes):
        raise NuebarError(
            f"network hidden: expected 1 to {_MOST_LAYERS} layers of 1 to {_LARGEST_LAYER} units, got {list(sizes)}"
        )
    ends = (len(FEATURES), *sizes, 1)
    zeros = partial(jnp.zeros, dtype=jnp.float32)
    network = NetworkClassifier(
        tuple(zeros(shape) for shape in pairwise(ends)),
        tuple(zeros(n) for n in ends[1:]),
        zeros(len(FEATURES)),
        jnp.ones(len(FEATURES), jnp.float32),
        inputs,
    )
    assert sizes != HIDDEN or network.n_weights == WEIGHTS
    return network
