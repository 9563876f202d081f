"""Figures of a tuning to released gammas: the posterior of (kB, fC, scale), and curves beside the released ones.

As in :mod:`nuebar.report.plots`, a function gives a matplotlib ``Figure`` and leaves matplotlib's settings alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter

from nuebar.errors import NuebarError
from nuebar.parameters import LABELS
from nuebar.report.plots import BLACK, BLUE, DASHES, GREY, PALE, RED, _array, _bands, _figure, _styled
from nuebar.report.simulation_plots import WIDTH_IN, _corner, _plain_log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nuebar.jobs.tune_release import PointRow, ReleaseCurve
    from nuebar.report.plots import Axes, Figure

__all__ = ["SHARES", "Layer", "corner_figure", "release_corner", "release_curves"]

SHARES = (0.6827, 0.9545)
"""Probability inside the contours."""

_SCALE = "scale (n-H reads)"
_AXES = {
    "gamma": ("gammas", "Energy of the gamma [MeV]"),
    "electron": ("electrons", "Kinetic energy [MeV]"),
    "positron": ("positrons", "Deposited energy with both masses [MeV]"),
}


@dataclass(frozen=True, eq=False)
class Layer:
    """One posterior of a corner plot.

    Attributes:
        label: For the legend.
        colour: Of its lines.
        dashes: Of its contours.
        samples: Draws, shape ``(n, parameters)``; None for a Gaussian.
        gaussian: Mean and covariance of a Gaussian, drawn where there are no samples.
        best: A point to mark, or None.
    """

    label: str
    colour: str
    dashes: Any = "-"
    samples: np.ndarray | None = None
    gaussian: tuple[np.ndarray, np.ndarray] | None = None
    best: np.ndarray | None = None


def release_corner(
    samples: ArrayLike, best: Sequence[float], *, names: Sequence[str] = ("kB_g_cm2_GeV", "fC", "scale")
) -> Figure:
    """Every pair of parameters of a posterior, with the best fit as a cross.

    Args:
        samples: Draws, shape ``(n, parameters)``.
        best: The best fit.
        names: Of the parameters.

    Raises:
        NuebarError: A shape is wrong, or a number is not finite.
    """
    draws, point = _array(samples, "samples"), _array(best, "best")
    if draws.ndim != 2 or draws.shape[1] != len(names) or point.shape != (len(names),):
        raise NuebarError(
            f"release_corner: expected samples and a best fit of {', '.join(names)}, got shapes {draws.shape} and "
            f"{point.shape}"
        )
    return corner_figure(names, [Layer("posterior", BLUE, samples=draws, best=point)])


@_styled
def corner_figure(names: Sequence[str], layers: Sequence[Layer], *, truth: ArrayLike | None = None) -> Figure:
    """Every pair of parameters of one or several posteriors, contours at :data:`SHARES`, best fits as crosses.

    Args:
        names: Of the parameters, two or more.
        layers: The posteriors; one alone is filled.
        truth: True values, drawn as lines.

    Raises:
        NuebarError: Too few samples or parameters, a shape is wrong, or a number is not finite.
    """
    n = len(names)
    if n < 2 or not layers:
        raise NuebarError(f"corner_figure: expected two parameters or more and a posterior, got {n} and {len(layers)}")
    true = None if truth is None else _array(truth, "truth")
    for layer in layers:
        _check_layer(layer, n)
    spans = [_span(k, layers, true) for k in range(n)]
    figure = _figure(WIDTH_IN, WIDTH_IN)
    figure.set_layout_engine("constrained", w_pad=0.04, h_pad=0.04, wspace=0.0, hspace=0.0)
    axes = figure.subplots(n, n, squeeze=False)
    for i in range(n):
        for j in range(n):
            ax = axes[i, j]
            if j > i:
                ax.set_axis_off()
                continue
            for layer in layers:
                if i == j:
                    _one(ax, layer, i, spans[i])
                else:
                    _two(ax, layer, j, i, (spans[j], spans[i]), filled=len(layers) == 1)
            if true is not None:
                ax.axvline(true[j], color=GREY, linewidth=0.9, zorder=0)
                if i != j:
                    ax.axhline(true[i], color=GREY, linewidth=0.9, zorder=0)
            _ends(ax, i, j, names, spans)
    figure.align_labels()
    _explain(figure, layers, truth=true is not None)
    return figure


def _check_layer(layer: Layer, n: int) -> None:
    if layer.samples is None:
        if layer.gaussian is None or np.shape(layer.gaussian[1]) != (n, n) or np.shape(layer.gaussian[0]) != (n,):
            raise NuebarError(f"{layer.label}: expected samples, or mean and covariance of {n} parameters, got neither")
        _array(layer.gaussian[1], f"{layer.label}, covariance")
        return
    draws = _array(layer.samples, f"{layer.label}, samples")
    if draws.ndim != 2 or draws.shape[1] != n:
        raise NuebarError(f"{layer.label}: expected samples of {n} parameters, got shape {draws.shape}")
    if len(draws) <= 10 * n:
        raise NuebarError(f"{layer.label}: expected more than {10 * n} samples, got {len(draws)}; draw more")
    if np.any(np.ptp(draws, axis=0) == 0):
        raise NuebarError(f"{layer.label}: expected samples that differ in every parameter; leave out what is fixed")


def _span(k: int, layers: Sequence[Layer], truth: np.ndarray | None) -> tuple[float, float]:
    """What an axis must show."""
    ends: list[float] = [] if truth is None else [float(truth[k])]
    for layer in layers:
        if layer.samples is not None:
            ends += np.quantile(layer.samples[:, k], (0.001, 0.999)).tolist()
        elif layer.gaussian is not None:
            reach = 3.3 * float(np.sqrt(layer.gaussian[1][k, k]))
            ends += [float(layer.gaussian[0][k]) - reach, float(layer.gaussian[0][k]) + reach]
        if layer.best is not None:
            ends.append(float(layer.best[k]))
    margin = 0.04 * (max(ends) - min(ends))
    return min(ends) - margin, max(ends) + margin


def _one(ax: Axes, layer: Layer, k: int, span: tuple[float, float]) -> None:
    style: dict[str, Any] = {"color": layer.colour, "linestyle": layer.dashes, "linewidth": 1.4}
    if layer.samples is not None:
        density, edges = np.histogram(layer.samples[:, k], bins=36, range=span, density=True)
        ax.stairs(density, edges, baseline=None, **style)
    elif layer.gaussian is not None:
        x, sigma = np.linspace(*span, 201), np.sqrt(layer.gaussian[1][k, k])
        ax.plot(x, np.exp(-0.5 * ((x - layer.gaussian[0][k]) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi)), **style)
    if layer.best is not None:
        style = {"color": layer.colour, "linewidth": 1.0, "linestyle": DASHES[4]}
        ax.axvline(layer.best[k], **style)


def _two(
    ax: Axes, layer: Layer, j: int, i: int, spans: tuple[tuple[float, float], tuple[float, float]], *, filled: bool
) -> None:
    """Contours in a panel; of a Gaussian they are ellipses at Mahalanobis distance √(−2 ln(1 − share))."""
    if layer.samples is not None:
        x, y, density, levels = _smoothed(layer.samples[:, [j, i]])
        if filled:
            ax.contourf(x, y, density, [*levels, density.max() * 1.01], colors=[layer.colour] * 2, alpha=0.3)
            ax.contourf(x, y, density, [levels[1], density.max() * 1.01], colors=[layer.colour], alpha=0.5)
        ax.contour(x, y, density, levels, colors=layer.colour, linestyles=[layer.dashes], linewidths=1.2)
    elif layer.gaussian is not None:
        mean, covariance = layer.gaussian
        angle = np.linspace(0.0, 2.0 * np.pi, 181)
        circle = np.linalg.cholesky(covariance[np.ix_((j, i), (j, i))]) @ np.array([np.cos(angle), np.sin(angle)])
        for share in SHARES:
            x, y = mean[[j, i], None] + np.sqrt(-2.0 * np.log1p(-share)) * circle
            ax.plot(x, y, color=layer.colour, linestyle=layer.dashes, linewidth=1.2)
    if layer.best is not None:
        ax.plot(layer.best[j], layer.best[i], "+", color=RED if filled else layer.colour, markersize=9, zorder=6)


def _smoothed(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Density of two parameters on a grid, x, y and values, and its levels at :data:`SHARES`, ascending.

    Smoothed in whitened coordinates: along the axes, as the package corner does it, a Gaussian as wide as one of 36
    bins makes contours at a correlation of 0.98 some 40 % wider across than they are. Samples are drawn together
    before, so that their covariance stays what it is.
    """
    width = max(len(draws), 20) ** (-1.0 / 6.0)  # Scott's rule in two dimensions
    mean, root = draws.mean(axis=0), np.linalg.cholesky(np.cov(draws.T))
    u = np.linalg.solve(root, (draws - mean).T) / np.hypot(1.0, width)
    edges = np.linspace(-5.5, 5.5, 111)
    step = edges[1] - edges[0]
    counts = np.histogram2d(u[0], u[1], bins=[edges, edges])[0]
    density = gaussian_filter(counts, width / np.hypot(1.0, width) / step, mode="constant")
    ordered = np.sort(density.ravel())[::-1]
    inside = np.cumsum(ordered) / ordered.sum()
    levels = np.sort([ordered[np.searchsorted(inside, share)] for share in SHARES])
    middle = 0.5 * (edges[1:] + edges[:-1])
    x, y = mean[:, None, None] + np.einsum("ij,jkl->ikl", root, np.array(np.meshgrid(middle, middle, indexing="ij")))
    return x, y, density, levels


def _ends(ax: Axes, i: int, j: int, names: Sequence[str], spans: Sequence[tuple[float, float]]) -> None:
    """Limits, and numbers on the outer axes only."""
    ax.minorticks_off()
    ax.set_xlim(*spans[j])
    ax.locator_params(axis="x", nbins=4)
    if i == j:
        ax.set(ylim=(0.0, None), yticks=[])
    else:
        ax.set_ylim(*spans[i])
        ax.locator_params(axis="y", nbins=4)
    last = len(names) - 1
    ax.tick_params(labelbottom=i == last, labelleft=j == 0 and i > 0, labelsize=9)
    if i == last:
        ax.set_xlabel(_label(names[j]))
    if j == 0 and i > 0:
        ax.set_ylabel(_label(names[i]))


def _label(name: str) -> str:
    return LABELS.get(name, _SCALE if name == "scale" else name.replace("_", " "))


def _explain(figure: Figure, layers: Sequence[Layer], *, truth: bool) -> None:
    """The legend, in the empty corner."""
    shares = " and ".join(f"{100 * s:.1f} %" for s in SHARES)
    lines = [(layer.label, layer.colour) for layer in layers]
    crosses = any(layer.best is not None for layer in layers)
    marks = [("contours: " + shares, BLACK)]
    marks += [("crosses and dotted lines: best fit", BLACK)] if crosses else []
    marks += [("grey lines: truth", GREY)] if truth else []
    for k, (text, colour) in enumerate([*lines, *marks]):
        figure.text(0.985, 0.965 - 0.031 * k, text, ha="right", va="top", color=colour, fontsize=10)


@_styled
def release_curves(rows: Sequence[PointRow], curves: Sequence[ReleaseCurve]) -> Figure:
    """Non-linearity of gammas, electrons and positrons: ours with its band on the released one, differences below.

    Gammas are compared as scintillator non-linearity, which the points are; electrons and positrons as full
    non-linearity, as they are released.

    Args:
        rows: The calibration points.
        curves: gamma, electron, positron.

    Raises:
        NuebarError: A curve is unknown, or there are no points.
    """
    if not rows or [c.name for c in curves] != list(_AXES):
        raise NuebarError(
            f"release_curves: expected points and the curves {', '.join(_AXES)}, got {len(rows)} points and "
            f"{', '.join(c.name for c in curves) or 'no curve'}"
        )
    figure = _figure(11.8, WIDTH_IN)
    grid = figure.add_gridspec(6, 1, height_ratios=(2.2, 1.15) * 3)
    for k, curve in enumerate(curves):
        upper = figure.add_subplot(grid[2 * k])
        lower = figure.add_subplot(grid[2 * k + 1], sharex=upper)
        word, label = _AXES[curve.name]
        gammas = curve.name == "gamma"
        _values(upper, curve, scintillation=gammas)
        _differences(lower, curve)
        if gammas:
            _points(upper, lower, rows)
        upper.set(xscale="log", ylabel="Visible / true", xlim=(0.97 * curve.energy_MeV[0], 1.03 * curve.energy_MeV[-1]))
        upper.tick_params(labelbottom=False)
        lower.set_xlabel(label)
        _plain_log(lower)
        _corner(upper, f"{word}, {'scintillator' if gammas else 'full'} non-linearity")
        low, high = upper.get_ylim()
        upper.set_ylim(low, high + 0.12 * (high - low))
        upper.legend(loc="lower right")
    figure.align_ylabels()
    return figure


def _values(ax: Axes, curve: ReleaseCurve, *, scintillation: bool) -> None:
    e = curve.energy_MeV
    if scintillation:
        # The release gives no band for its scintillator curve: that of the full one, shifted onto it.
        shift = curve.released_scintillation - curve.released
        released = (curve.released_scintillation, curve.released_low + shift, curve.released_high + shift)
        ours = (curve.scintillation, curve.scintillation_low, curve.scintillation_high)
    else:
        released = (curve.released, curve.released_low, curve.released_high)
        ours = (curve.full, curve.full_low, curve.full_high)
    ax.fill_between(e, released[1], released[2], color=GREY, alpha=0.45, linewidth=0, label="released")
    ax.plot(e, released[0], color=BLACK, linewidth=0.9)
    ax.fill_between(e, ours[1], ours[2], color=RED, alpha=0.22, linewidth=0)
    word = "ours, fitted" if scintillation else "ours, predicted"
    ax.plot(e, ours[0], color=RED, linewidth=1.5, linestyle=DASHES[1], label=word)
    if not scintillation:
        style: dict[str, Any] = {"color": BLUE, "linewidth": 0.9, "linestyle": DASHES[4]}
        ax.plot(e, curve.scintillation, label="ours, scintillator alone", **style)


def _points(upper: Axes, lower: Axes, rows: Sequence[PointRow]) -> None:
    for fitted, face in ((True, BLACK), (False, "white")):
        some = [row for row in rows if row.fitted == fitted]
        if not some:
            continue
        e = [row.energy_MeV for row in some]
        style: dict[str, Any] = {"color": BLACK, "marker": "o", "markersize": 4.5, "linestyle": "none", "zorder": 3}
        word = "points, fitted" if fitted else "points, not fitted"
        upper.errorbar(
            e,
            [row.ratio for row in some],
            yerr=[row.error for row in some],
            markerfacecolor=face,
            label=word,
            **style,
        )
        lower.plot(e, [row.pull for row in some], markerfacecolor=face, **style)
    style = {"fontsize": 9, "ha": "right", "va": "bottom", "transform": lower.transAxes}
    lower.text(0.985, 0.04, "circles: (point − ours) / error", **style)


def _differences(ax: Axes, curve: ReleaseCurve) -> None:
    _bands(ax, horizontal=True)
    ax.plot(curve.energy_MeV, curve.in_bands, color=RED, linewidth=1.4)
    top = max(2.4, 1.15 * float(np.max(np.abs(curve.in_bands))))
    ax.set(ylim=(-top, top), ylabel="(ours − rel.)\n/ both bands")
    ax.yaxis.label.set_fontsize(9.5)
    ax.grid(visible=False)
    ax.spines["top"].set_color(PALE)
