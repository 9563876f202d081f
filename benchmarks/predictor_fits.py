"""The same data, the same minimiser, any predictor: how far the fitted parameters are from those with reweighting.

    python benchmarks/predictor_fits.py --pairs FOLDER --cascades FOLDER [--network FOLDER ...] [--out docs/results]

Data: one Poisson draw of JUNO's six years in 400 bins, backgrounds included, from reweighted pairs in vacuum. Every
predictor made of these pairs fits it with all systematics. A network knows a box of sin²θ13 only, which JUNO alone does
not stay in: it is compared with sin²θ13 constrained, reweighting likewise. The surrogate is made of cascades, so it is
compared on data drawn from them, with the harmonic predictor of the same cascades at the same response point.
"""

import argparse
import glob
import os
import time

os.environ.setdefault("JAX_ENABLE_X64", "1")

import numpy as np

from nuebar.config import load_experiment, override
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.jobs.pairs import even_edges, experiment_pairs
from nuebar.jobs.record import write_claim
from nuebar.parameters import OSCILLATION
from nuebar.predict.build import from_cascades, from_pairs, normalised_cascades, normalised_pairs
from nuebar.predict.cascades import Cascades
from nuebar.predict.folded import fold_pairs
from nuebar.predict.grid import build_grid, points_for
from nuebar.predict.harmonic import HarmonicPredictor, Windows
from nuebar.predict.network import PUBLISHED_BOX
from nuebar.predict.response import ResponsePoint
from nuebar.predict.signal import signal_inputs
from nuebar.predict.spectrum import build_model
from nuebar.predict.store import load_predictor
from nuebar.predict.surrogate import build_surrogate

EDGES = even_edges(400, 0.8, 8.8)
CONSTRAINED = {"sin2_th13": {"sigma": 0.0007}}  # PDG 2022: 0.0220 ± 0.0007
SEED = 20


def fitted(experiment, predictor, counts, constrained=False):
    """Fit with one predictor; the numbers, and the seconds of a second fit (compiled)."""
    model, parameters = build_model(experiment, predictor=predictor)
    if constrained:
        parameters = parameters.updated(**CONSTRAINED)
    fit = SpectrumFit(model, parameters, counts, "pearson")
    problem = fit.problem()
    start = time.perf_counter()
    result = fit.run(problem=problem)
    first = time.perf_counter() - start
    start = time.perf_counter()
    result = fit.run(problem=problem)
    return result, first, time.perf_counter() - start


def drawn(experiment, predictor):
    model, parameters = build_model(experiment, predictor=predictor)
    expected, _ = model(model.vector(parameters.nominal()))
    return np.random.default_rng(SEED).poisson(np.asarray(expected)).astype(float)


def row(result, reference, first, seconds):
    shifts = {
        n: (result.parameters[n].value - reference.parameters[n].value) / reference.parameters[n].error
        for n in OSCILLATION
    }
    return {
        "shift_sigma": shifts,
        "error_ratio": {n: result.parameters[n].error / reference.parameters[n].error for n in OSCILLATION},
        "chi2": result.chi2,
        "valid": bool(result.valid),
        "reason": result.reason,
        "first_seconds": first,
        "seconds": seconds,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--cascades", required=True)
    parser.add_argument("--network", action="append", default=[])
    parser.add_argument("--files", type=int, default=None, help="files of cascades; all by default")
    parser.add_argument("--out", default="docs/results")
    a = parser.parse_args()
    began = time.perf_counter()
    experiment = override(load_experiment("juno"), {"fit.shape_uncertainties": True})
    arrays = signal_inputs(experiment, edges=EDGES)
    windows = Windows.around_pdg(15)
    rows = {}

    def note(name, fit, reference):
        rows[name] = row(fit[0], reference, *fit[1:])
        worst = max(abs(x) for x in rows[name]["shift_sigma"].values())
        print(
            f"{name:28s} worst shift {worst:.2e} σ, χ² {fit[0].chi2:.2f}, {fit[2]:.2f} s, {fit[0].reason}", flush=True
        )

    pairs = experiment_pairs([a.pairs], EDGES, experiment, fiducial=False)
    exact = from_pairs("reweight", pairs, experiment, arrays, matter=False)
    counts = drawn(experiment, exact)
    reference = fitted(experiment, exact, counts)
    note("reweight", reference, reference[0])
    harmonic = from_pairs("harmonic", pairs, experiment, arrays, windows=windows, matter=False)
    note("harmonic", fitted(experiment, harmonic, counts), reference[0])
    # The matrix takes a density; here it is left at zero by fitting in vacuum.
    hollow = override(experiment, {"matter.density_g_cm3": 0.0, "matter.sigma_g_cm3": 0.0})
    matrix = from_pairs("matrix", pairs, hollow, arrays)
    note("matrix", fitted(hollow, matrix, counts), reference[0])
    tied = fitted(experiment, exact, counts, constrained=True)
    note("reweight, θ13 constrained", tied, tied[0])
    box = {n: (low - 0.02 * (high - low), high + 0.02 * (high - low)) for n, (low, high) in PUBLISHED_BOX.items()}
    table = fold_pairs(normalised_pairs(pairs, arrays))
    narrow = HarmonicPredictor.build(
        table, windows=Windows((6.9e-5, 8.2e-5), (2.3e-3, 2.65e-3)), matter=False, tolerance=1e-8
    )
    plan = points_for(narrow, box, accuracy=1e-3, order=3)
    grid = build_grid(narrow, box, plan.points, os.path.join(a.out, "_grid"), order=3)
    note("grid, θ13 constrained", fitted(experiment, grid, counts, constrained=True), tied[0])
    for folder in a.network:
        name = f"network {os.path.basename(folder.rstrip('/'))}, θ13 constrained"
        note(name, fitted(experiment, load_predictor(folder), counts, constrained=True), tied[0])
    events, pairs = len(pairs), None

    nominal = ResponsePoint(12.05, 0.517, 9846.0)
    cascades = Cascades.load(a.cascades, experiment=experiment, files=slice(a.files))
    cascades = normalised_cascades(cascades, arrays)
    same = from_cascades(cascades, nominal, experiment, arrays, windows=windows, mc_error=False)
    smeared = drawn(experiment, same)
    free = override(experiment, {"systematics.nonlinearity": False, "systematics.resolution": []})
    with_matter = fitted(free, same, smeared)
    note("harmonic of cascades, matter", with_matter, with_matter[0])
    ours = build_surrogate(cascades, EDGES, nominal=nominal, windows=windows)
    note("surrogate, matter", fitted(free, ours, smeared), with_matter[0])
    content = {"rows": rows, "events": events, "cascades": len(cascades), "bins": 400, "data_seed": SEED}
    for file in glob.glob(os.path.join(a.out, "_grid", "*")):
        os.remove(file)
    os.rmdir(os.path.join(a.out, "_grid"))
    write_claim(
        a.out,
        "fit-predictors",
        content,
        command="python benchmarks/predictor_fits.py --pairs FOLDER --cascades FOLDER --network FOLDER",
        seconds=time.perf_counter() - began,
        seed=SEED,
    )


if __name__ == "__main__":
    main()
