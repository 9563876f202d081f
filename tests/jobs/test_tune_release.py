"""kB and fC from JUNO's release: a small run from end to end, its files, pictures and refusals."""

import csv
import shutil

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from nuebar.config import load_experiment
from nuebar.errors import NuebarError
from nuebar.io.posteriors import load_posterior
from nuebar.io.releases import read_juno_2025
from nuebar.io.results import load_result
from nuebar.jobs import tune_release
from nuebar.jobs.tune_release import fit_release, write_release_fit
from nuebar.report.tuning_release_plots import release_corner, release_curves

CASCADES = 4000


@pytest.fixture(scope="module")
def results(juno_2025_release):
    told = []
    fits = {
        points: fit_release(
            juno_2025_release,
            points=points,
            cascades=CASCADES,
            samples=1000,
            progress=lambda what, done, total: told.append((what, done, total)),
        )
        for points in ("all", "six")
    }
    assert [d for _, d, _ in told] == [0, 1, 2, 3, 4] * 2
    return fits


@pytest.mark.slow
def test_numbers_of_the_release(results):
    # With 50 000 cascades: kB 15.0 ± 3.4, fC 0.92 ± 0.48, χ² 1.4 of six; six points: kB 12.1 ± 4.6, fC 1.54 ± 0.92.
    every, six = results["all"].fit, results["six"].fit
    assert every.minimum.valid
    assert six.minimum.valid
    assert (every.n_dof, six.n_dof) == (6, 3)
    assert np.all(np.abs(every.minimum.values - [15.0, 0.92, 1.0016]) < [1.5, 0.2, 0.001])
    np.testing.assert_allclose(every.minimum.errors, [3.4, 0.48, 0.0026], rtol=0.1)
    assert np.all(np.abs(six.minimum.values - [12.1, 1.54, 1.0045]) < [2.0, 0.4, 0.002])
    assert every.chi2 < 3
    assert results["six"].unfitted_p_value > 0.3
    assert results["all"].unfitted_chi2 is None


@pytest.mark.slow
def test_only_one_reading_of_the_errors_is_refused_by_the_points(results):
    p = {(a["points"], a["scale"]): a["p_value"] for a in results["all"].alternatives}
    assert len(p) == 6
    assert all(value > 0.3 for (_, scale), value in p.items() if scale != "included")
    assert all(value < 1e-3 for (_, scale), value in p.items() if scale == "included")


@pytest.mark.slow
def test_curves_lie_near_the_released_ones(results):
    gamma, electron, positron = results["all"].curves
    assert [c.name for c in (gamma, electron, positron)] == ["gamma", "electron", "positron"]
    for curve in (gamma, electron, positron):
        assert np.all(curve.full_low <= curve.full_high)
        assert np.all(np.isfinite(curve.in_bands))
        inside = (curve.scintillation_low < curve.scintillation) & (curve.scintillation < curve.scintillation_high)
        assert inside.mean() > 0.9
    assert np.abs(positron.difference / positron.released).max() < 0.012
    assert np.mean(np.abs(positron.in_bands) < 1.3) > 0.95


@pytest.mark.slow
def test_instrumental_part_is_kept_apart(results, juno_2025_release):
    release = read_juno_2025(juno_2025_release)
    gamma, electron, _ = results["all"].curves
    # At its own knots the ratio is that of the two released curves.
    ratio = release.gamma.ratio / release.gamma_scintillation.y
    at = tune_release._instrument(release, release.gamma.energy_MeV * release.gamma_scintillation.y)
    np.testing.assert_allclose(at, ratio, rtol=1e-12)
    np.testing.assert_allclose(gamma.full / gamma.scintillation, ratio, atol=2e-4)
    np.testing.assert_array_equal(gamma.released_scintillation, release.gamma_scintillation.y)
    np.testing.assert_allclose(
        electron.full / electron.scintillation, electron.released / electron.released_scintillation, atol=5e-4
    )
    assert electron.full[-1] < electron.scintillation[-1]


@pytest.mark.slow
def test_points_that_were_not_fitted_have_both_errors(results):
    rows = results["six"].rows
    assert [row.fitted for row in rows] == [True] * 6 + [False] * 3
    for row in rows:
        assert row.pull == pytest.approx((row.ratio - row.predicted) / row.error)
        if row.fitted:
            assert row.joint_pull is None
        else:
            assert abs(row.joint_pull) < abs(row.pull)
        assert row.noise < 1e-3


@pytest.mark.slow
def test_files(results, tmp_path):
    paths = write_release_fit(results["six"], tmp_path / "out")
    assert all(path.is_file() for path in paths)
    assert {p.name for p in paths} == {p.name for p in (tmp_path / "out").iterdir()}
    record = load_result(tmp_path / "out" / "release-fit.json")
    assert record["fit"]["parameters"]["fC"]["value"] == results["six"].fit.minimum.value("fC")
    assert record["curves"]["positron"] == results["six"].curves[2].summary()
    posterior = load_posterior(tmp_path / "out" / "posterior.json")
    assert posterior.names == ("kB_g_cm2_GeV", "fC")
    np.testing.assert_array_equal(posterior.mean, results["six"].posterior.mean[:2])
    assert posterior.provenance["light_yield_per_MeV"] == "9846 (fixed)"
    with open(tmp_path / "out" / "curve-positron.csv", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 458
    assert float(table[0]["released"]) == results["six"].curves[2].released[0]
    with open(tmp_path / "out" / "points.csv", encoding="utf-8") as file:
        assert [row["name"] for row in csv.DictReader(file)][:2] == ["68Ge", "137Cs"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers(results, juno_2025_release):
    again = fit_release(juno_2025_release, points="six", cascades=CASCADES, samples=1000)
    np.testing.assert_array_equal(again.fit.minimum.values, results["six"].fit.minimum.values)
    np.testing.assert_array_equal(again.posterior.samples, results["six"].posterior.samples)
    np.testing.assert_array_equal(again.curves[2].full, results["six"].curves[2].full)


@pytest.mark.slow
def test_pictures(results):
    pytest.importorskip("matplotlib")
    before = dict(matplotlib.rcParams)
    result = results["six"]
    for figure in (
        release_corner(result.posterior.samples, result.fit.minimum.values),
        release_curves(result.rows, result.curves),
    ):
        assert isinstance(figure, Figure)
        assert len(figure.axes) >= 6
    assert dict(matplotlib.rcParams) == before


@pytest.mark.slow
def test_pictures_refuse_wrong_shapes(results):
    with pytest.raises(NuebarError, match=r"got shapes \(5, 2\)"):
        release_corner(np.ones((5, 2)), [1.0, 2.0, 3.0])
    with pytest.raises(NuebarError, match="more than 30 samples, got 5"):
        release_corner(np.ones((5, 3)), [1.0, 2.0, 3.0])
    with pytest.raises(NuebarError, match="expected points and the curves gamma, electron, positron"):
        release_curves(results["all"].rows, results["all"].curves[:1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": "seven"}, "points: expected all or six, got 'seven'"),
        ({"scale": "both"}, "scale: expected one of free, added, included, got 'both'"),
        ({"cascades": 3}, "cascades: expected at least 50, got 3"),
        ({"experiment": "juno-2025"}, r"expected a table \[detector\]"),
    ],
)
def test_bad_options_are_refused(options, message, juno_2025_release):
    if "experiment" in options:
        experiment = load_experiment(options["experiment"])
        if experiment.detector is not None and experiment.response.light_yield_per_MeV > 1:
            pytest.skip("this experiment can be simulated")
        options = {"experiment": experiment}
    with pytest.raises(NuebarError, match=message):
        fit_release(juno_2025_release, **options)


def test_other_points_are_refused(juno_2025_release, tmp_path):
    shutil.copytree(juno_2025_release, tmp_path / "release")
    path = tmp_path / "release" / "edfig2_gamma_ScintNL_data.csv"
    path.chmod(0o644)
    path.parent.chmod(0o755)
    text = path.read_text(encoding="utf-8").replace("0.8348", "0.8548")
    path.unlink()
    path.write_text(text, encoding="utf-8")
    with pytest.raises(NuebarError, match=r"expected gamma points at 0\.5113.*0\.8548.*not known"):
        fit_release(tmp_path / "release")
