"""The rows of ``nuebar predict compare``: each predictor built, timed, and held against its truth.

Predictors from pairs are held against reweighting, through the folded table that equals it to rounding; the surrogate
against the cascades folded at every response point. Test points come from a stream of their own that no training sees.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nuebar.config import Experiment
from nuebar.errors import NuebarError
from nuebar.io.event_paths import find_files
from nuebar.io.files import output_folder
from nuebar.io.models import load_model
from nuebar.parameters import OSCILLATION
from nuebar.predict.accuracy import AccuracyMeter, folded_spectra, relative_errors
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
from nuebar.predict.store import load_predictor, save_predictor
from nuebar.predict.surrogate import SurrogatePredictor, build_surrogate
from nuebar.simulate.detector import nominal_response as simulated_response

__all__ = [
    "FROM_CASCADES",
    "FULL",
    "RECIPES",
    "REDUCED",
    "ROWS",
    "Bench",
    "CompareJob",
    "Size",
    "nominal_response",
    "numpy_network",
    "published_windows",
    "timed",
]

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
    responses: tuple[int, int, int] = (40, 15, 15)
    oscillations: int = 250
    cascade_files: int = 50
    grid_accuracy: float = 1e-3
    network_steps: int | None = None
    network_sets: int | None = None


FULL = Size()
"""The published size: five million spectra, 100 000 steps for each network: hours."""

REDUCED = Size(
    points=1000, responses=(20, 10, 10), oscillations=20, cascade_files=5, network_steps=1500, network_sets=200_000
)
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
        nbytes: On disk; of the pairs in memory.
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


class Bench:
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
            [f for path in self.job.pairs for f in find_files(path)],
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
            notes=(f"{len(self.pairs)} pairs of {self.pairs.total} are inside the {self.pairs.bins} bins.",),
        )

    def _matrix(self, key: str) -> _Made:
        start = time.perf_counter()
        predictor = MatrixPredictor.from_pairs(
            self.pairs,
            electrons_per_nucleon=self.folded.electrons_per_nucleon,
            provenance=self.pairs.provenance,
        )
        seconds = time.perf_counter() - start
        predictor, size = self._stored(predictor, "matrix", key)
        spectra = _mapped(predictor, 0.0, at_once=50)
        rows = np.resize(self.points, (100, 4))
        return _Made(
            predictor,
            seconds,
            size,
            spectra,
            np.pad(self.points[:SPREAD], ((0, 0), (0, 1))),
            batch=(len(rows), lambda: spectra(rows)),
            notes=(
                f"Response matrix: {predictor.e_nu_MeV.size} cells in neutrino energy, one response for all "
                "cores: part of its difference is the statistics of the pairs.",
            ),
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
        predictor, size = self._stored(predictor, "harmonic-matter" if density else "harmonic", key)
        compiled = CompiledHarmonic(predictor)
        vectors = np.pad(self.points[:SPREAD], ((0, 0), (0, 1)), constant_values=density)
        return _Made(
            predictor,
            seconds,
            size,
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
        predictor, nbytes = self._stored(predictor, name, key)
        vectors = np.column_stack([self.points, np.tile(list(predictor.nominal().values()), (len(self.points), 1))])
        many = jax.jit(jax.vmap(lambda p: predictor.channels(p)[0]))
        batch = jnp.asarray(np.resize(vectors, (SPREAD, vectors.shape[1])))
        made = _Made(
            predictor,
            seconds,
            nbytes,
            lambda rows: np.asarray(many(rows)),
            vectors[:SPREAD],
            batch=(SPREAD, lambda: many(batch).block_until_ready()),
            notes=(
                f"Surrogate: {len(cascades)} cascades, all {len(predictor.parameter_names)} parameters; its truth are "
                "the cascades folded at every response point.",
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

    def _stored(self, predictor: Any, name: str, key: str) -> tuple[Any, int]:
        """Write a predictor and read it back: what is measured is what lies on disk, with its size."""
        folder = self._place(name, key)
        save_predictor(predictor, folder)
        return load_predictor(folder), _on_disk(folder)

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


def _on_disk(folder: Path) -> int:
    kept = (p for p in folder.glob("*") if p.is_file() and p.name != "training.safetensors")
    return sum(p.stat().st_size for p in kept)


# ---------------------------------------------------------------- what predictors are made with


def published_windows(box: Box = PUBLISHED_BOX) -> Windows:
    """Windows of the harmonic predictor that just hold a box (normal ordering)."""
    solar, (low, high) = box["dm2_21_eV2"], box["dm2_31_eV2"]
    return Windows(solar, (low - solar[1], high))


def nominal_response(experiment: Experiment) -> ResponsePoint:
    """Where the Monte Carlo of an experiment stands: its own kB, fC and light yield, nothing added."""
    r = simulated_response(experiment)
    return ResponsePoint(r.kB_g_cm2_GeV, r.fC, r.light_yield_per_MeV)


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
