"""Response matrix times the spectrum oscillated with one sterile state beside the three flavours.

The three-flavour part is that of :class:`nuebar.predict.matrix.MatrixPredictor`, node by node: with sin²θ14 = 0 the two
give the same numbers. The interference of the fourth state may turn many times inside one cell of the energy grid,
where sums over nodes would give any number instead of an average. There the smooth rest of the integrand is the
parabola through the three Gauss nodes of the cell, and its integral with the wave is exact (the plane wave as a series
of Legendre polynomials, DLMF 10.60.7, of which a parabola sees three): cos φ_k at a node becomes
Re e^{i(φ_k - ω t_k)} Σ_{l<3} (2l + 1) i^l j_l(ω) P_l(t_k), where ω is the phase across half a cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nuebar.config import STERILE, Experiment, Value
from nuebar.errors import NuebarError
from nuebar.parameters import OSCILLATION
from nuebar.physics import oscillation, sterile
from nuebar.physics.oscillation import PHASE_per_eV2_km_MeV, POTENTIAL_eV2_per_MeV
from nuebar.predict.box import PHYSICS, Box, Provenance, check_inside, check_parameters, physics_vector
from nuebar.predict.signal import NODES_PER_CELL, SignalInputs
from nuebar.predict.smooth import with_cached_derivatives

__all__ = ["DM2_41_eV2", "SterilePredictor", "sterile_if_named", "with_sterile"]

DM2_41_eV2 = (1e-6, 1.0)  # below, nothing turns at 215 km; above, nothing is left to see since long
SIN2_TH14 = (0.0, 0.5)  # beyond one half the heavy state would be the active one
START_eV2 = 1e-3  # where nothing is said; without mixing it does not matter
OUTER_NODE = np.sqrt(0.6)  # of the Gauss rule of three points
SERIES_BELOW, SERIES_TERMS = 1.0, 9


class SterilePredictor(eqx.Module):
    """S_b = Σ_j R_bj Σ_c N_cj P(E_j, L_c) with four states.

    Attributes:
        edges_MeV: Bins of reconstructed energy, ``bins + 1`` numbers.
        core_names: Names of the cores.
        provenance: What it was built from.
        cell_t: Place of every node in its cell, from -1 to 1; 0 where nodes stand for themselves.
        cell_slope: Change of 1/E from the middle of the cell to its end, in 1/MeV; likewise.
    """

    edges_MeV: tuple[float, ...] = eqx.field(static=True)
    core_names: tuple[str, ...] = eqx.field(static=True)
    provenance: Provenance = eqx.field(static=True)
    electrons_per_nucleon: float = eqx.field(static=True)
    e_nu_MeV: Array
    baseline_km: Array
    events: Array
    response: Array
    cell_t: Array
    cell_slope: Array

    @classmethod
    def build(cls, inputs: SignalInputs) -> SterilePredictor:
        """Take the arrays of an experiment.

        Args:
            inputs: From :func:`nuebar.predict.signal.signal_inputs`.
        """
        t, slope = _cells(np.asarray(inputs.e_nu_MeV))
        return cls(
            edges_MeV=tuple(float(e) for e in inputs.edges_MeV),
            core_names=inputs.core_names,
            provenance=Provenance({"predictor": "sterile", **inputs.provenance}),
            electrons_per_nucleon=inputs.electrons_per_nucleon,
            e_nu_MeV=jax.device_put(inputs.e_nu_MeV),
            baseline_km=jax.device_put(inputs.baseline_km),
            events=jax.device_put(inputs.events),
            response=jax.device_put(inputs.response),
            cell_t=jax.device_put(t),
            cell_slope=jax.device_put(slope),
        )

    @property
    def name(self) -> str:
        """How the predictor is called in results."""
        return "sterile"

    @property
    def edges(self) -> np.ndarray:
        """Bins of reconstructed energy in MeV, shape ``(bins + 1,)``."""
        return np.array(self.edges_MeV)

    @property
    def box(self) -> Box:
        """Limits of the two parameters of the sterile state; the others have none."""
        return dict(zip(STERILE, (SIN2_TH14, DM2_41_eV2), strict=True))

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Everything it takes; density and sterile state may be left out."""
        return (*PHYSICS, *STERILE)

    @property
    def nbytes(self) -> int:
        """Size of the arrays."""
        return sum(x.nbytes for x in jax.tree.leaves(self))

    def predict(self, parameters: Mapping[str, ArrayLike]) -> Array:
        """Expected signal counts per bin.

        Args:
            parameters: The four oscillation parameters by name; ``matter_density_g_cm3`` if not vacuum; and
                ``sin2_th14`` and ``dm2_41_eV2`` if there is a sterile state.

        Returns:
            Counts, shape ``(bins,)``.

        Raises:
            NuebarError: A parameter is missing, unknown or outside its limits.
        """
        check_parameters(parameters, self.parameter_names, OSCILLATION)
        self.check(parameters)
        given = {**dict(zip(STERILE, (0.0, START_eV2), strict=True)), **parameters}
        three = physics_vector({n: v for n, v in given.items() if n in PHYSICS})
        return _predict(self, jnp.concatenate([three, jnp.stack([jnp.asarray(given[n], float) for n in STERILE])]))

    def check(self, parameters: Mapping[str, ArrayLike]) -> None:
        """Refuse a sterile state outside the box (concrete values only)."""
        if STERILE[0] in parameters and STERILE[1] not in parameters:
            raise NuebarError(f"missing parameter {STERILE[1]!r}; a sterile state needs {' and '.join(STERILE)}")
        check_inside(parameters, self.box, self.name)

    def channels(self, p: ArrayLike) -> Array:
        """Counts of all cores together (row 0) and of each core, shape ``(1 + cores, bins)``.

        Args:
            p: The seven numbers of :attr:`parameter_names`.
        """
        return _channels(self, p)

    def unoscillated(self) -> Array:
        """Counts per bin without oscillations."""
        return self.response @ jnp.sum(self.events, axis=0)

    def survival(self, p: Array) -> Array:
        """P(E_j, L_c) at the nodes of the grid, averaged with the parabola of their cell, ``(cores, nodes)``."""
        e_nu, y_e = self.e_nu_MeV[None, :], self.electrons_per_nucleon
        f = sterile.fourth(
            POTENTIAL_eV2_per_MeV * y_e * p[4] * e_nu,
            **dict(zip(OSCILLATION, p[:4], strict=True)),
            sin2_th14=p[5],
            dm2_41_eV2=p[6],
            neutrons_per_electron=1.0 / y_e - 1.0,
        )
        m = f.three
        phase = PHASE_per_eV2_km_MeV * self.baseline_km[:, None] / e_nu
        weights = jnp.stack([m.w1, m.w2, m.w3])
        waves = jnp.sum(weights * self._wave(f.dm2_41 - jnp.stack([0.0 * m.dm2_21, m.dm2_21, m.dm2_31])), axis=0)
        return sterile.combined(p[5], oscillation.survival(m, phase), waves)

    def _wave(self, dm2_eV2: Array) -> Array:
        """cos(Δm² L / 2E) for integration with a parabola over each cell, ``(3, 1, nodes)`` → ``(3, cores, nodes)``."""
        per_energy = 2.0 * PHASE_per_eV2_km_MeV * self.baseline_km[:, None] * dm2_eV2
        across = per_energy * self.cell_slope
        j0, j1, j2 = _bessel(across)
        t = self.cell_t
        rest = per_energy / self.e_nu_MeV - across * t
        return jnp.cos(rest) * (j0 - 2.5 * (3.0 * t * t - 1.0) * j2) - jnp.sin(rest) * 3.0 * t * j1


@jax.jit
def _predict(predictor: SterilePredictor, p: Array) -> Array:
    return predictor.response @ jnp.sum(predictor.events * predictor.survival(p), axis=0)


@with_cached_derivatives
def _channels(predictor: SterilePredictor, p: Array) -> Array:
    each = (predictor.events * predictor.survival(p)) @ predictor.response.T
    return jnp.concatenate([jnp.sum(each, axis=0, keepdims=True), each])


def _bessel(x: Array) -> tuple[Array, Array, Array]:
    """Spherical Bessel functions j0, j1, j2 (DLMF 10.49.3; near zero the power series 10.53.1)."""
    y = jnp.minimum(x * x, SERIES_BELOW**2)
    small = jnp.abs(x) < SERIES_BELOW
    z = jnp.where(small, SERIES_BELOW, x)
    sine, cosine = jnp.sin(z) / z, jnp.cos(z) / z
    j1 = (sine - z * cosine) / z
    closed = (sine, j1, 3.0 * j1 / z - sine)
    j0, j1, j2 = (jnp.where(small, x**n * _series(n, y), c) for n, c in enumerate(closed))
    return j0, j1, j2


def _series(order: int, y: Array) -> Array:
    """j_n(x)/x^n as a polynomial in y = x²."""
    factors = [-0.5 / (k * (2 * order + 2 * k + 1)) for k in range(1, SERIES_TERMS)]
    out = jnp.ones_like(y)
    for f in reversed(factors):
        out = 1.0 + f * y * out
    return out / (1.0, 3.0, 15.0)[order]


def _cells(e_nu_MeV: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place in the cell and half its width in 1/E for the Gauss nodes of the grid; zeros for another grid."""
    n = e_nu_MeV.size
    none = np.zeros(n), np.zeros(n)
    if n % NODES_PER_CELL or NODES_PER_CELL != 3:
        return none
    first, middle, last = e_nu_MeV.reshape(-1, 3).T
    if not np.allclose(middle, 0.5 * (first + last), rtol=1e-9, atol=0.0):
        return none
    slope = (1.0 / last - 1.0 / first) / (2.0 * OUTER_NODE)
    return np.tile([-OUTER_NODE, 0.0, OUTER_NODE], n // 3), np.repeat(slope, 3)


def with_sterile(
    experiment: Experiment, *, sin2_th14: float = 0.0, dm2_41_eV2: float = START_eV2, fixed: bool = True
) -> Experiment:
    """The experiment with a sterile state, as ``sin2_th14`` and ``dm2_41_eV2`` in its file would add it.

    Args:
        experiment: Any.
        sin2_th14: True mixing.
        dm2_41_eV2: True splitting.
        fixed: Whether a fit leaves both alone.

    Raises:
        NuebarError: A number is outside the limits.
    """
    values = {"sin2_th14": sin2_th14, "dm2_41_eV2": dm2_41_eV2}
    for name, (low, high) in zip(STERILE, (SIN2_TH14, DM2_41_eV2), strict=True):
        if not low <= values[name] <= high:
            raise NuebarError(f"{name}: expected a number from {low:g} to {high:g}, got {values[name]}; correct it")
    limits = dict(zip(STERILE, (SIN2_TH14, DM2_41_eV2), strict=True))
    added = {n: Value(values[n], bounds=limits[n], fixed=fixed) for n in STERILE}
    return replace(experiment, oscillation={**experiment.oscillation, **added})


def sterile_if_named(experiment: Experiment, free: Sequence[str]) -> Experiment:
    """:func:`with_sterile` where parameters to free name one of the two and the experiment has no sterile state."""
    return with_sterile(experiment) if set(STERILE) & set(free) and not experiment.sterile else experiment
