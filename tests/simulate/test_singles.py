"""Laws of decays, pools of singles, the events drawn from them and their rates."""

import dataclasses

import numpy as np
import pytest

from nuebar.config_detector import Singles
from nuebar.errors import NuebarError
from nuebar.physics.constants import ELECTRON_MASS_MeV
from nuebar.physics.decays import beta_spectrum, load_nuclide
from nuebar.simulate import singles_pools
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.external import Arrivals, GammaLines, arrivals_from
from nuebar.simulate.pool import CascadePool
from nuebar.simulate.random import derive_key
from nuebar.simulate.singles import generated_rates_Hz, singles_events, singles_light
from nuebar.simulate.singles_pools import PLACES, singles_pool
from nuebar.simulate.singles_table import accidental_rate, close_chance, singles_table

KEY = derive_key(11, "singles")
INSIDE = Singles("inside", "inside", 2.0, {"U238": 0.25, "K40": 0.5, "Pb210": 1.0})
ACRYLIC = Singles("acrylic", "acrylic", 8.0, {"Tl208": 1.0, "K40": 1.0})
OUTSIDE = Singles("outside", "outside", 5.0, {"Th232": 1.0, "Co60": 1.0}, radius_m=18.4)


@pytest.fixture(scope="module")
def model(juno):
    built = DetectorModel.build(juno)
    detector = dataclasses.replace(built.detector, singles=(INSIDE, ACRYLIC, OUTSIDE))
    return dataclasses.replace(built, detector=detector)


@pytest.fixture(scope="module")
def pools(model):
    return {s.name: singles_pool(s, model, KEY, cascades=20_000) for s in model.detector.singles}


@pytest.fixture(scope="module")
def light(pools, model):
    return singles_light(pools, model)


@pytest.fixture(scope="module")
def rates(light, model):
    return generated_rates_Hz(light, model, events=200_000)


def radius(events, prefix=""):
    return np.sqrt(sum(events[f"{prefix}{axis}_m"].astype(float) ** 2 for axis in "xyz"))


def kinetic_and_gamma_MeV(nuclide):
    """Mean energy of a decay without its neutrinos, from the scheme: an independent sum over its branches."""
    total = 0.0
    for b in nuclide.branches:
        particle = b.q_MeV if b.mode == "alpha" else 0.0
        if b.mode in ("beta-", "beta+"):
            t = np.linspace(0, b.q_MeV, 4001)
            density = beta_spectrum(t, b)
            particle = np.sum(t * density) / np.sum(density) + (2 * ELECTRON_MASS_MeV if b.mode == "beta+" else 0.0)
        total += b.probability * (particle + nuclide.levels[b.level].energy_MeV)
    return total


@pytest.mark.parametrize("name", ["K40", "Co60", "Cs137", "Bi214", "Tl208", "Bi212", "Ga68", "Po214", "Pa234m"])
def test_decays_deposit_all_but_the_neutrinos_energy(name, model):
    pool = singles_pool(Singles(name, "inside", 1.0, {name: 1.0}), model, KEY, cascades=6000, least_MeV=0.0)
    deep = pool.columns["radius_m"] < 15.5
    e = pool.energies_MeV()[deep]
    nuclide = load_nuclide(name)
    highest = max(b.q_MeV + nuclide.levels[b.level].energy_MeV for b in nuclide.branches)
    mean = e.mean() * pool.metadata["per_activity"]  # captures to the ground state leave nothing
    assert mean == pytest.approx(kinetic_and_gamma_MeV(nuclide), abs=4 * e.std() / np.sqrt(e.size) + 0.005 * mean)
    assert e.max() < highest + 2 * ELECTRON_MASS_MeV + 0.01
    np.testing.assert_allclose(pool.columns["e_dep_MeV"][deep], e, atol=0.01)
    captured = sum(
        b.probability for b in nuclide.branches if b.mode == "ec" and not nuclide.levels[b.level].transitions
    )
    assert pool.metadata["per_activity"] == pytest.approx(1.0 - captured, abs=0.02)


def test_cobalt_always_leaves_its_two_gammas(model):
    pool = singles_pool(Singles("Co60", "inside", 1.0, {"Co60": 1.0}), model, KEY, cascades=4000)
    deep = pool.columns["e_dep_MeV"][pool.columns["radius_m"] < 15.5]
    assert np.mean(deep > 2.5) > 0.998


def test_polonium_214_is_seen_at_its_quenched_energy(model):
    pool = singles_pool(Singles("Po214", "inside", 1.0, {"Po214": 1.0}), model, KEY, cascades=2000)
    seen = np.median(pool.photons(model.light)) * model.electronics.pe_per_photon / model.pe_per_MeV
    assert np.median(pool.columns["e_dep_MeV"]) == pytest.approx(7.687, abs=0.01)
    assert seen == pytest.approx(0.93, rel=0.15)  # as measured in LAB, see the release of 2025


def test_places_are_where_the_material_is(pools):
    r = {name: pool.columns["radius_m"].astype(float) for name, pool in pools.items()}
    share = np.mean(r["inside"] < 17.2)
    assert share == pytest.approx((17.2 / 17.7) ** 3, abs=4 * np.sqrt(0.08 * 0.92 / 20_000) + 0.005)  # edge: some less
    for name in ("acrylic", "outside"):
        assert np.mean(r[name] > 17.2) > 0.8  # where a uniform source has 8 %
        assert r[name].max() < 17.7 + 1e-4
    for i, name in enumerate(("inside", "acrylic", "outside")):
        assert PLACES[i] == name
        assert np.all(pools[name].columns["kind"] == i)
        assert pools[name].columns["e_dep_MeV"].min() >= 0.2 - 1e-6


def isotropic_starts(e_MeV, start_m, n):
    place, direction = (v / np.linalg.norm(v, axis=1)[:, None] for v in np.random.default_rng(3).normal(size=(2, n, 3)))
    return np.hstack([np.full((n, 1), e_MeV), start_m * place, direction])


@pytest.mark.parametrize(("e_MeV", "edges"), [(2.6145, (0.4, 0.8, 1.4, 2.2, 2.6)), (9.0, (0.35, 0.5, 0.8, 4.0, 8.9))])
def test_gammas_from_outside_equal_plain_transport(e_MeV, edges, model):
    """Photons followed from their start by the other kernel: the two stages and the splitting lose nothing.

    At 9 MeV a third of all interactions are pairs, and annihilation photons arrive.
    """
    start_m, n = 18.05, 200_000
    lines = GammaLines(np.array([e_MeV]), np.ones(1), np.zeros(1, np.int64), ("one",))
    plain = Arrivals(isotropic_starts(e_MeV, start_m, n), np.zeros(n, np.int32), np.arange(n), n, 1.0)
    split = arrivals_from(lines, start_m, model.spheres, KEY, arrivals=30_000)
    rates = []
    for arrivals in (plain, split):
        collected = singles_pools._Collected()
        singles_pools._follow_arrivals(arrivals, lines.nuclide, model, KEY, 0.3, collected)
        counts, _ = np.histogram(np.concatenate(collected.places)[:, 0], edges)
        size = len(arrivals.line) / arrivals.independent  # mean number of arrivals of a start, by arrivals
        rates.append(arrivals.weight / arrivals.starts * np.array([counts, np.sqrt(counts * size)]))
    (a, a_error), (b, b_error) = rates
    assert np.all(np.abs(a - b) < 4 * np.hypot(a_error, b_error))
    assert np.all(np.hypot(a_error, b_error) < 0.06 * a)


def test_neighbours_in_a_pool_are_strangers(pools):
    """Arrivals of one start come together from the transport; the pool must not keep them so."""
    c = pools["outside"].columns
    place = np.stack([c["x_m"], c["y_m"], c["z_m"]], axis=1)
    assert np.mean(np.linalg.norm(place[1:] - place[:-1], axis=1) < 2.0) < 0.01


def test_coincident_gammas_of_the_vessel_add_up(pools):
    e = pools["acrylic"].columns["e_dep_MeV"]
    thallium = pools["acrylic"].metadata["nuclides"].index("Tl208")
    assert np.all(pools["acrylic"].columns["nuclide"][e > 2.62] == thallium)
    assert np.mean(e > 2.7) > 0.01


def test_a_pool_survives_the_disk(pools, tmp_path):
    pools["outside"].save(tmp_path / "pool.safetensors")
    again = CascadePool.load(tmp_path / "pool.safetensors")
    np.testing.assert_array_equal(again.codes, pools["outside"].codes)
    assert again.metadata["per_activity"] == pools["outside"].metadata["per_activity"]


def test_a_larger_pool_begins_with_the_smaller(model):
    few, more = (singles_pool(INSIDE, model, KEY, cascades=n) for n in (1000, 20_000))
    np.testing.assert_array_equal(few.codes, more.codes[: few.codes.size])
    np.testing.assert_array_equal(few.columns["x_m"], more.columns["x_m"][:1000])


def test_rates_come_out_as_the_table_says(light, model, rates):
    rows = {row.name: row for row in singles_table(light, model, rates, events=600_000)}
    for s in model.detector.singles:
        row = rows[s.name]
        error = row.rate_Hz / np.sqrt(row.rate_Hz / sum(rates.values()) * 600_000)
        assert row.rate_Hz == pytest.approx(s.rate_Hz, abs=4 * np.hypot(error, s.rate_Hz * 0.002))
        assert row.generated_Hz > row.rate_Hz > row.fiducial_Hz > 0
    total = rows["total"]
    assert total.fiducial_Hz == pytest.approx(sum(rows[s.name].fiducial_Hz for s in model.detector.singles))
    assert rows["inside"].fiducial_share > 0.9
    assert rows["outside"].fiducial_share < 0.2


def test_events_are_the_same_on_every_side(light, model, rates):
    events = singles_events(light, model, rates, KEY, n=100_000)
    r = radius(events, "true_")
    for axis in "xyz":
        cosine = events[f"true_{axis}_m"] / r
        assert abs(cosine.mean()) < 5 / np.sqrt(3 * r.size)
        assert abs((cosine**2).mean() - 1 / 3) < 5 * np.sqrt(4 / 45 / r.size)
    moved = (events["x_m"] - events["true_x_m"]) / (0.1 / np.sqrt(events["n_pe"] / model.pe_per_MeV))
    bright = events["n_pe"] > 0.5 * model.pe_per_MeV
    assert moved[bright].std() == pytest.approx(1.0, abs=0.02)


def test_materials_are_mixed_at_their_rates(light, model, rates):
    events = singles_events(light, model, rates, KEY, n=200_000)
    share = np.bincount(events["true_material"], minlength=3) / 200_000
    expected = np.array([rates[name] for name in light.materials]) / sum(rates.values())
    np.testing.assert_allclose(share, expected, atol=5 * np.sqrt(0.25 / 200_000))
    first = np.mean(events["true_material"][:100_000] == 0)
    assert first == pytest.approx(share[0], abs=0.01)


def test_events_depend_on_their_chunk_only(light, model, rates):
    few = singles_events(light, model, rates, KEY, n=5000)
    more = singles_events(light, model, rates, KEY, n=9000)
    other = singles_events(light, model, rates, derive_key(12), n=5000)
    for name, column in few.items():
        np.testing.assert_array_equal(column, more[name][:5000])
    assert not np.any(few["e_rec_MeV"] == other["e_rec_MeV"])


def test_a_threshold_takes_events_away_and_nothing_else(light, model, rates):
    every = singles_events(light, model, rates, KEY, n=20_000)
    above = singles_events(light, model, rates, KEY, n=20_000, above_MeV=0.7)
    chosen = every["e_rec_MeV"] >= np.float32(0.7)
    for name, column in every.items():
        np.testing.assert_array_equal(above[name], column[chosen])


def test_a_duration_gives_a_poisson_number(light, model, rates):
    many = [singles_events(light, model, rates, derive_key(k), duration_s=20.0)["n_pe"].size for k in range(40)]
    mean = 20.0 * sum(rates.values())
    assert np.mean(many) == pytest.approx(mean, abs=4 * np.sqrt(mean / 40))
    assert 0.4 < np.var(many) / mean < 2.0


@pytest.mark.parametrize(
    ("r", "s", "d", "chance"), [(0.0, 1.0, 1.5, 1.0), (10.0, 12.0, 1.5, 0.0), (5.0, 5.0, 10.0, 1.0)]
)
def test_close_chance_at_its_limits(r, s, d, chance):
    assert close_chance(np.array([r]), np.array([s]), d)[0] == pytest.approx(chance)


def test_close_chance_of_a_uniform_ball():
    """Distances in a ball: (d/R)³ (1 - 9/16 d/R + 1/32 (d/R)³) (R. Deltheil, Probabilités géométriques, 1926)."""
    r, s = 17.2 * np.random.default_rng(1).random((2, 2_000_000)) ** (1 / 3)
    x = 1.5 / 17.2
    expected = x**3 * (1 - 9 / 16 * x + x**3 / 32)
    assert np.mean(close_chance(r, s, 1.5)) == pytest.approx(expected, rel=0.02)


def test_accidentals_grow_with_the_square_of_the_rate(light, model, rates):
    once = accidental_rate(light, model, rates, events=300_000, pairs=200_000)
    twice = accidental_rate(light, model, {k: 2 * v for k, v in rates.items()}, events=300_000, pairs=200_000)
    assert twice.per_day == pytest.approx(4 * once.per_day)
    assert once.per_day == pytest.approx(once.prompt_Hz * once.delayed_Hz * 1e-3 * once.close * 86400)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"activity": {"Nope": 1.0}}, "Nope"),
        ({"place": "nowhere"}, "expected one of"),
        ({"place": "acrylic", "activity": {"C14": 1.0}}, "give it nuclides with more energy"),
    ],
)
def test_what_cannot_be_simulated_is_refused(change, sentence, model):
    with pytest.raises(NuebarError, match=sentence):
        singles_pool(dataclasses.replace(INSIDE, **change), model, KEY, cascades=10)


def test_bad_draws_are_refused(light, model):
    with pytest.raises(NuebarError, match="rates of inside, acrylic, outside"):
        singles_events(light, model, {"steel": 1.0}, KEY, n=10)
    with pytest.raises(NuebarError, match="either n or duration_s"):
        singles_events(light, model, {"inside": 1.0}, KEY)
    dark = dataclasses.replace(model.detector, singles_threshold_MeV=50.0)
    with pytest.raises(NuebarError, match="none of 1000 events is above 50 MeV"):
        generated_rates_Hz(light, dataclasses.replace(model, detector=dark), events=1000)
