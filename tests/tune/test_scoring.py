import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from nuebar.errors import NuebarError
from nuebar.tune.data import CalibrationData, knot_weights
from nuebar.tune.density import RESPONSE
from nuebar.tune.infer import infer
from nuebar.tune.likelihood import ResponseLikelihood
from nuebar.tune.scoring import batched_fits, batched_posteriors

spec = importlib.util.spec_from_file_location("toy_density", Path(__file__).with_name("toy.py"))
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)

DENSITY = toy.ToyDensity(n_knots=1601)
TRUTH = np.array([toy.TRUTH[name] for name in RESPONSE])
LOW, HIGH = np.array(DENSITY.limits).T


def drawn(truth, events, sets, seed=0):
    p = np.exp(np.asarray(DENSITY.log_probabilities(np.asarray(truth))))
    return np.random.default_rng(seed).poisson(events * p, (sets, *p.shape)).astype(float)


COUNTS = drawn(TRUTH, 10_000, 300)


@pytest.fixture(scope="module")
def fits():
    return batched_fits(DENSITY, COUNTS, TRUTH)


@pytest.mark.parametrize("row", [0, pytest.param(7, marks=pytest.mark.slow)])
def test_a_fit_among_many_is_the_fit_on_its_own(fits, row):
    data = CalibrationData.from_counts(
        dict(zip(DENSITY.sources, COUNTS[row], strict=True)), DENSITY.edges, DENSITY.pe_to_observable
    )
    alone = infer(data, DENSITY, minos=False, n_replicas=0)
    best = np.array([alone.best[name] for name in RESPONSE])
    errors = np.array([alone.errors[name] for name in RESPONSE])
    assert np.abs(fits.best[row] - best).max() > 0  # not the same code
    np.testing.assert_allclose((fits.best[row] - best) / errors, 0, atol=0.01)
    np.testing.assert_allclose(fits.errors[row], errors, rtol=0.02)  # expected and observed information
    np.testing.assert_allclose(fits.covariance[row], alone.covariance, rtol=0.05)
    assert fits.log_likelihood[row] == pytest.approx(alone.log_likelihood, abs=2e-3)
    like = ResponseLikelihood.build(data, DENSITY)
    there = float(like.log_likelihood(fits.best[row]))
    assert fits.log_likelihood[row] == pytest.approx(there, abs=1e-3)


def test_it_is_unbiased_with_the_errors_it_gives(fits):
    pull = (fits.best - TRUTH) / fits.errors
    n = len(pull)
    assert fits.valid.all()
    assert fits.interpolation_error.max() < 0.1
    assert np.abs(pull.mean(axis=0)).max() < 4 / np.sqrt(n)
    assert np.abs(pull.std(axis=0) - 1).max() < 4 / np.sqrt(2 * n)


def test_higher_orders_converge(fits):
    some = COUNTS[:20]
    found = [batched_fits(DENSITY, some, TRUTH, orders=(order,)) for order in (4, 6, 8)]
    errors = [f.interpolation_error.max() for f in found]
    assert errors[0] > 30 * errors[1] > 30 * errors[2]
    shift = [np.abs((f.best - found[2].best) / f.errors).max() for f in found[:2]]
    assert max(shift) < 1e-3  # a last step with the density itself makes up for it
    assert np.median(found[0].shift) > 10 * np.median(found[2].shift)


def test_a_poor_polynomial_is_told_and_does_not_spoil_the_fit(fits):
    poor = batched_fits(DENSITY, COUNTS[:5], TRUTH, orders=(2,))
    assert (poor.interpolation_error > 0.1).all()
    close = np.abs((poor.best - fits.best[:5]) / fits.errors[:5]).max(axis=1) < 0.01
    assert close[poor.valid].all()


def test_where_one_starts_does_not_matter(fits):
    elsewhere = batched_fits(DENSITY, COUNTS, TRUTH + np.array([1.0, -0.1, 150.0]))
    assert np.abs((elsewhere.best - fits.best) / fits.errors).max() < 0.01


def test_it_knows_knots_too():
    random = np.random.default_rng(1)
    sets = []
    for _ in range(40):
        x = [
            DENSITY.sample(2000, toy.TRUTH, s, seed=int(random.integers(2**31))) * DENSITY.pe_to_observable
            for s in DENSITY.sources
        ]
        sets.append([knot_weights(v[(v > 0.4) & (v < 16.4)], DENSITY.knots) for v in x])
    f = batched_fits(DENSITY, np.array(sets), TRUTH, unbinned=True)
    pull = (f.best - TRUTH) / f.errors
    assert f.valid.all()
    assert np.abs(pull.mean(axis=0)).max() < 4 / np.sqrt(40)
    assert np.abs(pull.std(axis=0) - 1).max() < 4 / np.sqrt(80)


def test_some_sources_only(fits):
    chosen = ("AmBe", "Co60", "Cs137")
    rows = [DENSITY.sources.index(s) for s in chosen]
    f = batched_fits(DENSITY, COUNTS[:50, rows], TRUTH, sources=chosen)
    assert f.valid.all()
    assert (f.errors > fits.errors[:50]).all()


# --- walls ----------------------------------------------------------------------------------------------------

CORNERS = [(9.0, 0.0, 9000.0), (9.0, 1.0, 9500.0), (6.0, 0.5, 10000.0), (15.0, 0.5, 12000.0), (24.0, 1.0, 12000.0)]


@pytest.mark.parametrize("truth", CORNERS)
def test_on_a_wall_a_fit_is_the_bounded_maximum(truth):
    counts = drawn(truth, 10_000, 40, seed=2)
    f = batched_fits(DENSITY, counts, truth)
    assert f.valid.all()
    assert ((f.best >= LOW) & (f.best <= HIGH)).all()
    walls = (np.asarray(truth) == LOW) | (np.asarray(truth) == HIGH)
    assert f.at_limit.any(axis=1).sum() > 0
    assert not f.at_limit[:, ~walls].any()
    # No point around, inside the box, is higher.
    random = np.random.default_rng(3)
    for row in (0, 1):
        data = CalibrationData.from_counts(
            dict(zip(DENSITY.sources, counts[row], strict=True)), DENSITY.edges, DENSITY.pe_to_observable
        )
        like = ResponseLikelihood.build(data, DENSITY)
        steps = random.standard_normal((63, 3)) @ np.linalg.cholesky(f.covariance[row]).T * 0.3
        around = np.clip(f.best[row] + steps, LOW, HIGH)
        assert like.batch(around).max() < f.log_likelihood[row] + 1e-3


@pytest.mark.parametrize("truth", [TRUTH, (9.0, 0.02, 9000.0), (23.9, 0.98, 11900.0)])
def test_posteriors_are_those_of_the_likelihood_in_the_box(truth):
    """Cut off by the walls, against plain importance sampling of the likelihood itself."""
    counts = drawn(truth, 10_000, 1, seed=4)
    f = batched_fits(DENSITY, counts, truth)
    found = batched_posteriors(f, truth)
    data = CalibrationData.from_counts(
        dict(zip(DENSITY.sources, counts[0], strict=True)), DENSITY.edges, DENSITY.pe_to_observable
    )
    z = np.random.default_rng(5).standard_normal((4096, 3))
    x = f.best[0] + 1.3 * z @ np.linalg.cholesky(f.covariance[0]).T
    inside = ((x >= LOW) & (x <= HIGH)).all(axis=1)
    x, z = x[inside], z[inside]
    log_w = ResponseLikelihood.build(data, DENSITY).batch(x) + 0.5 * (z**2).sum(axis=1)
    w = np.exp(log_w - log_w.max())
    w /= w.sum()
    noise = np.sqrt(w @ w)
    mean = w @ x
    sigma = np.sqrt(w @ (x - mean) ** 2)
    np.testing.assert_allclose((found.mean[0] - mean) / sigma, 0, atol=4 * noise)
    np.testing.assert_allclose(np.sqrt(np.diag(found.covariance[0])) / sigma, 1, atol=4 * noise)
    np.testing.assert_allclose(found.below[0], w @ (x < np.asarray(truth)), atol=2 * noise)
    assert found.effective[0] > 300


def test_far_from_walls_shares_are_those_of_a_gaussian():
    fits = batched_fits(DENSITY, COUNTS[:100], TRUTH, reach=9.0)
    found = batched_posteriors(fits, TRUTH)
    gaussian = norm.cdf((TRUTH - fits.best) / fits.errors)
    assert np.abs(found.below - gaussian).max() < 0.04  # skewness
    assert np.abs((found.mean - fits.best) / fits.errors).max() < 0.06
    far = np.linalg.norm(fits.surrogate.whitened(fits.best) - fits.surrogate.whitened(TRUTH), axis=1)
    assert np.corrcoef(far, found.lower_density)[0, 1] < -0.9
    assert (batched_posteriors(fits).effective == found.effective).all()
    assert np.isnan(batched_posteriors(fits).below).all()


@pytest.mark.parametrize(
    ("weights", "around", "match"),
    [
        (COUNTS[0], TRUTH, "shape"),
        (COUNTS[:, :, :-1], TRUTH, "shape"),
        (COUNTS[:2] * np.nan, TRUTH, "finite"),
        (COUNTS[:2] * 0, TRUTH, "events of every source"),
        (COUNTS[:2], [5.0, 0.5, 1e4], "outside the range"),
    ],
)
def test_bad_input_is_refused(weights, around, match):
    with pytest.raises(NuebarError, match=match):
        batched_fits(DENSITY, weights, around)
