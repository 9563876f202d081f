"""Published numbers beside ours: rates, the 59.1-day fit, the six-year precision, and what moves the answer.

    python benchmarks/truth.py --release FOLDER --inputs ROOTFILE [--out docs/results]

Without a release or inputs the parts that need them are left out. Writes fit-first-measurement.json,
fit-six-years.json and predict-rates.json.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")

import dataclasses

import numpy as np

from nuebar.config import load_experiment, override
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.io.releases import read_common_inputs, read_juno_2025
from nuebar.jobs.fit import ENERGIES, FLUXES
from nuebar.jobs.predict import prediction
from nuebar.jobs.record import write_claim
from nuebar.predict.harmonic import HarmonicPredictor, Windows
from nuebar.predict.matrix import MatrixPredictor
from nuebar.predict.signal import signal_inputs
from nuebar.predict.spectrum import build_model

PUBLISHED = {"sin2_th12": (0.3092, 0.0087), "dm2_21_eV2": (7.50e-5, 0.12e-5)}
SIX_YEARS = {"sin2_th12": 0.0016, "sin2_th13": 0.0026, "dm2_21_eV2": 0.024e-5, "dm2_31_eV2": 0.0047e-3}
INTEREST = tuple(PUBLISHED)
SEED = 1


def row(result):
    out = {"valid": result.valid, "reason": result.reason, "chi2": result.chi2, "n_dof": result.n_dof}
    for name, (value, error) in PUBLISHED.items():
        p = result.parameters[name]
        out[name] = {
            "value": p.value,
            "error": p.error,
            "from_published_in_sigma": (p.value - value) / error,
            "error_over_published": p.error / error,
        }
    return out


def first_measurement(folder, out):
    began = time.perf_counter()
    release, base = read_juno_2025(folder), load_experiment("juno-2025")

    def fit(experiment, *, release=release, fix=()):
        model, parameters = build_model(experiment, release=release)
        f = SpectrumFit(model, parameters, RELEASE_COUNTS, experiment.fit.statistic, experiment.name).fixing(fix)
        return f.run()

    RELEASE_COUNTS = release.counts.astype(float)
    numbers = {"published": {n: {"value": v, "error": e} for n, (v, e) in PUBLISHED.items()}}
    stated = fit(base)
    numbers["result"] = row(stated) | {
        "chi2_per_bin": stated.chi2 / stated.n_bins,
        "pulls": {n: p.pull for n, p in stated.parameters.items() if p.prior is not None and not p.fixed},
        "un-oscillated events of the release": float(release.unoscillated.sum()),
    }
    numbers["flux_models"] = {
        f"{flux}, {energy} energy": row(fit(override(base, {**FLUXES[flux], **ENERGIES[energy]})))
        for energy in ENERGIES
        for flux in FLUXES
    }
    near = tuple(c for c in base.reactor.cores if c.baseline_km < 100)
    changes = {
        "Daya Bay's cores left out (per-bin rescaling to the release kept)": dataclasses.replace(
            base, reactor=dataclasses.replace(base.reactor, cores=near)
        ),
        "vacuum": override(base, {"matter.density_g_cm3": 0.0, "matter.sigma_g_cm3": 0.0}),
        "Huber-Mueller instead of the release's spectrum": override(base, FLUXES["huber-mueller"]),
        "Daya Bay shape instead of the release's spectrum": override(base, FLUXES["daya-bay"]),
        "true instead of visible energy": override(base, ENERGIES["true"]),
        "Pearson instead of combined Neyman-Pearson": override(base, {"fit.statistic": "pearson"}),
        "no bin-to-bin shape uncertainties": override(base, {"fit.shape_uncertainties": False}),
        "resolution 3.18, 0.95, 0.46 % (calibration peaks)": override(
            base, {"response.resolution": (0.0318, 0.0095, 0.0046)}
        ),
        "backgrounds: our shapes instead of the release's": override(base, {"release.backgrounds": False}),
    }
    moved = {}
    for what, experiment in changes.items():
        result = fit(experiment)
        moved[what] = {
            n: {
                "shift_in_published_sigma": (result.parameters[n].value - stated.parameters[n].value) / PUBLISHED[n][1],
                "shift": result.parameters[n].value - stated.parameters[n].value,
            }
            for n in INTEREST
        } | {"delta_chi2": result.chi2 - stated.chi2}
    numbers["what_moves_the_answer"] = moved
    seconds = time.perf_counter() - began
    print(write_claim(out, "fit-first-measurement", numbers, command="make results RELEASE=FOLDER", seconds=seconds))
    for n in INTEREST:
        print(f"  {n}: {stated.parameters[n].value:.6g} ± {stated.parameters[n].error:.2g}; published {PUBLISHED[n]}")
    for what, m in moved.items():
        print(f"  {what}: " + ", ".join(f"{n} {m[n]['shift_in_published_sigma']:+.2f} σ" for n in INTEREST))


def six_years(inputs_path, out):
    began = time.perf_counter()
    base = load_experiment("juno")
    inputs = read_common_inputs(inputs_path) if inputs_path else None
    numbers = {"published": SIX_YEARS, "source": "arXiv:2204.13249, table 6"}
    groups = {
        "non-linearity": ("nonlinearity",),
        "resolution": ("resolution",),
        "rate (flux, efficiency)": ("norm",),
        "core powers": ("core",),
        "fission fractions": ("fission",),
        "spent fuel, non-equilibrium": ("spent", "nonequ"),
        "matter density": ("matter",),
        "backgrounds": ("bkg",),
    }

    def errors(experiment, common, off=()):
        model, parameters = build_model(experiment, inputs=common)
        fit = SpectrumFit.asimov(model, parameters, statistic=experiment.fit.statistic, experiment=experiment.name)
        fit = fit.fixing([n for n in parameters.free if n.startswith(off)]) if off else fit
        result = fit.run()
        if not result.valid:
            raise SystemExit(f"not valid: {result.reason}")
        return {
            n: {"error": result.parameters[n].error, "over_published": result.parameters[n].error / v}
            for n, v in SIX_YEARS.items()
        }

    everything = tuple(p for g in groups.values() for p in g)
    no_shape = override(base, {"fit.shape_uncertainties": False})
    for label, common in (("common inputs", inputs), ("embedded inputs", None)):
        if label == "common inputs" and inputs is None:
            continue
        numbers[label] = {
            "all systematics": errors(base, common),
            "statistics only": errors(no_shape, common, everything),
            "without": {g: errors(base, common, off) for g, off in groups.items()}
            | {"bin-to-bin shapes": errors(no_shape, common)},
        }
        for n, v in numbers[label]["all systematics"].items():
            print(f"  {label}: {n} {v['error']:.3e}, {v['over_published']:.3f} of the published error")
    numbers["embedded inputs, Daya Bay curves with their own scale error"] = {
        "all systematics": errors(override(base, {"response.anchor_MeV": 0.0}), None)
    }
    seconds = time.perf_counter() - began
    print(write_claim(out, "fit-six-years", numbers, command="make results INPUTS=FILE", seconds=seconds))


def rates(inputs_path, out):
    began = time.perf_counter()
    numbers = {"published": {"IBD per day": "47.1 ± 0.7", "TS1": 7.5, "DYB": 3.0, "source": "arXiv:2204.13249"}}
    for label, path in (("embedded inputs", None), ("common inputs", inputs_path)):
        if label == "common inputs" and not path:
            continue
        p = prediction("juno", inputs=path)
        total = sum(p.cores.values())
        numbers[label] = {
            "selected per full-power day": total / p.full_power_days,
            "selected per calendar day": total / p.experiment.exposure.days,
            "before efficiency per full-power day": total / p.full_power_days / p.experiment.target.efficiency,
            "cores per full-power day": {n: v / p.full_power_days for n, v in p.cores.items()},
            "without oscillation per full-power day": float(np.sum(p.unoscillated)) / p.full_power_days,
        }
        print(f"  {label}: {total / p.full_power_days:.2f} selected IBD per full-power day")
    print(write_claim(out, "predict-rates", numbers, command="make results", seconds=time.perf_counter() - began))


def accuracy(out):
    """Harmonic against direct integration of the same model, all cores, over the ±15σ windows and any mixing angle."""
    began = time.perf_counter()
    inputs = signal_inputs(load_experiment("juno"))
    matrix, windows = MatrixPredictor.build(inputs), Windows.around_pdg(15.0)
    rng, numbers = np.random.default_rng(SEED), {"points per case": 100, "bins": "above 1e-4 of the largest"}
    numbers["windows_eV2"] = {
        "dm2_21": windows.solar,
        "dm2_31 normal": windows.normal(),
        "inverted": windows.inverted(),
    }
    predictors = {density: HarmonicPredictor.build(inputs, matter=density > 0) for density in (0.0, 2.45, 4.0)}
    for density, harmonic in predictors.items():
        for ordering, box in (("normal", windows.normal()), ("inverted", windows.inverted())):
            worst = []
            for _ in range(100):
                p = {"sin2_th12": rng.uniform(0, 1), "sin2_th13": rng.uniform(0, 0.25)}
                p |= {"dm2_21_eV2": rng.uniform(*windows.solar), "dm2_31_eV2": rng.uniform(*box)}
                p |= {"matter_density_g_cm3": density} if density else {}
                exact = np.asarray(matrix.predict(p))
                keep = exact > 1e-4 * exact.max()
                worst.append(float(np.abs(np.asarray(harmonic.predict(p)) / exact - 1)[keep].max()))
            key = f"{density} g/cm3, {ordering}"
            numbers[key] = {"median of the worst bin": float(np.median(worst)), "worst": max(worst)}
            print(f"  harmonic against direct, {key}: {numbers[key]}")
    seconds = time.perf_counter() - began
    print(write_claim(out, "predict-accuracy", numbers, command="make results", seconds=seconds, seed=SEED))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--release", default="")
    parser.add_argument("--inputs", default="")
    parser.add_argument("--out", default=str(Path(__file__).parents[1] / "docs" / "results"))
    parser.add_argument("--only", default="", help="rates, accuracy, first or six")
    args = parser.parse_args()
    inputs = Path(args.inputs) if args.inputs else None
    if args.only in ("", "rates"):
        rates(inputs, args.out)
    if args.only in ("", "accuracy"):
        accuracy(args.out)
    if args.release and args.only in ("", "first"):
        first_measurement(args.release, args.out)
    if args.only in ("", "six"):
        six_years(inputs, args.out)


if __name__ == "__main__":
    sys.exit(main())
