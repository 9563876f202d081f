"""The commands of ``nuebar``, typed: options in, jobs called, sentences out."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from nuebar import __version__
from nuebar.commands_cluster import cluster
from nuebar.commands_coverage import fit_coverage
from nuebar.commands_feldman_cousins import fit_feldman_cousins
from nuebar.commands_geoneutrinos import fit_geoneutrinos
from nuebar.commands_goodness import fit_goodness
from nuebar.commands_posterior import fit_posterior
from nuebar.commands_run import report, run, status
from nuebar.commands_select import select
from nuebar.commands_sensitivity import fit_sensitivity
from nuebar.commands_sterile import fit_sterile
from nuebar.commands_toys import fit_ordering, fit_toys
from nuebar.commands_tune import tune

if TYPE_CHECKING:
    from nuebar.jobs.fit import FitJob
    from nuebar.simulate.quench import Response

__all__ = ["app", "progress_line", "say"]

log = logging.getLogger(__name__)
EXIT_INVALID_FIT = 3

app = App(
    name="nuebar",
    help="Reactor antineutrinos in liquid scintillator: from raw events to oscillation parameters.",
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)
fit, predict, simulate, events, config = (
    App(name="fit", help="Fit measured or expected spectra."),
    App(name="predict", help="Predict spectra; build and look at predictors."),
    App(name="simulate", help="Simulate calibration sources, antineutrinos, radioactivity and detector streams."),
    App(name="events", help="Look into event files, check them, bring them into our format."),
    App(name="config", help="Look at experiments."),
)
for sub in (fit, predict, simulate, select, tune, events, config, cluster):
    app.command(sub)
fit.command(name="toys")(fit_toys)
fit.command(name="ordering")(fit_ordering)
fit.command(name="coverage")(fit_coverage)
fit.command(name="feldman-cousins")(fit_feldman_cousins)
fit.command(name="posterior")(fit_posterior)
fit.command(name="goodness")(fit_goodness)
fit.command(name="sensitivity")(fit_sensitivity)
fit.command(name="geoneutrinos")(fit_geoneutrinos)
fit.command(name="sterile")(fit_sterile)
for command in (run, report, status):
    app.command(command)
Debug = Annotated[bool, Parameter(negative="", help="Show the traceback of an error.")]
Point = Annotated[float | None, Parameter(show_default=False)]


@fit.command(name="spectrum")
def fit_spectrum(
    *,
    experiment: str = "juno",
    release: Path | None = None,
    inputs: Path | None = None,
    data: str | None = None,
    asimov: Annotated[bool, Parameter(negative="")] = False,
    exposure_years: float | None = None,
    exposure_days: float | None = None,
    ordering: Literal["normal", "inverted"] = "normal",
    predictor: str = "harmonic",
    pairs: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    columns: Annotated[Path | None, Parameter(help="TOML file with a column map of the pairs.")] = None,
    bins: int | None = None,
    low_MeV: Annotated[float, Parameter(name="--from")] = 0.8,
    high_MeV: Annotated[float, Parameter(name="--to")] = 8.8,
    fiducial: bool = True,
    response: Path | None = None,
    free: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    mc_error: Annotated[bool, Parameter(negative="")] = False,
    statistic: Literal["cnp", "poisson", "barlow-beeston", "pearson", "neyman"] | None = None,
    flux: Literal["huber-mueller", "daya-bay", "release"] | None = None,
    energy: Literal["visible", "true"] | None = None,
    fix: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    minos: Annotated[bool, Parameter(negative="")] = False,
    contour: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    no_contour: Annotated[bool, Parameter(negative="")] = False,
    contour_points: int = 13,
    contour_sigma: float = 3.8,
    no_compare: Annotated[bool, Parameter(negative="")] = False,
    no_pictures: Annotated[bool, Parameter(negative="")] = False,
    blind: Annotated[bool, Parameter(negative="")] = False,
    unblind: Annotated[bool, Parameter(negative="")] = False,
    seed: int = 1,
    out: Path | None = None,
    debug: Debug = False,
) -> int:
    """Fit oscillation and nuisance parameters to a spectrum, and write the result.

    Parameters
    ----------
    experiment
        Name of a built-in experiment (see "nuebar config list") or path of a TOML file.
    release
        Folder of JUNO's 2025 public release; its spectrum is fitted.
    inputs
        ROOT file of JUNO's common inputs 2022, instead of the embedded ones.
    data
        A measured spectrum: CSV (low_MeV,high_MeV,counts), UHI JSON, or file.root:key.
    asimov
        Fit the expected counts: no data, expected errors.
    exposure_years
        Exposure in years of the experiment's days_per_year (calendar years, see docs/conventions.md).
    exposure_days
        Exposure in days.
    ordering
        Mass ordering.
    predictor
        How the signal is computed: harmonic, matrix, reweight (needs --pairs), surrogate or network (those that ship
        with nuebar), or a folder made by "nuebar predict build".
    pairs
        Files or folders of un-oscillated Monte Carlo pairs, for harmonic, matrix and reweight.
    bins
        Number of even bins for the pairs, from --from to --to; the experiment's bins by default.
    low_MeV
        Lower end of the first of them.
    high_MeV
        Upper end of the last of them.
    fiducial
        Leave pairs outside of the detector's fiducial volume out.
    response
        Posterior of the response parameters (JSON), which frees them in a predictor that takes them.
    free
        Parameters to free beside those, such as smear_a.
    mc_error
        Add the error from the finite number of Monte Carlo events.
    statistic
        Cost function; the experiment's own by default.
    flux
        Reactor flux model; the experiment's own by default.
    energy
        Whether reconstructed energy is visible (non-linearity applied) or true (corrected).
    fix
        Parameters to keep at their nominal value.
    minos
        Asymmetric errors of the oscillation parameters.
    contour
        Two parameters for the Δχ² map (sin2_th12 dm2_21_eV2 by default).
    no_contour
        No map.
    contour_points
        Points per axis of the map.
    contour_sigma
        Half width of the map in standard errors.
    no_compare
        With a release, do not fit the other flux models.
    no_pictures
        Write no pictures.
    blind
        Hide a seeded offset on the oscillation parameters in every output.
    unblind
        Show the values of a folder that was blind.
    seed
        Seed of the run.
    out
        Output folder; without it nothing is written.
    debug
        Show the traceback of an error.
    """
    from nuebar.jobs.fit import FitJob

    job = FitJob(
        experiment=experiment,
        release=release,
        inputs=inputs,
        data=data,
        asimov=asimov,
        exposure_years=exposure_years,
        exposure_days=exposure_days,
        ordering=ordering,
        predictor=predictor,
        pairs=tuple(pairs or ()),
        columns=columns,
        bins=None if bins is None else (bins, low_MeV, high_MeV),
        fiducial=fiducial,
        response=response,
        free=tuple(free or ()),
        mc_error=mc_error,
        statistic=statistic,
        flux=flux,
        energy=energy,
        fix=tuple(fix or ()),
        minos=minos,
        contour=() if no_contour else tuple(contour or ("sin2_th12", "dm2_21_eV2")),
        contour_points=contour_points,
        contour_sigma=contour_sigma,
        compare=not no_compare,
        blind=blind,
        unblind=unblind,
        seed=seed,
    )
    return _fit_spectrum(job, out, pictures=not no_pictures)


@fit.command(name="grid")
def fit_grid(
    *,
    out: Path,
    scan: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    experiment: str = "juno",
    release: Path | None = None,
    inputs: Path | None = None,
    data: str | None = None,
    asimov: Annotated[bool, Parameter(negative="")] = False,
    exposure_years: float | None = None,
    exposure_days: float | None = None,
    ordering: Literal["normal", "inverted"] = "normal",
    predictor: str = "harmonic",
    pairs: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    columns: Annotated[Path | None, Parameter(help="TOML file with a column map of the pairs.")] = None,
    mc_error: Annotated[bool, Parameter(negative="")] = False,
    statistic: Literal["pearson", "neyman"] = "pearson",
    fix: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    no_pictures: Annotated[bool, Parameter(negative="")] = False,
    debug: Debug = False,
) -> int:
    """Δχ² on a grid of oscillation and response parameters: a million points in seconds.

    Normalisation and backgrounds are profiled at every point; all other parameters stay at their nominal values.

    Parameters
    ----------
    out
        Output folder: grid.npz, grid.json, profile.csv (first two axes, the others minimised), profile.png.
    scan
        Axes as name=low:high:points; the four oscillation parameters around their nominal values by default.
    experiment
        Name of a built-in experiment or path of a TOML file.
    release
        Folder of JUNO's 2025 public release; its spectrum is the data.
    inputs
        ROOT file of JUNO's common inputs 2022, instead of the embedded ones.
    data
        A measured spectrum: CSV (low_MeV,high_MeV,counts), UHI JSON, or file.root:key.
    asimov
        Scan the expected counts: no data.
    exposure_years
        Exposure in years of the experiment's days_per_year.
    exposure_days
        Exposure in days.
    ordering
        Mass ordering.
    predictor
        harmonic, surrogate, or a folder with one made by "nuebar predict build"; response parameters need a surrogate.
    pairs
        Files or folders of un-oscillated Monte Carlo pairs, for harmonic.
    mc_error
        Add the error from the finite number of Monte Carlo events.
    statistic
        Variances from the expectation at the nominal parameters (pearson) or from the data (neyman).
    fix
        Normalisations and backgrounds to keep at their nominal value.
    no_pictures
        Write no picture.
    """
    from nuebar.jobs.fit import FitJob
    from nuebar.jobs.scan import GridJob, grid_report, run_grid, write_grid

    job = FitJob(
        experiment=experiment,
        release=release,
        inputs=inputs,
        data=data,
        asimov=asimov,
        exposure_years=exposure_years,
        exposure_days=exposure_days,
        ordering=ordering,
        predictor=predictor,
        pairs=tuple(pairs or ()),
        columns=columns,
        mc_error=mc_error,
        fix=tuple(fix or ()),
    )
    outcome = run_grid(GridJob(job, tuple(scan or ()), statistic), _Progress())
    say(grid_report(outcome))
    for path in write_grid(outcome, out, pictures=not no_pictures):
        log.info("wrote %s", path)
    return 0


@predict.command(name="show")
def predict_show(
    *,
    experiment: str = "juno",
    release: Path | None = None,
    inputs: Path | None = None,
    exposure_years: float | None = None,
    exposure_days: float | None = None,
    predictor: str = "harmonic",
    out: Path | None = None,
    debug: Debug = False,
) -> int:
    """Print the expected rates of every core and background, and write the spectrum if --out is given."""
    return _predict_show(experiment, release, inputs, exposure_years, exposure_days, predictor, out)


@predict.command(name="build")
def predict_build(
    kind: Literal["harmonic", "matrix", "grid", "network", "surrogate"] = "harmonic",
    *,
    experiment: str = "juno",
    inputs: Path | None = None,
    release: Path | None = None,
    pairs: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    columns: Annotated[Path | None, Parameter(help="TOML file with a column map of the pairs.")] = None,
    cascades: Path | None = None,
    kB: Annotated[Point, Parameter(name="--kB", help="g/cm²/GeV, for cascades; the experiment's by default.")] = None,
    fC: Annotated[Point, Parameter(name="--fC", help="Cherenkov factor, likewise.")] = None,
    light_yield: Annotated[Point, Parameter(help="Photons per MeV, likewise.")] = None,
    bins: int | None = None,
    low_MeV: Annotated[float, Parameter(name="--from")] = 0.8,
    high_MeV: Annotated[float, Parameter(name="--to")] = 8.8,
    experiment_bins: Annotated[bool, Parameter(negative="")] = False,
    fiducial: bool = True,
    window_sigma: Annotated[float, Parameter(name=("--window-sigma", "--sigma"))] = 15.0,
    vacuum: Annotated[bool, Parameter(negative="")] = False,
    recipe: str = "published",
    spectra: int | None = None,
    steps: int | None = None,
    max_seconds: float | None = None,
    accuracy: float = 1e-3,
    order: Literal[1, 3] = 3,
    seed: int = 0,
    out: Path,
    debug: Debug = False,
) -> int:
    """Build a predictor from an experiment or from Monte Carlo, and save it as a folder.

    Parameters
    ----------
    kind
        harmonic (exact in the oscillation parameters), matrix (response matrix), grid (spectra on disk), network (the
        published one), surrogate (learned response, from cascades).
    experiment
        Name of a built-in experiment or path of a TOML file: reactors, exposure, response.
    inputs
        ROOT file of JUNO's common inputs 2022, instead of the embedded ones.
    release
        Folder of JUNO's 2025 public release.
    pairs
        Files or folders of un-oscillated Monte Carlo pairs.
    cascades
        Folder of "nuebar simulate ibd --cascades".
    bins
        Even bins of reconstructed energy; 400 from Monte Carlo.
    low_MeV
        Lower end of the first bin.
    high_MeV
        Upper end of the last bin.
    experiment_bins
        The experiment's fine bins instead.
    fiducial
        Leave events outside of the detector's fiducial volume out.
    window_sigma
        Half width of the windows of the mass splittings, in standard deviations of PDG 2022.
    vacuum
        Leave matter out.
    recipe
        Of a network: published, published-decaying, plain, 2x100, 2x200.
    spectra
        Training spectra of a network.
    steps
        Training steps of a network.
    max_seconds
        Budget of a training; the same command continues.
    accuracy
        Relative error that a grid may have.
    order
        Order of a grid's interpolation.
    seed
        Seed of a training.
    out
        Output folder.
    """
    from nuebar.jobs.predict import BuildJob, build_predictor

    job = BuildJob(
        kind=kind,
        experiment=experiment,
        inputs=inputs,
        release=release,
        pairs=tuple(pairs or ()),
        columns=columns,
        cascades=cascades,
        point=_response((kB, fC, light_yield)),
        bins=bins,
        low_MeV=low_MeV,
        high_MeV=high_MeV,
        experiment_bins=experiment_bins,
        fiducial=fiducial,
        window_sigma=window_sigma,
        vacuum=vacuum,
        recipe=recipe,
        spectra=spectra,
        steps=steps,
        max_seconds=max_seconds,
        accuracy=accuracy,
        order=order,
        seed=seed,
    )
    for line in build_predictor(job, out, _Progress()):
        say(line)
    return 0


@predict.command(name="export")
def predict_export(predictor: str, *, out: Path, debug: Debug = False) -> int:
    """Write a predictor as one file with an evaluator beside it that needs numpy only.

    Parameters
    ----------
    predictor
        surrogate, network, or a folder made by "nuebar predict build".
    out
        The file: .npz or .json; evaluator.py appears in the same folder.
    debug
        Show the traceback of an error.
    """
    from nuebar.predict.export import export_predictor
    from nuebar.predict.store import load_predictor, predictor_folder

    for path in export_predictor(load_predictor(predictor_folder(predictor)), out):
        say(f"wrote {path}")
    return 0


@predict.command(name="compare")
def predict_compare(
    *,
    out: Path,
    pairs: Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="")] = None,
    cascades: Path | None = None,
    experiment: str = "juno",
    columns: Annotated[Path | None, Parameter(help="TOML file with a column map of the pairs.")] = None,
    predictors: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    network: Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="")] = None,
    bins: int = 400,
    low_MeV: Annotated[float, Parameter(name="--from")] = 0.8,
    high_MeV: Annotated[float, Parameter(name="--to")] = 8.8,
    full: Annotated[bool, Parameter(negative="")] = False,
    seed: int = 1,
    debug: Debug = False,
) -> int:
    """Build, time and test all predictors of one Monte Carlo, and write one table with pictures.

    Parameters
    ----------
    out
        Output folder; the same command continues in it and measures nothing twice.
    pairs
        Files or folders of un-oscillated pairs: reweight, matrix, grid, harmonic, networks.
    cascades
        Folder of "nuebar simulate ibd --cascades": the surrogate.
    experiment
        Name of a built-in experiment or path of a TOML file: exposure, cores and matter.
    predictors
        Rows to measure; all that the inputs allow by default.
    network
        Folders of trained networks, instead of training some.
    bins
        Number of bins of reconstructed energy.
    low_MeV
        Lower end of the first bin.
    high_MeV
        Upper end of the last bin.
    full
        Published size (hours) instead of minutes.
    seed
        Seed of the test points.
    """
    from nuebar.config import load_experiment
    from nuebar.jobs.compare import FULL, REDUCED, CompareJob, run_compare
    from nuebar.jobs.pairs import even_edges

    job = CompareJob(
        load_experiment(experiment),
        pairs=tuple(pairs or ()),
        cascades=cascades,
        columns=columns,
        predictors=tuple(predictors or ()),
        networks=tuple(network or ()),
        size=FULL if full else REDUCED,
        edges_MeV=even_edges(bins, low_MeV, high_MeV),
        seed=seed,
    )
    result = run_compare(job, out, _Progress())
    say(result.text)
    for path in result.files:
        log.info("wrote %s", path)
    return 0


Jobs = Annotated[
    int | None,
    Parameter(help="Number of processes (all cores by default) or workers; the result does not depend on it."),
]
Cluster = Annotated[
    str | None, Parameter(help="Work on a cluster: address or file of a Dask scheduler, or a TOML file.")
]
Seed = Annotated[int, Parameter(help="Seed of the run.")]
Force = Annotated[bool, Parameter(negative="", help="Throw away what another configuration left in the folder.")]
Budget = Annotated[float | None, Parameter(help="Start nothing new after so many seconds; the same command continues.")]
Oscillation = Annotated[
    list[str] | None, Parameter(consume_multiple=True, negative="", help="Changed parameters: sin2_th12=0.31 ...")
]


@simulate.command(name="calibration")
def simulate_calibration(
    *,
    out: Path,
    experiment: str = "juno",
    set: str = "small",
    plan: Path | None = None,
    catalogue: Path | None = None,
    kB: Annotated[Point, Parameter(name="--kB", help="A single point: g/cm²/GeV.")] = None,
    fC: Annotated[Point, Parameter(name="--fC", help="A single point: Cherenkov factor.")] = None,
    light_yield: Annotated[Point, Parameter(help="A single point: photons per MeV.")] = None,
    sources: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    events: int | None = None,
    cascades: int = 2_000_000,
    no_samples: Annotated[bool, Parameter(negative="")] = False,
    seed: Seed = 1,
    jobs: Jobs = None,
    cluster: Cluster = None,
    force: Force = False,
    max_seconds: Budget = None,
    debug: Debug = False,
) -> int:
    """Charges of calibration sources at one or many points of (kB, fC, light yield).

    Parameters
    ----------
    out
        Run folder; the same command continues in it.
    experiment
        Name of a built-in experiment or path of a TOML file with a [detector] table.
    set
        Set of the plan: training, validation-1, validation-2, testing-1, testing-2 or small.
    plan
        TOML file with sets of one's own.
    catalogue
        TOML file with sources of one's own.
    sources
        Sources, instead of those of the plan.
    events
        Events of each source and data set, instead of those of the set.
    cascades
        Cascades in the pool of each source.
    no_samples
        Write histograms only.
    """
    return _simulate_calibration(
        experiment,
        set,
        plan,
        catalogue,
        (kB, fC, light_yield),
        sources,
        events,
        cascades,
        not no_samples,
        seed,
        out,
        _options(jobs, cluster, force, max_seconds),
    )


@simulate.command(name="ibd")
def simulate_ibd(
    *,
    out: Path,
    experiment: str = "juno",
    pairs: int = 1_000_000,
    oscillated: Annotated[bool, Parameter(negative="")] = False,
    oscillation: Oscillation = None,
    cascades: Annotated[bool, Parameter(negative="")] = False,
    kB: Annotated[Point, Parameter(name="--kB", help="g/cm²/GeV, instead of the experiment's.")] = None,
    fC: Annotated[Point, Parameter(name="--fC", help="Cherenkov factor, instead of the experiment's.")] = None,
    light_yield: Annotated[Point, Parameter(help="Photons per MeV, instead of the experiment's.")] = None,
    seed: Seed = 1,
    jobs: Jobs = None,
    cluster: Cluster = None,
    force: Force = False,
    max_seconds: Budget = None,
    debug: Debug = False,
) -> int:
    """Antineutrino interactions: prompt and delayed events with true energy, core and baseline.

    Parameters
    ----------
    out
        Run folder; the same command continues in it.
    experiment
        Name of a built-in experiment or path of a TOML file with a [detector] table.
    pairs
        How many interactions.
    oscillated
        Draw from the oscillated spectrum; without it pairs can be weighted later.
    cascades
        Write deposits instead of events: light at any point can be made from them.
    """
    return _simulate_ibd(
        experiment,
        pairs,
        oscillated or oscillation is not None,
        oscillation,
        cascades,
        (kB, fC, light_yield),
        seed,
        out,
        _options(jobs, cluster, force, max_seconds),
    )


@simulate.command(name="singles")
def simulate_singles(
    *,
    out: Path,
    experiment: str = "juno",
    events: int = 2_000_000,
    pairs: int = 0,
    window_ms: float = 1.0,
    cascades: int = 200_000,
    kB: Annotated[Point, Parameter(name="--kB", help="g/cm²/GeV, instead of the experiment's.")] = None,
    fC: Annotated[Point, Parameter(name="--fC", help="Cherenkov factor, instead of the experiment's.")] = None,
    light_yield: Annotated[Point, Parameter(help="Photons per MeV, instead of the experiment's.")] = None,
    seed: Seed = 1,
    jobs: Jobs = None,
    cluster: Cluster = None,
    force: Force = False,
    max_seconds: Budget = None,
    debug: Debug = False,
) -> int:
    """Radioactivity: singles by material, their rates, and accidental pairs drawn directly.

    Parameters
    ----------
    out
        Run folder; the same command continues in it.
    experiment
        Name of a built-in experiment or path of a TOML file with [[detector.singles]].
    events
        Singles to draw; 0 for none.
    pairs
        Accidental pairs to draw; 0 for none.
    window_ms
        Time window of the pairs.
    cascades
        Cascades in the pool of each material.
    """
    return _simulate_singles(
        experiment,
        events,
        pairs,
        window_ms,
        cascades,
        (kB, fC, light_yield),
        seed,
        out,
        _options(jobs, cluster, force, max_seconds),
    )


@simulate.command(name="stream")
def simulate_stream(
    *,
    out: Path,
    experiment: str = "juno",
    days: float = 1.0,
    window_hours: float = 4.0,
    oscillation: Oscillation = None,
    above_MeV: Annotated[float | None, Parameter(name="--above-MeV")] = None,
    no_muons: Annotated[bool, Parameter(negative="")] = False,
    skim_fiducial: float | None = None,
    skim_prompt_MeV: Annotated[float, Parameter(name="--skim-prompt-MeV")] = 0.7,
    skim_delayed_MeV: Annotated[float, Parameter(name="--skim-delayed-MeV")] = 1.5,
    no_truth: Annotated[bool, Parameter(negative="")] = False,
    cascades: int = 200_000,
    kB: Annotated[Point, Parameter(name="--kB", help="g/cm²/GeV, instead of the experiment's.")] = None,
    fC: Annotated[Point, Parameter(name="--fC", help="Cherenkov factor, instead of the experiment's.")] = None,
    light_yield: Annotated[Point, Parameter(help="Photons per MeV, instead of the experiment's.")] = None,
    seed: Seed = 1,
    jobs: Jobs = None,
    cluster: Cluster = None,
    force: Force = False,
    max_seconds: Budget = None,
    debug: Debug = False,
) -> int:
    """A time-ordered detector stream: antineutrinos, radioactivity, correlated backgrounds and muons.

    Parameters
    ----------
    out
        Run folder; the same command continues in it, and more days extend it.
    experiment
        Name of a built-in experiment or path of a TOML file with a [detector] table.
    days
        Length of the stream, rounded up to whole windows; more days extend what is there.
    window_hours
        Length of a file.
    above_MeV
        Events with less reconstructed energy are left out; the detector's threshold by default.
    no_muons
        Leave muons out.
    skim_fiducial
        Write only what a selection with a prompt vertex inside of this radius, in metres, looks at: muons, events from
        --skim-delayed-MeV on, and those from --skim-prompt-MeV on inside; a quarter of the bytes. nuebar select apply
        then needs --fiducial and --delayed-MeV.
    skim_prompt_MeV
        Least energy of events inside.
    skim_delayed_MeV
        Least energy of events anywhere.
    no_truth
        Leave the columns true_kind, true_pair and true_e_nu_MeV out.
    cascades
        Cascades in the pool of each material.
    """
    return _simulate_stream(
        experiment,
        days,
        window_hours,
        oscillation,
        above_MeV,
        not no_muons,
        None if skim_fiducial is None else (skim_fiducial, skim_prompt_MeV, skim_delayed_MeV),
        not no_truth,
        cascades,
        (kB, fC, light_yield),
        seed,
        out,
        _options(jobs, cluster, force, max_seconds),
    )


Kind = Annotated[str, Parameter(help="What the table holds: stream, pairs, calibration or spectrum.")]
Columns = Annotated[Path | None, Parameter(help="TOML file with a column map: our names from those of the file.")]


@events.command(name="show")
def events_show(path: Path, *, tree: str | None = None, debug: Debug = False) -> int:
    """Print format, rows and columns of a Parquet, ROOT or HDF5 file."""
    from nuebar.jobs.events import show_events

    say(show_events(path, tree))
    return 0


@events.command(name="check")
def events_check(*paths: Path, kind: Kind = "stream", columns: Columns = None, debug: Debug = False) -> int:
    """Read every row of files and say what is wrong, or the range of every column."""
    from nuebar.jobs.events import check_events

    say(check_events(list(paths), kind, columns, _Progress()))
    return 0


@events.command(name="convert")
def events_convert(
    *paths: Path, out: Path, kind: Kind = "stream", columns: Columns = None, debug: Debug = False
) -> int:
    """Copy files into one Parquet file with our names and units."""
    from nuebar.jobs.events import convert_events

    say(convert_events(list(paths), kind, columns, out, _Progress()))
    return 0


@config.command(name="show")
def config_show(experiment: str = "juno", *, debug: Debug = False) -> int:
    """Print an experiment with every default written out, as TOML."""
    from nuebar.config import load_experiment, show

    say(show(load_experiment(experiment)).rstrip())
    return 0


@config.command(name="list")
def config_list(*, debug: Debug = False) -> int:
    """List the built-in experiments."""
    from nuebar.config import available_experiments, load_experiment

    for name in available_experiments():
        say(f"{name:14s} {load_experiment(name).title}")
    return 0


def _options(jobs: int | None, cluster: str | None, force: bool, max_seconds: float | None) -> dict[str, Any]:
    from nuebar.run.cluster import executor

    return {"jobs": executor(cluster, jobs), "force": force, "max_seconds": max_seconds, "progress": _Progress()}


def _response(point: tuple[float | None, ...]) -> Response | None:
    """A parameter point that is given whole or not at all."""
    from nuebar.errors import NuebarError
    from nuebar.simulate.quench import Response

    given = [x for x in point if x is not None]
    if not given:
        return None
    if len(given) < len(point):
        raise NuebarError(f"expected --kB, --fC and --light-yield together, got {len(given)} of them; give all three")
    return Response(*given)


def _changes(words: list[str] | None) -> dict[str, float]:
    """``name=value`` words as a mapping."""
    from nuebar.errors import NuebarError

    changes = {}
    for word in words or []:
        name, _, value = word.partition("=")
        try:
            changes[name] = float(value)
        except ValueError as error:
            raise NuebarError(f"--oscillation: expected name=number like sin2_th12=0.31, got {word!r}") from error
    return changes


def _simulate_calibration(
    experiment: str,
    name: str,
    plan: Path | None,
    catalogue: Path | None,
    point: tuple[float | None, ...],
    sources: list[str] | None,
    events: int | None,
    cascades: int,
    samples: bool,
    seed: int,
    out: Path,
    options: dict[str, Any],
) -> int:
    from nuebar.config import load_experiment
    from nuebar.jobs.calibration import CalibrationJob, branch_rows, run_calibration, write_point
    from nuebar.jobs.text import calibration_report

    job = CalibrationJob(
        load_experiment(experiment),
        set_name=name,
        plan=str(plan) if plan is not None else None,
        catalogue=str(catalogue) if catalogue is not None else None,
        response=_response(point),
        sources=tuple(sources or ()),
        events=events,
        cascades=cascades,
        samples=samples,
        seed=seed,
    )
    result = run_calibration(job, out, **options)
    if job.response is not None and samples:
        for path in write_point(result, out):
            log.info("wrote %s", path)
    say(calibration_report(*branch_rows(job, out), result))
    return 0


def _simulate_ibd(
    experiment: str,
    pairs: int,
    oscillated: bool,
    oscillation: list[str] | None,
    cascades: bool,
    point: tuple[float | None, ...],
    seed: int,
    out: Path,
    options: dict[str, Any],
) -> int:
    from nuebar.config import load_experiment
    from nuebar.jobs.ibd import IbdJob, oscillation_of, run_ibd
    from nuebar.jobs.text import files_report

    chosen = load_experiment(experiment)
    truth = oscillation_of(chosen, _changes(oscillation)) if oscillated else None
    result = run_ibd(IbdJob(chosen, pairs, _response(point), truth, cascades, seed), out, **options)
    say(files_report(result, "pairs", "pairs"))
    return 0


def _simulate_singles(
    experiment: str,
    events: int,
    pairs: int,
    window_ms: float,
    cascades: int,
    point: tuple[float | None, ...],
    seed: int,
    out: Path,
    options: dict[str, Any],
) -> int:
    from nuebar.config import load_experiment
    from nuebar.jobs.singles import SinglesJob, run_singles, singles_report
    from nuebar.jobs.text import files_report

    job = SinglesJob(load_experiment(experiment), events, pairs, window_ms, _response(point), cascades, seed)
    results = run_singles(job, out, **options)
    say(singles_report(job, out))
    for result in results:
        what = "accidental pairs" if result.name == "accidentals" else "singles"
        say(files_report(result, "pairs" if result.name == "accidentals" else "events", what))
    return 0


def _simulate_stream(
    experiment: str,
    days: float,
    window_hours: float,
    oscillation: list[str] | None,
    above_MeV: float | None,
    muons: bool,
    skim: tuple[float, float, float] | None,
    told: bool,
    cascades: int,
    point: tuple[float | None, ...],
    seed: int,
    out: Path,
    options: dict[str, Any],
) -> int:
    from nuebar.config import load_experiment
    from nuebar.jobs.ibd import oscillation_of
    from nuebar.jobs.stream import Skim, StreamJob, run_stream
    from nuebar.jobs.text import files_report

    chosen = load_experiment(experiment)
    truth = oscillation_of(chosen, _changes(oscillation))
    job = StreamJob(
        chosen,
        days,
        truth,
        window_s=3600.0 * window_hours,
        response=_response(point),
        cascades=cascades,
        above_MeV=above_MeV,
        muons=muons,
        seed=seed,
        skim=None if skim is None else Skim(fiducial_m=skim[0], prompt_MeV=skim[1], delayed_MeV=skim[2]),
        truth=told,
    )
    result = run_stream(job, out, **options)
    say(files_report(result, "events", "events"))
    length = sum((s or {}).get("seconds", 0.0) for s in result.summaries) / 86400
    say(f"{length:.4g} days of detector time in windows of {window_hours:g} h")
    return 0


def say(text: str) -> None:
    """A line on the terminal."""
    sys.stdout.write(text + "\n")


def progress_line() -> _Progress:
    """How far a long work is, on the standard error."""
    return _Progress()


class _Progress:
    """One line on a terminal, a plain line every ten seconds in a batch job."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.last = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self.terminal:
            end = "\n" if done == total else ""
            if done == total or now - self.last > 0.1:
                sys.stderr.write(f"\r{what}: {done}/{total}{end}")
                sys.stderr.flush()
                self.last = now
        elif now - self.last > 10.0:
            sys.stderr.write(f"{what}: {done}/{total}\n")
            self.last = now


def _fit_spectrum(job: FitJob, out: Path | None, *, pictures: bool) -> int:
    from nuebar.jobs.fit import run_fit, write_fit
    from nuebar.jobs.text import fit_report

    if out is not None:
        job = _remember_blinding(job, out)
    outcome = run_fit(job, _Progress())
    say(fit_report(outcome))
    if out is not None:
        for path in write_fit(outcome, out, pictures=pictures):
            log.info("wrote %s", path)
    if not outcome.result.valid:
        sys.stderr.write(f"nuebar: the fit is not valid: {outcome.result.reason}\n")
        return EXIT_INVALID_FIT
    return 0


def _remember_blinding(job: FitJob, out: Path) -> FitJob:
    """A folder that was blind stays blind until ``--unblind``."""
    from nuebar.io.results import load_result

    previous = out / "result.json"
    if job.unblind or job.blind or not previous.is_file():
        return job
    if load_result(previous).get("blinded"):
        log.info("%s is blind and stays so; --unblind shows the values", out)
        return replace(job, blind=True)
    return job


def _predict_show(
    experiment: str,
    release: Path | None,
    inputs: Path | None,
    years: float | None,
    days: float | None,
    predictor: str,
    out: Path | None,
) -> int:
    from nuebar.jobs.predict import prediction
    from nuebar.jobs.text import rates_table

    shown = prediction(experiment, release, inputs, years, days, predictor)
    say(rates_table(shown))
    if out is not None:
        for path in shown.write(out):
            log.info("wrote %s", path)
    return 0
