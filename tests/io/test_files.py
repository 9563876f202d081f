import contextlib
import json
import os

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuebar.errors import NuebarError
from nuebar.io import files

quick = settings(deadline=None, max_examples=60)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- atomic writes


@pytest.mark.parametrize("data", [b"", b"\x00\xff", "ν̄e\r\n".encode()])
def test_bytes_are_written_as_they_are_and_nothing_else_stays(tmp_path, data):
    files.atomic_write_bytes(tmp_path / "a.bin", b"old")
    files.atomic_write_bytes(tmp_path / "a.bin", data)
    assert (tmp_path / "a.bin").read_bytes() == data
    assert names(tmp_path) == ["a.bin"]


def test_text_keeps_its_line_ends(tmp_path):
    files.atomic_write_text(tmp_path / "a.txt", "ν̄\r\ne\n")
    assert (tmp_path / "a.txt").read_bytes() == "ν̄\r\ne\n".encode()
    with pytest.raises(NuebarError, match="UTF-8"):
        files.atomic_write_text(tmp_path / "a.txt", "\ud800")


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_failed_body_leaves_the_old_file_and_no_part(tmp_path, failure):
    target = tmp_path / "a.npy"
    target.write_bytes(b"old")

    def write_half():
        with files.atomic_path(target) as temporary:
            temporary.write_bytes(b"half")
            raise failure

    with pytest.raises(failure):
        write_half()
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.npy"]


def test_the_final_name_is_absent_until_the_body_ends(tmp_path):
    target = tmp_path / "a.npz"
    with files.atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        np.savez(temporary, x=np.arange(3))  # adds .npz to any other suffix
        assert not target.exists()
    assert np.array_equal(np.load(target)["x"], np.arange(3))


def test_a_failed_rename_is_told_and_leaves_the_old_file(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    target = tmp_path / "a.txt"
    target.write_text("old")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(NuebarError, match=r"a\.txt: cannot be written \(No space left"):
        files.atomic_write_text(target, "new")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "a")
    files.atomic_write_text(tmp_path / "link", "new")
    assert (tmp_path / "real" / "a").read_text() == "new"
    assert (tmp_path / "link").is_symlink()


def test_atomic_path_refuses_what_cannot_become_a_file(tmp_path):
    with pytest.raises(NuebarError, match="existing folder"):
        files.atomic_write_text(tmp_path / "absent" / "a", "")
    with pytest.raises(NuebarError, match="got a folder"):
        files.atomic_write_text(tmp_path, "")
    with pytest.raises(NuebarError, match="wrote nothing"), files.atomic_path(tmp_path / "a"):
        pass


def test_output_folder(tmp_path):
    folder = files.output_folder(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert names(folder) == []
    assert files.output_folder(folder) == folder
    (tmp_path / "file").write_text("")
    for bad in ("file", "file/below"):
        with pytest.raises(NuebarError, match="got a file"):
            files.output_folder(tmp_path / bad)
    with pytest.raises(NuebarError, match="can be written"):
        files.output_folder("/proc/nuebar")


# --- JSON

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    scalars | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


@quick
@given(record=st.dictionaries(text, values, max_size=5))
def test_json_round_trip_is_exact_and_ordered(tmp_path_factory, record):
    path = tmp_path_factory.getbasetemp() / "round.json"
    files.write_json(path, record)
    back = files.read_json(path)
    assert back == record
    assert list(back) == list(record)
    assert json.dumps(back) == json.dumps(record)  # tells 1 from 1.0, -0.0 from 0.0


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.array([[1.5, 2.0]]), [[1.5, 2.0]]),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.float64(0.1), 0.1),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (jnp.asarray([1, 2]), [1, 2]),
        (jnp.asarray(0.25), 0.25),
        ((1, (2,)), [1, [2]]),
    ],
)
def test_arrays_become_lists(tmp_path, value, plain):
    files.write_json(tmp_path / "a.json", {"x": value})
    assert files.read_json(tmp_path / "a.json") == {"x": plain}


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"a": {"b": [1.0, float("nan")]}}, r"key a\.b\[1\]: expected a finite number, got nan"),
        ({"a": np.array([0.0, np.inf])}, r"key a\[1\]: expected a finite number, got inf"),
        ({"a": jnp.asarray(jnp.nan)}, r"key a: expected a finite number"),
        ({"a": {1: 2}}, r"key a: expected keys that are text, got 1"),
        ({"a": {1, 2}}, r"key a: expected numbers.*got set"),
        ({"a": 1j}, r"key a: .*got complex"),
        ({"a": np.longdouble(1)}, r"key a: .*got longdouble"),
        ([1], r"expected a mapping"),
    ],
)
def test_write_json_refuses_and_writes_nothing(tmp_path, record, sentence):
    with pytest.raises(NuebarError, match=sentence):
        files.write_json(tmp_path / "a.json", record)
    assert names(tmp_path) == []


def test_write_json_refuses_a_record_in_itself(tmp_path):
    record = {}
    record["a"] = record
    with pytest.raises(NuebarError, match="holds itself"):
        files.write_json(tmp_path / "a.json", record)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "empty file"),
        (b" \n", "empty file"),
        (b'{"a": 1,\n "b": [1, 2', r"line 2, column 12: expected JSON"),
        (b'{"a": 1} x', r"line 1, column 10"),
        (b"[1]", "got list"),
        (b"3", "got int"),
        (b'{"a": NaN}', "got NaN"),
        (b'{"a": -Infinity}', "got -Infinity"),
        (b'{"a": 1e999}', "got 1e999"),
        (b'{"a": 1, "a": 2}', "'a' twice"),
        (b'{"a": "\xff"}', "byte 7: expected UTF-8 text, got 0xff"),
        (b'{"a": ' + b"9" * 5000 + b"}", "sensible size"),
        (b'{"a": ' + b"[" * 200_000, "sensible size"),
    ],
)
def test_read_json_says_what_is_wrong(tmp_path, content, sentence):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(NuebarError, match=rf"a\.json.*{sentence}"):
        files.read_json(tmp_path / "a.json")


def test_read_json_without_a_file(tmp_path):
    with pytest.raises(NuebarError, match="found none"):
        files.read_json(tmp_path / "a.json")
    with pytest.raises(NuebarError, match="got a folder"):
        files.read_json(tmp_path)


def test_read_json_takes_a_byte_order_mark(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n')
    assert files.read_json(tmp_path / "a.json") == {"a": 1}


@quick
@given(data=st.data())
def test_a_truncated_json_is_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "cut.json"
    files.write_json(path, {"a": [1.25, {"b": "ν̄e"}], "c": None})
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 2))])
    with pytest.raises(NuebarError):
        files.read_json(path)


@quick
@given(content=st.binary(max_size=40) | st.text('{}[]":,0123456789.-eEnulNa \n', max_size=40).map(str.encode))
def test_any_bytes_are_an_object_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content)
    with contextlib.suppress(NuebarError):
        assert isinstance(files.read_json(path), dict)


# --- text tables


def table(tmp_path, content, columns=("x", "y"), **options):
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return files.read_text_table(path, columns, **options)


@pytest.mark.parametrize(
    "content",
    [
        "x,y\n1,2\n3,4e0\n",
        "\ufeffx,y\r\n1,2\r\n3,4\r\n,\r\n,\r\n",
        '# why\n"x","y" # units\n\n1 , +2. # first\n3,.4e1',
        "x y\n1 2\n3\t4\n",
        "y,z,x\n2,?,1\n4,,3\n",
        "x,y\r1,2\r3,4\r",
    ],
)
def test_one_table_in_many_dresses(tmp_path, content):
    got = table(tmp_path, content)
    assert got.numbers("x").tolist() == [1.0, 3.0]
    assert got.numbers("y").tolist() == [2.0, 4.0]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "got no rows"),
        ("# x,y\n", "got no rows"),
        ("x,y\n", "got none; the file may be cut short"),
        ("x,y\n1,2\n3\n", "line 3: expected 2 cells"),
        ("x,y\n1,2\n3,4,5\n", "line 3: expected 2 cells"),
        ("x,z\n1,2\n", "line 1: expected a header with the column 'y', got x, z"),
        ("1,2\n3,4\n", "line 1: expected a header"),
        ("x,y,x\n1,2,3\n", "line 1: expected the column 'x' once"),
        ("x,y\n1,2\nx,y\n", "line 3, column 'x': expected a finite number, got 'x'"),
        ("# a\nx,y\n1,two\n", "line 3, column 'y': expected a finite number, got 'two'"),
        ("x,y\n1,\n", "line 2, column 'y': expected a finite number, got ''"),
        ("x,y\n1,nan\n", "got 'nan'"),
        ("x,y\n1,1e999\n", "got '1e999'"),
        ("x,y\n1,1_0\n", "got '1_0'"),
        ("x,y\n1,٣\n", "got '٣'"),
        (b"x,y\n1,\xb5\n", "byte 6: expected UTF-8"),
    ],
)
def test_a_wrong_table_is_refused_with_its_place(tmp_path, content, sentence):
    with pytest.raises(NuebarError, match=sentence):
        [table(tmp_path, content).numbers(name) for name in "xy"]


def test_header_is_optional_when_asked(tmp_path):
    assert table(tmp_path, "1 2\n3 4\n", header=False).numbers("y").tolist() == [2.0, 4.0]
    assert table(tmp_path, "y x\n1 2\n3 4\n", header=False).numbers("y").tolist() == [1.0, 3.0]
    with pytest.raises(NuebarError, match="line 1: expected 2 cells"):
        table(tmp_path, "1 2 3\n", header=False)


def test_names_may_not_be_empty(tmp_path):
    assert table(tmp_path, "x,y\na,1\n").text("x") == ("a",)
    with pytest.raises(NuebarError, match="line 2, column 'x': expected a name"):
        table(tmp_path, "x,y\n,1\n").text("x")
