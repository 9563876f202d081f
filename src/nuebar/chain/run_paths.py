"""Paths in a run file: relative ones lie in its own folder and may not leave it, absolute ones are told."""

from __future__ import annotations

import dataclasses
import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nuebar.errors import NuebarError
from nuebar.records import refuse

if TYPE_CHECKING:
    from nuebar.chain.run_file import RunFile

__all__ = ["WORDS", "missing_path", "placed_paths"]

WORDS = {
    "select.classifier": ("network", "cuts"),
    "tune.density": ("tede", "spline", "planar"),
    "predict.predictor": ("surrogate", "network", "network-plain"),
}
"""Models that ship with nuebar; everything else there is the path of a folder."""

_NAMED = ("experiment", "select.selection")  # a name of what ships, or a TOML file
_DATA = ("stream", "stream_columns", "calibration_columns", "sample", "response")
_TABLES = ("calibration", "monte_carlo")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")


def placed_paths(run: RunFile, folder: Path | None, where: str) -> RunFile:
    """The run file with absolute paths.

    Args:
        run: As it was read.
        folder: Of the file; ``None`` without one, when paths are of the command line, relative to the current folder.
        where: The file, for messages.

    Returns:
        A copy; ``outside`` has the paths that leave the folder, which are absolute in the file.

    Raises:
        NuebarError: A relative path leaves the folder, by itself or by a link, or a name is none.
    """
    outside: list[str] = []

    def placed(key: str, text: str) -> str:
        if text.startswith("~"):
            refuse(where, key, "a path that is written out", text, "write the name of the home folder")
        # Without "..", which means another folder behind a link.
        whole = Path(os.path.abspath((folder or Path()) / text))
        leaves = folder is None or not _inside(whole, folder, where, key, text)
        if leaves and os.path.isabs(text):
            outside.append(f"{key} = {text}")
        elif leaves and folder is not None:
            raise NuebarError(
                f"{where}: key {key!r}: expected a path inside the folder of the run file, got {text!r}, which leads "
                "out of it; write it as an absolute path if that is meant"
            )
        return str(whole)

    changes: dict[str, dict[str, Any]] = {}
    for key, text in _paths(run, where):
        table, _, name = key.rpartition(".")
        changes.setdefault(table, {})[name] = placed(key, text)
    data: dict[str, Any] = changes.pop("data", {})
    for table in _TABLES:
        data[table] = changes.pop(f"data.{table}", {})
    tables = {table: dataclasses.replace(getattr(run, table), **new) for table, new in changes.items() if table}
    return dataclasses.replace(
        run,
        **changes.get("", {}),
        **tables,
        data=dataclasses.replace(run.data, **data),
        source=where,
        outside=tuple(outside),
    )


def missing_path(run: RunFile) -> tuple[str, str] | None:
    """Key and path of the first thing that a run file names and that is not there; ``None`` if all is."""
    for key, text in _paths(run, run.source):
        if key in WORDS and not any(os.path.isfile(os.path.join(text, name)) for name in ("model.json", "grid.json")):
            return key, os.path.join(text, "model.json")
        if not os.path.exists(text) and not (glob.has_magic(text) and any(glob.iglob(text, recursive=True))):
            return key, text
    return None


def _paths(run: RunFile, where: str) -> Iterator[tuple[str, str]]:
    """Dotted key and text of everything that is a path."""
    for name in _DATA:
        if getattr(run.data, name) is not None:
            yield f"data.{name}", getattr(run.data, name)
    for table in _TABLES:
        for name, text in getattr(run.data, table).items():
            yield f"data.{table}.{name}", text
    for key in (*_NAMED, *WORDS):
        text = _at(run, key)
        if text in WORDS.get(key, ()):
            continue
        if key in WORDS or text.endswith(".toml"):
            yield key, text
        elif not _NAME.fullmatch(text):
            refuse(where, key, "a name, or the path of a TOML file that ends in .toml", text, "correct it")
    if run.full.plan:
        yield "full.plan", run.full.plan


def _at(run: RunFile, key: str) -> str:
    value: Any = run
    for part in key.split("."):
        value = getattr(value, part)
    return str(value)


def _inside(path: Path, folder: Path, where: str, key: str, text: str) -> bool:
    """Whether a path, and what a pattern or a folder there stands for, are in ``folder`` when links are followed."""
    try:
        home = folder.resolve()
        return all(p.resolve().is_relative_to(home) for p in (path, *_leads(path)))
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, names too long
        refuse(where, key, "a path that can be followed", text, f"{' '.join(str(error).split())[:200]}; correct it")


def _leads(path: Path) -> Iterator[Path]:
    """Files that a pattern matches, and links in a folder."""
    if path.is_dir():
        with os.scandir(path) as entries:
            yield from (Path(entry.path) for entry in entries if entry.is_symlink())
    elif glob.has_magic(str(path)):
        yield from (Path(match) for match in glob.iglob(str(path), recursive=True))
