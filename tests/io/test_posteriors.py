import json

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.io.posteriors import MOST_SAMPLES, ResponsePosterior, load_posterior, save_posterior

NAMES = ("kB_g_cm2_GeV", "fC", "light_yield_per_MeV")
MEAN = np.array([12.05, 0.517, 9846.0])
SIGMA = np.array([0.26, 0.029, 23.0])
CORRELATION = np.array([[1, -0.9, 0.97], [-0.9, 1, -0.96], [0.97, -0.96, 1]])
COVARIANCE = CORRELATION * np.outer(SIGMA, SIGMA)


def drawn(n):
    return np.random.default_rng(3).multivariate_normal(MEAN, COVARIANCE, n)


@pytest.mark.parametrize("samples", [None, drawn(7)])
def test_written_and_read_it_is_the_same(tmp_path, samples):
    path = tmp_path / "posterior.json"
    save_posterior(path, ResponsePosterior(NAMES, MEAN, COVARIANCE, {"method": "nuts"}, samples))
    read = load_posterior(path)
    assert read.names == NAMES
    assert read.provenance == {"method": "nuts"}
    np.testing.assert_array_equal(read.mean, MEAN)
    np.testing.assert_array_equal(read.covariance, COVARIANCE)
    assert ("samples" in json.loads(path.read_text())) == (samples is not None)
    if samples is None:
        assert read.samples is None
    else:
        np.testing.assert_array_equal(read.samples, samples)


def test_many_samples_are_thinned_evenly_over_all_of_them(tmp_path):
    path = tmp_path / "posterior.json"
    samples = MEAN + np.arange(3 * 5001).reshape(5001, 3) * 1e-6
    save_posterior(path, ResponsePosterior(NAMES, MEAN, COVARIANCE, samples=samples))
    read = load_posterior(path).samples
    assert read.shape == (MOST_SAMPLES, 3)
    np.testing.assert_array_equal(read[[0, -1]], samples[[0, -1]])
    steps = np.diff(read[:, 0])
    assert steps.max() < 2.0 * steps.min()


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        ([[1.0, 2.0]], r"shape \(draws, 3\), got \(1, 2\)"),
        ([1.0, 2.0, 3.0], r"shape \(draws, 3\), got \(3,\)"),
        ([], r"shape \(draws, 3\)"),
        ([[1.0, 2.0, 3.0], [1.0, float("nan"), 3.0]], "in row 1"),
        ([[1.0, "x", 3.0]], "rows of 3 numbers"),
    ],
)
def test_bad_samples_are_refused_with_the_reason(samples, told):
    with pytest.raises(NuebarError, match=told):
        ResponsePosterior(NAMES, MEAN, COVARIANCE, samples=samples)


def test_bad_samples_in_a_file_name_the_file(tmp_path):
    path = tmp_path / "posterior.json"
    save_posterior(path, ResponsePosterior(NAMES, MEAN, COVARIANCE, samples=drawn(4)))
    record = json.loads(path.read_text())
    record["samples"][2] = [1.0, 2.0]
    path.write_text(json.dumps(record))
    with pytest.raises(NuebarError, match=r"posterior\.json: response posterior: expected samples"):
        load_posterior(path)
