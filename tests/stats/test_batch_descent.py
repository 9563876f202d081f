"""Many descents at once: the minima of known sums of squares, limits, and what is not a minimum."""

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.stats.batch_descent import levenberg_marquardt, quasi_newton

RNG = np.random.default_rng(3)
MATRIX = RNG.normal(size=(12, 4)) * np.array([1.0, 1e3, 1e-4, 1.0])  # parameters of very different size
DATA = RNG.normal(size=(50, 12))
WIDE = np.full(4, np.inf)


def bent(x, rows):
    """Residuals of a model that is not straight, and their Jacobian."""
    y = x @ MATRIX.T
    r = y + 0.02 * y**2 - DATA[rows]
    return r, (1.0 + 0.04 * y)[:, :, None] * MATRIX


def slopes(rows, x):
    r, j = bent(x, rows)
    return (r**2).sum(axis=1), np.einsum("nik,ni->nk", j, r)


def curvatures(rows, x):
    r, j = bent(x, rows)
    return (r**2).sum(axis=1), np.einsum("nik,ni->nk", j, r), np.einsum("nik,nil->nkl", j, j)


def test_both_descents_end_where_the_slope_is_zero():
    start, curvature = np.zeros((50, 4)), MATRIX.T @ MATRIX
    first = quasi_newton(slopes, start, curvature, lower=-WIDE, upper=WIDE, n_iterations=40, tol=1e-14)
    second = levenberg_marquardt(curvatures, start, lower=-WIDE, upper=WIDE, tol=1e-14)
    sigma = np.sqrt(np.diag(np.linalg.inv(curvature)))
    assert first.converged.all()
    assert second.converged.all()
    np.testing.assert_allclose((first.values - second.values) / sigma, 0.0, atol=1e-6)
    for found in (first, second):
        slope = slopes(np.arange(50), found.values)[1]
        np.testing.assert_allclose(slope * sigma, 0.0, atol=1e-5)
        np.testing.assert_allclose(found.cost, slopes(np.arange(50), found.values)[0])


def test_what_has_arrived_is_not_evaluated_again():
    seen = []

    def counted(rows, x):
        seen.append(len(rows))
        return slopes(rows, x)

    found = quasi_newton(counted, np.zeros((50, 4)), MATRIX.T @ MATRIX, lower=-WIDE, upper=WIDE, tol=1e-6)
    assert sum(seen) == found.n_calls.sum()
    assert seen[-1] < 50


def test_limits_hold_and_are_the_minimum_on_the_wall():
    """A straight problem with one wall: the other parameters are at their minimum given the wall."""
    upper = np.array([np.inf, np.inf, np.inf, -0.5])
    start = np.tile([0.0, 0.0, 0.0, -1.0], (50, 1))
    found = levenberg_marquardt(curvatures, start, lower=-WIDE, upper=upper, tol=1e-12)
    assert found.converged.all()
    assert (found.values <= upper).all()
    on = found.values[:, 3] == -0.5
    assert 0 < on.sum() < 50
    slope = slopes(np.arange(50), found.values)[1] / np.sqrt(np.diag(MATRIX.T @ MATRIX))
    np.testing.assert_allclose(slope[:, :3], 0.0, atol=1e-5)
    assert (slope[on, 3] < 0).all()
    first = quasi_newton(slopes, start, MATRIX.T @ MATRIX, lower=-WIDE, upper=upper)
    assert (first.values <= upper).all()
    assert not first.converged[on].any()


def test_a_cost_that_is_not_finite_is_not_converged():
    def broken(rows, x):
        cost, slope, normal = curvatures(rows, x)
        return np.where(rows == 7, np.nan, cost), slope, normal

    start = np.zeros((50, 4))
    for found in (
        levenberg_marquardt(broken, start, lower=-WIDE, upper=WIDE),
        quasi_newton(lambda r, x: broken(r, x)[:2], start, MATRIX.T @ MATRIX, lower=-WIDE, upper=WIDE),
    ):
        assert not found.converged[7]
        assert found.converged.sum() == 49


def test_a_curvature_that_is_not_positive_is_refused():
    with pytest.raises(NuebarError, match="not positive definite"):
        quasi_newton(slopes, np.zeros((50, 4)), np.ones((4, 4)), lower=-WIDE, upper=WIDE)
