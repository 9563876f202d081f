"""Time against workers: local processes and Dask workers, a stream, toys and empty chunks. Writes run-scaling.json.

python benchmarks/cluster.py [--days 60] [--toys 1000] [--work FOLDER] [--out docs/results]

The Dask scheduler and its workers are processes of their own on this machine, as they would be elsewhere. Every run
makes the same files, which is checked. `python benchmarks/cluster_page.py` brings the record into docs/cluster.md.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")

from nuebar.config import load_experiment
from nuebar.jobs.fit import FitJob
from nuebar.jobs.ibd import oscillation_of
from nuebar.jobs.record import write_claim
from nuebar.jobs.stream import StreamJob, run_stream
from nuebar.jobs.toys import PER_CHUNK, ToysJob, run_toys_job
from nuebar.run import Stage, Task, run_stage
from nuebar.run.cluster import executor
from nuebar.run.dask_workers import request

ROOT = Path(__file__).resolve().parents[1]
SEED = 1
EMPTY = 300
WHO = ("1 process", "2 processes", "1 Dask worker", "2 Dask workers")


@contextmanager
def cluster(workers):
    """A scheduler and so many workers of one thread, as processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scheduler.json"
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        dask = [sys.executable, "-m"]
        words = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
        all_ = [subprocess.Popen([*dask, "distributed.cli.dask_scheduler", *words], **silent)]
        try:
            words = ["--scheduler-file", str(file), "--nthreads", "1", "--no-nanny", "--no-dashboard"]
            words += ["--local-directory", folder]
            all_ += [subprocess.Popen([*dask, "distributed.cli.dask_worker", *words], **silent) for _ in range(workers)]
            while not (file.exists() and file.read_text()):
                time.sleep(0.05)
            dask_workers = executor(str(file))
            dask_workers.overhead(1)
            while len(dask_workers.link().client.nthreads()) < workers:
                time.sleep(0.05)
            try:
                yield dask_workers
            finally:
                dask_workers.close()
        finally:
            for process in all_:
                process.kill()
                process.wait()


def everybody():
    """Each kind of workers, with what ``jobs`` shall be."""
    for n in (1, 2):
        yield WHO[n - 1], n
    for n in (1, 2):
        with cluster(n) as dask_workers:
            yield WHO[n + 1], dask_workers


def digest(paths):
    state = hashlib.blake2b(digest_size=8)
    for path in sorted(paths):
        state.update(path.read_bytes())
    return state.hexdigest()


def stream(days, work):
    """Seconds of a stream, whose tables of light and rates are there already."""
    experiment = load_experiment("juno")
    tables, rows = work / "tables", []

    def job(length):
        return StreamJob(experiment, length, oscillation_of(experiment), seed=SEED)

    run_stream(job(1e-3), tables, jobs=2)
    shutil.rmtree(tables / "stream")
    for who, jobs in everybody():
        place = work / "stream"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(tables, place)
        begin = time.perf_counter()
        result = run_stream(job(days), place, jobs=jobs)
        seconds = time.perf_counter() - begin
        size = sum(path.stat().st_size for path in result.paths)
        events = sum((s or {})["events"] for s in result.summaries)
        rows.append({"workers": who, "seconds": seconds, "digest": digest(result.paths)})
        print(f"stream of {days:g} days, {who}: {seconds:.1f} s, {events / seconds / 1e6:.2f} million events/s")
    chunks = len(result.paths)
    size_of_request = request_bytes(work / "stream" / "stream")
    shutil.rmtree(work / "stream")
    return {
        "request_bytes": size_of_request,
        "days": chunks * job(1).window_s / 86_400,
        "chunks": chunks,
        "events": events,
        "bytes": size,
        "same_bits": len({row["digest"] for row in rows}) == 1,
        "rows": rows,
    }


def toys(number, work):
    """Seconds of toys; of four times as many too, as a thousand are one chunk, and of none: the start."""
    rows = []
    run_toys_job(ToysJob(FitJob(asimov=True, exposure_years=6.0), toys=2, seed=SEED), work / "warm", jobs=1)
    for who, jobs in everybody():
        row = {"workers": who}
        for n in (number, 4 * number):
            place = work / f"toys-{n}-{who.replace(' ', '-')}"
            job = ToysJob(FitJob(asimov=True, exposure_years=6.0), toys=n, seed=SEED)
            if not isinstance(jobs, int):
                jobs.close()  # ends its processes: each number is measured with their start, as local ones are
            begin = time.perf_counter()
            run_toys_job(job, place, jobs=jobs)
            row[f"seconds_{n}"] = time.perf_counter() - begin
            paths = sorted((place / "toys").glob("chunk-*"))
            row[f"digest_{n}"], row["bytes"] = digest(paths), sum(p.stat().st_size for p in paths)
            print(f"{n} toys, {who}: {row[f'seconds_{n}']:.1f} s")
        rows.append(row)
    return {
        "request_bytes": request_bytes(place / "toys"),
        "toys": [number, 4 * number],
        "per_chunk": PER_CHUNK,
        "bytes": rows[-1]["bytes"],
        "same_bits": all(len({row[f"digest_{n}"] for row in rows}) == 1 for n in (number, 4 * number)),
        "rows": rows,
    }


def empty(work):
    """Milliseconds that everything around a chunk takes: keys, files, checksums, ledger, and the way there."""
    rows, stage = [], Stage("empty", "empty_chunk:nothing", {}, EMPTY, ".bin")
    sys.path.insert(0, str(Path(__file__).parent))
    for who, jobs in everybody():
        if not isinstance(jobs, int):
            run_stage(work / f"first-{who.replace(' ', '-')}", stage, seed=SEED, jobs=jobs)  # its processes are there
        begin = time.perf_counter()
        run_stage(work / f"empty-{who.replace(' ', '-')}", stage, seed=SEED, jobs=jobs)
        row = {"workers": who, "ms_per_chunk": 1e3 * (time.perf_counter() - begin) / EMPTY}
        if not isinstance(jobs, int):
            row["ms_of_dask_alone"] = 1e3 * jobs.overhead()
        rows.append(row)
        print(f"{EMPTY} empty chunks, {who}: {row['ms_per_chunk']:.2f} ms/chunk")
    return {"chunks": EMPTY, "rows": rows}


def request_bytes(folder):
    """Bytes of one request to a worker, as it travels."""
    record = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
    path = str(folder.absolute() / f"chunk-00000{record['suffix']}")
    task = Task(record["stage"], record["function"], json.dumps(record["config"]), 0, 2**63, path)
    return len(request(task, "0" * 16, folder / "probe", 60.0))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=float, default=60.0)
    parser.add_argument("--toys", type=int, default=1000)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    options = parser.parse_args()
    begin = time.perf_counter()
    if options.work is not None:
        options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        work = Path(folder)
        numbers = {"empty": empty(work), "toys": toys(options.toys, work)}
        numbers["stream"] = stream(options.days, work)
    words = f"python benchmarks/cluster.py --days {options.days:g} --toys {options.toys}"
    path = write_claim(
        options.out, "run-scaling", numbers, command=words, seconds=time.perf_counter() - begin, seed=SEED
    )
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
