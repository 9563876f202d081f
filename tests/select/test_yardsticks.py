"""Likelihood ratio and trees: on a Monte Carlo whose answer is known, stored and read again; and the search."""

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.io.files import read_json
from nuebar.select.classifier import Classifier, score_in_chunks
from nuebar.select.features import features_of
from nuebar.select.matrices import prepare, split_of
from nuebar.select.near import NearPairs, Singles, mixed
from nuebar.select.ratio import _AXES, _capture_time, _interpolated, _shared, fit_ratio
from nuebar.select.recipes import Recipe
from nuebar.select.search import RANGES, search
from nuebar.select.store import load_classifier, save_classifier
from nuebar.select.train import held_out, metrics_of


@pytest.fixture(scope="module")
def many(pair_maker, tmp_path_factory):
    """200 000 pairs of each class."""
    folder = tmp_path_factory.mktemp("many")
    return prepare(folder / "m", *pair_maker.files(folder, 200_000, seed=5, parts=1))


@pytest.fixture(scope="module")
def ratio(many):
    return fit_ratio(many)


@pytest.fixture(scope="module")
def fresh(pair_maker):
    """Other pairs of the same kind."""
    rng = np.random.default_rng(77)
    good = [pair_maker.ibd(rng, 60_000), pair_maker.accidentals(rng, 60_000)]
    return [features_of(p)[(p["delayed_e_rec_MeV"] >= 0.7) & (p["prompt_e_rec_MeV"] >= 0.7)] for p in good]


# ---------------------------------------------------------------- likelihood ratio


def test_shares_are_whole():
    """What is shared between nodes is all there, and a plane is interpolated exactly."""
    rng = np.random.default_rng(1)
    axes = _AXES["delayed"]
    at = [a.low + (a.high - a.low) * rng.random(500) for a in axes]
    assert _shared(axes, at).sum() == pytest.approx(500)
    nodes = np.meshgrid(*[np.linspace(a.low, a.high, a.nodes) for a in axes], indexing="ij")
    plane = sum((k + 1) * x for k, x in enumerate(nodes))
    np.testing.assert_allclose(_interpolated(plane, axes, at), sum((k + 1) * x for k, x in enumerate(at)))


@pytest.mark.parametrize("tau", [50.0, 220.0, 1500.0])
def test_capture_time(tau):
    """The mean of a cut exponential gives its τ back."""
    mean = tau - 2000 / np.expm1(2000 / tau)
    assert _capture_time(mean, 2000.0) == pytest.approx(tau, rel=1e-3)


def test_capture_time_of_even_times():
    with pytest.raises(NuebarError, match="captures"):
        _capture_time(1000.0, 2000.0)


def log_truth(x):
    """The exact ratio in energies, time and distance deep inside the toy detector, but for a constant.

    There singles have an even density; the toy blurs each coordinate by 0.25 m.
    """
    e, t, dr = x[:, 4].astype(float), x[:, 3], x[:, 2].astype(float)
    prompt = 2 * np.log(e - 0.7) - (e - 0.7) + (e - 0.7) / 0.6
    delayed = -0.5 * ((x[:, 5] - 2.22) / 0.08) ** 2 + (x[:, 5] - 0.7) / 0.6
    return prompt + delayed - t / 220.0 - 0.5 * (dr / 0.25) ** 2


def test_ratio_is_the_true_one(ratio, fresh):
    """Up to a constant, and up to what 200 000 pairs can tell."""
    x = fresh[0]
    middle = (x[:, 0] < 12**3) & (x[:, 2] > 0.2) & (x[:, 2] < 0.7) & (np.abs(x[:, 5] - 2.22) < 0.14)
    middle &= (x[:, 4] > 1.2) & (x[:, 4] < 4.0)
    error = ratio.score(x[middle]) - log_truth(x[middle])
    assert middle.sum() > 1000
    assert error.std() < 0.35 < 0.25 * log_truth(x[middle]).std()
    assert ratio.tau_us == pytest.approx(220, rel=0.01)


def test_ratio_is_calibrated(ratio, many, fresh):
    """ln odds of the classes at a score are the score."""
    near = NearPairs.of(np.array(many.accidentals), many.window_us)
    pairs, log_ratio = mixed(near, fresh[1], Singles(fresh[1]), np.random.default_rng(8))
    signal, noise, weight = ratio.score(fresh[0]), ratio.score(pairs), np.exp(-log_ratio)
    compared = 0
    for low in (-2.0, 0.0, 2.0, 4.0, 6.0):
        a = (signal >= low) & (signal < low + 2)
        b = (noise >= low) & (noise < low + 2)
        if min(a.sum(), b.sum()) < 15:
            continue
        odds = np.log(a.mean() / (weight[b].sum() / b.size))
        error = np.sqrt(1 / a.sum() + np.sum(weight[b] ** 2) / np.sum(weight[b]) ** 2)
        assert abs(odds - 0.5 * (signal[a].mean() + np.average(noise[b], weights=weight[b]))) < 0.4 + 3 * error
        compared += 1
    assert compared >= 2


def test_ratio_obeys_the_contract(ratio, fresh, tmp_path):
    assert isinstance(ratio, Classifier)
    x = fresh[1][:5000]
    scores = ratio.score(x)
    np.testing.assert_array_equal(scores, score_in_chunks(ratio, x, chunk_rows=999))
    assert np.all(np.isfinite(scores))
    save_classifier(ratio, tmp_path)
    np.testing.assert_array_equal(load_classifier(tmp_path).score(x), scores)


def test_ratio_at_the_centre_and_far_out(ratio):
    x = np.zeros((2, 10), np.float32)
    x[1] = [18.9**3, 18.9**3, 37.8, 2000, 30, 30, 1, -1, 0, 0]
    assert np.all(np.isfinite(ratio.score(x)))


# ---------------------------------------------------------------- trees


def test_trees(many, ratio, fresh, tmp_path):
    """They come close to the ratio, never above what chance allows, and come back from disk."""
    pytest.importorskip("xgboost")
    from nuebar.select.trees import train_trees

    trees = train_trees(many, pairs=30_000, rounds=60, learning_rate=0.3)
    assert isinstance(trees, Classifier)
    again = train_trees(many, pairs=30_000, rounds=60, learning_rate=0.3)
    x = fresh[0][:3000]
    np.testing.assert_array_equal(trees.score(x), again.score(x))
    np.testing.assert_array_equal(trees.score(x), score_in_chunks(trees, x, chunk_rows=701))
    signal, noise = fresh
    cut = np.quantile(trees.score(noise), 0.999)
    best = np.quantile(ratio.score(noise), 0.999)
    kept, most = np.mean(trees.score(signal) > cut), np.mean(ratio.score(signal) > best)
    assert 0.9 < kept < most + 0.01
    save_classifier(trees, tmp_path)
    np.testing.assert_array_equal(load_classifier(tmp_path).score(x), trees.score(x))


def test_metrics_need_background(ratio, many):
    splits = {name: split_of(name, len(a)) for name, a in (("ibd", many.ibd), ("accidentals", many.accidentals))}
    found = metrics_of(ratio, held_out(many, splits, "test", pairs=5000), (1e-2, 1e-6))
    assert set(found["efficiency"]) == {"0.01"}  # 1e-6 of 5000 pairs is none


# ---------------------------------------------------------------- search


def test_search(matrices, tmp_path):
    pytest.importorskip("optuna")
    base = Recipe(hidden=(8,), near=0.5, batch=512, learning_rate=3e-3, floor=0.01)
    ranges = tuple(r for r in RANGES if r.name in ("learning_rate", "schedule"))
    options = {"pairs": 512 * 10, "base": base, "ranges": ranges, "seed": 3}
    search(matrices, tmp_path / "a", trials=2, **options)
    found = search(matrices, tmp_path / "a", trials=3, **options)
    assert found.best.hidden == (8,)
    assert [t.number for t in found.trials] == [0, 1, 2]
    assert found.trials[0].params["learning_rate"] == base.learning_rate
    assert found.value == min(t.value for t in found.trials if t.state == "complete")
    assert len(found.trials[0].values) == 10
    assert read_json(tmp_path / "a" / "best.json") == found.best.told()
    with pytest.raises(NuebarError, match="another"):
        search(matrices, tmp_path / "a", trials=3, **(options | {"seed": 4}))
