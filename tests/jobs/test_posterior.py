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

EXPERIMENT = """
format = 1
name = "toy"
title = "one core"
[target]
free_protons = 1.4e33
efficiency = 0.8
[exposure]
days = 500.0
[reactor]
duty_cycle = 0.9
[reactor.fission_fractions]
U235 = 0.58
U238 = 0.07
Pu239 = 0.30
Pu241 = 0.05
[reactor.energy_per_fission_MeV]
U235 = 202.36
U238 = 205.99
Pu239 = 211.12
Pu241 = 214.26
[[reactor.cores]]
name = "A"
power_GW = 20.0
baseline_km = 52.5
[response]
nonlinearity = "none"
resolution = [0.03, 0.0, 0.0]
[binning]
segments = [[1.0, 8.0, 28]]
fine_width_MeV = 0.05
[oscillation]
sin2_th12 = { value = 0.307, bounds = [0.1, 0.6] }
sin2_th13 = { value = 0.0218, sigma = 0.0006, bounds = [0.0, 0.2] }
dm2_21_eV2 = { value = 7.53e-5, bounds = [4.83e-5, 10.23e-5] }
dm2_31_eV2 = { value = 2.5283e-3, sigma = 2e-5, bounds = [2.0e-3, 3.0e-3] }
[matter]
density_g_cm3 = 2.45
[systematics.signal]
flux = 0.02
[fit]
statistic = "cnp"
"""
FILES = {"posterior.json", "posterior.csv", "samples.safetensors", "posterior.png"}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    path = tmp_path_factory.mktemp("posterior") / "toy.toml"
    path.write_text(EXPERIMENT, encoding="utf-8")
    return PosteriorJob(fit=FitJob(experiment=str(path), asimov=True), samples=1200, seed=3)


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
