"""The job of ``nuebar fit grid``: Δχ² on a grid of oscillation and response parameters."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.fit.grid_scan import GridScan, default_axes, grid_scan, parse_axes
from nuebar.fit.profile import delta_chi2_level
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.io.files import atomic_path, atomic_write_text, output_folder
from nuebar.io.releases import read_common_inputs, read_juno_2025
from nuebar.io.results import save_result, versions
from nuebar.jobs.fit import FitJob, _check, _experiment, _prepare

__all__ = ["GridJob", "GridOutcome", "grid_report", "run_grid", "write_grid"]

Progress = Callable[[str, int, int], None]
LEAST_FOR_PICTURE = 4  # points along each axis, as a bicubic spline needs


@dataclass(frozen=True)
class GridJob:
    """The options of ``nuebar fit grid``.

    Attributes:
        fit: Experiment, data, predictor and what is fixed, as for a fit.
        scans: Words ``name=low:high:points``; none for the four oscillation parameters around their nominal values.
        statistic: "pearson" or "neyman": where the fixed variances come from.
    """

    fit: FitJob = field(default_factory=FitJob)
    scans: tuple[str, ...] = ()
    statistic: str = "pearson"


@dataclass(frozen=True)
class GridOutcome:
    """A finished scan, ready to be shown and written."""

    job: GridJob
    fit: SpectrumFit
    scan: GridScan
    simulated: bool

    @property
    def points_per_second(self) -> float:
        """Speed of the scan."""
        return self.scan.delta_chi2.size / max(self.scan.seconds, 1e-9)


def run_grid(job: GridJob, progress: Progress | None = None) -> GridOutcome:
    """Read, build and scan; nothing is written.

    Args:
        job: The options.
        progress: Called with (what, done, total).

    Returns:
        The outcome.
    """
    axes = parse_axes(job.scans)  # wrong words are refused before anything is built
    if job.statistic not in ("pearson", "neyman"):
        raise NuebarError(f"--statistic: expected pearson or neyman, got {job.statistic!r}")
    options = replace(job.fit, statistic=job.statistic)
    _check(options)
    release = read_juno_2025(options.release) if options.release is not None else None
    inputs = read_common_inputs(options.inputs) if options.inputs is not None else None
    fit, simulated = _prepare(options, _experiment(options), release, inputs, progress)
    tick = None if progress is None else (lambda done, total: progress("grid", done, total))
    scan = grid_scan(fit, axes or default_axes(fit.parameters), statistic=job.statistic, progress=tick)
    return GridOutcome(job, fit, scan, simulated)


def grid_report(outcome: GridOutcome) -> str:
    """The scan in a few lines."""
    scan = outcome.scan
    lines = [
        f"{scan.delta_chi2.size} points in {scan.seconds:.2f} s: {outcome.points_per_second:,.0f} a second",
        f"smallest chi2 {scan.chi2_min:.4f} at",
        *(f"  {name:22s} {value:.7g}" for name, value in scan.best.items()),
        f"profiled: {', '.join(scan.profiled) or 'nothing'}",
    ]
    if scan.at_edge:
        lines.append(f"at the edge of the grid: {', '.join(scan.at_edge)}; scan a wider range")
    return "\n".join(lines)


def write_grid(outcome: GridOutcome, folder: str | Path, *, pictures: bool = True) -> tuple[Path, ...]:
    """Write ``grid.npz``, ``grid.json``, ``profile.csv`` and a picture; each appears whole or not at all.

    Args:
        outcome: From :func:`run_grid`.
        folder: Output folder, made if missing.
        pictures: Whether to draw.

    Returns:
        The files.
    """
    out, scan = output_folder(folder), outcome.scan
    written = [out / "grid.npz", out / "grid.json"]
    best = scan.best
    arrays: dict[str, Any] = {n: g for n, g in zip(scan.names, scan.grids, strict=True)}
    arrays |= {
        "axes": np.array(scan.names),
        "delta_chi2": scan.delta_chi2,
        "best": np.array([best[n] for n in scan.names]),
    }
    with atomic_path(out / "grid.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
    save_result(out / "grid.json", _record(outcome))
    if len(scan.names) > 1:
        written.append(out / "profile.csv")
        atomic_write_text(out / "profile.csv", _profile_csv(scan))
    drawable = len(scan.names) > 1 and min(len(g) for g in scan.grids[:2]) >= LEAST_FOR_PICTURE
    if pictures and drawable:
        written.append(out / "profile.png")
        _picture(outcome, out / "profile.png")
    # What an earlier scan left here must not be taken for a part of this one.
    for name in ("profile.csv", "profile.png"):
        if out / name not in written:
            (out / name).unlink(missing_ok=True)
    return tuple(written)


def _record(outcome: GridOutcome) -> dict[str, Any]:
    scan, job = outcome.scan, outcome.job
    return {
        "axes": {
            n: {"low": float(g[0]), "high": float(g[-1]), "points": len(g)}
            for n, g in zip(scan.names, scan.grids, strict=True)
        },
        "best": scan.best,
        "at_edge": list(scan.at_edge),
        "chi2_min": scan.chi2_min,
        "profiled": list(scan.profiled),
        "fixed": dict(scan.fixed),
        "statistic": scan.statistic,
        "simulated": outcome.simulated,
        "points": scan.delta_chi2.size,
        "seconds": scan.seconds,
        "points_per_second": outcome.points_per_second,
        "predictor": outcome.fit.model.predictor.name,
        "provenance": dict(outcome.fit.model.predictor.provenance),
        "options": {k: str(v) if isinstance(v, Path) else v for k, v in vars(job.fit).items()}
        | {"scans": list(job.scans)},
        "versions": versions(),
    }


def _profile_csv(scan: GridScan) -> str:
    """Δχ² of the first two axes, the smallest over the others."""
    buffer = io.StringIO()
    buffer.write(f"# smallest over {', '.join(scan.names[2:]) or 'nothing else'} and the profiled nuisances\n")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*scan.names[:2], "delta_chi2"])
    first, second = np.meshgrid(*scan.grids[:2], indexing="ij")
    for row in zip(first.ravel(), second.ravel(), scan.profile().ravel(), strict=True):
        writer.writerow([f"{x:.10g}" for x in row])
    return buffer.getvalue()


def _picture(outcome: GridOutcome, path: Path) -> None:
    from nuebar.report import plots

    scan = outcome.scan
    best = scan.best
    figure = plots.contour(
        scan.grids[0],
        scan.grids[1],
        scan.profile(),
        labels=(scan.names[0], scan.names[1]),
        levels=[(delta_chi2_level(cl, 2), f"{100 * cl:.2f} % CL, 2 dof") for cl in (0.6827, 0.9545, 0.9973)],
        best=(best[scan.names[0]], best[scan.names[1]]),
        note="simulated (Asimov)" if outcome.simulated else "",
    )
    plots.save(figure, path)
