"""Figures of expected sensitivity: precision and mass ordering against exposure and resolution, and what limits them.

As in :mod:`nuebar.report.plots`, functions take plain numbers and give a matplotlib ``Figure``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.parameters import LABELS
from nuebar.report.plots import (
    BLACK,
    BLUE,
    EXPECTED,
    GREEN,
    GREY,
    GREYISH,
    LINES,
    PALE,
    PURPLE,
    RED,
    _array,
    _expected,
    _figure,
    _plain_log,
    _styled,
)

if TYPE_CHECKING:
    from nuebar.report.plots import Axes, Figure

__all__ = ["ordering_curves", "precision_curves", "resolution_curves", "systematics_bars"]

Curves = Mapping[str, Mapping[str, ArrayLike]]
COLOURS = {"sin2_th12": BLUE, "sin2_th13": GREEN, "dm2_21_eV2": PURPLE, "dm2_31_eV2": RED}


@_styled
def precision_curves(
    years: ArrayLike,
    curves: Curves,
    statistics: Curves,
    *,
    doubtful: Mapping[str, Mapping[str, Sequence[bool]]] | None = None,
    published: Mapping[str, Sequence[tuple[float, float, float]]] | None = None,
    external: Mapping[str, ArrayLike] | None = None,
) -> Figure:
    """Relative errors against exposure, one panel for each parameter.

    Args:
        years: Exposures in calendar years, increasing.
        curves: Name of a resolution → parameter → relative error in percent at these exposures.
        statistics: The same with statistics only.
        doubtful: Name of a resolution → parameter → whether the error at each exposure is not to be trusted.
        published: Parameter → (years, relative error in percent, its rounding).
        external: Parameter → relative error in percent with external measurements, first resolution.

    Raises:
        NuebarError: Numbers of points differ, or there is no curve or too many.
    """
    x = _array(years, "years")
    if not 1 <= len(curves) <= len(LINES) - 1:
        raise NuebarError(f"sensitivity: expected one to {len(LINES) - 1} resolutions, got {len(curves)}; draw fewer")
    names = list(next(iter(curves.values())))
    rows = -(-len(names) // 2)
    figure = _figure(3.1 * rows + 0.9, 9.2)
    axes = figure.subplots(rows, min(2, len(names)), sharex=True, squeeze=False).ravel()
    for ax, name in zip(axes, names, strict=False):
        for k, (resolution, of) in enumerate(curves.items()):
            y, bare = _same(of[name], x, name), _same(statistics[resolution][name], x, name)
            ax.loglog(x, y, color=LINES[k], linewidth=1.7, label=f"all systematics, resolution {resolution}")
            ax.loglog(
                x, bare, color=LINES[k], linewidth=1.2, linestyle=(0, (4, 2)), label=f"statistics only, {resolution}"
            )
            bad = np.asarray((doubtful or {}).get(resolution, {}).get(name, np.zeros(x.size)), bool)
            if bad.any():
                ax.plot(
                    x[bad],
                    y[bad],
                    linestyle="",
                    marker="o",
                    markersize=6.0,
                    markerfacecolor="white",
                    markeredgecolor=LINES[k],
                    label="not to be trusted: other minima are near" if k == 0 else None,
                    zorder=4,
                )
        more = (external or {}).get(name)
        if more is not None and np.size(more):
            label = "with external measurements"
            ax.loglog(x, _same(more, x, name), color=GREYISH, linewidth=1.3, linestyle=":", label=label)
        told = np.array((published or {}).get(name, ())).reshape(-1, 3)
        if told.size:
            style = {"fmt": "D", "markersize": 4.5, "color": BLACK, "elinewidth": 1.2, "zorder": 5}
            ax.errorbar(
                told[:, 0], told[:, 1], yerr=told[:, 2], label="JUNO, arXiv:2204.13249 (bar: rounding)", **style
            )
        _percent_axis(ax, name)
    for ax in axes[len(names) :]:
        ax.set_visible(False)
    for ax in axes[max(0, len(names) - 2) : len(names)]:
        ax.set_xlabel("exposure [calendar years]")
        _plain_log(ax.xaxis)
    axes[0].set_xlim(x[0] * 0.9, x[-1] * 1.1)
    handles: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3, fontsize=9)
    _expected(axes[min(1, len(names) - 1)])
    return figure


@_styled
def ordering_curves(
    years: ArrayLike,
    delta_chi2: Mapping[str, ArrayLike],
    statistics: Mapping[str, ArrayLike],
    *,
    duty_cycle: float = 1.0,
    power_GW: float = 26.6,
    published: Sequence[tuple[float, float]] = (),
) -> Figure:
    """Median Δχ² of the wrong ordering against exposure.

    Args:
        years: Exposures in calendar years, increasing.
        delta_chi2: Name of a resolution → Δχ².
        statistics: The same with statistics only.
        duty_cycle: Share of the time at full power.
        power_GW: Thermal power of the near cores.
        published: (calendar years, Δχ²).
    """
    x = _array(years, "years")
    figure = _figure(4.9, 7.4)
    ax = figure.add_subplot()
    first = _same(next(iter(delta_chi2.values())), x, "Δχ²")
    spread = 2.0 * np.sqrt(np.maximum(first, 0.0))
    ax.fill_between(x, np.maximum(first - spread, 0.0), first + spread, color=LINES[0], alpha=0.13, linewidth=0,
                    label=f"68 % of data sets, resolution {next(iter(delta_chi2))}, normal approximation",
                    zorder=1)  # fmt: skip
    top = 0.0
    for k, (name, y) in enumerate(delta_chi2.items()):
        bare = _same(statistics[name], x, "Δχ²")
        ax.plot(x, _same(y, x, "Δχ²"), color=LINES[k], linewidth=1.8, label=f"all systematics, resolution {name}")
        ax.plot(x, bare, color=LINES[k], linewidth=1.2, linestyle=(0, (4, 2)), label=f"statistics only, {name}")
        top = max(top, float(np.max(y)))
    if len(published):
        ax.plot(*np.array(published).T, linestyle="", marker="D", color=BLACK, markersize=6, zorder=5,
                label="JUNO + TAO, arXiv:2405.18008")  # fmt: skip
    top = max(1.12 * top, 11.0)
    for n in range(1, int(np.sqrt(top)) + 1):
        ax.axhline(n * n, color=GREY, linewidth=0.8, linestyle=(0, (5, 3)), zorder=0)
        ax.text(1.012, n * n, f"{n}σ", transform=ax.get_yaxis_transform(), va="center", color=GREYISH, fontsize=9.5)
    ax.set(xlim=(0.0, x[-1]), ylim=(0.0, top))
    ax.set(xlabel="exposure [calendar years]", ylabel=r"median $\Delta\chi^2$ of the wrong ordering")

    def scale(by: float) -> Callable[[Any], Any]:
        return lambda t: np.asarray(t) * by

    above = ax.secondary_xaxis("top", functions=(scale(duty_cycle), scale(1.0 / duty_cycle)))
    above.set_xlabel(f"years at full power × {power_GW:.1f} GW", fontsize=10)
    ax.tick_params(axis="x", which="both", top=False)
    ax.legend(loc="upper left", fontsize=9, frameon=True, framealpha=0.9, facecolor="white", edgecolor="none")
    _expected(ax)
    return figure


@_styled
def resolution_curves(
    at_1_MeV: ArrayLike,
    relative: Mapping[str, ArrayLike],
    statistics: Mapping[str, ArrayLike],
    *,
    delta_chi2: ArrayLike | None = None,
    delta_chi2_bare: ArrayLike | None = None,
    title: str = "",
) -> Figure:
    """Errors and Δχ² against the energy resolution, each error over the one with the middle resolution.

    Args:
        at_1_MeV: σ/E at 1 MeV in percent, increasing.
        relative: Parameter → relative error in percent, all systematics.
        statistics: The same with statistics only.
        delta_chi2: Median Δχ² of the wrong ordering.
        delta_chi2_bare: With statistics only.
        title: What is the same everywhere.
    """
    x = _array(at_1_MeV, "at_1_MeV")
    middle = x.size // 2
    panels = 1 if delta_chi2 is None else 2
    figure = _figure(4.1, 5.0 * panels)
    axes = figure.subplots(1, panels, squeeze=False).ravel()
    for name in relative:
        y, bare = _same(relative[name], x, name), _same(statistics[name], x, name)
        colour = COLOURS.get(name, GREYISH)
        label = f"{LABELS.get(name, name)}: {y[middle]:.3g} %"
        axes[0].plot(x, y / y[middle], color=colour, marker="o", markersize=3.5, label=label)
        axes[0].plot(x, bare / bare[middle], color=colour, linewidth=1.1, linestyle=(0, (4, 2)))
    axes[0].axhline(1.0, color=GREY, linewidth=0.8)
    axes[0].set(ylabel=f"error over that at {x[middle]:.2f} %")
    axes[0].legend(loc="upper left", title="all systematics; dashed: statistics only", title_fontsize=8.5, fontsize=9)
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(low, high + 0.35 * (high - low))
    if delta_chi2 is not None:
        axes[1].plot(x, _same(delta_chi2, x, "Δχ²"), color=BLUE, marker="o", markersize=3.5, label="all systematics")
        if delta_chi2_bare is not None:
            y = _same(delta_chi2_bare, x, "Δχ²")
            axes[1].plot(x, y, color=BLUE, linewidth=1.1, linestyle=(0, (4, 2)), label="statistics only")
        axes[1].axhline(9.0, color=GREY, linewidth=0.8, linestyle=(0, (5, 3)), zorder=0)
        axes[1].text(
            1.012, 9.0, "3σ", transform=axes[1].get_yaxis_transform(), va="center", color=GREYISH, fontsize=9.5
        )
        axes[1].set(ylabel=r"median $\Delta\chi^2$ of the wrong ordering")
        axes[1].legend(loc="upper right", fontsize=9)
    for ax in axes:
        ax.set(xlabel="energy resolution σ/E at 1 MeV [%]")
    if title:
        axes[0].set_title(title, loc="left")
    _expected(axes[-1])
    return figure


@_styled
def systematics_bars(
    share: Mapping[str, Mapping[str, float]],
    without: Mapping[str, Mapping[str, float]],
    whole: Mapping[str, float],
    *,
    title: str = "",
) -> Figure:
    """What makes up each error: one panel for each parameter.

    Args:
        share: Group → parameter → its share; squares add up to those of ``whole``.
        without: Group → parameter → error when the group is switched off.
        whole: Parameter → error with everything on.
        title: Exposure and resolution.

    Raises:
        NuebarError: There is no group.
    """
    if not share:
        raise NuebarError("sensitivity: expected at least one group of systematics, got none")
    groups, names = list(share), list(whole)
    figure = _figure(0.36 * len(groups) + 1.7, 2.15 * len(names) + 2.0)
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False).ravel()
    y = np.arange(len(groups))[::-1]
    for ax, name in zip(axes, names, strict=True):
        part = np.array([100.0 * (share[g][name] / whole[name]) ** 2 for g in groups])
        gain = np.array([100.0 * (1.0 - without[g][name] / whole[name]) for g in groups])
        ax.barh(y + 0.19, part, height=0.36, color=COLOURS.get(name, BLUE), label="share of σ²")
        ax.barh(
            y - 0.19, gain, height=0.36, color=PALE, edgecolor=GREYISH, linewidth=0.6, label="σ less, if it were off"
        )
        limit = 1.32 * max(float(np.max(part)), 1.0)
        for at, a, b in zip(y, part, gain, strict=True):
            if a >= 0.05:
                ax.text(a + 0.015 * limit, at + 0.19, f"{a:.1f}", va="center", fontsize=7.5, color=GREYISH)
            if b >= 0.05:
                ax.text(b + 0.015 * limit, at - 0.19, f"{b:.1f}", va="center", fontsize=7.5, color=GREYISH)
        ax.set(xlim=(0.0, limit), xlabel="%")
        ax.set_title(LABELS.get(name, name), fontsize=11.5)
        ax.tick_params(axis="y", which="both", left=False, right=False)
        ax.legend(loc="lower right", fontsize=7.5, handlelength=1.1)
    axes[0].set_yticks(y, groups)
    figure.suptitle(
        (title + "; " if title else "") + EXPECTED, fontsize=9.5, color=GREYISH, style="italic", x=0.995, ha="right"
    )
    return figure


# ---------------------------------------------------------------- helpers


def _same(y: ArrayLike, x: np.ndarray, what: str) -> np.ndarray:
    out = _array(y, what)
    if out.shape != x.shape:
        raise NuebarError(f"{what}: expected {x.size} numbers, one for each point, got {out.size}")
    return out


def _percent_axis(ax: Axes, name: str) -> None:
    ax.set_ylabel(f"error of {LABELS.get(name, name)} [%]")
    ax.grid(which="major", color=PALE, linewidth=0.7)
    _plain_log(ax.yaxis)
