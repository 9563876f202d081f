"""Evaluates a predictor that nuebar exported, with numpy alone; ``python evaluator.py FILE`` runs its test vector."""

import hashlib
import json
import sys
from typing import Any

import numpy as np


def load(path: str) -> tuple[Any, Any]:
    """Description and arrays of an exported file (.npz or .json); ValueError if it was altered."""
    with open(path, "rb") as file:
        z = json.load(file) if str(path).endswith(".json") else dict(np.load(file, allow_pickle=False))
    meta = z["meta"] if isinstance(z["meta"], dict) else json.loads(str(z["meta"]))
    if meta["format"] != 1 or meta["kind"] not in KINDS:
        raise ValueError(f"{path}: format {meta['format']} of kind {meta['kind']!r} needs its own evaluator")
    a = {k: np.array(z[k], dtype).reshape(shape) for k, (dtype, shape) in meta["arrays"].items()}
    described = json.dumps({**meta, "hash": ""}, sort_keys=True).encode()
    if hashlib.sha256(b"".join([described, *(a[k].tobytes() for k in sorted(a))])).hexdigest() != meta["hash"]:
        raise ValueError(f"{path}: contents and hash differ, so the file was altered; export it again")
    return meta, a


def evaluate(meta: Any, a: Any, parameters: Any) -> Any:
    """Counts per bin for parameters by name; those with a default in ``meta['parameters']`` may be left out."""
    values = [parameters.get(q["name"], q["default"]) for q in meta["parameters"]]
    for q, x in zip(meta["parameters"], values, strict=True):
        if x is None or not any(low <= x <= high for low, high in q["ranges"]):
            raise ValueError(f"{q['name']} = {x}: expected a number in {q['ranges']}")
    if unknown := set(parameters) - {q["name"] for q in meta["parameters"]}:
        raise ValueError(f"unknown parameters {unknown}")
    return KINDS[meta["kind"]](meta, a, *map(float, values))


def mixing(meta: Any, e_MeV: Any, s12: float, s13: float, d21: float, d31: float, rho: float) -> Any:
    """|U_ei|²|U_ej|² and splittings, ij = 21, 31, 32, in matter at each energy, shape (6, energies)."""
    w = np.array([(1 - s13) * (1 - s12), (1 - s13) * s12, s13])
    a = meta["potential_eV2_per_MeV"] * meta["electrons_per_nucleon"] * rho * e_MeV
    m, u = np.linalg.eigh(np.diag([0, d21, d31]) - a[:, None, None] * np.sqrt(np.outer(w, w)))
    w, m = (np.roll(x, -int(d31 < 0), 1).T for x in (np.einsum("i,nij->nj", np.sqrt(w), u) ** 2, m))
    return np.array([w[0] * w[1], w[0] * w[2], w[1] * w[2], m[1] - m[0], m[2] - m[0], m[2] - m[1]])


def harmonic(meta: Any, a: Any, s12: float, s13: float, d21: float, d31: float, rho: float = 0.0) -> Any:
    """Chebyshev series in the splittings, moved and weighted as matter does to first order in the energy."""
    x = np.array([d21, d31, d31 - d21])
    m = mixing(meta, a["energy_nodes_MeV"], s12, s13, d21, d31, rho) - np.append([0, 0, 0], x)[:, None]
    (v, y), (dv, dy) = (np.split(m @ a[k], 2) for k in ("to_bins", "to_slopes"))
    out = (1 - 2 * v.sum(0)) * a["flat"] - 2 * dv.sum(0) * a["flat_moment"]
    for k, name in enumerate(("solar", "atmospheric", "atmospheric")):
        (middle, half), sign, cheb = meta[name], np.sign(d31) if k else 1.0, np.polynomial.chebyshev
        t, tables = (sign * x[k] - middle) / half, [a[f"{name}.{c}"].T for c in ("value", "moment")]
        g, h = ([cheb.chebval(t, cheb.chebder(c, i)) * (sign / half) ** i for i in range(4)] for c in tables)
        out += 2 * v[k] * (g[0] + y[k] * (g[1] + y[k] * (g[2] / 2 + y[k] * g[3] / 6)) + dy[k] * (h[1] + y[k] * h[2]))
        out += 2 * dv[k] * (h[0] + y[k] * (h[1] + y[k] * h[2] / 2))
    return out


def matrix(meta: Any, a: Any, s12: float, s13: float, d21: float, d31: float, rho: float = 0.0) -> Any:
    """Response times oscillated events, every core at its own baseline, in exact matter."""
    m = mixing(meta, a["e_nu_MeV"], s12, s13, d21, d31, rho)
    phase = meta["phase_per_eV2_km_MeV"] * a["baseline_km"][:, None] / a["e_nu_MeV"]
    survival = 1 - 4 * sum(v * np.sin(phase * d) ** 2 for v, d in zip(m[:3], m[3:], strict=True))
    return a["response"] @ (a["events"] * survival).sum(axis=0)


def network(meta: Any, a: Any, *p: float) -> Any:
    """Layers in single precision, scaled to counts in double precision."""
    activations: Any = {
        "relu": lambda x: np.maximum(x, 0),
        "tanh": np.tanh,
        "silu": lambda x: x / (1 + np.exp(-x)),
        "gelu": lambda x: x / 2 * (1 + np.tanh(np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x**3))),
    }
    activation = activations[meta["activation"]]
    y = ((np.array(p) - a["shift"]) / a["width"]).astype(np.float32)
    for k in range(meta["layers"]):
        y = (activation(y) if k else y) @ a[f"weight.{k}"] + a[f"bias.{k}"]
    y = y.astype(float)
    return a["offset"] + (y @ a["scale"] if a["scale"].ndim == 2 else y * a["scale"])


def grid(meta: Any, a: Any, *p: float) -> Any:
    """Lagrange's interpolation along each axis between stored spectra."""
    out = a["spectra"]
    for k, (low, step) in enumerate(zip(a["low"], a["step"], strict=True)):
        n = min(meta["order"] + 1, out.shape[0])
        u = (p[k] - low) / step
        start = min(max(int(np.floor(u)) - (n - 2) // 2, 0), out.shape[0] - n)
        t = u - start - np.arange(n)
        weights = [np.prod(np.delete(t, j)) / np.prod(j - np.delete(np.arange(n), j)) for j in range(n)]
        out = np.tensordot(weights, out[start : start + n].astype(float), 1)
    return out


def surrogate(meta: Any, a: Any, s12: float, s13: float, d21: float, d31: float, *r: float) -> Any:
    """Nodes oscillated in vacuum, then moved and smeared by the response."""
    from math import erf

    (kB, fC, light, *smear, scale), w = r, np.array([(1 - s13) * (1 - s12), (1 - s13) * s12, s13])
    series = [meta[n] for n in ("solar", "atmospheric", "atmospheric", "kB", "ratio")]
    at = (d21, abs(d31), abs(d31 - d21), kB, fC / light)
    t = [np.cos(np.arange(n) * np.arccos((x - m) / half)) for x, (m, half, n) in zip(at, series, strict=True)]
    waves = [[w @ w], 2 * w[0] * w[1] * t[0], 2 * w[2] * (w[0] * t[1] + w[1] * t[2])]
    counts, p, q, pp, pq, qq = (a["stacked"] @ np.concatenate(waves)).reshape(6, -1)
    g, m2, m3, m4, x, y = np.einsum("vnkm,k,m->vn", a["light"].astype(float), t[3], t[4])
    (i1, i2, i3, di), (cherenkov, per_photon, spread, dark, constant) = a["inverse"].astype(float), a["constants"]
    pe = per_photon * (light * (a["anchor"] @ t[3]) + fC * cherenkov) / meta["anchor_MeV"]
    per, sa2, sb2 = (1 + spread**2) / pe, smear[0] ** 2, smear[1] ** 2 + constant**2
    v = m2 + per * (g * i1 + dark * i2 / pe) + sb2 * (g * g + m2) + sa2 * g + smear[2] ** 2
    k3 = m3 + (1 + 3 * spread**2) * (g * i2 + dark * i3 / pe) / pe**2 + 3 * m2 * (per * i1 + sa2 + 2 * sb2 * g)
    k4 = m4 - 3 * m2**2 + 3 * di * (per * g) ** 2
    z = (np.array(meta["edges_MeV"])[:, None] / (1 + scale) - g) / np.sqrt(v)
    moved, widened = (x * p + y * q) / np.sqrt(v), ((x * x * pp + y * y * qq) / 2 + x * y * pq) / v
    change = moved + z * widened + counts * (k3 / v**1.5 / 6 * (z * z - 1) + k4 / v**2 / 24 * (z**3 - 3 * z))
    below = counts * (0.5 + 0.5 * np.vectorize(erf)(z / np.sqrt(2)))
    return np.diff((below - np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * change).sum(axis=1))


KINDS: Any = {"harmonic": harmonic, "matrix": matrix, "network": network, "grid": grid, "surrogate": surrogate}


if __name__ == "__main__":
    meta, arrays = load(sys.argv[1])
    difference = evaluate(meta, arrays, meta["test_parameters"]) - arrays["test_counts"]
    worst = abs(difference).max() / arrays["test_counts"].max()
    sys.stdout.write(f"{meta['kind']}: worst difference {worst:.1e} of the largest bin\n")
    sys.exit(0 if worst <= meta["tolerance"] else f"{sys.argv[1]}: expected at most {meta['tolerance']:.0e}")
