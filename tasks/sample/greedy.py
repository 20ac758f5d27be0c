"""The greedy loop of CABS diversity maximisation (arXiv 2511.20643) over rows of concept ids in CSR form.

A score never rises while counts grow: each of its terms falls, and rounding is monotone too. So the score a row had
when last looked at bounds the one it has now, and only the row on top of a heap needs a fresh look: if its score, added
up anew in list order, is what the heap says, no other row beats it. These are the picks of computing every score anew
before every pick, ties included, without an inverted index and for a fraction of the work.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit


class Labels(NamedTuple):
    """Concepts of n rows in CSR form, ids being ranks in a vocabulary of V concepts."""

    offsets: np.ndarray
    """int64 `(n + 1,)`: row i holds `ids[offsets[i]:offsets[i + 1]]`."""
    ids: np.ndarray
    """int32, repeats kept."""
    size: int
    """V."""


class Rule(NamedTuple):
    """What a concept is worth to a row once its target or cap is reached."""

    repeats: bool
    """Whether a concept counts as often as a row repeats it."""
    cap: int
    """A concept counted this often is full."""
    met: float
    """Value of a concept whose target is met, at most 0."""
    penalty: float
    """What a label of a full concept costs its row, in units of 3: inf voids the row, 1 puts it behind."""


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


@njit(cache=True, nogil=True, inline="always")
def _sink(scores: np.ndarray, rows: np.ndarray, at: int, size: int) -> None:
    """Moves the entry at `at` down to its place in the heap: larger score first, then lower row."""
    score, row = scores[at], rows[at]
    child = 2 * at + 1
    while child < size:
        other = child + 1
        if other < size and (
            scores[other] > scores[child] or (scores[other] == scores[child] and rows[other] < rows[child])
        ):
            child = other
        if score > scores[child] or (score == scores[child] and row < rows[child]):
            break
        scores[at], rows[at] = scores[child], rows[child]
        at, child = child, 2 * child + 1
    scores[at], rows[at] = score, row


@njit(cache=True, nogil=True, inline="always", error_model="numpy")
def _score(row: int, offsets: np.ndarray, ids: np.ndarray, value: np.ndarray, excess: np.ndarray) -> float:
    """Returns the mean value of a row's labels minus 3 for each of a full concept: means span 2.5, so that decides."""
    total = 0.0
    over = 0.0
    for at in range(offsets[row], offsets[row + 1]):
        total += value[ids[at]]
        over += excess[ids[at]]
    return total / (offsets[row + 1] - offsets[row]) - 3.0 * over


@njit(cache=True, nogil=True, error_model="numpy")
def pick_greedily(
    offsets: np.ndarray, ids: np.ndarray, targets: np.ndarray, frequencies: np.ndarray, quota: int, rule: Rule
) -> tuple[np.ndarray, int]:
    """Returns up to `quota` rows in order of selection, and how many of them held no full concept (they come first).

    Args:
        offsets: int64 `(n + 1,)`; row i holds `ids[offsets[i]:offsets[i + 1]]`. Rows without concepts are never picked.
        ids: Concepts, each below V; repeats within a row count as often as they occur.
        targets: int64 `(V,)`, wanted count of each concept.
        frequencies: int64 `(V,)`, in how many rows each concept occurs.
        quota: Rows wanted.
        rule: See `Rule`.
    """
    rarity = 1.0 / np.maximum(1, frequencies)
    value = np.where(targets > 0, 1.0 + rarity, rule.met)
    excess = np.zeros(len(targets))
    counts = np.zeros(len(targets), np.int64)

    scores = np.empty(len(offsets) - 1)
    rows = np.empty(len(offsets) - 1, np.int64)
    size = 0
    for row in range(len(offsets) - 1):
        if offsets[row + 1] > offsets[row]:
            scores[size], rows[size] = _score(row, offsets, ids, value, excess), row
            size += 1
    for at in range(size // 2 - 1, -1, -1):
        _sink(scores, rows, at, size)

    picks = np.empty(min(quota, size), np.int64)
    picked = 0
    within = 0
    while picked < len(picks) and size > 0:
        row = rows[0]
        score = _score(row, offsets, ids, value, excess)
        if score > -np.inf and score == scores[0]:
            picks[picked] = row
            picked += 1
            within += score >= -0.5  # one label of a full concept makes it -1 or less
            for at in range(offsets[row], offsets[row + 1]):
                c = ids[at]
                counts[c] += 1
                unmet = targets[c] - counts[c]
                value[c] = unmet / targets[c] + rarity[c] if unmet > 0 else rule.met
                if counts[c] >= rule.cap:
                    excess[c] = rule.penalty
            score = -np.inf
        if score == -np.inf:  # picked or void: out of the heap
            size -= 1
            scores[0], rows[0] = scores[size], rows[size]
        else:
            scores[0] = score
        _sink(scores, rows, 0, size)
    return picks[:picked], within
