"""Embeddings read from list columns."""

import numpy as np
import pyarrow as pa
import pytest

from configs.methods.embed import EmbeddingColumns
from tasks.embed.columns import ColumnEmbedder, scale_to_unit
from tasks.embed.vectors import unpack

RNG = np.random.default_rng(0)
IMAGE, TEXT = RNG.normal(size=(20, 8)), RNG.normal(size=(20, 8))
TYPES = [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16()), pa.list_(pa.float32(), 8)]


def table(image=IMAGE, text=TEXT, kind=TYPES[0]):
    def column(values):
        halves = pa.types.is_float16(kind.value_type)
        return pa.array([None if v is None else list(np.float16(v) if halves else v) for v in values], kind)

    return pa.table({"vi": column(image), "vt": column(text)})


def run(rows, **config):
    return ColumnEmbedder(EmbeddingColumns(**(config or {"image": "vi", "text": "vt"}))).run(rows)


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_unit_vectors_and_cosine_match_numpy(kind):
    result = run(table(kind=kind))
    assert result.failures == []
    image = IMAGE / np.linalg.norm(IMAGE, axis=1, keepdims=True)
    text = TEXT / np.linalg.norm(TEXT, axis=1, keepdims=True)
    np.testing.assert_allclose(unpack(result.table["image_embedding"]), image, atol=1e-3)
    np.testing.assert_allclose(unpack(result.table["text_embedding"]), text, atol=1e-3)
    np.testing.assert_allclose(result.table["alignment"], (image * text).sum(1), atol=2e-3)
    assert result.table.schema.field("image_embedding").metadata == {b"dim": b"8", b"dtype": b"float16"}


@pytest.mark.parametrize("kind", TYPES[:3], ids=str)
def test_bad_vectors_fail_alone_and_chunks_do_not_matter(kind):
    image, text = list(IMAGE), list(TEXT)
    image[2], image[4], image[5], image[7] = None, [1.0, 2.0], [np.nan] + [1.0] * 7, [0.0] * 8
    text[7], text[9], image[11], text[11] = [np.inf] * 8, [], None, None
    whole = table(image, text, kind)
    result = run(whole)
    assert [(failure.row, failure.reason) for failure in result.failures] == [
        (row, "bad_embedding") for row in (2, 4, 5, 7, 9)
    ]
    details = {failure.row: failure.detail for failure in result.failures}
    assert details[2] == "`vi` is null"
    assert details[4] == "`vi` has 2 numbers; the first vector of the shard has 8"
    assert "NaN" in details[5] and details[7] == "`vi` is all zeros" and details[9].startswith("`vt` has 0")
    good = [row for row in range(20) if row not in (2, 4, 5, 7, 9, 11)]
    assert result.table["image_embedding"].is_valid().to_numpy().nonzero()[0].tolist() == good
    assert result.table["alignment"].is_valid().to_numpy().nonzero()[0].tolist() == good
    clean = run(table(kind=kind)).table.take(good)
    assert result.table.take(good).equals(clean)
    chunked = pa.concat_tables([whole.slice(0, 3), whole.slice(3, 0), whole.slice(3, 9), whole.slice(12)])
    assert run(chunked).table.equals(result.table) and run(chunked).failures == result.failures


def test_one_column_has_no_alignment_and_null_is_no_new_failure():
    image = [None, *IMAGE[1:]]
    result = run(table(image), image="vi")
    assert result.table.column_names == ["image_embedding"] and result.failures == []
    assert result.table["image_embedding"].null_count == 1
    embedder = ColumnEmbedder(EmbeddingColumns(text="vt"), columns=("image",))
    assert embedder.needs == ("vt",) and embedder.provides == ("text_embedding",)


def test_huge_and_tiny_numbers_keep_their_direction():
    unit, finite, zero = scale_to_unit(np.array([[3e300, 4e300], [3e-300, 4e-300], [0, 0], [np.inf, 1]]))
    np.testing.assert_allclose(unit, [[0.6, 0.8], [0.6, 0.8], [0, 0], [0, 0]], rtol=1e-6)
    assert finite.tolist() == [True, True, True, False] and zero.tolist() == [False, False, True, False]


def test_empty_and_all_null_shards():
    assert len(run(table([], [])).table) == 0
    result = run(table([None] * 3, [None] * 3))
    assert result.failures == [] and result.table["image_embedding"].null_count == 3


def test_refuses_other_types_and_unequal_widths():
    with pytest.raises(ValueError, match="`vi` is a column of string"):
        run(pa.table({"vi": ["a"]}), image="vi")
    with pytest.raises(ValueError, match="image vectors have 8 numbers and text vectors 4"):
        run(pa.table({"vi": [[1.0] * 8], "vt": [[1.0] * 4]}))
