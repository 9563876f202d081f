"""The posterior beside the best fit, and the goodness of fit by toys: JUNO's 59.1 days, and six years expected.

    python benchmarks/posterior.py --release FOLDER [--inputs ROOTFILE] [--toys 2000] [--jobs 2] [--only WHAT]
                                   [--work FOLDER] [--out docs/results]

Writes fit-posterior.json and fit-goodness.json. With --work the toys are kept there and the same command continues.
Without a release its parts are left out, and a record is written for what there is.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")

import numpy as np

from nuebar.jobs.fit import FitJob
from nuebar.jobs.goodness import GoodnessJob, goodness_report, run_goodness
from nuebar.jobs.posterior import PosteriorJob, posterior_report, run_posterior
from nuebar.jobs.record import write_claim

SEED = 1
STATISTICS = ("cnp", "barlow-beeston", "pearson")


def posterior_numbers(outcome):
    """What the page shows of a posterior."""
    d, result = outcome.draws, outcome.result
    parameters = {}
    for name in outcome.interest:
        p, k = result.parameters[name], d.index(name)
        low, middle, high = (float(x) for x in d.quantile(name, (0.15865, 0.5, 0.84135)))
        parameters[name] = {
            "best_fit": p.value,
            "error": p.error,
            "median": middle,
            "minus": low - middle,
            "plus": high - middle,
            "shift_in_sigma": (middle - p.value) / p.error,
            "half_width_over_error": 0.5 * (high - low) / p.error,
            "highest_density_68": [list(i) for i in d.highest_density(name)],
            "effective": float(d.effective[k]),
        }
    nuisances = [n for n in d.names if n not in outcome.interest]
    shifts = [
        abs(float(d.quantile(n, 0.5)) - result.parameters[n].value) / result.parameters[n].error for n in nuisances
    ]
    sensitivity = {"flat in angles and ln dm2": outcome.priors}
    if outcome.determinant is not None:
        sensitivity["bin-to-bin deviations integrated out"] = outcome.determinant
    return {
        "valid": outcome.valid,
        "reason": d.reason,
        "free": len(d.names),
        "samples": len(d.values),
        "effective_least": float(np.min(d.effective)),
        "r_hat_most": float(np.max(d.r_hat)),
        "divergent": d.divergent,
        "barrier_chi2": d.barrier,
        "n_calls": d.n_calls,
        "parameters": parameters,
        "largest_shift_of_a_nuisance_in_sigma": max(shifts, default=0.0),
        "shift_of_mean_in_sigma": {
            what: {n: float(((o.mean - d.mean) / d.sigma)[d.index(n)]) for n in outcome.interest}
            for what, o in sensitivity.items()
        },
        "seconds": outcome.seconds,
    }


def posteriors(release, inputs, out, command):
    """59.1 days as published, the same with Δm²31 flat, and six years expected."""
    began, numbers = time.perf_counter(), {}
    jobs = {}
    if release:
        first = FitJob(experiment="juno-2025", release=release)
        jobs["59.1 days"] = PosteriorJob(fit=first, seed=SEED)
        # Several minima: more draws, as those between the minima count little.
        jobs["59.1 days, dm2_31 flat"] = PosteriorJob(fit=first, flat=("dm2_31_eV2",), samples=8000, seed=SEED)
    jobs["six years, expected"] = PosteriorJob(fit=FitJob(experiment="juno", inputs=inputs, asimov=True), seed=SEED)
    for what, job in jobs.items():
        outcome = run_posterior(job)
        numbers[what] = posterior_numbers(outcome)
        print(f"--- {what}\n{posterior_report(outcome)}\n", flush=True)
    seconds = time.perf_counter() - began
    print(write_claim(out, "fit-posterior", numbers, command=command, seconds=seconds, seed=SEED))


def goodnesses(release, toys, jobs, work, out, command):
    """59.1 days with three statistics."""
    began, numbers = time.perf_counter(), {}
    for statistic in STATISTICS:
        job = GoodnessJob(
            fit=FitJob(experiment="juno-2025", release=release, statistic=statistic), toys=toys, seed=SEED
        )
        outcome = run_goodness(job, Path(work) / statistic, jobs=jobs)
        g = outcome.goodness
        numbers[statistic] = {
            "valid": outcome.valid,
            "chi2": g.chi2,
            "n_dof": g.n_dof,
            "p_chi2": g.p_chi2,
            "tests": {
                n: {"data": abs(t.value), "median_of_toys": abs(t.median), "p": t.p, "error": t.error}
                for n, t in g.tests.items()
            },
            "toys": g.n_toys,
            "failed": sum(g.failures.values()),
            "chi2_mean": g.chi2_mean,
            "chi2_variance": g.chi2_variance,
            "seconds": dict(outcome.seconds),
        }
        print(f"--- {statistic}\n{goodness_report(outcome)}\n", flush=True)
    seconds = time.perf_counter() - began
    print(write_claim(out, "fit-goodness", numbers, command=command, seconds=seconds, seed=SEED))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--release", type=Path)
    parser.add_argument("--inputs", type=Path)
    parser.add_argument("--toys", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", choices=("posterior", "goodness"))
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    command = "python benchmarks/posterior.py --release FOLDER --inputs ROOTFILE"
    if options.only != "goodness":
        posteriors(options.release, options.inputs, options.out, command)
    if options.only != "posterior" and options.release:
        with tempfile.TemporaryDirectory() as temporary:
            goodnesses(options.release, options.toys, options.jobs, options.work or temporary, options.out, command)


if __name__ == "__main__":
    main()
