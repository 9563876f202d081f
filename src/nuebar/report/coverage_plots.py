"""Figures of a coverage study: shares of toys whose interval holds the truth, and ranks of the truth in posteriors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.report.plots import BLACK, BLUE, GREY, GREYISH, LINES, RED, _array, _figure, _heading, _styled, axis_label

if TYPE_CHECKING:
    from nuebar.report.plots import Figure

__all__ = ["coverage_picture", "rank_picture"]

MARKERS = "osD^v"
LEVEL_COLOURS = (BLUE, RED)
APART = 0.07
"""Between the levels of one interval, in rows of the picture."""


@_styled
def coverage_picture(rows: Mapping[str, Sequence[Any]], *, title: str = "") -> Figure:
    """Coverage of every interval, one column an exposure, 68 % ranges as bars, and a star where it is off.

    Symbols tell the intervals apart; those of the first level (1σ) are filled, of the others open, each in its colour.

    Args:
        rows: Name of an exposure → rows of :func:`nuebar.fit.coverage.coverage`.
        title: Text above the axes.

    Raises:
        NuebarError: There is no row.
    """
    if not rows or not all(rows.values()):
        raise NuebarError("coverage: expected rows at every exposure to draw, got none")
    everything = [r for part in rows.values() for r in part]
    names = list(dict.fromkeys(r.parameter for r in everything))
    methods = list(dict.fromkeys(r.method for r in everything))
    levels = sorted({r.level for r in everything})
    figure = _figure(1.1 + 0.95 * len(names))
    axes = figure.subplots(1, len(rows), sharey=True, squeeze=False)[0]
    for ax, (exposure, part) in zip(axes, rows.items(), strict=True):
        for k, level in enumerate(levels):
            color = LEVEL_COLOURS[k % 2]
            ax.axvline(100 * level, color=color, linewidth=0.9, linestyle=(0, (5, 3)), alpha=0.6, zorder=0)
        for m, method in enumerate(methods):
            for r in part:
                if r.method != method or not np.isfinite(r.coverage):
                    continue
                y = len(names) - 1 - names.index(r.parameter) + 0.3 - 0.6 * m / max(len(methods) - 1, 1)
                k = levels.index(r.level)
                y += APART * (0.5 * (len(levels) - 1) - k)
                bars = [[100 * max(r.coverage - r.low, 0.0)], [100 * max(r.high - r.coverage, 0.0)]]
                color = LEVEL_COLOURS[k % 2]
                ax.errorbar(
                    [100 * r.coverage], [y], xerr=bars, fmt=MARKERS[m % len(MARKERS)], color=color, markersize=4.5,
                    markerfacecolor="white" if k else color, elinewidth=1.0,
                )  # fmt: skip
                if r.off:
                    ax.annotate("*", (100 * r.high, y), (3, -4.5), textcoords="offset points", color=color, fontsize=10)
        ax.margins(x=0.1)  # room for the stars
        ax.set(xlabel=f"at {exposure} [%]", ylim=(-0.6, len(names) - 0.4))
    axes[0].set_yticks(range(len(names))[::-1], [axis_label(n).split(" [")[0] for n in names])
    for m, method in enumerate(methods):
        axes[0].plot([], [], MARKERS[m % len(MARKERS)], color=GREYISH, markersize=4.5, label=method)
    for k, level in enumerate(levels):
        color = LEVEL_COLOURS[k % 2]
        label = f"{next(r.n_sigma for r in everything if r.level == level):g}σ, {100 * level:.2f} %"
        axes[0].plot([], [], "o", color=color, markerfacecolor="white" if k else color, markersize=4.5, label=label)
    axes[0].plot([], [], linestyle="none", marker="$*$", color=BLACK, markersize=5.0, label="off")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    _heading(axes[0], f"{title}: coverage" if title else "coverage", "")
    return figure


@_styled
def rank_picture(ranks: Mapping[str, ArrayLike], *, bins: int = 10, title: str = "") -> Figure:
    """Posterior probability below the truth, flat where posteriors cover.

    Args:
        ranks: Parameter → one number from 0 to 1 a toy.
        bins: Of the histogram.
        title: Text above the axes.
    """
    figure = _figure(4.0)
    ax = figure.add_subplot()
    n = 0
    for k, (name, values) in enumerate(ranks.items()):
        u = _array(values, name)
        n = u.size
        label = axis_label(name).split(" [")[0]
        ax.hist(u, bins=bins, range=(0.0, 1.0), histtype="step", color=LINES[k % len(LINES)], label=label)
    mean = n / bins
    spread = np.sqrt(mean * (1 - 1 / bins))
    ax.axhspan(mean - spread, mean + spread, color=GREY, alpha=0.25, linewidth=0, label="flat, 68 %")
    ax.set(xlabel="posterior probability below the truth", ylabel="toys", xlim=(0.0, 1.0))
    ax.legend(loc="upper center", ncols=3)
    _heading(ax, title, "")
    return figure
