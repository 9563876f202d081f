"""Figures of the mass ordering: Δχ² against exposure, what systematics cost, and toys.

As in :mod:`nuebar.report.plots`, functions take plain numbers and give a matplotlib ``Figure``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.report.plots import (
    BLUE,
    DASHES,
    GREY,
    GREYISH,
    LINES,
    ORANGE,
    _array,
    _expected,
    _figure,
    _heading,
    _styled,
)

if TYPE_CHECKING:
    from nuebar.report.plots import Figure

__all__ = ["ordering_curve", "ordering_systematics", "ordering_toys"]


@_styled
def ordering_curve(
    years: ArrayLike,
    delta_chi2: Mapping[str, ArrayLike],
    *,
    statistics: ArrayLike | None = None,
    power_GW: float = 26.6,
    title: str = "",
) -> Figure:
    """Median Δχ² against exposure, with the range that holds 68 % of data sets around the first curve.

    Args:
        years: Exposures in years at full power, increasing.
        delta_chi2: Name of a resolution → Δχ² at these exposures.
        statistics: The first one without systematics.
        power_GW: Thermal power of the near cores.
        title: Text above the axes.

    Raises:
        NuebarError: Numbers of points differ, or there is no curve or too many.
    """
    x = _array(years, "years")
    if not 1 <= len(delta_chi2) <= len(LINES) - 1:
        raise NuebarError(f"ordering: expected one to {len(LINES) - 1} curves, got {len(delta_chi2)}; draw fewer")
    curves = {name: _array(y, f"curve {name}") for name, y in delta_chi2.items()}
    bare = None if statistics is None or not np.size(statistics) else _array(statistics, "statistics")
    if any(y.shape != x.shape for y in (*curves.values(), *(() if bare is None else (bare,)))):
        raise NuebarError(f"ordering: expected {x.size} numbers in every curve, got other; give one for each exposure")
    figure = _figure(4.6)
    ax = figure.add_subplot()
    for level, word in ((1.0, "1σ"), (4.0, "2σ"), (9.0, "3σ"), (16.0, "4σ")):
        ax.axhline(level, color=GREY, linewidth=0.9, linestyle=(0, (5, 3)), zorder=0)
        ax.text(1.012, level, word, transform=ax.get_yaxis_transform(), va="center", color=GREYISH, fontsize=9.5)
    first = next(iter(curves.values()))
    spread = 2.0 * np.sqrt(np.maximum(first, 0.0))
    label = f"68 % of data sets, resolution {next(iter(curves))},\nnormal approximation"
    ax.fill_between(x, first - spread, first + spread, color=LINES[0], alpha=0.15, linewidth=0, label=label, zorder=1)
    for k, (name, y) in enumerate(curves.items()):
        ax.plot(x, y, color=LINES[k], linestyle=DASHES[k], marker="o", markersize=3.5, label=f"resolution {name}")
    if bare is not None:
        label = f"{next(iter(curves))}, statistics only"
        ax.plot(x, bare, color=GREY, linestyle=":", linewidth=1.6, label=label)
    top = max(float(first.max()), 9.0, 0.0 if bare is None else float(bare.max()))
    ax.set(xlim=(x[0], x[-1]), ylim=(0.0, 1.25 * top))
    ax.set(xlabel=f"exposure [years × {power_GW:.1f} GW]", ylabel="Δχ² of the wrong ordering")
    ax.legend(loc="upper left", frameon=True, framealpha=1.0, edgecolor="none")
    _heading(ax, title, "")
    _expected(ax)
    return figure


@_styled
def ordering_systematics(rows: Mapping[str, tuple[float, float]], *, title: str = "") -> Figure:
    """What each group of systematics costs in Δχ².

    Args:
        rows: Group → Δχ² (without it, with the statistics and it alone); "all" and "none" are what they are counted
            from.
        title: Text above the axes.

    Raises:
        NuebarError: "all" or "none" is missing.
    """
    if "all" not in rows or "none" not in rows:
        raise NuebarError("ordering: expected the groups 'all' and 'none' to count from; add them")
    everything, nothing = rows["all"][0], rows["none"][0]
    names = sorted((n for n in rows if n not in ("all", "none")), key=lambda n: rows[n][1])
    gain = [rows[n][0] - everything for n in names]
    cost = [nothing - rows[n][1] for n in names]
    figure = _figure(0.42 * len(names) + 1.5)
    ax = figure.add_subplot()
    y = np.arange(len(names))[::-1]
    ax.barh(y + 0.2, cost, height=0.38, color=BLUE, label="lost when it is the only one")
    ax.barh(y - 0.2, gain, height=0.38, color=ORANGE, label="won when only it is switched off")
    ax.set_yticks(y, names)
    ax.axvline(0.0, color=GREY, linewidth=0.8)
    ax.set(xlabel=f"Δχ²; {everything:.2f} with all systematics, {nothing:.2f} with none")
    ax.legend(loc="lower right")
    _heading(ax, title, "")
    return figure


@_styled
def ordering_toys(delta_chi2: Mapping[str, ArrayLike], *, bins: int | None = None, title: str = "") -> Figure:
    """Δχ² of toys of both orderings, with normal distributions of their medians and twice the root of it as spread.

    Args:
        delta_chi2: True ordering → one number a toy, χ² of the same ordering less that of the other in both.
        bins: Of the histograms; 2√n of n toys, from 8 to 60, by default.
        title: Text above the axes.
    """
    sets = {name: _array(d, name) for name, d in delta_chi2.items()}
    everything = np.concatenate(list(sets.values()))
    if bins is None:
        bins = max(8, min(60, int(2.0 * np.sqrt(min(d.size for d in sets.values())))))
    edges = np.linspace(everything.min(), everything.max() + 1e-9, bins + 1)
    x = np.linspace(edges[0], edges[-1], 400)
    figure = _figure(4.2)
    ax = figure.add_subplot()
    for (name, d), color in zip(sets.items(), (BLUE, ORANGE), strict=False):
        median = float(np.median(d))
        told = f"{name} true: {d.size} toys, median {_signed(median)}"
        ax.hist(d, bins=edges.tolist(), color=color, alpha=0.3, label=told)
        sigma = 2.0 * np.sqrt(max(abs(median), 1e-12))
        scale = d.size * (edges[1] - edges[0]) / (sigma * np.sqrt(2.0 * np.pi))
        ax.plot(x, scale * np.exp(-0.5 * ((x - median) / sigma) ** 2), color=color, linestyle="--")
    ax.axvline(0.0, color=GREY, linewidth=0.9)
    first = next(iter(sets))
    other = "inverted" if first == "normal" else "normal"
    ax.set(xlabel=f"Δχ² = χ²({other}) − χ²({first}) of simulated data sets", ylabel="data sets")
    ax.set_ylim(top=1.25 * ax.get_ylim()[1])
    ax.legend(loc="upper center", ncols=2)
    _heading(ax, title, "")
    return figure


def _signed(x: float) -> str:
    return f"{x:+.2f}".replace("-", "−")
