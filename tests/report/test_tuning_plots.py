"""Figures of tunings: drawn from small inputs, with labels and finite axes, the same twice, refused when wrong."""

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from nuebar.errors import NuebarError
from nuebar.io.tunings import Goodness, SourceGoodness, TuningResult
from nuebar.report import tuning_plots as draw
from nuebar.report import tuning_rank_plots as trust
from nuebar.report import tuning_release_plots as corners
from nuebar.report import tuning_response_plots as response
from nuebar.report import tuning_study_plots as study
from nuebar.report.plots import to_bytes
from nuebar.tune.data import CalibrationData
from nuebar.tune.density import RESPONSE
from nuebar.tune.train import probabilities_of

sys.path.insert(0, str(Path(__file__).parents[1] / "tune"))
from toy import TRUTH, ToyDensity

TOY = ToyDensity()
AT = np.array(list(TRUTH.values()))
EDGES = TOY.edges
RANDOM = np.random.default_rng(7)
SIGMA = np.array([0.2, 0.035, 36.0])
CORRELATION = np.array([[1.0, -0.9, 0.98], [-0.9, 1.0, -0.96], [0.98, -0.96, 1.0]])
COVARIANCE = CORRELATION * np.outer(SIGMA, SIGMA)
EVENTS = np.array([1000.0, 5000.0, 25000.0])


@pytest.fixture(scope="module")
def data():
    shares = probabilities_of(TOY, AT[None])[0]
    counts = {s: RANDOM.poisson(5000 * p).astype(float) for s, p in zip(TOY.sources, shares, strict=True)}
    return CalibrationData.from_counts(counts, EDGES, TOY.pe_to_observable)


@pytest.fixture(scope="module")
def expected(data):
    return draw.expected_counts(data, TOY, AT)


def tuning(samples=None, goodness=None):
    best = dict(zip(RESPONSE, AT, strict=True))
    return TuningResult(
        names=RESPONSE,
        best=best,
        errors=dict(zip(RESPONSE, SIGMA, strict=True)),
        minos={},
        mean=AT,
        covariance=COVARIANCE,
        samples=samples,
        norms={},
        norm_errors={},
        at_limit=(),
        limits=dict(zip(RESPONSE, TOY.limits, strict=True)),
        log_likelihood=0.0,
        method="minuit",
        unbinned=False,
        norm_treatment="closed",
        density="toy",
        density_provenance={},
        data={},
        seed=0,
        valid=True,
        reason="converged",
        goodness=goodness,
    )


def judged(p):
    one = SourceGoodness("Cs137", 5000, 20, 21.0, p, 3.0, (1.0, 1.1), p, 0.5, p)
    return Goodness((one,), 21.0, 20, p, p, 100)


def draws(n=1500):
    return RANDOM.multivariate_normal(AT, COVARIANCE, n)


def exposures(n=3):
    scale = SIGMA / np.sqrt(EVENTS / 1e4)[:, None]
    small = 0.03 * scale
    return study.Exposures(EVENTS[:n], *(a[:n] for a in (small, small, scale, small, scale)))


BIAS = RANDOM.standard_normal((60, 3))
POINTS = AT + np.array([1.8, 0.1, 400.0]) * RANDOM.integers(-3, 4, (60, 3))
HISTORY = [(100 * k, 4.0 + 1 / k, 0.01 / k, 10.0 * k) for k in range(1, 30)]
DISTANCES = tuple(0.01 * k * (1 + RANDOM.random((8, 2))) for k in (1, 2, 5))
STUDIES = {
    "spread": lambda: study.exposure_spread({"a": exposures(), "b": exposures()}, AT, title="two"),
    "bias": lambda: study.exposure_bias({"a": exposures(), "b": exposures()}, AT, aims=[2.5e-3, 5.5e-3, 2e-4]),
    "one exposure": lambda: study.exposure_bias({"a": exposures(1)}, AT),
    "points": lambda: study.point_biases(POINTS, BIAS, edge=BIAS[:, 0] > 1, title="one"),
    "points, no edge": lambda: study.point_biases(POINTS, 0.1 * BIAS, noise=0.1),
    "asimov": lambda: study.bias_histograms({"a": 0.1 * BIAS, "b": 0.2 * BIAS}, edge=BIAS[:, 0] > 1),
    "asimov, one": lambda: study.bias_histograms({"a": BIAS[:1]}),
    "ranks": lambda: trust.rank_histograms(
        {"a": RANDOM.integers(0, 100, (60, 3)), "b": RANDOM.integers(0, 100, (60, 3))},
        n_samples=99,
        bins=7,
        p_values={"a": [0.5, 1e-4, 0.1]},
    ),
    "shares": lambda: trust.rank_histograms(
        {"a": RANDOM.random((60, 4))}, bins=5, names=(*RESPONSE, "density"), title="t"
    ),
    "coverage": lambda: trust.coverage_curves({"a": np.full((2, 3), 0.5)}, 60, levels=[0.3, 0.68]),
    "pulls": lambda: trust.pull_histograms({"a": BIAS, "b": 9 * BIAS}),
    "distances": lambda: trust.distance_ranges(
        {"a": DISTANCES, "b": tuple(d[0] for d in DISTANCES)},
        ("Cs137", "AmBe"),
        floor=([0.01] * 2, [0.02] * 2, [0.05] * 2),
        floor_upper=(0.02, 0.04, 0.1),
    ),
    "training": lambda: draw.training_curves({"a": HISTORY, "b": HISTORY[:2]}, floor=1e-3, title="t"),
    "training, one line": lambda: draw.training_curves({"a": HISTORY[:1]}),
    "corner": lambda: draw.posterior_corner({"minuit": tuning(), "nuts": tuning(draws())}, truth=TRUTH),
    "corner, samples": lambda: draw.posterior_corner({"nuts": tuning(draws())}),
    "dependence": lambda: response.parameter_dependence(EDGES, scans()[:1], "Co60", fixed="the rest"),
}


@cache
def scans():
    return response.scan_density(TOY, "Co60", AT)


@cache
def drawn(name):
    return STUDIES[name]()


def check(figure):
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    size = figure.bbox
    for ax in figure.axes:
        if not ax.axison:
            continue
        assert np.all(np.isfinite([*ax.get_xlim(), *ax.get_ylim()]))
        assert ax.get_xlim()[0] < ax.get_xlim()[1]
        assert ax.get_ylim()[0] < ax.get_ylim()[1]
        for text in (ax.xaxis.label, ax.yaxis.label, ax.title, ax._left_title):
            if text.get_text():
                box = text.get_window_extent()
                assert box.x0 > -2
                assert box.y0 > -2
                assert box.x1 < size.x1 + 2
                assert box.y1 < size.y1 + 2


def texts(figure):
    found = [t.get_text() for t in figure.texts]
    for ax in figure.axes:
        found += [t.get_text() for t in ax.texts]
        found += [ax.get_xlabel(), ax.get_ylabel(), *(ax.get_title(loc) for loc in ("left", "center", "right"))]
    for legend in figure.legends:
        found += [t.get_text() for t in legend.get_texts()] + [legend.get_title().get_text()]
    return " | ".join(found + [t.get_text() for t in (figure._supxlabel, figure._supylabel) if t])


@pytest.mark.parametrize("name", STUDIES)
def test_figures_are_drawn_inside_and_leave_settings_alone(name):
    before = dict(matplotlib.rcParams)
    check(drawn(name))
    assert dict(matplotlib.rcParams) == before


def test_the_same_figure_twice_has_the_same_bytes():
    assert to_bytes(STUDIES["asimov, one"]()) == to_bytes(drawn("asimov, one"))


def test_labels_name_parameters_estimators_and_sources():
    for name, words in {
        "spread": ("$k_B$", "$f_C$", "light yield", "a: spread", "b: estimated", r"$1/\sqrt{N}$"),
        "bias": ("Relative bias [%]", "aim", "Events of each source"),
        "points": ("near an edge", "bias / error"),
        "ranks": ("99 %", "p = 0.0001"),
        "shares": ("density",),
        "coverage": ("60 data sets", "binomial, 99 %"),
        "pulls": ("N(0, 1)", "width"),
        "distances": ("$d_2$", "perfect density, 95 %"),
        "training": ("best 0.000345 at step 2900", "perfect density"),
        "corner": ("minuit", "nuts", "68.3 % and 95.5 %", "truth"),
    }.items():
        told = texts(drawn(name))
        assert all(word in told for word in words), (name, told)


def test_spectra_of_all_sources_and_of_one(data, expected):
    figure = draw.spectra(data, {"toy": expected, "other": 1.01 * expected}, title="sets")
    check(figure)
    assert len([ax for ax in figure.axes if ax.axison]) == 10
    assert all(word in texts(figure) for word in ("¹³⁷Cs", "AmBe", "toy", "other", "sets", "Events per bin"))
    one = draw.spectra(data.subset(["Cs137"]), {"best fit": expected[:1]}, result=tuning(goodness=judged(1e-3)))
    assert "p: 1e-3 dev., 1e-3 local, 1e-3 KS" in texts(one)
    assert "9846 ± 36" in texts(one)
    assert "p = 1e-3" in texts(one)


def test_pulls_below_are_those_of_merged_bins(data, expected):
    figure = draw.spectra(data.subset(["K40"]), {"m": expected[1:2]})
    check(figure)
    lower = next(ax for ax in figure.axes if "√" in ax.get_ylabel())
    points = lower.lines[-1].get_ydata()
    last = int(np.flatnonzero((data.counts[1] > 0) | (expected[1] > 0.3)).max()) + 1
    last += last // 30
    groups = np.split(np.arange(last), draw._parts(expected[1][:last])[1:-1])
    mu = np.array([expected[1][g].sum() for g in groups])
    n = np.array([data.counts[1][g].sum() for g in groups])
    assert np.all(mu >= 10)
    np.testing.assert_allclose(points, (n - mu) / np.sqrt(mu), rtol=1e-9)
    assert np.abs(points).max() < 5


def test_expected_counts_hold_norms_and_background(data, expected):
    np.testing.assert_allclose(expected.sum(axis=1), data.events, rtol=1e-6)
    flat = np.full(800, 0.5)
    some = data.subset(["AmC", "K40"]).with_background({"K40": flat})
    found = draw.expected_counts(some, TOY, AT, {"AmC": 1.1})
    np.testing.assert_allclose(found[0], 1.1 * expected[4], rtol=1e-6)
    np.testing.assert_allclose(found[1], (1 - 400 / data.events[1]) * expected[1] + 0.5, rtol=1e-6)


@pytest.mark.parametrize(("mean", "sigma"), [(2.0, 0.05), (3.333, 0.11), (4.7, 0.03)])
def test_place_of_a_peak_and_its_error(mean, sigma):
    from scipy.stats import norm

    p = np.diff(norm.cdf(EDGES, mean, sigma))
    assert response.peak_place(EDGES, p)[0] == pytest.approx(mean, abs=0.02 * sigma)
    found = [response.peak_place(EDGES, RANDOM.poisson(20000 * p)) for _ in range(200)]
    pulls = [(x - mean) / error for x, error in found]
    assert abs(np.mean(pulls)) < 0.4
    assert 0.8 < np.std(pulls) < 1.2


def test_peak_series_finds_the_light_of_the_toy(data, expected):
    series = response.peak_series("toy", data, expected)
    assert series.energy_MeV.tolist() == [0.6617, 1.4608, 2.5057 / 2, 2.2233, 2.2233]
    assert np.abs((series.data - series.model) / series.error).max() < 4
    kB, fC, light = AT  # the toy's own formula
    e = 1.461
    mean = 0.1691 * light * (1 - 0.012 * kB / (1 + 0.3 * e) ** 0.5 + 0.07 * fC * e / (e + 1.0))
    assert series.model[1] == pytest.approx(mean, rel=2e-3)
    for reference in (2.2233, None):
        figure = response.peak_positions([series, replace(series, label="again")], reference_MeV=reference)
        check(figure)
        assert "Energy of a gamma [MeV]" in texts(figure)


def test_scans_change_one_parameter():
    middle = probabilities_of(TOY, AT[None])[0, 2]
    assert [s.name for s in scans()] == list(RESPONSE)
    for k, scan in enumerate(scans()):
        assert scan.values[[0, 2, 4]].tolist() == [TOY.limits[k][0], np.mean(TOY.limits[k]), TOY.limits[k][1]]
        np.testing.assert_allclose(scan.probabilities.sum(axis=1), 1.0, rtol=1e-6)
        np.testing.assert_allclose(scan.near_probabilities[10], middle, atol=1e-9)


def test_contours_of_samples_enclose_the_area_of_the_gaussian():
    covariance = COVARIANCE[::2, ::2]
    areas = []
    for _ in range(20):
        sample = RANDOM.multivariate_normal(AT[[0, 2]], covariance, 1000)
        x, y, density, levels = corners._smoothed(sample)
        steps = [[a[1, 0] - a[0, 0], a[0, 1] - a[0, 0]] for a in (x, y)]
        areas.append([(density > level).sum() * abs(np.linalg.det(np.array(steps))) for level in levels])
        middle = [float((a * density).sum() / density.sum()) for a in (x, y)]
        np.testing.assert_allclose((middle - sample.mean(axis=0)) / SIGMA[::2], 0.0, atol=0.02)
    bound = -2 * np.log1p(-np.sort(corners.SHARES)[::-1])  # χ² of two dimensions
    np.testing.assert_allclose(np.mean(areas, axis=0), np.pi * bound * np.sqrt(np.linalg.det(covariance)), rtol=0.04)


def test_rank_bins_hold_whole_ranks_with_their_chance():
    edges, chance = trust._rank_bins(7, 99)
    every = np.histogram(np.arange(100), edges)[0]
    np.testing.assert_allclose(every / 100, chance)
    assert chance.sum() == pytest.approx(1.0)


def test_exposures_come_from_the_record_of_a_study():
    row = {"events": 1000, "bias_percent": [1, 2, -3], "bias_noise_percent": [0.1] * 3, "spread": [2, 2, 2]}
    row |= {"ratio_error": [0.05] * 3, "estimated": [4, 4, 4], "more": "is left out"}
    found = study.Exposures.from_record({"truth": [10.0, 0.5, 100.0], "rows": [row, row | {"events": 2000}]})
    np.testing.assert_allclose(found.bias[1], [0.1, 0.01, -3.0])
    np.testing.assert_allclose(found.spread_error[0], 0.2)
    with pytest.raises(NuebarError, match="not a study of exposures: KeyError: 'truth'"):
        study.Exposures.from_record({"rows": []})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: study.exposure_bias({}, AT), "at least one study"),
        (lambda: study.exposure_bias({"a": exposures()}, [1.0, 0.0, 2.0]), "a number other than 0"),
        (lambda: study.exposure_bias({"a": replace(exposures(), bias=BIAS)}, AT), r"a, bias: expected shape \(3, 3\)"),
        (lambda: study.point_biases(POINTS, BIAS[:5]), r"got \(60, 3\) and \(5, 3\)"),
        (lambda: study.point_biases(POINTS, BIAS, noise=[1.0, 2.0]), "noise: expected a shape"),
        (lambda: study.bias_histograms({"a": BIAS}, edge=[True]), "one word for each of the 60 points"),
        (lambda: trust.rank_histograms({"a": 2 * np.ones((5, 3))}), "expected 0 to 1, got 2 to 2"),
        (lambda: trust.coverage_curves({"a": np.ones((2, 3))}, 10), "expected 7 shares"),
        (lambda: trust.pull_histograms({"a": BIAS[:, :2]}), "rows of 3 numbers"),
        (lambda: trust.pull_histograms({"a": BIAS * np.nan}), "finite numbers"),
        (lambda: trust.distance_ranges({"a": (0 * DISTANCES[0],) * 3}, "ab"), "numbers above 0"),
        (lambda: draw.training_curves({}), "at least one history"),
        (lambda: draw.training_curves({"a": [(1, 2, 0, 3)]}), "d2 above 0"),
        (lambda: draw.posterior_corner({}), "one to 6 results"),
        (lambda: draw.posterior_corner({"a": tuning()}, truth={"fC": 0.5}), "truth: expected kB"),
        (lambda: draw.posterior_corner({"a": tuning(draws(20))}), "more than 30 samples, got 20"),
        (lambda: draw.posterior_corner({"a": tuning(np.ones((50, 3)))}), "differ in every parameter"),
        (lambda: response.peak_positions([]), "one to 6 series"),
        (lambda: response.parameter_dependence(EDGES, [], "K40"), "at least one scan"),
        (lambda: response.peak_place(EDGES, np.zeros(800)), "three filled bins"),
    ],
)
def test_what_is_wrong_is_said(call, message):
    with pytest.raises(NuebarError, match=message):
        call()


def test_spectra_refuse_other_shapes(data, expected):
    with pytest.raises(NuebarError, match="model 'm': expected counts of zero or more"):
        draw.spectra(data, {"m": expected[:2]})
    with pytest.raises(NuebarError, match="one to 6 models, got 0"):
        draw.spectra(data, {})
