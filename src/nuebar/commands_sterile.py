"""The command ``nuebar fit sterile``; the application registers it under ``fit``."""

from __future__ import annotations

from pathlib import Path

from nuebar.commands_options import EXIT_INVALID_FIT, Debug, Flag, ModelOptions, Numbers, WorkOptions
from nuebar.commands_terminal import say

__all__ = ["fit_sterile"]


def fit_sterile(
    *,
    model: ModelOptions = ModelOptions(),
    years: Numbers = (),
    mixing: Numbers = (),
    splitting: Numbers = (),
    cl: float = 0.95,
    toys: int = 0,
    toy_splittings: Numbers = (),
    no_constraints: Flag = False,
    no_shape: Flag = False,
    no_pictures: Flag = False,
    seed: int = 1,
    work: WorkOptions = WorkOptions(),
    out: Path | None = None,
    debug: Debug = False,
) -> int:
    """Expected exclusion of a sterile state in sin²2θ14 and Δm²41.

    Parameters
    ----------
    years
        Exposures in years of the experiment's days_per_year, one curve for each; 6 by default. They replace
        --exposure-years.
    mixing
        sin²2θ14: lowest, highest, number of points; 0.002 1 16 by default.
    splitting
        Δm²41 in eV², likewise; 2e-6 0.3 53 by default.
    cl
        Confidence level, two degrees of freedom.
    toys
        Data sets of three flavours, for the spread of their limits at the first exposure.
    toy_splittings
        Where they get a limit, in eV².
    no_constraints
        Leave the centres of the constraints of toys where they are.
    no_shape
        No fluctuations of the bins of toys within their shape uncertainties.
    no_pictures
        Write no pictures.
    seed
        Of the toys.
    out
        Output folder: sterile.json, sterile.csv, sterile.png; the same command continues. Without it nothing is kept.
    """
    from nuebar.errors import NuebarError
    from nuebar.jobs.sterile import SterileJob, run_sterile, sterile_report, write_sterile

    for name, axis in (("--mixing", mixing), ("--splitting", splitting)):
        if axis and (len(axis) != 3 or axis[2] != int(axis[2])):
            raise NuebarError(f"{name}: expected lowest and highest value and a whole number of points, got {axis}")
    given = {
        **({"years": years} if years else {}),
        **({"mixing": (mixing[0], mixing[1], int(mixing[2]))} if mixing else {}),
        **({"splitting": (splitting[0], splitting[1], int(splitting[2]))} if splitting else {}),
        **({"toy_splittings": toy_splittings} if toy_splittings else {}),
    }
    job = SterileJob(
        fit=model.job(seed=seed),
        cl=cl,
        toys=toys,
        constraints=not no_constraints,
        shape=not no_shape,
        seed=seed,
        **given,  # type: ignore[arg-type]
    )
    outcome = run_sterile(job, out, **work.chunks())
    say(sterile_report(outcome))
    if out is not None:
        written = write_sterile(outcome, out, pictures=not no_pictures)
        say("written: " + ", ".join(str(path) for path in written))
    return 0 if outcome.valid else EXIT_INVALID_FIT
