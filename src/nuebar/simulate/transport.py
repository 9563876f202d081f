"""Photon cascades with positions, in concentric spheres: leakage at the edge, and where the light comes from.

The interactions are those of :mod:`nuebar.simulate.gammas`; here every photon also has a place and a direction.
Layer 0 is the scintillator: only what is deposited there counts. Outside it (acrylic, water) photons scatter and are
absorbed in the dark, and may come back. Electrons stop where they are made: their range is a few centimetres at
most, below the vertex resolution. Bremsstrahlung photons take the direction of the photon that set their electron
free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from nuebar.errors import NuebarError
from nuebar.kernels import njit
from nuebar.physics.constants import ELECTRON_MASS_MeV
from nuebar.simulate.deposits import add_electron
from nuebar.simulate.gammas import (
    LOWEST_PHOTON_MeV,
    ElectronTables,
    compton,
    photon_tables,
    stop_electron,
    stop_positron,
)
from nuebar.simulate.random import uniform

__all__ = [
    "PHOTON_FIELDS",
    "Layers",
    "flight",
    "follow_in_layers",
    "isotropic",
    "layer_of",
    "layers",
    "push",
    "rotate",
]

PHOTON_FIELDS = 7
"""A photon on the stack: energy in MeV, position in m, direction."""

_ME = ELECTRON_MASS_MeV
_ONE, _TWO = np.uint64(1), np.uint64(2)
_SCRATCH = 32  # more photons than one track can radiate


class Layers(NamedTuple):
    """Concentric spheres with what a photon does in each, on the grid of the photon tables.

    Attributes:
        radius_m: Outer radius of each layer, increasing, shape ``(layers,)``.
        per_m: Attenuation in 1/m, shape ``(layers, grid)``.
        compton: Probability of Compton scattering, same shape.
        pair: Probability of scattering or pair production, same shape.
    """

    radius_m: np.ndarray
    per_m: np.ndarray
    compton: np.ndarray
    pair: np.ndarray


def layers(spheres: Sequence[tuple[str, float]]) -> Layers:
    """Nested spheres from the inside out.

    Args:
        spheres: Material and outer radius in m of each layer; the first one is the scintillator.

    Raises:
        NuebarError: Radii do not increase, or a material is unknown.
    """
    return _layers(tuple((str(name), float(radius)) for name, radius in spheres))


@lru_cache(maxsize=8)
def _layers(spheres: tuple[tuple[str, float], ...]) -> Layers:
    radii = np.array([radius for _, radius in spheres])
    if not (len(radii) and radii[0] > 0 and np.all(np.diff(radii) > 0)):
        raise NuebarError(f"layers: expected outer radii in m that increase, got {radii.tolist()}; order them inside out")
    tables = [photon_tables(name) for name, _ in spheres]
    return Layers(
        radii,
        np.array([100.0 * t.per_cm for t in tables]),
        np.array([t.compton for t in tables]),
        np.array([t.pair for t in tables]),
    )


@njit
def layer_of(radius_m: float, spheres: Layers) -> int:
    """Index of the layer at a radius; the number of layers outside all of them."""
    layer = 0
    while layer < spheres.radius_m.size and radius_m > spheres.radius_m[layer]:
        layer += 1
    return layer


@njit
def isotropic(key: int, counter: int) -> tuple:
    """A direction in three numbers; two draws."""
    cos = 2.0 * uniform(key, counter) - 1.0
    phi = 2.0 * math.pi * uniform(key, counter + _ONE)
    sin = math.sqrt(1.0 - cos * cos)
    return sin * math.cos(phi), sin * math.sin(phi), cos


@njit
def rotate(u: float, v: float, w: float, cos: float, phi: float) -> tuple:
    """The direction (u, v, w) turned by an angle of cosine ``cos`` at azimuth ``phi``."""
    sin = math.sqrt(max(0.0, 1.0 - cos * cos))
    a, b = sin * math.cos(phi), sin * math.sin(phi)
    across = u * u + v * v
    if across < 1e-12:
        return a, b, cos if w > 0.0 else -cos
    root = math.sqrt(across)
    x = u * cos + (a * u * w - b * v) / root
    y = v * cos + (a * v * w + b * u) / root
    z = w * cos - a * root
    norm = 1.0 / math.sqrt(x * x + y * y + z * z)
    return x * norm, y * norm, z * norm


@njit
def push(
    stack: np.ndarray, depth: int, e_MeV: float, x: float, y: float, z: float, u: float, v: float, w: float
) -> int:
    """Put a photon on the stack, if there is room; returns the new depth."""
    if depth >= stack.shape[0]:
        return depth
    row = stack[depth]
    row[0] = e_MeV
    row[1] = x
    row[2] = y
    row[3] = z
    row[4] = u
    row[5] = v
    row[6] = w
    return depth + 1


@njit
def flight(
    depths: float, layer: int, i: int, f: float, spheres: Layers, x: float, y: float, z: float, u: float, v: float, w: float
) -> tuple:
    """Fly until an optical depth is used up or the last sphere is left.

    Args:
        depths: Optical depth to go.
        layer: Layer at the start.
        i: Row of the photon grid.
        f: Share of the next row.
        spheres: The layers.
        x: Position in m, with ``y`` and ``z``.
        y: See ``x``.
        z: See ``x``.
        u: Direction, with ``v`` and ``w``.
        v: See ``u``.
        w: See ``u``.

    Returns:
        Layer and position at the end; the layer is their number if the photon has left.
    """
    last = spheres.radius_m.size
    while layer < last:
        per_m = spheres.per_m[layer, i] + f * (spheres.per_m[layer, i + 1] - spheres.per_m[layer, i])
        distance = depths / per_m
        square = x * x + y * y + z * z
        along = x * u + y * v + z * w
        outer = spheres.radius_m[layer]
        to_border = -along + math.sqrt(max(0.0, along * along - square + outer * outer))
        following = layer + 1
        if layer > 0 and along < 0.0:
            inner = spheres.radius_m[layer - 1]
            under = along * along - square + inner * inner
            if under > 0.0:
                to_border = -along - math.sqrt(under)
                following = layer - 1
        if distance < to_border:
            return layer, x + distance * u, y + distance * v, z + distance * w
        to_border = max(to_border, 0.0)
        depths -= to_border * per_m
        x += to_border * u
        y += to_border * v
        z += to_border * w
        layer = following
    return layer, x, y, z


@njit
def follow_in_layers(
    spheres: Layers,
    electrons: ElectronTables,
    key: int,
    counter: int,
    stack: np.ndarray,
    depth: int,
    codes: np.ndarray,
    n: int,
    centre: np.ndarray,
) -> tuple:
    """Follow every photon on the stack, and those that it makes, until it is absorbed or has left.

    Args:
        spheres: The layers.
        electrons: Tables of the scintillator.
        key: Key of the random numbers.
        counter: First counter to use, uint64.
        stack: Photons, shape ``(room, PHOTON_FIELDS)``; see :func:`push`.
        depth: How many there are.
        codes: Buffer of deposits.
        n: How many it holds.
        centre: Sums to add to: deposited energy, and energy times x, y, z; shape ``(4,)``.

    Returns:
        The next counter and the new number of deposits.
    """
    grid = spheres.per_m.shape[1]
    log_min = math.log(1e-3)
    per_log = (grid - 1) / (math.log(15.0) - log_min)
    last = spheres.radius_m.size
    radiated = np.empty(_SCRATCH)
    while depth > 0:
        depth -= 1
        row = stack[depth]
        e, x, y, z, u, v, w = row[0], row[1], row[2], row[3], row[4], row[5], row[6]
        layer = layer_of(math.sqrt(x * x + y * y + z * z), spheres)
        while e > LOWEST_PHOTON_MeV:
            g = (math.log(e) - log_min) * per_log
            i = min(max(int(g), 0), grid - 2)
            f = g - i
            depths = -math.log(uniform(key, counter))
            layer, x, y, z = flight(depths, layer, i, f, spheres, x, y, z, u, v, w)
            if layer == last:
                e = 0.0
                break
            chance = uniform(key, counter + _ONE)
            counter += _TWO
            lit = layer == 0
            before = n
            many = 0
            if chance < spheres.compton[layer, i] + f * (spheres.compton[layer, i + 1] - spheres.compton[layer, i]):
                scattered, counter = compton(e, key, counter)
                cos = 1.0 + _ME / e - _ME / scattered
                phi = 2.0 * math.pi * uniform(key, counter)
                counter += _ONE
                kinetic = e - scattered
                e = scattered
                if lit:
                    counter, many, n = stop_electron(kinetic, electrons, key, counter, radiated, 0, codes, n)
                    depth = _emit(radiated, 0, many, stack, depth, x, y, z, u, v, w)
                    _weigh(kinetic, radiated, many, centre, x, y, z)
                u, v, w = rotate(u, v, w, cos, phi)
                continue
            pair = chance < spheres.pair[layer, i] + f * (spheres.pair[layer, i + 1] - spheres.pair[layer, i])
            if pair and e > 2 * _ME:
                kinetic = e - 2 * _ME
                share = uniform(key, counter) * kinetic
                counter += _ONE
                counter, many, n = stop_positron(kinetic - share, electrons, key, counter, radiated, 0, codes, n)
                counter, many, n = stop_electron(share, electrons, key, counter, radiated, many, codes, n)
                if not lit:
                    n = before
                else:
                    _weigh(kinetic + 2 * _ME, radiated, many, centre, x, y, z)
                a, b, c = isotropic(key, counter)
                counter += _TWO
                depth = push(stack, depth, radiated[0], x, y, z, a, b, c)
                depth = push(stack, depth, radiated[1], x, y, z, -a, -b, -c)
                if lit:
                    depth = _emit(radiated, 2, many, stack, depth, x, y, z, u, v, w)
            elif lit:
                counter, many, n = stop_electron(e, electrons, key, counter, radiated, 0, codes, n)
                depth = _emit(radiated, 0, many, stack, depth, x, y, z, u, v, w)
                _weigh(e, radiated, many, centre, x, y, z)
            e = 0.0
        if e > 0.0 and layer == 0:
            n = add_electron(e, codes, n)
            _weigh(e, radiated, 0, centre, x, y, z)
    return counter, n


@njit
def _emit(
    radiated: np.ndarray,
    first: int,
    many: int,
    stack: np.ndarray,
    depth: int,
    x: float,
    y: float,
    z: float,
    u: float,
    v: float,
    w: float,
) -> int:
    for k in range(first, many):
        depth = push(stack, depth, radiated[k], x, y, z, u, v, w)
    return depth


@njit
def _weigh(e_MeV: float, radiated: np.ndarray, many: int, centre: np.ndarray, x: float, y: float, z: float) -> None:
    """Add what stays here of an energy to the sums: all but the photons that leave the place."""
    for k in range(many):
        e_MeV -= radiated[k]
    centre[0] += e_MeV
    centre[1] += e_MeV * x
    centre[2] += e_MeV * y
    centre[3] += e_MeV * z
