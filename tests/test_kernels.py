"""The door to numba: compiled functions are plain ones, and one sentence where it is absent."""

import os
import subprocess
import sys

import numba
import pytest

from nuebar import kernels
from nuebar.errors import NuebarError
from nuebar.kernels import kernel_cache_folder, njit, require_numba


def harmonic(n):
    """Sums in the order written, down to the last bit."""
    total = 0.0
    for k in range(1, n + 1):
        total += 1.0 / k
    return total


def divide(a, b):
    return a / b


def test_a_kernel_gives_the_bits_of_python():
    # Without fast-math a sum keeps its order.
    assert njit(harmonic)(100_000) == harmonic(100_000)


def test_options_of_kernels():
    options = njit(harmonic).targetoptions
    assert options["nogil"]
    assert options["error_model"] == "numpy"
    assert not options.get("fastmath", False)
    assert not options.get("parallel", False)
    assert type(njit(divide)._cache).__name__ == "FunctionCache"  # kept on disk


def test_the_module_is_numba():
    assert require_numba() is numba


@pytest.fixture
def without_numba(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)


def test_absent_numba_is_one_sentence_at_the_first_call(without_numba):
    function = njit(harmonic)
    assert function.__name__ == "harmonic"
    for call in (lambda: function(3), require_numba):
        with pytest.raises(NuebarError, match=r"need numba: pip install 'nuebar\[fast\]'"):
            call()


def test_modules_of_kernels_can_be_imported_without_numba():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import nuebar.simulate.calibration, nuebar.simulate.sources, nuebar.simulate.detector as d\n"
        "from nuebar.errors import NuebarError\n"
        "from nuebar.simulate.random import derive_key\n"
        "try:\n    d.gamma_cascades((1.0,), 1, derive_key(1))\n"
        "except NuebarError as error:\n    sys.exit(0 if 'nuebar[fast]' in str(error) else 3)\n"
        "sys.exit(4)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two kernel files, seen by the door."""
    (tmp_path / "simulate").mkdir()
    for name in ("kernels.py", "simulate/a.py", "simulate/b.py"):
        (tmp_path / name).write_text("1\n")
    monkeypatch.setattr(kernels, "__file__", str(tmp_path / "kernels.py"))
    return tmp_path


def test_cache_folder_follows_the_sources(package, tmp_path):
    base = tmp_path / "caches"
    first = kernel_cache_folder(base)
    assert first.parent == base
    assert kernel_cache_folder(base) == first
    os.utime(package / "simulate" / "b.py", ns=(1, 1))
    touched = kernel_cache_folder(base)
    assert touched != first
    (package / "simulate" / "b.py").write_text("22\n")
    os.utime(package / "simulate" / "b.py", ns=(1, 1))
    grown = kernel_cache_folder(base)
    assert grown not in (first, touched)
    (package / "simulate" / "c.py").write_text("3\n")
    assert kernel_cache_folder(base) not in (first, touched, grown)
    assert not base.exists()  # naming a folder makes none
