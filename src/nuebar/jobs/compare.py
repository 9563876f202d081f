"""The job of ``nuebar predict compare``: every predictor from one Monte Carlo in one table.

Each row is built, timed and held against reweighting (predictors from pairs) or against the folded cascades
(surrogate) at test points that no training has seen, and kept as a file of its own: the same command continues where
it was interrupted, and measures nothing twice.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nuebar import __version__
from nuebar.config import Experiment, show
from nuebar.errors import NuebarError
from nuebar.io.event_paths import find_files
from nuebar.io.files import atomic_write_text, output_folder, read_json, read_text, write_json
from nuebar.io.models import load_model
from nuebar.jobs.record import write_claim
from nuebar.parameters import OSCILLATION
from nuebar.predict.accuracy import NORM, AccuracyMeter, folded_spectra, relative_errors
from nuebar.predict.batch import BatchHarmonic
from nuebar.predict.box import Box, Provenance
from nuebar.predict.cascades import Cascades
from nuebar.predict.compiled import CompiledHarmonic
from nuebar.predict.folded import Folded, fold_pairs
from nuebar.predict.grid import build_grid, points_for
from nuebar.predict.harmonic import HarmonicPredictor, Windows
from nuebar.predict.matrix import MatrixPredictor
from nuebar.predict.network import (
    PLAIN,
    PUBLISHED,
    PUBLISHED_BOX,
    SMALLER,
    EDGES_MeV,
    NetworkPredictor,
    Recipe,
    load_network,
    parameter_sets,
    save_network,
    train_network,
)
from nuebar.predict.pairs import Pairs, read_pairs
from nuebar.predict.response import LIGHT, RESPONSE, ResponsePoint
from nuebar.predict.reweight import ReweightPredictor
from nuebar.predict.signal import signal_inputs
from nuebar.predict.store import save_harmonic
from nuebar.predict.surrogate import SurrogatePredictor, build_surrogate
from nuebar.report.tables import MISSING, to_markdown
from nuebar.simulate.detector import nominal_response as simulated_response

__all__ = [
    "FULL",
    "REDUCED",
    "ROWS",
    "CompareJob",
    "Comparison",
    "Size",
    "compare_table",
    "nominal_response",
    "numpy_network",
    "pairs_matrix",
    "published_windows",
    "run_compare",
    "shift_table",
    "timed",
]

FORMAT = 1
ROWS: Mapping[str, str] = {
    "reweight": "Reweighting",
    "matrix": "Response matrix",
    "grid-1": "Grid, linear",
    "grid-3": "Grid, cubic",
    "harmonic": "Harmonic",
    "harmonic-matter": "Harmonic, in matter",
    "network-published": "Network, published",
    "network-smaller": "Network, smaller",
    "network-plain": "Network, our recipe",
    "surrogate": "Surrogate",
}
FROM_CASCADES = ("surrogate",)
RECIPES: Mapping[str, Recipe] = {
    "network-published": PUBLISHED,
    "network-smaller": SMALLER["2x100"],
    "network-plain": PLAIN,
}
TEST_STREAM = 2**33  # added to the seed of parameter_sets: trainings use small numbers, network.accuracy 2**32
CHUNK = 500  # test points at once
SPREAD = 64  # different points that timed calls go round
CELLS = 4000  # in neutrino energy, of the response matrix
CORNERS = 4  # every fourth response point is a corner of its region
# Errors of a calibration with 10 k events a source at one published point (arXiv:2507.23297).
CALIBRATION_SIGMA = dict(zip(LIGHT, (0.26, 0.029, 23.0), strict=True))

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        points: Test points of the predictors from pairs.
        checked: Of them, how many are reweighted pair by pair to check the reference itself.
        responses: Response points of the surrogate: in its whole box, in the inner half, near the calibration.
        oscillations: Oscillation points at each of them.
        cascade_files: How many files of cascades are read.
        grid_accuracy: What the grids are planned for.
        network_steps: Optimiser steps of each network; the recipe's own if ``None``.
        network_sets: Parameter sets for training; the recipe's own if ``None``.
    """

    points: int = 10_000
    checked: int = 20
    responses: tuple[int, int, int] = (500, 100, 100)
    oscillations: int = 20
    cascade_files: int = 5
    grid_accuracy: float = 1e-3
    network_steps: int | None = None
    network_sets: int | None = None


FULL = Size()
"""The published size: five million spectra, 100 000 steps for each network: hours."""

REDUCED = Size(points=1000, responses=(20, 10, 10), network_steps=1500, network_sets=200_000)
"""Minutes: short trainings, fewer test points."""


@dataclass(frozen=True, eq=False)
class CompareJob:
    """What is compared.

    Attributes:
        experiment: Gives the exposure and the matter, and the nominal response.
        pairs: Files or folders of un-oscillated pairs.
        cascades: Folder of cascades.
        columns: Column map of the pairs.
        predictors: Rows of :data:`ROWS`; all that the inputs allow by default.
        networks: Folders of trained networks; they take the place of those that would be trained.
        size: How much is measured.
        edges_MeV: Bins of reconstructed energy.
        box: Oscillation parameters of the test points, of the grids and of the trainings.
        seed: Of the test points.
    """

    experiment: Experiment
    pairs: tuple[Path, ...] = ()
    cascades: Path | None = None
    columns: Path | None = None
    predictors: tuple[str, ...] = ()
    networks: tuple[Path, ...] = ()
    size: Size = REDUCED
    edges_MeV: np.ndarray = field(default_factory=lambda: EDGES_MeV)
    box: Box = field(default_factory=lambda: PUBLISHED_BOX)
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse rows that nothing is there for."""
        if not self.pairs and self.cascades is None:
            raise NuebarError("nothing to compare: expected --pairs FILES, --cascades FOLDER or both, got neither")
        for name in self.predictors:
            if name not in ROWS:
                raise NuebarError(f"unknown predictor {name!r} to compare; expected some of {', '.join(ROWS)}")
            if name in FROM_CASCADES and self.cascades is None:
                raise NuebarError(f"predictor {name!r} is made from cascades; add --cascades FOLDER")
            if name not in FROM_CASCADES and not self.pairs:
                raise NuebarError(f"predictor {name!r} is made from pairs; add --pairs FILES")
        if self.networks and not self.pairs:
            raise NuebarError("networks are compared with reweighted pairs: add the --pairs that they were trained on")

    @property
    def rows(self) -> tuple[str, ...]:
        """Rows to measure, without those of ``networks``."""
        there = [n for n in ROWS if (self.cascades is not None if n in FROM_CASCADES else bool(self.pairs))]
        if self.predictors:
            return tuple(n for n in there if n in self.predictors)
        return tuple(n for n in there if not (self.networks and n in RECIPES))


@dataclass(frozen=True)
class Comparison:
    """What was measured.

    Attributes:
        rows: One record for each predictor.
        files: What was written.
    """

    rows: tuple[dict[str, Any], ...]
    files: tuple[Path, ...]

    @property
    def text(self) -> str:
        """The tables."""
        return f"{compare_table(self.rows)}\n\n{shift_table(self.rows)}"


def run_compare(job: CompareJob, out: str | os.PathLike[str], progress: Progress | None = None) -> Comparison:
    """Measure every row that is not there yet, and write tables and pictures.

    Args:
        job: What is compared.
        out: Output folder: ``compare.md``, ``compare.json``, ``compare.png``, ``network.png``, ``rows/`` and
            ``predictors/``.
        progress: Called as ``progress(what, done, total)``.

    Raises:
        NuebarError: A file is wrong, or a network was trained on other pairs.
    """
    began = time.perf_counter()
    folder = output_folder(out)
    kept = output_folder(folder / "rows")
    tick = progress or (lambda *_: None)
    bench = _Bench(job, folder / "predictors", tick)
    named: dict[str, Path | None] = dict.fromkeys(job.rows, None)
    named |= {f"network-{Path(path).name}": Path(path) for path in job.networks}
    rows = []
    for done, (name, network) in enumerate(named.items()):
        tick(f"compare: {name}", done, len(named))
        key = _key(job, name, network)
        path = kept / f"{name}-{key}.json"
        if not path.exists():
            write_json(path, bench.row(name, network, key), indent=None)
        rows.append(read_json(path))
    tick("compare", len(named), len(named))
    files = _write(job, tuple(rows), folder, time.perf_counter() - began)
    return Comparison(tuple(rows), files)


# ---------------------------------------------------------------- what was measured already


def _stamp(paths: Iterable[Path]) -> list[list[Any]]:
    """Name, size and time of files: enough to see that they changed, without reading gigabytes."""
    return [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in paths]


def _cascade_files(job: CompareJob) -> list[Path]:
    assert job.cascades is not None
    place = Path(job.cascades)
    place = place / "ibd-cascades" if (place / "ibd-cascades").is_dir() else place
    return sorted(place.glob("chunk-*.safetensors"))[: job.size.cascade_files]


def _key(job: CompareJob, name: str, network: Path | None) -> str:
    """Of everything that a row depends on."""
    source = _cascade_files(job) if name in FROM_CASCADES else find_files(list(job.pairs))
    told: dict[str, Any] = {
        "format": FORMAT,
        "version": __version__,
        "row": name,
        "files": _stamp(source),
        "columns": None if job.columns is None else read_text(job.columns),
        "experiment": show(job.experiment),
        "edges_MeV": np.asarray(job.edges_MeV).tolist(),
        "box": {n: list(v) for n, v in job.box.items()},
        "size": asdict(job.size),
        "seed": job.seed,
    }
    if network is not None:
        told["network"] = _stamp(sorted(p for p in network.glob("*") if p.is_file()))
    elif name in RECIPES:
        told["recipe"] = RECIPES[name].identity()
    return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=6).hexdigest()


# ---------------------------------------------------------------- seconds


def timed(call: Callable[[int], object], *, repeat: int = 7, least_s: float = 0.3) -> dict[str, float]:
    """Best and median seconds of a call, each a mean over enough calls.

    Args:
        call: Called with a running number, so that it can change its argument; warmed up here.
        repeat: Samples; three if a call takes longer than half a second.
        least_s: Time for all of them together.
    """
    numbers = itertools.count()
    call(next(numbers))
    start = time.perf_counter()
    call(next(numbers))
    one = max(time.perf_counter() - start, 1e-7)
    repeat = min(repeat, 3) if one > 0.5 else repeat
    n = max(1, int(least_s / repeat / one))
    samples = []
    for _ in range(repeat):
        start = time.perf_counter()
        for _ in range(n):
            call(next(numbers))
        samples.append((time.perf_counter() - start) / n)
    return {"best_s": min(samples), "median_s": float(np.median(samples))}


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


# ---------------------------------------------------------------- rows


@dataclass(frozen=True, eq=False)
class _Made:
    """A predictor and how it is called.

    Attributes:
        predictor: With ``channels``.
        seconds: To build or train it.
        nbytes: On disk, or in memory where it is not stored.
        spectra: Rows of oscillation parameters → counts.
        vectors: Arguments of ``channels`` for timed calls, shape ``(n, parameters)``.
        quick: A call without JAX: its name, and what takes one vector.
        batch: How many spectra, and what makes them.
        notes: For below the table.
    """

    predictor: Any
    seconds: float
    nbytes: int
    spectra: Callable[[np.ndarray], np.ndarray]
    vectors: np.ndarray
    quick: tuple[str, Callable[[np.ndarray], object]] | None = None
    batch: tuple[int, Callable[[], object]] | None = None
    notes: tuple[str, ...] = ()


class _Bench:
    """Inputs that rows share, made when the first of them asks."""

    def __init__(self, job: CompareJob, folder: Path, progress: Progress) -> None:
        self.job, self.folder, self.progress = job, folder, progress
        self._truths: dict[float, list[tuple[np.ndarray, np.ndarray]]] = {}

    def row(self, name: str, network: Path | None, key: str) -> dict[str, Any]:
        """Build, time and test one predictor."""
        if name in FROM_CASCADES:
            return self._surrogate(name, key)
        makers: Mapping[str, Callable[[str], _Made]] = {
            "reweight": self._reweight,
            "matrix": self._matrix,
            "grid-1": lambda key: self._grid(1, key),
            "grid-3": lambda key: self._grid(3, key),
            "harmonic": self._harmonic,
            "harmonic-matter": self._harmonic_matter,
        }
        if network is not None:
            made, label = self._loaded(network), f"Network, {network.name}"
        elif name in RECIPES:
            made, label = self._trained(name, key), ROWS[name]
        else:
            made, label = makers[name](key), ROWS[name]
        density = self.density if name == "harmonic-matter" else 0.0
        record = _record(name, label, made)
        if name == "reweight":
            vacuum, matter = (self._checks(d) for d in (0.0, self.density))
            record |= {"checks": {"vacuum": vacuum, "matter": matter}}
            record["errors"] = made.predictor.errors(dict(zip(OSCILLATION, self.points[0].tolist(), strict=True)))
        else:
            record["accuracy"] = {"": self._accuracy(made.spectra, density).to_dict()}
        truth, _ = self.truth(density)[0]
        return record | {
            "edges_MeV": self.pairs.edges_MeV,
            "example": made.spectra(self.points[:1])[0],
            "example_truth": truth[0],
            "example_parameters": dict(zip(OSCILLATION, self.points[0].tolist(), strict=True)),
        }

    # ------------------------------------------------ shared inputs

    @cached_property
    def events(self) -> np.ndarray:
        """Un-oscillated events of each core of the experiment over its exposure, shape ``(cores,)``."""
        return np.asarray(signal_inputs(self.job.experiment).events).sum(axis=1)

    @cached_property
    def density(self) -> float:
        """Of the matter, g/cm³."""
        return self.job.experiment.matter.density_g_cm3

    @cached_property
    def pairs(self) -> Pairs:
        """All pairs, as many as the experiment expects."""
        cores = self.job.experiment.reactor.cores
        pairs = read_pairs(
            list(self.job.pairs),
            self.job.edges_MeV,
            column_map=self.job.columns,
            baseline_km=[c.baseline_km for c in cores],
            core_names=[c.name for c in cores],
            core_share=self.events,
            progress=self.progress,
        )
        return replace(pairs, scale=float(self.events.sum()) / pairs.total)

    @cached_property
    def folded(self) -> Folded:
        """The pairs as a table; exact to 1e-12."""
        return fold_pairs(self.pairs, electrons_per_nucleon=self.job.experiment.matter.electrons_per_nucleon)

    @cached_property
    def coarse(self) -> HarmonicPredictor:
        """For spectra in single precision."""
        return HarmonicPredictor.build(
            self.folded, windows=published_windows(self.job.box), matter=False, tolerance=1e-8
        )

    @cached_property
    def points(self) -> np.ndarray:
        """Test points, uniform in the box."""
        return parameter_sets(self.job.box, self.job.seed + TEST_STREAM, 0, self.job.size.points)

    def truth(self, density: float) -> list[tuple[np.ndarray, np.ndarray]]:
        """Spectra and Jacobians at all test points, in chunks."""
        if density not in self._truths:
            chunks = []
            for first in range(0, len(self.points), CHUNK):
                part = self.points[first : first + CHUNK]
                chunks.append(folded_spectra(self.folded, part, density_g_cm3=density))
                self.progress("truth", first + len(part), len(self.points))
            self._truths[density] = chunks
        return self._truths[density]

    def _accuracy(self, spectra: Callable[[np.ndarray], np.ndarray], density: float) -> Any:
        meter = AccuracyMeter()
        for k, (truth, jacobian) in enumerate(self.truth(density)):
            meter.add(truth, spectra(self.points[k * CHUNK : (k + 1) * CHUNK]), jacobian)
        return meter.result()

    def _reference(self) -> ReweightPredictor:
        matter = self.job.experiment.matter
        return ReweightPredictor.build(self.pairs, electrons_per_nucleon=matter.electrons_per_nucleon)

    def _checks(self, density: float) -> dict[str, float]:
        """Largest relative differences from reweighting pair by pair: of the reference, and of the harmonic."""
        rows = self.points[: self.job.size.checked]
        exact = self._reference()
        truth = np.array([np.asarray(exact.channels(jnp.append(p, density))[0]) for p in jnp.asarray(rows)])
        windows = published_windows(self.job.box)
        harmonic = HarmonicPredictor.build(self.folded, windows=windows, matter=density != 0.0)
        significant = truth > 1e-4 * truth.sum(axis=1, keepdims=True)

        def worst(spectra: np.ndarray) -> float:
            return float(np.abs(relative_errors(truth, spectra)[significant]).max())

        return {
            "points": float(len(rows)),
            "folded": worst(folded_spectra(self.folded, rows, density_g_cm3=density, jacobian=False)[0]),
            "harmonic": worst(_mapped(harmonic, density)(rows)),
        }

    # ------------------------------------------------ makers

    def _reweight(self, key: str) -> _Made:
        predictor = self._reference()
        source = predictor.source

        def one(p: np.ndarray) -> object:
            return source._pass(p)

        return _Made(
            predictor,
            0.0,
            predictor.nbytes,
            lambda rows: np.array([np.asarray(predictor.channels(jnp.append(p, 0.0))[0]) for p in jnp.asarray(rows)]),
            np.pad(self.points[:SPREAD], ((0, 0), (0, 1))),
            ("numba", one),
            notes=(f"{len(self.pairs)} pairs of {self.pairs.total} are inside the bins, {self.pairs.bins} of them.",),
        )

    def _matrix(self, key: str) -> _Made:
        start = time.perf_counter()
        predictor = pairs_matrix(self.pairs, electrons_per_nucleon=self.folded.electrons_per_nucleon)
        seconds = time.perf_counter() - start
        spectra = _mapped(predictor, 0.0, at_once=50)
        rows = np.resize(self.points, (100, 4))
        return _Made(
            predictor,
            seconds,
            _nbytes(predictor),
            spectra,
            np.pad(self.points[:SPREAD], ((0, 0), (0, 1))),
            batch=(len(rows), lambda: spectra(rows)),
            notes=(f"Response matrix: {CELLS} cells in neutrino energy; its size is that in memory.",),
        )

    def _grid(self, order: int, key: str) -> _Made:
        start = time.perf_counter()
        plan = points_for(self.coarse, self.job.box, self.job.size.grid_accuracy, order)
        folder = self._place(f"grid-{order}", key)
        predictor = build_grid(self.coarse, self.job.box, plan.points, folder, order=order, progress=self.progress)
        seconds = time.perf_counter() - start
        rows = self._many(20_000)
        out, single = np.empty((len(rows), self.pairs.bins), np.float32), np.empty((1, self.pairs.bins), np.float32)
        return _Made(
            predictor,
            seconds,
            _on_disk(folder),
            lambda p: predictor.batch(p).astype(float),
            self.points[:SPREAD],
            ("numba", lambda p: predictor.batch(p[None], single)),
            (len(rows), lambda: predictor.batch(rows, out)),
            (
                f"Grid of order {order}: {' × '.join(map(str, plan.points))} nodes, planned for errors of "
                f"{self.job.size.grid_accuracy:g}.",
            ),
        )

    def _harmonic(self, key: str) -> _Made:
        start = time.perf_counter()
        # Folding is most of the time, and belongs to it.
        folded = fold_pairs(self.pairs, electrons_per_nucleon=self.folded.electrons_per_nucleon)
        predictor = HarmonicPredictor.build(folded, windows=published_windows(self.job.box), matter=False)
        seconds = time.perf_counter() - start
        batch, rows = BatchHarmonic(self.coarse), self._many(100_000)
        out = np.empty((len(rows), self.pairs.bins), np.float32)
        return self._of_harmonic(predictor, seconds, key, 0.0, (len(rows), lambda: batch(rows, out)))

    def _harmonic_matter(self, key: str) -> _Made:
        start = time.perf_counter()
        folded = fold_pairs(self.pairs, electrons_per_nucleon=self.folded.electrons_per_nucleon)
        predictor = HarmonicPredictor.build(folded)
        seconds = time.perf_counter() - start
        spectra, rows = _mapped(predictor, self.density), self._many(CHUNK)
        note = "Harmonic in matter: windows of ±15σ; matter is expanded to first order in energy inside each bin."
        batch = (len(rows), lambda: spectra(rows))
        return self._of_harmonic(predictor, seconds, key, self.density, batch, (note,))

    def _of_harmonic(
        self,
        predictor: HarmonicPredictor,
        seconds: float,
        key: str,
        density: float,
        batch: tuple[int, Callable[[], object]],
        notes: tuple[str, ...] = (),
    ) -> _Made:
        folder = self._place("harmonic-matter" if density else "harmonic", key)
        save_harmonic(predictor, folder)
        compiled = CompiledHarmonic(predictor)
        vectors = np.pad(self.points[:SPREAD], ((0, 0), (0, 1)), constant_values=density)
        return _Made(
            predictor,
            seconds,
            _on_disk(folder),
            _mapped(predictor, density),
            vectors if predictor.matter else vectors[:, :4],
            ("numba", lambda p: compiled(p)),
            batch,
            notes,
        )

    def _trained(self, name: str, key: str) -> _Made:
        recipe, size = RECIPES[name], self.job.size
        if size.network_steps is not None:
            every = max(1, size.network_steps // 10)
            short = replace(recipe.training, max_steps=size.network_steps, validate_every=every)
            recipe = replace(recipe, training=short, warm_up=min(recipe.warm_up, size.network_steps // 10))
        if size.network_sets is not None:
            recipe = replace(recipe, n_sets=size.network_sets)
        folder = self._place(name, key)
        predictor, trained, training = train_network(
            self.coarse,
            recipe,
            box=self.job.box,
            edges_MeV=self.pairs.edges_MeV,
            checkpoint=output_folder(folder / "training") / "checkpoint.safetensors",
            progress=self.progress,
        )
        save_network(predictor, folder, training=training)
        note = f"{ROWS[name]}: {trained.step} steps of {recipe.training.batch} from {recipe.n_sets} spectra."
        return self._of_network(predictor, trained.seconds, folder, (note,))

    def _loaded(self, folder: Path) -> _Made:
        predictor, (_, told) = load_network(folder), load_model(folder)
        ours, theirs = self.pairs.counts(), np.asarray(predictor.unoscillated())
        if predictor.edges.shape != self.pairs.edges_MeV.shape or not np.allclose(
            predictor.edges, self.pairs.edges_MeV
        ):
            raise NuebarError(
                f"{folder}: expected a network with the {self.pairs.bins} bins that are compared, got "
                f"{predictor.edges.size - 1} from {predictor.edges[0]:g} to {predictor.edges[-1]:g} MeV; choose them"
            )
        # An exposure is a factor; other pairs differ by their statistical errors, which are no error of the network.
        factor = ours.sum() / theirs.sum()
        if not np.allclose(factor * theirs, ours, rtol=1e-6, atol=1e-6 * ours.max()):
            raise NuebarError(f"{folder}: the network was trained on other pairs; give --pairs those it was built from")
        scaled = NetworkPredictor(
            predictor.edges_MeV, predictor.limits, predictor.architecture, Provenance(predictor.provenance),
            predictor.network, factor * predictor.offset, factor * predictor.scale, factor * predictor.flat,
        )  # fmt: skip
        training = told.get("training", {})
        recipe, seconds = training.get("recipe", {}), float(training.get("seconds", 0.0))
        note = (
            f"Network, {folder.name}: recipe {recipe.get('name', 'unknown')}, {training.get('steps', 'unknown')} steps."
        )
        return self._of_network(scaled, seconds, folder, (note,))

    def _of_network(
        self, predictor: NetworkPredictor, seconds: float, folder: Path, notes: tuple[str, ...] = ()
    ) -> _Made:
        forward, rows = numpy_network(predictor), self._many(8192)
        return _Made(
            predictor,
            seconds,
            _on_disk(folder),
            predictor.many,
            self.points[:SPREAD],
            None if forward is None else ("numpy", forward),
            (len(rows), lambda: predictor.many(rows)),
            notes,
        )

    # ------------------------------------------------ surrogate

    def _surrogate(self, name: str, key: str) -> dict[str, Any]:
        job, size = self.job, self.job.size
        assert job.cascades is not None
        files = slice(0, size.cascade_files)
        cascades = Cascades.load(job.cascades, experiment=job.experiment, files=files, progress=self.progress)
        cascades = cascades.normalised(float(self.events.sum()))
        start = time.perf_counter()
        predictor = build_surrogate(
            cascades,
            job.edges_MeV,
            nominal=nominal_response(job.experiment),
            windows=published_windows(job.box),
            matter=False,
            progress=self.progress,
        )
        seconds = time.perf_counter() - start
        vectors = np.column_stack([self.points, np.tile(list(predictor.nominal().values()), (len(self.points), 1))])
        many = jax.jit(jax.vmap(lambda p: predictor.channels(p)[0]))
        batch = jnp.asarray(np.resize(vectors, (SPREAD, vectors.shape[1])))
        made = _Made(
            predictor,
            seconds,
            _nbytes(predictor),
            lambda rows: np.asarray(many(rows)),
            vectors[:SPREAD],
            batch=(SPREAD, lambda: many(batch).block_until_ready()),
            notes=(
                f"Surrogate: {len(cascades)} cascades, all {len(predictor.parameter_names)} parameters; its size is "
                "that in memory. Its truth are the cascades folded at every response point.",
            ),
        )
        record = _record(name, ROWS[name], made)
        record["accuracy"] = {}
        stream = parameter_sets(job.box, job.seed + TEST_STREAM + 1, 0, sum(size.responses) * size.oscillations)
        rows = iter(np.split(stream, sum(size.responses)))
        random = np.random.default_rng([job.seed, 3])
        example: dict[str, Any] = {}
        for (region, box), n in zip(_regions(predictor).items(), size.responses, strict=True):
            meter = AccuracyMeter()
            for done, response in enumerate(_responses(box, n, random)):
                p = next(rows)
                folded = cascades.folded(ResponsePoint.of(response), np.asarray(job.edges_MeV))
                truth, jacobian = folded_spectra(folded, p)
                ours = np.asarray(many(np.column_stack([p, np.tile(list(response.values()), (len(p), 1))])))
                meter.add(truth, ours, jacobian)
                # The last region is near the calibration: that is what the picture shows.
                shown = dict(zip(OSCILLATION, p[0].tolist(), strict=True)) | response
                example = {"example": ours[0], "example_truth": truth[0], "example_parameters": shown}
                self.progress(f"surrogate, {region}", done + 1, n)
            if n:
                record["accuracy"][region] = meter.result().to_dict()
        return record | {"edges_MeV": np.asarray(job.edges_MeV)} | example

    # ------------------------------------------------ small things

    def _many(self, n: int) -> np.ndarray:
        return parameter_sets(self.job.box, self.job.seed + TEST_STREAM, 0, n)

    def _place(self, name: str, key: str) -> Path:
        return output_folder(self.folder / f"{name}-{key}")


def _record(name: str, label: str, made: _Made) -> dict[str, Any]:
    """Name, size and seconds of everything."""
    before, predictor = _load(), made.predictor
    one = jax.jit(lambda p: predictor.channels(p)[0])
    gradient = jax.jit(jax.jacfwd(lambda p: predictor.channels(p)[0]))
    plain, vectors = list(made.vectors), [jnp.asarray(p) for p in made.vectors]

    def turn(call: Callable[[Any], object], arguments: list[Any]) -> Callable[[int], object]:
        return lambda k: call(arguments[k % len(arguments)])

    record: dict[str, Any] = {
        "name": name,
        "label": label,
        "parameters": made.vectors.shape[1],
        "build_s": made.seconds,
        "bytes": made.nbytes,
        "one_jitted": timed(turn(lambda p: one(p).block_until_ready(), vectors)),
        "gradient": timed(turn(lambda p: gradient(p).block_until_ready(), vectors)),
        "notes": list(made.notes),
    }
    if made.quick is not None:
        record["one_quick"] = {"path": made.quick[0], **timed(turn(made.quick[1], plain))}
    if made.batch is not None:
        n, call = made.batch
        seconds = timed(lambda _: call(), repeat=5)
        record["batch"] = {"spectra": n, **seconds, "per_second": n / seconds["best_s"]}
    return record | {"load_average": [before, _load()]}


def _mapped(predictor: Any, density: float, at_once: int = 100) -> Callable[[np.ndarray], np.ndarray]:
    """Rows of oscillation parameters → counts in double precision, a fixed number at a time: one program."""
    extra = len(predictor.parameter_names) - len(OSCILLATION)
    many = jax.jit(jax.vmap(lambda p: predictor.channels(p)[0]))

    def spectra(rows: np.ndarray) -> np.ndarray:
        full = np.pad(rows, ((0, 0), (0, extra)), constant_values=density)
        padded = np.resize(full, (-(-len(full) // at_once), at_once, full.shape[1]))
        return np.concatenate([np.asarray(many(part)) for part in padded])[: len(rows)]

    return spectra


def _nbytes(predictor: Any) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(predictor))


def _on_disk(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.glob("*") if p.is_file())


# ---------------------------------------------------------------- what predictors are made with


def published_windows(box: Box = PUBLISHED_BOX) -> Windows:
    """Windows of the harmonic predictor that just hold a box (normal ordering)."""
    solar, (low, high) = box["dm2_21_eV2"], box["dm2_31_eV2"]
    return Windows(solar, (low - solar[1], high))


def nominal_response(experiment: Experiment) -> ResponsePoint:
    """Where the Monte Carlo of an experiment stands: its own kB, fC and light yield, nothing added."""
    r = simulated_response(experiment)
    return ResponsePoint(r.kB_g_cm2_GeV, r.fC, r.light_yield_per_MeV)


def pairs_matrix(pairs: Pairs, cells: int = CELLS, *, electrons_per_nucleon: float = 0.5) -> MatrixPredictor:
    """The response matrix of published analyses: a histogram of pairs, every cell at its mean neutrino energy.

    Args:
        pairs: Monte Carlo pairs.
        cells: Even cells in neutrino energy; empty ones are dropped.
        electrons_per_nucleon: Y_e of the matter.
    """
    low, high = float(pairs.e_nu_MeV.min()), float(pairs.e_nu_MeV.max())
    cell = np.minimum(((pairs.e_nu_MeV - low) * (cells / (high - low))).astype(np.int64), cells - 1)
    counts = np.bincount(cell, minlength=cells)
    filled = counts > 0
    mean = np.bincount(cell, pairs.e_nu_MeV, minlength=cells)[filled] / counts[filled]
    response = np.bincount(pairs.bin * np.int64(cells) + cell, minlength=pairs.bins * cells)
    cores = pairs.baseline_km.size
    if pairs.core_share is None:
        events = np.bincount(pairs.core * np.int64(cells) + cell, minlength=cores * cells).reshape(cores, cells)
    else:
        events = pairs.core_share[:, None] * counts
    return MatrixPredictor(
        edges_MeV=tuple(float(e) for e in pairs.edges_MeV),
        core_names=pairs.core_names,
        provenance=Provenance({"predictor": "matrix", **pairs.provenance}),
        electrons_per_nucleon=electrons_per_nucleon,
        e_nu_MeV=jax.device_put(mean),
        baseline_km=jax.device_put(pairs.baseline_km),
        events=jax.device_put(pairs.scale * events[:, filled]),
        response=jax.device_put(response.reshape(pairs.bins, cells)[:, filled] / counts[filled]),
    )


def numpy_network(predictor: NetworkPredictor) -> Callable[[np.ndarray], np.ndarray] | None:
    """A network's forward pass as people write it in numpy, for one vector; ``None`` for smooth activations."""
    activation = predictor.architecture.activation
    if activation not in ("relu", "tanh"):
        return None
    layers = [(np.asarray(x.weight), np.asarray(x.bias)) for x in predictor.network.layers]
    offset, scale = np.asarray(predictor.offset), np.asarray(predictor.scale)
    low, high = np.array(predictor.limits).T
    standard = predictor.architecture.inputs == "standardised"
    shift = 0.5 * (low + high) if standard else np.zeros(low.size)
    width = (high - low) / np.sqrt(12.0) if standard else np.array([1.0, 1e-2, 1e-5, 1e-3])

    def forward(p: np.ndarray) -> np.ndarray:
        x = ((p - shift) / width).astype(np.float32)
        for weight, bias in layers[:-1]:
            x = x @ weight + bias
            x = np.maximum(x, np.float32(0.0)) if activation == "relu" else np.tanh(x)
        y = (x @ layers[-1][0] + layers[-1][1]).astype(float)
        counts: np.ndarray = offset + (y @ scale if scale.ndim == 2 else y * scale)
        return counts

    return forward


def _regions(predictor: SurrogatePredictor) -> dict[str, Box]:
    """Response points of three tests: the whole box, half way from the nominal point to it, near a calibration."""
    nominal = predictor.nominal()
    box = {n: predictor.box[n] for n in RESPONSE}
    inner = {n: tuple(0.5 * (nominal[n] + x) for x in box[n]) for n in RESPONSE}
    near = dict(box)  # smearing and scale: the box is what is wanted of them
    for n, sigma in CALIBRATION_SIGMA.items():
        near[n] = (max(box[n][0], nominal[n] - 5 * sigma), min(box[n][1], nominal[n] + 5 * sigma))
    return {"whole box": box, "inner half": inner, "±5σ of a calibration": near}  # type: ignore[dict-item]


def _responses(box: Box, n: int, random: np.random.Generator) -> Iterator[dict[str, float]]:
    """Uniform points of a box, every fourth one of its corners."""
    low, high = np.array(list(box.values())).T
    for k in range(n):
        at = random.random(low.size)
        at = np.round(at) if k % CORNERS == 0 else at
        yield dict(zip(box, (low + (high - low) * at).tolist(), strict=True))


# ---------------------------------------------------------------- tables and pictures


def compare_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Speed, size and errors of every row, Markdown.

    Args:
        rows: Records of :func:`run_compare`.
    """
    header = (
        "Predictor", "Parameters", "Built in", "Size", "One spectrum, JAX", "One spectrum, compiled or numpy",
        "Gradient", "Spectra/s in a batch", "Median error", "99.9 %", "Worst bin", "Δχ² median", "Δχ² worst",
        "Worst shift [σ]",
    )  # fmt: skip
    table = []
    for row in rows:
        quick = row.get("one_quick")
        batch = row.get("batch")
        cells = [
            row["label"],
            str(row["parameters"]),
            _seconds(row["build_s"]) if row["build_s"] else MISSING,
            _bytes(row["bytes"]),
            _seconds(row["one_jitted"]["best_s"]),
            f"{_seconds(quick['best_s'])} ({quick['path']})" if quick else MISSING,
            _seconds(row["gradient"]["best_s"]),
            _per_second(batch["per_second"]) if batch else MISSING,
        ]
        regions = row.get("accuracy") or {"": None}
        for k, (region, a) in enumerate(regions.items()):
            first = cells if k == 0 else [row["label"], *[""] * (len(cells) - 1)]
            first = [f"{row['label']}, {region}" if region else row["label"], *first[1:]]
            table.append([*first, *_errors(a)])
    return to_markdown(table, header)


def shift_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Shift of each fitted parameter in units of its error, median and worst, Markdown."""
    names = (*OSCILLATION, NORM)
    table = [
        [
            f"{row['label']}, {region}" if region else row["label"],
            str(a["points"]),
            *(f"{_number(a['shift_median'][n])} / {_number(a['shift_worst'][n])}" for n in names),
        ]
        for row in rows
        for region, a in row.get("accuracy", {}).items()
    ]
    if not table:
        return "No predictor was compared with the reference."
    return to_markdown(table, ("Shift in σ, median / worst", "Test points", *names))


def _errors(a: Mapping[str, Any] | None) -> list[str]:
    if a is None:
        return ["reference", *[MISSING] * 5]
    numbers = [a[n] for n in ("relative_median", "relative_999", "relative_worst", "chi2_median", "chi2_worst")]
    return [_number(x) for x in (*numbers, max(a["shift_worst"].values()))]


def _number(x: float) -> str:
    return "0" if x == 0 else f"{x:.1e}" if not 1e-3 <= x < 1e4 else f"{x:.2g}"


def _seconds(x: float) -> str:
    for unit, factor in (("min", 1 / 60), ("s", 1.0), ("ms", 1e3)):
        if x * factor >= (3.0 if unit == "min" else 1.0):
            return f"{x * factor:.3g} {unit}"
    return f"{x * 1e6:.3g} µs"


def _bytes(n: float) -> str:
    for unit, factor in (("GB", 1e-9), ("MB", 1e-6), ("kB", 1e-3)):
        if n * factor >= 1:
            return f"{n * factor:.3g} {unit}"
    return f"{n:.0f} B"


def _per_second(x: float) -> str:
    return f"{x / 1e6:.2f} M" if x >= 1e6 else f"{x / 1e3:.3g} k" if x >= 1e3 else f"{x:.3g}"


def _write(job: CompareJob, rows: tuple[dict[str, Any], ...], folder: Path, seconds: float) -> tuple[Path, ...]:
    """Tables, record and pictures."""
    from nuebar.report import plots, predictor_plots

    lines = ["# Predictors compared", "", compare_table(rows), "", shift_table(rows), "", *_remarks(job, rows)]
    atomic_write_text(folder / "compare.md", "\n".join(lines) + "\n")
    settings = {
        "experiment": job.experiment.name,
        "size": asdict(job.size),
        "edges_MeV": [float(job.edges_MeV[0]), float(job.edges_MeV[-1]), len(job.edges_MeV) - 1],
        "box": {n: list(v) for n, v in job.box.items()},
        "pairs": [p.name for p in job.pairs],
        "cascades": None if job.cascades is None else job.cascades.name,
    }
    numbers = {"settings": settings, "rows": list(rows)}
    record = write_claim(folder, "compare", numbers, command="nuebar predict compare", seconds=seconds, seed=job.seed)
    files = [folder / "compare.md", record]
    panels = [
        predictor_plots.Panel(_title(row), np.array(row["example_truth"]), np.array(row["example"]))
        for row in rows
        if row["name"] != "reweight"
    ]
    reference = next((row for row in rows if row["name"] == "reweight"), None)
    errors = None if reference is None else np.array(reference["errors"]) / np.array(reference["example_truth"])
    if panels:
        figure = predictor_plots.relative_differences(job.edges_MeV, panels, monte_carlo=errors)
        plots.save(figure, folder / "compare.png")
        files.append(folder / "compare.png")
    network = next((row for row in rows if row["name"].startswith("network")), None)
    if network is not None:
        figure = predictor_plots.network_example(
            job.edges_MeV, np.array(network["example_truth"]), np.array(network["example"]), title=network["label"]
        )
        plots.save(figure, folder / "network.png")
        files.append(folder / "network.png")
    return tuple(files)


def _title(row: Mapping[str, Any]) -> str:
    return f"{row['label']} (from cascades)" if row["name"] in FROM_CASCADES else str(row["label"])


def _remarks(job: CompareJob, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """What a reader of the tables must know."""
    lines = [
        f"- Exposure: {job.experiment.exposure.days:g} days of {job.experiment.name}. Errors: |S/T - 1| in bins above "
        "10⁻⁴ of the spectrum's sum; Δχ² = Σ (S - T)²/T; shifts by linear response, for sin²θ12, sin²θ13, Δm²21, Δm²31 "
        "and a free norm.",
        "- Truth: pairs weighted with exact survival probabilities (through a table of neutrino energies), or cascades "
        "folded at the response point.",
        "- Seconds are the best of repeated calls after a first one; medians are in compare.json.",
    ]
    for row in rows:
        for where, c in row.get("checks", {}).items():
            about = " (approximate: matter is expanded inside each bin)" if where == "matter" else ""
            lines.append(
                f"- Against reweighting pair by pair in {where}, {c['points']:.0f} points, worst bin: the table "
                f"{_number(c['folded'])}, the harmonic predictor {_number(c['harmonic'])}{about}."
            )
        lines += [f"- {note}" for note in row["notes"]]
    loads = [x for row in rows for x in row["load_average"] if x is not None]
    if loads:
        lines.append(f"- Load average during the measurements: {min(loads):g} to {max(loads):g}.")
    return lines
