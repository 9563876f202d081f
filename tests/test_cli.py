"""The command line: what it prints and writes, and how it refuses."""

import dataclasses
import json

import numpy as np
import pytest

from nuebar.cli import main
from nuebar.config import load_experiment, override, show


@pytest.fixture(scope="module")
def small_toml(tmp_path_factory):
    """A quick experiment in a user's own file: two cores, 40 bins, tables found among the shipped ones."""
    e = load_experiment("juno")
    e = dataclasses.replace(
        e,
        name="small",
        reactor=dataclasses.replace(e.reactor, cores=(e.reactor.cores[0], e.reactor.cores[-1])),
        backgrounds=e.backgrounds[1:2],
    )
    e = override(
        e,
        {
            "binning.segments": ((0.8, 8.8, 40),),
            "binning.fine_width_MeV": 0.05,
            "systematics.nonlinearity": False,
            "systematics.resolution": (),
            "systematics.fission_fractions": {},
            "systematics.core": 0.0,
            "systematics.spent_fuel": 0.0,
            "systematics.nonequilibrium": 0.0,
            "fit.statistic": "cnp",
        },
    )
    path = tmp_path_factory.mktemp("experiment") / "small.toml"
    path.write_text(show(e), encoding="utf-8")
    return path


def call(capsys, *words):
    """Exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err


def fit(capsys, *words):
    return call(capsys, "fit", "spectrum", *words)


def test_asimov_fit_writes_everything(capsys, small_toml, tmp_path):
    code, out, _ = fit(
        capsys, "--experiment", small_toml, "--asimov", "--contour-points", 7, "--minos", "--out", tmp_path / "o"
    )
    assert code == 0
    assert "sin2_th12" in out
    assert "Asimov, simulated" in out
    names = {p.name for p in (tmp_path / "o").iterdir()}
    assert names == {
        "result.json", "experiment.toml", "spectrum.csv", "covariance.csv", "delta_chi2.csv",
        "spectrum.png", "pulls.png", "correlation.png", "impacts.png", "contour.png",
    }  # fmt: skip
    record = json.loads((tmp_path / "o" / "result.json").read_text())
    assert record["format"] == 1
    assert record["valid"] is True
    assert record["parameters"]["sin2_th12"]["value"] == pytest.approx(0.307, abs=1e-5)
    assert record["simulated"] is True
    scan = np.loadtxt(tmp_path / "o" / "delta_chi2.csv", delimiter=",", skiprows=2)
    assert scan.shape == (49, 3)
    assert scan[:, 2].min() == pytest.approx(0.0, abs=0.05)
    assert load_experiment(str(tmp_path / "o" / "experiment.toml")).name == "small"


def test_a_written_spectrum_can_be_fitted_again(capsys, small_toml, tmp_path):
    code, *_ = call(capsys, "predict", "show", "--experiment", small_toml, "--out", tmp_path / "p")
    assert code == 0
    rows = np.loadtxt(tmp_path / "p" / "spectrum.csv", delimiter=",", skiprows=1)
    counts = np.round(rows[:, 2:-1].sum(axis=1))
    lines = ["low_MeV,high_MeV,counts"] + [
        f"{a:.6g},{b:.6g},{n:.0f}" for a, b, n in zip(rows[:, 0], rows[:, 1], counts, strict=True)
    ]
    (tmp_path / "data.csv").write_text("\n".join(lines) + "\n")
    code, out, _ = fit(capsys, "--experiment", small_toml, "--data", tmp_path / "data.csv", "--no-contour",
                       "--no-pictures", "--out", tmp_path / "o")  # fmt: skip
    assert code == 0
    assert "measured counts" in out
    assert json.loads((tmp_path / "o" / "result.json").read_text())["simulated"] is False


def test_blind_until_unblind(capsys, small_toml, tmp_path):
    words = ("--experiment", small_toml, "--asimov", "--no-contour", "--no-pictures", "--out", tmp_path / "o")

    def value():
        return json.loads((tmp_path / "o" / "result.json").read_text())["parameters"]["sin2_th12"]["value"]

    _, out, _ = fit(capsys, *words, "--blind", "--seed", 5)
    hidden = value()
    assert "BLINDED" in out
    assert abs(hidden - 0.307) > 1e-6
    assert f"{0.307:.5f}" not in out
    fit(capsys, *words, "--seed", 5)  # forgets to say --blind: stays blind
    assert value() == pytest.approx(hidden, rel=1e-9)
    _, out, _ = fit(capsys, *words, "--unblind", "--seed", 5)
    assert value() == pytest.approx(0.307, abs=1e-5)
    assert "BLINDED" not in out


def test_predict_build_and_show(capsys, small_toml, tmp_path):
    code, out, _ = call(
        capsys, "predict", "build", "--experiment", small_toml, "--window-sigma", 5, "--out", tmp_path / "m"
    )
    assert code == 0
    assert (tmp_path / "m" / "weights.safetensors").is_file()
    assert json.loads((tmp_path / "m" / "model.json").read_text())["kind"] == "harmonic"
    assert "mixing angles unbounded" in out
    folder = ("--predictor", tmp_path / "m", "--no-contour")
    code, out, _ = fit(capsys, "--experiment", small_toml, "--asimov", *folder)
    assert code == 0
    code, _, err = fit(capsys, "--experiment", small_toml, "--asimov", "--exposure-days", 7, *folder)
    assert code == 2
    assert "built for 'small' with other flux, exposure or response" in err
    code, out, _ = call(capsys, "predict", "show", "--experiment", small_toml, "--exposure-days", 100)
    assert code == 0
    assert "per full-power day" in out
    assert "per calendar day" in out


def test_config(capsys):
    code, out, _ = call(capsys, "config", "list")
    assert code == 0
    assert {line.split()[0] for line in out.splitlines()} >= {"juno", "juno-2025"}
    code, out, _ = call(capsys, "config", "show", "juno-2025")
    assert code == 0
    assert 'name = "juno-2025"' in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--experiment", "kamland", "--asimov"], "no experiment 'kamland'"),
        (["--experiment", "SMALL"], "exactly one source of counts"),
        (["--experiment", "SMALL", "--asimov", "--data", "x.csv"], "exactly one source of counts"),
        (["--experiment", "SMALL", "--data", "nothing.csv"], "nothing.csv"),
        (["--experiment", "SMALL", "--release", "nowhere"], "nowhere"),
        (["--experiment", "SMALL", "--asimov", "--inputs", "nothing.root"], "nothing.root"),
        (["--experiment", "SMALL", "--asimov", "--exposure-years", "-1"], "--exposure-years"),
        (["--experiment", "SMALL", "--asimov", "--exposure-years", "1", "--exposure-days", "1"], "not both"),
        (["--experiment", "SMALL", "--asimov", "--blind", "--unblind"], "not both"),
        (["--experiment", "SMALL", "--asimov", "--fix", "theta12"], "theta12"),
        (["--experiment", "SMALL", "--asimov", "--contour", "sin2_th12"], "two parameters"),
        (["--experiment", "SMALL", "--asimov", "--predictor", "magic"], "magic"),
        (["--experiment", "SMALL", "--asimov", "--surprise"], "surprise"),
        (["--experiment", "SMALL", "--asimov", "--exposure-years", "many"], "many"),
    ],
)
def test_bad_input_is_one_sentence(capsys, small_toml, tmp_path, words, sentence):
    words = [str(small_toml) if w == "SMALL" else w for w in words]
    code, out, err = fit(capsys, *words, "--out", tmp_path / "o")
    assert code == 2
    assert out == ""
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err
    assert not (tmp_path / "o").exists()


def test_an_output_that_is_a_file_is_refused(capsys, small_toml, tmp_path):
    (tmp_path / "o").write_text("mine")
    code, _, err = fit(capsys, "--experiment", small_toml, "--asimov", "--no-contour", "--out", tmp_path / "o")
    assert code == 2
    assert (tmp_path / "o").read_text() == "mine"
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("", "data.csv"),
        ("low_MeV,high_MeV,counts\n", "data.csv"),
        ("low_MeV,high_MeV,counts\n0.8,1.0,NaN\n", "data.csv"),
        ("low_MeV,high_MeV,counts\n0.8,1.0,-3\n", "data.csv"),
        ("low_MeV,high_MeV,counts\n0.8,1.0,3\n0.9,1.2,4\n", "data.csv"),
        ("low_MeV,high_MeV,counts\n0.8,8.8,3\n", "no bin edge"),
        ("low_MeV,high_MeV,counts\n0.8,1.0,3\n1.0,1.2,4\n", "covers"),
        ("low_MeV,high_MeV,counts\n0.8,1.0,three\n", "data.csv"),
    ],
)
def test_bad_spectra(capsys, small_toml, tmp_path, content, word):
    (tmp_path / "data.csv").write_text(content)
    code, _, err = fit(capsys, "--experiment", small_toml, "--data", tmp_path / "data.csv", "--out", tmp_path / "o")
    assert code == 2
    assert word in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_debug_shows_the_traceback(small_toml):
    from nuebar.errors import NuebarError

    with pytest.raises(NuebarError):
        main(["fit", "spectrum", "--experiment", "kamland", "--asimov", "--debug"])


def test_first_measurement_from_the_command_line(capsys, juno_2025_release, tmp_path):
    code, out, _ = fit(capsys, "--experiment", "juno-2025", "--release", juno_2025_release, "--no-contour",
                       "--no-compare", "--no-pictures", "--out", tmp_path / "o")  # fmt: skip
    assert code == 0
    assert "0.3092" in out  # the published value beside ours
    assert json.loads((tmp_path / "o" / "result.json").read_text())["valid"] is True


@pytest.mark.slow
def test_a_second_fit_leaves_nothing_of_the_first(capsys, small_toml, tmp_path):
    words = ("--experiment", small_toml, "--asimov", "--out", tmp_path / "o")
    fit(capsys, *words, "--contour-points", 5)
    (tmp_path / "o" / "mine.txt").write_text("kept")
    assert (tmp_path / "o" / "delta_chi2.csv").is_file()
    _, out, _ = fit(capsys, *words, "--no-contour", "--no-pictures")
    names = {p.name for p in (tmp_path / "o").iterdir()}
    assert names == {"result.json", "experiment.toml", "spectrum.csv", "covariance.csv", "mine.txt"}
    assert "no uncertainty of the energy scale" in out
