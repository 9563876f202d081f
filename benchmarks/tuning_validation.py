"""Validation of densities at full size, as records and pictures. Writes docs/results/tune-*.json.

    python benchmarks/tuning_validation.py --data FOLDER [--release FOLDER] [--density WORD ...] [--study NAME ...]

FOLDER is the run folder of ``nuebar simulate calibration`` with the sets validation-2, testing-1 and testing-2. The
studies that simulate stop and go on: the same command continues in ``--work``. Pictures go to docs/figures/tune-*.png.
"""

import argparse
import io
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")

import numpy as np
from PIL import Image

import tuning_methods as methods
from nuebar.io.calibration import load_table
from nuebar.jobs.record import write_claim
from nuebar.jobs.tune_pictures import draw_densities, draw_validation
from nuebar.jobs.tune_release import POINTS, draw_release, fit_release
from nuebar.jobs.tune_validate import STUDIES, ValidateJob, run_validate, validation_report
from nuebar.tune.density import RESPONSE
from nuebar.tune.gammas import PARAMETERS
from nuebar.tune.store import PRETRAINED, load_density
from nuebar.tune.validate import BIAS_AIM_EVENTS, BIAS_AIM_PERCENT

ROOT = Path(__file__).parents[1]
WORST = 5  # points told one by one
LARGEST_PICTURE = 200_000  # bytes
KOLMOGOROV_MEAN = float(np.sqrt(np.pi / 2) * np.log(2))  # of √N times the distance
ALL = (*STUDIES, "release", "methods")


# ---------------------------------------------------------------- what a record keeps


def accuracy(record):
    """Without the distances of single points."""
    out = {"sources": record["sources"]}
    for name in ("validation-2", "testing-1"):
        out[name] = {
            key: {k: v for k, v in value.items() if k != "each"} if isinstance(value, dict) else value
            for key, value in record[name].items()
        }
    return out


def training_noise(data):
    """d∞ that the statistics of the training alone leave at validation 2, for a polynomial dependence on the response.

    At x, a least-squares fit of polynomials f to n spectra has the variance f(x)ᵀ (FᵀF)⁻¹ f(x) of one spectrum. The
    expected distance of one spectrum of N events is 0.8687/√N (Kolmogorov's distribution).
    """
    training, points = load_table(Path(data) / "training"), load_table(Path(data) / "validation-2").parameters
    low, high = training.parameters.min(axis=0), training.parameters.max(axis=0)

    def powers(parameters, degree):
        unit = 2 * (parameters - low) / (high - low) - 1
        one = [np.polynomial.legendre.legvander(u, degree) for u in unit.T]
        wanted = [
            (a, b, c) for a in range(degree + 1) for b in range(degree + 1 - a) for c in range(degree + 1 - a - b)
        ]
        return np.stack([one[0][:, a] * one[1][:, b] * one[2][:, c] for a, b, c in wanted], axis=1)

    out = {}
    for degree in (2, 3, 4, 5):
        f, at = powers(training.parameters, degree), powers(points, degree)
        leverage = np.einsum("pi,ij,pj->p", at, np.linalg.inv(f.T @ f), at)
        out[str(degree)] = (KOLMOGOROV_MEAN * np.sqrt(leverage / training.events.mean())).tolist()
    return {"points": points.tolist(), "d_inf_by_degree": out}


def exposures(record):
    """Without the single fits."""
    rows = [{k: v for k, v in row.items() if k not in ("best", "errors")} for row in record["rows"]]
    return {**record, "rows": rows, "aim_percent": list(BIAS_AIM_PERCENT), "aim_from_events": BIAS_AIM_EVENTS}


def worst_points(truth, bias, noise, inside):
    """The points with the largest bias of any parameter, in errors."""
    size = np.where(inside[:, None], np.abs(bias), 0.0).max(axis=1)
    chosen = [int(k) for k in np.argsort(-size)[:WORST] if inside[k]]
    return [
        {"point": k, "truth": truth[k].tolist(), "bias_sigma": bias[k].tolist(), "noise_sigma": noise[k].tolist()}
        for k in chosen
    ]


def edge_points(inside, wall):
    """How many points are near which wall; a point in a corner counts for each."""
    near = {name: int((wall[~inside, k] < 3).sum()) for k, name in enumerate(RESPONSE)}
    return {"points": int((~inside).sum()), "near_wall_of": near}


def at_points(record, truth, noise_key):
    """Of a study of points: what the page shows."""
    inside, bias = np.array(record["inside"], bool), _floats(record["bias_sigma"])
    noise = _floats(record[noise_key])
    kept = (
        "density", "points", "worst_sigma", "rms_sigma", "seconds_per_point", "aim_sigma", "above_aim", "passes",
        "median_percent", "median_noise_percent", "p_values", "seconds_in_all",
    )  # fmt: skip
    out = {k: record[k] for k in kept if k in record}
    out |= {
        "inside": int(inside.sum()),
        "noise_sigma": np.nanmedian(noise, axis=0).tolist(),
        "worst_points": worst_points(truth, bias, noise, inside),
        "edge": edge_points(inside, _floats(record["wall_sigma"])),
        "quantiles_sigma": {
            str(q): np.nanquantile(np.abs(bias[inside]), q, axis=0).tolist() for q in (0.5, 0.9, 0.99, 1.0)
        },
    }
    if (~inside).any():
        out["edge"]["rms_sigma"] = np.sqrt(np.nanmean(bias[~inside] ** 2, axis=0)).tolist()
    return out


def calibration(record, verdict):
    """Ranks as a histogram of twenty cells."""
    ranks = np.array(record["ranks"])
    cells = [np.histogram(r, bins=20, range=(-0.5, record["samples"] + 0.5))[0].tolist() for r in ranks.T]
    kept = {k: v for k, v in record.items() if k not in ("ranks", "density_ranks", "p_values")}
    return {**kept, "rank_cells": cells, "smallest_p": min(record["p_values"].values()), "verdict": verdict}


def _floats(values):
    return np.array(values, dtype=float)  # None becomes NaN


def summary(study, records, truth):
    """Density → what is kept."""
    out = {}
    for label, record in records[study].items():
        told = records["verdict"].get(label)
        if study == "accuracy":
            out[label] = accuracy(record)
        elif study == "exposures":
            out[label] = exposures(record) | {"verdict": told}
        elif study == "points":
            out[label] = at_points(record, truth, "bias_noise_sigma")
        elif study == "asimov":
            out[label] = at_points(record, truth, "noise_sigma")
        elif study == "calibration":
            out[label] = calibration(record, told)
        elif study == "example":
            out[label] = {kind: record[kind] for kind in ("binned", "unbinned") if kind in record}
        else:
            out[label] = record
    return out


def testing_points(data, points):
    """The points of testing 1 that a validation with so many of them takes."""
    truth = load_table(Path(data) / "testing-1").parameters
    return truth[np.unique(np.linspace(0, len(truth) - 1, min(points, len(truth))).astype(int))]


# ---------------------------------------------------------------- release and methods


def release_record(folder, cascades):
    """Nine and six points, every reading of the errors, the curves."""
    out, results = {}, {}
    for points in POINTS:
        r = fit_release(folder, points=points, cascades=cascades)
        results[points] = r
        m = r.fit.minimum
        out[points] = {
            "scale": r.fit.scale,
            "values": {n: [float(m.values[k]), float(m.errors[k])] for k, n in enumerate(PARAMETERS)},
            "minos": {n: [i.minus, i.plus] for n, i in m.minos.items()},
            "posterior": {
                n: [float(r.posterior.mean[k]), float(np.sqrt(r.posterior.covariance[k, k]))]
                for k, n in enumerate(PARAMETERS)
            },
            "chi2": r.fit.chi2, "n_dof": r.fit.n_dof, "p_value": r.fit.p_value, "valid": m.valid,
            "rows": [vars(row) for row in r.rows],
            "curves": {c.name: c.summary() for c in r.curves},
            "unfitted_chi2": r.unfitted_chi2, "unfitted_p_value": r.unfitted_p_value,
            "seconds": r.seconds,
        }  # fmt: skip
    first = results[POINTS[0]]
    out["alternatives"] = list(first.alternatives)
    out["light_yield_per_MeV"], out["settings"] = first.light_yield_per_MeV, dict(first.settings)
    return out, results


def methods_record(words, sources, names, replicas):
    """Agreement, misfits, information."""
    charges = methods.example(sources)
    densities = {Path(word).name: load_density(word) for word in words}
    agreed = {}
    for label, density in densities.items():
        for unbinned in (False, True) if len(density.knots) else (False,):
            key = f"{label}, {'unbinned' if unbinned else 'binned'}"
            agreed[key] = methods.agreement(
                density, charges, methods=names, unbinned=unbinned, progress=lambda text: print(f"  {text}", flush=True)
            )
    one = next(iter(densities.values()))
    return told(
        {
            "truth": methods.TRUTH.tolist(),
            "events": len(next(iter(charges.values()))),
            "agreement": agreed,
            "misfits": {label: methods.misfits(d, sources, replicas=replicas) for label, d in densities.items()},
            "information": methods.information(sources, one, charges),
        }
    )


def told(value):
    """Numbers as JSON has them: what a method does not know (effective samples of Minuit) is None."""
    if isinstance(value, dict):
        return {k: told(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [told(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


# ---------------------------------------------------------------- pictures


def small(path, target):
    """A picture with a palette, and fewer pixels if it is still large."""
    image = Image.open(path).convert("RGB")
    while True:
        out = io.BytesIO()
        image.quantize(256, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        if out.tell() <= LARGEST_PICTURE:
            break
        image = image.resize((image.width * 9 // 10, image.height * 9 // 10), Image.Resampling.LANCZOS)
    Path(target).write_bytes(out.getvalue())
    return out.tell()


def pictures(draw, out):
    """Draw into a folder of its own, then as docs/figures/tune-<name>.png."""
    Path(out).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for path in draw(folder):
            target = Path(out) / f"tune-{Path(path).name}"
            print(f"  {target.name}: {small(path, target) / 1e3:.0f} kB", flush=True)


# ---------------------------------------------------------------- main


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="run folder of nuebar simulate calibration; needed but for the release")
    parser.add_argument("--release", help="folder of JUNO's 2025 release; its record is left out otherwise")
    parser.add_argument("--density", nargs="+", default=list(PRETRAINED), help="words or folders")
    parser.add_argument("--study", nargs="+", choices=ALL, default=list(ALL))
    parser.add_argument("--points", type=int, default=1000, help="points of testing 1")
    parser.add_argument("--fits", type=int, default=100, help="data sets at each point")
    parser.add_argument("--sets", type=int, default=2000, help="posteriors of the calibration of ranks")
    parser.add_argument("--methods", nargs="+", default=["minuit", "nuts", "nested"], help="that are to agree")
    parser.add_argument("--replicas", type=int, default=1000, help="of the goodness of fit")
    parser.add_argument("--cascades", type=int, default=50_000, help="of every gamma of the release")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--work", default="out/tuning-validation", help="where chunks are kept")
    parser.add_argument("--force", action="store_true", help="throw away chunks of another configuration")
    parser.add_argument("--out", default=str(ROOT / "docs" / "results"))
    parser.add_argument("--figures", default=str(ROOT / "docs" / "figures"))
    args = parser.parse_args()
    if args.data is None and set(args.study) - {"release"}:
        parser.error("--data FOLDER: expected the run folder of nuebar simulate calibration")
    return args


def studies(args, wanted):
    """Run, keep, draw; one study after the other, so that a stopped run leaves what it has."""
    truth = testing_points(args.data, args.points)
    size = {
        "points": args.points, "fits": args.fits, "sets": args.sets, "seed": args.seed, "densities": args.density
    }  # fmt: skip
    records = {}
    # Exposures with calibration: the verdict is about both.
    together = [s for s in ("exposures", "calibration") if s in wanted]
    groups = [(s,) for s in wanted if s not in together] + ([tuple(together)] if together else [])
    for group in groups:
        began = time.perf_counter()
        job = ValidateJob(
            densities=tuple(args.density), studies=group, data=args.data, points=args.points, fits=args.fits,
            sets=args.sets, seed=args.seed,
        )  # fmt: skip
        found = run_validate(job, args.work, jobs=args.jobs, force=args.force)
        print(validation_report(found), flush=True)
        seconds = time.perf_counter() - began
        for study in group:
            numbers = {"size": size, "densities": summary(study, found, truth)}
            if study == "accuracy":
                numbers["training_noise"] = training_noise(args.data)
            options = {"command": "make tuning", "seconds": seconds, "seed": args.seed}
            print(write_claim(args.out, f"tune-{study}", numbers, **options), flush=True)
        records |= {study: found[study] for study in group}
    for record in records.get("points", {}).values():
        record.setdefault("truth", truth.tolist())  # the picture wants it
    pictures(lambda folder: draw_validation(records, folder), args.figures)


def main():
    args = parsed()
    wanted = [s for s in STUDIES if s in args.study]
    if wanted:
        studies(args, wanted)
        pictures(lambda folder: draw_densities(tuple(args.density), args.data, folder), args.figures)
    if "release" in args.study and args.release:
        began = time.perf_counter()
        numbers, results = release_record(args.release, args.cascades)
        seconds = time.perf_counter() - began
        told = {"command": "make tuning RELEASE=folder", "seconds": seconds, "seed": 1}
        print(write_claim(args.out, "tune-release", numbers, **told), flush=True)
        for points, result in results.items():
            pictures(lambda folder, r=result: draw_release(r, Path(folder)), Path(args.work) / f"release-{points}")
        for name in ("corner", "curves"):
            source = Path(args.work) / "release-all" / f"tune-{name}.png"
            small(source, Path(args.figures) / f"tune-release-{name}.png")
    if "methods" in args.study:
        began = time.perf_counter()
        numbers = methods_record(args.density, methods.testing_sources(args.data), args.methods, args.replicas)
        seconds = time.perf_counter() - began
        told = {"command": "make tuning", "seconds": seconds, "seed": 1}
        print(write_claim(args.out, "tune-methods", numbers, **told), flush=True)


if __name__ == "__main__":
    main()
