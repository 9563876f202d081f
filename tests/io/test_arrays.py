"""Arrays in a file: they come back as they were, or one sentence says what is wrong."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from nuebar.errors import NuebarError
from nuebar.io.arrays import load_arrays, save_arrays

ARRAYS = {
    "codes": np.arange(5, dtype=np.uint16),
    "offsets": np.array([0, 5], np.int64),
    "table": np.linspace(0, 1, 6).reshape(2, 3),
    "charges": np.array([[1.5, np.nan], [np.inf, -0.0]], np.float32),
    "flags": np.array([True, False]),
    "number": np.array(2.5),
    "none": np.empty((0, 3)),
}


def assert_same(got, expected):
    assert set(got) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array)
        assert got[name].dtype == array.dtype
        assert got[name].shape == array.shape


@pytest.mark.parametrize("metadata", [None, {}, {"seed": 3, "names": ["ν̄e", "a"], "nested": {"x": 1.5, "y": None}}])
def test_round_trip(tmp_path, metadata):
    path = tmp_path / "a.safetensors"
    save_arrays(path, ARRAYS, metadata)
    arrays, back = load_arrays(path)
    assert_same(arrays, ARRAYS)
    assert back == (metadata or {})


def test_layout_in_memory_does_not_matter(tmp_path):
    path = tmp_path / "a.safetensors"
    table = np.arange(24.0).reshape(4, 6)
    views = {"turned": table.T, "sparse": table[::2, ::3], "reversed": table[:, ::-1], "big": table.astype(">f8")}
    save_arrays(path, views)
    arrays, _ = load_arrays(path)
    for name, view in views.items():
        np.testing.assert_array_equal(arrays[name], view)


def test_same_arrays_same_bytes(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    save_arrays(a, ARRAYS, {"x": 1, "y": 2})
    save_arrays(b, dict(reversed(ARRAYS.items())), {"y": 2, "x": 1})
    assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize("arrays", [{"a": np.array([object()])}, {"a": np.array(["text"])}])
def test_what_is_no_number_is_refused(tmp_path, arrays):
    with pytest.raises(NuebarError, match=r"a\.safetensors: cannot be written"):
        save_arrays(tmp_path / "a.safetensors", arrays)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("metadata", [{"x": np.nan}, {"x": np.inf}, {"x": object()}])
def test_metadata_that_is_no_json_leaves_no_file(tmp_path, metadata):
    with pytest.raises(NuebarError, match=r"a\.safetensors: expected metadata that JSON can hold"):
        save_arrays(tmp_path / "a.safetensors", ARRAYS, metadata)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.safetensors"
    save_arrays(path, ARRAYS)
    with pytest.raises(NuebarError, match="cannot be written"):
        save_arrays(path, {"a": np.array([object()])})
    assert_same(load_arrays(path)[0], ARRAYS)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_no_such_place(tmp_path):
    with pytest.raises(NuebarError, match="none"):
        save_arrays(tmp_path / "none" / "a.safetensors", ARRAYS)


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir()])
def test_no_such_file(tmp_path, make):
    path = tmp_path / "a.safetensors"
    make(path)
    with pytest.raises(NuebarError, match=r"a\.safetensors: expected a file, found none; check the path"):
        load_arrays(path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"PAR1" + data,
        lambda data: data + b"more",
        lambda data: struct.pack("<Q", 1 << 60) + data[8:],
    ],
)
def test_spoilt_files_are_refused(tmp_path, spoil):
    path = tmp_path / "a.safetensors"
    save_arrays(path, ARRAYS)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(NuebarError, match=r"a\.safetensors: not a safetensors file, or truncated .*; make it again"):
        load_arrays(path)


def test_files_of_others(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"x": np.ones(2)}, path)
    arrays, metadata = load_arrays(path)
    np.testing.assert_array_equal(arrays["x"], [1, 1])
    assert metadata == {}
    save_file({"x": np.ones(2)}, path, metadata={"nuebar": "[1]"})
    with pytest.raises(NuebarError, match=r"expected metadata of nuebar, got list; make the file again"):
        load_arrays(path)
    save_file({"x": np.ones(2)}, path, metadata={"nuebar": "{"})
    with pytest.raises(NuebarError, match="not a safetensors file, or truncated"):
        load_arrays(path)


def test_metadata_is_json_in_the_header(tmp_path):
    path = tmp_path / "a.safetensors"
    save_arrays(path, ARRAYS, {"seed": 3})
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    assert json.loads(header["__metadata__"]["nuebar"]) == {"seed": 3}
