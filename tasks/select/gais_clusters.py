"""Clusters as classes, for rows without labels (GAIS-style, reconstructed): k-means by Euclidean distance."""

from __future__ import annotations

import numpy as np

from tasks.select.cells import kmeans

BLOCK = 8192


def centroids(x: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Centres of at most `clusters` clusters that hold rows, float32 `(k, d)`; deterministic for a seed.

    Args:
        x: float32 `(n, d)`, n >= 1.
    """
    distinct = np.unique(x, axis=0) if len(x) <= clusters else x
    if len(distinct) <= clusters:
        return distinct
    found = kmeans(x, clusters, seed, niter=20)
    return found[np.unique(nearest(x, found))]


def nearest(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The nearest centre of every row, int64 `(n,)`; the lowest on ties."""
    half = np.einsum("kd,kd->k", centres, centres) / 2
    found = np.zeros(len(x), np.int64)
    for at in range(0, len(x), BLOCK):
        found[at : at + BLOCK] = (half - x[at : at + BLOCK] @ centres.T).argmin(axis=1)
    return found
