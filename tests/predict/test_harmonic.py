"""The harmonic predictor against direct integration of the same model, all nine cores in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.predict.box import physics_vector
from nuebar.predict.harmonic import HarmonicPredictor, Windows
from nuebar.predict.store import load_harmonic, save_harmonic

NOMINAL = dict(sin2_th12=0.307, sin2_th13=0.0218, dm2_21_eV2=7.53e-5, dm2_31_eV2=2.5283e-3)
SIGNIFICANT = 1e-4  # of the largest bin: below it a relative error says nothing


def points(n, *, ordering, seed):
    """Parameters all over the windows (±15σ of PDG 2022), mixing angles anywhere, corners included."""
    rng = np.random.default_rng(seed)
    w = Windows.around_pdg(15.0)
    box = w.normal() if ordering == "normal" else w.inverted()
    out = []
    for k in range(n):
        corner = k < 4
        d21 = w.solar[k % 2] if corner else rng.uniform(*w.solar)
        d31 = box[k // 2 % 2] if corner else rng.uniform(*box)
        out.append(
            dict(
                sin2_th12=rng.uniform(0.01, 0.99),
                sin2_th13=rng.uniform(0.0, 0.25),
                dm2_21_eV2=float(d21),
                dm2_31_eV2=float(d31),
            )
        )
    return out


def worst(ours, exact):
    exact = np.asarray(exact)
    keep = exact > SIGNIFICANT * exact.max()
    return np.abs(np.asarray(ours) / exact - 1)[keep].max()


def test_windows_in_numbers():
    """±15σ of PDG 2022, written out: dm2_21 7.53(18)e-5, dm2_32 2.437(33)e-3 or -2.519(33)e-3."""
    w = Windows.around_pdg(15.0)
    assert w.solar == pytest.approx((4.83e-5, 10.23e-5))
    assert w.normal()[0] <= 2.0173e-3 + 1e-9
    assert w.normal()[1] >= 3.0073e-3 - 1e-9
    assert w.inverted()[0] <= -2.9387e-3 + 1e-9
    assert w.inverted()[1] >= -1.9487e-3 - 1e-9


@pytest.mark.parametrize("ordering", ["normal", "inverted"])
def test_vacuum_is_exact(juno_inputs, juno_matrix, ordering):
    harmonic = HarmonicPredictor.build(juno_inputs, matter=False)
    for p in points(15, ordering=ordering, seed=1):
        assert worst(harmonic.predict(p), juno_matrix.predict(p)) < 1e-9


@pytest.mark.parametrize("ordering", ["normal", "inverted"])
@pytest.mark.parametrize("density", [0.0, 2.45, 4.0])  # what is left out grows with the square of the density
def test_matter(juno_harmonic, juno_matrix, ordering, density):
    for p in points(10, ordering=ordering, seed=2):
        q = p | {"matter_density_g_cm3": density}
        assert worst(juno_harmonic.predict(q), juno_matrix.predict(q)) < 1e-6


def test_cores_add_up_and_agree(juno_harmonic, juno_matrix):
    """Each core against direct integration: they only carry pulls of a percent, so 1e-3 is enough."""
    p = physics_vector(NOMINAL | {"matter_density_g_cm3": 2.45})
    ours, exact = juno_harmonic.channels(p), juno_matrix.channels(p)
    np.testing.assert_allclose(exact[0], jnp.sum(exact[1:], axis=0), rtol=1e-12)
    for k in range(1, exact.shape[0]):
        assert worst(ours[k], exact[k]) < 1e-3
    assert worst(jnp.sum(ours[1:], axis=0), ours[0]) < 1e-3


def test_no_oscillation_leaves_the_flux(juno_harmonic):
    p = dict(sin2_th12=0.0, sin2_th13=0.0, dm2_21_eV2=7.5e-5, dm2_31_eV2=2.5e-3)
    np.testing.assert_allclose(juno_harmonic.predict(p), juno_harmonic.unoscillated(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("density", [pytest.param(0.0, marks=pytest.mark.slow), 2.45])
def test_derivatives(juno_harmonic, juno_matrix, density):
    """First derivatives against finite differences, second ones against the direct integration."""
    p = physics_vector(NOMINAL | {"matter_density_g_cm3": density + 0.2})
    scale = jnp.array([1e-4, 1e-4, 1e-8, 1e-7, 1e-3])
    ours = jax.jacfwd(lambda x: juno_harmonic.channels(x)[0])(p) * scale
    for k in range(5):
        step = jnp.zeros(5).at[k].set(scale[k])
        numeric = (juno_harmonic.channels(p + step)[0] - juno_harmonic.channels(p - step)[0]) / 2
        np.testing.assert_allclose(ours[:, k], numeric, atol=2e-5 * np.abs(numeric).max())
    hessian, exact = (second(predictor, p, scale) for predictor in (juno_harmonic, juno_matrix))
    np.testing.assert_allclose(hessian, exact, atol=1e-4 * np.abs(exact).max())


def second(predictor, p, scale):
    """Second derivatives of a function of the counts, in steps of ``scale``: differences of first ones.

    As a fit takes them (differentiating twice compiles for a minute).
    """
    slope = jax.jit(jax.jacfwd(lambda x: jnp.sum(jnp.sqrt(predictor.channels(x)[0][20:400]))))
    steps = np.diag(scale)
    return np.array([(slope(p + d) - slope(p - d)) / 2 for d in steps]) * np.asarray(scale)


def test_smaller_windows_need_fewer_terms(juno_inputs):
    sizes = [
        HarmonicPredictor.build(juno_inputs, windows=Windows.around_pdg(s), matter=False).nbytes for s in (3, 5, 15)
    ]
    assert sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize(
    ("name", "value"), [("dm2_21_eV2", 3e-5), ("dm2_21_eV2", 1.1e-4), ("dm2_31_eV2", 3.2e-3), ("dm2_31_eV2", -1.5e-3)]
)
def test_outside_the_box_is_refused(juno_harmonic, name, value):
    with pytest.raises(NuebarError, match=rf"{name}.*outside the box"):
        juno_harmonic.predict(NOMINAL | {name: value})


def test_saved_and_loaded_is_the_same(juno_harmonic, tmp_path):
    save_harmonic(juno_harmonic, tmp_path / "model")
    again = load_harmonic(tmp_path / "model")
    p = NOMINAL | {"matter_density_g_cm3": 2.45}
    np.testing.assert_array_equal(again.predict(p), juno_harmonic.predict(p))
    assert dict(again.provenance) == dict(juno_harmonic.provenance)


def test_tampered_model_is_refused(juno_harmonic, tmp_path):
    weights, _ = save_harmonic(juno_harmonic, tmp_path / "model")
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(NuebarError, match="truncated"):
        load_harmonic(tmp_path / "model")
    with pytest.raises(NuebarError, match=r"model\.json"):
        load_harmonic(tmp_path / "nothing")
