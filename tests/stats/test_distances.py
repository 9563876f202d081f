"""Laws of the distances: closed forms, a metric, scalings, agreement with brute force; and of their floor."""

import itertools

import numpy as np
import pytest
from scipy import integrate, stats

from nuebar.errors import NuebarError
from nuebar.stats.distances import Distances, cdf_distances, sample_distances, statistical_floor

RNG = np.random.default_rng(3)
NAMES = ("d1", "d2", "d_inf")
EDGES = {
    "even": np.linspace(0.4, 16.4, 81),
    "uneven": np.cumsum(RNG.uniform(0.05, 0.4, 41)),
    "two": np.array([0.0, 1.0, 3.0]),
}


def histograms(edges, n=3):
    return np.random.default_rng(edges.size).gamma(0.7, 1.0, (n, edges.size - 1))


def table(d):
    return np.stack([getattr(d, name) for name in NAMES])


@pytest.mark.parametrize("bins", [1, 2, 7])
def test_shift_of_a_one_bin_peak(bins):
    """Two ramps of one bin and a plateau between them."""
    h, edges = 0.25, 2.0 + 0.25 * np.arange(21)
    one = np.eye(20)
    d = cdf_distances(one[5], one[5 + bins], edges)
    expected = (bins * h, np.sqrt((bins - 1 + 2 / 3) * h), 1.0)
    np.testing.assert_allclose(table(d), expected, rtol=1e-13)


@pytest.mark.parametrize("edges", EDGES.values(), ids=EDGES)
def test_brute_force(edges):
    u, v, _ = histograms(edges)
    x = np.linspace(edges[0], edges[-1], 400_001)
    F, G = (np.interp(x, edges, np.append(0.0, np.cumsum(w)) / w.sum()) for w in (u, v))
    diff = np.abs(F - G)
    expected = (integrate.trapezoid(diff, x), np.sqrt(integrate.trapezoid(diff**2, x)), diff.max())
    np.testing.assert_allclose(table(cdf_distances(u, v, edges)), expected, rtol=3e-5)


def test_sign_change_inside_a_bin():
    """F − G = 0, 1/4, −1/4, 0 at the edges: the middle bin is two triangles."""
    d = cdf_distances([3, 0, 1], [2, 2, 0], [0.0, 1.0, 2.0, 3.0])
    np.testing.assert_allclose(table(d), (1 / 8 + 1 / 8 + 1 / 8, np.sqrt(3 / 48), 0.25), rtol=1e-13)


@pytest.mark.parametrize("edges", EDGES.values(), ids=EDGES)
def test_metric(edges):
    u, v, w = histograms(edges)
    uv, vw, uw = (table(cdf_distances(a, b, edges)) for a, b in ((u, v), (v, w), (u, w)))
    np.testing.assert_array_equal(table(cdf_distances(u, 7.0 * u, edges)) < 1e-15, True)
    np.testing.assert_allclose(table(cdf_distances(v, u, edges)), uv, rtol=1e-13)
    assert np.all(uw <= uv + vw)
    assert np.all(uv > 0)


@pytest.mark.parametrize("edges", EDGES.values(), ids=EDGES)
def test_scalings(edges):
    u, v, _ = histograms(edges)
    d = table(cdf_distances(u, v, edges))
    np.testing.assert_allclose(table(cdf_distances(9 * u, 0.1 * v, edges)), d, rtol=1e-12)  # normalised
    np.testing.assert_allclose(table(cdf_distances(u, v, 5.0 + 4.0 * edges)), d * (4.0, 2.0, 1.0), rtol=1e-12)
    mixture = 0.7 * u / u.sum() + 0.3 * v / v.sum()
    np.testing.assert_allclose(table(cdf_distances(u, mixture, edges)), 0.3 * d, rtol=1e-12)
    halves = np.sort(np.concatenate([edges, (edges[1:] + edges[:-1]) / 2]))
    split = table(cdf_distances(np.repeat(u, 2), np.repeat(v, 2), halves))
    np.testing.assert_allclose(split[:2], d[:2], rtol=1e-12)  # the same two densities
    d1, d2, d_inf = d
    length = edges[-1] - edges[0]
    assert d1 / np.sqrt(length) <= d2 <= np.sqrt(d1 * d_inf)
    assert d1 <= d_inf * length


def test_d1_is_the_difference_of_means_when_one_lies_above():
    edges = EDGES["uneven"]
    u, v = np.arange(1.0, 41.0), np.ones(40)
    centres = (edges[1:] + edges[:-1]) / 2
    means = [(w * centres).sum() / w.sum() for w in (u, v)]
    np.testing.assert_allclose(cdf_distances(u, v, edges).d1, means[0] - means[1], rtol=1e-12)


def test_batches_are_loops():
    edges = EDGES["even"]
    u = np.random.default_rng(1).poisson(5.0, (4, 3, 80))
    v = np.random.default_rng(2).uniform(size=(3, 80))
    d = table(cdf_distances(u, v, edges))
    assert d.shape == (3, 4, 3)
    for i, j in np.ndindex(4, 3):
        np.testing.assert_allclose(d[:, i, j], table(cdf_distances(u[i, j], v[j], edges)), rtol=1e-12)


# Unbinned -------------------------------------------------------------------------------------------------------------


def test_one_value_in_the_middle():
    expected = (1 / 4, np.sqrt(1 / 12), 1 / 2)
    for cdf, limits in (((np.array([0.0, 1.0]), np.array([0.0, 1.0])), None), (lambda x: x, (0.0, 1.0))):
        np.testing.assert_allclose(table(sample_distances([0.5], cdf, limits=limits)), expected, rtol=1e-12)


@pytest.mark.parametrize(("shift", "n"), [(0.0, 1000), (0.1, 1000), (0.0, 7), (-2.0, 50)])
def test_sample_against_scipy(shift, n):
    values = stats.norm(5.0 + shift, 0.5).rvs(n, random_state=11)
    model = stats.norm(5.0, 0.5)
    d = sample_distances(values, model.cdf, limits=(0.0, 10.0))
    np.testing.assert_allclose(d.d_inf, stats.ks_1samp(values, model.cdf).statistic, rtol=1e-12)
    nodes = np.unique(np.concatenate([[0.0, 10.0], values, np.linspace(2, 8, 61)]))  # no jump inside a piece
    sums = np.zeros(2)
    for a, b in itertools.pairwise(nodes):
        step = (values <= a).mean()
        x, w = np.polynomial.legendre.leggauss(40)
        f = np.abs(model.cdf((a + b) / 2 + (b - a) / 2 * x) - step)
        sums += (b - a) / 2 * np.array([w @ f, w @ f**2])
    np.testing.assert_allclose(d.d1, sums[0], atol=1e-6, rtol=2e-4)
    np.testing.assert_allclose(d.d2, np.sqrt(sums[1]), rtol=1e-6)


def test_stated_accuracy_of_the_grid():
    """One value far below a narrow peak: F − F_n keeps its sign, d1 = mean distance, the error is the stated one."""
    model, s = stats.norm(12.0, 0.05), 0.05
    for points in (2001, 20_001):
        delta = (16.0 / (points - 1)) ** 2 / 12 * 0.8 / s
        error = abs(float(sample_distances([11.0], model.cdf, limits=(0.4, 16.4), points=points).d1) - 1.0)
        assert error <= delta
    assert error < 1e-6


def test_sample_d2_is_the_cramer_von_mises_of_a_uniform():
    """scipy's statistic is N ∫(F_n − F)² dF, and dF = dx for a uniform."""
    values = np.random.default_rng(8).uniform(size=37)
    d = sample_distances(values, ([0.0, 1.0], [0.0, 1.0]))
    np.testing.assert_allclose(37 * d.d2**2, stats.cramervonmises(values, "uniform").statistic, rtol=1e-12)


def test_many_values_reach_the_binned_distances():
    edges = EDGES["even"]
    u, v, _ = histograms(edges)
    cdf = np.append(0.0, np.cumsum(v)) / v.sum()
    quantiles = np.interp((np.arange(200_000) + 0.5) / 200_000, np.append(0.0, np.cumsum(u)) / u.sum(), edges)
    d = sample_distances(quantiles, (edges, cdf))
    np.testing.assert_allclose(table(d), table(cdf_distances(u, v, edges)), rtol=1e-4)


# Floor ----------------------------------------------------------------------------------------------------------------

PEAK = np.diff(stats.norm(8.0, 1.5).cdf(EDGES["even"]))


def test_floor_falls_as_one_over_root_n():
    few, many = (statistical_floor(PEAK, EDGES["even"], n, draws=400) for n in (500, 50_000))
    for name in NAMES:
        a, b = (getattr(f.mean, name) for f in (few, many))
        error = 10 * np.hypot(getattr(few.spread, name) / 10, getattr(many.spread, name)) / 20 / a
        assert abs(10 * b / a - 1) < 4 * error + 0.01
        assert getattr(few.upper, name) > a


def test_floor_against_its_exact_variance():
    """E(F_n − F)(x)(F_n − F)(y) = F(x)(1 − F(y))/N at edges x ≤ y, linear between: E d2² in closed form."""
    edges, n, draws = EDGES["even"], 300, 2000
    f = statistical_floor(PEAK, edges, n, draws=draws)
    F = np.clip(np.append(0.0, np.cumsum(PEAK / PEAK.sum())), 0.0, 1.0)
    a, b = F[:-1], F[1:]
    exact = ((a * (1 - a) + a * (1 - b) + b * (1 - b)) * np.diff(edges)).sum() / 3 / n
    measured = f.mean.d2**2 + f.spread.d2**2 * (draws - 1) / draws
    error = 2 * f.mean.d2 * f.spread.d2 / np.sqrt(draws)
    assert abs(measured - exact) < 4 * error
    # d1: the mean of |normal| at every x
    d1 = integrate.trapezoid(np.sqrt(2 / np.pi * F * (1 - F) / n), edges)
    assert abs(f.mean.d1 / d1 - 1) < 0.03


def test_floor_mean_of_kolmogorov():
    """0.8687/√N, less 0.5826 √(share of a bin) for the maximum over bins only (Broadie, Glasserman and Kou 1997)."""
    bins, n = 2000, 100_000
    f = statistical_floor(np.ones(bins), np.linspace(0, 1, bins + 1), n, draws=1000)
    expected = (np.sqrt(np.pi / 2) * np.log(2) - 0.5826 / np.sqrt(bins)) / np.sqrt(n)
    assert abs(f.mean.d_inf - expected) < 4 * f.spread.d_inf / np.sqrt(1000)
    assert abs(f.upper.d_inf * np.sqrt(n) / 1.3581 - 1) < 0.06  # 95 % quantile of the limiting distribution


def test_unbinned_mean_of_kolmogorov():
    """√N d_inf has mean 0.8687 − 1/(6√N) to this order (Pelz and Good 1976), here from exact statistics."""
    n, draws = 400, 600
    random = np.random.default_rng(4)
    uniform = ([0.0, 1.0], [0.0, 1.0])
    d = np.array([sample_distances(random.uniform(size=n), uniform).d_inf for _ in range(draws)]) * np.sqrt(n)
    assert abs(d.mean() - (0.8687 - 1 / (6 * np.sqrt(n)))) < 4 * d.std() / np.sqrt(draws)


def test_floor_of_rows_and_seeds():
    rows = np.stack([PEAK, PEAK[::-1]])
    f = statistical_floor(rows, EDGES["even"], [100, 10_000], draws=50)
    assert f.mean.d1.shape == f.upper.d_inf.shape == (2,)
    assert 7 < f.mean.d1[0] / f.mean.d1[1] < 14
    again, other = (statistical_floor(rows, EDGES["even"], [100, 10_000], draws=50, seed=s) for s in (20250731, 1))
    np.testing.assert_array_equal(table(f.mean), table(again.mean))
    assert not np.any(table(f.mean) == table(other.mean))


BAD = {
    "shape": (lambda: cdf_distances([1, 2], [1, 2, 3], [0, 1, 2, 3]), "observed must have 3 bins"),
    "axes": (lambda: cdf_distances(np.ones((2, 3)), np.ones((4, 3)), [0, 1, 2, 3]), "leading axes"),
    "negative": (lambda: cdf_distances([1, -2], [1, 2], [0, 1, 2]), r"-2.0 at \[1\]"),
    "nan": (lambda: cdf_distances([[1, 1], [1, np.nan]], [1, 2], [0, 1, 2]), r"nan at \[1, 1\]"),
    "empty": (lambda: cdf_distances([[1, 1], [0, 0]], [1, 2], [0, 1, 2]), r"observed has no events in row \[1\]"),
    "edges": (lambda: cdf_distances([1, 1], [1, 2], [0, 2, 1]), "edges must be"),
    "no values": (lambda: sample_distances([], ([0, 1], [0, 1])), "at least one event"),
    "no limits": (lambda: sample_distances([0.5], lambda x: x), "limits"),
    "outside": (lambda: sample_distances([0.5, 1.5], ([0, 1], [0, 1])), "values must lie in"),
    "nan value": (lambda: sample_distances([0.5, np.nan], ([0, 1], [0, 1])), "values must lie in"),
    "not normal": (lambda: sample_distances([0.5], lambda x: 0.9 * x, limits=(0, 1)), "ascend from 0 to 1"),
    "falls": (lambda: sample_distances([0.5], ([0, 1, 2, 3], [0, 0.6, 0.5, 1])), "ascend from 0 to 1"),
    "cdf shape": (lambda: sample_distances([0.5], lambda x: x[:2], limits=(0, 1)), "one number per value"),
    "events": (lambda: statistical_floor([1, 1], [0, 1, 2], 10.5), "events must be whole"),
    "draws": (lambda: statistical_floor([1, 1], [0, 1, 2], 10, draws=1), "draws must be"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_refusals(call, message):
    with pytest.raises(NuebarError, match=message):
        call()


def test_records_are_frozen():
    with pytest.raises(AttributeError):
        Distances(np.ones(1), np.ones(1), np.ones(1)).d1 = 2.0
