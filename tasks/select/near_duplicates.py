"""Near duplicates: rows whose embeddings have a cosine of at least tau; one keeper a group.

Buckets are k-means cells (faiss, spherical, seeded), as in SemDeDup (arXiv 2303.09540): pairs are compared inside a
cell only, so a pair that a cell border divides is missed. With no more rows than `bucket_rows` there is one cell and
the result is exact. A group is what its keeper stands for: rows are visited from best to worst, a row that is still
free becomes a keeper and takes every free row within tau of it. So every dropped row is within tau of its keeper,
which a connected component would not promise.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import distributions
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit

from storage.states import Checkpoint, State
from tasks.embed.vectors import unpack
from tasks.select import Decisions, best_first, keep_all

SAMPLES_PER_CELL = 64
BLOCK = 2048


class NearDuplicates:
    """Partitioned by k-means cell; greedy from the best row down within a cell."""

    def __init__(self, config: Any, *, seed: int) -> None:
        self._column = f"{config.embedding}_embedding"
        self._threshold: float = config.threshold
        self._keep_by: str | None = config.keep_by
        self._bucket_rows: int = config.bucket_rows
        self._seed = seed
        self.needs: tuple[str, ...] = (self._column, *([config.keep_by] if config.keep_by else []))

    def depends_on(self) -> dict[str, Any]:
        """The version of faiss, whichever of its builds is installed."""
        return {"faiss": [d.version for d in distributions() if d.name in ("faiss-gpu", "faiss-cpu")]}

    def summarise(self, rows: pa.Table) -> pa.Table:
        """An evenly spaced sample for the cells, and how many rows it stands for."""
        wanted = max(1, -(-rows.num_rows * SAMPLES_PER_CELL // self._bucket_rows))
        picked = np.unique(np.linspace(0, max(0, rows.num_rows - 1), min(wanted, rows.num_rows)).astype(np.int64))
        sample = rows.select([self._column]).take(pa.array(picked))
        count = np.zeros(len(picked), np.int64)
        count[:1] = rows.num_rows
        return sample.append_column("rows", pa.array(count))

    def fit(self, summaries: Iterable[pa.Table], checkpoint: Checkpoint) -> State:
        """`centroids: float32 (k, D)`; k = 1 where all rows fit one bucket."""
        tables = list(summaries)
        total = sum(int(table["rows"].to_numpy().sum()) for table in tables)
        cells = max(1, -(-total // self._bucket_rows))
        sample = np.concatenate([unpack(table[self._column]).astype(np.float32) for table in tables])
        return {"centroids": centroids(sample, cells, self._seed)}

    def partition(self, rows: pa.Table, state: State) -> np.ndarray:
        """The nearest centroid of every row."""
        return nearest(unpack(rows[self._column]), state["centroids"])

    def decide(self, rows: pa.Table, state: State) -> Decisions:
        """Keep the keepers of one cell; a cell that is far too large is divided first, by the same rule."""
        decisions = keep_all(rows.num_rows)
        vectors = unpack(rows[self._column])
        order = best_first(rows, self._keep_by)
        for cell in divide(vectors, order, self._bucket_rows, self._seed):
            keeper, cosine = greedy_groups(vectors[cell], self._threshold)
            dropped = keeper != np.arange(len(cell))
            decisions.keep[cell] = ~dropped
            decisions.reason[cell[dropped]] = "near_duplicate"
            decisions.score[cell[dropped]] = cosine[dropped]
            decisions.keeper[cell[dropped]] = cell[keeper[dropped]]
        return decisions


def centroids(sample: np.ndarray, cells: int, seed: int) -> np.ndarray:
    """Spherical k-means centroids, float32 `(k, D)`, k <= cells; deterministic for a seed.

    Args:
        sample: float32 `(n, D)`, unit rows.
    """
    if cells <= 1 or len(sample) <= cells:
        return sample[:1] if len(sample) else np.zeros((1, 1), np.float32)
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # sums in one order, whatever the machine is doing
    try:
        options = {"niter": 10, "seed": seed & 0x7FFFFFFF, "spherical": True, "min_points_per_centroid": 1}
        kmeans = faiss.Kmeans(sample.shape[1], cells, **options)
        kmeans.train(np.ascontiguousarray(sample, np.float32))
    finally:
        faiss.omp_set_num_threads(threads)
    return np.asarray(kmeans.centroids, np.float32)


def nearest(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Index of the centroid with the largest dot product, int64 `(n,)`; the lowest index on ties."""
    result = np.zeros(len(vectors), np.int64)
    if len(centres) > 1:
        for at in range(0, len(vectors), BLOCK):
            result[at : at + BLOCK] = (vectors[at : at + BLOCK].astype(np.float32) @ centres.T).argmax(axis=1)
    return result


def divide(vectors: np.ndarray, order: np.ndarray, rows: int, seed: int) -> list[np.ndarray]:
    """`order` in cells of at most about `4 * rows`, each keeping its order; equal vectors stay together.

    A cell of equal vectors cannot be divided and need not be: grouping it is linear.
    """
    if len(order) <= 4 * rows:
        return [order]
    inside = vectors[order]
    spread = np.linspace(0, len(order) - 1, 64 * max(2, len(order) // rows)).astype(np.int64)
    cell = nearest(inside, centroids(inside[spread].astype(np.float32), max(2, len(order) // rows), seed))
    parts = [order[cell == i] for i in np.unique(cell)]
    if len(parts) == 1:
        return parts
    return [small for part in parts for small in divide(vectors, part, rows, seed)]


def greedy_groups(vectors: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Keeper of every row, int64 `(n,)`, and the cosine with it, float32 `(n,)`. Rows come best first.

    Row i is a keeper unless an earlier keeper is within the threshold; then it belongs to the earliest such keeper.
    Byte-equal rows are grouped first, so a million copies cost one comparison each.

    Args:
        vectors: float16 `(n, D)`, unit rows.
        threshold: Cosine in (0, 1].
    """
    whole = np.ascontiguousarray(vectors).view(np.dtype((np.void, vectors.itemsize * vectors.shape[1]))).ravel()
    _, first, group = np.unique(whole, return_index=True, return_inverse=True)
    distinct = np.sort(first)
    unit = vectors[distinct].astype(np.float32)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    keeper = np.full(len(distinct), -1, np.int64)
    cosine = np.ones(len(distinct), np.float32)
    # Two ulps of a float32 dot product: a pair exactly at the threshold must not depend on rounding.
    cut = float(np.float32(threshold - 1e-6))
    free = np.arange(len(distinct))
    while len(free):
        block, free = free[:BLOCK], free[BLOCK:]
        _claim_inside(unit[block] @ unit[block].T, cut, block, keeper, cosine)
        heads = block[keeper[block] == block]
        for at in range(0, len(free), BLOCK):
            rest = free[at : at + BLOCK]
            _claim_across(unit[heads] @ unit[rest].T, cut, heads, rest, keeper, cosine)
        free = free[keeper[free] < 0]
    position = np.searchsorted(distinct, first)[group.ravel()]
    return distinct[keeper[position]], cosine[position]


@njit(cache=True)
def _claim_inside(
    similarity: np.ndarray, cut: float, block: np.ndarray, keeper: np.ndarray, cosine: np.ndarray
) -> None:
    for i in range(len(block)):
        if keeper[block[i]] >= 0:
            continue
        keeper[block[i]] = block[i]
        for j in range(i + 1, len(block)):
            if keeper[block[j]] < 0 and similarity[i, j] >= cut:
                keeper[block[j]] = block[i]
                cosine[block[j]] = similarity[i, j]


@njit(cache=True)
def _claim_across(
    similarity: np.ndarray, cut: float, heads: np.ndarray, rest: np.ndarray, keeper: np.ndarray, cosine: np.ndarray
) -> None:
    for i in range(len(heads)):
        for j in range(len(rest)):
            if keeper[rest[j]] < 0 and similarity[i, j] >= cut:
                keeper[rest[j]] = heads[i]
                cosine[rest[j]] = similarity[i, j]
