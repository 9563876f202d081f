"""One chunk of work: its key, its task, and what came of it."""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import os
import re
import traceback
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nuebar.errors import NuebarError
from nuebar.io.files import atomic_path

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.part.*", re.DOTALL)

ChunkFunction = Callable[[dict[str, Any], int, int, Path], Mapping[str, Any] | None]
"""``function(config, chunk, key, path)``: writes ``path``, whose file gets its final name when the function
returns, and gives back a small summary in plain JSON, or None."""


@dataclass(frozen=True)
class Task:
    """A chunk to be done: text and numbers only, so that it can travel to any machine.

    Attributes:
        stage: Name of the stage.
        function: The chunk function, as ``module:function``.
        config: JSON text of its first argument.
        chunk: Index of the chunk, from 0.
        key: 64-bit key of the chunk's random numbers.
        path: The file to write.
    """

    stage: str
    function: str
    config: str
    chunk: int
    key: int
    path: str


@dataclass(frozen=True)
class Outcome:
    """What came of a chunk.

    Attributes:
        chunk: Index of the chunk.
        size: Bytes of its file.
        digest: Checksum of its file, see :func:`fingerprint`.
        summary: What the chunk function returned.
        error: Empty, or why there is no file.
        expected: Whether ``error`` is a sentence for the user; False for a bug.
        cause: The exception behind ``error``.
    """

    chunk: int
    size: int = 0
    digest: str = ""
    summary: dict[str, Any] | None = None
    error: str = ""
    expected: bool = True
    cause: BaseException | None = None


class TaskSource(Iterator[Task]):
    """The tasks of a run, which end early when it shall stop."""

    @property
    @abstractmethod
    def over(self) -> bool:
        """Whether the run shall stop: an executor that waits for workers then gives up waiting."""


class Executor(Protocol):
    """Whatever runs tasks: this process, local workers, a cluster.

    A task is taken from the iterator only when there is a place for it, as the iterator ends early when a run shall
    stop (a :class:`TaskSource` says so beforehand). Outcomes come in any order, one for each task taken; fewer only
    if there was nobody to do them when the run was over. Closing the returned generator ends the running tasks at
    once.
    """

    def __call__(self, tasks: Iterator[Task]) -> Generator[Outcome, None, None]:
        """Run the tasks with :func:`run_task` and yield what came of each."""
        ...


Workers = int | Executor
"""Who does chunks: so many processes of this machine, or an executor."""


def chunk_key(seed: int, stage: str, chunk: int) -> int:
    """The 64-bit key of a chunk's random numbers: BLAKE2b (RFC 7693) of seed, stage name and chunk index."""
    words = f"{seed}\n{stage}\n{chunk}".encode()
    return int.from_bytes(hashlib.blake2b(words, digest_size=8, person=b"nuebar chunk").digest(), "little")


def fingerprint(path: str | os.PathLike[str]) -> str:
    """Short checksum of a file's content: 64 bits of BLAKE2b, as 16 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def in_process(tasks: Iterator[Task]) -> Generator[Outcome, None, None]:
    """The executor that runs one task after the other in this process."""
    for task in tasks:
        yield run_task(task)


def run_task(task: Task) -> Outcome:
    """Do one chunk here; an exception becomes an outcome with its sentence."""
    try:
        return _run(task)
    except NuebarError as error:
        return Outcome(task.chunk, error=str(error), cause=error)
    except OSError as error:
        return Outcome(task.chunk, error=_refusal(error, task.path), cause=error)
    except MemoryError as error:
        message = "expected enough memory for the chunk, got too little; use fewer jobs or smaller chunks"
        return Outcome(task.chunk, error=message, cause=error)
    except Exception as error:
        last = traceback.format_exception_only(error)[-1].strip()
        return Outcome(task.chunk, error=last, expected=False, cause=error)


def plain(value: Any, where: str) -> Any:
    """A copy of ``value`` in JSON's own types; arrays and NumPy scalars become lists and numbers.

    Args:
        value: Numbers, text, lists and mappings.
        where: What it is, for the error.

    Raises:
        NuebarError: Something in it has no JSON form; its dotted key is named.
    """
    try:
        return json.loads(_dumps(value))
    except (TypeError, ValueError, RecursionError):
        key, culprit = _culprit(value, "")
        got = repr(culprit) if isinstance(culprit, float) else type(culprit).__name__
        raise NuebarError(
            f"{where}, key {key or 'top level'}: expected finite numbers, text, lists or mappings, got {got}; "
            "convert it first"
        ) from None


def resolve(function: str) -> ChunkFunction:
    """The function that ``module:function`` names.

    Raises:
        NuebarError: There is no such module or no such function in it.
    """
    module, _, name = function.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise NuebarError(f"expected the chunk function {function!r}, got {error}; install or correct it") from error
    if not callable(found):
        raise NuebarError(f"expected the chunk function {function!r}, got {type(found).__name__}; correct its name")
    return found


def remove_temporaries(folder: Path) -> None:
    """Remove what writers that were killed left in ``folder``; the caller knows that none is at work."""
    for entry in folder.iterdir():
        if _TEMPORARY.fullmatch(entry.name):
            entry.unlink(missing_ok=True)


def _run(task: Task) -> Outcome:
    function = resolve(task.function)
    size, digest = 0, ""
    with atomic_path(task.path) as temporary:
        summary = function(json.loads(task.config), task.chunk, task.key, temporary)
        if summary is not None:
            summary = plain(dict(summary), f"summary of {task.function}")
        # Without a file there, atomic_path says so.
        if temporary.is_file():
            size, digest = temporary.stat().st_size, fingerprint(temporary)
    return Outcome(task.chunk, size, digest, summary)


def _refusal(error: OSError, path: str) -> str:
    named = str(error.filename) if error.filename is not None else path
    if _TEMPORARY.fullmatch(os.path.basename(named)):
        named = path
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return f"{named}: cannot be written ({reason}); free some space, and the same command continues"
    return f"{named}: expected a file that can be used, got {reason!r}; mend that, and the same command continues"


def _dumps(value: Any) -> str:
    return json.dumps(value, allow_nan=False, default=_listed)


def _listed(value: Any) -> Any:
    if hasattr(value, "__array__"):
        return value.tolist()
    raise TypeError


def _culprit(value: Any, key: str) -> tuple[str, Any]:
    """The innermost item that cannot be written, and its dotted key."""
    items: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        items = [(f"{key}.{name}" if key else str(name), item) for name, item in value.items()]
    elif isinstance(value, list | tuple):
        items = [(f"{key}[{i}]", item) for i, item in enumerate(value)]
    for name, item in items:
        try:
            _dumps(item)
        except RecursionError:
            return name, item
        except (TypeError, ValueError):
            return _culprit(item, name)
    return key, value
