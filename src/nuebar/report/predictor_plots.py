"""Figures of predictors beside their reference: relative differences in stacked panels, and one spectrum with its own.

As in :mod:`nuebar.report.plots`, functions take plain arrays, give a matplotlib ``Figure`` and leave matplotlib's
settings alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.report.plots import BLUE, GREY, LINES, PALE, RED, _array, _figure, _heading, _histogram, _styled

if TYPE_CHECKING:
    from nuebar.report.plots import Axes, Figure

__all__ = ["Panel", "network_example", "relative_differences"]

SIGNIFICANT = 1e-4  # of the spectrum's sum: in smaller bins a relative difference says nothing
PANEL_IN = 0.95
MOST_PANELS = 20
MINUS = "−"


@dataclass(frozen=True, eq=False)
class Panel:
    """One predictor at one point.

    Attributes:
        title: Written into the panel.
        truth: Counts per bin, shape ``(bins,)``.
        predicted: What the predictor says.
    """

    title: str
    truth: np.ndarray
    predicted: np.ndarray


@_styled
def relative_differences(
    edges_MeV: ArrayLike,
    panels: Sequence[Panel],
    *,
    monte_carlo: ArrayLike | None = None,
    title: str = "",
    xlabel: str = "Reconstructed energy [MeV]",
) -> Figure:
    """Relative difference of each predictor to its truth, a panel with its own scale for each, one axis of energy.

    Args:
        edges_MeV: Bin edges, shape ``(bins + 1,)``.
        panels: Predictors, from top to bottom.
        monte_carlo: Relative standard error of the Monte Carlo in every bin, for a panel of its own below.
        title: Text above the first panel.
        xlabel: Name of the energy with its unit.

    Returns:
        The figure.

    Raises:
        NuebarError: A shape is wrong, a number is not finite, or there is nothing to draw.
    """
    if not 1 <= len(panels) <= MOST_PANELS:
        raise NuebarError(f"expected 1 to {MOST_PANELS} predictors to draw, got {len(panels)}; choose some")
    count = len(panels) + (monte_carlo is not None)
    figure = _figure(PANEL_IN * count + 0.9)
    figure.set_layout_engine("constrained", h_pad=0.02, hspace=0.0)
    axes: list[Axes] = list(np.ravel(figure.subplots(count, 1, sharex=True, squeeze=False)))
    for k, (ax, panel) in enumerate(zip(axes, panels, strict=False)):
        edges, truth = _histogram(edges_MeV, panel.truth, f"truth of {panel.title!r}")
        predicted = _array(panel.predicted, f"prediction {panel.title!r}")
        if predicted.shape != truth.shape:
            raise NuebarError(f"prediction {panel.title!r}: expected {truth.size} counts, got shape {predicted.shape}")
        difference = _relative(truth, predicted)
        power = _power(difference)
        ax.axhline(0.0, color=GREY, linewidth=0.8)
        colour = LINES[k % len(LINES)]
        ax.stairs(difference / 10.0**power, edges, baseline=None, color=colour, linewidth=1.0)
        _settle(ax, panel.title, difference, power)
    if monte_carlo is not None:
        edges, error = _histogram(edges_MeV, monte_carlo, "monte_carlo")
        error = np.where(_significant(panels[0].truth), error, np.nan)
        power = _power(error)
        scaled = np.nan_to_num(error / 10.0**power)
        axes[-1].stairs(scaled, edges, baseline=-scaled, fill=True, color=PALE)
        axes[-1].axhline(0.0, color=GREY, linewidth=0.8)
        _settle(axes[-1], "Statistical error of the Monte Carlo", error, power)
    axes[-1].set(xlabel=xlabel, xlim=(edges[0], edges[-1]))
    figure.supylabel(f"Prediction / truth {MINUS} 1", fontsize=11.5)
    _heading(axes[0], title, "")
    return figure


def _relative(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Relative difference where the truth is large enough to speak of one; gaps elsewhere."""
    good = _significant(truth)
    return np.where(good, predicted / np.where(good, truth, 1.0) - 1.0, np.nan)


def _significant(truth: np.ndarray) -> np.ndarray:
    return np.asarray(truth > SIGNIFICANT * truth.sum())


def _power(values: np.ndarray) -> int:
    """Power of ten that brings the largest value to 1 … 10."""
    largest = float(np.nanmax(np.abs(values))) if np.any(np.isfinite(values)) else 0.0
    return math.floor(math.log10(largest)) if largest > 0 else 0


def _settle(ax: Axes, title: str, values: np.ndarray, power: int) -> None:
    """Limits around zero, with room for the title and the unit of the numbers."""
    largest = float(np.nanmax(np.abs(values))) / 10.0**power if np.any(np.isfinite(values)) else 1.0
    limit = 1.15 * largest if largest > 0 else 1.0
    ax.set_ylim(-limit, 1.7 * limit)
    unit = rf"  [$10^{{{power}}}$]" if power else ""
    ax.text(0.012, 0.93, f"{title}{unit}", transform=ax.transAxes, va="top", ha="left", fontsize=9.5)
    ax.tick_params(axis="y", labelsize=9)
    ax.locator_params(axis="y", nbins=4)


@_styled
def network_example(
    edges_MeV: ArrayLike,
    truth: ArrayLike,
    predicted: ArrayLike,
    *,
    title: str = "",
    xlabel: str = "Reconstructed energy [MeV]",
) -> Figure:
    """A predicted spectrum (blue) on the true one (red), and their relative difference below.

    Args:
        edges_MeV: Bin edges, shape ``(bins + 1,)``.
        truth: Counts per bin, shape ``(bins,)``.
        predicted: Same shape.
        title: Text above the axes.
        xlabel: Name of the energy with its unit.

    Returns:
        The figure.

    Raises:
        NuebarError: A shape is wrong or a number is not finite.
    """
    edges, t = _histogram(edges_MeV, truth, "truth")
    s = _array(predicted, "predicted")
    if s.shape != t.shape:
        raise NuebarError(f"predicted: expected {t.size} counts, one per bin, got shape {s.shape}")
    figure = _figure(5.2)
    figure.set_layout_engine("constrained", h_pad=0.03, hspace=0.0)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1.2])
    width = float(np.mean(np.diff(edges)))
    density = width / np.diff(edges)
    upper.stairs(t * density, edges, baseline=None, color=RED, linewidth=2.4, label="Truth")
    upper.stairs(s * density, edges, baseline=None, color=BLUE, linewidth=1.0, label="Prediction")
    upper.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.08 * max(float((t * density).max()), 1e-300)))
    upper.set_ylabel(f"Events per {1e3 * width:.3g} keV")
    upper.legend(loc="upper right")
    _heading(upper, title, "simulated")
    difference = 100.0 * _relative(t, s)
    lower.axhline(0.0, color=GREY, linewidth=0.8)
    lower.stairs(difference, edges, baseline=None, color=BLUE, linewidth=1.0)
    lower.set(xlabel=xlabel, ylabel="Difference [%]")
    figure.align_ylabels([upper, lower])
    return figure
