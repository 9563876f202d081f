"""Figures of the selection: features, scores, thresholds, backgrounds, boundary, cut flow, explanations, robustness.

As in :mod:`nuebar.report.plots`, functions give a matplotlib ``Figure``, read no file and leave matplotlib's settings
alone. Antineutrinos are blue, accidental pairs red and hatched or dashed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from nuebar.errors import NuebarError
from nuebar.report.plots import (
    BLACK,
    BLUE,
    DASHES,
    GREEN,
    GREY,
    LINES,
    ORANGE,
    RED,
    _array,
    _figure,
    _heading,
    _styled,
)
from nuebar.select.explain import Boundary, Dependence, Explanation, LocalExplanation
from nuebar.select.features import FEATURES, column
from nuebar.select.operating_point import Curves, Level, OperatingPoint
from nuebar.select.robustness import Change, EfficiencyCurve, Reliability

if TYPE_CHECKING:
    from nuebar.report.plots import Axes, Figure

__all__ = [
    "FEATURE_LABELS",
    "beeswarm",
    "calibration",
    "cut_flow_bars",
    "decision_boundary",
    "dependences",
    "efficiency_against_background",
    "efficiency_bins",
    "feature_distributions",
    "importance_bars",
    "score_distribution",
    "selected_shares",
    "shift_changes",
    "threshold_curves",
    "waterfall",
]

FEATURE_LABELS: Mapping[str, tuple[str, str]] = {
    "r3_prompt_m3": (r"$R^3_{prompt}$", "m³"),
    "r3_delayed_m3": (r"$R^3_{delayed}$", "m³"),
    "dr_m": (r"$\Delta R$", "m"),
    "dt_us": (r"$\Delta t$", "µs"),
    "e_prompt_MeV": (r"$E_{prompt}$", "MeV"),
    "e_delayed_MeV": (r"$E_{delayed}$", "MeV"),
    "cos_theta_prompt": (r"$\cos\theta_{prompt}$", ""),
    "cos_theta_delayed": (r"$\cos\theta_{delayed}$", ""),
    "phi_prompt": (r"$\varphi_{prompt}$", "rad"),
    "phi_delayed": (r"$\varphi_{delayed}$", "rad"),
}
"""Symbol and unit of each feature."""

_CLASSES = {1: ("IBD", BLUE), 0: ("accidentals", RED)}
_MOST = 6
_WORTH = 0.5  # lowest efficiency that is drawn against thresholds
_CLEAR = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
_BEES = 4000  # points of one row of a beeswarm
_EFFICIENCY, _BACKGROUND = "IBD efficiency", "Share of accidental pairs kept"


def _label(name: str) -> str:
    symbol, unit = FEATURE_LABELS[name]
    return f"{symbol} [{unit}]" if unit else symbol


def _value(name: str, at: float) -> str:
    """A feature with its value, short."""
    symbol, unit = FEATURE_LABELS[name]
    digits = f"{at:.0f}" if abs(at) >= 100 else f"{at:.3g}"
    return f"{symbol} = {digits.replace('-', '−')}{' ' if unit else ''}{unit}"


def _what(kind: str) -> str:
    return {"probability": "probability", "logit": "logit"}[kind]


# ---------------------------------------------------------------- inputs and scores


@_styled
def feature_distributions(ibd: np.ndarray, accidentals: np.ndarray, *, bins: int = 60, title: str = "") -> Figure:
    """The ten features of both classes, each normalised to one.

    Args:
        ibd: Features of antineutrinos, shape ``(n, 10)``.
        accidentals: Of accidental pairs.
        bins: Of each panel.
        title: Above the figure.
    """
    figure = _figure(8.2)
    axes = figure.subplots(5, 2)
    handles: list[Any] = []
    for k, name in enumerate(FEATURES):
        ax = axes[k // 2, k % 2]
        both = [_array(column(x, name), name) for x in (ibd, accidentals)]
        if not all(x.size for x in both):
            raise NuebarError("feature_distributions: expected pairs of both classes, got none of one")
        low = min(float(x.min()) for x in both)
        high = max(float(np.quantile(x, 0.9999)) for x in both)
        edges = np.linspace(low, high if high > low else low + 1, bins + 1)
        handles = []
        for x, (word, colour), dashes in zip(both, _CLASSES.values(), ("-", DASHES[1]), strict=True):
            share = np.histogram(x, edges)[0] / x.size
            style: dict[str, Any] = {"color": colour, "linewidth": 1.3, "linestyle": dashes, "label": word}
            handles.append(ax.stairs(share, edges, baseline=None, **style))
            ax.stairs(share, edges, color=colour, alpha=0.12, fill=True, linewidth=0)
        # Long tails next to narrow peaks are seen on a logarithmic scale only.
        steep = name in ("dr_m", "dt_us", "e_prompt_MeV", "e_delayed_MeV")
        ax.set(xlabel=_label(name), xlim=(edges[0], edges[-1]), yscale="log" if steep else "linear")
        if not steep:
            ax.set_ylim(0, None)
        ax.tick_params(which="both", labelsize=9)
    for ax in axes[:, 0]:
        ax.set_ylabel("Share per bin", fontsize=10)
    figure.legend(handles=handles, loc="outside upper center", ncols=2, title=title or None)
    return figure


@_styled
def score_distribution(
    signal: ArrayLike, background: ArrayLike, *, threshold: float | None = None, bins: int = 60, title: str = ""
) -> Figure:
    """The output for both classes: as a probability, as published, and as a logit, which resolves its ends.

    Args:
        signal: Logits of antineutrinos.
        background: Logits of accidental pairs.
        threshold: Drawn as a line.
        bins: Of each panel.
        title: Above the figure.
    """
    logits = [_array(s, what).ravel() for s, what in ((signal, "signal"), (background, "background"))]
    if not all(s.size for s in logits):
        raise NuebarError("score_distribution: expected scores of both classes, got none of one")
    figure = _figure(3.6, 8.0)
    left, right = figure.subplots(1, 2, sharey=True)
    ends = [min(float(s.min()) for s in logits), max(float(s.max()) for s in logits)]
    ends[0] = max(ends[0], float(np.quantile(logits[1], 1e-4)) - 1)
    wide = np.linspace(ends[0], max(ends[1], ends[0] + 1e-6), bins + 1)
    panels: list[tuple[Axes, np.ndarray, Any]] = [(left, np.linspace(0, 1, bins + 1), expit), (right, wide, np.asarray)]
    for ax, edges, of in panels:
        for s, (word, colour), dashes in zip(logits, _CLASSES.values(), ("-", DASHES[1]), strict=True):
            share = np.histogram(np.clip(of(s), edges[0], edges[-1]), edges)[0] / s.size
            ax.stairs(share, edges, baseline=None, color=colour, linewidth=1.4, linestyle=dashes, label=word)
            ax.stairs(share, edges, baseline=1e-12, color=colour, alpha=0.15, fill=True, linewidth=0)
        ax.set(yscale="log", xlim=(edges[0], edges[-1]))
        if threshold is not None and np.isfinite(threshold):
            ax.axvline(of(np.asarray(threshold)), color=BLACK, linewidth=1.0, linestyle=DASHES[2])
    left.set(xlabel="Probability of an IBD", ylabel="Share of the class per bin")
    right.set(xlabel="Logit")
    smallest = 0.5 / max(s.size for s in logits)
    left.set_ylim(smallest, 2.5)
    words, handles = ["IBD", "accidentals"], left.get_legend_handles_labels()[0]
    figure.legend(handles, words, loc="outside upper center", ncols=2, title=title or None)
    return figure


# ---------------------------------------------------------------- thresholds


@_styled
def threshold_curves(
    balanced: Curves, real: Curves | None = None, *, best: OperatingPoint | None = None, title: str = ""
) -> Figure:
    """Purity, efficiency and F₁ against the threshold: balanced classes as published, and at the real rates.

    Args:
        balanced: For classes of equal size; drawn against the probability.
        real: At the real rates; drawn against 1 − threshold on a logarithmic scale, as all that matters is near 1.
        best: An operating point at the real rates, marked.
        title: Above the figure.
    """
    panels = [balanced] if real is None else [balanced, real]
    figure = _figure(3.9, 4.4 * len(panels))
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    names = (("purity", "Purity", BLUE), ("efficiency", "Efficiency", RED), ("f1", "F₁ score", GREEN))
    for k, (ax, c) in enumerate(zip(axes, panels, strict=True)):
        x = c.probability if k == 0 else expit(-np.asarray(c.threshold))
        for j, (name, word, colour) in enumerate(names):
            y = np.asarray(getattr(c, name))
            shown = y > 0 if name == "purity" else np.ones(y.shape, bool)
            ax.plot(x[shown], y[shown], color=colour, linestyle=DASHES[j], linewidth=1.7, label=word)
    ax = axes[0]
    f1 = np.asarray(balanced.f1)
    inside = (balanced.probability > 0.02) & (balanced.probability < 0.98)
    lowest = min(float(getattr(balanced, n)[inside].min(initial=1.0)) for n, _, _ in names)
    ax.set(xlabel="Threshold (probability)", ylabel="Balanced classes", xlim=(0, 1))
    room = max(1 - lowest, 1e-4)
    ax.set_ylim(1 - 1.05 * room, 1 + 0.06 * room)
    top = int(np.argmax(f1))
    ax.plot(balanced.probability[top], f1[top], "*", color=BLACK, markersize=10, zorder=5)
    ax.ticklabel_format(axis="y", useOffset=False)
    if real is not None:
        ax = axes[1]
        ax.set(xscale="log", ylabel="Real rates", ylim=(0, 1.03))
        some = expit(-np.asarray(real.threshold))
        high = some[np.asarray(real.efficiency) >= _WORTH]
        ax.set_xlim(float(some.max()), float(high.min()) if high.size else float(some.min()))
        ax.set_xlabel("1 − threshold")
        top = int(np.argmax(real.f1))
        place = (some[top], real.f1[top]) if best is None else (float(expit(-best.threshold)), best.f1)
        ax.plot(*place, "*", color=BLACK, markersize=10, zorder=5)
    handles = axes[0].get_legend_handles_labels()[0]
    star = axes[0].lines[-1]
    words = [word for _, word, _ in names]
    figure.legend([*handles, star], [*words, "largest F₁"], loc="outside upper center", ncols=4, title=title or None)
    return figure


@_styled
def selected_shares(curves: Curves, *, cuts: OperatingPoint | None = None, title: str = "") -> Figure:
    """Shares of both classes that are kept against 1 − threshold, as published, with the cuts as stars.

    Args:
        curves: At any rates.
        cuts: What the box cuts keep: stars at the threshold with their background.
        title: Above the figure.
    """
    figure = _figure(4.2)
    left = figure.add_subplot()
    right = left.twinx()
    x = expit(-np.asarray(curves.threshold))
    shown = np.asarray(curves.background) > 0
    style: dict[str, Any] = {"linewidth": 1.7}
    dashed = {**style, "linestyle": DASHES[1]}
    handles = left.plot(x[shown], curves.background[shown], color=RED, label="accidentals", **dashed)
    left.fill_between(x[shown], curves.background_low[shown], curves.background_high[shown], color=RED, alpha=0.15)
    handles += right.plot(x, curves.efficiency, color=BLUE, label="IBD", **style)
    left.set(xscale="log", yscale="log", xlabel="1 − threshold", ylabel=_BACKGROUND)
    high = x[np.asarray(curves.efficiency) >= _WORTH]
    left.set_xlim(float(x.max()), float(high.min()) if high.size else float(x.min()))
    right.set_ylabel(_EFFICIENCY, color=BLUE)
    left.yaxis.label.set_color(RED)
    right.tick_params(axis="y", which="both", left=False)
    left.tick_params(axis="y", which="both", right=False)
    lowest = float(np.asarray(curves.efficiency)[shown].min(initial=1.0))
    if cuts is not None and cuts.background.value > 0:
        at = float(np.interp(-np.log(cuts.background.value), -np.log(curves.background[shown]), np.log(x[shown])))
        point: dict[str, Any] = {"marker": "*", "markersize": 13, "linestyle": "none", "markeredgecolor": BLACK}
        left.plot(np.exp(at), cuts.background.value, color=RED, zorder=5, **point)
        handles += right.plot(np.exp(at), cuts.efficiency.value, color=BLUE, zorder=5, label="box cuts", **point)
        lowest = min(lowest, cuts.efficiency.value)
    right.set_ylim(max(0.0, 1 - 1.25 * max(1 - lowest, 0.01)), 1 + 0.05 * max(1 - lowest, 0.01))
    figure.legend(handles=handles, loc="outside upper center", ncols=3, title=title or None)
    return figure


@_styled
def efficiency_against_background(
    levels: Mapping[str, Sequence[Level]],
    points: Mapping[str, OperatingPoint],
    *,
    per_day: float | None = None,
    title: str = "",
) -> Figure:
    """Efficiency against the level of background: classifiers as curves with error bands, cuts as stars.

    Args:
        levels: Classifier → levels in any order; those with fewer than ten effective pairs are drawn dotted.
        points: Name → what cuts keep: a star for the first, an open star for the second, then other marks.
        per_day: Accidental pairs a day, for a second axis.
        title: Above the figure.

    Raises:
        NuebarError: There is nothing to draw, or too much.
    """
    if not 1 <= len(levels) <= _MOST or len(points) > _MOST:
        raise NuebarError(f"efficiency_against_background: expected one to {_MOST} classifiers, got {len(levels)}")
    figure = _figure(4.6)
    ax = figure.add_subplot()
    lowest = 1.0
    for k, (name, some) in enumerate(levels.items()):
        rows = sorted((level for level in some if level.background > 0), key=lambda level: level.background)
        x = np.array([level.background for level in rows])
        y, low, high = (np.array([getattr(level.efficiency, n) for level in rows]) for n in ("value", "low", "high"))
        known = np.array([level.resolved for level in rows])
        colour = LINES[k % len(LINES)]
        ax.fill_between(x[known], low[known], high[known], color=colour, alpha=0.18, linewidth=0)
        ax.plot(x, np.where(known, y, np.nan), color=colour, linestyle=DASHES[k % len(DASHES)], label=name)
        # A dotted line leads on from the last level that is known.
        first = int(np.argmax(known)) if known.any() else len(rows) - 1
        ax.plot(x[: first + 1], y[: first + 1], color=colour, linestyle=":", linewidth=1.2)
        lowest = min(lowest, float(y[known].min(initial=1.0)))
    for k, (name, point) in enumerate(points.items()):
        false, good = point.background, point.efficiency
        lowest = min(lowest, good.low)
        star, first = k < 2, k == 0
        mark: dict[str, Any] = {"marker": "**sDo^"[k], "markersize": 14 if star else 7, "zorder": 6}
        mark |= {"color": BLACK if star else GREY, "linestyle": "none", "label": name}
        mark |= {"markerfacecolor": "white"} if star and not first else {"markeredgecolor": "white"}
        mark["xerr"] = [[false.value - false.low], [false.high - false.value]]
        mark["yerr"] = [[good.value - good.low], [good.high - good.value]]
        ax.errorbar(false.value, good.value, **mark)
    ax.set(xscale="log", xlabel=_BACKGROUND, ylabel=_EFFICIENCY)
    ax.set_ylim(max(0.0, 1 - 1.15 * max(1 - lowest, 0.01)), 1 + 0.04 * max(1 - lowest, 0.01))
    if per_day is not None:
        ax.tick_params(axis="x", which="both", top=False)
        factor = float(per_day)
        above = ax.secondary_xaxis(
            "top", functions=(lambda v: np.asarray(v) * factor, lambda v: np.asarray(v) / factor)
        )
        above.set_xlabel("Accidental pairs a day", fontsize=10.5)
    ax.grid(color="#e4e4e4", linewidth=0.6)
    # Stars may be in any corner of the axes.
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, title=title or None)
    return figure


# ---------------------------------------------------------------- cuts


@_styled
def decision_boundary(
    found: Boundary,
    *,
    box: tuple[float, float] | None = None,
    line: tuple[float, float] | None = None,
    signal: tuple[ArrayLike, ArrayLike] | None = None,
    title: str = "",
) -> Figure:
    """What a classifier keeps in the plane of ΔR and Δt, with the box cuts and the fitted line.

    Args:
        found: From :func:`nuebar.select.explain.boundary`.
        box: Largest ΔR in metres and Δt in microseconds.
        line: a per metre and b per microsecond of a ΔR + b Δt = 1.
        signal: ΔR and Δt of antineutrinos, drawn as points; at most 2000 of them.
        title: Above the axes.
    """
    figure = _figure(4.8)
    ax = figure.add_subplot()
    x, y = np.asarray(found.dr_m), np.asarray(found.dt_us)
    area = ax.contourf(x, y, found.kept.T, levels=np.linspace(0, 1, 11), cmap="cividis", alpha=0.85)
    handles: list[Any] = []
    if signal is not None:
        a, b = (_array(v, "signal").ravel()[:2000] for v in signal)
        ax.plot(a, b, ".", color="white", markersize=1.6, alpha=0.55, zorder=3)
        dot: dict[str, Any] = {"marker": ".", "color": GREY, "linestyle": "none"}
        handles += ax.plot([], [], label="IBD", **dot)
    if found.kept.min() < 0.5 < found.kept.max():
        ax.contour(x, y, found.kept.T, levels=[0.5], colors=[BLACK], linewidths=1.8, zorder=4)
        handles += ax.plot([], [], color=BLACK, linewidth=1.8, label=f"{found.classifier}, half kept")
    if box is not None:
        ends = [box[0], box[0], 0], [0, box[1], box[1]]
        handles += ax.plot(*ends, color=GREEN, linewidth=2.4, zorder=5, label="box cuts")
    if line is not None:
        grid = np.linspace(x[0], x[-1], 200)
        height = (1 - line[0] * grid) / line[1] if line[1] > 0 else np.full(grid.size, np.nan)
        style: dict[str, Any] = {"color": RED, "linestyle": DASHES[1], "linewidth": 2.2}
        if line[1] > 0:
            ax.plot(grid, height, zorder=5, **style)
        elif line[0] > 0:
            ax.axvline(1 / line[0], zorder=5, **style)
        handles += ax.plot([], [], label="fitted line", **style)
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), xlabel=_label("dr_m"), ylabel=_label("dt_us"))
    bar = figure.colorbar(area, ax=ax, pad=0.02)
    bar.set_label("Share of IBD kept there", fontsize=10.5)
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=9)
    figure.legend(handles=handles, loc="outside upper center", ncols=4, title=title or None)
    return figure


@_styled
def cut_flow_bars(rows: Sequence[Mapping[str, Any]], *, title: str = "", note: str = "") -> Figure:
    """What each cut keeps of the antineutrinos: alone, given the fiducial volume, and in sequence.

    Args:
        rows: One table of :meth:`nuebar.select.cut_flow.CutFlow.record`.
        title: Above the axes on the left.
        note: On the right.
    """
    if not rows:
        raise NuebarError("cut_flow_bars: expected rows of a cut flow, got none")
    figure = _figure(0.72 * len(rows) + 1.5)
    ax = figure.add_subplot()
    kinds = (("alone", "alone", BLUE), ("given_fiducial", "inside the fiducial volume", ORANGE),
             ("cumulative", "with all rows above", GREEN))  # fmt: skip
    y = np.arange(len(rows))
    lowest = 100.0
    published: Any = None
    for k, (key, word, colour) in enumerate(kinds):
        value, low, high = (100 * np.array([row[key][n] for row in rows]) for n in ("value", "low", "high"))
        at = y + 0.27 * (k - 1)
        ax.barh(at, value, height=0.25, color=colour, label=word, zorder=2)
        ax.errorbar(value, at, xerr=[value - low, high - value], fmt="none", ecolor=BLACK, elinewidth=1, zorder=3)
        for v, h, place in zip(value, high, at, strict=True):
            ax.text(h + 0.15, place, f"{v:.2f}", va="center", fontsize=8.5, bbox=_CLEAR, zorder=5)
        lowest = min(lowest, float(low.min()))
    for place, row in zip(y, rows, strict=True):
        if row.get("published") is not None:
            lowest = min(lowest, 100 * row["published"])
            ends = [place - 0.42, place + 0.42]
            published = ax.plot([100 * row["published"]] * 2, ends, color=BLACK, linestyle=DASHES[2], zorder=4)[0]
    left = max(0.0, lowest - 0.35 * (100 - lowest) - 0.5)
    ax.set(xlim=(left, 100 + 0.14 * (100 - left)), ylim=(len(rows) - 0.45, -0.55), xlabel="IBD efficiency [%]")
    ax.set_yticks(y, [str(row["name"]) for row in rows])
    ax.tick_params(axis="y", which="both", length=0)
    handles, words = ax.get_legend_handles_labels()
    if published is not None:
        handles, words = [*handles, published], [*words, "published"]
    figure.legend(handles, words, loc="outside lower center", ncols=4)
    _heading(ax, title, note)
    return figure


# ---------------------------------------------------------------- explanations


@_styled
def importance_bars(record: Mapping[str, Any], *, title: str = "") -> Figure:
    """Mean absolute Shapley values with errors, the most important feature on top, published ranks beside.

    Args:
        record: Of :meth:`nuebar.select.explain.Importance.record`.
        title: Above the axes.
    """
    rows = list(record["features"])
    figure = _figure(0.34 * len(rows) + 1.2)
    ax = figure.add_subplot()
    y = np.arange(len(rows))
    mean, error = (np.array([row[n] for row in rows], float) for n in ("mean", "error"))
    ax.barh(y, mean, color=BLUE, height=0.66, zorder=2)
    ax.errorbar(mean, y, xerr=error, fmt="none", ecolor=BLACK, elinewidth=1.1, capsize=2.5, zorder=3)
    top = float((mean + error).max()) or 1.0
    beside = []
    for place, row in zip(y.tolist(), rows, strict=True):
        low, high = row["rank_interval"]
        ranks = f"{low}" if low == high else f"{low} to {high}"
        digits = max(0, min(6, 1 - int(np.floor(np.log10(row["error"]))))) if row["error"] > 0 else 4
        end = row["mean"] + row["error"] + 0.015 * top
        text = f"{row['mean']:.{digits}f} ± {row['error']:.{digits}f}"
        ax.text(end, place, text, va="center", fontsize=9)
        beside.append(f"{ranks};  published {row['published_rank']}")
    ax.set_yticks(y, [FEATURE_LABELS[row["feature"]][0] for row in rows])
    ax.tick_params(axis="y", which="both", length=0)
    ax.set(xlim=(0, 1.45 * top), ylim=(len(rows) - 0.4, -0.6))
    ax.set_xlabel(f"mean |SHAP value| of the {_what(record['explains'])}")
    right = ax.twinx()
    right.set_yticks(y, beside, fontsize=9.5)
    right.set_ylim(ax.get_ylim())
    right.tick_params(axis="y", which="both", length=0)
    right.minorticks_off()
    for word, row in zip(right.get_yticklabels(), rows, strict=True):
        if not row["rank_interval"][0] <= row["published_rank"] <= row["rank_interval"][1]:
            word.set_color(RED)
    _heading(ax, title, "rank (68 %)")
    return figure


def _places(values: np.ndarray, width: float, bins: int = 120) -> np.ndarray:
    """Places across for points at ``values``: side by side where they are dense, in an order that does not vary."""
    low, high = float(values.min()), float(values.max())
    at = np.clip(((values - low) / max(high - low, 1e-300) * bins).astype(int), 0, bins - 1)
    order = np.argsort(at, kind="stable")
    counts = np.bincount(at, minlength=bins)
    starts = np.cumsum(counts) - counts
    inner = np.empty(values.size)
    inner[order] = np.arange(values.size) - starts[at[order]]
    # 0, +1, −1, +2, …: the more points, the wider, up to the width.
    step = np.where(inner % 2, -(inner + 1) / 2, inner / 2)
    return np.asarray(width * step / max(float(np.abs(step).max()), 1.0))


@_styled
def beeswarm(explanation: Explanation, *, order: Sequence[str] | None = None, title: str = "") -> Figure:
    """Every pair as a point in the row of each feature, at its Shapley value, coloured by the feature.

    Args:
        explanation: Of many pairs; 4000 of them, evenly spaced, are drawn.
        order: Features from top to bottom; by mean absolute value by default.
        title: Above the axes.
    """
    size = np.abs(explanation.values).mean(axis=0)
    names = [FEATURES[j] for j in np.argsort(-size, kind="stable")] if order is None else list(order)
    rows = np.unique(np.linspace(0, len(explanation.values) - 1, _BEES).astype(int))
    figure = _figure(max(0.47 * len(names) + 1.0, 2.8))
    ax = figure.add_subplot()
    ax.axvline(0, color=GREY, linewidth=0.9, zorder=1)
    points: Any = None
    for k, name in enumerate(names):
        value = np.asarray(column(explanation.values, name))[rows]
        feature = np.asarray(column(explanation.features, name), float)[rows]
        # Ranks, as a feature may have a long tail.
        rank = np.searchsorted(np.sort(feature), feature, side="left") / max(feature.size - 1, 1)
        style: dict[str, Any] = {"s": 3.0, "cmap": "plasma", "vmin": 0, "vmax": 1.1, "linewidths": 0}
        points = ax.scatter(value, k + _places(value, 0.38), c=rank, rasterized=True, zorder=2, **style)
    ax.set_yticks(range(len(names)), [FEATURE_LABELS[name][0] for name in names])
    ax.tick_params(axis="y", which="both", length=0)
    ax.set(ylim=(len(names) - 0.4, -0.6), xlabel=f"SHAP value of the {_what(explanation.kind)}")
    if points is not None:
        bar = figure.colorbar(points, ax=ax, pad=0.02, aspect=25, ticks=[0, 1], boundaries=np.linspace(0, 1, 200))
        bar.ax.set_yticklabels(["low", "high"])
        bar.ax.minorticks_off()
        bar.set_label("Feature (rank)", labelpad=-14, fontsize=10)
    _heading(ax, title, "")
    return figure


@_styled
def waterfall(local: LocalExplanation, *, shown: int = 7, title: str = "") -> Figure:
    """How the output of one pair comes about, from the base value at the bottom up to the largest value.

    Args:
        local: Of :meth:`nuebar.select.explain.Explanation.local`.
        shown: Features with a row of their own; the others share one.
        title: Above the axes.
    """
    order = local.order
    one, rest = order[:shown], order[shown:]
    rows = [
        (_value(FEATURES[j], float(local.features[j])), float(local.values[j]), float(local.errors[j])) for j in one
    ]
    if rest.size:
        spread = float(np.sqrt(np.sum(local.errors[rest] ** 2)))
        rows.append((f"{rest.size} other features", float(local.values[rest].sum()), spread))
    figure = _figure(0.40 * len(rows) + 1.35)
    ax = figure.add_subplot()
    at, span = local.base, [local.base, local.output]
    texts = []
    for k in range(len(rows) - 1, -1, -1):
        _, value, error = rows[k]
        colour = BLUE if value >= 0 else RED
        ax.barh(k, value, left=at, height=0.62, color=colour, zorder=2)
        if np.isfinite(error):
            ax.errorbar(at + value, k, xerr=error, fmt="none", ecolor=BLACK, elinewidth=1.0, capsize=2, zorder=3)
        ax.plot([at + value] * 2, [k - 1 + 0.31 if k else -0.6, k + 0.31], color=GREY, linewidth=0.8, zorder=1)
        texts.append((k, max(at, at + value), value, error))
        at += value
        span += [at]
    low, high = min(span), max(span)
    room = max(high - low, 1e-6)
    for k, end, value, error in texts:
        tail = max(error + min(value, 0.0), 0.0) if np.isfinite(error) else 0.0
        ax.text(end + tail + 0.015 * room, k, f"{value:+.3f}".replace("-", "−"), va="center", fontsize=9.5, bbox=_CLEAR)
    ax.axvline(local.base, color=GREY, linewidth=1.0, linestyle=DASHES[2], zorder=0)
    ax.set_yticks(range(len(rows)), [row[0] for row in rows])
    ax.tick_params(axis="y", which="both", length=0)
    ax.set(xlim=(low - 0.05 * room, high + 0.16 * room), ylim=(len(rows) - 0.45, -0.65))
    ax.set_xlabel(f"Output ({_what(local.kind)});  mean of the background {local.base:.3f}")
    word = {1: "true IBD, ", 0: "true accidental, ", None: ""}[local.label]
    _heading(ax, title, f"{word}output {local.output:.4f}")
    return figure


@_styled
def dependences(found: Sequence[Dependence], *, labels: ArrayLike | None = None, title: str = "") -> Figure:
    """Shapley values of features against them, coloured by another feature or by class.

    Args:
        found: One panel for each, at most four.
        labels: 1 for antineutrinos, 0 for accidental pairs: colours both classes instead.
        title: Above the figure.
    """
    if not 1 <= len(found) <= 4:
        raise NuebarError(f"dependences: expected one to four features, got {len(found)}; choose some")
    columns = min(2, len(found))
    rows = -(-len(found) // columns)
    figure = _figure(3.3 * rows + 0.4, 4.6 * columns)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(found) :]:
        ax.set_axis_off()
    told = None if labels is None else np.asarray(labels)
    for ax, d in zip(axes, found, strict=False):
        keep = d.x <= np.quantile(d.x, 0.998)
        ax.axhline(0, color=GREY, linewidth=0.8)
        style: dict[str, Any] = {"s": 4.0, "linewidths": 0, "rasterized": True}
        if told is not None:
            for label, (word, colour) in _CLASSES.items():
                some = keep & (told == label)
                ax.scatter(d.x[some], d.values[some], color=colour, label=word, alpha=0.6, **style)
        else:
            rank = np.searchsorted(np.sort(d.colour), d.colour) / max(d.colour.size - 1, 1)
            points = ax.scatter(d.x[keep], d.values[keep], c=rank[keep], cmap="plasma", vmin=0, vmax=1.1, **style)
            bar = figure.colorbar(points, ax=ax, pad=0.02, ticks=[0, 1], boundaries=np.linspace(0, 1, 200))
            bar.ax.set_yticklabels(["low", "high"])
            bar.ax.minorticks_off()
            bar.set_label(FEATURE_LABELS[d.colour_name][0], labelpad=-16)
        ax.set(xlabel=_label(d.name), ylabel=f"SHAP value of {FEATURE_LABELS[d.name][0]}")
    if told is not None:
        handles, words = axes[0].get_legend_handles_labels()
        figure.legend(handles, words, loc="outside upper center", ncols=2, markerscale=3, title=title or None)
    elif title:
        figure.suptitle(title, fontsize=11.5)
    return figure


# ---------------------------------------------------------------- robustness


@_styled
def efficiency_bins(curves: Mapping[str, Mapping[str, EfficiencyCurve]], *, title: str = "") -> Figure:
    """Efficiency against prompt energy and radius, one panel for each, classifiers with their errors.

    Args:
        curves: Classifier → ``energy`` and ``radius`` → curve. Radii are drawn as cubes: equal volumes, equal widths.
        title: Above the figure.
    """
    if not 1 <= len(curves) <= _MOST:
        raise NuebarError(f"efficiency_bins: expected one to {_MOST} classifiers, got {len(curves)}; choose some")
    kinds = list(dict.fromkeys(kind for some in curves.values() for kind in some))
    figure = _figure(3.7, 4.6 * len(kinds))
    axes = figure.subplots(1, len(kinds), squeeze=False)[0]
    for ax, kind in zip(axes, kinds, strict=True):
        lowest = 1.0
        cubes = kind == "radius"
        for k, (name, some) in enumerate(curves.items()):
            if kind not in some:
                continue
            c = some[kind]
            good = c.total > 0
            edges = c.edges**3 if cubes else c.edges
            middle, half = 0.5 * (edges[1:] + edges[:-1]), 0.5 * np.diff(edges)
            bars = {"xerr": half[good], "yerr": [(c.efficiency - c.low)[good], (c.high - c.efficiency)[good]]}
            style: dict[str, Any] = {"fmt": "osD^vP"[k], "markersize": 3.2, "elinewidth": 1.0}
            ax.errorbar(middle[good], c.efficiency[good], **bars, color=LINES[k], label=name, **style)
            # What is nothing, or known badly, does not set the scale.
            clear = good & (c.error < 0.05) & (c.efficiency > 0.05)
            lowest = min(lowest, float(c.low[clear].min(initial=1.0)))
        first = next(some[kind] for some in curves.values() if kind in some)
        unit = f"{first.unit}³" if cubes else first.unit
        word = first.variable[:1].upper() + first.variable[1:] + (" cubed" if cubes else "")
        room = max(1 - lowest, 0.002)
        ax.set(xlabel=f"{word} [{unit}]", ylabel=_EFFICIENCY, ylim=(max(0, 1 - 1.1 * room), 1 + 0.06 * room))
        ax.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, title=title or None)
    return figure


@_styled
def shift_changes(
    found: Mapping[str, Sequence[Change]],
    *,
    background: Mapping[str, Sequence[Change]] | None = None,
    title: str = "",
) -> Figure:
    """How the efficiency changes with the detector, in percentage points, one row for each shift.

    Args:
        found: Classifier → changes by the same shifts.
        background: The same of the accidental pairs, for a second panel: relative changes. A classifier that keeps none
            of them has none.
        title: Above the figure.
    """
    panels = [found] if background is None else [found, background]
    names = [change.shift.name for change in next(iter(found.values()), ())]
    for some in panels:
        if not 1 <= len(some) <= _MOST or list(some) != list(found):
            raise NuebarError(f"shift_changes: expected one to {_MOST} classifiers, got {len(some)}; choose some")
        for name, row in some.items():
            if [change.shift.name for change in row] != names:
                raise NuebarError(
                    f"shift_changes, {name}: expected the shifts {', '.join(names)}; measure the same ones"
                )
    height = (0.42 + 0.06 * max(len(found) - 3, 0)) * len(names) + 1.5
    figure = _figure(height, 4.6 * len(panels)) if len(panels) > 1 else _figure(height)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    words = ("Change of the efficiency [percentage points]", "Relative change of the background [%]")
    for ax, some, word in zip(axes, panels, words, strict=False):
        ax.axvline(0, color=GREY, linewidth=0.9)
        for k, (name, row) in enumerate(some.items()):
            y = np.arange(len(names)) + min(0.22, 0.8 / len(some)) * (k - 0.5 * (len(some) - 1))
            x, error = (100 * np.array([getattr(c, n) for c in row]) for n in ("difference", "error"))
            if some is background:
                before = row[0].before.value
                x, error = (v / before if before > 0 else np.full(v.shape, np.nan) for v in (x, error))
            style: dict[str, Any] = {"fmt": "osD^vP"[k], "color": LINES[k], "markersize": 4.5, "capsize": 2.5}
            ax.errorbar(x, y, xerr=error, label=name, **style)
        ax.set_xlabel(word)
        ax.tick_params(axis="y", which="both", length=0)
        ax.grid(axis="x", color="#e4e4e4", linewidth=0.6)
    axes[0].set_yticks(range(len(names)), [name.replace("-", "−") for name in names])
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, title=title or None)
    return figure


@_styled
def calibration(found: Mapping[str, Reliability], *, title: str = "") -> Figure:
    """Observed share of antineutrinos against the predicted probability, both as logits, and its deviation below.

    Args:
        found: Classifier → table of :func:`nuebar.select.robustness.reliability`.
        title: Above the figure.
    """
    if not 1 <= len(found) <= _MOST:
        raise NuebarError(f"calibration: expected one to {_MOST} classifiers, got {len(found)}; choose some")
    figure = _figure(5.2)
    figure.set_layout_engine("constrained", h_pad=0.03, hspace=0.0)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    figure.align_ylabels([upper, lower])
    highest, widest = 1.0, 0.1
    for k, (name, r) in enumerate(found.items()):
        some = (r.observed > 0) & (r.observed < 1)
        x, y, low, high = (_logit(v[some]) for v in (r.predicted, r.observed, r.low, r.high))
        bars = [np.minimum(y - low, 50.0), np.minimum(high - y, 50.0)]
        label = f"{name}: calibration error {r.ece:.1e}, {r.noise:.1e} ± {r.noise_error:.0e} from counting"
        style: dict[str, Any] = {"fmt": "osD^vP"[k], "color": LINES[k], "markersize": 3.6, "elinewidth": 1.0}
        upper.errorbar(x, y, yerr=bars, label=label, **style)
        lower.errorbar(x, y - x, yerr=bars, **style)
        highest = max(highest, float(np.abs(x).max(initial=1.0)), float(np.abs(y).max(initial=1.0)))
        widest = max(widest, 1.1 * float(np.abs(y - x).max(initial=0.0)))
    ends = np.array([-1.05, 1.05]) * highest
    upper.plot(ends, ends, color=GREY, linewidth=1.0, zorder=0)
    lower.axhline(0, color=GREY, linewidth=1.0, zorder=0)
    upper.set(xlim=ends, ylim=ends, ylabel="ln odds, observed")
    widest = min(widest, 3.0)
    lower.set(ylim=(-widest, widest), ylabel="difference", xlabel="ln odds, predicted")
    upper.legend(loc="upper left", title=title or None)
    return figure


def _logit(p: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(p) - np.log1p(-p))
