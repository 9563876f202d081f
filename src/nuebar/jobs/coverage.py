"""The job of ``nuebar fit coverage``: toys at several exposures in chunks, and what every kind of interval covers."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.fit.coverage import (
    ARRAYS,
    METHODS,
    CoverageRow,
    CoverageStudy,
    CoverageToys,
    coverage,
    joined_coverage,
)
from nuebar.fit.many import REASONS
from nuebar.fit.toys import ToyOptions
from nuebar.io.arrays import load_arrays, save_arrays
from nuebar.io.files import atomic_write_text, output_folder
from nuebar.io.results import git_commit, save_result, versions
from nuebar.jobs.fit import FitJob, _experiment
from nuebar.jobs.fit_config import build_fit, fit_job, told
from nuebar.run import Stage, Workers, run_stage

__all__ = [
    "CoverageJob",
    "CoverageOutcome",
    "CoveragePoint",
    "coverage_chunk",
    "coverage_report",
    "run_coverage",
    "table",
    "write_coverage",
]

Progress = Callable[[str, int, int], None]
PER_CHUNK = 200
TABLE_SIGMAS = (1.0, 2.0)


@dataclass(frozen=True)
class CoverageJob:
    """The options of ``nuebar fit coverage``.

    Attributes:
        fit: Experiment, predictor, statistic and what is fixed, as for a fit; its data are not used.
        days: Exposures in days; that of the fit if there is none.
        toys: How many at every exposure.
        posteriors: So many of them get a posterior.
        widths: So many of them get the widths of Minos's and the profile's intervals.
        draws: Draws of a posterior at a time.
        truth: Parameters that differ from the nominal ones, by name; fits start at the nominal ones.
        constraints: Whether the centres of the constraints fluctuate.
        shape: Whether expectations fluctuate within their bin-to-bin uncertainties.
        seed: Of the study.
    """

    fit: FitJob = field(default_factory=lambda: FitJob(asimov=True))
    days: tuple[float, ...] = ()
    toys: int = 500
    posteriors: int = 100
    widths: int = 100
    draws: int = 1000
    truth: Mapping[str, float] = field(default_factory=dict)
    constraints: bool = True
    shape: bool = True
    seed: int = 1


@dataclass(frozen=True, eq=False)
class CoveragePoint:
    """All toys at one exposure.

    Attributes:
        days: The exposure.
        toys: What decides on their intervals.
        rows: What they cover.
    """

    days: float
    toys: CoverageToys
    rows: tuple[CoverageRow, ...]

    def row(self, parameter: str, method: str, n_sigma: float = 1.0) -> CoverageRow | None:
        """One of the rows, or None."""
        for r in self.rows:
            if (r.parameter, r.method, r.n_sigma) == (parameter, method, n_sigma):
                return r
        return None

    def failures(self) -> dict[str, int]:
        """Reason → number of fits from the nominal values that are not valid for it."""
        status = self.toys.status
        return {REASONS[k]: int(np.sum(status == k)) for k in range(1, len(REASONS)) if np.any(status == k)}


@dataclass(frozen=True, eq=False)
class CoverageOutcome:
    """The study, ready to be shown and written."""

    job: CoverageJob
    points: tuple[CoveragePoint, ...]
    experiment: str
    statistic: str
    ordering: str
    priors: Mapping[str, float | None]
    seconds: float

    def off(self) -> list[str]:
        """One sentence for each interval of interest whose coverage is off."""
        out = []
        for point in self.points:
            for r in point.rows:
                if r.off and r.parameter in point.toys.interest:
                    out.append(
                        f"at {point.days:.4g} days the {r.n_sigma:g} sigma {r.method} interval of {r.parameter} "
                        f"{r.verdict}: {100 * r.coverage:.1f} +- {100 * r.error:.1f} % instead of {100 * r.level:.1f} %"
                    )
        return out


def run_coverage(
    job: CoverageJob,
    folder: str | os.PathLike[str] | None = None,
    *,
    jobs: Workers = 1,
    progress: Progress | None = None,
    force: bool = False,
    max_seconds: float | None = None,
) -> CoverageOutcome:
    """Draw, fit and judge; with a folder in chunks, by several processes, and the same call continues.

    Args:
        job: The options.
        folder: Where chunks are kept; without one everything happens in this process.
        jobs: Number of processes, or what else runs the chunks.
        progress: Called with (what, done, total).
        force: Throw away chunks of another configuration.
        max_seconds: Start no new chunk after this time.

    Raises:
        NuebarError: Options do not go together.
    """
    began = time.perf_counter()
    fit = build_fit(job.fit)
    days = job.days or (_days(job.fit),)
    _check(job, days)
    for name in job.truth:
        fit.parameters.known(name)
    job = replace(job, days=tuple(float(d) for d in days))
    blocks = -(-job.toys // PER_CHUNK)
    if folder is None:
        parts = []
        total = blocks * len(days)
        for chunk in range(total):
            parts.append(_measured(_config(job), chunk))
            if progress is not None:
                progress("coverage", chunk + 1, total)
    else:
        stage = Stage(
            "coverage",
            "nuebar.jobs.coverage:coverage_chunk",
            _config(job),
            blocks * len(days),
            ".safetensors",
            isolated=True,
        )
        done = run_stage(
            folder, stage, seed=job.seed, jobs=jobs, progress=progress, force=force, max_seconds=max_seconds
        )
        parts = [_loaded(path) for path in done.paths]
    points = []
    for e, d in enumerate(job.days):
        toys = joined_coverage(parts[e :: len(job.days)]).rows(slice(0, job.toys))
        points.append(CoveragePoint(d, toys, coverage(toys, sigmas=TABLE_SIGMAS)))
    return CoverageOutcome(
        job=job,
        points=tuple(points),
        experiment=fit.experiment,
        statistic=fit.statistic,
        ordering=job.fit.ordering,
        priors={n: fit.parameters[n].sigma for n in points[0].toys.interest},
        seconds=time.perf_counter() - began,
    )


def coverage_chunk(config: dict[str, Any], chunk: int, key: int, path: Path) -> dict[str, Any]:
    """Toys of one block at one exposure; they follow from the seed and their numbers, not from the chunk."""
    toys = _measured(config, chunk)
    arrays = {n: np.asarray(getattr(toys, n)) for n in ARRAYS}
    words = {"format": 1, "names": list(toys.names), "interest": list(toys.interest)}
    save_arrays(path, arrays, words)
    return {"toys": len(toys), "valid": int(np.sum(toys.status == 0)), "seconds": dict(toys.seconds)}


def write_coverage(outcome: CoverageOutcome, folder: str | os.PathLike[str], *, pictures: bool = True) -> list[Path]:
    """``coverage.json``, ``coverage.csv`` (one row an interval) and a picture of each exposure.

    Args:
        outcome: The study.
        folder: Where to.
        pictures: Whether to draw.
    """
    place = output_folder(folder)
    save_result(place / "coverage.json", record(outcome))
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(["exposure_days", *_COLUMNS])
    for point in outcome.points:
        for r in point.rows:
            rows.writerow([f"{point.days:.8g}", *_cells(r).values()])
    atomic_write_text(place / "coverage.csv", buffer.getvalue())
    written = [place / "coverage.json", place / "coverage.csv"]
    if pictures:
        from nuebar.report.coverage_plots import coverage_picture, rank_picture
        from nuebar.report.plots import save

        picture = coverage_picture(
            {f"{p.days:.4g} days": [r for r in p.rows if r.parameter in p.toys.interest] for p in outcome.points},
            title=f"{outcome.experiment}, {outcome.statistic}",
        )
        save(picture, place / "coverage.png")
        written.append(place / "coverage.png")
        for point in outcome.points:
            good = ~np.isnan(point.toys.effective)
            if good.sum() < 20:
                continue
            path = place / f"posterior-ranks-{point.days:.0f}-days.png"
            ranks = {n: point.toys.rank[good, j] for j, n in enumerate(point.toys.interest)}
            save(rank_picture(ranks, title=f"{outcome.experiment}, {point.days:.4g} days"), path)
            written.append(path)
    return written


def record(outcome: CoverageOutcome) -> dict[str, Any]:
    """The study as plain JSON."""
    job = outcome.job
    return {
        "format": 1,
        "kind": "coverage",
        "experiment": outcome.experiment,
        "statistic": outcome.statistic,
        "ordering": outcome.ordering,
        "seed": job.seed,
        "toys": job.toys,
        "truth": dict(job.truth),
        "constraints_fluctuate": job.constraints,
        "shape_fluctuates": job.shape,
        "priors": dict(outcome.priors),
        "exposures": [
            {
                "exposure_days": p.days,
                "failures": p.failures(),
                "other_minimum_is_lower": float(np.mean(p.toys.shift > 0.01)),
                "effective_draws": _quantiles(p.toys.effective),
                "rows": [{**_cells(r), "verdict": r.verdict} for r in p.rows],
            }
            for p in outcome.points
        ],
        "off": outcome.off(),
        "seconds": outcome.seconds,
        "versions": versions(),
    }


def table(outcome: CoverageOutcome) -> dict[str, Any]:
    """The table that ships with the package, see :mod:`nuebar.fit.known_coverage`: parameters of interest only."""
    rows = []
    for p in outcome.points:
        for r in p.rows:
            if r.parameter in p.toys.interest and math.isfinite(r.coverage):
                row = {"exposure_days": p.days, "statistic": outcome.statistic, "parameter": r.parameter}
                rows.append(
                    {**row, "method": r.method, "n_sigma": r.n_sigma, "level": round(r.level, 6), "toys": r.toys,
                     "failed": r.failed, "coverage": round(r.coverage, 5), "error": round(r.error, 5), "off": r.off}
                )  # fmt: skip
    return {
        "format": 1,
        "kind": "known coverage",
        "experiment": outcome.experiment,
        "ordering": outcome.ordering,
        "priors": dict(outcome.priors),
        "seed": outcome.job.seed,
        "commit": git_commit(),
        "rows": rows,
    }


def coverage_report(outcome: CoverageOutcome) -> str:
    """What the command prints."""
    lines = []
    for p in outcome.points:
        failed = "; ".join(f"{n} {reason}" for reason, n in p.failures().items())
        lines.append(
            f"{outcome.experiment} ({outcome.statistic}), {p.days:.4g} days: {len(p.toys)} toys"
            + (f"; not valid: {failed}" if failed else ", all valid")
        )
        moved = float(np.mean(p.toys.shift > 0.01))
        if moved > 0:
            lines.append(f"another minimum of Δm²31 is lower than that of the nominal start in {100 * moved:.1f} %")
        lines.append(
            f"{'parameter':12s} {'interval':13s} {'1 sigma: 68.3 %':>16s} {'2 sigma: 95.4 %':>16s} "
            f"{'half width':>11s} {'failed':>7s}"
        )
        for name in p.toys.interest:
            for method in METHODS:
                one, two = p.row(name, method, 1.0), p.row(name, method, 2.0)
                if one is None or two is None:
                    continue
                lines.append(
                    f"{name:12s} {method:13s} {_share(one)} {_share(two)} {_number(one.half_width):>11s} "
                    f"{one.failed:4d}/{one.toys:<d}"
                )
        others = [r for r in p.rows if r.off and r.parameter not in p.toys.interest]
        lines += [f"  {r.parameter}, {r.method}, {r.n_sigma:g} sigma: {r.verdict}" for r in others]
        lines.append("")
    off = outcome.off()
    if off:
        lines += ["Off (marked *), by more than 3 sigma of the toys and 2 points:", *(f"  {s}" for s in off)]
    else:
        lines.append("No interval is off by more than 3 sigma of the toys and 2 points.")
    lines.append(f"{outcome.seconds:.1f} s")
    return "\n".join(lines)


# ---------------------------------------------------------------- helpers

_COLUMNS = (
    "parameter", "method", "n_sigma", "level", "toys", "failed", "covered", "coverage", "low", "high",
    "coverage_all", "half_width", "significance", "off",
)  # fmt: skip


def _cells(r: CoverageRow) -> dict[str, Any]:
    def plain(x: Any) -> Any:
        if isinstance(x, float):
            return float(f"{x:.8g}") if math.isfinite(x) else None
        return x

    return {n: plain(getattr(r, n)) for n in _COLUMNS}


def _share(r: CoverageRow) -> str:
    if not math.isfinite(r.coverage):
        return f"{'none':>16s}"
    return f"{100 * r.coverage:8.1f} +- {100 * r.error:3.1f}{'*' if r.off else ' '}"


def _number(x: float) -> str:
    return f"{x:.3g}" if math.isfinite(x) else "-"


def _quantiles(x: np.ndarray) -> dict[str, float] | None:
    good = x[~np.isnan(x)]
    if not good.size:
        return None
    low, middle = np.quantile(good, [0.01, 0.5])
    return {"least": float(good.min()), "one_percent": float(low), "median": float(middle)}


def _days(job: FitJob) -> float:
    return float(_experiment(replace(job, asimov=True, data=None)).exposure.days)


def _check(job: CoverageJob, days: Sequence[float]) -> None:
    if job.toys < 2:
        raise NuebarError(f"--toys: expected two or more, got {job.toys}")
    if min(job.posteriors, job.widths) < 0 or job.draws < 100:
        raise NuebarError(
            f"--posteriors, --widths, --draws: expected numbers from 0, and 100 draws or more, got {job.posteriors}, "
            f"{job.widths}, {job.draws}"
        )
    if not all(np.isfinite(d) and d > 0 for d in days) or len(set(days)) != len(days):
        raise NuebarError(f"exposures: expected different positive numbers of days, got {', '.join(map(str, days))}")


def _config(job: CoverageJob) -> dict[str, Any]:
    rest = {f.name: getattr(job, f.name) for f in fields(CoverageJob) if f.name not in ("fit", "toys")}
    return {"fit": told(job.fit), **rest, "days": list(job.days), "truth": dict(job.truth)}


def _measured(config: Mapping[str, Any], chunk: int) -> CoverageToys:
    block, e = divmod(chunk, len(config["days"]))
    study = _study(json.dumps(config["fit"], sort_keys=True), float(config["days"][e]))
    return study.toys(
        range(block * PER_CHUNK, (block + 1) * PER_CHUNK),
        seed=config["seed"],
        truth=config["truth"],
        options=ToyOptions(constraints=config["constraints"], shape=config["shape"]),
        posteriors=config["posteriors"],
        draws=config["draws"],
        widths=config["widths"],
    )


@lru_cache(maxsize=4)
def _study(text: str, days: float) -> CoverageStudy:
    """One study an exposure; all share the compact predictor and with it the compiled programs."""
    base, base_days = _base(text)
    return base if days == base_days else base.at(days / base_days)


@lru_cache(maxsize=1)
def _base(text: str) -> tuple[CoverageStudy, float]:
    job = fit_job(json.loads(text))
    return CoverageStudy(build_fit(job)), _days(job)


def _loaded(path: Path) -> CoverageToys:
    arrays, words = load_arrays(path)
    return CoverageToys(
        names=tuple(words["names"]), interest=tuple(words["interest"]), seconds={}, **{n: arrays[n] for n in ARRAYS}
    )
