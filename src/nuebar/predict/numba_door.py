"""The one door to numba, an optional dependency."""

from __future__ import annotations

from typing import Any

from nuebar.errors import NuebarError

__all__ = ["require_numba"]


def require_numba() -> Any:
    """The module, or one sentence that says how to get it."""
    try:
        import numba
    except ImportError as error:
        raise NuebarError("the compiled and batch predictors need numba: pip install 'nuebar[fast]'") from error
    return numba
