"""Calibration data of a detector without files: data sets at any response, and expected spectra without noise.

An expected spectrum is exact but for the finite pool: the photons of every cascade are summed, and what photo-electrons
and dark counts do to them is not drawn but integrated (:func:`smearing`). It costs one pass over the pool, a fifth of
what ten million drawn events cost, and its only noise is that of the cascades.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, roots_hermitenorm

from nuebar.config import Experiment
from nuebar.errors import NuebarError
from nuebar.kernels import njit
from nuebar.simulate.calibration import CalibrationPlan, charges, histogram, load_plan, require_sources
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.light import EXACT_BELOW, Electronics
from nuebar.simulate.pool import CascadePool
from nuebar.simulate.quench import Response, light_table
from nuebar.simulate.sources import calibration_pool, check_place, load_sources
from nuebar.simulate.uniformity import local_light

__all__ = ["SimulatedSources", "smearing"]

_CELL_SIGMA = 0.1  # cells of the mean charge in widths of the lowest edge: their variance adds (0.1)²/6 of it
_GAUSS = 15  # points for an event's whole charge


@dataclass(frozen=True, eq=False)
class SimulatedSources:
    """Sources in a detector, from pools of cascades.

    Attributes:
        model: The detector at its nominal response.
        sources: Names.
        pools: Cascades of each.
        gains: Light at the place of each, against the centre.
        bins: Low edge, high edge and number of bins of the observable.
        pe_to_observable: Observable per photo-electron.
        kernel: Of :func:`smearing`.
    """

    model: DetectorModel
    sources: tuple[str, ...]
    pools: tuple[CascadePool, ...]
    gains: tuple[float, ...]
    bins: tuple[float, ...]
    pe_to_observable: float
    kernel: tuple[np.ndarray, np.ndarray]

    @classmethod
    def build(
        cls,
        experiment: Experiment,
        pools: Mapping[str, CascadePool] | None = None,
        *,
        plan: CalibrationPlan | None = None,
        catalogue: str | Path | None = None,
        cascades: int = 2_000_000,
        seed: int = 1,
    ) -> Self:
        """Sources of a plan in the detector of an experiment.

        Args:
            experiment: With a ``[detector]`` table.
            pools: Source → cascades; simulated now where they are not given.
            plan: Sources, observable and bins; the published one by default.
            catalogue: TOML catalogue of sources; the standard one by default.
            cascades: Of pools to be simulated.
            seed: Of pools to be simulated.

        Raises:
            NuebarError: No detector, a source that the catalogue does not know, or one outside the detector.
        """
        plan = plan or load_plan()
        known = load_sources(catalogue)
        require_sources(plan.sources, tuple(known))
        model = DetectorModel.build(experiment)
        d = model.detector
        found, gains = [], []
        for i, name in enumerate(plan.sources):
            check_place(known[name], d.radius_m)
            x, y, z = known[name].settings.position_m
            gains.append(float(local_light(x, y, z, model.uniformity, False)))
            if pools is not None and name in pools:
                found.append(pools[name])
                continue
            key = np.uint64((seed * 1_000_003 + i) * 2 + 1)
            made = calibration_pool(
                known[name], cascades, key, material=d.material, electrons_per_gram_mol=d.electrons_per_gram_mol
            )
            found.append(made)
        low, high, n = plan.bins
        edges_pe = np.linspace(low, high, int(n) + 1) / plan.pe_to_observable
        kernel = smearing(model.electronics, edges_pe)
        return cls(
            model, tuple(plan.sources), tuple(found), tuple(gains), tuple(plan.bins), plan.pe_to_observable, kernel
        )

    def light(self, response: ArrayLike) -> np.ndarray:
        """Photons of every deposit code at a response."""
        return light_table(Response(*(float(x) for x in np.asarray(response))), self.model.scintillation)

    def counts(
        self, response: ArrayLike, events: int, sets: int, *, seed: int, words: Sequence[str | int] = ()
    ) -> np.ndarray:
        """Histograms of simulated data sets.

        Args:
            response: kB, fC, light yield.
            events: Of every source in every set, those outside the range included.
            sets: How many data sets.
            seed: Of the run.
            words: What they are: other words give other events.

        Returns:
            int64, shape ``(sets, sources, bins)``; events outside the range are left out.
        """
        light = self.light(response)
        out = np.empty((sets, len(self.sources), int(self.bins[2])), np.int64)
        for s, (name, pool, gain) in enumerate(zip(self.sources, self.pools, self.gains, strict=True)):
            electronics = self._electronics(gain)
            for k in range(sets):
                q = charges(
                    pool.codes,
                    pool.offsets,
                    light,
                    electronics,
                    events,
                    seed=seed,
                    words=("validation", *words, name, k),
                )
                out[k, s] = histogram(q, self.pe_to_observable, self.bins)[1:-1]
        return out

    def charges(
        self, response: ArrayLike, events: int, *, seed: int, words: Sequence[str | int] = ()
    ) -> dict[str, np.ndarray]:
        """Charges of one data set in photo-electrons: source → float32, shape ``(events,)``."""
        light = self.light(response)
        return {
            name: charges(
                pool.codes,
                pool.offsets,
                light,
                self._electronics(gain),
                events,
                seed=seed,
                words=("validation", *words, name, 0),
            )
            for name, pool, gain in zip(self.sources, self.pools, self.gains, strict=True)
        }

    def expected(self, response: ArrayLike, blocks: int = 1) -> np.ndarray:
        """Probabilities of the bins, averaged over all cascades and integrated over what the electronics do.

        Args:
            response: kB, fC, light yield.
            blocks: Parts of the pools that are averaged apart: their differences tell the noise of the whole.

        Returns:
            float64, shape ``(blocks, sources, bins)``; what is missing to one lies outside the range.
        """
        light = self.light(response)
        grid, kernel = self.kernel
        out = np.empty((blocks, len(self.sources), kernel.shape[1]))
        for s, (pool, gain) in enumerate(zip(self.pools, self.gains, strict=True)):
            mean_pe = pool.photons(light)
            mean_pe *= self.model.electronics.pe_per_photon * gain
            ends = np.linspace(0, mean_pe.size, blocks + 1).astype(int)
            for b, (first, last) in enumerate(itertools.pairwise(ends.tolist())):
                out[b, s] = _shared(mean_pe[first:last], grid) @ kernel / (last - first)
        return out

    def _electronics(self, gain: float) -> Electronics:
        e = self.model.electronics
        return e._replace(pe_per_photon=e.pe_per_photon * gain)


def smearing(electronics: Electronics, edges_pe: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probability of every bin of the charge for an expected number of photo-electrons.

    The charge is the monotone function of a normal number of :func:`nuebar.simulate.light.charge`, so its distribution
    function at an edge is that of the normal number which gives the edge.

    Args:
        electronics: Spread and dark counts.
        edges_pe: Edges in photo-electrons, all beyond the reach of events below :data:`EXACT_BELOW`.

    Returns:
        Expected photo-electrons, ascending and even, shape ``(cells,)``; probabilities, ``(cells, bins)``.

    Raises:
        NuebarError: The lowest edge is so low that few photo-electrons are counted one by one.
    """
    second = 1.0 + electronics.charge_sigma**2

    def sigma(pe: float) -> float:
        return float(np.sqrt(second * (pe + electronics.dark_pe) + (electronics.constant * pe) ** 2))

    low, high = float(edges_pe[0]), float(edges_pe[-1])
    first, last = low - 8 * sigma(low), high + 8 * sigma(high)
    if not max(first, 0.0) + electronics.dark_pe >= EXACT_BELOW:
        raise NuebarError(
            f"expected spectra: the lowest bin begins at {low:.4g} photo-electrons, where charges are counted one by "
            f"one; begin where 8 standard deviations lower there are still {EXACT_BELOW:g}, dark counts included"
        )
    first = max(first, 0.0)
    n = int(np.ceil((last - first) / (_CELL_SIGMA * sigma(low)))) + 1
    grid = np.linspace(first, last, n)
    nodes, weights = roots_hermitenorm(_GAUSS) if electronics.constant > 0 else (np.zeros(1), np.ones(1))
    below = np.zeros((n, edges_pe.size))
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        charge = (edges_pe + electronics.dark_pe) / (1.0 + electronics.constant * node)
        below += weight * ndtr(_normal_of(charge, grid[:, None] + electronics.dark_pe, electronics))
    return grid, np.diff(below, axis=1)


def _normal_of(charge: np.ndarray, mean: np.ndarray, electronics: Electronics) -> np.ndarray:
    """The normal number that gives a charge, by Newton's method; ±9 beyond nine standard deviations."""
    spread2 = electronics.charge_sigma**2
    second, third = 1.0 + spread2, 1.0 + 3.0 * spread2
    fourth = 1.0 + 6.0 * spread2 + 3.0 * spread2 * spread2
    result = np.clip((charge - mean) / np.sqrt(mean * second), -9.0, 9.0)
    near = np.abs(result) < 9.0
    wanted = z = result[near]
    mean = np.broadcast_to(mean, result.shape)[near]
    skew, excess = third / (second * np.sqrt(mean * second)), fourth / (second * second * mean)
    for _ in range(6):
        z2 = z * z
        shape = z + skew * (z2 - 1) / 6 + excess * z * (z2 - 3) / 24 - skew * skew * z * (2 * z2 - 5) / 36
        slope = 1 + skew * z / 3 + excess * (z2 - 1) / 8 - skew * skew * (6 * z2 - 5) / 36
        z = np.clip(z - (shape - wanted) / np.maximum(slope, 0.1), -9.0, 9.0)
    result[near] = z
    return result


@njit
def _shared(values, grid):  # type: ignore[no-untyped-def]
    """How many values belong to every point of an even grid, each shared between its neighbours."""
    out = np.zeros(grid.size)
    cells = (grid.size - 1) / (grid[-1] - grid[0])
    for value in values:
        place = (value - grid[0]) * cells
        if 0 <= place < grid.size - 1:
            left = int(place)
            out[left] += 1 - (place - left)
            out[left + 1] += place - left
    return out
