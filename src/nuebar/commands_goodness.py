"""The command ``nuebar fit goodness``; the application registers it under ``fit``."""

from __future__ import annotations

from pathlib import Path

from nuebar.commands_options import EXIT_INVALID_FIT, Debug, Flag, ModelOptions, WorkOptions
from nuebar.commands_terminal import say

__all__ = ["fit_goodness"]


def fit_goodness(
    *,
    model: ModelOptions = ModelOptions(),
    data: str | None = None,
    toys: int = 2000,
    no_constraints: Flag = False,
    no_shape: Flag = False,
    no_pictures: Flag = False,
    seed: int = 1,
    work: WorkOptions = WorkOptions(),
    out: Path | None = None,
    debug: Debug = False,
) -> int:
    """Goodness of fit: p-values from toys at the best fit, beside the χ² probability.

    Each toy is fitted as the data are. Beside χ² (or the deviance of a likelihood): the largest residual, the largest
    excess or deficit of neighbouring bins, and runs of one sign. Exit code 3 when the fit is not valid.

    Parameters
    ----------
    data
        A measured spectrum: CSV (low_MeV,high_MeV,counts), UHI JSON, or file.root:key; or give --release.
    toys
        How many: 2000 give a p-value to 0.01.
    no_constraints
        Leave the centres of the constraints where they are.
    no_shape
        No fluctuations of the bins of toys within their shape uncertainties.
    no_pictures
        Write no pictures.
    seed
        Of the toys.
    out
        Output folder: goodness.json, goodness.csv with one row a toy, goodness.png; the same command continues.
        Without it nothing is kept.
    """
    from nuebar.jobs.goodness import GoodnessJob, goodness_report, run_goodness, write_goodness

    job = GoodnessJob(
        fit=model.job(data=data, asimov=False),
        toys=toys,
        constraints=not no_constraints,
        shape=not no_shape,
        seed=seed,
    )
    outcome = run_goodness(job, out, **work.chunks())
    say(goodness_report(outcome))
    if out is not None:
        written = write_goodness(outcome, out, pictures=not no_pictures)
        say("written: " + ", ".join(str(path) for path in written))
    return 0 if outcome.valid else EXIT_INVALID_FIT
