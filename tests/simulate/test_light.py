"""Charge and reconstructed energy: moments and shape of a compound Poisson sum, and nothing that depends on order."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from nuebar.errors import NuebarError
from nuebar.physics.scintillator import N_H_GAMMA_MeV
from nuebar.simulate import light
from nuebar.simulate.detector import DetectorModel, gamma_cascades
from nuebar.simulate.light import (
    EXACT_BELOW,
    Electronics,
    charge,
    deposit_photons,
    draw_block,
    reconstruct,
    require_electronics,
)
from nuebar.simulate.random import DRAWS_PER_EVENT, derive_key
from nuebar.simulate.uniformity import flat_map

KEY = derive_key(7, "light")
JUNO_LIKE = Electronics(0.17, 0.32, 148.0, 0.0)
QUIET = Electronics(0.17, 0.32, 0.0, 0.0)
PURE = Electronics(0.17, 0.0, 0.0, 0.0)
N = 20_000


def charges(mean_pe, electronics, key=KEY, n=N):
    return np.array([charge(mean_pe, electronics, key, np.uint64(k * DRAWS_PER_EVENT)) for k in range(n)])


def compound_cdf(q, mean, sigma):
    """Distribution function of a Poisson number of Gaussian charges of mean 1 and this spread."""
    n = np.arange(1, int(mean + 10 * math.sqrt(mean) + 20))
    per_n = stats.norm.cdf((np.asarray(q)[..., None] - n) / (sigma * np.sqrt(n)))
    return per_n @ stats.poisson.pmf(n, mean) + math.exp(-mean) * (np.asarray(q) >= 0)


MEANS = [0.5, 3.0, 30.0, EXACT_BELOW - 0.01, EXACT_BELOW + 0.01, 150.0, 1000.0, 10_000.0]


@pytest.mark.parametrize("mean_pe", MEANS)
@pytest.mark.parametrize("electronics", [QUIET, JUNO_LIKE, PURE], ids=["quiet", "dark", "pure"])
def test_moments_of_the_charge(mean_pe, electronics):
    q = charges(mean_pe, electronics)
    total, s2 = mean_pe + electronics.dark_pe, electronics.charge_sigma**2
    variance = total * (1 + s2)
    skewness = (1 + 3 * s2) / ((1 + s2) * math.sqrt(variance))
    kurtosis = (1 + 6 * s2 + 3 * s2**2) / ((1 + s2) * variance)
    assert q.mean() == pytest.approx(mean_pe, abs=4 * math.sqrt(variance / N))  # dark counts are subtracted
    assert q.var() == pytest.approx(variance, rel=4 * math.sqrt((2 + kurtosis) / N))
    error = math.sqrt((6 + 9 * kurtosis + 40 * skewness**2) / N)  # leading terms for a nearly normal sample
    assert stats.skew(q) == pytest.approx(skewness, abs=4 * error)


@pytest.mark.parametrize("mean_pe", [EXACT_BELOW - 0.01, EXACT_BELOW + 0.01, 200.0])
@pytest.mark.parametrize("sigma", [0.2, 0.32, 1.0])
def test_distribution_of_the_charge(mean_pe, sigma):
    q = charges(mean_pe, Electronics(0.17, sigma, 0.0, 0.0), n=8000)
    assert stats.kstest(q, lambda x: compound_cdf(x, mean_pe, sigma)).pvalue > 1e-3


@pytest.mark.parametrize("sigma", [0.2, 0.32, 1.0])
def test_quantiles_just_above_the_switch(sigma, monkeypatch):
    # There the expansion is worst: off by 1e-3 of a standard deviation within 3 σ and 4e-3 within 4 σ.
    z = np.linspace(-4, 4, 33)
    draws = iter(z)
    monkeypatch.setattr(light, "normal", lambda key, counter: next(draws))
    electronics = Electronics(0.17, sigma, 0.0, 0.0)
    q = np.array([charge.py_func(EXACT_BELOW, electronics, KEY, np.uint64(0)) for _ in z])
    assert np.all(np.diff(q) > 0)
    p = compound_cdf(q, EXACT_BELOW, sigma)
    off = np.where(z < 0, stats.norm.ppf(p), -stats.norm.isf(p)) - z
    assert np.abs(off[np.abs(z) <= 3]).max() < 1e-3
    assert np.abs(off).max() < 4e-3


@pytest.mark.parametrize(("constant", "mean_pe"), [(0.01, 2000.0), (0.05, 30.0)])
def test_constant_term_spreads_the_whole_charge(constant, mean_pe):
    q = charges(mean_pe, QUIET._replace(constant=constant))
    variance = mean_pe * (1 + 0.32**2) * (1 + constant**2) + (constant * mean_pe) ** 2
    assert q.mean() == pytest.approx(mean_pe, abs=4 * math.sqrt(variance / N))
    assert q.var() == pytest.approx(variance, rel=0.05)


def test_without_light_there_is_noise_alone():
    assert not charges(0.0, QUIET, n=100).any()
    dark = charges(0.0, QUIET._replace(dark_pe=20.0))
    assert dark.mean() == pytest.approx(0, abs=4 * math.sqrt(20 * 1.1 / N))
    assert dark.min() < 0


# ---------------------------------------------------------------- deposits


def test_photons_are_sums_over_deposits():
    rng = np.random.default_rng(3)
    counts = np.array([0, 3, 1, 0, 7, 0])
    offsets = np.concatenate([[0], np.cumsum(counts)])
    codes, table = rng.integers(0, 65_536, offsets[-1]).astype(np.uint16), rng.random(65_536)
    out = np.full(counts.size, np.nan)
    deposit_photons(codes, offsets, table, out)
    expected = [table[codes[a:b]].sum() for a, b in itertools.pairwise(offsets)]
    np.testing.assert_allclose(out, expected, rtol=1e-14)


@pytest.mark.parametrize("cascades", [1, 2, 7, 1000])
def test_blocks_begin_at_every_cascade_alike(cascades):
    n = 7000
    starts = [draw_block((i + 0.5) / n, cascades) for i in range(n)]
    counts = np.bincount(starts, minlength=cascades)
    assert counts.size == cascades
    assert np.ptp(counts) <= 1
    assert draw_block(np.nextafter(1.0, 0.0), cascades) == cascades - 1


# ---------------------------------------------------------------- reconstruction


def reconstructed(photons, *, first_event=0, electronics=QUIET, sigma_m=0.1, pe_per_MeV=1600.0, position_m=None):
    n = len(photons)
    place = np.zeros((n, 3)) if position_m is None else position_m
    n_pe, e_rec, vertex = np.empty(n), np.empty(n), np.empty((n, 3))
    maps = flat_map(17.7)
    reconstruct(photons, place, maps, electronics, sigma_m, pe_per_MeV, KEY, first_event, n_pe, e_rec, vertex)
    return n_pe, e_rec, vertex


def test_an_event_depends_on_its_number_alone():
    photons = np.linspace(1e3, 1e5, 100)
    whole = reconstructed(photons)
    for a, b in ((0, 40), (40, 41), (41, 100)):
        part = reconstructed(photons[a:b], first_event=a)
        for x, y in zip(whole, part, strict=True):
            np.testing.assert_array_equal(x[a:b], y)
    other = reconstructed(photons, first_event=100)
    assert not np.any(other[0] == whole[0])


@pytest.mark.parametrize("e_MeV", [0.2, 1.0, 4.0, 9.0])
def test_vertex_resolution_goes_as_one_over_the_root(e_MeV):
    photons = np.full(N, e_MeV * 1600 / QUIET.pe_per_photon)
    place = np.tile([1.0, -2.0, 3.0], (N, 1))
    n_pe, e_rec, vertex = reconstructed(photons, position_m=place)
    off = vertex - place
    assert np.abs(off.mean(axis=0)).max() < 4.5 * 0.1 / math.sqrt(e_MeV * N)
    np.testing.assert_allclose(off.std(axis=0), 0.1 / math.sqrt(e_MeV), rtol=0.03)
    assert np.abs(np.corrcoef(np.c_[off, n_pe].T) - np.eye(4)).max() < 4.5 / math.sqrt(N)
    np.testing.assert_allclose(e_rec, n_pe / 1600, rtol=1e-14)  # a flat map corrects nothing


def test_events_without_light_have_a_place():
    for column in reconstructed(np.zeros(50)):
        assert np.all(np.isfinite(column))


def test_neutron_captures_at_the_centre_read_their_energy(juno):
    model = DetectorModel.build(juno)
    pool = gamma_cascades((N_H_GAMMA_MeV,), N, derive_key(7, "n-H"))
    columns = model.reconstruct(pool.photons(model.light), np.zeros((N, 3)), KEY)
    e_rec = columns["e_rec_MeV"]
    # 1.9e-5 of the scale: statistics of the anchor; vertices off the centre by 7 cm see 2e-6 more light.
    assert e_rec.mean() == pytest.approx(N_H_GAMMA_MeV, abs=4 * e_rec.std() / math.sqrt(N) + 6e-5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"pe_per_photon": 0.0}, "detector.pe_per_photon: expected a positive number, got 0; there would be no light"),
        ({"pe_per_photon": -0.1}, "detector.pe_per_photon: expected a number that is not negative, got -0.1"),
        ({"charge_sigma": math.nan}, "detector.charge_sigma: expected a number that is not negative, got nan"),
        ({"dark_pe": math.inf}, "detector.dark_pe: expected a number that is not negative, got inf"),
        ({"constant": -1e-3}, "detector.constant: expected a number that is not negative"),
    ],
)
def test_electronics_are_checked(change, sentence):
    with pytest.raises(NuebarError, match=sentence):
        require_electronics(QUIET._replace(**change))
    assert require_electronics(QUIET) is QUIET


def test_the_detector_checks_its_electronics(juno):
    with pytest.raises(NuebarError, match="pe_per_photon"):
        DetectorModel.build(replace(juno, detector=replace(juno.detector, pe_per_photon=0.0)))
