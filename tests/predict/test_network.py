"""The plain network as a predictor: its size as published, its box, its files, its training."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from nuebar.errors import NuebarError
from nuebar.io.models import model_digest
from nuebar.parameters import OSCILLATION
from nuebar.predict import network as module
from nuebar.predict.box import Provenance
from nuebar.predict.harmonic import HarmonicPredictor, Windows
from nuebar.predict.network import (
    ACTIVATIONS,
    PLAIN,
    PUBLISHED,
    PUBLISHED_BOX,
    SMALLER,
    Architecture,
    EDGES_MeV,
    NetworkPredictor,
    accuracy,
    load_network,
    parameter_sets,
    save_network,
    train_network,
)
from nuebar.training import Training, named_arrays

POINT = {"sin2_th12": 0.307, "sin2_th13": 0.022, "dm2_21_eV2": 7.53e-5, "dm2_31_eV2": 2.5123e-3}
TINY = replace(
    PLAIN,
    name="tiny",
    architecture=replace(PLAIN.architecture, hidden=(32,), components=8),
    training=Training(max_steps=200, batch=256, validate_every=50),
    learning_rate=1e-2,
    warm_up=0,
    n_sets=20_000,
    n_validation=1000,
)


@pytest.fixture(scope="module")
def vacuum(juno_inputs):
    """Spectra to learn from, with windows a little wider than the box."""
    windows = Windows((6.9e-5, 8.2e-5), (2.3e-3, 2.65e-3))
    return HarmonicPredictor.build(juno_inputs, windows=windows, matter=False, tolerance=1e-8)


def untrained(architecture, bins=400):
    """A network with its first weights."""
    k = architecture.components
    random = np.random.default_rng(1)
    return NetworkPredictor(
        edges_MeV=tuple(map(float, EDGES_MeV[: bins + 1])),
        limits=tuple(PUBLISHED_BOX[n] for n in OSCILLATION),
        architecture=architecture,
        provenance=Provenance({"predictor": "network"}),
        network=module._network(architecture, k or bins, 0),
        offset=jnp.asarray(random.random(bins)),
        scale=jnp.asarray(random.random((k, bins) if k else bins)),
        flat=jnp.asarray(random.random(bins)),
    )


BASIS = Architecture(hidden=(16, 8), activation="tanh", outputs="basis", components=5)


def test_size_as_published():
    """322,800 parameters, 1.23 MB (2^20 bytes), 400 outputs: Malyshkin, section 3.2."""
    predictor = untrained(PUBLISHED.architecture)
    assert predictor.n_weights == 322_800
    weights = named_arrays(predictor.network).values()
    assert {a.dtype for a in weights} == {np.dtype(np.float32)}
    assert round(sum(a.nbytes for a in weights) / 2**20, 2) == 1.23
    assert predictor.predict(POINT).shape == (400,)
    assert predictor.predict(POINT).dtype == jnp.float64
    assert (predictor.edges[0], predictor.edges[-1]) == (0.8, 8.8)


def test_smaller_ones():
    assert {name: untrained(r.architecture).n_weights for name, r in SMALLER.items()} == {
        "2x100": 4 * 100 + 100 + 100 * 100 + 100 + 100 * 400 + 400,
        "2x200": 4 * 200 + 200 + 200 * 200 + 200 + 200 * 400 + 400,
    }


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_against_plain_numpy(activation):
    """The same arithmetic written out in float64; the layers themselves are float32."""
    predictor = untrained(Architecture(hidden=(30, 20), activation=activation, inputs="printed"))
    gelu = lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))  # noqa: E731
    functions = {
        "relu": lambda x: np.maximum(x, 0),
        "gelu": gelu,
        "silu": lambda x: x / (1 + np.exp(-x)),
        "tanh": np.tanh,
    }
    x = np.array([0.307, 2.2, 7.53, 2.5123])  # as printed
    *hidden, last = [(np.asarray(d.weight, float), np.asarray(d.bias, float)) for d in predictor.network.layers]
    for w, b in hidden:
        x = functions[activation](x @ w + b)
    expected = np.asarray(predictor.offset) + np.asarray(predictor.scale) * (x @ last[0] + last[1])
    np.testing.assert_allclose(predictor.predict(POINT), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("architecture", [Architecture(hidden=(20,), inputs="printed"), BASIS])
def test_one_and_many_and_channels_agree(architecture):
    predictor = untrained(architecture)
    rows = parameter_sets(PUBLISHED_BOX, 0, 0, 5)
    many = predictor.many(rows)
    for row, counts in zip(rows, many, strict=True):
        one = predictor.predict(dict(zip(OSCILLATION, map(float, row), strict=True)))
        np.testing.assert_allclose(one, counts, rtol=1e-5, atol=1e-5 * np.abs(counts).max())
        np.testing.assert_array_equal(predictor.channels(jnp.asarray(row)).shape, (1, 400))
        np.testing.assert_allclose(
            predictor.channels(jnp.asarray(row))[0], one, rtol=1e-6, atol=1e-6 * np.abs(one).max()
        )
    assert predictor.many(rows[:0]).shape == (0, 400)
    assert predictor.core_names == ()
    assert predictor.name == "network"
    assert predictor.nbytes > 4 * predictor.n_weights


@pytest.mark.parametrize("name", OSCILLATION)
@pytest.mark.parametrize("side", [0, 1])
def test_outside_the_box(name, side):
    predictor = untrained(BASIS)
    low, high = PUBLISHED_BOX[name]
    edge = (low, high)[side]
    predictor.predict(POINT | {name: edge})
    outside = edge + (2 * side - 1) * 0.01 * (high - low)
    with pytest.raises(NuebarError, match=rf"'{name}' = {outside:.6g} is outside the box \[{low:.6g}, {high:.6g}\]"):
        predictor.predict(POINT | {name: outside})
    rows = np.array([list(POINT.values())] * 2)
    rows[1, OSCILLATION.index(name)] = outside
    with pytest.raises(NuebarError, match="outside the box"):
        predictor.many(rows)


@pytest.mark.parametrize("density", [0.0, 2.45])
def test_it_takes_no_matter_density(density):
    with pytest.raises(NuebarError, match="matter_density_g_cm3"):
        untrained(BASIS).predict(POINT | {"matter_density_g_cm3": density})


def test_many_refuses():
    for rows in (np.ones((3, 3)), np.full((2, 4), np.nan)):
        with pytest.raises(NuebarError, match="finite parameters"):
            untrained(BASIS).many(rows)


@pytest.mark.parametrize(
    "architecture", [BASIS, replace(BASIS, activation="gelu", outputs="standardised", components=0)]
)
def test_derivatives_against_differences(architecture):
    """Steps of 0.5 % of the box, of which float32 leaves 1e-5 to a derivative."""
    predictor = untrained(architecture)
    low, high = np.array([PUBLISHED_BOX[n] for n in OSCILLATION]).T
    p = jnp.asarray(low + np.array([0.2, 0.7, 0.4, 0.9]) * (high - low))  # off the centre, where tanh is odd
    channels = lambda q: predictor.channels(q)  # noqa: E731 - a method of arrays has no hash, which jit wants
    value, slope = jax.jit(channels), jax.jit(jax.jacfwd(channels))
    first, second = slope(p)[0], jax.jit(jax.hessian(channels))(p)[0]
    assert second.shape == (400, 4, 4)
    np.testing.assert_allclose(second, jnp.swapaxes(second, 1, 2), rtol=1e-3, atol=1e-6 * np.abs(second).max())
    for k, step in enumerate(0.005 * (high - low)):
        up, down = (value(p.at[k].add(s))[0] for s in (step, -step))
        assert np.abs((up - down) / (2 * step) - first[:, k]).max() < 3e-3 * np.abs(first[:, k]).max()
        up, down = (slope(p.at[k].add(s))[0, :, k] for s in (step, -step))
        assert np.abs((up - down) / (2 * step) - second[:, k, k]).max() < 1e-2 * np.abs(second[:, k, k]).max()


# ---------------------------------------------------------------- on disk


@pytest.mark.parametrize("architecture", [replace(PUBLISHED.architecture, hidden=(20, 10)), BASIS])
def test_round_trip_is_bit_identical(tmp_path, architecture):
    predictor = untrained(architecture)
    save_network(predictor, tmp_path / "net", metrics={"relative_median": 1e-4}, training={"seed": 3})
    back = load_network(tmp_path / "net")
    one, other = named_arrays(predictor), named_arrays(back)
    assert all(one[n].tobytes() == other[n].tobytes() and one[n].dtype == other[n].dtype for n in one)
    assert (back.architecture, back.box, back.edges_MeV) == (predictor.architecture, predictor.box, predictor.edges_MeV)
    assert dict(back.provenance) == {"predictor": "network"}
    np.testing.assert_array_equal(back.predict(POINT), predictor.predict(POINT))
    description = json.loads((tmp_path / "net" / "model.json").read_text())
    assert description["metrics"] == {"relative_median": 1e-4}
    assert description["training"] == {"seed": 3}
    assert description["versions"]["jax"]


def _edit(folder, change):
    path = folder / "model.json"
    d = json.loads(path.read_text())
    change(d)
    # Signed again, so that only the network's own check is left.
    d["digest"] = model_digest((folder / "weights.safetensors").read_bytes(), d)
    path.write_text(json.dumps(d))


def _arrays(folder, change):
    """Change weights and their table alike, so that only the network's own check is left."""
    arrays = load_file(folder / "weights.safetensors")
    change(arrays)
    save_file(arrays, folder / "weights.safetensors")
    shapes = {n: {"shape": list(a.shape), "dtype": str(a.dtype)} for n, a in arrays.items()}
    _edit(folder, lambda d: d.update(arrays=shapes))


FIRST = "network.layers.0.weight"
TAMPERED = {
    "kind": (lambda f: _edit(f, lambda d: d.update(kind="harmonic")), "expected a network predictor"),
    "format": (lambda f: _edit(f, lambda d: d.update(format=99)), "format"),
    "activation": (lambda f: _edit(f, lambda d: d["architecture"].update(activation="eval")), "activation"),
    "unknown": (lambda f: _edit(f, lambda d: d["architecture"].update(code="x")), "incomplete"),
    "no box": (lambda f: _edit(f, lambda d: d["box"].pop("sin2_th12")), "incomplete"),
    "box": (lambda f: _edit(f, lambda d: d["box"].update(sin2_th12=[0.4, 0.3])), "expected a box"),
    "wider": (lambda f: _edit(f, lambda d: d["architecture"].update(hidden=[17, 8])), "shape"),
    "huge": (lambda f: _edit(f, lambda d: d["architecture"].update(hidden=[10**9, 8])), "hidden"),
    "deeper": (lambda f: _edit(f, lambda d: d["architecture"].update(hidden=[16, 8, 8])), "differ|shape"),
    "components": (lambda f: _edit(f, lambda d: d["architecture"].update(components=6)), "expected float64 of shape"),
    "truncated": (
        lambda f: (f / "weights.safetensors").write_bytes((f / "weights.safetensors").read_bytes()[:-9]),
        "truncated",
    ),
    "double": (lambda f: _arrays(f, lambda a: a.update({FIRST: a[FIRST].astype(float)})), "expected float32"),
    "missing": (lambda f: _arrays(f, lambda a: a.pop(FIRST)), "differ"),
    "extra": (lambda f: _arrays(f, lambda a: a.update(spare=np.zeros(3))), "spare"),
    "flat": (lambda f: _arrays(f, lambda a: a.update(flat=np.zeros(3))), "expected float64 of shape"),
    "no flat": (lambda f: _arrays(f, lambda a: a.pop("flat")), "incomplete"),
    "nan": (lambda f: _arrays(f, lambda a: a.update(flat=a["flat"] * np.nan)), "finite"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_tampered_is_refused_in_one_sentence(tmp_path, case):
    save_network(untrained(BASIS), tmp_path)
    spoil, word = TAMPERED[case]
    spoil(tmp_path)
    with pytest.raises(NuebarError, match=word) as caught:
        load_network(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"activation": "exec"}, "activation"),
        ({"inputs": "raw"}, "inputs"),
        ({"outputs": "log"}, "outputs"),
        ({"hidden": ()}, "hidden"),
        ({"hidden": (3.5,)}, "hidden"),
        ({"components": 4}, "components"),
        ({"outputs": "basis"}, "components"),
    ],
)
def test_bad_architecture(changes, word):
    with pytest.raises(NuebarError, match=word):
        replace(Architecture(), **changes)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"optimiser": "lbfgs"}, "optimiser"),
        ({"decay": "steps"}, "decay"),
        ({"last": 0.0}, "tiny"),
        ({"n_sets": 300}, "n_sets"),
    ],
)
def test_bad_recipe(changes, word):
    with pytest.raises(NuebarError, match=word):
        replace(TINY, **changes)


def test_schedule():
    rate = replace(TINY, warm_up=100, last=1e-2).schedule()
    assert float(rate(50)) == pytest.approx(0.5e-2)
    assert float(rate(100)) == pytest.approx(1e-2)
    assert float(rate(200)) == pytest.approx(1e-4)
    assert float(PUBLISHED.schedule()(10**6)) == pytest.approx(0.02)


# ---------------------------------------------------------------- training


def test_parameter_sets_do_not_depend_on_the_cut():
    whole = parameter_sets(PUBLISHED_BOX, 7, 0, 100)
    parts = np.concatenate([parameter_sets(PUBLISHED_BOX, 7, a, b - a) for a, b in ((0, 1), (1, 33), (33, 100))])
    np.testing.assert_array_equal(whole, parts)
    low, high = np.array([PUBLISHED_BOX[n] for n in OSCILLATION]).T
    assert np.all((whole >= low) & (whole <= high))
    np.testing.assert_allclose(parameter_sets(PUBLISHED_BOX, 7, 0, 40_000).mean(axis=0), (low + high) / 2, rtol=3e-3)
    assert len(np.unique(np.concatenate([whole, parameter_sets(PUBLISHED_BOX, 8, 0, 100)]))) == 800


@pytest.fixture(scope="module")
def trained(vacuum):
    return train_network(vacuum, TINY)


def test_a_tiny_network_learns(vacuum, trained):
    """A second of training: a tenth of a percent is far, the un-trained network is much farther."""
    predictor, loop, record = trained
    assert loop.history[-1].validation < 0.5 * loop.history[0].validation
    got = accuracy(predictor, vacuum, n=500)
    assert got["relative_median"] < 0.01
    assert got["relative_median"] < got["relative_90"] < got["relative_99.9"] <= got["relative_largest"]
    assert record["reason"] == "steps"
    assert set(dict(predictor.provenance)) >= {"training_data", "recipe"}
    exact = vacuum.predict(POINT)[12:412]
    keep = exact > 0.01 * exact.max()
    assert np.abs(predictor.predict(POINT) / exact - 1)[keep].max() < 0.1
    np.testing.assert_array_equal(predictor.unoscillated(), vacuum.unoscillated()[12:412])


def test_the_record_travels_with_the_model(tmp_path, vacuum, trained):
    predictor, _, record = trained
    save_network(predictor, tmp_path, training=record, metrics=accuracy(predictor, vacuum, n=100))
    np.testing.assert_array_equal(load_network(tmp_path).predict(POINT), predictor.predict(POINT))
    told = json.loads((tmp_path / "model.json").read_text())["training"]
    assert told["recipe"]["training"]["seed"] == 0
    assert told["training_data"] == record["training_data"]


class KilledError(Exception):
    pass


@pytest.mark.slow
def test_killed_and_resumed_gives_the_same_bits(tmp_path, vacuum, trained):
    """Also across blocks of generated spectra: the batch is found again from the step."""
    path = tmp_path / "state.safetensors"
    recipe = replace(TINY, training=replace(TINY.training, checkpoint_seconds=0.0))

    def killed(what, done, total):
        if done == 100:
            raise KilledError

    with pytest.raises(KilledError):
        train_network(vacuum, recipe, checkpoint=path, progress=killed)
    resumed, loop, _ = train_network(vacuum, recipe, checkpoint=path)
    one, other = named_arrays(trained[0]), named_arrays(resumed)
    assert all(one[n].tobytes() == other[n].tobytes() for n in one)
    assert loop.history == trained[1].history


def test_checkpoint_of_another_recipe_or_box_is_refused(tmp_path, vacuum):
    path = tmp_path / "state.safetensors"
    recipe = replace(TINY, training=replace(TINY.training, max_steps=5))
    train_network(vacuum, recipe, checkpoint=path)
    with pytest.raises(NuebarError, match=r"recipe\.learning_rate is 0.01 there and 0.02 here"):
        train_network(vacuum, replace(recipe, learning_rate=0.02), checkpoint=path)
    with pytest.raises(NuebarError, match="training_data"):
        train_network(vacuum, recipe, box={**PUBLISHED_BOX, "sin2_th12": (0.3, 0.31)}, checkpoint=path)


def test_stored_spectra(tmp_path, vacuum):
    """A file is made once, and read after that."""
    recipe = replace(TINY, training=replace(TINY.training, max_steps=20, validate_every=20))
    first, _, _ = train_network(vacuum, recipe, stored=tmp_path / "spectra.npy")
    (file,) = tmp_path.iterdir()
    when = file.stat().st_mtime_ns
    second, _, _ = train_network(vacuum, recipe, stored=tmp_path / "spectra.npy")
    assert file.stat().st_mtime_ns == when
    one, other = named_arrays(first), named_arrays(second)
    assert all(one[n].tobytes() == other[n].tobytes() for n in one)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(NuebarError, match="remove it"):
        train_network(vacuum, recipe, stored=tmp_path / "spectra.npy")


def test_bins_and_box_must_be_the_predictors(vacuum):
    with pytest.raises(NuebarError, match="consecutive bins"):
        train_network(vacuum, TINY, edges_MeV=np.linspace(0.8, 8.8, 101))
    with pytest.raises(NuebarError, match="network box"):
        train_network(vacuum, TINY, box={"sin2_th12": (0.3, 0.31)})
    with pytest.raises(NuebarError, match="outside the box"):
        train_network(vacuum, TINY, box={**PUBLISHED_BOX, "dm2_31_eV2": (2.0e-3, 2.6e-3)})


def test_matter_predictors_are_refused(juno_harmonic):
    with pytest.raises(NuebarError, match="vacuum"):
        train_network(juno_harmonic, TINY)


def test_a_network_of_another_size_is_refused_without_its_memory(tmp_path):
    """A description may claim gigabytes; only the shapes are compared."""
    save_network(untrained(BASIS), tmp_path)
    _edit(tmp_path, lambda d: d["architecture"].update(hidden=[20_000] * 20))
    with pytest.raises(NuebarError, match="differ"):
        load_network(tmp_path)
