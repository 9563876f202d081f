"""The commands of ``nuebar tune`` as a user calls them, with the shipped spline flow."""

import json
import re
from pathlib import Path

import pytest

from nuebar.cli import main


def call(capsys, *words):
    """Exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err


MIDDLE = {"kB_g_cm2_GeV": 12.05, "fC": 0.517, "light_yield_per_MeV": 9846.0}
SOURCES = ("Cs137", "K40", "Co60", "AmBe", "AmC")


@pytest.fixture(scope="module")
def calibration(tmp_path_factory):
    """Charges of five sources, drawn from the shipped spline flow."""
    from nuebar.tune.store import load_density

    folder = tmp_path_factory.mktemp("calibration")
    density = load_density("spline")
    for k, source in enumerate(SOURCES):
        charges = density.sample(5000, MIDDLE, source, seed=k)
        (folder / f"{source}.csv").write_text("n_pe\n" + "\n".join(f"{q:.3f}" for q in charges) + "\n")
    return folder


def test_tune_fit_finds_what_was_put_in(calibration, tmp_path, capsys):
    words = [f"{name}={value}" for name, value in MIDDLE.items()]
    out = tmp_path / "tuned"
    command = ["tune", "fit", "--density", "spline", "--data", calibration, "--method", "minuit"]
    code, text, _ = call(capsys, *command, "--truth", *words, "--no-pictures", "--out", out)
    assert code == 0
    assert "valid" in text
    told = json.loads((out / "tuning.json").read_text())
    for name, value in MIDDLE.items():
        assert abs(told["best"][name] - value) < 5 * told["errors"][name]
        assert name in text
    posterior = json.loads((out / "posterior.json").read_text())
    assert posterior["parameters"] == list(MIDDLE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--density", "gan"], "density 'gan'"),
        (["--data", "nowhere"], "nowhere.*Cs137.parquet"),
        (["--source", "Na22=x.csv"], "Na22"),
        (["--source", "Cs137"], "NAME=VALUE"),
        (["--prior", "fC=0.5"], "CENTRE,WIDTH"),
        (["--truth", "fC=0.5"], "truth"),
        (["--unbinned"], "flow"),
        (["--background", "Cs137=nothing.csv"], "nothing.csv"),
        (["--source", "Cs137=negative.csv"], "negative"),
        (["--source", "Cs137=energies.csv"], "photo-electrons"),
        (["--source", "Cs137=nan.csv"], "nan|NaN|number"),
        (["--source", "Cs137=empty.csv"], "empty|no |none"),
        (["--samples", "3"], "samples"),
    ],
)
def test_bad_tuning_input_is_one_sentence(calibration, tmp_path, monkeypatch, capsys, change, words):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{0.4 + 0.02 * k:.2f},{0.42 + 0.02 * k:.2f},-1\n" for k in range(800))
    Path("negative.csv").write_text("low,high,counts\n" + rows)
    Path("energies.csv").write_text("n_pe\n" + "0.66\n" * 500)
    Path("nan.csv").write_text("n_pe\n" + "1000\n" * 50 + "nan\n")
    Path("empty.csv").write_text("n_pe\n")
    data = [] if change[0] in ("--data", "--source") else ["--data", calibration]
    code, _, error = call(capsys, "tune", "fit", *data, *change, "--method", "minuit", "--no-pictures", "--out", "out")
    assert code == 2
    assert len([line for line in error.splitlines() if line.startswith("nuebar:")]) == 1
    assert re.search(words, error)
    assert not Path("out", "tuning.json").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["train", "--recipe", "gan", "--training", "nowhere"], "recipe"),
        (["train", "--recipe", "tede", "--training", "nowhere"], "nowhere"),
        (["search", "--kind", "tede", "--training", "nowhere"], "nowhere"),
        (["validate", "--density", "spline", "--data", "nowhere", "--study", "moon"], "accuracy"),
        (["validate", "--density", "spline", "--data", "nowhere", "--study", "accuracy"], "nowhere"),
        (["fit", "--release", "nowhere"], "nowhere"),
    ],
)
def test_other_bad_tuning_input(tmp_path, monkeypatch, capsys, command, words):
    monkeypatch.chdir(tmp_path)
    code, _, error = call(capsys, "tune", *command, "--out", "out")
    assert code == 2
    assert words in error
