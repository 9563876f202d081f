import os
import subprocess

import numpy as np
import pytest

import nuebar
from nuebar.errors import NuebarError
from nuebar.io import results

RECORD = {
    "parameters": {"sin2_th12": {"value": 0.3092, "error": 0.0087, "fixed": False}},
    "covariance": np.array([[7.6e-5]]),
    "valid": True,
    "reason": "",
}


def test_round_trip_with_the_format_first(tmp_path):
    results.save_result(tmp_path / "fit.json", RECORD)
    back = results.load_result(tmp_path / "fit.json")
    assert list(back) == ["format", *RECORD]
    assert back["format"] == 1
    assert back["covariance"] == [[7.6e-5]]
    assert back["parameters"] == RECORD["parameters"]
    results.save_result(tmp_path / "again.json", back)
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "fit.json").read_bytes()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"format": 2}', "got 2, which a newer nuebar wrote; update nuebar"),
        ('{"format": 0}', "expected 1, got 0"),
        ('{"format": "1"}', "expected 1, got '1'"),
        ('{"format": true}', "expected 1, got True"),
        ('{"format": 1.0}', "expected 1, got 1.0"),
        ('{"valid": true}', "found no such key"),
        ("[]", "got list"),
    ],
)
def test_load_refuses_other_formats(tmp_path, content, sentence):
    (tmp_path / "fit.json").write_text(content)
    with pytest.raises(NuebarError, match=rf"fit\.json.*{sentence}"):
        results.load_result(tmp_path / "fit.json")


@pytest.mark.parametrize("record", [{"format": 2}, {"chi2": float("nan")}, [1.0]])
def test_save_refuses_and_writes_nothing(tmp_path, record):
    with pytest.raises(NuebarError, match=r"fit\.json"):
        results.save_result(tmp_path / "fit.json", record)
    assert list(tmp_path.iterdir()) == []


def test_versions_are_plain_text():
    got = results.versions()
    assert list(got) == ["nuebar", "python", "numpy", "jax", "iminuit", "platform", "machine"]
    assert got["nuebar"] == nuebar.__version__
    assert got["numpy"] == np.__version__
    assert all(isinstance(value, str) and value for value in got.values())


def test_versions_of_an_absent_package(monkeypatch):
    def absent(name):
        raise results.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(results.metadata, "version", absent)
    assert results.versions()["iminuit"] is None


@pytest.fixture
def repository(tmp_path, monkeypatch):
    for key in [key for key in os.environ if key.startswith("GIT_")]:
        monkeypatch.delenv(key)
    folder = tmp_path / "repository"
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "a.py").write_text("1\n")

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)
        return done.stdout.decode().strip()

    git("init", "-q")
    return folder, git


def test_git_commit(repository, monkeypatch, tmp_path):
    folder, git = repository
    code = folder / "code"
    assert results.git_commit(code) is None  # no commit yet
    git("add", "code")
    git("commit", "-q", "-m", "a")
    commit = git("rev-parse", "HEAD")
    assert len(commit) == 40
    assert results.git_commit(code) == commit
    (folder / "installed").mkdir()
    assert results.git_commit(folder / "installed") is None  # lies in the repository, but git does not keep it
    (code / "new.py").write_text("")
    assert results.git_commit(code) == commit
    (code / "a.py").write_text("2\n")
    assert results.git_commit(code) == f"{commit}-dirty"
    assert results.git_commit(tmp_path) is None
    monkeypatch.setenv("GIT_DIR", str(folder / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(folder))
    assert results.git_commit(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert results.git_commit(code) is None  # no git to ask


def test_git_commit_of_nuebar_itself_does_not_fail():
    commit = results.git_commit()
    assert commit is None or len(commit.removesuffix("-dirty")) == 40
