"""The job of ``nuebar fit sensitivity``: precision and mass ordering against exposure, resolution and systematics."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq

from nuebar.config import EXPERIMENTS, Experiment, load_experiment, override
from nuebar.errors import NuebarError
from nuebar.fit.ordering import OrderingPoint, SystematicCost, crossing
from nuebar.fit.sensitivity import ErrorCheck, GroupErrors, Precision, SensitivityStudy
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.io.files import atomic_write_text, output_folder
from nuebar.io.releases import read_common_inputs
from nuebar.io.results import save_result, versions
from nuebar.jobs.fit import FitJob, _check, _experiment, _prepare
from nuebar.jobs.ordering import NEAR_km
from nuebar.jobs.resolutions import OWN, changes, resolutions
from nuebar.records import from_mapping, read_toml

__all__ = [
    "Point",
    "Published",
    "PublishedError",
    "ResolutionPoint",
    "ResolutionSet",
    "SensitivityJob",
    "SensitivityOutcome",
    "parse_priors",
    "published",
    "run_sensitivity",
    "sensitivity_figures",
    "sensitivity_record",
    "sensitivity_report",
    "write_sensitivity",
]

Progress = Callable[[str, int, int], None]
MakeFit = Callable[[Experiment], SpectrumFit]

PUBLISHED = EXPERIMENTS / "published" / "juno-sensitivity.toml"
DAYS_100 = 100.0 / 365.25
YEARS = (0.1, 0.17, DAYS_100, 0.5, 1.0, 2.0, 3.0, 4.5, 6.0, 8.0, 12.0, 20.0)
FACTORS = (0.9, 0.95, 1.0, 1.05, 1.1)
PERCENT_ROUNDING = 0.05  # percents are printed with one decimal
FIXED_GROUPS = ("statistics", "external priors")  # never switched off
SHORT = {"sin2_th12": "sin²θ12", "sin2_th13": "sin²θ13", "dm2_21_eV2": "Δm²21", "dm2_31_eV2": "Δm²31"}


@dataclass(frozen=True)
class SensitivityJob:
    """The options of ``nuebar fit sensitivity``.

    Attributes:
        fit: Experiment, inputs, predictor, statistic and what is fixed, as for a fit; exposure and ordering of it are
            not used.
        detector: A second detector that sees the same reactors (``tao``, or a TOML file); the spectrum of the reactors
            is then free, and exposures are those of both.
        resolutions: Names of :func:`nuebar.jobs.resolutions.resolutions`, or "own" for the experiment's.
        years: Exposures in calendar years, as ``--exposure-years`` of a fit counts them.
        factors: The first resolution times these, a, b and c alike; empty for no scan.
        systematics_years: Where systematics are switched off one at a time and resolutions are scanned.
        priors: External measurements, parameter → error; they are studied beside the fit without them.
        truth: The true ordering of Δχ²; errors are those of the normal one.
        ordering: Whether Δχ² of the ordering is wanted.
        check: Whether profiles tell which errors are to be trusted.
    """

    fit: FitJob = field(default_factory=lambda: FitJob(asimov=True))
    detector: str | None = None
    resolutions: tuple[str, ...] = ("2022", "2024")
    years: tuple[float, ...] = YEARS
    factors: tuple[float, ...] = FACTORS
    systematics_years: float = 6.0
    priors: Mapping[str, float] = field(default_factory=dict)
    truth: str = "normal"
    ordering: bool = True
    check: bool = True


@dataclass(frozen=True)
class Point:
    """One exposure with one resolution.

    Attributes:
        years: Calendar years.
        full: Everything on.
        bare: Statistics only.
        external: Everything on and the external measurements; None without any.
        ordering: Δχ² with everything on; None if it was not wanted.
        ordering_bare: Δχ² with statistics only.
        checks: Which errors can be trusted; empty if it was not asked.
    """

    years: float
    full: Precision
    bare: Precision
    external: Precision | None
    ordering: OrderingPoint | None
    ordering_bare: OrderingPoint | None
    checks: tuple[ErrorCheck, ...]


@dataclass(frozen=True)
class ResolutionSet:
    """Everything with one resolution.

    Attributes:
        name: Of the resolution.
        values: a, b, c.
        points: One for each exposure.
        breakdown: What each group of systematics does to the errors.
        costs: What each does to Δχ²; empty if that was not wanted.
        years_at_3_sigma: Calendar years where the median Δχ² reaches 9; None if it does not.
    """

    name: str
    values: tuple[float, ...]
    points: tuple[Point, ...]
    breakdown: tuple[GroupErrors, ...]
    costs: tuple[SystematicCost, ...]
    years_at_3_sigma: float | None


@dataclass(frozen=True)
class ResolutionPoint:
    """A scaled resolution at one exposure.

    Attributes:
        factor: On a, b and c.
        at_1_MeV: σ/E there.
        full: Everything on.
        bare: Statistics only.
        ordering: Δχ² with everything on; None if it was not wanted.
        ordering_bare: With statistics only.
    """

    factor: float
    at_1_MeV: float
    full: Precision
    bare: Precision
    ordering: OrderingPoint | None
    ordering_bare: OrderingPoint | None


@dataclass(frozen=True)
class PublishedError:
    """An error as printed: its value, half of its last digit, and the percent beside it."""

    error: float
    rounding: float
    percent: float

    def relative(self, true: float) -> tuple[float, float]:
        """In percent with its rounding: from the error or the percent, whichever was printed with more digits."""
        if PERCENT_ROUNDING / self.percent < self.rounding / self.error:
            return self.percent, PERCENT_ROUNDING
        return 100.0 * self.error / abs(true), 100.0 * self.rounding / abs(true)


@dataclass(frozen=True)
class _PublishedPrecision:
    source: str
    years: float
    status: str
    dm2_31_eV2: PublishedError
    dm2_21_eV2: PublishedError
    sin2_th12: PublishedError
    sin2_th13: PublishedError

    def of(self, name: str) -> PublishedError | None:
        """The error of a parameter."""
        return getattr(self, name, None)


@dataclass(frozen=True)
class _PublishedOrdering:
    source: str
    years_full_power: float
    delta_chi2: float
    status: str


@dataclass(frozen=True)
class Published:
    """What was published: errors at some calendar years, and the ordering."""

    format: int
    precision: tuple[_PublishedPrecision, ...]
    ordering: tuple[_PublishedOrdering, ...]


@dataclass(frozen=True, eq=False)
class SensitivityOutcome:
    """Everything, ready to be shown and written."""

    job: SensitivityJob
    experiment: Experiment
    statistic: str
    detectors: tuple[str, ...]
    interest: tuple[str, ...]
    true: Mapping[str, float]
    near_GW: float
    duty_cycle: float
    sets: tuple[ResolutionSet, ...]
    scan: tuple[ResolutionPoint, ...]
    published: Published | None
    seconds: float

    @property
    def valid(self) -> bool:
        """Whether every Δχ² comes from a valid fit."""
        points = [p for s in self.sets for q in s.points for p in (q.ordering, q.ordering_bare)]
        points += [p for q in self.scan for p in (q.ordering, q.ordering_bare)]
        return all(p.valid for p in points if p is not None) and all(c.valid for s in self.sets for c in s.costs)


def published() -> Published:
    """The published sensitivity of JUNO, from the table that ships with nuebar."""
    found: Published = from_mapping(Published, read_toml(PUBLISHED), str(PUBLISHED))
    return found


def parse_priors(words: Sequence[str]) -> dict[str, float]:
    """Errors of external measurements from words such as ``sin2_th13=0.0007``.

    Raises:
        NuebarError: A word has another form, or a parameter comes twice.
    """
    out: dict[str, float] = {}
    for word in words:
        name, _, number = word.partition("=")
        try:
            sigma = float(number)
        except ValueError:
            raise NuebarError(f"--prior: expected NAME=ERROR such as sin2_th13=0.0007, got {word!r}") from None
        if name in out:
            raise NuebarError(f"--prior: expected each parameter once, got {name} twice")
        out[name] = sigma
    return out


def run_sensitivity(
    job: SensitivityJob, make_fit: MakeFit | None = None, progress: Progress | None = None
) -> SensitivityOutcome:
    """Errors and Δχ² of expected counts; nothing is written.

    Args:
        job: The options.
        make_fit: Makes the fit of an experiment, whose resolution and nothing else changes between calls; that of
            ``job.fit`` by default.
        progress: Called with (what, done, total).

    Raises:
        NuebarError: Options do not go together.
    """
    began = time.perf_counter()
    _check_job(job, tuple(resolutions()))
    wanted = replace(job.fit, asimov=True, data=None, ordering="normal", exposure_years=None, exposure_days=None)
    _check(wanted)
    base = _experiment(wanted)
    make = make_fit or (_maker(wanted) if job.detector is None else _joint_maker(wanted, job.detector))
    unit = base.exposure.days_per_year / base.exposure.days
    sets, first = [], None
    for name in job.resolutions:
        experiment = base if name == OWN else override(base, changes(name))
        study = SensitivityStudy(make(experiment))
        first = first or (experiment, study)
        tick = _tick(progress, f"resolution {name}")
        sets.append(_set(job, name, experiment, study, unit, tick))
    assert first is not None
    scan = _scan(job, *first, make, unit, _tick(progress, "scan of the resolution"))
    study = first[1]
    own = wanted.experiment == "juno"
    return SensitivityOutcome(
        job=job,
        experiment=base,
        statistic=study.fit.statistic,
        detectors=tuple(study.fit.experiment.split(" + ")),
        interest=study.interest,
        true={n: study.fit.parameters[n].value for n in study.interest},
        near_GW=sum(c.power_GW for c in base.reactor.cores if c.baseline_km < NEAR_km),
        duty_cycle=base.reactor.duty_cycle,
        sets=tuple(sets),
        scan=scan,
        published=published() if own else None,
        seconds=time.perf_counter() - began,
    )


def sensitivity_report(outcome: SensitivityOutcome) -> str:
    """What the command prints."""
    job, names = outcome.job, outcome.interest
    lines = [
        f"{' + '.join(outcome.detectors)}, {outcome.statistic}: expected errors in % of the value, all systematics "
        "(statistics only)"
    ]
    for s in outcome.sets:
        lines.append(f"resolution {s.name}: {100 * _at_1_MeV(s.values):.2f} % at 1 MeV")
        head = " ".join(f"{SHORT.get(n, n):>17s}" for n in names)
        lines.append(f"{'years':>7s} {head}" + ("   Δχ² of the ordering" if job.ordering else ""))
        for p in s.points:
            cells = [_cell(p, n) for n in names]
            text = f"{p.years:7.4g} " + " ".join(f"{c:>17s}" for c in cells)
            if p.ordering is not None and p.ordering_bare is not None:
                text += f"  {p.ordering.delta_chi2:9.2f} ({p.ordering_bare.delta_chi2:.2f})"
            lines.append(text)
        if job.ordering:
            at = s.years_at_3_sigma
            words = "not reached between the first and the last exposure"
            if at is not None:
                words = (
                    f"{at:.2f} calendar years, {at * outcome.duty_cycle:.2f} at full power ({outcome.near_GW:.1f} GW)"
                )
            lines.append(f"3 sigma of the ordering with it: {words}")
    if any(not c.trusted for s in outcome.sets for p in s.points for c in p.checks):
        lines.append(
            "!: not to be trusted, the profile is not a parabola or another minimum is near; see sensitivity.json"
        )
    lines += _breakdown_lines(outcome)
    if outcome.scan:
        lines.append(f"at {job.systematics_years:g} years, resolution {job.resolutions[0]} times a factor: errors in %")
        head = " ".join(f"{SHORT.get(n, n):>17s}" for n in names)
        lines.append(f"{'factor':>7s} {'at 1 MeV':>8s} {head}" + (f" {'Δχ²':>9s}" if job.ordering else ""))
        for q in outcome.scan:
            numbers = " ".join(f"{100 * q.full.relative[n]:17.4f}" for n in names)
            delta = "" if q.ordering is None else f" {q.ordering.delta_chi2:9.2f}"
            lines.append(f"{q.factor:7.3f} {100 * q.at_1_MeV:6.2f} % {numbers}{delta}")
    if job.priors:
        told = ", ".join(f"{n} ± {s:g}" for n, s in job.priors.items())
        lines.append(f"with {told}: errors in % at {job.systematics_years:g} years or the nearest exposure")
        for s in outcome.sets:
            p = min(s.points, key=lambda q: abs(q.years - job.systematics_years))
            assert p.external is not None
            lines.append(f"{s.name:>7s} " + " ".join(f"{100 * p.external.relative[n]:17.4f}" for n in names))
    lines.append(
        f"{outcome.seconds:.0f} s" + ("" if outcome.valid else "; NOT ALL FITS ARE VALID, see sensitivity.json")
    )
    return "\n".join(lines)


def write_sensitivity(
    outcome: SensitivityOutcome, folder: str | os.PathLike[str], *, pictures: bool = True
) -> list[Path]:
    """``sensitivity.json``, three tables as CSV, and pictures."""
    place = output_folder(folder)
    paths = [place / "sensitivity.json"]
    save_result(paths[0], sensitivity_record(outcome))
    texts = {"sensitivity.csv": _curves_csv(outcome), "sensitivity_systematics.csv": _systematics_csv(outcome)}
    if outcome.scan:
        texts["sensitivity_resolution.csv"] = _scan_csv(outcome)
    for name, text in texts.items():
        atomic_write_text(place / name, text)
        paths.append(place / name)
    if pictures:
        from nuebar.report.plots import save

        for name, figure in sensitivity_figures(outcome).items():
            save(figure, place / name)
            paths.append(place / name)
    return paths


def sensitivity_figures(outcome: SensitivityOutcome) -> dict[str, Any]:
    """File name → picture."""
    from nuebar.report import sensitivity_plots as draw

    names, duty = outcome.interest, outcome.duty_cycle
    curves = {s.name: {n: [100 * p.full.relative[n] for p in s.points] for n in names} for s in outcome.sets}
    bare = {s.name: {n: [100 * p.bare.relative[n] for p in s.points] for n in names} for s in outcome.sets}
    doubtful = {s.name: {n: [_doubtful(p, n) for p in s.points] for n in names} for s in outcome.sets}
    points = {n: _published_points(outcome, n) for n in names}
    external = (
        {n: [100 * p.external.relative[n] for p in outcome.sets[0].points if p.external is not None] for n in names}
        if outcome.job.priors
        else {}
    )
    out = {
        "sensitivity_precision.png": draw.precision_curves(
            outcome.job.years, curves, bare, doubtful=doubtful, published=points, external=external
        ),
        "sensitivity_systematics.png": draw.systematics_bars(
            {g.group: g.share for g in outcome.sets[0].breakdown},
            {g.group: g.without for g in outcome.sets[0].breakdown},
            _whole(outcome, outcome.sets[0]),
            title=f"{outcome.job.systematics_years:g} years, resolution {outcome.sets[0].name}",
        ),
    }
    if outcome.job.ordering:
        delta = {s.name: [p.ordering.delta_chi2 for p in s.points if p.ordering] for s in outcome.sets}
        nothing = {s.name: [p.ordering_bare.delta_chi2 for p in s.points if p.ordering_bare] for s in outcome.sets}
        marks = [(q.years_full_power / duty, q.delta_chi2) for q in (outcome.published or _NOTHING).ordering]
        out["sensitivity_ordering.png"] = draw.ordering_curves(
            outcome.job.years, delta, nothing, duty_cycle=duty, power_GW=outcome.near_GW, published=marks
        )
    if len(outcome.scan) > 1:
        out["sensitivity_resolution.png"] = draw.resolution_curves(
            [100 * q.at_1_MeV for q in outcome.scan],
            {n: [100 * q.full.relative[n] for q in outcome.scan] for n in names},
            {n: [100 * q.bare.relative[n] for q in outcome.scan] for n in names},
            delta_chi2=[q.ordering.delta_chi2 for q in outcome.scan if q.ordering] or None,
            delta_chi2_bare=[q.ordering_bare.delta_chi2 for q in outcome.scan if q.ordering_bare] or None,
            title=f"{outcome.job.systematics_years:g} years",
        )
    return out


def sensitivity_record(outcome: SensitivityOutcome) -> dict[str, Any]:
    """The content of ``sensitivity.json``."""
    job = outcome.job
    return {
        "format": 1,
        "kind": "sensitivity",
        "experiment": outcome.experiment.name,
        "detectors": list(outcome.detectors),
        "inputs": None if job.fit.inputs is None else Path(job.fit.inputs).name,
        "statistic": outcome.statistic,
        "predictor": job.fit.predictor,
        "simulated": True,
        "truth": job.truth,
        "true_values": dict(outcome.true),
        "priors": dict(job.priors),
        "power_GW": outcome.near_GW,
        "duty_cycle": outcome.duty_cycle,
        "valid": outcome.valid,
        "sets": [_set_record(outcome, s) for s in outcome.sets],
        "resolution_scan": {
            "years": job.systematics_years,
            "resolution": job.resolutions[0],
            "points": [
                {
                    "factor": q.factor,
                    "at_1_MeV": q.at_1_MeV,
                    "errors": dict(q.full.errors),
                    "statistics_only": dict(q.bare.errors),
                    **_ordering_record(q.ordering, q.ordering_bare),
                }
                for q in outcome.scan
            ],
        },
        "seconds": outcome.seconds,
        "versions": versions(),
    }


# ---------------------------------------------------------------- the work


def _maker(wanted: FitJob) -> MakeFit:
    inputs = read_common_inputs(wanted.inputs) if wanted.inputs is not None else None
    return lambda experiment: _prepare(wanted, experiment, None, inputs, None)[0]


def _joint_maker(wanted: FitJob, detector: str) -> MakeFit:
    """Both detectors, with the spectrum's nodes as parameters: each group of systematics can then be switched off."""
    from nuebar.fit.joint import joint_fit

    if wanted.predictor != "harmonic" or wanted.response is not None or wanted.free:
        raise NuebarError("--detector: two detectors take the harmonic predictor only; leave --predictor, --response "
                          "and --free out")  # fmt: skip
    inputs = read_common_inputs(wanted.inputs) if wanted.inputs is not None else None
    second = load_experiment(detector)

    def make(experiment: Experiment) -> SpectrumFit:
        fit = joint_fit(experiment, second, spectrum="parameters", inputs=inputs)
        return fit.fixing(wanted.fix)

    return make


def _set(
    job: SensitivityJob,
    name: str,
    experiment: Experiment,
    study: SensitivityStudy,
    unit: float,
    tick: Callable[[int, int], None] | None,
) -> ResolutionSet:
    groups = study.groups()
    outside = SensitivityStudy(study.fit, priors=job.priors) if job.priors else None
    points = []
    for k, years in enumerate(job.years):
        factor = years * unit
        points.append(
            Point(
                years=years,
                full=study.precision(factor),
                bare=study.precision(factor, without=groups),
                external=outside.precision(factor) if outside else None,
                ordering=study.ordering(factor, truth=job.truth) if job.ordering else None,
                ordering_bare=study.ordering(factor, truth=job.truth, without=groups) if job.ordering else None,
                checks=tuple(study.check(factor, n) for n in study.interest) if job.check else (),
            )
        )
        if tick is not None:
            tick(k + 1, len(job.years))
    at = job.systematics_years * unit
    return ResolutionSet(
        name=name,
        values=tuple(experiment.response.resolution),
        points=tuple(points),
        breakdown=study.breakdown(at),
        costs=study.ordering_systematics(at, truth=job.truth) if job.ordering else (),
        years_at_3_sigma=_years_at_3_sigma(job, study, points, unit) if job.ordering else None,
    )


def _years_at_3_sigma(
    job: SensitivityJob, study: SensitivityStudy, points: Sequence[Point], unit: float
) -> float | None:
    """Where Δχ² is 9, between two of the exposures."""
    delta = [p.ordering.delta_chi2 for p in points if p.ordering is not None]
    about = crossing(job.years, delta)
    if about is None:
        return None
    k = int(np.searchsorted(job.years, about))

    def short(years: float) -> float:
        return study.ordering(years * unit, truth=job.truth).delta_chi2 - 9.0

    return float(brentq(short, job.years[k - 1], job.years[k], xtol=1e-3))


def _scan(
    job: SensitivityJob,
    experiment: Experiment,
    first: SensitivityStudy,
    make: MakeFit,
    unit: float,
    tick: Callable[[int, int], None] | None,
) -> tuple[ResolutionPoint, ...]:
    """The first resolution times each factor."""
    out = []
    at = job.systematics_years * unit
    for k, factor in enumerate(job.factors):
        values = tuple(factor * v for v in experiment.response.resolution)
        study = first
        if factor != 1.0:
            study = SensitivityStudy(make(override(experiment, {"response.resolution": values})))
        groups = study.groups()
        out.append(
            ResolutionPoint(
                factor=factor,
                at_1_MeV=_at_1_MeV(values),
                full=study.precision(at),
                bare=study.precision(at, without=groups),
                ordering=study.ordering(at, truth=job.truth) if job.ordering else None,
                ordering_bare=study.ordering(at, truth=job.truth, without=groups) if job.ordering else None,
            )
        )
        if tick is not None:
            tick(k + 1, len(job.factors))
    return tuple(out)


def _check_job(job: SensitivityJob, known: Sequence[str]) -> None:
    bad = [r for r in job.resolutions if r not in known and r != OWN]
    if bad or not job.resolutions or len(set(job.resolutions)) < len(job.resolutions):
        raise NuebarError(f"--resolution: expected different ones of {', '.join((*known, OWN))}, got {job.resolutions}")
    for option, given, least in (("--years", job.years, 2), ("--resolution-factors", job.factors, 0)):
        x = np.asarray(given, float)
        if x.size < least or np.any(~np.isfinite(x)) or np.any(x <= 0) or np.any(np.diff(x) <= 0):
            raise NuebarError(f"{option}: expected at least {least} increasing numbers above 0, got {given}")
    if not (np.isfinite(job.systematics_years) and job.systematics_years > 0):
        raise NuebarError(f"--systematics-years: expected a number above 0, got {job.systematics_years}")
    if job.truth not in ("normal", "inverted"):
        raise NuebarError(f"--truth: expected normal or inverted, got {job.truth!r}")
    if job.fit.release is not None:
        raise NuebarError("nuebar fit sensitivity is about expected counts: leave --release out")
    for option, value in (("--exposure-years", job.fit.exposure_years), ("--exposure-days", job.fit.exposure_days)):
        if value is not None:
            raise NuebarError(f"{option}: nuebar fit sensitivity takes exposures from --years; leave it out")


def _tick(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if progress is None else (lambda done, total: progress(what, done, total))


def _at_1_MeV(values: Sequence[float]) -> float:
    return float(np.sqrt(np.sum(np.square(values))))


# ---------------------------------------------------------------- what is told

_NOTHING = Published(1, (), ())


def _cell(p: Point, name: str) -> str:
    mark = "!" if _doubtful(p, name) else ""
    return f"{mark}{100 * p.full.relative[name]:.3g} ({100 * p.bare.relative[name]:.3g})"


def _doubtful(p: Point, name: str) -> bool:
    return any(c.name == name and not c.trusted for c in p.checks)


def _published_points(outcome: SensitivityOutcome, name: str) -> list[tuple[float, float, float]]:
    """Years, relative error and its rounding in percent."""
    found = [(q.years, q.of(name)) for q in (outcome.published or _NOTHING).precision]
    return [(years, *e.relative(outcome.true[name])) for years, e in found if e is not None]


def _whole(outcome: SensitivityOutcome, s: ResolutionSet) -> dict[str, float]:
    """Errors at the exposure of the breakdown: the root of the sum of the squares of its shares."""
    return {n: float(np.sqrt(sum(g.share[n] ** 2 for g in s.breakdown))) for n in outcome.interest}


def _breakdown_lines(outcome: SensitivityOutcome) -> list[str]:
    s, names = outcome.sets[0], outcome.interest
    whole = _whole(outcome, s)
    lines = [
        f"at {outcome.job.systematics_years:g} years, resolution {s.name}: share of σ² in % (they add up to 100), and "
        "by how many % σ is less without the group"
    ]
    head = "   ".join(f"{SHORT.get(n, n):>13s}" for n in names)
    words = "   ".join(f"{'share':>5s}  {'σ less':>6s}" for _ in names)
    lines.append(f"  {'':28s} {head}" + ("   Δχ² without, alone" if s.costs else ""))
    lines.append(f"  {'':28s} {words}")
    costs = {c.group: c for c in s.costs}
    for g in s.breakdown:
        off = not g.group.startswith(FIXED_GROUPS)
        cells = "   ".join(_share_cell(g.share[n] / whole[n], g.without[n] / whole[n], off) for n in names)
        c = costs.get(g.group)
        lines.append(f"  {g.group:28s} {cells}" + ("" if c is None else f"   {c.without:8.2f} {c.alone:8.2f}"))
    return lines


def _share_cell(share: float, without: float, off: bool) -> str:
    """The same two numbers as in the picture; the second one only of what can be switched off."""
    less = f"{100 * max(1.0 - without, 0.0):.1f}" if off else "-"
    return f"{100 * share**2:5.1f}  {less:>6s}"


def _ordering_record(point: OrderingPoint | None, bare: OrderingPoint | None) -> dict[str, Any]:
    if point is None or bare is None:
        return {}
    return {
        "delta_chi2": point.delta_chi2,
        "sigma": point.sigma,
        "delta_chi2_statistics_only": bare.delta_chi2,
        "valid": point.valid and bare.valid,
        "reason": "; ".join(w for w in (point.reason, bare.reason) if w),
        "minima": point.minima,
    }


def _set_record(outcome: SensitivityOutcome, s: ResolutionSet) -> dict[str, Any]:
    return {
        "resolution": s.name,
        "a_b_c": list(s.values),
        "at_1_MeV": _at_1_MeV(s.values),
        "years_at_3_sigma": s.years_at_3_sigma,
        "years_at_3_sigma_full_power": None if s.years_at_3_sigma is None else s.years_at_3_sigma * outcome.duty_cycle,
        "points": [
            {
                "years": p.years,
                "years_full_power": p.years * outcome.duty_cycle,
                "errors": dict(p.full.errors),
                "relative": dict(p.full.relative),
                "statistics_only": dict(p.bare.errors),
                **({} if p.external is None else {"with_priors": dict(p.external.errors)}),
                **_ordering_record(p.ordering, p.ordering_bare),
                **({"checks": {c.name: _check_record(c) for c in p.checks}} if p.checks else {}),
            }
            for p in s.points
        ],
        "systematics": {
            "years": outcome.job.systematics_years,
            "groups": [
                {"group": g.group, "share": dict(g.share), "without": dict(g.without), "alone": dict(g.alone)}
                for g in s.breakdown
            ],
            "delta_chi2": [
                {"group": c.group, "without": c.without, "alone": c.alone, "valid": c.valid} for c in s.costs
            ],
        },
    }


def _check_record(c: ErrorCheck) -> dict[str, Any]:
    return {
        "profile_below": c.below,
        "profile_above": c.above,
        "minus": c.minus,
        "plus": c.plus,
        "next_minimum": c.next_minimum,
        "data_sets_elsewhere": c.elsewhere,
        "trusted": c.trusted,
        "reason": c.reason,
    }


def _rows(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    out = csv.writer(buffer, lineterminator="\n")
    out.writerow(header)
    out.writerows([[f"{x:.8g}" if isinstance(x, float) else x for x in row] for row in rows])
    return buffer.getvalue()


def _curves_csv(outcome: SensitivityOutcome) -> str:
    names = outcome.interest
    header = ["resolution", "years_calendar", "years_full_power"]
    header += [
        f"{word}_{n}" for n in names for word in ("error", "relative", "statistics_only", "with_priors", "trusted")
    ]
    header += ["delta_chi2", "delta_chi2_statistics_only"]
    rows = []
    for s in outcome.sets:
        for p in s.points:
            row: list[Any] = [s.name, p.years, p.years * outcome.duty_cycle]
            for n in names:
                trusted = [int(c.trusted) for c in p.checks if c.name == n]
                row += [p.full.errors[n], p.full.relative[n], p.bare.errors[n]]
                row += ["" if p.external is None else p.external.errors[n], trusted[0] if trusted else ""]
            row += ["" if q is None else q.delta_chi2 for q in (p.ordering, p.ordering_bare)]
            rows.append(row)
    return _rows(header, rows)


def _systematics_csv(outcome: SensitivityOutcome) -> str:
    names = outcome.interest
    header = ["resolution", "years_calendar", "group"]
    header += [f"{word}_{n}" for n in names for word in ("share", "without", "alone")]
    rows = []
    for s in outcome.sets:
        costs = {c.group: c for c in s.costs}
        for g in s.breakdown:
            row: list[Any] = [s.name, outcome.job.systematics_years, g.group]
            for n in names:
                row += [g.share[n], g.without[n], g.alone[n]]
            c = costs.get(g.group)
            rows.append([*row, *(("", "") if c is None else (c.without, c.alone))])
    return _rows([*header, "delta_chi2_without", "delta_chi2_alone"], rows)


def _scan_csv(outcome: SensitivityOutcome) -> str:
    names = outcome.interest
    header = ["factor", "resolution_at_1_MeV", *(f"{w}_{n}" for n in names for w in ("error", "statistics_only"))]
    rows = []
    for q in outcome.scan:
        row: list[Any] = [q.factor, q.at_1_MeV]
        for n in names:
            row += [q.full.errors[n], q.bare.errors[n]]
        rows.append([*row, *("" if p is None else p.delta_chi2 for p in (q.ordering, q.ordering_bare))])
    return _rows([*header, "delta_chi2", "delta_chi2_statistics_only"], rows)
