"""The likelihood ratio of the Monte Carlo: what no classifier can beat, as far as its factors are exact.

Accidentals factorise: p_a = f(E_p, x_p) f(E_d, x_d) / T with singles f that depend on radius and energy only. For
antineutrino pairs the chain of conditional densities is

    p_s = p(E_p, x_p) · p(ΔR | E_p, x_p) · p(μ | ΔR, x_p) · p(α | ΔR) · p(E_d | x_d, ΔR, μ) · p(Δt),

with the cosine μ between x_d - x_p and the outward direction, and the cosine α between x_d - x_p and the mean direction
of the neutrons, which fly on with the antineutrinos. Capture times are exponential, whatever else happens. Densities
are tables: every pair is shared between the nodes around it by linear weights, densities are per volume, √E and cosine,
and logarithms are interpolated. Where pairs are few, a density is drawn towards that of a wider window, and a
conditional one towards that with a condition less. Nodes are even in √E, as the resolution is constant in it, and in
the inverse hyperbolic sine of the depth below the edge, fine at the edge.

Approximated: light maps are symmetric (they leave some per mille of the energy), μ does not know E_p at given ΔR, E_d
does not know E_p at given place and ΔR, and what the tables smear. Whether that costs anything is measured: the odds
of the classes at a score must be what it says, and trees that are given the score must not improve on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.select.classifier import checked_features
from nuebar.select.features import FEATURES
from nuebar.select.matrices import ACCIDENTALS, IBD, Matrices, Split, split_of

__all__ = ["RatioClassifier", "fit_ratio"]

_ROWS = 2**17
_R3P, _R3D, _DR, _DT, _EP, _ED, _CP, _CD, _PP, _PD = range(len(FEATURES))
_DEPTH_m, _SOFT_m = 0.3, 0.1
_PRIOR = 10.0  # pairs that a coarser estimate counts for
_BELIEVED = 3.0  # pairs at a node that may be chance
_LEVELS, _WIDEST = 6, (32, 8)  # of smoothing, and its widest step in nodes of energy and depth
_FAINT = 1e-3  # pairs spread over a whole table


@dataclass(frozen=True)
class _Axis:
    """Even nodes of a mapped coordinate; what lies outside counts as on the edge."""

    low: float
    high: float
    nodes: int

    def place(self, x: np.ndarray) -> np.ndarray:
        """In units of the spacing, from the first node."""
        return np.clip((x - self.low) * ((self.nodes - 1) / (self.high - self.low)), 0.0, self.nodes - 1.0)


def _axis(low: float, high: float, step: float) -> _Axis:
    return _Axis(low, high, 1 + math.ceil((high - low) / step))


# Mapped: √(E/MeV), asinh(depth/0.3 m), ln(ΔR/m + 0.1), cosines.
_E = _axis(0.8, 3.6, 0.0075)
_DEPTH = _axis(-1.7, 4.9, 0.08)
_AXES: dict[str, tuple[_Axis, ...]] = {
    "prompt": (_E, _DEPTH),
    "single": (_E, _DEPTH),
    "distance": (_axis(-2.3, 3.6, 0.06), _axis(0.8, 3.4, 0.2), _axis(-1.7, 4.9, 0.4)),
    "outward": (_axis(-1.0, 1.0, 0.2), _axis(-1.7, 4.9, 0.2), _axis(-2.3, 1.3, 0.4)),
    "delayed": (_axis(0.8, 2.8, 0.0075), _axis(-1.7, 4.9, 0.2), _axis(-2.3, 1.3, 0.6), _axis(-1.0, 1.0, 0.5)),
    "forward": (_axis(-2.3, 1.3, 0.3),),
}


class _Pairs:
    """Mapped coordinates of pairs.

    Args:
        x: Features, shape ``(n, 10)``.
        radius_m: Of the detector.
    """

    def __init__(self, x: np.ndarray, radius_m: float) -> None:
        x = np.asarray(x, np.float64)
        r, s = np.cbrt(x[:, _R3P]), np.cbrt(x[:, _R3D])
        dr = np.maximum(x[:, _DR], 1e-6)
        self.e_p, self.e_d = np.sqrt(x[:, _EP]), np.sqrt(x[:, _ED])
        self.z_p, self.z_d = (np.arcsinh((radius_m - a) / _DEPTH_m) for a in (r, s))
        self.log_dr, self.dt_us = np.log(dr + _SOFT_m), x[:, _DT]
        # From s² = r² + ΔR² + 2 r ΔR μ, and likewise at the other end.
        gap = (s - r) * (s + r)
        self.mu_p = np.clip((gap - dr**2) / np.maximum(2 * r * dr, 1e-9), -1.0, 1.0)
        self.mu_d = np.clip((gap + dr**2) / np.maximum(2 * s * dr, 1e-9), -1.0, 1.0)
        self._place = (r, x[:, _CP], x[:, _PP], s, x[:, _CD], x[:, _PD])

    def direction(self) -> np.ndarray:
        """Unit vectors from prompt to delayed event, shape ``(n, 3)``; zero where they coincide."""
        r, c, p, s, d, q = self._place
        a, b = r * np.sqrt(np.maximum(1 - c * c, 0.0)), s * np.sqrt(np.maximum(1 - d * d, 0.0))
        v = np.stack([b * np.cos(q) - a * np.cos(p), b * np.sin(q) - a * np.sin(p), s * d - r * c], axis=1)
        return v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-9)

    def of(self, table: str) -> tuple[np.ndarray, ...]:
        """Coordinates of a table."""
        return {
            "prompt": (self.e_p, self.z_p),
            "single": (self.e_d, self.z_d),
            "distance": (self.log_dr, self.e_p, self.z_p),
            "outward": (self.mu_p, self.z_p, self.log_dr),
            "delayed": (self.e_d, self.z_d, self.log_dr, self.mu_d),
            "forward": (self.log_dr,),
        }[table]


@dataclass(frozen=True, eq=False)
class RatioClassifier:
    """ln of the likelihood ratio.

    Attributes:
        tables: Logarithms of densities at the nodes, float32; ``forward`` holds three times the mean direction.
        radius_m: Of the detector.
        tau_us: Capture time.
        window_us: Largest time difference.
        pairs: How many of each class the tables were made of.
    """

    tables: Mapping[str, np.ndarray]
    radius_m: float
    tau_us: float
    window_us: float
    pairs: tuple[int, int]

    @property
    def name(self) -> str:
        """For tables and figures."""
        return "ratio"

    def score(self, features: np.ndarray) -> np.ndarray:
        """Logits of pairs; see :class:`nuebar.select.classifier.Classifier`."""
        x = checked_features(features)
        out = np.empty(len(x))
        for start in range(0, len(x), _ROWS):
            out[start : start + _ROWS] = self._score(_Pairs(x[start : start + _ROWS], self.radius_m))
        return out

    def _score(self, p: _Pairs) -> np.ndarray:
        def value(table: str, coordinates: Sequence[np.ndarray] | None = None) -> np.ndarray:
            return _interpolated(self.tables[table], _AXES[table], coordinates or p.of(table))

        # Both densities of single events are per volume; that of a distance becomes one by its direction's.
        total = value("prompt") - value("single", (p.e_p, p.z_p))
        total += value("distance") + value("outward")
        total += value("delayed") - value("single")
        forward = np.stack(
            [_interpolated(t, _AXES["forward"], p.of("forward")) for t in self.tables["forward"].T], axis=1
        )
        total += np.log1p(np.clip(np.sum(forward * p.direction(), axis=1), -0.9, None))
        norm = self.window_us / (self.tau_us * -np.expm1(-self.window_us / self.tau_us))
        return total + math.log(norm) - p.dt_us / self.tau_us

    def told(self) -> dict[str, Any]:
        """For :func:`nuebar.select.store.save_classifier`."""
        return {
            "radius_m": self.radius_m, "tau_us": self.tau_us, "window_us": self.window_us, "pairs": list(self.pairs)
        }  # fmt: skip

    def arrays(self) -> dict[str, np.ndarray]:
        """The tables."""
        return dict(self.tables)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any], where: str) -> RatioClassifier:
        """From what :meth:`arrays` and :meth:`told` gave."""
        for name, axes in _AXES.items():
            shape = (*(a.nodes for a in axes), *((3,) if name == "forward" else ()))
            if name not in arrays or arrays[name].shape != shape or len(arrays) != len(_AXES):
                raise NuebarError(f"{where}: expected the tables {', '.join(_AXES)} of this version; fit it again")
        radius, tau, window = (float(settings[k]) for k in ("radius_m", "tau_us", "window_us"))
        return cls(dict(arrays), radius, tau, window, (int(settings["pairs"][0]), int(settings["pairs"][1])))


def fit_ratio(
    matrices: Matrices,
    *,
    radius_m: float = 17.7,
    pairs: int | None = None,
    splits: Mapping[str, Split] | None = None,
) -> RatioClassifier:
    """Measure the densities on the training pairs.

    Args:
        matrices: From :func:`~nuebar.select.matrices.prepare`.
        radius_m: Of the detector.
        pairs: Of each class, at most; all training pairs by default.
        splits: As for :func:`~nuebar.select.train.train_network`.

    Returns:
        The classifier.
    """
    arrays = {IBD: matrices.ibd, ACCIDENTALS: matrices.accidentals}
    splits = dict(splits or {name: split_of(name, len(a)) for name, a in arrays.items()})
    rows = {name: a[splits[name].rows("train")][:pairs] for name, a in arrays.items()}
    counts = {name: np.zeros(tuple(a.nodes for a in axes)) for name, axes in _AXES.items()}
    forward, times = np.zeros((3, counts["forward"].size)), np.zeros(2)
    for p in _blocks(rows[IBD], radius_m):
        for name in ("prompt", "distance", "outward", "delayed", "forward"):
            counts[name] += _shared(_AXES[name], p.of(name))
        direction = p.direction()
        forward += [_shared(_AXES["forward"], p.of("forward"), direction[:, k]) for k in range(3)]
        times += p.dt_us.size, p.dt_us.sum()
    for p in _blocks(rows[ACCIDENTALS], radius_m):
        counts["single"] += _shared(_AXES["single"], p.of("single"))
        counts["single"] += _shared(_AXES["single"], (p.e_p, p.z_p))
    shell = _measure(_DEPTH, radius_m - _DEPTH_m * np.sinh(_fine(_DEPTH)))
    ball = _measure(_AXES["distance"][0], np.exp(_fine(_AXES["distance"][0])) - _SOFT_m)
    step = (_E.high - _E.low) / (_E.nodes - 1)
    tables = {
        "prompt": _joint(counts["prompt"], shell * step),
        "single": _joint(counts["single"], shell * step),
        "distance": _conditional(counts["distance"]) / ball[:, None, None],
        "outward": _conditional(counts["outward"]) / _even(_AXES["outward"][0])[:, None, None],
        "delayed": _conditional(counts["delayed"]) / _cells(_AXES["delayed"][0])[:, None, None, None],
    }
    logs = {name: np.log(t).astype(np.float32) for name, t in tables.items()}
    mean = 3.0 * forward / np.maximum(counts["forward"] + 100.0, 1.0)
    logs["forward"] = np.ascontiguousarray(mean.T, np.float32)
    tau = _capture_time(times[1] / times[0], matrices.window_us)
    return RatioClassifier(logs, radius_m, tau, matrices.window_us, (len(rows[IBD]), len(rows[ACCIDENTALS])))


def _blocks(rows: np.ndarray, radius_m: float) -> Iterable[_Pairs]:
    for start in range(0, len(rows), _ROWS):
        yield _Pairs(np.array(rows[start : start + _ROWS]), radius_m)


def _corners(axes: Sequence[_Axis], coordinates: Sequence[np.ndarray]) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Flat indices and linear weights of the nodes around each point."""
    low, part = [], []
    for axis, x in zip(axes, coordinates, strict=True):
        at = axis.place(x)
        i = np.minimum(at.astype(np.int64), axis.nodes - 2)
        low.append(i)
        part.append(at - i)
    for corner in product((0, 1), repeat=len(axes)):
        index, weight = np.zeros(1, np.int64), np.ones(1)
        for axis, i, f, up in zip(axes, low, part, corner, strict=True):
            index = index * axis.nodes + (i + up)
            weight = weight * (f if up else 1.0 - f)
        yield index, weight


def _shared(axes: Sequence[_Axis], coordinates: Sequence[np.ndarray], each: np.ndarray | None = None) -> np.ndarray:
    """Points shared between the nodes around them."""
    shape = tuple(a.nodes for a in axes)
    total = np.zeros(math.prod(shape))
    for index, weight in _corners(axes, coordinates):
        total += np.bincount(index, weight if each is None else weight * each, total.size)
    return total.reshape(shape)


def _interpolated(table: np.ndarray, axes: Sequence[_Axis], coordinates: Sequence[np.ndarray]) -> np.ndarray:
    flat = np.ravel(table)
    return np.sum([weight * flat[index] for index, weight in _corners(axes, coordinates)], axis=0)


def _fine(axis: _Axis) -> np.ndarray:
    """Points far closer than nodes, and as far out as they go."""
    return np.linspace(axis.low, axis.high, 200 * (axis.nodes - 1) + 1)


def _measure(axis: _Axis, radius_m: np.ndarray) -> np.ndarray:
    """Volume that each node of a radius stands for."""
    volume = 4.0 / 3.0 * math.pi * np.maximum(radius_m, 0.0) ** 3
    middle = 0.5 * (_fine(axis)[1:] + _fine(axis)[:-1])
    total = np.zeros(axis.nodes)
    for index, weight in _corners((axis,), (middle,)):
        total += np.bincount(index, weight * np.abs(np.diff(volume)), axis.nodes)
    return np.maximum(total, 1e-12)


def _cells(axis: _Axis) -> np.ndarray:
    """Length that each node stands for."""
    step = np.full(axis.nodes, (axis.high - axis.low) / (axis.nodes - 1))
    step[[0, -1]] *= 0.5
    return step


def _even(axis: _Axis) -> np.ndarray:
    """Share of an even cosine that each node stands for."""
    return _cells(axis) / (axis.high - axis.low)


def _joint(counts: np.ndarray, volume: np.ndarray) -> np.ndarray:
    """Density of energy and place: smoothed the more, the fewer pairs there are.

    From the widest window to single nodes: each is believed as far as it has pairs, else the one before.
    """
    room = np.broadcast_to(volume, counts.shape)
    levels, variance = [(counts, np.array(room), 1.0)], np.zeros(2)
    for level in range(_LEVELS):
        n, v, _ = levels[-1]
        for axis, most in enumerate(_WIDEST):
            stride = min(2**level, most)
            n, v = _smoothed(n, axis, stride), _smoothed(v, axis, stride)
            variance[axis] += 0.5 * stride**2
        # A Gaussian of variance s² counts for as many nodes as an even window of s √(4π).
        levels.append((n, v, 4 * math.pi * math.sqrt(variance.prod())))
    n, v, _ = levels[-1]
    density: np.ndarray = (n + _FAINT / counts.size) / v
    for n, v, area in reversed(levels[:-1]):
        density = _believed(n, v, density, area)
    return density / np.sum(density * room)


def _smoothed(counts: np.ndarray, axis: int, stride: int) -> np.ndarray:
    """Half of each node given to its neighbours at a distance."""
    moved = np.moveaxis(counts, axis, 0)
    padded = np.concatenate([moved[:stride][::-1], moved, moved[-stride:][::-1]])
    out = 0.25 * padded[: -2 * stride] + 0.5 * moved + 0.25 * padded[2 * stride :]
    return np.moveaxis(out, 0, axis)


def _believed(n: np.ndarray, tries: np.ndarray, prior: np.ndarray, area: float = 1.0) -> np.ndarray:
    """Counts per try, drawn towards a prior where few are expected."""
    expected = area * np.maximum(prior * tries, n - _BELIEVED)
    own = expected / (expected + _PRIOR)
    total: np.ndarray = own * n / np.maximum(tries, 1e-300) + (1.0 - own) * prior
    return total


def _conditional(counts: np.ndarray) -> np.ndarray:
    """Probability along the first axis given the others; the last condition is the first that is given up."""
    if counts.ndim == 1:
        found: np.ndarray = (counts + _FAINT / counts.size) / (counts.sum() + _FAINT)
        return found
    prior = _conditional(counts.sum(axis=-1))[..., None]
    found = _believed(counts, np.broadcast_to(counts.sum(axis=0), counts.shape), prior)
    return found / found.sum(axis=0)


def _capture_time(mean_us: float, window_us: float) -> float:
    """τ of an exponential that is cut off at the window, from the mean: the likelihood's maximum."""
    if not 0 < mean_us < 0.49 * window_us:  # half of it for even times
        raise NuebarError(f"time differences: expected captures, got a mean of {mean_us:g} of {window_us:g} us")
    tau = mean_us
    for _ in range(1000):
        tau = mean_us + window_us / np.expm1(min(window_us / tau, 700.0))
    return float(tau)
