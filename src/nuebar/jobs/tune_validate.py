"""What ``nuebar tune validate`` does: accuracy, bias, spread, ranks and coverage of densities, on simulated data."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nuebar.config import load_experiment
from nuebar.errors import NuebarError
from nuebar.io.arrays import load_arrays, save_arrays
from nuebar.io.calibration import load_table, stored_charges
from nuebar.io.files import atomic_path, output_folder, read_json
from nuebar.io.results import load_result, save_result
from nuebar.run import Stage, Workers, run_stage
from nuebar.simulate.calibration import load_plan
from nuebar.simulate.pool import CascadePool
from nuebar.stats.distances import statistical_floor
from nuebar.tune.data import CalibrationData
from nuebar.tune.density import RESPONSE, Density, precise
from nuebar.tune.simulated import SimulatedSources
from nuebar.tune.store import density_folder, load_density
from nuebar.tune.train import distances_of, probabilities_of
from nuebar.tune.validate import (
    PUBLISHED_EXAMPLE,
    AsimovRows,
    CalibrationRows,
    PointRows,
    asimov_rows,
    asimov_study,
    calibration_rows,
    calibration_study,
    exposures,
    joined_rows,
    knots_of,
    point_rows,
    point_study,
    verdict,
    worked_example,
)

__all__ = ["STUDIES", "ValidateJob", "run_validate", "study_chunk", "validation_report"]

Progress = Callable[[str, int, int], None]
STUDIES = ("accuracy", "example", "exposures", "points", "asimov", "calibration")
_PER_CHUNK = {"points": 5, "asimov": 10, "calibration": 20}
_ROWS: Mapping[str, type[Any]] = {"points": PointRows, "asimov": AsimovRows, "calibration": CalibrationRows}
_FLOOR_DRAWS = 50
_BLOCKS = 10  # of the pools, whose differences are the noise of an expected spectrum
_ARRAYS = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class ValidateJob:
    """What ``nuebar tune validate`` was asked for.

    Attributes:
        densities: Words or folders.
        studies: Some of :data:`STUDIES`.
        data: Run folder of ``nuebar simulate calibration`` with the sets validation-2, testing-1, testing-2.
        experiment: Whose detector simulates new data.
        catalogue: TOML catalogue of sources of one's own.
        plan: TOML plan of one's own.
        points: Points of testing 1 in the studies ``points`` and ``asimov``; spread over the set.
        fits: Data sets at each point.
        sets: Data sets of the study ``calibration``.
        events: Of every source.
        unbinned: Exposures with single charges, for densities that know them.
        seed: Of new data.
    """

    densities: tuple[str, ...]
    studies: tuple[str, ...] = STUDIES
    data: str
    experiment: str = "juno"
    catalogue: str | None = None
    plan: str | None = None
    points: int = 1000
    fits: int = 100
    sets: int = 2000
    events: int = 10_000
    unbinned: bool = False
    seed: int = 1


def run_validate(
    job: ValidateJob,
    folder: str | os.PathLike[str],
    *,
    jobs: Workers = 1,
    progress: Progress | None = None,
    force: bool = False,
    max_seconds: float | None = None,
) -> dict[str, Any]:
    """Run the studies; the same call continues a stopped one.

    Args:
        job: What is wanted.
        folder: Where chunks, ``<study>-<density>.json`` and ``validation.json`` appear.
        jobs: Number of processes of the studies that simulate, or an executor.
        progress: Called as ``progress(what, done, total)``.
        force: Throw away chunks of another configuration.
        max_seconds: Start nothing new after this time.

    Returns:
        Study → density → its numbers, and the verdicts.

    Raises:
        NuebarError: A study or density is unknown, or a set is missing.
    """
    unknown = [study for study in job.studies if study not in STUDIES]
    if unknown or not job.studies or not job.densities:
        raise NuebarError(f"studies: expected some of {', '.join(STUDIES)}, got {', '.join(unknown) or 'none'}")
    labels = [Path(word).name for word in job.densities]
    if len(set(labels)) < len(labels):
        raise NuebarError(f"densities: expected names that differ, got {', '.join(labels)}; validate them one by one")
    for name in ("points", "fits", "sets", "events"):
        if getattr(job, name) < 1:
            raise NuebarError(f"{name}: expected a whole number above 0, got {getattr(job, name)}")
    out = output_folder(folder)
    records: dict[str, Any] = {study: {} for study in job.studies}
    records["verdict"] = {}
    for word in job.densities:
        density = precise(load_density(word))
        label = Path(word).name
        judged = []
        for study in job.studies:
            began = time.perf_counter()
            if study in _ROWS:
                options = {"jobs": jobs, "progress": progress, "force": force, "max_seconds": max_seconds}
                found = _simulated(job, study, word, density, out, options)
            else:
                found = _SIMPLE[study](job, density, progress)
            if study in ("exposures", "calibration"):
                judged.append(found)
            record = found if isinstance(found, dict) else found.to_json()
            record = {**record, "seconds_in_all": round(time.perf_counter() - began, 2)}
            save_result(out / f"{study}-{label}.json", record)
            records[study][label] = record
        if judged:
            family = verdict(*judged)
            records["verdict"][label] = {
                "passes": bool(family.passes),
                "worst": family.worst,
                "corrected_p": float(min(family.corrected.values())),
                "tests": len(family.corrected),
                "level": family.level,
            }
    save_result(out / "validation.json", records)
    return records


# ---------------------------------------------------------------- studies of stored sets


def _accuracy(job: ValidateJob, density: Density, progress: Progress | None) -> dict[str, Any]:
    """d₁, d₂, d∞ per source on validation 2 and testing 1, with what a perfect density would have."""
    record: dict[str, Any] = {"sources": list(density.sources)}
    for name in ("validation-2", "testing-1"):
        table = load_table(Path(job.data) / name, progress=progress)
        began = time.perf_counter()
        p = probabilities_of(density, table.parameters)
        seconds = (time.perf_counter() - began) / len(p)
        d = distances_of(p, table)
        rows = slice(None) if len(p) < 10 else slice(None, None, max(1, len(p) // 20))
        events = table.counts[rows, :, 1:-1].sum(axis=2)
        floor = statistical_floor(p[rows], table.edges, events, draws=_FLOOR_DRAWS)
        few = len(p) < 10
        record[name] = {
            "points": table.parameters.tolist() if few else len(p),
            "events": int(table.events[0]),
            "seconds_per_point": seconds,
            **{
                key: {
                    "mean": values.mean(axis=0).tolist(),
                    "largest": values.max(axis=0).tolist(),
                    **({"each": values.tolist()} if few else {}),
                    "perfect_mean": np.asarray(getattr(floor.mean, key)).mean(axis=0).tolist(),
                    "perfect_95": np.asarray(getattr(floor.upper, key)).max(axis=0).tolist(),
                }
                for key, values in zip(("d1", "d2", "d_inf"), d, strict=True)
            },
        }
    return record


def _example(job: ValidateJob, density: Density, progress: Progress | None) -> dict[str, Any]:
    """The worked example: minuit, NUTS and nested sampling, norms in closed form and free."""
    sources = _sources(job.experiment, job.data, job.plan, job.catalogue)
    truth = PUBLISHED_EXAMPLE["truth"]
    charges = sources.charges(truth, job.events, seed=job.seed, words=("example",))
    data = CalibrationData.from_charges(charges, density.edges, density.pe_to_observable)
    record: dict[str, Any] = {}
    for unbinned in (False, True) if len(density.knots) else (False,):
        found, results = worked_example(density, data, unbinned=unbinned, seed=job.seed, progress=progress)
        told = found.to_json()
        told["correlation"] = results[1].correlation.tolist()
        told["goodness_p"] = None if results[0].goodness is None else results[0].goodness.p_value
        record["unbinned" if unbinned else "binned"] = told
    return record


def _exposures(job: ValidateJob, density: Density, progress: Progress | None) -> Any:
    """Testing 2."""
    folder = Path(job.data) / "testing-2"
    table = load_table(folder, progress=progress)
    rows = [table.sources.index(source) for source in density.sources]
    weights: dict[int, np.ndarray] = {}
    for events in np.unique(table.events):
        chosen = np.flatnonzero(table.events == events)
        if job.unbinned:
            stored = stored_charges(folder)
            data = (
                {source: stored.charges_of(int(table.data_set[k]), source) for source in density.sources}
                for k in chosen
            )
            weights[int(events)] = knots_of(density, data)
        else:
            weights[int(events)] = table.counts[chosen][:, rows, 1:-1]
    truth = [float(x) for x in table.parameters[0]]
    return exposures(density, weights, truth, unbinned=job.unbinned, progress=progress)


_SIMPLE: Mapping[str, Callable[[ValidateJob, Density, Progress | None], Any]] = {
    "accuracy": _accuracy,
    "example": _example,
    "exposures": _exposures,
}


# ---------------------------------------------------------------- studies that simulate, chunk by chunk


def _simulated(job: ValidateJob, study: str, word: str, density: Density, out: Path, options: Mapping[str, Any]) -> Any:
    if study == "calibration":
        numbers = np.arange(job.sets)
        points = np.empty((0, 3))
    else:
        table = load_table(Path(job.data) / "testing-1")
        numbers = np.unique(
            np.linspace(0, len(table.parameters) - 1, min(job.points, len(table.parameters))).astype(int)
        )
        points = table.parameters[numbers]
    simulated = {
        "study": study,
        "experiment": job.experiment,
        "data": str(Path(job.data).resolve()),
        "plan": job.plan,
        "catalogue": job.catalogue,
        "numbers": numbers.tolist(),
        "points": points.tolist(),
    }
    chunks = -(-len(numbers) // _PER_CHUNK[study])
    spectra = None
    if study == "asimov":  # what takes time is the same for all densities
        stage = Stage("expected", "nuebar.jobs.tune_validate:expected_chunk", simulated, chunks, _ARRAYS, isolated=True)
        spectra = [str(path) for path in run_stage(out, stage, seed=job.seed, **options).paths]
    model = read_json(density_folder(word) / "model.json")
    config = {
        **simulated,
        "density": str(Path(word).resolve()) if Path(word).is_dir() else word,
        "digest": model.get("digest", ""),
        "fits": job.fits,
        "events": job.events,
        "study_seed": job.seed,
        "spectra": spectra,
    }
    name = f"{study}-{Path(word).name}"
    stage = Stage(name, "nuebar.jobs.tune_validate:study_chunk", config, chunks, ".json", isolated=True)
    result = run_stage(out, stage, seed=job.seed, **options)
    parts = [_ROWS[study].from_json(load_result(path)["rows"]) for path in result.paths]
    rows = joined_rows(parts)
    if study == "calibration":
        return calibration_study(density, rows)
    found = point_study(density, rows) if study == "points" else asimov_study(density, rows)
    return {**found.to_json(), "truth": rows.truth.tolist()}


def expected_chunk(config: dict[str, Any], chunk: int, key: int, path: Path) -> dict[str, Any]:
    """Expected spectra of some points, in blocks of the pools."""
    each = _PER_CHUNK[config["study"]]
    points = config["points"][chunk * each : (chunk + 1) * each]
    sources = _sources(config["experiment"], config["data"], config["plan"], config["catalogue"])
    made = np.stack([sources.expected(point, _BLOCKS) for point in points])
    save_arrays(path, {"expected": made}, {"sources": list(sources.sources)})
    return {"rows": len(points)}


@dataclass(frozen=True, eq=False)
class _Expected:
    """Spectra of :func:`expected_chunk` in place of the simulation that made them."""

    sources: tuple[str, ...]
    spectra: Mapping[tuple[float, ...], np.ndarray]

    @classmethod
    def load(cls, path: str, points: list[list[float]]) -> _Expected:
        arrays, metadata = load_arrays(path)
        return cls(tuple(metadata["sources"]), {tuple(p): a for p, a in zip(points, arrays["expected"], strict=True)})

    def expected(self, response: ArrayLike, blocks: int = 1) -> np.ndarray:
        return self.spectra[tuple(np.asarray(response).tolist())]

    def counts(self, *args: Any, **more: Any) -> np.ndarray:
        raise TypeError("expected spectra have no events")


def study_chunk(config: dict[str, Any], chunk: int, key: int, path: Path) -> dict[str, Any]:
    """Some points or data sets of a study."""
    study = config["study"]
    each = _PER_CHUNK[study]
    chosen = slice(chunk * each, (chunk + 1) * each)
    numbers, points = config["numbers"][chosen], config["points"][chosen]
    density = _density(config["density"], config["digest"])
    if study == "asimov":
        stored = _Expected.load(config["spectra"][chunk], points)
        return _written(path, asimov_rows(density, stored, points, events=config["events"], blocks=_BLOCKS), points)
    sources = _sources(config["experiment"], config["data"], config["plan"], config["catalogue"])
    rows: Any
    if study == "points":
        named = dict(zip(numbers, points, strict=True))
        rows = point_rows(
            density, sources, named, sets=config["fits"], events=config["events"], seed=config["study_seed"]
        )
    else:
        rows = calibration_rows(density, sources, numbers, events=config["events"], seed=config["study_seed"])
    return _written(path, rows, numbers)


def _written(path: Path, rows: Any, done: list[Any]) -> dict[str, Any]:
    with atomic_path(path) as target:
        target.write_text(json.dumps({"format": 1, "rows": rows.to_json()}), encoding="utf-8")
    return {"rows": len(done)}


@lru_cache(maxsize=2)
def _density(word: str, digest: str) -> Density:
    """The same object for all chunks of a worker: what is compiled belongs to it."""
    density = load_density(word)
    if density.provenance.get("digest", "") != digest:
        raise NuebarError(f"density {word!r} has changed since the study began; run it again in another folder")
    return precise(density)


@lru_cache(maxsize=2)
def _sources(experiment: str, data: str, plan: str | None, catalogue: str | None) -> SimulatedSources:
    """Sources from the pools of the testing sets, which no training has seen."""
    wanted = load_plan(plan)
    place = Path(data) / "pools-testing"
    pools = {}
    for i, name in enumerate(wanted.sources):
        path = place / f"chunk-{i:05d}.safetensors"
        if not path.is_file():
            raise NuebarError(
                f"{place}: expected pools of the testing sets; simulate one with 'nuebar simulate calibration --set "
                f"testing-1 --out {data}'"
            )
        pools[name] = CascadePool.load(path)
    return SimulatedSources.build(load_experiment(experiment), pools, plan=wanted, catalogue=catalogue)


# ---------------------------------------------------------------- as text


def validation_report(records: Mapping[str, Any]) -> str:
    """The studies as text, densities below each other.

    Args:
        records: From :func:`run_validate`.
    """
    lines: list[str] = []
    for label, r in records.get("accuracy", {}).items():
        for name in ("validation-2", "testing-1"):
            d = r[name]["d_inf"]
            lines.append(
                f"{label}, {name}: largest d_inf "
                + ", ".join(f"{s} {x:.5f}" for s, x in zip(r["sources"], d["largest"], strict=True))
                + f" (a perfect density: {max(d['perfect_95']):.5f})"
            )
    for label, r in records.get("example", {}).items():
        for kind in ("binned", "unbinned"):
            for m in r.get(kind, {}).get("methods", ()):
                values = ", ".join(
                    f"{name} {v:.5g} ± {e:.2g}" for name, v, e in zip(RESPONSE, m["best"], m["errors"], strict=True)
                )
                lines.append(f"{label}, example, {kind}, {m['method']}: {values} in {m['seconds']:.1f} s")
    for label, r in records.get("exposures", {}).items():
        for row in r["rows"]:
            bias = ", ".join(
                f"{b:+.4f} ± {n:.4f}" for b, n in zip(row["bias_percent"], row["bias_noise_percent"], strict=True)
            )
            ratio = ", ".join(f"{x:.3f}" for x in row["spread_over_estimated"])
            lines.append(f"{label}, {row['events']} events: bias {bias} %; spread over estimate {ratio}")
    for study in ("points", "asimov"):
        for label, r in records.get(study, {}).items():
            worst = ", ".join(f"{x:.3f}" for x in r["worst_sigma"])
            rms = ", ".join(f"{x:.3f}" for x in r["rms_sigma"])
            lines.append(
                f"{label}, {study}: {sum(r['inside'])} of {r['points']} points inside; largest bias {worst} sigma, rms "
                f"{rms}; {r['seconds_per_point']:.2f} s a point"
            )
    for label, r in records.get("calibration", {}).items():
        p = ", ".join(f"{x:.2g}" for x in r["rank_p"])
        lines.append(f"{label}, {r['used']} posteriors: p of ranks {p}; {r['seconds_per_set']:.2f} s each")
    for label, r in records.get("verdict", {}).items():
        word = "consistent" if r["passes"] else "NOT consistent"
        lines.append(
            f"{label}: {word} at {100 * (1 - r['level']):g} % over {r['tests']} tests (worst: {r['worst']}, corrected "
            f"p = {r['corrected_p']:.2g})"
        )
    return "\n".join(lines)
