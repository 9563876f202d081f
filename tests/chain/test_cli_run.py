"""``nuebar run`` and ``nuebar status`` as they are typed: one sentence and exit code 2, or what was asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nuebar import cli
from nuebar.chain.run_file import STAGES, load_run_file

TOY = Path(__file__).parent / "toy_chain.py"


@pytest.fixture
def typed(monkeypatch, capsys):
    """Exit code, output and last line of complaint of a command in this process."""
    monkeypatch.setattr(cli, "_environment", lambda: None)

    def call(*words):
        with pytest.raises(SystemExit) as end:
            cli.main([str(w) for w in words])
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return end.value.code, told.out, (told.err.strip().splitlines() or [""])[-1]

    return call


@pytest.fixture
def toy(monkeypatch):
    """Cheap stages."""
    monkeypatch.syspath_prepend(str(TOY.parent))
    import toy_chain

    from nuebar.chain import runner, summary

    monkeypatch.setattr(runner, "_work", toy_chain.work)
    monkeypatch.setattr(runner, "git_commit", lambda: None)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(summary, "run_summary", lambda home: "recovered")
    yield
    sys.modules.pop("toy_chain", None)


DAYS = ("--set", "simulate.days=0.1")


def test_the_shipped_file_is_shown_and_read_again(typed, tmp_path):
    code, shown, _ = typed("run", "--out", "x", "--show")
    assert code == 0
    (tmp_path / "run.toml").write_text(shown)
    assert load_run_file(tmp_path / "run.toml").mapping() == load_run_file().mapping()
    _, again, _ = typed("run", tmp_path / "run.toml", "--out", "x", "--show", "--seed", "7", "--set", "fit.bins=40")
    assert "seed = 7" in again
    assert "bins = 40" in again
    assert not Path("x").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--set", "fit.bins"], "expected KEY=VALUE"),
        (["--set", "=3"], "expected KEY=VALUE"),
        (["--set", "fit.bins="], "expected KEY=VALUE"),
        (["--set", "fit.bin=3"], "did you mean 'bins'"),
        (["--set", "fit.bins=many"], "a whole number"),
        (["--set", "fit.bins=1e3"], "a whole number"),
        (["--set", "fit.bins=[80]"], "a whole number"),
        (["--set", "fit=3"], "a table"),
        (["--set", "fit.bins=1000000000"], "fit.bins"),
        (["--set", "simulate.days=1e9"], "simulate.days"),
        (["--set", "simulate.days=nan"], "a finite number"),
        (["--set", "simulate.days=-inf"], "a finite number"),
        (["--set", "simulate.cascades=1000000000000"], "simulate.cascades"),
        (["--set", "title=a\nb"], "control characters"),
        (["--set", "select.classifier=absent"], "expected a file or folder, found no"),
        (["--set", "tune.density=/etc"], "expected a file or folder, found no /etc/model.json"),
        (["--set", "data.stream=~/x", "data.response=r"], "written out"),
        (["--seed", "-1"], "seed"),
        (["--seed", "x"], "seed"),
        (["--force-stage", "fits"], "--force-stage: expected one of simulate"),
        (["--until", "fits"], "--until: expected one of simulate"),
        (["--jobs", "many"], "jobs"),
        (["absent.toml"], "cannot be read"),
        (["/dev/zero"], "expected a run file"),
        (["/"], "expected a run file"),
        (["--frobnicate"], "frobnicate"),
    ],
    ids=" ".join,
)
def test_what_is_wrong_is_told_before_anything_is_made(words, told, typed, tmp_path):
    code, _, line = typed("run", "--out", tmp_path / "run", *words)
    assert code == 2
    assert line.startswith("nuebar: ")
    assert told in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 5000], ids=["digits", "brackets"])
def test_values_that_no_reader_can_read_are_told(text, typed, tmp_path):
    code, _, line = typed("run", "--out", tmp_path / "run", "--set", f"seed={text}")
    assert code == 2
    assert "seed" in line


def test_a_run_from_beginning_to_end_and_on(toy, typed, tmp_path):
    out = tmp_path / "run"
    code, told, _ = typed("run", "--out", out, *DAYS, "--until", "select")
    assert (code, told) == (0, "")
    code, told, _ = typed("run", "--out", out, *DAYS)
    assert code == 0
    assert told.splitlines() == ["recovered", f"page: {out / 'report' / 'index.html'}"]
    code, told, _ = typed("status", out)
    assert [line.split(":")[0] for line in told.splitlines() if not line.startswith(" ")] == list(STAGES)
    code, _, line = typed("run", "--out", out, *DAYS, "fit.bins=40")
    assert code == 2
    assert "fit.bins: 80 -> 40" in line
    assert line.endswith("--force-stage select")
    assert typed("run", "--out", out, *DAYS, "fit.bins=40", "--force-stage", "fit")[0] == 2
    assert typed("run", "--out", out, *DAYS, "fit.bins=40", "--force-stage", "select")[0] == 0
    assert typed("run", "--out", out, *DAYS, "fit.bins=40")[0] == 0


def test_status_of_what_is_no_run(typed, tmp_path):
    assert typed("status", tmp_path / "absent")[0] == 2
    (tmp_path / "file").write_text("x")
    assert typed("status", tmp_path / "file")[0] == 2
    code, told, _ = typed("status", tmp_path)
    assert code == 0
    assert "nothing here" in told


def test_status_of_a_damaged_run(toy, typed, tmp_path):
    out = tmp_path / "run"
    typed("run", "--out", out, *DAYS)
    (out / "simulate" / "stream" / "stage.json").write_text("{")
    code, _, line = typed("status", out)
    assert code == 2
    assert "stage.json" in line


def test_without_an_answer_nothing_is_imported_that_takes_its_time(tmp_path):
    """A run file with a mistake is told in the time that Python needs to start."""
    code = (
        "import sys; from nuebar.chain.run_file import load_run_file; load_run_file(); "
        "sys.exit(bool({'jax', 'numba', 'pyarrow', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path).returncode == 0
