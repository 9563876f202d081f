"""Strict JAX for the whole suite: float64, and no silent rank promotion."""

import os
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

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
