"""Facility location: the rows that represent all others best, by greedy choice.

The objective is f(S) = sum over rows i of max over j in S of max(0, cos(i, j)): cosines are clipped at 0, so that f is
monotone and submodular and greedy reaches 1 - 1/e of the best (Nemhauser et al. 1978). Gains only shrink, so a row is
looked at again only when it may be the best (Minoux 1978, "lazy greedy").

`tasks.select.covering` does so with neighbour lists instead of an n x n matrix. Equal rows are one row with a weight.

More rows than `bucket_rows` are divided into k-means cells, and a row represents rows of its cell alone. That objective
is a sum over cells, so the cut through the gains of all cells is what greedy would take.
"""

from __future__ import annotations

import numpy as np

from tasks.select.cell_order import CellOrder, Order
from tasks.select.covering import MEMORY, Cover
from tasks.select.directions import directions, distinct_rows


class FacilityLocation(CellOrder):
    """What a row adds is the sum of what it improves the similarity of each row with the nearest one taken."""

    reason = "well_represented"

    def order(self, vectors: np.ndarray, weight: np.ndarray) -> Order:
        """See `CellOrder`."""
        return greedy(vectors, weight=weight)


def objective(vectors: np.ndarray, chosen: np.ndarray) -> float:
    """f of the chosen rows (indices), by every similarity: no lists, no shortcuts."""
    unit, total = directions(vectors), 0.0
    for at in range(0, len(unit), 2048):
        similarity = unit[at : at + 2048] @ unit[chosen].T
        total += float(similarity.max(axis=1, initial=0).sum(dtype=np.float64))
    return total


def greedy(
    vectors: np.ndarray, wanted: int | None = None, *, weight: np.ndarray | None = None, memory: int = MEMORY
) -> Order:
    """The first `wanted` rows of the greedy order (all rows if None); of equal gains the lowest index goes first.

    Rows equal to one that was taken add nothing and stand last, in the order of their indices.

    Args:
        vectors: float `(n, D)`, of any length; zero rows and such with NaN are similar to nothing.
        weight: float32 `(n,)`: how many rows each stands for; None: one each.
        memory: Bytes for columns, and as many for lists. As long as lists would need more, they leave out the
            smallest improvements, and the choice is not quite that of greedy.
    """
    n = len(vectors)
    wanted = n if wanted is None else min(wanted, n)
    unit = directions(vectors)
    distinct, place = distinct_rows(unit)
    sums = np.bincount(place, weight, minlength=len(distinct)).astype(np.float32)
    cover = Cover(unit[distinct], sums, memory)
    taken = cover.take(min(wanted, len(distinct)))
    copies = np.setdiff1d(np.arange(n), distinct)[: wanted - len(taken.rows)]
    original = distinct[place[copies]]
    parents = np.append(distinct, -1)[taken.parent]
    return Order(
        np.concatenate((distinct[taken.rows], copies)),
        np.concatenate((np.minimum.accumulate(taken.gain), np.zeros(len(copies)))),
        np.concatenate((parents, np.where(unit[original].any(axis=1), original, -1))),
    )
