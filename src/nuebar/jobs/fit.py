"""The job of ``nuebar fit spectrum``: read, build, fit, scan, and only then write."""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nuebar.config import Experiment, load_experiment, override, show
from nuebar.errors import NuebarError
from nuebar.fit.blinding import blinded, offsets
from nuebar.fit.profile import Scan, delta_chi2_level, scan
from nuebar.fit.result import FitResult
from nuebar.fit.spectrum_fit import SpectrumFit, impacts, inverted_start
from nuebar.io.files import atomic_write_text, output_folder
from nuebar.io.histograms import Histogram
from nuebar.io.posteriors import ResponsePosterior, load_posterior
from nuebar.io.releases import (
    CommonInputs,
    Juno2025Release,
    read_common_inputs,
    read_juno_2025,
    read_spectrum,
)
from nuebar.io.results import save_result
from nuebar.jobs.pairs import even_edges, experiment_pairs
from nuebar.jobs.published import PUBLISHED
from nuebar.parameters import OSCILLATION, ParameterSet
from nuebar.predict.geoneutrinos import split_if_named
from nuebar.predict.nuisances import freed, within_box
from nuebar.predict.pairs import Pairs
from nuebar.predict.signal import experiment_edges
from nuebar.predict.spectrum import SpectrumModel, build_model, rebin
from nuebar.predict.sterile import sterile_if_named

__all__ = ["FitJob", "FitOutcome", "FluxRow", "compare_fluxes", "exposure_days", "run_fit", "write_fit"]

log = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]

OUTPUTS = (
    "result.json", "experiment.toml", "spectrum.csv", "covariance.csv", "delta_chi2.csv",
    "spectrum.png", "pulls.png", "correlation.png", "impacts.png", "contour.png",
)  # fmt: skip

FLUXES: Mapping[str, Mapping[str, object]] = {
    "huber-mueller": {"reactor.shape": "none", "release.unoscillated": False},
    "daya-bay": {"reactor.shape": "daya_bay_shape.csv", "release.unoscillated": False},
    "release": {"reactor.shape": "daya_bay_shape.csv", "release.unoscillated": True},
}
ENERGIES: Mapping[str, Mapping[str, object]] = {
    "visible": {},
    "true": {"response.corrected": True},
}


@dataclass(frozen=True)
class FitJob:
    """The options of ``nuebar fit spectrum``.

    Attributes:
        experiment: Name or path of the experiment.
        release: Folder of JUNO's 2025 release; its spectrum is then the data.
        inputs: ROOT file of JUNO's common inputs, which replace the embedded ones.
        data: A user's spectrum (CSV, UHI JSON, ROOT).
        asimov: Fit the expected counts instead of data.
        exposure_years: Exposure in years of the experiment's ``days_per_year``.
        exposure_days: Exposure in days.
        ordering: "normal" or "inverted".
        predictor: "harmonic", "matrix", "reweight" (from pairs), "surrogate", "network", or a folder.
        pairs: Files or folders of Monte Carlo pairs to make the predictor from.
        columns: Column map of these files.
        bins: Bins of reconstructed energy for the pairs: number, low and high in MeV; the experiment's by default.
        fiducial: Whether pairs outside of the detector's fiducial volume are left out.
        response: A posterior of the response parameters (JSON), which frees them.
        free: Parameters to free beside those.
        mc_error: Whether the error from the finite number of Monte Carlo events is added.
        statistic: Replaces the experiment's.
        flux: One of :data:`FLUXES`; replaces the experiment's.
        energy: "visible" or "true"; replaces the experiment's.
        fix: Parameters to fix at their nominal value.
        minos: Whether to run Minos on the parameters of interest.
        contour: Names of the two scanned parameters; empty for none.
        contour_points: Points per axis.
        contour_sigma: Half width of the map in standard errors.
        compare: Whether to fit the other flux models and energies too (with a release).
        blind: Hide the values.
        unblind: Show them again.
        seed: Seed of the run.
    """

    experiment: str = "juno"
    release: Path | None = None
    inputs: Path | None = None
    data: str | None = None
    asimov: bool = False
    exposure_years: float | None = None
    exposure_days: float | None = None
    ordering: str = "normal"
    predictor: str = "harmonic"
    pairs: tuple[str, ...] = ()
    columns: Path | None = None
    bins: tuple[int, float, float] | None = None
    fiducial: bool = True
    response: Path | None = None
    free: tuple[str, ...] = ()
    mc_error: bool = False
    statistic: str | None = None
    flux: str | None = None
    energy: str | None = None
    fix: tuple[str, ...] = ()
    minos: bool = False
    contour: tuple[str, ...] = ("sin2_th12", "dm2_21_eV2")
    contour_points: int = 13
    contour_sigma: float = 3.8
    compare: bool = True
    blind: bool = False
    unblind: bool = False
    seed: int = 1


@dataclass(frozen=True)
class FluxRow:
    """One line of the comparison of flux models and energy scales."""

    flux: str
    energy: str
    result: FitResult


@dataclass(frozen=True)
class FitOutcome:
    """Everything that a fit produced, ready to be shown and written."""

    job: FitJob
    experiment: Experiment
    fit: SpectrumFit
    result: FitResult
    shown: FitResult
    hidden: Mapping[str, float]
    components: Mapping[str, np.ndarray]
    unoscillated: np.ndarray
    impacts: Mapping[str, Mapping[str, float]]
    contour: Scan | None
    comparison: tuple[FluxRow, ...]
    simulated: bool
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def published(self) -> Mapping[str, tuple[float, float]]:
        """Published value and error of each parameter, if the same data were fitted in the same ordering."""
        same = self.job.release is not None and not self.job.asimov and self.job.ordering == "normal"
        return PUBLISHED.get(self.experiment.name, {}) if same else {}

    @property
    def interest(self) -> tuple[str, ...]:
        """Fitted oscillation parameters without a prior, then those with one."""
        free = [n for n in OSCILLATION if n in self.result.parameter_order]
        return tuple(sorted(free, key=lambda n: self.result.parameters[n].prior is not None))


def exposure_days(experiment: Experiment, years: float | None, days: float | None) -> float:
    """Days of exposure from an option in years or days, or the experiment's own."""
    if years is not None and days is not None:
        raise NuebarError("give --exposure-years or --exposure-days, not both")
    for name, value in (("--exposure-years", years), ("--exposure-days", days)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise NuebarError(f"{name}: expected a positive number, got {value}")
    if years is not None:
        return years * experiment.exposure.days_per_year
    return experiment.exposure.days if days is None else days


def run_fit(job: FitJob, progress: Progress | None = None) -> FitOutcome:
    """Read, build and fit; nothing is written.

    Args:
        job: The options.
        progress: Called with (what, done, total) during long steps.

    Returns:
        The outcome.
    """
    clock, began = {}, time.perf_counter()
    _check(job)
    experiment = _experiment(job)
    release = read_juno_2025(job.release) if job.release is not None else None
    inputs = read_common_inputs(job.inputs) if job.inputs is not None else None
    clock["read"] = time.perf_counter() - began
    fit, simulated = _prepare(job, experiment, release, inputs, progress)
    problem = fit.problem()
    clock["build"] = time.perf_counter() - began - clock["read"]
    result = fit.run(problem=problem)
    if job.minos and result.valid:
        free = [n for n in OSCILLATION if n in result.parameter_order]
        result = fit.run(problem=problem, minos=free, start=result.values())
    clock["fit"] = result.seconds
    contour = None
    usable = result.valid and all(n in result.parameter_order for n in job.contour)
    if job.contour and usable:
        tick = None if progress is None else (lambda k, n: progress("contour", k, n))
        start = time.perf_counter()
        contour = scan(
            fit,
            result,
            job.contour,
            n_points=job.contour_points,
            n_sigma=job.contour_sigma,
            problem=problem,
            progress=tick,
        )
        clock["contour"] = time.perf_counter() - start
    comparison: tuple[FluxRow, ...] = ()
    if job.compare and release is not None and not job.asimov:
        comparison = compare_fluxes(job, experiment, release, progress)
    ranked = impacts(fit, result, [n for n in OSCILLATION if n in result.parameter_order]) if result.valid else {}
    hidden = _hidden(job, result)
    outcome = FitOutcome(
        job=job,
        experiment=experiment,
        fit=fit,
        result=result,
        shown=blinded(result, dict(hidden)) if hidden else result,
        hidden=hidden,
        components=fit.model.components(result.values()),
        unoscillated=fit.model.unoscillated(),
        impacts=ranked,
        contour=contour,
        comparison=comparison,
        simulated=simulated,
        seconds=clock,
    )
    clock["total"] = time.perf_counter() - began
    return outcome


def compare_fluxes(
    job: FitJob, experiment: Experiment, release: Juno2025Release, progress: Progress | None = None
) -> tuple[FluxRow, ...]:
    """Fit the same data with every flux model and both energy scales."""
    rows = []
    total = len(FLUXES) * len(ENERGIES)
    kind = "matrix" if job.predictor == "matrix" and not job.pairs else "harmonic"  # Monte Carlo holds one flux only
    for energy in ENERGIES:
        for flux in FLUXES:
            changed = override(experiment, {**FLUXES[flux], **ENERGIES[energy]})
            model, parameters = build_model(changed, predictor=kind, release=release)
            fit = _fit(job, changed, model, _ordered(job, parameters, model), release.counts.astype(float))
            rows.append(FluxRow(flux, energy, fit.run()))
            if progress is not None:
                progress("flux models", len(rows), total)
    return tuple(rows)


def _check(job: FitJob) -> None:
    sources = [job.release is not None and not job.asimov, job.data is not None, job.asimov]
    if sum(sources) != 1:
        raise NuebarError(
            f"expected exactly one source of counts: --release DIR, --data FILE or --asimov; got {sum(sources)} of them"
        )
    if job.blind and job.unblind:
        raise NuebarError("give --blind or --unblind, not both")
    for name, value, known in (
        ("--ordering", job.ordering, ("normal", "inverted")),
        ("--flux", job.flux, (None, *FLUXES)),
        ("--energy", job.energy, (None, *ENERGIES)),
    ):
        if value not in known:
            raise NuebarError(f"{name}: expected one of {', '.join(k for k in known if k)}, got {value!r}")
    if not 0 < job.contour_sigma < 100:
        raise NuebarError(f"--contour-sigma: expected a number between 0 and 100, got {job.contour_sigma}")
    if len(job.contour) not in (0, 2) or job.contour_points < 5:
        raise NuebarError("--contour needs two parameters and at least 5 points per axis")


def _experiment(job: FitJob) -> Experiment:
    experiment = load_experiment(job.experiment)
    changes: dict[str, object] = {"exposure.days": exposure_days(experiment, job.exposure_years, job.exposure_days)}
    if job.statistic is not None:
        changes["fit.statistic"] = job.statistic
    if job.flux is not None:
        changes |= FLUXES[job.flux]
    if job.energy is not None:
        changes |= ENERGIES[job.energy]
    return sterile_if_named(split_if_named(override(experiment, changes), job.free), job.free)


def _ordered(job: FitJob, parameters: ParameterSet, model: SpectrumModel) -> ParameterSet:
    current = "normal" if parameters["dm2_31_eV2"].value > 0 else "inverted"
    if current == job.ordering:
        return parameters
    return within_box(inverted_start(parameters), model.predictor)


def _fit(
    job: FitJob, experiment: Experiment, model: SpectrumModel, parameters: ParameterSet, counts: np.ndarray
) -> SpectrumFit:
    extra = model.mc_covariance(parameters.nominal()) if job.mc_error else None
    parameters = freed(parameters, job.free)
    fit = SpectrumFit(model, parameters, counts, experiment.fit.statistic, experiment.name, job.seed, extra)
    return fit.fixing(job.fix)


def _posterior(job: FitJob) -> ResponsePosterior | None:
    """What a calibration knows of the response; one that says of itself that it is not valid is named."""
    if job.response is None:
        return None
    posterior = load_posterior(job.response)
    told = posterior.provenance.get("valid", "yes")
    if told != "yes":
        log.warning("%s: the tuning that made this posterior was not valid (%s); look at it first", job.response, told)
    return posterior


def _prepare(
    job: FitJob,
    experiment: Experiment,
    release: Juno2025Release | None,
    inputs: CommonInputs | None,
    progress: Progress | None,
) -> tuple[SpectrumFit, bool]:
    """The fit and whether its counts are simulated."""
    model, parameters = build_model(
        experiment,
        predictor=job.predictor,
        pairs=_pairs(job, experiment, progress),
        posterior=_posterior(job),
        release=release,
        inputs=inputs,
    )
    if job.asimov:
        expected, _ = model(model.vector(parameters.nominal()))
        return _fit(job, experiment, model, _ordered(job, parameters, model), np.asarray(expected)), True
    edges = np.array(model.edges_MeV)
    if job.data is not None:
        counts = _in_bins(read_spectrum(job.data), edges, job.data)
    else:
        assert release is not None
        counts = _in_bins(Histogram(release.edges_MeV, release.counts.astype(float)), edges, str(job.release))
    return _fit(job, experiment, model, _ordered(job, parameters, model), counts), False


def _in_bins(histogram: Histogram, edges: np.ndarray, where: str) -> np.ndarray:
    """Measured counts in the bins of the analysis, which must be among theirs."""
    if histogram.edges[0] > edges[0] + 1e-9 or histogram.edges[-1] < edges[-1] - 1e-9:
        raise NuebarError(
            f"{where}: covers {histogram.edges[0]:g} to {histogram.edges[-1]:g} MeV, but the experiment's bins "
            f"need {edges[0]:g} to {edges[-1]:g}; correct the file or the binning of the experiment"
        )
    missing = [e for e in edges if np.min(np.abs(histogram.edges - e)) > 1e-6]
    if missing:
        raise NuebarError(
            f"{where}: has no bin edge at {missing[0]:g} MeV, where the experiment or the predictor has one; measured "
            "counts are never split, so give both the same edges (or finer ones in the file)"
        )
    return rebin(histogram, edges)


def _pairs(job: FitJob, experiment: Experiment, progress: Progress | None) -> Pairs | None:
    """The Monte Carlo pairs of the options."""
    if not job.pairs:
        if job.columns is not None or job.bins is not None:
            raise NuebarError("--columns and --bins belong to --pairs; give files of pairs too, or leave them out")
        return None
    edges = experiment_edges(experiment) if job.bins is None else even_edges(*job.bins)
    return experiment_pairs(job.pairs, edges, experiment, columns=job.columns, fiducial=job.fiducial, progress=progress)


def _hidden(job: FitJob, result: FitResult) -> dict[str, float]:
    """Offsets while the result is blind."""
    if not job.blind:
        return {}
    names = [n for n in OSCILLATION if n in result.parameter_order]
    errors = [result.parameters[n].error for n in names]
    if not np.all(np.isfinite(errors)):
        raise NuebarError("cannot blind a fit without errors: " + result.reason)
    return offsets(names, errors, seed=job.seed, experiment=result.experiment)


# ---------------------------------------------------------------- writing


def write_fit(outcome: FitOutcome, folder: str | Path, *, pictures: bool = True) -> tuple[Path, ...]:
    """Write a finished fit: records first, then tables, then pictures; each file appears whole or not at all.

    Args:
        outcome: From :func:`run_fit`.
        folder: Output folder, made if missing.
        pictures: Whether to draw.

    Returns:
        The files.
    """
    out = output_folder(folder)
    written = [out / "result.json"]
    save_result(out / "result.json", _record(outcome))
    texts = {
        "experiment.toml": show(outcome.experiment),
        "spectrum.csv": _spectrum_csv(outcome),
    }
    if outcome.result.valid:
        texts["covariance.csv"] = _covariance_csv(outcome.shown)
    if outcome.contour is not None:
        texts["delta_chi2.csv"] = _scan_csv(_moved(outcome.contour, outcome.hidden))
    for name, text in texts.items():
        atomic_write_text(out / name, text)
        written.append(out / name)
    if pictures:
        written += _pictures(outcome, out)
    # What an earlier fit left here must not be taken for a part of this one.
    for name in OUTPUTS:
        if out / name not in written:
            (out / name).unlink(missing_ok=True)
    return tuple(written)


def _record(outcome: FitOutcome) -> dict[str, object]:
    record = outcome.shown.to_dict()
    if outcome.impacts:
        record["impacts"] = {n: dict(v) for n, v in outcome.impacts.items()}
    if outcome.comparison and not outcome.hidden:
        record["flux_models"] = [
            {
                "flux": row.flux,
                "energy": row.energy,
                "chi2": row.result.chi2,
                "valid": row.result.valid,
                "parameters": {
                    n: {"value": p.value, "error": p.error}
                    for n, p in row.result.parameters.items()
                    if n in outcome.interest
                },
            }
            for row in outcome.comparison
        ]
    record["options"] = {k: str(v) if isinstance(v, Path) else v for k, v in vars(outcome.job).items()}
    record["simulated"] = outcome.simulated
    record["timing"] = dict(outcome.seconds)
    return record


def _text(header: list[str], rows: np.ndarray, comment: str = "") -> str:
    buffer = io.StringIO()
    if comment:
        buffer.write(f"# {comment}\n")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([[f"{x:.10g}" for x in row] for row in rows])
    return buffer.getvalue()


def _spectrum_csv(outcome: FitOutcome) -> str:
    edges = np.array(outcome.fit.model.edges_MeV)
    columns = [edges[:-1], edges[1:], outcome.fit.counts, *outcome.components.values(), outcome.unoscillated]
    header = ["low_MeV", "high_MeV", "counts", *outcome.components, "signal_without_oscillation"]
    return _text(header, np.column_stack(columns))


def _covariance_csv(result: FitResult) -> str:
    order = result.parameter_order
    lines = [",".join(["parameter", *order])]
    lines += [",".join([n, *(f"{x:.10g}" for x in row)]) for n, row in zip(order, result.covariance, strict=True)]
    return "\n".join(lines) + "\n"


def _moved(contour: Scan, hidden: Mapping[str, float]) -> Scan:
    grids = tuple(g + hidden.get(n, 0.0) for n, g in zip(contour.names, contour.grids, strict=True))
    return replace(contour, grids=grids)


def _scan_csv(contour: Scan) -> str:
    """The Δχ² map for global fits, with Δm²32 and Δm²ee where they follow."""
    return _text(
        [*contour.names, "delta_chi2"],
        contour.rows(),
        "profiled over all other parameters; Wilks, 2 dof: 2.30 (68.27 % CL), 6.18 (95.45 %), 11.83 (99.73 %)",
    )


def _pictures(outcome: FitOutcome, out: Path) -> list[Path]:
    from nuebar.report import plots

    edges = np.array(outcome.fit.model.edges_MeV)
    figures = {
        "spectrum.png": plots.spectrum(
            edges,
            outcome.fit.counts,
            outcome.components,
            unoscillated=outcome.unoscillated,
            title=outcome.experiment.title,
            simulated=outcome.simulated,
        )
    }
    pulled = [p for p in outcome.shown.parameters.values() if p.prior and not p.fixed]
    # A fit that failed may have no errors; what can be drawn of it says most about why.
    if pulled and all(np.isfinite([p.value, p.error]).all() for p in pulled):
        figures["pulls.png"] = plots.pulls(outcome.shown)
    if outcome.result.valid:
        figures["correlation.png"] = plots.correlation(outcome.shown)
    if outcome.impacts:
        errors = {n: outcome.result.parameters[n].error for n in outcome.impacts}
        figures["impacts.png"] = plots.impacts(outcome.impacts, errors=errors)
    if outcome.contour is not None:
        figures["contour.png"] = _contour_figure(outcome)
    for name, figure in figures.items():
        plots.save(figure, out / name)
    return [out / name for name in figures]


def _contour_figure(outcome: FitOutcome):  # type: ignore[no-untyped-def]
    from nuebar.report import plots

    assert outcome.contour is not None
    moved = _moved(outcome.contour, outcome.hidden)
    first, second = moved.names
    levels = [(delta_chi2_level(cl, 2), f"{100 * cl:.2f} % CL, 2 dof") for cl in (0.6827, 0.9545, 0.9973)]
    best = (outcome.shown.parameters[first].value, outcome.shown.parameters[second].value)
    published = outcome.published
    reference = None
    if first in published and second in published and not outcome.hidden:
        (x, ex), (y, ey) = published[first], published[second]
        reference = (x, y, ex, ey, "Published")
    return plots.contour(
        moved.grids[0],
        moved.grids[1],
        moved.delta_chi2,
        labels=(first, second),
        levels=levels,
        best=best,
        reference=reference,
        note="BLINDED" if outcome.hidden else "",
    )
