"""The model of a selected sample: what a run's fit compares with its candidates, and the fit itself.

Everything that the stages before have measured comes together here. The signal is the predictor's, for the live time
of the sample, times the selection efficiency of every bin; the response has the posterior of the tuning as its prior.
Accidentals are the off-time spectrum. The extra variance of a bin is the sum of three: the off-time spectrum's own
error, that of the efficiency, and that of the predictor's finite Monte Carlo; the bin-to-bin uncertainties of signal
and backgrounds are the model's. All of it enters the likelihood bin by bin.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from nuebar.chain.experiment import ACCIDENTALS, fit_experiment, selected_experiment
from nuebar.chain.run_file import RunFile
from nuebar.config import Experiment
from nuebar.errors import NuebarError
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.io.histograms import Histogram
from nuebar.io.posteriors import ResponsePosterior
from nuebar.io.results import load_result
from nuebar.parameters import ParameterSet
from nuebar.predict.nuisances import within_box
from nuebar.predict.spectrum import Predictor, SpectrumModel, build_model

EDM_GOAL = 1e-4  # a hundredth of σ; single precision in the surrogate leaves noise of 1e-5 in the cost

__all__ = ["Sample", "sample_fit", "sample_model"]


@dataclass(frozen=True, eq=False)
class Sample:
    """A selected sample with what was measured of it.

    Attributes:
        edges_MeV: Bins of the prompt reconstructed energy, shape ``(bins + 1,)``.
        counts: Candidates, shape ``(bins,)``.
        accidentals: Expected accidental pairs of each bin, measured off time.
        accidental_variance: Variance of that measurement.
        live_days: Live time.
        fiducial_share: Share of all interactions in the fiducial volume.
        efficiency: Selected over fiducial pairs, each bin.
        efficiency_error: Its error.
        background_efficiency: Background → share of the pairs made in the scintillator that are selected into the bins.
    """

    edges_MeV: np.ndarray
    counts: np.ndarray
    accidentals: np.ndarray
    accidental_variance: np.ndarray
    live_days: float
    fiducial_share: float
    efficiency: np.ndarray
    efficiency_error: np.ndarray
    background_efficiency: Mapping[str, float]

    @classmethod
    def load(cls, place: Path) -> Sample:
        """Read what the stage ``select`` wrote.

        Raises:
            NuebarError: The files are not of one selection.
        """
        prompt, accidentals = (Histogram.load(place / f"{name}.json") for name in ("prompt", "accidentals"))
        summary, efficiency = (load_result(place / f"{name}.json") for name in ("summary", "efficiency"))
        try:
            signal = efficiency["sources"]["ibd"]
            live = float(summary["live_days"]) * float(summary.get("survival", 1.0))
            share, whole = (float(signal["total"][k]["value"]) for k in ("fiducial_share", "efficiency"))
            ratio, error = (np.array(signal[k], dtype=float) for k in ("efficiency", "efficiency_error"))
            others = {
                name: float(np.sum(source["selected"]) / source["total"]["interactions"]["value"])
                for name, source in efficiency["sources"].items()
                if name != "ibd"
            }
            edges = np.array(efficiency["edges_MeV"], dtype=float)
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as problem:
            raise NuebarError(
                f"{place}: expected live_days in summary.json and sources.ibd in efficiency.json, got "
                f"{type(problem).__name__}: {problem}; make them with the same version"
            ) from problem
        for name, found in (("accidentals.json", accidentals.edges), ("efficiency.json", edges)):
            if found.shape != prompt.edges.shape or np.any(np.abs(found - prompt.edges) > 1e-9):
                raise NuebarError(f"{place / name}: expected the bins of prompt.json; select again with one binning")
        empty = np.isnan(ratio)  # no pair was simulated there: the mean, and nothing known
        ratio, error = np.where(empty, whole, ratio), np.where(empty, 1.0, error)
        variance = accidentals.variances if accidentals.variances is not None else accidentals.counts
        return cls(
            prompt.edges, prompt.counts, accidentals.counts, np.asarray(variance), live, share, ratio, error, others
        )


def sample_model(
    run: RunFile,
    experiment: Experiment,
    sample: Sample,
    posterior: ResponsePosterior,
    predictor: str | Predictor | None = None,
    centres: Mapping[str, float] | None = None,
) -> tuple[SpectrumModel, ParameterSet, np.ndarray]:
    """The model of a sample, its parameters, and the variance that its bins have beside Poisson's.

    Args:
        run: The run file.
        experiment: Its experiment.
        sample: What was selected.
        posterior: Of the response.
        predictor: Instead of the run's.
        centres: Centres of priors, as auxiliary measurements gave them.

    Returns:
        Model, parameters, variance of shape ``(bins,)``.
    """
    selected = selected_experiment(
        fit_experiment(run, experiment),
        live_days=sample.live_days,
        fiducial_share=sample.fiducial_share,
        efficiency=sample.background_efficiency,
    )
    model, parameters = build_model(selected, predictor=predictor or run.predict.predictor, posterior=posterior)
    if len(model.edges_MeV) != sample.edges_MeV.size or np.any(np.abs(model.edges_MeV - sample.edges_MeV) > 1e-6):
        raise NuebarError(
            f"the bins of the predictor (from {model.edges_MeV[0]:g} to {model.edges_MeV[-1]:g} MeV) do not contain "
            f"those of the sample ({sample.edges_MeV[0]:g} to {sample.edges_MeV[-1]:g} MeV, {sample.counts.size}); "
            "change fit.bins, fit.low_MeV and fit.high_MeV, or take another predictor"
        )
    model = _with_sample(model, sample)
    parameters = _centred(parameters, centres or {}, model)
    return model, parameters, _variance(model, parameters, sample)


def sample_fit(
    run: RunFile, experiment: Experiment, sample: Sample, posterior: ResponsePosterior, **options: Any
) -> SpectrumFit:
    """The fit of a sample; ``options`` are those of :func:`sample_model`."""
    model, parameters, variance = sample_model(run, experiment, sample, posterior, **options)
    return SpectrumFit(
        model,
        parameters,
        sample.counts.astype(float),
        run.fit.statistic,
        experiment.name,
        run.seed % 2**31,
        None if run.fit.statistic == "poisson" else variance,
        EDM_GOAL,
    )


def _with_sample(model: SpectrumModel, sample: Sample) -> SpectrumModel:
    """The model with the efficiency of every bin, and with accidentals as measured."""
    row = model.background_names.index(ACCIDENTALS)
    counts, slopes, shape = (
        np.array(x) for x in (model.background_counts, model.background_slopes, model.background_shape)
    )
    counts[row], slopes[row], shape[row] = sample.accidentals, 0.0, 0.0
    arrays = (np.asarray(model.bin_factor) * sample.efficiency, counts, slopes, shape)
    return eqx.tree_at(
        lambda m: (m.bin_factor, m.background_counts, m.background_slopes, m.background_shape),
        model,
        tuple(jax.device_put(x) for x in arrays),
    )


def _centred(parameters: ParameterSet, centres: Mapping[str, float], model: SpectrumModel) -> ParameterSet:
    """Priors around what auxiliary measurements gave; one outside of a physical limit is moved to it."""
    changes: dict[str, dict[str, Any]] = {}
    for name, centre in centres.items():
        if name not in parameters or name in model.prior.names:
            continue
        low, high = parameters[name].bounds
        inside = min(max(centre, -np.inf if low is None else low), np.inf if high is None else high)
        changes[name] = {"value": float(inside)}
    return within_box(parameters.updated(**changes), model.predictor)


def _variance(model: SpectrumModel, parameters: ParameterSet, sample: Sample) -> np.ndarray:
    """Of the off-time spectrum, the efficiency and the predictor's Monte Carlo, shape ``(bins,)``."""
    values = parameters.nominal()
    signal = model.components(values)["signal"]
    relative = np.divide(
        sample.efficiency_error, sample.efficiency, out=np.zeros_like(signal), where=sample.efficiency > 0
    )
    out = sample.accidental_variance + (signal * relative) ** 2
    if hasattr(model.predictor, "mc_covariance") or hasattr(model.predictor, "errors"):
        found = model.mc_covariance(values)
        out = out + (found if found.ndim == 1 else np.diag(found))
    return np.asarray(out)


def scaled(sample: Sample, **changes: Any) -> Sample:
    """A copy with other measurements: for studies in which a stage is broken on purpose."""
    return dataclasses.replace(sample, **changes)
