"""Selects that put the rows of each k-means cell in an order, best first, of which a target keeps a part.

With no more rows than `bucket_rows` there is one cell; else each row counts in its own cell alone. What a row adds is
comparable over cells, so one cut through all of it is made. Equal rows are one row with a weight: the copies add
nothing. Neither do rows without a direction (zero, or not finite). Both are the first to go.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from storage.states import Checkpoint, State
from tasks.select import Decisions, best_first, cells, keep_all, keeper_needs
from tasks.select.cells import Vectors, divide, nearest


class Order(NamedTuple):
    """Rows in the order in which they are taken."""

    rows: np.ndarray
    """int64 `(k,)`"""
    gain: np.ndarray
    """float64 `(k,)`: what each adds when it is taken; never increasing."""
    parent: np.ndarray
    """int64 `(k,)`: of the rows taken before it, the most similar one; -1 if none is similar at all."""


class CellOrder:
    """Partitioned by k-means cell; a kind says in which order the rows of one cell are taken."""

    ranked = True
    reason: ClassVar[str]

    def __init__(self, config: Any, *, seed: int) -> None:
        self._column = f"{config.embedding}_embedding"
        self._keep_by = config.keep_by
        self._bucket_rows: int = config.bucket_rows
        self._seed = seed
        self.needs: tuple[str, ...] = (self._column, *keeper_needs(config.keep_by))

    def order(self, vectors: np.ndarray, weight: np.ndarray) -> Order:
        """All rows of a cell in the order in which they are taken; ties to the lowest index.

        Args:
            vectors: float32 `(n, D)`, none of them zero.
            weight: float32 `(n,)`: how many rows each stands for.
        """
        raise NotImplementedError

    def depends_on(self) -> dict[str, Any]:
        """What the cells depend on."""
        return cells.faiss_version()

    def summarise(self, rows: pa.Table) -> pa.Table:
        """See `cells.sampled`."""
        return cells.sampled(rows, [self._column], self._bucket_rows)

    def fit(self, summaries: Iterable[pa.Table], checkpoint: Checkpoint) -> State:
        """See `cells.fitted`."""
        return cells.fitted(summaries, [self._column], self._bucket_rows, self._seed)

    def partition(self, rows: pa.Table, state: State) -> np.ndarray:
        """The nearest centroid of every row."""
        return nearest(Vectors([rows[self._column]]), np.arange(rows.num_rows), state["centroids"])

    def decide(self, rows: pa.Table, state: State) -> Decisions:
        """Rank the rows of one cell, the last taken first to go; a cell that is far too large is divided."""
        n = rows.num_rows
        vectors, order = Vectors([rows[self._column]]), best_first(rows, self._keep_by)
        first = vectors.firsts(order)
        # Gains may tie as float32: the second column of the rank keeps the order within the cell.
        gain, place, keeper = np.zeros(n), np.full(n, n), first.copy()
        weight = np.bincount(first[first >= 0], minlength=n).astype(np.float32)
        parts, forced = divide(vectors, order[first[order] == order], self._bucket_rows, self._seed)
        for part in parts:
            taken = self.order(vectors.joint(part), weight[part])
            at = part[taken.rows]
            gain[at], place[at] = taken.gain, np.arange(len(at))
            keeper[at] = np.where(taken.parent >= 0, part[taken.parent], -1)
        counts = {"no_direction": int(np.sum(first < 0)), "cut_cells": forced}
        decisions = keep_all(n)
        decisions.reason[:] = np.where(first < 0, "no_direction", self.reason)
        decisions.score[:] = gain
        decisions.keeper[:] = keeper
        rank = np.column_stack((-gain, place)).astype(np.float32)
        return decisions._replace(rank=rank, counts={name: count for name, count in counts.items() if count})

    def warnings(self, counts: dict[str, int]) -> list[str]:
        """See `cells.warnings`."""
        return cells.warnings(counts, unknown="represent nothing and go first", bucket_rows=self._bucket_rows)
