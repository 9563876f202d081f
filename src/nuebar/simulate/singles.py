"""Singles of radioactivity: pools of cascades for every material, and reconstructed events drawn from them.

A pool is simulated once: decays inside the scintillator or its vessel, or gammas that arrive from outside
(:mod:`nuebar.simulate.external`). Events take the cascades of each material in a row from a random place on, so that
memory is read in order; pools have no order of their own. As sphere and sources are symmetric, every event gets a
new direction from the centre: only the radius of a cascade is its own. With charge and vertex drawn afresh, too, a
pool serves many more events than it has cascades.

Rates are given above a threshold of reconstructed energy in the whole scintillator. What share of a pool is above it is
found by reconstructing (:func:`generated_rates_Hz`), once at the nominal response: another (kB, fC, light yield) changes
what is seen of the same decays.

Approximations: betas from the vessel do not reach the scintillator (they would from its innermost millimetres, far
from any fiducial volume), only their bremsstrahlung does; outside the vessel gammas come one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nuebar.config_detector import Singles
from nuebar.errors import NuebarError
from nuebar.kernels import njit
from nuebar.physics.decays import DecayTables, flatten
from nuebar.simulate.decays import DECAY_PHOTONS, chain_members, decay, emit_photons
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.directions import isotropic
from nuebar.simulate.external import Arrivals, arrivals_from, gamma_lines
from nuebar.simulate.gammas import ElectronTables
from nuebar.simulate.light import Electronics, reconstruct
from nuebar.simulate.pool import CascadePool
from nuebar.simulate.random import derive_key, event_counter, uniform
from nuebar.simulate.transport import PHOTON_FIELDS, Layers, follow_in_layers, push
from nuebar.simulate.uniformity import UniformityMap

__all__ = [
    "PLACES",
    "SinglesLight",
    "generated_rates_Hz",
    "singles_events",
    "singles_light",
    "singles_pool",
    "singles_pools",
]

PLACES = ("inside", "acrylic", "outside")
"""What the column ``kind`` of a pool counts."""

_BLOCK = 1 << 14  # cascades of one call of a kernel
_CODES = 1 << 20
_MARGIN = 1 << 13  # more deposits than a decay has
_STACK = 512
_EVENTS = 2048  # events between two calls of the reconstruction
_SHARE_EVENTS = 1_000_000  # leaves 0.1 % of a material's rate
_ONE, _TWO = np.uint64(1), np.uint64(2)
_MATERIAL, _DIRECTION = np.uint64(8), np.uint64(9)  # counters after those of the reconstruction


def singles_pools(model: DetectorModel, seed: int, *, cascades: int = 200_000) -> dict[str, CascadePool]:
    """A pool for every material of a detector, by name; see :func:`singles_pool`.

    Args:
        model: The detector.
        seed: Seed of the run.
        cascades: Size of each pool.

    Raises:
        NuebarError: The detector has no singles.
    """
    singles = model.detector.singles
    if not singles:
        raise NuebarError("detector.singles: expected at least one material, found none; see juno.toml")
    return {s.name: singles_pool(s, model, derive_key(seed, "singles", s.name), cascades=cascades) for s in singles}


def singles_pool(
    singles: Singles, model: DetectorModel, key: np.uint64, *, cascades: int = 200_000, least_MeV: float = 0.2
) -> CascadePool:
    """Cascades of one material in random order.

    Args:
        singles: The material.
        model: The detector; only its geometry and materials matter.
        key: Key of the random numbers.
        cascades: How many; for gammas from outside, how many arrive at the scintillator.
        least_MeV: Cascades that deposit less in the scintillator are left out.

    Returns:
        The pool. Columns: ``x_m``, ``y_m``, ``z_m`` (mean place of the deposits), ``radius_m``, ``e_dep_MeV``
        (kinetic energy deposited, without quenching), ``nuclide`` (index into ``metadata["nuclides"]``), ``kind``
        (index into :data:`PLACES`). Metadata: ``per_activity``, cascades a second for activities in Bq; ``starts``;
        ``independent``, see :class:`nuebar.simulate.external.Arrivals`.

    Raises:
        NuebarError: A nuclide is unknown, the place does not exist, or nothing reaches the scintillator.
    """
    if cascades < 1:
        raise NuebarError(f"cascades: expected a whole number above 0, got {cascades}")
    if singles.place not in PLACES:
        raise NuebarError(f"detector.singles.{singles.name}.place: expected one of {PLACES}, got {singles.place!r}")
    collected = _Collected()
    if singles.place == "outside":
        lines = gamma_lines(singles.activity)
        arrivals = arrivals_from(lines, singles.radius_m, model.spheres, key, arrivals=cascades)
        _follow_arrivals(arrivals, lines.nuclide, model, key, least_MeV, collected)
        starts, independent = arrivals.starts, arrivals.independent * collected.share(len(arrivals.line))
        per_activity = arrivals.per_activity * collected.share(len(arrivals.line))
        names = lines.nuclides
    else:
        members = chain_members(singles.activity)
        activity = np.array([rate for _, rate in members])
        starts = _follow_decays(singles, flatten(n for n, _ in members), activity, model, key, cascades, least_MeV, collected)
        per_activity, independent = float(activity.sum()) * collected.share(starts), float(collected.size)
        names = tuple(n.name for n, _ in members)
    about = {
        "material": singles.name,
        "place": singles.place,
        "nuclides": list(names),
        "least_MeV": least_MeV,
        "starts": starts,
        "per_activity": per_activity,
        "independent": independent,
    }
    return collected.pool(PLACES.index(singles.place), about)


class _Collected:
    """Cascades from many calls of a kernel."""

    def __init__(self) -> None:
        self.codes: list[np.ndarray] = []
        self.counts: list[np.ndarray] = []
        self.places: list[np.ndarray] = []
        self.nuclides: list[np.ndarray] = []
        self.size = 0

    def add(self, codes: np.ndarray, counts: np.ndarray, places: np.ndarray, nuclides: np.ndarray) -> None:
        for to, array in zip(
            (self.codes, self.counts, self.places, self.nuclides), (codes, counts, places, nuclides), strict=True
        ):
            to.append(array.copy())
        self.size += counts.size

    def share(self, starts: int) -> float:
        return self.size / starts

    def pool(self, kind: int, metadata: dict[str, object]) -> CascadePool:
        counts, places = np.concatenate(self.counts), np.concatenate(self.places)
        if not counts.size:
            raise NuebarError(f"{metadata['material']}: expected deposits in the scintillator, got none; add nuclides")
        e_dep, x, y, z = (np.ascontiguousarray(column) for column in places.T)
        columns = {
            "x_m": x,
            "y_m": y,
            "z_m": z,
            "radius_m": np.sqrt(x * x + y * y + z * z),
            "e_dep_MeV": e_dep,
            "nuclide": np.concatenate(self.nuclides),
            "kind": np.full(counts.size, kind, np.uint8),
        }
        return CascadePool(np.concatenate(self.codes), np.concatenate([[0], np.cumsum(counts)]), columns, metadata)


def _buffers() -> tuple[np.ndarray, ...]:
    return np.empty(_CODES, np.uint16), np.empty(_BLOCK, np.int64), np.empty((_BLOCK, 4), np.float32), np.empty(_BLOCK, np.uint8)


def _follow_decays(
    singles: Singles,
    scheme: DecayTables,
    activity: np.ndarray,
    model: DetectorModel,
    key: np.uint64,
    cascades: int,
    least_MeV: float,
    collected: _Collected,
) -> int:
    """Decays until there are enough cascades; returns how many decays that took."""
    inside = singles.place == "inside"
    edge, vessel = float(model.spheres.radius_m[0]), float(model.spheres.radius_m[1])
    low, high = (0.0, edge) if inside else (edge, vessel)
    cumulative = np.cumsum(activity) / activity.sum()
    cumulative[-1] = 1.0
    codes, counts, places, nuclides = _buffers()
    done = 0
    while collected.size < cascades:
        wanted = min(_BLOCK, cascades - collected.size)
        more, n, used = _decays(
            scheme,
            cumulative,
            model.spheres,
            model.electrons,
            low,
            high,
            inside,
            least_MeV,
            key,
            done,
            codes,
            counts[:wanted],
            places,
            nuclides,
        )
        done += more
        collected.add(codes[:used], counts[:n], places[:n], nuclides[:n])
        if done > 1e6 and collected.size < 1e-6 * done:
            raise NuebarError(
                f"detector.singles.{singles.name}: {collected.size} of {done} decays deposit {least_MeV:g} MeV in the "
                "scintillator; give it nuclides with more energy"
            )
    return done


def _follow_arrivals(
    arrivals: Arrivals,
    nuclide: np.ndarray,
    model: DetectorModel,
    key: np.uint64,
    least_MeV: float,
    collected: _Collected,
) -> None:
    """What arrivals deposit, in random order: those of one start come one after the other."""
    key = np.uint64(key) ^ np.uint64(0x5DEECE66D << 1)  # still odd
    order = np.argsort(_uniforms(key, len(arrivals.line)), kind="stable")
    photons = arrivals.photons[order]
    nuclides_in = nuclide[arrivals.line[order]].astype(np.uint8)
    codes, counts, places, nuclides = _buffers()
    done = 0
    while done < len(photons):
        more, n, used = _arrivals(
            photons, nuclides_in, model.spheres, model.electrons, least_MeV, key, done, codes, counts, places, nuclides
        )
        done += more
        collected.add(codes[:used], counts[:n], places[:n], nuclides[:n])


@njit
def _uniforms(key: int, n: int) -> np.ndarray:
    out = np.empty(n)
    for k in range(n):
        out[k] = uniform(key, event_counter(k))
    return out


@njit
def _decays(
    scheme: DecayTables,
    cumulative: np.ndarray,
    spheres: Layers,
    electrons: ElectronTables,
    low_m: float,
    high_m: float,
    inside: bool,
    least_MeV: float,
    key: int,
    first: int,
    codes: np.ndarray,
    counts: np.ndarray,
    places: np.ndarray,
    nuclides: np.ndarray,
) -> tuple:
    """Decays from number ``first`` on, until a buffer is full: how many, cascades kept, deposits."""
    stack = np.empty((_STACK, PHOTON_FIELDS))
    photons, centre = np.empty(DECAY_PHOTONS), np.empty(4)
    low3, high3 = low_m**3, high_m**3
    kept = n = event = 0
    while kept < counts.size and n + _MARGIN < codes.size:
        counter = event_counter(first + event)
        event += 1
        nuclide = np.searchsorted(cumulative, uniform(key, counter))
        r = (low3 + uniform(key, counter + _ONE) * (high3 - low3)) ** (1.0 / 3.0)
        a, b, c = isotropic(key, counter + _TWO)
        x, y, z = r * a, r * b, r * c
        before = n
        counter, many, pair, stays, n = decay(
            scheme, nuclide, electrons, key, counter + np.uint64(4), photons, codes, n
        )
        if not inside:  # what charged particles leave in the vessel gives no light
            n, stays = before, 0.0
        energy = stays
        for k in range(many):
            energy += photons[k]
        centre[0], centre[1], centre[2], centre[3] = stays, stays * x, stays * y, stays * z
        if energy > least_MeV and many > 0:
            counter, depth = emit_photons(photons, many, pair, x, y, z, key, counter, stack)
            counter, n = follow_in_layers(spheres, electrons, key, counter, stack, depth, codes, n, centre)
        if centre[0] < least_MeV:
            n = before
            continue
        _keep(centre, nuclide, n - before, kept, counts, places, nuclides)
        kept += 1
    return event, kept, n


@njit
def _arrivals(
    photons: np.ndarray,
    nuclides_in: np.ndarray,
    spheres: Layers,
    electrons: ElectronTables,
    least_MeV: float,
    key: int,
    first: int,
    codes: np.ndarray,
    counts: np.ndarray,
    places: np.ndarray,
    nuclides: np.ndarray,
) -> tuple:
    """Arrivals from number ``first`` on, until a buffer is full: how many, cascades kept, deposits."""
    stack, centre = np.empty((_STACK, PHOTON_FIELDS)), np.empty(4)
    kept, n, k = 0, 0, first
    while k < photons.shape[0] and kept < counts.size and n + _MARGIN < codes.size:
        p = photons[k]
        push(stack, 0, p[0], p[1], p[2], p[3], p[4], p[5], p[6])
        centre[:] = 0.0
        before = n
        _, n = follow_in_layers(spheres, electrons, key, event_counter(k) + _ONE, stack, 1, codes, n, centre)
        k += 1
        if centre[0] < least_MeV:
            n = before
            continue
        _keep(centre, nuclides_in[k - 1], n - before, kept, counts, places, nuclides)
        kept += 1
    return k - first, kept, n


@njit
def _keep(
    centre: np.ndarray,
    nuclide: int,
    deposits: int,
    kept: int,
    counts: np.ndarray,
    places: np.ndarray,
    nuclides: np.ndarray,
) -> None:
    counts[kept] = deposits
    nuclides[kept] = nuclide
    places[kept, 0] = centre[0]
    for j in range(1, 4):
        places[kept, j] = centre[j] / centre[0]


class _Cascades(NamedTuple):
    """Cascades of all materials one after the other, with their light."""

    first: np.ndarray
    photons: np.ndarray
    radius_m: np.ndarray
    e_dep_MeV: np.ndarray
    nuclide: np.ndarray


@dataclass(frozen=True, eq=False)
class SinglesLight:
    """The pools of a detector with their light at one (kB, fC, light yield).

    Attributes:
        materials: Their names; ``true_material`` of an event counts them.
        nuclides: Names; ``true_nuclide`` counts them.
        cascades: Arrays for the kernel.
    """

    materials: tuple[str, ...]
    nuclides: tuple[str, ...]
    cascades: _Cascades


def singles_light(pools: Mapping[str, CascadePool], model: DetectorModel) -> SinglesLight:
    """Sum the light of every cascade: once for a parameter point, then each event is one look-up.

    Args:
        pools: Material → pool.
        model: The detector at the parameter point.
    """
    if not pools:
        raise NuebarError("pools: expected at least one material, got none")
    names = tuple(dict.fromkeys(n for pool in pools.values() for n in pool.metadata["nuclides"]))
    index = [np.array([names.index(n) for n in pool.metadata["nuclides"]], np.uint8) for pool in pools.values()]
    cascades = _Cascades(
        np.concatenate([[0], np.cumsum([len(pool) for pool in pools.values()])]).astype(np.int64),
        np.concatenate([pool.photons(model.light) for pool in pools.values()]),
        np.concatenate([pool.columns["radius_m"] for pool in pools.values()]),
        np.concatenate([pool.columns["e_dep_MeV"] for pool in pools.values()]),
        np.concatenate([i[pool.columns["nuclide"]] for i, pool in zip(index, pools.values(), strict=True)]),
    )
    return SinglesLight(tuple(pools), names, cascades)


def generated_rates_Hz(light: SinglesLight, model: DetectorModel, *, events: int = _SHARE_EVENTS) -> dict[str, float]:
    """Rate at which cascades of each pool must be drawn to give the rates of the detector's table.

    Args:
        light: Pools at the *nominal* response.
        model: The detector at the nominal response.
        events: How many are reconstructed for each material; the error of a rate is at most 1/√events.

    Returns:
        Material → cascades a second; ``rate_Hz`` over the share with more than ``singles_threshold_MeV``.

    Raises:
        NuebarError: A material is in no pool, or none of its cascades is above the threshold.
    """
    rates = {}
    for s in model.detector.singles:
        if s.name not in light.materials:
            raise NuebarError(f"detector.singles.{s.name}: expected a pool of it, got pools of {', '.join(light.materials)}")
        only = {s.name: 1.0}
        key = derive_key(0, "share", s.name)
        above = singles_events(light, model, only, key, n=events, above_MeV=model.detector.singles_threshold_MeV)
        passed = above["e_rec_MeV"].size
        if not passed:
            raise NuebarError(
                f"detector.singles.{s.name}: none of {events} events is above "
                f"{model.detector.singles_threshold_MeV:g} MeV; lower singles_threshold_MeV"
            )
        rates[s.name] = s.rate_Hz * events / passed
    return rates


def singles_events(
    light: SinglesLight,
    model: DetectorModel,
    rates_Hz: Mapping[str, float],
    key: np.uint64,
    *,
    n: int | None = None,
    duration_s: float | None = None,
    above_MeV: float = 0.0,
) -> dict[str, np.ndarray]:
    """Reconstructed singles in the order of a stream: materials are mixed at random, so any times may be given to them.

    Args:
        light: Pools with their light.
        model: The detector at the same parameter point.
        rates_Hz: Material → cascades drawn a second, see :func:`generated_rates_Hz`.
        key: Key of the random numbers: one for each chunk.
        n: How many are drawn; or
        duration_s: the time for which they are drawn, in seconds: a Poisson number of them.
        above_MeV: Events with less reconstructed energy are left out.

    Returns:
        ``n_pe``, ``e_rec_MeV``, ``x_m``, ``y_m``, ``z_m``, ``true_e_dep_MeV``, ``true_x_m``, ``true_y_m``, ``true_z_m``
        (float32), ``true_material``, ``true_nuclide`` (uint8), each of shape ``(events above,)``.

    Raises:
        NuebarError: Rates of an unknown material, none above zero, or not one of ``n`` and ``duration_s``.
    """
    unknown = [name for name in rates_Hz if name not in light.materials]
    rates = np.array([float(rates_Hz.get(name, 0.0)) for name in light.materials])
    if unknown or not np.all(rates >= 0) or not rates.sum() > 0:
        raise NuebarError(
            f"rates_Hz: expected rates of {', '.join(light.materials)} that are not negative, got {dict(rates_Hz)}"
        )
    if (n is None) == (duration_s is None):
        raise NuebarError("singles_events: expected either n or duration_s, got both or none")
    if n is None:
        n = int(np.random.Generator(np.random.Philox(int(key))).poisson(rates.sum() * duration_s))
    cumulative = np.cumsum(rates) / rates.sum()
    cumulative[np.flatnonzero(rates)[-1] :] = 1.0
    floats = {name: np.empty(n, np.float32) for name in _FLOATS}
    whole = {name: np.empty(n, np.uint8) for name in ("true_material", "true_nuclide")}
    kept = _draw(
        light.cascades,
        cumulative,
        model.uniformity,
        model.electronics,
        model.detector.vertex_sigma_m,
        model.pe_per_MeV,
        key,
        n,
        above_MeV,
        tuple(floats.values()),
        tuple(whole.values()),
    )
    return {name: column[:kept] for name, column in (floats | whole).items()}


_FLOATS = ("n_pe", "e_rec_MeV", "x_m", "y_m", "z_m", "true_e_dep_MeV", "true_x_m", "true_y_m", "true_z_m")


@njit
def _draw(
    cascades: _Cascades,
    cumulative: np.ndarray,
    uniformity: UniformityMap,
    electronics: Electronics,
    vertex_sigma_m: float,
    pe_per_MeV: float,
    key: int,
    events: int,
    above_MeV: float,
    floats: tuple,
    whole: tuple,
) -> int:
    """Draw, reconstruct and keep events above a threshold; returns their number."""
    materials = cumulative.size
    following = np.empty(materials, np.int64)
    for m in range(materials):  # counters of an event that is not drawn
        many = cascades.first[m + 1] - cascades.first[m]
        u = uniform(key, event_counter(events) + np.uint64(m))
        following[m] = cascades.first[m] + min(int(u * many), many - 1)
    photons, place, vertex = np.empty(_EVENTS), np.empty((_EVENTS, 3)), np.empty((_EVENTS, 3))
    n_pe, e_rec = np.empty(_EVENTS), np.empty(_EVENTS)
    cascade, material = np.empty(_EVENTS, np.int64), np.empty(_EVENTS, np.uint8)
    kept = 0
    for begin in range(0, events, _EVENTS):
        size = min(_EVENTS, events - begin)
        for k in range(size):
            counter = event_counter(begin + k)
            u = uniform(key, counter + _MATERIAL)
            m = 0
            while u > cumulative[m]:
                m += 1
            i = following[m]
            following[m] = i + 1 if i + 1 < cascades.first[m + 1] else cascades.first[m]
            a, b, c = isotropic(key, counter + _DIRECTION)
            r = cascades.radius_m[i]
            place[k, 0], place[k, 1], place[k, 2] = r * a, r * b, r * c
            photons[k] = cascades.photons[i]
            cascade[k], material[k] = i, m
        reconstruct(
            photons[:size],
            place,
            uniformity,
            electronics,
            vertex_sigma_m,
            pe_per_MeV,
            key,
            begin,
            n_pe,
            e_rec,
            vertex,
        )
        for k in range(size):
            if not e_rec[k] >= above_MeV:
                continue
            floats[0][kept] = n_pe[k]
            floats[1][kept] = e_rec[k]
            for j in range(3):
                floats[2 + j][kept] = vertex[k, j]
                floats[6 + j][kept] = place[k, j]
            floats[5][kept] = cascades.e_dep_MeV[cascade[k]]
            whole[0][kept] = material[k]
            whole[1][kept] = cascades.nuclide[cascade[k]]
            kept += 1
    return kept
