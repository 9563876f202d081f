"""The command ``nuebar fit coverage``; the application registers it under ``fit``."""

from __future__ import annotations

from pathlib import Path

from nuebar.commands_options import Debug, Flag, ModelOptions, Numbers, Words, WorkOptions
from nuebar.commands_terminal import say

__all__ = ["fit_coverage"]


def fit_coverage(
    *,
    model: ModelOptions = ModelOptions(),
    years: Numbers = (),
    toys: int = 500,
    posteriors: int = 100,
    widths: int = 100,
    draws: int = 1000,
    truth: Words = (),
    no_constraints: Flag = False,
    no_shape: Flag = False,
    no_pictures: Flag = False,
    seed: int = 1,
    work: WorkOptions = WorkOptions(),
    out: Path | None = None,
    debug: Debug = False,
) -> int:
    """Coverage of intervals: the share of toys whose Hesse, Minos, profile and posterior intervals hold the truth.

    Parameters
    ----------
    years
        Several exposures in years of the experiment's days_per_year, such as 0.162 1 6, instead of one.
    toys
        How many at every exposure.
    posteriors
        So many of them get a posterior.
    widths
        So many of them get the widths of Minos's and the profile's intervals; coverage needs none.
    draws
        Draws of a posterior; repeated up to six times where they are worth too little.
    truth
        True values that differ from the nominal ones, where fits start: dm2_31_eV2=2.6e-3 ...
    no_constraints
        Leave the centres of the constraints where they are.
    no_shape
        No fluctuations of the bins within their shape uncertainties.
    no_pictures
        Write no pictures.
    seed
        Of the study.
    out
        Output folder: coverage.json, coverage.csv, pictures; the same command continues. Without it nothing is kept.
    """
    from nuebar.config import load_experiment
    from nuebar.errors import NuebarError
    from nuebar.jobs.coverage import CoverageJob, coverage_report, run_coverage, write_coverage
    from nuebar.jobs.toys import parse_truth

    if years and (model.exposure_years is not None or model.exposure_days is not None):
        raise NuebarError("give --years, or --exposure-years or --exposure-days, not both")
    per_year = load_experiment(model.experiment).exposure.days_per_year
    job = CoverageJob(
        fit=model.job(seed=seed),
        days=tuple(y * per_year for y in years),
        toys=toys,
        posteriors=posteriors,
        widths=widths,
        draws=draws,
        truth=parse_truth(truth),
        constraints=not no_constraints,
        shape=not no_shape,
        seed=seed,
    )
    outcome = run_coverage(job, out, **work.chunks())
    say(coverage_report(outcome))
    if out is not None:
        written = write_coverage(outcome, out, pictures=not no_pictures)
        say("written: " + ", ".join(str(path) for path in written))
    return 0
