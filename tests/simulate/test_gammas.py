"""Photon cascades: every one adds up, and the interactions are those of the formulas and tables."""

import numpy as np
import pytest
from scipy import stats

from nuebar.errors import NuebarError
from nuebar.kernels import njit
from nuebar.physics.constants import ELECTRON_MASS_MeV
from nuebar.physics.materials import load_material
from nuebar.simulate.detector import gamma_cascades
from nuebar.simulate.gammas import compton, electron_tables, interaction, photon_tables, stop_electron, stop_positron
from nuebar.simulate.random import derive_key, event_counter

ME = ELECTRON_MASS_MeV
PHOTONS, ELECTRONS = photon_tables(), electron_tables()


@njit
def scatters(e_MeV, key, out):
    for k in range(out.size):
        out[k], _ = compton(e_MeV, key, event_counter(k))


@njit
def stops(t_MeV, positron, key, emitted, many):
    stack, codes = np.empty(64), np.empty(64, np.uint16)
    for k in range(many.size):
        if positron:
            _, depth, _ = stop_positron(t_MeV, ELECTRONS_G, key, event_counter(k), stack, 0, codes, 0)
        else:
            _, depth, _ = stop_electron(t_MeV, ELECTRONS_G, key, event_counter(k), stack, 0, codes, 0)
        many[k] = depth
        emitted[k, 0] = stack[0] if depth > 0 else 0.0
        emitted[k, 1] = 0.0
        for j in range(depth):
            emitted[k, 1] += stack[j]
        emitted[k, 2] = stack[0] + stack[1] if depth > 1 else 0.0


ELECTRONS_G = ELECTRONS


@pytest.mark.parametrize("gammas", [(0.03,), (0.6617,), (1.1732, 1.3325), (2.2233,), (6.129,), (12.0,)])
def test_every_cascade_adds_up_to_its_gammas(gammas):
    pool = gamma_cascades(gammas, 4000, derive_key(1, "closure", str(gammas)))
    away = pool.energies_MeV() - sum(gammas)
    # Rounding to the grid only: half a step of at most 0.4 keV for each deposit, which partly cancel.
    assert np.abs(away).max() < 1.5e-3
    assert abs(away.mean()) < 2e-5


@pytest.mark.parametrize("e_MeV", [0.05, 0.511, 2.2233, 8.0])
def test_compton_scattering_is_klein_nishina(e_MeV):
    out = np.empty(40_000)
    scatters(e_MeV, derive_key(2, "kn"), out)
    low = e_MeV / (1 + 2 * e_MeV / ME)
    grid = np.linspace(low, e_MeV, 4001)
    cos = 1 + ME / e_MeV - ME / grid
    density = grid / e_MeV + e_MeV / grid - 1 + cos**2
    total = np.concatenate([[0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    assert out.min() >= low * (1 - 1e-12)
    assert stats.kstest(out, lambda x: np.interp(x, grid, total / total[-1])).pvalue > 1e-4


@pytest.mark.parametrize("e_MeV", [0.012, 0.03, 0.3, 2.2233, 6.0, 14.0])
def test_branching_is_that_of_the_tables(e_MeV):
    u = (np.arange(4000) + 0.5) / 4000
    kinds = np.bincount([interaction(e_MeV, x, PHOTONS) for x in u], minlength=3) / u.size
    _, incoherent, photo, nuclear, electron = load_material("lab").photons.at(np.array([e_MeV]))
    parts = np.array([incoherent[0], nuclear[0] + electron[0], photo[0]])
    np.testing.assert_allclose(kinds, parts / parts.sum(), atol=6e-4)


@pytest.mark.parametrize("t_MeV", [0.5, 2.0, 8.0])
def test_bremsstrahlung_carries_the_radiated_energy(t_MeV):
    emitted, many = np.empty((60_000, 3)), np.empty(60_000, np.int64)
    stops(t_MeV, False, derive_key(3, "brem", str(t_MeV)), emitted, many)
    grid = np.linspace(1e-3, t_MeV, 4000)
    collision, radiative = (np.asarray(x) for x in load_material("lab").electrons.at(grid))
    share = radiative / (collision + radiative)
    radiated = float(np.sum(0.5 * (share[1:] + share[:-1]) * np.diff(grid)))
    error = emitted[:, 1].std() / np.sqrt(many.size)
    # Photons below 10 keV are not emitted, and two may not take more than there is: some per cent.
    assert emitted[:, 1].mean() == pytest.approx(radiated, abs=4 * error + 0.04 * radiated)


@pytest.mark.parametrize("t_MeV", [0.0, 1.0, 6.0])
def test_positrons_annihilate_in_flight_as_the_hazard_says(t_MeV):
    emitted, many = np.empty((40_000, 3)), np.empty(40_000, np.int64)
    stops(t_MeV, True, derive_key(4, "flight", str(t_MeV)), emitted, many)
    assert np.all(many >= 2)
    assert np.all(emitted[:, 2] >= 2 * ME - 1e-9)
    assert np.all(emitted[:, 2] <= t_MeV + 2 * ME + 1e-9)
    in_flight = np.mean(np.abs(emitted[:, 0] - ME) > 1e-12)
    hazard = np.interp(t_MeV, np.arange(ELECTRONS.hazard.size) * ELECTRONS.step_MeV, ELECTRONS.hazard)
    expected = 1 - np.exp(-hazard)
    assert in_flight == pytest.approx(expected, abs=4 * np.sqrt(expected / many.size) + 1e-4)


def test_a_cascade_depends_on_its_number_and_key_only():
    key = derive_key(5, "chunks")
    whole, half = gamma_cascades((2.2233,), 400, key), gamma_cascades((2.2233,), 200, key)
    np.testing.assert_array_equal(whole.part(0, 200).codes, half.codes)
    other = gamma_cascades((2.2233,), 200, derive_key(6, "chunks"))
    assert not np.array_equal(other.codes[:100], half.codes[:100])


@pytest.mark.parametrize("gammas", [(), (0.0,), (16.0,), (float("nan"),)])
def test_energies_out_of_range_are_refused(gammas):
    with pytest.raises(NuebarError, match=r"0\.001 to 15"):
        gamma_cascades(gammas, 10, derive_key(1))
