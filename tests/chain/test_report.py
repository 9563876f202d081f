"""The page of a run: every stage's numbers, warnings first, data never markup, and no failure takes it away."""

import importlib.util
import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nuebar.chain.report import PAGE, RECORD, run_page, run_record, write_report
from nuebar.chain.report_numbers import Row, agreement, notices_of, read_run
from nuebar.errors import NuebarError
from nuebar.fit.result import FitResult, ParameterResult
from nuebar.io.files import write_json
from nuebar.io.histograms import Histogram
from nuebar.io.posteriors import save_posterior
from nuebar.io.results import save_result
from nuebar.io.tunings import Goodness, SourceGoodness, TuningResult, save_tuning
from nuebar.report import run_figures
from nuebar.report.page import render
from nuebar.report.run_figures import Drawn
from nuebar.select.features import FEATURES

pytest.importorskip("jinja2", reason="the page needs jinja2")

EDGES = np.linspace(0.8, 8.8, 41)
CENTRES = 0.5 * (EDGES[1:] + EDGES[:-1])
TRUTH = {
    "oscillation": {"sin2_th12": 0.31, "sin2_th13": 0.0218, "dm2_21_eV2": 7.5e-5, "dm2_31_eV2": 2.53e-3},
    "response": {"kB_g_cm2_GeV": 15.0, "fC": 0.5, "light_yield_per_MeV": 10000.0},
}
VERSIONS = {"nuebar": "0.1", "python": "3.11", "numpy": "2.4", "jax": "0.10"}
ATTACK = '$\\frac{1$ 中 </script><script>alert(1)</script>"><img src=x onerror=alert(2)> & \u202e'


RUN_FILE = 'format = 1\ntitle = "JUNO"\n[report]\nexplorer = false\n'


def beside(name, folder):
    spec = importlib.util.spec_from_file_location(f"run_page_{name}", folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def components(names=("signal", "accidentals", "li9_he8", "geoneutrinos")):
    shapes = [np.exp(-(((CENTRES - 3.6) / 1.5) ** 2)) * (1 - 0.4 * np.cos(9 * CENTRES)), np.exp(-2 * (CENTRES - 0.8))]
    shapes += [np.exp(-(((CENTRES - 5) / 2.5) ** 2)), np.exp(-3 * (CENTRES - 0.8))]
    return {name: (n * s / s.sum()) for name, n, s in zip(names, (1500, 30, 40, 30), shapes, strict=True)}


def fit_result(**changes):
    at = {"sin2_th12": (0.317, 0.012, None), "sin2_th13": (0.0217, 0.00063, (0.0218, 0.00063))}
    at |= {"dm2_21_eV2": (7.61e-5, 0.08e-5, None), "dm2_31_eV2": (2.52e-3, 0.012e-3, None)}
    at |= {"kB_g_cm2_GeV": (15.1, 0.1, (15.05, 0.1)), "fC": (0.49, 0.016, (0.5, 0.016))}
    at |= {"light_yield_per_MeV": (9998.0, 7.0, (10001.0, 7.2)), "energy_scale": (0.002, 0.003, (0.0, 0.005))}
    at |= {"bkg_li9_he8": (1.1, 0.2, (1.0, 0.2)), "norm_flux": (0.99, 0.01, (1.0, 0.02))}
    parameters = {n: ParameterResult(v, e, -e, e, False, prior) for n, (v, e, prior) in at.items()}
    sigma = np.array([p.error for p in parameters.values()])
    rho = np.eye(len(sigma))
    rho[4, 5] = rho[5, 4] = -0.6
    fields = {
        "parameters": parameters, "covariance": rho * np.outer(sigma, sigma), "parameter_order": tuple(parameters),
        "chi2": 45.0, "chi2_pulls": 2.0, "n_bins": 40, "n_free": 3, "n_calls": 100, "edm": 1e-6, "valid": True,
        "reason": "converged", "ordering": "normal", "predictor": "surrogate", "statistic": "barlow-beeston",
        "derived": {"dm2_32_eV2": (2.44e-3, 0.012e-3)}, "experiment": "juno", "seed": 1, "versions": VERSIONS,
    }  # fmt: skip
    return FitResult(**(fields | changes))


def tuning_result(sources=("Cs137", "K40", "AmC"), **changes):
    rng = np.random.default_rng(2)
    names = ("kB_g_cm2_GeV", "fC", "light_yield_per_MeV")
    mean, sigma = np.array([15.05, 0.5, 10001.0]), np.array([0.1, 0.016, 7.2])
    rho = np.array([[1, -0.65, 0.9], [-0.65, 1, -0.85], [0.9, -0.85, 1]])
    covariance = rho * np.outer(sigma, sigma)
    goodness = tuple(SourceGoodness(s, 10000, 20, 18.0, 0.5, 1.8, (1.0, 1.2), 0.4, 0.7, 0.6) for s in sources)
    fields = {
        "names": names, "best": dict(zip(names, mean.tolist(), strict=True)),
        "errors": dict(zip(names, sigma.tolist(), strict=True)),
        "minos": {}, "mean": mean, "covariance": covariance, "samples": rng.multivariate_normal(mean, covariance, 200),
        "norms": dict.fromkeys(sources, 1.0), "norm_errors": dict.fromkeys(sources, 0.01), "at_limit": (),
        "limits": dict(zip(names, [(6.0, 24.0), (0.0, 1.0), (8000.0, 12000.0)], strict=True)), "log_likelihood": -1e5,
        "method": "nuts", "unbinned": False, "norm_treatment": "closed", "density": "spline",
        "density_provenance": {"digest": "1c27742b"}, "data": dict.fromkeys(sources, 10000), "seed": 1, "valid": True,
        "reason": "converged", "goodness": Goodness(goodness, 54.0, 54, 0.5, 0.4, 500), "versions": VERSIONS,
    }  # fmt: skip
    return TuningResult(**(fields | changes))


def write_select(place, names=FEATURES, sources=("ibd", "li9_he8", "geoneutrinos")):
    place.mkdir(parents=True)
    rng = np.random.default_rng(3)
    off = 30 * np.exp(-2 * (CENTRES - 0.8)) / np.exp(-2 * (CENTRES - 0.8)).sum()
    counts = rng.poisson(np.sum(list(components().values()), axis=0)).astype(float)
    Histogram(EDGES, counts, None, name="candidates").save(place / "prompt.json")
    Histogram(EDGES, off, off / 20, name="off time").save(place / "accidentals.json")
    n, total = int(counts.sum()), float(off.sum())
    pair = {"value": total, "error": 1.2}
    summary = {
        "kind": "selected sample", "classifier": {"name": "network", "digest": "16ab"}, "threshold": 5.36,
        "operating_point": "cuts", "selection": {"cuts": {"dr_m": 1.5, "dt_ms": 1.0}},
        "pairs": {"found": 90000, "vetoed": 100, "crowded": 0, "dropped": 0, "scored": 3000, "scored_off_time": 60000},
        "days": 30.0, "live_days": 27.5, "survival": 1.0, "candidates": n, "purity": 0.98,
        "accidentals": {**pair, "off_time_pairs": 620}, "excess": {"value": n - total, "error": math.sqrt(n)},
        "per_live_day": {"candidates": n / 27.5, "accidentals": [total / 27.5, 0.04], "excess": [n / 27.5, 1.4]},
        "versions": VERSIONS,
    }  # fmt: skip
    save_result(place / "summary.json", summary)
    curve = 0.93 + 0.01 * (CENTRES - 4)
    share = {"value": 0.93, "error": 0.001}
    one = {"pairs": 50000, "efficiency": [None, *curve[1:]], "efficiency_error": [None, *(0.003 + 0 * curve[1:])]}
    one["total"] = {"fiducial_share": share, "efficiency": share, "acceptance": share}
    record = {"kind": "selection efficiency", "edges_MeV": EDGES, "sources": dict.fromkeys(sources, one)}
    save_result(place / "efficiency.json", record)
    background = np.geomspace(0.01, 100, 30)
    efficiency = 1 - 0.1 / (1 + background)
    dr, dt = np.linspace(0, 5, 21), np.linspace(0, 2000, 21)
    values = rng.normal(size=(80, len(names))) * np.linspace(2, 0.1, len(names))
    found = {
        "kind": "selection diagnostics",
        "roc": {"threshold": np.linspace(12, -4, 30), "efficiency": efficiency,
                "efficiency_error": 0 * efficiency + 0.001,
                "background_per_day": background, "background_error": 0.1 * background,
                "operating_point": {"threshold": 5.36, "efficiency": 0.95, "background_per_day": 1.1}},
        "boundary": {"dr_m": dr, "dt_us": dt, "score": 12 - 4 * dr[:, None] - dt / 200, "threshold": 5.36,
                     "others": {}},
        "shap": {"features": list(names), "values": values, "data": rng.normal(size=values.shape),
                 "importance": np.abs(values).mean(axis=0), "importance_error": 0.05 + 0 * values[0]},
        "note": "",
    }  # fmt: skip
    save_result(place / "diagnostics.json", found)


def write_tune(place, sources=("Cs137", "K40", "AmC"), **changes):
    place.mkdir(parents=True)
    rng = np.random.default_rng(4)
    result = tuning_result(sources, **changes)
    save_tuning(place / "tuning.json", result)
    save_posterior(place / "posterior.json", result.to_posterior())
    spectra = {}
    for k, source in enumerate(sources):
        edges = np.linspace(0.5 + k, 1.5 + k, 61)
        middle = 0.5 * (edges[1:] + edges[:-1])
        mu = 1 + 800 * np.exp(-(((middle - 1 - k) / 0.1) ** 2))
        spectra[source] = {"edges": edges, "counts": rng.poisson(mu), "expected": mu}
    levels = np.array([0.2, 0.4, 0.6, 0.8, 0.95])
    pull = {"mean": 0.02, "mean_error": 0.07, "width": 1.01, "width_error": 0.05}
    coverage = {
        "parameters": list(result.names), "levels": levels, "covered": dict.fromkeys(result.names, levels),
        "replicas": 200, "failed": 0, "pulls": dict.fromkeys(result.names, pull),
    }  # fmt: skip
    save_result(place / "diagnostics.json", {"kind": "tuning diagnostics", "coverage": coverage, "spectra": spectra})


def write_predict(place, names=("signal", "accidentals", "li9_he8", "geoneutrinos"), p_value=0.4):
    place.mkdir(parents=True)
    parts = components(names)
    total = np.sum(list(parts.values()), axis=0)
    reference = {"counts": total, "errors": 0.01 * total, "surrogate": total * 1.002, "events": 400000, "chi2": 41.0,
                 "n_bins": 40, "p_value": p_value}  # fmt: skip
    record = {"kind": "prediction", "edges_MeV": EDGES, "components": parts, "expected": total,
              "unoscillated": 3 * parts[names[0]], "reference": reference}  # fmt: skip
    save_result(place / "prediction.json", record)


def write_fit(place, result=None, names=("signal", "accidentals", "li9_he8", "geoneutrinos"), warnings=()):
    place.mkdir(parents=True)
    result = result or fit_result()
    parts = components(names)
    counts = np.random.default_rng(3).poisson(np.sum(list(parts.values()), axis=0))
    a, b = np.linspace(0.27, 0.36, 7), np.linspace(7.3e-5, 7.9e-5, 7)
    plane = ((a[:, None] - 0.317) / 0.012) ** 2 + ((b - 7.61e-5) / 0.08e-5) ** 2
    impacts = {n: {"bkg_li9_he8": 0.2 * result.parameters[n].error, "norm_flux": -0.1 * result.parameters[n].error}
               for n in ("sin2_th12", "dm2_21_eV2")}  # fmt: skip
    record = {
        "kind": "fit of a run", "edges_MeV": EDGES, "counts": counts, "components": parts,
        "expected": np.sum(list(parts.values()), axis=0), "extra_variance": 0.1 + 0 * counts,
        "unoscillated": 3 * parts[names[0]],
        "contour": {"names": ["sin2_th12", "dm2_21_eV2"], "grids": [a, b], "delta_chi2": plane},
        "profile": {"name": "dm2_31_eV2", "grid": 2.4e-3 + 2e-5 * np.arange(12), "level": 1.0,
                    "delta_chi2": (np.arange(12) - 6) ** 2 / 4, "low": 2.48e-3, "high": 2.56e-3},
        "other_minima": [{"parameter": "dm2_31_eV2", "value": 2.41e-3, "delta_chi2": 3.5}],
        "impacts": impacts, "goodness": {"chi2": 45.0, "n_dof": 37, "p_value": 0.17}, "prior_dominated": [],
        "live_days": 27.5, "statistic": "barlow-beeston", "warnings": list(warnings),
    }  # fmt: skip
    save_result(place / "fit.json", record)
    save_result(place / "result.json", {"kind": "fit result", **result.to_dict()})


def write_run(home, **changes):
    digest = {"simulate": "a1", "select": "b2", "tune": "c3", "predict": "d4", "fit": "e5"}
    reads = {"simulate": {}, "select": {"simulate": "a1"}, "tune": {"simulate": "a1"}, "predict": {"tune": "c3"},
             "fit": {"select": "b2", "tune": "c3"}}  # fmt: skip
    stages = {s: {"seconds": 12.5, "versions": VERSIONS, "commit": "0" * 40, "inputs": reads[s], "digest": d}
              for s, d in digest.items()}  # fmt: skip
    record = {"kind": "run", "command": "nuebar run", "title": "JUNO, 30 days (simulated)", "experiment": "juno",
              "seed": 1, "simulated": True, "outside": [], "commit": "0" * 40, "versions": VERSIONS,
              "stages": stages}  # fmt: skip
    save_result(home / "run.json", record | changes)
    (home / "run.toml").write_text(RUN_FILE, encoding="utf-8")


def write_whole(home, **changes):
    home.mkdir(exist_ok=True)
    (home / "simulate").mkdir()
    save_result(home / "simulate" / "truth.json", {"kind": "truth", **TRUTH})
    write_select(home / "select")
    write_tune(home / "tune")
    write_predict(home / "predict")
    write_fit(home / "fit")
    write_run(home, **changes)
    return home


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_whole(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(whole):
    path = write_report(whole)
    return path.read_text(encoding="utf-8"), json.loads((path.parent / RECORD).read_text(encoding="utf-8"))


@pytest.fixture
def sketched(monkeypatch):
    """Figures are made, but neither laid out nor written: where only words are looked at."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    drawn = Drawn(b'<svg xmlns="http://www.w3.org/2000/svg"/>', "svg", 5.2, 4.0)
    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", lambda *_: None)
    monkeypatch.setattr(run_figures, "drawn", lambda draw: (draw(), drawn)[1])


def changed(path, **changes):
    """The same JSON file with other values; keys with dots lead inside."""
    record = json.loads(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        place = record
        *way, last = key.split("__")
        for step in way:
            place = place[step]
        place[last] = value
    write_json(path, record)


# ---------------------------------------------------------------- the whole


SECTIONS = ["diagnostics", "result", "select", "tune", "predict", "fit", "provenance"]
PICTURES = [
    "result-recovered", "select-prompt", "select-efficiency", "select-roc", "select-boundary", "select-importance",
    "select-shap", "tune-spectra", "tune-corner", "tune-coverage", "predict-spectrum", "predict-residuals",
    "fit-spectrum", "fit-contour", "fit-profile", "fit-correlations", "fit-pulls", "fit-impacts",
]  # fmt: skip


def test_a_whole_run_has_every_section_and_picture_in_order(page):
    text, record = page
    assert re.findall(r'<section id="([a-z]+)"', text) == SECTIONS
    assert re.findall(r'<figure id="([a-z-]+)"', text) == PICTURES
    assert {n["level"] for n in record["notices"]} == {"ok"}
    assert len(text.encode()) < 3_000_000
    for word in ("0.317 ± 0.012", "+0.58 σ", "add next to nothing (○)", "nuebar run", "1c27742b", "62.5", "p = 0.17"):
        assert word in text.replace("\u00a0", " "), word


def test_the_record_holds_the_numbers_of_the_page(page, whole):
    _, record = page
    assert record["format"] == 1
    rows = {(r["where"], r["name"]): r for r in record["recovered"]}
    assert rows["spectrum fit", "sin2_th12"]["sigmas"] == pytest.approx((0.317 - 0.31) / 0.012)
    assert rows["calibration", "fC"]["sigmas"] == pytest.approx(0.0)
    dominated = {r["name"] for r in record["recovered"] if r["prior_dominated"]}
    assert dominated == {"sin2_th13", "kB_g_cm2_GeV", "fC", "light_yield_per_MeV"}
    for place, name in (("fit", "fit.json"), ("predict", "prediction.json")):
        stage = json.loads((whole / place / name).read_text(encoding="utf-8"))
        assert {k: v for k, v in record[place].items() if k in stage} == stage
    assert record["select"]["prompt"]["counts"] == record["fit"]["counts"]
    assert set(record["provenance"]["stages"]) == {"simulate", "select", "tune", "predict", "fit"}
    assert "samples" not in record["tune"]
    assert record["missing"] == []


def test_numbers_that_do_not_exist_are_null(tmp_path, sketched):
    home = write_whole(tmp_path / "run")
    name = "sin2_th12"
    bad = fit_result()
    parameters = dict(bad.parameters) | {name: replace(bad.parameters[name], error=math.nan, error_minus=math.nan)}
    covariance = np.full_like(bad.covariance, math.nan)
    save_result(
        home / "fit" / "result.json",
        replace(bad, parameters=parameters, covariance=covariance, valid=False, reason="no covariance").to_dict(),
    )
    write_report(home)

    def refuse(word):
        raise AssertionError(word)

    text = (home / "report" / RECORD).read_text(encoding="utf-8")
    record = json.loads(text, parse_constant=refuse)
    assert next(r for r in record["recovered"] if r["name"] == name)["sigmas"] is None
    page = (home / "report" / PAGE).read_text(encoding="utf-8")
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]*", "", page), re.IGNORECASE)


def test_the_same_run_gives_the_same_bytes(tmp_path, sketched):
    home = write_whole(tmp_path / "run")
    files = [write_report(home, out=tmp_path / name) for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].with_name(RECORD).read_bytes() == files[1].with_name(RECORD).read_bytes()


# ---------------------------------------------------------------- recovered numbers


@pytest.mark.parametrize(
    ("value", "minus", "plus", "truth", "sigmas"),
    [
        (3.0, -1.0, 1.0, 1.0, 2.0),
        (3.0, -2.0, 1.0, 1.0, 1.0),
        (3.0, -2.0, 0.5, 4.0, -2.0),
        (3.0, math.nan, math.nan, 1.0, 2.0),
    ],
)
def test_the_error_of_the_side_of_the_truth_counts(value, minus, plus, truth, sigmas):
    row = Row("x", "spectrum fit", value, 1.0, minus, plus, truth=truth)
    assert row.sigmas == pytest.approx(sigmas)


def test_a_parameter_is_dominated_by_its_prior_above_nine_tenths_of_its_width():
    rows = [Row("x", "spectrum fit", 0.0, e, -e, e, prior=(0.0, 1.0)) for e in (0.89, 0.91)]
    assert [row.prior_dominated for row in rows] == [False, True]
    assert not replace(rows[1], fixed=True).prior_dominated
    assert Row("x", "spectrum fit", 0.0, 1.0, -1.0, 1.0, fixed=True, truth=3.0).sigmas is None


def test_agreement_is_the_distance_in_units_of_the_covariance(tmp_path):
    home = write_whole(tmp_path / "run")
    run = read_run(home)
    found = agreement(run)
    names = found["parameters"]
    result = run.result
    index = [result.parameter_order.index(n) for n in names]
    away = np.array([result.parameters[n].value - run.truth[n] for n in names])
    sigma = np.sqrt(np.diag(result.covariance))[index]
    pulls, rho = away / sigma, result.correlation[np.ix_(index, index)]
    assert found["chi2"] == pytest.approx(pulls @ np.linalg.inv(rho) @ pulls)
    assert found["chi2"] != pytest.approx(pulls @ pulls), "correlations are left out"
    assert found["n"] == 7
    assert found["left_out"] == []


def test_a_parameter_with_a_lopsided_interval_is_left_out_of_the_agreement(tmp_path):
    home = small(tmp_path / "run", "fit")
    (home / "simulate").mkdir()
    save_result(home / "simulate" / "truth.json", {"kind": "truth", **TRUTH})
    result = fit_result()
    parameters = dict(result.parameters)
    parameters["dm2_31_eV2"] = replace(parameters["dm2_31_eV2"], error_plus=0.1e-3)
    save_result(home / "fit" / "result.json", replace(result, parameters=parameters).to_dict())
    run = read_run(home)
    assert agreement(run)["left_out"] == ["dm2_31_eV2"]
    assert agreement(run)["n"] == 6
    assert any("without dm2_31_eV2" in n.text for n in notices_of(run))


# ---------------------------------------------------------------- notices


def small(home, *stages):
    """A run of some stages only."""
    makers = {"select": write_select, "tune": write_tune, "predict": write_predict, "fit": write_fit}
    home.mkdir(exist_ok=True)
    for stage in stages:
        makers[stage](home / stage)
    return home


def fit_with(home, **changes):
    save_result(home / "fit" / "result.json", fit_result(**changes).to_dict())


def fit_says(**changes):
    return lambda home: changed(home / "fit" / "fit.json", **changes)


def selection_says(name, **changes):
    return lambda home: changed(home / "select" / name, **changes)


def tuned(**changes):
    return lambda home: save_tuning(home / "tune" / "tuning.json", tuning_result(**changes))


def lost_coverage(home):
    changed(home / "tune" / "diagnostics.json", coverage__covered__fC=[0.1, 0.2, 0.4, 0.6, 0.8])


def poor_surrogate(home):
    changed(home / "predict" / "prediction.json", reference__p_value=1e-6)


CASES = [
    ("fit", lambda home: fit_with(home, valid=False, reason="far"), "bad", "fit: The fit is not valid: far"),
    ("fit", lambda home: fit_with(home, at_limit=("fC",)), "bad", "fit: On a limit: fC"),
    ("fit", fit_says(goodness__p_value=1e-5), "bad", "p = 1e-05"),
    ("fit", fit_says(goodness__p_value=0.005), "look", "p = 0.005"),
    ("fit", fit_says(warnings=["odd bins"]), "look", "fit: odd bins"),
    ("tune", tuned(valid=False, reason="far"), "bad", "tune: The tuning is not valid: far"),
    ("tune", tuned(warnings=("few events",)), "look", "tune: few events"),
    ("tune", tuned(at_limit=("fC",)), "bad", "tune: On the edge of its range: fC"),
    ("tune", lost_coverage, "bad", "Coverage of fC"),
    ("predict", poor_surrogate, "bad", "The surrogate against"),
    ("select", selection_says("summary.json", accidentals__off_time_pairs=4), "look", "rests on 4 off-time pairs"),
    ("select", selection_says("summary.json", live_days=3.0), "look", "Only 3 of 30 days"),
    ("select", selection_says("summary.json", purity=0.3), "look", "Only 30 % of the candidates"),
    ("select", selection_says("diagnostics.json", note="hardly measured"), "look", "select: hardly measured."),
]


@pytest.mark.parametrize(("stage", "spoil", "level", "words"), CASES, ids=[case[3] for case in CASES])
def test_what_is_wrong_is_said_first(tmp_path, stage, spoil, level, words):
    home = small(tmp_path / "run", stage)
    before = [n for n in notices_of(read_run(home)) if n.level != "ok"]
    assert before == []
    spoil(home)
    found = [n for n in notices_of(read_run(home)) if words in f"{n.stage}: {n.text}"]
    assert [n.level for n in found] == [level]


def test_what_does_not_belong_together_is_said(tmp_path):
    home = write_whole(tmp_path / "run", outside=["data.stream = /elsewhere/x.parquet"])
    changed(home / "run.json", stages__fit__versions__jax="0.11", stages__fit__inputs__tune="old")
    texts = dict((t, level) for level, t in ((n.level, f"{n.stage}: {n.text}") for n in notices_of(read_run(home))))
    assert any("jax changed between the stages" in t and "0.11 in fit" in t for t in texts)
    assert texts["fit: It was made from another result of tune than the one that is here."] == "bad"
    assert any("/elsewhere/x.parquet" in t and level == "look" for t, level in texts.items())


def test_a_posterior_cut_by_the_limits_of_the_fit_is_said(tmp_path):
    home = small(tmp_path / "run", "tune", "fit")
    result = fit_result()
    parameters = dict(result.parameters)
    parameters["fC"] = replace(parameters["fC"], limits=(0.0, 0.52))
    save_result(home / "fit" / "result.json", replace(result, parameters=parameters).to_dict())
    assert any("posterior of fC" in n.text and n.level == "look" for n in notices_of(read_run(home)))


def test_a_result_far_from_the_truth_is_a_problem(tmp_path):
    home = write_whole(tmp_path / "run")
    changed(home / "simulate" / "truth.json", oscillation__sin2_th12=0.21)
    texts = [f"{n.level} {n.text}" for n in notices_of(read_run(home))]
    assert any(t.startswith("bad sin2_th12 lies +8.9 σ from the truth") for t in texts)
    assert any(t.startswith("bad All 7 fitted parameters together") for t in texts)


# ---------------------------------------------------------------- what is not there


@pytest.mark.parametrize("stages", [("select",), ("tune", "fit"), ("select", "predict")])
def test_missing_stages_leave_a_sentence(tmp_path, sketched, stages):
    home = small(tmp_path / "run", *stages)
    text = write_report(home).read_text(encoding="utf-8")
    record = json.loads((home / "report" / RECORD).read_text(encoding="utf-8"))
    absent = [s for s in ("select", "tune", "predict", "fit") if s not in stages]
    assert record["missing"] == absent
    for stage in ("select", "tune", "predict", "fit"):
        assert (f"No stage {stage}:" in text) == (stage in absent)
    assert not [n for n in record["notices"] if n["level"] == "bad" or "could not" in n["text"]]
    assert "Truth" not in text
    assert record["agreement_with_truth"] is None


def test_a_blinded_fit_has_no_truth_beside_it(tmp_path, sketched):
    home = write_whole(tmp_path / "run")
    fit_with(home, blinded=True)
    text = write_report(home).read_text(encoding="utf-8")
    record = json.loads((home / "report" / RECORD).read_text(encoding="utf-8"))
    assert "BLINDED" in text
    assert all(r["truth"] is None for r in record["recovered"] if r["where"] == "spectrum fit")
    assert record["agreement_with_truth"] is None
    assert "Δm²₃₂" not in text


class Live:
    html = "<p id='spectrum'>moves</p>"
    script = "document.title += '!';"


def test_the_explorer_is_on_the_page_but_not_beside_a_blinded_fit(tmp_path, monkeypatch):
    monkeypatch.setattr("nuebar.chain.report._Builder.picture", lambda *_, **__: [])
    monkeypatch.setattr("nuebar.chain.report._live", lambda _: Live())
    home = write_whole(tmp_path / "run")
    text = write_report(home).read_text(encoding="utf-8")
    assert Live.html in text
    assert f"<script>\n{Live.script}\n</script>" in text
    fit_with(home, blinded=True)
    assert "<script" not in write_report(home).read_text(encoding="utf-8")


def test_an_explorer_that_fails_leaves_a_note(tmp_path, monkeypatch):
    monkeypatch.setattr("nuebar.chain.report._Builder.picture", lambda *_, **__: [])
    monkeypatch.setattr("nuebar.chain.report._live", lambda _: 1 / 0)
    page, notices = run_page(read_run(write_whole(tmp_path / "run")))
    assert [s.name for s in page.sections] == SECTIONS
    assert [n.level for n in notices if "explorer could not be made" in n.text] == ["note"]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(NuebarError, match="expected the folder of a run"):
            write_report(place)
    assert list(tmp_path.iterdir()) == []


FILES = [
    "run.json", "simulate/truth.json", "select/summary.json", "select/prompt.json", "select/accidentals.json",
    "select/efficiency.json", "select/diagnostics.json", "tune/tuning.json", "tune/posterior.json",
    "tune/diagnostics.json", "predict/prediction.json", "fit/fit.json", "fit/result.json",
]  # fmt: skip


@pytest.mark.parametrize(
    "content", ["", '{"format": 1, "edges_MeV": [0, 1', '{"format": 1}'], ids=["empty", "cut", "bare"]
)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_takes_nothing_else_with_it(tmp_path, monkeypatch, name, content):
    """The page is made without what was in the file; what cannot be read at all is said first."""
    monkeypatch.setattr("nuebar.chain.report._Builder.picture", lambda *_, **__: [])
    home = write_whole(tmp_path / "run")
    (home / name).write_text(content, encoding="utf-8")
    page, notices = run_page(read_run(home))
    assert [s.name for s in page.sections] == SECTIONS
    if content != '{"format": 1}':
        assert [n.level for n in notices if f"{name} cannot be read" in n.text] == ["bad"]


@pytest.mark.parametrize("value", [None, {"a": [-1]}], ids=repr)
def test_values_of_another_kind_take_no_page_with_them(tmp_path, monkeypatch, value):
    monkeypatch.setattr("nuebar.chain.report._Builder.picture", lambda *_, **__: [])
    whole = write_whole(tmp_path / "run")
    for k, name in enumerate(FILES):
        stage = name.partition("/")[0]
        home = small(tmp_path / str(k), stage if stage in SECTIONS else "predict")
        record = json.loads((whole / name).read_text(encoding="utf-8"))
        (home / name).parent.mkdir(exist_ok=True)
        for key in record:
            if key != "format":
                write_json(home / name, record | {key: value})
                run = read_run(home)
                page, notices = run_page(run)
                assert len(page.sections) == len(SECTIONS)
                assert "notices" in run_record(run, notices)
    assert "<h1>" in render(page)


def test_a_page_that_cannot_be_made_leaves_both_files_as_they_were(tmp_path, sketched, monkeypatch):
    home = write_whole(tmp_path / "run")
    files = [home / "report" / name for name in (PAGE, RECORD)]
    write_report(home)
    before = [path.read_bytes() for path in files]
    changed(home / "run.json", title="another")
    monkeypatch.setattr("nuebar.chain.report.render", lambda _: (_ for _ in ()).throw(NuebarError("too large")))
    with pytest.raises(NuebarError, match="too large"):
        write_report(home)
    assert [path.read_bytes() for path in files] == before
    assert sorted(p.name for p in (home / "report").iterdir()) == [PAGE, RECORD]


def test_who_reads_the_page_while_it_is_written_anew_reads_the_old_one(tmp_path, sketched):
    home = small(tmp_path / "run", "predict")
    path = write_report(home)
    opened, before = path.open("rb"), path.read_bytes()
    write_tune(home / "tune")
    write_report(home)
    with opened:
        assert opened.read() == before
    assert path.read_bytes() != before


def test_a_place_that_is_a_file_is_refused(tmp_path, sketched):
    home = small(tmp_path / "run", "tune")
    (tmp_path / "file").write_text("x")
    with pytest.raises(NuebarError, match="got a file"):
        write_report(home, out=tmp_path / "file")


# ---------------------------------------------------------------- data are not markup


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """A run whose every name, title and warning is an attack; figures are drawn for real."""
    home = tmp_path_factory.mktemp("attacked")
    names = [f"{ATTACK} {k}" for k in range(5)]
    write_select(home / "select", names=(*FEATURES[:4], names[0]), sources=("ibd", names[1]))
    write_tune(home / "tune", sources=("Cs137", *names[:2]), warnings=(ATTACK,), density=ATTACK, reason=ATTACK)
    write_predict(home / "predict", names=("signal", *names[:3]))
    result = fit_result(reason=ATTACK, valid=False, experiment=ATTACK, predictor=ATTACK)
    parameters = dict(result.parameters) | {names[3]: ParameterResult(1.0, 0.5, -0.5, 0.5, False, (0.0, 1.0))}
    covariance = np.diag([p.error**2 for p in parameters.values()])
    result = replace(result, parameters=parameters, covariance=covariance, parameter_order=tuple(parameters))
    write_fit(home / "fit", result, names=("signal", *names[:3]), warnings=(ATTACK,))
    changed(home / "fit" / "fit.json", impacts={names[3]: {names[4]: 0.1, "norm_flux": 0.2}})
    write_run(home, title=ATTACK, experiment=ATTACK, command=ATTACK, seed=1, outside=[ATTACK], commit=ATTACK)
    (home / "run.toml").write_text(f"# {ATTACK}\n{RUN_FILE}", encoding="utf-8")
    path = write_report(home)
    return path, json.loads(path.with_name(RECORD).read_text(encoding="utf-8"))


def test_no_name_of_the_data_becomes_markup_or_mathematics(attacked):
    path, record = attacked
    text = path.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img src=x" not in text
    assert text.count("<img ") == len(PICTURES) - 1, "a figure is missing"  # without truth none of the truth
    assert not [n for n in record["notices"] if "could not" in n["text"]]
    assert "\u202e" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_a_browser_shows_the_attacked_page_quietly(attacked):
    path, _ = attacked
    browser = beside("browser", Path(__file__).parents[1] / "report")
    for width in (390, 1400):
        with browser.open_page(path, width=width, height=844, touch=width == 390) as opened:
            dialogs = []
            opened.page.on("dialog", lambda d, seen=dialogs: (seen.append(d.message), d.dismiss()))
            opened.page.wait_for_timeout(200)
            assert dialogs == []
            assert opened.complaints == []
            assert opened.outside == []
            wide = opened.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
            assert wide[0] <= wide[1]
            broken = opened.page.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length")
            assert broken == 0
