"""The stage ``predict``: the expected spectrum at the tuned response, and the predictor beside a Monte Carlo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import chi2

from nuebar.chain.auxiliary import load_centres
from nuebar.chain.run_file import RunFile
from nuebar.chain.spectrum import Sample, sample_model
from nuebar.chain.truth import part_seed
from nuebar.config import Experiment, load_experiment, override
from nuebar.io.posteriors import ResponsePosterior, load_posterior
from nuebar.io.results import save_result
from nuebar.jobs.ibd import IbdJob, run_ibd
from nuebar.jobs.pairs import experiment_pairs
from nuebar.predict.spectrum import SpectrumModel, build_model
from nuebar.run import Workers
from nuebar.simulate.quench import Response

__all__ = ["run_prediction"]

Progress = Callable[[str, int, int], None]
LIGHT = ("kB_g_cm2_GeV", "fC", "light_yield_per_MeV")


def run_prediction(
    run: RunFile, home: Path, place: Path, *, jobs: Workers = 1, progress: Progress | None = None
) -> dict[str, Any]:
    """Predict, and compare.

    Args:
        run: The run file.
        home: Folder of the run, of which the stages ``select`` and ``tune`` are read.
        place: Folder of the stage.
        jobs: Number of processes, or an executor.
        progress: Called as ``progress(what, done, total)``.

    Returns:
        The main numbers, for the record.
    """
    experiment = load_experiment(run.experiment)
    sample = Sample.load(home / "select")
    posterior = load_posterior(home / "tune" / "posterior.json")
    model, parameters, variance = sample_model(run, experiment, sample, posterior, centres=load_centres(home))
    values = parameters.nominal()
    components = model.components(values)
    record: dict[str, Any] = {
        "kind": "prediction",
        "edges_MeV": list(model.edges_MeV),
        "predictor": model.predictor.name,
        "values": values,
        "components": components,
        "expected": np.sum(list(components.values()), axis=0),
        "extra_variance": variance,
        "unoscillated": model.unoscillated(),
        "reference": None,
    }
    if run.predict.reference_pairs and experiment.detector is not None:
        record["reference"] = _compared(run, experiment, model, posterior, values, place, jobs, progress)
    save_result(place / "prediction.json", record)
    return {"expected": float(np.sum(record["expected"]))}


def _compared(
    run: RunFile,
    experiment: Experiment,
    model: SpectrumModel,
    posterior: ResponsePosterior,
    values: dict[str, float],
    place: Path,
    jobs: Workers,
    progress: Progress | None,
) -> dict[str, Any]:
    """The predictor beside events that were simulated for this and weighted one by one."""
    at = {**values, **dict(zip(posterior.names, posterior.mean.tolist(), strict=True))}
    job = IbdJob(
        experiment,
        pairs=run.predict.reference_pairs,
        response=Response(*(at[n] for n in LIGHT)),
        seed=part_seed(run.seed, "reference"),
    )
    run_ibd(job, place / "reference", jobs=jobs, progress=progress)
    f = run.fit
    plain = override(experiment, {"binning.segments": ((f.low_MeV, f.high_MeV, float(f.bins)),)})
    pairs = experiment_pairs([str(place / "reference" / "ibd")], model.predictor.edges, plain)
    exact, _ = build_model(plain, predictor="reweight", pairs=pairs)
    learned, _ = build_model(plain, predictor=model.predictor)
    names = exact.predictor.parameter_names
    counts = np.asarray(exact.stencil.rebin(exact.predictor.channels(np.array([at[n] for n in names]))[0]))
    own = {n: at[n] for n in learned.predictor.parameter_names} | {"energy_scale": 0.0}
    predicted = np.asarray(
        learned.stencil.rebin(
            learned.predictor.channels(np.array([own[n] for n in learned.predictor.parameter_names]))[0]
        )
        * learned.bin_factor
    )
    variance = exact.mc_covariance({n: at[n] for n in names})
    inside = variance > 0
    deviation = float(np.sum((counts - predicted)[inside] ** 2 / variance[inside]))
    bins = int(inside.sum())
    return {
        "counts": counts,
        "errors": np.sqrt(variance),
        "surrogate": predicted,
        "events": run.predict.reference_pairs,
        "chi2": deviation,
        "n_bins": bins,
        "p_value": float(chi2.sf(deviation, bins)),
    }
