"""Expected errors: those of a fit, scaling with exposure, switched-off systematics, shares that add up, profiles."""

import dataclasses

import numpy as np
import pytest

from nuebar.config import load_experiment, override
from nuebar.errors import NuebarError
from nuebar.fit.ordering import BACKGROUND_SHAPE, SIGNAL_SHAPE, OrderingStudy, scaled
from nuebar.fit.sensitivity import EXTERNAL, STATISTICS, SensitivityStudy, _fringe
from nuebar.fit.spectrum_fit import SpectrumFit, inverted_start
from nuebar.predict.spectrum import build_model

FACTORS = (0.05, 1.0, 3.0)


def small(**changes):
    """JUNO with two cores, two backgrounds and few pulls."""
    e = load_experiment("juno")
    e = dataclasses.replace(
        e,
        reactor=dataclasses.replace(e.reactor, cores=(e.reactor.cores[0], e.reactor.cores[-1])),
        backgrounds=e.backgrounds[:2],
    )
    return override(
        e,
        {
            "binning.segments": ((0.8, 8.8, 320),),
            "systematics.signal": {"flux": 0.02},
            "systematics.resolution": (),
            "systematics.fission_fractions": {},
            "systematics.core": 0.0,
            "systematics.nonequilibrium": 0.0,
            **changes,
        },
    )


def made(experiment):
    model, parameters = build_model(experiment)
    return SpectrumFit.asimov(model, parameters, statistic="pearson")


@pytest.fixture(scope="module")
def fit():
    return made(small())


@pytest.fixture(scope="module")
def study(fit):
    return SensitivityStudy(fit)


@pytest.fixture(scope="module")
def sharper():
    """5 % better resolution."""
    resolution = tuple(0.95 * v for v in load_experiment("juno").response.resolution)
    return SensitivityStudy(made(small(**{"response.resolution": resolution})))


@pytest.mark.parametrize("factor", FACTORS)
def test_errors_are_those_of_a_fit(fit, study, factor):
    result = scaled(fit, factor).run()
    found = study.precision(factor)
    for name in study.interest:
        assert found.errors[name] == pytest.approx(result.parameters[name].error, rel=1e-3)
        assert found.relative[name] == pytest.approx(found.errors[name] / abs(fit.parameters[name].value))


def test_every_cost_has_the_same_curvature_at_expected_counts(fit, study):
    other = SensitivityStudy(dataclasses.replace(fit, statistic="cnp")).precision(1.0)
    for name, error in study.precision(1.0).errors.items():
        assert other.errors[name] == pytest.approx(error, rel=1e-6)


def test_statistics_only_falls_with_the_root_of_exposure(study):
    groups = study.groups()
    one, nine = study.precision(1.0, without=groups), study.precision(9.0, without=groups)
    for name in study.interest:
        assert nine.errors[name] == pytest.approx(one.errors[name] / 3.0, rel=1e-9)


@pytest.mark.parametrize("factor", FACTORS)
def test_no_error_grows_when_a_group_is_switched_off(study, factor):
    whole, bare = study.precision(factor).errors, study.precision(factor, without=study.groups()).errors
    for row in study.breakdown(factor):
        for name in study.interest:
            assert bare[name] * (1 - 1e-12) <= row.without[name] <= whole[name] * (1 + 1e-12)
            assert bare[name] * (1 - 1e-12) <= row.alone[name] <= whole[name] * (1 + 1e-12)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("priors", [{}, {"sin2_th13": 0.0007}])
def test_shares_add_up_in_quadrature(fit, factor, priors):
    study = SensitivityStudy(fit, priors=priors)
    rows = study.breakdown(factor)
    assert [r.group for r in rows] == [STATISTICS, *study.groups(), *([EXTERNAL] if priors else [])]
    for name, error in study.precision(factor).errors.items():
        assert sum(r.share[name] ** 2 for r in rows) == pytest.approx(error**2, rel=1e-9)


def test_share_of_a_group_is_how_the_fit_follows_its_centre(fit, study):
    """Moving the centre of the flux by its width moves the best fit by the share, to first order in a small move."""
    (row,) = [r for r in study.breakdown(1.0) if r.group == "flux and efficiency"]
    small_step = 0.05
    problem, x = study._problem(1.0, (), "normal")
    here = problem.linearised(x)
    line = int(np.flatnonzero(here.jacobian[len(fit.counts) :, fit.parameters.names.index("norm_flux")])[0])
    sigma = fit.parameters["norm_flux"].sigma
    assert here.jacobian[len(fit.counts) + line, fit.parameters.names.index("norm_flux")] == pytest.approx(1 / sigma)
    moved = fit.parameters.updated(norm_flux={"value": small_step * sigma})
    result = dataclasses.replace(fit, parameters=moved).run()
    for name in study.interest:
        shift = abs(result.parameters[name].value - fit.parameters[name].value)
        assert shift / small_step == pytest.approx(
            row.share[name], rel=0.02, abs=1e-3 * study.precision(1.0).errors[name]
        )


def test_a_prior_is_one_more_measurement(fit, study):
    """Its information adds: the error of the prior's own parameter, and no other one grows."""
    sigma = 0.0007
    found = SensitivityStudy(fit, priors={"sin2_th13": sigma}).precision(1.0).errors
    free = study.precision(1.0).errors
    assert found["sin2_th13"] == pytest.approx((free["sin2_th13"] ** -2 + sigma**-2) ** -0.5, rel=1e-9)
    correlation = study.correlation(1.0)[study.interest.index("sin2_th13")]
    for name, rho in zip(study.interest, correlation, strict=True):
        gain = rho**2 / (1.0 + (sigma / free["sin2_th13"]) ** 2)  # one measurement more in a Gaussian
        assert found[name] == pytest.approx(free[name] * np.sqrt(1.0 - gain), rel=1e-9)


def test_own_prior_of_an_oscillation_parameter_is_no_systematic(fit, study):
    """A prior in the experiment's file and one of the study are the same, and stay when systematics are off."""
    sigma = 0.0007
    own = SensitivityStudy(dataclasses.replace(fit, parameters=fit.parameters.updated(sin2_th13={"sigma": sigma})))
    other = SensitivityStudy(fit, priors={"sin2_th13": sigma})
    assert own.groups() == other.groups() == study.groups()
    for mine, its in zip(own.breakdown(1.0), other.breakdown(1.0), strict=True):
        assert mine.group == its.group
        for what in ("share", "without", "alone"):
            assert getattr(mine, what) == pytest.approx(getattr(its, what), rel=1e-9)


def test_better_resolution_is_better(study, sharper):
    assert sharper.precision(1.0).errors["dm2_31_eV2"] < 0.97 * study.precision(1.0).errors["dm2_31_eV2"]
    assert sharper.ordering(1.0).delta_chi2 > 1.1 * study.ordering(1.0).delta_chi2


def test_ordering_is_the_difference_of_two_single_fits(fit, study):
    point = study.ordering(1.0)
    wrong = SpectrumFit(fit.model, inverted_start(fit.parameters), fit.counts, "pearson").run()
    assert point.valid, point.reason
    assert point.delta_chi2 == pytest.approx(wrong.chi2, abs=1e-4)
    step = wrong.values()["dm2_31_eV2"] - point.wrong["dm2_31_eV2"]
    assert abs(step) < 1e-3 * wrong.parameters["dm2_31_eV2"].error
    assert point.minima == 1


@pytest.mark.slow
def test_ordering_is_that_of_the_ordering_study(fit, study):
    other = OrderingStudy(fit, smallest=0.9, lanes=8)
    for truth in ("normal", "inverted"):
        ours, theirs = study.ordering(1.0, truth=truth), other.asimov(1.0, truth=truth)
        assert ours.valid, ours.reason
        assert ours.delta_chi2 == pytest.approx(theirs.delta_chi2, abs=1e-4)


def test_ordering_and_systematics(study):
    rows = {r.group: r for r in study.ordering_systematics(1.0)}
    assert {SIGNAL_SHAPE, BACKGROUND_SHAPE, "flux and efficiency", "all", "none"} <= set(rows)
    for row in rows.values():
        assert row.valid
        for value in (row.without, row.alone):
            assert rows["all"].without - 1e-6 <= value <= rows["none"].without + 1e-6
    bare = [study.ordering(f, without=study.groups()).delta_chi2 for f in (0.5, 1.0)]
    assert bare[1] == pytest.approx(2.0 * bare[0], rel=1e-6)


def test_profile_tells_where_an_error_is_not_to_be_trusted(study):
    good, bad = study.check(2.0, "dm2_31_eV2"), study.check(0.02, "dm2_31_eV2")
    assert good.trusted
    assert good.reason == ""
    assert good.below == pytest.approx(1.0, abs=0.02)
    assert good.plus == pytest.approx(good.error, rel=0.01)
    assert not bad.trusted
    assert bad.next_minimum < 4.0 < good.next_minimum
    assert bad.elsewhere > 0.15 > good.elsewhere
    assert "another minimum" in bad.reason
    assert bad.plus is None or bad.plus > bad.error


def test_profile_is_that_of_a_fit_with_the_parameter_held(fit, study):
    name, value = "dm2_21_eV2", fit.parameters["dm2_21_eV2"].value
    error = study.precision(1.0).errors[name]
    held = dataclasses.replace(
        fit, parameters=fit.parameters.updated(dm2_21_eV2={"value": value + error, "fixed": True})
    )
    assert study.check(1.0, name).above == pytest.approx(held.run().chi2, abs=1e-4)


def test_limit_within_an_error_is_told(fit):
    near = fit.parameters["sin2_th13"].value - 0.001
    parameters = fit.parameters.updated(sin2_th13={"bounds": (near, 0.2)})
    check = SensitivityStudy(dataclasses.replace(fit, parameters=parameters)).check(0.1, "sin2_th13")
    assert check.below is None
    assert not check.trusted
    assert "limit" in check.reason


def test_fringe_is_seven_percent_of_the_splitting():
    """π E/(1267 L) with E = 4 MeV and L = 52.5 km is 1.89·10⁻⁴ eV²."""
    assert _fringe() == pytest.approx(1.89e-4, rel=0.01)


def test_bad_input_is_refused(fit, study):
    with pytest.raises(NuebarError, match="unknown group"):
        study.precision(1.0, without=("weather",))
    with pytest.raises(NuebarError, match="factor above 0"):
        study.precision(0.0)
    with pytest.raises(NuebarError, match="expected normal or inverted"):
        study.ordering(1.0, truth="both")
    with pytest.raises(NuebarError, match="expected sin2_th13 free"):
        SensitivityStudy(fit.fixing(["sin2_th13"]), priors={"sin2_th13": 0.0007})
    with pytest.raises(NuebarError, match="error above 0"):
        SensitivityStudy(fit, priors={"sin2_th13": 0.0})
    with pytest.raises(NuebarError, match="not the same in both orderings"):
        SensitivityStudy(fit, priors={"dm2_31_eV2": 1e-5}).ordering(1.0)
    correlated = dataclasses.replace(fit, mc_covariance=np.diag(fit.counts))
    with pytest.raises(NuebarError, match="between bins"):
        SensitivityStudy(correlated)._shares(1.0)
