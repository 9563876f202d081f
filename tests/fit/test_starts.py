"""Fits from several starts, and intervals of likelihoods that are no parabola."""

import numpy as np
import pytest

from nuebar.config import load_experiment, override
from nuebar.errors import NuebarError
from nuebar.fit.interval import likelihood_root, profile_interval
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.fit.starts import run_from_starts
from nuebar.predict.spectrum import build_model

SPLITTING = "dm2_31_eV2"
PRIOR = 0.100e-3  # wide: two widths away lies more than a period of the oscillation


@pytest.fixture(scope="module")
def months():
    """Twenty months of JUNO, Asimov, with a prior of the splitting that several of its minima fit into."""
    changes = {
        "exposure.days": 600.0,
        "binning.segments": ((0.8, 8.8, 80.0),),
        "oscillation.sin2_th13.sigma": 0.0007,
        f"oscillation.{SPLITTING}.sigma": PRIOR,
        "fit.shape_uncertainties": False,
    }
    fit = SpectrumFit.asimov(*build_model(override(load_experiment("juno"), changes)), statistic="poisson")
    return fit, fit.problem()


def test_a_far_start_ends_in_another_minimum_and_all_starts_in_the_lowest(months):
    fit, problem = months
    truth = fit.parameters[SPLITTING].value
    # A period of the oscillation at 3 MeV and 52.5 km is 5.7 % of the splitting.
    trapped = fit.run(start={SPLITTING: truth + 2 * PRIOR}, problem=problem)
    assert trapped.valid
    assert trapped.chi2 > 1
    best, others = run_from_starts(fit, SPLITTING, problem=problem)
    assert best.parameters[SPLITTING].value == pytest.approx(truth, abs=0.02 * best.parameters[SPLITTING].error)
    assert best.chi2 < 1e-4
    assert trapped.parameters[SPLITTING].value == pytest.approx(
        min((o.value for o in others), key=lambda x: abs(x - trapped.parameters[SPLITTING].value)), rel=1e-3
    )
    assert [o.delta_chi2 for o in others] == sorted(o.delta_chi2 for o in others)


def test_without_a_prior_there_is_one_start(months):
    fit, problem = months
    best, others = run_from_starts(fit, "sin2_th12", problem=problem)
    assert best.valid
    assert others == ()


def test_interval_of_a_parabola_is_the_error(months):
    fit, problem = months
    result = fit.run(problem=problem)
    p = result.parameters["sin2_th12"]
    grid = np.linspace(p.value - 2 * p.error, p.value + 2 * p.error, 21)
    found = profile_interval(fit, result, "sin2_th12", grid, problem=problem)
    assert found.high - p.value == pytest.approx(p.error, rel=0.06)
    assert p.value - found.low == pytest.approx(p.error, rel=0.06)
    four = profile_interval(fit, result, "sin2_th12", grid, level=2.25, problem=problem)
    assert (four.high - four.low) / (found.high - found.low) == pytest.approx(1.5, rel=0.03)


@pytest.mark.parametrize("away", [-1.5, -0.5, 0.5, 1.5])
def test_root_of_a_parabola_is_the_pull(months, away):
    fit, problem = months
    result = fit.run(problem=problem)
    p = result.parameters["sin2_th12"]
    root = likelihood_root(fit, result, "sin2_th12", p.value + away * p.error, problem=problem)
    assert root == pytest.approx(-away, rel=0.08)


def test_interval_spans_a_second_minimum(months):
    fit, problem = months
    best, others = run_from_starts(fit, SPLITTING, problem=problem)
    level = others[0].delta_chi2 + 0.5
    grid = np.linspace(best.parameters[SPLITTING].value - 4 * PRIOR, best.parameters[SPLITTING].value + 4 * PRIOR, 81)
    found = profile_interval(fit, best, SPLITTING, grid, level=level, problem=problem)
    assert found.low < others[0].value < found.high


@pytest.mark.parametrize("grid", [[1.0, 1.0], [2.0, 1.0], [0.9], [5.0, 6.0]])
def test_a_grid_without_the_best_fit_is_refused(months, grid):
    fit, problem = months
    result = fit.run(problem=problem)
    value = result.parameters["sin2_th12"].value
    with pytest.raises(NuebarError, match="increasing values around the best fit"):
        profile_interval(fit, result, "sin2_th12", np.array(grid) * value, problem=problem)
