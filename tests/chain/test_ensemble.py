"""Is the chain calibrated: many seeds by the fast path, and what happens when a stage is broken on purpose."""

import dataclasses

import numpy as np
import pytest

from nuebar.chain.ensemble import BREAKS, Ensemble, FastRuns, judged, outcome_row
from nuebar.chain.run_file import load_run_file
from nuebar.chain.runner import ChainJob, run_chain
from nuebar.config import load_experiment
from nuebar.errors import NuebarError
from nuebar.parameters import OSCILLATION

SEEDS = 40
# A month in the numbers, an hour in the simulation: the fast path takes only efficiencies and shapes from it.
SMALL = {
    "simulate.days": 0.1,
    "simulate.cascades": 5000,
    "simulate.calibration_events": 1000,
    "simulate.calibration_cascades": 5000,
    "simulate.monte_carlo_ibd": 200_000,
    "simulate.monte_carlo_backgrounds": 5000,
    "select.explained": 0,
    "tune.method": "minuit",
    "tune.replicas": 0,
    "tune.coverage": 0,
    "predict.reference_pairs": 0,
    "fit.contour": [],
}
LIVE_DAYS, ACCIDENTALS = 27.45, 46.0


def rows_like(pulls, names):
    """Rows of a study with given pulls."""
    errors = dict.fromkeys(names, 0.1)
    truth = {n: 0.5 for n in names}
    return [
        {
            "seed": k,
            "valid": bool(np.all(np.isfinite(row))),
            "values": {n: 0.5 + 0.1 * p for n, p in zip(names, row, strict=True)},
            "errors": errors,
            "priors": {names[1]: 0.1},
            "covariance": (0.01 * np.eye(len(names))).tolist(),
            "truth": truth,
            "roots": {},
        }
        for k, row in enumerate(pulls)
    ]


NAMES = (*OSCILLATION, "kB_g_cm2_GeV", "fC", "light_yield_per_MeV")


def test_verdict_of_normal_pulls_and_of_shifted_ones():
    pulls = np.random.default_rng(3).normal(size=(100, len(NAMES)))
    experiment = load_experiment("juno")
    good = judged(rows_like(pulls, NAMES), experiment)
    assert good.consistent, good.worst
    assert good.prior_dominated == (NAMES[1],)
    shifted = pulls + 0.8 * np.eye(len(NAMES))[2]
    bad = judged(rows_like(shifted, NAMES), experiment)
    assert not bad.consistent
    assert "dm2_21_eV2" in bad.worst or "together" in bad.worst


def test_a_root_replaces_a_pull():
    pulls = np.random.default_rng(4).normal(size=(100, len(NAMES)))
    rows = rows_like(pulls, NAMES)
    rows[0]["values"]["dm2_31_eV2"] += 10.0
    assert not judged(rows, load_experiment("juno")).consistent
    rows[0]["roots"] = {"dm2_31_eV2": 0.3}
    verdict = judged(rows, load_experiment("juno"))
    assert verdict.consistent, verdict.worst
    assert verdict.joint.dof == len(NAMES) - 1


@pytest.mark.parametrize(("change", "said"), [({"broken": "all"}, "expected one of"), ({"seeds": 0}, "at least one")])
def test_a_wrong_study_is_refused(tmp_path, change, said):
    with pytest.raises(NuebarError, match=said):
        Ensemble(load_run_file(), tmp_path, **change)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    home = tmp_path_factory.mktemp("base") / "run"
    run = load_run_file(None, SMALL)
    run_chain(ChainJob(run, until="select"), home)
    month = load_run_file(None, {**SMALL, "simulate.calibration_events": 10_000})
    built = FastRuns.build(month, home, cascades=400_000)
    edges = built.sample.edges_MeV
    low = (edges[:-1] < 2.8).astype(float)  # where natural radioactivity ends
    sample = dataclasses.replace(built.sample, live_days=LIVE_DAYS, accidentals=ACCIDENTALS * low / low.sum())
    return dataclasses.replace(built, sample=sample)


@pytest.mark.slow
@pytest.mark.parametrize("broken", BREAKS)
def test_the_chain_is_calibrated_and_a_broken_stage_is_noticed(runs, broken):
    rows = []
    for seed in range(2000, 2000 + SEEDS):
        rows.append(outcome_row(*runs.one(seed, broken), seed))
    verdict = judged(rows, runs.experiment)
    assert verdict.consistent == (broken == "none"), (broken, verdict.p_value, verdict.worst)


@pytest.mark.slow
def test_a_seed_is_a_seed(runs):
    one, two = (runs.one(77)[0] for _ in range(2))
    assert one.values() == two.values()
    assert runs.one(78)[0].values() != one.values()
