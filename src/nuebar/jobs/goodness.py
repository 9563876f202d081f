"""The job of ``nuebar fit goodness``: p-values of a fit from toys at its best fit, in chunks that continue."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.fit.goodness import TESTS, Goodness, bin_residuals, fit_data, fit_toys, judged
from nuebar.fit.many import REASONS, DataSets, ManyFits, ManyResults
from nuebar.fit.toys import ToyOptions
from nuebar.io.arrays import load_arrays, save_arrays
from nuebar.io.files import atomic_write_text, output_folder
from nuebar.io.results import save_result, versions
from nuebar.jobs.fit import FitJob
from nuebar.jobs.fit_config import compiled, told
from nuebar.jobs.posterior import data_fit
from nuebar.run import Stage, Workers, run_stage

__all__ = [
    "GoodnessJob",
    "GoodnessOutcome",
    "goodness_chunk",
    "goodness_report",
    "run_goodness",
    "write_goodness",
]

Progress = Callable[[str, int, int], None]
PER_CHUNK = 250
DIGITS = 10
"""Of the truth of the toys: its last bits may differ where a run is continued on another machine."""
SUSPICIOUS = 0.01


@dataclass(frozen=True)
class GoodnessJob:
    """The options of ``nuebar fit goodness``.

    Attributes:
        fit: Data, experiment and model, as for a fit.
        toys: How many.
        constraints: Whether the centres of the constraints fluctuate in them.
        shape: Whether expectations do, within their bin-to-bin uncertainties.
        seed: Of the toys.
    """

    fit: FitJob
    toys: int = 2000
    constraints: bool = True
    shape: bool = True
    seed: int = 1


@dataclass(frozen=True, eq=False)
class GoodnessOutcome:
    """The comparison of a fit with toys, ready to be shown and written."""

    job: GoodnessJob
    goodness: Goodness
    best: ManyResults
    results: ManyResults
    tests: np.ndarray
    edges_MeV: np.ndarray
    statistic: str
    experiment: str
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def valid(self) -> bool:
        """Whether the fit of the data is valid and most toys could be fitted."""
        return bool(self.best.valid[0]) and len(self.goodness.toys) > 0.9 * self.goodness.n_toys


def run_goodness(
    job: GoodnessJob,
    folder: str | os.PathLike[str] | None = None,
    *,
    jobs: Workers = 1,
    progress: Progress | None = None,
    force: bool = False,
    max_seconds: float | None = None,
) -> GoodnessOutcome:
    """Fit the data, draw toys at the best fit and fit them; with a folder in chunks, and the same call continues.

    Args:
        job: The options.
        folder: Where chunks are kept; without one everything happens in this process.
        jobs: Number of processes, or what runs the chunks.
        progress: Called with (what, done, total).
        force: Throw away chunks of another configuration.
        max_seconds: Start no new chunk after this time.

    Raises:
        NuebarError: Options do not go together, or no toy could be fitted.
    """
    began = time.perf_counter()
    if job.toys < 10:
        raise NuebarError(f"--toys: expected ten or more, got {job.toys}; 2000 give a p-value to 0.01")
    if job.fit.asimov:
        raise NuebarError("goodness of fit: expected data, got expected counts; give --release DIR or --data FILE")
    fit = data_fit(job.fit, progress)
    config = _config(job)
    many = compiled(config["fit"])
    data = DataSets(
        np.zeros(1, int),
        np.asarray(fit.counts, float)[None],
        many.centres[None],
        np.array([[fit.parameters[n].value for n in many.names]]),
    )
    best, numbers = fit_data(many, data)
    config["truth"] = [float(f"{x:.{DIGITS}g}") for x in best.values[0]]
    fitted = time.perf_counter()
    if folder is None:
        parts = []
        for first in range(0, job.toys, PER_CHUNK):
            n = min(PER_CHUNK, job.toys - first)
            parts.append(_arrays(many, config, job.seed, range(first, first + n)))
            if progress is not None:
                progress("toys", first + n, job.toys)
    else:
        chunks = -(-job.toys // PER_CHUNK)
        stage = Stage("goodness", "nuebar.jobs.goodness:goodness_chunk", config, chunks, ".safetensors", isolated=True)
        done = run_stage(
            folder, stage, seed=job.seed, jobs=jobs, progress=progress, force=force, max_seconds=max_seconds
        )
        parts = [load_arrays(path)[0] for path in done.paths]
    arrays = {name: np.concatenate([p[name] for p in parts])[: job.toys] for name in parts[0]}
    results = _results(best, arrays)
    residuals = bin_residuals(many, data, best.values)[0]
    return GoodnessOutcome(
        job=job,
        goodness=judged(many, best, numbers[0], residuals, results, arrays["tests"]),
        best=best,
        results=results,
        tests=arrays["tests"],
        edges_MeV=np.array(fit.model.edges_MeV),
        statistic=fit.statistic,
        experiment=fit.experiment,
        seconds={"fit": fitted - began, "total": time.perf_counter() - began},
    )


def goodness_chunk(config: dict[str, Any], chunk: int, key: int, path: Path) -> dict[str, Any]:
    """The toys of one chunk; they follow from the seed and their numbers, not from the chunk."""
    first = chunk * PER_CHUNK
    arrays = _arrays(compiled(config["fit"]), config, config["seed"], range(first, first + PER_CHUNK))
    save_arrays(path, arrays, {"format": 1, "tests": list(TESTS)})
    return {"toys": PER_CHUNK, "valid": int(np.sum(arrays["status"] == 0))}


def write_goodness(outcome: GoodnessOutcome, folder: str | os.PathLike[str], *, pictures: bool = True) -> list[Path]:
    """``goodness.json``, ``goodness.csv`` (one row a toy, failed ones included) and ``goodness.png``."""
    place = output_folder(folder)
    save_result(place / "goodness.json", _record(outcome))
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(["toy", "seed", "status", "reason", "chi2", "largest", "excess", "runs"])
    r = outcome.results
    for i in range(len(r)):
        chi2, largest, excess, runs = outcome.tests[i]
        numbers = [f"{chi2:.9g}", f"{largest:.6g}", f"{excess:.6g}", int(-runs) if np.isfinite(runs) else ""]
        rows.writerow([int(r.numbers[i]), outcome.job.seed, int(r.status[i]), REASONS[int(r.status[i])], *numbers])
    atomic_write_text(place / "goodness.csv", buffer.getvalue())
    written = [place / "goodness.json", place / "goodness.csv"]
    picture = place / "goodness.png"
    if pictures:
        from nuebar.report import plots
        from nuebar.report.goodness_plots import goodness_figure

        g = outcome.goodness
        figure = goodness_figure(
            g.toys[:, 0],
            g.chi2,
            n_dof=g.n_dof,
            p_value=g.tests["chi2"].p,
            p_chi2=g.p_chi2,
            edges_MeV=outcome.edges_MeV,
            residuals=g.residuals,
            title=outcome.experiment,
        )
        plots.save(figure, picture)
        written.append(picture)
    else:
        picture.unlink(missing_ok=True)
    return written


def goodness_report(outcome: GoodnessOutcome) -> str:
    """What the command prints."""
    g = outcome.goodness
    lines = [
        f"{outcome.experiment}: goodness of fit, {outcome.statistic}, {g.n_toys} toys at the best fit",
        f"χ² = {g.chi2:.2f} with {g.n_dof} degrees of freedom: probability {g.p_chi2:.4f}",
        f"χ² of the toys: mean {g.chi2_mean:.2f} (χ² distribution {g.n_dof}), variance {g.chi2_variance:.1f} "
        f"({2 * g.n_dof})",
        "",
        f"{'test':34s} {'data':>9s} {'toys':>9s} {'p-value':>19s}",
    ]
    words = {
        "chi2": "χ² at the best fit",
        "largest": "largest |residual| of a bin",
        "excess": "largest excess or deficit",
        "runs": "runs of residuals of one sign",
    }
    for name, t in g.tests.items():
        sign = -1.0 if name == "runs" else 1.0
        lines.append(
            f"{words[name]:34s} {sign * t.value:9.4g} {sign * t.median:9.4g} {t.p:9.4f} ± {t.error:.4f}"
            + ("  small" if t.p < SUSPICIOUS else "")
        )
    failed = sum(g.failures.values())
    if failed:
        low, high = g.tests["chi2"].p_range
        reasons = ", ".join(f"{n} {reason}" for reason, n in g.failures.items())
        lines.append(
            f"{failed} toys could not be fitted ({reasons}): the first p-value is from {low:.4f} to {high:.4f}"
        )
    on_limit = int(np.sum(outcome.results.status == 1))
    if on_limit:
        lines.append(f"{on_limit} toys ended on a limit and are counted")
    if not outcome.valid:
        lines.append(f"NOT VALID: the fit of the data {outcome.best.reason(0)}, {failed} of {g.n_toys} toys failed")
    lines.append(f"{outcome.seconds['total']:.1f} s")
    return "\n".join(lines)


# ---------------------------------------------------------------- helpers


def _config(job: GoodnessJob) -> dict[str, Any]:
    """What chunks need to know; the best fit is added when it is known."""
    wanted = replace(job.fit, asimov=True, data=None, seed=1)
    return {"fit": told(wanted), "constraints": job.constraints, "shape": job.shape, "seed": job.seed, "truth": []}


def _arrays(many: ManyFits, config: Mapping[str, Any], seed: int, numbers: range) -> dict[str, np.ndarray]:
    options = ToyOptions(constraints=config["constraints"], shape=config["shape"])
    results, tests, _ = fit_toys(many, numbers, seed=seed, truth=np.array(config["truth"]), options=options)
    return {
        "numbers": results.numbers,
        "values": results.values,
        "status": results.status,
        "edm": results.edm,
        "n_calls": results.n_calls,
        "tests": tests,
    }


def _results(best: ManyResults, arrays: Mapping[str, np.ndarray]) -> ManyResults:
    n = len(arrays["numbers"])
    return replace(
        best,
        numbers=arrays["numbers"],
        truth=np.tile(best.values, (n, 1)),
        values=arrays["values"],
        errors=np.full_like(arrays["values"], np.nan),
        chi2=arrays["tests"][:, 0],
        edm=arrays["edm"],
        n_calls=arrays["n_calls"],
        status=arrays["status"],
        at_limit=np.zeros(arrays["values"].shape, bool),
        covariance=np.empty((n, 0, 0)),
        seconds=0.0,
    )


def _record(outcome: GoodnessOutcome) -> dict[str, Any]:
    g = outcome.goodness
    return {
        "format": 1,
        "kind": "goodness",
        "experiment": outcome.experiment,
        "statistic": outcome.statistic,
        "valid": outcome.valid,
        "reason": outcome.best.reason(0),
        "chi2": g.chi2,
        "n_dof": g.n_dof,
        "p_chi2": None if np.isnan(g.p_chi2) else g.p_chi2,
        "tests": {
            name: {**asdict(t), "p_range": list(t.p_range)}
            | ({"value": -t.value, "median": -t.median} if name == "runs" else {})
            for name, t in g.tests.items()
        },
        "toys": {
            "drawn": g.n_toys,
            "used": len(g.toys),
            "on_a_limit": int(np.sum(outcome.results.status == 1)),
            "failures": dict(g.failures),
            "chi2_mean": g.chi2_mean,
            "chi2_variance": g.chi2_variance,
            "constraints_fluctuate": outcome.job.constraints,
            "shape_fluctuates": outcome.job.shape,
        },
        "best_fit": {n: float(outcome.best.values[0, outcome.best.column(n)]) for n in outcome.best.free},
        "residuals": {"low_MeV": outcome.edges_MeV[:-1], "high_MeV": outcome.edges_MeV[1:], "sigma": g.residuals},
        "seed": outcome.job.seed,
        "seconds": dict(outcome.seconds),
        "versions": versions(),
    }
