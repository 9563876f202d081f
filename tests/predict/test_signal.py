"""Rates and response of the embedded JUNO against published numbers and laws."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from nuebar.config import override
from nuebar.physics import ibd
from nuebar.predict.box import physics_vector
from nuebar.predict.matrix import MatrixPredictor
from nuebar.predict.signal import fine_edges, neutrino_grid, response_matrix, signal_inputs
from nuebar.predict.spectrum import build_model
from nuebar.predict.stencil import Stencil, finite_difference_weights

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "juno.json").read_text())
P = physics_vector(
    dict(sin2_th12=0.307, sin2_th13=0.0218, dm2_21_eV2=7.53e-5, dm2_31_eV2=2.5283e-3, matter_density_g_cm3=2.45)
)


def test_rates_at_full_power(juno, juno_matrix):
    """47.1 ± 0.7 selected IBD a day; Taishan-1 7.5 and Daya Bay 3.0 within 3 % (arXiv:2204.13249)."""
    days = juno.exposure.days * juno.reactor.duty_cycle
    rates = np.asarray(jnp.sum(juno_matrix.channels(P), axis=1)) / days
    by_core = dict(zip(juno_matrix.core_names, rates[1:], strict=True))
    total = REFERENCE["ibd_per_day"]
    assert rates[0] == pytest.approx(total["value"], abs=total["tolerance"])
    for core, published in REFERENCE["ibd_per_day_of_core"].items():
        assert by_core[core] == pytest.approx(published["value"], rel=published["relative_tolerance"])


def test_response_conserves_events():
    e_nu, _ = neutrino_grid()
    edges = np.linspace(0.0, 16.0, 801)
    matrix = response_matrix(e_nu, edges, np.asarray, (0.03, 0.0, 0.0))
    np.testing.assert_allclose(matrix.sum(axis=0), 1.0, atol=1e-12)
    assert np.all(matrix >= 0)


def test_response_puts_the_mean_where_kinematics_does():
    e_nu = np.array([2.5, 4.0, 8.0])
    edges = np.linspace(0.0, 16.0, 3201)
    matrix = response_matrix(e_nu, edges, np.asarray, (0.03, 0.0, 0.0))
    mean = 0.5 * (edges[1:] + edges[:-1]) @ matrix
    expected = np.asarray(ibd.mean_positron_energy(jnp.asarray(e_nu))) + 0.51099895
    np.testing.assert_allclose(mean, expected, atol=2e-5)


def test_quadrature_has_converged(juno, juno_matrix, monkeypatch):
    """Twice the nodes in neutrino energy and in angle: 1e-6 in the median, 1e-4 in the worst bin.

    What is left in the worst bins (around 1.2 MeV) are the kinks of the tabulated non-linearity, which is linear
    between nodes 24 keV apart; both predictors share it.
    """
    monkeypatch.setattr("nuebar.predict.signal.NODES_PER_CELL", 6)
    monkeypatch.setattr("nuebar.predict.signal.ANGLES", 9)
    finer = MatrixPredictor.build(signal_inputs(juno))
    a, b = np.asarray(juno_matrix.channels(P)[0]), np.asarray(finer.channels(P)[0])
    keep = b > 1e-4 * b.max()
    difference = np.abs(a / b - 1)[keep]
    assert np.median(difference) < 1e-6
    assert difference.max() < 1e-4


def test_anchor_sets_the_unoscillated_rate(juno):
    anchored = override(juno, {"reactor.unoscillated_per_day": 150.9})
    inputs = signal_inputs(anchored)
    expected = 150.9 * anchored.target.efficiency * anchored.exposure.days
    assert inputs.events.sum() == pytest.approx(expected, rel=1e-12)


def test_power_history_reproduces_a_constant(juno, tmp_path):
    """A table of equal rows is the constant core; half the power is half the events."""
    cores = juno.reactor.cores
    (tmp_path / "flat.csv").write_text("days,power_GW\n" + "10,4.6\n" * 5)
    (tmp_path / "half.csv").write_text("days,power_GW\n" + "10,4.6\n10,0\n" * 3)
    import dataclasses

    changed = dataclasses.replace(
        juno,
        source=str(tmp_path / "x.toml"),
        reactor=dataclasses.replace(
            juno.reactor,
            duty_cycle=1.0,
            cores=(
                dataclasses.replace(cores[0], history="flat.csv"),
                dataclasses.replace(cores[0], name="half", history="half.csv"),
                dataclasses.replace(cores[0], name="constant"),
            ),
        ),
    )
    events = signal_inputs(changed).events.sum(axis=1)
    assert events[0] == pytest.approx(events[2], rel=1e-12)
    assert events[1] == pytest.approx(0.5 * events[2], rel=1e-12)


@pytest.mark.parametrize("width", [0.02, 0.033])
def test_fine_edges_contain_the_analysis_edges(width):
    edges = np.array([0.7, 1.0, 1.1, 2.35, 12.0])
    fine = fine_edges(edges, width)
    assert np.all(np.diff(fine) > 0)
    inner = fine[(fine > 0.7 - 1e-9) & (fine < 12.0 + 1e-9)]
    assert np.diff(inner).max() <= width + 1e-9
    for e in edges:
        assert np.min(np.abs(fine - e)) < 1e-12


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_finite_differences_are_exact_for_polynomials(order):
    points = np.array([0.0, 0.1, 0.25, 0.3, 0.5, 0.55, 0.7, 0.8])
    weights = finite_difference_weights(0.3, points, 4)
    polynomial = np.polynomial.Polynomial([1.0, -2.0, 0.5, 3.0, 1.0, -1.0, 0.2, 0.1])
    exact = polynomial.deriv(order)(0.3) if order else polynomial(0.3)
    assert weights[order] @ polynomial(points) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize(
    ("pull", "changes", "tolerance"),
    [
        ({"resolution_a": 0.02}, {"response.resolution": (0.0261 * 1.02, 0.0082, 0.0123)}, 3e-4),
        ({"resolution_b": 0.05}, {"response.resolution": (0.0261, 0.0082 * 1.05, 0.0123)}, 3e-4),
        ({"resolution_c": 0.05}, {"response.resolution": (0.0261, 0.0082, 0.0123 * 1.05)}, 1e-3),
    ],
)
def test_resolution_pulls_against_a_new_response(juno, pull, changes, tolerance):
    """Widening by finite differences against a response matrix that is built again, in events of a bin."""
    model, parameters = build_model(juno, predictor="matrix")
    other, _ = build_model(override(juno, changes), predictor="matrix")
    nominal = parameters.nominal()
    moved = np.asarray(model.components(nominal | pull)["signal"])
    exact, base = other.components(nominal)["signal"], model.components(nominal)["signal"]
    assert np.abs(moved - exact).max() < tolerance * base.max()
    # and the pull does most of what the new response does
    assert np.linalg.norm(moved - exact) < 0.1 * np.linalg.norm(exact - base)


def test_scale_pull_moves_the_mean(juno):
    model, parameters = build_model(
        override(juno, {"systematics.energy_scale": 0.005, "systematics.energy_offset_MeV": 0.01}), predictor="matrix"
    )
    nominal = parameters.nominal()
    edges = np.array(model.edges_MeV)
    centre = 0.5 * (edges[1:] + edges[:-1])

    def mean(values):
        n = model.components(values)["signal"][:-2]
        return (n @ centre[:-2]) / n.sum()

    base = mean(nominal)
    assert mean(nominal | {"energy_scale": 0.005}) / base == pytest.approx(1.005, abs=3e-4)
    assert mean(nominal | {"energy_offset_MeV": 0.01}) - base == pytest.approx(0.01, abs=1e-3)


def test_stencil_moves_a_gaussian_exactly():
    """A known shape: C(e - δ) and a wider Gaussian, in closed form."""
    from scipy.special import ndtr

    fine = np.linspace(0.0, 4.0, 201)
    edges = fine[20:181:5]
    sigma, shift, extra = 0.15, 0.012, 0.0005
    counts = jnp.asarray(np.diff(ndtr((fine - 2.0) / sigma)))
    ones = jnp.ones(edges.size)
    stencil = Stencil.build(fine, edges)
    moved = stencil.moved(counts, shift * ones, 0.0 * ones, 0.0 * ones)
    np.testing.assert_allclose(moved, np.diff(ndtr((edges - 2.0 - shift) / sigma)), atol=3e-6)
    wider = stencil.moved(counts, 0.0 * ones, extra * ones, 0.0 * ones)
    exact = np.diff(ndtr((edges - 2.0) / np.sqrt(sigma**2 + extra)))
    np.testing.assert_allclose(wider, exact, atol=2e-4 * float(exact.max()))


def test_free_spectrum_segments(juno):
    """Free nodes: all moved together scale the signal; one moves its energies only."""
    free = override(juno, {"reactor.segments_MeV": (1.8, 3.0, 4.5, 6.0, 13.0), "reactor.segments_sigma": 0.1})
    model, parameters = build_model(free, predictor="matrix")
    names = [n for n in parameters if n.startswith("segment_")]
    assert len(names) == 5
    nominal = parameters.nominal()
    base = model.components(nominal)["signal"]
    together = model.components(nominal | dict.fromkeys(names, 0.1))["signal"]
    np.testing.assert_allclose(together, 1.1 * base, rtol=1e-9)
    one = model.components(nominal | {"segment_4": 0.1})["signal"] / base
    centre = 0.5 * (np.array(model.edges_MeV)[1:] + np.array(model.edges_MeV)[:-1])
    assert np.abs(one[centre < 3.0] - 1).max() < 1e-6
    assert one[np.argmin(np.abs(centre - 5.25))] > 1.08


def test_user_background_histogram(juno, tmp_path):
    """A flat histogram replaces a shape, at the rate of the file."""
    import dataclasses

    (tmp_path / "flat.csv").write_text("low_MeV,high_MeV,counts\n0,20,1\n")
    mine = dataclasses.replace(
        juno,
        source=str(tmp_path / "mine.toml"),
        backgrounds=(dataclasses.replace(juno.backgrounds[0], shape="flat.csv"),),
    )
    model, parameters = build_model(mine, predictor="matrix")
    counts = model.components(parameters.nominal())["geoneutrinos"]
    np.testing.assert_allclose(counts / np.diff(model.edges_MeV), counts.sum() / (12.0 - 0.8), rtol=1e-9)
    assert counts.sum() == pytest.approx(1.2 * juno.exposure.days)


def test_user_spectrum_table(juno, tmp_path):
    """A table of Huber-Mueller's own values is Huber-Mueller."""
    import dataclasses

    from nuebar.physics.reactor import ISOTOPES, huber_mueller

    grid = np.arange(1.7, 13.3, 0.05)
    rows = np.column_stack([grid, *[np.asarray(huber_mueller(grid, i)) for i in ISOTOPES]])
    lines = ["e_nu_MeV," + ",".join(ISOTOPES)] + [",".join(f"{x:.10g}" for x in row) for row in rows]
    (tmp_path / "hm.csv").write_text("\n".join(lines) + "\n")
    reactor = dataclasses.replace(juno.reactor, spectrum="hm.csv")
    mine = dataclasses.replace(juno, source=str(tmp_path / "mine.toml"), reactor=reactor)
    np.testing.assert_allclose(signal_inputs(mine).events, signal_inputs(juno).events, rtol=2e-3)


@pytest.mark.parametrize(("kB", "fC", "anchor"), [(12.05, 0.517, 3.55), (15.0, 0.5, 3.57), (10.05, 0.225, 3.67)])
def test_anchor_of_the_embedded_curves(juno, kB, fC, anchor):
    """juno.toml says where a positron's light per MeV equals that of the n-H gamma: E_vis / E_dep = 1 there."""
    from nuebar.physics.scintillator import positron_visible_energy

    e = np.linspace(2.5, 5.0, 251)
    r = juno.response
    light = positron_visible_energy(e, kB, fC, r.light_yield_per_MeV, photons_per_cm=r.cherenkov_photons_per_cm)
    assert np.interp(1.0, np.asarray(light) / e, e) == pytest.approx(anchor, abs=0.01)
    if (kB, fC) == (r.kB_g_cm2_GeV, r.fC):
        assert r.anchor_MeV == pytest.approx(anchor)


def test_anchored_curves_do_not_move_the_anchor(juno):
    """At the anchor every pull curve has the nominal scale; without it they do not."""
    from nuebar.predict.signal import nonlinearity

    for anchor, moves in ((juno.response.anchor_MeV, False), (0.0, True)):
        curve = nonlinearity(override(juno, {"response.anchor_MeV": anchor}))
        at = juno.response.anchor_MeV
        shifts = [
            np.interp(at, curve.e_dep_MeV, c) / np.interp(at, curve.e_dep_MeV, curve.nominal) - 1 for c in curve.pulls
        ]
        assert (np.abs(shifts).max() > 1e-3) == moves
