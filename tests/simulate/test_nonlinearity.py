"""Mean light against energy: the same as of the cascades, on the scale of n-H captures, in the known order."""

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.physics.constants import ELECTRON_MASS_MeV
from nuebar.physics.scintillator import N_H_GAMMA_MeV
from nuebar.simulate.deposits import code_energies_MeV
from nuebar.simulate.nonlinearity import anchored, electron_light, gamma_light, positron_light
from nuebar.simulate.quench import Response, Scintillation, light_table, quenched_table

NOMINAL = light_table(Response(12.05, 0.517, 9846.0), Scintillation())
N = 3000
ME = ELECTRON_MASS_MeV
ANCHOR = gamma_light([(N_H_GAMMA_MeV,)], 20_000, 3)


@pytest.mark.parametrize(
    ("make", "energies", "e_dep_MeV"),
    [
        (gamma_light, [(0.662,), (1.1732, 1.3325), (6.13,)], [0.662, 2.5057, 6.13]),
        (electron_light, [0.01, 0.5, 3.0, 15.0], [0.01, 0.5, 3.0, 15.0]),
        (positron_light, [2 * ME, 2.0, 9.0, 16.0], [2 * ME, 2.0, 9.0, 16.0]),
    ],
)
def test_deposits_hold_the_energy(make, energies, e_dep_MeV):
    means = make(energies, N, 3)
    np.testing.assert_array_equal(means.e_dep_MeV, e_dep_MeV)
    # A track that does not radiate is one code, so rounding to the grid has no mean.
    np.testing.assert_allclose(means.photons(code_energies_MeV()), e_dep_MeV, atol=1.7e-4)
    np.testing.assert_allclose(means.per_MeV(code_energies_MeV()), 1.0, atol=4e-4)
    assert means.deposits.shape == (len(energies), 65_536)


def test_an_electron_that_does_not_radiate_is_its_code():
    table = quenched_table(12.05, Scintillation())
    got = electron_light([0.03], 10, 3).photons(table)[0]
    assert got == pytest.approx(np.interp(0.03, code_energies_MeV()[:40_000], table[:40_000]), rel=1e-3)


def test_order_of_particles():
    # At equal energy a gamma gives less light than an electron, as many slow electrons share it; the two annihilation
    # gammas of a positron lower it too. All rise with energy.
    e = [1.1, 2.0, 4.0, 8.0]
    gammas = gamma_light([(x,) for x in e], N, 3).per_MeV(NOMINAL)
    electrons = electron_light(e, N, 3).per_MeV(NOMINAL)
    positrons = positron_light(e, N, 3).per_MeV(NOMINAL)
    assert np.all(gammas < electrons)
    assert np.all(positrons < electrons)
    for curve in (gammas, electrons, positrons):
        assert np.all(np.diff(curve) > 0)


def test_a_positron_at_rest_is_two_gammas():
    a = positron_light([2 * ME], 20_000, 3).photons(NOMINAL)[0]
    b = gamma_light([(ME, ME)], 20_000, 4).photons(NOMINAL)[0]
    assert a == pytest.approx(b, rel=5e-4)


def test_anchor():
    assert anchored(ANCHOR, ANCHOR, NOMINAL)[0] == 1.0
    # Any light that is proportional to energy gives the energy.
    means = gamma_light([(0.662,), (6.13,)], N, 3)
    np.testing.assert_allclose(anchored(means, ANCHOR, 777.0 * code_energies_MeV()), 1.0, atol=2e-4)
    low, high = anchored(means, ANCHOR, NOMINAL)
    assert low < 1 < high


@pytest.mark.parametrize(
    "response", [Response(12.05, 0.517, 9846.0), Response(6.0, 0.0, 12_000.0), Response(24.0, 1.0, 8000.0)]
)
def test_the_light_yield_moves_no_energy(response):
    # Contract of the reconstructed energy: 1 % more light yield moves no mean by more than 0.05 %, as only Cherenkov's
    # share of the light changes.
    more = Response(response.kB_g_cm2_GeV, response.fC, 1.01 * response.light_yield_per_MeV)
    e = np.array([0.5, 0.662, 1.0, 2.0, 4.0, 8.0])
    curves = [gamma_light([(x,) for x in e], N, 3), positron_light(np.maximum(e, 1.03), N, 3)]
    before, after = (light_table(r, Scintillation()) for r in (response, more))
    for means in curves:
        moved = anchored(means, ANCHOR, after) / anchored(means, ANCHOR, before) - 1
        assert np.abs(moved).max() < 5e-4
        if response.fC == 0:
            assert np.abs(moved).max() < 1e-12
        else:
            assert np.abs(moved).max() > 1e-6


def test_seeds_and_points_are_independent():
    a, b = gamma_light([(1.0,)], 50, 3), gamma_light([(1.0,)], 50, 4)
    assert not np.array_equal(a.deposits, b.deposits)
    twice = gamma_light([(1.0,), (1.0,)], 50, 3)
    np.testing.assert_array_equal(twice.deposits[0], a.deposits[0])
    assert not np.array_equal(twice.deposits[0], twice.deposits[1])


@pytest.mark.parametrize(
    ("make", "energies", "sentence"),
    [
        (positron_light, [2.0, 1.0], r"positron_light: expected energies from 1\.022 to 16\.02 MeV, got \[1\.0\]"),
        (positron_light, [np.nan], "positron_light: expected energies from .*nan"),
        (positron_light, [17.0], "positron_light"),
        (electron_light, [0.0], r"electron_light: expected energies from 0 to 15 MeV, got \[0\.0\]"),
        (electron_light, [-1.0], "electron_light"),
        (electron_light, [15.1], "electron_light"),
        (electron_light, [], "electron_light: expected energies"),
        (gamma_light, [(0.0,)], "gamma"),
        (gamma_light, [(20.0,)], "gammas: expected energies from 0.001 to 15 MeV"),
        (gamma_light, [()], "gamma"),
        (gamma_light, [], "gamma_light: expected energies"),
    ],
)
def test_energies_are_checked(make, energies, sentence):
    with pytest.raises(NuebarError, match=sentence):
        make(energies, 10, 3)


@pytest.mark.parametrize(
    ("make", "energies"), [(gamma_light, [(1.0,)]), (electron_light, [1.0]), (positron_light, [2.0])]
)
def test_some_cascades_are_needed(make, energies):
    with pytest.raises(NuebarError, match="expected a number of cascades above 0, got 0"):
        make(energies, 0, 3)
