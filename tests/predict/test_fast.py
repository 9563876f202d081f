"""The compiled and the batch form of the harmonic predictor against the JAX form."""

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.parameters import OSCILLATION
from nuebar.predict.batch import BatchHarmonic
from nuebar.predict.compiled import CompiledHarmonic
from nuebar.predict.harmonic import HarmonicPredictor, Windows

POINTS = np.array(
    [
        [0.307, 0.0218, 7.53e-5, 2.5283e-3],
        [0.307, 0.0218, 7.53e-5, -2.45e-3],
        [0.11, 0.09, 5.0e-5, 2.1e-3],
        [0.55, 0.0, 1.0e-4, 3.0e-3],
    ]
)


def named(row, density=None):
    values = dict(zip(OSCILLATION, map(float, row), strict=True))
    return values if density is None else values | {"matter_density_g_cm3": density}


@pytest.mark.parametrize("row", POINTS)
@pytest.mark.parametrize("density", [0.0, 2.45])
def test_compiled(juno_harmonic, row, density):
    """1e-6 of the largest bin in matter (a third-order term is left out), rounding in vacuum."""
    compiled = CompiledHarmonic(juno_harmonic)
    exact = np.asarray(juno_harmonic.predict(named(row, density)))
    tolerance = 1e-6 if density else 1e-11
    np.testing.assert_allclose(compiled.predict(named(row, density)), exact, atol=tolerance * exact.max())


def test_compiled_on_some_bins(juno_harmonic):
    compiled = CompiledHarmonic(juno_harmonic, slice(12, 412))
    whole = CompiledHarmonic(juno_harmonic)
    p = np.array([*POINTS[0], 2.45])
    np.testing.assert_allclose(compiled(p), whole(p)[12:412], rtol=1e-13)
    with pytest.raises(NuebarError, match="outside the box"):
        compiled.predict(named([0.3, 0.02, 2e-5, 2.5e-3]))


@pytest.fixture(scope="module")
def vacuum(juno_inputs):
    return HarmonicPredictor.build(juno_inputs, windows=Windows.around_pdg(15), matter=False, tolerance=1e-8)


def test_batch(vacuum, juno_inputs):
    """Single precision: 1e-5 of every significant bin, in any chunking and into a given buffer."""
    exact = HarmonicPredictor.build(juno_inputs, matter=False)
    batch = BatchHarmonic(vacuum)
    rows = np.tile(POINTS, (2100, 1))  # more than one chunk
    out = np.empty((len(rows), len(vacuum.edges_MeV) - 1), dtype=np.float32)
    assert batch(rows, out) is out
    for k in (0, 1, 2, 3, 8191, 8192, len(rows) - 1):
        truth = np.asarray(exact.predict(named(rows[k])))
        keep = truth > 1e-4 * truth.max()
        assert np.abs(out[k] / truth - 1)[keep].max() < 1e-5


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        (np.ones((3, 3)), "shape"),
        (np.full((2, 4), np.nan), "finite"),
        (np.array([[0.3, 0.02, 9.9e-4, 2.5e-3]]), "dm2_21_eV2"),
        (np.array([[0.3, 0.02, 7.5e-5, 9e-3]]), "dm2_31_eV2"),
    ],
)
def test_batch_refuses(vacuum, rows, word):
    with pytest.raises(NuebarError, match=word):
        BatchHarmonic(vacuum)(rows)


def test_batch_needs_a_vacuum_predictor(juno_harmonic):
    with pytest.raises(NuebarError, match="vacuum"):
        BatchHarmonic(juno_harmonic)
