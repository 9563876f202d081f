"""``nuebar fit goodness`` as a job: files, chunks that continue and depend on nothing, words, refused options."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from nuebar.commands_goodness import fit_goodness
from nuebar.commands_options import ModelOptions, WorkOptions
from nuebar.errors import NuebarError
from nuebar.jobs import goodness as job_module
from nuebar.jobs.fit import FitJob
from nuebar.jobs.fit_config import build_fit
from nuebar.jobs.goodness import GoodnessJob, goodness_report, run_goodness, write_goodness


@pytest.fixture(scope="module")
def job(tmp_path_factory, write_experiment):
    place = tmp_path_factory.mktemp("goodness")
    path = write_experiment(place, days=500, bins=28, bounded=True)
    fit = build_fit(FitJob(experiment=path, asimov=True))
    counts = np.random.default_rng(5).poisson(fit.counts)
    edges = fit.model.edges_MeV
    rows = [f"{a},{b},{n}" for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)]
    (place / "data.csv").write_text("\n".join(["low_MeV,high_MeV,counts", *rows]) + "\n", encoding="utf-8")
    return GoodnessJob(fit=FitJob(experiment=path, data=str(place / "data.csv")), toys=60, seed=3)


@pytest.fixture(scope="module")
def outcome(job):
    return run_goodness(job)


def test_files_and_numbers(outcome, tmp_path):
    assert outcome.valid
    paths = write_goodness(outcome, tmp_path)
    assert {p.name for p in paths} == {"goodness.json", "goodness.csv", "goodness.png"}
    record = json.loads((tmp_path / "goodness.json").read_text(encoding="utf-8"))
    assert (record["format"], record["kind"], record["valid"], record["n_dof"]) == (1, "goodness", True, 28 - 2)
    assert 0.001 < record["tests"]["chi2"]["p"] <= 1.0
    assert record["tests"]["chi2"]["p"] == pytest.approx(record["p_chi2"], abs=0.3)
    assert record["tests"]["runs"]["value"] > 0
    with (tmp_path / "goodness.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(r["toy"]) for r in rows] == list(range(60))
    above = np.mean([float(r["chi2"]) >= record["chi2"] for r in rows])
    assert record["tests"]["chi2"]["p"] == pytest.approx((1 + 60 * above) / 61)
    assert "degrees of freedom" in goodness_report(outcome)


def test_chunks_continue_and_change_nothing(job, outcome, tmp_path, monkeypatch):
    """The toys of a folder, done by a worker, are those of one process; a longer study keeps what is there."""
    first = run_goodness(job, tmp_path, jobs=1)
    np.testing.assert_allclose(first.tests, outcome.tests, rtol=1e-6)
    np.testing.assert_array_equal(first.results.numbers, outcome.results.numbers)
    chunk = tmp_path / "goodness" / "chunk-00000.safetensors"
    before = chunk.stat().st_mtime_ns
    again = run_goodness(dataclasses.replace(job, toys=200), tmp_path)
    assert chunk.stat().st_mtime_ns == before
    assert len(again.results) == 200
    np.testing.assert_array_equal(again.tests[:60], first.tests)
    with pytest.raises(NuebarError, match="seed"):
        run_goodness(dataclasses.replace(job, seed=4), tmp_path)


def test_failed_toys_are_counted(job, outcome, monkeypatch):
    status = outcome.results.status.copy()
    status[:20] = 2
    results = dataclasses.replace(outcome.results, status=status)
    from nuebar.fit.goodness import judged
    from nuebar.jobs.fit_config import compiled

    many = compiled(job_module._config(job)["fit"])
    g = judged(many, outcome.best, outcome.tests[0], outcome.goodness.residuals, results, outcome.tests)
    assert (len(g.toys), g.n_toys, g.failures) == (40, 60, {"not converged": 20})
    bad = dataclasses.replace(outcome, goodness=g, results=results)
    assert not bad.valid
    assert "20 toys could not be fitted" in goodness_report(bad)
    assert "NOT VALID" in goodness_report(bad)


def test_the_command(job, tmp_path, capsys):
    code = fit_goodness(
        model=ModelOptions(experiment=job.fit.experiment), data=job.fit.data, toys=20, work=WorkOptions(jobs=1)
    )
    assert code == 0
    assert "p-value" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"toys": 3}, "--toys"), ({"fit": FitJob(asimov=True)}, "expected data")],
)
def test_wrong_options_are_refused(job, changes, message):
    with pytest.raises(NuebarError, match=message):
        run_goodness(dataclasses.replace(job, **changes))
