"""Accidentals measured off time: the naive loop, and agreement with the truth of toy streams over many seeds."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuebar.errors import NuebarError
from nuebar.select.offtime import AccidentalSum, OffTime, OnOffPairs, off_time_pairs
from nuebar.select.pairs import Isolation, MuonVeto, PairOptions, PairStream

NS = 1e-6  # in ms
VETO = MuonVeto(22.3)


def toy(seed, seconds=100.0, rate=60.0, pair_rate=2.0, muons=4.0, step_ns=1):
    """Singles, pairs with the capture time of 0.2 ms and muons, all at Poisson times."""
    rng = np.random.default_rng(seed)
    n, m, u = rng.poisson(rate * seconds), rng.poisson(pair_rate * seconds), rng.poisson(muons * seconds)
    prompt = rng.random(m) * seconds
    t = np.concatenate((rng.random(n) * seconds, prompt, prompt + rng.exponential(2e-4, m), rng.random(u) * seconds))
    pair = np.concatenate((np.zeros(n), np.arange(1, m + 1), np.arange(1, m + 1), np.zeros(u))).astype(np.int64)
    e = np.concatenate((np.full(n, 1.0), np.full(2 * m, 2.0), np.full(u, 4000.0)))
    t = (t * 1e9 / step_ns).astype(np.int64) * step_ns
    order = np.argsort(t, kind="stable")
    columns = {"t_ns": t[order], "e_rec_MeV": e[order].astype(np.float32), "true_pair": pair[order]}
    return columns | {f"{axis}_m": rng.normal(0, 5, t.size).astype(np.float32) for axis in "xyz"}


def cut(columns, cuts):
    edges = [0, *sorted(min(c, columns["t_ns"].size) for c in cuts), columns["t_ns"].size]
    return [{name: v[a:b] for name, v in columns.items()} for a, b in pairwise(edges)]


def every(pairs):
    return np.ones(pairs["dt_ns"].size, bool)


def early(pairs):
    return pairs["dt_ns"] < 300_000


def late(pairs):
    return pairs["dt_ns"] > 1_200_000


def with_pairs(pairs):
    """Accidentals of an antineutrino's event with anything: prompt or delayed event of 2 MeV."""
    return (pairs["prompt_e_rec_MeV"] > 1.5) | (pairs["delayed_e_rec_MeV"] > 1.5)


def accidental(on):
    return (on["true_prompt_pair"] == 0) | (on["true_prompt_pair"] != on["true_delayed_pair"])


def measured(columns, options, off, select):
    """True accidentals and true pairs among the selected, and the estimate."""
    total, n, true = AccidentalSum(), 0, 0
    for on, later in OnOffPairs([columns], options, off):
        chosen = select(on)
        n += int((chosen & accidental(on)).sum())
        true += int((chosen & ~accidental(on)).sum())
        total.add(later, select(later), on=on, on_selected=chosen)
    return n, true, total.result()


CASES = {
    "plain": (PairOptions(), OffTime(), every, {}),
    "one window": (PairOptions(), OffTime(windows=1), every, {}),
    "veto of both": (PairOptions(veto=VETO), OffTime(), every, {}),
    "veto of both, one window": (PairOptions(veto=VETO), OffTime(windows=1), every, {}),
    "veto of both, many muons": (PairOptions(veto=VETO), OffTime(windows=4), late, {"muons": 30.0}),
    "veto of prompt": (PairOptions(veto=MuonVeto(22.3, "prompt")), OffTime(), every, {}),
    "isolation": (PairOptions(isolation=Isolation()), OffTime(), every, {}),
    "isolation, dense": (PairOptions(isolation=Isolation()), OffTime(windows=5), every, {"rate": 250, "seconds": 20}),
    "isolation, veto, pairs with singles": (
        PairOptions(isolation=Isolation(0.2, 0.1), veto=VETO),
        OffTime(),
        with_pairs,
        {"pair_rate": 20.0},
    ),
    "isolation, veto, early": (
        PairOptions(isolation=Isolation(1.0, 0.5), veto=VETO),
        OffTime(offset_ms=30.0, windows=5),
        early,
        {"pair_rate": 10.0, "seconds": 300},
    ),
    "clock of 1 us": (
        PairOptions(window_ms=0.01),
        OffTime(windows=5),
        every,
        {"rate": 3000.0, "seconds": 10, "pair_rate": 0.0, "step_ns": 1000},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_estimate_agrees_with_the_truth(case):
    """No bias, and errors that are the spread: of the estimate, and of candidates without it."""
    options, off, select, stream = CASES[case]
    seeds = 40
    results = [measured(toy(seed, **stream), options, off, select) for seed in range(seeds)]
    n, true = np.array([r[0] for r in results], float), np.array([r[1] for r in results], float)
    total = np.array([r[2].total for r in results])
    error = np.array([r[2].error for r in results])
    # The number of true pairs is known here: only the accidentals fluctuate about their estimate.
    expected = np.sqrt(np.mean([r[2].excess_error ** 2 for r in results]) - true.mean())
    assert [r[2].candidates for r in results] == list(n + true)
    assert [r[2].excess for r in results] == pytest.approx(list(n + true - total))
    difference = n - total
    assert abs(difference.mean()) < 3.5 * expected / math.sqrt(seeds)
    assert expected / math.sqrt(seeds) < 0.03 * n.mean()
    assert 0.7 < difference.std(ddof=1) / expected < 1.35
    # Both events of a pair are one piece of information, which the error does not know: too small where pairs are many.
    most = 1.35 if stream.get("pair_rate", 0) < 20 else 1.7
    assert 0.7 < total.std(ddof=1) / math.sqrt(np.mean(error**2)) < most


def test_reuse_of_events_shows_in_the_error():
    """Twenty windows are not twenty times the information."""
    result = {k: measured(toy(5), PairOptions(), OffTime(windows=k), every)[2] for k in (1, 20)}
    naive = math.sqrt(result[20].total / 20)
    assert result[20].error > 2 * naive
    assert result[20].error < result[1].error


def test_what_a_wrong_weight_would_do():
    """The corrections that are tested above are not small: without them the same tests would fail."""
    columns = toy(3)
    plain = PairOptions(isolation=Isolation(), veto=VETO)
    pairs = list(off_time_pairs([columns], plain, OffTime()))
    weight = np.concatenate([p["weight"] for p in pairs])
    assert 1.25 < 20 * weight.mean() < 1.5


ENERGIES = st.sampled_from([0.0, 1.0, 1.0, 1.0, 2.0, 2.0, 500.0])
EVENTS = st.lists(st.tuples(st.integers(0, 9), ENERGIES), min_size=2, max_size=60)


def naive_off(columns, o, off, rows):
    """(i, j, k) → weight by brute force, and whether the weights can be measured."""
    t, e = [int(x) for x in columns["t_ns"]], columns["e_rec_MeV"]
    counts, muons = [i for i in rows if 0.7 <= e[i] <= 100], [t[i] for i in rows if e[i] > 100]
    place = np.array([columns[f"{axis}_m"] for axis in "xyz"], float).T

    def dead(x):
        return any(m <= x < m + o.veto_ns for m in muons)

    def live(x):
        return x <= t[-1] and not (o.veto is not None and o.veto.applies_to == "both" and dead(x))

    def crowded(low, high, own):
        return o.isolation is not None and any(low <= t[n] <= high for n in counts if n != own)

    survival = {}
    for dt in (0, o.window_ns // 2, o.window_ns):
        span = [x for x in range(t[0], t[-1]) if not dead(x)]
        free = sum(not crowded(x - o.before_ns, x + dt + o.after_ns, -1) for x in span)
        survival[dt] = free / len(span) if span else 1.0
    out = {}
    for i in counts:
        for j in counts:
            for k in range(1, off.windows + 1):
                dt = t[j] - t[i] - k * off.offset_ns
                if not 0 <= dt < o.window_ns or dead(t[i]) or not live(t[j]) or not live(t[i] + dt):
                    continue
                if crowded(t[i] - o.before_ns, t[i] + dt + o.after_ns, i):
                    continue
                if crowded(t[j] - dt - o.before_ns, t[j] + o.after_ns, j):
                    continue
                if o.max_dr_m is not None and np.linalg.norm(place[i] - place[j]) > o.max_dr_m:
                    continue
                windows = sum(live(t[i] + q * off.offset_ns + dt) for q in range(1, off.windows + 1))
                q = np.exp(np.interp(dt, list(survival), np.log(np.maximum(list(survival.values()), 1e-300))))
                out[i, j, k] = (0.5 if dt == 0 else 1.0) / windows / q
    middle = [t[i] + o.window_ns // 2 for i in counts if not dead(t[i]) and live(t[i] + o.window_ns // 2)]
    covered = sum(any(live(x + q * off.offset_ns) for q in range(1, off.windows + 1)) for x in middle)
    if middle and not covered:
        return {}, False
    share = covered / len(middle) if middle else 1.0
    return {key: w / share for key, w in out.items()}, not out or min(survival.values()) > 0


@settings(max_examples=150, deadline=None)
@given(
    EVENTS,
    st.integers(1, 6),
    st.none() | st.integers(0, 15),
    st.sampled_from(["prompt", "both"]),
    st.booleans(),
    st.integers(0, 4),
    st.integers(1, 4),
    st.none() | st.just(3.0),
    st.lists(st.integers(0, 60), max_size=5),
)
def test_naive_loop(events, half_window, veto, applies_to, isolated, more, windows, max_dr, cuts):
    options = PairOptions(
        window_ms=2 * half_window * NS,
        isolation=Isolation(2 * NS, 1 * NS) if isolated else None,
        veto=None if veto is None else MuonVeto(veto * NS, applies_to),
        max_dr_m=max_dr,
    )
    off = OffTime(offset_ms=(2 * half_window + 3 + more) * NS, windows=windows)
    n, rng = len(events), np.random.default_rng(1)
    columns = {
        "t_ns": np.cumsum([gap for gap, _ in events], dtype=np.int64),
        "e_rec_MeV": np.array([e for _, e in events], np.float32),
        "true_pair": np.zeros(n, np.int64),
    } | {f"{axis}_m": rng.integers(-2, 3, n).astype(np.float32) for axis in "xyz"}
    want, measurable = naive_off(columns, options, off, range(n))
    stream = off_time_pairs(cut(columns, cuts), options, off)
    if not measurable:
        with pytest.raises(NuebarError, match="off-time: no "):
            list(stream)
        return
    parts = list(stream)
    got = {}
    for p in parts:
        for i, j, k, w, dt in zip(
            *(p[name].tolist() for name in ("prompt_row", "delayed_row", "window", "weight", "dt_ns")), strict=True
        ):
            assert (i, j, k) not in got
            got[i, j, k] = w
            assert dt == columns["t_ns"][j] - columns["t_ns"][i] - k * off.offset_ns
    assert got == pytest.approx(want, rel=1e-9)


def test_same_bytes_however_cut():
    columns = toy(1)
    options = PairOptions(isolation=Isolation(1.0, 1.0), veto=VETO)
    results = []
    for cuts in ([], [17, 17, 3000], range(0, 7000, 100)):
        pairs = list(off_time_pairs(cut(columns, cuts), options, block_events=1024))
        results.append({name: np.concatenate([p[name] for p in pairs]).tobytes() for name in pairs[0]})
    assert results[0] == results[1] == results[2]


def test_on_time_pairs_are_those_of_a_pair_stream():
    columns, options = toy(1), PairOptions(isolation=Isolation(), veto=VETO)
    alone = PairStream([columns], options, block_events=1000)
    (want,) = list(alone)
    both = OnOffPairs([columns], options, block_events=1000)
    parts = [on for on, _ in both]
    for name, values in want.items():
        np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), values)
    assert both.summary == alone.summary


def test_no_correlated_pair_is_off_time():
    """A stream of pairs alone, far apart: nothing off time, however many on time."""
    columns = toy(2, rate=0.0, pair_rate=0.05, muons=0.0, seconds=10_000.0)
    n, true, result = measured(columns, PairOptions(), OffTime(), every)
    assert true > 400
    assert result.total == pytest.approx(n, abs=3)


def test_dense_burst_comes_in_pieces():
    """A thousand events at each of two times 10 ms apart: a million off-time pairs at dt 0."""
    n = 1000
    columns = {
        "t_ns": np.repeat([0, 10_000_000, 20_000_000], [n, n, 1]),
        "e_rec_MeV": np.ones(2 * n + 1, np.float32),
        **{f"{axis}_m": np.zeros(2 * n + 1, np.float32) for axis in "xyz"},
    }
    parts = list(OnOffPairs([columns], PairOptions(), OffTime(windows=1)))
    rows = {(i, j) for _, p in parts for i, j in zip(p["prompt_row"].tolist(), p["delayed_row"].tolist(), strict=True)}
    assert len(rows) == sum(p["dt_ns"].size for _, p in parts) == n * n + n
    assert max(p["dt_ns"].size for part in parts for p in part) <= 2**19
    assert sum(on["dt_ns"].size for on, _ in parts) == 2 * (n * (n - 1) // 2)


def test_sum_in_batches_and_bins():
    """Neither batches nor bins change the total; bins add up; the error is the formula by brute force."""
    columns = toy(4)
    ((on, off),) = list(OnOffPairs([columns], PairOptions(), OffTime(windows=6)))
    selected = off["prompt_e_rec_MeV"] > 0
    selected[::7] = False
    bins = (off["dt_ns"] // 500_000) - 1  # the first is out of range
    on_bins = (on["dt_ns"] // 500_000) - 1
    whole, pieces = AccidentalSum(3), AccidentalSum(3)
    whole.add(off, selected, bins, on=on, on_bins=on_bins)
    for a, b in pairwise([0, 1, 500, 501, off["weight"].size]):
        # On-time pairs come no later than the off-time ones of the same prompt events.
        ahead = {name: v[:0] if a else v for name, v in on.items()}
        part = {name: v[a:b] for name, v in off.items()}
        pieces.add(part, selected[a:b], bins[a:b], on=ahead, on_bins=on_bins[:0] if a else on_bins)
    one, other = whole.result(), pieces.result()
    for name in ("total", "error", "pairs", "candidates", "excess", "excess_error"):
        assert getattr(one, name) == pytest.approx(getattr(other, name))
    for name in ("sums", "errors", "excesses", "excess_errors"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name))
    w = off["weight"][selected]
    assert one.total == pytest.approx(w.sum())
    assert one.sums.sum() == pytest.approx(w[bins[selected] >= 0].sum())
    for chosen, error in ((selected, one.error), (selected & (bins == 1), one.errors[1])):
        events = {}
        for i, j, x in zip(off["prompt_row"][chosen], off["delayed_row"][chosen], off["weight"][chosen], strict=True):
            for event in (int(i), int(j)):
                events[event] = events.get(event, 0.0) + x
        variance = sum(s * s for s in events.values()) - (off["weight"][chosen] ** 2).sum()
        assert error == pytest.approx(math.sqrt(variance))


def test_sum_refuses():
    columns = toy(4)
    ((_, off),) = list(OnOffPairs([columns], PairOptions()))
    total = AccidentalSum()
    total.add(off)
    with pytest.raises(NuebarError, match="expected batches in the order of the stream"):
        total.add(off)
    with pytest.raises(NuebarError, match="selected: expected an entry for each"):
        AccidentalSum().add(off, np.ones(3, bool))
    with pytest.raises(NuebarError, match="at least one bin"):
        AccidentalSum(0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OffTime(windows=0), "windows: expected 1 to 1000, got 0"),
        (lambda: OffTime(offset_ms=math.inf), "offset_ms: expected at least 1 ns, got inf"),
        (
            lambda: OnOffPairs([], PairOptions(isolation=Isolation(5.0, 4.0)), OffTime(10.0)),
            "offset_ms: expected at least 11, the window and what isolation looks at, got 10",
        ),
        (
            lambda: list(OnOffPairs([toy(1, seconds=0.009, rate=2000.0, muons=0.0)])),
            "no window of the .* live events .* lies in live time",
        ),
    ],
)
def test_refused(make, message):
    with pytest.raises(NuebarError, match=message):
        make()
