"""The writer of our own event tables: Parquet, whole or absent, the same bytes for the same events."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, NoReturn, Self

import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.column_checks import Offence, check, convert
from nuebar.io.columns import Column, known_column
from nuebar.io.files import atomic_path
from nuebar.io.parquet import ParquetSink
from nuebar.io.tables import fail

__all__ = ["GROUP_ROWS", "EventWriter"]

# Rows of a row group: what is held in memory, and what a reader can skip or fetch at once.
GROUP_ROWS = 2**20
_STORED = ("int64", "float32", "float64")


class EventWriter:
    """Appends batches of events to a Parquet file that gets its name when it is complete.

    The bytes depend on the events, the columns and the metadata, not on how the events were cut into batches
    and not on the time. Every batch is checked as a reader would check it::

        with EventWriter("chunk.parquet", ("t_ns", "e_rec_MeV"), metadata={"seed": 1}) as writer:
            writer.append({"t_ns": t, "e_rec_MeV": e})

    Attributes:
        metadata: Plain JSON for the file, which may be added to until the end of the block.
        rows: Rows so far.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        columns: Sequence[str | Column],
        *,
        metadata: Mapping[str, Any] | None = None,
        group_rows: int = GROUP_ROWS,
    ) -> None:
        """Prepare; the file is opened on entering the block.

        Args:
            path: Where the file shall be; an existing one is replaced at the end.
            columns: Names (see :func:`~nuebar.io.columns.known_column`), or records whose ``stored`` says the
                type in the file.
            metadata: Seed, hash of the configuration and the like; never the time of day.
            group_rows: Rows of a row group.

        Raises:
            NuebarError: No columns, one twice, or one of another type.
        """
        self.path, self.metadata, self.rows = os.fspath(path), dict(metadata or {}), 0
        records = [c if isinstance(c, Column) else known_column(c) for c in columns]
        self._columns = {record.name: record for record in records}
        if not records or len(self._columns) < len(records):
            names = [record.name for record in records]
            raise NuebarError(f"{self.path}: expected the names of columns, each once, got {names}; correct them")
        for record in records:
            if record.stored not in _STORED or (record.kind == "int") != (record.stored == "int64"):
                self._fail(record.name, f"expected to store {record.kind} as one of {_STORED}, got {record.stored!r}")
        self._group = {name: np.empty(group_rows, record.stored) for name, record in self._columns.items()}
        self._filled, self._last = 0, dict[str, Any]()
        self._stack = ExitStack()
        self._sink: ParquetSink
        self._open = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path))
            dtypes = {name: values.dtype for name, values in self._group.items()}
            rising = [name for name, column in self._columns.items() if column.rising]
            try:
                self._sink = stack.enter_context(ParquetSink(temporary, dtypes, rising))
            except OSError as error:
                raise self._refused(error) from error
            self._stack = stack.pop_all()
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        except BaseException as problem:
            # The stack drops the file when it sees an exception, and gives it its name when it sees none.
            self._stack.__exit__(type(problem), problem, problem.__traceback__)
            raise
        finally:
            self._open = False
        self._stack.__exit__(kind, error, trace)

    def append(self, batch: Mapping[str, Any]) -> None:
        """Add events.

        Args:
            batch: Column → numbers, shape (rows,); all columns and no others, in our units.

        Raises:
            NuebarError: A column is missing or unknown, the lengths differ, a value is refused (column and
                row are named), or the disk refuses the file.
        """
        if not self._open:
            self._fail(None, "expected an open file, got a writer outside of its 'with' block; append inside of it")
        if set(batch) != set(self._columns):
            expected, got = ", ".join(self._columns), ", ".join(batch)
            self._fail(None, f"expected batches with the columns {expected}, got {got}; give these columns")
        arrays = {name: self._checked(column, batch[name]) for name, column in self._columns.items()}
        rows = len(next(iter(arrays.values())))
        for name, values in arrays.items():
            if len(values) != rows:
                self._fail(name, f"expected {rows} rows, as in the first column, got {len(values)}; cut them alike")
        if rows:
            self._last.update({name: values[-1] for name, values in arrays.items() if self._columns[name].rising})
        self._store(arrays, rows)

    def _store(self, arrays: Mapping[str, np.ndarray], rows: int) -> None:
        size = len(next(iter(self._group.values())))
        done = 0
        while done < rows:
            step = min(rows - done, size - self._filled)
            for name, values in arrays.items():
                self._group[name][self._filled : self._filled + step] = values[done : done + step]
            done, self._filled, self.rows = done + step, self._filled + step, self.rows + step
            if self._filled == size:
                self._flush()

    def _finish(self) -> None:
        if own := {"format", "rows"} & set(self.metadata):
            self._fail(None, f"expected metadata without {', '.join(sorted(own))}, which the writer notes; rename it")
        if self._filled:
            self._flush()
        try:
            self._sink.close({**self.metadata, "rows": self.rows})
        except OSError as error:
            raise self._refused(error) from error
        except (TypeError, ValueError) as error:
            self._fail(None, f"expected metadata of plain JSON with finite numbers, got others ({error})")

    def _flush(self) -> None:
        try:
            self._sink.write({name: values[: self._filled] for name, values in self._group.items()})
        except OSError as error:
            raise self._refused(error) from error
        self._filled = 0

    def _checked(self, column: Column, raw: Any) -> np.ndarray:
        """The batch's values as they are stored."""
        values = np.asarray(raw)
        if values.ndim != 1 or values.dtype.kind not in "iufb":
            got = f"{values.dtype} of shape {values.shape}"
            self._fail(column.name, f"expected numbers of shape (rows,), got {got}; convert them")
        try:
            with np.errstate(all="ignore"):  # what overflows is out of range
                stored = convert(column, values, None).astype(column.stored, copy=False)
                check(column, stored, before=self._last.get(column.name))
        except Offence as offence:
            row = None if offence.row is None else self.rows + offence.row
            fail(self.path, column.name, row, offence.message)
        return stored

    def _refused(self, error: OSError) -> NuebarError:
        reason = error.strerror or " ".join(str(error).split())
        return NuebarError(f"{self.path}: cannot be written ({reason}); free or choose another place")

    def _fail(self, column: str | None, message: str) -> NoReturn:
        fail(self.path, column, None, message)
