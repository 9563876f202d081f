"""The record of a tuning: what calibration data say of the response parameters, and whether to trust it, as JSON."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.posteriors import ResponsePosterior
from nuebar.io.results import load_result, save_result

__all__ = ["KIND", "Goodness", "SourceGoodness", "TuningResult", "load_tuning", "save_tuning"]

KIND = "response tuning"


@dataclass(frozen=True)
class SourceGoodness:
    """How well one source is described; every p-value is calibrated with replicas.

    Attributes:
        source: Its name.
        events: In the range of the bins.
        n_bins: After merging to 5 expected events or more.
        deviance: Poisson's, of the merged bins, at the best fit.
        p_deviance: Probability of a larger one.
        local: Signed significance of the window that differs most, as if it had been the only one.
        local_range: That window in units of the observable.
        p_local: Probability of a larger one anywhere.
        distance: Kolmogorov and Smirnov's, times √events.
        p_distance: Probability of a larger one.
    """

    source: str
    events: int
    n_bins: int
    deviance: float
    p_deviance: float
    local: float
    local_range: tuple[float, float]
    p_local: float
    distance: float
    p_distance: float

    @property
    def p_value(self) -> float:
        """The smallest of the three, with Šidák's correction for having looked at three."""
        return float(-np.expm1(3.0 * np.log1p(-min(self.p_deviance, self.p_local, self.p_distance, 1 - 1e-16))))


@dataclass(frozen=True)
class Goodness:
    """How well the best fit describes all data.

    Attributes:
        sources: One by one.
        deviance: Sum over the sources.
        n_dof: Merged bins less fitted parameters and norms; for orientation, as replicas give the p-values.
        p_deviance: Of the sum.
        p_value: Family-wise: probability that data of the model have a smaller p-value in any of the tests.
        n_replicas: Simulated data sets.
    """

    sources: tuple[SourceGoodness, ...]
    deviance: float
    n_dof: int
    p_deviance: float
    p_value: float
    n_replicas: int


@dataclass(frozen=True, eq=False)
class TuningResult:
    """What was found; look at ``valid``, ``reason`` and ``warnings`` first.

    Attributes:
        names: The response parameters, the order of every vector here.
        best: Where ln L (with the priors) is highest.
        errors: Standard deviations: of the Hessian for minuit, of the samples else.
        minos: Asymmetric errors (minus, plus) by name; NaN where an end was not found; empty if not asked for.
        mean: Of the samples; the best fit for minuit.
        covariance: Of the samples, or twice the inverse Hessian of -2 ln L. It knows nothing of the box in the
            latter case.
        samples: Draws of the posterior, or None for minuit.
        norms: Relative norms of the sources at the best fit.
        norm_errors: Their standard deviations.
        at_limit: Parameters and norms whose best value is on the edge of its range.
        limits: Of the response parameters.
        log_likelihood: Highest ln L without the constants that :mod:`nuebar.tune.likelihood` leaves out.
        method: minuit, nuts or nested.
        unbinned: Whether single charges were used.
        norm_treatment: closed or free.
        density: Its name.
        density_provenance: What it was trained on.
        data: Sources and their events.
        seed: Of samples and replicas.
        valid: Whether minimum and samples are what they should be.
        reason: "converged", or what is wrong.
        goodness: Of the best fit; None if not asked for.
        warnings: Plain sentences.
        log_evidence: ln Z of nested sampling with flat densities on the box; else NaN.
        effective: Smallest effective number of samples; NaN for minuit.
        r_hat: Largest of the chains; NaN unless nuts.
        interpolation_error: Largest |Δ ln L| of the interpolant at posterior samples; NaN where none was used.
        n_calls: Evaluations of the table of the density, direct ones of the sampler included.
        n_gradients: Those of them with derivatives.
        seconds: Wall time.
        versions: Of the packages.
    """

    names: tuple[str, ...]
    best: Mapping[str, float]
    errors: Mapping[str, float]
    minos: Mapping[str, tuple[float, float]]
    mean: np.ndarray
    covariance: np.ndarray
    samples: np.ndarray | None
    norms: Mapping[str, float]
    norm_errors: Mapping[str, float]
    at_limit: tuple[str, ...]
    limits: Mapping[str, tuple[float, float]]
    log_likelihood: float
    method: str
    unbinned: bool
    norm_treatment: str
    density: str
    density_provenance: Mapping[str, str]
    data: Mapping[str, int]
    seed: int
    valid: bool
    reason: str
    goodness: Goodness | None = None
    warnings: tuple[str, ...] = ()
    log_evidence: float = math.nan
    effective: float = math.nan
    r_hat: float = math.nan
    interpolation_error: float = math.nan
    n_calls: int = 0
    n_gradients: int = 0
    seconds: float = 0.0
    versions: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def correlation(self) -> np.ndarray:
        """Correlation matrix of the response parameters."""
        sigma = np.sqrt(np.diag(self.covariance))
        return self.covariance / np.outer(sigma, sigma)

    def to_posterior(self) -> ResponsePosterior:
        """Mean and covariance of the samples, or best fit and Hessian, for the spectrum fit.

        Raises:
            NuebarError: The covariance is none, as after a fit that is not valid.
        """
        provenance = {
            "method": self.method,
            "likelihood": "unbinned" if self.unbinned else "binned",
            "norms": self.norm_treatment,
            "density": self.density,
            "data": ", ".join(f"{source}: {n}" for source, n in self.data.items()),
            "seed": str(self.seed),
            "valid": "yes" if self.valid else f"no: {self.reason}",
            "warnings": " | ".join(self.warnings),
            **{f"density {key}": str(value) for key, value in self.density_provenance.items()},
            **{f"version {key}": str(value) for key, value in self.versions.items()},
        }
        return ResponsePosterior(self.names, self.mean, self.covariance, provenance, self.samples)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; a number that does not exist is null."""
        return {"kind": KIND, **_plain({k: getattr(self, k) for k in self.__dataclass_fields__})}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> TuningResult:
        """Read the JSON form back.

        Raises:
            NuebarError: It is of another kind, or a key is missing or has another type.
        """
        if record.get("kind") != KIND:
            raise NuebarError(f"expected a {KIND}, got kind {record.get('kind')!r}")
        try:
            n = len(record["names"])
            samples = record["samples"]
            fields: dict[str, Any] = {
                "names": tuple(str(x) for x in record["names"]),
                "best": _numbers(record["best"]),
                "errors": _numbers(record["errors"]),
                **{k: {n: (_number(a), _number(b)) for n, (a, b) in record[k].items()} for k in ("minos", "limits")},
                "mean": np.array([_number(x) for x in record["mean"]]),
                "covariance": np.array([[_number(x) for x in row] for row in record["covariance"]]).reshape(n, n),
                "samples": None if samples is None else np.array(samples, float).reshape(-1, n),
                "norms": _numbers(record["norms"]),
                "norm_errors": _numbers(record["norm_errors"]),
                "goodness": _goodness(record["goodness"]),
                "at_limit": tuple(str(x) for x in record["at_limit"]),
                "warnings": tuple(str(x) for x in record["warnings"]),
                "data": {str(k): int(v) for k, v in record["data"].items()},
                **{k: str(record[k]) for k in ("method", "norm_treatment", "density", "reason")},
                **{k: bool(record[k]) for k in ("unbinned", "valid")},
                **{k: int(record[k]) for k in ("seed", "n_calls", "n_gradients")},
                **{k: _number(record[k]) for k in _FLOATS},
                **{k: dict(record[k]) for k in ("density_provenance", "versions")},
            }
            return cls(**fields)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise NuebarError(f"not a {KIND} of this format: {type(error).__name__}: {error}") from error


_FLOATS = ("log_likelihood", "log_evidence", "effective", "r_hat", "interpolation_error", "seconds")


def save_tuning(path: str | os.PathLike[str], result: TuningResult) -> None:
    """Write a tuning in one step, all samples included.

    Args:
        path: The JSON file.
        result: What to write.
    """
    save_result(path, result.to_dict())


def load_tuning(path: str | os.PathLike[str]) -> TuningResult:
    """Read a tuning.

    Args:
        path: As written by :func:`save_tuning`.

    Returns:
        The result with its samples.

    Raises:
        NuebarError: The file is missing, of another kind or format, or incomplete.
    """
    record = load_result(path)
    try:
        return TuningResult.from_dict(record)
    except NuebarError as error:
        raise NuebarError(f"{path}: {error}") from error


def _goodness(record: Mapping[str, Any] | None) -> Goodness | None:
    if record is None:
        return None
    sources = tuple(
        SourceGoodness(**{**s, "local_range": tuple(float(x) for x in s["local_range"])}) for s in record["sources"]
    )
    return Goodness(**{**record, "sources": sources})


def _number(x: Any) -> float:
    return math.nan if x is None else float(x)


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {str(k): _number(v) for k, v in record.items()}


def _plain(value: Any) -> Any:
    """JSON's own types, null for what is not finite."""
    if isinstance(value, Goodness):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
