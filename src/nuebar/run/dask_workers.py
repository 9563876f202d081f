"""Chunks on the workers of a Dask scheduler: the side that gives out work; :mod:`nuebar.run.remote` is the other.

Tasks and outcomes travel as JSON; files are written where the chunk is done, on a file system that all machines
share. A chunk whose worker is lost is done again by another one. What Dask itself sends between its processes is
pickled: whoever reaches a scheduler can run code on its workers, so that only a trusted network or TLS will do.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import queue
import secrets
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nuebar.errors import NuebarError
from nuebar.io.files import atomic_write_text
from nuebar.run import remote
from nuebar.run.chunk import Outcome, Task, TaskSource
from nuebar.run.remote import require_distributed
from nuebar.run.workers import obituary, outcome_of

__all__ = ["DaskWorkers", "Link", "connected", "request"]

log = logging.getLogger(__name__)

ATTEMPTS = 3
_TICK_S = 0.5
_LOOK_S = 2.0  # how often workers are counted
_SAY_S = 60.0  # how often a run without workers says so
_ANSWER_S = 15.0  # how long a scheduler may take for an answer, or for coming back
_VISIBLE_S = 60.0  # network file systems may take so long to show a new file everywhere (acdirmax of NFS)


@dataclass(frozen=True)
class Link:
    """A scheduler that answers.

    Attributes:
        client: Its ``distributed.Client``.
        name: What to call it.
        renew: Asks for workers that were lost, if it is us who ask for workers.
        hopeless: Says why no worker will ever come, or nothing.
        close: Lets go of it.
    """

    client: Any
    name: str
    renew: Callable[[], None] = lambda: None
    hopeless: Callable[[], str] = lambda: ""
    close: Callable[[], None] = lambda: None


def connected(name: str, **how: Any) -> Link:
    """Connect to a scheduler.

    Args:
        name: What to call it in messages.
        how: Arguments of ``distributed.Client``.

    Raises:
        NuebarError: Dask is missing, or nobody answers.
    """
    distributed = require_distributed()
    quiet()
    try:
        client = distributed.Client(**how, set_as_default=False, timeout=_ANSWER_S)
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise NuebarError(
            f"--cluster {name}: expected a Dask scheduler, but it does not answer ({_first_line(error)}); "
            "check the address, or start one with: dask scheduler"
        ) from error
    return Link(client, name)


def quiet() -> None:
    """Keep Dask's own lines about lost connections out of ours: this module says what they mean."""
    for name in ("", ".client", ".core", ".comm", ".scheduler", ".worker", ".nanny", ".batched", ".deploy"):
        logging.getLogger(f"distributed{name}").setLevel(logging.CRITICAL)


class DaskWorkers:
    """The executor that runs tasks on a Dask cluster.

    It is connected when the first task comes and stays so, for the stages that follow, until :meth:`close` or the end
    of the program. At most one chunk more than the workers have threads, and an eighth of these, is under way: the
    few that wait hide the trip to the scheduler.

    Args:
        connect: Makes the connection.
        most: How many chunks at the same time at most; as many as there are threads by default.
        attempts: How often a chunk may take its worker down before it counts as failed.
        visible_s: For how many seconds a worker looks for the run folder before it refuses.
    """

    def __init__(
        self,
        connect: Callable[[], Link],
        *,
        most: int | None = None,
        attempts: int = ATTEMPTS,
        visible_s: float = _VISIBLE_S,
    ) -> None:
        self.connect, self.most, self.attempts, self.visible_s = connect, most, attempts, visible_s
        self.session = secrets.token_hex(8)
        self.seen: dict[str, set[str]] = {"code": {remote.code()}, "processor": set()}
        self._link: Link | None = None

    def __call__(self, tasks: Iterator[Task]) -> Generator[Outcome, None, None]:
        """Run the tasks; see :class:`~nuebar.run.chunk.Executor`."""
        link = self.link()
        first = next(tasks, None)
        if first is None:
            return
        probe = Path(first.path).parent / f".{secrets.token_hex(8)}.part"
        flow = _Flow(self, link, probe)
        try:
            atomic_write_text(probe, self.session)
            yield from flow.outcomes(tasks, first)
        finally:
            flow.end()
            with suppress(OSError):
                probe.unlink(missing_ok=True)

    def link(self) -> Link:
        """The connection, made if there is none."""
        if self._link is None:
            self._link = self.connect()
            atexit.register(self.close)
        return self._link

    def overhead(self, n: int = 200) -> float:
        """Seconds that the cluster itself takes for one empty task of ``n`` that are sent together."""
        client, begin = self.link().client, time.monotonic()
        client.gather([client.submit(remote.ready, pure=False) for _ in range(n)])
        return (time.monotonic() - begin) / n

    def close(self) -> None:
        """End our processes on the workers, and the connection."""
        link, self._link = self._link, None
        if link is None:
            return
        atexit.unregister(self.close)
        with suppress(Exception):
            if link.client.status == "running":
                link.client.run(remote.end_session, self.session, on_error="ignore")
        with suppress(Exception):
            link.client.close(timeout=2)
        with suppress(Exception):
            link.close()


@dataclass
class _Flight:
    """A task under way, and how many workers it has lost."""

    task: Task
    deaths: int
    future: Any


@dataclass
class _Flow:
    """The tasks of one stage on their way."""

    owner: DaskWorkers
    link: Link
    probe: Path
    flying: dict[str, _Flight] = field(default_factory=dict)
    stranded: list[tuple[Task, int]] = field(default_factory=list)
    landed: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    workers: dict[str, int] = field(default_factory=dict)
    looked: float = -1e9
    said: float = -1e9
    lost_since: float | None = None
    sent: int = 0

    def outcomes(self, tasks: Iterator[Task], first: Task) -> Iterator[Outcome]:
        """Send tasks as there are places, and yield what comes of them."""
        # The first was taken before we knew of a place.
        waiting: Task | None = first
        ended = False
        while True:
            self.look()
            while not ended and self.lost_since is None and len(self.flying) < self.places:
                task = waiting or next(tasks, None)
                waiting, ended = None, task is None
                if task is not None:
                    self.send(task)
            if ended and not self.flying and not self.stranded:
                return
            if not self.workers and isinstance(tasks, TaskSource) and tasks.over:
                return
            try:
                key = self.landed.get(timeout=_TICK_S)
            except queue.Empty:
                continue
            # Only after what came of it is settled: the one who gets it decides whether there is a next task.
            yield from self.settle(key)

    @property
    def places(self) -> int:
        """How many tasks may be under way."""
        threads = sum(self.workers.values())
        if self.owner.most is not None and self.owner.most < threads:
            return self.owner.most
        return threads + max(1, threads // 8) if threads else 0

    def send(self, task: Task, deaths: int = 0) -> None:
        """Give a task to the scheduler."""
        self.sent += 1
        key = f"{task.stage}-{self.owner.session}-{task.chunk}-{self.probe.name[1:9]}-{self.sent}"
        packed = request(task, self.owner.session, self.probe, self.owner.visible_s)
        future = self.link.client.submit(remote.do, packed, key=key, pure=False)
        self.flying[key] = _Flight(task, deaths, future)
        future.add_done_callback(lambda done: self.landed.put(done.key))

    def settle(self, key: str) -> Iterator[Outcome]:
        """What came of a task; if nothing has, it is sent again."""
        flight = self.flying.pop(key)
        distributed = require_distributed()
        try:
            reply = json.loads(flight.future.result(timeout=_ANSWER_S))
        except (distributed.CancelledError, distributed.TimeoutError, TimeoutError, OSError):
            # The scheduler is lost, or the worker before it could tell the result.
            self.stranded.append((flight.task, flight.deaths))
            return
        except distributed.KilledWorker as error:
            last = getattr(error.last_worker, "address", "unknown")
            yield from self.again(
                flight, f"expected its worker to live, but every one died over it, the last at {last}"
            )
            return
        except Exception as error:
            raise NuebarError(
                f"the workers of {self.link.name}: expected nuebar {remote.program()['nuebar']}, got "
                f"{_first_line(error)}; start them in the environment of this machine"
            ) from error
        if "refused" in reply:
            raise NuebarError(f"worker on {reply['host']}: {reply['refused']}")
        for what in self.owner.seen:
            self.compare(what, reply[what])
        if "line" in reply:
            yield outcome_of(reply["line"])
        elif "died" in reply:
            yield from self.again(flight, obituary(reply["died"], flight.deaths + 1))
        else:
            self.stranded.append((flight.task, flight.deaths))

    def again(self, flight: _Flight, why: str) -> Iterator[Outcome]:
        """Send a task again that has taken a worker down, unless it did so too often."""
        if flight.deaths + 1 >= self.owner.attempts:
            yield Outcome(flight.task.chunk, error=why)
            return
        log.info("stage %r, chunk %d: its worker died; it is done again", flight.task.stage, flight.task.chunk)
        self.stranded.append((flight.task, flight.deaths + 1))

    def look(self) -> None:
        """See who is there, and send again what was stranded.

        Raises:
            NuebarError: The scheduler is gone.
        """
        now = time.monotonic()
        if self.link.client.status != "running":
            self.lost_since = self.lost_since or now
            if now - self.lost_since > _ANSWER_S or self.link.client.status in ("closed", "closing"):
                raise NuebarError(
                    f"{self.link.name}: the Dask scheduler is lost; finished chunks stay, start it again, and the same "
                    "command continues"
                )
            return
        self.lost_since = None
        while self.stranded:
            self.send(*self.stranded.pop())
        if now - self.looked > (_LOOK_S if self.workers else _TICK_S):
            self.looked = now
            self.count(now)

    def count(self, now: float) -> None:
        """Count the workers, and say what has become of them.

        Raises:
            NuebarError: There are none, and none will come.
        """
        try:
            found = dict(self.link.client.nthreads(callback_timeout=_ANSWER_S))
        except (OSError, TimeoutError, RuntimeError, ValueError):
            return
        gone = len(self.workers.keys() - found.keys())
        if gone:
            log.info("%s: %d of %d workers gone; their chunks are done again", self.link.name, gone, len(self.workers))
        if found and not self.workers:
            log.info("%s: %s", self.link.name, _crew(len(found), sum(found.values())))
        self.workers = found
        if not found and (why := self.link.hopeless()):
            raise NuebarError(f"{self.link.name}: no workers: {why}")
        if not found and now - self.said > _SAY_S:
            log.info("%s: no workers yet; waiting for one", self.link.name)
        if now - self.said > _SAY_S:
            self.said = now
            self.link.renew()

    def compare(self, what: str, found: str) -> None:
        """Warn if processors or nuebar's own code differ: the same bits are promised for one type and one state."""
        seen = self.owner.seen[what]
        if seen and found not in seen:
            log.warning(
                "%s: %s: results may depend on who did which chunk",
                self.link.name,
                f"processors of several types ({', '.join(sorted({*seen, found}))})"
                if what == "processor"
                else "nuebar's code was changed since some of the processes were started",
            )
        seen.add(found)

    def end(self) -> None:
        """Call back what is under way, and wait until nobody writes any more."""
        futures = [flight.future for flight in self.flying.values()]
        self.flying.clear()
        if not futures or self.link.client.status != "running":
            return
        with suppress(Exception):
            self.link.client.cancel(futures, force=True)
            self.link.client.run(remote.end_session, self.owner.session, on_error="ignore")


def request(task: Task, session: str, probe: Path, visible_s: float) -> bytes:
    """A task with what a worker needs to check whether it can do it, as it travels.

    Args:
        task: The task.
        session: Whose processes on the worker shall do it; also what ``probe`` holds.
        probe: A file beside the chunk's, which the worker must see.
        visible_s: For how many seconds it may look for that.

    Returns:
        For :func:`nuebar.run.remote.do`.
    """
    return remote.pack(
        {
            "session": session,
            "task": task.__dict__,
            "probe": [str(probe), session, visible_s],
            "program": remote.program(),
            "paths": [os.path.abspath(entry) for entry in sys.path],
            "folder": os.getcwd(),
        }
    )


def _crew(workers: int, threads: int) -> str:
    """How many workers there are, and their threads if these are more."""
    told = f"{workers} worker{'s' * (workers > 1)}"
    return told if threads == workers else f"{told} with {threads} threads"


def _first_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
