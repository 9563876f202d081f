"""One radioactive decay: charged particles as deposits, photons to be followed.

The schemes are those of :mod:`nuebar.physics.decays`. Members of a chain are events of their own: 212Bi and 212Po,
0.3 µs apart, or 214Bi and 214Po are not joined. Photons of a cascade have independent directions (angular
correlations change nothing in a detector that sees all of them); those of an annihilation are back to back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.kernels import njit
from nuebar.physics.constants import ELECTRON_MASS_MeV
from nuebar.physics.decays import ALPHA, BETA_MINUS, BETA_PLUS, DecayTables, Nuclide, kinetic_energy, load_chain
from nuebar.simulate.deposits import add_alpha
from nuebar.simulate.directions import isotropic
from nuebar.simulate.gammas import ElectronTables, stop_electron, stop_positron
from nuebar.simulate.random import uniform
from nuebar.simulate.transport import push

__all__ = ["DECAY_PHOTONS", "chain_members", "decay", "emit_photons"]

DECAY_PHOTONS = 128
"""Room for the photons of one decay: a cascade has less than twenty, each of its electrons may radiate a few."""

_ME = ELECTRON_MASS_MeV
_ONE: Any = np.uint64(1)
_TWO: Any = np.uint64(2)
_kinetic_energy = njit(kinetic_energy)


def chain_members(activity: Mapping[str, float]) -> tuple[tuple[Nuclide, float], ...]:
    """The nuclides behind the activities of a material, each once.

    Args:
        activity: Nuclide or chain → decays a second of its head, in any unit.

    Returns:
        (nuclide, activity) pairs in the order of the chains.

    Raises:
        NuebarError: A name is unknown, or nothing is active.
    """
    total: dict[str, float] = {}
    nuclides: dict[str, Nuclide] = {}
    for name, head in activity.items():
        for nuclide, share in load_chain(name):
            nuclides[nuclide.name] = nuclide
            total[nuclide.name] = total.get(nuclide.name, 0.0) + head * share
    members = tuple((nuclides[name], rate) for name, rate in total.items() if rate > 0)
    if not members:
        raise NuebarError(f"activity: expected a nuclide or chain with a positive activity, got {dict(activity)}")
    return members


@njit
def decay(
    scheme: DecayTables,
    nuclide: int,
    electrons: ElectronTables,
    key: int,
    counter: int,
    photons: np.ndarray,
    codes: np.ndarray,
    n: int,
) -> tuple:
    """One decay: electrons, positrons and alphas become deposits, photons are listed.

    Args:
        scheme: Nuclides as flat arrays.
        nuclide: Which of them.
        electrons: Tables of the scintillator.
        key: Key of the random numbers.
        counter: First counter to use, uint64.
        photons: Output, energies in MeV, with room for :data:`DECAY_PHOTONS`.
        codes: Buffer of deposits.
        n: How many it holds.

    Returns:
        The next counter; the number of photons; the place in ``photons`` of the first of two annihilation photons, or
        -1; the energy in MeV that charged particles leave at the vertex; the new number of deposits.
    """
    u = uniform(key, counter)
    counter += _ONE
    b = scheme.branch_offset[nuclide]
    while u >= scheme.branch_cdf[b]:
        b += 1
    mode = scheme.branch_mode[b]
    many, pair, stays = 0, -1, 0.0
    if mode == ALPHA:
        stays = scheme.branch_q_MeV[b]
        n = add_alpha(stays, codes, n)
    elif mode == BETA_MINUS:
        stays = _kinetic_energy(scheme.quantiles_MeV[scheme.branch_spectrum[b]], uniform(key, counter))
        counter, many, n = stop_electron(stays, electrons, key, counter + _ONE, photons, 0, codes, n)
    elif mode == BETA_PLUS:
        kinetic = _kinetic_energy(scheme.quantiles_MeV[scheme.branch_spectrum[b]], uniform(key, counter))
        stays, pair = kinetic + 2.0 * _ME, 0
        counter, many, n = stop_positron(kinetic, electrons, key, counter + _ONE, photons, 0, codes, n)
    for k in range(many):
        stays -= photons[k]
    level = scheme.branch_level[b]
    while scheme.level_offset[level] < scheme.level_offset[level + 1]:
        t = scheme.level_offset[level]
        u = uniform(key, counter)
        counter += _ONE
        while u >= scheme.transition_cdf[t]:
            t += 1
        e = scheme.transition_energy_MeV[t]
        if scheme.transition_is_electron[t]:
            before = many
            counter, many, n = stop_electron(e, electrons, key, counter, photons, many, codes, n)
            stays += e
            for k in range(before, many):
                stays -= photons[k]
        else:
            photons[many] = e
            many += 1
        level = scheme.transition_target[t]
    return counter, many, pair, stays, n


@njit
def emit_photons(
    photons: np.ndarray,
    many: int,
    pair: int,
    x: float,
    y: float,
    z: float,
    key: int,
    counter: int,
    stack: np.ndarray,
) -> tuple:
    """Put the photons of a decay on an empty stack, in random directions; see :func:`decay`.

    Returns:
        The next counter and the number of photons on the stack.
    """
    depth = 0
    u = v = w = 0.0
    for k in range(many):
        if pair >= 0 and k == pair + 1:
            u, v, w = -u, -v, -w
        else:
            u, v, w = isotropic(key, counter)
            counter += _TWO
        depth = push(stack, depth, photons[k], x, y, z, u, v, w)
    return counter, depth
