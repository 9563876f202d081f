"""HDF5 files: the one door to h5py, and datasets as event tables.

A table is either a group whose datasets are the columns, or one dataset of compound rows (as PyTables and
pandas write them). Links to other files and raw external storage are not followed.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.tables import Field, TableFile, Values, number_type, only_one, reading

__all__ = ["Hdf5Table"]


@contextmanager
def _open_hdf5(path: str | os.PathLike[str]) -> Iterator[Any]:
    """An open HDF5 file; whatever goes wrong inside is told as one sentence."""
    try:
        import h5py
    except ImportError as error:
        message = f"{path}: reading an HDF5 file needs h5py, which is not installed; pip install 'nuebar[events]'"
        raise NuebarError(message) from error
    try:
        with h5py.File(path, "r") as file:
            yield file
    except NuebarError:
        raise
    except Exception as error:  # a damaged file can make a parser of binary data fail in any way
        what = "one that is cut short" if "truncated" in str(error) else f"{type(error).__name__} while reading"
        raise NuebarError(f"{path}: expected a whole HDF5 file, got {what}; fetch or write it again") from error


class Hdf5Table(TableFile):
    """A group of datasets or a compound dataset of an HDF5 file."""

    format = "hdf5"

    def __init__(self, path: Path, tree: str | None = None) -> None:
        """Read the names and types of the datasets.

        Args:
            path: The file.
            tree: Name of the group, ``/`` for the top, or of a compound dataset; may be left out where only
                one thing in the file can be meant.

        Raises:
            NuebarError: The file is not whole, or has no such group.
        """
        self.path, self.metadata = path, {}
        with _open_hdf5(path) as file:
            datasets = _datasets(file)
            compound = [name for name, data in datasets.items() if data.dtype.names and data.ndim == 1]
            if tree is not None and tree.strip("/") in compound:
                self.tree = tree.strip("/")
            else:
                self.tree = only_one(path, "group", tree, _groups(datasets, compound, tree), if_none="fill it")
            if self.tree in compound:
                self.fields = _compound_fields(datasets[self.tree])
            else:
                above = f"{self.tree}/" if self.tree else ""
                inside = {n.removeprefix(above): data for n, data in datasets.items() if n.startswith(above)}
                self.fields = {name: _dataset_field(name, data) for name, data in inside.items() if data.ndim}

    def batches(self, names: Sequence[str], batch_rows: int) -> Iterator[dict[str, Values]]:
        """Some columns in batches of rows; see :meth:`TableFile.batches`."""
        rows = self.fields[names[0]].rows
        with _open_hdf5(self.path) as file:
            table = file[f"/{self.tree}"]
            for start in range(0, rows, batch_rows):
                stop = min(start + batch_rows, rows)
                if hasattr(table, "dtype"):
                    with reading(self.path, ", ".join(names), start, stop):
                        records = table.fields(list(names))[start:stop]
                    yield {name: np.ascontiguousarray(records[name]) for name in names}
                else:
                    yield {name: self._read(table, name, start, stop) for name in names}

    def _read(self, group: Any, name: str, start: int, stop: int) -> np.ndarray:
        with reading(self.path, name, start, stop):
            return group[name][start:stop]


def _datasets(file: Any) -> dict[str, Any]:
    """Every dataset of the file itself, by its path without the leading slash."""
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if hasattr(item, "dtype") and hasattr(item, "shape") and item.shape is not None:
            found[name] = item

    # Follows neither soft nor external links, so it ends and stays within the file.
    file.visititems(visit)
    return found


def _groups(datasets: dict[str, Any], compound: Sequence[str], tree: str | None) -> list[str]:
    """What can be meant as the table: the groups that hold a column, and the compound datasets."""
    columns = [name for name, data in datasets.items() if data.ndim in (1, 2) and number_type(data.dtype)]
    groups = list(dict.fromkeys(name.rpartition("/")[0] for name in columns))
    if tree is not None:  # a group may also hold its columns in groups of its own
        wanted = tree.strip("/")
        groups += [wanted] if not wanted or any(name.startswith(f"{wanted}/") for name in datasets) else []
    return [*groups, *compound]


def _dataset_field(name: str, data: Any) -> Field:
    dtype, kind = number_type(data.dtype), str(data.dtype)
    if data.is_virtual or data.external:
        dtype, kind = None, "data of another file"
    elif data.ndim > 2 or data.dtype.names:
        dtype, kind = None, f"{data.ndim} dimensions" if data.ndim > 2 else "compound rows"
    return Field(name, dtype, kind, int(data.shape[1]) if data.ndim == 2 else 1, int(data.shape[0]))


def _compound_fields(data: Any) -> dict[str, Field]:
    fields, rows, elsewhere = {}, int(data.shape[0]), data.is_virtual or data.external
    for name in data.dtype.names:
        kind = data.dtype[name]
        flat = len(kind.shape) <= 1 and not elsewhere
        fields[name] = Field(name, number_type(kind.base) if flat else None, str(kind), int(np.prod(kind.shape)), rows)
    return fields
