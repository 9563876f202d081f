"""Antineutrino interactions on disk: the reactors' spectrum first, then pairs chunk by chunk."""

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
from nuebar.parameters import OSCILLATION
from nuebar.run import Stage, StageResult, Workers, run_stage
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.ibd import ibd_cascades, ibd_events
from nuebar.simulate.ibd_kinematics import IbdSpectrum
from nuebar.simulate.quench import Response
from nuebar.simulate.random import derive_key

__all__ = ["IbdJob", "ibd_chunk", "load_spectrum", "oscillation_of", "run_ibd", "spectrum_chunk", "spectrum_stage"]

Progress = Callable[[str, int, int], None]
PAIRS_PER_CHUNK = 200_000
_NODES_PER_MeV = 500  # close enough for the fastest oscillation of a core 215 km away


@dataclass(frozen=True)
class IbdJob:
    """What ``nuebar simulate ibd`` was asked for.

    Attributes:
        experiment: Reactors and detector.
        pairs: How many.
        response: kB, fC and light yield; those of the experiment by default.
        oscillation: Oscillation parameters; ``None`` for none, so that pairs can be weighted later.
        cascades: Write the deposits too, for light at other parameter points.
        seed: Seed of the run.
    """

    experiment: Experiment
    pairs: int
    response: Response | None = None
    oscillation: Mapping[str, float] | None = None
    cascades: bool = False
    seed: int = 1


def oscillation_of(experiment: Experiment, changes: Mapping[str, float] | None = None) -> dict[str, float]:
    """The oscillation parameters of an experiment, some of them replaced.

    Raises:
        NuebarError: A name is unknown.
    """
    values = {name: experiment.oscillation[name].value for name in OSCILLATION}
    for name, value in (changes or {}).items():
        if name not in values:
            raise NuebarError(f"oscillation: expected one of {', '.join(OSCILLATION)}, got {name!r}; correct the name")
        low, high = (0.0, 1.0) if name.startswith("sin2") else (1e-6, 1e-3) if "21" in name else (-0.1, 0.1)
        if not low <= value <= high:
            raise NuebarError(f"oscillation: {name}: expected a number from {low:g} to {high:g}, got {value:g}")
        values[name] = float(value)
    return values


def spectrum_stage(experiment: Experiment, oscillation: Mapping[str, float] | None) -> Stage:
    """The stage that writes the interacting spectrum of every core."""
    config = {
        "experiment": described(experiment),
        "oscillation": dict(oscillation) if oscillation is not None else None,
    }
    return Stage("spectrum", "nuebar.jobs.ibd:spectrum_chunk", config, 1, ".safetensors", isolated=True)


def spectrum_chunk(config: dict[str, Any], chunk: int, key: int, path: Path) -> dict[str, Any]:
    """Interactions of every core per MeV, as a table of straight lines, with oscillations if there are any."""
    from nuebar.physics.ibd import THRESHOLD_MeV
    from nuebar.predict.signal import neutrino_grid, signal_inputs

    experiment = recalled(config["experiment"])
    inputs = signal_inputs(experiment)
    nodes, weights = neutrino_grid()
    top = float(nodes[-1])
    # Even in the square root near threshold, where the cross-section starts like one.
    even = np.linspace(0.0, 1.0, int(_NODES_PER_MeV * (top - THRESHOLD_MeV)))
    e = THRESHOLD_MeV + (top - THRESHOLD_MeV) * even**1.2
    density = np.asarray(inputs.events) / np.asarray(weights)
    per_MeV = np.array([np.interp(e, np.asarray(nodes), row) for row in density])
    per_MeV[:, 0] = 0.0
    spectrum = IbdSpectrum(e, per_MeV, np.asarray(inputs.baseline_km))
    total = float(spectrum.interactions().sum())
    if config["oscillation"] is not None:
        spectrum = spectrum.weighted(_survival(experiment, config["oscillation"], e))
    save_arrays(path, {"e_nu_MeV": e, "per_MeV": spectrum.per_MeV, "baseline_km": spectrum.baseline_km})
    return {"survival": float(spectrum.interactions().sum()) / total, "cores": len(spectrum.baseline_km)}


def _survival(experiment: Experiment, oscillation: Mapping[str, float], e_nu_MeV: np.ndarray) -> np.ndarray:
    from nuebar.physics.oscillation import matter

    values = {name: oscillation[name] for name in OSCILLATION}
    rows = [
        matter(
            e_nu_MeV,
            core.baseline_km,
            **values,
            density_g_cm3=experiment.matter.density_g_cm3,
            electrons_per_nucleon=experiment.matter.electrons_per_nucleon,
        )
        for core in experiment.reactor.cores
    ]
    return np.array([np.asarray(row) for row in rows])


def load_spectrum(path: Path) -> IbdSpectrum:
    """The spectrum that :func:`spectrum_chunk` wrote."""
    return _loaded_spectrum(path, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=4)
def _loaded_spectrum(path: Path, _: int) -> IbdSpectrum:
    arrays, _about = load_arrays(path)
    return IbdSpectrum(arrays["e_nu_MeV"], arrays["per_MeV"], arrays["baseline_km"])


def run_ibd(
    job: IbdJob,
    folder: str | Path,
    *,
    jobs: Workers = 1,
    progress: Progress | None = None,
    force: bool = False,
    max_seconds: float | None = None,
) -> StageResult:
    """Write the spectrum, then pairs.

    Args:
        job: What is wanted.
        folder: The run folder: ``spectrum`` and ``ibd`` (and ``ibd-cascades``) appear in it.
        jobs: Number of processes, or an executor.
        progress: Called as ``progress(what, done, total)``.
        force: Throw away what another configuration has left there.
        max_seconds: Start nothing new after this time.

    Returns:
        The chunks of pairs.
    """
    if job.pairs < 1:
        raise NuebarError(f"pairs: expected a whole number above 0, got {job.pairs}; give one like 1000000")
    options: dict[str, Any] = {"jobs": jobs, "progress": progress, "force": force, "max_seconds": max_seconds}
    spectrum = spectrum_stage(job.experiment, job.oscillation)
    run_stage(folder, spectrum, seed=job.seed, **options)
    r = job.response
    config = {
        **spectrum.config,
        "pairs": job.pairs,
        "response": [r.kB_g_cm2_GeV, r.fC, r.light_yield_per_MeV] if r is not None else None,
        "cascades": job.cascades,
    }
    suffix = ".safetensors" if job.cascades else ".parquet"
    name = "ibd-cascades" if job.cascades else "ibd"
    chunks = -(-job.pairs // PAIRS_PER_CHUNK)
    stage = Stage(name, "nuebar.jobs.ibd:ibd_chunk", config, chunks, suffix)
    return run_stage(folder, stage, seed=job.seed, **options)


def ibd_chunk(config: dict[str, Any], chunk: int, key: int, path: Path) -> dict[str, Any]:
    """One chunk of pairs: a table of events, or their deposits."""
    experiment = recalled(config["experiment"])
    response = Response(*config["response"]) if config["response"] is not None else None
    model = DetectorModel.build(experiment, response)
    spectrum = load_spectrum(path.parent.parent / "spectrum" / "chunk-00000.safetensors")
    pairs = min(PAIRS_PER_CHUNK, config["pairs"] - chunk * PAIRS_PER_CHUNK)
    pool = ibd_cascades(spectrum, model, pairs, derive_key(key, "cascades"))
    if config["cascades"]:
        pool.save(path)
        return {"pairs": pairs}
    columns = ibd_events(pool, model, derive_key(key, "events"))
    for name in ("prompt_n_pe", "prompt_e_rec_MeV", "delayed_n_pe", "delayed_e_rec_MeV"):
        columns[name] = np.maximum(columns[name], 0.0)  # dark counts, subtracted, may leave less than nothing
    with EventWriter(path, tuple(columns), metadata={"kind": "ibd pairs", "response": vars(model.response)}) as writer:
        writer.append(columns)
    return {"pairs": pairs}
