"""Figures: what must be in them, what must not be drawn, and bytes that come out the same twice."""

import math
import sys
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from scipy.stats import poisson

from nuebar.errors import NuebarError
from nuebar.fit.result import FitResult, ParameterResult
from nuebar.report import plots

EDGES = np.array([0.7, 1.0, 1.1, 1.2, 1.4, 2.4])
COUNTS = np.array([3.0, 4.0, 0.0, 12.0, 100.0])
PARTS = {
    "signal": np.array([2.0, 3.0, 0.5, 8.0, 90.0]),
    "li9_he8": np.array([0.5, 0.5, 0.5, 1.0, 5.0]),
    "geoneutrinos": np.array([0.1, 0.1, 0.1, 0.2, 0.5]),
}
GRID_X, GRID_Y = np.linspace(0.27, 0.35, 9), np.linspace(7.0e-5, 8.0e-5, 11)


def bowl(x=GRID_X, y=GRID_Y):
    """Δχ² of two uncorrelated Gaussian parameters, shape (nx, ny)."""
    return ((x[:, None] - 0.31) / 0.009) ** 2 + ((y[None, :] - 7.5e-5) / 0.12e-5) ** 2


def fit_result(n=5, **changes):
    parameters = {"sin2_th12": ParameterResult(0.31, 0.01, -0.01, 0.01, False)}
    for k in range(n):
        parameters[f"core_K{k}"] = ParameterResult(0.1 * (k % 7) - 0.3, 0.15, -0.15, 0.15, False, (0.0, 0.2))
    order = tuple(parameters)
    sigma = np.array([p.error for p in parameters.values()])
    rho = np.eye(len(order)) + 0.2 - 0.2 * np.eye(len(order))
    values = {
        "parameters": parameters | {"spent_fuel": ParameterResult(0.0, 0.0, 0.0, 0.0, True, (0.0, 0.3))},
        "covariance": rho * np.outer(sigma, sigma),
        "parameter_order": order,
        "chi2": 5.0,
        "chi2_pulls": 1.0,
        "n_bins": 20,
        "n_free": 1,
        "n_calls": 10,
        "edm": 1e-9,
        "valid": True,
        "reason": "converged",
        "ordering": "normal",
        "predictor": "harmonic",
        "statistic": "cnp",
    }
    return FitResult(**(values | changes))


def impact_table():
    return {"sin2_th12": {f"core_K{k}": 0.001 * (-1) ** k * k for k in range(20)}, "dm2_21_eV2": {"spent_fuel": 1e-7}}


FIGURES = {
    "spectrum": lambda: plots.spectrum(
        EDGES, COUNTS, PARTS, simulated=True, unoscillated=3 * PARTS["signal"], title="A title"
    ),
    "pulls": lambda: plots.pulls(fit_result(), title="A title"),
    "correlation": lambda: plots.correlation(fit_result(), title="A title"),
    "impacts": lambda: plots.impacts(impact_table(), errors={"sin2_th12": 0.01, "dm2_21_eV2": 1e-6}, title="A title"),
    "contour": lambda: plots.contour(
        GRID_X,
        GRID_Y,
        bowl(),
        labels=("sin2_th12", "dm2_21_eV2"),
        best=(0.31, 7.5e-5),
        reference=(0.3092, 7.5e-5, 0.0087, 0.12e-5, "JUNO (2025)"),
        title="A title",
    ),
    "profile": lambda: plots.profile(GRID_Y, bowl()[4], label="dm2_21_eV2", title="A title"),
    "predictions": lambda: plots.predictions(EDGES, {"a": COUNTS, "b": 1.01 * COUNTS}, "a", title="A title"),
}


def texts(figure):
    """Everything that is written in a figure."""
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text()]


def errorbars(ax):
    return [c for c in ax.containers if isinstance(c, ErrorbarContainer)]


def bar_ends(container):
    """Lower and upper ends of the bars of an errorbar plot, shape (points, 2)."""
    return np.array([segment[:, 1] for segment in container[2][0].get_segments()])


# ---------------------------------------------------------------- laws of every figure


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_the_same_figure_gives_the_same_bytes_without_a_date_or_a_program(draw):
    figure = draw()
    first = plots.to_bytes(figure)
    assert first == plots.to_bytes(figure) == plots.to_bytes(draw())
    assert first.startswith(b"\x89PNG")
    for word in (b"Software", b"matplotlib", b"tEXt"):
        assert word not in first


@pytest.mark.parametrize("suffix", [".pdf", pytest.param(".svg", marks=pytest.mark.slow)])
def test_vector_formats_are_reproducible_too(suffix):
    first = plots.to_bytes(FIGURES["contour"](), suffix)
    assert first == plots.to_bytes(FIGURES["contour"](), suffix)
    assert b"CreationDate" not in first
    assert b"<dc:date>" not in first


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_figures_carry_title_and_axis_labels_and_leave_no_trace_in_matplotlib(draw):
    before = dict(matplotlib.rcParams)
    figure = draw()
    assert dict(matplotlib.rcParams) == before
    assert "A title" in texts(figure)
    main = [ax for ax in figure.axes if ax.axison]
    assert any(ax.get_xlabel() for ax in main) or figure.get_supxlabel() or len(main[0].get_xticklabels()) > 3


@pytest.mark.parametrize("name", ["contour", "profile", "pulls", "correlation"])
def test_figures_can_be_placed_in_the_users_own(name):
    figure = Figure(figsize=(8, 4))
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    call = {
        "contour": lambda ax: plots.contour(GRID_X, GRID_Y, bowl(), labels=("a", "b"), ax=ax),
        "profile": lambda ax: plots.profile(GRID_X, bowl()[:, 5], label="a", ax=ax),
        "pulls": lambda ax: plots.pulls(fit_result(30), ax=ax),
        "correlation": lambda ax: plots.correlation(fit_result(), ax=ax),
    }[name]
    assert call(right) is figure
    assert right.has_data()
    assert not left.has_data()


def test_a_pair_of_axes_or_one_in_a_subfigure_works():
    figure = Figure()
    FigureCanvasAgg(figure)
    sub = figure.subfigures(1, 2)[1]
    pair = sub.subplots(2, 1)
    assert plots.spectrum(EDGES, COUNTS, PARTS, simulated=False, ax=pair) is figure
    assert len(errorbars(pair[0])) == len(errorbars(pair[1])) == 1
    alone = Figure()
    FigureCanvasAgg(alone)
    ax = alone.subplots()
    assert plots.spectrum(EDGES, COUNTS, PARTS, simulated=False, ax=ax) is alone
    assert alone.axes == [ax]
    with pytest.raises(NuebarError, match="pair of axes"):
        plots.predictions(EDGES, {"a": COUNTS, "b": COUNTS}, "a", ax=ax)


def test_saving_is_atomic_and_refuses_an_unknown_suffix(tmp_path):
    figure = FIGURES["profile"]()
    plots.save(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == plots.to_bytes(figure)
    plots.save(figure, tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(NuebarError, match=r"\.png, \.pdf, \.svg"):
        plots.save(figure, tmp_path / "a.jpg")
    with pytest.raises(NuebarError, match="existing folder"):
        plots.save(figure, tmp_path / "nowhere" / "a.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pdf", "a.png"]


def test_a_missing_matplotlib_is_one_helpful_sentence(monkeypatch):
    for name in [n for n in sys.modules if n == "matplotlib" or n.startswith("matplotlib.")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(NuebarError, match=r"pip install 'nuebar\[plot\]'"):
        plots.profile(GRID_X, bowl()[:, 5], label="a")


# ---------------------------------------------------------------- spectra


def test_spectrum_draws_densities_per_tenth_of_a_MeV():
    upper, lower = FIGURES["spectrum"]().axes
    density = 0.1 / np.diff(EDGES)
    np.testing.assert_allclose(errorbars(upper)[0][0].get_ydata(), COUNTS * density)
    steps = {p.get_label().split(" (")[0]: p.get_data() for p in upper.patches if isinstance(p, StepPatch)}
    total = sum(PARTS.values())
    np.testing.assert_allclose(steps["Best fit"].values, total * density)
    np.testing.assert_allclose(steps["No oscillation"].values, (total + 2 * PARTS["signal"]) * density)
    # The stack: 9Li/8He (most events) lowest, the signal on top of everything up to the total.
    lithium, geo, signal = (steps[n] for n in ("⁹Li/⁸He", "Geoneutrinos", r"Reactor $\bar{\nu}_e$"))
    np.testing.assert_allclose(lithium.baseline, 0.0)
    np.testing.assert_allclose(geo.baseline, lithium.values)
    np.testing.assert_allclose(signal.baseline, geo.values)
    np.testing.assert_allclose(signal.values, total * density)
    assert upper.get_ylabel() == "Events per 0.1 MeV"
    assert lower.get_xlabel() == "Prompt energy [MeV]"


def test_spectrum_bars_are_poisson_intervals_and_residuals_in_units_of_root_fit():
    upper, lower = plots.spectrum(EDGES, COUNTS, PARTS, simulated=False).axes
    low, high = (bar_ends(errorbars(upper)[0]) / (0.1 / np.diff(EDGES))[:, None]).T
    tail = (1 - math.erf(1 / math.sqrt(2))) / 2
    # Garwood: at the lower end n or more, at the upper end n or fewer, each have 15.87 % probability.
    seen = COUNTS > 0
    np.testing.assert_allclose(poisson.sf(COUNTS[seen] - 1, low[seen]), tail, rtol=1e-6)
    np.testing.assert_allclose(poisson.cdf(COUNTS, high), tail, rtol=1e-6)
    assert low[~seen] == 0.0
    total = sum(PARTS.values())
    np.testing.assert_allclose(errorbars(lower)[0][0].get_ydata(), (COUNTS - total) / np.sqrt(total))


@pytest.mark.parametrize("tallest", ["data", "fit", "free"])
def test_nothing_is_drawn_outside_the_axes(tallest):
    factor = {"data": 1.0, "fit": 1.0, "free": 1.0} | {tallest: 30.0}
    parts = {n: factor["fit"] * c for n, c in PARTS.items()}
    upper, lower = plots.spectrum(
        EDGES, factor["data"] * COUNTS, parts, simulated=False, unoscillated=factor["free"] * PARTS["signal"]
    ).axes
    steps = [p.get_data().values for p in upper.patches if isinstance(p, StepPatch)]
    top = max(np.max(steps), np.max(bar_ends(errorbars(upper)[0])))
    assert top <= upper.get_ylim()[1] <= 1.1 * top
    assert np.all(np.abs(errorbars(lower)[0][0].get_ydata()) <= lower.get_ylim()[1])


def test_spectrum_takes_given_errors():
    errors = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    upper, lower = plots.spectrum(EDGES, COUNTS, PARTS, simulated=False, errors=errors, ylabel="N").axes
    np.testing.assert_allclose(np.diff(bar_ends(errorbars(lower)[0])), 2.0)
    np.testing.assert_allclose(errorbars(lower)[0][0].get_ydata(), (COUNTS - sum(PARTS.values())) / errors)
    assert upper.get_ylabel() == "N"


@pytest.mark.parametrize(
    ("simulated", "word", "data"),
    [
        (True, "simulated (Asimov)", "Simulated data (119)"),
        (False, None, "Data (119)"),
        ("toy 7", "toy 7", "Simulated"),
    ],
)
def test_simulated_data_are_never_passed_for_data(simulated, word, data):
    written = texts(plots.spectrum(EDGES, COUNTS, PARTS, simulated=simulated))
    assert any(t.startswith(data) for t in written)
    assert (word in written) if word else not any("imulated" in t for t in written)


def test_an_empty_bin_with_no_expectation_is_no_residual_but_data_there_are_refused():
    parts = {"signal": np.array([1.0, 0.0])}
    lower = plots.spectrum([0, 1, 2], [2, 0], parts, simulated=False).axes[1]
    np.testing.assert_allclose(errorbars(lower)[0][0].get_ydata(), [1.0, 0.0])
    with pytest.raises(NuebarError, match=r"bin 1 \(1 to 2 MeV\)"):
        plots.spectrum([0, 1, 2], [2, 1], parts, simulated=False)


def test_many_bins_and_many_backgrounds_are_told_apart():
    edges = np.linspace(0.8, 12.0, 341)
    parts = {f"source_{k}": np.full(340, 1.0 + k) for k in range(10)}
    figure = plots.spectrum(edges, sum(parts.values()), parts, simulated=True)
    areas = [p for p in figure.axes[0].patches if isinstance(p, StepPatch) and p.get_fill()]
    looks = {(p.get_facecolor(), p.get_hatch()) for p in areas}
    assert len(areas) == len(looks) == 10
    assert len(errorbars(figure.axes[1])[0][2]) == 0  # points only


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"counts": [1, 2, 3, 4, math.nan]}, "counts: expected finite numbers, got nan at index 4"),
        ({"counts": [1, 2, 3]}, "expected 5 counts"),
        ({"counts": [1, 2, 3, 4, -1]}, "bin 4"),
        ({"counts": ["a"] * 5}, "array of numbers"),
        ({"edges_MeV": EDGES[::-1]}, "increasing bin edges"),
        ({"components": {}}, "at least one component"),
        ({"components": {"signal": [1, 2, math.inf, 4, 5]}}, "component 'signal'"),
        ({"errors": [1, 1, 0, 1, 1]}, "positive numbers"),
        ({"errors": [1, 1]}, "5 positive numbers"),
        ({"unoscillated": [math.nan] * 5}, "unoscillated"),
        ({"per_MeV": 0.0}, "per_MeV"),
    ],
)
def test_bad_spectra_are_refused(changes, words):
    arguments = {"edges_MeV": EDGES, "counts": COUNTS, "components": PARTS, "simulated": False} | changes
    with pytest.raises(NuebarError, match=words) as caught:
        plots.spectrum(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("others", "scale", "label"),
    [
        ({"b": 1.01}, "linear", "ratio − 1 [%]"),
        ({"b": 1 + 3e-8, "c": 1 - 2e-8}, "linear", "ratio − 1 [$10^{-9}$]"),
        ({"b": 1.01, "c": 1 + 1e-9}, "log", "|ratio − 1|"),
        ({"b": 1.0}, "linear", "ratio − 1 [%]"),
        ({"b": 1.01, "c": 1.0}, "linear", "ratio − 1 [%]"),
    ],
)
def test_predictions_choose_a_scale_in_which_every_difference_is_seen(others, scale, label):
    spectra = {"a": COUNTS} | {n: f * COUNTS for n, f in others.items()}
    upper, lower = plots.predictions(EDGES, spectra, "a").axes
    assert (lower.get_yscale(), lower.get_ylabel()) == (scale, label)
    assert len([p for p in upper.patches if isinstance(p, StepPatch)]) == len(spectra)
    steps = [p.get_data().values for p in lower.patches if isinstance(p, StepPatch)]
    assert len(steps) == len(others)
    low, high = lower.get_ylim()
    for values in steps:
        assert np.all(values[COUNTS > 0] >= low)
        assert np.all(values <= high)


def test_differences_are_relative_to_the_reference():
    lower = plots.predictions(EDGES, {"b": 1.01 * COUNTS, "a": COUNTS}, "a").axes[1]
    (step,) = (p.get_data().values for p in lower.patches if isinstance(p, StepPatch))
    np.testing.assert_allclose(step, np.where(COUNTS > 0, 1.0, 0.0))  # percent


@pytest.mark.parametrize(
    ("spectra", "words"),
    [
        ({"b": COUNTS, "c": COUNTS}, "reference 'a'"),
        ({"a": COUNTS}, "two to 7"),
        ({}, "two to 7"),
        ({"a": COUNTS, "b": COUNTS + 1}, "bin 2"),
        ({"a": COUNTS, "b": np.full(5, math.nan)}, "prediction 'b'"),
    ],
)
def test_predictions_that_cannot_be_compared_are_refused(spectra, words):
    with pytest.raises(NuebarError, match=words):
        plots.predictions(EDGES, spectra, "a")


# ---------------------------------------------------------------- fits


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (10, 1), (24, 1), (25, 2), (45, 2)])
def test_every_free_pull_is_drawn_once_with_its_bar(n, columns):
    result = fit_result(n)
    axes = plots.pulls(result).axes
    assert len(axes) == columns
    drawn = []
    for ax in axes:
        (container,) = errorbars(ax)
        ends = [segment[:, 0] for segment in container[2][0].get_segments()]
        labels = [t.get_text() for t in ax.get_yticklabels()]
        drawn += [(name, low, high) for name, (low, high) in zip(labels, ends, strict=True)]
    pulls = [(p.value / 0.2, p.error / 0.2) for name, p in result.parameters.items() if name.startswith("core")]
    assert [name for name, *_ in drawn] == [f"K{k} power" for k in range(n)]
    np.testing.assert_allclose([d[1:] for d in drawn], [(v - e, v + e) for v, e in pulls])


def test_pulls_and_correlations_warn_of_blinding_and_of_failed_fits():
    for draw in (plots.pulls, plots.correlation):
        assert "BLINDED" in texts(draw(fit_result(blinded=True)))
        assert "BLINDED, FIT NOT VALID" in texts(draw(fit_result(blinded=True, valid=False)))
        assert not any("BLINDED" in t or "NOT VALID" in t for t in texts(draw(fit_result())))
    assert "BLINDED" in texts(plots.pulls(fit_result(30, blinded=True)))


def test_a_pull_without_an_error_is_refused():
    parameters = dict(fit_result().parameters)
    parameters["core_K1"] = replace(parameters["core_K1"], error=math.nan)
    with pytest.raises(NuebarError, match="'core_K1'"):
        plots.pulls(fit_result(parameters=parameters))
    with pytest.raises(NuebarError, match="at least one"):
        plots.pulls(fit_result(0))


def test_the_heat_map_holds_the_correlations_in_percent():
    result = fit_result(3)
    figure = plots.correlation(result, ["core_K1", "sin2_th12"])
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), [[100, 20], [20, 100]])
    assert [t.get_text() for t in figure.axes[0].texts] == ["100", "20", "20", "100"]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["K1 power", r"$\sin^2\theta_{12}$"]
    assert len(plots.correlation(fit_result(20)).axes[0].texts) == 0
    with pytest.raises(NuebarError, match="finite covariance"):
        plots.correlation(fit_result(1, covariance=np.full((2, 2), math.nan)))


def test_impacts_are_ranked_cut_and_in_units_of_the_error():
    figure = plots.impacts(impact_table(), errors={"sin2_th12": 0.01, "dm2_21_eV2": 1e-6}, top=4)
    first, second = figure.axes
    widths = [bar.get_width() for bar in first.containers[0]]
    assert isinstance(first.containers[0], BarContainer)
    np.testing.assert_allclose(widths, [-1.9, 1.8, -1.7, 1.6])
    assert [t.get_text() for t in first.get_yticklabels()] == [f"K{k} power" for k in (19, 18, 17, 16)]
    np.testing.assert_allclose([bar.get_width() for bar in second.containers[0]], [0.1])
    assert r"$\Delta m^2_{21}$" in second.get_xlabel()
    assert (
        len(
            plots.impacts(
                impact_table() | {"x": {"y": 1.0}}, errors=dict.fromkeys(["sin2_th12", "dm2_21_eV2", "x"], 1.0)
            ).axes
        )
        == 3
    )


@pytest.mark.parametrize(
    ("table", "errors", "words"),
    [
        ({}, {}, "at least one parameter"),
        ({"x": {"y": 1.0}}, {}, "positive error"),
        ({"x": {"y": 1.0}}, {"x": 0.0}, "positive error"),
        ({"x": {"y": math.nan}}, {"x": 1.0}, "impact of 'y' on 'x'"),
        ({"x": {}}, {"x": 1.0}, "at least one to show"),
    ],
)
def test_impacts_without_meaning_are_refused(table, errors, words):
    with pytest.raises(NuebarError, match=words):
        plots.impacts(table, errors=errors)


# ---------------------------------------------------------------- scans


@pytest.mark.parametrize(
    ("cl", "dof", "delta"),
    # As printed in the Statistics review of the PDG for m = 1, 2, 3 (nominal: quoted from memory, checked by χ² itself)
    [(0.6827, 1, 1.00), (0.6827, 2, 2.30), (0.9545, 2, 6.18), (0.9973, 2, 11.83), (0.90, 2, 4.61), (0.95, 3, 7.82)],
)
def test_confidence_levels_of_the_pdg_table(cl, dof, delta):
    ((found, label),) = plots.confidence_levels([cl], dof=dof)
    assert found == pytest.approx(delta, abs=0.006)
    assert label == f"{100 * cl:.4g} % CL, {dof} dof: Δχ² = {found:.2f}"
    with pytest.raises(NuebarError, match="between 0 and 1"):
        plots.confidence_levels([68.27])


def test_contours_of_a_parabola_are_its_ellipses_also_on_a_coarse_grid():
    figure = FIGURES["contour"]()
    ax = figure.axes[0]
    lines = [c for c in ax.collections if hasattr(c, "levels") and not c.filled]
    assert [float(c.levels[0]) for c in lines] == pytest.approx([2.30, 6.18, 11.83], abs=0.005)
    for line in lines:
        x, y = line.get_paths()[0].vertices.T
        height = ((x - 0.31) / 0.009) ** 2 + ((y - 7.5) / 0.12) ** 2
        np.testing.assert_allclose(height, line.levels[0], rtol=2e-3)
    assert ax.get_xlabel() == r"$\sin^2\theta_{12}$"
    assert ax.get_ylabel() == r"$\Delta m^2_{21}$ [$10^{-5}$ eV²]"
    assert ax.get_ylim() == pytest.approx((7.0, 8.0))
    written = texts(figure)
    for word in ("68.27 % CL, 2 dof: Δχ² = 2.30", "Best fit", "JUNO (2025)"):
        assert word in written
    (point,) = errorbars(ax)
    assert (point[0].get_xdata()[0], point[0].get_ydata()[0]) == pytest.approx((0.3092, 7.5))
    assert not any(isinstance(c, PathCollection) for c in ax.collections)


def test_a_level_beyond_the_scan_is_said_to_be_so():
    written = texts(plots.contour(GRID_X, GRID_Y, bowl(), labels=("a", "b"), levels=[(2.3, "in"), (500.0, "out")]))
    assert "in: Δχ² = 2.30" in written
    assert "out: Δχ² = 500.00 (beyond the scan)" in written


def test_profile_shows_the_levels_below_its_curves():
    figure = plots.profile(GRID_Y, {"NO": bowl()[4], "IO": bowl()[4] + 3}, label="dm2_21_eV2", note="BLINDED")
    written = texts(figure)
    for word in ("1σ (1 dof)", "2σ (1 dof)", "3σ (1 dof)", "NO", "IO", "BLINDED"):
        assert word in written
    ax = figure.axes[0]
    x, y = next(line for line in ax.lines if line.get_label() == "NO").get_data()
    np.testing.assert_allclose(y, bowl(y=x * 1e-5)[4], atol=1e-9)  # a cubic spline is exact on a parabola
    flat = texts(plots.profile(GRID_Y, 0.1 * bowl()[4], label="dm2_21_eV2"))
    assert "1σ (1 dof)" in flat
    assert "2σ (1 dof)" not in flat


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"delta_chi2": bowl().T}, "expected shape"),
        ({"delta_chi2": bowl() - 1.0}, "fit again"),
        ({"delta_chi2": np.where(bowl() > 5, math.nan, bowl())}, "finite numbers, got nan at index 0, 0"),
        ({"x": GRID_X[::-1]}, "increasing values of 'a'"),
        ({"levels": []}, "increasing order"),
        ({"levels": [(4.0, "b"), (1.0, "a")]}, "increasing order"),
        ({"best": (math.nan, 1.0)}, "best fit: expected finite"),
        ({"reference": (0.3, 7.5e-5, math.nan, 0.1e-5, "x")}, "reference: expected finite"),
    ],
)
def test_bad_scans_are_refused(changes, words):
    arguments = {"x": GRID_X, "y": GRID_Y, "delta_chi2": bowl(), "labels": ("a", "b")} | changes
    with pytest.raises(NuebarError, match=words):
        plots.contour(**arguments)


@pytest.mark.parametrize(("curves", "words"), [({}, "got 0"), (dict.fromkeys("abcdefgh", bowl()[4]), "got 8")])
def test_a_profile_has_one_to_seven_curves(curves, words):
    with pytest.raises(NuebarError, match=words):
        plots.profile(GRID_Y, curves, label="a")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("sin2_th13", r"$\sin^2\theta_{13}$"),
        ("dm2_31_eV2", r"$\Delta m^2_{31}$ [$10^{-3}$ eV²]"),
        ("matter_density_g_cm3", r"$\rho$ [g/cm³]"),
        ("my own axis", "my own axis"),
    ],
)
def test_axis_labels_state_symbol_power_and_unit(name, label):
    assert plots.axis_label(name) == label


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bkg_geoneutrinos", "Geoneutrino rate"),
        ("slope_li9_he8", "⁹Li/⁸He slope"),
        ("fission_fraction_Pu239", "²³⁹Pu fraction"),
        ("resolution_a", "Resolution a"),
        ("norm_flux", "Flux norm."),
        ("bkg_my_source", "My source rate"),
        ("anything_else", "Anything else"),
    ],
)
def test_pulls_name_parameters_in_words(name, words):
    parameters = {name: ParameterResult(0.0, 1.0, -1.0, 1.0, False, (0.0, 1.0))}
    ax = plots.pulls(fit_result(parameters=parameters)).axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == [words]
