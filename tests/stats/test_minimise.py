"""Fits with known answers, agreement with Minuit's own numerical work, limits, failures and compilation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from iminuit import Minuit
from scipy.special import lambertw

from nuebar.errors import NuebarError
from nuebar.stats.likelihood import (
    Bound,
    CovarianceCost,
    GaussianPulls,
    NeymanPearsonCost,
    PearsonCost,
    PoissonCost,
    Term,
)
from nuebar.stats.minimise import Problem, gauss_newton, minimise

RNG = np.random.default_rng(59)
TRACES = []


class Residuals(Term):
    """A sum of squares without data, for problems from the literature."""

    function: object

    def __call__(self, x):
        return jnp.sum(self.function(x) ** 2)

    def residuals(self, x):
        return self.function(x)

    @property
    def n_data(self):
        return 0


class Linear(eqx.Module):
    matrix: jax.Array

    def __call__(self, x):
        TRACES.append(1)
        return jnp.matmul(self.matrix, x)


def constant(x):
    return jnp.full(8, x[0])


def oscillation(x):
    """A toy spectrum whose parameters differ in size: an angle, two splittings and two nuisances."""
    e_MeV = jnp.linspace(2.0, 8.0, 60)
    flux = 4000.0 * jnp.exp(-(((e_MeV - 3.6) / 1.8) ** 2)) * (1 + 0.02 * x[3])
    solar = 4 * x[0] * (1 - x[0]) * jnp.sin(1267 * x[1] * 52.5 / e_MeV) ** 2
    fast = 0.09 * jnp.sin(1267 * x[2] * 52.5 / e_MeV) ** 2
    return flux * (1 - solar - fast) + 20 * (1 + 0.3 * x[4])


NAMES = ("sin2_th12", "dm2_21_eV2", "dm2_31_eV2", "rate", "background")
TRUTH = np.array([0.307, 7.53e-5, 2.528e-3, 0.0, 0.0])
START = np.array([0.28, 7.4e-5, 2.52e-3, 0.3, -0.3])
MU = np.asarray(oscillation(jnp.asarray(TRUTH)))


def spectrum_problem(cost=PoissonCost, seed=1):
    counts = np.random.default_rng(seed).poisson(MU)
    return Bound(cost(counts), oscillation) + GaussianPulls(np.zeros(2), sigmas=np.ones(2), indices=(3, 4))


@pytest.fixture(scope="module")
def spectrum_fit():
    return minimise(spectrum_problem(), START, names=NAMES)


def test_linear_gaussian_is_solved_exactly():
    n_bins, n_par = 12, 4
    matrix = RNG.normal(size=(n_bins, n_par))
    root = RNG.normal(size=(n_bins, n_bins))
    covariance = root @ root.T + np.eye(n_bins)
    data = RNG.normal(size=n_bins) * 5
    fit = minimise(
        Bound(CovarianceCost(data, covariance), Linear(jnp.asarray(matrix))),
        np.zeros(n_par),
        names="abcd",
        errors="minos",
    )
    weight = np.linalg.inv(covariance)
    expected_covariance = np.linalg.inv(matrix.T @ weight @ matrix)
    expected = expected_covariance @ matrix.T @ weight @ data
    assert fit.valid, fit.reason
    assert fit.reason == "converged"
    sigma = np.sqrt(np.diag(expected_covariance))
    np.testing.assert_allclose((fit.values - expected) / sigma, 0, atol=1e-4)
    np.testing.assert_allclose(fit.covariance, expected_covariance, rtol=1e-10)
    np.testing.assert_allclose(fit.errors, sigma, rtol=1e-10)
    rest = data - matrix @ expected
    np.testing.assert_allclose(fit.cost, rest @ weight @ rest, rtol=1e-9)
    for name, s in zip(fit.names, sigma, strict=True):
        assert fit.minos[name].valid
        np.testing.assert_allclose((fit.minos[name].minus, fit.minos[name].plus), (-s, s), rtol=1e-3)
    assert fit.n_data == n_bins


@pytest.mark.parametrize("n", [1.0, 4.0, 25.0, 1e4])
def test_poisson_mean_and_its_minos_errors(n):
    """2 (mu - n - n ln(mu/n)) = 1 has the ends mu = -n W(-exp(-1 - 1/(2n))) on Lambert's two branches.

    For n = 1 these are 0.3017 and 2.3577.
    """
    fit = minimise(Bound(PoissonCost(np.full(8, n / 8)), constant), [0.3 * n / 8 + 0.05], names=["mu"], errors="minos")
    ends = [-lambertw(-np.exp(-1 - 0.5 / n), branch).real for branch in (0, -1)]
    if n == 1:
        np.testing.assert_allclose(ends, [0.3017, 2.3577], atol=5e-5)
    assert fit.valid, fit.reason
    np.testing.assert_allclose(fit.value("mu") * 8, n, rtol=1e-5)
    np.testing.assert_allclose(fit.error("mu") * 8, np.sqrt(n), rtol=1e-5)
    found = fit.minos["mu"]
    np.testing.assert_allclose(fit.value("mu") + np.array([found.minus, found.plus]), np.array(ends) * n / 8, rtol=2e-3)


@pytest.mark.parametrize("cost", [PoissonCost, NeymanPearsonCost])
def test_agrees_with_minuit_on_its_own(cost):
    """Migrad and Hesse with numerical derivatives, started elsewhere: same minimum, covariance to 1e-3."""
    problem = Problem(spectrum_problem(cost))
    fit = minimise(problem, START, names=NAMES)
    assert fit.valid, fit.reason
    minuit = Minuit(lambda u: problem.value(u * fit.errors), START / fit.errors, name=NAMES)
    minuit.tol = 0.001
    minuit.migrad()
    minuit.hesse()
    assert minuit.valid
    np.testing.assert_allclose(fit.values / fit.errors - np.array(minuit.values), 0, atol=2e-3)
    assert fit.cost <= minuit.fval + 1e-8
    theirs = np.array(minuit.covariance)
    np.testing.assert_allclose(fit.covariance / np.outer(fit.errors, fit.errors), theirs, rtol=1e-3, atol=1e-3)


def test_minimum_is_stationary_and_close_to_the_truth(spectrum_fit):
    assert spectrum_fit.valid, spectrum_fit.reason
    problem = Problem(spectrum_problem())
    assert np.abs(problem.gradient(spectrum_fit.values) * spectrum_fit.errors).max() < 1e-3
    assert (np.abs(spectrum_fit.values - TRUTH) < 4 * spectrum_fit.errors).all()
    assert spectrum_fit.edm < 1e-5
    np.testing.assert_allclose(
        spectrum_fit.covariance, 2 * np.linalg.inv(problem.exact_hessian(spectrum_fit.values)), rtol=1e-6
    )
    np.testing.assert_allclose(spectrum_fit.cost, np.sum(problem.residuals(spectrum_fit.values) ** 2), rtol=1e-12)
    assert spectrum_fit.n_data == 62
    assert spectrum_fit.n_calls < 60


@pytest.mark.parametrize(
    "scales", [None, np.array([1e-3, 1e-7, 1e-6, 1.0, 1.0]), np.array([1.0, 1e-4, 1e-3, 1.0, 1.0])]
)
@pytest.mark.parametrize("shift", [-1.0, 1.0])
def test_start_and_scales_do_not_matter(spectrum_fit, scales, shift):
    start = START + shift * np.array([0.02, 1e-6, 2e-6, 0.5, 0.5])
    fit = minimise(spectrum_problem(), start, names=NAMES, scales=scales)
    assert fit.valid, fit.reason
    np.testing.assert_allclose((fit.values - spectrum_fit.values) / spectrum_fit.errors, 0, atol=1e-3)
    np.testing.assert_allclose(fit.covariance, spectrum_fit.covariance, rtol=1e-3, atol=0)


def test_minos_ends_raise_the_profile_by_one(spectrum_fit):
    fit = minimise(spectrum_problem(), START, names=NAMES, minos=["dm2_21_eV2"])
    interval = fit.minos["dm2_21_eV2"]
    assert set(fit.minos) == {"dm2_21_eV2"}
    assert interval.valid
    for end in (interval.minus, interval.plus):
        at = fit.values.copy()
        at[1] += end
        profile = minimise(spectrum_problem(), at, names=NAMES, fixed=["dm2_21_eV2"])
        np.testing.assert_allclose(profile.cost - fit.cost, 1.0, atol=5e-3)
    assert interval.minus < 0 < interval.plus


def test_fixed_parameters_stay(spectrum_fit):
    fit = minimise(spectrum_problem(), spectrum_fit.values, names=NAMES, fixed=["rate", "sin2_th12"])
    assert fit.valid, fit.reason
    assert fit.free == ("dm2_21_eV2", "dm2_31_eV2", "background")
    np.testing.assert_array_equal(fit.values[[0, 3]], spectrum_fit.values[[0, 3]])
    np.testing.assert_array_equal(fit.errors[[0, 3]], 0)
    kept = [1, 2, 4]
    conditional = np.linalg.inv(np.linalg.inv(spectrum_fit.covariance)[np.ix_(kept, kept)])
    np.testing.assert_allclose(fit.covariance, conditional, rtol=1e-5)


def test_nothing_free_is_an_evaluation():
    problem = Problem(spectrum_problem())
    fit = minimise(problem, TRUTH, names=NAMES, fixed=NAMES)
    assert fit.valid
    assert fit.cost == problem.value(TRUTH)
    assert fit.covariance.shape == (0, 0)


def test_second_fit_compiles_nothing():
    matrix = jnp.asarray(RNG.uniform(1, 2, (15, 3)))

    def fit(counts, matrix, **options):
        term = Bound(NeymanPearsonCost(counts), Linear(matrix)) + GaussianPulls([1.0], sigmas=[3.0], indices=(0,))
        return minimise(term, np.ones(3), names="abc", **options)

    TRACES.clear()
    first = fit(RNG.poisson(90.0, 15), matrix)
    assert 0 < len(TRACES) < 12
    TRACES.clear()
    second = fit(RNG.poisson(90.0, 15), matrix)
    fit(
        RNG.poisson(90.0, 15),
        1.1 * matrix,
        fixed=["a"],
        lower=[-9.0, -np.inf, -99.0],
        max_calls=500,
        tol=1e-4,
    )
    assert TRACES == []
    assert not np.array_equal(first.values, second.values)


@pytest.mark.parametrize(("side", "limit"), [("upper", 0.29), ("lower", 0.33)])
def test_minimum_on_a_limit_is_not_valid_and_says_so(side, limit):
    bounds = np.full(5, np.inf if side == "upper" else -np.inf)
    bounds[0] = limit
    start = START.copy()
    start[0] = 0.27 if side == "upper" else 0.34
    fit = minimise(spectrum_problem(), start, names=NAMES, minos=["rate"], **{side: bounds})
    assert not fit.valid
    assert fit.at_limit == ("sin2_th12",)
    assert f"sin2_th12 ended on its {side} limit {limit}" in fit.reason
    assert fit.value("sin2_th12") == limit
    assert fit.edm < 1e-5
    assert "not converged" not in fit.reason
    assert not fit.minos["rate"].valid
    assert fit.minos["rate"].reason == "the minimum is not valid"
    start[0] = limit
    conditional = minimise(spectrum_problem(), start, names=NAMES, fixed=["sin2_th12"])
    assert conditional.valid
    shift = (fit.values - conditional.values)[1:] / conditional.errors[1:]
    np.testing.assert_allclose(shift, 0, atol=1e-3)
    np.testing.assert_allclose(fit.cost, conditional.cost, atol=1e-6)


def test_limits_that_are_not_reached_change_nothing(spectrum_fit):
    width = 3 * spectrum_fit.errors
    fit = minimise(
        spectrum_problem(),
        spectrum_fit.values + 0.5 * width,
        names=NAMES,
        lower=spectrum_fit.values - width,
        upper=spectrum_fit.values + width,
    )
    assert fit.valid, fit.reason
    np.testing.assert_allclose((fit.values - spectrum_fit.values) / spectrum_fit.errors, 0, atol=1e-3)
    np.testing.assert_allclose(fit.covariance, spectrum_fit.covariance, rtol=1e-3)


def test_wide_error_in_a_narrow_range_is_not_at_a_limit():
    fit = minimise(GaussianPulls([0.0], sigmas=[1e4]), [0.5], names=["x"], lower=[-1.0], upper=[1.0])
    assert fit.valid, fit.reason
    assert fit.at_limit == ()


def test_minos_end_beyond_a_limit_says_so():
    fit = minimise(Bound(PoissonCost(np.ones(8)), constant), [1.2], names=["mu"], lower=[0.9], errors="minos")
    assert fit.valid, fit.reason
    found = fit.minos["mu"]
    assert not found.valid
    assert np.isnan(found.minus)
    assert "lower end lies beyond the limit" in found.reason
    assert found.plus > 0


def rosenbrock(x):
    return jnp.stack([1 - x[0], 10 * (x[1] - x[0] ** 2)])


def test_rosenbrock_from_the_usual_start():
    """Minimum 0 at (1, 1); Hessian ((802, -400), (-400, 200)) by hand."""
    fit = minimise(Residuals(rosenbrock), [-1.2, 1.0], names="xy")
    assert fit.valid, fit.reason
    np.testing.assert_allclose(fit.values, 1, atol=1e-5)
    np.testing.assert_allclose(fit.covariance, 2 * np.linalg.inv([[802, -400], [-400, 200]]), rtol=1e-4)


def test_too_few_calls_is_a_reason():
    fit = minimise(Residuals(rosenbrock), [-1.2, 1.0], names="xy", max_calls=3)
    assert not fit.valid
    assert "the limit of 3 calls was reached" in fit.reason
    assert "not converged" in fit.reason


def only_the_sum(x):
    return jnp.stack([x[0] + x[1] - 3.0, 2.0 * (x[0] + x[1]) - 5.0, x[2]])


def test_degenerate_direction_is_named():
    fit = minimise(Residuals(only_the_sum), [0.0, 0.0, 1.0], names=["a", "b", "c"])
    assert not fit.valid
    assert "not positive definite" in fit.reason
    assert "along a, b:" in fit.reason
    assert np.isnan(fit.covariance).all()
    np.testing.assert_allclose(fit.values[0] + fit.values[1], 13 / 5, atol=1e-4)


def only_the_product(x):
    return jnp.exp(x[0] + x[1]) * jnp.linspace(0.5, 2.0, 9) - jnp.linspace(1.0, 3.0, 9)


def test_bent_degenerate_direction_is_named_too():
    """The differences in the Hessian must not make a valley floor look like a minimum."""
    fit = minimise(Residuals(only_the_product), [0.3, 0.4], names=["a", "b"])
    assert not fit.valid
    assert "along a, b:" in fit.reason


def saddle(x):
    return jnp.stack([x[0] ** 2 - 1.0, x[1]])


def test_saddle_is_not_a_minimum():
    """At the start the gradient vanishes and the curvature is negative: leave it or refuse it."""
    fit = minimise(Residuals(saddle), [0.0, 0.5], names="xy")
    assert np.isclose(abs(fit.values[0]), 1, atol=1e-3) if fit.valid else "not positive definite" in fit.reason


def logarithm(x):
    return 50.0 * jnp.log(x[0] + jnp.zeros(8))


def test_nan_on_the_way_is_stepped_back_and_counted():
    """From mu = 175 the first step lands at a negative x, where the model has no value."""
    fit = minimise(Bound(PearsonCost(np.full(8, 10.0)), logarithm), [30.0], names=["x"])
    assert fit.valid, fit.reason
    assert fit.n_not_finite > 0
    np.testing.assert_allclose(fit.values, np.exp(10 / 50), rtol=1e-5)


def test_minimise_refuses_a_start_without_a_cost():
    with pytest.raises(NuebarError, match=r"finite where a fit starts, got nan at x=-1"):
        minimise(Bound(PearsonCost(np.full(8, 10.0)), logarithm), [-1.0], names=["x"])
    with pytest.raises(NuebarError, match="got inf at mu=-2"):
        minimise(Bound(PoissonCost(np.full(8, 10.0)), constant), [-2.0], names=["mu"])


def root(x):
    return jnp.sqrt(x) + 1.0


def test_minimise_refuses_a_start_without_a_gradient():
    with pytest.raises(NuebarError, match=r"gradient of the cost must be finite .* for b:"):
        minimise(Residuals(root), [1.0, 0.0], names=["a", "b"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"names": ("x", "x")}, "names must differ"),
        ({"start": [1.0]}, r"start must have shape \(2,\)"),
        ({"start": [np.nan, 1.0]}, "start of x must be finite"),
        ({"start": "ab"}, "start must be 2 numbers"),
        ({"lower": [2.0, 0.0]}, r"start of x must be finite and inside its limits, got 1.0 in \[2.0, inf\]"),
        ({"lower": [1.0, 0.0], "upper": [1.0, 4.0]}, "inside its limits"),
        ({"lower": [0.0]}, r"lower must have shape \(2,\)"),
        ({"fixed": ["z"]}, r"fixed must list parameter names, got \['z'\]; known are"),
        ({"fixed": "x"}, "fixed must list parameter names, got 'x'"),
        ({"minos": ["z"]}, "minos must list parameter names"),
        ({"errors": "both"}, 'errors must be "hesse" or "minos", got \'both\''),
        ({"scales": [1.0, 0.0]}, "scales must be finite and above 0"),
    ],
)
def test_wrong_input_is_refused_in_a_sentence(options, words):
    given = {"start": [1.0, 1.0], "names": ("x", "y")} | options
    with pytest.raises(NuebarError, match=words):
        minimise(Residuals(rosenbrock), given.pop("start"), **given)


def test_problem_refuses_what_it_cannot_compile():
    with pytest.raises(NuebarError, match=r"a fit needs a Term .* got function"):
        Problem(rosenbrock)
    with pytest.raises(NuebarError, match="got something else inside"):
        Problem(Residuals(eqx.nn.Lambda(bytearray(b"x"))))
    term = Residuals(rosenbrock)
    with jax.enable_x64(False), pytest.raises(NuebarError, match="JAX_ENABLE_X64=1"):
        Problem(term)


def test_records_are_frozen(spectrum_fit):
    with pytest.raises(AttributeError):
        spectrum_fit.valid = True
    for array in (spectrum_fit.values, spectrum_fit.errors, spectrum_fit.covariance):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0


def fit_toy(counts):
    return gauss_newton((Bound(PoissonCost(counts), oscillation) + PULLS).residuals, jnp.asarray(START), 30)


PULLS = GaussianPulls(np.zeros(2), sigmas=np.ones(2), indices=(3, 4))


def test_batch_of_toys_agrees_with_single_fits_and_has_unit_pulls():
    """Mean and width of the pulls within four standard errors of 300 toys."""
    n_toys = 300
    toys = RNG.poisson(MU, (n_toys, MU.size)).astype(float)
    batch = jax.jit(jax.vmap(fit_toy))(jnp.asarray(toys))
    assert batch.converged.all()
    for i in range(3):
        single = minimise(Bound(PoissonCost(toys[i]), oscillation) + PULLS, START, names=NAMES)
        np.testing.assert_allclose((batch.values[i] - single.values) / single.errors, 0, atol=1e-3)
        np.testing.assert_allclose(batch.cost[i], single.cost, rtol=1e-8)
        np.testing.assert_allclose(np.sqrt(np.diag(batch.covariance[i])), single.errors, rtol=0.05)
    sigma = np.sqrt(np.diagonal(batch.covariance, axis1=1, axis2=2))
    pulls = ((np.asarray(batch.values) - TRUTH) / sigma)[:, :3]
    np.testing.assert_allclose(pulls.mean(axis=0), 0, atol=4 / np.sqrt(n_toys))
    np.testing.assert_allclose(pulls.std(axis=0), 1, atol=4 / np.sqrt(2 * n_toys))


def test_gauss_newton_keeps_limits_and_fixed_parameters():
    def residuals(x):
        return jnp.stack([x[0] - 3.0, x[1] - x[0] - 2.0, x[2] - 1.0])

    run = jax.jit(lambda **options: gauss_newton(residuals, jnp.zeros(3), **options))
    free = run()
    np.testing.assert_allclose(free.values, [3.0, 5.0, 1.0], atol=1e-4)
    np.testing.assert_allclose(free.covariance, [[1, 1, 0], [1, 2, 0], [0, 0, 1]], atol=1e-9)
    held = run(upper=jnp.asarray([1.0, 9.0, 9.0]), free=jnp.asarray([True, True, False]))
    np.testing.assert_allclose(held.values, [1.0, 3.0, 0.0], atol=1e-4)
    np.testing.assert_allclose(held.covariance, [[0, 0, 0], [0, 1, 0], [0, 0, 0]], atol=1e-9)
    np.testing.assert_allclose(held.cost, 5.0, rtol=1e-7)
    assert held.converged


def test_gauss_newton_takes_back_a_step_that_overshoots():
    """Undamped steps on arctan x diverge from |x| > 1.392."""
    end = jax.jit(lambda start: gauss_newton(jnp.arctan, start))(jnp.asarray([10.0]))
    assert end.converged
    assert abs(end.values[0]) < 1e-3


def test_gauss_newton_without_a_start_does_not_converge():
    lost = jax.jit(lambda start: gauss_newton(lambda x: jnp.log(x), start))(jnp.asarray([-1.0]))
    assert not lost.converged
    assert lost.cost == np.inf
    assert lost.n_not_finite > 0
    flat = jax.jit(lambda start: gauss_newton(lambda x: x[:1] - 2.0, start))(jnp.zeros(2))
    assert flat.converged
    assert flat.covariance[1, 1] == np.inf
