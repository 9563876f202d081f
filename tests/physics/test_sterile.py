"""Laws of the survival probability with a sterile state, and an independent diagonalisation beside it."""

import itertools

import jax
import numpy as np
import pytest
from scipy.linalg import expm

from nuebar.physics import oscillation as osc
from nuebar.physics import sterile

THREE = {
    "normal": dict(sin2_th12=0.307, sin2_th13=0.0218, dm2_21_eV2=7.53e-5, dm2_31_eV2=2.5283e-3),
    "inverted": dict(sin2_th12=0.29, sin2_th13=0.03, dm2_21_eV2=7.1e-5, dm2_31_eV2=-2.45e-3),
}
SPLITTINGS = (1e-6, 1e-5, 7.0e-5, 3e-4, 2.5e-3, 1e-2, 0.3)
ENERGY = np.geomspace(1.81, 12.0, 300)
DENSITY = 2.45


def by_evolution(e_nu_MeV, baseline_km, density, *, sin2_th14, dm2_41_eV2, th23=0.8, delta=1.1, **three):
    """P(ee) from the evolution operator of the complex 4 × 4 Hamiltonian, flavour basis, θ23 and a phase included."""

    def rotation(i, j, angle, phase=0.0):
        r = np.eye(4, dtype=complex)
        r[i, i] = r[j, j] = np.cos(angle)
        r[i, j] = np.sin(angle) * np.exp(-1j * phase)
        r[j, i] = -np.sin(angle) * np.exp(1j * phase)
        return r

    th12, th13, th14 = (np.arcsin(np.sqrt(s)) for s in (three["sin2_th12"], three["sin2_th13"], sin2_th14))
    u = rotation(0, 3, th14) @ rotation(1, 2, th23) @ rotation(0, 2, th13, delta) @ rotation(0, 1, th12)
    masses = np.diag([0.0, three["dm2_21_eV2"], three["dm2_31_eV2"], dm2_41_eV2])
    out = []
    for e in e_nu_MeV:
        a = osc.POTENTIAL_eV2_per_MeV * 0.5 * density * e
        # Charged current -a on the electron; neutral current +a/2 (N_n = N_e) on the three active ones.
        h = u @ masses @ u.conj().T + np.diag([-a + 0.5 * a, 0.5 * a, 0.5 * a, 0.0])
        operator = expm(-2j * osc.PHASE_per_eV2_km_MeV * baseline_km / e * h)
        out.append(abs(operator[0, 0]) ** 2)
    return np.array(out)


@pytest.mark.parametrize("name", THREE)
@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_without_mixing_it_is_three_flavours(name, splitting):
    more = dict(sin2_th14=0.0, dm2_41_eV2=splitting)
    np.testing.assert_array_equal(
        sterile.vacuum(ENERGY, 52.5, **THREE[name], **more),
        sterile.vacuum(ENERGY, 52.5, **THREE[name], sin2_th14=0.0, dm2_41_eV2=0.0),
    )
    vacuum = osc.vacuum(ENERGY, 52.5, **THREE[name])
    np.testing.assert_allclose(sterile.vacuum(ENERGY, 52.5, **THREE[name], **more), vacuum, atol=1e-14, rtol=0)
    matter = osc.matter(ENERGY, 52.5, **THREE[name], density_g_cm3=DENSITY)
    ours = sterile.matter(ENERGY, 52.5, **THREE[name], **more, density_g_cm3=DENSITY)
    np.testing.assert_array_equal(ours, matter)
    slow = sterile.diagonalised(ENERGY, 52.5, **THREE[name], **more, density_g_cm3=DENSITY)
    np.testing.assert_allclose(slow, matter, atol=1e-11, rtol=0)


@pytest.mark.parametrize(("name", "splitting"), list(itertools.product(THREE, (*SPLITTINGS, -1e-3))))
def test_without_matter_it_is_the_vacuum(name, splitting):
    more = dict(sin2_th14=0.12, dm2_41_eV2=splitting)
    vacuum = sterile.vacuum(ENERGY, 52.5, **THREE[name], **more)
    for function in (sterile.matter, sterile.diagonalised):
        np.testing.assert_allclose(
            function(ENERGY, 52.5, **THREE[name], **more, density_g_cm3=0.0), vacuum, atol=1e-10, rtol=0
        )


@pytest.mark.parametrize("name", THREE)
@pytest.mark.parametrize("splitting", [1e-5, 3e-4, 2.5e-3])
def test_diagonalisation_is_the_evolution_with_any_theta23_and_phase(name, splitting):
    some = ENERGY[::20]
    more = dict(sin2_th14=0.08, dm2_41_eV2=splitting)
    ours = sterile.diagonalised(some, 52.5, **THREE[name], **more, density_g_cm3=12.0)
    np.testing.assert_allclose(ours, by_evolution(some, 52.5, 12.0, **THREE[name], **more), atol=1e-10, rtol=0)


@pytest.mark.parametrize(("baseline", "bound"), [(52.5, 0.04), (215.0, 0.12)])
@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_what_the_coupling_by_matter_changes_is_small(baseline, bound, splitting):
    for s14 in (0.01, 0.1):
        more = dict(sin2_th14=s14, dm2_41_eV2=splitting, density_g_cm3=DENSITY)
        exact = sterile.diagonalised(ENERGY, baseline, **THREE["normal"], **more)
        ours = sterile.matter(ENERGY, baseline, **THREE["normal"], **more)
        assert np.abs(ours - exact).max() < bound * s14
        more.pop("density_g_cm3")
        vacuum = sterile.vacuum(ENERGY, baseline, **THREE["normal"], **more)
        assert np.abs(ours - exact).max() < 0.5 * np.abs(vacuum - exact).max()


@pytest.mark.parametrize(("like", "value"), [("first", 0.0), ("second", 7.53e-5), ("third", 2.5283e-3)])
def test_a_fourth_state_like_another_one_is_three_flavours_with_other_angles(like, value):
    s12, s13, s14 = 0.307, 0.0218, 0.09
    w = (1 - s14) * np.array([(1 - s13) * (1 - s12), (1 - s13) * s12, s13])
    w[("first", "second", "third").index(like)] += s14
    angles = dict(sin2_th13=w[2], sin2_th12=w[1] / (1 - w[2]))
    expected = osc.vacuum(ENERGY, 52.5, **{**THREE["normal"], **angles})
    ours = sterile.vacuum(ENERGY, 52.5, **THREE["normal"], sin2_th14=s14, dm2_41_eV2=value)
    np.testing.assert_allclose(ours, expected, atol=1e-13, rtol=0)


def test_the_names_of_the_third_and_fourth_state_do_not_matter():
    p = dict(sin2_th12=0.307, sin2_th13=0.05, sin2_th14=0.1, dm2_21_eV2=7.5e-5, dm2_31_eV2=2.5e-3, dm2_41_eV2=4e-4)
    w3 = 0.05 * (1 - 0.1)
    swapped = {**p, "sin2_th14": w3, "sin2_th13": 0.1 / (1 - w3), "dm2_31_eV2": 4e-4, "dm2_41_eV2": 2.5e-3}
    np.testing.assert_allclose(sterile.vacuum(ENERGY, 52.5, **swapped), sterile.vacuum(ENERGY, 52.5, **p), atol=1e-13)
    mirrored = {n: -v if n.startswith("dm2") else v for n, v in p.items()}
    np.testing.assert_allclose(sterile.vacuum(ENERGY, 52.5, **mirrored), sterile.vacuum(ENERGY, 52.5, **p), atol=1e-13)


@pytest.mark.parametrize("s14", [0.0, 0.02, 0.4, 1.0])
def test_it_is_a_probability_and_one_at_the_source(s14):
    more = dict(sin2_th14=s14, dm2_41_eV2=1e-3)
    for function, matter in ((sterile.vacuum, {}), (sterile.matter, {"density_g_cm3": DENSITY})):
        p = np.asarray(function(ENERGY, 52.5, **THREE["normal"], **more, **matter))
        assert np.all((p > -1e-12) & (p < 1 + 1e-12))
        near = function(ENERGY, 0.0, **THREE["normal"], **more, **matter)
        np.testing.assert_allclose(near, 1.0, atol=1e-12)
    f = sterile.fourth(1e-6 * ENERGY, **THREE["normal"], **more)
    np.testing.assert_allclose(f.three.w1 + f.three.w2 + f.three.w3, 1.0, atol=1e-13)


def test_fast_oscillations_average():
    s14 = 0.1
    splittings = np.linspace(0.5, 1.0, 4001)[:, None]
    p = sterile.vacuum(np.array([3.0, 5.0]), 52.5, **THREE["normal"], sin2_th14=s14, dm2_41_eV2=splittings)
    expected = sterile.averaged(s14, osc.vacuum(np.array([3.0, 5.0]), 52.5, **THREE["normal"]))
    np.testing.assert_allclose(np.mean(p, axis=0), expected, atol=2e-4)
    assert float(sterile.averaged(s14, 1.0)) == pytest.approx(1 - 0.5 * float(sterile.sin2_2th14(s14)), abs=1e-15)


def test_averaged_three_flavours_are_the_mean_over_far_sources():
    far = np.linspace(3e5, 6e5, 200_001)
    p = osc.vacuum(3.0, far, **THREE["normal"])
    mixing = {n: THREE["normal"][n] for n in ("sin2_th12", "sin2_th13")}
    mean = float(osc.averaged(**mixing))
    assert float(np.mean(p)) == pytest.approx(mean, abs=2e-3)
    assert mean == pytest.approx(0.5502, abs=1e-4)


@pytest.mark.parametrize("function", [sterile.matter, sterile.diagonalised])
def test_gradients_are_those_of_finite_differences(function):
    names = ("sin2_th12", "sin2_th13", "dm2_21_eV2", "dm2_31_eV2", "sin2_th14", "dm2_41_eV2", "density_g_cm3")
    x = np.array([0.307, 0.0218, 7.53e-5, 2.5283e-3, 0.05, 4e-4, 2.45])

    def p(v):
        return function(3.3, 52.5, **dict(zip(names, v, strict=True)))

    ours = jax.grad(p)(x)
    for k, value in enumerate(x):
        step = np.zeros(x.size)
        step[k] = 1e-5 * value
        numeric = (p(x + step) - p(x - step)) / (2 * step[k])
        assert ours[k] == pytest.approx(float(numeric), rel=1e-4, abs=1e-8 / value), names[k]
