"""Pools of cascades from radioactivity: decays in the scintillator or its vessel, and gammas from outside.

Approximations: betas from the vessel do not reach the scintillator (they would from its innermost millimetres, far
from any fiducial volume), only their bremsstrahlung does; outside the vessel gammas come one by one, see
:mod:`nuebar.simulate.external`.
"""

from __future__ import annotations

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
from nuebar.simulate.pool import CascadePool
from nuebar.simulate.random import derive_key, event_counter, uniform
from nuebar.simulate.transport import PHOTON_FIELDS, Layers, follow_in_layers, push

__all__ = ["PLACES", "singles_pool", "singles_pools"]

PLACES = ("inside", "acrylic", "outside")
"""What the column ``kind`` of a pool counts."""

_BLOCK = 1 << 14  # cascades of one call of a kernel
_CODES = 1 << 20
_MOST_DECAYS = 1 << 20  # of one call of a kernel
_MARGIN = 1 << 13  # more deposits than a decay has
_STACK = 512
_ONE, _TWO, _FOUR = np.uint64(1), np.uint64(2), np.uint64(4)


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
        share = collected.size / len(arrivals.line)
        starts, independent, per_activity = arrivals.starts, arrivals.independent * share, arrivals.per_activity * share
        names = lines.nuclides
    else:
        members = chain_members(singles.activity)
        activity = np.array([rate for _, rate in members])
        scheme = flatten(nuclide for nuclide, _ in members)
        starts = _follow_decays(singles, scheme, activity, model, key, cascades, least_MeV, collected)
        per_activity, independent = float(activity.sum()) * collected.size / starts, float(collected.size)
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
    """Cascades from many calls of a kernel, joined at the end."""

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
    """Deposits, how many each cascade has, its energy and place, its nuclide."""
    places = np.empty((_BLOCK, 4), np.float32)
    return np.empty(_CODES, np.uint16), np.empty(_BLOCK, np.int64), places, np.empty(_BLOCK, np.uint8)


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
        if done > _MOST_DECAYS / 2 and collected.size < 1e-6 * done:
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
    order = np.argsort(_uniforms(derive_key(int(key), "order"), len(arrivals.line)), kind="stable")
    key = derive_key(int(key), "deposits")
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
    """Decays from number ``first`` on, until a buffer is full or many are done: how many, cascades kept, deposits."""
    stack = np.empty((_STACK, PHOTON_FIELDS))
    photons, centre = np.empty(DECAY_PHOTONS), np.empty(4)
    low3, high3 = low_m**3, high_m**3
    kept = n = event = 0
    while kept < counts.size and n + _MARGIN < codes.size and event < _MOST_DECAYS:
        counter = event_counter(first + event)
        event += 1
        nuclide = np.searchsorted(cumulative, uniform(key, counter))
        r = (low3 + uniform(key, counter + _ONE) * (high3 - low3)) ** (1.0 / 3.0)
        a, b, c = isotropic(key, counter + _TWO)
        x, y, z = r * a, r * b, r * c
        before = n
        counter, many, pair, stays, n = decay(scheme, nuclide, electrons, key, counter + _FOUR, photons, codes, n)
        if not inside:  # what charged particles leave in the vessel gives no light
            n, stays = before, 0.0
        energy = stays
        for k in range(many):
            energy += photons[k]
        centre[0], centre[1], centre[2], centre[3] = stays, stays * x, stays * y, stays * z
        if energy > least_MeV and many > 0:
            counter, depth = emit_photons(photons, many, pair, x, y, z, key, counter, stack)
            counter, n = follow_in_layers(spheres, electrons, key, counter, stack, depth, codes, n, centre)
        if centre[0] < least_MeV or centre[0] <= 0.0:
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
        if centre[0] < least_MeV or centre[0] <= 0.0:
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
