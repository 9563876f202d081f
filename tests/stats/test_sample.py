"""Samplers against posteriors that are known: moments, evidence, walls, seeds, and the checks that must fail."""

import logging
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.stats.sample import effective_sizes, sample, split_r_hat

NAMES = ("kB", "fC", "Y")
LOWER, UPPER = np.array([6.0, 0.0, 8000.0]), np.array([24.0, 1.0, 12000.0])
MEAN = np.array([12.05, 0.517, 9846.0])
SIGMA = np.array([0.26, 0.029, 23.0])
# The correlations published for neural tuning.
COVARIANCE = np.outer(SIGMA, SIGMA) * np.array([[1, -0.9, 0.98], [-0.9, 1, -0.96], [0.98, -0.96, 1]])


class Peaks(eqx.Module):
    """Two Gaussians of one shape, the second one displaced; a module, so that all tests share one program."""

    mean: jax.Array
    inverse: jax.Array
    shift: jax.Array

    def __call__(self, x):
        a, b = x - self.mean, x - self.mean - self.shift
        return jnp.logaddexp(-0.5 * a @ self.inverse @ a, -0.5 * b @ self.inverse @ b) - jnp.log(2.0)


def peaks(mean=MEAN, covariance=COVARIANCE, shift=(0.0, 0.0, 0.0)):
    return Peaks(jnp.asarray(mean), jnp.linalg.inv(covariance), jnp.asarray(shift))


FIT = {"start": MEAN, "covariance": COVARIANCE}
LOG_EVIDENCE = 0.5 * np.log(np.linalg.det(2 * np.pi * COVARIANCE)) - np.log(UPPER - LOWER).sum()


def assert_moments(got, mean=MEAN, covariance=COVARIANCE, n_sigma=5.0):
    """Mean and covariance within so many of their Monte Carlo errors."""
    sigma = np.sqrt(np.diag(covariance))
    n = got.effective.min()
    assert (np.abs(got.mean - mean) < n_sigma * sigma / np.sqrt(n)).all()
    assert (np.abs(got.sigma / sigma - 1) < n_sigma / np.sqrt(2 * n)).all()
    correlation = got.covariance / np.outer(got.sigma, got.sigma) - covariance / np.outer(sigma, sigma)
    assert np.abs(correlation).max() < n_sigma / np.sqrt(n)


@pytest.fixture(scope="module")
def nuts():
    return sample(peaks(), NAMES, LOWER, UPPER, **FIT)


@pytest.fixture(scope="module")
def nested():
    return sample(peaks(), NAMES, LOWER, UPPER, method="nested", **FIT)


def test_nuts_draws_a_correlated_gaussian(nuts):
    assert nuts.valid, nuts.reason
    assert nuts.values.shape == (4000, 3)
    assert nuts.log_evidence is None
    assert (nuts.r_hat < 1.01).all()
    assert (nuts.effective > 1500).all()
    assert_moments(nuts)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"start": MEAN + SIGMA},
        {"start": MEAN, "covariance": 9.0 * np.diag(SIGMA**2)},
        {"start": MEAN - SIGMA, "covariance": COVARIANCE / 4, "n_samples": 3001},
    ],
)
def test_nuts_needs_no_good_start(options):
    got = sample(peaks(), NAMES, LOWER, UPPER, seed=3, **options)
    assert got.valid, got.reason
    assert len(got.values) >= options.get("n_samples", 4000)
    assert_moments(got)


@pytest.mark.parametrize("method", ["nuts", pytest.param("nested", marks=pytest.mark.slow)])
def test_a_wall_truncates(method):
    """Half a Gaussian: mean σ √(2/π) from the wall, variance σ² (1 - 2/π); evidence half as large."""
    mean = np.array([LOWER[0], 0.5, 10000.0])
    covariance = np.diag([0.5, 0.05, 40.0]) ** 2
    got = sample(peaks(mean, covariance), NAMES, LOWER, UPPER, method=method, start=mean, covariance=covariance, seed=2)
    assert got.valid, got.reason
    assert (got.values >= LOWER).all()
    expected = covariance.copy()
    expected[0, 0] *= 1 - 2 / np.pi
    assert_moments(got, mean + np.array([0.5 * np.sqrt(2 / np.pi), 0, 0]), expected)
    if method == "nested":
        truth = 0.5 * np.log(np.linalg.det(2 * np.pi * covariance)) - np.log(2 * np.prod(UPPER - LOWER))
        assert abs(got.log_evidence - truth) < 5 * got.log_evidence_error


def test_log_likelihoods_are_those_of_the_draws(nuts, nested):
    for got in (nuts, nested):
        np.testing.assert_allclose(got.log_likelihood, jax.vmap(peaks())(got.values), rtol=1e-9, atol=1e-8)


def test_chains_at_different_peaks_are_not_valid():
    apart = np.array([5.0, 0.0, 0.0])
    wide = np.diag([2.5, *SIGMA[1:]]) ** 2
    both = peaks(covariance=np.diag(SIGMA**2), shift=apart)
    got = sample(both, NAMES, LOWER, UPPER, start=MEAN + apart / 2, covariance=wide)
    assert not got.valid
    assert "R-hat" in got.reason


@pytest.mark.parametrize("method", ["nuts", "nested"])
def test_same_seed_same_draws(method):
    def run(seed):
        return sample(peaks(), NAMES, LOWER, UPPER, method=method, n_samples=400, live_points=150, seed=seed, **FIT)

    first, second, other = run(5), run(5), run(6)
    np.testing.assert_array_equal(first.values, second.values)
    assert first.n_calls == second.n_calls
    assert not np.isin(other.values, first.values).any()


def test_a_used_up_budget_is_not_valid():
    got = sample(peaks(), NAMES, LOWER, UPPER, max_calls=8_000, **FIT)
    assert not got.valid
    assert "budget" in got.reason
    assert 0 < len(got.values) < 4000
    with pytest.raises(NuebarError, match="raise max_calls"):
        sample(peaks(), NAMES, LOWER, UPPER, max_calls=100, **FIT)
    nested = sample(peaks(), NAMES, LOWER, UPPER, method="nested", max_calls=1500, **FIT)
    assert not nested.valid
    assert "budget" in nested.reason


def test_progress_comes_to_an_end():
    seen = []
    sample(peaks(), NAMES, LOWER, UPPER, progress=lambda *a: seen.append(a), **FIT)
    assert {what for what, _, _ in seen} == {"warm-up", "sampling"}
    assert seen[-1][1] == seen[-1][2]
    sample(peaks(), NAMES, LOWER, UPPER, method="nested", live_points=60, progress=lambda *a: seen.append(a), **FIT)
    assert seen[-1][0] == "nested sampling"
    assert seen[-1][1] > 400


def test_nested_sampling_gives_moments_and_evidence(nested):
    assert nested.valid, nested.reason
    assert nested.r_hat is None
    assert len(nested.values) > 800
    assert nested.log_evidence_error < 0.2
    assert abs(nested.log_evidence - LOG_EVIDENCE) < 5 * nested.log_evidence_error
    assert_moments(nested)
    scatter = np.cov(nested.values, rowvar=False)  # the draws, not the weights
    assert np.abs(np.sqrt(np.diag(scatter)) / SIGMA - 1).max() < 5 / np.sqrt(2 * len(nested.values))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_frame_changes_no_posterior(seed):
    """A covariance that is off, and none at all: the same posterior and evidence."""
    for options in ({}, {"start": MEAN + SIGMA, "covariance": np.diag(SIGMA**2) * 4}):
        got = sample(peaks(), NAMES, LOWER, UPPER, method="nested", seed=seed, **options)
        assert got.valid, got.reason
        assert abs(got.log_evidence - LOG_EVIDENCE) < 5 * got.log_evidence_error
        assert_moments(got, n_sigma=6)


def line(x):
    """Two peaks of equal height in one dimension, integral 0.02 √(2π)."""
    return jnp.logaddexp(-0.5 * ((x[0] - 0.2) / 0.01) ** 2, -0.5 * ((x[0] - 0.8) / 0.01) ** 2)


def test_nested_sampling_finds_both_peaks():
    got = sample(line, ["a"], [0], [1], method="nested")
    assert got.valid, got.reason
    assert abs(got.log_evidence - np.log(0.02 * np.sqrt(2 * np.pi))) < 5 * got.log_evidence_error
    assert abs(np.mean(got.column("a") < 0.5) - 0.5) < 0.12  # 400 live points: 0.025 a standard deviation or so


def test_a_prior_is_carried_along():
    """Flat likelihood: the posterior is the prior, and the evidence its integral over the box."""
    got = sample(
        lambda x: 0.0 * x[0],
        ["a"],
        [-2],
        [2],
        method="nested",
        log_prior=lambda x: -0.5 * (x[0] / 0.1) ** 2,
        start=[0.0],
        covariance=[[0.01]],
    )
    assert got.valid, got.reason
    assert abs(got.log_evidence - np.log(0.1 * np.sqrt(2 * np.pi) / 4)) < 5 * got.log_evidence_error
    assert_moments(got, np.zeros(1), np.array([[0.01]]))
    np.testing.assert_allclose(got.log_likelihood, 0.0, atol=1e-9)


class Half(eqx.Module):
    """A Gaussian up to its maximum, another value beyond it."""

    beyond: jax.Array

    def __call__(self, x):
        return jnp.where(x[0] > 0.5, self.beyond, -0.5 * ((x[0] - 0.5) / 0.05) ** 2)


def test_undefined_likelihoods_are_told_and_forbidden_ones_are_not():
    options = {"method": "nested", "start": [0.45], "covariance": [[0.0025]], "live_points": 200}
    forbidden = sample(Half(jnp.array(-jnp.inf)), ["a"], [0], [1], **options)
    assert forbidden.valid, forbidden.reason
    assert forbidden.values.max() <= 0.5
    undefined = sample(Half(jnp.array(jnp.nan)), ["a"], [0], [1], **options)
    assert not undefined.valid
    assert "NaN at" in undefined.reason


def test_nested_sampling_leaves_nothing_behind(capfd):
    logger = logging.getLogger("ultranest")
    np.random.seed(11)
    before, level = np.random.get_state()[1].copy(), logger.level
    sample(line, ["a"], [0], [1], method="nested", live_points=60)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert logger.level == level
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_eight_parameters_as_published():
    """The three of the response and five source norms."""
    mean = np.concatenate([MEAN, np.ones(5)])
    covariance = np.zeros((8, 8))
    covariance[:3, :3], covariance[3:, 3:] = COVARIANCE, np.eye(5) * 1e-4
    lower, upper = np.concatenate([LOWER, np.full(5, 0.8)]), np.concatenate([UPPER, np.full(5, 1.2)])
    got = sample(
        peaks(mean, covariance, np.zeros(8)),
        [*NAMES, *"vwxyz"],
        lower,
        upper,
        method="nested",
        start=mean,
        covariance=covariance,
    )
    assert got.valid, got.reason
    truth = 0.5 * np.log(np.linalg.det(2 * np.pi * covariance)) - np.log(upper - lower).sum()
    assert abs(got.log_evidence - truth) < 5 * got.log_evidence_error
    assert_moments(got, mean, covariance, n_sigma=6)


# Diagnostics


def autoregressive(rho, chains=4, n=20_000, seed=0):
    """x' = ρ x + √(1 - ρ²) noise: unit variance, autocorrelation ρ^k."""
    random = np.random.default_rng(seed)
    out = np.empty((chains, n))
    out[:, 0] = random.standard_normal(chains)
    noise = random.standard_normal((chains, n)) * np.sqrt(1 - rho**2)
    for k in range(1, n):
        out[:, k] = rho * out[:, k - 1] + noise[:, k]
    return out[..., None]


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, -0.5])
def test_effective_size_of_an_autoregressive_chain(rho):
    """n (1 - ρ)/(1 + ρ) for the mean; the square's autocorrelation is ρ^2k, so n (1 - ρ²)/(1 + ρ²) for the variance."""
    draws = autoregressive(rho)
    expected = 80_000 * min((1 - rho) / (1 + rho), (1 - rho**2) / (1 + rho**2))
    assert effective_sizes(draws)[0] == pytest.approx(expected, rel=0.15)
    assert split_r_hat(draws)[0] == pytest.approx(1.0, abs=0.005)


def test_r_hat_sees_chains_that_disagree_and_chains_that_drift():
    same = np.random.default_rng(1).standard_normal((4, 1000, 1))
    apart = same + np.array([0, 0, 0, 1.0])[:, None, None]
    # Four pairs of halves with a variance of 1 within and of 8/7 · 3/16 between them.
    assert split_r_hat(apart)[0] == pytest.approx(np.sqrt(1 + 8 / 7 * 3 / 16), rel=0.02)
    drift = same + np.linspace(0, 2, 1000)[:, None]
    assert split_r_hat(drift)[0] > 1.1
    assert effective_sizes(apart)[0] < 100
    still = np.broadcast_to(np.arange(4.0)[:, None, None], (4, 10, 1))
    assert split_r_hat(still)[0] == np.inf
    assert effective_sizes(still)[0] == 0


# Refusals


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "gibbs"}, "'nuts' or 'nested', got 'gibbs'"),
        ({"names": ["a", "b"]}, "as many walls"),
        ({"names": ["a", "a", "b"]}, "different names"),
        ({"lower": [6, 0, 20000]}, "'Y' needs finite walls"),
        ({"upper": [24, np.inf, 12000]}, "'fC' needs finite walls"),
        ({"n_samples": 1}, "n_samples"),
        ({"chains": 1}, "chains"),
        ({"seed": -1}, "seed"),
        ({"max_calls": 0}, "max_calls"),
        ({"batch": 0, "method": "nested"}, "batch"),
        ({"live_points": 3, "method": "nested"}, "live_points"),
        ({"start": [5.0, 0.5, 9000.0]}, "inside the walls"),
        ({"start": MEAN, "covariance": np.ones((3, 3))}, "positive definite"),
        ({"start": MEAN, "covariance": np.eye(2)}, "positive definite"),
        ({"start": MEAN, "covariance": COVARIANCE, "log_likelihood": lambda x: x[0] * jnp.nan}, "is nan at"),
        ({"method": "nested", "log_likelihood": lambda x: x[0] + jnp.inf}, r"\+inf at"),
    ],
)
def test_refusals_say_what_is_wrong(options, sentence):
    options = {"log_likelihood": peaks(), "names": NAMES, "lower": LOWER, "upper": UPPER} | options
    with pytest.raises(NuebarError, match=sentence):
        sample(options.pop("log_likelihood"), options.pop("names"), **options)


@pytest.mark.parametrize(("method", "package"), [("nuts", "blackjax"), ("nested", "ultranest")])
def test_a_missing_package_is_named(method, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(NuebarError, match=rf"{package}: pip install 'nuebar\[tune\]'"):
        sample(peaks(), NAMES, LOWER, UPPER, method=method, **FIT)


def test_an_unknown_column_is_refused(nuts):
    assert nuts.column("fC").shape == (4000,)
    with pytest.raises(NuebarError, match="no parameter 'rho'"):
        nuts.column("rho")
