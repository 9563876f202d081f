"""``nuebar fit posterior`` as a job: files, the same seed, honest words, options that are refused."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from nuebar.commands_posterior import fit_posterior
from nuebar.errors import NuebarError
from nuebar.io.arrays import load_arrays
from nuebar.jobs.fit import FitJob
from nuebar.jobs.posterior import PosteriorJob, posterior_report, run_posterior, write_posterior

FILES = {"posterior.json", "posterior.csv", "samples.safetensors", "posterior.png"}


@pytest.fixture(scope="module")
def job(tmp_path_factory, write_experiment):
    path = write_experiment(tmp_path_factory.mktemp("posterior"), days=500, bins=28, bounded=True)
    return PosteriorJob(fit=FitJob(experiment=path, asimov=True), samples=1200, seed=3)


@pytest.fixture(scope="module")
def outcome(job):
    return run_posterior(job)


def test_files_and_numbers(outcome, tmp_path):
    assert outcome.valid, outcome.draws.reason
    paths = write_posterior(outcome, tmp_path)
    assert {p.name for p in paths} == FILES
    record = json.loads((tmp_path / "posterior.json").read_text(encoding="utf-8"))
    assert (record["format"], record["kind"], record["valid"], record["seed"]) == (1, "posterior", True, 3)
    row = record["parameters"]["sin2_th12"]
    assert row["median"] == pytest.approx(row["fit"]["value"], abs=0.2 * row["fit"]["error"])
    assert row["quantiles"]["0.15865"] < row["median"] < row["quantiles"]["0.84135"]
    ((low, high),) = row["highest_density"]["68"]
    assert low < row["median"] < high
    assert np.allclose(np.diag(record["correlation"]), 1.0)
    moved = record["sensitivity"]["prior flat in angles and ln dm2"]["shift_of_mean_in_sigma"]
    assert abs(moved["sin2_th12"]) < 0.1
    with (tmp_path / "posterior.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [r["parameter"] for r in rows] == record["order"]
    arrays, told = load_arrays(tmp_path / "samples.safetensors")
    assert told["names"] == record["order"]
    assert arrays["values"].shape == (1200, len(record["order"]))
    assert arrays["values"].mean(axis=0)[0] == pytest.approx(row["mean"])


def test_the_same_seed_gives_the_same_bytes(job, outcome, tmp_path):
    for name, found in (("a", outcome), ("b", run_posterior(job))):
        write_posterior(found, tmp_path / name, pictures=False)
    a, b = ((tmp_path / n / "samples.safetensors").read_bytes() for n in "ab")
    assert a == b
    assert not (tmp_path / "a" / "posterior.png").exists()


def test_words(outcome):
    text = posterior_report(outcome)
    assert "sin2_th12" in text
    assert "NOT VALID" not in text
    bad = dataclasses.replace(outcome, draws=dataclasses.replace(outcome.draws, valid=False, reason="R-hat is 3"))
    assert "NOT VALID: R-hat is 3" in posterior_report(bad)


def test_the_command_says_3_when_draws_do_not_suffice(job, capsys):
    from nuebar.commands_options import ModelOptions

    code = fit_posterior(model=ModelOptions(experiment=job.fit.experiment), samples=160, seed=1)
    assert code == 3
    assert "NOT VALID" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"samples": 10}, "--samples"), ({"chains": 1}, "--samples"), ({"flat": ("norm_flux",)}, "--flat")],
)
def test_wrong_options_are_refused(job, changes, message):
    with pytest.raises(NuebarError, match=message):
        run_posterior(dataclasses.replace(job, **changes))
