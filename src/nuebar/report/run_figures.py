"""Figures of a whole run: those of the page, narrow enough for two in a row or one on a phone.

As in :mod:`nuebar.report.plots`, functions take plain arrays or records, give a matplotlib ``Figure``, read no file and
leave matplotlib's settings alone. Names of sources, components and parameters may come from data: they are drawn as
they are, never read as mathematics.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import chi2 as chi2_distribution

from nuebar.errors import NuebarError
from nuebar.fit.result import FitResult
from nuebar.io.tunings import TuningResult
from nuebar.parameters import LABELS
from nuebar.report import plots, tuning_plots, tuning_rank_plots
from nuebar.report.page import clean
from nuebar.report.plots import (
    BLACK,
    BLUE,
    DASHES,
    GREY,
    LINES,
    ORANGE,
    RED,
    SKY,
    _array,
    _bands,
    _component,
    _counts,
    _events,
    _figure,
    _histogram,
    _parameter,
    _stack,
    _style,
    _styled,
)
from nuebar.report.selection_plots import FEATURE_LABELS, _places
from nuebar.report.tables import scale_of

if TYPE_CHECKING:
    from nuebar.report.plots import Figure

__all__ = [
    "Curve",
    "Drawn",
    "Recovered",
    "contour",
    "correlations",
    "coverage",
    "drawn",
    "efficiencies",
    "expected_spectrum",
    "feature_label",
    "feature_swarm",
    "fit_spectrum",
    "impact_chart",
    "importance",
    "profile",
    "prompt_spectrum",
    "pull_chart",
    "recovered",
    "roc",
    "score_plane",
    "source_spectra",
    "surrogate_residuals",
]

NARROW_IN = 5.2
"""Width of a figure of one panel: its words are then large enough on a phone of 390 pixels."""

_ENERGY = "Reconstructed prompt energy [MeV]"
_LARGEST_SVG = 120_000  # bytes; above, a picture of points is smaller
_MOST_AXES = 4  # above, a picture of points is quicker to make and smaller
_DPI = 200
_LONGEST_NAME = 40
_FARTHEST = 50.0  # of a score from its threshold
_MOST_CURVES = 8
_MARKS = "osD^vP*X"
_KNOWN = 0.6  # relative error of a background, above which a point of a ROC says nothing
_DIP = 0.02  # of the largest bin: how far below zero a component is taken for rounding
_ONE_SIGMA = plots.ONE_SIGMA


# ---------------------------------------------------------------- files and names


@dataclass(frozen=True)
class Drawn:
    """A figure as the bytes of a file.

    Attributes:
        data: The bytes.
        form: ``"svg"``, or ``"png"`` where that is smaller.
        width_in: Natural width in inches.
        height_in: Natural height.
    """

    data: bytes
    form: str
    width_in: float
    height_in: float


def drawn(draw: Callable[[], Figure]) -> Drawn:
    """A figure for a page: lines and letters as such, or 200 dots an inch if those would be too many.

    Args:
        draw: Makes a figure, with a function from here or from :mod:`nuebar.report.plots`.
    """
    with warnings.catch_warnings():
        # A name may hold letters that the font lacks: boxes are drawn for them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure = draw()
        data, form = b"", "svg"
        if len(figure.axes) <= _MOST_AXES:
            data = plots.to_bytes(figure, ".svg")
        if not 0 < len(data) <= _LARGEST_SVG:
            buffer = io.BytesIO()
            with _style():
                figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
            if not 0 < len(data) <= len(buffer.getvalue()):
                data, form = buffer.getvalue(), "png"
    width, height = (float(x) for x in figure.get_size_inches())
    return Drawn(data, form, width, height)


def plain(name: object) -> str:
    """A name from data for a figure: short, without controls, and no ``$`` that would begin mathematics."""
    return clean(name, _LONGEST_NAME).replace("\n", " ").replace("$", r"\$")


def _words(names: Iterable[str]) -> dict[str, str]:
    """Name → what is drawn of it; two that look the same stay two."""
    out: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        word = plain(name)
        while word in taken:
            word += "'"
        taken.add(word)
        out[name] = word
    return out


def _named(table: Mapping[str, Any]) -> dict[str, Any]:
    """The same table with names that can be drawn."""
    words = _words(table)
    return {words[name]: value for name, value in table.items()}


def _plain_result(result: FitResult) -> FitResult:
    words = _words(result.parameters)
    parameters = {words[name]: p for name, p in result.parameters.items()}
    order = tuple(words[name] for name in result.parameter_order)
    return replace(result, parameters=parameters, parameter_order=order)


def feature_label(name: str, *, unit: bool = False) -> str:
    """Symbol of a feature of the selection, with its unit if wanted; another name is drawn as it is."""
    if name not in FEATURE_LABELS:
        return plain(name)
    symbol, dimension = FEATURE_LABELS[name]
    return f"{symbol} [{dimension}]" if unit and dimension else symbol


# ---------------------------------------------------------------- headline


@dataclass(frozen=True)
class Recovered:
    """A parameter and how far it came out from the truth.

    Attributes:
        name: The parameter.
        where: What found it, such as ``"spectrum fit"``.
        sigmas: (value − truth) / error.
        prior_dominated: Whether the data hardly say more than the prior.
    """

    name: str
    where: str
    sigmas: float
    prior_dominated: bool = False


@_styled
def recovered(rows: Sequence[Recovered]) -> Figure:
    """Distance of every recovered parameter from the truth in units of its error.

    Args:
        rows: From top to bottom; those that a prior dominates are open circles.

    Raises:
        NuebarError: There is nothing to draw, or a distance is not finite.
    """
    if not rows:
        raise NuebarError("recovered: expected at least one parameter with a truth, got none")
    x = _array([row.sigmas for row in rows], "distances from the truth")
    figure = _figure(0.36 * len(rows) + 1.1, NARROW_IN)
    ax = figure.add_subplot()
    _bands(ax, horizontal=False)
    shown = np.clip(x, -12.0, 12.0)  # further out it is wrong whatever it is
    for k, row in enumerate(rows):
        face = "white" if row.prior_dominated else BLACK
        style: dict[str, Any] = {"fmt": "o", "color": BLACK, "markerfacecolor": face, "markersize": 5.5}
        ax.errorbar(shown[k], k, xerr=1.0, elinewidth=1.2, capsize=2.5, **style)
    limit = max(3.4, 1.1 + 1.04 * float(np.abs(shown).max()))
    ax.set(xlim=(-limit, limit), ylim=(len(rows) - 0.4, -0.6), xlabel="(recovered − truth) / error")
    names = [f"{_without_unit(_parameter(plain(row.name)))}, {row.where}" for row in rows]
    ax.set_yticks(range(len(rows)), names)
    ax.tick_params(axis="y", which="both", length=0)
    return figure


# ---------------------------------------------------------------- selection


@_styled
def prompt_spectrum(
    edges_MeV: ArrayLike,
    counts: ArrayLike,
    accidentals: ArrayLike,
    accidental_errors: ArrayLike,
    *,
    per_MeV: float = 0.1,
) -> Figure:
    """Candidates with Poisson intervals and the accidental background measured off time with its error.

    Args:
        edges_MeV: Shape ``(bins + 1,)``.
        counts: Candidates, shape ``(bins,)``.
        accidentals: Expected accidental pairs among them.
        accidental_errors: Standard deviations of these.
        per_MeV: Counts are drawn as a density in this width.
    """
    edges, y = _histogram(edges_MeV, counts, "candidates")
    off, error = np.maximum(_array(accidentals, "accidentals"), 0.0), _array(accidental_errors, "accidental errors")
    for what, values in (("accidentals", off), ("accidental errors", error)):
        if values.shape != y.shape:
            raise NuebarError(f"{what}: expected {y.size} numbers, one a bin, got shape {values.shape}")
    density, centres = per_MeV / np.diff(edges), 0.5 * (edges[1:] + edges[:-1])
    figure = _figure(3.7, NARROW_IN)
    ax = figure.add_subplot()
    label = f"Accidentals, off time ({_events(float(off.sum()))})"
    ax.stairs(off * density, edges, fill=True, color=ORANGE, alpha=0.55, linewidth=0, label=label)
    low, high = np.maximum(off - error, 0.0), off + error
    style: dict[str, Any] = {"fill": True, "facecolor": "none", "edgecolor": RED, "linewidth": 0, "hatch": "////////"}
    ax.stairs(high * density, edges, baseline=low * density, label="their error (1σ)", **style)
    bars = _garwood(y)
    points: dict[str, Any] = {"fmt": "o", "color": BLACK, "markersize": 3.0, "elinewidth": 0.9}
    word = f"Candidates ({_events(float(y.sum()))})"
    ax.errorbar(centres, y * density, yerr=[b * density for b in bars], label=word, **points)
    top = float(np.max((y + bars[1]) * density, initial=0.0))
    ax.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.06 * top if top > 0 else 1.0))
    ax.set(xlabel=_ENERGY, ylabel=f"Pairs per {per_MeV:g} MeV")
    ax.legend(loc="upper right")
    return figure


def _garwood(y: np.ndarray) -> list[np.ndarray]:
    """Lengths of central 68.27 % Poisson intervals below and above, F. Garwood, Biometrika 28, 437 (1936)."""
    tail = (1.0 - _ONE_SIGMA) / 2.0
    low = np.where(y > 0, chi2_distribution.ppf(tail, 2.0 * np.maximum(y, 1e-12)) / 2.0, 0.0)
    high = chi2_distribution.ppf(1.0 - tail, 2.0 * (y + 1.0)) / 2.0
    return [np.maximum(y - low, 0.0), high - y]


@dataclass(frozen=True, eq=False)
class Curve:
    """Efficiency in bins.

    Attributes:
        edges_MeV: Shape ``(bins + 1,)``.
        value: Shape ``(bins,)``, from 0 to 1; NaN where nothing is known.
        low: Lower ends of its intervals.
        high: Upper ends.
    """

    edges_MeV: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@_styled
def efficiencies(curves: Mapping[str, Curve]) -> Figure:
    """Selection efficiency against energy: the first component as a line with its band, the others as points.

    Args:
        curves: Component → its efficiency; at most eight are drawn.
    """
    if not curves:
        raise NuebarError("efficiencies: expected at least one component, got none")
    figure = _figure(4.2, NARROW_IN)
    ax = figure.add_subplot()
    ends: list[float] = []
    for k, (name, curve) in enumerate(list(_named(curves).items())[:_MOST_CURVES]):
        edges, n = np.asarray(curve.edges_MeV, float), len(curve.value)
        if edges.shape != (n + 1,) or np.any(np.diff(edges) <= 0):
            raise NuebarError(f"efficiency of {name}: expected {n + 1} increasing edges, got shape {edges.shape}")
        known = np.isfinite(curve.value) & np.isfinite(curve.low) & np.isfinite(curve.high)
        # Bins that hold a handful of events say nothing and hide the rest.
        known &= (curve.high - curve.low) < 0.05
        value, low, high = (
            np.where(known, 100 * np.asarray(v, float), np.nan) for v in (curve.value, curve.low, curve.high)
        )
        x, colour, label = (
            0.5 * (edges[1:] + edges[:-1]),
            LINES[k % len(LINES)],
            _component("signal" if name == "ibd" else name),
        )
        if k == 0:
            ax.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0)
            ax.plot(x, value, color=colour, linewidth=1.8, label=label, zorder=9)
        else:
            bars: dict[str, Any] = {"xerr": 0.5 * np.diff(edges), "yerr": [value - low, high - value]}
            style: dict[str, Any] = {"fmt": _MARKS[k % len(_MARKS)], "markersize": 3.2, "elinewidth": 0.9}
            ax.errorbar(x, value, **bars, color=colour, label=label, zorder=8 - k, **style)
        if known.any():
            ends += [float(np.nanquantile(value, 0.05)), float(np.nanmax(value))]
    low_end, high_end = (min(ends), max(ends)) if ends else (0.0, 100.0)
    room = max(high_end - low_end, 1.0)
    ax.set(
        xlabel=_ENERGY, ylabel="Selection efficiency [%]", ylim=(max(0, low_end - 0.25 * room), high_end + 0.08 * room)
    )
    first = np.asarray(next(iter(curves.values())).edges_MeV, float)
    ax.set_xlim(first[0], first[-1])
    ax.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@_styled
def roc(
    efficiency: ArrayLike,
    efficiency_error: ArrayLike,
    background_per_day: ArrayLike,
    background_error: ArrayLike,
    *,
    point: tuple[float, float] | None = None,
    label: str = "operating point",
) -> Figure:
    """Efficiency against the background that was measured off time, over all thresholds.

    Args:
        efficiency: Of each threshold, from 0 to 1.
        efficiency_error: Its standard deviations.
        background_per_day: Accidental pairs a live day that pass.
        background_error: Its standard deviations.
        point: Background and efficiency of the threshold that was used.
        label: Its name.
    """
    y, dy, x, dx = (
        _array(v, w)
        for v, w in (
            (efficiency, "efficiency"),
            (efficiency_error, "efficiency error"),
            (background_per_day, "background"),
            (background_error, "background error"),
        )
    )
    if not y.size or not y.shape == dy.shape == x.shape == dx.shape or y.ndim != 1:
        raise NuebarError(f"roc: expected four lists of one length, got {y.shape}, {dy.shape}, {x.shape}, {dx.shape}")
    some = (x > 0) & (dx < _KNOWN * x)
    if not some.any():
        raise NuebarError("roc: expected thresholds whose background is known to better than its size, got none")
    order = np.lexsort((y[some], x[some]))
    x, dx, y, dy = (v[some][order] for v in (x, dx, y, dy))
    figure = _figure(4.0, NARROW_IN)
    ax = figure.add_subplot()
    ax.fill_between(x, 100 * (y - dy), 100 * (y + dy), color=BLUE, alpha=0.2, linewidth=0)
    bars: dict[str, Any] = {"elinewidth": 0.8, "ecolor": GREY, "linewidth": 1.5}
    ax.errorbar(x, 100 * y, xerr=np.minimum(dx, 0.95 * x), color=BLUE, label="thresholds on the score", **bars)
    if point is not None and point[0] > 0 and np.all(np.isfinite(point)):
        mark: dict[str, Any] = {"marker": "*", "markersize": 15, "color": RED, "markeredgecolor": "white"}
        ax.plot(point[0], 100 * point[1], linestyle="none", zorder=6, label=plain(label), **mark)
    lowest = float(100 * y.min())
    if point is not None:
        lowest = max(lowest, 100 * point[1] - 4 * max(100 - 100 * point[1], 1.0))
    room = max(100 - lowest, 1.0)
    ax.set(xscale="log", xlabel="Accidental pairs a live day, off time", ylabel="Efficiency of IBD [%]")
    ax.set_ylim(max(0.0, lowest - 0.05 * room), min(100 + 0.05 * room, 104))
    ax.grid(color="#e4e4e4", linewidth=0.6)
    ax.legend(loc="lower right")
    return figure


@_styled
def score_plane(
    dr_m: ArrayLike, dt_us: ArrayLike, score: ArrayLike, threshold: float, *, box: tuple[float, float] | None = None
) -> Figure:
    """Score of a pair against the distance of its events in space and time, and where it is cut.

    Args:
        dr_m: Shape ``(a,)``.
        dt_us: Shape ``(b,)``.
        score: Shape ``(a, b)``.
        threshold: Least score that is kept.
        box: Largest ΔR and Δt of box cuts.
    """
    x, y, z = _array(dr_m, "dr_m"), _array(dt_us, "dt_us"), _array(score, "score")
    if z.shape != (x.size, y.size) or min(z.shape) < 2:
        raise NuebarError(f"score: expected shape {(x.size, y.size)} of at least 2 × 2, got {z.shape}")
    z = np.clip(z, threshold - _FARTHEST, threshold + _FARTHEST)  # box cuts answer with the largest numbers there are
    figure = _figure(4.2, NARROW_IN)
    ax = figure.add_subplot()
    # Far below the threshold it does not matter by how much.
    depth = max(float(z.max()) - threshold, 1e-9)
    low = max(float(z.min()), threshold - 3 * depth)
    if low >= float(z.max()):
        low = float(z.min()) - 1.0
    levels = np.linspace(low, float(z.max()) + 1e-9, 17)
    area = ax.contourf(x, y, z.T, levels=levels, cmap="cividis", extend="min" if z.min() < low else "neither")
    handles: list[Any] = []
    if z.min() < threshold < z.max():
        ax.contour(x, y, z.T, levels=[threshold], colors=["white"], linewidths=4.0)
        ax.contour(x, y, z.T, levels=[threshold], colors=[BLACK], linewidths=1.8)
        handles += ax.plot([], [], color=BLACK, linewidth=1.8, label="threshold: kept below it")
    if box is not None:
        style: dict[str, Any] = {"color": RED, "linestyle": DASHES[1], "linewidth": 2.0, "label": "box cuts"}
        handles += ax.plot([box[0], box[0], 0], [0, box[1], box[1]], **style)
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    ax.set(xlabel="Distance of the vertices ΔR [m]", ylabel="Time between the events Δt [µs]")
    bar = figure.colorbar(area, ax=ax, pad=0.02)
    bar.set_label("Score of the network [logit]", fontsize=10.5)
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=9)
    step = next(n for n in (0.5, 1, 2, 5, 10, 20, 50, 100) if (levels[-1] - levels[0]) / n <= 7 or n == 100)
    bar.set_ticks((np.arange(np.ceil(levels[0] / step), np.floor(levels[-1] / step) + 1) * step).tolist())
    if handles:
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


@_styled
def importance(names: Sequence[str], mean: ArrayLike, error: ArrayLike) -> Figure:
    """Mean size of the Shapley values of each feature, the largest on top.

    Args:
        names: Features.
        mean: Mean absolute value of each.
        error: Its standard deviation.
    """
    size, bars = _array(mean, "importance"), _array(error, "importance error")
    if size.shape != (len(names),) or bars.shape != size.shape or not len(names):
        raise NuebarError(f"importance: expected {len(names)} numbers and errors, got {size.shape} and {bars.shape}")
    order = np.argsort(-size, kind="stable")
    figure = _figure(0.33 * len(names) + 1.0, NARROW_IN)
    ax = figure.add_subplot()
    y = np.arange(len(names))
    ax.barh(y, size[order], color=BLUE, height=0.66, zorder=2)
    ax.errorbar(size[order], y, xerr=bars[order], fmt="none", ecolor=BLACK, elinewidth=1.1, capsize=2.5, zorder=3)
    ax.set_yticks(y, [feature_label(names[k]) for k in order])
    ax.tick_params(axis="y", which="both", length=0)
    ax.set(ylim=(len(names) - 0.4, -0.6), xlim=(0, 1.06 * float((size + bars).max()) or 1.0))
    ax.set_xlabel("Mean |SHAP value| [logit]")
    return figure


@_styled
def feature_swarm(names: Sequence[str], values: ArrayLike, data: ArrayLike) -> Figure:
    """Every explained pair as a point in the row of each feature, at its Shapley value, coloured by the feature.

    Args:
        names: Features.
        values: Shapley values, shape ``(pairs, features)``.
        data: The features themselves, same shape.
    """
    table, found = _array(values, "SHAP values"), _array(data, "features")
    if table.ndim != 2 or table.shape != found.shape or table.shape[1] != len(names) or not table.size:
        raise NuebarError(f"SHAP values: expected (pairs, {len(names)}) twice, got {table.shape} and {found.shape}")
    order = np.argsort(-np.abs(table).mean(axis=0), kind="stable")
    rows = np.unique(np.linspace(0, len(table) - 1, 2000).astype(int))
    figure = _figure(max(0.4 * len(names) + 0.9, 2.6), NARROW_IN)
    ax = figure.add_subplot()
    ax.axvline(0, color=GREY, linewidth=0.9, zorder=1)
    points: Any = None
    for k, j in enumerate(order):
        value, feature = table[rows, j], found[rows, j]
        rank = np.searchsorted(np.sort(feature), feature, side="left") / max(feature.size - 1, 1)
        style: dict[str, Any] = {"s": 3.0, "cmap": "plasma", "vmin": 0, "vmax": 1.1, "linewidths": 0}
        points = ax.scatter(value, k + _places(value, 0.38), c=rank, rasterized=True, zorder=2, **style)
    ax.set_yticks(range(len(names)), [feature_label(names[j]) for j in order])
    ax.tick_params(axis="y", which="both", length=0)
    ax.set(ylim=(len(names) - 0.4, -0.6), xlabel="SHAP value [logit]")
    bar = figure.colorbar(points, ax=ax, pad=0.02, aspect=25, ticks=[0, 1], boundaries=np.linspace(0, 1, 200))
    bar.ax.set_yticklabels(["low", "high"])
    bar.ax.minorticks_off()
    bar.set_label("Feature (rank)", labelpad=-14, fontsize=10)
    return figure


# ---------------------------------------------------------------- tuning


@_styled
def source_spectra(
    spectra: Mapping[str, Mapping[str, ArrayLike]],
    *,
    result: TuningResult | None = None,
    xlabel: str = tuning_plots.XLABEL,
) -> Figure:
    """Calibration spectra on logarithmic scales with the fit, and (n − μ)/√μ below, each source on its own axis.

    Points below stand for neighbouring bins merged to 10 expected events or more.

    Args:
        spectra: Source → ``edges`` of the observable, ``counts`` and ``expected`` counts per bin.
        result: The tuning, for its p-values; a window with p < 0.01 for its local difference is shaded.
        xlabel: The observable with its unit.

    Raises:
        NuebarError: There is no source, a shape is wrong, or a number is not finite.
    """
    if not spectra:
        raise NuebarError("source_spectra: expected at least one source, got none")
    judged = {s.source: s for s in result.goodness.sources} if result and result.goodness else {}
    columns = min(2, len(spectra))
    rows = -(-len(spectra) // columns)
    figure = _figure(2.75 * rows + 0.7)
    figure.set_layout_engine("constrained", h_pad=0.02, hspace=0.0)
    axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=(2.3, 1.0) * rows)
    for ax in axes.ravel():
        ax.set_axis_off()
    handles: dict[str, Any] = {}
    for k, (source, found) in enumerate(spectra.items()):
        upper, lower = axes[2 * (k // columns), k % columns], axes[2 * (k // columns) + 1, k % columns]
        for ax in (upper, lower):
            ax.set_axis_on()
        lower.sharex(upper)
        edges, counts = _histogram(found["edges"], found["counts"], f"counts of {source!r}")
        expected = _counts(found["expected"], edges, f"expected counts of {source!r}")
        handles |= tuning_plots._source_panels(upper, lower, edges, counts, {"fit": expected})
        upper.set_title(tuning_plots.source_name(plain(source)), loc="left", fontsize=10.5, fontweight="bold", pad=3)
        tuning_plots._judgement(upper, lower, judged.get(source))
        if k % columns == 0:
            upper.set_ylabel("Events per bin", fontsize=10.5)
            lower.set_ylabel("(n − μ)/√μ", fontsize=9)
    figure.supxlabel(xlabel, fontsize=11.5)
    figure.align_ylabels(axes[:, 0])
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=2)
    return figure


def coverage(parameters: Sequence[str], levels: ArrayLike, covered: Mapping[str, ArrayLike], replicas: int) -> Figure:
    """How often credible regions hold the truth of replicas.

    Args:
        parameters: One panel for each.
        levels: Credible levels.
        covered: Parameter → share of the replicas at each level.
        replicas: How many.
    """
    if replicas < 1:
        raise NuebarError(f"coverage: expected at least one replica, got {replicas}")
    table = np.array([_array(covered[name], f"coverage of {name!r}") for name in parameters]).T
    names = list(_words(parameters).values())
    return tuning_rank_plots.coverage_curves({"posterior": table}, replicas, levels=levels, names=names)


# ---------------------------------------------------------------- prediction


def _stackable(edges: np.ndarray, components: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    """Components that can be stacked: what lies below zero is taken from the largest one, so sums stay.

    One that is below zero in all, as a rate with a wide prior can be, is left out of the stack.

    Raises:
        NuebarError: A shape is wrong, a number is not finite, or a component is negative by more than a tail is.
    """
    parts = {}
    for name, counts in _named(components).items():
        values = _array(counts, f"component {name!r}")
        _counts(np.maximum(values, 0.0), edges, f"component {name!r}")
        parts[name] = values
    if not parts:
        raise NuebarError("expected at least one component, such as {'signal': counts}, got none; add one")
    table = np.array(list(parts.values()))
    # Energy scales are applied to first order, which overshoots by a little where next to nothing is.
    least = -_DIP * max(float(table.sum(axis=0).max()), 1.0)
    for name, values in parts.items():
        if values.min() < least:
            raise NuebarError(f"component {name!r}: expected counts of zero or more, got {values.min():g}; correct it")
    lack = np.minimum(table, 0.0).sum(axis=0)
    shown = [name for name, values in parts.items() if values.sum() > 0] or list(parts)
    table = np.array([np.maximum(parts[name], 0.0) for name in shown])
    lack += np.sum([np.maximum(parts[name], 0.0) for name in parts if name not in shown], axis=0)
    largest = table.argmax(axis=0)
    columns = np.arange(table.shape[1])
    table[largest, columns] = np.maximum(table[largest, columns] + lack, 0.0)
    return dict(zip(shown, table, strict=True))


@_styled
def expected_spectrum(
    edges_MeV: ArrayLike,
    components: Mapping[str, ArrayLike],
    *,
    unoscillated: ArrayLike | None = None,
    per_MeV: float = 0.1,
) -> Figure:
    """Expected counts of signal and backgrounds, stacked.

    Args:
        edges_MeV: Shape ``(bins + 1,)``.
        components: Name → counts per bin.
        unoscillated: Signal without oscillation.
        per_MeV: Counts are drawn as a density in this width.
    """
    edges = _array(edges_MeV, "edges_MeV")
    parts = _stackable(edges, components)
    total = np.sum(list(parts.values()), axis=0)
    figure = _figure(4.2, NARROW_IN)
    ax = figure.add_subplot()
    density = per_MeV / np.diff(edges)
    areas = _stack(ax, edges, parts, density)
    lines = [
        ax.stairs(
            total * density, edges, color=RED, linewidth=1.5, zorder=6, label=f"Sum ({_events(float(total.sum()))})"
        )
    ]
    top = float(np.max(total * density))
    if unoscillated is not None:
        free = _counts(unoscillated, edges, "unoscillated") + total - parts.get("signal", np.zeros_like(total))
        style: dict[str, Any] = {"color": BLUE, "linewidth": 1.3, "linestyle": "--", "label": "No oscillation"}
        lines.append(ax.stairs(free * density, edges, zorder=4, **style))
        top = max(top, float(np.max(free * density)))
    ax.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.06 * top if top > 0 else 1.0))
    ax.set(xlabel=_ENERGY, ylabel=f"Expected events per {per_MeV:g} MeV")
    ax.legend(handles=[*lines, *reversed(areas)], loc="upper right", fontsize=8.5)
    return figure


@_styled
def surrogate_residuals(edges_MeV: ArrayLike, surrogate: ArrayLike, reference: ArrayLike, errors: ArrayLike) -> Figure:
    """The fast prediction against reweighted Monte Carlo: relative difference with the error of the Monte Carlo.

    Args:
        edges_MeV: Shape ``(bins + 1,)``.
        surrogate: What the predictor says, per bin.
        reference: Reweighted Monte Carlo.
        errors: Standard deviations of the reference.
    """
    edges, truth = _histogram(edges_MeV, reference, "reference")
    said, sigma = _counts(surrogate, edges, "surrogate"), _array(errors, "errors of the reference")
    if sigma.shape != truth.shape or np.any(sigma < 0):
        raise NuebarError(f"errors of the reference: expected {truth.size} numbers of zero or more, got {sigma.shape}")
    good = (truth > 0) & (sigma > 0) & (sigma < 0.5 * np.where(truth > 0, truth, 1.0))
    if not good.any():
        raise NuebarError("surrogate_residuals: expected bins that the reference knows to better than a half, got none")
    base = np.where(good, truth, 1.0)
    ratio, band = 100 * np.where(good, said / base - 1, np.nan), 100 * np.where(good, sigma / base, np.nan)
    figure = _figure(3.6, NARROW_IN)
    figure.set_layout_engine("constrained", h_pad=0.03, hspace=0.0)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1.6, 1.0))
    flat = np.nan_to_num(band)
    style: dict[str, Any] = {"fill": True, "linewidth": 0}
    upper.stairs(2 * flat, edges, baseline=-2 * flat, color="#ececec", label="Monte Carlo, 2σ", **style)
    upper.stairs(flat, edges, baseline=-flat, color="#c9dcea", label="1σ", **style)
    upper.axhline(0, color=GREY, linewidth=0.8)
    upper.stairs(np.nan_to_num(ratio), edges, baseline=None, color=RED, linewidth=1.3, label="surrogate")
    # Tails of the spectrum, with a handful of events, do not set the scale.
    heavy = good & (truth > 0.15 * truth.max())
    limit = 1.3 * float(np.max(np.maximum(np.abs(ratio[heavy]), 2 * band[heavy]), initial=0.1))
    upper.set(ylim=(-limit, limit), xlim=(edges[0], edges[-1]), ylabel="surrogate /\nMonte Carlo − 1 [%]")
    upper.legend(loc="upper center", ncols=3, fontsize=8.5)
    _bands(lower, horizontal=True)
    pull = np.where(good, (said - truth) / np.where(good, sigma, 1.0), 0.0)
    lower.stairs(pull, edges, baseline=0.0, fill=True, color=SKY, linewidth=0)
    reach = max(3.4, 1.15 * float(np.abs(pull).max()))
    lower.set(ylim=(-reach, reach), xlabel=_ENERGY, ylabel="difference/σ")
    figure.align_ylabels([upper, lower])
    return figure


# ---------------------------------------------------------------- fit


@_styled
def fit_spectrum(
    edges_MeV: ArrayLike,
    counts: ArrayLike,
    components: Mapping[str, ArrayLike],
    *,
    extra_variance: ArrayLike | None = None,
    unoscillated: ArrayLike | None = None,
    simulated: bool = False,
) -> Figure:
    """Data, fitted components and residuals; σ² is the expectation and what else the fit adds to the variance.

    Args:
        edges_MeV: Shape ``(bins + 1,)``.
        counts: Observed, shape ``(bins,)``.
        components: Name → fitted counts per bin.
        extra_variance: Of Monte Carlo and of the measured accidentals, per bin.
        unoscillated: Signal without oscillation.
        simulated: Whether the data are simulated.
    """
    edges, y = _histogram(edges_MeV, counts, "counts")
    parts = _stackable(edges, components)
    total = np.sum(list(parts.values()), axis=0)
    errors = None
    if extra_variance is not None and np.any(_array(extra_variance, "extra_variance") > 0):
        variance = total + _array(extra_variance, "extra_variance")
        errors = np.sqrt(np.where(variance > 0, variance, 1.0))
    figure = _figure(5.4, NARROW_IN)
    figure.set_layout_engine("constrained", h_pad=0.03, hspace=0.0)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1.05])
    figure.align_ylabels([upper, lower])
    plots.spectrum(
        edges,
        y,
        parts,
        simulated="simulated" if simulated else False,
        errors=errors,
        unoscillated=unoscillated,
        xlabel=_ENERGY,
        ax=(upper, lower),
    )
    legend = upper.get_legend()
    if legend is not None:
        for word in legend.get_texts():
            word.set_fontsize(8.5)
    return figure


@_styled
def pull_chart(result: FitResult) -> Figure:
    """Pulls of all nuisance parameters, see :func:`nuebar.report.plots.pulls`.

    Args:
        result: The fit.
    """
    plain_result = _plain_result(result)
    n = sum(1 for p in result.parameters.values() if not p.fixed and p.prior is not None)
    figure = _figure(0.235 * n + 1.1, NARROW_IN)
    ax = figure.add_subplot()
    plots.pulls(plain_result, ax=ax)
    ax.set_yticks(ax.get_yticks(), [_without_unit(word.get_text()) for word in ax.get_yticklabels()])
    return figure


@_styled
def correlations(result: FitResult, names: Sequence[str]) -> Figure:
    """Correlations of some free parameters, see :func:`nuebar.report.plots.correlation`.

    Args:
        result: The fit.
        names: Free parameters.
    """
    side = min(3.4, max(2.0, 0.36 * len(names)))
    figure = _figure(side + 1.6, NARROW_IN)
    ax = figure.add_subplot()
    words = _words(result.parameters)
    plots.correlation(_plain_result(result), [words[name] for name in names], ax=ax)
    size = min(10.0, 0.75 * 72 * side / len(names))
    for axis in (ax.xaxis, ax.yaxis):
        labels = [_without_unit(word.get_text()) for word in axis.get_ticklabels()]
        axis.set_ticks(axis.get_ticklocs(), labels, fontsize=size)
    for text in ax.texts:
        text.set_fontsize(0.85 * size)
    return figure


def _without_unit(label: str) -> str:
    return label.split(" [")[0]


@_styled
def contour(
    names: Sequence[str],
    grids: Sequence[ArrayLike],
    delta_chi2: ArrayLike,
    *,
    best: tuple[float, float] | None = None,
    truth: tuple[float, float] | None = None,
) -> Figure:
    """Regions of two parameters together, with the best fit and, if known, the truth.

    Args:
        names: The two parameters.
        grids: Their values.
        delta_chi2: χ² less its minimum, shape ``(first, second)``.
        best: Best fit.
        truth: True values.
    """
    figure = _figure(4.9, NARROW_IN)
    ax = figure.add_subplot()
    levels = [(delta, f"{k}σ") for k, (delta, _) in enumerate(plots.confidence_levels(), 1)]
    reference = None if truth is None else (truth[0], truth[1], 0.0, 0.0, "Truth")
    labels = (plain(names[0]), plain(names[1]))
    plots.contour(grids[0], grids[1], delta_chi2, labels=labels, levels=levels, best=best, reference=reference, ax=ax)
    return figure


@_styled
def profile(
    name: str,
    grid: ArrayLike,
    delta_chi2: ArrayLike,
    *,
    interval: tuple[float, float] | None = None,
    truth: float | None = None,
) -> Figure:
    """Δχ² along one parameter, see :func:`nuebar.report.plots.profile`, with its interval and, if known, the truth.

    Args:
        name: The parameter.
        grid: Its values.
        delta_chi2: Profiled.
        interval: Its ends.
        truth: True value.
    """
    figure = _figure(3.7, NARROW_IN)
    ax = figure.add_subplot()
    word = plain(name)
    factor = scale_of(word).factor if word in LABELS else 1.0
    handles: list[Any] = []
    if interval is not None:
        low, high = _array(interval, "interval") / factor
        handles.append(ax.axvspan(low, high, color=SKY, alpha=0.25, linewidth=0, label="68.3 % interval"))
    if truth is not None:
        handles.append(ax.axvline(truth / factor, color=RED, linewidth=1.4, linestyle=DASHES[1], label="Truth"))
    plots.profile(grid, delta_chi2, label=word, ax=ax)
    ax.locator_params(axis="x", nbins=6)
    if handles:
        ax.legend(handles=handles, loc="upper center", ncols=2)
        low_y, high_y = ax.get_ylim()
        ax.set_ylim(low_y, high_y + 0.14 * (high_y - low_y))
    return figure


def impact_chart(impacts: Mapping[str, Mapping[str, float]], errors: Mapping[str, float], *, top: int = 8) -> Figure:
    """What moves each parameter of interest most, see :func:`nuebar.report.plots.impacts`.

    Args:
        impacts: Parameter → nuisance parameter → impact.
        errors: Of the parameters.
        top: How many of them.
    """
    words = _words(impacts)
    tables = {words[name]: _named(row) for name, row in impacts.items()}
    return plots.impacts(tables, errors={words[n]: e for n, e in errors.items() if n in words}, top=top)
