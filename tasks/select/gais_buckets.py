"""Which rows of GAIS-style (reconstructed) selection are in memory together.

Distance graphs take any rows: these go by their coin. Hashed graphs want the rows of one hash bucket together: the
coarsest buckets of the first view are packed into ours by how many rows of the sample they hold; one that is too large
is divided by coin, which costs little, since its rows have a bounded number of neighbours anyway.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from configs.methods.diversity import GaisGraph
from tasks.select.gais_graphs import hash_views

State = dict[str, Any]


def plan(sample: np.ndarray, center: np.ndarray, graph: GaisGraph, seed: int, rows: tuple[int, int]) -> State:
    """How rows are dealt: `buckets`, and for hashed graphs the keys seen, their first bucket and how many they have.

    Args:
        sample: float32 `(s, d)`, scaled.
        rows: Rows in all, and rows a bucket.
    """
    count, size = rows
    buckets = max(1, -(-count // size))
    if not graph.hashed or buckets == 1 or not len(sample):
        return {"buckets": np.int64(buckets)}
    keys, seen = np.unique(coarse_keys(sample, center, graph, seed), return_counts=True)
    expected = seen * (count / len(sample))
    parts = np.maximum(1, np.ceil(expected / size)).astype(np.int64)
    first, at, room = np.zeros(len(keys), np.int64), 0, float(size)
    for place in range(len(keys)):  # neighbouring keys share their first bits: they are alike
        if parts[place] > 1 or expected[place] > room:
            at, room = at + (room < size), float(size)
        first[place] = at
        at, room = (at + int(parts[place]), float(size)) if parts[place] > 1 else (at, room - expected[place])
    return {"buckets": np.int64(at + (room < size)), "keys": keys, "first": first, "parts": parts}


def bucket_of(state: State, coins: np.ndarray, keys: np.ndarray | None) -> np.ndarray:
    """Bucket of every row, int64 `(n,)`. A hash bucket that the sample has not seen goes whole, by its key.

    Args:
        coins: float64 `(n,)` in [0, 1).
        keys: uint64 `(n,)` of `coarse_keys`, where `state` has keys.
    """
    if keys is None:
        return (coins * int(state["buckets"])).astype(np.int64)
    place = np.minimum(np.searchsorted(state["keys"], keys), len(state["keys"]) - 1)
    packed = state["first"][place] + (coins * state["parts"][place]).astype(np.int64)
    return np.where(state["keys"][place] == keys, packed, (keys % np.uint64(state["buckets"])).astype(np.int64))


def coarse_keys(x: np.ndarray, center: np.ndarray, graph: GaisGraph, seed: int) -> np.ndarray:
    """Keys of the coarsest level of the first view, uint64 `(n,)`."""
    first = graph.model_copy(update={"views": 1, "tables": 1})
    return hash_views(x, center, first, seed)[0] >> np.uint64(graph.levels[0] - graph.levels[-1])


def shared_batches(batches: int, buckets: int, bucket: int) -> int:
    """How many of `batches` fall to a bucket: over all `buckets` exactly as many, so that work does not grow."""
    return (bucket + 1) * batches // buckets - bucket * batches // buckets
