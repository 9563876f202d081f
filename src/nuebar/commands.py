"""The commands of ``nuebar``, typed: options in, jobs called, sentences out."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from nuebar import __version__

if TYPE_CHECKING:
    from nuebar.jobs.fit import FitJob

__all__ = ["app"]

log = logging.getLogger(__name__)
EXIT_INVALID_FIT = 3

app = App(
    name="nuebar",
    help="Reactor antineutrinos in liquid scintillator: from raw events to oscillation parameters.",
    version=__version__,
    help_format="plaintext",
)
fit, predict, config = (
    App(name="fit", help="Fit measured or expected spectra."),
    App(name="predict", help="Predict spectra; build and look at predictors."),
    App(name="config", help="Look at experiments."),
)
for sub in (fit, predict, config):
    app.command(sub)
Debug = Annotated[bool, Parameter(negative="", help="Show the traceback of an error.")]


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
    statistic: Literal["cnp", "poisson", "pearson", "neyman"] | None = None,
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
        How the signal is computed: harmonic, matrix, or a folder made by "nuebar predict build".
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
    *,
    experiment: str = "juno",
    inputs: Path | None = None,
    release: Path | None = None,
    window_sigma: float = 15.0,
    vacuum: Annotated[bool, Parameter(negative="")] = False,
    out: Path,
    debug: Debug = False,
) -> int:
    """Build the harmonic predictor and save its tables as a folder (safetensors and JSON)."""
    return _predict_build(experiment, inputs, release, window_sigma, vacuum, out)


@config.command(name="show")
def config_show(experiment: str = "juno", *, debug: Debug = False) -> int:
    """Print an experiment with every default written out, as TOML."""
    from nuebar.config import load_experiment, show

    _say(show(load_experiment(experiment)).rstrip())
    return 0


@config.command(name="list")
def config_list(*, debug: Debug = False) -> int:
    """List the built-in experiments."""
    from nuebar.config import available_experiments, load_experiment

    for name in available_experiments():
        _say(f"{name:14s} {load_experiment(name).title}")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


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
    _say(fit_report(outcome))
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
    _say(rates_table(shown))
    if out is not None:
        for path in shown.write(out):
            log.info("wrote %s", path)
    return 0


def _predict_build(
    experiment: str, inputs: Path | None, release: Path | None, sigma: float, vacuum: bool, out: Path
) -> int:
    from nuebar.jobs.predict import build_predictor

    for line in build_predictor(experiment, inputs, release, sigma, vacuum, out):
        _say(line)
    return 0
