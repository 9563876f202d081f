"""The command ``nuebar fit sensitivity``; the application registers it under ``fit``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from nuebar.commands_options import EXIT_INVALID_FIT, Debug, Flag, Numbers, Statistic, Words
from nuebar.commands_terminal import progress_line, say

__all__ = ["fit_sensitivity"]


def fit_sensitivity(
    *,
    experiment: str = "juno",
    detector: str | None = None,
    inputs: Path | None = None,
    predictor: str = "harmonic",
    response: Path | None = None,
    free: Words = (),
    fix: Words = (),
    statistic: Statistic | None = None,
    resolution: Words = (),
    years: Numbers = (),
    resolution_factors: Numbers = (),
    no_resolution_scan: Flag = False,
    systematics_years: float = 6.0,
    prior: Words = (),
    truth: Literal["normal", "inverted"] = "normal",
    no_ordering: Flag = False,
    no_check: Flag = False,
    no_pictures: Flag = False,
    out: Path | None = None,
    debug: Debug = False,
) -> int:
    """Expected precision of the parameters and of the ordering against exposure, resolution and systematics.

    Parameters
    ----------
    experiment
        Name of a built-in experiment or path of a TOML file.
    detector
        A second detector that sees the same reactors: tao, or a TOML file. The spectrum of the reactors is then free.
    inputs
        ROOT file of JUNO's common inputs 2022, instead of the embedded ones.
    predictor
        As for nuebar fit spectrum.
    response
        Posterior of the response parameters (JSON), which frees them in a predictor that takes them.
    free
        Parameters to free beside those.
    fix
        Parameters to keep at their nominal value.
    statistic
        Cost function; the experiment's own by default.
    resolution
        Energy resolutions to compare: 2022 2024 for juno by default, own for that of the experiment.
    years
        Exposures in calendar years, as --exposure-years of a fit: 0.1 to 20 by default.
    resolution_factors
        The first resolution times these, at --systematics-years: 0.9 0.95 1 1.05 1.1 by default.
    no_resolution_scan
        No scan of the resolution.
    systematics_years
        Where systematics are switched off one at a time.
    prior
        Errors of external measurements, which are added in columns of their own: sin2_th13=0.0007 ...
    truth
        True ordering for the delta chi2 of the other one.
    no_ordering
        Precision only.
    no_check
        Do not compare errors with profiles.
    no_pictures
        Write no pictures.
    out
        Output folder: sensitivity.json, tables as CSV, pictures. Without it nothing is written.
    """
    from nuebar.jobs.fit import FitJob
    from nuebar.jobs.sensitivity import (
        FACTORS,
        YEARS,
        SensitivityJob,
        parse_priors,
        run_sensitivity,
        sensitivity_report,
        write_sensitivity,
    )

    job = SensitivityJob(
        fit=FitJob(
            experiment=experiment,
            inputs=inputs,
            asimov=True,
            predictor=predictor,
            response=response,
            free=tuple(free),
            fix=tuple(fix),
            statistic=statistic,
        ),
        detector=detector,
        resolutions=tuple(resolution) or (("2022", "2024") if experiment == "juno" else ("own",)),
        years=tuple(years) or YEARS,
        factors=() if no_resolution_scan else tuple(resolution_factors) or FACTORS,
        systematics_years=systematics_years,
        priors=parse_priors(prior),
        truth=truth,
        ordering=not no_ordering,
        check=not no_check,
    )
    outcome = run_sensitivity(job, progress=progress_line())
    say(sensitivity_report(outcome))
    if out is not None:
        written = write_sensitivity(outcome, out, pictures=not no_pictures)
        say("written: " + ", ".join(str(path) for path in written))
    return 0 if outcome.valid else EXIT_INVALID_FIT
