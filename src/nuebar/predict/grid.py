"""Spectra calculated once on a grid of oscillation parameters, kept on disk and interpolated.

The second of the three ways that Y. Malyshkin (CHEP 2024, "Novel Fitting Approach Based on a Neural Network for
JUNO") weighs against each other, as a predictor of its own: a tensor grid of the four parameters in one raw file
of float32 that is mapped into memory, and one JSON file beside it that says what the numbers are.

Interpolation is a product of one-dimensional ones, ``order`` 1 (linear) or 3 (Lagrange's cubic through the four
nearest nodes); its weights are polynomials, so derivatives are analytic. A spectrum is a polynomial of second degree
in sin²θ12 and in sin²θ13 (P = 1 - 4 Σ w_i w_j sin²Δ_ij, w = (c13² c12², c13² s12², s13²)): three nodes are exact
there, and an axis of n nodes is interpolated with the degree min(order, n - 1).
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.io.files import output_folder, read_json, write_json
from nuebar.io.results import versions
from nuebar.kernels import njit
from nuebar.parameters import OSCILLATION
from nuebar.predict.batch import BatchHarmonic
from nuebar.predict.box import PHYSICS, Box, Provenance, check_inside, check_parameters, physics_vector
from nuebar.predict.harmonic import HarmonicPredictor
from nuebar.predict.smooth import with_cached_derivatives

__all__ = ["AccessTimes", "Axis", "GridPlan", "GridPredictor", "access_times", "build_grid", "load_grid", "points_for"]

FORMAT = 1
ORDERS = (1, 3)
SPECTRA, DESCRIPTION = "spectra.f32", "grid.json"
UNFINISHED, PLAN = "spectra.part.f32", "grid.part.json"
SLAB_BYTES = 64 * 2**20  # written, flushed and noted at once: what an interruption may cost
MAX_BYTES = 50e9
READ_AHEAD_BYTES = 256 * 2**20  # smaller files are read into memory, in the background, when they are opened
SIGNIFICANT = 1e-4  # of the largest bin: below it a relative error says nothing
MOST_POINTS = 2049
CHUNK = 128
# Where in a cell a polynomial of this degree through even nodes is farthest from a smooth function (first cells).
WORST_PLACES = {1: (0.5,), 2: (0.42, 0.58), 3: (0.38, 0.62)}

Progress = Callable[[str, int, int], None]
VERIFIED_BYTES = 200_000_000  # read in a second


@dataclass(frozen=True)
class Axis:
    """Even nodes of one parameter, both ends included.

    Attributes:
        name: The parameter.
        low: First node.
        high: Last node.
        points: Number of nodes, at least 2.
    """

    name: str
    low: float
    high: float
    points: int

    def __post_init__(self) -> None:
        """Refuse limits that are not finite and rising, and fewer than two nodes."""
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise NuebarError(f"axis {self.name!r}: expected finite low < high, got {self.low} and {self.high}")
        if not (isinstance(self.points, int) and self.points >= 2):
            raise NuebarError(f"axis {self.name!r}: expected a whole number of points from 2, got {self.points!r}")

    @property
    def step(self) -> float:
        """Distance of neighbouring nodes."""
        return (self.high - self.low) / (self.points - 1)

    @property
    def nodes(self) -> np.ndarray:
        """Shape ``(points,)``."""
        return np.linspace(self.low, self.high, self.points)

    def degree(self, order: int) -> int:
        """Degree of the interpolating polynomial along this axis."""
        return min(order, self.points - 1)


class Spectra:
    """The mapped file. Two predictors are of one compiled program only if they share it."""

    def __init__(self, path: Path, shape: tuple[int, ...]):
        self.path = path
        self.mapped = np.memmap(path, dtype="<f4", mode="r", shape=shape)
        self.values = self.mapped.view(np.ndarray)
        if hasattr(mmap, "MADV_RANDOM"):
            if self.mapped.nbytes < READ_AHEAD_BYTES:
                self._advise(mmap.MADV_WILLNEED)
            # Nodes of one cell lie far apart: pages read along with them would be read for nothing.
            self._advise(mmap.MADV_RANDOM)

    def _advise(self, how: int) -> None:
        self.mapped._mmap.madvise(how)  # type: ignore[attr-defined]

    def corners(self, start: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
        """A copy of the nodes from ``start``, shape ``(*leading, *sizes, bins)`` for ``start`` of ``(*leading, 4)``."""
        rows = np.asarray(start).reshape(-1, 4)
        out = np.empty((len(rows), *sizes, self.values.shape[-1]), dtype=np.float32)
        for k, row in enumerate(rows):
            out[k] = self.values[tuple(slice(i, i + n) for i, n in zip(row, sizes, strict=True))]
        return out.reshape(*np.shape(start)[:-1], *sizes, self.values.shape[-1])

    def forget(self) -> bool:
        """Drop the file from this process and the page cache; False where the system cannot."""
        if not (hasattr(os, "posix_fadvise") and hasattr(mmap, "MADV_DONTNEED")):
            return False
        self._advise(mmap.MADV_DONTNEED)
        with open(self.path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return True


class GridPredictor(eqx.Module):
    """Interpolation between spectra on disk, in vacuum.

    With ``order`` 1 first derivatives jump at the nodes and pure second derivatives are zero; with 3 the jumps are
    of third order in the step.

    Attributes:
        axes: The four axes, in the order of :data:`nuebar.parameters.OSCILLATION`.
        order: 1 or 3.
        edges_MeV: Bins of reconstructed energy, ``bins + 1`` numbers.
        provenance: What it was built from.
        spectra: The mapped file.
        flat: Counts per bin without oscillations.
    """

    axes: tuple[Axis, ...] = eqx.field(static=True)
    order: int = eqx.field(static=True)
    edges_MeV: tuple[float, ...] = eqx.field(static=True)
    provenance: Provenance = eqx.field(static=True)
    spectra: Spectra = eqx.field(static=True)
    flat: Array

    @property
    def name(self) -> str:
        """How the predictor is called in results and on the command line."""
        return "grid"

    @property
    def edges(self) -> np.ndarray:
        """Bins of reconstructed energy in MeV, shape ``(bins + 1,)``."""
        return np.array(self.edges_MeV)

    @property
    def box(self) -> Box:
        """Ends of the axes."""
        return {a.name: (a.low, a.high) for a in self.axes}

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """The four oscillation parameters."""
        return OSCILLATION

    @property
    def core_names(self) -> tuple[str, ...]:
        """Cores cannot be told apart."""
        return ()

    @property
    def nbytes(self) -> int:
        """Size of the spectra on disk."""
        return int(self.spectra.values.nbytes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Nodes that enter one interpolation, along each axis."""
        return tuple(a.degree(self.order) + 1 for a in self.axes)

    def predict(self, parameters: Mapping[str, ArrayLike]) -> Array:
        """Expected signal counts per bin.

        Args:
            parameters: The four oscillation parameters by name.

        Returns:
            Counts, shape ``(bins,)``.

        Raises:
            NuebarError: A parameter outside the grid, unknown or missing.
        """
        check_parameters(parameters, self.parameter_names, OSCILLATION)
        self.check(parameters)
        return _predict(self, physics_vector(parameters))

    def check(self, parameters: Mapping[str, ArrayLike]) -> None:
        """Refuse parameters outside the grid, and matter (concrete values only)."""
        check_inside(parameters, self.box, self.name)
        density = parameters.get(PHYSICS[-1], 0.0)
        if not isinstance(density, jax.core.Tracer) and np.any(np.asarray(density) != 0.0):
            raise NuebarError(
                f"parameter {PHYSICS[-1]!r}: expected 0 (the grid predictor holds vacuum oscillations), got {density}; "
                "use the harmonic predictor"
            )

    def channels(self, p: ArrayLike) -> Array:
        """Counts of all cores together, shape ``(1, bins)``; beyond the ends of an axis it extrapolates.

        Args:
            p: The four numbers of :attr:`parameter_names`; what follows them is not read.
        """
        return _channels(self, jnp.asarray(p, dtype=float)[:4])[None]

    def unoscillated(self) -> Array:
        """Counts per bin without oscillations."""
        return self.flat

    def batch(self, parameters: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Counts per bin of many rows of parameters in one compiled loop, without gradients.

        Args:
            parameters: sin²θ12, sin²θ13, Δm²21, Δm²31 in columns, shape ``(n, 4)``.
            out: float32 buffer of shape ``(n, bins)`` to fill; a fresh one by default.

        Returns:
            The buffer.

        Raises:
            NuebarError: A row outside the grid or not finite.
        """
        p = np.ascontiguousarray(parameters, dtype=np.float64)
        if p.ndim != 2 or p.shape[1] != 4 or not np.all(np.isfinite(p)):
            raise NuebarError(f"expected finite parameters of shape (n, 4), got {p.shape}")
        low, high, step = (np.array([getattr(a, field) for a in self.axes]) for field in ("low", "high", "step"))
        outside = (p < low) | (p > high)
        for row, k in np.argwhere(outside) if outside.any() else ():
            check_inside({OSCILLATION[k]: p[row, k]}, self.box, self.name)  # which forgives a rounding
        out = np.empty((len(p), self.spectra.values.shape[-1]), dtype=np.float32) if out is None else out
        _interpolate(self.spectra.values, p, low, step, np.array(self.sizes), out)
        return out


# ---------------------------------------------------------------- evaluation


def _channels(predictor: GridPredictor, p: Array) -> Array:
    low, step = (jnp.array([getattr(a, field) for a in predictor.axes]) for field in ("low", "step"))
    last = jnp.array([a.points - n for a, n in zip(predictor.axes, predictor.sizes, strict=True)])
    shift = jnp.array([(n - 2) // 2 for n in predictor.sizes])
    # The nodes that are read do not move under differentiation: inside a cell the weights alone depend on p.
    cell = jnp.floor(jax.lax.stop_gradient((p - low) / step)).astype(int)
    start = jnp.clip(cell - shift, 0, last)
    shape = (*predictor.sizes, len(predictor.edges_MeV) - 1)
    corners = jax.pure_callback(
        lambda at: predictor.spectra.corners(at, predictor.sizes),
        jax.ShapeDtypeStruct(shape, np.float32),
        start,
        vmap_method="broadcast_all",
    )
    return _blend((corners, low, step, start.astype(p.dtype)), p)


@with_cached_derivatives
def _blend(constants: tuple[Array, Array, Array, Array], p: Array) -> Array:
    """Σ over the fetched nodes of the product of Lagrange's weights, shape ``(bins,)``."""
    corners, low, step, start = constants
    position = (p - low) / step - start
    weights = jnp.ones(())
    for k, n in enumerate(corners.shape[:4]):
        weights = jnp.tensordot(weights, _lagrange(position[k], n), axes=0)
    return weights.ravel() @ corners.reshape(-1, corners.shape[-1]).astype(p.dtype)


def _lagrange(t: ArrayLike, n: int) -> Array:
    """Weights of the nodes 0 … n-1 at ``t``, shape ``(n,)``."""
    return jnp.stack([math.prod((t - k) / (j - k) for k in range(n) if k != j) * jnp.ones(()) for j in range(n)])


@jax.jit
def _predict(predictor: GridPredictor, p: Array) -> Array:
    return predictor.channels(p)[0]


@njit
def _interpolate(values, parameters, low, step, sizes, out):  # type: ignore[no-untyped-def]
    """The same for rows of parameters; sums in double precision."""
    weights, start = np.ones((4, 4)), np.empty(4, dtype=np.int64)
    total = np.empty(values.shape[4])
    for row in range(parameters.shape[0]):
        for a in range(4):
            n = sizes[a]
            u = (parameters[row, a] - low[a]) / step[a]
            start[a] = min(max(int(np.floor(u)) - (n - 2) // 2, 0), values.shape[a] - n)
            t = u - start[a]
            for j in range(n):
                weights[a, j] = 1.0
                for k in range(n):
                    if k != j:
                        weights[a, j] *= (t - k) / (j - k)
        total[:] = 0.0
        for i in range(sizes[0]):
            for j in range(sizes[1]):
                for k in range(sizes[2]):
                    for m in range(sizes[3]):
                        w = weights[0, i] * weights[1, j] * weights[2, k] * weights[3, m]
                        node = values[start[0] + i, start[1] + j, start[2] + k, start[3] + m]
                        for b in range(total.size):
                            total[b] += w * node[b]
        for b in range(total.size):
            out[row, b] = total[b]


# ---------------------------------------------------------------- how many points


@dataclass(frozen=True)
class GridPlan:
    """How large a grid an accuracy needs.

    Attributes:
        points: Nodes along each axis, in the order of :data:`nuebar.parameters.OSCILLATION`.
        order: Order of the interpolation.
        errors: Largest relative error of a significant bin that each axis makes alone.
        accuracy: Their sum, which bounds the error of the whole where it is small.
        spectra: Number of nodes.
        nbytes: Size of the file.
    """

    points: tuple[int, ...]
    order: int
    errors: tuple[float, ...]
    accuracy: float
    spectra: int
    nbytes: int


def points_for(
    harmonic: HarmonicPredictor, box: Box, accuracy: float = 1e-3, order: int = 1, *, bases: int = 24, seed: int = 0
) -> GridPlan:
    """The smallest grid whose interpolation is accurate, by measuring every axis on its own.

    Along each axis the interpolation is compared with the predictor at the worst places of all cells, the other
    parameters being at the corners of the box and at random; among all combinations of the measured numbers of
    points whose errors add up to at most ``accuracy`` the one of least size is taken.

    Args:
        harmonic: What the grid will hold, in vacuum and double precision.
        box: Low and high of the four oscillation parameters.
        accuracy: Largest relative error wanted in a bin above 10⁻⁴ of the largest.
        order: 1 or 3.
        bases: Random settings of the other parameters, beside the corners.
        seed: Of these.

    Returns:
        The plan.

    Raises:
        NuebarError: The accuracy is out of reach with 2049 points along an axis.
    """
    _check_order(order)
    if not 0.0 < accuracy < 1.0:
        raise NuebarError(f"accuracy: expected a relative error above 0 and below 1, got {accuracy}")
    ends = _ends(harmonic, box)
    exact = _in_chunks(harmonic)
    rng = np.random.default_rng(seed)
    tables = []
    for k, name in enumerate(OSCILLATION):
        others = np.concatenate([rng.uniform(ends[:, 0], ends[:, 1], (bases, 4)), np.array(list(product(*ends)))])
        others = np.unique(np.insert(np.delete(others, k, axis=1), k, 0.0, axis=1), axis=0)
        table: dict[int, float] = {}
        n = 2
        while n <= MOST_POINTS:
            table[n] = _axis_error(exact, others, Axis(name, float(ends[k, 0]), float(ends[k, 1]), n), k, order)
            if table[n] < accuracy / 12.0:
                break
            # The error falls with the power order + 1: while it is far too large, go most of the way at once.
            ahead = (table[n] / accuracy) ** (1.0 / (order + 1)) if n > order else 1.0
            n = max(n + 1, round(n * max(1.1, 0.8 * min(ahead, 8.0))))
        if not min(table.values()) < accuracy / 4.0:
            raise NuebarError(
                f"accuracy {accuracy:g}: {name!r} would need more than {MOST_POINTS} points with order {order}; "
                "allow a larger error, narrow the box or take order 3"
            )
        tables.append({n: e for n, e in table.items() if e <= accuracy})
    points = min(
        (c for c in product(*tables) if sum(t[n] for t, n in zip(tables, c, strict=True)) <= accuracy),
        key=lambda c: (math.prod(c), sum(t[n] for t, n in zip(tables, c, strict=True))),
    )
    errors = tuple(t[n] for t, n in zip(tables, points, strict=True))
    size = math.prod(points) * 4 * (len(harmonic.edges_MeV) - 1)
    return GridPlan(points, order, errors, sum(errors), math.prod(points), size)


def _in_chunks(harmonic: HarmonicPredictor) -> Callable[[np.ndarray], np.ndarray]:
    """Spectra of rows of parameters in double precision, a fixed number at a time so that one program is compiled."""
    several = jax.jit(jax.vmap(lambda p: harmonic.predict(dict(zip(OSCILLATION, p, strict=True)))))

    def spectra(rows: np.ndarray) -> np.ndarray:
        padded = np.resize(rows, (-(-len(rows) // CHUNK), CHUNK, 4))
        return np.concatenate([np.asarray(several(chunk)) for chunk in padded])[: len(rows)]

    return spectra


def _axis_error(exact: Callable[[np.ndarray], np.ndarray], others: np.ndarray, axis: Axis, k: int, order: int) -> float:
    """Largest relative error of a significant bin along one axis, over the settings of the others."""
    degree = axis.degree(order)
    at = (np.arange(axis.points - 1)[:, None] + np.array(WORST_PLACES[degree])).ravel()
    start = np.clip(np.floor(at).astype(int) - (degree - 1) // 2, 0, axis.points - 1 - degree)
    weights = [
        np.prod([(at - start - i) / (j - i) for i in range(degree + 1) if i != j], axis=0) for j in range(degree + 1)
    ]
    places = np.concatenate([axis.nodes, axis.low + axis.step * at])
    worst = 0.0
    for base in others:
        rows = np.tile(base, (places.size, 1))
        rows[:, k] = places
        spectra = exact(rows)
        nodes, truth = spectra[: axis.points], spectra[axis.points :]
        ours = sum(w[:, None] * nodes[start + j] for j, w in enumerate(weights))
        error = np.abs(ours - truth) / np.fmax(truth, SIGNIFICANT * truth.max(axis=1, keepdims=True))
        worst = max(worst, float(error.max()))
    return worst


def _check_order(order: int) -> None:
    if order not in ORDERS:
        raise NuebarError(f"order of interpolation: expected 1 or 3, got {order!r}")


def _ends(harmonic: HarmonicPredictor, box: Box) -> np.ndarray:
    """Low and high of the four parameters, shape ``(4, 2)``, checked against the predictor."""
    if set(box) != set(OSCILLATION):
        raise NuebarError(f"box of the grid: expected limits of {', '.join(OSCILLATION)}, got {', '.join(box)}")
    axes = [Axis(name, float(box[name][0]), float(box[name][1]), 2) for name in OSCILLATION]
    for corner in product(*((a.low, a.high) for a in axes)):
        parameters = dict(zip(OSCILLATION, corner, strict=True))
        check_parameters(parameters, OSCILLATION, OSCILLATION)
        harmonic.check(parameters)
    return np.array([[a.low, a.high] for a in axes])


# ---------------------------------------------------------------- building


def build_grid(
    harmonic: HarmonicPredictor,
    box: Box,
    points: tuple[int, ...],
    folder: str | os.PathLike[str],
    *,
    order: int = 1,
    progress: Progress | None = None,
    max_bytes: float = MAX_BYTES,
) -> GridPredictor:
    """Calculate every node and write the two files; an interrupted call goes on where it was.

    Args:
        harmonic: A vacuum predictor (``matter=False``).
        box: Low and high of the four oscillation parameters.
        points: Nodes along each axis, in the order of :data:`nuebar.parameters.OSCILLATION`.
        folder: Where to write; a finished grid of the same plan in it is read instead.
        order: Order of interpolation that the description recommends.
        progress: Called as ``progress("grid", done, total)`` with numbers of spectra.
        max_bytes: Largest file wanted.

    Returns:
        The predictor, reading from the folder.

    Raises:
        NuebarError: The file would be too large for ``max_bytes`` or the disk, or the folder holds another grid.
    """
    _check_order(order)
    if len(points) != 4:
        raise NuebarError(f"points of the grid: expected four numbers ({', '.join(OSCILLATION)}), got {len(points)}")
    ends = _ends(harmonic, box)
    axes = [Axis(n, float(a), float(b), p) for n, (a, b), p in zip(OSCILLATION, ends, points, strict=True)]
    evaluate, bins = BatchHarmonic(harmonic), len(harmonic.edges_MeV) - 1
    total, row = math.prod(points), 4 * bins
    if total * row > max_bytes:
        raise NuebarError(
            f"a grid of {' x '.join(map(str, points))} spectra of {bins} bins needs {total * row / 1e9:.3g} GB, more "
            f"than the {max_bytes / 1e9:.3g} GB allowed; take fewer points or order 3, or raise max_bytes"
        )
    out = output_folder(folder)
    plan: dict[str, Any] = {
        "format": FORMAT,
        "kind": "grid",
        "axes": {a.name: {"low": a.low, "high": a.high, "points": a.points} for a in axes},
        "source": _digest(*(np.asarray(x) for x in jax.tree.leaves(harmonic.total))),
        "slab_spectra": max(1, SLAB_BYTES // row),
        "edges_MeV": [float(e) for e in harmonic.edges_MeV],
    }
    if (out / DESCRIPTION).exists():
        _same_plan(out / DESCRIPTION, plan)
        return load_grid(out, order=order)
    digests = _unfinished(out, plan, row)
    missing = total * row - len(digests) * plan["slab_spectra"] * row
    if missing > (free := shutil.disk_usage(out).free):
        raise NuebarError(
            f"{out}: the grid needs {missing / 1e9:.3g} GB more, the disk has {free / 1e9:.3g} GB free; "
            "make room, take fewer points or choose another place"
        )
    _write_slabs(evaluate, axes, out, plan, digests, progress)
    os.replace(out / UNFINISHED, out / SPECTRA)
    description = plan | {
        "order": order,
        "digests": digests,
        "unoscillated": np.asarray(harmonic.unoscillated()).tolist(),
        "provenance": {**harmonic.provenance, "predictor": "grid"},
        "versions": versions(),
    }
    write_json(out / DESCRIPTION, description | {"hash": _hash(description)})
    (out / PLAN).unlink(missing_ok=True)
    return load_grid(out)


def _write_slabs(
    evaluate: BatchHarmonic,
    axes: list[Axis],
    out: Path,
    plan: dict[str, Any],
    digests: list[str],
    progress: Progress | None,
) -> None:
    """Append the slabs that are missing; each is on the disk before the plan notes it."""
    shape, nodes = tuple(a.points for a in axes), [a.nodes for a in axes]
    total, slab, bins = math.prod(shape), plan["slab_spectra"], len(plan["edges_MeV"]) - 1
    buffer = np.empty((min(slab, total), bins), dtype="<f4")
    try:
        with open(out / UNFINISHED, "ab") as file:
            file.truncate(len(digests) * slab * bins * 4)
            for start in range(len(digests) * slab, total, slab):
                index = np.unravel_index(np.arange(start, min(start + slab, total)), shape)
                rows = np.stack([x[i] for x, i in zip(nodes, index, strict=True)], axis=1)
                spectra = evaluate(rows, buffer[: len(rows)])
                if not np.all(np.isfinite(spectra)):
                    raise NuebarError(f"{out}: the predictor gave a spectrum that is not finite; check its tables")
                file.write(spectra.data)
                file.flush()
                os.fsync(file.fileno())
                digests.append(_digest(spectra))
                write_json(out / PLAN, plan | {"digests": digests})
                if progress is not None:
                    progress("grid", start + len(rows), total)
    except OSError as error:
        raise NuebarError(f"{out / UNFINISHED}: cannot be written ({error.strerror}); make room or move it") from error


def _unfinished(out: Path, plan: Mapping[str, Any], row: int) -> list[str]:
    """Digests of the finished slabs in a folder, after making sure that they belong to this plan."""
    if not (out / PLAN).exists():
        write_json(out / PLAN, {**plan, "digests": []})
        return []
    digests = _same_plan(out / PLAN, plan).get("digests")
    if (out / SPECTRA).exists():  # interrupted between its last slab and its description
        os.replace(out / SPECTRA, out / UNFINISHED)
    here = (out / UNFINISHED).stat().st_size if (out / UNFINISHED).exists() else 0
    return [str(d) for d in digests][: here // (plan["slab_spectra"] * row)] if isinstance(digests, list) else []


def _same_plan(path: Path, plan: Mapping[str, Any]) -> dict[str, Any]:
    found = read_json(path)
    different = [key for key, value in plan.items() if found.get(key) != value]
    if different:
        raise NuebarError(
            f"{path}: the folder holds another grid (different: {', '.join(different)}); choose another folder or "
            "remove that one"
        )
    return found


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _hash(description: Mapping[str, Any]) -> str:
    """Of everything but the hash itself, whatever the order of the keys."""
    plain = {key: value for key, value in description.items() if key != "hash"}
    return hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=16).hexdigest()


# ---------------------------------------------------------------- loading


def load_grid(folder: str | os.PathLike[str], *, order: int | None = None, verify: bool | None = None) -> GridPredictor:
    """Open a grid; nothing but the description is read before the first spectrum is asked for.

    Args:
        folder: As written by :func:`build_grid`.
        order: 1 or 3; the recommended one by default.
        verify: Read all spectra and compare them with their digests; by default those of grids up to 200 MB.

    Raises:
        NuebarError: A file is missing, cut short, of another format or altered.
    """
    path = Path(folder) / DESCRIPTION
    d = read_json(path)
    if d.get("kind") != "grid" or d.get("format") != FORMAT:
        raise NuebarError(
            f"{path}: expected a grid of format {FORMAT}, got kind {d.get('kind')!r}, format {d.get('format')!r}; "
            "build it again"
        )
    try:
        axes = tuple(
            Axis(n, float(d["axes"][n]["low"]), float(d["axes"][n]["high"]), d["axes"][n]["points"])
            for n in OSCILLATION
        )
        edges = tuple(float(e) for e in d["edges_MeV"])
        flat = np.array(d["unoscillated"], dtype=float)
        slab, digests, chosen = int(d["slab_spectra"]), list(d["digests"]), int(d["order"]) if order is None else order
        provenance = Provenance({str(k): str(v) for k, v in d["provenance"].items()})
    except NuebarError as error:
        raise NuebarError(f"{path}: {error}; build the grid again") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NuebarError(
            f"{path}: the description is incomplete ({type(error).__name__}: {error}); build the grid again"
        ) from error
    if d.get("hash") != _hash(d) or flat.shape != (len(edges) - 1,):
        raise NuebarError(f"{path}: the description does not match its hash: it was altered; build the grid again")
    _check_order(chosen)
    shape = (*(a.points for a in axes), flat.size)
    spectra = _mapped(Path(folder) / SPECTRA, shape)
    if verify or (verify is None and 4 * math.prod(shape) <= VERIFIED_BYTES):
        rows = spectra.values.reshape(-1, flat.size)
        for k, expected in enumerate(digests):
            if _digest(rows[k * slab : (k + 1) * slab]) != expected:
                raise NuebarError(f"{spectra.path}: slab {k} does not match its digest; build the grid again")
    return GridPredictor(axes, chosen, edges, provenance, spectra, jnp.asarray(flat))


def _mapped(path: Path, shape: tuple[int, ...]) -> Spectra:
    expected = 4 * math.prod(shape)
    if not path.is_file():
        raise NuebarError(f"{path}: expected the spectra of the grid, found no such file; copy it or build it again")
    if (size := path.stat().st_size) != expected:
        raise NuebarError(f"{path}: expected {expected} bytes, got {size}: the file is cut short or of another grid")
    return Spectra(path, shape)


# ---------------------------------------------------------------- how fast


@dataclass(frozen=True)
class AccessTimes:
    """Times to get a spectrum at random parameters, in microseconds.

    Attributes:
        nbytes: Size of the file.
        cold_us: Median of one spectrum with the file dropped from the page cache before each (-1 where the system
            cannot drop it).
        warm_us: Median of one spectrum with its pages in memory.
        gradient_us: Median of one spectrum with its four derivatives through JAX, pages in memory.
        batch_us: Per spectrum of a batch, pages in memory.
    """

    nbytes: int
    cold_us: float
    warm_us: float
    gradient_us: float
    batch_us: float

    def record(self) -> dict[str, float]:
        """As a mapping for a report."""
        return asdict(self)


def access_times(predictor: GridPredictor, n: int = 1000, seed: int = 0) -> AccessTimes:
    """Measure the access to a grid.

    Args:
        predictor: The grid.
        n: Random places inside it; a tenth of them (at most 50) are read cold.
        seed: Of the places.

    Returns:
        The times.
    """
    low, high = np.array(list(predictor.box.values())).T
    p = np.random.default_rng(seed).uniform(low, high, (n, 4))
    out = np.empty((n, predictor.spectra.values.shape[-1]), dtype=np.float32)

    def one(k: int) -> object:
        return predictor.batch(p[k : k + 1], out[:1])

    @jax.jit
    def both(x: Array) -> tuple[Array, Array]:
        return predictor.channels(x), jax.jacfwd(predictor.channels)(x)

    one(0), jax.block_until_ready(both(p[0]))  # compiled here
    cold = []
    for k in range(max(1, min(50, n // 10))):
        cold.append(_microseconds(one, k) if predictor.spectra.forget() else -1.0)
    predictor.batch(p, out)
    warm = [_microseconds(one, k) for k in range(n)]
    gradient = [_microseconds(lambda k: jax.block_until_ready(both(p[k])), k) for k in range(min(n, 200))]
    return AccessTimes(
        nbytes=predictor.nbytes,
        cold_us=float(np.median(cold)),
        warm_us=float(np.median(warm)),
        gradient_us=float(np.median(gradient)),
        batch_us=_microseconds(predictor.batch, p, out) / n,
    )


def _microseconds(call: Callable[..., object], *arguments: Any) -> float:
    start = time.perf_counter()
    call(*arguments)
    return 1e6 * (time.perf_counter() - start)
