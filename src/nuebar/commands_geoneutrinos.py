"""The command ``nuebar fit geoneutrinos``; the application registers it under ``fit``."""

from __future__ import annotations

from pathlib import Path

from nuebar.commands_options import Debug, Flag, ModelOptions, Numbers
from nuebar.commands_terminal import progress_line, say

__all__ = ["fit_geoneutrinos"]


def fit_geoneutrinos(
    *,
    model: ModelOptions = ModelOptions(),
    years: Numbers = (),
    mass_ratio: float | None = None,
    rate_tnu: float | None = None,
    prior: float = 0.3,
    ratio_prior: float | None = None,
    no_pictures: Flag = False,
    out: Path | None = None,
    debug: Debug = False,
) -> int:
    """Expected precision of the geoneutrino rates of uranium and thorium, both free.

    Parameters
    ----------
    years
        Exposures in years of the experiment's days_per_year; 1 3 6 10 by default. They replace --exposure-years.
    mass_ratio
        True Th/U by mass (chondrites: 3.9); by default that of the experiment's mixture.
    rate_tnu
        True sum of both in TNU, as detected; by default the experiment's rate.
    prior
        Relative error of the sum where it is constrained, for comparison.
    ratio_prior
        Relative error of a prior on Th/U, shown as one more column.
    no_pictures
        Write no pictures.
    out
        Output folder: geoneutrinos.json, geoneutrinos.csv, geoneutrinos.png. Without it nothing is written.
    """
    from nuebar.jobs.geoneutrinos import GeoneutrinoJob, geoneutrino_report, run_geoneutrinos, write_geoneutrinos

    job = GeoneutrinoJob(
        fit=model.job(),
        mass_ratio=mass_ratio,
        rate_tnu=rate_tnu,
        prior=prior,
        ratio_prior=ratio_prior,
        **({"years": years} if years else {}),
    )
    outcome = run_geoneutrinos(job, progress_line())
    say(geoneutrino_report(outcome))
    if out is not None:
        written = write_geoneutrinos(outcome, out, pictures=not no_pictures)
        say("written: " + ", ".join(str(path) for path in written))
    return 0
