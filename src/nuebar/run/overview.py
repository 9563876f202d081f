"""How far the stages of a run are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuebar.errors import NuebarError
from nuebar.run.ledger import LEDGER, read_ledger
from nuebar.run.manifest import read_manifest
from nuebar.run.stage import chunk_path


@dataclass(frozen=True)
class StageStatus:
    """How far a stage is; ``done + missing + failed == chunks``.

    Attributes:
        name: Name of the stage.
        chunks: Number of chunks.
        done: Chunks with a file of the recorded size (its content is checked when the run continues).
        missing: Chunks never done, or whose file is gone or cut.
        failed: Chunks whose last attempt failed.
        errors: Chunk index and sentence of each failure.
    """

    name: str
    chunks: int
    done: int
    missing: int
    failed: int
    errors: tuple[tuple[int, str], ...] = ()


def status(folder: str | os.PathLike[str]) -> tuple[StageStatus, ...]:
    """How far each stage in a run folder is, in the order in which they were begun; cheap, and safe during a run.

    Raises:
        NuebarError: There is no such folder, or the description of a stage is damaged.
    """
    home = Path(folder)
    if not home.is_dir():
        raise NuebarError(f"{home}: expected the folder of a run, found none; check the path")
    found = [(read_manifest(place), place) for place in home.iterdir() if place.is_dir()]
    stages = sorted((m["started"], place, m) for m, place in found if m is not None)
    return tuple(_stage_status(place, manifest) for _, place, manifest in stages)


def _stage_status(place: Path, manifest: Mapping[str, Any]) -> StageStatus:
    entries, chunks = read_ledger(place / LEDGER), manifest["chunks"]
    known = {i: entry for i, entry in entries.items() if 0 <= i < chunks}
    done = sum(entry.present(chunk_path(place, i, manifest["suffix"])) for i, entry in known.items())
    errors = tuple((i, entry.error) for i, entry in sorted(known.items()) if entry.error)
    return StageStatus(manifest["stage"], chunks, done, chunks - done - len(errors), len(errors), errors)
