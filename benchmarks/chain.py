"""The chain from raw events to oscillation parameters, judged as a whole. Writes docs/results/chain-*.json.

    python benchmarks/chain.py --work FOLDER [--study NAME ...] [--seeds N] [--full N] [--jobs N]

Studies: ``run`` is one ``nuebar run`` in a folder of its own, with its seconds, memory and disk; ``ensemble`` are many
seeds by the fast path from that run, whole and with one stage broken on purpose; ``full`` are whole runs, one for each
seed. All continue where they were stopped. WORK keeps the runs; streams of the study ``full`` are removed when used.
"""

import argparse
import dataclasses
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")

from nuebar.chain.auxiliary import load_centres
from nuebar.chain.ensemble import BREAKS, Ensemble, judged, outcome_row, run_ensemble
from nuebar.chain.fitting import SPLITTING
from nuebar.chain.run_file import load_run_file
from nuebar.chain.spectrum import Sample, sample_fit
from nuebar.chain.summary import recovered
from nuebar.chain.truth import Truth
from nuebar.config import load_experiment
from nuebar.fit.interval import likelihood_root
from nuebar.fit.result import FitResult
from nuebar.io.posteriors import load_posterior
from nuebar.io.results import load_result, save_result
from nuebar.jobs.record import write_claim
from nuebar.report import run_figures
from nuebar.report.plots import save
from nuebar.report.run_figures import Recovered

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures"
COMMAND = "make chain"
STUDIES = ("run", "ensemble", "full")
FIRST_FULL = 5001  # seeds of whole runs; the default run has 1
BROKEN_SEEDS = 60


def size_of(folder):
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def run_study(options):
    """One run of the command line, from nothing."""
    home = options.work / "run"
    if (home / "run.json").exists():
        print(f"{home}: there already; its seconds are those of its stages")
    begun = time.perf_counter()
    command = [sys.executable, "-m", "nuebar.cli", "run", "--out", str(home), "--jobs", str(options.jobs)]
    subprocess.run(command, check=True)
    wall = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6  # kB on Linux
    told = load_result(home / "run.json")
    page = home / "report" / "index.html"
    fit = load_result(home / "fit" / "fit.json")
    numbers = {
        "seconds_of_this_call": wall,
        "seconds": {name: stage["seconds"] for name, stage in told["stages"].items()},
        "seconds_of_all_stages": sum(stage["seconds"] for stage in told["stages"].values()),
        "peak_memory_GB_of_one_process": peak,
        "disk_GB": size_of(home) / 1e9,
        "page_MB": page.stat().st_size / 1e6,
        "days": load_run_file(None).simulate.days,
        "recovered": recovered(home),
        "goodness": fit["goodness"],
        "candidates": load_result(home / "select" / "summary.json")["candidates"],
    }
    draw(home, page)
    return numbers, wall


def draw(home, page):
    """Pictures of the README: what was recovered, and the explorer of the page where there is a browser."""
    rows = [
        Recovered(r["name"], "spectrum fit", r["sigmas"], r["prior_dominated"])
        for r in recovered(home)
        if r["sigmas"] is not None
    ]
    save(run_figures.recovered(rows), FIGURES / "chain-recovered.png")
    chromium = shutil.which("chromium")
    if chromium is None:
        print("no chromium: the picture of the explorer stays as it is")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1200, "height": 1000})
        tab.goto(page.resolve().as_uri())
        tab.locator("#explorer").screenshot(path=FIGURES / "chain-explorer.png", timeout=120_000)
        browser.close()


def told(verdict):
    """A verdict as plain JSON."""
    return json.loads(json.dumps(dataclasses.asdict(verdict), default=float))


def ensemble_study(options):
    """The fast path, whole and broken."""
    begun = time.perf_counter()
    run, base = load_run_file(None), options.work / "run"
    experiment = load_experiment(run.experiment)
    numbers = {"path": "fast: pairs drawn directly instead of a stream", "base_seed": run.seed}
    for broken in BREAKS:
        seeds = options.seeds if broken == "none" else BROKEN_SEEDS
        study = Ensemble(run, base, seeds=seeds, broken=broken)
        rows = run_ensemble(study, options.work / "ensemble", jobs=options.jobs, progress=tick)
        verdict = judged(rows, experiment)
        numbers[broken] = {"seeds": seeds, "cascades": study.cascades, **told(verdict)}
        numbers[broken]["mean_chi2_over_dof"] = sum(r["chi2"] / r["n_dof"] for r in rows) / len(rows)
        word = "consistent" if verdict.consistent else "NOT CONSISTENT"
        found = f"p = {verdict.p_value:.3g} ({verdict.worst}), {word}"
        print(f"{broken}: {verdict.used} seeds, {verdict.failed} failed, {found}")
    return numbers, time.perf_counter() - begun


def whole_run(options, seed):
    """The row of one whole run; its stream is removed when the fit is done."""
    home = options.work / "full" / f"seed-{seed}"
    row = home / "row.json"
    if not row.exists():
        command = [
            sys.executable, "-m", "nuebar.cli", "run", "--out", str(home), "--seed", str(seed), "--until", "fit",
            "--jobs", "1", "--set", "select.explained=0", "tune.coverage=0", "predict.reference_pairs=0",
        ]  # fmt: skip
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if not (home / "fit" / "fit.json").exists():
            raise SystemExit(f"seed {seed}: {done.stderr[-2000:]}")
        result = FitResult.from_dict(load_result(home / "fit" / "result.json"))
        centres = load_result(home / "simulate" / "auxiliary.json")["centres"]
        truth = Truth.load(home / "simulate" / "truth.json")
        kept = outcome_row(result, truth, centres, root_at(home, seed, result, truth), seed)
        summary = load_result(home / "select" / "summary.json")
        kept["sample"] = {k: summary[k] for k in ("candidates", "accidentals", "live_days")}
        kept["seconds"] = {p.parent.name: load_result(p)["seconds"] for p in home.glob("*/done.json")}
        save_result(row, {"kind": "whole run", **kept})
        for name in ("stream", "pools-testing", "monte-carlo", "singles-pools", "point"):
            shutil.rmtree(home / "simulate" / name, ignore_errors=True)
    return load_result(row)


def root_at(home, seed, result, truth):
    """Signed root of Δχ² at the true Δm²31, from the files of a run."""
    run = load_run_file(home / "run.toml")
    sample, posterior = Sample.load(home / "select"), load_posterior(home / "tune" / "posterior.json")
    fit = sample_fit(run, load_experiment(run.experiment), sample, posterior, centres=load_centres(home))
    return {SPLITTING: likelihood_root(fit, result, SPLITTING, truth.oscillation[SPLITTING])}


def full_study(options):
    """Whole runs, some side by side."""
    begun = time.perf_counter()
    seeds = range(FIRST_FULL, FIRST_FULL + options.full)
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(lambda seed: whole_run(options, seed), seeds))
    verdict = judged(rows, load_experiment(load_run_file(None).experiment))
    word = "consistent" if verdict.consistent else "NOT CONSISTENT"
    print(f"full: {verdict.used} seeds, p = {verdict.p_value:.3g} ({verdict.worst}), {word}")
    numbers = {
        "seeds": len(rows),
        **told(verdict),
        "mean_chi2_over_dof": sum(r["chi2"] / r["n_dof"] for r in rows) / len(rows),
        "mean_candidates": sum(r["sample"]["candidates"] for r in rows) / len(rows),
        "machine_versions": rows[0].get("versions"),
        "pulls": [
            {n: (r["values"][n] - r["truth"][n]) / r["errors"][n] for n in r["truth"] if n in r["values"]} for r in rows
        ],
    }
    return numbers, time.perf_counter() - begun


def tick(what, done, total):
    print(f"{what}: {done}/{total}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--study", nargs="+", choices=STUDIES, default=list(STUDIES))
    parser.add_argument("--seeds", type=int, default=200, help="of the fast path")
    parser.add_argument("--full", type=int, default=20, help="whole runs")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    studies = {"run": run_study, "ensemble": ensemble_study, "full": full_study}
    for name in options.study:
        numbers, seconds = studies[name](options)
        write_claim(options.out, f"chain-{name}", numbers, command=COMMAND, seconds=seconds, seed=1)


if __name__ == "__main__":
    main()
