"""What ships with the package: held to small Monte Carlo samples of this test, which it has never seen."""

import numpy as np
import pytest

from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.parameters import OSCILLATION
from nuebar.physics import oscillation
from nuebar.predict.cascades import Cascades
from nuebar.predict.response import ResponsePoint
from nuebar.predict.signal import signal_inputs
from nuebar.predict.spectrum import build_model
from nuebar.predict.store import MODELS, PRETRAINED, load_predictor, predictor_folder
from nuebar.predict.surrogate import build_surrogate
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.ibd import ibd_cascades
from nuebar.simulate.ibd_kinematics import IbdSpectrum
from nuebar.simulate.random import derive_key

TRUTH = dict(zip(OSCILLATION, (0.307, 0.022, 7.53e-5, 2.5123e-3), strict=True))
WIDE = slice(5, 365, 6)  # edges of bins of 120 keV from 0.9 to 8.1 MeV
LIMIT_bytes = 2_000_000


@pytest.fixture(scope="module")
def surrogate():
    return load_predictor(predictor_folder("surrogate"))


@pytest.fixture(scope="module")
def cascades(juno, juno_inputs):
    """A small sample from the same reactors, with a key of its own."""
    e = np.linspace(1.81, 12.0, 1500)
    order = np.argsort(juno_inputs.e_nu_MeV)
    width = np.gradient(juno_inputs.e_nu_MeV[order])
    rows = [np.interp(e, juno_inputs.e_nu_MeV[order], row[order] / width) for row in juno_inputs.events]
    spectrum = IbdSpectrum(e, np.array(rows), juno_inputs.baseline_km)
    pool = ibd_cascades(spectrum, DetectorModel.build(juno), 80_000, derive_key(77, "pretrained"))
    return Cascades.of([pool], juno).normalised(float(juno_inputs.events.sum()))


def chi2_per_bin(predicted, cascades, point, edges):
    folded = cascades.folded(point, edges)
    survival = [np.asarray(oscillation.vacuum(folded.e_nu_MeV, b, **TRUTH)) for b in folded.baseline_km]
    counts = sum(t @ p for t, p in zip(folded.table, survival, strict=True))
    weight = np.asarray(oscillation.vacuum(cascades.e_nu_MeV, cascades.baseline_km[cascades.core], **TRUTH))
    covariance = cascades.covariance(point, edges, weight)
    difference = predicted - counts
    return difference @ np.linalg.solve(covariance, difference) / difference.size


@pytest.mark.parametrize(
    "point",
    [
        ResponsePoint(12.05, 0.517, 9846.0),
        ResponsePoint(18.0, 0.3, 9300.0, 0.01, 0.004, 0.005, 0.01),
        ResponsePoint(9.5, 0.85, 10900.0),
    ],
    ids=["nominal", "smeared", "far"],
)
def test_the_shipped_surrogate_is_the_reference_up_to_noise(surrogate, cascades, point):
    edges = surrogate.edges[WIDE]
    fine = np.asarray(surrogate.predict({**TRUTH, **vars(point)}))
    cumulative = np.concatenate([[0.0], np.cumsum(fine)])
    assert 0.6 < chi2_per_bin(np.diff(cumulative[WIDE]), cascades, point, edges) < 1.5  # 59 bins: 1 ± 0.18


def test_a_small_one_built_anew_agrees_with_the_shipped_one(surrogate, cascades):
    edges, point = surrogate.edges[WIDE], ResponsePoint(12.05, 0.517, 9846.0)
    small = build_surrogate(cascades, edges, nominal=point, matter=False)
    cumulative = np.concatenate([[0.0], np.cumsum(np.asarray(surrogate.predict(TRUTH)))])
    difference = np.asarray(small.predict(TRUTH)) - np.diff(cumulative[WIDE])
    noise = small.mc_covariance(TRUTH)
    assert 0.6 < difference @ np.linalg.solve(noise, difference) / difference.size < 1.5


@pytest.mark.parametrize("word", PRETRAINED)
def test_it_is_small_and_says_where_it_comes_from(word, juno):
    folder = MODELS / word
    assert sum(f.stat().st_size for f in folder.iterdir()) <= LIMIT_bytes
    predictor = load_predictor(folder)
    assert predictor.provenance["command"].startswith("nuebar predict build")
    assert int(predictor.provenance["events"]) > 9_000_000
    total = float(predictor.provenance["unoscillated_events"])
    assert total == pytest.approx(float(signal_inputs(juno).events.sum()), rel=1e-6)


@pytest.mark.slow
def test_a_fresh_installation_fits_with_it(juno, surrogate):
    model, parameters = build_model(juno, predictor=surrogate)
    result = SpectrumFit.asimov(model, parameters, statistic="pearson").run()
    assert result.valid
    for name in OSCILLATION:
        assert result.parameters[name].value == pytest.approx(parameters[name].value, rel=1e-4)


def test_networks_predict_the_same_spectrum_to_what_they_have_learned(surrogate):
    network, plain = (load_predictor(predictor_folder(w)) for w in ("network", "network-plain"))
    a, b = (np.asarray(p.predict(TRUTH)) for p in (network, plain))
    good = b > 1e-2 * b.max()
    assert np.median(np.abs(a / b - 1)[good]) < 1e-3
