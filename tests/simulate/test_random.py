"""Counter-based random numbers: uniform, independent, and the same whatever was drawn before."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtri

from nuebar.errors import NuebarError
from nuebar.kernels import njit
from nuebar.simulate.random import DRAWS_PER_EVENT, derive_key, event_counter, normal_quantile, poisson, uniform

N = 200_000


@njit
def uniforms(key, first, out):
    counter = np.uint64(first)
    for k in range(out.size):
        out[k] = uniform(key, counter)
        counter += np.uint64(1)


@njit
def poissons(mean, key, out):
    for k in range(out.size):
        out[k] = poisson(mean, key, event_counter(k))


def draw(key, first=0, n=N):
    out = np.empty(n)
    uniforms(key, first, out)
    return out


@pytest.mark.parametrize("words", [("a",), ("a", 1), ("stream", 0, "times")])
def test_numbers_are_uniform_and_uncorrelated(words):
    x = draw(derive_key(3, *words))
    assert 0 < x.min()
    assert x.max() < 1
    assert stats.kstest(x, "uniform").pvalue > 1e-4
    for lag in (1, 2, 3, 7):
        assert abs(np.corrcoef(x[:-lag], x[lag:])[0, 1]) < 5 / np.sqrt(N)


def test_other_keys_and_events_are_independent():
    x, y = draw(derive_key(1, "a")), draw(derive_key(1, "b"))
    z = draw(derive_key(1, "a"), DRAWS_PER_EVENT)
    for other in (y, z, draw(derive_key(2, "a"))):
        assert abs(np.corrcoef(x, other)[0, 1]) < 5 / np.sqrt(N)
        assert np.count_nonzero(x == other) == 0


def test_a_draw_depends_on_key_and_counter_only():
    key = derive_key(9, "x")
    np.testing.assert_array_equal(draw(key)[100:200], draw(key, 100, 100))


def test_keys_are_pinned():
    # A change here changes every simulated number.
    assert int(derive_key(1, "a", 2)) == 12331788936506149643
    assert draw(derive_key(1, "a", 2), 5, 1)[0] == pytest.approx(0.5265399962, abs=1e-9)


@pytest.mark.parametrize("seed", [-1, 1.5, True])
def test_a_bad_seed_is_refused(seed):
    with pytest.raises(NuebarError, match="seed"):
        derive_key(seed, "a")


def test_quantiles_are_those_of_the_normal_distribution():
    for p in [1e-300, 1e-20, 1e-9, 1e-4, 0.02, 0.0749, 0.0751, 0.3, 0.5, 0.8, 0.9251, 0.99, 1 - 1e-9]:
        assert normal_quantile(p) == pytest.approx(ndtri(p), rel=1e-14, abs=1e-16)


@pytest.mark.parametrize("mean", [0.0, 0.1, 1.0, 7.3, 58.0])
def test_poisson_numbers(mean):
    out = np.empty(50_000)
    poissons(mean, derive_key(4, "poisson", str(mean)), out)
    if mean == 0:
        assert not out.any()
        return
    top = int(stats.poisson.ppf(1 - 1e-4, mean))
    seen = np.bincount(np.minimum(out, top).astype(int), minlength=top + 1)
    p = np.append(stats.poisson.pmf(np.arange(top), mean), stats.poisson.sf(top - 1, mean))
    keep = p * out.size > 5
    chi2 = np.sum((seen[keep] - p[keep] * out.size) ** 2 / (p[keep] * out.size))
    assert stats.chi2.sf(chi2, keep.sum()) > 1e-4
