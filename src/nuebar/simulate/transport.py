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
from nuebar.simulate.directions import circle, isotropic, rotate, tilt
from nuebar.simulate.gammas import (
    ElectronTables,
    LOWEST_PHOTON_MeV,
    RADIATING_MeV,
    may_radiate,
    photon_tables,
    stop_electron,
    stop_positron,
)
from nuebar.simulate.random import uniform
from nuebar.simulate.scattering import LOG_MIN, PER_LOG, compton_quantiles, half_versine

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
_ONE = np.uint64(1)
_TWO = np.uint64(2)
_SCRATCH = 32  # more photons than one track can radiate


class Layers(NamedTuple):
    """Concentric spheres with what a photon does in each, on the grid of the photon tables.

    Attributes:
        radius_m: Outer radius of each layer, increasing, shape ``(layers,)``.
        per_m: Attenuation in 1/m, shape ``(layers, grid)``.
        compton: Probability of Compton scattering, same shape.
        pair: Probability of scattering or pair production, same shape.
        half_versine: Angles of Compton scattering, see :func:`nuebar.simulate.scattering.compton_quantiles`.
    """

    radius_m: np.ndarray
    per_m: np.ndarray
    compton: np.ndarray
    pair: np.ndarray
    half_versine: np.ndarray


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
        raise NuebarError(
            f"layers: expected outer radii in m that increase, got {radii.tolist()}; order them inside out"
        )
    tables = [photon_tables(name) for name, _ in spheres]
    return Layers(
        radii,
        np.array([100.0 * t.per_cm for t in tables]),
        np.array([t.compton for t in tables]),
        np.array([t.pair for t in tables]),
        compton_quantiles(),
    )


@njit
def layer_of(radius_m: float, spheres: Layers) -> int:
    """Index of the layer at a radius; the number of layers outside all of them."""
    layer = 0
    while layer < spheres.radius_m.size and radius_m > spheres.radius_m[layer]:
        layer += 1
    return layer


@njit
def push(
    stack: np.ndarray, depth: int, e_MeV: float, x: float, y: float, z: float, u: float, v: float, w: float
) -> int:
    """Put a photon on the stack, if there is room; returns the new depth.

    Args:
        stack: Photons that wait, one row each.
        depth: How many there are.
        e_MeV: Energy.
        x: Place in m.
        y: Likewise.
        z: Likewise.
        u: Direction, a unit vector.
        v: Likewise.
        w: Likewise.

    Returns:
        The new depth.
    """
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
    depths: float,
    layer: int,
    i: int,
    f: float,
    spheres: Layers,
    x: float,
    y: float,
    z: float,
    u: float,
    v: float,
    w: float,
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
    key: np.uint64,
    counter: np.uint64,
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
    last = spheres.radius_m.size
    edge2 = spheres.radius_m[0] ** 2
    radiated = np.empty(_SCRATCH)
    e_sum = x_sum = y_sum = z_sum = 0.0
    while depth > 0:
        depth -= 1
        e, x, y, z = stack[depth, 0], stack[depth, 1], stack[depth, 2], stack[depth, 3]
        u, v, w = stack[depth, 4], stack[depth, 5], stack[depth, 6]
        layer = layer_of(math.sqrt(x * x + y * y + z * z), spheres)
        while e > LOWEST_PHOTON_MeV:
            g = (math.log(e) - LOG_MIN) * PER_LOG
            i = min(max(int(g), 0), grid - 2)
            f = g - i
            depths = -math.log(uniform(key, counter))
            if layer == 0:  # a ball is convex: a flight that ends in it never left it
                path = depths / (spheres.per_m[0, i] + f * (spheres.per_m[0, i + 1] - spheres.per_m[0, i]))
                to_x, to_y, to_z = x + path * u, y + path * v, z + path * w
                if to_x * to_x + to_y * to_y + to_z * to_z < edge2:
                    x, y, z = to_x, to_y, to_z
                else:
                    layer, x, y, z = flight(depths, layer, i, f, spheres, x, y, z, u, v, w)
            elif layer < last:
                layer, x, y, z = flight(depths, layer, i, f, spheres, x, y, z, u, v, w)
            if layer == last:
                e = 0.0
                break
            chance = uniform(key, counter + _ONE)
            counter += _TWO
            if chance < spheres.compton[layer, i] + f * (spheres.compton[layer, i + 1] - spheres.compton[layer, i]):
                half = half_versine(g, uniform(key, counter), spheres.half_versine)
                a, b = circle(uniform(key, counter + _ONE))
                counter += _TWO
                scattered = e / (1.0 + 2.0 * half * e / _ME)
                if layer == 0:
                    kinetic = e - scattered
                    if kinetic > RADIATING_MeV and may_radiate(kinetic, electrons, uniform(key, counter)):
                        counter, many, n = stop_electron(kinetic, electrons, key, counter, radiated, 0, codes, n)
                        for k in range(many):
                            depth = push(stack, depth, radiated[k], x, y, z, u, v, w)
                            kinetic -= radiated[k]
                    else:
                        n = add_electron(kinetic, codes, n)
                        counter += _ONE
                    e_sum += kinetic
                    x_sum += kinetic * x
                    y_sum += kinetic * y
                    z_sum += kinetic * z
                e = scattered
                sin = 2.0 * math.sqrt(half * (1.0 - half))
                u, v, w = tilt(u, v, w, 1.0 - 2.0 * half, sin * a, sin * b)
                continue
            before, many, stays = n, 0, e
            pair = chance < spheres.pair[layer, i] + f * (spheres.pair[layer, i + 1] - spheres.pair[layer, i])
            if pair and e > 2 * _ME:
                kinetic = e - 2 * _ME
                share = uniform(key, counter) * kinetic
                counter += _ONE
                counter, many, n = stop_positron(kinetic - share, electrons, key, counter, radiated, 0, codes, n)
                counter, many, n = stop_electron(share, electrons, key, counter, radiated, many, codes, n)
                a, b, c = isotropic(key, counter)
                counter += _TWO
                depth = push(stack, depth, radiated[0], x, y, z, a, b, c)
                depth = push(stack, depth, radiated[1], x, y, z, -a, -b, -c)
                stays -= radiated[0] + radiated[1]
                first = 2
            else:
                counter, many, n = stop_electron(e, electrons, key, counter, radiated, 0, codes, n)
                first = 0
            e = 0.0
            if layer > 0:  # electrons outside give no light, and their bremsstrahlung is not followed
                n = before
                continue
            for k in range(first, many):
                depth = push(stack, depth, radiated[k], x, y, z, u, v, w)
                stays -= radiated[k]
            e_sum += stays
            x_sum += stays * x
            y_sum += stays * y
            z_sum += stays * z
        if e > 0.0 and layer == 0:
            n = add_electron(e, codes, n)
            e_sum += e
            x_sum += e * x
            y_sum += e * y
            z_sum += e * z
    centre[0] += e_sum
    centre[1] += x_sum
    centre[2] += y_sum
    centre[3] += z_sum
    return counter, n
