import contextlib
import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuebar.errors import NuebarError
from nuebar.io.histograms import Histogram

EDGES = [0.7, 1.0, 1.1, 12.0]
PLAIN = Histogram(EDGES, [3.0, 0.0, 0.1], name="accidentals")
WEIGHTED = Histogram(EDGES, [3.0, 0.0, 0.1], [1.5, 0.0, 0.3], "IBD", "ns")
quick = settings(deadline=None, max_examples=80)


def same(a, b):
    return (
        np.array_equal(a.edges, b.edges)
        and np.array_equal(a.counts, b.counts)
        and (a.variances is None) == (b.variances is None)
        and (a.variances is None or np.array_equal(a.variances, b.variances))
        and (a.name, a.unit) == (b.name, b.unit)
    )


def test_derived_arrays():
    assert PLAIN.centres == pytest.approx([0.85, 1.05, 6.55], rel=1e-15)
    assert PLAIN.widths.sum() == pytest.approx(11.3, rel=1e-15)


def test_a_histogram_owns_its_arrays():
    counts = np.ones(3)
    histogram = Histogram(np.array(EDGES), counts)
    counts[0] = 7.0
    assert histogram.counts[0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        histogram.counts[0] = 2.0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([0, 1, 1], [1, 1]), "increasing edges, got 1.0 then 1.0 around bin 1"),
        (([0, 2, 1], [1, 1]), "increasing edges, got 2.0 then 1.0"),
        (([0], []), "at least two edges, got 1"),
        (([0, np.nan], [1]), "finite edges, got nan at index 1"),
        (([0, 1], [np.inf]), "finite counts, got inf"),
        (([0, 1], [-1]), "counts of at least 0, got -1.0 in bin 0"),
        (([0, 1], [1, 2]), "expected 1 counts for 2 edges, got 2"),
        (([0, 1], [[1]]), "counts of one dimension"),
        (([0, 1], ["a"]), "counts: expected a list of numbers"),
        (([0, 1], [1], [-1]), "variances of at least 0"),
        (([0, 1], [1], [1, 1]), "expected 1 variances"),
    ],
)
def test_a_wrong_histogram_is_refused(arguments, sentence):
    with pytest.raises(NuebarError, match=sentence):
        Histogram(*arguments)


def test_negative_contents_are_allowed_on_demand(tmp_path):
    difference = Histogram([0, 1, 2], [-1.0, 1.0], allow_negative=True)
    assert difference.counts[0] == -1.0
    difference.save(tmp_path / "a.json")
    assert same(Histogram.load(tmp_path / "a.json", allow_negative=True), difference)
    with pytest.raises(NuebarError, match=r"a\.json: .*at least 0, got -1.0"):
        Histogram.load(tmp_path / "a.json")


finite = st.floats(0.0, 1e300)


@quick
@given(data=st.data())
def test_save_and_load_are_inverse(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "h.json"
    edges = sorted(data.draw(st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=9, unique=True)))
    column = st.lists(finite, min_size=len(edges) - 1, max_size=len(edges) - 1)
    histogram = Histogram(
        edges, data.draw(column), data.draw(st.none() | column), data.draw(st.sampled_from(["", "ν"]))
    )
    histogram.save(path)
    assert same(Histogram.load(path), histogram)


@pytest.mark.parametrize("histogram", [PLAIN, WEIGHTED])
def test_hist_reads_what_we_write_and_we_read_what_hist_writes(tmp_path, histogram):
    hist = pytest.importorskip("hist")
    uhi = pytest.importorskip("uhi.io.json")
    histogram.save(tmp_path / "ours.json")
    theirs = hist.Hist(json.loads((tmp_path / "ours.json").read_text(), object_hook=uhi.object_hook))
    assert np.array_equal(theirs.axes[0].edges, histogram.edges)
    assert np.array_equal(theirs.values(), histogram.counts)
    assert theirs.name == histogram.name
    if histogram.variances is not None:
        assert np.array_equal(theirs.variances(), histogram.variances)
    (tmp_path / "theirs.json").write_text(json.dumps(theirs, default=uhi.default))
    assert same(Histogram.load(tmp_path / "theirs.json"), histogram)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("storage", ["Int64", "Double", "Weight"])
@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("axis", ["Regular", "Variable"])
def test_histograms_of_hist(tmp_path, axis, flow, storage, sparse):
    hist = pytest.importorskip("hist")
    uhi = pytest.importorskip("uhi.io.json")
    edges = [0.0, 1.0, 2.0, 3.0, 4.0] if axis == "Regular" else [0.0, 1.0, 2.5, 3.0, 4.0]
    arguments = (4, 0.0, 4.0) if axis == "Regular" else (edges,)
    theirs = hist.Hist(getattr(hist.axis, axis)(*arguments, flow=flow), storage=getattr(hist.storage, storage)())
    theirs.fill([-1.0, 0.5, 2.7, 2.8, 3.5, 3.6, 3.7, 9.0, 9.0])
    record = theirs._to_uhi_()
    if sparse:
        record = pytest.importorskip("uhi.io").to_sparse(record)
        assert "index" in record["storage"]
    (tmp_path / "a.json").write_text(json.dumps(record, default=uhi.default))
    for got in (Histogram.load(tmp_path / "a.json"), Histogram.from_uhi(record)):
        assert got.edges.tolist() == edges
        assert got.counts.tolist() == [1.0, 0.0, 2.0, 3.0]
        assert (got.variances is not None) == (storage == "Weight")


def test_one_of_several_by_name(tmp_path):
    path = tmp_path / "several.json"
    path.write_text(json.dumps({"a": PLAIN.to_uhi(), "b": WEIGHTED.to_uhi()}))
    assert same(Histogram.load(path, name="b"), WEIGHTED)
    for name in (None, "c"):
        with pytest.raises(NuebarError, match="got a, b; give one of these"):
            Histogram.load(path, name=name)
    path.write_text(json.dumps({"a": PLAIN.to_uhi()}))
    assert same(Histogram.load(path), PLAIN)


def changed(*where, to):
    record = copy.deepcopy(WEIGHTED.to_uhi())
    place = record
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = to
    return record


REGULAR = {"type": "regular", "lower": 0.0, "upper": 3.0, "bins": 3}


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (changed("uhi_schema", to=2), "uhi_schema: expected 1, got 2"),
        (changed("axes", to=WEIGHTED.to_uhi()["axes"] * 2), "expected one axis, got 2"),
        (changed("axes", to={}), "axes: expected a list"),
        (changed("axes", 0, to=1), r"axes\[0\]: expected an object"),
        (changed("axes", 0, "type", to="category_str"), "expected regular or variable"),
        (changed("axes", 0, "circular", to=True), "circular: expected false"),
        (changed("axes", 0, "underflow", to="no"), "underflow: expected true or false"),
        (changed("axes", 0, "overflow", to=True), "expected 4 numbers, flow bins included, got 3"),
        (changed("axes", 0, "edges", to="a/path"), "edges: expected 1-dimensional numbers, got 'a/path'"),
        (changed("axes", 0, "edges", to=[0, 1]), "values: expected 1 numbers"),
        (changed("axes", 0, "edges", to=[0, 1, 1, 2]), "increasing edges"),
        (changed("axes", 0, "edges", to=[]), "at least two edges, got 0"),
        (changed("axes", 0, to={**REGULAR, "bins": 0}), "bins: expected a whole number"),
        (changed("axes", 0, to={**REGULAR, "bins": 10**12}), "expected 1000000000000 numbers"),
        (changed("axes", 0, to={**REGULAR, "upper": "3"}), "upper: expected 0-dimensional"),
        (changed("axes", 0, to={**REGULAR, "upper": -1.0}), "increasing edges"),
        (changed("storage", "type", to="mean"), "expected one of int, double, weighted"),
        (changed("storage", "values", to=[1, [2], 3]), "values: expected 1-dimensional"),
        (changed("storage", "values", to=[1, "2", 3]), "values: expected 1-dimensional"),
        (changed("storage", "values", to=[1, None, 3]), "values: expected 1-dimensional"),
        (changed("storage", "values", to=[1, np.nan, 3]), "values: expected finite numbers"),
        (changed("storage", "variances", to=[1, -2, 3]), "variances of at least 0"),
        (changed("storage", to={"type": "double"}), "values: expected 1-dimensional numbers, got None"),
        (changed("storage", "index", to=[[0, 1]]), r"index: expected shape \(1, 3\)"),
        (changed("storage", "index", to=[[0, 1, 3]]), "whole numbers from 0 to 2"),
        (changed("storage", "index", to=[[0, 1, 1]]), "each bin once"),
        (changed("metadata", to=[1]), "metadata: expected an object"),
    ],
)
def test_other_uhi_is_refused(record, sentence):
    with pytest.raises(NuebarError, match=f"^here: .*({sentence})"):
        Histogram.from_uhi(record, where="here")


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


wrong = st.sampled_from(
    [None, True, "", "x", [], {}, [[]], -1, 0, 2, 1e308, -1e308, 10**30, [1.0], [[1, 2], [3]], {"a": 1}]
)


@quick
@given(data=st.data())
def test_a_changed_file_is_valid_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "changed.json"
    record = copy.deepcopy(data.draw(st.sampled_from([PLAIN.to_uhi(), WEIGHTED.to_uhi()])))
    *where, last = data.draw(st.sampled_from([place for place in places(record) if place]))
    holder = record
    for key in where:
        holder = holder[key]
    if data.draw(st.booleans()):
        del holder[last]
    else:
        holder[last] = data.draw(wrong)
    path.write_text(json.dumps(record))
    with contextlib.suppress(NuebarError):
        got = Histogram.load(path)
        assert np.all(np.isfinite(got.counts))
        assert np.all(got.edges[1:] > got.edges[:-1])
