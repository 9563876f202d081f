"""The commands of ``nuebar select`` as a user calls them, on toy pairs."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

from nuebar.cli import main
from nuebar.io.events import EventWriter

spec = importlib.util.spec_from_file_location("toy_pairs", Path(__file__).parent / "select" / "toy_pairs.py")
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)

TINY = {"hidden": [8], "inputs": "shaped", "epochs": 2, "batch": 256, "learning_rate": 1e-2, "validations": 2}


def call(capsys, *words):
    """Exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Pairs, a stream in the folder of a run, a recipe, and a model that was trained by the command."""
    folder = tmp_path_factory.mktemp("select")
    toy.files(folder / "run", 2000)
    (folder / "tiny.json").write_text(json.dumps(TINY))
    rng = np.random.default_rng(1)
    pairs = toy.accidentals(rng, 20_000)
    t = np.sort(rng.integers(0, 300 * 10**9, 20_000))
    (folder / "run" / "stream").mkdir()
    columns = {"t_ns": t} | {name: pairs[f"prompt_{name}"] for name in ("e_rec_MeV", "x_m", "y_m", "z_m")}
    with EventWriter(folder / "run" / "stream" / "chunk-00000.parquet", tuple(columns)) as writer:
        writer.append(columns)
    words = ["--recipe", folder / "tiny.json", "--ibd", folder / "run", "--accidentals", folder / "run"]
    command = [str(w) for w in ["select", "train", *words, "--singles", 1000, "--out", folder / "model"]]
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert not stop.value.code
    return folder


def test_train_writes_a_model_and_its_command(place):
    about = json.loads((place / "model" / "model.json").read_text())
    command = about["training"]["command"]
    assert command.startswith("nuebar select train --recipe tiny.json --ibd run --accidentals run")
    assert str(place) not in json.dumps(about)
    assert (place / "model" / "training.png").stat().st_size > 1000


def test_compare_prints_tables(place, tmp_path, capsys):
    words = ["--model", place / "model", "--prepared", place / "model" / "pairs", "--singles", 1000, "--no-ratio"]
    code, text, error = call(capsys, "select", "compare", *words, "--singles-factor", 1, "--out", tmp_path)
    assert code == 0, error
    assert "a hundredth" in text
    assert "linear cut, whole volume" in text
    assert json.loads((tmp_path / "compare.json").read_text())["format"] == 1
    assert {p.stem for p in tmp_path.glob("*.png")} >= {"background", "changes", "cut-flow", "efficiency"}


def test_apply_takes_the_folder_of_a_run(place, tmp_path, capsys):
    words = ["--classifier", place / "model", "--at", "f1-balanced"]
    code, text, error = call(capsys, "select", "apply", place / "run", *words, "--out", tmp_path / "a")
    assert code == 0, error
    assert "accidentals" in text
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert summary["operating_point"] == "f1-balanced"
    assert summary["events"]["read"] == 20_000
    code, text, _ = call(capsys, "select", "apply", place / "run", "--classifier", "cuts", "--out", tmp_path / "b")
    assert code == 0
    assert "all cuts" in text


def test_explain_names_features(place, tmp_path, capsys):
    words = ["--classifier", place / "model", "--prepared", place / "model" / "pairs", "--events", 20]
    more = ["--background", 20, "--event", 1, "--out", tmp_path]
    code, text, error = call(capsys, "select", "explain", *words, *more)
    assert code == 0, error
    assert "event 1" in text
    assert (tmp_path / "waterfall-event-1.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--out", "out"], "expected prepared pairs"),
        (["train", "--ibd", "{run}", "--out", "out"], "add --accidentals"),
        (["train", "--ibd", "nowhere", "--accidentals", "{run}", "--out", "out"], "nowhere"),
        (["train", "--recipe", "gan", "--ibd", "{run}", "--accidentals", "{run}", "--out", "out"], "recipe"),
        (["train", "--pairs", "{run}/ibd", "--label", "is_ibd", "--out", "out"], "is_ibd"),
        (["train", "--pairs", "{run}/ibd", "--out", "out"], "--label"),
        (["compare", "--model", "nothing", "--prepared", "{pairs}", "--out", "out"], "classifier 'nothing'"),
        (["compare", "--model", "{model}", "--prepared", "{pairs}", "--window-ms", "5", "--out", "out"], "windows"),
        (["apply", "nowhere", "--classifier", "cuts", "--out", "out"], "nowhere"),
        (["apply", "{run}", "--classifier", "{model}", "--at", "best", "--out", "out"], "operating point 'best'"),
        (["apply", "{run}", "--classifier", "cuts", "--max-dr", "-1", "--out", "out"], "--max-dr"),
        (["apply", "{run}", "--classifier", "cuts", "--selection", "mine", "--out", "out"], "no selection 'mine'"),
        (["explain", "--classifier", "{model}", "--prepared", "{pairs}", "--events", "3", "--out", "out"], "even"),
        (["search", "--prepared", "nowhere", "--out", "out"], "expected prepared pairs"),
    ],
)
def test_bad_input_is_one_sentence(place, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    names = {"run": place / "run", "model": place / "model", "pairs": place / "model" / "pairs"}
    code, _, error = call(capsys, "select", *(w.format(**names) for w in words))
    assert code == 2
    lines = [line for line in error.splitlines() if line.startswith("nuebar:")]
    assert len(lines) == 1
    assert re.search(message, lines[0])
    assert not [p for p in Path("out").rglob("*") if p.is_file() and p.name != ".lock"]
