"""Cluster-balanced sampling: equal shares for the clusters of a hierarchy, from the top down.

After Vo et al. 2024, "Automatic data curation for self-supervised learning: a clustering-based approach" (arXiv
2405.15613): k-means of the rows, k-means of its centroids, and so on; then a budget is shared evenly among the clusters
of the highest level, each share among the clusters below, and what a cluster cannot fill goes to its siblings. Each
level is clustered again (`resampling`) on as many points nearest to each centroid, which evens out the centroids'
density.

Reconstructed from the paper's description, and different in: cosines instead of Euclidean distances; clusters fitted on
a sample, of which the finest has at most 64 points each, all together 2^18, and of many rows about a quarter; half of
an average cluster taken when resampling; each round clustering the points from scratch; the remainders of shares going
to the lowest cluster numbers. Rows without a direction are in no cluster and fill what is left of a target.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.exchange import ROW
from storage.states import Checkpoint, State
from tasks.embed.vectors import unpack
from tasks.select import Decisions, cells, keep_all
from tasks.select.cells import centroids
from tasks.select.coins import coins, uid_halves
from tasks.select.directions import directions

POINTS_PER_CLUSTER = 64
"""Of the sample, for the finest level."""
MOST_POINTS = 1 << 18
"""Of the sample, whatever the clusters: they are in memory at once."""
SHARD_ROWS = 4096
"""A shard sends that many rows of the sample at most, or a quarter of its own: they are written a second time."""
LEAST_POINTS = 3
"""Points for a cluster: of fewer points there are fewer clusters."""
BITS = 15
"""Of a cluster's number on one level, in the code of a leaf."""
NOWHERE = -1
"""The group of rows without a direction."""
SLICE = 8192


class ClusterBalanced:
    """Quotas by leaf, the finest clusters; decided shard by shard, for a row's rank is its own affair."""

    ranked = True

    def __init__(self, config: Any, *, seed: int) -> None:
        self._column = f"{config.embedding}_embedding"
        self._clusters: tuple[int, ...] = tuple(config.clusters)
        self._wanted = min(MOST_POINTS, POINTS_PER_CLUSTER * self._clusters[0])
        self._resampling: int = config.resampling
        self._within: str = config.within
        words = np.random.SeedSequence([seed, config.draw]).generate_state(5, np.uint64)
        self._keys, self._sampling, self._seed = words[:2], words[2:4], int(words[4])
        self.needs: tuple[str, ...] = (self._column, "uid")

    def depends_on(self) -> dict[str, Any]:
        """What the clusters depend on."""
        return cells.faiss_version()

    def summarise(self, rows: pa.Table) -> pa.Table:
        """The rows with the lowest coins, and `bar`: up to which coin all of the shard's rows are among them."""
        coin = coins(uid_halves(rows["uid"]), rows["row"].to_numpy(), self._sampling)
        most = min(self._wanted, max(SHARD_ROWS, rows.num_rows // 4))
        sent = self._lowest(rows.append_column("coin", pa.array(coin)), most)
        bar = sent["coin"][-1].as_py() if rows.num_rows > most else 1.0
        return sent.append_column("bar", pa.array(np.full(sent.num_rows, bar)))

    def fit(self, summaries: Iterable[pa.Table], checkpoint: Checkpoint) -> State:
        """`centroids: float32 (k, D)` of the leaves and `code: int64 (k,)`, the numbers of a leaf and those above.

        The sample is the rows of all shards with the lowest coins, as far up as every shard has sent all: an even one,
        whatever the order of the shards.
        """
        sample, bar = None, 1.0
        for table in summaries:
            bar = min(bar, *table["bar"].slice(0, 1).to_pylist(), 1.0)
            sent = table.drop_columns("bar")
            together = sent if sample is None else pa.concat_tables([sample, sent])
            sample = self._lowest(together.filter(pc.less_equal(together["coin"], bar)), self._wanted)
        if sample is None or sample.num_rows == 0:
            return {"centroids": np.zeros((1, 1), np.float32), "code": np.zeros(1, np.int64)}
        points = directions(unpack(sample[self._column]))
        levels = hierarchy(points[points.any(axis=1)], self._clusters, self._resampling, self._seed)
        return {"centroids": levels[0], "code": codes(levels)}

    def decide(self, rows: pa.Table, state: State) -> Decisions:
        """Group each row by its leaf, and rank it there; rows without a direction are in no leaf and go first."""
        decisions = keep_all(rows.num_rows)
        vectors = unpack(rows[self._column])
        known = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
        leaf, cosine = assigned(vectors, state["centroids"])
        rank = cosine if self._within == "outer" else -cosine
        if self._within == "random":
            rank = coins(uid_halves(rows["uid"]), rows[ROW].to_numpy(), self._keys).astype(np.float32)
        decisions.reason[:] = np.where(known, "cluster_full", "no_direction")
        decisions.score[:] = cosine
        group = np.where(known, state["code"][leaf], NOWHERE)
        counts = {} if known.all() else {"no_direction": int(np.sum(~known))}
        return decisions._replace(rank=np.where(known, rank, np.float32(np.inf)), group=group, counts=counts)

    def quotas(self, groups: np.ndarray, rows: np.ndarray, wanted: int | None) -> np.ndarray:
        """Rows of each leaf: see `shared`; of rows without a direction what is still wanted then."""
        if wanted is None:
            return rows.copy()
        leaf = groups != NOWHERE
        quota = np.zeros_like(rows)
        quota[leaf] = shared(groups[leaf], rows[leaf], wanted, len(self._clusters))
        quota[~leaf] = np.minimum(rows[~leaf], wanted - int(quota.sum()))
        return quota

    def warnings(self, counts: dict[str, int]) -> list[str]:
        """See `cells.warnings`."""
        return cells.warnings(counts, unknown="are in no cluster and go first")

    def group_names(self, groups: np.ndarray, state: State) -> list[str]:
        """Numbers from the highest level down: `3/41/977`."""
        levels = range(len(self._clusters) - 1, -1, -1)
        digits = [(groups >> (BITS * level)) & ((1 << BITS) - 1) for level in levels]
        paths = ["/".join(map(str, path)) for path in zip(*digits, strict=True)]
        return ["no direction" if code == NOWHERE else path for code, path in zip(groups.tolist(), paths, strict=True)]

    def _lowest(self, rows: pa.Table, most: int) -> pa.Table:
        picked = pc.array_sort_indices(rows["coin"].combine_chunks())[:most]
        return rows.select([self._column, "coin"]).take(picked)


def hierarchy(points: np.ndarray, clusters: tuple[int, ...], resampling: int, seed: int) -> list[np.ndarray]:
    """Centroids of every level, the finest first: float32 `(k, D)` unit rows each; one zero row if there is no point.

    Args:
        points: float32 `(n, D)`, unit rows, sampled evenly.
        clusters: k of every level at most.
        resampling: Rounds in which a level is clustered again on evened-out points.
    """
    levels: list[np.ndarray] = []
    for level, wanted in enumerate(clusters):
        cells = max(1, min(wanted, len(points) // LEAST_POINTS))
        found = centroids(points, cells, seed + level)
        for again in range(resampling if cells > 1 else 0):
            found = centroids(points[evened(points, found)], cells, seed + level + 1000 * (again + 1))
        points = directions(found)
        levels.append(points)
    return levels


def evened(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Of every cluster the points nearest to its centroid, half of the mean size at most: ascending indices."""
    cell, cosine = assigned(points, centres)
    order = np.lexsort((-cosine, cell))
    place = np.arange(len(order)) - np.searchsorted(cell[order], cell[order])
    return np.sort(order[place < max(2, len(points) // (2 * len(centres)))])


def assigned(vectors: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the nearest centroid, int64 `(n,)`, and the cosine with it, float32 `(n,)`: 0 without a direction."""
    cell, cosine = np.zeros(len(vectors), np.int64), np.zeros(len(vectors), np.float32)
    if not centres.any():
        return cell, cosine
    for at in range(0, len(vectors), SLICE):
        similarity = directions(vectors[at : at + SLICE]) @ centres.T
        best = similarity.argmax(axis=1)
        cell[at : at + SLICE], cosine[at : at + SLICE] = best, similarity[np.arange(len(best)), best]
    return cell, cosine


def codes(levels: list[np.ndarray]) -> np.ndarray:
    """Each leaf's number, and in higher bits those of the clusters it is in: int64 `(k,)`."""
    number = np.arange(len(levels[0]))
    code = number.copy()
    for level, (below, above) in enumerate(pairwise(levels), start=1):
        number = assigned(below, above)[0][number]
        code |= number << (BITS * level)
    return code


def shared(groups: np.ndarray, rows: np.ndarray, wanted: int, levels: int) -> np.ndarray:
    """Rows to keep of each leaf, int64 `(G,)`: they sum to `wanted`, or to all rows; larger `wanted` never takes away.

    Args:
        groups: int64 `(G,)`, codes of leaves, ascending.
        rows: int64 `(G,)`: rows of each.
        wanted: Rows to keep in all.
        levels: Of the hierarchy.
    """
    if levels == 0 or len(rows) == 0:
        return np.minimum(rows, wanted)
    top = groups >> (BITS * (levels - 1))
    starts = np.flatnonzero(np.diff(top, prepend=-1))
    shares = filled(np.add.reduceat(rows, starts), wanted)
    quota = np.zeros_like(rows)
    for share, start, end in zip(shares.tolist(), starts, [*starts[1:], len(top)], strict=True):
        below = groups[start:end] & ((1 << (BITS * (levels - 1))) - 1)
        quota[start:end] = shared(below, rows[start:end], share, levels - 1)
    return quota


def filled(rows: np.ndarray, wanted: int) -> np.ndarray:
    """Equal shares as far as there are rows, int64 `(k,)`: the same level for all, remainders to the first."""
    low, high = 0, int(rows.max(initial=0))
    while low < high:  # the highest level that does not exceed what is wanted
        level = (low + high + 1) // 2
        low, high = (level, high) if int(np.minimum(rows, level).sum()) <= wanted else (low, level - 1)
    share = np.minimum(rows, low)
    more = np.flatnonzero(rows > low)[: max(0, wanted - int(share.sum()))]
    share[more] += 1
    return share
