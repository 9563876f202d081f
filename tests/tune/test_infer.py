import importlib.util
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.stats import norm, qmc

from nuebar.errors import NuebarError
from nuebar.io.posteriors import ResponsePosterior
from nuebar.stats.minimise import minimise
from nuebar.stats.sample import Samples
from nuebar.tune.data import CalibrationData
from nuebar.tune.density import RESPONSE
from nuebar.tune.infer import INTERPOLATION_ERROR, _corrected, _Fit, _interpolated, infer, load_tuning, save_tuning
from nuebar.tune.likelihood import ResponseLikelihood, ResponseProblem

spec = importlib.util.spec_from_file_location("toy_density", Path(__file__).with_name("toy.py"))
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)

DENSITY = toy.ToyDensity(n_knots=1601)
TRUTH = np.array(list(toy.TRUTH.values()))
TABLE = jax.jit(lambda x: np.e ** DENSITY.log_probabilities(x))


def measured(n=10_000, seed=1):
    n_pe = {s: DENSITY.sample(n, toy.TRUTH, s, seed=10 * seed + k) for k, s in enumerate(DENSITY.sources)}
    return CalibrationData.from_charges(n_pe, DENSITY.edges, DENSITY.pe_to_observable)


def drawn(n, seed, truth=TRUTH):
    random = np.random.default_rng(seed)
    counts = {
        s: random.multinomial(n, p / p.sum()) for s, p in zip(DENSITY.sources, np.array(TABLE(truth)), strict=True)
    }
    return CalibrationData.from_counts(counts, DENSITY.edges, DENSITY.pe_to_observable)


def quick(data, **options):
    return infer(data, DENSITY, **{"minos": False, "n_replicas": 0, **options})


def best(result):
    return np.array([result.best[n] for n in RESPONSE])


def errors(result):
    return np.array([result.errors[n] for n in RESPONSE])


def assert_same_posterior(one, two, mean=0.1, width=0.05):
    """Means within 0.1 sigma, widths within 5 %."""
    sigma = np.sqrt(np.diag(two.covariance))
    np.testing.assert_allclose((one.mean - two.mean) / sigma, 0.0, atol=mean)
    np.testing.assert_allclose(np.sqrt(np.diag(one.covariance)) / sigma, 1.0, atol=width)


@pytest.fixture(scope="module")
def data():
    return measured()


@pytest.fixture(scope="module")
def fit(data):
    return quick(data, minos=True)


def test_pulls_are_normal_and_every_fit_finds_its_minimum():
    results = [quick(drawn(10_000, 100 + k)) for k in range(50)]
    pulls = np.array([(best(r) - TRUTH) / errors(r) for r in results])
    assert all(r.valid for r in results)
    np.testing.assert_allclose(pulls.mean(axis=0), 0.0, atol=3.5 / np.sqrt(50))
    np.testing.assert_allclose(pulls.std(axis=0), 1.0, atol=3.5 / np.sqrt(2 * 50))
    assert max(r.n_calls for r in results) < 60


def test_one_source_that_cannot_tell_the_parameters_apart_is_refused():
    source = DENSITY.sources[0]
    charges = {source: DENSITY.sample(300, toy.TRUTH, source, seed=1)}
    with pytest.raises(NuebarError, match="which leave a combination of them unknown"):
        quick(CalibrationData.from_charges(charges, DENSITY.edges, DENSITY.pe_to_observable))


def test_no_start_in_the_box_ends_in_a_wrong_valley():
    low, high = np.array(DENSITY.limits).T
    for k in range(15):
        truth = low + (high - low) * np.random.default_rng(k).uniform(0.05, 0.95, 3)
        result = quick(drawn(10_000, k, truth))
        assert np.all(np.abs(best(result) - truth) < 5 * errors(result)), truth


def test_unbinned_agrees_with_binned(data, fit):
    other = quick(data, unbinned=True)
    assert other.valid
    np.testing.assert_allclose((best(other) - best(fit)) / errors(fit), 0.0, atol=0.4)  # they differ by 0.1 on average
    np.testing.assert_allclose(errors(other) / errors(fit), 1.0, atol=0.03)
    assert (errors(other) < 1.01 * errors(fit)).all()  # what is known better cannot be known worse


def test_minos_agrees_with_the_hessian_for_many_events(fit):
    for name, (minus, plus) in fit.minos.items():
        assert -minus == pytest.approx(fit.errors[name], rel=0.03)
        assert plus == pytest.approx(fit.errors[name], rel=0.03)


def test_free_norms_agree_with_norms_in_closed_form(data, fit):
    other = quick(data, norms="free")
    assert other.valid
    np.testing.assert_allclose((best(other) - best(fit)) / errors(fit), 0.0, atol=1e-3)
    np.testing.assert_allclose(errors(other), errors(fit), rtol=1e-3)
    for source, n in fit.data.items():
        assert other.norms[source] == pytest.approx(1.0, abs=1e-6)
        assert other.norm_errors[source] == pytest.approx(n**-0.5, rel=1e-3)
        assert fit.norm_errors[source] == pytest.approx(n**-0.5, rel=1e-12)
    assert other.log_likelihood == pytest.approx(fit.log_likelihood, abs=1e-4)


def test_a_prior_is_combined_as_gaussians_are(data, fit):
    away = 2 * fit.covariance[:, 0] / errors(fit)[0]  # two standard deviations of kB, the others as they follow it
    prior = ResponsePosterior(RESPONSE, fit.mean + away, 4 * fit.covariance)
    both = quick(data, priors=prior)
    weight = 1 / (1 + 1 / 4)
    np.testing.assert_allclose((both.mean - fit.mean) / away, 1 - weight, atol=0.03)
    np.testing.assert_allclose(both.covariance / fit.covariance, weight, atol=0.03)


def test_the_interpolant_is_the_likelihood_where_the_posterior_is(data, fit):
    likelihood = ResponseLikelihood.build(data, DENSITY)
    minimum = minimise(ResponseProblem(likelihood), fit.mean, names=RESPONSE)
    highest = -0.5 * minimum.cost
    target, calls, expected = _interpolated(likelihood, _Fit(minimum, np.eye(3), 0, 0), highest, 0)
    x = np.random.default_rng(5).multivariate_normal(fit.mean, 4 * fit.covariance, 64)
    values = np.asarray(jax.jit(jax.vmap(target))(x))
    assert np.abs(values - (likelihood.batch(x) - highest)).max() < INTERPOLATION_ERROR
    assert calls < 1000
    assert expected < INTERPOLATION_ERROR


@pytest.mark.slow
def test_nuts_on_the_interpolant_agrees_with_the_fit(data, fit):
    nuts = quick(data, method="nuts", seed=3)
    assert nuts.valid, nuts.reason
    assert nuts.samples.shape == (4000, 3)
    assert nuts.interpolation_error < INTERPOLATION_ERROR
    assert nuts.n_calls < 3000
    assert_same_posterior(nuts, fit)


def test_a_record_comes_back_as_it_was_and_gives_a_posterior(tmp_path, fit):
    samples = np.random.default_rng(0).multivariate_normal(fit.mean, fit.covariance, 50)
    for result in (fit, replace(fit, method="nuts", samples=samples, effective=40.0)):
        save_tuning(tmp_path / "tuning.json", result)
        read = load_tuning(tmp_path / "tuning.json")
        assert read.to_dict() == result.to_dict()
        np.testing.assert_array_equal(read.covariance, result.covariance)
        posterior = result.to_posterior()
        assert posterior.names == RESPONSE
        assert posterior.provenance["method"] == result.method
        assert posterior.provenance["density"] == "toy"
        assert (posterior.samples is None) == (result.method == "minuit")
    save_tuning(tmp_path / "tuning.json", quick(drawn(500, 3), n_replicas=50))
    assert load_tuning(tmp_path / "tuning.json").goodness.n_replicas == 50


def test_a_record_of_another_kind_is_refused(tmp_path):
    (tmp_path / "x.json").write_text('{"format": 1, "kind": "fit"}')
    with pytest.raises(NuebarError, match=r"x\.json: expected a response tuning, got kind 'fit'"):
        load_tuning(tmp_path / "x.json")


@pytest.mark.parametrize(("name", "truth"), [("fC", [12.0, 0.0, 9800.0]), ("kB_g_cm2_GeV", [24.0, 0.5, 9800.0])])
def test_a_best_fit_on_an_edge_is_told(name, truth):
    flagged = 0
    for k in range(8):
        result = quick(drawn(1000, k, np.array(truth)))
        if name in result.at_limit:
            flagged += 1
            assert not result.valid
            assert any(f"edge of the range of {name}" in w for w in result.warnings)
        else:
            assert any(f"best fit of {name} lies" in w for w in result.warnings)
    assert 1 <= flagged <= 7


def test_it_works_without_double_precision_switched_on(fit, data):
    with jax.enable_x64(False):
        other = quick(data)
    np.testing.assert_allclose(best(other), best(fit), rtol=1e-7)


@pytest.mark.parametrize("options", [{"method": "guess"}, {"norms": "none"}])
def test_unknown_options_are_refused(data, options):
    with pytest.raises(NuebarError, match=r"got .*'(guess|none)'"):
        quick(data, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"method": "nested"},
        {"method": "nuts", "interpolate": False},
        {"method": "nuts", "norms": "free"},
        {"method": "nested", "norms": "free"},
        {"method": "nuts", "unbinned": True},
    ],
)
def test_all_methods_agree(data, fit, options):
    result = quick(data, seed=5, **options)
    assert result.valid, result.reason
    assert_same_posterior(result, fit, mean=0.4 if options.get("unbinned") else 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_nuts_is_right_where_the_box_cuts_the_posterior(seed):
    data = drawn(1000, seed, np.array([12.0, 0.0, 9800.0]))
    nuts = quick(data, method="nuts", seed=5, n_samples=16_000)
    assert nuts.valid, nuts.reason
    assert nuts.samples[:, 1].min() >= 0.0
    # The same by importance: even points of a wider Gaussian, those outside the box without weight.
    fit = quick(data)
    u = norm.ppf(qmc.Sobol(3, seed=3).random(8192)) @ np.linalg.cholesky(3 * fit.covariance).T
    log_weight = np.einsum("ni,ij,nj->n", u, np.linalg.inv(fit.covariance), u) / 6.0
    x = fit.mean + u
    log_weight += ResponseLikelihood.build(data, DENSITY).batch(x) - fit.log_likelihood
    weight = np.where((x[:, 1] >= 0.0) & (x[:, 1] <= 1.0), np.exp(log_weight), 0.0)
    mean = weight @ x / weight.sum()
    sigma = np.sqrt(weight @ (x - mean) ** 2 / weight.sum())
    np.testing.assert_allclose((nuts.mean - mean) / sigma, 0.0, atol=0.06)
    np.testing.assert_allclose(np.sqrt(np.diag(nuts.covariance)) / sigma, 1.0, atol=0.05)


def test_draws_of_a_poor_interpolant_are_corrected():
    """Those of one normal distribution become those of another; too different a one is refused."""
    random = np.random.default_rng(4)
    x = random.standard_normal((60_000, 1))
    samples = Samples(
        "nuts", ("x",), x, norm.logpdf(x[:, 0]), x.mean(axis=0), np.cov(x, rowvar=False), np.full(1, 60_000.0),
        np.ones(1), 0.0, None, None, 1, 0.0, True, "",
    )  # fmt: skip
    exact = norm.logpdf(x[:, 0], 0.15, 0.9)
    found = _corrected(samples, exact, 20_000, 5)
    assert found.values.shape == (20_000, 1)
    assert abs(found.mean[0] - 0.15) < 4 * 0.9 / np.sqrt(20_000)
    assert np.sqrt(found.covariance) == pytest.approx(0.9, rel=0.03)
    assert found.effective[0] < 60_000
    np.testing.assert_allclose(found.log_likelihood, norm.logpdf(found.values[:, 0], 0.15, 0.9))
    assert _corrected(samples, norm.logpdf(x[:, 0], 4.0, 0.1), 20_000, 5) is None
