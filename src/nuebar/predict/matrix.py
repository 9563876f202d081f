"""Response matrix times oscillated spectrum: the direct integration that the others are held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.parameters import OSCILLATION
from nuebar.physics import oscillation
from nuebar.predict.box import PHYSICS, Box, Provenance, check_parameters, physics_vector
from nuebar.predict.mc_error import scaled_mc
from nuebar.predict.signal import SignalInputs
from nuebar.predict.smooth import with_cached_derivatives

if TYPE_CHECKING:
    from nuebar.predict.pairs import Pairs

__all__ = ["MatrixPredictor"]

CELLS = 4000  # of neutrino energy, as in the published response matrix


class MatrixPredictor(eqx.Module):
    """S_b = Σ_j R_bj Σ_c N_cj P(E_j, L_c): every core at its own baseline, matter exactly, no approximation.

    Attributes:
        edges_MeV: Bins of reconstructed energy, ``bins + 1`` numbers.
        core_names: Names of the cores.
        provenance: What it was built from.
        mc_relative: As in :class:`nuebar.predict.harmonic.HarmonicPredictor`.
    """

    edges_MeV: tuple[float, ...] = eqx.field(static=True)
    core_names: tuple[str, ...] = eqx.field(static=True)
    provenance: Provenance = eqx.field(static=True)
    electrons_per_nucleon: float = eqx.field(static=True)
    e_nu_MeV: Array
    baseline_km: Array
    events: Array
    response: Array
    mc_relative: Array | None = None

    @classmethod
    def build(cls, inputs: SignalInputs) -> MatrixPredictor:
        """Take the arrays of an experiment.

        Args:
            inputs: From :func:`nuebar.predict.signal.signal_inputs`.
        """
        return cls(
            edges_MeV=tuple(float(e) for e in inputs.edges_MeV),
            core_names=inputs.core_names,
            provenance=Provenance({"predictor": "matrix", **inputs.provenance}),
            electrons_per_nucleon=inputs.electrons_per_nucleon,
            e_nu_MeV=jnp.asarray(inputs.e_nu_MeV),
            baseline_km=jnp.asarray(inputs.baseline_km),
            events=jnp.asarray(inputs.events),
            response=jnp.asarray(inputs.response),
        )

    @classmethod
    def from_pairs(
        cls, pairs: Pairs, *, cells: int = CELLS, electrons_per_nucleon: float = 0.5, provenance: Mapping[str, str]
    ) -> MatrixPredictor:
        """The response matrix of Monte Carlo pairs: even cells of the neutrino energy, each at its mean energy.

        Every core has its own events in each cell, and all cores share the response, which does not know the core.

        Args:
            pairs: In bins of reconstructed energy.
            cells: How many, over the range of the energies.
            electrons_per_nucleon: Y_e of the matter.
            provenance: What the pairs are.

        Raises:
            NuebarError: There are no pairs.
        """
        if not len(pairs):
            raise NuebarError("the matrix predictor needs at least one pair, got none; read other files")
        low, high = pairs.e_nu_MeV.min(), pairs.e_nu_MeV.max()
        cell = np.minimum((cells * (pairs.e_nu_MeV - low) / max(high - low, 1e-9)).astype(np.int64), cells - 1)
        cores = pairs.baseline_km.size
        counts = np.bincount(pairs.bin.astype(np.int64) * cells + cell, minlength=pairs.bins * cells)
        counts = counts.reshape(pairs.bins, cells)
        by_core = np.bincount(pairs.core.astype(np.int64) * cells + cell, minlength=cores * cells).reshape(cores, cells)
        if pairs.core_share is not None:  # every pair belongs to every core
            by_core = by_core.sum(axis=0) * np.asarray(pairs.core_share)[:, None]
        total = counts.sum(axis=0)
        filled = total > 0
        mean = np.bincount(cell, pairs.e_nu_MeV, minlength=cells)[filled] / total[filled]
        return cls.of_cells(
            pairs.edges_MeV, mean, pairs.baseline_km, pairs.core_names, pairs.scale * by_core[:, filled],
            counts[:, filled] / total[filled], electrons_per_nucleon, provenance,
        )  # fmt: skip

    @classmethod
    def of_cells(
        cls,
        edges_MeV: np.ndarray,
        e_nu_MeV: np.ndarray,
        baseline_km: np.ndarray,
        core_names: tuple[str, ...],
        events: np.ndarray,
        response: np.ndarray,
        electrons_per_nucleon: float,
        provenance: Mapping[str, str],
    ) -> MatrixPredictor:
        """From arrays; see :class:`nuebar.predict.signal.SignalInputs` for what they are."""
        return cls(
            edges_MeV=tuple(float(e) for e in edges_MeV),
            core_names=core_names,
            provenance=Provenance({**provenance, "predictor": "matrix"}),
            electrons_per_nucleon=electrons_per_nucleon,
            e_nu_MeV=jnp.asarray(e_nu_MeV),
            baseline_km=jnp.asarray(baseline_km),
            events=jnp.asarray(events),
            response=jnp.asarray(response),
        )

    @property
    def name(self) -> str:
        """How the predictor is called in results and on the command line."""
        return "matrix"

    @property
    def edges(self) -> np.ndarray:
        """Bins of reconstructed energy in MeV, shape ``(bins + 1,)``."""
        return np.array(self.edges_MeV)

    @property
    def box(self) -> Box:
        """It is valid everywhere."""
        return {}

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Everything it takes; the density may be left out (vacuum)."""
        return PHYSICS

    def predict(self, parameters: Mapping[str, ArrayLike]) -> Array:
        """Expected signal counts per bin.

        Args:
            parameters: The four oscillation parameters by name, and ``matter_density_g_cm3`` if not vacuum.

        Returns:
            Counts, shape ``(bins,)``.
        """
        check_parameters(parameters, self.parameter_names, OSCILLATION)
        return _predict(self, physics_vector(parameters))

    def check(self, parameters: Mapping[str, ArrayLike]) -> None:
        """Nothing to refuse beyond :func:`nuebar.predict.box.check_parameters`: it has no box."""

    def channels(self, p: ArrayLike) -> Array:
        """Counts of all cores together (row 0) and of each core, shape ``(1 + cores, bins)``.

        Args:
            p: The five numbers of :data:`nuebar.predict.box.PHYSICS`.
        """
        return _channels(self, p)

    @property
    def nbytes(self) -> int:
        """Size of the arrays."""
        return sum(x.nbytes for x in jax.tree.leaves(self))

    def mc_covariance(self, parameters: Mapping[str, ArrayLike]) -> np.ndarray | None:
        """Monte Carlo covariance of the counts, in the form of ``mc_relative``."""
        if self.mc_relative is None:
            return None
        return scaled_mc(np.asarray(self.mc_relative), np.asarray(self.predict(parameters)))

    def unoscillated(self) -> Array:
        """Counts per bin without oscillations."""
        return self.response @ jnp.sum(self.events, axis=0)

    def survival(self, p: Array) -> Array:
        """P(E_j, L_c) at the nodes of the grid, shape ``(cores, nodes)``."""
        return oscillation.matter(
            self.e_nu_MeV[None, :],
            self.baseline_km[:, None],
            **dict(zip(OSCILLATION, p[:4], strict=True)),
            density_g_cm3=p[4],
            electrons_per_nucleon=self.electrons_per_nucleon,
        )


@jax.jit
def _predict(predictor: MatrixPredictor, p: Array) -> Array:
    return predictor.response @ jnp.sum(predictor.events * predictor.survival(p), axis=0)


@with_cached_derivatives
def _channels(predictor: MatrixPredictor, p: Array) -> Array:
    each = (predictor.events * predictor.survival(p)) @ predictor.response.T
    return jnp.concatenate([jnp.sum(each, axis=0, keepdims=True), each])
