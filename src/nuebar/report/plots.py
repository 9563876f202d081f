"""Figures of spectra, fits and scans.

Every function takes plain arrays or a :class:`~nuebar.fit.result.FitResult` and gives a matplotlib ``Figure``; with
``ax`` it draws into the caller's axes in the caller's style and gives the figure they are in. pyplot and its state
are never touched, and matplotlib's settings are as before after every call.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline, RectBivariateSpline
from scipy.stats import chi2 as chi2_distribution

from nuebar.errors import NuebarError
from nuebar.fit.result import FitResult
from nuebar.io.files import atomic_path
from nuebar.parameters import LABELS
from nuebar.report.tables import correlation_of, scale_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "axis_label",
    "confidence_levels",
    "contour",
    "correlation",
    "impacts",
    "predictions",
    "profile",
    "pulls",
    "save",
    "spectrum",
    "to_bytes",
]

# The eight colours that people with any colour vision tell apart: M. Okabe and K. Ito, "Color Universal Design" (2002),
# values as printed in B. Wong, Nature Methods 8, 441 (2011).
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7",
)  # fmt: skip
GREY, PALE = "#8c8c8c", "#dcdcdc"
GREYISH = "#595959"
EXPECTED = "expected, from simulated (Asimov) counts"
LINES = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, BLACK)
DASHES: tuple[Any, ...] = (
    "-", (0, (5, 2)), (0, (2, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (1, 1)), (0, (8, 2)), (0, (3, 3)),
)  # fmt: skip
FILLS = (ORANGE, GREEN, PURPLE, SKY, YELLOW, GREY, BLUE, RED)

DPI = 150
WIDTH_IN = 7.0
MANY = 120
"""Above this number of bins, points get smaller and lose their bars in the lower panel."""
ONE_SIGMA = 0.6826894921370859
"""Probability of a normal variable within one standard deviation."""

STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.formatter.limits": (-4, 5),
    "axes.formatter.use_mathtext": True,
    "axes.labelsize": 11.5,
    "axes.linewidth": 0.9,
    "axes.titlesize": 11.5,
    "figure.dpi": DPI,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same letters on every machine
    "font.size": 10.5,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "legend.handlelength": 1.7,
    "mathtext.fontset": "dejavusans",
    "pdf.fonttype": 42,
    "svg.hashsalt": "nuebar",
    "xtick.direction": "in",
    "xtick.labelsize": 10.5,
    "xtick.major.pad": 5.5,
    "xtick.minor.visible": True,
    "xtick.top": True,
    "ytick.direction": "in",
    "ytick.labelsize": 10.5,
    "ytick.minor.visible": True,
    "ytick.right": True,
}

_COMPONENTS = {
    "signal": r"Reactor $\bar{\nu}_e$",
    "li9_he8": "⁹Li/⁸He",
    "geoneutrinos": "Geoneutrinos",
    "world_reactors": "World reactors",
    "bipo": "²¹⁴Bi–²¹⁴Po",
    "accidentals": "Accidentals",
    "fast_neutrons": "Fast neutrons",
    "double_neutrons": "Double neutrons",
    "atmospheric_nc": "Atmospheric ν (NC)",
    "alpha_n": "¹³C(α, n)¹⁶O",
    "other": "Other backgrounds",
}
_PREFIXES = {
    "bkg_": "{} rate",
    "slope_": "{} slope",
    "norm_": "{} norm.",
    "core_": "{} power",
    "fission_fraction_": "{} fraction",
    "segment_": "Flux segment {}",
    "nonlinearity_": "Non-linearity {}",
    "resolution_": "Resolution {}",
}
_NAMES = {
    "matter_density_g_cm3": r"Matter density $\rho$",
    "energy_scale": "Energy scale",
    "energy_offset_MeV": "Energy offset",
    "spent_fuel": "Spent fuel",
    "nonequilibrium": "Non-equilibrium",
}
_SOURCES = {
    "geoneutrinos": "Geoneutrino",
    "world_reactors": "World-reactor",
    "accidentals": "Accidental",
    "fast_neutrons": "Fast-neutron",
    "double_neutrons": "Double-neutron",
    "atmospheric_nc": "Atmospheric NC",
    "other": "Other-background",
}
_ISOTOPES = {"U235": "²³⁵U", "U238": "²³⁸U", "Pu239": "²³⁹Pu", "Pu241": "²⁴¹Pu"}

P = ParamSpec("P")


# ---------------------------------------------------------------- style and files


def _matplotlib() -> None:
    """Import matplotlib, or say how to get it."""
    try:
        import matplotlib.backends.backend_agg
        import matplotlib.figure
        import matplotlib.style  # noqa: F401
    except ImportError as error:
        raise NuebarError(
            "figures need matplotlib, which is not installed; install it with: pip install 'nuebar[plot]'"
        ) from error


def _style() -> AbstractContextManager[None]:
    """Our style on top of matplotlib's defaults: a user's own settings do not change a report."""
    import matplotlib.style

    return matplotlib.style.context(STYLE, after_reset=True)


def _styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a drawing function in our style and settle its layout, unless it draws into the caller's axes."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        _matplotlib()
        if kwargs.get("ax") is not None:
            return draw(*args, **kwargs)
        with _style():
            figure = draw(*args, **kwargs)
            # The constrained layout starts from the last one and creeps: left on, each save would differ.
            layout = figure.get_layout_engine()
            if layout is not None:
                layout.execute(figure)
            figure.set_layout_engine("none")
        return figure

    return styled


def _figure(height_in: float, width_in: float = WIDTH_IN) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain_log(axis: Any) -> None:
    """A logarithmic axis with numbers as they are spoken, at 1, 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(base=10.0, subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_formatter(NullFormatter())


def _of(ax: Axes) -> Figure:
    """The figure that axes are in, also when they sit in a subfigure."""
    return ax.figure.canvas.figure


_FORMATS: dict[str, dict[str, Any]] = {
    ".png": {"format": "png", "metadata": {"Software": None}},
    ".pdf": {"format": "pdf", "metadata": {"Creator": None, "Producer": None, "CreationDate": None}},
    ".svg": {"format": "svg", "metadata": {"Creator": None, "Date": None}},
}


def to_bytes(figure: Figure, suffix: str = ".png") -> bytes:
    """A figure as a file's bytes; a figure of this module gives the same bytes every time with the same versions.

    Args:
        figure: The figure.
        suffix: ".png" (150 dots per inch), ".pdf" or ".svg"; none holds a date or a program's name.

    Raises:
        NuebarError: Another suffix, or matplotlib is not installed.
    """
    if suffix.lower() not in _FORMATS:
        raise NuebarError(f"expected a figure to end in {', '.join(_FORMATS)}, got {suffix!r}; change the suffix")
    _matplotlib()
    buffer = io.BytesIO()
    with _style():
        figure.savefig(buffer, dpi=DPI, **_FORMATS[suffix.lower()])
    return buffer.getvalue()


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure in one step, in the format that the suffix says; see :func:`to_bytes`.

    Raises:
        NuebarError: An unknown suffix, or the place cannot be written; ``path`` is then as it was before.
    """
    data = to_bytes(figure, Path(path).suffix)
    with atomic_path(path) as temporary:
        try:
            temporary.write_bytes(data)
        except OSError as error:
            raise NuebarError(f"{path}: cannot be written ({error.strerror}); free or choose another place") from error


# ---------------------------------------------------------------- spectra


@_styled
def spectrum(
    edges_MeV: ArrayLike,
    counts: ArrayLike,
    components: Mapping[str, ArrayLike],
    *,
    simulated: bool | str,
    errors: ArrayLike | None = None,
    unoscillated: ArrayLike | None = None,
    title: str = "",
    xlabel: str = "Prompt energy [MeV]",
    ylabel: str | None = None,
    per_MeV: float = 0.1,
    ax: Axes | tuple[Axes, Axes] | None = None,
) -> Figure:
    """Data, stacked components and their total, with (data - fit)/σ below.

    Bars of the data are central 68.27 % Poisson intervals (F. Garwood, Biometrika 28, 437 (1936)) and σ is √fit,
    unless ``errors`` gives both.

    Args:
        edges_MeV: Bin edges, shape ``(bins + 1,)``.
        counts: Observed or simulated counts per bin, shape ``(bins,)``.
        components: Name → expected counts per bin; "signal" is drawn on top, the rest are backgrounds.
        simulated: Whether the data are simulated, which is then written in the picture; a text replaces
            "simulated (Asimov)".
        errors: Standard deviations of ``counts``, positive, shape ``(bins,)``.
        unoscillated: Signal without oscillation per bin; a dashed line, with the backgrounds below it.
        title: Text above the axes.
        xlabel: Name of the energy with its unit.
        ylabel: Replaces "Events per 0.1 MeV".
        per_MeV: Counts are drawn as a density in this width.
        ax: Axes for the spectrum, or a pair of axes, the second for the residuals.

    Returns:
        The figure.

    Raises:
        NuebarError: A shape is wrong, a number is not finite or negative, or a bin with data has no expectation.
    """
    edges, y = _histogram(edges_MeV, counts, "counts")
    parts = {n: _counts(c, edges, f"component {n!r}") for n, c in components.items()}
    if not parts:
        raise NuebarError("expected at least one component, such as {'signal': counts}, got none; add one")
    if not (math.isfinite(per_MeV) and per_MeV > 0):
        raise NuebarError(f"expected a positive width per_MeV, got {per_MeV}; the usual one is 0.1")
    total = np.sum(list(parts.values()), axis=0)
    below, above, sigma = _data_errors(y, total, errors, edges)
    free = None
    if unoscillated is not None:
        signal = parts.get("signal", np.zeros_like(total))
        free = total - signal + _counts(unoscillated, edges, "unoscillated")
    figure, upper, lower = _two_panels(ax)
    density = per_MeV / np.diff(edges)
    areas = _stack(upper, edges, parts, density)
    lines = [upper.stairs(total * density, edges, color=RED, linewidth=1.5, zorder=6, label="Best fit")]
    if free is not None:
        style: dict[str, Any] = {"color": BLUE, "linewidth": 1.3, "linestyle": "--", "label": "No oscillation"}
        lines.append(upper.stairs(free * density, edges, zorder=4, **style))
    points = _point_style(y.size)
    word = f"{'Simulated data' if simulated else 'Data'} ({_events(y.sum())})"
    bars = [below * density, above * density]
    centres = (edges[1:] + edges[:-1]) / 2
    data = upper.errorbar(centres, y * density, yerr=bars, label=word, zorder=5, **points)
    highest = np.maximum(y + above, total) if free is None else np.maximum(np.maximum(y + above, total), free)
    top = float(np.max(highest * density))
    upper.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.06 * top if top > 0 else 1.0))
    upper.set_ylabel(ylabel or f"Events per {per_MeV:g} MeV")
    upper.legend(handles=[data, *lines, *reversed(areas)], loc="upper right")
    _heading(upper, title, ("simulated (Asimov)" if simulated is True else simulated) or "")
    if lower is not None:
        scale = np.where(sigma > 0, sigma, 1.0)
        residual = np.where(sigma > 0, (y - total) / scale, 0.0)
        _residuals(lower, centres, residual, [below / scale, above / scale], points)
    (lower or upper).set_xlabel(xlabel)
    return figure


def _residuals(ax: Axes, x: np.ndarray, y: np.ndarray, bars: list[np.ndarray], points: Mapping[str, Any]) -> None:
    """Residuals on bands of one and two standard deviations."""
    _bands(ax, horizontal=True)
    # With very many bins the bars, all about one, would be a black block.
    ax.errorbar(x, y, yerr=None if y.size > MANY else bars, **points)
    limit = max(3.4, 1.15 * float(np.max(np.abs(y))))
    ax.set(ylim=(-limit, limit), ylabel="(data − fit)/σ")


def _point_style(n: int) -> dict[str, Any]:
    """Points that stay points when there are many of them."""
    if n > MANY:
        return {"fmt": "o", "color": BLACK, "markersize": 1.7, "elinewidth": 0.5, "ecolor": GREY}
    return {"fmt": "o", "color": BLACK, "markersize": 3.0, "elinewidth": 0.9}


def _data_errors(
    y: np.ndarray, total: np.ndarray, errors: ArrayLike | None, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Length of the bars below and above the points, and σ of the residuals."""
    if errors is not None:
        sigma = _array(errors, "errors")
        if sigma.shape != y.shape or np.any(sigma <= 0):
            raise NuebarError(
                f"errors: expected {y.size} positive numbers, got shape {sigma.shape} with the smallest "
                f"{np.min(sigma, initial=math.inf)}; leave errors out for Poisson intervals"
            )
        return sigma, sigma, sigma
    if np.any((total <= 0) & (y > 0)):
        k = int(np.argmax((total <= 0) & (y > 0)))
        raise NuebarError(
            f"bin {k} ({edges[k]:g} to {edges[k + 1]:g} MeV): expected a positive expectation where there are data, "
            f"got {total[k]:g} for {y[k]:g} counts; give errors, or cut the range"
        )
    tail = (1.0 - ONE_SIGMA) / 2.0
    low = np.where(y > 0, chi2_distribution.ppf(tail, 2.0 * np.maximum(y, 1e-12)) / 2.0, 0.0)
    high = chi2_distribution.ppf(1.0 - tail, 2.0 * (y + 1.0)) / 2.0
    return np.maximum(y - low, 0.0), high - y, np.sqrt(total)


def _stack(ax: Axes, edges: np.ndarray, parts: Mapping[str, np.ndarray], density: np.ndarray) -> list[Any]:
    """Backgrounds from the largest up, the signal as a pale area on top of them; the areas from the bottom up."""
    names = sorted(parts, key=lambda n: (n == "signal", -parts[n].sum()))
    base, areas = np.zeros_like(density), []
    for k, name in enumerate(names):
        top = base + parts[name]
        style: dict[str, Any] = {
            "color": PALE if name == "signal" else FILLS[k % len(FILLS)],
            "hatch": "////" if name != "signal" and k >= len(FILLS) else None,
            "label": f"{_component(name)} ({_events(parts[name].sum())})",
        }
        areas.append(ax.stairs(top * density, edges, baseline=base * density, fill=True, linewidth=0, **style))
        base = top
    return areas


@_styled
def predictions(
    edges_MeV: ArrayLike,
    predicted: Mapping[str, ArrayLike],
    reference: str,
    *,
    title: str = "",
    xlabel: str = "Prompt energy [MeV]",
    per_MeV: float = 0.1,
    ax: tuple[Axes, Axes] | None = None,
) -> Figure:
    """Spectra of several predictors, and their relative differences to one of them below.

    Differences that span more than two powers of ten are drawn as absolute values on a logarithmic scale.

    Args:
        edges_MeV: Bin edges, shape ``(bins + 1,)``.
        predicted: Name → counts per bin, shape ``(bins,)``; at most seven.
        reference: The one of these names to compare with.
        title: Text above the axes.
        xlabel: Name of the energy with its unit.
        per_MeV: Counts are drawn as a density in this width.
        ax: A pair of axes, for spectra and differences.

    Returns:
        The figure.

    Raises:
        NuebarError: A shape is wrong, a number is not finite or negative, ``reference`` is unknown or has no
            counts in a bin where another has some, or there is nothing to compare with it.
    """
    spectra = {}
    for name, c in predicted.items():
        edges, spectra[name] = _histogram(edges_MeV, c, f"prediction {name!r}")
    if reference not in spectra or not 2 <= len(spectra) <= len(LINES):
        raise NuebarError(
            f"expected two to {len(LINES)} predictions with the reference {reference!r} among them, got "
            f"{', '.join(spectra) or 'none'}; name one of these"
        )
    base = spectra[reference]
    differences = {n: _relative(c, base, n, reference) for n, c in spectra.items() if n != reference}
    figure, upper, lower = _two_panels(ax)
    if lower is None:
        raise NuebarError("expected a pair of axes, for spectra and differences, got one; pass ax=(upper, lower)")
    density = per_MeV / np.diff(edges)
    colours = {reference: BLACK} | dict(zip(differences, (c for c in LINES if c != BLACK), strict=False))
    for k, name in enumerate([reference, *differences]):
        label = f"{name} (reference)" if name == reference else name
        style: dict[str, Any] = {
            "color": colours[name],
            "linewidth": 2.4 if k == 0 else 1.4,
            "alpha": 0.45 if k == 0 else 1.0,
        }
        upper.stairs(spectra[name] * density, edges, baseline=None, linestyle=DASHES[k], label=label, **style)
    top = max(np.max(c * density) for c in spectra.values())
    upper.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.08 * top if top > 0 else 1.0))
    upper.set_ylabel(f"Events per {per_MeV:g} MeV")
    upper.legend(loc="upper right")
    _heading(upper, title, "")
    _differences(lower, edges, differences, colours)
    lower.set_xlabel(xlabel)
    return figure


def _relative(counts: np.ndarray, base: np.ndarray, name: str, reference: str) -> np.ndarray:
    if np.any((base == 0) & (counts > 0)):
        k = int(np.argmax((base == 0) & (counts > 0)))
        raise NuebarError(
            f"prediction {name!r}, bin {k}: no relative difference to {reference!r}, which has no counts there; "
            "cut the range"
        )
    return np.divide(counts - base, base, out=np.zeros_like(base), where=base > 0)


def _differences(
    ax: Axes, edges: np.ndarray, differences: Mapping[str, np.ndarray], colours: Mapping[str, str]
) -> None:
    """Relative differences: linear in a fitting unit, or logarithmic where they span powers of ten."""
    largest = [m for d in differences.values() if (m := float(np.max(np.abs(d)))) > 0]
    # Below the resolution of a float64 there is nothing to see.
    floor = 2.0**-53
    if largest and max(largest) > 100 * max(min(largest), floor):
        for name, d in differences.items():
            size = np.maximum(np.abs(d), floor)
            ax.stairs(size, edges, baseline=None, color=colours[name], linewidth=1.3)
        ax.set(yscale="log", ylim=(max(floor, min(largest) / 300), 3 * max(largest)), ylabel="|ratio − 1|")
        return
    power = 3 * math.floor(math.log10(max(largest)) / 3) if largest else -2
    unit, factor = ("%", 100.0) if power >= -3 else (f"$10^{{{power}}}$", 10.0**-power)
    ax.axhline(0.0, color=BLACK, linewidth=0.7, zorder=0.5)
    for name, d in differences.items():
        ax.stairs(d * factor, edges, baseline=None, color=colours[name], linewidth=1.3)
    limit = 1.25 * max(largest, default=1e-2) * factor
    ax.set(ylim=(-limit, limit), ylabel=f"ratio − 1 [{unit}]")


# ---------------------------------------------------------------- fits


@_styled
def pulls(result: FitResult, *, title: str = "", ax: Axes | None = None) -> Figure:
    """Every pull, (value - centre)/width, with post-fit over pre-fit error as its bar, on bands of ±1 and ±2.

    Args:
        result: The fit; its free parameters that have a prior are drawn.
        title: Text above the axes.
        ax: Axes to draw all of them into; without it more than 24 are split in two columns.

    Returns:
        The figure.

    Raises:
        NuebarError: There is no such parameter, or one has no finite value or error.
    """
    rows = []
    for name, p in result.parameters.items():
        if p.fixed or p.prior is None:
            continue
        pull, error = p.pull, p.error / p.prior[1]
        if pull is None or not (math.isfinite(pull) and math.isfinite(error)):
            raise NuebarError(
                f"pulls: expected a finite value and error of {name!r}, got {p.value} ± {p.error} "
                f"({result.reason}); mend the fit first"
            )
        rows.append((_parameter(name), pull, error))
    if not rows:
        raise NuebarError("pulls: expected a fit with at least one free parameter that has a prior, got none")
    n_columns = 2 if len(rows) > 24 and ax is None else 1
    per_column = math.ceil(len(rows) / n_columns)
    if ax is None:
        figure = _figure(0.235 * per_column + 1.1)
        axes = list(figure.subplots(1, n_columns, squeeze=False)[0])
    else:
        figure, axes = _of(ax), [ax]
    limit = max(2.6, 1.08 * max(abs(pull) + error for _, pull, error in rows))
    for k, column in enumerate(axes):
        _pull_column(column, rows[k * per_column : (k + 1) * per_column], per_column, limit)
    text = "Pull: (value − centre) / prior width"
    if n_columns == 2:
        figure.supxlabel(text, fontsize=STYLE["axes.labelsize"])
    else:
        axes[0].set_xlabel(text)
    _heading(axes[0], title, "")
    _heading(axes[-1], "", _warning(result))
    return figure


def _pull_column(ax: Axes, rows: Sequence[tuple[str, float, float]], height: int, limit: float) -> None:
    _bands(ax, horizontal=False)
    names, values, errors = zip(*rows, strict=True)
    ax.errorbar(values, range(len(rows)), xerr=errors, fmt="o", color=BLACK, markersize=4, elinewidth=1.2, capsize=2)
    ax.set_yticks(range(len(rows)), names)
    ax.tick_params(axis="y", which="both", length=0)
    ax.set(xlim=(-limit, limit), ylim=(height - 0.4, -0.6))


@_styled
def correlation(
    result: FitResult, names: Sequence[str] | None = None, *, title: str = "", ax: Axes | None = None
) -> Figure:
    """The correlation matrix of free parameters in colours; up to twelve carry the numbers, in percent.

    Args:
        result: The fit.
        names: Free parameters to show, in this order; all of them if left out.
        title: Text above the axes.
        ax: Axes to draw into.

    Returns:
        The figure.

    Raises:
        NuebarError: A name is not a free parameter, or the fit has no covariance.
    """
    names, matrix = correlation_of(result, names)
    n = len(names)
    side_in = min(4.9, max(2.6, 0.5 * n))
    figure = _figure(side_in + 1.75, side_in + 2.1) if ax is None else _of(ax)
    ax = figure.add_subplot() if ax is None else ax
    image = ax.imshow(100 * matrix, cmap="RdBu_r", vmin=-100, vmax=100, interpolation="nearest")
    labels = [_parameter(name) for name in names]
    # 72 points an inch; a label fills at most three quarters of its row.
    size = min(10.5, 0.75 * 72 * side_in / n)
    ax.set_xticks(range(n), labels, rotation=90, fontsize=size)
    ax.set_yticks(range(n), labels, fontsize=size)
    ax.tick_params(which="both", length=0)
    ax.set_xticks(np.arange(n - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(n - 1) + 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=0.6)
    ax.grid(which="major", visible=False)
    if n <= 12:
        for (i, j), c in np.ndenumerate(matrix):
            text = f"{round(100 * c):d}".replace("-", "−")
            ax.text(j, i, text, ha="center", va="center", color="white" if abs(c) > 0.6 else BLACK, fontsize=9.5)
    bar = figure.colorbar(image, cax=ax.inset_axes((1.03, 0.0, 0.035, 1.0)))
    bar.set_label("Correlation [%]")
    bar.ax.minorticks_off()
    _heading(ax, title, _warning(result))
    return figure


@_styled
def impacts(
    impacts: Mapping[str, Mapping[str, float]],
    *,
    errors: Mapping[str, float],
    top: int = 15,
    title: str = "",
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """What moves each parameter of interest most, in units of its error: a ranking, one panel a parameter.

    Args:
        impacts: Parameter of interest → nuisance parameter → its impact, in the parameter's own unit.
        errors: The error of each parameter of interest, in the same unit.
        top: How many to show.
        title: Text above the first panel.
        ax: One axes per parameter of interest.

    Returns:
        The figure.

    Raises:
        NuebarError: Nothing to show, an impact is not finite, or an error is missing or not positive.
    """
    ranked = {name: _ranking(name, row, errors.get(name, math.nan), top) for name, row in impacts.items()}
    if not ranked:
        raise NuebarError("impacts: expected at least one parameter of interest, got none; name one of the fit")
    if ax is None:
        n_columns = min(2, len(ranked))
        n_rows = math.ceil(len(ranked) / n_columns)
        longest = max(len(row) for row in ranked.values())
        figure = _figure(n_rows * (0.24 * longest + 1.0))
        axes = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
        for spare in axes[len(ranked) :]:
            spare.remove()
    else:
        axes = _axes(ax)
        if len(axes) != len(ranked):
            raise NuebarError(f"impacts: expected {len(ranked)} axes, one a parameter, got {len(axes)}")
        figure = _of(axes[0])
    for panel, (name, row) in zip(axes, ranked.items(), strict=False):
        _ranking_panel(panel, name, row)
    _heading(axes[0], title, "")
    return figure


def _ranking(name: str, row: Mapping[str, float], error: float, top: int) -> list[tuple[str, float]]:
    """Labels and impacts over error, the largest first."""
    if not (math.isfinite(error) and error > 0):
        raise NuebarError(f"impacts on {name!r}: expected its positive error, got {error}; add it to errors")
    if not row or top < 1:
        raise NuebarError(f"impacts on {name!r}: expected at least one to show, got {len(row)} with top={top}")
    for nuisance, impact in row.items():
        if not math.isfinite(impact):
            raise NuebarError(f"impact of {nuisance!r} on {name!r}: expected a finite number, got {impact}; fit again")
    ordered = sorted(row.items(), key=lambda item: -abs(item[1]))[:top]
    return [(_parameter(nuisance), impact / error) for nuisance, impact in ordered]


def _ranking_panel(ax: Axes, name: str, row: Sequence[tuple[str, float]]) -> None:
    labels, values = zip(*row, strict=True)
    colours = [BLUE if v >= 0 else ORANGE for v in values]
    ax.barh(range(len(row)), values, color=colours, height=0.68, zorder=3)
    ax.axvline(0.0, color=BLACK, linewidth=0.8, zorder=4)
    limit = 1.15 * max(max(abs(v) for v in values), 1e-3)
    ax.set_yticks(range(len(row)), labels)
    ax.tick_params(axis="y", which="both", length=0)
    ax.set(xlim=(-limit, limit), ylim=(len(row) - 0.4, -0.6))
    ax.set_xlabel(f"Shift of {_symbol(name)} [its σ]")
    ax.locator_params(axis="x", nbins=4)
    ax.grid(axis="x", color="#dddddd", linewidth=0.6)


# ---------------------------------------------------------------- scans


def confidence_levels(cl: Sequence[float] = (0.6827, 0.9545, 0.9973), *, dof: int = 2) -> list[tuple[float, str]]:
    """Δχ² of confidence levels with labels that state the level and the degrees of freedom.

    Args:
        cl: Probability contents, between 0 and 1.
        dof: Parameters that are scanned together.

    Returns:
        Pairs (Δχ², label), such as (2.30, "68.27 % CL, 2 dof: Δχ² = 2.30"), from the χ² distribution (S. S. Wilks,
        Ann. Math. Stat. 9, 60 (1938)).

    Raises:
        NuebarError: A level is not between 0 and 1, or ``dof`` is not positive.
    """
    if dof < 1 or not all(0.0 < c < 1.0 for c in cl):
        raise NuebarError(f"expected confidence levels between 0 and 1 and dof >= 1, got {tuple(cl)} and {dof}")
    pairs = [(float(chi2_distribution.ppf(c, dof)), c) for c in cl]
    return [(delta, f"{100 * c:.4g} % CL, {dof} dof: Δχ² = {delta:.2f}") for delta, c in pairs]


@_styled
def contour(
    x: ArrayLike,
    y: ArrayLike,
    delta_chi2: ArrayLike,
    *,
    labels: tuple[str, str],
    levels: Sequence[tuple[float, str]] | None = None,
    best: tuple[float, float] | None = None,
    reference: tuple[float, float, float, float, str] | None = None,
    title: str = "",
    note: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Contours of Δχ² in two parameters. The scan is interpolated with a bicubic spline.

    Args:
        x: Values along x, increasing, shape ``(nx,)``, at least four.
        y: Values along y, increasing, shape ``(ny,)``, at least four.
        delta_chi2: χ² minus its minimum, shape ``(nx, ny)`` as a :class:`~nuebar.fit.profile.Scan` has it.
        labels: Of the axes; a parameter's name gives its symbol and unit, with the numbers scaled to it.
        levels: Pairs (Δχ², label) in increasing order, to which the legend adds Δχ²; without it 1, 2 and 3 σ of two
            degrees of freedom from :func:`confidence_levels`.
        best: The best fit.
        reference: A published (x, y, error of x, error of y, label), in the units of ``x`` and ``y``.
        title: Text above the axes.
        note: Text above the axes on the right, such as "BLINDED" or "simulated (Asimov)".
        ax: Axes to draw into.

    Returns:
        The figure.

    Raises:
        NuebarError: A shape is wrong, a number is not finite, or the scan lies below its best fit.
    """
    levels = confidence_levels() if levels is None else list(levels)
    (a, factor_a, label_a), (b, factor_b, label_b) = (
        _axis(values, label, what) for values, label, what in zip((x, y), labels, "xy", strict=True)
    )
    z = _scan(delta_chi2, (a.size, b.size))
    heights = [float(delta) for delta, _ in levels]
    if not heights or not all(0 < lo < hi for lo, hi in zip([1e-12, *heights], [*heights, math.inf], strict=True)):
        raise NuebarError(f"contour: expected levels above 0 in increasing order, got {heights}; sort them")
    figure = _figure(5.6) if ax is None else _of(ax)
    ax = figure.add_subplot() if ax is None else ax
    fine_a, fine_b = np.linspace(a[0], a[-1], 301), np.linspace(b[0], b[-1], 301)
    fine = RectBivariateSpline(a, b, z)(fine_a, fine_b).T  # matplotlib wants y first
    handles = _draw_levels(ax, fine_a, fine_b, fine, levels)
    if best is not None:
        point = _point((best[0] / factor_a, best[1] / factor_b), "best fit")
        handles += ax.plot(*point, marker="*", markersize=12, color=BLACK, linestyle="none", label="Best fit", zorder=6)
    if reference is not None:
        px, py, ex, ey = _point(
            [v / f for v, f in zip(reference[:4], (factor_a, factor_b) * 2, strict=True)], "reference"
        )
        style: dict[str, Any] = {
            "fmt": "s",
            "color": RED,
            "markersize": 5,
            "elinewidth": 1.5,
            "capsize": 3,
            "zorder": 5,
        }
        handles.append(ax.errorbar(px, py, xerr=ex, yerr=ey, label=reference[4], **style))
    ax.set(xlabel=label_a, ylabel=label_b, xlim=(a[0], a[-1]), ylim=(b[0], b[-1]))
    # Below the axes, where it hides no contour.
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    _heading(ax, title, note)
    return figure


def _draw_levels(
    ax: Axes, x: np.ndarray, y: np.ndarray, z: np.ndarray, levels: Sequence[tuple[float, str]]
) -> list[Any]:
    """Lines on pale areas; the handles for a legend. A level beyond the scan is said to be so."""
    from matplotlib.lines import Line2D

    styles: tuple[Any, ...] = ("-", "--", ":", "-.")
    handles: list[Any] = []
    inside = [delta for delta, _ in levels if z.min() < delta < z.max()]
    for delta in reversed(inside):
        ax.contourf(x, y, z, levels=[min(z.min(), 0.0) - 1.0, delta], colors=[SKY], alpha=0.22)
    for k, (delta, label) in enumerate(levels):
        style, width = styles[k % len(styles)], 1.8 - 0.2 * min(k, 3)
        if delta in inside:
            ax.contour(x, y, z, levels=[delta], colors=[BLUE], linestyles=[style], linewidths=[width])
        text = label if "Δχ²" in label else f"{label}: Δχ² = {delta:.2f}"
        text += "" if delta in inside else " (beyond the scan)"
        handles.append(Line2D([], [], color=BLUE, linestyle=style, linewidth=width, label=text))
    return handles


@_styled
def profile(
    x: ArrayLike,
    delta_chi2: ArrayLike | Mapping[str, ArrayLike],
    *,
    label: str,
    levels: Sequence[tuple[float, str]] = ((1.0, "1σ"), (4.0, "2σ"), (9.0, "3σ")),
    title: str = "",
    note: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Δχ² along one parameter, with the levels of one degree of freedom. Points are joined by a cubic spline.

    Args:
        x: Values, increasing, shape ``(n,)``, at least four.
        delta_chi2: χ² minus its minimum, shape ``(n,)``, or several such curves by name.
        label: Of the x axis; a parameter's name gives its symbol and unit, with the numbers scaled to it.
        levels: Pairs (Δχ², label); those up to just above the curves are drawn.
        title: Text above the axes.
        note: Text above the axes on the right, such as "BLINDED".
        ax: Axes to draw into.

    Returns:
        The figure.

    Raises:
        NuebarError: A shape is wrong, a number is not finite, or the scan lies below its best fit.
    """
    a, _, text = _axis(x, label, "x")
    curves = delta_chi2 if isinstance(delta_chi2, Mapping) else {"": delta_chi2}
    scans = {name: _scan(z, (a.size,)) for name, z in curves.items()}
    if not 1 <= len(scans) <= len(LINES):
        raise NuebarError(f"profile: expected one to {len(LINES)} curves, got {len(scans)}; draw fewer in one figure")
    highest = max(float(z.max()) for z in scans.values())
    top = max(1.12 * highest, 1.5)
    figure = _figure(4.4) if ax is None else _of(ax)
    ax = figure.add_subplot() if ax is None else ax
    for delta, word in levels:
        if delta < top:
            ax.axhline(delta, color=GREY, linewidth=0.9, linestyle=(0, (5, 3)))
            place = ax.get_yaxis_transform()
            ax.text(1.012, delta, f"{word} (1 dof)", transform=place, va="center", color=GREYISH, fontsize=9.5)
    fine = np.linspace(a[0], a[-1], 401)
    for k, (name, z) in enumerate(scans.items()):
        style: dict[str, Any] = {"color": LINES[k], "linestyle": DASHES[k], "linewidth": 2.0}
        ax.plot(fine, CubicSpline(a, z)(fine), label=name, **style)
        if a.size <= 40:
            ax.plot(a, z, linestyle="none", marker="o", markersize=3.5, color=LINES[k])
    ax.set(xlim=(a[0], a[-1]), ylim=(0.0, top))
    ax.set(xlabel=text, ylabel="Δχ²")
    if any(scans):
        ax.legend(loc="upper center")
    _heading(ax, title, note)
    return figure


# ---------------------------------------------------------------- parts of a picture


def _two_panels(ax: Axes | tuple[Axes, Axes] | None) -> tuple[Figure, Axes, Axes | None]:
    """Figure, main axes and the axes below them."""
    if ax is None:
        figure = _figure(5.6)
        figure.set_layout_engine("constrained", h_pad=0.03, hspace=0.0)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1.05])
        figure.align_ylabels([upper, lower])
        return figure, upper, lower
    axes = _axes(ax)
    if len(axes) > 2:
        raise NuebarError(f"expected one or two axes, for a spectrum and what is below it, got {len(axes)}; pass two")
    return _of(axes[0]), axes[0], axes[1] if len(axes) == 2 else None


def _axes(ax: Any) -> list[Axes]:
    """One axes, a sequence or an array of them, as a list."""
    return list(np.ravel(np.asarray(ax, dtype=object)))


def _bands(ax: Axes, *, horizontal: bool) -> None:
    """Grey bands of one and two standard deviations, and the zero line."""
    span, line = (ax.axhspan, ax.axhline) if horizontal else (ax.axvspan, ax.axvline)
    span(-2, 2, color="#f0f0f0", linewidth=0, zorder=0)
    span(-1, 1, color="#d9e8f3", linewidth=0, zorder=0)
    line(0, color=GREY, linewidth=0.8, zorder=1)


def _heading(ax: Axes, title: str, note: str) -> None:
    """Title above the axes on the left, a remark on the right, in red if it is a warning."""
    if title:
        ax.set_title(title, loc="left")
    if note:
        colour = RED if "BLINDED" in note or "NOT VALID" in note else BLACK
        ax.set_title(note, loc="right", color=colour, style="italic", fontsize=10.5)


def _expected(ax: Axes) -> None:
    """On the right above the axes: nothing here is measured."""
    ax.set_title(EXPECTED, loc="right", fontsize=8.5, color=GREYISH, style="italic")


def _warning(result: FitResult) -> str:
    """What a reader of any picture of this fit must know."""
    words = ["BLINDED"] if result.blinded else []
    return ", ".join(words if result.valid else [*words, "FIT NOT VALID"])


# ---------------------------------------------------------------- names


def axis_label(name: str) -> str:
    """Symbol, power of ten and unit of a parameter for an axis; another text is given back as it is.

    Args:
        name: A parameter's name such as ``dm2_21_eV2``, whose numbers are then to be divided by
            ``scale_of(name).factor``.
    """
    scale = scale_of(name) if name in LABELS else None
    if scale is None:
        return name
    power = f"$10^{{{scale.power}}}$" if scale.power else ""
    unit = f"{power} {scale.unit}".strip()
    return f"{_symbol(name)} [{unit}]" if unit else _symbol(name)


def _symbol(name: str) -> str:
    return LABELS.get(name) or _parameter(name)


def _component(name: str) -> str:
    return _COMPONENTS.get(name) or _words(name)


def _parameter(name: str) -> str:
    """A parameter in words or as its symbol."""
    if name in _NAMES:
        return _NAMES[name]
    if name in LABELS:
        return LABELS[name]
    for prefix, form in _PREFIXES.items():
        if name.startswith(prefix):
            rest = name.removeprefix(prefix)
            word = rest if form.endswith("{}") else _ISOTOPES.get(rest) or _SOURCES.get(rest) or _component(rest)
            return form.format(word)
    return _words(name)


def _words(name: str) -> str:
    """A name without underscores, its first letter as a capital."""
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def _events(n: float) -> str:
    """A number of events, with one decimal below 100 unless it is a whole number."""
    return f"{n:.0f}" if n >= 100 or n == round(n) else f"{n:.1f}"


# ---------------------------------------------------------------- checks


def _array(values: ArrayLike, what: str) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise NuebarError(f"{what}: expected an array of numbers, got {type(values).__name__}; convert it") from error
    if not np.all(np.isfinite(array)):
        place = tuple(int(k) for k in np.argwhere(~np.isfinite(array))[0])
        raise NuebarError(
            f"{what}: expected finite numbers, got {array[place]} at index {', '.join(map(str, place))}; correct it"
        )
    return array


def _histogram(edges_MeV: ArrayLike, counts: ArrayLike, what: str) -> tuple[np.ndarray, np.ndarray]:
    edges = _array(edges_MeV, "edges_MeV")
    if edges.ndim != 1 or edges.size < 2 or np.any(np.diff(edges) <= 0):
        raise NuebarError(f"edges_MeV: expected increasing bin edges, at least two, got shape {edges.shape}; sort them")
    return edges, _counts(counts, edges, what)


def _counts(counts: ArrayLike, edges: np.ndarray, what: str) -> np.ndarray:
    array = _array(counts, what)
    if array.shape != (edges.size - 1,):
        raise NuebarError(f"{what}: expected {edges.size - 1} counts, one per bin, got shape {array.shape}")
    if np.any(array < 0):
        k = int(np.argmax(array < 0))
        raise NuebarError(f"{what}, bin {k}: expected counts of zero or more, got {array[k]:g}; correct the bin")
    return array


def _axis(values: ArrayLike, label: str, what: str) -> tuple[np.ndarray, float, str]:
    """Scaled values, their factor and the label of the axis."""
    array = _array(values, what)
    if array.ndim != 1 or array.size < 4 or np.any(np.diff(array) <= 0):
        raise NuebarError(
            f"{what}: expected at least four increasing values of {label!r}, got shape {array.shape}; sort them"
        )
    factor = scale_of(label).factor if label in LABELS else 1.0
    return array / factor, factor, axis_label(label)


def _scan(delta_chi2: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    z = _array(delta_chi2, "delta_chi2")
    if z.shape != shape:
        raise NuebarError(f"delta_chi2: expected shape {shape}, one axis per parameter, got {z.shape}; transpose it")
    if z.min() < -0.05:
        raise NuebarError(
            f"delta_chi2: expected no point below the best fit, got {z.min():.3g}; fit again from that point"
        )
    return z


def _point(values: Sequence[float], what: str) -> list[float]:
    if not all(math.isfinite(v) for v in values):
        raise NuebarError(f"{what}: expected finite numbers, got {tuple(values)}; correct them or leave it out")
    return [float(v) for v in values]
