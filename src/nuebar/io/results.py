"""Saved results: JSON records with a format number, and the versions and commit that made them."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import nuebar
from nuebar.errors import NuebarError
from nuebar.io.files import read_json, write_json

FORMAT = 1
"""The format that this version writes, and the newest one that it reads."""


def save_result(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Write a result as JSON, in one step, with ``"format": 1`` as its first key.

    Args:
        path: Where to write.
        record: The result; arrays become lists, keys are text. It may hold ``"format"`` already, but only as
            1.

    Raises:
        NuebarError: A value is not finite or has no JSON form, the format is another one, or the place is not
            writable.
    """
    if not isinstance(record, Mapping):
        raise NuebarError(f"{path}: expected a mapping to save, got {type(record).__name__}")
    _check_format(path, record.get("format", FORMAT))
    write_json(path, {"format": FORMAT, **record})


def load_result(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a result that :func:`save_result` wrote.

    Args:
        path: The JSON file.

    Returns:
        The record, ``"format"`` included, in the order of the file.

    Raises:
        NuebarError: The file is missing or not a JSON object, has no format, or one of a newer nuebar.
    """
    record = read_json(path)
    if "format" not in record:
        raise NuebarError(f"{path}, key format: expected {FORMAT}, found no such key; is this a result of nuebar?")
    _check_format(path, record["format"])
    return record


def versions() -> dict[str, str | None]:
    """Versions that decide the numbers of a result, without importing the packages.

    Returns:
        ``nuebar``, ``python``, ``numpy``, ``jax``, ``iminuit`` (None if not installed), ``platform`` (such as
        ``linux``) and ``machine`` (such as ``x86_64``).
    """
    return {
        "nuebar": nuebar.__version__,
        "python": platform.python_version(),
        **{name: _installed(name) for name in ("numpy", "jax", "iminuit")},
        "platform": sys.platform,
        "machine": platform.machine(),
    }


def git_commit(folder: str | os.PathLike[str] | None = None) -> str | None:
    """The commit of the code in ``folder``, if git keeps that folder.

    Args:
        folder: A folder of code; nuebar's own package by default. An installed copy inside somebody's
            repository has no commit, as git does not track it there.

    Returns:
        40 hexadecimal digits, with ``-dirty`` added when tracked files were changed since; None where git, a
        repository, a commit, or a tracked file in the folder is missing.
    """
    place = Path(nuebar.__file__).parent if folder is None else Path(folder)
    commit = _git(place, "rev-parse", "--verify", "HEAD")
    if not commit or not _git(place, "ls-files", "--", "."):
        return None
    changes = _git(place, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}-dirty" if changes else commit


def _check_format(path: str | os.PathLike[str], value: Any) -> None:
    if type(value) is not int or value < 1:
        raise NuebarError(f"{path}, key format: expected {FORMAT}, got {value!r}; save the result again")
    if value > FORMAT:
        raise NuebarError(
            f"{path}, key format: expected {FORMAT}, got {value}, which a newer nuebar wrote; update nuebar"
        )


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    # A hook or a rebase sets GIT_DIR and friends, which would answer for another repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    # Asking must not write: without this, status refreshes the index and takes its lock.
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
