"""Light of every deposit code at one parameter point: Birks quenching and Cherenkov light.

Two definitions of the quenched energy Q of an electron, which give different kB for the same data:

- ``"step"``: dE/dx is averaged over steps as Geant4 takes them, so kB has the meaning that it has in a Geant4
  simulation such as JUNO's. Steps follow the default step function of its electromagnetic physics (0.2, 1 mm)
  [G4]: a fifth of the remaining range, growing to all of it below 1 mm.
- ``"local"``: Birks' law with the local dE/dx. At equal kB the light of gammas is 0.4 % (6 MeV) to 2.8 % (0.66 MeV)
  lower.

Protons and alphas use the local dE/dx: their tracks are shorter than any step, and their kB is their own (a ratio
to that of electrons).

Sources:
    [Bi] J. Birks, Proc. Phys. Soc. A 64, 874 (1951).
    [G4] Geant4 Physics Reference Manual, "Energy loss of charged particles", step function.
    [FT] Frank and Tamm, see :mod:`nuebar.physics.scintillator`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from nuebar.errors import NuebarError
from nuebar.kernels import njit
from nuebar.physics.constants import ELECTRON_MASS_MeV
from nuebar.physics.materials import load_material
from nuebar.simulate.deposits import ALPHA_CODES, CODES, ELECTRON_CODES, PROTON_CODES, code_energies_MeV

__all__ = ["QUENCHING", "Response", "Scintillation", "light_table", "quenched_table"]

QUENCHING = ("step", "local")

_STEP_SHARE = 0.2
_STEP_FINAL_cm = 0.1
_LOWEST_MeV = 1e-3  # the tables begin here


@dataclass(frozen=True)
class Response:
    """The three parameters of the scintillator that calibration tunes.

    Attributes:
        kB_g_cm2_GeV: Birks' coefficient, g cm⁻² GeV⁻¹ (12.05 means 0.01205 g cm⁻² MeV⁻¹).
        fC: Cherenkov light, in units of ``Scintillation.cherenkov_photons_per_cm``.
        light_yield_per_MeV: Scintillation photons per MeV without quenching.
    """

    kB_g_cm2_GeV: float
    fC: float
    light_yield_per_MeV: float

    def __post_init__(self) -> None:
        for name, low, high in (
            ("kB_g_cm2_GeV", 0.0, 200.0),
            ("fC", 0.0, 20.0),
            ("light_yield_per_MeV", 1.0, 1e6),
        ):
            value = getattr(self, name)
            if not low <= value <= high:  # refuses NaN too
                raise NuebarError(f"{name}: expected a number from {low:g} to {high:g}, got {value}; check its unit")
        if 0 < self.kB_g_cm2_GeV < 0.1:
            raise NuebarError(
                f"kB_g_cm2_GeV: expected 0 or a number above 0.1, got {self.kB_g_cm2_GeV:g}; it is in g/cm²/GeV, where "
                "0.012 g/cm²/MeV is 12"
            )


@dataclass(frozen=True)
class Scintillation:
    """What the light depends on besides the three parameters.

    Attributes:
        material: Name or folder of the material's tables.
        refractive_index: Constant index of the Cherenkov light.
        cherenkov_photons_per_cm: What fC = 1 stands for, at β = 1.
        quenching: One of :data:`QUENCHING`.
        proton_kB_ratio: kB of protons over that of electrons.
        alpha_kB_ratio: kB of alphas over that of electrons.
    """

    material: str = "lab"
    refractive_index: float = 1.50
    cherenkov_photons_per_cm: float = 909.7
    quenching: str = "step"
    proton_kB_ratio: float = 1.0
    alpha_kB_ratio: float = 1.0

    def __post_init__(self) -> None:
        if self.quenching not in QUENCHING:
            raise NuebarError(f"quenching: expected {' or '.join(QUENCHING)}, got {self.quenching!r}")
        if not self.refractive_index > 1:
            raise NuebarError(
                f"refractive_index: expected a number above 1, got {self.refractive_index}; use fC = 0 for no "
                "Cherenkov light"
            )
        for name in ("cherenkov_photons_per_cm", "proton_kB_ratio", "alpha_kB_ratio"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise NuebarError(f"{name}: expected a number that is not negative, got {value}; correct it")


class _Tracks(NamedTuple):
    """Parameter-free numbers of a slowing electron, at every electron code."""

    loss_MeV: np.ndarray  # energy lost in the next step
    density: np.ndarray  # mean dE/dx of that step, MeV cm²/g
    after: np.ndarray  # code where the step ends, as a real number
    stopping: np.ndarray  # local collision dE/dx, MeV cm²/g
    cherenkov: np.ndarray  # photons over the whole track for fC = 1 and one photon per cm


def light_table(response: Response, scintillation: Scintillation) -> np.ndarray:
    """Photons of every deposit code: light yield times quenched energy, plus Cherenkov light.

    Args:
        response: kB, fC, light yield.
        scintillation: The material and the definitions.

    Returns:
        float64, shape ``(65536,)``; the entry of each species at rest is zero.

    Raises:
        NuebarError: The material is unknown, or lacks a stopping power.
    """
    table = response.light_yield_per_MeV * quenched_table(response.kB_g_cm2_GeV, scintillation)
    tracks = _tracks(scintillation.material, scintillation.refractive_index)
    table[:ELECTRON_CODES] += response.fC * scintillation.cherenkov_photons_per_cm * tracks.cherenkov
    return table


def quenched_table(kB_g_cm2_GeV: float, scintillation: Scintillation) -> np.ndarray:
    """Quenched energy in MeV of every deposit code.

    Args:
        kB_g_cm2_GeV: Birks' coefficient of electrons, g cm⁻² GeV⁻¹.
        scintillation: The material and the definitions.

    Returns:
        float64, shape ``(65536,)``.

    Raises:
        NuebarError: The material is unknown, or lacks a stopping power.
    """
    kB = 1e-3 * kB_g_cm2_GeV
    tracks = _tracks(scintillation.material, scintillation.refractive_index)
    energies = code_energies_MeV()
    table = np.empty(CODES)
    if scintillation.quenching == "step":
        _step_quenching(kB, tracks, table)
    else:
        table[:ELECTRON_CODES] = _local_quenching(kB, energies[:ELECTRON_CODES], tracks.stopping)
    protons, alphas = _heavy(scintillation.material)
    first = ELECTRON_CODES + PROTON_CODES
    table[ELECTRON_CODES:first] = _local_quenching(
        kB * scintillation.proton_kB_ratio, energies[ELECTRON_CODES:first], protons
    )
    table[first:] = _local_quenching(kB * scintillation.alpha_kB_ratio, energies[first:], alphas)
    return table


@njit
def _step_quenching(kB: float, tracks: _Tracks, table: np.ndarray) -> None:
    table[0] = 0.0
    for i in range(1, ELECTRON_CODES):
        j = int(tracks.after[i])
        rest = table[j] + (tracks.after[i] - j) * (table[j + 1] - table[j]) if j < i - 1 else 0.0
        if j == i - 1:  # a step shorter than the grid: linear in what is left
            rest = table[j]
        table[i] = tracks.loss_MeV[i] / (1.0 + kB * tracks.density[i]) + rest


def _local_quenching(kB: float, t_MeV: np.ndarray, stopping: np.ndarray) -> np.ndarray:
    """∫ dT / (1 + kB dE/dx) from zero to every energy of a grid."""
    light = 1.0 / (1.0 + kB * stopping)
    return np.concatenate([[0.0], np.cumsum(0.5 * (light[1:] + light[:-1]) * np.diff(t_MeV))])


@lru_cache(maxsize=8)
def _tracks(material: str, refractive_index: float) -> _Tracks:
    substance = load_material(material)
    if substance.electrons is None:
        raise NuebarError(f"{material}: expected a table of electrons, found none; add its CSV file")
    t = code_energies_MeV()[:ELECTRON_CODES]
    collision, _ = (np.asarray(x) for x in substance.electrons.at(np.maximum(t, _LOWEST_MeV)))
    # Below the table the power law goes on: a constant would make tracks of a few keV too long, and too bright.
    first, second = substance.electrons.t_MeV[:2], substance.electrons.collision[:2]
    slope = np.log(second[1] / second[0]) / np.log(first[1] / first[0])
    collision = collision * np.clip(t / _LOWEST_MeV, 1e-4, 1.0) ** slope
    per_cm = collision * substance.density_g_cm3
    path = np.concatenate([[0.0], np.cumsum(0.5 * (1 / per_cm[1:] + 1 / per_cm[:-1]) * np.diff(t))])
    final = _STEP_FINAL_cm
    with np.errstate(divide="ignore"):
        step = np.where(path > final, _STEP_SHARE * path + final * (1 - _STEP_SHARE) * (2 - final / path), path)
    t_after = np.interp(path - step, path, t)
    loss = t - t_after
    density = loss / np.where(step > 0, step, 1.0) / substance.density_g_cm3
    after = np.sqrt(t_after / t[-1]) * (ELECTRON_CODES - 1)
    beta2 = 1 - 1 / (1 + t / ELECTRON_MASS_MeV) ** 2
    n2 = refractive_index**-2
    yields = np.where(beta2 > n2, (1 - n2 / np.maximum(beta2, n2)) / (1 - n2), 0.0) / per_cm
    cherenkov = np.concatenate([[0.0], np.cumsum(0.5 * (yields[1:] + yields[:-1]) * np.diff(t))])
    return _Tracks(loss, density, after, collision, cherenkov)


@lru_cache(maxsize=8)
def _heavy(material: str) -> tuple[np.ndarray, np.ndarray]:
    """dE/dx of protons and alphas at their codes, MeV cm²/g."""
    substance = load_material(material)
    energies = code_energies_MeV()
    first = ELECTRON_CODES + PROTON_CODES
    grids = ((substance.protons, energies[ELECTRON_CODES:first]), (substance.alphas, energies[first:]))
    result = []
    for table, t in grids:
        if table is None:
            raise NuebarError(f"{material}: expected tables of protons and alphas, found none; add their CSV files")
        result.append(np.sum([np.asarray(x) for x in table.at(np.maximum(t, _LOWEST_MeV))], axis=0))
    assert len(result[1]) == ALPHA_CODES
    return result[0], result[1]
