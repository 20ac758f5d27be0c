"""Rows of concepts as the samplers work on them: ids in CSR form, ranked by code point."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

Concepts: TypeAlias = (
    "Sequence[Sequence[str] | None] | Sequence[Sequence[int] | None] | np.ndarray | pa.Array | pa.ChunkedArray"
)

MOST_BYTES = 1 << 30
SPARSE = 16
"""Ids this many times larger than there are labels are sorted, not counted."""


class Labels(NamedTuple):
    """Concepts of n rows in CSR form, ids being ranks in a vocabulary of V concepts."""

    offsets: np.ndarray
    """int64 `(n + 1,)`: row i holds `ids[offsets[i]:offsets[i + 1]]`."""
    ids: np.ndarray
    """int32, repeats kept."""
    size: int
    """V."""
    words: pa.Array | None = None
    """large_string `(V,)`: the concepts by id, where they came as strings."""


def encode(concepts: Concepts, size: int | None = None) -> Labels:
    """Returns the rows' concepts as ids: ranks by code point of strings, by value of integers, among those that occur.

    Args:
        concepts: Row by row strings (their vocabulary is what occurs) or ids, or an Arrow list array of either,
            dictionary-encoded or not; a null row has no concepts.
        size: V, if the vocabulary is fixed: integers are then taken as they are, and strings must be V distinct ones.
    """
    lengths, values = split(concepts)
    offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    if values.is_null().true_count:  # looks into dictionaries too
        raise ValueError("`concepts` holds a null concept; a row may be null, a concept may not")
    if pa.types.is_integer(values.type) or not len(values):
        ids = values.cast(pa.int64()).to_numpy(zero_copy_only=False)
        if len(ids) and ids.min() < 0:
            raise ValueError(f"`concepts` holds {ids.min()}; an id must be at least 0")
        if size is None:
            ids, distinct = _compact(ids)
            return Labels(offsets, ids, distinct)
        if len(ids) and ids.max() >= size:
            raise ValueError(f"`concepts` holds {ids.max()}; it must be below {size}, as in `targets`/`frequencies`")
        return Labels(offsets, ids.astype(np.int32), size)
    ids, words = _ranks(values)
    if size is not None and len(words) != size:
        raise ValueError(
            f"`concepts` holds {len(words)} distinct strings; it must hold {size}, as in `targets`/`frequencies`, "
            "or integers that rank them"
        )
    return Labels(offsets, ids, len(words), words)


def split(concepts: Concepts) -> tuple[np.ndarray, pa.Array]:
    """Returns the number of labels of each row, int64 `(n,)`, and all labels end to end as one Arrow array."""
    if isinstance(concepts, pa.Array | pa.ChunkedArray):
        if not isinstance(concepts.type, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
            raise ValueError(f"`concepts` is Arrow {concepts.type}; it must be a list of strings or integers")
        lengths = pc.fill_null(pc.list_value_length(concepts), 0).to_numpy().astype(np.int64)
        values = pc.list_flatten(concepts)
        if isinstance(values, pa.ChunkedArray):
            if values.nbytes > MOST_BYTES and pa.types.is_string(values.type):
                values = values.cast(pa.large_string())  # 32-bit offsets would not reach
            values = values.unify_dictionaries().combine_chunks()
        return lengths, values
    rows = [() if row is None else row for row in concepts]
    bare = [row for row in rows if isinstance(row, str)]
    if bare:
        raise ValueError(f"`concepts` holds the row {bare[0]!r}; each row must be a list of concepts")
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    flat = list(chain.from_iterable(rows))
    if all(isinstance(label, str) for label in flat):
        return lengths, pa.array(flat, pa.large_string())
    odd = [x for x in flat if isinstance(x, bool | np.bool_) or not isinstance(x, int | np.integer)]
    if odd:
        raise ValueError(f"`concepts` holds {odd[0]!r}; concepts must be all strings or all integers")
    return lengths, pa.array(flat, pa.int64())


def _compact(ids: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns the rank of each id among those that occur, int32, and how many these are."""
    if len(ids) and ids.max() > SPARSE * len(ids):
        vocabulary, inverse = np.unique(ids, return_inverse=True)
        return inverse.astype(np.int32), len(vocabulary)
    ranks = np.cumsum(np.bincount(ids) > 0, dtype=np.int32) - 1
    return ranks[ids], int(ranks[-1]) + 1 if len(ranks) else 0


def _ranks(values: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Returns the rank of each string among the distinct ones by code point, int32, and these in that order."""
    if not pa.types.is_dictionary(values.type):
        values = values.dictionary_encode()
    if values.dictionary.type not in (pa.string(), pa.large_string(), pa.string_view()):
        raise ValueError(f"`concepts` is a list of {values.type}; it must be a list of strings or integers")
    codes = values.indices.to_numpy(zero_copy_only=False)
    # Only what occurs is sorted: the dictionary may be that of a whole data set.
    used = np.flatnonzero(np.bincount(codes, minlength=len(values.dictionary)))
    words = values.dictionary
    if words.type == pa.string_view():  # which `take` does not know
        words = words.cast(pa.large_string())
    words = words.take(pa.array(used)).cast(pa.large_string()).dictionary_encode()  # it may repeat itself
    order = pc.sort_indices(words.dictionary).to_numpy()  # by UTF-8 bytes, which is the order of code points
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    of_code = np.empty(len(values.dictionary), np.int32)
    of_code[used] = rank[words.indices.to_numpy()]
    return of_code[codes], words.dictionary.take(pa.array(order))


def encode_chunks(chunks: Iterable[pa.Array | pa.ChunkedArray]) -> Labels:
    """Returns what `encode` returns of all chunks end to end, one held as strings at a time.

    Args:
        chunks: Lists of strings, dictionary-encoded or not. What stays is 8 bytes a row, 4 a label, and each word.
    """
    lengths, codes, words = [np.zeros(1, np.int64)], [np.empty(0, np.int32)], [pa.array([], pa.large_string())]
    for chunk in chunks:
        labels = encode(chunk)
        if labels.words is None and labels.size:
            raise ValueError(f"`concepts` is Arrow {chunk.type}; it must be a list of strings")
        lengths.append(np.diff(labels.offsets))
        codes.append(labels.ids)
        words.append(words[0] if labels.words is None else labels.words)
    known = pc.unique(pa.chunked_array(words))
    known = known.take(pc.sort_indices(known))
    for at, own in enumerate(words):
        codes[at] = pc.index_in(own, known).to_numpy(zero_copy_only=False).astype(np.int32)[codes[at]]
    return Labels(np.cumsum(np.concatenate(lengths)), np.concatenate(codes), len(known), known)


@njit(cache=True, nogil=True)
def row_frequencies(offsets: np.ndarray, ids: np.ndarray, size: int) -> np.ndarray:
    """Returns in how many rows each concept occurs, repeats within a row counted once: int64 `(size,)`."""
    frequencies = np.zeros(size, np.int64)
    last_row = np.full(size, -1, np.int64)
    for row in range(len(offsets) - 1):
        for at in range(offsets[row], offsets[row + 1]):
            if last_row[ids[at]] != row:
                last_row[ids[at]] = row
                frequencies[ids[at]] += 1
    return frequencies


@njit(cache=True, nogil=True)
def label_counts(offsets: np.ndarray, ids: np.ndarray, size: int, rows: np.ndarray) -> np.ndarray:
    """Returns how often each concept occurs in some rows, repeats counted: int64 `(size,)`."""
    counts = np.zeros(size, np.int64)
    for row in rows:
        for at in range(offsets[row], offsets[row + 1]):
            counts[ids[at]] += 1
    return counts


@njit(cache=True, nogil=True)
def gather(offsets: np.ndarray, ids: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns `(offsets, ids)` of some rows, in the order asked for: int32 offsets, as Arrow lists have them."""
    kept_offsets = np.zeros(len(rows) + 1, np.int32)
    for at in range(len(rows)):
        kept_offsets[at + 1] = kept_offsets[at] + offsets[rows[at] + 1] - offsets[rows[at]]
    kept = np.empty(kept_offsets[-1], ids.dtype)
    for at in range(len(rows)):
        kept[kept_offsets[at] : kept_offsets[at + 1]] = ids[offsets[rows[at]] : offsets[rows[at] + 1]]
    return kept_offsets, kept


@njit(cache=True, nogil=True)
def without_repeats(offsets: np.ndarray, ids: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns `(offsets, ids)` with each row's concepts once, in order of first occurrence."""
    kept_offsets = np.zeros(len(offsets), np.int64)
    kept = np.empty(offsets[-1] - offsets[0], ids.dtype)
    last_row = np.full(size, -1, np.int64)
    count = 0
    for row in range(len(offsets) - 1):
        for at in range(offsets[row], offsets[row + 1]):
            if last_row[ids[at]] != row:
                last_row[ids[at]] = row
                kept[count] = ids[at]
                count += 1
        kept_offsets[row + 1] = count
    return kept_offsets, kept[:count]
