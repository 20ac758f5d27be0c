"""Rows' skills on their way to a graph: lists are read, skills counted, meetings and directions added up.

All sums are of integers, so that no number depends on how rows are cut into shards, or on who adds first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from configs.errors import ColumnError, StageError
from tasks.annotate.mining import SCHEMA, frequent_phrases
from tasks.embed.texts import read_texts
from tasks.embed.vectors import unpack
from tasks.sample.concepts import Labels, encode, split, without_repeats

if TYPE_CHECKING:
    from scipy.sparse import csr_array

SCALE = 2.0**32
"""Of coordinates of unit vectors as integers: errors of 1e-10, and sums of two thousand million rows fit."""
BLOCK = 8192
"""Rows, or vectors, that are widened to float64 at a time."""
HELD = 1 << 22
"""Labels of rows held before their pairs are counted, at least."""
MOST_PAIRS = 100_000_000
"""Pairs of skills that are counted one by one: 8 bytes each, and as much again while they are added."""


# ---------------------------------------------------------------------------------------------------------------- lists
def check_lists(kind: pa.DataType, where: str) -> None:
    """Raise ColumnError unless `kind` is a list of strings; `where` names the column."""
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    value = kind.value_type if listed else kind
    value = value.value_type if pa.types.is_dictionary(value) else value
    if not listed or not (pa.types.is_string(value) or pa.types.is_large_string(value)):
        raise ColumnError(f"{where} is a column of {kind}; skills must be lists of strings", remedy="")


def read(column: pa.ChunkedArray | pa.Array, most: int) -> tuple[Labels, int]:
    """The skills of each row, each once, in order, its first `most`; and how many rows had more.

    A row that is null has none. Skills that are null, blank or no UTF-8 are none. Ids are ranks by code point of
    `words`, some of which may occur in no row.
    """
    lengths, values = split(column)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    there = pc.fill_null(pc.not_equal(values, ""), False).to_numpy(zero_copy_only=False) if len(values) else owner > 0
    owner, values = owner[there], values.filter(pa.array(there))
    offsets = np.searchsorted(owner, np.arange(len(lengths) + 1))
    labels = encode(pa.LargeListArray.from_arrays(pa.array(offsets), values))
    if labels.words is None:
        return Labels(offsets, labels.ids, 0, pa.array([], pa.large_string())), 0
    offsets, ids = _without(labels, _unreadable(labels.words))
    offsets, ids = without_repeats(offsets, ids, labels.size)
    count = np.diff(offsets)
    place = np.arange(len(ids)) - np.repeat(offsets[:-1], count)
    kept = np.concatenate(([0], np.cumsum(np.minimum(count, most))))
    return Labels(kept, ids[place < most], labels.size, labels.words), int(np.count_nonzero(count > most))


def _unreadable(words: pa.Array) -> np.ndarray:
    """Which words are blank or not UTF-8 (Parquet does not check), bool `(V,)`."""
    bad = np.zeros(len(words), bool)
    try:
        words.cast(pa.large_binary()).cast(pa.large_string())  # this cast does check
    except pa.ArrowInvalid:
        bad[list(read_texts(words)[1])] = True
    good = np.flatnonzero(~bad)
    bad[good] = pc.equal(pc.utf8_trim_whitespace(words.take(pa.array(good))), "").to_numpy(zero_copy_only=False)
    return bad


def _without(labels: Labels, bad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not bad.any():
        return labels.offsets, labels.ids
    return _mapped(labels, np.where(bad, -1, np.arange(len(bad), dtype=np.int32)))


def _mapped(labels: Labels, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`(offsets, ids)` with each id replaced by its place, and left out where that is -1."""
    ids = place[labels.ids].astype(np.int32)
    before = np.concatenate(([0], np.cumsum(ids >= 0)))
    return before[labels.offsets], ids[ids >= 0]


def known(labels: Labels, words: pa.Array, place: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """`(offsets, ids)`: of each row the skills that are in `words`, each once.

    Args:
        labels: Of `read`.
        words: large_string `(n,)`.
        place: int `(n,)`, the id that each of `words` goes by, -1 for none; None: its place in `words`.
    """
    at = pc.fill_null(pc.index_in(labels.words, words), -1).to_numpy(zero_copy_only=False)
    if place is not None:
        at = np.append(place, -1)[at]  # -1 stays -1
    return without_repeats(*_mapped(labels, at), max(1, len(words)))


def commonest(lists: Iterable[Labels], most: int) -> tuple[pa.Array, np.ndarray]:
    """The `most` skills of the most rows, ties by code point: large_string `(n,)` in that order, and rows int64 `(n,)`.

    Memory is bounded by the number of distinct skills.
    """
    counted = (_counts(labels) for labels in lists)
    found = frequent_phrases(counted, min_count=1, max_concepts=most)
    words = pa.concat_arrays([pa.array([], pa.large_string()), *found["phrase"].cast(pa.large_string()).chunks])
    return words, found["captions"].to_numpy()


def _counts(labels: Labels) -> pa.Table:
    rows = np.bincount(labels.ids, minlength=labels.size)
    return pa.table([labels.words.cast(pa.string()), rows], schema=SCHEMA)  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------------------------- meetings
def together(offsets: np.ndarray, ids: np.ndarray, size: int) -> csr_array:
    """Rows in which two skills are both: sparse int64 `(size, size)`, on the diagonal those in which one is.

    Args:
        offsets: int64 `(rows + 1,)`.
        ids: int `(labels,)`, none twice in a row.
        size: Number of skills.
    """
    from scipy.sparse import csr_array

    incidence = csr_array((np.ones(len(ids), np.int64), ids, offsets), shape=(len(offsets) - 1, size))
    return csr_array(incidence.T @ incidence)


class Meetings:
    """In how many rows each skill is, and how often it meets others there: all that a graph's row sums need.

    While one meeting suffices to join two skills, a row of k skills adds k - 1 to each, and no pair is kept [derived].
    Else pairs are counted one by one, when as many labels are held as there are pairs: time stays linear in rows.
    """

    def __init__(self, size: int, least: int) -> None:
        self.rows = np.zeros(size, np.int64)
        self._met = np.zeros(size, np.int64)
        self._size, self._least = size, least
        self._pairs: Any = None
        self._held: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, offsets: np.ndarray, ids: np.ndarray) -> None:
        """Take in rows, see `together`.

        Raises:
            StageError: There are more pairs than can be counted one by one.
        """
        count = np.diff(offsets)
        self.rows += np.bincount(ids, minlength=self._size)
        if self._least == 1:
            # In float64, which is exact below 2 ** 53.
            self._met += np.bincount(ids, np.repeat(count - 1, count), self._size).astype(np.int64)
            return
        self._held.append((count, ids))
        if sum(len(held) for _, held in self._held) >= max(HELD, 0 if self._pairs is None else self._pairs.nnz):
            self._count()

    def met(self) -> np.ndarray:
        """Meetings of each skill with others, those left out that meet in fewer than `least` rows: int64 `(size,)`."""
        if self._least == 1:
            return self._met
        self._count()
        pairs = self._pairs.copy()
        pairs.data[pairs.data < self._least] = 0
        return np.asarray(pairs.sum(axis=0, dtype=np.int64)) + np.asarray(pairs.sum(axis=1, dtype=np.int64))

    def _count(self) -> None:
        from scipy.sparse import csr_array, triu

        counts, ids = zip(*self._held, strict=True) if self._held else ([np.zeros(0, np.int64)], [np.zeros(0, int)])
        offsets = np.concatenate(([0], np.cumsum(np.concatenate(counts))))
        found = csr_array(triu(together(offsets, np.concatenate(ids), self._size), k=1)).astype(np.int32)
        self._pairs, self._held = found if self._pairs is None else self._pairs + found, []
        if self._pairs.nnz > MOST_PAIRS:
            raise StageError(
                f"`score: skill_graph` counts more than {MOST_PAIRS:,} pairs of skills for `min_cooccurrence` "
                f"{self._least}; set it to 1, which counts no pairs, or lower `largest` or `row_skills`",
                remedy="",
            )


# ----------------------------------------------------------------------------------------------------------- directions
def units(vectors: np.ndarray) -> np.ndarray:
    """Rows of length one, float64 `(n, D)`; a row of zeros stays so. Every row by itself, in a fixed order."""
    wide = vectors.astype(np.float64)
    length = np.sqrt((wide * wide).sum(axis=1))
    return wide / np.where(length > 0, length, 1)[:, None]


def collapsed(skill_vectors: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Returns the sum of skills' vectors `(n, h)` by their weights `(n,)`: float64 `(h,)`, added in their order."""
    found = np.zeros(skill_vectors.shape[1])
    for at in range(0, len(skill_vectors), BLOCK):
        part = slice(at, at + BLOCK)
        found += (skill_vectors[part].astype(np.float64) * weight[part, None]).sum(axis=0)
    return found


def cosines(column: pa.ChunkedArray, towards: np.ndarray) -> np.ndarray:
    """Returns the dot products of unit embeddings with `towards`: float32 `(N,)`, each row by itself, 0 for a null."""
    found = np.empty(len(column), np.float32)
    for at in range(0, len(column), BLOCK):
        part = unpack(column.slice(at, BLOCK))
        found[at : at + len(part)] = (units(part) * towards).sum(axis=1)
    return found


class Directions:
    """The sum of the unit vectors of each skill's rows, as integers."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._sums: np.ndarray | None = None

    def add(self, offsets: np.ndarray, ids: np.ndarray, column: pa.ChunkedArray) -> None:
        """Take in rows with their embeddings; a row without one adds nothing."""
        if self._sums is None:
            self._sums = np.zeros((self._size, column.type.byte_width // 2), np.int64)
        for at in range(0, len(column), BLOCK):
            part = np.rint(units(unpack(column.slice(at, BLOCK))) * SCALE).astype(np.int64)
            _add_rows(self._sums, offsets[at : at + len(part) + 1], ids, part)

    def add_sums(self, words: pa.Array, own: pa.ChunkedArray, sums: pa.ChunkedArray) -> None:
        """Take in sums that were made before, see `summed`; of a word that is none of `words` they are left out."""
        at = pc.index_in(own.drop_null(), words)
        known = pc.is_valid(at).to_numpy(zero_copy_only=False)
        if not known.any():
            return
        found = np.frombuffer(b"".join(sums.drop_null().filter(pa.array(known)).to_pylist()), np.int64)
        found = found.reshape(int(known.sum()), -1)
        if self._sums is None:
            self._sums = np.zeros((self._size, found.shape[1]), np.int64)
        self._sums[at.drop_null().to_numpy()] += found  # no word is there twice

    def binary(self) -> pa.Array:
        """The sums themselves: large_binary `(size,)`, of int64."""
        sums = self._sums if self._sums is not None else np.zeros((self._size, 0), np.int64)
        ends = np.arange(len(sums) + 1, dtype=np.int64) * sums.shape[1] * sums.itemsize
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(sums)]
        return pa.Array.from_buffers(pa.large_binary(), len(sums), buffers)

    def unit(self) -> np.ndarray:
        """Mean directions, float32 `(size, D)`; zeros for a skill whose rows have no embedding, or cancel out."""
        if self._sums is None:
            return np.zeros((self._size, 1), np.float32)
        found = np.empty(self._sums.shape, np.float32)
        for at in range(0, self._size, BLOCK):
            found[at : at + BLOCK] = units(self._sums[at : at + BLOCK])
        return found


def summed(labels: Labels, column: pa.ChunkedArray) -> tuple[pa.Array | None, pa.Array | None]:
    """The skills of some rows and the sums of `Directions` over these: large_string and large_binary `(rows,)`.

    There are nulls behind the last skill; None, None where the sums would be more bytes than the embeddings.
    """
    kept = np.unique(labels.ids)
    if len(kept) * np.dtype(np.int64).itemsize > len(column) * np.dtype(np.float16).itemsize:
        return None, None
    words = labels.words.take(pa.array(kept)).cast(pa.large_string())  # type: ignore[union-attr]
    directions = Directions(len(kept))
    directions.add(labels.offsets, np.searchsorted(kept, labels.ids).astype(np.int32), column)
    behind = len(column) - len(kept)
    padded = [pa.concat_arrays([one, pa.nulls(behind, one.type)]) for one in (words, directions.binary())]
    return padded[0], padded[1]


@njit(cache=True, nogil=True)
def _add_rows(sums: np.ndarray, offsets: np.ndarray, ids: np.ndarray, rows: np.ndarray) -> None:
    for row in range(len(rows)):
        for at in range(offsets[row], offsets[row + 1]):
            for d in range(rows.shape[1]):
                sums[ids[at], d] += rows[row, d]
