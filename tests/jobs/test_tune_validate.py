"""Validation as a job: what is simulated once is used for every density."""

import numpy as np
import pytest

from nuebar.cli import main
from nuebar.config import load_experiment
from nuebar.io.files import read_json
from nuebar.jobs.tune_validate import ValidateJob, run_validate, validation_report
from nuebar.simulate.calibration import load_plan
from nuebar.simulate.pool import CascadePool
from nuebar.tune.density import precise
from nuebar.tune.simulated import SimulatedSources
from nuebar.tune.store import load_density
from nuebar.tune.validate import asimov_rows

PLAN = """\
format = 1
sources = ["Cs137", "Co60"]
pe_to_observable = 1.07e-3
bins = [0.4, 16.4, 800]

[sets.testing-1]
role = "testing"
kB_g_cm2_GeV = [11.0, 16.0, 2]
fC = [0.5, 0.5, 1]
light_yield_per_MeV = [10000.0, 10000.0, 1]
events = [500]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("validate")
    plan = folder / "plan.toml"
    plan.write_text(PLAN, encoding="utf-8")
    words = ("simulate", "calibration", "--plan", plan, "--set", "testing-1", "--cascades", 4000, "--jobs", 1)
    with pytest.raises(SystemExit) as ended:
        main([str(w) for w in (*words, "--out", folder / "sets")])
    assert ended.value.code == 0
    return folder / "sets", plan


@pytest.mark.slow
def test_expected_spectra_are_simulated_once_for_all_densities(data, tmp_path):
    folder, plan = data
    job = ValidateJob(densities=("spline", "planar"), studies=("asimov",), data=str(folder), plan=str(plan), points=2)
    record = run_validate(job, tmp_path)["asimov"]
    assert set(record) == {"spline", "planar"}
    assert record["spline"]["truth"] == [[11.0, 0.5, 10000.0], [16.0, 0.5, 10000.0]]  # what the biases belong to
    assert len(list((tmp_path / "expected").glob("chunk-*"))) == 1

    chosen = load_plan(str(plan))
    pools = {
        name: CascadePool.load(folder / "pools-testing" / f"chunk-{i:05d}.safetensors")
        for i, name in enumerate(chosen.sources)
    }
    sources = SimulatedSources.build(load_experiment("juno"), pools, plan=chosen)
    points = [[11.0, 0.5, 10000.0], [16.0, 0.5, 10000.0]]
    direct = asimov_rows(precise(load_density("spline")), sources, points)
    # Another process may have another number of threads, and adds in another order.
    np.testing.assert_allclose(record["spline"]["bias_sigma"], (direct.best - direct.truth) / direct.sigma, rtol=1e-8)
    made = (tmp_path / "expected" / "chunk-00000.safetensors").stat().st_mtime_ns
    run_validate(job, tmp_path)
    assert (tmp_path / "expected" / "chunk-00000.safetensors").stat().st_mtime_ns == made
    assert read_json(tmp_path / "expected" / "stage.json")["chunks"] == 1


def test_an_example_is_told_whatever_else_its_record_has():
    """Bug: seconds beside the two likelihoods ended the report with a traceback, after all the work."""
    method = {"method": "minuit", "best": [12.0, 0.5, 9900.0], "errors": [0.2, 0.03, 36.0], "seconds": 0.25}
    record = {"format": 1, "binned": {"methods": [method]}, "seconds_in_all": 1.0}
    text = validation_report({"example": {"spline": record}})
    assert "binned, minuit: kB_g_cm2_GeV 12 ± 0.2, fC 0.5 ± 0.03" in text
