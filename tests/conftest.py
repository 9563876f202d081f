"""Double precision for the whole suite, the shared data, and models that many tests use."""

import os
import tempfile
from pathlib import Path

from nuebar.kernels import kernel_cache_folder

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("NUMBA_CACHE_DIR", str(kernel_cache_folder(Path(tempfile.gettempdir()))))
# Workers, and the commands that tests start, take compiled programs from each other.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "nuebar-test-jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import jax
import pytest

jax.config.update("jax_enable_x64", True)

SHARED_DATA = Path(os.environ.get("NUEBAR_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def juno_2025_release() -> Path:
    """The folder of JUNO's 2025 public release, or a skip with the reason."""
    folder = SHARED_DATA / "juno-2025-release"
    if not folder.is_dir():
        pytest.skip(f"JUNO's 2025 public release is not at {folder}; set NUEBAR_TEST_DATA to its parent")
    return folder


@pytest.fixture(scope="session")
def common_inputs() -> Path:
    """The ROOT file of JUNO's 2022 common inputs, or a skip with the reason."""
    path = SHARED_DATA / "juno-common-inputs-2022" / "JUNOInputs2022_01_06_noTF2.root"
    if not path.is_file():
        pytest.skip(f"JUNO's 2022 common inputs are not at {path}; set NUEBAR_TEST_DATA to the folder above")
    return path


@pytest.fixture(scope="session")
def juno():
    """The embedded sensitivity set."""
    from nuebar.config import load_experiment

    return load_experiment("juno")


@pytest.fixture(scope="session")
def juno_inputs(juno):
    """Its signal arrays."""
    from nuebar.predict.signal import signal_inputs

    return signal_inputs(juno)


@pytest.fixture(scope="session")
def juno_matrix(juno_inputs):
    """Direct integration of the embedded set."""
    from nuebar.predict.matrix import MatrixPredictor

    return MatrixPredictor.build(juno_inputs)


@pytest.fixture(scope="session")
def juno_harmonic(juno_inputs):
    """Harmonic predictor of the embedded set, ±15σ, matter, cores apart."""
    from nuebar.predict.harmonic import HarmonicPredictor

    return HarmonicPredictor.build(juno_inputs, cores=True)
