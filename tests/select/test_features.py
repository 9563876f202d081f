"""The ten features: what moves them, what does not, and what is refused."""

import math

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.select.features import FEATURE_RECORDS, FEATURES, PAIR_COLUMNS, column, features_of

ORDER = (
    "r3_prompt_m3",
    "r3_delayed_m3",
    "dr_m",
    "dt_us",
    "e_prompt_MeV",
    "e_delayed_MeV",
    "cos_theta_prompt",
    "cos_theta_delayed",
    "phi_prompt",
    "phi_delayed",
)


def random_pairs(n=2000, seed=1):
    rng = np.random.default_rng(seed)
    pairs = {}
    for part in ("prompt", "delayed"):
        pairs[f"{part}_e_rec_MeV"] = rng.uniform(0.7, 12, n)
        for axis in "xyz":
            pairs[f"{part}_{axis}_m"] = rng.normal(0, 8, n)
    pairs["dt_ns"] = rng.integers(0, 2_000_000, n)
    return pairs


def moved(pairs, matrix, shift=(0.0, 0.0, 0.0)):
    """Both vertices rotated and shifted."""
    out = dict(pairs)
    for part in ("prompt", "delayed"):
        place = matrix @ np.array([pairs[f"{part}_{axis}_m"] for axis in "xyz"]) + np.array(shift)[:, None]
        out |= {f"{part}_{axis}_m": row for axis, row in zip("xyz", place, strict=True)}
    return out


def about_z(angle):
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def any_rotation(seed):
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.diag(r))


def test_names_and_order():
    assert FEATURES == ORDER == tuple(r.name for r in FEATURE_RECORDS)
    for record in FEATURE_RECORDS:
        assert record.unit in ("", "rad") or record.name.endswith(f"_{record.unit}")
        assert record.low < record.high
        assert record.meaning


def test_one_pair_by_hand():
    pairs = {
        "prompt_e_rec_MeV": [3.5],
        "prompt_x_m": [0.0],
        "prompt_y_m": [3.0],
        "prompt_z_m": [4.0],
        "delayed_e_rec_MeV": [2.25],
        "delayed_x_m": [-1.0],
        "delayed_y_m": [3.0],
        "delayed_z_m": [4.0],
        "dt_ns": [215_000],
    }
    r = math.sqrt(26)
    want = [125, r**3, 1, 215, 3.5, 2.25, 0.8, 4 / r, math.pi / 2, math.atan2(3, -1)]
    got = features_of({name: np.array(v) for name, v in pairs.items()})
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got[0], np.array(want, np.float32))


def test_shape_and_ranges():
    got = features_of(random_pairs(5000))
    assert got.shape == (5000, 10)
    assert got.flags.c_contiguous
    for k, record in enumerate(FEATURE_RECORDS):
        assert got[:, k].min() >= record.low
        assert got[:, k].max() <= record.high
    assert features_of(random_pairs(0)).shape == (0, 10)


@pytest.mark.parametrize("angle", [0.3, -2.0, math.pi, 6.0])
def test_rotation_about_z_moves_phi_only(angle):
    pairs = random_pairs()
    before, after = features_of(pairs), features_of(moved(pairs, about_z(angle)))
    np.testing.assert_allclose(after[:, :8], before[:, :8], rtol=1e-6, atol=1e-6)
    turned = after[:, 8:].astype(float) - before[:, 8:] - angle
    np.testing.assert_allclose(np.exp(1j * turned), 1, atol=1e-5)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rotation_keeps_radii_and_distance(seed):
    pairs = random_pairs()
    before, after = features_of(pairs), features_of(moved(pairs, any_rotation(seed)))
    np.testing.assert_allclose(after[:, :6], before[:, :6], rtol=1e-6)
    assert np.abs(after[:, 6:] - before[:, 6:]).max() > 0.1


def test_distance_does_not_know_the_place():
    pairs = random_pairs()
    there = moved(pairs, any_rotation(7), shift=(3.0, -20.0, 11.0))
    np.testing.assert_allclose(column(features_of(there), "dr_m"), column(features_of(pairs), "dr_m"), rtol=1e-5)


def test_scaling():
    """Lengths × 2: r³ × 8, dr × 2, angles as before."""
    pairs = random_pairs()
    before, after = features_of(pairs), features_of(moved(pairs, 2 * np.eye(3)))
    factors = np.array([8, 8, 2, 1, 1, 1, 1, 1, 1, 1], np.float32)
    np.testing.assert_array_equal(after, before * factors)


def test_exchange_of_both_events():
    pairs = random_pairs()
    other = {"prompt": "delayed", "delayed": "prompt"}
    swapped = {
        (f"{other[name.partition('_')[0]]}_{name.partition('_')[2]}" if name != "dt_ns" else name): values
        for name, values in pairs.items()
    }
    np.testing.assert_array_equal(features_of(swapped), features_of(pairs)[:, [1, 0, 2, 3, 5, 4, 7, 6, 9, 8]])


def test_mirror_in_z():
    pairs = random_pairs()
    before, after = features_of(pairs), features_of(moved(pairs, np.diag([1.0, 1.0, -1.0])))
    signs = np.array([1, 1, 1, 1, 1, 1, -1, -1, 1, 1], np.float32)
    np.testing.assert_array_equal(after, before * signs)


def test_centre_axis_and_signed_zero():
    pairs = random_pairs(4)
    for part in ("prompt", "delayed"):
        pairs[f"{part}_x_m"] = np.array([0.0, -0.0, 0.0, -1.0])
        pairs[f"{part}_y_m"] = np.array([0.0, -0.0, -0.0, -0.0])
        pairs[f"{part}_z_m"] = np.array([0.0, -0.0, 5.0, 0.0])
    got = features_of(pairs)
    np.testing.assert_array_equal(column(got, "cos_theta_prompt"), [0, 0, 1, 0])
    np.testing.assert_array_equal(column(got, "phi_delayed"), np.array([0, 0, 0, math.pi], np.float32))
    assert not got[:2, 2].any()


def test_float32_files_and_chunks_give_the_same_rows():
    pairs = {name: v.astype(np.float32) for name, v in random_pairs().items()}
    whole = features_of(pairs)
    parts = [features_of({name: v[a:b] for name, v in pairs.items()}) for a, b in ((0, 1), (1, 700), (700, 2000))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_column_is_a_view_by_name():
    got = features_of(random_pairs(5))
    for k, name in enumerate(FEATURES):
        assert np.shares_memory(column(got, name), got)
        np.testing.assert_array_equal(column(got, name), got[:, k])
    with pytest.raises(NuebarError, match="unknown feature 'dr'; did you mean 'dr_m'"):
        column(got, "dr")
    with pytest.raises(NuebarError, match=r"shape \(n, 10\), got \(5, 9\)"):
        column(got[:, :9], "dr_m")


@pytest.mark.parametrize("name", PAIR_COLUMNS)
def test_missing_column(name):
    pairs = random_pairs(3)
    del pairs[name]
    with pytest.raises(NuebarError, match=f"missing column '{name}'"):
        features_of(pairs)


@pytest.mark.parametrize("name", PAIR_COLUMNS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_finite(name, value):
    pairs = random_pairs(9)
    pairs[name] = pairs[name].astype(float)
    pairs[name][6] = value
    with pytest.raises(NuebarError, match=f"column '{name}', row 6: expected a finite number"):
        features_of(pairs)


@pytest.mark.parametrize("name", ["dt_ns", "prompt_e_rec_MeV", "delayed_e_rec_MeV"])
def test_negative(name):
    pairs = random_pairs(9)
    pairs[name][[4, 7]] = -1
    with pytest.raises(NuebarError, match=f"column '{name}', row 4: expected a finite number, not below 0, got -1.0"):
        features_of(pairs)


def test_lengths_types_and_overflow():
    pairs = random_pairs(9)
    with pytest.raises(NuebarError, match="column 'dt_ns': expected 9 rows"):
        features_of(pairs | {"dt_ns": np.zeros(8)})
    with pytest.raises(NuebarError, match="column 'prompt_x_m': expected one number a pair"):
        features_of(pairs | {"prompt_x_m": np.zeros((9, 3))})
    with pytest.raises(NuebarError, match="row 0: r3_prompt_m3 is too large"):
        features_of(pairs | {"prompt_x_m": np.full(9, 1e20)})
