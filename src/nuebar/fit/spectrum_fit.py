"""Fit a measured (or Asimov) spectrum with the model of an experiment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import numpy as np
from jax import Array

from nuebar.errors import NuebarError
from nuebar.fit.result import FitResult, ParameterResult
from nuebar.io.results import versions
from nuebar.parameters import ParameterSet
from nuebar.physics.oscillation import ordering
from nuebar.predict.spectrum import SpectrumModel
from nuebar.stats.likelihood import (
    Bound,
    Cost,
    GaussianPulls,
    NeymanCost,
    NeymanPearsonCost,
    PearsonCost,
    PoissonCost,
    Term,
)
from nuebar.stats.minimise import Minimum, Problem, minimise

__all__ = ["SpectrumFit", "impacts", "inverted_start"]

# Any: a cost converts whatever array it gets, which the type of its field does not say.
COSTS: Mapping[str, Callable[[Any], Cost]] = {
    "cnp": NeymanPearsonCost,
    "poisson": PoissonCost,
    "pearson": PearsonCost,
    "neyman": NeymanCost,
}


@dataclass(frozen=True)
class SpectrumFit:
    """Data, model and parameters, ready to be fitted, scanned or profiled.

    Attributes:
        model: Expected counts as a function of all parameters.
        parameters: Values to start from, priors, limits, and which are fixed.
        counts: Observed (or expected) counts per bin, shape ``(bins,)``.
        statistic: "cnp", "poisson", "pearson" or "neyman".
        experiment: Name, for the record.
        seed: Seed, for the record.
    """

    model: SpectrumModel
    parameters: ParameterSet
    counts: np.ndarray
    statistic: str = "cnp"
    experiment: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse data that do not fit the model."""
        if self.statistic not in COSTS:
            raise NuebarError(f"unknown statistic {self.statistic!r}; expected one of {', '.join(COSTS)}")
        bins = len(self.model.edges_MeV) - 1
        if np.shape(self.counts) != (bins,):
            raise NuebarError(f"expected {bins} counts, one per bin, got shape {np.shape(self.counts)}")
        kind = np.asarray(self.counts).dtype
        if kind.kind not in "iuf":
            raise NuebarError(f"expected counts that are real numbers, got an array of {kind}; convert it")
        if self.parameters.names != self.model.names:
            differ = sorted(set(self.parameters.names) ^ set(self.model.names)) or "another order"
            raise NuebarError(
                f"expected the parameters of the model, got others ({differ}); take both from one build_model"
            )
        fine, position = self.model.predictor.edges, np.asarray(self.model.stencil.position)
        inside = fine.size - 1 == self.model.signal_shape.size and position.max() < fine.size
        if not inside or np.any(np.abs(fine[position] - np.array(self.model.edges_MeV)) > 1e-6):
            raise NuebarError(
                f"expected a predictor whose bins contain the {bins + 1} edges of the analysis, got one from "
                f"{fine[0]:g} to {fine[-1]:g} MeV in {fine.size - 1} bins; build it with the model"
            )

    @classmethod
    def asimov(cls, model: SpectrumModel, parameters: ParameterSet, **options: Any) -> SpectrumFit:
        """A fit to the expected counts at the nominal parameters."""
        expected, _ = model(model.vector(parameters.nominal()))
        return cls(model, parameters, np.asarray(expected), **options)

    def problem(self) -> Problem:
        """The cost: the spectrum plus a pull term for every prior of a free parameter."""
        if self.statistic == "poisson" and self.model.shape_uncertainties:
            raise NuebarError(
                "the Poisson statistic has no room for bin-to-bin shape uncertainties; set fit.shape_uncertainties = "
                "false, or choose the statistic cnp or pearson"
            )
        cost = COSTS[self.statistic](self.counts)
        model = _Expected(self.model) if self.statistic == "poisson" else self.model
        term: Term = Bound(cost, model)
        pulled = self.pulled()
        if pulled:
            names = self.parameters.names
            term = term + GaussianPulls(
                np.array([self.parameters[n].value for n in pulled]),
                sigmas=np.array([self.parameters[n].sigma for n in pulled]),
                indices=[names.index(n) for n in pulled],
            )
        return Problem(term)

    def pulled(self) -> tuple[str, ...]:
        """Free parameters with a prior."""
        return tuple(n for n in self.parameters.free if self.parameters[n].sigma is not None)

    def fixing(self, names: Sequence[str]) -> SpectrumFit:
        """A copy in which some parameters are fixed."""
        return replace(self, parameters=self.parameters.updated(**{n: {"fixed": True} for n in names}))

    def minimum(
        self,
        *,
        start: Mapping[str, float] | None = None,
        minos: Sequence[str] = (),
        problem: Problem | None = None,
    ) -> Minimum:
        """Run the minimiser.

        Args:
            start: Values to start from instead of the nominal ones.
            minos: Parameters for asymmetric errors.
            problem: The compiled cost, to reuse one.

        Returns:
            The minimum of :func:`nuebar.stats.minimise.minimise`.
        """
        p = self.parameters
        values = {**p.nominal(), **(start or {})}
        for name in (*(start or {}), *minos):
            p.known(name)
        return minimise(
            problem or self.problem(),
            np.array([values[n] for n in p]),
            names=p.names,
            lower=np.array([-np.inf if q.bounds[0] is None else q.bounds[0] for q in p.values()]),
            upper=np.array([np.inf if q.bounds[1] is None else q.bounds[1] for q in p.values()]),
            fixed=[n for n in p if p[n].fixed],
            errors="minos" if minos else "hesse",
            minos=minos,
        )

    def run(
        self,
        *,
        start: Mapping[str, float] | None = None,
        minos: Sequence[str] = (),
        problem: Problem | None = None,
    ) -> FitResult:
        """Fit, and turn the minimum into a :class:`FitResult`; the arguments are those of :meth:`minimum`."""
        problem = problem or self.problem()
        found = self.minimum(start=start, minos=minos, problem=problem)
        return self.result(found)

    def result(self, found: Minimum) -> FitResult:
        """The record of a minimum."""
        parameters = {}
        for k, (name, p) in enumerate(self.parameters.items()):
            value, error = float(found.values[k]), float(found.errors[k])
            interval = found.minos.get(name)
            minus, plus = (interval.minus, interval.plus) if interval and interval.valid else (-error, error)
            prior = None if p.sigma is None else (p.value, p.sigma)
            parameters[name] = ParameterResult(value, error, minus, plus, p.fixed, prior)
        pulls = sum(q.pull**2 for n, q in parameters.items() if n in self.pulled() and q.pull is not None)
        values = {n: q.value for n, q in parameters.items()}
        return FitResult(
            parameters=parameters,
            covariance=np.asarray(found.covariance),
            parameter_order=tuple(found.free),
            derived=_derived(values, np.asarray(found.covariance), tuple(found.free)),
            chi2=float(found.cost),
            chi2_pulls=float(pulls),
            n_bins=len(self.counts),
            n_free=len(self.parameters.free) - len(self.pulled()),
            n_calls=found.n_calls + found.n_grad_calls,
            edm=float(found.edm),
            valid=found.valid,
            reason=found.reason,
            ordering=ordering(values["dm2_31_eV2"]),
            predictor=self.model.predictor.name,
            statistic=self.statistic,
            experiment=self.experiment,
            seed=self.seed,
            seconds=found.seconds,
            versions=versions(),
        )


class _Expected(eqx.Module):
    """The expected counts alone, for costs that take no extra variance."""

    model: SpectrumModel

    def __call__(self, x: Array) -> Array:
        return self.model(x)[0]


def _derived(
    values: Mapping[str, float], covariance: np.ndarray, order: tuple[str, ...]
) -> dict[str, tuple[float, float]]:
    """Δm²32 and Δm²ee with propagated errors."""
    s12, d21 = values["sin2_th12"], values["dm2_21_eV2"]
    d31 = values["dm2_31_eV2"]
    gradients = {
        "dm2_32_eV2": (d31 - d21, {"dm2_31_eV2": 1.0, "dm2_21_eV2": -1.0}),
        "dm2_ee_eV2": (d31 - s12 * d21, {"dm2_31_eV2": 1.0, "dm2_21_eV2": -s12, "sin2_th12": -d21}),
    }
    out = {}
    for name, (value, gradient) in gradients.items():
        g = np.array([gradient.get(n, 0.0) for n in order])
        out[name] = (float(value), float(np.sqrt(max(g @ covariance @ g, 0.0))))
    return out


def inverted_start(parameters: ParameterSet) -> ParameterSet:
    """Parameters of the inverted ordering with the same Δm²ee, where the two orderings look most alike.

    Args:
        parameters: With Δm²31 > 0.

    Returns:
        A copy with Δm²31 < 0, its prior and limits mirrored accordingly.
    """
    p = parameters["dm2_31_eV2"]
    shift = 2.0 * parameters["sin2_th12"].value * parameters["dm2_21_eV2"].value
    low, high = p.bounds
    mirrored = (None if high is None else -high, None if low is None else -low)
    return parameters.updated(dm2_31_eV2={"value": -p.value + shift, "bounds": mirrored})


def impacts(fit: SpectrumFit, result: FitResult, of: Sequence[str]) -> dict[str, dict[str, float]]:
    """How much each nuisance parameter moves each parameter of interest, in its own unit.

    The impact of ν on θ is cov(θ, ν)/σ_ν: the shift of θ when ν moves by its post-fit error and all else
    is profiled (the linear form of the LHC ranking).

    Args:
        fit: The fit.
        result: Its result.
        of: Parameters of interest.

    Returns:
        Parameter of interest → nuisance parameter → impact, largest first.
    """
    order = list(result.parameter_order)
    sigma = np.sqrt(np.diag(result.covariance))
    out = {}
    for name in of:
        if name not in order:
            raise NuebarError(f"no impact on {name!r}: it is not a free parameter; free: {', '.join(order)}")
        row = result.covariance[order.index(name)] / sigma
        pairs = [(n, float(row[order.index(n)])) for n in fit.pulled() if n != name]
        out[name] = dict(sorted(pairs, key=lambda item: -abs(item[1])))
    return out
