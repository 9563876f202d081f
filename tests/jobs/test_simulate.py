"""The simulate and events commands: the same bytes whatever the workers, after a kill too; nothing lost at borders."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from nuebar.config import override
from nuebar.errors import NuebarError
from nuebar.io.calibration import read_calibration
from nuebar.io.events import EventFile, EventWriter, read_events
from nuebar.simulate.detector import DetectorModel
from nuebar.simulate.stream import kinds

STREAM = ("--days", "0.02", "--window-hours", "0.06", "--cascades", "3000", "--seed", "5")


def command(*words):
    return [sys.executable, "-m", "nuebar.cli", *map(str, words)]


def run(*words):
    done = subprocess.run(command(*words), capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def digests(folder, pattern="*/chunk-*"):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.glob(pattern))
    }


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    """A stream of half an hour in eight files, made by one process."""
    folder = tmp_path_factory.mktemp("stream") / "one"
    code, _, error = run("simulate", "stream", "--out", folder, "--jobs", 1, *STREAM)
    assert code == 0, error
    return folder


def test_a_killed_run_continues_and_loses_nothing(stream, tmp_path):
    folder = tmp_path / "killed"
    process = subprocess.Popen(
        command("simulate", "stream", "--out", folder, "--jobs", 2, *STREAM), stderr=subprocess.DEVNULL
    )
    ledger = folder / "stream" / "ledger.jsonl"
    for _ in range(1200):
        if ledger.is_file() and len(ledger.read_text().splitlines()) >= 2:
            break
        time.sleep(0.05)
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = len(list((folder / "stream").glob("chunk-*.parquet")))
    code, out, error = run("simulate", "stream", "--out", folder, "--jobs", 2, *STREAM)
    assert code == 0, error
    assert done >= 1 and "kept from before" in out  # noqa: PT018
    assert digests(folder) == digests(stream)
    assert not list(folder.rglob("*.part*"))


def test_a_changed_command_is_refused_with_the_difference(stream):
    code, _, error = run("simulate", "stream", "--out", stream, *STREAM[:-1], "6")
    assert (code, error.count("\n")) == (2, 1)
    assert "seed: 5 -> 6" in error


def test_the_stream_is_in_order_and_pairs_are_whole(stream):
    columns = ("t_ns", "e_rec_MeV", "true_kind", "true_pair")
    events = EventFile(str(stream / "stream"), columns).read()
    assert np.all(np.diff(events["t_ns"]) >= 0)
    assert events["t_ns"][-1] < 0.02 * 86400e9
    _, counts = np.unique(events["true_pair"][events["true_pair"] > 0], return_counts=True)
    assert np.all(counts <= 2)
    table = kinds(["ibd"], ["glass"])
    assert table["ibd delayed"] == table["ibd prompt"] + 1
    rate = np.count_nonzero(events["e_rec_MeV"] > 0.7) / (0.02 * 86400)
    assert rate == pytest.approx(59.2 + 3.94, rel=0.03)  # the sum of the table, and muons


@pytest.mark.slow
def test_more_days_extend_a_stream(stream, tmp_path):
    folder = tmp_path / "longer"
    short = ("--days", "0.005", *STREAM[2:])
    assert run("simulate", "stream", "--out", folder, "--jobs", 1, *short)[0] == 0
    assert len(digests(folder, "stream/chunk-*")) == 2
    code, out, error = run("simulate", "stream", "--out", folder, "--jobs", 1, *STREAM)
    assert code == 0, error
    assert "2 of them kept" in out
    assert digests(folder) == digests(stream)


def test_calibration_points_and_their_tables(tmp_path):
    words = ("--kB", 12.0, "--fC", 0.5, "--light-yield", 10000, "--events", 300, "--cascades", 2000)
    code, out, error = run("simulate", "calibration", *words, "--out", tmp_path, "--jobs", 1)
    assert code == 0, error
    assert "2.223 MeV" in out
    arrays, about = read_calibration(tmp_path / "point" / "chunk-00000.safetensors")
    assert about["sources"] == ["Cs137", "K40", "Co60", "AmBe", "AmC"]
    assert arrays["counts"].sum(axis=2).tolist() == [[300] * 5]
    n_pe = read_events(str(tmp_path / "Cs137.parquet"), ("n_pe",))["n_pe"]
    np.testing.assert_array_equal(n_pe, np.maximum(arrays["n_pe"][0], 0))


def test_an_experiment_without_a_response_is_refused(juno):
    silent = override(juno, {"response.kB_g_cm2_GeV": 0.0, "response.light_yield_per_MeV": 1.0, "response.fC": 0.0})
    with pytest.raises(NuebarError, match="kB, fC, light yield"):
        DetectorModel.build(silent)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("calibration", "--set", "trainin"), "expected one of training, validation-1"),
        (("calibration", "--kB", "10"), "--kB, --fC and --light-yield together"),
        (("calibration", "--kB", "nan", "--fC", "0", "--light-yield", "1e4"), "kB_g_cm2_GeV"),
        (("calibration", "--sources", "Cs138"), "expected one of Cs137"),
        (("calibration", "--events", "0"), "events"),
        (("calibration", "--cascades", "0"), "cascades"),
        (("ibd", "--pairs", "0"), "pairs"),
        (("ibd", "--oscillation", "sin2_th12"), "name=number"),
        (("ibd", "--oscillation", "theta12=0.3"), "sin2_th12"),
        (("ibd", "--oscillation", "sin2_th12=3"), "from 0 to 1"),
        (("ibd", "--kB", "0.012", "--fC", "0.5", "--light-yield", "1e4"), "g/cm²/MeV is 12"),
        (("stream", "--experiment", "mine.toml"), "no such file"),
        (("singles", "--window-ms", "0"), "window"),
        (("stream", "--days", "-1"), "days"),
        (("stream", "--window-hours", "99"), "window"),
        (("stream", "--experiment", "juno-2025"), "[detector"),
        (("stream", "--seed", "-1"), "seed"),
        (("stream", "--jobs", "0"), "jobs"),
    ],
)
def test_bad_input_is_one_sentence(words, says, tmp_path, capfd):
    from nuebar.cli import main

    with pytest.raises(SystemExit) as end:
        main(["simulate", *words, "--out", str(tmp_path / "out")])
    error = capfd.readouterr().err.strip()
    assert end.value.code == 2
    assert says in error.splitlines()[-1]
    assert "Traceback" not in error


def test_events_are_shown_checked_and_converted(tmp_path, capfd):
    from nuebar.cli import main

    def call(*words):
        with pytest.raises(SystemExit) as end:
            main(["events", *map(str, words)])
        return end.value.code, capfd.readouterr()

    source, out = tmp_path / "mine.parquet", tmp_path / "ours.parquet"
    with EventWriter(source, ("t_ns", "e_rec_MeV", "x_m", "y_m", "z_m")) as writer:
        ones = np.ones(50)
        writer.append({"t_ns": np.arange(50) * 10**6, "e_rec_MeV": ones, "x_m": ones, "y_m": ones, "z_m": -ones})
    columns = tmp_path / "map.toml"
    columns.write_text('[columns]\nx_m = "z_m"\nz_m = "x_m"\n')
    assert "50 rows" in call("show", source)[1].out
    assert "good" in call("check", source)[1].out
    code, said = call("convert", source, "--columns", columns, "--out", out)
    assert code == 0, said.err
    assert read_events(str(out), ("x_m",))["x_m"].tolist() == [-1.0] * 50
    for target, says in ((source, "exists"), (out, "exists"), (tmp_path / "ours.h5", ".parquet")):
        before = source.read_bytes()
        code, said = call("convert", source, "--out", target)
        assert (code, source.read_bytes()) == (2, before)
        assert says in said.err
    code, said = call("check", source, "--kind", "pairs")
    assert code == 2
    assert "prompt_e_rec_MeV" in said.err


def test_ibd_pairs_follow_the_oscillated_spectrum(tmp_path):
    words = ("--pairs", 4000, "--jobs", 1, "--out", tmp_path, "--oscillated")
    code, _, error = run("simulate", "ibd", *words)
    assert code == 0, error
    survival = json.loads((tmp_path / "spectrum" / "ledger.jsonl").read_text().splitlines()[0])["summary"]["survival"]
    assert 0.25 < survival < 0.4  # 47.1 of some 150 events a day in JUNO's papers
    pairs = read_events(str(tmp_path / "ibd"), ("true_e_nu_MeV", "prompt_e_rec_MeV", "true_baseline_km"))
    offset = pairs["true_e_nu_MeV"] - pairs["prompt_e_rec_MeV"]
    assert np.median(offset) == pytest.approx(0.80, abs=0.08)
    assert np.mean(pairs["true_baseline_km"] > 200) == pytest.approx(0.064, abs=0.015)
