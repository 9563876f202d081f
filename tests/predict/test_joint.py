"""Several detectors as one model: their spectra side by side, what they share, and the numbers of TAO."""

import dataclasses
import re

import jax.numpy as jnp
import numpy as np
import pytest

from nuebar.config import EXPERIMENTS, load_experiment, override
from nuebar.errors import NuebarError
from nuebar.parameters import OSCILLATION
from nuebar.predict.joint import free_spectrum, joint_model, spectrum_nodes, without_tilts
from nuebar.predict.matrix import MatrixPredictor
from nuebar.predict.signal import signal_inputs
from nuebar.predict.spectrum import build_model

NODES = (1.8, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 9.0)
MOVED = {
    "norm_flux": 0.01,
    "norm_efficiency": -0.004,
    "norm_efficiency_tao": 0.007,
    "core_TS1": 0.01,
    "core_TS2": -0.02,
    "core_DYB": 0.03,
    "nonlinearity_1": 0.6,
    "nonlinearity_3": -0.4,
    "energy_scale_tao": 0.002,
    "resolution_a": 0.05,
    "resolution_b_tao": -0.05,
    "fission_fraction_U235": 0.03,
    "fission_fraction_U235_tao": -0.02,
    "spent_fuel": 0.2,
    "bkg_geoneutrinos": 0.1,
    "bkg_fast_neutrons_tao": -0.1,
    "sin2_th12": 0.30,
    "dm2_31_eV2": 2.5e-3,
}


def coarse(name, cores):
    e = load_experiment(name)
    e = dataclasses.replace(
        e,
        reactor=dataclasses.replace(e.reactor, cores=tuple(c for c in e.reactor.cores if c.name in cores)),
        backgrounds=e.backgrounds[:2],
    )
    return override(e, {"binning.segments": ((0.9, 7.3, 64), (7.3, 9.3, 4)), "binning.fine_width_MeV": 0.05})


@pytest.fixture(scope="module")
def detectors():
    both = coarse("juno", ("TS1", "TS2", "DYB")), coarse("tao", ("TS1", "TS2"))
    return [free_spectrum(e, nodes_MeV=NODES, sigma=0.3) for e in both]


@pytest.fixture(scope="module")
def joint(detectors):
    return joint_model(detectors)


@pytest.fixture(scope="module")
def alone(detectors):
    """Each detector's own model from its response matrix, made without the joint one."""
    return [build_model(e, predictor="matrix") for e in detectors]


def own_values(model, k, values):
    _, names = model.detector(k)
    return {own: values[n] for own, n in zip(model.parts[k].names, names, strict=True)}


@pytest.mark.parametrize("moved", [{}, MOVED])
def test_the_joint_counts_are_those_of_each_detector_side_by_side(joint, alone, moved):
    model, parameters = joint
    values = parameters.nominal() | moved
    mu, variance = model(model.vector(values))
    for k, (single, _) in enumerate(alone):
        expected, more = single(single.vector(own_values(model, k, values)))
        np.testing.assert_allclose(model.split(mu)[k], expected, rtol=1e-6)
        np.testing.assert_allclose(model.split(variance)[k], more, rtol=1e-6)
    assert len(mu) == len(model.edges_MeV) - 1
    assert np.all(np.diff(model.edges_MeV) > 0)


def test_components_add_up_and_keep_their_detector(joint):
    model, parameters = joint
    values = parameters.nominal() | MOVED
    parts = model.components(values)
    np.testing.assert_allclose(sum(parts.values()), model(model.vector(values))[0], rtol=1e-12)
    assert not model.split(parts["accidentals_tao"])[0].any()
    assert not model.split(parts["geoneutrinos"])[1].any()
    assert model.split(model.unoscillated())[0].sum() > 2 * model.split(parts["signal"])[0].sum()


@pytest.mark.parametrize("node", [3, 5])
def test_a_node_moves_both_detectors_as_a_spectrum_that_is_folded_again(joint, detectors, node):
    model, parameters = joint
    values = parameters.nominal()
    before, after = (model.split(model(model.vector(values | {f"segment_{node}": a}))[0]) for a in (0.0, 0.1))
    for k, experiment in enumerate(detectors):
        arrays = signal_inputs(experiment)
        hat = np.interp(arrays.e_nu_MeV, NODES, np.eye(len(NODES))[node - 1])
        changed = dataclasses.replace(arrays, events=arrays.events * (1.0 + 0.1 * hat))
        p = jnp.array([*(values[n] for n in OSCILLATION), values["matter_density_g_cm3"]])
        plain, bumped = (MatrixPredictor.build(a).channels(p)[0] for a in (arrays, changed))
        part = model.parts[k]
        difference = np.asarray(part.stencil.rebin(bumped - plain))
        assert difference.max() > 0.02 * before[k].max()
        np.testing.assert_allclose(after[k] - before[k], difference, atol=1e-6 * before[k].max())


@pytest.mark.parametrize(
    ("name", "touched"),
    [
        ("core_TS1", (True, True)),
        ("norm_flux", (True, True)),
        ("nonlinearity_2", (True, True)),
        ("sin2_th13", (True, True)),
        ("spent_fuel", (True, True)),
        ("core_DYB", (True, False)),
        ("fission_fraction_Pu239", (True, False)),
        ("fission_fraction_Pu239_tao", (False, True)),
        ("energy_scale_tao", (False, True)),
        ("norm_efficiency_tao", (False, True)),
        ("resolution_a_tao", (False, True)),
        ("bkg_accidentals_tao", (False, True)),
    ],
)
def test_what_is_shared_and_what_is_not(joint, name, touched):
    model, parameters = joint
    values = parameters.nominal()
    at, beside = (model(model.vector(values | {name: values[name] + d}))[0] for d in (0.0, 1e-3))
    assert tuple(bool(np.abs(d).max() > 0) for d in model.split(beside - at)) == touched


def test_one_power_moves_a_core_in_both_detectors_in_proportion(joint):
    model, parameters = joint
    values = {n: v for n, v in parameters.nominal().items()}
    moved = values | {f"core_{c}": 0.01 for c in ("TS1", "TS2", "DYB")}
    signals = [model.components(v)["signal"] for v in (values, moved)]
    np.testing.assert_allclose(signals[1], 1.01 * signals[0], rtol=1e-5)


def test_own_unshares_and_dropping_nodes_changes_no_nominal_count(detectors, joint):
    model, parameters = joint
    slim = without_tilts(model, [f"segment_{k + 1}" for k in range(len(NODES))])
    assert len(slim.names) == len(model.names) - len(NODES)
    x = [v for n, v in parameters.nominal().items() if n in slim.names]
    np.testing.assert_allclose(slim(np.array(x))[0], model(model.vector(parameters.nominal()))[0], rtol=1e-12)
    _, apart = joint_model(detectors, own=("nonlinearity_",))
    assert "nonlinearity_1_tao" in apart
    assert "nonlinearity_1_tao" not in parameters


def test_it_refuses_what_does_not_go_together(detectors):
    juno, tao = detectors
    with pytest.raises(NuebarError, match="different names"):
        joint_model([juno, juno])
    with pytest.raises(NuebarError, match=r"8 nodes of a free spectrum and juno|tao has 9 nodes"):
        joint_model([juno, free_spectrum(tao, nodes_MeV=(*NODES, 9.5))])
    with pytest.raises(NuebarError, match="spacing"):
        spectrum_nodes(0.0)


@pytest.mark.parametrize("spacing", [0.025, 0.05, 0.1, 0.5])
def test_nodes_increase_and_reach_both_ends(spacing):
    nodes = np.array(spectrum_nodes(spacing))
    assert (nodes[0], nodes[-1]) == (1.8, 9.0)
    assert np.all(np.diff(nodes) > 0.4 * spacing)
    assert np.diff(nodes)[nodes[1:] < 7.9].max() == pytest.approx(spacing)


def test_tao_sees_about_a_thousand_antineutrinos_a_day():
    tao = load_experiment("tao")
    events = signal_inputs(tao).events
    per_day = events.sum() / tao.exposure.days / tao.reactor.duty_cycle
    assert per_day == pytest.approx(1000.0, rel=0.12)  # "about 1000": L. Zhan, Neutrino 2024
    assert events[1].sum() / events.sum() == pytest.approx((44 / 217) ** 2 / (1 + (44 / 217) ** 2), rel=1e-3)
    a, b, c = tao.response.resolution
    assert np.sqrt(a**2 + b**2 + c**2) < 0.02  # at 1 MeV: the same abstract
    assert np.sqrt(a**2 / 4 + b**2 + c**2 / 16) < 0.01  # sub-percent above: arXiv:2005.08745, abstract


def test_every_number_of_tao_has_a_source():
    lines, known = ((EXPERIMENTS / f"{n}.toml").read_text(encoding="utf-8").splitlines() for n in ("tao", "juno"))
    header = ""
    for line in lines:
        header = line if line.startswith("[") else header
        number = re.search(r"=\s*[\[{]?\s*[-.\d]|^\s+\[\d", line)
        sourced = "#" in line or "#" in header or line in known or line.startswith("format")
        assert not number or sourced, line
