"""Runs of chunks: the files depend on nothing but config and seed, however the run went."""

import errno
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nuebar.errors import NuebarError
from nuebar.run import (
    WORKER_ENVIRONMENT,
    LocalProcesses,
    Stage,
    UnfinishedError,
    chunk_key,
    in_process,
    run_stage,
    run_task,
    status,
)
from nuebar.run import lock as lock_module
from nuebar.run.ledger import Ledger

HELPERS = '''
import os, signal, sys, time

SEEN_AT_IMPORT = dict(os.environ)
NUMPY_BEFORE = "numpy" in sys.modules


def count(config, word):
    """One line for each call; an append of a few bytes is atomic."""
    if "log" in config:
        with open(config["log"], "a") as file:
            file.write(f"{word}\\n")


def write(config, chunk, key, path):
    count(config, f"begin {chunk}")
    words, state = [], key
    for _ in range(int(config.get("words", 50))):
        state = (state * 6364136223846793005 + 1442695040888963407 + chunk) % 2**64
        words.append(state.to_bytes(8, "little"))
    with open(path, "wb") as file:
        for word in words:
            file.write(word)
        time.sleep(config.get("seconds", 0.0))
    count(config, f"end {chunk}")
    config["log"] = "changed by the function"
    return {"chunk": chunk, "key": key, "first": words[0].hex()}


def fail_at(config, chunk, key, path):
    from nuebar.errors import NuebarError
    path.write_text("half")
    if chunk == config["chunk"]:
        if config["kind"] == "told":
            raise NuebarError("expected a source, got none; name one")
        if config["kind"] == "bug":
            raise KeyError("no such thing")
        if config["kind"] == "memory":
            raise MemoryError
        if config["kind"] == "absent":
            open("/nonexistent/input.parquet")
        if config["kind"] == "nothing":
            path.unlink()
        if config["kind"] == "nan":
            return {"mean": {"e_rec_MeV": float("nan")}}
        if config["kind"] == "type":
            return {"when": object()}


def die(config, chunk, key, path):
    """Take the worker down in the middle of the file, as often as the config says."""
    with open(path, "wb") as file:
        file.write(b"half")
        file.flush()
        if chunk in config["chunks"]:
            with open(f"{config['marks']}-{chunk}", "a+") as marks:
                marks.seek(0)
                n = len(marks.read())
                marks.write("x")
            if n < config["times"]:
                os.kill(os.getpid(), signal.SIGKILL)
    return write({}, chunk, key, path)


def environment(config, chunk, key, path):
    path.write_text("x")
    print("this is no outcome")
    os.system("echo nor is this")
    if "read" in config and os.read(0, 1):
        raise ValueError("this was for somebody else")
    words = {name: SEEN_AT_IMPORT.get(name) for name in config["names"]}
    return {"environment": words, "pid": os.getpid(), "parent": os.getppid()}


def pid_of(config, chunk, key, path):
    count(config, os.getpid())
    path.write_text("x")
    end = time.monotonic() + 30.0
    while time.monotonic() < end:
        sum(range(20_000_000))  # nothing else runs in this process meanwhile
'''
FUNCTION = "chunks_of_test_run:{}".format


@pytest.fixture(scope="module")
def helpers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("helpers")
    (folder / "chunks_of_test_run.py").write_text(HELPERS, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _importable(helpers, monkeypatch):
    monkeypatch.syspath_prepend(str(helpers))


def stage(function="write", chunks=6, config=None, **options):
    return Stage("toys", FUNCTION(function), config or {}, chunks, suffix=".bin", **options)


def contents(folder, name="toys"):
    return {path.name: path.read_bytes() for path in sorted((Path(folder) / name).glob("chunk-*"))}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def reference(tmp_path_factory, helpers):
    """The files of the plain stage with seed 1, from one undisturbed run in this process."""
    folder = tmp_path_factory.mktemp("reference")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(helpers))
        run_stage(folder, stage(), seed=1)
    return contents(folder)


SCRIPT = """
import json, sys
sys.path.insert(0, {helpers!r})
from nuebar.errors import NuebarError
from nuebar.run import Stage, run_stage
config = json.loads({config!r})
stage = Stage("toys", {function!r}, config, {chunks}, suffix=".bin")
{before}
try:
    run_stage({folder!r}, stage, seed=1, jobs={jobs})
except NuebarError as error:
    sys.exit(str(error))
"""


def script(helpers, folder, *, function="write", config=None, chunks=6, jobs=1, before=""):
    return SCRIPT.format(
        helpers=str(helpers),
        folder=str(folder),
        function=FUNCTION(function),
        config=json.dumps(config or {}),
        chunks=chunks,
        jobs=jobs,
        before=before,
    )


@pytest.fixture
def spawn():
    """Run a script as somebody would pipe it: there is no file that a worker could run again."""
    processes = []

    def start(text, **options):
        pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"}
        process = subprocess.Popen([sys.executable, "-"], **pipes, **options)
        processes.append(process)
        process.stdin.write(text)
        process.stdin.close()
        process.stdin = None
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stderr.close()


def wait_for(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# --- keys


def test_keys_are_pinned():
    # RFC 7693 BLAKE2b with 8 bytes and the personalisation "nuebar chunk", computed once with hashlib: a change
    # of these would change every run.
    assert chunk_key(1, "toys", 0) == 15255649326928479848
    assert chunk_key(20251119, "stream", 41) == 6083211120221033911


def test_keys_differ_for_every_seed_stage_and_chunk():
    keys = {chunk_key(seed, name, i) for seed in (0, 1, 11) for name in ("a", "a1", "b") for i in range(3000)}
    assert len(keys) == 3 * 3 * 3000
    bits = sum(bin(key).count("1") for key in keys) / len(keys)
    assert bits == pytest.approx(32.0, abs=5 * 4 / len(keys) ** 0.5)  # a fair 64-bit word: 32 ± 4
    assert max(keys) < 2**64


# --- the same files whoever does the work


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_files_do_not_depend_on_the_number_of_workers(tmp_path, reference, jobs):
    result = run_stage(tmp_path, stage(), seed=1, jobs=jobs)
    assert contents(tmp_path) == reference
    assert [path.name for path in result.paths] == list(reference)
    assert [s["chunk"] for s in result.summaries] == list(range(6))
    assert [s["key"] for s in result.summaries] == [chunk_key(1, "toys", i) for i in range(6)]
    assert names(tmp_path / "toys") == [*reference, "ledger.jsonl", "stage.json"]


def backwards(tasks):
    yield from reversed([run_task(task) for task in tasks])


def threads(tasks):
    with ThreadPoolExecutor(3) as pool:
        yield from pool.map(run_task, list(tasks))


@pytest.mark.parametrize("executor", [backwards, threads])
def test_any_executor_will_do(tmp_path, reference, executor):
    result = run_stage(tmp_path, stage(), seed=1, jobs=executor)
    assert contents(tmp_path) == reference
    assert [s["chunk"] for s in result.summaries] == list(range(6))


def test_an_executor_that_loses_chunks_is_found_out(tmp_path):
    with pytest.raises(RuntimeError, match=r"lost the chunks \[1, 2\]"):
        run_stage(tmp_path, stage(chunks=3), seed=1, jobs=lambda tasks: (run_task(t) for t in [next(tasks)]))


def test_seed_and_chunk_change_the_file(tmp_path, reference):
    run_stage(tmp_path, stage(), seed=2)
    other = contents(tmp_path)
    assert len({*reference.values(), *other.values()}) == 12


def test_workers_have_their_environment_before_any_import_and_we_keep_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("NPROC", "7")
    before = dict(os.environ)
    config = {"names": list(WORKER_ENVIRONMENT)}
    isolated = stage("environment", 1, {**config, "read": True}, isolated=True)
    result = run_stage(tmp_path, isolated, seed=1)
    assert result.summaries[0]["environment"] == WORKER_ENVIRONMENT
    threads = {f"{name}_NUM_THREADS" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    assert dict.fromkeys({"JAX_ENABLE_X64", "NPROC", *threads}, "1") == WORKER_ENVIRONMENT
    assert result.summaries[0]["pid"] != os.getpid()
    assert result.summaries[0]["parent"] == os.getpid()
    assert dict(os.environ) == before
    result = run_stage(tmp_path / "here", stage("environment", 1, config), seed=1)
    assert result.summaries[0]["pid"] == os.getpid()


# --- the same call continues


def test_a_finished_stage_is_left_alone(tmp_path, reference):
    config = {"log": str(tmp_path / "log")}
    first = run_stage(tmp_path, stage(config=config), seed=1)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "toys").iterdir()}
    calls = []
    second = run_stage(tmp_path, stage(config=config), seed=1, jobs=2, progress=lambda *call: calls.append(call))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "toys").iterdir()} == stamps
    assert (first.paths, first.summaries, first.kept) == (second.paths, second.summaries, 0)
    assert second.kept == 6
    assert calls == [("toys", 6, 6)]
    assert contents(tmp_path) == reference
    assert len((tmp_path / "log").read_text().split("\n")) == 2 * 6 + 1


def test_progress_counts_the_kept_chunks_first(tmp_path):
    with pytest.raises(UnfinishedError):
        run_stage(tmp_path, stage(), seed=1, max_seconds=1e-9)
    calls = []
    run_stage(tmp_path, stage(), seed=1, progress=lambda *call: calls.append(call))
    assert calls == [("toys", n, 6) for n in range(1, 7)]


def test_a_budget_starts_no_new_chunk_and_says_how_to_continue(tmp_path, reference):
    for done in range(1, 6):
        with pytest.raises(UnfinishedError, match=rf"{done} of 6 chunks .* the same command continues"):
            run_stage(tmp_path, stage(), seed=1, max_seconds=1e-9)
        assert len(contents(tmp_path)) == done
    assert run_stage(tmp_path, stage(), seed=1, max_seconds=60.0).kept == 5
    assert contents(tmp_path) == reference


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "content has changed"),
        (lambda path: path.write_bytes(b""), "content has changed"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x00"), "content has changed"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\x00"), "content has changed"),
        (lambda path: path.unlink(), "missing"),
    ],
)
def test_a_damaged_chunk_is_noticed_and_done_again(tmp_path, reference, caplog, damage, told):
    run_stage(tmp_path, stage(), seed=1)
    damage(tmp_path / "toys" / "chunk-00003.bin")
    assert contents(tmp_path) != reference
    result = run_stage(tmp_path, stage(), seed=1)
    assert contents(tmp_path) == reference
    assert result.kept == 5
    (message,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "chunk-00003.bin" in message
    assert told in message


def test_a_chunk_that_comes_out_otherwise_than_before_is_told(tmp_path, caplog):
    run_stage(tmp_path, stage(), seed=1)
    ledger = tmp_path / "toys" / "ledger.jsonl"
    lines = ledger.read_text().splitlines()
    record = json.loads(lines[2])
    lines[2] = json.dumps({**record, "digest": "0" * 16})
    ledger.write_text("\n".join(lines) + "\n")
    run_stage(tmp_path, stage(), seed=1)
    assert [r.getMessage() for r in caplog.records][-1].startswith(str(tmp_path / "toys" / "chunk-00002.bin"))
    assert "not what it was" in caplog.text


def test_a_ledger_cut_anywhere_costs_the_cut_lines_only(tmp_path, reference):
    run_stage(tmp_path, stage(), seed=1)
    path = tmp_path / "toys" / "ledger.jsonl"
    whole = path.read_bytes()
    assert len(whole.splitlines()) == 6
    for cut in [*range(0, len(whole), 97), *range(len(whole) - 4, len(whole) + 1)]:
        path.write_bytes(whole[:cut])
        # A line that lacks nothing but its end is a line.
        expected = whole[:cut].count(b"\n") + (whole[cut : cut + 1] == b"\n")
        assert run_stage(tmp_path, stage(), seed=1).kept == expected, cut
        assert run_stage(tmp_path, stage(), seed=1).kept == 6
        assert contents(tmp_path) == reference


def test_the_ledger_grows_by_one_line_per_chunk(tmp_path, monkeypatch):
    written = []
    plain_write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: written.append(len(data)) or plain_write(fd, data))
    run_stage(tmp_path, stage(chunks=40), seed=1)
    assert len(written) == 40
    assert sum(written) == (tmp_path / "toys" / "ledger.jsonl").stat().st_size


def test_half_written_files_are_removed_before_there_are_new_ones(tmp_path, reference):
    (tmp_path / "toys").mkdir()
    half = tmp_path / "toys" / ".0123456789abcdef.part.bin"
    own = tmp_path / "toys" / ".part.notes"
    half.write_bytes(b"half")
    own.write_bytes(b"mine")

    def look(tasks):
        assert not half.exists()
        yield from in_process(tasks)

    run_stage(tmp_path, stage(), seed=1, jobs=look)
    assert own.exists()
    assert contents(tmp_path) == reference


@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace"])
def test_a_disk_that_fails_at_any_step_costs_nothing_that_was_done(tmp_path, reference, monkeypatch, step):
    """Fail at the n-th call, for every n: one sentence, then the same call continues to the same bytes."""
    real = getattr(os, step)

    def failing_at(n):
        calls = iter(range(10**9))

        def call(*arguments, **options):
            if next(calls) == n:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments, **options)

        return call

    told = []
    # A whole run has 7 renames, 6 writes (those of the ledger), and some 20 of the others.
    for n in range(0, 8, 2) if step in ("replace", "write") else range(0, 24, 3):
        folder = tmp_path / str(n)
        with monkeypatch.context() as patch:
            patch.setattr(os, step, failing_at(n))
            try:
                run_stage(folder, stage(), seed=1)
            except NuebarError as error:
                told.append(str(error))
        assert not list(folder.glob("**/.*.part*"))
        assert {k: reference[k] for k in contents(folder)} == contents(folder)
        run_stage(folder, stage(), seed=1)
        assert contents(folder) == reference
    assert len(told) >= 3
    assert all("No space left" in text and "\n" not in text for text in told)


# --- another configuration


CONFIG = {"words": 50, "response": {"kB_g_cm2_GeV": 6.5, "fC": 1.0}, "sources": ["Cs137", "AmC"], "log": "/dev/null"}
OTHERS = [
    ({**CONFIG, "words": 60}, 1, "words: 50 -> 60"),
    ({**CONFIG, "words": 50.0}, 1, "words: 50 -> 50.0"),
    ({**CONFIG, "response": {"kB_g_cm2_GeV": 7.0, "fC": 1.0}}, 1, "response.kB_g_cm2_GeV: 6.5 -> 7.0"),
    ({**CONFIG, "response": {"kB_g_cm2_GeV": 6.5}}, 1, "response.fC: 1.0 -> (absent)"),
    ({**CONFIG, "response": {}}, 1, "response: (absent) -> {}"),
    ({**CONFIG, "sources": ["Cs137", "AmBe"]}, 1, 'sources[1]: "AmC" -> "AmBe"'),
    ({**CONFIG, "new": None}, 1, "new: (absent) -> null"),
    (CONFIG, 2, "seed: 1 -> 2"),
]


@pytest.mark.parametrize(("config", "seed", "difference"), OTHERS)
def test_another_configuration_is_refused_with_the_difference(tmp_path, caplog, config, seed, difference):
    run_stage(tmp_path, stage(config=CONFIG), seed=1)
    before = {path: path.read_bytes() for path in (tmp_path / "toys").iterdir()}
    with pytest.raises(NuebarError) as caught:
        run_stage(tmp_path, stage(config=config), seed=seed)
    assert difference in str(caught.value)
    assert {path: path.read_bytes() for path in (tmp_path / "toys").iterdir()} == before
    forced = run_stage(tmp_path, stage(config=config), seed=seed, force=True)
    fresh = run_stage(tmp_path / "fresh", stage(config=config), seed=seed)
    assert forced.kept == 0
    assert not caplog.records  # nothing of the old stage is remembered
    assert forced.summaries == fresh.summaries
    assert contents(tmp_path) == contents(tmp_path / "fresh")
    assert run_stage(tmp_path, stage(config=config), seed=seed).kept == 6


def test_function_and_suffix_belong_to_the_configuration_and_many_differences_are_cut_short(tmp_path):
    run_stage(tmp_path, stage(config={"list": [0] * 400}), seed=1)
    with pytest.raises(NuebarError, match=r"function: .*:write\" -> .*:die\"; suffix: .*; and 397 more"):
        run_stage(tmp_path, Stage("toys", FUNCTION("die"), {"list": [1] * 400}, 6), seed=1)


def test_the_order_of_keys_and_the_kind_of_sequence_are_no_difference(tmp_path):
    run_stage(tmp_path, stage(config={"a": [1, 2], "b": 2}), seed=1)
    assert run_stage(tmp_path, stage(config={"b": 2, "a": (1, 2)}), seed=1).kept == 6


def test_force_keeps_what_is_not_contradicted(tmp_path):
    run_stage(tmp_path, stage(), seed=1)
    assert run_stage(tmp_path, stage(), seed=1, force=True).kept == 6


def test_more_chunks_extend_a_stage_and_fewer_are_refused(tmp_path, reference):
    run_stage(tmp_path, stage(chunks=4), seed=1)
    result = run_stage(tmp_path, stage(chunks=6), seed=1)
    assert result.kept == 4
    assert contents(tmp_path) == reference
    with pytest.raises(NuebarError, match="chunks: 6 -> 5"):
        run_stage(tmp_path, stage(chunks=5), seed=1)
    run_stage(tmp_path, stage(chunks=5), seed=1, force=True)
    assert list(contents(tmp_path)) == list(reference)[:5]


@pytest.mark.parametrize("failing", ["unlink", "replace", "fsync"])
def test_a_crash_while_old_chunks_are_thrown_away_never_makes_them_new(tmp_path, monkeypatch, failing):
    run_stage(tmp_path / "fresh", stage(config={"words": 60}), seed=1)
    for n in range(7):
        folder = tmp_path / str(n)
        run_stage(folder, stage(), seed=1)
        real, calls = getattr(os, failing), iter(range(10**9))

        def call(*arguments, real=real, calls=calls, n=n, **options):
            if next(calls) >= n:
                raise KeyboardInterrupt
            return real(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, failing, call)
            with pytest.raises(KeyboardInterrupt):
                run_stage(folder, stage(config={"words": 60}), seed=1, force=True)
        run_stage(folder, stage(config={"words": 60}), seed=1, force=True)
        assert contents(folder) == contents(tmp_path / "fresh")


def test_chunks_without_a_description_are_not_ours(tmp_path):
    run_stage(tmp_path, stage(), seed=1)
    (tmp_path / "toys" / "stage.json").unlink()
    with pytest.raises(NuebarError, match=r"stage\.json: gone"):
        run_stage(tmp_path, stage(), seed=1)
    assert run_stage(tmp_path, stage(), seed=1, force=True).kept == 0


def test_other_versions_are_told_and_remembered(tmp_path, caplog):
    run_stage(tmp_path, stage(chunks=1), seed=1)
    path = tmp_path / "toys" / "stage.json"
    record = json.loads(path.read_text())
    record["versions"][0]["numpy"] = "1.0"
    path.write_text(json.dumps(record))
    run_stage(tmp_path, stage(chunks=1), seed=1)
    assert 'numpy: "1.0" -> ' in caplog.text
    assert len(json.loads(path.read_text())["versions"]) == 2
    caplog.clear()
    run_stage(tmp_path, stage(chunks=1), seed=1)
    assert not caplog.records


# --- kills


@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_killed_run_loses_nothing_and_does_nothing_twice(tmp_path, helpers, spawn, jobs):
    """SIGKILL at random times, again and again, then a run to the end."""
    run_stage(tmp_path / "whole", stage(chunks=12), seed=1)
    whole = contents(tmp_path / "whole")
    log, ledger = tmp_path / "log", tmp_path / "toys" / "ledger.jsonl"
    log.touch()
    text = script(helpers, tmp_path, config={"seconds": 0.08, "log": str(log)}, chunks=12, jobs=jobs)
    rng, recorded = random.Random(jobs), 0
    for _ in range(3):
        before = log.stat().st_size
        process = spawn(text)
        wait_for(lambda before=before: log.stat().st_size > before)
        time.sleep(rng.uniform(0.0, 0.2))
        process.kill()
        process.communicate()
        now = ledger.read_bytes().count(b"\n")
        assert recorded <= now < 12
        recorded = now
        assert {k: whole[k] for k in contents(tmp_path)} == contents(tmp_path)
    process = spawn(text)
    _, told = process.communicate()
    assert process.returncode == 0, told
    assert contents(tmp_path) == whole
    assert names(tmp_path / "toys") == [*whole, "ledger.jsonl", "stage.json"]
    # Each kill costs at most the chunks that were at work.
    assert 12 <= log.read_text().count("begin") <= 12 + 3 * jobs


def test_workers_die_with_their_run_and_keep_the_folder_locked_until_then(tmp_path, helpers, spawn):
    log = tmp_path / "log"
    (tmp_path / "toys").mkdir()
    process = spawn(script(helpers, tmp_path, function="pid_of", config={"log": str(log)}, jobs=2))
    wait_for(lambda: log.exists() and log.read_text().count("\n") == 2)
    pids = [int(word) for word in log.read_text().split()]
    assert all(alive(pid) for pid in pids)
    process.kill()
    process.wait()  # the workers have not noticed yet
    # At once: the lock waits for the last worker.
    run_stage(tmp_path, stage(), seed=1, force=True)
    assert not any(alive(pid) for pid in pids)


def errors_told(text: str) -> int:
    """Number of errors in what a program told; one that arrived while another was handled is part of that one."""
    return len(re.findall(r"(?<!:\n\n)^Traceback", text, re.MULTILINE))


def test_an_interrupt_in_the_middle_of_another_error_counts_once(spawn):
    """An interrupt can come while a library handles an exception of its own, as `pathlib` does to write a path."""
    chained = "try: 1 / 0\nexcept ZeroDivisionError: raise KeyboardInterrupt"
    caused = "try: 1 / 0\nexcept ZeroDivisionError as error: raise KeyboardInterrupt from error"
    for text in ("raise KeyboardInterrupt", chained, caused):
        _, told = spawn(text).communicate()
        assert told.count("Traceback") == 1 + (text in (chained, caused))
        assert errors_told(told) == 1
        assert errors_told(told + told) == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_signal_stops_cleanly(tmp_path, helpers, spawn, reference, number, code, jobs):
    text = script(helpers, tmp_path, config={"seconds": 0.15}, jobs=jobs)
    process = spawn(text, start_new_session=True)
    ledger = tmp_path / "toys" / "ledger.jsonl"
    wait_for(lambda: ledger.exists() and ledger.read_bytes().count(b"\n"))
    os.killpg(process.pid, number)  # as a terminal does it: to the workers too
    _, told = process.communicate(timeout=60)
    assert process.returncode == code
    assert errors_told(told) <= 1  # that of the script; none of a worker
    assert not [name for name in names(tmp_path / "toys") if ".part" in name]
    assert len(contents(tmp_path)) < 6
    assert run_stage(tmp_path, stage(config={"seconds": 0.15}), seed=1, jobs=2).kept >= 1
    assert contents(tmp_path) == reference


def test_a_killed_worker_costs_its_chunk_only(tmp_path, reference):
    config = {"chunks": [1, 4], "times": 2, "marks": str(tmp_path / "marks")}
    run_stage(tmp_path, stage("die", config=config), seed=1, jobs=2)
    assert contents(tmp_path) == reference
    assert len(names(tmp_path / "toys")) == 8
    assert [(tmp_path / f"marks-{i}").read_text() for i in (1, 4)] == ["xxx", "xxx"]


def test_a_chunk_that_kills_its_workers_is_named_in_the_end(tmp_path, reference):
    config = {"chunks": [1], "times": 3, "marks": str(tmp_path / "marks")}
    with pytest.raises(NuebarError, match=r"'toys', chunk 1 fails: .*3 workers in a row died .*SIGKILL.*fewer jobs"):
        run_stage(tmp_path, stage("die", config=config), seed=1, jobs=2)
    (now,) = status(tmp_path)
    assert (now.failed, now.errors[0][0]) == (1, 1)
    assert now.done >= 1
    assert not [name for name in names(tmp_path / "toys") if ".part" in name]
    run_stage(tmp_path, stage("die", config=config), seed=1, jobs=2)
    assert contents(tmp_path) == reference


def test_a_worker_that_cannot_start_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(NuebarError, match="worker cannot be started"):
        run_stage(tmp_path, stage(), seed=1, jobs=2)


# --- errors in a chunk

SENTENCES = {
    "told": "stage 'toys', chunk 2 fails: expected a source, got none; name one",
    "memory": "chunk 2 fails: expected enough memory",
    "absent": "chunk 2 fails: /nonexistent/input.parquet: .*'No such file or directory'",
    "nothing": "chunk 2 fails: .* wrote nothing",
    "nan": "chunk 2 fails: summary .*, key mean.e_rec_MeV: expected finite numbers.*got nan",
    "type": "chunk 2 fails: summary .*, key when: .*got object",
    "bug": "stage 'toys', chunk 2 fails: KeyError: 'no such thing'",
}


@pytest.mark.parametrize(("kind", "jobs"), [*((kind, 1) for kind in SENTENCES), ("told", 2), ("bug", 2)])
def test_an_error_in_a_chunk_is_told_with_its_index(tmp_path, kind, jobs):
    broken = stage("fail_at", 4, {"chunk": 2, "kind": kind})
    with pytest.raises(RuntimeError if kind == "bug" else NuebarError, match=SENTENCES[kind]) as caught:
        run_stage(tmp_path, broken, seed=1, jobs=jobs)
    trace = "".join(traceback.format_exception(caught.value))
    assert "in fail_at" in trace or "chunk.py" in trace
    (now,) = status(tmp_path)
    assert (now.chunks, now.failed) == (4, 1)
    assert now.done + now.missing == 3
    if jobs == 1:
        assert now.done == 2  # no chunk is begun after the failure
    assert str(caught.value).endswith(now.errors[0][1])
    assert not (tmp_path / "toys" / "chunk-00002.bin").exists()
    assert not list(tmp_path.glob("**/.*.part*"))


def test_the_sentence_of_a_chunk_outlives_a_ledger_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(self, outcome):
        if outcome.error:
            raise NuebarError("the ledger cannot be written")

    monkeypatch.setattr(Ledger, "add", refuse)
    with pytest.raises(NuebarError, match=SENTENCES["told"]):
        run_stage(tmp_path, stage("fail_at", 4, {"chunk": 2, "kind": "told"}), seed=1)


@pytest.mark.parametrize("function", ["no_such_module:write", FUNCTION("no_such_function"), FUNCTION("NUMPY_BEFORE")])
def test_a_function_that_is_not_there_is_told(tmp_path, function):
    with pytest.raises(NuebarError, match="expected the chunk function"):
        run_stage(tmp_path, Stage("toys", function, {}, 2), seed=1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": "../toys"}, "name"),
        ({"name": ""}, "name"),
        ({"function": "write"}, "function"),
        ({"function": "__main__:write"}, "import"),
        ({"chunks": 0}, "chunks"),
        ({"chunks": True}, "chunks"),
        ({"suffix": "bin"}, "suffix"),
        ({"config": [1]}, "config"),
    ],
)
def test_a_wrong_stage_is_refused(change, told):
    good = {"name": "toys", "function": FUNCTION("write"), "config": {}, "chunks": 1}
    with pytest.raises(NuebarError, match=told):
        Stage(**{**good, **change})


@pytest.mark.parametrize(
    ("options", "told"),
    [({"seed": -1}, "seed"), ({"seed": 1.0}, "seed"), ({"seed": 1, "jobs": 0}, "jobs")]
    + [({"seed": 1, "max_seconds": s}, "max_seconds") for s in (0, -1.0, float("nan"))],
)
def test_wrong_options_are_refused(tmp_path, options, told):
    with pytest.raises(NuebarError, match=told):
        run_stage(tmp_path / "new", stage(), **options)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"a": {"b": [1.0, float("inf")]}}, r"key a\.b\[1\]: .*got inf"),
        ({"path": Path("x")}, "key path: .*Path"),
        ({"a": {(1, 2): 3}}, "key a: "),
    ],
)
def test_a_config_that_is_not_plain_is_refused_with_its_key(tmp_path, config, told):
    with pytest.raises(NuebarError, match=told):
        run_stage(tmp_path, stage(config=config), seed=1)


# --- the place


def test_a_folder_has_one_run_at_a_time(tmp_path, helpers, spawn, reference):
    process = spawn(script(helpers, tmp_path, config={"seconds": 0.3}, chunks=3))
    wait_for(lambda: len(contents(tmp_path)) >= 1)
    with pytest.raises(NuebarError, match=rf"process {process.pid} on {socket.gethostname()} is at work"):
        run_stage(tmp_path, stage(), seed=1)
    _, told = process.communicate()
    assert process.returncode == 0, told
    assert contents(tmp_path) == {k: reference[k] for k in list(reference)[:3]}


def nested(tasks):
    task = next(tasks)
    run_stage(Path(task.path).parents[1], Stage("other", task.function, {}, 1), seed=1)
    yield run_task(task)


def test_a_run_inside_a_run_is_refused_too(tmp_path):
    with pytest.raises(NuebarError, match=f"process {os.getpid()} "):
        run_stage(tmp_path, stage(), seed=1, jobs=nested)
    run_stage(tmp_path, stage(), seed=1)


@pytest.mark.parametrize("system_locks", [True, False])
def test_the_lock_of_a_dead_process_is_taken_over(tmp_path, monkeypatch, caplog, system_locks):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / ".lock").write_text(json.dumps({"pid": dead.pid, "host": socket.gethostname()}))
    if not system_locks:
        monkeypatch.setattr(lock_module.fcntl, "flock", no_locks)
    caplog.set_level("INFO", logger="nuebar")
    run_stage(tmp_path, stage(), seed=1)
    assert f"taking over from process {dead.pid}" in caplog.text
    assert (tmp_path / ".lock").read_bytes() == b""


def no_locks(descriptor, how):
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize(
    "owner", [{"pid": os.getppid(), "host": socket.gethostname()}, {"pid": 1, "host": "elsewhere"}]
)
def test_without_system_locks_the_process_number_decides(tmp_path, monkeypatch, owner):
    monkeypatch.setattr(lock_module.fcntl, "flock", no_locks)
    (tmp_path / ".lock").write_text(json.dumps(owner))
    with pytest.raises(NuebarError, match=f"process {owner['pid']} on {owner['host']}"):
        run_stage(tmp_path, stage(), seed=1)
    # In a container the same number comes back.
    (tmp_path / ".lock").write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
    run_stage(tmp_path, stage(), seed=1)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_full_disk_is_one_sentence_and_finished_chunks_stay(tmp_path, helpers, spawn, jobs):
    """The system lets no file grow beyond 4 kB: chunks of 80 kB do not fit, the first stage's did."""
    small, large = {"words": 50}, {"words": 10_000}
    run_stage(tmp_path, stage(config=small), seed=1)
    before = contents(tmp_path)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
    limit += "stage = Stage('large', stage.function, config, stage.chunks, suffix='.bin')"
    process = spawn(script(helpers, tmp_path, config=large, jobs=jobs, before=limit))
    _, told = process.communicate()
    assert process.returncode == 1
    assert told.count("\n") == 1
    assert told.startswith("stage 'large', chunk 0 fails")
    assert "chunk-00000.bin: cannot be written (File too large); free some space" in told
    assert contents(tmp_path) == before
    assert contents(tmp_path, "large") == {}
    assert names(tmp_path / "large") == ["ledger.jsonl", "stage.json"]
    result = run_stage(tmp_path, Stage("large", FUNCTION("write"), large, 6, suffix=".bin"), seed=1)
    assert [path.stat().st_size for path in result.paths] == [80_000] * 6


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/run")):
        with pytest.raises(NuebarError, match=str(place)):
            run_stage(place, stage(), seed=1)


def test_a_folder_without_the_right_to_write_is_one_sentence(tmp_path, monkeypatch):
    run_stage(tmp_path, stage(), seed=1)
    tmp_path.chmod(0o555)
    (tmp_path / "toys").chmod(0o555)
    try:
        if os.geteuid() == 0:
            os.seteuid(65534)
        with pytest.raises(NuebarError, match="Permission denied"):
            run_stage(tmp_path, stage(), seed=1)
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        tmp_path.chmod(0o755)
        (tmp_path / "toys").chmod(0o755)
    assert run_stage(tmp_path, stage(), seed=1).kept == 6


@pytest.mark.parametrize(
    ("content", "told"),
    [("", "empty"), ('{"format": 1}', "key stage: expected str, got nothing"), ('{"format": 1, "stage"', "JSON")],
)
def test_a_damaged_description_is_refused(tmp_path, content, told):
    run_stage(tmp_path, stage(), seed=1)
    (tmp_path / "toys" / "stage.json").write_text(content)
    for call in (lambda: run_stage(tmp_path, stage(), seed=1), lambda: status(tmp_path)):
        with pytest.raises(NuebarError, match=told):
            call()


# --- status


def test_status_counts_every_chunk_once(tmp_path):
    run_stage(tmp_path, Stage("zeroth", FUNCTION("write"), {}, 3, suffix=".bin"), seed=1)
    with pytest.raises(UnfinishedError):
        run_stage(tmp_path, stage(), seed=1, max_seconds=1e-9)
    with pytest.raises(NuebarError):
        run_stage(tmp_path, Stage("failing", FUNCTION("fail_at"), {"chunk": 1, "kind": "told"}, 4), seed=1)
    (tmp_path / "zeroth" / "chunk-00001.bin").write_bytes(b"")
    (tmp_path / "notes").mkdir()
    found = [(s.name, s.chunks, s.done, s.missing, s.failed) for s in status(tmp_path)]
    assert found == [("zeroth", 3, 2, 1, 0), ("toys", 6, 1, 5, 0), ("failing", 4, 1, 2, 1)]
    with pytest.raises(NuebarError, match="expected the folder of a run"):
        status(tmp_path / "absent")


def test_local_processes_start_no_more_workers_than_there_is_work(tmp_path, monkeypatch):
    started = []
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(1) or real(*a, **k))
    run_stage(tmp_path, stage(chunks=1), seed=1, jobs=LocalProcesses(8))
    assert len(started) == 1
