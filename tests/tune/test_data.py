"""Calibration data for a tuning: what a user gives is checked, and weights stand for all events."""

import importlib.util
import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuebar.errors import NuebarError
from nuebar.io.calibration import CalibrationTable, ChargeChunk, StoredCharges
from nuebar.io.event_writer import EventWriter
from nuebar.io.histograms import Histogram
from nuebar.tune.data import CalibrationData, knot_weights, load_calibration_data, require_match, weights

spec = importlib.util.spec_from_file_location("toy_density", Path(__file__).with_name("toy.py"))
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)

DENSITY, TRUTH = toy.ToyDensity(), toy.TRUTH
FACTOR, EDGES = DENSITY.pe_to_observable, DENSITY.edges
RANGE = (EDGES[0], EDGES[-1])
RESPONSES = [list(TRUTH.values()), [6.0, 0.0, 8000.0], [24.0, 1.0, 12000.0], [7.35, 0.975, 8300.0]]


@pytest.fixture(scope="module")
def samples():
    return {source: DENSITY.sample(3000 + 500 * i, TRUTH, source, seed=i) for i, source in enumerate(DENSITY.sources)}


@pytest.fixture(scope="module")
def data(samples):
    return CalibrationData.from_charges(samples, EDGES, FACTOR)


# ---------------------------------------------------------------- the record


def test_every_event_is_counted_once(data, samples):
    assert data.sources == DENSITY.sources
    for i, (source, n_pe) in enumerate(samples.items()):
        x = n_pe * FACTOR
        assert data.outside[i].tolist() == [np.sum(x < RANGE[0]), np.sum(x >= RANGE[1])]
        np.testing.assert_array_equal(data.counts[i], np.histogram(x, EDGES)[0])
        np.testing.assert_array_equal(data.charges[i], n_pe[(x >= RANGE[0]) & (x < RANGE[1])])
        assert data.events[i] + data.outside[i].sum() == n_pe.size, source


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32])
def test_edges_belong_to_the_bin_above(kind):
    data = CalibrationData.from_charges({"A": np.array([0, 1, 2, 3, 4, 4, 5], kind)}, np.array([1.0, 2, 4]), 1.0)
    assert data.counts.tolist() == [[1, 2]]
    assert data.outside.tolist() == [[1, 3]]
    assert data.charges[0].tolist() == [1, 2, 3]
    assert data.charges[0].dtype == (np.float32 if kind == np.float32 else np.float64)


def test_records_cannot_be_written_to(data):
    other = data.with_background({"K40": np.full(800, 0.01)})
    for array in (data.edges, data.counts, data.outside, *data.charges, other.background):
        assert not array.flags.writeable


def test_subsets_keep_the_rows_together(data):
    data = data.with_background({"K40": np.full(800, 0.01)})
    part = data.subset(("AmC", "K40"))
    assert part.sources == ("AmC", "K40")
    for source in part.sources:
        i, j = part.sources.index(source), data.sources.index(source)
        for name in ("counts", "outside", "charges", "background"):
            np.testing.assert_array_equal(getattr(part, name)[i], getattr(data, name)[j])
    assert data.subset(data.sources).counts.tolist() == data.counts.tolist()
    with pytest.raises(NuebarError, match=r"source 'Cs': the data hold Cs137, K40, .*; choose among these"):
        data.subset(("Cs",))


def table_and_charges(samples):
    """One data set, of which the second portion comes first in the files; some charges are below, some above."""
    names = tuple(samples)
    n_pe = np.array([q[:3000] for q in samples.values()], np.float32)
    n_pe[:, 5:10], n_pe[1, 2000:2003] = 100.0, 1e5
    counts = [np.histogram(q.astype(float) * FACTOR, np.r_[-np.inf, EDGES, np.inf])[0] for q in n_pe]
    point = np.array([list(TRUTH.values())])
    number = np.array([7])
    table = CalibrationTable(number, point, np.array([3000]), np.array([counts], np.int32), names, EDGES, FACTOR, "x")
    parts = [
        ChargeChunk(Path("c"), point, number, np.array([first]), np.array([0, end - first]), n_pe[:, first:end])
        for first, end in ((1000, 3000), (0, 1000))
    ]
    return table, StoredCharges(tuple(parts), names, FACTOR, "x"), n_pe


def test_simulated_data_sets(samples):
    table, charges, n_pe = table_and_charges(samples)
    binned = CalibrationData.from_table(table, 7)
    single = CalibrationData.from_table(table, 7, charges=charges)
    assert binned.charges is None
    assert dict(single.about) == dict.fromkeys(samples, "x, data set 7")
    np.testing.assert_array_equal(binned.counts, single.counts)
    np.testing.assert_array_equal(binned.outside, single.outside)
    for stored, q in zip(single.charges, n_pe, strict=True):
        np.testing.assert_array_equal(stored, q[(q * FACTOR >= RANGE[0]) & (q * FACTOR < RANGE[1])])
    with pytest.raises(NuebarError, match="expected a data set from 7 to 7, got data set 0"):
        CalibrationData.from_table(table, 0)


def made(**changes):
    given = {"sources": ("A", "B"), "edges": [0.0, 1.0, 2.0], "pe_to_observable": 1.0}
    return CalibrationData(**{**given, "counts": [[1, 2], [3, 4]], "outside": [[0, 0], [0, 0]], **changes})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sources": ()}, "expected sources of different names"),
        ({"sources": ("A", "A")}, "expected sources of different names"),
        ({"edges": [0.0, 2.0, 1.0]}, "expected ascending edges"),
        ({"edges": [0.0, np.nan, 1.0]}, "expected ascending edges"),
        ({"pe_to_observable": 0.0}, "pe_to_observable: expected a number above 0, got 0.0"),
        ({"counts": [[1, 2, 3], [4, 5, 6]]}, r"counts: expected shape \(2, 2\), got \(2, 3\)"),
        ({"counts": [[1, 2], [3, np.nan]]}, "source 'B', counts: expected finite numbers of at least 0, got nan at 1"),
        ({"outside": [[0, -1], [0, 0]]}, "source 'A', outside: expected finite numbers of at least 0, got -1 at 1"),
        ({"background": [[0, 0], [np.inf, 0]]}, "source 'B', background: .* got inf at 0"),
        ({"charges": (np.ones(3), np.ones(6))}, "expected as many charges as counts"),
    ],
)
def test_inconsistent_records_are_refused(changes, sentence):
    made()
    with pytest.raises(NuebarError, match=sentence):
        made(**changes)


@pytest.mark.parametrize(
    ("background", "sentence"),
    [
        ({"C": [0.0, 0.0]}, "background of 'C': the data hold A, B; leave it out"),
        ({"A": [0.1]}, r"background of 'A': expected 2 counts, got shape \(1,\)"),
        ({"A": [1.0, 2.0]}, "background of 'A': expected fewer counts than the 3 of the data in the range, got 3"),
        ({"A": [-1.0, 0.0]}, "source 'A', background: expected finite numbers of at least 0, got -1"),
        ({"A": [np.nan, 0.0]}, "source 'A', background: expected finite numbers of at least 0, got nan"),
    ],
)
def test_wrong_backgrounds_are_refused(background, sentence):
    with pytest.raises(NuebarError, match=sentence):
        made().with_background(background)


def test_charges_that_are_no_numbers():
    with pytest.raises(NuebarError, match="source 'A', event 1: expected a finite charge, got nan; drop it"):
        CalibrationData.from_charges({"A": np.array([1.0, np.nan])}, EDGES, FACTOR)


# ---------------------------------------------------------------- files


def parquet(path, n_pe):
    with EventWriter(path, ("n_pe",)) as writer:
        writer.append({"n_pe": n_pe})
    return path


def csv(path, counts, edges=EDGES):
    rows = [f"{low:.10g},{high:.10g},{n:.17g}" for low, high, n in zip(edges[:-1], edges[1:], counts, strict=True)]
    path.write_text("\n".join(["low,high,counts", *rows]), encoding="utf-8")
    return path


def test_files_of_all_kinds(tmp_path, data, samples):
    fine = Histogram(np.linspace(0.0, 20.0, 2001) / FACTOR, np.histogram(samples["K40"] * FACTOR, 2000, (0, 20))[0])
    fine.save(tmp_path / "k.json")
    background = np.linspace(0.5, 0.1, 800)
    got = load_calibration_data(
        {
            "K40": tmp_path / "k.json",
            "AmC": csv(tmp_path / "amc.csv", data.counts[4]),
            "Cs137": parquet(tmp_path / "cs.parquet", samples["Cs137"].astype(np.float32)),
        },
        DENSITY,
        background={"AmC": csv(tmp_path / "b.csv", background)},
    )
    assert got.sources == ("Cs137", "K40", "AmC")
    np.testing.assert_array_equal(got.counts, data.counts[[0, 1, 4]])
    np.testing.assert_array_equal(got.outside.sum(axis=1), [*data.outside[:2].sum(axis=1), 0])
    assert got.charges is None
    assert got.about["Cs137"] == str(tmp_path / "cs.parquet")
    np.testing.assert_array_equal(got.background, [np.zeros(800), np.zeros(800), background])
    only = load_calibration_data({"Cs137": tmp_path / "cs.parquet"}, DENSITY)
    np.testing.assert_array_equal(only.charges[0], data.charges[0].astype(np.float32))
    assert only.background is None


CS = DENSITY.sample(2000, TRUTH, "Cs137", seed=5)
COUNTS = np.histogram(CS * FACTOR, EDGES)[0].astype(float)


def changed(place, value):
    counts = COUNTS.copy()
    counts[place] = value
    return counts


PEAK = int(np.argmax(COUNTS))
BAD = {
    "MeV": (lambda p: parquet(p, CS / 1600), r"expected a median of \d+.* photo-electrons.*energy in MeV"),
    "thousands": (lambda p: parquet(p, CS / 1000), "like thousands of them or like an energy in MeV, give photo-elec"),
    "observable": (lambda p: parquet(p, CS * FACTOR), "thousands of them"),
    "keV": (lambda p: parquet(p, CS * 1000 / 1600 + 1e4), "check unit and source"),
    "another source": (lambda p: parquet(p, 3 * CS), r"expected a median of .*'toy' can give.*check unit and source"),
    "all above": (lambda p: parquet(p, 1e4 * CS), "check unit and source"),
    "one bin": (lambda p: parquet(p, np.full(100, 1000.0)), "got all events in one bin"),
    "empty": (lambda p: parquet(p, CS[:0]), "Cs137: expected events, got none; check the file"),
    "no counts": (lambda p: csv(p, 0 * COUNTS), "Cs137: expected events, got none; check the file"),
    "negative": (lambda p: csv(p, changed(PEAK, -2)), rf"got -2 in bin {PEAK}; give the spectrum as it was measured"),
    "subtracted": (lambda p: csv(p, changed(PEAK, 10.25)), r"whole numbers of events, got 10\.25 .*\(--background\)"),
    "normalised": (lambda p: csv(p, COUNTS / COUNTS.sum()), "neither scaled nor with background subtracted"),
    "no number": (lambda p: csv(p, changed(3, np.nan)), "line 5, column 'counts': expected a finite number"),
    "coarse": (lambda p: csv(p, COUNTS[::2], EDGES[::2]), "expected the 800 bins of the density"),
}


@pytest.mark.parametrize(("make", "sentence"), BAD.values(), ids=BAD)
def test_wrong_data_are_refused(tmp_path, make, sentence):
    path = make(tmp_path / ("a.parquet" if make.__code__.co_names[0] == "parquet" else "a.csv"))
    with pytest.raises(NuebarError, match=sentence) as told:
        load_calibration_data({"Cs137": path}, DENSITY)
    assert str(path) in str(told.value)


def test_wrong_names_are_refused(tmp_path):
    path = parquet(tmp_path / "a.parquet", CS)
    with pytest.raises(NuebarError, match=r"source 'Ge68': the density 'toy' knows Cs137, .*; choose"):
        load_calibration_data({"Ge68": path}, DENSITY)
    with pytest.raises(NuebarError, match="source 'cs': the density 'toy' knows"):
        load_calibration_data({"Cs137": path}, DENSITY, background={"cs": path})
    with pytest.raises(NuebarError, match="background of 'K40': the data hold Cs137; leave it out"):
        load_calibration_data({"Cs137": path}, DENSITY, background={"K40": path})
    with pytest.raises(NuebarError, match="background of 'Cs137': expected fewer counts than the 2000 of the data"):
        load_calibration_data({"Cs137": path}, DENSITY, background={"Cs137": path})
    with pytest.raises(NuebarError, match="expected a file for at least one of Cs137, K40"):
        load_calibration_data({}, DENSITY)


def test_events_outside_are_told_of(tmp_path, caplog):
    mostly = parquet(tmp_path / "a.parquet", np.r_[CS, np.full(2001, 100.0)])
    with caplog.at_level(logging.WARNING):
        data = load_calibration_data({"Cs137": mostly}, DENSITY)
    assert data.outside.tolist() == [[2001, 0]]
    assert "only 2000 of 4001 events lie from 0.4 to 16.4" in caplog.text
    caplog.clear()
    load_calibration_data({"Cs137": parquet(tmp_path / "b.parquet", np.r_[CS, np.full(1999, 100.0)])}, DENSITY)
    assert not caplog.text


@pytest.mark.parametrize("response", RESPONSES)
def test_no_point_of_the_box_is_refused(tmp_path, response):
    point = dict(zip(TRUTH, response, strict=True))
    paths = {s: parquet(tmp_path / f"{s}.parquet", DENSITY.sample(500, point, s, seed=3)) for s in DENSITY.sources}
    assert load_calibration_data(paths, DENSITY).events.tolist() == [500.0] * 5


# ---------------------------------------------------------------- weights

KNOTS = {
    "even": np.linspace(0.4, 16.4, 2001),
    "uneven": np.sort(np.r_[0.4, 16.4, np.random.default_rng(2).uniform(0.4, 16.4, 60)]),
    "geometric": np.geomspace(0.4, 16.4, 100),
    "few": np.array([0.4, 2.0, 3.0, 9.0, 12.0, 16.4]),
}


@pytest.mark.parametrize("degree", [1, 3, 5])
@pytest.mark.parametrize("knots", KNOTS.values(), ids=KNOTS)
def test_polynomials_are_exact(knots, degree):
    x = np.r_[np.random.default_rng(1).uniform(0.4, 16.4, 40_000), 0.4, 16.4, knots]
    w = knot_weights(x, knots, degree)
    assert w.sum() == pytest.approx(x.size, rel=1e-12)
    for power in range(degree + 1):
        f = lambda v, power=power: ((v - 8.4) / 8) ** power  # noqa: E731
        assert w @ f(knots) == pytest.approx(f(x).sum(), abs=1e-12 * x.size)


@pytest.mark.parametrize("degree", [1, 3, 5])
@pytest.mark.parametrize("knots", KNOTS.values(), ids=KNOTS)
def test_a_value_on_a_knot_weighs_that_knot(knots, degree):
    for i in {0, 1, knots.size // 2, knots.size - 2, knots.size - 1}:
        np.testing.assert_allclose(knot_weights(knots[[i]], knots, degree), np.eye(1, knots.size, i)[0], atol=1e-12)


@given(
    st.lists(st.floats(0.4, 16.4, allow_subnormal=False), min_size=1, max_size=5),
    st.sampled_from([1, 3, 5]),
    st.integers(7, 30),
    st.sampled_from([np.geomspace, np.linspace]),
)
@settings(deadline=None, max_examples=100)
def test_weights_are_those_of_lagrange(x, degree, n, spaced):
    """Against the interpolating polynomial through the nearest knots, one value at a time."""
    knots = spaced(0.4, 16.4, n)
    knots[-1] = 16.4
    expected = np.zeros(n)
    for v in x:
        j = int(np.searchsorted(knots, v, side="right")) - 1
        first = min(max(j - degree // 2, 0), n - degree - 1)
        near = knots[first : first + degree + 1]
        for m in range(degree + 1):
            others = np.delete(near, m)
            expected[first + m] += np.prod((v - others) / (near[m] - others))
    np.testing.assert_allclose(knot_weights(np.array(x), knots, degree), expected, rtol=1e-9, atol=1e-9)


def test_order_and_blocks_do_not_matter():
    x = np.random.default_rng(3).uniform(0.4, 16.4, 70_000)
    for knots in KNOTS.values():
        whole, parts = knot_weights(x, knots), knot_weights(x[:999], knots) + knot_weights(x[:998:-1], knots)
        np.testing.assert_allclose(whole, parts, rtol=1e-9, atol=1e-9)
    assert not knot_weights(np.zeros(0), KNOTS["even"]).any()


@pytest.mark.parametrize(("degree", "order"), [(1, 2), (3, 4), (5, 6)])
@pytest.mark.parametrize("grid", [lambda n: np.linspace(0, 3, n), lambda n: np.geomspace(1, 4, n) - 1])
def test_errors_fall_with_the_power_of_the_step(degree, order, grid):
    x = np.random.default_rng(1).uniform(0, 3, 5000)
    f = np.exp
    errors = [abs(knot_weights(x, grid(n), degree) @ f(grid(n)) - f(x).sum()) for n in (16, 31)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.7)


@pytest.mark.parametrize(
    ("x", "knots", "degree", "sentence"),
    [
        ([1.0], np.arange(9.0), 2, "degree: expected one of 1, 3, 5, got 2"),
        ([1.0], np.arange(5.0), 5, "expected at least 6 ascending numbers"),
        ([1.0], [0, 1, 1, 2.0], 1, "expected at least 2 ascending numbers"),
        ([1.0, 8.1], np.arange(9.0), 5, "expected values from 0 to 8, got 8.1"),
        ([-0.1, 1.0], np.arange(9.0), 3, "got -0.1; drop those outside"),
        ([1.0, np.nan], np.arange(9.0), 5, "got nan"),
    ],
)
def test_wrong_values_are_refused(x, knots, degree, sentence):
    with pytest.raises(NuebarError, match=sentence):
        knot_weights(np.array(x), knots, degree)


@pytest.mark.parametrize("response", RESPONSES)
def test_the_sum_of_log_densities(response):
    """Where data are likely: the floor under the peaks of the toy meets them in a kink, eight widths away."""
    point = np.array(response)
    named = dict(zip(TRUTH, response, strict=True))
    n_pe = {source: DENSITY.sample(2000, named, source, seed=1) for source in DENSITY.sources}
    data = CalibrationData.from_charges(n_pe, EDGES, FACTOR)
    w = weights(data, DENSITY, unbinned=True)
    assert w.shape == (5, DENSITY.knots.size)
    np.testing.assert_allclose(w.sum(axis=1), data.events, rtol=1e-12)
    for tried in (point, point * [1.02, 0.99, 1.002]):
        table = np.asarray(DENSITY.log_density(tried))
        for i in range(5):
            direct = np.asarray(DENSITY.at(tried, data.charges[i] * FACTOR))[i].sum()
            assert abs(w[i] @ table[i] - direct) < 1e-6 * data.events[i]


def test_binned_weights_are_counts(data):
    part = data.subset(("Co60", "Cs137"))
    np.testing.assert_array_equal(weights(part, DENSITY, unbinned=False), part.counts)
    assert weights(part, DENSITY, unbinned=True).shape == (2, DENSITY.knots.size)


class BinsOnly(toy.ToyDensity):
    @property
    def knots(self):
        return np.zeros(0)


def test_weights_of_data_that_do_not_match(data):
    binned = CalibrationData.from_counts(dict(zip(data.sources, data.counts, strict=True)), EDGES, FACTOR)
    with pytest.raises(NuebarError, match="expected single events, got histograms; fit binned"):
        weights(binned, DENSITY, unbinned=True)
    with pytest.raises(NuebarError, match="the density 'toy' knows bins only"):
        weights(data, BinsOnly(), unbinned=True)
    for other, sentence in (
        (CalibrationData.from_counts({"Ge68": COUNTS}, EDGES, FACTOR), "source 'Ge68': the density 'toy' knows"),
        (
            CalibrationData.from_counts({"K40": COUNTS}, EDGES, 1e-3),
            r"expected 0\.00107 of the observable.*got 0\.001;",
        ),
        (CalibrationData.from_counts({"K40": COUNTS}, EDGES + 0.01, FACTOR), "expected the bins of the density 'toy'"),
        (CalibrationData.from_counts({"K40": COUNTS[1:]}, EDGES[1:], FACTOR), "got 0.42 to 16.4 of the observable in"),
    ):
        with pytest.raises(NuebarError, match=sentence):
            require_match(other, DENSITY)
        with pytest.raises(NuebarError, match=sentence):
            weights(other, DENSITY)
    with pytest.raises(NuebarError, match=r"source 'A': expected 800 counts, got shape \(799,\)"):
        CalibrationData.from_counts({"A": COUNTS[1:]}, EDGES, FACTOR)
