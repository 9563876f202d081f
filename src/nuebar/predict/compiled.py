"""The harmonic predictor compiled for one spectrum at a time (numba): microseconds, without a dispatch.

Every bin sums its Chebyshev series only as far as its own coefficients reach. In matter the two atmospheric
splittings are summed together, so that the tables are read once. For gradients and batches use the JAX form; this
one is for scans and samplers that call one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nuebar.kernels import require_numba
from nuebar.parameters import OSCILLATION
from nuebar.physics.oscillation import POTENTIAL_eV2_per_MeV
from nuebar.predict.box import PHYSICS, Box, check_parameters
from nuebar.predict.harmonic import HarmonicPredictor, Series

__all__ = ["CompiledHarmonic"]

TOLERANCE = 1e-13  # of the largest bin; smaller coefficients are skipped bin by bin


class CompiledHarmonic:
    """A harmonic predictor behind one compiled call.

    Args:
        predictor: What to compile; its sum over cores is used.
        bins: Keep only these bins (a slice of the fine bins); all by default.
    """

    def __init__(self, predictor: HarmonicPredictor, bins: slice | None = None) -> None:
        self.predictor = predictor
        chosen = bins or slice(None)
        total = predictor.total
        scale = float(np.abs(np.asarray(total.flat)).max())
        self._matter = predictor.matter
        self._flat = np.ascontiguousarray(np.asarray(total.flat)[chosen])
        self._flat_moment = np.ascontiguousarray(np.asarray(total.flat_moment)[chosen])
        self._solar = _tables(total.solar, chosen, scale)
        self._atmospheric = _tables(total.atmospheric, chosen, scale)
        nodes = np.asarray(predictor.energy_nodes_MeV)
        middle, half = 0.5 * (nodes.max() + nodes.min()), 0.5 * (nodes.max() - nodes.min())
        self._potential = nodes * POTENTIAL_eV2_per_MeV * predictor.electrons_per_nucleon
        # The interpolation in energy as powers of a scaled energy, which a loop over bins evaluates at once.
        self._powers = np.linalg.inv(np.vander((nodes - middle) / half, increasing=True))
        self._energy = (nodes @ np.asarray(predictor.to_bins)[:, chosen] - middle) / half
        self._per_MeV = 1.0 / half
        self._work = np.zeros((13, self._flat.size))
        self._kernel = _kernels()

    @property
    def name(self) -> str:
        """How the predictor is called in results."""
        return "harmonic-compiled"

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Everything it takes."""
        return self.predictor.parameter_names

    @property
    def box(self) -> Box:
        """The windows of the predictor."""
        return self.predictor.box

    def predict(self, parameters: Mapping[str, float]) -> np.ndarray:
        """Expected signal counts per bin, checked; see :meth:`HarmonicPredictor.predict`."""
        check_parameters(parameters, self.parameter_names, OSCILLATION)
        self.predictor.check(parameters)
        return self(np.array([parameters.get(n, 0.0) for n in PHYSICS])).copy()

    def __call__(self, p: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Counts per bin from the five numbers of ``PHYSICS``, unchecked: the fast path.

        Args:
            p: float64, shape ``(5,)``, mass splittings inside the windows.
            out: Buffer of shape ``(bins,)``; by default one that the next call overwrites.
        """
        out = self._work[12] if out is None else out
        if self._matter and p[4] != 0.0:
            self._kernel[1](
                p, self._flat, self._flat_moment, *self._solar, *self._atmospheric,
                self._potential, self._powers, self._energy, self._per_MeV, self._work, out,
            )  # fmt: skip
        else:
            self._kernel[0](p, self._flat, *self._solar, *self._atmospheric, out)
        return out


def _tables(series: Series, chosen: slice, scale: float) -> tuple[Any, ...]:
    """Tables with bins as rows, how many coefficients each bin needs, and the scale of the argument."""
    value = np.ascontiguousarray(np.asarray(series.value)[chosen])
    moment = np.asarray(series.moment)[chosen] if series.moment.shape[-1] else np.zeros_like(value)
    used = np.abs(value) > TOLERANCE * scale
    length = np.where(used.any(axis=1), value.shape[1] - np.argmax(used[:, ::-1], axis=1), 1).astype(np.int64)
    return value, np.ascontiguousarray(moment), length, series.middle, series.half


_COMPILED: list[Any] = []


def _kernels() -> tuple[Any, Any]:
    """Compile once, at first use; numba is an optional dependency."""
    if not _COMPILED:
        numba = require_numba()
        jit = numba.njit(error_model="numpy", fastmath={"contract", "reassoc"})
        names = ("_polynomials", "_polynomial", "_mixing")
        globals().update({name: jit(globals()[name]) for name in names})
        _COMPILED.extend([jit(_vacuum), jit(_matter)])
    return _COMPILED[0], _COMPILED[1]


def _polynomials(x, scale, t):  # type: ignore[no-untyped-def]
    """Row i holds the i-th derivatives of T_0 … T_{n-1} at x, times the i-th power of ``scale``."""
    n = t.shape[1]
    t[:, 0] = 0.0
    t[0, 0] = 1.0
    if n > 1:
        t[:, 1] = 0.0
        t[0, 1] = x
        if t.shape[0] > 1:
            t[1, 1] = scale
    for k in range(1, n - 1):
        for order in range(t.shape[0]):
            lower = 2.0 * order * scale * t[order - 1, k] if order else 0.0
            t[order, k + 1] = 2.0 * x * t[order, k] + lower - t[order, k - 1]


def _mixing(a, s12, s13, d21, d31, out):  # type: ignore[no-untyped-def]
    """The eigensystem of :func:`nuebar.physics.oscillation.eigensystem` at one potential: v's and shifts."""
    w3 = s13
    w2 = (1.0 - s13) * s12
    w1 = (1.0 - s13) * (1.0 - s12)
    delta = 0.0
    for _ in range(3):
        delta = -a * w3 / (1.0 + a * (w1 / (d31 + delta) + w2 / (d31 + delta - d21)))
    l3 = d31 + delta
    total = d21 - a - delta
    product = -a * d21 * w1 * d31 / l3
    gap = np.sqrt(total * total - 4.0 * product)
    if total >= 0.0:
        l2 = 0.5 * (total + gap)
        l1 = product / l2
    else:
        l1 = 0.5 * (total - gap)
        l2 = product / l1
    g31, g32 = l3 - l1, l3 - l2
    m1 = (w1 * (l1 - d21) * (l1 - d31) + l1 * (w2 * (l1 - d31) + w3 * (l1 - d21))) / (gap * g31)
    m3 = ((w1 * (l3 - d21) + w2 * l3) * delta + w3 * l3 * (l3 - d21)) / (g31 * g32)
    m2 = 1.0 - m1 - m3
    out[0], out[1], out[2] = m1 * m2, m1 * m3, m2 * m3
    out[3], out[4], out[5] = gap - d21, g31 - d31, g32 - (d31 - d21)


def _polynomial(powers, at_nodes, energy, per_MeV, value, slope):  # type: ignore[no-untyped-def]
    """Interpolate eight numbers in energy: value and slope in every bin, by Horner's rule."""
    c = np.zeros(8)
    for i in range(8):
        for k in range(8):
            c[i] += powers[i, k] * at_nodes[k]
    c0, c1, c2, c3, c4, c5, c6, c7 = c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]
    for b in range(energy.size):
        e = energy[b]
        value[b] = c0 + e * (c1 + e * (c2 + e * (c3 + e * (c4 + e * (c5 + e * (c6 + e * c7))))))
        slope[b] = per_MeV * (
            c1 + e * (2.0 * c2 + e * (3.0 * c3 + e * (4.0 * c4 + e * (5.0 * c5 + e * (6.0 * c6 + e * 7.0 * c7)))))
        )


def _vacuum(  # type: ignore[no-untyped-def]
    p, flat, s_value, s_moment, s_length, s_middle, s_half, a_value, a_moment, a_length, a_middle, a_half, out
):
    s12, s13, d21, d31 = p[0], p[1], p[2], p[3]
    w1, w2, w3 = (1.0 - s13) * (1.0 - s12), (1.0 - s13) * s12, s13
    v21, v31, v32 = w1 * w2, w1 * w3, w2 * w3
    g, t, u = np.empty((1, s_value.shape[1])), np.empty((1, a_value.shape[1])), np.empty((1, a_value.shape[1]))
    _polynomials((d21 - s_middle) / s_half, 1.0, g)
    _polynomials((abs(d31) - a_middle) / a_half, 1.0, t)
    _polynomials((abs(d31 - d21) - a_middle) / a_half, 1.0, u)
    constant = 1.0 - 2.0 * (v21 + v31 + v32)
    for k in range(t.shape[1]):
        t[0, k] = v31 * t[0, k] + v32 * u[0, k]
    slow_row, fast_row = g[0], t[0]
    for b in range(flat.size):
        slow = fast = 0.0
        for k in range(s_length[b]):
            slow += s_value[b, k] * slow_row[k]
        for k in range(a_length[b]):
            fast += a_value[b, k] * fast_row[k]
        out[b] = constant * flat[b] + 2.0 * (v21 * slow + fast)


def _matter(  # type: ignore[no-untyped-def]
    p, flat, flat_moment, s_value, s_moment, s_length, s_middle, s_half, a_value, a_moment, a_length, a_middle, a_half,
    potential, powers, energy, per_MeV, work, out,
):  # fmt: skip
    s12, s13, d21, d31 = p[0], p[1], p[2], p[3]
    at_nodes = np.empty((potential.size, 6))
    for k in range(potential.size):
        _mixing(p[4] * potential[k], s12, s13, d21, d31, at_nodes[k])
    v, s = work[0:6], work[6:12]
    for q in range(6):
        _polynomial(powers, at_nodes[:, q], energy, per_MeV, v[q], s[q])
    g, t, u = np.empty((4, s_value.shape[1])), np.empty((3, a_value.shape[1])), np.empty((3, a_value.shape[1]))
    sign = 1.0 if d31 > 0 else -1.0
    _polynomials((d21 - s_middle) / s_half, 1.0 / s_half, g)
    _polynomials((sign * d31 - a_middle) / a_half, 1.0 / a_half, t)
    _polynomials((sign * (d31 - d21) - a_middle) / a_half, 1.0 / a_half, u)
    # Rows outside the loop and two indices inside: a slice per bin would cost more than the sums.
    r0, r1, r2, r3 = g[0], g[1], g[2], g[3]
    t0, t1, t2, u0, u1, u2 = t[0], t[1], t[2], u[0], u[1], u[2]
    for b in range(flat.size):
        g0 = g1 = g2 = g3 = m0 = m1 = 0.0
        for k in range(s_length[b]):
            g0 += s_value[b, k] * r0[k]
            g1 += s_value[b, k] * r1[k]
            g2 += s_value[b, k] * r2[k]
            g3 += s_value[b, k] * r3[k]
            m0 += s_moment[b, k] * r0[k]
            m1 += s_moment[b, k] * r1[k]
        nu, turn = v[3, b], s[3, b]
        waves = v[0, b] * (g0 + nu * (g1 + nu * (0.5 * g2 + nu * g3 / 6.0)))
        waves += s[0, b] * (m0 + nu * m1) + v[0, b] * turn * m1
        g0 = g1 = g2 = m0 = m1 = h0 = h1 = h2 = l0 = l1 = 0.0
        for k in range(a_length[b]):
            g0 += a_value[b, k] * t0[k]
            g1 += a_value[b, k] * t1[k]
            g2 += a_value[b, k] * t2[k]
            h0 += a_value[b, k] * u0[k]
            h1 += a_value[b, k] * u1[k]
            h2 += a_value[b, k] * u2[k]
            m0 += a_moment[b, k] * t0[k]
            m1 += a_moment[b, k] * t1[k]
            l0 += a_moment[b, k] * u0[k]
            l1 += a_moment[b, k] * u1[k]
        nu, turn = sign * v[4, b], sign * s[4, b]
        waves += v[1, b] * (g0 + nu * (g1 + 0.5 * nu * g2)) + s[1, b] * (m0 + nu * m1) + v[1, b] * turn * m1
        nu, turn = sign * v[5, b], sign * s[5, b]
        waves += v[2, b] * (h0 + nu * (h1 + 0.5 * nu * h2)) + s[2, b] * (l0 + nu * l1) + v[2, b] * turn * l1
        total = v[0, b] + v[1, b] + v[2, b]
        slope = s[0, b] + s[1, b] + s[2, b]
        out[b] = (1.0 - 2.0 * total) * flat[b] - 2.0 * slope * flat_moment[b] + 2.0 * waves
