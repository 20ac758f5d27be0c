"""Groups of duplicates from verified pairs: who stands for whom, for a threshold and for every threshold at once.

`pairs` are three arrays: two of row indexes, int64 `(E,)`, each pair once in either direction, and their similarities,
float32 `(E,)`. `order` lists the n rows from best to worst, int64 `(n,)`. All return the keeper of every row, int64
`(n,)`, -1 for rows that nothing stands for, and a similarity, float32 `(n,)`, NaN where there is none.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]


def greedy(pairs: Pairs, order: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """From the best row down: a row that is still free becomes a keeper and takes its free neighbours.

    Every row is paired with its keeper, at the similarity that is returned.
    """
    place = _places(order, n)
    first, second, similarity = pairs
    starts, ends, values = _neighbours(place[first], place[second], similarity, n)
    keeper, found = _greedy(starts, ends, values)
    return _named(keeper, found, order)


def components(pairs: Pairs, order: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The best row of each connected component stands for the others; their similarity is as in `persistence`."""
    keeper, found = persistence(pairs, order, n)
    up = np.where(keeper >= 0, keeper, np.arange(n))
    for _ in range(max(1, n.bit_length())):
        up = up[up]
    return np.where(keeper >= 0, up, -1), found


def persistence(pairs: Pairs, order: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Single linkage: pairs join groups from the most alike down; the best row of the worse group leaves with that.

    So the rows whose similarity is below t (or NaN) are the best rows of the components at threshold t, for every t:
    the similarity is a rank. The keeper is the best row of the group that was joined; keepers form no circles.
    """
    place = _places(order, n)
    first, second, similarity = pairs
    one, other = place[first], place[second]
    better, worse = np.minimum(one, other), np.maximum(one, other)
    closest = np.lexsort((worse, better, -similarity.astype(np.float64)))
    keeper, found = _joined(better[closest], worse[closest], similarity[closest].astype(np.float32), n)
    return _named(keeper, found, order)


def closest_first(pairs: Pairs, order: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """From the most alike pair down: where both rows still stand, the worse one goes, and the better stands for it.

    So each row is alike the row that it goes for by the similarity that is returned, and at every t no two rows that
    stand are a pair of t or more, if those with a similarity of t or more have gone: the similarity is a rank. What
    chains of pairs connect, as in `persistence`, need not be alike.
    """
    place = _places(order, n)
    first, second, similarity = pairs
    one, other = place[first], place[second]
    better, worse = np.minimum(one, other), np.maximum(one, other)
    closest = np.lexsort((worse, better, -similarity.astype(np.float64)))
    keeper, found = np.full(n, -1, np.int64), np.full(n, np.nan, np.float32)
    take_turns(better[closest], worse[closest], similarity[closest].astype(np.float32), keeper, found)
    return _named(keeper, found, order)


def rule_of(groups: str, *, ranked: bool) -> Callable[[Pairs, np.ndarray, int], tuple[np.ndarray, np.ndarray]]:
    """The rule that a select's `groups` means, for a threshold or for a target."""
    if ranked:
        return {"greedy": closest_first, "components": persistence}[groups]
    return {"greedy": greedy, "components": components}[groups]


def _places(order: np.ndarray, n: int) -> np.ndarray:
    """The position of every row in `order`."""
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    return place


def _named(keeper: np.ndarray, found: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From positions back to rows."""
    rows, similarity = np.full(len(order), -1, np.int64), np.empty(len(order), np.float32)
    rows[order] = np.where(keeper >= 0, order[np.maximum(keeper, 0)], -1) if len(order) else keeper
    similarity[order] = found
    return rows, similarity


def _neighbours(
    one: np.ndarray, other: np.ndarray, similarity: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Worse neighbours of every position as CSR: starts `(n + 1,)`, ends, similarities."""
    better, worse = np.minimum(one, other), np.maximum(one, other)
    by = np.argsort(better, kind="stable")
    starts = np.searchsorted(better[by], np.arange(n + 1))
    return starts, worse[by], similarity[by].astype(np.float32)


@njit(cache=True)
def _greedy(starts: np.ndarray, ends: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = len(starts) - 1
    keeper, found = np.full(n, -1, np.int64), np.full(n, np.nan, np.float32)
    for i in range(n):
        if keeper[i] >= 0:
            continue
        for at in range(starts[i], starts[i + 1]):
            if keeper[ends[at]] < 0:
                keeper[ends[at]] = i
                found[ends[at]] = values[at]
    return keeper, found


@njit(cache=True)
def root_of(root: np.ndarray, at: int) -> int:
    """Union-find: the root above `at`, the way to it made shorter in place."""
    while root[at] != at:
        root[at] = root[root[at]]
        at = root[at]
    return at


@njit(cache=True)
def _joined(better: np.ndarray, worse: np.ndarray, values: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    root = np.arange(n)
    keeper, found = np.full(n, -1, np.int64), np.full(n, np.nan, np.float32)
    for k in range(len(better)):
        a, b = root_of(root, better[k]), root_of(root, worse[k])
        if a == b:
            continue
        best, gone = min(a, b), max(a, b)
        root[gone] = best
        keeper[gone] = best
        found[gone] = values[k]
    return keeper, found


@njit(cache=True)
def take_turns(
    better: np.ndarray, worse: np.ndarray, values: np.ndarray, keeper: np.ndarray, found: np.ndarray
) -> None:
    """The rule of `closest_first` in place, over pairs in the order of their turns; rows with a keeper have gone."""
    for k in range(len(better)):
        if keeper[better[k]] < 0 and keeper[worse[k]] < 0:
            keeper[worse[k]] = better[k]
            found[worse[k]] = values[k]
