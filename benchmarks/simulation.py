"""Speeds of the detector Monte Carlo, on two threads or two processes. Writes docs/results/bench-simulation.json.

python benchmarks/simulation.py [--out docs/results] [--quick]
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")

import numpy as np

from nuebar.config import load_experiment
from nuebar.jobs.ibd import load_spectrum, spectrum_stage
from nuebar.jobs.record import write_claim
from nuebar.run import run_stage
from nuebar.simulate.accidentals import accidental_pairs
from nuebar.simulate.calibration import charges
from nuebar.simulate.detector import DetectorModel, gamma_cascades
from nuebar.simulate.ibd import ibd_cascades, ibd_events
from nuebar.simulate.quench import Response, Scintillation, light_table
from nuebar.simulate.random import derive_key
from nuebar.simulate.singles import generated_rates_Hz, singles_events, singles_light
from nuebar.simulate.singles_pools import singles_pools

ROOT = Path(__file__).resolve().parents[1]
THREADS = 2
SEED = 1


def both(call, repeat=5):
    """Best seconds of the same call on two threads at once, each with its own number."""
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(call, range(THREADS)))
        samples = []
        for turn in range(1, repeat + 1):
            start = time.perf_counter()
            list(pool.map(call, range(THREADS * turn, THREADS * (turn + 1))))
            samples.append(time.perf_counter() - start)
    return min(samples)


def once(call, repeat=5):
    call()
    samples = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        samples.append(time.perf_counter() - start)
    return min(samples)


def cascades(n):
    seconds = both(lambda k: gamma_cascades((2.2233,), n, derive_key(SEED, "bench", k)))
    return {"million_per_s": THREADS * n / seconds / 1e6, "seconds": seconds}


def light(model, n):
    """Light and charge of stored cascades at a new parameter point; beside it numpy, and cascades in random order."""
    pool = gamma_cascades((2.2233,), n, derive_key(SEED, "bench-light"))
    point = light_table(Response(13.0, 0.4, 10_000.0), Scintillation())

    def draw(k):
        return charges(pool.codes, pool.offsets, point, model.electronics, n, seed=SEED, words=("bench", k))

    rng = np.random.default_rng(SEED)

    def numpy_draw():
        mean = np.add.reduceat(point[pool.codes], pool.offsets[:-1]) * model.electronics.pe_per_photon
        many = rng.poisson(mean + model.electronics.dark_pe)
        return rng.normal(many, model.electronics.charge_sigma * np.sqrt(many)) - model.electronics.dark_pe

    seconds, one, plain = both(draw), once(lambda: draw(0)), once(numpy_draw, 2)
    new_point = once(lambda: light_table(Response(13.1, 0.4, 10_000.0), Scintillation()))
    return {
        "million_per_s": THREADS * n / seconds / 1e6,
        "one_thread_over_numpy": plain / one,
        "table_of_a_new_point_ms": 1e3 * new_point,
    }


def calibration(quick):
    """The published training set through the command, with peak memory of its processes."""
    name = "validation-1" if quick else "training"
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "nuebar.cli", "simulate", "calibration", "--set", name, "--out", folder]
        start = time.perf_counter()
        done = subprocess.run([*words, "--jobs", "2"], capture_output=True, check=False)
        seconds = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(done.stderr.decode()[-400:])
        size = sum(p.stat().st_size for p in Path(folder).rglob("*.safetensors"))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {
        "set": name,
        "seconds": seconds,
        "disk_GB": size / 1e9,
        # The largest single process; two workers and their parent at most.
        "peak_of_a_process_GB": peak / 1e9,
        "peak_of_three_processes_GB": 3 * peak / 1e9,
    }


def make_pairs(job):
    """Pairs in a process of its own, as the command makes them."""
    path, n, k = job
    model = DetectorModel.build(load_experiment("juno"))
    spectrum = load_spectrum(Path(path))
    ibd_events(ibd_cascades(spectrum, model, n, derive_key(SEED, "ibd", k)), model, derive_key(SEED, "ev", k))


def pairs(folder, n, repeat=4):
    run_stage(folder, spectrum_stage(load_experiment("juno"), None), seed=SEED)
    path = str(Path(folder) / "spectrum" / "chunk-00000.safetensors")
    with ProcessPoolExecutor(THREADS, mp_context=get_context("spawn")) as pool:
        list(pool.map(make_pairs, [(path, n // 10, k) for k in range(2 * THREADS)]))
        samples = []
        for turn in range(1, repeat + 1):
            start = time.perf_counter()
            list(pool.map(make_pairs, [(path, n, THREADS * turn + k) for k in range(THREADS)]))
            samples.append(time.perf_counter() - start)
    seconds = min(samples)
    return {"million_per_s": THREADS * n / seconds / 1e6, "seconds": seconds, "processes": THREADS}


def radioactivity(model, n):
    drawn_light = singles_light(singles_pools(model, SEED, cascades=100_000), model)
    rates = generated_rates_Hz(drawn_light, model, events=200_000)
    above = model.detector.threshold_MeV
    kept = []

    def draw(k):
        events = singles_events(drawn_light, model, rates, derive_key(SEED, "s", k), n=n, above_MeV=above)
        kept.append(events["e_rec_MeV"].size)

    seconds = both(draw)

    def accidentals(k):
        accidental_pairs(drawn_light, model, rates, derive_key(SEED, "a", k), n=n // 4, window_ns=1_000_000)

    pair_seconds = both(accidentals, 2)
    return {
        "million_per_s": THREADS * kept[-1] / seconds / 1e6,
        "drawn_million_per_s": THREADS * n / seconds / 1e6,
        "accidental_pairs_million_per_s": THREADS * (n // 4) / pair_seconds / 1e6,
    }


def stream(days):
    """The command from empty folder to files, and the stream alone: more days in the same folder."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "nuebar.cli", "simulate", "stream", "--out", folder, "--jobs", "2"]
        first = command([*words, "--days", "0.5", "--window-hours", "4"])
        second = command([*words, "--days", str(days), "--window-hours", "4"])
        size = sum(p.stat().st_size for p in Path(folder).glob("stream/*.parquet"))
        rows = rows_of(Path(folder) / "stream")
    return {
        "days": days,
        "events_million": rows / 1e6,
        "million_per_s_with_start": rows * (days - 0.5) / days / second / 1e6,
        "disk_GB_per_day": size / 1e9 / days,
        "seconds_first_half_day_with_pools": first,
        "seconds_of_the_rest": second,
    }


def rows_of(folder):
    from nuebar.io.events import EventFile

    return EventFile(str(folder), ("t_ns",)).n_rows


def command(words):
    start = time.perf_counter()
    done = subprocess.run(words, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.decode()[-400:])
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(ROOT / "docs" / "results"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", help="measure only what begins like this, and write nothing")
    args = parser.parse_args()
    began = time.perf_counter()
    model = DetectorModel.build(load_experiment("juno"))
    n = 100_000 if args.quick else 400_000
    with tempfile.TemporaryDirectory() as folder:
        measures = {
            "photon cascades of 2.2 MeV": lambda: cascades(n),
            "light of stored cascades at a new point": lambda: light(model, n),
            "antineutrino pairs, from nothing to reconstructed": lambda: pairs(folder, n // 2),
            "singles drawn and reconstructed": lambda: radioactivity(model, 5 * n),
            "published calibration set": lambda: calibration(args.quick),
            "stream on disk": lambda: stream(1.0 if args.quick else 6.0),
        }
        numbers = {}
        for name, measure in measures.items():
            if args.only and not name.startswith(args.only):
                continue
            numbers[name] = measure()
            sys.stdout.write(f"{name}: {numbers[name]}\n")
            sys.stdout.flush()
    if args.only:
        return
    numbers["aims"] = {
        "photon cascades of 2.2 MeV": 0.3,
        "light of stored cascades at a new point": 10.0,
        "antineutrino pairs, from nothing to reconstructed": 0.3,
        "singles drawn and reconstructed": 3.0,
        "published calibration set, seconds": 300.0,
        "published calibration set, GB": 4.0,
    }
    path = write_claim(
        args.out, "bench-simulation", numbers, command="make bench", seconds=time.perf_counter() - began, seed=SEED
    )
    sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
