"""Figures of the detector Monte Carlo: sources, what each parameter does, radioactivity, pairs, and the comparisons.

As in :mod:`nuebar.report.plots`, functions take plain arrays, give a matplotlib ``Figure`` and leave matplotlib's
settings alone. Pictures are narrower than reports, so that letters stay readable on a telephone. Sets of values
are in the order of a colour map that any colour vision can follow (cividis), other lines differ in dashes too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.report.plots import (
    BLACK,
    BLUE,
    DASHES,
    GREEN,
    GREY,
    LINES,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    YELLOW,
    _array,
    _figure,
    _histogram,
    _styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Band",
    "PairSpectra",
    "SourceSpectrum",
    "light_maps",
    "nonlinearity",
    "pairs",
    "parameter_effect",
    "quenching",
    "resolution",
    "singles_places",
    "singles_spectra",
    "source_spectra",
]

WIDTH_IN = 6.2
_PARTS = {
    "decay": ("decay or neutron capture", BLUE, "-"),
    "prompt": ("prompt", RED, DASHES[1]),
    "capture": ("decay or neutron capture", BLUE, "-"),
}
_MATERIALS = (BLUE, SKY, RED, ORANGE, GREEN, PURPLE, GREY, YELLOW)


@dataclass(frozen=True, eq=False)
class SourceSpectrum:
    """Charges of one source.

    Attributes:
        title: Name for the panel.
        edges_pe: Bin edges in photo-electrons, shape ``(bins + 1,)``.
        parts: Part (``"decay"``, ``"prompt"``, ``"capture"``) → counts per bin, shape ``(bins,)``.
        peaks: Place in photo-electrons and label of every peak.
    """

    title: str
    edges_pe: np.ndarray
    parts: Mapping[str, np.ndarray]
    peaks: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True, eq=False)
class Band:
    """Two curves with their errors, on the same energies.

    Attributes:
        e_MeV: Energies, shape ``(n,)``.
        ours: Our values.
        ours_error: Their standard deviations.
        released: Published values.
        released_error: Their standard deviations.
    """

    e_MeV: ArrayLike
    ours: ArrayLike
    ours_error: ArrayLike
    released: ArrayLike
    released_error: ArrayLike


@dataclass(frozen=True, eq=False)
class PairSpectra:
    """What :func:`pairs` draws.

    Attributes:
        prompt_edges_MeV: Bin edges of the prompt energy.
        prompt: Label → prompt counts per bin: two spectra, the first without oscillation.
        time_edges_us: Bin edges of the time from prompt to delayed.
        time: Counts.
        mean_us: Mean of the exponential that is drawn beside it.
        distance_edges_m: Bin edges of the distance of the two vertices.
        distance: Counts.
        delayed_edges_MeV: Bin edges of the delayed energy.
        delayed: Place → counts: all, and inside the fiducial volume.
        delayed_windows_MeV: Windows of the delayed energy that the cuts accept.
        cut_us: Longest time that they accept.
        cut_m: Longest distance that they accept.
    """

    prompt_edges_MeV: ArrayLike
    prompt: Mapping[str, ArrayLike]
    time_edges_us: ArrayLike
    time: ArrayLike
    mean_us: float
    distance_edges_m: ArrayLike
    distance: ArrayLike
    delayed_edges_MeV: ArrayLike
    delayed: Mapping[str, ArrayLike]
    delayed_windows_MeV: Sequence[tuple[float, float]] = field(default_factory=tuple)
    cut_us: float = 1000.0
    cut_m: float = 1.5


# ---------------------------------------------------------------- calibration


@_styled
def source_spectra(sources: Sequence[SourceSpectrum]) -> Figure:
    """Charge spectra of sources on logarithmic scales, a panel each, peaks labelled.

    Raises:
        NuebarError: There is no source, one has no counts, or a shape is wrong.
    """
    if not sources:
        raise NuebarError("source_spectra: expected at least one source, got none")
    figure, axes = _grid(len(sources), 2.1)
    drawn: dict[str, Any] = {}
    for ax, source in zip(axes, sources, strict=True):
        drawn |= _source(ax, source)
    figure.supxlabel("Charge [photo-electrons]; peaks are labelled in MeV", fontsize=11.5)
    figure.supylabel("Triggers per bin", fontsize=11.5)
    if len(drawn) > 1:
        figure.legend(drawn.values(), drawn.keys(), loc="outside upper center", ncols=len(drawn))
    return figure


def _source(ax: Axes, source: SourceSpectrum) -> dict[str, Any]:
    unknown = [p for p in source.parts if p not in _PARTS]
    if unknown or not source.parts:
        raise NuebarError(f"{source.title}: expected parts among {', '.join(_PARTS)}, got {unknown or 'none'}")
    handles, top = {}, 0.0
    for part, values in source.parts.items():
        edges, counts = _histogram(source.edges_pe, values, f"{source.title}, {part}")
        label, colour, dashes = _PARTS[part]
        # The dash of a step line gets lost in noise: areas tell the two apart as well.
        ax.stairs(np.maximum(counts, 1e-3), edges, fill=True, color=colour, alpha=0.12, baseline=1e-3)
        style: dict[str, Any] = {"color": colour, "linestyle": dashes, "linewidth": 1.2}
        handles[label] = ax.stairs(np.maximum(counts, 1e-3), edges, baseline=None, **style)
        top = max(top, float(counts.max()))
    if top <= 0:
        raise NuebarError(f"{source.title}: expected counts above zero, got none; widen the bins")
    # Labels stand on end above the spectrum.
    ax.set(yscale="log", xlim=(edges[0], edges[-1]), ylim=(0.7, 0.7 * (top / 0.7) ** (1 / 0.54)))
    places = [place for place, _ in source.peaks]
    for (place, label), beside in zip(source.peaks, _spread(places, 0.065 * (edges[-1] - edges[0])), strict=True):
        style = {"color": GREY, "linewidth": 0.7, "transform": ax.get_xaxis_transform()}
        ax.plot([place, place, beside], [0.0, 0.56, 0.62], zorder=0, **style)
        style = {"rotation": 90, "ha": "center", "va": "bottom", "fontsize": 8.5}
        ax.text(beside, 0.64, label, transform=ax.get_xaxis_transform(), **style)
    ax.set_title(source.title, loc="left", fontsize=10.5, fontweight="bold", pad=3)
    return handles


def _spread(places: Sequence[float], least: float) -> list[float]:
    """Places for labels, at least so far apart, each near its own."""
    order = np.argsort(places)
    moved = np.array(places, dtype=float)[order]
    for _ in range(100):  # neighbours push each other away
        overlap = np.maximum(least - np.diff(moved), 0.0)
        if not np.any(overlap > 1e-3 * least):
            break
        moved[:-1] -= 0.5 * overlap
        moved[1:] += 0.5 * overlap
    out = np.empty_like(moved)
    out[order] = moved
    return out.tolist()


@_styled
def parameter_effect(
    panels: Mapping[str, tuple[ArrayLike, Mapping[str, ArrayLike]]], parameter: str, *, xlabel: str, note: str = ""
) -> Figure:
    """Peaks at several values of one parameter, each peak in a panel and of area one.

    Args:
        panels: Title → bin edges and, for every value of the parameter (as text, in order), counts per bin.
        parameter: Name and unit of the parameter.
        xlabel: The observable with its unit.
        note: What was kept fixed.

    Raises:
        NuebarError: There is no panel or value, the panels disagree about the values, or a shape is wrong.
    """
    values = list(next(iter(panels.values()))[1]) if panels else []
    if not values or any(list(lines) != values for _, lines in panels.values()):
        raise NuebarError("parameter_effect: expected panels with the same values of the parameter each; correct them")
    figure, axes = _grid(len(panels), 1.9)
    colours = _sequence(len(values))
    handles: list[Any] = []
    for ax, (title, (edges_, lines)) in zip(axes, panels.items(), strict=True):
        handles, top = [], 0.0
        for colour, (value, counts_) in zip(colours, lines.items(), strict=True):
            edges, counts = _histogram(edges_, counts_, f"{title}, {value}")
            density = counts / np.diff(edges) / max(counts.sum(), 1e-300)
            top = max(top, float(density.max()))
            handles.append(ax.stairs(density, edges, baseline=None, color=colour, linewidth=1.4, label=value))
        ax.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.18 * top), yticks=[])
        ax.minorticks_off()
        _corner(ax, title)
    figure.supxlabel(xlabel, fontsize=11.5)
    figure.supylabel("Events, each peak to area 1", fontsize=11.5)
    title = f"{parameter} ({note})" if note else parameter
    figure.legend(handles, values, title=title, loc="outside upper center", ncols=len(values))
    return figure


# ---------------------------------------------------------------- radioactivity


@_styled
def singles_spectra(
    edges_MeV: ArrayLike,
    whole: Mapping[str, ArrayLike],
    fiducial: Mapping[str, ArrayLike],
    *,
    windows_MeV: Sequence[tuple[float, float]] = (),
) -> Figure:
    """Energy spectra of radioactivity by material: everywhere above, in the fiducial volume below.

    Args:
        edges_MeV: Edges of even bins.
        whole: Material → rate per bin in Hz.
        fiducial: The same for vertices in the fiducial volume.
        windows_MeV: Energy windows to shade: where a single can be taken for a neutron capture.

    Raises:
        NuebarError: A shape is wrong, or there is no rate.
    """
    figure = _figure(7.4, WIDTH_IN)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for ax, rates, title in ((upper, whole, "whole scintillator"), (lower, fiducial, "fiducial volume")):
        for low, high in windows_MeV:
            ax.axvspan(low, high, color="#ececec", zorder=0, linewidth=0)
        _by_material(ax, edges_MeV, rates, title)
        ax.set_ylabel(f"Rate [Hz per {_width(edges_MeV)} MeV]")
    lower.set_xlabel("Reconstructed energy [MeV]")
    handles, labels = upper.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure


@_styled
def singles_places(
    edges_m3: ArrayLike, rates: Mapping[str, ArrayLike], *, fiducial_radius_m: float, radius_m: float
) -> Figure:
    """Where radioactivity is reconstructed: rate against the cube of the radius, in which volume is even.

    Args:
        edges_m3: Edges of even bins of r³ in m³.
        rates: Material → rate per bin in Hz.
        fiducial_radius_m: Marked.
        radius_m: Radius of the scintillator, marked.

    Raises:
        NuebarError: A shape is wrong, or there is no rate.
    """
    figure = _figure(4.6, WIDTH_IN)
    ax = figure.add_subplot()
    _by_material(ax, edges_m3, rates, "")
    for radius, word in ((fiducial_radius_m, "fiducial"), (radius_m, "edge")):
        ax.axvline(radius**3, color=BLACK, linewidth=0.8, linestyle=":")
        label = f"{word} {radius:g} m"
        ax.text(
            radius**3,
            0.98,
            f"{label} ",
            rotation=90,
            ha="right",
            va="top",
            fontsize=9,
            transform=ax.get_xaxis_transform(),
        )
    low, high = ax.get_ylim()
    ax.set_ylim(low, 20 * high)  # room for the words
    ax.set(xlabel="Cube of the reconstructed radius [m³]", ylabel=f"Rate [Hz per {_width(edges_m3)} m³]")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _by_material(ax: Axes, edges_: ArrayLike, rates: Mapping[str, ArrayLike], title: str) -> None:
    if not rates or len(rates) > len(_MATERIALS):
        raise NuebarError(f"expected rates of one to {len(_MATERIALS)} materials, got {len(rates)}; join some")
    total: Any = 0.0
    for k, (name, values) in enumerate(rates.items()):
        edges, rate = _histogram(edges_, values, name)
        total = total + rate
        dashes = DASHES[k % len(DASHES)]
        ax.stairs(rate, edges, baseline=None, color=_MATERIALS[k], linestyle=dashes, linewidth=1.3, label=_word(name))
    top = float(np.max(total))
    if top <= 0:
        raise NuebarError(f"{title or 'rates'}: expected a rate above zero, got none")
    ax.stairs(total, edges, baseline=None, color=BLACK, linewidth=1.7, alpha=0.85, label="all", zorder=1)
    ax.set(yscale="log", xlim=(edges[0], edges[-1]), ylim=(2e-5 * top, 3 * top))
    if title:
        _corner(ax, title, right=True)


# ---------------------------------------------------------------- comparisons


@_styled
def nonlinearity(
    gammas: Band, fitted: ArrayLike, electrons: Band, positrons: Band, *, lines: Mapping[str, tuple[float, float]]
) -> Figure:
    """Non-linearity of gammas, electrons and positrons: released values, our fit and our predictions.

    Args:
        gammas: Calibration points; ``ours_error`` is not drawn.
        fitted: Which of them were fitted, booleans.
        electrons: Curves of electrons.
        positrons: Curves of positrons.
        lines: Sources of several gammas: label → mean energy of a gamma, and our value.

    Raises:
        NuebarError: A shape is wrong.
    """
    chosen = np.asarray(fitted, dtype=bool)
    e, ours, _, released, error = _band(gammas, "gammas")
    if chosen.shape != e.shape:
        raise NuebarError(f"fitted: expected {e.size} booleans, one for each gamma, got shape {chosen.shape}")
    figure = _figure(8.6, WIDTH_IN)
    first, second, third = figure.subplots(3, 1, height_ratios=(1.15, 1, 1))
    style: dict[str, Any] = {"color": BLACK, "markersize": 5, "linestyle": "none", "zorder": 3}
    for mask, marker, word in ((chosen, "o", "released, fitted"), (~chosen, "s", "released, not fitted")):
        first.errorbar(e[mask], released[mask], yerr=error[mask], marker=marker, label=word, **style)
    order = np.argsort(e)
    first.plot(e[order], ours[order], color=RED, linewidth=1.6, label="ours")
    for k, (word, (energy, value)) in enumerate(lines.items()):
        style = {"color": RED, "marker": "^v"[k % 2], "linestyle": "none", "markerfacecolor": "white", "markersize": 7}
        first.plot(energy, value, label=f"ours, {word}", zorder=4, **style)
    first.set(xscale="log", xlabel="Energy of the gamma [MeV]", ylabel="Visible / deposited")
    _plain_log(first)
    _corner(first, "gammas")
    for ax, band, word in ((second, electrons, "electrons"), (third, positrons, "positrons")):
        e, ours, spread, released, error = _band(band, word)
        ax.fill_between(e, released - error, released + error, color=GREY, alpha=0.45, linewidth=0, label="released")
        ax.plot(e, released, color=BLACK, linewidth=0.9)
        ax.fill_between(e, ours - spread, ours + spread, color=RED, alpha=0.22, linewidth=0)
        ax.plot(e, ours, color=RED, linewidth=1.6, linestyle=DASHES[1], label="ours, predicted")
        _corner(ax, word)
        ax.set_ylabel("Visible / deposited")
    second.set_xlabel("Kinetic energy [MeV]")
    third.set_xlabel("Deposited energy with both masses [MeV]")
    for ax in (first, second, third):
        ax.legend(loc="lower right")
    return figure


@_styled
def resolution(
    names: Sequence[str], e_MeV: ArrayLike, ours: ArrayLike, released: ArrayLike, fixed: ArrayLike
) -> Figure:
    """Energy resolution of calibration peaks: ours on the released ones, and the differences.

    Args:
        names: Labels of the peaks.
        e_MeV: Their reconstructed energies.
        ours: Our σ/E in percent.
        released: The released ones.
        fixed: Which of them fixed our free terms, booleans.

    Raises:
        NuebarError: Lengths differ.
    """
    e, mine, theirs = (_array(x, w) for x, w in ((e_MeV, "e_MeV"), (ours, "ours"), (released, "released")))
    free = ~np.asarray(fixed, dtype=bool)
    if not (len(names) == e.size == mine.size == theirs.size == free.size):
        raise NuebarError(f"resolution: expected {len(names)} values of everything, got {e.size} energies")
    figure = _figure(5.8, WIDTH_IN)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1.1))
    upper.plot(e, theirs, "o", color=BLACK, markersize=8, markerfacecolor="white", label="released")
    for mask, marker, colour, word in (
        (~free, "s", BLUE, "ours, free terms fixed here"),
        (free, "D", RED, "ours, predicted"),
    ):
        upper.plot(e[mask], mine[mask], marker, color=colour, markersize=4, label=word)
        lower.plot(e[mask], 100 * (mine / theirs - 1)[mask], marker, color=colour, markersize=5.5)
    last = 0.0
    for k in np.argsort(e):
        near = e[k] < 1.3 * last  # beside its neighbour: below, where that one has its label above
        y = min(mine[k], theirs[k]) if near else max(mine[k], theirs[k])
        where: dict[str, Any] = {"xytext": (0, -7 if near else 7), "va": "top" if near else "bottom"}
        upper.annotate(names[k], (e[k], y), textcoords="offset points", ha="center", fontsize=9.5, **where)
        last = e[k]
    lower.axhline(0, color=GREY, linewidth=0.8)
    limit = 1.35 * max(1.0, float(np.max(np.abs(100 * (mine / theirs - 1)))))
    upper.set(xscale="log", ylabel="σ/E [%]", ylim=(0.8 * mine.min(), 1.12 * mine.max()))
    lower.set(ylim=(-limit, limit), ylabel="Difference [%]", xlabel="Reconstructed energy [MeV]")
    lower.set_xlim(0.85 * e.min(), 1.35 * e.max())
    _plain_log(lower)
    upper.legend(loc="upper right")
    return figure


@_styled
def quenching(
    kB_g_cm2_GeV: ArrayLike, sources: Mapping[str, tuple[ArrayLike, ArrayLike]], *, aim_percent: float = 0.3
) -> Figure:
    """Mean quenched fraction of gammas against kB: ours as lines, Geant4 as points, and the differences.

    Args:
        kB_g_cm2_GeV: Values of kB, increasing.
        sources: Label → our fraction and Geant4's at each of them; at most seven.
        aim_percent: Half height of the band below.

    Raises:
        NuebarError: A shape is wrong, or there are too many sources.
    """
    kB = _array(kB_g_cm2_GeV, "kB_g_cm2_GeV")
    if not 1 <= len(sources) <= len(LINES):
        raise NuebarError(f"quenching: expected one to {len(LINES)} sources, got {len(sources)}; join some")
    figure = _figure(6.4, WIDTH_IN)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1.1))
    lower.axhspan(-aim_percent, aim_percent, color="#ececec", zorder=0, linewidth=0)
    lower.axhline(0, color=GREY, linewidth=0.8)
    worst = aim_percent
    for k, (name, (ours_, geant4_)) in enumerate(sources.items()):
        ours, geant4 = _array(ours_, name), _array(geant4_, name)
        if not ours.shape == geant4.shape == kB.shape:
            raise NuebarError(f"{name}: expected {kB.size} values, one for each kB, got {ours.shape}, {geant4.shape}")
        colour, marker = LINES[k], "osD^vPX"[k]
        upper.plot(kB, ours, color=colour, linestyle=DASHES[k], linewidth=1.3)
        upper.plot(kB, geant4, marker, color=colour, markersize=5.5, label=name)
        away = 100 * (ours / geant4 - 1)
        worst = max(worst, float(np.max(np.abs(away))))
        lower.plot(kB, away, marker=marker, color=colour, linestyle=DASHES[k], linewidth=1, markersize=5)
    upper.set_ylabel("Quenched / deposited energy")
    lower.set(xlabel="kB [g cm⁻² GeV⁻¹]", ylabel="ours/Geant4 − 1 [%]", ylim=(-1.25 * worst, 1.25 * worst))
    upper.legend(loc="lower left", ncols=2, title="lines: ours, points: Geant4", alignment="left")
    return figure


# ---------------------------------------------------------------- antineutrinos and light


@_styled
def pairs(spectra: PairSpectra) -> Figure:
    """Antineutrino pairs: prompt energy, time and distance to the delayed event, delayed energy.

    Raises:
        NuebarError: A shape is wrong.
    """
    figure = _figure(6.6, WIDTH_IN)
    (prompt, delayed), (time, distance) = figure.subplots(2, 2)
    for k, (name, values) in enumerate(spectra.prompt.items()):
        edges, counts = _histogram(spectra.prompt_edges_MeV, values, name)
        style: dict[str, Any] = {"color": (BLUE, RED)[k % 2], "linestyle": (DASHES[1], "-")[k % 2], "label": name}
        prompt.stairs(1e-3 * counts, edges, baseline=None, linewidth=1.4, **style)
    prompt.set(xlabel="Prompt energy [MeV]", ylabel=f"10³ pairs per {_width(edges)} MeV", ylim=(0, None))
    prompt.set_xlim(edges[0], edges[-1])
    prompt.legend(loc="upper right", handlelength=1.4)
    for low, high in spectra.delayed_windows_MeV:
        delayed.axvspan(low, high, color="#e4e4e4", zorder=0, linewidth=0)
    for k, (name, values) in enumerate(spectra.delayed.items()):
        edges, counts = _histogram(spectra.delayed_edges_MeV, values, name)
        style = {"color": (BLUE, RED)[k % 2], "linestyle": ("-", DASHES[2])[k % 2], "label": name}
        delayed.stairs(np.maximum(counts, 1e-3), edges, baseline=None, linewidth=1.3, **style)
    delayed.set(xlabel="Delayed energy [MeV]", ylabel=f"Pairs per {_width(edges)} MeV", yscale="log")
    delayed.set(xlim=(edges[0], edges[-1]), ylim=(0.7, None))
    delayed.legend(loc="upper right", handlelength=1.4)
    edges, counts = _histogram(spectra.time_edges_us, spectra.time, "time")
    time.stairs(np.maximum(counts, 1e-3), edges, baseline=None, color=BLUE, linewidth=1.3, label="simulated")
    whole = counts.sum() / -np.expm1(-edges[-1] / spectra.mean_us)
    expected = whole * -np.diff(np.exp(-edges / spectra.mean_us))
    style = {"color": RED, "linestyle": DASHES[1], "linewidth": 1.2, "label": f"mean {spectra.mean_us:g} µs"}
    time.plot(0.5 * (edges[1:] + edges[:-1]), expected, **style)
    time.axvline(spectra.cut_us, ymax=0.75, color=GREY, linewidth=1)
    time.set(xlabel="Time between the two [µs]", ylabel=f"Pairs per {_width(edges)} µs", yscale="log")
    time.set_xlim(edges[0], edges[-1])
    time.legend(loc="upper right", handlelength=1.4)
    edges, counts = _histogram(spectra.distance_edges_m, spectra.distance, "distance")
    distance.stairs(np.maximum(counts, 1e-3), edges, baseline=None, color=BLUE, linewidth=1.3)
    distance.axvline(spectra.cut_m, color=GREY, linewidth=1)
    distance.set(xlabel="Distance of the vertices [m]", ylabel=f"Pairs per {_width(edges)} m", yscale="log")
    distance.set(xlim=(edges[0], edges[-1]), ylim=(0.7, None))
    return figure


@_styled
def light_maps(
    axis_m: ArrayLike,
    true: ArrayLike,
    believed: ArrayLike,
    left: ArrayLike,
    left_across: ArrayLike,
    *,
    radius_m: float,
    fiducial_radius_m: float,
) -> Figure:
    """Light against place: as it is, as the correction believes it, and what is left in two planes.

    Args:
        axis_m: Places along both axes of the maps, shape ``(n,)``, even.
        true: Light relative to the centre in the plane y = 0, shape ``(n, n)``, first index z.
        believed: What the correction divides by, likewise.
        left: Their ratio in the plane y = 0.
        left_across: Their ratio in the plane z = 0, first index y.
        radius_m: Radius of the scintillator; places outside are not drawn.
        fiducial_radius_m: Marked.

    Raises:
        NuebarError: A shape is wrong.
    """
    axis = _array(axis_m, "axis_m")
    outside = np.hypot(axis[:, None], axis[None, :]) > radius_m
    maps = []
    for values, what in ((true, "true"), (believed, "believed"), (left, "left"), (left_across, "left_across")):
        one = _array(values, what)
        if one.shape != outside.shape:
            raise NuebarError(f"{what}: expected shape {outside.shape}, a square over axis_m, got {one.shape}")
        maps.append(np.ma.masked_array(one, outside))
    figure = _figure(5.7, WIDTH_IN)
    axes = figure.subplots(2, 2)
    extent = (axis[0], axis[-1], axis[0], axis[-1])
    light = _levels("cividis", min(m.min() for m in maps[:2]), max(m.max() for m in maps[:2]), 0.005)
    limit = 100 * max(np.abs(m - 1).max() for m in maps[2:])
    rest = _levels("PuOr", -limit, limit, 0.1, 0.05)
    titles = ("light, true", "light, as corrected for", "left, y = 0", "left, z = 0")
    angle = np.linspace(0, 2 * np.pi, 200)
    images = []
    for k, (ax, one, title) in enumerate(zip(np.ravel(axes), maps, titles, strict=True)):
        shown = one if k < 2 else 100 * (one - 1)
        style: dict[str, Any] = light if k < 2 else rest
        images.append(ax.imshow(shown, origin="lower", extent=extent, interpolation="nearest", **style))
        colour = "white" if k < 2 else BLACK
        ax.plot(fiducial_radius_m * np.cos(angle), fiducial_radius_m * np.sin(angle), ":", color=colour, linewidth=0.9)
        ax.set_title(title, loc="left", fontsize=10.5)
        ax.set(xlabel="x [m]", ylabel="y [m]" if k == 3 else "z [m]")
    figure.colorbar(images[0], ax=axes[0, :], label="relative to the centre", shrink=0.9)
    figure.colorbar(images[2], ax=axes[1, :], label="true / corrected − 1 [%]", shrink=0.9)
    return figure


# ---------------------------------------------------------------- parts


def _grid(panels: int, height_in: float) -> tuple[Figure, list[Axes]]:
    """Two columns of panels; a last odd one leaves its neighbour empty."""
    rows = (panels + 1) // 2
    figure = _figure(height_in * rows + 0.9, WIDTH_IN)
    axes = list(np.ravel(figure.subplots(rows, 2, squeeze=False)))
    for ax in axes[panels:]:
        ax.set_axis_off()
    return figure, axes[:panels]


def _sequence(n: int) -> list[Any]:
    """Colours in an order that can be seen, without the palest."""
    import matplotlib

    return [matplotlib.colormaps["cividis"](x) for x in np.linspace(0.0, 0.88, n)]


def _levels(name: str, low: float, high: float, step: float, shift: float = 0.0) -> dict[str, Any]:
    """A colour map in steps that an eye can count; borders at multiples of the step plus a shift."""
    import matplotlib

    first, last = np.floor((low - shift) / step + 1e-9), np.ceil((high - shift) / step - 1e-9)
    limits = {"vmin": first * step + shift, "vmax": last * step + shift}
    return {"cmap": matplotlib.colormaps[name].resampled(int(last - first)), **limits}


def _band(band: Band, what: str) -> list[np.ndarray]:
    fields = ("e_MeV", "ours", "ours_error", "released", "released_error")
    arrays = [_array(getattr(band, name), f"{what}, {name}") for name in fields]
    if len({a.shape for a in arrays}) != 1:
        raise NuebarError(f"{what}: expected arrays of one length, got {[a.size for a in arrays]}")
    return arrays


def _corner(ax: Axes, text: str, *, right: bool = False) -> None:
    place = 0.97 if right else 0.03
    style: dict[str, Any] = {"ha": "right" if right else "left", "va": "top", "transform": ax.transAxes}
    ax.text(place, 0.95, text, fontsize=10.5, fontweight="bold", **style)


def _width(edges: ArrayLike) -> str:
    values = np.asarray(edges, float)
    return f"{(values[-1] - values[0]) / (values.size - 1):.3g}"


def _word(name: str) -> str:
    return name.replace("_", " ")


def _plain_log(ax: Axes) -> None:
    """Energies of MeV on a logarithmic axis as plain numbers."""
    from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullFormatter

    low, high = ax.get_xlim()
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if low <= t <= high]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    ax.xaxis.set_minor_formatter(NullFormatter())
