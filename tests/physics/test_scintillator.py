"""Laws and pinned numbers of the scintillator response."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from nuebar.errors import NuebarError
from nuebar.physics import scintillator as sc
from nuebar.physics.constants import ELECTRON_MASS_MeV

KB = 10.05
LIGHT_YIELD = 1e4
PHOTONS_PER_CM = sc.frank_tamm_photons_per_cm(200, 700)
E_DEP_MeV = jnp.linspace(1.03, 12.0, 30)
ENERGIES_MeV = jnp.array([1e-4, 5e-3, 0.1, 0.5, 1.0, 3.0, 8.0])


@jax.jit
def _visible(e_dep, kB=12.0, fC=0.5, light_yield=LIGHT_YIELD):
    return sc.positron_visible_energy(e_dep, kB, fC, light_yield, photons_per_cm=PHOTONS_PER_CM)


@pytest.mark.parametrize(
    ("t_MeV", "estar", "tolerance"),
    [(0.01, 22.56, 1e-3), (0.1, 4.115, 1e-3), (1.0, 1.849, 3e-3), (10.0, 1.968, 1.5e-2)],
)
def test_stopping_power_of_water(t_MeV, estar, tolerance):
    """NIST ESTAR, liquid water, MeV cm²/g; nominal pins. The general density effect is its weakness."""
    water = sc.Scintillator(density_g_cm3=1.0, z_over_a=0.55508, mean_excitation_eV=75.0, refractive_index=1.33)
    assert float(sc.stopping_power(t_MeV, material=water)) == pytest.approx(estar, rel=tolerance)


def test_stopping_power_in_the_other_published_form():
    """PDG 2024, equation 34.24 for electrons, written in γ and the largest transfer m (γ - 1) / 2."""
    t_MeV = jnp.array([1e-3, 0.02, 0.3, 2.0, 50.0])
    gamma = 1 + np.asarray(t_MeV) / ELECTRON_MASS_MeV
    beta2 = 1 - 1 / gamma**2
    transfer = ELECTRON_MASS_MeV * beta2 * gamma**2 * ELECTRON_MASS_MeV * (gamma - 1) / 2
    bracket = np.log(transfer / (sc.LAB.mean_excitation_eV * 1e-6) ** 2) + (1 - beta2)
    bracket += -(2 * gamma - 1) / gamma**2 * np.log(2) + ((gamma - 1) / gamma) ** 2 / 8
    expected = 0.5 * 0.307075 * sc.LAB.z_over_a / beta2 * (bracket - np.asarray(sc.density_effect(t_MeV)))
    np.testing.assert_allclose(sc.stopping_power(t_MeV), expected, rtol=2e-6)


def test_lab_defaults_follow_from_its_composition():
    """12.01 % hydrogen by mass; Bragg sum with 19.2 eV (H) and 81 eV (C) of ICRU Report 37."""
    hydrogen, carbon = 0.1201 / 1.008, 6 * 0.8799 / 12.011
    bragg = np.exp((hydrogen * np.log(19.2) + carbon * np.log(81.0)) / (hydrogen + carbon))
    assert sc.LAB.z_over_a == pytest.approx(hydrogen + carbon, abs=2e-4)
    assert sc.LAB.mean_excitation_eV == pytest.approx(bragg, abs=0.2)


def test_density_effect_joins_and_has_the_right_limit():
    """Zero below x0, continuous, and 2 ln(ħω_p βγ / I) - 1 at high energy (PDG 2024, section 34.2.5)."""
    t_x0 = ELECTRON_MASS_MeV * (np.sqrt(10**0.4 + 1) - 1)
    around = sc.density_effect(jnp.array([0.01, t_x0 * (1 - 1e-9), t_x0 * (1 + 1e-9)]))
    np.testing.assert_allclose(around, 0.0, atol=1e-7)
    gamma = 1e4 / ELECTRON_MASS_MeV + 1
    plasma_eV = 28.816 * np.sqrt(sc.LAB.density_g_cm3 * sc.LAB.z_over_a)
    limit = 2 * np.log(plasma_eV * np.sqrt(gamma**2 - 1) / sc.LAB.mean_excitation_eV) - 1
    assert float(sc.density_effect(1e4)) == pytest.approx(limit, rel=1e-6)


def test_no_quenching_without_birks():
    np.testing.assert_allclose(sc.quenched_energy(ENERGIES_MeV, 0.0), ENERGIES_MeV, rtol=1e-13)
    assert float(sc.gamma_quenched_energy(1.0, 0.0)) == pytest.approx(1.0, rel=1e-12)


def test_quenched_energy_rises_with_energy_and_falls_with_birks():
    q = np.array([sc.quenched_energy(ENERGIES_MeV, kB) for kB in (6.0, 10.0, 15.0, 25.0)])
    assert np.all(np.diff(q, axis=0) < 0)
    assert np.all(np.diff(q / np.asarray(ENERGIES_MeV), axis=1) > -1e-12)
    assert float(sc.quenched_energy(0.0, KB)) == 0


@pytest.mark.parametrize("kB", [6.0, 25.0])
@pytest.mark.parametrize(("t_MeV", "tolerance"), [(0.01, 6e-5), (0.1, 3e-5), (1.0, 6e-6), (8.0, 6e-6)])
def test_quenched_energy_is_the_birks_integral(kB, t_MeV, tolerance):
    birks = jax.jit(lambda t: 1 / (1 + 1e-3 * kB * sc.stopping_power(t)))
    edges = [0.0, 1e-3, *(e for e in (0.01, 0.05, 0.2, 0.4448, 2.0) if e < t_MeV), t_MeV]
    exact = sum(quad(birks, low, high, epsrel=1e-9)[0] for low, high in pairwise(edges))
    assert float(sc.quenched_energy(t_MeV, kB)) == pytest.approx(exact, rel=tolerance)


@pytest.mark.parametrize("e_gamma_MeV", [0.05, ELECTRON_MASS_MeV, 0.6617, sc.N_H_GAMMA_MeV])
def test_gamma_energy_goes_to_electrons(e_gamma_MeV):
    spectrum = sc.gamma_electrons(e_gamma_MeV)
    assert spectrum.number @ spectrum.t_MeV == pytest.approx(e_gamma_MeV, rel=1e-12)
    assert np.all(spectrum.number >= 0)
    assert spectrum.t_MeV[-1] == pytest.approx(e_gamma_MeV, rel=1e-12)


def test_annihilation_electrons():
    """Energy closure, and a gap between the Compton edge (341 keV) and the rare electron of full energy."""
    spectrum = sc.annihilation_electrons()
    assert spectrum.number @ spectrum.t_MeV == pytest.approx(ELECTRON_MASS_MeV, rel=1e-12)
    edge = 2 * ELECTRON_MASS_MeV / 3
    first = spectrum.t_MeV > edge + 2e-3
    assert 0 < spectrum.number[-1] < 1e-4
    assert spectrum.number[first][:-1].sum() < 1e-3 * spectrum.number[~first].sum()
    assert not spectrum.number.flags.writeable
    assert sc.annihilation_electrons() is spectrum


@pytest.mark.parametrize("k_MeV", [0.1, 0.511, 2.0])
def test_first_scatter_takes_the_klein_nishina_mean(k_MeV):
    """Mean transfer from the angular form of the cross-section, against the shares of the energy grid."""

    def cross_section(cos):
        ratio = 1 / (1 + k_MeV / ELECTRON_MASS_MeV * (1 - cos))
        return ratio**2 * (ratio + 1 / ratio - 1 + cos**2), ratio

    total = quad(lambda cos: cross_section(cos)[0], -1, 1)[0]
    kept = quad(lambda cos: np.prod(cross_section(cos)), -1, 1)[0]
    j = 2000
    first, share = sc._compton_shares(j, k_MeV / j)
    mean = k_MeV / j * (share @ np.arange(first, j + 1))
    assert mean == pytest.approx(k_MeV * kept / total, rel=3e-4)


def test_gamma_light_is_the_sum_over_its_electrons():
    spectrum = sc.annihilation_electrons()
    number = jnp.asarray(spectrum.number)
    light = number @ sc.quenched_energy(spectrum.t_MeV, KB)
    photons = number @ sc.cherenkov_photons(spectrum.t_MeV, photons_per_cm=PHOTONS_PER_CM)
    ours = sc.gamma_cherenkov_photons(ELECTRON_MASS_MeV, photons_per_cm=PHOTONS_PER_CM)
    assert float(sc.gamma_quenched_energy(ELECTRON_MASS_MeV, KB)) == pytest.approx(float(light), rel=1e-5)
    assert float(ours) == pytest.approx(float(photons), rel=1e-5)


def test_gamma_light_converges_with_the_grid():
    """Halving the step of 0.5 keV moves the light of an annihilation gamma by less than 0.005 %."""
    coarse = sc.gamma_quenched_energy(ELECTRON_MASS_MeV, KB)
    energies, weights = sc._gamma_nodes(sc.gamma_electrons(ELECTRON_MASS_MeV, step_MeV=2.5e-4))
    fine = weights @ sc._birks(energies, KB, sc.LAB)
    assert float(coarse) == pytest.approx(float(fine), rel=5e-5)


@pytest.mark.parametrize(("e_gamma_MeV", "fraction"), [(0.6617, 0.8873), (1.4608, 0.9324), (2.2233, 0.9474)])
def test_gamma_quenching_against_a_monte_carlo(e_gamma_MeV, fraction):
    """Local-dE/dx quenching at kB 10.05 in an independent cascade with XCOM cross-sections and ESTAR dE/dx.

    The Monte Carlo has binding, pair production and bremsstrahlung, which this module leaves out: 0.15 %.
    """
    ours = float(sc.gamma_quenched_energy(e_gamma_MeV, KB)) / e_gamma_MeV
    assert ours == pytest.approx(fraction, rel=1.5e-3)


def test_cherenkov_starts_smoothly_at_threshold():
    """Zero below 1/n, value and slope; quadratic just above."""
    threshold = sc.LAB.cherenkov_threshold_MeV
    assert threshold == pytest.approx(ELECTRON_MASS_MeV * (1.5 / np.sqrt(1.25) - 1), rel=1e-12)

    def photons(t):
        return sc.cherenkov_photons(t, photons_per_cm=PHOTONS_PER_CM)

    value, slope = jax.jit(jax.vmap(jax.value_and_grad(photons)))(jnp.array([0.0, 0.1, threshold]))
    np.testing.assert_array_equal(value, 0.0)
    np.testing.assert_array_equal(slope, 0.0)
    one, two = photons(threshold + jnp.array([1e-5, 2e-5]))
    assert float(two / one) == pytest.approx(4.0, rel=1e-3)


def test_cherenkov_photons_is_the_frank_tamm_integral():
    threshold, n2 = sc.LAB.cherenkov_threshold_MeV, sc.LAB.refractive_index**2

    @jax.jit
    def per_mev(t):
        beta2 = 1 - 1 / (1 + t / ELECTRON_MASS_MeV) ** 2
        angle = (1 - 1 / (beta2 * n2)) / (1 - 1 / n2)
        return 100.0 * angle / (sc.LAB.density_g_cm3 * sc.stopping_power(t))

    exact = quad(per_mev, threshold, 4.0, epsrel=1e-9, points=[0.4448])[0]
    assert float(sc.cherenkov_photons(4.0, photons_per_cm=100.0)) == pytest.approx(exact, rel=3e-5)
    twice = sc.cherenkov_photons(4.0, photons_per_cm=200.0)
    assert float(twice) == pytest.approx(2 * exact, rel=3e-5)


def test_frank_tamm_number():
    """About 490 sin²θ photons per cm between 400 and 700 nm: PDG 2024, section 35 on photon detectors."""
    per_cm = sc.frank_tamm_photons_per_cm(400, 700) / (1 - 1 / 1.5**2)
    assert per_cm == pytest.approx(490, rel=5e-3)
    with pytest.raises(NuebarError, match="lambda_min_nm < lambda_max_nm"):
        sc.frank_tamm_photons_per_cm(700, 400)


def test_visible_energy_without_quenching_is_the_deposited_energy():
    np.testing.assert_allclose(_visible(E_DEP_MeV, 0.0, 0.0, LIGHT_YIELD), E_DEP_MeV, rtol=1e-12)


def test_visible_energy_is_anchored_on_the_capture_gamma():
    """A positron whose light equals that of the n-H gamma is seen at 2.2233 MeV, whatever the response."""
    for kB, fC, light_yield in [(8.0, 0.0, 9e3), (12.0, 0.5, 1e4), (20.0, 1.0, 1.2e4)]:
        share = fC / light_yield
        kinetic = 1.3
        light = sc.quenched_energy(kinetic, kB) + 2 * sc.gamma_quenched_energy(ELECTRON_MASS_MeV, kB)
        light += share * sc.cherenkov_photons(kinetic, photons_per_cm=PHOTONS_PER_CM)
        light += 2 * share * sc.gamma_cherenkov_photons(ELECTRON_MASS_MeV, photons_per_cm=PHOTONS_PER_CM)
        anchor = sc.gamma_quenched_energy(2.2233, kB)
        anchor += share * sc.gamma_cherenkov_photons(2.2233, photons_per_cm=PHOTONS_PER_CM)
        e_vis = _visible(kinetic + 2 * ELECTRON_MASS_MeV, kB, fC, light_yield)
        assert float(e_vis) == pytest.approx(2.2233 * float(light / anchor), rel=1e-12)


def test_light_yield_moves_no_mean_by_more_than_half_a_permille_per_percent():
    """The law of the anchored scale, at the largest Cherenkov share."""
    bright = _visible(E_DEP_MeV, KB, 1.0, 1e4)
    shift = _visible(E_DEP_MeV, KB, 1.0, 1.01e4) / bright - 1
    assert float(jnp.max(jnp.abs(shift))) < 5e-4
    assert float(jnp.max(jnp.abs(shift))) > 1e-5
    np.testing.assert_allclose(_visible(E_DEP_MeV, KB, 0.5, 5e3), bright, rtol=1e-13)


def test_visible_energy_is_monotone_and_flat_below_the_positron():
    assert np.all(np.diff(_visible(E_DEP_MeV)) > 0)
    assert float(_visible(0.5)) == float(_visible(2 * ELECTRON_MASS_MeV))


def test_visible_energy_resembles_the_daya_bay_curve():
    """JUNO common inputs 2022, `positronScintNL`; a plausible response point, not a fit: 0.5 %."""
    e_dep = jnp.array([1.03, 1.5, 2, 3, 4, 5, 6, 8, 10])
    published = [0.8879, 0.9262, 0.9576, 0.9912, 1.0083, 1.0185, 1.0251, 1.0333, 1.0381]
    np.testing.assert_allclose(_visible(e_dep) / e_dep, published, rtol=5e-3)


def test_gradients_agree_with_finite_differences():
    """In energy, kB, fC and light yield at once; at rest (the first energy) they are finite."""

    @jax.jit
    def visible(p):
        return _visible(jnp.array([2 * ELECTRON_MASS_MeV, 1.1, 3.0, 9.0]) + p[0], p[1], p[2], p[3])

    point, steps = jnp.array([0.0, 12.0, 0.5, 1e4]), np.array([1e-5, 1e-4, 1e-4, 1.0])
    jacobian = jax.jit(jax.jacfwd(visible))(point)
    assert np.all(np.isfinite(jacobian))
    for index, step in enumerate(steps):
        shift = jnp.zeros(4).at[index].set(step)
        numeric = (visible(point + shift) - visible(point - shift)) / (2 * step)
        np.testing.assert_allclose(jacobian[1:, index], numeric[1:], rtol=2e-5)


GRID_MeV = np.linspace(1.0, 12.0, 45)
NOMINAL = 1.04 - 0.15 / GRID_MeV
PULLS = np.array([NOMINAL + 0.01 * np.sin(GRID_MeV), NOMINAL * 1.005, NOMINAL + 0.02 / GRID_MeV])


@pytest.mark.parametrize(
    ("alphas", "curve"),
    [
        ([0.0, 0.0, 0.0], NOMINAL),
        ([1.0, 0.0, 0.0], PULLS[0]),
        ([0.0, 0.0, 1.0], PULLS[2]),
        ([0.5, -2.0, 0.3], NOMINAL + np.array([0.5, -2.0, 0.3]) @ (PULLS - NOMINAL)),
    ],
)
def test_tabulated_ratio_goes_through_its_curves(alphas, curve):
    ratio = sc.tabulated_ratio(GRID_MeV, GRID_MeV, NOMINAL, PULLS, np.array(alphas))
    np.testing.assert_allclose(ratio, curve, rtol=1e-13)
    between = 0.5 * (GRID_MeV[1:] + GRID_MeV[:-1])
    e_vis = sc.tabulated_visible_energy(between, GRID_MeV, NOMINAL, PULLS, np.array(alphas))
    np.testing.assert_allclose(e_vis / between, 0.5 * (curve[1:] + curve[:-1]), rtol=1e-13)


def test_tabulated_ratio_is_linear_in_the_pulls():
    e_dep = jnp.array([1.07, 3.3, 8.9])
    jacobian = jax.jacfwd(lambda a: sc.tabulated_ratio(e_dep, GRID_MeV, NOMINAL, PULLS, a))
    at_zero, elsewhere = jacobian(jnp.zeros(3)), jacobian(jnp.array([1.0, -3.0, 0.2]))
    np.testing.assert_allclose(at_zero, elsewhere, atol=1e-14)
    expected = [np.interp(e_dep, GRID_MeV, pull - NOMINAL) for pull in PULLS]
    np.testing.assert_allclose(at_zero.T, expected, atol=1e-14)


@pytest.mark.parametrize(
    ("nominal", "pulls", "alphas"),
    [(NOMINAL[1:], PULLS, np.zeros(3)), (NOMINAL, PULLS, np.zeros(2)), (NOMINAL, PULLS[0], 0.0)],
)
def test_tabulated_ratio_refuses_shapes_that_do_not_fit(nominal, pulls, alphas):
    with pytest.raises(NuebarError, match="one row of pulls per alpha"):
        sc.tabulated_ratio(2.0, GRID_MeV, nominal, pulls, alphas)


@pytest.mark.parametrize(
    ("abc", "at_one_MeV", "tolerance"),
    [((0.0261, 0.0082, 0.0123), 0.0300, 5e-5), ((0.02614, 0.00640, 0.01205), 0.0295, 5e-5)],
    ids=["arXiv:2204.13249", "arXiv:2405.17860"],
)
def test_resolution_at_one_mev(abc, at_one_MeV, tolerance):
    assert float(sc.resolution_sigma(1.0, *abc)) == pytest.approx(at_one_MeV, abs=tolerance)


def test_resolution_terms_have_their_own_energy_dependence():
    e_vis = jnp.array([0.5, 1.0, 4.0])
    np.testing.assert_allclose(sc.resolution_sigma(e_vis, 0.03, 0.0, 0.0), 0.03 * jnp.sqrt(e_vis), rtol=1e-13)
    np.testing.assert_allclose(sc.resolution_sigma(e_vis, 0.0, 0.01, 0.0), 0.01 * e_vis, rtol=1e-13)
    np.testing.assert_allclose(sc.resolution_sigma(e_vis, 0.0, 0.0, 0.02), 0.02, rtol=1e-13)


def test_resolution_gradient_is_finite_where_sigma_vanishes():
    slopes = jax.grad(sc.resolution_sigma, (0, 1, 2, 3))(0.0, 0.0, 0.0, 0.0)
    assert np.all(np.isfinite(slopes))
    assert float(sc.resolution_sigma(-1.0, 0.03, 0.01, 0.0)) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density_g_cm3": 0.0}, "density_g_cm3 must be positive"),
        ({"z_over_a": np.nan}, "z_over_a must be positive"),
        ({"refractive_index": 1.0}, "refractive_index must exceed 1"),
        ({"mean_excitation_eV": 120.0}, "mean_excitation_eV must be below 100 eV"),
    ],
)
def test_unphysical_scintillators_are_refused(options, message):
    with pytest.raises(NuebarError, match=message):
        sc.Scintillator(**options)


@pytest.mark.parametrize("e_gamma_MeV", [0.001, 4.4, np.nan])
def test_gammas_outside_the_model_are_refused(e_gamma_MeV):
    with pytest.raises(NuebarError, match="expects a gamma between"):
        sc.gamma_electrons(e_gamma_MeV)
