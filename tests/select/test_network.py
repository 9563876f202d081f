"""The network: its size, its map, its bits, its slope; and close pairs, whose weights undo what was done."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.select.classifier import Classifier, score_in_chunks
from nuebar.select.features import FEATURES, column, features_of
from nuebar.select.near import NearPairs, Singles, mixed, near_pairs
from nuebar.select.network import BLOCK_ROWS, HIDDEN, INPUTS, WEIGHTS, new_network, skeleton


def features(n=3000, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.random((n, 10)) * [5500, 5500, 30, 2000, 10, 5, 1, 1, 3, 3]
    return x.astype(np.float32)


@pytest.fixture(scope="module", params=INPUTS)
def network(request):
    return new_network(3, features(), inputs=request.param)


def test_published_size(network):
    assert network.hidden == HIDDEN == (96, 240, 240)
    assert network.n_weights == WEIGHTS == 10 * 96 + 96 + 96 * 240 + 240 + 240 * 240 + 240 + 240 + 1
    assert isinstance(network, Classifier)


def test_score_is_the_formula(network):
    """Against an independent evaluation in float64."""
    x = features(50, 7).astype(np.float64)
    if network.inputs == "shaped":
        x[:, FEATURES.index("dr_m")] = np.log(x[:, FEATURES.index("dr_m")] + 0.1)
    h = (x - np.asarray(network.shift, float)) / np.asarray(network.scale, float)
    for k, (w, b) in enumerate(zip(network.weights, network.biases, strict=True)):
        h = h @ np.asarray(w, float) + np.asarray(b, float)
        h = np.maximum(h, 0) if k < 3 else h[:, 0]
    score = network.score(features(50, 7))
    assert score.dtype == np.float64
    np.testing.assert_allclose(score, h, rtol=1e-4, atol=1e-4)


def test_inputs_are_standardised(network):
    from nuebar.select.network import mapped

    x = (np.asarray(mapped(jnp.asarray(features()), network.inputs)) - network.shift) / network.scale
    np.testing.assert_allclose(np.mean(x, axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(np.std(x, axis=0), 1, atol=1e-3)


def test_a_row_does_not_know_the_others(network):
    x = features(2 * BLOCK_ROWS + 5, 2)
    whole = network.score(x)
    np.testing.assert_array_equal(whole, score_in_chunks(network, x, chunk_rows=777))
    np.testing.assert_array_equal(network.score(x[-1:]), whole[-1:])
    assert network.score(x[:0]).shape == (0,)


def test_slope(network):
    """The gradient in the features is that of finite differences."""
    with jax.enable_x64(True):
        x = jnp.asarray(features(1, 5)[0], jnp.float32)
        slope = jax.grad(lambda v: network.logits(v))(x)
        for k in (2, 3, 4):
            step = jnp.zeros(10, jnp.float32).at[k].set(3e-3)
            numeric = (network.logits(x + step) - network.logits(x - step)) / 6e-3
            np.testing.assert_allclose(slope[k], numeric, rtol=0.05, atol=5e-3)


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (np.zeros((3, 9), np.float32), "10"),
        (np.full((2, 10), np.nan, np.float32), "row 0, column 'r3_prompt_m3'"),
        (np.zeros((3, 10)), "float32"),
    ],
)
def test_wrong_features(network, x, told):
    with pytest.raises(NuebarError, match=told):
        network.score(x)


@pytest.mark.parametrize(
    ("hidden", "inputs"), [((), "linear"), ((0,), "linear"), ((96,), "cubic"), ((9999,), "linear")]
)
def test_wrong_settings(hidden, inputs):
    with pytest.raises(NuebarError):
        skeleton(hidden, inputs)


def test_constant_feature():
    x = features(100)
    x[:, 3] = 1.0
    with pytest.raises(NuebarError, match="dt_us"):
        new_network(1, x)


# ---------------------------------------------------------------- close pairs


@pytest.fixture(scope="module")
def accidentals(pair_maker):
    return features_of(pair_maker.accidentals(np.random.default_rng(4), 400_000))


@pytest.fixture(scope="module")
def near(accidentals):
    return NearPairs.of(accidentals[:200_000], 2000.0)


def test_close_pairs_count_as_accidentals(near, accidentals):
    """Weighted, the mixture has the moments of accidentals, and as many of them near signal: 20 times more pairs."""
    x, log_ratio = mixed(near, accidentals[:100_000], Singles(accidentals[200_000:]), np.random.default_rng(1))
    weight = np.exp(-log_ratio)
    assert np.all(weight <= 1 / (1 - near.share) + 1e-12)
    error = weight.std() / np.sqrt(len(x))
    assert abs(weight.mean() - 1) < 5 * error
    for name in FEATURES:
        a, b = column(x, name).astype(float), column(accidentals, name).astype(float)
        spread = np.std(weight * (a - b.mean())) / np.sqrt(len(a)) + b.std() / np.sqrt(len(b))
        assert abs(np.mean(weight * (a - b.mean()))) < 5 * spread, name
    for low, high in ((0.0, 2.0), (2.0, 4.0)):
        inside = (column(x, "dr_m") >= low) & (column(x, "dr_m") < high)
        plain = np.mean((column(accidentals, "dr_m") >= low) & (column(accidentals, "dr_m") < high))
        share, error = np.mean(weight * inside), np.std(weight * inside) / np.sqrt(len(x))
        assert abs(share - plain) < 5 * np.hypot(error, np.sqrt(plain / len(accidentals)))
    assert np.sum(column(x, "dr_m") < 2.0) > 20 * np.mean(column(accidentals, "dr_m") < 2.0) * len(x)


def test_close_pairs_are_consistent(near, accidentals):
    """ΔR is that of the two places."""
    x = near_pairs(near, accidentals[:5000], Singles(accidentals[200_000:]), np.random.default_rng(2)).astype(float)
    r, s = np.cbrt(x[:, 0]), np.cbrt(x[:, 1])

    def place(radius, cos, phi):
        sin = np.sqrt(1 - cos**2)
        return radius[:, None] * np.stack([sin * np.cos(phi), sin * np.sin(phi), cos], axis=1)

    dr = np.linalg.norm(place(r, x[:, 6], x[:, 8]) - place(s, x[:, 7], x[:, 9]), axis=1)
    np.testing.assert_allclose(dr, x[:, 2], rtol=1e-3, atol=3e-3)
    assert x[:, 3].max() <= 2000
    assert np.abs(x[:, 8:]).max() <= np.pi + 1e-6


def test_no_share_is_no_change(near, accidentals):
    plain = NearPairs(near.r3_m3, near.window_us, share=0.0)
    x, log_ratio = mixed(plain, accidentals[:100], Singles(accidentals), np.random.default_rng(1))
    np.testing.assert_array_equal(x, accidentals[:100])
    assert not np.any(log_ratio)
