"""Pairs of inverse beta decays, stored compactly: generated once, used for every (kB, fC, light yield)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.arrays import load_arrays, save_arrays
from nuebar.simulate.pool import CascadePool

__all__ = ["COLUMNS", "IbdPool", "offsets_of"]

FORMAT = 1
COLUMNS: dict[str, tuple[tuple[int, ...], type]] = {
    "e_nu_MeV": ((), np.float64),
    "core": ((), np.uint8),
    "cos_theta": ((), np.float32),
    "vertex_m": ((3,), np.float32),
    "prompt_m": ((3,), np.float32),
    "delayed_m": ((3,), np.float32),
    "capture_ns": ((), np.float64),
    "captured_on": ((), np.uint8),
    "prompt_e_dep_MeV": ((), np.float32),
    "delayed_e_dep_MeV": ((), np.float32),
}
"""Columns of a pool: shape of a row and type."""


@dataclass(frozen=True, eq=False)
class IbdPool:
    """Deposits of antineutrino interactions: valid at any light yield, kB and fC.

    Attributes:
        prompt: Deposits of the prompt events.
        delayed: Deposits of the delayed events; empty where the gammas got away.
        columns: ``e_nu_MeV``, ``core`` (index), ``cos_theta`` (positron), ``vertex_m``, ``prompt_m`` and
            ``delayed_m`` (centres of the deposited energy, shape ``(pairs, 3)``), ``capture_ns``, ``captured_on``,
            ``prompt_e_dep_MeV`` (recoil protons included) and ``delayed_e_dep_MeV``.
        baseline_km: Distance of every core.
        metadata: What was simulated, with which seed; JSON-able.
    """

    prompt: CascadePool
    delayed: CascadePool
    columns: Mapping[str, np.ndarray]
    baseline_km: np.ndarray
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {name: len(self.columns.get(name, ())) for name in COLUMNS} | {"delayed": len(self.delayed)}
        wrong = [f"{name} {rows}" for name, rows in lengths.items() if rows != len(self)]
        if wrong:
            raise NuebarError(f"a pool of pairs: expected {len(self)} rows everywhere, got {', '.join(wrong)}")
        if int(self.columns["core"].max()) >= self.baseline_km.size:
            raise NuebarError(f"a pool of pairs: expected cores below {self.baseline_km.size}, got a larger index")

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.prompt)

    def part(self, first: int, last: int) -> IbdPool:
        """Pairs ``first`` to ``last`` (excluded), without a copy of the deposits."""
        columns = {name: c[first:last] for name, c in self.columns.items()}
        return IbdPool(
            self.prompt.part(first, last), self.delayed.part(first, last), columns, self.baseline_km, self.metadata
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pool as one file of safetensors."""
        arrays = {f"column.{name}": c for name, c in self.columns.items()} | {"baseline_km": self.baseline_km}
        for name, pool in (("prompt", self.prompt), ("delayed", self.delayed)):
            arrays |= {f"{name}.codes": pool.codes, f"{name}.counts": np.diff(pool.offsets).astype(np.uint32)}
        save_arrays(path, arrays, {"format": FORMAT, "kind": "ibd pairs", **self.metadata})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> IbdPool:
        """Read a pool.

        Raises:
            NuebarError: The file is missing, truncated, or no pool of pairs of this version.
        """
        arrays, metadata = load_arrays(path)
        if metadata.pop("kind", None) != "ibd pairs" or metadata.pop("format", None) != FORMAT:
            raise NuebarError(f"{path}: expected a pool of pairs of format {FORMAT}; simulate it again")
        try:
            prompt, delayed = (
                CascadePool(arrays[f"{name}.codes"], offsets_of(arrays[f"{name}.counts"]))
                for name in ("prompt", "delayed")
            )
            columns = {name: arrays[f"column.{name}"] for name in COLUMNS}
            return cls(prompt, delayed, columns, arrays["baseline_km"], metadata)
        except (NuebarError, KeyError) as error:
            raise NuebarError(f"{path}: not a complete pool of pairs ({error}); simulate it again") from error


def offsets_of(counts: np.ndarray) -> np.ndarray:
    """Where cascades begin and the last one ends, from how many deposits each has."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
