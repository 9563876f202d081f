"""Pairs of inverse beta decays: spectrum, kinematics, energy, places, captures, and light on top of them."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import ks_2samp, kstest

from nuebar.errors import NuebarError
from nuebar.kernels import njit
from nuebar.physics import ibd
from nuebar.physics.constants import ELECTRON_MASS_MeV, NEUTRON_MASS_MeV, PROTON_MASS_MeV
from nuebar.physics.reactor import huber_mueller
from nuebar.simulate.detector import DetectorModel, nominal_response
from nuebar.simulate.ibd import CARBON, HYDROGEN, ibd_cascades, ibd_events
from nuebar.simulate.ibd_kinematics import IbdSpectrum, interact, interaction_tables
from nuebar.simulate.ibd_pool import IbdPool
from nuebar.simulate.particles import annihilation_cosine
from nuebar.simulate.random import derive_key, event_counter
from nuebar.simulate.transport import layers

PAIRS = 30_000
KEY, LIGHT_KEY = derive_key(1, "ibd"), derive_key(1, "ibd light")
UNLIKELY = 1e-3
RADIUS_m = 17.7


@pytest.fixture(scope="module")
def spectrum():
    """Three cores with fuel, rate and baseline of their own; one flies along another direction."""
    e = ibd.THRESHOLD_MeV + 10.2 * np.linspace(0, 1, 600) ** 1.5
    cross_section = np.asarray(ibd.cross_section_vogel_beacom(e))
    rows = [rate * np.asarray(huber_mueller(e, isotope)) * cross_section for rate, isotope in CORES]
    direction = np.array([[1.0, 0, 0], [0, 0.6, -0.8], [0, 0, 1.0]])
    return IbdSpectrum(e, np.array(rows), np.array([52.1, 52.8, 215.0]), direction)


CORES = ((3.0, "U235"), (0.0, "Pu239"), (1.0, "U238"))


@pytest.fixture(scope="module")
def model(juno):
    return DetectorModel.build(juno)


@pytest.fixture(scope="module")
def pool(spectrum, model):
    return ibd_cascades(spectrum, model, PAIRS, KEY)


@pytest.fixture(scope="module")
def events(pool, model):
    return ibd_events(pool, model, LIGHT_KEY)


@pytest.fixture(scope="module")
def deep(spectrum, model):
    """Pairs in a detector so large that hardly anything is near its edge."""
    large = dataclasses.replace(model, spheres=layers([("lab", 1e6)]))
    return ibd_cascades(spectrum, large, PAIRS, KEY)


@njit
def _interact(tables, key, core, numbers):
    for k in range(core.size):
        row = interact(tables, key, event_counter(k))
        core[k] = row[0]
        numbers[k] = row[1:]


@pytest.fixture(scope="module")
def interactions(spectrum):
    """Cores, and rows of E_nu, cos, E_e, direction of the positron, T_n, direction of the neutron."""
    core, numbers = np.empty(PAIRS, np.int64), np.empty((PAIRS, 10))
    _interact(interaction_tables(spectrum), KEY, core, numbers)
    return core, numbers


def distribution(e_MeV, density):
    """The distribution function of a density that is linear between nodes, as a callable."""

    def cumulative(x):
        fine = np.union1d(e_MeV, np.linspace(e_MeV[0], e_MeV[-1], 40_001))
        values = np.interp(fine, e_MeV, density)
        total = np.concatenate([[0], np.cumsum(0.5 * (values[1:] + values[:-1]) * np.diff(fine))])
        return np.interp(x, fine, total / total[-1])

    return cumulative


def test_cores_get_their_share(pool, spectrum):
    expected = spectrum.interactions() / spectrum.interactions().sum()
    found = np.bincount(pool.columns["core"], minlength=3) / PAIRS
    assert found == pytest.approx(expected, abs=4 * 0.5 / math.sqrt(PAIRS))
    assert found[1] == 0


@pytest.mark.parametrize("core", [0, 2])
def test_energies_follow_the_spectrum(pool, spectrum, core):
    e = pool.columns["e_nu_MeV"][pool.columns["core"] == core]
    assert e.min() >= ibd.THRESHOLD_MeV
    assert kstest(e, distribution(spectrum.e_nu_MeV, spectrum.per_MeV[core])).pvalue > UNLIKELY


@pytest.mark.parametrize("heights", [(0, 1, 0.2), (1, 0, 1), (3, 3, 3), (0, 0, 1)])
def test_energies_between_distant_nodes(heights):
    spectrum = IbdSpectrum([3.0, 5.0, 9.0], [heights], [50.0])
    core, numbers = np.empty(10_000, np.int64), np.empty((10_000, 10))
    _interact(interaction_tables(spectrum), KEY, core, numbers)
    assert kstest(numbers[:, 0], distribution(spectrum.e_nu_MeV, spectrum.per_MeV[0])).pvalue > UNLIKELY


def test_a_factor_changes_the_spectrum(spectrum, model):
    e = spectrum.e_nu_MeV
    survival = 0.5 + 0.5 * np.cos(4 * e) * np.ones((3, 1))
    weighted = spectrum.weighted(survival)
    pool = ibd_cascades(weighted, model, 4000, KEY)
    e_nu = pool.columns["e_nu_MeV"][pool.columns["core"] == 0]
    assert kstest(e_nu, distribution(e, (spectrum.per_MeV * survival)[0])).pvalue > UNLIKELY
    assert kstest(e_nu, distribution(e, spectrum.per_MeV[0])).pvalue < 1e-9


def test_four_momentum_is_conserved(interactions, spectrum):
    core, (e_nu, _, e_e, u, v, w, t_n, a, b, c) = interactions[0], interactions[1].T
    assert e_nu + PROTON_MASS_MeV == pytest.approx(e_e + NEUTRON_MASS_MeV + t_n, rel=1e-14)
    positron = np.sqrt(e_e**2 - ELECTRON_MASS_MeV**2)[:, None] * np.array([u, v, w]).T
    neutron = np.sqrt(t_n * (t_n + 2 * NEUTRON_MASS_MeV))[:, None] * np.array([a, b, c]).T
    assert positron + neutron == pytest.approx(e_nu[:, None] * spectrum.direction[core], abs=1e-6)


def test_angles_and_energies_are_those_of_physics(interactions, spectrum):
    core, (e_nu, cos, e_e, u, v, w, t_n, a, b, c) = interactions[0], interactions[1].T
    along = np.sum(spectrum.direction[core] * np.array([u, v, w]).T, axis=1)
    assert along == pytest.approx(cos, abs=1e-12)
    assert e_e == pytest.approx(np.asarray(ibd.positron_energy(e_nu, cos)), rel=1e-13)
    assert t_n == pytest.approx(np.asarray(ibd.neutron_kinetic_energy(e_nu, cos)), abs=1e-12)
    # The neutron takes the forward momentum.
    assert np.sum(spectrum.direction[core] * np.array([a, b, c]).T, axis=1).min() > 0
    low = e_nu > 2.0
    mean = np.asarray(ibd.mean_positron_energy(e_nu))
    spread = (e_e - mean)[low]
    assert abs(spread.mean()) < 4 * spread.std() / math.sqrt(low.sum())


@pytest.mark.parametrize(("low", "high"), [(2.0, 3.0), (3.0, 5.0), (5.0, 10.0)])
def test_angles_follow_the_differential_cross_section(interactions, low, high):
    e_nu, cos = interactions[1][:, 0], interactions[1][:, 1]
    here = (e_nu > low) & (e_nu < high)
    # Each angle through its own distribution function must be uniform.
    grid = np.linspace(-1, 1, 201)
    rows = np.asarray(ibd.differential_vogel_beacom(e_nu[here][:, None], grid[None, :]))
    cumulative = np.concatenate([np.zeros((len(rows), 1)), np.cumsum(rows[:, 1:] + rows[:, :-1], axis=1)], axis=1)
    uniform = [np.interp(x, grid, row / row[-1]) for x, row in zip(cos[here], cumulative, strict=True)]
    assert kstest(uniform, "uniform").pvalue > UNLIKELY


def test_vertices_are_uniform_and_isotropic(pool):
    vertex = pool.columns["vertex_m"].astype(float)
    radius = np.linalg.norm(vertex, axis=1)
    assert radius.max() <= RADIUS_m
    assert kstest((radius / RADIUS_m) ** 3, "uniform").pvalue > UNLIKELY
    assert np.mean(radius < 17.2) == pytest.approx((17.2 / RADIUS_m) ** 3, abs=0.006)
    for axis in (vertex / radius[:, None]).T:
        assert kstest(axis, "uniform", (-1, 2)).pvalue > UNLIKELY


def test_energy_closes_deep_inside(deep):
    c = deep.columns
    # Positron and gammas leave all; of the neutron recoils above 1 keV are counted, so between nothing and T_n.
    cos = c["cos_theta"].astype(float)
    positron = np.asarray(ibd.deposited_energy(c["e_nu_MeV"], cos))
    neutron = np.asarray(ibd.neutron_kinetic_energy(c["e_nu_MeV"], cos))
    recoils = c["prompt_e_dep_MeV"] - positron
    assert recoils.min() > -1e-5
    assert np.all(recoils < neutron * 1.01 + 2e-4)
    assert 0.7 < recoils.mean() / neutron.mean() < 0.97
    gammas = np.where(c["captured_on"] == HYDROGEN, 2.2233, np.where(c["delayed_e_dep_MeV"] < 4.9455, 4.945, 4.946))
    assert c["delayed_e_dep_MeV"] == pytest.approx(gammas, rel=1e-6)


def test_columns_agree_with_deposits(pool):
    for name, cascades in (("prompt", pool.prompt), ("delayed", pool.delayed)):
        difference = cascades.energies_MeV() - pool.columns[f"{name}_e_dep_MeV"]
        assert abs(difference).max() < 3e-3  # codes round energies
        assert abs(difference.mean()) < 2e-5


def test_captures(pool, model):
    neutrons = model.detector.neutrons
    time_us = pool.columns["capture_ns"] / 1e3
    assert kstest(time_us, "expon", (0, neutrons.capture_time_us)).pvalue > UNLIKELY
    carbon = np.mean(pool.columns["captured_on"] == CARBON)
    share = neutrons.carbon_share
    assert carbon == pytest.approx(share, abs=4 * math.sqrt(share / PAIRS))


def test_single_gamma_share_of_carbon(spectrum, model):
    neutrons = dataclasses.replace(model.detector.neutrons, carbon_share=1.0)
    only = dataclasses.replace(model, detector=dataclasses.replace(model.detector, neutrons=neutrons))
    pool = ibd_cascades(spectrum, only, 8000, KEY)
    radius = np.linalg.norm(pool.columns["vertex_m"], axis=1)
    single = np.abs(pool.columns["delayed_e_dep_MeV"][radius < 15] - 4.945) < 1e-4
    assert single.mean() == pytest.approx(0.681, abs=4 * 0.47 / math.sqrt(single.size))
    # Only outside there is no carbon.
    elsewhere = pool.columns["captured_on"] == HYDROGEN
    assert elsewhere.any()
    assert radius[elsewhere].min() > 17.2


@pytest.mark.parametrize("t_MeV", [0.01, 0.5, 3.0, 8.0])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.93, 1.0])
def test_annihilation_in_flight_conserves_momentum(t_MeV, share):
    m = ELECTRON_MASS_MeV
    momentum = math.sqrt(t_MeV * (t_MeV + 2 * m))
    low, high = (0.5 * (t_MeV + 2 * m + sign * momentum) for sign in (-1, 1))
    first = low + share * (high - low)
    photons = [(k, annihilation_cosine(t_MeV, k)) for k in (first, t_MeV + 2 * m - first)]
    assert sum(k * cos for k, cos in photons) == pytest.approx(momentum, rel=1e-12)
    across = [k * math.sqrt(1 - cos**2) for k, cos in photons]
    assert across[0] == pytest.approx(across[1], abs=1e-6)


def test_prompt_and_delayed_are_close(pool):
    c = pool.columns
    inner = np.linalg.norm(c["vertex_m"], axis=1) < 15
    shift = np.linalg.norm(c["delayed_m"] - c["prompt_m"], axis=1)[inner]
    # Gammas of some decimetres; neutrons of some centimetres.
    assert 0.15 < np.median(shift) < 0.5
    assert np.mean(shift > 2.0) < 1e-2


def test_light_is_lost_at_the_edge(pool):
    radius = np.linalg.norm(pool.columns["vertex_m"], axis=1)
    on_hydrogen = pool.columns["captured_on"] == HYDROGEN
    contained = pool.columns["delayed_e_dep_MeV"] > 2.2
    shells = [(0, 16), (16, 17), (17, 17.4), (17.4, 17.7)]
    shares = [contained[on_hydrogen & (radius >= low) & (radius < high)].mean() for low, high in shells]
    assert shares[0] > 0.999
    assert np.all(np.diff(shares) < 0)
    assert shares[-1] < 0.6
    # Some neutrons leave, and the gammas of some of these come back.
    outside = np.linalg.norm(pool.columns["delayed_m"], axis=1) > RADIUS_m
    assert np.all(pool.columns["delayed_e_dep_MeV"][outside] == 0)
    assert outside.sum() > 10


def test_chunks_are_parts_of_the_whole(spectrum, model, pool, events):
    first, last = 19_000, 21_500
    part = ibd_cascades(spectrum, model, last - first, KEY, first_event=first)
    expected = pool.part(first, last)
    for name, column in expected.columns.items():
        assert np.array_equal(part.columns[name], column), name
    assert np.array_equal(part.prompt.codes, expected.prompt.codes)
    assert np.array_equal(part.delayed.offsets, expected.delayed.offsets)
    seen = ibd_events(part, model, LIGHT_KEY, first_event=first)
    for name, column in seen.items():
        assert np.array_equal(column, events[name][first:last]), name


def test_keys_give_other_pairs(spectrum, model, pool, events):
    other = ibd_cascades(spectrum, model, 100, derive_key(2, "ibd"))
    assert not np.any(other.columns["e_nu_MeV"] == pool.columns["e_nu_MeV"][:100])
    light = ibd_events(pool.part(0, 100), model, derive_key(2, "ibd light"))
    assert not np.any(light["prompt_n_pe"] == events["prompt_n_pe"][:100])


def test_prompt_and_delayed_draw_apart(pool, model):
    # The same deposits twice: what is drawn for them must be independent.
    columns = {**pool.columns, "prompt_m": pool.columns["delayed_m"]}
    events = ibd_events(IbdPool(pool.delayed, pool.delayed, columns, pool.baseline_km), model, LIGHT_KEY)
    peak = np.abs(pool.columns["delayed_e_dep_MeV"] - 2.2233) < 1e-3
    assert ks_2samp(events["prompt_e_rec_MeV"][peak], events["delayed_e_rec_MeV"][peak]).pvalue > UNLIKELY
    for i, axis in enumerate("xyz"):
        shifts = [events[f"{name}_{axis}_m"][peak] - columns["delayed_m"][peak, i] for name in ("prompt", "delayed")]
        assert abs(np.corrcoef(*shifts)[0, 1]) < 4 / math.sqrt(peak.sum())


def test_truth_comes_along(events, pool, spectrum):
    assert np.array_equal(events["true_baseline_km"], spectrum.baseline_km[pool.columns["core"]])
    assert np.array_equal(events["dt_ns"], pool.columns["capture_ns"])
    vertex = np.array([events[f"true_{axis}_m"] for axis in "xyz"]).T
    assert np.array_equal(vertex, pool.columns["vertex_m"])
    assert all(column.shape == (PAIRS,) for column in events.values())


def test_delayed_peak_is_at_the_anchor(events, pool):
    inner = np.linalg.norm(pool.columns["vertex_m"], axis=1) < 15
    peak = events["delayed_e_rec_MeV"][inner & (pool.columns["captured_on"] == HYDROGEN)]
    # 2.2233 MeV by definition at the centre; the correction of the map leaves some 1e-3.
    assert peak.mean() == pytest.approx(2.2233, rel=3e-3)
    assert 0.01 < peak.std() / peak.mean() < 0.035


def test_light_yield_moves_no_energy(juno, pool, events):
    response = nominal_response(juno)
    brighter = dataclasses.replace(response, light_yield_per_MeV=1.01 * response.light_yield_per_MeV)
    seen = ibd_events(pool, DetectorModel.build(juno, brighter), LIGHT_KEY)
    for name in ("prompt", "delayed"):
        assert seen[f"{name}_e_rec_MeV"].mean() == pytest.approx(events[f"{name}_e_rec_MeV"].mean(), rel=5e-4)
        assert seen[f"{name}_n_pe"].mean() == pytest.approx(1.01 * events[f"{name}_n_pe"].mean(), rel=2e-3)


def test_a_pool_survives_the_disk(pool, tmp_path):
    path = tmp_path / "pairs.safetensors"
    pool.save(path)
    back = IbdPool.load(path)
    assert len(back) == len(pool) == PAIRS
    assert np.array_equal(back.prompt.codes, pool.prompt.codes)
    assert np.array_equal(back.delayed.offsets, pool.delayed.offsets)
    assert back.metadata == pool.metadata
    for name, column in pool.columns.items():
        assert np.array_equal(back.columns[name], column)
        assert back.columns[name].dtype == column.dtype
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(NuebarError, match="again"):
        IbdPool.load(path)


def test_a_pool_of_other_things_is_refused(pool, tmp_path):
    path = tmp_path / "cascades.safetensors"
    pool.prompt.save(path)
    with pytest.raises(NuebarError, match="expected a pool of pairs"):
        IbdPool.load(path)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"e_nu_MeV": np.array([3.0, 2.0, 4.0])}, "increasing"),
        ({"e_nu_MeV": np.array([0.5, 1.0, 1.5])}, "increasing energies"),
        ({"e_nu_MeV": np.array([2000.0, 3000.0, 4000.0])}, "in MeV"),
        ({"per_MeV": np.ones((2, 4))}, "shape"),
        ({"per_MeV": np.array([[1.0, np.nan, 1.0], [1, 1, 1]])}, "not negative"),
        ({"per_MeV": np.array([[1.0, -1.0, 1.0], [1, 1, 1]])}, "not negative"),
        ({"per_MeV": np.zeros((2, 3))}, "not all zero"),
        ({"baseline_km": np.ones(3)}, "shape"),
        ({"direction": np.ones((2, 3))}, "unit vectors"),
    ],
)
def test_wrong_spectra_are_refused(changes, text):
    good = {
        "e_nu_MeV": np.array([2.0, 3.0, 4.0]),
        "per_MeV": np.ones((2, 3)),
        "baseline_km": np.array([52.0, 53.0]),
        "direction": None,
    }
    IbdSpectrum(**good)
    with pytest.raises(NuebarError, match=text):
        IbdSpectrum(**(good | changes))


def test_no_pairs_is_refused(spectrum, model):
    with pytest.raises(NuebarError, match="at least one"):
        ibd_cascades(spectrum, model, 0, KEY)


def test_angles_do_not_need_double_precision_to_be_switched_on():
    # A process that did not ask for it: 1e-43 cm² is zero in single precision, and its share of zero is NaN.
    from jax import enable_x64

    from nuebar.simulate.ibd_kinematics import _cosine_quantiles

    with enable_x64(False):
        angles = _cosine_quantiles.__wrapped__()
    np.testing.assert_array_equal(angles, _cosine_quantiles())
    assert np.all(np.diff(angles, axis=1) > 0)
