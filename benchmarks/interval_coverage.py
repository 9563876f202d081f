"""Coverage of every interval that a fit prints, at 59.1 days, one and six years, measured with toys.

    python benchmarks/interval_coverage.py --work FOLDER [--toys N] [--posteriors N] [--jobs N] [--experiment NAME ...]

Writes docs/results/fit-coverage.json, the picture docs/figures/fit-coverage.png, and the tables
src/nuebar/experiments/coverage/NAME.json that ``nuebar fit spectrum`` consults. Continues where it was stopped; WORK
keeps the toys.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")

import numpy as np

from nuebar.io.files import output_folder
from nuebar.io.results import save_result
from nuebar.jobs.coverage import CoverageJob, coverage_report, record, run_coverage, table, write_coverage
from nuebar.jobs.fit import FitJob
from nuebar.jobs.record import write_claim
from nuebar.report.coverage_plots import coverage_picture
from nuebar.report.plots import save

ROOT = Path(__file__).parents[1]
TABLES = ROOT / "src" / "nuebar" / "experiments" / "coverage"
FIGURES = ROOT / "docs" / "figures"
DAYS = (59.1, 365.25, 6 * 365.25)
EXPERIMENTS = ("juno", "juno-2025")
SEED = 1
COMMAND = "make statistics RELEASE=folder INPUTS=file.root"


def study(name, options):
    """All exposures of one experiment; the first measurement has its own only."""
    days = DAYS if name == "juno" else DAYS[:1]
    fit = FitJob(
        experiment=name,
        asimov=True,
        inputs=options.inputs if name == "juno" else None,
        release=options.release if name == "juno-2025" else None,
    )
    job = CoverageJob(
        fit=fit, days=days, toys=options.toys, posteriors=options.posteriors, widths=options.widths, seed=SEED
    )
    home = options.work / name

    def progress(what, done, total):
        print(f"  {name}: {done} of {total} chunks", flush=True)

    outcome = run_coverage(job, home, jobs=options.jobs, progress=progress, force=True)
    write_coverage(outcome, home)
    print(coverage_report(outcome))
    return outcome


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--toys", type=int, default=2000)
    parser.add_argument("--posteriors", type=int, default=400)
    parser.add_argument("--widths", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--experiment", nargs="+", choices=EXPERIMENTS, default=EXPERIMENTS)
    parser.add_argument("--inputs", type=Path, help="JUNO's common inputs 2022, instead of the embedded ones")
    parser.add_argument("--release", type=Path, help="JUNO's 2025 release, for juno-2025")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--tables", type=Path, default=TABLES)
    parser.add_argument("--figures", type=Path, default=FIGURES)
    options = parser.parse_args()
    began = time.perf_counter()
    numbers = {}
    for name in options.experiment:
        outcome = study(name, options)
        told = record(outcome)
        numbers[name] = {k: told[k] for k in ("statistic", "toys", "priors", "exposures", "off", "seconds")}
        numbers[name]["inputs"] = "common inputs 2022" if outcome.job.fit.inputs else "embedded"
        numbers[name]["release"] = outcome.job.fit.release is not None
        save_result(output_folder(options.tables) / f"{name}.json", table(outcome))
        if name == "juno":
            rows = {f"{p.days:.4g} days": [r for r in p.rows if r.parameter in p.toys.interest] for p in outcome.points}
            picture = coverage_picture(rows, title=f"{outcome.job.toys} toys, {outcome.statistic}")
            save(picture, output_folder(options.figures) / "fit-coverage.png")
            least = [np.nanmin(p.toys.effective) for p in outcome.points if np.isfinite(p.toys.effective).any()]
            print(f"fewest effective draws of a posterior: {', '.join(f'{x:.0f}' for x in least)}")
    seconds = time.perf_counter() - began
    print(write_claim(options.out, "fit-coverage", numbers, command=COMMAND, seconds=seconds, seed=SEED))


if __name__ == "__main__":
    sys.exit(main())
