"""The comparison of predictors: a small one from end to end, what is measured again and what is not, and refusals."""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nuebar.errors import NuebarError
from nuebar.io.files import read_json
from nuebar.jobs import compare, compare_rows
from nuebar.jobs.compare import CompareJob, Size, compare_table, run_compare, shift_table
from nuebar.jobs.compare_rows import Bench
from nuebar.jobs.pairs import even_edges
from nuebar.parameters import OSCILLATION
from nuebar.predict.accuracy import NORM
from nuebar.predict.folded import fold_pairs
from nuebar.predict.harmonic import HarmonicPredictor
from nuebar.predict.network import PUBLISHED, save_network, train_network
from nuebar.predict.pairs import read_pairs

EDGES = np.linspace(1.0, 7.0, 41)
TINY = Size(points=12, checked=3, responses=(0, 0, 0), grid_accuracy=2e-2)
SOME = ("reweight", "matrix", "grid-3", "harmonic")


def write_pairs(path, juno, n=6000, seed=1):
    rng = np.random.default_rng(seed)
    e_nu, core = rng.uniform(1.9, 7.9, n), rng.integers(0, len(juno.reactor.cores), n)
    baseline = np.array([c.baseline_km for c in juno.reactor.cores])
    columns = {
        "true_e_nu_MeV": e_nu,
        "prompt_e_rec_MeV": e_nu - 0.78 + 0.05 * rng.normal(size=n),
        "true_baseline_km": baseline[core],
        "true_core": core,
    }
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Seconds are not what is tested here."""
    timed = compare_rows.timed
    monkeypatch.setattr(compare_rows, "timed", lambda call, **_: timed(call, repeat=1, least_s=0.0))


@pytest.fixture(scope="module")
def files(juno, tmp_path_factory):
    return (write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.parquet", juno),)


@pytest.fixture(scope="module")
def job(juno, files):
    return CompareJob(juno, pairs=files, predictors=SOME, size=TINY, edges_MeV=EDGES)


@pytest.fixture(scope="module")
def done(job, tmp_path_factory):
    """The comparison in a folder of its own."""
    out = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        timed = compare_rows.timed
        patch.setattr(compare_rows, "timed", lambda call, **_: timed(call, repeat=1, least_s=0.0))
        return run_compare(job, out), out


def rows_of(comparison):
    return {row["name"]: row for row in comparison.rows}


# ---------------------------------------------------------------- what comes out


@pytest.mark.slow
def test_the_numbers_are_those_of_the_predictors(done):
    """The harmonic is exact, the cubic grid as good as planned, the matrix worse than both but no nonsense."""
    rows = rows_of(done[0])
    assert tuple(rows) == SOME
    assert "accuracy" not in rows["reweight"]
    harmonic, grid, matrix = (rows[n]["accuracy"][""] for n in ("harmonic", "grid-3", "matrix"))
    assert harmonic["relative_worst"] < 1e-9
    assert 1e-9 < grid["relative_worst"] < 2 * TINY.grid_accuracy
    assert grid["relative_median"] < matrix["relative_median"] < 0.5
    assert {r["points"] for r in (harmonic, grid, matrix)} == {TINY.points}
    assert tuple(grid["shift_worst"]) == (*OSCILLATION, NORM)


@pytest.mark.slow
def test_the_reference_is_checked_pair_by_pair(done):
    checks = rows_of(done[0])["reweight"]["checks"]
    assert checks["vacuum"]["folded"] < 1e-11
    assert checks["matter"]["folded"] < 1e-11
    assert checks["vacuum"]["harmonic"] < 1e-9
    assert 1e-12 < checks["matter"]["harmonic"] < 1e-3  # approximate


def test_every_row_has_size_and_seconds(done):
    for row in done[0].rows:
        assert row["bytes"] > 0
        for what in ("one_jitted", "gradient"):
            assert 0 < row[what]["best_s"] <= row[what]["median_s"]
    assert rows_of(done[0])["grid-3"]["one_quick"]["path"] == "numba"
    assert rows_of(done[0])["harmonic"]["batch"]["per_second"] > 0


def test_the_files(done):
    """Markdown, record and figure; the network's picture only with a network."""
    comparison, out = done
    assert {p.name for p in comparison.files} == {"compare.md", "compare.json", "compare.png"}
    assert all(p.stat().st_size > 0 for p in comparison.files)
    text = (out / "compare.md").read_text()
    assert compare_table(comparison.rows) in text
    assert shift_table(comparison.rows) in text
    record = read_json(out / "compare.json")
    assert [row["name"] for row in record["numbers"]["rows"]] == list(SOME)
    assert {p.name.rsplit("-", 1)[0] for p in (out / "rows").glob("*.json")} == set(SOME)


# ---------------------------------------------------------------- again


def test_nothing_is_measured_twice(done, job, monkeypatch):
    comparison, out = done
    monkeypatch.setattr(compare.Bench, "row", lambda *_: pytest.fail("measured again"))
    again = run_compare(job, out)
    assert again.rows == comparison.rows


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"edges_MeV": np.linspace(1.0, 7.0, 31)},
        {"size": dataclasses.replace(TINY, points=13)},
        {"box": {**compare_rows.PUBLISHED_BOX, "sin2_th12": (0.28, 0.33)}},
    ],
    ids=lambda c: next(iter(c)),
)
def test_another_question_is_measured_anew(done, job, monkeypatch, change):
    monkeypatch.setattr(compare.Bench, "row", lambda *_: pytest.fail("measured again"))
    with pytest.raises(pytest.fail.Exception):
        run_compare(dataclasses.replace(job, **change), done[1])


@pytest.mark.slow
def test_an_interrupted_run_goes_on(done, job, tmp_path, monkeypatch):
    """The row that was finished is kept, the other one is measured."""
    two = dataclasses.replace(job, predictors=("matrix", "harmonic"))
    measured = []

    def row(self, name, *_):
        measured.append(name)
        if measured == ["matrix", "harmonic"]:
            raise KeyboardInterrupt
        return rows_of(done[0])[name]

    monkeypatch.setattr(compare.Bench, "row", row)
    with pytest.raises(KeyboardInterrupt):
        run_compare(two, tmp_path)
    assert [row["name"] for row in run_compare(two, tmp_path).rows] == ["matrix", "harmonic"]
    assert measured == ["matrix", "harmonic", "harmonic"]


# ---------------------------------------------------------------- networks


@pytest.fixture(scope="module")
def network(juno, files, tmp_path_factory):
    """A network of a few steps on the same pairs, at another exposure."""
    pairs = dataclasses.replace(read_pairs(files, EDGES), scale=7.0)
    windows = compare_rows.published_windows()
    harmonic = HarmonicPredictor.build(fold_pairs(pairs), windows=windows, matter=False, tolerance=1e-8)
    small = dataclasses.replace(PUBLISHED.architecture, hidden=(8,))
    training = dataclasses.replace(PUBLISHED.training, max_steps=20, batch=64, validate_every=20)
    recipe = dataclasses.replace(PUBLISHED, architecture=small, training=training, n_sets=2000)
    predictor, _, told = train_network(harmonic, recipe, edges_MeV=EDGES)
    folder = tmp_path_factory.mktemp("networks") / "mine"
    save_network(predictor, folder, training=told)
    return folder


@pytest.mark.slow
def test_a_trained_network_is_a_row(done, job, network, tmp_path):
    """Beside rows that are there; at the exposure of the others; drawn with its truth."""
    out = shutil.copytree(done[1], tmp_path / "out")
    comparison = run_compare(dataclasses.replace(job, networks=(network,)), out)
    assert tuple(rows_of(comparison)) == (*SOME, "network-mine")
    row = rows_of(comparison)["network-mine"]
    assert (out / "network.png").stat().st_size > 0
    assert np.sum(row["example"]) == pytest.approx(np.sum(row["example_truth"]), rel=0.3)
    assert 1e-4 < row["accuracy"][""]["relative_median"] < 1.0


def test_a_network_of_other_pairs_is_refused(job, network, juno, tmp_path):
    other = dataclasses.replace(job, pairs=(write_pairs(tmp_path / "other.parquet", juno, seed=2),))
    with pytest.raises(NuebarError, match="trained on other pairs"):
        Bench(other, tmp_path, lambda *_: None).row("network-mine", network, "key")


def test_a_network_of_other_bins_is_refused(job, network, tmp_path):
    other = dataclasses.replace(job, edges_MeV=EDGES[:-1])
    with pytest.raises(NuebarError, match="the 39 bins that are compared, got 40"):
        Bench(other, tmp_path, lambda *_: None).row("network-mine", network, "key")


def test_numpy_forward_is_the_network(network):
    from nuebar.predict.network import load_network, parameter_sets

    predictor = load_network(network)
    forward = compare_rows.numpy_network(predictor)
    for p in parameter_sets(predictor.box, 5, 0, 3):
        np.testing.assert_allclose(forward(p), predictor.channels(p)[0], rtol=1e-4)


# ---------------------------------------------------------------- refusals, tables


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "nothing to compare"),
        ({"pairs": ("p",), "predictors": ("magic",)}, "unknown predictor 'magic'"),
        ({"pairs": ("p",), "predictors": ("surrogate",)}, "add --cascades"),
        ({"cascades": "c", "predictors": ("harmonic",)}, "add --pairs"),
        ({"cascades": "c", "networks": ("n",)}, "add the --pairs"),
    ],
)
def test_what_is_refused(juno, changes, words):
    with pytest.raises(NuebarError, match=words):
        CompareJob(juno, **changes)


def test_which_rows(juno):
    assert "surrogate" not in CompareJob(juno, pairs=("p",)).rows
    assert CompareJob(juno, cascades="c").rows == ("surrogate",)
    assert not any(n.startswith("network") for n in CompareJob(juno, pairs=("p",), networks=("n",)).rows)


@pytest.mark.parametrize("ends", [(10, 8.0, 1.0), (0, 0.8, 8.8), (10, 0.0, 8.0), (10, 0.8, float("nan"))])
def test_bins_are_checked(ends):
    with pytest.raises(NuebarError, match="--bins, --from, --to"):
        even_edges(*ends)


@pytest.mark.parametrize(
    ("seconds", "text"), [(90.0, "90 s"), (300.0, "5 min"), (1.234, "1.23 s"), (0.00345, "3.45 ms"), (4.2e-6, "4.2 µs")]
)
def test_units_of_time(seconds, text):
    assert compare._seconds(seconds) == text


def test_the_table_names_every_region():
    a = {
        "points": 3, "relative_median": 1e-5, "relative_999": 1e-4, "relative_worst": 2e-4, "chi2_median": 1e-6,
        "chi2_worst": 1e-5, "shift_median": dict.fromkeys((*OSCILLATION, NORM), 1e-4),
        "shift_worst": {**dict.fromkeys((*OSCILLATION, NORM), 1e-3), "dm2_21_eV2": 0.25},
    }  # fmt: skip
    row = {
        "name": "surrogate", "label": "Surrogate", "parameters": 11, "build_s": 60.0, "bytes": 2.0e6,
        "one_jitted": {"best_s": 5e-5}, "gradient": {"best_s": 3e-4}, "accuracy": {"whole": a, "inner": a},
    }  # fmt: skip
    lines = compare_table([row]).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| Surrogate, whole | 11 | 60 s | 2 MB | 50 µs | – | 300 µs | – | 1.0e-05")
    assert lines[2].endswith("| 0.25 |")
    assert lines[3].startswith("| Surrogate, inner |")
    assert shift_table([row]).count("1.0e-04 / 0.25") == 2


def test_the_command_says_what_is_missing(tmp_path):
    words = [sys.executable, "-m", "nuebar.cli", "predict", "compare", "--out", str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "expected --pairs FILES, --cascades FOLDER or both" in done.stderr
    assert not (tmp_path / "out").exists()


def test_rows_are_plain_json(done):
    for path in (done[1] / "rows").glob("*.json"):
        assert json.loads(path.read_text())["label"]
