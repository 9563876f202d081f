"""The commands ``nuebar fit spectrum`` and ``nuebar fit grid``; the application registers them under ``fit``."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from nuebar.commands_options import EXIT_INVALID_FIT, Debug, Flag, ModelOptions, Words
from nuebar.commands_terminal import progress_line, say

if TYPE_CHECKING:
    from nuebar.jobs.fit import FitJob

__all__ = ["fit_grid", "fit_spectrum"]

log = logging.getLogger(__name__)
Columns = Annotated[Path | None, Parameter(help="TOML file with a column map of the pairs.")]


def fit_spectrum(
    *,
    model: ModelOptions = ModelOptions(),
    data: str | None = None,
    asimov: Flag = False,
    pairs: Words = (),
    columns: Columns = None,
    bins: int | None = None,
    low_MeV: Annotated[float, Parameter(name="--from")] = 0.8,
    high_MeV: Annotated[float, Parameter(name="--to")] = 8.8,
    fiducial: bool = True,
    mc_error: Flag = False,
    flux: Literal["huber-mueller", "daya-bay", "release"] | None = None,
    energy: Literal["visible", "true"] | None = None,
    minos: Flag = False,
    contour: Words = ("sin2_th12", "dm2_21_eV2"),
    no_contour: Flag = False,
    contour_points: int = 13,
    contour_sigma: float = 3.8,
    no_compare: Flag = False,
    no_pictures: Flag = False,
    blind: Flag = False,
    unblind: Flag = False,
    seed: int = 1,
    out: Path | None = None,
    debug: Debug = False,
) -> int:
    """Fit oscillation and nuisance parameters to a spectrum, and write the result.

    Parameters
    ----------
    data
        A measured spectrum: CSV (low_MeV,high_MeV,counts), UHI JSON, or file.root:key; or give --release.
    asimov
        Fit the expected counts: no data, expected errors.
    pairs
        Files or folders of un-oscillated Monte Carlo pairs, for the predictors harmonic, matrix and reweight (which
        needs them).
    bins
        Number of even bins for the pairs, from --from to --to; the experiment's bins by default.
    low_MeV
        Lower end of the first of them.
    high_MeV
        Upper end of the last of them.
    fiducial
        Leave pairs outside of the detector's fiducial volume out.
    mc_error
        Add the error from the finite number of Monte Carlo events.
    flux
        Reactor flux model; the experiment's own by default.
    energy
        Whether reconstructed energy is visible (non-linearity applied) or true (corrected).
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
    """
    from nuebar.jobs.fit import run_fit, write_fit
    from nuebar.jobs.text import fit_report

    job = model.job(
        data=data,
        asimov=asimov,
        pairs=pairs,
        columns=columns,
        bins=None if bins is None else (bins, low_MeV, high_MeV),
        fiducial=fiducial,
        mc_error=mc_error,
        flux=flux,
        energy=energy,
        minos=minos,
        contour=() if no_contour else contour,
        contour_points=contour_points,
        contour_sigma=contour_sigma,
        compare=not no_compare,
        blind=blind,
        unblind=unblind,
        seed=seed,
    )
    outcome = run_fit(job if out is None else _remember_blinding(job, out), progress_line())
    say(fit_report(outcome))
    if out is not None:
        for path in write_fit(outcome, out, pictures=not no_pictures):
            log.info("wrote %s", path)
    if outcome.result.valid:
        return 0
    sys.stderr.write(f"nuebar: the fit is not valid: {outcome.result.reason}\n")
    return EXIT_INVALID_FIT


def fit_grid(
    *,
    out: Path,
    scan: Words = (),
    experiment: str = "juno",
    release: Path | None = None,
    inputs: Path | None = None,
    data: str | None = None,
    asimov: Flag = False,
    exposure_years: float | None = None,
    exposure_days: float | None = None,
    ordering: Literal["normal", "inverted"] = "normal",
    predictor: str = "harmonic",
    pairs: Words = (),
    columns: Columns = None,
    mc_error: Flag = False,
    statistic: Literal["pearson", "neyman"] = "pearson",
    fix: Words = (),
    no_pictures: Flag = False,
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
        pairs=pairs,
        columns=columns,
        mc_error=mc_error,
        fix=fix,
    )
    outcome = run_grid(GridJob(job, scan, statistic), progress_line())
    say(grid_report(outcome))
    for path in write_grid(outcome, out, pictures=not no_pictures):
        log.info("wrote %s", path)
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
