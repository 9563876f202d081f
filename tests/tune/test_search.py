"""The search for recipes: what is proposed lies in the table, a kill changes nothing, and every trial is kept."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pytest

from nuebar.errors import NuebarError
from nuebar.io.calibration import CalibrationTable, ChargeChunk, StoredCharges
from nuebar.io.files import read_json
from nuebar.tune import search as module
from nuebar.tune.recipes import RECIPES, recipe_from
from nuebar.tune.search import BASES, RANGES, Range, propose, search
from nuebar.tune.train import Sets, train_density

MAX_STEPS = 20
FACTOR = 1e-3


def sets(events=200, seed=1):
    """Two sources with one peak each, at twelve points."""
    points = np.array([[k, c, y] for k in (6.0, 24.0) for c in (0.0, 1.0) for y in (8e3, 1e4, 1.2e4)])
    edges = np.linspace(0.5, 2.5, 21)
    random = np.random.default_rng(seed)
    middle = 1e-4 * points[:, 2] * (1.1 - 0.005 * points[:, 0] + 0.05 * points[:, 1])
    x = np.array([[1.0], [1.4]])[..., None] * middle[None, :, None] * random.normal(1, 0.05, (2, 12, events))
    counts = np.array([[np.histogram(q, np.r_[-np.inf, edges, np.inf])[0] for q in row] for row in x]).swapaxes(0, 1)
    numbers = np.arange(12)
    table = CalibrationTable(
        numbers, points, np.full(12, events), counts.astype(np.int32), ("A", "B"), edges, FACTOR, "toy"
    )
    n_pe = (x / FACTOR).reshape(2, -1).astype(np.float32)
    chunk = ChargeChunk(Path("c"), points, numbers, np.zeros(12, int), np.arange(13) * events, n_pe)
    return Sets(table, StoredCharges((chunk,), ("A", "B"), FACTOR, "toy"), (table,), f"digest-{seed}")


SETS = sets()


def distance(recipe):
    """What the pretended training ends with: the learning rate matters, and little else."""
    return 0.01 + (math.log10(recipe.learning_rate) + 3) ** 2 + 1e-3 * recipe.settings.dropout


@pytest.fixture
def pretended(monkeypatch):
    """Trainings without work; ``before(trial, step)`` may raise."""
    state = SimpleNamespace(trained=[], before=lambda trial, step: None, seconds=[])

    def train(recipe, sets, *, max_steps, max_seconds, report):
        state.trained.append(recipe)
        state.seconds.append(max_seconds)
        every = recipe.validate_every
        for step in range(every, max_steps + 1, every):
            state.before(len(state.trained) - 1, step)
            report(step, distance(recipe) * (1 + max_steps / step))
        return SimpleNamespace(best=2 * distance(recipe), reason="steps")

    monkeypatch.setattr(module, "train_density", train)
    monkeypatch.setattr(module.jax, "clear_caches", lambda: None)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # there is no power failure here
    return state


def run(folder, trials, **options):
    return search("tede", SETS, folder, **{"trials": trials, "max_steps": MAX_STEPS, "seed": 5, **options})


def told(result):
    """All that must not depend on interruptions."""
    return [(t.number, t.state, t.value, dict(t.params), t.values, t.reason) for t in result.trials]


# ---------------------------------------------------------------- ranges


PUBLISHED = {
    "tede": {
        "tokens": (1, 5, 1), "width": (50, 500, 50), "heads": (5, 10, 25), "layers": (1, 5, 1),
        "feed_forward": (32, 480, 32), "dropout": (0, 0.5), "activation": ("relu", "gelu"), "temperature": (0.25, 3),
        "optimiser": ("adamw", "rmsprop"), "learning_rate": (1e-5, 1e-2),
        "schedule": ("exponential", "plateau", "cosine", "constant"), "weight_decay": (1e-6, 1e-1),
        "log2_batch": (4, 9, 1), "beta1": (0.5, 0.95), "beta2": (0.9, 0.999), "alpha": (0.9, 0.999),
        "period": (5, 75, 1), "factor": (0.8, 0.99), "rate": (0.8, 0.99),
    },
    "planar": {
        "flows": (100, 200, 5), "units": (10, 50, 5), "activation": ("relu", "gelu", "tanh", "silu"),
        "beta1": (0.5, 0.95), "beta2": (0.9, 0.999), "schedule": ("plateau", "cosine"), "period": (5, 75, 1),
        "factor": (0.8, 0.99),
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", PUBLISHED)
def test_ranges_are_those_of_the_table(kind):
    found = {}
    for one in RANGES[kind]:
        found[one.name] = one.choices or ((one.low, one.high) if one.step is None else (one.low, one.high, one.step))
    assert found == PUBLISHED[kind]
    assert {r.name for r in RANGES[kind] if r.log} <= {"learning_rate", "weight_decay"}
    assert module.TRIALS[kind] == {"tede": 250, "planar": 25}[kind]


def plan(kind, max_steps=1000):
    return module._Plan(kind, BASES[kind], RANGES[kind], SETS, max_steps, 7)


@pytest.mark.parametrize("kind", RANGES)
def test_every_proposal_is_a_recipe_inside_the_ranges(kind):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1, n_startup_trials=50))
    seen = {one.name: set() for one in RANGES[kind]}
    for k in range(70):
        trial = study.ask()
        params = propose(trial, RANGES[kind])
        recipe = plan(kind).recipe(params)  # which refuses what cannot be built
        flat = {**asdict(recipe), **{f"settings.{key}": v for key, v in asdict(recipe.settings).items()}}
        for one in RANGES[kind]:
            assert (one.name in params) == one.wanted(params)
            if one.name in params:
                assert one.holds(params[one.name])
                value = flat[one.entry or one.name]
                assert value == (2 ** params[one.name] if one.power else params[one.name])
                seen[one.name].add(params[one.name])
        assert recipe.kind == kind
        study.tell(trial, (k * 7919) % 71)
    for one in RANGES[kind]:
        assert len(seen[one.name]) >= (len(one.choices) or min(5, (one.high - one.low) / (one.step or 1e-9) + 1))


@pytest.mark.parametrize(
    ("entry", "value"), [("width", 120), ("width", 550), ("dropout", 0.6), ("heads", 4), ("tokens", 0)]
)
def test_what_lies_outside_is_not_held(entry, value):
    assert not next(r for r in RANGES["tede"] if r.name == entry).holds(value)


def test_a_search_begins_with_the_recipe_that_it_should_beat():
    for kind in ("tede", "planar"):
        p = plan(kind, 100_000)
        same = {"epochs", "patience", "validate_every", "seed", "events"}  # these are a trial's own
        first, base = asdict(p.recipe(p.first())), asdict(RECIPES[f"{kind}-published"])
        assert {k: v for k, v in first.items() if k not in same} == {k: v for k, v in base.items() if k not in same}
    p = plan("spline", 100_000)
    spline = p.recipe(p.first())
    assert replace(spline, weight_decay=0.0, floor=1e-3).settings == BASES["spline"].settings
    assert (spline.weight_decay, spline.batch, spline.floor) == (1e-6, 16, pytest.approx(1e-3))  # 0 has no logarithm
    strange = replace(BASES["spline"], schedule="plateau")
    assert module._Plan("spline", strange, RANGES["spline"], SETS, 10, 1).first() == {}


def test_the_length_of_a_trial_is_its_budget():
    recipe = plan("tede", 25).recipe({"log2_batch": 3})
    assert (recipe.batch, recipe.epochs, recipe.validate_every, recipe.patience) == (8, 9, 3, None)  # 24 histograms
    spline = plan("spline", 200).recipe({"log2_batch": 2})
    assert (spline.epochs, spline.period, spline.warm_up) == (67, pytest.approx(200 / 3), 20)
    assert spline.events == 200  # no data set has more


# ---------------------------------------------------------------- interruptions


def test_a_search_in_parts_is_one_search(pretended, tmp_path):
    whole = run(tmp_path / "a", 16)
    for trials in (3, 3, 12, 16):
        parts = run(tmp_path / "b", trials)
        assert len(parts.trials) == max(trials, 3)
    assert told(whole) == told(parts)
    assert parts.best == whole.best
    assert len({json.dumps(t.params, sort_keys=True) for t in whole.trials}) == 16
    again = run(tmp_path / "b", 5)  # fewer than there are: nothing to do
    assert told(again) == told(whole)
    assert told(run(tmp_path / "c", 16, seed=6))[1:] != told(whole)[1:]


@pytest.mark.parametrize("place", ["training", "proposal", "first"])
def test_a_kill_loses_only_the_running_trial(pretended, tmp_path, monkeypatch, place):
    whole = run(tmp_path / "a", 14)
    assert {t.state for t in whole.trials} >= {"complete", "pruned"}
    started, asked = len(pretended.trained), []
    if place == "proposal":  # before all values of trial 12 are there, joint ones and others
        ask = Range.ask

        def interrupted(self, trial):
            if trial.number == 12 and self.name == "weight_decay":
                asked.append(trial.number)
                raise KeyboardInterrupt
            return ask(self, trial)

        monkeypatch.setattr(Range, "ask", interrupted)
    else:
        wanted = 12 if place == "training" else 0

        def stop(trial, step):
            if trial - started == wanted and step == 6:
                raise KeyboardInterrupt

        pretended.before = stop
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", 14)
    kept = read_json(tmp_path / "b" / "study.json")["trials"]
    if place == "training":
        assert [t["state"] for t in kept][-1] == "running"
    monkeypatch.undo() if place == "proposal" else setattr(pretended, "before", lambda trial, step: None)
    if place == "proposal":
        monkeypatch.setattr(module, "train_density", train_again(pretended))
        monkeypatch.setattr(module.jax, "clear_caches", lambda: None)
    with open(tmp_path / "b" / "study.journal", "ab") as file:
        file.write(b'{"op_code":8,"trial_id')  # as a power failure leaves it
    result = run(tmp_path / "b", 14)
    assert told(result) == told(whole)
    attempts = [t.attempts for t in result.trials]
    assert sorted(attempts) == [1] * 13 + [2]
    assert attempts[0 if place == "first" else 12] == 2


def train_again(state):
    def train(recipe, sets, *, max_steps, max_seconds, report):
        for step in range(2, max_steps + 1, 2):
            report(step, distance(recipe) * (1 + max_steps / step))
        return SimpleNamespace(best=2 * distance(recipe), reason="steps")

    return train


def test_a_trial_that_ends_the_process_thrice_has_failed(pretended, tmp_path):
    def stop(trial, step):
        raise KeyboardInterrupt

    pretended.before = stop
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, 2)
    pretended.before = lambda trial, step: None
    result = run(tmp_path, 2)
    assert [(t.number, t.state) for t in result.trials] == [(0, "failed"), (1, "complete")]
    assert result.trials[0].reason == "the process ended 3 times during it"


# ---------------------------------------------------------------- what happens to trials


@pytest.mark.parametrize("pruner", module.PRUNERS)
def test_trials_that_lag_behind_are_pruned_and_kept(pretended, tmp_path, pruner):
    result = run(tmp_path, 18, pruner=pruner)
    kept = read_json(tmp_path / "study.json")
    for record, line in zip(result.trials, kept["trials"], strict=True):
        assert {**asdict(record), "values": [list(v) for v in record.values]} == line
        steps = [step for step, _ in record.values]
        assert steps == list(range(2, 2 + 2 * len(steps), 2))
        if record.state == "complete":
            assert (len(steps), record.reason) == (10, "steps")
            assert record.value == record.values[-1][1]
        else:
            assert (record.state, record.reason) == ("pruned", "pruned")
            assert 1 <= len(steps) < 10
            assert record.value >= result.value
    pruned = sum(t.state == "pruned" for t in result.trials)
    assert (pruned > 2) == (pruner != "none")
    assert result.trials[0].state == "complete"
    assert result.value == min(t.value for t in result.trials if t.state == "complete")


def test_a_failed_training_is_a_trial_with_a_reason(pretended, tmp_path):
    def fail(trial, step):
        if trial % 3 == 1 and step == 4:
            raise NuebarError("training: expected a finite loss, got nan at step 4; lower the learning rate")
        if trial == 5:
            raise MemoryError

    pretended.before = fail
    result = run(tmp_path, 6)
    assert [t.state for t in result.trials] == ["complete", "failed", "complete", "complete", "failed", "failed"]
    assert "expected a finite loss, got nan" in result.trials[1].reason
    assert len(result.trials[1].values) == 1
    assert result.trials[5].reason == "out of memory"
    pretended.before = lambda trial, step: fail(1, 4)
    with pytest.raises(NuebarError, match=r"expected a complete trial, got none of 2; the last one: training: expec"):
        run(tmp_path / "none", 2)
    assert len(read_json(tmp_path / "none" / "study.json")["trials"]) == 2


def test_what_matters_is_told(pretended, tmp_path):
    names = ("learning_rate", "dropout", "temperature", "schedule", "rate")
    options = {"pruner": "none", "ranges": tuple(r for r in RANGES["tede"] if r.name in names)}
    few = run(tmp_path, 9, **options)
    assert few.importance == {}
    assert few.importance_note == "importance needs 10 complete trials, there are 9"
    many = run(tmp_path, 24, **options)
    assert next(iter(many.importance)) == "learning_rate"
    assert sum(many.importance.values()) == pytest.approx(1)
    assert many.importance == read_json(tmp_path / "study.json")["importance"]
    assert many.value < 2 * 0.02  # the place is found


def test_the_budget_of_time(pretended, tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock.now)

    def tick(trial, step):
        clock.now += 1

    pretended.before = tick
    calls = []
    result = run(tmp_path, 10, max_seconds=7.0, timeout=25.0, progress=lambda *a: calls.append(a))
    assert [t.seconds for t in result.trials] == [10, 10, 10]
    assert set(pretended.seconds) == {7.0}
    assert {(what, total) for what, _, total in calls} == {("search", 200)}
    done = [done for _, done, _ in calls]
    assert done == sorted(done)
    assert done[-1] == 200


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sets": sets(seed=2)}, r"data.training is 'digest-1' there and 'digest-2' here"),
        ({"sets": replace(SETS, validation=(sets(seed=3).table,))}, r"data.validation is "),
        ({"seed": 6}, r"seed is 5 there and 6 here"),
        ({"max_steps": 30}, r"max_steps is 20 there and 30 here"),
        ({"max_seconds": 3.0}, r"max_seconds is None there and 3.0 here"),
        ({"pruner": "none"}, r"pruner is 'median' there and 'none' here"),
        ({"ranges": RANGES["tede"][:-1]}, r"ranges.rate is "),
        ({"kind": "spline"}, r"kind is 'tede' there and 'spline' here"),
        ({"base": replace(BASES["tede"], floor=0.5)}, r"base.floor is 0.0 there and 0.5 here"),
    ],
    ids=lambda c: next(iter(c)) if isinstance(c, dict) else "",
)
def test_another_study_is_refused_with_the_difference(pretended, tmp_path, change, sentence):
    run(tmp_path, 1)
    before = (tmp_path / "study.journal").read_bytes()
    given = {"kind": "tede", "sets": SETS, "trials": 2, "max_steps": MAX_STEPS, "seed": 5, **change}
    with pytest.raises(NuebarError, match="expected the study of this search, got another: " + sentence):
        search(given.pop("kind"), given.pop("sets"), tmp_path, **given)
    assert (tmp_path / "study.journal").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"trials": 0}, "search trials: expected a whole number of at least 1, got 0"),
        ({"max_steps": 1.5}, "search max_steps: expected a whole number of at least 1, got 1.5"),
        ({"seed": -1}, "search seed: expected a whole number of at least 0"),
        ({"timeout": math.nan}, "search timeout: expected a finite number of seconds above 0, got nan"),
        ({"pruner": "mean"}, "search pruner: expected one of median, halving, none, got 'mean'"),
        ({"base": BASES["spline"]}, "expected a base recipe of the kind tede, got spline"),
    ],
)
def test_bad_input_is_refused(tmp_path, change, sentence):
    with pytest.raises(NuebarError, match=sentence):
        run(tmp_path / "x", **{"trials": 1, **change})
    assert not (tmp_path / "x").exists()


def test_flows_want_charges_and_kinds_are_known(tmp_path):
    options = {"trials": 1, "max_steps": 1, "seed": 1}
    with pytest.raises(NuebarError, match="a search for planar trains on charges"):
        search("planar", replace(SETS, charges=None), tmp_path, **options)
    with pytest.raises(NuebarError, match="search kind: expected one of tede, planar, spline, got 'nfde'"):
        search("nfde", SETS, tmp_path, **options)


def test_a_folder_whose_journal_is_gone_is_refused(pretended, tmp_path):
    run(tmp_path, 1)
    (tmp_path / "study.journal").unlink()
    with pytest.raises(NuebarError, match=r"expected study.journal beside study.json"):
        run(tmp_path, 1)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(NuebarError, match=r"needs the package optuna, which is missing; install nuebar\[tune\]"):
        run(tmp_path, 1)


# ---------------------------------------------------------------- real trainings


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A search with trainings: a batch of 4096 is more than there are."""
    ranges = (Range(name="batch", choices=(4, 4096)), Range(name="learning_rate", low=1e-3, high=1e-2, log=True))
    small = replace(BASES["tede"].settings, layers=1, heads=2, feed_forward=8, width=8)
    base = replace(BASES["tede"], settings=small, batch=4)
    folder = tmp_path_factory.mktemp("real")
    return run(folder, 2, ranges=ranges, base=base, max_steps=6, seed=2), folder


@pytest.mark.slow
def test_trainings_are_judged_and_their_refusals_kept(real):
    result, folder = real
    assert (result.number, result.trials[0].state) == (0, "complete")
    for t in result.trials:
        assert t.state == ("complete" if t.params["batch"] == 4 else "failed")
        assert t.state == "complete" or "expected at least 4096 histograms in the training set" in t.reason
    assert result.value == min(value for _, value in result.trials[0].values)
    assert 0 < result.value < 1
    recipe = recipe_from(read_json(folder / "best.json"), "best.json")
    assert recipe == result.best
    assert (recipe.seed, recipe.batch, recipe.epochs, recipe.validate_every) == (2, 4, 1, 1)


@pytest.mark.slow
def test_the_best_recipe_trains_to_its_value(real):
    result, folder = real
    again = train_density(recipe_from(read_json(folder / "best.json"), "best.json"), SETS)
    assert again.best == result.value
    assert [p.validation for p in again.history] == [v for _, v in result.trials[result.number].values]


def test_a_study_opens_in_optuna_itself(pretended, tmp_path):
    run(tmp_path, 3)
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
    study = optuna.load_study(study_name="search", storage=optuna.storages.JournalStorage(backend))
    assert [t.number for t in study.trials] == [0, 1, 2]
    assert study.best_value == read_json(tmp_path / "study.json")["best"]["value"]
