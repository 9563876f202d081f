"""Pairs from files: what is kept, how cores are recognised, and one sentence for everything that is wrong."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nuebar.errors import NuebarError
from nuebar.io.events import ColumnMap, EventWriter, FileColumn
from nuebar.predict.pairs import Pairs, read_pairs

EDGES = np.linspace(1.0, 8.0, 15)
BASELINES = np.array([52.77, 52.64, 215.0])


def events(n=4000, seed=1):
    """Columns as our own files have them."""
    rng = np.random.default_rng(seed)
    e_nu, core = rng.uniform(1.81, 9.5, n), rng.integers(0, 3, n)
    e_rec = e_nu - 0.78 + 0.05 * rng.normal(size=n)
    x, y, z = rng.uniform(-10, 10, (3, n)).astype(np.float32)
    return {
        "true_e_nu_MeV": e_nu,
        "prompt_e_rec_MeV": e_rec.astype(np.float32),
        "true_baseline_km": BASELINES[core],
        "true_core": core,
        "prompt_x_m": x,
        "prompt_y_m": y,
        "prompt_z_m": z,
    }


def write(path, columns):
    """A user's file: nothing is checked and nothing noted."""
    pq.write_table(pa.table(columns), path)
    return path


def own(path, columns):
    with EventWriter(path, tuple(columns)) as writer:
        writer.append(columns)
    return path


def without(columns, *names):
    return {name: values for name, values in columns.items() if name not in names}


@pytest.mark.parametrize("writer", [write, own])
def test_what_is_kept(tmp_path, writer):
    """Pairs inside the bins in the order of the file; histogram, dtypes, eleven bytes each, and the total."""
    c = events()
    pairs = read_pairs(writer(tmp_path / "p.parquet", c), EDGES)
    inside = (c["prompt_e_rec_MeV"] >= EDGES[0]) & (c["prompt_e_rec_MeV"] < EDGES[-1])
    assert 0 < len(pairs) == inside.sum() < pairs.total == 4000
    np.testing.assert_array_equal(pairs.e_nu_MeV, c["true_e_nu_MeV"][inside])
    np.testing.assert_array_equal(pairs.baseline_km[pairs.core], c["true_baseline_km"][inside])
    counts = np.histogram(c["prompt_e_rec_MeV"], EDGES)[0]
    np.testing.assert_array_equal(pairs.counts(), counts)
    np.testing.assert_allclose(pairs.errors() ** 2, counts)
    assert sum(a.itemsize for a in (pairs.e_nu_MeV, pairs.core, pairs.bin)) == 11
    assert pairs.core_names == ("core_1", "core_2", "core_3")
    twice = dataclasses.replace(pairs, scale=2.0)
    np.testing.assert_array_equal(twice.counts(), 2 * counts)
    np.testing.assert_array_equal(twice.errors(), 2 * pairs.errors())


def test_a_bin_holds_its_lower_edge(tmp_path):
    c = {"e_nu_MeV": [4.0, 5.0, 6.0], "e_rec_MeV": [2.0, 3.0, 4.0], "baseline_km": [50.0] * 3}
    pairs = read_pairs(write(tmp_path / "p.parquet", c), [2.0, 3.0, 4.0])
    np.testing.assert_array_equal(pairs.bin, [0, 1])
    np.testing.assert_array_equal(pairs.e_nu_MeV, [4.0, 5.0])


def test_the_hash_is_that_of_the_content(tmp_path):
    c = events()
    first = read_pairs(write(tmp_path / "a.parquet", c), EDGES)
    again = read_pairs(own(tmp_path / "b.parquet", c), EDGES)
    assert first.provenance["hash"] == again.provenance["hash"]
    c["true_e_nu_MeV"][17] += 1e-12
    assert read_pairs(write(tmp_path / "c.parquet", c), EDGES).provenance["hash"] != first.provenance["hash"]


def test_several_files_are_one_stream(tmp_path):
    c = events()
    whole = read_pairs(write(tmp_path / "whole.parquet", c), EDGES)
    half = [write(tmp_path / f"p{k}.parquet", {n: v[k * 1500 : 1500 + k * 2500] for n, v in c.items()})
            for k in range(2)]  # fmt: skip
    seen = []
    parts = read_pairs(half, EDGES, progress=lambda *x: seen.append(x))
    np.testing.assert_array_equal(parts.e_nu_MeV, whole.e_nu_MeV)
    np.testing.assert_array_equal(parts.core, whole.core)
    assert seen[-1] == ("pairs", 4000, 4000)


def test_the_fiducial_cut(tmp_path):
    c = events()
    pairs = read_pairs(write(tmp_path / "p.parquet", c), EDGES, fiducial_radius_m=9.0)
    inside = c["prompt_x_m"] ** 2 + c["prompt_y_m"] ** 2 + c["prompt_z_m"] ** 2 <= 81.0
    np.testing.assert_array_equal(pairs.counts(), np.histogram(c["prompt_e_rec_MeV"][inside], EDGES)[0])
    assert pairs.total == 4000


def test_plain_names_and_a_map(tmp_path):
    c = events()
    plain = {"Enu": 1e3 * c["true_e_nu_MeV"], "e_rec_MeV": c["prompt_e_rec_MeV"], "baseline_km": c["true_baseline_km"]}
    column_map = ColumnMap({"e_nu_MeV": FileColumn("Enu", unit="keV")})
    pairs = read_pairs(write(tmp_path / "p.parquet", plain), EDGES, column_map=column_map)
    expected = read_pairs(write(tmp_path / "q.parquet", c), EDGES)
    np.testing.assert_allclose(pairs.e_nu_MeV, expected.e_nu_MeV, rtol=1e-15)
    # Without numbers the cores are the baselines, rising.
    np.testing.assert_array_equal(pairs.baseline_km, np.sort(BASELINES))
    np.testing.assert_array_equal(pairs.baseline_km[pairs.core], expected.baseline_km[expected.core])


def test_what_a_map_names_comes_first(tmp_path):
    c = events() | {"e_fit_MeV": events()["prompt_e_rec_MeV"] * 0.9}
    pairs = read_pairs(
        write(tmp_path / "p.parquet", c), EDGES, column_map=ColumnMap({"e_rec_MeV": FileColumn("e_fit_MeV")}),
        least_per_bin=0,
    )  # fmt: skip
    np.testing.assert_array_equal(pairs.counts(), np.histogram(c["e_fit_MeV"], EDGES)[0])


@pytest.mark.parametrize("drop", [(), ("true_core",), ("true_baseline_km",)])
def test_cores_of_an_experiment(tmp_path, drop):
    """By number, by value to a metre, or by number alone: the experiment's names in its order."""
    path = write(tmp_path / "p.parquet", without(events(), *drop))
    shift = 0.0 if drop == ("true_baseline_km",) else 5e-4
    order = [0, 1, 2] if drop == ("true_baseline_km",) else [2, 0, 1]
    names = np.array(["a", "b", "far"])[order]
    pairs = read_pairs(path, EDGES, baseline_km=BASELINES[order] + shift, core_names=names)
    assert pairs.core_names == tuple(names)
    np.testing.assert_array_equal(pairs.baseline_km, BASELINES[order])
    truth = read_pairs(write(tmp_path / "q.parquet", events()), EDGES)
    np.testing.assert_array_equal(pairs.baseline_km[pairs.core], truth.baseline_km[truth.core])


def test_two_cores_at_one_baseline(tmp_path):
    """They are told apart by their numbers."""
    c = events()
    c["true_baseline_km"] = np.full(4000, 52.0)
    path = write(tmp_path / "p.parquet", c)
    pairs = read_pairs(path, EDGES, baseline_km=[52.0] * 3, core_names=("a", "b", "c"))
    np.testing.assert_array_equal(np.bincount(pairs.core).sum(), len(pairs))
    assert pairs.core_names == ("a", "b", "c")
    with pytest.raises(NuebarError, match="several"):
        read_pairs(write(tmp_path / "q.parquet", without(c, "true_core")), EDGES, baseline_km=[52.0] * 3)


def test_shares(tmp_path):
    path = write(tmp_path / "p.parquet", without(events(), "true_core", "true_baseline_km"))
    pairs = read_pairs(path, EDGES, baseline_km=BASELINES, core_share=[2.0, 1.0, 1.0])
    np.testing.assert_allclose(pairs.core_share, [0.5, 0.25, 0.25])
    assert not pairs.core.any()
    # Files that know better are believed.
    known = read_pairs(write(tmp_path / "q.parquet", events()), EDGES, baseline_km=BASELINES, core_share=[2, 1, 1])
    assert known.core_share is None


def changed(**changes):
    def change(c):
        for name, (row, value) in changes.items():
            c[name] = np.array(c[name], dtype=float)
            c[name][row] = value
        return c

    return change


def scaled(name, factor):
    return lambda c: c | {name: c[name] * factor}


REFUSALS = {
    "nan energy": (changed(true_e_nu_MeV=(7, np.nan)), {}, "true_e_nu_MeV.*row 7.*finite"),
    "negative e_rec": (changed(prompt_e_rec_MeV=(9, -1.0)), {}, "prompt_e_rec_MeV.*row 9"),
    "below threshold": (changed(true_e_nu_MeV=(11, 1.7)), {}, "row 11.*expected 1.806"),
    "keV neutrinos": (scaled("true_e_nu_MeV", 1e3), {}, "keV"),
    "GeV neutrinos": (scaled("true_e_nu_MeV", 1e-3), {}, "GeV"),
    "keV reconstructed": (scaled("prompt_e_rec_MeV", 1e3), {}, "keV"),
    "GeV reconstructed": (scaled("prompt_e_rec_MeV", 1e-3), {}, "GeV"),
    "metres": (scaled("true_baseline_km", 1e3), {}, "true_baseline_km.*as m"),
    "no e_nu": (lambda c: without(c, "true_e_nu_MeV"), {}, "true_e_nu_MeV.*true neutrino energy.*column map"),
    "no e_rec": (lambda c: without(c, "prompt_e_rec_MeV"), {}, "prompt_e_rec_MeV.*reconstructed energy"),
    "nothing": (lambda c: {"a": c["true_core"]}, {}, "expected one of the columns"),
    "no vertex": (lambda c: without(c, "prompt_y_m"), {"fiducial_radius_m": 9.0}, "prompt_y_m.*vertex"),
    "radius": (lambda c: c, {"fiducial_radius_m": 0.0}, "radius above 0"),
    "no baselines": (lambda c: without(c, "true_baseline_km", "true_core"), {}, "true_baseline_km.*share"),
    "numbers only": (lambda c: without(c, "true_baseline_km"), {}, "true_core.*expected baselines"),
    "numbers too large": (lambda c: without(c, "true_baseline_km"), {"baseline_km": [52.0]}, "expected cores below 1"),
    "baselines disagree": (changed(true_baseline_km=(5, 99.0)), {}, "one baseline for each core.*row 5"),
    "a baseline each": (
        lambda c: without(c, "true_core") | {"true_baseline_km": np.linspace(50, 60, 4000)}, {}, "at most 256 cores"
    ),
    "other experiment": (lambda c: c, {"baseline_km": [52.77, 52.64, 300.0]}, "215 km to be that of one core"),
    "core missing": (lambda c: c, {"baseline_km": [*BASELINES, 300.0]}, "each of the 4 cores.*none from 300"),
    "names": (lambda c: c, {"core_names": ("a",)}, "expected 1 cores"),
    "names of baselines": (lambda c: c, {"core_names": ("a",), "baseline_km": [1, 2]}, "expected 2 names"),
    "baseline 0": (lambda c: c, {"baseline_km": [0.0]}, "above 0 km"),
    "no baseline entries": (lambda c: c, {"baseline_km": []}, "expected 1 to 256"),
    "shares alone": (lambda c: c, {"core_share": [1.0]}, "one baseline for each"),
    "share negative": (lambda c: c, {"core_share": [-1.0, 2.0], "baseline_km": [1, 2]}, "at least 0"),
    "no rows": (lambda c: {n: v[:0] for n, v in c.items()}, {}, "empty table"),
    "few": (lambda c: {n: v[:10] for n, v in c.items()}, {}, "at least 14 pairs"),
    "outside": (lambda c: c, {"edges": np.linspace(20, 30, 5)}, "at least 4 pairs"),
    "empty bin": (lambda c: c, {"edges": [1, 5, 9, 10, 11]}, "in the bin from 9 to 10 MeV and 1 more.*wider"),
    "poor bin": (lambda c: c, {"least_per_bin": 10**6}, "at least 1000000 pairs"),
    "edges fall": (lambda c: c, {"edges": [1, 3, 2]}, "rise, got 2 at index 2"),
    "edges nan": (lambda c: c, {"edges": [1, np.nan, 2]}, "at index 1"),
    "one edge": (lambda c: c, {"edges": [1]}, "2 to 32768 edges"),
    "map names what is not there": (
        lambda c: c, {"column_map": ColumnMap({"baseline_km": FileColumn("L")})}, "column 'L'"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(tmp_path, case):
    change, options, match = REFUSALS[case]
    path = write(tmp_path / "p.parquet", change(events()))
    options = dict(options)
    edges = options.pop("edges", EDGES)
    with pytest.raises(NuebarError, match=match) as caught:
        read_pairs(path, edges, **options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count(". ") == 0


def test_units_of_our_own_form_are_not_believed_blindly(tmp_path):
    """A file with our notes is not judged by the reader of events; a median still is."""
    path = own(tmp_path / "p.parquet", scaled("prompt_e_rec_MeV", np.float32(1e-3))(events()))
    with pytest.raises(NuebarError, match="looks like GeV"):
        read_pairs(path, EDGES)


def test_files_that_do_not_agree(tmp_path):
    c = events()
    paths = [write(tmp_path / "a.parquet", c), write(tmp_path / "b.parquet", without(c, "true_core"))]
    with pytest.raises(NuebarError, match=r"b\.parquet.*true_core"):
        read_pairs(paths, EDGES)
    c["true_core"] = (c["true_core"] + 1) % 3
    paths[1] = write(tmp_path / "b.parquet", c)
    with pytest.raises(NuebarError, match=r"one baseline for each core.*row 4000"):
        read_pairs(paths, EDGES)


@pytest.mark.parametrize(
    "changes",
    [
        {"bin": np.array([0, 2], np.int16)},
        {"bin": np.array([0, -1], np.int16)},
        {"core": np.array([0, 1], np.uint8)},
        {"core": np.array([0], np.uint8)},
        {"e_nu_MeV": np.array([3.0, 4.0], np.float32)},
        {"core_names": ()},
        {"scale": 0.0},
    ],
)
def test_a_record_that_would_be_read_beyond_its_end(changes):
    good = {
        "e_nu_MeV": np.array([3.0, 4.0]),
        "core": np.zeros(2, np.uint8),
        "bin": np.array([0, 1], np.int16),
        "edges_MeV": np.array([1.0, 2.0, 3.0]),
        "baseline_km": np.array([52.0]),
        "core_names": ("a",),
    }
    Pairs(**good)
    with pytest.raises(NuebarError, match="pairs: expected"):
        Pairs(**(good | changes))
