"""Events of stored cascades in bins of reconstructed and cells of neutrino energy."""

from __future__ import annotations

import numpy as np

from nuebar.kernels import njit
from nuebar.predict.cascades import Smeared, _bins

__all__ = ["cell_counts"]


def cell_counts(events: Smeared, cell: np.ndarray, cells: int, edges_MeV: np.ndarray) -> np.ndarray:
    """Events of every bin and cell, each with the probabilities of its bins.

    Args:
        events: Reconstructed energies as distributions.
        cell: Cell of the neutrino energy of every event, int64.
        cells: Number of cells.
        edges_MeV: Bins of reconstructed energy, shape ``(bins + 1,)``.

    Returns:
        Shape ``(bins, cells)``.
    """
    edges = np.ascontiguousarray(edges_MeV, dtype=float)
    table = np.zeros((edges.size - 1, cells))
    _fold(*events, cell, edges, table)
    return table


@njit
def _fold(
    mean: np.ndarray, sigma: np.ndarray, skew: np.ndarray, cell: np.ndarray, edges: np.ndarray, table: np.ndarray
) -> None:
    row = np.empty(edges.size)
    for i in range(mean.size):
        first, n = _bins(mean[i], sigma[i], skew[i], edges, row)
        for b in range(n):
            table[first + b, cell[i]] += row[b]
