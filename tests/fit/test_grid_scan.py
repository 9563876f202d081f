"""A grid of Δχ²: the model's own χ² minimised over what is profiled, the truth of Asimov data, refusals, files."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.optimize import minimize

from nuebar.cli import main
from nuebar.config import load_experiment, override, show
from nuebar.errors import NuebarError
from nuebar.fit import grid_scan as module
from nuebar.fit.grid_scan import default_axes, grid_scan, parse_axes
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.parameters import OSCILLATION
from nuebar.predict.harmonic import Windows
from nuebar.predict.spectrum import build_model

WORDS = ["sin2_th12=0.3:0.314:5", "dm2_31_eV2=2.52e-3:2.5366e-3:7", "sin2_th13=0.018:0.0256:3"]


def small_experiment(density):
    e = load_experiment("juno")
    cores = (e.reactor.cores[0], e.reactor.cores[4])
    e = dataclasses.replace(
        e, name="small", reactor=dataclasses.replace(e.reactor, cores=cores), backgrounds=e.backgrounds[:2]
    )
    changes = {
        "matter.density_g_cm3": density,
        "binning.segments": ((0.8, 8.8, 80),),
        "binning.fine_width_MeV": 0.05,
        "systematics.core": 0.0,
        "systematics.nonlinearity": False,
        "systematics.resolution": (),
        "systematics.fission_fractions": {},
        "systematics.spent_fuel": 0.0,
        "systematics.nonequilibrium": 0.0,
    }
    return override(e, changes)


def build(density):
    return build_model(small_experiment(density), windows=Windows.around_pdg(5))


@pytest.fixture(scope="module")
def vacuum():
    return build(0.0)


@pytest.fixture(scope="module")
def matter():
    return build(2.45)


def reference(fit, scan, index, variances):
    """χ² of the model at one point, minimised numerically over the profiled pulls."""
    values = fit.parameters.nominal()
    values |= {n: float(g[i]) for n, g, i in zip(scan.names, scan.grids, index, strict=True)}
    parts = fit.model.components(values)
    signal, names = parts["signal"], [n for n in scan.profiled if n.startswith("bkg_")]
    width = sum(fit.parameters[n].sigma ** 2 for n in scan.profiled if n.startswith("norm_")) ** 0.5

    def chi2(x):
        mu = signal * (1 + width * x[0]) if width else signal.copy()
        for name, pull in zip(names, x[1:], strict=True):
            mu = mu + parts[name[4:]] * fit.parameters[name].sigma * pull
        mu = mu + sum(parts[b] for b in fit.model.background_names)
        return np.sum((fit.counts - mu) ** 2 / variances) + np.sum(x**2)

    return minimize(chi2, np.zeros(1 + len(names)), method="BFGS", options={"gtol": 1e-7}).fun


def variances(fit, statistic):
    expected, extra = fit.model(fit.model.vector(fit.parameters.nominal()))
    return np.asarray(expected if statistic == "pearson" else fit.counts) + np.asarray(extra)


@pytest.mark.parametrize("statistic", ["pearson", "neyman"])
@pytest.mark.parametrize("fixed", [(), ("bkg_geoneutrinos", "bkg_world_reactors")], ids=["all", "norm"])
def test_the_models_own_chi2_minimised(vacuum, statistic, fixed):
    model, parameters = vacuum
    expected = np.asarray(model(model.vector(parameters.nominal()))[0])
    noisy = np.maximum(np.random.default_rng(5).poisson(expected), 1).astype(float)
    fit = SpectrumFit(model, parameters, noisy).fixing(fixed)
    scan = grid_scan(fit, parse_axes(WORDS), statistic=statistic)
    assert ("bkg_geoneutrinos" in scan.profiled) == (not fixed)
    random, v = np.random.default_rng(1), variances(fit, statistic)
    for _ in range(6):
        index = tuple(int(random.integers(n)) for n in scan.delta_chi2.shape)
        assert scan.delta_chi2[index] + scan.chi2_min == pytest.approx(reference(fit, scan, index, v), abs=2e-3)


@pytest.mark.parametrize("kind", ["vacuum", "matter"])
def test_the_truth_of_asimov_data(kind, request):
    model, parameters = request.getfixturevalue(kind)
    fit = SpectrumFit.asimov(model, parameters)
    ticks = []
    scan = grid_scan(fit, default_axes(parameters, points=5), progress=lambda k, n: ticks.append((k, n)))
    assert scan.best == pytest.approx({n: parameters[n].value for n in OSCILLATION})
    assert scan.chi2_min == pytest.approx(0.0, abs=1e-6)
    assert scan.delta_chi2.dtype == np.float32
    assert scan.delta_chi2.shape == (5, 5, 5, 5)
    assert ticks[-1] == (625, 625)
    assert not scan.at_edge


def test_matter_hardly_changes_within_a_scan(matter):
    model, parameters = matter
    fit = SpectrumFit.asimov(model, parameters)
    scan = grid_scan(fit, default_axes(parameters, points=3))
    v = variances(fit, "pearson")
    for index in ((0, 1, 1, 1), (2, 0, 2, 1), (1, 1, 2, 2), (1, 1, 0, 1)):
        assert scan.delta_chi2[index] == pytest.approx(reference(fit, scan, index, v), rel=5e-3)


def test_chunks_change_nothing(vacuum, monkeypatch):
    model, parameters = vacuum
    fit = SpectrumFit.asimov(model, parameters)
    whole = grid_scan(fit, parse_axes(WORDS))
    monkeypatch.setattr(module, "CHUNK", 13)
    np.testing.assert_allclose(grid_scan(fit, parse_axes(WORDS)).delta_chi2, whole.delta_chi2, atol=1e-5)


def test_profile_is_the_minimum_over_the_others(vacuum):
    scan = grid_scan(SpectrumFit.asimov(*vacuum), parse_axes(WORDS))
    np.testing.assert_array_equal(scan.profile(), scan.delta_chi2.min(axis=2))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("sin2_th12", "expected name=low:high:points"),
        ("sin2_th12=0.3:0.31", "expected name=low:high:points"),
        ("sin2_th12=0.31:0.3:4", "low < high"),
        ("sin2_th12=0.3:0.31:1", "at least 2 points"),
        ("sin2_th12=0.3:nan:4", "expected name=low:high:points"),
    ],
)
def test_wrong_words_are_refused(word, message):
    with pytest.raises(NuebarError, match=message):
        parse_axes([word])
    with pytest.raises(NuebarError, match="once"):
        parse_axes(["fC=0.1:0.2:3", "fC=0.1:0.2:3"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("dm2_21_eV2=2e-5:7e-5:4", "'dm2_21_eV2' = 2e-05 is outside the box"),
        ("dm2_31_eV2=2.5e-3:3.5e-3:4", "'dm2_31_eV2' = 0.0035 is outside the box"),
        ("sin2_th12=0.5:1.5:4", "'sin2_th12': expected a number from 0 to 1"),
        ("kB_g_cm2_GeV=11:13:4", "unknown parameter 'kB_g_cm2_GeV'; the harmonic predictor scans"),
        ("bkg_geoneutrinos=-1:1:4", "unknown parameter 'bkg_geoneutrinos'"),
        ("sin2_th12=0.3:0.31:100000000000", "at most 50000000 points"),
    ],
)
def test_axes_that_cannot_be_scanned(vacuum, word, message):
    with pytest.raises(NuebarError, match=message):
        grid_scan(SpectrumFit.asimov(*vacuum), parse_axes([word]))


def test_a_predictor_without_batches_is_refused(vacuum):
    model, parameters = build_model(small_experiment(0.0), predictor="matrix")
    with pytest.raises(NuebarError, match="harmonic or a surrogate predictor"):
        grid_scan(SpectrumFit.asimov(model, parameters), parse_axes(WORDS))


def test_the_command_writes_the_grid(tmp_path, capsys):
    path = tmp_path / "small.toml"
    path.write_text(show(small_experiment(2.45)), encoding="utf-8")
    out = tmp_path / "o"
    words = ["fit", "grid", "--experiment", path, "--asimov", "--no-pictures", "--out", out, "--scan", *WORDS]
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    assert not stop.value.code
    assert "105 points" in capsys.readouterr().out
    record = json.loads((out / "grid.json").read_text())
    with np.load(out / "grid.npz") as grid:
        assert list(grid["axes"]) == list(record["axes"])
        assert grid["delta_chi2"].shape == (5, 7, 3)
        np.testing.assert_allclose(grid["best"], [0.307, 2.5283e-3, 0.0218])
    lines = (out / "profile.csv").read_text().splitlines()
    assert lines[1] == "sin2_th12,dm2_31_eV2,delta_chi2"
    assert len(lines) == 2 + 35
