"""Photons in spheres: energy, geometry and the same interactions as in an infinite volume."""

import math

import numpy as np
import pytest
from scipy.stats import ks_2samp, kstest

from nuebar.errors import NuebarError
from nuebar.kernels import njit
from nuebar.physics.constants import ELECTRON_MASS_MeV
from nuebar.simulate.deposits import code_energies_MeV
from nuebar.simulate.directions import circle, isotropic, rotate, tilt
from nuebar.simulate.gammas import compton, electron_tables, follow_gamma, photon_tables, stop_electron
from nuebar.simulate.random import derive_key, event_counter, uniform
from nuebar.simulate.scattering import LOG_MIN, PER_LOG, compton_quantiles, half_versine
from nuebar.simulate.transport import PHOTON_FIELDS, flight, follow_in_layers, layer_of, layers, may_radiate, push

KEY = derive_key(1, "transport")
EVENTS = 8000
HUGE = (("lab", 1000.0),)
JUNO = (("lab", 17.7), ("acrylic", 17.82), ("water", 20.05))
UNLIKELY = 1e-3  # of a test that is right, with these seeds; a mistake of physics gives far less


@njit
def _gammas(e_MeV, start, direction, first, spheres, electrons, key, weights, sums, codes_sum):
    stack, codes, centre = np.empty((64, PHOTON_FIELDS)), np.empty(4096, np.uint16), np.empty(4)
    for k in range(sums.shape[0]):
        counter = event_counter(first + k)
        u, v, w = direction[0], direction[1], direction[2]
        if u == 0.0 and v == 0.0 and w == 0.0:
            u, v, w = isotropic(key, counter)
        centre[:] = 0.0
        depth = push(stack, 0, e_MeV, start[0], start[1], start[2], u, v, w)
        _, n = follow_in_layers(spheres, electrons, key, counter + np.uint64(2), stack, depth, codes, 0, centre)
        sums[k] = centre
        codes_sum[k] = 0.0
        for i in range(n):
            codes_sum[k] += weights[codes[i]]


@njit
def _infinite(e_MeV, photons, electrons, key, weights, codes_sum):
    stack, codes = np.empty(64), np.empty(4096, np.uint16)
    for k in range(codes_sum.size):
        stack[0] = e_MeV
        _, n = follow_gamma(photons, electrons, key, event_counter(k), stack, 1, codes, 0)
        codes_sum[k] = 0.0
        for i in range(n):
            codes_sum[k] += weights[codes[i]]


def gammas(
    e_MeV, start=(0.0, 0.0, 0.0), direction=(0.0, 0.0, 0.0), *, spheres=JUNO, events=EVENTS, first=0, weights=None
):
    """Deposited energy and its moments, and a sum over deposits; isotropic unless a direction is given."""
    sums, codes_sum = np.empty((events, 4)), np.empty(events)
    weights = code_energies_MeV() if weights is None else weights
    place, way = np.array(start, dtype=float), np.array(direction, dtype=float)
    _gammas(e_MeV, place, way, first, layers(spheres), electron_tables(), KEY, weights, sums, codes_sum)
    return sums, codes_sum


@pytest.mark.parametrize(
    ("e_MeV", "rounding"), [(0.0105, 5e-4), (0.1, 5e-5), (0.511, 5e-6), (2.2233, 5e-6), (7.6, 5e-6)]
)
def test_nothing_is_lost_in_a_huge_sphere(e_MeV, rounding):
    sums, deposits = gammas(e_MeV, spheres=HUGE)
    assert sums[:, 0] == pytest.approx(e_MeV, rel=1e-12)
    # Codes round energies, in both directions alike.
    assert deposits == pytest.approx(e_MeV, rel=2e-3)
    assert deposits.mean() == pytest.approx(e_MeV, rel=rounding)


@pytest.mark.parametrize("e_MeV", [0.1, 0.511, 2.2233, 7.6])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.5])
def test_deposits_are_those_of_an_infinite_volume(e_MeV, power):
    weights = code_energies_MeV() ** power
    _, here = gammas(e_MeV, spheres=HUGE, weights=weights)
    there = np.empty(EVENTS)
    _infinite(e_MeV, photon_tables(), electron_tables(), derive_key(2, "infinite"), weights, there)
    assert ks_2samp(here, there).pvalue > UNLIKELY
    assert abs(here.mean() - there.mean()) < 4 * math.hypot(here.std(), there.std()) / math.sqrt(EVENTS)


@njit
def _radiating(t_MeV, electrons, key, may, does):
    stack, codes = np.empty(64), np.empty(4096, np.uint16)
    for k in range(may.size):
        counter = event_counter(k)
        may[k] = may_radiate(t_MeV, electrons, uniform(key, counter))
        _, depth, _ = stop_electron(t_MeV, electrons, key, counter, stack, 0, codes, 0)
        does[k] = depth > 0


@pytest.mark.parametrize("t_MeV", [0.06, 0.5, 5.0])
def test_no_bremsstrahlung_is_missed(t_MeV):
    may, does = np.empty(100_000, bool), np.empty(100_000, bool)
    _radiating(t_MeV, electron_tables(), KEY, may, does)
    assert does.any()
    assert not np.any(does & ~may)
    assert np.mean(may & ~does) < 0.02


@pytest.mark.parametrize("radius", [0.0, 10.0, 14.0])
def test_no_leakage_deep_inside(radius):
    sums, _ = gammas(2.2233, (radius, 0.0, 0.0))
    assert np.all(sums[:, 0] == pytest.approx(2.2233, rel=1e-12))


def test_leakage_grows_towards_the_edge():
    full = [np.mean(gammas(2.2233, (0.0, r, 0.0))[0][:, 0] > 2.2) for r in (16.5, 17.0, 17.4, 17.6, 17.69)]
    assert full[0] > 0.99
    assert np.all(np.diff(full) < -0.01)


def test_the_detector_looks_the_same_from_every_side():
    r = 17.5
    places = [(r, 0, 0), (0, 0, -r), tuple(r * np.array([2, -1, 2]) / 3)]
    samples = []
    for k, place in enumerate(places):
        sums, _ = gammas(2.2233, place, first=k * EVENTS)
        outward = sums[:, 1:] @ (np.array(place) / r) / np.maximum(sums[:, 0], 1e-9)
        samples.append((sums[:, 0], outward[sums[:, 0] > 0]))
    for other in samples[1:]:
        assert ks_2samp(samples[0][0], other[0]).pvalue > UNLIKELY
        assert ks_2samp(samples[0][1], other[1]).pvalue > UNLIKELY


@pytest.mark.parametrize("e_MeV", [0.06, 0.511, 2.2233])
def test_first_interaction_is_exponential(e_MeV):
    # Nothing is deposited in a ball if the first flight leaves it, and nothing comes back from outside.
    x = (math.log(e_MeV) - LOG_MIN) * PER_LOG
    per_m = 100 * np.interp(x, np.arange(4096), photon_tables().per_cm)
    radius = 0.7 / per_m
    sums, _ = gammas(e_MeV, spheres=(("lab", radius),))
    expected = math.exp(-0.7)
    assert np.mean(sums[:, 0] == 0) == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / EVENTS))


def test_the_unscattered_come_through_water_and_acrylic():
    # A parallel beam from outside: photons that deposit more than their Compton edge have a known depth to go.
    spheres = (("lab", 10.0), ("acrylic", 10.12), ("water", 11.0))
    e, thick = 2.6145, 0.40
    table = layers(spheres)
    x = (math.log(e) - LOG_MIN) * PER_LOG
    mu = [np.interp(x, np.arange(4096), row) for row in table.per_m]
    sums, _ = gammas(e, (-10.12 - thick, 0.0, 0.0), (1.0, 0.0, 0.0), spheres=spheres)
    through = math.exp(-mu[2] * thick - mu[1] * 0.12)
    # Scattered photons arrive with less; nearly all that arrive whole deposit all.
    whole = np.mean(sums[:, 0] > e * (1 - 1e-9))
    assert whole == pytest.approx(through, abs=4 * math.sqrt(through / EVENTS) + 0.02)
    assert np.all(sums[:, 0] <= e * (1 + 1e-12))


def test_what_happens_outside_gives_no_light():
    sums, deposits = gammas(2.2233, (19.0, 0.0, 0.0), (1.0, 0.0, 0.0))
    assert sums[:, 0].mean() < 1e-3 * 2.2233
    assert deposits.mean() < 1e-3 * 2.2233


@pytest.mark.parametrize("seed", range(20))
def test_a_flight_uses_up_its_depth(seed):
    # Optical depth along the straight line, by fine steps, through whatever layers it crosses.
    generator = np.random.default_rng(seed)
    spheres = layers((("lab", 2.0), ("acrylic", 2.3), ("water", 4.0)))
    start = generator.normal(size=3)
    start *= generator.uniform(0, 3.9) / np.linalg.norm(start)
    way = generator.normal(size=3)
    way /= np.linalg.norm(way)
    depths, row, share = generator.exponential(8.0), 2000, 0.25
    layer, *end = flight(depths, layer_of(np.linalg.norm(start), spheres), row, share, spheres, *start, *way)
    length = np.linalg.norm(np.array(end) - start)
    assert np.array(end) == pytest.approx(start + length * way, abs=1e-9)
    assert layer == layer_of(np.linalg.norm(end), spheres) or layer == 3
    steps = (np.arange(20_000) + 0.5) / 20_000 * length
    radius = np.linalg.norm(start + steps[:, None] * way, axis=1)
    per_m = spheres.per_m[:, row] + share * (spheres.per_m[:, row + 1] - spheres.per_m[:, row])
    passed = np.append(per_m, 0.0)[np.searchsorted(spheres.radius_m, radius)].mean() * length
    if layer == 3:
        assert np.linalg.norm(end) == pytest.approx(4.0, abs=1e-9)
        assert passed < depths * (1 + 1e-3)
    else:
        assert passed == pytest.approx(depths, rel=2e-3)


@njit
def _angles(e_MeV, key, quantiles, place, table, exact):
    counter = event_counter(0)
    for k in range(exact.size):
        table[k] = half_versine(place, uniform(key, event_counter(k) + np.uint64(1 << 19)), quantiles)
        left, counter = compton(e_MeV, key, counter)
        exact[k] = 0.5 * ELECTRON_MASS_MeV * (1 / left - 1 / e_MeV)


@pytest.mark.parametrize("e_MeV", [0.0101, 0.06, 0.511, 2.2233, 9.0])
def test_tabulated_angles_are_those_of_klein_and_nishina(e_MeV):
    table, exact = np.empty(50_000), np.empty(50_000)
    _angles(e_MeV, derive_key(3, "compton"), compton_quantiles(), (math.log(e_MeV) - LOG_MIN) * PER_LOG, table, exact)
    assert table.min() >= 0
    assert table.max() <= 1
    assert ks_2samp(table, exact).pvalue > UNLIKELY


@njit
def _even_angles(place, quantiles, out):
    for k in range(out.size):
        out[k] = half_versine(place, (k + 0.5) / out.size, quantiles)


@pytest.mark.parametrize("e_MeV", [0.0101, 0.06, 0.511, 2.2233, 9.0])
def test_moments_of_tabulated_angles(e_MeV):
    half = np.empty(100_000)
    _even_angles((math.log(e_MeV) - LOG_MIN) * PER_LOG, compton_quantiles(), half)
    nodes, weights = np.polynomial.legendre.leggauss(200)  # in cos θ, O. Klein and Y. Nishina, Z. Phys. 52, 853 (1929)
    k = e_MeV / ELECTRON_MASS_MeV
    x = 1 / (1 + k * (1 - nodes))
    density = weights * x**2 * (x + 1 / x - 1 + nodes**2)
    density /= density.sum()
    cos, left = 1 - 2 * half, 1 / (1 + 2 * k * half)
    assert np.mean(1 - left) == pytest.approx(density @ (1 - x), rel=5e-5)
    assert np.mean((1 - left) ** 2) == pytest.approx(density @ (1 - x) ** 2, rel=1e-4)
    assert cos.mean() == pytest.approx(density @ nodes, abs=5e-5)
    assert np.mean(cos**2) == pytest.approx(density @ nodes**2, rel=1e-4)


def turned(direction, cos, generator):
    """Directions turned by angles at random azimuths, by vector products."""
    other = np.where(np.abs(direction[:, :1]) < 0.9, [[1.0, 0, 0]], [[0, 1.0, 0]])
    first = np.cross(direction, other)
    first /= np.linalg.norm(first, axis=1)[:, None]
    second = np.cross(direction, first)
    phi = generator.uniform(0, 2 * np.pi, cos.size)
    sin = np.sqrt(1 - cos**2)
    return cos[:, None] * direction + (sin * np.cos(phi))[:, None] * first + (sin * np.sin(phi))[:, None] * second


def centres_by_numpy(e_MeV, photons, seed=4):
    """Centres of the energy that photons along z leave, without bremsstrahlung and pairs; rejection sampling."""
    generator, table = np.random.default_rng(seed), photon_tables()
    e, place, centre = np.full(photons, e_MeV), np.zeros((photons, 3)), np.zeros((photons, 3))
    direction = np.tile([0.0, 0.0, 1.0], (photons, 1))
    while np.any(e > 0):
        on_grid = (np.log(np.maximum(e, 1e-3)) - LOG_MIN) * PER_LOG
        per_m, compton_share = (np.interp(on_grid, np.arange(4096), t) for t in (100 * table.per_cm, table.compton))
        place += direction * (generator.exponential(size=photons) / per_m)[:, None]
        cos, todo = np.zeros(photons), np.ones(photons, bool)
        while todo.any():
            trial = generator.uniform(-1, 1, photons)
            x = 1 / (1 + e / ELECTRON_MASS_MeV * (1 - trial))
            accepted = todo & (2 * generator.random(photons) < x**2 * (x + 1 / x - 1 + trial**2))
            cos, todo = np.where(accepted, trial, cos), todo & ~accepted
        left = e / (1 + e / ELECTRON_MASS_MeV * (1 - cos))
        left = np.where(generator.random(photons) < compton_share, left, 0.0)
        left[left < 0.010] = 0.0
        centre += (e - left)[:, None] * place
        e, direction = left, turned(direction, cos, generator)
    return centre / e_MeV


@pytest.mark.parametrize("e_MeV", [0.06, 0.35])
def test_places_are_those_of_a_simple_simulation(e_MeV):
    sums, _ = gammas(e_MeV, direction=(0.0, 0.0, 1.0), events=20_000)
    here, there = sums[:, 1:] / e_MeV, centres_by_numpy(e_MeV, 20_000)
    assert ks_2samp(here[:, 2], there[:, 2]).pvalue > UNLIKELY
    assert ks_2samp(here[:, 0], there[:, 0]).pvalue > UNLIKELY
    assert ks_2samp(np.linalg.norm(here, axis=1), np.linalg.norm(there, axis=1)).pvalue > UNLIKELY


@pytest.mark.parametrize("turns", np.linspace(0, 1, 37))
def test_circle(turns):
    assert circle(turns) == pytest.approx((math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)), abs=1e-13)


@pytest.mark.parametrize("along", [(0, 0, 1), (0, 0, -1), (1, 0, 0), (0.6, 0, -0.8), (-0.48, 0.64, 0.6)])
@pytest.mark.parametrize("cos", [-1.0, -0.3, 0.0, 0.9, 1.0])
def test_a_turned_direction_keeps_its_angle_and_length(along, cos):
    phis = np.linspace(0, 2 * np.pi, 13)[:-1]
    turned = np.array([rotate(*map(float, along), cos, phi) for phi in phis])
    assert np.linalg.norm(turned, axis=1) == pytest.approx(1, abs=1e-14)
    assert turned @ np.array(along) == pytest.approx(cos, abs=1e-14)
    # Azimuths are even around the axis.
    assert turned.mean(axis=0) == pytest.approx(cos * np.array(along), abs=1e-14)


def test_azimuths_a_half_turn_apart_lie_opposite():
    u, v, w = 0.48, -0.64, 0.6
    one, two = np.array(tilt(u, v, w, 0.0, 0.6, 0.8)), np.array(tilt(u, v, w, 0.0, -0.6, -0.8))
    assert one == pytest.approx(-two, abs=1e-15)


def test_isotropic_directions():
    directions = np.array([isotropic(KEY, np.uint64(event_counter(k))) for k in range(4000)])
    for axis in directions.T:
        assert kstest(axis, "uniform", (-1, 2)).pvalue > UNLIKELY


def test_events_do_not_depend_on_each_other():
    whole, _ = gammas(2.2233, (17.5, 0, 0), events=50)
    part, _ = gammas(2.2233, (17.5, 0, 0), events=20, first=30)
    assert np.array_equal(whole[30:], part)


@pytest.mark.parametrize("spheres", [(("lab", 2.0), ("water", 1.0)), (("lab", 0.0),), ()])
def test_layers_must_grow(spheres):
    with pytest.raises(NuebarError, match="increase"):
        layers(spheres)
