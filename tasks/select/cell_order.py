"""Selects that put the rows of each k-means cell in an order, best first, of which a target keeps a part.

With no more rows than `bucket_rows` there is one cell; else each row counts in its own cell alone. What a row adds is
comparable over cells, so one cut through all of it is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import distributions
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from storage.states import Checkpoint, State
from tasks.embed.vectors import unpack
from tasks.select import Decisions, best_first, keep_all, keeper_needs
from tasks.select.directions import directions
from tasks.select.near_duplicates import centroids, divide, nearest

SAMPLES_PER_CELL = 64


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

    def order(self, vectors: np.ndarray) -> Order:
        """All rows of a cell, float32 `(n, D)`, in the order in which they are taken; ties to the lowest index."""
        raise NotImplementedError

    def depends_on(self) -> dict[str, Any]:
        """The version of faiss, whichever of its builds is installed."""
        return {"faiss": [d.version for d in distributions() if d.name in ("faiss-gpu", "faiss-cpu")]}

    def summarise(self, rows: pa.Table) -> pa.Table:
        """An evenly spaced sample for the cells, and how many rows it stands for."""
        wanted = max(1, -(-rows.num_rows * SAMPLES_PER_CELL // self._bucket_rows))
        picked = np.unique(np.linspace(0, max(0, rows.num_rows - 1), min(wanted, rows.num_rows)).astype(np.int64))
        count = np.zeros(len(picked), np.int64)
        count[:1] = rows.num_rows
        return rows.select([self._column]).take(pa.array(picked)).append_column("rows", pa.array(count))

    def fit(self, summaries: Iterable[pa.Table], checkpoint: Checkpoint) -> State:
        """`centroids: float32 (k, D)`; k = 1 where all rows fit one bucket."""
        tables = list(summaries)
        total = sum(int(table["rows"].to_numpy().sum()) for table in tables)
        sample = np.concatenate([directions(unpack(table[self._column])) for table in tables])
        return {"centroids": centroids(sample, -(-total // self._bucket_rows), self._seed)}

    def partition(self, rows: pa.Table, state: State) -> np.ndarray:
        """The nearest centroid of every row."""
        return nearest(directions(unpack(rows[self._column])), state["centroids"])

    def decide(self, rows: pa.Table, state: State) -> Decisions:
        """Rank the rows of one cell, the last taken first to go; a cell that is far too large is divided."""
        decisions = keep_all(rows.num_rows)
        rank = np.zeros((rows.num_rows, 2), np.float32)
        vectors = directions(unpack(rows[self._column]))
        for cell in divide(vectors, best_first(rows, self._keep_by), self._bucket_rows, self._seed):
            taken = self.order(vectors[cell])
            place = cell[taken.rows]
            # Gains may tie as float32: the second column keeps the order within the cell.
            rank[place] = np.column_stack((-taken.gain, np.arange(len(cell))))
            decisions.score[place] = taken.gain
            decisions.keeper[place] = np.where(taken.parent >= 0, cell[taken.parent], -1)
        decisions.reason[:] = self.reason
        return decisions._replace(rank=rank)
