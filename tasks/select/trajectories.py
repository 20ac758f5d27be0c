"""S2L: a budget shared among clusters of loss trajectories (Yang et al., "SmallToLarge", arXiv 2403.07384).

From the released code (BigML-CS-UCLA/S2L): the budget is shared among the sources first, smallest first; k-means with
20 iterations on at most 256 points a centroid, all rows assigned to the nearest; clusters take their shares smallest
first, each an equal part of what is left, whole if it has no more rows than that; clusters of 2 rows or fewer come
last and give together what is then missing. The paper's own form, as recalled, has neither the sources nor the last
rule: `sources=None`, or `by_source: false`, and `tiny=0`.

Different here: every draw has a seed; fewer rows, or fewer distinct rows, than clusters are clusters of equal rows
(faiss refuses the one and leaves empty clusters in the other case).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.errors import ColumnError
from configs.methods.trajectories import Trajectories as Config
from storage.packed import pack, unpack
from storage.states import Checkpoint, State
from tasks.select import Decisions, cells, keep_all
from tasks.select.balance import packed, unpacked
from tasks.select.coins import coins, uid_halves
from tasks.select.ranking import MOST_GROUPS
from tasks.select.trajectory_clusters import (
    POINTS_PER_CLUSTER,
    SCORED,
    assigned,
    centres_of,
    check_type,
    trajectories_of,
)

MOST_POINTS = 1 << 20
"""Rows of the sample that clusters are found on, over all sources."""
BITS = 20
"""Of a cluster's number, in the code of a group."""


# --------------------------------------------------------------------------------------------------------------- arrays
def allocate(cluster_sizes: np.ndarray, budget: int, *, tiny: int = 2) -> tuple[np.ndarray, int]:
    """Rows to draw from each cluster, int64 `(K,)` in the order given, and how many from the tiny ones together.

    Smallest first, of R clusters the i-th gets floor(left / (R - i)), or all it has if that is no more; equal sizes in
    the order given. Clusters of `tiny` rows or fewer have 0: what is missing in the end is to be drawn from their
    union, as many as they have at most.

    Args:
        cluster_sizes: int `(K,)`, 0 or more.
        budget: Rows to draw in all, 0 or more.
        tiny: Size up to which clusters come last; 0: no cluster does.
    """
    sizes = np.asarray(cluster_sizes)
    if sizes.ndim != 1 or (len(sizes) and (sizes.dtype.kind not in "iu" or sizes.min() < 0)):
        raise ValueError(f"`cluster_sizes` is {sizes.dtype} {sizes.shape}; it must be (K,) integers, 0 or more")
    for name, value in (("budget", budget), ("tiny", tiny)):
        if value < 0:
            raise ValueError(f"`{name}` is {value}; it must be 0 or more")
    counts, left = np.zeros(len(sizes), np.int64), int(budget)
    order = np.argsort(sizes, kind="stable")
    order = order[sizes[order] > tiny]
    for place, cluster in enumerate(order.tolist()):
        counts[cluster] = min(int(sizes[cluster]), left // (len(order) - place))
        left -= int(counts[cluster])
    return counts, min(left, int(sizes[sizes <= tiny].sum()))


def select(
    trajectories: np.ndarray, budget: int, *, clusters: int = 100, sources: Any = None, seed: int = 0
) -> np.ndarray:
    """Rows that are selected, int64 ascending: `budget` of them, or all if there are fewer.

    Args:
        trajectories: `(n, T)`, losses at T checkpoints, finite; compared as float32.
        budget: B, 0 or more.
        clusters: K, of each source by itself.
        sources: Labels `(n,)`; None: all rows are of one source.
        seed: Of k-means and of all draws.
    """
    points = np.ascontiguousarray(trajectories, np.float32)
    if points.ndim != 2 or points.shape[1] < 1:
        raise ValueError(f"`trajectories` has the shape {points.shape}; it must be (n, T), T >= 1")
    if not np.isfinite(points).all():
        row = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise ValueError(f"`trajectories` has NaN or infinity in row {row}; leave such rows out")
    if budget < 0 or clusters < 1:
        raise ValueError(f"`budget` is {budget} and `clusters` {clusters}; they must be 0 or more, and 1 or more")
    labels = np.zeros(len(points), np.int64) if sources is None else np.asarray(sources)
    if labels.shape != points.shape[:1]:
        raise ValueError(f"`sources` has the shape {labels.shape}; it must have a label for each of {len(points)} rows")
    _, source, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    shares, _ = allocate(sizes, budget, tiny=0)
    rng = np.random.default_rng(seed)
    chosen = []
    for number, share in enumerate(shares.tolist()):
        rows = np.flatnonzero(source == number)
        chosen.append(rows if share == len(rows) else rows[_drawn(points[rows], share, clusters, seed, rng)])
    return np.sort(np.concatenate([np.zeros(0, np.int64), *chosen]))


def _drawn(points: np.ndarray, share: int, clusters: int, seed: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of one source that are drawn from its clusters: int64 `(share,)`, fewer than there are."""
    if share == 0:
        return np.zeros(0, np.int64)
    cluster, _ = assigned(points, centres_of(points, clusters, seed=seed))
    counts, left = allocate(sizes := np.bincount(cluster), share)
    order = rng.permutation(len(points))
    order = order[np.argsort(cluster[order], kind="stable")]
    place = np.arange(len(order)) - np.searchsorted(cluster[order], cluster[order])
    union = np.flatnonzero((sizes <= 2)[cluster])
    return np.concatenate([order[place < counts[cluster[order]]], rng.permutation(union)[:left]])


# --------------------------------------------------------------------------------------------------------------- shards
class Trajectories:
    """The same over shards: a row's cluster and coin are its own affair, so it is decided shard by shard.

    Clusters are found on the rows with the lowest coins of every source, 256 a cluster, 2^20 in all. A row's coin is
    made of its uid alone, so neither the clusters nor the draw depend on how rows are cut into shards. Rows of one uid
    have one coin and stay or go one after the other: let `exact_duplicates` go first. What is to be drawn from the
    union of a source's tiny clusters is divided among them as such a draw would be (multivariate hypergeometric).
    """

    ranked = True

    def __init__(self, config: Config, *, seed: int) -> None:
        self._config, self._column = config, config.column
        words = np.random.SeedSequence([seed, 43]).generate_state(6, np.uint64)
        self._keys, self._sampling, self._seeds = words[:2], words[2:4], words[4:].tolist()
        self.needs: tuple[str, ...] = (self._column, "uid", *(("source",) if config.by_source else ()))
        self.input_columns: tuple[str, ...] = () if self._column == SCORED else (self._column,)

    def depends_on(self) -> dict[str, Any]:
        """What the clusters depend on."""
        return cells.faiss_version()

    def check_columns(self, schema: pa.Schema) -> None:
        """Raise ColumnError if the column's type holds no trajectories."""
        for name in self.input_columns:
            check_type(schema.field(name).type, name)

    def summarise(self, rows: pa.Table) -> pa.Table:
        """Of each source the rows with the lowest coins: `source`, `coin: float64`, `trajectory` (packed float32)."""
        points, sound = trajectories_of(rows[self._column], self._column)
        mask = pa.array(sound)
        coin = coins(uid_halves(rows["uid"].filter(mask)), np.zeros(int(sound.sum()), np.int64), self._sampling)
        packed_points = pack(points[sound] if points.shape[1] else np.zeros((0, 1), np.float32))
        columns = {"source": self._sources(rows).filter(mask), "coin": coin, "trajectory": packed_points}
        return _lowest(pa.table(columns), POINTS_PER_CLUSTER * self._config.clusters)

    def fit(self, summaries: Iterable[pa.Table], checkpoint: Checkpoint) -> State:
        """`centres: float64 (C, T)` of all sources one after the other, `starts: int64 (S + 1,)`, the sources' names.

        Raises:
            ColumnError: Trajectories of two shards differ in length.
        """
        sample: pa.Table | None = None
        for number, table in enumerate(summaries):
            if table.num_rows == 0:
                continue
            if sample is not None and table["trajectory"].type != sample["trajectory"].type:
                lengths = [one["trajectory"].type.byte_width // 4 for one in (table, sample)]
                raise ColumnError(
                    f"`{self._column}` has {lengths[0]} numbers in shard {number} (from 0, by file name), and "
                    f"{lengths[1]} before it; trajectories have one length"
                )
            together = table if sample is None else pa.concat_tables([sample, table])
            sources = max(1, pc.count_distinct(together["source"], mode="all").as_py())
            most = min(POINTS_PER_CLUSTER * self._config.clusters, MOST_POINTS // sources)
            sample = _lowest(together, max(1, most))
        if sample is None:
            return packed(pa.array([], pa.large_string())) | {"centres": np.zeros((0, 1)), "starts": np.zeros(1, int)}
        names = pc.array_sort_indices(known := pc.unique(sample["source"]).cast(pa.large_string()))
        known = known.take(names)  # nulls last
        code, points = codes(sample["source"], known), unpack(sample["trajectory"], "<f4")
        clusters = min(self._config.clusters, max(1, MOST_GROUPS // len(known)))
        found = []
        for source in range(len(known)):
            own, iterations = points[code == source], self._config.iterations
            found.append(centres_of(own, clusters, iterations=iterations, seed=self._seeds[0]))
        starts = np.cumsum([0, *map(len, found)])
        return packed(known.drop_null()) | {"centres": np.concatenate(found), "starts": starts}

    def decide(self, rows: pa.Table, state: State) -> Decisions:
        """Group each row by source and cluster, and rank it there by its coin; its score is the centre's distance.

        Raises:
            ColumnError: Trajectories are not as long as those that clusters were found on.
        """
        decisions = keep_all(rows.num_rows)
        points, sound = trajectories_of(rows[self._column], self._column)
        group = np.zeros(rows.num_rows, np.int64)
        source = codes(self._sources(rows), unpacked(state))
        for number in np.unique(source[sound]).tolist():
            own = np.flatnonzero(sound & (source == number))
            centres = state["centres"][slice(*state["starts"][number : number + 2])]
            if centres.shape[1] != points.shape[1]:
                raise ColumnError(
                    f"`{self._column}` has {points.shape[1]} numbers; in other shards it has {centres.shape[1]}"
                )
            cluster, decisions.score[own] = assigned(points[own], centres)
            group[own] = number << BITS | cluster
        coin = coins(uid_halves(rows["uid"]), np.zeros(rows.num_rows, np.int64), self._keys)
        coarse = np.floor(coin * 2**24)  # as much of a coin as a float32 has room for, then the rest
        rank = np.column_stack([coarse, coin * 2**24 - coarse]).astype(np.float32)
        decisions.keep[:] = sound
        decisions.reason[:] = np.where(sound, "trajectory_cluster", "no_trajectory")
        return decisions._replace(rank=rank, group=group)

    def quotas(self, groups: np.ndarray, rows: np.ndarray, wanted: int | None) -> np.ndarray:
        """Rows of each cluster: the target is shared among sources, then in each source among its clusters."""
        quota, source = rows.copy(), groups >> BITS
        starts = np.flatnonzero(np.diff(source, prepend=-1))
        if wanted is None or not len(groups):
            return quota
        sizes = np.add.reduceat(rows, starts)
        shares, _ = allocate(sizes, wanted, tiny=0)
        for start, end, share in zip(starts, [*starts[1:], len(groups)], shares.tolist(), strict=True):
            if share < (own := rows[start:end]).sum():
                counts, left = allocate(own, share, tiny=self._config.tiny)
                few = np.flatnonzero(own <= self._config.tiny)
                rng = np.random.default_rng([*self._seeds, int(source[start])])
                if left:
                    counts[few] = rng.multivariate_hypergeometric(own[few], left, method="marginals")
                quota[start:end] = counts
        return quota

    def group_names(self, groups: np.ndarray, state: State) -> list[str]:
        """Source and number of the cluster: `web/17`; without sources the number alone."""
        names = [*unpacked(state).to_pylist(), "no source"]
        told = zip((groups >> BITS).tolist(), (groups & ((1 << BITS) - 1)).tolist(), strict=True)
        return [f"{names[source]}/{cluster}" if self._config.by_source else str(cluster) for source, cluster in told]

    def _sources(self, rows: pa.Table) -> pa.ChunkedArray:
        """The rows' sources as strings, nulls included; empty strings where they do not matter."""
        if self._config.by_source:
            column: Any = rows["source"]
            kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
            return column.cast(kind).cast(pa.large_string())
        return pa.chunked_array([pa.repeat(pa.scalar("", pa.large_string()), rows.num_rows)])


def codes(sources: pa.ChunkedArray, known: pa.LargeStringArray) -> np.ndarray:
    """The place of each source in `known`, int64 `(n,)`; of a null the place behind the last name."""
    place = pc.index_in(sources.cast(pa.large_string()), value_set=known.drop_null())
    return pc.fill_null(place, len(known.drop_null())).to_numpy().astype(np.int64)


def _lowest(rows: pa.Table, most: int) -> pa.Table:
    """Of every source the `most` rows with the lowest coins, by coin."""
    rows = rows.take(pa.array(np.argsort(rows["coin"].to_numpy(), kind="stable")))
    code = rows["source"].combine_chunks().dictionary_encode("encode").indices.to_numpy()
    by_source = np.argsort(code, kind="stable")
    place = np.arange(len(code)) - np.searchsorted(code[by_source], code[by_source])
    return rows.take(pa.array(np.sort(by_source[place < most])))
