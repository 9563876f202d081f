"""Cascades at any response, and the surrogate that learns from them: laws, and closeness to the reference."""

import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.parameters import OSCILLATION
from nuebar.physics import oscillation
from nuebar.predict.cascades import Cascades
from nuebar.predict.evaluator import evaluate, load
from nuebar.predict.export import export_predictor
from nuebar.predict.harmonic import HarmonicPredictor, Windows
from nuebar.predict.response import RESPONSE, ResponsePoint
from nuebar.predict.surrogate import BOX, build_surrogate
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.ibd import ibd_cascades, ibd_events
from nuebar.simulate.ibd_kinematics import IbdSpectrum
from nuebar.simulate.random import derive_key

EDGES = np.linspace(1.0, 7.0, 61)
NOMINAL = ResponsePoint(12.05, 0.517, 9846.0)
TRUTH = dict(zip(OSCILLATION, (0.307, 0.022, 7.53e-5, 2.5123e-3), strict=True))
COUNTS = 1e5
PAIRS = 60_000


@pytest.fixture(scope="module")
def spectrum(juno_inputs):
    e = np.linspace(1.81, 10.0, 800)
    order = np.argsort(juno_inputs.e_nu_MeV)
    width = np.gradient(juno_inputs.e_nu_MeV[order])
    rows = [np.interp(e, juno_inputs.e_nu_MeV[order], row[order] / width) for row in juno_inputs.events[[0, 2, 8]]]
    return IbdSpectrum(e, np.array(rows), juno_inputs.baseline_km[[0, 2, 8]])


@pytest.fixture(scope="module")
def pool(juno, spectrum):
    return ibd_cascades(spectrum, DetectorModel.build(juno), PAIRS, derive_key(3, "surrogate"))


@pytest.fixture(scope="module")
def cascades(juno, pool):
    return Cascades.of([pool], juno).normalised(COUNTS)


@pytest.fixture(scope="module")
def surrogate(cascades):
    return build_surrogate(cascades, EDGES, nominal=NOMINAL, windows=Windows.around_pdg(3), matter=False)


def reference(cascades, point, values=None, edges=EDGES):
    folded = cascades.folded(point, edges)
    if values is None:
        return folded.table.sum(axis=(0, 2))
    return sum(
        folded.table[c] @ np.asarray(oscillation.vacuum(folded.e_nu_MeV, b, **values))
        for c, b in enumerate(folded.baseline_km)
    )


# ---------------------------------------------------------------- the reference


def test_smearing_keeps_every_event(cascades):
    wide = np.array([0.01, 1.0, 3.0, 20.0])
    counts = reference(cascades, replace(NOMINAL, smear_a=0.02, smear_b=0.01), edges=wide)
    assert counts.sum() == pytest.approx(COUNTS, rel=1e-6)


def test_a_scale_is_a_change_of_the_edges(cascades):
    moved = reference(cascades, replace(NOMINAL, energy_scale=0.01))
    np.testing.assert_allclose(moved, reference(cascades, NOMINAL, edges=EDGES / 1.01), rtol=1e-9)


def test_the_light_yield_moves_no_mean_energy(cascades):
    # The design's law: E_rec is anchored, so one percent of light yield moves it by less than 0.05 %.
    mean = [cascades.smeared(replace(NOMINAL, light_yield_per_MeV=9846.0 * f)).mean_MeV.mean() for f in (1.0, 1.01)]
    assert abs(mean[1] / mean[0] - 1) < 5e-4
    sigma = [cascades.smeared(replace(NOMINAL, light_yield_per_MeV=9846.0 * f)).sigma_MeV.mean() for f in (1.0, 1.01)]
    assert sigma[1] / sigma[0] - 1 == pytest.approx(-0.005, abs=1e-3)


def test_extra_smearing_adds_in_squares(cascades):
    plain, wide = (
        cascades.smeared(NOMINAL),
        cascades.smeared(replace(NOMINAL, smear_a=0.01, smear_b=0.02, smear_c=0.03)),
    )
    e = plain.mean_MeV
    np.testing.assert_allclose(wide.sigma_MeV**2, plain.sigma_MeV**2 + 1e-4 * e + 4e-4 * e**2 + 9e-4, rtol=1e-9)


def test_sampling_gives_the_analytic_spectrum(juno, pool, cascades):
    # The same cascades, charges drawn: what is left is noise of n events in bins (and of few vertices at the border).
    seen = ibd_events(pool, DetectorModel.build(juno), derive_key(8, "charges"))
    radius = np.sqrt(sum(seen[f"prompt_{a}_m"] ** 2 for a in "xyz"))
    drawn = np.histogram(seen["prompt_e_rec_MeV"][radius < 17.2], EDGES)[0]
    expected = reference(cascades, NOMINAL) * len(cascades) / COUNTS
    assert np.sum((drawn - expected) ** 2 / expected) / drawn.size < 1.35
    assert drawn.sum() == pytest.approx(expected.sum(), rel=2e-3)


def test_an_independent_pool_differs_by_its_own_noise(juno, spectrum, cascades):
    other = ibd_cascades(spectrum, DetectorModel.build(juno), PAIRS, derive_key(4, "surrogate"))
    second = Cascades.of([other], juno).normalised(COUNTS)
    point = ResponsePoint(18.0, 0.3, 9500.0)
    difference = reference(cascades, point) - reference(second, point)
    covariance = cascades.covariance(point, EDGES) + second.covariance(point, EDGES)
    chi2 = difference @ np.linalg.solve(covariance, difference) / difference.size
    assert 0.6 < chi2 < 1.5  # 60 bins: 1 ± 0.18


def test_covariance_of_bins_together_is_that_of_counted_events(cascades):
    # Where all events land in one bin, the variance is that of a Poisson number.
    covariance = cascades.covariance(NOMINAL, np.array([0.1, 15.0]))
    assert covariance[0, 0] == pytest.approx(COUNTS**2 / len(cascades), rel=1e-3)


@pytest.mark.parametrize(
    "changes", [{"smear_a": -0.1}, {"smear_c": np.nan}, {"energy_scale": 0.9}, {"kB_g_cm2_GeV": 0.01}], ids=str
)
def test_impossible_responses_are_refused(cascades, changes):
    with pytest.raises(NuebarError, match=next(iter(changes))):
        cascades.smeared(replace(NOMINAL, **changes))


# ---------------------------------------------------------------- the surrogate


INSIDE = [
    NOMINAL,
    ResponsePoint(15.0, 0.5, 10000.0),
    ResponsePoint(11.0, 0.7, 9300.0, 0.01, 0.004, 0.003, 0.008),
    ResponsePoint(18.5, 0.3, 10700.0, 0.0, 0.0, 0.0, -0.012),
]


@pytest.mark.parametrize("point", INSIDE, ids=["nominal", "middle", "smeared", "far"])
def test_close_to_the_reference(surrogate, cascades, point):
    # 55 k events only: what the regression smooths over goes down with their number (docs/results for ten million).
    got = np.asarray(surrogate.predict({**TRUTH, **vars(point)}))
    expected = reference(cascades, point, TRUTH)
    np.testing.assert_allclose(got, expected, rtol=1e-3)
    assert np.sum((got - expected) ** 2 / expected) < 2e-3


def test_without_oscillations_at_its_own_reference(surrogate, cascades):
    middle = ResponsePoint(*(0.5 * sum(BOX[n]) for n in RESPONSE[:3]))
    got = np.asarray(surrogate.predict({**TRUTH, "sin2_th12": 0.0, "sin2_th13": 0.0, **vars(middle)}))
    np.testing.assert_allclose(got, reference(cascades, middle), rtol=1e-4)


def test_left_out_response_parameters_are_nominal(surrogate):
    np.testing.assert_array_equal(surrogate.predict(TRUTH), surrogate.predict({**TRUTH, **vars(NOMINAL)}))


def test_derivatives_are_those_of_differences(surrogate):
    x = np.asarray(surrogate.vector({**TRUTH, "smear_a": 0.01, "smear_b": 0.005, "smear_c": 0.005}))
    value = jax.jit(lambda q: surrogate.channels(q)[0])
    exact = np.asarray(jax.jit(jax.jacfwd(value))(jnp.asarray(x)))
    steps = np.array([1e-3, 1e-4, 1e-7, 4e-7, 0.1, 0.02, 300.0, 1e-3, 1e-3, 1e-3, 1e-4])
    for k, h in enumerate(steps):
        up, down = x.copy(), x.copy()
        up[k], down[k] = x[k] + h, x[k] - h
        difference = (np.asarray(value(up)) - np.asarray(value(down))) / (2 * h)
        np.testing.assert_allclose(exact[:, k], difference, atol=5e-3 * np.abs(exact[:, k]).max())


def test_one_response_as_a_harmonic_predictor(surrogate):
    point = INSIDE[2]
    fixed = surrogate.at_response(point)
    assert isinstance(fixed, HarmonicPredictor)
    np.testing.assert_allclose(fixed.predict(TRUTH), surrogate.predict({**TRUTH, **vars(point)}), rtol=3e-5)


def test_its_monte_carlo_error_is_that_of_the_events(surrogate, cascades):
    got = surrogate.mc_covariance({**TRUTH, "sin2_th12": 0.0, "sin2_th13": 0.0})
    expected = cascades.covariance(NOMINAL, EDGES)
    np.testing.assert_allclose(np.sqrt(np.diag(got)), np.sqrt(np.diag(expected)), rtol=0.1)
    # All bins together: the error of a whole, which neighbours share.
    assert got.sum() == pytest.approx(expected.sum(), rel=0.02)


@pytest.mark.parametrize(
    ("name", "value"),
    [("kB_g_cm2_GeV", 25.0), ("fC", 0.0), ("smear_a", 0.05), ("energy_scale", 0.1), ("dm2_31_eV2", 3.5e-3)],
)
def test_outside_of_the_box_it_refuses_by_name(surrogate, name, value):
    with pytest.raises(NuebarError, match=rf"{name}.*outside the box.*surrogate|{name}.*outside the box"):
        surrogate.predict({**TRUTH, name: value})


def test_a_density_is_not_ignored(surrogate):
    with pytest.raises(NuebarError, match="unknown parameter 'matter_density_g_cm3'"):
        surrogate.predict({**TRUTH, "matter_density_g_cm3": 2.6})


def test_an_empty_bin_is_refused(cascades):
    with pytest.raises(NuebarError, match="gets no events"):
        build_surrogate(cascades, np.linspace(1.0, 14.0, 131), nominal=NOMINAL, windows=Windows.around_pdg(1))


def test_exported_it_predicts_with_numpy_alone(surrogate, tmp_path):
    file, evaluator = export_predictor(surrogate, tmp_path / "surrogate.npz")
    done = subprocess.run([sys.executable, "-I", evaluator, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(evaluator.read_text().splitlines()) <= 60
    meta, arrays = load(str(file))
    for point in INSIDE:
        got = evaluate(meta, arrays, {**TRUTH, **vars(point)})
        np.testing.assert_allclose(got, surrogate.predict({**TRUTH, **vars(point)}), rtol=2e-5)
