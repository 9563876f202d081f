"""``nuebar fit toys`` and ``nuebar fit ordering`` as jobs: files, chunks that continue, words that are refused."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.jobs import ordering_toys
from nuebar.jobs import toys as job_module
from nuebar.jobs.fit import FitJob
from nuebar.jobs.ordering import OrderingJob, ordering_report, run_ordering, write_ordering
from nuebar.jobs.resolutions import resolutions
from nuebar.jobs.toys import ToysJob, parse_truth, run_toys_job, toys_report, write_toys
from nuebar.run import in_process


@pytest.fixture
def experiment(tmp_path, write_experiment):
    return write_experiment(tmp_path, days=1000)


def table(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_every_toy_is_a_row(experiment, tmp_path):
    job = ToysJob(fit=FitJob(experiment=experiment, asimov=True), toys=30, seed=4, truth={"sin2_th12": 0.31})
    outcome = run_toys_job(job)
    paths = write_toys(outcome, tmp_path / "out")
    rows = table(paths[1])
    assert len(rows) == 30
    assert [int(r["toy"]) for r in rows] == list(range(30))
    assert float(rows[3]["sin2_th12_truth"]) == 0.31
    assert float(rows[3]["sin2_th12_value"]) == pytest.approx(outcome.results.value("sin2_th12")[3], rel=1e-8)
    record = json.loads(paths[0].read_text(encoding="utf-8"))
    assert record["toys"] == 30
    assert record["valid"] + sum(record["failures"].values()) == 30
    assert record["chi2"]["n_dof"] == 140 - 4
    assert "30 toys" in toys_report(outcome)


def test_chunks_are_the_same_toys_and_continue(experiment, tmp_path, monkeypatch):
    """Chunks of ten, done in this process: the toys of one run without chunks."""
    monkeypatch.setattr(job_module, "PER_CHUNK", 10)
    job = ToysJob(fit=FitJob(experiment=experiment, asimov=True), toys=15, seed=4)
    config = json.loads(json.dumps(job_module._config(job)))
    for chunk in range(2):
        told = job_module.toys_chunk(config, chunk, 0, tmp_path / f"{chunk}.safetensors")
        assert told == {"toys": 10, "valid": told["valid"]}
    parts = [job_module._loaded(tmp_path / f"{k}.safetensors") for k in range(2)]
    values = np.concatenate([p.values for p in parts])[:15]
    whole = run_toys_job(job).results
    error = np.where(whole.errors > 0, whole.errors, 1.0)
    np.testing.assert_allclose((values - whole.values) / error, 0.0, atol=1e-3)


@pytest.mark.slow
def test_workers_make_the_same_file(experiment, tmp_path):
    job = ToysJob(fit=FitJob(experiment=experiment, asimov=True), toys=2000, seed=4)
    for n in (1, 2):
        run_toys_job(job, tmp_path / str(n), jobs=n)
    for chunk in range(2):
        name = f"toys/chunk-{chunk:05d}.safetensors"
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_ordering_writes_table_record_and_pictures(experiment, tmp_path):
    job = OrderingJob(
        fit=FitJob(experiment=experiment, asimov=True),
        resolutions=("own",),
        years=(2.0, 6.0, 12.0),
        toys=12,
        toy_years=6.0,
        systematics_years=6.0,
    )
    outcome = run_ordering(job)
    assert outcome.valid
    assert outcome.near_GW == 20.0
    paths = write_ordering(outcome, tmp_path / "out")
    assert {p.name for p in paths} == {
        "ordering.json", "ordering.csv", "ordering_toys.csv",
        "ordering.png", "ordering_systematics.png", "ordering_toys.png",
    } - ({"ordering_systematics.png"} if len(outcome.systematics) <= 2 else set())  # fmt: skip
    record = json.loads(paths[0].read_text(encoding="utf-8"))
    points = record["sets"][0]["points"]
    assert [p["years"] for p in points] == [2.0, 6.0, 12.0]
    assert 0 < points[0]["delta_chi2"] < points[1]["delta_chi2"] < points[2]["delta_chi2"]
    rows = table(paths[1])
    assert float(rows[1]["years_calendar"]) == pytest.approx(6.0 / 0.9, rel=1e-5)
    rows = table(paths[2])
    assert [r["truth"] for r in rows] == ["normal"] * 12 + ["inverted"] * 12
    assert 0.0 <= record["toys"]["p_value_of_wrong_ordering"]["median"] <= 1.0
    assert "3 sigma" in ordering_report(outcome)


def test_ordering_toys_in_chunks_are_the_same(experiment, tmp_path, monkeypatch):
    """Chunks of five, done in this process: the toys of one run without chunks, for both truths."""
    monkeypatch.setattr(ordering_toys, "PER_CHUNK", 5)
    job = ordering_toys.ToysOfBoth(FitJob(experiment=experiment, asimov=True), "own", 1.0, 1.0, toys=8, seed=3)
    chunked = ordering_toys.run_ordering_toys(job, tmp_path, jobs=in_process)
    whole = ordering_toys.run_ordering_toys(job, None)
    for truth in ("normal", "inverted"):
        assert chunked[truth].right.numbers.tolist() == list(range(8))
        np.testing.assert_allclose(chunked[truth].right.chi2, whole[truth].right.chi2, rtol=1e-6)
        np.testing.assert_allclose(chunked[truth].wrong.chi2, whole[truth].wrong.chi2, rtol=1e-6)
    assert ordering_toys.p_value(whole, "normal", -1e9) == (1.0, pytest.approx(1 / 8))
    assert ordering_toys.p_value(whole, "normal", 1e9) == (pytest.approx(1 / 9), pytest.approx(1 / 8))


def test_resolutions_are_those_of_the_papers():
    """σ/E at 1 MeV: 3.0 % (arXiv:2204.13249) and 2.95 % (arXiv:2405.17860)."""
    found = {n: np.sqrt(np.sum(np.square(r.resolution))) for n, r in resolutions().items()}
    assert found["2022"] == pytest.approx(0.0300, abs=5e-5)
    assert found["2024"] == pytest.approx(0.0295, abs=5e-5)


@pytest.mark.parametrize("words", [["sin2_th12"], ["sin2_th12=x"], ["=3"], ["a=nan"]])
def test_wrong_truths_are_refused(words):
    with pytest.raises(NuebarError, match="--truth"):
        parse_truth(words)


def test_truths_are_read():
    assert parse_truth(["sin2_th12=0.31", "dm2_21_eV2=7.5e-5"]) == {"sin2_th12": 0.31, "dm2_21_eV2": 7.5e-5}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolutions": ("1999",)}, "--resolution"),
        ({"years": (3.0, 2.0)}, "--years"),
        ({"toys": 1}, "--toys"),
        ({"truth": "both"}, "--truth"),
        ({"toy_years": 0.0}, "--toy-years"),
    ],
)
def test_wrong_ordering_options_are_refused(changes, message):
    with pytest.raises(NuebarError, match=message):
        run_ordering(dataclasses.replace(OrderingJob(), **changes))


def test_the_report_says_what_is_off(experiment):
    """Fits that fail often, biased parameters, and the statistic behind it."""
    outcome = run_toys_job(ToysJob(fit=FitJob(experiment=experiment, asimov=True), toys=40, seed=4))
    assert "careful" not in toys_report(outcome)
    results = outcome.results
    status = results.status.copy()
    status[:5] = 2
    moved = dataclasses.replace(results, status=status)
    biased = tuple(dataclasses.replace(s, pull_mean=0.9) if s.name == "sin2_th12" else s for s in outcome.summary)
    off = dataclasses.replace(outcome, results=moved, summary=biased, statistic="pearson", events_per_bin=9.0)
    told = toys_report(off)
    assert "12 % of the fits are not valid" in told
    assert "sin2_th12 is biased by +0.90" in told
    assert "take --statistic cnp" in told
