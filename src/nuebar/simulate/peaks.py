"""Where a peak lies and how wide it is: a Gaussian fitted to the core, as experiments do with calibration data.

The fit is the maximum likelihood of Poisson counts, so that bins of few events do not pull it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nuebar.errors import NuebarError

__all__ = ["Peak", "fit_peak"]

_MOST_STEPS = 50


@dataclass(frozen=True)
class Peak:
    """A fitted peak.

    Attributes:
        mean: Centre, in the unit of the data.
        mean_error: Its statistical error.
        sigma: Standard deviation.
        sigma_error: Its statistical error.
        events: Events inside the window of the fit.
        chi2_per_bin: Pearson's χ² of the last fit over the number of bins.
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

    Returns:
        Position and width with their errors.

    Raises:
        NuebarError: The width is not positive, fewer than 200 events lie near the guess, or the window runs away.
    """
    mean, sigma = float(guess), float(width)
    if not (np.isfinite(mean) and np.isfinite(sigma) and sigma > 0):
        raise NuebarError(f"fit_peak: expected a finite guess and a positive width, got {guess} and {width}")
    for _ in range(12):
        edges = np.linspace(mean - low * sigma, mean + high * sigma, bins + 1)
        counts = np.histogram(values, edges)[0].astype(float)
        if counts.sum() < 200:
            raise NuebarError(
                f"fit_peak: expected at least 200 events within {edges[0]:.4g} to {edges[-1]:.4g}, got "
                f"{int(counts.sum())}; simulate more or move the guess"
            )
        peak = _gauss(edges, counts, mean, sigma)
        moved = max(abs(peak.mean - mean), abs(peak.sigma - sigma)) / sigma
        mean, sigma = peak.mean, float(np.clip(peak.sigma, 0.3 * sigma, 3.0 * sigma))
        if moved < 1e-4:
            break
    if not moved < 0.3:  # a window is binned anew each time: a peak of few events goes on moving a little
        raise NuebarError(
            f"fit_peak: expected a peak near {guess:.4g} of width {width:.4g}, found none that stays where it is; "
            "look at the data and give another guess"
        )
    return peak


def _gauss(edges: np.ndarray, counts: np.ndarray, mean: float, sigma: float) -> Peak:
    """Fisher scoring for the logarithms of height and width and the place, in units of the width."""
    x = (0.5 * (edges[1:] + edges[:-1]) - mean) / sigma
    p = np.array([np.log(counts.max()), 0.0, 0.0])
    for _ in range(_MOST_STEPS):
        z = (x - p[1]) * np.exp(-p[2])
        expected = np.exp(p[0] - 0.5 * z * z)
        slope = np.array([np.ones_like(z), z * np.exp(-p[2]), z * z])
        covariance = np.linalg.pinv((slope * expected) @ slope.T)
        step = covariance @ (slope @ (counts - expected))
        p = np.clip(p + np.clip(step, -0.5, 0.5), [0.0, -3.0, -3.0], [np.inf, 3.0, 3.0])
        if np.abs(step).max() < 1e-9:
            break
    new = sigma * float(np.exp(p[2]))
    return Peak(
        mean + sigma * float(p[1]),
        sigma * float(np.sqrt(covariance[1, 1])),
        new,
        new * float(np.sqrt(covariance[2, 2])),
        int(counts.sum()),
        float(np.mean((counts - expected) ** 2 / np.maximum(expected, 1e-9))),
    )
