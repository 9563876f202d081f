"""How far a predictor is from the truth: bin by bin, in Δχ², and in what a fit would make of it.

Numbers only. The truth of predictors from Monte Carlo events is their sum with exact survival probabilities, which the
folded table gives to rounding; :class:`AccuracyMeter` takes any number of test points, chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nuebar.errors import NuebarError
from nuebar.parameters import OSCILLATION
from nuebar.physics import oscillation
from nuebar.predict.folded import Folded

__all__ = ["NORM", "SIGNIFICANT", "Accuracy", "AccuracyMeter", "folded_spectra", "linear_shifts", "relative_errors"]

SIGNIFICANT = 1e-4  # of the sum of a spectrum: in smaller bins a relative error says nothing
NORM = "norm"
AT_ONCE = 100  # points whose probabilities are held at once: 0.1 GB with the nodes of 265 km


@dataclass(frozen=True)
class Accuracy:
    """Errors of a predictor over test points.

    Attributes:
        points: Number of test points.
        relative_median: Median over points and bins of |S/T - 1|, bins above :data:`SIGNIFICANT` of the spectrum.
        relative_999: Its quantile of 99.9 %.
        relative_worst: Its largest value.
        chi2_median: Median over points of Σ (S - T)² / T over all bins, at the exposure of T.
        chi2_worst: Its largest value.
        shift_median: Parameter → median over points of the size of its shift, in units of its error.
        shift_worst: Parameter → largest size.
    """

    points: int
    relative_median: float
    relative_999: float
    relative_worst: float
    chi2_median: float
    chi2_worst: float
    shift_median: Mapping[str, float]
    shift_worst: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As a mapping for a report; all values plain numbers."""
        return {n: dict(v) if isinstance(v, dict) else v for n, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Accuracy:
        """Back from :meth:`to_dict`."""
        return cls(**record)


class AccuracyMeter:
    """Collects errors over chunks of test points.

    Args:
        names: Parameters that the Jacobians are with respect to.
    """

    def __init__(self, names: tuple[str, ...] = OSCILLATION) -> None:
        self.names = (*names, NORM)
        self._relative: list[np.ndarray] = []  # single precision: 16 MB for 10 000 spectra of 400 bins
        self._chi2: list[np.ndarray] = []
        self._shifts: list[np.ndarray] = []

    def add(self, truth: np.ndarray, predicted: np.ndarray, jacobian: np.ndarray) -> None:
        """Take some points.

        Args:
            truth: Expected counts, above 0, shape ``(points, bins)``.
            predicted: What the predictor says, same shape.
            jacobian: Derivatives of the truth, shape ``(points, bins, parameters)``.

        Raises:
            NuebarError: A shape is wrong, a number is not finite, or a bin of the truth is empty.
        """
        t, s, j = (np.asarray(x, dtype=float) for x in (truth, predicted, jacobian))
        if t.ndim != 2 or s.shape != t.shape or j.shape != (*t.shape, len(self.names) - 1):
            raise NuebarError(
                f"accuracy: expected truth and prediction of one shape (points, bins) and a Jacobian for "
                f"{', '.join(self.names[:-1])}, got {t.shape}, {s.shape} and {j.shape}"
            )
        for name, array in (("truth", t), ("prediction", s), ("Jacobian", j)):
            if not np.all(np.isfinite(array)):
                place = tuple(int(k) for k in np.argwhere(~np.isfinite(array))[0])
                raise NuebarError(f"accuracy: expected finite numbers, got {array[place]} in the {name} at {place}")
        if not np.all(t > 0):
            point, b = np.argwhere(~(t > 0))[0]
            raise NuebarError(
                f"accuracy: expected a truth above 0 in every bin, got {t[point, b]:g} in bin {b} of point {point}; "
                "take wider or fewer bins, or more events"
            )
        self._relative.append(np.abs(relative_errors(t, s)[_significant(t)]).astype(np.float32))
        self._chi2.append(np.sum((s - t) ** 2 / t, axis=1))
        self._shifts.append(np.abs(linear_shifts(t, s, j)))

    def result(self) -> Accuracy:
        """The numbers over all points so far.

        Raises:
            NuebarError: There were none.
        """
        if not self._chi2:
            raise NuebarError("accuracy: expected at least one test point, got none; add some")
        relative, chi2 = np.concatenate(self._relative), np.concatenate(self._chi2)
        shifts = np.concatenate(self._shifts)
        median, rare = np.quantile(relative, (0.5, 0.999))
        return Accuracy(
            points=chi2.size,
            relative_median=float(median),
            relative_999=float(rare),
            relative_worst=float(relative.max()),
            chi2_median=float(np.median(chi2)),
            chi2_worst=float(chi2.max()),
            shift_median=dict(zip(self.names, np.median(shifts, axis=0).tolist(), strict=True)),
            shift_worst=dict(zip(self.names, shifts.max(axis=0).tolist(), strict=True)),
        )


def relative_errors(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """S/T - 1, and 0 where the truth is empty; any shape."""
    t, s = np.asarray(truth, dtype=float), np.asarray(predicted, dtype=float)
    return np.where(t > 0, s / np.where(t > 0, t, 1.0) - 1.0, 0.0)


def _significant(truth: np.ndarray) -> np.ndarray:
    mask: np.ndarray = truth > SIGNIFICANT * truth.sum(axis=-1, keepdims=True)
    return mask


def linear_shifts(truth: np.ndarray, predicted: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
    """Shift of each fitted parameter, and of a free norm, in units of its error, if S is fitted to data that follow T.

    δ = (Jᵀ V⁻¹ J)⁻¹ Jᵀ V⁻¹ (S - T) with V = diag(T) and errors from (Jᵀ V⁻¹ J)⁻¹: least squares to first order (PDG
    2022, PTEP 2022, 083C01, section 40.2.3). The sign is that of fitting the truth to data that follow S.

    Args:
        truth: Shape ``(points, bins)``.
        predicted: Same shape.
        jacobian: Shape ``(points, bins, parameters)``.

    Returns:
        Shape ``(points, parameters + 1)``; the norm is the last.

    Raises:
        NuebarError: The parameters cannot be told apart from these bins.
    """
    root = np.sqrt(truth)[..., None]
    columns = np.concatenate([jacobian, truth[..., None]], axis=-1) / root
    size = np.linalg.norm(columns, axis=1, keepdims=True)
    if not np.all(size > 0):
        raise NuebarError("accuracy: expected every parameter to change the spectrum, got a Jacobian with zeros only")
    columns = columns / size  # splittings of 1e-5 beside numbers of 1
    information = np.swapaxes(columns, 1, 2) @ columns
    residual = (predicted - truth)[..., None] / root
    try:
        covariance = np.linalg.inv(information)
    except np.linalg.LinAlgError as error:
        raise NuebarError("accuracy: the parameters cannot be told apart from these bins; take more bins") from error
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    if not np.all(variance > 0):
        raise NuebarError("accuracy: the parameters cannot be told apart from these bins; take more bins")
    delta = (covariance @ (np.swapaxes(columns, 1, 2) @ residual))[..., 0]
    return np.asarray(delta / np.sqrt(variance))


# ---------------------------------------------------------------- truth


def folded_spectra(
    folded: Folded, rows: np.ndarray, *, density_g_cm3: float = 0.0, jacobian: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Σ_c table_c P(E_j, L_c): what weighting every event gives, to 1e-12, with exact derivatives.

    Args:
        folded: Events.
        rows: Rows of :data:`nuebar.parameters.OSCILLATION`, shape ``(points, 4)``.
        density_g_cm3: Of the matter; 0 is vacuum.
        jacobian: Whether derivatives are wanted.

    Returns:
        Counts, shape ``(points, bins)``, and their derivatives, ``(points, bins, 4)`` or ``(points, bins, 0)``.

    Raises:
        NuebarError: Parameters are not finite or of another shape.
    """
    rows = np.asarray(rows, dtype=float)
    if rows.ndim != 2 or rows.shape[1] != len(OSCILLATION) or not np.all(np.isfinite(rows)):
        raise NuebarError(f"accuracy: expected finite parameters of shape (points, 4), got {rows.shape}")
    columns = 1 + (len(OSCILLATION) if jacobian else 0)
    out = np.empty((len(rows), folded.edges_MeV.size - 1, columns))
    e_nu = jnp.asarray(folded.e_nu_MeV)
    for first in range(0, len(rows), AT_ONCE):
        part = rows[first : first + AT_ONCE]
        # Always as many rows: one program.
        padded = jnp.asarray(np.resize(part, (AT_ONCE if len(rows) > AT_ONCE else len(part), part.shape[1])))
        total: Any = 0.0
        for table, baseline in zip(folded.table, folded.baseline_km, strict=True):
            values = _survival(
                e_nu, baseline, padded, density_g_cm3, folded.electrons_per_nucleon, density_g_cm3 != 0.0, jacobian
            )
            total = total + table @ np.asarray(values).reshape(e_nu.size, -1)
        shaped = total.reshape(out.shape[1], -1, columns)[:, : len(part)]
        out[first : first + AT_ONCE] = np.swapaxes(shaped, 0, 1)
    return out[..., 0], out[..., 1:]


@partial(jax.jit, static_argnums=(5, 6))
def _survival(
    e_nu: Array, baseline_km: Array, rows: Array, density: Array, electrons: Array, matter: bool, jacobian: bool
) -> Array:
    """P and its derivatives, shape ``(nodes, points, columns)``."""

    def one(p: Array) -> Array:
        values = dict(zip(OSCILLATION, p, strict=True))
        if not matter:
            return oscillation.vacuum(e_nu, baseline_km, **values)
        return oscillation.matter(e_nu, baseline_km, **values, density_g_cm3=density, electrons_per_nucleon=electrons)

    value = jax.vmap(one, out_axes=1)(rows)[..., None]
    if not jacobian:
        return value
    return jnp.concatenate([value, jax.vmap(jax.jacfwd(one), out_axes=1)(rows)], axis=-1)
