"""The parameters of an experiment's model: oscillation, matter, response, flux, energy and backgrounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from nuebar.config import Experiment
from nuebar.errors import NuebarError
from nuebar.io.posteriors import ResponsePosterior
from nuebar.parameters import Parameter, ParameterSet
from nuebar.predict.box import PHYSICS
from nuebar.predict.response import LIGHT, RESPONSE
from nuebar.predict.signal import SignalInputs

__all__ = ["JointPrior", "freed", "model_parameters", "within_box"]

UNITS = {"kB_g_cm2_GeV": "g/cm$^2$/GeV", "light_yield_per_MeV": "1/MeV", "smear_c": "MeV"}


class JointPrior(eqx.Module):
    """A Gaussian prior of several parameters together.

    Attributes:
        names: The parameters; none for no prior.
        mean: Shape ``(n,)``.
        covariance: Shape ``(n, n)``.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    mean: Array
    covariance: Array

    @classmethod
    def of(cls, posterior: ResponsePosterior | None) -> JointPrior:
        """From a posterior, or an empty one."""
        if posterior is None:
            return cls((), jnp.zeros(0), jnp.zeros((0, 0)))
        return cls(posterior.names, jnp.asarray(posterior.mean), jnp.asarray(posterior.covariance))

    def chi2(self, values: Sequence[float]) -> float:
        """(x - mean)ᵀ C⁻¹ (x - mean)."""
        d = np.asarray(values) - np.asarray(self.mean)
        return float(d @ np.linalg.solve(np.asarray(self.covariance), d)) if d.size else 0.0


def model_parameters(
    experiment: Experiment, arrays: SignalInputs, predictor: Any, posterior: ResponsePosterior | None = None
) -> ParameterSet:
    """All parameters; pulls are relative deviations around zero.

    What the predictor does not take is left out: a density without matter, pulls of the non-linearity and of the
    resolution where response parameters of the predictor say the same.

    Args:
        experiment: Values, priors, limits.
        arrays: What the pulls act on.
        predictor: The signal; its box becomes the limits.
        posterior: Frees response parameters.

    Raises:
        NuebarError: A value lies outside the predictor's box, or the posterior names what it does not take.
    """
    s, b = experiment.systematics, experiment.backgrounds
    out: list[Parameter] = list(experiment.oscillation_parameters())
    if PHYSICS[-1] in predictor.parameter_names:
        out.append(_density(experiment))
    response = [n for n in RESPONSE if n in predictor.parameter_names]
    out += _response(experiment, predictor, response)

    def pull(name: str, width: float) -> None:
        if width > 0:
            out.append(Parameter(name, 0.0, width))

    for name, width in s.signal.items():
        pull(f"norm_{name}", width)
    for name in arrays.core_names:
        pull(f"core_{name}", s.core)
    pull("spent_fuel", s.spent_fuel if np.any(arrays.extras["spent_fuel"]) else 0.0)
    pull("nonequilibrium", s.nonequilibrium if np.any(arrays.extras["nonequilibrium"]) else 0.0)
    for isotope, width in s.fission_fractions.items():
        pull(f"fission_fraction_{isotope}", width)
    for k in range(len(experiment.reactor.segments_MeV)):
        pull(f"segment_{k + 1}", experiment.reactor.segments_sigma)
    if "energy_scale" not in response:
        pull("energy_scale", s.energy_scale)
    pull("energy_offset_MeV", s.energy_offset_MeV)
    if s.nonlinearity and arrays.nonlinearity is not None and not response:
        for k in range(len(arrays.nonlinearity.pulls)):
            pull(f"nonlinearity_{k + 1}", 1.0)
    for letter, width in zip("abc", () if response else s.resolution, strict=False):
        pull(f"resolution_{letter}", width)
    for background in b:
        width = 0.0 if background.rate_free else background.rate_sigma
        fixed = width == 0 and not background.rate_free
        out.append(Parameter(f"bkg_{background.name}", 0.0, width or None, fixed=fixed))
        pull(f"slope_{background.name}", background.slope_sigma)
    parameters = ParameterSet(out)
    if posterior is not None:
        parameters = _with_posterior(parameters, predictor, posterior, response)
    return within_box(parameters, predictor)


def _density(experiment: Experiment) -> Parameter:
    matter = experiment.matter
    sigma = matter.sigma_g_cm3
    return Parameter(PHYSICS[-1], matter.density_g_cm3, sigma or None, (0.0, 20.0), unit="g/cm$^3$", fixed=sigma == 0)


def _response(experiment: Experiment, predictor: Any, names: Sequence[str]) -> list[Parameter]:
    """Response parameters at their nominal values, fixed; the scale keeps the experiment's prior."""
    values = dict(predictor.nominal()) if names else {}
    if names and experiment.detector is not None and experiment.response.kB_g_cm2_GeV > 0:
        values |= {n: getattr(experiment.response, n) for n in LIGHT}
    width = experiment.systematics.energy_scale
    out = []
    for name in names:
        sigma = width if name == "energy_scale" and width > 0 else None
        out.append(Parameter(name, values[name], sigma, unit=UNITS.get(name, ""), fixed=sigma is None))
    return out


def _with_posterior(
    parameters: ParameterSet, predictor: Any, posterior: ResponsePosterior, response: Sequence[str]
) -> ParameterSet:
    unknown = [n for n in posterior.names if n not in response]
    if unknown:
        known = ", ".join(response) or "none"
        raise NuebarError(
            f"response posterior: {unknown[0]!r} is no response parameter of the {predictor.name} predictor (it takes: "
            f"{known}); use the surrogate, or leave the posterior out"
        )
    for name, value in zip(posterior.names, posterior.mean, strict=True):
        low, high = predictor.box.get(name, (-np.inf, np.inf))
        if not low <= value <= high:
            raise NuebarError(
                f"response posterior: its mean {name} = {value:.6g} is outside the box [{low:.6g}, {high:.6g}] of the "
                f"{predictor.name} predictor; build one with a wider box, or leave the posterior out"
            )
    sigmas = np.sqrt(np.diag(posterior.covariance))
    return parameters.updated(
        **{
            name: {"value": float(value), "sigma": float(sigma), "fixed": False}
            for name, value, sigma in zip(posterior.names, posterior.mean, sigmas, strict=True)
        }
    )


def freed(parameters: ParameterSet, names: Sequence[str]) -> ParameterSet:
    """Some fixed parameters made free, inside their limits.

    Raises:
        NuebarError: A name is unknown.
    """
    return parameters.updated(**{parameters.known(n): {"fixed": False} for n in names})


def within_box(parameters: ParameterSet, predictor: Any) -> ParameterSet:
    """Narrow the limits to the predictor's box, mirrored for the inverted ordering.

    Raises:
        NuebarError: A value lies outside the box, or the predictor knows the normal ordering only.
    """
    box: dict[str, tuple[float, float]] = dict(predictor.box)
    inverted = parameters["dm2_31_eV2"].value < 0
    if inverted and "dm2_31_eV2" in box:
        if not hasattr(predictor, "windows"):
            raise NuebarError(
                f"the {predictor.name} predictor knows the normal ordering only (dm2_31_eV2 from "
                f"{box['dm2_31_eV2'][0]:g} to {box['dm2_31_eV2'][1]:g}); use another predictor for the inverted one"
            )
        box["dm2_31_eV2"] = predictor.windows.inverted()
    predictor.check({n: parameters[n].value for n in predictor.parameter_names})
    changes: dict[str, Any] = {}
    for name, (low, high) in box.items():
        old_low, old_high = parameters[name].bounds
        if inverted and name == "dm2_31_eV2":
            old_low, old_high = None, None  # a file states the normal ordering's limits
        changes[name] = {
            "bounds": (
                low if old_low is None else max(low, old_low),
                high if old_high is None else min(high, old_high),
            )
        }
    return parameters.updated(**changes)
