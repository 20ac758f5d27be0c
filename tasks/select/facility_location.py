"""Facility location: the rows that represent all others best, by greedy choice.

The objective is f(S) = sum over rows i of max over j in S of max(0, cos(i, j)): cosines are clipped at 0, so that f is
monotone and submodular and greedy reaches 1 - 1/e of the best (Nemhauser et al. 1978). Gains only shrink, so a row is
looked at again only when it may be the best (Minoux 1978, "lazy greedy").

No n x n matrix is kept of many rows. Greedy starts on whole columns, fetched by matmul when a row may be the best.
Each row i is then covered to some degree c_i, and since that only grows, pairs with a similarity above c_i are all
that can ever matter: these neighbour lists, found in one blocked pass, are far shorter than n and lose nothing. Equal
rows are one row with a weight.

More rows than `bucket_rows` are divided into k-means cells, and a row represents rows of its cell alone. That objective
is a sum over cells, so the cut through the gains of all cells is what greedy would take.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numba import njit

from tasks.select.cell_order import CellOrder, Order
from tasks.select.directions import directions, distinct_rows

MARGIN = 1e-6
"""A similarity counts as higher from here on: more than what float32 dot products differ by."""
MEMORY = 1 << 29
"""Bytes of similarities that are held at once, and as many of neighbour lists."""
SAMPLE = 256
"""Rows by which the length of lists is estimated."""
SIDE = 2048
"""Rows and columns of a block of similarities."""
BATCH = 32
"""Rows whose gains are computed at once while whole columns are used."""
SHARE = 1 / 16
"""Lists are made once they would hold so many of the n x n pairs at most: walking them then costs less than columns."""


class Lists(NamedTuple):
    """Neighbours of every candidate, in CSR form."""

    start: np.ndarray
    """int64 `(n + 1,)`"""
    row: np.ndarray
    """int32 `(e,)`: rows that the candidate would cover better."""
    similarity: np.ndarray
    """float32 `(e,)`"""


class FacilityLocation(CellOrder):
    """What a row adds is the sum of what it improves the similarity of each row with the nearest one taken."""

    reason = "well_represented"

    def order(self, vectors: np.ndarray) -> Order:
        """See `CellOrder`."""
        return greedy(vectors)


def objective(vectors: np.ndarray, chosen: np.ndarray) -> float:
    """f of the chosen rows (indices), by every similarity: no lists, no shortcuts."""
    unit, total = directions(vectors), 0.0
    for at in range(0, len(unit), 2048):
        similarity = unit[at : at + 2048] @ unit[chosen].T
        total += float(similarity.max(axis=1, initial=0).sum(dtype=np.float64))
    return total


def greedy(vectors: np.ndarray, wanted: int | None = None, memory: int = MEMORY) -> Order:
    """The first `wanted` rows of the greedy order (all rows if None); of equal gains the lowest index goes first.

    Rows equal to one that was taken add nothing and stand last, in the order of their indices.

    Args:
        vectors: float `(n, D)`, of any length; zero rows and such with NaN are similar to nothing.
        memory: Bytes for columns, and as many for lists. Lists that would need more leave out the smallest
            improvements: f may then fall short by that much a row.
    """
    n = len(vectors)
    wanted = n if wanted is None else min(wanted, n)
    unit = directions(vectors)
    distinct, place = distinct_rows(unit)
    cover = _Cover(unit[distinct], np.bincount(place, minlength=len(distinct)).astype(np.float32), memory)
    taken = cover.take(min(wanted, len(distinct)))
    copies = np.setdiff1d(np.arange(n), distinct)[: wanted - len(taken.rows)]
    original = distinct[place[copies]]
    parents = np.append(distinct, -1)[taken.parent]
    return Order(
        np.concatenate((distinct[taken.rows], copies)),
        np.concatenate((np.minimum.accumulate(taken.gain), np.zeros(len(copies)))),
        np.concatenate((parents, np.where(unit[original].any(axis=1), original, -1))),
    )


class _Cover:
    """Distinct unit rows, and how well each is covered by those that were taken."""

    def __init__(self, unit: np.ndarray, weight: np.ndarray, memory: int) -> None:
        n = len(unit)
        self._unit, self._weight, self._memory = unit, weight, memory
        self._cover, self._owner = np.zeros(n, np.float32), np.full(n, -1, np.int64)
        self._all = n * n * 4 <= memory
        self._allowed = memory // 9  # a pair has eight bytes; the ninth is for what an estimate is off by
        if self._all:
            self._columns, self._slot = unit @ unit.T, np.arange(n)
        else:
            self._columns, self._slot = np.empty((max(BATCH, memory // (4 * n)), n), np.float32), np.full(n, -1)
        self._used = 0

    def take(self, wanted: int) -> Order:
        """The greedy order of the first `wanted` rows."""
        n = len(self._unit)
        if n == 0:
            return Order(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))
        first = self._by_columns(wanted)
        left = np.ones(n, bool)
        left[first.rows] = False
        if len(first.rows) == wanted:
            return first
        lists = self._lists(left)
        candidates = np.flatnonzero(left)
        rest = _by_lists(*lists, self._weight, self._cover, self._owner, candidates, wanted - len(first.rows))
        return Order(*(np.concatenate(parts) for parts in zip(first, rest, strict=True)))

    def _by_columns(self, wanted: int) -> Order:
        """Lazy greedy on whole columns, until lists are short, or no column more can be kept, or all is done."""
        bound = self._totals()
        stamp = np.zeros(len(bound), np.int64)
        rows: list[int] = []
        gains: list[float] = []
        parents: list[int] = []
        while len(rows) < wanted:
            best = int(bound.argmax())
            if stamp[best] == len(rows) and self._fetch(np.array([best])):
                rows.append(best)
                gains.append(bound[best])
                parents.append(int(self._owner[best]))
                _raise_cover(self._columns[self._slot[best]], best, self._cover, self._owner)
                bound[best] = -np.inf
                if len(rows).bit_count() == 1 and self._pairs(MARGIN) <= min(SHARE * len(bound) ** 2, self._allowed):
                    break
                continue
            stale = np.argpartition(-bound, min(BATCH, len(bound) - 1))[:BATCH]
            stale = np.union1d(stale[(stamp[stale] < len(rows)) & (bound[stale] > -np.inf)], [best])
            if not self._fetch(stale):
                break
            bound[stale] = _gains(self._columns, self._slot[stale], self._weight, self._cover)
            stamp[stale] = len(rows)
        return Order(np.array(rows, np.int64), np.array(gains), np.array(parents, np.int64))

    def _totals(self) -> np.ndarray:
        """What each row would add as the first one, float64 `(n,)`; each pair is looked at once."""
        n = len(self._unit)
        totals = np.zeros(n)
        if self._all:
            return _gains(self._columns, np.arange(n), self._weight, self._cover)
        for at in range(0, n, SIDE):
            for beside in range(at, n, SIDE):
                here, there = slice(at, at + SIDE), slice(beside, beside + SIDE)
                block = self._unit[here] @ self._unit[there].T
                _add_sums(block, self._weight[there], totals[here])
                if beside > at:
                    _add_sums(block.T, self._weight[here], totals[there])
        return totals

    def _blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Similarities of some rows with all, block by block, with the index of the first."""
        n = len(self._unit)
        size = max(64, min(1024, self._memory // (16 * n)))
        for at in range(0, n, size):
            some = slice(at, at + size)
            yield at, self._columns[some] if self._all else self._unit[some] @ self._unit.T

    def _fetch(self, rows: np.ndarray) -> bool:
        """Have the columns of these rows in memory; False if there is no place."""
        missing = rows[self._slot[rows] < 0]
        if self._used + len(missing) > len(self._columns):
            return False
        if len(missing):
            self._slot[missing] = self._used + np.arange(len(missing))
            np.matmul(self._unit[missing], self._unit.T, out=self._columns[self._used : self._used + len(missing)])
            self._used += len(missing)
        return True

    def _lists(self, left: np.ndarray) -> Lists:
        """For every row that is left (bool `(n,)`) the rows that it would cover better than they are."""
        bar = self._cover + np.float32(self._margin())
        if not self._all:
            self._columns = np.empty((0, 0), np.float32)  # room for the lists
        starts, rows, similarities = [np.zeros(1, np.int64)], [], []
        for at, block in self._blocks():
            counts = _count(block, bar, left[at : at + len(block)])
            row, similarity = _fill(block, bar, counts)
            starts.append(counts)
            rows.append(row)
            similarities.append(similarity)
        self._columns = np.empty((0, 0), np.float32)
        row = np.concatenate(rows)
        del rows
        return Lists(np.cumsum(np.concatenate(starts)), row, np.concatenate(similarities))

    def _improvements(self) -> np.ndarray:
        """By how much rows of an even sample would cover other rows better, float32 `(m * n,)`, any sign."""
        sample = np.unique(np.linspace(0, len(self._unit) - 1, SAMPLE).astype(np.int64))
        rows = self._columns[sample] if self._all else self._unit[sample] @ self._unit.T
        return (rows - self._cover).ravel()

    def _pairs(self, margin: float) -> float:
        """Pairs that lists would hold, about."""
        return float(np.mean(self._improvements() > margin)) * len(self._unit) ** 2

    def _margin(self) -> float:
        """MARGIN, or what makes lists fit."""
        if self._pairs(MARGIN) <= self._allowed:
            return MARGIN
        better = self._improvements()
        at = len(better) - int(self._allowed / len(self._unit) ** 2 * len(better)) - 1
        return max(MARGIN, float(np.partition(better, at)[at]))


@njit(cache=True, fastmath=True)
def _gains(columns: np.ndarray, slots: np.ndarray, weight: np.ndarray, cover: np.ndarray) -> np.ndarray:
    gains = np.zeros(len(slots))
    for k in range(len(slots)):
        column = columns[slots[k]]
        total = 0.0
        for at in range(0, len(column), 1024):  # float32 within, float64 between: fast, and exact enough
            some, weights, covered = column[at : at + 1024], weight[at : at + 1024], cover[at : at + 1024]
            part = np.float32(0)
            for i in range(len(some)):
                part += weights[i] * max(some[i] - covered[i], np.float32(0))
            total += part
        gains[k] = total
    return gains


def _add_sums(block: np.ndarray, weight: np.ndarray, totals: np.ndarray) -> None:
    """Add to `totals` the clipped similarities of each row, weighted."""
    totals += np.maximum(block, 0) @ weight


@njit(cache=True)
def _raise_cover(column: np.ndarray, taken: int, cover: np.ndarray, owner: np.ndarray) -> None:
    for i in range(len(column)):
        if column[i] > cover[i]:
            cover[i] = column[i]
            owner[i] = taken


@njit(cache=True)
def _count(block: np.ndarray, bar: np.ndarray, left: np.ndarray) -> np.ndarray:
    counts = np.zeros(len(block), np.int64)
    for j in range(len(block)):
        if left[j]:
            total = 0
            for i in range(block.shape[1]):
                total += block[j, i] > bar[i]
            counts[j] = total
    return counts


@njit(cache=True)
def _fill(block: np.ndarray, bar: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    row = np.empty(counts.sum(), np.int32)
    similarity = np.empty(len(row), np.float32)
    at = 0
    for j in range(len(block)):
        if counts[j]:
            for i in range(block.shape[1]):
                if block[j, i] > bar[i]:
                    row[at] = i
                    similarity[at] = block[j, i]
                    at += 1
    return row, similarity


@njit(cache=True)
def _by_lists(
    start: np.ndarray,
    row: np.ndarray,
    similarity: np.ndarray,
    weight: np.ndarray,
    cover: np.ndarray,
    owner: np.ndarray,
    candidates: np.ndarray,
    wanted: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lazy greedy on lists: the candidate on top of the heap is taken if its gain is up to date."""
    heap = [(-_gain(start, row, similarity, weight, cover, j), j) for j in candidates]
    heapq.heapify(heap)
    stamp = np.zeros(len(cover), np.int64)
    rows, gains, parents = np.empty(wanted, np.int64), np.empty(wanted), np.empty(wanted, np.int64)
    for at in range(wanted):
        while stamp[heap[0][1]] < at:
            j = heap[0][1]
            stamp[j] = at
            heapq.heapreplace(heap, (-_gain(start, row, similarity, weight, cover, j), j))
        gain, j = heapq.heappop(heap)
        rows[at], gains[at], parents[at] = j, -gain, owner[j]
        for e in range(start[j], start[j + 1]):
            if similarity[e] > cover[row[e]]:
                cover[row[e]] = similarity[e]
                owner[row[e]] = j
    return rows, gains, parents


@njit(cache=True)
def _gain(
    start: np.ndarray, row: np.ndarray, similarity: np.ndarray, weight: np.ndarray, cover: np.ndarray, j: int
) -> float:
    total = 0.0
    for e in range(start[j], start[j + 1]):
        total += weight[row[e]] * max(similarity[e] - cover[row[e]], np.float32(0))
    return total
