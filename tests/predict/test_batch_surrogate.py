"""Many spectra at once from the surrogate: the same numbers as one by one, whatever the bins, and refusals by name."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.predict import batch_surrogate
from nuebar.predict.batch_surrogate import BatchSurrogate
from nuebar.predict.cascades import Cascades
from nuebar.predict.harmonic import Windows
from nuebar.predict.response import ResponsePoint
from nuebar.predict.surrogate import BOX, block_edges, build_surrogate
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.ibd import ibd_cascades
from nuebar.simulate.ibd_kinematics import IbdSpectrum
from nuebar.simulate.random import derive_key

NOMINAL = ResponsePoint(12.05, 0.517, 9846.0)
EDGES = np.linspace(1.0, 5.0, 201)
LOW = [0.26, 0.0, 7.3e-5, 2.48e-3, *(low for low, _ in BOX.values())]
HIGH = [0.36, 0.03, 7.8e-5, 2.54e-3, *(high for _, high in BOX.values())]


@pytest.fixture(scope="module")
def surrogate(juno, juno_inputs):
    e = np.linspace(1.81, 10.0, 800)
    order = np.argsort(juno_inputs.e_nu_MeV)
    width = np.gradient(juno_inputs.e_nu_MeV[order])
    rows = [np.interp(e, juno_inputs.e_nu_MeV[order], row[order] / width) for row in juno_inputs.events[[0, 8]]]
    spectrum = IbdSpectrum(e, np.array(rows), juno_inputs.baseline_km[[0, 8]])
    pool = ibd_cascades(spectrum, DetectorModel.build(juno), 20_000, derive_key(5, "batch surrogate"))
    cascades = Cascades.of([pool], juno).normalised(1e5)
    return build_surrogate(cascades, EDGES, nominal=NOMINAL, windows=Windows.around_pdg(2), matter=False)


def rebinned(surrogate, edges):
    """The same on other edges, in double precision: without the rounding of differences of single numbers."""
    return replace(
        surrogate,
        edges_MeV=tuple(float(e) for e in edges),
        block_edges=jnp.asarray(block_edges(np.asarray(edges))),
        light=surrogate.light.astype(float),
        inverse=surrogate.inverse.astype(float),
        stacked=surrogate.stacked.astype(float),
        span=surrogate.inverse.shape[1],
    )


def points(n, seed=2):
    return np.random.default_rng(seed).uniform(LOW, HIGH, (n, 11))


def closest(got, surrogate, p):
    """Largest relative difference in bins above 1e-4 of the spectrum."""
    truth = np.asarray(surrogate.predict(dict(zip(surrogate.parameter_names, p, strict=True))))
    return np.abs(got / truth - 1)[truth > 1e-4 * truth.max()].max()


def test_the_same_spectra_as_one_by_one(surrogate, monkeypatch):
    monkeypatch.setattr(batch_surrogate, "CHUNK", 40)
    p = points(60)
    out = np.empty((len(p), EDGES.size - 1), np.float32)
    batch = BatchSurrogate(surrogate)
    assert batch(p, out) is out
    double = rebinned(surrogate, EDGES)
    for k in (0, 1, 39, 40, len(p) - 1):
        assert closest(out[k], double, p[k]) < 5e-5
    np.testing.assert_array_equal(batch(p[7:9]), out[7:9])


@pytest.mark.slow
def test_single_precision_is_that_of_predict(surrogate):
    p = points(5)
    for row, got in zip(p, BatchSurrogate(surrogate)(p), strict=True):
        assert closest(got, surrogate, row) < 2e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "edges",
    [np.linspace(1.0, 5.0, 21), np.concatenate([np.arange(1.0, 3.0, 0.02), [3.0, 3.5, 3.51, 5.0]])],
    ids=["wide", "unequal"],
)
def test_any_bins(surrogate, edges):
    other = rebinned(surrogate, edges)
    p = points(3)
    for row, got in zip(p, BatchSurrogate(other)(p), strict=True):
        assert closest(got, other, row) < 5e-5


def test_a_point_does_not_depend_on_its_company(surrogate):
    p = points(40)
    batch = BatchSurrogate(surrogate)
    np.testing.assert_allclose(batch(p[::-1])[::-1], batch(p), rtol=1e-5)


def test_truncated_series_are_seen_nowhere(surrogate, monkeypatch):
    p = points(5)
    short = BatchSurrogate(surrogate)(p)
    monkeypatch.setattr(batch_surrogate, "NEGLIGIBLE", 0.0)
    np.testing.assert_allclose(short, BatchSurrogate(surrogate)(p), rtol=2e-5, atol=1e-5 * short.max())


@pytest.mark.parametrize(
    ("column", "value", "name"),
    [
        (0, 1.2, "sin2_th12"),
        (2, 5e-5, "dm2_21_eV2"),
        (3, 3.4e-3, r"\|dm2_31_eV2\|"),
        (4, 30.0, "kB_g_cm2_GeV"),
        (5, np.nan, "fC"),
        (7, 0.05, "smear_a"),
        (10, -0.1, "energy_scale"),
    ],
)
def test_outside_of_the_box_it_refuses_by_name(surrogate, column, value, name):
    p = points(3)
    p[1, column] = value
    with pytest.raises(NuebarError, match=rf"'{name}' = .* in row 1 is outside the box \["):
        BatchSurrogate(surrogate)(p)


def test_wrong_shapes_and_predictors_are_refused(surrogate, juno_harmonic):
    with pytest.raises(NuebarError, match="shape"):
        BatchSurrogate(surrogate)(points(3)[:, :4])
    with pytest.raises(NuebarError, match="float32 buffer"):
        BatchSurrogate(surrogate)(points(3), np.empty((3, EDGES.size - 1)))
    with pytest.raises(NuebarError, match="in vacuum"):
        BatchSurrogate(juno_harmonic)
