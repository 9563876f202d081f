"""Laws and pinned numbers of the inverse beta decay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from nuebar.physics import constants, ibd

E_NU_MeV = np.array([2.0, 3.0, 4.0, 5.0, 6.0, 8.0])
# JUNO common inputs 2022-01-06, IBDXsec_VogelBeacom_DYB and IBDXsec_StrumiaVissani, rounded to four digits.
VOGEL_BEACOM_1e43_cm2 = np.array([0.3263, 2.619, 6.730, 12.63, 20.28, 40.65])
STRUMIA_VISSANI_1e43_cm2 = np.array([0.3293, 2.633, 6.755, 12.67, 20.33, 40.72])
ROUNDING = 5e-4
TAU_OF_THE_FILE_s = 880.3

CROSS_SECTIONS = {
    "vogel_beacom": ibd.cross_section_vogel_beacom,
    "strumia_vissani": ibd.cross_section_strumia_vissani,
}
KINEMATICS = {
    "positron_energy": ibd.positron_energy,
    "positron_energy_first_order": ibd.positron_energy_first_order,
    "neutron_kinetic_energy": ibd.neutron_kinetic_energy,
    "deposited_energy": ibd.deposited_energy,
    "differential_vogel_beacom": ibd.differential_vogel_beacom,
}
COS = np.linspace(-1, 1, 9)


def _mesh():
    return jnp.asarray(E_NU_MeV)[:, None], jnp.asarray(COS)[None, :]


def test_vogel_beacom_pinned():
    sigma = ibd.cross_section_vogel_beacom(E_NU_MeV, neutron_lifetime_s=TAU_OF_THE_FILE_s) / 1e-43
    np.testing.assert_allclose(sigma, VOGEL_BEACOM_1e43_cm2, rtol=ROUNDING)


def test_strumia_vissani_pinned():
    sigma = ibd.cross_section_strumia_vissani(E_NU_MeV) / 1e-43
    np.testing.assert_allclose(sigma, STRUMIA_VISSANI_1e43_cm2, rtol=ROUNDING)


def test_default_lifetime_stays_within_three_permille_of_the_common_inputs():
    sigma = ibd.cross_section_vogel_beacom(E_NU_MeV) / 1e-43
    np.testing.assert_allclose(sigma, VOGEL_BEACOM_1e43_cm2, rtol=3e-3)


@pytest.mark.parametrize(
    ("histogram", "sigma", "near_threshold"),
    [
        (
            "IBDXsec_VogelBeacom_DYB",
            lambda e: ibd.cross_section_vogel_beacom(e, neutron_lifetime_s=880.3),
            3e-4,
        ),
        ("IBDXsec_StrumiaVissani", ibd.cross_section_strumia_vissani, 3e-5),
    ],
)
def test_every_bin_of_the_common_inputs(common_inputs, histogram, sigma, near_threshold):
    """The masses of the file are those of PDG 2004 for one of the two: it shows near threshold only."""
    uproot = pytest.importorskip("uproot")
    with uproot.open(common_inputs) as file:
        values, edges = file[histogram].to_numpy()
    centres = 0.5 * (edges[1:] + edges[:-1])
    ours = np.asarray(sigma(centres))
    above, far = centres > 1.81, centres > 2.0
    np.testing.assert_allclose(ours[above], values[above], rtol=near_threshold)
    np.testing.assert_allclose(ours[far], values[far], rtol=3e-5)


def test_strumia_vissani_against_the_papers_own_approximation():
    """Their equation 25, good to a few per mille below 300 MeV; coefficients as printed (nominal)."""
    e_nu = np.array([3.0, 5.0, 10.0, 30.0, 60.0, 100.0])
    log_e, e0 = np.log(e_nu), e_nu - (constants.NEUTRON_MASS_MeV - constants.PROTON_MASS_MeV)
    power = -0.07056 + 0.02018 * log_e - 0.001953 * log_e**3
    approximate = 1e-43 * np.sqrt(e0**2 - constants.ELECTRON_MASS_MeV**2) * e0 * e_nu**power
    np.testing.assert_allclose(ibd.cross_section_strumia_vissani(e_nu), approximate, rtol=0.01)


def _dirac_matrices():
    """Gamma matrices with lower and upper index, γ5, and the metric."""
    sigma = [np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.array([[1, 0], [0, -1]])]
    upper = [np.kron(np.diag([1, -1]), np.eye(2)), *(np.kron(np.array([[0, 1], [-1, 0]]), s) for s in sigma)]
    metric = np.array([1, -1, -1, -1])
    lower = [sign * matrix for sign, matrix in zip(metric, upper, strict=True)]
    return lower, upper, 1j * upper[0] @ upper[1] @ upper[2] @ upper[3], metric


def _squared_amplitude(k, p, e, n, form_factors):
    """Sum over spins of the current-current amplitude, by traces of explicit 4x4 matrices."""
    lower, upper, gamma5, metric = _dirac_matrices()
    f1, f2, g1, g2 = form_factors
    one, q, mass = np.eye(4), n - p, 0.5 * (constants.PROTON_MASS_MeV + constants.NEUTRON_MASS_MeV)

    def slash(vector):
        return sum(x * matrix for x, matrix in zip(vector, lower, strict=True))

    def bar(matrix):
        return upper[0] @ matrix.conj().T @ upper[0]

    lepton = [matrix @ (one - gamma5) for matrix in upper]
    hadron = [
        f1 * low
        + g1 * low @ gamma5
        - f2 * (low @ slash(q) - slash(q) @ low) / (4 * mass)
        + g2 * sign * q_a * gamma5 / mass
        for low, sign, q_a in zip(lower, metric, q, strict=True)
    ]
    e_matrix, n_matrix = (
        slash(e) - constants.ELECTRON_MASS_MeV * one,
        slash(n) + constants.NEUTRON_MASS_MeV * one,
    )
    p_matrix = slash(p) + constants.PROTON_MASS_MeV * one
    return sum(
        np.trace(slash(k) @ lepton[a] @ e_matrix @ bar(lepton[b]))
        * np.trace(n_matrix @ hadron[a] @ p_matrix @ bar(hadron[b]))
        for a in range(4)
        for b in range(4)
    ).real


@pytest.mark.parametrize(("e_nu_MeV", "cos"), [(2.0, -0.7), (5.0, 0.4), (50.0, 0.0), (200.0, -0.7)])
def test_strumia_vissani_matrix_element_from_first_principles(e_nu_MeV, cos):
    """A, B and C against the V-A amplitude itself, whose sum over spins is 32 times theirs.

    The terms of g2 are 1e-5 of the sum, so 1e-9 tests each of them.
    """
    e_e = float(ibd.positron_energy(e_nu_MeV, cos))
    p_e = np.sqrt(e_e**2 - constants.ELECTRON_MASS_MeV**2)
    k = e_nu_MeV * np.array([1, 0, 0, 1])
    p = np.array([constants.PROTON_MASS_MeV, 0, 0, 0])
    e = np.array([e_e, p_e * np.sqrt(1 - cos**2), 0, p_e * cos])
    n = k + p - e
    t = (n[0] - p[0]) ** 2 - np.sum(n[1:] ** 2)
    m2, pion = ibd._NUCLEON**2, ibd._PION_MASS
    dipole = (1 - t / (4 * m2)) * (1 - t / 0.71e6) ** 2
    g1 = -1.270 / (1 - t / 1e6) ** 2
    form_factors = ((1 - 4.706 * t / (4 * m2)) / dipole, 3.706 / dipole, g1, 2 * m2 * g1 / (pion**2 - t))
    a, b, c = ibd._structure_functions(jnp.asarray(t))
    s_minus_u = 2 * constants.PROTON_MASS_MeV * (e_nu_MeV + e_e) - constants.ELECTRON_MASS_MeV**2
    squared = float(a - s_minus_u * b + s_minus_u**2 * c)
    assert _squared_amplitude(k, p, e, n, form_factors) == pytest.approx(32 * squared, rel=1e-9)


def test_vogel_beacom_leading_order_in_the_static_limit():
    """0.0952e-42 cm² E p of their equation 9, at the lifetime of its day (887 s, nominal)."""
    e_nu = np.array([2.5, 3.0])
    e0 = e_nu - 1.29333
    static = 0.0952e-42 * e0 * np.sqrt(e0**2 - 0.511**2)
    ratio = np.asarray(ibd.cross_section_vogel_beacom(e_nu, neutron_lifetime_s=887.0)) / static
    np.testing.assert_allclose(ratio, 0.98, atol=0.01)


def test_threshold():
    """1.806 MeV of Vogel and Beacom: the energy at which both products are at rest in their common frame."""
    assert ibd.THRESHOLD_MeV == pytest.approx(1.8061, abs=5e-5)
    s = constants.PROTON_MASS_MeV**2 + 2 * constants.PROTON_MASS_MeV * ibd.THRESHOLD_MeV
    total = constants.NEUTRON_MASS_MeV + constants.ELECTRON_MASS_MeV
    assert np.sqrt(s) == pytest.approx(total, rel=1e-14)


@pytest.mark.parametrize("sigma", CROSS_SECTIONS.values(), ids=CROSS_SECTIONS)
def test_zero_at_and_below_threshold(sigma):
    e_nu = jnp.array([0.0, 1.0, 1.8043, ibd.THRESHOLD_MeV])
    assert np.all(np.asarray(sigma(e_nu)) == 0)
    assert float(sigma(ibd.THRESHOLD_MeV + 1e-3)) > 0


@pytest.mark.parametrize("sigma", CROSS_SECTIONS.values(), ids=CROSS_SECTIONS)
def test_gradient_is_finite_everywhere(sigma):
    above_MeV = jnp.array([-1.8, -1e-3, 0.0, 1e-14, 1e-12, 1e-9, 1e-7, 1e-6, 1e-4, 1e-2, 1.0, 20.0])
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(sigma)))(ibd.THRESHOLD_MeV + above_MeV)
    assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(slope))
    assert np.all(np.asarray(value) >= 0)


@pytest.mark.parametrize("function", KINEMATICS.values(), ids=KINEMATICS)
def test_kinematics_and_their_gradients_are_finite(function):
    above_MeV = jnp.array([-1.8, 0.0, 1e-12, 1e-9, 1e-6, 1e-3, 3.0])
    e_nu, cos = (x.ravel() for x in jnp.meshgrid(ibd.THRESHOLD_MeV + above_MeV, jnp.array([-1.0, 0.0, 1.0])))
    value, slopes = jax.jit(jax.vmap(jax.value_and_grad(function, (0, 1))))(e_nu, cos)
    assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(slopes))


def test_a_nan_energy_is_not_turned_into_a_number():
    for sigma in CROSS_SECTIONS.values():
        assert np.isnan(sigma(np.nan))


@pytest.mark.parametrize("sigma", CROSS_SECTIONS.values(), ids=CROSS_SECTIONS)
def test_gradient_agrees_with_finite_differences(sigma):
    e_nu, step = jnp.array([1.9, 3.0, 8.0]), 1e-5
    numeric = (sigma(e_nu + step) - sigma(e_nu - step)) / (2 * step)
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(sigma)))(e_nu), numeric, rtol=1e-7)


@pytest.mark.parametrize("sigma", CROSS_SECTIONS.values(), ids=CROSS_SECTIONS)
def test_shapes_and_jit(sigma):
    """The structure functions of Strumia and Vissani cancel to 1e-3: equal to rounding means 1e-11 here."""
    e_nu = jnp.linspace(1.0, 9.0, 12)
    whole = sigma(e_nu)
    assert whole.shape == (12,)
    np.testing.assert_allclose(jax.jit(sigma)(e_nu.reshape(3, 4)), whole.reshape(3, 4), rtol=1e-11)
    np.testing.assert_allclose(sigma(float(e_nu[5])), whole[5], rtol=1e-11)


def test_vogel_beacom_goes_as_the_inverse_lifetime():
    short = ibd.cross_section_vogel_beacom(E_NU_MeV, neutron_lifetime_s=800.0)
    np.testing.assert_allclose(short / ibd.cross_section_vogel_beacom(E_NU_MeV), 878.4 / 800.0, rtol=1e-13)


def test_strumia_vissani_lifetime_of_the_papers_cabibbo_angle():
    """The lifetime implied by |V_ud| = 0.9746 and g = 1.270, 885.1 s, gives the paper's own cross-section."""
    implied_s = 5172.0 * 0.97420**2 / (0.9746**2 * (1 + 3 * 1.270**2))
    assert implied_s == pytest.approx(885.1, abs=0.1)
    tied = ibd.cross_section_strumia_vissani(E_NU_MeV, neutron_lifetime_s=implied_s)
    np.testing.assert_allclose(tied, ibd.cross_section_strumia_vissani(E_NU_MeV), rtol=1e-13)


@pytest.mark.parametrize("e_nu_MeV", [1.85, 3.0, 10.0])
def test_vogel_beacom_total_is_the_integral_of_the_differential(e_nu_MeV):
    integral, _ = quad(lambda cos: 1e43 * float(ibd.differential_vogel_beacom(e_nu_MeV, cos)), -1, 1, epsrel=1e-9)
    np.testing.assert_allclose(1e43 * ibd.cross_section_vogel_beacom(e_nu_MeV), integral, rtol=1e-9)


@pytest.mark.parametrize("e_nu_MeV", [1.85, 3.0, 10.0])
def test_strumia_vissani_total_is_the_integral_of_the_differential(e_nu_MeV):
    """Over the angle, with the Jacobian by automatic differentiation: a second path to the number."""
    slope = jax.grad(ibd.positron_energy, 1)

    @jax.jit
    def per_cos(cos):
        density = ibd.differential_strumia_vissani(e_nu_MeV, ibd.positron_energy(e_nu_MeV, cos))
        return 1e43 * density * slope(e_nu_MeV, cos)

    integral, _ = quad(per_cos, -1, 1, epsrel=1e-8)
    np.testing.assert_allclose(1e43 * ibd.cross_section_strumia_vissani(e_nu_MeV), integral, rtol=1e-8)


def test_four_momentum_is_conserved():
    """The neutron's mass from what the positron leaves over; the invariant mass cancels 1e6 MeV² to 1e-10."""
    e_nu, cos = _mesh()
    e_e = ibd.positron_energy(e_nu, cos)
    p_e = jnp.sqrt(e_e**2 - constants.ELECTRON_MASS_MeV**2)
    e_n = e_nu + constants.PROTON_MASS_MeV - e_e
    p_n2 = (e_nu - p_e * cos) ** 2 + p_e**2 * (1 - cos**2)
    np.testing.assert_allclose(jnp.sqrt(e_n**2 - p_n2), constants.NEUTRON_MASS_MeV, rtol=1e-13)
    kinetic = e_n - constants.NEUTRON_MASS_MeV
    np.testing.assert_allclose(ibd.neutron_kinetic_energy(e_nu, cos), kinetic, atol=1e-12)
    assert np.all(np.asarray(kinetic) >= 0)


def test_first_order_energy_is_right_to_second_order_in_the_recoil():
    e_nu, cos = _mesh()
    difference = ibd.positron_energy_first_order(e_nu, cos) - ibd.positron_energy(e_nu, cos)
    assert np.all(np.abs(difference) < 4 * e_nu**3 / constants.PROTON_MASS_MeV**2)
    assert float(np.max(np.abs(difference))) > 1e-5


def test_energies_add_up():
    e_nu, cos = _mesh()
    released = ibd.deposited_energy(e_nu, cos) + ibd.neutron_kinetic_energy(e_nu, cos)
    offset = constants.NEUTRON_MASS_MeV - constants.PROTON_MASS_MeV - constants.ELECTRON_MASS_MeV
    assert offset == pytest.approx(0.7823, abs=5e-5)
    np.testing.assert_allclose(released, (e_nu - offset) * jnp.ones_like(cos), rtol=1e-13)


@pytest.mark.parametrize(
    ("e_nu_MeV", "shift_keV", "tolerance"),
    [(3.0, -6.4, 0.1), (8.0, -60.0, 2.0)],
)
def test_recoil_shift(e_nu_MeV, shift_keV, tolerance):
    """Quoted to two and to one digit; E²/M alone is -57 keV at 8 MeV, so 2 keV still tests the rest."""
    mean = ibd.mean_positron_energy(e_nu_MeV)
    static = e_nu_MeV - (constants.NEUTRON_MASS_MeV - constants.PROTON_MASS_MeV)
    assert 1e3 * float(mean - static) == pytest.approx(shift_keV, abs=tolerance)


def test_mean_energy_at_threshold_and_its_shape():
    assert float(ibd.mean_positron_energy(1.0)) == pytest.approx(constants.ELECTRON_MASS_MeV, rel=1e-14)
    assert ibd.mean_positron_energy(jnp.full((2, 3), 4.0)).shape == (2, 3)


@pytest.mark.parametrize(("e_nu_MeV", "low", "high"), [(3.0, -0.035, -0.02), (14.0, -0.005, 0.005), (25.0, 0.02, 0.05)])
def test_positrons_go_backward_then_forward(e_nu_MeV, low, high):
    """Abstract of Vogel and Beacom: slightly backward at first, isotropic at about 15 MeV, then forward."""
    cos, weights = ibd.angular_quadrature(jnp.array([e_nu_MeV]))
    assert low < float((weights @ cos)[0]) < high


@pytest.mark.parametrize("n", [2, 8, 20])
def test_angular_quadrature(n):
    e_nu = jnp.array([0.5, ibd.THRESHOLD_MeV, ibd.THRESHOLD_MeV + 1e-7, 1.9, 4.0, 9.0])
    cos, weights = ibd.angular_quadrature(e_nu, n)
    assert cos.shape == (n,)
    assert weights.shape == (6, n)
    assert np.all(np.asarray(weights) >= 0)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-13)
    np.testing.assert_allclose(weights[0] @ cos, 0.0, atol=1e-14)
    fine_cos, fine = ibd.angular_quadrature(e_nu[3:], 40)
    np.testing.assert_allclose(weights[3:] @ cos, fine @ fine_cos, atol=1e-4 if n == 2 else 1e-10)
