"""Cost, derivatives and descent of a problem: one program, exact derivatives, nothing compiled twice."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nuebar.stats.gauss_newton import descend, gauss_newton
from nuebar.stats.likelihood import (
    Bound,
    CovarianceCost,
    GaussianPulls,
    NeymanPearsonCost,
    PearsonCost,
    PoissonCost,
    Term,
)
from nuebar.stats.problem import Problem

RNG = np.random.default_rng(7)
E_MeV = jnp.linspace(2.0, 8.0, 40)
TRACES = []


def bent(x):
    """A spectrum that is bent in every parameter; the fourth acts through a product."""
    flux = 300.0 * jnp.exp(-(((E_MeV - 3.6 - 0.1 * x[2]) / 1.8) ** 2)) * (1.0 + 0.05 * x[2] * x[3])
    return flux * (1.0 - x[0] * jnp.sin(1267.0 * x[1] * 52.5 / E_MeV) ** 2) + 5.0


class Scaled(eqx.Module):
    """The same, scaled by an array, which is an argument of the program."""

    factor: jax.Array

    def __call__(self, x):
        TRACES.append(1)
        return self.factor * bent(x)


X = np.array([0.8, 7.5e-5, 0.3, -0.4])
COUNTS = RNG.poisson(np.asarray(bent(jnp.asarray(X)))).astype(float)
PULLS = GaussianPulls(np.zeros(2), sigmas=np.ones(2), indices=(2, 3))
COVARIANCE = np.diag(COUNTS + 1.0) + 20.0
TERMS = {
    "poisson": Bound(PoissonCost(COUNTS), bent) + PULLS,
    "cnp": Bound(NeymanPearsonCost(COUNTS), bent) + PULLS,
    "pearson": Bound(PearsonCost(COUNTS), bent) + PULLS,
    "covariance": Bound(CovarianceCost(COUNTS, COVARIANCE), bent) + PULLS,
}
SIGMA = np.array([0.02, 3e-7, 0.5, 0.5])


@pytest.fixture(params=list(TERMS))
def term(request):
    return TERMS[request.param]


def test_value_and_gradient_are_those_of_the_term(term):
    problem = Problem(term)
    x = X + SIGMA
    value, gradient = jax.jit(jax.value_and_grad(term.value))(jnp.asarray(x))
    np.testing.assert_allclose(problem.value(x), value, rtol=1e-12)
    np.testing.assert_allclose(problem.gradient(x) * SIGMA, gradient * SIGMA, rtol=1e-10, atol=1e-10)
    here = problem.linearised(x)
    assert here.residuals.shape == (problem.n_data,)
    assert here.jacobian.shape == (problem.n_data, 4)
    np.testing.assert_allclose(here.cost, here.residuals @ here.residuals, rtol=1e-13)
    np.testing.assert_allclose(here.normal, here.jacobian.T @ here.jacobian, rtol=1e-12)
    np.testing.assert_allclose(2 * here.slope, problem.gradient(x), rtol=1e-13)
    np.testing.assert_allclose(2 * here.normal, problem.curvature(x), rtol=1e-13)


@pytest.mark.parametrize("away", [0.0, 1.0, pytest.param(-3.0, marks=pytest.mark.slow)])
def test_hessian_is_exact(term, away):
    """To 1e-6 in units of the curvature, near the minimum and far from it, where Σ r ∂²r is large."""
    problem = Problem(term)
    x = X + away * SIGMA
    exact = problem.exact_hessian(x)
    unit = 1.0 / np.sqrt(np.abs(np.diag(exact)))
    scale = np.outer(unit, unit)
    np.testing.assert_allclose(problem.hessian(x) * scale, exact * scale, rtol=0, atol=1e-6)
    assert np.abs((problem.curvature(x) - exact) * scale).max() > 1e-4  # what the differences have to give
    np.testing.assert_array_equal(problem.hessian(x), problem.hessian(x).T)


def test_hessian_of_free_parameters_only():
    problem = Problem(TERMS["cnp"])
    free = np.array([True, False, True, False])
    part, whole = problem.hessian(X, free), problem.hessian(X)
    np.testing.assert_allclose(part[np.ix_(free, free)], whole[np.ix_(free, free)], rtol=1e-12)
    assert (part[~free] == 0).all()
    assert (part[:, ~free] == 0).all()


class Sum(Term):
    """Σ f(x)², without data."""

    function: object

    def __call__(self, x):
        return jnp.sum(self.function(x) ** 2)

    def residuals(self, x):
        return self.function(x)

    @property
    def n_data(self):
        return 0


def straight(x):
    return jnp.stack([3.0 * x[0] - x[1], x[1] + 1e-6 * x[0], x[0] - 2.0])


def power(x):
    return x**1.5 + 1.0


def saddle(x):
    return jnp.stack([x[0] ** 2 - 1.0, x[1]])


@pytest.mark.parametrize(
    ("function", "x", "hessian"),
    [
        (straight, [5.0, -7.0], [[20.0 + 2e-12, -6.0 + 2e-6], [-6.0 + 2e-6, 4.0]]),
        (saddle, [0.0, 0.5], [[-4.0, 0.0], [0.0, 2.0]]),  # no residual moves with x[0] to first order
        (saddle, [1.0, 0.0], [[8.0, 0.0], [0.0, 2.0]]),
        (power, [4.0], [[24.75]]),  # 2 (r'² + r r'') with r = 9, r' = 3, r'' = 3/8
    ],
)
def test_hessians_by_hand(function, x, hessian):
    np.testing.assert_allclose(Problem(Sum(function)).hessian(x), hessian, rtol=1e-6, atol=1e-7)


def edge(x):
    return jnp.stack([jnp.where(x[0] < 1.0, jnp.nan, (x[0] - 3.0) * x[0]), x[1]])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_hessian_at_the_end_of_the_domain(sign):
    """(x² - 3x)² has the second derivative 12x² - 36x + 18, -6 at 1, where the model ends."""
    problem = Problem(Sum(lambda x: edge(jnp.stack([sign * x[0], x[1]]))))
    hessian = problem.hessian(np.array([sign, 0.0]))
    np.testing.assert_allclose(hessian, [[-6.0, 0.0], [0.0, 2.0]], rtol=1e-6, atol=1e-7)


def test_what_is_not_finite_is_shown():
    problem = Problem(TERMS["poisson"])
    assert problem.value(X + np.array([np.nan, 0, 0, 0])) != problem.value(X)
    negative = Problem(Bound(PoissonCost(np.ones(3)), lambda x: x[0] * jnp.ones(3)))
    assert negative.value([-1.0]) == np.inf
    assert not np.isfinite(Problem(Sum(jnp.log)).hessian([0.0])).all()


def test_one_point_costs_one_evaluation_and_kinds_share_a_program(monkeypatch):
    def problem(factor, seed):
        counts = np.random.default_rng(seed).poisson(100.0, 40)
        return Problem(Bound(NeymanPearsonCost(counts), Scaled(jnp.asarray(factor))) + PULLS)

    first = problem(1.0, 1)
    points = []
    evaluate = first._evaluate
    monkeypatch.setattr(first, "_evaluate", lambda x: points.append(x) or evaluate(x))
    for ask in (first.value, first.gradient, first.residuals, first.curvature):
        ask(X)
    assert len(points) == 1
    first.value(X + SIGMA)
    assert len(points) == 2
    assert TRACES
    TRACES.clear()
    second = problem(1.1, 2)
    second.hessian(X)
    second.descend(X, X - 1.0, X + 1.0, np.ones(4, bool), 10, 1e-6)
    assert TRACES == []
    assert second.value(X) != first.value(X)


def test_results_are_read_only():
    here = Problem(TERMS["cnp"]).linearised(X)
    for array in here:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0


@pytest.mark.parametrize(("kind", "limited", "shift"), [("poisson", False, 5.0), ("cnp", True, -3.0)])
def test_both_descents_walk_the_same_way(kind, limited, shift):
    """The Python loop and the compiled loop are one algorithm: same steps, same end."""
    term = TERMS[kind]
    start = X + shift * SIGMA
    options = {"free": np.array([True, True, True, not limited])}
    if limited:
        options |= {"lower": start - 4 * SIGMA, "upper": start + 4 * SIGMA}
    python = descend(lambda x: Problem(term).linearised(x)[2:], start, **options)
    compiled = jax.jit(lambda x: gauss_newton(term.residuals, x, **options))(start)
    assert python.converged == compiled.converged
    assert abs(int(python.n_iterations) - int(compiled.n_iterations)) <= 1
    np.testing.assert_allclose((python.values - compiled.values) / SIGMA, 0, atol=1e-4)
    np.testing.assert_allclose(python.cost, compiled.cost, rtol=1e-8)
    unit = np.outer(SIGMA, SIGMA)
    np.testing.assert_allclose(python.covariance / unit, compiled.covariance / unit, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_hessian_of_the_juno_fit_is_exact(juno):
    """All 36 parameters, a fluctuated spectrum: covariance against automatic differentiation, to 1e-6."""
    from nuebar.fit.spectrum_fit import SpectrumFit
    from nuebar.predict.spectrum import build_model

    model, parameters = build_model(juno)
    asimov = SpectrumFit.asimov(model, parameters, statistic=juno.fit.statistic)
    counts = np.random.default_rng(3).poisson(asimov.counts).astype(float)
    fit = SpectrumFit(model, parameters, counts, statistic=juno.fit.statistic)
    problem = fit.problem()
    found = fit.minimum(problem=problem)
    assert found.valid, found.reason
    free = [k for k, p in enumerate(parameters.values()) if not p.fixed]
    exact = 2 * np.linalg.inv(problem.exact_hessian(found.values)[np.ix_(free, free)])
    sigma = np.sqrt(np.diag(exact))
    np.testing.assert_allclose(found.covariance / np.outer(sigma, sigma), exact / np.outer(sigma, sigma), atol=1e-6)
    rough = 2 * np.linalg.inv(problem.curvature(found.values)[np.ix_(free, free)])
    assert np.abs((rough - exact) / np.outer(sigma, sigma)).max() > 1e-2
