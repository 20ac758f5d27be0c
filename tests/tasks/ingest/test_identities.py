import pyarrow as pa
import pytest
from blake3 import blake3

from tasks import ingest
from tasks.ingest.identities import identities, readable, unusable


def column(values, kind):
    return pa.chunked_array([pa.array(values[:1], kind), pa.array(values[1:], kind)])


def test_uid_tells_null_from_empty_and_where_a_boundary_is():
    images = [b"ab", b"a", None, b"", b"ab"]
    texts = ["c", "bc", "x", "x", "c"]
    uids = identities(column(images, pa.binary()), column(texts, pa.string()))["uid"].to_pylist()
    assert len(set(uids)) == 4 and uids[0] == uids[4] and all(len(u) == 16 for u in uids)


def test_uid_is_the_digest_of_the_length_prefixed_parts():
    got = identities(column([b"ab"], pa.binary()), column(["ç"], pa.string()))
    body = b"\x01" + (2).to_bytes(8, "little") + b"ab" + b"\x01" + (2).to_bytes(8, "little") + "ç".encode()
    assert got["uid"][0].as_py() == blake3(body).digest(length=16)
    assert got["image_bytes"].to_pylist() == [2] and got["text_chars"].to_pylist() == [1]


def test_rows_without_content_are_named_with_their_reason():
    images = column([b"a", None, b"", b"a", b"a"], pa.binary())
    texts = column(["t", "t", "t", None, " \n"], pa.string())
    assert [(f.row, f.reason) for f in unusable(images, texts, 10)] == [
        (11, "image_null"),
        (12, "image_empty"),
        (13, "text_null"),
        (14, "text_blank"),
    ]


def test_texts_that_are_not_utf8_are_named_and_nulled():
    data = pa.array([b"ok", b"\xff\xfe", None, b"fine"], pa.binary())
    text = pa.chunked_array([pa.Array.from_buffers(pa.string(), 4, data.buffers())])
    clean, broken = readable(text)
    assert clean.to_pylist() == ["ok", None, None, "fine"] and broken == [1]


ROLES = {"image": "image", "text": "text", "source": "from"}


def test_keys_that_cannot_be_told_are_refused():
    schema = {"image": pa.binary(), "text": pa.string(), "from": pa.int32(), "id": pa.list_(pa.int8())}
    with pytest.raises(ValueError, match="`input.key` is 'id', which is list<.*; it must be string or integer"):
        ingest.accepts(ROLES | {"key": "id"}, ROLES | {"key": "id"}, pa.schema(list(schema.items())), "f.parquet")


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"image": pa.binary(), "from": pa.string()}, "`input.text` is 'text', but f.parquet has no such column"),
        (
            {"image": pa.int8(), "text": pa.string(), "from": pa.string()},
            "which is int8 in f.parquet; it must be binary",
        ),
        ({"image": pa.binary(), "text": pa.int8(), "from": pa.string()}, "it must be string"),
        ({"image": pa.binary(), "text": pa.string()}, "its columns are image, text"),
    ],
)
def test_missing_and_wrong_columns_are_refused_by_name(schema, said):
    with pytest.raises(ValueError, match=said):
        ingest.accepts(ROLES, ROLES, pa.schema(list(schema.items())), "f.parquet")
