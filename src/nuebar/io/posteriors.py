"""What a calibration knows of the response parameters: means, one covariance and, if drawn, samples, as JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.files import read_json, write_json

__all__ = ["KIND", "ResponsePosterior", "load_posterior", "save_posterior"]

FORMAT = 1
KIND = "response posterior"
MOST_SAMPLES = 2000  # in a file: the percentiles of so many are known to a few per cent of a standard deviation
SYMMETRY = 1e-6  # of the errors: how well the two halves of the covariance must agree


@dataclass(frozen=True, eq=False)
class ResponsePosterior:
    """A Gaussian posterior.

    Attributes:
        names: Parameters, with their units.
        mean: Shape ``(n,)``.
        covariance: Shape ``(n, n)``, symmetric and positive definite.
        provenance: Where it comes from.
        samples: Draws of the posterior, shape ``(draws, n)``, where they are known; mean and covariance may come of
            more of them than are kept.
    """

    names: tuple[str, ...]
    mean: np.ndarray
    covariance: np.ndarray
    provenance: Mapping[str, str] = field(default_factory=dict)
    samples: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Refuse what is no Gaussian."""
        n = len(self.names)
        if not n or len(set(self.names)) < n:
            raise NuebarError(f"response posterior: expected different names, got {', '.join(self.names) or 'none'}")
        mean, covariance = np.asarray(self.mean, float), np.asarray(self.covariance, float)
        if mean.shape != (n,) or covariance.shape != (n, n):
            raise NuebarError(
                f"response posterior: expected {n} means and a covariance of {n} x {n} for {', '.join(self.names)}, "
                f"got shapes {mean.shape} and {covariance.shape}"
            )
        if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(covariance))):
            raise NuebarError("response posterior: expected finite means and covariance, got NaN or infinity")
        variance = np.diag(covariance)
        if not np.all(variance > 0):
            name = self.names[int(np.argmin(variance))]
            raise NuebarError(f"response posterior: expected variances above 0, got {variance.min():g} for {name!r}")
        correlation = covariance / np.sqrt(np.outer(variance, variance))
        if np.abs(correlation - correlation.T).max() > SYMMETRY:
            raise NuebarError("response posterior: expected a symmetric covariance, got another; check its order")
        lowest = float(np.linalg.eigvalsh(correlation).min())
        if not lowest > 0:
            raise NuebarError(
                f"response posterior: expected a positive definite covariance, got an eigenvalue of {lowest:.2g} of "
                "the correlations; check its numbers"
            )
        object.__setattr__(self, "samples", None if self.samples is None else _checked_samples(self.samples, n))
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "covariance", 0.5 * (covariance + covariance.T))


def _checked_samples(samples: np.ndarray, n: int) -> np.ndarray:
    try:
        values = np.array(samples, float)
    except (TypeError, ValueError) as error:
        raise NuebarError(f"response posterior: expected samples as rows of {n} numbers, got {error}") from error
    if values.ndim != 2 or values.shape[1] != n or not len(values):
        raise NuebarError(f"response posterior: expected samples of shape (draws, {n}), got {values.shape}")
    if not np.all(np.isfinite(values)):
        row = int(np.argwhere(~np.isfinite(values))[0, 0])
        raise NuebarError(f"response posterior: expected finite samples, got NaN or infinity in row {row}")
    values.setflags(write=False)
    return values


def _thinned(samples: np.ndarray) -> np.ndarray:
    """At most :data:`MOST_SAMPLES` rows, evenly spaced, so that no chain is favoured."""
    if len(samples) <= MOST_SAMPLES:
        return samples
    return samples[np.linspace(0, len(samples) - 1, MOST_SAMPLES).round().astype(int)]


def save_posterior(path: str | os.PathLike[str], posterior: ResponsePosterior) -> None:
    """Write a posterior in one step.

    Args:
        path: The JSON file.
        posterior: What to write; of its samples, at most 2000 evenly spaced rows are kept.
    """
    write_json(
        path,
        {
            "format": FORMAT,
            "kind": KIND,
            "parameters": list(posterior.names),
            "mean": posterior.mean.tolist(),
            "covariance": posterior.covariance.tolist(),
            "provenance": dict(posterior.provenance),
            **({} if posterior.samples is None else {"samples": _thinned(posterior.samples)}),
        },
    )


def load_posterior(path: str | os.PathLike[str]) -> ResponsePosterior:
    """Read a posterior.

    Args:
        path: As written by :func:`save_posterior`; samples may be missing.

    Returns:
        The checked posterior.

    Raises:
        NuebarError: The file is missing, of another kind or format, or holds no Gaussian.
    """
    record: dict[str, Any] = read_json(path)
    if record.get("kind") != KIND or record.get("format") != FORMAT:
        raise NuebarError(
            f"{path}: expected a {KIND} of format {FORMAT}, got kind {record.get('kind')!r}, format "
            f"{record.get('format')!r}; write one with keys parameters, mean, covariance"
        )
    try:
        names = tuple(str(n) for n in record["parameters"])
        mean = np.array([float(x) for x in record["mean"]])
        covariance = np.array([[float(x) for x in row] for row in record["covariance"]])
        provenance = {str(k): str(v) for k, v in dict(record.get("provenance") or {}).items()}
    except (KeyError, TypeError, ValueError) as error:
        raise NuebarError(
            f"{path}: expected names, means and rows of a covariance, got {type(error).__name__}: {error}; complete it"
        ) from error
    try:
        return ResponsePosterior(names, mean, covariance, provenance, record.get("samples"))
    except NuebarError as error:
        raise NuebarError(f"{Path(path)}: {error}") from error
