"""Speeds of the predictors from Monte Carlo as ratios within one run. Writes docs/results/bench-predictors.json.

python benchmarks/predictors.py [--pairs FILES ...] [--cascades FOLDER] [--out docs/results] [--quick]

Without files it simulates what it needs: a million pairs and a million cascades, less with --quick.
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")

import jax
import jax.numpy as jnp
import numpy as np

from nuebar.config import load_experiment, override
from nuebar.fit.spectrum_fit import SpectrumFit
from nuebar.io.event_paths import find_files
from nuebar.jobs.compare_rows import nominal_response, numpy_network, published_windows
from nuebar.jobs.ibd import IbdJob, run_ibd
from nuebar.jobs.record import write_claim
from nuebar.parameters import OSCILLATION
from nuebar.physics.oscillation import PHASE_per_eV2_km_MeV
from nuebar.predict.batch import BatchHarmonic
from nuebar.predict.batch_surrogate import BatchSurrogate
from nuebar.predict.box import Provenance
from nuebar.predict.cascades import Cascades
from nuebar.predict.compiled import CompiledHarmonic
from nuebar.predict.folded import fold_pairs
from nuebar.predict.harmonic import HarmonicPredictor
from nuebar.predict.network import PUBLISHED, PUBLISHED_BOX, EDGES_MeV, parameter_sets, train_network
from nuebar.predict.pairs import read_pairs
from nuebar.predict.response import LIGHT, RESPONSE
from nuebar.predict.reweight import ReweightPredictor
from nuebar.predict.signal import signal_inputs
from nuebar.predict.spectrum import build_model
from nuebar.predict.surrogate import build_surrogate
from run import show, timed

JUNO = load_experiment("juno")
WINDOWS = published_windows()
SPECTRA = 10  # of the same pairs, one after the other
NEAR = {"kB_g_cm2_GeV": 1.3, "fC": 0.145, "light_yield_per_MeV": 115.0}  # 5σ of a calibration, arXiv:2507.23297


def simulated(folder, n, cascades):
    run_ibd(IbdJob(JUNO, n, None, None, cascades, 1), folder, jobs=2)
    return folder


def naive_reweighting(pairs):
    """Ten lines of numpy, as people write it."""
    baseline, e_nu = pairs.baseline_km[pairs.core], pairs.e_nu_MeV
    phase = PHASE_per_eV2_km_MeV * baseline / e_nu

    def spectrum(p):
        s12, s13, d21, d31 = p
        survival = 1 - (1 - s13) ** 2 * 4 * s12 * (1 - s12) * np.sin(phase * d21) ** 2
        fast = (1 - s12) * np.sin(phase * d31) ** 2 + s12 * np.sin(phase * (d31 - d21)) ** 2
        survival -= 4 * s13 * (1 - s13) * fast
        return pairs.scale * np.bincount(pairs.bin, survival, minlength=pairs.bins)

    return spectrum


def turning(call, arguments):
    """The same call with another argument each time: nothing is remembered."""
    k = [0]

    def turn():
        k[0] += 1
        return call(arguments[k[0] % len(arguments)])

    return turn


def per(seconds, n):
    return {k: v / n for k, v in seconds.items()}


def from_pairs(pairs):
    """One spectrum from the same pairs, by way of making it."""
    rows = parameter_sets(PUBLISHED_BOX, 77, 0, 64)
    vectors = [jnp.asarray(p) for p in rows]
    naive, exact = naive_reweighting(pairs), ReweightPredictor.build(pairs, matter=False)
    harmonic = HarmonicPredictor.build(fold_pairs(pairs), windows=WINDOWS, matter=False)
    coarse = HarmonicPredictor.build(fold_pairs(pairs), windows=WINDOWS, matter=False, tolerance=1e-8)
    # Speed does not depend on the weights: a few steps will do.
    short = replace(PUBLISHED, training=replace(PUBLISHED.training, max_steps=5, validate_every=5), n_sets=20_000)
    network = train_network(coarse, short)[0]
    compiled, forward = CompiledHarmonic(harmonic), numpy_network(network)
    truth = naive(rows[0])
    for other in (exact.channels(rows[0])[0], harmonic.channels(rows[0])[0], compiled(np.append(rows[0], 0.0))):
        np.testing.assert_allclose(other, truth, rtol=1e-9, atol=1e-9 * truth.max())
    out = {"pairs": len(pairs), "spectra in a row": SPECTRA}

    def ten(call):
        return lambda: [call(p) for p in rows[:SPECTRA]]

    out["numpy reweighting"] = per(timed(ten(naive), repeat=3, least=0.0), SPECTRA)
    numba = ten(lambda p: exact.source._pass(np.append(p, 0.0)))
    out["numba reweighting"] = per(timed(numba, repeat=5, least=0.0), SPECTRA)
    for name, predictor in (("harmonic", harmonic), ("network as published", network)):
        one = jax.jit(lambda p, predictor=predictor: predictor.channels(p)[0])
        slopes = jax.jit(jax.jacfwd(one))
        out[f"{name}, jitted"] = timed(turning(lambda p, one=one: one(p).block_until_ready(), vectors))
        out[f"{name}, Jacobian jitted"] = timed(turning(lambda p, f=slopes: f(p).block_until_ready(), vectors))
    out["harmonic, compiled"] = timed(turning(compiled, list(np.pad(rows, ((0, 0), (0, 1))))))
    out["network as published, numpy"] = timed(turning(forward, list(rows)))
    best = {k: v["best_s"] for k, v in out.items() if isinstance(v, dict)}
    out["ratios"] = {
        "numpy over numba reweighting": best["numpy reweighting"] / best["numba reweighting"],
        "numpy reweighting over compiled harmonic": best["numpy reweighting"] / best["harmonic, compiled"],
        "numpy network over compiled harmonic": best["network as published, numpy"] / best["harmonic, compiled"],
        "jitted network over jitted harmonic": best["network as published, jitted"] / best["harmonic, jitted"],
    }
    return out


def from_cascades(folder, quick):
    """The surrogate: one spectrum, with its derivatives, and many."""
    cascades = Cascades.load(folder, experiment=JUNO, files=slice(0, 5))
    cascades = cascades.normalised(3e5)  # about six years of JUNO without oscillations
    nominal = nominal_response(JUNO)
    start = time.perf_counter()
    surrogate = build_surrogate(cascades, EDGES_MeV, nominal=nominal, windows=WINDOWS, matter=False)
    built = time.perf_counter() - start
    n = len(surrogate.parameter_names)
    rows = np.column_stack([parameter_sets(PUBLISHED_BOX, 78, 0, 4096), responses(surrogate, 4096)])
    vectors = [jnp.asarray(p) for p in rows[:64]]
    one = jax.jit(lambda p: surrogate.channels(p)[0])
    both = jax.jit(lambda p: (surrogate.channels(p)[0], jax.jacfwd(lambda q: surrogate.channels(q)[0])(p)))
    physics = jax.jit(
        lambda p: (surrogate.channels(p)[0], jax.jacfwd(lambda q: surrogate.channels(jnp.append(q, p[4:]))[0])(p[:4]))
    )
    data = one(jnp.asarray(surrogate.vector(dict(zip(OSCILLATION, rows[0, :4].tolist(), strict=True)))))
    slope = jax.jit(jax.value_and_grad(lambda p: jnp.sum((surrogate.channels(p)[0] - data) ** 2 / data)))
    out = {
        "cascades": len(cascades),
        "parameters": n,
        "built": {"best_s": built},
        "one spectrum, jitted": timed(turning(lambda p: one(p).block_until_ready(), vectors)),
        f"value and Jacobian in {n}": timed(turning(lambda p: jax.block_until_ready(both(p)), vectors)),
        "value and Jacobian in oscillation": timed(turning(lambda p: jax.block_until_ready(physics(p)), vectors)),
        f"χ² and its gradient in {n}": timed(turning(lambda p: jax.block_until_ready(slope(p)), vectors)),
    }
    spectra = 100_000 if quick else 1_000_000
    start = time.perf_counter()
    batch = BatchHarmonic(surrogate.at_response(nominal))
    ready = time.perf_counter() - start
    p = parameter_sets(PUBLISHED_BOX, 79, 0, spectra)
    buffer = np.empty((spectra, EDGES_MeV.size - 1), dtype=np.float32)
    fixed = timed(lambda: batch(p, buffer), repeat=3 if quick else 5, least=0.0)
    check = np.array([np.asarray(surrogate.predict(dict(zip(OSCILLATION, q, strict=True)))) for q in p[:5]])
    error = float(np.abs(buffer[:5] / check - 1)[check > 1e-4 * check.sum(axis=1, keepdims=True)].max())
    out[f"{spectra} spectra at a fixed response, into a reused buffer"] = {**fixed, "tables_s": ready}
    out["worst relative difference of these to the surrogate"] = error
    several = BatchSurrogate(surrogate)
    varied = np.column_stack([p, responses(surrogate, len(p))])
    quick_check = several(varied[:5])
    own = timed(lambda: several(varied, buffer), repeat=2, least=0.0)
    out[f"{spectra} spectra at varying response, into a reused buffer"] = own
    names = surrogate.parameter_names
    check = np.array([np.asarray(surrogate.predict(dict(zip(names, q, strict=True)))) for q in varied[:5]])
    error = float(np.abs(quick_check / check - 1)[check > 1e-4 * check.sum(axis=1, keepdims=True)].max())
    out["worst relative difference of those to the surrogate"] = error
    for size in (64,):
        many = jax.jit(jax.vmap(lambda q: surrogate.channels(q)[0]))
        part = jnp.asarray(rows[:size])
        out[f"each at its own response, under vmap of {size}"] = per(
            timed(lambda many=many, part=part: many(part).block_until_ready(), repeat=5), size
        )
    return out


def fits(folder):
    """A fit of four oscillation parameters and the norm with Hesse, once compiled: the surrogate's response fixed."""
    cascades = Cascades.load(folder, experiment=JUNO, files=slice(0, 5))
    total = float(signal_inputs(JUNO, edges=EDGES_MeV).events.sum())
    built = build_surrogate(
        cascades.normalised(total), EDGES_MeV, nominal=nominal_response(JUNO), windows=WINDOWS, matter=False
    )
    about = {"unoscillated_events": repr(total)}
    built = replace(built, provenance=Provenance({**built.provenance, **about}))
    alone = override(
        JUNO,
        {
            "systematics.core": 0.0, "systematics.spent_fuel": 0.0, "systematics.nonequilibrium": 0.0,
            "systematics.nonlinearity": False, "systematics.resolution": [], "systematics.fission_fractions": {},
            "systematics.signal": {"flux": 0.02}, "fit.shape_uncertainties": False,
        },
    )  # fmt: skip
    out = {}
    for name, predictor in (("surrogate", built), ("harmonic", "harmonic")):
        model, parameters = build_model(alone, predictor=predictor, windows=WINDOWS)
        tied = [n for n in parameters if n not in (*OSCILLATION, "norm_flux")]
        parameters = parameters.updated(**{n: {"fixed": True} for n in tied})
        fit = SpectrumFit.asimov(model, parameters, statistic="pearson")
        problem = fit.problem()
        start = {**parameters.nominal(), "sin2_th12": 0.31, "dm2_21_eV2": 7.6e-5}
        result = fit.run(problem=problem, start=start)
        assert result.valid, result.reason
        seconds = timed(lambda fit=fit, problem=problem, start=start: fit.run(problem=problem, start=start))
        out[name] = {**seconds, "calls": result.n_calls, "gradients": result.n_gradients}
    return out


def responses(surrogate, n):
    """Random responses near the calibration."""
    random, nominal = np.random.default_rng(5), surrogate.nominal()
    out = np.tile([nominal[name] for name in RESPONSE], (n, 1))
    out[:, : len(LIGHT)] += random.uniform(-1, 1, (n, len(LIGHT))) * [NEAR[name] for name in LIGHT]
    out[:, len(LIGHT) : -1] = random.uniform(0.0, 0.01, (n, 3))
    out[:, -1] = random.uniform(-0.02, 0.02, n)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", nargs="*", default=[], help="files of pairs; simulated by default")
    parser.add_argument("--cascades", help="folder of cascades; simulated by default")
    parser.add_argument("--out", default=str(Path(__file__).parents[1] / "docs" / "results"))
    parser.add_argument("--quick", action="store_true", help="smaller samples")
    args = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        paths = args.pairs or [simulated(f"{folder}/pairs", 100_000 if args.quick else 1_000_000, False)]
        places = [Path(p) / "ibd" if (Path(p) / "ibd").is_dir() else Path(p) for p in paths]
        pairs = read_pairs([f for p in places for f in find_files(p)], EDGES_MeV, least_per_bin=0)
        cascades = args.cascades or simulated(f"{folder}/cascades", 500_000 if args.quick else 1_000_000, True)
        numbers = {"load average": os.getloadavg()[0]}
        for name, measure in (
            ("one spectrum of 400 bins from pairs", lambda: from_pairs(pairs)),
            ("surrogate, vacuum, ±3σ", lambda: from_cascades(cascades, args.quick)),
            ("four parameters and a norm, with Hesse", lambda: fits(cascades)),
        ):
            numbers[name] = measure()
            show(name, numbers[name])
    seconds = time.perf_counter() - began
    print(write_claim(args.out, "bench-predictors", numbers, command="make bench", seconds=seconds, seed=1))


if __name__ == "__main__":
    main()
