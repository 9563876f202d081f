"""``nuebar predict build`` from Monte Carlo and fits with what it makes: folders, words, and one-sentence refusals."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nuebar.cli import main
from nuebar.config import load_experiment, override, show
from nuebar.predict.signal import signal_inputs
from nuebar.predict.store import load_predictor


@pytest.fixture(scope="module")
def experiment():
    e = load_experiment("juno")
    e = dataclasses.replace(
        e,
        name="small",
        reactor=dataclasses.replace(e.reactor, cores=(e.reactor.cores[0], e.reactor.cores[4])),
        backgrounds=e.backgrounds[1:2],
    )
    changes = {
        "binning.segments": ((0.8, 8.8, 40),),
        "systematics.nonlinearity": False,
        "systematics.resolution": (),
        "systematics.fission_fractions": {},
        "systematics.core": 0.0,
        "systematics.spent_fuel": 0.0,
        "systematics.nonequilibrium": 0.0,
        "fit.shape_uncertainties": False,
    }
    return override(e, changes)


@pytest.fixture(scope="module")
def toml(experiment, tmp_path_factory):
    path = tmp_path_factory.mktemp("experiment") / "small.toml"
    path.write_text(show(experiment), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def columns(experiment):
    """Pairs of the two reactors all over the scintillator."""
    a = signal_inputs(experiment)
    random = np.random.default_rng(4)
    chosen = random.choice(a.events.size, 100_000, p=a.events.ravel() / a.events.sum())
    core, node = np.unravel_index(chosen, a.events.shape)
    e_nu = a.e_nu_MeV[node]
    e_rec = e_nu - 0.78 + 0.03 * np.sqrt(e_nu - 0.78) * random.standard_normal(e_nu.size)
    radius = 17.7 * random.random(e_nu.size) ** (1 / 3)
    zero = np.zeros_like(radius)
    return {
        "true_e_nu_MeV": e_nu,
        "prompt_e_rec_MeV": np.maximum(e_rec, 0.05),
        "true_baseline_km": a.baseline_km[core],
        "prompt_x_m": radius,
        "prompt_y_m": zero,
        "prompt_z_m": zero,
    }


def write(path, columns):
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture(scope="module")
def pairs(columns, tmp_path_factory):
    return write(tmp_path_factory.mktemp("pairs") / "pairs.parquet", columns)


def call(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err


def test_pairs_become_a_folder_and_a_fit(capsys, toml, pairs, columns, tmp_path):
    code, out, _ = call(
        capsys, "predict", "build", "harmonic", "--pairs", pairs, "--experiment", toml, "--bins", 80, "--sigma", 5,
        "--out", tmp_path / "m",
    )  # fmt: skip
    assert code == 0
    inside = columns["prompt_x_m"] <= 17.2
    predictor = load_predictor(tmp_path / "m")
    assert predictor.provenance["source"] == "pairs"
    assert predictor.provenance["experiment"] == "small"
    built = float(predictor.provenance["unoscillated_events"])
    seen = inside & (columns["prompt_e_rec_MeV"] >= 0.8) & (columns["prompt_e_rec_MeV"] < 8.8)
    assert predictor.unoscillated().sum() == pytest.approx(built * seen.sum() / inside.sum(), rel=1e-9)
    assert f"{seen.sum():,} events within 17.2 m" in out
    fit = ("fit", "spectrum", "--experiment", toml, "--asimov", "--no-contour", "--no-pictures")
    code, out, _ = call(capsys, *fit, "--predictor", tmp_path / "m", "--mc-error", "--out", tmp_path / "f",
                        "--exposure-days", 1000)  # fmt: skip
    assert code == 0
    for part in ("FCN =", "Nfcn =", "Ngrad =", "EDM =", "Goal: 1e-05", "Valid Minimum", "No parameters at limit",
                 "Hesse ok", "Covariance accurate", "Minos Err-", "Limit+", "Fixed"):  # fmt: skip
        assert part in out
    assert "bins of the predictor" not in out  # 80 bins hold the experiment's 40
    record = json.loads((tmp_path / "f" / "result.json").read_text())
    assert record["statistic"] == "pearson + MC error"
    assert record["n_bins"] == 40
    assert record["n_gradients"] > 0
    assert record["parameters"]["dm2_21_eV2"]["limits"][0] >= predictor.box["dm2_21_eV2"][0]


def test_pairs_are_fitted_without_a_folder(capsys, toml, pairs):
    words = ("--experiment", toml, "--asimov", "--no-contour", "--predictor", "reweight", "--pairs", pairs)
    code, out, _ = call(capsys, "fit", "spectrum", *words, "--bins", 33, "--no-fiducial")
    assert code == 0
    assert "bins of the predictor instead of the experiment's 40" in out
    assert "reweight predictor" in out


def test_a_matrix_from_pairs_keeps_their_spectrum(capsys, toml, pairs, columns, tmp_path):
    code, *_ = call(capsys, "predict", "build", "matrix", "--pairs", pairs, "--experiment", toml, "--bins", 60,
                    "--no-fiducial", "--out", tmp_path)  # fmt: skip
    assert code == 0
    predictor = load_predictor(tmp_path)
    counts, _ = np.histogram(columns["prompt_e_rec_MeV"], np.linspace(0.8, 8.8, 61))
    scale = float(predictor.provenance["unoscillated_events"]) / 100_000
    np.testing.assert_allclose(predictor.unoscillated(), scale * counts, rtol=1e-9)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["build", "surrogate"], "made from cascades, got none"),
        (["build", "harmonic", "--pairs", "PAIRS", "--cascades", "x"], "not both"),
        (["build", "matrix", "--pairs", "PAIRS", "--vacuum"], "--vacuum"),
        (["build", "harmonic", "--columns", "map.toml"], "--columns"),
        (["build", "harmonic", "--kB", 12, "--fC", 0.5, "--light-yield", 9800], "--cascades only"),
        (["build", "harmonic", "--pairs", "PAIRS", "--bins", 3], "at least 10 bins"),
        (["build", "harmonic", "--pairs", "PAIRS", "--bins", 30, "--experiment-bins"], "not both"),
        (["build", "harmonic", "--pairs", "nothing.parquet"], "nothing.parquet"),
        (["build", "harmonic", "--pairs", "NAN"], "true_e_nu_MeV"),
        (["build", "harmonic", "--pairs", "BARE"], "--no-fiducial"),
        (["build", "network", "--pairs", "PAIRS", "--recipe", "magic", "--bins", 20], "--recipe"),
        (["build", "oracle"], "oracle"),
        (["fit", "--predictor", "reweight"], "needs Monte Carlo pairs"),
        (["fit", "--predictor", "magic"], "unknown predictor 'magic'"),
        (["fit", "--predictor", "network", "--pairs", "PAIRS"], "harmonic, matrix, reweight"),
        (["fit", "--bins", 30], "belong to --pairs"),
        (["fit", "--response", "nothing.json"], "nothing.json"),
        (["fit", "--mc-error"], "does not know its Monte Carlo error"),
        (["fit", "--free", "smear_a"], "smear_a"),
    ],
)
def test_refusals_are_one_sentence(capsys, toml, pairs, columns, tmp_path, words, sentence):
    if "NAN" in words:
        broken = dict(columns, true_e_nu_MeV=np.where(np.arange(100_000) == 77, np.nan, columns["true_e_nu_MeV"]))
        write(tmp_path / "nan.parquet", broken)
    if "BARE" in words:
        write(tmp_path / "bare.parquet", {n: c for n, c in columns.items() if not n.startswith("prompt_x")})
    paths = {"PAIRS": pairs, "NAN": tmp_path / "nan.parquet", "BARE": tmp_path / "bare.parquet"}
    words = [str(paths.get(w, w)) for w in words]
    fit = ["fit", "spectrum", "--asimov", "--no-contour"]
    command = fit + words[1:] if words[0] == "fit" else ["predict", *words]
    code, out, err = call(capsys, *command, "--experiment", toml, "--out", tmp_path / "o")
    assert code == 2
    assert out == ""
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err
    assert not (tmp_path / "o" / "model.json").exists()
