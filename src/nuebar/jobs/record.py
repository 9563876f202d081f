"""Measured claims as JSON: what was measured, with commit, versions, machine, seed and seconds."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from nuebar.io.files import output_folder
from nuebar.io.results import git_commit, save_result, versions

__all__ = ["write_claim"]


def write_claim(
    folder: str | Path, name: str, numbers: Mapping[str, Any], *, command: str, seconds: float, seed: int | None = None
) -> Path:
    """Write ``<folder>/<name>.json``.

    Args:
        folder: Usually ``docs/results``.
        name: Stage and what it is about: ``fit-truth``.
        numbers: The measurement.
        command: How to measure it again.
        seconds: How long it took.
        seed: Seed, if one was used.

    Returns:
        The file.
    """
    record = {
        "command": command,
        "commit": _commit(),
        "seed": seed,
        "seconds": round(seconds, 3),
        "machine": {"processor": _processor(), "system": platform.platform(terse=True), "cores": _cores()},
        "versions": versions(),
        "numbers": numbers,
    }
    path = output_folder(folder) / f"{name}.json"
    save_result(path, record)
    return path


@cache
def _commit() -> str | None:
    # Asked once: the second record of a command would find the first one as a change of the code.
    return git_commit(Path(__file__).parent)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
