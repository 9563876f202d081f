"""Do three methods agree, are misfits caught, and what in the spectra tells the response?

Measured at the worked example of arXiv:2507.23297 on data simulated from pools that no training has seen; called by
benchmarks/tuning_validation.py.
"""

import dataclasses
import itertools
from pathlib import Path

import numpy as np

from nuebar.config import load_experiment
from nuebar.simulate.calibration import load_plan
from nuebar.simulate.deposits import ELECTRON_CODES, PROTON_CODES
from nuebar.simulate.pool import CascadePool
from nuebar.tune.data import CalibrationData
from nuebar.tune.density import RESPONSE
from nuebar.tune.goodness import ALARM
from nuebar.tune.infer import infer
from nuebar.tune.simulated import SimulatedSources
from nuebar.tune.validate import PUBLISHED_EXAMPLE

TRUTH = np.array(PUBLISHED_EXAMPLE["truth"])
STEPS = np.array([0.2, 0.02, 20.0])  # of the slopes of expected spectra, about two errors: they err by 1e-3
GAMMAS = ("Cs137", "K40", "Co60")
NEUTRONS = ("AmBe", "AmC")
PEAK_SHARE = 0.2  # of its height: what is taken for a peak
# Correlations of the fits' proposals in the authors' code (kB-fC, kB-Y, fC-Y), scripts/fit.py of NeuroMCT.
PUBLISHED_CORRELATION = (-0.903, 0.977, -0.962)
SMALL_PROBABILITY = 1e-12


def example(sources, events=10_000, seed=1):
    """Charges of the worked example, as the validation has them."""
    return sources.charges(TRUTH, events, seed=seed, words=("example",))


def testing_sources(data):
    """Sources of JUNO from the pools of the testing sets, which no training has seen."""
    plan, place = load_plan(), Path(data) / "pools-testing"
    pools = {s: CascadePool.load(place / f"chunk-{i:05d}.safetensors") for i, s in enumerate(plan.sources)}
    return SimulatedSources.build(load_experiment("juno"), pools, plan=plan)


def measured(charges, density):
    return CalibrationData.from_charges(charges, density.edges, density.pe_to_observable)


# ---------------------------------------------------------------- methods


def agreement(density, charges, *, methods, unbinned, seed=1, progress=None):
    """One calibration by several methods, norms in closed form and free, against NUTS with norms in closed form.

    Args:
        density: Knows ln p.
        charges: Source → photo-electrons.
        methods: Of :func:`nuebar.tune.infer.infer`.
        unbinned: Whether single charges are used.
        seed: Of samples.
        progress: Called with what has been done.
    """
    data, rows = measured(charges, density), []
    for method, norms in itertools.product(methods, ("closed", "free")):
        r = infer(data, density, method=method, unbinned=unbinned, norms=norms, seed=seed, n_replicas=0)
        middle = np.array([r.best[n] for n in RESPONSE]) if method == "minuit" else np.asarray(r.mean)
        width = np.sqrt(np.diag(r.covariance))
        rows.append(
            {"method": method, "norms": norms, "middle": middle, "width": width, "valid": bool(r.valid),
             "reason": r.reason, "seconds": r.seconds, "calls": r.n_calls, "effective": r.effective,
             "pull": (middle - TRUTH) / width}
        )  # fmt: skip
        if progress:
            progress(f"{density.name}, {'unbinned' if unbinned else 'binned'}, {method}, {norms}: {r.seconds:.1f} s")
    reference = next((r for r in rows if r["method"] == "nuts" and r["norms"] == "closed"), rows[0])
    for r in rows:
        r["shift_sigma"] = ((r["middle"] - reference["middle"]) / reference["width"]).tolist()
        r["width_percent"] = (100 * (r["width"] / reference["width"] - 1)).tolist()
    return [{k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in r.items()} for r in rows]


# ---------------------------------------------------------------- misfits


def misfits(density, sources, *, events=10_000, replicas=1000, seed=2):
    """Data that the density cannot make, next to data that it can: p-values and the source that is blamed."""
    model = sources.model
    wide = dataclasses.replace(
        model, electronics=model.electronics._replace(constant=model.electronics.constant + 0.01)
    )
    co60 = sources.sources.index("Co60")
    gains = list(sources.gains)
    gains[co60] *= 1.005
    cases = {
        "as simulated": (sources, None),
        "all peaks wider: constant term of the resolution larger by 1 %": (
            dataclasses.replace(sources, model=wide),
            None,
        ),
        "60Co at a place with 0.5 % more light": (dataclasses.replace(sources, gains=tuple(gains)), None),
        "2 % of the events of 40K are an unknown peak at 2,000 photo-electrons": (sources, "K40"),
    }
    rows = []
    for name, (simulator, odd) in cases.items():
        charges = simulator.charges(TRUTH, events, seed=seed, words=("misfits",))
        if odd is not None:
            n = len(charges[odd]) // 50
            peak = np.random.default_rng(seed).normal(2000.0, 60.0, n)
            charges[odd] = np.concatenate([peak.astype(np.float32), charges[odd][n:]])
        r = infer(measured(charges, density), density, minos=False, n_replicas=replicas, seed=seed)
        g = r.goodness
        worst = min(g.sources, key=lambda s: (s.p_value, -abs(s.local)))
        pull = (np.array([r.best[n] for n in RESPONSE]) - TRUTH) / np.array([r.errors[n] for n in RESPONSE])
        rows.append(
            {"data": name, "p_value": g.p_value, "caught": bool(g.p_value < ALARM), "worst_source": worst.source,
             "worst_p": worst.p_value, "local_sigma": worst.local, "local_range": list(worst.local_range),
             "pull": pull.tolist(), "warnings": list(r.warnings)}
        )  # fmt: skip
    return {"alarm": ALARM, "replicas": replicas, "rows": rows}


# ---------------------------------------------------------------- information


class HeldProtons(SimulatedSources):
    """The same detector, in which the light of recoil protons keeps the kB of the truth."""

    def light(self, response):
        """Photons of every deposit code."""
        light = super().light(response)
        held = super().light((TRUTH[0], *(float(x) for x in np.asarray(response)[1:])))
        protons = slice(ELECTRON_CODES, ELECTRON_CODES + PROTON_CODES)
        light[protons] = held[protons]
        return light


def slopes(sources):
    """Expected spectra and their derivatives, shapes ``(sources, bins)`` and ``(sources, bins, 3)``."""
    columns = []
    for k, step in enumerate(STEPS):
        d = np.zeros(3)
        d[k] = step
        columns.append((sources.expected(TRUTH + d)[0] - sources.expected(TRUTH - d)[0]) / (2 * step))
    return sources.expected(TRUTH)[0], np.stack(columns, axis=-1)


def expected_errors(p, d, sources, *, used=None, bins=None, events=10_000):
    """Errors and correlations from Fisher's information, norms free; None where it cannot be inverted."""
    information = np.zeros((3, 3))
    for i, name in enumerate(sources):
        if used is not None and name not in used:
            continue
        good = p[i] > SMALL_PROBABILITY
        if bins is not None and name in bins:
            good &= bins[name]
        q, g = p[i][good], d[i][good]
        information += events * (np.einsum("bi,bj->ij", g / q[:, None], g) - np.outer(g.sum(0), g.sum(0)) / q.sum())
    covariance = np.linalg.inv(information)
    errors = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(errors, errors)
    return {"errors": errors.tolist(), "correlation": [float(correlation[i, j]) for i, j in ((0, 1), (0, 2), (1, 2))]}


def around_peak(p):
    """Bins around the highest one that are above a share of it."""
    top = int(p.argmax())
    low = high = top
    while low > 0 and p[low - 1] > PEAK_SHARE * p[top]:
        low -= 1
    while high < p.size - 1 and p[high + 1] > PEAK_SHARE * p[top]:
        high += 1
    mask = np.zeros(p.size, bool)
    mask[low : high + 1] = True
    return mask


def information(sources, density, charges):
    """Errors of the worked example from parts of the data, expected and fitted, beside the published ones."""
    names = sources.sources
    p, d = slopes(sources)
    held = HeldProtons(**{f.name: getattr(sources, f.name) for f in dataclasses.fields(SimulatedSources)})
    p_held, d_held = slopes(held)
    peaks = {name: around_peak(p[names.index(name)]) for name in NEUTRONS}
    others = {name: ~mask for name, mask in peaks.items()}
    rows = {
        "all five sources": expected_errors(p, d, names),
        "137Cs, 40K, 60Co only": expected_errors(p, d, names, used=GAMMAS),
        "these and AmBe": expected_errors(p, d, names, used=(*GAMMAS, "AmBe")),
        "these and AmC": expected_errors(p, d, names, used=(*GAMMAS, "AmC")),
        "these and the n-H peaks of AmBe and AmC": expected_errors(p, d, names, bins=peaks),
        "these and AmBe and AmC but for their n-H peaks": expected_errors(p, d, names, bins=others),
        "all five, the light of recoil protons not following kB": expected_errors(p_held, d_held, names),
        "137Cs, 40K, 60Co and the n-H peaks, protons not following kB": expected_errors(
            p_held, d_held, names, bins=peaks
        ),
    }
    fitted = {}
    data = measured(charges, density)
    for name, used in (("all five sources", names), ("137Cs, 40K, 60Co only", GAMMAS)):
        r = infer(data.subset(used), density, method="nuts", n_replicas=0, seed=1)
        fitted[name] = {
            "density": density.name, "mean": np.asarray(r.mean).tolist(), "errors": list(r.errors.values()),
            "correlation": [float(r.correlation[i, j]) for i, j in ((0, 1), (0, 2), (1, 2))], "valid": bool(r.valid),
        }  # fmt: skip
    return {
        "truth": TRUTH.tolist(),
        "events": 10_000,
        "expected": rows,
        "fitted": fitted,
        "published_errors": list(PUBLISHED_EXAMPLE["errors"]),
        "published_correlation": list(PUBLISHED_CORRELATION),
        "peak_ranges": {name: [float(x) for x in _range(sources, mask)] for name, mask in peaks.items()},
        "proton_kB_ratio": sources.model.scintillation.proton_kB_ratio,
    }


def _range(sources, mask):
    low, high, n = sources.bins
    edges, found = np.linspace(low, high, int(n) + 1), np.flatnonzero(mask)
    return edges[found[0]], edges[found[-1] + 1]
