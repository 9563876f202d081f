"""Neutrons that slow down, against a simulation of energies alone and against slowing-down theory."""

import math

import numpy as np
import pytest
from scipy.stats import ks_2samp, kstest

from nuebar.kernels import njit
from nuebar.simulate.deposits import code_energies_MeV
from nuebar.simulate.neutrons import LEAST_RECOIL_MeV, carbon_barn, hydrogen_barn, slow_down, wander
from nuebar.simulate.random import derive_key, event_counter

EVENTS = 20_000
THERMAL_MeV = 1e-6
UNLIKELY = 1e-3
# Nuclei per m and barn in LAB: 0.859 g/cm³, 12.01 % hydrogen.
HYDROGEN, CARBON = 60.2214 * 0.859 * 0.1201 / 1.008, 60.2214 * 0.859 * 0.8799 / 12.011


@njit
def _slow(t_MeV, edge_m, key, energies, places, light, recoils, first, collisions):
    place, codes = np.empty(3), np.empty(4096, np.uint16)
    for k in range(light.size):
        place[:] = 0.0
        start = event_counter(k)
        counter, n = slow_down(t_MeV, place, 0.0, 0.6, 0.8, key, start, codes, 0, edge_m)
        places[k] = place
        recoils[k], collisions[k] = n, (counter - start) // np.uint64(3)
        first[k] = energies[codes[0]] if n else 0.0
        light[k] = 0.0
        for i in range(n):
            light[k] += energies[codes[i]]


def slowed(t_MeV, edge_m=math.inf, events=EVENTS):
    """Places, summed recoils, their number, the first of them, and the number of collisions."""
    out = np.empty((events, 3)), np.empty(events), np.empty(events), np.empty(events), np.empty(events)
    _slow(t_MeV, edge_m, derive_key(1, "slow"), code_energies_MeV(), *out)
    return out


def turned(direction, cos, generator):
    """Directions turned by angles at random azimuths, by vector products."""
    other = np.where(np.abs(direction[:, :1]) < 0.9, [[1.0, 0, 0]], [[0, 1.0, 0]])
    first = np.cross(direction, other)
    first /= np.linalg.norm(first, axis=1)[:, None]
    second = np.cross(direction, first)
    phi = generator.uniform(0, 2 * np.pi, cos.size)
    sin = np.sqrt(1 - np.minimum(cos**2, 1))
    return cos[:, None] * direction + (sin * np.cos(phi))[:, None] * first + (sin * np.sin(phi))[:, None] * second


def slowed_by_numpy(t_MeV, seed=5):
    """A simple simulation: uniform recoils on hydrogen, flat cos θ of the centre of mass on carbon.

    Returns:
        Place along the first direction, sum of the recoils above the threshold, their number, the first of them.
    """
    generator = np.random.default_rng(seed)
    t, light, recoils, first = np.full(EVENTS, t_MeV), np.zeros(EVENTS), np.zeros(EVENTS), np.zeros(EVENTS)
    place, direction = np.zeros((EVENTS, 3)), np.tile([0.0, 0.6, 0.8], (EVENTS, 1))
    while np.any(moving := t > THERMAL_MeV):
        a = -1.86 + 0.09415 * t + 0.0001306 * t**2
        b = 0.4223 + 0.13 * t
        hydrogen = HYDROGEN * (3 * np.pi / (1.206 * t + a**2) + np.pi / (1.206 * t + b**2))
        carbon = CARBON * (1.2 + 3.54 / (1 + 1.5 * t))
        path = generator.exponential(size=EVENTS) / (hydrogen + carbon)
        place += np.where(moving, path, 0.0)[:, None] * direction
        on_hydrogen = generator.random(EVENTS) * (hydrogen + carbon) < hydrogen
        u = generator.random(EVENTS)
        kept = np.where(on_hydrogen, u, (12**2 + 1 + 24 * (2 * u - 1)) / 13**2)
        # Momentum conservation: cos θ in the laboratory from the energy that is left.
        root = np.sqrt(kept)
        cos = np.where(on_hydrogen, root, 0.5 * (13 * root - 11 / root))
        direction = turned(direction, cos, generator)
        recoil = np.where(moving & on_hydrogen, t * (1 - kept), 0.0)
        seen = recoil > LEAST_RECOIL_MeV
        first = np.where(seen & (recoils == 0), recoil, first)
        light += np.where(seen, recoil, 0.0)
        recoils += seen
        t = np.where(moving, t * kept, t)
    return place @ [0.0, 0.6, 0.8], light, recoils, first


@pytest.mark.parametrize("t_MeV", [0.02, 0.1, 2.0, 8.0])
def test_a_simple_simulation_gives_the_same(t_MeV):
    places, light, recoils, first, _ = slowed(t_MeV)
    expected_place, expected, counts, expected_first = slowed_by_numpy(t_MeV)
    assert light.max() < t_MeV * 1.005
    blur = 0.01 * t_MeV * np.random.default_rng(1).normal(size=(4, EVENTS))  # deposits lie on a grid of energies
    assert ks_2samp(light + blur[0], expected + blur[1]).pvalue > UNLIKELY
    assert ks_2samp(first + blur[2], expected_first + blur[3]).pvalue > UNLIKELY
    assert recoils.mean() == pytest.approx(counts.mean(), abs=5 * counts.std() / math.sqrt(EVENTS / 2))
    assert ks_2samp(places @ [0.0, 0.6, 0.8], expected_place).pvalue > UNLIKELY


def test_mean_logarithmic_decrement():
    # At constant cross-sections a neutron needs ln(E1/E2)/ξ collisions more from E1 than from E2, with
    # ξ = 1 on hydrogen and 1 + α ln α/(1 - α), α = (11/13)², on carbon (textbooks of reactor physics).
    alpha = (11 / 13) ** 2
    hydrogen, carbon = HYDROGEN * hydrogen_barn(0.0), CARBON * carbon_barn(0.0)
    decrement = (hydrogen + carbon * (1 + alpha * math.log(alpha) / (1 - alpha))) / (hydrogen + carbon)
    high, low = slowed(9e-5)[4], slowed(3e-6)[4]
    error = math.hypot(high.std(), low.std()) / math.sqrt(EVENTS)
    assert high.mean() - low.mean() == pytest.approx(math.log(30) / decrement, abs=4 * error)


def test_free_path_is_exponential():
    # Just above thermal any collision is the last one.
    places, _, _, _, collisions = slowed(THERMAL_MeV * (1 + 1e-9))
    along = places @ np.array([0.0, 0.6, 0.8])
    once = collisions == 1
    assert once.mean() > 0.999
    mean_m = 1 / (HYDROGEN * hydrogen_barn(0.0) + CARBON * carbon_barn(0.0))
    assert 0.006 < mean_m < 0.008
    assert kstest(along[once], "expon", (0, mean_m)).pvalue > UNLIKELY


def test_an_ibd_neutron_goes_forward_a_little():
    # Some 1.5 to 2 cm, spread over a few (nominal).
    places = slowed(0.02)[0]
    forward = places @ np.array([0.0, 0.6, 0.8])
    assert 0.013 < forward.mean() < 0.022
    across = places @ np.array([1.0, 0.0, 0.0])
    assert abs(across.mean()) < 5 * across.std() / math.sqrt(EVENTS)
    assert 0.02 < across.std() < 0.05


@pytest.mark.parametrize("t_MeV", [0.02, 2.0])
def test_recoils_outside_are_dark(t_MeV):
    free, dark = slowed(t_MeV), slowed(t_MeV, edge_m=0.0)
    assert np.array_equal(free[0], dark[0])
    assert dark[2].sum() == 0
    some = slowed(t_MeV, edge_m=0.03)
    assert 0 < some[1].mean() < free[1].mean()


@njit
def _wandered(diffusion_m, key, places):
    for k in range(places.shape[0]):
        places[k] = 1.0
        wander(places[k], diffusion_m, key, event_counter(k))


def test_diffusion():
    places = np.empty((EVENTS, 3))
    _wandered(0.025, derive_key(2, "wander"), places)
    shift = places - 1.0
    assert np.mean(np.sum(shift**2, axis=1)) == pytest.approx(6 * 0.025**2, rel=0.03)
    for axis in shift.T:
        assert kstest(axis, "norm", (0, math.sqrt(2) * 0.025)).pvalue > UNLIKELY


@pytest.mark.parametrize(
    # ENDF/B's evaluation of hydrogen (nominal).
    ("t_MeV", "barn"),
    [(1e-3, 20.4), (0.1, 12.8), (1.0, 4.25), (2.0, 2.90), (5.0, 1.62), (10.0, 0.94)],
)
def test_hydrogen(t_MeV, barn):
    assert hydrogen_barn(t_MeV) == pytest.approx(barn, rel=0.015)
