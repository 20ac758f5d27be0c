"""Directions of embeddings, as selections by representation compare them: unit rows, equal ones told apart."""

from __future__ import annotations

import numpy as np

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
    """The first of each set of byte-equal rows, int64 ascending `(m,)`, and every row's place among them, `(n,)`."""
    if len(vectors) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    whole = np.ascontiguousarray(vectors + np.float32(0))  # -0.0 is 0.0
    as_bytes = whole.view(np.dtype((np.void, whole.itemsize * whole.shape[1]))).ravel()
    return first_of_each(as_bytes)
