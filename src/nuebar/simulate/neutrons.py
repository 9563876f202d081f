"""Neutrons that slow down: recoil protons that give light, and where the neutron is captured.

Elastic scattering on hydrogen and on carbon, isotropic in the centre of mass, with the carbon recoil dark. Below
1 eV the neutron is thermal: it diffuses by a Gaussian of the material's diffusion length. The medium is the
scintillator everywhere; beyond its edge recoils give no light.

Sources:
    [Ga] J. Gammel, in Fast Neutron Physics II, ed. Marion and Fowler (1963): total n-p cross-section (nominal:
    as transcribed in public codes).
    n-C: smooth total elastic cross-section through the values of ENDF/B evaluations (nominal), without resonances,
    which change where a fast neutron scatters but not how much light it gives.
"""

from __future__ import annotations

import math

import numpy as np

from nuebar.kernels import njit
from nuebar.simulate.deposits import add_proton
from nuebar.simulate.directions import circle, isotropic, tilt
from nuebar.simulate.random import normal, uniform

__all__ = ["LEAST_RECOIL_MeV", "carbon_barn", "hydrogen_barn", "random_direction", "slow_down", "wander"]

LEAST_RECOIL_MeV = 1e-3
"""A recoil proton below this energy gives less than 0.1 keV of light and is left out."""

_ONE = np.uint64(1)
_TWO = np.uint64(2)
_THREE = np.uint64(3)
_THERMAL_MeV = 1e-6
_CONSTANT_MeV = 1e-4  # below, the cross-sections differ from those at rest by less than 0.07 %
_A = 12.0
# LAB, 0.859 g/cm³ with 12.01 % hydrogen: nuclei per m and barn.
_HYDROGEN_per_m_b = 0.859 * 0.1201 / 1.008 * 0.602214 * 100
_CARBON_per_m_b = 0.859 * 0.8799 / 12.011 * 0.602214 * 100


@njit
def hydrogen_barn(t_MeV: float) -> float:
    """n-p elastic cross-section in barn, [Ga]."""
    a = -1.86 + 0.09415 * t_MeV + 0.0001306 * t_MeV * t_MeV
    b = 0.4223 + 0.13 * t_MeV
    return 3.0 * math.pi / (1.206 * t_MeV + a * a) + math.pi / (1.206 * t_MeV + b * b)


@njit
def carbon_barn(t_MeV: float) -> float:
    """n-C elastic cross-section in barn: 4.74 at rest, 2.6 at 1 MeV, 1.3 above 5 MeV (nominal)."""
    return 1.2 + 3.54 / (1.0 + 1.5 * t_MeV)


@njit
def slow_down(
    t_MeV: float,
    place: np.ndarray,
    u: float,
    v: float,
    w: float,
    key: np.uint64,
    counter: np.uint64,
    codes: np.ndarray,
    n: int,
    edge_m: float = math.inf,
) -> tuple:
    """Scatter until thermal; recoil protons join the deposits, ``place`` moves.

    Args:
        t_MeV: Kinetic energy.
        place: Position in m, shape ``(3,)``, changed.
        u: Direction, with ``v`` and ``w``.
        v: See ``u``.
        w: See ``u``.
        key: Key of the random numbers.
        counter: First counter to use, uint64.
        codes: Buffer of deposits.
        n: How many it holds.
        edge_m: Radius of the scintillator: recoils beyond it are dark.

    Returns:
        The next counter and the new number of deposits.
    """
    x, y, z = place[0], place[1], place[2]
    edge2 = edge_m * edge_m
    hydrogen = _HYDROGEN_per_m_b * hydrogen_barn(0.0)
    total = hydrogen + _CARBON_per_m_b * carbon_barn(0.0)
    while t_MeV > _THERMAL_MeV:
        here, both = hydrogen, total
        if t_MeV > _CONSTANT_MeV:
            here = _HYDROGEN_per_m_b * hydrogen_barn(t_MeV)
            both = here + _CARBON_per_m_b * carbon_barn(t_MeV)
        path = -math.log(uniform(key, counter)) / both
        x += path * u
        y += path * v
        z += path * w
        a, b = circle(uniform(key, counter + _ONE))
        chance = uniform(key, counter + _TWO) * both
        counter += _THREE
        if chance < here:  # what is left of the draw is uniform again: the share of the energy that stays
            share = chance / here
            recoil = t_MeV * (1.0 - share)
            cos = math.sqrt(share)
            t_MeV *= share
            if recoil > LEAST_RECOIL_MeV and x * x + y * y + z * z < edge2:
                n = add_proton(recoil, codes, n)
        else:
            c = 2.0 * (chance - here) / (both - here) - 1.0
            square = _A * _A + 1.0 + 2.0 * _A * c
            t_MeV *= square / (_A + 1.0) ** 2
            cos = (1.0 + _A * c) / math.sqrt(square)
        sin = math.sqrt(max(0.0, 1.0 - cos * cos))
        u, v, w = tilt(u, v, w, cos, sin * a, sin * b)
    place[0], place[1], place[2] = x, y, z
    return counter, n


@njit
def wander(place: np.ndarray, diffusion_m: float, key: np.uint64, counter: np.uint64) -> np.uint64:
    """Diffuse as a thermal neutron until capture: ⟨r²⟩ = 6 L²; returns the next counter.

    Args:
        place: Vertex in m, shape ``(3,)``; it is moved.
        diffusion_m: Diffusion length L.
        key: Of the draws.
        counter: The next draw.

    Returns:
        The next counter.
    """
    sigma = math.sqrt(2.0) * diffusion_m
    for k in range(3):
        place[k] += sigma * normal(key, counter)
        counter += _ONE
    return counter


@njit
def random_direction(key: np.uint64, counter: np.uint64) -> tuple:
    """An isotropic direction and the next counter."""
    u, v, w = isotropic(key, counter)
    return u, v, w, counter + _TWO
