"""Random numbers of kernels: uniform, independent over keys, counters and events, and the same everywhere."""

import hashlib
import itertools
import math

import numpy as np
import pytest
from scipy import special, stats

from nuebar.errors import NuebarError
from nuebar.simulate import random
from nuebar.simulate.random import (
    DRAWS_PER_EVENT,
    derive_key,
    event_counter,
    normal,
    normal_quantile,
    poisson,
    uniform,
)

KEYS = [derive_key(1), derive_key(2), derive_key(1, "stream", 0), derive_key(1, "stream", 1)]
MASK = (1 << 64) - 1
N = 20_000


def draws(key, first=0, stride=1, n=N):
    return np.array([uniform(key, np.uint64(first + i * stride)) for i in range(n)])


def squares64(key, counter):
    """The five rounds of arXiv:2004.06278, section 4, in whole numbers of any size."""

    def turned(x):
        return (x >> 32) | (x << 32) & MASK

    y = x = counter * key & MASK
    z = (y + key) & MASK
    for add in (y, z, y):
        x = turned((x * x + add) & MASK)
    t = (x * x + z) & MASK
    x = turned(t)
    return t ^ ((x * x + y) & MASK) >> 32


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("counter", [0, 1, 2, 12_345, DRAWS_PER_EVENT, 7 * DRAWS_PER_EVENT + 3, MASK])
def test_uniform_is_squares64(key, counter):
    expected = ((squares64(int(key), counter) >> 12) + 0.5) / 2**52
    assert uniform(key, np.uint64(counter)) == expected


def test_the_smallest_and_the_largest_number_are_inside():
    # 53 bits and a half would round to exactly 1, where no quantile is finite.
    for bits in (0, MASK):
        u = (np.float64(np.uint64(bits) >> random._DROP) + 0.5) * random._TO_UNIT
        assert 0.0 < u < 1.0
        assert math.isfinite(normal_quantile(float(u)))
        assert 1.0 - u > 0.0


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("stride", [1, DRAWS_PER_EVENT])
def test_uniform_is_flat(key, stride):
    u = draws(key, stride=stride)
    counts = np.histogram(u, 100, (0, 1))[0]
    assert stats.chisquare(counts).pvalue > 1e-4
    assert stats.kstest(u, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("key", KEYS)
def test_every_bit_is_fair(key):
    bits = (draws(key) * 2.0**52).astype(np.uint64)
    ones = np.array([np.mean((bits >> np.uint64(b)) & np.uint64(1)) for b in range(52)])
    assert np.abs(ones - 0.5).max() < 4.5 * 0.5 / math.sqrt(N)


def test_keys_counters_and_events_are_independent():
    columns = [draws(k) for k in KEYS]
    columns += [draws(KEYS[0], first=1), draws(KEYS[0], first=N), draws(KEYS[0], stride=DRAWS_PER_EVENT)]
    columns += [draws(KEYS[0], first=1, stride=DRAWS_PER_EVENT)]
    columns += [draws(KEYS[0], first=lag) for lag in (2, 3, 7)]
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlation).max() < 4.5 / math.sqrt(N)
    # Pairs fill the square: neighbours in the counter and neighbouring events.
    for a, b in ((0, 4), (6, 7), (0, 1)):
        counts = np.histogram2d(columns[a], columns[b], 16, ((0, 1), (0, 1)))[0]
        assert stats.chisquare(counts.ravel()).pvalue > 1e-4


def test_events_do_not_share_counters():
    counters = [event_counter(e) for e in (0, 1, 2, 10**9)]
    assert counters == [0, DRAWS_PER_EVENT, 2 * DRAWS_PER_EVENT, 10**9 * DRAWS_PER_EVENT]


def test_quantile_against_scipy():
    tails = np.logspace(-300, math.log10(0.5), 2000)
    p = np.concatenate([tails, 1.0 - np.logspace(-15, math.log10(0.5), 500)])
    got = np.array([normal_quantile(x) for x in p])
    np.testing.assert_allclose(got, special.ndtri(p), rtol=2e-15, atol=1e-16)
    assert np.all(np.diff(got[:2000]) > 0)


@pytest.mark.parametrize("exponent", [2, 3, 10, 30, 52])
def test_quantile_is_odd(exponent):
    assert normal_quantile(2.0**-exponent) == -normal_quantile(1.0 - 2.0**-exponent)


def test_quantile_at_known_points():
    # Wichura (1988), test values of AS 241.
    assert normal_quantile(0.25) == pytest.approx(-0.6744897501960817, rel=1e-15)
    assert normal_quantile(0.001) == pytest.approx(-3.090232306167814, rel=1e-15)
    assert normal_quantile(1e-20) == pytest.approx(-9.262340089798408, rel=1e-15)


def test_normal_is_normal():
    z = np.array([normal(KEYS[0], np.uint64(i)) for i in range(N)])
    assert stats.kstest(z, "norm").pvalue > 1e-4
    assert abs(z.mean()) < 4.5 / math.sqrt(N)
    assert abs(z.var() - 1) < 4.5 * math.sqrt(2 / N)


@pytest.mark.parametrize("mean", [0.01, 0.5, 1.0, 3.7, 20.0, 59.9, 300.0])
def test_poisson_inverts_the_distribution_function(mean):
    u = draws(KEYS[1], n=3000)
    got = [poisson(mean, KEYS[1], np.uint64(i)) for i in range(u.size)]
    np.testing.assert_array_equal(got, stats.poisson.ppf(u, mean))


@pytest.mark.parametrize("mean", [0.5, 3.7, 60.0])
def test_poisson_frequencies(mean):
    n = np.array([poisson(mean, KEYS[2], np.uint64(i)) for i in range(N)])
    inner = np.arange(*stats.poisson.ppf([0.002, 0.998], mean))
    counts = np.array([np.sum(n < inner[0]), *(np.sum(n == k) for k in inner), np.sum(n > inner[-1])])
    p = stats.poisson.pmf(inner, mean)
    expected = N * np.array([stats.poisson.cdf(inner[0] - 1, mean), *p, stats.poisson.sf(inner[-1], mean)])
    assert (
        stats.chisquare(
            counts[expected > 5], expected[expected > 5] * counts[expected > 5].sum() / expected[expected > 5].sum()
        ).pvalue
        > 1e-4
    )


def test_poisson_of_nothing():
    assert {poisson(0.0, KEYS[0], np.uint64(i)) for i in range(100)} == {0}


def test_keys_are_functions_of_seed_and_words():
    text = "\x1f".join(["3", "stream", "12"])
    expected = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") | 1
    key = derive_key(3, "stream", 12)
    assert key == expected
    assert key.dtype == np.uint64
    assert key == derive_key(np.int64(3), "stream", "12")


def test_keys_are_pinned():
    # A change here changes every simulated number.
    assert int(derive_key(1, "a", 2)) == 18133332181021257641
    assert uniform(derive_key(1, "a", 2), np.uint64(5)) == pytest.approx(0.8589788143219467, abs=1e-15)


def test_other_words_give_other_odd_keys():
    words = [("a",), ("b",), ("a", "b"), ("b", "a"), ("ab",), (1,), (11,), (1, 1), ()]
    keys = [int(derive_key(s, *w)) for s, w in itertools.product((0, 1, 2), words)]
    assert len(set(keys)) == len(keys)
    assert all(k % 2 == 1 for k in keys)
    # Words cannot run into each other.
    assert derive_key(1, 1) != derive_key(11)


@pytest.mark.parametrize("seed", [-1, 1.5, 1.0, math.nan, math.inf, True, None, "1"])
def test_seed_must_be_a_whole_number(seed):
    with pytest.raises(NuebarError, match="seed: expected a whole number that is not negative, got"):
        derive_key(seed)
