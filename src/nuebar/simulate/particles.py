"""A positron that stops and a neutron that is captured: what they leave, with their photons followed in layers.

Sources:
    Gammas of captures on carbon: IAEA/PGAA intensities of 4945.3, 3683.9 and 1261.8 keV per 100 captures, 73.94,
    34.56 and 35.13, normalised to one capture: 68.1 % and 31.9 %.
"""

from __future__ import annotations

import math

import numpy as np

from nuebar.kernels import njit
from nuebar.physics.constants import ELECTRON_MASS_MeV
from nuebar.physics.scintillator import N_H_GAMMA_MeV
from nuebar.simulate.directions import circle, isotropic, tilt
from nuebar.simulate.gammas import ElectronTables, stop_positron
from nuebar.simulate.random import uniform
from nuebar.simulate.transport import Layers, follow_in_layers, push

__all__ = ["N_C_SINGLE", "N_C_GAMMAS_MeV", "annihilation_cosine", "follow_capture", "follow_positron"]

N_C_SINGLE = 0.681
"""Share of captures on carbon that give one gamma; the others give two."""

N_C_GAMMAS_MeV = (4.945, 3.684, 1.262)
"""The one gamma of a capture on carbon, and the two."""

_ME = ELECTRON_MASS_MeV
_ONE = np.uint64(1)
_TWO = np.uint64(2)
_THREE = np.uint64(3)


@njit
def follow_positron(
    t_MeV: float,
    x: float,
    y: float,
    z: float,
    u: float,
    v: float,
    w: float,
    spheres: Layers,
    electrons: ElectronTables,
    key: np.uint64,
    counter: np.uint64,
    stack: np.ndarray,
    radiated: np.ndarray,
    codes: np.ndarray,
    n: int,
    centre: np.ndarray,
) -> tuple:
    """A positron in the scintillator comes to rest and annihilates; its photons are followed.

    Two gammas of 511 keV fly back to back from rest. In flight their angles to the track follow from their energies.
    Bremsstrahlung goes along the track.

    Args:
        t_MeV: Kinetic energy.
        x: Place in m.
        y: Likewise.
        z: Likewise.
        u: Direction, a unit vector.
        v: Likewise.
        w: Likewise.
        spheres: Radii of the layers.
        electrons: Tables of the electrons that photons set in motion.
        key: Of the draws.
        counter: The next draw.
        stack: Room for photons that wait.
        radiated: Room for photons of bremsstrahlung.
        codes: Gets the deposits as 16-bit numbers.
        n: How many deposits there are already.
        centre: Gets energy times place, and energy.
    """
    counter, many, n = stop_positron(t_MeV, electrons, key, counter, radiated, 0, codes, n)
    stays = t_MeV + 2.0 * _ME
    for k in range(many):
        stays -= radiated[k]
    centre[0], centre[1], centre[2], centre[3] = stays, stays * x, stays * y, stays * z
    depth = 0
    for k in range(2, many):
        depth = push(stack, depth, radiated[k], x, y, z, u, v, w)
    left = radiated[0] + radiated[1] - 2.0 * _ME
    if left > 1e-9:
        a, b = circle(uniform(key, counter))
        counter += _ONE
        for k in range(2):
            cos = annihilation_cosine(left, radiated[k])
            sin = math.sqrt(1.0 - cos * cos)
            sign = 1.0 - 2.0 * k  # on opposite sides of the track
            i, j, m = tilt(u, v, w, cos, sign * sin * a, sign * sin * b)
            depth = push(stack, depth, radiated[k], x, y, z, i, j, m)
    else:
        u, v, w = isotropic(key, counter)
        counter += _TWO
        depth = push(stack, depth, radiated[0], x, y, z, u, v, w)
        depth = push(stack, depth, radiated[1], x, y, z, -u, -v, -w)
    return follow_in_layers(spheres, electrons, key, counter, stack, depth, codes, n, centre)


@njit
def annihilation_cosine(t_MeV: float, photon_MeV: float) -> float:
    """Cosine between a positron that annihilates in flight and one of its two photons.

    From (P - k)² = 0 with P the momentum of both leptons: cos θ = (E + m)(1 - m/k)/p.
    """
    total = t_MeV + 2.0 * _ME
    cos = total * (1.0 - _ME / photon_MeV) / math.sqrt(t_MeV * total)
    return min(1.0, max(-1.0, cos))


@njit
def follow_capture(
    on_carbon: bool,
    x: float,
    y: float,
    z: float,
    spheres: Layers,
    electrons: ElectronTables,
    key: np.uint64,
    counter: np.uint64,
    stack: np.ndarray,
    codes: np.ndarray,
    n: int,
    centre: np.ndarray,
) -> tuple:
    """Gammas of a capture on hydrogen or carbon, each in a direction of its own.

    Args:
        on_carbon: Whether the capture is on carbon.
        x: Place in m.
        y: Likewise.
        z: Likewise.
        spheres: Radii of the layers.
        electrons: Tables of the electrons that photons set in motion.
        key: Of the draws.
        counter: The next draw.
        stack: Room for photons that wait.
        codes: Gets the deposits as 16-bit numbers.
        n: How many deposits there are already.
        centre: Gets energy times place, and energy.
    """
    centre[0] = centre[1] = centre[2] = centre[3] = 0.0
    u, v, w = isotropic(key, counter)
    counter += _TWO
    depth = 0
    if not on_carbon:
        depth = push(stack, depth, N_H_GAMMA_MeV, x, y, z, u, v, w)
    elif uniform(key, counter) < N_C_SINGLE:
        depth = push(stack, depth, N_C_GAMMAS_MeV[0], x, y, z, u, v, w)
    else:
        depth = push(stack, depth, N_C_GAMMAS_MeV[1], x, y, z, u, v, w)
        u, v, w = isotropic(key, counter + _ONE)
        depth = push(stack, depth, N_C_GAMMAS_MeV[2], x, y, z, u, v, w)
    return follow_in_layers(spheres, electrons, key, counter + _THREE, stack, depth, codes, n, centre)
