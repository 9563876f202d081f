"""Models on disk: a folder with ``weights.safetensors`` (arrays only) and ``model.json`` (everything else).

Both are untrusted: nothing is executed, sizes are checked before anything is used, and a name, shape or type
that does not match the description is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.files import atomic_write_bytes, output_folder, read_bytes, read_json, write_json

__all__ = ["load_model", "model_digest", "save_model"]

FORMAT = 1
WEIGHTS, DESCRIPTION = "weights.safetensors", "model.json"
LARGEST_BYTES = 2**31


def save_model(
    folder: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], description: Mapping[str, Any]
) -> tuple[Path, Path]:
    """Write a model; the description comes last, so that a folder with one is complete.

    Args:
        folder: Made if missing.
        arrays: Name → array of numbers, float16 to float64 or integers.
        description: JSON-able; ``format``, the table of arrays and a digest of their file are added.

    Returns:
        The two files.
    """
    from safetensors.numpy import save

    out = output_folder(folder)
    plain = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
    shapes = {name: {"shape": list(a.shape), "dtype": str(a.dtype)} for name, a in plain.items()}
    (out / DESCRIPTION).unlink(missing_ok=True)
    content = save(plain)
    atomic_write_bytes(out / WEIGHTS, content)
    # As it will be read: JSON knows no tuples.
    told = json.loads(json.dumps({"format": FORMAT, **description, "arrays": shapes}, allow_nan=False))
    write_json(out / DESCRIPTION, {**told, "digest": model_digest(content, told)})
    return out / WEIGHTS, out / DESCRIPTION


def load_model(folder: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a model folder.

    Args:
        folder: As written by :func:`save_model`.

    Returns:
        The arrays by name, and the description.

    Raises:
        NuebarError: A file is missing, of another format, truncated, or does not match the description.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = Path(folder)
    description = read_json(path / DESCRIPTION)
    if description.get("format") != FORMAT:
        raise NuebarError(
            f"{path / DESCRIPTION}: expected format {FORMAT}, got {description.get('format')!r}; build the model again"
        )
    weights = path / WEIGHTS
    if weights.is_file() and weights.stat().st_size > LARGEST_BYTES:
        raise NuebarError(f"{weights}: larger than {LARGEST_BYTES} bytes; not a model of this version")
    content = read_bytes(weights)
    try:
        arrays = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise NuebarError(f"{weights}: not a safetensors file, or truncated: {error}") from error
    _compare(arrays, description.get("arrays"), weights)
    if "digest" in description and description["digest"] != model_digest(content, description):
        raise NuebarError(
            f"{path}: {WEIGHTS} and {DESCRIPTION} do not match their digest: one was altered; copy both anew or "
            "build the model again"
        )
    return arrays, description


def model_digest(content: bytes, description: Mapping[str, Any]) -> str:
    """Digest of the file of weights and of everything in the description but the digest itself."""
    told = {k: v for k, v in description.items() if k != "digest"}
    digest = hashlib.blake2b(content, digest_size=16)
    digest.update(json.dumps(told, sort_keys=True).encode())
    return digest.hexdigest()


def _compare(arrays: Mapping[str, np.ndarray], expected: Any, path: Path) -> None:
    if not isinstance(expected, Mapping) or set(expected) != set(arrays):
        names = sorted(expected) if isinstance(expected, Mapping) else expected
        raise NuebarError(f"{path}: expected the arrays {names}, got {sorted(arrays)}")
    for name, array in arrays.items():
        wanted = expected[name]
        got = {"shape": list(array.shape), "dtype": str(array.dtype)}
        if wanted != got:
            raise NuebarError(f"{path}: array {name!r}: expected {wanted}, got {got}")
        if not np.all(np.isfinite(array)):
            raise NuebarError(f"{path}: array {name!r}: expected finite numbers, got NaN or infinity")
