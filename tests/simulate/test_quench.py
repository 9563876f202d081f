"""Light of a deposit: limits of Birks' law, order of the definitions, Cherenkov threshold, bad input."""

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.physics.scintillator import LAB, cherenkov_photons, quenched_energy
from nuebar.simulate.deposits import ELECTRON_CODES, PROTON_CODES, code_energies_MeV
from nuebar.simulate.quench import Response, Scintillation, light_table, quenched_table

ENERGY = code_energies_MeV()
ELECTRONS = slice(1, ELECTRON_CODES)
FIRST_ALPHA = ELECTRON_CODES + PROTON_CODES


def at(table, t_MeV, first=0, last=ELECTRON_CODES):
    return np.interp(t_MeV, ENERGY[first:last], table[first:last])


@pytest.mark.parametrize("quenching", ["step", "local"])
def test_without_quenching_all_energy_is_light(quenching):
    np.testing.assert_allclose(quenched_table(0.0, Scintillation(quenching=quenching)), ENERGY, atol=1e-9)


@pytest.mark.parametrize("quenching", ["step", "local"])
def test_more_quenching_is_less_light_and_more_energy_more(quenching):
    low, high = (quenched_table(kB, Scintillation(quenching=quenching)) for kB in (6.0, 20.0))
    assert np.all(high[1:] < low[1:])
    for first, last in ((0, ELECTRON_CODES), (ELECTRON_CODES, FIRST_ALPHA), (FIRST_ALPHA, ENERGY.size)):
        assert np.all(np.diff(low[first:last]) > 0)
        assert low[first] == 0


def test_local_quenching_is_that_of_the_physics_library():
    # Another table of dE/dx: ESTAR here, Berger and Seltzer there, within 1.5 % of each other.
    ours = quenched_table(12.05, Scintillation(quenching="local"))
    for t in (0.05, 0.3, 1.0, 5.0, 10.0):
        assert at(ours, t) == pytest.approx(float(quenched_energy(t, 12.05)), rel=2e-3)


def test_averaging_over_steps_makes_slow_electrons_brighter():
    step, local = (quenched_table(12.05, Scintillation(quenching=q)) for q in ("step", "local"))
    for t in (0.02, 0.1, 0.5, 2.0):
        assert at(step, t) > at(local, t)
    # From a few MeV on only the end of the track differs.
    assert at(step, 10) - at(local, 10) == pytest.approx(at(step, 5) - at(local, 5), rel=0.25)


def test_a_track_of_one_step_is_quenched_by_its_mean():
    # Below about 0.25 MeV the range is less than a millimetre: one step, dE/dx = T / range.
    table = quenched_table(12.05, Scintillation())
    t = ENERGY[1:12_000]  # up to 0.95 MeV
    implied = (t / table[1:12_000] - 1) / 0.01205  # MeV cm2/g
    path_cm = t / implied / 0.859
    short = path_cm < 0.099
    assert ENERGY[1:12_000][short].max() == pytest.approx(0.30, abs=0.06)
    assert np.all(np.diff(path_cm[short]) > 0)


def test_cherenkov_light_starts_at_its_threshold():
    scintillation = Scintillation(cherenkov_photons_per_cm=900.0)
    dark, lit = (light_table(Response(12.0, fC, 1e4), scintillation) for fC in (0.0, 1.0))
    extra = lit - dark
    threshold = LAB.cherenkov_threshold_MeV
    assert np.all(extra[:ELECTRON_CODES][ENERGY[:ELECTRON_CODES] < threshold * 0.999] == 0)
    assert np.all(extra[ELECTRON_CODES:] == 0)
    for t in (0.5, 2.0, 8.0):
        assert at(extra, t) == pytest.approx(float(cherenkov_photons(t, photons_per_cm=900.0)), rel=0.015)


def test_light_is_linear_in_light_yield_and_fC():
    s = Scintillation()
    one, two = light_table(Response(10.0, 0.5, 8e3), s), light_table(Response(10.0, 1.0, 16e3), s)
    np.testing.assert_allclose(two, 2 * one, rtol=1e-12)


def test_protons_and_alphas_have_their_own_kB():
    plain = quenched_table(12.0, Scintillation())
    half = quenched_table(12.0, Scintillation(proton_kB_ratio=0.5, alpha_kB_ratio=0.5))
    np.testing.assert_array_equal(plain[:ELECTRON_CODES], half[:ELECTRON_CODES])
    assert np.all(half[ELECTRON_CODES + 1 : FIRST_ALPHA] > plain[ELECTRON_CODES + 1 : FIRST_ALPHA])
    same = quenched_table(6.0, Scintillation())
    np.testing.assert_allclose(half[ELECTRON_CODES:], same[ELECTRON_CODES:], rtol=1e-12)


def test_an_alpha_of_polonium_shines_like_an_electron_of_about_1_MeV():
    # 214Po: 7.687 MeV seen as 0.93 MeV (JUNO, arXiv:2511.14590), on the scale of n-H; nominal constants.
    from nuebar.config import load_experiment
    from nuebar.simulate.detector import DetectorModel

    model = DetectorModel.build(load_experiment("juno"))
    photons = at(model.light, 7.687, FIRST_ALPHA, ENERGY.size)
    visible = photons * model.electronics.pe_per_photon / model.pe_per_MeV
    assert visible == pytest.approx(0.93, rel=0.15)


@pytest.mark.parametrize(
    ("values", "name"),
    [((-1, 0, 1e4), "kB"), ((10, -0.1, 1e4), "fC"), ((10, 0, 0), "light_yield"), ((float("nan"), 0, 1e4), "kB")],
)
def test_parameters_out_of_range_are_refused(values, name):
    with pytest.raises(NuebarError, match=name):
        Response(*values)


@pytest.mark.parametrize(
    ("options", "name"), [({"quenching": "steps"}, "quenching"), ({"refractive_index": 1.0}, "refractive_index")]
)
def test_definitions_out_of_range_are_refused(options, name):
    with pytest.raises(NuebarError, match=name):
        Scintillation(**options)
