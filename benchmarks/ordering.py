"""The mass ordering: expected Δχ² with both resolutions and both sets of inputs, systematics, and toys of either truth.

    python benchmarks/ordering.py --inputs ROOTFILE [--toys 1000] [--work out/ordering] [--out docs/results]

Writes fit-ordering.json. Toys have the resolution of 2024 and the common inputs (without a file the embedded ones), 6.5
years at full power. The p-value of the wrong ordering is how often its own toys look at least as much like the right
one; beside it, what the normal approximation gives.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")

import numpy as np
from scipy.stats import norm

from nuebar.fit.sensitivity import SensitivityStudy
from nuebar.io.files import output_folder
from nuebar.jobs.fit import FitJob
from nuebar.jobs.ordering import OrderingJob, ordering_report, run_ordering
from nuebar.jobs.ordering_toys import ToysOfBoth, ordering_study, p_value, run_ordering_toys
from nuebar.jobs.record import write_claim
from nuebar.report.ordering_plots import ordering_toys
from nuebar.report.plots import save

PUBLISHED = {"source": "arXiv:2405.18008", "years_at_3_sigma": 6.5, "power_GW": 26.6}
TOY_YEARS, SEED, SAME = 6.5, 1, 1e-3
TRUTHS = ("normal", "inverted")


def curves(inputs):
    """Both resolutions, and what systematics cost at 6.5 years with the first one; two ways to fit must agree."""
    outcome = run_ordering(OrderingJob(fit=FitJob(inputs=inputs, asimov=True), systematics=False))
    print(ordering_report(outcome))
    if not outcome.valid:
        raise SystemExit("not all fits are valid")
    study = ordering_study(outcome.job.fit, outcome.sets[0].resolution, 1.0)
    own = SensitivityStudy(study.fit)
    factor = unit(study, outcome) * TOY_YEARS
    costs = own.ordering_systematics(factor)
    (at,) = [p.delta_chi2 for y, p in zip(outcome.years, outcome.sets[0].points, strict=True) if y == TOY_YEARS]
    if abs(at - costs[0].without) > SAME:
        raise SystemExit(f"two ways to fit differ: {at} and {costs[0].without}")
    for c in costs:
        print(f"  {c.group:28s} {c.without:8.2f} {c.alone:8.2f}")
    return outcome, {
        "duty_cycle": outcome.duty_cycle,
        "power_GW": outcome.near_GW,
        "seconds": outcome.seconds,
        "resolutions": {
            s.resolution: {
                "a_b_c": list(s.values),
                "years_at_3_sigma": s.years_at_3_sigma,
                "over_published": s.years_at_3_sigma / PUBLISHED["years_at_3_sigma"],
                "years": list(outcome.years),
                "delta_chi2": [p.delta_chi2 for p in s.points],
                "statistics_only": [p.delta_chi2 for p in s.statistics_only],
            }
            for s in outcome.sets
        },
        "systematics": {
            "years": TOY_YEARS,
            "resolution": outcome.sets[0].resolution,
            "groups": {c.group: {"without": c.without, "alone": c.alone} for c in costs},
        },
        "expected_by_truth": {t: own.ordering(factor, truth=t).delta_chi2 for t in TRUTHS},
    }


def unit(study, outcome):
    """Factor on the exposure of the fit that is one year at full power."""
    e = outcome.experiment
    return e.exposure.days_per_year / (e.exposure.days * outcome.duty_cycle)


def toys_of(outcome, expected, n, work, jobs):
    """Either truth: spread of Δχ², mistakes, and p-values of the wrong ordering."""
    e = outcome.experiment
    factor = TOY_YEARS * e.exposure.days_per_year / (e.exposure.days * outcome.duty_cycle)
    wanted = ToysOfBoth(outcome.job.fit, outcome.sets[0].resolution, factor, factor, n, seed=SEED)
    began = time.perf_counter()
    toys = run_ordering_toys(wanted, work, jobs=jobs)
    seconds = time.perf_counter() - began
    out = {"toys": n, "years": TOY_YEARS, "resolution": outcome.sets[0].resolution, "seconds": seconds, "truth": {}}
    for truth in TRUTHS:
        other = TRUTHS[1 - TRUTHS.index(truth)]
        t = toys[truth].summary()
        p, error = p_value(toys, truth, t["median"])
        mean, spread = -expected[other], 2.0 * np.sqrt(expected[other])
        out["truth"][truth] = {
            **t,
            "expected": expected[truth],
            "spread_over_expected": t["spread"] / (2.0 * np.sqrt(expected[truth])),
            "failures": {"right": toys[truth].right.failures(), "wrong": toys[truth].wrong.failures()},
            "p_value_of_wrong_ordering": {
                "median_experiment": p,
                "error": error,
                "normal_approximation": float(norm.sf((t["median"] - mean) / spread)),
            },
        }
        print(
            f"  {truth}: median {t['median']:.2f} (expected {expected[truth]:.2f}), spread {t['spread']:.2f}, p {p:.2g}"
        )
    return toys, out


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=lambda s: Path(s) if s else None, default=None)
    parser.add_argument("--toys", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--work", default=None, help="folder for the chunks of the toys; the same command continues")
    parser.add_argument("--out", default="docs/results")
    parser.add_argument("--figures", default=None)
    a = parser.parse_args()
    began = time.perf_counter()
    numbers = {"published": PUBLISHED}
    first = None
    for label, inputs in (("common inputs", a.inputs), ("embedded inputs", None)):
        if label == "common inputs" and inputs is None:
            continue
        outcome, numbers[label] = curves(inputs)
        first = first or (outcome, numbers[label]["expected_by_truth"])
    if a.toys:
        toys, numbers["toys"] = toys_of(*first, a.toys, a.work, a.jobs)
        if a.figures is not None:
            signed = {t: (1.0 if t == "normal" else -1.0) * toys[t].delta_chi2 for t in TRUTHS}
            save(ordering_toys(signed), output_folder(a.figures) / "fit-ordering-toys.png")
    seconds = time.perf_counter() - began
    path = write_claim(
        a.out,
        "fit-ordering",
        numbers,
        command="make statistics RELEASE=folder INPUTS=file.root",
        seconds=seconds,
        seed=SEED,
    )
    print(path)


if __name__ == "__main__":
    main()
