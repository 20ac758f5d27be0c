"""Cells: rows in groups that one comparison can hold, equal rows found first, vectors taken from where they lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import distributions
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit

from storage.states import State
from tasks.embed.vectors import unpack
from tasks.select.directions import directions

SLICE = 2048
"""Rows of float32 vectors in memory at once."""
SAMPLES_PER_CELL = 64
MOST_DEPTH = 8


class Vectors:
    """The vectors of a bucket where they are mapped or held: a row at a time may be taken, never all are copied.

    Args:
        columns: One or two columns of packed vectors, of equal length.
    """

    def __init__(self, columns: Sequence[pa.ChunkedArray]) -> None:
        self._columns = [_Column(column) for column in columns]
        self.rows = len(columns[0])

    def take(self, rows: np.ndarray) -> list[np.ndarray]:
        """The vectors of `rows`, any order: float16 `(len(rows), D)`, one array a column."""
        return [column.take(rows) for column in self._columns]

    def joint(self, rows: np.ndarray) -> np.ndarray:
        """The columns side by side, float32 `(len(rows), sum of D)`: what cells are made of."""
        return np.hstack([part.astype(np.float32) for part in self.take(rows)])

    def firsts(self, order: np.ndarray) -> np.ndarray:
        """Of every row the first row by `order` that is equal byte for byte, int64 `(n,)`; linear in the rows.

        -1 for a row without a direction: with a vector of zeros, or with a number that is not finite.
        """
        digest, sound = np.zeros(self.rows, np.uint64), np.ones(self.rows, bool)
        for column in self._columns:
            column.digest(digest, sound)
        _, first, group = np.unique(digest[order], return_index=True, return_inverse=True)
        result = np.empty(self.rows, np.int64)
        result[order] = order[first][group]
        later = np.flatnonzero(result != np.arange(self.rows))
        for at in range(0, len(later), SLICE):
            rows = later[at : at + SLICE]
            pairs = zip(self.take(rows), self.take(result[rows]), strict=True)
            equal = np.logical_and.reduce([(a.view(np.uint16) == b.view(np.uint16)).all(axis=1) for a, b in pairs])
            result[rows[~equal]] = rows[~equal]  # one digest for two vectors: such rows stand for themselves
        result[~sound] = -1
        return result


class _Column:
    def __init__(self, column: pa.ChunkedArray) -> None:
        self._chunks = [chunk for chunk in column.chunks if len(chunk)]
        self._ends = np.cumsum([len(chunk) for chunk in self._chunks])
        self._dim = column.type.byte_width // 2

    def take(self, rows: np.ndarray) -> np.ndarray:
        result = np.empty((len(rows), self._dim), "<f2")
        if not len(rows):
            return result
        order = np.argsort(rows, kind="stable")
        chunk_of = np.searchsorted(self._ends, rows[order], side="right")
        chunks, starts = np.unique(chunk_of, return_index=True)
        for chunk, at in zip(chunks.tolist(), np.split(order, starts[1:]), strict=True):
            array = self._chunks[chunk]
            result[at] = unpack(array)[rows[at] - (self._ends[chunk] - len(array))]
        return result

    def digest(self, digest: np.ndarray, sound: np.ndarray) -> None:
        for array, end in zip(self._chunks, self._ends.tolist(), strict=True):
            at = slice(end - len(array), end)
            _digest(unpack(array).view(np.uint16), digest[at], sound[at])


@njit(cache=True, nogil=True)
def _digest(halves: np.ndarray, digest: np.ndarray, sound: np.ndarray) -> None:
    for row in range(len(halves)):
        mixed, anything, finite = digest[row] ^ np.uint64(0x9E3779B97F4A7C15), False, True
        for d in range(halves.shape[1]):
            half = halves[row, d]
            anything |= (half & 0x7FFF) != 0
            finite &= (half & 0x7C00) != 0x7C00
            mixed = (mixed ^ np.uint64(half)) * np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(32)
        digest[row] = mixed
        sound[row] &= anything and finite


def faiss_version() -> dict[str, Any]:
    """What k-means depends on, for fingerprints: the version of faiss, whichever of its builds is installed."""
    return {"faiss": [d.version for d in distributions() if d.name in ("faiss-gpu", "faiss-cpu")]}


def sampled(rows: pa.Table, columns: Sequence[str], bucket_rows: int) -> pa.Table:
    """An evenly spaced sample of one shard for cells of about `bucket_rows`, and how many rows it stands for."""
    wanted = max(1, -(-rows.num_rows * SAMPLES_PER_CELL // bucket_rows))
    picked = np.unique(np.linspace(0, max(0, rows.num_rows - 1), min(wanted, rows.num_rows)).astype(np.int64))
    count = np.zeros(len(picked), np.int64)
    count[:1] = rows.num_rows
    return rows.select(columns).take(pa.array(picked)).append_column("rows", pa.array(count))


def fitted(samples: Iterable[pa.Table], columns: Sequence[str], bucket_rows: int, seed: int) -> State:
    """`centroids: float32 (k, sum of D)` of all shards' samples; k = 1 where all rows fit one bucket."""
    tables = list(samples)
    total = sum(int(table["rows"].to_numpy().sum()) for table in tables)
    parts = [np.concatenate([directions(unpack(table[name])) for table in tables]) for name in columns]
    known = np.logical_and.reduce([part.any(axis=1) for part in parts])
    return {"centroids": centroids(np.hstack(parts)[known], -(-total // bucket_rows), seed)}


def warnings(counts: Mapping[str, int], *, unknown: str, bucket_rows: int = 0, again: str = "") -> list[str]:
    """Rows that could not be compared, and cells that were cut arbitrarily.

    Args:
        counts: `no_direction` rows and `cut_cells`, as far as there are any.
        unknown: What becomes of rows without a direction.
        bucket_rows: Rows of a cell, about.
        again: What to do about cells that were cut.
    """
    told = []
    if rows := counts.get("no_direction"):
        told.append(f"{rows:,} rows {unknown}: their vectors are zero or not finite")
    if cells := counts.get("cut_cells"):
        told.append(
            f"{cells:,} cells of nearly equal rows were cut at {4 * bucket_rows:,} rows, since k-means could not "
            f"divide them{again}"
        )
    return told


def centroids(sample: np.ndarray, cells: int, seed: int) -> np.ndarray:
    """Spherical k-means centroids, float32 `(k, D)`, k <= cells; deterministic for a seed.

    Args:
        sample: float32 `(n, D)`, unit rows.
    """
    if cells <= 1 or len(sample) <= cells:
        return sample[:1] if len(sample) else np.zeros((1, 1), np.float32)
    return kmeans(sample, cells, seed, niter=10, spherical=True)


def kmeans(points: np.ndarray, clusters: int, seed: int, **options: Any) -> np.ndarray:
    """Centroids by faiss, float32 `(k, D)`, on one thread: so sums have one order, whatever the machine is doing."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        options |= {"seed": seed & 0x7FFFFFFF, "min_points_per_centroid": 1}
        fitted = faiss.Kmeans(points.shape[1], clusters, **options)
        fitted.train(np.ascontiguousarray(points, np.float32))
    finally:
        faiss.omp_set_num_threads(threads)
    return np.asarray(fitted.centroids, np.float32)


def nearest(vectors: Vectors, rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Index of the centroid with the largest dot product of each of `rows`, int64; the lowest index on ties."""
    result = np.zeros(len(rows), np.int64)
    if len(centres) > 1:
        for at in range(0, len(rows), SLICE):
            result[at : at + SLICE] = (vectors.joint(rows[at : at + SLICE]) @ centres.T).argmax(axis=1)
    return result


class Divided(NamedTuple):
    """Rows in parts."""

    parts: list[np.ndarray]
    """int64 each, in the order that was given."""
    forced: int
    """Cells cut at fixed numbers of rows, for k-means could not divide them."""


def divide(vectors: Vectors, order: np.ndarray, rows: int, seed: int, depth: int = 0) -> Divided:
    """`order` in cells of at most `4 * rows`, each keeping its order: k-means again, where a cell has more."""
    if len(order) <= 4 * rows:
        return Divided([order], 0)
    count = max(2, len(order) // rows)
    spread = order[np.linspace(0, len(order) - 1, min(len(order), SAMPLES_PER_CELL * count)).astype(np.int64)]
    cell = nearest(vectors, order, centroids(vectors.joint(spread), count, seed))
    sorted_by_cell = np.argsort(cell, kind="stable")
    starts = np.flatnonzero(np.diff(cell[sorted_by_cell])) + 1
    parts = np.split(order[sorted_by_cell], starts)
    if len(parts) == 1 or depth == MOST_DEPTH:
        return Divided(np.array_split(order, -(-len(order) // (4 * rows))), 1)
    found = [divide(vectors, part, rows, seed, depth + 1) for part in parts]
    return Divided([small for one in found for small in one.parts], sum(one.forced for one in found))
