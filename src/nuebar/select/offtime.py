"""The accidental background, measured from windows in which no correlated pair can be.

The delayed event of a candidate is looked for ``k * offset`` later than the window, k = 1 … K, and its time is counted
from there, so that a classifier sees an off-time pair as it would see the same two events on time. Each off-time pair
has a weight; the sum of the weights of the selected ones estimates the number of selected on-time pairs whose two
events have nothing to do with each other, pairs of an antineutrino's event with a single among them.

Three things make the weight:

- **Windows.** At each dt, 1 / (number of the K windows that are live there), and 0 where the on-time window is dead: by
  muons if the veto applies to both events, and by the end of the stream. So no rate of muons is assumed. Prompt
  events of which no window is live are made up for by the share that they are.
- **Isolation.** An on-time accidental pair survives if neither the companions of its first event, nor those of its
  second one, nor anything else lies in its stretch of L = before + dt + after. Off time the stretch is looked at
  twice, around the prompt event as if the delayed one stood at t_prompt + dt, and around the delayed event as if the
  prompt one stood at t_delayed - dt. That asks for both sets of companions once and for "nothing else" twice:
  P_1 Q · P_2 Q in place of P_1 P_2 Q. The weight is 1 / Q(dt), Q the probability that a stretch of L is empty, measured
  in the same 65,536 events. (Exact for independent clusters of events at Poisson times: Mecke's formula.)
- **Equal times.** Two events with one time are one on-time pair but two off-time ones: 1/2 at dt = 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from nuebar.errors import NuebarError
from nuebar.kernels import njit
from nuebar.select.blocks import BLOCK_EVENTS, Block, EventBlocks, PairOptions, to_ns
from nuebar.select.pairs import (
    MOST_PAIRS,
    PairFinder,
    PairSummary,
    alive_events,
    at_nodes,
    distance2,
    joined,
    limits,
    pair_columns,
)

__all__ = ["AccidentalEstimate", "AccidentalSum", "OffTime", "OnOffPairs", "off_time_pairs"]

_SEEN = ("e_rec_MeV", "x_m", "y_m", "z_m")


@dataclass(frozen=True)
class OffTime:
    """Windows in which accidental pairs are looked for.

    Attributes:
        offset_ms: Distance of the windows; many capture times, so that nothing correlated is left.
        windows: How many, K. More lower the error of the estimate, which cannot fall below that of the rate of
            singles, and cost K times the pairs.
    """

    offset_ms: float = 10.0
    windows: int = 20

    def __post_init__(self) -> None:
        to_ns(self.offset_ms, "off-time: offset_ms")
        if isinstance(self.windows, bool) or not 1 <= self.windows <= 1000:
            raise NuebarError(f"off-time: windows: expected 1 to 1000, got {self.windows!r}; correct it")

    @property
    def offset_ns(self) -> int:
        """The offset in whole ns."""
        return to_ns(self.offset_ms, "off-time: offset_ms")


class OnOffPairs:
    """On-time and off-time pairs of a stream in one pass."""

    def __init__(
        self,
        batches: Iterable[Mapping[str, np.ndarray]],
        options: PairOptions | None = None,
        off_time: OffTime | None = None,
        *,
        block_events: int = BLOCK_EVENTS,
    ) -> None:
        """Nothing is read yet.

        Args:
            batches: The stream, as for :class:`~nuebar.select.pairs.PairStream`.
            options: What a pair is, the same on time and off time.
            off_time: The windows.
            block_events: Events that are looked at together, and in which Q is measured.

        Raises:
            NuebarError: The off-time windows are so near that both events of a pair share their surroundings.
        """
        self._options, self._off = options or PairOptions(), off_time or OffTime()
        o = self._options
        reach = o.window_ns + o.before_ns + o.after_ns
        if self._off.offset_ns < reach:
            raise NuebarError(
                f"off-time: offset_ms: expected at least {reach * 1e-6:g}, the window and what isolation looks at, got "
                f"{self._off.offset_ms:g}; take a larger one"
            )
        ahead = self._off.windows * self._off.offset_ns + o.window_ns + o.after_ns
        self._blocks = EventBlocks(batches, o, ahead_ns=ahead, block_events=block_events)
        self._finder = PairFinder(o)
        self._summary: PairSummary | None = None

    def __iter__(self) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """On-time and off-time pairs, in batches of their own length; one of a couple may have no rows.

        Yields:
            On-time pairs as :class:`~nuebar.select.pairs.PairStream` gives them, and off-time pairs with the same
            columns and ``weight`` (float64) and ``window`` (k, int64). ``dt_ns`` is that within the window. The order
            is that of the prompt event, the window, the delayed event.

        Raises:
            NuebarError: As for the stream; or isolation leaves nothing to measure Q by.
        """
        on: list[dict[str, np.ndarray]] = []
        off: list[dict[str, np.ndarray]] = []
        for block in self._blocks:
            empty = self._finder.survival.add(block)
            for kept, parts in (
                (on, self._finder.pairs(block)),
                (off, _off_pairs(block, self._options, self._off, self._finder.survival.nodes_ns, empty)),
            ):
                for part in parts:
                    kept.append(part)
                    if _rows(kept) >= MOST_PAIRS:
                        yield _table(on, block), _table(off, block, weighted=True)
                        on.clear()
                        off.clear()
            if block.closing:
                yield _table(on, block), _table(off, block, weighted=True)
        self._summary = self._finder.summary(self._blocks)

    @property
    def summary(self) -> PairSummary:
        """Live time, counts and survival probability of the on-time pairs.

        Raises:
            NuebarError: Not all pairs have been taken yet.
        """
        if self._summary is None:
            raise NuebarError("pairs: expected the stream to be read to its end before its summary; take all pairs")
        return self._summary


def off_time_pairs(
    batches: Iterable[Mapping[str, np.ndarray]],
    options: PairOptions | None = None,
    off_time: OffTime | None = None,
    *,
    block_events: int = BLOCK_EVENTS,
) -> Iterator[dict[str, np.ndarray]]:
    """Off-time pairs alone; see :class:`OnOffPairs`.

    Args:
        batches: The stream.
        options: What a pair is.
        off_time: The windows.
        block_events: Events that are looked at together.
    """
    for _, off in OnOffPairs(batches, options, off_time, block_events=block_events):
        if off["weight"].size:
            yield off


# ---------------------------------------------------------------- the sum


@dataclass(frozen=True)
class AccidentalEstimate:
    """The accidental background of a selection, and what is left of the candidates without it.

    Attributes:
        total: Estimated number of selected on-time accidental pairs.
        error: Its standard error as an estimate of the expected number, for independent events: too small where a good
            part of all events comes in correlated pairs, as antineutrinos never do.
        pairs: Selected off-time pairs.
        candidates: Selected on-time pairs.
        excess: Candidates without accidentals.
        excess_error: Its standard error. Candidates and accidentals are of the same events: without isolation what both
            share cancels, so this is less than that of independent numbers.
        sums: ``total`` bin by bin, shape ``(bins,)``.
        errors: ``error`` of each bin.
        excesses: ``excess`` of each bin.
        excess_errors: ``excess_error`` of each bin.
    """

    total: float
    error: float
    pairs: int
    candidates: int
    excess: float
    excess_error: float
    sums: np.ndarray
    errors: np.ndarray
    excesses: np.ndarray
    excess_errors: np.ndarray


class AccidentalSum:
    """Adds up weights of selected off-time pairs, batch by batch, with their error.

    ::

        background = AccidentalSum()
        for on, off in OnOffPairs(batches, options):
            background.add(off, selected(off), on=on, on_selected=selected(on))
        background.result()

    The variance of a sum over pairs of a Poisson stream is the expectation of Σ w² and of w w' over all couples of
    pairs that share one event, in any of the windows. With s the sum of weights of the pairs of one event that is
    Σ_events s² - Σ_pairs w². For the excess on-time pairs have the weight 1 and off-time ones -w.
    """

    def __init__(self, bins: int = 1) -> None:
        """Nothing is added yet.

        Args:
            bins: Bins of a histogram to be made beside the total.
        """
        if bins < 1:
            raise NuebarError(f"accidentals: expected at least one bin, got {bins}; give their number")
        self._bins, self._pairs, self._candidates, self._last = bins, 0, 0, -1
        self._off, self._excess = (_Shared(1), _Shared(bins)), (_Shared(1), _Shared(bins))

    def add(
        self,
        off: Mapping[str, np.ndarray],
        selected: np.ndarray | None = None,
        bins: np.ndarray | None = None,
        *,
        on: Mapping[str, np.ndarray] | None = None,
        on_selected: np.ndarray | None = None,
        on_bins: np.ndarray | None = None,
    ) -> None:
        """Add a batch; all batches of a stream, in order, also those with nothing selected.

        Args:
            off: Off-time pairs.
            selected: Which of them, bool, shape ``(n,)``; all by default.
            bins: Bin of each pair (of all, not of the selected ones), shape ``(n,)``; pairs with a bin below 0 or too
                high count in the total only.
            on: On-time pairs that came with them, for the excess.
            on_selected: Which of these.
            on_bins: Their bins.

        Raises:
            NuebarError: The batches come in another order.
        """
        first, second, weight, where = _chosen(off, off["weight"], selected, bins)
        if off["prompt_row"].size:
            if off["prompt_row"][0] < self._last:
                raise NuebarError(
                    f"accidentals: expected batches in the order of the stream, got row {off['prompt_row'][0]} after "
                    f"row {self._last}; add batches in order, and each stream to a sum of its own"
                )
            self._last = int(off["prompt_row"][-1])
        self._pairs += weight.size
        _add(self._off, first, second, weight, where, self._last)
        if on is not None:
            more = _chosen(on, np.ones(on["prompt_row"].size), on_selected, on_bins)
            self._candidates += more[2].size
            first, second, where = (
                np.concatenate((a, b)) for a, b in ((first, more[0]), (second, more[1]), (where, more[3]))
            )
            weight = np.concatenate((-weight, more[2]))
        else:
            weight = -weight
        _add(self._excess, first, second, weight, where, self._last)

    def result(self) -> AccidentalEstimate:
        """The estimate from what was added so far."""
        (total,), (error,) = self._off[0].result()
        (excess,), (excess_error,) = self._excess[0].result()
        sums, errors = self._off[1].result()
        excesses, excess_errors = self._excess[1].result()
        return AccidentalEstimate(
            total=float(total),
            error=float(error),
            pairs=self._pairs,
            candidates=self._candidates,
            excess=float(excess),
            excess_error=float(excess_error),
            sums=sums,
            errors=errors,
            excesses=excesses,
            excess_errors=excess_errors,
        )


def _chosen(
    pairs: Mapping[str, np.ndarray], weight: np.ndarray, selected: np.ndarray | None, bins: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Both rows, weight and bin of the selected pairs."""
    for name, values in (("selected", selected), ("bins", bins)):
        if values is not None and np.shape(values) != weight.shape:
            raise NuebarError(
                f"accidentals: {name}: expected an entry for each of the {weight.size} pairs, got shape "
                f"{np.shape(values)}; give one each"
            )
    chosen = np.ones(weight.size, bool) if selected is None else np.asarray(selected, bool)
    where = np.zeros(weight.size, np.int64) if bins is None else np.asarray(bins, np.int64)
    return pairs["prompt_row"][chosen], pairs["delayed_row"][chosen], weight[chosen], where[chosen]


def _add(
    sums: tuple[_Shared, _Shared],
    first: np.ndarray,
    second: np.ndarray,
    weight: np.ndarray,
    where: np.ndarray,
    last: int,
) -> None:
    """Add pairs to a total and to a histogram."""
    whole, each = sums
    whole.add(first, second, weight, np.zeros_like(where), last)
    inside = (where >= 0) & (where < each.bins)
    each.add(first[inside], second[inside], weight[inside], where[inside], last)


class _Shared:
    """Sums of weights with their error, bin by bin, in constant memory."""

    def __init__(self, bins: int) -> None:
        self.bins = bins
        self._sums, self._squares, self._events = np.zeros(bins), np.zeros(bins), np.zeros(bins)
        self._keys: np.ndarray = np.empty(0, np.int64)  # events that may come again, with their bin
        self._values: np.ndarray = np.empty(0)

    def add(self, first: np.ndarray, second: np.ndarray, weight: np.ndarray, where: np.ndarray, last: int) -> None:
        """Add pairs; events before row ``last`` do not come again."""
        self._sums += np.bincount(where, weight, self.bins)
        self._squares += np.bincount(where, weight**2, self.bins)
        keys = np.concatenate((self._keys, first * self.bins + where, second * self.bins + where))
        keys, index = np.unique(keys, return_inverse=True)
        values = np.bincount(index.reshape(-1), np.concatenate((self._values, weight, weight)), keys.size)
        done = int(np.searchsorted(keys, last * self.bins))
        self._events += np.bincount(keys[:done] % self.bins, values[:done] ** 2, self.bins)
        self._keys, self._values = keys[done:], values[done:]

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Sums and their errors."""
        events = self._events + np.bincount(self._keys % self.bins, self._values**2, self.bins)
        return self._sums.copy(), np.sqrt(np.maximum(events - self._squares, 0))


# ---------------------------------------------------------------- blocks


def _off_pairs(
    block: Block, options: PairOptions, off: OffTime, nodes_ns: np.ndarray, empty: np.ndarray
) -> Iterator[dict[str, np.ndarray]]:
    """Off-time pairs whose prompt event belongs to a block, at most MOST_PAIRS at a time."""
    alive = alive_events(block)
    both = options.veto is not None and options.veto.applies_to == "both"
    # A veto of prompt events only leaves all windows live: then it is as if there were no dead time.
    starts, ends = block.dead_ns if both else np.empty((2, 0), np.int64)
    share = _covered(block, options, off, alive, starts, ends)
    index, number = np.empty((3, MOST_PAIRS), np.int64), np.empty(MOST_PAIRS)
    reach = options.before_ns + options.window_ns + options.after_ns
    i, k, j = block.first, 0, 0
    while i < block.last:
        n, i, k, j = _find_later(
            block.t_ns,
            *(block.columns[name] for name in _SEEN),
            alive,
            i,
            k,
            j,
            block.last,
            options.window_ns,
            off.offset_ns,
            off.windows,
            both,
            options.isolation is not None,
            options.before_ns,
            options.after_ns,
            *limits(options),
            starts,
            ends,
            block.known_ns,
            index,
            number,
        )
        if not n:
            continue
        if not (empty > 0).all():
            raise NuebarError(
                f"off-time: no stretch of {reach * 1e-6:g} ms without events among the {block.last - block.first} from "
                f"row {block.rows[block.first]} on, to measure by what the multiplicity rule loses; shorten isolation "
                "or raise the threshold"
            )
        pairs = pair_columns(block, index[0, :n], index[1, :n])
        pairs["window"] = index[2, :n].copy()
        pairs["dt_ns"] -= pairs["window"] * off.offset_ns
        survival = at_nodes(pairs["dt_ns"], nodes_ns, empty)
        pairs["weight"] = np.where(pairs["dt_ns"] == 0, 0.5, 1.0) / (number[:n] * survival * share)
        yield pairs


def _covered(
    block: Block, options: PairOptions, off: OffTime, alive: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> float:
    """Share of the live prompt events, with a live on-time window, that have an off-time one; in mid-window."""
    if not starts.size and not block.closing:
        return 1.0
    on, covered = _count_covered(
        block.t_ns,
        alive,
        block.first,
        block.last,
        options.window_ns // 2,
        off.offset_ns,
        off.windows,
        starts,
        ends,
        block.known_ns,
    )
    if on and not covered:
        raise NuebarError(
            f"off-time: no window of the {on} live events from row {block.rows[block.first]} on lies in live time; the "
            "stream is too short or too often vetoed for these windows: change their offset or number"
        )
    return covered / on if on else 1.0


def _rows(parts: list[dict[str, np.ndarray]]) -> int:
    return sum(part["dt_ns"].size for part in parts)


def _table(parts: list[dict[str, np.ndarray]], block: Block, *, weighted: bool = False) -> dict[str, np.ndarray]:
    """Parts as one table, or a table without rows."""
    if parts:
        return joined(parts)
    none = np.empty(0, np.int64)
    table = pair_columns(block, none, none)
    return table | {"window": none, "weight": np.empty(0)} if weighted else table


# ---------------------------------------------------------------- kernels


@njit
def _is_live(time: int, p: int, starts: np.ndarray, ends: np.ndarray, known: int) -> bool:
    """Whether a time is in the stream and not dead; interval ``p`` is not after the first that ends later."""
    if time > known:
        return False
    while p < ends.size and ends[p] <= time:
        p += 1
    return p == ends.size or time < starts[p]


@njit
def _windows_live(
    time: int, dt: int, offset: int, windows: int, p: np.ndarray, starts: np.ndarray, ends: np.ndarray, known: int
) -> int:
    """Number of windows that are live at dt; 0 if the on-time window is not. Moves the pointers p on."""
    if ends.size == 0 and time + windows * offset + dt <= known:
        return windows
    live = 0
    for q in range(windows + 1):
        base = time + q * offset
        k = p[q]
        while k < ends.size and ends[k] <= base:
            k += 1
        p[q] = k
        if _is_live(base + dt, k, starts, ends, known):
            live += 1
        elif q == 0:
            return 0
    return live - 1


@njit
def _count_covered(
    t: np.ndarray,
    alive: np.ndarray,
    first: int,
    last: int,
    dt: int,
    offset: int,
    windows: int,
    starts: np.ndarray,
    ends: np.ndarray,
    known: int,
) -> tuple[int, int]:
    on = 0
    covered = 0
    p = np.zeros(windows + 1, np.int64)
    for i in range(first, last):
        if not alive[i]:
            continue
        for q in range(windows + 1):
            base = t[i] + q * offset
            while p[q] < ends.size and ends[p[q]] <= base:
                p[q] += 1
            live = _is_live(base + dt, p[q], starts, ends, known)
            if q == 0:
                if not live:
                    break
                on += 1
            elif live:
                covered += 1
                break
    return on, covered


@njit
def _find_later(
    t: np.ndarray,
    e: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    alive: np.ndarray,
    i: int,
    k: int,
    j: int,
    last: int,
    window: int,
    offset: int,
    windows: int,
    veto_both: bool,
    isolate: bool,
    before: int,
    after: int,
    prompt_min: float,
    delayed_min: float,
    far2: float,
    starts: np.ndarray,
    ends: np.ndarray,
    known: int,
    index: np.ndarray,
    number: np.ndarray,
) -> tuple[int, int, int, int]:
    """Pairs from (i, k, j) on until the output is full or ``last`` is reached; where to go on.

    ``index`` gets both events and the window, ``number`` how many windows are live at their dt.
    """
    n = 0
    most = number.size
    events = t.size
    low = np.zeros(windows, np.int64)  # first event not before the window
    p = np.zeros(windows + 1, np.int64)
    for q in range(windows):
        low[q] = np.searchsorted(t, t[i] + (q + 1) * offset)
    while i < last:
        time = t[i]
        usable = alive[i] and e[i] >= prompt_min and not (isolate and i > 0 and t[i - 1] >= time - before)
        while usable and k < windows:
            base = time + (k + 1) * offset
            start = low[k]
            while start < events and t[start] < base:
                start += 1
            low[k] = start
            j = max(j, start)
            while j < events and t[j] < base + window:
                dt = t[j] - base
                if (
                    (alive[j] or not veto_both)
                    and e[j] >= delayed_min
                    and not (
                        isolate
                        and (
                            t[i + 1] <= time + dt + after
                            or t[j - 1] >= t[j] - dt - before
                            or (j + 1 < events and t[j + 1] <= t[j] + after)
                        )
                    )
                    and distance2(x, y, z, i, j) <= far2
                ):
                    live = _windows_live(time, dt, offset, windows, p, starts, ends, known)
                    if live > 0:
                        if n == most:
                            return n, i, k, j
                        index[0, n] = i
                        index[1, n] = j
                        index[2, n] = k + 1
                        number[n] = live
                        n += 1
                j += 1
            k += 1
            j = 0
        i += 1
        k = 0
        j = 0
    return n, i, k, j
