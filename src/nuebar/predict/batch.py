"""Many spectra at once in single precision: grid scans, training sets, toys at fixed response.

A spectrum in vacuum is a row of basis values times the tables. The basis is computed in double precision (its
phases need it) on all cores, cast, and multiplied by the tables with one matrix product per chunk, straight
into the caller's buffer: fresh memory would cost more in page faults than the arithmetic.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.kernels import require_numba
from nuebar.predict.harmonic import HarmonicPredictor

__all__ = ["BatchHarmonic"]

CHUNK = 8192


class BatchHarmonic:
    """A harmonic predictor in vacuum for batches of oscillation parameters.

    Args:
        predictor: Its sum over cores is used; build it with ``matter=False`` and a tolerance of about 1e-8, which
            single precision cannot see.
        bins: Keep only these bins (a slice of the fine bins); all by default.
    """

    def __init__(self, predictor: HarmonicPredictor, bins: slice | None = None) -> None:
        if predictor.matter:
            raise NuebarError(
                "the batch predictor needs a vacuum predictor: HarmonicPredictor.build(..., matter=False)"
            )
        chosen = bins or slice(None)
        total = predictor.total
        rows = [np.asarray(total.flat)[chosen][None]]
        rows += [np.asarray(s.value)[chosen].T for s in (total.solar, total.atmospheric)]
        self._tables = np.ascontiguousarray(np.concatenate(rows), dtype=np.float32)
        self._sizes = (total.solar.value.shape[-1], total.atmospheric.value.shape[-1])
        self._scales = np.array(
            [total.solar.middle, total.solar.half, total.atmospheric.middle, total.atmospheric.half]
        )
        self._basis = np.empty((CHUNK, self._tables.shape[0]), dtype=np.float32)
        self._kernel = _kernel()
        self.predictor = predictor

    def __call__(self, parameters: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Counts per bin of every row of parameters.

        Args:
            parameters: sin²θ12, sin²θ13, Δm²21, Δm²31 in columns, float64, shape ``(n, 4)``.
            out: float32 buffer of shape ``(n, bins)`` to fill; a fresh one by default.

        Returns:
            The buffer.

        Raises:
            NuebarError: A splitting outside the windows of the predictor, or NaN.
        """
        p = np.ascontiguousarray(parameters, dtype=np.float64)
        if p.ndim != 2 or p.shape[1] != 4 or not np.all(np.isfinite(p)):
            raise NuebarError(f"expected finite parameters of shape (n, 4), got {p.shape}")
        self._check(p)
        out = np.empty((len(p), self._tables.shape[1]), dtype=np.float32) if out is None else out
        for start in range(0, len(p), CHUNK):
            rows = p[start : start + CHUNK]
            basis = self._basis[: len(rows)]
            self._kernel(rows, *self._sizes, self._scales, basis)
            np.matmul(basis, self._tables, out=out[start : start + len(rows)])
        return out

    def _check(self, p: np.ndarray) -> None:
        w = self.predictor.windows
        splittings = (p[:, 2], np.abs(p[:, 3]), np.abs(p[:, 3] - p[:, 2]))
        for name, values, window in zip(
            ("dm2_21_eV2", "|dm2_31_eV2|", "|dm2_32_eV2|"),
            splittings,
            (w.solar, w.atmospheric, w.atmospheric),
            strict=True,
        ):
            if values.size and (values.min() < window[0] or values.max() > window[1]):
                raise NuebarError(
                    f"{name} from {values.min():.6g} to {values.max():.6g} is outside the box [{window[0]:.6g}, "
                    f"{window[1]:.6g}] of the harmonic predictor; build one with wider windows"
                )


_COMPILED: list[Any] = []


def _kernel() -> Any:
    if not _COMPILED:
        numba = require_numba()
        _fill.__globals__["prange"] = numba.prange
        _COMPILED.append(numba.njit(parallel=True, error_model="numpy", fastmath={"contract"})(_fill))
    return _COMPILED[0]


prange = range


def _fill(p, n_solar, n_atmospheric, scales, out):  # type: ignore[no-untyped-def]
    """Basis values of each row: constant, solar, atmospheric; recurrences in double precision."""
    for i in prange(p.shape[0]):
        s12, s13, d21, d31 = p[i, 0], p[i, 1], p[i, 2], p[i, 3]
        w1, w2, w3 = (1.0 - s13) * (1.0 - s12), (1.0 - s13) * s12, s13
        v21, v31, v32 = 2.0 * w1 * w2, 2.0 * w1 * w3, 2.0 * w2 * w3
        out[i, 0] = 1.0 - v21 - v31 - v32
        x = (d21 - scales[0]) / scales[1]
        t0, t1 = v21, v21 * x
        for k in range(n_solar):
            out[i, 1 + k] = t0
            t0, t1 = t1, 2.0 * x * t1 - t0
        x = (abs(d31) - scales[2]) / scales[3]
        y = (abs(d31 - d21) - scales[2]) / scales[3]
        t0, t1, u0, u1 = v31, v31 * x, v32, v32 * y
        for k in range(n_atmospheric):
            out[i, 1 + n_solar + k] = t0 + u0
            t0, t1 = t1, 2.0 * x * t1 - t0
            u0, u1 = u1, 2.0 * y * u1 - u0
