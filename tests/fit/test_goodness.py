"""Goodness of fit by toys: uniform p-values of the model's own data, small ones of other data, all toys counted."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from nuebar.config import load_experiment, override
from nuebar.errors import NuebarError
from nuebar.fit.goodness import TESTS, bin_residuals, fit_data, fit_toys, goodness, p_value, statistics_of
from nuebar.fit.many import DataSets, ManyFits
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.fit.toys import draw
from nuebar.predict.spectrum import build_model

FREE = ("sin2_th12", "dm2_21_eV2", "norm_flux")


def small(statistic="cnp", **changes):
    e = load_experiment("juno")
    e = dataclasses.replace(
        e, reactor=dataclasses.replace(e.reactor, cores=e.reactor.cores[:1]), backgrounds=e.backgrounds[:1]
    )
    options = {
        "binning.segments": ((0.8, 8.8, 32),),
        "binning.fine_width_MeV": 0.05,
        "systematics.signal": {"flux": 0.02},
        "systematics.nonlinearity": False,
        "systematics.resolution": (),
        "systematics.fission_fractions": {},
        "systematics.core": 0.0,
        "fit.shape_uncertainties": statistic != "poisson",
    }
    model, parameters = build_model(override(e, {**options, **changes}))
    fit = SpectrumFit.asimov(model, parameters, statistic=statistic)
    return ManyFits(fit.fixing([n for n in parameters if n not in FREE]), threads=1, lanes=20)


@pytest.fixture(scope="module")
def many():
    return small()


def as_measured(many, data):
    """With the centres as the experiment has them, and the fit's own start."""
    nominal = np.array([many.fit.parameters[n].value for n in many.names])
    n = len(data)
    return DataSets(data.numbers, data.counts, np.tile(many.centres, (n, 1)), np.tile(nominal, (n, 1)))


def test_p_values_of_the_models_own_data_are_uniform(many):
    """100 data sets with 60 toys each, Kolmogorov and Smirnov's test of every p-value but that of runs (few values)."""
    data = draw(many, range(100), seed=11)
    found = [goodness(many, data[k : k + 1], 60, seed=1000 + k)[0] for k in range(100)]
    for name in ("chi2", "largest", "excess"):
        p = [g.tests[name].p for g in found]
        assert stats.kstest(p, "uniform").pvalue > 1e-3, name
    assert np.mean([g.tests["runs"].p < 0.1 for g in found]) < 0.2
    assert stats.kstest([g.p_chi2 for g in found], "uniform").pvalue > 1e-3
    assert all(not g.failures for g in found)


def test_a_bump_that_is_not_in_the_model_has_small_p_values():
    """5 % more events around 5 MeV, as the reactor spectra have them, and 10⁵ of them."""
    many = small("poisson", **{"exposure.days": 16000.0})
    edges = np.array(many.fit.model.edges_MeV)
    middle = 0.5 * (edges[1:] + edges[:-1])
    bump = 1.0 + 0.05 * np.exp(-0.5 * ((middle - 5.0) / 0.4) ** 2)
    data = draw(many, range(1), seed=2)
    data = dataclasses.replace(data, counts=data.counts * bump)
    found, best = goodness(many, as_measured(many, data), 300, seed=3)
    assert best.valid[0]
    assert found.tests["excess"].p < 0.01
    assert found.tests["chi2"].p < 0.05
    assert found.p_chi2 < 0.05
    at = int(np.argmax(found.residuals))
    assert 4.0 < middle[at] < 6.0


@pytest.mark.parametrize("statistic", ["cnp", "poisson", "barlow-beeston"])
def test_the_mean_of_toys_is_the_number_of_degrees_of_freedom(statistic, many):
    """With many events, also for the deviances of the two likelihoods."""
    engine = many if statistic == "cnp" else small(statistic)
    data = draw(engine, range(1), seed=5)
    found, _ = goodness(engine, data, 400, seed=7)
    n_dof = 32 - 2
    assert found.n_dof == n_dof
    assert found.chi2_mean == pytest.approx(n_dof, abs=4 * np.sqrt(2 * n_dof / 400))
    assert found.chi2_variance == pytest.approx(2 * n_dof, rel=0.35)
    p = found.tests["chi2"]
    assert p.p == pytest.approx(found.p_chi2, abs=4 * p.error + 0.02)


def test_few_events_are_not_distributed_as_chi2():
    """Where the probability by the χ² distribution is off, which is what toys are for: two events a bin."""
    engine = small("poisson", **{"exposure.days": 1.5})
    data = draw(engine, range(1), seed=5)
    _, tests, _ = fit_toys(engine, range(300), seed=1, truth=data.truth[0])
    assert abs(tests[:, 0].mean() - 30) > 4 * tests[:, 0].std() / np.sqrt(300)


def test_toys_are_functions_of_seed_and_number(many):
    truth = draw(many, range(1), seed=1).truth[0]
    _, whole, _ = fit_toys(many, range(12), seed=4, truth=truth)
    _, part, _ = fit_toys(many, range(7, 12), seed=4, truth=truth)
    np.testing.assert_allclose(part, whole[7:], rtol=1e-7)
    _, other, _ = fit_toys(many, range(12), seed=5, truth=truth)
    assert not np.allclose(other, whole)


def test_residuals_add_up_to_the_cost(many):
    data = draw(many, range(3), seed=9)
    best, tests = fit_data(many, data)
    r = bin_residuals(many, data, best.values)
    k = best.column("norm_flux")
    pull = (best.values[:, k] - data.centres[:, many.constrained.index("norm_flux")]) / 0.02
    np.testing.assert_allclose((r**2).sum(axis=1) + pull**2, best.chi2, rtol=1e-6)
    np.testing.assert_allclose(tests[:, 1], np.abs(r).max(axis=1))


def test_what_the_tests_are():
    r = np.array([[1.0, 1.0, 1.0, -2.0, 0.5, 0.5], [1.0, -1.0, 1.0, -1.0, 1.0, -1.0]])
    out = dict(zip(TESTS, statistics_of(np.array([7.0, 8.0]), r).T, strict=True))
    np.testing.assert_array_equal(out["chi2"], [7.0, 8.0])
    np.testing.assert_array_equal(out["largest"], [2.0, 1.0])
    np.testing.assert_array_equal(out["runs"], [-3.0, -6.0])
    np.testing.assert_allclose(out["excess"], [2.0, 1.0])
    np.testing.assert_allclose(statistics_of(np.zeros(1), np.ones((1, 8)))[0, 2], 4 / np.sqrt(4))


@pytest.mark.parametrize(
    ("above", "p", "error"), [(0, 1 / 51, 0.02), (25, 26 / 51, 0.0707), (49, 50 / 51, 0.02), (50, 1.0, 0.02)]
)
def test_a_p_value_is_never_certain(above, p, error):
    """Not even when every toy or none is more extreme than the data."""
    got = p_value(0.5, np.repeat([0.0, 1.0], [50 - above, above]))
    assert got.p == pytest.approx(p)
    assert got.error == pytest.approx(error, rel=1e-3)


def test_p_values_count_failed_toys():
    got = p_value(2.0, np.array([1.0, 2.0, 3.0]), failed=2)
    assert got.p == 3 / 4
    assert got.p_range == (3 / 6, 5 / 6)
    assert p_value(9.0, np.arange(9.0)).p == 0.1
    with pytest.raises(NuebarError, match="expected valid toys"):
        p_value(1.0, np.zeros(0))


def test_several_starts_find_the_lower_minimum():
    """Δm²31 free with a wide prior and little data: with starts on both sides no minimum is higher."""
    e = small("cnp", **{"exposure.days": 60.0, "binning.segments": ((0.8, 8.8, 80),)})
    p = e.fit.parameters.updated(dm2_31_eV2={"sigma": 6e-5, "fixed": False})
    engine = ManyFits(dataclasses.replace(e.fit, parameters=p), threads=1, lanes=20)
    data = draw(engine, range(40), seed=3)
    alone = engine.run(data, start=data.truth, errors="none")
    best, _, _ = fit_toys(engine, range(40), seed=3, truth=data.truth[0])
    np.testing.assert_array_less(best.chi2, alone.chi2 + 2e-6)


def test_bad_input_is_refused(many):
    data = draw(many, range(2), seed=1)
    with pytest.raises(NuebarError, match="one data set"):
        goodness(many, data, 10, seed=1)
