"""What a stage is: its chunk function, what that needs to know, and where its files lie."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuebar.errors import NuebarError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_SUFFIX = re.compile(r"(\.[A-Za-z0-9]+)+")
CHUNK_FILE = re.compile(r"chunk-[0-9]{5,}\..+")
"""Names that :func:`chunk_path` gives."""


def chunk_path(place: Path, chunk: int, suffix: str) -> Path:
    """The file of a chunk in the stage's folder ``place``."""
    return place / f"chunk-{chunk:05d}{suffix}"


@dataclass(frozen=True)
class Stage:
    """What is to be done, apart from the seed and the place.

    Attributes:
        name: Name of the stage and of its folder: letters, digits, ``_`` and ``-``.
        function: The chunk function as ``module:function``, importable by any process. It is called as
            ``function(config, chunk, key, path)``, writes ``path`` and returns a small summary in plain JSON, or
            None. Its file may depend on nothing but config, chunk and key.
        config: What it needs to know, in plain JSON; it gets a copy of its own.
        chunks: Number of chunks. It may grow later: finished chunks are kept.
        suffix: End of the files' names.
        isolated: Whether even a single job needs a worker of its own, as the bits depend on the environment that
            workers have (anything that uses JAX).
    """

    name: str
    function: str
    config: Mapping[str, Any]
    chunks: int
    suffix: str = ".parquet"
    isolated: bool = False

    def __post_init__(self) -> None:
        for key, pattern, example in (
            ("name", _NAME, "such as 'stream'"),
            ("function", _FUNCTION, "such as 'package.module:function'"),
            ("suffix", _SUFFIX, "such as '.parquet'"),
        ):
            value = getattr(self, key)
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise NuebarError(f"stage {self.name!r}, {key}: expected text {example}, got {value!r}; correct it")
        if self.function.startswith("__main__:"):
            raise NuebarError(
                f"stage {self.name!r}: expected a function that other processes can import, got {self.function!r}; "
                "move it to a module"
            )
        if type(self.chunks) is not int or self.chunks < 1:
            raise NuebarError(f"stage {self.name!r}, chunks: expected 1 or more, got {self.chunks!r}; correct it")
        if not isinstance(self.config, Mapping):
            kind = type(self.config).__name__
            raise NuebarError(f"stage {self.name!r}, config: expected a mapping, got {kind}; give names to its values")

    def paths(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """The files of all chunks in the run folder ``folder``, in order."""
        return tuple(chunk_path(Path(folder) / self.name, i, self.suffix) for i in range(self.chunks))
