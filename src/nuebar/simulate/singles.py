"""Singles of radioactivity: reconstructed events drawn from pools of cascades.

A pool is simulated once for every material (:mod:`nuebar.simulate.singles_pools`). Events take the cascades of each
material in a row from a random place on, so that memory is read in order; pools have no order of their own. As sphere
and sources are symmetric, every event gets a new direction from the centre: only the radius of a cascade is its own.
With charge and vertex drawn afresh, too, a pool serves many more events than it has cascades.

Rates are given above a threshold of reconstructed energy in the whole scintillator. What share of a pool is above it
is found by reconstructing (:func:`generated_rates_Hz`), once at the nominal response: another (kB, fC, light yield)
changes what is seen of the same decays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nuebar.errors import NuebarError
from nuebar.kernels import njit
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.directions import isotropic
from nuebar.simulate.light import Electronics, reconstruct
from nuebar.simulate.pool import CascadePool
from nuebar.simulate.random import derive_key, event_counter, uniform
from nuebar.simulate.singles_pools import PLACES, singles_pool, singles_pools
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

_EVENTS = 2048  # events between two calls of the reconstruction
_SHARE_EVENTS = 1_000_000  # leaves 0.1 % of a material's rate
# Counters of an event after those of the reconstruction; the first event also has those that choose where pools begin.
_MATERIAL, _DIRECTION, _BEGIN = np.uint64(8), np.uint64(9), np.uint64(64)


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

    Raises:
        NuebarError: There is no material.
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
            raise NuebarError(
                f"detector.singles.{s.name}: expected a pool of it, got pools of {', '.join(light.materials)}"
            )
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
    for m in range(materials):
        many = cascades.first[m + 1] - cascades.first[m]
        u = uniform(key, _BEGIN + np.uint64(m))
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
