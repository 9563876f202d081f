"""Calibration data: simulated data sets of a run, and a user's own spectra of sources.

Histograms of a whole set fit into memory (:func:`load_table`); its charges stay on disk and are mapped
(:func:`stored_charges`), so that a training may take them in any order.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.arrays import load_arrays, map_arrays
from nuebar.io.column_map import ColumnMap, FileColumn
from nuebar.io.events import EventFile
from nuebar.io.files import TextTable, read_text, read_text_table
from nuebar.io.histograms import Histogram
from nuebar.io.results import load_result
from nuebar.io.root import open_root

__all__ = [
    "CalibrationTable",
    "ChargeChunk",
    "SourceSpectrum",
    "StoredCharges",
    "calibration_files",
    "load_table",
    "read_calibration",
    "read_source",
    "rebinned",
    "stored_charges",
]

Progress = Callable[[str, int, int], None]
_TEXT = (".csv", ".txt", ".dat", ".tsv")
_SAME_EDGE = 1e-3  # of the narrowest bin: edges that were printed with few digits are still the same

# --- data sets of a run ---------------------------------------------------------------------------------------


def read_calibration(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """One chunk of calibration data sets.

    Returns:
        The arrays ``parameters (rows, 3)``, ``data_set``, ``events``, ``first`` and ``offsets`` of the rows,
        ``counts (rows, sources, bins + 2)`` and ``n_pe (sources, events)``; and the metadata.

    Raises:
        NuebarError: The file is missing, truncated or of another kind.
    """
    return _calibration(path, *load_arrays(path))


def calibration_files(folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The files of a finished set of data sets, in order.

    Args:
        folder: The folder of the set: ``<out>/<set>`` of ``nuebar simulate calibration --out <out>``.

    Raises:
        NuebarError: There is no such set, or it is not finished.
    """
    place = Path(folder)
    if not (place / "stage.json").is_file():
        inside = sorted(p.parent.name for p in place.glob("*/stage.json") if not p.parent.name.startswith("pools-"))
        advice = f"name {place / inside[0]}" if inside else "name that of a run of nuebar simulate calibration"
        raise NuebarError(f"{place}: expected the folder of a calibration set, got another or none; {advice}")
    stage = load_result(place / "stage.json")
    if not str(stage.get("function", "")).endswith(":calibration_chunk"):
        raise NuebarError(f"{place}: expected a calibration set, got the stage {stage.get('stage')!r}; name another")
    # A chunk's file has its name only when it is whole.
    paths = tuple(place / f"chunk-{i:05d}{stage['suffix']}" for i in range(stage["chunks"]))
    done = sum(path.is_file() for path in paths)
    if done < len(paths):
        raise NuebarError(
            f"{place}: expected {len(paths)} chunks, got {done}; finish the simulation, the same command continues"
        )
    return paths


@dataclass(frozen=True, eq=False)
class CalibrationTable:
    """Histograms of all data sets of a set; portions of one data set are added up.

    Attributes:
        data_set: Number of each data set, ascending, shape ``(n_sets,)``.
        parameters: kB, fC, light yield of each, shape ``(n_sets, 3)``.
        events: Events of a source in each, shape ``(n_sets,)``.
        counts: Below, the bins, above; int32 (int64 where they need it), shape ``(n_sets, sources, bins + 2)``.
        sources: Names.
        edges: Of the observable, shape ``(bins + 1,)``.
        pe_to_observable: Observable per photo-electron.
        name: Of the set.
    """

    data_set: np.ndarray
    parameters: np.ndarray
    events: np.ndarray
    counts: np.ndarray
    sources: tuple[str, ...]
    edges: np.ndarray
    pe_to_observable: float
    name: str = ""

    def row(self, data_set: int) -> int:
        """Where a data set is.

        Raises:
            NuebarError: There is none of this number.
        """
        return _row(self.data_set, data_set, self.name)


def load_table(folder: str | os.PathLike[str], *, progress: Progress | None = None) -> CalibrationTable:
    """Histograms of a finished set; charges are not read.

    Args:
        folder: As for :func:`calibration_files`.
        progress: Called as ``progress("<set>: histograms", done, chunks)``.

    Raises:
        NuebarError: The set is not finished, its files do not belong together, or events are missing.
    """
    chunks, about = _chunks(folder)
    numbers = np.concatenate([arrays["data_set"] for arrays in chunks])
    data_set, first = np.unique(numbers, return_index=True)
    parameters = np.concatenate([arrays["parameters"] for arrays in chunks])[first]
    events = np.concatenate([arrays["events"] for arrays in chunks])[first]
    kind = np.int32 if events.max() < 2**31 else np.int64
    counts = np.zeros((data_set.size, *chunks[0]["counts"].shape[1:]), kind)
    for i, arrays in enumerate(chunks, 1):
        for row, target in enumerate(np.searchsorted(data_set, arrays["data_set"])):
            counts[target] += arrays["counts"][row]
        if progress:
            progress(f"{about['name']}: histograms", i, len(chunks))
    lost = counts.sum(axis=2, dtype=np.int64) != events[:, None]
    if lost.any():
        row = int(np.argmax(lost.any(axis=1)))
        got = int(counts[row].sum(axis=1, dtype=np.int64).min())
        message = f"data set {data_set[row]}: expected {events[row]} events of every source, got {got}"
        raise NuebarError(f"{folder}, {message}; simulate the set again")
    low, high, n = about["bins"]
    edges = np.linspace(low, high, int(n) + 1)
    sources, factor = tuple(about["sources"]), float(about["pe_to_observable"])
    return CalibrationTable(data_set, parameters, events, counts, sources, edges, factor, about["name"])


@dataclass(frozen=True, eq=False)
class ChargeChunk:
    """Charges of one file; they are read from the disk when they are looked at.

    Attributes:
        path: The file.
        parameters: Of every row, shape ``(rows, 3)``.
        data_set: Number of the data set of every row.
        first: Number of the first event of every row in its data set.
        offsets: Row ``i`` has the events from ``offsets[i]`` to ``offsets[i + 1]``.
        n_pe: Photo-electrons, a float32 memory map of shape ``(sources, events)``.
    """

    path: Path
    parameters: np.ndarray
    data_set: np.ndarray
    first: np.ndarray
    offsets: np.ndarray
    n_pe: np.ndarray


@dataclass(frozen=True, eq=False)
class StoredCharges:
    """Charges of all data sets of a set, on disk.

    Attributes:
        chunks: The files, in order.
        sources: Names, the rows of ``n_pe``.
        pe_to_observable: Observable per photo-electron.
        name: Of the set.
    """

    chunks: tuple[ChargeChunk, ...]
    sources: tuple[str, ...]
    pe_to_observable: float
    name: str = ""

    def __iter__(self) -> Iterator[tuple[np.ndarray, str, np.ndarray]]:
        """(kB, fC, light yield), source and charges of every portion of every data set, in order of the files."""
        for chunk in self.chunks:
            for row, (begin, end) in enumerate(zip(chunk.offsets, chunk.offsets[1:], strict=False)):
                for source, n_pe in zip(self.sources, chunk.n_pe, strict=True):
                    yield chunk.parameters[row], source, n_pe[begin:end]

    def charges_of(self, data_set: int, source: str) -> np.ndarray:
        """Charges of one source in one data set: float32, a view of the file unless it has several portions.

        Raises:
            NuebarError: There is no such data set or source.
        """
        if source not in self.sources:
            raise NuebarError(f"source: expected one of {', '.join(self.sources)}, got {source!r}; correct the name")
        s = self.sources.index(source)
        found = []
        for chunk in self.chunks:
            for row in np.flatnonzero(chunk.data_set == data_set):
                found.append((chunk.first[row], chunk.n_pe[s, chunk.offsets[row] : chunk.offsets[row + 1]]))
        if not found:
            _row(np.concatenate([chunk.data_set for chunk in self.chunks]), data_set, self.name)
        parts = [n_pe for _, n_pe in sorted(found, key=lambda item: int(item[0]))]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def stored_charges(folder: str | os.PathLike[str]) -> StoredCharges:
    """Charges of a finished set; nothing is read until it is looked at.

    Args:
        folder: As for :func:`calibration_files`.

    Raises:
        NuebarError: The set is not finished, its files do not belong together, or it was made without charges.
    """
    chunks, about = _chunks(folder)
    if any(arrays["n_pe"].shape[1] != arrays["offsets"][-1] for arrays in chunks):
        raise NuebarError(f"{folder}: expected charges, got histograms only; simulate the set without --no-samples")
    names = ("parameters", "data_set", "first", "offsets", "n_pe")
    kept = [
        ChargeChunk(path, **{name: arrays[name] for name in names})
        for path, arrays in zip(calibration_files(folder), chunks, strict=True)
    ]
    return StoredCharges(tuple(kept), tuple(about["sources"]), float(about["pe_to_observable"]), about["name"])


def _chunks(folder: str | os.PathLike[str]) -> tuple[list[dict[str, np.ndarray]], dict[str, Any]]:
    """Mapped arrays of all chunks, the small ones read; and the metadata, which are those of all."""
    chunks, about = [], None
    for path in calibration_files(folder):
        arrays, metadata = _calibration(path, *map_arrays(path))
        if about is not None and metadata != about:
            different = ", ".join(k for k in {**about, **metadata} if about.get(k) != metadata.get(k))
            raise NuebarError(f"{path}: expected the same {different} as in the files before; simulate the set again")
        small = {name: np.array(a) for name, a in arrays.items() if name not in ("n_pe", "counts")}
        chunks.append({**arrays, **small})
        about = metadata
    assert about is not None  # a stage has at least one chunk
    return chunks, about


def _calibration(
    path: str | Path, arrays: dict[str, np.ndarray], metadata: dict[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    if metadata.get("kind") != "calibration" or metadata.get("format") != 1:
        raise NuebarError(f"{path}: expected calibration data sets of format 1; simulate them again")
    return arrays, metadata


def _row(numbers: np.ndarray, data_set: int, name: str) -> int:
    found = np.flatnonzero(numbers == data_set)
    if not found.size:
        got = f"data set {data_set!r}"
        raise NuebarError(f"{name}: expected a data set from {numbers.min()} to {numbers.max()}, got {got}; correct it")
    return int(found[0])


# --- a user's own spectra -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SourceSpectrum:
    """What a file says about one source: charges of single events, or a histogram.

    Attributes:
        path: The file.
        n_pe: Photo-electrons of single events, float32 or float64, or None.
        histogram: Events in bins of the observable or of photo-electrons, or None; contents are not checked.
        outside: Events below and above the histogram, where the file tells.
    """

    path: str
    n_pe: np.ndarray | None = None
    histogram: Histogram | None = None
    outside: tuple[float, float] = (0.0, 0.0)


def read_source(
    path: str | os.PathLike[str],
    *,
    column: str = "n_pe",
    columns: ColumnMap | str | os.PathLike[str] | None = None,
) -> SourceSpectrum:
    """Read a user's spectrum of one source.

    Args:
        path: One of
            events as Parquet, ROOT or HDF5 (a file, a folder, a pattern) with a column of photo-electrons;
            a text file (``.csv``, ``.txt``, ``.dat``, ``.tsv``) with the column ``n_pe``, or with the columns
            ``low``, ``high``, ``counts`` (also ``low_pe``, ``high_pe``); without a header one column is ``n_pe`` and
            three are a histogram;
            a ``.json`` file in the UHI format;
            ``file.root:key``, a TH1 of a ROOT file, where ``:key`` may be left out if it holds one TH1 and no tree.
        column: The file's name for photo-electrons.
        columns: A column map, as for :class:`~nuebar.io.events.EventFile`, instead of ``column``.

    Returns:
        Charges of single events, or a histogram, whichever the file has.

    Raises:
        NuebarError: The file, line, column, row or key that is wrong.
    """
    text = os.fspath(path)
    if root := re.fullmatch(r"(.*\.root):(.+)", text):
        return _root_source(root[1], root[2])
    if text.endswith(".json"):
        return SourceSpectrum(text, histogram=Histogram.load(text, allow_negative=True))
    if text.endswith(_TEXT):
        return _text_source(text, column)
    if text.endswith(".root") and columns is None and os.path.isfile(text) and _only_histograms(text):
        return _root_source(text, None)
    if columns is None and column != "n_pe":
        columns = ColumnMap({"n_pe": FileColumn(column)})
    return SourceSpectrum(text, EventFile(text, ("n_pe",), column_map=columns).read()["n_pe"])


def rebinned(
    spectrum: SourceSpectrum, edges: np.ndarray, pe_to_observable: float
) -> tuple[np.ndarray, tuple[float, float]]:
    """A histogram in the bins of a density.

    Args:
        spectrum: With a histogram, whose bins may be finer.
        edges: Of the observable, ascending.
        pe_to_observable: Observable per photo-electron; the histogram may be in either.

    Returns:
        Contents, shape ``(bins,)``; and what lies below and above.

    Raises:
        NuebarError: An edge is missing in the histogram.
    """
    h = spectrum.histogram
    assert h is not None
    close = _SAME_EDGE * np.diff(edges).min()
    for scale in (1.0, pe_to_observable):
        own = h.edges * scale
        at = np.searchsorted(own, edges - close)
        if at[-1] < own.size and np.all(np.abs(own[at] - edges) <= close):
            inside = np.add.reduceat(h.counts[: at[-1]], at[:-1])
            below, above = h.counts[: at[0]].sum(), h.counts[at[-1] :].sum()
            return inside, (float(spectrum.outside[0] + below), float(spectrum.outside[1] + above))
    low, high, bins = edges[0], edges[-1], edges.size - 1
    per = f"{pe_to_observable:g} n_pe, from {low:g} to {high:g}"
    pe = f"{low / pe_to_observable:.6g} to {high / pe_to_observable:.6g} photo-electrons"
    raise NuebarError(
        f"{spectrum.path}: expected the {bins} bins of the density, or finer ones with the same edges, in {per} "
        f"({pe}), got {h.counts.size} bins from {h.edges[0]:g} to {h.edges[-1]:g}; fill it anew, or give charges of "
        "single events"
    )


def _text_source(path: str, column: str) -> SourceSpectrum:
    lines = (line.split("#", 1)[0].replace('"', "") for line in read_text(path).split("\n"))
    names = next((cells for line in lines if any(cells := re.split(r"[,\s]+", line.strip()))), [])
    if column in names or len(names) == 1:
        table = read_text_table(path, (column,), header=False)
        n_pe = table.numbers(column)
        table.require(n_pe >= 0, column, "expected a number of at least 0, got a negative one; drop such rows")
        return SourceSpectrum(path, n_pe)
    unit = "_pe" if "low_pe" in names else ""
    table = read_text_table(path, (f"low{unit}", f"high{unit}", "counts"), header=False)
    edges = _edges(table, f"low{unit}", f"high{unit}")
    return SourceSpectrum(path, histogram=_histogram(path, edges, table.numbers("counts")))


def _edges(table: TextTable, low_name: str, high_name: str) -> np.ndarray:
    low, high = table.numbers(low_name), table.numbers(high_name)
    table.require(high > low, high_name, "expected a number above the lower edge, got another; correct the row")
    joined = np.abs(low[1:] - high[:-1]) <= _SAME_EDGE * (high - low)[1:]
    table.require(np.r_[True, joined], low_name, "expected the upper edge of the row before; bins may have no gap")
    return np.append(low, high[-1])


def _histogram(where: str, edges: Any, counts: Any) -> Histogram:
    try:
        return Histogram(edges, counts, allow_negative=True)
    except NuebarError as error:
        raise NuebarError(f"{where}: {error}; correct the file") from error


def _only_histograms(path: str) -> bool:
    with open_root(path) as file:
        kinds = _root_kinds(file)
    return any(kind.startswith("TH1") for kind in kinds.values()) and not any(
        kind.startswith(("TTree", "TNtuple", "ROOT::RNTuple")) for kind in kinds.values()
    )


def _root_kinds(file: Any) -> Mapping[str, str]:
    return file.classnames(cycle=False)


def _root_source(path: str, key: str | None) -> SourceSpectrum:
    with open_root(path) as file:
        names = [name for name, kind in _root_kinds(file).items() if kind.startswith("TH1")]
        key = names[0] if key is None and len(names) == 1 else key
        if key is None or key.split(";")[0] not in names:
            found = ", ".join(names[:8]) or "none"
            wanted = "one TH1, or a key after a colon" if key is None else f"a TH1 named {key!r}"
            raise NuebarError(f"{path}: expected {wanted}, got {found}; give one as {path}:key")
        stored = file[key]
        counts, edges = stored.values(flow=True), stored.axis().edges()
    where = f"{path}:{key}"
    return SourceSpectrum(
        where, histogram=_histogram(where, edges, counts[1:-1]), outside=(float(counts[0]), float(counts[-1]))
    )
