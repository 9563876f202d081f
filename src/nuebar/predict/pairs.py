"""Monte Carlo pairs of neutrino and reconstructed energy, binned once: what the predictors from pairs stand on.

Eleven bytes a pair are kept: the neutrino energy, the core it came from and the bin it was reconstructed in. Pairs
are un-oscillated; whoever uses them weights each with its survival probability.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from nuebar.errors import NuebarError
from nuebar.io.column_map import ColumnMap
from nuebar.io.columns import Column, known_column
from nuebar.io.event_paths import Paths
from nuebar.io.events import EventFile
from nuebar.io.tables import fail

__all__ = ["PairStream", "Pairs", "Progress", "read_pairs"]

Progress = Callable[[str, int, int], None]

THRESHOLD_MeV = 1.806  # of inverse beta decay, rounded down (physics.ibd)
HIGHEST_MeV = 100.0  # far above any reactor antineutrino; thousands are keV
TYPICAL_NU_MeV, TYPICAL_REC_MeV = (THRESHOLD_MeV, 12.0), (0.3, 12.0)  # medians of reactor pairs
SAME_km, SAME_CORE_km = 1e-6, 1e-3  # one baseline; the same core of an experiment
MOST_CORES, MOST_BINS = 256, 2**15 - 1
SLICE = 2**20

_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "e_nu": ("true_e_nu_MeV", "e_nu_MeV"),
    "e_rec": ("prompt_e_rec_MeV", "e_rec_MeV"),
    "baseline": ("true_baseline_km", "baseline_km"),
    "core": ("true_core", "core"),
    "x": ("prompt_x_m", "x_m"),
    "y": ("prompt_y_m", "y_m"),
    "z": ("prompt_z_m", "z_m"),
}
NEAR = 0.1  # of the fiducial radius


@dataclass(frozen=True, eq=False)
class Pairs:
    """Un-oscillated Monte Carlo pairs inside the bins of reconstructed energy.

    Attributes:
        e_nu_MeV: True neutrino energy, float64, shape ``(n,)``.
        core: Index into ``baseline_km``, uint8, shape ``(n,)``; 0 everywhere with ``core_share``.
        bin: Index of the bin, int16, shape ``(n,)``.
        edges_MeV: Edges of the bins of reconstructed energy, shape ``(bins + 1,)``; a bin holds its lower edge.
        baseline_km: Baselines of the cores, float64, shape ``(cores,)``.
        core_names: Their names.
        core_share: None if every pair has its core; else the fraction of the pairs that each core stands for,
            shape ``(cores,)``, with sum 1: every pair then belongs to all cores.
        scale: Expected un-oscillated counts per pair.
        total: Pairs read, those outside of the bins and of the fiducial volume included.
        inside: Those inside the fiducial volume, whatever their bin; ``total`` without one.
        provenance: ``files``, ``columns`` and ``hash`` (of energies, cores, bins, edges and baselines).
    """

    e_nu_MeV: np.ndarray
    core: np.ndarray
    bin: np.ndarray
    edges_MeV: np.ndarray
    baseline_km: np.ndarray
    core_names: tuple[str, ...]
    core_share: np.ndarray | None = None
    scale: float = 1.0
    total: int = 0
    inside: int = 0
    provenance: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what a compiled loop would read beyond its arrays with."""
        kinds = {"e_nu_MeV": np.float64, "core": np.uint8, "bin": np.int16, "baseline_km": np.float64}
        for name, kind in kinds.items():
            array = getattr(self, name)
            if array.dtype != kind or array.ndim != 1:
                raise NuebarError(f"pairs: expected {name} as {np.dtype(kind)} in one dimension, got {array.dtype}")
        if not self.e_nu_MeV.size == self.core.size == self.bin.size:
            raise NuebarError("pairs: expected as many energies as cores and bins, got different numbers")
        if len(self.core_names) != self.baseline_km.size or not 0 < self.baseline_km.size <= MOST_CORES:
            raise NuebarError(f"pairs: expected 1 to {MOST_CORES} baselines, each with a name, got others")
        bins = self.edges_MeV.size - 1
        if self.bin.size and not (0 <= self.bin.min() <= self.bin.max() < bins):
            raise NuebarError(f"pairs: expected bins from 0 to {bins - 1}, got {self.bin.min()} to {self.bin.max()}")
        if self.core.size and self.core.max() >= self.baseline_km.size:
            raise NuebarError(f"pairs: expected cores below {self.baseline_km.size}, got {self.core.max()}")
        if not 0 < self.scale < np.inf:
            raise NuebarError(f"pairs: expected a scale above 0 counts per pair, got {self.scale}")

    @property
    def bins(self) -> int:
        """Number of bins."""
        return self.edges_MeV.size - 1

    def __len__(self) -> int:
        return self.e_nu_MeV.size

    def counts(self) -> np.ndarray:
        """Expected un-oscillated counts, shape ``(bins,)``."""
        return self.scale * _filled(self.bin, self.bins)

    def errors(self) -> np.ndarray:
        """Monte Carlo standard errors of :meth:`counts`: the root of the number of pairs, scaled."""
        return self.scale * np.sqrt(_filled(self.bin, self.bins))


def read_pairs(
    paths: Paths,
    edges_MeV: ArrayLike,
    *,
    column_map: ColumnMap | str | os.PathLike[str] | None = None,
    baseline_km: ArrayLike | None = None,
    core_names: Sequence[str] | None = None,
    core_share: ArrayLike | None = None,
    fiducial_radius_m: float | None = None,
    progress: Progress | None = None,
    least_per_bin: int = 1,
) -> Pairs:
    """Read pairs from our own files of IBD pairs, or from those of another Monte Carlo.

    Columns: ``true_e_nu_MeV`` and ``prompt_e_rec_MeV``, or ``e_nu_MeV`` and ``e_rec_MeV``; optional
    ``true_baseline_km`` (``baseline_km``) and ``true_core`` (``core``). Anything else needs a column map.

    The cores are the distinct core numbers, or without such a column the distinct baselines; the column of
    baselines is believed before ``baseline_km``, which then only gives the names and the order. Without a column
    of baselines a core number counts the entries of ``baseline_km`` from 0; without core numbers either every
    pair belongs to every core with its ``core_share``.

    Args:
        paths: As for :class:`~nuebar.io.events.EventFile`.
        edges_MeV: Edges of the bins of reconstructed energy, rising; each bin holds its lower edge.
        column_map: Where the columns are in the files, or the TOML file that says it.
        baseline_km: Baselines of an experiment's cores; those in the files must agree to 1 m.
        core_names: Names of the cores, in the order of ``baseline_km`` (or of the cores found).
        core_share: Fraction of the un-oscillated events of each core; used only where the files do not tell.
        fiducial_radius_m: Keep pairs whose prompt vertex (``prompt_x_m`` or ``x_m`` …) is within this radius.
        progress: Called as ``progress(what, done, total)`` with rows.
        least_per_bin: Fewest pairs that a bin may hold; 0 allows empty bins.

    Returns:
        The pairs inside the bins, in the order of the files.

    Raises:
        NuebarError: A value, column, unit or core is wrong, or a bin holds too few pairs.
    """
    stream = PairStream(
        paths,
        edges_MeV,
        column_map=column_map,
        baseline_km=baseline_km,
        core_names=core_names,
        core_share=core_share,
        fiducial_radius_m=fiducial_radius_m,
    )
    try:
        whole = [np.empty(stream.n_rows, dtype) for dtype in (np.float64, np.uint8, np.int16)]
    except MemoryError as error:
        message = f"expected pairs that fit into memory, got {stream.n_rows} rows of 11 bytes; stream them instead"
        raise NuebarError(f"{stream.path}: {message}") from error
    n = 0
    for batch in stream.batches(progress):
        for array, values in zip(whole, batch, strict=True):
            array[n : n + values.size] = values
        n += batch[0].size
    for array in whole:
        array.resize(n, refcheck=False)  # in place: a copy would double the memory
    e_nu, core, bins = whole
    stream.check_filled(_filled(bins, stream.bins), least_per_bin)
    cores = stream.cores()
    for start in range(0, n, SLICE):
        core[start : start + SLICE] = cores.order[core[start : start + SLICE]]
    for array in whole:
        array.setflags(write=False)
    content = (e_nu, core, bins, stream.edges_MeV, cores.baseline_km)
    return Pairs(
        e_nu_MeV=e_nu,
        core=core,
        bin=bins,
        edges_MeV=stream.edges_MeV,
        baseline_km=cores.baseline_km,
        core_names=cores.names,
        core_share=cores.share,
        total=stream.total,
        inside=stream.inside,
        provenance={**stream.provenance, "hash": _hash(*content, *([] if cores.share is None else [cores.share]))},
    )


def _filled(bins: np.ndarray, size: int) -> np.ndarray:
    """Pairs in each bin; piece by piece, since counting makes long integers of them."""
    filled = np.zeros(size, np.int64)
    for start in range(0, bins.size, SLICE):
        filled += np.bincount(bins[start : start + SLICE], minlength=size)
    return filled


@dataclass(frozen=True, eq=False)
class Cores:
    """The cores of a stream that was read to its end.

    Attributes:
        baseline_km: Their baselines, shape ``(cores,)``.
        names: Their names.
        share: See :class:`Pairs`.
        order: Where each core of the stream, counted as they came, is among these; uint8.
    """

    baseline_km: np.ndarray
    names: tuple[str, ...]
    share: np.ndarray | None
    order: np.ndarray


class PairStream:
    """Pairs from files, batch by batch, for samples larger than memory.

    Attributes:
        edges_MeV: Edges of the bins.
        n_rows: Rows of all files.
        total: Rows read so far.
        inside: Those of them inside the fiducial volume.
        provenance: ``files`` and ``columns``.
    """

    def __init__(
        self,
        paths: Paths,
        edges_MeV: ArrayLike,
        *,
        column_map: ColumnMap | str | os.PathLike[str] | None = None,
        baseline_km: ArrayLike | None = None,
        core_names: Sequence[str] | None = None,
        core_share: ArrayLike | None = None,
        fiducial_radius_m: float | None = None,
    ) -> None:
        """Look at the files; the arguments are those of :func:`read_pairs`."""
        self.edges_MeV = _edges(edges_MeV)
        if fiducial_radius_m is not None and not 0 < fiducial_radius_m < np.inf:
            raise NuebarError(f"fiducial_radius_m: expected a radius above 0 m, got {fiducial_radius_m}")
        self._radius_m = fiducial_radius_m
        self._events, self._columns = _open(paths, column_map, vertex=fiducial_radius_m is not None)
        self._given = _Given.of(baseline_km, core_names, core_share)
        self._table = _CoreTable(self.path, "core" if "core" in self._columns else "baseline", self._given)
        if not {"core", "baseline"} & set(self._columns) and self._given.share is None:
            fail(
                self.path,
                None,
                None,
                "expected a column 'true_baseline_km' (or 'baseline_km', or one named in a column map), or the "
                "baselines of an experiment with the share of each core, got neither; add one of them",
            )
        if "baseline" not in self._columns and self._given.baseline_km is None:
            fail(
                self.path,
                self._columns["core"],
                None,
                "expected baselines to go with the numbers of the cores, got none; add a column 'true_baseline_km' "
                "or give the experiment's baselines",
            )
        self.n_rows, self.total, self.inside = self._events.n_rows, 0, 0
        if not self.n_rows:
            fail(self.path, None, None, "expected pairs, got an empty table; check the path")
        names = [path.name for path in self._events.paths]
        files = ", ".join(names) if len(names) < 4 else f"{names[0]} … {names[-1]} ({len(names)} files)"
        self.provenance = {"files": files, "columns": ", ".join(self._columns.values())}

    @property
    def path(self) -> Path:
        """The first file, for messages."""
        return self._events.paths[0]

    @property
    def bins(self) -> int:
        """Number of bins."""
        return self.edges_MeV.size - 1

    @property
    def baseline_km(self) -> np.ndarray:
        """Baselines of the cores that came so far, counted as they came."""
        return self._table.baseline_km

    @property
    def core_share(self) -> np.ndarray | None:
        """Shares of the cores, if every pair belongs to all of them."""
        return None if {"core", "baseline"} & set(self._columns) else self._given.share

    def batches(self, progress: Progress | None = None) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Energies, cores (counted as they come) and bins of the pairs inside the bins, in the order of the files."""
        for batch in self._events.batches():
            column = {kind: batch[name] for kind, name in self._columns.items()}
            if not self.total:
                self._check_units(column)
            bins = np.searchsorted(self.edges_MeV, column["e_rec"], side="right") - 1
            keep = (bins >= 0) & (bins < self.bins)
            if self._radius_m is not None:
                if not self.total:
                    self._check_vertex(column)
                within = column["x"] ** 2 + column["y"] ** 2 + column["z"] ** 2 <= self._radius_m**2
                self.inside += int(within.sum())
                keep &= within
            else:
                self.inside += bins.size
            core = self._table.index(column, self.total)
            self.total += bins.size
            yield column["e_nu"][keep].astype(np.float64, copy=False), core[keep], bins[keep].astype(np.int16)
            if progress is not None:
                progress("pairs", self.total, self.n_rows)

    def _check_vertex(self, column: Mapping[str, np.ndarray]) -> None:
        """Refuse vertices that all lie near the centre: a wrong unit, which would switch the cut off."""
        assert self._radius_m is not None
        radius = np.sqrt(column["x"] ** 2 + column["y"] ** 2 + column["z"] ** 2)
        if radius.size >= 100 and np.quantile(radius, 0.99) < NEAR * self._radius_m:
            fail(
                self.path,
                self._columns["x"],
                None,
                f"expected vertices all over the detector, got 99 % within {np.quantile(radius, 0.99):.3g} m of "
                f"its centre (cut: {self._radius_m:g} m); check the unit that the column map states, or use no cut",
            )

    def cores(self) -> Cores:
        """The cores, after the last batch."""
        return self._table.cores()

    def check_filled(self, filled: np.ndarray, least: int) -> None:
        """Refuse bins with fewer than ``least`` pairs, or fewer pairs than bins.

        Args:
            filled: Pairs in each bin, shape ``(bins,)``.
            least: Fewest that a bin may hold.
        """
        inside = int(filled.sum())
        if inside < max(self.bins, 1):
            low, high = self.edges_MeV[[0, -1]]
            fail(
                self.path,
                self._columns["e_rec"],
                None,
                f"expected at least {self.bins} pairs, one for each bin from {low:g} to {high:g} MeV, got {inside} of "
                f"{self.total}; simulate more events or check edges and columns",
            )
        poor = np.flatnonzero(filled < least)
        if poor.size:
            k = int(poor[0])
            more = f" and {poor.size - 1} more" if poor.size > 1 else ""
            fail(
                self.path,
                self._columns["e_rec"],
                None,
                f"expected at least {least} pairs in every bin, got {filled[k]} in the bin from {self.edges_MeV[k]:g} "
                f"to {self.edges_MeV[k + 1]:g} MeV{more}; take wider bins, a narrower range or more events",
            )

    def _check_units(self, column: Mapping[str, np.ndarray]) -> None:
        """Medians of the first batch, also where a file of our own form came from somebody else's hands."""
        for kind, (low, high) in (("e_nu", TYPICAL_NU_MeV), ("e_rec", TYPICAL_REC_MeV)):
            middle = float(np.median(column[kind]))
            if not low <= middle <= high:
                guess = next(
                    (u for u, s in (("keV", 1e-3), ("GeV", 1e3), ("eV", 1e-6)) if low <= s * middle <= high), ""
                )
                hint = f"it looks like {guess}" if guess else "check the column"
                name = self._columns[kind]
                fail(self.path, name, None, f"expected a median of {low:g} to {high:g} MeV, got {middle:.4g}; {hint}")


def _edges(edges_MeV: ArrayLike) -> np.ndarray:
    edges = np.array(edges_MeV, dtype=np.float64)
    if edges.ndim != 1 or not 2 <= edges.size <= MOST_BINS + 1:
        raise NuebarError(f"edges_MeV: expected 2 to {MOST_BINS + 1} edges in one dimension, got shape {edges.shape}")
    bad = ~np.isfinite(edges)
    bad[1:] |= ~(np.diff(edges) > 0)
    if bad.any():
        k = int(bad.argmax())
        raise NuebarError(f"edges_MeV: expected finite edges that rise, got {edges[k]:g} at index {k}; correct it")
    edges.setflags(write=False)
    return edges


def _column(kind: str, name: str) -> Column:
    """What a column of pairs may hold; its unit is judged by where the pairs of a reactor lie."""
    column = known_column(name)
    changes: Mapping[str, Mapping[str, object]] = {
        "e_nu": {"low": THRESHOLD_MeV, "high": HIGHEST_MeV, "typical": TYPICAL_NU_MeV},
        "e_rec": {"high": HIGHEST_MeV, "typical": TYPICAL_REC_MeV},
        "baseline": {"low": 1e-3},
    }
    return dataclasses.replace(column, **changes.get(kind, {}))  # type: ignore[arg-type]


def _open(
    paths: Paths, column_map: ColumnMap | str | os.PathLike[str] | None, *, vertex: bool
) -> tuple[EventFile, dict[str, str]]:
    """The files with the columns that are needed, and kind of column → our name of it."""
    if not isinstance(column_map, ColumnMap | None):
        column_map = ColumnMap.load(column_map)
    column_map = column_map or ColumnMap()
    kinds = [kind for kind in _SPELLINGS if vertex or kind not in "xyz"]
    names = {name: kind for kind in kinds for name in _SPELLINGS[kind]}
    # What a map names must be there; of the other spellings whichever is.
    mapped = [_column(kind, name) for name, kind in names.items() if name in column_map.columns]
    others = [_column(kind, name) for name, kind in names.items() if name not in column_map.columns]
    there = EventFile(paths, mapped, optional=others, column_map=column_map)
    chosen: dict[str, str] = {}
    for kind in kinds:
        found = [name for name in _SPELLINGS[kind] if name in there.names]
        found.sort(key=lambda name: name not in column_map.columns)
        if found:
            chosen[kind] = found[0]
        elif kind not in ("baseline", "core"):
            name, plain = _SPELLINGS[kind]
            what = {"e_nu": "the true neutrino energy", "e_rec": "the reconstructed energy"}.get(kind, "a vertex")
            fail(
                there.paths[0],
                name,
                None,
                f"expected {what} in this column or in {plain!r}, got neither; name it in a column map, {plain} = "
                '"..."',
            )
    columns = [_column(kind, name) for kind, name in chosen.items()]
    return EventFile(paths, columns, column_map=column_map), chosen


@dataclass(frozen=True, eq=False)
class _Given:
    """What is known of the cores beside the files."""

    baseline_km: np.ndarray | None
    names: tuple[str, ...] | None
    share: np.ndarray | None

    @classmethod
    def of(cls, baseline_km: ArrayLike | None, names: Sequence[str] | None, share: ArrayLike | None) -> _Given:
        """Check that the three go together; shares are normalised."""
        baselines = None if baseline_km is None else np.atleast_1d(np.array(baseline_km, dtype=np.float64))
        shares = None if share is None else np.atleast_1d(np.array(share, dtype=np.float64))
        if baselines is not None and not 0 < baselines.size <= MOST_CORES:
            raise NuebarError(f"baseline_km: expected 1 to {MOST_CORES} baselines, got {baselines.size}")
        if baselines is not None and not (baselines.ndim == 1 and np.all((baselines > 0) & np.isfinite(baselines))):
            raise NuebarError(f"baseline_km: expected finite baselines above 0 km, got {baselines.min():g}")
        if shares is not None:
            if baselines is None or shares.shape != baselines.shape:
                got = "none" if baselines is None else f"{baselines.size} baselines"
                raise NuebarError(f"core_share: expected one baseline for each of {shares.size} shares, got {got}")
            if not (np.all((shares >= 0) & np.isfinite(shares)) and shares.sum() > 0):
                raise NuebarError(f"core_share: expected finite shares of at least 0, not all 0, got {shares.min():g}")
            shares /= shares.sum()
        if names is not None and baselines is not None and len(names) != baselines.size:
            raise NuebarError(f"core_names: expected {baselines.size} names, one a baseline, got {len(names)}")
        return cls(baselines, None if names is None else tuple(names), shares)


class _CoreTable:
    """The cores of a stream in the order in which they come, recognised by their number or by their baseline."""

    def __init__(self, path: Path, kind: str, given: _Given) -> None:
        self._path, self._kind, self._given = path, kind, given
        self._keys = np.empty(0)  # rising
        self._index = np.empty(0, np.uint8)  # of each key, in the order in which they came
        self._baseline_km: list[float] = []  # in that order too

    def index(self, column: Mapping[str, np.ndarray], start: int) -> np.ndarray:
        """The core of every row, uint8; rows are counted from ``start`` for messages."""
        if "core" not in column and "baseline" not in column:
            return np.zeros(len(column["e_nu"]), np.uint8)
        key = column[self._kind]
        while True:
            near = self._nearest(key)
            far = np.abs(self._keys[near] - key) > SAME_km if self._keys.size else np.ones(key.size, bool)
            if not far.any():
                break
            self._add(key[far][:4096], column, start)
        core = self._index[near]
        if self._kind == "core" and "baseline" in column:
            bad = np.abs(np.array(self._baseline_km)[core] - column["baseline"]) > SAME_km
            if bad.any():
                row = int(bad.argmax())
                fail(
                    self._path,
                    None,
                    None,
                    f"expected one baseline for each core, got {self._baseline_km[core[row]]:.9g} and "
                    f"{column['baseline'][row]:.9g} km for core {key[row]} (row {start + row} of the stream); correct "
                    "the numbers of the cores or leave them out",
                )
        return core

    @property
    def baseline_km(self) -> np.ndarray:
        """Of the cores that came so far; of all where the files do not tell."""
        if self._keys.size or self._given.baseline_km is None:
            return np.array(self._baseline_km)
        return self._given.baseline_km

    def _nearest(self, key: np.ndarray) -> np.ndarray:
        if self._keys.size < 2:
            return np.zeros(key.size, np.intp)
        return np.searchsorted(0.5 * (self._keys[1:] + self._keys[:-1]), key)

    def _add(self, fresh: np.ndarray, column: Mapping[str, np.ndarray], start: int) -> None:
        new = np.unique(fresh).astype(np.float64)
        new = new[np.concatenate([[True], np.diff(new) > SAME_km])]
        if self._keys.size + new.size > MOST_CORES:
            fail(
                self._path,
                None,
                None,
                f"expected at most {MOST_CORES} cores, got more different {self._kind}s by row {start} of the stream; "
                "give each pair the baseline of its core rather than that of its vertex",
            )
        known = len(self._baseline_km)
        for value in new:
            self._baseline_km.append(self._first_baseline(value, column))
        keys = np.concatenate([self._keys, new])
        index = np.concatenate([self._index, np.arange(known, known + new.size, dtype=np.uint8)])
        order = np.argsort(keys)
        self._keys, self._index = keys[order], index[order]

    def _first_baseline(self, value: float, column: Mapping[str, np.ndarray]) -> float:
        if self._kind == "baseline":
            return float(value)
        if "baseline" in column:
            return float(column["baseline"][int((column["core"] == value).argmax())])
        assert self._given.baseline_km is not None
        if value >= self._given.baseline_km.size:
            message = f"expected cores below {self._given.baseline_km.size}, the number of baselines, got {value:.0f}"
            fail(self._path, None, None, f"{message}; correct the column or the baselines")
        return float(self._given.baseline_km[int(value)])

    def cores(self) -> Cores:
        """All that came, by number or by rising baseline, or in the order of the experiment."""
        given = self._given
        if not self._keys.size:
            assert given.baseline_km is not None
            names = given.names or _numbered(given.baseline_km.size)
            return Cores(given.baseline_km, names, given.share, np.zeros(1, np.uint8))
        found = np.array(self._baseline_km)
        if given.baseline_km is None:
            place = np.empty(found.size, np.uint8)
            place[self._index] = np.arange(found.size)
            if given.names is not None and len(given.names) != found.size:
                got = ", ".join(f"{b:g}" for b in found[self._index])
                fail(self._path, None, None, f"expected {len(given.names)} cores, as many as names, got {got} km")
            names = given.names or _numbered(found.size)
        else:
            place = self._matched(found)
            names = given.names or _numbered(found.size)
        baseline_km = np.empty_like(found)
        baseline_km[place] = found
        return Cores(baseline_km, names, None, place)

    def _matched(self, found: np.ndarray) -> np.ndarray:
        """The experiment's core of each core found, as they came."""
        wanted = self._given.baseline_km
        assert wanted is not None
        numbers = np.empty(found.size)
        numbers[self._index] = self._keys
        listed = ", ".join(f"{b:g}" for b in wanted)
        place = np.empty(found.size, np.uint8)
        for k, baseline in enumerate(found):
            near = np.flatnonzero(np.abs(wanted - baseline) < SAME_CORE_km)
            if self._kind == "core" and numbers[k] in near:
                near = np.array([int(numbers[k])])
            if near.size > 1:
                near = near[np.abs(wanted[near] - baseline) <= np.abs(wanted[near] - baseline).min() + SAME_km]
            if near.size != 1:
                got = "none of them" if not near.size else "several; add a column with the numbers of the cores"
                message = f"expected the baseline {baseline:.9g} km to be that of one core ({listed} km), got {got}"
                fail(self._path, None, None, message)
            place[k] = near[0]
        missing = np.setdiff1d(np.arange(wanted.size), place)
        if missing.size or np.unique(place).size < place.size:
            got = f"none from {wanted[missing[0]]:g} km" if missing.size else "two that belong to the same core"
            message = f"expected pairs from each of the {wanted.size} cores once ({listed} km), got {got}"
            fail(self._path, None, None, f"{message}; use the cores that were simulated")
        return place


def _numbered(cores: int) -> tuple[str, ...]:
    return tuple(f"core_{k + 1}" for k in range(cores))


def _hash(*arrays: np.ndarray) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape};".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
