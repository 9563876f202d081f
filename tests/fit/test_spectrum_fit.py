"""Fits of the embedded and the real spectra: closure, published numbers, orderings, blinding, scans."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from nuebar.config import load_experiment, override
from nuebar.errors import NuebarError
from nuebar.fit.blinding import blinded, offsets
from nuebar.fit.profile import delta_chi2_level, scan
from nuebar.fit.result import FitResult
from nuebar.fit.spectrum_fit import SpectrumFit, impacts, inverted_start
from nuebar.io.releases import read_common_inputs, read_juno_2025
from nuebar.parameters import OSCILLATION
from nuebar.predict.spectrum import build_model
from nuebar.stats.likelihood import BarlowBeestonCost

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "juno.json").read_text())


@pytest.fixture(scope="module")
def small():
    """Two cores, wide bins, few pulls: quick to compile."""
    e = load_experiment("juno")
    e = dataclasses.replace(
        e,
        reactor=dataclasses.replace(e.reactor, cores=(e.reactor.cores[0], e.reactor.cores[-1])),
        backgrounds=e.backgrounds[1:2],
    )
    return override(
        e,
        {
            "binning.segments": ((0.8, 8.8, 80),),
            "binning.fine_width_MeV": 0.05,
            "systematics.nonlinearity": False,
            "systematics.resolution": (),
            "systematics.fission_fractions": {},
            "systematics.core": 0.0,
            "systematics.spent_fuel": 0.0,
            "systematics.nonequilibrium": 0.0,
        },
    )


@pytest.fixture(scope="module")
def fitted(small):
    model, parameters = build_model(small)
    fit = SpectrumFit.asimov(model, parameters, statistic="cnp", experiment="small")
    return fit, fit.run()


def test_asimov_returns_the_truth(fitted):
    fit, result = fitted
    assert result.valid, result.reason
    assert result.chi2 == pytest.approx(0.0, abs=1e-9)
    for name, p in result.parameters.items():
        scale = p.error if p.error > 0 else 1.0
        assert (p.value - fit.parameters[name].value) / scale == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize(
    "statistic",
    ["cnp", "poisson", *(pytest.param(s, marks=pytest.mark.slow) for s in ("barlow-beeston", "pearson", "neyman"))],
)
def test_statistics_agree_at_high_counts(small, fitted, statistic):
    """With 10⁵ events every statistic has nearly the same errors; from a shifted start, the same minimum."""
    model, parameters = build_model(override(small, {"fit.shape_uncertainties": statistic != "poisson"}))
    fit = SpectrumFit.asimov(model, parameters, statistic=statistic)
    result = fit.run(start={"sin2_th12": 0.312, "dm2_21_eV2": 7.6e-5, "dm2_31_eV2": 2.535e-3})
    assert result.valid, result.reason
    for name in OSCILLATION:
        assert result.parameters[name].value == pytest.approx(parameters[name].value, rel=1e-4)
        tolerance = 0.25 if statistic == "poisson" else 0.02  # without shape uncertainties
        assert result.parameters[name].error == pytest.approx(fitted[1].parameters[name].error, rel=tolerance)


def test_barlow_beeston_takes_every_variance_and_no_correlation(fitted):
    """Few events: shape uncertainties of the model, plus the Monte Carlo's variances, plus pulls."""
    fit, _ = fitted
    few = SpectrumFit(fit.model, fit.parameters, np.random.default_rng(4).poisson(0.01 * fit.counts).astype(float))
    across = np.arange(few.counts.size)
    error = 0.1 * np.sqrt(fit.counts + 1.0)
    matrix = np.outer(error, error) * np.exp(-np.abs(across[:, None] - across) / 5.0)
    x = fit.model.vector(fit.parameters.nominal())
    expected, variance = fit.model(x)
    assert np.all(np.asarray(variance)[expected > 1] > 0)
    truth = BarlowBeestonCost(few.counts)(expected, variance + np.diag(matrix))
    for extra in (matrix, np.diag(matrix)):
        ours = dataclasses.replace(few, statistic="barlow-beeston", mc_covariance=extra)
        np.testing.assert_allclose(ours.problem().value(x), truth, rtol=1e-12)


def test_few_events_are_fitted_with_barlow_beeston(small):
    """30 days, some bins empty: valid, the goodness of fit is that of the bins, and the record names the statistic."""
    model, parameters = build_model(override(small, {"exposure.days": 30.0}))
    expected = np.asarray(model(model.vector(parameters.nominal()))[0])
    counts = np.random.default_rng(8).poisson(expected).astype(float)
    assert counts.min() == 0
    fit = SpectrumFit(model, parameters, counts, "barlow-beeston", mc_covariance=np.diag(0.01 * expected))
    fit = fit.fixing(["sin2_th13", "dm2_31_eV2"])
    result = fit.run()
    assert result.valid, result.reason
    assert result.statistic == "barlow-beeston + MC error without correlations"
    assert 0.6 < result.chi2 / result.n_dof < 1.5
    for name in ("sin2_th12", "dm2_21_eV2"):
        p = result.parameters[name]
        assert abs(p.value - parameters[name].value) < 4 * p.error


def test_the_poisson_refusal_names_what_to_take_instead(fitted):
    fit, _ = fitted
    with pytest.raises(
        NuebarError, match=r"no room for bin-to-bin shape uncertainties.*barlow-beeston, cnp or pearson"
    ):
        dataclasses.replace(fit, statistic="poisson").problem()


def test_harmonic_and_matrix_give_the_same_fit(small):
    results = []
    for predictor in ("harmonic", "matrix"):
        model, parameters = build_model(small, predictor=predictor)
        counts = np.asarray(model(model.vector(parameters.nominal()))[0])
        data = np.random.default_rng(7).poisson(counts).astype(float) if not results else results[0][1]
        fit = SpectrumFit(model, parameters, data)
        results.append((fit.run(), data))
    for name in OSCILLATION:
        a, b = results[0][0].parameters[name], results[1][0].parameters[name]
        assert abs(a.value - b.value) < 0.002 * a.error
        assert a.error == pytest.approx(b.error, rel=1e-3)


def test_more_exposure_less_error(small):
    errors = []
    for days in (500.0, 2000.0):
        model, parameters = build_model(override(small, {"exposure.days": days, "fit.shape_uncertainties": False}))
        fit = SpectrumFit.asimov(model, parameters)
        errors.append(fit.run().parameters["dm2_31_eV2"].error)
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.1)


def test_wrong_ordering_is_fitted_and_disfavoured(small, fitted):
    """The inverted ordering fits in its own window, finds |Δm²ee|, and costs Δχ² (Petcov and Piai, 2002)."""
    fit, _ = fitted
    wrong = SpectrumFit(fit.model, inverted_start(fit.parameters), fit.counts)
    result = wrong.run()
    assert result.ordering == "inverted"
    assert result.chi2 > 0.1  # bins of 100 keV blur most of it
    ee = abs(result.derived["dm2_ee_eV2"][0])
    assert ee == pytest.approx(2.5283e-3 - 0.307 * 7.53e-5, rel=0.01)


def test_minos_matches_hesse_at_high_counts(fitted):
    fit, result = fitted
    again = fit.run(minos=["sin2_th12"], start=result.values())
    p = again.parameters["sin2_th12"]
    assert p.error_minus == pytest.approx(-p.error, rel=0.05)
    assert p.error_plus == pytest.approx(p.error, rel=0.05)


def test_scan_is_a_parabola_with_the_fit_error(fitted):
    fit, result = fitted
    found = scan(fit, result, ["sin2_th12"], n_points=9, n_sigma=2.0)
    pull = (found.grids[0] - result.parameters["sin2_th12"].value) / result.parameters["sin2_th12"].error
    assert np.all(found.converged)
    np.testing.assert_allclose(found.delta_chi2, pull**2, atol=0.15)
    assert found.delta_chi2.min() > -1e-6


@pytest.mark.parametrize(
    ("cl", "dof", "level"),
    [(0.682689, 1, 1.0), (0.6827, 2, 2.296), (0.9545, 2, 6.18), (0.9973, 2, 11.83)],
)
def test_levels(cl, dof, level):
    """PDG review of statistics, table 40.2."""
    assert delta_chi2_level(cl, dof) == pytest.approx(level, rel=2e-3)


def test_derived_splittings(fitted):
    _, result = fitted
    v = result.values()
    assert result.derived["dm2_32_eV2"][0] == pytest.approx(v["dm2_31_eV2"] - v["dm2_21_eV2"])
    assert result.derived["dm2_ee_eV2"][0] == pytest.approx(v["dm2_31_eV2"] - v["sin2_th12"] * v["dm2_21_eV2"])
    assert 0 < result.derived["dm2_32_eV2"][1] < 2 * result.parameters["dm2_31_eV2"].error


def test_impacts_are_bounded_by_the_error(fitted):
    fit, result = fitted
    ranked = impacts(fit, result, ["sin2_th12"])["sin2_th12"]
    assert set(ranked) == set(fit.pulled())
    assert list(map(abs, ranked.values())) == sorted(map(abs, ranked.values()), reverse=True)
    assert max(map(abs, ranked.values())) < result.parameters["sin2_th12"].error
    with pytest.raises(NuebarError, match="norm_nothing"):
        impacts(fit, result, ["norm_nothing"])


def test_result_survives_json(fitted):
    _, result = fitted
    again = FitResult.from_dict(json.loads(json.dumps(result.to_dict())))
    assert again.parameters == dict(result.parameters)
    np.testing.assert_array_equal(again.covariance, result.covariance)
    with pytest.raises(NuebarError, match="not a fit result"):
        FitResult.from_dict({"parameters": {}})


def test_blinding_hides_and_repeats(fitted):
    _, result = fitted
    names = list(OSCILLATION)
    errors = [result.parameters[n].error for n in names]
    first = offsets(names, errors, seed=3, experiment="x")
    assert first == offsets(names, errors, seed=3, experiment="x")
    assert first != offsets(names, errors, seed=4, experiment="x")
    hidden = blinded(result, first)
    assert hidden.blinded
    for n in names:
        assert hidden.parameters[n].value - result.parameters[n].value == pytest.approx(first[n])
        assert hidden.parameters[n].error == result.parameters[n].error
    v = hidden.values()
    assert hidden.derived["dm2_32_eV2"][0] == pytest.approx(v["dm2_31_eV2"] - v["dm2_21_eV2"])


@pytest.mark.parametrize(
    ("counts", "word"),
    [
        (lambda n: np.full(n, np.nan), "nan|NaN|finite"),
        (lambda n: -np.ones(n), "at least 0"),
        (lambda n: np.ones(n - 1), "counts"),
        (lambda n: np.full(n, np.inf), "inf|finite"),
    ],
)
def test_bad_counts_are_refused(fitted, counts, word):
    fit, _ = fitted
    with pytest.raises(NuebarError, match=word):
        SpectrumFit(fit.model, fit.parameters, counts(fit.counts.size)).run()


def test_a_fit_on_its_limit_says_so(fitted):
    fit, _ = fitted
    narrow = fit.parameters.updated(sin2_th12={"value": 0.32, "bounds": (0.315, 0.4)})
    result = SpectrumFit(fit.model, narrow, fit.counts).run()
    assert not result.valid
    assert "sin2_th12" in result.reason


# ---------------------------------------------------------------- real data


def test_first_measurement(juno_2025_release):
    """JUNO's 59.1 days: within 0.3σ of the published values, errors within 15 % (Nature 654, 343)."""
    experiment = load_experiment("juno-2025")
    release = read_juno_2025(juno_2025_release)
    model, parameters = build_model(experiment, release=release)
    fit = SpectrumFit(model, parameters, release.counts.astype(float), experiment.fit.statistic)
    result = fit.run()
    assert result.valid, result.reason
    reference = REFERENCE["first_measurement"]
    for name in ("sin2_th12", "dm2_21_eV2"):
        p, published = result.parameters[name], reference[name]
        assert abs(p.value - published["value"]) < reference["tolerance_sigma"] * published["error"]
        assert p.error == pytest.approx(published["error"], rel=reference["relative_tolerance_error"])
    assert 0.5 < result.chi2 / result.n_dof < 1.5
    assert all(abs(q.pull) < 2 for q in result.parameters.values() if q.pull is not None)
    # pinned: this very recipe, so that a change of it is seen
    assert result.parameters["sin2_th12"].value == pytest.approx(0.3084, abs=3e-4)
    assert result.parameters["dm2_21_eV2"].value == pytest.approx(7.518e-5, abs=0.01e-5)


@pytest.mark.parametrize("source", [pytest.param("common inputs", marks=pytest.mark.slow), "embedded"])
def test_six_years(source, request):
    """Expected errors of arXiv:2204.13249: 20 % with the common inputs, 25 % with the embedded ones."""
    experiment = load_experiment("juno")
    inputs = read_common_inputs(request.getfixturevalue("common_inputs")) if source == "common inputs" else None
    model, parameters = build_model(experiment, inputs=inputs)
    result = SpectrumFit.asimov(model, parameters, statistic=experiment.fit.statistic).run()
    assert result.valid, result.reason
    reference = REFERENCE["six_years"]
    tolerance = reference["relative_tolerance_" + source.replace(" ", "_")]
    for name in OSCILLATION:
        assert result.parameters[name].error == pytest.approx(reference[name], rel=tolerance), name
    assert math.isfinite(result.edm)
