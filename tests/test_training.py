"""The training loop: it minimises, resumes with equal bits, and names why it stopped."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nuebar.errors import NuebarError
from nuebar.io.arrays import load_arrays, save_arrays
from nuebar.training import (
    StoredBatches,
    Training,
    count_parameters,
    generator,
    named_arrays,
    train,
    with_arrays,
)


class Line(eqx.Module):
    """y = a x + b with a number that is not trained; a is float32, as networks are."""

    a: jax.Array
    b: jax.Array
    fixed: np.ndarray
    label: str = eqx.field(static=True, default="line")

    def __call__(self, x):
        return self.a * x + self.b + self.fixed


def start(dtype=jnp.float32):
    return Line(jnp.zeros((), dtype), jnp.zeros((), dtype), np.zeros((), np.float32))


def rows(n=640):
    x = generator(5).random(n).astype(np.float32)
    return x, (2 * x - 1).astype(np.float32)


def loss(model, batch):
    x, y = batch
    return jnp.mean((jax.vmap(model)(x) - y) ** 2)


def validate(model):
    return float(loss(model, tuple(map(jnp.asarray, rows()))))


SETTINGS = Training(max_steps=60, batch=64, seed=3, validate_every=10)
BATCHES = StoredBatches(rows(), 64, seed=3)
LINE = Line(True, True, False)


def fit(settings=SETTINGS, optimiser=None, batches=BATCHES, validate=validate, **options):
    options.setdefault("trainable", LINE)
    return train(start(), loss, batches, validate, optimiser or optax.adam(0.1), settings, **options)


def same_bits(a, b):
    one, other = named_arrays(a), named_arrays(b)
    assert set(one) == set(other)
    return all(one[n].tobytes() == other[n].tobytes() for n in one)


def test_it_minimises_and_keeps_the_best():
    done = fit(replace(SETTINGS, max_steps=400))
    assert (done.reason, done.step) == ("steps", 400)
    assert float(done.model.a) == pytest.approx(2, abs=0.02)
    assert done.best == min(p.validation for p in done.history) == pytest.approx(validate(done.model))
    assert done.best_step == next(p.step for p in done.history if p.validation == done.best)
    assert done.model.a.dtype == jnp.float32  # although the suite runs in double precision


def test_best_weights_are_not_the_last_ones():
    """A learning rate that turns round after step 30 spoils the last weights only."""
    done = fit(optimiser=optax.sgd(lambda k: jnp.where(k < 30, 0.1, -0.1)))
    assert done.best_step == 30
    assert done.best < 0.5 * done.history[-1].validation


def test_initial_model_is_untouched_and_rest_is_kept():
    model = start()
    done = train(model, loss, BATCHES, validate, optax.adam(0.1), SETTINGS, trainable=LINE)
    assert float(model.a) == 0.0
    assert done.model.fixed is model.fixed
    only_b = train(model, loss, BATCHES, validate, optax.adam(0.1), SETTINGS, trainable=Line(False, True, False))
    assert float(only_b.model.a) == 0.0
    assert float(only_b.model.b) != 0.0
    assert (count_parameters(model), count_parameters(model, LINE)) == (3, 2)


def test_same_seed_same_bits_and_another_seed_not():
    assert same_bits(fit().model, fit().model)
    other = fit(replace(SETTINGS, seed=4), batches=StoredBatches(rows(), 64, seed=4))
    assert not same_bits(fit().model, other.model)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("at", [1, 10, 27, 59])
def test_killed_and_resumed_gives_the_same_bits(tmp_path, at):
    """Killed inside a validation interval, on its end, and one step before the end."""
    settings = replace(SETTINGS, checkpoint_seconds=0.0)
    path = tmp_path / "state.safetensors"

    def deadly(step):
        if step == at:
            raise KilledError
        return BATCHES(step)

    optimiser = optax.adam(optax.cosine_decay_schedule(0.1, 60))
    whole = fit(settings, optimiser)
    with pytest.raises(KilledError):
        fit(settings, optimiser, deadly, checkpoint=path)
    seen = []
    resumed = fit(settings, optimiser, lambda k: seen.append(k) or BATCHES(k), checkpoint=path)
    assert seen[0] == max(at - 1, 0)  # the batch of the next step is made before the checkpoint of this one
    assert same_bits(whole.model, resumed.model)
    assert whole.history == resumed.history


def test_a_finished_training_is_not_repeated(tmp_path):
    path = tmp_path / "state.safetensors"
    first = fit(checkpoint=path)
    again = fit(batches=lambda step: pytest.fail("trained again"), checkpoint=path)
    assert same_bits(first.model, again.model)
    assert (again.reason, again.step, again.history) == (first.reason, first.step, first.history)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"goal": 0.5}, "converged"),
        ({"patience": 2, "max_steps": 5000}, "patience"),
        ({"max_seconds": 0.0}, "budget"),
        ({}, "steps"),
    ],
)
def test_reasons(changes, reason):
    done = fit(replace(SETTINGS, **changes), optax.sgd(0.3))
    assert done.reason == reason
    assert done.history
    if reason == "patience":
        assert done.step == done.best_step + 2 * SETTINGS.validate_every


def test_budget_goes_on_with_more_time(tmp_path):
    """A larger budget is no other training."""
    path = tmp_path / "state.safetensors"
    short = fit(replace(SETTINGS, max_seconds=0.0), checkpoint=path)
    assert short.step < SETTINGS.max_steps
    assert same_bits(fit(checkpoint=path).model, fit().model)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"settings": replace(SETTINGS, seed=9)}, "settings.seed"),
        ({"settings": replace(SETTINGS, max_steps=61)}, "settings.max_steps"),
        ({"identity": {"data": {"hash": "b"}}}, "data.hash"),
        ({"optimiser": optax.sgd(0.1)}, "differ"),
    ],
)
def test_checkpoint_of_another_training_is_refused(tmp_path, options, word):
    path = tmp_path / "state.safetensors"
    fit(checkpoint=path, identity={"data": {"hash": "a"}})
    with pytest.raises(NuebarError, match=word):
        fit(**{"identity": {"data": {"hash": "a"}}, **options}, checkpoint=path)


def test_checkpoint_of_other_shapes_or_broken_is_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    fit(checkpoint=path)
    with pytest.raises(NuebarError, match="float64"):
        train(start(jnp.float64), loss, BATCHES, validate, optax.adam(0.1), SETTINGS, trainable=LINE, checkpoint=path)
    arrays, metadata = load_arrays(path)
    save_arrays(path, arrays, {k: v for k, v in metadata.items() if k != "counters"})
    with pytest.raises(NuebarError, match="incomplete"):
        fit(checkpoint=path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(NuebarError, match="truncated"):
        fit(checkpoint=path)


def test_a_loss_that_is_no_number_stops_with_a_sentence(tmp_path):
    path = tmp_path / "state.safetensors"

    def poisoned(step):
        x, y = BATCHES(step)
        return x, y * np.float32(np.nan if step == 7 else 1)

    with pytest.raises(NuebarError, match=r"finite loss, got nan at step 8.*learning rate"):
        fit(replace(SETTINGS, checkpoint_seconds=0.0), batches=poisoned, checkpoint=path)
    arrays, metadata = load_arrays(path)
    assert metadata["counters"]["step"] == 7
    assert all(np.all(np.isfinite(a)) for a in arrays.values())


def test_validation_that_is_no_number_stops_with_a_sentence():
    with pytest.raises(NuebarError, match="finite validation"):
        fit(validate=lambda model: np.nan)


def test_progress_and_log(tmp_path):
    told, log = [], tmp_path / "log.txt"
    fit(replace(SETTINGS, log=str(log)), progress=lambda *a: told.append(a))
    assert told[0] == ("training", 10, 60)
    assert told[-1] == ("training", 60, 60)
    lines = log.read_text().splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("step 10 loss ")
    with pytest.raises(NuebarError, match="log"):
        fit(replace(SETTINGS, log=str(tmp_path / "none" / "log.txt")))


def test_training_loss_is_the_validation_where_there_is_none():
    done = fit(validate=None)
    assert all(p.loss == p.validation for p in done.history)


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_steps", 0), ("batch", 1.5), ("seed", -1), ("patience", 0), ("goal", np.nan), ("checkpoint_seconds", None)],
)
def test_bad_settings(name, value):
    with pytest.raises(NuebarError, match=name):
        replace(SETTINGS, **{name: value})


@pytest.mark.parametrize("block", [1, 4])
def test_every_epoch_sees_every_row_once(block):
    batches = StoredBatches(np.arange(96), 8, seed=1, block=block)
    epochs = [np.concatenate([batches(e * 12 + k) for k in range(12)]) for e in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(96))
    assert not np.array_equal(epochs[0], epochs[1])
    assert np.array_equal(StoredBatches(np.arange(96), 8, seed=1, block=block)(17), batches(17))
    assert not np.array_equal(StoredBatches(np.arange(96), 8, seed=2, block=block)(17), batches(17))


@pytest.mark.parametrize(
    ("arrays", "batch", "block"), [((np.zeros(5), np.zeros(6)), 2, 1), (np.zeros(5), 6, 1), (np.zeros(5), 3, 2)]
)
def test_bad_batches(arrays, batch, block):
    with pytest.raises(NuebarError, match="minibatches"):
        StoredBatches(arrays, batch, block=block)


def test_generator_streams_differ():
    firsts = {tuple(generator(*c).random(3)) for c in [(0,), (1,), (0, 1), (0, 0, 1), (0, 0, 0, 1)]}
    assert len(firsts) == 5
    with pytest.raises(NuebarError, match="counters"):
        generator(0, 1, 2, 3, 4)


def test_arrays_by_name():
    model = start()
    arrays = named_arrays(model, "m.")
    assert set(arrays) >= {"m.a", "m.b"}
    changed = with_arrays(model, arrays | {"m.a": np.float32(3.0), "other": np.zeros(2)}, "file", "m.")
    assert float(changed.a) == 3.0
    with pytest.raises(NuebarError, match=r"m\.c"):
        with_arrays(model, arrays | {"m.c": np.zeros(2)}, "file", "m.")
    with pytest.raises(NuebarError, match=r"file: array 'm.a': expected float32 of shape \[\]"):
        with_arrays(model, arrays | {"m.a": np.zeros(2, np.float32)}, "file", "m.")
