"""Inverse beta decays in the detector: prompt and delayed event of every pair, in two stages.

Stage 1, :func:`ibd_cascades`, makes deposits: the positron with its bremsstrahlung and its two annihilation gammas,
recoil protons of the neutron, and the gammas of its capture, all followed through the scintillator, the vessel and
the buffer. It knows nothing of kB, fC or the light yield. Stage 2, :func:`ibd_events`, turns deposits into
reconstructed events at one parameter point.

Approximations: vertices are in the scintillator only (not in the 12 cm of acrylic around it); a neutron sees
scintillator everywhere and is captured on hydrogen outside; recoil protons do not move the centre of the light
(they are 1 % of it, within centimetres); the positron stops where it is born; the neutron's time to slow down, some
microseconds, is part of the capture time.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from nuebar.errors import NuebarError
from nuebar.kernels import njit
from nuebar.physics.constants import ELECTRON_MASS_MeV
from nuebar.simulate.deposits import code_energies_MeV
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.directions import isotropic
from nuebar.simulate.gammas import ElectronTables
from nuebar.simulate.ibd_kinematics import DRAWS, IbdSpectrum, InteractionTables, interact, interaction_tables
from nuebar.simulate.ibd_pool import COLUMNS, IbdPool, offsets_of
from nuebar.simulate.neutrons import slow_down, wander
from nuebar.simulate.particles import follow_capture, follow_positron
from nuebar.simulate.pool import CascadePool
from nuebar.simulate.random import derive_key, event_counter, uniform
from nuebar.simulate.transport import PHOTON_FIELDS, Layers

__all__ = ["CARBON", "HYDROGEN", "IbdPool", "ibd_cascades", "ibd_events"]

HYDROGEN, CARBON = 1, 6
"""Values of ``captured_on``."""

_BLOCK = 8192
_ROOM = 4096  # deposits that one event may have at most
_DEPOSITS = 80  # more than the mean of prompt or delayed
_SCRATCH = 32
_ONE = np.uint64(1)
_TWO = np.uint64(2)
_THREE = np.uint64(3)
_DRAWS = np.uint64(DRAWS)


class _Capture(NamedTuple):
    """Neutrons of :class:`nuebar.config_detector.Neutrons`, in m and ns."""

    time_ns: float
    carbon_share: float
    diffusion_m: float


class _Rows(NamedTuple):
    """Columns that the kernel fills; see :class:`IbdPool`."""

    e_nu_MeV: np.ndarray
    core: np.ndarray
    cos_theta: np.ndarray
    vertex_m: np.ndarray
    prompt_m: np.ndarray
    delayed_m: np.ndarray
    capture_ns: np.ndarray
    captured_on: np.ndarray
    prompt_e_dep_MeV: np.ndarray
    delayed_e_dep_MeV: np.ndarray


def ibd_cascades(
    spectrum: IbdSpectrum, model: DetectorModel, pairs: int, key: np.uint64, *, first_event: int = 0
) -> IbdPool:
    """Deposits of antineutrino interactions, uniform in the scintillator.

    A pair depends on its number, the key, the spectrum and the detector's geometry and materials only, so pairs of
    several calls with following ``first_event`` are those of one call.

    Args:
        spectrum: Interactions of every core against energy.
        model: The detector; its light does not matter.
        pairs: How many.
        key: Key of the random numbers; stage 2 needs another one.
        first_event: Number of the first pair.

    Raises:
        NuebarError: No pairs were asked for.
    """
    if pairs < 1:
        raise NuebarError(f"pairs: expected at least one, got {pairs}")
    neutrons = model.detector.neutrons
    capture = _Capture(1e3 * neutrons.capture_time_us, neutrons.carbon_share, 1e-2 * neutrons.diffusion_cm)
    columns: dict[str, np.ndarray] = {
        name: np.empty((pairs, *shape), dtype) for name, (shape, dtype) in COLUMNS.items()
    }
    rows = _Rows(**columns)
    tables, energies = interaction_tables(spectrum), code_energies_MeV()
    room = _DEPOSITS * min(pairs, _BLOCK) + _ROOM
    buffers = np.empty(room, np.uint16), np.empty(room, np.uint16)
    counts = np.empty(pairs, np.int64), np.empty(pairs, np.int64)
    prompt, delayed, done = [], [], 0
    while done < pairs:
        last = min(done + _BLOCK, pairs)
        done, p, d = _follow_pairs(
            tables,
            model.spheres,
            model.electrons,
            energies,
            capture,
            key,
            first_event,
            done,
            last,
            *buffers,
            *counts,
            rows,
        )
        prompt.append(buffers[0][:p].copy())
        delayed.append(buffers[1][:d].copy())
    return IbdPool(
        CascadePool(np.concatenate(prompt), offsets_of(counts[0])),
        CascadePool(np.concatenate(delayed), offsets_of(counts[1])),
        columns,
        spectrum.baseline_km,
        {"key": f"{int(key):016x}", "first_event": first_event},
    )


@njit
def _follow_pairs(
    tables: InteractionTables,
    spheres: Layers,
    electrons: ElectronTables,
    energies_MeV: np.ndarray,
    capture: _Capture,
    key: np.uint64,
    first_event: int,
    first: int,
    last: int,
    prompt: np.ndarray,
    delayed: np.ndarray,
    prompt_counts: np.ndarray,
    delayed_counts: np.ndarray,
    rows: _Rows,
) -> tuple:
    """Pairs ``first`` to ``last``, or fewer when a buffer is nearly full; returns where it stopped."""
    stack = np.empty((64, PHOTON_FIELDS))
    radiated, place, centre = np.empty(_SCRATCH), np.empty(3), np.empty(4)
    radius = spheres.radius_m[0]
    p = d = 0
    k = first
    while k < last and p + _ROOM <= prompt.size and d + _ROOM <= delayed.size:
        counter = event_counter(first_event + k)
        core, e_nu, cos, e_e, u, v, w, t_n, a, b, c = interact(tables, key, counter)
        counter += _DRAWS
        r = radius * uniform(key, counter) ** (1.0 / 3.0)
        x, y, z = isotropic(key, counter + _ONE)
        x, y, z = r * x, r * y, r * z
        counter += _THREE
        rows.e_nu_MeV[k], rows.core[k], rows.cos_theta[k] = e_nu, core, cos
        rows.vertex_m[k, 0], rows.vertex_m[k, 1], rows.vertex_m[k, 2] = x, y, z

        before = p
        place[0], place[1], place[2] = x, y, z
        counter, p = slow_down(t_n, place, a, b, c, key, counter, prompt, p, radius)
        recoils = 0.0
        for i in range(before, p):
            recoils += energies_MeV[prompt[i]]
        counter, p = follow_positron(
            e_e - ELECTRON_MASS_MeV,
            x,
            y,
            z,
            u,
            v,
            w,
            spheres,
            electrons,
            key,
            counter,
            stack,
            radiated,
            prompt,
            p,
            centre,
        )
        prompt_counts[k] = p - before
        rows.prompt_e_dep_MeV[k] = centre[0] + recoils
        _mean_place(centre, x, y, z, rows.prompt_m, k)

        counter = wander(place, capture.diffusion_m, key, counter)
        x, y, z = place[0], place[1], place[2]
        rows.capture_ns[k] = -capture.time_ns * math.log(uniform(key, counter))
        inside = x * x + y * y + z * z < radius * radius
        on_carbon = inside and uniform(key, counter + _ONE) < capture.carbon_share
        rows.captured_on[k] = CARBON if on_carbon else HYDROGEN
        counter += _TWO
        before = d
        counter, d = follow_capture(on_carbon, x, y, z, spheres, electrons, key, counter, stack, delayed, d, centre)
        delayed_counts[k] = d - before
        rows.delayed_e_dep_MeV[k] = centre[0]
        _mean_place(centre, x, y, z, rows.delayed_m, k)
        k += 1
    return k, p, d


@njit
def _mean_place(centre: np.ndarray, x: float, y: float, z: float, places: np.ndarray, k: int) -> None:
    """Centre of the deposited energy, or where the particle was if there is none."""
    if centre[0] > 0.0:
        x, y, z = centre[1] / centre[0], centre[2] / centre[0], centre[3] / centre[0]
    places[k, 0], places[k, 1], places[k, 2] = x, y, z


def ibd_events(pool: IbdPool, model: DetectorModel, key: np.uint64, *, first_event: int = 0) -> dict[str, np.ndarray]:
    """Reconstructed prompt and delayed events of every pair at the parameter point of a model.

    Args:
        pool: Pairs of :func:`ibd_cascades`.
        model: The detector with its light.
        key: Key of the random numbers, not that of the pool.
        first_event: Number of the first pair: draws of a pair depend on its number and the key only.

    Returns:
        ``prompt_n_pe``, ``prompt_e_rec_MeV``, ``prompt_x_m`` (y, z), the same with ``delayed_``, ``dt_ns`` (time from
        prompt to delayed), and the truth: ``true_e_nu_MeV``, ``true_baseline_km``, ``true_core``, ``true_cos_theta``,
        ``true_x_m`` (y, z: the vertex), ``true_prompt_e_dep_MeV``, ``true_delayed_e_dep_MeV``, ``true_captured_on``.
    """
    c = pool.columns
    out: dict[str, np.ndarray] = {}
    for name, cascades in (("prompt", pool.prompt), ("delayed", pool.delayed)):
        photons = cascades.photons(model.light)
        seen = model.reconstruct(photons, c[f"{name}_m"], derive_key(int(key), name), first_event=first_event)
        out |= {f"{name}_{column}": values for column, values in seen.items()}
    out |= {"dt_ns": c["capture_ns"], "true_baseline_km": pool.baseline_km[c["core"]]}
    for name in ("e_nu_MeV", "core", "cos_theta", "captured_on", "prompt_e_dep_MeV", "delayed_e_dep_MeV"):
        out[f"true_{name}"] = c[name]
    return out | {f"true_{axis}_m": np.ascontiguousarray(c["vertex_m"][:, i]) for i, axis in enumerate("xyz")}
