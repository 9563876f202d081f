"""Allowed β⁻ spectra: norm, limits, evaluated mean energies, sums of branches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import loggamma

from nuebar.physics import beta_decay
from nuebar.physics.beta_decay import antineutrino_spectrum, electron_spectrum, fermi_function
from nuebar.physics.constants import ELECTRON_MASS_MeV

DECAYS = [  # endpoint in MeV, charge of the daughter, mass number
    (0.1, 84, 214),
    (3.27, 84, 214),
    (2.2739, 92, 234),
    (11.177, 4, 9),
    (5.0, 0, 1),
]


def integral(function, upper, power=1):
    """∫₀^upper f dx with x = upper u⁴, which removes the singular start of a heavy nucleus."""
    u, w = np.polynomial.legendre.leggauss(200)
    u, w = 0.5 * (u + 1.0), 0.5 * w
    x = upper * u**4
    return float(np.sum(w * 4 * upper * u**3 * np.asarray(function(jnp.asarray(x))) * x ** (power - 1)))


@pytest.mark.parametrize(("endpoint", "z", "a"), DECAYS)
def test_electron_spectrum_is_normalised_and_ends_at_its_endpoint(endpoint, z, a):
    assert integral(lambda t: electron_spectrum(t, endpoint, z, a), endpoint) == pytest.approx(1.0, abs=1e-9)
    outside = jnp.concatenate([jnp.linspace(-1.0, 0.0, 5), endpoint + jnp.linspace(0.0, 1.0, 4)])
    assert np.all(np.asarray(electron_spectrum(outside, endpoint, z, a)) == 0.0)


@pytest.mark.parametrize(("endpoint", "z", "a"), DECAYS)
def test_electron_and_antineutrino_share_the_endpoint(endpoint, z, a):
    t = jnp.linspace(0.01, 0.99, 9) * endpoint
    np.testing.assert_allclose(
        antineutrino_spectrum(endpoint - t, endpoint, z, a), electron_spectrum(t, endpoint, z, a), rtol=1e-12
    )


def test_without_charge_the_spectrum_is_phase_space():
    q, t = 4.0, jnp.linspace(0.1, 3.9, 9)
    momentum = jnp.sqrt(t * (t + 2 * ELECTRON_MASS_MeV))
    ratio = electron_spectrum(t, q, 0, 1) / (momentum * (t + ELECTRON_MASS_MeV) * (q - t) ** 2)
    np.testing.assert_allclose(fermi_function(t, 0, 1), 1.0, rtol=1e-13)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-12)


def test_fermi_function_of_small_charge_is_one_plus_pi_eta():
    t = jnp.linspace(0.5, 3.0, 9)
    total = 1 + t / ELECTRON_MASS_MeV
    eta = total / jnp.sqrt(total**2 - 1) / 137.035999
    np.testing.assert_allclose(fermi_function(t, 1, 1), 1 + jnp.pi * eta, rtol=3e-3)


def test_gamma_function_agrees_with_scipy():
    x, y = np.meshgrid([0.5, 0.79, 1.0, 2.6], [0.0, 0.3, 2.0, 40.0])
    np.testing.assert_allclose(
        beta_decay._log_abs_gamma(jnp.asarray(x), jnp.asarray(y)),
        loggamma(x + 1j * y).real,
        atol=1e-12,
        rtol=1e-12,
    )


# Mean electron energies as evaluated: 214Bi in ENSDF, 9Li in the description of the ENDF/B-VIII.0 decay file.
@pytest.mark.parametrize(
    ("endpoint", "z", "a", "mean_MeV", "tolerance"),
    [
        (3.270, 84, 214, 1.268, 0.005),
        (1.891, 84, 214, 0.683, 0.005),
        (1.539, 84, 214, 0.539, 0.005),
        (11.177, 4, 9, 5.3497, 0.002),
        (2.320, 4, 9, 0.9962, 0.002),
    ],
)
def test_mean_electron_energy_is_the_evaluated_one(endpoint, z, a, mean_MeV, tolerance):
    mean = integral(lambda t: electron_spectrum(t, endpoint, z, a), endpoint, power=2)
    assert mean == pytest.approx(mean_MeV, rel=tolerance)


def test_gradient_in_the_kinetic_energy_agrees_with_differences():
    t, step = jnp.linspace(0.3, 3.0, 9), 1e-5
    _, slope = jax.jvp(lambda x: electron_spectrum(x, 3.27, 84, 214), (t,), (jnp.ones(9),))
    above, below = (electron_spectrum(x, 3.27, 84, 214) for x in (t + step, t - step))
    np.testing.assert_allclose(slope, (above - below) / (2 * step), rtol=1e-6)


# 214Bi: the weak branches are left out; P_n of 9Li and 8He: Tilley et al. 2004.
@pytest.mark.parametrize(
    ("branches", "total", "tolerance"),
    [
        (beta_decay.BI214, 1.0, 0.035),
        (beta_decay.TL208, 1.0, 0.01),
        (beta_decay.LI9_NEUTRON, 0.508, 1e-9),
        (beta_decay.HE8_NEUTRON, 0.16, 1e-9),
    ],
)
def test_intensities_add_up(branches, total, tolerance):
    assert sum(b.intensity for b in branches) == pytest.approx(total, abs=tolerance)


@pytest.mark.parametrize("branches", [beta_decay.BI214, beta_decay.TL208])
def test_summed_deposit_lies_between_the_levels_and_q(branches):
    q = branches[0].endpoint_MeV + branches[0].level_MeV
    grid = jnp.linspace(0.0, q + 1.0, 4000)
    spectrum = beta_decay.summed_spectrum(grid, branches)
    lowest = min(b.level_MeV for b in branches)
    assert float(jnp.max(jnp.where((grid < lowest) | (grid > q), spectrum, 0.0))) == 0.0
    assert float(jnp.trapezoid(spectrum, grid)) == pytest.approx(sum(b.intensity for b in branches), rel=0.01)


def test_only_branches_above_the_threshold_make_geoneutrinos():
    for chain in (beta_decay.U238_CHAIN, beta_decay.TH232_CHAIN):
        assert all(b.endpoint_MeV > 1.806 and b.level_MeV >= 0.0 for b in chain)
