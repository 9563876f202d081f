"""The job of ``nuebar fit sterile``: expected exclusion of a sterile state, row by row, and its spread over toys."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.fit.sterile import LimitSpread, SterileMap, SterileStudy
from nuebar.fit.toys import ToyOptions
from nuebar.io.arrays import load_arrays, save_arrays
from nuebar.io.files import atomic_write_text, output_folder
from nuebar.io.releases import read_common_inputs, read_juno_2025
from nuebar.io.results import save_result, versions
from nuebar.jobs.fit import FitJob, _check, _experiment, _prepare
from nuebar.jobs.fit_config import fit_job, told
from nuebar.predict.sterile import DM2_41_eV2, with_sterile
from nuebar.run import Stage, Workers, run_stage

__all__ = [
    "SterileJob",
    "SterileOutcome",
    "build_sterile_fit",
    "run_sterile",
    "sterile_chunk",
    "sterile_report",
    "write_sterile",
]

Progress = Callable[[str, int, int], None]
ROWS_PER_CHUNK = 8
TOYS_PER_CHUNK = 8
QUANTILES = (0.025, 0.16, 0.5, 0.84, 0.975)


@dataclass(frozen=True)
class SterileJob:
    """The options of ``nuebar fit sterile``.

    Attributes:
        fit: Experiment, inputs, statistic and what is fixed, as for a fit; its data and exposure are not used.
        mixing: sin²2θ14: lowest, highest and number of points, equal steps of the logarithm.
        splitting: Δm²41 in eV², likewise.
        years: Exposures in years of the experiment's ``days_per_year``; one map for each.
        cl: Confidence level of the limits, two degrees of freedom.
        toys: Data sets of three flavours for the spread of limits, at the first exposure; 0 for none.
        toy_splittings: Δm²41 at which they get a limit.
        constraints: Whether the centres of the constraints of toys fluctuate.
        shape: Whether expectations fluctuate within their bin-to-bin uncertainties.
        seed: Of the toys.
    """

    fit: FitJob = field(default_factory=lambda: FitJob(asimov=True))
    mixing: tuple[float, float, int] = (2e-3, 1.0, 16)
    splitting: tuple[float, float, int] = (2e-6, 0.3, 53)
    years: tuple[float, ...] = (6.0,)
    cl: float = 0.95
    toys: int = 0
    toy_splittings: tuple[float, ...] = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 5e-3, 0.1)
    constraints: bool = True
    shape: bool = True
    seed: int = 1

    @property
    def axes(self) -> tuple[np.ndarray, np.ndarray]:
        """sin²2θ14 and Δm²41 of the grid."""
        (x0, x1, nx), (y0, y1, ny) = self.mixing, self.splitting
        return np.geomspace(x0, x1, int(nx)), np.geomspace(y0, y1, int(ny))


@dataclass(frozen=True, eq=False)
class SterileOutcome:
    """Everything, ready to be shown and written.

    Attributes:
        job: The options.
        maps: One for each exposure.
        spread: Limits of toys, at the first exposure; None without toys.
        experiment: Its name.
        statistic: Of the fits.
        ordering: Of the true and fitted splittings.
        seconds: Wall time.
    """

    job: SterileJob
    maps: tuple[SterileMap, ...]
    spread: LimitSpread | None
    experiment: str
    statistic: str
    ordering: str
    seconds: float

    @property
    def valid(self) -> bool:
        """Whether every fit that the limits need converged."""
        return all(bool(m.backed(self.job.cl).all()) for m in self.maps)


def build_sterile_fit(job: FitJob) -> tuple[SpectrumFit, float]:
    """The fit of expected three-flavour counts with a sterile state, and the days of one year of the experiment.

    Raises:
        NuebarError: Options do not go together.
    """
    wanted = replace(job, asimov=True, data=None, exposure_years=None, exposure_days=None)
    _check(wanted)
    experiment = _experiment(wanted)
    experiment = experiment if experiment.sterile else with_sterile(experiment)
    release = read_juno_2025(wanted.release) if wanted.release is not None else None
    inputs = read_common_inputs(wanted.inputs) if wanted.inputs is not None else None
    fit, _ = _prepare(wanted, experiment, release, inputs, None)
    return fit, experiment.exposure.days_per_year / experiment.exposure.days


def run_sterile(
    job: SterileJob,
    folder: str | os.PathLike[str] | None = None,
    *,
    jobs: Workers = 1,
    progress: Progress | None = None,
    force: bool = False,
    max_seconds: float | None = None,
) -> SterileOutcome:
    """Fit every point of the grid; with a folder in chunks of rows, by several processes, and the same call continues.

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
    _check_job(job)
    config = _config(job)
    SterileStudy(build_sterile_fit(job.fit)[0])  # refuses what does not go together before any worker starts
    pieces: dict[str, list[dict[str, np.ndarray]]] = {}
    for name, chunks in (("sterile-map", _map_chunks(job)), ("sterile-toys", -(-job.toys // TOYS_PER_CHUNK))):
        if not chunks:
            pieces[name] = []
        elif folder is None:
            pieces[name] = []
            for k in range(chunks):
                pieces[name].append(_piece(config, name, k))
                if progress is not None:
                    progress(name, k + 1, chunks)
        else:
            stage = Stage(
                name, "nuebar.jobs.sterile:sterile_chunk", {**config, "what": name}, chunks, ".safetensors", True
            )
            done = run_stage(
                folder, stage, seed=job.seed, jobs=jobs, progress=progress, force=force, max_seconds=max_seconds
            )
            pieces[name] = [load_arrays(path)[0] for path in done.paths]
    fit, _ = _study(json.dumps(config["fit"], sort_keys=True))
    return SterileOutcome(
        job=job,
        maps=_maps(job, pieces["sterile-map"]),
        spread=_spread(job, pieces["sterile-toys"]),
        experiment=fit.fit.experiment,
        statistic=fit.fit.statistic,
        ordering=job.fit.ordering,
        seconds=time.perf_counter() - began,
    )


def sterile_chunk(config: dict[str, Any], chunk: int, key: int, path: Path) -> dict[str, Any]:
    """Some rows of a map, or some toys; the numbers follow from the configuration and the chunk alone."""
    arrays = _piece(config, config["what"], chunk)
    save_arrays(path, arrays, {"format": 1, "what": config["what"]})
    return {"fits": int(arrays["valid"].size), "valid": int(arrays["valid"].sum())}


def sterile_report(outcome: SterileOutcome) -> str:
    """What the command prints."""
    job = outcome.job
    lines = [
        f"{outcome.experiment}, {outcome.statistic}, {outcome.ordering} ordering: expected exclusion of sin2(2 th14) "
        f"at {100 * job.cl:g} % CL (2 dof, Wilks)",
        f"{'dm2_41 [eV2]':>14s} " + " ".join(f"{y:>7g} years" for y in job.years),
    ]
    limits = np.array([m.limit(job.cl) for m in outcome.maps])
    for k, splitting in enumerate(outcome.maps[0].dm2_41_eV2):
        cells = [f"{x:13.4g}" if np.isfinite(x) else f"{'-':>13s}" for x in limits[:, k]]
        lines.append(f"{splitting:14.3e} " + " ".join(cells))
    if outcome.spread is not None:
        s = outcome.spread
        n = s.limits.shape[1]
        lines.append(f"{n} toys at {job.years[0]:g} years, each splitting by itself (1 dof): limit, 68 % of the toys")
        low, median, high = s.quantiles((0.16, 0.5, 0.84))
        for k, splitting in enumerate(s.dm2_41_eV2):
            ok = int(s.valid[k].sum())
            lines.append(f"{splitting:14.3e} {median[k]:.4g} [{low[k]:.4g}, {high[k]:.4g}], {ok} of {n} valid")
    lines.append(f"{outcome.seconds:.0f} s" + ("" if outcome.valid else "; NOT ALL FITS ARE VALID, see sterile.json"))
    return "\n".join(lines)


def write_sterile(outcome: SterileOutcome, folder: str | os.PathLike[str], *, pictures: bool = True) -> list[Path]:
    """``sterile.json``, ``sterile.csv`` (every point) and ``sterile.png``."""
    place = output_folder(folder)
    paths = [place / "sterile.json", place / "sterile.csv"]
    save_result(paths[0], sterile_record(outcome))
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(["years", "dm2_41_eV2", "sin2_2th14", "delta_chi2", "valid", "on_limit"])
    for years, m in zip(outcome.job.years, outcome.maps, strict=True):
        for i, y in enumerate(m.dm2_41_eV2):
            for j, x in enumerate(m.sin2_2th14):
                cells = [f"{years:g}", f"{y:.8g}", f"{x:.8g}", f"{m.delta_chi2[i, j]:.8g}"]
                rows.writerow([*cells, int(m.valid[i, j]), int(m.limited[i, j])])
    atomic_write_text(paths[1], buffer.getvalue())
    if pictures:
        from nuebar.report.plots import save
        from nuebar.report.sterile_plots import exclusion

        limits = [m.limit(outcome.job.cl) for m in outcome.maps]
        curves = {f"{y:g} calendar years": x for y, x in zip(outcome.job.years, limits, strict=True)}
        band = None
        if outcome.spread is not None and outcome.spread.limits.shape[1] >= 4:
            band = (outcome.spread.dm2_41_eV2, *outcome.spread.quantiles((0.16, 0.84)))
        figure = exclusion(outcome.maps[0].dm2_41_eV2, curves, cl=outcome.job.cl, band=band)
        paths.append(place / "sterile.png")
        save(figure, paths[-1])
    return paths


def sterile_record(outcome: SterileOutcome) -> dict[str, Any]:
    """What goes into ``sterile.json``."""
    job = outcome.job
    first = outcome.maps[0]
    record: dict[str, Any] = {
        "format": 1,
        "kind": "sterile exclusion",
        "experiment": outcome.experiment,
        "inputs": None if job.fit.inputs is None else Path(job.fit.inputs).name,
        "statistic": outcome.statistic,
        "ordering": outcome.ordering,
        "cl": job.cl,
        "dof": 2,
        "seed": job.seed,
        "valid": outcome.valid,
        "sin2_2th14": first.sin2_2th14.tolist(),
        "dm2_41_eV2": first.dm2_41_eV2.tolist(),
        "maps": [
            {
                "years": y,
                "limit": [None if np.isnan(v) else float(v) for v in m.limit(job.cl)],
                "delta_chi2": [[float(v) if np.isfinite(v) else None for v in row] for row in m.delta_chi2],
                "fits": int(m.valid.size),
                "valid": int(m.valid.sum()),
                "on_limit": int(m.limited.sum()),
            }
            for y, m in zip(job.years, outcome.maps, strict=True)
        ],
        "seconds": outcome.seconds,
        "versions": versions(),
    }
    if outcome.spread is not None:
        s = outcome.spread
        record["toys"] = {
            "toys": int(s.limits.shape[1]),
            "years": job.years[0],
            "dof": 1,
            "dm2_41_eV2": s.dm2_41_eV2.tolist(),
            "quantiles": list(QUANTILES),
            "limits": [[None if np.isnan(v) else float(v) for v in row] for row in s.quantiles(QUANTILES)],
            "outside_grid": [int(np.sum(good & np.isnan(r))) for good, r in zip(s.valid, s.limits, strict=True)],
            "valid": [int(row.sum()) for row in s.valid],
            "excludes_three_flavours": s.excluded_zero.tolist(),
        }
    return record


# ---------------------------------------------------------------- chunks


def _config(job: SterileJob) -> dict[str, Any]:
    """Plain JSON for a worker; the number of toys is left out, so that it may grow."""
    wanted = replace(job.fit, asimov=True, data=None, exposure_years=None, exposure_days=None)
    plain = {k: v for k, v in asdict(replace(job, fit=FitJob())).items() if k not in ("fit", "toys")}
    return {"fit": told(wanted), "job": json.loads(json.dumps(plain))}


def _job(config: Mapping[str, Any]) -> SterileJob:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config["job"].items()}
    return SterileJob(fit=fit_job(config["fit"]), **values)


@lru_cache(maxsize=2)
def _study(text: str) -> tuple[SterileStudy, float]:
    """One compiled study for all chunks of a worker."""
    fit, per_year = build_sterile_fit(fit_job(json.loads(text)))
    return SterileStudy(fit, threads=1), per_year


def _map_chunks(job: SterileJob) -> int:
    return len(job.years) * -(-int(job.splitting[2]) // ROWS_PER_CHUNK)


def _piece(config: Mapping[str, Any], what: str, chunk: int) -> dict[str, np.ndarray]:
    job = _job(config)
    study, per_year = _study(json.dumps(config["fit"], sort_keys=True))
    x, y = job.axes
    if what == "sterile-map":
        groups = -(-y.size // ROWS_PER_CHUNK)
        factor = job.years[chunk // groups] * per_year
        first = (chunk % groups) * ROWS_PER_CHUNK
        m = study.map(x, y[first : first + ROWS_PER_CHUNK], factor=factor)
        return {
            "delta_chi2": m.delta_chi2,
            "valid": m.valid.astype(np.uint8),
            "limited": m.limited.astype(np.uint8),
        }
    s = study.spread(
        x,
        np.sort(job.toy_splittings),
        TOYS_PER_CHUNK,
        seed=job.seed,
        first=chunk * TOYS_PER_CHUNK,
        cl=job.cl,
        factor=job.years[0] * per_year,
        options=ToyOptions(constraints=job.constraints, shape=job.shape),
    )
    return {"limits": s.limits, "valid": s.valid.astype(np.uint8), "above": s.above.astype(np.uint8)}


def _maps(job: SterileJob, pieces: list[dict[str, np.ndarray]]) -> tuple[SterileMap, ...]:
    x, y = job.axes
    groups = -(-y.size // ROWS_PER_CHUNK)
    per_year = _study(json.dumps(_config(job)["fit"], sort_keys=True))[1]
    out = []
    for k, years in enumerate(job.years):
        parts = pieces[k * groups : (k + 1) * groups]
        chi2, valid, limited = (np.concatenate([p[n] for p in parts]) for n in ("delta_chi2", "valid", "limited"))
        out.append(SterileMap(years * per_year, x, y, chi2, valid.astype(bool), limited.astype(bool)))
    return tuple(out)


def _spread(job: SterileJob, pieces: list[dict[str, np.ndarray]]) -> LimitSpread | None:
    if not pieces:
        return None
    n = job.toys
    limits, valid, above = (np.concatenate([p[k] for p in pieces], axis=1)[:, :n] for k in ("limits", "valid", "above"))
    return LimitSpread(np.sort(job.toy_splittings), limits, above.astype(bool), valid.astype(bool))


def _check_job(job: SterileJob) -> None:
    for name, axis, low, high in (("--mixing", job.mixing, 0.0, 1.0), ("--splitting", job.splitting, *DM2_41_eV2)):
        good = len(axis) == 3 and np.all(np.isfinite(axis)) and 0 < axis[0] < axis[1] and axis[0] >= low
        if not good or axis[1] > high or axis[2] < 3 or int(axis[2]) != axis[2]:
            raise NuebarError(
                f"{name}: expected lowest and highest value, from {low:g} to {high:g}, and a number of points of at "
                f"least 3, got {axis}"
            )
    years = np.asarray(job.years, float)
    if not years.size or np.any(~np.isfinite(years)) or np.any(years <= 0) or np.unique(years).size < years.size:
        raise NuebarError(f"--years: expected different numbers above 0, got {job.years}")
    if not 0 < job.cl < 1:
        raise NuebarError(f"--cl: expected a confidence level between 0 and 1, got {job.cl}")
    if job.toys < 0:
        raise NuebarError(f"--toys: expected a number of at least 0, got {job.toys}")
    splittings = np.asarray(job.toy_splittings, float)
    inside = np.all((splittings >= DM2_41_eV2[0]) & (splittings <= DM2_41_eV2[1]))
    if job.toys and not (splittings.size and inside and np.unique(splittings).size == splittings.size):
        raise NuebarError(
            f"--toy-splittings: expected different numbers from {DM2_41_eV2[0]:g} to {DM2_41_eV2[1]:g} eV2, got "
            f"{job.toy_splittings}"
        )
