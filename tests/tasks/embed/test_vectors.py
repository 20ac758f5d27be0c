"""Packing embeddings into Arrow and back."""

import numpy as np
import pyarrow as pa
import pytest

from tasks.embed.vectors import field, pack, unpack


def rows(n, dim=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def test_round_trip_with_nulls_gives_float16_and_zero_rows():
    vectors, valid = rows(11), np.random.default_rng(1).random(11) < 0.6
    packed = pack(vectors, valid)
    assert packed.type == pa.binary(12)
    assert packed.is_valid().to_pylist() == valid.tolist()
    expected = np.where(valid[:, None], vectors.astype(np.float16), 0)
    np.testing.assert_array_equal(unpack(packed), expected)
    assert unpack(packed).dtype == np.float16


@pytest.mark.parametrize("nulls", [False, True])
def test_slices_and_chunks_are_read_at_their_own_offset(nulls):
    vectors = rows(29)
    valid = np.ones(29, bool)
    valid[[3, 10, 11, 28]] = not nulls
    packed, whole = pack(vectors, valid), np.where(valid[:, None], vectors.astype(np.float16), 0)
    for start, stop in [(0, 29), (1, 9), (9, 12), (11, 11), (17, 29)]:
        np.testing.assert_array_equal(unpack(packed[start:stop]), whole[start:stop])
    chunked = pa.chunked_array([packed[5:9], packed[9:9], packed[9:], packed[:2]])
    np.testing.assert_array_equal(unpack(chunked), np.concatenate([whole[5:], whole[:2]]))
    assert unpack(pa.chunked_array([], packed.type)).shape == (0, 6)
    assert unpack(pa.array([], packed.type)).shape == (0, 6)


def test_unpack_is_a_view_where_nothing_is_null():
    packed = pack(rows(5), np.ones(5, bool))
    assert np.shares_memory(unpack(packed), np.frombuffer(packed.buffers()[1], np.float16))
    assert np.shares_memory(unpack(pa.chunked_array([packed])), np.frombuffer(packed.buffers()[1], np.float16))


def test_bytes_below_a_null_do_not_depend_on_what_was_there():
    valid = np.array([True, False, True])
    one, two = rows(3), rows(3)
    two[1] = np.nan
    assert pack(one, valid).buffers()[1].equals(pack(two, valid).buffers()[1])


def test_survives_parquet_with_its_metadata(tmp_path):
    import pyarrow.parquet as pq

    packed = pack(rows(40), np.arange(40) % 7 != 0)
    table = pa.table([packed], schema=pa.schema([field("image_embedding", 6)]))
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=9)
    back = pq.read_table(tmp_path / "x.parquet")
    np.testing.assert_array_equal(unpack(back["image_embedding"]), unpack(packed))
    assert back.schema.field(0).metadata == {b"dim": b"6", b"dtype": b"float16"} | {
        key: value for key, value in back.schema.field(0).metadata.items() if key.startswith(b"PARQUET")
    }


def test_wrong_shapes_and_types_are_refused():
    with pytest.raises(ValueError, match=r"`vectors` is \(4,\)"):
        pack(np.zeros(4), np.ones(4, bool))
    with pytest.raises(ValueError, match=r"`valid` \(3,\)"):
        pack(np.zeros((4, 2)), np.ones(3, bool))
    with pytest.raises(ValueError, match="`array` is list<item: float>"):
        unpack(pa.array([[1.0]], pa.list_(pa.float32())))
