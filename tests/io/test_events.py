"""One reader for three formats: round trips, a table of wrong files, damage, and what must never run."""

import io
import json
import os
import pickle
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nuebar.errors import NuebarError
from nuebar.io.column_checks import Offence, convert
from nuebar.io.columns import UNITS, Column, known_column
from nuebar.io.events import ColumnMap, EventFile, EventWriter, describe, read_events

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
h5py = pytest.importorskip("h5py")
uproot = pytest.importorskip("uproot")

FORMATS = ("parquet", "root", "hdf5")
ROWS = 60
NAMES = ("t_ns", "e_rec_MeV", "x_m")
quick = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def good(rows=ROWS, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "t_ns": np.cumsum(rng.exponential(2e7, rows)).astype(np.int64),
        "e_rec_MeV": rng.exponential(3.0, rows).astype(np.float32),
        "x_m": rng.uniform(-17, 17, rows).astype(np.float32),
    }


def write(path, columns, tree="events"):
    """The columns by the format's own library, in the format that the suffix says."""
    if path.suffix == ".parquet":
        arrays = {}
        for name, values in columns.items():
            flat = not isinstance(values, np.ndarray) or values.ndim == 1
            arrays[name] = (
                pa.array(values)
                if flat
                else pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
            )
        pq.write_table(pa.table(arrays), path, row_group_size=23)
    elif path.suffix == ".hdf5":
        with h5py.File(path, "w") as file:
            for name, values in columns.items():
                file[f"{tree}/{name}"] = values
    else:
        with uproot.recreate(path) as file:
            file.mktree(tree, {name: (v.dtype, v.shape[1:]) for name, v in columns.items()})
            for i in range(0, len(next(iter(columns.values()))), 23):
                file[tree].extend({name: values[i : i + 23] for name, values in columns.items()})
    return path


def same(got, expected):
    assert list(got) == list(expected)
    for name, values in expected.items():
        assert got[name].dtype == values.dtype
        np.testing.assert_array_equal(got[name], values)


def joined(batches):
    batches = list(batches)
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def refusal(action, *arguments, **options):
    """The sentence of the refusal."""
    with pytest.raises(NuebarError) as caught:
        action(*arguments, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 700
    return sentence


# --- the same events from every format


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("batch_rows", [1, 7, 23, ROWS, 10**6])
def test_every_format_gives_the_same_events(tmp_path, kind, batch_rows):
    data = good()
    events = EventFile(write(tmp_path / f"a.{kind}", data), NAMES)
    assert events.n_rows == ROWS
    assert events.names == NAMES
    assert events.dtypes == {name: values.dtype for name, values in data.items()}
    batches = list(events.batches(batch_rows))
    assert all(1 <= len(batch["t_ns"]) <= batch_rows for batch in batches)
    same(joined(batches), data)
    same(events.read(), data)


@pytest.mark.parametrize("kind", FORMATS)
def test_batches_are_read_only_and_the_whole_is_not(tmp_path, kind):
    events = EventFile(write(tmp_path / f"a.{kind}", good()), NAMES)
    for values in next(events.batches()).values():
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 0
    events.read()["x_m"][0] = 1.0


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint32", "int64", "uint64", "float32", "float64", "bool"])
def test_every_number_type_becomes_one_of_ours(tmp_path, kind, dtype):
    if kind == "parquet":
        raw = np.arange(40) % 2
    raw = (np.arange(40) % 2).astype(dtype)
    path = write(tmp_path / f"a.{kind}", {"n_pe": raw, "true_kind": raw})
    got = read_events(path, ("n_pe", "true_kind"))
    assert got["true_kind"].dtype == np.int64
    assert got["n_pe"].dtype == (np.float32 if dtype == "float32" else np.float64)
    for values in got.values():
        np.testing.assert_array_equal(values, raw)


def test_what_only_one_format_has(tmp_path):
    big_endian = np.arange(5.0).astype(">f4")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["n_pe"] = big_endian
        file["half"] = np.arange(5.0).astype(np.float16)
        file["scalar"] = 3.0
    got = read_events(tmp_path / "a.h5", ("n_pe", "half"))
    assert [values.dtype for values in got.values()] == [np.dtype("=f4"), np.dtype("=f4")]
    np.testing.assert_array_equal(got["n_pe"], np.arange(5.0))
    stamps = pa.array(np.array(["1970-01-01T00:00:01", "1970-01-01T00:00:02"], "datetime64[us]"))
    pq.write_table(pa.table({"t_ns": stamps}), tmp_path / "a.parquet")
    np.testing.assert_array_equal(read_events(tmp_path / "a.parquet", ("t_ns",))["t_ns"], [10**9, 2 * 10**9])


def test_an_empty_table_gives_no_batches(tmp_path):
    empty = {name: values[:0] for name, values in good().items()}
    for kind in ("parquet", "hdf5"):
        events = EventFile(write(tmp_path / f"a.{kind}", empty), NAMES)
        assert (events.n_rows, list(events.batches())) == (0, [])
        same(events.read(), empty)


# --- several files


def test_files_are_one_stream_in_the_order_of_their_numbers(tmp_path):
    data = good(100)
    order = [("run_2.parquet", 0, 30), ("run_9.root", 30, 31), ("run_10.hdf5", 31, 100)]
    for name, start, stop in order:
        write(tmp_path / name, {n: values[start:stop] for n, values in data.items()})
    (tmp_path / ".hidden.parquet").write_bytes(b"half-written")
    (tmp_path / "notes.txt").write_text("no events")
    for paths in (tmp_path, tmp_path / "run_*", [tmp_path / name for name, *_ in order]):
        events = EventFile(paths, NAMES)
        assert [path.name for path in events.paths] == [name for name, *_ in order]
        same(joined(events.batches(17)), data)
        same(events.read(), data)


def test_files_of_two_precisions_give_the_wider_one(tmp_path):
    data = good(10)
    write(tmp_path / "a1.parquet", data)
    write(tmp_path / "a2.parquet", {**data, "x_m": data["x_m"].astype(np.float64)})
    events = EventFile(tmp_path, ("x_m",))
    assert {batch["x_m"].dtype for batch in events.batches()} == {np.dtype(np.float64)}


@quick
@given(data=st.data())
def test_joined_batches_do_not_depend_on_the_cut(tmp_path_factory, data):
    folder, rows = tmp_path_factory.mktemp("cut"), data.draw(st.integers(1, 200))
    whole = good(rows, seed=rows)
    cuts = sorted(data.draw(st.lists(st.integers(0, rows), max_size=3)))
    for i, (start, stop) in enumerate(zip([0, *cuts], [*cuts, rows], strict=True)):
        kind = data.draw(st.sampled_from(["parquet", "hdf5"]))
        write(folder / f"{i}.{kind}", {n: values[start:stop] for n, values in whole.items()})
    same(joined(EventFile(folder, NAMES).batches(data.draw(st.integers(1, 250)))), whole)


def test_optional_columns(tmp_path):
    path = write(tmp_path / "a.parquet", good())
    assert EventFile(path, ("t_ns",), optional=("x_m", "weight")).names == ("t_ns", "x_m")
    assert "expected one of the columns weight, n_pe" in refusal(EventFile, path, (), optional=("weight", "n_pe"))
    write(tmp_path / "b.parquet", {**good(), "weight": np.ones(ROWS)})
    assert "'weight'" in refusal(EventFile, tmp_path, ("t_ns",), optional=("weight",))


# --- a user's own columns

VERTEX_MAP = """
    format = "{kind}"
    tree = "mc"
    [columns]
    e_rec_MeV = {{ name = "Evis", unit = "keV" }}
    x_m = {{ name = "vertex", index = 0, unit = "mm" }}
    z_m = {{ name = "vertex", index = 2, unit = "mm" }}
    t_ns = {{ name = "time", unit = "s" }}
    n_pe = "totalPE"
    y_m = "unused"
"""


@pytest.mark.parametrize("kind", FORMATS)
def test_a_column_map_brings_names_units_and_vertices(tmp_path, kind):
    data = good()
    vertex = np.random.default_rng(1).uniform(-17e3, 17e3, (ROWS, 3))
    raw = {
        "Evis": data["e_rec_MeV"].astype(np.float64) * 1000,
        "vertex": vertex,
        "time": data["t_ns"] / 1e9,
        "totalPE": np.arange(ROWS, dtype=np.int32),
    }
    path = write(tmp_path / f"a.{kind}", raw, tree="mc")
    text = textwrap.dedent(VERTEX_MAP.format(kind=kind))
    (tmp_path / "map.toml").write_text(text if kind != "parquet" else text.replace('tree = "mc"', ""))
    events = EventFile(path, ("t_ns", "e_rec_MeV", "x_m", "z_m", "n_pe"), column_map=tmp_path / "map.toml")
    got = joined(events.batches(13))
    np.testing.assert_array_equal(got["t_ns"], data["t_ns"])
    np.testing.assert_allclose(got["e_rec_MeV"], data["e_rec_MeV"], rtol=4e-16)
    np.testing.assert_array_equal(got["x_m"], vertex[:, 0] / 1000)
    np.testing.assert_array_equal(got["z_m"], vertex[:, 2] / 1000)
    np.testing.assert_array_equal(got["n_pe"], raw["totalPE"])


def ragged_file(path, lists):
    flat, counts = np.concatenate(lists), [len(row) for row in lists]
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"v": pa.array([list(row) for row in lists])}), path, row_group_size=4)
        return path
    awkward = pytest.importorskip("awkward")
    with uproot.recreate(path) as file:
        array = awkward.unflatten(flat, counts)
        if path.stem == "rntuple":
            file.mkrntuple("events", awkward.zip({"v": array}, depth_limit=1))
        else:
            file.mktree("events", {"v": "var * float64"})
            file["events"].extend({"nv": np.array(counts, np.int32), "v": array})
    return path


@pytest.mark.parametrize("name", ["a.parquet", "a.root", "rntuple.root"])
def test_one_number_of_lists(tmp_path, name):
    lists = [np.arange(3.0) + 10 * i for i in range(11)]
    path = ragged_file(tmp_path / name, lists)
    column_map = ColumnMap.from_mapping({"columns": {"y_m": {"name": "v", "index": 1, "unit": "cm"}}})
    got = joined(EventFile(path, ("y_m",), column_map=column_map).batches(3))
    np.testing.assert_array_equal(got["y_m"], [row[1] / 100 for row in lists])
    lists[7] = lists[7][:1]
    path = ragged_file(tmp_path / name, lists)
    sentence = refusal(read_events, path, ("y_m",), column_map=column_map)
    assert re.search(r"column 'v' \(as y_m\), row 7: expected a number at index 1, got 1", sentence)
    sentence = refusal(read_events, path, ("y_m",), column_map=ColumnMap.from_mapping({"columns": {"y_m": "v"}}))
    assert re.search(r"row 0: expected one number, got 3; give an index", sentence)


@pytest.mark.parametrize("cuts", [[60], [1, 60], [3, 4, 8, 59, 60], [20, 40, 60]])
@pytest.mark.parametrize("batch_rows", [1, 5, 7, 20, 60, 100])
def test_the_blocks_of_a_root_file_do_not_matter(tmp_path, cuts, batch_rows):
    awkward = pytest.importorskip("awkward")
    data = good()
    parts = [{n: v[i:j] for n, v in data.items()} for i, j in zip([0, *cuts], cuts, strict=False)]
    with uproot.recreate(tmp_path / "a.root") as file:
        file.mkrntuple("clusters", awkward.Array(parts[0]))
        file.mktree("baskets", {n: v.dtype for n, v in data.items()})
        file["baskets"].extend(parts[0])
        for part in parts[1:]:
            file["clusters"].extend(awkward.Array(part))
            file["baskets"].extend(part)
    for tree in ("clusters", "baskets"):
        batches = list(EventFile(tmp_path / "a.root", NAMES, column_map=ColumnMap(tree=tree)).batches(batch_rows))
        same(joined(batches), data)
        assert max(len(batch["t_ns"]) for batch in batches) <= batch_rows


def test_compound_rows_of_hdf5(tmp_path):
    data = good()
    records = np.zeros(ROWS, [("t_ns", "<i8"), ("v", "<f4", (3,)), ("label", "S4")])
    records["t_ns"], records["v"] = data["t_ns"], data["x_m"][:, None] + np.arange(3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("df/table", data=records, chunks=(16,), compression="gzip")
        file["df/table"].attrs["note"] = "x"
    column_map = ColumnMap.from_mapping({"columns": {"x_m": {"name": "v", "index": 2}}})
    got = joined(EventFile(tmp_path / "a.h5", ("t_ns", "x_m"), column_map=column_map).batches(7))
    np.testing.assert_array_equal(got["t_ns"], data["t_ns"])
    np.testing.assert_array_equal(got["x_m"], records["v"][:, 2])
    assert "never read" in refusal(EventFile, tmp_path / "a.h5", ("label",))


@pytest.mark.parametrize("unit", UNITS)
def test_units_are_exact_and_undo_each_other(unit):
    dimension = UNITS[unit][0]
    values = np.random.default_rng(3).uniform(0.5, 2.0, 1000)
    for other in (u for u in UNITS if UNITS[u][0] == dimension):
        there = convert(Column("a", unit=other), values, unit)
        back = convert(Column("a", unit=unit), there, other)
        np.testing.assert_allclose(back, values, rtol=3e-16)
        exact = [
            float(v * (UNITS[unit][1] / UNITS[other][1])) for v in map(__import__("fractions").Fraction, values[:50])
        ]
        np.testing.assert_allclose(there[:50], exact, rtol=2.3e-16)


@pytest.mark.parametrize(
    ("name", "unit", "value", "expected"),
    [
        ("e_rec_MeV", "keV", 661.657, 0.661657),
        ("e_rec_MeV", "GeV", 0.0022233, 2.2233),
        ("e_rec_MeV", "eV", 2223300.0, 2.2233),
        ("x_m", "mm", 17700.0, 17.7),
        ("x_m", "cm", 1770, 17.7),
        ("baseline_km", "m", 52500, 52.5),
        ("t_ns", "us", 3, 3000),
        ("t_ns", "s", 0.000220, 220000),
        ("t_ns", "ps", 2600, 3),
        ("t_ns", "ns", 12.6, 13),
        ("t_ns", "d", 1.5, 129600 * 10**9),
    ],
)
def test_unit_table(name, unit, value, expected):
    got = convert(known_column(name), np.array([value]), unit)
    assert got.tolist() == [pytest.approx(expected, rel=2e-16)]
    assert got.dtype == (np.int64 if name == "t_ns" else np.float64)


def test_names_with_prefixes():
    assert known_column("t_ns").rising
    for name in ("true_t_ns", "prompt_t_ns"):
        column = known_column(name)
        assert (column.name, column.kind, column.unit, column.rising) == (name, "int", "ns", False)
    assert known_column("true_prompt_x_m", radius_m=10.0).high == 12.0
    assert known_column("r_m", radius_m=10.0).low == 0.0
    assert [known_column(name).unit for name in ("dt_us", "energy", "MeV", "true_kind")] == ["us", "", "", ""]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[columns]\ne_rec_MeV = { name = 'E', unit = 'mm' }", r"'columns.e_rec_MeV.unit': expected one of eV, keV"),
        ("[columns]\nn_pe = { name = 'E', unit = 'mm' }", r"'columns.n_pe.unit': expected no unit"),
        ("[columns]\ne_rec_mev = 'E'", r"unknown key 'columns.e_rec_mev'; did you mean 'e_rec_MeV'"),
        ("[columns]\ne_rec_MeV = { nam = 'E' }", r"unknown key 'columns.e_rec_MeV.nam'; did you mean 'name'"),
        ("[columns]\ne_rec_MeV = { unit = 'keV' }", r"missing key 'columns.e_rec_MeV.name'"),
        ("[columns]\nx_m = { name = 'v', index = -1 }", r"'columns.x_m.index': expected a number from 0, got -1"),
        ("[columns]\nx_m = 3", r"'columns.x_m': expected a table, got 3"),
        ("columns = 3", r"'columns': expected a table"),
        ("format = 'csv'", r"'format': expected 'parquet', 'root' or 'hdf5', got 'csv'"),
        ("trees = 'a'", r"unknown key 'trees'; did you mean 'tree'"),
        ("tree = [", r"not a valid TOML file"),
    ],
)
def test_a_wrong_map_is_refused(tmp_path, text, sentence):
    (tmp_path / "map.toml").write_text(text)
    got = refusal(ColumnMap.load, tmp_path / "map.toml")
    assert re.search(sentence, got), got
    assert got.startswith(str(tmp_path / "map.toml"))


# --- wrong files: the sentence names file, column and row


def at(name, row, value, dtype=None):
    def change(data):
        values = data[name].astype(dtype or data[name].dtype)
        values[row] = value
        return {**data, name: values}

    return change


def times(name, factor, dtype=None):
    return lambda data: {**data, name: (data[name] * factor).astype(dtype or data[name].dtype)}


def swapped(data):
    t = data["t_ns"].copy()
    t[[31, 32]] = t[[32, 31]]
    return {**data, "t_ns": t}


WRONG = {
    "missing": (lambda d: {n: d[n] for n in ("t_ns", "x_m")}, r"column 'e_rec_MeV': expected this column.* got 't_ns'"),
    "misspelt": (
        lambda d: {"t_ns": d["t_ns"], "e_rec_Mev": d["e_rec_MeV"], "x_m": d["x_m"]},
        r"column 'e_rec_MeV': expected this column.*did you mean 'e_rec_Mev'",
    ),
    "nan": (at("e_rec_MeV", 17, np.nan), r"'e_rec_MeV', row 17: expected a finite number, got nan"),
    "first of two": (
        lambda d: at("e_rec_MeV", 17, np.nan)(at("x_m", 16, np.inf)(d)),
        r"'x_m', row 16: expected a finite number, got inf",
    ),
    "infinite": (at("x_m", 59, -np.inf), r"'x_m', row 59: expected a finite number, got -inf"),
    "sentinel": (at("e_rec_MeV", 5, -999), r"'e_rec_MeV', row 5: expected 0 to 100000 MeV, got -999; drop the row"),
    "beyond": (at("e_rec_MeV", 24, 2e5), r"'e_rec_MeV', row 24: expected 0 to 100000 MeV, got 200000; drop the row"),
    "outside": (at("x_m", 0, 500.0), r"'x_m', row 0: expected -100 to 100 m, got 500; drop the row"),
    "keV": (times("e_rec_MeV", 1e3), r"'e_rec_MeV', rows 0 to \d+: expected a median.*fit as keV.*unit = \"keV\""),
    "eV": (
        times("e_rec_MeV", 1e6),
        r"'e_rec_MeV', row \d+: expected 0 to 100000 MeV.*fit as eV: state unit = \"eV\" for it",
    ),
    "GeV": (times("e_rec_MeV", 1e-3), r"'e_rec_MeV', rows 0 to \d+: expected a median.*fit as GeV"),
    "mm": (times("x_m", 1e3), r"'x_m', row \d+: expected -100 to 100 m, got -?\d+.*fit as mm"),
    "cm": (times("x_m", 1e2), r"'x_m', row \d+: expected -100 to 100 m, got -?\d+.*fit as cm or mm"),
    "unsorted": (swapped, r"'t_ns', row 32: expected at least \d+, as in the row before, got \d+; sort the rows"),
    "negative time": (at("t_ns", 0, -5), r"'t_ns', row 0: expected 0 ns or more, got -5"),
    "fraction": (at("t_ns", 0, 0.5, np.float64), r"'t_ns', row 0: expected whole numbers, got 0.5; state its unit"),
    "NaN time": (at("t_ns", 9, np.nan, np.float64), r"'t_ns', row 9: expected a finite number, got nan"),
    "seconds": (times("t_ns", 1e-9, np.int64), r"'t_ns', rows 0 to \d+: expected a mean step of 100 or more ns.*"),
    "coarse time": (times("t_ns", 100, np.float32), r"'t_ns', row \d+: expected times to at least 1000 ns"),
    "huge time": (at("t_ns", 59, 2**63, np.uint64), r"'t_ns', row 59: expected at most 9223372036854775807, got 9223"),
    "texts": (
        lambda d: {**d, "e_rec_MeV": np.array([b"1.0"] * ROWS)},
        r"'e_rec_MeV': expected numbers, got .*, which is never read",
    ),
    "complex": (lambda d: {**d, "x_m": d["x_m"] + 1j}, r"'x_m': expected numbers, got .*, which is never read"),
    "vertex": (
        lambda d: {**d, "x_m": np.tile(d["x_m"][:, None], 3)},
        r"'x_m': expected one number a row, got 3; say which in a column map, x_m = \{ name = \"x_m\", index = 0 \}",
    ),
}
UNWRITABLE = {("root", "texts"), ("root", "complex"), ("parquet", "complex")}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_named_with_column_and_row(tmp_path, kind, case):
    if (kind, case) in UNWRITABLE:
        pytest.skip(f"{kind} cannot hold it as a plain column")
    change, sentence = WRONG[case]
    path = write(tmp_path / f"a.{kind}", change(good()))
    got = refusal(read_events, path, NAMES)
    assert re.search(sentence, got), got
    assert got.startswith(f"{path}, column")


@pytest.mark.parametrize("case", [name for name, (_, text) in WRONG.items() if re.search(r"row \d+:", text)])
def test_the_row_does_not_depend_on_the_batches(tmp_path, case):
    change, sentence = WRONG[case]
    path = write(tmp_path / "a.parquet", change(good()))
    for batch_rows in (1, 7, 16, 50):
        got = refusal(lambda rows=batch_rows: list(EventFile(path, NAMES).batches(rows)))
        assert re.search(sentence.replace("as in the row before", "(as in|the value of) the row before"), got), got


def test_a_stated_unit_is_believed_within_reason_and_the_range_is_not_waived(tmp_path):
    data = good()
    data = times("e_rec_MeV", 200 / np.median(data["e_rec_MeV"]))(data)  # refused without a word on the unit
    path = write(tmp_path / "a.parquet", data)
    stated = ColumnMap.from_mapping({"columns": {"e_rec_MeV": {"name": "e_rec_MeV", "unit": "MeV"}}})
    same(read_events(path, ("e_rec_MeV",), column_map=stated), {"e_rec_MeV": data["e_rec_MeV"]})
    wrong = ColumnMap.from_mapping({"columns": {"e_rec_MeV": {"name": "e_rec_MeV", "unit": "GeV"}}})
    sentence = refusal(read_events, path, ("e_rec_MeV",), column_map=wrong)
    far = write(tmp_path / "far.parquet", times("e_rec_MeV", 10.0)(data))
    assert "'MeV' was stated as its unit" in refusal(read_events, far, ("e_rec_MeV",), column_map=stated)
    assert re.search(r"row \d+: expected 0 to 100000 MeV, got .*check the unit that the column map states", sentence)


def test_the_detector_bounds_its_vertices(tmp_path):
    path = write(tmp_path / "a.parquet", at("x_m", 3, 21.3)(good()))
    read_events(path, NAMES)
    read_events(path, NAMES, radius_m=17.8)
    assert re.search(r"row 3: expected -21.24 to 21.24 m", refusal(read_events, path, NAMES, radius_m=17.7))


def test_time_stamps_must_resolve_a_microsecond(tmp_path):
    start = 1.7e9  # seconds since 1970: float64 resolves 238 ns, float32 128 s
    seconds = start + np.arange(30.0)
    column_map = ColumnMap.from_mapping({"columns": {"t_ns": {"name": "t", "unit": "s"}}})
    path = write(tmp_path / "a.parquet", {"t": seconds})
    np.testing.assert_array_equal(
        read_events(path, ("t_ns",), column_map=column_map)["t_ns"], seconds.astype(int) * 10**9
    )
    write(path, {"t": seconds.astype(np.float32)})
    assert "float32) in steps of 1.28e+11 ns" in refusal(read_events, path, ("t_ns",), column_map=column_map)


@pytest.mark.parametrize(
    ("name", "value", "unit"),
    [
        ("true_t_ns", 2**62, "us"),
        ("true_t_ns", 10**10, "s"),
        ("true_t_ns", -(10**10), "s"),
        ("true_t_ns", 9.3e9, "s"),
        ("true_kind", 2.0**63, None),
        ("true_kind", -(2.0**64), None),
    ],
)
def test_whole_numbers_that_do_not_fit_are_refused(name, value, unit):
    with pytest.raises(Offence, match=r"expected (at|times to)") as caught:
        convert(known_column(name), np.array([1, value, value]), unit)
    assert caught.value.row == 1


def test_order_is_kept_across_files_and_the_row_is_counted_in_its_file(tmp_path):
    data = good(100)
    write(tmp_path / "a2.parquet", {n: values[:50] for n, values in data.items()})
    write(tmp_path / "a1.parquet", {n: values[50:] for n, values in data.items()})
    sentence = refusal(read_events, tmp_path, NAMES)
    assert re.search(r"a2\.parquet, column 't_ns', row 0 \(row 50 of the stream\): .*after .*a1\.parquet", sentence)
    same(read_events([tmp_path / "a2.parquet", tmp_path / "a1.parquet"], NAMES), data)


def test_empty_cells_of_parquet_are_named(tmp_path):
    values = [1.0] * 30
    values[26] = None
    pq.write_table(pa.table({"n_pe": values}), tmp_path / "a.parquet", row_group_size=8)
    for rows in (1, 9, 100):
        got = refusal(lambda rows=rows: list(EventFile(tmp_path / "a.parquet", ("n_pe",)).batches(rows)))
        assert re.search(r"column 'n_pe', row 26: expected a number, got an empty cell", got)
    lists = [[1.0, 2.0], [3.0, None]]
    pq.write_table(pa.table({"n_pe": lists}), tmp_path / "a.parquet")
    column_map = ColumnMap.from_mapping({"columns": {"n_pe": {"name": "n_pe", "index": 0}}})
    assert "empty cells" in refusal(read_events, tmp_path / "a.parquet", ("n_pe",), column_map=column_map)


def test_columns_of_hdf5_must_agree_in_length(tmp_path):
    data = good()
    path = write(tmp_path / "a.hdf5", {**data, "x_m": data["x_m"][:-1]})
    assert re.search(r"column 'x_m': expected 60 rows, as in 't_ns', got 59", refusal(EventFile, path, NAMES))
    EventFile(path, ("t_ns", "e_rec_MeV"))


@pytest.mark.parametrize("kind", ["root", "hdf5"])
def test_a_choice_of_trees_is_told(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "root":
        with uproot.recreate(path) as file:
            for tree in ("one", "deep/two"):
                file.mktree(tree, {"n_pe": "f8"})
                file[tree].extend({"n_pe": np.ones(3)})
    else:
        with h5py.File(path, "w") as file:
            file["one/n_pe"], file["deep/two/n_pe"] = np.ones(3), np.ones(3)
    what = "tree" if kind == "root" else "group"
    got = refusal(EventFile, path, ("n_pe",))
    assert re.search(f"expected one {what}, got .*name one of them as tree", got)
    assert "'one'" in got and "'deep/two'" in got  # noqa: PT018
    assert EventFile(path, ("n_pe",), column_map=ColumnMap(tree="deep/two")).n_rows == 3
    got = refusal(EventFile, path, ("n_pe",), column_map=ColumnMap(tree="three"))
    assert f"expected the {what} 'three', got" in got
    assert describe(path, tree="one").tree == "one"


def test_other_refusals(tmp_path):
    path = write(tmp_path / "a.parquet", good())
    (tmp_path / "empty").mkdir()
    (tmp_path / "events.csv").write_text("t_ns\n1\n")
    (tmp_path / "none.parquet").write_bytes(b"")
    (tmp_path / "locked.parquet").write_bytes(b"PARE" + path.read_bytes()[4:])
    cases = [
        ((tmp_path / "absent.root", NAMES), {}, "absent.root: expected a file of events, got none"),
        ((tmp_path / "empty", NAMES), {}, "got none in this folder"),
        ((str(tmp_path / "b*.root"), NAMES), {}, "match this pattern, got none"),
        (([], NAMES), {}, "got an empty list"),
        (([path, path], NAMES), {}, "expected each file once"),
        (([tmp_path], NAMES), {}, "got a folder"),
        ((tmp_path / "events.csv", NAMES), {}, r"events.csv: expected events as Parquet, ROOT or HDF5, got a file"),
        ((tmp_path / "none.parquet", NAMES), {}, "none.parquet: .* got an empty file; it may be cut short"),
        ((tmp_path / "locked.parquet", NAMES), {}, "encrypted"),
        ((path, ()), {}, "names of columns, got none"),
        ((path, ("t_ns", "t_ns")), {}, "'t_ns' twice"),
        ((path, NAMES), {"column_map": ColumnMap(format="root")}, "expected root, as column map says, got parquet"),
        ((path, NAMES), {"column_map": ColumnMap(tree="events")}, "expected no tree"),
        ((path, NAMES), {"column_map": tmp_path / "no.toml"}, "no.toml: cannot be read"),
    ]
    for arguments, options, sentence in cases:
        got = refusal(EventFile, *arguments, **options)
        assert re.search(sentence, got), got
    assert "at least one row" in refusal(lambda: next(EventFile(path, NAMES).batches(0)))


@pytest.mark.parametrize(("kind", "package"), [("parquet", "pyarrow"), ("root", "uproot"), ("hdf5", "h5py")])
def test_a_missing_package_is_one_sentence(tmp_path, kind, package, monkeypatch):
    path = write(tmp_path / f"a.{kind}", good())
    monkeypatch.setitem(sys.modules, package, None)
    assert re.search(
        rf"needs {package}, which is not installed; pip install 'nuebar\[", refusal(EventFile, path, NAMES)
    )


# --- damage


def own(path, rows=3000, **options):
    with EventWriter(path, NAMES, **options) as writer:
        writer.append(good(rows))
    return path


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_cut_anywhere_is_refused_at_once(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    whole = (own(path) if kind == "parquet" else write(path, good(3000))).read_bytes()
    rng = np.random.default_rng(8)
    for size in sorted({0, 1, 3, 4, 7, 8, 19, 20, 100, len(whole) - 1, *rng.integers(0, len(whole), 60).tolist()}):
        path.write_bytes(whole[:size])
        got = refusal(EventFile, path, NAMES)
        assert got.startswith(f"{path}: expected"), got
        assert re.search("cut short|fetch", got), (size, got)


def test_no_flipped_bit_of_our_files_passes(tmp_path):
    path = own(tmp_path / "a.parquet", group_rows=1000)
    whole, data = path.read_bytes(), read_events(path, NAMES)
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    rng = np.random.default_rng(5)
    refusals = []
    for position in rng.integers(4, footer, 120).tolist():
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            same(read_events(path, NAMES), data)  # statistics in a page's header may change without harm
        except NuebarError as error:
            refusals.append(str(error))
    assert len(refusals) > 110
    for sentence in refusals:
        assert re.match(rf"{path}, column '(t_ns|e_rec_MeV|x_m)', rows \d+ to \d+: expected", sentence), sentence


@pytest.mark.parametrize("kind", FORMATS)
def test_any_damage_ends_in_a_sentence_or_in_numbers(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    whole = write(path, good(300)).read_bytes()
    rng, refusals = np.random.default_rng(6), []
    for _ in range(60):
        damaged = bytearray(whole)
        start = int(rng.integers(len(whole)))
        damaged[start : start + 4] = rng.bytes(4)
        path.write_bytes(damaged[: len(whole)])
        try:
            read = read_events(path, NAMES)
        except NuebarError as error:
            refusals.append(str(error))
        else:
            assert all(np.isfinite(values).all() for values in read.values())
    assert refusals
    assert all(str(path) in sentence for sentence in refusals)


# --- nothing of a file is ever executed


class Trap:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickles_are_never_loaded(tmp_path):
    sprung = tmp_path / "sprung"
    bomb = pickle.dumps(Trap(sprung))
    buffer = io.BytesIO()
    np.savez(buffer, t_ns=np.array([Trap(sprung)], dtype=object))
    for name, content in (("a.npz", buffer.getvalue()), ("a.parquet", bomb), ("a.root", bomb), ("a.h5", bomb)):
        (tmp_path / name).write_bytes(content)
        assert re.search("expected", refusal(EventFile, tmp_path / name, NAMES))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        objects = file.create_dataset("n_pe", (1,), dtype=h5py.vlen_dtype(np.uint8))  # as PyTables stores objects
        objects[0] = np.frombuffer(bomb, np.uint8)
        file["opaque"] = np.void(bomb)
        file["weight"] = np.ones(1)
    extension = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": bomb}
    schema = pa.schema([pa.field("n_pe", pa.binary()), pa.field("weight", pa.float64(), metadata=extension)])
    table = pa.table([pa.array([bomb]), pa.array([1.0])], schema=schema)
    pq.write_table(table, tmp_path / "b.parquet")
    for name in ("b.h5", "b.parquet"):
        assert "never read" in refusal(read_events, tmp_path / name, ("n_pe",))
        read_events(tmp_path / name, ("weight",))
        describe(tmp_path / name)
    assert not sprung.exists()


def test_names_are_never_evaluated(tmp_path):
    sprung = tmp_path / "sprung"
    path = write(tmp_path / "a.root", good())
    for code in (f"__import__('os').mkdir({str(sprung)!r})", "e_rec_MeV * 2", "e_rec_MeV;1"):
        column_map = ColumnMap.from_mapping({"columns": {"n_pe": code}})
        assert "expected this column" in refusal(EventFile, path, ("n_pe",), column_map=column_map)
    assert not sprung.exists()


def test_an_hdf5_file_cannot_point_out_of_itself(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["n_pe"] = np.ones(4)
    (tmp_path / "raw").write_bytes(bytes(32))
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "n_pe", (4,))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["weight"] = np.ones(4)
        file["linked"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/n_pe")
        file.create_dataset("external", (4,), "f8", external=[(str(tmp_path / "raw"), 0, 32)])
        file.create_virtual_dataset("virtual", layout)
    EventFile(tmp_path / "a.h5", ("weight",))
    assert "expected this column" in refusal(EventFile, tmp_path / "a.h5", ("linked",))
    for name in ("external", "virtual"):
        assert "data of another file" in refusal(EventFile, tmp_path / "a.h5", (name,))


# --- our own files


@quick
@given(data=st.data())
def test_the_bytes_do_not_depend_on_the_batches(tmp_path_factory, data):
    folder, rows = tmp_path_factory.mktemp("bytes"), data.draw(st.integers(0, 300))
    whole, written = good(rows, seed=rows), []
    for name in ("a.parquet", "b.parquet"):
        cuts = sorted(data.draw(st.lists(st.integers(0, rows), max_size=8)))
        with EventWriter(folder / name, NAMES, metadata={"seed": 7, "config": "abc"}, group_rows=64) as writer:
            for start, stop in zip([0, *cuts], [*cuts, rows], strict=True):
                writer.append({n: values[start:stop] for n, values in whole.items()})
            assert writer.rows == rows
        written.append((folder / name).read_bytes())
    assert written[0] == written[1]
    same(read_events(folder / "a.parquet", NAMES), whole)


def test_bytes_are_the_same_in_another_process(tmp_path):
    code = f"""
        import numpy as np
        from nuebar.io.events import EventWriter
        with EventWriter({str(tmp_path / "b.parquet")!r}, ("t_ns", "n_pe", "true_kind")) as writer:
            writer.append({{"t_ns": np.arange(99) * 1000, "n_pe": np.arange(99.0), "true_kind": np.arange(99) % 5}})
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
    with EventWriter(tmp_path / "a.parquet", ("t_ns", "n_pe", "true_kind")) as writer:
        for i in range(0, 99, 11):
            n = np.arange(i, i + 11)
            writer.append({"t_ns": n * 1000, "n_pe": n.astype(float), "true_kind": n % 5})
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_metadata_and_description(tmp_path):
    with EventWriter(tmp_path / "a.parquet", (*NAMES, "true_kind"), metadata={"seed": 3}, group_rows=16) as writer:
        writer.append({**good(), "true_kind": np.zeros(ROWS, np.int8)})
        writer.metadata["livetime_s"] = 1.5
    expected = {"format": 1, "seed": 3, "livetime_s": 1.5, "rows": ROWS}
    assert EventFile(tmp_path / "a.parquet", NAMES).metadata == (expected,)
    description = describe(tmp_path / "a.parquet")
    assert (description.format, description.tree, description.rows) == ("parquet", "", ROWS)
    assert description.metadata == expected
    assert [(f.name, f.type) for f in description.fields] == [
        ("t_ns", "int64"), ("e_rec_MeV", "float"), ("x_m", "float"), ("true_kind", "int64")
    ]  # fmt: skip
    # Any other reader sees plain columns.
    table = pq.read_table(tmp_path / "a.parquet")
    np.testing.assert_array_equal(table["x_m"].to_numpy(), good()["x_m"])
    assert pq.ParquetFile(tmp_path / "a.parquet").metadata.num_row_groups == 4
    # Its unit is stated by construction, so nothing is guessed from the median.
    with EventWriter(tmp_path / "a.parquet", ("e_rec_MeV",)) as writer:
        writer.append({"e_rec_MeV": np.full(50, 4000.0)})
    read_events(tmp_path / "a.parquet", ("e_rec_MeV",))


@pytest.mark.parametrize(
    ("note", "sentence"),
    [
        (b'{"format": 2}', "expected events of format 1, got format 2"),
        (b'{"format": 1, "rows": 5}', "expected 1 rows, got 1 in its row groups and 5 in its metadata"),
        (b"{", "metadata"),
        (b"[]", "metadata"),
    ],
)
def test_foreign_metadata_are_refused(tmp_path, note, sentence):
    pq.write_table(pa.table({"n_pe": [1.0]}).replace_schema_metadata({b"nuebar": note}), tmp_path / "a.parquet")
    assert sentence in refusal(EventFile, tmp_path / "a.parquet", ("n_pe",))


BAD_BATCHES = {
    "missing": (lambda b: {n: b[n] for n in ("t_ns", "x_m")}, "expected batches with the columns t_ns, e_rec_MeV, x_m"),
    "unknown": (lambda b: {**b, "y_m": b["x_m"]}, "expected batches with the columns"),
    "length": (lambda b: {**b, "x_m": b["x_m"][1:]}, "column 'x_m': expected 60 rows, as in the first column, got 59"),
    "shape": (lambda b: {**b, "x_m": b["x_m"][:, None]}, r"column 'x_m': expected numbers of shape \(rows,\)"),
    "objects": (lambda b: {**b, "x_m": np.array([None] * ROWS)}, "column 'x_m': expected numbers"),
    "nan": (at("x_m", 4, np.nan), "column 'x_m', row 64: expected a finite number, got nan"),
    "too large": (
        at("e_rec_MeV", 4, 1e300, np.float64),
        "column 'e_rec_MeV', row 64: expected a finite number, got inf",
    ),
    "range": (at("e_rec_MeV", 4, -1.0), "column 'e_rec_MeV', row 64: expected 0 to 100000 MeV, got -1"),
    "fraction": (at("t_ns", 4, 0.5, np.float64), "column 't_ns', row 64: expected whole numbers"),
    "order": (swapped, "column 't_ns', row 92: expected at least"),
    "order of batches": (lambda b: {**b, "t_ns": b["t_ns"] * 0}, "column 't_ns', row 60: expected at least"),
}


@pytest.mark.parametrize("case", BAD_BATCHES)
def test_a_wrong_batch_is_refused_and_leaves_the_old_file(tmp_path, case):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"old")
    first = good()
    later = {**good(seed=1), "t_ns": first["t_ns"] + first["t_ns"][-1]}
    change, sentence = BAD_BATCHES[case]

    def attempt():
        with EventWriter(path, NAMES, group_rows=16) as writer:
            writer.append(first)
            writer.append(change(later))

    got = refusal(attempt)
    assert re.search(sentence, got), got
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_an_unfinished_file_never_gets_the_name(tmp_path, failure):
    def attempt():
        with EventWriter(tmp_path / "a.parquet", NAMES, group_rows=16) as writer:
            writer.append(good())
            assert not (tmp_path / "a.parquet").exists()
            raise failure

    with pytest.raises(failure):
        attempt()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("columns", "metadata", "sentence"),
    [
        ((), {}, "names of columns, each once"),
        (("x_m", "x_m"), {}, "names of columns, each once"),
        ((Column("x_m", stored="float16"),), {}, "column 'x_m': expected to store float as one of"),
        ((Column("n", "int"),), {}, "column 'n': expected to store int as one of"),
        (NAMES, {"seed": object()}, "metadata of plain JSON"),
        (NAMES, {"seed": float("nan")}, "metadata of plain JSON"),
        (NAMES, {"rows": 3}, "expected metadata without rows"),
    ],
)
def test_a_writer_that_cannot_work_is_refused(tmp_path, columns, metadata, sentence):
    def attempt():
        with EventWriter(tmp_path / "a.parquet", columns, metadata=metadata):
            pass

    assert sentence in refusal(attempt)
    assert list(tmp_path.iterdir()) == []


def test_writing_outside_of_the_block_is_refused(tmp_path):
    writer = EventWriter(tmp_path / "a.parquet", NAMES)
    assert "append inside of it" in refusal(writer.append, good())
    with writer:
        writer.append(good())
    assert "append inside of it" in refusal(writer.append, good())
    assert "existing folder" in refusal(EventWriter(tmp_path / "no" / "a.parquet", NAMES).__enter__)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    code = f"""
        import resource, numpy as np
        from nuebar.errors import NuebarError
        from nuebar.io.events import EventWriter
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            with EventWriter({str(tmp_path / "a.parquet")!r}, ("x_m",), group_rows=1000) as writer:
                for _ in range(100):
                    writer.append({{"x_m": np.random.default_rng(0).normal(size=1000)}})
        except NuebarError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r".*a\.parquet: cannot be written \(.*\); free or choose another place\n", done.stdout)
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_file(tmp_path):
    rows = 10**6
    with EventWriter(tmp_path / "a.parquet", ("t_ns", "n_pe")) as writer:
        writer.append({"t_ns": np.arange(rows) * 1000, "n_pe": np.random.default_rng(0).uniform(0, 1e4, rows)})
    held = []
    for batch in EventFile(tmp_path / "a.parquet", ("t_ns", "n_pe")).batches(20_000):
        assert len(batch["n_pe"]) <= 20_000
        held.append(pa.total_allocated_bytes())
    # The file is 12 MB in one row group; a page is at most 1 MB.
    assert max(held) < 8e6


def test_the_reader_does_not_load_what_it_does_not_need(tmp_path):
    own(tmp_path / "a.parquet")
    code = f"""
        import sys
        import nuebar.io.events
        light = {{"jax", "uproot", "h5py", "pyarrow"}} & set(sys.modules)
        nuebar.io.events.read_events({str(tmp_path / "a.parquet")!r}, ("t_ns",))
        sys.exit(bool(light or {{"jax", "uproot", "h5py"}} & set(sys.modules)))
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False).returncode == 0
    assert json.loads(json.dumps(describe(tmp_path / "a.parquet").metadata))["rows"] == 3000
