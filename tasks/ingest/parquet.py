"""Parquet shards, used in place: digest, row identities and sizes in one read."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from storage import files, shards
from tasks import Failure

UID = pa.binary(16)
_NULL = b"\x00"


class ParquetIngester:
    """Reads Parquet files whose columns `configs.curate.Input` names."""

    def __init__(self, config: Any) -> None:
        self._image: str | None = config.image
        self._text: str | None = config.text

    def read(self, url: str) -> tuple[str, pa.Schema, pa.Table, list[Failure]]:
        """See `Ingester`. The file is streamed once; a local one is parsed from the pages that this brought in."""
        content = content_digest(url)
        _, schema = shards.footer(url)
        columns = [name for name in (self._image, self._text) if name]
        parts, failures, at = [], [], 0
        for rows in shards.stream(url, columns, self._image):
            image = rows.column(self._image) if self._image else None
            text, broken = readable(shards.as_text(rows.column(self._text))) if self._text else (None, [])
            parts.append(identities(image, text))
            failures += [f for f in unusable(image, text, at) if f.row - at not in broken]
            failures += [Failure(at + row, "text_not_utf8", "the text is not valid UTF-8") for row in broken]
            at += rows.num_rows
        return (
            content,
            schema,
            pa.concat_tables(parts) if parts else identities(None, pa.chunked_array([[]], pa.string())),
            failures,
        )


def content_digest(url: str) -> str:
    """128-bit digest of a file, streamed in blocks of 8 MiB."""
    digest = blake3()
    with files.reading(url) as file:
        while block := file.read_buffer(8 * files.MiB):
            digest.update(memoryview(block))
    return digest.hexdigest(length=16)


def identities(image: pa.ChunkedArray | None, text: pa.ChunkedArray | None) -> pa.Table:
    """The ingest sidecar of some rows: `uid` (digest of length-prefixed image bytes and text), sizes.

    Hashing takes one call a row: the bytes of a row are scattered over two columns, and the call is a tenth of the
    time that an image's bytes take to hash.
    """
    count = len(image) if image is not None else len(text or [])
    images = image.to_pylist() if image is not None else [None] * count
    texts = text.cast(pa.large_binary()).to_pylist() if text is not None else [None] * count
    pack = struct.Struct("<BQ").pack
    uids = bytearray(16 * count)
    for i, (a, b) in enumerate(zip(images, texts, strict=True)):
        head = _NULL if a is None else pack(1, len(a))
        tail = _NULL if b is None else pack(1, len(b))
        uids[16 * i : 16 * i + 16] = blake3(b"".join((head, a or b"", tail, b or b""))).digest(length=16)
    zeros = pa.chunked_array([pa.array(np.zeros(count, np.int64))])
    sizes = pc.fill_null(pc.binary_length(image), 0).cast(pa.int64()) if image is not None else zeros
    chars = pc.fill_null(pc.utf8_length(text), 0) if text is not None else zeros
    return pa.table(
        {
            "uid": pa.Array.from_buffers(UID, count, [None, pa.py_buffer(bytes(uids))]),
            "image_bytes": sizes,
            "text_chars": chars.cast(pa.int32()),
        }
    )


def readable(text: pa.ChunkedArray) -> tuple[pa.ChunkedArray, list[int]]:
    """The texts with null for those that are not UTF-8, and the rows of those.

    Row by row only where a slice has such a text at all: Parquet files may declare any bytes to be a string.
    """
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        found, broken = [], []
        for row, data in enumerate(text.cast(pa.large_binary()).to_pylist()):
            try:
                found.append(None if data is None else data.decode())
            except UnicodeDecodeError:
                found.append(None)
                broken.append(row)
        return pa.chunked_array([pa.array(found, text.type)]), broken
    return text, []


def unusable(image: pa.ChunkedArray | None, text: pa.ChunkedArray | None, at: int) -> list[Failure]:
    """Rows without an image or without a caption: null or empty image, null or blank text; `at` is the first row."""
    found: dict[int, Failure] = {}
    checks = []
    if text is not None:
        checks.append((pc.is_null(text), "text_null", "the text is null"))
        checks.append((pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(text)), 0), "text_blank", "the text is blank"))
    if image is not None:
        checks.append((pc.is_null(image), "image_null", "the image is null"))
        checks.append((pc.equal(pc.binary_length(image), 0), "image_empty", "the image has no bytes"))
    for mask, reason, detail in checks:
        for row in np.flatnonzero(pc.fill_null(mask, False).to_numpy()).tolist():
            found[row] = Failure(at + row, reason, detail)
    return [found[row] for row in sorted(found)]
