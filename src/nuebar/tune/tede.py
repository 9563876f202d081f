"""TEDE: a transformer encoder that turns response parameters and a source into the histogram of a calibration spectrum.

Every condition (kB, fC, light yield, source) is a token; a regression head reads the tokens and gives one number per
bin; a softmax with a temperature makes them probabilities, and divided by the bin width a density (A. Gavrikov,
A. Serafini, D. Dolzhikov for JUNO, arXiv:2507.23297; encoder: A. Vaswani et al., arXiv:1706.03762). The sizes of the
published table are the defaults.

Beyond the paper, the network may add to the logarithm of a reference spectrum (``reference`` of the settings), so that
it has to learn differences only.

The network is float32, the softmax and what follows are float64: ln L of 50 000 events then scatters by some 0.003, by
0.03 otherwise. Fits take the network in float64, too (:func:`nuebar.tune.density.precise`), which costs little more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.predict.box import Provenance
from nuebar.training import generator
from nuebar.tune.density import response_vector, source_index
from nuebar.tune.spline import Warp, moved, warp_skeleton

__all__ = ["Encoder", "Tede", "TedeSettings", "new_encoder", "skeleton"]

ACTIVATIONS = {"relu": jax.nn.relu, "gelu": jax.nn.gelu}
_NORM = 1e-5  # added to the variance of a layer norm
_LARGEST = 2000


@dataclass(frozen=True, kw_only=True)
class TedeSettings:
    """Sizes of the network; the defaults are those of the published table.

    Attributes:
        tokens: Tokens of each response parameter; the source has one.
        width: Length of a token.
        heads: Attention heads; they divide the width.
        layers: Encoder layers.
        feed_forward: Nodes of the feed-forward part of a layer.
        activation: relu or gelu.
        temperature: Of the softmax.
        dropout: Share of numbers that training leaves out, after attention and feed-forward.
        reference: Intervals of a reference spectrum of every source, moved with its highest peak, to whose ln the
            network adds on a grid that moves likewise; 0 for none, as published.
    """

    tokens: int = 1
    width: int = 100
    heads: int = 10
    layers: int = 4
    feed_forward: int = 384
    activation: str = "gelu"
    temperature: float = 2.03
    dropout: float = 0.0
    reference: int = 0

    def __post_init__(self) -> None:
        """Refuse what no network can be built from."""
        for name in ("tokens", "width", "heads", "layers", "feed_forward"):
            value = getattr(self, name)
            if type(value) is not int or not 0 < value <= _LARGEST:
                raise NuebarError(f"TEDE {name}: expected a whole number from 1 to {_LARGEST}, got {value!r}")
        if self.width % self.heads or self.width < 4:
            raise NuebarError(
                f"TEDE heads: expected a number that divides the width of {self.width} (at least 4), got {self.heads}"
            )
        if self.activation not in ACTIVATIONS:
            raise NuebarError(f"TEDE activation: expected one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
        if not 0.01 <= self.temperature <= 100:
            raise NuebarError(f"TEDE temperature: expected a number from 0.01 to 100, got {self.temperature!r}")
        if type(self.reference) is not int or not (self.reference == 0 or 4 <= self.reference <= _LARGEST):
            raise NuebarError(f"TEDE reference: expected 0, or 4 to {_LARGEST} intervals, got {self.reference!r}")
        if not 0 <= self.dropout < 1:
            raise NuebarError(f"TEDE dropout: expected a number from 0 to below 1, got {self.dropout!r}")


class Dense(eqx.Module):
    """x W + b with W of shape ``(inputs, outputs)``, or ``(parameters, inputs, outputs)`` for one each."""

    weight: Array
    bias: Array

    def __call__(self, x: Array) -> Array:
        """Outputs."""
        return x @ self.weight + self.bias


class Norm(eqx.Module):
    """Layer norm with gain and offset (J. Ba et al., arXiv:1607.06450)."""

    gain: Array
    offset: Array

    def __call__(self, x: Array) -> Array:
        """Normalised over the last axis."""
        x = x - x.mean(axis=-1, keepdims=True)
        return x * jax.lax.rsqrt((x * x).mean(axis=-1, keepdims=True) + _NORM) * self.gain + self.offset


class Layer(eqx.Module):
    """One encoder layer, normalised after each of its halves as in the original transformer."""

    query_key_value: Dense
    out: Dense
    norm_attention: Norm
    up: Dense
    down: Dense
    norm_feed_forward: Norm


class Embedding(eqx.Module):
    """One number of each response parameter → its tokens: three layers, one network per parameter."""

    first: Dense
    norm_first: Norm
    second: Dense
    norm_second: Norm
    third: Dense


class Encoder(eqx.Module):
    """The network of one set of sizes: parameters between 0 and 1 and a source → one number per bin."""

    settings: TedeSettings = eqx.field(static=True)
    embedding: Embedding
    sources: Array
    layers: tuple[Layer, ...]
    head: Dense
    head_norm: Norm
    last: Dense
    warp: Warp | None = None

    def __call__(self, unit: Array, source: Array, key: Array | None = None) -> Array:
        """Logits.

        Args:
            unit: Parameters scaled to 0..1, float32, shape ``(rows, 3)``.
            source: Index of the source, shape ``(rows,)``.
            key: Random key of the dropout, in training.

        Returns:
            float32, shape ``(rows, bins)``, not yet divided by the temperature: of the bins, or with a reference of
            the nodes of :func:`nuebar.tune.spline.moved`.
        """
        s, act = self.settings, ACTIVATIONS[self.settings.activation]
        e = self.embedding
        x = unit[:, :, None] * e.first.weight[:, 0] + e.first.bias
        x = act(e.norm_first(x))
        x = act(e.norm_second(jnp.einsum("bpi,pij->bpj", x, e.second.weight) + e.second.bias))
        x = jnp.einsum("bpi,pij->bpj", x, e.third.weight) + e.third.bias
        tokens = x.reshape(x.shape[0], 3 * s.tokens, s.width)
        x = jnp.concatenate([tokens, self.sources[source][:, None]], axis=1)
        keys = [None] * (2 * s.layers) if key is None or s.dropout == 0 else list(jax.random.split(key, 2 * s.layers))
        for k, layer in enumerate(self.layers):
            x = layer.norm_attention(x + _dropped(_attend(layer, x, s.heads), s.dropout, keys[2 * k]))
            x = layer.norm_feed_forward(x + _dropped(layer.down(act(layer.up(x))), s.dropout, keys[2 * k + 1]))
        x = self.head(x.reshape(x.shape[0], -1))
        return self.last(act(self.head_norm(x)))


def _attend(layer: Layer, x: Array, heads: int) -> Array:
    """Self-attention among a handful of tokens: by broadcasting, which is faster than many tiny products."""
    rows, n, width = x.shape
    q, k, v = jnp.moveaxis(layer.query_key_value(x).reshape(rows, n, 3, heads, width // heads), 2, 0)
    score = (q[:, :, None] * k[:, None]).sum(axis=-1) * (heads / width) ** 0.5
    weight = jax.nn.softmax(score, axis=2)
    mixed = (weight[..., None] * v[:, None]).sum(axis=2)
    return layer.out(mixed.reshape(rows, n, width))


def _dropped(x: Array, rate: float, key: Array | None) -> Array:
    if key is None:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def new_encoder(settings: TedeSettings, n_sources: int, n_bins: int, seed: int, warp: Warp | None = None) -> Encoder:
    """A network with random weights: uniform with variance 1/(3 inputs) (Y. LeCun et al., 1998), unit embeddings.

    Args:
        settings: Sizes.
        n_sources: Number of sources.
        n_bins: Number of bins.
        seed: Of the weights.
        warp: The reference spectra, if the settings want them; the last layer then begins at zero.

    Raises:
        NuebarError: Reference spectra are given and not wanted, or wanted and not given.
    """
    if (warp is None) != (settings.reference == 0):
        raise NuebarError("TEDE reference: expected reference spectra exactly where the settings want them")
    random = generator(seed, 5)

    def uniform(*shape: int) -> Any:
        return (random.uniform(-1, 1, shape) / np.sqrt(shape[-2])).astype(np.float32)

    made = _skeleton(settings, n_sources, n_bins, uniform, lambda *shape: random.normal(size=shape))
    encoder: Encoder = jax.tree.map(jnp.array, eqx.tree_at(lambda e: e.warp, made, warp, is_leaf=lambda x: x is None))
    if warp is not None:
        encoder = eqx.tree_at(lambda e: e.last.weight, encoder, jnp.zeros_like(encoder.last.weight))
    return encoder


def skeleton(settings: TedeSettings, n_sources: int, n_bins: int) -> Encoder:
    """Shapes and types only, without memory.

    Args:
        settings: Sizes.
        n_sources: Number of sources.
        n_bins: Number of bins.
    """
    zero = np.zeros((), np.float32)
    made = _skeleton(
        settings, n_sources, n_bins, lambda *s: np.broadcast_to(zero, s), lambda *s: np.broadcast_to(zero, s)
    )
    if settings.reference == 0:
        return made
    warp = warp_skeleton(settings.reference, n_sources)
    whole: Encoder = eqx.tree_at(lambda e: e.warp, made, warp, is_leaf=lambda x: x is None)
    return whole


def _skeleton(s: TedeSettings, n_sources: int, n_bins: int, weight: Any, normal: Any) -> Encoder:
    def zeros(*shape: int) -> Any:
        return np.broadcast_to(np.zeros((), np.float32), shape)

    def dense(*shape: int) -> Dense:
        return Dense(weight(*shape), zeros(*shape[:-2], shape[-1]))

    def norm(*shape: int) -> Norm:
        ones: Any = np.broadcast_to(np.ones((), np.float32), shape)
        return Norm(ones, zeros(*shape))

    w, hidden = s.width, max(n_bins // 2, 1)
    embedding = Embedding(
        dense(3, 1, w // 4), norm(3, w // 4), dense(3, w // 4, w // 2), norm(3, w // 2), dense(3, w // 2, w * s.tokens)
    )
    layers = tuple(
        Layer(dense(w, 3 * w), dense(w, w), norm(w), dense(w, s.feed_forward), dense(s.feed_forward, w), norm(w))
        for _ in range(s.layers)
    )
    table: Any = np.asarray(normal(n_sources, w), np.float32)
    return Encoder(
        s, embedding, table, layers, dense(w * (3 * s.tokens + 1), hidden), norm(hidden), dense(hidden, n_bins)
    )


class Tede(eqx.Module):
    """A trained TEDE: a density that knows the published bins.

    Attributes:
        sources: Names, in the order of the rows.
        edges_observable: Bins.
        pe_to_observable: Observable per photo-electron.
        limits: (low, high) of kB, fC and the light yield.
        provenance: What it was trained on.
        encoder: The network.
    """

    sources: tuple[str, ...] = eqx.field(static=True)
    edges_observable: tuple[float, ...] = eqx.field(static=True)
    pe_to_observable: float = eqx.field(static=True)
    limits: tuple[tuple[float, float], ...] = eqx.field(static=True)
    provenance: Provenance = eqx.field(static=True)
    encoder: Encoder

    @property
    def name(self) -> str:
        """How it is called on the command line."""
        return "tede"

    @property
    def edges(self) -> np.ndarray:
        """Bins of the observable, shape ``(bins + 1,)``."""
        return np.array(self.edges_observable)

    @property
    def knots(self) -> np.ndarray:
        """None: it knows bins only."""
        return np.empty(0)

    def log_probabilities(self, response: ArrayLike) -> Array:
        """Ln of the probability of every bin, float64, shape ``(sources, bins)``; unchecked."""
        n = len(self.sources)
        low, high = np.array(self.limits).T
        unit = ((jnp.asarray(response, float) - low) / (high - low)).astype(self.encoder.last.weight.dtype)
        logits = self.encoder(jnp.broadcast_to(unit, (n, 3)), jnp.arange(n)).astype(float)
        logits = logits / self.encoder.settings.temperature
        if self.encoder.warp is not None:
            centred = 2 * (jnp.asarray(response, float) - low) / (high - low) - 1
            warp = self.encoder.warp
            logits = moved(logits, warp.shift(centred), self.edges) + warp.log_probabilities(centred, self.edges)
        return jax.nn.log_softmax(logits, axis=1)

    def log_density(self, response: ArrayLike) -> Array:
        """A histogram has no density at points.

        Raises:
            NuebarError: Always.
        """
        raise NuebarError("an unbinned fit needs a density of single events; choose a flow ('spline' or 'planar')")

    def log_prob(self, n_pe: np.ndarray, response: Mapping[str, float], source: str) -> np.ndarray:
        """Ln p per photo-electron: constant within a bin.

        Args:
            n_pe: Charges; outside the bins the result is −inf.
            response: Response parameters by name.
            source: One of the sources.
        """
        log_p = np.log(self._probabilities(response, source) / np.diff(self.edges)) + np.log(self.pe_to_observable)
        x = np.asarray(n_pe, float) * self.pe_to_observable
        k = np.searchsorted(self.edges, x, side="right") - 1
        inside = (k >= 0) & (k < log_p.size)
        return np.where(inside, log_p[np.clip(k, 0, log_p.size - 1)], -np.inf)

    def sample(self, n: int, response: Mapping[str, float], source: str, *, seed: int) -> np.ndarray:
        """Charges in photo-electrons, uniform within a bin.

        Args:
            n: How many.
            response: Response parameters by name.
            source: One of the sources.
            seed: Of the random numbers.
        """
        cdf = np.concatenate([[0.0], np.cumsum(self._probabilities(response, source))])
        return np.interp(generator(seed, 6).random(n) * cdf[-1], cdf, self.edges) / self.pe_to_observable

    def counts(self, edges_pe: np.ndarray, response: Mapping[str, float], source: str, events: float) -> np.ndarray:
        """Expected counts in bins of the charge.

        Args:
            edges_pe: Bins in photo-electrons.
            response: Response parameters by name.
            source: One of the sources.
            events: Events in the whole range of the density.
        """
        cdf = np.concatenate([[0.0], np.cumsum(self._probabilities(response, source))])
        return events * np.diff(np.interp(np.asarray(edges_pe) * self.pe_to_observable, self.edges, cdf))

    def _probabilities(self, response: Mapping[str, float], source: str) -> np.ndarray:
        p = response_vector(response, self.limits, self.name)
        row = source_index(source, self.sources, self.name)
        with jax.enable_x64(True):
            return np.exp(np.asarray(self.log_probabilities(p)[row]))
