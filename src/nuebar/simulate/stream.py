"""A time-ordered detector stream: singles, antineutrinos, correlated backgrounds and muons, window by window.

A window of time is a pure function of (seed, window): what happens in it does not depend on which other windows are
simulated. Singles are independent of each other, so accidental coincidences arise by themselves. A pair belongs to the
window of its prompt event; when its delayed event falls into the next one, that window makes the pair again and takes
the delayed event, so windows lose and double nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nuebar.errors import NuebarError
from nuebar.kernels import njit
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.ibd import ibd_cascades, ibd_events
from nuebar.simulate.ibd_kinematics import IbdSpectrum
from nuebar.simulate.random import derive_key, uniform

__all__ = [
    "FIRST_MATERIAL",
    "MUON",
    "PairKeys",
    "PairShape",
    "Window",
    "drawn_pairs",
    "kinds",
    "muon_events",
    "ordered_times",
    "pair_events",
]

NS_PER_S = 1_000_000_000
MUON = 0
"""Value of ``true_kind``; pairs and singles follow, see :func:`kinds`."""
FIRST_MATERIAL = 100
_SIGNAL = "ibd"
_MUON_MeV_per_m = 220.0  # 1.7 MeV/cm of ionisation and as much again radiated at 200 GeV (nominal, with b = 2.5e-6)
_PAIRS = 1 << 32  # numbers of pairs that a window may use
_ONE = np.uint64(1)
COLUMNS = ("t_ns", "e_rec_MeV", "n_pe", "x_m", "y_m", "z_m", "true_kind", "true_pair", "true_e_nu_MeV")


@dataclass(frozen=True)
class Window:
    """A stretch of detector time.

    Attributes:
        number: Counts from 0; windows follow each other.
        begin_ns: First nanosecond.
        length_ns: How long it is.
    """

    number: int
    begin_ns: int
    length_ns: int

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.length_ns / NS_PER_S

    def before(self) -> Window | None:
        """The window before; ``None`` for the first."""
        if self.number == 0:
            return None
        return Window(self.number - 1, self.begin_ns - self.length_ns, self.length_ns)


@dataclass(frozen=True, eq=False)
class PairShape:
    """A source of correlated pairs.

    Attributes:
        name: ``"ibd"`` or a name of the detector's ``pairs``.
        rate_Hz: Pairs a second in the whole scintillator.
        e_vis_MeV: Nodes of the prompt visible energy; empty for antineutrinos, whose prompt event is simulated.
        cumulative: Distribution function at the nodes.
        edge_depth_m: Scale of the density below the surface; 0 for uniform.
    """

    name: str
    rate_Hz: float
    e_vis_MeV: np.ndarray
    cumulative: np.ndarray
    edge_depth_m: float = 0.0


class PairKeys(NamedTuple):
    """Keys of the random numbers of :func:`drawn_pairs`.

    Attributes:
        cascades: Of deposits.
        events: Of charges and vertices.
        prompts: Of prompt events that replace those of antineutrinos.
    """

    cascades: np.uint64
    events: np.uint64
    prompts: np.uint64


def kinds(pairs: Sequence[str], materials: Sequence[str]) -> dict[str, int]:
    """What the numbers of ``true_kind`` mean.

    Args:
        pairs: Names of pair sources, ``"ibd"`` first.
        materials: Names of the singles' materials.

    Returns:
        Name → number; a pair has one for its prompt and one for its delayed event.

    Raises:
        NuebarError: There are too many kinds of pairs.
    """
    table = {"muon": MUON}
    for i, name in enumerate(pairs):
        table |= {f"{name} prompt": 1 + 2 * i, f"{name} delayed": 2 + 2 * i}
    if len(table) > FIRST_MATERIAL:
        raise NuebarError(f"pairs: expected at most {FIRST_MATERIAL // 2 - 1} sources, got {len(pairs)}")
    return table | {name: FIRST_MATERIAL + i for i, name in enumerate(materials)}


def pair_events(
    shapes: Sequence[PairShape], spectrum: IbdSpectrum, model: DetectorModel, window: Window, seed: int
) -> dict[str, np.ndarray]:
    """Prompt and delayed events of pairs that fall into a window, in no order.

    Args:
        shapes: Sources of pairs, antineutrinos among them.
        spectrum: Interacting antineutrinos.
        model: The detector.
        window: The window.
        seed: Seed of the stream.

    Returns:
        The columns of :data:`COLUMNS`.
    """
    parts = []
    for source, shape in enumerate(shapes):
        for w in (window.before(), window):
            if w is not None and (made := _pairs(shape, source, spectrum, model, w, seed)):
                inside = (made["t_ns"] >= window.begin_ns) & (made["t_ns"] < window.begin_ns + window.length_ns)
                parts.append({name: column[inside] for name, column in made.items()})
    return _joined(parts)


def _pairs(
    shape: PairShape, source: int, spectrum: IbdSpectrum, model: DetectorModel, window: Window, seed: int
) -> dict[str, np.ndarray]:
    """All events of the pairs whose prompt event lies in a window."""
    rng = _generator(seed, "pairs", shape.name, window.number)
    n = int(rng.poisson(shape.rate_Hz * window.seconds))
    if n == 0:
        return {}
    keys = PairKeys(
        *(
            derive_key(seed, word, shape.name, window.number)
            for word in ("pair-cascades", "pair-events", "pair-prompts")
        )
    )
    events = drawn_pairs(shape, n, spectrum, model, rng, keys)
    n = events["dt_ns"].size
    t = window.begin_ns + (rng.random(n) * window.length_ns).astype(np.int64)
    label = 1 + window.number * _PAIRS + source * (_PAIRS >> 6) + np.arange(n)
    parts = []
    for part, kind, time in (("prompt", 1, t), ("delayed", 2, t + events["dt_ns"].astype(np.int64))):
        columns = {name: events[f"{part}_{name}"] for name in ("e_rec_MeV", "n_pe", "x_m", "y_m", "z_m")}
        truth = {
            "true_kind": np.full(n, kind + 2 * source),
            "true_pair": label,
            "true_e_nu_MeV": events["true_e_nu_MeV"],
        }
        parts.append({"t_ns": time, **columns, **truth})
    return _joined(parts)


def drawn_pairs(
    shape: PairShape, n: int, spectrum: IbdSpectrum, model: DetectorModel, rng: np.random.Generator, keys: PairKeys
) -> dict[str, np.ndarray]:
    """Pairs of one source, without times.

    Vertex and delayed event are those of antineutrinos of the spectrum. The prompt event is, too, if the source is
    antineutrinos; otherwise its visible energy is drawn from the shape and reconstructed at the vertex.

    Args:
        shape: The source.
        n: How many. Sources at the edge draw half as many vertices again as they need on average, and keep what their
            density accepts: fewer than ``n`` come out once in a very long time.
        spectrum: Interacting antineutrinos.
        model: The detector at the parameter point.
        rng: Chooses vertices and visible energies.
        keys: Keys of everything else.

    Returns:
        The columns of :func:`~nuebar.simulate.ibd.ibd_events`; only for antineutrinos those of the truth about the
        interaction mean anything, and ``true_e_nu_MeV`` is 0 for all others.
    """
    places = _edge_share(shape.edge_depth_m, model.detector.radius_m)
    wanted = n if places is None else math.ceil(n / places * 1.5) + 50
    pool = ibd_cascades(spectrum, model, wanted, keys.cascades)
    if places is not None:
        r = np.linalg.norm(pool.columns["vertex_m"], axis=1)
        chosen = np.flatnonzero(rng.random(wanted) < np.exp((r - model.detector.radius_m) / shape.edge_depth_m))[:n]
    else:
        chosen = np.arange(n)
    n = chosen.size
    events = ibd_events(pool, model, keys.events)
    events = {name: np.asarray(column)[chosen] for name, column in events.items()}
    if shape.e_vis_MeV.size:
        visible = np.interp(rng.random(n), shape.cumulative, shape.e_vis_MeV)
        photons = visible * model.pe_per_MeV / model.electronics.pe_per_photon
        vertex = np.asarray(pool.columns["vertex_m"], dtype=np.float64)[chosen]
        seen = model.reconstruct(photons, vertex, keys.prompts)
        events |= {f"prompt_{name}": column for name, column in seen.items()}
        events["true_e_nu_MeV"] = np.zeros(n)
    return events


def _edge_share(depth_m: float, radius_m: float) -> float | None:
    """Share of uniform vertices that a density exp(-depth / scale) accepts; ``None`` if it is uniform."""
    if depth_m <= 0:
        return None
    r = np.linspace(0, radius_m, 2001)
    weight = 3 * r**2 / radius_m**3 * np.exp((r - radius_m) / depth_m)
    return float(np.sum(0.5 * (weight[1:] + weight[:-1]) * np.diff(r)))


def muon_events(model: DetectorModel, window: Window, seed: int) -> dict[str, np.ndarray]:
    """Muons through the scintillator: straight chords, vertical enough for one flux over its cross-section.

    Args:
        model: The detector.
        window: Its begin and length.
        seed: Of the run.

    Returns:
        Columns of a stream, one row a muon.
    """
    rng = _generator(seed, "muons", window.number)
    n = int(rng.poisson(model.detector.muon_Hz * window.seconds))
    radius = model.detector.radius_m
    impact = radius * np.sqrt(rng.random(n))
    phi = 2 * np.pi * rng.random(n)
    e = 2 * np.sqrt(radius**2 - impact**2) * _MUON_MeV_per_m
    zeros = np.zeros(n)
    return {
        "t_ns": window.begin_ns + (rng.random(n) * window.length_ns).astype(np.int64),
        "e_rec_MeV": e,
        "n_pe": e * model.pe_per_MeV,
        "x_m": impact * np.cos(phi),
        "y_m": impact * np.sin(phi),
        "z_m": zeros,
        "true_kind": np.full(n, MUON),
        "true_pair": np.zeros(n, np.int64),
        "true_e_nu_MeV": zeros,
    }


def ordered_times(n: int, window: Window, key: np.uint64) -> np.ndarray:
    """Times of ``n`` independent events, in order.

    Sums of exponential gaps over their total are distributed as sorted uniform numbers are, without a sort.

    Returns:
        int64, in ns, shape ``(n,)``.
    """
    gaps = np.empty(n + 1)
    _gaps(key, gaps)
    sums = np.cumsum(gaps)
    return window.begin_ns + (sums[:-1] / sums[-1] * window.length_ns).astype(np.int64)


@njit
def _gaps(key: np.uint64, gaps: np.ndarray) -> None:
    counter = np.uint64(0)
    for k in range(gaps.size):
        gaps[k] = -math.log(uniform(key, counter))
        counter += _ONE


def merged(singles: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Two sets of events as one in order of time; the first one is in order and much the larger.

    Args:
        singles: Columns in order of time.
        others: The same columns in no order.
    """
    order = np.argsort(others["t_ns"], kind="stable")
    t = others["t_ns"][order]
    where = np.searchsorted(singles["t_ns"], t, side="right")
    return {name: np.insert(column, where, others[name][order]) for name, column in singles.items()}


def _generator(seed: int, *words: str | int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=int(derive_key(seed, *words))))


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if not parts:
        empty = {name: np.empty(0) for name in COLUMNS}
        return empty | {name: np.empty(0, np.int64) for name in ("t_ns", "true_kind", "true_pair")}
    return {name: np.concatenate([p[name] for p in parts]) for name in COLUMNS}
