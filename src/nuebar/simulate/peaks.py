"""Where a peak lies and how wide it is: a Gaussian fitted to the core, as experiments do with calibration data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from nuebar.errors import NuebarError

__all__ = ["Peak", "fit_peak"]


@dataclass(frozen=True)
class Peak:
    """A fitted peak.

    Attributes:
        mean: Centre, in the unit of the data.
        mean_error: Its statistical error.
        sigma: Standard deviation.
        sigma_error: Its statistical error.
        events: Events inside the window of the fit.
        chi2_per_bin: Of the last fit.
    """

    mean: float
    mean_error: float
    sigma: float
    sigma_error: float
    events: int
    chi2_per_bin: float

    @property
    def resolution(self) -> float:
        """σ / mean."""
        return self.sigma / self.mean


def fit_peak(
    values: np.ndarray, guess: float, width: float, *, low: float = 1.5, high: float = 2.0, bins: int = 50
) -> Peak:
    """Fit a Gaussian around a guess, in a window that follows the fit.

    Args:
        values: Charges or energies.
        guess: Where the peak is, roughly.
        width: Its standard deviation, roughly.
        low: Window below the mean, in standard deviations; short, as energy that leaks out makes a tail.
        high: Window above the mean.
        bins: Bins in the window.

    Raises:
        NuebarError: Fewer than 200 events near the guess.
    """
    mean, sigma = float(guess), float(width)
    peak = None
    for _ in range(12):
        edges = np.linspace(mean - low * sigma, mean + high * sigma, bins + 1)
        counts = np.histogram(values, edges)[0].astype(float)
        if counts.sum() < 200:
            raise NuebarError(
                f"fit_peak: expected at least 200 events within {edges[0]:.4g} to {edges[-1]:.4g}, got "
                f"{int(counts.sum())}; simulate more or move the guess"
            )
        peak = _gauss(edges, counts, mean, sigma)
        done = abs(peak.mean - mean) < 1e-4 * sigma and abs(peak.sigma - sigma) < 1e-4 * sigma
        mean, sigma = peak.mean, float(np.clip(peak.sigma, 0.3 * sigma, 3.0 * sigma))
        if done:
            break
    assert peak is not None
    return peak


def _gauss(edges: np.ndarray, counts: np.ndarray, mean: float, sigma: float) -> Peak:
    centres = 0.5 * (edges[1:] + edges[:-1])
    error = np.sqrt(np.maximum(counts, 1.0))

    def residuals(p: np.ndarray) -> np.ndarray:
        z = (centres - mean - sigma * p[1]) / (sigma * np.exp(p[2]))
        return (np.exp(p[0] - 0.5 * z * z) - counts) / error

    fit = least_squares(residuals, [np.log(counts.max()), 0.0, 0.0], method="lm")
    covariance = np.linalg.inv(fit.jac.T @ fit.jac)
    new = sigma * float(np.exp(fit.x[2]))
    return Peak(
        mean + sigma * float(fit.x[1]),
        sigma * float(np.sqrt(covariance[1, 1])),
        new,
        new * float(np.sqrt(covariance[2, 2])),
        int(counts.sum()),
        2 * fit.cost / len(counts),
    )
