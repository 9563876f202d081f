"""Gammas from outside: through metres of water and the vessel to the surface of the scintillator.

One gamma in 1e5 arrives, so photons are multiplied on their way in, by geometry splitting and Russian roulette
(H. Kahn and T. Harris, Natl. Bur. Stand. Appl. Math. Ser. 12, 27 (1951)). A guess I of the chance to arrive is given
to every state of a photon (shell of the water, energy, direction). When a photon changes from I to I', by a flight into
the next shell or by scattering, it goes on as I'/I photons: that number rounded up or down at random. So its weight is
always 1/I, whatever its past, and as I = 1 at the surface all arrivals have the same weight. A wrong I costs
statistics, not truth.

Arrivals are not independent: those of one start share a part of their way (:attr:`Arrivals.independent`).

Approximations: gammas of one decay are followed one by one, for two of them hardly ever arrive; they start on a thin
sphere, without self-absorption; photons that fall below 0.3 MeV are left out. Electrons stop in the dark where they
are set free.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from nuebar.errors import NuebarError
from nuebar.kernels import njit
from nuebar.physics.constants import ELECTRON_MASS_MeV
from nuebar.physics.decays import emission_lines
from nuebar.simulate.decays import chain_members
from nuebar.simulate.directions import isotropic, rotate
from nuebar.simulate.gammas import compton
from nuebar.simulate.random import event_counter, uniform
from nuebar.simulate.transport import PHOTON_FIELDS, Layers, push

__all__ = ["Arrivals", "GammaLines", "LEAST_GAMMA_MeV", "arrivals_from", "gamma_lines"]

LEAST_GAMMA_MeV = 0.3
"""Photons outside the scintillator are dropped below this energy."""

_ME = ELECTRON_MASS_MeV
_ONE: Any = np.uint64(1)
_TWO: Any = np.uint64(2)
_FOUR: Any = np.uint64(4)
_FIVE: Any = np.uint64(5)
_SIX: Any = np.uint64(6)
_LOG_MIN, _LOG_MAX = math.log(1e-3), math.log(15.0)  # of the photon tables
_TILTED = 5.0  # beyond this optical depth the direction matters no more: scattering turns it
_STACK = 1 << 16
_BATCH = 8192  # starts of one call of the kernel
_MOST_STARTS = 1 << 28


@dataclass(frozen=True, eq=False)
class GammaLines:
    """The gammas of a material above an energy.

    Attributes:
        energy_MeV: Shape ``(lines,)``.
        per_activity: Gammas a second of each line, for activities in Bq.
        nuclide: Index of each line into ``nuclides``.
        nuclides: Names.
    """

    energy_MeV: np.ndarray
    per_activity: np.ndarray
    nuclide: np.ndarray
    nuclides: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Arrivals:
    """Photons at the moment when they enter the scintillator for the first time, all of equal weight.

    Attributes:
        photons: Energy in MeV, position in m, direction; shape ``(arrivals, 7)``.
        line: Index of the line that each began as.
        start: Number of the start that each comes from.
        starts: How many starts there were.
        weight: The expected number of arrivals a second is ``weight · arrivals / starts``, for activities in Bq.
    """

    photons: np.ndarray
    line: np.ndarray
    start: np.ndarray
    starts: int
    weight: float

    @property
    def per_activity(self) -> float:
        """Expected arrivals a second, for activities in Bq."""
        return self.weight * len(self.photons) / self.starts

    @property
    def independent(self) -> float:
        """How many independent arrivals would leave the same error of their number: (Σ n)² / Σ n² over starts."""
        _, many = np.unique(self.start, return_counts=True)
        return float(len(self.start) ** 2 / np.sum(many.astype(np.float64) ** 2))

    @property
    def cosine(self) -> np.ndarray:
        """Cosine between the direction and the inward normal, shape ``(arrivals,)``."""
        place = self.photons[:, 1:4]
        radius = np.sqrt(np.sum(place**2, axis=1))
        return -np.sum(place * self.photons[:, 4:7], axis=1) / radius


class _Way(NamedTuple):
    """The way in: borders from the scintillator's surface outwards; shell s lies between borders s and s + 1."""

    radius_m: np.ndarray
    layer: np.ndarray  # row of the photon tables of each shell
    depth_m: np.ndarray  # from the surface to each shell
    start: int  # the border where photons start
    slope: float  # -ln I per optical depth to the surface
    tilt: float  # and how much faster it falls for a photon that does not fly inwards
    least_MeV: float


def gamma_lines(activity: Mapping[str, float], *, least_MeV: float = LEAST_GAMMA_MeV) -> GammaLines:
    """Gammas of nuclides and chains with their intensities, and annihilation photons of positrons.

    Args:
        activity: Nuclide or chain → activity.
        least_MeV: Lines below are left out.

    Raises:
        NuebarError: A name is unknown, or no line is above the limit.
    """
    members = chain_members(activity)
    energies, rates, indices = [], [], []
    for index, (nuclide, rate) in enumerate(members):
        energy, photons, _ = emission_lines(nuclide)
        positrons = sum(b.probability for b in nuclide.branches if b.mode == "beta+")
        energy, photons = np.append(energy, _ME), np.append(photons, 2.0 * positrons)
        chosen = (energy >= least_MeV) & (photons > 0)
        energies.append(energy[chosen])
        rates.append(rate * photons[chosen])
        indices.append(np.full(np.count_nonzero(chosen), index))
    names = tuple(nuclide.name for nuclide, _ in members)
    lines = GammaLines(np.concatenate(energies), np.concatenate(rates), np.concatenate(indices), names)
    if not lines.energy_MeV.size:
        raise NuebarError(f"activity: expected gammas above {least_MeV:g} MeV, got none from {', '.join(activity)}")
    return lines


def arrivals_from(
    lines: GammaLines,
    radius_m: float,
    spheres: Layers,
    key: np.uint64,
    *,
    arrivals: int,
    slope: float = 0.7,
    tilt: float = 1.2,
    spacing_m: float = 0.3,
    one_in: int = 4,
    least_MeV: float = LEAST_GAMMA_MeV,
) -> Arrivals:
    """Follow gammas from a sphere inwards until enough have reached the scintillator.

    Args:
        lines: What is emitted.
        radius_m: Radius of the sphere where the gammas start.
        spheres: Scintillator, vessel and what is around it; layer 0 is the scintillator.
        key: Key of the random numbers.
        arrivals: How many are wanted; the last batch is kept whole, so there are some more.
        slope: How -ln I grows with the optical depth to the surface; 0 with ``tilt`` 0 for no multiplication.
        tilt: How much faster it grows for a photon that does not fly inwards.
        spacing_m: Wanted distance of the borders: about a mean free path of a 2.6 MeV gamma in water.
        one_in: Keep one arrival of so many, so that fewer of them have the same start.
        least_MeV: Photons outside the scintillator are dropped below this energy.

    Raises:
        NuebarError: The sphere is not outside the scintillator, or next to nothing arrives.
    """
    if arrivals < 1 or one_in < 1:
        raise NuebarError(f"arrivals and one_in: expected whole numbers above 0, got {arrivals} and {one_in}")
    if not spheres.radius_m[0] < radius_m < spheres.radius_m[-1]:
        raise NuebarError(
            f"radius_m: expected a sphere between {spheres.radius_m[0]:g} and {spheres.radius_m[-1]:g} m, got "
            f"{radius_m:g}; move it, or the outer radius"
        )
    way = _way(spheres, radius_m, spacing_m, slope, tilt, least_MeV)
    inwards, outwards = _start_importance(way, spheres, lines.energy_MeV)
    chance = np.where(lines.energy_MeV >= least_MeV, lines.per_activity * (inwards + outwards), 0.0)
    if not chance.sum() > 0:
        raise NuebarError(f"lines: expected a gamma above {least_MeV:g} MeV, got none; lower least_MeV")
    cumulative = np.cumsum(chance) / chance.sum()
    cumulative[-1] = 1.0
    back = outwards / (inwards + outwards)
    found: list[tuple[np.ndarray, ...]] = []
    starts = count = 0
    room = 1 << 15
    while count < arrivals:
        arrays = np.empty((room, PHOTON_FIELDS)), np.empty(room, np.int32), np.empty(room, np.int32)
        n = _descend(way, spheres, lines.energy_MeV, cumulative, back, key, starts, _BATCH, one_in, *arrays)
        if n == -2:
            raise NuebarError(f"slope and tilt: one gamma becomes too many; choose less than {slope:g} and {tilt:g}")
        if n < 0:  # the batch again with more room: a start depends on its number only
            room *= 2
            continue
        found.append(tuple(a[:n].copy() for a in arrays))
        starts, count = starts + _BATCH, count + n
        if starts >= _MOST_STARTS or (starts >= 128 * _BATCH and count == 0):
            raise NuebarError(
                f"radius_m: {count} of {starts} gammas that start at {radius_m:g} m arrive; use a smaller radius"
            )
    photons, line, start = (np.concatenate(column) for column in zip(*found, strict=True))
    return Arrivals(photons, line, start, starts, one_in * float(chance.sum()))


def _way(spheres: Layers, start_m: float, spacing_m: float, slope: float, tilt: float, least_MeV: float) -> _Way:
    marks = np.unique([*spheres.radius_m, start_m])
    borders = [marks[:1]]
    for low, high in pairwise(marks):
        cells = max(1, round((high - low) / spacing_m)) if high <= start_m else 1
        borders.append(np.linspace(low, high, cells + 1)[1:])
    radius = np.concatenate(borders)
    layer = np.searchsorted(spheres.radius_m, 0.5 * (radius[1:] + radius[:-1]))
    start = int(np.searchsorted(radius, start_m))
    return _Way(radius, layer, radius[:-1] - radius[0], start, slope, tilt, least_MeV)


def _start_importance(way: _Way, spheres: Layers, energies_MeV: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of I over the directions in which a gamma starts, of those inwards and outwards: halves of all."""
    grid = spheres.per_m.shape[1]
    log_e = np.linspace(_LOG_MIN, _LOG_MAX, grid)
    means: list[np.ndarray] = []
    for shell in (way.start - 1, way.start):
        depth = np.interp(np.log(energies_MeV), log_e, spheres.per_m[way.layer[shell]]) * way.depth_m[shell]
        fall = way.tilt * np.minimum(depth, _TILTED)
        level = np.where(fall > 0, -np.expm1(-fall) / np.maximum(fall, 1e-300), 1.0) if not means else np.exp(-fall)
        means.append(0.5 * np.exp(-way.slope * depth) * level)
    return means[0], means[1]


@njit
def _log_importance(way: _Way, shell: int, per_m: float, inward: float) -> float:
    """Logarithm of I of a photon in a shell: attenuation per metre at its energy, cosine with the inward normal."""
    depth = way.depth_m[shell] * per_m
    return -way.slope * depth - way.tilt * min(depth, _TILTED) * (1.0 - max(inward, 0.0))


@njit
def _attenuation(way: _Way, spheres: Layers, shell: int, i: int, f: float) -> float:
    row = spheres.per_m[way.layer[shell]]
    return row[i] + f * (row[i + 1] - row[i])


@njit
def _row(e_MeV: float, spheres: Layers) -> tuple:
    """Row of the photon grid at an energy, and the share of the next."""
    grid = spheres.per_m.shape[1]
    g = (math.log(e_MeV) - _LOG_MIN) * (grid - 1) / (_LOG_MAX - _LOG_MIN)
    i = min(int(g), grid - 2)
    return i, g - i


@njit
def _to_border(inner_m: float, outer_m: float, x: float, y: float, z: float, u: float, v: float, w: float) -> tuple:
    """Distance to the border of a shell, and whether it is the inner one."""
    square = x * x + y * y + z * z
    along = x * u + y * v + z * w
    if along < 0.0:
        under = along * along - square + inner_m * inner_m
        if under > 0.0:
            return max(0.0, -along - math.sqrt(under)), True
    return max(0.0, -along + math.sqrt(max(0.0, along * along - square + outer_m * outer_m))), False


@njit
def _inward(x: float, y: float, z: float, u: float, v: float, w: float) -> float:
    return -(x * u + y * v + z * w) / math.sqrt(x * x + y * y + z * z)


@njit
def _descend(
    way: _Way,
    spheres: Layers,
    energies_MeV: np.ndarray,
    cumulative: np.ndarray,
    back: np.ndarray,
    key: int,
    first_start: int,
    starts: int,
    one_in: int,
    photons: np.ndarray,
    lines: np.ndarray,
    starts_of: np.ndarray,
) -> int:
    """Arrivals of consecutive starts; returns their number, or -1 if there is no room for them."""
    stack = np.empty((_STACK, PHOTON_FIELDS))
    shell_of = np.empty(_STACK, np.int64)
    r = way.radius_m[way.start]
    n = 0
    for start in range(first_start, first_start + starts):
        counter = event_counter(start)
        line = np.searchsorted(cumulative, uniform(key, counter))
        e = energies_MeV[line]
        a, b, c = isotropic(key, counter + _TWO)
        inward = uniform(key, counter + _ONE)
        if uniform(key, counter + _FOUR) < back[line]:
            shell, inward = way.start, -inward
        else:  # density exp(-fall (1 - inward)): starts too follow I
            shell = way.start - 1
            i, f = _row(e, spheres)
            fall = way.tilt * min(way.depth_m[shell] * _attenuation(way, spheres, shell, i, f), _TILTED)
            if fall > 0.0:
                inward = 1.0 + math.log(inward + (1.0 - inward) * math.exp(-fall)) / fall
        u, v, w = rotate(-a, -b, -c, inward, 2.0 * math.pi * uniform(key, counter + _FIVE))
        push(stack, 0, e, r * a, r * b, r * c, u, v, w)
        shell_of[0] = shell
        before = n
        n = _multiply(way, spheres, key, counter + _SIX, one_in, stack, shell_of, photons, n)
        if n < 0:
            return n
        for k in range(before, n):
            lines[k] = line
            starts_of[k] = start
    return n


@njit
def _multiply(
    way: _Way,
    spheres: Layers,
    key: int,
    counter: int,
    one_in: int,
    stack: np.ndarray,
    shell_of: np.ndarray,
    photons: np.ndarray,
    n: int,
) -> int:
    """Follow the one photon on the stack and all that it becomes; returns the new number of arrivals, or -1."""
    last = way.layer.size
    depth = 1
    while depth > 0:
        depth -= 1
        e, x, y, z = stack[depth, 0], stack[depth, 1], stack[depth, 2], stack[depth, 3]
        u, v, w = stack[depth, 4], stack[depth, 5], stack[depth, 6]
        shell = shell_of[depth]
        i, f = _row(e, spheres)
        per_m = _attenuation(way, spheres, shell, i, f)
        mark = _log_importance(way, shell, per_m, _inward(x, y, z, u, v, w))
        path, inwards = _to_border(way.radius_m[shell], way.radius_m[shell + 1], x, y, z, u, v, w)
        flown = -math.log(uniform(key, counter)) / per_m
        crosses = flown >= path
        path = min(path, flown)
        x, y, z = x + path * u, y + path * v, z + path * w
        products = 1
        if crosses:
            counter += _ONE
            if inwards and shell == 0:
                if n == photons.shape[0]:
                    return -1
                if one_in * uniform(key, counter) < 1.0:
                    n = push(photons, n, e, x, y, z, u, v, w)
                counter += _ONE
                continue
            shell += -1 if inwards else 1
            if shell == last:
                continue
        else:
            layer = way.layer[shell]
            chance = uniform(key, counter + _ONE)
            counter += _TWO
            scatters, pairs = spheres.compton[layer], spheres.pair[layer]
            if chance < scatters[i] + f * (scatters[i + 1] - scatters[i]):
                scattered, counter = compton(e, key, counter)
                phi = 2.0 * math.pi * uniform(key, counter)
                counter += _ONE
                u, v, w = rotate(u, v, w, 1.0 + _ME / e - _ME / scattered, phi)
                e = scattered
            elif chance < pairs[i] + f * (pairs[i + 1] - pairs[i]) and e > 2.0 * _ME:
                u, v, w = isotropic(key, counter)
                counter += _TWO
                e, products = _ME, 2
            else:
                continue
            if e < way.least_MeV:
                continue
        i, f = _row(e, spheres)
        per_m = _attenuation(way, spheres, shell, i, f)
        for _ in range(products):
            ratio = math.exp(_log_importance(way, shell, per_m, _inward(x, y, z, u, v, w)) - mark)
            copies = int(ratio + uniform(key, counter))
            counter += _ONE
            if depth + copies > stack.shape[0]:
                return -2
            for _ in range(copies):
                shell_of[depth] = shell
                depth = push(stack, depth, e, x, y, z, u, v, w)
            u, v, w = -u, -v, -w  # the other photon of an annihilation
    return n
