"""Mean light against energy: the non-linearity of electrons, positrons and gammas at any parameter point.

The mean number of deposits of every code is simulated once; a curve at another (kB, fC, light yield) is one product
with the table of :func:`nuebar.simulate.quench.light_table`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nuebar.errors import NuebarError
from nuebar.kernels import njit
from nuebar.physics.constants import ELECTRON_MASS_MeV
from nuebar.physics.scintillator import N_H_GAMMA_MeV
from nuebar.simulate.detector import gamma_cascades
from nuebar.simulate.gammas import (
    ElectronTables,
    PhotonTables,
    electron_tables,
    follow_gamma,
    photon_tables,
    stop_electron,
    stop_positron,
)
from nuebar.simulate.pool import CascadePool
from nuebar.simulate.random import derive_key, event_counter

__all__ = ["MAX_KINETIC_MeV", "MeanLight", "anchored", "electron_light", "gamma_light", "positron_light"]

MAX_KINETIC_MeV = 15.0
"""Electrons and positrons above this energy have no tables."""


@dataclass(frozen=True, eq=False)
class MeanLight:
    """Mean deposits of particles of several energies.

    Attributes:
        e_dep_MeV: Deposited energy of each, shape ``(points,)``.
        deposits: Mean number of deposits of each code, shape ``(points, 65536)``.
    """

    e_dep_MeV: np.ndarray
    deposits: np.ndarray

    def photons(self, light: np.ndarray) -> np.ndarray:
        """Mean photons of each point, from a table of light per code."""
        return self.deposits @ light

    def per_MeV(self, light: np.ndarray) -> np.ndarray:
        """Mean photons per deposited MeV: proportional to E_vis / E_dep."""
        return self.photons(light) / self.e_dep_MeV


def gamma_light(
    lines_MeV: Sequence[tuple[float, ...]], cascades: int, seed: int, *, material: str = "lab"
) -> MeanLight:
    """Gammas, one or several in coincidence.

    Args:
        lines_MeV: The gammas of each point.
        cascades: Cascades of each point.
        seed: Seed of the run.
        material: Tables of the scintillator.

    Raises:
        NuebarError: An energy is out of range, or no cascades are wanted.
    """
    _require("gamma_light", [sum(line) for line in lines_MeV], 0.0, math.inf, cascades)
    pools = [
        gamma_cascades(tuple(line), cascades, derive_key(seed, "mean-gamma", i), material=material)
        for i, line in enumerate(lines_MeV)
    ]
    return _means(np.array([sum(line) for line in lines_MeV]), pools)


def electron_light(kinetic_MeV: Sequence[float], cascades: int, seed: int, *, material: str = "lab") -> MeanLight:
    """Electrons of given kinetic energies, with their bremsstrahlung.

    Args:
        kinetic_MeV: Kinetic energies, above 0 and up to 15 MeV.
        cascades: Electrons of each energy.
        seed: Seed of the run.
        material: Tables of the scintillator.

    Raises:
        NuebarError: An energy is out of range, or no cascades are wanted.
    """
    t = _require("electron_light", kinetic_MeV, 0.0, MAX_KINETIC_MeV, cascades)
    return _means(
        t, [_tracks(e, cascades, derive_key(seed, "mean-electron", i), material, False) for i, e in enumerate(t)]
    )


def positron_light(e_dep_MeV: Sequence[float], cascades: int, seed: int, *, material: str = "lab") -> MeanLight:
    """Positrons of given deposited energy (kinetic + 1.022 MeV), with their annihilation gammas.

    Args:
        e_dep_MeV: Deposited energies, from 1.022 MeV (at rest) to 15 MeV more.
        cascades: Positrons of each energy.
        seed: Seed of the run.
        material: Tables of the scintillator.

    Raises:
        NuebarError: An energy is below 1.022 MeV or too high, or no cascades are wanted.
    """
    rest = 2 * ELECTRON_MASS_MeV
    e = _require("positron_light", e_dep_MeV, np.nextafter(rest, 0.0), rest + MAX_KINETIC_MeV, cascades)
    kinetic = e - rest
    pools = [_tracks(t, cascades, derive_key(seed, "mean-positron", i), material, True) for i, t in enumerate(kinetic)]
    return _means(e, pools)


def anchored(means: MeanLight, anchor: MeanLight, light: np.ndarray) -> np.ndarray:
    """E_vis / E_dep on the scale where an n-H capture reads 2.2233 MeV.

    Args:
        means: Particles.
        anchor: ``gamma_light([(N_H_GAMMA_MeV,)], ...)``.
        light: Photons of every code.
    """
    return means.per_MeV(light) / float(anchor.per_MeV(light)[0]) * (anchor.e_dep_MeV[0] / N_H_GAMMA_MeV)


def _require(what: str, energies_MeV: Sequence[float], above: float, most: float, cascades: int) -> np.ndarray:
    e = np.asarray(energies_MeV, dtype=float)
    good = (e > above) & (e <= most)
    if not (e.ndim == 1 and e.size and np.all(good)):
        wrong = e.ravel()[~good.ravel()][:1].tolist() or e.tolist()
        raise NuebarError(f"{what}: expected energies from {above:.4g} to {most:.4g} MeV, got {wrong}; correct them")
    if cascades < 1:
        raise NuebarError(f"{what}: expected a number of cascades above 0, got {cascades}; give one like 10000")
    return e


def _means(e_MeV: np.ndarray, pools: Sequence[CascadePool]) -> MeanLight:
    return MeanLight(e_MeV, np.array([p.mean_deposits() for p in pools]))


def _tracks(t_MeV: float, cascades: int, key: np.uint64, material: str, positron: bool) -> CascadePool:
    codes = np.empty(1000 + int(cascades * (90 + 10 * t_MeV)), np.uint16)
    counts = np.empty(cascades, np.int64)
    used = _stop_many(float(t_MeV), positron, photon_tables(material), electron_tables(material), key, codes, counts)
    return CascadePool(codes[:used].copy(), np.concatenate([[0], np.cumsum(counts)]))


@njit
def _stop_many(
    t_MeV: float,
    positron: bool,
    photons: PhotonTables,
    electrons: ElectronTables,
    key: np.uint64,
    codes: np.ndarray,
    counts: np.ndarray,
) -> int:
    stack = np.empty(64)
    n = 0
    for k in range(counts.size):
        counter, before = event_counter(k), n
        if positron:
            counter, depth, n = stop_positron(t_MeV, electrons, key, counter, stack, 0, codes, n)
        else:
            counter, depth, n = stop_electron(t_MeV, electrons, key, counter, stack, 0, codes, n)
        _, n = follow_gamma(photons, electrons, key, counter, stack, depth, codes, n)
        counts[k] = n - before
    return n
