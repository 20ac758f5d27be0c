"""Linking: components of common keys, whatever the shards and buckets they lie in."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from storage.exchange import ROW, SHARD, Gathering
from storage.shards import Shard
from storage.steps import Step
from tasks.select import GROUP, linking
from tasks.select.decisions import counts
from tasks.select.linking import ROW_BITS, Links, join, link_bucket, settle, spill_keys, stars, unite
from tasks.select.sorting import distinct


class Keyed:
    def keys(self, rows, state):
        return np.stack(rows["keys"].to_pylist()).astype(np.uint64)


def table(number, keys):
    n = len(keys)
    return pa.table({ROW: np.arange(n), "keys": list(keys), SHARD: pa.array(np.full(n, number), pa.int32())})


def company(folder, keys, shard_count, buckets):
    """Link rows by their keys, dealt to shards in turn: each row's component, -1 alone, and its bucket; int64 `(n,)`."""
    step, n = Step(str(folder), "select", "test", "f"), len(keys)
    tables = [table(number, keys[number::shard_count]) for number in range(shard_count)]
    names = [f"d{number}" for number in range(shard_count)]
    for number, rows in enumerate(tables):
        shard = Shard(number, f"{number}.parquet", "", names[number], rows.num_rows)
        spill_keys(step, Keyed(), {}, shard, rows, buckets)
    known = Gathering(step, linking.KEYS, names).buckets()
    for bucket in known:
        link_bucket(step, bucket, Gathering(step, linking.KEYS, names).gather(bucket))
    assert linking.linked(step) == {str(bucket) for bucket in known}
    join(step, known)
    group, where = np.full(n, -1), np.full(n, -1)
    for number, rows in enumerate(tables):
        joined, into, alone = Links(step).divide(rows)
        assert joined.num_rows + alone.num_rows == rows.num_rows and (alone[GROUP].to_numpy() < 0).all()
        assert len(set(alone[GROUP].to_pylist())) == alone.num_rows
        at = number + shard_count * joined[ROW].to_numpy()
        group[at], where[at] = joined[GROUP].to_numpy(), into
    return group, where, counts(step)


@pytest.mark.parametrize("pending", [0, 1 << 20])
@pytest.mark.parametrize("buckets", [1, 7])
def test_rows_meet_by_chains_of_keys(tmp_path, monkeypatch, buckets, pending):
    monkeypatch.setattr(linking, "PARTITION_ROWS", 10)
    monkeypatch.setattr(linking, "PENDING_PLACES", pending)
    keys = np.random.default_rng(1).integers(0, 150, (90, 3))
    group, where, counted = company(tmp_path, keys, 3, buckets)
    same = (keys[:, None, :] == keys[None, :, :]).any(axis=2)
    _, wanted = connected_components(coo_array(same), directed=False)
    sizes = np.bincount(wanted)
    assert np.array_equal(group >= 0, sizes[wanted] > 1) and not counted
    for one in np.unique(group[group >= 0]):
        members = group == one
        assert np.array_equal(members, wanted == wanted[members][0]) and len(set(where[members])) == 1
    assert len(set(where[where >= 0])) > 1
    by_place = np.lexsort((np.arange(90), np.arange(90) % 3))  # shard, then row
    numbers = group[by_place][group[by_place] >= 0]
    assert list(dict.fromkeys(numbers.tolist())) == list(range(numbers.max() + 1))  # in the order of first rows


@pytest.mark.parametrize("buckets", [1, 7])
def test_a_component_too_large_is_split_into_even_parts_with_equal_rows_together(tmp_path, monkeypatch, buckets):
    monkeypatch.setattr(linking, "COMPONENT_ROWS", 100)
    monkeypatch.setattr(linking, "PARTITION_ROWS", 100)
    rng = np.random.default_rng(2)
    # 30 texts of 10 copies each, all chained by a first key; a pair; 100 equal rows, which are few enough; 50 alone.
    text = rng.permutation(np.repeat(np.arange(30), 10))
    keys = np.concatenate(
        [
            np.stack([np.zeros(300, int), *(1000 * column + text for column in range(1, 13))], 1),
            np.full((2, 13), 50_000),
            np.full((100, 13), 60_000),
            np.arange(90_000, 90_650).reshape(50, 13),
        ]
    )
    group, where, counted = company(tmp_path, keys, 3, buckets)
    assert counted == {"split_components": 1} and (group[402:] == -1).all()
    assert np.bincount(group[:402]).tolist() in ([100, 100, 100, 2, 100], [100, 100, 100, 100, 2])
    assert len(set(group[300:302])) == 1 and len(set(group[302:402])) == 1 and np.bincount(where[:402]).max() <= 199
    assert len(set(group[:300])) == 3
    if buckets > 1:  # in one bucket the chaining key hides the others
        assert all(len(set(group[:300][text == one])) == 1 for one in range(30))
    assert "1 groups of candidates" in linking.warnings(counted)[0] and linking.warnings({"other": 1}) == []


@pytest.mark.parametrize("most", [1000, 299])
def test_equal_rows_are_one_component_up_to_the_cap(tmp_path, monkeypatch, most):
    monkeypatch.setattr(linking, "COMPONENT_ROWS", most)
    group, where, counted = company(tmp_path, np.full((900, 14), 7), 3, 5)
    assert np.bincount(group).tolist() == ([900] if most == 1000 else [225] * 4)
    assert counted == ({} if most == 1000 else {"split_components": 1}) and (where == 0).all()


def test_distinct_values_are_those_of_numpy():
    rng = np.random.default_rng(0)
    for n in (0, 1, 2, 5000):
        one, other = rng.integers(-50, 3000, n), rng.integers(0, 3000, n // 2)
        found = distinct(one, other)
        assert np.array_equal(found, np.unique(np.concatenate([one, other]))) and found.dtype == np.int64


def test_equal_rows_have_links_as_many_as_rows():
    place = np.arange(1000) + (5 << ROW_BITS)
    first, other = stars(np.zeros(1000, np.uint64), place[::-1].copy())
    assert len(first) == 999 and set(first) == {place[0]} and sorted(other) == place[1:].tolist()
    assert [len(one) for one in stars(np.empty(0, np.uint64), np.empty(0, np.int64))] == [0, 0]


def test_union_names_the_lowest():
    root = np.arange(6)
    unite(root, np.array([5, 3]), np.array([4, 1]))
    unite(root, np.array([4]), np.array([3]))
    settle(root)
    assert root.tolist() == [0, 1, 2, 1, 1, 1]


def test_one_key_in_two_columns_is_no_company():
    keys = np.append(np.arange(5000, dtype=np.uint64), np.uint64(2**64 - 1))
    columns = [linking.mix(keys, column) for column in range(3)]
    assert len(np.unique(columns)) == 3 * len(keys)  # and no two keys of a column become one
