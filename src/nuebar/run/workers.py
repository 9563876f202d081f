"""Local workers: fresh interpreters, never forks, each with one thread and one chunk at a time."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, cast

from nuebar.errors import NuebarError
from nuebar.run.chunk import Outcome, Task

WORKER_ENVIRONMENT = {
    "JAX_ENABLE_X64": "1",
    # XLA splits its sums by the processors it sees: one everywhere, or the bits depend on the machine's size.
    "NPROC": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}
"""What every worker has in its environment before it imports anything."""

_PATIENCE_S = 5.0
# The worker gets our module path, but not our main module: a script needs no guard against its own workers.
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from nuebar.run.worker import main; main()"


class _WorkerTraceback(Exception):  # noqa: N818 - it only carries text
    """The traceback of another process, shown as the cause of an error in this one."""


@dataclass(frozen=True)
class LocalProcesses:
    """The executor that runs tasks in spawned processes on this machine (POSIX systems).

    A worker that is killed costs only its own chunk, which a new worker does again.

    Attributes:
        jobs: How many processes at most.
        attempts: How often a chunk may take its worker down before it counts as failed.
        keep_open: File descriptors that live as long as any worker does, such as that of a lock.
    """

    jobs: int
    attempts: int = 3
    keep_open: tuple[int, ...] = ()

    def __call__(self, tasks: Iterator[Task]) -> Generator[Outcome, None, None]:
        """Run the tasks; see :class:`~nuebar.run.chunk.Executor`."""
        workers: set[WorkerProcess] = set()
        with selectors.DefaultSelector() as selector:
            try:
                while True:
                    while len(workers) < self.jobs and (task := next(tasks, None)) is not None:
                        self._start(task, workers, selector)
                    if not workers:
                        return
                    for key, _ in selector.select():
                        yield from self._next(key.data, tasks, workers, selector)
            finally:
                for worker in workers:
                    worker.kill()

    def _start(
        self, task: Task, workers: set[WorkerProcess], selector: selectors.BaseSelector, deaths: int = 0
    ) -> None:
        with signals_held():
            worker = WorkerProcess.start(self.keep_open)
            workers.add(worker)
        selector.register(worker.replies, selectors.EVENT_READ, worker)
        worker.send(task, deaths)

    def _next(
        self,
        worker: WorkerProcess,
        tasks: Iterator[Task],
        workers: set[WorkerProcess],
        selector: selectors.BaseSelector,
    ) -> Iterator[Outcome]:
        """Take the worker's outcome and give it, or its heir, something to do."""
        outcome = worker.receive()
        if outcome is not None:
            yield outcome
            # Only now: the one who got the outcome decides whether there is a next task.
            task = next(tasks, None)
            if task is not None:
                worker.send(task)
                return
        selector.unregister(worker.replies)
        code = worker.end()
        workers.discard(worker)
        if outcome is None:
            task, deaths = worker.task, worker.deaths + 1
            if deaths < self.attempts:
                self._start(task, workers, selector, deaths)
            else:
                yield Outcome(task.chunk, error=obituary(code, deaths))


@dataclass(eq=False)
class WorkerProcess:
    """A worker process, the task it has, and how often that task took a worker down before.

    It ends when the line to it is closed, so with the process that has started it, however that dies.
    """

    process: subprocess.Popen[str]
    requests: IO[str]
    replies: IO[str]
    task: Task = field(init=False)
    deaths: int = field(init=False, default=0)

    @classmethod
    def start(
        cls,
        keep_open: tuple[int, ...] = (),
        paths: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        folder: str | None = None,
    ) -> WorkerProcess:
        """Start one.

        Args:
            keep_open: File descriptors that it shall inherit.
            paths: Where it shall look for modules besides the places of this process.
            environment: What its environment shall have besides that of this process.
            folder: Where it shall work; where this process does by default.

        Raises:
            NuebarError: The system refuses.
        """
        path = json.dumps(list(dict.fromkeys([*map(os.path.abspath, sys.path), *paths])))
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", _START, path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **(environment or {}), **WORKER_ENVIRONMENT},
                cwd=folder,
                pass_fds=keep_open,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            raise NuebarError(f"a worker cannot be started ({error.strerror}); use fewer jobs") from error
        return cls(process, cast("IO[str]", process.stdin), cast("IO[str]", process.stdout))

    def send(self, task: Task, deaths: int = 0) -> None:
        """Give it a chunk to do."""
        self.task, self.deaths = task, deaths
        # A worker that has died meanwhile is noticed when its answer is read.
        with suppress(BrokenPipeError):
            self.requests.write(json.dumps(task.__dict__) + "\n")
            self.requests.flush()

    def receive(self) -> Outcome | None:
        """What came of the task, or None if the worker died over it."""
        line = self.line()
        return None if line is None else outcome_of(line)

    def line(self) -> str | None:
        """The same as the worker wrote it, for :func:`outcome_of`."""
        line = self.replies.readline()
        return line if line.endswith("\n") else None

    def end(self) -> int:
        """Close the line, on which the worker leaves, and return its exit code."""
        self._close()
        try:
            return self.process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def kill(self) -> None:
        """End it from the middle of its chunk."""
        self.process.kill()
        self.process.wait()
        self._close()

    def _close(self) -> None:
        for stream in (self.requests, self.replies):
            with suppress(BrokenPipeError):
                stream.close()


def outcome_of(line: str) -> Outcome:
    """The outcome that a worker has written."""
    record = json.loads(line)
    trace = record.pop("trace")
    return Outcome(**record, cause=_WorkerTraceback(f"\n{trace}") if trace else None)


@contextmanager
def signals_held() -> Iterator[None]:
    """Keep Ctrl-C and termination waiting; a process started meanwhile never gets them.

    They go to a whole group of processes, but it is this one that ends its workers.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def obituary(code: int, deaths: int) -> str:
    """Why a chunk failed that took down ``deaths`` workers, the last one with this exit code."""
    try:
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:
        how = f"signal {-code}"
    hint = "; with SIGKILL the machine may be short of memory: use fewer jobs" if code == -signal.SIGKILL else ""
    return f"expected its worker to live, but {deaths} workers in a row died over it ({how}){hint}"
