"""Event tables: one reader for Parquet, ROOT and HDF5, and the writer of our own Parquet files.

A stream may be larger than memory: :class:`EventFile` gives it batch by batch, each checked before it is seen.
What is missing, empty, not finite, out of range, in the wrong unit, unsorted or damaged is named with file,
column and row (counted from 0 in its file)::

    events = EventFile("stream/*.parquet", ("t_ns", "e_rec_MeV", "x_m", "y_m", "z_m"))
    for batch in events.batches():
        energy = batch["e_rec_MeV"]  # NumPy array, read-only
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.column_checks import Offence, check, check_typical, convert, float_type, pick
from nuebar.io.column_map import ColumnMap, FileColumn
from nuebar.io.columns import UNITS, Column, known_column
from nuebar.io.event_paths import Paths, find_files, open_table
from nuebar.io.event_writer import EventWriter
from nuebar.io.tables import Field, Ragged, TableFile, Values, fail, shown

__all__ = [
    "BATCH_ROWS",
    "Column",
    "ColumnMap",
    "EventFile",
    "EventWriter",
    "FileColumn",
    "describe",
    "known_column",
    "read_events",
]

BATCH_ROWS = 2**20


class EventFile:
    """Columns of one or several files, read as one stream of events.

    Names, types and lengths are checked for all files at once, before the first row is read; values are
    checked batch by batch.
    """

    def __init__(
        self,
        paths: Paths,
        columns: Sequence[str | Column],
        *,
        optional: Sequence[str | Column] = (),
        column_map: ColumnMap | str | os.PathLike[str] | None = None,
        radius_m: float | None = None,
    ) -> None:
        """Look at the files; nothing stays open.

        Args:
            paths: A file; a folder or a pattern (``run_*.root``), whose files come in the order of their
                names with numbers counted as such; or a list of files, which come in the order of the list.
            columns: Wanted columns by name (see :func:`~nuebar.io.columns.known_column`), or records for
                ranges of one's own.
            optional: Columns that may be absent, from all files or from none.
            column_map: Where the columns are in the files, or the TOML file that says it; by default they
                have our names.
            radius_m: Radius of the detector, to check vertex coordinates by.

        Raises:
            NuebarError: A file or column is missing, of another kind, or the files do not agree.
        """
        if not isinstance(column_map, ColumnMap | None):
            column_map = ColumnMap.load(column_map)
        self._map = column_map or ColumnMap()
        wanted = _records((*columns, *optional), radius_m)
        self.paths = find_files(paths)
        tables = [open_table(path, self._map) for path in self.paths]
        absent = [c for c in wanted[len(columns) :] if not any(self._source(c).name in t.fields for t in tables)]
        self.columns: tuple[Column, ...] = tuple(c for c in wanted if c not in absent)
        if not self.columns:
            names, fields = ", ".join(c.name for c in absent), shown(sorted(tables[0].fields))
            fail(
                self.paths[0],
                None,
                None,
                f"expected one of the columns {names}, got {fields}; name them in a column map",
            )
        self._parts = tuple(_Part(table, self.columns, self._map) for table in tables)
        self.metadata: tuple[Mapping[str, Any], ...] = tuple(table.metadata for table in tables)
        self.n_rows: int = sum(part.rows for part in self._parts)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns that every batch holds."""
        return tuple(column.name for column in self.columns)

    @property
    def dtypes(self) -> dict[str, np.dtype]:
        """Type of each column: int64, or the wider of the files' floating types."""
        return {c.name: np.result_type(*(part.dtype(c) for part in self._parts)) for c in self.columns}

    def batches(self, batch_rows: int = BATCH_ROWS) -> Iterator[dict[str, np.ndarray]]:
        """The events in order, at most ``batch_rows`` at a time; memory does not depend on the number of rows.

        A batch never spans two files, so some are shorter. Joined together they do not depend on
        ``batch_rows``.

        Yields:
            Our name → read-only array, shape (rows,), in our unit.

        Raises:
            NuebarError: At the first value that is wrong.
        """
        if batch_rows < 1:
            raise NuebarError(f"expected batches of at least one row, got {batch_rows}; ask for more")
        dtypes, offset = self.dtypes, 0
        last: dict[str, Any] = {}
        previous: Path | None = None
        for part in self._parts:
            for batch in part.batches(batch_rows, last, offset, previous):
                for name, values in batch.items():
                    batch[name] = values.astype(dtypes[name], copy=False)
                    batch[name].setflags(write=False)
                yield batch
            offset, previous = offset + part.rows, part.table.path

    def read(self) -> dict[str, np.ndarray]:
        """All events at once; arrays of shape (n_rows,) that may be written to.

        Raises:
            NuebarError: At the first value that is wrong, or if memory does not suffice.
        """
        try:
            whole = {name: np.empty(self.n_rows, dtype) for name, dtype in self.dtypes.items()}
        except (MemoryError, ValueError) as error:
            message = f"expected events that fit into memory, got {self.n_rows} rows; read them in batches"
            raise NuebarError(f"{self.paths[0]}: {message}") from error
        start = 0
        for batch in self.batches():
            rows = len(next(iter(batch.values())))
            for name, values in batch.items():
                whole[name][start : start + rows] = values
            start += rows
        return whole

    def _source(self, column: Column) -> FileColumn:
        return self._map.columns.get(column.name, FileColumn(column.name))


def read_events(paths: Paths, columns: Sequence[str | Column], **options: Any) -> dict[str, np.ndarray]:
    """Read all events into memory.

    Args:
        paths: As for :class:`EventFile`.
        columns: As for :class:`EventFile`.
        **options: As for :class:`EventFile`.

    Returns:
        Name → array, shape (rows,).

    Raises:
        NuebarError: At the first thing that is wrong.
    """
    return EventFile(paths, columns, **options).read()


@dataclass(frozen=True)
class Description:
    """What a file holds.

    Attributes:
        path: The file.
        format: ``parquet``, ``root`` or ``hdf5``.
        tree: Name of the tree or group, or empty.
        rows: Rows of the table, or of its longest column.
        fields: Its columns, readable or not.
        metadata: What our own writer noted, or empty.
    """

    path: Path
    format: str
    tree: str
    rows: int
    fields: tuple[Field, ...]
    metadata: Mapping[str, Any]


def describe(path: str | os.PathLike[str], *, tree: str | None = None) -> Description:
    """Columns, types and rows of a file, without reading its events.

    Args:
        path: A Parquet, ROOT or HDF5 file.
        tree: Name of the tree or group; may be left out where there is one only.

    Raises:
        NuebarError: The file is missing, damaged, or of another format; or a tree must be named.
    """
    table = open_table(Path(path), ColumnMap(tree=tree))
    fields = tuple(table.fields.values())
    rows = max((field.rows for field in fields), default=0)
    return Description(table.path, table.format, table.tree, rows, fields, table.metadata)


def _records(columns: Sequence[str | Column], radius_m: float | None) -> list[Column]:
    records = [c if isinstance(c, Column) else known_column(c, radius_m=radius_m) for c in columns]
    names = [record.name for record in records]
    if not names:
        raise NuebarError("expected the names of columns, got none; name at least one")
    for name in names:
        if names.count(name) > 1:
            raise NuebarError(f"expected each column once, got {name!r} twice; remove one")
    return records


class _Part:
    """One file of a stream: its table and where each column lies in it."""

    def __init__(self, table: TableFile, columns: Sequence[Column], column_map: ColumnMap) -> None:
        self.table = table
        self._columns = columns
        self._sources = {c.name: column_map.columns.get(c.name, FileColumn(c.name)) for c in columns}
        self._fields = {c.name: _find(table, c, self._sources[c.name], column_map) for c in columns}
        first = self._fields[columns[0].name]
        for field in self._fields.values():
            if field.rows != first.rows:
                message = (
                    f"expected {first.rows} rows, as in {first.name!r}, got {field.rows}; the file is not complete"
                )
                fail(table.path, field.name, None, message)
        self.rows = first.rows

    def dtype(self, column: Column) -> np.dtype:
        """Type of the column's values after conversion."""
        dtype = self._fields[column.name].dtype
        assert dtype is not None
        return np.dtype(np.int64) if column.kind == "int" else float_type(dtype)

    def batches(
        self, batch_rows: int, last: dict[str, Any], offset: int, previous: Path | None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Converted and checked batches; ``last`` keeps the last value of each rising column."""
        names = list(dict.fromkeys(field.name for field in self._fields.values()))
        start = 0
        if not self.rows:
            return
        for raw in self.table.batches(names, batch_rows):
            batch, offences = {}, []
            for column in self._columns:
                try:
                    with np.errstate(all="ignore"):  # what overflows is out of range
                        batch[column.name] = self._values(column, raw, start, last.get(column.name))
                except Offence as error:
                    offences.append((error.row or 0, column, error))
            if offences:
                _, column, offence = min(offences, key=lambda item: item[0])
                self._tell(column, offence, start, _length(raw), offset, previous)
            last.update({c.name: batch[c.name][-1] for c in self._columns if c.rising})
            start += _length(raw)
            yield batch
        if start != self.rows:
            fail(self.table.path, None, None, f"expected {self.rows} rows, got {start}; fetch or write the file again")

    def _values(self, column: Column, raw: Mapping[str, Values], start: int, before: Any) -> np.ndarray:
        source, field = self._sources[column.name], self._fields[column.name]
        unit = field.unit or source.unit
        values = convert(column, pick(raw[field.name], source.index), unit)
        check(column, values, before=before, unit=unit)
        # A unit is judged by the first rows of each file; one that somebody stated only where it is far off.
        if start == 0 and not self.table.metadata:
            check_typical(column, values, stated=unit)
        return values

    def _tell(
        self, column: Column, offence: Offence, start: int, rows: int, offset: int, previous: Path | None
    ) -> None:
        """Raise the sentence for an offence in the batch at ``start``."""
        name = self._fields[column.name].name
        where = f"{self.table.path}, column {name!r}" + (f" (as {column.name})" if name != column.name else "")
        if offence.row is None:
            raise NuebarError(f"{where}, rows {start} to {start + rows - 1}: {offence.message}") from None
        row = start + offence.row
        where += f", row {row}" + (f" (row {offset + row} of the stream)" if offset else "")
        after = f" (this file comes after {previous})" if column.rising and row == 0 and previous else ""
        raise NuebarError(f"{where}: {offence.message}{after}") from None


def _length(raw: Mapping[str, Values]) -> int:
    values = next(iter(raw.values()))
    return len(values.offsets) - 1 if isinstance(values, Ragged) else len(values)


def _find(table: TableFile, column: Column, source: FileColumn, column_map: ColumnMap) -> Field:
    """The field of a file that is meant, if it can be read."""
    field = table.fields.get(source.name)
    if field is None:
        close = difflib.get_close_matches(source.name, table.fields, n=1)
        tree = f" in {table.tree!r}" if table.tree else ""
        by = f" ({column_map.where} names it for {column.name})" if source.name != column.name else ""
        hint = f"did you mean {close[0]!r}" if close else f'name it in a column map, {column.name} = "..."'
        names = shown(sorted(table.fields))
        fail(table.path, source.name, None, f"expected this column{tree}{by}, got {names}; {hint}")
    if field.dtype is None:
        fail(table.path, field.name, None, f"expected numbers, got {field.type}, which is never read; convert it")
    if field.unit and source.unit not in (None, field.unit):
        got = f"{source.unit!r} in {column_map.where}"
        fail(table.path, field.name, None, f"expected the unit {field.unit!r} that the file states, got {got}")
    if field.unit and (column.unit not in UNITS or UNITS[column.unit][0] != "time"):
        fail(table.path, field.name, None, f"expected numbers for {column.name}, got {field.type}; convert them")
    if source.index is None and field.length > 1:
        entry = f'{column.name} = {{ name = "{field.name}", index = 0 }}'
        message = f"expected one number a row, got {field.length}; say which in a column map, {entry}"
        fail(table.path, field.name, None, message)
    if source.index is not None and field.length and source.index >= field.length:
        message = f"expected an index below {field.length}, got {source.index}; correct {column_map.where}"
        fail(table.path, field.name, None, message)
    return field
