"""Training of densities: what is learned, what resumes, what is refused. The sets are small simulations."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.io.arrays import save_arrays
from nuebar.io.results import save_result
from nuebar.jobs.tune_train import TrainJob, chosen_recipe, run_train
from nuebar.tune.planar import PlanarSettings
from nuebar.tune.recipes import RECIPES, Recipe, optimiser_of, recipe_from
from nuebar.tune.spline import SplineSettings
from nuebar.tune.store import load_density
from nuebar.tune.tede import TedeSettings
from nuebar.tune.train import distances_of, load_sets, probabilities_of, train_density

SMALL = {
    "tede": Recipe(
        settings=TedeSettings(width=20, heads=5, layers=1, feed_forward=32), epochs=40, batch=8, warm_up=20,
        learning_rate=3e-3, period=40, validate_every=20,
    ),
    "planar": Recipe(
        settings=PlanarSettings(flows=20, units=10), epochs=60, batch=9, events=200, learning_rate=5e-3, period=60,
        validate_every=30,
    ),
    "spline": Recipe(
        settings=SplineSettings(intervals=24, units=8), epochs=40, batch=9, events=200, learning_rate=3e-3, period=40,
        validate_every=30,
    ),
}  # fmt: skip


def write_set(folder, points, events, seed, bins=(0.4, 6.4, 60), sources=("one", "two")):
    """A set as the simulation writes it: one Gaussian peak of each source, moved by the response."""
    random = np.random.default_rng(seed)
    unit = (points - [6, 0, 8000]) / [18, 1, 4000]
    mean = np.stack([1.5 * (1 + 0.3 * unit[:, 2] - 0.1 * unit[:, 0]), 3.5 * (1 + 0.3 * unit[:, 2] + 0.1 * unit[:, 1])])
    x = mean[:, :, None] + 0.15 * random.standard_normal((2, len(points), events))
    edges = np.linspace(bins[0], bins[1], bins[2] + 1)
    counts = np.empty((len(points), 2, bins[2] + 2), np.int32)
    for p in range(len(points)):
        for s in range(2):
            counts[p, s, 1:-1] = np.histogram(x[s, p], edges)[0]
            counts[p, s, 0], counts[p, s, -1] = (x[s, p] < edges[0]).sum(), (x[s, p] >= edges[-1]).sum()
    arrays = {
        "parameters": points,
        "data_set": np.arange(len(points)),
        "events": np.full(len(points), events),
        "first": np.zeros(len(points), int),
        "offsets": np.arange(len(points) + 1) * events,
        "counts": counts,
        "n_pe": (x.reshape(2, -1) / 1.07e-3).astype(np.float32),
    }
    about = {"name": folder.name, "sources": list(sources), "pe_to_observable": 1.07e-3, "bins": list(bins)}
    folder.mkdir(parents=True)
    save_arrays(folder / "chunk-00000.safetensors", arrays, {"format": 1, "kind": "calibration", **about})
    stage = {
        "function": "nuebar.jobs.calibration:calibration_chunk",
        "stage": folder.name,
        "suffix": ".safetensors",
        "chunks": 1,
    }
    save_result(folder / "stage.json", stage)
    return folder


def grid(n):
    axes = [np.linspace(low, high, n) for low, high in ((6, 24), (0, 1), (8000, 12000))]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("sets")
    validation = np.random.default_rng(5).uniform([8, 0.1, 8400], [22, 0.9, 11600], (8, 3))
    return write_set(place / "training", grid(3), 1000, 1), write_set(place / "validation-1", validation, 4000, 2)


# The quickest to compile stands for the others in the default suite.
KINDS = [pytest.param(kind, marks=pytest.mark.slow) if kind != "spline" else kind for kind in SMALL]


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_the_spectra(kind, folders):
    # So few points teach a histogram nothing of what lies between them.
    sets = load_sets(folders[0], () if kind == "tede" else (folders[1],), charges=kind != "tede")
    seen = []
    trained = train_density(SMALL[kind], sets, report=lambda step, value: seen.append((step, value)))
    table = sets.validation[0]
    d = distances_of(probabilities_of(trained.density, table.parameters), table)
    assert trained.best == pytest.approx(d[1].mean(), rel=1e-6)
    assert trained.best == min(value for _, value in seen)
    assert trained.best < 0.5 * seen[0][1] or trained.best < 0.03
    assert d[2].mean() < {"tede": 0.5, "planar": 0.15, "spline": 0.1}[kind]
    assert [step for step, _ in seen] == [p.step for p in trained.history]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_training_goes_on_to_the_same_bits(kind, folders, tmp_path):
    sets = load_sets(folders[0], (folders[1],), charges=kind != "tede")
    recipe = replace(SMALL[kind], epochs=12, validate_every=4, schedule="exponential", decay=0.9)

    whole = train_density(recipe, sets)
    path = tmp_path / "c.safetensors"
    for _ in range(2):  # a budget so small that it ends after a step; the second one is spent already
        part = train_density(recipe, sets, checkpoint=path, max_seconds=1e-6)
        assert part.reason == "budget"
        assert part.steps == 1
    with pytest.raises(NuebarError, match="another training"):
        train_density(replace(recipe, seed=2), sets, checkpoint=path)
    told = []
    again = train_density(recipe, sets, checkpoint=path, report=lambda step, value: told.append((step, value)))
    assert again.steps == whole.steps
    assert told == [(p.step, p.validation) for p in whole.history]  # steps count from the first beginning
    assert again.seconds > part.seconds
    for a, b in zip(jax.tree.leaves(whole.density), jax.tree.leaves(again.density), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.slow
def test_dropout_is_a_function_of_the_step(folders):
    sets = load_sets(folders[0], (folders[1],), charges=False)
    recipe = replace(SMALL["tede"], epochs=2, settings=replace(SMALL["tede"].settings, dropout=0.3))
    one, two = (train_density(recipe, sets) for _ in range(2))
    without = train_density(replace(recipe, settings=SMALL["tede"].settings), sets)
    assert one.history == two.history
    assert one.history != without.history


def test_the_job_writes_a_model_that_comes_back(folders, tmp_path):
    import json

    (tmp_path / "recipe.json").write_text(json.dumps({"recipe": replace(SMALL["spline"], epochs=3).told()}))
    job = TrainJob(str(tmp_path / "recipe.json"), str(folders[0]), (str(folders[1]),), command="here")
    trained = run_train(job, tmp_path / "model")
    back = load_density(tmp_path / "model")
    p = np.array([12.0, 0.4, 9900.0])
    np.testing.assert_array_equal(
        np.asarray(back.log_probabilities(p)), np.asarray(trained.density.log_probabilities(p))
    )
    told = json.loads((tmp_path / "model" / "model.json").read_text())
    assert told["training"]["command"] == "here"
    assert told["training"]["best_d2"] == pytest.approx(trained.best)
    assert set(told["metrics"]["validation-1"]) == {"d1", "d2", "d_inf"}
    assert (tmp_path / "model" / "training.log").read_text().startswith("step ")


# ---------------------------------------------------------------- recipes


@pytest.mark.parametrize("name", list(RECIPES))
def test_recipes_survive_json(name):
    import json

    told = json.loads(json.dumps(RECIPES[name].told()))
    assert recipe_from(told, "here") == RECIPES[name]


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "gan"},
        {"optimiser": "lion"},
        {"batch": 0},
        {"learning_rate": -1},
        {"schedule": "x"},
        {"new": 1},
        {"beta1": 2},
    ],
)
def test_impossible_recipes_are_refused(change):
    with pytest.raises(NuebarError, match=r"here|recipe"):
        recipe_from({**RECIPES["tede"].told(), **change}, "here")


@pytest.mark.parametrize(
    ("schedule", "epochs", "factor"),
    [
        ({"schedule": "constant"}, 7, 1.0),
        ({"schedule": "exponential", "decay": 0.92}, 3, 0.92**3),
        ({"schedule": "cosine", "period": 10.0}, 5, 0.5),
        ({"schedule": "cosine", "period": 10.0, "floor": 0.1}, 10, 0.1),
        ({"schedule": "cosine", "period": 10.0}, 20, 1.0),
    ],
)
def test_schedules(schedule, epochs, factor):
    """The first update of Adam is the learning rate in size, so updates at a late step show its schedule."""
    import jax.numpy as jnp
    import optax

    recipe = replace(RECIPES["spline"], warm_up=0, weight_decay=0.0, learning_rate=0.01, **{"floor": 0.0, **schedule})
    optimiser = optax.with_extra_args_support(optimiser_of(recipe, 4))
    w = jnp.ones(3)
    state = optimiser.init(w)
    for _ in range(4 * epochs + 1):
        update, state = optimiser.update(jnp.ones(3), state, w, value=1.0)
    np.testing.assert_allclose(-np.asarray(update), 0.01 * factor, rtol=1e-4)


def test_a_plateau_lowers_the_rate():
    import jax.numpy as jnp
    import optax

    recipe = replace(RECIPES["tede"], warm_up=0, weight_decay=0.0, learning_rate=0.01, schedule="plateau", decay=0.5)
    optimiser = optax.with_extra_args_support(optimiser_of(recipe, 2))
    w = jnp.ones(1)
    state = optimiser.init(w)
    sizes = []
    for _ in range(20):
        update, state = optimiser.update(jnp.ones(1), state, w, value=1.0)
        sizes.append(-float(update[0]))
    assert sizes[0] == pytest.approx(0.01, rel=1e-3)
    ratios = np.array(sizes[1:]) / np.array(sizes[:-1])
    assert np.all(np.isclose(ratios, 1, atol=1e-3) | np.isclose(ratios, 0.5, atol=1e-3))
    # Two steps an epoch: the first says what is best, three are waited for, then it halves.
    assert np.isclose(ratios, 0.5, atol=1e-3).sum() == 3


@pytest.mark.parametrize(
    ("job", "word"),
    [
        (TrainJob("nothing", "x"), "recipe: expected one of"),
        (TrainJob("tede", "x", epochs=0), "epochs"),
    ],
)
def test_bad_jobs_are_refused(job, word):
    with pytest.raises(NuebarError, match=word):
        chosen_recipe(job)


def test_epochs_stretch_the_schedule():
    recipe = chosen_recipe(TrainJob("spline", "x", epochs=2 * RECIPES["spline"].epochs, seed=9))
    assert recipe.period == 2 * RECIPES["spline"].period
    assert recipe.seed == 9


def test_sets_must_belong_together(folders, tmp_path):
    other = write_set(tmp_path / "other", grid(2), 50, 3, bins=(0.4, 6.4, 30))
    with pytest.raises(NuebarError, match="bins of the training set"):
        load_sets(folders[0], (other,), charges=False)
    line = write_set(tmp_path / "line", grid(2)[:4], 50, 3)
    with pytest.raises(NuebarError, match="span"):
        load_sets(line, charges=False)
    with pytest.raises(NuebarError, match="batch"):
        train_density(replace(SMALL["planar"], batch=100), load_sets(folders[0], charges=True))
    with pytest.raises(NuebarError, match="events of a source"):
        train_density(replace(SMALL["planar"], events=5000), load_sets(folders[0], charges=True))
