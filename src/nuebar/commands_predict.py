"""The commands of ``nuebar predict``: build predictors, look at them, compare them, take them elsewhere."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from nuebar.commands_options import Debug, Flag, Paths, ResponseOptions, Words
from nuebar.commands_terminal import progress_line, say

__all__ = ["predict"]

log = logging.getLogger(__name__)

predict = App(name="predict", help="Predict spectra; build and look at predictors.")


@predict.command(name="show")
def predict_show(
    *,
    experiment: str = "juno",
    release: Path | None = None,
    inputs: Path | None = None,
    exposure_years: float | None = None,
    exposure_days: float | None = None,
    predictor: str = "harmonic",
    out: Path | None = None,
    debug: Debug = False,
) -> int:
    """Print the expected rates of every core and background, and write the spectrum if --out is given."""
    from nuebar.jobs.predict import prediction
    from nuebar.jobs.text import rates_table

    shown = prediction(experiment, release, inputs, exposure_years, exposure_days, predictor)
    say(rates_table(shown))
    if out is not None:
        for path in shown.write(out):
            log.info("wrote %s", path)
    return 0


@predict.command(name="build")
def predict_build(
    kind: Literal["harmonic", "matrix", "grid", "network", "surrogate"] = "harmonic",
    *,
    experiment: str = "juno",
    inputs: Path | None = None,
    release: Path | None = None,
    pairs: Words = (),
    columns: Annotated[Path | None, Parameter(help="TOML file with a column map of the pairs.")] = None,
    cascades: Path | None = None,
    point: ResponseOptions = ResponseOptions(),
    bins: int | None = None,
    low_MeV: Annotated[float, Parameter(name="--from")] = 0.8,
    high_MeV: Annotated[float, Parameter(name="--to")] = 8.8,
    experiment_bins: Flag = False,
    fiducial: bool = True,
    window_sigma: Annotated[float, Parameter(name=("--window-sigma", "--sigma"))] = 15.0,
    vacuum: Flag = False,
    recipe: str = "published",
    spectra: int | None = None,
    steps: int | None = None,
    max_seconds: float | None = None,
    accuracy: float = 1e-3,
    order: Literal[1, 3] = 3,
    seed: int = 0,
    out: Path,
    debug: Debug = False,
) -> int:
    """Build a predictor from an experiment or from Monte Carlo, and save it as a folder.

    Parameters
    ----------
    kind
        harmonic (exact in the oscillation parameters), matrix (response matrix), grid (spectra on disk), network (the
        published one), surrogate (learned response, from cascades).
    experiment
        Name of a built-in experiment or path of a TOML file: reactors, exposure, response.
    inputs
        ROOT file of JUNO's common inputs 2022, instead of the embedded ones.
    release
        Folder of JUNO's 2025 public release.
    pairs
        Files or folders of un-oscillated Monte Carlo pairs.
    cascades
        Folder of "nuebar simulate ibd --cascades".
    bins
        Even bins of reconstructed energy; 400 from Monte Carlo.
    low_MeV
        Lower end of the first bin.
    high_MeV
        Upper end of the last bin.
    experiment_bins
        The experiment's fine bins instead.
    fiducial
        Leave events outside of the detector's fiducial volume out.
    window_sigma
        Half width of the windows of the mass splittings, in standard deviations of PDG 2022.
    vacuum
        Leave matter out.
    recipe
        Of a network: published, published-decaying, plain, 2x100, 2x200.
    spectra
        Training spectra of a network.
    steps
        Training steps of a network.
    max_seconds
        Budget of a training; the same command continues.
    accuracy
        Relative error that a grid may have.
    order
        Order of a grid's interpolation.
    seed
        Seed of a training.
    out
        Output folder.
    """
    from nuebar.jobs.predict import BuildJob, build_predictor

    job = BuildJob(
        kind=kind,
        experiment=experiment,
        inputs=inputs,
        release=release,
        pairs=pairs,
        columns=columns,
        cascades=cascades,
        point=point.response(),
        bins=bins,
        low_MeV=low_MeV,
        high_MeV=high_MeV,
        experiment_bins=experiment_bins,
        fiducial=fiducial,
        window_sigma=window_sigma,
        vacuum=vacuum,
        recipe=recipe,
        spectra=spectra,
        steps=steps,
        max_seconds=max_seconds,
        accuracy=accuracy,
        order=order,
        seed=seed,
    )
    for line in build_predictor(job, out, progress_line()):
        say(line)
    return 0


@predict.command(name="export")
def predict_export(predictor: str, *, out: Path, debug: Debug = False) -> int:
    """Write a predictor as one file with an evaluator beside it that needs numpy only.

    Parameters
    ----------
    predictor
        surrogate, network, or a folder made by "nuebar predict build".
    out
        The file: .npz or .json; evaluator.py appears in the same folder.
    debug
        Show the traceback of an error.
    """
    from nuebar.predict.export import export_predictor
    from nuebar.predict.store import load_predictor, predictor_folder

    for path in export_predictor(load_predictor(predictor_folder(predictor)), out):
        say(f"wrote {path}")
    return 0


@predict.command(name="compare")
def predict_compare(
    *,
    out: Path,
    pairs: Paths = (),
    cascades: Path | None = None,
    experiment: str = "juno",
    columns: Annotated[Path | None, Parameter(help="TOML file with a column map of the pairs.")] = None,
    predictors: Words = (),
    network: Paths = (),
    bins: int = 400,
    low_MeV: Annotated[float, Parameter(name="--from")] = 0.8,
    high_MeV: Annotated[float, Parameter(name="--to")] = 8.8,
    full: Flag = False,
    seed: int = 1,
    debug: Debug = False,
) -> int:
    """Build, time and test all predictors of one Monte Carlo, and write one table with pictures.

    Parameters
    ----------
    out
        Output folder; the same command continues in it and measures nothing twice.
    pairs
        Files or folders of un-oscillated pairs: reweight, matrix, grid, harmonic, networks.
    cascades
        Folder of "nuebar simulate ibd --cascades": the surrogate.
    experiment
        Name of a built-in experiment or path of a TOML file: exposure, cores and matter.
    predictors
        Rows to measure; all that the inputs allow by default.
    network
        Folders of trained networks, instead of training some.
    bins
        Number of bins of reconstructed energy.
    low_MeV
        Lower end of the first bin.
    high_MeV
        Upper end of the last bin.
    full
        Published size (hours) instead of minutes.
    seed
        Seed of the test points.
    """
    from nuebar.config import load_experiment
    from nuebar.jobs.compare import FULL, REDUCED, CompareJob, run_compare
    from nuebar.jobs.pairs import even_edges

    job = CompareJob(
        load_experiment(experiment),
        pairs=pairs,
        cascades=cascades,
        columns=columns,
        predictors=predictors,
        networks=network,
        size=FULL if full else REDUCED,
        edges_MeV=even_edges(bins, low_MeV, high_MeV),
        seed=seed,
    )
    result = run_compare(job, out, progress_line())
    say(result.text)
    for path in result.files:
        log.info("wrote %s", path)
    return 0
