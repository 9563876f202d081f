"""Energy resolutions by name, from the table that ships with nuebar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from nuebar.config import EXPERIMENTS
from nuebar.errors import NuebarError
from nuebar.records import from_mapping, read_toml

__all__ = ["OWN", "RESOLUTIONS", "Resolution", "changes", "resolutions"]

RESOLUTIONS = EXPERIMENTS / "resolution" / "juno.toml"
OWN = "own"


@dataclass(frozen=True)
class Resolution:
    """a, b, c and their relative errors."""

    resolution: tuple[float, ...]
    sigma: tuple[float, ...]


@dataclass(frozen=True)
class _Resolutions:
    format: int
    sets: dict[str, Resolution]


@cache
def resolutions() -> Mapping[str, Resolution]:
    """Resolutions by name."""
    found: _Resolutions = from_mapping(_Resolutions, read_toml(RESOLUTIONS), str(RESOLUTIONS))
    return found.sets


def changes(name: str) -> dict[str, Any]:
    """What a resolution changes in an experiment, as dotted keys.

    Raises:
        NuebarError: There is none of that name.
    """
    known = resolutions()
    if name not in known:
        raise NuebarError(f"--resolution: expected {', '.join((*known, OWN))}, got {name!r}")
    r = known[name]
    return {"response.resolution": r.resolution, "systematics.resolution": r.sigma}
