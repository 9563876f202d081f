"""Laws of the cost functions: identities with the definitions, derivatives, limits, additivity, refusals."""

import decimal
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from nuebar.errors import NuebarError
from nuebar.stats.likelihood import (
    BarlowBeestonCost,
    Bound,
    CostSum,
    CovarianceCost,
    GaussianPulls,
    NeymanCost,
    NeymanPearsonCost,
    PearsonCost,
    PoissonCost,
)

RNG = np.random.default_rng(20250826)
MU = {
    "few": RNG.uniform(0.2, 4.0, 30),
    "spectrum": RNG.uniform(20.0, 900.0, 30),
    "many": RNG.uniform(1e5, 1e6, 30),
}
COUNTS = {name: RNG.poisson(mu).astype(float) for name, mu in MU.items()}
CHI_SQUARES = [NeymanPearsonCost, PearsonCost, NeymanCost]


def covariance_cost(counts):
    n = len(counts)
    shape = np.exp(-np.abs(np.arange(n)[:, None] - np.arange(n)[None, :]) / 3.0)
    return CovarianceCost(counts, shape * np.sqrt(np.outer(counts + 1.0, counts + 1.0)))


CASES = [
    pytest.param(make, name, id=f"{make.__name__}-{name}")
    for make in (PoissonCost, BarlowBeestonCost, NeymanPearsonCost, PearsonCost, NeymanCost, covariance_cost)
    for name in MU
    if not (make is NeymanCost and name == "few")  # refuses empty bins
]
EXTRA_CASES = [case for case in CASES if case.values[0] is not PoissonCost]


@jax.jit
def value_of(cost, mu, extra=None):
    return cost(mu, extra)


@jax.jit
def residuals_of(cost, mu, extra=None):
    return cost.residuals(mu, extra)


@jax.jit
def gradient_of(cost, mu, extra=None):
    return jax.grad(cost)(mu, extra)


@jax.jit
def hessian_of(cost, mu, extra=None):
    return jax.hessian(cost)(mu, extra)


@jax.jit
def jacobian_of(cost, mu, extra=None):
    return jax.jacfwd(cost.residuals)(mu, extra)


def with_extra(mu):
    return 0.3 + (0.05 * mu) ** 2


def derivative(function, x, step):
    """Central differences of fourth order along each coordinate."""
    columns = []
    for i in range(len(x)):
        h = np.zeros(len(x))
        h[i] = step * max(abs(x[i]), 1.0)
        near, far = function(x + h) - function(x - h), function(x + 2 * h) - function(x - 2 * h)
        columns.append((8 * np.asarray(near) - np.asarray(far)) / (12 * h[i]))
    return np.array(columns)


@pytest.mark.parametrize(("make", "name"), CASES)
def test_residuals_square_to_the_cost(make, name):
    cost, mu = make(COUNTS[name]), jnp.asarray(MU[name])
    residuals = np.asarray(residuals_of(cost, mu))
    assert residuals.shape == (cost.n_data,) == COUNTS[name].shape
    np.testing.assert_allclose(residuals @ residuals, value_of(cost, mu), rtol=1e-13)


@pytest.mark.parametrize(("make", "name"), EXTRA_CASES)
def test_residuals_square_to_the_cost_with_a_variance_that_depends_on_mu(make, name):
    cost, mu = make(COUNTS[name]), jnp.asarray(MU[name])
    residuals = np.asarray(residuals_of(cost, mu, with_extra(mu)))
    np.testing.assert_allclose(residuals @ residuals, value_of(cost, mu, with_extra(mu)), rtol=1e-13)
    assert value_of(cost, mu, with_extra(mu)) < value_of(cost, mu)
    np.testing.assert_allclose(cost.variance(mu, with_extra(mu)), cost.variance(mu) + with_extra(mu))


@pytest.mark.parametrize(("make", "name"), [case for case in CASES if case.values[0] is not covariance_cost])
def test_residuals_are_data_minus_expectation(make, name):
    sign = np.sign(residuals_of(make(COUNTS[name]), jnp.asarray(MU[name])))
    np.testing.assert_array_equal(sign, np.sign(COUNTS[name] - MU[name]))


@pytest.mark.parametrize(("make", "name"), CASES)
def test_gradient_and_hessian_match_finite_differences(make, name):
    cost, mu = make(COUNTS[name]), MU[name]
    for exact, lower_order in ((gradient_of(cost, mu), value_of), (hessian_of(cost, mu), gradient_of)):
        numeric = derivative(lambda m, f=lower_order: f(cost, m), mu, 1e-3)
        np.testing.assert_allclose(exact, numeric, rtol=1e-6, atol=1e-6 * np.abs(exact).max())


@pytest.mark.parametrize(("make", "name"), CASES)
def test_jacobian_of_the_residuals_gives_the_gradient(make, name):
    cost, mu = make(COUNTS[name]), jnp.asarray(MU[name])
    gradient = np.asarray(gradient_of(cost, mu))
    by_residuals = 2 * np.asarray(jacobian_of(cost, mu)).T @ np.asarray(residuals_of(cost, mu))
    np.testing.assert_allclose(by_residuals, gradient, rtol=1e-9, atol=1e-9 * np.abs(gradient).max())


@pytest.mark.parametrize("make", [BarlowBeestonCost, *CHI_SQUARES])
def test_gradient_with_an_extra_variance_that_depends_on_mu(make):
    cost, mu = make(COUNTS["spectrum"]), MU["spectrum"]
    function = jax.jit(lambda m: cost(m, with_extra(m)))
    np.testing.assert_allclose(jax.jit(jax.grad(function))(mu), derivative(function, mu, 1e-3), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", MU)
def test_poisson_is_minus_two_log_likelihood_up_to_the_saturated_model(name):
    n, mu = COUNTS[name], MU[name]
    expected = -2 * np.sum(stats.poisson.logpmf(n, mu) - stats.poisson.logpmf(n, n))
    np.testing.assert_allclose(value_of(PoissonCost(n), mu), expected, rtol=1e-9, atol=1e-7)


def test_poisson_keeps_its_precision_where_the_definition_cancels():
    t = np.concatenate([-np.logspace(-15, -0.0005, 300), np.logspace(-15, 4, 300)])
    n = np.full(t.size, 7.0)
    mu = np.longdouble(n) * (1 + np.longdouble(t))
    mu = np.asarray(mu, float)
    t_exact = (np.longdouble(mu) - 7) / 7
    s = t_exact / (2 + t_exact)
    # t - ln(1+t) in extended precision, by the artanh series where the logarithm cancels
    small = 2 * s**2 / (1 - s) - 2 * s**3 * sum(s ** (2 * k) / (2 * k + 3) for k in range(12))
    deviance = 14 * np.where(np.abs(t_exact) < 0.01, small, t_exact - np.log1p(t_exact))
    expected = np.asarray(-np.sign(t_exact) * np.sqrt(deviance), float)
    residuals = np.asarray(residuals_of(PoissonCost(n), mu))
    np.testing.assert_allclose(residuals, expected, rtol=1e-13)  # XLA's log1p errs by 3e-14 near t = -0.4
    near = np.abs(t_exact) < 0.1
    np.testing.assert_allclose(residuals[near], expected[near], rtol=2e-15)


@pytest.mark.parametrize("n", [1.0, 40.0, 1e5])
def test_poisson_is_smooth_where_the_expectation_meets_the_count(n):
    cost, mu = PoissonCost([n, n]), jnp.asarray([n, n])
    np.testing.assert_array_equal([value_of(cost, mu), *residuals_of(cost, mu), *gradient_of(cost, mu)], 0)
    # 2 (mu - n - n ln(mu/n)) has the derivatives 2 (1 - n/mu) and 2 n/mu^2
    np.testing.assert_allclose(hessian_of(cost, mu), np.eye(2) * 2 / n, rtol=1e-14)
    np.testing.assert_allclose(jacobian_of(cost, mu), -np.eye(2) / np.sqrt(n), rtol=1e-14)


@pytest.mark.parametrize("name", MU)
def test_neyman_pearson_is_its_definition(name):
    """Ji et al., arXiv:1903.07185: (Neyman + 2 Pearson)/3 where n > 0, and 2 mu where n = 0."""
    n, mu = COUNTS[name], MU[name]
    filled = n > 0
    neyman_and_pearson = ((n - mu) ** 2)[filled] * (1 / n[filled] + 2 / mu[filled]) / 3
    np.testing.assert_allclose(
        value_of(NeymanPearsonCost(n), mu), neyman_and_pearson.sum() + 2 * mu[~filled].sum(), rtol=1e-13
    )
    variance = np.where(filled, 3 / (1 / np.where(filled, n, 1) + 2 / mu), mu / 2)
    np.testing.assert_allclose(NeymanPearsonCost(n).variance(jnp.asarray(mu)), variance, rtol=1e-14)


def test_the_few_table_has_empty_bins():
    assert (COUNTS["few"] == 0).sum() > 2


@pytest.mark.parametrize(
    ("make", "best"),
    [
        (PoissonCost, lambda n: n.mean()),
        (PearsonCost, lambda n: np.sqrt((n**2).mean())),
        (NeymanCost, lambda n: 1 / (1 / n).mean()),
        (NeymanPearsonCost, lambda n: ((n**2).sum() / (1 / n).sum()) ** (1 / 3)),
    ],
)
def test_best_constant_is_the_known_mean(make, best):
    """d/dmu = 0 solved by hand; the order Neyman < CNP < Pearson is the bias that the paper is about."""
    n = RNG.poisson(30.0, 50).astype(float)
    cost = make(n)
    first = jax.grad(lambda mu: cost(jnp.full(50, mu)))
    slope, curvature = jax.jit(first)(best(n)), jax.jit(jax.grad(first))(best(n))
    assert abs(slope / curvature) < 1e-12


@pytest.mark.parametrize("make", [PoissonCost, BarlowBeestonCost, NeymanPearsonCost, PearsonCost])
@pytest.mark.parametrize("mu", [0.0, 1e-12, 0.3, 20.0])
def test_empty_bin(make, mu):
    """An empty bin costs 2 mu (Pearson: mu), a straight line down to mu = 0."""
    slope = 1.0 if make is PearsonCost else 2.0
    cost, at = make([0.0, 3.0]), jnp.asarray([mu, 3.0])
    np.testing.assert_allclose(value_of(cost, at), slope * mu, rtol=1e-14, atol=1e-50)
    np.testing.assert_allclose(gradient_of(cost, at)[0], slope, rtol=1e-14)
    np.testing.assert_allclose(hessian_of(cost, at)[0, 0], 0.0, atol=1e-14)
    np.testing.assert_allclose(residuals_of(cost, at)[0], -np.sqrt(slope * mu), rtol=1e-14, atol=1e-29)
    assert np.isfinite(jacobian_of(cost, at)).all()


@pytest.mark.parametrize("make", [NeymanPearsonCost, PearsonCost])
@pytest.mark.parametrize("mu", [0.0, 0.7])
def test_empty_bin_with_extra_variance(make, mu):
    c, extra = (1.0 if make is PearsonCost else 0.5), 0.4
    cost, at = make([0.0]), jnp.asarray([mu])
    np.testing.assert_allclose(value_of(cost, at, extra), mu**2 / (c * mu + extra), rtol=1e-14, atol=1e-50)
    residual = residuals_of(cost, at, extra)[0]
    np.testing.assert_allclose(residual, -mu / np.sqrt(c * mu + extra), rtol=1e-14, atol=1e-50)
    second = 2 * extra**2 / (c * mu + extra) ** 3
    np.testing.assert_allclose(hessian_of(cost, at, extra)[0, 0], second, rtol=1e-13)


@pytest.mark.parametrize("make", [PoissonCost, BarlowBeestonCost, NeymanPearsonCost, PearsonCost])
@pytest.mark.parametrize("bad", [-1e-9, -5.0])
@pytest.mark.parametrize("where", [0, 1])
def test_negative_expectation_costs_infinity(make, bad, where):
    cost, mu = make([0.0, 4.0]), jnp.asarray([1.0, 4.0]).at[where].set(bad)
    assert value_of(cost, mu) == np.inf
    assert residuals_of(cost, mu)[where] == np.inf
    assert np.isfinite(gradient_of(cost, mu)).all()


@pytest.mark.parametrize("make", [PoissonCost, BarlowBeestonCost, NeymanPearsonCost, PearsonCost, NeymanCost])
def test_nan_is_not_hidden(make):
    cost, mu = make([2.0, 4.0]), jnp.asarray([jnp.nan, 4.0])
    assert np.isnan(value_of(cost, mu))
    assert np.isnan(residuals_of(cost, mu)[0])


@pytest.mark.parametrize("make", [PoissonCost, BarlowBeestonCost, NeymanPearsonCost])
def test_impossible_zero_expectation(make):
    assert value_of(make([3.0, 3.0]), jnp.zeros(2)) == np.inf


def test_cost_at_the_truth_is_chi_square_distributed():
    """Mean n and variance 2n for large expectations, within five standard errors of 4000 toys."""
    n_bins, n_toys = 20, 4000
    mu = np.full(n_bins, 2000.0)
    toys = jnp.asarray(RNG.poisson(mu, (n_toys, n_bins)).astype(float))
    for make in (PoissonCost, BarlowBeestonCost, NeymanPearsonCost, PearsonCost):
        costs = np.asarray(jax.jit(jax.vmap(lambda n, make=make: make(n)(mu)))(toys))
        assert abs(costs.mean() - n_bins) < 5 * np.sqrt(2 * n_bins / n_toys)
        assert abs(costs.var() / (2 * n_bins) - 1) < 5 * np.sqrt((2 + 12 / n_bins) / n_toys)


# Poisson with an uncertain expectation --------------------------------------------------------------------------------

GRID = np.array(
    list(
        itertools.product(
            [0.0, 0.3, 1.0, 12.0, 400.0, 1e6],
            [1e-6, 0.02, 1.0, 11.0, 13.0, 500.0, 1e6],
            [0.0, 1e-200, 1e-12, 1e-3, 1.0, 13.0, 400.0, 1e6, 1e12],
        )
    )
)
"""n, μ and V of bins."""


@jax.jit
def slopes_of(cost, mu, extra):
    """Derivatives by μ and V."""
    return jax.grad(cost, argnums=(0, 1))(mu, extra)


@jax.jit
def bends_of(cost, mu, extra=None):
    """Second derivatives by each μ: bins do not mix."""
    return jax.jvp(lambda m: jax.grad(cost)(m, extra), (mu,), (jnp.ones_like(mu),))[1]


@jax.jit
def profiled_of(cost, mu, extra):
    return cost.profiled(mu, extra)


def exact(n, mu, v):
    """Cost of one bin by its definition, in 60 digits."""
    with decimal.localcontext() as context:
        context.prec = 60
        n, mu, v = (decimal.Decimal(float(x)) for x in (n, mu, v))
        if n == 0:
            return float(2 * mu - v if mu > v else mu**2 / v)
        b = ((mu - v) + ((mu - v) ** 2 + 4 * n * v).sqrt()) / 2
        return float(2 * (b - n + n * (n / b).ln()) + v * (n / b - 1) ** 2)


def test_barlow_beeston_is_its_definition_to_the_last_digits():
    n, mu, extra = GRID.T
    expected = np.array([exact(*point) for point in GRID])
    residuals = np.asarray(residuals_of(BarlowBeestonCost(n), mu, extra))
    np.testing.assert_allclose(residuals**2, expected, rtol=3e-14, atol=1e-300)
    np.testing.assert_array_equal(np.sign(residuals), np.sign(n - mu))
    np.testing.assert_allclose(value_of(BarlowBeestonCost(n), mu, extra), expected.sum(), rtol=1e-14)


def test_barlow_beeston_is_the_minimum_over_the_true_expectation():
    points = [(0.0, 4.0), (0.0, 30.0), (2.0, 7.0), (15.0, 15.0), (15.0, 11.0), (90.0, 40.0)]
    n, mu, v = np.array([(*point, v) for point in points for v in (1e-3, 0.5, 12.0, 300.0)]).T
    costs, best = np.empty(n.size), np.empty(n.size)
    for k, (count, centre, variance) in enumerate(zip(n, mu, v, strict=True)):

        def cost(b, count=count, centre=centre, variance=variance):
            return 2 * (b - count + (count and count * np.log(count / b))) + (b - centre) ** 2 / variance

        found = optimize.minimize_scalar(cost, bounds=(0, count + centre), method="bounded", options={"xatol": 1e-10})
        best[k] = found.x if count else min((found.x, 0.0), key=cost)
        costs[k] = cost(best[k])
    np.testing.assert_allclose(residuals_of(BarlowBeestonCost(n), mu, v) ** 2, costs, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(profiled_of(BarlowBeestonCost(n), mu, v), best, rtol=1e-4, atol=1e-6)


def test_the_slopes_of_barlow_beeston_are_those_at_fixed_true_expectation():
    """Envelope theorem: what the profiled b moves does not count."""
    n, mu, extra = GRID[GRID[:, 0] > 0].T
    b = np.asarray(profiled_of(BarlowBeestonCost(n), mu, extra))
    by_mu, by_v = (np.asarray(slope) for slope in slopes_of(BarlowBeestonCost(n), mu, extra))
    off = n / b - 1
    safe = np.abs(off) > 1e-6  # elsewhere this formula, not the code, has lost its digits
    np.testing.assert_allclose(by_mu[safe], -2 * off[safe], rtol=1e-9)
    np.testing.assert_allclose(by_v[safe], -(off[safe] ** 2), rtol=1e-9)
    np.testing.assert_allclose(by_mu[~safe], 0.0, atol=2e-6)
    np.testing.assert_allclose(by_v[~safe], 0.0, atol=1e-12)


def test_the_residuals_of_barlow_beeston_have_the_slopes_of_the_cost():
    """Fits work with the residuals: 2 r ∂r/∂μ is the gradient, also where counts, expectations or variances vanish."""
    vanishing = itertools.product([0.0, 2.0, 1e5], [0.0, 1e-50, 1e-12], [1e-30, 1e-3, 1.0, 1e9])
    n, mu, extra = np.concatenate([GRID, list(vanishing)]).T
    cost = BarlowBeestonCost(n)
    r, slope = jax.jvp(lambda m: residuals_of(cost, m, extra), (mu,), (np.ones_like(mu),))
    np.testing.assert_allclose(2 * r * slope, gradient_of(cost, mu, extra), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("v", [1e-9, 0.4, 1.0, 30.0, 1e5])
def test_derivatives_of_barlow_beeston_match_finite_differences(v):
    n, mu = np.array([0.0, 0.0, 0.2, 3.0, 12.0, 12.0, 500.0]), np.array([0.8, 40.0, 1.1, 9.0, 11.9, 30.0, 480.0])
    cost, extra = BarlowBeestonCost(n), np.full(n.size, v)
    assert not np.any((n == 0) & (np.abs(mu - extra) < 0.1))  # the second derivative jumps there
    for exactly, lower in ((gradient_of, value_of), (hessian_of, gradient_of)):
        numeric = derivative(lambda m, f=lower: f(cost, m, extra), mu, 1e-3)
        np.testing.assert_allclose(exactly(cost, mu, extra), numeric, rtol=1e-6, atol=1e-8)
    if v > 1e-3:  # the step must be smaller than V
        numeric = derivative(lambda x: value_of(cost, mu, x), extra, 1e-3)
        np.testing.assert_allclose(slopes_of(cost, mu, extra)[1], numeric, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("v", [None, 0.0, 1e-300])
def test_barlow_beeston_without_variance_is_poisson(v):
    """Value, gradient, curvature and residuals; down to μ = 10⁻⁵⁰, where the likelihood is as good as impossible."""
    n, mu = np.concatenate([np.unique(GRID[:, :2], axis=0), [[3.0, 1e-50], [0.0, 1e-50], [7.0, 7.0]]]).T
    extra = None if v is None else np.full(n.size, v)
    ours, poisson = BarlowBeestonCost(n), PoissonCost(n)
    np.testing.assert_allclose(value_of(ours, mu, extra), value_of(poisson, mu), rtol=1e-14)
    np.testing.assert_allclose(residuals_of(ours, mu, extra), residuals_of(poisson, mu), rtol=1e-14, atol=1e-29)
    np.testing.assert_allclose(gradient_of(ours, mu, extra), gradient_of(poisson, mu), rtol=1e-12)
    np.testing.assert_allclose(bends_of(ours, mu, extra), bends_of(poisson, mu), rtol=1e-7, atol=1e-16)


def test_a_variance_makes_a_vanishing_expectation_possible():
    points = itertools.product([0.0, 2.0, 1e5], [0.0, 1e-50, 1e-12], [1e-30, 1e-3, 1.0, 1e9])
    n, mu, extra = np.array(list(points)).T
    for found in (value_of, residuals_of, gradient_of, bends_of, slopes_of):
        assert np.all(np.isfinite(found(BarlowBeestonCost(n), mu, extra))), found


@pytest.mark.parametrize("extra", [1.0, 1e4, 1e8])
def test_barlow_beeston_becomes_a_chi_square_for_many_counts(extra):
    """(n − μ)²/(μ + V), up to the skewness of a Poisson number: the relative difference is of order 1/√μ."""
    for mu in (1e6, 1e10):
        n = mu + np.array([-2.0, -0.3, 0.7, 3.0]) * np.sqrt(mu + extra)
        at = jnp.full(4, mu)
        ours, pearson = (residuals_of(make(n), at, extra) for make in (BarlowBeestonCost, PearsonCost))
        np.testing.assert_allclose(ours, pearson, rtol=2.0 / np.sqrt(mu))
        np.testing.assert_allclose(BarlowBeestonCost(n).variance(at, extra), mu + extra)


def test_barlow_beeston_with_a_large_variance_forgets_the_expectation():
    """V → ∞: (n − μ)²/V, no information."""
    cost, mu = BarlowBeestonCost(COUNTS["few"]), jnp.asarray(MU["few"])
    for extra in (1e6, 1e12, 1e100):
        expected = ((COUNTS["few"] - MU["few"]) ** 2).sum() / extra
        np.testing.assert_allclose(value_of(cost, mu, extra), expected, rtol=20 / extra + 1e-14)


@pytest.mark.parametrize("factor", [1e-3, 7.0, 1e8])
def test_barlow_beeston_scales_with_the_unit_of_counts(factor):
    """(n, μ, V) → (a n, a μ, a V) multiplies the cost by a, and b with it; the slope by μ stays."""
    n, mu, extra = COUNTS["few"], jnp.asarray(MU["few"]), np.linspace(0.0, 9.0, 30)
    one, many = BarlowBeestonCost(n), BarlowBeestonCost(factor * n)
    scaled = factor * mu, factor * extra
    np.testing.assert_allclose(value_of(many, *scaled), factor * value_of(one, mu, extra), rtol=1e-13)
    np.testing.assert_allclose(gradient_of(many, *scaled), gradient_of(one, mu, extra), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(profiled_of(many, *scaled), factor * profiled_of(one, mu, extra), rtol=1e-12)


def test_barlow_beeston_in_one_program_for_many_data():
    n, mu = RNG.poisson(3.0, (20, 30)).astype(float), jnp.asarray(MU["few"])
    together = jax.jit(jax.vmap(lambda c: BarlowBeestonCost(c)(mu, with_extra(mu))))(n)
    one_by_one = [value_of(BarlowBeestonCost(c), mu, with_extra(mu)) for c in n]
    np.testing.assert_allclose(together, one_by_one, rtol=1e-14)


def test_a_nan_variance_is_not_hidden():
    cost = BarlowBeestonCost([0.0, 4.0])
    for extra in ([np.nan, 1.0], [1.0, np.nan]):
        assert np.isnan(value_of(cost, jnp.asarray([2.0, 4.0]), jnp.asarray(extra)))


def fitted_norms(make, counts, mu, sigma):
    """Best norm and cost of every row, where mu and a variance (sigma mu)² follow the norm: Newton's iterations."""

    @jax.jit
    @jax.vmap
    def fit(n):
        def slope(norm):
            return jax.grad(lambda a: make(n)(a * mu, (sigma * a * mu) ** 2))(norm)

        def step(_, norm):
            value, bend = jax.jvp(slope, (norm,), (1.0,))
            return norm - value / bend

        norm = jax.lax.fori_loop(0, 7, step, 1.0)
        return norm, make(n)(norm * mu, (sigma * norm * mu) ** 2), slope(norm)

    norms, costs, slopes = (np.asarray(x) for x in fit(counts))
    assert np.all(np.abs(slopes) < 1e-7)
    return norms, costs


def test_ten_events_a_bin_do_not_bias_barlow_beeston():
    """Poisson toys whose bins vary by 5 %: the norm and the goodness of fit are right, those of the χ² are not."""
    random, bins, toys = np.random.default_rng(11), 150, 2000
    mu, sigma = np.full(bins, 10.0), 0.05
    counts = random.poisson(mu * (1 + sigma * random.standard_normal((toys, bins)))).astype(float)
    bias, excess = {}, {}
    for make in (BarlowBeestonCost, NeymanPearsonCost):
        norms, costs = fitted_norms(make, counts, mu, sigma)
        bias[make] = (norms.mean() - 1) / norms.std()  # its error is 1/√toys = 0.022
        excess[make] = costs.mean() / (bins - 1) - 1  # error 0.003
    assert abs(bias[BarlowBeestonCost]) < 0.1
    assert bias[NeymanPearsonCost] < -0.12
    assert abs(excess[BarlowBeestonCost]) < 0.035
    assert excess[NeymanPearsonCost] > 0.07


@pytest.mark.parametrize("extra", [None, 0.7, np.linspace(0.1, 2.0, 30)])
def test_covariance_cost_is_its_definition(extra):
    cost, mu = covariance_cost(COUNTS["few"]), MU["few"]
    matrix = np.asarray(cost.covariance) + np.diag(np.broadcast_to(0.0 if extra is None else extra, 30))
    difference = COUNTS["few"] - mu
    np.testing.assert_allclose(
        cost(jnp.asarray(mu), extra), difference @ np.linalg.solve(matrix, difference), rtol=1e-12
    )
    np.testing.assert_allclose(cost.variance(jnp.asarray(mu), extra), np.diag(matrix), rtol=1e-14)


def test_diagonal_covariance_is_neyman():
    n, mu = COUNTS["spectrum"], jnp.asarray(MU["spectrum"])
    diagonal = CovarianceCost(n, np.diag(n))
    np.testing.assert_allclose(diagonal(mu), NeymanCost(n)(mu), rtol=1e-13)
    np.testing.assert_allclose(diagonal.residuals(mu), NeymanCost(n).residuals(mu), rtol=1e-13)


def test_covariance_cost_takes_negative_data():
    assert CovarianceCost([-2.0], [[4.0]])(jnp.zeros(1)) == 1.0


def test_pulls_by_sigmas_by_covariance_and_by_index():
    centres, sigmas, x = np.array([1.0, 2.0]), np.array([0.5, 4.0]), jnp.asarray([9.0, 4.0, 7.0, 2.0])
    by_sigmas = GaussianPulls(centres, sigmas=sigmas, indices=(3, 1))
    by_covariance = GaussianPulls(centres, covariance=np.diag(sigmas**2), indices=(3, 1))
    np.testing.assert_allclose(by_sigmas.residuals(x), [2.0, 0.5])
    np.testing.assert_allclose(by_covariance.residuals(x), [2.0, 0.5])
    assert by_sigmas(x) == by_sigmas.value(x) == 4.25
    matrix = np.array([[0.25, -1.0], [-1.0, 16.0]])
    correlated = GaussianPulls(centres, covariance=matrix)
    shift = np.array([1.0, 2.0])
    np.testing.assert_allclose(correlated(jnp.asarray(centres + shift)), shift @ np.linalg.solve(matrix, shift))
    np.testing.assert_allclose(
        jnp.sum(correlated.residuals(jnp.asarray(centres + shift)) ** 2),
        correlated(jnp.asarray(centres + shift)),
    )


def line(x):
    return x[0] + x[1] * jnp.arange(30.0)


def line_with_variance(x):
    return line(x), (0.1 * line(x)) ** 2


def test_terms_add():
    x = jnp.asarray([3.0, 0.2])
    a = Bound(PoissonCost(COUNTS["few"]), line)
    b = Bound(NeymanPearsonCost(COUNTS["few"]), line_with_variance)
    c = GaussianPulls([0.1], sigmas=[0.05], indices=(1,))
    total = a + b + c
    np.testing.assert_allclose(total(x), a(x) + b(x) + c(x), rtol=1e-15)
    np.testing.assert_array_equal(total.residuals(x), jnp.concatenate([a.residuals(x), b.residuals(x), c.residuals(x)]))
    assert total.n_data == 61 == total.residuals(x).size
    assert total.terms == (a, b, c) == (a + (b + c)).terms == sum([a, b, c]).terms
    np.testing.assert_allclose(b(x), NeymanPearsonCost(COUNTS["few"])(line(x), (0.1 * line(x)) ** 2), rtol=1e-15)
    with pytest.raises(TypeError):
        a + 1.0


def test_records_are_pytrees_and_other_data_compile_nothing():
    traces = []

    @eqx.filter_jit
    def value(term, x):
        traces.append(1)
        return term(x)

    x = jnp.asarray([3.0, 0.2])
    for counts in (COUNTS["few"], COUNTS["few"] + 1.0):
        term = Bound(PoissonCost(counts), line) + GaussianPulls([0.1], sigmas=[0.05], indices=(1,))
        np.testing.assert_allclose(value(term, x), term(x), rtol=1e-14)
    assert len(traces) == 1


def test_costs_are_frozen():
    with pytest.raises(AttributeError):
        PoissonCost([1.0]).counts = jnp.ones(1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PoissonCost([1.0, -3.0]), r"counts must be finite and at least 0, got -3.0 at \[1\]"),
        (lambda: PoissonCost([1.0, np.nan]), r"got nan at \[1\]"),
        (lambda: NeymanPearsonCost([np.inf]), r"got inf at \[0\]"),
        (lambda: PoissonCost([]), "not empty"),
        (lambda: PoissonCost(4.0), r"1-dimensional.*shape \(\)"),
        (lambda: PoissonCost("ab"), "array of numbers, got str"),
        (lambda: NeymanCost([2.0, 0.0]), r"empty bin at \[1\]"),
        (lambda: CovarianceCost([1.0, 2.0], [[1.0]]), r"shape \(2, 2\) for 2 bins, got \(1, 1\)"),
        (lambda: CovarianceCost([1.0, 2.0], [[1.0, 2.0], [2.0, 1.0]]), "lowest eigenvalue of -1:"),
        (lambda: CovarianceCost([1.0, 2.0], [[1.0, 0.5], [0.4, 1.0]]), "symmetric.* 0.1"),
        (lambda: CovarianceCost([1.0], [[np.nan]]), r"covariance must be finite, got nan at \[0, 0\]"),
        (lambda: GaussianPulls([1.0]), "either sigmas or covariance, got neither"),
        (lambda: GaussianPulls([1.0], sigmas=[1.0], covariance=[[1.0]]), "got both"),
        (lambda: GaussianPulls([1.0], sigmas=[0.0]), "sigmas must be finite and above 0"),
        (lambda: GaussianPulls([1.0], sigmas=[1.0, 2.0]), "for 1 centres"),
        (lambda: GaussianPulls([1.0, 2.0], sigmas=[1.0, 2.0], indices=(3, 3)), "2 different parameters"),
        (lambda: GaussianPulls([1.0], sigmas=[1.0], indices=(4,))(jnp.ones(3)), "vector of 5 parameters"),
        (lambda: GaussianPulls([1.0], sigmas=[1.0])(jnp.ones(3)), "give indices"),
        (lambda: GaussianPulls([1.0], sigmas=[1.0], indices=(-1,)), "at least 0"),
        (lambda: CostSum(()), "at least one term"),
        (lambda: PoissonCost([1.0, 2.0])(jnp.ones(3)), r"each of the 2 bins of the data, got shape \(3,\)"),
        (lambda: PoissonCost([1.0])(jnp.ones(1, jnp.float32)), "float64, got float32"),
        (lambda: PoissonCost([1.0])(jnp.ones(1), 0.1), "takes no extra variance"),
        (
            lambda: PearsonCost([1.0])(jnp.ones(1), jnp.ones(2)),
            "extra_variance must be a scalar or have shape",
        ),
        (lambda: BarlowBeestonCost([1.0])(jnp.ones(1), jnp.ones(2)), r"or have shape \(1,\), got \(2,\)"),
        (lambda: BarlowBeestonCost([-1.0]), "at least 0, got -1.0"),
    ],
)
def test_wrong_input_is_refused_in_a_sentence(make, words):
    with pytest.raises(NuebarError, match=words):
        make()


@pytest.mark.parametrize("make", [PoissonCost, BarlowBeestonCost, NeymanPearsonCost, PearsonCost, NeymanCost])
def test_single_precision_is_refused_with_the_line_to_add(make):
    with jax.enable_x64(False), pytest.raises(NuebarError, match=r"JAX_ENABLE_X64=1.*jax_enable_x64"):
        make([1.0])
