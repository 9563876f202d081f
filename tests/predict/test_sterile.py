"""The spectrum with a sterile state: three flavours without mixing, exact averages, gradients, what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import spherical_jn

import nuebar.predict.signal as signal_module
from nuebar.config import experiment_from_mapping, load_experiment, override
from nuebar.errors import NuebarError
from nuebar.predict.matrix import MatrixPredictor
from nuebar.predict.signal import signal_inputs
from nuebar.predict.spectrum import build_model
from nuebar.predict.sterile import SterilePredictor, _bessel, with_sterile
from nuebar.records import to_mapping

POINT = dict(sin2_th12=0.307, sin2_th13=0.0218, dm2_21_eV2=7.53e-5, dm2_31_eV2=2.5283e-3, matter_density_g_cm3=2.45)
INNER = slice(14, -14)  # fine bins of the analysis


@pytest.fixture(scope="module")
def experiment():
    e = load_experiment("juno")
    cores = (e.reactor.cores[0], e.reactor.cores[-1])
    e = dataclasses.replace(e, reactor=dataclasses.replace(e.reactor, cores=cores), backgrounds=e.backgrounds[:1])
    return override(e, {"binning.segments": ((1.0, 7.0, 120),), "binning.fine_width_MeV": 0.05})


@pytest.fixture(scope="module")
def inputs(experiment):
    return signal_inputs(experiment)


@pytest.fixture(scope="module")
def predictor(inputs):
    return SterilePredictor.build(inputs)


@pytest.fixture(scope="module")
def matrix(inputs):
    return MatrixPredictor.build(inputs)


@pytest.fixture(scope="module")
def fine(experiment):
    """Cells of a twelfth of the width."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal_module, "CELL_MeV", signal_module.CELL_MeV / 12)
        patch.setattr(signal_module, "GRADED_CELLS", signal_module.GRADED_CELLS * 12)
        return SterilePredictor.build(signal_inputs(experiment))


@pytest.mark.parametrize("dm2", [1e-6, 1e-3, 1.0])
def test_without_mixing_it_is_the_matrix(predictor, matrix, dm2):
    three = matrix.predict(POINT)
    np.testing.assert_allclose(
        predictor.predict({**POINT, "sin2_th14": 0.0, "dm2_41_eV2": dm2}), three, rtol=1e-14, atol=0
    )
    np.testing.assert_allclose(predictor.predict(POINT), three, rtol=1e-14, atol=0)
    vacuum = {n: v for n, v in POINT.items() if n != "matter_density_g_cm3"}
    np.testing.assert_allclose(predictor.predict(vacuum), matrix.predict(vacuum), rtol=1e-14, atol=0)


@pytest.mark.parametrize("dm2", [1e-5, 3e-4, 2.5e-3, 1e-2, 3e-2, 0.1, 1.0])
def test_waves_faster_than_the_grid_are_averaged(predictor, fine, dm2):
    p = {**POINT, "sin2_th14": 0.05, "dm2_41_eV2": dm2}
    # Relative to three flavours: what the grid does near threshold (2e-4 of 150 events) is not the question here.
    ours, exact = ((np.asarray(q.predict(p)) / np.asarray(q.predict(POINT)))[INNER] for q in (predictor, fine))
    np.testing.assert_allclose(ours, exact, rtol=1e-4)


def test_nodes_alone_would_not_average(predictor, fine):
    plain = dataclasses.replace(predictor, cell_t=0.0 * predictor.cell_t, cell_slope=0.0 * predictor.cell_slope)
    p = {**POINT, "sin2_th14": 0.05, "dm2_41_eV2": 0.1}
    ours, exact = ((np.asarray(q.predict(p)) / np.asarray(q.predict(POINT)))[INNER] for q in (plain, fine))
    assert np.abs(ours / exact - 1).max() > 3e-3


def test_far_beyond_the_resolution_only_the_mean_is_left(predictor, matrix):
    s14 = 0.05
    p = {**POINT, "sin2_th14": s14, "dm2_41_eV2": 0.5}
    seen = {**POINT, "matter_density_g_cm3": 2.45 * (1 - 0.5 * s14)}
    mean = (1 - s14) ** 2 * np.asarray(matrix.predict(seen)) + s14**2 * np.asarray(matrix.unoscillated())
    np.testing.assert_allclose(np.asarray(predictor.predict(p))[INNER], mean[INNER], rtol=1e-4)


def test_like_the_second_state_in_vacuum_it_is_three_flavours(predictor, matrix):
    s12, s13, s14 = 0.307, 0.0218, 0.05
    vacuum = {n: v for n, v in POINT.items() if n != "matter_density_g_cm3"}
    w2, w3 = (1 - s14) * (1 - s13) * s12 + s14, (1 - s14) * s13
    angles = {"sin2_th12": w2 / (1 - w3), "sin2_th13": w3}
    ours = predictor.predict({**vacuum, "sin2_th14": s14, "dm2_41_eV2": vacuum["dm2_21_eV2"]})
    np.testing.assert_allclose(ours[INNER], matrix.predict({**vacuum, **angles})[INNER], rtol=1e-4)


def test_channels_add_up_and_have_the_right_slopes(predictor):
    p = jnp.array([*POINT.values(), 0.03, 4e-4])
    channels = np.asarray(predictor.channels(p))
    np.testing.assert_allclose(channels[0], channels[1:].sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(channels[0], predictor.predict(dict(zip(predictor.parameter_names, p, strict=True))))
    weights = np.linspace(-1.0, 1.0, channels.shape[1])
    total = jax.jit(lambda q: jnp.sum(predictor.channels(q)[0] * weights))
    slope = jax.jit(jax.grad(total))(p)
    for k in range(p.size):
        step = 1e-5 * p[k]
        numeric = (total(p.at[k].add(step)) - total(p.at[k].add(-step))) / (2 * step)
        assert float(slope[k]) == pytest.approx(float(numeric), rel=1e-4), predictor.parameter_names[k]


@pytest.mark.parametrize("order", [0, 1, 2])
def test_bessel_functions(order):
    x = np.linspace(-40.0, 40.0, 4001)
    expected = spherical_jn(order, np.abs(x)) * np.where(x < 0, (-1.0) ** order, 1.0)
    np.testing.assert_allclose(_bessel(jnp.asarray(x))[order], expected, atol=5e-15)
    at = np.array([0.0, 0.3, 0.999, 1.001, 7.0])
    slope = jax.jit(jax.vmap(jax.grad(lambda y: _bessel(y)[order])))(at)
    np.testing.assert_allclose(slope, spherical_jn(order, at, derivative=True), atol=1e-13)


def test_a_model_with_a_sterile_state_has_two_parameters_more(experiment):
    model, parameters = build_model(experiment, sterile=True)
    plain, three = build_model(experiment, predictor="matrix")
    assert set(parameters) - set(three) == {"sin2_th14", "dm2_41_eV2"}
    assert parameters["sin2_th14"].fixed
    assert parameters["dm2_41_eV2"].fixed
    expected, _ = model(model.vector(parameters.nominal()))
    same, _ = plain(plain.vector(three.nominal()))
    np.testing.assert_allclose(expected, same, rtol=1e-13)
    mixed, _ = model(model.vector({**parameters.nominal(), "sin2_th14": 0.02}))
    assert np.abs(mixed / expected - 1).max() > 0.01


def test_the_oscillation_table_may_have_it(experiment):
    record = to_mapping(with_sterile(experiment, sin2_th14=0.01, dm2_41_eV2=2e-3, fixed=False))
    source = record.pop("source")
    read = experiment_from_mapping(record, source=source)
    assert read.sterile
    model, parameters = build_model(read)
    assert model.predictor.name == "sterile"
    assert not parameters["sin2_th14"].fixed
    assert parameters["dm2_41_eV2"].value == 2e-3
    del record["oscillation"]["dm2_41_eV2"]
    with pytest.raises(NuebarError, match="dm2_41_eV2"):
        experiment_from_mapping(record, source=source)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sin2_th14": 0.7, "dm2_41_eV2": 1e-3}, "sin2_th14.*outside the box"),
        ({"sin2_th14": 0.1, "dm2_41_eV2": 2.0}, "dm2_41_eV2.*outside the box"),
        ({"sin2_th14": 0.1}, "missing parameter 'dm2_41_eV2'"),
        ({"sin2_th15": 0.1}, "unknown parameter 'sin2_th15'"),
    ],
)
def test_what_it_refuses(predictor, changes, words):
    with pytest.raises(NuebarError, match=words):
        predictor.predict({**POINT, **changes})


def test_other_predictors_and_numbers_are_refused(experiment):
    with pytest.raises(NuebarError, match="leave pairs and other predictors out"):
        build_model(experiment, predictor="surrogate", sterile=True)
    with pytest.raises(NuebarError, match=r"sin2_th14: expected a number from 0 to 0\.5"):
        with_sterile(experiment, sin2_th14=0.6)
