"""Photon cascades against analytic laws and the tables that they are made from."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import cumulative_trapezoid, trapezoid

from nuebar.errors import NuebarError
from nuebar.physics.constants import AVOGADRO_per_mol, CLASSICAL_ELECTRON_RADIUS_cm, ELECTRON_MASS_MeV
from nuebar.physics.materials import load_material
from nuebar.simulate.deposits import ELECTRON_CODES, MAX_ELECTRON_MeV, code_energies_MeV
from nuebar.simulate.detector import gamma_cascades
from nuebar.simulate.gammas import (
    LOWEST_PHOTON_MeV,
    RADIATING_MeV,
    compton,
    electron_tables,
    follow_gamma,
    interaction,
    may_radiate,
    photon_tables,
    stop_electron,
    stop_positron,
)
from nuebar.simulate.random import DRAWS_PER_EVENT, derive_key, uniform

ME = ELECTRON_MASS_MeV
KEY = derive_key(5, "gammas")
PHOTONS, ELECTRONS = photon_tables(), electron_tables()
LAB = load_material("lab")
T_GRID = np.arange(ELECTRONS.hazard.size) * ELECTRONS.step_MeV
COMPTON, PAIR, PHOTO = 0, 1, 2


def first_draw(event):
    return np.uint64(event * DRAWS_PER_EVENT)


def integral(function, low, high):
    """∫ of a function of arrays by the trapezoid rule, even in ln x: good to 1e-6 here."""
    x = np.geomspace(low, high, 4001)
    return float(trapezoid(function(x), x))


def closure_bound(pool):
    """How far rounding of √T to the grid can move the energy of each cascade, and a few dropped deposits."""
    h = math.sqrt(MAX_ELECTRON_MeV) / (ELECTRON_CODES - 1)
    return pool.photons(np.sqrt(code_energies_MeV()) * h + h * h / 4) + 20 * h * h / 4


def stopped(t_MeV, key=KEY, n=4000, *, positron=False):
    """Photons and track of each of n particles."""
    stop = stop_positron if positron else stop_electron
    photons, tracks = [], np.zeros(n)
    stack, codes, energy = np.empty(64), np.empty(8, np.uint16), code_energies_MeV()
    for k in range(n):
        _, depth, deposits = stop(t_MeV, ELECTRONS, key, first_draw(k), stack, 0, codes, 0)
        photons.append(stack[:depth].copy())
        tracks[k] = energy[codes[:deposits]].sum()
    return photons, tracks


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize("material", ["lab", "acrylic", "water", "steel"])
def test_photon_tables_are_those_of_the_material(material):
    tables, substance = photon_tables(material), load_material(material)
    e = np.exp(np.linspace(math.log(1.2e-3), math.log(14.9), 301))
    grid = np.exp(np.linspace(math.log(1e-3), math.log(15.0), tables.per_cm.size))
    _, scattering, photo, nuclear, electron = substance.photons.at(e)
    total = scattering + photo + nuclear + electron
    away = np.abs(e - 7.1e-3) > 3e-4 if material == "steel" else np.full(e.size, True)  # K edge of iron
    for table, expected in (
        (tables.per_cm, total * substance.density_g_cm3),
        (tables.compton, scattering / total),
        (tables.pair, 1 - photo / total),
    ):
        got = np.interp(np.log(e), np.log(grid), table)
        np.testing.assert_allclose(got[away], expected[away], rtol=2e-4, atol=1e-6)
    assert np.all((tables.compton > 0) & (tables.compton <= tables.pair) & (tables.pair <= 1))


@pytest.mark.parametrize("e_MeV", [0.0105, 0.02, 0.05, 0.1, 0.511, 0.662, 1.0, 1.03, 1.5, 2.2233, 4.945, 7.64, 12.0])
def test_branching_ratios(e_MeV):
    _, scattering, photo, nuclear, electron = (float(x) for x in LAB.photons.at(e_MeV))
    total = scattering + photo + nuclear + electron
    n = 20_000
    kinds = np.array([interaction(e_MeV, (i + 0.5) / n, PHOTONS) for i in range(n)])
    got = [np.mean(kinds == k) for k in (COMPTON, PAIR, PHOTO)]
    # Above the pair threshold by less than a cell of the grid, pairs are a few in a million.
    np.testing.assert_allclose(got, [scattering / total, (nuclear + electron) / total, photo / total], atol=1.1e-4)


@pytest.mark.parametrize("e_MeV", [0.3, 1.0, 1.0219, 2 * ME])
def test_no_pairs_below_the_threshold(e_MeV):
    assert {interaction(e_MeV, u, PHOTONS) for u in np.linspace(0, 1, 5001)[:-1]} <= {COMPTON, PHOTO}


# ---------------------------------------------------------------- Compton


def klein_nishina(x, e_MeV):
    """dσ/dx of x = E'/E, unnormalised (Klein and Nishina 1929)."""
    cos = 1 - ME / e_MeV * (1 / x - 1)
    return x + 1 / x - 1 + cos**2


@pytest.mark.parametrize("e_MeV", [0.02, 0.1, 0.6617, 2.2233, 6.13, 14.0])
def test_first_scatters_follow_klein_nishina(e_MeV):
    n = 20_000
    got = np.array([compton(e_MeV, KEY, first_draw(k))[0] for k in range(n)]) / e_MeV
    least = 1 / (1 + 2 * e_MeV / ME)
    assert got.min() >= least * (1 - 1e-12)
    assert got.max() <= 1
    x = np.linspace(least, 1, 20_001)
    weight = klein_nishina(x, e_MeV)
    cdf = cumulative_trapezoid(weight, x, initial=0)
    assert stats.kstest(got, lambda q: np.interp(q, x, cdf / cdf[-1])).pvalue > 1e-3
    counts = np.histogram(got, np.interp(np.linspace(0, 1, 41), cdf / cdf[-1], x))[0]
    assert stats.chisquare(counts).pvalue > 1e-3
    transfer = integral(lambda q: (1 - q) * klein_nishina(q, e_MeV), least, 1)
    transfer /= integral(lambda q: klein_nishina(q, e_MeV), least, 1)
    assert np.mean(1 - got) == pytest.approx(transfer, abs=4 * got.std() / math.sqrt(n))


def test_mean_transfer_at_known_energies():
    # Mean fraction of the energy that the electron takes, Klein-Nishina: 0.138 at 0.1 MeV, 0.440 at 1 MeV, 0.684 at
    # 10 MeV (tables in F. Attix, Introduction to Radiological Physics (1986), nominal).
    for e_MeV, share in ((0.1, 0.138), (1.0, 0.440), (10.0, 0.684)):
        got = [compton(e_MeV, KEY, first_draw(k))[0] for k in range(10_000)]
        assert 1 - np.mean(got) / e_MeV == pytest.approx(share, abs=0.012)


def test_compton_says_how_many_draws_it_used():
    used = [int(compton(1.0, KEY, first_draw(k))[1]) - int(first_draw(k)) for k in range(2000)]
    assert min(used) == 3
    assert np.all(np.array(used) % 3 == 0)
    # Far from the limit of an event, which holds hundreds of thousands.
    assert max(used) < 100


# ---------------------------------------------------------------- electrons


@pytest.mark.parametrize("t_MeV", [0.5, 1.0, 3.0, 6.0, 12.0])
def test_bremsstrahlung_takes_the_tabulated_energy(t_MeV):
    n = 20_000
    photons, tracks = stopped(t_MeV, n=n)
    radiated = np.array([p.sum() for p in photons])
    mean = integral(lambda t: LAB.electrons.at(t).other / LAB.electrons.at(t).total, 1e-3, t_MeV)
    # Number times mean energy of Kramers' photons is the energy that ESTAR gives, all of it in photons above 10 keV.
    number = np.interp(t_MeV, T_GRID, ELECTRONS.photons)
    k = np.geomspace(LOWEST_PHOTON_MeV, t_MeV, 4001)
    assert number * trapezoid(t_MeV - k, k) / trapezoid((t_MeV - k) / k, k) == pytest.approx(mean, rel=2e-4)
    # Photons that would take more than is left are dropped: less than a per cent.
    assert np.mean([p.size for p in photons]) == pytest.approx(number, rel=0.01, abs=4 * math.sqrt(number / n))
    assert radiated.mean() == pytest.approx(mean, abs=0.01 * mean + 4 * radiated.std() / math.sqrt(n))
    every = np.concatenate(photons)
    assert every.min() >= LOWEST_PHOTON_MeV
    assert every.max() < t_MeV
    np.testing.assert_allclose(radiated + tracks, t_MeV, atol=1.1e-4 * max(1.0, math.sqrt(t_MeV)))


def test_bremsstrahlung_follows_kramers():
    t_MeV = 6.0
    every = np.concatenate(stopped(t_MeV, derive_key(5, "kramers"), 20_000)[0])
    k = np.geomspace(LOWEST_PHOTON_MeV, t_MeV, 4001)
    cdf = cumulative_trapezoid((t_MeV - k) / k, k, initial=0)
    assert stats.kstest(every, lambda q: np.interp(q, k, cdf / cdf[-1])).pvalue > 1e-3


@pytest.mark.parametrize("t_MeV", [0.06, 1.0, 14.0])
def test_electrons_that_radiate_nothing_are_known_from_their_first_draw(t_MeV):
    # The short cut of the photon loop changes no cascade: what it passes over has no photon.
    photons, _ = stopped(t_MeV, n=5000)
    radiates = np.array([p.size > 0 for p in photons])
    first = [uniform(KEY, first_draw(k)) for k in range(5000)]
    may = np.array([may_radiate(t_MeV, ELECTRONS, u) for u in first])
    assert not np.any(radiates & ~may)
    number = min(np.interp(t_MeV, T_GRID, ELECTRONS.photons), 1.0)
    assert may.mean() == pytest.approx(number, abs=4 * math.sqrt(number / 5000))


def test_electrons_of_little_energy_do_not_radiate():
    photons, tracks = stopped(RADIATING_MeV - 0.001, n=200)
    assert all(p.size == 0 for p in photons)
    assert tracks == pytest.approx(0.049, abs=2e-5)


# ---------------------------------------------------------------- positrons


def heitler_cm2(t_MeV):
    """Annihilation in flight by integrating Heitler's spectrum of the first photon's share, section 27."""
    gamma = 1 + t_MeV / ME
    low = 0.5 * (1 - math.sqrt((gamma - 1) / (gamma + 1)))
    total = integral(lambda x: heitler_share(x, gamma), low, 1 - low)
    return math.pi * CLASSICAL_ELECTRON_RADIUS_cm**2 / (gamma - 1) * total


def heitler_share(x, gamma):
    return (1 - x + (2 * gamma * x - 1) / (x * (gamma + 1) ** 2)) / x


@pytest.mark.parametrize("t_MeV", [0.5, 2.0, 5.0, 10.0])
def test_probability_of_annihilation_in_flight(t_MeV):
    t = np.geomspace(1e-3, t_MeV, 400)
    per_MeV = np.array([heitler_cm2(x) for x in t]) / LAB.electrons.at(t).total
    hazard = float(trapezoid(per_MeV, t)) * 0.5588 * AVOGADRO_per_mol  # Z/A of LAB in mol/g
    assert np.interp(t_MeV, T_GRID, ELECTRONS.hazard) == pytest.approx(hazard, rel=0.005)
    photons, _ = stopped(t_MeV, n=8000, positron=True)
    share = np.mean([not np.all(p[:2] == ME) for p in photons])
    expected = 1 - math.exp(-hazard)
    assert share == pytest.approx(expected, abs=4 * math.sqrt(expected / 8000))


@pytest.mark.parametrize("t_MeV", [0.0, 0.3, 3.0, 10.0])
def test_positrons_keep_energy(t_MeV):
    photons, tracks = stopped(t_MeV, n=3000, positron=True)
    total = tracks + np.array([p.sum() for p in photons])
    np.testing.assert_allclose(total, t_MeV + 2 * ME, atol=1.1e-4 * max(1.0, math.sqrt(t_MeV)))
    if t_MeV == 0.0:
        assert all(np.array_equal(p, [ME, ME]) for p in photons)


def test_annihilation_photons_obey_kinematics():
    t_MeV = 8.0
    photons, _ = stopped(t_MeV, derive_key(5, "flight"), 60_000, positron=True)
    pairs = np.array([p[:2] for p in photons if p[0] != ME])
    left = pairs.sum(axis=1) - 2 * ME  # kinetic energy at which each was annihilated
    assert left.min() > 0
    assert left.max() <= t_MeV
    gamma = 1 + left / ME
    share = pairs[:, 0] / pairs.sum(axis=1)
    low = 0.5 * (1 - np.sqrt((gamma - 1) / (gamma + 1)))
    assert np.all((share > low - 1e-12) & (share < 1 - low + 1e-12))
    # Where in the track: the survival law of the hazard.
    h, top = np.interp(left, T_GRID, ELECTRONS.hazard), np.interp(t_MeV, T_GRID, ELECTRONS.hazard)
    assert stats.kstest((np.exp(h) - 1) / (math.exp(top) - 1), "uniform").pvalue > 1e-3
    # How the two share it, each event at its own energy.
    below = []
    for g, x, lowest in zip(gamma, share, low, strict=True):
        grid = np.geomspace(lowest, 1 - lowest, 401)
        cdf = cumulative_trapezoid(heitler_share(grid, g), grid, initial=0)
        below.append(np.interp(x, grid, cdf / cdf[-1]))
    assert len(below) > 6000
    assert stats.kstest(below, "uniform").pvalue > 1e-3


# ---------------------------------------------------------------- cascades


@pytest.mark.parametrize(
    "gammas_MeV", [(0.005,), (0.0101,), (0.059,), (0.6617,), (1.03,), (1.1732, 1.3325), (2.2233,), (6.13,), (14.9,)]
)
def test_every_cascade_deposits_all_energy(gammas_MeV):
    pool = gamma_cascades(gammas_MeV, 3000, derive_key(5, "closure"))
    missing = np.abs(pool.energies_MeV() - sum(gammas_MeV))
    assert np.all(missing <= closure_bound(pool))
    assert missing.max() < 1e-3
    assert pool.codes.max() < ELECTRON_CODES
    assert pool.codes.min() > 0


def test_cascades_depend_on_key_and_event_alone():
    whole = gamma_cascades((2.2233,), 300, KEY)
    short = gamma_cascades((2.2233,), 100, KEY)
    np.testing.assert_array_equal(short.codes, whole.part(0, 100).codes)
    other = gamma_cascades((2.2233,), 300, derive_key(6, "gammas"))
    same = sum(np.array_equal(whole.part(k, k + 1).codes, other.part(k, k + 1).codes) for k in range(300))
    assert same == 0


def test_first_electron_of_a_compton_event_is_not_above_the_edge():
    # 137Cs: single electrons reach the Compton edge at 0.4774 MeV, or the whole line by photo-absorption.
    pool = gamma_cascades((0.661657,), 3000, KEY)
    largest = np.maximum.reduceat(code_energies_MeV()[pool.codes], pool.offsets[:-1])
    edge = 0.661657 * (1 - 1 / (1 + 2 * 0.661657 / ME))
    assert edge == pytest.approx(0.4774, abs=1e-4)
    assert largest.max() < edge + 1e-4 or np.mean(largest > edge + 1e-4) < 1e-3


def test_a_photon_that_is_too_soft_is_absorbed_where_it_is():
    stack, codes = np.array([0.0099, *[0.0] * 63]), np.empty(400, np.uint16)
    _, n = follow_gamma(PHOTONS, ELECTRONS, KEY, first_draw(0), stack, 1, codes, 0)
    assert n == 1
    assert code_energies_MeV()[codes[0]] == pytest.approx(0.0099, abs=1e-5)


@pytest.mark.parametrize("material", ["water", "acrylic"])
def test_electrons_need_stopping_powers(material):
    with pytest.raises(NuebarError, match=f"{material}: expected a table of electrons, found none"):
        electron_tables(material)
