"""Laws of ranks, coverage and pulls: right posteriors pass at the stated rate, each kind of wrong one fails."""

import itertools

import numpy as np
import pytest
from scipy import stats

from nuebar.errors import NuebarError
from nuebar.stats.ranks import coverage, family, joint_ranks, pull_summary, ranks, thin, uniformity

CHOLESKY = np.array([[2.0, 0.0, 0.0], [-0.9, 0.4, 0.0], [1.9, 0.1, 0.3]])  # correlations near those of the response
NOISE = np.array([1.0, 0.5, 2.0])


def conjugate(sets, samples, *, shift=0.0, widen=1.0, seed=0):
    """Prior N(0, CCᵀ), data N(truth, NOISE²): truths, posterior samples (shifted, widened), log posteriors."""
    random = np.random.default_rng(seed)
    prior = np.linalg.inv(CHOLESKY @ CHOLESKY.T)
    covariance = np.linalg.inv(prior + np.diag(NOISE**-2))
    truth = random.standard_normal((sets, 3)) @ CHOLESKY.T
    data = truth + NOISE * random.standard_normal((sets, 3))
    mean = data * NOISE**-2 @ covariance
    root = np.linalg.cholesky(covariance)
    sigma = np.sqrt(np.diag(covariance))
    draws = mean[:, None] + shift * sigma + widen * random.standard_normal((sets, samples, 3)) @ root.T

    def log_posterior(x):
        centre = (mean + shift * sigma).reshape((sets,) + (1,) * (x.ndim - 2) + (3,))
        z = np.linalg.solve(root, (x - centre).reshape(-1, 3).T) / widen
        return -0.5 * (z**2).sum(axis=0).reshape(x.shape[:-1])

    return truth, draws, log_posterior


CASES = {  # options of the posterior, does it pass
    "right": ({}, True),
    "shifted": ({"shift": 0.4}, False),
    "too wide": ({"widen": 1.4}, False),
    "too narrow": ({"widen": 0.7}, False),
}


@pytest.mark.parametrize(("options", "passes"), CASES.values(), ids=CASES)
def test_a_conjugate_model_end_to_end(options, passes):
    sets, samples = 500, 200
    truth, draws, log_posterior = conjugate(sets, samples, **options)
    r = ranks(draws, truth)
    joint = joint_ranks(draws, truth)
    exact = ranks(log_posterior(draws)[..., None], log_posterior(truth)[..., None])[..., 0]
    assert r.shape == (sets, 3)
    assert joint.shape == exact.shape == (sets,)
    assert np.corrcoef(joint, exact)[0, 1] > 0.97  # a Gaussian: both orders agree but for the sample covariance
    verdict = family(
        {f"ranks {i}": p for i, p in enumerate(uniformity(r, samples).p_value)}
        | {"joint ranks": uniformity(joint, samples).p_value[0]}
        | {
            f"{name} {i}": p
            for name, c in (
                ("central", coverage(r, samples)),
                ("joint", coverage(joint, samples, region="highest")),
                ("density", coverage(exact, samples, region="highest")),
            )
            for i, p in enumerate(c.p_value.ravel())
        }
    )
    assert verdict.passes is passes
    assert (verdict.corrected[verdict.worst] < 0.01) is not passes


def test_wide_posteriors_cover_too_often():
    sets, samples = 400, 150
    for widen, sign in ((1.5, 1), (0.6, -1)):
        truth, draws, _ = conjugate(sets, samples, widen=widen)
        for c in (
            coverage(ranks(draws, truth), samples, levels=[0.5, 0.8]),
            coverage(joint_ranks(draws, truth), samples, levels=[0.5, 0.8], region="highest"),
        ):
            nominal = c.nominal.reshape((2,) + (1,) * (c.observed.ndim - 1))
            assert np.all(sign * (c.observed - nominal) > 0.05)
            assert np.all(c.p_value < 0.05)


# Ranks ----------------------------------------------------------------------------------------------------------------


def test_ranks_count_samples_below():
    samples = np.array([[1.0, -1.0], [2.0, -2.0], [3.0, -3.0]])
    np.testing.assert_array_equal(ranks(samples, [2.5, -5.0]), [2, 0])
    np.testing.assert_array_equal(ranks(samples[None], [[9.0, 0.0]]), [[3, 3]])
    np.testing.assert_array_equal(ranks(-samples, [-2.5, 5.0]), [1, 3])  # reflected


def test_ranks_do_not_care_for_monotone_maps():
    truth, draws, _ = conjugate(20, 50)
    np.testing.assert_array_equal(ranks(np.exp(draws), np.exp(truth)), ranks(draws, truth))


def test_joint_ranks_do_not_care_for_linear_maps():
    truth, draws, _ = conjugate(20, 50)
    matrix, offset = np.diag([1e4, 1e-3, 1.0]) @ CHOLESKY, np.array([1e4, 0.0, 7.0])
    np.testing.assert_array_equal(
        joint_ranks(draws @ matrix.T + offset, truth @ matrix.T + offset), joint_ranks(draws, truth)
    )


def test_joint_ranks_run_from_outside_in():
    draws = np.random.default_rng(0).standard_normal((99, 2))
    assert joint_ranks(draws, [9.0, 9.0]) == 0
    assert joint_ranks(draws, [0.0, 0.0]) >= 98


@pytest.mark.parametrize("samples", [3, 5, 40])
def test_joint_ranks_of_any_exchangeable_points_are_uniform(samples):
    """Also with few samples and a skewed posterior, since the truth enters centre and covariance."""
    points = np.random.default_rng(7).gamma(0.5, 1.0, (3000, samples + 1, 2))
    r = joint_ranks(points[:, 1:], points[:, 0])
    assert uniformity(r, samples).p_value[0] > 0.01


@pytest.mark.parametrize(("n", "effective", "kept"), [(100, 30.9, 30), (100, 1e4, 100), (7, [9.0, 3.0], 3), (5, 1, 1)])
def test_thinning_is_even_and_keeps_the_least_effective(n, effective, kept):
    thinned = thin(np.arange(n, dtype=float)[:, None], effective)
    assert thinned.shape == (kept, 1)
    steps = np.diff(thinned[:, 0])
    assert steps.size == 0 or steps.max() - steps.min() <= 1
    whole = ranks(np.arange(n, dtype=float)[:, None], [1e9], effective=effective)
    np.testing.assert_array_equal(whole, [kept])


def test_correlated_chains_fail_until_thinned():
    sets, n, rho = 1000, 400, 0.97
    random = np.random.default_rng(9)
    truth = random.standard_normal((sets, 1))
    chain = np.empty((sets, n, 1))
    chain[:, 0] = random.standard_normal((sets, 1))
    for k in range(1, n):
        chain[:, k] = rho * chain[:, k - 1] + np.sqrt(1 - rho**2) * random.standard_normal((sets, 1))
    effective = n * (1 - rho) / (1 + rho) / 2  # two autocorrelation times apart
    assert uniformity(ranks(chain, truth), n).p_value[0] < 1e-4
    assert uniformity(ranks(chain, truth, effective=effective), int(effective)).p_value[0] > 0.01


# Uniformity -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sets", "samples"), [(1, 3), (2, 2), (4, 2), (5, 3), (3, 6)])
def test_kolmogorov_is_exact(sets, samples):
    """Against every possible set of ranks."""
    cells = samples + 1
    line = np.arange(1, cells + 1) / cells
    every = np.array(list(itertools.product(range(cells), repeat=sets)))
    distance = np.abs((every[:, :, None] <= np.arange(cells)).mean(axis=1) - line).max(axis=1)
    for chosen in np.unique(distance.round(12)):
        at = np.argmin(np.abs(distance - chosen))
        expected = (distance >= distance[at] - 1e-9).mean()
        np.testing.assert_allclose(uniformity(every[at], samples).kolmogorov[0], expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_kolmogorov_of_many_values_is_the_continuous_one(seed):
    r = np.random.default_rng(seed).integers(0, 20_001, 60)
    p = uniformity(r, 20_000).kolmogorov[0]
    continuous = stats.ks_1samp((r + 0.5) / 20_001, stats.uniform.cdf).pvalue
    assert abs(p - continuous) < 0.005


@pytest.mark.parametrize(("samples", "sets"), [(9, 100), (63, 300), (1000, 100)])
def test_p_values_of_uniform_ranks_are_uniform(samples, sets):
    u = uniformity(np.random.default_rng(5).integers(0, samples + 1, (sets, 400)), samples)
    for p in (u.chi_square, u.kolmogorov):
        assert p.shape == (400,)
        for level in (0.01, 0.1, 0.5):
            assert (p <= level).mean() <= level + 4 * np.sqrt(level * (1 - level) / 400)
        assert (p <= 0.5).mean() > 0.33  # nor are they too large
    assert (u.p_value <= 0.1).mean() <= 0.1 + 4 * 0.015


def test_bins_need_not_divide_the_ranks():
    """7 values in 3 bins hold 3, 2 and 2: perfectly uniform ranks have χ² = 0."""
    u = uniformity(np.repeat(np.arange(7), 30), 6, bins=3)
    np.testing.assert_allclose([u.chi_square[0], u.kolmogorov[0]], 1.0)


def test_chi_square_against_scipy():
    r = np.random.default_rng(2).integers(0, 100, 300)
    expected = stats.chisquare(np.histogram(r, bins=np.arange(0, 101, 5))[0]).pvalue
    np.testing.assert_allclose(uniformity(r, 99).chi_square[0], expected, rtol=1e-10)
    assert uniformity(r, 99).bins == 20


@pytest.mark.parametrize("name", ["shift", "dome", "bowl"])
def test_small_departures_are_seen(name):
    z = np.random.default_rng(6).standard_normal(2000)
    u = stats.norm.cdf({"shift": z + 0.2, "dome": 0.85 * z, "bowl": 1.15 * z}[name])
    assert uniformity((u * 101).astype(int), 100).p_value[0] < 1e-3


def test_hopeless_ranks_have_a_small_finite_p_value():
    u = uniformity(np.full(500, 100), 100)
    assert 0 <= u.kolmogorov[0] < 1e-100
    assert 0 <= u.chi_square[0] < 1e-100


# Coverage -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("region", ["central", "highest"])
@pytest.mark.parametrize("samples", [10, 99, 1000])
def test_every_rank_once_covers_as_nominal(region, samples):
    c = coverage(np.arange(samples + 1), samples, region=region)
    np.testing.assert_allclose(c.observed, c.nominal, rtol=1e-12)
    assert np.all(np.abs(c.nominal - c.levels) <= 1.0 / (samples + 1) + 1e-12)
    assert np.all(np.diff(c.observed) >= 0)
    np.testing.assert_allclose(c.p_value, 1.0)


def test_regions_hold_the_right_ranks():
    r = np.array([0, 50, 100])
    np.testing.assert_array_equal(coverage(r, 100, levels=[0.1, 0.995]).observed, [1 / 3, 1.0])
    highest = coverage(r[:, None], 100, levels=[0.1, 0.6], region="highest")
    np.testing.assert_allclose(highest.observed, [[1 / 3], [2 / 3]])


def test_intervals_are_clopper_pearson():
    for held, sets in ((0, 12), (7, 12), (12, 12), (680, 1000)):
        r = np.where(np.arange(sets) < held, 50, 0)
        c = coverage(r, 100, levels=[0.5])
        ci = stats.binomtest(held, sets).proportion_ci(0.682689492137086, method="exact")
        np.testing.assert_allclose([c.observed[0], c.low[0], c.high[0]], [held / sets, ci.low, ci.high], rtol=1e-10)
        tails = [stats.binomtest(held, sets, c.nominal[0], alternative=a).pvalue for a in ("less", "greater")]
        np.testing.assert_allclose(c.p_value[0], min(1.0, 2 * min(tails)), rtol=1e-10)


# Pulls ----------------------------------------------------------------------------------------------------------------


def estimates(sets, *, shift=0.0, scale=1.0, columns=200, seed=1):
    random = np.random.default_rng(seed)
    errors = random.uniform(0.8, 1.2, (sets, columns))
    truth = np.linspace(-5, 5, columns)
    return truth + errors * (shift + scale * random.standard_normal((sets, columns))), errors, truth


@pytest.mark.parametrize("sets", [20, 400])
def test_right_pulls_have_uniform_p_values_and_honest_errors(sets):
    s = pull_summary(*estimates(sets, columns=400))
    assert s.sets == sets
    for name in ("p_mean", "p_width"):
        assert stats.kstest(getattr(s, name), "uniform").pvalue > 0.01, name
    assert (s.p_bias <= 0.1).mean() < 0.1 + 4 * 0.015
    for value, error, expected in (
        (s.mean, s.mean_error, 0.0),
        (s.bias, s.bias_error, 0.0),
        (s.width, s.width_error, 1.0),
        (s.spread, s.spread_error, 1.0),
        (s.spread_median, s.spread_median_error, 1.0),
    ):
        z = (value - expected) / error
        assert abs(z.std() - 1) < (0.25 if sets < 100 else 0.15)
        assert abs(z.mean()) < 0.5
    assert s.spread_median_error.mean() > 1.5 * s.spread_error.mean()


@pytest.mark.parametrize(
    ("options", "failing"),
    [({"shift": 0.3}, {"p_mean", "p_bias"}), ({"scale": 1.3}, {"p_width"}), ({"scale": 0.75}, {"p_width"})],
)
def test_wrong_pulls_fail_where_they_are_wrong(options, failing):
    s = pull_summary(*estimates(400, columns=100, **options))
    for name in ("p_mean", "p_bias", "p_width"):
        assert (np.median(getattr(s, name)) < 0.001) == (name in failing), name
    scale = options.get("scale", 1.0)
    np.testing.assert_allclose([s.width.mean(), s.spread.mean(), s.spread_median.mean()], scale, rtol=0.02)
    np.testing.assert_allclose(s.mean.mean(), options.get("shift", 0.0), atol=0.02)


def test_bias_and_spread_scale_with_the_unit():
    values, errors, truth = estimates(50, shift=0.5, columns=3)
    a, b = pull_summary(values, errors, truth), pull_summary(1e3 * values, 1e3 * errors, 1e3 * truth)
    np.testing.assert_allclose(b.bias, 1e3 * a.bias, rtol=1e-10)
    np.testing.assert_allclose(b.bias_error, 1e3 * a.bias_error, rtol=1e-10)
    for name in ("mean", "width", "spread", "spread_median", "p_mean", "p_width", "p_bias"):
        np.testing.assert_allclose(getattr(b, name), getattr(a, name), rtol=1e-8)


def test_medians_ignore_one_wild_fit():
    values, errors, truth = estimates(201, columns=3)
    wild = values.copy()
    wild[0] = 1e6
    a, b = pull_summary(values, errors, truth), pull_summary(wild, errors, truth)
    np.testing.assert_allclose(a.spread_median, b.spread_median, rtol=0.05)
    np.testing.assert_allclose(a.bias, b.bias, atol=0.05)
    assert np.all(b.spread > 1e4)


def test_p_values_against_scipy():
    values, errors, truth = estimates(30, columns=1, shift=0.2)
    s, pull = pull_summary(values, errors, truth), ((values - truth) / errors)[:, 0]
    np.testing.assert_allclose(s.p_mean[0], stats.ttest_1samp(pull, 0.0).pvalue, rtol=1e-10)
    sign = stats.binomtest(int((pull > 0).sum()), 30).pvalue
    np.testing.assert_allclose(s.p_bias[0], sign, rtol=1e-10)
    tail = stats.chi2.cdf(((pull - pull.mean()) ** 2).sum(), 29)
    np.testing.assert_allclose(s.p_width[0], 2 * min(tail, 1 - tail), rtol=1e-10)


# Family ---------------------------------------------------------------------------------------------------------------


def test_holm():
    """Holm's procedure by hand: 0.004 · 4, 0.01 · 3, then 0.03 · 2 = 0.06 ≥ 0.05 · 1."""
    f = family({"a": 0.03, "b": 0.004, "c": 0.05, "d": 0.01}, level=0.05)
    np.testing.assert_allclose([f.corrected[k] for k in "abcd"], [0.06, 0.016, 0.06, 0.03])
    assert (f.passes, f.worst, f.level, list(f.corrected)) == (False, "b", 0.05, list("abcd"))
    assert family({"a": 0.03, "b": 0.004}).corrected["b"] == 0.008
    assert family({"a": 0.006}).passes is False
    assert family({"a": 0.006, "b": 1.0}).passes is True


@pytest.mark.parametrize("m", [1, 5, 40])
@pytest.mark.parametrize("correlated", [False, True])
def test_a_true_family_fails_at_most_at_its_level(m, correlated):
    random = np.random.default_rng(12)
    trials, level = 2000, 0.1
    failures = 0
    for _ in range(trials):
        p = np.repeat(random.uniform(), m) if correlated else random.uniform(size=m)
        failures += not family({str(i): x for i, x in enumerate(p)}, level).passes
    assert failures / trials < level + 4 * np.sqrt(level * (1 - level) / trials)
    if not correlated:
        assert failures / trials > 0.07


GOOD = np.random.default_rng(0).standard_normal((10, 5, 2))
BAD = {
    "shape": (lambda: ranks(GOOD, np.zeros((10, 3))), "samples must be of shape"),
    "nan": (lambda: ranks(GOOD, np.full((10, 2), np.nan)), r"truth must be finite numbers, got nan at \[0, 0\]"),
    "no samples": (lambda: ranks(np.empty((10, 0, 2)), np.zeros((10, 2))), "samples must be finite"),
    "effective": (lambda: ranks(GOOD, np.zeros((10, 2)), effective=0.4), "effective sample size"),
    "flat": (lambda: thin(np.zeros(3), 2), "samples must be of shape"),
    "few": (lambda: joint_ranks(GOOD[:, :2], np.zeros((10, 2))), "more than the 2 parameters"),
    "constant": (lambda: joint_ranks(GOOD * [1, 0], np.zeros((10, 2))), "constant"),
    "singular": (lambda: joint_ranks(GOOD[..., [0, 0]], np.zeros((10, 2))), "singular"),
    "rank": (lambda: uniformity([1, 7], 5), "after thinning"),
    "float": (lambda: uniformity([0.1, 0.7], 5), "whole numbers"),
    "bins": (lambda: uniformity([1, 3], 5, bins=9), "bins must lie"),
    "level": (lambda: coverage([1, 3], 5, levels=[0.5, 1.0]), "levels must be"),
    "region": (lambda: coverage([1, 3], 5, region="upper"), "region must be"),
    "sets": (lambda: pull_summary([1.0, 2.0], [1.0, 1.0], 0.0), "at least 3 sets"),
    "truth": (lambda: pull_summary(np.ones((4, 2)), np.ones((4, 2)), np.ones(3)), "truth broadcast"),
    "errors": (lambda: pull_summary([1.0, 2.0, 3.0], [1.0, 0.0, 1.0], 0.0), "errors must be above 0"),
    "same": (lambda: pull_summary([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], 0.0), "values must differ"),
    "no tests": (lambda: family({}), "at least one test"),
    "p": (lambda: family({"a": 0.5, "b": float("nan")}), "got nan for 'b'"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_refusals(call, message):
    with pytest.raises(NuebarError, match=message):
        call()
