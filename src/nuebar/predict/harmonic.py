"""The harmonic predictor: the oscillated spectrum as a few smooth functions of one mass splitting each.

In vacuum P = 1 - 2 Σ v_q (1 - cos 2φ_q), φ_q = κ Δm²_q L / E, q = 21, 31, 32: the v_q = |U_ei|²|U_ej|² hold
only the mixing angles. So every bin of a fixed response is S_b = F_b - 2 Σ v_q (F_b - G_b(Δm²_q)), where
G_b(x) = Σ w cos(2κ x L / E) is a smooth function of one variable, summed over cores and energies once and for
all and kept as a Chebyshev series. The mixing angles are not bounded by any box.

In matter of constant density the same holds with v_q(E) and Δm²_q + ν_q(E), which vary slowly with energy. A
reconstructed bin sees a narrow range of neutrino energies around its mean E_b, so v_q and ν_q are expanded to
first order in E - E_b: that needs, beside G_b, its first moment G1_b(x) = Σ w (E - E_b) cos(2κ x L / E); the shift
ν_q moves the argument of both and is taken as a Taylor series of the Chebyshev series. Nothing is fitted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike
from scipy.fft import dct

from nuebar.errors import NuebarError
from nuebar.parameters import OSCILLATION
from nuebar.physics.oscillation import Eigensystem, PHASE_per_eV2_km_MeV, POTENTIAL_eV2_per_MeV, eigensystem
from nuebar.predict.box import PHYSICS, Box, Provenance, check_inside, check_parameters, physics_vector
from nuebar.predict.mc_error import scaled_mc
from nuebar.predict.smooth import with_cached_derivatives

__all__ = ["HarmonicPredictor", "Source", "Windows", "chebyshev_rows", "physical_channels", "vacuum_basis"]

TOLERANCE = 1e-12  # Chebyshev coefficients below this fraction of a channel's largest bin are dropped
CORE_TOLERANCE = 1e-7  # the same for single cores
MOST_NODES = 20_000  # a table of 0.3 GB while it is built
ENERGY_NODES = 8  # degree of the polynomials in energy that carry v_q and ν_q from the nodes to the bins


class Source(Protocol):
    """Events without oscillations, from which a predictor is built.

    :class:`nuebar.predict.signal.SignalInputs` computes them; :class:`nuebar.predict.folded.Folded` counts Monte
    Carlo events.
    """

    @property
    def e_nu_MeV(self) -> np.ndarray:
        """Neutrino energies of the nodes, shape ``(nodes,)``."""
        ...

    @property
    def core_names(self) -> tuple[str, ...]:
        """Names of the cores."""
        ...

    @property
    def baseline_km(self) -> np.ndarray:
        """Distance of every core."""
        ...

    @property
    def edges_MeV(self) -> np.ndarray:
        """Bins of reconstructed energy."""
        ...

    @property
    def electrons_per_nucleon(self) -> float:
        """Y_e of the matter along the baselines."""
        ...

    @property
    def provenance(self) -> Mapping[str, str]:
        """What the events are."""
        ...

    def fold(self, cores: np.ndarray, values: Iterator[np.ndarray], *, together: bool) -> np.ndarray:
        """Sum functions of the energy over the events of every bin.

        Args:
            cores: Indices of cores.
            values: For each of them the functions at the energies, shape ``(nodes, n)``.
            together: Sum over the cores.

        Returns:
            Shape ``(1, bins, n)`` if together, else ``(len(cores), bins, n)``.
        """
        ...


@dataclass(frozen=True)
class Windows:
    """Ranges of the mass splittings that the series cover, in eV².

    Attributes:
        solar: Δm²21.
        atmospheric: |Δm²31| and |Δm²32|, both orderings.
    """

    solar: tuple[float, float]
    atmospheric: tuple[float, float]

    def __post_init__(self) -> None:
        """Refuse windows that are not (low, high), or too narrow for both Δm²31 and Δm²32."""
        for name, window in (("solar", self.solar), ("atmospheric", self.atmospheric)):
            if not (len(window) == 2 and 0 < window[0] < window[1] < np.inf):
                raise NuebarError(f"{name} window: expected 0 < low < high in eV², got {window}")
        for low, high in (self.normal(), self.inverted()):
            if not low < high:
                raise NuebarError(
                    f"atmospheric window: expected it wider than the upper end {self.solar[1]:g} eV² of the solar "
                    f"one, since it holds Δm²31 and Δm²32, got {self.atmospheric}; widen it"
                )

    @classmethod
    def around_pdg(cls, n_sigma: float = 15.0) -> Windows:
        """N standard deviations around PDG 2022 in both orderings.

        PDG 2022: Δm²21 = (7.53 ± 0.18)e-5; Δm²32 = (2.437 ± 0.033)e-3 (normal), (-2.519 ± 0.033)e-3 (inverted).
        """
        if not 0 < n_sigma < np.inf:
            raise NuebarError(f"windows: expected a number of standard deviations above 0, got {n_sigma}")
        d21, s21, s32 = 7.53e-5, 0.18e-5, 0.033e-3
        solar = (max(d21 - n_sigma * s21, 0.5e-5), d21 + n_sigma * s21)
        # |Δm²32| in the normal and |Δm²31| in the inverted ordering are the smaller ones of their pairs.
        low = min(2.437e-3 + d21 - n_sigma * s32 - solar[1], 2.519e-3 - d21 - n_sigma * s32)
        high = max(2.437e-3 + d21 + n_sigma * s32, 2.519e-3 - d21 + n_sigma * s32 + solar[1])
        return cls(solar, (max(low, 0.5e-3), high))

    def box(self) -> Box:
        """Limits of the parameters: |Δm²31| is given for the normal ordering and mirrored for the inverted."""
        return {"dm2_21_eV2": self.solar, "dm2_31_eV2": self.normal()}

    def normal(self) -> tuple[float, float]:
        """Δm²31 > 0 such that Δm²31 and Δm²32 stay in the window for every Δm²21 of the solar window."""
        return (self.atmospheric[0] + self.solar[1], self.atmospheric[1])

    def inverted(self) -> tuple[float, float]:
        """Δm²31 < 0 such that Δm²31 and Δm²32 stay in the window for every Δm²21 of the solar window."""
        return (-(self.atmospheric[1] - self.solar[1]), -self.atmospheric[0])


class Series(eqx.Module):
    """Chebyshev series of G_b and G1_b over one window.

    Attributes:
        middle: Centre of the window in eV².
        half: Half width, somewhat larger than the window so that derivatives stay regular at its ends.
        value: Coefficients of G, shape ``(..., bins, n)``.
        moment: Coefficients of G1 in MeV, same shape; of size zero where it is not kept.
    """

    middle: float = eqx.field(static=True)
    half: float = eqx.field(static=True)
    value: Array
    moment: Array


class Sums(eqx.Module):
    """What is left of cores and energies: un-oscillated counts, their first moment, and the two series.

    Leading axes, if any, run over cores.
    """

    flat: Array
    flat_moment: Array
    solar: Series
    atmospheric: Series


class HarmonicPredictor(eqx.Module):
    """The exact factorised predictor.

    Attributes:
        edges_MeV: Bins of reconstructed energy, ``bins + 1`` numbers.
        windows: Ranges of the mass splittings.
        matter: Whether the tables hold what matter needs.
        core_names: Names of the cores that can be told apart; empty if they were only summed.
        provenance: What it was built from.
        total: Sums over all cores.
        cores: Sums of single cores in groups of about equal baseline, for power pulls: with fewer digits and
            without the moments, since they enter as small relative changes.
        mc_relative: Relative covariance of the bins from the number of Monte Carlo events, at the parameters of the
            build: variances, shape ``(bins,)``, or all of it, ``(bins, bins)``; None where it is not known.
    """

    edges_MeV: tuple[float, ...] = eqx.field(static=True)
    windows: Windows = eqx.field(static=True)
    matter: bool = eqx.field(static=True)
    core_names: tuple[str, ...] = eqx.field(static=True)
    core_order: tuple[int, ...] = eqx.field(static=True)
    provenance: Provenance = eqx.field(static=True)
    electrons_per_nucleon: float = eqx.field(static=True)
    energy_nodes_MeV: Array
    to_bins: Array
    to_slopes: Array
    total: Sums
    cores: tuple[Sums, ...]
    mc_relative: Array | None = None

    @classmethod
    def build(
        cls,
        inputs: Source,
        *,
        windows: Windows | None = None,
        matter: bool = True,
        cores: bool = False,
        tolerance: float = TOLERANCE,
        mean_e_nu_MeV: np.ndarray | None = None,
        moments: bool = True,
    ) -> HarmonicPredictor:
        """Sum cosines over cores and energies at Chebyshev nodes of the windows.

        Args:
            inputs: From :func:`nuebar.predict.signal.signal_inputs`, or folded Monte Carlo events.
            windows: Ranges of the mass splittings; ±15σ of PDG 2022 by default.
            matter: Keep what constant-density matter needs.
            cores: Keep each core apart as well, for pulls on their power.
            tolerance: Relative size below which coefficients are dropped.
            mean_e_nu_MeV: Energies around which matter is expanded in each bin; the means by default.
            moments: Keep the first order of that expansion.

        Returns:
            The predictor.
        """
        windows = windows or Windows.around_pdg()
        mean = _mean_energy(inputs) if mean_e_nu_MeV is None else mean_e_nu_MeV
        nodes, to_bins, to_slopes = _energy_interpolation(inputs.e_nu_MeV, mean)
        groups = _core_groups(inputs.baseline_km) if cores else []
        order = np.argsort(np.concatenate(groups)) if groups else np.empty(0, int)
        return cls(
            edges_MeV=tuple(float(e) for e in inputs.edges_MeV),
            windows=windows,
            matter=matter,
            core_names=inputs.core_names if cores else (),
            core_order=tuple(int(k) for k in order),
            provenance=Provenance({"predictor": "harmonic", **inputs.provenance}),
            electrons_per_nucleon=inputs.electrons_per_nucleon,
            energy_nodes_MeV=jax.device_put(nodes),
            to_bins=jax.device_put(to_bins),
            to_slopes=jax.device_put(to_slopes),
            total=_sums(inputs, np.arange(len(inputs.core_names)), True, mean, windows, matter and moments, tolerance),
            cores=tuple(_sums(inputs, g, False, mean, windows, False, CORE_TOLERANCE) for g in groups),
        )

    @property
    def name(self) -> str:
        """How the predictor is called in results and on the command line."""
        return "harmonic"

    @property
    def edges(self) -> np.ndarray:
        """Bins of reconstructed energy in MeV, shape ``(bins + 1,)``."""
        return np.array(self.edges_MeV)

    @property
    def box(self) -> Box:
        """Limits of the mass splittings (normal ordering); the mixing angles have none."""
        return self.windows.box()

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Everything it takes; the density may be left out (vacuum)."""
        return PHYSICS if self.matter else OSCILLATION

    @property
    def nbytes(self) -> int:
        """Size of the tables."""
        return sum(x.nbytes for x in jax.tree.leaves(self))

    def predict(self, parameters: Mapping[str, ArrayLike]) -> Array:
        """Expected signal counts per bin.

        Args:
            parameters: The four oscillation parameters by name, and ``matter_density_g_cm3`` if not vacuum.

        Returns:
            Counts, shape ``(bins,)``.

        Raises:
            NuebarError: A mass splitting outside the windows, or an unknown parameter.
        """
        check_parameters(parameters, self.parameter_names, OSCILLATION)
        self.check(parameters)
        return _predict(self, physics_vector(parameters))

    def channels(self, p: ArrayLike) -> Array:
        """Counts of all cores together (row 0) and of each core, shape ``(1 + cores, bins)``.

        Args:
            p: The five numbers of :data:`nuebar.predict.box.PHYSICS`.
        """
        return _channels(self, p)

    def unoscillated(self) -> Array:
        """Counts per bin without oscillations."""
        return self.total.flat

    def check(self, parameters: Mapping[str, ArrayLike]) -> None:
        """Refuse mass splittings outside the windows (concrete values only)."""
        d31 = parameters["dm2_31_eV2"]
        negative = not isinstance(d31, jax.core.Tracer) and bool(np.all(np.asarray(d31) < 0))
        limits = self.windows.inverted() if negative else self.windows.normal()
        check_inside(parameters, {"dm2_21_eV2": self.windows.solar, "dm2_31_eV2": limits}, "harmonic")

    def mc_covariance(self, parameters: Mapping[str, ArrayLike]) -> np.ndarray | None:
        """Monte Carlo covariance of the counts, in the form of ``mc_relative``."""
        if self.mc_relative is None:
            return None
        return scaled_mc(np.asarray(self.mc_relative), np.asarray(self.predict(parameters)))


# ---------------------------------------------------------------- evaluation


def _basis(x: ArrayLike, series: Series, orders: int) -> Array:
    """T_k and its derivatives with respect to the splitting, shape ``(n, orders)``."""
    t = (jnp.asarray(x) - series.middle) / series.half
    return chebyshev_rows(t, series.value.shape[-1], orders) / series.half ** jnp.arange(orders)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def chebyshev_rows(t: Array, n: int, orders: int) -> Array:
    """T_k(t), k < n, and derivatives, shape ``(n, orders)``; |t| < 1.

    cos(k arccos t), its derivative, and Chebyshev's equation differentiated m times:
    (1 - t²) T^(m+2) = (2m + 1) t T^(m+1) + (m² - k²) T^(m).
    """
    k = jnp.arange(n)
    one = 1.0 - t * t
    angle = k * jnp.arccos(t)
    rows = [jnp.cos(angle), k * jnp.sin(angle) / jnp.sqrt(one)]
    for m in range(orders - 2):
        rows.append(((2 * m + 1) * t * rows[m + 1] + (m * m - k * k) * rows[m]) / one)
    return jnp.stack(rows[:orders], axis=-1)


@chebyshev_rows.defjvp
def chebyshev_rows_jvp(n: int, orders: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    rows = chebyshev_rows(primals[0], n, orders + 1)
    return rows[:, :orders], rows[:, 1:] * tangents[0]


@partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _summed(table: Array, x: Array, middle: float, half: float, orders: int) -> Array:
    """Σ_k table_k T_k and its derivatives in the splitting, shape ``(..., bins, orders)``.

    Every derivative in any parameter is a number times the next column, so that differentiation adds one column
    to the product and nothing else, however many directions are asked for.
    """
    rows = chebyshev_rows((x - middle) / half, table.shape[-1], orders)
    return table @ (rows / half ** jnp.arange(orders))


def _summed_jvp(
    middle: float, half: float, orders: int, primals: tuple[Array, Array], tangents: tuple[Any, Any]
) -> tuple[Array, Array]:
    table, x = primals
    wider = _summed(table, x, middle, half, orders + 1)
    out, moved = wider[..., :orders], jnp.zeros_like(wider[..., 1:])
    if not isinstance(tangents[1], SymbolicZero):
        moved = wider[..., 1:] * tangents[1]
    if not isinstance(tangents[0], SymbolicZero):
        moved = moved + _summed(tangents[0], x, middle, half, orders)
    return out, moved


_summed.defjvp(_summed_jvp, symbolic_zeros=True)


def vacuum_basis(sums: Sums, p: Array) -> Array:
    """What multiplies un-oscillated counts, solar and atmospheric coefficients in vacuum, in this order."""
    s12, s13, d21, d31 = p[0], p[1], p[2], p[3]
    w1, w2, w3 = (1 - s13) * (1 - s12), (1 - s13) * s12, s13
    solar = w1 * w2 * _basis(d21, sums.solar, 1)[:, 0]
    fast = w1 * w3 * _basis(jnp.abs(d31), sums.atmospheric, 1)[:, 0]
    fast += w2 * w3 * _basis(jnp.abs(d31 - d21), sums.atmospheric, 1)[:, 0]
    total = w1 * w2 + (w1 + w2) * w3
    return jnp.concatenate([(1.0 - 2.0 * total)[None], 2.0 * solar, 2.0 * fast])


def _vacuum(sums: Sums, p: Array) -> Array:
    """Counts per bin in vacuum, shape ``(..., bins)``."""
    basis = vacuum_basis(sums, p)
    n = sums.solar.value.shape[-1]
    return basis[0] * sums.flat + sums.solar.value @ basis[1 : n + 1] + sums.atmospheric.value @ basis[n + 1 :]


def _in_bins(predictor: HarmonicPredictor, p: Array) -> tuple[Array, Array]:
    """Values in every bin and slopes in energy of (v_21, v_31, v_32, ν_21, ν_31, ν_32), ``(6, bins)`` each."""
    unit = POTENTIAL_eV2_per_MeV * predictor.electrons_per_nucleon
    potential = unit * p[4] * predictor.energy_nodes_MeV
    m: Eigensystem = eigensystem(potential, **dict(zip(OSCILLATION, p[:4], strict=True)))
    d21, d31 = p[2], p[3]
    at_nodes = jnp.stack(
        [m.w1 * m.w2, m.w1 * m.w3, m.w2 * m.w3, m.dm2_21 - d21, m.dm2_31 - d31, m.dm2_32 - (d31 - d21)]
    )
    return at_nodes @ predictor.to_bins, at_nodes @ predictor.to_slopes


def _waves(series: Series, x: ArrayLike, v: Array, slope_v: Array, nu: Array, slope_nu: Array) -> Array:
    """Σ w v(E) cos(2κ (x + ν(E)) L / E) in every bin, shape ``(..., bins)``."""
    if not series.moment.shape[-1]:
        g = _summed(series.value, x, series.middle, series.half, 3)
        return v * (g[..., 0] + nu * (g[..., 1] + 0.5 * nu * g[..., 2]))
    g = _summed(series.value, x, series.middle, series.half, 4)
    g1 = _summed(series.moment, x, series.middle, series.half, 3)
    value = g[..., 0] + nu * (g[..., 1] + nu * (g[..., 2] / 2.0 + nu * g[..., 3] / 6.0))
    moment = g1[..., 0] + nu * (g1[..., 1] + nu * g1[..., 2] / 2.0)
    moved = g1[..., 1] + nu * g1[..., 2]
    return v * value + slope_v * moment + v * slope_nu * moved


def _matter(sums: Sums, p: Array, bins: Array, slopes: Array) -> Array:
    """Counts per bin in matter, shape ``(..., bins)``."""
    d21, d31 = p[2], p[3]
    sign = jnp.sign(d31)
    total, slope_total = jnp.sum(bins[:3], axis=0), jnp.sum(slopes[:3], axis=0)
    waves = _waves(sums.solar, d21, bins[0], slopes[0], bins[3], slopes[3])
    for k, x in ((1, d31), (2, d31 - d21)):
        nu, slope = sign * bins[3 + k], sign * slopes[3 + k]
        waves += _waves(sums.atmospheric, sign * x, bins[k], slopes[k], nu, slope)
    return (1.0 - 2.0 * total) * sums.flat - 2.0 * slope_total * sums.flat_moment + 2.0 * waves


@jax.jit
def _predict(predictor: HarmonicPredictor, p: Array) -> Array:
    if not predictor.matter:
        return _vacuum(predictor.total, p)
    return _matter(predictor.total, p, *_in_bins(predictor, p))


def physical_channels(predictor: HarmonicPredictor, p: Array) -> Array:
    """What :meth:`HarmonicPredictor.channels` computes, for use inside of other functions."""
    if predictor.matter:
        bins, slopes = _in_bins(predictor, p)
        total = _matter(predictor.total, p, bins, slopes)[None]
        cores = [_matter(group, p, bins, slopes) for group in predictor.cores]
    else:
        total, cores = _vacuum(predictor.total, p)[None], [_vacuum(group, p) for group in predictor.cores]
    if not cores:
        return total
    return jnp.concatenate([total, jnp.concatenate(cores)[jnp.array(predictor.core_order)]])


_channels = with_cached_derivatives(physical_channels)


# ---------------------------------------------------------------- building


def _core_groups(baseline_km: np.ndarray) -> list[np.ndarray]:
    """Indices of the cores in groups whose baselines differ by less than half, so that series have one length."""
    left, groups = np.arange(baseline_km.size), []
    while left.size:
        near = baseline_km[left] < 1.5 * baseline_km[left].min()
        groups.append(left[near])
        left = left[~near]
    return groups


def _mean_energy(inputs: Source) -> np.ndarray:
    """Mean neutrino energy of each fine bin without oscillations; the nearest bin's where one is empty."""
    cores = np.arange(len(inputs.core_names))
    powers = np.stack([np.ones_like(inputs.e_nu_MeV), inputs.e_nu_MeV], axis=1)
    total, first = inputs.fold(cores, (powers for _ in cores), together=True)[0].T
    good = total > 1e-30 * total.max()
    mean = np.full(total.size, np.nan)
    mean[good] = np.clip(first[good] / total[good], inputs.e_nu_MeV.min(), inputs.e_nu_MeV.max())
    index = np.arange(total.size)
    return np.interp(index, index[good], mean[good])


def _energy_interpolation(e_nu: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chebyshev energies, and the matrices from values there to values and slopes at the mean energies."""
    low, high = e_nu.min(), e_nu.max()
    k = np.arange(ENERGY_NODES)
    t = np.cos(np.pi * (k + 0.5) / ENERGY_NODES)
    nodes = 0.5 * (low + high) + 0.5 * (high - low) * t
    inverse = np.linalg.inv(np.polynomial.chebyshev.chebvander(t, ENERGY_NODES - 1))
    at = (2.0 * mean - low - high) / (high - low)
    values = np.polynomial.chebyshev.chebvander(at, ENERGY_NODES - 1) @ inverse
    derivative = np.polynomial.chebyshev.chebder(np.eye(ENERGY_NODES)) * 2.0 / (high - low)
    slopes = np.polynomial.chebyshev.chebvander(at, ENERGY_NODES - 2) @ derivative @ inverse
    return nodes, values.T, slopes.T


def _sums(
    inputs: Source,
    cores: np.ndarray,
    together: bool,
    mean: np.ndarray,
    windows: Windows,
    moments: bool,
    tolerance: float,
) -> Sums:
    """Sum over energies, and over the cores if ``together``; else the first axis runs over the cores."""
    powers = np.stack([np.ones_like(inputs.e_nu_MeV), inputs.e_nu_MeV], axis=1)
    flat, first = np.moveaxis(inputs.fold(cores, (powers for _ in cores), together=together), -1, 0)
    first = first - flat * mean
    if together:
        flat, first = flat[0], first[0]
    both = (windows.solar, windows.atmospheric)
    series = [_series(inputs, cores, together, mean, w, moments, tolerance) for w in both]
    return Sums(jax.device_put(flat), jax.device_put(first), *series)


def _series(
    inputs: Source,
    cores: np.ndarray,
    together: bool,
    mean: np.ndarray,
    window: tuple[float, float],
    moments: bool,
    tolerance: float,
) -> Series:
    """Chebyshev coefficients of G and G1 over a window, cut where nothing is left above the tolerance."""
    middle, half = 0.5 * (window[0] + window[1]), 0.5 * (window[1] - window[0]) * 1.02
    reach = 2.0 * PHASE_per_eV2_km_MeV * inputs.baseline_km[cores].max() / inputs.e_nu_MeV.min() * half
    if reach > MOST_NODES:
        raise NuebarError(
            f"the harmonic predictor would need {reach:.0f} nodes for Δm² from {window[0]:g} to {window[1]:g} eV² at "
            f"{inputs.baseline_km[cores].max():g} km, more than {MOST_NODES}; narrow the windows or use the matrix"
        )
    n = int(reach + 8.0 * reach ** (1.0 / 3.0) + 25)
    x = middle + half * np.cos(np.pi * (np.arange(n) + 0.5) / n)
    e_nu = inputs.e_nu_MeV[:, None]

    def waves() -> Iterator[np.ndarray]:
        for c in cores:
            yield np.cos(2.0 * PHASE_per_eV2_km_MeV * inputs.baseline_km[c] / e_nu * x)

    value = _chebyshev(inputs.fold(cores, waves(), together=together))
    keep = int(np.flatnonzero(np.any(np.abs(value) > tolerance * np.abs(value).max(), axis=(0, 1))).max()) + 1
    moment = np.zeros((value.shape[0], mean.size, 0))
    if moments:
        moment = _chebyshev(inputs.fold(cores, (e_nu * w for w in waves()), together=together))[:, :, :keep]
        moment -= mean[:, None] * value[:, :, :keep]
    value = value[:, :, :keep]
    if together:
        value, moment = value[0], moment[0]
    return Series(middle, half, jax.device_put(value), jax.device_put(moment))


def _chebyshev(samples: np.ndarray) -> np.ndarray:
    """Coefficients from samples at the roots of T_n (last axis)."""
    out = dct(samples, type=2, axis=-1) / samples.shape[-1]
    out[..., 0] *= 0.5
    return out
