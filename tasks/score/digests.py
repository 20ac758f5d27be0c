"""Digests that exact duplicates have in common: of the image's bytes, of the normalised text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from storage.view import IMAGE, TEXT
from tasks import Result

DIGEST = pa.binary(16)


class ImageDigest:
    """`image_digest`: 128 bits of blake3 over the image's bytes, null for null."""

    needs: tuple[str, ...] = (IMAGE,)
    provides: tuple[str, ...] = ("image_digest",)
    sketches: tuple[str, ...] = provides
    libraries: tuple[str, ...] = ("blake3",)

    def __init__(self, config: Any) -> None:
        del config  # nothing to set

    def run(self, rows: Iterable[pa.Table]) -> Result:
        """Args: rows: slices with `image: binary`."""
        found = [digests(part[IMAGE]) for part in rows]
        return Result(pa.table({"image_digest": pa.chunked_array(found, DIGEST)}), [])


class TextDigest:
    """`text_digest`: 128 bits of blake3 over the normalised text, null for null and for blank."""

    needs: tuple[str, ...] = (TEXT,)
    provides: tuple[str, ...] = ("text_digest",)
    sketches: tuple[str, ...] = provides
    libraries: tuple[str, ...] = ("blake3",)

    def __init__(self, config: Any) -> None:
        del config  # nothing to set

    def run(self, rows: pa.Table) -> Result:
        """Args: rows: `text: string`."""
        plain = normalised(rows[TEXT])
        plain = pc.if_else(pc.equal(plain, ""), pa.scalar(None, plain.type), plain)
        return Result(pa.table({"text_digest": digests(plain.cast(pa.large_binary()))}), [])


def normalised(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts in NFKC, in lower case, with runs of white space as one space; "C++" and "C#" stay two."""
    folded = pc.utf8_lower(pc.utf8_normalize(text.cast(pa.large_string()), "NFKC"))
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(folded, r"[\s\pZ]+", " "))


def digests(column: pa.ChunkedArray) -> pa.Array:
    """128-bit digests of a column's values, null for null; one call a row, a tenth of what hashing an image costs."""
    values = column.to_pylist()
    return pa.array([None if value is None else blake3(value).digest(length=16) for value in values], DIGEST)
