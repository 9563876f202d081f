"""The commands of ``nuebar simulate``: calibration sources, antineutrinos, radioactivity, detector streams."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from nuebar.commands_options import Debug, Flag, ResponseOptions, Words, WorkOptions
from nuebar.commands_terminal import say
from nuebar.errors import NuebarError

__all__ = ["simulate"]

log = logging.getLogger(__name__)

simulate = App(name="simulate", help="Simulate calibration sources, antineutrinos, radioactivity and detector streams.")
Oscillation = Annotated[
    list[str] | None, Parameter(consume_multiple=True, negative="", help="Changed parameters: sin2_th12=0.31 ...")
]


@simulate.command(name="calibration")
def simulate_calibration(
    *,
    out: Path,
    experiment: str = "juno",
    set: str = "small",
    plan: Path | None = None,
    catalogue: Path | None = None,
    point: ResponseOptions = ResponseOptions(),
    sources: Words = (),
    events: int | None = None,
    cascades: int = 2_000_000,
    no_samples: Flag = False,
    seed: int = 1,
    work: WorkOptions = WorkOptions(),
    debug: Debug = False,
) -> int:
    """Charges of calibration sources at one or many points of (kB, fC, light yield).

    Parameters
    ----------
    out
        Run folder; the same command continues in it.
    experiment
        Name of a built-in experiment or path of a TOML file with a [detector] table.
    set
        Set of the plan: training, validation-1, validation-2, testing-1, testing-2 or small; --kB, --fC and
        --light-yield make it a single point.
    plan
        TOML file with sets of one's own.
    catalogue
        TOML file with sources of one's own.
    sources
        Sources, instead of those of the plan.
    events
        Events of each source and data set, instead of those of the set.
    cascades
        Cascades in the pool of each source.
    no_samples
        Write histograms only.
    seed
        Seed of the run.
    """
    from nuebar.config import load_experiment
    from nuebar.jobs.calibration import CalibrationJob, branch_rows, run_calibration, write_point
    from nuebar.jobs.text import calibration_report

    job = CalibrationJob(
        load_experiment(experiment),
        set_name=set,
        plan=None if plan is None else str(plan),
        catalogue=None if catalogue is None else str(catalogue),
        response=point.response(),
        sources=sources,
        events=events,
        cascades=cascades,
        samples=not no_samples,
        seed=seed,
    )
    result = run_calibration(job, out, **work.chunks())
    if job.response is not None and job.samples:
        for path in write_point(result, out):
            log.info("wrote %s", path)
    say(calibration_report(*branch_rows(job, out), result))
    return 0


@simulate.command(name="ibd")
def simulate_ibd(
    *,
    out: Path,
    experiment: str = "juno",
    pairs: int = 1_000_000,
    oscillated: Flag = False,
    oscillation: Oscillation = None,
    cascades: Flag = False,
    point: ResponseOptions = ResponseOptions(),
    seed: int = 1,
    work: WorkOptions = WorkOptions(),
    debug: Debug = False,
) -> int:
    """Antineutrino interactions: prompt and delayed events with true energy, core and baseline.

    Parameters
    ----------
    out
        Run folder; the same command continues in it.
    experiment
        Name of a built-in experiment or path of a TOML file with a [detector] table.
    pairs
        How many interactions.
    oscillated
        Draw from the oscillated spectrum; without it pairs can be weighted later.
    cascades
        Write deposits instead of events: light at any point can be made from them.
    seed
        Seed of the run.
    """
    from nuebar.config import load_experiment
    from nuebar.jobs.ibd import IbdJob, oscillation_of, run_ibd
    from nuebar.jobs.text import files_report

    chosen = load_experiment(experiment)
    truth = oscillation_of(chosen, _changes(oscillation)) if oscillated or oscillation is not None else None
    job = IbdJob(chosen, pairs, point.response(), truth, cascades, seed)
    result = run_ibd(job, out, **work.chunks())
    say(files_report(result, "pairs", "pairs"))
    return 0


@simulate.command(name="singles")
def simulate_singles(
    *,
    out: Path,
    experiment: str = "juno",
    events: int = 2_000_000,
    pairs: int = 0,
    window_ms: float = 1.0,
    cascades: int = 200_000,
    point: ResponseOptions = ResponseOptions(),
    seed: int = 1,
    work: WorkOptions = WorkOptions(),
    debug: Debug = False,
) -> int:
    """Radioactivity: singles by material, their rates, and accidental pairs drawn directly.

    Parameters
    ----------
    out
        Run folder; the same command continues in it.
    experiment
        Name of a built-in experiment or path of a TOML file with [[detector.singles]].
    events
        Singles to draw; 0 for none.
    pairs
        Accidental pairs to draw; 0 for none.
    window_ms
        Time window of the pairs.
    cascades
        Cascades in the pool of each material.
    seed
        Seed of the run.
    """
    from nuebar.config import load_experiment
    from nuebar.jobs.singles import SinglesJob, run_singles, singles_report
    from nuebar.jobs.text import files_report

    job = SinglesJob(load_experiment(experiment), events, pairs, window_ms, point.response(), cascades, seed)
    results = run_singles(job, out, **work.chunks())
    say(singles_report(job, out))
    for result in results:
        what = "accidental pairs" if result.name == "accidentals" else "singles"
        say(files_report(result, "pairs" if result.name == "accidentals" else "events", what))
    return 0


@simulate.command(name="stream")
def simulate_stream(
    *,
    out: Path,
    experiment: str = "juno",
    days: float = 1.0,
    window_hours: float = 4.0,
    oscillation: Oscillation = None,
    above_MeV: Annotated[float | None, Parameter(name="--above-MeV")] = None,
    no_muons: Flag = False,
    skim_fiducial: float | None = None,
    skim_prompt_MeV: Annotated[float, Parameter(name="--skim-prompt-MeV")] = 0.7,
    skim_delayed_MeV: Annotated[float, Parameter(name="--skim-delayed-MeV")] = 1.5,
    no_truth: Flag = False,
    cascades: int = 200_000,
    point: ResponseOptions = ResponseOptions(),
    seed: int = 1,
    work: WorkOptions = WorkOptions(),
    debug: Debug = False,
) -> int:
    """A time-ordered detector stream: antineutrinos, radioactivity, correlated backgrounds and muons.

    Parameters
    ----------
    out
        Run folder; the same command continues in it, and more days extend it.
    experiment
        Name of a built-in experiment or path of a TOML file with a [detector] table.
    days
        Length of the stream, rounded up to whole windows; more days extend what is there.
    window_hours
        Length of a file.
    above_MeV
        Events with less reconstructed energy are left out; the detector's threshold by default.
    no_muons
        Leave muons out.
    skim_fiducial
        Write only what a selection with a prompt vertex inside of this radius, in metres, looks at: muons, events from
        --skim-delayed-MeV on, and those from --skim-prompt-MeV on inside; a quarter of the bytes. nuebar select apply
        then needs --fiducial and --delayed-MeV.
    skim_prompt_MeV
        Least energy of events inside.
    skim_delayed_MeV
        Least energy of events anywhere.
    no_truth
        Leave the columns true_kind, true_pair and true_e_nu_MeV out.
    cascades
        Cascades in the pool of each material.
    seed
        Seed of the run.
    """
    from nuebar.config import load_experiment
    from nuebar.jobs.ibd import oscillation_of
    from nuebar.jobs.stream import Skim, StreamJob, run_stream
    from nuebar.jobs.text import files_report

    chosen = load_experiment(experiment)
    skim = None
    if skim_fiducial is not None:
        skim = Skim(fiducial_m=skim_fiducial, prompt_MeV=skim_prompt_MeV, delayed_MeV=skim_delayed_MeV)
    job = StreamJob(
        chosen,
        days,
        oscillation_of(chosen, _changes(oscillation)),
        window_s=3600.0 * window_hours,
        response=point.response(),
        cascades=cascades,
        above_MeV=above_MeV,
        muons=not no_muons,
        seed=seed,
        skim=skim,
        truth=not no_truth,
    )
    result = run_stream(job, out, **work.chunks())
    say(files_report(result, "events", "events"))
    length = sum((s or {}).get("seconds", 0.0) for s in result.summaries) / 86400
    say(f"{length:.4g} days of detector time in windows of {window_hours:g} h")
    return 0


def _changes(words: list[str] | None) -> dict[str, float]:
    """``name=value`` words as a mapping."""
    changes = {}
    for word in words or []:
        name, _, value = word.partition("=")
        try:
            changes[name] = float(value)
        except ValueError as error:
            raise NuebarError(f"--oscillation: expected name=number like sin2_th12=0.31, got {word!r}") from error
    return changes
