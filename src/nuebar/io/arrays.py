"""Named arrays in one file (safetensors), with a little JSON beside them; nothing in it is executed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nuebar.errors import NuebarError
from nuebar.io.files import atomic_path

__all__ = ["load_arrays", "map_arrays", "save_arrays"]


def save_arrays(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write arrays in one step; the same arrays give the same bytes.

    Args:
        path: The file, usually ending in ``.safetensors``.
        arrays: Name → array of numbers, of any shape.
        metadata: JSON-able; comes back from :func:`load_arrays`.

    Raises:
        NuebarError: The place cannot be written, an array holds no numbers, or the metadata are no JSON.
    """
    from safetensors.numpy import save_file

    plain = {name: np.asarray(a, order="C") for name, a in arrays.items()}
    try:
        text = {"nuebar": json.dumps(dict(metadata or {}), sort_keys=True, allow_nan=False)}
    except (TypeError, ValueError) as error:
        raise NuebarError(f"{path}: expected metadata that JSON can hold, got other ({error}); correct it") from error
    with atomic_path(path) as temporary:
        try:
            save_file(plain, temporary, metadata=text)
            temporary.chmod(0o666 & ~_umask())  # its writer makes files that only their owner can read
        except Exception as error:  # safetensors raises its own class, also for a full disk
            raise NuebarError(f"{path}: cannot be written ({error}); free or choose another place") from error


def load_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what :func:`save_arrays` wrote.

    Returns:
        The arrays by name, and the metadata.

    Raises:
        NuebarError: There is no such file, or it is not of this kind, or truncated.
    """
    return _opened(path, lambda file: {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118


def map_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a file as read-only views of it: only what is touched is read from the disk.

    Returns:
        The arrays by name (:class:`numpy.memmap`), and the metadata.

    Raises:
        NuebarError: As :func:`load_arrays`.
    """
    return _opened(path, lambda _: _mapped(path))


def _opened(
    path: str | os.PathLike[str], read: Callable[[Any], dict[str, np.ndarray]]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and metadata of a file whose header and size are right."""
    from safetensors import SafetensorError, safe_open

    if not os.path.isfile(path):
        raise NuebarError(f"{path}: expected a file, found none; check the path")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get("nuebar", "{}"))
            arrays = read(file)
    except (SafetensorError, ValueError, OSError) as error:
        raise NuebarError(f"{path}: not a safetensors file, or truncated ({error}); make it again") from error
    if not isinstance(metadata, dict):
        raise NuebarError(f"{path}: expected metadata of nuebar, got {type(metadata).__name__}; make the file again")
    return arrays, metadata


def _mapped(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    # https://huggingface.co/docs/safetensors (Format): 8 bytes with the length of a JSON header, the header, and the
    # arrays at offsets that count from its end, little-endian and in C order.
    whole = np.memmap(path, dtype=np.uint8, mode="r")
    begin = 8 + int.from_bytes(whole[:8].tobytes(), "little")
    header = json.loads(whole[8:begin].tobytes())
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        code, (first, last) = entry["dtype"], entry["data_offsets"]
        dtype = np.dtype("?" if code == "BOOL" else f"<{code[0].lower()}{int(code[1:]) // 8}")
        arrays[name] = whole[begin + first : begin + last].view(dtype).reshape(entry["shape"])
    return arrays


def _umask() -> int:
    """The permissions that new files shall not have."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
