"""The ledger of a stage: one line of JSON for each chunk that was done or failed, in the order of time.

A line is added and flushed to disk after its chunk's file has the final name. A line that a crash cut off is no
line: its chunk is done again. Adding does not read or rewrite what is there.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from nuebar.errors import NuebarError
from nuebar.io.files import read_bytes
from nuebar.run.chunk import Outcome, fingerprint

log = logging.getLogger(__name__)
LEDGER = "ledger.jsonl"


@dataclass(frozen=True)
class Entry:
    """The last that the ledger says about a chunk.

    Attributes:
        size: Bytes of its file.
        digest: Checksum of its file.
        summary: What the chunk function returned.
        error: Empty, or why it failed.
    """

    size: int
    digest: str
    summary: dict[str, Any] | None
    error: str

    def present(self, path: Path) -> bool:
        """Whether the file is there with the right size (quick)."""
        try:
            return not self.error and path.stat().st_size == self.size
        except OSError:
            return False

    def intact(self, path: Path) -> bool:
        """Whether the file is there with the right content; damage is logged."""
        if self.error:
            return False
        try:
            good = path.stat().st_size == self.size and fingerprint(path) == self.digest
        except FileNotFoundError:
            log.warning("%s: recorded as finished, but missing; it is done again", path)
            return False
        except OSError as error:
            log.warning("%s: recorded as finished, but unreadable (%s); it is done again", path, error.strerror)
            return False
        if not good:
            log.warning("%s: recorded as finished, but its content has changed since; it is done again", path)
        return good


def read_ledger(path: Path) -> dict[int, Entry]:
    """The last entry of each chunk; empty without a file. Lines that a crash cut off are left out."""
    entries: dict[int, Entry] = {}
    if not path.exists():
        return entries
    for number, line in enumerate(read_bytes(path).split(b"\n"), 1):
        if not line:
            continue
        try:
            record = json.loads(line)
            entry = Entry(int(record["size"]), str(record["digest"]), record["summary"], str(record["error"]))
            entries[int(record["chunk"])] = entry
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            log.info("%s, line %d: cut off; that chunk is done again", path, number)
    return entries


class Ledger:
    """A ledger open for adding; use it in a ``with`` statement.

    Raises:
        NuebarError: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            # A line that a crash cut off must not swallow the next one.
            size = os.fstat(self._descriptor).st_size
            self._open_line = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"
        except OSError as error:
            raise self._refusal(error) from error

    def add(self, outcome: Outcome) -> None:
        """Add what came of a chunk, and flush it to disk."""
        record = {name: getattr(outcome, name) for name in ("chunk", "size", "digest", "summary", "error")}
        data = json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n"
        if self._open_line:
            data = b"\n" + data
        self._open_line = True
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._refusal(error) from error
        self._open_line = False

    def _refusal(self, error: OSError) -> NuebarError:
        reason = f"cannot be written ({error.strerror})"
        return NuebarError(f"{self.path}: {reason}; free or choose another place, and the same command continues")

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            os.close(self._descriptor)
