"""The job of ``nuebar fit toys``: pseudo-experiments in chunks, every fit kept, and what they say together."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.fit.many import ManyFits, ManyResults
from nuebar.fit.toys import ToyOptions, ToySummary, joined, run_toys, summary
from nuebar.io.arrays import load_arrays, save_arrays
from nuebar.io.files import atomic_write_text, output_folder
from nuebar.io.results import save_result, versions
from nuebar.jobs.fit import FitJob
from nuebar.jobs.fit_config import build_fit, compiled, fit_job, told
from nuebar.jobs.many_files import arrays_of, results_of
from nuebar.run import Stage, Workers, run_stage

__all__ = [
    "ToysJob",
    "ToysOutcome",
    "parse_truth",
    "run_toys_job",
    "toys_chunk",
    "toys_report",
    "write_toys",
]

Progress = Callable[[str, int, int], None]
PER_CHUNK = 250
BIASED, OFTEN_FAILED = 0.15, 0.02  # of the error; share of the toys: beyond them the report says so
FEW = 25.0  # events in a bin, below which χ² with the variance of expected or measured counts is biased


@dataclass(frozen=True)
class ToysJob:
    """The options of ``nuebar fit toys``.

    Attributes:
        fit: Experiment, exposure, predictor, statistic and what is fixed, as for a fit; its data are not used.
        toys: How many.
        first: Number of the first one.
        truth: Parameters that differ from the nominal ones, by name.
        constraints: Whether the centres of the constraints fluctuate.
        shape: Whether expectations fluctuate within their bin-to-bin uncertainties.
        seed: Of the study.
    """

    fit: FitJob = field(default_factory=lambda: FitJob(asimov=True))
    toys: int = 1000
    first: int = 0
    truth: Mapping[str, float] = field(default_factory=dict)
    constraints: bool = True
    shape: bool = True
    seed: int = 1


@dataclass(frozen=True, eq=False)
class ToysOutcome:
    """All toys, ready to be shown and written."""

    job: ToysJob
    results: ManyResults
    summary: tuple[ToySummary, ...]
    statistic: str
    experiment: str
    n_bins: int
    seconds: float

    @property
    def n_dof(self) -> int:
        """Bins less the free parameters without a prior: what χ² is distributed with if constraints fluctuate."""
        constrained = sum(1 for s in self.summary if s.name in self.priors)
        return self.n_bins - (len(self.results.free) - constrained)

    priors: frozenset[str] = frozenset()
    events_per_bin: float = np.inf


def parse_truth(words: Sequence[str] | None) -> dict[str, float]:
    """``["sin2_th12=0.31", ...]`` as numbers by name.

    Raises:
        NuebarError: A word has another form.
    """
    out = {}
    for word in words or ():
        name, sign, number = word.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if not (sign and name and np.isfinite(value)):
            raise NuebarError(f"--truth: expected NAME=NUMBER such as sin2_th12=0.31, got {word!r}")
        out[name] = value
    return out


def run_toys_job(
    job: ToysJob,
    folder: str | os.PathLike[str] | None = None,
    *,
    jobs: Workers = 1,
    progress: Progress | None = None,
    force: bool = False,
    max_seconds: float | None = None,
) -> ToysOutcome:
    """Draw and fit; with a folder in chunks, by several processes, and the same call continues.

    Args:
        job: The options.
        folder: Where chunks are kept; without one everything happens in this process.
        jobs: Number of processes, or what else runs the chunks.
        progress: Called with (what, done, total).
        force: Throw away chunks of another configuration.
        max_seconds: Start no new chunk after this time.

    Raises:
        NuebarError: Options do not go together, or fewer than two fits are valid.
    """
    began = time.perf_counter()
    if job.toys < 2 or job.first < 0:
        raise NuebarError(f"--toys: expected two or more, numbered from 0, got {job.toys} from {job.first}")
    fit = build_fit(job.fit)
    for name in job.truth:
        fit.parameters.known(name)
    if folder is None:
        tick = None if progress is None else (lambda done, total: progress("toys", done, total))
        results = _run(ManyFits(fit), job, job.first, job.toys, tick)
    else:
        chunks = -(-job.toys // PER_CHUNK)
        stage = Stage("toys", "nuebar.jobs.toys:toys_chunk", _config(job), chunks, ".safetensors", isolated=True)
        done = run_stage(
            folder, stage, seed=job.seed, jobs=jobs, progress=progress, force=force, max_seconds=max_seconds
        )
        results = joined([_loaded(path) for path in done.paths])
        results = results.rows(slice(0, job.toys))
    return ToysOutcome(
        job=job,
        results=results,
        summary=summary(results),
        statistic=fit.statistic,
        experiment=fit.experiment,
        n_bins=len(fit.counts),
        seconds=time.perf_counter() - began,
        priors=frozenset(fit.pulled()),
        events_per_bin=float(np.median(fit.counts)),
    )


def toys_chunk(config: dict[str, Any], chunk: int, key: int, path: Path) -> dict[str, Any]:
    """The toys of one chunk; they follow from the seed and their numbers, not from the chunk."""
    job = _job(config)
    first = job.first + chunk * PER_CHUNK
    results = _run(compiled(config["fit"]), job, first, PER_CHUNK, None)
    save_arrays(path, arrays_of(results), {"format": 1, "names": list(results.names), "free": list(results.free)})
    return {"toys": len(results), "valid": int(results.valid.sum())}


def write_toys(outcome: ToysOutcome, folder: str | os.PathLike[str]) -> list[Path]:
    """``toys.json`` (what they say together) and ``toys.csv`` (one row a toy, failed ones included)."""
    place = output_folder(folder)
    r = outcome.results
    save_result(place / "toys.json", _record(outcome))
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    sides = [f"{n}_{what}" for n in r.free for what in ("truth", "value", "error")]
    rows.writerow(["toy", "seed", "status", "reason", "chi2", "edm", "n_calls", *sides])
    columns = [r.column(n) for n in r.free]
    for i in range(len(r)):
        numbers = [f"{a[i, k]:.9g}" for k in columns for a in (r.truth, r.values, r.errors)]
        head = [int(r.numbers[i]), outcome.job.seed, int(r.status[i]), r.reason(i)]
        rows.writerow([*head, f"{r.chi2[i]:.9g}", f"{r.edm[i]:.3g}", int(r.n_calls[i]), *numbers])
    atomic_write_text(place / "toys.csv", buffer.getvalue())
    return [place / "toys.json", place / "toys.csv"]


def toys_report(outcome: ToysOutcome) -> str:
    """What the command prints."""
    r = outcome.results
    failed = r.failures()
    words = "; ".join(f"{n} {reason}" for reason, n in failed.items())
    lines = [
        f"{len(r)} toys of {outcome.experiment} ({outcome.statistic}), {int(r.valid.sum())} valid"
        + (f"; {words}" if words else ""),
        f"{'parameter':28s} {'truth':>12s} {'bias/error':>12s} {'spread/error':>12s} {'in 1 sigma':>10s}",
    ]
    for s in outcome.summary:
        lines.append(
            f"{s.name:28s} {s.truth:12.6g} {s.pull_mean:+12.3f} {s.pull_spread:12.3f} {100 * s.coverage:9.1f}%"
        )
    chi2 = r.chi2[r.valid]
    lines.append(f"chi2: mean {chi2.mean():.1f}, {outcome.n_dof} degrees of freedom; {outcome.seconds:.1f} s")
    return "\n".join([*lines, *_careful(outcome)])


# ---------------------------------------------------------------- helpers


def _careful(outcome: ToysOutcome) -> list[str]:
    """What is not as it should be, in words."""
    r, told = outcome.results, []
    failed = 1.0 - float(r.valid.mean())
    if failed > OFTEN_FAILED:
        told.append(f"{100 * failed:.0f} % of the fits are not valid: single fits of such data fail as often")
    for s in outcome.summary:
        if abs(s.pull_mean) > max(BIASED, 4.0 / np.sqrt(s.n)):
            told.append(f"{s.name} is biased by {s.pull_mean:+.2f} of its error")
    if told and outcome.statistic in ("pearson", "neyman") and outcome.events_per_bin < FEW:
        told.append(
            f"{outcome.statistic} with {outcome.events_per_bin:.0f} events in a bin is known to be biased: take "
            "--statistic cnp or barlow-beeston for data"
        )
    return [f"careful: {sentence}" for sentence in told]


def _run(many: ManyFits, job: ToysJob, first: int, n: int, progress: Callable[[int, int], None] | None) -> ManyResults:
    options = ToyOptions(constraints=job.constraints, shape=job.shape)
    return run_toys(many, n, seed=job.seed, first=first, truth=job.truth, options=options, progress=progress)


def _record(outcome: ToysOutcome) -> dict[str, Any]:
    r = outcome.results
    chi2 = r.chi2[r.valid]
    return {
        "format": 1,
        "kind": "toys",
        "toys": len(r),
        "first": outcome.job.first,
        "valid": int(r.valid.sum()),
        "failures": r.failures(),
        "seed": outcome.job.seed,
        "experiment": outcome.experiment,
        "statistic": outcome.statistic,
        "constraints_fluctuate": outcome.job.constraints,
        "shape_fluctuates": outcome.job.shape,
        "truth": {n: float(r.truth[0, r.column(n)]) for n in r.names},
        "parameters": {s.name: {k: v for k, v in asdict(s).items() if k != "name"} for s in outcome.summary},
        "chi2": {"mean": float(chi2.mean()), "spread": float(chi2.std(ddof=1)), "n_dof": outcome.n_dof},
        "seconds": outcome.seconds,
        "versions": versions(),
    }


def _config(job: ToysJob) -> dict[str, Any]:
    rest = {f.name: getattr(job, f.name) for f in fields(ToysJob) if f.name not in ("fit", "toys")}
    return {"fit": told(job.fit), **rest, "truth": dict(job.truth)}


def _job(config: Mapping[str, Any]) -> ToysJob:
    return ToysJob(**{**config, "fit": fit_job(config["fit"])})


def _loaded(path: Path) -> ManyResults:
    arrays, notes = load_arrays(path)
    return results_of(arrays, notes["names"], notes["free"])
