"""Is the reference what it claims to be? Pools of cascades against each other, and against drawn charges.

    python benchmarks/reference.py --cascades FOLDER --pairs FOLDER [--out docs/results]

Two independent pools at one response point must differ by Monte Carlo noise only: χ² per bin with the covariance of
both, in bins of 100 keV (neighbouring bins of 20 keV are the same events smeared, and their covariance cannot be
inverted). The pairs of the Monte Carlo, with drawn charges and hard bins, must agree with the analytic spectrum of
other cascades likewise.
"""

import argparse
import os
import time

os.environ.setdefault("JAX_ENABLE_X64", "1")

import numpy as np

from nuebar.config import load_experiment
from nuebar.jobs.pairs import experiment_pairs
from nuebar.jobs.record import write_claim
from nuebar.parameters import OSCILLATION
from nuebar.predict.cascades import Cascades
from nuebar.predict.folded import fold_pairs
from nuebar.predict.harmonic import HarmonicPredictor
from nuebar.predict.response import ResponsePoint
from nuebar.predict.reweight import ReweightPredictor

EDGES = np.linspace(0.8, 8.8, 81)
FINE = np.linspace(0.8, 8.8, 401)
POINTS = {
    "nominal": ResponsePoint(12.05, 0.517, 9846.0),
    "kB 18, fC 0.3, extra smearing": ResponsePoint(18.0, 0.3, 9300.0, 0.01, 0.004, 0.005),
}
TRUTH = dict(zip(OSCILLATION, (0.307, 0.0220, 7.53e-5, 2.5123e-3), strict=True))


def pools(folder, number, files):
    experiment = load_experiment("juno")
    for k in range(number):
        yield Cascades.load(folder, experiment=experiment, files=slice(k * files, (k + 1) * files))


def chi2(difference, covariance):
    return float(difference @ np.linalg.solve(covariance, difference))


def best(call, repeat=5):
    call()
    samples = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        samples.append(time.perf_counter() - start)
    return min(samples)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cascades", required=True)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--pools", type=int, default=10)
    parser.add_argument("--files", type=int, default=1, help="files in a pool")
    parser.add_argument("--out", default="docs/results")
    a = parser.parse_args()
    began = time.perf_counter()
    spectra, events = {name: [] for name in POINTS}, 0
    for cascades in pools(a.cascades, a.pools, a.files):
        cascades = cascades.normalised(1e5)
        events += len(cascades)
        for name, point in POINTS.items():
            counts = cascades.folded(point, EDGES).table.sum(axis=(0, 2))
            spectra[name].append((counts, cascades.covariance(point, EDGES)))
    independent = {}
    for name, found in spectra.items():
        pairs = list(zip(found[::2], found[1::2], strict=True))
        each = [chi2(x - y, u + v) / x.size for (x, u), (y, v) in pairs]
        independent[name] = {"chi2_per_bin": float(np.mean(each)), "each": each, "bins": 80 * len(each)}
    mean = np.mean([c for c, _ in spectra["nominal"]], axis=0)
    noise = np.mean([v for _, v in spectra["nominal"]], axis=0) / len(spectra["nominal"])
    sample = experiment_pairs([a.pairs], EDGES, load_experiment("juno"))
    drawn = np.bincount(sample.bin, minlength=80) * 1e5 / (sample.inside or sample.total)
    drawn_noise = np.diag(drawn * 1e5 / (sample.inside or sample.total))
    fine = experiment_pairs([a.pairs], FINE, load_experiment("juno"), fiducial=False)
    exact = ReweightPredictor.build(fine, matter=True)
    vacuum = ReweightPredictor.build(fine, matter=False)
    harmonic = HarmonicPredictor.build(fold_pairs(fine), matter=False)
    truth = np.asarray(vacuum.predict(TRUTH))
    content = {
        "pools": a.pools,
        "events": events,
        "independent_pools": independent,
        "drawn_pairs": {
            "pairs": len(sample),
            "chi2_per_bin": chi2(drawn - mean, noise + drawn_noise) / 80,
            "bins": 80,
        },
        "reweighting": {
            "pairs": len(fine),
            "vacuum_s": best(lambda: vacuum.predict(TRUTH)),
            "matter_s": best(lambda: exact.predict({**TRUTH, "matter_density_g_cm3": 2.45})),
            "harmonic_worst": float(np.max(np.abs(np.asarray(harmonic.predict(TRUTH)) / truth - 1))),
            "mc_error_percent": {
                "median": float(100 * np.median(vacuum.errors(TRUTH) / truth)),
                "worst": float(100 * np.max(vacuum.errors(TRUTH) / truth)),
            },
        },
    }
    print(content)
    write_claim(
        a.out,
        "predict-reference",
        content,
        command="python benchmarks/reference.py --cascades FOLDER --pairs FOLDER",
        seconds=time.perf_counter() - began,
    )


if __name__ == "__main__":
    main()
