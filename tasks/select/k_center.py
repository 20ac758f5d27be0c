"""k-center: rows such that the farthest row is as near to one of them as can be, by farthest-first choice.

The next row is always the one farthest from those taken (Gonzalez 1985), so for every k the radius of the first k is
at most twice the best one. Distances are those of unit rows, sqrt(2 - 2 cos), which obey the triangle inequality. The
first row is the one most similar to the mean. Equal rows are one.

Distances only shrink. So a pool of the farthest rows is taken from, by distances among themselves, as long as its
farthest is beyond all that lie outside: then the others are updated by one matmul. The choice is exact, no n x n matrix
is kept, and the work is done in blocks.

More rows than `bucket_rows` are divided into k-means cells, within which distances count. The cut through all
distances still covers every row within the last distance taken, but the factor of two then holds in each cell for the
number of rows that it keeps, not for the whole.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from tasks.select.cell_order import CellOrder, Order
from tasks.select.directions import directions, distinct_rows

POOL = 256
"""Rows of a pool."""
FARTHEST = 2.0
"""The distance of opposite rows: what the first row counts."""


class KCenter(CellOrder):
    """What a row adds is its distance to the nearest row taken."""

    reason = "near_a_centre"

    def order(self, vectors: np.ndarray, weight: np.ndarray) -> Order:
        """See `CellOrder`; how many rows a row stands for does not matter."""
        return farthest_first(vectors)


def radius(vectors: np.ndarray, chosen: np.ndarray) -> float:
    """The largest distance of a row to the nearest chosen one (indices); of rows that have a direction."""
    unit = directions(vectors)
    unit = unit[unit.any(axis=1)]
    closest = (directions(vectors[chosen]).astype(np.float64) @ unit.T).max(axis=0, initial=-1)
    return float(np.sqrt(np.maximum(0, 2 - 2 * closest)).max(initial=0))


def farthest_first(vectors: np.ndarray, wanted: int | None = None) -> Order:
    """The first `wanted` rows of the order (all if None); `gain` is the distance, and that of the first is FARTHEST.

    Rows equal to one that was taken, and rows that are zero or not finite, stand last with distance 0.

    Args:
        vectors: float `(n, D)`, of any length.
    """
    n = len(vectors)
    unit = directions(vectors)
    distinct, place = distinct_rows(unit)
    some = unit[distinct].any(axis=1)
    real = distinct[some]
    taken = _taken(unit[real], len(real) if wanted is None else min(wanted, len(real)))
    rest = np.setdiff1d(np.arange(n), real)
    original = distinct[place[rest]]
    order = Order(
        np.concatenate((real[taken.rows], rest)),
        np.concatenate((taken.gain, np.zeros(len(rest)))),
        np.concatenate((np.append(real, -1)[taken.parent], np.where(unit[original].any(axis=1), original, -1))),
    )
    return Order(*(part[:wanted] for part in order))


def _taken(unit: np.ndarray, wanted: int) -> Order:
    """Farthest-first of distinct unit rows."""
    rows, closest, parents = np.empty(wanted, np.int64), np.empty(wanted, np.float32), np.empty(wanted, np.int64)
    if wanted == 0:
        return Order(rows, closest.astype(np.float64), parents)
    near, owner = np.full(len(unit), -np.inf, np.float32), np.full(len(unit), -1, np.int64)
    rows[0] = int((unit @ unit.mean(axis=0, dtype=np.float64)).argmax())
    closest[0], parents[0] = -1, -1
    _come_near(unit[rows[:1]] @ unit.T, rows[:1], near, owner)
    done = 1
    while done < wanted:
        pool = np.argpartition(near, POOL)[:POOL] if len(near) > POOL else np.arange(len(near))
        pool.sort()  # so that of equal distances the lowest index is taken
        outside = np.ones(len(near), bool)
        outside[pool] = False
        bar = near[outside].min(initial=np.inf)
        among = unit[pool] @ unit[pool].T
        picked, cosine, owned = _from_pool(among, pool, near[pool], owner[pool], bar, wanted - done)
        new = slice(done, done + len(picked))
        rows[new], closest[new], parents[new] = picked, cosine, owned
        _come_near(unit[picked] @ unit.T, picked, near, owner)
        done += len(picked)
    distance = np.sqrt(np.maximum(0, 2 - 2 * closest.astype(np.float64)))
    return Order(rows, np.minimum.accumulate(distance), parents)


@njit(cache=True)
def _come_near(similarity: np.ndarray, taken: np.ndarray, near: np.ndarray, owner: np.ndarray) -> None:
    """Note the most similar row taken; a row that is taken itself is never the farthest again."""
    for k in range(len(taken)):
        for i in range(len(near)):
            if similarity[k, i] > near[i]:
                near[i] = similarity[k, i]
                owner[i] = taken[k]
    for k in range(len(taken)):
        near[taken[k]] = np.inf


@njit(cache=True)
def _from_pool(
    among: np.ndarray, pool: np.ndarray, near: np.ndarray, owner: np.ndarray, bar: float, wanted: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the pool, the farthest first, as long as it is at least as far as the rows outside can be."""
    rows, cosine, parents = np.empty(wanted, np.int64), np.empty(wanted, np.float32), np.empty(wanted, np.int64)
    count = 0
    while count < min(wanted, len(pool)):
        best = near.argmin()
        if count > 0 and near[best] > bar:
            break
        rows[count], cosine[count], parents[count] = pool[best], near[best], owner[best]
        count += 1
        for i in range(len(pool)):
            if among[best, i] > near[i]:
                near[i] = among[best, i]
                owner[i] = pool[best]
        near[best] = np.inf
    return rows[:count], cosine[:count], parents[:count]
