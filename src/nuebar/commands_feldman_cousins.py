"""The command ``nuebar fit feldman-cousins``; the application registers it under ``fit``."""

from __future__ import annotations

from pathlib import Path

from nuebar.commands_options import EXIT_INVALID_FIT, Debug, Flag, ModelOptions, Numbers, Words, WorkOptions
from nuebar.commands_terminal import say

__all__ = ["fit_feldman_cousins"]


def fit_feldman_cousins(
    *,
    parameters: Words,
    model: ModelOptions = ModelOptions(),
    asimov: Flag = False,
    data: str | None = None,
    scan: Words = (),
    points: int | None = None,
    toys: int = 2000,
    batch: int = 500,
    levels: Numbers = (),
    all_toys: Flag = False,
    free_ordering: Flag = False,
    no_constraints: Flag = False,
    no_shape: Flag = False,
    no_pictures: Flag = False,
    seed: int = 1,
    work: WorkOptions = WorkOptions(),
    out: Path | None = None,
    debug: Debug = False,
) -> int:
    """Feldman-Cousins interval of a parameter, or contour of two: coverage from toys, limits and all.

    Counts are those of --release or --data, or expected ones with --asimov. At every point of a grid toys are drawn
    with all other parameters where the data fit best, and fitted twice. Coverage over nuisance parameters is
    approximate, as they are profiled.

    Parameters
    ----------
    parameters
        One or two parameters: sin2_th12, or sin2_th12 dm2_21_eV2.
    asimov
        Expected counts instead of data.
    data
        Your spectrum (CSV, UHI JSON, ROOT) instead of that of --release.
    scan
        Grid of a parameter, such as sin2_th12=0.29:0.32:32; 3.5 standard errors to both sides by default.
    points
        Points of a default grid along each axis; 25 for one and 15 for two parameters by default.
    toys
        Toys at a point, at most. For 99.73 % take 5000 or more.
    batch
        So many at a time; a few stragglers take as long in a small batch as in a large one.
    levels
        Confidence levels; 0.6827 0.9 0.9545 0.9973 by default.
    all_toys
        The same number of toys everywhere, instead of stopping where the p-value is clearly on one side of all levels.
    free_ordering
        Fit both mass orderings everywhere, and scan Δm²31 in both.
    no_constraints
        Leave the centres of the constraints of toys at the profiled values.
    no_shape
        No fluctuations of the bins of toys within their shape uncertainties.
    no_pictures
        Write no pictures.
    seed
        Of the study.
    out
        Output folder: feldman_cousins.json, .csv with one row a point, pictures; the same command continues.
    """
    from nuebar.fit.feldman_cousins import LEVELS
    from nuebar.fit.grid_scan import parse_axes
    from nuebar.jobs.feldman_cousins import (
        FeldmanCousinsJob,
        feldman_cousins_report,
        run_feldman_cousins,
        write_feldman_cousins,
    )

    job = FeldmanCousinsJob(
        parameters=tuple(parameters),
        fit=model.job(asimov=asimov, data=data, seed=seed),
        axes=parse_axes(scan),
        points=points,
        toys=toys,
        batch=min(batch, toys) if toys > 1 else batch,
        levels=tuple(levels) or LEVELS,
        adaptive=not all_toys,
        free_ordering=free_ordering,
        constraints=not no_constraints,
        shape=not no_shape,
        seed=seed,
    )
    outcome = run_feldman_cousins(job, out, **work.chunks())
    say(feldman_cousins_report(outcome))
    if out is not None:
        written = write_feldman_cousins(outcome, out, pictures=not no_pictures)
        say("written: " + ", ".join(str(path) for path in written))
    return 0 if outcome.valid else EXIT_INVALID_FIT
