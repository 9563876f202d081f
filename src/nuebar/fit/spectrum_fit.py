"""Fit a measured (or Asimov) spectrum with the model of an experiment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import Array

from nuebar.errors import NuebarError
from nuebar.fit.result import FitResult, ParameterResult
from nuebar.io.results import versions
from nuebar.parameters import ParameterSet
from nuebar.physics.oscillation import ordering
from nuebar.predict.spectrum import SpectrumModel
from nuebar.stats.likelihood import (
    BarlowBeestonCost,
    Bound,
    Cost,
    CovarianceCost,
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
    "barlow-beeston": BarlowBeestonCost,
    "pearson": PearsonCost,
    "neyman": NeymanCost,
}

EDM_GOAL = 1e-5  # largest estimated distance to the minimum that counts as converged, in units of χ²
START_INSIDE = 0.1  # of the allowed range


@dataclass(frozen=True)
class SpectrumFit:
    """Data, model and parameters, ready to be fitted, scanned or profiled.

    Attributes:
        model: Expected counts as a function of all parameters.
        parameters: Values to start from, priors, limits, and which are fixed.
        counts: Observed (or expected) counts per bin, shape ``(bins,)``.
        statistic: "cnp", "poisson", "barlow-beeston", "pearson" or "neyman".
        experiment: Name, for the record.
        seed: Seed, for the record.
        mc_covariance: What the finite number of Monte Carlo events adds to the covariance of the counts: variances,
            shape ``(bins,)``, or all of it, ``(bins, bins)``. With all of it the statistical and shape variances are
            those at the nominal parameters. The statistic "barlow-beeston" has one unknown expectation per bin and no
            likelihood of several together: it takes the diagonal and drops the correlations between bins, so an error
            that they share is counted as if it averaged out.
        edm_goal: Largest estimated distance to the minimum that counts as converged, in units of χ².
    """

    model: SpectrumModel
    parameters: ParameterSet
    counts: np.ndarray
    statistic: str = "cnp"
    experiment: str = ""
    seed: int = 0
    mc_covariance: np.ndarray | None = None
    edm_goal: float = EDM_GOAL

    def __post_init__(self) -> None:
        """Refuse data that do not fit the model."""
        if self.statistic not in COSTS:
            raise NuebarError(f"unknown statistic {self.statistic!r}; expected one of {', '.join(COSTS)}")
        bins = len(self.model.edges_MeV) - 1
        if np.shape(self.counts) != (bins,):
            raise NuebarError(f"expected {bins} counts, one per bin, got shape {np.shape(self.counts)}")
        extra = self.mc_covariance
        if extra is not None and np.shape(extra) not in ((bins,), (bins, bins)):
            raise NuebarError(f"expected a Monte Carlo covariance of {bins} bins, got shape {np.shape(extra)}")
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
        if self.statistic == "poisson" and (self.model.shape_uncertainties or self.mc_covariance is not None):
            what = "bin-to-bin shape uncertainties" if self.mc_covariance is None else "an error of the Monte Carlo"
            raise NuebarError(
                f"the Poisson statistic has no room for {what}; set fit.shape_uncertainties = false and leave "
                "--mc-error out, or choose the statistic barlow-beeston, cnp or pearson"
            )
        term: Term = self._data_term()
        names, joint = self.parameters.names, self.model.prior
        pulled = [n for n in self.pulled() if n not in joint.names]
        if pulled:
            term = term + GaussianPulls(
                np.array([self.parameters[n].value for n in pulled]),
                sigmas=np.array([self.parameters[n].sigma for n in pulled]),
                indices=[names.index(n) for n in pulled],
            )
        if set(joint.names) & set(self.parameters.free):  # those that are fixed narrow the others
            indices = [names.index(n) for n in joint.names]
            term = term + GaussianPulls(joint.mean, covariance=joint.covariance, indices=indices)
        return Problem(term)

    def _data_term(self) -> Term:
        """The spectrum alone."""
        cost = COSTS[self.statistic](self.counts)
        if self.mc_covariance is None:
            return Bound(cost, _Expected(self.model) if self.statistic == "poisson" else self.model)
        extra = np.asarray(self.mc_covariance, dtype=float)
        if self.statistic == "barlow-beeston" and extra.ndim == 2:
            extra = np.diag(extra).copy()
        if extra.ndim == 1:
            return Bound(cost, _Widened(self.model, jax.device_put(extra)))
        expected, variance = self.model(self.model.vector(self.parameters.nominal()))
        statistical = np.asarray(cost.variance(expected, variance))
        return Bound(CovarianceCost(self.counts, extra + np.diag(statistical)), _Expected(self.model))

    def _mc_words(self) -> str:
        """What the record says of the Monte Carlo error."""
        if self.mc_covariance is None:
            return ""
        dropped = self.statistic == "barlow-beeston" and np.ndim(self.mc_covariance) == 2
        return " + MC error" + (" without correlations" if dropped else "")

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
        values = {**_off_limits(p), **(start or {})}
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
            tol=self.edm_goal,
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
            limits = (None, None) if p.fixed else p.bounds
            parameters[name] = ParameterResult(value, error, minus, plus, p.fixed, prior, limits)
        joint = self.model.prior
        single = [n for n in self.pulled() if n not in joint.names]
        pulls = float(sum((parameters[n].pull or 0.0) ** 2 for n in single))
        if set(joint.names) & set(self.parameters.free):
            pulls += joint.chi2([parameters[n].value for n in joint.names])
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
            n_calls=found.n_calls,
            n_gradients=found.n_grad_calls,
            edm=float(found.edm),
            edm_goal=self.edm_goal,
            at_limit=tuple(found.at_limit),
            valid=found.valid,
            reason=found.reason,
            ordering=ordering(values["dm2_31_eV2"]),
            predictor=self.model.predictor.name,
            statistic=self.statistic + self._mc_words(),
            experiment=self.experiment,
            seed=self.seed,
            seconds=found.seconds,
            versions=versions(),
        )


def _off_limits(parameters: ParameterSet) -> dict[str, float]:
    """Values to start from: what lies on one of its two limits moves inside, where the cost has a slope."""
    out = parameters.nominal()
    for name in parameters.free:
        low, high = parameters[name].bounds
        if low is not None and high is not None and out[name] in (low, high):
            out[name] += START_INSIDE * (high - low) * (1.0 if out[name] == low else -1.0)
    return out


class _Expected(eqx.Module):
    """The expected counts alone, for costs that take no extra variance."""

    model: SpectrumModel

    def __call__(self, x: Array) -> Array:
        return self.model(x)[0]


class _Widened(eqx.Module):
    """The expected counts with a constant added to their variance."""

    model: SpectrumModel
    variance: Array

    def __call__(self, x: Array) -> tuple[Array, Array]:
        expected, variance = self.model(x)
        return expected, variance + self.variance


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

    Raises:
        NuebarError: A parameter of interest is not free.
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
