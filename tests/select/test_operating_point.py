"""Thresholds, purities and their errors: laws, and scores whose answers are known."""

import json

import numpy as np
import pytest
from scipy import stats

from nuebar.errors import NuebarError
from nuebar.select.config import load_selection
from nuebar.select.operating_point import (
    BALANCED,
    Rates,
    at_threshold,
    by_background,
    by_efficiency,
    by_f1,
    by_purity,
    curves,
    efficiency_at,
)
from nuebar.select.scores import ScoreHistogram, ScoreSample, shares

REAL = Rates(57.4, 605_602.0)
LESS = Rates(57.4, 50_000.0)  # which 60 000 pairs resolve


@pytest.fixture(scope="module")
def classes():
    """Normal scores: with unit width at ±3 the score 6 x is the exact logit."""
    rng = np.random.default_rng(4)
    return 6 * rng.normal(3, 1, 40_000), 6 * rng.normal(-3, 1, 60_000)


@pytest.fixture(scope="module", params=["sample", "histogram", "weighted sample"])
def pair(request, classes):
    signal, background = classes
    if request.param == "sample":
        return ScoreSample.of(signal), ScoreSample.of(background)
    if request.param == "histogram":
        return ScoreHistogram.of(signal), ScoreHistogram.of(background)
    return ScoreSample.of(signal, np.ones(signal.size)), ScoreSample.of(background, np.full(background.size, 3.0))


# ---------------------------------------------------------------- distributions


def test_shares_by_hand():
    sample = ScoreSample.of([1.0, 2.0, 2.0, 3.0])
    np.testing.assert_array_equal(sample.share([-np.inf, 1, 1.5, 2, 2.5, 3, 3.1]), [1, 1, 0.75, 0.75, 0.25, 0.25, 0])
    weighted = ScoreSample.of([3.0, 1.0, 2.0, 2.0], [4.0, 1.0, 2.0, 3.0])
    np.testing.assert_allclose(weighted.share([1, 2, 3, 4]), [1, 0.9, 0.4, 0])
    histogram = ScoreHistogram.of([1.0, 2.0, 2.0, 3.0, np.inf, -np.inf], low=0, high=4, bins=4)
    np.testing.assert_allclose(
        histogram.share([-np.inf, 0, 1, 1.5, 2, 3, 4, 5]), np.array([6, 5, 5, 4, 4, 2, 1, 0]) / 6
    )


def test_variance_by_hand():
    # Var f = [(1 - f)² Σ_above w² + f² Σ_below w²] / W²
    for made in (ScoreSample.of([3.0, 1.0], [4.0, 1.0]), ScoreHistogram.of([3.0, 1.0], [4.0, 1.0])):
        kept = made.kept([2.0])
        assert kept.share[0] == pytest.approx(0.8)
        assert kept.variance[0] == pytest.approx((0.2**2 * 16 + 0.8**2 * 1) / 25)


def test_even_weights_change_nothing(classes):
    plain, weighted = ScoreSample.of(classes[1]), ScoreSample.of(classes[1], np.full(classes[1].size, 7.0))
    for a, b in zip(
        shares(plain.kept([-30.0, -10.0, 3.0, 30.0])), shares(weighted.kept([-30.0, -10.0, 3.0, 30.0])), strict=True
    ):
        assert (b.value, b.low, b.high, b.effective) == pytest.approx((a.value, a.low, a.high, a.effective), rel=1e-6)


def test_histogram_is_exact_at_its_edges_and_adds_up(classes):
    s = np.append(classes[1], [np.inf, -np.inf, 200.0])
    w = np.linspace(0.5, 2, s.size)
    whole = ScoreHistogram.of(s, w)
    parts = ScoreHistogram.of(s[:5], w[:5]) + ScoreHistogram.of(s[5:], w[5:]) + ScoreHistogram.of([], [])
    sample = ScoreSample.of(s, w)
    t = whole.thresholds[::997]
    for histogram in (whole, parts):
        np.testing.assert_allclose(histogram.share(t), sample.share(t), rtol=1e-12)
        np.testing.assert_allclose(histogram.kept(t).variance, sample.kept(t).variance, rtol=1e-6, atol=1e-18)
    with pytest.raises(NuebarError, match="bins"):
        whole + ScoreHistogram.of(s, low=-1, high=1)


def brute_variance(h, w, first, second):
    """Over all pairs of pairs that share an event."""
    f = (w * h).sum() / w.sum()
    g = w * (h - f)
    shared = [
        [bool({a, b} & {c, d}) for c, d in zip(first, second, strict=True)] for a, b in zip(first, second, strict=True)
    ]
    return g @ np.array(shared, float) @ g / w.sum() ** 2


@pytest.mark.parametrize("events", [5, 40, 1000])
def test_clusters_count_every_shared_event_once(events):
    rng = np.random.default_rng(events)
    n = 60
    first = rng.integers(events, size=n)
    second = (first + rng.integers(1, events, size=n)) % events
    score, w = rng.normal(size=n).round(1), rng.uniform(0.1, 3, n)
    sample = ScoreSample.of(score, w, clusters=(first, second))
    for t in (-0.5, 0.0, 0.7, 1.5):
        want = brute_variance((score >= t).astype(float), w, first, second)
        assert sample.kept([t]).variance[0] == pytest.approx(max(want, 0), rel=1e-9, abs=1e-15)


def test_nothing_above_is_an_upper_limit():
    (share,) = shares(ScoreSample.of(np.zeros(1_000_000)).kept([1.0]))
    assert (share.value, share.low, share.effective) == (0, 0, 0)
    assert share.high == pytest.approx(1.841e-6, rel=1e-3)
    # Weighted: one event more may have the heaviest weight of the highest scores.
    for kind in (ScoreSample, ScoreHistogram):
        (share,) = shares(kind.of(np.linspace(-1, 0, 1000), np.linspace(2, 1, 1000)).kept([1.0]))
        assert share.high == pytest.approx(1.841 * 1.1 / 1500, rel=0.02)
        (share,) = shares(kind.of(np.linspace(-1, 0, 1000), np.linspace(2, 1, 1000)).kept([-1.0]))
        assert (share.value, share.high) == (1, 1)
        assert 1 - share.low == pytest.approx(1.841 * 2 / 1500, rel=0.02)


def test_weighted_intervals_cover():
    """Importance sampling: weights from 0.01 to 1, the rare ones above; 68 % of intervals hold the truth."""
    rng, held, tries = np.random.default_rng(8), 0, 400
    truth = 0.0  # share above: half the light events, of 50 % of the draws
    for _ in range(tries):
        light = rng.random(4000) < 0.5
        w, above = np.where(light, 0.01, 1.0), light & (rng.random(4000) < 0.02)
        (share,) = shares(ScoreSample.of(above.astype(float), w).kept([0.5]))
        truth = 0.01 * 0.5 * 0.02 / (0.5 * 0.01 + 0.5)
        held += share.low <= truth <= share.high
    assert 0.66 < held / tries < 0.80
    assert truth == pytest.approx(1.98e-4, rel=1e-3)


@pytest.mark.parametrize("of", [ScoreSample.of, ScoreHistogram.of])
def test_bad_scores_are_refused(of):
    with pytest.raises(NuebarError, match="NaN at pair 1"):
        of([0.0, np.nan])
    with pytest.raises(NuebarError, match="weights"):
        of([0.0, 1.0], [1.0, -1.0])
    with pytest.raises(NuebarError, match="weights"):
        of([0.0, 1.0], [1.0])


def test_empty_distributions_are_refused():
    with pytest.raises(NuebarError, match="at least one"):
        ScoreSample.of([])
    with pytest.raises(NuebarError, match="at least one"):
        ScoreHistogram.of([]).kept([0.0])
    with pytest.raises(NuebarError, match="clusters"):
        ScoreSample.of([1.0, 2.0], clusters=(np.zeros(2, int), np.zeros(3, int)))


# ---------------------------------------------------------------- operating points


def test_purity_by_hand():
    signal, background = ScoreSample.of([1.0, 2, 3, 4]), ScoreSample.of([-1.0, 0, 1, 2.5])
    point = at_threshold(signal, background, 2.0, Rates(10.0, 100.0))
    assert (point.efficiency.value, point.background.value) == (0.75, 0.25)
    assert point.purity.value == pytest.approx(7.5 / 32.5)
    assert point.f1 == pytest.approx(stats.hmean([0.75, 7.5 / 32.5]))
    assert point.ibd_per_day.value == pytest.approx(7.5)
    assert point.background_per_day.value == pytest.approx(25)
    assert point.purity.low < point.purity.value < point.purity.high


def test_largest_f1_balanced_is_where_densities_meet(pair):
    """F₁ is largest where the odds are F₁/(2 − F₁) (Z. Lipton et al., arXiv:1402.1892): next to 0 for pure classes."""
    point = by_f1(*pair, BALANCED)
    assert point.f1 == pytest.approx(1 / (1 + stats.norm.sf(3)), abs=4e-4)
    assert abs(point.threshold) < 2.5


def true_f1(threshold, rates):
    eff, false = stats.norm.sf(threshold / 6 - 3), stats.norm.sf(threshold / 6 + 3)
    return 2 * rates.ibd * eff / (rates.ibd * eff + rates.accidental * false + rates.ibd)


@pytest.mark.parametrize(("rates", "loss"), [(Rates(57.4, 5000.0), 0.002), (LESS, 0.01), (REAL, 0.08)])
def test_largest_f1_of_rare_signals(pair, rates, loss):
    """The truth at the threshold is next to the best, less so where 60 000 pairs hardly resolve the background."""
    best = true_f1(np.linspace(0, 30, 3001), rates).max()
    point = by_f1(*pair, rates)
    assert true_f1(point.threshold, rates) > best - loss
    assert point.threshold > 2


def test_an_empty_tail_promises_nothing():
    """Above the last of 100 background pairs the purity is 1 as measured, and its error says how little that is."""
    signal, background = ScoreSample.of(np.linspace(0, 2, 1000)), ScoreSample.of(np.linspace(-9, 1, 100))
    empty = at_threshold(signal, background, 1.01, Rates(1.0, 1e4))
    assert (empty.background.value, empty.purity.value) == (0, 1)
    assert empty.purity.low < 0.01
    with pytest.raises(NuebarError, match="score more accidental pairs"):
        by_purity(signal, background, 0.9, Rates(1.0, 1e4))


@pytest.mark.parametrize("wanted", [0.5, 0.9, 0.999])
def test_wanted_efficiency(pair, wanted):
    point = by_efficiency(*pair, wanted, REAL)
    assert point.efficiency.value >= wanted
    assert point.efficiency.value == pytest.approx(wanted, abs=1e-3)
    assert point.efficiency.low < stats.norm.sf(point.threshold / 6 - 3) + 3e-3


@pytest.mark.parametrize("wanted", [0.5, 0.9])
def test_wanted_purity(pair, wanted):
    point = by_purity(*pair, wanted, LESS)
    assert point.purity.value >= wanted
    assert point.purity.low >= wanted - 0.05
    lower = at_threshold(*pair, point.threshold - 0.3, LESS)
    assert lower.purity.low < wanted
    assert lower.efficiency.value >= point.efficiency.value


@pytest.mark.parametrize("number", [0, 6, 600, 60_000])
def test_wanted_background(pair, number):
    point = by_background(*pair, number / 60_000, REAL)
    assert point.background.value <= number / 60_000 * (1 + 1e-9)
    if isinstance(pair[1], ScoreSample):
        assert point.background.value == pytest.approx(number / 60_000, rel=1e-9)
        assert at_threshold(
            *pair, np.nextafter(point.threshold, -np.inf), REAL
        ).background.value > point.background.value or (number == 60_000)


def test_background_exactly_that_of_cuts(classes):
    signal, background = (np.where(s > 2, np.inf, -np.inf) for s in classes)
    cuts = at_threshold(ScoreSample.of(signal), ScoreSample.of(background), 0.0, REAL)
    same = by_background(*map(ScoreSample.of, classes), cuts.background.value, REAL)
    assert same.background.value == cuts.background.value
    assert same.efficiency.value == pytest.approx(cuts.efficiency.value, abs=1e-4)
    with pytest.raises(NuebarError, match="no threshold"):
        by_background(ScoreSample.of(signal), ScoreSample.of(background), cuts.background.value / 2, REAL)


def test_ties_are_not_split():
    background = ScoreSample.of([0.0, 1, 1, 1, 2])
    assert background.share(background.threshold_below(0.5))[0] == 0.2
    assert background.share(background.threshold_below(0.8))[0] == 0.8
    assert background.threshold_below(1.0) == -np.inf


@pytest.mark.parametrize(
    "call",
    [
        lambda s, b: by_efficiency(s, b, 1.5, REAL),
        lambda s, b: by_purity(s, b, 1.0, REAL),
        lambda s, b: by_background(s, b, -0.1, REAL),
        lambda s, b: efficiency_at(s, b, [2.0]),
        lambda s, b: at_threshold(s, b, np.nan, REAL),
        lambda s, b: Rates(0.0, 1.0),
        lambda s, b: curves(s, b, REAL, points=1),
        lambda s, b: by_f1(ScoreHistogram.of([0.0]), ScoreHistogram.of([0.0], bins=4), REAL),
    ],
)
def test_refusals(classes, call):
    with pytest.raises(NuebarError):
        call(*map(ScoreSample.of, classes))


def test_unreachable_purity_says_what_can_be_reached():
    with pytest.raises(NuebarError, match=r"largest is 0\.5"):
        by_purity(ScoreSample.of([1.0]), ScoreSample.of([1.0]), 0.9, BALANCED)


def test_rates_of_a_file():
    config = load_selection()
    assert Rates.of(config) == Rates(57.4, config.accidentals_per_day, "real")


def test_record_is_json(pair):
    for point in (by_f1(*pair, BALANCED), by_background(*pair, 1.0, REAL)):
        record = json.loads(json.dumps(point.record(), allow_nan=False))
        assert record["rates"]["name"] == point.rates.name
        assert 0 <= record["probability"] <= 1


# ---------------------------------------------------------------- curves


def test_curves_are_the_points(pair):
    found = curves(*pair, REAL, points=21)
    for i in (0, 7, 20):
        point = at_threshold(*pair, found.threshold[i], REAL)
        assert found.efficiency[i] == point.efficiency.value
        assert (found.background_low[i], found.background_high[i]) == (point.background.low, point.background.high)
        assert (found.purity[i], found.f1[i]) == pytest.approx((point.purity.value, point.f1))
    assert np.all(np.diff(found.efficiency) <= 0)
    assert np.all(np.diff(found.background) <= 0)
    assert np.all((found.efficiency_low <= found.efficiency) & (found.efficiency <= found.efficiency_high))
    assert all(np.isfinite(getattr(found, name)).all() for name in ("purity", "f1", "probability"))


def test_efficiency_against_background(pair):
    levels = np.array([1e-1, 1e-2, 1e-3])
    for level in efficiency_at(*pair, levels):
        truth = stats.norm.sf(6 * (stats.norm.isf(level.background) / 6) - 6)
        assert level.efficiency.low - 0.004 <= truth <= level.efficiency.high + 0.004
        assert level.resolved
    (rare,) = efficiency_at(*pair, [1e-9])
    assert not rare.resolved
    assert rare.efficiency.low == 0  # nothing was measured there


def test_error_of_the_threshold_is_in_the_efficiency():
    """Steep scores: the error of the efficiency comes from the few background events, and pulls are normal."""
    rng, pulls = np.random.default_rng(3), []
    for _ in range(60):
        signal, background = rng.normal(1, 1, 4000), rng.normal(-1, 1, 4000)
        (level,) = efficiency_at(ScoreSample.of(signal), ScoreSample.of(background), [0.01])
        truth = stats.norm.sf(stats.norm.isf(0.01) - 2)
        e = level.efficiency
        pulls.append((e.value - truth) / (e.high - e.value if e.value < truth else e.value - e.low))
    assert abs(np.mean(pulls)) < 0.45
    assert 0.7 < np.std(pulls) < 1.25
