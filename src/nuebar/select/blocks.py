"""A stream cut anew into blocks of events that count, each with what its pairs need on both sides.

Batches come as the files have them; blocks hold a fixed number of events that count, so nothing that is computed block
by block depends on how the stream was read. Memory holds two blocks, the reach of a pair and one batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields

import numpy as np

from nuebar.errors import NuebarError
from nuebar.kernels import njit

__all__ = ["BLOCK_EVENTS", "Block", "EventBlocks", "Isolation", "MuonVeto", "PairOptions", "to_ns"]

BLOCK_EVENTS = 1 << 16
NS_PER_MS = 1_000_000
_NEEDED = ("t_ns", "e_rec_MeV", "x_m", "y_m", "z_m")
_LATEST = 1 << 62


# ---------------------------------------------------------------- options


@dataclass(frozen=True)
class Isolation:
    """The multiplicity rule: no third event that counts from before the prompt to after the delayed event.

    Attributes:
        before_ms: Before the prompt event, the border included.
        after_ms: After the delayed event, the border included.
    """

    before_ms: float = 2.0
    after_ms: float = 2.0


@dataclass(frozen=True)
class MuonVeto:
    """A veto of the whole detector after every muon.

    Attributes:
        veto_ms: Events at ``t_muon <= t < t_muon + veto_ms`` are dead.
        applies_to: ``"prompt"``, or ``"both"`` events of a pair.
    """

    veto_ms: float
    applies_to: str = "both"


@dataclass(frozen=True)
class PairOptions:
    """What a prompt-delayed candidate is.

    Attributes:
        window_ms: The delayed event comes ``0 <= dt < window_ms`` after the prompt one.
        threshold_MeV: Events count from here on: as members of pairs and as third events.
        muon_MeV: Events with more are muons; ``None`` for no such rule. (100 MeV is nominal: no decay or reactor
            antineutrino reaches it.)
        muon_kind: Events whose ``true_kind`` is this are muons; ``None`` to leave the truth alone.
        isolation: The multiplicity rule, or ``None``.
        veto: The muon veto, or ``None``. Muons never count as events of pairs or as third events.
        prompt_min_MeV: Least energy of the prompt event, if more than the threshold. This one, the next and
            ``max_dr_m`` do not touch the multiplicity rule; they keep hopeless pairs from being handed out.
        delayed_min_MeV: Least energy of the delayed event.
        max_dr_m: Largest distance of both vertices.
    """

    window_ms: float = 2.0
    threshold_MeV: float = 0.7
    muon_MeV: float | None = 100.0
    muon_kind: int | None = None
    isolation: Isolation | None = None
    veto: MuonVeto | None = None
    prompt_min_MeV: float | None = None
    delayed_min_MeV: float | None = None
    max_dr_m: float | None = None

    def __post_init__(self) -> None:
        _check(self, "pairs", above_zero=("window_ms", "muon_MeV", "max_dr_m"))
        to_ns(self.window_ms, "pairs: window_ms")
        if self.isolation is not None:
            _check(self.isolation, "pairs: isolation")
        if self.veto is not None:
            _check(self.veto, "pairs: veto")
            if self.veto.applies_to not in ("prompt", "both"):
                raise NuebarError(
                    f"pairs: veto.applies_to: expected 'prompt' or 'both', got {self.veto.applies_to!r}; name one"
                )
            if self.muon_MeV is None and self.muon_kind is None:
                raise NuebarError(
                    "pairs: expected muon_MeV or muon_kind for the muon veto, got neither; say what a muon is"
                )

    @property
    def window_ns(self) -> int:
        """The window in whole ns."""
        return to_ns(self.window_ms, "pairs: window_ms")

    @property
    def before_ns(self) -> int:
        """What isolation looks at before the prompt event; 0 without."""
        return 0 if self.isolation is None else round(self.isolation.before_ms * NS_PER_MS)

    @property
    def after_ns(self) -> int:
        """What isolation looks at after the delayed event; 0 without."""
        return 0 if self.isolation is None else round(self.isolation.after_ms * NS_PER_MS)

    @property
    def veto_ns(self) -> int:
        """Dead time after a muon; 0 without veto."""
        return 0 if self.veto is None else round(self.veto.veto_ms * NS_PER_MS)


def to_ns(value_ms: float, what: str) -> int:
    """Whole ns of a time above 0.

    Args:
        value_ms: The time.
        what: Its name, for the message.

    Raises:
        NuebarError: It is not finite or rounds to 0.
    """
    if not math.isfinite(value_ms) or round(value_ms * NS_PER_MS) < 1:
        raise NuebarError(f"{what}: expected at least 1 ns, got {value_ms!r} ms; give a time in ms")
    return round(value_ms * NS_PER_MS)


def _check(record: object, where: str, above_zero: tuple[str, ...] = ()) -> None:
    for field in fields(record):  # type: ignore[arg-type]
        value = getattr(record, field.name)
        if isinstance(value, float | int) and not isinstance(value, bool):
            low = "above 0" if field.name in above_zero else "not below 0"
            if not math.isfinite(value) or value < 0 or (field.name in above_zero and value == 0):
                raise NuebarError(f"{where}: {field.name}: expected a finite number {low}, got {value!r}; correct it")


# ---------------------------------------------------------------- blocks


@dataclass(frozen=True, eq=False)
class Block:
    """Events that count, ``first`` to ``last`` of them the prompt events of this block, the others around them.

    Attributes:
        t_ns: Times, in order, shape ``(m,)``.
        rows: Their rows in the whole stream, shape ``(m,)``.
        columns: Their columns but the time, shape ``(m,)`` each.
        first: First event that belongs to this block.
        last: First event that does not any more.
        dead_ns: Starts and ends of dead time, disjoint and in order, shape ``(2, k)``; covers this block.
        begin_ns: Start of the stretch of time of this block; stretches of all blocks make up the stream.
        end_ns: Its end.
        known_ns: Time of the last event of the stream that was read.
        opening: Whether it is the first block.
        closing: Whether it is the last block.
    """

    t_ns: np.ndarray
    rows: np.ndarray
    columns: Mapping[str, np.ndarray]
    first: int
    last: int
    dead_ns: np.ndarray
    begin_ns: int
    end_ns: int
    known_ns: int
    opening: bool
    closing: bool


class EventBlocks:
    """Blocks of a stream, with what it holds counted on the way.

    Attributes:
        events: Events read so far.
        counted: Events that count.
        muons: Muons.
        begin_ns: Time of the first event.
        known_ns: Time of the last event read.
        dead_intervals: Stretches of dead time, those that overlap joined.
    """

    def __init__(
        self,
        batches: Iterable[Mapping[str, np.ndarray]],
        options: PairOptions,
        *,
        ahead_ns: int,
        block_events: int = BLOCK_EVENTS,
    ) -> None:
        """Nothing is read yet.

        Args:
            batches: The stream in order of time: ``t_ns`` (whole ns), ``e_rec_MeV``, ``x_m``, ``y_m``, ``z_m`` and any
                columns ``true_…``, the same in all batches.
            options: What counts, and what a muon is.
            ahead_ns: How far the pairs of a prompt event reach.
            block_events: Events of a block; the last one has up to twice as many.
        """
        self._batches, self._options = batches, options
        self._ahead_ns, self._size = ahead_ns, block_events
        self.events = self.counted = self.muons = self.dead_intervals = 0
        self.begin_ns = self.known_ns = 0
        self._dead_total = 0
        self._dead = np.empty((2, 0), np.int64)
        self._names: tuple[str, ...] = ()
        self._held: dict[str, np.ndarray] = {}  # counting events in one piece: margin, then what waits
        self._new: list[dict[str, np.ndarray]] = []
        self._waiting = 0  # events in self._new
        self._first = 0  # next prompt event in self._held
        self._next_ns: int | None = None  # start of the next block's stretch

    @property
    def span_ns(self) -> int:
        """From the first event to the last."""
        return self.known_ns - self.begin_ns

    @property
    def dead_time_ns(self) -> int:
        """Union of all vetoes within the span."""
        beyond = max(0, int(self._dead[1, -1]) - self.known_ns) if self._dead.size else 0
        return self._dead_total - beyond

    def __iter__(self) -> Iterator[Block]:
        """Block by block.

        Raises:
            NuebarError: A batch is wrong: a column missing, times that fall, values that are not finite.
        """
        for batch in self._batches:
            self._take(batch)
            if self._waiting >= self._size:
                yield from self._blocks(closing=False)
        yield from self._blocks(closing=True)

    def _take(self, batch: Mapping[str, np.ndarray]) -> None:
        """Sort out which events of a batch count and which are muons."""
        columns = self._checked(batch)
        t, e = columns["t_ns"], columns["e_rec_MeV"]
        n = t.size
        if n == 0:
            return
        options = self._options
        kind = columns["true_kind"] if options.muon_kind is not None else np.empty(0, np.int64)
        index, muon = np.empty(n, np.int64), np.empty(n, np.int64)
        before = self.known_ns if self.events else int(t[0])
        counted, muons, bad = _sort_out(
            t,
            e,
            columns["x_m"],
            columns["y_m"],
            columns["z_m"],
            kind,
            -1 if options.muon_kind is None else options.muon_kind,
            math.inf if options.muon_MeV is None else options.muon_MeV,
            options.threshold_MeV,
            before,
            index,
            muon,
        )
        if bad >= 0:
            self._refuse(columns, bad, before)
        if not self.events:
            self.begin_ns = int(t[0])
        self._add_dead(t[muon[:muons]])
        chosen = index[:counted]
        if counted:
            piece = {name: np.take(columns[name], chosen) for name in self._names}
            self._new.append(piece | {"rows": chosen + self.events})
        self.known_ns = int(t[-1])
        self.events, self.counted, self.muons = self.events + n, self.counted + counted, self.muons + muons
        self._waiting += counted

    def _checked(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The columns of a batch as arrays of one length, the same names in all batches."""
        if not self._names:
            needed = (*_NEEDED, *(("true_kind",) if self._options.muon_kind is not None else ()))
            missing = [name for name in needed if name not in batch]
            if missing:
                raise NuebarError(
                    f"stream: missing column {missing[0]!r}, got {', '.join(batch)}; name it in a column map"
                )
            self._names = (*_NEEDED, *(name for name in batch if name.startswith("true_")))
        columns = {}
        for name in self._names:
            if name not in batch:
                raise NuebarError(f"stream: column {name!r} ends at row {self.events}; give it for all rows")
            values = np.asarray(batch[name])
            if values.shape != np.shape(batch["t_ns"]) or values.ndim != 1:
                raise NuebarError(
                    f"stream, column {name!r}, from row {self.events}: expected one number for each of the "
                    f"{np.size(batch['t_ns'])} times, got shape {values.shape}; give columns of one length"
                )
            columns[name] = values
        if columns["t_ns"].dtype.kind != "i":
            raise NuebarError(
                f"stream, column 't_ns': expected whole ns (int64), got {columns['t_ns'].dtype}; convert the times"
            )
        columns["t_ns"] = columns["t_ns"].astype(np.int64, copy=False)
        return columns

    def _refuse(self, columns: Mapping[str, np.ndarray], row: int, before: int) -> None:
        """Say what is wrong with a row of the batch."""
        where = f"row {self.events + row}"
        t = int(columns["t_ns"][row])
        previous = int(columns["t_ns"][row - 1]) if row else before
        if t < previous:
            raise NuebarError(
                f"stream, column 't_ns', {where}: expected times in order, got {t} after {previous}; sort the stream"
            )
        if t >= _LATEST:
            raise NuebarError(
                f"stream, column 't_ns', {where}: expected less than {_LATEST}, got {t}; count from a later start"
            )
        name = next(name for name in _NEEDED[1:] if not math.isfinite(columns[name][row]))
        value = float(columns[name][row])
        raise NuebarError(
            f"stream, column {name!r}, {where}: expected a finite number, got {value!r}; leave the event out"
        )

    def _add_dead(self, muons: np.ndarray) -> None:
        """Join the vetoes after these muons to the dead time."""
        length = self._options.veto_ns
        if length == 0 or muons.size == 0:
            return
        start, end = muons, muons + length
        reach = np.concatenate(([self._dead[1, -1] if self._dead.size else start[0]], end[:-1]))
        self._dead_total += int((end - np.maximum(start, reach)).sum())
        starts, ends = np.concatenate((self._dead[0], start)), np.concatenate((self._dead[1], end))
        apart = starts[1:] > ends[:-1]
        self.dead_intervals -= self._dead.shape[1]
        self._dead = np.stack(
            (starts[np.concatenate(([True], apart))], ends[np.concatenate((apart, [True]))]),
        )
        self.dead_intervals += self._dead.shape[1]

    def _blocks(self, *, closing: bool) -> Iterator[Block]:
        """The blocks that are complete; at the end, all."""
        self._join()
        if not self._held:
            if closing and self.events:
                yield self._nothing()
            return
        t = self._held["t_ns"]
        ready = t.size if closing else int(np.searchsorted(t, self.known_ns - self._ahead_ns))
        while ready - self._first >= 2 * self._size:
            yield self._block(self._first + self._size, closing=False)
        if closing:
            yield self._block(t.size, closing=True)
        self._forget()

    def _join(self) -> None:
        if not self._new:
            return
        parts = ([self._held] if self._held else []) + self._new
        self._held = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        self._new, self._waiting = [], 0

    def _block(self, last: int, *, closing: bool) -> Block:
        first, t = self._first, self._held["t_ns"]
        opening = self._next_ns is None
        begin = self.begin_ns if self._next_ns is None else self._next_ns
        end = self.known_ns if closing else int(t[last])
        low, reach = int(t[first]) - self._options.before_ns, int(t[last - 1]) + self._ahead_ns
        a, b = int(np.searchsorted(t, low)), int(np.searchsorted(t, reach, side="right")) + 1
        held = {name: values[a:b] for name, values in self._held.items()}
        # After the last event the stretch of this block may be longer than what its pairs reach.
        far = max(reach, end)
        dead = self._dead[:, np.searchsorted(self._dead[1], begin) : np.searchsorted(self._dead[0], far, "right")]
        self._first, self._next_ns = last, end
        return Block(
            t_ns=held.pop("t_ns"),
            rows=held.pop("rows"),
            columns=held,
            first=first - a,
            last=last - a,
            dead_ns=dead,
            begin_ns=begin,
            end_ns=end,
            known_ns=self.known_ns,
            opening=opening,
            closing=closing,
        )

    def _nothing(self) -> Block:
        """The block of a stream in which no event counts."""
        empty = np.empty(0, np.int64)
        columns = {name: empty.astype(float) for name in self._names[1:]}
        return Block(empty, empty, columns, 0, 0, self._dead, self.begin_ns, self.known_ns, self.known_ns, True, True)

    def _forget(self) -> None:
        """Drop what no later block looks at."""
        t = self._held["t_ns"]
        if self._first < t.size:
            keep = int(np.searchsorted(t, t[self._first] - self._options.before_ns))
            self._held = {name: values[keep:] for name, values in self._held.items()}
            self._first -= keep
        if self._next_ns is not None and self._dead.size:
            # The last interval may still grow.
            kept = min(int(np.searchsorted(self._dead[1], self._next_ns)), self._dead.shape[1] - 1)
            self._dead = self._dead[:, kept:].copy()


@njit
def _sort_out(
    t: np.ndarray,
    e: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    kind: np.ndarray,
    muon_kind: int,
    muon_MeV: float,
    threshold_MeV: float,
    before: int,
    index: np.ndarray,
    muon: np.ndarray,
) -> tuple[int, int, int]:
    """Rows that count, rows of muons, and the first row that is wrong (or -1)."""
    counted = 0
    muons = 0
    by_kind = kind.size > 0
    for i in range(t.size):
        time = t[i]
        if time < before or time >= _LATEST or not abs(e[i]) < math.inf:
            return counted, muons, i
        before = time
        if e[i] > muon_MeV or (by_kind and kind[i] == muon_kind):
            muon[muons] = i
            muons += 1
        elif e[i] >= threshold_MeV:
            if not abs(x[i]) + abs(y[i]) + abs(z[i]) < math.inf:
                return counted, muons, i
            index[counted] = i
            counted += 1
    return counted, muons, -1
