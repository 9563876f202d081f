import jax.numpy as jnp
import numpy as np
import pytest

from nuebar.tune.events import EvenTable, MonotoneSpline, hermite
from nuebar.tune.spline import spline_knots, spline_log_slope, spline_value

pytest.importorskip("numba")


def made(seed, intervals):
    """A random spline in JAX, and as compiled."""
    random = np.random.default_rng(seed)
    numbers = [jnp.asarray(2 * random.standard_normal(n)) for n in (intervals, intervals, intervals + 1)]
    knots = spline_knots(*numbers, -1.0, 2.0)
    return knots, MonotoneSpline(*(np.asarray(a) for a in knots))


@pytest.mark.parametrize(
    ("seed", "intervals"), [(1, 4), *(pytest.param(*p, marks=pytest.mark.slow) for p in ((2, 12), (3, 96))), (4, 500)]
)
def test_a_spline_as_compiled_is_that_of_jax(seed, intervals):
    knots, spline = made(seed, intervals)
    t = np.concatenate([np.linspace(-0.9999, 1.9999, 3001), np.asarray(knots.x)[1:]])
    shift = 0.3
    x = np.exp(t + shift)
    expected = np.asarray(spline_log_slope(knots, jnp.asarray(np.log(x) - shift))) - np.log(x)
    np.testing.assert_allclose(spline.log_density(x, shift, 0.1, 20.0), expected, atol=1e-6)
    y = np.asarray(spline_value(knots, jnp.asarray(t)))
    back = np.asarray(spline_value(knots, jnp.asarray(np.log(spline.inverse(y, shift)) - shift)))
    np.testing.assert_allclose(back, y, atol=1e-12)


def test_a_spline_takes_its_ends_and_nothing_beyond():
    _, spline = made(5, 12)
    np.testing.assert_allclose(spline.inverse(np.array([0.0, 1.0]), 0.0), np.exp([-1.0, 2.0]), rtol=1e-12)
    ends = spline.log_density(np.array([0.5, 1.0, 3.0, 3.1, np.nan]), 0.0, 1.0, 3.0)
    np.testing.assert_array_equal(np.isneginf(ends), [True, False, False, True, True])


@pytest.mark.parametrize("degree", range(6))
def test_polynomials_of_fifth_degree_are_interpolated_exactly(degree):
    grid = np.linspace(1.0, 4.0, 9)
    x = np.linspace(1.0, 4.0, 101)
    np.testing.assert_allclose(EvenTable(1.0, 4.0, grid**degree).at(x), x**degree, rtol=1e-12)


def test_interpolation_errors_fall_with_the_sixth_power():
    x = np.linspace(0.0, 1.0, 2001)
    worst = [np.abs(EvenTable(0, 1, np.sin(9 * np.linspace(0, 1, n))).at(x) - np.sin(9 * x)).max() for n in (21, 41)]
    assert 40 < worst[0] / worst[1] < 80
    assert np.all(np.isneginf(EvenTable(0, 1, np.zeros(7)).at(np.array([-0.1, 1.1]))))


def test_cubics_with_their_derivatives_are_exact():
    x = np.sort(np.random.default_rng(6).random(30))
    at = np.linspace(x[0], x[-1], 500)
    np.testing.assert_allclose(hermite(at, x, x**3 - x, 3 * x**2 - 1), at**3 - at, atol=1e-13)
    np.testing.assert_allclose(hermite(np.array([-1.0, 2.0]), x, x**3 - x, 3 * x**2 - 1), (x**3 - x)[[0, -1]])
