"""The commands of the whole chain: ``nuebar run``, ``nuebar report``, ``nuebar status``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from nuebar.commands_options import EXIT_INVALID_FIT, Debug, Flag, Words
from nuebar.commands_terminal import progress_line, say
from nuebar.errors import NuebarError

__all__ = ["report", "run", "status"]


def run(
    file: Path | None = None,
    /,
    *,
    out: Path,
    seed: int | None = None,
    changes: Annotated[Words, Parameter(name="--set")] = (),
    force_stage: Words = (),
    until: str = "report",
    jobs: int | None = None,
    cluster: str | None = None,
    full: Flag = False,
    show: Flag = False,
    debug: Debug = False,
) -> int:
    """Raw events to oscillation parameters: simulate, select, tune, predict, fit, report. The same command continues.

    Parameters
    ----------
    file
        A run file (TOML); without one, 30 simulated days of JUNO with a hidden truth. It names only what differs from
        that, see docs/chain.md.
    out
        Folder of the run; its page is report/index.html.
    seed
        Instead of the run file's.
    changes
        Keys of the run file and what they shall be: --set simulate.days=10 fit.bins=40.
    force_stage
        Do these stages and all after them again, from the run file as it is now.
    until
        Stop after this stage.
    jobs
        Processes of the simulation (all cores by default), or workers.
    cluster
        Simulate on a cluster: address or file of a Dask scheduler, or a TOML file (see docs/cluster.md).
    full
        Train every model at the published size first (hours), and run with these.
    show
        Print the run file with all defaults, and stop.
    """
    from nuebar.chain.run_file import SHIPPED, load_run_file, show_run_file
    from nuebar.chain.runner import ChainJob, run_chain
    from nuebar.run.cluster import executor

    settings = _settings(changes)
    if seed is not None:
        settings["seed"] = seed
    wanted = load_run_file(file, settings)
    if show:
        say((SHIPPED.read_text(encoding="utf-8") if file is None and not settings else show_run_file(wanted)).rstrip())
        return 0
    progress = progress_line()
    workers = executor(cluster, jobs)
    words = ["nuebar run", *([file.name] if file else []), *(f"--set {c}" for c in changes)]
    words += [f"--seed {seed}"] if seed is not None else []
    words += ["--full"] if full else []
    job = ChainJob(wanted, force_stage, until, workers, " ".join([*words, f"--out {out.name}"]))
    if full:
        from nuebar.chain.retrain import retrained

        job = replace(job, run=retrained(wanted, out / "train", jobs=workers, progress=progress))
    told = run_chain(job, out, progress=progress)
    fitted = told.get("fit")
    if fitted is not None:
        from nuebar.chain.summary import run_summary

        say(run_summary(out))
    if "report" in told:
        say(f"page: {out / 'report' / 'index.html'}")
    return EXIT_INVALID_FIT if fitted is not None and not fitted["valid"] else 0


def report(folder: Path, /, *, out: Path | None = None, debug: Debug = False) -> int:
    """Make the page of a run again, from its files.

    Parameters
    ----------
    folder
        Folder of the run.
    out
        Folder of the page; by default "report" in the folder of the run.
    """
    from nuebar.chain.report import write_report

    say(f"wrote {write_report(folder, out=out)}")
    return 0


def status(folder: Path, /, *, debug: Debug = False) -> int:
    """Say how far a run is: its stages, and the chunks of each.

    Parameters
    ----------
    folder
        Folder of a run, or of anything that works in chunks.
    """
    from nuebar.chain.summary import status_lines

    for line in status_lines(folder):
        say(line)
    return 0


def _settings(words: Words) -> dict[str, Any]:
    """``["fit.bins=40", ...]`` as values of TOML; what is none is a text."""
    import tomllib

    out: dict[str, Any] = {}
    for word in words:
        key, sign, text = word.partition("=")
        if not (sign and key and text):
            raise NuebarError(f"--set: expected KEY=VALUE such as fit.bins=40, got {word!r}")
        try:
            out[key] = tomllib.loads(f"x = {text}")["x"]
        except tomllib.TOMLDecodeError:
            out[key] = text
        except (ValueError, RecursionError):
            raise NuebarError(f"--set {key}: expected a value that TOML knows, got {text[:40]!r} and so on") from None
    return out
