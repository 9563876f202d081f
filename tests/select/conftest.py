"""Small pairs with the structure of the real ones, prepared once."""

import importlib.util
from pathlib import Path

import pytest

from nuebar.select.matrices import prepare

spec = importlib.util.spec_from_file_location("toy_pairs", Path(__file__).with_name("toy_pairs.py"))
toy_pairs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy_pairs)


@pytest.fixture(scope="session")
def pair_maker():
    """The module that makes toy pairs."""
    return toy_pairs


@pytest.fixture(scope="session")
def pair_files(tmp_path_factory):
    """Folders of antineutrinos and of accidentals, 12 000 pairs each."""
    return toy_pairs.files(tmp_path_factory.mktemp("pairs"), 12_000)


@pytest.fixture(scope="session")
def matrices(pair_files, tmp_path_factory):
    """Their features."""
    return prepare(tmp_path_factory.mktemp("prepared"), *pair_files)
