import importlib.util
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.stats import poisson

from nuebar.errors import NuebarError
from nuebar.io.posteriors import ResponsePosterior
from nuebar.tune import likelihood as module
from nuebar.tune.data import CalibrationData
from nuebar.tune.density import RESPONSE, precise
from nuebar.tune.likelihood import NORM_LIMITS, ResponseLikelihood, ResponseProblem
from nuebar.tune.store import load_density

spec = importlib.util.spec_from_file_location("toy_density", Path(__file__).with_name("toy.py"))
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)

DENSITY = toy.ToyDensity(n_knots=1601)
POINT = np.array([12.1, 0.50, 9855.0])
SIGMA = np.array([0.2, 0.035, 36.0])  # of ten thousand events of each source
POSTERIOR = ResponsePosterior(RESPONSE, POINT + SIGMA, np.diag(SIGMA**2) + 0.5 * np.outer(SIGMA, SIGMA))


def measured(n=3000, sources=DENSITY.sources, seed=1):
    n_pe = {s: DENSITY.sample(n, toy.TRUTH, s, seed=seed + k) for k, s in enumerate(sources)}
    return CalibrationData.from_charges(n_pe, DENSITY.edges, DENSITY.pe_to_observable)


DATA = measured()
FLAT = np.full(800, 0.25)  # 200 counts
WITH_BACKGROUND = DATA.with_background({"Cs137": FLAT, "AmBe": 2.0 * FLAT, "AmC": FLAT})
NORMS = np.array([1.02, 0.97, 1.0, 1.05, 0.9])

CASES = {
    "binned": (DATA, {}),
    "unbinned": (DATA, {"unbinned": True}),
    "background": (WITH_BACKGROUND, {}),
    "prior": (DATA, {"priors": {"fC": (0.4, 0.02)}}),
    "joint prior": (WITH_BACKGROUND, {"priors": POSTERIOR}),
}


@jax.jit
def full(like, response, norms):
    return like.full(response, norms)


@jax.jit
def closed(like, response):
    return like.log_likelihood(response)


def built(case):
    data, options = CASES[case]
    return ResponseLikelihood.build(data, DENSITY, **options)


@pytest.mark.parametrize("data", [DATA, WITH_BACKGROUND])
def test_it_is_poissons_up_to_one_constant(data):
    like = ResponseLikelihood.build(data, DENSITY)
    background = 0.0 if data.background is None else data.background
    signal = data.events if data.background is None else data.events - data.background.sum(axis=1)

    def exact(response, norms):
        p = np.exp(np.asarray(DENSITY.log_probabilities(response)))
        return poisson.logpmf(data.counts, (norms * signal)[:, None] * p + background).sum()

    points = [(POINT, np.ones(5)), (POINT + SIGMA, NORMS), (POINT - 2 * SIGMA, 2 - NORMS)]
    differences = [exact(*p) - float(full(like, *p)) for p in points]
    np.testing.assert_allclose(differences, differences[0], atol=1e-6)


def test_norms_of_one_give_the_closed_form_and_its_constant_is_none_of_the_response():
    like = built("binned")
    for response in (POINT, POINT + 3 * SIGMA):
        separate = float(closed(like, response))
        assert float(full(like, response, np.ones(5))) == pytest.approx(separate, abs=1e-7)
        shifted = float(full(like, response, NORMS))
        assert shifted - separate == pytest.approx(np.sum(DATA.events * (np.log(NORMS) - NORMS + 1)), abs=1e-7)
        assert shifted < separate


def test_unbinned_is_the_sum_over_events():
    like = built("unbinned")
    direct = sum(
        DENSITY.log_prob(q, dict(zip(RESPONSE, POINT, strict=True)), s).sum() - q.size * np.log(DATA.pe_to_observable)
        for q, s in zip(DATA.charges, DATA.sources, strict=True)
    )
    assert float(closed(like, POINT)) == pytest.approx(direct, abs=1e-3)


@pytest.mark.parametrize(
    ("case", "free"), [*((c, False) for c in CASES), ("binned", True), ("background", True), ("joint prior", True)]
)
def test_gradients_agree_with_finite_differences_in_both_modes(case, free):
    like = built(case)
    x = np.concatenate([POINT + SIGMA, NORMS]) if free else POINT + SIGMA
    scales = np.concatenate([SIGMA, np.full(5, 0.01)]) if free else SIGMA
    problem = ResponseProblem(like)
    value, gradient = like.value_and_grad(x)
    cost, _, slope = problem.expansion(x)
    assert -2.0 * value == pytest.approx(cost, rel=1e-13)
    np.testing.assert_allclose(-slope * scales, gradient * scales, rtol=1e-9, atol=1e-8)

    def at(k, h):
        moved = x.copy()
        moved[k] += h * scales[k]
        return -0.5 * problem.expansion(moved)[0]

    h = 0.02
    numeric = [(8 * (at(k, h) - at(k, -h)) - at(k, 2 * h) + at(k, -2 * h)) / (12 * h) for k in range(x.size)]
    np.testing.assert_allclose(gradient * scales, numeric, rtol=1e-5, atol=2e-5)


def test_the_hessian_is_that_of_automatic_differentiation():
    like = built("background")
    x = POINT + 0.5 * SIGMA
    exact = -2.0 * np.asarray(jax.jit(jax.hessian(like.log_posterior))(x))
    ours = ResponseProblem(like).hessian(x)
    np.testing.assert_allclose(ours * np.outer(SIGMA, SIGMA), exact * np.outer(SIGMA, SIGMA), rtol=2e-4, atol=1e-2)
    part = ResponseProblem(like).hessian(x, np.array([True, False, True]))
    np.testing.assert_allclose(part[np.ix_([0, 2], [0, 2])], ours[np.ix_([0, 2], [0, 2])], rtol=1e-4)
    assert not part[1].any()


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("background", [False, True])
def test_the_information_is_half_the_curvature_of_expected_data(free, background):
    p = np.exp(np.asarray(DENSITY.log_probabilities(POINT)))
    extra = np.tile(FLAT, (5, 1)) if background else np.zeros_like(p)
    counts = dict(zip(DENSITY.sources, 3000.0 * p + extra, strict=True))
    data = CalibrationData.from_counts(counts, DENSITY.edges, DENSITY.pe_to_observable)
    data = data.with_background(dict.fromkeys(DENSITY.sources, FLAT)) if background else data
    problem = ResponseProblem(ResponseLikelihood.build(data, DENSITY))
    x = np.concatenate([POINT, np.ones(5)]) if free else POINT
    scales = np.outer(*2 * [np.concatenate([SIGMA, np.full(5, 0.01)]) if free else SIGMA])
    np.testing.assert_allclose(problem.gradient(x) * np.sqrt(np.diag(scales)), 0.0, atol=1e-6)
    np.testing.assert_allclose(problem.hessian(x) * scales, problem.curvature(x) * scales, rtol=3e-3, atol=2e-2)


def test_profiled_norms_are_the_best_ones_and_stay_in_their_range():
    like = built("background")
    best, errors = like.norms(POINT)
    highest = float(full(like, POINT, best))
    assert float(closed(like, POINT)) == pytest.approx(highest, abs=1e-8)
    for k in range(5):
        for sign in (-1, 1):
            moved = best + sign * errors * (np.arange(5) == k)
            assert highest - float(full(like, POINT, moved)) == pytest.approx(0.5, abs=0.02)
    far = CalibrationData.from_counts(
        dict(zip(DATA.sources, DATA.counts, strict=True)), DATA.edges, DATA.pe_to_observable
    ).with_background({"Cs137": np.where(np.arange(800) < 400, 0.0, 5.0)})  # 2000 counts where there is nothing
    assert ResponseLikelihood.build(far, DENSITY).norms(POINT)[0][0] == NORM_LIMITS[1]
    np.testing.assert_array_equal(built("binned").norms(POINT)[0], 1.0)
    np.testing.assert_allclose(built("binned").norms(POINT)[1], DATA.events**-0.5)


def test_only_the_rows_of_the_data_count():
    some = DATA.subset(("AmC", "K40"))
    alone = [float(closed(ResponseLikelihood.build(DATA.subset((s,)), DENSITY), POINT)) for s in some.sources]
    assert float(closed(ResponseLikelihood.build(some, DENSITY), POINT)) == pytest.approx(sum(alone), rel=1e-12)


def test_priors_add_their_gaussians():
    d = POINT - POSTERIOR.mean
    joint = built("joint prior")
    assert float(joint.log_prior(POINT)) == pytest.approx(-0.5 * d @ np.linalg.inv(POSTERIOR.covariance) @ d)
    assert float(built("prior").log_prior(POINT)) == pytest.approx(-0.5 * ((0.5 - 0.4) / 0.02) ** 2)
    assert float(built("binned").log_prior(POINT)) == 0.0
    assert float(joint.log_posterior(POINT)) == pytest.approx(
        float(closed(joint, POINT)) + float(joint.log_prior(POINT)), rel=1e-14
    )


def test_a_batch_is_its_points_and_other_data_compile_nothing():
    points = POINT + SIGMA * np.random.default_rng(0).standard_normal((67, 3))
    like = built("binned")
    values = like.batch(points)
    np.testing.assert_allclose(values[[0, 66]], [-0.5 * ResponseProblem(like).value(p) for p in points[[0, 66]]])
    ResponseProblem(like).gradient(POINT)
    sizes = [f._cache_size() for f in (module._many, module._expansion)]
    other = ResponseLikelihood.build(measured(2000, seed=90), DENSITY)
    other.batch(points[:5])
    ResponseProblem(other).gradient(POINT)
    assert [f._cache_size() for f in (module._many, module._expansion)] == sizes


@pytest.mark.parametrize(
    ("data", "options", "told"),
    [
        (WITH_BACKGROUND, {"unbinned": True}, "fit binned"),
        (replace(DATA, charges=None), {"unbinned": True}, "single events"),
        (DATA, {"priors": {"dm2_21": (1.0, 1.0)}}, "dm2_21"),
        (DATA, {"priors": {"fC": (0.5, 0.0)}}, "width above 0"),
        (DATA, {"priors": {"fC": 0.5}}, "centre and width"),
    ],
)
def test_what_makes_no_likelihood_is_refused_with_the_reason(data, options, told):
    with pytest.raises(NuebarError, match=told):
        ResponseLikelihood.build(data, DENSITY, **options)


@pytest.fixture(scope="module")
def single():
    """Different numbers of single events of three sources, drawn from the shipped spline flow."""
    density = load_density("spline")
    response = dict(zip(RESPONSE, (12.0, 0.5, 9900.0), strict=True))
    n_pe = {s: density.sample(n, response, s, seed=n) for s, n in (("AmBe", 1500), ("Cs137", 2300), ("K40", 700))}
    return density, response, n_pe, CalibrationData.from_charges(n_pe, density.edges, density.pe_to_observable)


@pytest.mark.slow
def test_single_events_of_a_density_with_kinks_are_summed_exactly(single):
    density, response, n_pe, data = single
    likelihood = ResponseLikelihood.build(data, density, unbinned=True)
    assert likelihood.weights.sum(axis=1).tolist() == [len(q) for q in data.charges]
    # Of the network in double precision; per unit of the observable.
    exact = precise(density)
    expected = sum(
        exact.log_prob(q, response, s).sum() - len(q) * np.log(density.pe_to_observable) for s, q in n_pe.items()
    )
    assert float(likelihood.log_likelihood(np.array(list(response.values())))) == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_single_events_and_knots_give_the_same_likelihood(single, monkeypatch):
    density, response, _, data = single
    at = np.array(list(response.values()))
    events = ResponseLikelihood.build(data, density, unbinned=True)
    monkeypatch.setattr(module, "_SINGLE", 100)
    knots = ResponseLikelihood.build(data, density, unbinned=True)
    assert events.events_at is not None
    assert knots.events_at is None
    assert float(events.log_likelihood(at)) == pytest.approx(float(knots.log_likelihood(at)), abs=0.2)
    one, other = events.expansion(at), knots.expansion(at)
    errors = [np.sqrt(np.diag(np.linalg.inv(np.asarray(e.normal)))) for e in (one, other)]
    np.testing.assert_allclose(errors[0], errors[1], rtol=0.15)  # information of the events, and expected
    steps = [np.linalg.solve(np.asarray(e.normal), np.asarray(e.slope)) for e in (one, other)]
    np.testing.assert_allclose(steps[0] / errors[0], steps[1] / errors[0], atol=0.3)  # kinks are felt at 0.1
