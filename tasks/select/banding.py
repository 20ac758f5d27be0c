"""Bands of MinHash signatures: candidates are rows that agree in a whole band, and only those are compared.

Time is bounded by rows times bands, whatever the rows: a band's value that many distinct rows have is compared through
a bounded number of leaders.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from tasks.select.sorting import first_of_each

ALL_PAIRS = 64
"""Rows of one band value that are compared each with each; of more, each with at most so many leaders."""


@njit(cache=True, nogil=True)
def band_keys(signatures: np.ndarray, bands: int, slots: int) -> np.ndarray:
    """Hashes of the bands of signatures, uint64 `(n, bands)`.

    Args:
        signatures: uint16 `(n, num_perm)`.
    """
    keys = np.empty((len(signatures), bands), np.uint64)
    for row in range(len(signatures)):
        for band in range(bands):
            value = np.uint64(0x9E3779B97F4A7C15)
            for slot in range(band * slots, (band + 1) * slots):
                value = (value ^ np.uint64(signatures[row, slot])) * np.uint64(0xBF58476D1CE4E5B9)
                value ^= value >> np.uint64(29)
            keys[row, band] = value
    return keys


def distinct(signatures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row of every distinct signature, ascending, int64 `(m,)`, and of every row which of those it equals.

    Signatures are told apart by 64-bit hashes, and those of rows of one component alone matter.
    """
    return first_of_each(band_keys(signatures, 1, signatures.shape[1])[:, 0])


def compare(
    signatures: np.ndarray, keys: np.ndarray, group: np.ndarray, cut: float
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray, int]:
    """Compare rows that share a band.

    Args:
        signatures: uint16 `(n, num_perm)`, distinct, best row first.
        keys: uint64 `(n, b)`: hashes of the bands.
        group: int64 `(n,)`: the rows' components; rows of two are not compared.
        cut: Share of equal slots from which two rows are alike.

    Returns:
        Edges (better row, worse row, share of equal slots: int64, int64, float32), some more than once; of every row
        the largest share below the cut with a better one, float32 `(n,)`, NaN where there is none; how many bands'
        values had too many rows to compare all.
    """
    small = np.zeros(keys.shape, bool)
    nearest = np.full(len(keys), np.nan, np.float32)
    found: list[tuple[np.ndarray, ...]] = []
    capped = 0
    for band in range(keys.shape[1]):
        order = np.lexsort((keys[:, band], group))  # stable: within a run the best row comes first
        changes = (np.diff(keys[order, band]) != 0) | (np.diff(group[order]) != 0)
        bounds = np.concatenate([[0], np.flatnonzero(changes) + 1, [len(order)]])
        runs = np.flatnonzero(np.diff(bounds) > 1)
        runs = np.stack([bounds[runs], bounds[runs + 1]], 1)
        *edges, missed = _compare_runs(order, runs, band, keys, signatures, small, np.float32(cut), nearest)
        found.append(tuple(edges))
        capped += missed
    i, j, similarity = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return (i, j, similarity), nearest, capped


@njit(cache=True, nogil=True)
def _share(a: np.ndarray, b: np.ndarray) -> np.float32:
    equal = 0
    for slot in range(len(a)):
        equal += a[slot] == b[slot]
    return np.float32(equal / len(a))


@njit(cache=True, nogil=True)
def _compare_runs(
    order: np.ndarray,
    runs: np.ndarray,
    band: int,
    keys: np.ndarray,
    signatures: np.ndarray,
    small: np.ndarray,
    cut: np.float32,
    nearest: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Compare the rows of each run of equal keys: `order[runs[k, 0] : runs[k, 1]]`. Marks those compared in full."""
    i, j, similarity = np.empty(1024, np.int64), np.empty(1024, np.int64), np.empty(1024, np.float32)
    count, capped = 0, 0
    for run in range(len(runs)):
        members = order[runs[run, 0] : runs[run, 1]]
        whole = len(members) <= ALL_PAIRS
        for row in members:
            small[row, band] = whole
        taken = np.zeros(len(members), np.bool_)  # alike to an earlier leader, where not all pairs are compared
        leaders = 0
        for at in range(len(members)):
            if taken[at]:
                continue
            leaders += 1
            if not whole and leaders > ALL_PAIRS:
                capped += 1
                break
            if count + len(members) > len(i):
                room = 2 * (count + len(members))
                i, j, similarity = _grown(i, room), _grown(j, room), _grown(similarity, room)
            better = members[at]
            for other in range(at + 1, len(members)):
                worse = members[other]
                if taken[other] or _compared(keys, small, better, worse, band):
                    continue
                share = _share(signatures[better], signatures[worse])
                if share < cut:
                    if not nearest[worse] >= share:
                        nearest[worse] = share
                    continue
                i[count], j[count], similarity[count] = better, worse, share
                count += 1
                taken[other] = not whole
    return i[:count], j[:count], similarity[:count], capped


@njit(cache=True, nogil=True)
def _compared(keys: np.ndarray, small: np.ndarray, a: int, b: int, band: int) -> bool:
    """Whether two rows met in an earlier band in which all pairs were compared."""
    for earlier in range(band):
        if keys[a, earlier] == keys[b, earlier] and small[a, earlier]:
            return True
    return False


@njit(cache=True, nogil=True)
def _grown(array: np.ndarray, room: int) -> np.ndarray:
    larger = np.empty(room, array.dtype)
    larger[: len(array)] = array
    return larger
