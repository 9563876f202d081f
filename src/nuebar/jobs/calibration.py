"""Calibration data sets on disk: pools of cascades, then charges at every parameter point, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.config import Experiment
from nuebar.config_detector import SourceBranch
from nuebar.errors import NuebarError
from nuebar.io.arrays import save_arrays
from nuebar.io.calibration import read_calibration
from nuebar.io.event_writer import EventWriter
from nuebar.io.files import output_folder
from nuebar.jobs.experiments import described, recalled
from nuebar.records import from_mapping, to_mapping
from nuebar.run import Stage, StageResult, Workers, run_stage
from nuebar.simulate.calibration import (
    CalibrationPlan,
    CalibrationSet,
    charges,
    check_set,
    histogram,
    load_plan,
    portions,
    require_sources,
)
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.pool import CascadePool
from nuebar.simulate.quench import Response
from nuebar.simulate.sources import calibration_pool, check_place, load_sources
from nuebar.simulate.uniformity import local_light

__all__ = [
    "BranchRow",
    "CalibrationJob",
    "branch_rows",
    "calibration_chunk",
    "pool_chunk",
    "read_calibration",
    "run_calibration",
    "write_point",
]

Progress = Callable[[str, int, int], None]
SINGLE = "point"  # name of the set of a single parameter point


@dataclass(frozen=True)
class CalibrationJob:
    """What ``nuebar simulate calibration`` was asked for.

    Attributes:
        experiment: Whose detector is simulated.
        set_name: A set of the plan.
        plan: Path of a TOML plan; the published one by default.
        catalogue: Path of a TOML catalogue of sources; the standard one by default.
        response: A single parameter point, instead of a set.
        sources: Names; those of the plan by default.
        events: Events of every source, instead of those of the set.
        cascades: Cascades of every source's pool.
        samples: Whether charges are written, beside the histograms.
        seed: Seed of the run.
    """

    experiment: Experiment
    set_name: str = "small"
    plan: str | None = None
    catalogue: str | None = None
    response: Response | None = None
    sources: tuple[str, ...] = ()
    events: int | None = None
    cascades: int = 2_000_000
    samples: bool = True
    seed: int = 1


def run_calibration(
    job: CalibrationJob,
    folder: str | Path,
    *,
    jobs: Workers = 1,
    progress: Progress | None = None,
    force: bool = False,
    max_seconds: float | None = None,
) -> StageResult:
    """Make the pools of the set's role, then its data sets.

    Args:
        job: What is wanted.
        folder: The run folder: ``pools-<role>`` and a folder of the set's name appear in it.
        jobs: Number of processes, or an executor.
        progress: Called as ``progress(what, done, total)``.
        force: Throw away what another configuration has left there.
        max_seconds: Start nothing new after this time.

    Returns:
        The chunks of the data sets.
    """
    plan, name, one = _wanted(job)
    catalogue = load_sources(job.catalogue)
    require_sources(plan.sources, tuple(catalogue))
    d = job.experiment.detector
    if d is None:
        raise NuebarError(f"{job.experiment.name}: expected a table [detector] to simulate with; see juno.toml")
    for source in plan.sources:
        check_place(catalogue[source], d.radius_m)
    common = {
        "experiment": described(job.experiment),
        "catalogue": job.catalogue,
        # The content too: a changed catalogue is another configuration.
        "branches": {name: to_mapping(catalogue[name].settings) for name in plan.sources},
        "neutrons": {name: list(map(list, points)) for name, points in catalogue[plan.sources[0]].neutrons.items()},
        "sources": list(plan.sources),
    }
    pools = Stage(
        f"pools-{one.role}",
        "nuebar.jobs.calibration:pool_chunk",
        {**common, "cascades": job.cascades},
        len(plan.sources),
        ".safetensors",
    )
    options: dict[str, Any] = {"jobs": jobs, "progress": progress, "force": force, "max_seconds": max_seconds}
    run_stage(folder, pools, seed=job.seed, **options)
    stage = Stage(
        name,
        "nuebar.jobs.calibration:calibration_chunk",
        {
            **common,
            "set": to_mapping(one),
            "name": name,
            "pools": pools.name,
            "cascades": job.cascades,
            "pe_to_observable": plan.pe_to_observable,
            "bins": list(plan.bins),
            "samples": job.samples,
        },
        len(portions(one)),
        ".safetensors",
    )
    return run_stage(folder, stage, seed=job.seed, **options)


def pool_chunk(config: dict[str, Any], chunk: int, key: int, path: Path) -> dict[str, Any]:
    """The pool of one source."""
    experiment = recalled(config["experiment"])
    d = experiment.detector
    assert d is not None
    source = load_sources(config["catalogue"])[config["sources"][chunk]]
    pool = calibration_pool(
        source,
        config["cascades"],
        np.uint64(key | 1),
        material=d.material,
        electrons_per_gram_mol=d.electrons_per_gram_mol,
    )
    pool.save(path)
    return {"source": source.name, "cascades": len(pool), "deposits": int(pool.codes.size)}


def calibration_chunk(config: dict[str, Any], chunk: int, key: int, path: Path) -> dict[str, Any]:
    """Charges of consecutive data sets, all sources."""
    experiment = recalled(config["experiment"])
    one: CalibrationSet = from_mapping(CalibrationSet, config["set"], "set")
    work = portions(one)[chunk]
    parameters = one.parameters()
    nominal = DetectorModel.build(experiment)
    pools = [_pool(path.parent.parent / config["pools"], i) for i in range(len(config["sources"]))]
    gains = [_gain(config, name, nominal) for name in config["sources"]]
    bins = config["bins"]
    counts = np.empty((len(work), len(pools), int(bins[2]) + 2), np.int32)
    offsets = np.concatenate([[0], np.cumsum([p.count for p in work])])
    n_pe = np.empty((len(pools), offsets[-1] if config["samples"] else 0), np.float32)
    for row, portion in enumerate(work):
        model = DetectorModel.build(experiment, Response(*(float(x) for x in parameters[portion.point])))
        for s, pool in enumerate(pools):
            q = charges(
                pool.codes,
                pool.offsets,
                model.light,
                model.electronics._replace(pe_per_photon=model.electronics.pe_per_photon * gains[s]),
                portion.count,
                seed=key,
                words=(config["sources"][s], row),
            )
            counts[row, s] = histogram(q, config["pe_to_observable"], bins)
            if config["samples"]:
                n_pe[s, offsets[row] : offsets[row + 1]] = q
    arrays = {
        "parameters": parameters[[p.point for p in work]],
        "data_set": np.array([p.data_set for p in work]),
        "events": np.array([p.events for p in work]),
        "first": np.array([p.first for p in work]),
        "offsets": offsets,
        "counts": counts,
        "n_pe": n_pe,
    }
    about = {k: config[k] for k in ("name", "sources", "pe_to_observable", "bins")}
    save_arrays(path, arrays, {"format": 1, "kind": "calibration", **about})
    return {"data_sets": len(work), "events": int(offsets[-1]) * len(pools)}


@dataclass(frozen=True)
class BranchRow:
    """Where one branch of a source lies.

    Attributes:
        source: Name of the source.
        part: decay, prompt or capture.
        title: What it emits.
        mean_pe: Mean charge in photo-electrons.
        share: Share of the source's triggers in the pool.
    """

    source: str
    part: str
    title: str
    mean_pe: float
    share: float


def branch_rows(job: CalibrationJob, folder: str | Path) -> tuple[list[BranchRow], Response]:
    """Mean charge and share of every branch of every source, from the pools of a run folder.

    Args:
        job: What was simulated; rows are for its first parameter point.
        folder: Its run folder.
    """
    plan, _, one = _wanted(job)
    point = Response(*(float(x) for x in one.parameters()[0]))
    model = DetectorModel.build(job.experiment, point)
    catalogue = load_sources(job.catalogue)
    rows = []
    for i, name in enumerate(plan.sources):
        pool = _pool(Path(folder) / f"pools-{one.role}", i)
        pool = pool.part(0, min(len(pool), 200_000))
        charge = pool.photons(model.light) * model.electronics.pe_per_photon
        charge *= local_light(*catalogue[name].settings.position_m, model.uniformity, False)
        for b, branch in enumerate(catalogue[name].settings.branches):
            chosen = pool.columns["branch"] == b
            if np.any(chosen):
                row = (branch.part, _branch_title(branch), float(charge[chosen].mean()), float(chosen.mean()))
                rows.append(BranchRow(name, *row))
    return rows, point


def _branch_title(branch: SourceBranch) -> str:
    words = [f"{e:.3f}" for e in branch.gammas_MeV] + [f"e- {e:.3f}" for e in branch.electrons_MeV]
    words += [f"e+ {e:.3f}" for e in branch.positrons_MeV]
    words += [f"e+e- {branch.pair_MeV:.3f}"] if branch.pair_MeV else []
    words += ["recoils"] if branch.neutron else []
    return " + ".join(words) + (" MeV" if len(words) > bool(branch.neutron) else "")


def write_point(result: StageResult, folder: str | Path, *, truth: bool = True) -> tuple[Path, ...]:
    """Charges of a single parameter point as tables, one file for each source.

    Args:
        result: What :func:`run_calibration` returned for a job with a response.
        folder: Where ``<source>.parquet`` is written, with the column ``n_pe``.
        truth: Whether the files tell the parameter point.
    """
    parts = [read_calibration(path) for path in result.paths]
    out = output_folder(folder)
    paths = []
    for s, name in enumerate(parts[0][1]["sources"]):
        path = out / f"{name}.parquet"
        about = {"kind": "calibration", "source": name}
        if truth:
            about["parameters"] = parts[0][0]["parameters"][0].tolist()
        with EventWriter(path, ("n_pe",), metadata=about) as writer:
            for arrays, _ in parts:
                writer.append({"n_pe": np.maximum(arrays["n_pe"][s], 0)})
        paths.append(path)
    return tuple(paths)


def _wanted(job: CalibrationJob) -> tuple[CalibrationPlan, str, CalibrationSet]:
    plan = load_plan(job.plan)
    if job.response is not None:
        r = job.response
        points = ((r.kB_g_cm2_GeV, r.fC, r.light_yield_per_MeV),)
        name, one = SINGLE, CalibrationSet(role="testing", events=(10_000,), points=points)
    elif job.set_name in plan.sets:
        name, one = job.set_name, plan.sets[job.set_name]
    else:
        raise NuebarError(f"set: expected one of {', '.join(plan.sets)}, got {job.set_name!r}; or give --kB --fC ...")
    if job.events is not None:
        one = replace(one, events=(job.events,))
        check_set(one, "events", name)
    if job.cascades < 1:
        raise NuebarError(f"cascades: expected a whole number above 0, got {job.cascades}; give one like 2000000")
    sources = job.sources or plan.sources
    if not job.sources and job.catalogue is not None and job.plan is None:
        sources = tuple(load_sources(job.catalogue))  # somebody's own sources, and no word on which
    return replace(plan, sources=sources), name, one


def _pool(folder: Path, chunk: int) -> CascadePool:
    path = folder / f"chunk-{chunk:05d}.safetensors"
    return _loaded_pool(path, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=16)
def _loaded_pool(path: Path, _: int) -> CascadePool:
    """A pool, read again if its file has changed."""
    return CascadePool.load(path)


def _gain(config: Mapping[str, Any], name: str, model: DetectorModel) -> float:
    """Light at the source's place, against the centre."""
    x, y, z = load_sources(config["catalogue"])[name].settings.position_m
    return float(local_light(x, y, z, model.uniformity, False))
