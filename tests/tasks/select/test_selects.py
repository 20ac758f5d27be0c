"""The three first selects: hand-made cases, brute force, and that buckets and shards do not matter."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.methods.select import ExactDuplicates, NearDuplicates, Threshold
from tasks.embed.vectors import pack
from tasks.select import exact_duplicates, near_duplicates, threshold


def exact(uids, scores=None):
    columns = {"uid": pa.array(uids, pa.binary(16))} | ({"s": scores} if scores is not None else {})
    method = exact_duplicates.ExactDuplicates(ExactDuplicates(keep_by="s" if scores is not None else None), seed=0)
    return method, pa.table(columns)


def test_of_equal_uids_the_first_row_is_kept_or_the_best():
    a, b = b"a" * 16, b"b" * 16
    method, rows = exact([a, b, a, a])
    told = method.decide(rows, {})
    assert told.keep.tolist() == [True, True, False, False] and told.keeper.tolist() == [-1, -1, 0, 0]
    method, rows = exact([a, b, a, a], [1.0, 0.0, None, 5.0])
    told = method.decide(rows, {})
    assert told.keep.tolist() == [False, True, False, True] and told.keeper.tolist() == [3, -1, 3, -1]
    assert told.reason.tolist() == ["exact_duplicate", "", "exact_duplicate", ""]


def test_equal_uids_share_a_bucket():
    uids = [bytes([i % 7] * 16) for i in range(100)]
    method, rows = exact(uids)
    buckets = method.partition(rows, {"buckets": np.int64(5)})
    assert all(len({b for b, u in zip(buckets, uids) if u == uid}) == 1 for uid in set(uids))
    assert method.fit([pa.table({"rows": [300_000]}), pa.table({"rows": [1]})], None)["buckets"] == 2


@given(
    st.lists(st.lists(st.floats(-1, 1, width=32) | st.just(float("nan")), max_size=30), max_size=5), st.floats(0.01, 1)
)
def test_the_quantile_is_exact_over_any_shards(shards, fraction):
    tables = [pa.table({"score": pa.array(np.array(s, np.float32))}) for s in shards]
    scores = np.array([v for s in shards for v in s], np.float32)
    cut = threshold.kth_largest(tables, fraction)
    known = np.sort(scores[~np.isnan(scores)])[::-1]
    wanted = int(np.ceil(round(fraction * len(scores), 9)))
    if wanted == 0 or wanted > len(known):
        assert cut == float("-inf")
    else:
        assert cut == known[wanted - 1]
        assert np.sum(known >= cut) >= wanted > np.sum(known > cut)


def test_rows_without_a_score_are_dropped_as_such():
    method = threshold.Threshold(Threshold(score="s", minimum=0.1), seed=0)
    rows = pa.table({"s": pa.array([0.1, None, 0.0999, 0.3], pa.float32())})
    told = method.decide(rows, method.fit([], None))
    assert told.reason.tolist() == ["", "no_score", "below_threshold", ""]


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def greedy(vectors, tau):
    """The rule, row by row: a free row is a keeper and takes every later free row within tau."""
    keeper = np.full(len(vectors), -1)
    for i in range(len(vectors)):
        if keeper[i] < 0:
            near = (vectors[i:].astype(np.float32) @ vectors[i].astype(np.float32)) >= tau - 1e-6
            near[0] = True
            keeper[i:][near & (keeper[i:] < 0)] = i
    return keeper


@pytest.mark.parametrize("seed", range(8))
def test_groups_are_those_of_the_rule(seed):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((12, 8))
    vectors = unit(centres[rng.integers(0, 12, 300)] + rng.normal(0, 0.15, (300, 8))).astype(np.float16)
    vectors[50:60] = vectors[10]  # byte-equal copies
    renormed = unit(vectors.astype(np.float32))
    keeper, cosine = near_duplicates.greedy_groups(vectors, 0.95)
    assert np.array_equal(keeper, greedy(renormed, 0.95))
    dropped = keeper != np.arange(300)
    assert np.all(np.einsum("nd,nd->n", renormed[dropped], renormed[keeper[dropped]]) >= 0.95 - 1e-4)
    assert np.allclose(cosine[dropped], np.einsum("nd,nd->n", renormed[dropped], renormed[keeper[dropped]]), atol=1e-5)


def test_blocks_do_not_matter(monkeypatch):
    vectors = unit(np.random.default_rng(0).standard_normal((500, 3))).astype(np.float16)
    whole = near_duplicates.greedy_groups(vectors, 0.98)[0]
    monkeypatch.setattr(near_duplicates, "BLOCK", 7)
    assert np.array_equal(whole, near_duplicates.greedy_groups(vectors, 0.98)[0])


def method(**changes):
    return near_duplicates.NearDuplicates(NearDuplicates(**{"threshold": 0.95, "keep_by": None} | changes), seed=3)


def test_the_keeper_is_the_best_scored_then_the_first():
    same = np.tile([1.0, 0.0], (4, 1))
    rows = pa.table({"image_embedding": pack(same, np.ones(4, bool)), "s": pa.array([0.1, 0.9, None, 0.9])})
    told = method(keep_by="s").decide(rows, {})
    assert told.keep.tolist() == [False, True, False, False] and told.keeper.tolist() == [1, -1, 1, 1]


def test_every_row_has_one_cell_and_equal_rows_the_same():
    rng = np.random.default_rng(1)
    vectors = unit(rng.standard_normal((2000, 6)))
    vectors[1000:] = vectors[:1000]
    rows = pa.table({"image_embedding": pack(vectors, np.ones(2000, bool))})
    select = method(bucket_rows=100)
    parts = [rows.slice(i, 500) for i in range(0, 2000, 500)]
    state = select.fit([select.summarise(part) for part in parts], None)
    cells = select.partition(rows, state)
    assert 5 <= len(np.unique(cells)) <= 20 and np.array_equal(cells[:1000], cells[1000:])
    assert np.array_equal(cells, np.concatenate([select.partition(part, state) for part in parts]))


def test_small_data_has_one_cell_and_is_exact():
    select = method(bucket_rows=1000)
    vectors = unit(np.random.default_rng(2).standard_normal((900, 4)))
    rows = pa.table({"image_embedding": pack(vectors, np.ones(900, bool))})
    assert set(select.partition(rows, select.fit([select.summarise(rows)], None))) == {0}


def test_large_cells_are_divided_and_equal_rows_are_linear():
    vectors = unit(np.random.default_rng(2).standard_normal((3000, 4))).astype(np.float16)
    cells = near_duplicates.divide(vectors, np.arange(3000), 100, 0)
    assert np.array_equal(np.sort(np.concatenate(cells)), np.arange(3000)) and max(map(len, cells)) <= 400
    same = np.tile(vectors[:1], (200_000, 1))
    keeper, _ = near_duplicates.greedy_groups(same, 0.95)
    assert np.all(keeper == 0)


def test_no_rows():
    empty = pa.table({"image_embedding": pack(np.zeros((0, 4)), np.zeros(0, bool))})
    select = method()
    state = select.fit([select.summarise(empty)], None)
    assert len(select.partition(empty, state)) == 0 and len(select.decide(empty, state).keep) == 0
