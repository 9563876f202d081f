"""A chain of cheap stages in the folder of a real run, in a process of its own that may be killed at any point.

Everything but the work of the stages is nuebar's: command line, run file, runner, folder, chunks. Run as
``python toy_chain.py run --out FOLDER ...`` or ``python toy_chain.py points kill|full FOLDER STEP [FORCED]``.
"""

import builtins
import errno
import io
import json
import logging
import os
import shutil
import signal
import sys
import time
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from nuebar.chain import runner
from nuebar.chain.folder import content_digest
from nuebar.chain.run_file import load_run_file
from nuebar.errors import NuebarError
from nuebar.io.files import atomic_path
from nuebar.io.results import load_result, save_result
from nuebar.run import Stage, run_stage

PAUSE_s = float(os.environ.get("TOY_PAUSE", "0"))
BOOKS = ("ledger.jsonl",)  # of how often it was tried
SETTINGS = {"simulate.days": 0.1}
COMMAND = "toy"


def chunk(config, chunk, key, path):
    """Some kilobytes, in parts."""
    write(path, key.to_bytes(8, "little") * config["words"])
    return {"first": key % 1000}


def write(path, data):
    with open(path, "wb") as file:
        for k in range(4):
            file.write(data[k * len(data) // 4 : (k + 1) * len(data) // 4])
            file.flush()
            time.sleep(PAUSE_s)


def written(path, data):
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path) as temporary:
        write(temporary, data)


def summed(*folders):
    """What a later stage sees of earlier ones."""
    return sum(sum(p.read_bytes()) for folder in folders for p in sorted(folder.rglob("*.bin")))


def work(job, folder, stage, place, progress):
    """Stages of the shapes that the real ones have."""
    home, run, options = folder.home, job.run, {"seed": job.run.seed, "jobs": job.jobs}
    words = 512 * int(os.environ.get("TOY_KB", "1"))
    if stage == "simulate":
        save_result(place / "truth.json", {"kind": "truth", "dm2": run.simulate.truth.oscillation["dm2_21_eV2"].value})
        run_stage(place, Stage("stream", "toy_chain:chunk", {"words": words}, 4, ".bin"), **options)
        run_stage(place / "monte-carlo", Stage("ibd", "toy_chain:chunk", {"words": words}, 2, ".bin"), **options)
        written(place / "calibration" / "Cs137.bin", bytes(range(200)))
        return {"events": 4}
    if stage == "select":
        written(place / "candidates.bin", summed(home / "simulate" / "stream").to_bytes(8, "big") * 100)
        save_result(place / "prompt.json", {"bins": run.fit.bins, "counts": summed(home / "simulate" / "monte-carlo")})
        return {"bins": run.fit.bins}
    if stage == "tune":
        save_result(place / "posterior.json", {"mean": summed(home / "simulate" / "calibration") / 7})
        return {}
    if stage == "predict":
        config = {"words": words, "mean": load_result(home / "tune" / "posterior.json")["mean"]}
        run_stage(place / "reference", Stage("ibd", "toy_chain:chunk", config, 2, ".bin"), **options)
        save_result(place / "prediction.json", {"sum": summed(place)})
        return {}
    if stage == "fit":
        bins = load_result(home / "select" / "prompt.json")["bins"]
        assert bins == run.fit.bins, "the fit has other bins than the selection"
        save_result(place / "result.json", {"value": summed(home / "select") / 3, "statistic": run.fit.statistic})
        return {"valid": True}
    runner._overview(job, folder)
    words = f"<p>{run.title} {summed(home)} {load_result(home / 'fit' / 'result.json')['value']}</p>"
    written(place / "index.html", words.encode())
    save_result(place / "report.json", {"sum": summed(home)})
    return {"page": "index.html"}


def tree(home):
    """Digest of every file of a run, clocks left out; hidden files only if they are no locks."""
    files = [p for p in sorted(Path(home).rglob("*")) if p.is_file() and p.name not in (*BOOKS, ".lock")]
    return {str(p.relative_to(home)): content_digest(p) for p in files}


def run(out, *, force=(), **options):
    job = runner.ChainJob(load_run_file(None, SETTINGS), tuple(force), command=COMMAND, **options)
    return runner.run_chain(job, out)


# ---------------------------------------------------------------- every point at which it may end


class Trap:
    """Counts the calls that change a disk, and strikes at one of them."""

    KILL = ("replace", "rename", "unlink", "mkdir", "rmdir", "fsync", "open", "write", "pwrite", "ftruncate")
    FULL = ("replace", "mkdir", "fsync", "open", "write", "pwrite")

    def __init__(self, how, at):
        self.how, self.at, self.count = how, at, 0
        for name in self.KILL if how == "kill" else self.FULL:
            setattr(os, name, self.wrapped(getattr(os, name), name))
        builtins.open = io.open = self.wrapped(io.open, "file")

    def wrapped(self, function, name):
        def call(*words, **options):
            if name == "open" and not (words[1] & os.O_CREAT):
                return function(*words, **options)
            if name == "file" and not any(
                c in (words[1] if len(words) > 1 else options.get("mode", "r")) for c in "wax"
            ):
                return function(*words, **options)
            self.count += 1
            if self.count == self.at:
                if self.how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return None if name == "fsync" else function(*words, **options)

        return call


def forked(function):
    """Exit code of a child that does it; minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = function() or 0
        except NuebarError as error:
            code = 2 if "\n" not in str(error) and len(str(error)) > 20 else 3
        except OSError as error:  # the command line makes a sentence of these
            code = 2 if error.errno == errno.ENOSPC else 4
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


SURVIVED = 9  # a flush of a folder, which some file systems cannot do, is no reason to stop


def points(how, place, step, *forced):
    """End a run at every point, or every few, go on, and compare. One line of JSON tells what was found."""
    place = Path(place)
    logging.disable(logging.CRITICAL)
    assert forked(lambda: run(place / "reference") and 0) == 0
    reference, wrong = tree(place / "reference"), []
    expected = (-signal.SIGKILL,) if how == "kill" else (2, SURVIVED)
    for at in range(1, 10_000, int(step)):
        out = place / f"{how}-{at}"
        if forced:
            shutil.copytree(place / "reference", out)

        def once(at=at, out=out, trap=True):
            trap = Trap(how, at) if trap else None
            run(out, force=forced)
            return SURVIVED if trap and trap.count >= at else 0

        code = forked(once)
        if code == 0:
            break
        if code not in expected:
            wrong.append([at, "ended with", code])
        if out.exists():
            # What has its final name is whole, even before anything is mended.
            for path in out.rglob("*"):
                name = str(path.relative_to(out))
                known = name in reference and path.suffix in (".bin", ".html")
                if known and path.is_file() and not forced and content_digest(path) != reference[name]:
                    wrong.append([at, "half-written", name])
                if path.suffix == ".json" and path.is_file() and not path.name.startswith("."):
                    load_result(path)
        code = forked(lambda: once(trap=False))
        if code != 0 or tree(out) != reference:
            wrong.append([at, "went on with", code, sorted(set(tree(out).items()) ^ set(reference.items()))[:4]])
    sys.stdout.write(json.dumps({"points": at, "wrong": wrong}) + "\n")


def main(words):
    runner._work = work
    runner.git_commit = lambda: None
    if words[0] == "points":
        return points(*words[1:])
    sys.modules["nuebar.chain.summary"] = types.SimpleNamespace(run_summary=lambda home: f"summary of {home}")
    from nuebar.cli import main as nuebar

    return nuebar(words)


if __name__ == "__main__":
    import toy_chain  # under the name by which workers import it

    toy_chain.main(sys.argv[1:])
