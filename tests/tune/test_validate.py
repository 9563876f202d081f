import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from nuebar.errors import NuebarError
from nuebar.simulate.calibration import CalibrationPlan
from nuebar.simulate.light import Electronics
from nuebar.tune.data import CalibrationData
from nuebar.tune.density import RESPONSE
from nuebar.tune.simulated import SimulatedSources, smearing
from nuebar.tune.validate import (
    AsimovRows,
    CalibrationRows,
    asimov_rows,
    asimov_study,
    calibration_rows,
    calibration_study,
    exposures,
    joined_rows,
    point_rows,
    point_study,
    verdict,
    worked_example,
)

spec = importlib.util.spec_from_file_location("toy_density", Path(__file__).with_name("toy.py"))
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)

DENSITY = toy.ToyDensity()
TRUTH = np.array([toy.TRUTH[name] for name in RESPONSE])


class Shifted(toy.ToyDensity):
    """Thinks that there is more light than there is."""

    factor: float = eqx.field(static=True, default=1.005)

    def _peaks(self, response):
        return super()._peaks(response * jnp.array([1.0, 1.0, self.factor]))


class Wide(toy.ToyDensity):
    """Thinks that peaks are wider than they are."""

    def _peaks(self, response):
        share, mean, sigma = super()._peaks(response)
        return share, mean, 1.3 * sigma


class ToySimulator:
    """Poisson data of the toy."""

    sources = DENSITY.sources

    def expected(self, response, blocks=1):
        p = np.exp(np.asarray(DENSITY.log_probabilities(jnp.asarray(np.asarray(response, float)))))
        return np.repeat(p[None], blocks, axis=0)

    def counts(self, response, events, sets, *, seed, words=()):
        p = self.expected(response)[0]
        return np.random.default_rng([seed, *(w for w in words if isinstance(w, int))]).poisson(
            events * p, (sets, *p.shape)
        )


SIMULATOR = ToySimulator()
DATA = {n: SIMULATOR.counts(TRUTH, n, 250, seed=3, words=(n,)) for n in (2000, 10_000, 25_000)}


@pytest.fixture(scope="module")
def study():
    return exposures(DENSITY, DATA, TRUTH)


def test_a_right_density_passes_at_every_exposure(study):
    assert verdict(study).passes
    for row in study.rows:
        assert row.used == row.sets == 250
        assert row.at_limit == 0
        assert (np.abs(row.bias_percent) < 4 * row.bias_noise_percent).all()
        assert (np.abs(row.pull_mean) < 4 * row.pull_mean_error).all()
        assert (np.abs(row.pull_width - 1) < 4 * row.pull_width_error).all()
        assert (row.meets_aim is None) == (row.events < 10_000)
    assert [row.events for row in study.rows] == [2000, 10_000, 25_000]


def test_spreads_lie_on_the_line_of_one_over_root_n(study):
    assert (study.line_p > 1e-3).all()
    np.testing.assert_allclose(study.power, -0.5, atol=4 * study.power_error.max())
    for row in study.rows:
        np.testing.assert_allclose(study.line / np.sqrt(row.events) / row.spread, 1, atol=0.15)


def test_a_wrong_light_yield_is_seen_as_bias_not_as_spread():
    wrong = exposures(Shifted(factor=1.01), {10_000: DATA[10_000]}, TRUTH)
    (row,) = wrong.rows
    # One per cent of light is one per cent of light: kB and fC, which do not know of it, stay.
    np.testing.assert_allclose(row.bias_percent[2], -1 / 1.01, atol=4 * row.bias_noise_percent[2])
    assert not row.meets_aim[2]
    assert row.bias_p[2] < 1e-6


def test_errors_that_are_too_large_fail_the_verdict():
    found = verdict(exposures(Wide(), {10_000: DATA[10_000]}, TRUTH))
    assert not found.passes


@pytest.mark.slow
def test_asimov_finds_a_bias_and_nothing_else():
    points = [TRUTH, (6.3, 0.5, 10_000.0), (20.0, 0.8, 9000.0)]
    rows = asimov_rows(DENSITY, SIMULATOR, points, blocks=2)
    found = asimov_study(DENSITY, rows)
    assert np.abs(found.bias_sigma).max() < 1e-3
    assert found.passes
    assert list(found.reasons) == [1]
    assert "kB_g_cm2_GeV" in found.reasons[1]
    wrong = Shifted(factor=1.005)
    biased = asimov_study(wrong, asimov_rows(wrong, SIMULATOR, [TRUTH, points[2]], blocks=1))
    expected = -(1 - 1 / 1.005) * np.array([TRUTH[2], 9000.0])
    np.testing.assert_allclose(biased.bias_sigma[:, 2] * rows.sigma[[0, 2], 2], expected, rtol=0.02)
    assert not biased.passes
    assert (biased.above_aim == [0, 0, 2]).all()


def test_points_have_a_bias_within_its_noise():
    points = {3: TRUTH, 8: (20.0, 0.8, 9000.0), 9: (23.9, 0.5, 9000.0)}
    rows = point_rows(DENSITY, SIMULATOR, points, sets=40, seed=4)
    found = point_study(DENSITY, rows)
    assert found.inside.tolist() == [True, True, False]
    assert min(found.p_values.values()) > 1e-3
    alone = point_rows(DENSITY, SIMULATOR, {8: points[8]}, sets=40, seed=4)
    np.testing.assert_array_equal(alone.bias[0], rows.bias[1])  # a point does not depend on its neighbours
    off = Shifted(factor=1.005)
    assert (
        point_study(off, point_rows(off, SIMULATOR, points, sets=40, seed=4)).p_values["points, " + RESPONSE[2]] < 1e-9
    )


# --- simulation-based calibration -----------------------------------------------------------------------------


def test_parts_of_a_run_make_the_whole_and_survive_json():
    whole = calibration_rows(DENSITY, SIMULATOR, range(4), points=256, seed=2)
    parts = [calibration_rows(DENSITY, SIMULATOR, some, points=256, seed=2) for some in ([0, 1, 2], [3])]
    back = [CalibrationRows.from_json(json.loads(json.dumps(part.to_json()))) for part in parts]
    joined = joined_rows(back)
    for name in ("number", "truth", "best", "below", "lower_density", "at_limit"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
    assert joined.seconds == pytest.approx(sum(part.seconds for part in parts))
    with pytest.raises(NuebarError, match="seed"):
        joined_rows([whole, calibration_rows(DENSITY, SIMULATOR, [5], points=256, seed=3)])


@pytest.mark.parametrize(
    ("density", "passes"), [(DENSITY, True), pytest.param(Shifted(), False, marks=pytest.mark.slow)]
)
def test_ranks_and_coverage_of_a_right_posterior_pass(density, passes):
    rows = calibration_rows(density, SIMULATOR, range(40), points=512, seed=6)
    found = calibration_study(density, rows)
    assert found.used >= 38
    assert found.interpolation_error < 0.1
    assert verdict(found).passes == passes
    json.dumps(found.to_json())
    if passes:
        assert (np.abs(found.pull_mean) < 4 * found.pull_mean_error).all()


@pytest.mark.slow
@pytest.mark.parametrize(("density", "passes"), [(DENSITY, True), (Shifted(factor=1.001), False), (Wide(), False)])
def test_ranks_and_coverage_of_two_thousand(density, passes):
    rows = calibration_rows(density, SIMULATOR, range(2000), seed=7)
    found = calibration_study(density, rows)
    assert found.used > 1990
    assert verdict(found).passes == passes


# --- the rest -------------------------------------------------------------------------------------------------


def test_the_worked_example_stands_beside_the_published_one():
    truth = (10.05, 0.225, 11_700.0)
    counts = SIMULATOR.counts(truth, 10_000, 1, seed=8)[0]
    data = CalibrationData.from_counts(
        dict(zip(DENSITY.sources, counts, strict=True)), DENSITY.edges, DENSITY.pe_to_observable
    )
    found, results = worked_example(DENSITY, data, methods=("minuit",))
    assert found.published_best.tolist() == [10.13, 0.238, 11701.0]
    assert found.methods[0].valid
    assert np.abs(found.methods[0].pull).max() < 4
    assert results[0].method == "minuit"
    assert json.dumps(found.to_json())


def test_bad_input_is_refused(study):
    other = replace(study, density="another")
    with pytest.raises(NuebarError, match="one density"):
        verdict(study, other)
    with pytest.raises(NuebarError, match="none"):
        asimov_rows(DENSITY, SIMULATOR, [])
    with pytest.raises(NuebarError, match="rows"):
        AsimovRows.from_json({"truth": []})


# --- expected spectra -----------------------------------------------------------------------------------------

PLAN = CalibrationPlan(1, ("Cs137", "AmC"), 1.07e-3, (0.4, 8.4, 100), {})


@pytest.fixture(scope="module")
def simulated(juno):
    return SimulatedSources.build(juno, plan=PLAN, cascades=4000, seed=3)


def test_expected_spectra_are_those_of_many_events(simulated):
    events = 40 * 4000  # every cascade forty times
    expected = events * simulated.expected((15.0, 0.5, 10_000.0))[0]
    drawn = simulated.counts((15.0, 0.5, 10_000.0), events, 1, seed=5)[0]
    for e, n in zip(expected, drawn, strict=True):
        used = e > 25
        assert chi2.sf(((n - e)[used] ** 2 / e[used]).sum(), used.sum()) > 1e-4
        assert chi2.cdf(((n - e)[used] ** 2 / e[used]).sum(), used.sum()) > 1e-6
    blocks = simulated.expected((15.0, 0.5, 10_000.0), 4)
    np.testing.assert_allclose(blocks.mean(axis=0) * events, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("constant", [0.0, 0.02])
def test_smearing_keeps_the_mean_and_the_variance(constant):
    electronics = Electronics(0.17, 0.32, 148.0, constant)
    edges = np.linspace(400.0, 5000.0, 461)
    mean, p = smearing(electronics, edges)
    centres = 0.5 * (edges[1:] + edges[:-1])
    for row in np.searchsorted(mean, [1000.0, 3000.0]):
        first = p[row] @ centres
        assert p[row].sum() == pytest.approx(1, abs=1e-9)
        assert first == pytest.approx(mean[row], rel=1e-4)
        variance = p[row] @ (centres - first) ** 2 - 100 / 12
        wanted = (1 + 0.32**2) * (mean[row] + 148) * (1 + constant**2) + (constant * (mean[row] + 148)) ** 2
        assert variance == pytest.approx(wanted, rel=3e-3)


def test_bins_of_single_photo_electrons_are_refused():
    with pytest.raises(NuebarError, match="lowest bin"):
        smearing(Electronics(0.17, 0.32, 0.0, 0.0), np.linspace(5.0, 100.0, 20))
