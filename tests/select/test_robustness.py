"""Efficiency curves, changes with the detector, calibration: against formulas, by hand, and over repeated samples."""

import json
import math

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.select import robustness as rb
from nuebar.select.config import PairSettings, load_selection
from nuebar.select.counting import binomial_interval
from nuebar.select.cuts import BoxCuts
from nuebar.select.features import PAIR_COLUMNS, features_of
from nuebar.select.scores import ScoreSample

SETTINGS = PairSettings(window_ms=2.0, threshold_MeV=0.7)
TAU_us, WINDOW_us = 220.0, 2000.0


def pairs_of(rng, n, **columns):
    """Pairs around the centre with even delayed energies."""
    t = -TAU_us * np.log1p(-rng.random(n) * -math.expm1(-WINDOW_us / TAU_us))
    out = {name: rng.normal(0, 3, n) for name in PAIR_COLUMNS}
    out |= {"prompt_e_rec_MeV": rng.uniform(1, 8, n), "delayed_e_rec_MeV": rng.uniform(1, 3, n), "dt_ns": 1e3 * t}
    return out | columns


def delayed_cut(low=1.9, high=2.5):
    return BoxCuts(delayed_MeV=((low, high),))


# ---------------------------------------------------------------- curves


def test_a_curve_counts_and_has_binomial_errors():
    rng = np.random.default_rng(1)
    values, kept = rng.uniform(0, 10, 3000), rng.random(3000) < 0.9
    edges = [1.0, 2.0, 5.0, 10.0]
    curve = rb.efficiency_curve("prompt energy", "MeV", values, kept, edges)
    for k in range(3):
        inside = (values >= edges[k]) & (values < edges[k + 1])
        low, high = binomial_interval(kept[inside].sum(), inside.sum())
        assert curve.efficiency[k] == pytest.approx(kept[inside].mean())
        assert (curve.low[k], curve.high[k]) == pytest.approx((float(low), float(high)), rel=1e-6)
        assert curve.total[k] == inside.sum()
    assert curve.outside == pytest.approx((values < 1).mean())


def test_a_curve_does_not_know_the_unit_of_weights_and_is_wider_with_uneven_ones():
    rng = np.random.default_rng(2)
    values, kept = rng.uniform(0, 1, 2000), rng.random(2000) < 0.5
    uneven = rng.exponential(size=2000)
    plain, scaled, wide = (
        rb.efficiency_curve("x", "m", values, kept, [0, 0.5, 1], weights=w) for w in (None, np.full(2000, 7.0), uneven)
    )
    for name in ("efficiency", "low", "high", "total"):
        np.testing.assert_allclose(getattr(scaled, name), getattr(plain, name), rtol=1e-9)
    # Weights of an exponential distribution have half as many effective pairs.
    np.testing.assert_allclose(wide.error / plain.error, math.sqrt(2), rtol=0.1)
    np.testing.assert_allclose(wide.total / plain.total, 0.5, rtol=0.1)


@pytest.mark.parametrize("all_kept", [False, True])
def test_bins_with_nothing_or_everything_kept_have_one_sided_errors(all_kept):
    weights = np.linspace(0.1, 1.7, 50)
    curve = rb.efficiency_curve("x", "m", np.full(50, 0.5), np.full(50, all_kept), [0, 1, 2], weights=weights)
    assert curve.efficiency[0] == float(all_kept)
    assert 0 < curve.high[0] - curve.low[0] < 0.1
    assert (curve.efficiency[1], curve.low[1], curve.high[1], curve.total[1]) == (0, 0, 1, 0)


def test_the_intervals_cover():
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(300):
        kept = rng.random(400) < 0.95
        curve = rb.efficiency_curve("x", "m", np.zeros(400), kept, [-1, 1], weights=rng.uniform(0.5, 1.5, 400))
        covered.append(curve.low[0] <= 0.95 <= curve.high[0])
    assert 0.64 < np.mean(covered) < 0.82


def test_a_record_comes_back_through_json():
    features = features_of(pairs_of(np.random.default_rng(4), 500))
    curves = rb.efficiency_curves(features, features[:, 5] > 2, energy_edges_MeV=[1, 4, 8], radius_edges_m=[0, 5, 9])
    assert list(curves) == ["energy", "radius"]
    for curve in curves.values():
        back = rb.EfficiencyCurve.of(json.loads(json.dumps(curve.record(), allow_nan=False)))
        assert back.record() == curve.record()


RECORD = rb.efficiency_curve("x", "m", [0.5, 1.5], [True, False], [0, 1, 2]).record()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "limit"}, "efficiency curve"),
        ({"format": 2}, "format 1"),
        ({"edges": [0, 0, 1]}, "increase"),
        ({"efficiency": [0.5]}, "2 efficiencies"),
        ({"efficiency": [1.0, 1.2]}, "from 0 to 1"),
        ({"low": [1.0, 0.5]}, "inside"),
        ({"high": ["x", 1]}, "numbers"),
    ],
)
def test_a_wrong_record_is_refused(change, words):
    with pytest.raises(NuebarError, match=words):
        rb.EfficiencyCurve.of({**RECORD, **change}, "curve.json")
    with pytest.raises(NuebarError, match="numbers by bin"):
        rb.EfficiencyCurve.of({k: v for k, v in RECORD.items() if k != "low"})


# ---------------------------------------------------------------- shifts


def test_a_shift_moves_what_it_says_and_nothing_else():
    pairs = pairs_of(np.random.default_rng(5), 20_000)
    before = {name: v.copy() for name, v in pairs.items()}
    moved = rb.shifted(pairs, rb.Shift("all", energy_scale=0.01, vertex_m=0.1))
    for part in ("prompt", "delayed"):
        energy = before[f"{part}_e_rec_MeV"]
        np.testing.assert_allclose(moved[f"{part}_e_rec_MeV"], 1.01 * energy)
        for axis in "xyz":
            step = (moved[f"{part}_{axis}_m"] - before[f"{part}_{axis}_m"]) * np.sqrt(energy)
            assert step.std() == pytest.approx(0.1, rel=0.03)
            assert abs(step.mean()) < 0.004
    np.testing.assert_array_equal(moved["dt_ns"], before["dt_ns"])
    for name in PAIR_COLUMNS:
        np.testing.assert_array_equal(pairs[name], before[name])
    prompt, delayed = (moved[f"{p}_x_m"] - before[f"{p}_x_m"] for p in ("prompt", "delayed"))
    assert abs(np.corrcoef(prompt, delayed)[0, 1]) < 0.03, "the two vertices move on their own"


def test_the_extra_spread_adds_in_quadrature():
    assert math.hypot(0.1, rb.extra_vertex_m(0.1, 1.2)) == pytest.approx(0.12)
    assert rb.extra_vertex_m(0.1, 1.0) == 0


@pytest.mark.parametrize("scale", [0.01, -0.01, 0.05])
def test_an_energy_scale_moves_a_window(scale):
    """Even energies from 1 to 3 MeV: a window keeps (high − low)/2, a scale divides it by 1 + scale."""
    pairs = pairs_of(np.random.default_rng(6), 100_000)
    shift = rb.Shift("scale", energy_scale=scale)
    (found,) = rb.changes(delayed_cut(1.9, 2.5), pairs, 0.0, SETTINGS, shifts=[shift])
    expected = 0.3 / (1 + scale) - 0.3
    assert found.error < 0.004
    assert abs(found.difference - expected) < 4 * found.error
    assert found.before.low <= found.before.value <= found.before.high
    # The error is that of paired counts: pairs that come in and go out.
    e = pairs["delayed_e_rec_MeV"].astype(np.float32).astype(float)
    old, new = (e > 1.9) & (e < 2.5), (e * (1 + scale) > 1.9) & (e * (1 + scale) < 2.5)
    gain, loss, n = (new & ~old).sum(), (old & ~new).sum(), e.size
    assert found.difference == pytest.approx((gain - loss) / n, abs=3e-5)
    assert found.error == pytest.approx(math.sqrt(gain + loss - (gain - loss) ** 2 / n) / n, rel=0.01)


@pytest.mark.parametrize("relative", [0.05, -0.05])
def test_another_capture_time_is_the_other_exponential(relative):
    pairs = pairs_of(np.random.default_rng(7), 100_000)
    shift = rb.Shift("capture", capture_time=relative)
    (found,) = rb.changes(BoxCuts(dt_ms=0.3), pairs, 0.0, SETTINGS, shifts=[shift], capture_time_us=TAU_us)

    def share(tau):
        return math.expm1(-300 / tau) / math.expm1(-WINDOW_us / tau)

    expected = share(TAU_us * (1 + relative)) - share(TAU_us)
    assert abs(found.difference - expected) < 4 * found.error
    assert found.error < 0.1 * abs(expected)
    (none,) = rb.changes(BoxCuts(dt_ms=0.3), pairs, 0.0, SETTINGS, shifts=[shift], captures=False)
    assert none.difference == 0
    assert none.error == 0


@pytest.mark.parametrize("cuts", [BoxCuts(delayed_MeV=((1.9, 2.5),), dt_ms=0.3, dr_m=4.0), BoxCuts(dt_ms=1.1)])
def test_errors_of_changes_are_the_spread_over_samples(cuts):
    rng = np.random.default_rng(8)
    shifts = [rb.Shift("e", energy_scale=0.05), rb.Shift("t", capture_time=0.1), rb.Shift("v", vertex_m=0.3)]
    found = [
        rb.changes(cuts, pairs_of(rng, 400), 0.0, SETTINGS, shifts=shifts, weights=rng.uniform(0.5, 1.5, 400), seed=k)
        for k in range(150)
    ]
    for row in zip(*found, strict=True):
        spread = np.std([c.difference for c in row], ddof=1)
        assert np.mean([c.error for c in row]) == pytest.approx(spread, rel=0.2, abs=1e-12)


def every_pair(rng, n):
    """All ordered pairs of n singles, the numbers of whose events are known."""
    first, second = (a.ravel() for a in np.meshgrid(np.arange(n), np.arange(n)))
    first, second = first[first != second], second[first != second]
    single = {"e_rec_MeV": rng.uniform(1, 3, n)} | {f"{axis}_m": rng.normal(0, 3, n) for axis in "xyz"}
    out = {f"prompt_{name}": v[first] for name, v in single.items()}
    out |= {f"delayed_{name}": v[second] for name, v in single.items()}
    return out | {"dt_ns": 2e6 * rng.random(first.size)}, (first, second)


def test_pairs_that_share_events_are_counted_with_each_other():
    """The variance by a double loop over all pairs that have an event in common."""
    rng = np.random.default_rng(21)
    pairs, events = every_pair(rng, 12)
    some = rng.choice(132, 200)  # with repetition, as they are drawn
    pairs, events = {k: v[some] for k, v in pairs.items()}, tuple(e[some] for e in events)
    w, shift = rng.uniform(0.5, 1.5, 200), rb.Shift("e", energy_scale=0.2)
    (found,) = rb.changes(
        delayed_cut(), pairs, 0.0, SETTINGS, shifts=[shift], weights=w, clusters=events,
        energy_edges_MeV=[1.0, 1.6, 3.1], radius_edges_m=[0, 50],
    )  # fmt: skip
    e = pairs["delayed_e_rec_MeV"]
    old, new = (e > 1.9) & (e < 2.5), (1.2 * e > 1.9) & (1.2 * e < 2.5)

    def variance(rows):
        weight = w[rows] / w[rows].sum()
        u = weight * (new[rows] - weight @ new[rows]) - weight * (old[rows] - weight @ old[rows])
        ends = [{a, b} for a, b in zip(*(x[rows] for x in events), strict=True)]
        total = sum(u[i] * u[j] for i in range(u.size) for j in range(u.size) if ends[i] & ends[j])
        return max(total, np.sum(u**2))

    everything = np.arange(200)
    assert found.error**2 == pytest.approx(variance(everything), rel=1e-9)
    low = np.flatnonzero(pairs["prompt_e_rec_MeV"] < 1.6)
    assert found.errors["energy"][0] ** 2 == pytest.approx(variance(low), rel=1e-9)
    h = w / w.sum() * (old - found.before.value)
    ends = [{a, b} for a, b in zip(*events, strict=True)]
    plain = sum(h[i] * h[j] for i in everything for j in everything if ends[i] & ends[j])
    tries = found.before.value * (1 - found.before.value) / max(plain, np.sum(h**2))
    assert found.before.effective == pytest.approx(found.before.value * tries, rel=1e-9)


def test_errors_of_recombined_pairs_are_the_spread_over_samples_of_singles():
    rng = np.random.default_rng(22)
    shift = rb.Shift("e", energy_scale=0.1)
    known, alone, differences = [], [], []
    for _ in range(150):
        pairs, events = every_pair(rng, 30)
        options = {"shifts": [shift], "captures": False}
        (shared,) = rb.changes(delayed_cut(), pairs, 0.0, SETTINGS, clusters=events, **options)
        (plain,) = rb.changes(delayed_cut(), pairs, 0.0, SETTINGS, **options)
        assert shared.difference == plain.difference
        known.append(shared.error)
        alone.append(plain.error)
        differences.append(shared.difference)
    spread = np.std(differences, ddof=1)
    assert np.mean(known) == pytest.approx(spread, rel=0.2)
    assert np.mean(alone) < 0.5 * spread


def test_bins_of_a_change_add_up_to_it():
    pairs = pairs_of(np.random.default_rng(9), 5000)
    (found,) = rb.changes(
        delayed_cut(), pairs, 0.0, SETTINGS, shifts=[rb.Shift("e", energy_scale=0.03)],
        energy_edges_MeV=[0.7, 3.0, 9.0, 10.0], radius_edges_m=[0, 5, 60],
    )  # fmt: skip
    energy = pairs["prompt_e_rec_MeV"]
    shares = np.array([(energy < 3).mean(), (energy >= 3).mean()])
    assert shares @ found.differences["energy"][:2] == pytest.approx(found.difference)
    assert np.isnan(found.differences["energy"][2])
    assert np.isnan(found.errors["energy"][2])
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert record["bins"]["energy"]["difference"][2] is None
    assert record["shift"]["energy_scale"] == 0.03


def test_a_pair_that_falls_below_the_threshold_is_lost():
    rng = np.random.default_rng(10)
    pairs = pairs_of(rng, 100, prompt_e_rec_MeV=np.where(np.arange(100) < 10, 0.703, 2.0))
    (found,) = rb.changes(BoxCuts(), pairs, 0.0, SETTINGS, shifts=[rb.Shift("e", energy_scale=-0.01)])
    assert found.difference == pytest.approx(-0.1)


def test_rates_change_purity_and_not_the_efficiency_at_a_threshold():
    rng = np.random.default_rng(11)
    signal, background = (ScoreSample.of(rng.normal(m, 2, 20_000)) for m in (6, -6))
    config = load_selection()
    half, one, two = rb.rate_changes(signal, background, config, 2.0)
    assert one["accidentals_per_day"] == pytest.approx(config.accidentals_per_day)
    assert two["accidentals_per_day"] == pytest.approx(4 * one["accidentals_per_day"])
    assert half["same_threshold"]["efficiency"] == two["same_threshold"]["efficiency"]
    purities = [row["same_threshold"]["purity"]["value"] for row in (half, one, two)]
    assert purities == sorted(purities, reverse=True)
    assert two["largest_f1"]["f1"] >= two["same_threshold"]["f1"] - 1e-9
    assert json.dumps([half, one, two], allow_nan=False)


# ---------------------------------------------------------------- calibration


def gaussians(rng, n, d=3.0, m=None):
    """Two normal classes whose logit is the score itself."""
    return rng.normal(d * d / 2, d, n), rng.normal(-d * d / 2, d, m or n)


@pytest.mark.parametrize("m", [4000, 20_000])
def test_a_calibrated_score_is_found_calibrated_and_another_is_not(m):
    signal, background = gaussians(np.random.default_rng(12), 4000, m=m)
    good = rb.reliability(signal, background, toys=200)
    assert good.p_value > 0.005
    assert good.ece == pytest.approx(good.noise, abs=4 * good.noise_error)
    assert good.share.sum() == pytest.approx(1)
    some = good.share > 0.005
    inside = (good.low <= good.predicted) & (good.predicted <= good.high)
    assert np.mean(inside[some]) > 0.4
    sure = rb.reliability(2 * signal, 2 * background, toys=200)
    assert sure.p_value == 0
    assert sure.ece > good.ece + 5 * good.noise_error
    assert json.dumps(good.record(), allow_nan=False)


def test_p_values_of_calibrated_scores_are_even():
    rng = np.random.default_rng(13)
    p = np.array([rb.reliability(*gaussians(rng, 500), toys=60, seed=k).p_value for k in range(60)])
    assert abs(p.mean() - 0.5) < 4 / math.sqrt(12 * 60)
    assert 0.1 < np.mean(p < 0.3) < 0.55


def test_weights_stand_for_pairs():
    rng = np.random.default_rng(14)
    signal, background = gaussians(rng, 3000)
    twice = np.concatenate([background, background])
    plain = rb.reliability(signal, background, toys=0)
    weighted = rb.reliability(signal, twice, background_weights=np.repeat([0.2, 0.8], 3000), toys=0)
    np.testing.assert_allclose(weighted.observed, plain.observed)
    assert weighted.ece == pytest.approx(plain.ece)


# ---------------------------------------------------------------- bad input


PAIRS = pairs_of(np.random.default_rng(0), 5)
BAD = {
    "edges": (lambda: rb.efficiency_curve("x", "m", [1.0], [True], [2, 1]), "increase"),
    "lengths": (lambda: rb.efficiency_curve("x", "m", [1.0], [True, False], [0, 1]), "one length"),
    "weights": (lambda: rb.efficiency_curve("x", "m", [1.0], [True], [0, 1], weights=[-1.0]), "weights"),
    "shift": (lambda: rb.Shift("x", energy_scale=-2), "above -1"),
    "vertex": (lambda: rb.extra_vertex_m(0.1, 0.9), "at least 1"),
    "column": (lambda: rb.shifted({"dt_ns": np.zeros(1)}, rb.SHIFTS[0]), "missing column"),
    "pair weights": (lambda: rb.changes(BoxCuts(), PAIRS, 0.0, SETTINGS, weights=[1.0]), "5 finite numbers"),
    "clusters": (lambda: rb.changes(BoxCuts(), PAIRS, 0.0, SETTINGS, clusters=(np.zeros(5), np.zeros(4))), "5 numbers"),
    "capture": (lambda: rb.changes(BoxCuts(), PAIRS, 0.0, SETTINGS, capture_time_us=0), "above 0"),
    "logits": (lambda: rb.reliability([np.inf], [0.0]), "finite logits"),
    "empty": (lambda: rb.reliability([], [0.0]), "at least one"),
    "bins": (lambda: rb.reliability([1.0], [0.0], edges=[0.0]), "two finite edges"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name):
    call, words = BAD[name]
    with pytest.raises(NuebarError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
