"""Figures of densities and of tunings with them: spectra and fits, trainings, posteriors.

As in :mod:`nuebar.report.plots`, functions give a matplotlib ``Figure``, read no file and leave matplotlib's settings
alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.io.tunings import SourceGoodness, TuningResult
from nuebar.report.plots import (
    BLACK,
    DASHES,
    GREY,
    LINES,
    ORANGE,
    RED,
    _array,
    _bands,
    _figure,
    _styled,
)
from nuebar.report.tuning_release_plots import Layer, _label, corner_figure
from nuebar.tune.data import CalibrationData
from nuebar.tune.density import Density, source_index
from nuebar.tune.train import probabilities_of

if TYPE_CHECKING:
    from nuebar.report.plots import Axes, Figure

__all__ = [
    "XLABEL",
    "expected_counts",
    "posterior_corner",
    "source_name",
    "spectra",
    "training_curves",
]

XLABEL = "Observable [1000 p.e., scaled]"
_NAMES = {"Cs137": "¹³⁷Cs", "K40": "⁴⁰K", "Co60": "⁶⁰Co", "AmBe": "AmBe", "AmC": "AmC", "Ge68": "⁶⁸Ge", "Mn54": "⁵⁴Mn"}
_MERGED = 10.0  # expected events of a point in the lower panels: then (data − fit)/σ is close to normal
_PARTS = 300  # most points of equal expectation
_MOST = 6  # curves in one panel
_SUSPICIOUS = 0.01  # p-value below which the window that differs most is shaded


def source_name(source: str) -> str:
    """A source as physicists write it."""
    return _NAMES.get(source, source.replace("_", " "))


# ---------------------------------------------------------------- spectra and fits


def expected_counts(
    data: CalibrationData, density: Density, response: ArrayLike, norms: Mapping[str, float] | None = None
) -> np.ndarray:
    """What a density expects where the data are, background included.

    Args:
        data: For the numbers of events and the background.
        density: Knows the sources of the data.
        response: The three numbers of ``RESPONSE``.
        norms: Relative norm by source; one where a source is left out.

    Returns:
        Shape ``(sources, bins)``, in the order of the data.

    Raises:
        NuebarError: The density does not know a source, or has other bins.
    """
    rows = [source_index(source, density.sources, density.name) for source in data.sources]
    p = probabilities_of(density, _array(response, "response")[None])[0][rows]
    if p.shape != data.counts.shape:
        raise NuebarError(f"density {density.name!r}: expected {data.counts.shape[1]} bins, got {p.shape[1]}")
    background = np.zeros(p.shape) if data.background is None else data.background
    scale = np.array([(norms or {}).get(source, 1.0) for source in data.sources])
    return scale[:, None] * (data.events - background.sum(axis=1))[:, None] * p + background


@_styled
def spectra(
    data: CalibrationData,
    models: Mapping[str, ArrayLike],
    *,
    result: TuningResult | None = None,
    title: str = "",
    xlabel: str = XLABEL,
) -> Figure:
    """Data and expected counts of all sources on logarithmic scales, with (n − μ)/√μ below.

    Points below stand for neighbouring bins merged to 10 expected events or more, at the mean of these.

    Args:
        data: What was measured.
        models: Label → expected counts as of :func:`expected_counts`; at most six.
        result: A tuning whose p-values are printed; a window with p < 0.01 for its local difference is shaded.
        title: Above the figure.
        xlabel: The observable with its unit.

    Raises:
        NuebarError: There is no model or there are too many, a shape is wrong, or a number is not finite.
    """
    if not 1 <= len(models) <= _MOST:
        raise NuebarError(f"spectra: expected one to {_MOST} models, got {len(models)}; choose some")
    tables = {name: _array(m, f"model {name!r}") for name, m in models.items()}
    for name, table in tables.items():
        if table.shape != data.counts.shape or table.min() < 0:
            raise NuebarError(
                f"model {name!r}: expected counts of zero or more of shape {data.counts.shape}, got {table.shape}"
            )
    judged = {s.source: s for s in result.goodness.sources} if result and result.goodness else {}
    columns = min(2, len(data.sources))
    rows = -(-len(data.sources) // columns)
    figure = _figure(2.75 * rows + (0.7 if rows > 1 else 1.7))
    figure.set_layout_engine("constrained", h_pad=0.02, hspace=0.0)
    axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=(2.3, 1.0) * rows)
    for ax in axes.ravel():
        ax.set_axis_off()
    handles: dict[str, Any] = {}
    for s, source in enumerate(data.sources):
        upper, lower = axes[2 * (s // columns), s % columns], axes[2 * (s // columns) + 1, s % columns]
        upper.set_axis_on()
        lower.set_axis_on()
        lower.sharex(upper)
        rows_of = {name: table[s] for name, table in tables.items()}
        handles |= _source_panels(upper, lower, data.edges, data.counts[s], rows_of)
        upper.set_title(source_name(source), loc="left", fontsize=10.5, fontweight="bold", pad=3)
        _judgement(upper, lower, judged.get(source))
    note = _summary(result)
    figure.supxlabel(xlabel, fontsize=11.5)
    for upper, lower in axes.reshape(rows, 2, columns)[:, :, 0]:
        upper.set_ylabel("Events per bin", fontsize=10.5)
        lower.set_ylabel("(n − μ)/√μ", fontsize=9)
    figure.align_ylabels(axes[:, 0])
    words = "\n".join(word for word in (title, note) if word)
    legend: dict[str, Any] = {"ncols": min(4, len(handles)), "title": words or None}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", **legend)
    return figure


def _source_panels(
    upper: Axes, lower: Axes, edges: np.ndarray, n: np.ndarray, models: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """One source; the handles of the legend by label."""
    first = next(iter(models.values()))
    last = int(np.flatnonzero((n > 0) | (first > 0.3)).max(initial=0)) + 1
    last = min(n.size, last + max(2, last // 30))
    shown = edges[: last + 1]
    top = max(float(n.max()), float(first.max()), 1.0)
    low = 0.3 if n.sum() < 1e5 * last else 0.3 * max(1.0, float(n[:last][n[:last] > 0].min(initial=1.0)))
    data = upper.stairs(np.maximum(n[:last], 1e-3), shown, baseline=1e-3, fill=True, color="#c4c4c4", linewidth=0)
    handles: dict[str, Any] = {"data": data}
    _bands(lower, horizontal=True)
    parts, limit = _parts(first[:last]), 3.4
    middle, weight = 0.5 * (shown[:-1] + shown[1:]), first[:last] + 1e-9
    centre = np.add.reduceat(middle * weight, parts[:-1]) / np.add.reduceat(weight, parts[:-1])
    observed = np.add.reduceat(n[:last], parts[:-1])
    for k, (name, model) in enumerate(models.items()):
        colour = LINES[k % len(LINES)]
        style: dict[str, Any] = {"color": colour, "linestyle": DASHES[k % len(DASHES)], "linewidth": 1.1}
        handles[name] = upper.stairs(np.maximum(model[:last], 1e-3), shown, baseline=None, **style)
        expected = np.add.reduceat(model[:last], parts[:-1])
        good = expected > 0
        pull = (observed - expected)[good] / np.sqrt(expected[good])
        limit = max(limit, 1.15 * float(np.abs(pull).max(initial=0.0)))
        size = 3.2 if parts.size < 40 else 1.9
        lower.plot(centre[good], pull, "osD^vP"[k % 6], color=colour, markersize=size, markeredgewidth=0, alpha=0.85)
    upper.set(yscale="log", xlim=(shown[0], shown[-1]), ylim=(low, 2.5 * top))
    upper.tick_params(labelbottom=False, labelsize=9)
    lower.set_ylim(-limit, limit)
    lower.locator_params(axis="y", nbins=5)
    lower.tick_params(labelsize=9)
    return handles


def _parts(expected: np.ndarray) -> np.ndarray:
    """First bins of groups of neighbours with enough events, and the end."""
    enough = max(_MERGED, float(expected.sum()) / _PARTS)
    starts, held = [0], 0.0
    for k, more in enumerate(expected):
        held += float(more)
        if held >= enough and k + 1 < expected.size:
            starts.append(k + 1)
            held = 0.0
    if held < enough and len(starts) > 1:
        starts.pop()  # the rest goes to the group before
    return np.array([*starts, expected.size])


def _judgement(upper: Axes, lower: Axes, found: SourceGoodness | None) -> None:
    if found is None:
        return
    bad = found.p_value < _SUSPICIOUS
    text = f"p: {_p(found.p_deviance)} dev., {_p(found.p_local)} local, {_p(found.p_distance)} KS"
    upper.set_title(text, loc="right", fontsize=8.5, color=RED if bad else BLACK, pad=3)
    if found.p_local < _SUSPICIOUS:
        for ax in (upper, lower):
            ax.axvspan(*found.local_range, color=ORANGE, alpha=0.3, linewidth=0, zorder=0)


def _summary(result: TuningResult | None) -> str:
    """Best values, and the verdict."""
    if result is None:
        return ""
    words = [f"{_symbol(name)} = {_pair(result.best[name], result.errors[name])}" for name in result.names]
    if result.goodness is not None:
        words.append(f"all tests: p = {_p(result.goodness.p_value)}")
    if not result.valid:
        words.append("NOT VALID")
    return ",  ".join(words)


def _symbol(name: str) -> str:
    return _label(name).split(" [")[0].replace("light yield", "$Y$")


def _pair(value: float, error: float) -> str:
    """Value ± error with two figures of the error."""
    digits = max(0, 1 - int(np.floor(np.log10(error)))) if np.isfinite(error) and error > 0 else 3
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _p(value: float) -> str:
    return f"{value:.2f}" if value >= 0.01 else f"{value:.0e}".replace("e-0", "e-")


# ---------------------------------------------------------------- training and posteriors


@_styled
def training_curves(
    histories: Mapping[str, Sequence[Sequence[float]]], *, floor: float | None = None, title: str = ""
) -> Figure:
    """Loss and validation distance against the step, a row for each training.

    Args:
        histories: Label → lines of (step, loss, validation d₂, seconds), as a stored model has them.
        floor: d₂ of a perfect density with the events of the validation sets.
        title: Above the figure.

    Raises:
        NuebarError: There is no history, or a line of one is not of four finite numbers.
    """
    if not histories:
        raise NuebarError("training_curves: expected at least one history, got none; train a density")
    figure = _figure(2.4 * len(histories) + 0.5)
    axes = figure.subplots(len(histories), 2, squeeze=False)
    for k, ((left, right), (name, lines)) in enumerate(zip(axes, histories.items(), strict=True)):
        table = _array(list(lines), f"history of {name!r}")
        if table.ndim != 2 or table.shape[1] != 4 or np.any(table[:, 2] <= 0):
            raise NuebarError(f"history of {name!r}: expected lines of four numbers, d2 above 0, got {table.shape}")
        step, loss, distance, seconds = table.T
        colour, best = LINES[k % len(LINES)], int(np.argmin(distance))
        style: dict[str, Any] = {"color": colour, "linewidth": 1.0, "marker": "." if step.size < 30 else None}
        left.plot(step, loss, **style)
        # The first losses would leave no room for the others.
        late = loss[loss.size // 20 :]
        margin = 0.06 * max(float(np.ptp(late)), 1e-9)
        left.set(ylim=(late.min() - margin, late.max() + margin), ylabel="loss")
        right.plot(step, distance, **style)
        right.set(yscale="log", ylabel=r"validation $d_2$")
        right.plot(step[best], distance[best], "*", color=RED, markersize=9, zorder=4)
        if floor is not None:
            right.axhline(floor, color=GREY, linestyle=DASHES[2], linewidth=1.1)
            style = {"ha": "right", "va": "bottom", "fontsize": 8.5, "color": GREY}
            right.text(0.985, 1.02 * floor, "perfect density", transform=right.get_yaxis_transform(), **style)
            right.set_ylim(min(0.8 * floor, 0.8 * float(distance.min())), None)
        left.set_title(name, loc="left", fontsize=10.5, fontweight="bold")
        words = f"best {distance[best]:.3g} at step {step[best]:.0f}; {_duration(seconds[-1])}"
        right.set_title(words, loc="right", fontsize=9.5)
        for ax in (left, right):
            ax.tick_params(which="both", labelsize=9)
            ax.locator_params(axis="x", nbins=5)
    for ax in axes[-1]:
        ax.set_xlabel("Step")
    if title:
        figure.suptitle(title, fontsize=11.5)
    return figure


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def posterior_corner(results: Mapping[str, TuningResult], *, truth: Mapping[str, float] | None = None) -> Figure:
    """Posteriors of one or several tunings, over each other: samples as contours, Hessians as ellipses.

    Args:
        results: Label → tuning, at most six, all of the same parameters.
        truth: True values by name.

    Raises:
        NuebarError: There is nothing to draw, the parameters differ, or a truth is missing.
    """
    if not 1 <= len(results) <= _MOST:
        raise NuebarError(f"posterior_corner: expected one to {_MOST} results, got {len(results)}; choose some")
    names = next(iter(results.values())).names
    layers = []
    for k, (label, result) in enumerate(results.items()):
        if result.names != names:
            raise NuebarError(f"{label}: expected the parameters {', '.join(names)}, got {', '.join(result.names)}")
        best = np.array([result.best[name] for name in names])
        gaussian = None if result.samples is not None else (result.mean, result.covariance)
        layers.append(Layer(label, LINES[k % len(LINES)], DASHES[k % len(DASHES)], result.samples, gaussian, best))
    if truth is not None and set(names) - set(truth):
        raise NuebarError(f"truth: expected {', '.join(names)}, got {', '.join(truth)}; add what is missing")
    return corner_figure(names, layers, truth=None if truth is None else [truth[name] for name in names])
