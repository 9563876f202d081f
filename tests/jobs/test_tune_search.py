"""The command that searches: sets are read from disk, one search at a time in a folder, published numbers of trials."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.io.arrays import save_arrays
from nuebar.io.files import read_json
from nuebar.io.results import save_result
from nuebar.jobs import tune_search
from nuebar.jobs.tune_search import SearchJob, importance_rows, run_search, trial_rows
from nuebar.run.lock import hold
from nuebar.tune import search as module
from nuebar.tune.search import BASES

BINS = [0.5, 2.5, 20]


def write_set(folder, seed, charges=True, events=60):
    """A set on disk as the simulation leaves it: two sources at eight points."""
    points = np.array([[k, c, y] for k in (6.0, 24.0) for c in (0.0, 1.0) for y in (8e3, 1.2e4)])
    random = np.random.default_rng(seed)
    n_pe = 1000 * np.array([[1.0], [1.4]])[..., None] * (points[:, 2] / 1e4)[None, :, None]
    n_pe = n_pe * random.normal(1, 0.05, (2, 8, events))
    edges = np.r_[-np.inf, np.linspace(0.5, 2.5, 21), np.inf]
    arrays = {
        "parameters": points,
        "data_set": np.arange(8),
        "events": np.full(8, events),
        "first": np.zeros(8, int),
        "offsets": np.arange(9) * events,
        "counts": np.array([[np.histogram(1e-3 * n_pe[s, k], edges)[0] for s in (0, 1)] for k in range(8)], np.int32),
        "n_pe": n_pe.reshape(2, -1).astype(np.float32)[:, : None if charges else 0],
    }
    about = {"name": folder.name, "sources": ["A", "B"], "pe_to_observable": 1e-3, "bins": BINS}
    folder.mkdir(parents=True)
    save_arrays(folder / "chunk-00000.safetensors", arrays, {"format": 1, "kind": "calibration", **about})
    stage = {"stage": folder.name, "function": "nuebar.jobs.calibration:calibration_chunk"}
    save_result(folder / "stage.json", {**stage, "chunks": 1, "suffix": ".safetensors"})
    return str(folder)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    place = tmp_path_factory.mktemp("sets")
    training, validation = write_set(place / "training", 1), write_set(place / "validation", 2)
    return SearchJob(kind="tede", training=training, validation=(validation,), trials=3, max_steps=10, seed=4)


@pytest.fixture
def pretended(monkeypatch):
    """Trainings without work; what they were given is kept."""
    given = []

    def train(recipe, sets, *, max_steps, max_seconds, report):
        given.append((recipe, sets))
        report(recipe.validate_every, recipe.learning_rate)
        return SimpleNamespace(best=recipe.learning_rate, reason="steps")

    monkeypatch.setattr(module, "train_density", train)
    monkeypatch.setattr(module.jax, "clear_caches", lambda: None)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    return given


def test_a_search_over_sets_on_disk(pretended, job, tmp_path):
    seen = []
    result = run_search(job, tmp_path, progress=lambda *a: seen.append(a))
    assert [t.state for t in result.trials] == ["complete"] * 3
    sets = pretended[0][1]
    assert (len(sets.validation), sets.charges) == (1, None)
    assert sets.validation[0].name == "validation"
    assert seen[-1] == ("search", 30, 30)
    assert run_search(replace(job, trials=5), tmp_path).trials[:3] == result.trials
    assert len(pretended) == 5
    rows = trial_rows(result)
    assert [float(row[2]) for row in rows] == sorted(float(row[2]) for row in rows)
    assert (rows[0][0], rows[0][1]) == (result.number, "complete")
    assert "learning_rate" in rows[0][4]
    assert importance_rows(result) == []
    assert importance_rows(replace(result, importance={"width": 0.75, "heads": 0.25}))[0] == ("width", "75 %")


@pytest.mark.parametrize(("kind", "trials"), [("tede", 250), ("planar", 25), ("spline", 50)])
def test_published_sizes_are_the_defaults(job, tmp_path, monkeypatch, kind, trials):
    given = {}
    monkeypatch.setattr(tune_search, "search", lambda kind, sets, folder, **options: given.update(options, kind=kind))
    run_search(replace(job, kind=kind, trials=None, events=7 if kind != "tede" else None), tmp_path)
    assert (given["kind"], given["trials"]) == (kind, trials)
    assert given["base"] == (BASES[kind] if kind == "tede" else replace(BASES[kind], events=7))


def test_other_data_are_refused(pretended, job, tmp_path):
    run_search(job, tmp_path / "study")
    other = write_set(tmp_path / "validation", 3)
    with pytest.raises(NuebarError, match=r"expected the study of this search, got another: data.validation is"):
        run_search(replace(job, validation=(other,)), tmp_path / "study")
    with pytest.raises(NuebarError, match=r"expected the study of this search, got another: data.training is"):
        run_search(replace(job, training=other), tmp_path / "study")
    assert len(read_json(tmp_path / "study" / "study.json")["trials"]) == 3


def test_one_search_at_a_time(job, tmp_path, monkeypatch):
    monkeypatch.setattr("nuebar.run.lock._GRACE_S", 0.0)
    with hold(tmp_path), pytest.raises(NuebarError, match="expected a folder that no other run uses"):
        run_search(job, tmp_path)


def test_what_cannot_be_searched_is_refused(job, tmp_path):
    with pytest.raises(NuebarError, match="search kind: expected one of tede, planar, spline, got 'gan'"):
        run_search(replace(job, kind="gan"), tmp_path / "a")
    bare = write_set(tmp_path / "bare", 1, charges=False)
    with pytest.raises(NuebarError, match="expected charges, got histograms only"):
        run_search(replace(job, kind="spline", training=bare), tmp_path / "b")
    assert not (tmp_path / "a").exists()
