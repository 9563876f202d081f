"""Speeds of the selection beside aims and peers, within one run. Writes docs/results/bench-selection.json.

    python benchmarks/selection_speed.py [--network WORD] [--trees FOLDER] [--out docs/results] [--quick]

Events and pairs are drawn here, so nothing else is needed: times do not depend on what weights were learned, and the
trees are grown with as many rounds as the command grows at most. Words are networks that ship with nuebar or folders of
``nuebar select train``. Times are those once compiled; what compilation takes is stated apart.
"""

import argparse
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")

import equinox as eqx
import jax
import numpy as np
import optax

from nuebar.errors import NuebarError
from nuebar.io.events import EventFile, EventWriter
from nuebar.jobs.record import write_claim
from nuebar.select.blocks import EventBlocks
from nuebar.select.classifier import score_in_chunks
from nuebar.select.config import load_selection
from nuebar.select.cuts import BoxCuts
from nuebar.select.features import PAIR_COLUMNS, features_of
from nuebar.select.matrices import ACCIDENTALS, IBD, prepare, split_of
from nuebar.select.near import NearPairs
from nuebar.select.network import new_network
from nuebar.select.offtime import OffTime, OnOffPairs
from nuebar.select.pairs import STREAM_COLUMNS, PairFinder, PairOptions, PairStream, pair_indices
from nuebar.select.recipes import RECIPES, optimiser_of
from nuebar.select.store import load_classifier, save_classifier
from nuebar.select.train import PairBatches, cross_entropy, trainable
from nuebar.select.trees import train_trees

ROOT = Path(__file__).resolve().parents[1]
SEED = 1
CORES = 2
RADIUS_m, RATE_Hz, BATCH = 17.7, 59.2, 1 << 19
CAPTURE_us, BLUR_m, DEPTH_m = 200.0, 0.25, 0.4  # of toy pairs
# Aims, decided before anything was measured.
EVENTS, INFERENCE = 20e6, 1e6  # per second; the second one on two cores
TRAINING_S, TRAINED_PAIRS = 3600.0, 15_000_000  # of each class


class Rows:
    """What was measured, printed as it comes: best, median, time of processors over all threads, rate."""

    def __init__(self, repeat):
        self.rows, self.repeat, self.compile_s = [], repeat, {}

    def add(self, what, n, call, *, unit, aim=None, aim_s=None):
        """Best and median seconds of a call that treats ``n`` of something, the first one apart."""
        start = time.perf_counter()
        call()
        self.compile_s[what] = time.perf_counter() - start
        samples, busy = [], []
        for _ in range(self.repeat):
            start, before = time.perf_counter(), time.process_time()
            call()
            samples.append(time.perf_counter() - start)
            busy.append(time.process_time() - before)
        return self.keep(what, n, samples, busy, unit=unit, aim=aim, aim_s=aim_s)

    def keep(self, what, n, samples, busy, *, unit, aim=None, aim_s=None):
        median = float(np.median(samples))
        row = {"what": what, "n": n, "unit": unit, "best_s": min(samples), "median_s": median,
               "cpu_s": float(np.median(busy)), "per_second": n / median}  # fmt: skip
        if aim is not None:
            row |= {"aim_per_second": aim, "met": n / median >= aim}
        if aim_s is not None:
            row |= {"aim_s": aim_s, "met": median <= aim_s}
        self.rows.append(row)
        print(f"  {what:<64s} {median:.3g} s, {n / median:.3g} {unit} per second", flush=True)
        return median


# ---------------------------------------------------------------- toy events


def sphere(rng, n, edge=0.0):
    """Vertices in the ball, a share of them near its surface."""
    v = rng.normal(size=(n, 3))
    v /= np.linalg.norm(v, axis=1)[:, None]
    r = RADIUS_m * np.cbrt(rng.random(n))
    outside = rng.random(n) < edge
    r[outside] = np.maximum(RADIUS_m - rng.exponential(DEPTH_m, outside.sum()), 0.1)
    return (v * r[:, None]).astype(np.float32)


def singles(n, rng):
    """A stream of radioactivity: times, energies, vertices, in batches as files give them."""
    t = np.cumsum(rng.exponential(1e9 / RATE_Hz, n)).astype(np.int64)
    place, e = sphere(rng, n, 0.8), (0.7 + rng.exponential(0.6, n)).astype(np.float32)
    columns = {"t_ns": t, "e_rec_MeV": e, **{f"{axis}_m": place[:, k].copy() for k, axis in enumerate("xyz")}}
    return [{name: a[i : i + BATCH] for name, a in columns.items()} for i in range(0, n, BATCH)]


def pairs(n, rng, *, ibd):
    """Toy pairs with the structure of real ones: close in space and time, or not."""
    if ibd:
        prompt = sphere(rng, n)
        delayed = prompt + BLUR_m * rng.normal(size=(n, 3)).astype(np.float32)
        e_p, e_d = 0.7 + rng.gamma(3.0, 1.0, n), rng.normal(2.22, 0.08, n)
        dt = 1e3 * np.minimum(rng.exponential(CAPTURE_us, n), 2000)
    else:
        prompt, delayed = sphere(rng, n, 0.8), sphere(rng, n, 0.8)
        e_p, e_d = (0.7 + rng.exponential(0.6, n) for _ in range(2))
        dt = 2e6 * rng.random(n)
    columns = {"prompt_e_rec_MeV": e_p, "delayed_e_rec_MeV": e_d, "dt_ns": dt}
    for name, place in (("prompt", prompt), ("delayed", delayed)):
        columns |= {f"{name}_{axis}_m": place[:, k] for k, axis in enumerate("xyz")}
    return {name: columns[name].astype(np.float32) for name in PAIR_COLUMNS}


def written(path, names, batches):
    path.parent.mkdir(parents=True, exist_ok=True)
    with EventWriter(path, names) as writer:
        for batch in batches:
            writer.append(batch)
    return path


def used(parts):
    """Pairs of an iterator of tables, all taken."""
    return sum(table["dt_ns"].size for table in parts)


# ---------------------------------------------------------------- pairs of a stream


def numpy_pairs(t, window_ns):
    """All pairs of a window as people write it with numpy: two searches, then a list of indices."""
    ends = np.searchsorted(t, t + window_ns, side="left")
    many = ends - np.arange(t.size) - 1
    first = np.repeat(np.arange(t.size), many)
    return first, first + 1 + np.arange(first.size) - np.repeat(np.cumsum(many) - many, many)


def stream_speed(rows, ratios, n, folder):
    config = load_selection()
    batches = singles(n, np.random.default_rng(SEED))
    options = PairOptions(window_ms=config.pairs.window_ms, threshold_MeV=config.pairs.threshold_MeV, max_dr_m=5.0)
    t, alive = np.concatenate([b["t_ns"] for b in batches]), np.ones(n, bool)
    ours, peer = pair_indices(t, alive, options.window_ns), numpy_pairs(t, options.window_ns)
    np.testing.assert_array_equal(ours, peer)
    blocks = list(EventBlocks(batches, options, ahead_ns=options.window_ns))

    def kernel():
        finder = PairFinder(options)
        return sum(used(finder.pairs(block)) for block in blocks)

    event = {"unit": "events"}
    rows.add("pairs of blocks in memory: kernel and columns of the pairs", n, kernel, **event)
    bare = rows.add(
        "all pairs of indices, kernel alone", n, lambda: pair_indices(t, alive, options.window_ns), **event
    )  # fmt: skip
    other = rows.add("peer: all pairs of indices in numpy", n, lambda: numpy_pairs(t, options.window_ns), **event)
    ratios["pairs of indices in numpy over ours"] = other / bare
    found = rows.add(
        "pair finding on a stream in memory, checks and blocks included", n,
        lambda: used(PairStream(batches, options)), aim=EVENTS, **event,
    )  # fmt: skip
    rows.add(
        "pairs on time and in 20 windows off time, as apply finds them", n,
        lambda: sum(a["dt_ns"].size + b["dt_ns"].size for a, b in OnOffPairs(batches, options, OffTime())), **event,
    )  # fmt: skip
    path = written(Path(folder) / "stream" / "one.parquet", STREAM_COLUMNS, batches)
    read = rows.add(
        "reading of the Parquet file alone", n,
        lambda: sum(b["t_ns"].size for b in EventFile(path, STREAM_COLUMNS).batches()), **event,
    )  # fmt: skip
    rows.add(
        "reading and pair finding, one after the other", n,
        lambda: used(PairStream(EventFile(path, STREAM_COLUMNS).batches(), options)), **event,
    )  # fmt: skip
    ratios["reading of the file over pair finding"] = read / found
    return {"events": n, "pairs": int(ours[0].size), "pairs_within_5_m": kernel(), "rate_Hz": RATE_Hz}


# ---------------------------------------------------------------- inference


def pinned(core):
    """A process of one core: threads of the libraries that it starts have no other."""
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {allowed[core % len(allowed)]})


_OWN = {}


def scored(job):
    """In a process of its own: seconds of its processor for scoring, once compiled."""
    word, n = job
    if job not in _OWN:
        classifier = load_classifier(word)
        if hasattr(classifier, "threads"):
            classifier = replace(classifier, threads=1)
        _OWN[job] = (classifier, features_of(pairs(n, np.random.default_rng(SEED), ibd=False)))
        score_in_chunks(*_OWN[job])
    before = time.process_time()
    score_in_chunks(*_OWN[job])
    return time.process_time() - before


def in_processes(rows, what, word, n, cores, *, aim=None):
    """The same number of pairs in each of some processes, each on a core of its own, at once."""
    context = get_context("spawn")
    pools = [ProcessPoolExecutor(1, mp_context=context, initializer=pinned, initargs=(k,)) for k in range(cores)]
    try:
        [f.result() for f in [pool.submit(scored, (word, n)) for pool in pools]]
        samples, busy = [], []
        for _ in range(rows.repeat):
            start = time.perf_counter()
            busy.append(sum(f.result() for f in [pool.submit(scored, (word, n)) for pool in pools]))
            samples.append(time.perf_counter() - start)
    finally:
        for pool in pools:
            pool.shutdown()
    return rows.keep(what, cores * n, samples, busy, unit="pairs", aim=aim)


def in_threads(rows, what, calls, n, *, aim=None):
    with ThreadPoolExecutor(len(calls)) as pool:
        return rows.add(what, n, lambda: [f.result() for f in [pool.submit(c) for c in calls]], unit="pairs", aim=aim)


def inference_speed(rows, ratios, words, n):
    """The network and trees on the same pairs, on one core and on two."""
    x = features_of(pairs(n, np.random.default_rng(SEED), ibd=False))
    loaded = {name: load_classifier(word) for name, word in words.items()}
    one, two, user, busy = {}, {}, {}, {}
    for name, classifier in loaded.items():
        aim = INFERENCE if name == "network" else None
        user[name] = rows.add(
            f"{name}: one call, as a user calls it", n, partial(score_in_chunks, classifier, x), unit="pairs"
        )
        halves = [x[k * n // CORES : (k + 1) * n // CORES] for k in range(CORES)]
        single = replace(classifier, threads=1) if name == "trees" else classifier
        calls = [partial(score_in_chunks, single, half) for half in halves]
        in_threads(rows, f"{name}: two threads, half of the pairs each", calls, n, aim=aim)
        one[name] = in_processes(rows, f"{name}: a process on one core", words[name], n, 1)
        busy[name] = rows.rows[-1]["cpu_s"]
        two[name] = in_processes(rows, f"{name}: two processes on a core each", words[name], n // CORES, CORES, aim=aim)
    if "trees" in loaded:
        ratios["trees over network, one call"] = user["trees"] / user["network"]
        ratios["trees over network, one core"] = one["trees"] / one["network"]
        ratios["trees over network, one core, time of the processor"] = busy["trees"] / busy["network"]
        ratios["trees over network, two cores"] = two["trees"] / two["network"]
    cuts = BoxCuts.of(load_selection())
    rows.add("box cuts, one call", n, lambda: cuts.score(x), unit="pairs")
    columns = pairs(n, np.random.default_rng(SEED), ibd=False)
    rows.add("features of pairs, one call", n, lambda: features_of(columns), unit="pairs")


# ---------------------------------------------------------------- training


def training_speed(rows, matrices):
    """A step of the recipe of the shipped network: its minibatch, and value, gradient and update."""
    recipe = RECIPES["network"]
    steps = round(recipe.epochs * (TRAINED_PAIRS // (recipe.batch // 2)))
    train = {name: getattr(matrices, name) for name in (IBD, ACCIDENTALS)}
    train = {name: a[split_of(name, len(a)).rows("train")] for name, a in train.items()}
    near = NearPairs.of(np.array(train[ACCIDENTALS]), matrices.window_us, share=recipe.near)
    batches = PairBatches(train[IBD], train[ACCIDENTALS], recipe.batch, recipe.seed, near)
    count = iter(range(10**9))
    made = rows.add(
        f"training: a minibatch of {recipe.batch:,} pairs, half of its accidentals made close", recipe.batch,
        lambda: batches(next(count) % batches.steps_per_epoch), unit="pairs",
    )  # fmt: skip
    sample = np.concatenate([np.array(a[:50_000]) for a in train.values()])
    network = new_network(recipe.seed, sample, hidden=recipe.hidden, inputs=recipe.inputs)
    optimiser = optimiser_of(recipe, steps)
    weights, constant = eqx.partition(network, trainable(network))
    state, batch = optimiser.init(weights), jax.tree.map(jax.numpy.asarray, batches(0))

    @jax.jit
    def step(weights, state, batch):
        value, slope = jax.value_and_grad(lambda w: cross_entropy(eqx.combine(w, constant), batch))(weights)
        change, state = optimiser.update(slope, state, weights)
        return optax.apply_updates(weights, change), state, value

    left = TRAINING_S / steps
    taken = rows.add(
        "training: value, gradient and update on it", recipe.batch,
        lambda: jax.block_until_ready(step(weights, state, batch)), unit="pairs", aim_s=left,
    )  # fmt: skip
    return {
        "recipe": recipe.told(), "steps_at_full_size": steps, "minutes_at_full_size": steps * (made + taken) / 60,
        "aim_minutes": TRAINING_S / 60, "step_aim_s": left,
    }  # fmt: skip


# ---------------------------------------------------------------- main


def words_of(args, matrices, folder):
    """Folders of a network and of trees, made here where none is given."""
    words = {"network": args.network, "trees": args.trees}
    if args.network is None:
        sample = np.concatenate([np.array(a[:50_000]) for a in (matrices.ibd, matrices.accidentals)])
        words["network"] = str(Path(folder) / "network")
        save_classifier(new_network(SEED, sample, inputs="shaped"), words["network"])
    if args.trees is None:
        try:
            sizes = {"pairs": 2_000, "rounds": 20} if args.quick else {"pairs": 20_000, "rounds": 500}
            trees = train_trees(matrices, **sizes, patience=10**6, seed=SEED)
        except NuebarError as error:
            print(f"  trees are left out: {error}", flush=True)
            del words["trees"]
            return words
        words["trees"] = str(Path(folder) / "trees")
        save_classifier(trees, words["trees"])
    return words


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", help="word or folder; untrained weights by default")
    parser.add_argument("--trees", help="folder; grown here by default")
    parser.add_argument("--out", default=str(ROOT / "docs" / "results"))
    parser.add_argument("--quick", action="store_true", help="fewer events, few repetitions")
    args = parser.parse_args()
    began, load = time.perf_counter(), os.getloadavg()[0]
    rows, ratios = Rows(3 if args.quick else 7), {}
    with tempfile.TemporaryDirectory() as folder:
        stream = stream_speed(rows, ratios, 400_000 if args.quick else 5_000_000, folder)
        n, rng = (20_000 if args.quick else 200_000), np.random.default_rng(SEED)
        files = [
            written(Path(folder) / name / "one.parquet", PAIR_COLUMNS, [pairs(n, rng, ibd=name == IBD)])
            for name in (IBD, ACCIDENTALS)
        ]
        matrices = prepare(Path(folder) / "pairs", *files)
        words = words_of(args, matrices, folder)
        rounds = load_classifier(words["trees"]).told()["rounds"] if "trees" in words else None
        scored_pairs = 1 << 17 if args.quick else 1 << 20
        inference_speed(rows, ratios, words, scored_pairs)
        training = training_speed(rows, matrices)
    numbers = {
        "load average": load, "quick": args.quick, "cores": CORES, "stream": stream, "training": training,
        "trees_rounds": rounds, "scored_pairs": scored_pairs, "rows": rows.rows, "ratios": ratios,
        "first_call_s": rows.compile_s,
    }  # fmt: skip
    for name, ratio in ratios.items():
        print(f"  {name}: {ratio:.3g}", flush=True)
    seconds = time.perf_counter() - began
    print(write_claim(args.out, "bench-selection", numbers, command="make bench", seconds=seconds, seed=SEED))


if __name__ == "__main__":
    main()
