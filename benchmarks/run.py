"""Speeds as ratios within one run: ours beside the naive way or a public peer. Writes docs/results/bench-speed.json.

python benchmarks/run.py [--out docs/results] [--quick]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")

import jax
import jax.numpy as jnp
import numpy as np

from nuebar.config import load_experiment, override
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.jobs.record import write_claim
from nuebar.parameters import OSCILLATION
from nuebar.physics import oscillation
from nuebar.predict import harmonic as harmonic_module
from nuebar.predict.batch import BatchHarmonic
from nuebar.predict.compiled import CompiledHarmonic
from nuebar.predict.harmonic import HarmonicPredictor, Windows
from nuebar.predict.matrix import MatrixPredictor
from nuebar.predict.signal import signal_inputs
from nuebar.predict.spectrum import build_model

P = np.array([0.307, 0.0218, 7.53e-5, 2.5283e-3, 2.45])
VACUUM = P * np.array([1, 1, 1, 1, 0.0])
BINS = slice(12, 412)  # 400 bins of 20 keV from 0.8 to 8.8 MeV, between the padding of 12 on each side


def timed(call, repeat=7, least=0.2):
    """Best and median seconds of a call, each a mean over enough calls."""
    call()
    start = time.perf_counter()
    call()
    n = max(1, int(least / repeat / max(time.perf_counter() - start, 1e-7)))
    samples = []
    for _ in range(repeat):
        start = time.perf_counter()
        for _ in range(n):
            call()
        samples.append((time.perf_counter() - start) / n)
    return {"best_s": min(samples), "median_s": float(np.median(samples))}


def numpy_matrix(inputs):
    """The response matrix as people write it: probabilities and product in numpy."""
    response = np.ascontiguousarray(inputs.response[BINS])
    phase = oscillation.PHASE_per_eV2_km_MeV * inputs.baseline_km[:, None] / inputs.e_nu_MeV

    def spectrum(p):
        s12, s13, d21, d31 = p[:4]
        survival = 1 - (1 - s13) ** 2 * 4 * s12 * (1 - s12) * np.sin(phase * d21) ** 2
        fast = (1 - s12) * np.sin(phase * d31) ** 2 + s12 * np.sin(phase * (d31 - d21)) ** 2
        survival -= 4 * s13 * (1 - s13) * fast
        return response @ np.sum(inputs.events * survival, axis=0)

    return spectrum


def finite_differences(spectrum, p):
    rows = []
    for k in range(4):
        step = np.zeros_like(p)
        step[k] = 1e-5 * p[k]
        rows.append((spectrum(p + step) - spectrum(p - step)) / (2 * step[k]))
    return np.array(rows)


def harmonic(predictor, p):
    """Seconds of one harmonic predictor, by way of calling it."""
    compiled = CompiledHarmonic(predictor, BINS)
    assert np.allclose(compiled(p), np.asarray(harmonic_module._predict(predictor, p))[BINS], rtol=1e-5)
    x = jnp.asarray(p)
    one = jax.jit(lambda q: harmonic_module._predict(predictor, q)[BINS])
    density, angles = x[4:], x[:4]
    gradient = jax.jit(jax.jacfwd(lambda q: harmonic_module._predict(predictor, jnp.concatenate([q, density]))[BINS]))
    many = jax.jit(jax.vmap(lambda h, q: harmonic_module._predict(h, q)[BINS], (None, 0)))
    n = 500
    batch = jnp.asarray(np.repeat(p[None], n, axis=0))
    each = timed(lambda: many(predictor, batch).block_until_ready(), repeat=5)
    return {
        "compiled scalar path": timed(lambda: compiled(p)),
        "one jitted call": timed(lambda: one(x).block_until_ready()),
        "jacobian of 400 bins, jitted": timed(lambda: gradient(angles).block_until_ready()),
        f"each under vmap of {n}": {k: v / n for k, v in each.items()},
        "terms (solar, atmospheric)": [
            predictor.total.solar.value.shape[-1],
            predictor.total.atmospheric.value.shape[-1],
        ],
    }


def predictions(inputs, quick):
    naive = numpy_matrix(inputs)
    out = {"response matrix, numpy, vacuum, 9 cores": timed(lambda: naive(P))}
    out["its gradient by finite differences"] = timed(lambda: finite_differences(naive, P))
    matrix = MatrixPredictor.build(inputs)
    for sigma in (3, 15):
        windows = Windows.around_pdg(sigma)
        vacuum = HarmonicPredictor.build(inputs, windows=windows, matter=False)
        matter = HarmonicPredictor.build(inputs, windows=windows)
        both = {}
        for label, predictor, p in (("vacuum", vacuum, VACUUM), ("matter", matter, P)):
            both[label] = harmonic(predictor, p)
        out[f"harmonic, ±{sigma}σ of PDG 2022"] = both
    exact = jax.jit(lambda m, q: matrix_predict(m, q)[BINS])
    out["response matrix, jitted, matter"] = timed(lambda: exact(matrix, jnp.asarray(P)).block_until_ready())
    fastest = out["harmonic, ±15σ of PDG 2022"]["vacuum"]
    out["ratios"] = {
        "numpy matrix over compiled harmonic (±15σ, vacuum)": out["response matrix, numpy, vacuum, 9 cores"]["best_s"]
        / fastest["compiled scalar path"]["best_s"],
        "numpy matrix over jitted harmonic (±15σ, vacuum)": out["response matrix, numpy, vacuum, 9 cores"]["best_s"]
        / fastest["one jitted call"]["best_s"],
        "finite differences over jitted jacobian (±15σ, vacuum)": out["its gradient by finite differences"]["best_s"]
        / fastest["jacobian of 400 bins, jitted"]["best_s"],
        "jitted matrix over compiled harmonic (±15σ, matter)": out["response matrix, jitted, matter"]["best_s"]
        / out["harmonic, ±15σ of PDG 2022"]["matter"]["compiled scalar path"]["best_s"],
    }
    return out


def matrix_predict(m, q):
    from nuebar.predict.matrix import _predict

    return _predict(m, q)


def million(inputs, quick):
    n = 100_000 if quick else 1_000_000
    windows = Windows.around_pdg(3)
    batch = BatchHarmonic(HarmonicPredictor.build(inputs, windows=windows, matter=False, tolerance=1e-8), BINS)
    exact = HarmonicPredictor.build(inputs, windows=windows, matter=False)
    rng = np.random.default_rng(1)
    p = np.column_stack(
        [
            rng.uniform(0.27, 0.35, n),
            rng.uniform(0.018, 0.026, n),
            rng.uniform(*windows.solar, n),
            rng.uniform(*windows.normal(), n),
        ]
    )
    out = np.empty((n, 400), dtype=np.float32)
    time_ = timed(lambda: batch(p, out), repeat=5, least=0.0)
    worst = 0.0
    for k in range(0, n, n // 200):
        truth = np.asarray(exact.predict(dict(zip(OSCILLATION, p[k], strict=True))))[BINS]
        keep = truth > 1e-4 * truth.max()
        worst = max(worst, float(np.abs(out[k] / truth - 1)[keep].max()))
    return {"spectra": n, "into a reused buffer": time_, "worst relative error of a bin": worst, "windows": "±3σ"}


def probabilities(quick):
    n = 100_000 if quick else 1_000_000
    e = jnp.linspace(1.81, 12.0, n)

    def ours(x):
        values = dict(zip(OSCILLATION, x[:4], strict=True))
        return oscillation.matter(e, x[5], **values, density_g_cm3=x[4])

    x = jnp.array([*P, 52.5])
    directions = jnp.eye(6)
    forward = jax.jit(ours)
    # One product per direction, fused together: the result is the Jacobian, energies along the first axis.
    jacobian = jax.jit(lambda z: jnp.stack([jax.jvp(ours, (z,), (d,))[1] for d in directions], axis=0))
    out = {
        "probabilities": n,
        "ours": timed(lambda: forward(x).block_until_ready(), repeat=5),
        "our 6-parameter Jacobian": timed(lambda: jacobian(x).block_until_ready(), repeat=5),
    }
    out["Jacobian over forward"] = out["our 6-parameter Jacobian"]["best_s"] / out["ours"]["best_s"]
    try:
        import jaxnu
    except ImportError:
        return out
    params = jaxnu.OscParams(
        theta12=jnp.arcsin(jnp.sqrt(x[0])), theta13=jnp.arcsin(jnp.sqrt(x[1])), theta23=jnp.asarray(0.8),
        deltacp=jnp.asarray(0.0), dm21=x[2], dm31=x[3],
    )  # fmt: skip
    peer = jax.jit(
        lambda q: jaxnu.probability_constant(q, e * 1e-3, 52.5, 2.45, 0.5, anti=True, flavor_in=0, flavor_out=0)
    )
    out["jaxnu"] = timed(lambda: peer(params).block_until_ready(), repeat=5)
    out["jaxnu over ours"] = out["jaxnu"]["best_s"] / out["ours"]["best_s"]
    return out


def fits():
    experiment = load_experiment("juno")
    model, parameters = build_model(experiment)
    fit = SpectrumFit.asimov(model, parameters, statistic=experiment.fit.statistic)
    problem = fit.problem()
    start = {"sin2_th12": 0.31, "dm2_21_eV2": 7.6e-5, "dm2_31_eV2": 2.53e-3}
    fit.run(problem=problem, start=start)
    runs = [fit.run(problem=problem, start=start) for _ in range(5)]
    seconds = [r.seconds for r in runs]
    return {
        "parameters": len(parameters.free),
        "bins": len(fit.counts),
        "calls": runs[0].n_calls,
        "once compiled": {"best_s": min(seconds), "median_s": float(np.median(seconds))},
    }


def processes():
    out = {}
    for label, words in (
        ("import nuebar", [sys.executable, "-c", "import nuebar"]),
        ("python alone", [sys.executable, "-c", "pass"]),
        ("nuebar --help", [sys.executable, "-m", "nuebar.cli", "--help"]),
    ):
        samples = [run(words)[0] for _ in range(5)]
        out[label] = {"best_s": min(samples), "median_s": float(np.median(samples))}
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
        words = [sys.executable, "-m", "nuebar.cli", "fit", "spectrum", "--experiment", "juno", "--exposure-years", "6",
                 "--asimov", "--out", f"{folder}/out"]  # fmt: skip
        cold = run(words, env)[0]
        warm = [run(words, env)[0] for _ in range(3)]
        out["nuebar fit spectrum, empty compilation cache"] = {"best_s": cold}
        out["nuebar fit spectrum, warm compilation cache"] = {
            "best_s": min(warm), "median_s": float(np.median(warm))
        }  # fmt: skip
    return out


def run(words, env=None):
    start = time.perf_counter()
    done = subprocess.run(words, capture_output=True, env=env, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed: {done.stderr.decode()[-400:]}")
    return time.perf_counter() - start, done


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(Path(__file__).parents[1] / "docs" / "results"))
    parser.add_argument("--quick", action="store_true", help="smaller batches")
    args = parser.parse_args()
    began = time.perf_counter()
    inputs = signal_inputs(override(load_experiment("juno"), {"binning.segments": ((0.8, 8.8, 400),)}))
    numbers = {}
    for name, measure in (
        ("processes", processes),
        ("prediction of 400 bins", lambda: predictions(inputs, args.quick)),
        ("a million spectra in f32", lambda: million(inputs, args.quick)),
        ("matter probabilities", lambda: probabilities(args.quick)),
        ("fit with all systematics", fits),
    ):
        numbers[name] = measure()
        show(name, numbers[name])
    print(
        write_claim(args.out, "bench-speed", numbers, command="make bench", seconds=time.perf_counter() - began, seed=1)
    )


def show(name, value, depth=0):
    pad = "  " * depth
    if isinstance(value, dict) and "best_s" in value:
        best = value["best_s"]
        unit = (best, "s") if best > 0.5 else (best * 1e3, "ms") if best > 5e-4 else (best * 1e6, "µs")
        print(f"{pad}{name}: {unit[0]:.3g} {unit[1]}")
    elif isinstance(value, dict):
        print(f"{pad}{name}:")
        for key, item in value.items():
            show(key, item, depth + 1)
    else:
        print(f"{pad}{name}: {value:.4g}" if isinstance(value, float) else f"{pad}{name}: {value}")


if __name__ == "__main__":
    main()
