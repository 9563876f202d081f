"""Pseudo-experiments: the same minima as single fits, any batch, all statistics, limits, and honest failures."""

import dataclasses

import numpy as np
import pytest

from nuebar.config import load_experiment, override
from nuebar.errors import NuebarError
from nuebar.fit.many import REASONS, DataSets, ManyFits, picked, rough_errors
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.fit.toys import ToyOptions, draw, joined, run_toys, summary
from nuebar.predict.spectrum import build_model

FREE = ("sin2_th12", "sin2_th13", "dm2_21_eV2", "dm2_31_eV2", "norm_flux")


def small(**changes):
    """Two cores, wide bins, few pulls: quick to compile."""
    e = load_experiment("juno")
    e = dataclasses.replace(
        e,
        reactor=dataclasses.replace(e.reactor, cores=(e.reactor.cores[0], e.reactor.cores[-1])),
        backgrounds=e.backgrounds[:1],
    )
    options = {
        "binning.segments": ((0.8, 8.8, 80),),
        "binning.fine_width_MeV": 0.05,
        "systematics.signal": {"flux": 0.02},
        "systematics.nonlinearity": False,
        "systematics.resolution": (),
        "systematics.fission_fractions": {},
        "systematics.core": 0.0,
        "systematics.spent_fuel": 0.0,
        "systematics.nonequilibrium": 0.0,
        "systematics.energy_scale": 0.005,
    }
    return build_model(override(e, {**options, **changes}))


@pytest.fixture(scope="module")
def fit():
    model, parameters = small()
    fit = SpectrumFit.asimov(model, parameters, statistic="pearson")
    return fit.fixing([n for n in parameters if n not in FREE])


@pytest.fixture(scope="module")
def many(fit):
    return ManyFits(fit, threads=2, lanes=16)


@pytest.fixture(scope="module")
def results(many):
    return run_toys(many, 400, seed=5)


def one(many, data, k):
    """Toy k, with the centres as the experiment has them, which is what a single fit takes."""
    return DataSets(data.numbers[k : k + 1], data.counts[k : k + 1], many.centres[None], data.truth[k : k + 1])


@pytest.mark.parametrize(
    "statistic", ["cnp", "barlow-beeston", "poisson", pytest.param("pearson", marks=pytest.mark.slow)]
)
def test_the_same_minimum_as_a_single_fit(statistic):
    model, parameters = small(**{"fit.shape_uncertainties": statistic != "poisson", "exposure.days": 700.0})
    fit = SpectrumFit.asimov(model, parameters, statistic=statistic)
    fit = fit.fixing(["matter_density_g_cm3"])
    many = ManyFits(fit, threads=1, lanes=2)
    data = draw(many, range(2), seed=8)
    for k in range(2):
        ours = many.run(one(many, data, k))
        single = dataclasses.replace(fit, counts=data.counts[k]).run()
        assert single.valid, single.reason
        assert ours.valid[0], ours.reason(0)
        assert ours.chi2[0] == pytest.approx(single.chi2, abs=1e-4)
        for name in ours.free:
            p = single.parameters[name]
            assert abs(ours.value(name)[0] - p.value) < 1e-3 * p.error, name
            assert ours.error(name)[0] == pytest.approx(p.error, rel=1e-2)


def test_toys_do_not_depend_on_batches_or_chunks(fit, many, results):
    other = ManyFits(fit, threads=1, lanes=5)
    again = joined([run_toys(other, 7, seed=5), run_toys(other, 3, seed=5, first=7)])
    np.testing.assert_array_equal(again.numbers, np.arange(10))
    for name in FREE:
        d = (again.value(name) - results.value(name)[:10]) / results.error(name)[:10]
        assert np.abs(d).max() < 1e-3
    np.testing.assert_allclose(again.chi2, results.chi2[:10], atol=1e-6)
    a, b = draw(many, range(10), seed=5), draw(other, [3, 9], seed=5)
    np.testing.assert_array_equal(a.counts[[3, 9]], b.counts)
    np.testing.assert_array_equal(a.centres[[3, 9]], b.centres)


def test_the_number_of_threads_changes_no_bit(fit, results):
    again = run_toys(ManyFits(fit, threads=1, lanes=16), 400, seed=5)
    np.testing.assert_array_equal(again.values, results.values)
    np.testing.assert_array_equal(again.chi2, results.chi2)


def test_pulls_are_normal_and_chi2_has_its_degrees_of_freedom(results):
    """400 toys: standard errors 0.05 of a mean and 0.035 of a spread; Pearson's χ² is biased in the norm."""
    assert results.valid.all()
    for row in summary(results):
        assert abs(row.pull_mean) < (0.6 if row.name == "norm_flux" else 0.25), row
        assert row.pull_spread == pytest.approx(1.0, abs=0.14), row
        assert row.coverage == pytest.approx(0.683, abs=0.09), row
    n_dof = 80 - 4
    assert results.chi2.mean() == pytest.approx(n_dof, abs=4 * np.sqrt(2 * n_dof / 400) + 1)


def test_constraints_and_shape_have_streams_of_their_own(many):
    both = draw(many, range(50), seed=2)
    fixed = draw(many, range(50), seed=2, options=ToyOptions(constraints=False))
    np.testing.assert_array_equal(both.counts, fixed.counts)
    np.testing.assert_array_equal(fixed.centres, np.tile(many.centres, (50, 1)))
    k = many.constrained.index("norm_flux")
    assert both.centres[:, k].std() == pytest.approx(0.02, rel=0.35)
    bare = draw(many, range(50), seed=2, options=ToyOptions(shape=False))
    assert not np.array_equal(bare.counts, both.counts)
    mu = np.asarray(many.fit.counts)
    wide = ((both.counts - mu) ** 2 / mu).mean()
    assert wide > ((bare.counts - mu) ** 2 / mu).mean()
    assert ((bare.counts - mu) ** 2 / mu).mean() == pytest.approx(1.0, abs=0.12)


def test_a_truth_is_found_again(many):
    found = run_toys(many, 60, seed=9, truth={"sin2_th12": 0.311, "dm2_21_eV2": 7.56e-5})
    for name, value in (("sin2_th12", 0.311), ("dm2_21_eV2", 7.56e-5)):
        mean = found.value(name).mean()
        assert abs(mean - value) < 4 * found.error(name).mean() / np.sqrt(60) + 0.2 * found.error(name).mean()
        assert found.truth[0, found.column(name)] == value


def test_expected_counts_give_the_truth_back(many):
    data = draw(many, range(1), seed=1)
    asimov = DataSets(data.numbers, np.asarray(many.fit.counts)[None], many.centres[None], data.truth)
    start = data.truth.copy()
    start[0, many.names.index("dm2_31_eV2")] += 1e-5
    found = many.run(asimov, start=start)
    assert found.chi2[0] == pytest.approx(0.0, abs=1e-5)
    assert np.abs(found.pull("dm2_31_eV2"))[0] < 1e-3


def test_a_fixed_parameter_stays_and_costs_chi2(many):
    data = draw(many, range(8), seed=4)
    free, held = many.run(data), many.run(data, fixed=["sin2_th12"])
    np.testing.assert_array_equal(held.value("sin2_th12"), data.truth[:, 0])
    assert "sin2_th12" not in held.free
    assert np.all(held.chi2 >= free.chi2 - 1e-6)
    expected = free.pull("sin2_th12") ** 2
    np.testing.assert_allclose(held.chi2 - free.chi2, expected, rtol=0.2, atol=0.05)


def test_a_fit_on_a_limit_is_flagged_and_counted(fit):
    """sin²θ13 = 0.002 is half an error away from its limit after a year."""
    model, parameters = small(**{"exposure.days": 300.0})
    few = SpectrumFit.asimov(model, parameters, statistic="cnp").fixing([n for n in parameters if n not in FREE])
    many = ManyFits(few, threads=1, lanes=16)
    found = run_toys(many, 40, seed=3, truth={"sin2_th13": 0.002})
    assert len(found) == 40
    on = found.value("sin2_th13") <= 0.0
    assert on.sum() > 3
    assert (found.status[on] != 0).all()
    assert found.at_limit[on, found.column("sin2_th13")].all()
    row = int(np.flatnonzero(on)[0])
    assert "sin2_th13" in found.reason(row)
    assert sum(found.failures().values()) == (~found.valid).sum()
    data = draw(many, [row], seed=3, truth={"sin2_th13": 0.002}, options=ToyOptions(constraints=False))
    single = dataclasses.replace(few, counts=data.counts[0]).run()
    assert "sin2_th13" in single.at_limit
    assert many.run(data).chi2[0] == pytest.approx(single.chi2, abs=1e-3)


def test_far_from_the_start_the_windows_are_left(fit):
    """A truth ten standard deviations away lies outside of the windows: the fit is done again without them."""
    many = ManyFits(fit, reach=3.0, threads=1, lanes=4)
    k = many.names.index("dm2_31_eV2")
    value = float(many.upper[k] + 3e-5)
    counts = np.asarray(fit.model(fit.model.vector({**fit.parameters.nominal(), "dm2_31_eV2": value}))[0])
    nominal = np.array([fit.parameters[n].value for n in many.names])
    found = many.run(DataSets(np.zeros(1, int), counts[None], many.centres[None], nominal[None]))
    assert found.valid[0], found.reason(0)
    assert found.value("dm2_31_eV2")[0] == pytest.approx(value, abs=1e-8)


def test_a_data_set_that_cannot_be_fitted_is_kept(many):
    data = draw(many, range(3), seed=1)
    counts = data.counts.copy()
    counts[1] = np.nan
    found = many.run(dataclasses.replace(data, counts=counts))
    assert found.status.tolist()[0::2] == [0, 0]
    assert REASONS[found.status[1]] in ("the cost is not finite", "not converged")
    assert sum(found.failures().values()) == 1


def test_rough_errors_are_about_right(fit, results):
    rough = rough_errors(fit)
    for name in FREE:
        k = results.column(name)
        assert rough[k] == pytest.approx(np.median(results.errors[:, k]), rel=0.1)


def test_the_lowest_of_several_fits_is_picked(results):
    a, b = results.rows(slice(0, 3)), results.rows(slice(3, 6))
    found = picked([a, b], np.array([1, 0, 1]))
    np.testing.assert_array_equal(found.chi2, [b.chi2[0], a.chi2[1], b.chi2[2]])
    np.testing.assert_array_equal(found.n_calls, a.n_calls + b.n_calls)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: run_toys(m, 0, seed=1), "at least one"),
        (lambda m: run_toys(m, 1, seed=-1), "not negative"),
        (lambda m: run_toys(m, 1, seed=1, truth={"nothing": 1.0}), "unknown parameter"),
        (lambda m: run_toys(m, 1, seed=1, truth=np.zeros(3)), "expected a truth of"),
        (lambda m: m.run(draw(m, range(1), seed=1), start=np.full(len(m.names), 9.0)), "outside its limits"),
        (lambda m: m.run(draw(m, range(1), seed=1), fixed=FREE), "at least one free parameter"),
    ],
)
def test_bad_input_is_refused(many, call, message):
    with pytest.raises(NuebarError, match=message):
        call(many)


def test_deviations_that_bins_share_are_drawn_together(fit):
    """A covariance of one deviation of all bins: toys move up and down as a whole, by its size."""
    expected = fit.counts
    shared = np.outer(0.1 * expected, 0.1 * expected)
    many = ManyFits(dataclasses.replace(fit, mc_covariance=shared), threads=1)
    options = ToyOptions(constraints=False, shape=True)
    ratio = draw(many, range(600), seed=2, options=options).counts.sum(axis=1) / expected.sum()
    assert ratio.std() == pytest.approx(0.1, rel=4 / np.sqrt(2 * 600))
    alone = ManyFits(dataclasses.replace(fit, mc_covariance=np.diag(shared).copy()), threads=1)
    assert draw(alone, range(100), seed=2, options=options).counts.sum(axis=1).std() / expected.sum() < 0.03


def test_rough_errors_know_what_bins_share(fit):
    """What all bins share looks like a norm: that is then as uncertain."""
    higher = fit.model(fit.model.vector(fit.parameters.nominal() | {"norm_flux": 0.1}))[0]
    signal = np.asarray(higher) - fit.counts
    k = fit.parameters.names.index("norm_flux")
    only = fit.fixing([n for n in fit.parameters.free if n != "norm_flux"])
    free = dataclasses.replace(only, parameters=only.parameters.updated(norm_flux={"sigma": None}))
    alone = rough_errors(free)[k]
    found = rough_errors(dataclasses.replace(free, mc_covariance=np.outer(signal, signal)))[k]
    assert found == pytest.approx(np.hypot(0.1, alone), rel=1e-3)
