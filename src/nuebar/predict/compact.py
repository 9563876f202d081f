"""The harmonic predictor for many fits at once: the same series as one small matrix product.

In matter every bin is a sum of v_q(E) cos(2κ (Δm²_q + ν_q(E)) L/E) with v_q and ν_q that vary slowly with energy. With
Chebyshev series for the cosines and Lagrange's interpolation in energy for everything slow, what a bin sees is

    S_b = Σ_jk [ℓ_j(E_b) C_bk + ℓ'_j(E_b) C1_bk] v_q(E_j) T_k(Δm²_q + ν_q(E_j)),

C and C1 the coefficients of G_b and its first moment (see :mod:`nuebar.predict.harmonic`), ℓ_j the polynomials of a few
energies E_j. The brackets are numbers, all bins and cores are linear in a few hundred features of the parameters, and
their matrix has a much smaller rank: it is stored as a product. Value and derivatives are then products with the same
small matrices, whose cost no longer depends on the number of bins; no Taylor series of the series is needed.

Windows narrower than those of the harmonic predictor make fewer features.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from scipy.fft import dct

from nuebar.errors import NuebarError
from nuebar.parameters import OSCILLATION
from nuebar.physics.oscillation import POTENTIAL_eV2_per_MeV, eigensystem
from nuebar.predict.box import PHYSICS, Box, Provenance, check_inside, check_parameters, physics_vector
from nuebar.predict.harmonic import HarmonicPredictor, Series, Sums, Windows

__all__ = ["CompactHarmonic"]

ENERGIES = 5
TOLERANCE = 1e-7  # of the statistical error of a bin: directions of the table below it are dropped
CORE_TOLERANCE = 1e-4  # single cores enter as changes of a percent
COEFFICIENTS = 1e-9  # of the largest one: what is dropped of the series
TERMS_STEP, RANK_STEP = 4, 16  # sizes are rounded up to multiples, so that similar predictors share compiled programs
MARGIN_g_cm3 = 5.0  # the series hold splittings in matter up to this density


class CompactHarmonic(eqx.Module):
    """A :class:`nuebar.predict.harmonic.HarmonicPredictor` as a product of two small matrices.

    Attributes:
        edges_MeV: Bins of reconstructed energy.
        limits: Ranges of the mass splittings in eV²: solar and atmospheric, shape ``(2, 2)``.
        matter: Whether it knows matter.
        core_names: Cores that it tells apart.
        provenance: Of the harmonic predictor.
        electrons_per_nucleon: Y_e.
        terms: Number of terms of the two series.
        intervals: Their middle and half width in eV², shape ``(2, 2)``.
        energies_MeV: Nodes of the energy, shape ``(J,)``.
        flat: Counts without oscillations, shape ``(bins,)``.
        left: Shape ``(bins, rank)``; ``right``: shape ``(rank, features)``.
        core_left: Shape ``(cores, bins, rank)``; ``core_right`` likewise.
    """

    edges_MeV: tuple[float, ...] = eqx.field(static=True)
    matter: bool = eqx.field(static=True)
    core_names: tuple[str, ...] = eqx.field(static=True)
    provenance: Provenance = eqx.field(static=True)
    electrons_per_nucleon: float = eqx.field(static=True)
    terms: tuple[int, int] = eqx.field(static=True)
    limits: Array
    intervals: Array
    energies_MeV: Array
    flat: Array
    left: Array
    right: Array
    core_left: Array
    core_right: Array

    @classmethod
    def of(cls, harmonic: HarmonicPredictor, *, windows: Windows | None = None, cores: bool = True) -> CompactHarmonic:
        """From a harmonic predictor.

        Args:
            harmonic: The predictor.
            windows: Ranges of the mass splittings, inside of those of the predictor; its own by default.
            cores: Keep single cores.

        Raises:
            NuebarError: A window is not inside.
        """
        given = harmonic.windows
        windows = windows or given
        for name in ("solar", "atmospheric"):
            (low, high), (least, most) = getattr(windows, name), getattr(given, name)
            if not (least * (1 - 1e-9) <= low and high <= most * (1 + 1e-9)):
                raise NuebarError(
                    f"{name} window: expected one inside [{least:g}, {most:g}] eV² of the harmonic predictor, got "
                    f"[{low:g}, {high:g}]; build that with wider windows"
                )
        energies, values, slopes = _interpolation(harmonic)
        margin = POTENTIAL_eV2_per_MeV * harmonic.electrons_per_nucleon * MARGIN_g_cm3 * float(energies.max())
        margin = margin if harmonic.matter else 0.0
        total = harmonic.total
        both = [_interval(w, margin) for w in (windows.solar, windows.atmospheric)]
        groups = harmonic.cores if cores else ()
        terms = [
            _rounded_up(max(_again(getattr(s, kind), interval)[1] for s in (total, *groups)), TERMS_STEP)
            for kind, interval in zip(("solar", "atmospheric"), both, strict=True)
        ]
        table = _table(total, both, terms, values, slopes)
        flat = np.asarray(total.flat)
        error = np.sqrt(np.maximum(flat, 1e-6 * flat.max()))
        left, right = _factors(table, error, TOLERANCE)
        core_left, core_right = np.zeros((0, flat.size, 1)), np.zeros((1, table.shape[-1]))
        if groups:
            rows = np.concatenate([_table(s, both, terms, values, slopes) for s in groups])
            rows = rows[np.array(harmonic.core_order)]
            core_left, core_right = _factors(rows, error, CORE_TOLERANCE)
        return cls(
            edges_MeV=harmonic.edges_MeV,
            matter=harmonic.matter,
            core_names=harmonic.core_names if groups else (),
            provenance=harmonic.provenance,
            electrons_per_nucleon=harmonic.electrons_per_nucleon,
            terms=(terms[0], terms[1]),
            limits=jax.device_put(np.array([windows.solar, windows.atmospheric])),
            intervals=jax.device_put(np.array(both)),
            energies_MeV=jax.device_put(energies),
            flat=jax.device_put(flat),
            left=jax.device_put(left),
            right=jax.device_put(right),
            core_left=jax.device_put(core_left),
            core_right=jax.device_put(core_right),
        )

    @property
    def name(self) -> str:
        """It is the harmonic predictor in another form."""
        return "harmonic"

    @property
    def windows(self) -> Windows:
        """Ranges of the mass splittings."""
        solar, fast = (tuple(float(x) for x in row) for row in np.asarray(self.limits))
        return Windows((solar[0], solar[1]), (fast[0], fast[1]))

    @property
    def edges(self) -> np.ndarray:
        """Bins of reconstructed energy in MeV."""
        return np.array(self.edges_MeV)

    @property
    def box(self) -> Box:
        """Limits of the mass splittings (normal ordering)."""
        return self.windows.box()

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """What it takes, in the order of the vector."""
        return PHYSICS if self.matter else OSCILLATION

    @property
    def rank(self) -> int:
        """Of the matrix of all cores together."""
        return int(self.left.shape[1])

    def predict(self, parameters: Mapping[str, ArrayLike]) -> Array:
        """Expected signal counts per bin; see the harmonic predictor."""
        check_parameters(parameters, self.parameter_names, OSCILLATION)
        self.check(parameters)
        return _channels(self, physics_vector(parameters))[0]

    def channels(self, p: ArrayLike) -> Array:
        """Counts of all cores together (row 0) and of each core, shape ``(1 + cores, bins)``."""
        f = self.features(jnp.asarray(p))
        total = (self.left @ (self.right @ f))[None]
        return jnp.concatenate([total, self.core_left @ (self.core_right @ f)])

    def features(self, p: Array) -> Array:
        """What all bins are linear in, shape ``(features,)``."""
        density = p[4] if self.matter else 0.0
        potential = POTENTIAL_eV2_per_MeV * self.electrons_per_nucleon * density * self.energies_MeV
        m = eigensystem(potential, **dict(zip(OSCILLATION, p[:4], strict=True)))
        v21, v31, v32 = m.w1 * m.w2, m.w1 * m.w3, m.w2 * m.w3
        solar, fast = self.intervals
        waves = v21[:, None] * _rows(m.dm2_21, solar, self.terms[0])
        quick = v31[:, None] * _rows(jnp.abs(m.dm2_31), fast, self.terms[1])
        quick += v32[:, None] * _rows(jnp.abs(m.dm2_32), fast, self.terms[1])
        return jnp.concatenate([1.0 - 2.0 * (v21 + v31 + v32), waves.ravel(), quick.ravel()])

    def unoscillated(self) -> Array:
        """Counts per bin without oscillations."""
        return self.flat

    def check(self, parameters: Mapping[str, ArrayLike]) -> None:
        """Refuse mass splittings outside the windows (concrete values only)."""
        d31 = parameters["dm2_31_eV2"]
        negative = not isinstance(d31, jax.core.Tracer) and bool(np.all(np.asarray(d31) < 0))
        limits = self.windows.inverted() if negative else self.windows.normal()
        check_inside(parameters, {"dm2_21_eV2": self.windows.solar, "dm2_31_eV2": limits}, "harmonic")


@jax.jit
def _channels(predictor: CompactHarmonic, p: Array) -> Array:
    return predictor.channels(p)


def _rows(splitting: Array, interval: Array, n: int) -> Array:
    """T_k at every energy, shape ``(energies, n)``."""
    t = (splitting - interval[0]) / interval[1]
    return _polynomials(t, n)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _polynomials(t: Array, n: int) -> Array:
    """cos(k arccos t), shape ``(..., n)``."""
    return jnp.cos(jnp.arange(n) * jnp.arccos(t)[..., None])


@_polynomials.defjvp
def _polynomials_jvp(n: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    t, k = primals[0], jnp.arange(n)
    angle = jnp.arccos(t)
    slope = k * jnp.sin(k * angle[..., None]) * (1.0 / jnp.sqrt(1.0 - t * t))[..., None]
    return _polynomials(t, n), slope * tangents[0][..., None]


# ---------------------------------------------------------------- building


def _interval(window: tuple[float, float], margin: float) -> tuple[float, float]:
    """Middle and half width of a series that holds a window and what matter adds."""
    return 0.5 * (window[0] + window[1]), (0.5 * (window[1] - window[0]) + margin) * 1.02


def _interpolation(harmonic: HarmonicPredictor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Energies, and ℓ_j and ℓ'_j at the mean energies of the bins, shape ``(J, bins)``."""
    old = np.asarray(harmonic.energy_nodes_MeV)
    mean = old @ np.asarray(harmonic.to_bins)  # of a straight line the interpolation is exact
    if not harmonic.matter:
        return old[:1], np.ones((1, mean.size)), np.zeros((1, mean.size))
    low, high = mean.min(), mean.max()
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    t = np.cos(np.pi * (np.arange(ENERGIES) + 0.5) / ENERGIES)
    inverse = np.linalg.inv(np.polynomial.chebyshev.chebvander(t, ENERGIES - 1))
    at = (mean - middle) / half
    values = np.polynomial.chebyshev.chebvander(at, ENERGIES - 1) @ inverse
    derivative = np.polynomial.chebyshev.chebder(np.eye(ENERGIES)) / half
    slopes = np.polynomial.chebyshev.chebvander(at, ENERGIES - 2) @ derivative @ inverse
    return middle + half * t, values.T, slopes.T


def _again(series: Series, interval: tuple[float, float]) -> tuple[np.ndarray, int]:
    """Matrix from the coefficients of a series to those on another interval, and how many matter."""
    n = series.value.shape[-1]
    nodes = np.cos(np.pi * (np.arange(n) + 0.5) / n)
    old = np.polynomial.chebyshev.chebvander((interval[0] + interval[1] * nodes - series.middle) / series.half, n - 1)
    matrix = dct(old, type=2, axis=0) / n
    matrix[0] *= 0.5
    size = np.abs(np.asarray(series.value) @ matrix.T).reshape(-1, n).max(axis=0)
    return matrix, int(np.flatnonzero(size > COEFFICIENTS * size.max()).max()) + 1


def _table(
    sums: Sums, intervals: list[tuple[float, float]], terms: list[int], values: np.ndarray, slopes: np.ndarray
) -> np.ndarray:
    """The matrix from features to bins, shape ``(..., bins, features)``."""
    flat, moment = np.asarray(sums.flat), np.asarray(sums.flat_moment)
    out = [values.T * flat[..., None] + slopes.T * moment[..., None]]
    for series, interval, n in zip((sums.solar, sums.atmospheric), intervals, terms, strict=True):
        matrix = _again(series, interval)[0][:n]
        matrix = np.pad(matrix, ((0, n - matrix.shape[0]), (0, 0)))
        c = np.asarray(series.value) @ matrix.T
        part = values.T[:, :, None] * c[..., None, :]
        if series.moment.shape[-1]:
            part = part + slopes.T[:, :, None] * (np.asarray(series.moment) @ matrix.T)[..., None, :]
        out.append(2.0 * part.reshape(*part.shape[:-2], -1))
    return np.concatenate(out, axis=-1)


def _factors(table: np.ndarray, error: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Left and right factors; what is dropped is below a fraction of the error of every bin."""
    scaled = (table / error[:, None]).reshape(-1, table.shape[-1])
    _, s, v = np.linalg.svd(np.linalg.qr(scaled, mode="r"))
    rank = max(int(np.sum(s > tolerance)), 1)
    rank = min(_rounded_up(rank, RANK_STEP), s.size)
    left = (scaled @ v[:rank].T).reshape(*table.shape[:-1], rank) * error[:, None]
    return left, v[:rank]


def _rounded_up(n: int, step: int) -> int:
    return -(-n // step) * step
