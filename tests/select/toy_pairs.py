"""Small pairs with the structure of the real ones: files that many tests read."""

import numpy as np

from nuebar.io.events import EventWriter
from nuebar.select.features import PAIR_COLUMNS

RADIUS_m = 17.7


def _sphere(rng, n, edge=None):
    v = rng.normal(size=(n, 3))
    v /= np.linalg.norm(v, axis=1)[:, None]
    r = RADIUS_m * np.cbrt(rng.random(n))
    if edge is not None:
        outside = rng.random(n) < edge
        r[outside] = np.maximum(RADIUS_m - rng.exponential(0.4, outside.sum()), 0.1)
    return v * r[:, None]


def _pairs(prompt, delayed, e_p, e_d, dt_ns):
    columns = {"prompt_e_rec_MeV": e_p, "delayed_e_rec_MeV": e_d, "dt_ns": dt_ns}
    for name, place in (("prompt", prompt), ("delayed", delayed)):
        columns |= {f"{name}_{axis}_m": place[:, k] for k, axis in enumerate("xyz")}
    return {name: columns[name].astype(np.float32) for name in PAIR_COLUMNS}


def singles_energy(rng, n):
    return 0.7 + rng.exponential(0.6, n)


def ibd(rng, n, tau_us=220.0):
    place = _sphere(rng, n)
    e_p, e_d = 0.7 + rng.gamma(3.0, 1.0, n), rng.normal(2.22, 0.08, n)
    blur = 0.25 * rng.normal(size=(n, 3))
    t = rng.exponential(tau_us, 3 * n)
    return _pairs(place, place + blur, e_p, e_d, 1e3 * t[t < 2000][:n])


def accidentals(rng, n):
    places = _sphere(rng, n, 0.8), _sphere(rng, n, 0.8)
    return _pairs(*places, singles_energy(rng, n), singles_energy(rng, n), 2e6 * rng.random(n))


def write(path, columns, extra=None):
    columns = dict(columns) | dict(extra or {})
    path.parent.mkdir(parents=True, exist_ok=True)
    with EventWriter(path, tuple(columns)) as writer:
        writer.append(columns)
    return path


def files(folder, n=3000, seed=1, parts=2):
    """Folders of both classes."""
    rng = np.random.default_rng(seed)
    for k in range(parts):
        write(folder / "ibd" / f"chunk-{k:05d}.parquet", ibd(rng, n // parts))
        write(folder / "accidentals" / f"chunk-{k:05d}.parquet", accidentals(rng, n // parts))
    return folder / "ibd", folder / "accidentals"
