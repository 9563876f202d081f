"""The commands ``nuebar fit toys`` and ``nuebar fit ordering``; the application registers them under ``fit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

__all__ = ["fit_ordering", "fit_toys"]

EXIT_INVALID_FIT = 3
Debug = Annotated[bool, Parameter(negative="", help="Show the traceback of an error.")]
Words = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]
Numbers = Annotated[list[float] | None, Parameter(consume_multiple=True, negative="")]
Flag = Annotated[bool, Parameter(negative="")]
Budget = Annotated[float | None, Parameter(help="Start nothing new after so many seconds; the same command continues.")]
Statistic = Literal["cnp", "poisson", "barlow-beeston", "pearson", "neyman"]


def fit_toys(
    *,
    experiment: str = "juno",
    inputs: Path | None = None,
    release: Path | None = None,
    exposure_years: float | None = None,
    exposure_days: float | None = None,
    ordering: Literal["normal", "inverted"] = "normal",
    predictor: str = "harmonic",
    response: Path | None = None,
    free: Words = None,
    fix: Words = None,
    statistic: Statistic | None = None,
    toys: int = 1000,
    first: int = 0,
    truth: Words = None,
    no_constraints: Flag = False,
    no_shape: Flag = False,
    seed: int = 1,
    jobs: int | None = None,
    force: Flag = False,
    max_seconds: Budget = None,
    out: Path | None = None,
    debug: Debug = False,
) -> int:
    """Pseudo-experiments: draw data sets from the expected spectrum and fit all of them.

    Parameters
    ----------
    experiment
        Name of a built-in experiment or path of a TOML file.
    inputs
        ROOT file of JUNO's common inputs 2022, instead of the embedded ones.
    release
        Folder of JUNO's 2025 public release, whose curves and shapes are used; its data are not.
    exposure_years
        Exposure in calendar years.
    exposure_days
        Exposure in days.
    ordering
        Mass ordering of truth and fits.
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
    toys
        How many.
    first
        Number of the first one: a toy depends on the seed and its number only.
    truth
        True values that differ from the nominal ones: sin2_th12=0.31 ...
    no_constraints
        Leave the centres of the constraints where they are.
    no_shape
        No fluctuations of the bins within their shape uncertainties.
    seed
        Of the study.
    jobs
        Number of processes, with --out; the result does not depend on it.
    force
        Throw away what another configuration left in the folder.
    out
        Output folder: toys.json, toys.csv with one row a toy; the same command continues. Without it nothing is kept.
    """
    from nuebar.commands import progress_line, say
    from nuebar.jobs.fit import FitJob
    from nuebar.jobs.toys import ToysJob, parse_truth, run_toys_job, toys_report, write_toys

    wanted = FitJob(
        experiment=experiment,
        inputs=inputs,
        release=release,
        asimov=True,
        exposure_years=exposure_years,
        exposure_days=exposure_days,
        ordering=ordering,
        predictor=predictor,
        response=response,
        free=tuple(free or ()),
        fix=tuple(fix or ()),
        statistic=statistic,
        seed=seed,
    )
    job = ToysJob(
        fit=wanted,
        toys=toys,
        first=first,
        truth=parse_truth(truth),
        constraints=not no_constraints,
        shape=not no_shape,
        seed=seed,
    )
    outcome = run_toys_job(
        job, out, jobs=jobs or _cores(), progress=progress_line(), force=force, max_seconds=max_seconds
    )
    say(toys_report(outcome))
    if out is not None:
        say("written: " + ", ".join(str(path) for path in write_toys(outcome, out)))
    return 0


def fit_ordering(
    *,
    experiment: str = "juno",
    inputs: Path | None = None,
    resolution: Words = None,
    years: Numbers = None,
    truth: Literal["normal", "inverted"] = "normal",
    predictor: str = "harmonic",
    fix: Words = None,
    statistic: Statistic | None = None,
    toys: int = 0,
    toy_years: float = 6.5,
    no_systematics: Flag = False,
    systematics_years: float = 6.5,
    no_constraints: Flag = False,
    no_shape: Flag = False,
    no_pictures: Flag = False,
    seed: int = 1,
    out: Path | None = None,
    debug: Debug = False,
) -> int:
    """Expected sensitivity to the mass ordering against exposure.

    Parameters
    ----------
    experiment
        Name of a built-in experiment or path of a TOML file.
    inputs
        ROOT file of JUNO's common inputs 2022, instead of the embedded ones.
    resolution
        Energy resolutions to compare: 2024 2022 by default, own for the experiment's. The first is studied in full.
    years
        Exposures in years at full power of all cores.
    truth
        The true ordering.
    predictor
        As for nuebar fit spectrum.
    fix
        Parameters to keep at their nominal value.
    statistic
        Cost function; the experiment's own by default.
    toys
        Toys at --toy-years, each fitted in both orderings.
    toy_years
        Their exposure.
    no_systematics
        Do not switch systematics off one at a time.
    systematics_years
        Exposure for that.
    no_constraints
        Leave the centres of the constraints of toys where they are.
    no_shape
        No fluctuations of the bins of toys within their shape uncertainties.
    no_pictures
        Write no pictures.
    seed
        Of the toys.
    out
        Output folder: ordering.json, ordering.csv, pictures. Without it nothing is written.
    """
    from nuebar.commands import progress_line, say
    from nuebar.jobs.fit import FitJob
    from nuebar.jobs.ordering import OrderingJob, ordering_report, run_ordering, write_ordering

    job = OrderingJob(
        fit=FitJob(
            experiment=experiment,
            inputs=inputs,
            asimov=True,
            predictor=predictor,
            fix=tuple(fix or ()),
            statistic=statistic,
            seed=seed,
        ),
        resolutions=tuple(resolution or ("2024", "2022")),
        truth=truth,
        toys=toys,
        toy_years=toy_years,
        systematics=not no_systematics,
        systematics_years=systematics_years,
        constraints=not no_constraints,
        shape=not no_shape,
        seed=seed,
        **({"years": tuple(years)} if years else {}),
    )
    outcome = run_ordering(job, progress=progress_line())
    say(ordering_report(outcome))
    if out is not None:
        written = write_ordering(outcome, out, pictures=not no_pictures)
        say("written: " + ", ".join(str(path) for path in written))
    return 0 if outcome.valid else EXIT_INVALID_FIT


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
