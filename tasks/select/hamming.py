"""Bit strings that differ in few bits: every such pair, in most cases without comparing all with all.

Cut b bits into d + k chunks: two strings that differ in at most d bits agree in k whole chunks at least (pigeonhole
principle; k = 1 in Norouzi, Punjani, Fleet, "Fast Exact Search in Hamming Space with Multi-Index Hashing", arXiv
1307.2982). So strings are put in buckets for each choice of k chunks, and those that agree in all of them are compared.
More chunks to agree in make buckets smaller and choices more: k grows with the number of strings. With k = 0 there is
one bucket, in which all are compared: where the distance is so large that chunks tell nothing apart, that is cheapest.

Strings that are many and alike make buckets too large to compare. Up to `ALL_PAIRS` strings are all compared then; of
more, each is compared with the `WINDOW` next to it in its bucket, pairs may be missing, and buckets are counted. The
same if there are more than `MOST_PAIRS` pairs to hold.
"""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
from numba import njit

from tasks.select.covers import ENTROPY

MOST_CHUNKS = 8
"""Most chunks that must agree."""
SORTING = 32
"""What sorting one string costs, in comparisons."""
SIDE_BY_SIDE = 4
"""Comparisons with neighbours in memory that cost as much as one within a bucket."""
WINDOW = 2048
"""Strings of a bucket that one is compared with: of a longer one, those next in order."""
MOST_PAIRS = 1 << 24
"""Pairs that are held, beside `PAIRS_EACH` for every string: where there are more, windows are halved."""
PAIRS_EACH = 16
ALL_PAIRS = 1 << 17
"""Strings of which all are compared rather than that a pair is missed: a few seconds."""
BLOCK = 1024
"""Strings that one is compared with at a time: they stay in the cache."""


class Pairs(NamedTuple):
    """Strings that differ in few bits, `i < j`, each pair once."""

    i: np.ndarray
    """int64 `(e,)`"""
    j: np.ndarray
    """int64 `(e,)`"""
    distance: np.ndarray
    """int32 `(e,)`: bits that differ."""
    capped: int
    """Buckets that were larger than the window: pairs in them may be missing."""


def masks(bits: int, distance: int, agree: int) -> np.ndarray:
    """Choices of `agree` chunks out of `distance + agree`, as masks: uint64 `(T, ceil(bits / 64))`.

    Two strings of `bits` bits that differ in at most `distance` agree under one mask at least.
    """
    chunks = distance + agree
    of_bit = np.arange(-(-bits // 64) * 64) % chunks  # neighbours, which are alike in worth, in different chunks
    of_bit[bits:] = -1
    chosen = np.array(list(combinations(range(chunks), agree)))
    table = (of_bit[None, :, None] == chosen[:, None, :]).any(axis=2)
    return np.packbits(table, axis=1, bitorder="little").view("<u8")


def chunks_to_agree(count: int, bits: int, distance: int) -> int:
    """How many chunks must agree for the search among `count` strings to be cheapest; 0: all are compared."""
    return min(range(MOST_CHUNKS + 1), key=lambda agree: _cost(count, bits, distance, agree))


def company(count: int, bits: int, distance: int, agree: int) -> float:
    """How many of `count` strings one meets by chance under all masks together, about."""
    return comb(distance + agree, agree) * count * 2.0 ** -(ENTROPY * bits * agree / (distance + agree))


def _cost(count: int, bits: int, distance: int, agree: int) -> float:
    """Comparisons for one string, those that sorting is worth included."""
    if agree == 0:
        return SORTING + count / 2 / SIDE_BY_SIDE
    return SORTING * comb(distance + agree, agree) + company(count, bits, distance, agree) / 2


def masked(words: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What is left of strings under one mask, as one word each, uint64 `(n,)`; longer strings are mixed into it."""
    key = words[:, 0] & mask[0]
    for column in range(1, words.shape[1]):
        key = (key ^ (key >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        key = (key ^ (key >> np.uint64(32))) + (words[:, column] & mask[column]) * np.uint64(0x94D049BB133111EB)
    return key


def scrambled(words: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What is left of strings under one mask, as a key that is even in its leading bits: uint64 `(n,)`."""
    key = masked(words, mask) * np.uint64(0x9E3779B97F4A7C15)
    return (key ^ (key >> np.uint64(32))) * np.uint64(0xBF58476D1CE4E5B9)


def near(words: np.ndarray, bits: int, distance: int) -> Pairs:
    """All pairs of strings that differ in at most `distance` bits, or nearly all if `capped` is not 0.

    Args:
        words: uint64 `(n, ceil(bits / 64))`, zeros behind the last bit; distinct, or nearly so, for equal ones
            share all buckets.
    """
    agree, most = chunks_to_agree(len(words), bits, distance), MOST_PAIRS + PAIRS_EACH * len(words)
    if agree == 0 and (every := _every(words, distance, most)):
        return every
    choices, window = masks(bits, distance, max(agree, 1)), WINDOW
    while (found := _search(words, choices, distance, window, most)) is None:
        window //= 2
    if found.capped and 0 < agree and len(words) <= ALL_PAIRS:
        return _every(words, distance, most) or found
    return found


def _every(words: np.ndarray, distance: int, most: int) -> Pairs | None:
    """`near`, by comparing all with all; None if there are more than `most` pairs."""
    columns, parts, total = np.ascontiguousarray(words.T), [], 0
    room = np.empty((2, 1 << 16), np.int64), np.empty(1 << 16, np.int32)
    for first in range(0, len(words), BLOCK):
        last = min(first + BLOCK, len(words))
        count = _compare_all(columns, first, last, distance, *room)
        total += count
        if total > most:
            return None
        if count > len(room[1]):
            room = np.empty((2, 2 * count), np.int64), np.empty(2 * count, np.int32)
            _compare_all(columns, first, last, distance, *room)
        parts.append((room[0][:, :count].copy(), room[1][:count].copy()))
    pairs = np.concatenate([part[0] for part in parts] or [room[0][:, :0]], axis=1)
    return Pairs(pairs[0], pairs[1], np.concatenate([part[1] for part in parts] or [room[1][:0]]), 0)


def _search(words: np.ndarray, choices: np.ndarray, distance: int, window: int, most: int) -> Pairs | None:
    """`near`, with a window; None if there are more than `most` pairs, which a window of 1 is too small for."""
    parts, total, capped = [], 0, 0
    room = np.empty((2, 1 << 16), np.int64), np.empty(1 << 16, np.int32)
    for number, mask in enumerate(choices):
        order, ends = bucketed(scrambled(words, mask), max(1, (len(words) - 1).bit_length()))
        capped += int(np.sum(np.diff(ends, prepend=0) > window + 1))
        count = _compare(words[order], order, ends, choices[: number + 1], distance, window, *room)
        if total + count > most and window > 1:
            return None
        if count > len(room[1]):
            room = np.empty((2, 2 * count), np.int64), np.empty(2 * count, np.int32)
            _compare(words[order], order, ends, choices[: number + 1], distance, window, *room)
        parts.append((*np.sort(room[0][:, :count], axis=0), room[1][:count].copy()))
        total += count
    i, j, bits_apart = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Pairs(i, j, bits_apart, capped)


@njit(cache=True, nogil=True)
def _ones(x: np.uint64) -> np.int64:
    """Bits that are set."""
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))


@njit(cache=True, nogil=True)
def _compare_all(
    columns: np.ndarray, first: int, last: int, distance: int, pairs: np.ndarray, apart: np.ndarray
) -> int:
    """Compare the strings `first` to `last` with all before them and each other, `columns` uint64 `(words, n)`.

    Returns how many pairs there are, stored while room lasts. The inner loops are plain for the compiler to widen.
    """
    count, n = 0, last - first
    different = np.empty(n, np.int64)
    for i in range(last - 1):
        different[:] = 0
        for column in columns:
            a, block = column[i], column[first:last]
            for k in range(n):
                different[k] += _ones(a ^ block[k])
        alike = 0
        for k in range(n):
            alike += different[k] <= distance
        if alike == 0:
            continue
        for k in range(max(0, i + 1 - first), n):
            if different[k] <= distance:
                if count < len(apart):
                    pairs[0, count], pairs[1, count], apart[count] = i, first + k, different[k]
                count += 1
    return count


@njit(cache=True, nogil=True)
def bucketed(key: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices by the leading `bits` of their keys, ties in order, int64 `(n,)`, and the end of each bucket."""
    shift = np.uint64(64 - bits)
    ends = np.zeros(1 << bits, np.int64)
    for value in key:
        ends[np.int64(value >> shift)] += 1
    total = 0
    for bucket in range(len(ends)):
        ends[bucket], total = total, total + ends[bucket]
    order = np.empty(len(key), np.int64)
    for index, value in enumerate(key):
        home = np.int64(value >> shift)
        order[ends[home]] = index
        ends[home] += 1
    return order, ends


@njit(cache=True, nogil=True)
def _equal(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> bool:
    for column in range(len(a)):
        if (a[column] ^ b[column]) & mask[column] != 0:
            return False
    return True


@njit(cache=True, nogil=True)
def _is_new(a: np.ndarray, b: np.ndarray, choices: np.ndarray) -> bool:
    """Whether two strings are equal under the last of the masks and under none before."""
    for choice in choices[:-1]:
        if _equal(a, b, choice):
            return False
    return _equal(a, b, choices[-1])


@njit(cache=True, nogil=True)
def _compare(
    words: np.ndarray,
    order: np.ndarray,
    ends: np.ndarray,
    choices: np.ndarray,
    distance: int,
    window: int,
    pairs: np.ndarray,
    apart: np.ndarray,
) -> int:
    """Compare within buckets of `words`, which are in order; returns how many pairs there are, stored while room lasts.

    A pair counts under the first mask under which it is equal.
    """
    count, start = 0, np.int64(0)
    for end in ends:
        for at in range(start, end - 1):
            a = words[at]
            for other in range(at + 1, min(end, at + 1 + window)):
                b = words[other]
                different = np.int64(0)
                for column in range(len(a)):
                    different += _ones(a[column] ^ b[column])
                if different > distance or not _is_new(a, b, choices):
                    continue
                if count < len(apart):
                    pairs[0, count], pairs[1, count], apart[count] = order[at], order[other], different
                count += 1
        start = end
    return count
