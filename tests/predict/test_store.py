"""Predictors as folders: what comes back, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.io.models import load_model, model_digest, save_model
from nuebar.parameters import OSCILLATION
from nuebar.predict import store
from nuebar.predict.build import with_mc
from nuebar.predict.cascades import Cascades
from nuebar.predict.harmonic import HarmonicPredictor, Windows
from nuebar.predict.matrix import MatrixPredictor
from nuebar.predict.response import ResponsePoint
from nuebar.predict.signal import signal_inputs
from nuebar.predict.store import load_predictor, predictor_folder, save_predictor
from nuebar.predict.surrogate import build_surrogate
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.ibd import ibd_cascades
from nuebar.simulate.ibd_kinematics import IbdSpectrum
from nuebar.simulate.random import derive_key

EDGES = np.linspace(1.0, 7.0, 31)
TRUTH = dict(zip(OSCILLATION, (0.307, 0.022, 7.53e-5, 2.5123e-3), strict=True))
MATTER = {"matter_density_g_cm3": 2.45}


@pytest.fixture(scope="module")
def arrays(juno):
    cores = (juno.reactor.cores[0], juno.reactor.cores[3])
    few = dataclasses.replace(juno, reactor=dataclasses.replace(juno.reactor, cores=cores))
    return signal_inputs(few, edges=EDGES)


@pytest.fixture(scope="module")
def harmonic(arrays):
    built = HarmonicPredictor.build(arrays, windows=Windows.around_pdg(3), cores=True)
    return with_mc(built, np.full(EDGES.size - 1, 1e-5))


@pytest.fixture(scope="module")
def matrix(arrays):
    return with_mc(MatrixPredictor.build(arrays), 1e-5 * np.eye(EDGES.size - 1))


@pytest.fixture(scope="module")
def surrogate(juno, juno_inputs):
    e = np.linspace(1.81, 10.0, 800)
    width = np.gradient(juno_inputs.e_nu_MeV)
    rows = [np.interp(e, juno_inputs.e_nu_MeV, row / width) for row in juno_inputs.events[[0, 8]]]
    spectrum = IbdSpectrum(e, np.array(rows), juno_inputs.baseline_km[[0, 8]])
    pool = ibd_cascades(spectrum, DetectorModel.build(juno), 30_000, derive_key(5, "store"))
    cascades = Cascades.of([pool], juno).normalised(1e5)
    return build_surrogate(cascades, EDGES, nominal=ResponsePoint(12.05, 0.517, 9846.0), windows=Windows.around_pdg(3))


@pytest.mark.parametrize("kind", ["harmonic", "matrix"])
def test_tables_come_back_as_they_were(kind, request, tmp_path):
    predictor = request.getfixturevalue(kind)
    save_predictor(predictor, tmp_path)
    again = load_predictor(tmp_path)
    assert again.name == kind
    assert dict(again.provenance) == dict(predictor.provenance)
    assert again.core_names == predictor.core_names
    for values in (TRUTH, TRUTH | MATTER):
        np.testing.assert_array_equal(again.predict(values), predictor.predict(values))
    np.testing.assert_array_equal(again.mc_covariance(TRUTH), predictor.mc_covariance(TRUTH))


def test_a_surrogate_comes_back_to_rounding_and_then_to_the_bit(surrogate, tmp_path):
    """Single precision: 1e-5 of the largest bin is a few roundings of sums of 1e5 events."""
    files = save_predictor(surrogate, tmp_path / "a")
    again = load_predictor(tmp_path / "a")
    save_predictor(again, tmp_path / "b")
    third = load_predictor(tmp_path / "b")
    assert sum(f.stat().st_size for f in files) < 2e6
    assert again.parameter_names == surrogate.parameter_names
    assert again.box == surrogate.box
    assert again.nominal() == surrogate.nominal()
    for values in (TRUTH, TRUTH | MATTER, TRUTH | {"kB_g_cm2_GeV": 14.0, "fC": 0.3, "smear_a": 0.01}):
        first = np.asarray(surrogate.predict(values))
        np.testing.assert_allclose(again.predict(values), first, rtol=1e-4, atol=1e-5 * first.max())
        np.testing.assert_array_equal(third.predict(values), again.predict(values))


def altered(**changes):
    def alter(folder):
        path = folder / "model.json"
        told = json.loads(path.read_text()) | changes
        # Signed again: these are descriptions that are wrong, not spoilt on the way.
        told["digest"] = model_digest((folder / "weights.safetensors").read_bytes(), told)
        path.write_text(json.dumps(told))

    return alter


def retold(folder):
    path = folder / "model.json"
    told = json.loads(path.read_text())
    told["windows_eV2"]["solar"][1] *= 2.0  # a wider box than the series cover
    path.write_text(json.dumps(told))


def flipped(folder):
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1  # the last bits of one number
    path.write_bytes(content)


def cut(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def fewer_bins(folder):
    arrays, description = load_model(folder)
    save_model(folder, arrays | {"edges_MeV": arrays["edges_MeV"][:-1]}, description)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (altered(format=2), "expected format 1, got 2"),
        (altered(kind="oracle"), "expected a predictor of kind .* got 'oracle'"),
        (altered(kind="matrix"), "incomplete|arrays"),
        (altered(series={}), "incomplete"),
        (flipped, "altered"),
        (retold, "altered"),
        (cut, "truncated"),
        (fewer_bins, r"to_bins: expected floating-point numbers of shape \(8, 29\), got float64 of shape \(8, 30\)"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "weights"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_sentence(harmonic, tmp_path, spoil, words):
    save_predictor(harmonic, tmp_path)
    spoil(tmp_path)
    with pytest.raises(NuebarError, match=words) as caught:
        load_predictor(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["harmonic", "matrix"])
def test_every_array_has_the_shape_that_the_others_ask_for(kind, request, tmp_path):
    save_predictor(request.getfixturevalue(kind), tmp_path)
    arrays, told = load_model(tmp_path)
    told = {name: value for name, value in told.items() if name not in ("arrays", "digest")}
    for name, array in arrays.items():
        for wrong in (array[:-1], array[None], array[..., :0], np.repeat(array, 2, axis=0), array.astype(np.int32)):
            if wrong.shape == array.shape and wrong.dtype == array.dtype:
                continue
            if name.endswith("moment") and wrong.shape[-1] == 0 and "flat" not in name:  # may be left out
                continue
            save_model(tmp_path, arrays | {name: wrong}, told)
            with pytest.raises(NuebarError, match=r"build it again|build the predictor again") as caught:
                load_predictor(tmp_path)
            assert "\n" not in str(caught.value), (name, wrong.shape)
    save_model(tmp_path, arrays, told)
    load_predictor(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"electrons_per_nucleon": 1.5}, "electrons_per_nucleon: expected a number from 0 to 1, got 1.5"),
        ({"core_order": [0, 0]}, "cores: expected names and places of 2"),
        ({"core_names": ["a"]}, "cores: expected names and places of 2, got 1"),
        ({"windows_eV2": {"solar": [1e-5, 9e-5], "atmospheric": [2.4e-3, 2.6e-3]}}, r"total.solar: expected a series"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(harmonic, tmp_path, changes, words):
    save_predictor(harmonic, tmp_path)
    altered(**changes)(tmp_path)
    with pytest.raises(NuebarError, match=words):
        load_predictor(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"span": 10**18}, "span: expected 1 to"),
        ({"span": True}, "span: expected 1 to"),
        ({"first_node": 3.0}, "first_node: expected a number from"),
        ({"per_event": "many"}, "per_event: expected a number .* got 'many'"),
        (
            {"reference": [12.05, 0.517, 20_000, 0, 0, 0, 0]},
            "light_yield_per_MeV: expected a number from 8700 to 11300",
        ),
        ({"ranges": [[0, 1]] * 7}, "expected a number from 0 to 1, got 12.05"),
        ({"edges_MeV": [1.0, 0.5]}, "edges_MeV: expected two or more rising numbers"),
        ({"edges_MeV": [1.0, 1.5]}, "block_edges: expected the edges of the bins"),
    ],
)
def test_numbers_of_a_surrogate_that_do_not_fit_are_refused(surrogate, tmp_path, changes, words):
    save_predictor(surrogate, tmp_path)
    altered(**changes)(tmp_path)
    with pytest.raises(NuebarError, match=words):
        load_predictor(tmp_path)


def test_half_precision_needs_its_scale(surrogate, tmp_path):
    """Bug: a flat table of any length was multiplied by its scales to one of many columns."""
    save_predictor(surrogate, tmp_path)
    arrays, told = load_model(tmp_path)
    told = {name: value for name, value in told.items() if name not in ("arrays", "digest")}
    scales = [name for name in arrays if name.endswith(".scale")]
    assert scales
    save_model(tmp_path, {name: array for name, array in arrays.items() if name != scales[0]}, told)
    with pytest.raises(NuebarError, match=r"missing .*\.scale"):
        load_predictor(tmp_path)
    flat = arrays | {"excess.total.solar.value": np.ones(7, np.float16)}
    save_model(tmp_path, flat, told)
    with pytest.raises(NuebarError, match=r"excess|one number a row of \(7,\)"):
        load_predictor(tmp_path)


def test_words_mean_folders(tmp_path, harmonic, monkeypatch):
    monkeypatch.setattr(store, "MODELS", tmp_path)
    for word in store.PRETRAINED:
        with pytest.raises(NuebarError, match="not in this installation"):
            predictor_folder(word)
    save_predictor(harmonic, tmp_path / "surrogate")
    assert predictor_folder("surrogate") == tmp_path / "surrogate"
    assert predictor_folder(tmp_path / "surrogate") == tmp_path / "surrogate"
    with pytest.raises(NuebarError, match="unknown predictor 'magic'"):
        predictor_folder("magic")


def test_a_predictor_without_a_folder_says_so(tmp_path):
    class Other:
        name = "reweight"

    with pytest.raises(NuebarError, match="reweight predictor has no folder"):
        save_predictor(Other(), tmp_path / "x")
    assert not (tmp_path / "x").exists()
