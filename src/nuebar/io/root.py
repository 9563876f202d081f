"""ROOT files: the one door to uproot, and trees as event tables.

TTree and RNTuple are read branch by branch with ``array``; uproot's expressions, which may run code that a
file holds as an alias, are never evaluated.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.files import read_bytes
from nuebar.io.tables import Field, Ragged, TableFile, Values, number_type, only_one, reading

__all__ = ["RootTable", "open_root"]

_TREES = ("TTree", "TNtuple", "TNtupleD", "ROOT::RNTuple")
# What RNTuple calls its numbers.
_RNTUPLE_TYPES = {
    "bool": "bool",
    "float": "float32",
    "double": "float64",
    **{f"std::{sign}int{bits}_t": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


@contextmanager
def open_root(path: str | os.PathLike[str]) -> Iterator[Any]:
    """An open ROOT file; whatever goes wrong inside is told as one sentence.

    Yields:
        uproot's file object.

    Raises:
        NuebarError: uproot is not installed, or the file is missing, cut short, damaged or no ROOT file.
    """
    try:
        import uproot
    except ImportError as error:
        message = f"{path}: reading a ROOT file needs uproot, which is not installed; pip install 'nuebar[root]'"
        raise NuebarError(message) from error
    _check_header(path)
    try:
        # Without caches memory stays constant however long the stream is.
        with uproot.open(Path(path), array_cache=None) as file:
            yield file
    except NuebarError:
        raise
    except Exception as error:  # a damaged file can make a parser of binary data fail in any way
        kind = type(error).__name__
        raise NuebarError(f"{path}: expected a whole ROOT file, got {kind} while reading; fetch it again") from error


def _check_header(path: str | os.PathLike[str]) -> None:
    # https://root.cern/doc/master/classTFile.html: "root", version, first byte of data, and the end of the
    # file, which takes 8 bytes instead of 4 from version 1 000 000 on.
    data, size = read_bytes(path, 20), os.path.getsize(path)
    if data.startswith(b"root") and size < 20:
        raise NuebarError(f"{path}: expected a header of 20 bytes, got {size}: the file is cut short; fetch it again")
    if not data.startswith(b"root"):
        raise NuebarError(f"{path}: expected a ROOT file, got something else; check the path")
    large = int.from_bytes(data[4:8], "big") >= 1_000_000
    end = int.from_bytes(data[12 : 20 if large else 16], "big")
    if end > size:
        raise NuebarError(f"{path}: expected {end} bytes, got {size}: the file is cut short; fetch it again")


class RootTable(TableFile):
    """A TTree or an RNTuple of a ROOT file."""

    format = "root"

    def __init__(self, path: Path, tree: str | None = None) -> None:
        """Read the names and types of the branches.

        Args:
            path: The file.
            tree: Name of the tree, with its folders; may be left out where the file holds one only.

        Raises:
            NuebarError: The file is not whole, or has no such tree.
        """
        self.path, self.metadata = path, {}
        with open_root(path) as file:
            # Without the cycle the newest copy of a tree counts; the older ones are autosaves.
            kinds = file.classnames(cycle=False)
            trees = [name for name, kind in kinds.items() if kind in _TREES]
            died = "the job that wrote the file may have died before closing it"
            self.tree = only_one(path, "tree", tree, trees, if_none=died)
            table = file[self.tree]
            field = _rntuple_field if kinds[self.tree] == "ROOT::RNTuple" else _branch_field
            self.fields = {name: field(name, branch) for name, branch in table.items()}

    def batches(self, names: Sequence[str], batch_rows: int) -> Iterator[dict[str, Values]]:
        """Some columns in batches of rows; see :meth:`TableFile.batches`."""
        rows = self.fields[names[0]].rows
        with open_root(self.path) as file:
            table = file[self.tree]
            branches = {name: table[name] for name in names}
            for start, stop in _spans(_block_starts(table, branches[names[0]]), rows, batch_rows):
                span = {name: self._read(name, branch, start, stop) for name, branch in branches.items()}
                for first in range(0, stop - start, batch_rows):
                    last = min(first + batch_rows, stop - start)
                    yield {name: _rows(values, first, last) for name, values in span.items()}

    def _read(self, name: str, branch: Any, start: int, stop: int) -> Values:
        field = self.fields[name]
        with reading(self.path, name, start, stop):
            if field.length:
                values = np.asarray(branch.array(entry_start=start, entry_stop=stop, library="np"))
                # A basket that decompresses to something else must not pass as numbers.
                if values.dtype != field.dtype or len(values) != stop - start:
                    raise TypeError(values.dtype)
                return values
            layout = branch.array(entry_start=start, entry_stop=stop, library="ak").layout
            return Ragged(np.asarray(layout.offsets.data), np.asarray(layout.content.data))


def _block_starts(table: Any, branch: Any) -> list[int]:
    """First rows of what the file compresses as one: clusters of an RNTuple, baskets of a branch."""
    if hasattr(table, "cluster_summaries"):
        return [int(cluster.num_first_entry) for cluster in table.cluster_summaries]
    return [int(row) for row in branch.entry_offsets]


def _spans(starts: Sequence[int], rows: int, batch_rows: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows to read at once: as many blocks as make a batch, or one that is larger than a batch.

    No block is decompressed twice, however large it is; branches have their blocks at different rows only
    where these are small.
    """
    edges = [*sorted({0, *(s for s in starts if 0 < s < rows)}), rows]
    start = 0
    for stop, after in zip(edges[1:], [*edges[2:], None], strict=True):
        if after is None or after - start > batch_rows:
            if stop > start:
                yield start, stop
            start = stop


def _rows(values: Values, first: int, last: int) -> Values:
    if isinstance(values, Ragged):
        return Ragged(values.offsets[first : last + 1], values.values)
    return values[first:last]


def _branch_field(name: str, branch: Any) -> Field:
    """What a branch of a TTree holds, by uproot's interpretation of it."""
    interpretation, rows = branch.interpretation, int(branch.num_entries)
    kind = type(interpretation).__name__
    ragged = kind == "AsJagged"  # C arrays of varying length, and std::vector
    content = interpretation.content if ragged else interpretation
    dtype, length = None, 1
    if type(content).__name__ == "AsDtype":
        base, shape = content.to_dtype.base, content.to_dtype.shape
        if len(shape) + ragged <= 1:
            dtype, length = number_type(base), 0 if ragged else int(np.prod(shape))
    return Field(name, dtype, str(branch.typename or kind), length, rows)


def _rntuple_field(name: str, field: Any) -> Field:
    """What a field of an RNTuple holds, by its C++ type."""
    kind, rows = str(field.typename), int(field.ntuple.num_entries)
    ragged = kind.startswith("std::vector<")
    inner = kind[len("std::vector<") : -1] if ragged else kind
    dtype = np.dtype(_RNTUPLE_TYPES[inner]) if inner in _RNTUPLE_TYPES else None
    return Field(name, dtype, kind, 0 if ragged else 1, rows)
