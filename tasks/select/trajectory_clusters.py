"""Clusters of loss trajectories: faiss k-means on centred numbers, and the nearest centre of each row by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from configs.errors import ColumnError
from storage.packed import unpack
from tasks.select.cells import kmeans
from tasks.select.directions import distinct_rows

POINTS_PER_CLUSTER = 256
"""What faiss trains on at most, a centroid; the released code leaves it at that."""
SCORED = "trajectory"
"""The column that a proxy makes: packed float32. Any other is a column of lists."""


def centres_of(points: np.ndarray, clusters: int, *, iterations: int = 20, seed: int = 0) -> np.ndarray:
    """Euclidean k-means centres, float64 `(k, T)`; k is `clusters`, or the number of distinct points if that is less.

    Points are centred and scaled first, which changes no partition: so a large common offset costs no precision.

    Args:
        points: float32 `(n, T)`, finite, n >= 1.
        clusters: k, 1 or more.
        iterations: Of Lloyd's algorithm.
        seed: Of faiss: which points centres begin at, and which are trained on where there are more than 256 k.
    """
    first, _ = distinct_rows(points)
    if len(first) <= clusters:  # faiss would refuse fewer points than centres, and leave clusters empty
        return points[first].astype(np.float64)
    mean = points.mean(axis=0, dtype=np.float64)
    moved = points - mean
    scale = float(np.abs(moved).max()) or 1.0
    found = kmeans((moved / scale).astype(np.float32), clusters, seed, niter=iterations)
    return found.astype(np.float64) * scale + mean


def assigned(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre of every row, int64 `(n,)`, the lowest index on ties, and the distance, float32 `(n,)`.

    Exact, in float64, and of no other row: equal rows have equal answers, wherever they are.

    Args:
        points: float32 `(n, T)`, finite.
        centres: float64 `(k, T)`, k >= 1.
    """
    cluster, square = _nearest(np.ascontiguousarray(points), np.ascontiguousarray(centres.T))
    return cluster, np.sqrt(square).astype(np.float32)


@njit(cache=True, nogil=True)
def _nearest(points: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n, width, count = len(points), columns.shape[0], columns.shape[1]
    cluster, least = np.zeros(n, np.int64), np.zeros(n, np.float64)
    square = np.empty(count, np.float64)
    for row in range(n):
        square[:] = 0.0
        for t in range(width):
            value = np.float64(points[row, t])
            for c in range(count):
                away = value - columns[t, c]
                square[c] += away * away
        best = 0
        for c in range(1, count):
            if square[c] < square[best]:
                best = c
        cluster[row], least[row] = best, square[best]
    return cluster, least


def trajectories_of(column: pa.ChunkedArray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Trajectories of a column, float32 `(n, T)`, and which rows have one with finite numbers alone, bool `(n,)`.

    T is 0 if no row has one.

    Raises:
        ColumnError: The column holds no lists of numbers, or lists of different lengths.
    """
    check_type(column.type, name)
    if name == SCORED and pa.types.is_fixed_size_binary(column.type):
        found = unpack(column, "<f4")
        return found, column.is_valid().to_numpy() & np.isfinite(found).all(axis=1)
    null = column.is_null().to_numpy()
    lengths = np.where(null, 0, pc.fill_null(pc.list_value_length(column), 0).to_numpy())
    rows = np.flatnonzero(lengths)
    width = int(lengths[rows[0]]) if len(rows) else 0
    if len(other := rows[lengths[rows] != width]):
        raise ColumnError(
            f"`{name}` has {lengths[other[0]]} numbers in row {other[0]} of those looked at, and {width} in row "
            f"{rows[0]}; trajectories have one length"
        )
    values = np.zeros((len(column), width), np.float32)
    if width:
        flat = np.concatenate([chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks])
        with np.errstate(over="ignore"):  # what is too large for float32 is infinite, and no trajectory
            values[rows] = flat.reshape(-1, width)
    return values, (lengths > 0) & np.isfinite(values).all(axis=1)


def check_type(kind: Any, name: str) -> None:
    """Raise ColumnError if a column of this type holds no trajectories."""
    if name == SCORED and pa.types.is_fixed_size_binary(kind) and kind.byte_width % 4 == 0:
        return
    lists = (pa.types.is_list(kind), pa.types.is_large_list(kind), pa.types.is_fixed_size_list(kind))
    if not any(lists) or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise ColumnError(f"`column` names {name!r}, which is {kind}; trajectories are lists of numbers")
