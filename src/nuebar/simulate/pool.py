"""Many cascades, stored compactly: generated once, used for every (kB, fC, light yield)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.arrays import load_arrays, save_arrays
from nuebar.simulate.deposits import CODES, code_energies_MeV
from nuebar.simulate.light import deposit_photons

__all__ = ["CascadePool", "joined"]

FORMAT = 1


@dataclass(frozen=True, eq=False)
class CascadePool:
    """Cascades in a random order.

    Attributes:
        codes: Deposits of all cascades, one after the other, uint16; see :mod:`nuebar.simulate.deposits`.
        offsets: Where each begins and the last one ends, int64, shape ``(cascades + 1,)``.
        columns: Numbers of each cascade (kind, energy, place), each with ``cascades`` rows.
        metadata: What was simulated, with which seed; JSON-able.
    """

    codes: np.ndarray
    offsets: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        good = (
            self.codes.dtype == np.uint16
            and self.offsets.dtype == np.int64
            and self.offsets.ndim == 1
            and self.offsets.size > 1
            and self.offsets[0] == 0
            and self.offsets[-1] == self.codes.size
            and bool(np.all(np.diff(self.offsets) >= 0))
        )
        if not good:  # kernels read without bounds: nothing else may come so far
            raise NuebarError("a pool of cascades: expected offsets that increase from 0 to the number of deposits")
        for name, column in self.columns.items():
            if len(column) != len(self):
                raise NuebarError(f"a pool of cascades: column {name!r} has {len(column)} rows, expected {len(self)}")

    def __len__(self) -> int:
        """Number of cascades."""
        return self.offsets.size - 1

    def energies_MeV(self) -> np.ndarray:
        """Deposited kinetic energy of every cascade, shape ``(cascades,)``."""
        return self.photons(code_energies_MeV())

    def photons(self, table: np.ndarray) -> np.ndarray:
        """Sum of a table over the deposits of every cascade.

        Args:
            table: One number for each code, shape ``(65536,)``: see
                :func:`nuebar.simulate.quench.light_table`.

        Returns:
            float64, shape ``(cascades,)``.
        """
        out = np.empty(len(self))
        deposit_photons(self.codes, self.offsets, np.ascontiguousarray(table, dtype=np.float64), out)
        return out

    def mean_deposits(self, chosen: np.ndarray | None = None) -> np.ndarray:
        """How often each code occurs in a cascade on average, shape ``(65536,)``.

        The mean light at any parameter point is its product with the table of that point.

        Args:
            chosen: Which cascades, a mask; all by default.
        """
        if chosen is None:
            return np.bincount(self.codes, minlength=CODES) / len(self)
        picked = np.repeat(chosen, np.diff(self.offsets))
        return np.bincount(self.codes[picked], minlength=CODES) / max(int(np.count_nonzero(chosen)), 1)

    def part(self, first: int, last: int) -> CascadePool:
        """Cascades ``first`` to ``last`` (excluded), without a copy of the deposits."""
        offsets = self.offsets[first : last + 1]
        columns = {name: c[first:last] for name, c in self.columns.items()}
        return CascadePool(self.codes[offsets[0] : offsets[-1]], offsets - offsets[0], columns, self.metadata)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pool as safetensors: counts instead of offsets, which is smaller."""
        counts = np.diff(self.offsets).astype(np.uint32)
        arrays = {"codes": self.codes, "counts": counts, **{f"column.{k}": v for k, v in self.columns.items()}}
        save_arrays(path, arrays, {**self.metadata, "format": FORMAT, "kind": "cascades"})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CascadePool:
        """Read a pool.

        Raises:
            NuebarError: The file is missing, truncated, or no pool of this version.
        """
        arrays, metadata = load_arrays(path)
        if metadata.get("kind") != "cascades" or metadata.get("format") != FORMAT:
            raise NuebarError(f"{path}: expected a pool of cascades of format {FORMAT}; simulate it again")
        if not {"codes", "counts"} <= set(arrays):
            raise NuebarError(f"{path}: expected the arrays codes and counts, got {sorted(arrays)}; simulate it again")
        columns = {k.removeprefix("column."): v for k, v in arrays.items() if k.startswith("column.")}
        extra = {k: v for k, v in metadata.items() if k not in ("format", "kind")}
        try:
            return cls(arrays["codes"], _offsets(arrays["counts"]), columns, extra)
        except NuebarError as error:
            raise NuebarError(f"{path}: {error}; simulate it again") from error


def joined(pools: Sequence[CascadePool]) -> CascadePool:
    """Several pools as one, in their order; columns must agree, metadata are those of the first."""
    counts = np.concatenate([np.diff(p.offsets) for p in pools])
    columns = {name: np.concatenate([p.columns[name] for p in pools]) for name in pools[0].columns}
    return CascadePool(np.concatenate([p.codes for p in pools]), _offsets(counts), columns, pools[0].metadata)


def _offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
