"""The measured part of docs/cluster.md and its plans for large jobs, from docs/results/run-scaling.json.

python benchmarks/cluster_page.py
"""

import json
import math
from pathlib import Path

from predictor_page import duration
from simulation_page import table

ROOT = Path(__file__).resolve().parents[1]
PAGE, RECORD = ROOT / "docs" / "cluster.md", ROOT / "docs" / "results" / "run-scaling.json"
BEGIN, END = "<!-- measured: benchmarks/cluster_page.py -->", "<!-- /measured -->"
YEARS, WINDOW_S, TOYS = 6.0, 14_400.0, 1_000_000
# What the plan takes for granted; everything else in it is measured.
NODES, CORES = 100, 32
DISK_GB_PER_S = 1.0


def plan(numbers, *, nodes=NODES, cores=CORES, disk_GB_per_s=DISK_GB_PER_S):
    """How long two large jobs take on many machines.

    Every core does one chunk at a time, as fast as the one Dask worker of the record does; each first loads its
    program once. The scheduler passes chunks on one after the other at the rate measured with empty ones, and the
    shared disk takes bytes at the rate assumed; the slowest of the three decides. Waiting for the batch system, and
    machines that are lost, are not counted.

    Args:
        numbers: Of the record.
        nodes: Machines.
        cores: Of each.
        disk_GB_per_s: What the shared file system takes from all of them together.

    Returns:
        For each job: ``chunks``, ``chunk_s``, ``start_s``, ``work_s``, ``scheduler_s``, ``disk_s``, ``bytes`` and
        ``seconds``, all in seconds and bytes.
    """
    workers = nodes * cores
    per_chunk_s = _row(numbers["empty"]["rows"], "2 Dask workers")["ms_per_chunk"] / 1e3
    s, t = numbers["stream"], numbers["toys"]
    chunk_s = _row(s["rows"], "1 Dask worker")["seconds"] / s["chunks"]
    windows = math.ceil(YEARS * 365.25 * 86_400 / WINDOW_S)
    few, many = t["toys"]
    row = _row(t["rows"], "1 Dask worker")
    toy_s = (row[f"seconds_{many}"] - row[f"seconds_{few}"]) / (many - few)
    start_s = max(row[f"seconds_{few}"] - few * toy_s, 0.0)
    jobs = {
        "stream": (windows, chunk_s, 0.0, s["bytes"] / s["chunks"]),
        "toys": (math.ceil(TOYS / t["per_chunk"]), t["per_chunk"] * toy_s, start_s, t["bytes"] / many * t["per_chunk"]),
    }
    found = {}
    for name, (chunks, each_s, begin_s, size) in jobs.items():
        work_s = math.ceil(chunks / workers) * each_s
        scheduler_s, disk_s = chunks * per_chunk_s, chunks * size / (disk_GB_per_s * 1e9)
        found[name] = {
            "chunks": chunks,
            "chunk_s": each_s,
            "start_s": begin_s,
            "work_s": work_s,
            "scheduler_s": scheduler_s,
            "disk_s": disk_s,
            "bytes": chunks * size,
            "seconds": begin_s + max(work_s, scheduler_s, disk_s),
        }
    return found


def block(record):
    """The measured part of the page."""
    n, machine = record["numbers"], record["machine"]
    s, t, e = n["stream"], n["toys"], n["empty"]
    few, many = t["toys"]
    rows = []
    for i, who in enumerate(row["workers"] for row in s["rows"]):
        a, b, c = s["rows"][i], t["rows"][i], e["rows"][i]
        rows.append([who, f"{a['seconds']:.1f}", f"{b[f'seconds_{few}']:.1f}", f"{b[f'seconds_{many}']:.1f}",
                     f"{c['ms_per_chunk']:.1f}"])  # fmt: skip
    dask = _row(e["rows"], "2 Dask workers")
    equal = "the same bits whoever did the work" if s["same_bits"] and t["same_bits"] else "**NOT the same bits**"
    singles = n["stream"]["events"] / n["stream"]["days"] * YEARS * 365.25
    told = plan(n)
    jobs = [
        [f"stream of {YEARS:g} years ({singles:.1e} events)", *_plan_cells(told["stream"])],
        [f"{TOYS:,} toys", *_plan_cells(told["toys"])],
    ]
    return "\n\n".join(
        [
            f"Measured on {machine['cores']} cores ({machine['processor']}) with `{record['command']}`; a stream of "
            f"{s['days']:g} days is {s['events']:,} events in {s['chunks']} chunks, toys come in chunks of "
            f"{t['per_chunk']}. All files had {equal}. More than {machine['cores']} workers could not be measured.",
            table(
                [
                    "workers",
                    f"stream of {s['days']:g} days [s]",
                    f"{few} toys [s]",
                    f"{many} toys [s]",
                    "empty chunk [ms]",
                ],
                rows,
            ),
            f"Times of toys contain the start of each worker: its imports, and reading the compiled fit. An empty "
            f"chunk costs what everything around it does: key, file, flush to disk, checksum, ledger; Dask alone takes "
            f"{dask['ms_of_dask_alone']:.1f} ms of it. A chunk of the stream sends {s['request_bytes']:,} bytes to its "
            f"worker and one of toys {t['request_bytes']:,}; it gets back a line of JSON.",
            f"From these figures, **computed, not measured**, for {NODES} machines of {CORES} cores:",
            table(
                ["job", "chunks", "one chunk [s]", "start [s]", "work", "scheduler", "disk", "size [GB]", "together"],
                jobs,
            ),
            f"Assumed: each core is as fast as one of these and does one chunk at a time (work = chunks / "
            f"{NODES * CORES}, rounded up, times one chunk); one scheduler passes chunks on at the rate of empty ones; "
            f"the shared disk takes {DISK_GB_PER_S:g} GB/s from all together. The slowest of the three decides. The "
            "batch queue's wait and lost machines are not counted. `plan` in `benchmarks/cluster_page.py` takes other "
            "numbers.",
        ]
    )


def page(text, record):
    """The page with its measured part made again."""
    head, rest = text.split(BEGIN)
    told = block(record) if record else "Not measured yet: `python benchmarks/cluster.py`."
    return f"{head}{BEGIN}\n\n{told}\n\n{END}{rest.split(END)[1]}"


def _plan_cells(job):
    times = [duration(job[name]) for name in ("work_s", "scheduler_s", "disk_s")]
    return [f"{job['chunks']:,}", f"{job['chunk_s']:.2f}", f"{job['start_s']:.0f}", *times,
            f"{job['bytes'] / 1e9:.3g}", duration(job["seconds"])]  # fmt: skip


def _row(rows, who):
    return next(row for row in rows if row["workers"] == who)


def main():
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else None
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), record), encoding="utf-8")


if __name__ == "__main__":
    main()
