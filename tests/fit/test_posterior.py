"""The posterior: what is known in closed form, several minima, and honesty about draws that do not suffice."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from nuebar.config import load_experiment, override
from nuebar.errors import NuebarError
from nuebar.fit.barriers import Profile, risen
from nuebar.fit.posterior import (
    Posterior,
    angles_and_logarithms,
    determinants,
    lightened,
    log_determinant,
    posterior,
    sample_term,
)
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.predict.spectrum import build_model
from nuebar.stats.likelihood import Bound, CovarianceCost, GaussianPulls, Term

DRAWS = 4000


class Linear(eqx.Module):
    """Counts that are linear in the parameters."""

    design: jnp.ndarray

    def __call__(self, x):
        return self.design @ x


def linear(seed):
    """A straight-line problem of four parameters, the last two with pulls; also its exact mean and covariance."""
    random = np.random.default_rng(seed)
    design = random.normal(size=(12, 4))
    counts = design @ [1.0, -2.0, 0.3, 0.0] + random.normal(size=12)
    centres, sigmas = np.array([0.2, -0.1]), np.array([0.5, 0.8])
    term = GaussianPulls(centres, sigmas=sigmas, indices=(2, 3))
    information = np.diag([0.0, 0.0, *sigmas**-2])
    slope = np.array([0.0, 0.0, *(centres / sigmas**2)])
    term = Bound(CovarianceCost(counts, np.eye(12)), Linear(jnp.asarray(design))) + term
    information = information + design.T @ design
    slope = slope + design.T @ counts
    return term, np.linalg.solve(information, slope), np.linalg.inv(information)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_linear_gaussian_model_gives_the_covariance_of_the_fit(seed):
    term, mean, covariance = linear(seed)
    draws = sample_term(term, "abcd", mean, n_samples=DRAWS, seed=seed)
    assert draws.valid, draws.reason
    sigma = np.sqrt(np.diag(covariance))
    error = 1.0 / np.sqrt(draws.effective)
    assert np.all(np.abs(draws.mean - mean) / sigma < 4 * error)
    ratio = draws.covariance / np.outer(sigma, sigma) - covariance / np.outer(sigma, sigma)
    assert np.abs(ratio).max() < 4 * np.sqrt(2) * error.max()
    assert draws.chi2.min() > 0
    expected = np.array([float(term(jnp.asarray(x))) for x in draws.values[:5]])
    np.testing.assert_allclose(draws.chi2[:5], expected, rtol=1e-9)


def test_the_same_seed_gives_the_same_draws():
    term, mean, _ = linear(1)
    a, b, c = (sample_term(term, "abcd", mean, n_samples=800, seed=s) for s in (3, 3, 4))
    np.testing.assert_array_equal(a.values, b.values)
    assert not np.array_equal(a.values, c.values)


def pulls():
    """The pulls of the linear problem without its data; one program for all tests of it."""
    return GaussianPulls(np.array([0.2, -0.1]), sigmas=np.array([0.5, 0.8]))


def test_priors_alone_come_back():
    draws = sample_term(pulls(), "cd", np.array([0.2, -0.1]), n_samples=DRAWS, seed=5)
    for k, (centre, sigma) in enumerate(((0.2, 0.5), (-0.1, 0.8))):
        z = (draws.values[:, k] - centre) / sigma
        assert stats.kstest(z[::4], "norm").pvalue > 1e-3, k


def test_a_bounded_parameter_is_a_truncated_normal():
    """The minimum of c is 2σ beyond its limit, where a covariance at the minimum says nothing."""
    centres = np.array([0.2, -0.1])
    lower = np.array([centres[0] + 2.0 * 0.5, -np.inf])
    start = np.array([lower[0], centres[1]])
    draws = sample_term(pulls(), "cd", start, lower=lower, n_samples=DRAWS, seed=6)
    assert draws.valid, draws.reason
    truth = stats.truncnorm(2.0, np.inf, loc=centres[0], scale=0.5)
    error = truth.std() / np.sqrt(draws.effective[0])
    assert draws.mean[0] == pytest.approx(truth.mean(), abs=4 * error)
    assert draws.sigma[0] == pytest.approx(truth.std(), rel=0.08)
    assert draws.values[:, 0].min() >= lower[0]
    (interval,) = draws.highest_density("c", 0.6827)
    assert interval[0] == pytest.approx(lower[0], abs=0.01)
    assert interval[1] == pytest.approx(truth.ppf(0.6827), abs=0.03)


class Hills(Term):
    """Two normal hills in (u, v), correlated, with different weights, widths and places in v."""

    share: float = 0.3
    apart: float = 9.0

    def __call__(self, x):
        u, v = x[0], x[1]
        first = jnp.log(1.0 - self.share) - 0.5 * (u**2 + (v - 0.5 * u) ** 2)
        w = (u - self.apart) / 0.7
        second = jnp.log(self.share / 0.7) - 0.5 * (w**2 + (v - 0.5 * u) ** 2)
        return -2.0 * jnp.logaddexp(first, second) - 2.0 * 0.5

    def residuals(self, x):
        return jnp.sqrt(self(x) + 2.0 * 5.0)[None]

    @property
    def n_data(self):
        return 1


@pytest.fixture(scope="module")
def hills():
    box = np.array([-6.0, -np.inf]), np.array([14.0, np.inf])
    return sample_term(
        Hills(),
        "uv",
        np.zeros(2),
        lower=box[0],
        upper=box[1],
        covariance=np.eye(2),
        barrier="u",
        n_samples=8000,
        seed=1,
    )


def test_two_hills_nine_sigma_apart_have_their_weights(hills):
    assert hills.valid, hills.reason
    assert hills.barrier > 15.0
    u = hills.values[:, 0]
    share = hills.weights @ (u > 5.0) / hills.weights.sum()
    assert share == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / hills.effective[0]))
    high = hills.weights * (u > 5.0)
    mean = high @ u / high.sum()
    assert mean == pytest.approx(9.0, abs=0.1)
    assert np.sqrt(high @ (u - mean) ** 2 / high.sum()) == pytest.approx(0.7, rel=0.1)
    assert hills.mean[1] == pytest.approx(0.5 * hills.mean[0], abs=0.15)
    assert hills.effective[0] < len(u)


def test_two_hills_have_two_intervals(hills):
    both = hills.highest_density("u", 0.9)
    assert len(both) == 2
    assert both[0][1] < 4.0 < 6.0 < both[1][0]
    assert hills.quantile("u", 0.35) == pytest.approx(stats.norm.ppf(0.5), abs=0.12)


def test_without_filling_the_second_hill_is_missed():
    """What the method is for: chains that start in one hill stay there, and agree with each other."""
    draws = sample_term(
        Hills(), "uv", np.zeros(2), lower=np.array([-6.0, -np.inf]), upper=np.array([14.0, np.inf]),
        covariance=np.eye(2), n_samples=2000, seed=1,
    )  # fmt: skip
    assert np.mean(draws.values[:, 0] > 5.0) == 0.0


def test_the_hull_rises_only_and_keeps_every_minimum():
    x = np.linspace(-3, 3, 301)
    chi2 = x**2 + 3 * np.cos(7 * x)
    chi2 -= chi2.min()
    hull = risen(chi2)
    k = int(np.argmin(chi2))
    assert np.all(np.diff(hull[k:]) >= 0)
    assert np.all(np.diff(hull[: k + 1]) <= 0)
    assert np.all(hull <= chi2)
    minima = [i for i in range(1, 300) if chi2[i] < chi2[i - 1] and chi2[i] < chi2[i + 1]]
    assert any(hull[i] == chi2[i] and i != k for i in minima)
    assert Profile(x, x**2).filling() is None
    filling = Profile(x, chi2).filling()
    at = np.array([float(filling(jnp.asarray(u))) for u in x[::10]])
    np.testing.assert_allclose(at, 0.5 * (chi2 - hull)[::10], atol=1e-9)


def test_reweighting_is_another_posterior():
    """A pull of another centre by weights, and honest about what is left of the draws."""
    draws = sample_term(pulls(), "cd", np.array([0.2, -0.1]), n_samples=DRAWS, seed=2)
    x = (draws.values[:, 0] - 0.2) / 0.5
    moved = draws.reweighted(x)
    assert (moved.mean[0] - 0.2) / 0.5 == pytest.approx(1.0, abs=5 / np.sqrt(moved.effective[0]))
    assert moved.effective[0] < draws.effective[0]
    assert moved.valid
    hopeless = draws.reweighted(6.0 * x)
    assert not hopeless.valid
    assert "effective" in hopeless.reason or "R-hat" in hopeless.reason


# ---------------------------------------------------------------- of a spectrum fit

FREE = ("sin2_th12", "dm2_21_eV2", "dm2_31_eV2", "norm_flux")


def small(counts_seed=None, **changes):
    e = load_experiment("juno-2025")
    e = dataclasses.replace(
        e,
        reactor=dataclasses.replace(e.reactor, cores=(e.reactor.cores[0],), unoscillated_per_day=150.9),
        backgrounds=e.backgrounds[:1],
    )
    options = {
        "binning.segments": ((0.8, 8.8, 40),),
        "binning.fine_width_MeV": 0.05,
        "systematics.nonlinearity": False,
        "systematics.signal": {"flux": 0.02},
        "response.nonlinearity": "none",
        "exposure.days": 300.0,
    }
    model, parameters = build_model(override(e, {**options, **changes}))
    parameters = parameters.updated(dm2_31_eV2={"sigma": 2e-5})
    fit = SpectrumFit.asimov(model, parameters, statistic="cnp")
    fit = fit.fixing([n for n in parameters if n not in FREE])
    if counts_seed is None:
        return fit
    counts = np.random.default_rng(counts_seed).poisson(fit.counts).astype(float)
    return dataclasses.replace(fit, counts=counts)


@pytest.fixture(scope="module", params=[3, 4])
def sampled(request):
    fit = lightened(small(request.param))
    return fit, fit.run(), posterior(fit, n_samples=2000, seed=1)


def test_posterior_and_fit_agree(sampled):
    fit, result, draws = sampled
    assert isinstance(draws, Posterior)
    assert draws.valid, draws.reason
    assert draws.names == tuple(n for n in fit.parameters.names if n in FREE)
    for k, name in enumerate(draws.names):
        p = result.parameters[name]
        assert abs(draws.quantile(name, 0.5) - p.value) < 0.3 * p.error, name
        assert draws.sigma[k] == pytest.approx(p.error, rel=0.15), name
    assert draws.chi2.min() >= result.chi2 - 1e-6


def test_draws_agree_with_weighted_draws_of_the_fits_gaussian(sampled):
    """NUTS beside importance sampling, from a Student's t with the covariance of the fit."""
    fit, result, draws = sampled
    order = [result.parameter_order.index(n) for n in draws.names]
    covariance = result.covariance[np.ix_(order, order)]
    centre = np.array([result.parameters[n].value for n in draws.names])
    proposal = stats.multivariate_t(centre, 1.2 * covariance, df=8, seed=np.random.default_rng(1))
    x = proposal.rvs(1500)
    names = fit.parameters.names
    problem = fit.problem()
    at = [names.index(n) for n in draws.names]
    whole = np.array([fit.parameters[n].value for n in names])
    log = np.empty(len(x))
    for i, row in enumerate(x):
        whole[at] = row
        log[i] = -0.5 * problem.value(whole) - proposal.logpdf(row)
    w = np.exp(log - log.max())
    w /= w.sum()
    mean = w @ x
    size = 1.0 / np.sum(w**2)
    assert size > 500
    sigma = np.sqrt(np.diag(covariance))
    error = np.sqrt(1.0 / size + 1.0 / draws.effective)
    assert np.all(np.abs(draws.mean - mean) / sigma < 4.5 * error)
    spread = np.sqrt(w @ (x - mean) ** 2)
    np.testing.assert_allclose(draws.sigma, spread, rtol=0.15)


def test_what_the_determinant_is(sampled):
    """ln of the ratio of variances by hand, and small weights for it; Poisson's lacks nothing."""
    fit, result, draws = sampled
    at_draws = determinants(fit, draws, result)
    names = fit.parameters.names
    x = np.array([fit.parameters[n].value for n in names])
    x[[names.index(n) for n in draws.names]] = draws.values[7]
    mu, shape = (np.asarray(a) for a in fit.model(x))
    n = fit.counts
    statistical = np.where(n > 0, 3.0 / (1.0 / np.maximum(n, 1e-9) + 2.0 / mu), mu / 2)
    assert at_draws[7] == pytest.approx(-0.5 * np.log1p(shape / statistical).sum(), rel=1e-9)
    assert np.ptp(at_draws) < 3.0
    moved = draws.reweighted(at_draws)
    assert np.all(np.abs(moved.mean - draws.mean) < 0.5 * draws.sigma)
    assert np.ptp(angles_and_logarithms(draws, result)) > 0
    bare = dataclasses.replace(
        fit, statistic="poisson", model=dataclasses.replace(fit.model, shape_uncertainties=False)
    )
    assert log_determinant(bare) is None


@pytest.mark.parametrize("statistic", ["barlow-beeston", "pearson", "neyman"])
def test_determinants_of_other_statistics(statistic):
    """That of Barlow and Beeston's against the integral over the unknown expectation of every bin."""
    fit = dataclasses.replace(small(3), statistic=statistic)
    counts = np.maximum(fit.counts, 3.0)
    fit = dataclasses.replace(fit, counts=counts)
    function = log_determinant(fit)
    base = np.array([p.value for p in fit.parameters.values()])
    other = base.copy()
    other[fit.parameters.names.index("norm_flux")] = 0.05
    got = float(function(jnp.asarray(other)) - function(jnp.asarray(base)))
    values = []
    for x in (base, other):
        mu, v = (np.asarray(a) for a in fit.model(x))
        if statistic == "barlow-beeston":
            b = mu + np.sqrt(v) * np.linspace(-8, 8, 801)[:, None]
            density = stats.poisson.pmf(counts, np.maximum(b, 1e-12)) * stats.norm.pdf(b, mu, np.sqrt(v))
            whole = np.trapezoid(density, dx=1.0, axis=0) * np.sqrt(v) * 16 / 800
            cost = np.asarray(function.cost.residuals(jnp.asarray(mu), jnp.asarray(v))) ** 2
            values.append(np.sum(np.log(whole) + 0.5 * cost))
        else:
            variance = (mu if statistic == "pearson" else counts) + v
            values.append(-0.5 * np.sum(np.log(variance)))
    assert got == pytest.approx(values[1] - values[0], abs=0.02 * abs(values[1] - values[0]) + 1e-3)


def test_bad_input_is_refused(sampled):
    fit, _, draws = sampled
    with pytest.raises(NuebarError, match="no free parameter"):
        draws.index("nothing")
    with pytest.raises(NuebarError, match="between 0 and 1"):
        draws.highest_density(draws.names[0], 1.5)
    with pytest.raises(NuebarError, match="at least one free"):
        posterior(fit.fixing(list(fit.parameters.free)))
