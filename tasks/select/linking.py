"""Linking: rows with a key in common meet in one bucket, however the chains of common keys run across buckets.

Keys travel to buckets by their value. There each run of equal keys links its rows to its first, so links are as many
as rows, not as pairs. All links are joined into components, which are packed into buckets; a component stays whole
up to `COMPONENT_ROWS` rows: a larger one (a text copied millions of times) is decided in parts, and counted.
Memory is bounded by the rows that share a key with another: 20 bytes each at rest, about three times that in `join`.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from tasks.select.coins import scramble
from tasks.select.groups import root_of
from tasks.select.sorting import distinct

KEYS = "keys"
LINKS = "links.npz"
SPLIT = "split_components"
ROW_BITS = 40
"""A row's place in one word: its shard's index above this bit, its number below."""
KEYED_ROWS = 1 << 17
"""Rows whose keys, of one column, fill a bucket, about."""
COMPONENT_ROWS = 4 * PARTITION_ROWS
"""Rows of a component that are decided together at most."""
PENDING_PLACES = 1 << 20
"""Places that are gathered before they are sorted in among the known ones."""


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
    return scramble(key.astype(np.uint64) + np.uint64((0x9E3779B97F4A7C15 * (column + 1)) & 0xFFFFFFFFFFFFFFFF))


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
    """Fewer links that join the same places: from the lowest of each component to its others, ascending."""
    known = distinct(first, other)
    root = np.arange(len(known))
    unite(root, np.searchsorted(known, first), np.searchsorted(known, other))
    settle(root)
    moved = root != np.arange(len(known))
    return known[root[moved]], known[moved]


def linked(step: Step) -> set[str]:
    """Buckets whose links are written."""
    return {name[:-8] for name in files.names(step.file("spill/linked"))}


def join(step: Step, buckets: list[int]) -> None:
    """Join the links of all buckets into components and pack those into buckets of about `PARTITION_ROWS` rows.

    Components are numbered in the order of their first rows, so the numbers depend on the rows alone. One of more than
    `COMPONENT_ROWS` rows gets several numbers in a row, and is counted.
    """
    known = _linked_places(step, buckets)
    root = np.arange(len(known))
    for first, other in _links(step, buckets):
        unite(root, np.searchsorted(known, first), np.searchsorted(known, other))
    settle(root)
    heads = root == np.arange(len(root))
    component = (np.cumsum(heads) - 1)[root]
    del root, heads
    sizes = np.bincount(component)
    large = np.flatnonzero(sizes > COMPONENT_ROWS)
    if len(large):
        component = _parted(component, sizes, large, _nearest(step, buckets, known))
        sizes = np.bincount(component)
        files.write_json(step.file("spill/counts/join.json"), {SPLIT: len(large)})
    bucket_of = (np.cumsum(sizes) - sizes) // PARTITION_ROWS
    bucket_of = np.cumsum(np.diff(bucket_of, prepend=0) > 0).astype(np.int32)
    states.save(step.file(f"spill/{LINKS}"), {"place": known, "component": component, "bucket": bucket_of[component]})


def warnings(counts: dict[str, int]) -> list[str]:
    """What to warn of, given what was counted."""
    if not counts.get(SPLIT):
        return []
    return [
        f"{counts[SPLIT]:,} groups of candidates have more than {COMPONENT_ROWS:,} rows each, such as copies of one "
        "text: they were decided in parts of at most so many rows, and each part may keep a row of its own"
    ]


def _links(step: Step, buckets: list[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The links of bucket after bucket: int64 `(m,)` each."""
    for bucket in buckets:
        table = step.read(f"spill/linked/{bucket}")
        yield table["first"].to_numpy(), table["other"].to_numpy()


def _linked_places(step: Step, buckets: list[int]) -> np.ndarray:
    """The places that have a link, ascending: int64 `(n,)`."""
    known, pending = np.empty(0, np.int64), [np.empty(0, np.int64)]
    for first, other in _links(step, buckets):
        pending.append(distinct(first, other))
        # As many as are known already: every place is sorted a few times, not once a bucket.
        if sum(map(len, pending)) > max(len(known), PENDING_PLACES):
            known, pending = distinct(known, *pending), []
    return distinct(known, *pending)


def _nearest(step: Step, buckets: list[int], known: np.ndarray) -> np.ndarray:
    """Of the lowest rows that each row is joined with, bucket by bucket, the highest: int64 `(n,)`.

    Rows of equal keys have the same one, and a key that the whole component has in common does not blur it.
    """
    nearest = np.full(len(known), -1)
    for first, other in _links(step, buckets):
        low, at = np.searchsorted(known, first), np.searchsorted(known, other)
        nearest[at] = np.maximum(nearest[at], low)  # no place is twice in `other`
        nearest[low] = np.maximum(nearest[low], low)
    return nearest


def _parted(component: np.ndarray, sizes: np.ndarray, large: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """Components, the large ones in even parts of at most `COMPONENT_ROWS` rows, numbered anew: int64 `(n,)`."""
    parts = np.ones(len(sizes), np.int64)
    parts[large] = -(-sizes[large] // COMPONENT_ROWS)
    number = np.cumsum(parts) - parts
    result: np.ndarray = number[component]
    for one in large:
        rows = np.flatnonzero(component == one)
        rows = rows[np.argsort(nearest[rows], kind="stable")]  # rows of equal keys side by side, then by place
        result[rows] += np.arange(len(rows)) * parts[one] // len(rows)
    return result


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
    """Union-find in place: following `root` from any index leads to the lowest that is joined with it."""
    for k in range(len(first)):
        a, b = root_of(root, first[k]), root_of(root, other[k])
        if a < b:
            root[b] = a
        elif b < a:
            root[a] = b


@njit(cache=True)
def settle(root: np.ndarray) -> None:
    """Behind it `root[i]` is the lowest index joined with i, for every i, in place."""
    for i in range(len(root)):  # roots are lower, so theirs are settled already
        root[i] = root[root[i]]
