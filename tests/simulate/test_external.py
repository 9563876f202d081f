"""Laws of gammas from outside: attenuation, no bias from splitting, coincidence with plain transport."""

from itertools import pairwise

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.simulate.external import GammaLines, arrivals_from, gamma_lines
from nuebar.simulate.random import derive_key
from nuebar.simulate.transport import layers

RADIUS, VESSEL, OUTER = 17.7, 17.82, 20.05
SPHERES = layers([("lab", RADIUS), ("acrylic", VESSEL), ("water", OUTER)])
KEY = derive_key(5, "external")


def line(e_MeV):
    return GammaLines(np.array([e_MeV]), np.ones(1), np.zeros(1, np.int64), ("one",))


def cluster_error(arrivals, chosen):
    """Error of the expected arrivals a second that are chosen, from the spread between starts."""
    many = np.bincount(arrivals.start[chosen], minlength=arrivals.starts)
    return arrivals.weight * np.sqrt(np.sum(many.astype(float) ** 2)) / arrivals.starts


def unscattered(e_MeV, start_m):
    """Chance of a gamma on a sphere to reach the scintillator without interaction, by integration over its angle."""
    grid = np.exp(np.linspace(np.log(1e-3), np.log(15.0), SPHERES.per_m.shape[1]))
    acrylic, water = (np.interp(e_MeV, grid, SPHERES.per_m[k]) for k in (1, 2))
    cosine = np.linspace(np.sqrt(1 - (RADIUS / start_m) ** 2) + 1e-12, 1.0, 20001)
    sine2 = start_m**2 * (1 - cosine**2)
    at = [np.sqrt(np.maximum(r * r - sine2, 0)) for r in (RADIUS, VESSEL)]
    water_m, acrylic_m = start_m * cosine - at[1], at[1] - at[0]
    chance = np.exp(-water * water_m - acrylic * acrylic_m)
    return 0.5 * np.sum(0.5 * (chance[1:] + chance[:-1]) * np.diff(cosine))


@pytest.mark.parametrize(("e_MeV", "start_m"), [(2.6145, 18.1), (2.6145, 19.5), (1.4608, 18.4), (0.6617, 18.0)])
def test_unscattered_gammas_are_attenuated_exponentially(e_MeV, start_m):
    a = arrivals_from(line(e_MeV), start_m, SPHERES, KEY, arrivals=15_000)
    direct = a.photons[:, 0] == e_MeV
    got = a.weight * np.count_nonzero(direct) / a.starts
    error = cluster_error(a, direct)
    assert error < 0.05 * got
    assert abs(got - unscattered(e_MeV, start_m)) < 4 * error


@pytest.mark.parametrize("options", [{}, {"slope": 1.0, "tilt": 0.0, "one_in": 1}, {"spacing_m": 0.1, "tilt": 0.5}])
def test_splitting_changes_no_spectrum(options):
    start_m, thorium = 18.1, gamma_lines({"Tl208": 1.0})
    plain = arrivals_from(thorium, start_m, SPHERES, KEY, arrivals=40_000, slope=0.0, tilt=0.0, one_in=1)
    split = arrivals_from(thorium, start_m, SPHERES, derive_key(6, "x"), arrivals=40_000, **options)
    chi2 = n = 0
    for of, edges in (
        (lambda a: a.photons[:, 0], (0.3, 0.4, 0.5, 0.65, 0.9, 1.3, 1.8, 2.3, 2.6, 2.7)),
        (lambda a: a.cosine, (0.0, 0.3, 0.5, 0.7, 0.85, 0.95, 1.0)),
    ):
        for low, high in pairwise(edges):
            masks = [(of(a) > low) & (of(a) <= high) for a in (plain, split)]
            rates = [a.weight * np.count_nonzero(m) / a.starts for a, m in zip((plain, split), masks, strict=True)]
            errors = [cluster_error(a, m) for a, m in zip((plain, split), masks, strict=True)]
            chi2 += (rates[0] - rates[1]) ** 2 / (errors[0] ** 2 + errors[1] ** 2)
            n += 1
    assert chi2 < n + 4 * np.sqrt(2 * n)


def test_arrivals_enter_the_surface_with_no_more_energy_than_their_line():
    lines = gamma_lines({"Co60": 1.0, "K40": 2.0})
    a = arrivals_from(lines, 18.3, SPHERES, KEY, arrivals=5000)
    assert len(a.photons) >= 5000
    np.testing.assert_allclose(np.linalg.norm(a.photons[:, 1:4], axis=1), RADIUS, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(a.photons[:, 4:7], axis=1), 1.0, rtol=1e-9)
    assert np.all(a.cosine > 0)
    assert np.all(a.photons[:, 0] <= lines.energy_MeV[a.line])
    assert np.all(a.photons[:, 0] >= 0.3)
    assert 0.2 * len(a.line) < a.independent <= len(a.line)


def test_arrivals_have_no_preferred_side():
    place = arrivals_from(line(1.4608), 18.2, SPHERES, KEY, arrivals=30_000).photons[:, 1:4] / RADIUS
    assert np.all(np.abs(place.mean(axis=0)) < 5 / np.sqrt(3 * 15_000))
    assert np.all(np.abs((place**2).mean(axis=0) - 1 / 3) < 0.015)


def test_more_arrivals_begin_with_the_same_ones():
    few = arrivals_from(line(2.0), 18.0, SPHERES, KEY, arrivals=100)
    more = arrivals_from(line(2.0), 18.0, SPHERES, KEY, arrivals=5 * len(few.line))
    np.testing.assert_array_equal(few.photons, more.photons[: len(few.photons)])
    other = arrivals_from(line(2.0), 18.0, SPHERES, derive_key(8), arrivals=100)
    assert not np.array_equal(other.photons[:10], few.photons[:10])


@pytest.mark.parametrize(
    ("activity", "e_MeV", "per_activity", "tolerance"),
    [
        ({"K40": 2.0}, 1.4608, 2 * 0.1066, 0.03),  # ENSDF intensities
        ({"Co60": 1.0}, 1.3325, 1.0, 0.01),
        ({"Th232": 1.0}, 2.6145, 0.3594 * 0.998, 0.01),
        ({"U238": 1.0}, 1.7645, 0.153, 0.03),
        ({"Ge68": 1.0}, 0.5110, 2 * 0.891, 0.01),  # positrons of 68Ga
    ],
)
def test_lines_have_their_intensities(activity, e_MeV, per_activity, tolerance):
    lines = gamma_lines(activity)
    near = np.abs(lines.energy_MeV - e_MeV) < 5e-4
    assert lines.per_activity[near].sum() == pytest.approx(per_activity, rel=tolerance)
    assert np.all(lines.energy_MeV >= 0.3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"radius_m": 17.0}, "radius_m: expected a sphere between 17.7 and 20.05 m, got 17"),
        ({"radius_m": 21.0}, "radius_m: expected a sphere between"),
        ({"arrivals": 0}, "arrivals and one_in: expected whole numbers above 0"),
        ({"least_MeV": 2.0}, "expected a gamma above 2 MeV"),
    ],
)
def test_what_cannot_arrive_is_refused(change, sentence):
    options = {"radius_m": 18.0, "arrivals": 10} | change
    with pytest.raises(NuebarError, match=sentence):
        arrivals_from(line(1.0), options.pop("radius_m"), SPHERES, KEY, **options)


def test_nuclides_without_gammas_are_refused():
    with pytest.raises(NuebarError, match=r"expected gammas above 0\.3 MeV, got none from C14"):
        gamma_lines({"C14": 1.0})
    with pytest.raises(NuebarError, match="Unobtainium"):
        gamma_lines({"Unobtainium": 1.0})
