"""Radioactivity on disk: pools of cascades by material, the rates to draw them at, and tables of singles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.config import Experiment
from nuebar.errors import NuebarError
from nuebar.io.arrays import load_arrays, save_arrays
from nuebar.io.event_writer import EventWriter
from nuebar.jobs.experiments import described, recalled
from nuebar.run import Stage, StageResult, Workers, run_stage
from nuebar.simulate.accidentals import accidental_pairs
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.pool import CascadePool
from nuebar.simulate.quench import Response
from nuebar.simulate.random import derive_key
from nuebar.simulate.singles import SinglesLight, generated_rates_Hz, singles_events, singles_light, singles_pool

__all__ = [
    "SinglesJob",
    "accidentals_chunk",
    "load_singles",
    "pool_chunk",
    "rates_chunk",
    "run_singles",
    "singles_chunk",
    "singles_report",
    "singles_stages",
]

Progress = Callable[[str, int, int], None]
EVENTS_PER_CHUNK = 2_000_000
PAIRS_PER_CHUNK = 500_000
SINGLES_COLUMNS = ("e_rec_MeV", "n_pe", "x_m", "y_m", "z_m", "true_material", "true_nuclide", "true_e_dep_MeV")


@dataclass(frozen=True)
class SinglesJob:
    """What ``nuebar simulate singles`` was asked for.

    Attributes:
        experiment: The detector with its table of singles.
        events: Singles wanted; 0 for none.
        pairs: Accidental pairs wanted; 0 for none.
        window_ms: Time window of the pairs.
        response: kB, fC and light yield; those of the experiment by default.
        cascades: Cascades of every material's pool.
        seed: Seed of the run.
    """

    experiment: Experiment
    events: int = 2_000_000
    pairs: int = 0
    window_ms: float = 1.0
    response: Response | None = None
    cascades: int = 200_000
    seed: int = 1


def singles_stages(experiment: Experiment, cascades: int) -> tuple[Stage, Stage]:
    """The stages that make pools and rates."""
    if experiment.detector is None or not experiment.detector.singles:
        raise NuebarError(f"{experiment.name}: expected tables [[detector.singles]], found none; see juno.toml")
    if cascades < 1:
        raise NuebarError(f"cascades: expected a whole number above 0, got {cascades}; give one like 200000")
    config = {"experiment": described(experiment), "cascades": cascades}
    here = "nuebar.jobs.singles"
    pools = Stage("singles-pools", f"{here}:pool_chunk", config, len(experiment.detector.singles), ".safetensors")
    return pools, Stage("singles-rates", f"{here}:rates_chunk", config, 1, ".safetensors")


def run_singles(
    job: SinglesJob,
    folder: str | Path,
    *,
    jobs: Workers = 1,
    progress: Progress | None = None,
    force: bool = False,
    max_seconds: float | None = None,
) -> tuple[StageResult, ...]:
    """Make pools and rates, then singles and accidental pairs as wanted.

    Args:
        job: What is wanted.
        folder: The run folder.
        jobs: Number of processes, or an executor.
        progress: Called as ``progress(what, done, total)``.
        force: Throw away what another configuration has left there.
        max_seconds: Start nothing new after this time.

    Returns:
        The stages ``singles`` and ``accidentals``, as far as they were wanted.
    """
    if job.events < 0 or job.pairs < 0:
        raise NuebarError(f"singles: expected numbers that are not negative, got {job.events} and {job.pairs}")
    if not 0 < job.window_ms <= 1000:
        raise NuebarError(f"window: expected milliseconds from 0 to 1000, got {job.window_ms}; give one like 1")
    options: dict[str, Any] = {"jobs": jobs, "progress": progress, "force": force, "max_seconds": max_seconds}
    for stage in singles_stages(job.experiment, job.cascades):
        run_stage(folder, stage, seed=job.seed, **options)
    r = job.response
    config = {
        "experiment": described(job.experiment),
        "cascades": job.cascades,
        "response": [r.kB_g_cm2_GeV, r.fC, r.light_yield_per_MeV] if r is not None else None,
    }
    results = []
    if job.events:
        chunks = -(-job.events // EVENTS_PER_CHUNK)
        stage = Stage("singles", "nuebar.jobs.singles:singles_chunk", {**config, "events": job.events}, chunks)
        results.append(run_stage(folder, stage, seed=job.seed, **options))
    if job.pairs:
        chunks = -(-job.pairs // PAIRS_PER_CHUNK)
        config |= {"pairs": job.pairs, "window_ns": round(job.window_ms * 1e6)}
        stage = Stage("accidentals", "nuebar.jobs.singles:accidentals_chunk", config, chunks)
        results.append(run_stage(folder, stage, seed=job.seed, **options))
    return tuple(results)


def singles_report(job: SinglesJob, folder: str | Path) -> str:
    """The table of rates by material and the accidentals that the published cuts leave.

    Args:
        job: What was simulated.
        folder: Its run folder, with pools and rates.
    """
    from nuebar.jobs.text import singles_table_text
    from nuebar.simulate.singles_table import accidental_rate, singles_table

    model = DetectorModel.build(job.experiment, job.response)
    light, rates = load_singles(Path(folder), model)
    rows = singles_table(light, model, rates, events=1_000_000)
    return singles_table_text(rows, accidental_rate(light, model, rates, events=1_000_000))


def pool_chunk(config: dict[str, Any], chunk: int, key: int, path: Path) -> dict[str, Any]:
    """The pool of one material."""
    experiment = recalled(config["experiment"])
    model = DetectorModel.build(experiment)
    material = model.detector.singles[chunk]
    pool = singles_pool(material, model, derive_key(key), cascades=config["cascades"])
    pool.save(path)
    return {"material": material.name, "cascades": len(pool), "per_activity": float(pool.metadata["per_activity"])}


def rates_chunk(config: dict[str, Any], chunk: int, key: int, path: Path) -> dict[str, Any]:
    """Rates at which the cascades of every pool are drawn, at the nominal response."""
    experiment = recalled(config["experiment"])
    model = DetectorModel.build(experiment)
    # More events than this would only repeat the pool's own noise.
    events = min(1_000_000, 5 * config["cascades"])
    rates = generated_rates_Hz(singles_light(_pools(path.parents[1], model), model), model, events=events)
    save_arrays(path, {"rates_Hz": np.array(list(rates.values()))}, {"materials": list(rates)})
    return {"rates_Hz": rates}


def load_singles(folder: Path, model: DetectorModel) -> tuple[SinglesLight, dict[str, float]]:
    """Light of the pools of a run folder at the model's response, and the rates to draw them at."""
    arrays, about = load_arrays(folder / "singles-rates" / "chunk-00000.safetensors")
    rates = dict(zip(about["materials"], arrays["rates_Hz"].tolist(), strict=True))
    return singles_light(_pools(folder, model), model), rates


def _pools(folder: Path, model: DetectorModel) -> Mapping[str, CascadePool]:
    return {s.name: _pool(folder / "singles-pools", i) for i, s in enumerate(model.detector.singles)}


def _pool(folder: Path, chunk: int) -> CascadePool:
    path = folder / f"chunk-{chunk:05d}.safetensors"
    return _loaded_pool(path, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=32)
def _loaded_pool(path: Path, _: int) -> CascadePool:
    """A pool, read again if its file has changed."""
    return CascadePool.load(path)


def _model(config: Mapping[str, Any]) -> DetectorModel:
    response = Response(*config["response"]) if config["response"] is not None else None
    return DetectorModel.build(recalled(config["experiment"]), response)


def singles_chunk(config: dict[str, Any], chunk: int, key: int, path: Path) -> dict[str, Any]:
    """One table of singles above the detector's threshold."""
    model = _model(config)
    light, rates = load_singles(path.parents[1], model)
    n = min(EVENTS_PER_CHUNK, config["events"] - chunk * EVENTS_PER_CHUNK)
    events = singles_events(light, model, rates, derive_key(key), n=n, above_MeV=model.detector.threshold_MeV)
    about = {"kind": "singles", "materials": list(light.materials), "nuclides": list(light.nuclides), "rates_Hz": rates}
    with EventWriter(path, SINGLES_COLUMNS, metadata=about) as writer:
        writer.append({name: events[name] for name in SINGLES_COLUMNS})
    return {"drawn": n, "events": int(events["e_rec_MeV"].size), "seconds": n / sum(rates.values())}


def accidentals_chunk(config: dict[str, Any], chunk: int, key: int, path: Path) -> dict[str, Any]:
    """One table of accidental pairs."""
    model = _model(config)
    light, rates = load_singles(path.parents[1], model)
    n = min(PAIRS_PER_CHUNK, config["pairs"] - chunk * PAIRS_PER_CHUNK)
    pairs = accidental_pairs(light, model, rates, derive_key(key), n=n, window_ns=config["window_ns"])
    about = {"kind": "accidental pairs", "materials": list(light.materials), "window_ns": config["window_ns"]}
    with EventWriter(path, tuple(pairs), metadata=about) as writer:
        writer.append(pairs)
    return {"pairs": n}
