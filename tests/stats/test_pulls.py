"""The verdict on a chain: rarely wrong on right pulls, and right on wrong ones; nothing is dropped in silence."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import integrate, stats

from nuebar.errors import NuebarError
from nuebar.stats.pulls import anderson_darling, anderson_darling_tail, calibration, mahalanobis
from nuebar.stats.ranks import family, pull_summary

SEEDS, PARAMETERS = 200, 10
NAMES = tuple(f"p{k}" for k in range(PARAMETERS))


def right_pulls(seed, shape=(SEEDS, PARAMETERS)):
    return np.random.default_rng(seed).standard_normal(shape)


def at_most(share, trials):
    """Largest number of successes that chance gives in all but one of 10⁴ cases."""
    return stats.binom.isf(1e-4, trials, share)


# False alarms and power -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seeds", "level"), [(SEEDS, 0.01), (SEEDS, 0.2), (20, 0.1)])
def test_right_pulls_fail_at_most_at_the_level(seeds, level):
    """200 families; at 0.2 and 0.1 the test is also not far from its level, as one of no power would be."""
    alarms = 0
    for family_seed in range(200):
        pulls = right_pulls((1, family_seed), (seeds, PARAMETERS))
        d2 = np.sum(pulls[:, :4] ** 2, axis=1)
        alarms += not calibration(pulls, NAMES, distances=d2, dof=4, level=level).consistent
    assert alarms <= at_most(level, 200)
    if level > 0.05:
        assert alarms > 0.25 * level * 200


def shifted(pulls):
    pulls[:, 3] += 0.4


def widened(pulls):
    pulls[:, 3] *= 1.25


def narrowed(pulls):
    pulls[:, 3] *= 0.8


def heavy_tailed(pulls):
    """Student's t of 3 degrees of freedom."""
    pulls[:, 3] = np.random.default_rng(pulls[0, 0].view(np.uint64)).standard_t(3, len(pulls))


def heavy_tailed_of_width_one(pulls):
    heavy_tailed(pulls)
    pulls[:, 3] /= np.sqrt(3.0)


def two_wild(pulls):
    pulls[:2, 3] = 6.0, -6.0


def two_minima(pulls):
    """Half of the fits at −1, half at +1: mean 0 and width 1."""
    pulls[:, 3] = np.where(pulls[:, 3] > 0, 0.95, -0.95) + 0.312 * pulls[:, 4]


@pytest.mark.parametrize(
    ("spoil", "test", "power"),
    [
        (shifted, {"mean", "shape"}, 0.95),
        (widened, {"width"}, 0.6),
        (narrowed, {"width"}, 0.6),
        (heavy_tailed, {"largest", "shape", "width"}, 1.0),
        (heavy_tailed_of_width_one, {"largest", "shape", "width"}, 0.4),
        (two_wild, {"largest"}, 1.0),
        (two_minima, {"shape"}, 1.0),
    ],
)
def test_one_spoilt_parameter_of_ten_is_found_and_named(spoil, test, power):
    found = []
    for seed in range(40):
        pulls = right_pulls((2, seed))
        spoil(pulls)
        verdict = calibration(pulls, NAMES)
        if not verdict.consistent:
            found.append(verdict.worst)
            assert verdict.p_value == min(verdict.corrected.values()) <= 0.01
    assert len(found) >= power * 40
    assert np.mean([worst in {f"p3: {t}" for t in test} for worst in found]) > 0.95


def test_errors_that_are_a_little_small_everywhere_are_seen_by_all_together():
    """Twelve per cent in each of four parameters: too little for one alone, not for their sum."""
    alone, together = 0, 0
    for seed in range(40):
        pulls = 1.12 * right_pulls((3, seed), (SEEDS, 4))
        verdict = calibration(pulls, NAMES[:4], distances=np.sum(pulls**2, axis=1), dof=4)
        alone += not calibration(pulls, NAMES[:4]).consistent
        together += not verdict.consistent
        assert verdict.joint.dof == 4
    assert together > 30
    assert alone < 0.7 * together


def test_a_wrong_correlation_is_seen_by_the_distances_only():
    true, claimed = np.array([[1.0, 0.9], [0.9, 1.0]]), np.eye(2)
    off = right_pulls(4, (2 * SEEDS, 2)) @ np.linalg.cholesky(true).T
    good, bad = (mahalanobis(off, np.zeros(2), np.broadcast_to(c, (2 * SEEDS, 2, 2))) for c in (true, claimed))
    assert calibration(off, NAMES[:2], distances=good, dof=2).consistent
    verdict = calibration(off, NAMES[:2], distances=bad, dof=2)
    assert not verdict.consistent
    assert verdict.worst == "all together: shape"


# The record -----------------------------------------------------------------------------------------------------------


def test_the_record_holds_the_summaries_and_the_family():
    pulls = right_pulls(5) + np.linspace(-0.1, 0.1, PARAMETERS)
    d2 = np.sum(pulls[:, :3] ** 2, axis=1)
    verdict = calibration(pulls, NAMES, distances=d2, dof=3)
    s = pull_summary(pulls, np.ones_like(pulls), 0.0)
    for name in ("mean", "mean_error", "p_mean", "width", "width_error", "p_width"):
        np.testing.assert_allclose([getattr(p, name) for p in verdict.parameters], getattr(s, name), rtol=1e-12)
    for k, p in enumerate(verdict.parameters):
        assert p.name == NAMES[k]
        assert abs(p.largest) == np.abs(pulls[:, k]).max()
        np.testing.assert_allclose(p.p_largest, 1 - (1 - 2 * stats.norm.sf(abs(p.largest))) ** SEEDS, rtol=1e-9)
    assert len(verdict.corrected) == 4 * PARAMETERS + 2
    raw = {
        f"{p.name}: {t}": getattr(p, f"p_{t}")
        for p in verdict.parameters
        for t in ("mean", "width", "shape", "largest")
    }
    raw |= {"all together: sum": verdict.joint.p_sum, "all together: shape": verdict.joint.p_shape}
    assert family(raw).corrected == verdict.corrected
    assert verdict.p_value == verdict.corrected[verdict.worst] == min(1.0, 42 * min(raw.values()))
    assert (verdict.used, verdict.failed, verdict.prior_dominated) == (SEEDS, 0, ())
    np.testing.assert_allclose((verdict.joint.mean, verdict.joint.mean_error), (d2.mean(), np.sqrt(6 / SEEDS)))
    against = anderson_darling(stats.chi2(3).logcdf(d2), stats.chi2(3).logsf(d2))
    np.testing.assert_allclose(verdict.joint.p_shape, against, rtol=1e-9)
    tail = stats.chi2.sf(d2.sum(), 3 * SEEDS)
    np.testing.assert_allclose(verdict.joint.p_sum, 2 * min(tail, 1 - tail), rtol=1e-9)


def test_the_record_goes_to_json_and_cannot_be_changed():
    verdict = calibration(right_pulls(6), NAMES, prior_ratio=np.linspace(0.1, 1.0, PARAMETERS))
    text = json.dumps(dataclasses.asdict(verdict), allow_nan=False)
    assert json.loads(text)["parameters"][3]["name"] == "p3"
    with pytest.raises(dataclasses.FrozenInstanceError):
        verdict.consistent = True


def test_signs_and_order_do_not_matter():
    pulls = right_pulls(7)
    a = calibration(pulls, NAMES)
    b = calibration(-pulls[::-1, ::-1], NAMES[::-1])
    for name, p in a.corrected.items():
        np.testing.assert_allclose(b.corrected[name], p, rtol=1e-9)


@pytest.mark.parametrize("per_seed", [False, True])
def test_prior_dominated_parameters_are_flagged_and_stay_in(per_seed):
    ratio = np.array([0.2, 0.95, np.nan, 0.89, 1.0, 0.5, 0.5, 0.5, np.nan, 0.91])
    given = np.repeat(ratio[None], SEEDS, axis=0) + 0.001 * right_pulls(8) if per_seed else ratio
    verdict = calibration(right_pulls(9), NAMES, prior_ratio=given)
    assert verdict.prior_dominated == ("p1", "p4", "p9")
    assert calibration(right_pulls(9), NAMES, prior_ratio=given, prior_limit=0.97).prior_dominated == ("p4",)
    assert verdict.parameters[2].prior_ratio is None
    assert verdict.parameters[0].prior_ratio == pytest.approx(0.2, abs=1e-3)
    assert "p1: mean" in verdict.corrected


def test_failed_fits_are_counted_and_too_many_are_no_calibration():
    pulls, failed = right_pulls(10), np.zeros(SEEDS, bool)
    d2 = np.sum(pulls[:, :2] ** 2, axis=1)
    failed[[3, 50]] = True
    kept = calibration(pulls[~failed], NAMES, distances=d2[~failed], dof=2)
    pulls[3], d2[50] = np.nan, np.nan
    verdict = calibration(pulls, NAMES, failed=failed, distances=d2, dof=2)
    assert (verdict.used, verdict.failed, verdict.consistent) == (SEEDS - 2, 2, True)
    assert verdict.corrected == kept.corrected
    assert not calibration(pulls, NAMES, failed=failed, most_failed=0.005).consistent
    failed[:20] = True
    many = calibration(pulls, NAMES, failed=failed)
    assert many.p_value > 0.01
    assert not many.consistent


# Anderson and Darling -------------------------------------------------------------------------------------------------


def test_anderson_darling_tail_is_the_published_one():
    """Critical values of case 0 (nothing fitted): M. A. Stephens, J. Am. Stat. Assoc. 69 (1974) 730, table 1A."""
    np.testing.assert_allclose(anderson_darling_tail([1.933, 2.492, 3.070]), [0.1, 0.05, 0.025], rtol=0.01)
    np.testing.assert_allclose(anderson_darling_tail(3.857), 0.01, rtol=0.03)


def test_anderson_darling_tail_against_the_characteristic_function():
    """Imhof's inversion (Biometrika 48 (1961) 419) of Π (1 − 2is/(j(j + 1)))^(−1/2), terms above 4000 as their mean."""
    weights = 1 / (np.arange(1, 4001.0) * np.arange(2, 4002.0))
    rest = 1 / 4001

    def integrand(u, x):
        angle = 0.5 * np.sum(np.arctan(weights * u)) + 0.5 * (rest - x) * u
        return np.sin(angle) / u * np.exp(-0.25 * np.sum(np.log1p((weights * u) ** 2)))

    for x in (0.2, 0.7, 2.0, 5.0):
        integral = integrate.quad(integrand, 1e-9, 1500, args=(x,), limit=1000, epsabs=1e-9)[0]
        np.testing.assert_allclose(anderson_darling_tail(x), 0.5 + integral / np.pi, atol=1e-6)


def test_anderson_darling_tail_falls_from_one_to_zero():
    x = np.linspace(0, 60, 3001)
    p = anderson_darling_tail(x)
    assert np.all(np.diff(p) <= 0)
    assert (p[0], anderson_darling_tail(1e9)) == (1.0, 0.0)
    assert np.all(p > 0)
    # the first of the weights, 1/2, rules: e^(−x) times a power of it
    np.testing.assert_allclose(np.diff(np.log(p[1500:])) / 0.02, -1 - 0.5 / x[1500:-1], rtol=2e-3)


@pytest.mark.parametrize("n", [8, 30, 200])
def test_anderson_darling_p_values_are_uniform(n):
    x = right_pulls(11, (n, 4000))
    p = anderson_darling(stats.norm.logcdf(x), stats.norm.logsf(x))
    assert p.shape == (4000,)
    for level in (0.01, 0.1, 0.5, 0.9):
        assert abs((p <= level).mean() - level) < 4 * np.sqrt(level * (1 - level) / 4000) + 0.005


def test_anderson_darling_statistic_is_its_definition():
    """∫ (F_N − F)²/(F (1 − F)) dF · N, by steps between the sorted numbers."""
    u = np.sort(np.random.default_rng(12).uniform(size=9))
    edges = np.concatenate([[0.0], u, [1.0]])
    total = 0.0
    for k in range(10):
        total += 9 * integrate.quad(lambda f, k=k: (k / 9 - f) ** 2 / (f * (1 - f)), *edges[k : k + 2])[0]
    np.testing.assert_allclose(anderson_darling(np.log(u), np.log1p(-u)), anderson_darling_tail(total), rtol=1e-6)


# Distances ------------------------------------------------------------------------------------------------------------


def test_mahalanobis_is_its_definition_in_any_unit():
    random = np.random.default_rng(13)
    half = random.standard_normal((5, 3, 3))
    covariances = half @ np.swapaxes(half, 1, 2) + 0.1 * np.eye(3)
    values, truths = random.standard_normal((5, 3)), random.standard_normal((5, 3))
    expected = [d @ np.linalg.solve(c, d) for d, c in zip(values - truths, covariances, strict=True)]
    np.testing.assert_allclose(mahalanobis(values, truths, covariances), expected, rtol=1e-10)
    unit = np.array([1e-5, 1e-3, 1e3])
    scaled = mahalanobis(values * unit, truths * unit, covariances * np.outer(unit, unit))
    np.testing.assert_allclose(scaled, expected, rtol=1e-10)


def test_a_failed_fit_has_no_distance_and_must_be_marked():
    values, c = right_pulls(14, (20, 2)), np.broadcast_to(np.eye(2), (20, 2, 2)).copy()
    values[4, 1], c[7, 0, 0] = np.nan, np.nan
    d2 = mahalanobis(values, np.zeros(2), c)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(d2)), [4, 7])
    with pytest.raises(NuebarError, match=r"distances must be finite and at least 0, got nan in row 4"):
        calibration(right_pulls(15, (20, 2)), NAMES[:2], distances=d2, dof=2)


GOOD = right_pulls(16, (20, 2))
AB = ("a", "b")
BAD = {
    "nan": (lambda: calibration(np.where(GOOD[3, 1] == GOOD, np.nan, GOOD), AB), r"got nan for 'b' in row 3 \(1 such"),
    "inf": (lambda: calibration(np.where(GOOD[0, 0] == GOOD, np.inf, GOOD), AB), "got inf for 'a' in row 0"),
    "shape": (lambda: calibration(GOOD, ("a",)), r"shape \(seeds, 1 parameters\), got \(20, 2\)"),
    "flat": (lambda: calibration(GOOD[0], AB), r"got \(2,\)"),
    "names": (lambda: calibration(GOOD, ("a", "a")), "names must differ, got 'a' twice"),
    "few": (lambda: calibration(GOOD[:5], AB), "at least 8 seeds with a good fit, got 5 of 5"),
    "all failed": (lambda: calibration(GOOD, AB, failed=np.ones(20, bool)), "got 0 of 20"),
    "flags": (lambda: calibration(GOOD, AB, failed=np.zeros(20)), "failed must be 20 truth values.*float64"),
    "flag shape": (lambda: calibration(GOOD, AB, failed=[True]), r"got bool of shape \(1,\)"),
    "same": (lambda: calibration(np.ones((20, 2)), AB), "values must differ"),
    "ratio": (lambda: calibration(GOOD, AB, prior_ratio=[0.1]), r"shape \(2,\) or \(20, 2\), got \(1,\)"),
    "ratio gap": (
        lambda: calibration(GOOD, AB, prior_ratio=np.where(GOOD > 1, np.nan, 0.5)),
        "NaN in all seeds for a parameter without prior",
    ),
    "no dof": (lambda: calibration(GOOD, AB, distances=np.ones(20)), "distances need a dof"),
    "no distances": (lambda: calibration(GOOD, AB, dof=2), "distances need a dof"),
    "number": (lambda: calibration(GOOD, AB, distances=np.ones(19), dof=2), "distances must be 20"),
    "negative": (lambda: calibration(GOOD, AB, distances=-np.ones(20), dof=2), "at least 0, got -1.0 in row 0"),
    "covariance": (
        lambda: mahalanobis(GOOD, np.zeros(2), np.broadcast_to([[1.0, 2.0], [2.0, 1.0]], (20, 2, 2))),
        "positive definite, that of seed 0",
    ),
    "no variance": (lambda: mahalanobis(GOOD, np.zeros(2), np.zeros((20, 2, 2))), "positive definite"),
    "values": (lambda: mahalanobis(GOOD, np.zeros(3), np.ones((20, 2, 2))), r"got \(20, 2\), \(20, 2, 2\) and \(3,\)"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_refusals(call, message):
    with pytest.raises(NuebarError, match=message):
        call()
