"""Deposits as 16-bit codes: what goes in comes out, and no energy is lost or made."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuebar.simulate.deposits import (
    ALPHA_CODES,
    CODES,
    ELECTRON_CODES,
    PROTON_CODES,
    MAX_ALPHA_MeV,
    MAX_ELECTRON_MeV,
    MAX_PROTON_MeV,
    add_alpha,
    add_electron,
    add_proton,
    code_energies_MeV,
)

ENERGY = code_energies_MeV()
SPECIES = {
    "electron": (add_electron, 0, ELECTRON_CODES, MAX_ELECTRON_MeV),
    "proton": (add_proton, ELECTRON_CODES, PROTON_CODES, MAX_PROTON_MeV),
    "alpha": (add_alpha, ELECTRON_CODES + PROTON_CODES, ALPHA_CODES, MAX_ALPHA_MeV),
}


def deposited(species, t_MeV, before=0):
    """Codes that a particle appends to a buffer which already holds some."""
    buffer = np.full(64, 7, np.uint16)
    n = SPECIES[species][0](float(t_MeV), buffer, before)
    assert np.all(buffer[:before] == 7)
    assert np.all(buffer[n:] == 7)
    return buffer[before:n].copy()


def error_bound(species, codes):
    """How far rounding √T to the nearest step h can move the energies: √T h + h²/4 each."""
    _, _, size, top = SPECIES[species]
    h = math.sqrt(top) / (size - 1)
    return float(np.sum(np.sqrt(ENERGY[codes]) * h + h * h / 4)) + h * h / 4 + 1e-12


def test_grids():
    assert ENERGY.shape == (CODES,) == (65_536,)
    for _, first, size, top in SPECIES.values():
        part = ENERGY[first : first + size]
        assert part[0] == 0.0
        assert part[-1] == top
        np.testing.assert_allclose(np.diff(np.sqrt(part)), math.sqrt(top) / (size - 1), rtol=1e-9)


@pytest.mark.parametrize("species", SPECIES)
def test_every_code_comes_back(species):
    add, first, size, _ = SPECIES[species]
    buffer = np.empty(2, np.uint16)
    for code in range(first + 1, first + size):
        assert add(ENERGY[code], buffer, 0) == 1
        assert buffer[0] == code


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(SPECIES)), st.floats(0.0, 120.0), st.integers(0, 9))
def test_energy_is_kept_within_the_grid(species, t_MeV, before):
    _, first, size, top = SPECIES[species]
    codes = deposited(species, t_MeV, before)
    assert np.all((codes > first) & (codes < first + size))
    assert abs(ENERGY[codes].sum() - t_MeV) <= error_bound(species, codes)
    assert len(codes) <= math.ceil(t_MeV / top) + (t_MeV == 0)


@pytest.mark.parametrize(
    ("species", "t_MeV", "pieces"),
    [("electron", 16.0, 1), ("electron", 16.001, 2), ("electron", 40.0, 3), ("proton", 33.0, 3), ("alpha", 25.0, 3)],
)
def test_above_the_grid_in_pieces(species, t_MeV, pieces):
    codes = deposited(species, t_MeV)
    top = SPECIES[species][3]
    assert len(codes) == pieces
    assert np.all(ENERGY[codes[:-1]] == top)
    assert ENERGY[codes].sum() == pytest.approx(t_MeV, abs=error_bound(species, codes[-1:]))


@pytest.mark.parametrize("species", SPECIES)
@pytest.mark.parametrize("t_MeV", [0.0, -0.0, -1.0, 1e-12, 1e-9])
def test_nothing_is_nothing(species, t_MeV):
    assert len(deposited(species, t_MeV)) == 0


def test_electrons_are_rounded_as_promised():
    # The module says: 0.16 keV between neighbours at 1 MeV, less than 1e-4 of the energy above 0.7 MeV, no bias.
    at_one = np.searchsorted(ENERGY[:ELECTRON_CODES], 1.0)
    assert ENERGY[at_one + 1] - ENERGY[at_one] == pytest.approx(0.16e-3, abs=0.01e-3)
    t = np.linspace(0.7, 15.9, 4001)
    buffer = np.empty(2, np.uint16)
    relative = []
    for x in t:
        add_electron(x, buffer, 0)
        relative.append(ENERGY[buffer[0]] / x - 1)
    assert np.abs(relative).max() < 1e-4
    assert abs(np.mean(relative)) < 3 * np.std(relative) / math.sqrt(t.size)
