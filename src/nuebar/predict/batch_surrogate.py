"""Many spectra at once at varying response: the surrogate in single precision, compiled.

The rows of the nodes and the light map are matrix products, for a few points at a time, so that all of it stays in the
cache of a core. What the response does to them is then summed as densities, not as differences of cumulatives: with
f = C F - φ (…) the counts below an edge z of a node (:mod:`nuebar.predict.surrogate`), a bin of half width h around z
holds

    f(z + h) - f(z - h) = 2h (f' + h²/6 f''' + h⁴/120 f⁽⁵⁾ + …),

and every derivative of f is φ(z) times Hermite polynomials. So a node is one polynomial of degree eight for all bins
that see it, times one exponential a bin; the error function is not needed, and no large numbers cancel. Bins that are
wide beside the resolution are cut into equal cells; bins of unequal widths are integrated with Gauss-Legendre points.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np

from nuebar.errors import NuebarError
from nuebar.kernels import require_numba
from nuebar.physics.scintillator import N_H_GAMMA_MeV
from nuebar.predict import batch
from nuebar.predict.box import PHYSICAL, ROUNDING
from nuebar.predict.response import RESPONSE
from nuebar.predict.surrogate import ROW_SETS, REACH_sigma, SurrogatePredictor, _shapes

__all__ = ["BatchSurrogate"]

CHUNK = 32768  # points whose response is prepared together
SEGMENT = 32  # nodes whose series end together
GROUP = ROW_SETS // 2 * SEGMENT  # rows of a table
UNROLL = 4  # terms that are added at once
LANES = 16  # cells that are summed at once
NEGLIGIBLE = 1e-7  # of the largest counts of a segment: coefficients that single precision cannot see
WIDEST_sigma = 1.0  # width of a cell: the series in h is then good to 1e-6
POINTS = 4  # of Gauss and Legendre in a cell of unequal bins


class BatchSurrogate:
    """A surrogate in vacuum for batches of oscillation and response parameters.

    Args:
        predictor: From :meth:`SurrogatePredictor.in_vacuum`.
    """

    def __init__(self, predictor: SurrogatePredictor) -> None:
        if not isinstance(predictor, SurrogatePredictor) or predictor.nodes.matter:
            raise NuebarError("the batch surrogate needs a surrogate in vacuum: load_predictor(...).in_vacuum()")
        self.predictor = predictor
        self.parameter_names = predictor.parameter_names
        total = predictor.nodes.total
        self._sizes = (total.solar.value.shape[-1], total.atmospheric.value.shape[-1])
        self._scales = np.array(
            [total.solar.middle, total.solar.half, total.atmospheric.middle, total.atmospheric.half]
        )
        nodes = predictor.inverse.shape[1]
        segments = -(-nodes // SEGMENT)
        rows = _row_groups(np.asarray(predictor.stacked), nodes, segments)
        light = _by_segment(np.asarray(predictor.light).reshape(ROW_SETS, nodes, -1), segments)
        self._rows = _flat_tables(rows)
        self._light = _flat_tables(list(light.reshape(-1, GROUP, light.shape[-1])))
        inverse = np.asarray(predictor.inverse)[:, :, None]
        self._inverse = _by_segment(inverse, segments).reshape(segments, -1)
        energies = np.asarray(predictor.node_energies, dtype=np.float64)[None, :, None]
        self._energies = _by_segment(energies, segments).reshape(segments, -1)
        self._cells = _cells(predictor)
        self._kernel = _kernel()

    @property
    def edges(self) -> np.ndarray:
        """Bins of reconstructed energy in MeV, shape ``(bins + 1,)``."""
        return self.predictor.edges

    def __call__(self, parameters: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Counts per bin of every row of parameters.

        Args:
            parameters: Columns in the order of ``parameter_names`` (four of oscillation, seven of the response),
                float64, shape ``(n, 11)``.
            out: float32 buffer of shape ``(n, bins)`` to fill; a fresh one by default.

        Returns:
            The buffer.

        Raises:
            NuebarError: A parameter is not finite or outside the box, by name, value and box.
        """
        p = np.ascontiguousarray(parameters, dtype=np.float64)
        if p.ndim != 2 or p.shape[1] != len(self.parameter_names):
            raise NuebarError(
                f"expected parameters of shape (n, {len(self.parameter_names)}) ({', '.join(self.parameter_names)}), "
                f"got {p.shape}"
            )
        self._check(p)
        shape = (len(p), len(self.predictor.edges_MeV) - 1)
        out = np.empty(shape, dtype=np.float32) if out is None else out
        if out.shape != shape or out.dtype != np.float32:
            raise NuebarError(f"expected a float32 buffer of shape {shape}, got {out.dtype} of {out.shape}")
        for start in range(0, len(p), CHUNK):
            rows = p[start : start + CHUNK]
            in_light, point = self._response(rows[:, -len(RESPONSE) :])
            self._kernel(
                rows, *self._sizes, self._scales, *self._rows, in_light, *self._light,
                point, self._energies, self._inverse, *self._cells, out[start : start + CHUNK],
            )  # fmt: skip
        return out

    def _response(self, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Basis of the light map, and what the widths need: see :func:`_polynomials`."""
        s = self.predictor
        kB, fC, light, a, b, c, scale = r.T
        _, _, n_kB, n_ratio = s.light.shape
        (k_middle, k_half), (r_middle, r_half) = s.light_windows
        in_kB = np.polynomial.chebyshev.chebvander((kB - k_middle) / k_half, n_kB - 1)
        in_ratio = np.polynomial.chebyshev.chebvander((fC / light - r_middle) / r_half, n_ratio - 1)
        cherenkov, efficiency, charge_sigma, dark, constant = np.asarray(s.constants)
        pe = efficiency * (light * (in_kB @ np.asarray(s.anchor)) + fC * cherenkov) / N_H_GAMMA_MeV
        one = np.ones_like(pe)
        columns = [pe, a * a, b * b + constant**2, c * c, 1.0 + scale, charge_sigma**2 * one, dark * one]
        basis = np.zeros((len(r), _whole(n_kB * n_ratio)), np.float32)
        basis[:, : n_kB * n_ratio] = (in_kB[:, :, None] * in_ratio[:, None, :]).reshape(len(r), -1)
        return basis, np.column_stack(columns).astype(np.float32)

    def _check(self, p: np.ndarray) -> None:
        s = self.predictor
        columns = dict(zip(self.parameter_names, p.T, strict=True))
        fast, slow = columns["dm2_31_eV2"], columns["dm2_21_eV2"]
        limits = [(n, columns[n], PHYSICAL[n]) for n in ("sin2_th12", "sin2_th13")]
        limits += [("dm2_21_eV2", slow, s.windows.solar)]
        limits += [("|dm2_31_eV2|", np.abs(fast), s.windows.atmospheric)]
        limits += [("|dm2_32_eV2|", np.abs(fast - slow), s.windows.atmospheric)]
        limits += [(n, columns[n], box) for n, box in zip(RESPONSE, s.ranges, strict=True)]
        for name, values, (low, high) in limits:
            slack = ROUNDING * (high - low)
            bad = ~((values >= low - slack) & (values <= high + slack))
            if bad.any():
                row = int(np.argmax(bad))
                raise NuebarError(
                    f"parameter {name!r} = {values[row]:.6g} in row {row} is outside the box [{low:.6g}, {high:.6g}] "
                    f"of the surrogate predictor; build one with a wider box or leave such rows out"
                )


# ---------------------------------------------------------------- tables


def _by_segment(table: np.ndarray, segments: int) -> np.ndarray:
    """From ``(sets, nodes, n)`` to ``(segments, sets, SEGMENT, n)``; more nodes at the end are like the last one."""
    sets, nodes, n = table.shape
    wide = np.pad(table, ((0, 0), (0, segments * SEGMENT - nodes), (0, 0)), mode="edge")
    return np.ascontiguousarray(wide.reshape(sets, segments, SEGMENT, n).swapaxes(0, 1))


def _row_groups(stacked: np.ndarray, nodes: int, segments: int) -> list[np.ndarray]:
    """Tables of rows that need about equally many terms, each ``(GROUP, terms)``.

    Segment by segment, three sets of the nodes of a segment (counts and excesses), then the same of the other three
    (products of excesses, which end earlier).
    """
    table = stacked.reshape(ROW_SETS, nodes, -1)
    table = np.pad(table, ((0, 0), (0, segments * SEGMENT - nodes), (0, 0)))
    largest = np.abs(table[0]).reshape(segments, -1).max(axis=1)
    out = []
    for family in (table[: ROW_SETS // 2], table[ROW_SETS // 2 :]):
        for k in range(segments):
            rows = family[:, k * SEGMENT : (k + 1) * SEGMENT].reshape(GROUP, -1)
            used = np.flatnonzero(np.abs(rows).max(axis=0) > NEGLIGIBLE * largest[k])
            out.append(rows[:, : int(used[-1]) + 1 if used.size else 1])
    return out


def _whole(terms: int) -> int:
    """Terms with zeros up to a whole number of steps."""
    return -(-terms // UNROLL) * UNROLL


def _flat_tables(groups: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All tables one after the other, term by term; where each begins, and its number of terms."""
    terms = np.array([_whole(g.shape[1]) for g in groups])
    padded = [np.pad(g, ((0, 0), (0, n - g.shape[1]))).T.ravel() for g, n in zip(groups, terms, strict=True)]
    starts = np.concatenate([[0], np.cumsum(GROUP * terms)[:-1]])
    return np.concatenate(padded).astype(np.float32), starts.astype(np.int64), terms.astype(np.int64)


def _cells(
    s: SurrogatePredictor,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.float32, np.float32]:
    """Cells of the bins: centres and what single precision leaves of them, weights, first of a bin, width, step.

    The centres go on for some lanes. Width 0 stands for Gauss-Legendre points, whose weight is in MeV; the step is 0
    where they are not even.
    """
    edges = s.edges
    widths, finest = np.diff(edges), WIDEST_sigma * _narrowest(s)
    even = bool(np.allclose(widths, widths[0], rtol=1e-6, atol=0.0))
    each = np.ceil((widths[:1] if even else widths) / finest - 1e-9).astype(int)
    parts = np.broadcast_to(np.maximum(each, 1), widths.shape)
    if even:
        step = widths[0] / parts[0]
        centres = edges[0] + step * (np.arange(parts.sum() + LANES) + 0.5)
        weights, first, width = np.ones(parts.sum()), np.concatenate([[0], np.cumsum(parts)]), step
    else:
        at, part = np.polynomial.legendre.leggauss(POINTS)
        cells = np.concatenate(
            [np.linspace(*e, n + 1)[:-1] for e, n in zip(itertools.pairwise(edges), parts, strict=True)]
        )
        size = np.repeat(widths / parts, parts)
        centres = (cells[:, None] + 0.5 * size[:, None] * (1.0 + at)).ravel()
        weights, first = (0.5 * size[:, None] * part).ravel(), POINTS * np.concatenate([[0], np.cumsum(parts)])
        centres = np.concatenate([centres, centres[-1] + widths[-1] * np.arange(1, LANES + 1)])
        step = width = 0.0
    single = centres.astype(np.float32)
    rest, share = (centres - single).astype(np.float32), weights.astype(np.float32)
    return single, rest, share, first.astype(np.int64), np.float32(width), np.float32(step)


def _narrowest(s: SurrogatePredictor) -> float:
    """The best resolution in MeV of a node that the bins see, over the corners of the box of light and scale."""
    least = np.inf
    for corner in itertools.product((0, 1), repeat=4):
        values = [r[k] for r, k in zip((*s.ranges[:3], s.ranges[-1]), corner, strict=True)]
        mean, inverse, *_ = _shapes(s, jnp.array([*values[:3], 0.0, 0.0, 0.0, values[3]]))
        sigma = 1.0 / np.asarray(inverse)
        least = min(least, float(sigma[np.asarray(mean) + REACH_sigma * sigma > s.edges_MeV[0]].min()))
    return least


# ---------------------------------------------------------------- kernel

_COMPILED: list[Any] = []


def _kernel() -> Any:
    if not _COMPILED:
        numba = require_numba()
        jit = numba.njit(error_model="numpy", fastmath={"contract"}, nogil=True, cache=True)
        parts = {n: jit(globals()[n]) for n in ("_products", "_polynomials", "_sum_nodes", "_collect")}
        globals().update(parts, prange=numba.prange, _basis=jit(batch._fill))
        _COMPILED.append(numba.njit(parallel=True, error_model="numpy", fastmath={"contract"}, cache=True)(_spectra))
    return _COMPILED[0]


_basis = batch._fill
prange = range
TOGETHER = 16  # points that share their buffers, a multiple of four
TASK = 512  # points of a thread before it asks for more
SHAPES = 10

F0, F1, F2, F3, F6, F10, F15 = (np.float32(x) for x in (0, 1, 2, 3, 6, 10, 15))
F21, F28, F45, F105, F210, F420 = (np.float32(x) for x in (21, 28, 45, 105, 210, 420))
PER_6, PER_24, PER_120, PER_5040, PER_362880 = (np.float32(1 / x) for x in (6, 24, 120, 5040, 362880))
HALF = np.float32(0.5)
REACH = np.float32(6.0)  # at 5 σ the lowest bins, which steep neighbours reach, would miss 3e-4
PER_ROOT_2PI = np.float32(0.3989422804014327)
# exp(-z²/2) = 2^x: the integer part goes into the exponent, the rest into Taylor's series of 2^y, |y| ≤ 1/2.
SQUARE_TO_POWER = np.float32(-0.5 / np.log(2.0))
LOWEST = np.float32(-60.0)  # nothing is left of a node there, and no product becomes subnormal
SHIFT = np.float32(1.5 * 2**23)  # added and taken away again, it rounds to an integer
TWO = [np.float32(np.log(2.0) ** k / np.prod(np.arange(1.0, k + 1))) for k in range(7)]
P1, P2, P3, P4, P5, P6 = TWO[1:]


def _spectra(  # type: ignore[no-untyped-def]
    p, n_solar, n_atmospheric, scales, row_tables, row_starts, row_terms, in_light, light_tables, light_starts,
    light_terms, point, energies, inverse, centres, rest, weights, first, width, step, out,
):  # fmt: skip
    """Counts per bin of every point; a thread works on a few points at a time."""
    n = len(out)
    segments = inverse.shape[0]
    for task in prange((n + TASK - 1) // TASK):
        # Buffers for all points of a task: fresh memory costs more than what is done with it.
        basis = np.zeros((TOGETHER, (n_solar + n_atmospheric + UNROLL) // UNROLL * UNROLL), np.float32)
        these = np.zeros((TOGETHER, in_light.shape[1]), np.float32)
        rows = np.empty((TOGETHER, row_starts.size, GROUP), np.float32)
        light = np.empty((TOGETHER, segments, ROW_SETS * SEGMENT), np.float32)
        halves = light.reshape(TOGETHER, light_starts.size, GROUP)
        shapes = np.empty((segments, SHAPES * SEGMENT), np.float32)
        means = np.empty((segments, SEGMENT), np.float64)
        sums = np.empty(centres.size, np.float32)
        for low in range(task * TASK, min(n, (task + 1) * TASK), TOGETHER):
            count = min(n - low, TOGETHER)
            _basis(p[low : low + count], n_solar, n_atmospheric, scales, basis)
            _products(basis, row_tables, row_starts, row_terms, rows)
            these[:count] = in_light[low : low + count]
            _products(these, light_tables, light_starts, light_terms, halves)
            for i in range(count):
                for k in range(segments):
                    _polynomials(
                        rows[i, k], rows[i, segments + k], light[i, k], energies[k], inverse[k], point[low + i],
                        width, means[k], shapes[k],
                    )  # fmt: skip
                sums[:] = F0
                _sum_nodes(means, shapes, centres, rest, weights.size, step, sums)
                _collect(sums, weights, first, out[low + i])


def _collect(sums, weights, first, out):  # type: ignore[no-untyped-def]
    """Cells of every bin together."""
    if weights.size == out.size:
        for b in range(out.size):
            out[b] = weights[b] * sums[b]
        return
    for b in range(out.size):
        total = F0
        for k in range(first[b], first[b + 1]):
            total += weights[k] * sums[k]
        out[b] = total


def _products(basis, tables, starts, terms, out):  # type: ignore[no-untyped-def]
    """Tables times the basis values of some points: four points and four terms for every number that is read."""
    sums = np.empty(4 * GROUP, np.float32)
    for group in range(starts.size):
        for i in range(0, basis.shape[0], 4):
            sums[:] = F0
            for k in range(0, terms[group], UNROLL):
                start = starts[group] + k * GROUP
                table = tables[start : start + UNROLL * GROUP]
                a0, a1, a2, a3 = basis[i, k], basis[i, k + 1], basis[i, k + 2], basis[i, k + 3]
                b0, b1, b2, b3 = basis[i + 1, k], basis[i + 1, k + 1], basis[i + 1, k + 2], basis[i + 1, k + 3]
                c0, c1, c2, c3 = basis[i + 2, k], basis[i + 2, k + 1], basis[i + 2, k + 2], basis[i + 2, k + 3]
                d0, d1, d2, d3 = basis[i + 3, k], basis[i + 3, k + 1], basis[i + 3, k + 2], basis[i + 3, k + 3]
                for m in range(GROUP):
                    t0, t1, t2, t3 = table[m], table[GROUP + m], table[2 * GROUP + m], table[3 * GROUP + m]
                    sums[m] = sums[m] + a0 * t0 + a1 * t1 + a2 * t2 + a3 * t3
                    sums[GROUP + m] = sums[GROUP + m] + b0 * t0 + b1 * t1 + b2 * t2 + b3 * t3
                    sums[2 * GROUP + m] = sums[2 * GROUP + m] + c0 * t0 + c1 * t1 + c2 * t2 + c3 * t3
                    sums[3 * GROUP + m] = sums[3 * GROUP + m] + d0 * t0 + d1 * t1 + d2 * t2 + d3 * t3
            for j in range(4):
                out[i + j, group, :] = sums[j * GROUP : (j + 1) * GROUP]


def _polynomials(  # type: ignore[no-untyped-def]
    rows, products, light, energies, inverse, point, width, means, shapes
):
    """Mean, 1/σ and nine coefficients in z of every node of a segment."""
    pe, a2, b2, c2, up, s2, dark = point[0], point[1], point[2], point[3], point[4], point[5], point[6]
    second, third = F1 + s2, F1 + F3 * s2
    statistics, per_pe, per_up = second / pe, F1 / pe, F1 / up
    cell = width if width > F0 else F1
    for k in range(SEGMENT):
        energy = energies[k] + light[k]
        means[k] = up * energy
        g = np.float32(energy)
        m2, m3, m4 = light[SEGMENT + k], light[2 * SEGMENT + k], light[3 * SEGMENT + k]
        i1, i2, i3, spread = inverse[k], inverse[SEGMENT + k], inverse[2 * SEGMENT + k], inverse[3 * SEGMENT + k]
        slope = statistics * i1 + a2 + F2 * b2 * g
        variance = m2 + statistics * (g * i1 + dark * i2 * per_pe) + b2 * (g * g + m2) + a2 * g + c2
        seen = statistics * g
        k3 = m3 + third * (g * i2 + dark * i3 * per_pe) * per_pe * per_pe + F3 * m2 * slope
        k4 = m4 - F3 * m2 * m2 + F3 * spread * seen * seen
        inv = F1 / np.sqrt(variance)
        inv2 = inv * inv
        x, y = light[4 * SEGMENT + k] * inv, light[5 * SEGMENT + k] * inv
        counts, one, two = rows[k], rows[SEGMENT + k], rows[2 * SEGMENT + k]
        moved = x * one + y * two
        widened = HALF * (x * x * products[k] + y * y * products[2 * SEGMENT + k]) + x * y * products[SEGMENT + k]
        three, four = counts * (k3 * inv2 * inv * PER_6), counts * (k4 * inv2 * inv2 * PER_24)
        inv = inv * per_up
        h = HALF * width * inv
        h2 = h * h
        h4 = h2 * h2
        u, v, w = h2 * PER_6, h4 * PER_120, h4 * h2 * PER_5040
        # Coefficients of the Hermite polynomials 0 to 8.
        e2, e3, e4 = widened + counts * u, three + moved * u, four + widened * u + counts * v
        e5, e6 = three * u + moved * v, four * u + widened * v + counts * w
        e7, e8 = three * v + moved * w, four * v + widened * w + counts * (h4 * h4 * PER_362880)
        size = PER_ROOT_2PI * inv * cell
        shapes[k] = inv
        shapes[SEGMENT + k] = size * (counts - e2 + F3 * e4 - F15 * e6 + F105 * e8)
        shapes[2 * SEGMENT + k] = size * (moved - F3 * e3 + F15 * e5 - F105 * e7)
        shapes[3 * SEGMENT + k] = size * (e2 - F6 * e4 + F45 * e6 - F420 * e8)
        shapes[4 * SEGMENT + k] = size * (e3 - F10 * e5 + F105 * e7)
        shapes[5 * SEGMENT + k] = size * (e4 - F15 * e6 + F210 * e8)
        shapes[6 * SEGMENT + k] = size * (e5 - F21 * e7)
        shapes[7 * SEGMENT + k] = size * (e6 - F28 * e8)
        shapes[8 * SEGMENT + k] = size * e7
        shapes[9 * SEGMENT + k] = size * e8


def _sum_nodes(means, shapes, centres, rest, cells, step, sums):  # type: ignore[no-untyped-def]
    """Add every node to the cells within its reach, some lanes at a time."""
    for segment in range(shapes.shape[0]):
        for j in range(SEGMENT):
            mean, inv = means[segment, j], shapes[segment, j]
            reach = REACH / inv
            low, high = mean - reach, mean + reach
            if high < centres[0] or low > centres[cells - 1]:
                continue
            if step > F0:
                start = max(0, int((low - centres[0]) / step) + 1) if low > centres[0] else 0
                stop = min(cells, int((high - centres[0]) / step) + 1)
            else:
                start, stop = np.searchsorted(centres[:cells], low), np.searchsorted(centres[:cells], high)
            c0, c1 = shapes[segment, SEGMENT + j], shapes[segment, 2 * SEGMENT + j]
            c2, c3 = shapes[segment, 3 * SEGMENT + j], shapes[segment, 4 * SEGMENT + j]
            c4, c5 = shapes[segment, 5 * SEGMENT + j], shapes[segment, 6 * SEGMENT + j]
            c6, c7 = shapes[segment, 7 * SEGMENT + j], shapes[segment, 8 * SEGMENT + j]
            c8 = shapes[segment, 9 * SEGMENT + j]
            for base in range(start, stop, LANES):
                at, more, into = centres[base : base + LANES], rest[base : base + LANES], sums[base : base + LANES]
                # Differences of energies fit into single precision, energies do not: events must not move between bins.
                origin = at[0]
                away = np.float32(mean - origin)
                for k in range(LANES):
                    z = ((at[k] - origin) + (more[k] - away)) * inv
                    q = z * z
                    x = SQUARE_TO_POWER * q
                    x = x if x > LOWEST else LOWEST
                    shifted = np.float32(x + SHIFT)
                    y = x - (shifted - SHIFT)
                    power = F1 + y * (P1 + y * (P2 + y * (P3 + y * (P4 + y * (P5 + y * P6)))))
                    bits = np.int32((shifted.view(np.int32) << np.int32(23)) + np.int32(0x3F800000))
                    even = c0 + q * (c2 + q * (c4 + q * (c6 + q * c8)))
                    odd = c1 + q * (c3 + q * (c5 + q * c7))
                    into[k] += power * bits.view(np.float32) * (even + z * odd)
