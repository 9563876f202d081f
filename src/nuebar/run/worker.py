"""The other end of a local worker: tasks come in as lines, outcomes go out as lines."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from typing import IO

from nuebar.run.chunk import Outcome, Task, run_task

__all__ = ["main"]


def main() -> None:
    """Do tasks until the other end closes the line.

    What a chunk prints goes to the standard error, so that it cannot be taken for an outcome.
    """
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, waiting), daemon=True).start()
    while True:
        outcome = run_task(Task(**json.loads(waiting.get())))
        replies.write(_line(outcome))
        replies.flush()


def _listen(requests: IO[str], waiting: queue.SimpleQueue[str]) -> None:
    """Read tasks; at the end of the line leave at once, even from the middle of a chunk.

    A worker that outlives its run would write files behind the back of the next one.
    """
    for line in requests:
        waiting.put(line)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)


def _line(outcome: Outcome) -> str:
    record = {name: getattr(outcome, name) for name in ("chunk", "size", "digest", "summary", "error", "expected")}
    record["trace"] = "".join(traceback.format_exception(outcome.cause)) if outcome.cause else ""
    return json.dumps(record, allow_nan=False) + "\n"
