"""Pools of cascades: the same after a file, a cut or a join, and nothing else than offsets that fit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuebar.errors import NuebarError
from nuebar.io.arrays import load_arrays, save_arrays
from nuebar.simulate.deposits import code_energies_MeV
from nuebar.simulate.pool import CascadePool, joined


def pool_of(counts, seed=0):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(np.asarray(counts, np.int64))])
    codes = rng.integers(0, 65_536, offsets[-1]).astype(np.uint16)
    columns = {"branch": rng.integers(0, 5, len(counts)).astype(np.uint8), "x_m": rng.random((len(counts), 3))}
    return CascadePool(codes, offsets, columns, {"source": "Cs137", "cascades": len(counts)})


def assert_same(a, b):
    for x, y in ((a.codes, b.codes), (a.offsets, b.offsets), *((a.columns[k], b.columns[k]) for k in a.columns)):
        np.testing.assert_array_equal(x, y)
        assert x.dtype == y.dtype
    assert set(a.columns) == set(b.columns)
    assert a.metadata == b.metadata


POOL = pool_of([3, 0, 5, 1, 0, 2])


def test_save_and_load(tmp_path):
    path = tmp_path / "pool.safetensors"
    POOL.save(path)
    assert_same(CascadePool.load(path), POOL)
    POOL.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_metadata_cannot_pass_for_the_kind_of_file(tmp_path):
    odd = replace(POOL, metadata={"kind": "calibration", "format": 9, "seed": 3})
    odd.save(tmp_path / "pool.safetensors")
    assert CascadePool.load(tmp_path / "pool.safetensors").metadata == {"seed": 3}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=12), st.data())
def test_parts_join_to_the_whole(counts, data):
    pool = pool_of(counts)
    cut = data.draw(st.integers(1, len(counts) - 1))
    parts = [pool.part(0, cut), pool.part(cut, len(pool))]
    assert [len(p) for p in parts] == [cut, len(pool) - cut]
    assert_same(joined(parts), pool)
    table = np.random.default_rng(1).random(65_536)
    np.testing.assert_array_equal(np.concatenate([p.photons(table) for p in parts]), pool.photons(table))


def test_parts_share_the_deposits():
    assert POOL.part(2, 5).codes.base is POOL.codes
    assert len(POOL) == 6


def test_light_is_a_sum_over_deposits():
    table = np.random.default_rng(2).random(65_536)
    expected = [table[POOL.codes[a:b]].sum() for a, b in zip(POOL.offsets, POOL.offsets[1:], strict=False)]
    np.testing.assert_allclose(POOL.photons(table), expected, rtol=1e-14)
    np.testing.assert_allclose(POOL.photons(table.astype(np.float32)), expected, rtol=1e-6)
    np.testing.assert_array_equal(POOL.energies_MeV(), POOL.photons(code_energies_MeV()))


def test_mean_deposits_give_the_mean_light():
    table = np.random.default_rng(3).random(65_536)
    assert POOL.mean_deposits() @ table == pytest.approx(POOL.photons(table).mean(), rel=1e-13)
    chosen = np.array([True, False, True, False, True, False])
    assert POOL.mean_deposits(chosen) @ table == pytest.approx(POOL.photons(table)[chosen].mean(), rel=1e-13)
    assert not POOL.mean_deposits(np.zeros(6, bool)).any()
    assert POOL.mean_deposits().shape == (65_536,)


@pytest.mark.parametrize(
    ("codes", "offsets"),
    [
        (np.zeros(3, np.uint16), np.array([0, 2])),  # deposits left over
        (np.zeros(3, np.uint16), np.array([0, 4])),  # beyond the end
        (np.zeros(3, np.uint16), np.array([1, 3])),
        (np.zeros(3, np.uint16), np.array([0, 5, 3])),
        (np.zeros(3, np.uint16), np.array([0])),
        (np.zeros(3, np.uint16), np.array([[0, 3]])),
        (np.zeros(3, np.uint16), np.array([0.0, 3.0])),
        (np.zeros(3, np.int64), np.array([0, 3])),
        (np.zeros(3, np.uint8), np.array([0, 3])),
    ],
)
def test_kernels_see_no_other_offsets(codes, offsets):
    with pytest.raises(NuebarError, match="expected offsets that increase from 0 to the number of deposits"):
        CascadePool(codes, offsets)


def test_columns_have_a_row_for_each_cascade():
    with pytest.raises(NuebarError, match="column 'branch' has 2 rows, expected 1"):
        CascadePool(np.zeros(3, np.uint16), np.array([0, 3]), {"branch": np.zeros(2)})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"counts": np.array([3, 0, 5, 1, 0, 3], np.uint32)}, "offsets that increase .*; simulate it again"),
        ({"counts": np.array([3, 0, 5, 1, 4, -2], np.int32)}, "offsets that increase"),
        ({"counts": np.array([11], np.uint32)}, "column 'branch' has 6 rows, expected 1; simulate it again"),
        ({"codes": np.zeros(10, np.uint16)}, "offsets that increase"),
        ({"codes": np.zeros(11, np.int32)}, "offsets that increase"),
        ({"column.branch": np.zeros(5, np.uint8)}, "column 'branch' has 5 rows, expected 6"),
        ({"counts": None}, r"expected the arrays codes and counts, got \["),
        ({"codes": None}, "expected the arrays codes and counts"),
    ],
)
def test_corrupted_files_are_refused(tmp_path, change, sentence):
    path = tmp_path / "pool.safetensors"
    POOL.save(path)
    arrays, metadata = load_arrays(path)
    save_arrays(path, {k: v for k, v in (arrays | change).items() if v is not None}, metadata)
    with pytest.raises(NuebarError, match=rf"pool\.safetensors: .*{sentence}"):
        CascadePool.load(path)


@pytest.mark.parametrize("metadata", [{}, {"kind": "cascades", "format": 2}, {"kind": "calibration", "format": 1}])
def test_other_files_are_refused(tmp_path, metadata):
    path = tmp_path / "pool.safetensors"
    save_arrays(path, {"codes": POOL.codes}, metadata)
    with pytest.raises(NuebarError, match="expected a pool of cascades of format 1; simulate it again"):
        CascadePool.load(path)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "pool.safetensors"
    POOL.save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(NuebarError, match=r"pool\.safetensors: not a safetensors file, or truncated"):
        CascadePool.load(path)
