"""Several detectors that see the same reactors as the source of one harmonic predictor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from nuebar.predict.signal import SignalInputs

__all__ = ["SideBySide"]


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Un-oscillated events of several detectors as the source of one predictor.

    A core that two detectors see is two entries, one with each baseline. Energies of all detectors but the first are
    moved up behind those before: an axis for the bins, of no other use.

    Attributes:
        parts: Each detector's events.
    """

    parts: tuple[SignalInputs, ...]

    @property
    def e_nu_MeV(self) -> np.ndarray:
        """Neutrino energies of the nodes, the same for all."""
        return self.parts[0].e_nu_MeV

    @property
    def core_names(self) -> tuple[str, ...]:
        """Names of the cores, once for each detector."""
        return tuple(n for p in self.parts for n in p.core_names)

    @property
    def baseline_km(self) -> np.ndarray:
        """Distance of every core from its detector."""
        return np.concatenate([p.baseline_km for p in self.parts])

    @cached_property
    def moved_MeV(self) -> tuple[float, ...]:
        """By how much the energies of each detector are moved."""
        out = [0.0]
        for before, part in pairwise(self.parts):
            out.append(out[-1] + float(before.edges_MeV[-1] - part.edges_MeV[0]))
        return tuple(out)

    @property
    def edges_MeV(self) -> np.ndarray:
        """Fine bins of all detectors on the common axis."""
        first, *rest = (p.edges_MeV + d for p, d in zip(self.parts, self.moved_MeV, strict=True))
        return np.concatenate([first, *(e[1:] for e in rest)])

    @property
    def electrons_per_nucleon(self) -> float:
        """Of the first detector's matter."""
        return self.parts[0].electrons_per_nucleon

    @property
    def provenance(self) -> Mapping[str, str]:
        """The first detector's, with the names of all."""
        names = " + ".join(p.provenance["experiment"] for p in self.parts)
        return {**self.parts[0].provenance, "experiment": names}

    @cached_property
    def _place(self) -> tuple[tuple[int, int, slice], ...]:
        """Of every entry its detector, its number there, and the detector's bins."""
        ends = np.cumsum([0, *(p.edges_MeV.size - 1 for p in self.parts)])
        return tuple(
            (k, c, slice(int(ends[k]), int(ends[k + 1])))
            for k, p in enumerate(self.parts)
            for c in range(len(p.core_names))
        )

    def fold(self, cores: np.ndarray, values: Iterator[np.ndarray], *, together: bool) -> np.ndarray:
        """Sum functions of the energy over the events of every bin; see :class:`nuebar.predict.harmonic.Source`."""
        bins = sum(p.edges_MeV.size - 1 for p in self.parts)
        sums: dict[int, np.ndarray] = {}  # the response of a detector acts on the sum of its cores
        each = []
        for c, v in zip(cores, values, strict=True):
            k, own, where = self._place[int(c)]
            weighted = self.parts[k].events[own][:, None] * v
            if together:
                sums[k] = weighted if k not in sums else sums[k] + weighted
            else:
                row = np.zeros((bins, weighted.shape[1]))
                row[where] = self.parts[k].response @ weighted
                each.append(row)
        if not together:
            return np.stack(each)
        width = next(iter(sums.values())).shape[1]
        rows = [
            p.response @ sums[k] if k in sums else np.zeros((p.edges_MeV.size - 1, width))
            for k, p in enumerate(self.parts)
        ]
        return np.concatenate(rows)[None]
