"""An experiment in the configuration of a stage: named, with everything that it says."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from nuebar.config import Experiment, experiment_from_mapping
from nuebar.records import to_mapping

__all__ = ["described", "recalled"]


def described(experiment: Experiment) -> dict[str, Any]:
    """An experiment as plain JSON: its content, so that a changed number is a changed configuration."""
    return to_mapping(experiment)


def recalled(mapping: Mapping[str, Any]) -> Experiment:
    """The experiment that :func:`described` wrote."""
    return _recalled(repr(sorted(mapping.items())), _Box(mapping))


class _Box:
    """Carries the mapping past the cache, which keys on its text."""

    def __init__(self, mapping: Mapping[str, Any]) -> None:
        self.mapping = mapping

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Box)


@lru_cache(maxsize=8)
def _recalled(_: str, box: _Box) -> Experiment:
    content = {k: v for k, v in box.mapping.items() if k != "source"}
    return experiment_from_mapping(content, source=str(box.mapping.get("source", "")))
