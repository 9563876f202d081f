"""The experiment as the fit of a run sees it: its bins, priors, live time and measured backgrounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from nuebar.chain.run_file import RunFile
from nuebar.config import Background, Experiment, override
from nuebar.predict.nuisances import model_parameters
from nuebar.predict.signal import signal_inputs
from nuebar.predict.store import load_predictor, predictor_folder

__all__ = ["ACCIDENTALS", "fit_experiment", "prior_widths", "selected_experiment"]

ACCIDENTALS = "accidentals"


def fit_experiment(run: RunFile, experiment: Experiment) -> Experiment:
    """Bins, statistic and priors of the run file in an experiment, with accidentals among its backgrounds.

    The measured spectrum replaces that of the accidentals later, so they have no rate to be fitted.
    """
    f = run.fit
    oscillation = dict(experiment.oscillation)
    for name, prior in f.priors.items():
        value = -abs(prior.value) if name == "dm2_31_eV2" and f.ordering == "inverted" else prior.value
        oscillation[name] = dataclasses.replace(oscillation[name], value=value, sigma=prior.sigma)
    known = tuple(b for b in experiment.backgrounds if b.name != ACCIDENTALS)
    measured = Background(name=ACCIDENTALS, rate_per_day=1.0, rate_sigma=0.0, shape="accidentals")
    changed = dataclasses.replace(experiment, oscillation=oscillation, backgrounds=(*known, measured))
    return override(
        changed,
        {
            "binning.segments": ((f.low_MeV, f.high_MeV, float(f.bins)),),
            "fit.statistic": f.statistic,
            "systematics.energy_scale": f.energy_scale,
        },
    )


def prior_widths(experiment: Experiment, predictor: str = "surrogate") -> dict[str, tuple[float, float]]:
    """Nominal value and width of every prior of the fit but that of the response.

    Args:
        experiment: From :func:`fit_experiment`.
        predictor: Whose parameters they are.
    """
    parameters = model_parameters(experiment, signal_inputs(experiment), load_predictor(predictor_folder(predictor)))
    return {
        name: (p.value, p.sigma)
        for name, p in parameters.items()
        if p.sigma is not None and not p.fixed and p.sigma > 0
    }


def selected_experiment(
    experiment: Experiment, *, live_days: float, fiducial_share: float, efficiency: Mapping[str, float]
) -> Experiment:
    """The experiment with the exposure and the rates of a selected sample.

    Args:
        experiment: From :func:`fit_experiment`.
        live_days: Live time of the sample.
        fiducial_share: Share of the interactions that the predictor's events stand for.
        efficiency: Background → share of the pairs made in the scintillator that are selected into the bins. Rates of
            others are taken as they are.
    """
    made = {}
    if experiment.detector is not None:
        made = {p.name: p.rate_per_day / p.efficiency for p in experiment.detector.pairs}
    backgrounds = tuple(
        dataclasses.replace(b, rate_per_day=made[b.name] * efficiency[b.name])
        if b.name in made and b.name in efficiency
        else b
        for b in experiment.backgrounds
    )
    changed = dataclasses.replace(experiment, backgrounds=backgrounds)
    return override(changed, {"exposure.days": live_days, "target.efficiency": fiducial_share})
