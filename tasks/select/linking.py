"""Linking: rows with a key in common meet in one bucket, however the chains of common keys run across buckets.

Keys travel to buckets by their value. There each run of equal keys links its rows to its first, so links are as many
as rows, not as pairs. All links are joined into components, which are packed into buckets; a component stays whole.
Memory is bounded by the rows that share a key with another, about 24 bytes each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit

from storage import exchange, files, states
from storage.exchange import PARTITION_ROWS, ROW, SHARD
from storage.shards import Shard
from storage.states import State
from storage.steps import Step, parquet_bytes
from tasks.select import GROUP

KEYS = "keys"
LINKS = "links.npz"
ROW_BITS = 40
"""A row's place in one word: its shard's index above this bit, its number below."""
KEYED_ROWS = 1 << 17
"""Rows whose keys, of one column, fill a bucket, about."""


def places(rows: pa.Table) -> np.ndarray:
    """Where rows are, int64 `(n,)`, ascending as (file, row) is."""
    return rows[SHARD].to_numpy().astype(np.int64) << ROW_BITS | rows[ROW].to_numpy()


def spill_keys(step: Step, method: Any, state: State, shard: Shard, rows: pa.Table, buckets: int) -> None:
    """Send the keys of a shard's rows to their buckets."""
    found = method.keys(rows, state)
    place = places(rows)

    def column(number: int) -> tuple[pa.Table, np.ndarray]:
        mixed = mix(found[:, number], number)
        table = pa.table({"key": pa.array(mixed), "place": pa.array(place)})
        return table, (mixed % np.uint64(buckets)).astype(np.int64)

    exchange.spill(step, KEYS, shard.digest, (column(number) for number in range(found.shape[1])))


def mix(key: np.ndarray, column: int) -> np.ndarray:
    """Keys of one column, scrambled so that equal keys of two columns differ: uint64 `(n,)`, by splitmix64."""
    x = key.astype(np.uint64) + np.uint64((0x9E3779B97F4A7C15 * (column + 1)) & 0xFFFFFFFFFFFFFFFF)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def link_bucket(step: Step, bucket: int, keyed: pa.Table | None) -> None:
    """Write the links of one bucket: a forest over the rows that share a key in it."""
    first, other = (np.empty(0, np.int64),) * 2
    if keyed is not None:
        first, other = stars(keyed["key"].to_numpy(), keyed["place"].to_numpy())
        first, other = _forest(first, other)
    files.write_bytes(
        step.file(f"spill/linked/{bucket}.parquet"), parquet_bytes(pa.table({"first": first, "other": other}))
    )


def stars(key: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Links from the first place of each run of equal keys to its others: int64 `(m,)` each."""
    order = np.lexsort((place, key))
    key, place = key[order], place[order]
    starts = np.flatnonzero(np.append(True, key[1:] != key[:-1])) if len(key) else np.empty(0, np.int64)
    lengths = np.diff(np.append(starts, len(key)))
    first = np.repeat(place[starts], lengths)
    others = first != place
    return first[others], place[others]


def _forest(first: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fewer links that join the same places."""
    known = np.unique(np.concatenate([first, other]))
    root = np.arange(len(known))
    unite(root, np.searchsorted(known, first), np.searchsorted(known, other))
    moved = root != np.arange(len(known))
    return known[root[moved]], known[moved]


def linked(step: Step) -> set[str]:
    """Buckets whose links are written."""
    return {name[:-8] for name in files.names(step.file("spill/linked"))}


def join(step: Step, buckets: list[int]) -> None:
    """Join the links of all buckets into components and pack those into buckets of about `PARTITION_ROWS` rows.

    Components are numbered in the order of their first rows, so the numbers depend on the rows alone.
    """
    known = np.empty(0, np.int64)
    for bucket in buckets:
        table = step.read(f"spill/linked/{bucket}")
        known = np.unique(np.concatenate([known, table["first"].to_numpy(), table["other"].to_numpy()]))
    root = np.arange(len(known))
    for bucket in buckets:
        table = step.read(f"spill/linked/{bucket}")
        at = [np.searchsorted(known, table[name].to_numpy()) for name in ("first", "other")]
        unite(root, *at)
    _, component, sizes = np.unique(root, return_inverse=True, return_counts=True)
    ends = np.cumsum(sizes)
    bucket_of = (ends - sizes) // PARTITION_ROWS
    bucket_of = np.unique(bucket_of, return_inverse=True)[1] if len(bucket_of) else bucket_of
    states.save(
        step.file(f"spill/{LINKS}"),
        {"place": known, "component": component.astype(np.int64), "bucket": bucket_of[component].astype(np.int32)},
    )


class Links:
    """Which rows have company, and where it meets."""

    def __init__(self, step: Step) -> None:
        state = states.load(step.file(f"spill/{LINKS}"))
        self._place, self._component, self._bucket = state["place"], state["component"], state["bucket"]

    def divide(self, rows: pa.Table) -> tuple[pa.Table, np.ndarray, pa.Table]:
        """Rows with company, their buckets int64, and rows without; both tables with the column `__group`."""
        place = places(rows)
        at = np.searchsorted(self._place, place)
        at = np.minimum(at, max(0, len(self._place) - 1))
        company = self._place[at] == place if len(self._place) else np.zeros(len(place), bool)
        joined, alone = rows.filter(pa.array(company)), rows.filter(pa.array(~company))
        group = self._component[at[company]]
        joined = joined.append_column(GROUP, pa.array(group, pa.int64()))
        alone = alone.append_column(GROUP, pa.array(-1 - np.arange(alone.num_rows), pa.int64()))
        return joined, self._bucket[at[company]].astype(np.int64), alone


@njit(cache=True)
def unite(root: np.ndarray, first: np.ndarray, other: np.ndarray) -> None:
    """Union-find in place: behind it `root[i]` is the lowest index joined with i, for every i."""
    for k in range(len(first)):
        a, b = first[k], other[k]
        while root[a] != a:
            root[a] = root[root[a]]
            a = root[a]
        while root[b] != b:
            root[b] = root[root[b]]
            b = root[b]
        if a < b:
            root[b] = a
        elif b < a:
            root[a] = b
    for i in range(len(root)):
        root[i] = root[root[i]]
