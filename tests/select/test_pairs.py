"""Pairs of a stream: the naive double loop, however the stream is cut; live time; what is refused."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuebar.errors import NuebarError
from nuebar.select.features import features_of
from nuebar.select.pairs import STREAM_COLUMNS, Isolation, MuonVeto, PairOptions, PairStream, pair_indices

NS = 1e-6  # in ms


def make_stream(t, e, seed=0):
    """A stream with vertices on a coarse lattice, so that distances tie with limits now and then."""
    n, rng = len(t), np.random.default_rng(seed)
    columns = {"t_ns": np.array(t, np.int64), "e_rec_MeV": np.array(e, np.float32)}
    columns |= {f"{axis}_m": rng.integers(-2, 3, n).astype(np.float32) for axis in "xyz"}
    return columns | {"true_kind": np.array(e, np.int64), "true_pair": np.arange(n) % 3}


def cut(columns, cuts):
    edges = [0, *sorted(min(c, columns["t_ns"].size) for c in cuts), columns["t_ns"].size]
    return [{name: v[a:b] for name, v in columns.items()} for a, b in pairwise(edges)]


def is_muon(columns, o):
    muon = np.zeros(columns["t_ns"].size, bool)
    if o.muon_MeV is not None:
        muon |= columns["e_rec_MeV"] > o.muon_MeV
    if o.muon_kind is not None:
        muon |= columns["true_kind"] == o.muon_kind
    return muon


def naive_parts(columns, o):
    """Rows that count, and a function that says whether a time is dead."""
    muon = is_muon(columns, o)
    counts = np.flatnonzero(~muon & (columns["e_rec_MeV"] >= np.float32(o.threshold_MeV)))
    muons = [int(t) for t in columns["t_ns"][muon]]
    return [int(i) for i in counts], lambda t: any(m <= t < m + o.veto_ns for m in muons)


def naive_pairs(columns, o):
    counts, dead = naive_parts(columns, o)
    t = [int(x) for x in columns["t_ns"]]
    place = np.array([columns[f"{axis}_m"] for axis in "xyz"], float).T
    out = []
    for a, i in enumerate(counts):
        for j in counts[a + 1 :]:
            if t[j] - t[i] >= o.window_ns:
                continue
            if o.veto and (dead(t[i]) or (o.veto.applies_to == "both" and dead(t[j]))):
                continue
            low, high = t[i] - o.before_ns, t[j] + o.after_ns
            if o.isolation and any(low <= t[k] <= high for k in counts if k not in (i, j)):
                continue
            e = columns["e_rec_MeV"]
            if e[i] < (o.prompt_min_MeV or 0) or e[j] < (o.delayed_min_MeV or 0):
                continue
            if o.max_dr_m is not None and np.linalg.norm(place[i] - place[j]) > o.max_dr_m:
                continue
            out.append((i, j))
    return out


def taken(stream):
    parts = list(stream)
    rows = [(int(i), int(j)) for p in parts for i, j in zip(p["prompt_row"], p["delayed_row"], strict=True)]
    return rows, parts


ENERGIES = st.sampled_from([0.0, 0.5, 1.0, 1.0, 2.0, 2.0, 3.0, 500.0])
EVENTS = st.lists(st.tuples(st.integers(0, 9), ENERGIES), max_size=40)
BURST = st.lists(st.tuples(st.integers(0, 1), st.just(1.0)), max_size=30)
OPTIONS = st.builds(
    PairOptions,
    window_ms=st.integers(1, 25).map(lambda n: n * NS),
    threshold_MeV=st.sampled_from([0.0, 0.7, 2.0]),
    muon_MeV=st.sampled_from([None, 100.0]),
    muon_kind=st.sampled_from([None, 3]),
    isolation=st.none()
    | st.builds(Isolation, st.integers(0, 9).map(lambda n: n * NS), st.integers(0, 9).map(lambda n: n * NS)),
    prompt_min_MeV=st.sampled_from([None, 1.5]),
    delayed_min_MeV=st.sampled_from([None, 2.0]),
    max_dr_m=st.sampled_from([None, 3.0]),
)
VETO = st.none() | st.builds(
    MuonVeto, st.integers(0, 30).map(lambda n: n * NS), applies_to=st.sampled_from(["prompt", "both"])
)


def with_veto(options, veto):
    no_muons = options.muon_MeV is None and options.muon_kind is None
    return replace(options, veto=veto, muon_MeV=100.0 if veto and no_muons else options.muon_MeV)


@settings(max_examples=150, deadline=None)
@given(EVENTS, BURST, EVENTS, OPTIONS, VETO, st.lists(st.integers(0, 100), max_size=8), st.integers(1, 9))
def test_nothing_lost_nothing_doubled(before, burst, after, options, veto, cuts, block_events):
    options = with_veto(options, veto)
    events = before + burst + after
    columns = make_stream(np.cumsum([gap for gap, _ in events]), [e for _, e in events])
    stream = PairStream(cut(columns, cuts), options, block_events=block_events)
    rows, parts = taken(stream)
    assert rows == naive_pairs(columns, options)
    for p in parts:
        i, j = p["prompt_row"], p["delayed_row"]
        np.testing.assert_array_equal(p["dt_ns"], columns["t_ns"][j] - columns["t_ns"][i])
        np.testing.assert_array_equal(p["prompt_t_ns"], columns["t_ns"][i])
        for name in ("e_rec_MeV", "x_m", "y_m", "z_m"):
            np.testing.assert_array_equal(p[f"prompt_{name}"], columns[name][i])
            np.testing.assert_array_equal(p[f"delayed_{name}"], columns[name][j])
        np.testing.assert_array_equal(p["true_prompt_pair"], columns["true_pair"][i])
        np.testing.assert_array_equal(p["true_delayed_kind"], columns["true_kind"][j])
        assert features_of(p).shape == (i.size, 10)


@settings(max_examples=100, deadline=None)
@given(EVENTS, EVENTS, OPTIONS, VETO, st.lists(st.integers(0, 60), max_size=6), st.integers(1, 9))
def test_live_time_and_survival_by_counting_nanoseconds(before, after, options, veto, cuts, block_events):
    options = with_veto(options, veto)
    events = before + after
    columns = make_stream(np.cumsum([gap for gap, _ in events]) + 1000, [e for _, e in events])
    stream = PairStream(cut(columns, cuts), options, block_events=block_events)
    rows, _ = taken(stream)
    s = stream.summary
    counts, dead = naive_parts(columns, options)
    assert (s.events, s.counted, s.muons) == (len(events), len(counts), int(is_muon(columns, options).sum()))
    assert s.found - s.vetoed - s.crowded - s.dropped == s.pairs == len(rows)
    t = columns["t_ns"]
    span = range(int(t[0]), int(t[-1])) if t.size else range(0)
    live = [x for x in span if not dead(x)] if options.veto_ns else list(span)
    assert s.span_s == pytest.approx(len(span) * 1e-9, abs=1e-15)
    assert s.live_s == pytest.approx(len(live) * 1e-9, abs=1e-15)
    if options.isolation is None or not live:
        assert s.survival_probability == (1.0, 1.0, 1.0)
        return
    for dt, probability in zip(s.survival_dt_ns, s.survival_probability, strict=True):
        low, high = options.before_ns, int(dt) + options.after_ns
        empty = sum(not any(x - low <= t[k] <= x + high for k in counts) for x in live)
        assert probability == pytest.approx(empty / len(live), abs=1e-12)


def test_dead_time_between_what_pairs_reach_and_the_next_block_counts():
    """Bug: a veto later than the last pair of a block, but before its next event, was live for the survival."""
    columns = make_stream([1000, 1002, 1003], [0.0, 500.0, 0.0])
    options = PairOptions(NS, muon_MeV=100.0, veto=MuonVeto(NS), isolation=Isolation(0.0, 0.0), threshold_MeV=0.0)
    for block_events in (1, 9):
        stream = PairStream([columns], options, block_events=block_events)
        taken(stream)
        # Of the live ns 1000 and 1001 the second is empty.
        assert stream.summary.survival_probability[0] == 0.5


def test_dead_intervals_join_over_chunks():
    t = [0, 100, 105, 150, 300, 301, 450]
    columns = make_stream(t, [1, 500, 500, 1, 500, 1, 1])
    for cuts in ([], [2], [1, 2, 3, 4, 5, 6]):
        stream = PairStream(cut(columns, cuts), PairOptions(veto=MuonVeto(40 * NS)))
        taken(stream)
        assert stream.summary.dead_intervals == 2
        assert stream.summary.live_s == pytest.approx((450 - 45 - 40) * 1e-9)
        assert stream.summary.pair_live_s(3.0) == pytest.approx((450 - 45 - 40 - 6) * 1e-9)


def test_veto_borders():
    """Dead from the muon on, alive again when the veto is over; the order of equal times does not matter."""
    columns = make_stream([1000, 1000, 1000, 1049, 1049, 1050, 1051], [1, 500, 1, 1, 1, 1, 1])
    rows, _ = taken(PairStream([columns], PairOptions(window_ms=60 * NS, veto=MuonVeto(50 * NS))))
    assert rows == [(5, 6)]


def poisson_stream(rate_Hz, seconds, seed=1, muons_Hz=0.0):
    rng = np.random.default_rng(seed)
    n, m = rng.poisson(rate_Hz * seconds), rng.poisson(muons_Hz * seconds)
    t = np.concatenate((rng.random(n), rng.random(m))) * seconds * 1e9
    order = np.argsort(t)
    return make_stream(t[order].astype(np.int64), np.where(order < n, 1.0, 500.0))


def test_poisson_rates():
    """Pairs R² T w, live time exp(-μ veto), survival exp(-R L), within five standard errors."""
    rate, seconds, muons = 100.0, 1000.0, 5.0
    columns = poisson_stream(rate, seconds, muons_Hz=muons)
    options = PairOptions(isolation=Isolation(2.0, 1.0), veto=MuonVeto(20.0))
    stream = PairStream(cut(columns, [1000, 50_000]), options, block_events=4096)
    taken(stream)
    s = stream.summary
    found = rate**2 * seconds * 2e-3
    assert abs(s.found - found) < 5 * math.sqrt(found * (1 + 4 * rate * 2e-3))
    live = math.exp(-muons * 20e-3)
    assert abs(s.live_s / s.span_s - live) < 5 * 20e-3 * live * math.sqrt(muons / seconds)
    for dt, p, error in zip(s.survival_dt_ns, s.survival_probability, s.survival_error, strict=True):
        assert 0 < error < 2e-3
        assert abs(p - math.exp(-rate * (3e-3 + dt * 1e-9))) < 5 * error + 5e-4
    assert s.survival(0.5e6) == pytest.approx(math.sqrt(s.survival(0.0) * s.survival(1e6)))


def test_survival_error_is_the_spread():
    """Over many Poisson streams."""
    options = PairOptions(isolation=Isolation(3.0, 3.0))
    values, errors = [], []
    for seed in range(200):
        stream = PairStream([poisson_stream(100.0, 20.0, seed)], options)
        taken(stream)
        values.append(stream.summary.survival_probability[1])
        errors.append(stream.summary.survival_error[1])
    assert np.std(values) == pytest.approx(np.mean(errors), rel=0.2)


def test_dense_burst_comes_in_pieces():
    """A thousand events at one time: half a million pairs, in batches of limited size."""
    columns = make_stream(np.full(1000, 7), np.ones(1000))
    rows, parts = taken(PairStream([columns], PairOptions()))
    assert len(rows) == len(set(rows)) == 1000 * 999 // 2
    assert max(p["dt_ns"].size for p in parts) <= 2**19
    assert len(parts) > 1


def test_same_bytes_however_cut():
    columns = poisson_stream(300.0, 100.0, muons_Hz=4)
    options = PairOptions(isolation=Isolation(1.0, 1.0), veto=MuonVeto(22.3))
    results = []
    for cuts in ([], [17, 17, 9000], range(0, 30_000, 1000)):
        stream = PairStream(cut(columns, cuts), options, block_events=1024)
        parts = list(stream)
        results.append(({n: np.concatenate([p[n] for p in parts]).tobytes() for n in parts[0]}, stream.summary))
    assert results[0] == results[1] == results[2]


def test_memory_does_not_grow_with_the_stream():
    """What is carried from batch to batch is two blocks and the reach of a pair."""
    columns = poisson_stream(1000.0, 60.0)
    stream = PairStream(cut(columns, range(0, 60_000, 500)), PairOptions(), block_events=512)
    most = 0
    for block in stream._blocks:
        most = max(most, stream._blocks._held["t_ns"].size, block.t_ns.size)
    assert most < 512 * 2 + 500 + 512 + 20


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=50), st.integers(0, 30))
def test_pair_indices(events, window):
    t = np.cumsum([gap for gap, _ in events], dtype=np.int64)
    counts = np.array([c for _, c in events], bool)
    i, j = pair_indices(t, counts, window)
    n = len(events)
    want = [
        (a, b) for a in range(n) for b in range(a + 1, n) if counts[a] and counts[b] and t[b] - t[a] < window
    ]  # fmt: skip
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == want


@pytest.mark.parametrize("columns", [{}, {"t_ns": np.empty(0, np.int64)}])
def test_no_events(columns):
    empty = {**make_stream([], []), **columns}
    for batches in ([], [empty], [empty, empty]):
        stream = PairStream(batches, PairOptions(isolation=Isolation(), veto=MuonVeto(1.0)))
        assert taken(stream)[0] == []
        assert stream.summary.live_s == 0


BAD = [
    ("t_ns", [0, 5, 4, 9], "'t_ns', row 12: expected times in order, got 4 after 5"),
    ("t_ns", [-9, 5, 6, 9], "'t_ns', row 10: expected times in order, got -9 after"),
    ("t_ns", [0.0, 1.0, 2.0, 3.0], r"expected whole ns \(int64\), got float64"),
    ("e_rec_MeV", [1, 1, math.nan, 1], "'e_rec_MeV', row 12: expected a finite number, got nan"),
    ("y_m", [0, math.inf, 1, 1], "'y_m', row 11: expected a finite number, got inf"),
    ("z_m", [0, 1, 1], "'z_m', from row 10: expected one number for each of the 4 times"),
]


@pytest.mark.parametrize(("name", "values", "message"), BAD)
def test_refused(name, values, message):
    good = make_stream(np.arange(10) - 9, np.ones(10))
    bad = make_stream([0, 1, 2, 3], np.ones(4))
    bad[name] = np.array(values, dtype=np.float32 if name != "t_ns" else None)
    with pytest.raises(NuebarError, match=message):
        list(PairStream([good, bad], PairOptions()))


def test_missing_columns_and_early_summary():
    columns = make_stream([0, 1], [1, 1])
    stream = PairStream([columns], PairOptions())
    with pytest.raises(NuebarError, match="read to its end"):
        _ = stream.summary
    with pytest.raises(NuebarError, match="missing column 'x_m'"):
        list(PairStream([{n: v for n, v in columns.items() if n != "x_m"}]))
    with pytest.raises(NuebarError, match="missing column 'true_kind'"):
        list(PairStream([{n: v for n, v in columns.items() if n != "true_kind"}], PairOptions(muon_kind=0)))
    with pytest.raises(NuebarError, match="column 'true_pair' ends at row 2"):
        list(PairStream([columns, {n: v for n, v in columns.items() if n != "true_pair"}]))
    with pytest.raises(NuebarError, match="expected times in order, got 1 after 2"):
        pair_indices(np.array([2, 1]), np.ones(2, bool), 5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PairOptions(window_ms=0), "window_ms: expected a finite number above 0"),
        (lambda: PairOptions(window_ms=math.nan), "window_ms: expected a finite number above 0, got nan"),
        (lambda: PairOptions(window_ms=1e-9), "window_ms: expected at least 1 ns"),
        (lambda: PairOptions(threshold_MeV=-1), "threshold_MeV: expected a finite number not below 0"),
        (lambda: PairOptions(isolation=Isolation(before_ms=-1)), "isolation: before_ms: expected"),
        (lambda: PairOptions(veto=MuonVeto(-1.0)), "veto: veto_ms: expected"),
        (lambda: PairOptions(veto=MuonVeto(1.0, "delayed")), "expected 'prompt' or 'both', got 'delayed'"),
        (lambda: PairOptions(veto=MuonVeto(1.0), muon_MeV=None), "expected muon_MeV or muon_kind"),
    ],
)
def test_options_refused(make, message):
    with pytest.raises(NuebarError, match=message):
        make()


def test_stream_of_files(tmp_path):
    """Read-only batches of Parquet files, a border between files inside of pairs."""
    from nuebar.io.events import EventFile, EventWriter

    columns = poisson_stream(200.0, 50.0)
    for k, part in enumerate(cut(columns, [5000])):
        with EventWriter(tmp_path / f"chunk-{k}.parquet", STREAM_COLUMNS) as writer:
            writer.append({name: part[name] for name in STREAM_COLUMNS})
    events = EventFile(tmp_path, STREAM_COLUMNS)
    rows, _ = taken(PairStream(events.batches(777), PairOptions()))
    assert rows == taken(PairStream([columns], PairOptions()))[0]
