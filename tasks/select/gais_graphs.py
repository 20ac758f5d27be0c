"""Graphs over rows for GAIS-style (reconstructed) selection: by distance inside a block, or by shared hash buckets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from configs.methods.diversity import GaisGraph
from tasks.select.gais_blocks import blocks
from tasks.select.hashing import bucket_edges, random_planes, sign_keys
from tasks.select.sorting import distinct

EXACT_DIMENSIONS = 32
"""Up to this many features distances are sums of differences; beyond, matrix products in float64."""

KEPT_ROWS = 1024
"""Up to this many rows the places of all pairs are kept for the next batch: 8 MiB; of 8,192 they would be 512 MiB."""


class Nodes(NamedTuple):
    """A graph whose nodes are rows; a row of several blocks has a node in each."""

    rows: np.ndarray
    """int64 `(N,)`: the row of every node."""
    edges: np.ndarray
    """int64 `(2, E)`: pairs of nodes in both directions, sorted, each once."""
    weights: np.ndarray
    """float32 `(E,)`"""


def row_graph(x: np.ndarray, y: np.ndarray, graph: GaisGraph, seed: int, center: np.ndarray | None = None) -> Nodes:
    """The graph of all blocks side by side.

    Args:
        x: float32 `(n, d)`, finite, scaled.
        y: int64 `(n,)`.
        center: float `(d,)`, the point that planes pass through; None: the mean of `x`.
    """
    middle = x.mean(axis=0, dtype=np.float64) if center is None and len(x) else center
    found = enumerate(blocks(y, graph, seed))
    parts = [_block_graph(x[rows], rows, graph, seed + place, middle) for place, rows in found if len(rows)]
    if not parts:
        return Nodes(np.zeros(0, np.int64), np.zeros((2, 0), np.int64), np.zeros(0, np.float32))
    starts = np.cumsum([0, *(len(part.rows) for part in parts[:-1])])
    return Nodes(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.edges + start for part, start in zip(parts, starts, strict=True)], axis=1),
        np.concatenate([part.weights for part in parts]),
    )


def _block_graph(x: np.ndarray, rows: np.ndarray, graph: GaisGraph, seed: int, center: Any) -> Nodes:
    if graph.hashed:
        pairs, weights = shared_pairs(hash_views(x, center, graph, seed), graph, seed)
    elif graph.kind == "none":
        pairs, weights = np.zeros((2, 0), np.int64), np.zeros(0, np.float32)
    else:
        drop = graph.random_threshold if graph.kind == "chunks" else 0.0
        pairs = similar_pairs(similarity(x, graph.metric), graph.similarity_threshold, graph.include_diagonal)
        pairs = pairs[:, np.random.default_rng(seed).random(pairs.shape[1]) >= drop]
        weights = np.ones(pairs.shape[1], np.float32)
    return Nodes(rows, *both_directions(pairs, weights))


def both_directions(pairs: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs i <= j as edges int64 `(2, E)` sorted by (source, target), self pairs once, and their weights `(E,)`."""
    proper = pairs[0] != pairs[1]
    edges = np.concatenate((pairs, pairs[::-1, proper]), axis=1)
    order = np.argsort(edges[0] * (1 + np.max(edges, initial=0)) + edges[1], kind="stable")
    return edges[:, order], np.concatenate((weights, weights[proper]))[order]


def similarity(x: np.ndarray, metric: str) -> np.ndarray:
    """Similarity of all pairs of rows, float32 `(n, n)`: 1 / (1 + distance), or the cosine; 0 with a row of zeros.

    Args:
        metric: `euclidean`, `manhattan` or `cosine`.
    """
    from scipy.spatial.distance import cdist

    x = np.asarray(x, np.float64)
    if metric == "cosine":
        unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300)
        return (unit @ unit.T).astype(np.float32)
    if metric == "manhattan" or x.shape[1] <= EXACT_DIMENSIONS:
        return (1 / (1 + cdist(x, x, "cityblock" if metric == "manhattan" else "euclidean"))).astype(np.float32)
    x = x - x.mean(axis=0)  # near the origin less is cancelled
    squares = np.einsum("nd,nd->n", x, x)
    distance = np.sqrt(np.maximum(squares[:, None] + squares - 2 * (x @ x.T), 0))
    # In float32 equal rows are equally alike again: what float64 products leave between them is below 1e-7.
    return (1 / (1 + distance)).astype(np.float32)


def similar_pairs(similar: np.ndarray, threshold: float, include_diagonal: bool = False) -> np.ndarray:
    """Pairs i < j above the cut, the `threshold` quantile of all pairs: int64 `(2, E)`. Equally alike pairs: none.

    Args:
        similar: `(n, n)`, symmetric.
        include_diagonal: Take the quantile over the whole matrix and let a row be joined to itself (i <= j).
    """
    if len(similar) < 2 and not (include_diagonal and len(similar)):
        return np.zeros((2, 0), np.int64)
    places = _kept_places if len(similar) <= KEPT_ROWS else np.triu_indices
    first, second = places(len(similar), 0 if include_diagonal else 1)
    values = similar[first, second]
    cut = np.quantile(similar if include_diagonal else values, threshold)
    above = values > cut
    return np.stack((first[above], second[above]))


@lru_cache(maxsize=4)
def _kept_places(n: int, diagonal: int) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(n, diagonal)


def hash_views(x: np.ndarray, center: np.ndarray, graph: GaisGraph, seed: int) -> list[np.ndarray]:
    """Keys of the finest level in every table or view: list of uint64 `(n,)`.

    Level q of a view has the first `graph.levels[q]` of its planes: the first so many bits of the key.
    """
    dim, finest = x.shape[1], graph.levels[0]
    keys = []
    for view in range(_views(graph)):
        columns = np.arange(dim)
        if graph.kind == "multi_view":
            size = max(1, int(np.ceil(round(graph.view_features * dim, 9))))
            columns = np.sort(np.random.default_rng([seed, view, 1]).permutation(dim)[:size])
        planes = random_planes(finest, len(columns), seed + view)
        keys.append(sign_keys(x[:, columns] if len(columns) < dim else x, planes, center[columns]))
    return keys


def _views(graph: GaisGraph) -> int:
    return {"single_level": graph.tables, "multi_view": graph.views}.get(graph.kind, 1)


def shared_pairs(views: Sequence[np.ndarray], graph: GaisGraph, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs i < j whose weight reaches the least, int64 `(2, E)` in order, and their weights, float32 `(E,)`.

    A_ij is the mean over views of sum_q w_q [same bucket at level q], w_q = bits_q / sum of bits; tables of a single
    level are united instead, with weight 1.

    Args:
        views: Keys of `graph.levels[0]` bits, uint64 `(n,)` each.
    """
    finest = graph.levels[0]
    weight = np.array(graph.levels) / sum(graph.levels)
    union = graph.kind == "single_level"
    # A pair of two rows that reaches the least in the mean reaches it in one view: there it shares the coarsest level
    # at which the levels from there on weigh enough.
    enough = np.cumsum(weight[::-1])[::-1] >= graph.agreement - 1e-9
    level = 0 if union else int(np.flatnonzero(enough)[-1])
    drop = np.uint64(finest - graph.levels[level])
    found = [bucket_edges(v >> drop, max_bucket=graph.max_bucket, seed=seed + i) for i, v in enumerate(views)]
    pairs = found[0]
    if len(found) > 1:
        n = len(views[0])
        pairs = np.stack(np.divmod(distinct(*(low * n + high for low, high in found)), n))
    if union:
        return pairs, np.ones(pairs.shape[1], np.float32)
    shared = np.zeros(pairs.shape[1])
    for keys in views:
        differ = keys[pairs[0]] ^ keys[pairs[1]]
        for bits, part in zip(graph.levels, weight, strict=True):
            shared += part * ((differ >> np.uint64(finest - bits)) == 0)
    shared /= len(views)
    kept = shared >= graph.agreement - 1e-9
    return pairs[:, kept], shared[kept].astype(np.float32)
