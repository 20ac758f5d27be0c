"""Captions as slabs: many spaced captions in one piece of bytes, so that no Python runs for each of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.embed.texts import read_texts

SLAB_BYTES = 1 << 19
"""Bytes of a slab, about. Its matches are Python tuples for a moment, some 15 times as much."""

MARKS = tuple(bytes([mark]) for mark in b",.;:?!`")
SEPARATOR = b" \n "
"""Between two captions: no spaced caption has a newline."""


@dataclass(frozen=True)
class Slab:
    """Captions of rows that follow one another, spaced by MetaCLIP's rule."""

    first: int
    """Row of its first caption."""
    spaced: bytes
    """UTF-8, `SEPARATOR` between captions, a blank at both ends; empty where there is none."""
    missing: np.ndarray
    """Which rows have no caption, or a broken one, bool `(n,)`."""
    broken: dict[int, str]
    """Row -> what is wrong, of those that are not UTF-8."""


def slabs(column: pa.ChunkedArray | pa.Array, lowercase: bool, size: int | None = None) -> Iterator[Slab]:
    """The texts of a column as slabs; `lowercase` folds as `str.lower` does each of them.

    A slab has about `size` bytes, None being `SLAB_BYTES`; a longer text makes a longer slab.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    column = column.cast(pa.large_string() if pa.types.is_large_string(kind) else pa.string())
    lengths = pc.fill_null(pc.binary_length(column), 0).to_numpy().astype(np.int64)
    ends = np.cumsum(lengths + len(SEPARATOR))
    borders = np.flatnonzero(np.diff(ends // (size or SLAB_BYTES), prepend=0)).tolist()
    for first, last in zip([0, *borders], [*borders, len(column)], strict=True):
        if last > first:
            yield _slab(column.slice(first, last - first), first, lowercase)


def _slab(column: pa.ChunkedArray | pa.Array, first: int, lowercase: bool) -> Slab:
    try:
        return Slab(first, _spaced(column, lowercase), column.is_null().to_numpy(zero_copy_only=False), {})
    except UnicodeDecodeError:
        pass  # some row is bad: find out which
    texts, broken = read_texts(column)
    column = pa.chunked_array([pa.array(texts, pa.string())])
    missing = column.is_null().to_numpy()
    return Slab(first, _spaced(column, lowercase), missing, {first + row: told for row, told in broken.items()})


def _spaced(column: pa.ChunkedArray | pa.Array, lowercase: bool) -> bytes:
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    texts = pa.concat_arrays([pa.array([], pa.string()), *(chunk.cast(pa.string()) for chunk in chunks)])
    texts = pc.fill_null(texts, "")
    for blank in "\t\n\r":
        texts = pc.replace_substring(texts, blank, " ")
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(texts)], pa.int32()), texts), "\n")[0]
    data: bytes = joined.as_buffer().to_pybytes()
    if not data.isascii():
        # Folded as one: the lower case of a letter, sigma's too, does not depend on what is behind a newline. And
        # before the spacing, for on the marks it may depend.
        text = data.decode("utf-8")
        data = text.lower().encode() if lowercase else data
    elif lowercase:
        data = data.lower()
    for mark in (b"\n", *MARKS):
        data = data.replace(mark, b" " + mark + b" ")
    return b" " + data + b" "
