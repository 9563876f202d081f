"""Do the chunks of a stage that are not done yet."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nuebar.errors import NuebarError
from nuebar.io.files import output_folder
from nuebar.run.chunk import (
    Executor,
    Outcome,
    Task,
    TaskSource,
    Workers,
    chunk_key,
    in_process,
    plain,
    remove_temporaries,
)
from nuebar.run.ledger import LEDGER, Entry, Ledger, read_ledger
from nuebar.run.lock import hold
from nuebar.run.manifest import contradictions, read_manifest, sentence, write_manifest
from nuebar.run.stage import CHUNK_FILE, Stage, chunk_path
from nuebar.run.workers import LocalProcesses

log = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]


class UnfinishedError(NuebarError):
    """The time given was used up before all chunks were done; the same command continues."""


@dataclass(frozen=True)
class StageResult:
    """A stage that is done.

    Attributes:
        name: Name of the stage.
        paths: The files of all chunks, in order.
        summaries: What the chunk functions returned, in the same order.
        kept: How many chunks were finished before.
    """

    name: str
    paths: tuple[Path, ...]
    summaries: tuple[dict[str, Any] | None, ...]
    kept: int


def run_stage(
    folder: str | os.PathLike[str],
    stage: Stage,
    *,
    seed: int,
    jobs: Workers = 1,
    progress: Progress | None = None,
    force: bool = False,
    max_seconds: float | None = None,
) -> StageResult:
    """Do the chunks of a stage that are not done yet, into ``<folder>/<stage name>/chunk-00000<suffix>`` and on.

    Finished chunks are kept if size and checksum of their files are as recorded, and done again otherwise. The first
    chunk that fails ends the stage after those at work; interrupted by Ctrl-C or a termination signal it ends at
    once. In all cases the finished chunks stay, and the same call continues.

    Args:
        folder: Folder of the run; made if absent. Only one run at a time may use it.
        stage: What is to be done.
        seed: Seed of the run; each chunk's key follows from it, see :func:`~nuebar.run.chunk.chunk_key`.
        jobs: Number of processes, of which 1 works in this one; or the executor that runs the chunks.
        progress: Called as ``progress(stage name, done, chunks)``, first with the chunks that were kept.
        force: If the folder holds the same stage of another configuration, throw that away.
        max_seconds: Start no new chunk after this time, but at least one.

    Returns:
        Files and summaries of all chunks.

    Raises:
        UnfinishedError: ``max_seconds`` were not enough.
        NuebarError: Another configuration is in the folder (each difference is named), another run uses it, it cannot
            be written, a chunk raised a :class:`NuebarError` or met a full disk, or its worker kept dying.
        RuntimeError: A chunk raised another exception, which is the cause.
    """
    _check(stage, seed, jobs, max_seconds)
    content = {
        "stage": stage.name,
        "function": stage.function,
        "config": plain(stage.config, f"stage {stage.name!r}, config"),
        "chunks": stage.chunks,
        "suffix": stage.suffix,
        "seed": seed,
    }
    home = output_folder(folder)
    with hold(home) as lock, _termination_as_exit():
        place = output_folder(home / stage.name)
        entries = _open(place, content, force)
        executor = _executor(jobs, stage, lock)
        with Ledger(place / LEDGER) as ledger:
            todo = _Todo(stage, content, place, entries, max_seconds)
            kept = stage.chunks - len(todo.chunks)
            try:
                _work(todo, executor, ledger, progress)
            finally:
                with suppress(OSError):
                    remove_temporaries(place)
    todo.complain()
    summaries = tuple(todo.entries[i].summary for i in range(stage.chunks))
    return StageResult(stage.name, stage.paths(home), summaries, kept)


def _executor(jobs: Workers, stage: Stage, lock: tuple[int, ...]) -> Executor:
    if not isinstance(jobs, int):
        return jobs
    return LocalProcesses(jobs, keep_open=lock) if jobs > 1 or stage.isolated else in_process


def _check(stage: Stage, seed: int, jobs: Workers, max_seconds: float | None) -> None:
    for name, value, least in (("seed", seed, 0), ("jobs", 1 if callable(jobs) else jobs, 1)):
        if type(value) is not int or value < least:
            raise NuebarError(f"stage {stage.name!r}, {name}: expected {least} or more, got {value!r}; correct it")
    if max_seconds is not None and not max_seconds > 0:
        raise NuebarError(f"stage {stage.name!r}, max_seconds: expected more than 0, got {max_seconds!r}; correct it")


def _open(place: Path, content: Mapping[str, Any], force: bool) -> dict[int, Entry]:
    """Make the folder that of this stage, and return what was recorded there."""
    remove_temporaries(place)
    before = read_manifest(place)
    held = [path for path in place.iterdir() if CHUNK_FILE.fullmatch(path.name)]
    changes = contradictions(before, content) if before else ["stage.json: gone -> new"] if held else []
    if changes and not force:
        raise NuebarError(
            f"{place}: expected an empty folder or the same configuration, got another one ({sentence(changes)}); "
            f"restore it, choose another folder, or force it, which removes the {len(held)} chunks there"
        )
    if changes or before is None:
        _discard(place, held)
        before = None
    write_manifest(place, content, before)
    return read_ledger(place / LEDGER)


def _discard(place: Path, chunk_files: list[Path]) -> None:
    """Remove all chunks, first of all from the ledger: no crash on the way may make old files count as new."""
    try:
        (place / LEDGER).unlink(missing_ok=True)
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        for path in chunk_files:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise NuebarError(f"{place}: cannot be cleared ({error.strerror}); choose another folder") from error


@dataclass
class _Todo:
    """The chunks still to be done, and what has come of those handed out."""

    stage: Stage
    content: Mapping[str, Any]
    place: Path
    entries: dict[int, Entry]
    max_seconds: float | None
    chunks: list[int] = field(init=False)
    missing: set[int] = field(init=False)
    failures: list[Outcome] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        def intact(i: int) -> bool:
            return i in self.entries and self.entries[i].intact(self.path(i))

        self.chunks = [i for i in range(self.stage.chunks) if not intact(i)]
        self.missing = set(self.chunks)

    @property
    def done(self) -> int:
        """How many chunks are done."""
        return self.stage.chunks - len(self.missing)

    def path(self, chunk: int) -> Path:
        return chunk_path(self.place, chunk, self.stage.suffix)

    def tasks(self) -> TaskSource:
        """The next task, whenever somebody asks; none after a failure or beyond the time."""
        return _Tasks(self)

    def settle(self, outcome: Outcome, ledger: Ledger) -> None:
        """Record what came of a chunk."""
        if outcome.error:
            self.failures.append(outcome)
            # The chunk's own sentence says more than that of a ledger on the same full disk.
            with suppress(NuebarError):
                ledger.add(outcome)
            return
        ledger.add(outcome)
        before = self.entries.get(outcome.chunk)
        if before is not None and not before.error and before.digest != outcome.digest:
            log.warning(
                "%s: done again, it is not what it was: code, versions or processor changed since",
                self.path(outcome.chunk),
            )
        self.entries[outcome.chunk] = Entry(outcome.size, outcome.digest, outcome.summary, "")
        self.missing.discard(outcome.chunk)

    def complain(self) -> None:
        """Raise if not all is done."""
        name, total = self.stage.name, self.stage.chunks
        if self.failures:
            first, *others = sorted(self.failures, key=lambda outcome: outcome.chunk)
            more = f" (also {', '.join(str(o.chunk) for o in others)})" if others else ""
            text = f"stage {name!r}, chunk {first.chunk} fails{more}: {first.error}"
            raise (NuebarError if first.expected else RuntimeError)(text) from first.cause
        if self.missing and self.max_seconds is None:
            raise RuntimeError(f"stage {name!r}: the executor lost the chunks {sorted(self.missing)}")
        if self.missing:
            raise UnfinishedError(
                f"stage {name!r}: {self.done} of {total} chunks are done after the {self.max_seconds:g} s that were "
                "given; the same command continues"
            )


class _Tasks(TaskSource):
    """The chunks to be done, in order, as tasks."""

    def __init__(self, todo: _Todo) -> None:
        self._todo, self._begin, self._given = todo, time.monotonic(), 0
        self._config = json.dumps(todo.content["config"])

    @property
    def over(self) -> bool:
        limit = self._todo.max_seconds
        return bool(self._todo.failures) or (limit is not None and time.monotonic() - self._begin > limit)

    def __next__(self) -> Task:
        todo, n = self._todo, self._given
        # One chunk is done in the shortest of times, or the same command would not get on.
        if n >= len(todo.chunks) or todo.failures or (n > 0 and self.over):
            raise StopIteration
        self._given += 1
        chunk, stage = todo.chunks[n], todo.stage
        key = chunk_key(todo.content["seed"], stage.name, chunk)
        return Task(stage.name, stage.function, self._config, chunk, key, os.path.abspath(todo.path(chunk)))


def _work(todo: _Todo, executor: Executor, ledger: Ledger, progress: Progress | None) -> None:
    name, total = todo.stage.name, todo.stage.chunks
    if progress:
        progress(name, todo.done, total)
    # Not even a generator is made when there is nothing to do.
    if not todo.chunks:
        return
    with closing(executor(todo.tasks())) as outcomes:
        for outcome in outcomes:
            todo.settle(outcome, ledger)
            if progress and not outcome.error:
                progress(name, todo.done, total)


@contextmanager
def _termination_as_exit() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, unless somebody else already cares for it."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
