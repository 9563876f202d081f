"""Figures of how far posteriors and densities can be trusted: ranks, coverage, pulls, and distances from data.

As in :mod:`nuebar.report.tuning_study_plots`, parameters are columns, and several estimators are told apart by colour
and by marker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from nuebar.errors import NuebarError
from nuebar.report.plots import BLACK, BLUE, GREY, LINES, RED, _array, _figure, _styled
from nuebar.report.tuning_plots import source_name
from nuebar.report.tuning_study_plots import _MARKERS, _finish, _plain_ticks, _row, _short, _signed, _tables, _words
from nuebar.stats.ranks import LEVELS
from nuebar.tune.density import RESPONSE

if TYPE_CHECKING:
    from nuebar.report.plots import Figure

__all__ = ["LEVEL", "coverage_curves", "distance_ranges", "pull_histograms", "rank_histograms"]

LEVEL = 0.99
"""Probability of the bands of histograms and coverage."""

_BAND, _FAINT = "#e3e3e3", "#f1f1f1"
_FAR = 5.0  # units of the error, beyond which histograms put everything into the last bin


# ---------------------------------------------------------------- calibration of the posteriors


@_styled
def rank_histograms(
    ranks: Mapping[str, ArrayLike],
    *,
    n_samples: int | None = None,
    bins: int = 20,
    names: Sequence[str] = RESPONSE,
    p_values: Mapping[str, ArrayLike] | None = None,
    title: str = "",
) -> Figure:
    """Ranks of the truth in its posterior, with the band that holds a bin of uniform ranks with 99 %.

    Args:
        ranks: Estimator → ranks from 0 to ``n_samples``, or shares of the posterior below the truth; shape
            ``(sets, parameters)``.
        n_samples: Samples that were ranked; None for shares between 0 and 1.
        bins: Of the histograms.
        names: Of the columns.
        p_values: Estimator → p-value of uniformity of each column.
        title: Above the figure.

    Raises:
        NuebarError: There is nothing to draw, a shape is wrong, or a rank is out of range.
    """
    found = _tables(ranks, len(names), "ranks")
    top = 1.0 if n_samples is None else float(n_samples)
    figure = _figure(2.2 * len(found) + 0.6)
    grid = figure.subplots(len(found), len(names), squeeze=False, sharey="row")
    for k, (row, (label, table)) in enumerate(zip(grid, found.items(), strict=True)):
        if table.min() < 0 or table.max() > top:
            raise NuebarError(f"ranks of {label!r}: expected 0 to {top:g}, got {table.min():g} to {table.max():g}")
        edges, chance = _rank_bins(bins, n_samples)
        low, high = stats.binom.interval(LEVEL, len(table), chance)
        width = np.diff(edges) / np.mean(np.diff(edges))
        for j, (ax, name) in enumerate(zip(row, names, strict=True)):
            counts = np.histogram(table[:, j], edges)[0]
            shown = edges if n_samples is None else (edges - edges[0]) / (edges[-1] - edges[0])
            ax.stairs(high / width, shown, baseline=low / width, fill=True, color=_BAND, linewidth=0)
            ax.stairs(len(table) * chance / width, shown, baseline=None, color=GREY, linewidth=0.8)
            ax.stairs(counts / width, shown, baseline=None, color=BLUE, linewidth=1.3)
            ax.set(xlim=(0, 1), ylim=(0, 1.25 * max(float(high.max()), float(counts.max()))))
            ax.tick_params(labelsize=9)
            if k == 0:
                ax.set_title(_short(name), loc="left")
            if p_values is not None and label in p_values:
                p = float(_array(p_values[label], f"p-values of {label!r}").ravel()[j])
                _words(ax, [(f"p = {p:.2g}", RED if p < 0.01 else BLACK)])
        row[0].set_ylabel(label)
    _finish(figure, {}, title, f"Rank of the truth / samples; bands hold {100 * LEVEL:.0f} % of each bin")
    return figure


def _rank_bins(bins: int, n_samples: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Edges and chances; bins of ranks hold whole numbers, not always equally many."""
    if n_samples is None:
        return np.linspace(0.0, 1.0, bins + 1), np.full(bins, 1.0 / bins)
    values = n_samples + 1
    bins = min(bins, values)
    first = -(-np.arange(bins + 1) * values // bins)
    return first - 0.5, np.diff(first) / values


@_styled
def coverage_curves(
    observed: Mapping[str, ArrayLike],
    sets: int,
    *,
    levels: ArrayLike = LEVELS,
    nominal: ArrayLike | None = None,
    names: Sequence[str] = RESPONSE,
    title: str = "",
) -> Figure:
    """How often credible regions hold the truth, and by how much that differs from what they promise.

    Args:
        observed: Estimator → share of the data sets, shape ``(levels, parameters)``.
        sets: Number of data sets, for the binomial band of 99 %.
        levels: Credible levels, shape ``(levels,)``.
        nominal: What was promised; the levels if None.
        names: Of the columns.
        title: Above the figure.

    Raises:
        NuebarError: There is nothing to draw, a shape is wrong, or a share is not between 0 and 1.
    """
    level = _array(levels, "levels")
    promised = level if nominal is None else _array(nominal, "nominal")
    found = _tables(observed, len(names), "observed")
    for label, table in found.items():
        if len(table) != level.size or promised.shape != level.shape or table.min() < 0 or table.max() > 1:
            raise NuebarError(f"coverage of {label!r}: expected {level.size} shares between 0 and 1, got {table.shape}")
    figure = _figure(5.2)
    figure.set_layout_engine("constrained", h_pad=0.03, hspace=0.0)
    grid = figure.subplots(2, len(names), squeeze=False, sharex=True, sharey="row", height_ratios=(1.7, 1.0))
    chance = np.linspace(0.001, 0.999, 301)
    handles: dict[str, Any] = {}
    for j, name in enumerate(names):
        upper, lower = grid[:, j]
        for share, colour in ((LEVEL, _FAINT), (0.6827, _BAND)):
            low, high = (stats.binom.ppf(q, sets, chance) / sets for q in (0.5 - share / 2, 0.5 + share / 2))
            handles[f"binomial, {100 * share:.3g} %"] = upper.fill_between(chance, low, high, color=colour, linewidth=0)
            lower.fill_between(chance, low - chance, high - chance, color=colour, linewidth=0)
        upper.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
        lower.axhline(0.0, color=GREY, linewidth=0.8)
        for k, (label, table) in enumerate(found.items()):
            style: dict[str, Any] = {"color": LINES[k % len(LINES)], "marker": _MARKERS[k % 6], "markersize": 4.5}
            handles[label] = upper.plot(promised, table[:, j], linewidth=1.0, **style)[0]
            lower.plot(promised, table[:, j] - promised, linewidth=1.0, **style)
        upper.set(xlim=(0, 1), ylim=(0, 1), xticks=(0.2, 0.4, 0.6, 0.8))
        upper.set_title(_short(name), loc="left")
        for ax in (upper, lower):
            ax.tick_params(labelsize=9)
    limit = 1.1 * float(np.abs(grid[1][0].get_ylim()).max())
    grid[1][0].set_ylim(-limit, limit)
    grid[0][0].set_ylabel("Regions that hold the truth")
    grid[1][0].set_ylabel("difference")
    figure.align_ylabels(grid[:, 0])
    _finish(figure, handles, title, f"Credible level; {sets} data sets")
    return figure


@_styled
def pull_histograms(
    pulls: Mapping[str, ArrayLike], *, bins: int = 24, names: Sequence[str] = RESPONSE, title: str = ""
) -> Figure:
    """Pulls (value − truth)/error of many data sets beside the normal distribution.

    Args:
        pulls: Estimator → pulls, shape ``(sets, parameters)``.
        bins: From −5 to 5; what lies beyond is in the first and the last.
        names: Of the parameters.
        title: Above the figure.

    Raises:
        NuebarError: There is nothing to draw, a shape is wrong, or a number is not finite.
    """
    found = _tables(pulls, len(names), "pulls")
    figure, axes, _ = _row(len(names), 3.4)
    edges = np.linspace(-_FAR, _FAR, bins + 1)
    x = np.linspace(-_FAR, _FAR, 201)
    handles: dict[str, Any] = {}
    for j, (ax, name) in enumerate(zip(axes, names, strict=True)):
        words, top = [], float(stats.norm.pdf(0.0))
        for k, (label, table) in enumerate(found.items()):
            pull, colour = table[:, j], LINES[k % len(LINES)]
            density = np.histogram(np.clip(pull, -_FAR, _FAR), edges)[0] / (len(pull) * np.diff(edges))
            top = max(top, float(density.max()))
            style: dict[str, Any] = {"color": colour, "linewidth": 1.3, "linestyle": ("-", "--", ":")[k % 3]}
            handles[label] = ax.stairs(density, edges, baseline=None, **style)
            width = pull.std(ddof=1) if pull.size > 1 else 0.0
            words.append((f"mean {_signed(pull.mean())}, width {width:.2f}", colour))
        handles["N(0, 1)"] = ax.plot(x, stats.norm.pdf(x), color=BLACK, linewidth=0.9)[0]
        ax.set(xlim=(-_FAR, _FAR), ylim=(0, top * (1.12 + 0.11 * len(found))), yticks=[])
        ax.tick_params(labelsize=9)
        _words(ax, words)
        ax.set_title(_short(name), loc="left")
    _finish(figure, handles, title, "(value − truth) / error")
    return figure


# ---------------------------------------------------------------- distances


@_styled
def distance_ranges(
    distances: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]],
    sources: Sequence[str],
    *,
    floor: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
    floor_upper: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
    title: str = "",
) -> Figure:
    """Distances of densities from data, source by source: median and central 68 % of the points, and the floor.

    Args:
        distances: Estimator → d₁, d₂ and d∞, each of shape ``(points, sources)`` or ``(sources,)``.
        sources: Their names.
        floor: Mean distances of a perfect density from as many events, shape ``(sources,)`` each.
        floor_upper: Their 95 % quantiles.
        title: Above the figure.

    Raises:
        NuebarError: There is nothing to draw, a shape is wrong, or a distance is not above 0.
    """
    if not distances or not sources:
        raise NuebarError("distance_ranges: expected a density and a source, got none; name them")
    n = len(sources)
    figure, axes, _ = _row(3, 3.7)
    handles: dict[str, Any] = {}
    for d, (ax, word) in enumerate(zip(axes, (r"$d_1$", r"$d_2$", r"$d_\infty$"), strict=True)):
        for k, (label, tables) in enumerate(distances.items()):
            table = np.atleast_2d(_array(tables[d], f"distances of {label!r}"))
            if table.ndim != 2 or table.shape[1] != n or np.any(table <= 0):
                raise NuebarError(
                    f"distances of {label!r}: expected numbers above 0 of shape (points, {n}), got {table.shape}"
                )
            low, middle, high = np.quantile(table, (0.16, 0.5, 0.84), axis=0)
            x = np.arange(n) + 0.7 * ((k + 0.5) / len(distances) - 0.5)
            style: dict[str, Any] = {"color": LINES[k % len(LINES)], "marker": _MARKERS[k % 6], "markersize": 4.5}
            bars = [middle - low, high - middle]
            handles[label] = ax.errorbar(x, middle, yerr=bars, linestyle="none", **style)
        for values, style in ((floor, {"linewidth": 1.4}), (floor_upper, {"linewidth": 1.0, "linestyle": ":"})):
            if values is not None:
                level = np.broadcast_to(_array(values[d], "floor"), (n,))
                at = np.arange(n)
                line = ax.hlines(level, at - 0.42, at + 0.42, color=GREY, zorder=1, **style)
                handles["perfect density" if values is floor else "perfect density, 95 %"] = line
        ax.set(yscale="log", xlim=(-0.6, n - 0.4), title=word)
        ax.set_xticks(range(n), [source_name(s) for s in sources], rotation=90 if n > 3 else 0)
        ax.tick_params(axis="x", which="minor", bottom=False, top=False)
        _plain_ticks(ax)
    _finish(figure, handles, title, "")
    return figure
