"""The mass ordering: the Δχ² of two single fits, growth with exposure, toys around it, and the published years."""

import dataclasses

import numpy as np
import pytest

from nuebar.config import load_experiment, override
from nuebar.errors import NuebarError
from nuebar.fit.ordering import BACKGROUND_SHAPE, SIGNAL_SHAPE, OrderingStudy, crossing, scaled
from nuebar.fit.spectrum_fit import SpectrumFit, inverted_start
from nuebar.io.releases import read_common_inputs
from nuebar.jobs.ordering import resolutions
from nuebar.predict.spectrum import build_model


@pytest.fixture(scope="module")
def fit():
    e = load_experiment("juno")
    e = dataclasses.replace(
        e,
        reactor=dataclasses.replace(e.reactor, cores=(e.reactor.cores[0], e.reactor.cores[-1])),
        backgrounds=e.backgrounds[:1],
    )
    changes = {
        "binning.segments": ((0.8, 8.8, 320),),
        "systematics.signal": {"flux": 0.02},
        "systematics.nonlinearity": False,
        "systematics.resolution": (),
        "systematics.fission_fractions": {},
        "systematics.core": 0.0,
        "systematics.spent_fuel": 0.0,
        "systematics.nonequilibrium": 0.0,
    }
    model, parameters = build_model(override(e, changes))
    return SpectrumFit.asimov(model, parameters, statistic="pearson")


@pytest.fixture(scope="module")
def study(fit):
    return OrderingStudy(fit, smallest=0.5, lanes=8)


def test_it_is_the_difference_of_two_single_fits(fit, study):
    point = study.asimov(1.0)
    single = SpectrumFit(fit.model, inverted_start(fit.parameters), fit.counts, "pearson").run()
    assert single.valid
    assert point.valid, point.reason
    assert point.delta_chi2 == pytest.approx(single.chi2, abs=1e-4)
    error = single.parameters["dm2_31_eV2"].error
    assert point.wrong["dm2_31_eV2"] == pytest.approx(single.values()["dm2_31_eV2"], abs=1e-3 * error)
    assert point.sigma == pytest.approx(np.sqrt(point.delta_chi2))
    assert point.minima == 1


def test_it_grows_with_exposure_and_without_shapes_in_proportion(study):
    one, two = study.curve([1.0, 2.0])
    assert one.delta_chi2 < two.delta_chi2 < 2.0 * one.delta_chi2
    bare = study.curve([1.0, 2.0], without=study.groups())
    assert bare[1].delta_chi2 == pytest.approx(2.0 * bare[0].delta_chi2, rel=1e-3)
    assert bare[0].delta_chi2 > one.delta_chi2


def test_either_ordering_can_be_true(study):
    normal, inverted = study.asimov(1.0), study.asimov(1.0, truth="inverted")
    assert inverted.valid
    assert normal.wrong["dm2_31_eV2"] < 0 < inverted.wrong["dm2_31_eV2"]
    assert inverted.delta_chi2 == pytest.approx(normal.delta_chi2, rel=0.3)


def test_systematics_one_at_a_time(study):
    rows = {r.group: r for r in study.systematics(1.0)}
    assert {SIGNAL_SHAPE, BACKGROUND_SHAPE, "flux and efficiency", "all", "none"} <= set(rows)
    assert "non-linearity and scale" not in rows
    for row in rows.values():
        assert row.valid
        assert rows["all"].without - 1e-4 <= row.without <= rows["none"].without + 1e-4
        assert rows["all"].alone - 1e-4 <= row.alone <= rows["none"].alone + 1e-4
    assert rows[SIGNAL_SHAPE].without > rows["all"].without + 0.01


def test_toys_scatter_around_the_expectation(study):
    """Normal with the expectation as mean and twice its root as spread (arXiv:1305.5150)."""
    expected = study.asimov(1.0).delta_chi2
    toys = study.toys(1.0, 120, seed=3)
    told = toys.summary()
    sigma = 2.0 * np.sqrt(expected)
    assert toys.valid.all()
    assert told["mean"] == pytest.approx(expected, abs=4.0 * sigma / np.sqrt(120))
    assert told["spread"] == pytest.approx(sigma, rel=0.3)
    assert toys.delta_chi2.shape == (120,)
    again = study.toys(1.0, 10, seed=3, first=5)
    np.testing.assert_allclose(again.delta_chi2, toys.delta_chi2[5:15], atol=1e-3)


def test_scaled_exposure_is_another_experiment(fit):
    half = scaled(fit, 0.5)
    x = fit.model.vector(fit.parameters.nominal())
    (mu, variance), (half_mu, half_variance) = fit.model(x), half.model(x)
    np.testing.assert_allclose(half_mu, 0.5 * np.asarray(mu), rtol=1e-12)
    np.testing.assert_allclose(half_variance, 0.25 * np.asarray(variance), rtol=1e-12)
    np.testing.assert_allclose(half.counts, 0.5 * fit.counts)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([1, 2, 3], [3, 6, 12], 2.5),
        ([1, 2, 3], [3, 9, 12], 2.0),
        ([1, 2], [3, 6], None),
        ([1, 2], [10, 12], None),
    ],
)
def test_crossing(x, y, expected):
    assert crossing(x, y) == (None if expected is None else pytest.approx(expected))


def test_bad_input_is_refused(fit, study):
    with pytest.raises(NuebarError, match="normal or inverted"):
        study.asimov(1.0, truth="both")
    with pytest.raises(NuebarError, match="unknown group"):
        study.asimov(1.0, without=("weather",))
    with pytest.raises(NuebarError, match="factor above 0"):
        scaled(fit, 0.0)
    with pytest.raises(NuebarError, match="expected dm2_31_eV2 free"):
        OrderingStudy(fit.fixing(["dm2_31_eV2"]))


@pytest.mark.slow
def test_three_sigma_where_it_is_published(common_inputs):
    """6.5 years x 26.6 GW (arXiv:2405.18008) with the resolution of 2024 and the TAO shape; later with that of 2022."""
    at = {}
    for name, r in resolutions().items():
        e = override(load_experiment("juno"), {"response.resolution": r.resolution, "systematics.resolution": r.sigma})
        model, parameters = build_model(e, inputs=read_common_inputs(common_inputs))
        unit = e.exposure.days_per_year / (e.exposure.days * e.reactor.duty_cycle)
        study = OrderingStudy(SpectrumFit.asimov(model, parameters, statistic="pearson"), smallest=5.0 * unit)
        years = (5.0, 6.0, 7.0, 8.0)
        points = study.curve([y * unit for y in years])
        assert all(p.valid for p in points)
        at[name] = crossing(years, [p.delta_chi2 for p in points])
    assert 5.5 < at["2024"] < 7.5
    assert at["2024"] + 0.5 < at["2022"] < 8.0
