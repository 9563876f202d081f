"""Calibration data sets: charges of sources at many (kB, fC, light yield), as samples and as histograms.

A data set reads a contiguous block of the source's pool from a random place, which is five times as fast as drawing
cascades one by one; the pool is in random order, and blocks of different data sets overlap by chance only.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nuebar.errors import NuebarError
from nuebar.kernels import njit
from nuebar.records import from_mapping, read_toml, refuse
from nuebar.simulate.light import Electronics, charge, draw_block
from nuebar.simulate.quench import Response
from nuebar.simulate.random import derive_key, event_counter, uniform

__all__ = ["CalibrationPlan", "CalibrationSet", "Portion", "charges", "histogram", "load_plan", "portions"]

STANDARD = Path(__file__).parents[1] / "experiments" / "calibration" / "published.toml"
LARGEST_PORTION = 500_000
_PLACE = np.uint64(0)


@dataclass(frozen=True)
class CalibrationSet:
    """Parameter points and how many events each gets.

    Attributes:
        role: Pools of this role are drawn from.
        events: Events of a source in one data set; several numbers give several data sets at each point.
        kB_g_cm2_GeV: Grid: first, last, number of points.
        fC: Grid.
        light_yield_per_MeV: Grid.
        points: Instead of the grids: a list of (kB, fC, light yield).
        repeats: Data sets at each point and size.
    """

    role: str
    events: tuple[int, ...]
    kB_g_cm2_GeV: tuple[float, ...] = ()
    fC: tuple[float, ...] = ()
    light_yield_per_MeV: tuple[float, ...] = ()
    points: tuple[tuple[float, ...], ...] = ()
    repeats: int = 1

    def parameters(self) -> np.ndarray:
        """All points, shape ``(points, 3)``; the light yield runs fastest."""
        if self.points:
            return np.array(self.points, dtype=float)
        grids = (self.kB_g_cm2_GeV, self.fC, self.light_yield_per_MeV)
        axes = [np.linspace(low, high, int(n)) for low, high, n in grids]
        return np.array(list(itertools.product(*axes)))


@dataclass(frozen=True)
class CalibrationPlan:
    """Sources, observable and sets of a file.

    Attributes:
        format: 1.
        sources: Names of the catalogue.
        pe_to_observable: Observable = this times the charge in photo-electrons.
        bins: Low edge, high edge and number of bins of the observable.
        sets: Name → set.
    """

    format: int
    sources: tuple[str, ...]
    pe_to_observable: float
    bins: tuple[float, ...]
    sets: dict[str, CalibrationSet]

    def edges(self) -> np.ndarray:
        """Edges of the observable, shape ``(bins + 1,)``."""
        low, high, n = self.bins
        return np.linspace(low, high, int(n) + 1)


@dataclass(frozen=True)
class Portion:
    """Events of one data set that are made together.

    Attributes:
        data_set: Number of the data set.
        point: Row of :meth:`CalibrationSet.parameters`.
        events: Events of the data set.
        first: First event of this portion.
        count: Events of this portion.
    """

    data_set: int
    point: int
    events: int
    first: int
    count: int


def load_plan(path: str | Path | None = None) -> CalibrationPlan:
    """Read and check a plan; the published one by default.

    Raises:
        NuebarError: A key is unknown, missing or out of range.
    """
    file = Path(path) if path is not None else STANDARD
    plan: CalibrationPlan = from_mapping(CalibrationPlan, read_toml(file), str(file))
    where = str(file)
    if plan.format != 1:
        refuse(where, "format", "1", plan.format, "update nuebar")
    good = len(plan.bins) == 3 and 0 <= plan.bins[0] < plan.bins[1] and 1 <= plan.bins[2] <= 1e5
    if not good or plan.bins[2] != int(plan.bins[2]):
        refuse(where, "bins", "[low, high, number]", plan.bins)
    if not plan.sources or len(set(plan.sources)) < len(plan.sources):
        refuse(where, "sources", "one or more names, each once", plan.sources)
    if not plan.pe_to_observable > 0:
        refuse(where, "pe_to_observable", "a number above 0", plan.pe_to_observable)
    for name, one in plan.sets.items():
        check_set(one, where, f"sets.{name}")
    return plan


def check_set(one: CalibrationSet, where: str, key: str) -> None:
    """Refuse a set without points or events, or with points that no response can have.

    Args:
        one: The set.
        where: Its file, for the message.
        key: Its key there.

    Raises:
        NuebarError: One sentence with file and key.
    """
    if not one.events or min(one.events) < 1:
        refuse(where, f"{key}.events", "whole numbers above 0", one.events)
    if one.repeats < 1:
        refuse(where, f"{key}.repeats", "a whole number above 0", one.repeats)
    if one.points:
        if any(len(p) != 3 for p in one.points):
            refuse(where, f"{key}.points", "triples [kB, fC, light yield]", one.points)
        if one.kB_g_cm2_GeV or one.fC or one.light_yield_per_MeV:
            refuse(where, key, "either 'points' or three grids", "both", "remove one of them")
        _require_responses(one, where, f"{key}.points")
        return
    for name in ("kB_g_cm2_GeV", "fC", "light_yield_per_MeV"):
        grid = getattr(one, name)
        if len(grid) != 3 or grid[2] < 1 or grid[2] != int(grid[2]) or grid[1] < grid[0]:
            refuse(where, f"{key}.{name}", "a grid [first, last, points]", grid, "or give 'points'")
        if grid[2] == 1 and grid[0] != grid[1]:
            refuse(where, f"{key}.{name}", "a grid of one point whose first and last agree", grid)
    _require_responses(one, where, key)


def _require_responses(one: CalibrationSet, where: str, key: str) -> None:
    p = one.parameters()
    for corner in {tuple(row) for row in (p.min(axis=0), p.max(axis=0))}:
        try:
            Response(*(float(x) for x in corner))
        except NuebarError as error:
            raise NuebarError(f"{where}: key {key!r}: {error}") from error


def portions(one: CalibrationSet, events_per_chunk: int = 1_000_000) -> list[list[Portion]]:
    """The work of a set, cut into chunks.

    Args:
        one: The set.
        events_per_chunk: Events of one source in a chunk, roughly.

    Returns:
        Portions of every chunk, in order.
    """
    chunks: list[list[Portion]] = [[]]
    room = events_per_chunk
    data_set = 0
    for point in range(len(one.parameters())):
        for events in one.events:
            for _ in range(one.repeats):
                for first in range(0, events, LARGEST_PORTION):
                    count = min(LARGEST_PORTION, events - first)
                    if room < count and chunks[-1]:
                        chunks.append([])
                        room = events_per_chunk
                    chunks[-1].append(Portion(data_set, point, events, first, count))
                    room -= count
                data_set += 1
    return chunks


def charges(
    codes: np.ndarray,
    offsets: np.ndarray,
    light: np.ndarray,
    electronics: Electronics,
    count: int,
    *,
    seed: int,
    words: Sequence[str | int],
) -> np.ndarray:
    """Charges of one data set of a source.

    Args:
        codes: Deposits of the source's pool.
        offsets: Where its cascades begin.
        light: Photons of every code at the parameter point, shape ``(65536,)``.
        electronics: Photo-electrons per photon at the source's place, spread, dark counts.
        count: Events wanted; beyond the cascades of the pool it is read again from its start.
        seed: Seed of the run.
        words: What the data set is: other words give other events.

    Returns:
        Charges in photo-electrons, float32, shape ``(count,)``.

    Raises:
        NuebarError: The seed is not a whole number, or negative.
    """
    key = derive_key(seed, "calibration-events", *words)
    first = draw_block(uniform(derive_key(seed, "calibration-block", *words), _PLACE), offsets.size - 1)
    out = np.empty(count, np.float32)
    _charges(codes, offsets, first, light, electronics, key, out)
    return out


def histogram(n_pe: np.ndarray, pe_to_observable: float, bins: Sequence[float]) -> np.ndarray:
    """Counts in even bins of the observable, with what lies below and above.

    Args:
        n_pe: Charges, float32.
        pe_to_observable: Factor from charge to observable.
        bins: Low edge, high edge, number.

    Returns:
        int64, shape ``(bins + 2,)``: below, the bins, above.
    """
    low, high, n = bins
    counts = np.zeros(int(n) + 2, np.int64)
    _fill(n_pe, pe_to_observable, low, n / (high - low), counts)
    return counts


@njit
def _charges(
    codes: np.ndarray,
    offsets: np.ndarray,
    first: int,
    light: np.ndarray,
    electronics: Electronics,
    key: np.uint64,
    out: np.ndarray,
) -> None:
    cascades = offsets.size - 1
    k = first
    for event in range(out.size):
        photons = 0.0
        for i in range(offsets[k], offsets[k + 1]):
            photons += light[codes[i]]
        out[event] = charge(photons * electronics.pe_per_photon, electronics, key, event_counter(event))
        k += 1
        if k == cascades:
            k = 0


@njit
def _fill(n_pe: np.ndarray, factor: float, low: float, per_unit: float, counts: np.ndarray) -> None:
    bins = counts.size - 2
    for x in n_pe:
        b = int(np.floor((x * factor - low) * per_unit))
        counts[min(max(b, -1), bins) + 1] += 1


def require_sources(names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a source that is not in the catalogue.

    Raises:
        NuebarError: The name and the known ones.
    """
    for name in names:
        if name not in known:
            raise NuebarError(f"source: expected one of {', '.join(known)}, got {name!r}; correct the name")
