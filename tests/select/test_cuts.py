"""Box cuts and their table; scoring in chunks."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from nuebar.errors import NuebarError
from nuebar.select.classifier import Classifier, score_batches, score_in_chunks
from nuebar.select.config import load_selection
from nuebar.select.counting import ONE_SIGMA, binomial_interval, binomial_upper, weighted_interval
from nuebar.select.cut_flow import COMBINED, ENERGY, PUBLISHED, cut_flow
from nuebar.select.cuts import DELAYED, DISTANCE, FIDUCIAL, PROMPT, ROWS, TIME, BoxCuts
from nuebar.select.features import FEATURES

GOOD = {
    "r3_prompt_m3": 17.1**3,
    "r3_delayed_m3": 17.1**3,
    "dr_m": 0.3,
    "dt_us": 200.0,
    "e_prompt_MeV": 3.0,
    "e_delayed_MeV": 2.2,
}


def features(**columns):
    """Rows like a good pair, with some features replaced."""
    n = max([np.size(v) for v in columns.values()], default=1)
    out = np.zeros((n, len(FEATURES)), np.float32)
    for name, value in {**GOOD, **columns}.items():
        out[:, FEATURES.index(name)] = value
    return out


def random_features(n, seed=1):
    rng = np.random.default_rng(seed)
    return features(
        r3_prompt_m3=rng.uniform(0, 17.7**3, n),
        r3_delayed_m3=rng.uniform(0, 17.7**3, n),
        dr_m=rng.exponential(1.0, n),
        dt_us=rng.exponential(500.0, n),
        e_prompt_MeV=rng.uniform(0, 13, n),
        e_delayed_MeV=rng.uniform(1.5, 6, n),
    )


@pytest.fixture
def cuts():
    return BoxCuts.of(load_selection())


@pytest.mark.parametrize(
    ("row", "change"),
    [
        (FIDUCIAL, {"r3_prompt_m3": 17.3**3}),
        (PROMPT, {"e_prompt_MeV": 0.69}),
        (PROMPT, {"e_prompt_MeV": 12.01}),
        (DELAYED, {"e_delayed_MeV": 1.89}),
        (DELAYED, {"e_delayed_MeV": 3.0}),
        (DELAYED, {"e_delayed_MeV": 5.51}),
        (TIME, {"dt_us": 1000.5}),
        (DISTANCE, {"dr_m": 1.51}),
    ],
)
def test_each_cut_takes_its_own(cuts, row, change):
    pair = features(**change)
    assert {name: bool(kept[0]) for name, kept in cuts.rows(pair).items()} == {name: name != row for name in ROWS}
    assert cuts.score(pair) == [-np.inf]
    assert cuts.without(row).score(pair) == [np.inf]


@pytest.mark.parametrize("change", [{}, {"e_delayed_MeV": 4.95}, {"e_prompt_MeV": 0.71}, {"r3_delayed_m3": 17.6**3}])
def test_good_pairs_pass(cuts, change):
    assert cuts.passes(features(**change)).tolist() == [True]


def test_fiducial_volume_on_both(cuts):
    outside = features(r3_delayed_m3=17.6**3)
    assert not dataclasses.replace(cuts, fiducial_on="both").passes(outside)[0]
    with pytest.raises(NuebarError, match="prompt, both"):
        dataclasses.replace(cuts, fiducial_on="delayed")


def test_no_cuts_keep_all(cuts):
    assert BoxCuts().passes(random_features(50)).all()
    assert cuts.without(*ROWS).rows(random_features(5)) == {}
    with pytest.raises(NuebarError, match="fiducial volume, prompt energy"):
        cuts.without("energy")


# ---------------------------------------------------------------- scoring


class Linear:
    name = "linear"

    def score(self, x):
        return x.astype(float) @ np.arange(1.0, 11.0)


def test_chunks_do_not_matter(cuts):
    x = random_features(1000)
    assert isinstance(cuts, Classifier)
    whole = Linear().score(x)
    for rows in (1, 7, 1000, 5000):
        np.testing.assert_allclose(score_in_chunks(Linear(), x, chunk_rows=rows), whole, rtol=1e-14)
    np.testing.assert_allclose(np.concatenate(list(score_batches(Linear(), [x[:3], x[3:3], x[3:]]))), whole, rtol=1e-14)
    np.testing.assert_array_equal(score_in_chunks(cuts, x, chunk_rows=13), cuts.score(x))


@pytest.mark.parametrize(
    ("scores", "word"),
    [
        (lambda x: np.full(len(x), np.nan), "pair 20"),
        (lambda x: np.zeros((len(x), 1)), r"shape \(20,\)"),
        (lambda x: np.zeros(len(x), np.float32), "float64"),
    ],
)
def test_broken_classifiers_are_named(scores, word):
    class Broken:
        name = "broken"

        def score(self, x):
            return np.zeros(len(x)) if x[0, 2] == 0 and word == "pair 20" else scores(x)

    x = random_features(40)
    x[:20, 2] = 0
    with pytest.raises(NuebarError, match=f"'broken'.*{word}"):
        score_in_chunks(Broken(), x, chunk_rows=20)


@pytest.mark.parametrize("bad", [np.zeros((3, 9), np.float32), np.zeros((3, 10)), np.zeros(10, np.float32)])
def test_wrong_features_are_refused(cuts, bad):
    for call in (lambda: score_in_chunks(Linear(), bad), lambda: cuts.score(bad)):
        with pytest.raises(NuebarError, match="features_of"):
            call()


# ---------------------------------------------------------------- table


def test_table_counts_by_hand(cuts):
    sample = np.concatenate(
        [
            features(dt_us=np.full(6, 100.0)),
            features(r3_prompt_m3=17.5**3),
            features(r3_prompt_m3=17.5**3, e_prompt_MeV=0.5),
            features(dt_us=1500.0),
            features(e_delayed_MeV=3.0, dt_us=1500.0),
        ]
    )
    rows = {row.name: row for row in cut_flow(cuts, [sample]).rows()}
    assert list(rows) == [FIDUCIAL, ENERGY, TIME, DISTANCE, COMBINED]
    found = {name: (r.alone.value, r.given_fiducial.value, r.cumulative.value) for name, r in rows.items()}
    assert found[FIDUCIAL] == pytest.approx((0.8, 1.0, 0.8))
    assert found[ENERGY] == pytest.approx((0.8, 7 / 8, 0.7))
    assert found[TIME] == pytest.approx((0.8, 6 / 8, 0.6))
    assert found[DISTANCE] == pytest.approx((1.0, 1.0, 0.6))
    assert found[COMBINED] == pytest.approx((0.6, 6 / 8, 0.6))
    single = {row.name: row.alone.value for row in cut_flow(cuts, [sample]).rows(grouped=False)}
    assert single == pytest.approx({FIDUCIAL: 0.8, PROMPT: 0.9, DELAYED: 0.9, TIME: 0.8, DISTANCE: 1.0, COMBINED: 0.6})


@pytest.mark.parametrize("on", ["prompt", "both"])
def test_table_agrees_with_the_cuts(cuts, on):
    x = random_features(5000)
    table = cut_flow(cuts, np.split(x, [1, 17, 4000]))
    for row in table.rows(on=on, grouped=False)[:-1]:
        kept = dataclasses.replace(cuts, fiducial_on=on).rows(x)[row.name]
        assert row.alone.value == kept.mean()
    last = table.rows(on=on)[-1]
    assert last.alone.effective == dataclasses.replace(cuts, fiducial_on=on).passes(x).sum()
    assert last.alone == last.cumulative
    assert [r.cumulative.value for r in table.rows(on=on)] == sorted(
        (r.cumulative.value for r in table.rows(on=on)), reverse=True
    )


def test_tables_add_up(cuts):
    x = random_features(3000)
    whole, parts = cut_flow(cuts, [x]), cut_flow(cuts, [x[:100]]) + cut_flow(cuts, [x[100:]])
    np.testing.assert_array_equal(whole.counts, parts.counts)
    assert whole.pairs == 3000
    with pytest.raises(NuebarError, match="same cuts"):
        whole + cut_flow(cuts.without(TIME), [x])


def test_table_refusals(cuts):
    with pytest.raises(NuebarError, match="fiducial radius"):
        cut_flow(BoxCuts(), [random_features(3)])
    with pytest.raises(NuebarError, match="at least one pair"):
        cut_flow(cuts, []).rows()
    with pytest.raises(NuebarError, match="prompt, both"):
        cut_flow(cuts, [random_features(3)]).rows(on="delayed")


def test_record_holds_the_published_values_beside(cuts):
    record = json.loads(json.dumps(cut_flow(cuts, [random_features(100)]).record(), allow_nan=False))
    published = record["published"]
    assert {name: published[name] for name in PUBLISHED} == dict(PUBLISHED)
    assert published["product of fiducial volume, energy and time"] == pytest.approx(0.896, abs=5e-4)
    assert published[COMBINED] == 0.899
    rows = record["tables"]["both"]["grouped"]
    assert [row["published"] for row in rows] == [0.917, 0.987, 0.990, 0.992, 0.899]
    assert sum(record["counts"]["pairs"]) == 100


# ---------------------------------------------------------------- intervals


@pytest.mark.parametrize(
    ("k", "n", "cl", "low", "high"),
    [
        (0, 10, 0.95, 0.0, 0.3085),  # textbook values of the exact interval
        (5, 10, 0.95, 0.1871, 0.8129),
        (10, 10, 0.95, 0.6915, 1.0),
        (0, 1_000_000, ONE_SIGMA, 0.0, 1.841e-6),  # Poisson: 1.841 events (PDG 2022, table 40.3 for 68.27 %)
    ],
)
def test_known_intervals(k, n, cl, low, high):
    found = binomial_interval(k, n, cl=cl)
    assert float(found[0]) == pytest.approx(low, abs=5e-5 * n**-0.5)
    assert float(found[1]) == pytest.approx(high, rel=5e-4)


@pytest.mark.parametrize("p", [0.01, 0.3, 0.93])
def test_intervals_cover(p):
    n = 50
    k = np.arange(n + 1)
    low, high = binomial_interval(k, n)
    assert stats.binom.pmf(k, n, p)[(low <= p) & (p <= high)].sum() >= ONE_SIGMA


def test_upper_limit_of_nothing():
    assert binomial_upper(0, 10_000_000) == pytest.approx(2.3026e-7, rel=1e-4)
    assert binomial_upper(7, 7) == 1.0


def test_weighted_interval_of_even_weights_is_binomial():
    f = np.array([0.0, 0.2, 0.9, 1.0])
    low, high, effective = weighted_interval(f, f * (1 - f) / 40, 1 / 40)
    want = binomial_interval(40 * f, 40)
    np.testing.assert_allclose(low, want[0], rtol=1e-9)
    np.testing.assert_allclose(high, want[1], rtol=1e-9)
    np.testing.assert_allclose(effective, 40 * f, rtol=1e-9)


@pytest.mark.parametrize("case", [(3, 2), (-1, 2), (1, np.inf)])
def test_impossible_counts(case):
    with pytest.raises(NuebarError, match="passed <= total"):
        binomial_interval(*case)
