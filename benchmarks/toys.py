"""Speed and truth of pseudo-experiments fitted side by side. Writes docs/results/bench-toys.json.

    python benchmarks/toys.py [--toys 10000] [--single 30] [--out docs/results]

Six years of JUNO with the embedded inputs: five parameters (four of the oscillation and the flux), and all systematics.
The same data sets are fitted one by one as users do it (iminuit with exact gradients), some of them, for the ratio and
for the difference of the answers.
"""

import argparse
import os
import resource
import time

os.environ.setdefault("JAX_ENABLE_X64", "1")

from dataclasses import replace
from functools import partial

from nuebar.config import load_experiment
from nuebar.fit.many import ManyFits
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.fit.toys import draw, run_toys, summary
from nuebar.jobs.record import write_claim
from nuebar.parameters import OSCILLATION
from nuebar.predict.spectrum import build_model
from run import show

FIVE = (*OSCILLATION, "norm_flux")
SEED = 5


def fits():
    """Name → the fit of the expected counts of six years."""
    model, parameters = build_model(load_experiment("juno"))
    everything = SpectrumFit.asimov(model, parameters, statistic="pearson")
    return {"five parameters": everything.fixing([n for n in parameters.free if n not in FIVE]), "all": everything}


def clocked(call):
    """What a call gives, its wall and processor seconds."""
    wall, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    out = call()
    now = resource.getrusage(resource.RUSAGE_SELF)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return out, {"wall_s": time.perf_counter() - wall, "cpu_s": cpu}


def one_by_one(fit, data):
    """The data sets with Minuit, after one that compiles."""
    sets = zip(data.counts, data.centres, strict=True)
    one = [replace(fit, counts=counts, parameters=moved(fit, centres)) for counts, centres in sets]
    one[0].run()
    began = time.perf_counter()
    results = [f.run() for f in one]
    return results, (time.perf_counter() - began) / len(results)


def moved(fit, centres):
    """The parameters with the centres of the constraints that a toy has."""
    names = [n for n in fit.pulled() if n not in fit.model.prior.names]
    return fit.parameters.updated(**{n: {"value": float(c)} for n, c in zip(names, centres, strict=True)})


def measured(fit, n, single, repeat):
    """Times of one kind of fit, and how far its answers are from Minuit's."""
    many = ManyFits(fit)
    out = {"free": len(fit.parameters.free), "toys": n, "lanes": many.lanes, "threads": many.threads}
    for errors in ("none", "curvature", "hesse"):
        _, first = clocked(partial(run_toys, many, 2 * many.lanes, seed=SEED, errors=errors))
        best = None
        for _ in range(repeat):
            results, spent = clocked(partial(run_toys, many, n, seed=SEED, errors=errors))
            best = spent if best is None or spent["wall_s"] < best["wall_s"] else best
        out[f"errors: {errors}"] = {"compile and 64 fits": first, "all": best, "fits_per_s": n / best["wall_s"]}
    out |= {"valid": int(results.valid.sum()), "failures": results.failures()}
    out["pulls"] = {s.name: [s.pull_mean, s.pull_spread] for s in summary(results) if s.name in FIVE}
    data = draw(many, range(single), seed=SEED)
    minuit, each = one_by_one(fit, data)
    ours = results.rows(slice(0, single))
    far = [
        abs(m.parameters[p].value - ours.value(p)[k]) / m.parameters[p].error
        for k, m in enumerate(minuit)
        for p in OSCILLATION
        if m.valid and ours.valid[k]
    ]
    ratio = [
        ours.error(p)[k] / m.parameters[p].error
        for k, m in enumerate(minuit)
        for p in OSCILLATION
        if m.valid and ours.valid[k]
    ]
    out["one by one with iminuit"] = {
        "fits": single,
        "valid": sum(m.valid for m in minuit),
        "s_per_fit": each,
        "largest difference in standard errors": max(far),
        "largest difference of chi2": max(abs(m.chi2 - ours.chi2[k]) for k, m in enumerate(minuit)),
        "errors over its errors": [float(min(ratio)), float(max(ratio))],
        "times slower than side by side (hesse)": each * out["errors: hesse"]["fits_per_s"],
    }
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--toys", type=int, default=10_000)
    parser.add_argument("--single", type=int, default=30)
    parser.add_argument("--out", default="docs/results")
    options = parser.parse_args()
    began = time.perf_counter()
    numbers = {}
    for name, fit in fits().items():
        n = options.toys if name != "all" else max(options.toys // 10, 64)
        numbers[name] = measured(fit, n, options.single, repeat=3)
    show("toys", numbers)
    seconds = time.perf_counter() - began
    print(write_claim(options.out, "bench-toys", numbers, command="make bench", seconds=seconds, seed=SEED))


if __name__ == "__main__":
    main()
