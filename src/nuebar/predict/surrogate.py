"""The surrogate: harmonic in the oscillation parameters, learned in the response of the detector.

Every stored event has a reference energy e⁰, its mean reconstructed energy at one response point. Two things follow
from the events once and for all: a harmonic predictor of their distribution in e⁰ on nodes D_j (exact in all
oscillation parameters), and a :class:`nuebar.predict.light_map.LightMap`, which says where events of e⁰ go at (kB, fC,
light yield) and how they spread there. A prediction puts both together,

    S_b = C(E_b+1) - C(E_b),   C(E) = Σ_j D_j(oscillation) F((E - g_j) / σ_j) + excess,

with g_j, σ_j and the shape of F at the response point: photo-statistics, spread of the cascades and extra smearing add
up in σ_j², skewness and kurtosis enter by the Gram-Charlier series (H. Cramér, Mathematical Methods of Statistics,
1946, section 17.6), the scale multiplies g_j and σ_j. Nodes are even in √e, as the resolution is, and events reach
them with the weights of Lagrange's interpolation, so that nothing is lost between nodes. More sets of nodes hold the
same events weighted with their excesses and the products of these: where oscillations favour events of an excess, its
levers move and widen them, to second order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import erf
from jax.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.kernels import njit
from nuebar.parameters import OSCILLATION
from nuebar.physics.scintillator import N_H_GAMMA_MeV
from nuebar.predict.box import PHYSICS, Box, Provenance, check_inside, check_parameters
from nuebar.predict.cascades import Cascades
from nuebar.predict.folded import POINTS, Folded, InverseGrid, empty_table, lagrange_weights, spread
from nuebar.predict.harmonic import (
    HarmonicPredictor,
    Series,
    Sums,
    Windows,
    chebyshev_rows,
    physical_channels,
    vacuum_basis,
)
from nuebar.predict.light_map import RatioBox, learn_light_map, reference_energies
from nuebar.predict.response import RESPONSE, ResponsePoint
from nuebar.predict.smooth import with_cached_derivatives
from nuebar.simulate.detector import DetectorModel

__all__ = ["BOX", "SurrogatePredictor", "build_surrogate"]

# ±5σ of a calibration with 10 k events a source (kB ±0.26, fC ±0.029, light yield ±23 at one published point,
# arXiv:2507.23297) around any point of the inner half of the published ranges (kB 10.5 to 19.5, fC 0.25 to 0.75,
# 9000 to 11000 per MeV), with room for larger errors elsewhere; extra smearing up to what JUNO's first data need
# (a = 3.3 % for 2.9 %), and ±5σ of a scale known to 0.5 %.
BOX: Box = {
    "kB_g_cm2_GeV": (8.5, 21.5),
    "fC": (0.05, 0.95),
    "light_yield_per_MeV": (8700.0, 11300.0),
    "smear_a": (0.0, 0.02),
    "smear_b": (0.0, 0.01),
    "smear_c": (0.0, 0.01),
    "energy_scale": (-0.025, 0.025),
}
NODE_STEP = 0.0075  # in √MeV: 0.6 of the best resolution (2.6 % at 1 MeV; 2·0.0075/0.026)
NODE_POINTS = 14
ROW_SETS = 6  # counts, two excesses, their three products
REACH_sigma = 5.0  # beyond it lie 3e-7 of a node
BLOCK_BINS = 12
COEFFICIENTS = 1e-9  # relative size of the harmonic coefficients that are dropped: far below single precision
EXCESS_COEFFICIENTS = 1e-5  # of a correction of 1e-3


class SurrogatePredictor(eqx.Module):
    """Expected spectrum as a function of oscillation and response parameters.

    Attributes:
        edges_MeV: Bins of reconstructed energy.
        ranges: Limits of the response parameters, in the order of :data:`nuebar.predict.response.RESPONSE`.
        reference: Their nominal values, for those that are left out.
        provenance: What it was built from.
        nodes: Harmonic predictor of the distribution in reference energy.
        excess: The same weighted with the two excesses and their three products: five times as many rows.
        stacked: Both in vacuum as one table for single precision, shape ``(rows, 1 + solar + atmospheric)``.
        per_event: Un-oscillated counts that one simulated event stands for.
        span: Nodes that a block of edges sees at any response.
        first_node: Square root of the lowest node, √MeV.
        block_edges: Edges of each block in MeV; neighbours share one; shape ``(blocks, edges)``.
        light: Shift of the energy from reference to reconstructed, central moments 2 to 4 and the two levers at the
            nodes, shape ``(6, nodes, KB, RATIO)``.
        inverse: Moments of the inverse light correction, shape ``(4, nodes)``.
        anchor: Chebyshev coefficients in kB of the light of an n-H capture.
        constants: Cherenkov photons of it at fC = 1; photo-electrons per photon; charge spread; dark counts; constant.
    """

    edges_MeV: tuple[float, ...] = eqx.field(static=True)
    ranges: tuple[tuple[float, float], ...] = eqx.field(static=True)
    reference: tuple[float, ...] = eqx.field(static=True)
    provenance: Provenance = eqx.field(static=True)
    per_event: float = eqx.field(static=True)
    span: int = eqx.field(static=True)
    first_node: float = eqx.field(static=True)
    nodes: HarmonicPredictor
    excess: HarmonicPredictor
    stacked: Array
    block_edges: Array
    light: Array
    inverse: Array
    anchor: Array
    constants: Array

    @property
    def name(self) -> str:
        """How the predictor is called in results and on the command line."""
        return "surrogate"

    @property
    def edges(self) -> np.ndarray:
        """Bins of reconstructed energy in MeV, shape ``(bins + 1,)``."""
        return np.array(self.edges_MeV)

    @property
    def core_names(self) -> tuple[str, ...]:
        """It sums over the cores."""
        return ()

    @property
    def windows(self) -> Windows:
        """Ranges of the mass splittings."""
        return self.nodes.windows

    @property
    def box(self) -> Box:
        """Limits of the mass splittings (normal ordering) and of the response; the mixing angles have none."""
        return {**self.nodes.box, **dict(zip(RESPONSE, self.ranges, strict=True))}

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Oscillation, density (if it holds matter), response."""
        return (*(PHYSICS if self.nodes.matter else OSCILLATION), *RESPONSE)

    @property
    def nbytes(self) -> int:
        """Size of the tables in memory."""
        return sum(x.nbytes for x in jax.tree.leaves(self))

    @property
    def node_energies(self) -> Array:
        """Reference energy of every node in MeV, shape ``(nodes,)``."""
        return (self.first_node + NODE_STEP * jnp.arange(self.light.shape[1])) ** 2

    @property
    def light_windows(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Middle and half width of what the Chebyshev polynomials in kB and in the ratio fC / light yield cover."""
        return RatioBox.of(self.box).windows()

    def nominal(self) -> dict[str, float]:
        """The response of the experiment that it was built for."""
        return dict(zip(RESPONSE, self.reference, strict=True))

    def predict(self, parameters: Mapping[str, ArrayLike]) -> Array:
        """Expected signal counts per bin.

        Args:
            parameters: Oscillation parameters by name; the density if not vacuum; response parameters that differ
                from :meth:`nominal`.

        Returns:
            Counts, shape ``(bins,)``.

        Raises:
            NuebarError: A parameter is unknown, missing, or outside the box.
        """
        check_parameters(parameters, self.parameter_names, OSCILLATION)
        self.check(parameters)
        return _predict(self, self.vector(parameters))

    def vector(self, parameters: Mapping[str, ArrayLike]) -> Array:
        """The vector of :attr:`parameter_names`; density 0 and the nominal response where they are left out."""
        defaults: dict[str, ArrayLike] = {**dict.fromkeys(PHYSICS, 0.0), **self.nominal()}
        return jnp.stack([jnp.asarray(parameters.get(n, defaults[n]), float) for n in self.parameter_names])

    def channels(self, p: ArrayLike) -> Array:
        """Counts of all cores together, shape ``(1, bins)``; ``p`` in the order of :attr:`parameter_names`."""
        return _channels(self, p)

    def unoscillated(self) -> Array:
        """Counts per bin without oscillations at the nominal response."""
        return _unoscillated(self, jnp.array(self.reference))

    def mc_covariance(self, parameters: Mapping[str, ArrayLike]) -> np.ndarray:
        """Covariance of the prediction from the finite number of simulated events, shape ``(bins, bins)``.

        Every node holds a Poisson number of events, which reach the bins together: Σ_j K_bj K_b'j σ_j², with K the
        response from nodes to bins and σ_j² = (counts per event) D_j(oscillated)² / D_j(un-oscillated).
        """
        return np.asarray(_mc_covariance(self, self.vector(parameters)))

    def in_vacuum(self) -> SurrogatePredictor:
        """The same without matter: fewer sums."""
        nodes, excess = (replace(part, matter=False) for part in (self.nodes, self.excess))
        return replace(self, nodes=nodes, excess=excess)

    def at_response(self, point: ResponsePoint) -> HarmonicPredictor:
        """The harmonic predictor of the bins at one response point, in vacuum: for many spectra at once.

        Args:
            point: Inside the box.
        """
        check_inside(vars(point), dict(zip(RESPONSE, self.ranges, strict=True)), self.name)
        return _at_response(self, jnp.array([vars(point)[n] for n in RESPONSE]))

    def check(self, parameters: Mapping[str, ArrayLike]) -> None:
        """Refuse parameters outside the box (concrete values only)."""
        self.nodes.check(parameters)
        check_inside(parameters, dict(zip(RESPONSE, self.ranges, strict=True)), self.name)


# ---------------------------------------------------------------- evaluation


def _shapes(s: SurrogatePredictor, r: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Mean, 1/σ, skewness/6 and kurtosis/24 of the reconstructed energy at every node, and the levers.

    In the precision of the table, but for the mean: where events go matters to a millionth of a bin.
    """
    kB, fC, light, a, b, c, scale = (r[k] for k in range(len(RESPONSE)))
    box = RatioBox.of(s.box)
    n_kB, n_ratio = s.light.shape[2:]
    at_kB, at_ratio = ((x - middle) / half for x, (middle, half) in zip((kB, fC / light), box.windows(), strict=True))
    in_kB, in_ratio = chebyshev_rows(at_kB, n_kB, 1)[:, 0], chebyshev_rows(at_ratio, n_ratio, 1)[:, 0]
    basis = (in_kB[:, None] * in_ratio).ravel()
    single = s.light.dtype
    shift, m2, m3, m4, *levers = (s.light.reshape(-1, basis.size) @ basis.astype(single)).reshape(6, -1)
    energy = s.node_energies + shift
    g = energy.astype(single)
    cherenkov, efficiency, charge_sigma, dark, constant = (s.constants[k] for k in range(5))
    pe = efficiency * (light * (s.anchor @ in_kB) + fC * cherenkov) / N_H_GAMMA_MeV  # photo-electrons per MeV
    pe, charge_sigma, dark, constant = (x.astype(single) for x in (pe, charge_sigma, dark, constant))
    a, b, c, scale = (x.astype(single) for x in (a, b, c, scale))
    s2 = charge_sigma**2
    second, third = 1.0 + s2, 1.0 + 3.0 * s2
    i1, i2, i3, spread_of_i = s.inverse
    statistics = second / pe
    slope = statistics * i1 + a * a + 2.0 * (b * b + constant**2) * g
    variance = m2 + statistics * (g * i1 + dark * i2 / pe) + (b * b + constant**2) * (g * g + m2) + a * a * g + c * c
    k3 = m3 + third * (g * i2 + dark * i3 / pe) / pe**2 + 3.0 * m2 * slope
    k4 = m4 - 3.0 * m2**2 + 3.0 * spread_of_i * (statistics * g) ** 2
    inverse = jax.lax.rsqrt(variance)
    up = 1.0 + scale
    return (1.0 + r[-1]) * energy, inverse / up, k3 * inverse**3 / 6.0, k4 * inverse**4 / 24.0, up * jnp.stack(levers)


PER_ROOT_2PI = 0.3989422804014327
ROOT_HALF = 0.7071067811865476


@jax.custom_jvp
def _below(
    edges: Array,
    counts: Array,
    moved: Array,
    widened: Array,
    mean: Array,
    inverse: Array,
    skew: Array,
    kurtosis: Array,
) -> Array:
    """Counts below every edge of a block, shape ``(blocks, edges)``.

    Args:
        edges: Shape ``(blocks, edges)``; all others are at the nodes, shape ``(blocks, nodes)``.
        counts: Counts.
        moved: Sum of the moves of the events, over σ.
        widened: Half the sum of their squares beyond the mean, over σ².
        mean: Mean reconstructed energy.
        inverse: One over its standard deviation σ.
        skew: Skewness over 6.
        kurtosis: Excess kurtosis over 24.
    """
    z = (edges[:, :, None] - mean[:, None, :]) * inverse[:, None, :]
    z2 = z * z
    density = PER_ROOT_2PI * jnp.exp(-0.5 * z2)
    # F counts - density (moved + z widened), with Horner's rule in z for what multiplies the density.
    zero, one = moved - counts * skew, widened - 3.0 * counts * kurtosis
    two, three = counts * skew, counts * kurtosis
    rest = zero[:, None, :] + z * (one[:, None, :] + z * (two[:, None, :] + z * three[:, None, :]))
    # Bins are differences of these sums, so they are added with more digits than their terms have.
    below = (0.5 + 0.5 * erf(ROOT_HALF * z)) * counts[:, None, :] - density * rest
    return jnp.sum(below, axis=-1, dtype=float)


@_below.defjvp
def _below_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    # One matrix of each power of z, whatever the number of directions: under vmap the rest are products with them.
    edges, counts, moved, widened, mean, inverse, skew, kurtosis = primals
    _, d_counts, d_moved, d_widened, d_mean, d_inverse, d_skew, d_kurtosis = tangents
    z = (edges[:, :, None] - mean[:, None, :]) * inverse[:, None, :]
    density = PER_ROOT_2PI * jnp.exp(-0.5 * z * z)
    f = 0.5 + 0.5 * erf(ROOT_HALF * z)

    def rows(vector: Array) -> Array:
        return vector[..., None, :]

    def times(matrix: Array, vector: Array) -> Array:
        return jnp.einsum("ben,bn->be", matrix, vector)

    zero, one = moved - counts * skew, widened - 3.0 * counts * kurtosis
    two, three = counts * skew, counts * kurtosis
    rest = rows(zero) + z * (rows(one) + z * (rows(two) + z * rows(three)))
    # d/dz of F counts - density rest.
    change = rows(one) + z * (2.0 * rows(two) + 3.0 * z * rows(three))
    slope = density * (rows(counts) + z * rest - change)
    out = jnp.sum(f * rows(counts) - density * rest, axis=-1, dtype=float)
    d_zero = d_moved - d_counts * skew - counts * d_skew
    d_one = d_widened - 3.0 * (d_counts * kurtosis + counts * d_kurtosis)
    d_two, d_three = d_counts * skew + counts * d_skew, d_counts * kurtosis + counts * d_kurtosis
    along = times(slope * z, d_inverse / inverse) - times(slope, inverse * d_mean)
    along += times(f, d_counts) - times(density, d_zero) - times(density * z, d_one)
    along -= times(density * z * z, d_two) + times(density * z * z * z, d_three)
    return out, along.astype(out.dtype)


def _smeared(s: SurrogatePredictor, rows: Array, r: Array) -> Array:
    """Counts per bin from the rows of the nodes."""
    counts, first, second, a, ab, b = rows.astype(s.light.dtype).reshape(ROW_SETS, -1)
    mean, inverse, skew, kurtosis, levers = _shapes(s, r)
    x, y = levers * inverse
    moved = x * first + y * second
    widened = 0.5 * (x * x * a + y * y * b) + x * y * ab
    first, middle = _first_nodes(s, mean), jnp.mean(s.block_edges, axis=1, keepdims=True)
    vectors = jnp.stack([counts, moved, widened, inverse, skew, kurtosis])
    counts, moved, widened, inverse, skew, kurtosis = jnp.moveaxis(_windows(vectors, first, s.span), 1, 0)
    # Energies from the middle of their block: as such they fit into single precision.
    near = (_windows(mean[None], first, s.span)[:, 0] - middle).astype(vectors.dtype)
    edges = (s.block_edges - middle).astype(vectors.dtype)
    below = _below(edges, counts, moved, widened, near, inverse, skew, kurtosis)
    return jnp.diff(below, axis=1).ravel()[: len(s.edges_MeV) - 1].astype(r.dtype)


def _first_nodes(s: SurrogatePredictor, mean: Array) -> Array:
    """Where the window of every block begins: in its middle lies the node that is reconstructed there."""
    middle = 0.5 * (s.block_edges[:, 0] + s.block_edges[:, -1])
    at = jnp.round((jnp.sqrt(middle) - s.first_node) / NODE_STEP).astype(jnp.int32)
    # The ratio of reconstructed and reference energy hardly changes from here to there.
    ratio = mean[at] / (s.first_node + NODE_STEP * at) ** 2
    there = (jnp.sqrt(middle / ratio) - s.first_node) / NODE_STEP
    return jax.lax.stop_gradient(jnp.round(there).astype(jnp.int32) - s.span // 2)


def _windows(vectors: Array, first: Array, span: int) -> Array:
    """Contiguous parts of all vectors, shape ``(parts, vectors, span)``."""
    return jax.vmap(lambda start: jax.lax.dynamic_slice_in_dim(vectors, start, span, axis=1))(first)


def _rows(s: SurrogatePredictor, p: Array) -> Array:
    """Counts and excesses at the nodes."""
    if s.nodes.matter:
        return jnp.concatenate([physical_channels(s.nodes, p)[0], physical_channels(s.excess, p)[0]])
    return s.stacked @ vacuum_basis(s.nodes.total, p).astype(s.stacked.dtype)


def _counts(s: SurrogatePredictor, p: Array) -> Array:
    physics = len(s.parameter_names) - len(RESPONSE)
    return _smeared(s, _rows(s, p[:physics]), p[physics:])


@jax.jit
def _predict(s: SurrogatePredictor, p: Array) -> Array:
    return _counts(s, p)


@with_cached_derivatives
def _channels(s: SurrogatePredictor, p: Array) -> Array:
    return _counts(s, p)[None]


@jax.jit
def _response(s: SurrogatePredictor, r: Array) -> Array:
    """Bins from rows of the nodes, which they are linear in: shape ``(bins, rows)``."""
    rows = jnp.concatenate([s.nodes.total.flat, s.excess.total.flat])
    return jax.jacfwd(lambda x: _smeared(s, x, r))(rows)


@jax.jit
def _mc_covariance(s: SurrogatePredictor, p: Array) -> Array:
    physics = len(s.parameter_names) - len(RESPONSE)
    flat = s.nodes.total.flat
    there = _response(s, p[physics:])[:, : flat.size]
    seen = _rows(s, p[:physics])[: flat.size]
    # The weights of the nodes have both signs: where next to nothing is, nothing is uncertain.
    variance = s.per_event * jnp.where(flat > 1e-9 * jnp.max(flat), seen**2 / flat, 0.0)
    return (there * variance) @ there.T


def _at_response(s: SurrogatePredictor, r: Array) -> HarmonicPredictor:
    """The vacuum table of the nodes, multiplied with the response."""
    table = _response(s, r) @ s.stacked.astype(float)
    solar, fast = s.nodes.total.solar, s.nodes.total.atmospheric
    n = solar.value.shape[-1]
    none = jnp.zeros((table.shape[0], 0))
    sums = Sums(
        table[:, 0],
        jnp.zeros(table.shape[0]),
        Series(solar.middle, solar.half, table[:, 1 : n + 1], none),
        Series(fast.middle, fast.half, table[:, n + 1 :], none),
    )
    return replace(
        s.nodes,
        edges_MeV=s.edges_MeV,
        matter=False,
        provenance=s.provenance,
        total=sums,
        to_bins=jnp.zeros((s.nodes.energy_nodes_MeV.size, table.shape[0])),
        to_slopes=jnp.zeros((s.nodes.energy_nodes_MeV.size, table.shape[0])),
    )


@jax.jit
def _unoscillated(s: SurrogatePredictor, r: Array) -> Array:
    return _smeared(s, jnp.concatenate([s.nodes.unoscillated(), s.excess.unoscillated()]), r)


# ---------------------------------------------------------------- building


def build_surrogate(
    cascades: Cascades,
    edges_MeV: np.ndarray,
    *,
    nominal: ResponsePoint,
    box: Box = BOX,
    windows: Windows | None = None,
    matter: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> SurrogatePredictor:
    """Learn from stored cascades; the same cascades give the same bits.

    Args:
        cascades: Events, normalised.
        edges_MeV: Bins of reconstructed energy.
        nominal: Response where a parameter is left out.
        box: Ranges of the response parameters.
        windows: Ranges of the mass splittings; ±15σ of PDG 2022 by default.
        matter: Whether to keep what matter needs.
        progress: Called as ``progress(what, done, total)``.

    Raises:
        NuebarError: A bin is empty, or the nominal point lies outside the box.
    """
    began = time.perf_counter()
    tick = progress or (lambda *_: None)
    edges = np.asarray(edges_MeV, dtype=float)
    middle = {n: 0.5 * (low + high) for n, (low, high) in box.items()}
    reference = ResponsePoint(*(middle[n] for n in RESPONSE[:3]))
    check_inside(vars(nominal), box, "surrogate")
    e0 = reference_energies(cascades, reference)
    at = _node_energies(edges, box)
    tick("surrogate", 0, 3)
    light, excess = learn_light_map(cascades, e0, at, RatioBox.of(box))
    tick("surrogate", 1, 3)
    weights = _excess_weights(e0, excess, at)
    folded = _fold_nodes(cascades, e0, weights, at)
    tick("surrogate", 2, 3)
    means = _mean_energies(folded.table[:, : at.size], folded.e_nu_MeV)
    options: dict[str, Any] = {"windows": windows, "matter": matter}
    nodes = HarmonicPredictor.build(_part(folded, 0, at.size), mean_e_nu_MeV=means, tolerance=COEFFICIENTS, **options)
    corrections = HarmonicPredictor.build(
        _part(folded, at.size, ROW_SETS * at.size),
        mean_e_nu_MeV=np.tile(means, ROW_SETS - 1),
        tolerance=EXCESS_COEFFICIENTS,
        moments=False,
        **options,
    )
    model = DetectorModel.build(cascades.experiment, nominal.light)
    e = model.electronics
    constants = np.array([light.anchor_cherenkov, e.pe_per_photon, e.charge_sigma, e.dark_pe, e.constant])
    draft = SurrogatePredictor(
        edges_MeV=tuple(float(x) for x in edges),
        ranges=tuple((float(box[n][0]), float(box[n][1])) for n in RESPONSE),
        reference=tuple(float(vars(nominal)[n]) for n in RESPONSE),
        provenance=Provenance({"predictor": "surrogate", **cascades.provenance}),
        nodes=nodes,
        excess=corrections,
        stacked=stack(nodes, corrections),
        per_event=cascades.scale,
        span=0,
        first_node=float(np.sqrt(at[0])),
        block_edges=jax.device_put(block_edges(edges)),
        light=jnp.asarray(np.concatenate([_shift(light.energy, at)[None], light.moments, light.levers]), jnp.float32),
        inverse=jnp.asarray(light.inverse, jnp.float32),
        anchor=jax.device_put(light.anchor_quenched),
        constants=jax.device_put(constants),
    )
    built = replace(draft, span=_span(draft))
    counts = np.asarray(built.unoscillated())
    if not np.all(counts > 0):
        empty = int(np.argmin(counts))
        raise NuebarError(
            f"bin {empty} ({edges[empty]:g} to {edges[empty + 1]:g} MeV) gets no events; take wider or fewer bins, or "
            "more cascades"
        )
    tick("surrogate", 3, 3)
    about = Provenance({**built.provenance, "seconds": f"{time.perf_counter() - began:.1f}"})
    return replace(built, provenance=about)


def _shift(energy: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Coefficients of the shift from those of the energy."""
    out = energy.copy()
    out[:, 0, 0] -= at
    return out


def _node_energies(edges: np.ndarray, box: Box) -> np.ndarray:
    """Reference energies of the nodes: all that can be reconstructed inside the bins somewhere in the box."""
    low, high = edges[0], edges[-1]
    width = [REACH_sigma * 0.045 * np.sqrt(e) * (1 + 0.02 * e) for e in (low, high)]
    first = max(np.sqrt(max(0.93 * low - width[0], 0.1)), 0.4)
    last = np.sqrt(1.06 * high + width[1])
    n = int(np.ceil((last - first) / NODE_STEP)) + NODE_POINTS
    return (first + NODE_STEP * (np.arange(n) - NODE_POINTS // 2)) ** 2


def stack(nodes: HarmonicPredictor, excess: HarmonicPredictor) -> Array:
    """Tables of both in vacuum as one matrix in single precision, for :func:`vacuum_basis` of the first."""
    sizes = [x.value.shape[-1] for x in (nodes.total.solar, nodes.total.atmospheric)]
    tables = []
    for part in (nodes, excess):
        series = (part.total.solar, part.total.atmospheric)
        values = [np.asarray(x.value)[:, :n] for x, n in zip(series, sizes, strict=True)]
        padded = [np.pad(v, ((0, 0), (0, n - v.shape[1]))) for v, n in zip(values, sizes, strict=True)]
        tables.append(np.concatenate([np.asarray(part.total.flat)[:, None], *padded], axis=1))
    return jnp.asarray(np.concatenate(tables), jnp.float32)


def _excess_weights(e0: np.ndarray, excess: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The two excesses of every event, and their products less the mean at its energy, shape ``(5, events)``."""
    cell = np.clip((np.sqrt(e0) - np.sqrt(at[0])) / NODE_STEP + 0.5, 0, at.size - 1).astype(int)
    events = np.maximum(np.bincount(cell, minlength=at.size), 1)
    rows = [*excess]
    for k, m in ((0, 0), (0, 1), (1, 1)):
        product = excess[k] * excess[m]
        mean = np.bincount(cell, product, minlength=at.size) / events
        rows.append(product - np.interp(np.sqrt(e0), np.sqrt(at), mean))
    return np.array(rows)


def _fold_nodes(cascades: Cascades, e0: np.ndarray, weights: np.ndarray, at: np.ndarray) -> Folded:
    """Events, and events times weights, in reference and inverse neutrino energy; a set of rows each."""
    grid = InverseGrid.reaching(float(cascades.baseline_km.max()))
    table = empty_table(cascades.baseline_km.size, ROW_SETS * at.size, grid)
    _fold(
        e0,
        np.ascontiguousarray(weights.T),
        cascades.e_nu_MeV,
        cascades.core,
        float(np.sqrt(at[0])),
        NODE_STEP,
        lagrange_weights(NODE_POINTS),
        grid.low,
        grid.step,
        lagrange_weights(POINTS),
        table,
    )
    table *= cascades.scale
    edges = np.arange(ROW_SETS * at.size + 1.0)  # rows, not energies
    density = cascades.experiment.matter.electrons_per_nucleon
    return Folded(edges, grid, table, cascades.baseline_km, cascades.core_names, density, {})


def _part(folded: Folded, first: int, last: int) -> Folded:
    """Some of the rows."""
    edges = np.arange(last - first + 1.0)
    return replace(folded, table=folded.table[:, first:last], edges_MeV=edges)


def _mean_energies(table: np.ndarray, e_nu_MeV: np.ndarray) -> np.ndarray:
    """Mean neutrino energy of every row; over some neighbours, as the weights of the nodes have both signs."""
    together = table.sum(axis=0)
    window = np.hanning(2 * NODE_POINTS + 1)
    total, first = (np.convolve(together @ e, window, mode="same") for e in (np.ones(e_nu_MeV.size), e_nu_MeV))
    good = np.flatnonzero(total > 1e-6 * total.max())
    return np.interp(np.arange(total.size), good, first[good] / total[good])


@njit
def _fold(
    e0: np.ndarray,
    excess: np.ndarray,
    e_nu: np.ndarray,
    core: np.ndarray,
    first: float,
    step: float,
    row_denominators: np.ndarray,
    low: float,
    width: float,
    denominators: np.ndarray,
    table: np.ndarray,
) -> None:
    points, rows = denominators.size, row_denominators.size
    weights, in_rows = np.empty(points), np.empty(rows)
    sets = excess.shape[1]
    nodes = table.shape[1] // (sets + 1)
    for i in range(e0.size):
        u = (np.sqrt(e0[i]) - first) / step
        row = int(np.floor(u)) - rows // 2 + 1
        if row < 0 or row + rows > nodes:
            continue
        spread(u - row, row_denominators, in_rows)
        place = (1.0 / e_nu[i] - low) / width
        node = int(place) - points // 2 + 1
        spread(place - node, denominators, weights)
        c = core[i]
        for a in range(rows):
            for m in range(points):
                table[c, row + a, node + m] += in_rows[a] * weights[m]
            for q in range(sets):
                w = in_rows[a] * excess[i, q]
                for m in range(points):
                    table[c, (q + 1) * nodes + row + a, node + m] += w * weights[m]


def block_edges(edges: np.ndarray, bins: int = BLOCK_BINS) -> np.ndarray:
    """Edges of every block of bins, shape ``(blocks, bins + 1)``; the last one is filled with its last edge.

    Args:
        edges: Of the bins.
        bins: How many in a block.
    """
    starts = np.arange(0, edges.size - 1, bins)
    return edges[np.minimum(starts[:, None] + np.arange(bins + 1), edges.size - 1)]


def _span(s: SurrogatePredictor) -> int:
    """Nodes around the middle of a block that its edges can see, the most over the corners of the box."""
    edges, most = np.asarray(s.block_edges), 0
    for corner in np.ndindex(*(2,) * len(RESPONSE)):
        r = jnp.array([r[k] for r, k in zip(s.ranges, corner, strict=True)])
        mean, inverse, middle = (np.asarray(x) for x in _corner(s, r))
        for k, block in enumerate(edges):
            seen = (mean + REACH_sigma / inverse > block[0]) & (mean - REACH_sigma / inverse < block[-1])
            reached = np.flatnonzero(seen)
            most = max(most, int(reached[-1] - middle[k]), int(middle[k] - reached[0]))
    return 2 * (most + 1)


@jax.jit
def _corner(s: SurrogatePredictor, r: Array) -> tuple[Array, Array, Array]:
    mean, inverse, *_ = _shapes(s, r)
    return mean, inverse, _first_nodes(s, mean)
