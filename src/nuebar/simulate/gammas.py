"""Photon cascades: one gamma becomes the electrons and positrons that it sets free.

Klein-Nishina scattering, photo-electric absorption, pair production, bremsstrahlung of every electron, and
annihilation of positrons at rest and in flight. This module follows energies only, as in an infinite volume;
:mod:`nuebar.simulate.transport` adds positions with the same interactions. A cascade is a list of deposits
(:mod:`nuebar.simulate.deposits`) and holds no property of the light: its energies add up to that of the gamma.

Approximations, with what they cost where it is known:

- Compton electrons are free and at rest: incoherent scattering is 7 % stronger than Klein-Nishina's at 30 keV.
  Branching ratios use the tabulated cross-sections, which know about binding; only the angles do not.
- A photo-electron carries the whole energy (the 284 eV of carbon's K shell come as one more electron).
- Coherent scattering changes no energy and is left out.
- The members of a pair share the kinetic energy evenly in the mean, with a flat distribution.
- Bremsstrahlung: the thick-target spectrum of Kramers, (T - k)/k, with the tabulated radiated energy, above 10 keV;
  scaling it by 0.5 or 2 moves the mean light by less than 0.1 %.

Sources:
    [KN] O. Klein and Y. Nishina, Z. Phys. 52, 853 (1929); sampled by the composition and rejection method of
    J. Butcher and H. Messel, Nucl. Phys. 20, 15 (1960).
    [Kr] H. Kramers, Philos. Mag. 46, 836 (1923).
    [He] W. Heitler, The Quantum Theory of Radiation, 3rd ed. (1954), section 27: annihilation in flight.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from nuebar.errors import NuebarError
from nuebar.kernels import njit
from nuebar.physics.constants import AVOGADRO_per_mol, CLASSICAL_ELECTRON_RADIUS_cm, ELECTRON_MASS_MeV
from nuebar.physics.materials import Material, load_material
from nuebar.simulate.deposits import add_electron
from nuebar.simulate.random import uniform

__all__ = [
    "ElectronTables",
    "LOWEST_PHOTON_MeV",
    "PhotonTables",
    "RADIATING_MeV",
    "compton",
    "electron_tables",
    "follow_gamma",
    "interaction",
    "may_radiate",
    "photon_tables",
    "stop_electron",
    "stop_positron",
]

LOWEST_PHOTON_MeV = 0.010
"""A photon below this energy is absorbed where it is."""

_ME = ELECTRON_MASS_MeV
_ONE = np.uint64(1)
_GRID_MIN_MeV = 1e-3
_GRID_MAX_MeV = 15.0
_GRID = 4096
RADIATING_MeV = 0.05
"""An electron below this energy emits no bremsstrahlung."""

_TRACKS = 2048


class PhotonTables(NamedTuple):
    """What a photon does next, on a grid even in ln E from 1 keV to 15 MeV.

    Attributes:
        per_cm: Attenuation coefficient without coherent scattering, 1/cm.
        compton: Probability of Compton scattering.
        pair: Probability of scattering or pair production; the rest is photo-absorption.
    """

    per_cm: np.ndarray
    compton: np.ndarray
    pair: np.ndarray


class ElectronTables(NamedTuple):
    """What happens to an electron or positron on its way to rest, on a grid even in T up to 20 MeV.

    Attributes:
        photons: Mean number of bremsstrahlung photons above 10 keV.
        hazard: Minus the logarithm of a positron's probability to come to rest before it annihilates.
        step_MeV: Grid spacing.
    """

    photons: np.ndarray
    hazard: np.ndarray
    step_MeV: float


@lru_cache(maxsize=8)
def photon_tables(material: str = "lab") -> PhotonTables:
    """Tables of a material by name or folder, see :func:`nuebar.physics.materials.load_material`."""
    substance: Material = load_material(material)
    e_MeV = np.exp(np.linspace(math.log(_GRID_MIN_MeV), math.log(_GRID_MAX_MeV), _GRID))
    e_MeV[[0, -1]] = _GRID_MIN_MeV, _GRID_MAX_MeV
    _, compton, photo, nuclear, electron = substance.photons.at(e_MeV)
    total = compton + photo + nuclear + electron
    return PhotonTables(
        total * substance.density_g_cm3, compton / total, np.minimum((compton + nuclear + electron) / total, 1.0)
    )


@lru_cache(maxsize=8)
def electron_tables(material: str = "lab", electrons_per_gram_mol: float = 0.5588) -> ElectronTables:
    """Radiation and annihilation in flight, integrated over the slowing down of a track.

    Args:
        material: With stopping power of electrons.
        electrons_per_gram_mol: Z/A of the material in mol/g; LAB has 0.1201/1.008 + 0.8799·6/12.011 = 0.5588.

    Raises:
        NuebarError: The material has no stopping power of electrons, or not up to 20 MeV.
    """
    table = load_material(material).electrons
    if table is None:
        raise NuebarError(f"{material}: expected a table of electrons, found none; add its CSV file")
    t = np.linspace(0.0, _GRID_MAX_MeV + 5.0, _TRACKS)
    middle = 0.5 * (t[1:] + t[:-1])
    collision, radiative = (np.asarray(x) for x in table.at(middle))
    loss = collision + radiative
    step = np.diff(t)
    radiated = np.concatenate([[0.0], np.cumsum(radiative / loss * step)])
    hazard = np.concatenate([[0.0], np.cumsum(_annihilation_cm2(middle) * step / loss)])
    hazard *= electrons_per_gram_mol * AVOGADRO_per_mol
    # Mean energy of a photon of Kramers' spectrum between the threshold k0 and T.
    k0 = LOWEST_PHOTON_MeV
    with np.errstate(all="ignore"):
        mean = 0.5 * (t - k0) ** 2 / (t * np.log(t / k0) - (t - k0))
        photons = np.where(t > 2 * k0, radiated / mean, 0.0)
    return ElectronTables(photons, hazard, float(t[1]))


def _annihilation_cm2(t_MeV: np.ndarray) -> np.ndarray:
    """Cross-section per electron of annihilation in flight into two photons, [He]."""
    gamma = 1.0 + t_MeV / _ME
    root = np.sqrt(gamma**2 - 1)
    bracket = (gamma**2 + 4 * gamma + 1) / (gamma**2 - 1) * np.log(gamma + root) - (gamma + 3) / root
    return np.pi * CLASSICAL_ELECTRON_RADIUS_cm**2 / (gamma + 1) * bracket


_LOG_MIN = math.log(_GRID_MIN_MeV)
_PER_LOG = (_GRID - 1) / (math.log(_GRID_MAX_MeV) - _LOG_MIN)


@njit
def interaction(e_MeV: float, u: float, tables: PhotonTables) -> int:
    """What happens to a photon: 0 Compton scattering, 1 pair production, 2 photo-absorption.

    Args:
        e_MeV: Its energy.
        u: A uniform number.
        tables: Cross-sections.
    """
    x = (math.log(e_MeV) - _LOG_MIN) * _PER_LOG
    i = min(max(int(x), 0), _GRID - 2)
    f = x - i
    if u < tables.compton[i] + f * (tables.compton[i + 1] - tables.compton[i]):
        return 0
    if u < tables.pair[i] + f * (tables.pair[i + 1] - tables.pair[i]) and e_MeV > 2 * _ME:
        return 1
    return 2


@njit
def compton(e_MeV: float, key: np.uint64, counter: np.uint64) -> tuple:
    """Energy of the scattered photon by [KN], and the next counter.

    Args:
        e_MeV: Energy before.
        key: Of the draws.
        counter: The next draw.
    """
    k = e_MeV / _ME
    low = 1.0 / (1.0 + 2.0 * k)
    a1 = -math.log(low)
    low2 = low * low
    a2 = 0.5 * (1.0 - low2)
    first = a1 / (a1 + a2)
    while True:
        u = uniform(key, counter)
        v = uniform(key, counter + _ONE)
        w = uniform(key, counter + np.uint64(2))
        counter += np.uint64(3)
        x = math.exp(-a1 * v) if u < first else math.sqrt(low2 + (1.0 - low2) * v)
        t = (1.0 - x) / (k * x)  # 1 - cos of the scattering angle
        if w < 1.0 - x * t * (2.0 - t) / (1.0 + x * x):
            return x * e_MeV, counter


@njit
def _radiate(
    t_MeV: float, electrons: ElectronTables, key: np.uint64, counter: np.uint64, stack: np.ndarray, depth: int
) -> tuple:
    """Bremsstrahlung photons of a track go onto the stack; returns what is left of the track's energy."""
    i = min(int(t_MeV / electrons.step_MeV), _TRACKS - 2)
    f = t_MeV / electrons.step_MeV - i
    mean = electrons.photons[i] + f * (electrons.photons[i + 1] - electrons.photons[i])
    u = uniform(key, counter)
    counter += _ONE
    term = math.exp(-mean)
    total = term
    n = 0
    while u > total and n < 12:
        n += 1
        term *= mean / n
        total += term
    left = t_MeV
    for _ in range(n):
        while True:  # Kramers, (T - k)/k, by rejection from 1/k
            k = LOWEST_PHOTON_MeV * math.exp(uniform(key, counter) * math.log(t_MeV / LOWEST_PHOTON_MeV))
            accept = uniform(key, counter + _ONE) < 1.0 - k / t_MeV
            counter += np.uint64(2)
            if accept:
                break
        if k < left and depth < stack.size:
            stack[depth] = k
            depth += 1
            left -= k
    return left, counter, depth


@njit
def may_radiate(t_MeV: float, electrons: ElectronTables, u: float) -> bool:
    """Whether an electron may emit bremsstrahlung, from the draw that will count its photons.

    A Poisson number from a uniform one below exp(-mean) is zero, and 1 - mean is less than that. Most electrons are
    done with here: a call of :func:`stop_electron` costs as much as all else in a scattering.
    """
    cell = t_MeV / electrons.step_MeV
    i = min(int(cell), electrons.photons.size - 2)
    mean = electrons.photons[i] + (cell - i) * (electrons.photons[i + 1] - electrons.photons[i])
    return u > 1.0 - mean


@njit
def stop_electron(
    t_MeV: float,
    electrons: ElectronTables,
    key: np.uint64,
    counter: np.uint64,
    stack: np.ndarray,
    depth: int,
    codes: np.ndarray,
    n: int,
) -> tuple:
    """An electron comes to rest: its bremsstrahlung joins the stack, its track the deposits.

    Args:
        t_MeV: Kinetic energy.
        electrons: Tables of the material.
        key: Key of the random numbers.
        counter: First counter to use, uint64.
        stack: Photons that are still to be followed, in MeV.
        depth: How many there are.
        codes: Buffer of deposits.
        n: How many it holds.

    Returns:
        The next counter, the new depth and the new number of deposits.
    """
    if t_MeV > RADIATING_MeV:
        t_MeV, counter, depth = _radiate(t_MeV, electrons, key, counter, stack, depth)
    return counter, depth, add_electron(t_MeV, codes, n)


@njit
def stop_positron(
    t_MeV: float,
    electrons: ElectronTables,
    key: np.uint64,
    counter: np.uint64,
    stack: np.ndarray,
    depth: int,
    codes: np.ndarray,
    n: int,
) -> tuple:
    """A positron slows down and annihilates, at rest or in flight; like :func:`stop_electron`."""
    left = t_MeV
    i = min(int(t_MeV / electrons.step_MeV), _TRACKS - 2)
    f = t_MeV / electrons.step_MeV - i
    survive = electrons.hazard[i] + f * (electrons.hazard[i + 1] - electrons.hazard[i])
    draw = -math.log(uniform(key, counter))
    counter += _ONE
    if draw < survive:  # in flight, at the energy where the hazard passed so far equals the draw
        target = survive - draw
        low, high = 0, i + 1
        while high - low > 1:
            m = (low + high) // 2
            if electrons.hazard[m] < target:
                low = m
            else:
                high = m
        f = (target - electrons.hazard[low]) / (electrons.hazard[high] - electrons.hazard[low])
        left = min((low + f) * electrons.step_MeV, t_MeV)
        first, counter = _annihilation_share(left, key, counter)
        stack[depth] = first * (left + 2 * _ME)
        stack[depth + 1] = (1.0 - first) * (left + 2 * _ME)
        t_MeV -= left
    else:
        stack[depth] = _ME
        stack[depth + 1] = _ME
    depth += 2
    return stop_electron(t_MeV, electrons, key, counter, stack, depth, codes, n)


@njit
def _annihilation_share(t_MeV: float, key: np.uint64, counter: np.uint64) -> tuple:
    """Share of the first photon in the energy of an annihilation in flight, [He]."""
    tau = t_MeV / _ME
    gamma = tau + 1.0
    low = 0.5 * (1.0 - math.sqrt(tau / (tau + 2.0)))
    ratio = math.log((1.0 - low) / low)
    square = (gamma + 1.0) ** 2
    while True:
        x = low * math.exp(ratio * uniform(key, counter))
        weight = 1.0 - x + (2.0 * gamma * x - 1.0) / (x * square)
        accept = uniform(key, counter + _ONE) < weight
        counter += np.uint64(2)
        if accept:
            return x, counter


@njit
def follow_gamma(
    photons: PhotonTables,
    electrons: ElectronTables,
    key: np.uint64,
    counter: np.uint64,
    stack: np.ndarray,
    depth: int,
    codes: np.ndarray,
    n: int,
) -> tuple:
    """Follow every photon on the stack, and those that it makes, until all energy is deposited.

    Args:
        photons: Tables of the material.
        electrons: Tables of the material.
        key: Key of the random numbers.
        counter: First counter to use, uint64.
        stack: Photon energies in MeV; needs room for some thirty.
        depth: How many there are.
        codes: Buffer of deposits; needs room for some three hundred.
        n: How many it holds.

    Returns:
        The next counter and the new number of deposits.
    """
    while depth > 0:
        depth -= 1
        e_MeV = stack[depth]
        while e_MeV > LOWEST_PHOTON_MeV:
            kind = interaction(e_MeV, uniform(key, counter), photons)
            counter += _ONE
            if kind == 0:
                scattered, counter = compton(e_MeV, key, counter)
                kinetic = e_MeV - scattered
                if kinetic <= RADIATING_MeV:
                    n = add_electron(kinetic, codes, n)
                elif may_radiate(kinetic, electrons, uniform(key, counter)):
                    counter, depth, n = stop_electron(kinetic, electrons, key, counter, stack, depth, codes, n)
                else:
                    n = add_electron(kinetic, codes, n)
                    counter += _ONE
                e_MeV = scattered
            elif kind == 1:
                kinetic = e_MeV - 2 * _ME
                share = uniform(key, counter) * kinetic
                counter, depth, n = stop_electron(share, electrons, key, counter + _ONE, stack, depth, codes, n)
                counter, depth, n = stop_positron(kinetic - share, electrons, key, counter, stack, depth, codes, n)
                e_MeV = 0.0
            else:
                break
        if e_MeV > 0.0:
            counter, depth, n = stop_electron(e_MeV, electrons, key, counter, stack, depth, codes, n)
    return counter, n
