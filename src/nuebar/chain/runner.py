"""``nuebar run``: the stages in their order, each done once and kept."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuebar.chain.folder import RunFolder, content_digest
from nuebar.chain.run_file import STAGES, RunFile, show_run_file
from nuebar.chain.run_paths import missing_path
from nuebar.config import load_experiment
from nuebar.errors import NuebarError
from nuebar.io.event_paths import find_files
from nuebar.io.files import atomic_write_text
from nuebar.io.results import git_commit, save_result, versions
from nuebar.records import read_toml, to_mapping
from nuebar.run import Workers
from nuebar.run.lock import hold

__all__ = ["ChainJob", "run_chain"]

log = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]
LARGE = 1 << 28  # bytes; of larger files of a user, name, size and time stand for the content


@dataclass(frozen=True)
class ChainJob:
    """What ``nuebar run`` was asked for.

    Attributes:
        run: The run file.
        force: Stages to do again, with those after them.
        until: Last stage to be done.
        jobs: Number of processes of the simulation, or an executor.
        command: For the record.
    """

    run: RunFile
    force: tuple[str, ...] = ()
    until: str = STAGES[-1]
    jobs: Workers = 1
    command: str = ""

    def __post_init__(self) -> None:
        for what, stage in (("--force-stage", self.force), ("--until", (self.until,))):
            for name in stage:
                if name not in STAGES:
                    raise NuebarError(f"{what}: expected one of {', '.join(STAGES)}, got {name!r}; correct it")


def run_chain(job: ChainJob, out: str | Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Do all stages that are not done.

    Args:
        job: What is wanted.
        out: Folder of the run.
        progress: Called as ``progress(what, done, total)``.

    Returns:
        What every stage has told, stage → numbers.
    """
    for text in job.run.outside:
        log.warning("%s: outside of the folder of the run file", text)
    absent = missing_path(job.run)
    if absent is not None:
        raise NuebarError(f"{job.run.source}: key {absent[0]!r}: expected a file or folder, found no {absent[1]}")
    wanted = {**job.run.mapping(), "content": _content(job.run)}
    folder = RunFolder.opened(out)
    with hold(folder.home):
        folder.tidy()
        folder.agree(wanted, job.force)
        atomic_write_text(folder.home / "run.toml", show_run_file(job.run))
        told = {}
        for stage in STAGES[: STAGES.index(job.until) + 1]:
            told[stage] = _stage(job, folder, stage, progress)
            _overview(job, folder)
        folder.settle()
    return told


def _content(run: RunFile) -> dict[str, Any]:
    """What is in the files that a run file names: the run is another one if that changes."""
    experiment = load_experiment(run.experiment)
    content = {"experiment": {k: v for k, v in to_mapping(experiment).items() if k != "source"}}
    if run.experiment.endswith(".toml"):
        beside = Path(run.experiment).parent
        content["tables"] = {
            text: _user_digest(beside / text) for text in sorted(_texts(content)) if (beside / text).is_file()
        }
    if run.select.selection.endswith(".toml"):
        content["selection"] = read_toml(Path(run.select.selection))
    return content


def _texts(value: Any) -> set[str]:
    """Every text in a record that could be the name of a file."""
    if isinstance(value, str):
        return {value} if 0 < len(value) < 256 and "\0" not in value else set()
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return {text for item in items for text in _texts(item)}


def _stage(job: ChainJob, folder: RunFolder, stage: str, progress: Progress | None) -> dict[str, Any]:
    inputs = _inputs(job.run, folder, stage)
    if folder.holds(stage, inputs):
        record = folder.record(stage)
        assert record is not None
        log.info("%s: done before", stage)
        return dict(record["told"])
    log.info("%s ...", stage)
    place, begun = folder.begin(stage, inputs), time.monotonic()
    told = _work(job, folder, stage, place, progress)
    seconds = round(time.monotonic() - begun, 2)
    folder.finish(stage, inputs, {"told": told, "seconds": seconds, "versions": versions(), "commit": git_commit()})
    return told


def _work(job: ChainJob, folder: RunFolder, stage: str, place: Path, progress: Progress | None) -> dict[str, Any]:
    """One stage; imports are here, as each of them takes its time."""
    run, home = job.run, folder.home
    if stage == "simulate":
        from nuebar.chain.simulation import run_simulation

        return run_simulation(run, place, jobs=job.jobs, progress=progress)
    if stage == "select":
        from nuebar.chain.selection import run_selection

        return run_selection(run, home, place, progress=progress)
    if stage == "tune":
        from nuebar.chain.tuning import run_tuning

        return run_tuning(run, home, place, progress=progress)
    if stage == "predict":
        from nuebar.chain.prediction import run_prediction

        return run_prediction(run, home, place, jobs=job.jobs, progress=progress)
    if stage == "fit":
        from nuebar.chain.fitting import run_fitting

        return run_fitting(run, home, place, progress=progress)
    from nuebar.chain.report import write_report

    _overview(job, folder)
    return {"page": write_report(home).name}


_READS: Mapping[str, tuple[str, ...]] = {
    "simulate": (),
    "select": ("simulate",),
    "tune": ("simulate",),
    "predict": ("simulate", "select", "tune"),
    "fit": ("simulate", "select", "tune"),
    "report": ("simulate", "select", "tune", "predict", "fit"),
}


def _inputs(run: RunFile, folder: RunFolder, stage: str) -> dict[str, str]:
    """Digests of what a stage reads: the stages before it, and files of the user."""
    found = {before: folder.digest(before) for before in _READS[stage]}
    d = run.data
    own: dict[str, Sequence[str | None]] = {
        "select": (d.stream, d.stream_columns, d.sample, *d.monte_carlo.values()),
        "tune": (*d.calibration.values(), d.calibration_columns, d.response),
    }
    for path in own.get(stage, ()):
        if path is not None:
            found |= {str(file): _user_digest(file) for file in _files(path)}
    models = {"select": run.select.classifier, "tune": run.tune.density}
    model = models.get(stage, run.predict.predictor if stage in ("predict", "fit") else "")
    if os.path.isabs(model):  # words are models that ship with nuebar
        # The digest of the weights is in a description.
        found |= {str(file): _user_digest(file) for file in sorted(Path(model).glob("*.json"))}
    return found | ({"title": run.title} if stage == "report" else {})


def _files(path: str) -> list[Path]:
    place = Path(path)
    if (place / "summary.json").is_file():  # a selected sample
        return sorted(place.glob("*.json"))
    return [Path(p) for p in find_files(path)]


def _user_digest(path: Path) -> str:
    about = path.stat()
    return content_digest(path) if about.st_size < LARGE else f"{about.st_size} bytes of {about.st_mtime_ns}"


def _overview(job: ChainJob, folder: RunFolder) -> None:
    """``run.json``: what was run, for people and for the page."""
    stages = {}
    for stage in STAGES:
        record = folder.record(stage)
        if record is not None:
            stages[stage] = {k: record[k] for k in ("seconds", "versions", "commit", "inputs", "told")}
            stages[stage]["digest"] = folder.digest(stage)
    save_result(
        folder.home / "run.json",
        {
            "kind": "run",
            "command": job.command,
            "title": job.run.title,
            "experiment": job.run.experiment,
            "seed": job.run.seed,
            "simulated": job.run.simulated,
            "outside": list(job.run.outside),
            "commit": git_commit(),
            "versions": versions(),
            "stages": stages,
        },
    )
