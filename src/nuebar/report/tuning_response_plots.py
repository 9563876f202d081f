"""Figures of what the response parameters do to calibration spectra: peaks as they change, and the non-linearity.

As in :mod:`nuebar.report.plots`, functions give a matplotlib ``Figure``, read no file and leave matplotlib's settings
alone. Tables and records go in; :func:`scan_density` and :func:`peak_series` make them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.report.plots import BLUE, DASHES, GREEN, GREY, RED, _array, _figure, _heading, _styled
from nuebar.report.simulation_plots import _sequence
from nuebar.report.tuning_plots import XLABEL, source_name
from nuebar.report.tuning_release_plots import _label
from nuebar.tune.data import CalibrationData
from nuebar.tune.density import RESPONSE, Density, source_index
from nuebar.tune.train import probabilities_of

if TYPE_CHECKING:
    from nuebar.report.plots import Axes, Figure

__all__ = [
    "MAIN_PEAKS",
    "ParameterScan",
    "PeakSeries",
    "parameter_dependence",
    "peak_place",
    "peak_positions",
    "peak_series",
    "scan_density",
]

MAIN_PEAKS = {
    "Cs137": (0.6617, 1),
    "K40": (1.4608, 1),
    "Co60": (2.5057, 2),
    "AmBe": (2.2233, 1),
    "AmC": (2.2233, 1),
}
"""Energy in MeV that makes the highest peak of a source, and the number of gammas that share it: ENSDF for the decays
(60Co: 1.1732 and 1.3325), and for the neutron sources the capture on hydrogen, 2.2233 (nominal)."""

_MOST = 6  # curves in one panel
_HALF = 0.5  # of its height, above which a peak is fitted


@dataclass(frozen=True, eq=False)
class ParameterScan:
    """Bin probabilities of one source while one parameter changes.

    Attributes:
        name: The parameter.
        values: Widely spaced, shape ``(n,)``, at most six.
        probabilities: There, shape ``(n, bins)``.
        near_values: Closely spaced around the middle, shape ``(m,)``.
        near_probabilities: There, shape ``(m, bins)``.
    """

    name: str
    values: np.ndarray
    probabilities: np.ndarray
    near_values: np.ndarray
    near_probabilities: np.ndarray


def scan_density(
    density: Density,
    source: str,
    response: ArrayLike,
    *,
    reach: Sequence[float] = (1.5, 0.15, 100.0),
    n_values: int = 5,
) -> tuple[ParameterScan, ...]:
    """A scan of every response parameter, the others fixed.

    Args:
        density: The density.
        source: One of its sources.
        response: The fixed values, shape ``(3,)``.
        reach: Half width of the closely spaced values, by default some three errors of a fit to 10 000 events of each
            source (nominal).
        n_values: Widely spaced values, over the whole range of the density.
    """
    row, at = source_index(source, density.sources, density.name), _array(response, "response")
    scans = []
    for k, name in enumerate(RESPONSE):
        low, high = density.limits[k]
        wide = np.linspace(low, high, n_values)
        near = np.linspace(max(low, at[k] - reach[k]), min(high, at[k] + reach[k]), 21)
        points = np.repeat(at[None], wide.size + near.size, axis=0)
        points[:, k] = np.concatenate([wide, near])
        p = probabilities_of(density, points)[:, row]
        scans.append(ParameterScan(name, wide, p[: wide.size], near, p[wide.size :]))
    return tuple(scans)


@_styled
def parameter_dependence(
    edges: ArrayLike, scans: Sequence[ParameterScan], source: str, *, fixed: str = "", xlabel: str = XLABEL
) -> Figure:
    """The main peak at several values of each parameter, and the probability of three of its bins against it.

    Dashed lines on the right are straight ones through the middle: where they fall on the curves, the spectrum is
    linear in the parameter.

    Args:
        edges: Bins of the observable, shape ``(bins + 1,)``.
        scans: One for each row of panels.
        source: Its name.
        fixed: What the others were fixed at.
        xlabel: The observable with its unit.

    Raises:
        NuebarError: There is no scan, one has too many values, or a shape is wrong.
    """
    e = _array(edges, "edges")
    if not scans or not source:
        raise NuebarError("parameter_dependence: expected a source and at least one scan, got none; make one")
    for scan in scans:
        _check_scan(scan, e.size - 1)
    figure = _figure(2.15 * len(scans) + 0.6)
    axes = figure.subplots(len(scans), 2, squeeze=False, width_ratios=(1.25, 1.0))
    for (left, right), scan in zip(axes, scans, strict=True):
        _peaks(left, e, scan)
        _linearity(right, e, scan)
    axes[-1][0].set_xlabel(xlabel)
    figure.supylabel("Probability density", fontsize=11.5)
    _heading(axes[0][0], f"{source_name(source)}, main peak", "")
    axes[0][1].set_title("bins of the peak: p / p(middle)", loc="left")
    if fixed:
        figure.suptitle(f"others fixed at {fixed}", fontsize=10)
    return figure


def _check_scan(scan: ParameterScan, bins: int) -> None:
    for values, table in ((scan.values, scan.probabilities), (scan.near_values, scan.near_probabilities)):
        x, p = _array(values, f"scan of {scan.name}"), _array(table, f"scan of {scan.name}")
        if x.ndim != 1 or x.size < 2 or p.shape != (x.size, bins) or np.any(np.diff(x) <= 0):
            raise NuebarError(
                f"scan of {scan.name}: expected two or more ascending values and a row of {bins} probabilities for "
                f"each, got shapes {x.shape} and {p.shape}"
            )
    if len(scan.values) > _MOST:
        raise NuebarError(f"scan of {scan.name}: expected at most {_MOST} wide values, got {len(scan.values)}")


def _peaks(ax: Axes, edges: np.ndarray, scan: ParameterScan) -> None:
    density = scan.probabilities / np.diff(edges)
    around = [_around(p, 0.05) for p in scan.probabilities]
    low, high = min(a for a, _ in around), max(b for _, b in around)
    for value, p, colour in zip(scan.values, density, _sequence(len(density)), strict=True):
        label = f"{value:.5g}"
        ax.stairs(p[low:high], edges[low : high + 1], baseline=None, color=colour, linewidth=1.3, label=label)
    room = edges[high] - edges[low]
    ax.set(xlim=(edges[low] - 0.04 * room, edges[high] + 0.5 * room), ylim=(0, None))
    ax.legend(title=_label(scan.name), loc="upper right", fontsize=8.5, title_fontsize=9, handlelength=1.2)
    ax.tick_params(labelsize=9)


def _around(p: np.ndarray, share: float) -> tuple[int, int]:
    """First bin and end of the stretch around the highest bin with more than a share of it."""
    top = int(np.argmax(p))
    below = np.flatnonzero(p < share * p[top])
    return int(below[below < top].max(initial=-1)) + 1, int(below[below > top].min(initial=p.size))


def _linearity(ax: Axes, edges: np.ndarray, scan: ParameterScan) -> None:
    x, p = np.asarray(scan.near_values, float), np.asarray(scan.near_probabilities, float)
    middle = p[x.size // 2]
    low, high = _around(middle, _HALF)
    top = int(np.argmax(middle))
    bins = dict.fromkeys((low, top, high - 1))
    for k, colour in zip(bins, (BLUE, GREEN, RED), strict=False):
        y = p[:, k] / middle[k]
        slope, start = np.polyfit(x - x.mean(), y, 1)
        label = f"{0.5 * (edges[k] + edges[k + 1]):.2f}"
        ax.plot(x, y, color=colour, marker="o", markersize=2.4, linewidth=1.0, label=label)
        ax.plot(x, start + slope * (x - x.mean()), color=colour, linestyle=DASHES[1], linewidth=0.9)
    ax.margins(x=0.04)
    ax.set_ylim(ax.get_ylim()[0], ax.get_ylim()[1] + 0.3 * np.ptp(ax.get_ylim()))
    ax.legend(title="bin at", loc="upper center", ncols=3, fontsize=8.5, title_fontsize=8.5, columnspacing=1.0)
    ax.set_xlabel(_label(scan.name), fontsize=10)
    ax.locator_params(axis="x", nbins=5)
    ax.tick_params(labelsize=9)


# ---------------------------------------------------------------- peaks


@dataclass(frozen=True, eq=False)
class PeakSeries:
    """Places of peaks at one response.

    Attributes:
        label: The response.
        energy_MeV: Of a single gamma, shape ``(peaks,)``.
        data: Photo-electrons per MeV of the data.
        error: Their standard errors.
        model: Photo-electrons per MeV of the density.
    """

    label: str
    energy_MeV: np.ndarray
    data: np.ndarray
    error: np.ndarray
    model: np.ndarray


def peak_place(edges: ArrayLike, counts: ArrayLike) -> tuple[float, float]:
    """Place of the highest peak of a histogram, from a parabola through ln(counts) above half of the height.

    Args:
        edges: Shape ``(bins + 1,)``.
        counts: Counts, or probabilities, whose error then means nothing; shape ``(bins,)``.

    Returns:
        Place and standard error.

    Raises:
        NuebarError: There is no peak of at least three bins that falls on both sides.
    """
    e, n = _array(edges, "edges"), _array(counts, "counts")
    smooth = np.convolve(n, (0.25, 0.5, 0.25), "same")
    low, high = _around(smooth, _HALF)
    top = int(np.argmax(smooth))
    low, high = max(0, min(low, top - 2)), min(n.size, max(high, top + 3))
    x, y = 0.5 * (e[low:high] + e[low + 1 : high + 1]), n[low:high]
    good = y > 0
    if good.sum() < 3:
        raise NuebarError(f"expected a peak of three filled bins or more, got {good.sum()}; take finer bins")
    centre, width = x[top - low], max(float(np.ptp(x)), 1e-300)
    u, weight = (x[good] - centre) / width, y[good]
    design = np.stack([np.ones_like(u), u, u * u], axis=1)
    covariance = np.linalg.inv(design.T @ (weight[:, None] * design))
    _, b, c = covariance @ (design.T @ (weight * np.log(weight)))
    if not c < 0:
        raise NuebarError(f"expected a peak, got a valley around {centre:g}; take more events")
    slope = np.array([0.0, -0.5 / c, 0.5 * b / c**2])
    return float(centre - 0.5 * b / c * width), float(width * np.sqrt(slope @ covariance @ slope))


def peak_series(
    label: str,
    data: CalibrationData,
    expected: ArrayLike,
    *,
    peaks: Mapping[str, tuple[float, int]] = MAIN_PEAKS,
) -> PeakSeries:
    """Main peaks of data and of expected counts, both found in the same way.

    Args:
        label: Of the response.
        data: Counts; sources without a known peak are left out.
        expected: As of :func:`expected_counts`.
        peaks: Source → energy in MeV and number of gammas.

    Raises:
        NuebarError: No source has a known peak, or one cannot be found.
    """
    table, rows = np.asarray(expected, float), []
    for s, source in enumerate(data.sources):
        if source in peaks:
            energy, gammas = peaks[source]
            x, error = peak_place(data.edges, data.counts[s])
            place, _ = peak_place(data.edges, table[s])
            scale = energy * data.pe_to_observable
            rows.append((energy / gammas, x / scale, error / scale, place / scale))
    if not rows:
        raise NuebarError(f"expected a source among {', '.join(peaks)}, got {', '.join(data.sources)}; name its peak")
    return PeakSeries(label, *np.array(rows).T)


@_styled
def peak_positions(series: Sequence[PeakSeries], *, reference_MeV: float | None = 2.2233, title: str = "") -> Figure:
    """Light per energy of the main peaks against energy: points of the data, crosses of the density, ratios below.

    A peak of several gammas stands at the energy of one of them.

    Args:
        series: One for each response, at most six.
        reference_MeV: Light per energy is divided by that of the data at this gamma; None for photo-electrons per MeV.
        title: Above the axes.

    Raises:
        NuebarError: There is nothing to draw, too much of it, or the reference is not among the peaks.
    """
    if not 1 <= len(series) <= _MOST:
        raise NuebarError(f"peak_positions: expected one to {_MOST} series, got {len(series)}; choose some")
    figure = _figure(5.4)
    figure.set_layout_engine("constrained", h_pad=0.03, hspace=0.0)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, 1.2])
    lower.axhline(0.0, color=GREY, linewidth=0.8)
    for k, (one, colour) in enumerate(zip(series, _sequence(len(series)), strict=True)):
        order = np.argsort(one.energy_MeV)
        energy, data, error, model = (
            _array(a, one.label)[order] for a in (one.energy_MeV, one.data, one.error, one.model)
        )
        unit = 1.0
        if reference_MeV is not None:
            near = np.abs(energy - reference_MeV) < 0.01 * reference_MeV
            if not near.any():
                raise NuebarError(f"{one.label}: expected a peak at {reference_MeV:g} MeV, got {energy.tolist()} MeV")
            unit = float(data[near].mean())
        x = energy * 1.012 ** (k - 0.5 * (len(series) - 1))  # side by side
        style: dict[str, Any] = {"color": colour, "linestyle": "none", "zorder": 3}
        upper.plot(x, model / unit, color=colour, marker="x", markersize=7, linewidth=0.9, linestyle=DASHES[k % 7])
        upper.errorbar(x, data / unit, yerr=error / unit, marker="o", markersize=4, label=one.label, **style)
        ratio, bar = 100.0 * (model / data - 1.0), 100.0 * model / data**2 * error
        lower.errorbar(x, ratio, yerr=bar, marker="o", markersize=4, **style)
    word = "N(p.e.) per MeV" + ("" if reference_MeV is None else f" / at {reference_MeV:.2f} MeV")
    upper.set_ylabel(word)
    upper.legend(loc="best", title="points: data, crosses: density", title_fontsize=9.5)
    lower.set(xlabel="Energy of a gamma [MeV]", ylabel="density / data − 1 [%]")
    figure.align_ylabels([upper, lower])
    _heading(upper, title, "")
    return figure
