"""Wrong spectra, tables and parameters: one clear sentence each, never a NaN, never a crash inside a library."""

import dataclasses
import json
import math

import equinox as eqx
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nuebar.config import load_experiment, override
from nuebar.errors import NuebarError
from nuebar.fit.spectrum_fit import SpectrumFit, impacts, inverted_start
from nuebar.io.results import load_result, save_result
from nuebar.parameters import ParameterSet
from nuebar.predict.box import PHYSICS
from nuebar.predict.harmonic import HarmonicPredictor, Windows
from nuebar.predict.matrix import MatrixPredictor
from nuebar.predict.signal import signal_inputs
from nuebar.predict.spectrum import build_model
from nuebar.predict.store import save_harmonic

NAN, INF = math.nan, math.inf
BINS = 6

# One core, six bins, coarse fine bins: as cheap as a fit can be. Every number is nominal.
SMALL = """
format = 1
name = "small"
title = "one core"
[target]
free_protons = 1e33
efficiency = 0.8
[exposure]
days = 1000
[reactor.fission_fractions]
U235 = 0.58
U238 = 0.07
Pu239 = 0.30
Pu241 = 0.05
[reactor.energy_per_fission_MeV]
U235 = 202.36
U238 = 205.99
Pu239 = 211.12
Pu241 = 214.26
[[reactor.cores]]
name = "A"
power_GW = 20.0
baseline_km = 52.0
[response]
nonlinearity = "none"
resolution = [0.05, 0.01, 0.0]
[binning]
edges_MeV = [1, 2, 3, 4, 5, 6, 8]
fine_width_MeV = 0.2
[oscillation]
sin2_th12 = { value = 0.307, bounds = [0.05, 0.60] }
sin2_th13 = { value = 0.0218, sigma = 0.0007, bounds = [0.0, 0.2] }
dm2_21_eV2 = 7.53e-5
dm2_31_eV2 = { value = 2.5283e-3, fixed = true }
[matter]
density_g_cm3 = 2.6
[[backgrounds]]
name = "flat"
rate_per_day = 1.0
rate_sigma = 0.1
shape = "fast_neutrons"
[systematics]
energy_scale = 0.005
[systematics.signal]
flux = 0.02
[fit]
statistic = "poisson"
shape_uncertainties = false
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "small.toml"
    path.write_text(SMALL)
    return load_experiment(path)


class Built(tuple):
    __slots__ = ()

    def __repr__(self):
        return "Built"


@pytest.fixture(scope="module")
def built(small):
    return Built(build_model(small))


@pytest.fixture(scope="module")
def expected(built):
    model, parameters = built
    return np.asarray(model(model.vector(parameters.nominal()))[0])


class Predictors(dict):
    def __repr__(self):  # a failing example prints its fixtures, and these are long
        return "Predictors"


@pytest.fixture(scope="module")
def predictors(small):
    inputs = signal_inputs(small)
    return Predictors(harmonic=HarmonicPredictor.build(inputs), matrix=MatrixPredictor.build(inputs))


@pytest.fixture(scope="module")
def nominal(built):
    return {n: p.value for n, p in built[1].items() if n in PHYSICS}


def refused(action, *parts):
    """The one sentence of a refusal, with every part in it."""
    with pytest.raises(NuebarError) as caught:
        action()
    sentence = str(caught.value)
    assert len(sentence.splitlines()) == 1
    for part in parts:
        assert part in sentence
    return sentence


def check_record(result, folder):
    """A result is finite, or says that it is not to be trusted; its file never holds a NaN."""
    assert result.reason
    if result.valid:
        assert np.all(np.isfinite(result.covariance))
        assert all(math.isfinite(x) for p in result.parameters.values() for x in (p.value, p.error))
        assert math.isfinite(result.chi2)
    save_result(folder / "fit.json", result.to_dict())
    text = (folder / "fit.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text)["valid"] is result.valid
    assert type(result).from_dict(load_result(folder / "fit.json")).values() == result.values()


# ---------------------------------------------------------------- counts


@pytest.mark.parametrize("statistic", ["poisson", "cnp", "pearson", "neyman"])
@pytest.mark.parametrize(
    ("bad", "sentence"),
    [(NAN, "got nan at [2]"), (INF, "got inf at [2]"), (-INF, "got -inf at [2]"), (-1.0, "got -1.0 at [2]")],
)
def test_a_bad_count_is_named_with_its_bin(built, expected, statistic, bad, sentence):
    counts = expected.copy()
    counts[2] = bad
    fit = SpectrumFit(*built, counts, statistic=statistic)
    refused(fit.run, "counts must be finite and at least 0", sentence)


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ([], "expected 6 counts, one per bin, got shape (0,)"),
        (np.ones(BINS - 1), "expected 6 counts, one per bin, got shape (5,)"),
        (np.ones(BINS + 1), "expected 6 counts, one per bin, got shape (7,)"),
        (np.ones((1, BINS)), "expected 6 counts, one per bin, got shape (1, 6)"),
        (100.0, "expected 6 counts, one per bin, got shape ()"),
        (None, "expected 6 counts, one per bin, got shape ()"),
        (["1"] * BINS, "real numbers, got an array of <U1"),
        (np.ones(BINS) + 1j, "real numbers, got an array of complex128"),
        (np.ones(BINS, bool), "real numbers, got an array of bool"),
        (np.array([None] * BINS), "real numbers, got an array of object"),
    ],
)
def test_counts_that_are_no_spectrum(built, counts, sentence):
    refused(lambda: SpectrumFit(*built, counts), sentence)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.floats(width=32), min_size=BINS, max_size=BINS), statistic=st.sampled_from(["poisson", "cnp"])
)
@example(counts=[0.0] * BINS, statistic="poisson")
def test_exactly_the_physical_spectra_are_taken(built, counts, statistic):
    fit = SpectrumFit(*built, np.array(counts), statistic=statistic)
    if all(math.isfinite(c) and c >= 0 for c in counts):
        assert fit.problem().n_data == BINS + len(fit.pulled())
    else:
        refused(fit.problem, "counts must be finite and at least 0")


@settings(max_examples=6, deadline=None)
@given(scale=st.lists(st.floats(0, 3), min_size=BINS, max_size=BINS))
@example(scale=[0.0] * BINS)
@example(scale=[0.0] * (BINS - 1) + [1.0])
@example(scale=[10.0] * BINS)
@example(scale=[1e-3] * BINS)
def test_a_fit_of_any_spectrum_is_finite_or_says_why_not(tmp_path_factory, built, expected, scale):
    counts = np.round(expected * np.array(scale))
    try:
        result = SpectrumFit(*built, counts, statistic="poisson").run()
    except NuebarError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - both ends are right
        return
    check_record(result, tmp_path_factory.mktemp("fit"))


def test_an_empty_bin_needs_another_statistic_than_neyman(built, expected):
    counts = expected.copy()
    counts[0] = 0.0
    refused(SpectrumFit(*built, counts, statistic="neyman").run, "empty bin at [0]")
    assert SpectrumFit(*built, counts, statistic="poisson").run().valid


# ---------------------------------------------------------------- few bins, no background


def test_a_single_bin_is_predicted_and_its_fit_says_what_is_degenerate(small, expected, tmp_path):
    model, parameters = build_model(override(small, {"binning.edges_MeV": [1, 8]}))
    one = np.asarray(model(model.vector(parameters.nominal()))[0])
    assert one.shape == (1,)
    assert one[0] == pytest.approx(expected.sum(), rel=1e-6)  # fine bins differ, and with them the last digits
    fit = SpectrumFit.asimov(model, parameters, statistic="poisson")
    result = fit.run()
    assert not result.valid
    assert "sin2_th12" in result.reason
    assert "dm2_21_eV2" in result.reason
    check_record(result, tmp_path)
    assert fit.fixing(["dm2_21_eV2"]).run().valid


def test_a_background_of_zero_content_and_none_at_all(small, expected, tmp_path):
    zero = SpectrumFit.asimov(*build_model(override(small, {"backgrounds.flat.rate_per_day": 0})), statistic="poisson")
    none = SpectrumFit.asimov(*build_model(override(small, {"backgrounds": ()})), statistic="poisson")
    assert np.all((zero.counts > 0) & (zero.counts < expected))
    np.testing.assert_allclose(zero.counts, none.counts, rtol=1e-12)
    result = zero.run()
    assert result.valid
    assert result.parameters["bkg_flat"].error == pytest.approx(0.1, rel=1e-6)  # its prior, as no data speak of it
    check_record(result, tmp_path)


# ---------------------------------------------------------------- parameters


@pytest.mark.parametrize("name", ["harmonic", "matrix"])
@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"sin2_th23": 0.5}, ["unknown parameter 'sin2_th23'", "sin2_th12"]),
        ({"sin2_th12": NAN}, ["'sin2_th12'", "finite", "nan"]),
        ({"dm2_31_eV2": INF}, ["'dm2_31_eV2'", "finite", "inf"]),
        ({"sin2_th12": "a"}, ["'sin2_th12'", "one finite number", "'a'"]),
        ({"sin2_th12": None}, ["'sin2_th12'", "one finite number", "None"]),
        ({"sin2_th12": np.array([0.3, 0.31])}, ["'sin2_th12'", "one finite number"]),
        ({"sin2_th12": -0.1}, ["'sin2_th12'", "from 0 to 1", "-0.1"]),
        ({"sin2_th13": 1.1}, ["'sin2_th13'", "from 0 to 1", "1.1"]),
        ({"matter_density_g_cm3": -1.0}, ["'matter_density_g_cm3'", "from 0 to 20", "-1"]),
        ({"matter_density_g_cm3": 2600.0}, ["'matter_density_g_cm3'", "from 0 to 20", "2600"]),
        ({"dm2_21_eV2": 0.0}, ["'dm2_21_eV2'", "above 0"]),
        ({"dm2_21_eV2": -7.5e-5}, ["'dm2_21_eV2'", "above 0", "-7.5e-05"]),
        ({"dm2_21_eV2": 1e-9}, ["'dm2_21_eV2'", "at least 1e-06", "1e-09"]),
        ({"dm2_31_eV2": 0.0}, ["'dm2_31_eV2'", "size above 0.0001"]),
        ({"dm2_31_eV2": -5e-5}, ["'dm2_31_eV2'", "size above 0.0001", "-5e-05"]),
        ({"dm2_31_eV2": 2.5e3}, ["'dm2_31_eV2'", "at most 1", "2500"]),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_predictors_refuse_bad_parameters(predictors, nominal, name, change, parts):
    refused(lambda: predictors[name].predict(nominal | change), *parts)


@pytest.mark.parametrize("name", ["harmonic", "matrix"])
def test_predictors_name_what_is_missing(predictors, nominal, name):
    fewer = {n: v for n, v in nominal.items() if n != "dm2_21_eV2"}
    refused(lambda: predictors[name].predict(fewer), "missing parameter 'dm2_21_eV2'", "sin2_th12")


@pytest.mark.parametrize(
    ("name", "value", "box"),
    [
        ("dm2_21_eV2", 1.1e-4, "[4.83e-05, 0.0001023]"),
        ("dm2_21_eV2", 4.8e-5, "[4.83e-05, 0.0001023]"),
        ("dm2_31_eV2", 3.2e-3, "[0.0020173, 0.003041]"),
        ("dm2_31_eV2", 1.9e-3, "[0.0020173, 0.003041]"),
        ("dm2_31_eV2", -1.9e-3, "[-0.0029387, -0.001915]"),
    ],
)
def test_outside_the_box_is_refused_by_name_value_and_box(predictors, built, nominal, name, value, box):
    parts = [f"{name!r} = {value:.6g}", "outside the box", box, "harmonic"]
    refused(lambda: predictors["harmonic"].predict(nominal | {name: value}), *parts)
    model, parameters = built
    refused(lambda: model.vector(parameters.nominal() | {name: value}), *parts)
    refused(lambda: model.components(parameters.nominal() | {name: value}), *parts)
    assert np.all(np.isfinite(predictors["matrix"].predict(nominal | {name: value})))  # it has no box


wild = st.floats(allow_nan=True, allow_infinity=True)
POINTS = {
    "sin2_th12": st.floats(-0.2, 1.2) | wild,
    "sin2_th13": st.floats(-0.2, 1.2) | wild,
    "dm2_21_eV2": st.floats(4e-5, 1.1e-4) | wild,
    "dm2_31_eV2": st.floats(1.9e-3, 3.1e-3) | st.floats(-3.1e-3, -1.9e-3) | wild,
    "matter_density_g_cm3": st.floats(-1, 25) | wild,
}


@settings(max_examples=200, deadline=None)
@given(point=st.fixed_dictionaries(POINTS), name=st.sampled_from(["harmonic", "matrix"]))
@example(point=dict.fromkeys(PHYSICS, 0.0), name="matrix")
@example(point=dict.fromkeys(PHYSICS, 1e-300), name="matrix")
@example(point=dict(zip(PHYSICS, (1.0, 0.02, 1e-6, 2.5e-3, 20.0), strict=True)), name="matrix")  # A > Δm²21, no ν1
@example(point=dict(zip(PHYSICS, (1.0, 0.0, 1e-6, -2.5e-3, 20.0), strict=True)), name="matrix")
def test_a_prediction_is_physical_or_refused(predictors, point, name):
    predictor = predictors[name]
    flat = np.asarray(predictor.unoscillated())
    try:
        counts = np.asarray(predictor.predict(point))
    except NuebarError as error:
        assert any(repr(n) in str(error) for n in point)  # noqa: PT017 - both ends are right
        return
    tiny = 1e-9 * flat.max()
    assert np.all((counts >= -tiny) & (counts <= flat + tiny))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"norm_flux": NAN}, "parameter 'norm_flux': expected one finite number, got nan"),
        ({"bkg_flat": INF}, "parameter 'bkg_flat': expected one finite number, got inf"),
        ({"bkg_flat": "much"}, "parameter 'bkg_flat': expected one finite number, got 'much'"),
        ({"bkg_round": 0.0}, "unknown parameter 'bkg_round'"),
    ],
)
def test_the_model_refuses_bad_values(built, change, sentence):
    model, parameters = built
    for method in (model.vector, model.components):
        refused(lambda method=method: method(parameters.nominal() | change), sentence)


def test_the_model_names_missing_values(built):
    model, _ = built
    for method in (model.vector, model.components):
        refused(lambda method=method: method({"sin2_th12": 0.3}), "missing parameter 'sin2_th13'")
    refused(lambda: model(np.zeros(3)), "expected 8 parameters", "got shape (3,)")


@pytest.mark.parametrize(
    ("window", "sentence"),
    [
        (((9e-5, 7e-5), (2e-3, 3e-3)), "solar window: expected 0 < low < high"),
        (((7e-5, 7e-5), (2e-3, 3e-3)), "solar window: expected 0 < low < high"),
        (((-1e-5, 7e-5), (2e-3, 3e-3)), "solar window"),
        (((NAN, 7e-5), (2e-3, 3e-3)), "solar window"),
        (((5e-5, 1e-4), (2e-3, INF)), "atmospheric window"),
        (((5e-5, 1e-4), (2.5e-3, 2.55e-3)), "atmospheric window: expected it wider"),
    ],
)
def test_windows_that_are_none(window, sentence):
    refused(lambda: Windows(*window), sentence)


@pytest.mark.parametrize("n_sigma", [0, -3.0, NAN, INF])
def test_windows_need_a_width(n_sigma):
    refused(lambda: Windows.around_pdg(n_sigma), "windows", repr(n_sigma))


def test_windows_too_wide_for_the_memory_are_refused_before_it_is_taken(small):
    refused(lambda: build_model(small, windows=Windows((5e-5, 1e-4), (2e-3, 1e3))), "nodes", "narrow the windows")


# ---------------------------------------------------------------- fits


@pytest.mark.parametrize(
    ("action", "parts"),
    [
        (lambda f: f.run(start={"x": 1.0}), ["unknown parameter 'x'"]),
        (lambda f: f.run(start={"sin2_th12": NAN}), ["sin2_th12", "finite", "nan"]),
        (lambda f: f.run(start={"sin2_th12": 0.9}), ["sin2_th12", "0.9", "[0.05, 0.6]"]),
        (lambda f: f.run(start={"dm2_21_eV2": 1e-5}), ["dm2_21_eV2", "1e-05", "4.83e-05"]),
        (lambda f: f.run(minos=["x"]), ["unknown parameter 'x'"]),
        (lambda f: f.fixing(["x"]), ["unknown parameter 'x'"]),
        (lambda f: dataclasses.replace(f, statistic="chi2"), ["unknown statistic 'chi2'", "cnp"]),
        (lambda f: impacts(f, f.run(), ["norm_flux", "dm2_31_eV2"]), ["'dm2_31_eV2'", "not a free parameter"]),
    ],
    ids=range(8),
)
def test_wrong_requests_of_a_fit(built, expected, action, parts):
    refused(lambda: action(SpectrumFit(*built, expected, statistic="poisson")), *parts)


def test_a_fit_that_ends_on_its_box_is_not_valid(built, small, tmp_path):
    model, parameters = built
    matrix, _ = build_model(small, predictor="matrix")
    far = parameters.nominal() | {"dm2_21_eV2": 1.2e-4}
    fit = SpectrumFit(model, parameters, np.asarray(matrix(matrix.vector(far))[0]), statistic="poisson")
    assert parameters["dm2_21_eV2"].bounds == model.predictor.box["dm2_21_eV2"]
    result = fit.run()
    assert not result.valid
    assert "dm2_21_eV2 ended on its upper limit" in result.reason
    assert np.all(np.isfinite(model.components(result.values())["signal"]))  # a limit is inside, rounding and all
    check_record(result, tmp_path)


def test_poisson_has_no_room_for_shape_uncertainties(small):
    model, parameters = build_model(override(small, {"fit.shape_uncertainties": True}))
    refused(SpectrumFit.asimov(model, parameters, statistic="poisson").run, "fit.shape_uncertainties = false")


def test_model_parameters_and_predictor_belong_together(built, small, expected):
    model, parameters = built
    fewer = ParameterSet([p for p in parameters.values() if p.name != "norm_flux"])
    refused(lambda: SpectrumFit(model, fewer, expected), "expected the parameters of the model", "norm_flux")
    mixed = ParameterSet(list(parameters.values())[::-1])
    refused(lambda: SpectrumFit(model, mixed, expected), "expected the parameters of the model", "another order")
    for changes in ({"binning.edges_MeV": [1, 2.5, 9]}, {"binning.fine_width_MeV": 0.1}):
        other = HarmonicPredictor.build(signal_inputs(override(small, changes)))
        wrong = eqx.tree_at(lambda m: m.predictor, model, other)
        refused(lambda wrong=wrong: SpectrumFit(wrong, parameters, expected), "expected a predictor whose bins")


def test_the_inverted_start_stays_in_the_mirrored_box(built):
    model, parameters = built
    inverted = inverted_start(parameters)["dm2_31_eV2"]
    assert inverted.value < 0
    model.vector(parameters.nominal() | {"dm2_31_eV2": inverted.value})


# ---------------------------------------------------------------- experiments that cannot be predicted


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"binning.edges_MeV": [20, 30, 40]}, ["key 'binning'", "20 to 40 MeV"]),
        ({"binning.edges_MeV": [0, 0.1, 0.2]}, ["key 'binning'", "0 to 0.2 MeV"]),
        ({"oscillation.dm2_21_eV2": 5e-4}, ["'dm2_21_eV2' = 0.0005", "box [4.83e-05, 0.0001023]"]),
        ({"oscillation.dm2_31_eV2": 5e-3}, ["'dm2_31_eV2' = 0.005", "box"]),
        ({"oscillation.dm2_31_eV2": -1e-3}, ["'dm2_31_eV2' = -0.001", "box [-0.0029387"]),
        ({"backgrounds.flat.shape": {"bipoo": 1.0}}, ["backgrounds.flat.shape", "unknown shape 'bipoo'", "bipo"]),
        ({"backgrounds.flat.shape": "mine.csv"}, ["backgrounds[0].shape", "'mine.csv'"]),
        (
            {"backgrounds.flat.shape": "bipo", "binning.edges_MeV": [6, 7, 8]},
            ["backgrounds.flat.shape", "between 6 and 8 MeV"],
        ),
        ({"reactor.spectrum": "huber-muller"}, ["key 'reactor.spectrum'", "'huber-muller'"]),
        ({"response.nonlinearity": "curve.csv"}, ["key 'response.nonlinearity'", "'curve.csv'"]),
        ({"systematics.spectrum_shape": "tau.csv"}, ["key 'systematics.spectrum_shape'", "'tau.csv'"]),
    ],
    ids=range(11),
)
def test_an_experiment_that_cannot_be_predicted_names_its_file(small, changes, parts):
    refused(lambda: build_model(override(small, changes)), "small.toml", *parts)


@pytest.mark.parametrize("name", ["magic", ""])
def test_unknown_predictors_are_refused_with_the_known_ones(small, name):
    refused(lambda: build_model(small, predictor=name), repr(name), "harmonic", "matrix")


def test_a_stored_predictor_belongs_to_its_experiment_and_is_whole(small, tmp_path):
    def stored():
        return save_harmonic(HarmonicPredictor.build(signal_inputs(small)), tmp_path / "p")

    stored()
    build_model(small, predictor=str(tmp_path / "p"))
    other = override(small, {"exposure.days": 10.0})
    refused(lambda: build_model(other, predictor=str(tmp_path / "p")), str(tmp_path / "p"), "build it again")
    for name in ("model.json", "weights.safetensors"):
        stored()
        whole = (tmp_path / "p" / name).read_bytes()
        for part in (b"", whole[: len(whole) // 2], b"{}"):
            (tmp_path / "p" / name).write_bytes(part)
            refused(lambda: build_model(small, predictor=str(tmp_path / "p")), str(tmp_path / "p"))


def test_birks_takes_its_numbers_from_the_file(small):
    changes = {
        "response.nonlinearity": "birks",
        "response.kB_g_cm2_GeV": 12.0,
        "response.fC": 0.5,
        "response.light_yield_per_MeV": 9000,
        "response.cherenkov_photons_per_cm": 910,
    }
    curve = signal_inputs(override(small, changes)).nonlinearity
    ratio = curve.visible(np.array([1.1, 3.0, 8.0])) / np.array([1.1, 3.0, 8.0])
    assert np.all(np.diff(ratio) > 0)
    assert np.all((ratio > 0.8) & (ratio < 1.1))
    more = signal_inputs(override(small, changes | {"response.cherenkov_photons_per_cm": 1820})).nonlinearity
    assert np.ptp(more.nominal) > np.ptp(curve.nominal)


# ---------------------------------------------------------------- tables beside a user's file

TWO = "e_nu_MeV,ratio\n"
FIVE = "e_nu_MeV,U235,U238,Pu239,Pu241\n"
HISTORY = "days,power_GW\n"
FUEL = "days,power_GW,U235,U238,Pu239,Pu241\n"
HISTOGRAM = "low_MeV,high_MeV,counts\n"
CURVE = "e_dep_MeV,nominal,pull1\n"
WIDTHS = "e_MeV,relative\n"

TABLES = [
    # power and fuel against time
    ("reactor.cores.A.history", "", "got no rows"),
    ("reactor.cores.A.history", HISTORY, "expected rows under the header"),
    ("reactor.cores.A.history", "days,power_MW\n1,4600\n", "column 'power_GW'"),
    ("reactor.cores.A.history", HISTORY + "10,4600\n", "line 2, column 'power_GW': expected GW of heat"),
    ("reactor.cores.A.history", HISTORY + "10,-3\n", "line 2, column 'power_GW'"),
    ("reactor.cores.A.history", HISTORY + "10,nan\n", "line 2, column 'power_GW': expected a finite number"),
    ("reactor.cores.A.history", HISTORY + "10,3\n0,3\n", "line 3, column 'days': expected a number of days above 0"),
    ("reactor.cores.A.history", HISTORY + "1e308,3\n1e308,3\n", "column 'days'"),
    ("reactor.cores.A.history", HISTORY + "10,0\n", "expected some events from the reactors"),
    ("reactor.cores.A.history", HISTORY + "10\n", "line 2: expected 2 cells"),
    ("reactor.cores.A.history", "days,power_GW,U235\n1,20,1\n", "expected all of U235"),
    ("reactor.cores.A.history", FUEL + "1,20,-0.58,0.8,0.7,0.08\n", "line 2, column 'U235': expected a fraction"),
    ("reactor.cores.A.history", FUEL + "1,20,0.58,0.07,0.3,0.05\n1,20,58,7,30,5\n", "line 3, column 'U235'"),
    ("reactor.cores.A.history", FUEL + "1,20,0,0,0,0\n", "expected fractions that add up to 1"),
    # spectra and corrections
    ("reactor.spectrum", FIVE + "2,1,1,1,1\n", "at least two rows, got 1"),
    ("reactor.spectrum", FIVE + "2,1,1,1,1\n8,1,1,1,0\n", "positive spectra"),
    ("reactor.spectrum", FIVE + "8,1,1,1,1\n2,1,1,1,1\n", "increasing energies"),
    ("reactor.spectrum", FIVE + "2,1e308,1,1,1\n8,1e308,1,1,1\n", "expected a finite flux of at least 0, got nan"),
    ("reactor.spectrum", FIVE + "2,1,inf,1,1\n8,1,1,1,1\n", "line 2, column 'U238': expected a finite number"),
    ("reactor.shape", TWO + "2,-1\n8,-1\n", "expected a finite flux of at least 0, got -"),
    ("reactor.shape", TWO + "2,0\n8,0\n", "expected some events from the reactors, got 0"),
    ("reactor.shape", TWO + "2,1e308\n8,1e308\n", "expected a finite flux of at least 0, got nan"),
    ("reactor.shape", TWO + "2,1\n2,1\n8,1\n", "energies that increase"),
    ("reactor.spent_fuel", TWO + "2,-2\n8,-2\n", "expected a finite flux of at least 0, got -"),
    ("reactor.nonequilibrium", FIVE + "2,-2,-2,-2,-2\n12,-2,-2,-2,-2\n", "expected a finite flux of at least 0, got -"),
    ("reactor.nonequilibrium", FIVE.replace("MeV", "keV") + "2,0,0,0,0\n", "column 'e_nu_MeV'"),
    # response
    ("response.nonlinearity", CURVE + "1,0.9,0.9\n8,nan,1\n", "line 3, column 'nominal': expected a finite number"),
    ("response.nonlinearity", CURVE + "1,0.9,-0.9\n8,1,1\n", "line 2, column 'pull1': expected a ratio"),
    ("response.nonlinearity", CURVE + "1,90,90\n8,100,100\n", "line 2, column 'nominal': expected a ratio"),
    ("response.nonlinearity", CURVE + "8,1,1\n1,0.9,0.9\n", "line 3, column 'e_dep_MeV': expected e_dep"),
    ("response.nonlinearity", CURVE + "1,1,1\n4,0.2,1\n8,1,1\n", "line 3, column 'e_dep_MeV': expected e_dep"),
    ("response.nonlinearity", CURVE + "-1,1,1\n8,1,1\n", "line 2, column 'e_dep_MeV': expected MeV above 0"),
    ("response.nonlinearity", CURVE + "1000,1,1\n8000,1,1\n", "line 2, column 'e_dep_MeV': expected MeV above 0"),
    # backgrounds and shape uncertainties
    (
        "backgrounds.flat.shape",
        HISTOGRAM + "0,4,-1\n4,12,2\n",
        "line 2, column 'counts': expected a number of at least 0",
    ),
    ("backgrounds.flat.shape", HISTOGRAM + "0,4,nan\n4,12,2\n", "line 2, column 'counts': expected a finite number"),
    ("backgrounds.flat.shape", HISTOGRAM + "0,4,1\n3,12,2\n", "line 3, column 'low_MeV'"),
    ("backgrounds.flat.shape", HISTOGRAM + "0,4,1\n5,12,2\n", "line 3, column 'low_MeV'"),
    ("backgrounds.flat.shape", HISTOGRAM + "4,0,1\n", "line 2, column 'low_MeV'"),
    ("backgrounds.flat.shape", HISTOGRAM + "0,12,0\n", "backgrounds.flat.shape"),
    ("backgrounds.flat.shape", HISTOGRAM + "20,22,9\n", "backgrounds.flat.shape"),
    ("backgrounds.flat.shape", HISTOGRAM + "0,4,1e308\n4,12,1e308\n", "backgrounds.flat.shape"),
    ("backgrounds.flat.shape", b"\x00\xff\x01", "byte 1: expected UTF-8 text"),
    ("systematics.spectrum_shape", WIDTHS + "1,-0.1\n8,0.1\n", "relative from 0 to 100"),
    ("systematics.spectrum_shape", WIDTHS + "8,0.1\n1,0.1\n", "e_MeV that increases"),
    ("systematics.spectrum_shape", WIDTHS + "1,1e308\n8,0.1\n", "relative from 0 to 100"),
]


@pytest.mark.parametrize(("key", "content", "sentence"), TABLES, ids=[f"{k}-{i}" for i, (k, *_) in enumerate(TABLES)])
def test_a_wrong_table_is_named_with_its_place(small, tmp_path, key, content, sentence):
    table = tmp_path / "mine.csv"
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    at_home = dataclasses.replace(small, source=str(tmp_path / "mine.toml"))
    told = refused(lambda: build_model(override(at_home, {key: "mine.csv"})), sentence)
    assert str(tmp_path) in told  # the table itself, or the file that names it


@pytest.mark.parametrize(
    ("key", "content"),
    [
        ("reactor.cores.A.history", HISTORY + "10,20\n5,10\n"),
        ("reactor.cores.A.history", FUEL + "10,20,0.6,0.07,0.28,0.05\n20,15,0.5,0.08,0.35,0.07\n"),
        ("reactor.spectrum", FIVE + "2,1,2,0.9,1.2\n8,1e-3,5e-3,5e-4,1e-3\n"),
        ("reactor.shape", TWO + "2,0.95\n8,1.1\n"),
        ("response.nonlinearity", "e_dep_MeV,nominal\n1,0.9\n12,1.02\n"),
        ("response.nonlinearity", CURVE + "1,0.9,0.91\n12,1.02,1.03\n"),
        ("backgrounds.flat.shape", HISTOGRAM + "0,4,1\n4,12,2\n"),
        ("systematics.spectrum_shape", WIDTHS + "1,0.05\n8,0.02\n"),
    ],
)
def test_a_right_table_is_taken(small, tmp_path, key, content):
    (tmp_path / "mine.csv").write_text(content)
    at_home = dataclasses.replace(small, source=str(tmp_path / "mine.toml"))
    model, _ = build_model(override(at_home, {key: "mine.csv"}))
    assert np.all(np.isfinite(model.unoscillated()))
    assert np.all(model.unoscillated() > 0)


def test_half_the_power_of_a_history_is_half_the_signal(small, tmp_path):
    (tmp_path / "mine.csv").write_text(HISTORY + "3,20\n1,0\n2,5\n")
    at_home = dataclasses.replace(small, source=str(tmp_path / "mine.toml"))
    signal = signal_inputs(override(at_home, {"reactor.cores.A.history": "mine.csv"})).events
    # (3 * 20 + 1 * 0 + 2 * 5) / 6 GW days a day over the 20 GW of the constant core
    np.testing.assert_allclose(signal, signal_inputs(small).events * 70 / 120, rtol=1e-12)
