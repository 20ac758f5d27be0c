"""Cluster-balanced sampling: shares by hand and by property, the hierarchy, and that shards do not matter."""

import numpy as np
import pyarrow as pa
import pytest
from clumps import clumps, unit
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from configs.methods.representation import ClusterBalanced
from storage.exchange import ROW
from tasks.embed.vectors import pack
from tasks.select import cluster_balanced
from tasks.select.cluster_balanced import BITS, assigned, codes, evened, filled, hierarchy, shared


def code(*path):
    """A leaf's code, from the highest level down."""
    number = 0
    for digit in path:
        number = number << BITS | digit
    return number


def test_equal_shares_by_hand():
    assert filled(np.array([5, 1, 9]), 9).tolist() == [4, 1, 4]
    assert filled(np.array([5, 1, 9]), 8).tolist() == [4, 1, 3]
    assert filled(np.array([5, 1, 9]), 100).tolist() == [5, 1, 9] and filled(np.array([5, 1]), 0).tolist() == [0, 0]
    assert filled(np.array([4, 4, 4]), 1).tolist() == [1, 0, 0]


def test_shares_go_down_the_tree_and_what_is_left_to_siblings():
    groups = np.array([code(0, 0), code(0, 1), code(1, 2), code(1, 3), code(1, 4)])
    rows = np.array([2, 100, 100, 100, 1])
    assert shared(groups, rows, 20, 2).tolist() == [2, 8, 5, 4, 1]  # ten each, then 2 + 8 and 5 + 4 + 1
    assert shared(groups, rows, 1000, 2).tolist() == rows.tolist()
    assert shared(groups, np.array([2, 3, 100, 100, 1]), 20, 2).tolist() == [2, 3, 7, 7, 1]


@given(
    st.dictionaries(
        st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 40)), st.integers(1, 50), min_size=1, max_size=30
    ),
    st.integers(0, 400),
)
def test_shares_sum_to_what_is_wanted_and_only_grow(tree, wanted):
    leaves = sorted(tree)
    groups, rows = np.array([code(*leaf) for leaf in leaves]), np.array([tree[leaf] for leaf in leaves])
    quota, more = shared(groups, rows, wanted, 3), shared(groups, rows, wanted + 1, 3)
    assert quota.sum() == min(wanted, rows.sum()) and np.all((quota >= 0) & (quota <= rows))
    assert np.all(more >= quota)  # so that a search for a number of bytes is one for a border
    tops = np.array([leaf[0] for leaf in leaves])
    shares = np.array([quota[tops == top].sum() for top in np.unique(tops)])
    short = np.array([quota[tops == top].sum() < rows[tops == top].sum() for top in np.unique(tops)])
    assert not short.any() or shares[short].min() >= shares.max() - 1


def test_leaves_know_the_clusters_above_them():
    levels = hierarchy(unit(clumps(2000, 8, 30, seed=1)).astype(np.float32), (100, 20, 4), 2, seed=0)
    assert [len(level) for level in levels] == [100, 20, 4]
    found = codes(levels)
    assert np.array_equal(found & ((1 << BITS) - 1), np.arange(100))
    middle = (found >> BITS) & ((1 << BITS) - 1)
    assert np.array_equal(middle, assigned(levels[0], levels[1])[0])
    assert np.array_equal(found >> (2 * BITS), assigned(levels[1], levels[2])[0][middle])
    again = hierarchy(unit(clumps(2000, 8, 30, seed=1)).astype(np.float32), (100, 20, 4), 2, seed=0)
    assert all(np.array_equal(a, b) for a, b in zip(levels, again, strict=True))


def test_resampling_takes_the_nearest_points_evenly():
    points = unit(clumps(1000, 8, 10, seed=2)).astype(np.float32)
    centres = hierarchy(points, (20,), 0, seed=0)[0]
    kept = evened(points, centres)
    cell, cosine = assigned(points, centres)
    counts = np.bincount(cell[kept], minlength=20)
    assert counts.max() == 25 and np.array_equal(counts, np.minimum(np.bincount(cell, minlength=20), 25))
    for one in range(20):
        inside, chosen = np.flatnonzero(cell == one), kept[cell[kept] == one]
        left = np.setdiff1d(inside, chosen)
        assert len(left) == 0 or cosine[chosen].min() >= cosine[left].max()


def table(vectors, row):
    uids = [int(i).to_bytes(16, "little") for i in np.arange(len(vectors)) * 7919]
    columns = {"image_embedding": pack(vectors, np.ones(len(vectors), bool)), "uid": pa.array(uids, pa.binary(16))}
    return pa.table(columns | {row: np.arange(len(vectors))})


def method(**changes):
    settings = {"target_rows": 100, "clusters": (40, 10, 3)} | changes
    return cluster_balanced.ClusterBalanced(ClusterBalanced(**settings), seed=3)


def fitted(select, vectors, size):
    rows = table(vectors, "row")
    return select.fit([select.summarise(rows.slice(at, size)) for at in range(0, len(vectors), size)], None)


def test_shards_do_not_matter():
    vectors, select = clumps(3000, 8, 12, seed=4), method()
    state = fitted(select, vectors, 3000)
    for size in (77, 1000):
        again = fitted(select, vectors, size)
        assert all(np.array_equal(state[name], again[name]) for name in state)
    rows = table(vectors, ROW)
    whole = select.decide(rows, state)
    parts = [select.decide(rows.slice(at, 500), state) for at in range(0, 3000, 500)]
    assert np.array_equal(whole.group, np.concatenate([part.group for part in parts]))
    assert np.array_equal(whole.rank, np.concatenate([part.rank for part in parts]))


@pytest.mark.parametrize("within", ["random", "central", "outer"])
def test_the_sample_is_more_even_than_the_rows(within):
    vectors = clumps(4000, 8, 12, seed=5)
    select = method(within=within)
    state = fitted(select, vectors, 1000)
    told = select.decide(table(vectors, ROW), state)
    groups, at, rows = np.unique(told.group, return_inverse=True, return_counts=True)
    quota = select.quotas(groups, rows, 400)
    assert np.bincount(groups >> (2 * BITS), quota).tolist() == [134, 133, 133]
    flat = method(within=within, clusters=(40,))
    counts = np.unique(flat.decide(table(vectors, ROW), fitted(flat, vectors, 1000)).group, return_counts=True)[1]
    assert np.ptp(flat.quotas(np.arange(40), counts, 400)) <= 1 < np.ptp(counts * 400 / 4000)
    kept = np.concatenate(
        [np.flatnonzero(at == g)[np.argsort(told.rank[at == g])[: quota[g]]] for g in range(len(rows))]
    )
    mean, whole = told.score[kept].mean(), told.score.mean()
    assert {"random": True, "central": mean > whole, "outer": mean < whole}[within]
    assert np.all(told.keep) and not np.isnan(told.rank).any() and told.rank.dtype == np.float32
    assert select.group_names(np.array([code(3, 41, 977)]), state) == ["3/41/977"]


def test_a_draw_is_repeated_by_its_seed_and_another_differs():
    vectors = clumps(500, 8, 12, seed=6)
    first, second, other = method(), method(), method(draw=1)
    ranks = [select.decide(table(vectors, ROW), fitted(select, vectors, 100)).rank for select in (first, second, other)]
    assert np.array_equal(ranks[0], ranks[1]) and not np.array_equal(ranks[0], ranks[2])


@pytest.mark.parametrize("vectors", [np.zeros((6, 4)), np.full((6, 4), np.nan), np.ones((6, 4)), np.eye(4)[:1]])
def test_bad_input(vectors):
    select = method()
    told = select.decide(table(vectors, ROW), fitted(select, vectors, 3))
    assert not np.isnan(told.rank).any() and len(np.unique(told.group)) == 1 and told.keep.all()
    assert select.quotas(np.unique(told.group), np.array([len(vectors)]), 4).tolist() == [min(4, len(vectors))]


def test_rows_without_a_direction_have_no_share_and_go_first():
    vectors = clumps(600, 8, 12, seed=7)
    vectors[::10] = 0
    vectors[5] = np.nan
    none = np.arange(600) % 10 == 0
    none[5] = True
    for within in ("random", "central", "outer"):
        select = method(within=within)
        state = fitted(select, vectors, 200)
        told = select.decide(table(vectors, ROW), state)
        assert np.isposinf(told.rank[none]).all() and np.isfinite(told.rank[~none]).all()
        assert set(told.reason[none]) == {"no_direction"} and set(told.reason[~none]) == {"cluster_full"}
        groups, rows = np.unique(told.group, return_counts=True)
        names = select.group_names(groups, state)
        quota = {
            wanted: dict(zip(names, select.quotas(groups, rows, wanted), strict=True)) for wanted in (60, 539, 560)
        }
        assert [quota[wanted]["no direction"] for wanted in quota] == [0, 0, 21]
        assert [sum(one.values()) for one in quota.values()] == [60, 539, 560]
        assert told.counts == {"no_direction": 61}
        assert select.warnings(told.counts) == [
            "61 rows are in no cluster and go first: their vectors are zero or not finite"
        ]
    assert method().decide(table(vectors[~none], ROW), state).counts == {}


def test_the_sample_is_bounded_even_and_the_same_in_any_order_of_shards(monkeypatch):
    monkeypatch.setattr(cluster_balanced, "MOST_POINTS", 500)
    monkeypatch.setattr(cluster_balanced, "SHARD_ROWS", 100)
    monkeypatch.setattr(cluster_balanced, "hierarchy", lambda points, *_: seen.append(points) or [points[:1]])
    seen, select, rows = [], method(), table(clumps(5000, 8, 12, seed=8), "row")
    sizes = {"few": [3000, 1000, 1000], "many": [250] * 20}
    for parts in sizes.values():
        starts = np.cumsum([0, *parts[:-1]]).tolist()
        shards = [select.summarise(rows.slice(at, size)) for at, size in zip(starts, parts, strict=True)]
        assert [len(shard) for shard in shards] == [min(500, max(100, size // 4)) for size in parts]
        select.fit(shards, None)
        select.fit(shards[::-1], None)
    assert [len(points) for points in seen] == [500] * 4 and all(np.array_equal(seen[0], points) for points in seen[1:])


def test_no_shard_is_better_represented_than_another(monkeypatch):
    monkeypatch.setattr(cluster_balanced, "SHARD_ROWS", 100)
    monkeypatch.setattr(cluster_balanced, "hierarchy", lambda points, *_: seen.append(points) or [points[:1]])
    vectors = np.tile([1.0, 0, 0], (2200, 1))
    vectors[2000:] = [0, 1.0, 0]  # the second shard, sent whole: nine times what the first may send of as many rows
    seen, select, rows = [], method(), table(vectors, "row")
    select.fit([select.summarise(rows.slice(0, 2000)), select.summarise(rows.slice(2000, 200))], None)
    first, second = seen[0][:, :2].sum(axis=0)
    assert 450 < first <= 500 and 30 < second < 75


def test_many_clusters_need_no_more_memory():
    assert method(clusters=(32767,))._wanted == 1 << 18


def test_no_rows_and_wrong_settings():
    select, empty = method(), np.zeros((0, 4))
    state = select.fit([select.summarise(table(empty, "row"))], None)
    assert len(select.decide(table(empty, ROW), state).keep) == 0
    assert len(select.quotas(np.zeros(0, np.int64), np.zeros(0, np.int64), 5)) == 0
    with pytest.raises(ValidationError, match="fewer than the one before"):
        ClusterBalanced(target_rows=3, clusters=(10, 10))
