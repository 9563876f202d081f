"""What commands say on the terminal: sentences, and how far a long work is."""

from __future__ import annotations

import sys
import time

__all__ = ["Progress", "progress_line", "say"]


def say(text: str) -> None:
    """A line on the terminal."""
    sys.stdout.write(text + "\n")


def progress_line() -> Progress:
    """How far a long work is, on the standard error."""
    return Progress()


class Progress:
    """One line on a terminal, a plain line every ten seconds in a batch job."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.last = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Say that ``done`` of ``total`` are done of this."""
        now = time.monotonic()
        if self.terminal:
            end = "\n" if done == total else ""
            if done == total or now - self.last > 0.1:
                sys.stderr.write(f"\r{what}: {done}/{total}{end}")
                sys.stderr.flush()
                self.last = now
        elif now - self.last > 10.0:
            sys.stderr.write(f"{what}: {done}/{total}\n")
            self.last = now
