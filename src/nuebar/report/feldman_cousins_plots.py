"""Figures of Feldman-Cousins regions: Δχ² of the data against critical values, contours, and maps of critical values.

As in :mod:`nuebar.report.plots`, functions take results and give a matplotlib ``Figure``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nuebar.errors import NuebarError
from nuebar.fit.feldman_cousins import Region, split
from nuebar.fit.profile import delta_chi2_level
from nuebar.parameters import LABELS
from nuebar.report.plots import BLACK, DASHES, GREY, LINES, SKY, _figure, _heading, _styled, axis_label
from nuebar.report.tables import scale_of

if TYPE_CHECKING:
    from nuebar.report.plots import Axes, Figure

__all__ = ["critical_map", "region_1d", "region_2d"]

UNRESOLVED = "! too few toys"


@_styled
def region_1d(region: Region, *, title: str = "", note: str = "") -> Figure:
    """Δχ² of the data, and the critical values of every level with their Monte Carlo errors.

    The region of a level is where the curve is below the points; it is drawn as a bar below the axis of each level,
    pale where the toys do not resolve it, and the ordinary one beside it.

    Args:
        region: Of one parameter.
        title: Text above the axes.
        note: Text above the axes on the right.

    Raises:
        NuebarError: The region has two parameters.
    """
    if len(region.names) != 1:
        raise NuebarError("region_1d: expected one parameter, got two; take region_2d")
    name = region.names[0]
    factor = scale_of(name).factor if name in LABELS else 1.0
    parts = split(region.axes[0])
    figure = _figure(6.2)
    grid = figure.subplots(2, len(parts), sharey="row", squeeze=False, height_ratios=[3, 1.2])
    tops = [region.critical(level)[0] for level in region.levels]
    top = 1.25 * max(float(np.nanmax(t[np.isfinite(t)], initial=1.0)) for t in tops)
    top = min(top, 1.6 * delta_chi2_level(region.levels[-1], 1))
    for column, rows in enumerate(parts):
        upper, lower = grid[0][column], grid[1][column]
        x = region.axes[0][rows] / factor
        upper.plot(*_curve(region, rows, factor), color=BLACK, linewidth=2.0, label="data")
        for k, level in enumerate(region.levels):
            _critical(upper, region, level, rows, x, k)
            _bars(lower, region, level, (x[0], x[-1]), factor, k)
        if x[0] <= region.best[0] / factor <= x[-1]:
            for ax in (upper, lower):
                ax.axvline(region.best[0] / factor, color=GREY, linewidth=0.9, zorder=1)
        upper.set(xlim=(x[0], x[-1]), ylim=(0.0, top))
        upper.tick_params(labelbottom=False)
        lower.set(xlim=(x[0], x[-1]), xlabel=axis_label(name), ylim=(len(region.levels) - 0.4, -0.6))
        lower.tick_params(which="minor", left=False, right=False)
        lower.set_yticks(range(len(region.levels)), [f"{100 * v:g} %{_mark(region, v)}" for v in region.levels])
    grid[0][0].set_ylabel("Δχ²")
    if not all(region.resolved(level) for level in region.levels):
        grid[0][0].plot([], [], linestyle="", label=UNRESOLVED)
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    grid[1][0].set_ylabel("region")
    _heading(grid[0][0], title, "" if len(parts) > 1 else note)
    if len(parts) > 1:
        _heading(grid[0][-1], "", note)
    return figure


def _curve(region: Region, rows: slice, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Δχ² between the points: the square of a polyline of its signed root, as the ends of the regions have it."""
    x, y = region.axes[0][rows], np.sqrt(np.nan_to_num(region.observed[rows]))
    best = region.best[0]
    y = np.where(x < best, -y, y) if x[0] <= best <= x[-1] else y
    if x[0] < best < x[-1] and not np.any(x == best):
        k = int(np.searchsorted(x, best))
        x, y = np.insert(x, k, best), np.insert(y, k, 0.0)
    fine = np.linspace(x[0], x[-1], 801)
    return fine / factor, np.interp(fine, x, y) ** 2


def _critical(ax: Axes, region: Region, level: float, rows: slice, x: np.ndarray, k: int) -> None:
    value, low, high = (a[rows] for a in region.critical(level))
    good = np.isfinite(value)
    up = np.where(np.isfinite(high), high, value) - value
    bars = np.array([value - low, up])[:, good]
    color, label = LINES[k % len(LINES)], f"critical, {100 * level:g} %"
    ax.errorbar(x[good], value[good], yerr=bars, fmt="o", label=label, color=color, markersize=3.5, elinewidth=0.9)
    ax.axhline(delta_chi2_level(level, 1), color=color, linewidth=1.0, linestyle=DASHES[2])


def _bars(ax: Axes, region: Region, level: float, ends: tuple[float, float], factor: float, k: int) -> None:
    kinds = ((region.segments(level), -0.14, "-"), (region.wilks_segments(level), 0.18, ":"))
    for segments, shift, line in kinds:
        for s in segments:
            low, high = s.low / factor, s.high / factor
            if high >= ends[0] and low <= ends[1]:
                pale = line == "-" and not region.resolved(level)
                ax.plot([low, high], [k + shift] * 2, color=LINES[k % len(LINES)], linewidth=3.0, linestyle=line,
                        alpha=0.35 if pale else 1.0)  # fmt: skip


@_styled
def region_2d(region: Region, *, title: str = "", note: str = "") -> Figure:
    """Contours of a region of two parameters, and the ordinary ones as thin dotted lines.

    Args:
        region: Of two parameters.
        title: Text above the axes.
        note: Text above the axes on the right.

    Raises:
        NuebarError: The region has one parameter.
    """
    a, b, x, y = _plane(region)
    figure = _figure(5.8)
    pieces = [(i, j) for i in split(region.axes[0]) for j in split(region.axes[1])]
    shape = (len(split(region.axes[1])), len(split(region.axes[0])))
    axes = np.atleast_2d(figure.subplots(*shape, squeeze=False))
    handles = []
    for n, (i, j) in enumerate(pieces):
        ax = axes[n % shape[0], n // shape[0]]
        for k, level in enumerate(region.levels):
            inner = _finite(region.excess(level))[i, j].T
            outer = (np.sqrt(region.observed) - np.sqrt(delta_chi2_level(level, 2)))[i, j].T
            color = LINES[k % len(LINES)]
            if np.any(inner < 0):
                ax.contourf(x[i], y[j], inner, levels=[min(inner.min(), -1.0) - 1.0, 0.0], colors=[SKY], alpha=0.13)
            for z, style, width in ((inner, "-", 1.8), (_finite(outer), ":", 1.2)):
                if z.min() < 0 < z.max():
                    ax.contour(x[i], y[j], z, levels=[0.0], colors=[color], linestyles=[style], linewidths=[width])
            if n == 0:
                handles += ax.plot([], [], color=color, linewidth=1.8, label=f"{100 * level:g} %{_mark(region, level)}")
        ax.set(xlim=(x[i][0], x[i][-1]), ylim=(y[j][0], y[j][-1]), xlabel=a, ylabel=b)
        best = (region.best[0] / _factor(region.names[0]), region.best[1] / _factor(region.names[1]))
        if x[i][0] <= best[0] <= x[i][-1] and y[j][0] <= best[1] <= y[j][-1]:
            handles += ax.plot(*best, marker="*", markersize=12, color=BLACK, linestyle="none", label="Best fit")
    handles += axes[0, 0].plot([], [], color=GREY, linewidth=1.2, linestyle=":", label="Δχ² of χ² with 2 dof")
    if not all(region.resolved(level) for level in region.levels):
        handles += axes[0, 0].plot([], [], linestyle="", label=UNRESOLVED)
    axes[-1, 0].legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)
    _heading(axes[0, 0], title, note)
    return figure


@_styled
def critical_map(region: Region, *, level: float = 0.6827, title: str = "", note: str = "") -> Figure:
    """Critical values of one level over the plane; few toys, and so larger errors, far from the borders.

    Args:
        region: Of two parameters.
        level: Confidence level.
        title: Text above the axes.
        note: Text above the axes on the right.
    """
    a, b, x, y = _plane(region)
    value = region.critical(level)[0]
    figure = _figure(5.2)
    ax = figure.add_subplot()
    mesh = ax.pcolormesh(x, y, _finite(value).T, cmap="viridis", shading="nearest")
    text = f"critical Δχ², {100 * level:g} % ({delta_chi2_level(level, 2):.2f} for χ² with 2 dof)"
    figure.colorbar(mesh, ax=ax, label=text)
    z = _finite(region.excess(level)).T
    if z.min() < 0 < z.max() and min(z.shape) > 1:
        ax.contour(x, y, z, levels=[0.0], colors=["white"], linewidths=[1.8])
    ax.plot(*(v / _factor(n) for v, n in zip(region.best, region.names, strict=True)), marker="*", markersize=12,
            color="white", linestyle="none")  # fmt: skip
    ax.set(xlabel=a, ylabel=b)
    _heading(ax, title, note)
    return figure


def _plane(region: Region) -> tuple[str, str, np.ndarray, np.ndarray]:
    if len(region.names) != 2:
        raise NuebarError("contour: expected a region of two parameters, got one; take region_1d")
    x, y = (axis / _factor(n) for axis, n in zip(region.axes, region.names, strict=True))
    return axis_label(region.names[0]), axis_label(region.names[1]), x, y


def _mark(region: Region, level: float) -> str:
    return "" if region.resolved(level) else " !"


def _factor(name: str) -> float:
    return scale_of(name).factor if name in LABELS else 1.0


def _finite(values: np.ndarray) -> np.ndarray:
    """Points whose fits failed as far outside as any."""
    good = np.isfinite(values)
    return np.where(good, values, np.max(values[good], initial=1.0))
