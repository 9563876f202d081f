"""Chebyshev interpolants: what they reproduce, how fast they converge, their derivatives and their refusals."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import chebyshev, polynomial

from nuebar.errors import NuebarError
from nuebar.stats.chebyshev import ChebyshevInterpolant, chebyshev_polynomials

COVARIANCE = np.outer([0.26, 0.029, 23.0], [0.26, 0.029, 23.0]) * np.array(
    [[1, -0.9, 0.98], [-0.9, 1, -0.96], [0.98, -0.96, 1]]
)
MEAN = np.array([12.05, 0.517, 9846.0])
FACTOR = np.linalg.cholesky(COVARIANCE)


def wave(x):
    """Analytic, not a polynomial."""
    return jnp.exp(0.3 * x[0]) * jnp.cos(x[-1]) + jnp.sin(x.sum())


many = jax.jit(jax.vmap(wave))


@eqx.filter_jit
def values_at(made, x):
    return jax.vmap(made)(x)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9, 13, 17, 30])
def test_polynomials_are_those_of_numpy(n):
    t = np.linspace(-1.0, 1.0, 41)
    expected = np.stack([chebyshev.chebval(t, np.eye(n)[k]) for k in range(n)], axis=-1)
    np.testing.assert_allclose(chebyshev_polynomials(t, n), expected, atol=1e-13)


@pytest.mark.parametrize("wall", [-1.0, 1.0])
def test_derivatives_at_the_walls_are_those_of_markov(wall):
    """T_k'(±1) = (±1)^(k+1) k²: where cos(k arccos t) gives NaN."""
    slope = jax.jit(jax.jacfwd(lambda t: chebyshev_polynomials(t, 17)))(wall)
    k = np.arange(17)
    np.testing.assert_allclose(slope, wall ** (k + 1) * k**2, atol=1e-12)


@pytest.mark.parametrize(("d", "order"), [(1, 9), (2, 6), (3, 5), (4, 3)])
@pytest.mark.parametrize("trailing", [(), (2, 3)])
def test_polynomials_of_its_degree_are_reproduced(d, order, trailing):
    random = np.random.default_rng(d)
    table = random.normal(size=(order + 1,) * d + trailing)

    def function(x):
        out = table
        for k in range(d):  # one variable after the other, the first axis is the next one
            rows = polynomial.polyvander(x[:, k] / 2.0, order)
            out = np.einsum("ni,i...->n...", rows, out) if k == 0 else np.einsum("ni,ni...->n...", rows, out)
        return out

    low, high = -np.arange(1, d + 1) / d, np.full(d, 2.0)
    made = ChebyshevInterpolant.build(function, low, high, order, batch=50)
    assert made.order == order
    assert made.n_nodes == (order + 1) ** d
    x = random.uniform(low, high, (20, d))
    np.testing.assert_allclose(values_at(made, x), function(x), rtol=0, atol=2e-12)
    got = jax.eval_shape(made, x[0])
    assert got.shape == trailing
    assert got.dtype == jnp.float64


def test_error_falls_geometrically_with_the_order():
    errors = [ChebyshevInterpolant.build(many, [-1, -1], [1, 2], k).check(many) for k in (3, 6, 9, 12)]
    assert all(b < 0.03 * a for a, b in itertools.pairwise(errors))
    assert errors[-1] < 1e-8


def test_check_is_the_largest_difference():
    made = ChebyshevInterpolant.build(many, [-1, -1], [1, 2], 10)
    assert made.check(lambda x: many(x) + 0.25, 30) == pytest.approx(0.25, abs=1e-6)
    assert made.check(lambda x: many(x) - 3.0 * (x[:, 0] > 0.9), 200) == pytest.approx(3.0, abs=1e-6)


def test_derivatives_are_those_of_the_function():
    made = ChebyshevInterpolant.build(many, [-1, -1, -1], [1, 1, 1], 14)

    @jax.jit
    def derivatives(x):
        return [(jax.grad(f)(x), jax.hessian(f)(x)) for f in (made, wave)]

    for x in ([0.2, -0.4, 0.7], [1.0, -1.0, 1.0], [-1.0, 0.0, 0.0]):
        got, expected = derivatives(jnp.array(x))
        np.testing.assert_allclose(got[0], expected[0], atol=1e-8)
        np.testing.assert_allclose(got[1], expected[1], atol=1e-6)
        values = jax.jit(jax.vmap(lambda p: made(p)))(np.array(x) + 1e-5 * np.concatenate([np.eye(3), -np.eye(3)]))
        np.testing.assert_allclose(got[0], (values[:3] - values[3:]) / 2e-5, atol=1e-8)


def test_gradient_of_a_table_of_values():
    def row(x):
        return jnp.exp(-((jnp.arange(5.0) - x[0]) ** 2) / 10) * x[1]

    made = ChebyshevInterpolant.build(jax.vmap(row), [0, 1], [1, 2], 8)
    x = jnp.array([0.3, 1.8])
    got, expected = jax.jit(lambda x: (jax.jacrev(made)(x), jax.jacfwd(row)(x)))(x)
    np.testing.assert_allclose(got, expected, atol=1e-7)


@pytest.fixture(scope="module")
def posterior():
    """ln L of a strongly correlated posterior with a third order term, and its interpolant within ±6σ."""

    def log_likelihood(x):
        z = jnp.linalg.solve(FACTOR, x - MEAN)
        return -0.5 * z @ z + 0.01 * (z**3).sum()

    function = jax.jit(jax.vmap(log_likelihood))
    return function, ChebyshevInterpolant.build(function, [-6] * 3, [6] * 3, 4, transform=(MEAN, FACTOR))


def test_axes_may_follow_a_posterior(posterior):
    function, made = posterior
    assert made.check(function) < 1e-9
    x = MEAN + np.random.default_rng(1).normal(size=(50, 3)) @ FACTOR.T
    np.testing.assert_allclose(values_at(made, x), function(x), atol=1e-9)


def test_inside_is_the_image_of_the_box(posterior):
    made = posterior[1]
    z = np.array([[0, 0, 0], [6, -6, 6], [5.9, 0, -5.9], [6.1, 0, 0], [0, 0, -6.01]])
    assert made.inside(MEAN + z @ FACTOR.T).tolist() == [True, True, True, False, False]
    np.testing.assert_allclose(made.coordinates(MEAN + z @ FACTOR.T), z / 6, atol=1e-9)


def test_it_goes_through_jit_vmap_and_scan(posterior):
    made = posterior[1]
    x = jnp.asarray(MEAN + np.random.default_rng(2).normal(size=(4, 3)) @ FACTOR.T)
    expected = eqx.filter_jit(lambda m, p: jnp.stack([m(p[k]) for k in range(4)]))(made, x)
    np.testing.assert_allclose(jax.jit(lambda m, p: jax.vmap(m)(p))(made, x), expected, rtol=1e-12, atol=1e-12)
    scanned = jax.lax.scan(lambda total, p: (total + made(p), made(p)), 0.0, x)
    np.testing.assert_allclose(scanned[1], expected, rtol=1e-12, atol=1e-12)


def test_order_is_raised_until_it_is_good_enough():
    loose = ChebyshevInterpolant.build_to(many, [-1, -1], [1, 2], 1e-3)
    tight = ChebyshevInterpolant.build_to(many, [-1, -1], [1, 2], 1e-8)
    assert loose.order < tight.order
    assert loose.error <= 1e-3
    assert tight.error <= 1e-8
    assert tight.check(many, 256, 0) == pytest.approx(tight.error)
    assert tight.check(many, 256, 7) < 1e-7


def test_the_function_always_sees_as_many_points():
    seen = []

    def function(x):
        seen.append(x.shape)
        return x.sum(axis=1)

    ChebyshevInterpolant.build_to(function, [0, 0], [1, 1], 1e-9, orders=(2, 3), batch=7)
    assert set(seen) == {(7, 2)}


def ok(x):
    return x.sum(axis=1)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: ChebyshevInterpolant.build(ok, [1], [0], 3), "lower < upper"),
        (lambda: ChebyshevInterpolant.build(ok, [0], [np.inf], 3), "finite walls"),
        (lambda: ChebyshevInterpolant.build(ok, [0, 0], [1], 3), "shapes"),
        (lambda: ChebyshevInterpolant.build(ok, [0] * 5, [1] * 5, 3), "one to 4 variables"),
        (lambda: ChebyshevInterpolant.build(ok, [0], [1], 0), "order of 1 or more"),
        (lambda: ChebyshevInterpolant.build(ok, [0] * 4, [1] * 4, 30), "lower the order"),
        (lambda: ChebyshevInterpolant.build(ok, [0], [1], 3, batch=0), "batch of 1"),
        (lambda: ChebyshevInterpolant.build(ok, [0], [1], 3, transform=([0, 0], [[1]])), "transform of shapes"),
        (lambda: ChebyshevInterpolant.build(ok, [0] * 2, [1] * 2, 3, transform=([0, 0], np.ones((2, 2)))), "inverted"),
        (lambda: ChebyshevInterpolant.build(lambda x: np.log(x[:, 0] - 9), [9.5], [10], 3).check(ok, 0), "one point"),
        (lambda: ChebyshevInterpolant.build(lambda x: x[:, 0] * np.nan, [0], [1], 3), "not finite at 4 of 4"),
        (lambda: ChebyshevInterpolant.build(lambda x: x[0], [0], [1], 3), "gave values of shape"),
        (lambda: ChebyshevInterpolant.build_to(ok, [0], [1], 0.0), "tolerance above 0"),
        (lambda: ChebyshevInterpolant.build_to(many, [0], [9], 1e-9, orders=(2, 3)), "at order 3"),
    ],
)
def test_refusals_say_what_is_wrong(call, sentence):
    with pytest.raises(NuebarError, match=sentence):
        call()
