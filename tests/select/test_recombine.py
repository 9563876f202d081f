"""Recombined singles: the same background as all pairs, as a formula, and as their own error says."""

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.select.config import PairSettings
from nuebar.select.recombine import recombine, singles_of_pairs
from nuebar.select.scores import ScoreSample, shares

SETTINGS = PairSettings(window_ms=2.0, threshold_MeV=0.7)
RADIUS = 10.0


def ball(n, seed):
    """Singles that are even in a ball, with energies of 0.7 MeV + an exponential of 1 MeV."""
    rng = np.random.default_rng(seed)
    place = rng.normal(size=(n, 3))
    place *= RADIUS * (rng.random(n) ** (1 / 3) / np.linalg.norm(place, axis=1))[:, None]
    return {"e_rec_MeV": 0.7 + rng.exponential(1.0, n), **{f"{a}_m": place[:, i] for i, a in enumerate("xyz")}}


def close(d):
    """Chance that two points in a ball of radius R are closer than d: x³ − 9 x⁴/16 + x⁶/32 with x = d/R (Santaló)."""
    x = d / RADIUS
    return x**3 - 9 / 16 * x**4 + x**6 / 32


def selected(features, dr_m, dt_us=np.inf, low=1.9, high=2.5):
    x = features.astype(float)
    return (x[:, 2] < dr_m) & (x[:, 3] < dt_us) & (x[:, 5] > low) & (x[:, 5] < high)


def all_pairs(singles):
    place = np.stack([singles[f"{a}_m"] for a in "xyz"], axis=1)
    distance = np.linalg.norm(place[:, None] - place[None], axis=2)
    np.fill_diagonal(distance, np.nan)
    return distance


@pytest.mark.parametrize(
    ("bands", "shells"), [((1.7, 2.7), (1.0, 2.0)), ((2.0,), (0.9, 1.1, 4.0)), ((), (30.0,)), ((), ())]
)
def test_unbiased_for_the_singles_at_hand(bands, shells):
    """Means over many draws agree with the sum over all pairs, whatever the strata; numbers of pairs are exact."""
    singles = ball(150, 1)
    distance, energy = all_pairs(singles), singles["e_rec_MeV"]
    estimates = []
    for seed in range(25):
        made = recombine(singles, SETTINGS, per_stratum=500, bands_MeV=bands, shells_m=shells, seed=seed)
        estimates.append([made.weights[selected(made.features(), d)].sum() for d in (1.5, 3.0, 25.0)])
    want = [((distance < d) & (energy > 1.9) & (energy < 2.5)).sum() / (150 * 149) for d in (1.5, 3.0, 25.0)]
    mean, error = np.mean(estimates, axis=0), np.std(estimates, axis=0) / np.sqrt(25)
    assert np.all(np.abs(mean - want) < 4 * error + 1e-12)
    for s in made.strata:
        inside = (distance > s.dr_m[0]) & (distance <= s.dr_m[1])
        band = (energy >= s.delayed_MeV[0]) & (energy < s.delayed_MeV[1])
        assert s.pairs == (inside & band[None, :]).sum()
    assert sum(s.pairs for s in made.strata) == 150 * 149


def test_every_pair_of_a_stratum_has_the_same_chance():
    singles = ball(40, 5)
    made = recombine(singles, SETTINGS, per_stratum=20_000, bands_MeV=(), shells_m=(5.0,))
    code = made.prompt * 40 + made.delayed
    distance = all_pairs(singles)
    for stratum, rows in zip(made.strata, np.split(code, 2), strict=True):
        allowed = np.flatnonzero(((distance > stratum.dr_m[0]) & (distance <= stratum.dr_m[1])).ravel())
        found = np.bincount(rows, minlength=1600)
        assert found[allowed].sum() == 20_000
        chi2 = ((found[allowed] - 20_000 / allowed.size) ** 2).sum() / (20_000 / allowed.size)
        assert abs(chi2 - allowed.size) < 5 * np.sqrt(2 * allowed.size)


def test_known_answer_within_its_own_error():
    """P(ΔR < d) P(Δt < t) P(E_d) by formula, over samples of singles: pulls have mean 0 and width 1.

    The width is that of U-statistics: the pairs of one sample share singles.
    """
    truth = close(1.5) * 0.5 * (np.exp(-1.2) - np.exp(-1.8))
    assert truth == pytest.approx(2.1e-4, rel=1e-3)
    pulls, naive, options = [], [], {"per_stratum": 1500, "bands_MeV": (1.9, 2.5), "shells_m": (1.5, 4.0)}
    for seed in range(50):
        made = recombine(ball(1000, 100 + seed), SETTINGS, seed=seed, **options)
        score = selected(made.features(), 1.5, 1000.0).astype(float)
        for into, clusters in ((pulls, made.clusters), (naive, None)):
            sample = ScoreSample.of(score, made.weights, clusters=clusters).kept([0.5])
            into.append((sample.share[0] - truth) / np.sqrt(sample.variance[0]))
    assert abs(np.mean(pulls)) < 0.5
    assert 0.75 < np.std(pulls) < 1.3
    assert np.std(naive) > 2  # pairs drawn again and again are no new events


def test_background_of_one_in_a_hundred_million():
    """3000 singles resolve 1e-8, of which as many independent pairs would hold none."""
    d, t = 0.2, 20.0
    truth = close(d) * t / 2000 * (np.exp(-1.2) - np.exp(-1.8))
    assert 1e-8 < truth < 2e-8
    found = []
    options = {"per_stratum": 5_000, "bands_MeV": (1.9, 2.5), "shells_m": (0.2, 1.5)}
    for seed in range(3):
        made = recombine(ball(3000, seed), SETTINGS, seed=seed, **options)
        sample = ScoreSample.of(selected(made.features(), d, t).astype(float), made.weights, clusters=made.clusters)
        found += shares(sample.kept([0.5]))
    values, errors = np.array([s.value for s in found]), np.array([(s.high - s.low) / 2 for s in found])
    assert values.mean() == pytest.approx(truth, abs=3.5 * np.sqrt((errors**2).sum()) / 3)
    assert np.all(errors < truth)


def test_columns_weights_and_times():
    singles = ball(300, 3)
    singles["e_rec_MeV"][:50] = 0.5
    made = recombine(singles, SETTINGS, per_stratum=2000)
    assert made.singles == 250
    assert made.weights.sum() == pytest.approx(1, rel=1e-12)
    assert np.all(made.prompt != made.delayed)
    x = made.features()
    assert x[:, 4:6].min() > 0.7
    assert 0 <= made.pairs["dt_ns"].min() < 2e3
    assert 1.999e6 < made.pairs["dt_ns"].max() < 2e6
    # Prompt and delayed are what the numbers say.
    kept = np.flatnonzero(singles["e_rec_MeV"] > 0.7)
    np.testing.assert_array_equal(made.pairs["prompt_x_m"], singles["x_m"][kept][made.prompt])
    np.testing.assert_array_equal(made.pairs["delayed_e_rec_MeV"], singles["e_rec_MeV"][kept][made.delayed])
    for s, rows in zip(made.strata, np.split(x, len(made.strata)), strict=True):
        assert np.all((rows[:, 5] >= np.float32(s.delayed_MeV[0])) & (rows[:, 5] <= np.float32(s.delayed_MeV[1])))
        assert np.all((rows[:, 2] >= np.float32(s.dr_m[0])) & (rows[:, 2] <= np.float32(s.dr_m[1])))
    record = made.record()
    assert record["strata"][0]["delayed_MeV"] == [None, 1.7]
    assert len(record["strata"]) == len(made.strata)


def test_seeds():
    singles = ball(200, 4)
    one, same, other = (recombine(singles, SETTINGS, per_stratum=100, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.features(), same.features())
    assert not np.array_equal(one.prompt, other.prompt)


def test_pairs_become_singles():
    pairs = {f"{part}_{name}": np.array([k + 0.0, k + 1.0]) for k, part in ((0, "prompt"), (5, "delayed"))
             for name in ("e_rec_MeV", "x_m", "y_m", "z_m")}  # fmt: skip
    assert singles_of_pairs(pairs)["y_m"].tolist() == [0, 1, 5, 6]
    del pairs["delayed_z_m"]
    with pytest.raises(NuebarError, match="delayed_z_m"):
        singles_of_pairs(pairs)


@pytest.mark.parametrize(
    ("change", "options", "word"),
    [
        ({"x_m": np.full(20, np.nan)}, {}, "'x_m', row 0"),
        ({"x_m": np.zeros(3)}, {}, "'x_m'"),
        ({"e_rec_MeV": np.full(20, 0.5)}, {}, "at least two above 0.7"),
        ({}, {"per_stratum": 0}, "per_stratum"),
        ({}, {"bands_MeV": (2.0, 1.0)}, "bands_MeV"),
        ({}, {"shells_m": (-1.0,)}, "shells_m"),
    ],
)
def test_refusals(change, options, word):
    with pytest.raises(NuebarError, match=word):
        recombine({**ball(20, 1), **change}, SETTINGS, **options)
    with pytest.raises(NuebarError, match="z_m"):
        recombine({k: v for k, v in ball(20, 1).items() if k != "z_m"}, SETTINGS)
