"""What the finite number of Monte Carlo events leaves uncertain in a prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nuebar.errors import NuebarError

__all__ = ["mc_covariance", "scaled_mc", "summed_mc"]


def scaled_mc(relative: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Covariance from a relative one.

    Args:
        relative: Variances of the bins, shape ``(bins,)``, or their covariance, ``(bins, bins)``, over counts².
        counts: Expected counts, shape ``(bins,)``.

    Returns:
        In counts², of the same shape as ``relative``.
    """
    relative, counts = np.asarray(relative, float), np.asarray(counts, float)
    return relative * (counts**2 if relative.ndim == 1 else np.outer(counts, counts))


def mc_covariance(predictor: Any, parameters: Mapping[str, float]) -> np.ndarray:
    """Monte Carlo covariance of a predictor's counts.

    Args:
        predictor: One that has ``mc_covariance(parameters)``, or ``errors(parameters)`` of hard bins.
        parameters: Everything that it takes, by name.

    Returns:
        Variances, shape ``(bins,)``, where bins share no events, else the covariance, ``(bins, bins)``.

    Raises:
        NuebarError: The predictor does not know how many events it was made from.
    """
    if hasattr(predictor, "errors"):
        return np.asarray(predictor.errors(parameters)) ** 2
    found = predictor.mc_covariance(parameters) if hasattr(predictor, "mc_covariance") else None
    if found is None:
        raise NuebarError(
            f"the {predictor.name} predictor does not know its Monte Carlo error; take a harmonic, matrix or reweight "
            "predictor from pairs, a surrogate, or no --mc-error"
        )
    return np.asarray(found)


def summed_mc(covariance: np.ndarray, position: np.ndarray) -> np.ndarray:
    """The covariance of sums of neighbouring bins.

    Args:
        covariance: As from :func:`mc_covariance`.
        position: Indices of the edges that stay, rising, shape ``(edges,)``.
    """
    for axis in range(covariance.ndim):
        cumulative = np.insert(np.cumsum(covariance, axis=axis), 0, 0.0, axis=axis)
        covariance = np.diff(np.take(cumulative, position, axis=axis), axis=axis)
    return covariance
