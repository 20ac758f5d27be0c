"""How well rows are covered by those taken, and which to take next: lazy greedy without an n x n matrix.

Greedy starts on whole columns, fetched by matmul when a row may be the best. Each row i is then covered to some degree
c_i, and since that only grows, pairs with a similarity above c_i are all that can ever matter: these neighbour lists,
found in one blocked pass, are far shorter than n and lose nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numba import njit
from scipy.linalg.blas import ssyrk

from tasks.select.cell_order import Order

MARGIN = 1e-6
"""A similarity counts as higher from here on: more than what float32 dot products differ by."""
MEMORY = 1 << 29
"""Bytes of similarities that are held at once, and as many of neighbour lists."""
SAMPLE = 64
"""Rows by which the length of lists is estimated."""
MOST = 32
"""Rows that are taken by whole columns."""
GROWTH = 16
"""Lists that leave something out are made anew when so many times as many rows are taken."""
SIDE = 2048
"""Rows and columns of a block of similarities."""
BATCH = 32
"""Rows whose gains are computed at once while whole columns are used."""
SHARE = 1 / 32
"""Lists are made once they would hold so many of the n x n pairs at most: walking them then costs less than columns.

That is where all columns are held. Where they have to be fetched, lists are cheaper as soon as they fit."""
FETCHED = 1 / 2
"""Columns, of n, that are fetched at most before lists are made, whether or not these must leave something out."""


class Lists(NamedTuple):
    """Neighbours of every candidate, in CSR form."""

    start: np.ndarray
    """int64 `(n + 1,)`"""
    row: np.ndarray
    """int32 `(e,)`: rows that the candidate would cover better."""
    similarity: np.ndarray
    """float32 `(e,)`"""


class Cover:
    """Distinct unit rows, and how well each is covered by those that were taken."""

    def __init__(self, unit: np.ndarray, weight: np.ndarray, memory: int) -> None:
        n = len(unit)
        self._unit, self._weight, self._memory = unit, weight, memory
        self._cover, self._owner = np.zeros(n, np.float32), np.full(n, -1, np.int64)
        self._all = n * n * 4 <= memory
        self._allowed = memory // 9  # a pair has eight bytes; the ninth is for what an estimate is off by
        if self._all:
            self._columns, self._slot = _products(unit), np.arange(n)
        else:
            self._columns, self._slot = np.empty((max(2 * BATCH, memory // (4 * n)), n), np.float32), np.full(n, -1)
        self._used = self._fetched = 0

    def take(self, wanted: int) -> Order:
        """The greedy order of the first `wanted` rows."""
        n = len(self._unit)
        if n == 0:
            return Order(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))
        orders = [self._by_columns(wanted)]
        left = np.ones(n, bool)
        while (done := sum(len(order.rows) for order in orders)) < wanted:
            left[orders[-1].rows] = False
            margin = self._margin()
            more = wanted - done if margin == MARGIN else min(wanted - done, (GROWTH - 1) * done)
            lists = self._lists(left, margin)
            found = _by_lists(*lists, self._weight, self._cover, self._owner, np.flatnonzero(left), more)
            orders.append(Order(*found))
            del lists
        return Order(*(np.concatenate(parts) for parts in zip(*orders, strict=True)))

    def _by_columns(self, wanted: int) -> Order:
        """Lazy greedy on whole columns, until lists are short, or MOST rows are taken."""
        bound = self._totals()
        stamp = np.zeros(len(bound), np.int64)
        rows: list[int] = []
        gains: list[float] = []
        parents: list[int] = []
        batch = 8 * BATCH if self._all else BATCH  # columns that are there cost little
        short = min(SHARE * len(bound) ** 2, self._allowed) if self._all else self._allowed
        while len(rows) < wanted:
            best = int(bound.argmax())
            if stamp[best] == len(rows):
                self._fetch(np.array([best]))
                rows.append(best)
                gains.append(bound[best])
                parents.append(int(self._owner[best]))
                _raise_cover(self._columns[self._slot[best]], best, self._cover, self._owner)
                bound[best] = -np.inf
                pairs = self._pairs(MARGIN) if len(rows).bit_count() == 1 else np.inf
                if len(rows) == MOST or pairs <= short or self._fetched > FETCHED * len(bound):
                    break
                continue
            stale = np.argpartition(-bound, min(batch, len(bound) - 1))[:batch]
            stale = np.union1d(stale[(stamp[stale] < len(rows)) & (bound[stale] > -np.inf)], [best])
            self._fetch(stale)
            bound[stale] = _gains(self._columns, self._slot[stale], self._weight, self._cover)
            stamp[stale] = len(rows)
        return Order(np.array(rows, np.int64), np.array(gains), np.array(parents, np.int64))

    def _totals(self) -> np.ndarray:
        """What each row would add as the first one, float64 `(n,)`; each pair is looked at once."""
        n = len(self._unit)
        totals = np.zeros(n)
        if self._all:
            return _gains(self._columns, np.arange(n), self._weight, self._cover)
        for here, there, block in self._squares():
            _add_sums(block, self._weight[there], totals[here])
            if here != there:
                _add_sums(block.T, self._weight[here], totals[there])
        return totals

    def _squares(self) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Similarities in squares on and above the diagonal: those below are the same."""
        n = len(self._unit)
        for at in range(0, n, SIDE):
            for beside in range(at, n, SIDE):
                here, there = slice(at, at + SIDE), slice(beside, beside + SIDE)
                yield here, there, self._unit[here] @ self._unit[there].T

    def _blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Similarities of some rows with all, block by block, with the index of the first."""
        n = len(self._unit)
        size = n if self._all else max(64, min(1024, self._memory // (16 * n)))
        for at in range(0, n, size):
            some = slice(at, at + size)
            yield at, self._columns[some] if self._all else self._unit[some] @ self._unit.T

    def _fetch(self, rows: np.ndarray) -> None:
        """Have the columns of these rows in memory; where there is no place, all others are given up."""
        missing = rows[self._slot[rows] < 0]
        if self._used + len(missing) > len(self._columns):
            self._slot[:], self._used, missing = -1, 0, rows
        if len(missing):
            self._slot[missing] = self._used + np.arange(len(missing))
            np.matmul(self._unit[missing], self._unit.T, out=self._columns[self._used : self._used + len(missing)])
            self._used += len(missing)
            self._fetched += len(missing)

    def _lists(self, left: np.ndarray, margin: float) -> Lists:
        """For every row that is left (bool `(n,)`) the rows that it would cover better by more than the margin."""
        bar = self._cover + np.float32(margin)
        if not self._all:
            self._columns = np.empty((0, 0), np.float32)  # room for the lists
        starts, rows, similarities = [np.zeros(1, np.int64)], [], []
        for at, block in self._blocks():
            counts = _count(block, bar, left[at : at + len(block)])
            row, similarity = _fill(block, bar, counts)
            starts.append(counts)
            rows.append(row)
            similarities.append(similarity)
        start = np.cumsum(np.concatenate(starts))
        if self._all:
            return Lists(start, *rows, *similarities)
        row = np.concatenate(rows)
        del rows
        return Lists(start, row, np.concatenate(similarities))

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


def _products(unit: np.ndarray) -> np.ndarray:
    """All similarities, each computed once; numpy's `unit @ unit.T` takes longer to mirror than to compute them."""
    products = np.empty((len(unit), len(unit)), np.float32)  # numpy asks for huge pages, SciPy does not
    if len(unit):
        ssyrk(1.0, unit.T, trans=1, lower=1, c=products.T, overwrite_c=1)
    _mirror(products)
    return products


@njit(cache=True)
def _mirror(square: np.ndarray) -> None:
    """Copy what is above the diagonal below it, in tiles that fit the cache."""
    n, side = len(square), 64
    for top in range(0, n, side):
        for left in range(top, n, side):
            for i in range(top, min(top + side, n)):
                for j in range(max(left, i + 1), min(left + side, n)):
                    square[j, i] = square[i, j]


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
            total += float(part)
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
