"""Prompt-delayed candidates of a time-ordered stream, in constant memory.

All pairs of events that count within the time window, filtered by the muon veto and the multiplicity rule::

    stream = PairStream(EventFile(files, STREAM_COLUMNS).batches(), PairOptions(window_ms=1.0))
    for pairs in stream:
        scores = classifier.score(features_of(pairs))
    stream.summary.live_s
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nuebar.errors import NuebarError
from nuebar.kernels import njit
from nuebar.select.blocks import BLOCK_EVENTS, Block, EventBlocks, Isolation, MuonVeto, PairOptions

__all__ = [
    "STREAM_COLUMNS",
    "Isolation",
    "MuonVeto",
    "PairFinder",
    "PairOptions",
    "PairStream",
    "PairSummary",
    "pair_indices",
]

STREAM_COLUMNS = ("t_ns", "e_rec_MeV", "x_m", "y_m", "z_m")
"""What a stream must have; columns ``true_…`` come along if they are there."""

MOST_PAIRS = 1 << 18  # that a kernel hands out at once
NODES = 3  # of the survival probability, even in dt over the window
_SEEN = STREAM_COLUMNS[1:]


@dataclass(frozen=True)
class PairSummary:
    """What became of a stream.

    Attributes:
        events: Events read.
        counted: Events that count: above the threshold, no muons.
        muons: Muons.
        span_s: From the first event to the last.
        live_s: Without the union of all vetoes. It is the live time of prompt events; of pairs whose both events must
            be live, :meth:`pair_live_s`.
        dead_intervals: Disjoint stretches of dead time.
        found: Pairs of events that count within the window.
        vetoed: Of these, lost to the veto.
        crowded: Of the rest, lost to the multiplicity rule.
        dropped: Of the rest, below ``prompt_min_MeV`` or ``delayed_min_MeV``, or beyond ``max_dr_m``.
        pairs: What is left and was handed out.
        survival_dt_ns: Times between the events of a pair at which its survival is given.
        survival_probability: Probability that no event unrelated to a pair violates the multiplicity rule: the measured
            share of live time at which a stretch of ``before + dt + after`` without any event begins. 1 without rule.
        survival_error: Its statistical error, for a Poisson stream of the measured rate.
        veto_both: Whether the veto applies to the delayed event too.
    """

    events: int
    counted: int
    muons: int
    span_s: float
    live_s: float
    dead_intervals: int
    found: int
    vetoed: int
    crowded: int
    dropped: int
    pairs: int
    survival_dt_ns: tuple[float, ...]
    survival_probability: tuple[float, ...]
    survival_error: tuple[float, ...]
    veto_both: bool

    def survival(self, dt_ns: np.ndarray | float) -> np.ndarray:
        """Survival probability at any time between the two events, its logarithm interpolated.

        Args:
            dt_ns: Times within the window, any shape.
        """
        return at_nodes(np.asarray(dt_ns, float), self.survival_dt_ns, self.survival_probability)

    def pair_live_s(self, dt_ns: float) -> float:
        """Live time of pairs this far apart: both events must be live if the veto says so.

        Exact where no live stretch is shorter than ``dt_ns``; each dead interval then costs ``dt_ns`` more.

        Args:
            dt_ns: Time between the two events.
        """
        return self.live_s - (self.dead_intervals * dt_ns * 1e-9 if self.veto_both else 0.0)


class PairStream:
    """Pairs of a stream, batch by batch; what they are does not depend on how the stream is cut."""

    def __init__(
        self,
        batches: Iterable[Mapping[str, np.ndarray]],
        options: PairOptions | None = None,
        *,
        block_events: int = BLOCK_EVENTS,
    ) -> None:
        """Nothing is read yet.

        Args:
            batches: The stream: :data:`STREAM_COLUMNS` in order of time, such as ``EventFile(...).batches()``.
            options: What a pair is.
            block_events: Events that are looked at together.
        """
        options = options or PairOptions()
        ahead = options.window_ns + options.after_ns
        self._blocks = EventBlocks(batches, options, ahead_ns=ahead, block_events=block_events)
        self._finder = PairFinder(options)
        self._summary: PairSummary | None = None

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Pairs in the order of the prompt event, then of the delayed one; at most 2¹⁹ at a time.

        Yields:
            ``prompt_…`` and ``delayed_…`` of e_rec_MeV, x_m, y_m, z_m; ``dt_ns``, ``prompt_t_ns`` (int64);
            ``prompt_row``, ``delayed_row`` (rows in the stream, int64); of each column ``true_NAME`` of the stream
            ``true_prompt_NAME`` and ``true_delayed_NAME``.
        """
        yield from bundled(self._parts())
        self._summary = self._finder.summary(self._blocks)

    def _parts(self) -> Iterator[dict[str, np.ndarray]]:
        for block in self._blocks:
            self._finder.survival.add(block)
            yield from self._finder.pairs(block)

    @property
    def summary(self) -> PairSummary:
        """Live time, counts and survival probability of the whole stream.

        Raises:
            NuebarError: Not all pairs have been taken yet.
        """
        if self._summary is None:
            raise NuebarError("pairs: expected the stream to be read to its end before its summary; take all pairs")
        return self._summary


class PairFinder:
    """Pairs of blocks, with what was lost on the way counted."""

    def __init__(self, options: PairOptions) -> None:
        """Counts start at 0.

        Args:
            options: What a pair is.
        """
        self.options = options
        self.survival = SurvivalMeter(options)
        self._lost = np.zeros(4, np.int64)
        self._out = np.empty((2, MOST_PAIRS), np.int64)

    def pairs(self, block: Block) -> Iterator[dict[str, np.ndarray]]:
        """Pairs whose prompt event belongs to a block, with columns as :class:`PairStream` has them.

        Args:
            block: The block, which ``survival`` is to be given too.
        """
        options, columns = self.options, block.columns
        alive = alive_events(block)
        i, j = block.first, block.first + 1
        while i < block.last:
            n, i, j = _find(
                block.t_ns,
                *(columns[name] for name in _SEEN),
                alive,
                i,
                j,
                block.last,
                options.window_ns,
                options.veto is not None and options.veto.applies_to == "both",
                options.isolation is not None,
                options.before_ns,
                options.after_ns,
                *limits(options),
                self._lost,
                self._out[0],
                self._out[1],
            )
            if n:
                yield pair_columns(block, self._out[0, :n], self._out[1, :n])

    def summary(self, blocks: EventBlocks) -> PairSummary:
        """The counts.

        Args:
            blocks: Where the blocks came from, read to the end.
        """
        found, vetoed, crowded, dropped = (int(n) for n in self._lost)
        probability, error = self.survival.result()
        return PairSummary(
            events=blocks.events,
            counted=blocks.counted,
            muons=blocks.muons,
            span_s=blocks.span_ns * 1e-9,
            live_s=(blocks.span_ns - blocks.dead_time_ns) * 1e-9,
            dead_intervals=blocks.dead_intervals,
            found=found,
            vetoed=vetoed,
            crowded=crowded,
            dropped=dropped,
            pairs=found - vetoed - crowded - dropped,
            survival_dt_ns=tuple(float(dt) for dt in self.survival.nodes_ns),
            survival_probability=tuple(float(p) for p in probability),
            survival_error=tuple(float(p) for p in error),
            veto_both=self.options.veto is not None and self.options.veto.applies_to == "both",
        )


class SurvivalMeter:
    """Measures how often nothing happens for as long as the multiplicity rule looks."""

    def __init__(self, options: PairOptions) -> None:
        """Nothing is measured yet.

        Args:
            options: The rule, or none: the probability is 1 then.
        """
        self._options = options
        self.nodes_ns = np.linspace(0, options.window_ns, NODES)
        self._empty, self._live, self._events = np.zeros(NODES), 0.0, 0

    def add(self, block: Block) -> np.ndarray:
        """Measure a block.

        Returns:
            Survival probability at the nodes in this block alone, shape ``(NODES,)``.
        """
        if self._options.isolation is None:
            return np.ones(NODES)
        empty = np.zeros(NODES)
        before, after = self._options.before_ns, self._options.after_ns
        live = _empty_stretches(
            block.t_ns,
            block.first,
            block.last,
            block.dead_ns[0],
            block.dead_ns[1],
            block.begin_ns,
            block.end_ns,
            block.opening,
            before,
            after + self.nodes_ns.astype(np.int64),
            empty,
        )
        self._empty += empty
        self._live += live
        self._events += block.last - block.first
        return empty / live if live > 0 else np.ones(NODES)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Survival probability at the nodes and its error.

        The error is that of the empty share of a Poisson stream of rate R in a time T,
        σ² = 2/T [(q - q²)/R - L q²] with q = exp(-R L): the integral of the covariance of two stretches of length L.
        """
        if self._options.isolation is None or self._live <= 0:
            return np.ones(NODES), np.zeros(NODES)
        q = self._empty / self._live
        length = self._options.before_ns + self._options.after_ns + self.nodes_ns
        rate = self._events / self._live
        x = rate * length
        # (q - q²) - x q² for small x is x²/2: no cancellation below 1e-16 matters here.
        variance = 2 / max(self._events, 1) * np.maximum(np.exp(-x) * (-np.expm1(-x) - x * np.exp(-x)), 0.0)
        return q, np.sqrt(variance)


def pair_indices(t_ns: np.ndarray, counts: np.ndarray, window_ns: int) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of events in memory: i < j, both count, ``t[j] - t[i] < window``.

    Args:
        t_ns: Times in order, int64, shape ``(n,)``.
        counts: Which events count, bool, shape ``(n,)``.
        window_ns: The window.

    Returns:
        Indices i and j, int64, ordered by i, then j.

    Raises:
        NuebarError: Times fall, or the shapes differ.
    """
    t = np.asarray(t_ns)
    if t.ndim != 1 or t.dtype.kind != "i" or t.shape != np.shape(counts):
        raise NuebarError(
            f"pairs: expected whole times and a mask of one length, got {t.dtype} {t.shape} and {np.shape(counts)}; "
            "convert them"
        )
    falls = np.flatnonzero(np.diff(t) < 0)
    if falls.size:
        raise NuebarError(f"pairs: expected times in order, got {t[falls[0] + 1]} after {t[falls[0]]}; sort them")
    rows = np.flatnonzero(counts)
    t = t[rows].astype(np.int64)
    still, alive = np.zeros(t.size, np.float32), np.ones(t.size, bool)
    out, lost, parts = np.empty((2, MOST_PAIRS), np.int64), np.zeros(4, np.int64), []
    i, j = 0, 1
    while i < t.size:
        n, i, j = _find(
            t, still, still, still, still, alive, i, j, t.size, window_ns, False, False, 0, 0,
            0.0, 0.0, math.inf, lost, out[0], out[1],
        )  # fmt: skip
        parts.append(out[:, :n].copy())
    both = np.concatenate(parts, axis=1) if parts else np.empty((2, 0), np.int64)
    return rows[both[0]], rows[both[1]]


# ---------------------------------------------------------------- shared with pairs out of time


def limits(options: PairOptions) -> tuple[float, float, float]:
    """Least energies of both events and the largest squared distance."""
    far = math.inf if options.max_dr_m is None else options.max_dr_m**2
    return options.prompt_min_MeV or 0.0, options.delayed_min_MeV or 0.0, far


def alive_events(block: Block) -> np.ndarray:
    """Which events of a block no muon vetoes, bool, shape ``(m,)``."""
    alive = np.ones(block.t_ns.size, bool)
    if block.dead_ns.size:
        _mark_dead(block.t_ns, block.dead_ns[0], block.dead_ns[1], alive)
    return alive


def pair_columns(block: Block, i: np.ndarray, j: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of the pairs of two lists of events of a block."""
    out: dict[str, np.ndarray] = {}
    for part, chosen in (("prompt", i), ("delayed", j)):
        out |= {f"{part}_{name}": np.take(block.columns[name], chosen) for name in _SEEN}
    out["prompt_t_ns"] = np.take(block.t_ns, i)
    out["dt_ns"] = np.take(block.t_ns, j) - out["prompt_t_ns"]
    out["prompt_row"], out["delayed_row"] = np.take(block.rows, i), np.take(block.rows, j)
    for name in block.columns:
        if name.startswith("true_"):
            base = name.removeprefix("true_")
            out[f"true_prompt_{base}"] = np.take(block.columns[name], i)
            out[f"true_delayed_{base}"] = np.take(block.columns[name], j)
    return out


def bundled(parts: Iterable[dict[str, np.ndarray]], rows: int = MOST_PAIRS) -> Iterator[dict[str, np.ndarray]]:
    """Small tables joined to tables of at least ``rows`` rows, the last one excepted.

    Args:
        parts: Tables of at most :data:`MOST_PAIRS` rows.
        rows: When to hand out.
    """
    held: list[dict[str, np.ndarray]] = []
    have = 0
    for part in parts:
        held.append(part)
        have += part["dt_ns"].size
        if have >= rows:
            yield joined(held)
            held, have = [], 0
    if held:
        yield joined(held)


def joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Tables of the same columns as one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def at_nodes(
    dt_ns: np.ndarray, nodes_ns: np.ndarray | Sequence[float], probability: np.ndarray | Sequence[float]
) -> np.ndarray:
    """Probability between nodes: its logarithm interpolated, straight for a Poisson stream, or itself where it is 0."""
    nodes, p = np.asarray(nodes_ns, float), np.asarray(probability, float)
    return np.exp(np.interp(dt_ns, nodes, np.log(p))) if np.all(p > 0) else np.interp(dt_ns, nodes, p)


# ---------------------------------------------------------------- kernels


@njit
def _find(
    t: np.ndarray,
    e: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    alive: np.ndarray,
    i: int,
    j: int,
    last: int,
    window: int,
    veto_both: bool,
    isolate: bool,
    before: int,
    after: int,
    prompt_min: float,
    delayed_min: float,
    far2: float,
    lost: np.ndarray,
    out_i: np.ndarray,
    out_j: np.ndarray,
) -> tuple[int, int, int]:
    """Pairs from (i, j) on until the output is full or ``last`` is reached; where to go on.

    ``lost`` counts pairs found, vetoed, crowded and dropped.
    """
    n = 0
    most = out_i.size
    events = t.size
    while i < last:
        end = t[i] + window
        while j < events and t[j] < end:
            if n == most:
                return n, i, j
            lost[0] += 1
            if not alive[i] or (veto_both and not alive[j]):
                lost[1] += 1
            elif isolate and not (
                j == i + 1 and (i == 0 or t[i - 1] < t[i] - before) and (j + 1 == events or t[j + 1] > t[j] + after)
            ):
                lost[2] += 1
            elif e[i] < prompt_min or e[j] < delayed_min or distance2(x, y, z, i, j) > far2:
                lost[3] += 1
            else:
                out_i[n] = i
                out_j[n] = j
                n += 1
            j += 1
        i += 1
        j = i + 1
    return n, i, j


@njit
def distance2(x: np.ndarray, y: np.ndarray, z: np.ndarray, i: int, j: int) -> float:
    dx, dy, dz = np.float64(x[i]) - x[j], np.float64(y[i]) - y[j], np.float64(z[i]) - z[j]
    return dx * dx + dy * dy + dz * dz


@njit
def _mark_dead(t: np.ndarray, starts: np.ndarray, ends: np.ndarray, alive: np.ndarray) -> None:
    k = 0
    for i in range(t.size):
        while k < ends.size and ends[k] <= t[i]:
            k += 1
        alive[i] = k == ends.size or t[i] < starts[k]


@njit
def _live_between(low: int, high: int, starts: np.ndarray, ends: np.ndarray, k: int) -> int:
    """Length of [low, high) without dead time; interval ``k`` is the first that ends after ``low``."""
    live = max(high - low, 0)
    while k < starts.size and starts[k] < high:
        live -= max(min(ends[k], high) - max(starts[k], low), 0)
        k += 1
    return live


@njit
def _empty_stretches(
    t: np.ndarray,
    first: int,
    last: int,
    starts: np.ndarray,
    ends: np.ndarray,
    begin: int,
    end: int,
    opening: bool,
    before: int,
    ahead: np.ndarray,
    empty: np.ndarray,
) -> float:
    """Live time s with no event in [s - before, s + ahead], for each ``ahead``; returns the live time of the block.

    Outside of the stream there are no events, as for the pairs themselves.
    """
    k = 0
    for i in range(first if not opening else first - 1, last):
        low = t[i] + before + 1 if i >= first else begin
        while k < ends.size and ends[k] <= low:
            k += 1
        for m in range(ahead.size):
            high = t[i + 1] - ahead[m] if i + 1 < t.size else end
            if high > low:
                empty[m] += _live_between(low, high, starts, ends, k)
    return float(_live_between(begin, end, starts, ends, 0))
