"""The command line. Thin: options in, sentences and files out."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from nuebar.errors import NuebarError
from nuebar.kernels import kernel_cache_folder

__all__ = ["main"]

EXIT_BAD_INPUT = 2


def _environment() -> None:
    """Double precision and a compilation cache, before anything imports jax."""
    os.environ.setdefault("JAX_ENABLE_X64", "1")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nuebar"
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(caches / "jax" / _fingerprint())
    if "NUMBA_CACHE_DIR" not in os.environ:
        os.environ["NUMBA_CACHE_DIR"] = str(kernel_cache_folder(caches))
    # The matrices of a fit are small: threads of the linear algebra only get in the way of each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def _fingerprint() -> str:
    """A name for this processor type and these versions: compiled code of one must not run on another."""
    import hashlib
    import platform
    from importlib.metadata import version

    flags = ""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        pass
    words = [platform.machine(), platform.python_version(), version("jax"), version("jaxlib"), flags]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def main(arguments: list[str] | None = None) -> None:
    """Run a command; bad input ends with one sentence and exit code 2."""
    _environment()
    words = sys.argv[1:] if arguments is None else arguments
    try:
        import cyclopts

        from nuebar.commands import app
    except ImportError:
        _complain("the command line needs cyclopts and rich: pip install 'nuebar[cli]'")
        sys.exit(EXIT_BAD_INPUT)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("jax", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except cyclopts.CycloptsError as error:
        _complain(" ".join(str(error).split()))
        sys.exit(EXIT_BAD_INPUT)
    except (NuebarError, OSError) as error:
        if "--debug" in words:
            raise
        _complain(" ".join(str(error).split()))
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        _complain("stopped; nothing was left half-written")
        sys.exit(130)
    sys.exit(code or 0)


def _complain(text: str) -> None:
    sys.stderr.write(f"nuebar: {text}\n")


if __name__ == "__main__":
    main()
