"""The record of a fit: what was found, whether to trust it, and what it was made with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nuebar.errors import NuebarError

__all__ = ["FitResult", "ParameterResult"]


@dataclass(frozen=True)
class ParameterResult:
    """One fitted parameter. ``error_minus`` and ``error_plus`` come from Minos, else they repeat ``error``.

    Attributes:
        value: Best fit.
        error: Standard deviation from the covariance.
        error_minus: Distance to the lower end of the interval, negative.
        error_plus: Distance to the upper end of the interval, positive.
        fixed: Whether the fit left it alone.
        prior: Centre and width of its prior, if it has one.
        limits: Between which it was fitted; None for an open side.
    """

    value: float
    error: float
    error_minus: float
    error_plus: float
    fixed: bool
    prior: tuple[float, float] | None = None
    limits: tuple[float | None, float | None] = (None, None)

    @property
    def pull(self) -> float | None:
        """(value - centre) / width of the prior."""
        return None if self.prior is None else (self.value - self.prior[0]) / self.prior[1]


@dataclass(frozen=True)
class FitResult:
    """The result of a spectrum fit; look at ``valid`` and ``reason`` first.

    Attributes:
        parameters: Every parameter by name, fixed ones included.
        covariance: Of the free parameters, in the order of ``parameter_order``.
        parameter_order: Names of the free parameters.
        chi2: Minimum of the cost, pull terms included.
        chi2_pulls: The part of it that is pull terms.
        n_bins: Number of bins.
        n_free: Parameters without a prior that were fitted.
        n_calls: Evaluations of the cost.
        n_gradients: Evaluations of its derivatives.
        edm: Estimated distance to the minimum.
        edm_goal: Largest one that counts as converged.
        at_limit: Parameters that ended on a limit.
        valid: Whether the minimum is certified and inside its limits.
        reason: "converged", or what is wrong.
        ordering: "normal" or "inverted".
        predictor: Name of the predictor.
        statistic: Name of the cost.
        derived: Δm²32, Δm²ee and others: name → (value, error).
        blinded: Whether hidden offsets are inside the values.
        experiment: Name of the experiment.
        seed: Seed of the run.
        seconds: Wall time of the fit.
        versions: Of the packages.
    """

    parameters: Mapping[str, ParameterResult]
    covariance: np.ndarray
    parameter_order: tuple[str, ...]
    chi2: float
    chi2_pulls: float
    n_bins: int
    n_free: int
    n_calls: int
    edm: float
    valid: bool
    reason: str
    ordering: str
    predictor: str
    statistic: str
    derived: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    blinded: bool = False
    experiment: str = ""
    seed: int = 0
    seconds: float = 0.0
    versions: Mapping[str, str | None] = field(default_factory=dict)
    n_gradients: int = 0
    edm_goal: float = math.nan
    at_limit: tuple[str, ...] = ()

    @property
    def n_dof(self) -> int:
        """Bins minus free parameters without a prior (a pull adds a datum and a parameter)."""
        return self.n_bins - self.n_free

    @property
    def correlation(self) -> np.ndarray:
        """Correlation matrix of the free parameters."""
        sigma = np.sqrt(np.diag(self.covariance))
        return self.covariance / np.outer(sigma, sigma)

    def values(self) -> dict[str, float]:
        """Best values by name."""
        return {name: p.value for name, p in self.parameters.items()}

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; a covariance or error that does not exist is null."""

        def number(x: float) -> float | None:
            return float(x) if math.isfinite(x) else None

        parameters = {
            name: {
                "value": p.value,
                "error": number(p.error),
                "error_minus": number(p.error_minus),
                "error_plus": number(p.error_plus),
                "fixed": p.fixed,
                "prior": list(p.prior) if p.prior else None,
                "limits": list(p.limits),
            }
            for name, p in self.parameters.items()
        }
        covariance = [[number(x) for x in row] for row in self.covariance]
        return {
            "parameters": parameters,
            "derived": {n: {"value": v, "error": number(e)} for n, (v, e) in self.derived.items()},
            "covariance": covariance,
            "parameter_order": list(self.parameter_order),
            "chi2": self.chi2,
            "chi2_pulls": self.chi2_pulls,
            "n_bins": self.n_bins,
            "n_free": self.n_free,
            "n_dof": self.n_dof,
            "n_calls": self.n_calls,
            "n_gradients": self.n_gradients,
            "edm": number(self.edm),
            "edm_goal": number(self.edm_goal),
            "at_limit": list(self.at_limit),
            "valid": self.valid,
            "reason": self.reason,
            "ordering": self.ordering,
            "predictor": self.predictor,
            "statistic": self.statistic,
            "blinded": self.blinded,
            "experiment": self.experiment,
            "seed": self.seed,
            "seconds": self.seconds,
            "versions": dict(self.versions),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> FitResult:
        """Read the JSON form back.

        Raises:
            NuebarError: A key is missing or has another type.
        """

        def number(x: Any) -> float:
            return math.nan if x is None else float(x)

        try:
            parameters = {
                name: ParameterResult(
                    float(p["value"]),
                    number(p["error"]),
                    number(p["error_minus"]),
                    number(p["error_plus"]),
                    bool(p["fixed"]),
                    (float(p["prior"][0]), float(p["prior"][1])) if p.get("prior") else None,
                    _limits(p.get("limits")),
                )
                for name, p in record["parameters"].items()
            }
            order = tuple(record["parameter_order"])
            covariance = np.array([[number(x) for x in row] for row in record["covariance"]])
            simple = ("chi2", "chi2_pulls", "n_bins", "n_free", "n_calls", "valid", "reason", "ordering",
                      "predictor", "statistic", "blinded", "experiment", "seed", "seconds", "versions")  # fmt: skip
            derived = {n: (float(d["value"]), number(d["error"])) for n, d in record["derived"].items()}
            return cls(
                parameters=parameters,
                covariance=covariance.reshape(len(order), len(order)),
                parameter_order=order,
                derived=derived,
                edm=number(record["edm"]),
                n_gradients=int(record.get("n_gradients", 0)),
                edm_goal=number(record.get("edm_goal")),
                at_limit=tuple(str(n) for n in record.get("at_limit", ())),
                **{key: record[key] for key in simple},
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise NuebarError(f"not a fit result of this format: {type(error).__name__}: {error}") from error

    def shifted(self, offsets: Mapping[str, float]) -> FitResult:
        """A copy with offsets added to values; derived values are the caller's to recompute."""
        parameters = {n: replace(p, value=p.value + offsets.get(n, 0.0)) for n, p in self.parameters.items()}
        return replace(self, parameters=parameters)


def _limits(pair: Any) -> tuple[float | None, float | None]:
    """As in JSON; results of before have none."""
    low, high = pair or (None, None)
    return (None if low is None else float(low), None if high is None else float(high))
