"""Expected precision of geoneutrinos and expected exclusion of a sterile state, at full size.

    python benchmarks/geoneutrinos.py [--inputs FILE.root] [--jobs 2] [--only geoneutrinos|sterile] [--work FOLDER]

Writes docs/results/fit-geoneutrinos.json and docs/results/fit-sterile.json, and pictures into the work folder, where
the chunks of the sterile study are kept too: the same command continues.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")

import numpy as np

from nuebar.config import load_experiment
from nuebar.jobs.fit import FitJob
from nuebar.jobs.geoneutrinos import (
    GeoneutrinoJob,
    geoneutrino_record,
    geoneutrino_report,
    run_geoneutrinos,
    write_geoneutrinos,
)
from nuebar.jobs.record import write_claim
from nuebar.jobs.sterile import SterileJob, run_sterile, sterile_record, sterile_report, write_sterile
from nuebar.parameters import OSCILLATION
from nuebar.physics import sterile

PUBLISHED_GEONEUTRINOS = {
    "arXiv:2511.07227, abstract: total, years → relative error": {"10": 0.08},
    "arXiv:1507.05613 (nominal): at fixed Th/U": {"1": 0.17, "3": 0.10, "5": 0.08, "10": 0.06},
}
PUBLISHED_STERILE = {"arXiv:1405.6540, abstract: sin2_2th14 at 3 sigma, six years, 1e-4 to 1e-3 eV2": 0.016}
SPLITTINGS = (1e-6, 3e-6, 1e-5, 3e-5, 7.53e-5, 3e-4, 1e-3, 2.5283e-3, 1e-2, 0.1)
DROP = ("versions", "format", "kind", "seconds")


def approximations():
    """Largest errors of P against the diagonalisation, over sin²θ14 = 0.01, from 1.81 to 12 MeV."""
    e = load_experiment("juno")
    three = {n: e.oscillation[n].value for n in OSCILLATION}
    energy, s14, density = np.linspace(1.81, 12.0, 1500), 0.01, e.matter.density_g_cm3
    rows = []
    for baseline in (52.5, 215.0):
        for splitting in SPLITTINGS:
            more = {"sin2_th14": s14, "dm2_41_eV2": splitting}
            exact = sterile.diagonalised(energy, baseline, **three, **more, density_g_cm3=density)
            none = sterile.diagonalised(energy, baseline, **three, **{**more, "sin2_th14": 0.0}, density_g_cm3=density)
            ours = sterile.matter(energy, baseline, **three, **more, density_g_cm3=density)
            vacuum = sterile.vacuum(energy, baseline, **three, **more)
            worst = {
                "effect": exact - none,
                "without_coupling_by_matter": ours - exact,
                "vacuum": vacuum - exact,
            }
            rows.append(
                {"baseline_km": baseline, "dm2_41_eV2": splitting}
                | {n: float(np.abs(np.asarray(d)).max()) for n, d in worst.items()}
            )
    return {"sin2_th14": s14, "density_g_cm3": density, "largest_change_of_P": rows}


def geoneutrinos(fit, options, command):
    began = time.perf_counter()
    found = {}
    for name, more in (("own mixture", {}), ("Th/U 3.9, 39.7 TNU", {"mass_ratio": 3.9, "rate_tnu": 39.7})):
        outcome = run_geoneutrinos(GeoneutrinoJob(fit=fit, ratio_prior=0.1, **more))
        print(geoneutrino_report(outcome))
        write_geoneutrinos(outcome, options.work / ("geoneutrinos" + ("" if not more else "-chondritic")))
        found[name] = {k: v for k, v in geoneutrino_record(outcome).items() if k not in DROP}
    numbers = {"cases": found, "published": PUBLISHED_GEONEUTRINOS}
    write_claim(options.out, "fit-geoneutrinos", numbers, command=command, seconds=time.perf_counter() - began, seed=1)


def sterile_state(fit, options, command):
    began = time.perf_counter()
    job = SterileJob(fit=fit, years=(6.0, 1.0), toys=options.toys)
    progress = lambda what, done, total: print(f"{what}: {done} of {total}", flush=True)  # noqa: E731
    outcome = run_sterile(job, options.work / "sterile", jobs=options.jobs, progress=progress)
    print(sterile_report(outcome))
    write_sterile(outcome, options.work / "sterile")
    record = {k: v for k, v in sterile_record(outcome).items() if k not in DROP}
    for m in record["maps"]:
        del m["delta_chi2"]
    numbers = record | {"probability": approximations(), "published": PUBLISHED_STERILE}
    write_claim(options.out, "fit-sterile", numbers, command=command, seconds=time.perf_counter() - began, seed=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=Path, help="ROOT file of JUNO's common inputs 2022")
    parser.add_argument("--only", choices=("geoneutrinos", "sterile"))
    parser.add_argument("--toys", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("geoneutrinos-and-sterile"))
    parser.add_argument("--out", default="docs/results")
    options = parser.parse_args()
    fit = FitJob(asimov=True, inputs=options.inputs)
    command = "python benchmarks/geoneutrinos.py" + (" --inputs FILE.root" if options.inputs else "")
    if options.only != "sterile":
        geoneutrinos(fit, options, command)
    if options.only != "geoneutrinos":
        sterile_state(fit, options, command)


if __name__ == "__main__":
    main()
