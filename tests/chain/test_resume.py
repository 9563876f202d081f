"""A run that is ended anywhere, by anything, goes on with the same command, to the same bits."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nuebar.chain.folder import content_digest
from nuebar.errors import NuebarError

TOY = Path(__file__).parent / "toy_chain.py"
BOOKS = ("ledger.jsonl", ".lock", "begun.json")
NUMBERS = ["simulate.days=0.1"]


def environment(**changes):
    return {**os.environ, "OMP_NUM_THREADS": "1", **{k: str(v) for k, v in changes.items()}}


def toy(out, *words, check=0, **changes):
    """The toy chain by its command line, to its end."""
    command = [sys.executable, str(TOY), "run", "--out", str(out), "--set", *NUMBERS, *words]
    done = subprocess.run(command, env=environment(**changes), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == check, done.stderr
    assert "Traceback" not in done.stderr
    return done


def wait_for(path, process):
    """Until the process has written a file."""
    end = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.01)


def tree(home):
    """Digest of every file, clocks left out; what killed writers left would be among them."""
    files = [p for p in sorted(Path(home).rglob("*")) if p.is_file() and p.name not in BOOKS]
    return {str(p.relative_to(home)): content_digest(p) for p in files}


def sentence(done):
    """The one line with which a command ends that did not go well."""
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("nuebar: ")
    assert len(line) < 600
    return line


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A run that nobody disturbed. The name of the folder is in the record of the command."""
    home = tmp_path_factory.mktemp("reference") / "run"
    toy(home)
    return home


@pytest.fixture(scope="module")
def whole(reference):
    return tree(reference)


@pytest.fixture
def finished(reference, tmp_path):
    """A copy of the undisturbed run."""
    return Path(shutil.copytree(reference, tmp_path / "run"))


# ---------------------------------------------------------------- ended from inside, where the disk is changed

STEPS = [("kill", "29"), ("full", "31"), ("kill", "37", "select"), ("full", "41", "simulate")]
EVERY = [(how, "1", *forced) for how, _, *forced in STEPS]


@pytest.mark.parametrize("how", [*STEPS, *(pytest.param(e, marks=pytest.mark.slow) for e in EVERY)], ids="-".join)
def test_it_goes_on_from_every_point_at_which_it_ended(how, tmp_path):
    kind, step, *forced = how
    words = [sys.executable, str(TOY), "points", kind, str(tmp_path), step, *forced]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=True, timeout=600)
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["points"] > 150


# ---------------------------------------------------------------- ended from outside


@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_at_random_times_it_ends_with_the_same_bits(whole, jobs, tmp_path):
    out, chance = tmp_path / "run", random.Random(jobs)
    words = [sys.executable, str(TOY), "run", "--out", str(out), "--set", *NUMBERS, "--jobs", str(jobs)]
    for _ in range(3):
        process = subprocess.Popen(words, env=environment(TOY_PAUSE=0.05), start_new_session=True, stderr=-3, stdout=-3)
        wait_for(out / "asked.json", process)
        time.sleep(chance.uniform(0.2, 1.2))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    toy(out, "--jobs", str(jobs))
    assert tree(out) == whole


def test_control_c_ends_with_130_and_goes_on(whole, tmp_path):
    out = tmp_path / "run"
    words = [sys.executable, str(TOY), "run", "--out", str(out), "--set", *NUMBERS]
    process = subprocess.Popen(words, env=environment(TOY_PAUSE=1.0), text=True, stderr=-1, stdout=-3)
    wait_for(out / "simulate" / "truth.json", process)
    process.send_signal(signal.SIGINT)
    try:
        _, told = process.communicate(timeout=10)
    except subprocess.TimeoutExpired:  # one that came while a library called back is lost: press again
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in told
    toy(out)
    assert tree(out) == whole


def test_two_runs_do_not_share_a_folder(whole, tmp_path):
    out = tmp_path / "run"
    words = [sys.executable, str(TOY), "run", "--out", str(out), "--set", *NUMBERS]
    first = subprocess.Popen(words, env=environment(TOY_PAUSE=0.05), stderr=-3, stdout=-3)
    wait_for(out / "simulate" / "truth.json", first)
    half = out / f".{'0' * 16}.part.json"
    half.write_text("a file that the first run is about to write")
    told = sentence(toy(out, check=2))
    assert "no other run uses" in told
    assert str(first.pid) in told
    assert half.exists(), "the second run took something of the first away"
    assert first.wait(60) == 0
    toy(out)
    assert tree(out) == whole


# ---------------------------------------------------------------- what is on the disk has changed since


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def changed_number(path):
    text = path.read_text()
    at = next(i for i in range(len(text) - 3, 0, -1) if text[i].isdigit())
    path.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])


GARBAGE = {
    "random": os.urandom(100),
    "json": b"{}",
    "list": b"[]",
    "nothing": b"",
    "deep": b"[" * 100_000,
    "null": b'{"a',
}


def garbage(kind):
    return lambda path: path.write_bytes(GARBAGE[kind])


CHANGES = [
    ("simulate/stream/chunk-00001.bin", cut, ["simulate"]),
    ("simulate/stream/chunk-00002.bin", flipped, ["simulate"]),
    ("simulate/monte-carlo/ibd/chunk-00000.bin", Path.unlink, ["simulate"]),
    ("simulate/calibration/Cs137.bin", garbage("random"), ["simulate"]),
    ("simulate/truth.json", changed_number, ["simulate"]),
    ("select/prompt.json", changed_number, ["select"]),
    ("select/prompt.json", garbage("null"), ["select"]),
    ("select/candidates.bin", garbage("nothing"), ["select"]),
    ("tune/posterior.json", Path.unlink, ["tune"]),
    ("predict/reference/ibd/chunk-00001.bin", flipped, ["predict"]),
    ("fit/result.json", garbage("random"), ["fit"]),
    ("report/index.html", flipped, ["report"]),
    *((f"{stage}/done.json", garbage(kind), [stage]) for stage, kind in zip(
        ("simulate", "select", "tune", "fit", "report"), GARBAGE, strict=False
    )),
    ("select/done.json", changed_number, ["select"]),
    ("simulate/done.json", Path.unlink, ["simulate"]),
    *(("run.json", garbage(kind), []) for kind in ("random", "deep")),
    ("run.toml", garbage("random"), []),
    ("simulate/begun.json", garbage("list"), []),
]  # fmt: skip


@pytest.fixture
def here(monkeypatch):
    """The toy chain in this process, which is quicker."""
    monkeypatch.syspath_prepend(str(TOY.parent))
    import toy_chain

    from nuebar.chain import runner

    monkeypatch.setattr(runner, "_work", toy_chain.work)
    monkeypatch.setattr(runner, "git_commit", lambda: None)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(toy_chain, "COMMAND", "nuebar run --set simulate.days=0.1 --out run")
    return toy_chain


@pytest.mark.parametrize(
    ("name", "change", "again"),
    CHANGES,
    ids=[f"{n}-{getattr(c, '__name__', '')}-{i}" for i, (n, c, _) in enumerate(CHANGES)],
)
def test_what_was_damaged_is_done_again_and_nothing_else(name, change, again, finished, whole, here, caplog):
    change(finished / name)
    with caplog.at_level("INFO"):
        here.run(finished)
    lines = [r.message for r in caplog.records]
    assert [s.split()[0] for s in lines if s.endswith(" ...")] == again
    # A stage without done.json is one that was killed: nothing to warn of.
    warned = any(r.levelname == "WARNING" for r in caplog.records)
    assert warned == (bool(again) and not (name.endswith("done.json") and change is Path.unlink))
    assert tree(finished) == whole


SHALLOW = list(GARBAGE)


@pytest.mark.parametrize("kind", SHALLOW)
def test_a_damaged_ledger_has_its_chunks_done_again(kind, finished, whole, here):
    (finished / "simulate" / "stream" / "ledger.jsonl").write_bytes(GARBAGE[kind])
    (finished / "simulate" / "done.json").unlink()
    here.run(finished)
    assert tree(finished) == whole


@pytest.mark.parametrize("kind", GARBAGE)
def test_a_damaged_description_of_chunks_is_told(kind, finished, whole, here):
    (finished / "simulate" / "stream" / "stage.json").write_bytes(GARBAGE[kind])
    (finished / "simulate" / "done.json").unlink()
    with pytest.raises(NuebarError, match=r"stage\.json"):
        here.run(finished)
    here.run(finished, force=("simulate",))
    assert tree(finished) == whole


@pytest.mark.parametrize("kind", GARBAGE)
def test_a_damaged_record_of_what_was_asked_is_told(kind, finished, whole, here):
    (finished / "asked.json").write_bytes(GARBAGE[kind])
    for force in ((), ("select",)):
        with pytest.raises(NuebarError, match=r"asked\.json.* --force-stage simulate") as caught:
            here.run(finished, force=force)
        assert "\n" not in str(caught.value)
    here.run(finished, force=("simulate",))
    assert tree(finished) == whole


@pytest.mark.parametrize("kind", SHALLOW)
def test_a_damaged_lock_is_no_lock(kind, finished, whole, here):
    (finished / ".lock").write_bytes(GARBAGE[kind])
    here.run(finished)
    assert tree(finished) == whole


def test_damage_to_a_stage_that_was_killed_is_mended_too(finished, whole, here):
    for name in ("simulate/done.json", "fit/done.json"):
        (finished / name).unlink()
    flipped(finished / "simulate" / "stream" / "chunk-00003.bin")
    flipped(finished / "fit" / "result.json")
    here.run(finished)
    assert tree(finished) == whole


# ---------------------------------------------------------------- a disk without room, folders that cannot be written


def in_a_namespace(script, *words, **changes):
    """A script of the shell that may mount what nobody else sees."""
    prefix = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    command = [*prefix, "sh", "-ec", script, "sh", *(str(w) for w in words)]
    return subprocess.run(command, env=environment(**changes), capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def mounts(tmp_path_factory):
    if shutil.which("unshare") is None:
        pytest.skip("needs the command unshare")
    if in_a_namespace('mount -t tmpfs -o size=64k none "$1"', tmp_path_factory.mktemp("mount")).returncode:
        pytest.skip("needs the right to mount a small file system of one's own")


FILL = """
mount -t tmpfs -o size=$4 none "$1"
code=0
"$2" "$3" run --out "$1/run" --set simulate.days=0.1 || code=$?
echo "ended with $code" >&2
find "$1/run" -name '.*.part*' >&2
for file in $(find "$1/run" -name '*.json' -size 0); do echo "empty $file" >&2; done
mount -o remount,size=8m "$1"
"$2" "$3" run --out "$1/run" --set simulate.days=0.1
cp -r "$1/run" "$5"
"""


@pytest.mark.parametrize(
    "size", ["220k", *(pytest.param(f"{n}k", marks=pytest.mark.slow) for n in (60, 100, 140, 180))]
)
@pytest.mark.usefixtures("mounts")
def test_a_full_disk_is_told_and_mended_by_room(size, whole, tmp_path):
    (tmp_path / "disk").mkdir()
    words = (tmp_path / "disk", sys.executable, TOY, size, tmp_path / "run")
    done = in_a_namespace(FILL, *words, TOY_KB=8)
    assert done.returncode == 0, done.stderr
    before, _, after = done.stderr.partition("ended with 2")
    assert after, done.stderr
    told = before.strip().splitlines()[-1]
    assert told.startswith("nuebar: ")
    assert "No space left on device" in told
    assert "Traceback" not in done.stderr
    assert ".part" not in after
    assert "empty" not in after
    toy(tmp_path / "alone" / "run", TOY_KB=8)
    assert tree(tmp_path / "run") == tree(tmp_path / "alone" / "run")


@pytest.mark.usefixtures("mounts")
def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "disk").mkdir()
    script = 'mount -t tmpfs -o ro none "$1"; "$2" "$3" run --out "$1/run"'
    done = in_a_namespace(script, tmp_path / "disk", sys.executable, TOY)
    assert done.returncode == 2
    assert "Read-only file system" in sentence(done)


@pytest.mark.parametrize(
    ("out", "words"),
    [("file", "got a file"), ("file/run", "got a file"), ("/proc/nuebar", "can be written"), ("bad\0name", None)],
)
def test_a_place_that_is_no_folder_is_told(out, words, tmp_path, here):
    (tmp_path / "file").write_text("mine")
    with pytest.raises((NuebarError, ValueError), match=words):
        here.run(tmp_path / out)
    assert (tmp_path / "file").read_text() == "mine"


# ---------------------------------------------------------------- the real chain

SMALL = [
    "simulate.days=0.02", "simulate.cascades=1000", "simulate.calibration_events=500", "tune.samples=200",
    "simulate.calibration_cascades=2000", "simulate.monte_carlo_ibd=2000", "simulate.monte_carlo_backgrounds=100",
    "tune.replicas=20", "tune.coverage=20", "select.explained=100", "predict.reference_pairs=2000",
    "fit.contour_points=5",
]  # fmt: skip


def real(out, *words):
    return [sys.executable, "-m", "nuebar.cli", "run", "--out", str(out), "--jobs", "2", "--set", *SMALL, *words]


@pytest.mark.slow
def test_the_real_chain_killed_many_times_ends_with_the_same_bits(tmp_path):
    first, second, chance = tmp_path / "a" / "run", tmp_path / "b" / "run", random.Random(7)
    alone = environment(PATH="/nonexistent")  # without git: commits are versions, and somebody may be at work
    done = subprocess.run(real(first), env=alone, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stderr
    code, kills = None, 0
    while code is None:
        process = subprocess.Popen(real(second), env=alone, start_new_session=True, stderr=-3, stdout=-3)
        try:
            # Longer each time, so that it gets anywhere.
            code = process.wait(3.0 + 1.5 * kills + chance.uniform(0.0, 4.0) if kills < 6 else None)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    assert code == done.returncode
    assert kills >= 5
    one, two = tree(first), tree(second)
    # The page tells how long each stage took, and what is told of the page has its digest.
    page = {"report/index.html", "report/done.json", "run.json"}
    assert {k for k in {**one, **two} if one.get(k) != two.get(k)} <= page
    pages = [(home / "report" / "index.html").read_text() for home in (first, second)]
    assert len({re.sub(r"<td>[0-9]+\.[0-9]</td>", "", text) for text in pages}) == 1
