"""The reference: every Monte Carlo pair weighted with its exact survival probability.

Nothing is learned, interpolated or folded, so that this is what all other predictors from the same pairs are held
against. Pairs are cut into blocks of a fixed size; each block is summed in order, and the blocks are added in
order with a compensated sum: the bits depend neither on the number of threads nor on whether the pairs came from
memory or from disk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.io.event_paths import Paths
from nuebar.kernels import njit, require_numba
from nuebar.parameters import OSCILLATION
from nuebar.physics.oscillation import PHASE_per_eV2_km_MeV, POTENTIAL_eV2_per_MeV
from nuebar.predict.box import PHYSICS, Box, Provenance, check_parameters
from nuebar.predict.pairs import Pairs, PairStream, Progress

__all__ = ["ReweightPredictor", "Streamed", "streamed"]

BLOCK = 2**16  # pairs; the sums of a block do not depend on anything else
ROUND = 64  # blocks whose sums are held at once
PART = 512  # pairs in the first-level cache
KEPT = 16  # results remembered, for fits that move other parameters only

# Steps of the difference quotients of first and of second order: in the sines, of which P is a polynomial of second
# degree in vacuum; in the density, which turns phases by 4e-3 per 0.1 g/cm³ at 200 km; and the turn of a phase by a
# splitting at the largest L/E. Truncation and rounding are of about one size, see the class.
STEPS = ({"sine": 1e-3, "density": 0.1, "turn": 1e-2}, {"sine": 2e-4, "density": 0.03, "turn": 2e-3})
LEAST_SHARE = 0.01  # of the pairs, for a core's baseline to shorten the steps


class ReweightPredictor(eqx.Module):
    """S_b = scale Σ P(E_i, L_i) over the pairs i of bin b, in vacuum or in matter of constant density.

    Derivatives are difference quotients of the sum itself: of fourth order for the first ones (four passes over
    the pairs for each parameter) and of second order for the second ones (31 passes for five parameters, 21 for
    four), with errors of about 1e-9 and 1e-6 of a derivative's size. A third derivative is refused by
    JAX.

    Attributes:
        matter: Whether the density is a parameter.
        electrons_per_nucleon: Y_e of the matter.
        provenance: What it was built from.
        source: The pairs, which stay outside of compiled programs.
    """

    matter: bool = eqx.field(static=True)
    electrons_per_nucleon: float = eqx.field(static=True)
    provenance: Provenance = eqx.field(static=True)
    source: _Source = eqx.field(static=True)

    @classmethod
    def build(
        cls, pairs: Pairs, *, electrons_per_nucleon: float = 0.5, matter: bool = True, threads: int | None = None
    ) -> ReweightPredictor:
        """Take pairs; nothing is computed.

        Args:
            pairs: From :func:`nuebar.predict.pairs.read_pairs`.
            electrons_per_nucleon: Y_e; 0.5 for the crust.
            matter: Take a density as fifth parameter.
            threads: Threads of a pass; by default those that numba would use (``NUMBA_NUM_THREADS``).

        Raises:
            NuebarError: No pairs, or numba is missing.
        """
        if not len(pairs):
            raise NuebarError("the reweight predictor needs at least one pair, got none; read other files")
        source = _Source(pairs, electrons_per_nucleon, _threads(threads))
        provenance = Provenance({"predictor": "reweight", **pairs.provenance})
        return cls(matter, electrons_per_nucleon, provenance, source)

    @property
    def name(self) -> str:
        """How the predictor is called in results and on the command line."""
        return "reweight"

    @property
    def edges(self) -> np.ndarray:
        """Bins of reconstructed energy in MeV, shape ``(bins + 1,)``."""
        return np.array(self.source.pairs.edges_MeV)

    @property
    def box(self) -> Box:
        """It is valid everywhere."""
        return {}

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Everything it takes; the density may be left out (vacuum)."""
        return PHYSICS if self.matter else OSCILLATION

    @property
    def core_names(self) -> tuple[str, ...]:
        """Names of the cores."""
        return self.source.pairs.core_names

    @property
    def nbytes(self) -> int:
        """Size of the pairs."""
        pairs = self.source.pairs
        return pairs.e_nu_MeV.nbytes + pairs.core.nbytes + pairs.bin.nbytes

    def predict(self, parameters: Mapping[str, ArrayLike]) -> Array:
        """Expected signal counts per bin.

        Args:
            parameters: The four oscillation parameters by name, and ``matter_density_g_cm3`` if not vacuum.

        Returns:
            Counts, shape ``(bins,)``.

        Raises:
            NuebarError: A parameter is missing, unknown or unphysical.
        """
        check_parameters(parameters, self.parameter_names, OSCILLATION)
        return self.channels(jnp.stack([jnp.asarray(parameters.get(n, 0.0), float) for n in self.parameter_names]))[0]

    def channels(self, p: ArrayLike) -> Array:
        """Counts of all cores together (row 0) and of each core, shape ``(1 + cores, bins)``.

        Args:
            p: The numbers of ``parameter_names``. A predictor in vacuum takes a fifth one and ignores it.
        """
        return _value(_View(self.source, self.matter), jnp.asarray(p, float))

    def unoscillated(self) -> np.ndarray:
        """Counts per bin without oscillations."""
        return self.source.pairs.counts()

    def errors(self, parameters: Mapping[str, float]) -> np.ndarray:
        """Monte Carlo standard error of every bin, the scaled root of Σ w², shape ``(bins,)``."""
        check_parameters(parameters, self.parameter_names, OSCILLATION)
        p = np.array([float(np.asarray(parameters.get(n, 0.0))) for n in PHYSICS])
        return self.source.sums(p).errors

    def covariance(self, parameters: Mapping[str, float]) -> np.ndarray:
        """Monte Carlo covariance, shape ``(bins, bins)``: diagonal, since a pair lies in one bin."""
        return np.diag(self.errors(parameters) ** 2)

    def check(self, parameters: Mapping[str, ArrayLike]) -> None:
        """Nothing to refuse beyond :func:`nuebar.predict.box.check_parameters`: it has no box."""


@dataclass(frozen=True, eq=False)
class Streamed:
    """What one pass over files gives.

    Attributes:
        counts: Expected counts, shape ``(bins,)``.
        errors: Their Monte Carlo standard errors, shape ``(bins,)``.
        channels: Counts of all cores together (row 0) and of each core, shape ``(1 + cores, bins)``.
        core_names: Names of the cores.
        pairs: Pairs inside the bins.
        total: Pairs read.
    """

    counts: np.ndarray
    errors: np.ndarray
    channels: np.ndarray
    core_names: tuple[str, ...]
    pairs: int
    total: int


def streamed(
    paths: Paths,
    edges_MeV: Any,
    parameters: Mapping[str, float],
    *,
    scale: float = 1.0,
    electrons_per_nucleon: float = 0.5,
    threads: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Streamed:
    """Weight the pairs of files in one pass, without holding them: the same bits as from memory.

    Args:
        paths: As for :func:`nuebar.predict.pairs.read_pairs`.
        edges_MeV: Edges of the bins of reconstructed energy.
        parameters: The oscillation parameters by name, and ``matter_density_g_cm3`` if not vacuum.
        scale: Expected un-oscillated counts per pair.
        electrons_per_nucleon: Y_e of the matter.
        threads: Threads; by default those that numba would use.
        progress: Called as ``progress(what, done, total)`` with rows.
        **options: Column map, cores and fiducial radius, as for :func:`nuebar.predict.pairs.read_pairs`.

    Returns:
        Counts and their errors.

    Raises:
        NuebarError: A parameter, file, column, unit or core is wrong, or no pair lies inside the bins.
    """
    check_parameters(parameters, PHYSICS, OSCILLATION)
    p = np.array([float(np.asarray(parameters.get(n, 0.0))) for n in PHYSICS])
    stream = PairStream(paths, edges_MeV, **options)
    run = _Pass(p, electrons_per_nucleon, stream.bins, stream.core_share, _threads(threads))
    pairs, left = 0, [np.empty(0, dtype) for dtype in (np.float64, np.uint8, np.int16)]
    with run:
        for batch in stream.batches(progress):
            pairs += batch[0].size
            joined = [np.concatenate([before, now]) for before, now in zip(left, batch, strict=True)]
            whole = joined[0].size // BLOCK * BLOCK
            e_nu, core, bins = (array[:whole] for array in joined)
            run.add(e_nu, core, bins, stream.baseline_km)
            left = [array[whole:] for array in joined]
        run.add(left[0], left[1], left[2], stream.baseline_km)
    stream.check_filled(np.array([pairs]), 0)
    cores = stream.cores()
    sums = run.sums(cores.order if cores.share is None else np.arange(cores.baseline_km.size), scale)
    return Streamed(sums.channels[0], sums.errors, sums.channels, cores.names, pairs, stream.total)


def _threads(threads: int | None) -> int:
    numba = require_numba()
    if threads is not None and threads < 1:
        raise NuebarError(f"threads: expected at least 1, got {threads}")
    return int(numba.config.NUMBA_NUM_THREADS) if threads is None else threads


# ---------------------------------------------------------------- JAX


@dataclass(frozen=True)
class _View:
    """A source, in vacuum or in matter: what compiled programs are told apart by."""

    source: _Source
    matter: bool

    def numbers(self, p: Any) -> np.ndarray:
        """The five numbers of ``PHYSICS``."""
        full = np.zeros(len(PHYSICS))
        given = np.asarray(p, np.float64)
        full[: given.size] = given
        if not self.matter:
            full[4] = 0.0
        return full

    def used(self, size: int) -> int:
        """How many of the parameters the counts depend on."""
        return size if self.matter else min(size, len(OSCILLATION))


def _call(function: Callable[..., np.ndarray], view: _View, p: Array, orders: int) -> Array:
    kind = jnp.result_type(float)
    shape = view.source.shape + orders * p.shape

    def on_host(p: Any) -> np.ndarray:
        return function(view, p).astype(kind, copy=False)

    return jax.pure_callback(on_host, jax.ShapeDtypeStruct(shape, kind), p, vmap_method="sequential")


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value(view: _View, p: Array) -> Array:
    return _call(lambda v, p: v.source.sums(v.numbers(p)).channels, view, p, 0)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _jacobian(view: _View, p: Array) -> Array:
    return _call(lambda v, p: v.source.jacobian(v.numbers(p), np.size(p), v.used(np.size(p))), view, p, 1)


def _hessian(view: _View, p: Array) -> Array:
    return _call(lambda v, p: v.source.hessian(v.numbers(p), np.size(p), v.used(np.size(p))), view, p, 2)


@_value.defjvp
def _value_jvp(view: _View, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _value(view, *primals), _jacobian(view, *primals) @ tangents[0]


@_jacobian.defjvp
def _jacobian_jvp(view: _View, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _jacobian(view, *primals), _hessian(view, *primals) @ tangents[0]


# ---------------------------------------------------------------- sums over all pairs


@dataclass(frozen=True, eq=False)
class _Sums:
    """Channels, shape (1 + cores, bins), and errors of their sum, shape (bins,)."""

    channels: np.ndarray
    errors: np.ndarray


class _Source:
    """Pairs in memory, and the last results. Compared by identity, so that nothing is copied into programs."""

    def __init__(self, pairs: Pairs, electrons_per_nucleon: float, threads: int) -> None:
        self.pairs = pairs
        self.shape = (1 + pairs.baseline_km.size, pairs.bins)
        self._electrons, self._threads = electrons_per_nucleon, threads
        self._kept: dict[Any, Any] = {}
        self._lock = threading.Lock()
        share = np.bincount(pairs.core, minlength=pairs.baseline_km.size) / len(pairs)
        share = share if pairs.core_share is None else pairs.core_share
        far = pairs.baseline_km[share >= min(LEAST_SHARE, share.max())].max()
        self._reach = 2.0 * PHASE_per_eV2_km_MeV * far / pairs.e_nu_MeV.min()

    def sums(self, p: np.ndarray) -> _Sums:
        """One pass at the five numbers of ``PHYSICS``."""
        return self._remembered(("value", p.tobytes()), lambda: self._pass(p))

    def jacobian(self, p: np.ndarray, size: int, used: int) -> np.ndarray:
        """First derivatives, shape ``(1 + cores, bins, size)``; fourth-order central differences."""

        def compute() -> np.ndarray:
            out = np.zeros((*self.shape, size))
            for k, step in enumerate(self._steps(1)[:used]):
                f = [self._pass(_moved(p, (k, m * step))).channels for m in (-2, -1, 1, 2)]
                out[..., k] = (8.0 * (f[2] - f[1]) - (f[3] - f[0])) / (12.0 * step)
            return out

        return self._remembered(("jacobian", size, used, p.tobytes()), compute)

    def hessian(self, p: np.ndarray, size: int, used: int) -> np.ndarray:
        """Second derivatives, shape ``(1 + cores, bins, size, size)``; second-order central differences."""

        def compute() -> np.ndarray:
            out = np.zeros((*self.shape, size, size))
            step = self._steps(2)
            middle = self.sums(p).channels
            # What f(+) + f(-) - 2 f leaves for each parameter alone also completes the mixed ones.
            bend = [
                (self._pass(_moved(p, (k, step[k]))).channels - middle)
                + (self._pass(_moved(p, (k, -step[k]))).channels - middle)
                for k in range(used)
            ]
            for k in range(used):
                out[..., k, k] = bend[k] / step[k] ** 2
                for j in range(k):
                    up = self._pass(_moved(p, (k, step[k]), (j, step[j]))).channels - middle
                    down = self._pass(_moved(p, (k, -step[k]), (j, -step[j]))).channels - middle
                    out[..., k, j] = out[..., j, k] = (up + down - bend[k] - bend[j]) / (2.0 * step[k] * step[j])
            return out

        return self._remembered(("hessian", size, used, p.tobytes()), compute)

    def _steps(self, order: int) -> tuple[float, ...]:
        """Of the parameters of ``PHYSICS``."""
        step = STEPS[order - 1]
        splitting = step["turn"] / self._reach
        return (step["sine"], step["sine"], splitting, splitting, step["density"])

    def _pass(self, p: np.ndarray) -> _Sums:
        pairs = self.pairs
        with _Pass(p, self._electrons, pairs.bins, pairs.core_share, self._threads) as run:
            run.add(pairs.e_nu_MeV, pairs.core, pairs.bin, pairs.baseline_km)
        return run.sums(np.arange(pairs.baseline_km.size), pairs.scale)

    def _remembered(self, key: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
        with self._lock:
            if key in self._kept:
                return self._kept[key]
        result = compute()
        with self._lock:
            while len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = result
        return result


def _moved(p: np.ndarray, *moves: tuple[int, float]) -> np.ndarray:
    out = p.copy()
    for k, step in moves:
        out[k] += step
    return out


class _Pass:
    """One pass over pairs at one parameter point; blocks may come in several goes."""

    def __init__(
        self, p: np.ndarray, electrons_per_nucleon: float, bins: int, share: np.ndarray | None, threads: int
    ) -> None:
        self._p = p
        self._potential = p[4] * electrons_per_nucleon * POTENTIAL_eV2_per_MeV
        self._share = np.empty(0) if share is None else share
        self._bins, self._threads = bins, threads
        self._sum = np.zeros((1, bins))  # the squares, then the cores as they come
        self._carry = np.zeros((1, bins))
        self._buffer = np.empty((0, 0, 0))
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> _Pass:
        self._pool = ThreadPoolExecutor(self._threads) if self._threads > 1 else None
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def add(self, e_nu: np.ndarray, core: np.ndarray, bins: np.ndarray, baseline_km: np.ndarray) -> None:
        """Sum pairs; all but the last call must bring a multiple of ``BLOCK``."""
        rows = 1 + baseline_km.size
        if rows > len(self._sum):
            more = ((0, rows - len(self._sum)), (0, 0))
            self._sum, self._carry = np.pad(self._sum, more), np.pad(self._carry, more)
        blocks = -(-e_nu.size // BLOCK)
        if blocks and (self._buffer.shape[1] != rows or len(self._buffer) < min(blocks, ROUND)):
            self._buffer = np.empty((min(blocks, ROUND), rows, self._bins))
        for first in range(0, blocks, ROUND):
            chosen = range(first, min(first + ROUND, blocks))

            def one(k: int, first: int = first) -> None:
                part = slice(k * BLOCK, (k + 1) * BLOCK)
                _block(
                    e_nu[part], core[part], bins[part], baseline_km, self._share, self._p, self._potential,
                    self._buffer[k - first],
                )  # fmt: skip

            if self._pool is None or blocks == 1:
                for k in chosen:
                    one(k)
            else:
                list(self._pool.map(one, chosen))
            for k in chosen:
                self._gather(self._buffer[k - first])

    def _gather(self, block: np.ndarray) -> None:
        """Compensated sum (A. Neumaier, Z. Angew. Math. Mech. 54, 39 (1974))."""
        total = self._sum + block
        larger = np.abs(self._sum) >= np.abs(block)
        self._carry += np.where(larger, (self._sum - total) + block, (block - total) + self._sum)
        self._sum = total

    def sums(self, order: np.ndarray, scale: float) -> _Sums:
        """The result, with the core that came k-th in row ``1 + order[k]``."""
        both = self._sum + self._carry
        channels = np.zeros((1 + order.size, self._bins))
        channels[1 + order.astype(int)] = both[1:]
        channels[0] = np.sum(channels[1:], axis=0)
        channels *= scale
        channels.setflags(write=False)
        errors = scale * np.sqrt(both[0])
        return _Sums(channels, errors)


# ---------------------------------------------------------------- the loop over pairs (numba)

# π/2 in three parts of 33 bits and the polynomials of sine and cosine up to π/4: fdlibm (Sun Microsystems, 1993).
_PI_2_A, _PI_2_B, _PI_2_C = 1.57079632673412561417, 6.07710050630396597660e-11, 2.02226624871116645580e-21
_TWO_OVER_PI = 0.63661977236758134308
_S1, _S2, _S3 = -1.66666666666666324348e-01, 8.33333333332248946124e-03, -1.98412698298579493134e-04
_S4, _S5, _S6 = 2.75573137070700676789e-06, -2.50507602534068634195e-08, 1.58969099521155010221e-10
_C1, _C2, _C3 = 4.16666666666666019037e-02, -1.38888888888741095749e-03, 2.48015872894767294178e-05
_C4, _C5, _C6 = -2.75573143513906633035e-07, 2.08757232129817482790e-09, -1.13596475577881948265e-11


@njit
def _sine(x):  # type: ignore[no-untyped-def]
    """sin² x and sin x cos x to rounding, without a branch: several pairs go through one instruction."""
    k = np.floor(x * _TWO_OVER_PI + 0.5)
    r = ((x - k * _PI_2_A) - k * _PI_2_B) - k * _PI_2_C
    z = r * r
    s = r + r * z * (_S1 + z * (_S2 + z * (_S3 + z * (_S4 + z * (_S5 + z * _S6)))))
    c = 1.0 - 0.5 * z + z * z * (_C1 + z * (_C2 + z * (_C3 + z * (_C4 + z * (_C5 + z * _C6)))))
    odd = k - 2.0 * np.floor(0.5 * k)
    sign = 1.0 - 2.0 * odd
    return odd + sign * (s * s), sign * (s * c)


@njit
def _eigensystem(a, w1, w2, w3, d21, d31):  # type: ignore[no-untyped-def]
    """:func:`nuebar.physics.oscillation.eigensystem`: products of weights and two splittings, without a branch."""
    delta = 0.0
    for _ in range(3):
        delta = -a * w3 / (1.0 + a * (w1 / (d31 + delta) + w2 / (d31 + delta - d21)))
    l3 = d31 + delta
    total = d21 - a - delta
    product = -a * d21 * w1 * d31 / l3
    gap = np.sqrt(total * total - 4.0 * product)
    large = 0.5 * (total + np.copysign(gap, total))
    small = product / large
    l1 = small if total >= 0.0 else large
    l2 = large if total >= 0.0 else small
    g31, g32 = l3 - l1, l3 - l2
    m1 = (w1 * (l1 - d21) * (l1 - d31) + l1 * (w2 * (l1 - d31) + w3 * (l1 - d21))) / (gap * g31)
    m3 = ((w1 * (l3 - d21) + w2 * l3) * delta + w3 * l3 * (l3 - d21)) / (g31 * g32)
    m2 = 1.0 - m1 - m3
    return m1 * m2, m1 * m3, m2 * m3, gap, g31


@njit
def _block(e_nu, core, bins, baseline, share, p, potential, out):  # type: ignore[no-untyped-def]
    """Row 0: Σ w² of every bin; row 1 + c: Σ w of the pairs of core c, or of the share of core c in all pairs."""
    s12, s13, d21, d31 = p[0], p[1], p[2], p[3]
    w1, w2, w3 = (1.0 - s13) * (1.0 - s12), (1.0 - s13) * s12, s13
    out[:] = 0.0
    mixing = np.empty((5, PART))  # v_21, v_31, v_32 and two splittings
    mixing[0], mixing[1], mixing[2], mixing[3], mixing[4] = w1 * w2, w1 * w3, w2 * w3, d21, d31
    phase, weight, whole = np.empty(PART), np.empty(PART), np.empty(PART)
    for start in range(0, e_nu.size, PART):
        n = min(PART, e_nu.size - start)
        e, b, c = e_nu[start : start + n], bins[start : start + n], core[start : start + n]
        if potential != 0.0:
            for i in range(n):
                m = _eigensystem(potential * e[i], w1, w2, w3, d21, d31)
                mixing[0, i], mixing[1, i], mixing[2, i], mixing[3, i], mixing[4, i] = m
        if share.size == 0:
            for i in range(n):
                phase[i] = PHASE_per_eV2_km_MeV * baseline[c[i]] / e[i]
            _survival(mixing, phase, n, whole)
            for i in range(n):
                out[1 + c[i], b[i]] += whole[i]
        else:
            whole[:] = 0.0
            for k in range(share.size):
                for i in range(n):
                    phase[i] = PHASE_per_eV2_km_MeV * baseline[k] / e[i]
                _survival(mixing, phase, n, weight)
                for i in range(n):
                    whole[i] += share[k] * weight[i]
                    out[1 + k, b[i]] += share[k] * weight[i]
        for i in range(n):
            out[0, b[i]] += whole[i] * whole[i]


@njit
def _survival(mixing, phase, n, out):  # type: ignore[no-untyped-def]
    """P = 1 - 4 Σ v_q sin² φ_q; φ_32 = φ_31 - φ_21 by the addition formula."""
    for i in range(n):
        solar, turn = _sine(phase[i] * mixing[3, i])
        fast, sway = _sine(phase[i] * mixing[4, i])
        slow = fast * (1.0 - solar) + (1.0 - fast) * solar - 2.0 * sway * turn
        out[i] = 1.0 - 4.0 * (mixing[0, i] * solar + mixing[1, i] * fast + mixing[2, i] * slow)
