"""Neutrons that slow down: recoil protons that give light, and where and when the neutron is captured.

Elastic scattering on hydrogen (isotropic in the centre of mass) and on carbon, with the carbon recoil dark. Below
1 eV the neutron is thermal: it diffuses by a Gaussian of the material's diffusion length and is captured after an
exponential time.

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
from nuebar.simulate.random import normal, uniform
from nuebar.simulate.transport import isotropic, rotate

__all__ = ["slow_down", "wander"]

_ONE, _TWO, _THREE = np.uint64(1), np.uint64(2), np.uint64(3)
_THERMAL_MeV = 1e-6
_LEAST_RECOIL_MeV = 1e-3  # a recoil below it gives less than 0.1 keV of light
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
    key: int,
    counter: int,
    codes: np.ndarray,
    n: int,
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

    Returns:
        The next counter and the new number of deposits.
    """
    while t_MeV > _THERMAL_MeV:
        hydrogen = _HYDROGEN_per_m_b * hydrogen_barn(t_MeV)
        total = hydrogen + _CARBON_per_m_b * carbon_barn(t_MeV)
        path = -math.log(uniform(key, counter)) / total
        place[0] += path * u
        place[1] += path * v
        place[2] += path * w
        phi = 2.0 * math.pi * uniform(key, counter + _ONE)
        share = uniform(key, counter + _TWO)
        on_hydrogen = uniform(key, counter + _THREE) * total < hydrogen
        counter += np.uint64(4)
        if on_hydrogen:
            recoil = t_MeV * (1.0 - share)
            cos = math.sqrt(share)
            t_MeV *= share
            if recoil > _LEAST_RECOIL_MeV:
                n = add_proton(recoil, codes, n)
        else:
            c = 2.0 * share - 1.0
            square = _A * _A + 1.0 + 2.0 * _A * c
            t_MeV *= square / (_A + 1.0) ** 2
            cos = (1.0 + _A * c) / math.sqrt(square)
        u, v, w = rotate(u, v, w, cos, phi)
    return counter, n


@njit
def wander(place: np.ndarray, diffusion_m: float, key: int, counter: int) -> int:
    """Diffuse as a thermal neutron until capture: ⟨r²⟩ = 6 L²; returns the next counter."""
    sigma = math.sqrt(2.0) * diffusion_m
    for k in range(3):
        place[k] += sigma * normal(key, counter)
        counter += _ONE
    return counter


@njit
def random_direction(key: int, counter: int) -> tuple:
    """An isotropic direction and the next counter."""
    u, v, w = isotropic(key, counter)
    return u, v, w, counter + _TWO
