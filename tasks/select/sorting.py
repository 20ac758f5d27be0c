"""Distinct values by sorting.

`np.unique` without indices or counts hashes from numpy 2.3 on, which for millions of integers takes ten times as long.
"""

from __future__ import annotations

import numpy as np


def distinct(*values: np.ndarray) -> np.ndarray:
    """The distinct values of all arrays `(n,)` of one integer type, ascending, `(m,)`."""
    merged = np.concatenate(values)
    merged.sort()
    new = np.ones(len(merged), bool)
    np.not_equal(merged[1:], merged[:-1], out=new[1:])
    return merged[new]


def first_of_each(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first index of every distinct value, ascending, int64 `(m,)`, and of every value which of those it equals."""
    _, first, same = np.unique(values, return_index=True, return_inverse=True)
    ascending = np.argsort(first)
    place = np.empty_like(ascending)
    place[ascending] = np.arange(len(first))
    return first[ascending], place[same.ravel()]
