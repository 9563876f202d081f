"""Deposit codes: energies come back, and none is lost above the grid."""

import numpy as np
import pytest

from nuebar.simulate.deposits import (
    ALPHA_CODES,
    CODES,
    ELECTRON_CODES,
    PROTON_CODES,
    add_alpha,
    add_electron,
    add_proton,
    code_energies_MeV,
)

ENERGY = code_energies_MeV()
SPECIES = {
    "electron": (add_electron, 0, ELECTRON_CODES, 16.0),
    "proton": (add_proton, ELECTRON_CODES, ELECTRON_CODES + PROTON_CODES, 16.0),
    "alpha": (add_alpha, ELECTRON_CODES + PROTON_CODES, CODES, 10.0),
}


def encoded(add, t_MeV):
    codes = np.empty(8, np.uint16)
    return codes[: add(float(t_MeV), codes, 0)].copy()


def test_the_codes_fill_sixteen_bits():
    assert CODES == 2**16 == ELECTRON_CODES + PROTON_CODES + ALPHA_CODES == ENERGY.size


@pytest.mark.parametrize("name", SPECIES)
@pytest.mark.parametrize("t_MeV", [1e-6, 1e-3, 0.01, 0.3, 1.0, 5.5, 9.99])
def test_an_energy_comes_back_within_half_a_step(name, t_MeV):
    add, first, last, top = SPECIES[name]
    codes = encoded(add, t_MeV)
    step = 2 * np.sqrt(t_MeV * top) / (last - first - 1) + top / (last - first - 1) ** 2
    assert abs(ENERGY[codes].sum() - t_MeV) <= 0.5 * step * (1 + 1e-9)
    assert all(first <= c < last for c in codes)


@pytest.mark.parametrize("name", SPECIES)
@pytest.mark.parametrize("t_MeV", [16.5, 40.0])
def test_tracks_above_the_grid_are_cut_in_pieces(name, t_MeV):
    codes = encoded(SPECIES[name][0], t_MeV)
    assert codes.size > 1
    assert ENERGY[codes].sum() == pytest.approx(t_MeV, abs=5e-3)


def test_nothing_is_written_for_no_energy():
    assert encoded(add_electron, 0.0).size == 0


def test_rounding_has_no_bias():
    t = np.random.default_rng(1).uniform(0.5, 1.5, 20_000)
    away = [ENERGY[encoded(add_electron, x)].sum() - x for x in t]
    assert abs(np.mean(away)) < 5 * 1.6e-4 / np.sqrt(12 * t.size)
