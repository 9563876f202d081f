"""Training data on disk: the features of pairs as memory-mapped float32 matrices, one file for each class.

Files of pairs are read once, batch by batch; what is outside of the window or below the threshold is left out and
counted. A preparation that was killed continues with the file at which it was. Rows keep the order of the files, so the
split into training, validation and test is one into files: the first rows train, the last ones are kept for the test.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.event_paths import Paths
from nuebar.io.events import Column, ColumnMap, EventFile
from nuebar.io.files import atomic_write_text, output_folder, read_json, write_json
from nuebar.select.features import FEATURES, PAIR_COLUMNS, features_of

__all__ = ["ACCIDENTALS", "CLASSES", "IBD", "Matrices", "Split", "open_matrices", "prepare", "split_of"]

Progress = Callable[[str, int, int], None]

IBD, ACCIDENTALS = "ibd", "accidentals"
CLASSES = (IBD, ACCIDENTALS)

FORMAT = 1
_BATCH_ROWS = 2**19
_HEADER = 128  # bytes before the numbers of a matrix
_TYPE = np.dtype("<f4")
_WIDTH = len(FEATURES) * _TYPE.itemsize
# Of the last part of the accidentals and of the antineutrinos: 7 of 22 million, and 1 of 16.
_TEST = {ACCIDENTALS: 7 / 22, IBD: 1 / 16}
_VALIDATION, _MOST_VALIDATION = 0.05, 500_000


@dataclass(frozen=True)
class Split:
    """Rows of a class: first those to train on, then unused ones, those to validate on, and those kept for the test.

    Attributes:
        train: How many.
        validation: How many.
        test: How many.
        unused: How many.
    """

    train: int
    validation: int
    test: int
    unused: int = 0

    def rows(self, part: str) -> slice:
        """The rows of ``train``, ``validation`` or ``test``."""
        used = self.train + self.unused
        first = {"train": 0, "validation": used, "test": used + self.validation}[part]
        return slice(first, first + int(getattr(self, part)))


def split_of(name: str, rows: int, *, train: int | None = None, test: int | None = None) -> Split:
    """The split of a class: 7 of 22 accidentals and 1 of 16 antineutrinos are kept for the test.

    Args:
        name: ``ibd`` or ``accidentals``.
        rows: How many there are.
        train: Train on fewer rows; validation and test stay the same.
        test: Rows to keep, instead.

    Raises:
        NuebarError: There are not enough.
    """
    kept = round(_TEST[name] * rows) if test is None else test
    validation = min(round(_VALIDATION * (rows - kept)), _MOST_VALIDATION)
    left = rows - kept - validation
    used = left if train is None else min(train, left)
    if min(used, validation, kept) < 1:
        raise NuebarError(f"class {name}: expected pairs to train on, to validate and to test, got {rows} in all")
    return Split(used, validation, kept, left - used)


@dataclass(frozen=True, eq=False)
class Matrices:
    """Prepared features.

    Attributes:
        folder: Where they lie.
        ibd: Shape ``(n, 10)``, float32, read-only and memory-mapped.
        accidentals: Likewise.
        about: What they were made from: files, window, threshold, rows read, digests.
    """

    folder: Path
    ibd: np.ndarray
    accidentals: np.ndarray
    about: Mapping[str, Any]

    @property
    def window_us(self) -> float:
        """Largest time difference."""
        return 1e3 * float(self.about["window_ms"])

    @property
    def digest(self) -> str:
        """Of both classes and of how they were made."""
        told = json.dumps({name: self.about[name] for name in (*CLASSES, "window_ms", "threshold_MeV")}, sort_keys=True)
        return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()


def prepare(
    folder: str | os.PathLike[str],
    ibd: Paths,
    accidentals: Paths | None = None,
    *,
    window_ms: float = 2.0,
    threshold_MeV: float = 0.7,
    radius_m: float | None = None,
    label: str | None = None,
    column_map: ColumnMap | str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Matrices:
    """Turn files of pairs into matrices; the same call continues after a kill and does nothing when all is there.

    Args:
        folder: Gets ``ibd.npy``, ``accidentals.npy`` and ``matrices.json``, each written in one step.
        ibd: Files of antineutrino pairs; or of both kinds, with ``label``.
        accidentals: Files of accidental pairs; ``None`` with ``label``.
        window_ms: Pairs of larger time difference are left out.
        threshold_MeV: Pairs of which an event has less energy are left out.
        radius_m: Radius of the detector, to check coordinates by.
        label: Column of 1 for antineutrinos and 0 for accidentals, of files that hold both.
        column_map: Where the columns are in the files.
        progress: Called as ``progress("pairs", rows read, rows)``.

    Raises:
        NuebarError: A file or column is missing or wrong, a label is not 0 or 1, or a class has no pairs.
    """
    if (accidentals is None) == (label is None):
        raise NuebarError("pairs: expected files of both classes, or files of both with the column of a label")
    if not (0 < window_ms < np.inf and 0 <= threshold_MeV < np.inf):
        raise NuebarError(f"pairs: expected a window above 0 ms and a threshold, got {window_ms} and {threshold_MeV}")
    out = output_folder(folder)
    common: dict[str, Any] = {"format": FORMAT, "window_ms": float(window_ms), "threshold_MeV": float(threshold_MeV)}
    options: dict[str, Any] = {"column_map": column_map, "radius_m": radius_m}
    names: list[str | Column] = [*PAIR_COLUMNS, *([label] if label is not None else [])]
    files = {IBD: EventFile(ibd, names, **options), ACCIDENTALS: EventFile(accidentals or ibd, names, **options)}
    rows, done, told = sum(f.n_rows for f in files.values()), 0, dict(common)
    for name, events in files.items():
        wanted = common | {"sources": _sources(events), "label": label, "map": _digest_of(column_map)}
        kept = _kept(out, name, wanted)
        if kept is None:
            parts = _Class(name, label, window_ms, threshold_MeV, names, options)
            kept = _write(out, parts, events, wanted, partial(_tell, progress, done, rows))
        done += events.n_rows
        if progress is not None:
            progress("pairs", done, rows)
        told[name] = kept
    write_json(out / "matrices.json", told)
    return open_matrices(out)


def open_matrices(folder: str | os.PathLike[str]) -> Matrices:
    """The matrices of a folder, without reading them.

    Raises:
        NuebarError: They are missing, incomplete or altered.
    """
    path = Path(folder)
    about = read_json(path / "matrices.json")
    if about.get("format") != FORMAT:
        raise NuebarError(f"{path}: expected matrices of format {FORMAT}; prepare them again")
    arrays = []
    for name in CLASSES:
        file = path / f"{name}.npy"
        try:
            array = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise NuebarError(f"{file}: expected a matrix of features, got {error}; prepare it again") from error
        shape = (int(about[name]["rows"]), len(FEATURES))
        if array.shape != shape or array.dtype != _TYPE:
            raise NuebarError(
                f"{file}: expected float32 of shape {shape}, got {array.dtype} of {array.shape}; prepare again"
            )
        arrays.append(array)
    return Matrices(path, arrays[0], arrays[1], about)


def _tell(progress: Progress | None, done: int, rows: int, read: int) -> None:
    if progress is not None:
        progress("pairs", done + read, rows)


# ---------------------------------------------------------------- one class


@dataclass(frozen=True)
class _Class:
    """What is taken from the files of a class."""

    name: str
    label: str | None
    window_ms: float
    threshold_MeV: float
    names: list[str | Column]
    options: Mapping[str, Any]

    def features(self, path: Path) -> Iterator[tuple[int, np.ndarray]]:
        """Rows read and features of a file, batch by batch."""
        first = 0
        for batch in EventFile([path], self.names, **self.options).batches(_BATCH_ROWS):
            rows = len(batch["dt_ns"])
            good = (batch["dt_ns"] >= 0) & (batch["dt_ns"] <= 1e6 * self.window_ms)
            for part in ("prompt", "delayed"):
                good &= batch[f"{part}_e_rec_MeV"] >= self.threshold_MeV
            if self.label is not None:
                good &= self._labelled(batch[self.label], path, first)
            yield rows, features_of({name: batch[name][good] for name in PAIR_COLUMNS})
            first += rows

    def _labelled(self, labels: np.ndarray, path: Path, first: int) -> np.ndarray:
        wrong = (labels != 0) & (labels != 1)
        if np.any(wrong):
            row = int(np.argmax(wrong))
            raise NuebarError(
                f"{path}, row {first + row}, column {self.label!r}: expected 1 for an antineutrino or 0 for an "
                f"accidental pair, got {labels[row]}; correct the labels"
            )
        return labels == (1 if self.name == IBD else 0)


def _sources(events: EventFile) -> list[list[Any]]:
    return [[path.name, (stat := os.stat(path)).st_size, stat.st_mtime_ns] for path in events.paths]


def _digest_of(column_map: Any) -> str:
    if column_map is None:
        return ""
    if not isinstance(column_map, ColumnMap):
        column_map = ColumnMap.load(column_map)
    told = asdict(column_map) | {"where": ""}
    return hashlib.blake2b(repr(told).encode(), digest_size=8).hexdigest()


def _kept(out: Path, name: str, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was noted of a finished matrix, if it is the one that is wanted."""
    note = out / f"{name}.json"
    if not (note.is_file() and (out / f"{name}.npy").is_file()):
        return None
    told = read_json(note)
    if told.get("made_from") != json.loads(json.dumps(wanted)):
        raise NuebarError(f"{out}: the matrix of {name} there is of other files or settings; choose another folder")
    return told


def _write(
    out: Path, parts: _Class, events: EventFile, wanted: Mapping[str, Any], tell: Callable[[int], Any]
) -> dict[str, Any]:
    """Write a matrix file by file; after each it is noted how far it is."""
    unfinished, note = out / f"{parts.name}.npy.part", out / f"{parts.name}.progress.json"
    state = {"made_from": json.loads(json.dumps(wanted)), "files": 0, "read": 0, "rows": 0}
    if note.is_file() and unfinished.is_file() and (before := read_json(note)).get("made_from") == state["made_from"]:
        state = before
    with open(unfinished, "r+b" if state["files"] else "w+b") as file:
        for path in events.paths[state["files"] :]:
            file.truncate(_HEADER + state["rows"] * _WIDTH)
            file.seek(0, os.SEEK_END)
            for rows, x in parts.features(path):
                file.write(np.ascontiguousarray(x, _TYPE).tobytes())
                state["read"] += rows
                state["rows"] += len(x)
                tell(state["read"])
            file.flush()
            os.fsync(file.fileno())
            state["files"] += 1
            atomic_write_text(note, json.dumps(state))
        if not state["rows"]:
            raise NuebarError(
                f"class {parts.name}: expected pairs within {parts.window_ms:g} ms and above "
                f"{parts.threshold_MeV:g} MeV, got none of {state['read']} rows ({events.paths[0]}); check files, "
                "units and labels"
            )
        file.seek(0)
        file.write(_header(state["rows"]))
        file.flush()
        os.fsync(file.fileno())
    told = {
        "rows": state["rows"],
        "read": state["read"],
        "digest": _digest(unfinished),
        "made_from": state["made_from"],
    }
    os.replace(unfinished, out / f"{parts.name}.npy")
    write_json(out / f"{parts.name}.json", told)
    with suppress(OSError):
        note.unlink()
    return told


def _header(rows: int) -> bytes:
    """The first bytes of a .npy file (format 1.0 of NumPy)."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {len(FEATURES)}), }}"
    room = _HEADER - 10
    return b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + text.ljust(room - 1).encode() + b"\n"


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while piece := file.read(2**22):
            digest.update(piece)
    return digest.hexdigest()
