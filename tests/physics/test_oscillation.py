"""Laws of the survival probability, and an independent package beside it."""

import itertools

import jax
import jax.numpy as jnp
import jaxnu
import numpy as np
import pytest

from nuebar.physics import oscillation as osc

POINTS = {
    "pdg-normal": dict(sin2_th12=0.307, sin2_th13=0.022, dm2_21_eV2=7.53e-5, dm2_31_eV2=2.5123e-3),
    "pdg-inverted": dict(sin2_th12=0.307, sin2_th13=0.022, dm2_21_eV2=7.53e-5, dm2_31_eV2=-2.4437e-3),
    "low": dict(sin2_th12=0.11, sin2_th13=0.001, dm2_21_eV2=4.9e-5, dm2_31_eV2=2.05e-3),
    "high": dict(sin2_th12=0.62, sin2_th13=0.11, dm2_21_eV2=10.2e-5, dm2_31_eV2=-3.0e-3),
    "no-th13": dict(sin2_th12=0.307, sin2_th13=0.0, dm2_21_eV2=7.53e-5, dm2_31_eV2=2.5e-3),
}
BASELINES = (0.5, 52.5, 215.0)
DENSITIES = (0.0, 2.45, 12.0)
ENERGY = np.geomspace(1.81, 12.0, 200)


def by_diagonalisation(e_nu_MeV, baseline_km, point, density):
    """P(ee) from the eigenvectors of the 3 × 3 Hamiltonian, numerically."""
    s12, s13 = np.sqrt(point["sin2_th12"]), np.sqrt(point["sin2_th13"])
    c12, c13 = np.sqrt(1 - s12**2), np.sqrt(1 - s13**2)
    # θ23 = 0.8 and no CP phase: neither enters P(ee)
    s23, c23 = np.sin(0.8), np.cos(0.8)
    u = np.array(
        [
            [c12 * c13, s12 * c13, s13],
            [-s12 * c23 - c12 * s23 * s13, c12 * c23 - s12 * s23 * s13, s23 * c13],
            [s12 * s23 - c12 * c23 * s13, -c12 * s23 - s12 * c23 * s13, c23 * c13],
        ]
    )
    mass = u @ np.diag([0, point["dm2_21_eV2"], point["dm2_31_eV2"]]) @ u.T
    potential = osc.POTENTIAL_eV2_per_MeV * 0.5 * density * e_nu_MeV
    h = np.repeat(mass[None], e_nu_MeV.size, axis=0)
    h[:, 0, 0] -= potential
    lam, vec = np.linalg.eigh(h)
    weight = vec[:, 0, :] ** 2
    phase = 2 * osc.PHASE_per_eV2_km_MeV * baseline_km / e_nu_MeV
    amplitude = np.sum(weight * np.exp(-1j * phase[:, None] * lam), axis=1)
    return np.abs(amplitude) ** 2


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize(("baseline", "density"), list(itertools.product(BASELINES, DENSITIES)))
def test_matter_is_exact(name, baseline, density):
    ours = osc.matter(ENERGY, baseline, **POINTS[name], density_g_cm3=density)
    np.testing.assert_allclose(ours, by_diagonalisation(ENERGY, baseline, POINTS[name], density), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize("baseline", BASELINES)
def test_no_matter_is_vacuum(name, baseline):
    zero = osc.matter(ENERGY, baseline, **POINTS[name], density_g_cm3=0.0)
    np.testing.assert_allclose(zero, osc.vacuum(ENERGY, baseline, **POINTS[name]), atol=1e-13, rtol=0)


@pytest.mark.parametrize("name", ["pdg-normal", "pdg-inverted", "low", "high"])
@pytest.mark.parametrize(("baseline", "density"), list(itertools.product(BASELINES, DENSITIES)))
def test_against_jaxnu(name, baseline, density):
    """An independent public package, diagonalising numerically, with a θ23 and a CP phase that must not matter.

    Its ħc has ten digits, ours all of them: 3·10⁻¹⁰, times a phase of 200. Length and density are rescaled by the
    ratio of the constants, so that what is compared is the physics.
    """
    point = POINTS[name]
    params = jaxnu.OscParams(
        theta12=jnp.arcsin(jnp.sqrt(point["sin2_th12"])),
        theta13=jnp.arcsin(jnp.sqrt(point["sin2_th13"])),
        theta23=jnp.asarray(0.78),
        deltacp=jnp.asarray(1.2),
        dm21=jnp.asarray(point["dm2_21_eV2"]),
        dm31=jnp.asarray(point["dm2_31_eV2"]),
    )
    length = baseline * osc.PHASE_per_eV2_km_MeV / (jaxnu.constants.KM_TO_INV_EV / 4e6)
    rho = density * osc.POTENTIAL_eV2_per_MeV / (2e6 * jaxnu.constants.V_FACTOR_EV)
    assert length == pytest.approx(baseline, rel=1e-8)
    assert rho == pytest.approx(density, rel=1e-8)
    with jax.numpy_rank_promotion("allow"):
        theirs = jaxnu.probability_constant(
            params, ENERGY * 1e-3, length, rho, 0.5, anti=True, backend="eigh", flavor_in=0, flavor_out=0
        )
    ours = osc.matter(ENERGY, baseline, **point, density_g_cm3=density)
    np.testing.assert_allclose(ours, theirs, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize("density", DENSITIES)
def test_weights_are_conserved(name, density):
    """Electron content sums to one, and the trace of the mass matrix falls by the potential."""
    potential = osc.POTENTIAL_eV2_per_MeV * 0.5 * density * ENERGY
    m = osc.eigensystem(potential, **POINTS[name])
    np.testing.assert_allclose(m.w1 + m.w2 + m.w3, 1.0, atol=3e-14)
    np.testing.assert_allclose(m.dm2_31 - m.dm2_32, m.dm2_21, rtol=1e-11)
    assert np.all(np.stack([m.w1, m.w2, m.w3]) >= 0)


@pytest.mark.parametrize("density", [0.0, 2.45])
@pytest.mark.parametrize("name", ["pdg-normal", "pdg-inverted", "high"])
def test_gradient_against_finite_differences(name, density):
    names = list(POINTS[name])
    x0 = jnp.array([*POINTS[name].values(), density + 0.1])

    def probability(x):
        return osc.matter(ENERGY, 52.5, **dict(zip(names, x[:4], strict=True)), density_g_cm3=x[4])

    jacobian = jax.jacfwd(probability)(x0)
    for k in range(5):
        step = 1e-5 * x0[k]
        up, down = probability(x0.at[k].add(step)), probability(x0.at[k].add(-step))
        numeric = (up - down) / (2 * step)
        np.testing.assert_allclose(jacobian[:, k], numeric, atol=3e-6 * np.abs(numeric).max() + 1e-12)


def test_limits():
    """Nothing is lost at zero distance; a long baseline averages; θ12 → π/2 - θ12 only matters beyond it."""
    point = POINTS["pdg-normal"]
    np.testing.assert_allclose(osc.vacuum(4.0, 0.0, **point), 1.0, atol=1e-15)
    s12, s13 = point["sin2_th12"], point["sin2_th13"]
    average = (1 - s13) ** 2 * (1 - 2 * s12 * (1 - s12)) + s13**2
    baselines = jnp.linspace(2e5, 3e5, 200_001)
    assert float(jnp.mean(osc.vacuum(4.0, baselines, **point))) == pytest.approx(average, abs=2e-3)


def test_matter_shift_of_solar_parameters():
    """At JUNO a vacuum fit would be off by about +1 % in sin²θ12 and -0.2 % in Δm²21 (arXiv:2107.12410)."""
    point = POINTS["pdg-normal"]
    m = osc.eigensystem(osc.POTENTIAL_eV2_per_MeV * 0.5 * 2.45 * 3.5, **point)
    sin2_th12 = m.w2 / (m.w1 + m.w2)
    assert float(sin2_th12 / 0.307 - 1) == pytest.approx(-0.011, abs=0.003)
    assert float(m.dm2_21 / 7.53e-5 - 1) == pytest.approx(0.003, abs=0.002)


def test_ee_splitting():
    assert float(osc.dm2_ee(0.307, 7.53e-5, 2.5283e-3)) == pytest.approx(
        0.693 * 2.5283e-3 + 0.307 * (2.5283e-3 - 7.53e-5), rel=1e-12
    )
    assert osc.ordering(-2.4e-3) == "inverted"
