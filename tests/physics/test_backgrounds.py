"""Background shapes: norms, conservation, known places of peaks, refusals, and a comparison with JUNO's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.physics import backgrounds, beta_decay
from nuebar.physics.backgrounds import SHAPES, neutron_light, proton_light_MeV, smear

EDGES = np.arange(0.7, 12.001, 0.1)
CENTRES = 0.5 * (EDGES[1:] + EDGES[:-1])
RESOLUTION = (0.03, 0.01, 0.01)
SHARP = (0.0, 0.0, 0.0)


def moment(counts):
    return float(np.asarray(counts) @ CENTRES)


def between(counts, low, high):
    return float(np.asarray(counts)[(low < CENTRES) & (high > CENTRES)].sum())


def test_names_are_frozen():
    assert sorted(SHAPES) == [
        "accidentals",
        "alpha_n",
        "atmospheric_nc",
        "bipo",
        "double_neutrons",
        "fast_neutrons",
        "geoneutrinos_Th",
        "geoneutrinos_U",
        "li9_he8",
        "world_reactors",
    ]


@pytest.mark.parametrize("resolution", [RESOLUTION, SHARP])
@pytest.mark.parametrize("name", SHAPES)
def test_shape_is_a_probability_over_the_bins(name, resolution):
    counts = SHAPES[name](EDGES, resolution)
    assert isinstance(counts, jax.Array)
    assert counts.dtype == jnp.float64
    assert counts.shape == (EDGES.size - 1,)
    assert float(counts.min()) >= 0.0
    assert float(counts.sum()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", SHAPES)
def test_merged_bins_hold_the_sum(name):
    fine = np.asarray(SHAPES[name](EDGES, RESOLUTION))
    whole = fine[: fine.size // 3 * 3].reshape(-1, 3).sum(axis=1)
    coarse = np.asarray(SHAPES[name](EDGES[: whole.size * 3 + 1 : 3], RESOLUTION))
    np.testing.assert_allclose(coarse, whole / whole.sum(), atol=1e-10)


@pytest.mark.parametrize("name", SHAPES)
def test_a_part_of_the_range_keeps_the_proportions(name):
    whole = np.asarray(SHAPES[name](EDGES, RESOLUTION))
    part = np.asarray(SHAPES[name](EDGES[5:15], RESOLUTION))
    np.testing.assert_allclose(part, whole[5:14] / whole[5:14].sum(), atol=1e-10)


# Flat and falling shapes are written in reconstructed energy: no response moves them.
@pytest.mark.parametrize("name", [n for n in SHAPES if n not in ("fast_neutrons", "atmospheric_nc")])
def test_a_scale_on_the_energy_moves_shape_and_edges_together(name):
    scaled = SHAPES[name](1.1 * EDGES, SHARP, response=lambda e: 1.1 * e)
    np.testing.assert_allclose(scaled, SHAPES[name](EDGES, SHARP), atol=1e-9)


@pytest.mark.parametrize("resolution", [(0.03, 0.0, 0.0), (0.0, 0.02, 0.0), (0.0, 0.0, 0.05), (0.03, 0.02, 0.05)])
def test_a_line_gets_the_width_of_the_resolution(resolution):
    edges = np.arange(1.7, 2.8, 0.01)
    centres, (a, b, c), e = 0.5 * (edges[1:] + edges[:-1]), resolution, 2.2233
    counts = np.asarray(SHAPES["double_neutrons"](edges, resolution, tail_fraction=0.0))
    variance = counts @ (centres - counts @ centres) ** 2 - 0.01**2 / 12
    assert counts @ centres == pytest.approx(e, abs=1e-4)
    assert variance == pytest.approx(a**2 * e + b**2 * e**2 + c**2, rel=1e-3)


@pytest.mark.parametrize("name", ["fast_neutrons", "atmospheric_nc"])
def test_shapes_in_reconstructed_energy_do_not_feel_the_response(name):
    np.testing.assert_array_equal(
        SHAPES[name](EDGES, RESOLUTION, response=lambda e: 0.5 * e), SHAPES[name](EDGES, SHARP)
    )


# --- smear -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.0, 0.03, 1.0, 50.0, np.array([0.0, 0.1, 2.0])])
def test_smear_conserves_the_weight_over_the_whole_axis(sigma):
    edges = np.array([-np.inf, -3.0, 0.5, 1.0, 4.0, np.inf])
    counts = smear(edges, np.array([0.5, 1.0, 9.0]), np.array([1.0, 2.5, 0.25]), sigma)
    assert float(counts.sum()) == pytest.approx(3.75, rel=1e-14)


def test_smear_gives_the_normal_probabilities():
    counts = smear(np.array([-2.0, -1.0, 0.0, 1.0, 2.0]) * 0.3 + 5.0, np.array([5.0]), np.array([1.0]), 0.3)
    np.testing.assert_allclose(counts, [0.1359051219, 0.3413447461, 0.3413447461, 0.1359051219], rtol=1e-9)


def test_smear_without_width_fills_one_bin():
    counts = smear(np.array([0.0, 1.0, 2.0]), np.array([0.25, 1.5]), np.array([2.0, 3.0]), 0.0)
    np.testing.assert_array_equal(counts, [2.0, 3.0])


def test_smear_gradient_agrees_with_differences():
    def second_bin(energy, sigma):
        return smear(np.array([0.0, 1.0, 2.0]), jnp.array([0.4]) + energy, jnp.ones(1), sigma)[1]

    step = 1e-5
    for i, args in ((0, (0.2, 0.5)), (1, (0.2, 0.5))):
        up, down = list(args), list(args)
        up[i] += step
        down[i] -= step
        difference = (second_bin(*up) - second_bin(*down)) / (2 * step)
        assert float(jax.grad(second_bin, argnums=i)(*args)) == pytest.approx(float(difference), rel=1e-7)


@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_even_cells_make_an_even_spectrum(sigma):
    cells = np.linspace(0.0, 4.0, 81)
    edges = np.array([1.0, 1.013, 1.9, 2.5])
    counts = backgrounds._smear_cells(edges, cells, np.full(80, 0.05), np.full(80, sigma))
    np.testing.assert_allclose(counts, np.diff(edges), atol=1e-12)


def test_cells_and_lines_agree_when_the_resolution_is_wide():
    cells, sigma = np.linspace(1.0, 3.0, 401), np.full(400, 0.1)
    weights = np.sin(np.linspace(0.1, 3.0, 400))
    lines = smear(EDGES, 0.5 * (cells[1:] + cells[:-1]), weights, sigma)
    np.testing.assert_allclose(
        backgrounds._smear_cells(EDGES, cells, weights, sigma), lines, atol=2e-4 * weights.sum() / 60
    )


# --- neutrons ----------------------------------------------------------------------------------------------


def test_proton_light_is_the_published_curve():
    # Cecil, Anderson, Madey (1979), NE-213: by hand from the formula.
    np.testing.assert_allclose(proton_light_MeV(np.array([0.0, 1.0, 5.0])), [0.0, 0.206218, 2.253042], atol=1e-6)


def test_neutron_light_is_a_distribution_below_one_proton_of_all_its_energy():
    energies, p = neutron_light(4.0)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-12)
    means = p @ energies
    assert np.all(np.diff(means) >= 0.0)
    # A convex light curve makes most light in a single collision.
    assert np.all(means <= np.asarray(proton_light_MeV(energies)) + 1e-12)
    # One collision alone gives (1/E) ∫ L dT; the others add to it.
    for k in (40, 80):
        first = np.trapezoid(np.asarray(proton_light_MeV(energies[: k + 1])), energies[: k + 1]) / energies[k]
        assert means[k] > first


def test_mean_neutron_light_solves_its_own_equation():
    # m(E) = (1/E) ∫ [L(T) + m(E - T)] dT: the first moment of the equation in the docstring.
    energies, p = neutron_light(6.0)
    means, light = p @ energies, np.asarray(proton_light_MeV(energies))
    for k in (30, 60, 119):
        step = energies[1]
        right = np.trapezoid(light[: k + 1] + means[k::-1], dx=step) / energies[k]
        assert means[k] == pytest.approx(right, rel=1e-9)


# --- physics of each shape ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [  # E_dep from the threshold, 1.02 MeV, to Q - 0.78 MeV of the hardest branch
        ("geoneutrinos_U", 1.0, 2.5),
        ("geoneutrinos_Th", 1.0, 1.5),
        ("bipo", 0.7, 3.3),
    ],
)
def test_decays_stay_between_threshold_and_endpoint(name, low, high):
    assert between(SHAPES[name](EDGES, SHARP), low, high) == pytest.approx(1.0, abs=1e-12)


def test_uranium_alone_passes_the_thorium_endpoint():
    # KamLAND and Borexino tell U from Th by the window above the 212Bi endpoint (2.25 - 0.78 MeV).
    assert between(SHAPES["geoneutrinos_U"](EDGES, SHARP), 1.5, 2.5) > 0.4
    assert between(SHAPES["geoneutrinos_Th"](EDGES, SHARP), 1.5, 2.5) == 0.0


@pytest.mark.parametrize(("name", "endpoint"), [("geoneutrinos_U", 3.270), ("geoneutrinos_Th", 2.2521)])
def test_geoneutrinos_end_at_the_endpoint_less_the_ibd_offset(name, endpoint):
    # m_n - m_p - m_e = 0.7823 MeV; cells of 5 keV.
    last = endpoint - 0.7823
    counts = np.asarray(SHAPES[name](np.array([1.0, 1.4, last - 0.04, last + 0.006, 4.0]), SHARP))
    assert counts[2] > 1e-6
    assert counts[3] < 1e-12


def test_bipo_peaks_between_2_and_2_5_MeV():
    counts = np.asarray(SHAPES["bipo"](EDGES, RESOLUTION))
    assert 2.0 < CENTRES[np.argmax(counts)] < 2.6
    # What the antineutrino leaves: mean β, γ and conversion energies in ENDF/B-VIII.0.
    edges = np.arange(0.0, 4.0, 0.01)
    mean = float(np.asarray(SHAPES["bipo"](edges, SHARP)) @ (0.5 * (edges[1:] + edges[:-1])))
    assert mean == pytest.approx(0.640 + 1.474 + 0.020, abs=0.03)


def test_no_oscillation_far_averages_to_half_the_solar_amplitude():
    # Baselines so long that every bin averages: the shape is that of no oscillation.
    far = SHAPES["world_reactors"](EDGES, RESOLUTION, baseline_range_km=(2e5, 2e6))
    none = SHAPES["world_reactors"](EDGES, RESOLUTION, sin2_th12=0.0)
    np.testing.assert_allclose(far, none, atol=2e-5)
    near = SHAPES["world_reactors"](EDGES, RESOLUTION)
    assert float(jnp.abs(near - none).max()) > 5e-4


def test_closed_baseline_average_is_the_sum_over_many_cores():
    cores = np.exp(np.linspace(np.log(300.0), np.log(3000.0), 4001))
    weights = np.ones(4001)
    weights[[0, -1]] = 0.5
    listed = SHAPES["world_reactors"](EDGES, RESOLUTION, baselines_km=cores, baseline_weights=weights)
    np.testing.assert_allclose(listed, SHAPES["world_reactors"](EDGES, RESOLUTION), atol=1e-7)


def test_one_core_shows_its_oscillation():
    # Survival is largest where 1.267e3 dm2 L / E is a multiple of π, smallest half-way: E_ν = 3.1, 3.6 MeV.
    counts = np.asarray(SHAPES["world_reactors"](EDGES, SHARP, baselines_km=(412.0,), baseline_weights=(1.0,)))
    none = np.asarray(SHAPES["world_reactors"](EDGES, SHARP, sin2_th12=0.0))
    ratio = counts / np.where(none > 0.0, none, 1.0)
    peak = 1.267 * 0.0753 * 412.0 / (4 * np.pi) - 0.7823
    trough = 1.267 * 0.0753 * 412.0 / (3.5 * np.pi) - 0.7823
    assert np.interp(peak, CENTRES, ratio) > 2.0 * np.interp(trough, CENTRES, ratio)


def test_lithium_reaches_its_endpoint_and_helium_softens_it():
    lithium = SHAPES["li9_he8"](EDGES, SHARP, he8_fraction=0.0)
    helium = SHAPES["li9_he8"](EDGES, SHARP, he8_fraction=1.0)
    assert between(lithium, 10.8, 12.0) > 0.0
    assert moment(helium) < moment(lithium) - 1.0
    mixed = SHAPES["li9_he8"](np.arange(0.0, 16.0, 0.5), SHARP, he8_fraction=0.3)
    parts = [SHAPES["li9_he8"](np.arange(0.0, 16.0, 0.5), SHARP, he8_fraction=f) for f in (0.0, 1.0)]
    np.testing.assert_allclose(mixed, 0.7 * parts[0] + 0.3 * parts[1], atol=1e-7)


def test_quenched_fragments_add_their_mean_light_to_lithium():
    edges = np.arange(0.0, 16.0, 0.02)
    mean = float(np.asarray(SHAPES["li9_he8"](edges, SHARP, he8_fraction=0.0)) @ (edges[1:] - 0.01))
    energies, p = neutron_light(10.0)
    expected = 0.0
    for branch in beta_decay.LI9_NEUTRON:
        t = np.linspace(0.0, branch.endpoint_MeV, 4001)
        electron = np.asarray(beta_decay.electron_spectrum(t, branch.endpoint_MeV, 4, 9))
        # Three bodies: neutron energies √(E (E_max - E)) up to 8/9 of what is free, mean 4/9; 8 % α light.
        free = branch.level_MeV - 1.5736
        e = 8 / 9 * free * np.linspace(0.0, 1.0, 401)
        weight = np.sqrt(e * (e[-1] - e))
        neutron = np.average(np.interp(e, energies, p @ energies), weights=weight)
        expected += branch.intensity / 0.508 * (np.trapezoid(t * electron, t) + neutron + 0.08 * 5 / 9 * free)
    assert mean == pytest.approx(expected, abs=0.004)


def test_alpha_n_has_its_three_groups():
    groups = [SHAPES["alpha_n"](np.arange(0.0, 8.0, 0.1), SHARP, group_fractions=f) for f in np.eye(3).tolist()]
    centres = np.arange(0.05, 7.9, 0.1)
    recoils, carbon, oxygen = (np.asarray(g) for g in groups)
    assert recoils[centres > 4.1].sum() == pytest.approx(0.0, abs=1e-12)
    assert carbon[(centres > 4.3) & (centres < 5.6)].sum() == pytest.approx(1.0, abs=1e-9)
    assert oxygen[(centres > 6.0) & (centres < 6.2)].sum() == pytest.approx(1.0, abs=1e-9)
    mixed = SHAPES["alpha_n"](np.arange(0.0, 8.0, 0.1), SHARP, group_fractions=(0.5, 0.2, 0.3))
    np.testing.assert_allclose(mixed, 0.5 * recoils + 0.2 * carbon + 0.3 * oxygen, atol=1e-9)


def test_double_neutrons_are_lines():
    counts = SHAPES["double_neutrons"](EDGES, RESOLUTION, tail_fraction=0.0)
    assert between(counts, 1.9, 2.5) == pytest.approx(0.99, abs=1e-3)
    assert between(counts, 4.5, 5.4) == pytest.approx(0.01, abs=1e-4)


@pytest.mark.parametrize("slope", [-0.05, 0.0, 0.2])
def test_fast_neutrons_follow_their_slope(slope):
    counts = SHAPES["fast_neutrons"](EDGES, RESOLUTION, slope_per_MeV=slope)
    density = np.asarray(counts) / np.diff(EDGES)
    np.testing.assert_allclose(density / density[0], (1 + slope * CENTRES) / (1 + slope * CENTRES[0]), rtol=1e-9)


def test_atmospheric_falls_to_its_plateau():
    counts = np.asarray(SHAPES["atmospheric_nc"](EDGES, RESOLUTION))
    assert np.all(np.diff(counts) < 0.0)
    flat = SHAPES["atmospheric_nc"](EDGES, RESOLUTION, plateau=1e9)
    np.testing.assert_allclose(flat, SHAPES["fast_neutrons"](EDGES, RESOLUTION), rtol=1e-6)


def test_accidentals_have_the_thallium_line():
    counts = np.asarray(SHAPES["accidentals"](EDGES, RESOLUTION))
    line = np.argmin(np.abs(CENTRES - 2.6145))
    assert counts[line] > 3.0 * counts[line + 4]
    assert counts[line] > 3.0 * counts[line - 4]


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SHAPES["bipo"]([1.0], RESOLUTION), "shape"),
        (lambda: SHAPES["bipo"]([1.0, 1.0, 2.0], RESOLUTION), "increase"),
        (lambda: SHAPES["bipo"]([1.0, np.nan, 2.0], RESOLUTION), "finite"),
        (lambda: SHAPES["fast_neutrons"]([-1.0, 2.0], RESOLUTION), "≥ 0"),
        (lambda: SHAPES["atmospheric_nc"](EDGES, (2.61, 0.82, 1.23)), "per cent"),
        (lambda: SHAPES["bipo"](EDGES, (0.03, -0.01, 0.0)), "resolution"),
        (lambda: SHAPES["bipo"](EDGES, (0.03, 0.01)), "resolution"),
        (lambda: SHAPES["bipo"](EDGES, RESOLUTION, response=lambda e: np.minimum(e, 2.0)), "increases"),
        (lambda: SHAPES["bipo"](EDGES, RESOLUTION, response=lambda e: e / 0.0 if e.size else e), "finite"),
        (lambda: SHAPES["bipo"](EDGES, RESOLUTION, response=lambda e: e[:3]), "shape"),
        (lambda: SHAPES["geoneutrinos_Th"]([6.0, 7.0], RESOLUTION), "widen the edges"),
        (lambda: SHAPES["bipo"]([100.0, 101.0], RESOLUTION), "widen the edges"),
        (lambda: SHAPES["li9_he8"](EDGES, RESOLUTION, he8_fraction=1.1), "he8_fraction"),
        (lambda: SHAPES["alpha_n"](EDGES, RESOLUTION, group_fractions=(1.0, -1.0, 0.0)), "group_fractions"),
        (lambda: SHAPES["double_neutrons"](EDGES, RESOLUTION, tail_fraction=-0.1), "tail_fraction"),
        (lambda: SHAPES["fast_neutrons"](EDGES, RESOLUTION, slope_per_MeV=-1.0), "slope_per_MeV"),
        (lambda: SHAPES["atmospheric_nc"](EDGES, RESOLUTION, decay_MeV=0.0), "decay_MeV"),
        (lambda: SHAPES["world_reactors"](EDGES, RESOLUTION, baselines_km=(400.0,)), "baseline"),
        (lambda: SHAPES["world_reactors"](EDGES, RESOLUTION, baseline_range_km=(3000.0, 300.0)), "nearest"),
        (lambda: SHAPES["world_reactors"](EDGES, RESOLUTION, fission_fractions=(1.0,)), "fission_fractions"),
        (lambda: smear(EDGES, np.ones(3), np.ones(2), 0.1), "one weight"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*encountered in divide:RuntimeWarning")
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(NuebarError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


# --- JUNO's own shapes, read in place ----------------------------------------------------------------------


def total_variation(counts, reference):
    reference = np.asarray(reference) / np.sum(reference)
    return 0.5 * float(np.abs(np.asarray(counts) - reference).sum())


# The tolerances are generous on purpose: our shapes are models, not fits to these. Accidentals and (α,n)
# are Daya Bay's, with its resolution (8 % at 1 MeV), its materials and its α emitters; the geoneutrinos end
# 0.1 MeV higher than with the non-linearity of the same file (and than those of the 2025 release).
@pytest.mark.parametrize(
    ("name", "histogram", "tolerance"),
    [
        ("geoneutrinos_U", "GeoNuU238", 0.12),
        ("geoneutrinos_Th", "GeoNuTh232", 0.15),
        ("world_reactors", "OtherReactorSpectrum_L300km", 0.10),
        ("accidentals", "AccBkgHistogramAD", 0.50),
        ("li9_he8", "Li9BkgHistogramAD", 0.05),
        ("atmospheric_nc", "AtmosphericNeutrinoModelGENIE2", 0.25),
        ("atmospheric_nc", "AtmosphericNeutrinoModelNuWroN4", 0.30),
        ("fast_neutrons", "FnBkgHistogramAD", 1e-9),
        ("alpha_n", "AlphaNBkgHistogramAD", 0.55),
    ],
)
def test_shapes_resemble_the_2022_common_inputs(common_inputs, name, histogram, tolerance, record_property):
    uproot = pytest.importorskip("uproot")
    with uproot.open(common_inputs) as file:
        reference, edges = file[histogram].to_numpy()
        curve, nodes = file["positronScintNL"].to_numpy()
    nodes = 0.5 * (nodes[1:] + nodes[:-1])
    counts = SHAPES[name](edges, (0.0261, 0.0082, 0.0123), response=lambda e: e * np.interp(e, nodes, curve))
    distance = total_variation(counts, reference)
    record_property("total_variation", distance)
    assert distance < tolerance


@pytest.mark.parametrize(
    ("names", "column", "tolerance"),
    [
        ({"li9_he8": 1.0}, "Npred_9Li8He", 0.12),
        ({"geoneutrinos_U": 0.77, "geoneutrinos_Th": 0.23}, "Npred_Geonu", 0.06),
        ({"world_reactors": 1.0}, "Npred_WorldRea", 0.10),
        ({"bipo": 1.0}, "Npred_Bipo", 0.08),
    ],
)
def test_shapes_resemble_the_2025_release(juno_2025_release, names, column, tolerance, record_property):
    table = np.genfromtxt(juno_2025_release / "fig3_panel_a_data.csv", delimiter=",", names=True, skip_header=17)
    curve = np.genfromtxt(juno_2025_release / "edfig2_positron_FullNL.csv", delimiter=",", skip_header=1)
    edges = np.append(table["Ec"] - table["Ewid"] / 2, table["Ec"][-1] + table["Ewid"][-1] / 2)
    counts = sum(
        share * SHAPES[name](edges, (0.033, 0.01, 0.0), response=lambda e: e * np.interp(e, *curve.T[:2]))
        for name, share in names.items()
    )
    distance = total_variation(counts, table[column] * table["Ewid"])
    record_property("total_variation", distance)
    assert distance < tolerance
