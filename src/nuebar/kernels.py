"""The one door to numba, an optional dependency: compiled kernels for events and for single spectra."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nuebar.errors import NuebarError

__all__ = ["kernel_cache_folder", "njit", "require_numba"]


def require_numba() -> Any:
    """The module, or one sentence that says how to get it."""
    try:
        import numba
    except ImportError as error:
        raise NuebarError(
            "the detector Monte Carlo, single events of densities, and the compiled and batch predictors need numba: "
            "pip install 'nuebar[fast]'"
        ) from error
    return numba


def njit(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called: cached on disk, without the interpreter's lock.

    No fast-math: sums keep their order, so that the same seed gives the same bits. Without numba the function
    raises :class:`NuebarError` when it is called.
    """
    try:
        numba = require_numba()
    except NuebarError:

        @functools.wraps(function)
        def missing(*_: Any, **__: Any) -> Any:
            require_numba()

        return missing
    return numba.njit(cache=True, nogil=True, error_model="numpy")(function)


def kernel_cache_folder(base: Path) -> Path:
    """A folder for compiled kernels, named after the state of nuebar's sources.

    numba looks at the file of a kernel only, not at those of the kernels that it calls: with a changed callee it
    would run yesterday's code.

    Args:
        base: The folder of caches.
    """
    package = Path(__file__).parent
    state = hashlib.blake2b(digest_size=8)
    for path in sorted(package.rglob("*.py")):
        stat = os.stat(path)
        state.update(f"{path}:{stat.st_size}:{stat.st_mtime_ns};".encode())
    return base / f"numba-{state.hexdigest()}"
