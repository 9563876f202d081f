"""The stage ``fit``: oscillation parameters from the selected sample, with everything before propagated."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import chi2

from nuebar.chain.auxiliary import load_centres
from nuebar.chain.run_file import RunFile
from nuebar.chain.spectrum import Sample, sample_fit
from nuebar.config import Experiment, load_experiment
from nuebar.fit.interval import ProfileInterval, profile_interval
from nuebar.fit.profile import scan
from nuebar.fit.result import FitResult
from nuebar.fit.spectrum_fit import SpectrumFit, impacts
from nuebar.fit.starts import OtherMinimum, run_from_starts
from nuebar.io.posteriors import ResponsePosterior, load_posterior
from nuebar.io.results import save_result
from nuebar.parameters import OSCILLATION
from nuebar.stats.minimise import Problem

__all__ = ["SPLITTING", "run_fitting"]

log = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]
NEAR_sigma = 3.0
SPLITTING = "dm2_31_eV2"
"""The parameter in which a short exposure has several minima."""
NEAR_chi2 = 4.0
MODELS_OF = "juno"
PROFILE_sigma, PROFILE_POINTS = 3.5, 57


def run_fitting(run: RunFile, home: Path, place: Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Fit, scan, rank, and write ``result.json`` and ``fit.json``.

    Args:
        run: The run file.
        home: Folder of the run, of which ``select``, ``tune`` and the auxiliary measurements are read.
        place: Folder of the stage.
        progress: Called as ``progress(what, done, total)``.

    Returns:
        The main numbers, for the record.
    """
    sample = Sample.load(home / "select")
    posterior = load_posterior(home / "tune" / "posterior.json")
    experiment = load_experiment(run.experiment)
    fit = sample_fit(run, experiment, sample, posterior, centres=load_centres(home))
    problem = fit.problem()
    result, others = run_from_starts(fit, SPLITTING, problem=problem)
    profile = _profile(fit, result, problem)
    if profile is not None:
        result = _with_interval(result, profile)
    contour = None
    if result.valid and run.fit.contour and set(run.fit.contour) <= set(result.parameter_order):
        tick = None if progress is None else (lambda k, n: progress("contour", k, n))
        found = scan(fit, result, run.fit.contour, n_points=run.fit.contour_points, problem=problem, progress=tick)
        contour = {"names": list(found.names), "grids": list(found.grids), "delta_chi2": found.delta_chi2}
    free = [n for n in OSCILLATION if n in result.parameter_order]
    values = result.values()
    components = fit.model.components(values)
    expected, own = fit.model(fit.model.vector(values))
    record: dict[str, Any] = {
        "kind": "fit of a run",
        "edges_MeV": list(fit.model.edges_MeV),
        "counts": sample.counts,
        "expected": np.asarray(expected),
        "extra_variance": np.asarray(own) + (0.0 if fit.mc_covariance is None else fit.mc_covariance),
        "components": components,
        "unoscillated": fit.model.unoscillated(),
        "contour": contour,
        "impacts": impacts(fit, result, free) if result.valid else {},
        "goodness": {
            "chi2": result.chi2,
            "n_dof": result.n_dof,
            "p_value": float(chi2.sf(result.chi2, result.n_dof)),
        },
        "profile": None if profile is None else asdict(profile),
        "other_minima": [{"parameter": SPLITTING, **asdict(o)} for o in others],
        "prior_dominated": _prior_dominated(result),
        "live_days": sample.live_days,
        "statistic": result.statistic,
        "warnings": [*_foreign(run, experiment), *_warnings(fit, result, posterior, others)],
    }
    save_result(place / "fit.json", record)
    save_result(place / "result.json", {"kind": "fit result", **result.to_dict()})
    for text in record["warnings"]:
        log.warning("%s", text)
    return {"valid": result.valid, "chi2": result.chi2, "values": {n: values[n] for n in free}}


def _profile(fit: SpectrumFit, result: FitResult, problem: Problem) -> ProfileInterval | None:
    """Of the splitting that may have several minima, over all of its prior."""
    p = fit.parameters[SPLITTING]
    if not result.valid or p.fixed or not p.sigma:
        return None
    low, high = (np.inf * s if b is None else b for s, b in zip((-1, 1), p.bounds, strict=True))
    best, error = result.parameters[SPLITTING].value, result.parameters[SPLITTING].error
    reach = max(PROFILE_sigma * p.sigma, abs(best - p.value) + PROFILE_sigma * error)
    grid = np.linspace(max(low, p.value - reach), min(high, p.value + reach), PROFILE_POINTS)
    return profile_interval(fit, result, SPLITTING, grid, problem=problem)


def _with_interval(result: FitResult, found: ProfileInterval) -> FitResult:
    """The result with the ends of the profile's interval for its parameter."""
    p = result.parameters[found.name]
    changed = replace(p, error_minus=found.low - p.value, error_plus=found.high - p.value)
    return replace(result, parameters={**result.parameters, found.name: changed})


def _foreign(run: RunFile, experiment: Experiment) -> list[str]:
    """Models that ship with nuebar are of JUNO; somebody else's detector has other light and other singles."""
    if experiment.detector == load_experiment(MODELS_OF).detector:
        return []
    own = run.data.sample is not None, run.data.response is not None
    words = {
        "select.classifier": "" if own[0] else run.select.classifier,
        "tune.density": "" if own[1] else run.tune.density,
        "predict.predictor": run.predict.predictor,
    }
    shipped = [
        f"{key} = {word}" for key, word in words.items() if word and word != "cuts" and not Path(word).is_absolute()
    ]
    if not shipped:
        return []
    return [
        f"The models that ship with nuebar were made for {MODELS_OF}, but the detector of {experiment.name!r} "
        f"has other numbers: "
        f"{', '.join(shipped)}. Train your own (nuebar run --full, or docs/chain.md) unless the detectors are alike."
    ]


def _prior_dominated(result: FitResult, share: float = 0.9) -> list[str]:
    """Parameters of whose error nine tenths or more are the prior's."""
    return [
        name
        for name, p in result.parameters.items()
        if p.prior is not None and not p.fixed and p.error > share * p.prior[1]
    ]


def _warnings(
    fit: SpectrumFit, result: FitResult, posterior: ResponsePosterior, others: Sequence[OtherMinimum]
) -> list[str]:
    """What somebody who reads the result must know, in sentences."""
    out = []
    if not result.valid:
        out.append(f"The fit is not valid: {result.reason}.")
    if result.at_limit:
        out.append(f"On a limit: {', '.join(result.at_limit)}.")
    told = posterior.provenance.get("valid", "yes")
    if told != "yes":
        out.append(f"The tuning that made the response posterior was not valid ({told}).")
    sigmas = np.sqrt(np.diag(posterior.covariance))
    for name, mean, sigma in zip(posterior.names, posterior.mean, sigmas, strict=True):
        low, high = fit.model.predictor.box.get(name, (-np.inf, np.inf))
        if mean - NEAR_sigma * sigma < low or mean + NEAR_sigma * sigma > high:
            out.append(
                f"The posterior of {name} ({mean:.5g} ± {sigma:.2g}) reaches beyond the box of the predictor "
                f"({low:.5g} to {high:.5g}) and is cut there."
            )
    near = [o for o in others if o.delta_chi2 < NEAR_chi2]
    if near:
        told = ", ".join(f"{o.value:.5g} (Δχ² = {o.delta_chi2:.2g})" for o in near)
        out.append(f"{SPLITTING} has other minima, at {told}: its error is that of the lowest, its interval of all.")
    p_value = float(chi2.sf(result.chi2, result.n_dof))
    if p_value < 0.01:
        out.append(f"The fit describes the data badly: χ² = {result.chi2:.1f} for {result.n_dof}, p = {p_value:.2g}.")
    if fit.statistic == "poisson":
        out.append("The plain Poisson statistic leaves out the errors of accidentals, efficiency and Monte Carlo.")
    return out
