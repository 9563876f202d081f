"""``nuebar fit coverage`` as a job: files, chunks that continue, tables, words that are refused."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.fit.coverage import METHODS, coverage
from nuebar.fit.known_coverage import load_table
from nuebar.jobs import coverage as job_module
from nuebar.jobs.coverage import (
    CoverageJob,
    coverage_report,
    run_coverage,
    table,
    write_coverage,
)
from nuebar.jobs.fit import FitJob
from nuebar.report.coverage_plots import coverage_picture, rank_picture


@pytest.fixture(scope="module")
def job(tmp_path_factory, write_experiment):
    path = write_experiment(tmp_path_factory.mktemp("experiment"), days=3000)
    fit = FitJob(experiment=path, asimov=True, fix=("matter_density_g_cm3",))
    return CoverageJob(fit=fit, days=(3000.0, 6000.0), toys=30, posteriors=25, widths=4, draws=300, seed=4)


@pytest.fixture(scope="module")
def outcome(job):
    before, job_module.PER_CHUNK = job_module.PER_CHUNK, 40
    try:
        return run_coverage(job)
    finally:
        job_module.PER_CHUNK = before


def test_every_interval_is_a_row(outcome, tmp_path):
    paths = write_coverage(outcome, tmp_path)
    rows = list(csv.DictReader((tmp_path / "coverage.csv").read_text(encoding="utf-8").splitlines()))
    # Four parameters in five ways, norm_flux by Hesse only; two levels, two exposures.
    assert len(rows) == (4 * len(METHODS) + 1) * 2 * 2
    assert {r["exposure_days"] for r in rows} == {"3000", "6000"}
    record = json.loads((tmp_path / "coverage.json").read_text(encoding="utf-8"))
    assert record["kind"] == "coverage"
    for e in record["exposures"]:
        for r in e["rows"]:
            assert r["toys"] == (25 if r["method"] == "posterior" else 30)
            assert 0 <= r["failed"] <= r["toys"]
    assert all(path.is_file() and path.stat().st_size > 100 for path in paths)
    assert {p.name for p in paths} >= {"coverage.png", "posterior-ranks-3000-days.png"}


def test_twice_the_exposure_makes_smaller_errors(outcome):
    short, long = outcome.points
    for name in ("sin2_th12", "dm2_21_eV2"):
        ratio = long.row(name, "hesse").half_width / short.row(name, "hesse").half_width
        assert ratio == pytest.approx(np.sqrt(0.5), abs=0.03)


def test_chunks_are_the_same_toys(job, outcome, tmp_path, monkeypatch):
    """Chunks of eight, done in this process and read back: the toys of the study above."""
    monkeypatch.setattr(job_module, "PER_CHUNK", 8)
    config = json.loads(json.dumps(job_module._config(job)))
    for chunk in (0, 1, 2, 3):
        told = job_module.coverage_chunk(config, chunk, 0, tmp_path / f"{chunk}.safetensors")
        assert told["toys"] == 8
    for e, point in enumerate(outcome.points):
        parts = [job_module._loaded(tmp_path / f"{k}.safetensors") for k in (e, e + 2)]
        for k, part in enumerate(parts):
            whole = point.toys.rows(slice(8 * k, 8 * k + 8))
            np.testing.assert_array_equal(part.numbers, whole.numbers)
            np.testing.assert_allclose(part.pull, whole.pull, atol=2e-3)
            np.testing.assert_allclose(part.delta_global, whole.delta_global, atol=0.01)
            np.testing.assert_allclose(part.rank, whole.rank, atol=1e-6)


@pytest.mark.slow
def test_workers_make_the_same_files_and_continue(job, tmp_path):
    for n in (1, 2):
        run_coverage(dataclasses.replace(job, toys=210), tmp_path / str(n), jobs=n)
    for a in sorted((tmp_path / "1" / "coverage").glob("*.safetensors")):
        assert a.read_bytes() == (tmp_path / "2" / "coverage" / a.name).read_bytes()


def test_what_is_off_is_told_in_words(outcome):
    assert outcome.off() == []
    assert "No interval is off" in coverage_report(outcome)
    point = outcome.points[0]
    toys = point.toys.rows(np.zeros(2000, int) + np.arange(2000) % 30)
    worse = dataclasses.replace(point, toys=toys, rows=coverage(toys, scale=0.7))
    broken = dataclasses.replace(outcome, points=(worse,))
    text = coverage_report(broken)
    assert "Off (marked *)" in text
    assert "at 3000 days the 1 sigma hesse interval of" in text
    assert "covers too little" in text


def test_the_table_is_one_that_fits_read(outcome, tmp_path):
    from nuebar.io.results import save_result

    save_result(tmp_path / "toy.json", table(outcome))
    found = load_table("toy", tmp_path)
    assert {r["parameter"] for r in found["rows"]} == set(outcome.points[0].toys.interest)
    assert found["priors"] == dict.fromkeys(outcome.points[0].toys.interest)
    assert found["seed"] == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"toys": 1}, "two or more"),
        ({"days": (59.1, 59.1)}, "different positive"),
        ({"days": (-1.0,)}, "different positive"),
        ({"draws": 3}, "100 draws or more"),
        ({"truth": {"nothing": 1.0}}, "unknown parameter"),
    ],
)
def test_bad_options_are_refused(job, changes, message):
    with pytest.raises(NuebarError, match=message):
        run_coverage(dataclasses.replace(job, **changes))


def test_pictures_need_something_to_draw():
    with pytest.raises(NuebarError, match="expected rows"):
        coverage_picture({})
    assert rank_picture({"sin2_th12": np.linspace(0, 1, 50)}) is not None
