"""The commands of ``nuebar tune``: the response of the detector from calibration sources."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from nuebar.commands_options import EXIT_INVALID_FIT, Debug, Flag, Paths, Words, WorkOptions
from nuebar.commands_terminal import progress_line, say
from nuebar.errors import NuebarError

__all__ = ["tune"]

tune = App(name="tune", help="Tune kB, fC and the light yield to calibration sources; train what that takes.")
Budget = Annotated[float | None, Parameter(help="Start nothing new after so many seconds; the same command continues.")]
InAll = Annotated[float | None, Parameter(help="Stop after so many seconds, earlier calls included; more continues.")]


@tune.command(name="train")
def tune_train(
    *,
    recipe: str,
    training: Path,
    validation: Paths = (),
    out: Path,
    epochs: int | None = None,
    seed: int | None = None,
    max_seconds: InAll = None,
    no_pictures: Flag = False,
    debug: Debug = False,
) -> int:
    """Train a density of calibration spectra on simulated data sets.

    Parameters
    ----------
    recipe
        tede, planar or spline (as shipped), tede-plain, tede-published or planar-published, or a JSON file such as
        best.json of a search.
    training
        Folder of the training set, from nuebar simulate calibration.
    validation
        Folders of validation sets; the weights with the smallest mean d2 on them are kept.
    out
        Folder of the model; the same command continues a training there.
    epochs
        Instead of the recipe's; its schedule is stretched with them.
    seed
        Instead of the recipe's: of weights and minibatches.
    """
    from nuebar.jobs.tune_train import TrainJob, run_train

    command = (
        f"nuebar tune train --recipe {recipe} --training {training.name}"
        + (f" --validation {' '.join(v.name for v in validation)}" if validation else "")
        + (f" --epochs {epochs}" if epochs is not None else "")
        + (f" --seed {seed}" if seed is not None else "")
    )
    folders = tuple(str(v) for v in validation)
    job = TrainJob(recipe, str(training), folders, seed, epochs, max_seconds, command)
    trained = run_train(job, out, progress=progress_line())
    say(
        f"{trained.recipe.kind}: {trained.weights:,} weights, {trained.steps:,} steps in {trained.seconds:.0f} s, "
        f"ended by {trained.reason}; mean d2 {trained.best:.5f} at step {trained.best_step:,}"
    )
    say(f"model: {out}")
    if not no_pictures:
        from nuebar.report.plots import save
        from nuebar.report.tuning_plots import training_curves

        history = [[p.step, p.loss, p.validation, p.seconds] for p in trained.history]
        save(training_curves({trained.recipe.kind: history}), out / "training.png")
    return 0


@tune.command(name="search")
def tune_search(
    *,
    kind: Literal["tede", "planar", "spline"],
    training: Path,
    validation: Paths = (),
    out: Path,
    trials: int | None = None,
    max_steps: int = 5000,
    trial_seconds: float | None = None,
    max_seconds: Budget = None,
    pruner: Literal["median", "halving", "none"] = "median",
    events: int | None = None,
    seed: int = 1,
    debug: Debug = False,
) -> int:
    """Search hyper-parameters over the published ranges.

    Parameters
    ----------
    training
        Folder of the training set, from nuebar simulate calibration.
    validation
        Folders of validation sets.
    out
        Folder of the study; the same command continues it. best.json there is a recipe for nuebar tune train.
    trials
        In all; 250 for tede and 25 for planar, as published, and 50 for spline.
    max_steps
        Steps of a trial.
    trial_seconds
        Time of a trial at most.
    pruner
        Ends trials that lag behind.
    events
        Events of every source and point in a step of a flow.
    """
    from nuebar.jobs.tune_search import SearchJob, importance_rows, run_search, trial_rows

    job = SearchJob(
        kind=kind,
        training=str(training),
        validation=tuple(str(v) for v in validation),
        trials=trials,
        max_steps=max_steps,
        max_seconds=trial_seconds,
        timeout=max_seconds,
        pruner=pruner,
        events=events,
        seed=seed,
    )
    result = run_search(job, out, progress=progress_line())
    for row in trial_rows(result):
        say("  ".join(str(cell) for cell in row))
    for name, share in importance_rows(result):
        say(f"importance of {name}: {share}")
    say(f"study: {out / 'study.json'}, best recipe: {out / 'best.json'}")
    return 0


@tune.command(name="fit")
def tune_fit(
    *,
    density: str = "spline",
    source: Words = (),
    data: Path | None = None,
    background: Words = (),
    columns: Path | None = None,
    set: Path | None = None,
    data_set: int = 0,
    release: Path | None = None,
    points: Literal["all", "six"] = "all",
    scale: Literal["free", "added", "included"] = "free",
    experiment: str = "juno",
    method: Literal["minuit", "nuts", "nested"] = "nuts",
    unbinned: Flag = False,
    norms: Literal["closed", "free"] = "closed",
    prior: Words = (),
    truth: Words = (),
    samples: int = 4000,
    replicas: int = 1000,
    direct: Flag = False,
    seed: int = 1,
    no_pictures: Flag = False,
    out: Path,
    debug: Debug = False,
) -> int:
    """Fit kB, fC and the light yield to spectra of calibration sources, or kB, fC and a scale to released gamma points.

    Parameters
    ----------
    density
        tede, spline or planar (shipped with nuebar), or a folder of nuebar tune train.
    source
        Files of sources: Cs137=FILE K40=FILE ... Events (column n_pe, photo-electrons; Parquet, ROOT, HDF5, text) or
        histograms (CSV low,high,counts; UHI JSON; file.root:key).
    data
        Folder with files named after the sources, such as Cs137.parquet.
    background
        Expected background of sources: Cs137=FILE ...
    columns
        TOML file with a column map of the files of events.
    set
        Folder of a simulated set, instead of files.
    data_set
        Number of a data set of it.
    release
        Folder of JUNO's 2025 release: its gamma points are fitted instead of spectra.
    points
        All nine gamma points, or the six up to 2.23 MeV, which then predict the others.
    scale
        The common 0.5 % of the gamma points: free, added to the printed errors, or included in them.
    experiment
        Whose detector is simulated for the release.
    method
        minuit: best fit and Minos; nuts or nested: samples of the posterior, too.
    unbinned
        Use single events (spline and planar).
    norms
        Norms of the sources in closed form, or free as published.
    prior
        Gaussian priors: fC=0.5,0.1 ... (centre, width); kB and light_yield will do for the long names.
    truth
        Known response, for the pictures: kB=12 fC=0.5 light_yield=9846.
    samples
        Draws of the posterior.
    replicas
        Simulated data sets for the goodness of fit.
    direct
        Let NUTS ask the network at every step instead of an interpolant of ln L.
    out
        Output folder: tuning.json, posterior.json (for nuebar fit spectrum --response), pictures.
    """
    if release is not None:
        if source or data or set or background or prior or unbinned:
            raise NuebarError(
                "expected --release or spectra of sources, got both: gamma points of a release are fitted by themselves"
            )
        return _fit_release(release, points, scale, experiment, samples, seed, out, pictures=not no_pictures)
    from nuebar.io.files import output_folder
    from nuebar.jobs.tune_fit import (
        TuneJob,
        found_files,
        parse_numbers,
        parse_pairs,
        parse_priors,
        run_tune,
        tuning_report,
        write_tuning,
    )
    from nuebar.tune.store import load_density

    files = parse_pairs(source, "source")
    if data is not None:
        if files:
            raise NuebarError("expected --data FOLDER or --source NAME=FILE, got both; give one of them")
        files = found_files(data, load_density(density).sources)
    if samples < 100 or replicas < 0 or seed < 0:
        raise NuebarError(
            f"expected 100 samples or more, replicas and a seed from 0, got {samples}, {replicas}, {seed}"
        )
    output_folder(out)
    job = TuneJob(
        density=density,
        sources=files,
        background=parse_pairs(background, "background"),
        columns=None if columns is None else str(columns),
        simulated=None if set is None else str(set),
        data_set=data_set,
        method=method,
        unbinned=unbinned,
        norms=norms,
        priors=parse_priors(prior),
        samples=samples,
        seed=seed,
        replicas=replicas,
        direct=direct,
        truth=parse_numbers(truth),
    )
    result, used, chosen, known = run_tune(job, progress=progress_line())
    paths = write_tuning(result, used, chosen, known, out, pictures=not no_pictures)
    say(tuning_report(result, known))
    say("written: " + ", ".join(str(path) for path in paths))
    return 0 if result.valid else EXIT_INVALID_FIT


@tune.command(name="validate")
def tune_validate(
    *,
    density: Annotated[list[str], Parameter(consume_multiple=True, negative="")],
    data: Path,
    study: Words = (),
    experiment: str = "juno",
    catalogue: Path | None = None,
    plan: Path | None = None,
    points: int = 1000,
    fits: int = 100,
    sets: int = 2000,
    events: int = 10_000,
    unbinned: Flag = False,
    seed: int = 1,
    work: WorkOptions = WorkOptions(),
    no_pictures: Flag = False,
    out: Path,
    debug: Debug = False,
) -> int:
    """Validate densities: accuracy, worked example, bias, spread, ranks and coverage.

    Parameters
    ----------
    density
        One or several: tede, spline, planar, or folders of nuebar tune train.
    data
        Run folder of nuebar simulate calibration with the sets validation-2, testing-1 and testing-2.
    study
        Some of accuracy, example, exposures (testing 2), points (testing 1), asimov, calibration (ranks and coverage);
        all by default.
    experiment
        Whose detector simulates new data.
    catalogue
        TOML file with sources of one's own.
    plan
        TOML file with sets of one's own.
    points
        Points of testing 1 in the studies points and asimov.
    fits
        Data sets at each point.
    sets
        Data sets of the study calibration.
    events
        Of every source in new data sets.
    unbinned
        Exposures with single charges (spline, planar).
    seed
        Of new data.
    out
        Output folder; the same command continues.
    """
    from nuebar.jobs.tune_validate import STUDIES, ValidateJob, run_validate, validation_report

    job = ValidateJob(
        densities=tuple(density),
        studies=tuple(study or STUDIES),
        data=str(data),
        experiment=experiment,
        catalogue=None if catalogue is None else str(catalogue),
        plan=None if plan is None else str(plan),
        points=points,
        fits=fits,
        sets=sets,
        events=events,
        unbinned=unbinned,
        seed=seed,
    )
    records = run_validate(job, out, **work.chunks())
    say(validation_report(records))
    if not no_pictures:
        from nuebar.jobs.tune_pictures import draw_validation

        say("written: " + ", ".join(str(path) for path in draw_validation(records, out)))
    return 0


def _fit_release(
    release: Path, points: Any, scale: Any, experiment: str, samples: int, seed: int, out: Path, *, pictures: bool
) -> int:
    from nuebar.config import load_experiment
    from nuebar.io.files import output_folder
    from nuebar.jobs.tune_release import fit_release, release_report, write_release_fit

    output_folder(out)
    result = fit_release(
        release,
        points=points,
        scale=scale,
        experiment=load_experiment(experiment),
        samples=samples,
        seed=seed,
        progress=progress_line(),
    )
    paths = list(write_release_fit(result, out))
    if pictures:
        from nuebar.jobs.tune_release import draw_release

        paths += draw_release(result, out)
    say(release_report(result))
    say("written: " + ", ".join(str(path) for path in paths))
    return 0 if result.fit.minimum.valid else EXIT_INVALID_FIT
