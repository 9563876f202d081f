"""NFDE: planar flows as a density of calibration spectra, conditional on response and source.

A chain of 120 maps x → x + u tanh(w x + b) turns the observable into a standard normal number; (u, w, b) of every map
come from a network of its own, with the response parameters and an embedding of the source as inputs (A. Gavrikov,
A. Serafini, D. Dolzhikov for JUNO, arXiv:2507.23297; planar flows: D. Rezende and S. Mohamed, arXiv:1505.05770). The
sizes of the published table are the defaults. u and w are hyperbolic tangents, so |u w| < 1, every map rises, and
the whole chain has an inverse.

The density of an event is exact: ln p(x) = ln N(z) + Σ ln(1 + u w (1 − tanh²)). The probability of a bin is the
difference of the normal distribution function at its mapped edges. What lies outside the range of the observable is
left out and the rest normalised. Networks are float32, and float64 from (u, w, b) on where a fit uses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax import Array
from jax.scipy.special import log_ndtr, ndtri
from jax.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.predict.box import Provenance
from nuebar.training import generator
from nuebar.tune.density import response_vector, source_index
from nuebar.tune.events import EvenTable, hermite
from nuebar.tune.spline import knots_of

__all__ = ["Chain", "PlanarFlow", "PlanarNetworks", "PlanarSettings", "chain", "invert", "new_networks"]

ACTIVATIONS = {"relu": jax.nn.relu, "gelu": jax.nn.gelu, "tanh": jnp.tanh, "silu": jax.nn.silu}
_LARGEST = 2000
_FLOOR = 1e-13  # probability spread evenly over the range: ln p stays finite where no event was ever seen
_BLOCK = 10  # maps between which the backward pass keeps nothing
_LOG_2PI = float(np.log(2 * np.pi))
_NEWTON = 12  # steps of the inverse; each at least halves where Newton's would leave the bracket
_TABLE = 4097  # knots of the inverse
_MANY = 4000  # events from which ln p is interpolated


@dataclass(frozen=True, kw_only=True)
class PlanarSettings:
    """Sizes of the chain; the defaults are those of the published table.

    Attributes:
        flows: Maps of the chain.
        units: Nodes of the layers of every map's network.
        activation: relu, gelu, tanh or silu.
    """

    flows: int = 120
    units: int = 30
    activation: str = "gelu"

    def __post_init__(self) -> None:
        """Refuse what no chain can be built from."""
        for name in ("flows", "units"):
            value = getattr(self, name)
            if type(value) is not int or not 0 < value <= _LARGEST:
                raise NuebarError(f"planar flow {name}: expected a whole number from 1 to {_LARGEST}, got {value!r}")
        if self.activation not in ACTIVATIONS:
            raise NuebarError(
                f"planar flow activation: expected one of {', '.join(ACTIVATIONS)}, got {self.activation!r}"
            )


class Dense(eqx.Module):
    """One layer of every map's network: weights ``(flows, inputs, outputs)``, biases ``(flows, outputs)``."""

    weight: Array
    bias: Array


class Chain(NamedTuple):
    """Numbers of all maps, each of shape ``(flows, ...)``, the first map first."""

    u: Array
    w: Array
    b: Array


class PlanarNetworks(eqx.Module):
    """The networks of all maps: three layers for the parameters, three for parameters and source together.

    Attributes:
        settings: Sizes.
        sources: Embeddings, shape ``(flows, sources, units)``.
        parameter_layers: Of the response parameters.
        layers: Of both together.
    """

    settings: PlanarSettings = eqx.field(static=True)
    sources: Array
    parameter_layers: tuple[Dense, ...]
    layers: tuple[Dense, ...]

    def __call__(self, unit: Array) -> Chain:
        """Numbers of the maps for every source.

        Args:
            unit: Parameters scaled to 0..1, float32, shape ``(rows, 3)``.

        Returns:
            Each of shape ``(flows, rows, sources)``.
        """
        act = ACTIVATIONS[self.settings.activation]
        first, second, third = self.parameter_layers
        x = act(jnp.einsum("ri,fij->frj", unit, first.weight) + first.bias[:, None])
        x = act(jnp.einsum("fri,fij->frj", x, second.weight) + second.bias[:, None])
        x = jnp.einsum("fri,fij->frj", x, third.weight) + third.bias[:, None]
        flows, rows, units = x.shape
        n = self.sources.shape[1]
        one = jnp.broadcast_to(x[:, :, None], (flows, rows, n, units))
        other = jnp.broadcast_to(self.sources[:, None], (flows, rows, n, units))
        x = jnp.concatenate([one, other], axis=-1).reshape(flows, rows * n, 2 * units)
        for k, layer in enumerate(self.layers):
            x = jnp.einsum("fri,fij->frj", x, layer.weight) + layer.bias[:, None]
            x = act(x) if k < len(self.layers) - 1 else x
        x = x.reshape(flows, rows, n, 3)
        return Chain(jnp.tanh(x[..., 1]), jnp.tanh(x[..., 0]), x[..., 2])


def chain(maps: Chain, x: Array) -> tuple[Array, Array]:
    """Follow values through the chain.

    Args:
        maps: Each of shape ``(flows, ...)``.
        x: Values, shape ``(..., values)``.

    Returns:
        Where they end, and ln of the derivative there, both of the shape of ``x``.
    """
    flows = maps.u.shape[0]
    block = _BLOCK if flows % _BLOCK == 0 else 1

    @jax.checkpoint
    def some(carry: tuple[Array, Array], few: Chain) -> tuple[tuple[Array, Array], None]:
        z, log = carry
        for k in range(block):
            h = jnp.tanh(few.w[k][..., None] * z + few.b[k][..., None])
            u = few.u[k][..., None]
            z, log = z + u * h, log + jnp.log1p(u * few.w[k][..., None] * (1 - h * h))
        return (z, log), None

    blocks = Chain(*(a.reshape(flows // block, block, *a.shape[1:]) for a in maps))
    (z, log), _ = jax.lax.scan(some, (x, jnp.zeros_like(x)), blocks)
    return z, log


def invert(maps: Chain, z: ArrayLike, low: ArrayLike, high: ArrayLike) -> Array:
    """The values that the chain takes to ``z``: a table brackets them, Newton's method inside the bracket ends it.

    Args:
        maps: Each of shape ``(flows,)``.
        z: Shape ``(values,)``.
        low: Lowest value that can be the answer.
        high: Highest.
    """
    z = jnp.asarray(z)
    grid = jnp.linspace(low, high, _TABLE)
    k = jnp.clip(jnp.searchsorted(chain(maps, grid)[0], z), 1, _TABLE - 1)
    left, right = grid[k - 1], grid[k]

    def refine(_: int, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, left, right = state
        at, log = chain(maps, x)
        left, right = jnp.where(at < z, x, left), jnp.where(at < z, right, x)
        new = x - (at - z) * jnp.exp(-log)
        slack = 1e-3 * (right - left)  # an answer at an end of the bracket is missed by a rounding
        good = (new >= left - slack) & (new <= right + slack)
        return jnp.where(good, jnp.clip(new, left, right), 0.5 * (left + right)), left, right

    x: Array = jax.lax.fori_loop(0, _NEWTON, refine, (0.5 * (left + right), left, right))[0]
    return x


def log_between(low: Array, high: Array) -> Array:
    """Ln of the normal probability between two numbers, without cancellation in either tail."""
    flip = low + high > 0
    a, b = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
    big, small = log_ndtr(b), log_ndtr(a)
    return big + jnp.log(-jnp.expm1(jnp.minimum(small - big, -1e-300)))


class PlanarFlow(eqx.Module):
    """A trained chain of planar flows: a density of single events.

    Attributes:
        sources: Names, in the order of the rows.
        edges_observable: Bins.
        pe_to_observable: Observable per photo-electron.
        limits: (low, high) of kB, fC and the light yield.
        provenance: What it was trained on.
        networks: Of the maps.
    """

    sources: tuple[str, ...] = eqx.field(static=True)
    edges_observable: tuple[float, ...] = eqx.field(static=True)
    pe_to_observable: float = eqx.field(static=True)
    limits: tuple[tuple[float, float], ...] = eqx.field(static=True)
    provenance: Provenance = eqx.field(static=True)
    networks: PlanarNetworks

    @property
    def name(self) -> str:
        """How it is called on the command line."""
        return "planar"

    @property
    def edges(self) -> np.ndarray:
        """Bins of the observable, shape ``(bins + 1,)``."""
        return np.array(self.edges_observable)

    @property
    def knots(self) -> np.ndarray:
        """Where :meth:`log_density` is given: even in the root of the observable, as the widths of peaks are."""
        return knots_of(self.edges)

    def maps(self, response: ArrayLike) -> Chain:
        """Numbers of the maps, float64, each of shape ``(flows, sources)``."""
        low, high = np.array(self.limits).T
        unit = ((jnp.asarray(response, float) - low) / (high - low)).astype(self.networks.sources.dtype)
        return Chain(*(a[:, 0].astype(float) for a in self.networks(unit[None])))

    def log_probabilities(self, response: ArrayLike) -> Array:
        """Ln of the probability of every bin, float64, shape ``(sources, bins)``; unchecked."""
        edges = self.edges
        z, _ = chain(self.maps(response), jnp.broadcast_to(edges, (len(self.sources), edges.size)))
        inside = log_between(z[:, 0], z[:, -1])[:, None]
        log_p = log_between(z[:, :-1], z[:, 1:]) - inside
        return jnp.logaddexp(log_p, np.log(_FLOOR * np.diff(edges) / (edges[-1] - edges[0])))

    def log_density(self, response: ArrayLike) -> Array:
        """Ln p per unit of the observable at the knots, float64, shape ``(sources, knots)``; unchecked."""
        return self.at(response, jnp.broadcast_to(self.knots, (len(self.sources), self.knots.size)))

    def at(self, response: ArrayLike, x: ArrayLike) -> Array:
        """Ln p per unit of the observable.

        Args:
            response: The three numbers of ``RESPONSE``.
            x: Values of the observable inside the range, shape ``(sources, values)``.
        """
        return log_density_of(self.maps(response), jnp.asarray(x, float), self.edges)

    def log_prob(self, n_pe: np.ndarray, response: Mapping[str, float], source: str) -> np.ndarray:
        """Ln p per photo-electron; exact for a few events, interpolated between :attr:`knots` for thousands.

        Args:
            n_pe: Charges; outside the range the result is −inf.
            response: Response parameters by name.
            source: One of the sources.
        """
        x = np.asarray(n_pe, float) * self.pe_to_observable
        one, edges = self._of(response, source), self.edges
        inside = (x >= edges[0]) & (x <= edges[-1])
        many = x.size > _MANY
        at = self.knots if many else np.where(inside, x, edges[0]).ravel()
        log_p = _log_prob(one, at, edges)
        if many:  # the chain at the knots costs as much as at so many events
            low, high = np.sqrt(edges[0]), np.sqrt(edges[-1])
            log_p = EvenTable(low, high, log_p).at(np.sqrt(np.where(inside, x, edges[0]).ravel()))
        return np.where(inside, log_p.reshape(x.shape) + np.log(self.pe_to_observable), -np.inf)

    def sample(self, n: int, response: Mapping[str, float], source: str, *, seed: int) -> np.ndarray:
        """Charges in photo-electrons: normal numbers taken back through the chain.

        The inverse is tabulated on even probabilities and in the tails, and interpolated with its derivatives.

        Args:
            n: How many.
            response: Response parameters by name.
            source: One of the sources.
            seed: Of the random numbers.
        """
        one = self._of(response, source)
        with jax.enable_x64(True):
            x, z, slope = (np.asarray(a) for a in _inverse_table(one, jnp.asarray(self.edges)))
            ends = np.asarray(jax.scipy.stats.norm.cdf(jnp.asarray(z[[0, -1]])))
            u = ends[0] + (ends[1] - ends[0]) * generator(seed, 6).random(n)
            wanted = np.asarray(ndtri(jnp.asarray(u)))
        keep = np.concatenate([[True], np.diff(z) > 1e-12])
        return hermite(wanted, z[keep], x[keep], slope[keep]) / self.pe_to_observable

    def counts(self, edges_pe: np.ndarray, response: Mapping[str, float], source: str, events: float) -> np.ndarray:
        """Expected counts in bins of the charge.

        Args:
            edges_pe: Bins in photo-electrons.
            response: Response parameters by name.
            source: One of the sources.
            events: Events in the whole range of the density.
        """
        one, edges = self._of(response, source), self.edges
        x = np.clip(np.asarray(edges_pe, float) * self.pe_to_observable, edges[0], edges[-1])
        with jax.enable_x64(True):
            z, _ = chain(one, jnp.concatenate([jnp.asarray(edges[[0, -1]]), jnp.asarray(x)]))
            value = np.asarray(jax.scipy.stats.norm.cdf(z))
        return events * np.diff(value[2:]) / (value[1] - value[0])

    def _of(self, response: Mapping[str, float], source: str) -> Chain:
        p = response_vector(response, self.limits, self.name)
        row = source_index(source, self.sources, self.name)
        with jax.enable_x64(True):
            return Chain(*(a[:, row] for a in _maps(self, jnp.asarray(p))))


def log_density_of(maps: Chain, x: Array, edges: np.ndarray | Array) -> Array:
    """Ln p per unit of the observable, given that it lies between the outer edges.

    Args:
        maps: Each of shape ``(flows, ...)``.
        x: Values, shape ``(..., values)``.
        edges: Only the first and the last one count.
    """
    ends = jnp.broadcast_to(jnp.stack([edges[0], edges[-1]]).astype(x.dtype), (*x.shape[:-1], 2))
    z, log = chain(maps, jnp.concatenate([x, ends], axis=-1))
    inside = log_between(z[..., -2], z[..., -1])[..., None]
    log_p = -0.5 * (z[..., :-2] ** 2 + _LOG_2PI) + log[..., :-2] - inside
    return jnp.logaddexp(log_p, jnp.log(_FLOOR / (edges[-1] - edges[0])))


_maps = eqx.filter_jit(PlanarFlow.maps)


def _log_prob(maps: Chain, x: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """:func:`log_density_of` one source in numpy, whose tanh is faster on a processor than JAX's in float64."""
    z = np.concatenate([x, edges[[0, -1]]])
    log, part = np.zeros_like(z), np.ones_like(z)
    for k, (u, w, b) in enumerate(zip(*(np.asarray(a) for a in maps), strict=True)):
        h = np.tanh(w * z + b)
        z += u * h
        part *= 1 + u * w * (1 - h * h)
        if (k + 1) % _BLOCK == 0:  # a factor is between 0 and 2: ten of them neither vanish nor overflow
            log, part = log + np.log(part), np.ones_like(z)
    log += np.log(part)
    low, high = (-z[-1], -z[-2]) if z[-2] + z[-1] > 0 else z[-2:]  # as in log_between
    tail, both = scipy.special.log_ndtr([low, high])
    inside = both + np.log(-np.expm1(min(tail - both, -1e-300)))
    log_p = -0.5 * (z[:-2] ** 2 + _LOG_2PI) + log[:-2] - inside
    return np.logaddexp(log_p, np.log(_FLOOR / (edges[-1] - edges[0])))


@jax.jit
def _inverse_table(maps: Chain, edges: Array) -> tuple[Array, Array, Array]:
    low, high = edges[0], edges[-1]
    z0, z1 = chain(maps, jnp.stack([low, high]))[0]
    a, b = (jax.scipy.stats.norm.cdf(z) for z in (z0, z1))
    bulk = ndtri(a + (b - a) * jnp.linspace(0, 1, _TABLE // 2)[1:-1])
    tails = jnp.linspace(jnp.maximum(z0, -8.0), jnp.minimum(z1, 8.0), _TABLE // 2)
    z = jnp.sort(jnp.concatenate([bulk, tails]))
    x = invert(maps, z, low, high)
    z, log = chain(maps, x)
    return x, z, jnp.exp(-log)


def new_networks(settings: PlanarSettings, n_sources: int, seed: int) -> PlanarNetworks:
    """Networks with random weights: uniform with variance 1/(3 inputs), embeddings of unit variance.

    Args:
        settings: Sizes.
        n_sources: Number of sources.
        seed: Of the weights.
    """
    random = generator(seed, 8)

    def uniform(*shape: int) -> Any:
        return (random.uniform(-1, 1, shape) / np.sqrt(shape[-2])).astype(np.float32)

    def normal(*shape: int) -> Any:
        return random.standard_normal(shape).astype(np.float32)

    networks: PlanarNetworks = jax.tree.map(jnp.array, _networks(settings, n_sources, uniform, normal))
    return networks


def skeleton(settings: PlanarSettings, n_sources: int) -> PlanarNetworks:
    """Shapes and types only, without memory."""
    empty = partial(np.broadcast_to, np.zeros((), np.float32))
    return _networks(settings, n_sources, lambda *s: empty(s), lambda *s: empty(s))


def _networks(settings: PlanarSettings, n_sources: int, weight: Any, normal: Any) -> PlanarNetworks:
    f, n = settings.flows, settings.units

    def dense(inputs: int, outputs: int) -> Dense:
        bias: Any = np.broadcast_to(np.zeros((), np.float32), (f, outputs))
        return Dense(weight(f, inputs, outputs), bias)

    return PlanarNetworks(
        settings,
        normal(f, n_sources, n),
        (dense(3, n), dense(n, n), dense(n, n)),
        (dense(2 * n, 2 * n), dense(2 * n, n), dense(n, 3)),
    )
