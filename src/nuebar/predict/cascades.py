"""The reference against changes of the response: stored cascades, the same random numbers, analytic smearing.

Hard bins are noise when the response moves: an event jumps from bin to bin. Here every stored prompt event keeps its
deposits, place and reconstructed vertex (drawn once), and its charge is not drawn at all: the probability of each bin
follows from mean, variance and skewness of the compound Poisson sum of :mod:`nuebar.simulate.light`, with Edgeworth's
first correction to the normal distribution (H. Cramér, Mathematical Methods of Statistics, 1946, section 17.6). So
the spectrum is a smooth function of kB, fC, light yield, extra smearing and scale, and two response points differ by
physics only.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nuebar.config import Experiment, experiment_from_mapping
from nuebar.errors import NuebarError
from nuebar.io.files import read_json
from nuebar.kernels import njit
from nuebar.predict.folded import POINTS, Folded, InverseGrid, empty_table, lagrange_weights, spread
from nuebar.predict.response import ResponsePoint
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.ibd_pool import IbdPool
from nuebar.simulate.light import Electronics
from nuebar.simulate.pool import CascadePool, joined
from nuebar.simulate.random import derive_key, event_counter, normal
from nuebar.simulate.uniformity import UniformityMap, local_light

__all__ = ["Cascades", "Smeared", "smear"]

REACH_sigma = 6.5  # beyond it lie 4e-11 of an event
BLOCKS = 4  # tables that are filled side by side and added in order, whatever the number of threads
VERTEX_SEED = 1772
COLUMNS = ("e_nu_MeV", "core", "seen", "corrected")
LEAST_MeV = 0.05  # as in the reconstruction of the Monte Carlo: no vertex is worse than at this energy
ROOT_2 = math.sqrt(2.0)
PER_ROOT_2PI = 1.0 / math.sqrt(2.0 * math.pi)

Progress = Callable[[str, int, int], None]


class Smeared(NamedTuple):
    """Reconstructed energy of every event as a distribution, shape ``(events,)`` each.

    Attributes:
        mean_MeV: Mean.
        sigma_MeV: Standard deviation.
        skewness: Third standardised moment.
    """

    mean_MeV: np.ndarray
    sigma_MeV: np.ndarray
    skewness: np.ndarray


@dataclass(frozen=True, eq=False)
class Cascades:
    """Prompt events inside the fiducial volume, before light.

    Attributes:
        experiment: Its ``[detector]`` gives light, electronics and maps.
        prompt: Deposits; chunk by chunk sorted by core and energy, so that folding stays in fast memory.
        e_nu_MeV: Neutrino energies, shape ``(events,)``.
        core: Index of the core.
        seen: Light collection at the true place, relative to the centre.
        corrected: What the reconstruction believes at the reconstructed place.
        baseline_km: Distance of every core.
        core_names: Names of the cores.
        scale: Expected un-oscillated counts per event.
        provenance: Where the events come from.
    """

    experiment: Experiment
    prompt: CascadePool
    e_nu_MeV: np.ndarray
    core: np.ndarray
    seen: np.ndarray
    corrected: np.ndarray
    baseline_km: np.ndarray
    core_names: tuple[str, ...]
    scale: float
    provenance: Mapping[str, str]

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        experiment: Experiment | None = None,
        files: slice = slice(None),
        fiducial_radius_m: float | None = None,
        progress: Progress | None = None,
    ) -> Cascades:
        """Read what ``nuebar simulate ibd --cascades`` wrote.

        Args:
            folder: The run folder, or ``ibd-cascades`` in it.
            experiment: Detector to use; the one that was simulated by default.
            files: Which of the files, in their order.
            fiducial_radius_m: Largest reconstructed radius of prompt events; the experiment's own by default.
            progress: Called as ``progress(what, done, total)``.

        Returns:
            The prompt events before light.

        Raises:
            NuebarError: There are no cascades, a file is damaged, or the experiment has no detector.
        """
        place = Path(folder)
        place = place / "ibd-cascades" if (place / "ibd-cascades").is_dir() else place
        paths = sorted(place.glob("chunk-*.safetensors"))[files]
        if not paths:
            raise NuebarError(
                f"{place}: expected cascades (chunk-*.safetensors), found none; make them with 'nuebar simulate ibd "
                "--cascades --out FOLDER'"
            )
        manifest = read_json(place / "stage.json")
        simulated = _simulated(manifest, place)
        experiment = experiment or simulated
        if manifest["config"].get("oscillation") is not None:
            raise NuebarError(f"{place}: expected events without oscillations, got oscillated ones; simulate them anew")

        def pools() -> Iterator[IbdPool]:
            for k, path in enumerate(paths):
                yield IbdPool.load(path)
                if progress is not None:
                    progress("cascades", k + 1, len(paths))

        source = {"seed": str(manifest.get("seed")), "files": f"{paths[0].name} to {paths[-1].name}"}
        return cls.of(pools(), experiment, fiducial_radius_m=fiducial_radius_m, provenance=source)

    @classmethod
    def of(
        cls,
        pools: Iterable[IbdPool],
        experiment: Experiment,
        *,
        fiducial_radius_m: float | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> Cascades:
        """Prompt events of pools of pairs.

        Args:
            pools: From :func:`nuebar.simulate.ibd.ibd_cascades` or files; only one is held at a time.
            experiment: With a ``[detector]`` table.
            fiducial_radius_m: Largest reconstructed radius of prompt events; the experiment's own by default.
            provenance: Where they come from.

        Raises:
            NuebarError: No event is inside of the fiducial volume.
        """
        model = DetectorModel.build(experiment)
        radius = fiducial_radius_m or model.detector.fiducial_radius_m
        parts = [_prepared(p, model, radius, derive_key(VERTEX_SEED, "vertex", k)) for k, p in enumerate(pools)]
        if not parts or not sum(len(p) for p in parts):
            raise NuebarError(f"cascades: expected events inside of {radius:g} m, found none; simulate more")
        e_nu, core, seen, corrected = (np.concatenate([p.columns[n] for p in parts]) for n in COLUMNS)
        baseline = parts[0].metadata["baseline_km"]
        names = {round(c.baseline_km, 6): c.name for c in experiment.reactor.cores}
        return cls(
            experiment,
            joined(parts),
            e_nu,
            core,
            seen,
            corrected,
            baseline,
            tuple(names.get(round(float(b), 6), f"core_{k + 1}") for k, b in enumerate(baseline)),
            1.0,
            {
                **(provenance or {}),
                "cascades": str(len(e_nu)),
                "experiment": experiment.name,
                "fiducial_radius_m": f"{radius:g}",
            },
        )

    def __len__(self) -> int:
        """Number of events."""
        return self.e_nu_MeV.size

    def normalised(self, expected: float) -> Cascades:
        """A copy whose events stand for so many un-oscillated counts in all."""
        return replace(self, scale=expected / len(self))

    def smeared(self, point: ResponsePoint) -> Smeared:
        """Mean, width and skewness of every event at a response point."""
        model = DetectorModel.build(self.experiment, point.light)
        photons = self.prompt.photons(model.light)
        e = model.electronics
        numbers = (point.smear_a, point.smear_b, point.smear_c, point.energy_scale)
        return smear(photons, self.seen, self.corrected, e, model.pe_per_MeV, *numbers)

    def folded(self, point: ResponsePoint, edges_MeV: np.ndarray, *, dm2_eV2: float | None = None) -> Folded:
        """Everything that oscillation parameters need at one response point: exact to 1e-12 for any of them.

        Args:
            point: The response.
            edges_MeV: Bins of reconstructed energy, shape ``(bins + 1,)``.
            dm2_eV2: Largest mass splitting that will be asked for.
        """
        edges = np.ascontiguousarray(edges_MeV, dtype=float)
        largest = {} if dm2_eV2 is None else {"dm2_eV2": dm2_eV2}
        grid = InverseGrid.reaching(float(self.baseline_km.max()), **largest)
        events = self.smeared(point)
        cuts = np.linspace(0, len(self), BLOCKS + 1).astype(int)

        def block(k: int) -> np.ndarray:
            part = slice(cuts[k], cuts[k + 1])
            table = empty_table(self.baseline_km.size, edges.size - 1, grid)
            arrays = [np.ascontiguousarray(x[part]) for x in (*events, self.e_nu_MeV, self.core)]
            _fold(*arrays, edges, grid.low, grid.step, lagrange_weights(POINTS), table)
            return table

        with ThreadPoolExecutor(min(BLOCKS, os.cpu_count() or 1)) as pool:
            table = sum(pool.map(block, range(BLOCKS)))
        about = {**self.provenance, **{n: f"{v:.9g}" for n, v in vars(point).items()}}
        return Folded(
            edges,
            grid,
            self.scale * np.asarray(table),
            self.baseline_km,
            self.core_names,
            self.experiment.matter.electrons_per_nucleon,
            about,
        )

    def covariance(self, point: ResponsePoint, edges_MeV: np.ndarray, survival: np.ndarray | None = None) -> np.ndarray:
        """Covariance of the prediction from the finite number of events: Σ w² p_b p_b', shape ``(bins, bins)``.

        Args:
            point: The response.
            edges_MeV: Bins.
            survival: Survival probability of every event; 1 by default.
        """
        edges = np.ascontiguousarray(edges_MeV, dtype=float)
        weight = np.ones(len(self)) if survival is None else np.ascontiguousarray(survival, dtype=float)
        out = np.zeros((edges.size - 1, edges.size - 1))
        _second_moments(*self.smeared(point), weight, edges, out)
        return self.scale**2 * (out + out.T - np.diag(np.diag(out)))


def smear(
    photons: np.ndarray,
    seen: np.ndarray,
    corrected: np.ndarray,
    electronics: Electronics,
    pe_per_MeV: float,
    a: float = 0.0,
    b: float = 0.0,
    c: float = 0.0,
    scale: float = 0.0,
) -> Smeared:
    """First three moments of the reconstructed energy, from the cumulants of a compound Poisson sum.

    Args:
        photons: Photons of each event, shape ``(events,)``.
        seen: Light collection where they are emitted.
        corrected: The correction where the event is reconstructed.
        electronics: Spread of the charge and dark counts.
        pe_per_MeV: Charge per MeV of the anchor.
        a: Extra smearing, σ² += a²E + b²E² + c².
        b: See ``a``.
        c: See ``a``, in MeV.
        scale: Relative change of the energy.
    """
    mean, sigma, skew = np.empty((3, photons.size))
    _smear(photons, seen, corrected, electronics, pe_per_MeV, a, b, c, scale, mean, sigma, skew)
    return Smeared(mean, sigma, skew)


# ---------------------------------------------------------------- kernels


@njit
def _smear(
    photons: np.ndarray,
    seen: np.ndarray,
    corrected: np.ndarray,
    electronics: Electronics,
    pe_per_MeV: float,
    a: float,
    b: float,
    c: float,
    scale: float,
    mean: np.ndarray,
    sigma: np.ndarray,
    skew: np.ndarray,
) -> None:
    # Moments of one charge, taken as Gaussian around one photo-electron.
    s2 = electronics.charge_sigma**2
    second, third = 1.0 + s2, 1.0 + 3.0 * s2
    for i in range(photons.size):
        unit = 1.0 / (pe_per_MeV * corrected[i])
        pe = photons[i] * electronics.pe_per_photon * seen[i]
        e = pe * unit
        charges = pe + electronics.dark_pe
        variance = charges * second * unit * unit + (electronics.constant * e) ** 2
        variance += a * a * e + b * b * e * e + c * c
        mean[i] = (1.0 + scale) * e
        sigma[i] = (1.0 + scale) * math.sqrt(variance)
        skew[i] = charges * third * unit**3 / variance**1.5


@njit
def _below(edge: float, mean: float, sigma: float, skew: float) -> float:
    """Probability to be reconstructed below an edge."""
    z = (edge - mean) / sigma
    return 0.5 * math.erfc(-z / ROOT_2) - PER_ROOT_2PI * math.exp(-0.5 * z * z) * skew * (z * z - 1.0) / 6.0


@njit
def _bins(mean: float, sigma: float, skew: float, edges: np.ndarray, row: np.ndarray) -> tuple:
    """Probabilities of the bins that an event can reach: first bin, and how many in ``row``."""
    last = edges.size - 1
    low, high = mean - REACH_sigma * sigma, mean + REACH_sigma * sigma
    if high <= edges[0] or low >= edges[last]:
        return 0, 0
    first = max(int(np.searchsorted(edges, low)) - 1, 0)
    n = 0
    before = _below(edges[first], mean, sigma, skew)
    while first + n < last and edges[first + n] < high:
        after = _below(edges[first + n + 1], mean, sigma, skew)
        row[n] = after - before
        before = after
        n += 1
    return first, n


@njit
def _fold(
    mean: np.ndarray,
    sigma: np.ndarray,
    skew: np.ndarray,
    e_nu: np.ndarray,
    core: np.ndarray,
    edges: np.ndarray,
    low: float,
    step: float,
    denominators: np.ndarray,
    table: np.ndarray,
) -> None:
    points = denominators.size
    weights, row = np.empty(points), np.empty(edges.size)
    for i in range(mean.size):
        first, n = _bins(mean[i], sigma[i], skew[i], edges, row)
        if n == 0:
            continue
        place = (1.0 / e_nu[i] - low) / step
        node = int(place) - points // 2 + 1
        spread(place - node, denominators, weights)
        c = core[i]
        for b in range(n):
            p = row[b]
            for m in range(points):
                table[c, first + b, node + m] += p * weights[m]


@njit
def _second_moments(
    mean: np.ndarray, sigma: np.ndarray, skew: np.ndarray, weight: np.ndarray, edges: np.ndarray, out: np.ndarray
) -> None:
    """Upper triangle of Σ w² p pᵀ."""
    row = np.empty(edges.size)
    for i in range(mean.size):
        first, n = _bins(mean[i], sigma[i], skew[i], edges, row)
        w2 = weight[i] * weight[i]
        for b in range(n):
            p = w2 * row[b]
            for k in range(b, n):
                out[first + b, first + k] += p * row[k]


# ---------------------------------------------------------------- reading


def _simulated(manifest: Mapping[str, object], place: Path) -> Experiment:
    try:
        content = dict(manifest["config"]["experiment"])  # type: ignore[index]
    except (KeyError, TypeError) as error:
        raise NuebarError(f"{place / 'stage.json'}: expected the experiment that was simulated, got none") from error
    source = str(content.pop("source", ""))
    return experiment_from_mapping(content, source=source)


def _prepared(pool: IbdPool, model: DetectorModel, radius_m: float, key: np.uint64) -> CascadePool:
    """Prompt deposits inside the fiducial volume in the order of core and energy, and their columns."""
    c = pool.columns
    seen, corrected, inside = np.empty(len(pool)), np.empty(len(pool)), np.empty(len(pool), np.bool_)
    _places(
        np.ascontiguousarray(c["prompt_m"], dtype=np.float64),
        np.ascontiguousarray(c["prompt_e_dep_MeV"], dtype=np.float64),
        model.uniformity,
        model.detector.vertex_sigma_m,
        radius_m,
        key,
        seen,
        corrected,
        inside,
    )
    kept = np.flatnonzero(inside)
    order = kept[np.lexsort((c["e_nu_MeV"][kept], c["core"][kept]))]
    counts = np.diff(pool.prompt.offsets)[order]
    offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    codes = np.empty(int(offsets[-1]), np.uint16)
    _gather(pool.prompt.codes, pool.prompt.offsets, order, codes)
    columns = dict(zip(COLUMNS, (c["e_nu_MeV"], c["core"], seen, corrected), strict=True))
    columns = {name: column[order] for name, column in columns.items()}
    return CascadePool(codes, offsets, columns, {"baseline_km": pool.baseline_km})


@njit
def _places(
    position_m: np.ndarray,
    e_dep_MeV: np.ndarray,
    uniformity: UniformityMap,
    vertex_sigma_m: float,
    radius_m: float,
    key: np.uint64,
    seen: np.ndarray,
    corrected: np.ndarray,
    inside: np.ndarray,
) -> None:
    """Reconstructed vertices by the deposited energy, so that they do not move with the response."""
    for k in range(e_dep_MeV.size):
        counter = event_counter(k)
        x, y, z = position_m[k, 0], position_m[k, 1], position_m[k, 2]
        seen[k] = local_light(x, y, z, uniformity, False)
        sigma = vertex_sigma_m / math.sqrt(max(e_dep_MeV[k], LEAST_MeV))
        x += sigma * normal(key, counter)
        y += sigma * normal(key, counter + np.uint64(1))
        z += sigma * normal(key, counter + np.uint64(2))
        corrected[k] = local_light(x, y, z, uniformity, True)
        inside[k] = x * x + y * y + z * z < radius_m * radius_m


@njit
def _gather(codes: np.ndarray, offsets: np.ndarray, order: np.ndarray, out: np.ndarray) -> None:
    n = 0
    for k in order:
        for i in range(offsets[k], offsets[k + 1]):
            out[n] = codes[i]
            n += 1
