"""Files that are either whole or absent: atomic writes, JSON records and text tables.

Every other reader and writer of :mod:`nuebar.io` goes through here, so a wrong file always ends in one
:class:`~nuebar.errors.NuebarError` that names the file, the line, the column or the key.
"""

import json
import math
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from nuebar.errors import NuebarError

# A decimal number as files write it; Python's own float() would also take "1_0", "nan" and "infinity".
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Lend a temporary path whose file gets the final name only if the body succeeds.

    The temporary file lies in the same folder and keeps the suffix, as many writers look at it. After the
    body it is flushed to disk and renamed; a reader of ``path`` sees the old file or the new one, never a
    part.

    Args:
        path: Where the file shall be; an existing file is replaced, a symbolic link is followed.

    Yields:
        The path to write to.

    Raises:
        NuebarError: The folder is absent or refuses the file, ``path`` is a folder, or the body wrote
            nothing.
        Exception: Whatever the body raises, after the temporary file is removed.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise NuebarError(f"{target}: expected an existing folder {target.parent} to write into; create it first")
    if target.is_dir():
        raise NuebarError(f"{target}: expected the name of a file to write, got a folder; add a file name")
    temporary = target.parent / f".{secrets.token_hex(8)}.part{target.suffix}"
    try:
        yield temporary
        if not temporary.is_file():
            raise NuebarError(f"{target}: expected its writer to write {temporary}, but it wrote nothing there")
        _publish(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path`` in one step: temporary name, flush to disk, rename.

    Raises:
        NuebarError: The place cannot be written; ``path`` is then as it was before.
    """
    with atomic_path(path) as temporary:
        try:
            temporary.write_bytes(data)
        except OSError as error:
            raise NuebarError(f"{path}: cannot be written ({error.strerror}); free or choose another place") from error


def atomic_write_text(path: str | os.PathLike[str], data: str) -> None:
    """Write ``data`` as UTF-8 to ``path`` in one step; line ends are kept as they are.

    Raises:
        NuebarError: The place cannot be written, or the text holds half a surrogate pair.
    """
    try:
        encoded = data.encode("utf-8")
    except UnicodeEncodeError as error:
        raise NuebarError(f"{path}: expected text that UTF-8 can hold, got half a pair at {error.start}") from error
    atomic_write_bytes(path, encoded)


def write_json(path: str | os.PathLike[str], mapping: Mapping[str, Any], *, indent: int | None = 2) -> None:
    """Write a mapping as JSON, in insertion order, with floats that read back bit for bit.

    NumPy and JAX arrays and scalars become lists and numbers. JSON has no NaN and no infinity: they are
    refused.

    Args:
        path: Where to write.
        mapping: The record; keys are text at every level.
        indent: Spaces per level, or None for one line.

    Raises:
        NuebarError: A value is not finite or has no JSON form (the key path is named), or the place is not
            writable.
    """
    if not isinstance(mapping, Mapping):
        raise NuebarError(f"{path}: expected a mapping to write, got {type(mapping).__name__}")
    try:
        text = json.dumps(_plain(mapping, "", path), indent=indent, ensure_ascii=False, allow_nan=False)
    except RecursionError as error:
        raise NuebarError(f"{path}: expected a record of finite depth, got one that holds itself") from error
    atomic_write_text(path, text + "\n")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON file whose top level is an object.

    Args:
        path: The file, UTF-8, with or without a byte-order mark.

    Returns:
        The object, in the order of the file.

    Raises:
        NuebarError: The file is missing, empty, cut short, not JSON (line and column are named), names a key
            twice, holds NaN or infinity, or its top level is not an object.
    """
    text = read_text(path)
    if not text.strip():
        raise NuebarError(f"{path}: expected a JSON object, got an empty file; write the file again")
    try:
        value = json.loads(
            text,
            object_pairs_hook=lambda pairs: _object(pairs, path),
            parse_constant=lambda word: _refuse_constant(word, path),
            parse_float=lambda word: _finite(word, path),
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise NuebarError(
            f"{path}, {where}: expected JSON, got an error ({error.msg.lower()}); the file may be cut short"
        ) from error
    except NuebarError:
        raise
    except (ValueError, RecursionError) as error:
        message = "expected JSON of sensible size, got thousands of digits or brackets in a row"
        raise NuebarError(f"{path}: {message}; write the file again") from error
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise NuebarError(f"{path}: expected a JSON object at the top level, got {kind}; wrap it in braces")
    return value


def output_folder(path: str | os.PathLike[str]) -> Path:
    """Create a folder for results, with its parents, and make sure that it can be written.

    Returns:
        The folder's path.

    Raises:
        NuebarError: ``path`` or a parent is a file, or nothing can be written there.
    """
    folder = Path(path)
    probe = folder / f".{secrets.token_hex(8)}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Permission bits lie on network file systems and for root: only a write proves it.
        probe.touch()
        probe.unlink()
    except (FileExistsError, NotADirectoryError) as error:
        raise NuebarError(f"{folder}: expected a folder for results, got a file; choose another name") from error
    except OSError as error:
        raise NuebarError(
            f"{folder}: expected a folder that can be written, got {error.strerror!r}; choose another place"
        ) from error
    return folder


def read_bytes(path: str | os.PathLike[str], size: int = -1) -> bytes:
    """Read a file, or only its first ``size`` bytes.

    Raises:
        NuebarError: There is no such file, it is a folder, or it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except FileNotFoundError as error:
        raise NuebarError(f"{path}: expected a file, found none; check the path") from error
    except IsADirectoryError as error:
        raise NuebarError(f"{path}: expected a file, got a folder; name the file in it") from error
    except OSError as error:
        raise NuebarError(f"{path}: expected a readable file, got {error.strerror!r}; check its rights") from error


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a UTF-8 text file; a byte-order mark is dropped and every kind of line end becomes a newline.

    Raises:
        NuebarError: The file cannot be read, or is not UTF-8 (the byte is named).
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NuebarError(
            f"{path}, byte {error.start}: expected UTF-8 text, got 0x{error.object[error.start]:02x}; "
            "convert the file to UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


@dataclass(frozen=True)
class TextTable:
    """The cells of a text table, each still tied to its line of the file.

    Attributes:
        path: The file, for error messages.
        header: Column names, empty if the file has none.
        lines: Line number of each row, counted from 1.
        rows: Cells of each row, as many as there are columns.
    """

    path: str
    header: tuple[str, ...]
    lines: tuple[int, ...]
    rows: tuple[tuple[str, ...], ...]

    def text(self, name: str) -> tuple[str, ...]:
        """Cells of one column, none of them empty."""
        index = self._index(name)
        for line, row in zip(self.lines, self.rows, strict=True):
            if not row[index]:
                self.fail(line, name, "expected a name, got an empty cell; fill it in")
        return tuple(row[index] for row in self.rows)

    def numbers(self, name: str) -> np.ndarray:
        """One column as float64, shape (rows,); every cell must be a finite number."""
        index = self._index(name)
        values = np.empty(len(self.rows))
        for i, (line, row) in enumerate(zip(self.lines, self.rows, strict=True)):
            cell = row[index]
            values[i] = float(cell) if _NUMBER.fullmatch(cell) else math.nan
            if not math.isfinite(values[i]):
                self.fail(line, name, f"expected a finite number, got {cell!r}; correct the cell")
        return values

    def fail(self, line: int | None, column: str | None, message: str) -> NoReturn:
        """Raise a :class:`NuebarError` that says where in this table.

        Args:
            line: Line of the file, or None for the whole table.
            column: Name of the column, or None for the whole row.
            message: Expected, got, and what to do.

        Raises:
            NuebarError: Always.
        """
        where = f", line {line}" if line is not None else ""
        where += f", column {column!r}" if column is not None else ""
        raise NuebarError(f"{self.path}{where}: {message}")

    def require(self, good: np.ndarray, column: str, message: str) -> None:
        """Raise at the first row where ``good``, shape (rows,), is False."""
        if not np.all(good):
            self.fail(self.lines[int(np.argmin(good))], column, message)

    def _index(self, name: str) -> int:
        return self.header.index(name)


def read_text_table(
    path: str | os.PathLike[str],
    columns: Sequence[str],
    *,
    optional: Sequence[str] = (),
    header: bool = True,
) -> TextTable:
    """Read a table of cells separated by commas, or by blanks in lines that hold no comma.

    Text after ``#`` is a comment. Empty lines, and lines of commas alone as spreadsheets leave them, are
    skipped.

    Args:
        path: A UTF-8 text file.
        columns: Names that the header must hold, in any order; other columns may stand beside them.
        optional: Names that the header may hold.
        header: False if a file without a header line is accepted too; its columns are then exactly
            ``columns``.

    Returns:
        The table, with at least one row; :meth:`TextTable.numbers` checks the cells of a column.

    Raises:
        NuebarError: No rows, a column missing or named twice, or a row of the wrong length.
    """
    table = [
        (number, cells) for number, line in enumerate(read_text(path).split("\n"), 1) if any(cells := _cells(line))
    ]
    wanted = ", ".join(columns)
    if not table:
        raise NuebarError(f"{path}: expected a table with the columns {wanted}, got no rows; check the file")
    if header or not any(_NUMBER.fullmatch(cell) for cell in table[0][1]):
        names, table = _header(path, table[0], columns, optional), table[1:]
    else:
        names = tuple(columns)
    if not table:
        raise NuebarError(f"{path}: expected rows under the header {wanted}, got none; the file may be cut short")
    for line, cells in table:
        if len(cells) != len(names):
            raise NuebarError(
                f"{path}, line {line}: expected {len(names)} cells ({', '.join(filter(None, names))}), "
                f"got {len(cells)}; complete the row"
            )
    return TextTable(str(path), names, tuple(line for line, _ in table), tuple(cells for _, cells in table))


def _cells(line: str) -> tuple[str, ...]:
    content = line.split("#", 1)[0]
    parts = content.split(",") if "," in content else content.split()
    return tuple(part.strip().strip('"') for part in parts)


def _header(
    path: str | os.PathLike[str],
    row: tuple[int, tuple[str, ...]],
    columns: Sequence[str],
    optional: Sequence[str],
) -> tuple[str, ...]:
    line, names = row
    for name in (*columns, *optional):
        if names.count(name) > 1:
            raise NuebarError(f"{path}, line {line}: expected the column {name!r} once, got it twice; rename one")
        if name not in names and name in columns:
            found = ", ".join(filter(None, names))
            raise NuebarError(
                f"{path}, line {line}: expected a header with the column {name!r}, got {found}; "
                f"name the columns {', '.join(columns)}"
            )
    return names


def _publish(temporary: Path, target: Path) -> None:
    try:
        _flush(temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise NuebarError(f"{target}: cannot be written ({error.strerror}); free or choose another place") from error
    # The rename itself; some file systems cannot flush a folder.
    with suppress(OSError):
        _flush(target.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _plain(value: Any, key: str, path: str | os.PathLike[str]) -> Any:
    """The same value in JSON's own types; ``key`` is the path of keys so far."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NuebarError(
                f"{path}, key {key}: expected a finite number, got {value}; leave the key out or use null"
            )
        return float(value)
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise NuebarError(f"{path}, key {key or 'top level'}: expected keys that are text, got {name!r}")
        return {str(name): _plain(item, f"{key}.{name}" if key else name, path) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{key}[{i}]", path) for i, item in enumerate(value)]
    if isinstance(value, np.generic) or hasattr(value, "__array__"):
        plain = np.asarray(value).tolist()
        if not isinstance(plain, np.generic):
            return _plain(plain, key, path)
    kind = type(value).__name__
    raise NuebarError(f"{path}, key {key}: expected numbers, text, lists or mappings, got {kind}; convert it first")


def _object(pairs: list[tuple[str, Any]], path: str | os.PathLike[str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise NuebarError(f"{path}: expected each key once, got {key!r} twice in one object; remove one")
        result[key] = value
    return result


def _refuse_constant(word: str, path: str | os.PathLike[str]) -> NoReturn:
    raise NuebarError(f"{path}: expected finite numbers, got {word}; replace it by null or a number")


def _finite(word: str, path: str | os.PathLike[str]) -> float:
    value = float(word)
    if not math.isfinite(value):
        raise NuebarError(f"{path}: expected finite numbers, got {word}; replace it by null or a number")
    return value
