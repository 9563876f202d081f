"""The job of ``nuebar fit ordering``: sensitivity to the mass ordering against exposure, for several resolutions."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.config import Experiment
from nuebar.errors import NuebarError
from nuebar.fit.ordering import OrderingPoint, OrderingToys, SystematicCost, crossing
from nuebar.io.files import atomic_write_text, output_folder
from nuebar.io.results import save_result, versions
from nuebar.jobs.fit import FitJob
from nuebar.jobs.ordering_toys import (
    ToysOfBoth,
    ordering_experiment,
    ordering_study,
    p_value,
    run_ordering_toys,
)
from nuebar.jobs.resolutions import OWN, resolutions
from nuebar.run import Workers

__all__ = [
    "OrderingJob",
    "OrderingOutcome",
    "OrderingSet",
    "ordering_report",
    "run_ordering",
    "write_ordering",
]

Progress = Callable[[str, int, int], None]
NEAR_km = 100.0  # cores whose power counts in "years x GW"


@dataclass(frozen=True)
class OrderingJob:
    """The options of ``nuebar fit ordering``.

    Attributes:
        fit: Experiment, inputs, predictor, statistic and what is fixed, as for a fit; exposure and ordering of it are
            not used.
        resolutions: Names of :func:`resolutions`, or "own" for the experiment's; the first one is studied in full.
        years: Exposures in years at full power.
        truth: The true ordering.
        toys: How many for either true ordering, with the first resolution; 0 for none.
        toy_years: Their exposure.
        systematics: Whether systematics are switched off one at a time, with the first resolution.
        systematics_years: At which exposure.
        constraints: As for toys.
        shape: Likewise.
        seed: Of the toys.
    """

    fit: FitJob = field(default_factory=lambda: FitJob(asimov=True))
    resolutions: tuple[str, ...] = ("2024", "2022")
    years: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.5, 7.0, 8.0, 9.0, 10.0)
    truth: str = "normal"
    toys: int = 0
    toy_years: float = 6.5
    systematics: bool = True
    systematics_years: float = 6.5
    constraints: bool = True
    shape: bool = True
    seed: int = 1


@dataclass(frozen=True)
class OrderingSet:
    """Expected Δχ² with one resolution.

    Attributes:
        resolution: Its name.
        values: a, b, c.
        points: One for each exposure.
        statistics_only: The same without any systematics; empty if not asked for.
        years_at_3_sigma: Exposure in years at full power where the median reaches 3σ; None if it does not.
    """

    resolution: str
    values: tuple[float, ...]
    points: tuple[OrderingPoint, ...]
    statistics_only: tuple[OrderingPoint, ...]
    years_at_3_sigma: float | None


@dataclass(frozen=True, eq=False)
class OrderingOutcome:
    """Everything, ready to be shown and written."""

    job: OrderingJob
    experiment: Experiment
    statistic: str
    years: tuple[float, ...]
    near_GW: float
    duty_cycle: float
    sets: tuple[OrderingSet, ...]
    systematics: tuple[SystematicCost, ...]
    toys: Mapping[str, OrderingToys]
    seconds: float

    @property
    def valid(self) -> bool:
        """Whether every expected Δχ² comes from two valid fits."""
        return all(p.valid for s in self.sets for p in (*s.points, *s.statistics_only)) and all(
            s.valid for s in self.systematics
        )


def run_ordering(
    job: OrderingJob,
    folder: str | os.PathLike[str] | None = None,
    *,
    jobs: Workers = 1,
    progress: Progress | None = None,
    force: bool = False,
    max_seconds: float | None = None,
) -> OrderingOutcome:
    """Fit both orderings to expected counts, and to toys; only chunks of toys are written.

    Args:
        job: The options.
        folder: Where chunks of toys are kept; the same call continues.
        jobs: Number of processes for the toys, or what else runs their chunks.
        progress: Called with (what, done, total).
        force: Throw away chunks of another configuration.
        max_seconds: Start no new chunk of toys after this time.

    Raises:
        NuebarError: Options do not go together.
    """
    began = time.perf_counter()
    _check_job(job)
    base = ordering_experiment(job.fit, OWN)[1]
    duty = base.reactor.duty_cycle
    factor = base.exposure.days_per_year / (base.exposure.days * duty)
    smallest = min((*job.years, job.toy_years if job.toys else np.inf, job.systematics_years)) * factor
    sets: list[OrderingSet] = []
    costs: tuple[SystematicCost, ...] = ()
    toys: Mapping[str, OrderingToys] = {}
    statistic = base.fit.statistic
    for k, name in enumerate(job.resolutions):
        study = ordering_study(job.fit, name, smallest)
        statistic = study.fit.statistic
        factors = [y * factor for y in job.years]
        points = study.curve(factors, truth=job.truth, progress=_tick(progress, f"resolution {name}"))
        bare = study.curve(factors, truth=job.truth, without=study.groups()) if k == 0 else ()
        at = crossing(job.years, [p.delta_chi2 for p in points])
        abc = ordering_experiment(job.fit, name)[1].response.resolution
        sets.append(OrderingSet(name, tuple(abc), points, bare, at))
        if k == 0 and job.systematics:
            costs = study.systematics(
                job.systematics_years * factor, truth=job.truth, progress=_tick(progress, "systematics")
            )
    if job.toys:
        wanted = ToysOfBoth(
            fit=job.fit,
            resolution=job.resolutions[0],
            factor=job.toy_years * factor,
            smallest=smallest,
            toys=job.toys,
            constraints=job.constraints,
            shape=job.shape,
            seed=job.seed,
        )
        toys = run_ordering_toys(wanted, folder, jobs=jobs, progress=progress, force=force, max_seconds=max_seconds)
    return OrderingOutcome(
        job=job,
        experiment=base,
        statistic=statistic,
        years=job.years,
        near_GW=sum(c.power_GW for c in base.reactor.cores if c.baseline_km < NEAR_km),
        duty_cycle=duty,
        sets=tuple(sets),
        systematics=costs,
        toys=toys,
        seconds=time.perf_counter() - began,
    )


def ordering_report(outcome: OrderingOutcome) -> str:
    """What the command prints."""
    job = outcome.job
    other = "inverted" if job.truth == "normal" else "normal"
    lines = [
        f"{outcome.experiment.name}, {outcome.statistic}, true ordering {job.truth}: delta chi2 of the {other} one"
    ]
    head = [f"{s.resolution:>10s}" for s in outcome.sets]
    lines.append(f"{'years x ' + format(outcome.near_GW, '.1f') + ' GW':>16s} " + " ".join(head) + "  statistics only")
    for k, years in enumerate(outcome.years):
        cells = [f"{s.points[k].delta_chi2:10.2f}" for s in outcome.sets]
        lines.append(f"{years:16g} " + " ".join(cells) + f" {outcome.sets[0].statistics_only[k].delta_chi2:16.2f}")
    for s in outcome.sets:
        at = s.years_at_3_sigma
        words = "not reached between the first and the last exposure"
        if at is not None:
            words = f"{at:.2f} years at full power, {at / outcome.duty_cycle:.2f} calendar years"
        lines.append(f"3 sigma with the resolution {s.resolution}: {words}")
    if outcome.systematics:
        lines.append(f"at {job.systematics_years:g} years: delta chi2 without it, and with the statistics and it alone")
        lines += [f"  {c.group:28s} {c.without:8.2f} {c.alone:8.2f}" for c in outcome.systematics]
    for truth, toys in outcome.toys.items():
        t = toys.summary()
        lines.append(
            f"{t['toys']} toys with the {truth} ordering at {job.toy_years:g} years, {t['valid']} valid: median "
            f"{t['median']:.2f} ± {t['median_error']:.2f}, spread {t['spread']:.2f}, wrong ordering preferred "
            f"{100 * t['wrong_preferred']:.1f} %"
        )
    if outcome.toys:
        p, error = _median_p_value(outcome)
        lines.append(f"median experiment: the {other} ordering has p = {p:.2g} ± {error:.1g} by its own toys")
    lines.append(f"{outcome.seconds:.0f} s" + ("" if outcome.valid else "; NOT ALL FITS ARE VALID, see ordering.json"))
    return "\n".join(lines)


def write_ordering(outcome: OrderingOutcome, folder: str | os.PathLike[str], *, pictures: bool = True) -> list[Path]:
    """``ordering.json``, ``ordering.csv``, ``ordering_toys.csv`` and pictures."""
    place = output_folder(folder)
    paths = [place / "ordering.json", place / "ordering.csv"]
    save_result(paths[0], _record(outcome))
    atomic_write_text(paths[1], _curve_csv(outcome))
    if outcome.toys:
        paths.append(place / "ordering_toys.csv")
        atomic_write_text(paths[-1], _toys_csv(outcome.toys, outcome.job.seed))
    if pictures:
        from nuebar.report.ordering_plots import ordering_curve, ordering_systematics, ordering_toys
        from nuebar.report.plots import save

        curves = {s.resolution: [p.delta_chi2 for p in s.points] for s in outcome.sets}
        bare = [p.delta_chi2 for p in outcome.sets[0].statistics_only]
        figures = {"ordering.png": ordering_curve(outcome.years, curves, statistics=bare, power_GW=outcome.near_GW)}
        if len(outcome.systematics) > 2:
            rows = {c.group: (c.without, c.alone) for c in outcome.systematics}
            figures["ordering_systematics.png"] = ordering_systematics(rows)
        if outcome.toys:
            figures["ordering_toys.png"] = ordering_toys({t: _signed(o, outcome.job) for t, o in outcome.toys.items()})
        for name, figure in figures.items():
            save(figure, place / name)
            paths.append(place / name)
    return paths


# ---------------------------------------------------------------- helpers


def _check_job(job: OrderingJob) -> None:
    known = resolutions()
    bad = [r for r in job.resolutions if r not in known and r != OWN]
    if bad or not job.resolutions or len(set(job.resolutions)) < len(job.resolutions):
        raise NuebarError(f"--resolution: expected different ones of {', '.join((*known, OWN))}, got {job.resolutions}")
    years = np.asarray(job.years, float)
    if years.size < 2 or np.any(~np.isfinite(years)) or years[0] <= 0 or np.any(np.diff(years) <= 0):
        raise NuebarError(f"--years: expected two or more increasing numbers above 0, got {job.years}")
    for name, value in (("--toy-years", job.toy_years), ("--systematics-years", job.systematics_years)):
        if not (np.isfinite(value) and value > 0):
            raise NuebarError(f"{name}: expected a number above 0, got {value}")
    if job.toys < 0 or job.toys == 1:
        raise NuebarError(f"--toys: expected none or at least two, got {job.toys}")
    if job.truth not in ("normal", "inverted"):
        raise NuebarError(f"--truth: expected normal or inverted, got {job.truth!r}")
    if job.fit.release is not None:
        raise NuebarError("nuebar fit ordering is about expected sensitivity: leave --release out")


def _signed(toys: OrderingToys, job: OrderingJob) -> np.ndarray:
    """Δχ² of toys as χ² of the ordering that the job takes for wrong, less that of the other, whichever is true."""
    return toys.delta_chi2 if toys.truth == job.truth else -toys.delta_chi2


def _median_p_value(outcome: OrderingOutcome) -> tuple[float, float]:
    return p_value(outcome.toys, outcome.job.truth, float(np.median(outcome.toys[outcome.job.truth].delta_chi2)))


def _tick(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if progress is None else (lambda done, total: progress(what, done, total))


def _record(outcome: OrderingOutcome) -> dict[str, Any]:
    job = outcome.job

    def point(years: float, p: OrderingPoint) -> dict[str, Any]:
        return {
            "years": years,
            "delta_chi2": p.delta_chi2,
            "sigma": p.sigma,
            "valid": p.valid,
            "reason": p.reason,
            "minima": p.minima,
            "wrong": dict(p.wrong),
        }

    record: dict[str, Any] = {
        "format": 1,
        "kind": "mass ordering",
        "experiment": outcome.experiment.name,
        "inputs": None if job.fit.inputs is None else Path(job.fit.inputs).name,
        "statistic": outcome.statistic,
        "predictor": job.fit.predictor,
        "truth": job.truth,
        "power_GW": outcome.near_GW,
        "duty_cycle": outcome.duty_cycle,
        "valid": outcome.valid,
        "sets": [
            {
                "resolution": s.resolution,
                "a_b_c": list(s.values),
                "years_at_3_sigma": s.years_at_3_sigma,
                "points": [point(y, p) for y, p in zip(outcome.years, s.points, strict=True)],
                "statistics_only": [p.delta_chi2 for p in s.statistics_only],
            }
            for s in outcome.sets
        ],
        "systematics": {"years": job.systematics_years, "groups": [asdict(c) for c in outcome.systematics]},
        "seconds": outcome.seconds,
        "versions": versions(),
    }
    if outcome.toys:
        p, error = _median_p_value(outcome)
        record["toys"] = {
            "years": job.toy_years,
            "seed": job.seed,
            "truth": {
                truth: {**t.summary(), "failures": {"right": t.right.failures(), "wrong": t.wrong.failures()}}
                for truth, t in outcome.toys.items()
            },
            "p_value_of_wrong_ordering": {"median": p, "error": error},
        }
    return record


def _curve_csv(outcome: OrderingOutcome) -> str:
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    names = [f"delta_chi2_{s.resolution}" for s in outcome.sets]
    rows.writerow(["years_full_power", "years_calendar", *names, "delta_chi2_statistics_only"])
    for k, years in enumerate(outcome.years):
        cells = [f"{s.points[k].delta_chi2:.6g}" for s in outcome.sets]
        bare = f"{outcome.sets[0].statistics_only[k].delta_chi2:.6g}"
        rows.writerow([f"{years:g}", f"{years / outcome.duty_cycle:.6g}", *cells, bare])
    return buffer.getvalue()


def _toys_csv(both: Mapping[str, OrderingToys], seed: int) -> str:
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(
        ["truth", "toy", "seed", "chi2_right", "chi2_wrong", "delta_chi2", "valid", "reason_right", "reason_wrong"]
    )
    for truth, toys in both.items():
        for i in range(len(toys.right)):
            right, wrong = float(toys.right.chi2[i]), float(toys.wrong.chi2[i])
            words = [toys.right.reason(i), toys.wrong.reason(i)]
            numbers = [f"{right:.9g}", f"{wrong:.9g}", f"{wrong - right:.9g}"]
            rows.writerow([truth, int(toys.right.numbers[i]), seed, *numbers, int(toys.valid[i]), *words])
    return buffer.getvalue()
