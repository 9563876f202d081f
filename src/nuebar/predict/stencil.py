"""Moving and widening a binned spectrum: energy-scale, non-linearity and resolution pulls for any predictor.

The events below an energy e are the cumulative C(e). A pull that moves reconstructed energies by δ(e) turns it
into C(e - δ); extra smearing of variance V(e) adds ½ d(V C')/de. Both need derivatives of C at the edges
of the analysis bins, which are finite differences of the fine bins on neighbouring edges. The Taylor series
of the shift goes to third order, which holds for shifts of a few fine bins; tests compare both with a response
matrix that is built again.
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from nuebar.errors import NuebarError

__all__ = ["Stencil", "finite_difference_weights"]

POINTS = 8
ORDERS = 4


def finite_difference_weights(at: float, points: np.ndarray, orders: int) -> np.ndarray:
    """Weights of the derivatives 0 … orders-1 at a point from values at others.

    B. Fornberg, Math. Comp. 51, 699 (1988).

    Args:
        at: Where the derivatives are wanted.
        points: Abscissae of the values, all different, shape ``(n,)``.
        orders: Number of derivatives, the value itself included.

    Returns:
        Shape ``(orders, n)``.
    """
    # The Taylor expansion about `at`, solved exactly for each order; n is small.
    h = points - at
    scale = np.abs(h).max()
    powers = np.vander(h / scale, len(points), increasing=True).T
    right = np.eye(len(points))[:, :orders] * np.cumprod([1.0, *range(1, orders)]) / scale ** np.arange(orders)
    return np.linalg.solve(powers, right).T


class Stencil(eqx.Module):
    """Derivatives of the cumulative spectrum at the analysis edges.

    Attributes:
        index: Fine edges around each analysis edge, shape ``(edges, points)``.
        weights: Weights of the derivatives 0 to 3, shape ``(orders, edges, points)``.
        position: Index of each analysis edge among the fine edges, shape ``(edges,)``.
    """

    index: Array
    weights: Array
    position: Array

    @classmethod
    def build(cls, fine_edges_MeV: np.ndarray, edges_MeV: np.ndarray) -> Stencil:
        """Prepare the weights.

        Args:
            fine_edges_MeV: Edges of the prediction, shape ``(bins + 1,)``.
            edges_MeV: Analysis edges, a subset of the fine edges.

        Raises:
            NuebarError: An analysis edge is not a fine edge, or there are too few fine bins.
        """
        if fine_edges_MeV.size < POINTS:
            raise NuebarError(f"expected at least {POINTS} fine edges, got {fine_edges_MeV.size}")
        position = np.array([int(np.argmin(np.abs(fine_edges_MeV - e))) for e in edges_MeV])
        distance = np.abs(fine_edges_MeV[position] - edges_MeV)
        if np.any(distance > 1e-6):
            worst = int(np.argmax(distance))
            raise NuebarError(
                f"the predictor's bins do not contain the analysis edge {edges_MeV[worst]:g} MeV (nearest: "
                f"{fine_edges_MeV[position[worst]]:g}); build the predictor on the bins of the analysis"
            )
        start = np.clip(position - POINTS // 2, 0, fine_edges_MeV.size - POINTS)
        index = start[:, None] + np.arange(POINTS)
        weights = np.array(
            [
                finite_difference_weights(fine_edges_MeV[p], fine_edges_MeV[i], ORDERS)
                for p, i in zip(position, index, strict=True)
            ]
        )
        return cls(jnp.asarray(index), jnp.asarray(weights.transpose(1, 0, 2)), jnp.asarray(position))

    def rebin(self, fine_counts: Array) -> Array:
        """Counts per analysis bin, nothing moved."""
        cumulative = jnp.concatenate([jnp.zeros(1), jnp.cumsum(fine_counts)])
        return jnp.diff(cumulative[self.position])

    def moved(self, fine_counts: Array, shift_MeV: Array, variance_MeV2: Array, slope_MeV: Array) -> Array:
        """Counts per analysis bin after moving and widening.

        Args:
            fine_counts: Counts per fine bin, shape ``(fine bins,)``.
            shift_MeV: δ at the analysis edges, shape ``(edges,)``.
            variance_MeV2: Extra variance V at the analysis edges, shape ``(edges,)``.
            slope_MeV: dV/de there, shape ``(edges,)``.

        Returns:
            Counts, shape ``(edges - 1,)``.
        """
        cumulative = jnp.concatenate([jnp.zeros(1), jnp.cumsum(fine_counts)])
        _, first, second, third = jnp.einsum("kep,ep->ke", self.weights, cumulative[self.index])
        at_edges = cumulative[self.position]
        d = shift_MeV
        at_edges = at_edges - d * (first - d * (second / 2.0 - d * third / 6.0))
        at_edges = at_edges + 0.5 * (slope_MeV * first + variance_MeV2 * second)
        return jnp.diff(at_edges)
