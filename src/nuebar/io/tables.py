"""What Parquet, ROOT and HDF5 have in common: a table of named columns that is read in batches of rows.

Only columns of numbers are ever read: texts, objects and anything else that would need code to be understood
stay in the file.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from nuebar.errors import NuebarError

__all__ = ["Field", "Ragged", "TableFile", "Values", "fail", "number_type", "only_one", "reading", "shown"]

# Names in a message; a tree of a large experiment has hundreds.
_SHOWN = 12


class Ragged(NamedTuple):
    """Lists of numbers of any length: row ``i`` is ``values[offsets[i]:offsets[i + 1]]``."""

    offsets: np.ndarray
    values: np.ndarray


# One number a row, shape (rows,); several, shape (rows, length); or lists.
Values = np.ndarray | Ragged


@dataclass(frozen=True)
class Field:
    """A column as its file declares it.

    Attributes:
        name: Its name in the file.
        dtype: NumPy type of one of its numbers, or None for what is no number and is never read.
        type: The file's own word for the type.
        length: Numbers in a row; 0 for lists of any length.
        rows: Rows of the column.
        unit: The unit that the file itself declares (of a time stamp), or empty.
    """

    name: str
    dtype: np.dtype | None
    type: str
    length: int
    rows: int
    unit: str = ""


class TableFile(ABC):
    """A table in a file. The file is open only while batches are read.

    Attributes:
        path: The file.
        format: ``parquet``, ``root`` or ``hdf5``.
        tree: Name of the tree (ROOT) or group (HDF5), or empty.
        fields: The columns by name, in the order of the file.
        metadata: What the writer of this package noted in the file, or empty.
    """

    path: Path
    format: str
    tree: str
    fields: Mapping[str, Field]
    metadata: Mapping[str, Any]

    @abstractmethod
    def batches(self, names: Sequence[str], batch_rows: int) -> Iterator[dict[str, Values]]:
        """Some columns, at most ``batch_rows`` rows at a time, in the order of the file.

        Raises:
            NuebarError: The data are damaged or hold empty cells; column and rows are named.
        """


def number_type(dtype: np.dtype) -> np.dtype | None:
    """The type in this machine's byte order if it is one of whole, floating or truth numbers, else None."""
    return np.dtype(f"={dtype.kind}{dtype.itemsize}") if dtype.kind in "iufb" else None


def fail(path: str | os.PathLike[str], column: str | None, row: int | None, message: str) -> NoReturn:
    """Raise the sentence that names file, column and row (counted from 0).

    Args:
        path: The file.
        column: Its column, if one is meant.
        row: Its row, if one is meant.
        message: What was expected, what came, what to do.

    Raises:
        NuebarError: Always.
    """
    where = f", column {column!r}" if column is not None else ""
    where += f", row {row}" if row is not None else ""
    raise NuebarError(f"{path}{where}: {message}")


@contextmanager
def reading(path: str | os.PathLike[str], column: str, start: int, stop: int) -> Iterator[None]:
    """Tell whatever a reader of binary data raises in the body as damage of these rows.

    Args:
        path: The file.
        column: What is read.
        start: First row.
        stop: One after the last row.

    Yields:
        Nothing; the body reads.

    Raises:
        NuebarError: The body raised something that damaged data raise.
    """
    try:
        yield
    except NuebarError:
        raise
    except Exception as error:  # a damaged file can make a parser of binary data fail in any way
        message = f"expected numbers, got damaged data ({type(error).__name__}); fetch or write the file again"
        raise NuebarError(f"{path}, column {column!r}, rows {start} to {stop - 1}: {message}") from error


def only_one(path: Path, what: str, wanted: str | None, found: Sequence[str], *, if_none: str) -> str:
    """The wanted name if the file has it, or the only one that the file has.

    Args:
        path: The file.
        what: What is named: ``tree`` or ``group``.
        wanted: The name, or None.
        found: What the file has.
        if_none: What an empty ``found`` may mean.

    Raises:
        NuebarError: There is none, another, or a choice.
    """
    if not found:
        raise NuebarError(f"{path}: expected a {what} with columns, got none; {if_none}")
    if wanted is None and len(found) == 1:
        return found[0]
    if wanted is not None and wanted.strip("/") in found:
        return wanted.strip("/")
    expected = f"the {what} {wanted!r}" if wanted is not None else f"one {what}"
    raise NuebarError(f"{path}: expected {expected}, got {shown(found)}; name one of them as tree in the column map")


def shown(names: Sequence[str]) -> str:
    """Names for a message, the first dozen."""
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name) for name in names[:_SHOWN]) + rest if names else "none"
