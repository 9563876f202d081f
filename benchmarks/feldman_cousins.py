"""Feldman-Cousins intervals of JUNO's 59.1 days of data. Writes docs/results/fit-feldman-cousins.json.

    python benchmarks/feldman_cousins.py --release FOLDER [--work out/feldman-cousins]

Intervals of the four oscillation parameters and the contour of the two solar ones, each with its critical values and
beside the interval of Wilks's theorem. A study that was stopped continues with the same command.
"""

import argparse
import os
import shutil
import time
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")

import numpy as np

from nuebar.io.results import load_result
from nuebar.jobs.feldman_cousins import (
    FeldmanCousinsJob,
    feldman_cousins_report,
    run_feldman_cousins,
    write_feldman_cousins,
)
from nuebar.jobs.fit import FitJob
from nuebar.jobs.record import write_claim
from nuebar.parameters import OSCILLATION

SOLAR = ("sin2_th12", "dm2_21_eV2")
WIDE = {"dm2_31_eV2": (2.32e-3, 2.78e-3, 25)}  # wider than 3.5 errors: there are several minima
SEED = 1


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--release", required=True)
    parser.add_argument("--work", default="out/feldman-cousins")
    parser.add_argument("--toys", type=int, default=2000)
    parser.add_argument("--points", type=int, default=None)
    parser.add_argument("--pair-points", type=int, default=11)
    parser.add_argument("--pair-toys", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--figures", default=None)
    parser.add_argument("--out", default="docs/results")
    o = parser.parse_args()
    began = time.perf_counter()
    fit = FitJob(experiment="juno-2025", release=Path(o.release), seed=SEED)
    numbers = {}
    for names in (*((n,) for n in OSCILLATION), SOLAR):
        pair = len(names) == 2
        axes = {n: np.linspace(*WIDE[n]) for n in names if n in WIDE and o.points is None}
        job = FeldmanCousinsJob(
            parameters=names,
            fit=fit,
            axes=axes,
            points=o.pair_points if pair else None if axes else o.points,
            toys=o.pair_toys if pair else o.toys,
            batch=min(500, o.pair_toys if pair else o.toys),
            seed=SEED,
        )
        folder = Path(o.work) / "-".join(names)
        outcome = run_feldman_cousins(job, folder, jobs=o.jobs)
        print(feldman_cousins_report(outcome), flush=True)
        written = write_feldman_cousins(outcome, folder)
        record = load_result(folder / "feldman_cousins.json")
        numbers[" ".join(names)] = {k: v for k, v in record.items() if k not in ("format", "kind", "versions", "grid")}
        for path in written:
            if o.figures and path.name == "feldman_cousins.png" and names in (("dm2_31_eV2",), SOLAR):
                shutil.copy(path, Path(o.figures) / f"fit-feldman-cousins-{'-'.join(names)}.png")
    seconds = time.perf_counter() - began
    command = "make statistics RELEASE=folder INPUTS=file.root"
    print(write_claim(o.out, "fit-feldman-cousins", numbers, command=command, seconds=seconds, seed=SEED))


if __name__ == "__main__":
    main()
