"""The job of ``nuebar fit geoneutrinos``: expected precision of uranium, thorium and their sum against exposure."""

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
from nuebar.fit.geoneutrinos import GeoneutrinoPoint, GeoneutrinoStudy
from nuebar.io.files import atomic_write_text, output_folder
from nuebar.io.releases import read_common_inputs, read_juno_2025
from nuebar.io.results import save_result, versions
from nuebar.jobs.fit import FitJob, _check, _experiment, _prepare
from nuebar.parameters import OSCILLATION
from nuebar.physics.oscillation import averaged
from nuebar.predict.geoneutrinos import TH, U, split_geoneutrinos

__all__ = [
    "GeoneutrinoJob",
    "GeoneutrinoOutcome",
    "geoneutrino_record",
    "geoneutrino_report",
    "run_geoneutrinos",
    "write_geoneutrinos",
]

Progress = Callable[[str, int, int], None]
CASES = ("known", "prior", "fixed ratio", "free")


@dataclass(frozen=True)
class GeoneutrinoJob:
    """The options of ``nuebar fit geoneutrinos``.

    Attributes:
        fit: Experiment, inputs, predictor, statistic and what is fixed, as for a fit; data and exposure are not used.
        years: Exposures in years of the experiment's ``days_per_year``.
        mass_ratio: True Th/U by mass; that of the experiment's mixture by default.
        rate_tnu: True sum in TNU; the experiment's rate by default.
        prior: Relative error of the sum where it is constrained.
        ratio_prior: Relative error of a prior on Th/U; none by default.
    """

    fit: FitJob = field(default_factory=lambda: FitJob(asimov=True))
    years: tuple[float, ...] = (1.0, 3.0, 6.0, 10.0)
    mass_ratio: float | None = None
    rate_tnu: float | None = None
    prior: float = 0.3
    ratio_prior: float | None = None


@dataclass(frozen=True, eq=False)
class GeoneutrinoOutcome:
    """Everything, ready to be shown and written.

    Attributes:
        job: The options.
        points: One for each exposure.
        rates_tnu: True rates of uranium and thorium, as detected (after oscillation).
        survival: The mean survival probability that these rates contain.
        truth: True oscillation parameters.
        experiment: Its name.
        statistic: Of the fits.
        seconds: Wall time.
    """

    job: GeoneutrinoJob
    points: tuple[GeoneutrinoPoint, ...]
    rates_tnu: Mapping[str, float]
    survival: float
    truth: Mapping[str, float]
    experiment: str
    statistic: str
    seconds: float


def run_geoneutrinos(job: GeoneutrinoJob, progress: Progress | None = None) -> GeoneutrinoOutcome:
    """Expected errors at every exposure; nothing is written.

    Args:
        job: The options.
        progress: Called with (what, done, total).

    Raises:
        NuebarError: Options do not go together.
    """
    began = time.perf_counter()
    years = np.asarray(job.years, float)
    if not years.size or np.any(~np.isfinite(years)) or years[0] <= 0 or np.any(np.diff(years) <= 0):
        raise NuebarError(f"--years: expected increasing numbers above 0, got {job.years}")
    wanted = replace(job.fit, asimov=True, data=None, exposure_years=None, exposure_days=None)
    _check(wanted)
    experiment = split_geoneutrinos(_experiment(wanted), mass_ratio=job.mass_ratio, rate_tnu=job.rate_tnu)
    release = read_juno_2025(wanted.release) if wanted.release is not None else None
    inputs = read_common_inputs(wanted.inputs) if wanted.inputs is not None else None
    fit, _ = _prepare(wanted, experiment, release, inputs, None)
    study = GeoneutrinoStudy(fit, experiment, prior=job.prior, ratio_prior=job.ratio_prior)
    factor = experiment.exposure.days_per_year / experiment.exposure.days
    tick = None if progress is None else (lambda done, total: progress("exposures", done, total))
    truth = {n: fit.parameters[n].value for n in OSCILLATION}
    survival = averaged(sin2_th12=truth["sin2_th12"], sin2_th13=truth["sin2_th13"])
    return GeoneutrinoOutcome(
        job=job,
        points=study.curve([y * factor for y in job.years], progress=tick),
        rates_tnu=study.rates_tnu,
        survival=float(survival),
        truth=truth,
        experiment=fit.experiment,
        statistic=fit.statistic,
        seconds=time.perf_counter() - began,
    )


def geoneutrino_report(outcome: GeoneutrinoOutcome) -> str:
    """What the command prints."""
    u, th = outcome.rates_tnu[U], outcome.rates_tnu[TH]
    lines = [
        f"{outcome.experiment}, {outcome.statistic}: geoneutrinos of {u + th:.1f} TNU (U {u:.1f}, Th {th:.1f}; "
        f"{(u + th) / outcome.survival:.1f} without oscillation), expected errors in percent",
        f"{'years':>6s} {'U':>7s} {'Th':>7s} {'U+Th':>7s} {'Th/U':>7s} {'corr.':>7s} {'U+Th at fixed Th/U':>19s}"
        + (f" {'with its prior':>15s}" if outcome.job.ratio_prior else ""),
    ]
    for years, p in zip(outcome.job.years, outcome.points, strict=True):
        cells = [f"{100 * x:7.1f}" for x in (p.uranium, p.thorium, p.total, p.ratio)]
        last = "" if p.total_at_ratio_prior is None else f" {100 * p.total_at_ratio_prior:15.1f}"
        lines.append(f"{years:6g} {' '.join(cells)} {p.correlation:7.2f} {100 * p.total_at_fixed_ratio:19.1f}{last}")
    lines.append("errors of the oscillation parameters in percent, with geoneutrinos")
    lines.append(f"{'years':>6s} {'parameter':12s} " + " ".join(f"{c:>12s}" for c in CASES))
    for years, p in zip(outcome.job.years, outcome.points, strict=True):
        for name in p.oscillation["free"]:
            cells = [f"{100 * p.oscillation[c][name] / abs(outcome.truth[name]):12.3f}" for c in CASES]
            lines.append(f"{years:6g} {name:12s} " + " ".join(cells))
    lines.append(f"{outcome.seconds:.0f} s")
    return "\n".join(lines)


def geoneutrino_record(outcome: GeoneutrinoOutcome) -> dict[str, Any]:
    """What goes into ``geoneutrinos.json``."""
    job = outcome.job
    return {
        "format": 1,
        "kind": "geoneutrino precision",
        "experiment": outcome.experiment,
        "inputs": None if job.fit.inputs is None else Path(job.fit.inputs).name,
        "statistic": outcome.statistic,
        "seed": job.fit.seed,
        "rates_tnu": dict(outcome.rates_tnu),
        "survival": outcome.survival,
        "mass_ratio": job.mass_ratio,
        "prior": job.prior,
        "ratio_prior": job.ratio_prior,
        "truth": dict(outcome.truth),
        "points": [{"years": y, **asdict(p)} for y, p in zip(job.years, outcome.points, strict=True)],
        "seconds": outcome.seconds,
        "versions": versions(),
    }


def write_geoneutrinos(
    outcome: GeoneutrinoOutcome, folder: str | os.PathLike[str], *, pictures: bool = True
) -> list[Path]:
    """``geoneutrinos.json``, ``geoneutrinos.csv`` and ``geoneutrinos.png``."""
    place = output_folder(folder)
    paths = [place / "geoneutrinos.json", place / "geoneutrinos.csv"]
    save_result(paths[0], geoneutrino_record(outcome))
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    columns = ("uranium", "thorium", "correlation", "total", "ratio", "total_at_fixed_ratio", "total_at_ratio_prior")
    names = list(outcome.points[0].oscillation["free"])
    rows.writerow(["years", *columns, *(f"{n}_error_{c.replace(' ', '_')}" for n in names for c in CASES)])
    for years, p in zip(outcome.job.years, outcome.points, strict=True):
        numbers = [getattr(p, c) for c in columns] + [p.oscillation[c][n] for n in names for c in CASES]
        rows.writerow([f"{years:g}", *("" if x is None else f"{x:.8g}" for x in numbers)])
    atomic_write_text(paths[1], buffer.getvalue())
    if pictures and len(outcome.points) > 1:
        from nuebar.report.geoneutrino_plots import precision
        from nuebar.report.plots import save

        curves = {
            "U": [p.uranium for p in outcome.points],
            "Th": [p.thorium for p in outcome.points],
            "U + Th": [p.total for p in outcome.points],
            "U + Th, Th/U fixed": [p.total_at_fixed_ratio for p in outcome.points],
            "Th/U": [p.ratio for p in outcome.points],
        }
        paths.append(place / "geoneutrinos.png")
        save(precision(outcome.job.years, curves), paths[-1])
    return paths
