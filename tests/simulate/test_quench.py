"""Light per deposit: limits, order and threshold of Birks' law and of Cherenkov light."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import trapezoid

from nuebar.errors import NuebarError
from nuebar.physics import scintillator
from nuebar.physics.constants import ELECTRON_MASS_MeV
from nuebar.physics.materials import load_material
from nuebar.simulate.deposits import ALPHA_CODES, CODES, ELECTRON_CODES, PROTON_CODES, code_energies_MeV
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.quench import QUENCHING, Response, Scintillation, light_table, quenched_table

ENERGY = code_energies_MeV()
ELECTRON = slice(0, ELECTRON_CODES)
PROTON = slice(ELECTRON_CODES, ELECTRON_CODES + PROTON_CODES)
ALPHA = slice(ELECTRON_CODES + PROTON_CODES, CODES)
SPECIES = {"electrons": ELECTRON, "protons": PROTON, "alphas": ALPHA}
NOMINAL = Response(12.05, 0.517, 9846.0)  # arXiv:2507.23297, scripts of the authors


def integral(function, low, high):
    """∫ of a function of arrays by the trapezoid rule, even in ln x: good to 1e-6 here."""
    x = np.geomspace(low, high, 4001)
    return float(trapezoid(function(x), x))


def definition(quenching):
    return Scintillation(quenching=quenching)


@pytest.mark.parametrize("quenching", QUENCHING)
def test_without_birks_all_energy_is_light(quenching):
    np.testing.assert_allclose(quenched_table(0.0, definition(quenching)), ENERGY, rtol=1e-7, atol=2e-8)


@pytest.mark.parametrize("quenching", QUENCHING)
@pytest.mark.parametrize("species", SPECIES)
def test_light_rises_with_energy_and_falls_with_kb(quenching, species):
    tables = [quenched_table(kB, definition(quenching))[SPECIES[species]] for kB in (0.0, 1.0, 6.0, 12.0, 24.0, 200.0)]
    energy = ENERGY[SPECIES[species]]
    for table in tables:
        assert table[0] == 0.0
        assert np.all(np.diff(table) > 0)
        assert np.all(table <= energy * (1 + 1e-7) + 2e-8)
    for weaker, stronger in itertools.pairwise(tables):
        assert np.all(stronger[1:] < weaker[1:])


@pytest.mark.parametrize("quenching", QUENCHING)
def test_a_fast_electron_is_quenched_less(quenching):
    q = quenched_table(12.05, definition(quenching))[ELECTRON]
    share = q[200:] / ENERGY[ELECTRON][200:]
    # Of the steps the last one is short and dense: where one more becomes necessary, at 0.33 MeV, 0.8 % are lost. At
    # the top dE/dx rises again.
    dip = {"local": 3e-5, "step": 0.01}[quenching]
    assert np.all(share > np.maximum.accumulate(share) - dip)


@pytest.mark.parametrize("kB", [6.0, 12.05, 24.0, 100.0])
def test_steps_give_at_least_the_light_of_local_quenching(kB):
    # 1/(1 + kB x) averaged over a step is at most that of the step's mean x along the path (Jensen).
    step, local = (quenched_table(kB, definition(q))[ELECTRON] for q in ("step", "local"))
    assert np.all(step >= local - 1e-9)
    assert np.all(step[1000:] > local[1000:])
    # Protons and alphas have no steps.
    for species in (PROTON, ALPHA):
        a, b = (quenched_table(kB, definition(q))[species] for q in ("step", "local"))
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("t_MeV", [0.05, 0.5, 2.0, 10.0])
def test_local_quenching_is_birks_integral(t_MeV):
    table = load_material("lab").electrons
    kB = 12.05e-3
    low = 1e-3
    above = integral(lambda t: 1 / (1 + kB * table.at(t).collision), low, t_MeV)
    # Below the table its power law goes on: 1 keV gives between 0.16 and 0.4 keV of light.
    slope = math.log(table.collision[1] / table.collision[0]) / math.log(table.t_MeV[1] / table.t_MeV[0])
    first = float(table.at(low).collision)
    below = integral(lambda t: 1 / (1 + kB * first * np.clip(t / low, 1e-4, 1) ** slope), 1e-9, low)
    q = np.interp(t_MeV, ENERGY[ELECTRON], quenched_table(12.05, definition("local"))[ELECTRON])
    assert q == pytest.approx(above + below, rel=2e-5)


@pytest.mark.parametrize("quenching", QUENCHING)
@pytest.mark.parametrize("species", SPECIES)
def test_strong_quenching_goes_as_one_over_kb(quenching, species):
    # Where kB dE/dx >> 1, Q → ∫ dT / (kB dE/dx): the light is the range over kB.
    strong, stronger = (quenched_table(kB, definition(quenching))[SPECIES[species]][1:] for kB in (1e7, 2e7))
    np.testing.assert_allclose(strong / stronger, 2.0, rtol=1e-3)


def test_two_tables_of_stopping_power_agree():
    # Local quenching with ESTAR here, with the formula of Berger and Seltzer in the library of physics.
    q = quenched_table(12.05, definition("local"))[ELECTRON]
    for t_MeV in (0.05, 0.3, 1.0, 5.0, 10.0):
        expected = float(scintillator.quenched_energy(t_MeV, 12.05))
        assert np.interp(t_MeV, ENERGY[ELECTRON], q) == pytest.approx(expected, rel=4e-3)
    light = cherenkov(Scintillation(cherenkov_photons_per_cm=900.0))[ELECTRON]
    for t_MeV in (0.5, 2.0, 8.0):
        expected = float(scintillator.cherenkov_photons(t_MeV, photons_per_cm=900.0))
        assert np.interp(t_MeV, ENERGY[ELECTRON], light) == pytest.approx(expected, rel=0.015)


def test_a_short_track_is_one_step():
    # Below a range of 1 mm the whole track is one step with its mean dE/dx: T / (1 + kB T/R).
    collision = load_material("lab").electrons.at
    t_MeV = 0.15
    path = integral(lambda t: 1 / collision(t).collision, 1e-3, t_MeV)
    path += 0.8 * 1e-3 / float(collision(1e-3).collision)  # below the table, to 10 % of a ten-thousandth
    assert path / 0.859 < 0.1
    q = np.interp(t_MeV, ENERGY[ELECTRON], quenched_table(12.05, Scintillation())[ELECTRON])
    assert q == pytest.approx(t_MeV / (1 + 12.05e-3 * t_MeV / path), rel=1e-4)


def test_protons_and_alphas_have_their_own_kb():
    base = quenched_table(10.0, Scintillation())
    other = quenched_table(10.0, Scintillation(proton_kB_ratio=0.5, alpha_kB_ratio=0.25))
    assert np.array_equal(base[ELECTRON], other[ELECTRON])
    np.testing.assert_array_equal(other[PROTON], quenched_table(5.0, Scintillation())[PROTON])
    np.testing.assert_array_equal(other[ALPHA], quenched_table(2.5, Scintillation())[ALPHA])


def test_polonium_alpha_reads_as_measured(juno):
    # 214Po, 7.687 MeV, reads 0.93 MeV (JUNO, arXiv:2511.14590, abstract) on the scale of n-H; alpha's kB is nominal.
    model = DetectorModel.build(juno)
    photons = np.interp(7.687, ENERGY[ALPHA], model.light[ALPHA])
    assert photons * model.electronics.pe_per_photon / model.pe_per_MeV == pytest.approx(0.93, rel=0.08)


# ---------------------------------------------------------------- Cherenkov


def cherenkov(scintillation):
    dark = light_table(replace(NOMINAL, fC=0.0), scintillation)
    return light_table(replace(NOMINAL, fC=1.0), scintillation) - dark


@pytest.mark.parametrize("index", [1.33, 1.5, 1.7])
def test_cherenkov_threshold(index):
    light = cherenkov(Scintillation(refractive_index=index))[ELECTRON]
    threshold = ELECTRON_MASS_MeV * (1 / math.sqrt(1 - 1 / index**2) - 1)
    t = ENERGY[ELECTRON]
    assert light[t < threshold * 0.999] == pytest.approx(0, abs=1e-9)
    assert np.all(np.diff(light[t > threshold * 1.001]) > 0)
    if index == 1.5:
        assert threshold == pytest.approx(0.1746, abs=1e-4)


def test_cherenkov_light_is_linear_far_above_the_threshold():
    t, light = ENERGY[ELECTRON], cherenkov(Scintillation())[ELECTRON]
    a, b, c = np.interp([6.0, 10.0, 14.0], t, light)
    # dE/dx rises by 2 % over this range, which bends the line as much.
    assert (c - b) / (b - a) == pytest.approx(1, abs=0.03)
    assert np.interp(1.0, t, light) / 1.0 < 0.7 * b / 10.0  # and far from it near the threshold


def test_cherenkov_light_is_frank_and_tamm_along_the_track():
    at = load_material("lab").electrons.at

    def per_MeV(t):
        inverse = 1 / (1.5**2 * (1 - 1 / (1 + t / ELECTRON_MASS_MeV) ** 2))
        return np.maximum(0.0, 1 - inverse) / (1 - 1.5**-2) / (at(t).collision * 0.859)

    scintillation = Scintillation(cherenkov_photons_per_cm=500.0)
    light = cherenkov(scintillation)[ELECTRON]
    for t_MeV in (0.3, 1.0, 5.0, 15.0):
        expected = 500.0 * integral(per_MeV, 0.1, t_MeV)
        assert np.interp(t_MeV, ENERGY[ELECTRON], light) == pytest.approx(expected, rel=1e-4)


def test_heavy_particles_give_no_cherenkov_light():
    assert not cherenkov(Scintillation())[ELECTRON_CODES:].any()


# ---------------------------------------------------------------- the table


def test_light_is_linear_in_yield_and_fc():
    s = Scintillation()
    base = light_table(Response(12.05, 0.0, 10_000.0), s)
    np.testing.assert_allclose(light_table(Response(12.05, 0.0, 20_000.0), s), 2 * base, rtol=1e-14)
    np.testing.assert_allclose(base, 10_000 * quenched_table(12.05, s), rtol=1e-14)
    half, full = (light_table(Response(12.05, f, 10_000.0), s) - base for f in (0.5, 1.0))
    np.testing.assert_allclose(full, 2 * half, rtol=1e-9, atol=1e-9)
    assert base.shape == (CODES,)
    assert base.dtype == np.float64


def test_tables_are_not_shared():
    first = light_table(NOMINAL, Scintillation())
    first[:] = -1.0
    assert light_table(NOMINAL, Scintillation()).min() == 0.0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kB_g_cm2_GeV": -0.1}, "kB_g_cm2_GeV: expected a number from 0 to 200, got -0.1; check its unit"),
        ({"kB_g_cm2_GeV": 201.0}, "kB_g_cm2_GeV: expected a number from 0 to 200"),
        ({"kB_g_cm2_GeV": math.nan}, "kB_g_cm2_GeV: expected a number from 0 to 200, got nan"),
        ({"fC": -1e-9}, "fC: expected a number from 0 to 20"),
        ({"fC": math.inf}, "fC: expected a number from 0 to 20"),
        ({"light_yield_per_MeV": 0.0}, "light_yield_per_MeV: expected a number from 1 to 1e\\+06"),
        ({"light_yield_per_MeV": math.nan}, "light_yield_per_MeV: expected"),
    ],
)
def test_response_refuses(change, sentence):
    with pytest.raises(NuebarError, match=sentence):
        replace(NOMINAL, **change)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"quenching": "csda"}, "quenching: expected step or local, got 'csda'"),
        ({"refractive_index": 1.0}, "refractive_index: expected a number above 1, got 1.0; use fC = 0"),
        ({"refractive_index": math.nan}, "refractive_index: expected a number above 1, got nan"),
        ({"cherenkov_photons_per_cm": -1.0}, "cherenkov_photons_per_cm: expected a number that is not negative"),
        ({"proton_kB_ratio": math.nan}, "proton_kB_ratio: expected a number that is not negative, got nan"),
        ({"alpha_kB_ratio": math.inf}, "alpha_kB_ratio: expected a number that is not negative, got inf"),
    ],
)
def test_scintillation_refuses(change, sentence):
    with pytest.raises(NuebarError, match=sentence):
        Scintillation(**change)


@pytest.mark.parametrize(("material", "sentence"), [("acrylic", "acrylic: expected a table of electrons"), ("x", "x")])
def test_material_without_stopping_powers(material, sentence):
    with pytest.raises(NuebarError, match=sentence):
        quenched_table(10.0, Scintillation(material=material))


def test_number_of_alpha_codes():
    assert len(ENERGY[ALPHA]) == ALPHA_CODES
