"""Figures of studies of a tuning: bias and spread of many fits against events, over many points, and without noise.

As in :mod:`nuebar.report.plots`, functions take plain arrays, give a matplotlib ``Figure``, read no file and leave
matplotlib's settings alone. Parameters are rows of columns, by default those of ``RESPONSE``; several estimators are
told apart by colour and by marker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from nuebar.errors import NuebarError
from nuebar.report.plots import BLACK, BLUE, GREY, LINES, ORANGE, SKY, _array, _figure, _styled
from nuebar.report.tuning_release_plots import _label
from nuebar.tune.density import RESPONSE

if TYPE_CHECKING:
    from nuebar.report.plots import Axes, Figure

__all__ = [
    "Exposures",
    "bias_histograms",
    "exposure_bias",
    "exposure_spread",
    "point_biases",
]

_EXPOSURE = ("bias_percent", "bias_noise_percent", "spread", "ratio_error", "estimated")
_MARKERS = "osD^vP"


@dataclass(frozen=True, eq=False)
class Exposures:
    """Fits of many data sets at several numbers of events.

    Attributes:
        events: Events of a source in a data set, shape ``(n,)``.
        bias: Mean or median of value − truth, shape ``(n, parameters)``.
        bias_error: Its standard error.
        spread: Standard deviation of the best fits.
        spread_error: Its standard error.
        estimated: Typical error that the fits claim.
    """

    events: ArrayLike
    bias: ArrayLike
    bias_error: ArrayLike
    spread: ArrayLike
    spread_error: ArrayLike
    estimated: ArrayLike

    @classmethod
    def from_record(cls, study: Mapping[str, Any]) -> Self:
        """From the JSON form of :class:`nuebar.tune.validate.ExposureStudy`.

        Raises:
            NuebarError: A key is missing.
        """
        try:
            truth, rows = np.asarray(study["truth"], float), study["rows"]
            table = {k: np.array([row[k] for row in rows], float) for k in _EXPOSURE}
            events = np.array([row["events"] for row in rows], float)
        except (KeyError, TypeError, ValueError) as error:
            raise NuebarError(f"not a study of exposures: {type(error).__name__}: {error}") from error
        return cls(
            events,
            table["bias_percent"] * truth / 100.0,
            table["bias_noise_percent"] * np.abs(truth) / 100.0,
            table["spread"],
            table["ratio_error"] * table["estimated"],
            table["estimated"],
        )

    def checked(self, label: str, parameters: int) -> dict[str, np.ndarray]:
        """The arrays.

        Raises:
            NuebarError: A shape is wrong or a number is not finite.
        """
        found = {name: _array(getattr(self, name), f"{label}, {name}") for name in self.__dataclass_fields__}
        events = found["events"]
        if events.ndim != 1 or not events.size or np.any(events <= 0):
            raise NuebarError(f"{label}: expected numbers of events above 0, got {events.tolist()}; correct them")
        for name, array in found.items():
            if name != "events" and array.shape != (events.size, parameters):
                raise NuebarError(
                    f"{label}, {name}: expected shape {(events.size, parameters)}, exposures and parameters, got "
                    f"{array.shape}"
                )
        return found


# ---------------------------------------------------------------- against the number of events


@_styled
def exposure_spread(
    studies: Mapping[str, Exposures], truth: ArrayLike, *, names: Sequence[str] = RESPONSE, title: str = ""
) -> Figure:
    """Spread of the best fits (points) and the error that they claim (rings) against events, with 1/√N.

    Args:
        studies: Estimator → its exposures.
        truth: True values, by which everything is divided; shape ``(parameters,)``.
        names: Of the parameters.
        title: Above the figure.

    Raises:
        NuebarError: There is no study, a shape is wrong, or a number is not finite.
    """
    true, found = _truth(truth, names), _studies(studies, names)
    figure, axes, _ = _row(len(names), 3.5)
    handles: dict[str, Any] = {}
    for j, (ax, name) in enumerate(zip(axes, names, strict=True)):
        scale = 100.0 / abs(true[j])
        for k, (label, s) in enumerate(found.items()):
            x, colour = _shifted(s["events"], k, len(found)), LINES[k % len(LINES)]
            style: dict[str, Any] = {"color": colour, "marker": _MARKERS[k % 6], "linestyle": "none"}
            y, bar = scale * s["spread"][:, j], scale * s["spread_error"][:, j]
            handles[f"{label}: spread"] = ax.errorbar(x, y, yerr=bar, markersize=4, **style)
            ring = ax.plot(x, scale * s["estimated"][:, j], markersize=8, markerfacecolor="none", **style)
            handles[f"{label}: estimated"] = ring[0]
        s = next(iter(found.values()))
        ends = np.array([0.8 * s["events"].min(), 1.25 * s["events"].max()])
        level = float(np.mean(s["spread"][:, j] * np.sqrt(s["events"])))
        line = ax.plot(ends, scale * level / np.sqrt(ends), "--", color=GREY, linewidth=1.0, zorder=0)
        handles[r"$1/\sqrt{N}$"] = line[0]
        ax.set(xscale="log", yscale="log")
        _events_axis(ax, s["events"])
        _plain_ticks(ax)
        ax.set_title(_short(name), loc="left")
    axes[0].set_ylabel("Relative to the truth [%]")
    _finish(figure, handles, title, "Events of each source")
    return figure


@_styled
def exposure_bias(
    studies: Mapping[str, Exposures],
    truth: ArrayLike,
    *,
    aims: ArrayLike | None = None,
    names: Sequence[str] = RESPONSE,
    title: str = "",
) -> Figure:
    """Relative bias with its standard error against the number of events.

    Args:
        studies: Estimator → its exposures.
        truth: True values, shape ``(parameters,)``.
        aims: Largest relative bias aimed at, shape ``(parameters,)``: shaded.
        names: Of the parameters.
        title: Above the figure.

    Raises:
        NuebarError: There is no study, a shape is wrong, or a number is not finite.
    """
    true, found = _truth(truth, names), _studies(studies, names)
    aim = None if aims is None else np.abs(_truth(aims, names))
    figure, axes, _ = _row(len(names), 3.3)
    handles: dict[str, Any] = {}
    for j, (ax, name) in enumerate(zip(axes, names, strict=True)):
        if aim is not None:
            patch = ax.axhspan(-100 * aim[j], 100 * aim[j], color="#d9e8f3", linewidth=0, zorder=0)
            handles["aim"] = patch
        ax.axhline(0.0, color=GREY, linewidth=0.8)
        for k, (label, s) in enumerate(found.items()):
            x, scale = _shifted(s["events"], k, len(found)), 100.0 / true[j]
            style: dict[str, Any] = {"color": LINES[k % len(LINES)], "marker": _MARKERS[k % 6], "markersize": 4.5}
            bar = np.abs(scale) * s["bias_error"][:, j]
            handles[label] = ax.errorbar(x, scale * s["bias"][:, j], yerr=bar, linestyle="none", **style)
        ax.set(xscale="log")
        limit = 1.15 * float(np.abs(ax.get_ylim()).max())
        ax.set_ylim(-limit, limit)
        _events_axis(ax, next(iter(found.values()))["events"])
        ax.tick_params(axis="y", labelsize=9)
        ax.set_title(_short(name), loc="left")
    axes[0].set_ylabel("Relative bias [%]")
    _finish(figure, handles, title, "Events of each source")
    return figure


def _studies(studies: Mapping[str, Exposures], names: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    if not studies:
        raise NuebarError("expected at least one study, got none; name one")
    return {label: study.checked(label, len(names)) for label, study in studies.items()}


def _truth(truth: ArrayLike, names: Sequence[str]) -> np.ndarray:
    true = _array(truth, "truth")
    if true.shape != (len(names),) or np.any(true == 0):
        raise NuebarError(f"truth: expected a number other than 0 for each of {', '.join(names)}, got {true.tolist()}")
    return true


def _shifted(events: np.ndarray, k: int, n: int) -> np.ndarray:
    """Points of several estimators side by side."""
    return np.asarray(events * 1.10 ** (k - 0.5 * (n - 1)))


def _events_axis(ax: Axes, events: np.ndarray) -> None:
    """A tick at each number of events."""
    ax.set_xlim(0.75 * events.min(), 1.35 * events.max())
    ax.set_xticks(events, [f"{n / 1000:g}k" if n >= 1000 else f"{n:g}" for n in events])
    ax.set_xticks([], minor=True)
    ax.tick_params(axis="x", labelsize=9)


def _plain_ticks(ax: Axes) -> None:
    """Few plain numbers on a logarithmic axis."""
    low, high = ax.get_ylim()
    ticks = [m * 10.0**p for p in range(-6, 6) for m in (1, 2, 5) if low <= m * 10.0**p <= high]
    if len(ticks) >= 2:
        ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
        ax.set_yticks([], minor=True)
    ax.tick_params(axis="y", labelsize=9)


# ---------------------------------------------------------------- many points


@_styled
def point_biases(
    parameters: ArrayLike,
    biases: ArrayLike,
    *,
    edge: ArrayLike | None = None,
    noise: ArrayLike = 1.0,
    names: Sequence[str] = RESPONSE,
    title: str = "",
) -> Figure:
    """Bias in units of the expected error at many points, against each parameter's own value and as a histogram.

    Dotted lines and the bell show what the statistical noise alone would do.

    Args:
        parameters: True values, shape ``(points, parameters)``.
        biases: (Value − truth)/error, same shape.
        noise: Statistical error of the biases in the same unit, of a shape that broadcasts to theirs: one for single
            data sets.
        edge: Which points lie so near an edge that the box cuts their fits, shape ``(points,)``.
        names: Of the parameters.
        title: Above the figure.

    Raises:
        NuebarError: A shape is wrong or a number is not finite.
    """
    at, bias = _array(parameters, "parameters"), _array(biases, "biases")
    if at.ndim != 2 or at.shape[1] != len(names) or bias.shape != at.shape or len(at) < 2:
        raise NuebarError(
            f"point_biases: expected two arrays (points, {len(names)}) with two points or more, got {at.shape} and "
            f"{bias.shape}"
        )
    near = np.zeros(len(at), bool) if edge is None else np.asarray(edge, bool)
    if near.shape != (len(at),):
        raise NuebarError(f"edge: expected one word for each of the {len(at)} points, got shape {near.shape}")
    try:
        width = np.sqrt(np.mean(np.broadcast_to(_array(noise, "noise"), bias.shape) ** 2, axis=0))
    except ValueError as error:
        raise NuebarError(f"noise: expected a shape that broadcasts to {bias.shape}, got {np.shape(noise)}") from error
    figure = _figure(2.1 * len(names) + 0.7)
    grid = figure.subplots(len(names), 2, squeeze=False, width_ratios=(2.6, 1.0), sharey="row")
    random = np.random.default_rng(0)  # only shifts points sideways, so that they can be seen
    handles: dict[str, Any] = {}
    for j, (left, right) in enumerate(grid):
        values = np.unique(np.round(at[:, j], 10))
        step = float(np.diff(values).min()) if 1 < values.size <= 60 else 0.0
        x = at[:, j] + 0.3 * step * random.uniform(-1.0, 1.0, len(at))
        for which, colour, label in ((~near, BLUE, "inside"), (near, ORANGE, "near an edge")):
            if which.any():
                style: dict[str, Any] = {"color": colour, "markersize": 2.6, "alpha": 0.6, "markeredgewidth": 0}
                handles[label] = left.plot(x[which], bias[which, j], "o", **style)[0]
        left.axhline(0.0, color=GREY, linewidth=0.8, zorder=0)
        for one in (-width[j], width[j]):
            left.axhline(one, color=GREY, linewidth=0.7, linestyle=":", zorder=0)
        if 1 < values.size <= 60:
            middle = [float(np.median(bias[np.isclose(at[:, j], v) & ~near, j])) if _any(at, j, v, near) else np.nan
                      for v in values]  # fmt: skip
            label = "median, inside"
            handles[label] = left.plot(values, middle, "_", color=BLACK, markersize=13, markeredgewidth=1.8)[0]
        limit = max(3.4 * float(width[j]), 1.1 * float(np.abs(bias[:, j]).max()), 1e-12)
        left.set(ylim=(-limit, limit), xlabel=_label(names[j]))
        left.set_ylabel(f"{_short(names[j])}: bias / error", fontsize=10.5)
        left.tick_params(labelsize=9)
        _sideways(right, bias[~near, j], bias[near, j], limit, float(width[j]))
    grid[-1][1].set_xlabel("points")
    _finish(figure, handles, title, "")
    return figure


def _any(at: np.ndarray, j: int, value: float, near: np.ndarray) -> bool:
    return bool(np.any(np.isclose(at[:, j], value) & ~near))


def _sideways(ax: Axes, inside: np.ndarray, near: np.ndarray, limit: float, noise: float) -> None:
    """A histogram on its side with the noise of the inner points."""
    unit = max(noise, 0.04 * limit)
    edges = np.linspace(-limit, limit, 2 * int(np.ceil(np.clip(2.5 * limit / unit, 8, 25))) + 1)
    counts, beside = np.histogram(inside, edges)[0], np.histogram(near, edges)[0]
    options: dict[str, Any] = {"orientation": "horizontal", "fill": True, "linewidth": 0}
    ax.stairs(counts + beside, edges, baseline=counts, color=ORANGE, **options)
    ax.stairs(counts, edges, color=SKY, **options)
    y = np.linspace(-limit, limit, 201)
    if noise > 0:
        bell = stats.norm.pdf(y, scale=noise)
        ax.plot(inside.size * (edges[1] - edges[0]) * bell, y, color=BLACK, linewidth=1.0)
    ax.set_xlim(0, None)
    ax.tick_params(labelsize=9)
    if inside.size:
        width = f", width {inside.std(ddof=1):.2f}" if inside.size > 1 else ""
        ax.set_title(f"mean {_signed(inside.mean())}{width}", fontsize=8.5, loc="left", pad=3)


@_styled
def bias_histograms(
    biases: Mapping[str, ArrayLike],
    *,
    edge: ArrayLike | None = None,
    names: Sequence[str] = RESPONSE,
    unit: str = "σ at 10 000 events",
    title: str = "",
) -> Figure:
    """Bias of fits to expected spectra without noise: the density's own share of a bias.

    Args:
        biases: Estimator → bias, shape ``(points, parameters)``.
        edge: Which points are near an edge: drawn beside, open; shape ``(points,)``.
        names: Of the parameters.
        unit: Of the biases.
        title: Above the figure.

    Raises:
        NuebarError: There is nothing to draw, a shape is wrong, or a number is not finite.
    """
    found = _tables(biases, len(names), "biases")
    figure, axes, _ = _row(len(names), 3.2)
    handles: dict[str, Any] = {}
    for j, (ax, name) in enumerate(zip(axes, names, strict=True)):
        every = np.abs(np.concatenate([table[:, j] for table in found.values()]))
        limit = max(1.05 * float(every.max()), 1e-12)
        edges = np.linspace(-limit, limit, 31)
        words = []
        for k, (label, table) in enumerate(found.items()):
            near = np.zeros(len(table), bool) if edge is None else np.asarray(edge, bool)
            if near.shape != (len(table),):
                raise NuebarError(f"edge: expected one word for each of the {len(table)} points, got {near.shape}")
            colour = LINES[k % len(LINES)]
            style: dict[str, Any] = {"color": colour, "linewidth": 1.3, "linestyle": ("-", "--", ":")[k % 3]}
            handles[label] = ax.stairs(np.histogram(table[~near, j], edges)[0], edges, **style)
            if near.any():
                beside = ax.stairs(np.histogram(table[near, j], edges)[0], edges, fill=True, color=colour, alpha=0.25)
                handles[f"{label}, near an edge"] = beside
            words.append((f"rms {np.sqrt(np.mean(table[~near, j] ** 2)):.2g}" if (~near).any() else "", colour))
        _words(ax, words)
        ax.axvline(0.0, color=GREY, linewidth=0.8, zorder=0)
        ax.tick_params(labelsize=9)
        ax.locator_params(axis="x", nbins=5)
        ax.set_title(_short(name), loc="left")
    axes[0].set_ylabel("Points")
    _finish(figure, handles, title, f"Bias [{unit}]")
    return figure


# ---------------------------------------------------------------- parts


def _row(n: int, height_in: float) -> tuple[Figure, list[Axes], int]:
    figure = _figure(height_in)
    return figure, list(np.ravel(figure.subplots(1, n, squeeze=False))), n


def _tables(values: Mapping[str, ArrayLike], columns: int, what: str) -> dict[str, np.ndarray]:
    if not values:
        raise NuebarError(f"{what}: expected at least one estimator, got none; name one")
    found = {label: _array(table, f"{what} of {label!r}") for label, table in values.items()}
    for label, table in found.items():
        if table.ndim != 2 or table.shape[1] != columns or not len(table):
            raise NuebarError(f"{what} of {label!r}: expected rows of {columns} numbers, got shape {table.shape}")
    return found


def _short(name: str) -> str:
    """A parameter without its unit."""
    return _label(name).split(" [")[0]


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _words(ax: Axes, lines: Sequence[tuple[str, str]]) -> None:
    for k, (text, colour) in enumerate(lines):
        style: dict[str, Any] = {"ha": "left", "va": "top", "transform": ax.transAxes, "fontsize": 8.5}
        ax.text(0.04, 0.965 - 0.085 * k, text, color=colour, **style)


def _finish(figure: Figure, handles: Mapping[str, Any], title: str, xlabel: str) -> None:
    """The common axis, and the legend above with the title of the figure."""
    if xlabel:
        figure.supxlabel(xlabel, fontsize=11.5)
    if handles:
        place: dict[str, Any] = {"loc": "outside upper center", "ncols": min(len(handles), 4), "title": title or None}
        figure.legend(list(handles.values()), list(handles), **place)
    elif title:
        figure.suptitle(title, fontsize=11.5)
