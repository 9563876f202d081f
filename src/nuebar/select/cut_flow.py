"""Cut-flow table: what each cut keeps alone, given the fiducial volume, and after the cuts before it.

Pairs are counted by the pattern of cuts that they pass, 64 numbers that hold every table and add up over chunks.
Errors are central 68.27 % Clopper-Pearson intervals (:func:`nuebar.select.counting.binomial_interval`). The published
rows are correlated: their product is 89.6 %, the combined value 89.9 %. They stand beside ours and enter nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.select.config import FIDUCIAL_ON
from nuebar.select.counting import Share, binomial_interval
from nuebar.select.cuts import DELAYED, DISTANCE, FIDUCIAL, PROMPT, TIME, BoxCuts, inside

__all__ = ["COMBINED", "ENERGY", "PUBLISHED", "CutFlow", "CutFlowRow", "cut_flow"]

ENERGY = "energy"
COMBINED = "combined"

PUBLISHED: Mapping[str, float] = {FIDUCIAL: 0.917, ENERGY: 0.987, TIME: 0.990, DISTANCE: 0.992, COMBINED: 0.899}
"""Efficiencies of antineutrinos: talk on arXiv:2406.12901, page "Benchmark selection". The ``distance`` row is
unreadable there and comes from the other document (nominal)."""

# Bits of a pattern. Both fiducial volumes are counted, whichever is applied.
_BITS = ("prompt inside", "both inside", PROMPT, DELAYED, TIME, DISTANCE)
_INSIDE = {"prompt": 1, "both": 2}
# Rows of the tables with their bits; those of the energies are also shown one by one.
_GROUPS: Mapping[str, int] = {ENERGY: 4 | 8, TIME: 16, DISTANCE: 32}
_SINGLE: Mapping[str, int] = {PROMPT: 4, DELAYED: 8, TIME: 16, DISTANCE: 32}


@dataclass(frozen=True)
class CutFlowRow:
    """One cut.

    Attributes:
        name: Which.
        alone: Share of all pairs that it keeps.
        given_fiducial: Share of the pairs of the fiducial volume.
        cumulative: Share of all pairs that is left after it and the rows above.
        published: Published value, if there is one.
    """

    name: str
    alone: Share
    given_fiducial: Share
    cumulative: Share
    published: float | None = None


@dataclass(frozen=True, eq=False)
class CutFlow:
    """Counts of pairs by pattern; add them over chunks.

    Attributes:
        cuts: The cuts that were counted. Those that are not applied keep all.
        counts: int64, shape ``(64,)``: pairs by the bits of the cuts that they pass.
    """

    cuts: BoxCuts
    counts: np.ndarray

    @property
    def pairs(self) -> int:
        """How many were counted."""
        return int(self.counts.sum())

    def __add__(self, other: CutFlow) -> CutFlow:
        """Both samples together.

        Raises:
            NuebarError: They were counted with other cuts.
        """
        if self.cuts != other.cuts:
            raise NuebarError(f"cut flow: expected counts of the same cuts, got {self.cuts} and {other.cuts}")
        return replace(self, counts=self.counts + other.counts)

    def passed(self, bits: int, given: int = 0) -> tuple[int, int]:
        """Pairs that pass all cuts of a mask, and those that pass the mask ``given``, of which they are counted."""
        pattern = np.arange(self.counts.size)
        base = (pattern & given) == given
        return int(self.counts[base & ((pattern & bits) == bits)].sum()), int(self.counts[base].sum())

    def rows(self, *, on: str | None = None, grouped: bool = True) -> tuple[CutFlowRow, ...]:
        """The table.

        Args:
            on: Whose radius the fiducial volume is about, ``"prompt"`` or ``"both"``; that of the cuts by default.
            grouped: Prompt and delayed energy as one row, as published; otherwise one by one.

        Returns:
            Fiducial volume, energies, time, distance, and ``combined``.

        Raises:
            NuebarError: An unknown vertex, or nothing was counted.
        """
        on = on or self.cuts.fiducial_on
        if on not in _INSIDE:
            raise NuebarError(f"fiducial volume on: expected one of {', '.join(FIDUCIAL_ON)}, got {on!r}")
        if not self.pairs:
            raise NuebarError("cut flow: expected at least one pair, got none; count some first")
        volume = _INSIDE[on]
        masks = {FIDUCIAL: volume, **(_GROUPS if grouped else _SINGLE)}
        rows, so_far = [], 0
        for name, bits in masks.items():
            so_far |= bits
            rows.append(self._row(name, bits, volume, so_far))
        return (*rows, self._row(COMBINED, so_far, volume, so_far))

    def _row(self, name: str, bits: int, volume: int, so_far: int) -> CutFlowRow:
        alone, given, cumulative = (
            _share(*self.passed(b, base)) for b, base in ((bits, 0), (bits, volume), (so_far, 0))
        )
        return CutFlowRow(name, alone, given, cumulative, PUBLISHED.get(name))

    def record(self) -> dict[str, Any]:
        """Everything for a report: tables for both vertices, grouped and one by one, published values beside."""
        tables = {
            on: {
                key: [_row_record(row) for row in self.rows(on=on, grouped=grouped)]
                for key, grouped in (("grouped", True), ("single", False))
            }
            for on in FIDUCIAL_ON
        }
        product = PUBLISHED[FIDUCIAL] * PUBLISHED[ENERGY] * PUBLISHED[TIME]
        return {
            "pairs": self.pairs,
            "fiducial_on": self.cuts.fiducial_on,
            "errors": "central 68.27 % Clopper-Pearson",
            "tables": tables,
            "published": {**PUBLISHED, "product of fiducial volume, energy and time": round(product, 4)},
            "counts": {"bits": list(_BITS), "pairs": self.counts.tolist()},
        }


def cut_flow(cuts: BoxCuts, batches: Iterable[np.ndarray]) -> CutFlow:
    """Count pairs batch by batch.

    Args:
        cuts: The cuts; a radius is needed for the fiducial volume, every other one may be ``None``.
        batches: Feature matrices, float32, shape ``(n, 10)``.

    Raises:
        NuebarError: The cuts have no fiducial radius.
    """
    if cuts.fiducial_radius_m is None:
        raise NuebarError("cut flow: expected cuts with a fiducial radius, got none; give fiducial_radius_m")
    counts = np.zeros(1 << len(_BITS), np.int64)
    for features in batches:
        rows = cuts.rows(features)
        everything = np.ones(len(features), bool)
        passes = [inside(features, cuts.fiducial_radius_m, on) for on in FIDUCIAL_ON]
        passes += [rows.get(name, everything) for name in _SINGLE]
        pattern = np.zeros(len(features), np.uint8)
        for bit, row in enumerate(passes):
            pattern |= row.astype(np.uint8) << np.uint8(bit)
        counts += np.bincount(pattern, minlength=counts.size)
    return CutFlow(cuts, counts)


def _share(passed: int, total: int) -> Share:
    low, high = binomial_interval(passed, total)
    return Share(passed / total if total else 0.0, float(low), float(high), float(passed))


def _row_record(row: CutFlowRow) -> dict[str, Any]:
    shares = {"alone": row.alone, "given_fiducial": row.given_fiducial, "cumulative": row.cumulative}
    return {"name": row.name, **{name: s.record() for name, s in shares.items()}, "published": row.published}
