"""A monotone rational-quadratic spline as a density of calibration spectra, conditional on response and source.

The distribution function of t = ln(x) − m is one spline (C. Durkan et al., arXiv:1906.04032, eqs. 4 and 5), whose knots
and slopes, and the shift m, are networks of the response parameters, one for each source. Its derivative is the
density, in closed form, and so are the probability of a bin and the inverse. What lies outside the range of the
observable is left out and the rest normalised.

The light yield moves a peak along ln x, so the networks have to learn little more than how the shape changes. They are
float32; the spline is float64 where a fit uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

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
from nuebar.tune.events import MonotoneSpline

__all__ = [
    "Knots",
    "Reference",
    "SplineFlow",
    "SplineNetwork",
    "SplineSettings",
    "Warp",
    "knots_of",
    "moved",
    "new_network",
    "reference",
    "spline_knots",
    "spline_log_slope",
    "spline_value",
    "splines",
    "warp_skeleton",
]

ACTIVATIONS = {"gelu": jax.nn.gelu, "silu": jax.nn.silu, "tanh": jnp.tanh}
_LARGEST = 2000
_LOWEST = 1e-7  # width and height of an interval at least
_FLOOR = 1e-13  # probability spread evenly over the range: ln p stays finite where no event was ever seen
_SHIFT = 0.5  # shifts of ln x are smaller
N_KNOTS = 5001
"""Knots of ln p for unbinned fits with a smooth density."""
N_SPLINE_KNOTS = 32_001
"""Of a spline flow: its ln p has a kink at every knot of the spline, and 2001 knots moved a fit by more than σ."""
_NEAR = 0.06  # of ln x around a peak: two widths of the widest line
_MONOMIALS = 9  # of first and second degree of three parameters


@dataclass(frozen=True, kw_only=True)
class SplineSettings:
    """Sizes of a spline flow.

    Attributes:
        intervals: Of the spline.
        units: Nodes of the two hidden layers of every source's network.
        activation: gelu, silu or tanh.
    """

    intervals: int = 96
    units: int = 64
    activation: str = "gelu"

    def __post_init__(self) -> None:
        """Refuse what no network can be built from."""
        for name, least in (("intervals", 4), ("units", 1)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= _LARGEST:
                raise NuebarError(f"spline {name}: expected a whole number from {least} to {_LARGEST}, got {value!r}")
        if self.activation not in ACTIVATIONS:
            raise NuebarError(f"spline activation: expected one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")


class Reference(NamedTuple):
    """Where the training begins, per source: the spline of the pooled data and the shift of its median.

    Attributes:
        shift: Coefficients of m over (1, the monomials), shape ``(sources, 10)``.
        widths: Logarithms of the widths, shape ``(sources, intervals)``.
        heights: Logarithms of the heights.
        slopes: Logarithms of the slopes, shape ``(sources, intervals + 1)``.
    """

    shift: Array
    widths: Array
    heights: Array
    slopes: Array


class SplineNetwork(eqx.Module):
    """Networks of all sources: parameters between −1 and 1 → numbers of the spline.

    Attributes:
        settings: Sizes.
        reference: Where it began; trained, too.
        weights: Of the layers, each ``(sources, inputs, outputs)``.
        biases: Each ``(sources, outputs)``.
        quadratic: Of the monomials, straight to the outputs.
    """

    settings: SplineSettings = eqx.field(static=True)
    reference: Reference
    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    quadratic: Array

    def __call__(self, unit: Array) -> tuple[Array, Array, Array, Array]:
        """Shift, and logarithms of widths, heights and slopes, of every source.

        Args:
            unit: Parameters scaled to −1..1, float32, shape ``(..., 3)``.

        Returns:
            Shapes ``(..., sources)``, twice ``(..., sources, intervals)``, ``(..., sources, intervals + 1)``.
        """
        k, act = self.settings.intervals, ACTIVATIONS[self.settings.activation]
        m = monomials(unit)
        x = jnp.broadcast_to(unit[..., None, :], (*unit.shape[:-1], self.quadratic.shape[0], 3))
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = act(jnp.einsum("...si,sij->...sj", x, weight) + bias)
        out = jnp.einsum("...si,sij->...sj", x, self.weights[-1]) + self.biases[-1]
        out = out + jnp.einsum("...i,sij->...sj", m, self.quadratic)
        r = self.reference
        shift = r.shift[:, 0] + jnp.einsum("...i,si->...s", m, r.shift[:, 1:]) + 0.01 * out[..., 0]
        return (
            shift,
            r.widths + out[..., 1 : k + 1],
            r.heights + out[..., k + 1 : 2 * k + 1],
            r.slopes + out[..., 2 * k + 1 :],
        )


def monomials(unit: Array) -> Array:
    """All products of one and two parameters, shape ``(..., 9)``."""
    i, j = np.triu_indices(3)
    return jnp.concatenate([unit, unit[..., i] * unit[..., j]], axis=-1)


class Knots(NamedTuple):
    """A monotone spline from an interval to 0..1; every array has the shape ``(..., intervals)``.

    Attributes:
        x: Left ends of the intervals.
        width: Their widths.
        y: Values at the left ends.
        height: How much the spline rises in each.
        left: Derivative at the left ends.
        right: Derivative at the right ends.
    """

    x: Array
    width: Array
    y: Array
    height: Array
    left: Array
    right: Array


def spline_knots(widths: Array, heights: Array, slopes: Array, low: float, high: float) -> Knots:
    """The spline of unconstrained numbers: any numbers make a valid one.

    Args:
        widths: Logarithms, up to a constant, shape ``(..., intervals)``.
        heights: Likewise.
        slopes: Logarithms, shape ``(..., intervals + 1)``.
        low: Left end.
        high: Right end.
    """
    n = widths.shape[-1]
    width, height = (_LOWEST + (1 - n * _LOWEST) * jax.nn.softmax(logs, axis=-1) for logs in (widths, heights))
    slope = jnp.exp(slopes)
    x, y = (jnp.cumsum(part, axis=-1) - part for part in (width, height))
    return Knots(low + (high - low) * x, (high - low) * width, y, height, slope[..., :-1], slope[..., 1:])


def _at(knots: Knots, starts: Array, values: Array) -> Knots:
    """The interval of every value: shapes as those of the values."""
    k, n = starts.shape[-1], values.shape[-1]
    rows = starts.reshape(-1, k)
    index = jax.vmap(lambda a, v: jnp.searchsorted(a, v, side="right"))(rows[:, 1:], values.reshape(-1, n))
    table = jnp.stack(knots, axis=-1).reshape(-1, k, len(knots))
    found = jax.vmap(lambda a, i: a[i])(table, index)
    return Knots(*jnp.moveaxis(found.reshape(*values.shape, len(knots)), -1, 0))


def spline_log_slope(knots: Knots, t: Array) -> Array:
    """Ln of the derivative at values inside the interval (arXiv:1906.04032, eq. 5).

    Args:
        knots: Of shapes ``(..., intervals)``.
        t: Shape ``(..., values)``.
    """
    a = _at(knots, knots.x, t)
    s, z = a.height / a.width, (t - a.x) / a.width
    mixed = z * (1 - z)
    top = a.right * z**2 + 2 * s * mixed + a.left * (1 - z) ** 2
    return 2 * jnp.log(s) + jnp.log(top) - 2 * jnp.log(s + (a.left + a.right - 2 * s) * mixed)


def spline_value(knots: Knots, t: Array) -> Array:
    """The spline itself (eq. 4).

    Args:
        knots: Of shapes ``(..., intervals)``.
        t: Shape ``(..., values)``.
    """
    a = _at(knots, knots.x, t)
    s, z = a.height / a.width, (t - a.x) / a.width
    mixed = z * (1 - z)
    return a.y + a.height * (s * z**2 + a.left * mixed) / (s + (a.left + a.right - 2 * s) * mixed)


# ---------------------------------------------------------------- the density


class Range(NamedTuple):
    """The interval of t, from the range of the observable: shifts up to half a unit fit into it."""

    low: float
    high: float


def interval(edges: np.ndarray) -> Range:
    """The interval of t = ln(x) − m that belongs to bins.

    Raises:
        NuebarError: The lowest edge is not above zero.
    """
    if not edges[0] > 0:
        raise NuebarError(
            f"a spline flow works with ln x: expected a lowest edge above 0, got {edges[0]:g}; leave out the first bins"
        )
    return Range(float(np.log(edges[0])) - _SHIFT, float(np.log(edges[-1])) + _SHIFT)


def splines(network: SplineNetwork, unit: Array, edges: np.ndarray, dtype: Any = float) -> tuple[Array, Knots, Array]:
    """Shift, spline and normalisation of every source.

    Args:
        network: The networks.
        unit: Parameters scaled to −1..1, float32, shape ``(..., 3)``.
        edges: Bins of the observable.
        dtype: Of the result.

    Returns:
        The shift ``(..., sources)``, the spline ``(..., sources, intervals)`` and ln of what lies in the range.
    """
    low, high = interval(edges)
    shift, widths, heights, slopes = (a.astype(dtype) for a in network(unit))
    shift = _SHIFT * jnp.tanh(shift / _SHIFT)
    knots = spline_knots(widths, heights, slopes, low, high)
    ends = jnp.log(jnp.asarray(edges[[0, -1]], dtype)) - shift[..., None]
    value = spline_value(knots, ends)
    return shift, knots, jnp.log(value[..., 1] - value[..., 0])


class SplineFlow(eqx.Module):
    """A trained spline flow: a density of single events.

    Attributes:
        sources: Names, in the order of the rows.
        edges_observable: Bins.
        pe_to_observable: Observable per photo-electron.
        limits: (low, high) of kB, fC and the light yield.
        provenance: What it was trained on.
        network: Its networks.
    """

    sources: tuple[str, ...] = eqx.field(static=True)
    edges_observable: tuple[float, ...] = eqx.field(static=True)
    pe_to_observable: float = eqx.field(static=True)
    limits: tuple[tuple[float, float], ...] = eqx.field(static=True)
    provenance: Provenance = eqx.field(static=True)
    network: SplineNetwork

    @property
    def name(self) -> str:
        """How it is called on the command line."""
        return "spline"

    @property
    def edges(self) -> np.ndarray:
        """Bins of the observable, shape ``(bins + 1,)``."""
        return np.array(self.edges_observable)

    @property
    def knots(self) -> np.ndarray:
        """Where :meth:`log_density` is given: even in the root of the observable, as the widths of peaks are."""
        return knots_of(self.edges, N_SPLINE_KNOTS)

    @property
    def rough(self) -> bool:
        """True: ln p has a kink at every knot of the spline."""
        return True

    def log_probabilities(self, response: ArrayLike) -> Array:
        """Ln of the probability of every bin, float64, shape ``(sources, bins)``; unchecked."""
        shift, knots, inside = self._splines(response)
        value = spline_value(knots, jnp.log(self.edges) - shift[:, None])
        p = jnp.maximum(jnp.diff(value, axis=1), 0) * jnp.exp(-inside)[:, None]
        even = np.diff(self.edges) / (self.edges[-1] - self.edges[0])
        return jnp.log((1 - _FLOOR) * p + _FLOOR * even)

    def log_density(self, response: ArrayLike) -> Array:
        """Ln p per unit of the observable at the knots, float64, shape ``(sources, knots)``; unchecked."""
        return self.at(response, jnp.broadcast_to(self.knots, (len(self.sources), self.knots.size)))

    def at(self, response: ArrayLike, x: ArrayLike) -> Array:
        """Ln p per unit of the observable.

        Args:
            response: The three numbers of ``RESPONSE``.
            x: Values of the observable inside the range, shape ``(sources, values)``.
        """
        shift, knots, inside = self._splines(response)
        logs = jnp.log(jnp.asarray(x))
        log_p = spline_log_slope(knots, logs - shift[:, None]) - logs - inside[:, None]
        return jnp.logaddexp(log_p, np.log(_FLOOR / (self.edges[-1] - self.edges[0])))

    def log_prob(self, n_pe: np.ndarray, response: Mapping[str, float], source: str) -> np.ndarray:
        """Ln p per photo-electron.

        Args:
            n_pe: Charges; outside the range the result is −inf.
            response: Response parameters by name.
            source: One of the sources.
        """
        x = np.asarray(n_pe, float) * self.pe_to_observable
        spline, shift, inside = self._spline(response, source)
        log_p = spline.log_density(x.ravel(), shift, self.edges[0], self.edges[-1])
        return log_p.reshape(x.shape) + (np.log(self.pe_to_observable) - inside)

    def sample(self, n: int, response: Mapping[str, float], source: str, *, seed: int) -> np.ndarray:
        """Charges in photo-electrons, by the inverse of the spline (eqs. 6 to 8).

        Args:
            n: How many.
            response: Response parameters by name.
            source: One of the sources.
            seed: Of the random numbers.
        """
        spline, shift, _ = self._spline(response, source)
        edges, rows = self.edges, Knots(*(jnp.asarray(a) for a in spline.rows.T))
        with jax.enable_x64(True):
            low, high = np.asarray(spline_value(rows, jnp.log(jnp.asarray(edges[[0, -1]])) - shift))
        x = spline.inverse(low + generator(seed, 6).random(n) * (high - low), shift)
        return np.clip(x, edges[0], edges[-1]) / self.pe_to_observable

    def counts(self, edges_pe: np.ndarray, response: Mapping[str, float], source: str, events: float) -> np.ndarray:
        """Expected counts in bins of the charge.

        Args:
            edges_pe: Bins in photo-electrons.
            response: Response parameters by name.
            source: One of the sources.
            events: Events in the whole range of the density.
        """
        shift, knots, inside = self._of(response, source)
        x = np.clip(np.asarray(edges_pe, float) * self.pe_to_observable, self.edges[0], self.edges[-1])
        with jax.enable_x64(True):
            value = np.asarray(spline_value(knots, jnp.log(jnp.asarray(x)) - shift))
        return events * np.diff(value) / np.exp(float(inside))

    def _splines(self, response: ArrayLike) -> tuple[Array, Knots, Array]:
        low, high = np.array(self.limits).T
        unit = (2 * (jnp.asarray(response, float) - low) / (high - low) - 1).astype(self.network.quadratic.dtype)
        return splines(self.network, unit, self.edges)

    def _of(self, response: Mapping[str, float], source: str) -> tuple[Array, Knots, Array]:
        p = response_vector(response, self.limits, self.name)
        row = source_index(source, self.sources, self.name)
        with jax.enable_x64(True):
            shift, knots, inside = _all(self, jnp.asarray(p))
        return shift[row], Knots(*(a[row] for a in knots)), inside[row]

    def _spline(self, response: Mapping[str, float], source: str) -> tuple[MonotoneSpline, float, float]:
        shift, knots, inside = self._of(response, source)
        return MonotoneSpline(*(np.asarray(a) for a in knots)), float(shift), float(inside)


@eqx.filter_jit
def _all(flow: SplineFlow, response: Array) -> tuple[Array, Knots, Array]:
    return flow._splines(response)


def knots_of(edges: np.ndarray, n: int = N_KNOTS) -> np.ndarray:
    """Values of the observable between which ln p may be interpolated.

    Peaks are sqrt(x) wide, so the knots are even in sqrt(x). The default of a smooth density is a twelfth of a width.

    Args:
        edges: Bins of the observable.
        n: Number of knots.
    """
    return np.linspace(np.sqrt(edges[0]), np.sqrt(edges[-1]), n) ** 2


class Warp(eqx.Module):
    """The pooled spectrum of every source, moved along ln x with its highest peak: a first guess of all spectra.

    Attributes:
        reference: From :func:`reference`.
    """

    reference: Reference

    def log_probabilities(self, unit: Array, edges: np.ndarray) -> Array:
        """Ln of the probability of every bin, up to a constant of each source.

        Args:
            unit: Parameters scaled to −1..1, shape ``(..., 3)``.
            edges: Bins of the observable.

        Returns:
            Shape ``(..., sources, bins)``, of the type of ``unit``.
        """
        r = Reference(*(a.astype(unit.dtype) for a in self.reference))
        low, high = interval(edges)
        middle = 0.5 * (edges[1:] + edges[:-1])
        shift = self.shift(unit)
        knots = spline_knots(r.widths, r.heights, r.slopes, low, high)
        wide = Knots(*(jnp.broadcast_to(a, (*shift.shape, a.shape[-1])) for a in knots))
        t = jnp.log(jnp.asarray(middle, unit.dtype)) - shift[..., None]
        bins = jnp.asarray(np.log(np.diff(edges) / middle), unit.dtype)
        return spline_log_slope(wide, t) + bins

    def shift(self, unit: Array) -> Array:
        """How far ln x has moved, shape ``(..., sources)``, between −0.5 and 0.5.

        Args:
            unit: Parameters scaled to −1..1, shape ``(..., 3)``.
        """
        m = jnp.concatenate([jnp.ones((*unit.shape[:-1], 1), unit.dtype), monomials(unit)], axis=-1)
        return _SHIFT * jnp.tanh(jnp.einsum("...i,si->...s", m, self.reference.shift.astype(unit.dtype)) / _SHIFT)


def moved(values: Array, shift: Array, edges: np.ndarray) -> Array:
    """Values at the bins, from values on a grid that moves along ln x: by cubics with continuous slopes (E. Catmull).

    The grid is even in the root of x, as the widths of peaks are, and has room for every shift.

    Args:
        values: On the grid, shape ``(..., nodes)``.
        shift: Of ln x, shape ``(...)``.
        edges: Of the bins.
    """
    n = values.shape[-1]
    low, high = np.exp(0.5 * np.array(interval(edges)))
    middle = jnp.asarray(np.sqrt(0.5 * (edges[1:] + edges[:-1])), values.dtype)
    place = (middle * jnp.exp(-0.5 * shift[..., None]) - low) * ((n - 1) / (high - low))
    k = jnp.clip(jnp.floor(place), 1, n - 3)
    t, k = place - k, k.astype(jnp.int32)
    a, b, c, d = (jnp.take_along_axis(values, k + j, axis=-1) for j in (-1, 0, 1, 2))
    return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))


# ---------------------------------------------------------------- to begin with


def reference(
    unit: np.ndarray, counts: np.ndarray, edges: np.ndarray, intervals: int, *, points: int = 600
) -> Reference:
    """Spline of the pooled data, moved by a shift that follows the highest peak of each source.

    Args:
        unit: Parameters scaled to −1..1, shape ``(sets, 3)``.
        counts: Histograms, shape ``(sets, sources, bins)``.
        edges: Bins of the observable.
        intervals: Of the spline.
        points: Data sets that are pooled, at most.
    """
    low, high = interval(edges)
    chosen = np.unique(np.linspace(0, len(unit) - 1, min(points, len(unit))).astype(int))
    unit, counts = unit[chosen], counts[chosen].astype(float)
    logs = np.log(0.5 * (edges[1:] + edges[:-1]))
    i, j = np.triu_indices(3)
    m = np.concatenate([np.ones((len(unit), 1)), unit, unit[:, i] * unit[:, j]], axis=1)
    out: list[tuple[np.ndarray, ...]] = []
    fine = np.linspace(low, high, 4001)
    for s in range(counts.shape[1]):
        used = counts[:, s].sum(axis=1) > 0
        peak = np.array([_peak(n, logs) for n in counts[used, s]])
        middle = float(np.median(peak))
        shift = np.linalg.lstsq(m[used], peak - middle, rcond=None)[0]
        places = np.clip((logs - (m[used] @ shift)[:, None] - low) / (high - low) * 4000, 0, 3999).astype(int)
        density = np.bincount(places.ravel(), counts[used, s].ravel(), 4000)
        density = np.convolve(density, np.full(9, 1 / 9), "same")
        density = 0.9999 * density / density.sum() + 0.0001 / 4000
        cdf = np.concatenate([[0.0], np.cumsum(density)])
        # Cube root: where a curve of straight pieces needs them (C. de Boor, 1973), and some everywhere.
        wanted = np.cumsum(np.cbrt(density))
        wanted = 0.9 * np.concatenate([[0.0], wanted / wanted[-1]]) + 0.1 * np.linspace(0, 1, 4001)
        knots = np.interp(np.linspace(0, 1, intervals + 1), wanted, fine)
        heights = np.diff(np.interp(knots, fine, cdf))
        slopes = np.interp(knots, 0.5 * (fine[1:] + fine[:-1]), density * 4000 / (high - low))
        out.append((shift, np.log(np.diff(knots)), np.log(heights), np.log(slopes)))
    return Reference(*(jnp.asarray(np.array(a), jnp.float32) for a in zip(*out, strict=True)))


def _peak(counts: np.ndarray, logs: np.ndarray) -> float:
    """Ln x of the highest peak: the mean of what lies near it, which statistics moves less than the highest bin."""
    smooth = np.convolve(counts, np.ones(3), "same")
    at = float(logs[int(np.argmax(smooth))])
    for _ in range(3):
        near = np.where(np.abs(logs - at) < _NEAR, counts, 0.0)
        at = float(near @ logs / near.sum())
    return at


def new_network(settings: SplineSettings, start: Reference, seed: int) -> SplineNetwork:
    """A network that gives the reference everywhere until it is trained.

    Args:
        settings: Sizes.
        start: From :func:`reference`.
        seed: Of the weights.
    """
    random = generator(seed, 7)

    def weight(*shape: int) -> Any:
        return (random.standard_normal(shape) * np.sqrt(2 / shape[-2])).astype(np.float32)

    network: SplineNetwork = jax.tree.map(jnp.array, _network(settings, start, weight))
    return network


def skeleton(settings: SplineSettings, n_sources: int) -> SplineNetwork:
    """Shapes and types only, without memory."""
    return _network(settings, warp_skeleton(settings.intervals, n_sources).reference, _zeros)


def warp_skeleton(intervals: int, n_sources: int) -> Warp:
    """Shapes and types only, without memory."""
    sizes = (_MONOMIALS + 1, intervals, intervals, intervals + 1)
    start: Any = Reference(*(_zeros(n_sources, n) for n in sizes))
    return Warp(start)


def _zeros(*shape: int) -> Any:
    return np.broadcast_to(np.zeros((), np.float32), shape)


def _network(settings: SplineSettings, start: Reference, weight: Any) -> SplineNetwork:
    n, outputs = start.shift.shape[0], 3 * settings.intervals + 2
    sizes = (3, settings.units, settings.units, outputs)
    # The last layer begins at zero: the network gives the reference everywhere until it is trained.
    weights = (weight(n, *sizes[:2]), weight(n, *sizes[1:3]), _zeros(n, *sizes[2:]))
    biases = tuple(_zeros(n, k) for k in sizes[1:])
    return SplineNetwork(settings, start, weights, biases, _zeros(n, _MONOMIALS, outputs))
