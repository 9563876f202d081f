"""From files to a trained classifier: nothing is lost or doubled, a kill changes nothing, and it learns."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.io.events import ColumnMap
from nuebar.io.files import read_json, write_json
from nuebar.select import matrices as module
from nuebar.select import train as train_module
from nuebar.select.features import features_of
from nuebar.select.matrices import ACCIDENTALS, IBD, Split, open_matrices, prepare, split_of
from nuebar.select.near import NearPairs
from nuebar.select.network import NetworkClassifier, new_network
from nuebar.select.recipes import RECIPES, Recipe, optimiser_of, recipe_from
from nuebar.select.store import (
    classifier_folder,
    describe_classifier,
    describe_training,
    load_classifier,
    save_classifier,
)
from nuebar.select.train import PairBatches, cross_entropy, held_out, metrics_of, train_network, trainable
from nuebar.training import Training

SMALL = Recipe(hidden=(24, 24), inputs="shaped", near=0.5, epochs=5, batch=512, learning_rate=5e-3, validations=6)


@pytest.fixture(scope="module")
def trained(matrices):
    return train_network(SMALL, matrices)


# ---------------------------------------------------------------- preparation


def test_matrices_hold_what_the_files_hold(matrices, pair_files):
    from nuebar.io.events import read_events
    from nuebar.select.features import PAIR_COLUMNS

    for rows, folder in zip((matrices.ibd, matrices.accidentals), pair_files, strict=True):
        pairs = read_events(folder, PAIR_COLUMNS)
        good = (pairs["dt_ns"] <= 2e6) & (pairs["prompt_e_rec_MeV"] >= 0.7) & (pairs["delayed_e_rec_MeV"] >= 0.7)
        np.testing.assert_array_equal(rows, features_of({k: v[good] for k, v in pairs.items()}))
    assert isinstance(matrices.ibd, np.memmap)
    assert not matrices.ibd.flags.writeable


def test_window_and_threshold(pair_files, tmp_path):
    found = prepare(tmp_path, *pair_files, window_ms=0.5, threshold_MeV=1.5)
    assert found.window_us == 500
    assert found.accidentals[:, 3].max() <= 500
    assert found.accidentals[:, 4:6].min() >= 1.5
    assert found.about[ACCIDENTALS]["read"] == 12_000 > 8 * len(found.accidentals)


def test_a_killed_preparation_continues(pair_files, tmp_path, monkeypatch, matrices):
    """It dies in the second file; the second call reads that one only, and gives the same bytes."""
    real, seen = module._Class.features, []

    def dying(self, path):
        seen.append(path.name)
        for k, item in enumerate(real(self, path)):
            yield item
            if len(seen) == 2 and k == 0:
                raise KeyboardInterrupt

    monkeypatch.setattr(module._Class, "features", dying)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, *pair_files)
    assert not (tmp_path / "ibd.npy").exists()
    found = prepare(tmp_path, *pair_files)
    assert seen == ["chunk-00000.parquet", "chunk-00001.parquet", "chunk-00001.parquet", *sorted(seen[:2])]
    np.testing.assert_array_equal(found.ibd, matrices.ibd)
    assert found.digest == prepare(tmp_path, *pair_files).digest
    assert len(seen) == 5
    with pytest.raises(NuebarError, match="other files or settings"):
        prepare(tmp_path, *pair_files, window_ms=1.0)


def test_one_file_with_labels(pair_maker, tmp_path):
    rng = np.random.default_rng(3)
    both = [pair_maker.ibd(rng, 50), pair_maker.accidentals(rng, 70)]
    columns = {k: np.concatenate([p[k] for p in both]) for k in both[0]}
    label = np.repeat([1.0, 0.0], (50, 70)).astype(np.float32)
    path = pair_maker.write(tmp_path / "a.parquet", columns, {"is_signal": label})
    found = prepare(tmp_path / "m", path, label="is_signal")
    np.testing.assert_array_equal(found.ibd, features_of(both[0]))
    np.testing.assert_array_equal(found.accidentals, features_of(both[1]))
    path = pair_maker.write(
        tmp_path / "b.parquet", columns, {"is_signal": np.where(label == 1, 2, 0).astype(np.float32)}
    )
    with pytest.raises(NuebarError, match=r"b\.parquet, row 0, column 'is_signal': expected 1 .* got 2"):
        prepare(tmp_path / "wrong", path, label="is_signal")
    assert not list((tmp_path / "wrong").glob("*.npy"))
    assert not (tmp_path / "wrong" / "matrices.json").exists()
    path = pair_maker.write(tmp_path / "c.parquet", columns, {"is_signal": np.ones(120, np.float32)})
    with pytest.raises(NuebarError, match="class accidentals: expected pairs"):
        prepare(tmp_path / "one", path, label="is_signal")


def test_a_users_columns(pair_maker, tmp_path):
    pairs = pair_maker.ibd(np.random.default_rng(1), 20)
    other = {"prompt_E" if k == "prompt_e_rec_MeV" else k: v for k, v in pairs.items()}
    path = pair_maker.write(tmp_path / "u.parquet", other)
    with pytest.raises(NuebarError, match="prompt_e_rec_MeV"):
        prepare(tmp_path / "m", path, path)
    found = prepare(
        tmp_path / "m", path, [path], column_map=ColumnMap.from_mapping({"columns": {"prompt_e_rec_MeV": "prompt_E"}})
    )
    np.testing.assert_array_equal(found.ibd, features_of(pairs))


def test_altered_matrices_are_refused(pair_files, tmp_path):
    prepare(tmp_path, *pair_files)
    (tmp_path / "ibd.npy").write_bytes((tmp_path / "ibd.npy").read_bytes()[:-40])
    with pytest.raises(NuebarError, match=r"ibd\.npy"):
        open_matrices(tmp_path)


def test_seven_million_are_kept():
    split = split_of(ACCIDENTALS, 22_000_000)
    assert split.test == 7_000_000
    assert split.train + split.validation + split.test == 22_000_000
    assert split.validation == 500_000
    parts = [np.arange(1000)[split_of(IBD, 1000).rows(p)] for p in ("train", "validation", "test")]
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(1000))
    few = split_of(ACCIDENTALS, 22_000_000, train=100_000)
    assert few.train == 100_000
    assert few.rows("test").stop <= 22_000_000
    with pytest.raises(NuebarError):
        split_of(IBD, 2)


def test_fewer_training_pairs_leave_the_test_alone():
    """A smaller training keeps the same rows for the test."""
    rows = np.arange(10_000)
    whole, few = split_of(ACCIDENTALS, 10_000), split_of(ACCIDENTALS, 10_000, train=100)
    np.testing.assert_array_equal(rows[whole.rows("test")], rows[few.rows("test")])
    np.testing.assert_array_equal(rows[whole.rows("validation")], rows[few.rows("validation")])


# ---------------------------------------------------------------- minibatches and loss


def test_minibatches(matrices):
    near = NearPairs.of(np.array(matrices.accidentals), 2000.0)
    batches = [PairBatches(matrices.ibd, matrices.accidentals, 256, 5, near) for _ in range(2)]
    first = batches[0](7)
    for name, values in batches[1](7).items():
        np.testing.assert_array_equal(values, first[name])
    assert first["label"].sum() == 128
    assert first["features"].dtype == np.float32
    assert {len(v) for v in first.values()} == {256}
    plain = PairBatches(matrices.ibd, matrices.accidentals, 256, 5)(7)
    assert not plain["offset"].any()
    np.testing.assert_array_equal(plain["features"][:192], first["features"][:192])
    with pytest.raises(NuebarError, match="ibd"):
        PairBatches(matrices.ibd[:100], matrices.accidentals, 256, 5)


@pytest.mark.parametrize("pairs", [192, 6144])
def test_loss_in_blocks_is_the_loss(matrices, pairs):
    """Value and gradient are those of the plain formula."""
    near = NearPairs.of(np.array(matrices.accidentals), 2000.0)
    batch = {k: jnp.asarray(v) for k, v in PairBatches(matrices.ibd, matrices.accidentals, pairs, 1, near)(0).items()}
    network = new_network(1, np.array(matrices.accidentals), hidden=(8,))

    def plain(n):
        z = n.logits(batch["features"]) - batch["offset"]
        p = jax.nn.log_sigmoid(z) * batch["label"] + jax.nn.log_sigmoid(-z) * (1 - batch["label"])
        return -p.mean()

    value, slope = jax.value_and_grad(cross_entropy)(network, batch)
    expected, expected_slope = jax.value_and_grad(plain)(network)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for a, b in zip((*slope.weights, *slope.biases), (*expected_slope.weights, *expected_slope.biases), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


# ---------------------------------------------------------------- training


def test_it_learns(trained, matrices):
    data = held_out(matrices, trained.splits, "test")
    metrics = metrics_of(trained.network, data, (1e-1, 1e-2))
    assert metrics["efficiency"]["0.01"] > 0.97
    assert trained.metrics["cross_entropy"] == pytest.approx(trained.best, rel=1e-6)
    assert trained.history[-1].validation < 0.3 * trained.history[0].validation


def test_only_weights_are_trained(trained):
    flags = trainable(trained.network)
    assert all(flags.weights)
    assert all(flags.biases)
    assert not flags.shift
    assert not flags.scale


def test_close_pairs_leave_the_logit_alone(trained, matrices):
    """A network that has seen close pairs gives the odds against ordinary accidentals."""
    data = held_out(matrices, trained.splits, "test")
    s, n = trained.network.score(data.ibd), trained.network.score(data.accidentals)
    inside = lambda z: np.mean((z > -2) & (z < 2))  # noqa: E731
    assert abs(np.log(inside(s) / inside(n))) < 1.5
    assert np.mean(n < 0) > 0.95
    assert np.mean(s > 0) > 0.95


def test_a_killed_training_continues_with_the_same_bits(trained, matrices, tmp_path):
    checkpoint = tmp_path / "c.safetensors"

    def dying(number, value):
        if number == 3:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "Training", partial(Training, checkpoint_seconds=0.5))
        with pytest.raises(KeyboardInterrupt):
            train_network(SMALL, matrices, checkpoint=checkpoint, report=dying)
    again = train_network(SMALL, matrices, checkpoint=checkpoint)
    for a, b in zip(again.network.weights, trained.network.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [p.validation for p in again.history] == [p.validation for p in trained.history]
    with pytest.raises(NuebarError, match="another training"):
        train_network(replace(SMALL, learning_rate=1e-3), matrices, checkpoint=checkpoint)


def test_early_stopping_and_sizes(matrices):
    splits = {IBD: Split(1000, 400, 100), ACCIDENTALS: Split(1000, 400, 100)}
    done = train_network(
        replace(SMALL, near=0.0, epochs=200, learning_rate=0.05, patience=2, validations=100, batch=200),
        matrices,
        splits=splits,
    )
    assert done.reason == "patience"
    assert done.steps < 2000
    assert train_network(SMALL, matrices, max_steps=3).steps == 3


@pytest.mark.parametrize(
    "entries",
    [
        {"batch": 3},
        {"near": 1.5},
        {"schedule": "wave"},
        {"inputs": "cubic"},
        {"hidden": []},
        {"epochs": 0},
        {"unknown": 1},
    ],
)
def test_wrong_recipes(entries):
    with pytest.raises(NuebarError, match=r"recipe|network"):
        recipe_from(SMALL.told() | entries, "recipe.json")


def test_recipes_come_back():
    for recipe in RECIPES.values():
        assert recipe_from(recipe.told(), "here") == recipe
        assert recipe.hidden == (96, 240, 240)


# ---------------------------------------------------------------- store


def test_a_network_comes_back(trained, matrices, tmp_path):
    save_classifier(
        trained.network,
        tmp_path / "n",
        training=describe_training(trained, "nuebar select train"),
        metrics=trained.metrics,
    )
    again = load_classifier(tmp_path / "n")
    assert isinstance(again, NetworkClassifier)
    np.testing.assert_array_equal(
        again.score(np.array(matrices.ibd[:99])), trained.network.score(np.array(matrices.ibd[:99]))
    )
    told = describe_classifier(tmp_path / "n")
    assert told["training"]["rows"]["accidentals"]["test"] == round(12_000 * 7 / 22)
    assert told["training"]["window_ms"] == 2.0
    assert told["training"]["command"] == "nuebar select train"


@pytest.mark.parametrize(
    ("key", "value"), [("settings", {}), ("features", ["a"]), ("classifier", "oracle"), ("kind", "x")]
)
def test_altered_models_are_refused(trained, tmp_path, key, value):
    save_classifier(trained.network, tmp_path)
    told = read_json(tmp_path / "model.json")
    told.pop("digest")
    write_json(tmp_path / "model.json", told | {key: value})
    with pytest.raises(NuebarError):
        load_classifier(tmp_path)


def test_words(tmp_path, monkeypatch):
    with pytest.raises(NuebarError, match="nowhere"):
        classifier_folder(tmp_path / "nowhere")
    from nuebar.select import store

    monkeypatch.setattr(store, "MODELS", tmp_path)
    with pytest.raises(NuebarError, match="not in this installation"):
        classifier_folder("network")


def test_a_short_training_ends_after_its_warm_up():
    """Bug: a warm-up longer than the training kept the learning rate near zero, and nobody said so."""
    steps = 10
    optimiser = optimiser_of(Recipe(warm_up=500, schedule="constant", learning_rate=0.1), steps)
    weights = {"w": jnp.ones(1)}
    state = optimiser.init(weights)
    for _ in range(steps):
        updates, state = optimiser.update({"w": jnp.ones(1)}, state, weights)
    assert float(updates["w"][0]) == pytest.approx(-0.1, rel=1e-3)
