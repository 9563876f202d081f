"""The job of ``nuebar fit feldman-cousins``: toys at every point of a grid, in chunks, and the region they give.

Two stages: the best fit of the data and the grid (one chunk), and data and toys of every point (a chunk a point). The
counts of measured data travel with the configuration; expected counts are computed where they are needed.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.fit.feldman_cousins import ENOUGH, LEVELS, PointToys, Region, Sampling, Segment, sample
from nuebar.fit.profile import delta_chi2_level
from nuebar.fit.profile_construction import SPLITTING, ProfileConstruction, default_axes, physical
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.fit.toys import ToyOptions
from nuebar.io.arrays import load_arrays, save_arrays
from nuebar.io.files import atomic_write_text, output_folder
from nuebar.io.releases import read_common_inputs, read_juno_2025
from nuebar.io.results import save_result, versions
from nuebar.jobs.fit import FitJob, _check, _experiment, _prepare
from nuebar.jobs.fit_config import build_fit, fit_job, told
from nuebar.report.tables import scale_of
from nuebar.run import Stage, Workers, run_stage

__all__ = [
    "FeldmanCousinsJob",
    "FeldmanCousinsOutcome",
    "best_chunk",
    "feldman_cousins_report",
    "point_chunk",
    "run_feldman_cousins",
    "write_feldman_cousins",
]

Progress = Callable[[str, int, int], None]
BEST, POINTS = "best", "points"
POINTS_1D, POINTS_2D = 25, 15


@dataclass(frozen=True)
class FeldmanCousinsJob:
    """The options of ``nuebar fit feldman-cousins``.

    Attributes:
        parameters: One or two parameters of interest.
        fit: Data (measured or expected counts) and model, as for a fit.
        axes: Parameter → its grid; ±3.5 standard errors around the best fit for those that are left out.
        points: Points of a default grid along each axis; 25 for one and 15 for two parameters by default.
        toys: Toys at a point, at most.
        batch: So many at a time.
        levels: Confidence levels.
        adaptive: Stop at points whose p-value is decided.
        free_ordering: Both orderings are fitted, and Δm²31 gets a grid in both.
        constraints: Whether the centres of the constraints of toys fluctuate.
        shape: Whether their expectations fluctuate within the bin-to-bin uncertainties.
        seed: Of the study.
    """

    parameters: tuple[str, ...]
    fit: FitJob = field(default_factory=lambda: FitJob(asimov=True))
    axes: Mapping[str, np.ndarray] = field(default_factory=dict)
    points: int | None = None
    toys: int = 2000
    batch: int = 500
    levels: tuple[float, ...] = LEVELS
    adaptive: bool = True
    free_ordering: bool = False
    constraints: bool = True
    shape: bool = True
    seed: int = 1

    @property
    def sampling(self) -> Sampling:
        """How many toys a point gets."""
        return Sampling(self.toys, self.batch, tuple(self.levels), self.adaptive)


@dataclass(frozen=True, eq=False)
class FeldmanCousinsOutcome:
    """The region, ready to be shown and written.

    Attributes:
        job: The options.
        region: Data and toys on the grid.
        best: Best fit of all parameters, name → value.
        chi2_min: Its χ².
        valid: Whether the best fit and the profile at every point are valid.
        reason: Why not.
        invalid_points: Points of the grid whose profile is not valid.
        on_limit: Share of the toys' best fits that ended on a limit of a parameter.
        other_start: Share whose lowest minimum another start found than the point itself.
        simulated: Whether the data are expected counts.
        statistic: Of the fit.
        experiment: Its name.
        toys: All toys together.
        failed: Those without a valid Δχ².
        seconds: Wall time, without that of chunks that were kept.
    """

    job: FeldmanCousinsJob
    region: Region
    best: Mapping[str, float]
    chi2_min: float
    valid: bool
    reason: str
    invalid_points: int
    on_limit: float
    other_start: float
    simulated: bool
    statistic: str
    experiment: str
    toys: int
    failed: int
    seconds: float


def run_feldman_cousins(
    job: FeldmanCousinsJob,
    folder: str | os.PathLike[str] | None = None,
    *,
    jobs: Workers = 1,
    progress: Progress | None = None,
    force: bool = False,
    max_seconds: float | None = None,
) -> FeldmanCousinsOutcome:
    """Fit the data, draw and fit toys at every point; with a folder in chunks, and the same call continues.

    Args:
        job: The options.
        folder: Where chunks are kept; without one everything happens in this process.
        jobs: Number of processes, or what runs the chunks.
        progress: Called with (what, done, total).
        force: Throw away chunks of another configuration.
        max_seconds: Start no new chunk after this time.

    Raises:
        NuebarError: Options do not go together, or data cannot be used.
    """
    began = time.perf_counter()
    _ = job.sampling  # refuses what makes no sense
    _check(job.fit)
    fit, counts = _with_counts(job)
    _check_job(job, fit)
    config = _config(job, counts)
    if folder is None:
        plan = _plan(config)
        points = []
        for k in range(_size(plan)):
            points.append(_point({**config, "plan": plan}, k))
            if progress is not None:
                progress(POINTS, k + 1, _size(plan))
    else:
        options: dict[str, Any] = {"seed": job.seed, "jobs": jobs, "force": force, "max_seconds": max_seconds}
        first = Stage(BEST, "nuebar.jobs.feldman_cousins:best_chunk", config, 1, ".json", isolated=True)
        done = run_stage(folder, first, progress=progress, **options)
        plan = json.loads(done.paths[0].read_text(encoding="utf-8"))
        told_all = {**config, "plan": plan}
        second = Stage(
            POINTS, "nuebar.jobs.feldman_cousins:point_chunk", told_all, _size(plan), ".safetensors", isolated=True
        )
        done = run_stage(folder, second, progress=progress, **options)
        points = [load_arrays(path) for path in done.paths]
    return _outcome(job, fit, plan, points, time.perf_counter() - began)


def best_chunk(config: dict[str, Any], chunk: int, key: int, path: Path) -> dict[str, Any]:
    """The best fit of the data, and the grid."""
    plan = _plan(config)
    path.write_text(json.dumps(plan, allow_nan=False), encoding="utf-8")
    return {"chi2": plan["chi2"], "valid": plan["valid"]}


def point_chunk(config: dict[str, Any], chunk: int, key: int, path: Path) -> dict[str, Any]:
    """Data and toys of one point; they follow from the seed of the study and the numbers of the toys."""
    arrays, words = _point(config, chunk)
    save_arrays(path, arrays, words)
    return {"toys": len(arrays["delta_chi2"]), "failed": int(np.isnan(arrays["delta_chi2"]).sum())}


def write_feldman_cousins(
    outcome: FeldmanCousinsOutcome, folder: str | os.PathLike[str], *, pictures: bool = True
) -> list[Path]:
    """``feldman_cousins.json``, ``feldman_cousins.csv`` (one row a point) and pictures."""
    place = output_folder(folder)
    paths = [place / "feldman_cousins.json", place / "feldman_cousins.csv"]
    save_result(paths[0], _record(outcome))
    atomic_write_text(paths[1], _table(outcome.region))
    if pictures:
        from nuebar.report.feldman_cousins_plots import critical_map, region_1d, region_2d
        from nuebar.report.plots import save

        note = "simulated (Asimov)" if outcome.simulated else ""
        note = note if outcome.valid else "FIT NOT VALID"
        if len(outcome.region.names) == 1:
            figures = {"feldman_cousins.png": region_1d(outcome.region, note=note)}
        else:
            figures = {"feldman_cousins.png": region_2d(outcome.region, note=note)}
            figures["critical_values.png"] = critical_map(outcome.region, level=outcome.region.levels[0], note=note)
        for name, figure in figures.items():
            save(figure, place / name)
            paths.append(place / name)
    return paths


def feldman_cousins_report(outcome: FeldmanCousinsOutcome) -> str:
    """What the command prints."""
    region = outcome.region
    kind = "expected counts" if outcome.simulated else "data"
    lines = [
        f"{outcome.experiment}, {outcome.statistic}, {kind}: Feldman-Cousins, {outcome.toys} toys at "
        f"{len(region.points)} points, {outcome.failed} failed",
        "best fit: " + ", ".join(f"{n} = {v:.6g}" for n, v in zip(region.names, region.best, strict=True)),
    ]
    dof = len(region.names)
    if dof == 1:
        name = region.names[0]
        lines.append(f"{'level':>8s}  {'Feldman-Cousins':44s}  Delta chi2 of {dof} parameter")
        for level in region.levels:
            ours, wilks = region.segments(level), region.wilks_segments(level)
            head = f"{100 * level:7.2f}%{_mark(region, level)}"
            lines.append(f"{head} {_words(name, ours, True):44s}  {_words(name, wilks, False)}")
        lines.append("[...: reaches the end of the grid or a limit of the parameter; +-: from the number of toys")
    else:
        lines.append(f"{'level':>8s}  {'points in':>9s}  {'Wilks':>6s}  {'critical values':>20s}  {'Wilks':>6s}")
        for level in region.levels:
            value = region.critical(level)[0]
            near = value[np.abs(region.excess(level)) < 1.0]
            words = f"{near.min():.2f} to {near.max():.2f}" if near.size else "-"
            inside, ordinary = int(region.accepted(level).sum()), int(region.wilks(level).sum())
            lines.append(
                f"{100 * level:7.2f}%{_mark(region, level)} {inside:9d}  {ordinary:6d}  {words:>20s}  "
                f"{delta_chi2_level(level, dof):6.2f}"
            )
    lines += [_unresolved(outcome, level) for level in region.levels if not region.resolved(level)]
    lines.append(
        f"best fits of toys on a limit: {100 * outcome.on_limit:.1f} %, found by another start: "
        f"{100 * outcome.other_start:.1f} %; {outcome.seconds:.0f} s"
    )
    if not outcome.valid:
        lines.append(f"NOT VALID: {outcome.reason}")
    return "\n".join(lines)


# ---------------------------------------------------------------- the work of chunks


def _plan(config: Mapping[str, Any]) -> dict[str, Any]:
    fit = _fit(json.dumps(config["fit"], sort_keys=True), _text(config["counts"]))
    names = tuple(config["parameters"])
    construction = ProfileConstruction(fit, names, free_ordering=config["free_ordering"], threads=1)
    best = construction.best()
    missing = [n for n in names if n not in config["axes"]]
    default = POINTS_1D if len(names) == 1 else POINTS_2D
    given = dict(config["axes"])
    made = default_axes(fit, best, missing, config["points"] or default, both=config["free_ordering"])
    given |= {n: a.tolist() for n, a in zip(missing, made, strict=True)}
    return {
        "values": best.values.tolist(),
        "errors": best.errors.tolist(),
        "chi2": best.chi2,
        "valid": best.valid,
        "reason": best.reason,
        "axes": {n: given[n] for n in names},
    }


def _point(config: Mapping[str, Any], chunk: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    plan = config["plan"]
    construction = _construction(json.dumps({k: config[k] for k in ("fit", "parameters", "free_ordering", "plan")},
                                            sort_keys=True), _text(config["counts"]))  # fmt: skip
    axes = [np.array(plan["axes"][n]) for n in config["parameters"]]
    theta = tuple(float(a[i]) for a, i in zip(axes, np.unravel_index(chunk, [len(a) for a in axes]), strict=True))
    point = construction.profile(theta, np.array(plan["values"]))
    observed = max(point.chi2 - plan["chi2"], 0.0)
    options = ToyOptions(constraints=config["constraints"], shape=config["shape"])
    sampling = Sampling(config["toys"], config["batch"], tuple(config["levels"]), config["adaptive"])
    best, limit, other = [], [], []

    def toys(numbers: range) -> np.ndarray:
        found = construction.toys(point, numbers, seed=config["seed"], options=options)
        best.append(found.best)
        limit.append(found.on_limit)
        other.append(found.other_start)
        return found.delta_chi2

    delta = sample(toys, observed, sampling)
    arrays = {
        "theta": np.array(theta),
        "chi2": np.array(point.chi2),
        "values": point.values,
        "delta_chi2": delta,
        "best": np.concatenate(best),
        "on_limit": np.concatenate(limit).astype(np.uint8),
        "other_start": np.concatenate(other).astype(np.uint8),
    }
    return arrays, {"format": 1, "valid": point.valid, "reason": point.reason}


@lru_cache(maxsize=2)
def _construction(text: str, counts: str) -> ProfileConstruction:
    """One engine for all chunks of a worker."""
    config = json.loads(text)
    axes = config["plan"]["axes"]
    return ProfileConstruction(
        _fit(json.dumps(config["fit"], sort_keys=True), counts),
        config["parameters"],
        free_ordering=config["free_ordering"],
        span={n: _span(np.array(a)) for n, a in axes.items()},
        best=np.array(config["plan"]["values"]),
        threads=1,
    )


@lru_cache(maxsize=2)
def _fit(text: str, counts: str) -> SpectrumFit:
    fit = physical(build_fit(fit_job(json.loads(text))))
    given = json.loads(counts)
    return fit if given is None else replace(fit, counts=np.array(given, float))


def _text(counts: Any) -> str:
    return json.dumps(None if counts is None else list(counts))


def _span(axis: np.ndarray) -> tuple[float, float]:
    return float(np.abs(axis).min()), float(np.abs(axis).max())


def _size(plan: Mapping[str, Any]) -> int:
    return int(np.prod([len(a) for a in plan["axes"].values()]))


# ---------------------------------------------------------------- options and records


def _with_counts(job: FeldmanCousinsJob) -> tuple[SpectrumFit, list[float] | None]:
    """The fit, and its counts if they are measured."""
    experiment = _experiment(job.fit)
    release = read_juno_2025(job.fit.release) if job.fit.release is not None else None
    inputs = read_common_inputs(job.fit.inputs) if job.fit.inputs is not None else None
    fit, simulated = _prepare(job.fit, experiment, release, inputs, None)
    return physical(fit), None if simulated else [float(n) for n in fit.counts]


def _check_job(job: FeldmanCousinsJob, fit: SpectrumFit) -> None:
    if not 1 <= len(job.parameters) <= 2 or len(set(job.parameters)) != len(job.parameters):
        raise NuebarError(f"expected one parameter or two different ones, got {' '.join(job.parameters) or 'none'}")
    for name in job.parameters:
        if fit.parameters[fit.parameters.known(name)].fixed:
            raise NuebarError(f"expected parameters that the fit frees, got {name!r}, which is fixed; free it")
    for name, axis in job.axes.items():
        if name not in job.parameters:
            raise NuebarError(f"--scan: expected a grid of {' or '.join(job.parameters)}, got one of {name!r}")
        low, high = fit.parameters[name].bounds
        ends = (float(np.min(axis)), float(np.max(axis)))
        if job.free_ordering and name == SPLITTING:
            continue
        if (low is not None and ends[0] < low) or (high is not None and ends[1] > high):
            raise NuebarError(
                f"--scan: expected {name} between its limits {low} and {high}, got {ends[0]:g} to {ends[1]:g}; "
                "narrow it"
            )
    if job.points is not None and job.points < 4:
        raise NuebarError(f"--points: expected at least 4 along an axis, got {job.points}")


def _config(job: FeldmanCousinsJob, counts: list[float] | None) -> dict[str, Any]:
    return {
        "fit": told(replace(job.fit, asimov=True, data=None)),
        "counts": counts,
        "parameters": list(job.parameters),
        "axes": {n: [float(v) for v in a] for n, a in job.axes.items()},
        "points": job.points,
        "toys": job.toys,
        "batch": job.batch,
        "levels": list(job.levels),
        "adaptive": job.adaptive,
        "free_ordering": job.free_ordering,
        "constraints": job.constraints,
        "shape": job.shape,
        "seed": job.seed,
    }


def _outcome(
    job: FeldmanCousinsJob,
    fit: SpectrumFit,
    plan: Mapping[str, Any],
    points: list[tuple[dict[str, np.ndarray], dict[str, Any]]],
    seconds: float,
) -> FeldmanCousinsOutcome:
    chi2 = np.array([float(a["chi2"]) for a, _ in points])
    good = np.array([bool(w["valid"]) for _, w in points])
    lowest = min(float(plan["chi2"]), float(np.min(chi2[good], initial=np.inf)))
    values = np.array(plan["values"])
    missed = float(plan["chi2"]) - lowest
    names = fit.parameters.names
    measured = tuple(
        PointToys(
            tuple(float(v) for v in a["theta"]),
            max(float(a["chi2"]) - lowest, 0.0) if w["valid"] else float("nan"),
            np.asarray(a["delta_chi2"], float),
        )
        for a, w in points
    )
    reasons = [] if plan["valid"] else [f"best fit: {plan['reason']}"]
    if not good.all():
        reasons.append(
            f"{int((~good).sum())} profiles of the data, the first {points[int(np.argmin(good))][1]['reason']}"
        )
    if missed > 1e-3:
        reasons.append(f"a point of the grid lies {missed:.3g} below the best fit; start from it or give a finer grid")
    n = sum(len(p.delta_chi2) for p in measured)
    region = Region(
        names=tuple(job.parameters),
        axes=tuple(np.array(plan["axes"][m]) for m in job.parameters),
        points=measured,
        best=tuple(float(values[names.index(m)]) for m in job.parameters),
        levels=tuple(job.levels),
    )
    return FeldmanCousinsOutcome(
        job=job,
        region=region,
        best=dict(zip(names, values.tolist(), strict=True)),
        chi2_min=lowest,
        valid=not reasons,
        reason="; ".join(reasons),
        invalid_points=int((~good).sum()),
        on_limit=sum(int(a["on_limit"].sum()) for a, _ in points) / n,
        other_start=sum(int(a["other_start"].sum()) for a, _ in points) / n,
        simulated=job.fit.asimov,
        statistic=fit.statistic,
        experiment=fit.experiment,
        toys=n,
        failed=sum(p.failed for p in measured),
        seconds=seconds,
    )


def _record(outcome: FeldmanCousinsOutcome) -> dict[str, Any]:
    region, job = outcome.region, outcome.job
    dof = len(region.names)
    levels = []
    for level in region.levels:
        row: dict[str, Any] = {"level": level, "wilks_delta_chi2": delta_chi2_level(level, dof)}
        row |= {"resolved": region.resolved(level), "deciding_toys": region.deciding_toys(level)}
        if dof == 1:
            row["segments"] = [asdict(s) for s in region.segments(level)]
            row["wilks_segments"] = [asdict(s) for s in region.wilks_segments(level)]
        else:
            row["accepted"] = region.accepted(level).astype(int).tolist()
            row["wilks"] = region.wilks(level).astype(int).tolist()
        levels.append(row)
    return {
        "format": 1,
        "kind": "feldman-cousins",
        "parameters": list(region.names),
        "axes": {n: a.tolist() for n, a in zip(region.names, region.axes, strict=True)},
        "best": dict(zip(region.names, region.best, strict=True)),
        "best_fit": dict(outcome.best),
        "chi2_min": outcome.chi2_min,
        "levels": levels,
        "toys": outcome.toys,
        "failed": outcome.failed,
        "toys_per_point": {"most": job.toys, "batch": job.batch, "adaptive": job.adaptive},
        "best_fits_on_a_limit": outcome.on_limit,
        "best_fits_of_another_start": outcome.other_start,
        "valid": outcome.valid,
        "reason": outcome.reason,
        "invalid_points": outcome.invalid_points,
        "simulated": outcome.simulated,
        "free_ordering": job.free_ordering,
        "constraints_fluctuate": job.constraints,
        "shape_fluctuates": job.shape,
        "nuisance_parameters": "profiled at every point (coverage over them is approximate)",
        "experiment": outcome.experiment,
        "statistic": outcome.statistic,
        "seed": job.seed,
        "seconds": outcome.seconds,
        "versions": versions(),
    }


def _table(region: Region) -> str:
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    levels = [f"{100 * level:g}" for level in region.levels]
    critical = [f"critical_{text}{end}" for text in levels for end in ("", "_low", "_high")]
    inside = [f"accepted_{text}" for text in levels]
    rows.writerow([*region.names, "delta_chi2", "p_value", "p_error", "toys", "failed", *critical, *inside])
    for p in region.points:
        found = [p.critical(level) for level in region.levels]
        numbers = [f"{v:.6g}" for c in found for v in (c.value, c.low, c.high)]
        accepted = [int(p.accepted(level)) for level in region.levels]
        head = [f"{v:.10g}" for v in (*p.theta, p.observed)]
        rows.writerow([*head, f"{p.p_value:.6g}", f"{p.p_error:.3g}", len(p.delta_chi2), p.failed, *numbers, *accepted])
    return buffer.getvalue()


def _mark(region: Region, level: float) -> str:
    return " " if region.resolved(level) else "!"


def _unresolved(outcome: FeldmanCousinsOutcome, level: float) -> str:
    """What to do about a level whose border rests on too few toys."""
    needed, toys = _rounded_up(ENOUGH / (1.0 - level)), outcome.region.deciding_toys(level)
    advice = f"take {needed} or more (--toys)"
    if outcome.job.toys >= needed:  # the points beside the border are too far from it to get all toys
        advice = "take a finer grid (--points) or --all-toys"
    return f"! {100 * level:.2f} %: {toys} toys a point do not resolve it; {advice}"


def _rounded_up(x: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50 and so on."""
    power = 10 ** math.floor(math.log10(x))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= x - 1e-9)


def _words(name: str, segments: tuple[Segment, ...], errors: bool) -> str:
    """Segments in the unit that suits the parameter."""
    factor = scale_of(name).factor
    parts = []
    for s in segments:
        low, high = f"{s.low / factor:.5g}", f"{s.high / factor:.5g}"
        if errors:
            low += f"+-{s.low_error / factor:.1g}" if s.low_error else ""
            high += f"+-{s.high_error / factor:.1g}" if s.high_error else ""
        parts.append(("[..." if s.open_low else "") + f"{low} to {high}" + ("...]" if s.open_high else ""))
    return ", ".join(parts) or "empty"
