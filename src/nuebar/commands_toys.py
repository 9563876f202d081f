"""The commands ``nuebar fit toys`` and ``nuebar fit ordering``; the application registers them under ``fit``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from nuebar.commands_options import EXIT_INVALID_FIT, Debug, Flag, ModelOptions, Numbers, Statistic, Words, WorkOptions
from nuebar.commands_terminal import say

__all__ = ["fit_ordering", "fit_toys"]


def fit_toys(
    *,
    model: ModelOptions = ModelOptions(),
    toys: int = 1000,
    first: int = 0,
    truth: Words = (),
    no_constraints: Flag = False,
    no_shape: Flag = False,
    seed: int = 1,
    work: WorkOptions = WorkOptions(),
    out: Path | None = None,
    debug: Debug = False,
) -> int:
    """Pseudo-experiments: draw data sets from the expected spectrum and fit all of them.

    Parameters
    ----------
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
    out
        Output folder: toys.json, toys.csv with one row a toy; the same command continues. Without it nothing is kept.
    """
    from nuebar.jobs.toys import ToysJob, parse_truth, run_toys_job, toys_report, write_toys

    job = ToysJob(
        fit=model.job(seed=seed),
        toys=toys,
        first=first,
        truth=parse_truth(truth),
        constraints=not no_constraints,
        shape=not no_shape,
        seed=seed,
    )
    outcome = run_toys_job(job, out, **work.chunks())
    say(toys_report(outcome))
    if out is not None:
        say("written: " + ", ".join(str(path) for path in write_toys(outcome, out)))
    return 0


def fit_ordering(
    *,
    experiment: str = "juno",
    inputs: Path | None = None,
    resolution: Words = (),
    years: Numbers = (),
    truth: Literal["normal", "inverted"] = "normal",
    predictor: str = "harmonic",
    fix: Words = (),
    statistic: Statistic | None = None,
    toys: int = 0,
    toy_years: float = 6.5,
    no_systematics: Flag = False,
    systematics_years: float = 6.5,
    no_constraints: Flag = False,
    no_shape: Flag = False,
    no_pictures: Flag = False,
    seed: int = 1,
    work: WorkOptions = WorkOptions(),
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
        Toys at --toy-years for either true ordering, each fitted in both.
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
    from nuebar.jobs.fit import FitJob
    from nuebar.jobs.ordering import OrderingJob, ordering_report, run_ordering, write_ordering

    job = OrderingJob(
        fit=FitJob(
            experiment=experiment,
            inputs=inputs,
            asimov=True,
            predictor=predictor,
            fix=fix,
            statistic=statistic,
            seed=seed,
        ),
        resolutions=resolution or ("2024", "2022"),
        truth=truth,
        toys=toys,
        toy_years=toy_years,
        systematics=not no_systematics,
        systematics_years=systematics_years,
        constraints=not no_constraints,
        shape=not no_shape,
        seed=seed,
        **({"years": years} if years else {}),
    )
    outcome = run_ordering(job, out, **work.chunks())
    say(ordering_report(outcome))
    if out is not None:
        written = write_ordering(outcome, out, pictures=not no_pictures)
        say("written: " + ", ".join(str(path) for path in written))
    return 0 if outcome.valid else EXIT_INVALID_FIT
