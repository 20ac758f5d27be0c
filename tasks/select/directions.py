"""Directions of embeddings, as selections by representation compare them: unit rows, equal ones told apart."""

from __future__ import annotations

import numpy as np
from numba import njit

from tasks.select.sorting import first_of_each


def directions(vectors: np.ndarray) -> np.ndarray:
    """Unit rows, float32 `(n, D)`; rows that are zero or not finite become zero: they have no direction."""
    unit = np.array(vectors, np.float32)
    unit[~np.isfinite(unit).all(axis=1)] = 0
    # By the largest entry first: the square of a float32 may be too large or too small for one.
    unit /= np.maximum(np.abs(unit).max(axis=1, initial=0, keepdims=True), np.finfo(np.float32).tiny)
    norm = np.linalg.norm(unit, axis=1, keepdims=True)
    return np.divide(unit, norm, out=unit, where=norm > 0)


def distinct_rows(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first of each set of equal rows, int64 ascending `(m,)`, and every row's place among them, `(n,)`.

    Args:
        vectors: float32 `(n, D)`, equal by their bytes, but that -0.0 is 0.0.
    """
    if len(vectors) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    whole = np.ascontiguousarray(vectors + np.float32(0))  # -0.0 is 0.0
    words = whole.view(np.uint32)
    first, place = first_of_each(_digests(words))
    later = np.setdiff1d(np.arange(len(words)), first, assume_unique=True)
    if np.array_equal(words[later], words[first[place[later]]]):
        return first, place
    # One digest for two vectors: by all bytes.
    return first_of_each(words.view(np.dtype((np.void, words.itemsize * words.shape[1]))).ravel())


@njit(cache=True)
def _digests(words: np.ndarray) -> np.ndarray:
    digests = np.empty(len(words), np.uint64)
    for row in range(len(words)):
        mixed = np.uint64(0x9E3779B97F4A7C15)
        for d in range(words.shape[1]):
            mixed = (mixed ^ np.uint64(words[row, d])) * np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(32)
        digests[row] = mixed
    return digests
