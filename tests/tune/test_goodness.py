import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kstest

from nuebar.tune.data import CalibrationData
from nuebar.tune.goodness import ALARM, goodness_of_fit, warnings
from nuebar.tune.infer import infer

spec = importlib.util.spec_from_file_location("toy_density", Path(__file__).with_name("toy.py"))
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)

DENSITY = toy.ToyDensity()
TABLE = np.exp(np.asarray(DENSITY.log_probabilities(np.array(list(toy.TRUTH.values())))))
THREE = ("Cs137", "Co60", "AmBe")


def measured(n, seed, sources=DENSITY.sources, deform=lambda source, q, random: q):
    random = np.random.default_rng(seed)
    n_pe = {s: deform(s, DENSITY.sample(n, toy.TRUTH, s, seed=10 * seed + k), random) for k, s in enumerate(sources)}
    return CalibrationData.from_charges(n_pe, DENSITY.edges, DENSITY.pe_to_observable)


def drawn(n, seed, sources):
    random = np.random.default_rng(seed)
    counts = {s: random.multinomial(n, row) for s, row in zip(DENSITY.sources, TABLE, strict=True) if s in sources}
    return CalibrationData.from_counts(counts, DENSITY.edges, DENSITY.pe_to_observable)


def fitted(data, n_replicas=200, **options):
    return infer(data, DENSITY, minos=False, n_replicas=n_replicas, **options)


@pytest.mark.slow
def test_p_values_of_good_data_are_uniform():
    rows = []
    for seed in range(40):
        g = fitted(drawn(2000, 300 + seed, THREE), 100, seed=seed).goodness
        by_source = [[s.p_deviance, s.p_local, s.p_distance] for s in g.sources]
        rows.append([g.p_value, g.p_deviance, *np.ravel(by_source)])
    p = np.array(rows)
    # Of 11 uniform columns of 40 the smallest p of this test is below 1e-4 once in a thousand seeds.
    assert min(kstest(column, "uniform").pvalue for column in p.T) > 1e-4
    assert abs(p[:, 2:].mean() - 0.5) < 0.05
    assert p[:, 0].min() > ALARM


def wider(source, q, random):
    return q.mean() + 1.1 * (q - q.mean()) if source == "Co60" else q


def shifted(source, q, random):
    return 1.005 * q if source == "Co60" else q


def with_peak(source, q, random):
    n = q.size // 50
    return np.concatenate([q[n:], random.normal(3000.0, 80.0, n)]) if source == "Co60" else q


@pytest.mark.parametrize("deform", [wider, *(pytest.param(d, marks=pytest.mark.slow) for d in (shifted, with_peak))])
def test_what_a_density_cannot_make_is_told_with_its_source(deform):
    result = fitted(measured(10_000, 5, deform=deform))
    goodness = result.goodness
    assert goodness.p_value < ALARM
    worst = min(goodness.sources, key=lambda s: (s.p_value, -abs(s.local)))
    assert worst.source == "Co60"
    assert "Co60" in result.warnings[0]
    if deform is with_peak:
        assert worst.local_range[0] < 3000 * DENSITY.pe_to_observable < worst.local_range[1]
        assert worst.local > 5
        assert "excess" in result.warnings[0]


@pytest.mark.parametrize("method", ["minuit", "nuts"])
def test_a_corner_of_data_that_do_not_fit_is_not_valid(method):
    """Bug: charges with a wrong gain gave three parameters on walls with tiny errors, and NUTS called it valid."""
    data = measured(300, 5, deform=lambda source, q, random: 0.7 * q)
    result = fitted(data, 100, method=method)
    assert result.at_limit
    assert not result.valid
    assert "limit" in result.reason


@pytest.mark.parametrize("norms", ["closed", "free"])
def test_a_known_background_is_no_misfit_and_an_unknown_one_is(norms):
    flat = np.full(800, 0.5)

    def noisy(source, q, random):
        return np.concatenate([q, random.uniform(0.4, 16.4, random.poisson(400)) / DENSITY.pe_to_observable])

    data = measured(5000, 6, deform=noisy)
    assert fitted(data).goodness.p_value < ALARM
    known = data.with_background(dict.fromkeys(data.sources, flat))
    result = fitted(known, norms=norms)
    assert result.goodness.p_value > 0.01
    assert not result.warnings


def test_without_the_refit_p_values_would_be_too_small_and_a_strong_prior_holds_it():
    data = measured(2000, 7)
    result = fitted(data, 0)
    best, covariance = list(result.best.values()), result.covariance
    free = goodness_of_fit(data, DENSITY, best, covariance, n_replicas=400)
    held = goodness_of_fit(data, DENSITY, best, covariance, n_replicas=400, free=[False] * 3)
    pinned = goodness_of_fit(data, DENSITY, best, covariance, n_replicas=400, precision=np.eye(3) * 1e12)
    # Replicas that may not be fitted deviate more, by two times three for those drawn from the posterior.
    assert held.p_deviance > free.p_deviance + 0.02
    assert held.p_deviance == pytest.approx(pinned.p_deviance, abs=0.01)


def test_good_data_give_no_warning_and_the_same_seed_the_same_numbers():
    data = measured(3000, 8)
    one, two = fitted(data, seed=4), fitted(data, seed=4)
    assert one.warnings == ()
    assert one.goodness == two.goodness


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"at_limit": ("fC",)}, "edge of the range of fC"),
        ({"at_limit": ("norm_K40",)}, "edge of the range of norm_K40"),
        ({"norms": {"K40": 1.2}}, "norm of K40 is 1.200, at the limit"),
        ({"best": {"kB_g_cm2_GeV": 6.1, "fC": 0.5, "light_yield_per_MeV": 1e4}}, "standard deviations from the edge 6"),
    ],
)
def test_limits_are_told(change, told):
    result = replace(fitted(measured(3000, 8), 0), **change)
    assert any(told in sentence for sentence in warnings(result))
