"""``nuebar fit feldman-cousins`` as a job: chunks, workers, files, pictures, and words that are refused."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from nuebar.commands_feldman_cousins import fit_feldman_cousins
from nuebar.commands_options import ModelOptions, WorkOptions
from nuebar.errors import NuebarError
from nuebar.fit.feldman_cousins import PointToys, Region
from nuebar.io.arrays import load_arrays
from nuebar.jobs import feldman_cousins as job_module
from nuebar.jobs.feldman_cousins import (
    FeldmanCousinsJob,
    feldman_cousins_report,
    run_feldman_cousins,
    write_feldman_cousins,
)
from nuebar.jobs.fit import FitJob
from nuebar.report.feldman_cousins_plots import region_1d, region_2d
from nuebar.run import in_process
from nuebar.run.runner import UnfinishedError

SMALL = {"toys": 40, "batch": 20, "levels": (0.6827, 0.90), "seed": 4}


@pytest.fixture
def experiment(tmp_path, write_experiment):
    return write_experiment(tmp_path, days=1000, bins=70)


def job(experiment, names=("sin2_th12",), **changes):
    fit = FitJob(experiment=experiment, asimov=True, fix=("sin2_th13", "dm2_31_eV2"))
    return FeldmanCousinsJob(parameters=names, fit=fit, **{"points": 7, **SMALL, **changes})


@pytest.fixture
def here(monkeypatch):
    """Chunks in this process, where programs are compiled already."""
    plain = job_module.run_stage
    monkeypatch.setattr(job_module, "run_stage", lambda *a, **k: plain(*a, **{**k, "jobs": in_process}))


def chunks(folder):
    return [load_arrays(p)[0] for p in sorted((folder / "points").glob("*.safetensors"))]


def test_an_interval_and_its_files(experiment, tmp_path):
    outcome = run_feldman_cousins(job(experiment))
    assert outcome.valid, outcome.reason
    assert outcome.failed == 0
    paths = write_feldman_cousins(outcome, tmp_path / "out")
    assert [p.name for p in paths] == ["feldman_cousins.json", "feldman_cousins.csv", "feldman_cousins.png"]
    record = json.loads(paths[0].read_text(encoding="utf-8"))
    assert record["kind"] == "feldman-cousins"
    assert record["seed"] == 4
    assert record["best"]["sin2_th12"] == pytest.approx(0.307, abs=1e-5)
    small, large = (row["segments"][0] for row in record["levels"])
    assert large["low"] < small["low"] < 0.307 < small["high"] < large["high"]
    wilks = record["levels"][0]["wilks_segments"][0]
    assert small["high"] - small["low"] == pytest.approx(wilks["high"] - wilks["low"], rel=0.4)
    rows = list(csv.DictReader(paths[1].read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 7
    assert sum(int(r["toys"]) for r in rows) == record["toys"]
    assert float(rows[3]["delta_chi2"]) == pytest.approx(0.0, abs=1e-6)
    assert "Feldman-Cousins" in feldman_cousins_report(outcome)


def test_chunks_give_the_same_and_continue(experiment, tmp_path, here):
    wanted = job(experiment)
    whole = run_feldman_cousins(wanted)
    with pytest.raises(UnfinishedError):
        run_feldman_cousins(wanted, tmp_path / "out", max_seconds=1e-9)
    outcome = run_feldman_cousins(wanted, tmp_path / "out")
    for a, b in zip(whole.region.points, outcome.region.points, strict=True):
        np.testing.assert_array_equal(a.delta_chi2, b.delta_chi2)
        assert a.observed == b.observed
    assert len(chunks(tmp_path / "out")) == 7
    with pytest.raises(NuebarError, match="another one"):
        run_feldman_cousins(dataclasses.replace(wanted, seed=5), tmp_path / "out")
    other = run_feldman_cousins(dataclasses.replace(wanted, seed=5), tmp_path / "out", force=True)
    assert np.abs(other.region.points[3].delta_chi2 - whole.region.points[3].delta_chi2).max() > 0.1


def test_two_workers_give_what_this_process_gives(experiment, tmp_path):
    wanted = job(experiment, points=4, toys=20, adaptive=False)
    here, there = run_feldman_cousins(wanted), run_feldman_cousins(wanted, tmp_path / "out", jobs=2)
    for a, b in zip(here.region.points, there.region.points, strict=True):
        np.testing.assert_allclose(a.delta_chi2, b.delta_chi2, atol=1e-6)


def test_a_contour_of_measured_counts(experiment, tmp_path, here):
    """A user's spectrum; points far outside stop after one batch."""
    from nuebar.jobs.fit_config import build_fit

    wanted = job(experiment, ("sin2_th12", "dm2_21_eV2"), points=5)
    fit = build_fit(wanted.fit)
    counts = np.random.default_rng(1).poisson(fit.counts)
    edges = np.array(fit.model.edges_MeV)
    text = "\n".join(f"{a:.10g},{b:.10g},{n}" for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True))
    (tmp_path / "counts.csv").write_text("low_MeV,high_MeV,counts\n" + text + "\n", encoding="utf-8")
    wanted = dataclasses.replace(
        wanted, fit=dataclasses.replace(wanted.fit, asimov=False, data=str(tmp_path / "counts.csv"))
    )
    outcome = run_feldman_cousins(wanted, tmp_path / "out")
    region = outcome.region
    assert outcome.valid, outcome.reason
    assert not outcome.simulated
    assert region.shape == (5, 5)
    assert region.observed.min() >= 0
    best = np.unravel_index(region.observed.argmin(), region.shape)
    assert region.accepted(0.9)[best]
    assert np.all(region.accepted(0.9)[region.accepted(0.6827)])
    assert not region.accepted(0.9)[0, 0] or not region.accepted(0.9)[0, -1]
    assert len(region.points[0].delta_chi2) == 20
    names = [p.name for p in write_feldman_cousins(outcome, tmp_path / "out")]
    assert names[-2:] == ["feldman_cousins.png", "critical_values.png"]
    assert "points in" in feldman_cousins_report(outcome)


def test_a_picture_has_a_panel_for_each_ordering():
    axis = np.array([-2.7e-3, -2.6e-3, -2.5e-3, -2.4e-3, 2.4e-3, 2.5e-3, 2.6e-3, 2.7e-3])
    heights = [9.0, 2.0, 1.0, 4.0, 4.0, 0.0, 1.0, 9.0]
    toys = np.random.default_rng(1).chisquare(1, 100)
    points = tuple(PointToys((x,), y, toys) for x, y in zip(axis, heights, strict=True))
    region = Region(("dm2_31_eV2",), (axis,), points, (2.5e-3,), (0.6827, 0.9))
    assert len(region.segments(0.9)) == 2
    assert len(region_1d(region).axes) == 4
    with pytest.raises(NuebarError, match="two parameters"):
        region_2d(region)


def with_toys(toys, n=25):
    """A parabola on a grid, χ² of one degree of freedom as toys, and the outcome around it."""
    axis = np.linspace(-3.5, 3.5, n)
    drawn = np.random.default_rng(1).chisquare(1, toys)
    points = tuple(PointToys((x,), x * x, drawn) for x in axis)
    region = Region(("x",), (axis,), points, (0.0,))
    wanted = FeldmanCousinsJob(("x",), toys=toys)
    return job_module.FeldmanCousinsOutcome(
        wanted, region, {"x": 0.0}, 0.0, True, "", 0, 0.0, 0.0, True, "pearson", "toy", toys * n, 0, 1.0
    )


@pytest.mark.parametrize(
    ("toys", "resolved", "words"),
    [
        (30, (False, False, False, False), "! 68.27 %: 30 toys a point do not resolve it; take 50 or more (--toys)"),
        (60, (True, False, False, False), "! 99.73 %: 60 toys a point do not resolve it; take 5000 or more (--toys)"),
        (2000, (True, True, True, False), "! 99.73 %: 2000 toys a point do not resolve it; take 5000 or more (--toys)"),
        (5000, (True, True, True, True), None),
    ],
)
def test_levels_that_toys_do_not_resolve_are_marked(toys, resolved, words):
    """Ten toys beyond the critical value resolve it; ours is the interval that a table of 60 toys would understate."""
    outcome = with_toys(toys)
    text = feldman_cousins_report(outcome)
    assert tuple(row["resolved"] for row in job_module._record(outcome)["levels"]) == resolved
    assert text.count("%!") == resolved.count(False)
    assert words in text if words else "resolve" not in text


def test_points_beside_the_border_that_stopped_early_are_told():
    """More toys would not help there: the rule of adaptive toys has decided."""
    outcome = with_toys(60)
    outcome = dataclasses.replace(outcome, job=dataclasses.replace(outcome.job, toys=5000))
    assert "60 toys a point do not resolve it; take a finer grid (--points) or --all-toys" in feldman_cousins_report(
        outcome
    )


def test_the_command(experiment, capsys, tmp_path):
    code = fit_feldman_cousins(
        parameters=("sin2_th12",),
        model=ModelOptions(experiment=experiment, fix=("sin2_th13", "dm2_31_eV2")),
        asimov=True,
        scan=("sin2_th12=0.300:0.314:5",),
        toys=20,
        levels=(0.6827,),
        work=WorkOptions(jobs=1),
    )
    assert code == 0
    assert "68.27%" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"names": ("sin2_th13",)}, "fixed"),
        ({"names": ()}, "one parameter or two"),
        ({"names": ("theta",)}, "theta"),
        ({"axes": {"dm2_21_eV2": np.linspace(7e-5, 8e-5, 5)}}, "expected a grid of sin2_th12"),
        ({"axes": {"sin2_th12": np.linspace(-0.1, 0.4, 5)}}, "between its limits"),
        ({"points": 2}, "at least 4"),
        ({"toys": 0}, "at least two"),
    ],
)
def test_what_is_refused(experiment, changes, words):
    with pytest.raises(NuebarError, match=words):
        run_feldman_cousins(job(experiment, **changes))
