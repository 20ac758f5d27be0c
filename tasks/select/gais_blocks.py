"""Blocks of rows for GAIS-style (reconstructed) graphs: no edge leaves its block."""

from __future__ import annotations

import numpy as np

from configs.methods.diversity import GaisGraph


def blocks(y: np.ndarray, graph: GaisGraph, seed: int) -> list[np.ndarray]:
    """Rows of each block, int64, for the kind of `graph`; hashed kinds have one block of all rows."""
    if graph.kind == "chunks":
        return chunks(len(y), graph.batch_rows, graph.overlap, seed)
    if graph.kind == "mini_batch":
        if graph.mode == "sample":
            return sample(y, graph.batch_rows, graph.batches, seed)
        return cover(y, graph.batch_rows, seed)
    return [np.arange(len(y))]


def cover(y: np.ndarray, batch_rows: int, seed: int) -> list[np.ndarray]:
    """All rows, dealt to ceil(n / batch_rows) batches; sizes and class counts of two batches differ by one at most."""
    rng = np.random.default_rng(seed)
    dealt = np.concatenate([rng.permutation(np.flatnonzero(y == c)) for c in np.unique(y)] or [np.zeros(0, np.int64)])
    count = -(-len(y) // batch_rows)
    return [np.sort(dealt[batch::count]) for batch in range(count)]


def sample(y: np.ndarray, batch_rows: int, batches: int, seed: int) -> list[np.ndarray]:
    """`batches` stratified draws of min(n, batch_rows) rows each, without replacement inside a batch."""
    rng = np.random.default_rng(seed)
    classes, counts = np.unique(y, return_counts=True)
    quotas = class_quotas(counts, min(len(y), batch_rows))
    members = [np.flatnonzero(y == c) for c in classes]
    drawn = [[rng.choice(m, q, replace=False) for m, q in zip(members, quotas, strict=True)] for _ in range(batches)]
    return [np.sort(np.concatenate(parts)) for parts in drawn if parts]


def class_quotas(counts: np.ndarray, rows: int) -> np.ndarray:
    """`rows` (at most the sum of `counts`) shared out by `counts`, int64: largest remainder, ties to the lower."""
    whole, rest = np.divmod(np.asarray(counts, np.int64) * rows, max(1, int(np.sum(counts))))
    # Never more than a class has: a remainder is 0 where the quota is the whole class.
    whole[np.argsort(-rest, kind="stable")[: rows - int(whole.sum())]] += 1
    return whole


def chunks(n: int, window: int, overlap: int, seed: int) -> list[np.ndarray]:
    """Windows over the shuffled rows, each sharing `overlap` rows with the one before it; the last is cut at n."""
    order = np.random.default_rng(seed).permutation(n)
    count = -(-(n - overlap) // (window - overlap)) if n > window else min(1, n)
    return [np.sort(order[start : start + window]) for start in range(0, count * (window - overlap), window - overlap)]


def held_out(y: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A stratified part of the rows, bool `(n,)`: round(share * n_c) of each class, but never all of it."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(len(y), bool)
    for c in np.unique(y):
        members = np.flatnonzero(y == c)
        mask[rng.permutation(members)[: min(len(members) - 1, round(share * len(members)))]] = True
    return mask
