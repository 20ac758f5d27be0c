"""Buckets of equal size by score, exactly, over any number of rows: the keys of rows, and those where buckets begin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from tasks.select.ranking import ordered

SORTED_ROWS = 1 << 23
"""Keys that are sorted at once: 64 MB."""
BINS = 1 << 22
"""Of a histogram of keys' digits, over all that are open."""
WIDTH = 64
"""Bits of a key."""


def row_keys(score: np.ndarray, coin: np.ndarray) -> np.ndarray:
    """A key of each row, uint64 `(n,)`: in the order of the scores, equal scores in that of the rows' coins.

    Args:
        score: float32 `(n,)`, no NaN.
        coin: float64 `(n,)`, in [0, 1).
    """
    return ordered(score).astype(np.uint64) << np.uint64(32) | (coin * 2.0**32).astype(np.uint64)


def coins_of(keys: np.ndarray) -> np.ndarray:
    """The coins in keys, as uint64 `(n,)` below 2^32."""
    return keys & np.uint64(0xFFFFFFFF)


def sizes(rows: int, buckets: int) -> np.ndarray:
    """Rows of each bucket, int64 `(buckets,)`: the same, or one more."""
    return np.diff(np.arange(buckets + 1, dtype=np.int64) * rows // buckets)


def edges(parts: Iterable[np.ndarray], rows: int, buckets: int) -> np.ndarray:
    """The lowest key of each bucket, best bucket first: uint64 `(buckets,)`, descending.

    Args:
        parts: The keys of all rows, uint64 arrays; iterated several times.
        rows: How many there are, as many as buckets or more.
        buckets: Of `sizes` rows each, the best keys in the first.
    """
    return at_places(parts, rows - np.cumsum(sizes(rows, buckets)))


def buckets_of(keys: np.ndarray, lowest: np.ndarray) -> np.ndarray:
    """The bucket of each key, int64 `(n,)`, 0 the best; `lowest` from `edges`. What lies below all is in the last."""
    below = len(lowest) - np.searchsorted(lowest[::-1], keys, side="right")
    return np.minimum(below, len(lowest) - 1)


def at_places(parts: Iterable[np.ndarray], places: np.ndarray) -> np.ndarray:
    """The keys that stand at these places, from 0, in ascending order of all keys: uint64, as many as places.

    By radix: a histogram of the leading digits says in which bins the places are, the next pass looks into these bins
    alone, until so few keys are left that they are sorted. Memory is bounded by a part, the bins, and those keys.
    """
    heads, bits = np.zeros(1, np.uint64), 0
    at, left = np.zeros(len(places), np.int64), places.astype(np.int64)
    waiting = sum(len(part) for part in parts)
    while bits < WIDTH and waiting > SORTED_ROWS:
        width = min(WIDTH - bits, max(1, (BINS // len(heads)).bit_length() - 1))
        counts = np.zeros((len(heads), 1 << width), np.int64)
        for key, head in _open(parts, heads, bits):
            digit = key >> np.uint64(WIDTH - bits - width) & np.uint64((1 << width) - 1)
            flat = head << width | digit.astype(np.int64)
            counts += np.bincount(flat, minlength=counts.size).reshape(counts.shape)
        reached = np.cumsum(counts, axis=1)
        digits = np.array([np.searchsorted(reached[h], n, side="right") for h, n in zip(at, left, strict=True)], int)
        left = left - np.where(digits > 0, reached[at, digits - 1], 0)
        longer = heads[at] << np.uint64(width) | digits.astype(np.uint64)
        waiting = int(counts.ravel()[np.unique(at << width | digits)].sum())
        (heads, at), bits = np.unique(longer, return_inverse=True), bits + width
    if bits == WIDTH:
        return heads[at]
    keys = np.sort(np.concatenate([np.zeros(0, np.uint64), *(key for key, _ in _open(parts, heads, bits))]))
    starts = np.searchsorted(keys, heads << np.uint64(WIDTH - bits)) if bits else np.zeros(1, np.int64)
    return keys[starts[at] + left]


def _open(parts: Iterable[np.ndarray], heads: np.ndarray, bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each part the keys whose leading bits are one of `heads`, ascending, and which one: int64."""
    for keys in parts:
        if not bits:  # a shift by all bits is none
            yield keys, np.zeros(len(keys), np.int64)
            continue
        head = keys >> np.uint64(WIDTH - bits)
        at = np.minimum(np.searchsorted(heads, head), len(heads) - 1)
        inside = heads[at] == head
        yield keys[inside], at[inside]
