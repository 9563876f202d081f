"""Fits of JUNO and TAO together: χ² adds up, the near detector knows the spectrum, no wrong spectrum gets through."""

import dataclasses

import numpy as np
import pytest

from nuebar.config import load_experiment, override
from nuebar.errors import NuebarError
from nuebar.fit.joint import integrated, joint_fit
from nuebar.fit.ordering import OrderingStudy, scaled
from nuebar.fit.spectrum_fit import inverted_start
from nuebar.fit.toys import draw
from nuebar.parameters import OSCILLATION
from nuebar.predict.joint import spectrum_nodes
from nuebar.stats.problem import Problem

NODES = spectrum_nodes(0.3)
SIGMA = 0.2


def detector(name, **changes):
    e = load_experiment(name)
    e = dataclasses.replace(
        e, reactor=dataclasses.replace(e.reactor, cores=e.reactor.cores[:1]), backgrounds=e.backgrounds[:1]
    )
    own = {
        "binning.segments": ((0.9, 8.1, 90),),
        "binning.fine_width_MeV": 0.08,
        "systematics.signal": {"flux": 0.02, "efficiency": 0.01},
        "systematics.nonlinearity": False,
        "systematics.resolution": (),
        "systematics.fission_fractions": {},
        "systematics.core": 0.0,
        "systematics.spent_fuel": 0.0,
        "systematics.nonequilibrium": 0.0,
        "systematics.energy_scale": 0.0,
        "matter.sigma_g_cm3": 0.0,
    }
    return override(e, own | changes)


JUNO = detector("juno", **{"exposure.days": 20000.0})
TAO = detector("tao")


def joint(second=TAO, *, first=JUNO, **options):
    return joint_fit(first, second, **{"nodes_MeV": NODES, "sigma": SIGMA, **options})


def errors(fit):
    found = fit.run()
    assert found.valid, found.reason
    return np.array([found.parameters[n].error for n in OSCILLATION])


@pytest.fixture(scope="module")
def fit():
    return joint()


@pytest.fixture(scope="module")
def both(fit):
    return errors(fit)


def test_chi2_is_that_of_both_detectors_and_of_the_pulls(fit):
    values = fit.parameters.nominal() | {
        "segment_9": 0.01,
        "sin2_th12": 0.31,
        "norm_flux": 0.01,
        "bkg_accidentals_tao": 0.02,
    }
    x = fit.model.vector(values)
    mu, variance = (fit.model.split(a) for a in fit.model(x))
    own = sum(
        np.sum((n - m) ** 2 / (m + v))  # Pearson
        for n, m, v in zip(fit.model.split(fit.counts), mu, variance, strict=True)
    )
    pulls = sum((values[n] - fit.parameters[n].value) ** 2 / fit.parameters[n].sigma ** 2 for n in fit.pulled())
    assert own > 10
    assert pulls > 0.25
    assert fit.problem().value(x) == pytest.approx(own + pulls, rel=1e-10)


def test_without_the_near_detector_it_is_the_far_one_with_a_free_spectrum(both):
    alone, little = errors(joint(None)), errors(joint(second_exposure=1e-9))
    np.testing.assert_allclose(little, alone, rtol=1e-5)
    assert np.all(alone > 1.05 * both)
    assert np.all(alone[[0, 2]] > 4.0 * both[[0, 2]])  # the slow wave looks like a spectrum most of all


def test_a_near_detector_that_counts_for_ever_is_a_known_spectrum(both):
    # Of shapes alone: the nodes move the rate, too, which a spectrum that is known does not.
    juno, tao = (override(e, {"systematics.signal.efficiency": 1.0}) for e in (JUNO, TAO))
    tao = override(tao, {"backgrounds[0].rate_sigma": 1e-6})
    known = errors(joint(None, spectrum="fixed", first=juno))
    far = errors(joint(tao, second_exposure=1e3, first=juno))
    np.testing.assert_allclose(far, known, rtol=3e-3)
    assert far[3] < both[3]


def test_integrated_nodes_give_the_same_errors(fit, both):
    small = integrated(fit)
    assert len(small.parameters) == len(fit.parameters) - len(NODES)
    np.testing.assert_allclose(errors(small), both, rtol=1e-5)
    twice = scaled(small, 2.0)
    np.testing.assert_allclose(twice.mc_covariance, integrated(scaled(fit, 2.0)).mc_covariance, atol=1e-9)
    with pytest.raises(NuebarError, match="no room for a covariance"):
        integrated(dataclasses.replace(fit, statistic="poisson"))


def test_a_wrong_spectrum_is_absorbed_and_would_bias_without_the_near_detector(fit, both):
    values = fit.parameters.nominal()
    bump = {f"segment_{k + 1}": 0.08 * np.exp(-(((e - 4.2) / 0.5) ** 2)) for k, e in enumerate(NODES)}
    counts = np.asarray(fit.model(fit.model.vector(values | bump))[0])
    found = dataclasses.replace(fit, counts=counts).run()
    assert found.valid, found.reason
    moved = [found.parameters[n].value - values[n] for n in OSCILLATION]
    assert np.all(np.abs(moved) < 0.02 * both)
    top = max(bump, key=bump.get)
    assert found.parameters[top].value == pytest.approx(bump[top], rel=0.05)
    known = joint(None, spectrum="fixed")
    biased = dataclasses.replace(known, counts=fit.model.split(counts)[0]).run()
    shift = biased.parameters["dm2_21_eV2"].value - values["dm2_21_eV2"]
    assert abs(shift) > 2.0 * biased.parameters["dm2_21_eV2"].error


@pytest.fixture(scope="module")
def study(fit):
    return OrderingStudy(fit, smallest=1.0, lanes=2, threads=1)


def test_toys_are_fitted_as_one_by_one(fit, study, both):
    many = study.many("normal", 1.0)
    data = draw(many, range(2), seed=3)
    found = many.run(data, start=np.clip(data.truth, many.lower, many.upper))
    assert found.valid.all(), found.failures()
    pulls, claimed = (np.array([f(n) for n in OSCILLATION]) for f in (found.pull, found.error))
    assert np.all(np.abs(pulls) < 5)
    assert np.all(np.abs(claimed / both[:, None] - 1) < 0.2)
    again = dataclasses.replace(fit, counts=data.counts[0], parameters=_centred(fit, many, data.centres[0]))
    single = again.run(start=fit.parameters.nominal())
    assert single.valid, single.reason
    assert single.chi2 == pytest.approx(found.chi2[0], abs=1e-5)
    problem, free = again.problem(), np.isin(fit.parameters.names, fit.parameters.free)
    x = np.array(list(single.values().values()))
    whole, fast = Problem.hessian(problem, x, free), problem.hessian(x, free)
    inverse = [np.linalg.inv(h[np.ix_(free, free)]) for h in (whole, fast)]
    np.testing.assert_allclose(np.sqrt(np.diag(inverse[1])), np.sqrt(np.diag(inverse[0])), rtol=0.01)


def _centred(fit, many, centres):
    return fit.parameters.updated(**{n: {"value": float(c)} for n, c in zip(many.single, centres, strict=True)})


def test_an_ordering_study_takes_it(fit, study):
    point = study.asimov(1.0)
    assert point.valid, point.reason
    assert "reactor spectrum, segments" in study.groups()
    wrong = dataclasses.replace(fit, parameters=inverted_start(fit.parameters)).run()
    assert point.delta_chi2 == pytest.approx(wrong.chi2, abs=1e-3)
    assert point.delta_chi2 > 5


@pytest.mark.parametrize(
    ("options", "words"),
    [({"spectrum": "free"}, "expected a spectrum"), ({"second_exposure": 0.0}, "above 0")],
)
def test_it_refuses_options(options, words):
    with pytest.raises(NuebarError, match=words):
        joint(**options)
