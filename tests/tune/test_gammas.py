"""The fit of gamma points: light as a series, readings of the errors, the minimum against the grid, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nuebar.errors import NuebarError
from nuebar.simulate.nonlinearity import gamma_light
from nuebar.simulate.quench import Response, Scintillation, light_table
from nuebar.simulate.sources import load_sources
from nuebar.tune import gammas
from nuebar.tune.gammas import BOX, LINES, GammaData, GammaModel, fit_gammas, gamma_posterior, light_model, own_errors

Y = 9846.0
SCINTILLATION = Scintillation()
ENERGIES = np.array([line.effective_MeV for line in LINES])
MEANS = gamma_light([(float(e),) for e in ENERGIES], 2000, 5)
LIGHT = light_model(MEANS, SCINTILLATION)
ANCHOR = [line.name for line in LINES].index("n-H")
MODEL = GammaModel(LIGHT, LIGHT.picked([ANCHOR]), Y)
TRUTH = np.array([13.0, 0.8, 1.002])


def data(truth=TRUTH, *, relative=0.002, used=slice(None), noise=0):
    ratio = MODEL.at(truth[None])[0]
    error = relative * ratio
    ratio = ratio + error * np.random.default_rng(noise).standard_normal(9) if noise else ratio
    marks = np.zeros(9, bool)
    marks[used] = True
    return GammaData(tuple(line.name for line in LINES), ENERGIES, ratio, error, marks)


@pytest.mark.parametrize("kB", [1.0, 1.3, 6.0, 12.05, 23.7, 30.0])
@pytest.mark.parametrize("fC", [0.0, 0.517, 5.0])
def test_series_is_the_light_of_the_cascades(kB, fC):
    exact = MEANS.per_MeV(light_table(Response(kB, fC, Y), SCINTILLATION)) / Y
    np.testing.assert_allclose(LIGHT(jnp.asarray(kB), jnp.asarray(fC / Y)), exact, rtol=1e-7)


def test_only_fC_over_light_yield_matters_and_the_anchor_reads_the_scale():
    other = GammaModel(MODEL.light, MODEL.anchor, 2 * Y)
    x = np.array([[11.0, 0.7, 1.003], [11.0, 1.4, 1.003]])
    np.testing.assert_allclose(MODEL.at(x)[0], other.at(x)[1], rtol=1e-14)
    np.testing.assert_allclose(MODEL.at(x)[:, ANCHOR], 1.003, rtol=1e-14)


def test_gradient():
    exact = np.asarray(jax.jacfwd(MODEL)(jnp.asarray(TRUTH)))
    for k, step in enumerate([1e-3, 1e-3, 1e-5]):
        away = np.zeros(3)
        away[k] = step
        slope = (MODEL.at((TRUTH + away)[None]) - MODEL.at((TRUTH - away)[None]))[0] / (2 * step)
        np.testing.assert_allclose(exact[:, k], slope, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("scale", gammas.SCALES)
@pytest.mark.parametrize("truth", [TRUTH, np.array([8.0, 2.5, 0.998]), np.array([25.0, 0.3, 1.0])])
def test_exact_points_give_the_truth_back(truth, scale):
    fit = fit_gammas(data(truth, relative=0.006), MODEL, scale=scale, sigma=0.003)
    assert fit.minimum.valid, fit.minimum.reason
    pull = ((truth[2] - 1) / 0.003) ** 2
    assert fit.chi2 <= (0 if scale == "free" else pull) + 1e-9
    if scale == "free":
        np.testing.assert_allclose(fit.minimum.values, truth, rtol=1e-4)
    assert fit.n_dof == (6 if scale == "free" else 7)
    for name in gammas.PARAMETERS:
        interval = fit.minimum.minos[name]
        assert not interval.valid or interval.minus < 0 < interval.plus


def test_posterior_is_the_gaussian_of_the_fit_where_the_errors_are_small():
    points = data(relative=2e-4, noise=3)
    fit, posterior = fit_gammas(points, MODEL), gamma_posterior(points, MODEL, samples=20_000)
    sigma = fit.minimum.errors
    np.testing.assert_allclose(posterior.mean, fit.minimum.values, atol=0.05 * sigma.max(), rtol=0.01)
    np.testing.assert_allclose(np.sqrt(np.diag(posterior.covariance)), sigma, rtol=0.02)
    assert np.abs((posterior.mean - fit.minimum.values) / sigma).max() < 0.05
    correlation = posterior.covariance / np.outer(*[np.sqrt(np.diag(posterior.covariance))] * 2)
    exact = fit.minimum.covariance / np.outer(sigma, sigma)
    np.testing.assert_allclose(correlation, exact, atol=0.02)
    assert posterior.at_limits == {"kB_g_cm2_GeV": (0.0, 0.0), "fC": (0.0, 0.0)}
    # The draws are of the same distribution, their errors 1/√20000.
    away = (posterior.samples.mean(axis=0) - posterior.mean) / np.sqrt(np.diag(posterior.covariance))
    assert np.abs(away).max() < 4 / np.sqrt(20_000)
    np.testing.assert_allclose(np.cov(posterior.samples.T), posterior.covariance, rtol=0.06)


@pytest.mark.parametrize("scale", ["free", "added"])
def test_scale_is_integrated_out_as_by_numbers(scale):
    points = data(relative=0.004, noise=5)
    posterior = gamma_posterior(points, MODEL, scale=scale)
    s = np.linspace(0.96, 1.04, 2001)
    for i, j in [(200, 200), (150, 260)]:
        cells = np.array([[posterior.kB_g_cm2_GeV[a], posterior.fC[b], 1.0] for a, b in ((i, j), (190, 210))])
        logs = []
        for unit in MODEL.at(cells):
            chi2 = (((points.ratio - s[:, None] * unit) / points.error) ** 2).sum(axis=1)
            chi2 += 0.0 if scale == "free" else ((s - 1) / 0.005) ** 2
            logs.append(np.log(np.exp(-0.5 * chi2).sum()))
        found = posterior.probability[i, j] / posterior.probability[190, 210]
        assert np.log(found) == pytest.approx(logs[0] - logs[1], abs=1e-6)


def test_limits_that_cut_are_told():
    posterior = gamma_posterior(data(np.array([20.0, 0.1, 1.0]), relative=0.004), MODEL)
    assert posterior.at_limits["fC"][0] > 0.5
    assert posterior.samples[:, 1].min() > 0
    assert posterior.mean[1] > 0.1


def test_a_common_error_goes_into_the_scale():
    whole = data(relative=0.004, noise=7)
    moved = GammaData(whole.names, whole.energy_MeV, 1.004 * whole.ratio, 1.004 * whole.error, whole.used)
    a, b = (fit_gammas(d, MODEL).minimum.values for d in (whole, moved))
    np.testing.assert_allclose(b, a * [1, 1, 1.004], rtol=1e-5)


def test_points_that_are_not_used_change_nothing():
    six = data(used=slice(0, 6), noise=9)
    wrong = GammaData(six.names, six.energy_MeV, six.ratio + 0.1 * ~six.used, six.error, six.used)
    a, b = fit_gammas(six, MODEL), fit_gammas(wrong, MODEL)
    np.testing.assert_array_equal(a.minimum.values, b.minimum.values)
    assert a.n_dof == 3
    assert np.abs(b.pulls[6:]).min() > 20


def test_own_errors():
    ratio, error = np.array([0.9125, 1.0239]), np.array([0.0046, 0.0082])
    np.testing.assert_array_equal(own_errors(ratio, error, "free"), error)
    np.testing.assert_array_equal(own_errors(ratio, error, "added"), error)
    # √(0.00465² - 0.0045625²) and √(0.00825² - 0.0051195²)
    np.testing.assert_allclose(own_errors(ratio, error, "included"), [8.978e-4, 6.4693e-3], rtol=1e-3)
    with pytest.raises(NuebarError, match=r"hold a common 0\.5 %, got 0\.002 at a ratio of 1"):
        own_errors(np.ones(1), np.array([0.002]), "included")
    with pytest.raises(NuebarError, match="free, added, included, got 'both'"):
        own_errors(ratio, error, "both")


def test_lines_are_those_of_the_catalogue():
    catalogue = load_sources()
    names = {"137Cs": "Cs137", "54Mn": "Mn54", "60Co": "Co60", "40K": "K40", "n-H": "nH", "n-C": "nC"}
    for line in LINES:
        if line.name in names:
            branches = catalogue[names[line.name]].settings.branches[: len(line.branches)]
            for (share, energies), branch in zip(line.branches, branches, strict=True):
                assert energies == pytest.approx(branch.gammas_MeV, abs=1e-4)
                assert share == pytest.approx(branch.share, abs=0.01)
        assert sum(share for share, _ in line.branches) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratio": np.ones(8)}, "expected 9 energies"),
        ({"error": np.zeros(9)}, "errors above 0"),
        ({"ratio": np.full(9, np.nan)}, "finite ratios"),
        ({"used": np.arange(9) < 2}, "at least 3 points for kB_g_cm2_GeV, fC, scale, got 2"),
    ],
)
def test_bad_points_are_refused(change, message):
    with pytest.raises(NuebarError, match=message):
        GammaData(**{**vars(data()), **change})


def test_no_samples_are_refused():
    with pytest.raises(NuebarError, match="expected a whole number above 0, got 0"):
        gamma_posterior(data(), MODEL, samples=0)


def test_the_box_is_wider_than_where_others_are_trained():
    assert BOX["kB_g_cm2_GeV"][0] < 6 < 24 < BOX["kB_g_cm2_GeV"][1]
    assert BOX["fC"][1] > 1
