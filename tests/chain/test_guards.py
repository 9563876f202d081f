"""What a run says when its parts do not belong together: another detector, another binning, other trainings."""

import dataclasses

import numpy as np
import pytest

from nuebar.chain.fitting import _foreign
from nuebar.chain.retrain import _same_sizes
from nuebar.chain.run_file import load_run_file
from nuebar.chain.selection import SAMPLE, apply_job, run_selection
from nuebar.config import load_experiment, override, show
from nuebar.errors import NuebarError
from nuebar.io.histograms import Histogram


def own_detector(folder):
    """JUNO with a smaller fiducial volume, as a file of the user."""
    changed = override(load_experiment("juno"), {"detector.fiducial_radius_m": 15.0})
    (folder / "mine.toml").write_text(show(changed), encoding="utf-8")
    (folder / "run.toml").write_text('experiment = "mine.toml"\n', encoding="utf-8")
    return load_run_file(folder / "run.toml")


def test_the_fiducial_volume_is_that_of_the_detector(tmp_path):
    assert apply_job(load_run_file(), "stream").fiducial_m == load_experiment("juno").detector.fiducial_radius_m
    assert apply_job(own_detector(tmp_path), "stream").fiducial_m == 15.0


def test_shipped_models_with_another_detector_are_told(tmp_path):
    run = own_detector(tmp_path)
    assert _foreign(load_run_file(), load_experiment("juno")) == []
    (told,) = _foreign(run, load_experiment(run.experiment))
    for key in ("select.classifier = network", "tune.density = spline", "predict.predictor = surrogate"):
        assert key in told
    own = dataclasses.replace(
        run,
        select=dataclasses.replace(run.select, classifier="cuts"),
        tune=dataclasses.replace(run.tune, density="/models/density"),
        predict=dataclasses.replace(run.predict, predictor="/models/surrogate"),
    )
    assert _foreign(own, load_experiment(run.experiment)) == []


def test_a_sample_with_other_bins_is_refused_at_once(tmp_path):
    sample = tmp_path / "sample"
    sample.mkdir()
    for name in SAMPLE:
        (sample / name).write_text("{}")
    Histogram(np.linspace(0.8, 8.8, 21), np.ones(20)).save(sample / "prompt.json")
    run = load_run_file(None, {"data.sample": str(sample), "data.response": str(sample / "p.json")})
    (tmp_path / "select").mkdir()
    with pytest.raises(NuebarError, match=r"expected the bins of the run file, 80 .*, got 20"):
        run_selection(run, tmp_path, tmp_path / "select")
    assert list((tmp_path / "select").iterdir()) == []


def test_trainings_of_other_sizes_are_refused(tmp_path):
    _same_sizes(load_run_file(), tmp_path / "train")
    _same_sizes(load_run_file(), tmp_path / "train")
    with pytest.raises(NuebarError, match=r"full\.surrogate_pairs: 10000000 -> 1000"):
        _same_sizes(load_run_file(None, {"full.surrogate_pairs": 1000}), tmp_path / "train")
