"""What a shard holds, told by one read: its digest, the identity and size of every row, the rows without content."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from storage import files, shards
from storage.broken import BrokenFile, parquet_errors
from storage.fingerprints import fingerprint
from storage.manifests import file_facts
from storage.shards import InputFile
from tasks import Failure

UID = pa.binary(16)
_NULL = b"\x00"


class Identified(NamedTuple):
    """What one read of a shard tells."""

    digest: str
    """128-bit digest of the content; of a converted shard also of the rows that could not be used."""
    schema: pa.Schema
    """The file's own."""
    sidecar: pa.Table
    """`uid, image_bytes, text_chars, text_bytes`."""
    failures: list[Failure]


def identify(shard: InputFile, roles: Mapping[str, str]) -> Identified:
    """Read a Parquet shard once: every column, so that damage anywhere shows now and not at the end of a run.

    Args:
        shard: The shard.
        roles: `image` and `text` -> the run's names of the columns, those there are.

    Raises:
        BrokenFile: The content is damaged.
        OSError: The file cannot be read now.
    """
    content = content_digest(shard)
    image, text = roles.get("image"), roles.get("text")
    parts, failures, at = [identities(None, pa.chunked_array([[]], pa.string()))], told_before(shard), 0
    known = {failure.row for failure in failures}
    with parquet_errors(shard.size):
        rows_told, schema = shards.footer(shard.url)
        columns = list(dict.fromkeys(shard.naming.schema(schema).names))
        for rows in shards.stream(shard, columns, image):
            texts, broken = readable(shards.as_text(rows.column(text))) if text else (None, [])
            images = rows.column(image) if image else None
            parts.append(identities(images, texts))
            found = [f for f in unusable(images, texts, at) if f.row - at not in broken]
            found += [Failure(at + row, "text_not_utf8", "the text is not valid UTF-8") for row in broken]
            failures += [failure for failure in found if failure.row not in known]
            at += rows.num_rows
    if at != rows_told:
        raise BrokenFile(f"{at} rows, but its footer says {rows_told}", shard.size)
    return Identified(content, schema, pa.concat_tables(parts), failures)


def content_digest(shard: InputFile) -> str:
    """128-bit digest of the file, and of what could not be used when it was made from something else."""
    content = str(file_facts(shard.url)["digest"])
    if shard.failures is None:
        return content
    return fingerprint({"content": content, "failures": file_facts(shard.failures)["digest"]})


def told_before(shard: InputFile) -> list[Failure]:
    """Rows that could not be used when the shard was made from something else."""
    if shard.failures is None:
        return []
    return [Failure(*row.values()) for row in files.read_table(shard.failures).to_pylist()]


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
    lengths = pc.fill_null(pc.binary_length(text), 0) if text is not None else zeros
    return pa.table(
        {
            "uid": pa.Array.from_buffers(UID, count, [None, pa.py_buffer(bytes(uids))]),
            "image_bytes": sizes,
            "text_chars": chars.cast(pa.int32()),
            "text_bytes": lengths.cast(pa.int64()),
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
