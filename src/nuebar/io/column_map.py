"""A user's map from the columns of a file to ours, in TOML."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from nuebar.errors import NuebarError
from nuebar.io.columns import UNITS, known_column, known_names
from nuebar.records import from_mapping, read_toml, refuse

__all__ = ["ColumnMap", "FileColumn"]


@dataclass(frozen=True)
class FileColumn:
    """Where a column comes from in a file.

    Attributes:
        name: Its name in the file.
        unit: Unit in the file; None if not stated, which means the unit of our name.
        index: Which number of a row that holds several, from 0.
    """

    name: str
    unit: str | None = None
    index: int | None = None


@dataclass(frozen=True)
class ColumnMap:
    """Which columns of a file are meant by our names.

    In TOML::

        format = "root"    # optional: the file shows it
        tree = "events"    # of ROOT, or the group of HDF5; optional where there is one only

        [columns]
        t_ns = { name = "time", unit = "s" }
        e_rec_MeV = { name = "Evis", unit = "keV" }
        x_m = { name = "vertex", index = 0, unit = "mm" }
        n_pe = "totalPE"

    Attributes:
        columns: Our name → the column of the file. Names that are not here stand for themselves.
        format: ``parquet``, ``root``, ``hdf5``, or None.
        tree: Name of the tree or group, or None.
        where: The file of the map, for messages.
    """

    columns: Mapping[str, FileColumn] = dataclasses.field(default_factory=dict)
    format: str | None = None
    tree: str | None = None
    where: str = "column map"

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a TOML file.

        Raises:
            NuebarError: The file cannot be read, or a key or value is wrong.
        """
        return cls.from_mapping(read_toml(Path(path)), where=os.fspath(path))

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any], *, where: str = "column map") -> Self:
        """The map from the content of a TOML file, or of a table in one.

        Args:
            raw: With the keys of the class.
            where: The file, for messages.

        Raises:
            NuebarError: An unknown key, a wrong type, a unit of another dimension.
        """
        columns = raw.get("columns", {})
        if isinstance(columns, Mapping):
            full = {name: {"name": item} if isinstance(item, str) else item for name, item in columns.items()}
            raw = {**raw, "columns": full}
        plain = from_mapping(_RawMap, raw, where)
        if plain.format is not None and plain.format not in ("parquet", "root", "hdf5"):
            refuse(where, "format", "'parquet', 'root' or 'hdf5'", plain.format)
        for name, source in plain.columns.items():
            _check_source(name, source, where)
        return cls(plain.columns, plain.format, plain.tree, where)


@dataclass(frozen=True)
class _RawMap:
    columns: dict[str, FileColumn] = dataclasses.field(default_factory=dict)
    format: str | None = None
    tree: str | None = None


def _check_source(name: str, source: FileColumn, where: str) -> None:
    key, unit = f"columns.{name}", known_column(name).unit
    if name not in known_names() and not unit:
        close = difflib.get_close_matches(name, known_names(), n=1, cutoff=0.75)
        if close:
            raise NuebarError(f"{where}: unknown key {key!r}; did you mean {close[0]!r}?")
    if source.index is not None and source.index < 0:
        refuse(where, f"{key}.index", "a number from 0", source.index)
    if source.unit is None:
        return
    if not unit:
        refuse(where, f"{key}.unit", "no unit, as the name has none", source.unit, "leave it out")
    same = [u for u in UNITS if UNITS[u][0] == UNITS[unit][0]]
    if source.unit not in same:
        refuse(where, f"{key}.unit", f"one of {', '.join(same)}", source.unit)
