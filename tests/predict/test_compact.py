"""The compact form of the harmonic predictor: the same spectra, cores and derivatives in both orderings."""

import jax
import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.predict.compact import CompactHarmonic
from nuebar.predict.harmonic import Windows

NARROW = Windows((7.3e-5, 7.75e-5), (2.40e-3, 2.58e-3))


@pytest.fixture(scope="module")
def compact(juno_harmonic):
    return CompactHarmonic.of(juno_harmonic, windows=NARROW)


def points(windows, n, seed):
    rng = np.random.default_rng(seed)
    out = []
    for k in range(n):
        limits = windows.normal() if k % 2 else windows.inverted()
        solar, fast = rng.uniform(*windows.solar), rng.uniform(*limits)
        out.append([rng.uniform(0.2, 0.4), rng.uniform(0.0, 0.04), solar, fast, rng.uniform(0.0, 3.0)])
    return np.array(out)


def test_spectra_are_those_of_the_harmonic_predictor(juno_harmonic, compact):
    """In units of the statistical error of a bin after six years."""
    for p in points(NARROW, 8, 1):
        values = dict(zip(juno_harmonic.parameter_names, p, strict=True))
        exact = np.asarray(juno_harmonic.predict(values))
        error = np.sqrt(np.maximum(exact, 1e-4 * exact.max()))
        assert np.abs((np.asarray(compact.predict(values)) - exact) / error).max() < 1e-5
        cores = np.asarray(juno_harmonic.channels(p))[1:]
        assert np.abs((np.asarray(compact.channels(p))[1:] - cores) / error).max() < 3e-3


def test_derivatives_are_those_of_the_harmonic_predictor(juno_harmonic, compact):
    """Against central differences, in units of the statistical error for a step of about a standard deviation."""
    p, names = points(NARROW, 2, 2)[1], juno_harmonic.parameter_names
    step = np.array([1e-3, 1e-3, 1e-7, 5e-6, 0.1])
    ours = np.asarray(jax.jit(jax.jacrev(lambda x: compact.channels(x)[0]))(p)) * step
    error = np.sqrt(np.maximum(np.asarray(compact.channels(p))[0], 1.0))
    for k in range(5):
        ends = [p + s * 0.05 * step * np.eye(5)[k] for s in (1, -1)]
        up, down = (np.asarray(juno_harmonic.predict(dict(zip(names, x, strict=True)))) for x in ends)
        np.testing.assert_allclose(ours[:, k] / error, (up - down) / 0.1 / error, atol=2e-4)


def test_edges_names_and_rates_stay(juno_harmonic, compact):
    assert compact.edges_MeV == juno_harmonic.edges_MeV
    assert compact.core_names == juno_harmonic.core_names
    assert compact.parameter_names == juno_harmonic.parameter_names
    assert compact.windows == NARROW
    assert compact.rank < 200
    np.testing.assert_array_equal(compact.unoscillated(), juno_harmonic.unoscillated())


def test_windows_outside_of_the_predictor_are_refused(juno_harmonic, compact):
    with pytest.raises(NuebarError, match="solar window"):
        CompactHarmonic.of(juno_harmonic, windows=Windows((1e-5, 7.75e-5), (2.40e-3, 2.58e-3)))
    with pytest.raises(NuebarError, match="outside the box"):
        compact.predict({"sin2_th12": 0.3, "sin2_th13": 0.02, "dm2_21_eV2": 7.5e-5, "dm2_31_eV2": 2.7e-3})
