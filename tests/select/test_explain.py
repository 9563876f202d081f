"""Shapley values: laws that define them, brute force on small functions, errors of the importance, and shap itself."""

import itertools
import json
import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.select import explain as ex
from nuebar.select.cuts import BoxCuts
from nuebar.select.features import FEATURES, column, features_of

WEIGHTS = np.array([0.3, -0.2, -1.0, 0.5, 0.4, 0.7, 0.0, 0.0, 0.05, 0.0])


@dataclass
class Toy:
    """A classifier from a formula on columns."""

    formula: object
    name: str = "toy"
    calls: list = field(default_factory=list)

    def score(self, features):
        self.calls.append(len(features))
        return np.asarray(self.formula(features.astype(np.float64).T), np.float64)


def linear(x):
    return WEIGHTS @ x


def three(x):
    """Three features that depend on each other."""
    return np.where(x[2] > 0.2, -2.0, 1.0) * (1 + 0.5 * x[5]) + np.sin(x[3]) * x[5]


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(5)
    return rng.normal(size=(60, 10)).astype(np.float32), rng.normal(0.3, 1, size=(40, 10)).astype(np.float32)


@pytest.fixture(scope="module")
def background(pairs):
    return ex.Background(pairs[1], 8)


def brute_force(formula, row, rows, which, output):
    """The definition: the mean over all orders of the features that matter, and over the background."""
    of = {"probability": lambda z: 1 / (1 + np.exp(-z)), "logit": lambda z: z}[output]
    values = np.zeros(10)
    orders = list(itertools.permutations(which))
    for order in orders:
        mixed = rows.astype(float).copy()
        before = of(formula(mixed.T)).mean()
        for j in order:
            mixed[:, j] = row[j]
            after = of(formula(mixed.T)).mean()
            values[j] += (after - before) / len(orders)
            before = after
    return values


@pytest.mark.parametrize("output", ex.OUTPUTS)
def test_exact_values_are_the_mean_over_all_orders(pairs, background, output):
    found = ex.explain_exactly(Toy(three), pairs[0][:4], background, output=output)
    for k in range(4):
        expected = brute_force(three, pairs[0][k].astype(float), pairs[1], (2, 3, 5), output)
        np.testing.assert_allclose(found.values[k], expected, atol=1e-12)
    assert found.method == "exact"
    assert found.residual < 1e-12


@pytest.mark.parametrize("make", [ex.explain, ex.explain_exactly])
def test_a_linear_logit_has_known_values(pairs, background, make):
    found = make(Toy(linear), pairs[0][:10], background, output="logit")
    expected = WEIGHTS * (pairs[0][:10].astype(float) - pairs[1].astype(float).mean(axis=0))
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
    assert found.base == pytest.approx(WEIGHTS @ pairs[1].astype(float).mean(axis=0), abs=1e-6)
    of_groups = pairs[1].astype(float).reshape(8, 5, 10).mean(axis=1)
    each = WEIGHTS * (pairs[0][:10].astype(float) - of_groups[:, None])
    np.testing.assert_allclose(found.group_values, each, atol=1e-6)
    np.testing.assert_allclose(found.local(3).errors, each[:, 3].std(axis=0, ddof=1) / math.sqrt(8), atol=1e-6)


def test_sampled_values_add_up_and_are_near_the_exact_ones(pairs, background):
    toy = Toy(three)
    exact = ex.explain_exactly(toy, pairs[0], background)
    many = ex.Background(np.tile(pairs[1], (10, 1)), 10)
    found = ex.explain(toy, pairs[0], many, checked=5)
    np.testing.assert_allclose(found.values.sum(axis=1) + found.base, found.outputs, atol=1e-12)
    scale = 0.02
    rms = np.sqrt(np.mean((found.values - exact.values) ** 2, axis=0))
    assert 1e-6 < rms.max() < scale
    # Orders are fair: no feature is too large or too small on average.
    mean = (found.values - exact.values).mean(axis=0)
    assert np.abs(mean).max() < 4 * rms.max() / math.sqrt(len(exact.values))
    assert np.all(found.values[:, [0, 1, 4, 6, 7, 8, 9]] == 0), "a feature that does nothing has no value"
    assert found.check["pairs"] == 5
    assert 0 < found.check["rms"]["dr_m"] < 2 * scale


def test_an_order_and_its_reverse_are_exact_for_interactions_of_two(pairs, background):
    exact, found = (f(Toy(three), pairs[0][:8], background, output="logit") for f in (ex.explain_exactly, ex.explain))
    np.testing.assert_allclose(found.values, exact.values, atol=1e-12)
    np.testing.assert_allclose(found.group_values, exact.group_values, atol=1e-6)


def test_a_pair_does_not_know_the_others(pairs, background):
    toy = Toy(three)
    x = pairs[0]
    all_, some = (ex.explain(toy, part, background, checked=0, seed=4) for part in (x, x[:41]))
    np.testing.assert_array_equal(all_.values[:41], some.values)
    other = ex.explain(toy, x[:41], background, checked=0, seed=5)
    assert not np.array_equal(other.values, some.values)


def test_values_that_do_not_add_up_are_refused(pairs, background):
    rng = np.random.default_rng(1)
    noisy = Toy(lambda x: linear(x) + rng.normal(0, 1e-3, x.shape[1]))
    with pytest.raises(NuebarError, match="different scores for the same pair"):
        ex.explain(noisy, pairs[0], background, output="logit", checked=0)


def test_a_balanced_background_has_half_of_each_class_in_each_group():
    ibd, accidentals = (np.full((200, 10), v, np.float32) for v in (1, 0))
    ibd[:, 0] = np.arange(200)
    found = ex.balanced_background(ibd, accidentals, rows=80, groups=10, seed=3)
    assert found.features.shape == (80, 10)
    np.testing.assert_array_equal(found.features[:, 1].reshape(10, 8).sum(axis=1), 4)
    taken = found.features[found.features[:, 1] == 1, 0]
    assert len(set(taken.tolist())) == 40, "without replacement"
    toy = Toy(lambda x: np.where(x[1] > 0.5, 40.0, -40.0))
    exact = ex.explain(toy, ibd[:3], found, checked=0)
    assert exact.base == pytest.approx(0.5, abs=1e-12)
    assert exact.base_error < 1e-12


# ---------------------------------------------------------------- importance


@pytest.fixture(scope="module")
def explained():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(800, 10)).astype(np.float32)
    labels = (linear(x.T.astype(float)) > 0).astype(int)
    background = ex.Background(rng.normal(size=(100, 10)).astype(np.float32), 20)
    return ex.explain(Toy(linear), x, background, labels=labels, output="logit", checked=0)


def test_importance_has_the_errors_of_pairs_and_background(explained):
    found = ex.importance(explained, draws=300)
    size = np.abs(explained.values)
    np.testing.assert_allclose(found.mean, size.mean(axis=0))
    some = WEIGHTS != 0
    ratio = found.error_pairs[some] / (size.std(axis=0)[some] / math.sqrt(800))
    assert np.all((ratio > 0.85) & (ratio < 1.15))
    # d mean|w (x - b)| / d b = -w mean(sign): with both signs equally often the background hardly matters.
    assert np.all(found.error_background[some] < 0.7 * found.error_pairs[some])
    assert np.all(found.error >= 0.85 * found.error_pairs)
    assert found.order[:2] == ("dr_m", "e_delayed_MeV")
    assert found.separation("dr_m", "e_delayed_MeV") == -found.separation("e_delayed_MeV", "dr_m") > 3


def test_the_background_error_covers_other_backgrounds():
    rng = np.random.default_rng(22)
    x = (2 + rng.normal(size=(60, 10))).astype(np.float32)  # of one sign: the mean of the background shifts them all
    means, errors = [], []
    for k in range(25):
        background = ex.Background(rng.normal(size=(40, 10)).astype(np.float32), 10)
        found = ex.importance(ex.explain(Toy(linear), x, background, output="logit", checked=0), draws=60, seed=k)
        means.append(found.mean[2])
        errors.append(found.error_background[2])
    assert 0.65 < np.mean(errors) / np.std(means, ddof=1) < 1.5


def test_the_record_states_the_order_beside_the_published_one(explained):
    record = json.loads(json.dumps(ex.importance(explained).record(), allow_nan=False))
    assert record["order"][0] == "dr_m"
    assert sorted(record["published_order"]) == sorted(FEATURES)
    first = record["features"][0]
    assert (first["rank"], first["rank_interval"], first["published_rank"]) == (1, [1, 1], 1)
    assert first["sigmas_above_next"] > 3
    # Those that do nothing share the last ranks, whatever their order.
    swapped = {(s["published_first"], s["published_second"]) for s in record["against_published"]}
    assert ("r3_prompt_m3", "dt_us") in swapped
    assert ("dr_m", "e_delayed_MeV") not in swapped


# ---------------------------------------------------------------- single pairs


def test_local_values_add_up_and_are_ordered(explained):
    local = explained.local(7)
    assert local.base + local.values.sum() == pytest.approx(local.output, abs=1e-9)
    sizes = [abs(row["value"]) for row in local.record()["features"]]
    assert sizes == sorted(sizes, reverse=True)
    assert json.dumps(local.record())
    with pytest.raises(NuebarError, match="0 to 799"):
        explained.local(800)


@pytest.mark.parametrize("label", [0, 1])
def test_the_typical_pair_is_right_and_in_the_middle(explained, label):
    row = explained.typical(label)
    assert explained.labels[row] == label
    assert (explained.outputs[row] >= 0) == (label == 1)
    right = (explained.labels == label) & ((explained.outputs >= 0) == (label == 1))
    distance = np.abs(explained.values - np.median(explained.values[right], axis=0)).sum(axis=1)
    assert distance[row] == distance[right].min()
    with pytest.raises(NuebarError, match="classified correctly"):
        explained.typical(1, threshold=1e9)


def test_dependence_and_arrays(explained):
    found = explained.dependence("dr_m", "dt_us")
    np.testing.assert_array_equal(found.x, column(explained.features, "dr_m"))
    np.testing.assert_array_equal(found.values, explained.values[:, 2])
    np.testing.assert_array_equal(found.colour, explained.features[:, 3])
    assert set(explained.arrays()) == {"features", "values", "outputs", "labels"}
    assert json.dumps(explained.record(), allow_nan=False)


# ---------------------------------------------------------------- boundary


def test_the_boundary_of_box_cuts_is_a_box(pair_maker):
    x = features_of(pair_maker.ibd(np.random.default_rng(1), 300))
    box = BoxCuts(dr_m=1.5, dt_ms=1.0)
    found = ex.boundary(box, x, 0.0, dr_m=[0.0, 1.4, 1.6], dt_us=[10.0, 990.0, 1010.0], pairs=50)
    np.testing.assert_array_equal(found.kept, [[1, 1, 0], [1, 1, 0], [0, 0, 0]])
    energy = BoxCuts(delayed_MeV=((1.9, 2.5),))
    some = ex.boundary(energy, x, 0.0, dr_m=[1.0], dt_us=[1.0], pairs=300)
    assert some.kept[0, 0] == pytest.approx(energy.passes(x).mean())
    assert json.dumps(some.record())


# ---------------------------------------------------------------- shap


@pytest.mark.slow
def test_shap_finds_the_same(pairs, background):
    pytest.importorskip("shap")
    exact = ex.explain_exactly(Toy(three), pairs[0][:2], background)
    assert max(ex.against_shap(Toy(three), exact, background, pairs=2).values()) < 1e-9
    theirs = ex.as_shap(exact)
    np.testing.assert_allclose(theirs.values.sum(axis=1) + theirs.base_values, exact.outputs)


# ---------------------------------------------------------------- bad input


GOOD = np.zeros((4, 10), np.float32)
BAD = {
    "groups": (lambda: ex.Background(GOOD, 3), "groups of one size"),
    "no rows": (lambda: ex.Background(GOOD[:0]), "groups of one size"),
    "rows": (lambda: ex.balanced_background(GOOD, GOOD, rows=7, groups=1), "half of each class"),
    "few": (lambda: ex.balanced_background(GOOD, GOOD, rows=10, groups=1), "at least 5 antineutrinos"),
    "output": (lambda: ex.explain(Toy(linear), GOOD, ex.Background(GOOD), output="odds"), "probability, logit"),
    "none": (lambda: ex.explain(Toy(linear), GOOD[:0], ex.Background(GOOD)), "at least one pair"),
    "shape": (lambda: ex.explain(Toy(linear), GOOD[:, :9], ex.Background(GOOD)), "features"),
    "labels": (lambda: ex.explain(Toy(linear), GOOD, ex.Background(GOOD), labels=[0, 1, 2, 1]), "0 or 1"),
    "cuts": (
        lambda: ex.explain(BoxCuts(dr_m=1.0), GOOD, ex.Background(GOOD), output="logit"),
        "explain the probability",
    ),
    "one group": (
        lambda: ex.importance(ex.explain(Toy(linear), GOOD, ex.Background(GOOD))),
        "at least 2 groups",
    ),
    "no labels": (lambda: ex.explain(Toy(linear), GOOD, ex.Background(GOOD)).typical(1), "expected labels"),
    "grid": (lambda: ex.boundary(Toy(linear), GOOD, 0.0, dr_m=[-1.0]), "not negative"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name):
    call, words = BAD[name]
    with pytest.raises(NuebarError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_cuts_have_values_of_their_probability():
    x = np.zeros((2, 10), np.float32)
    x[1, 2] = 5.0
    found = ex.explain(BoxCuts(dr_m=1.0), x, ex.Background(x, 2), labels=[1, 0])
    np.testing.assert_allclose(found.values[:, 2], [0.5, -0.5])
    assert found.base == 0.5
