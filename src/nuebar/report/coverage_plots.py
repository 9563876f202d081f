"""Figures of a coverage study: shares of toys whose interval holds the truth, and ranks of the truth in posteriors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.report.plots import GREY, LINES, _array, _figure, _heading, _styled, axis_label

if TYPE_CHECKING:
    from nuebar.report.plots import Figure

__all__ = ["coverage_picture", "rank_picture"]

MARKERS = "osD^v"


@_styled
def coverage_picture(rows: Mapping[str, Sequence[Any]], *, title: str = "") -> Figure:
    """Coverage of every interval, one column an exposure, 68 % ranges as bars; hollow where it is off.

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
        for level in levels:
            ax.axvline(100 * level, color=GREY, linewidth=0.9, linestyle=(0, (5, 3)))
        for m, method in enumerate(methods):
            for r in part:
                if r.method != method or not np.isfinite(r.coverage):
                    continue
                y = len(names) - 1 - names.index(r.parameter) + 0.3 - 0.6 * m / max(len(methods) - 1, 1)
                bars = [[100 * max(r.coverage - r.low, 0.0)], [100 * max(r.high - r.coverage, 0.0)]]
                color = LINES[m % len(LINES)]
                ax.errorbar(
                    [100 * r.coverage], [y], xerr=bars, fmt=MARKERS[m % len(MARKERS)], color=color, markersize=4.5,
                    markerfacecolor="white" if r.off else color, elinewidth=1.0,
                )  # fmt: skip
        ax.set(xlabel=f"at {exposure} [%]", ylim=(-0.6, len(names) - 0.4))
    axes[0].set_yticks(range(len(names))[::-1], [axis_label(n).split(" [")[0] for n in names])
    for m, method in enumerate(methods):
        axes[0].plot([], [], MARKERS[m % len(MARKERS)], color=LINES[m % len(LINES)], markersize=4.5, label=method)
    axes[0].plot([], [], "o", color=GREY, markerfacecolor="white", markersize=4.5, label="hollow: off")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(methods) + 1)
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
