"""What a stage is: the description that its folder keeps, and the difference to what is asked for now."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from nuebar.errors import NuebarError
from nuebar.io.results import load_result, save_result, versions

log = logging.getLogger(__name__)
MANIFEST = "stage.json"
_ABSENT = "(absent)"
_SHOWN = 5
_WIDTH = 60


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The description in ``folder``, or None if there is none.

    Raises:
        NuebarError: It is damaged.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    record = load_result(path)
    kinds = {"stage": str, "function": str, "suffix": str, "seed": int, "chunks": int, "config": dict, "versions": list}
    for key, kind in kinds.items():
        if not isinstance(record.get(key), kind):
            got = type(record[key]).__name__ if key in record else "nothing"
            raise NuebarError(
                f"{path}, key {key}: expected {kind.__name__}, got {got}; the file is damaged, remove {folder}"
            )
    return record


def write_manifest(folder: Path, content: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
    """Write the description, unless it is there already; other versions than before are noted with a warning.

    Args:
        folder: Of the run.
        content: What to write.
        before: What was there already.
    """
    now = {**versions(), "numba": _installed("numba"), "pyarrow": _installed("pyarrow")}
    seen = list(before["versions"]) if before else []
    if seen and seen[-1] != now:
        changed = ", ".join(differences(seen[-1], now))
        log.warning("%s: was begun with other versions (%s); the new chunks may differ in their bits", folder, changed)
    if not seen or seen[-1] != now:
        seen.append(now)
    started = before["started"] if before else datetime.now(UTC).isoformat(timespec="microseconds")
    record = {**content, "started": started, "versions": seen}
    if before is None or {**record, "format": before["format"]} != before:
        save_result(folder / MANIFEST, record)


def contradictions(before: Mapping[str, Any], content: Mapping[str, Any]) -> list[str]:
    """Why the finished chunks of ``before`` are none of ``content``: ``dotted.key: old -> new`` for each change.

    More chunks than before contradict nothing, since no chunk depends on their number.
    """
    keys = ["stage", "function", "suffix", "seed"]
    if before["chunks"] > content["chunks"]:
        keys.append("chunks")
    changes = differences({k: before[k] for k in keys}, {k: content[k] for k in keys})
    return changes + differences(before["config"], content["config"])


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """``dotted.key: old -> new`` for each leaf of two JSON records that differs, in the order of ``old``.

    Leaves are compared as they are written: 1 and 1.0 differ, as a chunk function might tell them apart.
    """
    was, now = _leaves(old, ""), _leaves(new, "")
    return [
        f"{key}: {_short(was.get(key, _ABSENT))} -> {_short(now.get(key, _ABSENT))}"
        for key in {**was, **now}
        if was.get(key) != now.get(key)
    ]


def sentence(changes: list[str]) -> str:
    """The first few changes, and how many more there are."""
    more = f"; and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
    return "; ".join(changes[:_SHOWN]) + more


def _leaves(value: Any, key: str) -> dict[str, str]:
    items: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        items = [(f"{key}.{name}" if key else name, item) for name, item in value.items()]
    elif isinstance(value, list):
        items = [(f"{key}[{i}]", item) for i, item in enumerate(value)]
    if not items:
        return {key: json.dumps(value, ensure_ascii=False)}
    return {name: text for inner, item in items for name, text in _leaves(item, inner).items()}


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
