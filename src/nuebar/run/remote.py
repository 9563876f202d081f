"""What a Dask worker does: it hands each chunk to a process of its own, as this machine's own jobs do.

So a Dask worker needs no special environment and may have any number of threads: chunks run in fresh interpreters
with the environment of all workers, one for each thread. It stays free to answer its scheduler during a chunk, a
chunk that crashes or runs out of memory does not take it down, and a chunk that nobody wants any more ends at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import selectors
import socket
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from nuebar.errors import NuebarError
from nuebar.io.results import versions
from nuebar.kernels import kernel_cache_folder
from nuebar.run.chunk import Task
from nuebar.run.manifest import differences, sentence
from nuebar.run.workers import WorkerProcess, signals_held

__all__ = ["code", "do", "end_session", "pack", "processor", "program", "ready", "require_distributed"]

_TICK_S = 0.2  # how often a chunk is asked whether somebody still wants it
_IDLE_S = 300.0  # a process without a chunk ends after this time
_PACKAGES = ("jaxlib", "scipy", "numba", "pyarrow")

_lock = threading.Lock()
_idle: dict[str, list[WorkerProcess]] = {}
_busy: dict[str, set[WorkerProcess]] = {}
_seen: set[tuple[str, str]] = set()
_timers: dict[WorkerProcess, threading.Timer] = {}


def require_distributed() -> Any:
    """The module, or one sentence that says how to get it."""
    try:
        import distributed
    except ImportError as error:
        raise NuebarError("--cluster needs Dask: pip install 'nuebar[cluster]'") from error
    return distributed


def pack(request: dict[str, Any]) -> bytes:
    """A request as it travels: JSON, compressed, as configurations repeat themselves."""
    return zlib.compress(json.dumps(request, allow_nan=False).encode(), 1)


def ready() -> None:
    """Nothing: an empty task, sent to learn what a cluster takes for one."""


def do(packed: bytes) -> str:
    """Do a chunk on this worker.

    Args:
        packed: From :func:`pack`, with ``session`` (processes are kept for the next chunk of the same), ``task``
            (fields of a :class:`~nuebar.run.chunk.Task`), ``probe`` (a file beside the chunk's, what it holds, and
            for how many seconds to look for it), ``program`` (from :func:`program`), ``paths`` (of modules) and
            ``folder`` (where to work, if it exists here).

    Returns:
        JSON with ``host``, ``processor``, ``code`` and one of ``line`` (the outcome), ``died`` (the exit code of the
        process that had the chunk), ``refused`` (why this worker can do none), ``stopped``.
    """
    request = json.loads(zlib.decompress(packed))
    about = {"host": socket.gethostname(), "processor": processor(), "code": code()}
    refusal = _refusal(request)
    if refusal:
        return json.dumps({**about, "refused": refusal})
    try:
        process = _take(request)
    except NuebarError as error:
        return json.dumps({**about, "refused": str(error)})
    process.send(Task(**request["task"]))
    line = _watched(process, _wanted())
    if line is not None:
        _give_back(request["session"], process)
        return json.dumps({**about, "line": line})
    with _lock:
        stopped = process not in _busy.get(request["session"], ())
        _busy.get(request["session"], set()).discard(process)
    exit_code = process.end()
    return json.dumps({**about, "stopped": True} if stopped else {**about, "died": exit_code})


def end_session(session: str) -> int:
    """End every process of a session on this worker, even in the middle of a chunk; returns how many were busy."""
    with _lock:
        idle, busy = _idle.pop(session, []), _busy.pop(session, set())
        for process in idle:
            _timers.pop(process).cancel()
    for process in busy:
        # The thread that watches it closes the line.
        process.process.kill()
    for process in idle:
        process.kill()
    for process in busy:
        process.process.wait()
    return len(busy)


@lru_cache(maxsize=1)
def program() -> dict[str, str | None]:
    """Versions of everything that decides bits."""
    found = {k: v for k, v in versions().items() if k not in ("iminuit", "platform")}
    found["python"] = ".".join(platform.python_version_tuple()[:2])
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


@lru_cache(maxsize=1)
def code() -> str:
    """Checksum of nuebar's own code, which changes more often than its version."""
    package, state = Path(__file__).parents[1], hashlib.blake2b(digest_size=8)
    for path in sorted(package.rglob("*.py")):
        state.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes() + b"\0")
    return state.hexdigest()


@lru_cache(maxsize=1)
def processor() -> str:
    """A name for this type of processor: what it can do decides how compiled code adds."""
    wanted = ("vendor_id", "model name", "flags", "CPU implementer", "CPU part", "Features")
    found: dict[str, str] = {}
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() in wanted:
                    found.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    what = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:8]
    return f"{found.get('model name') or platform.processor() or platform.machine()} ({what})"


def _refusal(request: dict[str, Any]) -> str:
    """Why this worker cannot do a chunk, or nothing."""
    changes = differences(request["program"], program())
    if changes:
        return (
            f"expected the program of the machine that gives out work, got another one ({sentence(changes)}); "
            "start the worker in the same environment"
        )
    path, token, patience_s = request["probe"]
    if not _visible(path, token, patience_s):
        return (
            f"expected to see the run folder {Path(path).parent}, but what is written there does not arrive; "
            "choose a folder on a file system that all workers share"
        )
    return ""


def _visible(path: str, token: str, patience_s: float) -> bool:
    """Whether this machine sees what the one that gives out work has written."""
    if (path, token) in _seen:
        return True
    deadline = time.monotonic() + patience_s
    while True:
        with suppress(OSError):
            # A listing makes a network file system look again.
            os.listdir(os.path.dirname(path))
            if Path(path).read_text(encoding="utf-8") == token:
                _seen.add((path, token))
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)


def _wanted() -> Callable[[], bool]:
    """Says whether somebody still wants the chunk of this thread."""
    distributed = require_distributed()
    status = distributed.Status
    worker = distributed.get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        state = worker.state.tasks.get(key)
        running = worker.status in (status.running, status.paused, status.closing_gracefully)
        return running and state is not None and state.state in ("executing", "long-running")

    return wanted


def _watched(process: WorkerProcess, wanted: Callable[[], bool]) -> str | None:
    """What the process writes; nothing if it ends before, also because nobody wants that any more."""
    with selectors.DefaultSelector() as selector:
        selector.register(process.replies, selectors.EVENT_READ)
        while not selector.select(_TICK_S):
            if not wanted():
                process.process.kill()
    return process.line()


def _take(request: dict[str, Any]) -> WorkerProcess:
    """A process of the session; those of other sessions that have nothing to do end, for their memory."""
    session = request["session"]
    with _lock:
        others = [p for name in list(_idle) if name != session for p in _idle.pop(name)]
        own = _idle.get(session, [])
        process = own.pop() if own else None
        for each in [*others, *([process] if process else [])]:
            _timers.pop(each).cancel()
    for other in others:
        other.kill()
    if process is not None and process.process.poll() is not None:
        process.end()
        process = None
    if process is None:
        with signals_held():
            folder = request["folder"] if os.path.isdir(request["folder"]) else None
            process = WorkerProcess.start(paths=request["paths"], environment=_caches(), folder=folder)
    with _lock:
        _busy.setdefault(session, set()).add(process)
    return process


def _give_back(session: str, process: WorkerProcess) -> None:
    with _lock:
        alive = process in _busy.get(session, ())
        if alive:
            _busy[session].discard(process)
            _idle.setdefault(session, []).append(process)
            timer = _timers[process] = threading.Timer(_IDLE_S, _expire, (session, process))
            timer.daemon = True
            timer.start()
    if not alive:
        process.end()


def _expire(session: str, process: WorkerProcess) -> None:
    with _lock:
        if process not in _idle.get(session, ()):
            return
        _idle[session].remove(process)
        _timers.pop(process, None)
    process.kill()


@lru_cache(maxsize=1)
def _caches() -> dict[str, str]:
    """Where compiled code is kept, for this type of processor and these versions, as the commands have it."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nuebar"
    kind = hashlib.sha256(json.dumps([processor(), program()], sort_keys=True).encode()).hexdigest()[:16]
    found = {
        "JAX_COMPILATION_CACHE_DIR": str(base / "jax" / kind),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "NUMBA_CACHE_DIR": str(kernel_cache_folder(base)),
    }
    return {name: value for name, value in found.items() if name not in os.environ}
