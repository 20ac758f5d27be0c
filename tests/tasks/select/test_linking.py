"""Linking: components of common keys, whatever the shards and buckets they lie in."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from storage import exchange
from storage.exchange import ROW, SHARD, Gathering
from storage.shards import Shard
from storage.steps import Step
from tasks.select import GROUP, linking
from tasks.select.linking import ROW_BITS, Links, join, link_bucket, spill_keys, stars, unite


class Keyed:
    def keys(self, rows, state):
        return np.stack(rows["keys"].to_pylist()).astype(np.uint64)


def table(number, keys):
    n = len(keys)
    return pa.table({ROW: np.arange(n), "keys": list(keys), SHARD: pa.array(np.full(n, number), pa.int32())})


@pytest.mark.parametrize("buckets", [1, 7])
def test_rows_meet_by_chains_of_keys(tmp_path, monkeypatch, buckets):
    monkeypatch.setattr(linking, "PARTITION_ROWS", 10)
    rng = np.random.default_rng(1)
    keys = rng.integers(0, 150, (90, 3))
    step = Step(str(tmp_path), "select", "test", "f")
    shards = [table(number, keys[number::3]) for number in range(3)]
    for number, rows in enumerate(shards):
        shard = Shard(number, f"{number}.parquet", "", f"d{number}", 30)
        spill_keys(step, Keyed(), {}, shard, rows, buckets)
    names = ["d0", "d1", "d2"]
    known = Gathering(step, linking.KEYS, names).buckets()
    for bucket in known:
        link_bucket(step, bucket, Gathering(step, linking.KEYS, names).gather(bucket))
    assert linking.linked(step) == {str(bucket) for bucket in known}
    join(step, known)

    row_of = np.concatenate([np.arange(90)[number::3] for number in range(3)])
    every = np.concatenate([keys[number::3] for number in range(3)])
    same = (every[:, None, :] == every[None, :, :]).any(axis=2)
    _, wanted = connected_components(coo_array(same), directed=False)
    found, at = np.full(90, -1), 0
    meeting: dict[int, set[int]] = {}
    for rows in shards:
        joined, into, alone = Links(step).divide(rows)
        assert joined.num_rows + alone.num_rows == 30 and (alone[GROUP].to_numpy() < 0).all()
        assert len(set(alone[GROUP].to_pylist())) == alone.num_rows
        found[at + joined[ROW].to_numpy()] = joined[GROUP].to_numpy()
        for bucket, group in zip(into.tolist(), joined[GROUP].to_pylist()):
            meeting.setdefault(group, set()).add(bucket)
        at += 30
    sizes = np.bincount(wanted)
    assert np.array_equal(found >= 0, sizes[wanted] > 1)
    for group in np.unique(found[found >= 0]):
        assert len(set(wanted[found == group])) == 1 and (found == group).sum() == sizes[wanted[found == group][0]]
    assert all(len(where) == 1 for where in meeting.values()) and len(set().union(*meeting.values())) > 1
    assert len(row_of) == 90


def test_equal_rows_have_links_as_many_as_rows():
    place = np.arange(1000) + (5 << ROW_BITS)
    first, other = stars(np.zeros(1000, np.uint64), place[::-1].copy())
    assert len(first) == 999 and set(first) == {place[0]} and sorted(other) == place[1:].tolist()
    assert [len(one) for one in stars(np.empty(0, np.uint64), np.empty(0, np.int64))] == [0, 0]


def test_union_names_the_lowest():
    root = np.arange(6)
    unite(root, np.array([5, 3, 4]), np.array([4, 1, 3]))
    assert root.tolist() == [0, 1, 2, 1, 1, 1]


def test_one_key_in_two_columns_is_no_company():
    assert linking.mix(np.array([7], np.uint64), 0)[0] != linking.mix(np.array([7], np.uint64), 1)[0]
    assert exchange.SHARD == SHARD
