"""``nuebar run --full``: train the selection, the density of the tuning and the surrogate, and run with these.

Each training has a folder of its own and continues where it was stopped; a finished one is recognised by its
``model.json``. Seeds are the run's, apart for every part, so that no event of the data is one of a training.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nuebar.chain.run_file import RunFile
from nuebar.chain.truth import part_seed
from nuebar.config import Experiment, load_experiment
from nuebar.errors import NuebarError
from nuebar.io.files import output_folder
from nuebar.io.results import load_result, save_result
from nuebar.jobs.calibration import CalibrationJob, run_calibration
from nuebar.jobs.ibd import IbdJob, run_ibd
from nuebar.jobs.singles import SinglesJob, run_singles
from nuebar.run import Workers
from nuebar.run.chunk import plain
from nuebar.run.manifest import differences, sentence
from nuebar.select.config import load_selection

__all__ = ["retrained"]

log = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]
MODEL = "model.json"


def retrained(run: RunFile, folder: Path, *, jobs: Workers = 1, progress: Progress | None = None) -> RunFile:
    """Train what is not trained yet.

    Args:
        run: The run file; its table ``full`` has the sizes.
        folder: Where simulations and models go.
        jobs: Number of processes of the simulations, or an executor.
        progress: Called as ``progress(what, done, total)``.

    Returns:
        The run file with the new models.
    """
    experiment = load_experiment(run.experiment)
    options: dict[str, Any] = {"jobs": jobs, "progress": progress}
    models = {}
    _same_sizes(run, folder)
    for name, train in (("select", _selection), ("tune", _density), ("surrogate", _surrogate)):
        models[name] = folder / name
        if (models[name] / MODEL).is_file():
            log.info("%s: trained before", name)
            continue
        log.info("training of %s ...", name)
        train(run, experiment, folder, models[name], options)
    paths = {name: str(path.resolve()) for name, path in models.items()}
    return dataclasses.replace(
        run,
        select=dataclasses.replace(run.select, classifier=paths["select"]),
        tune=dataclasses.replace(run.tune, density=paths["tune"]),
        predict=dataclasses.replace(run.predict, predictor=paths["surrogate"]),
    )


def _same_sizes(run: RunFile, folder: Path) -> None:
    """Refuse a folder whose models were trained for other numbers."""
    path = output_folder(folder) / "full.json"
    wanted = plain({"full": run.mapping()["full"], "seed": run.seed, "experiment": run.experiment}, "run file")
    if path.exists():
        changed = differences(load_result(path)["asked"], wanted)
        if changed:
            raise NuebarError(
                f"{folder}: expected the trainings that it was begun with, got others ({sentence(changed)}); restore "
                "them or choose another folder"
            )
    save_result(path, {"kind": "trainings", "asked": wanted})


def _selection(run: RunFile, experiment: Experiment, folder: Path, out: Path, options: dict[str, Any]) -> None:
    from nuebar.jobs.select_data import PairFiles
    from nuebar.jobs.select_train import SelectTrainJob, run_train

    f, config = run.full, load_selection(run.select.selection)
    seed = part_seed(run.seed, "train", "select")
    run_ibd(IbdJob(experiment, pairs=f.ibd_pairs, seed=seed), folder / "pairs", **options)
    singles = SinglesJob(experiment, events=0, pairs=f.accidental_pairs, window_ms=config.pairs.window_ms, seed=seed)
    run_singles(singles, folder / "singles", **options)
    job = SelectTrainJob(
        files=PairFiles(ibd=str(folder / "pairs"), accidentals=str(folder / "singles")),
        recipe=f.select_recipe,
        selection=run.select.selection,
        epochs=f.select_epochs or None,
        command="nuebar run --full",
    )
    run_train(job, out, progress=options["progress"])


def _density(run: RunFile, experiment: Experiment, folder: Path, out: Path, options: dict[str, Any]) -> None:
    from nuebar.jobs.tune_train import TrainJob
    from nuebar.jobs.tune_train import run_train as train

    f = run.full
    for name in (f.calibration_set, *f.validation_sets):
        job = CalibrationJob(
            experiment,
            set_name=name,
            plan=f.plan or None,
            cascades=f.calibration_cascades,
            seed=part_seed(run.seed, "train", "tune"),
        )
        run_calibration(job, folder / "calibration", **options)
    train(
        TrainJob(
            recipe=f.tune_recipe,
            training=str(folder / "calibration" / f.calibration_set),
            validation=tuple(str(folder / "calibration" / name) for name in f.validation_sets),
            epochs=f.tune_epochs or None,
            command="nuebar run --full",
        ),
        out,
        progress=options["progress"],
    )


def _surrogate(run: RunFile, experiment: Experiment, folder: Path, out: Path, options: dict[str, Any]) -> None:
    from nuebar.jobs.predict import BuildJob, build_predictor

    seed = part_seed(run.seed, "train", "surrogate")
    job = IbdJob(experiment, pairs=run.full.surrogate_pairs, cascades=True, seed=seed)
    run_ibd(job, folder / "cascades", **options)
    build = BuildJob(kind="surrogate", experiment=run.experiment, cascades=folder / "cascades")
    for line in build_predictor(build, out, options["progress"]):
        log.info("%s", line)
