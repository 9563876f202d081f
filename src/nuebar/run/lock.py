"""One run per folder at a time, and no trace of a run that died."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from nuebar.errors import NuebarError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)
LOCK = ".lock"
_GRACE_S = 5.0


@dataclass(frozen=True)
class _Owner:
    """Who wrote the lock file."""

    pid: int
    host: str

    def alive(self) -> bool:
        """Whether it may still run; of another machine we cannot know."""
        if self.host != socket.gethostname():
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass
        return True


@contextmanager
def hold(folder: Path) -> Iterator[tuple[int, ...]]:
    """Keep every other run out of ``folder``.

    The system's own lock on the file ``.lock`` decides (``flock``), which ends with the last process that has it
    open, however that dies; a stale file needs no care. File systems without such locks get by with the process
    number in the file: there a run that died is recognised on the machine where it ran.

    Yields:
        File descriptors for workers to inherit: as long as one of them lives, the folder stays locked.

    Raises:
        NuebarError: Another run has the folder, or the lock file cannot be written.
    """
    path = folder / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise NuebarError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
    try:
        _take(descriptor, folder)
        owner = _read(descriptor)
        if owner is not None:
            log.info("%s: taking over from process %d, which ended without saying so", folder, owner.pid)
        _write(descriptor, path)
        try:
            yield (descriptor,)
        finally:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _take(descriptor: int, folder: Path) -> None:
    deadline = time.monotonic() + _GRACE_S
    while not _locked(descriptor):
        owner = _read(descriptor)
        # The last workers of a run that was killed hold the lock for another moment; so does a run about to end.
        if time.monotonic() > deadline or (owner is not None and owner.alive()):
            raise NuebarError(
                f"{folder}: expected a folder that no other run uses, but {_name(owner)} is at work in it; "
                "wait for its end or choose another folder"
            )
        time.sleep(0.02)


def _name(owner: _Owner | None) -> str:
    if owner is None:
        return "another process"
    who = f"process {owner.pid} on {owner.host}"
    return who if owner.alive() else f"a worker of {who}, which is dead,"


def _locked(descriptor: int) -> bool:
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        except OSError as error:
            log.info("this file system has no locks (%s); the process number serves instead", error.strerror)
    owner = _read(descriptor)
    # Our own number is that of an earlier process, as happens in containers.
    return owner is None or owner.pid == os.getpid() or not owner.alive()


def _read(descriptor: int) -> _Owner | None:
    try:
        record = json.loads(os.pread(descriptor, 4096, 0))
        return _Owner(int(record["pid"]), str(record["host"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _write(descriptor: int, path: Path) -> None:
    record = {"pid": os.getpid(), "host": socket.gethostname()}
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(record).encode(), 0)
    except OSError as error:
        raise NuebarError(f"{path}: cannot be written ({error.strerror}); free or choose another place") from error
