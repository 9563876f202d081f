"""The reduced model is the full one on the ranges of its sliders, in fewer numbers; its packed form says the same."""

import base64
import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtr

from nuebar.config import load_experiment, override
from nuebar.errors import NuebarError
from nuebar.parameters import OSCILLATION
from nuebar.physics.oscillation import eigensystem
from nuebar.predict.reduced import MOVED, ReducedBasis, deviation, in_double, pack, slider_ranges
from nuebar.predict.spectrum import build_model

AGREEMENT = 1e-5
ERRORS = {
    "sin2_th12": 0.02,
    "sin2_th13": 0.01,
    "dm2_21_eV2": 2e-6,
    "dm2_31_eV2": 3e-5,
    "kB_g_cm2_GeV": 0.3,
    "fC": 0.03,
    "light_yield_per_MeV": 30.0,
    "energy_scale": 0.005,
}


@pytest.fixture(scope="module")
def experiment():
    changes = {
        "exposure.days": 30,
        "binning.segments": [[0.8, 8.8, 80]],
        "systematics.energy_scale": 0.005,
    }
    return override(load_experiment("juno"), changes)


@pytest.fixture(scope="module")
def model(experiment):
    return build_model(experiment, predictor="surrogate")[0]


@pytest.fixture(scope="module")
def values(experiment, model):
    """A best fit with every pull away from zero."""
    _, parameters = build_model(experiment, predictor=model.predictor)
    rng = np.random.default_rng(1)
    pulled = {n: p.value + 0.5 * p.sigma * rng.normal() for n, p in parameters.items() if p.sigma}
    return {**parameters.nominal(), **pulled, "smear_a": 0.004}


@pytest.fixture(scope="module")
def basis(model, values):
    return ReducedBasis.build(model, values, slider_ranges(model, values, ERRORS))


@pytest.fixture(scope="module")
def full(model):
    return in_double(model)


def expected(model, values, point):
    counts, variance = model(model.vector({**values, **point}))
    return np.asarray(counts), np.asarray(variance)


# ---------------------------------------------------------------- an evaluator of the packed form, in numpy


def unpack(packed):
    array = np.frombuffer(base64.b64decode(packed["base64"]), dtype=np.dtype(packed["type"]).newbyteorder("<"))
    return array.reshape(packed["shape"]).astype(float)


def wave(series, x, v, slope_v, nu, slope_nu):
    t = (x - series["middle"]) / series["half"]
    value, moment = unpack(series["value"]), unpack(series["moment"])

    def derivative(table, order):
        if not table.shape[1]:
            return np.zeros(len(table))
        derived = np.polynomial.chebyshev.chebder(table.T, order, scl=1.0 / series["half"]) if order else table.T
        return np.polynomial.chebyshev.chebval(t, derived)

    g, h = [derivative(value, d) for d in range(4)], [derivative(moment, d) for d in range(3)]
    third = nu**3 * g[3] / 6 if moment.shape[1] else 0.0
    at = v * (g[0] + nu * g[1] + nu**2 * g[2] / 2 + third)
    return at + slope_v * (h[0] + nu * h[1] + nu**2 * h[2] / 2) + v * slope_nu * (h[1] + nu * h[2])


def rows(packed, p):
    matter = packed["matter"]
    potential = matter["potential_eV2_per_MeV"] * p["matter_density_g_cm3"] * unpack(matter["energies_MeV"])
    m = eigensystem(potential, **{n: p[n] for n in OSCILLATION})
    d21, d31 = p["dm2_21_eV2"], p["dm2_31_eV2"]
    at_energies = np.array(
        [m.w1 * m.w2, m.w1 * m.w3, m.w2 * m.w3, m.dm2_21 - d21, m.dm2_31 - d31, m.dm2_32 - d31 + d21]
    )
    out = []
    for part, sets in ((packed["counts"], 1), (packed["excess"], packed["sets"] - 1)):
        value, slope = (np.tile(at_energies @ unpack(matter[k]), (1, sets)) for k in ("to_nodes", "to_slopes"))
        sign = np.sign(d31)
        total = (1 - 2 * value[:3].sum(axis=0)) * unpack(part["flat"])
        total = total - 2 * slope[:3].sum(axis=0) * unpack(part["flat_moment"])
        total += 2 * wave(part["solar"], d21, value[0], slope[0], value[3], slope[3])
        for q, x in ((1, d31), (2, d31 - d21)):
            total += 2 * wave(
                part["atmospheric"], sign * x, value[q], slope[q], sign * value[3 + q], sign * slope[3 + q]
            )
        out.append(total)
    return np.concatenate(out).reshape(packed["sets"], -1)


def packed_prediction(packed, p):
    """Counts and shape variance from the JSON alone, all nodes at all edges."""

    def cheb(t, degree):
        return np.polynomial.chebyshev.chebvander(t, degree)[0]

    light = unpack(packed["light"])
    in_kB = cheb((p["kB_g_cm2_GeV"] - packed["kB_window"][0]) / packed["kB_window"][1], light.shape[2] - 1)
    ratio = (p["fC"] / p["light_yield_per_MeV"] - packed["ratio_window"][0]) / packed["ratio_window"][1]
    shift, m2, m3, m4, first, second = np.einsum("qnkr,k,r->qn", light, in_kB, cheb(ratio, light.shape[3] - 1))
    g = (packed["first_node"] + packed["node_step"] * np.arange(light.shape[1])) ** 2 + shift
    cherenkov, efficiency, charge, dark, constant = unpack(packed["constants"])
    pe = efficiency * (p["light_yield_per_MeV"] * unpack(packed["anchor"]) @ in_kB + p["fC"] * cherenkov)
    pe /= packed["n_h_MeV"]
    i1, i2, i3, i4 = unpack(packed["inverse"])
    a, b, c = (p[f"smear_{k}"] for k in "abc")
    statistics, third, relative = (1 + charge**2) / pe, 1 + 3 * charge**2, b * b + constant**2
    variance = m2 + statistics * (g * i1 + dark * i2 / pe) + relative * (g * g + m2) + a * a * g + c * c
    k3 = m3 + third * (g * i2 + dark * i3 / pe) / pe**2 + 3 * m2 * (statistics * i1 + a * a + 2 * relative * g)
    k4 = m4 - 3 * m2**2 + 3 * i4 * (statistics * g) ** 2
    sigma, up = np.sqrt(variance), 1 + p["energy_scale"]
    counts, one, two, aa, ab, bb = rows(packed, p)
    x, y = first / sigma, second / sigma
    moved, widened = x * one + y * two, 0.5 * (x * x * aa + y * y * bb) + x * y * ab
    edges = unpack(packed["block_edges_MeV"])
    edges = np.unique(edges.round(9))
    z = (edges[:, None] - up * g) / (up * sigma)
    skew, kurtosis = counts * k3 / sigma**3 / 6, counts * k4 / sigma**4 / 24
    density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    rest = moved - skew + z * (widened - 3 * kurtosis + z * (skew + z * kurtosis))
    # What lies more than five standard deviations away was left out of the windows of the blocks.
    fine = np.diff((ndtr(z) * counts - density * rest).sum(axis=1))
    signal, shape, at = np.zeros(packed["bins"]), unpack(packed["shape"]["sigma"]), unpack(packed["shape"]["first"])
    row, column = (unpack(packed["to_bins"][k]).astype(int) for k in ("row", "column"))
    np.add.at(signal, row, unpack(packed["to_bins"]["weight"]) * fine[column])
    background = sum(unpack(x) for x in packed["backgrounds"].values())
    below = np.concatenate([[0.0], np.cumsum((shape * fine) ** 2)])[at.astype(int)]
    return signal + background, np.diff(below) + unpack(packed["background_variance"])


# ---------------------------------------------------------------- laws


def test_the_reduced_model_is_the_full_one(basis, full, model, values):
    points = basis.random_points(200, seed=11)
    assert {np.sign(p["dm2_31_eV2"]) for p in points} == {1.0, -1.0}
    assert set(points[0]) == set(MOVED)
    exact = [expected(full, values, p) for p in points]
    assert max(deviation(basis.predict(p), e) for p, (e, _) in zip(points, exact, strict=True)) < 0.1 * AGREEMENT
    assert max(deviation(basis.expected(p)[1], v) for p, (_, v) in zip(points, exact, strict=True)) < AGREEMENT
    # The model as fits use it, with its rounding in single precision.
    single = [expected(model, values, p)[0] for p in points]
    assert max(deviation(basis.predict(p), e) for p, e in zip(points, single, strict=True)) < AGREEMENT


@pytest.mark.parametrize("name", MOVED)
@pytest.mark.parametrize("end", [0, 1])
def test_it_holds_to_the_ends_of_the_sliders(basis, full, values, name, end):
    for ordering in (0, 1):
        point = {"dm2_31_eV2": (-1) ** ordering * basis.values["dm2_31_eV2"]}
        value = basis.ranges[name][end]
        if name == "dm2_31_eV2":
            low, high = basis.sizes[ordering]
            value = (-1) ** ordering * min(max(value, low), high)
        point[name] = value
        assert deviation(basis.predict(point), expected(full, values, point)[0]) < AGREEMENT


def test_its_record_says_what_was_measured(basis):
    assert basis.record["points"] == basis.n_checked == 32
    assert 0 < basis.error < 0.1 * AGREEMENT
    assert basis.error < basis.noise < AGREEMENT
    assert 1e5 < basis.record["bytes"] < 2.5e6


def test_the_packed_form_says_the_same(basis):
    packed = basis.to_dict()
    for point in basis.random_points(4, seed=5):
        counts, variance = packed_prediction(packed, {**packed["parameters"], **point})
        reference, widths = basis.expected(point)
        assert deviation(counts, reference) < 1e-6
        np.testing.assert_allclose(variance, widths, rtol=1e-5, atol=1e-6 * widths.max())


def test_in_vacuum(model, values, experiment):
    vacuum, parameters = build_model(experiment, predictor=model.predictor.in_vacuum())
    v = parameters.nominal()
    found = ReducedBasis.build(vacuum, v, slider_ranges(vacuum, v, ERRORS), n_check=8)
    assert found.error < AGREEMENT
    packed = found.to_dict()
    assert packed["parameters"]["matter_density_g_cm3"] == 0.0
    point = found.random_points(2, seed=3)[1]
    counts, _ = packed_prediction(packed, {**packed["parameters"], **point})
    assert deviation(counts, found.predict(point)) < 1e-6


def test_the_widest_ranges_fit_into_a_page(model, values):
    wide = ReducedBasis.build(model, values, slider_ranges(model, values, {}), n_check=8)
    narrow = {n: ends for n, ends in slider_ranges(model, values, ERRORS).items() if n in ("fC", "energy_scale")}
    small = ReducedBasis.build(model, values, narrow, n_check=4)
    assert wide.error < AGREEMENT
    assert small.error < AGREEMENT
    assert small.record["bytes"] < 0.5 * wide.record["bytes"] < 1.25e6


def test_the_same_bits_again(model, values, basis):
    assert ReducedBasis.build(model, values, basis.ranges, n_check=0).to_dict() == basis.to_dict()


def test_an_error_of_the_tables_is_seen(basis, full, values):
    def shifted(wrong):
        return dataclasses.replace(basis, model=wrong)

    where = lambda m: m.predictor.nodes.total.atmospheric.value  # noqa: E731
    table = where(basis.model)
    cut = eqx.tree_at(where, basis.model, jnp.asarray(np.where(np.abs(table) > 1e-4 * np.abs(table).max(), table, 0.0)))
    point = basis.random_points(2, seed=2)[0]
    exact = expected(full, values, point)[0]
    assert deviation(shifted(cut).predict(point), exact) > AGREEMENT


# ---------------------------------------------------------------- ranges


def test_ranges_are_some_errors_inside_the_box(model, values):
    found = slider_ranges(model, values, ERRORS)
    assert tuple(found) == MOVED
    assert found["kB_g_cm2_GeV"] == pytest.approx((values["kB_g_cm2_GeV"] - 1.5, values["kB_g_cm2_GeV"] + 1.5))
    assert found["sin2_th13"][0] == 0.0
    assert found["energy_scale"] == (-0.025, 0.025)
    everything = slider_ranges(model, values, {})
    assert everything["fC"] == model.predictor.box["fC"]
    for name, (low, high) in found.items():
        assert everything[name][0] <= low < high <= everything[name][1] or name.startswith("sin2")


def test_ranges_of_a_sharp_splitting_hold_both_orderings(model, values):
    low, high = slider_ranges(model, values, {"dm2_31_eV2": 1e-7})["dm2_31_eV2"]
    moved = 2 * values["sin2_th12"] * values["dm2_21_eV2"]
    assert low < values["dm2_31_eV2"] - moved < values["dm2_31_eV2"] + moved < high


def test_an_inverted_best_fit(model, values):
    inverted = {**values, "dm2_31_eV2": -2.49e-3}
    found = ReducedBasis.build(model, inverted, slider_ranges(model, inverted, ERRORS), n_check=4)
    assert found.error < AGREEMENT
    assert found.ranges["dm2_31_eV2"][0] < 2.49e-3 < found.ranges["dm2_31_eV2"][1]


@pytest.mark.parametrize(
    ("ranges", "match"),
    [
        ({"norm_flux": (-0.1, 0.1)}, "range of 'norm_flux'"),
        ({"fC": (0.6, 0.7)}, "around 0.517"),
        ({"fC": (0.5, 0.99)}, "inside"),
        ({"fC": (0.517, 0.517)}, "low < high"),
        ({"fC": (0.4, float("nan"))}, "low < high"),
        ({"dm2_31_eV2": (1e-3, 3e-3)}, "range of 'dm2_31_eV2'"),
        ({"dm2_21_eV2": (1e-5, 8e-5)}, "range of 'dm2_21_eV2'"),
        ({"sin2_th12": (-0.1, 0.5)}, "range of 'sin2_th12'"),
    ],
)
def test_ranges_that_do_not_fit_are_refused(model, values, ranges, match):
    with pytest.raises(NuebarError, match=match):
        ReducedBasis.build(model, values, ranges)


def test_other_predictors_are_refused(experiment, values):
    harmonic, parameters = build_model(experiment, predictor="harmonic")
    with pytest.raises(NuebarError, match="surrogate"):
        ReducedBasis.build(harmonic, parameters.nominal(), {})


def test_a_missing_value_is_refused(model, values):
    with pytest.raises(NuebarError, match="norm_flux"):
        ReducedBasis.build(model, {n: v for n, v in values.items() if n != "norm_flux"}, {})


def test_parameters_outside_are_refused(basis):
    with pytest.raises(NuebarError, match="fC"):
        basis.predict({"fC": 2.0})
    with pytest.raises(NuebarError, match="nobody"):
        basis.predict({"nobody": 2.0})


def test_numbers_that_are_not_finite_are_not_packed():
    with pytest.raises(NuebarError, match="not finite"):
        pack([1.0, np.nan])


@pytest.mark.parametrize(
    ("counts", "reference", "wanted"),
    [([101.0, 5.0], [100.0, 5.0], 0.01), ([100.0, 0.6], [100.0, 0.5], 0.001), ([100.0, 5.5], [100.0, 5.0], 0.1)],
)
def test_deviation(counts, reference, wanted):
    assert deviation(counts, reference) == pytest.approx(wanted)
