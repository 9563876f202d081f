"""Counts of backgrounds in the bins of an analysis, and the bin-to-bin uncertainty of the signal."""

from __future__ import annotations

from typing import Any

import numpy as np

from nuebar.config import Experiment
from nuebar.errors import NuebarError
from nuebar.io.histograms import Histogram
from nuebar.io.releases import CommonInputs, Juno2025Release, read_spectrum, read_table
from nuebar.physics.backgrounds import SHAPES
from nuebar.predict.signal import SignalInputs

__all__ = ["background_counts", "lever", "rebin", "signal_shape"]


def rebin(histogram: Histogram, edges_MeV: np.ndarray) -> np.ndarray:
    """Counts in other bins, each bin of the histogram taken as flat; what lies outside is dropped."""
    with np.errstate(over="ignore", invalid="ignore"):  # whoever normalises refuses what is not finite
        cumulative = np.concatenate([[0.0], np.cumsum(histogram.counts)])
        return np.diff(np.interp(edges_MeV, histogram.edges, cumulative))


def background_counts(
    experiment: Experiment,
    background: Any,
    edges: np.ndarray,
    arrays: SignalInputs,
    release: Juno2025Release | None,
    inputs: CommonInputs | None,
) -> np.ndarray:
    """Counts per bin of one background at its nominal rate, which belongs to the experiment's own range.

    Args:
        experiment: Rates and shapes.
        background: One of its backgrounds.
        edges: Bins of the analysis, shape ``(bins + 1,)``; those of the experiment or others.
        arrays: The curve of the non-linearity.
        release: A release whose shapes may be used.
        inputs: JUNO's common inputs, likewise.
    """
    total = background.rate_per_day * experiment.exposure.days
    where = f"{experiment.source or experiment.name}: key 'backgrounds.{background.name}.shape'"
    own = np.array(experiment.binning.edges())
    if own.shape == edges.shape and np.allclose(own, edges, rtol=0.0, atol=1e-9):
        return total * _fractions(experiment, background, edges, arrays, release, inputs, where)
    ends = [e for e in own[[0, -1]] if np.abs(edges - e).min() > 1e-9]
    wide = np.sort(np.concatenate([edges, ends]))
    counts = _fractions(experiment, background, wide, arrays, release, inputs, where)
    inside = (wide[:-1] > own[0] - 1e-6) & (wide[1:] < own[-1] + 1e-6)
    cumulative = np.concatenate([[0.0], np.cumsum(counts)])
    return np.diff(cumulative[np.searchsorted(wide, edges - 1e-9)]) * total / counts[inside].sum()


def _fractions(
    experiment: Experiment,
    background: Any,
    edges: np.ndarray,
    arrays: SignalInputs,
    release: Juno2025Release | None,
    inputs: CommonInputs | None,
    where: str,
) -> np.ndarray:
    """Bin fractions of a background, with the sum 1."""
    if release is not None and experiment.release.backgrounds and background.name in release.backgrounds:
        given = release.backgrounds[background.name]
        same = release.edges_MeV.shape == edges.shape and np.allclose(release.edges_MeV, edges, rtol=0.0, atol=1e-6)
        return _normalised(given if same else rebin(Histogram(release.edges_MeV, given), edges), where)
    if inputs is not None and background.name in ("geoneutrinos", *inputs.backgrounds):
        parts = ("geoneutrinos_U", "geoneutrinos_Th") if background.name == "geoneutrinos" else (background.name,)
        counts = sum(rebin(inputs.backgrounds[p], edges) for p in parts)
        return _normalised(np.asarray(counts), where)
    return _shape(experiment, background, edges, arrays, where)


def _shape(experiment: Experiment, background: Any, edges: np.ndarray, arrays: SignalInputs, where: str) -> np.ndarray:
    """Bin fractions of a background from the built-in shapes or a user's histogram."""
    shape = background.shape
    if isinstance(shape, str) and shape not in SHAPES:
        return _normalised(rebin(read_spectrum(experiment.table(shape)), edges), where)
    weights = {shape: 1.0} if isinstance(shape, str) else shape
    unknown = [n for n in weights if n not in SHAPES]
    if unknown:
        raise NuebarError(
            f"{where}: unknown shape {unknown[0]!r}; expected some of {', '.join(SHAPES)}, or the path of a histogram"
        )
    a, b, c = experiment.response.resolution
    # The shapes are in deposited energy; the positron curve is what the reconstructed energy knows.
    response = None if arrays.nonlinearity is None else arrays.nonlinearity.visible
    try:
        total = sum(w * np.asarray(SHAPES[n](edges, (a, b, c), response=response)) for n, w in weights.items())
    except NuebarError as error:
        raise NuebarError(f"{where}: {error}") from error
    return _normalised(np.asarray(total), where)


def _normalised(counts: np.ndarray, where: str) -> np.ndarray:
    total = counts.sum()
    if not 0 < total < np.inf:
        raise NuebarError(
            f"{where}: expected a histogram with a finite, positive content in the analysis range, got {total:g}; "
            "check its edges and counts"
        )
    return counts / total


def lever(counts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Energy minus the mean energy of each background: a tilt that keeps the rate."""
    centre = 0.5 * (edges[1:] + edges[:-1])
    total = counts.sum(axis=1, keepdims=True)
    mean = (counts @ centre)[:, None] / np.where(total > 0, total, 1.0)
    return centre - mean


def signal_shape(experiment: Experiment, fine_edges: np.ndarray, inputs: CommonInputs | None) -> np.ndarray:
    """Relative bin-to-bin uncertainty of the signal in each fine bin.

    Args:
        experiment: Names the table of the uncertainty.
        fine_edges: Fine bins in MeV, shape ``(fine bins + 1,)``.
        inputs: JUNO's common inputs, which replace the table.

    Returns:
        Relative standard deviations, shape ``(fine bins,)``; zeros if there is none.

    Raises:
        NuebarError: The table is damaged, or does not cover the bins.
    """
    s = experiment.systematics
    centre = 0.5 * (fine_edges[1:] + fine_edges[:-1])
    if s.spectrum_shape == "none":
        return np.zeros_like(centre)
    if inputs is not None and s.spectrum_shape == "tao_shape.csv":
        tao = inputs.shape_uncertainties["tao"]
        relative = np.interp(centre, 0.5 * (tao.edges[1:] + tao.edges[:-1]), tao.counts)
    else:
        path = experiment.table(s.spectrum_shape)
        energy, error = read_table(path, ("e_MeV", "relative"))
        if np.any(np.diff(energy) <= 0) or np.any((error < 0) | (error > 100)):
            raise NuebarError(f"{path}: expected e_MeV that increases and relative from 0 to 100 in every row")
        relative = np.interp(centre, energy, error)
    # Uncorrelated between bins of the reference width: narrower bins fluctuate more.
    return relative * np.sqrt(s.spectrum_shape_width_MeV / np.diff(fine_edges))
