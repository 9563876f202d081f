"""A Gaussian peak is found with its true errors, and nothing else is called a peak."""

import math

import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.simulate.peaks import fit_peak


def pulls(n, trials, *, guess=1.005, width=0.033):
    rng = np.random.default_rng(n)
    rows = []
    for _ in range(trials):
        p = fit_peak(rng.normal(1.0, 0.03, n), guess, width)
        rows.append(((p.mean - 1) / p.mean_error, (p.sigma - 0.03) / p.sigma_error, p.chi2_per_bin))
    return np.array(rows)


@pytest.mark.parametrize(("n", "trials"), [(1000, 150), (20_000, 60)])
def test_errors_cover(n, trials):
    rows = pulls(n, trials)
    error = 1 / math.sqrt(trials)
    assert np.abs(rows[:, :2].mean(axis=0)).max() < 3.5 * error + 0.1  # a bin's centre stands for the bin
    assert np.abs(rows[:, :2].std(axis=0) - 1).max() < 3 * error / math.sqrt(2) + 0.05
    assert rows[:, 2].mean() == pytest.approx(47 / 50, abs=0.05)  # 50 bins, 3 parameters


@pytest.mark.parametrize(("guess", "width"), [(4230.0, 80.0), (4330.0, 50.0), (4150.0, 150.0)])
def test_the_guess_does_not_matter(guess, width):
    values = np.random.default_rng(4).normal(4230.0, 80.0, 200_000)
    peak = fit_peak(values, guess, width)
    assert peak.mean == pytest.approx(4230.0, abs=4 * peak.mean_error)
    assert peak.sigma == pytest.approx(80.0, abs=4 * peak.sigma_error)
    assert 0.19 < peak.mean_error < 0.5
    assert peak.resolution == peak.sigma / peak.mean
    # What lies between -1.5 and 2 standard deviations.
    assert peak.events == pytest.approx(200_000 * 0.91044, rel=0.01)


def test_a_tail_below_moves_the_peak_little():
    rng = np.random.default_rng(5)
    values = np.concatenate([rng.normal(2.22, 0.05, 50_000), 2.22 * rng.random(20_000)])
    peak = fit_peak(values, 2.2, 0.06)
    assert peak.mean == pytest.approx(2.22, abs=0.003)
    assert peak.sigma == pytest.approx(0.05, rel=0.05)


def test_scale_and_unit_do_not_matter():
    values = np.random.default_rng(6).normal(1.0, 0.03, 5000)
    a, b = fit_peak(values, 1.0, 0.03), fit_peak(1e4 * values, 1e4, 300.0)
    assert b.mean == pytest.approx(1e4 * a.mean, rel=1e-6)
    assert b.sigma_error == pytest.approx(1e4 * a.sigma_error, rel=1e-3)


@pytest.mark.parametrize(
    ("values", "guess", "width", "sentence"),
    [
        (np.ones(100), 1.0, 0.1, "expected at least 200 events within 0.85 to 1.2, got 100; simulate more"),
        (np.zeros(0), 1.0, 0.1, "got 0; simulate more or move the guess"),
        (np.random.default_rng(1).normal(1, 0.03, 1000), 5.0, 0.03, "got 0; simulate more"),
        (np.random.default_rng(1).uniform(0, 2, 10_000), 1.0, 0.03, "expected a peak near 1 of width 0.03, found none"),
        (np.ones(1000), 1.0, 0.0, "expected a finite guess and a positive width"),
        (np.ones(1000), 1.0, -0.1, "expected a finite guess and a positive width"),
        (np.ones(1000), math.nan, 0.1, "expected a finite guess and a positive width, got nan"),
        (np.ones(1000), 1.0, math.inf, "expected a finite guess and a positive width"),
    ],
)
def test_what_is_no_peak(values, guess, width, sentence):
    with pytest.raises(NuebarError, match=f"fit_peak: .*{sentence}"):
        fit_peak(values, guess, width)
