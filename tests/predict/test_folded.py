"""Folding events onto inverse energies loses nothing, and analytic smearing is what sampling gives on average."""

from types import SimpleNamespace

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.physics import oscillation
from nuebar.predict.folded import InverseGrid, fold_pairs, lagrange_weights, spread
from nuebar.predict.harmonic import HarmonicPredictor, Windows

POINTS = [
    {"sin2_th12": 0.307, "sin2_th13": 0.022, "dm2_21_eV2": 7.53e-5, "dm2_31_eV2": 2.512e-3},
    {"sin2_th12": 0.9, "sin2_th13": 0.3, "dm2_21_eV2": 7.1e-5, "dm2_31_eV2": 2.44e-3},
    {"sin2_th12": 0.28, "sin2_th13": 0.019, "dm2_21_eV2": 7.9e-5, "dm2_31_eV2": -2.45e-3},
]
BASELINES = np.array([52.1, 52.8, 215.0])
EDGES = np.linspace(0.8, 8.8, 41)


def pairs(n=20_000, seed=1, share=None):
    rng = np.random.default_rng(seed)
    e_nu = rng.uniform(1.81, 9.5, n)
    e_rec = e_nu - 0.8 + 0.05 * rng.normal(size=n)
    place = np.digitize(e_rec, EDGES) - 1
    kept = (place >= 0) & (place < EDGES.size - 1)
    core = rng.integers(0, 3, n) if share is None else np.zeros(n, int)
    return SimpleNamespace(
        e_nu_MeV=e_nu[kept],
        core=core[kept].astype(np.uint8),
        bin=place[kept].astype(np.int16),
        edges_MeV=EDGES,
        baseline_km=BASELINES,
        core_names=("a", "b", "c"),
        core_share=share,
        scale=0.5,
        total=n,
        provenance={"files": "made up"},
    )


def naive(p, values, **matter):
    """The definition: every pair times its own probability."""
    function = oscillation.matter if matter else oscillation.vacuum
    weight = np.asarray(function(p.e_nu_MeV, p.baseline_km[p.core], **values, **matter))
    return p.scale * np.bincount(p.bin, weight, minlength=EDGES.size - 1)


@pytest.fixture(scope="module")
def vacuum():
    return HarmonicPredictor.build(fold_pairs(pairs()), windows=Windows.around_pdg(5), matter=False, cores=True)


@pytest.mark.parametrize("values", POINTS, ids=["pdg", "odd", "inverted"])
def test_a_harmonic_predictor_of_folded_pairs_is_reweighting(values, vacuum):
    p, predictor = pairs(), vacuum
    np.testing.assert_allclose(predictor.predict(values), naive(p, values), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("values", POINTS, ids=["pdg", "odd", "inverted"])
def test_folded_pairs_give_any_function_of_energy_in_matter_too(values):
    p = pairs()
    folded = fold_pairs(p)
    matter = {"density_g_cm3": 2.6, "electrons_per_nucleon": 0.5}
    got = sum(
        folded.table[c] @ np.asarray(oscillation.matter(folded.e_nu_MeV, BASELINES[c], **values, **matter))
        for c in range(3)
    )
    np.testing.assert_allclose(got, naive(p, values, **matter), rtol=1e-10)


def test_matter_in_bins_is_close_to_exact():
    p, values = pairs(), POINTS[0]
    predictor = HarmonicPredictor.build(fold_pairs(p), windows=Windows.around_pdg(3))
    got = predictor.predict({**values, "matter_density_g_cm3": 2.6})
    exact = naive(p, values, density_g_cm3=2.6, electrons_per_nucleon=0.5)
    # Bins of 0.2 MeV instead of 0.02: the expansion in energy inside a bin is ten times as long.
    np.testing.assert_allclose(got, exact, rtol=2e-4)


def test_cores_add_up(vacuum):
    rows = np.concatenate([np.asarray(group.solar.value).sum(axis=2) for group in vacuum.cores])
    np.testing.assert_allclose(rows.sum(axis=0), np.asarray(vacuum.total.solar.value).sum(axis=1), rtol=1e-5)


def test_pairs_without_a_core_belong_to_all_with_their_shares():
    share = np.array([0.5, 0.3, 0.2])
    p, values = pairs(share=share), POINTS[0]
    got = HarmonicPredictor.build(fold_pairs(p), windows=Windows.around_pdg(3), matter=False).predict(values)
    expected = 0.0
    for k in range(3):
        weight = np.asarray(oscillation.vacuum(p.e_nu_MeV, BASELINES[k], **values))
        expected += share[k] * p.scale * np.bincount(p.bin, weight, minlength=EDGES.size - 1)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_folding_is_linear_and_keeps_the_number_of_events():
    p = pairs()
    folded = fold_pairs(p)
    np.testing.assert_allclose(folded.table.sum(axis=(0, 2)), p.scale * np.bincount(p.bin, minlength=40), rtol=1e-12)


@pytest.mark.parametrize("points", [4, 10, 14, 16])
def test_lagrange_weights_reproduce_polynomials(points):
    weights, nodes = np.empty(points), np.arange(points)
    for u in (points / 2 - 0.7, points / 2 - 0.5, points / 2 - 1.0):
        spread(u, lagrange_weights(points), weights)
        assert np.sum(weights) == pytest.approx(1.0, rel=1e-12)
        x, at = (nodes - points / 2) / points, (u - points / 2) / points
        for power in range(1, points):
            assert np.sum(weights * x**power) == pytest.approx(at**power, abs=1e-12)


def test_the_grid_reaches_what_was_asked_for():
    grid = InverseGrid.reaching(215.0)
    phase = 2 * oscillation.PHASE_per_eV2_km_MeV * 215.0 * 3.2e-3 * grid.step
    assert phase <= 0.4 * (1 + 1e-12)
    assert np.all(grid.nodes > 0)
    assert grid.nodes[0] < 1 / 16
    assert grid.nodes[-1] > 1 / 1.8


def test_a_table_that_does_not_fit_is_refused():
    p = pairs()
    p.baseline_km = np.array([52.0, 53.0, 300_000.0])
    with pytest.raises(NuebarError, match="folding needs"):
        fold_pairs(p)
