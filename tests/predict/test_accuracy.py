"""Errors of predictors on arrays whose answer is known, and the truth they are held against."""

import json

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.parameters import OSCILLATION
from nuebar.predict.accuracy import NORM, SIGNIFICANT, Accuracy, AccuracyMeter, folded_spectra, linear_shifts
from nuebar.predict.folded import fold_pairs
from nuebar.predict.pairs import Pairs
from nuebar.predict.reweight import ReweightPredictor

EDGES = np.linspace(1.0, 8.0, 36)
P = np.array([[0.307, 0.022, 7.53e-5, 2.5123e-3], [0.29, 0.0195, 7.1e-5, 2.45e-3], [0.33, 0.025, 8.0e-5, 2.6e-3]])


def spectra(points=4, bins=50, parameters=4, seed=1):
    """Random spectra of about 100 counts a bin, and Jacobians of very different sizes."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(50.0, 150.0, (points, bins))
    scale = np.array([1e3, 1e4, 1e8, 1e6])[:parameters]
    return truth, scale * rng.normal(size=(points, bins, parameters))


def meter(truth, predicted, jacobian):
    m = AccuracyMeter()
    m.add(truth, predicted, jacobian)
    return m.result()


def pairs(n=3000, seed=2):
    rng = np.random.default_rng(seed)
    e_nu, core = rng.uniform(1.85, 8.7, n), rng.integers(0, 2, n).astype(np.uint8)
    bins = np.clip(np.digitize(e_nu - 0.78, EDGES) - 1, 0, 34).astype(np.int16)
    return Pairs(e_nu, core, bins, EDGES, np.array([52.5, 215.0]), ("near", "far"), scale=0.4, total=n)


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("k", range(5))
def test_a_known_shift_comes_back(k):
    """S = T + J δ: the shift is δ over the error, for one parameter or the norm, and 0 for the others."""
    truth, jacobian = spectra()
    full = np.concatenate([jacobian, truth[..., None]], axis=-1)
    delta = np.zeros(5)
    delta[k] = [1e-4, 2e-5, 3e-9, 5e-7, 1e-3][k]
    shifts = linear_shifts(truth, truth + full @ delta, jacobian)
    for point in range(len(truth)):
        information = full[point].T @ (full[point] / truth[point][:, None])
        unit = np.sqrt(np.diag(information))  # inverted in units in which it is well conditioned
        error = np.sqrt(np.diag(np.linalg.inv(information / np.outer(unit, unit)))) / unit
        np.testing.assert_allclose(shifts[point], delta / error, rtol=1e-9, atol=1e-9 * delta[k] / error[k])


def test_what_no_parameter_can_do_shifts_nothing():
    """A residual orthogonal to all columns in V⁻¹."""
    truth, jacobian = spectra(points=1)
    columns = np.concatenate([jacobian, truth[..., None]], axis=-1)[0] / np.sqrt(truth[0])[:, None]
    columns /= np.linalg.norm(columns, axis=0)
    r = np.random.default_rng(0).normal(size=50)
    r -= columns @ np.linalg.lstsq(columns, r, rcond=None)[0]
    predicted = truth + r * np.sqrt(truth)
    np.testing.assert_allclose(linear_shifts(truth, predicted, jacobian), 0.0, atol=1e-12)
    assert meter(truth, predicted, jacobian).chi2_worst == pytest.approx(r @ r)


def test_errors_of_bins_and_chi2():
    """Two points with errors put in by hand; the small bin is left out of the relative ones only."""
    truth = np.full((2, 50), 100.0)
    truth[:, 0] = 0.9 * SIGNIFICANT * 100.0 * 49
    predicted = truth.copy()
    predicted[0, 0] *= 3.0
    predicted[0, 7] *= 1.02
    predicted[1, 3:10] *= 0.999
    a = meter(truth, predicted, spectra(points=2)[1])
    assert a.relative_worst == pytest.approx(0.02)
    assert a.relative_median == 0.0
    small = truth[0, 0] * 2.0**2
    assert a.chi2_worst == pytest.approx(small + 100 * 0.02**2)
    assert a.chi2_median == pytest.approx(0.5 * (a.chi2_worst + 7 * 100 * 1e-6))
    assert a.points == 2


def test_quantiles_are_over_bins_and_points():
    truth = np.full((100, 50), 100.0)
    wrong = np.linspace(0.0, 1e-2, 5000).reshape(100, 50)
    a = meter(truth, truth * (1 + wrong), spectra(points=100)[1])
    assert (a.relative_median, a.relative_999) == pytest.approx((5e-3, 9.99e-3), rel=1e-5)


def test_chunks_do_not_matter():
    truth, jacobian = spectra(points=9)
    predicted = truth * (1 + 1e-3 * np.random.default_rng(3).normal(size=truth.shape))
    pieces = AccuracyMeter()
    for part in (slice(0, 2), slice(2, 7), slice(7, 9)):
        pieces.add(truth[part], predicted[part], jacobian[part])
    whole, cut = meter(truth, predicted, jacobian).to_dict(), pieces.result().to_dict()
    assert whole.keys() == cut.keys()
    for name, value in whole.items():
        assert cut[name] == pytest.approx(value, rel=1e-12), name


def test_a_perfect_predictor_has_no_errors():
    truth, jacobian = spectra()
    a = meter(truth, truth, jacobian)
    assert (a.relative_worst, a.chi2_worst, max(a.shift_worst.values())) == (0.0, 0.0, 0.0)
    assert tuple(a.shift_worst) == (*OSCILLATION, NORM)


def test_it_survives_json():
    truth, jacobian = spectra()
    a = meter(truth, 1.001 * truth, jacobian)
    assert Accuracy.from_dict(json.loads(json.dumps(a.to_dict()))) == a


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t, s, j: (t[:, 1:], s, j), "one shape"),
        (lambda t, s, j: (t, s, j[..., 1:]), "one shape"),
        (lambda t, s, j: (t, np.where(t == t[1, 2], np.nan, s), j), r"nan in the prediction at \(1, 2\)"),
        (lambda t, s, j: (np.where(t == t[1, 2], 0.0, t), s, j), "bin 2 of point 1"),
        (lambda t, s, j: (t, s, np.zeros_like(j)), "zeros only"),
        (lambda t, s, j: (t, s, np.repeat(j[..., :1], 4, axis=-1)), "told apart"),
    ],
)
def test_what_is_refused(change, words):
    truth, jacobian = spectra()
    with pytest.raises(NuebarError, match=words):
        meter(*change(truth, truth.copy(), jacobian))


def test_nothing_is_refused_too():
    with pytest.raises(NuebarError, match="at least one test point"):
        AccuracyMeter().result()


# ---------------------------------------------------------------- truth


@pytest.mark.parametrize("density", [0.0, 2.45])
def test_the_folded_truth_is_reweighting(density):
    """Pair by pair, with another code for the probabilities; and derivatives against its difference quotients."""
    sample = pairs()
    exact, folded = ReweightPredictor.build(sample, threads=1), fold_pairs(sample)
    counts, jacobian = folded_spectra(folded, P, density_g_cm3=density)
    for row, ours, slopes in zip(P, counts, jacobian, strict=True):
        p = np.array([*row, density])
        np.testing.assert_allclose(ours, exact.channels(p)[0], rtol=1e-11)
        quotients = exact.source.jacobian(p, 4, 4)[0]
        assert np.all(np.abs(slopes - quotients) < 1e-7 * np.abs(quotients).max(axis=0))
    plain, none = folded_spectra(folded, P, density_g_cm3=density, jacobian=False)
    np.testing.assert_allclose(plain, counts, rtol=1e-13)
    assert none.shape == (3, 35, 0)


def test_many_points_are_those_of_few(monkeypatch):
    """More points than are held at once, and not a whole number of times as many."""
    folded = fold_pairs(pairs())
    whole = folded_spectra(folded, np.tile(P, (3, 1)))
    monkeypatch.setattr("nuebar.predict.accuracy.AT_ONCE", 2)
    for ours, theirs in zip(folded_spectra(folded, np.tile(P, (3, 1))), whole, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12 * np.abs(theirs).max())


def test_bad_points_are_refused():
    with pytest.raises(NuebarError, match="finite parameters"):
        folded_spectra(fold_pairs(pairs()), np.full((2, 4), np.nan))
