"""Which files make a stream, and which format each of them has."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from nuebar.errors import NuebarError
from nuebar.io.column_map import ColumnMap
from nuebar.io.files import read_bytes
from nuebar.io.hdf5 import Hdf5Table
from nuebar.io.parquet import ParquetTable
from nuebar.io.root import RootTable
from nuebar.io.tables import TableFile, fail

__all__ = ["Paths", "find_files", "open_table"]

_TABLES: Mapping[str, type[ParquetTable] | type[RootTable] | type[Hdf5Table]] = {
    "parquet": ParquetTable,
    "root": RootTable,
    "hdf5": Hdf5Table,
}
_BEGINNINGS = {b"PAR1": "parquet", b"PARE": "parquet", b"root": "root", b"\x89HDF\r\n\x1a\n": "hdf5"}
_SUFFIXES = {".parquet": "parquet", ".root": "root", ".h5": "hdf5", ".hdf5": "hdf5", ".hdf": "hdf5"}

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def find_files(paths: Paths) -> tuple[Path, ...]:
    """The files of a stream, in order.

    Args:
        paths: A file, a folder, a pattern, or a list of files.

    Raises:
        NuebarError: There are none, one is no file, or one comes twice.
    """
    if isinstance(paths, str | os.PathLike):
        found = _expand(Path(paths))
    else:
        found = [Path(path) for path in paths]
        if not found:
            raise NuebarError("expected files of events, got an empty list; name at least one")
    seen: dict[str, Path] = {}
    for path in found:
        if not path.is_file():
            what = "a folder" if path.is_dir() else "none"
            fail(path, None, None, f"expected a file of events, got {what}; check the path")
        twin = seen.setdefault(os.path.realpath(path), path)
        if twin is not path:
            fail(path, None, None, f"expected each file once, got it again as {twin}; its events would count twice")
    return tuple(found)


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        found = [p for p in path.iterdir() if p.suffix in _SUFFIXES and not p.name.startswith((".", "_"))]
        if not found:
            fail(path, None, None, f"expected files of events ({', '.join(_SUFFIXES)}), got none in this folder")
    elif path.exists() or not glob.has_magic(str(path)):
        return [path]
    else:
        found = [Path(p) for p in glob.glob(str(path), recursive=True)]
        if not found:
            fail(path, None, None, "expected files that match this pattern, got none; check it")
    # run_10 after run_9
    return sorted(found, key=lambda p: [(int(w), "") if w.isdecimal() else (-1, w) for w in re.split(r"(\d+)", str(p))])


def open_table(path: Path, column_map: ColumnMap) -> TableFile:
    """The table of a file, by what the file begins with.

    Raises:
        NuebarError: The file is missing, damaged, or of another format than any or than the map says.
    """
    beginning = read_bytes(path, 8)
    kind = next((kind for mark, kind in _BEGINNINGS.items() if beginning.startswith(mark)), None)
    wanted = column_map.format or _SUFFIXES.get(path.suffix)
    # HDF5 may keep a block of the user's before its own mark, which h5py finds.
    if kind is None and wanted == "hdf5" and len(beginning) == 8:
        kind = "hdf5"
    if kind is None:
        got = "an empty file" if not beginning else f"a file that begins with {beginning!r}"
        advice = "it may be cut short" if path.suffix in _SUFFIXES else "convert it to one of these"
        fail(path, None, None, f"expected events as Parquet, ROOT or HDF5, got {got}; {advice}")
    if column_map.format is not None and kind != column_map.format:
        fail(path, None, None, f"expected {column_map.format}, as {column_map.where} says, got {kind}; correct the map")
    return _TABLES[kind](path, column_map.tree)
