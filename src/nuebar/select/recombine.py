"""Accidental pairs by recombination: n singles make n (n − 1) pairs, so that backgrounds of 1e-8 can be counted.

The two events of an accidental pair are independent, and the time between them is even over the window. So every
ordered pair of different singles of one sample is an accidental pair. Most are far apart and rejected by anything;
the background of a classifier is in the pairs that are close and whose delayed energy is that of a capture. Pairs are
therefore drawn from strata: bands of the delayed energy times shells of ΔR. The number of pairs N of a stratum is
counted exactly with trees (J. Bentley, Commun. ACM 18 (1975) 509), m of them are drawn, each with the same chance, and
each counts N/m. All weights together are 1, so a sum of weights is a share of all accidental pairs in the window.

Unbiased for the singles at hand, whatever the strata. Over samples of singles, pairs that share a single are
correlated; ``clusters`` goes to :class:`~nuebar.select.scores.ScoreSample`, which counts that. The singles must be
unrelated to each other: taken from a stream, the correlated pairs in it would be counted as chance.

Counting takes most of the time, 6 s of one core for 200 thousand singles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from nuebar.errors import NuebarError
from nuebar.select.config import PairSettings
from nuebar.select.features import features_of
from nuebar.simulate.random import derive_key

__all__ = ["BANDS_MeV", "Recombined", "SHELLS_m", "Stratum", "recombine", "singles_of_pairs"]

BANDS_MeV = (1.7, 2.7, 4.2, 5.7)
"""Default limits of the bands of delayed energy: captures on hydrogen and carbon with margin (nominal)."""

SHELLS_m = (0.5, 1.0, 1.5, 2.5, 5.0)
"""Default limits of the shells of ΔR (nominal)."""

_EVENT = ("e_rec_MeV", "x_m", "y_m", "z_m")
_TRIED = 2**16  # pairs at a time: 60 MB
_MOST_TRIED = 2e9  # for one stratum: minutes
_CUBES = 256  # along the longest side, at most


@dataclass(frozen=True)
class Stratum:
    """A cell of delayed energy and distance.

    Attributes:
        delayed_MeV: Band of the delayed energy, low end included.
        dr_m: Shell of the distance: above the lower, up to the upper end. The first one holds 0.
        pairs: N, ordered pairs of different singles in it.
        drawn: m, how many were drawn, with replacement.
    """

    delayed_MeV: tuple[float, float]
    dr_m: tuple[float, float]
    pairs: int
    drawn: int


@dataclass(frozen=True, eq=False)
class Recombined:
    """Weighted accidental pairs.

    Attributes:
        pairs: Columns of pairs, for :func:`~nuebar.select.features.features_of`.
        weights: Share of all accidental pairs that each stands for, shape ``(m,)``; their sum is 1.
        prompt: Number of the prompt single.
        delayed: Number of the delayed single.
        strata: What was drawn, in the order of the rows.
        singles: n.
    """

    pairs: Mapping[str, np.ndarray]
    weights: np.ndarray
    prompt: np.ndarray
    delayed: np.ndarray
    strata: tuple[Stratum, ...]
    singles: int

    @property
    def clusters(self) -> tuple[np.ndarray, np.ndarray]:
        """Which pairs share a single, for the errors."""
        return self.prompt, self.delayed

    def features(self) -> np.ndarray:
        """The feature matrix, shape ``(m, 10)``."""
        return features_of(self.pairs)

    def record(self) -> dict[str, Any]:
        """Strata for a report."""
        # JSON has no infinity: the last band and shell have no upper end.
        ends = [[None if np.isinf(v) else v for v in (*s.delayed_MeV, *s.dr_m)] for s in self.strata]
        return {
            "singles": self.singles,
            "strata": [
                {"delayed_MeV": e[:2], "dr_m": e[2:], "pairs": s.pairs, "drawn": s.drawn}
                for e, s in zip(ends, self.strata, strict=True)
            ],
        }


def singles_of_pairs(pairs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Both events of accidental pairs as singles: the pairs of a file become singles again, to be recombined.

    Args:
        pairs: Columns of accidental pairs whose events are unrelated.

    Returns:
        ``e_rec_MeV``, ``x_m``, ``y_m``, ``z_m`` of shape ``(2 n,)``: prompt events, then delayed ones.

    Raises:
        NuebarError: A column is missing.
    """
    missing = [f"{part}_{name}" for part in ("prompt", "delayed") for name in _EVENT if f"{part}_{name}" not in pairs]
    if missing:
        raise NuebarError(f"pairs: missing column {missing[0]!r}; name it in a column map")
    return {name: np.concatenate([pairs[f"{part}_{name}"] for part in ("prompt", "delayed")]) for name in _EVENT}


def recombine(
    singles: Mapping[str, np.ndarray],
    settings: PairSettings,
    *,
    per_stratum: int = 20_000,
    bands_MeV: Sequence[float] = BANDS_MeV,
    shells_m: Sequence[float] = SHELLS_m,
    seed: int = 1,
) -> Recombined:
    """Draw weighted accidental pairs from a sample of singles.

    Args:
        singles: Columns ``e_rec_MeV``, ``x_m``, ``y_m``, ``z_m``; events below the threshold are left out.
        settings: Window and threshold.
        per_stratum: Pairs drawn in each stratum that is not empty.
        bands_MeV: Limits of the bands of delayed energy, increasing; below the first and above the last there are
            bands, too.
        shells_m: Limits of the shells of ΔR; beyond the last there is a shell, too.
        seed: Same seed, same pairs.

    Returns:
        The pairs, stratum after stratum.

    Raises:
        NuebarError: A column is missing or not finite, fewer than two singles are above the threshold, or limits are
            not increasing.
    """
    if per_stratum < 1:
        raise NuebarError(f"per_stratum: expected a whole number above 0, got {per_stratum}")
    bands, shells = _limits(bands_MeV, "bands_MeV"), _limits(shells_m, "shells_m")
    events = _checked_singles(singles, settings.threshold_MeV)
    place = np.stack([events[f"{axis}_m"] for axis in "xyz"], axis=1)
    band_of = np.searchsorted(bands, events["e_rec_MeV"], side="right")
    tree = cKDTree(place)
    strata, parts = [], []
    for band in range(len(bands) + 1):
        members = np.flatnonzero(band_of == band)
        if not members.size:
            continue
        here = _Band(place, tree, members, shells)
        for shell, number in enumerate(here.pairs):
            if number:
                rng = np.random.Generator(np.random.Philox(int(derive_key(seed, "recombine", band, shell))))
                parts.append((*here.draw(shell, per_stratum, rng), rng.random(per_stratum)))
                drawn = (_span(bands, band), _span(shells, shell, first=0.0))
                strata.append(Stratum(*drawn, int(number), per_stratum))
    prompt, delayed, time = (np.concatenate(column) for column in zip(*parts, strict=True))
    n = len(place)
    weights = np.repeat([s.pairs / s.drawn / (n * (n - 1)) for s in strata], per_stratum)
    pairs = {f"prompt_{name}": events[name][prompt] for name in _EVENT}
    pairs |= {f"delayed_{name}": events[name][delayed] for name in _EVENT}
    pairs["dt_ns"] = 1e6 * settings.window_ms * time
    return Recombined(pairs, weights, prompt, delayed, tuple(strata), n)


class _Band:
    """Pairs of any single with the delayed ones of a band, by shells of distance."""

    def __init__(self, place: np.ndarray, tree: cKDTree, members: np.ndarray, shells: np.ndarray) -> None:
        """Count the pairs.

        Args:
            place: Of all singles, shape ``(n, 3)``.
            tree: Of these places.
            members: Numbers of the delayed singles.
            shells: Upper ends of the shells but the last.
        """
        self.place, self.members = place, members
        self.edges = np.concatenate([[-1.0], shells, [np.inf]])
        everything = members.size * (len(place) - 1)  # a single makes no pair with itself
        within = cKDTree(place[members]).count_neighbors(tree, shells) - members.size if shells.size else []
        self.pairs = np.diff([0, *within, everything]).tolist()

    def draw(self, shell: int, number: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of a shell, each with the same chance, with replacement: numbers of prompt and delayed singles.

        Any pairs are tried, or those of neighbouring cells of a grid, which hold all pairs up to the shell's end;
        of these the ones in the shell are kept.
        """
        low, high = self.edges[shell : shell + 2]
        grid = _Grid(self.place, self.members, high) if np.isfinite(high) else None
        candidates = grid.pairs if grid else self.members.size * len(self.place)
        good = self.pairs[shell] / candidates
        if number > good * _MOST_TRIED:
            raise NuebarError(f"shells_m: hardly any pair is between {low:g} and {high:g} m; take wider shells")
        found: list[np.ndarray] = []
        have = 0
        while have < number:
            size = min(int(1.1 * (number - have) / good) + 100, _TRIED)
            if grid is None:
                prompt, which = (rng.integers(len(a), size=size) for a in (self.place, self.members))
            else:
                prompt, which = grid.draw(size, rng)
            delayed = self.members[which]
            distance = np.sqrt(((self.place[prompt] - self.place[delayed]) ** 2).sum(axis=1))
            inside = (prompt != delayed) & (distance > low) & (distance <= high)
            found.append(np.stack([prompt[inside], delayed[inside]]))
            have += found[-1].shape[1]
        prompt, delayed = np.concatenate(found, axis=1)[:, :number]
        return prompt, delayed


class _Grid:
    """Cubes in space; pairs of singles in the same or in neighbouring ones can be drawn evenly."""

    def __init__(self, place: np.ndarray, members: np.ndarray, side_m: float) -> None:
        """Sort singles into cubes.

        Args:
            place: Of all singles.
            members: Numbers of the delayed ones.
            side_m: Least length of a cube.
        """
        first, span = place.min(axis=0), float(np.ptp(place, axis=0).max())
        side = max(side_m, span / _CUBES) * (1 + 1e-9)  # no rounding puts a neighbour two cubes away
        cube = np.floor((place - first) / side).astype(np.int64) + 1  # with an empty layer around
        shape = tuple((cube.max(axis=0) + 2).tolist())
        code = np.ravel_multi_index(tuple(cube.T), shape)
        self.order = np.argsort(code, kind="stable")
        self.counts = np.bincount(code, minlength=int(np.prod(shape)))
        self.starts = np.cumsum(self.counts) - self.counts
        steps = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        self.steps = steps @ [shape[1] * shape[2], shape[2], 1]
        self.code = code[members]
        around = sum(self.counts[self.code + step] for step in self.steps)
        self.around = np.cumsum(around)
        self.pairs = int(self.around[-1])

    def draw(self, number: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of neighbouring cubes, each with the same chance: a single, and which of the members."""
        turn = rng.integers(self.pairs, size=number)
        which = np.searchsorted(self.around, turn, side="right")
        turn -= np.where(which > 0, self.around[which - 1], 0)
        cubes = self.code[which][:, None] + self.steps
        ends = np.cumsum(self.counts[cubes], axis=1)
        step = (turn[:, None] >= ends).sum(axis=1)
        rows = np.arange(number)
        inner = turn - ends[rows, step] + self.counts[cubes[rows, step]]
        return self.order[self.starts[cubes[rows, step]] + inner], which


def _limits(values: Sequence[float], name: str) -> np.ndarray:
    limits = np.asarray(values, float).reshape(-1)
    if not np.all(np.isfinite(limits) & (limits > 0)) or np.any(np.diff(limits) <= 0):
        raise NuebarError(f"{name}: expected numbers above 0 that increase, got {list(values)}")
    return limits


def _span(limits: np.ndarray, number: int, first: float = -np.inf) -> tuple[float, float]:
    ends = [first, *limits.tolist(), np.inf]
    return ends[number], ends[number + 1]


def _checked_singles(singles: Mapping[str, np.ndarray], threshold_MeV: float) -> dict[str, np.ndarray]:
    events = {}
    for name in _EVENT:
        if name not in singles:
            raise NuebarError(f"singles: missing column {name!r}; expected {', '.join(_EVENT)}")
        events[name] = np.asarray(singles[name], float)
        if events[name].shape != np.shape(singles[_EVENT[0]]) or events[name].ndim != 1:
            raise NuebarError(f"singles, column {name!r}: expected one number an event, got shape {events[name].shape}")
        bad = np.flatnonzero(~np.isfinite(events[name]))
        if bad.size:
            raise NuebarError(f"singles, column {name!r}, row {bad[0]}: expected a finite number; leave the event out")
    above = events["e_rec_MeV"] > threshold_MeV
    if np.count_nonzero(above) < 2:
        raise NuebarError(
            f"singles: expected at least two above {threshold_MeV:g} MeV, got {np.count_nonzero(above)} of {above.size}"
        )
    return {name: column[above] for name, column in events.items()}
