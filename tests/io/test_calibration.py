"""Calibration data sets read back from a run, and a user's own spectra of sources in every format."""

import json
from dataclasses import replace

import numpy as np
import pytest

import nuebar.jobs.calibration as jobs
from nuebar.errors import NuebarError
from nuebar.io.arrays import load_arrays, map_arrays, save_arrays
from nuebar.io.calibration import (
    SourceSpectrum,
    calibration_files,
    load_table,
    read_calibration,
    read_source,
    rebinned,
    stored_charges,
)
from nuebar.io.event_writer import EventWriter
from nuebar.io.histograms import Histogram
from nuebar.simulate import calibration as plans

EVENTS, POINTS = 260, 27
FACTOR, EDGES = 1.07e-3, np.linspace(0.4, 16.4, 801)
COARSE = np.linspace(0.4, 16.4, 9)


@pytest.fixture(scope="module")
def run(juno, tmp_path_factory):
    """The small set, its data sets in portions of 100, 100 and 60 events that lie in different files."""
    folder, patch = tmp_path_factory.mktemp("run"), pytest.MonkeyPatch()
    patch.setattr(plans, "LARGEST_PORTION", 100)
    patch.setattr(jobs, "portions", lambda one: plans.portions(one, events_per_chunk=1500))
    job = jobs.CalibrationJob(juno, sources=("Cs137", "AmBe"), events=EVENTS, cascades=400, seed=3)
    try:
        jobs.run_calibration(job, folder)
    finally:
        patch.undo()
    return folder


@pytest.fixture(scope="module")
def place(run):
    return run / "small"


# ---------------------------------------------------------------- mapped arrays


@pytest.mark.parametrize("kind", ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"])
def test_mapped_arrays_are_those_that_are_read(tmp_path, kind):
    path = tmp_path / "a.safetensors"
    saved = {"a": np.arange(24).reshape(2, 3, 4).astype(kind), "none": np.zeros((3, 0), kind), "x": np.arange(5.0)}
    save_arrays(path, saved, {"k": [1]})
    mapped, metadata = map_arrays(path)
    assert metadata == {"k": [1]}
    assert mapped.keys() == saved.keys()
    for name, array in load_arrays(path)[0].items():
        assert mapped[name].dtype == array.dtype
        np.testing.assert_array_equal(mapped[name], array)
        assert not mapped[name].flags.writeable


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:20], lambda b: b"", lambda b: b + b"x"])
def test_damaged_files_are_not_mapped(tmp_path, damage):
    path = tmp_path / "a.safetensors"
    save_arrays(path, {"a": np.arange(4.0)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(NuebarError, match="not a safetensors file, or truncated"):
        map_arrays(path)


# ---------------------------------------------------------------- sets


def test_portions_of_a_data_set_are_added(place):
    table = load_table(place)
    assert table.sources == ("Cs137", "AmBe")
    assert table.name == "small"
    assert table.counts.shape == (POINTS, 2, 802)
    assert table.counts.dtype == np.int32
    np.testing.assert_array_equal(table.data_set, np.arange(POINTS))
    np.testing.assert_array_equal(table.events, EVENTS)
    np.testing.assert_array_equal(table.counts.sum(axis=2), EVENTS)
    np.testing.assert_array_equal(table.parameters, plans.load_plan().sets["small"].parameters())
    np.testing.assert_array_equal(table.edges, EDGES)


def test_charges_are_those_of_the_histograms(place):
    table, charges = load_table(place), stored_charges(place)
    assert charges.pe_to_observable == table.pe_to_observable == FACTOR
    split = 0
    for row, number in enumerate(table.data_set):
        split += sum(number in chunk.data_set for chunk in charges.chunks) > 1
        for s, source in enumerate(table.sources):
            n_pe = charges.charges_of(number, source)
            assert n_pe.dtype == np.float32
            filled = np.histogram(n_pe.astype(float) * FACTOR, np.r_[-np.inf, table.edges, np.inf])[0]
            np.testing.assert_array_equal(table.counts[row, s], filled)
    assert split > 0  # the law was tried where a data set lies in two files


def test_charges_come_in_the_order_of_the_portions(place):
    files = [read_calibration(path)[0] for path in calibration_files(place)]
    rows = [(f["first"][i], f["n_pe"][1, f["offsets"][i] : f["offsets"][i + 1]])
            for f in files for i in np.flatnonzero(f["data_set"] == 5)]  # fmt: skip
    assert [int(first) for first, _ in rows] == [0, 100, 200]
    np.testing.assert_array_equal(stored_charges(place).charges_of(5, "AmBe"), np.concatenate([q for _, q in rows]))


def test_iteration_meets_every_event_once(place):
    table, charges = load_table(place), stored_charges(place)
    seen = {source: np.zeros(POINTS, int) for source in table.sources}
    for parameters, source, n_pe in charges:
        assert isinstance(n_pe, np.memmap)
        assert not n_pe.flags.writeable
        (row,) = np.flatnonzero((table.parameters == parameters).all(axis=1))
        seen[source][row] += n_pe.size
    assert all((n == EVENTS).all() for n in seen.values())


def test_progress_ends_with_all_chunks(place):
    told = []
    load_table(place, progress=lambda *what: told.append(what))
    n = len(calibration_files(place))
    assert n > 2
    assert told == [("small: histograms", i + 1, n) for i in range(n)]


def test_wrong_folders_are_refused(run, place, tmp_path):
    with pytest.raises(NuebarError, match=r"expected the folder of a calibration set.*name .*small"):
        calibration_files(run)
    with pytest.raises(NuebarError, match="name that of a run of nuebar simulate calibration"):
        calibration_files(tmp_path)
    with pytest.raises(NuebarError, match="got the stage 'pools-training'"):
        calibration_files(run / "pools-training")
    with pytest.raises(NuebarError, match=r"expected a data set from 0 to 26, got data set 27; correct it"):
        load_table(place).row(27)
    with pytest.raises(NuebarError, match=r"expected a data set from 0 to 26, got data set -1"):
        stored_charges(place).charges_of(-1, "Cs137")
    with pytest.raises(NuebarError, match="expected one of Cs137, AmBe, got 'K40'"):
        stored_charges(place).charges_of(0, "K40")


def copied(place, target, change=lambda i, arrays, about: (arrays, about)):
    """A copy of a set with other files."""
    target.mkdir()
    (target / "stage.json").write_bytes((place / "stage.json").read_bytes())
    for i, path in enumerate(calibration_files(place)):
        made = change(i, *load_arrays(path))
        if made is not None:
            save_arrays(target / path.name, *made)
    return target


def test_unfinished_and_mixed_sets_are_refused(place, tmp_path):
    n = len(calibration_files(place))
    part = copied(place, tmp_path / "a", lambda i, arrays, about: None if i == 1 else (arrays, about))
    with pytest.raises(NuebarError, match=rf"expected {n} chunks, got {n - 1}; finish the simulation"):
        load_table(part)
    mixed = copied(place, tmp_path / "b", lambda i, a, about: (a, {**about, "pe_to_observable": 1e-3 * (1 + i // 2)}))
    with pytest.raises(NuebarError, match=r"chunk-00002.*expected the same pe_to_observable"):
        load_table(mixed)
    lost = copied(place, tmp_path / "c", lambda i, a, about: ({**a, "counts": a["counts"] * (i != 1)}, about))
    with pytest.raises(NuebarError, match=r"data set \d+: expected 260 events of every source, got \d+; simulate"):
        load_table(lost)
    other = copied(place, tmp_path / "d", lambda i, a, about: (a, {**about, "kind": "cascades"}))
    with pytest.raises(NuebarError, match="expected calibration data sets of format 1"):
        stored_charges(other)


def test_a_set_without_charges(juno, tmp_path):
    one = jobs.CalibrationJob(juno, sources=("Cs137",), events=20, cascades=100, samples=False)
    jobs.run_calibration(replace(one, response=plans.Response(12.05, 0.517, 9846.0)), tmp_path)
    assert load_table(tmp_path / "point").counts.sum() == 20
    with pytest.raises(NuebarError, match="expected charges, got histograms only; simulate the set without"):
        stored_charges(tmp_path / "point")


def test_a_simulated_point_is_read_as_somebodys_data(juno, tmp_path):
    point = plans.Response(12.05, 0.517, 9846.0)
    one = jobs.CalibrationJob(juno, sources=("Cs137", "AmBe"), events=50, cascades=100, response=point)
    jobs.write_point(jobs.run_calibration(one, tmp_path), tmp_path / "tables")
    charges = stored_charges(tmp_path / "point")
    for source in charges.sources:
        n_pe = read_source(tmp_path / "tables" / f"{source}.parquet").n_pe
        np.testing.assert_array_equal(n_pe, np.maximum(charges.charges_of(0, source), 0))


# ---------------------------------------------------------------- a user's spectra


COUNTS = np.array([1.0, 0, 5, 7, 2, 0, 0, 3])


def text(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def bins(edges=COARSE, counts=COUNTS, sep=","):
    return [sep.join(f"{x:.10g}" for x in row) for row in zip(edges[:-1], edges[1:], counts, strict=True)]


def shuffled():
    return [f"{c:g},9,{high:g},{low:g}" for low, high, c in zip(COARSE[:-1], COARSE[1:], COUNTS, strict=True)]


def root(path, edges=COARSE, counts=COUNTS, name="h"):
    uproot = pytest.importorskip("uproot")
    with uproot.recreate(path) as file:
        file[name] = (counts, edges)
    return path


def uhi(path, edges=COARSE, counts=COUNTS):
    Histogram(edges, counts, allow_negative=True, unit="").save(path)
    return path


HISTOGRAMS = {
    "commas": lambda p: text(p / "h.csv", ["# of a detector", "low,high,counts", *bins()]),
    "blanks": lambda p: text(p / "h.dat", ["low high counts", *bins(sep=" ")]),
    "no header": lambda p: text(p / "h.txt", bins(sep="\t")),
    "order": lambda p: text(p / "h.csv", ["counts,more,high,low", *shuffled()]),
    "pe": lambda p: text(p / "h.csv", ["low_pe,high_pe,counts", *bins(COARSE / FACTOR)]),
    "uhi": lambda p: uhi(p / "h.json"),
    "uhi pe": lambda p: uhi(p / "h.json", COARSE / FACTOR),
    "root": lambda p: root(p / "h.root"),
    "root key": lambda p: f"{root(p / 'h.root')}:h",
    "root pe": lambda p: root(p / "h.root", COARSE / FACTOR),
}


@pytest.mark.parametrize("make", HISTOGRAMS.values(), ids=HISTOGRAMS)
def test_histograms_are_read(tmp_path, make):
    spectrum = read_source(make(tmp_path))
    assert spectrum.n_pe is None
    inside, outside = rebinned(spectrum, COARSE, FACTOR)
    np.testing.assert_array_equal(inside, COUNTS)
    assert outside == (0.0, 0.0)


@pytest.mark.parametrize("name", ["q.parquet", "q.h5", "q.root", "q.csv", "q.txt"])
def test_events_are_read(tmp_path, name):
    path, n_pe = tmp_path / name, np.array([1000.5, 0.0, 2.25e3])
    if name == "q.parquet":
        with EventWriter(path, ("n_pe",)) as writer:
            writer.append({"n_pe": n_pe})
    elif name == "q.h5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file["n_pe"] = n_pe
    elif name == "q.root":
        uproot = pytest.importorskip("uproot")
        with uproot.recreate(path) as file:
            file["events"] = {"n_pe": n_pe}
            file["beside"] = (COUNTS, COARSE)
    else:
        text(path, (["e,n_pe"] if name == "q.csv" else []) + [("1," if name == "q.csv" else "") + f"{q}" for q in n_pe])
    spectrum = read_source(path)
    assert spectrum.histogram is None
    np.testing.assert_array_equal(spectrum.n_pe, n_pe)


def test_columns_of_another_name(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "q.h5"
    with h5py.File(path, "w") as file:
        file["totalPE"] = np.arange(3.0)
    with pytest.raises(NuebarError, match=r"column 'n_pe': expected this column, got 'totalPE'"):
        read_source(path)
    np.testing.assert_array_equal(read_source(path, column="totalPE").n_pe, np.arange(3.0))
    named = text(tmp_path / "map.toml", ["[columns]", 'n_pe = "totalPE"'])
    np.testing.assert_array_equal(read_source(path, columns=named).n_pe, np.arange(3.0))


def test_flow_bins_of_root_lie_outside(tmp_path):
    hist, uproot = pytest.importorskip("hist"), pytest.importorskip("uproot")
    h = hist.Hist(hist.axis.Variable(COARSE), storage=hist.storage.Double())
    h.fill(np.r_[np.full(4, 0.1), 3.0, 3.1, 20.0])
    with uproot.recreate(tmp_path / "h.root") as file:
        file["h"] = h
    inside, outside = rebinned(read_source(tmp_path / "h.root"), COARSE, FACTOR)
    assert inside.sum() == 2
    assert outside == (4.0, 1.0)


@pytest.mark.parametrize("scale", [1.0, 1 / FACTOR])
@pytest.mark.parametrize("fine", [1, 3])
@pytest.mark.parametrize("beyond", [0, 7])
def test_finer_bins_are_added(scale, fine, beyond):
    step = (COARSE[1] - COARSE[0]) / fine
    n = 8 * fine
    edges = COARSE[0] + step * np.arange(-beyond, n + beyond + 1)
    counts = np.random.default_rng(1).integers(0, 9, n + 2 * beyond).astype(float)
    spectrum = SourceSpectrum("x", histogram=Histogram(edges * scale, counts), outside=(2.0, 1.0))
    inside, (below, above) = rebinned(spectrum, COARSE, FACTOR)
    np.testing.assert_array_equal(inside, counts[beyond : beyond + n].reshape(8, fine).sum(axis=1))
    assert inside.sum() + below + above == counts.sum() + 3
    assert below == counts[:beyond].sum() + 2


@pytest.mark.parametrize("digits", [2, 4, 8])
def test_printed_edges_are_the_same_edges(digits):
    edges = np.round(EDGES / FACTOR, digits)
    inside, _ = rebinned(SourceSpectrum("x", histogram=Histogram(edges, np.arange(800.0))), EDGES, FACTOR)
    np.testing.assert_array_equal(inside, np.arange(800.0))


@pytest.mark.parametrize(
    "edges",
    [
        np.linspace(0.4, 16.4, 401),  # coarser
        np.linspace(0.4, 16.4, 1201),  # finer, with other edges
        EDGES + 0.005,
        EDGES[1:],  # a part of the range
        EDGES[:-1],
        EDGES / 1e-3,  # another factor
        EDGES[:2],
    ],
)
def test_other_bins_are_refused(edges):
    spectrum = SourceSpectrum("a.csv", histogram=Histogram(edges, np.ones(edges.size - 1)))
    with pytest.raises(NuebarError, match=r"a.csv: expected the 800 bins of the density.*; fill it anew, or give"):
        rebinned(spectrum, EDGES, FACTOR)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: p / "none.csv", "none.csv: expected a file, found none"),
        (lambda p: p / "none.parquet", "none.parquet: expected a file"),
        (lambda p: p / "none.root", "none.root: expected a file"),
        (lambda p: f"{p / 'none.root'}:h", "none.root: expected a file"),
        (lambda p: text(p / "a.csv", [""]), "expected a table"),
        (lambda p: text(p / "a.csv", ["low,high,events", "1,2,3"]), "expected a header with the column 'counts'"),
        (lambda p: text(p / "a.csv", ["1,2"]), "expected 3 cells"),
        (lambda p: text(p / "a.csv", ["1,2,3", "2.5,3,1"]), "line 2, column 'low': expected the upper edge of the row"),
        (lambda p: text(p / "a.csv", ["1,2,3", "2,2,1"]), "line 2, column 'high': expected a number above the lower"),
        (lambda p: text(p / "a.csv", ["1,2,nan"]), "line 1, column 'counts': expected a finite number, got 'nan'"),
        (lambda p: text(p / "a.csv", ["n_pe", "1", "-2"]), "line 3, column 'n_pe': expected a number of at least 0"),
        (lambda p: text(p / "a.csv", ["n_pe", "1", "inf"]), "line 3, column 'n_pe': expected a finite number"),
        (lambda p: text(p / "a.json", [json.dumps({"a": 1})]), "histogram"),
        (lambda p: f"{root(p / 'h.root')}:g", r"h\.root: expected a TH1 named 'g', got h; give one as .*h\.root:key"),
        (lambda p: text(p / "a.root", ["no"]), "expected a ROOT file"),
    ],
)
def test_wrong_files_are_refused(tmp_path, make, sentence):
    with pytest.raises(NuebarError, match=sentence):
        read_source(make(tmp_path))


def test_several_histograms_need_a_key(tmp_path):
    uproot = pytest.importorskip("uproot")
    with uproot.recreate(tmp_path / "h.root") as file:
        file["a"], file["b"] = (COUNTS, COARSE), (2 * COUNTS, COARSE)
    with pytest.raises(NuebarError, match="expected one TH1, or a key after a colon, got a, b"):
        read_source(tmp_path / "h.root")
    np.testing.assert_array_equal(read_source(f"{tmp_path / 'h.root'}:b").histogram.counts, 2 * COUNTS)
