"""Buckets of a score and the select that keeps the best pool: exact sizes, ties, missing scores, any cut into shards."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import ColumnError, ConfigError
from configs.methods.pools import Pools as Config
from storage.states import Checkpoint, dump
from tasks.report import pools as report
from tasks.select import pool_buckets, pool_outlook
from tasks.select.pool_law import best_pool
from tasks.select.pools import Pools

LAW = {"utilities": [-0.20, -0.17, -0.14, -0.12], "half_lives": [1.5, 2.5, 4, 6], "scale": 0.02, "floor": 0.1}


def config(**over):
    return Config(**{"score": "s", "buckets": 4, "samples_seen": 64, **LAW, "scale": 2e4, **over})


def table(score, uids=None):
    """Rows with scores, None for null, and a uid each."""
    ids = np.arange(len(score)) if uids is None else np.asarray(uids)
    packed = np.column_stack([ids, ids * 7 + 1]).astype("<u8").view("u1").reshape(len(ids), 16)
    uid = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(ids), [None, pa.py_buffer(packed.tobytes())])
    return pa.table({"s": pa.array(score, pa.float32()), "uid": uid})


def decided(rows, cuts=(), **over):
    """The state, and all rows' decisions, of rows that are cut into shards at `cuts`."""
    method = Pools(config(**over), seed=0)
    parts = [rows.slice(a, b - a) for a, b in zip([0, *cuts], [*cuts, rows.num_rows])]
    state = method.fit([method.summarise(part) for part in parts], Checkpoint("memory://none"))
    found = [method.decide(part, state) for part in parts]
    return (
        method,
        state,
        [np.concatenate([getattr(one, name) for one in found]) for name in ("keep", "reason", "score")],
    )


# ------------------------------------------------------------------------------------------------------------ buckets
@given(
    st.integers(1, 300),
    st.integers(1, 20),
    st.integers(1, 400),
    st.integers(0, 2**32),
    st.sampled_from([4, 64, 1 << 12]),
)
def test_edges_are_those_of_sorting(rows, buckets, values, seed, bins):
    rows = max(rows, buckets)
    rng = np.random.default_rng(seed)
    keys = rng.integers(0, values, rows).astype(np.uint64) << np.uint64(rng.integers(0, 50))
    keys |= rng.integers(0, 3, rows).astype(np.uint64)
    parts = np.array_split(keys, int(rng.integers(1, 5)))
    old = pool_buckets.SORTED_ROWS, pool_buckets.BINS
    try:
        pool_buckets.SORTED_ROWS, pool_buckets.BINS = int(rng.integers(0, 20)), bins
        found = pool_buckets.edges(parts, rows, buckets)
    finally:
        pool_buckets.SORTED_ROWS, pool_buckets.BINS = old
    ordered = np.sort(keys)[::-1]
    ends = np.arange(1, buckets + 1) * rows // buckets
    assert np.array_equal(found, ordered[ends - 1])
    own = pool_buckets.buckets_of(keys, found)
    assert (own == np.array([np.flatnonzero(found <= key)[0] for key in keys])).all()


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=50))
def test_keys_are_in_the_order_of_scores_and_hold_them(scores):
    from tasks.select.pools import _scores

    score = np.array(scores, np.float32)
    keys = pool_buckets.row_keys(score, np.zeros(len(score)))
    assert np.array_equal(score[np.argsort(keys, kind="stable")], np.sort(score))
    assert np.array_equal(_scores(keys), score + np.float32(0))


def test_buckets_are_exactly_equal_even_if_every_score_is():
    for score in (np.arange(403.0), np.ones(403), np.arange(403) % 3):
        _, state, (keep, reason, _) = decided(table(score), cuts=(7, 100, 101))
        assert state["rows"].tolist() == [100, 101, 101, 101]
        kept = int(np.flatnonzero(state["kept"])[-1]) + 1
        assert keep.sum() == state["rows"][:kept].sum() and 0 < kept < 4
        assert set(reason[~keep]) == {"not_in_pool"} and set(reason[keep]) == {""}
        assert score[keep].min() >= score[~keep].max()


def test_neither_shards_nor_their_order_matter():
    rng = np.random.default_rng(1)
    score = np.round(rng.normal(size=500), 1)
    rows = table(score)
    _, state, (keep, *_) = decided(rows)
    for cuts in ((1,), (250, 250), (3, 77, 499)):
        other = decided(rows, cuts)
        assert dump(other[1]) == dump(state) and np.array_equal(other[2][0], keep)
    order = rng.permutation(500)
    _, shuffled, (kept, *_) = decided(rows.take(pa.array(order)), (100,))
    assert dump(shuffled) == dump(state) and np.array_equal(kept, keep[order])


def test_another_seed_divides_ties_in_another_way_and_copies_stay_together():
    score, uids = np.zeros(400), np.arange(400) // 2
    rows = table(score, uids)
    kept = []
    for seed in (0, 1):
        method = Pools(config(), seed=seed)
        state = method.fit([method.summarise(rows)], Checkpoint("memory://none"))
        kept.append(method.decide(rows, state).keep)
        assert (kept[-1][::2] == kept[-1][1::2]).all()
    assert (kept[0] != kept[1]).any()


def test_rows_without_a_score_are_in_no_bucket():
    score = [1.0, None, 3.0, float("nan"), 5.0, 6.0, float("inf"), float("-inf"), 9.0, 10.0]
    method, state, (keep, reason, told) = decided(table(score), samples_seen=6)
    assert state["rows"].sum() == 8 and state["rows"].tolist() == [2, 2, 2, 2]
    assert [reason[1], reason[3]] == ["no_pool_score"] * 2 and not keep[[1, 3]].any() and np.isnan(told[[1, 3]]).all()
    assert keep[6] and not keep[7]
    sums = method.forecast(table(score), state)
    assert sums == {"kept": int(keep.sum()), "unscored": 2} and "2 rows have no score" in method.told(state, sums)
    assert report.facts(state)["buckets"][0]["high"] is None  # infinity is no JSON
    assert report.shown(report.facts(state))["buckets"][0]["range"].endswith("∞")


def test_nothing_at_all_is_told():
    for score in ([], [None, float("nan")]):
        method, state, (keep, *_) = decided(table(score))
        assert not keep.any() and report.facts(state) is None and report.shown(None) is None
        assert method.told(state, {"kept": 0, "unscored": len(score)}).startswith("no row has a score")


def test_fewer_rows_than_buckets_are_refused():
    with pytest.raises(ConfigError, match="`buckets` is 4, but there are 3 rows with a score; take 3 or fewer"):
        decided(table([1.0, 2.0, 3.0, None]))


def test_a_score_of_the_input_must_be_numbers():
    method = Pools(config(from_input=True), seed=0)
    assert method.input_columns == ("s",)
    method.check_columns(pa.schema([("s", pa.int32())]))
    with pytest.raises(ColumnError, match="'s', which is string"):
        method.check_columns(pa.schema([("s", pa.string())]))


# ---------------------------------------------------------------------------------------------------------- the choice
def test_a_longer_training_keeps_more():
    rows = table(np.arange(400.0))
    kept, told = [], []
    for n in (50, 1_000, 2_000, 50_000):
        method, state, (keep, *_) = decided(rows, samples_seen=n)
        errors, best = best_pool(n, 2e4, LAW["utilities"], LAW["half_lives"], 0.1, 100)
        assert np.array_equal(state["errors"], errors) and keep.sum() == 100 * best
        kept.append(best)
        told.append(method.told(state, {}))
    assert kept == [1, 2, 3, 4]
    assert told[0].startswith("the best pool for 50 samples seen is 1 of 4 buckets (the best) of 100 rows; predicted")
    assert "at 212 one of 2 takes over" in told[0] and "no other is better up to 200,000" in told[3]


def test_the_steepest_utilities_go_first_whatever_the_score():
    """As coded: pools take buckets by exponent; the second by score has the best."""
    _, state, (keep, *_) = decided(table(np.arange(400.0)), utilities=[-0.17, -0.20, -0.12, -0.14], samples_seen=50)
    assert np.flatnonzero(keep).tolist() == list(range(200, 300)) and state["kept"].tolist() == [0, 1, 0, 0]
    assert report.facts(state)["buckets"][1]["kept"] is True


def test_below_the_laws_beginning_it_warns():
    method = Pools(config(scale=0.02), seed=0)
    rows = table(np.arange(400.0))
    state = method.fit([method.summarise(rows)], Checkpoint("memory://none"))
    (warning,) = method.warnings(dict(method.decide(rows, state).counts))
    assert "`samples_seen` is 64" in warning and "above 1" in warning and float(state["errors"][0]) > 1
    assert Pools(config(), seed=0).warnings({"early": 0}) == []


def test_the_state_is_the_same_bytes_again():
    rows = table(np.random.default_rng(0).normal(size=300))
    assert dump(decided(rows)[1]) == dump(decided(rows)[1])


# --------------------------------------------------------------------------------------------------------- the outlook
@pytest.mark.parametrize("variant", ["printed", "released"])
def test_crossings_are_where_the_best_pool_changes(variant):
    law = pool_outlook.Law(0.02, np.array(LAW["utilities"]), np.array(LAW["half_lives"]), 0.1, 12.8e6, variant)
    found = pool_outlook.outlook(law, 128_000_000)
    assert found.best == 3 and found.crossings[:, 1].tolist() == [2, 3, 4]
    for n, pool in found.crossings:
        sides = [best_pool(x, *law[:5], variant=variant)[1] for x in (n - 1, n)]
        assert sides == [pool - 1, pool] and n == int(n)
    every = [best_pool(n, *law[:5], variant=variant)[0] for n in found.samples[::16]]
    assert np.array_equal(found.curves[::16], every)


def test_many_buckets_are_compared_every_so_many():
    b, tau = np.linspace(-0.3, -0.1, 300), np.linspace(2, 8, 300)
    found = pool_outlook.outlook(pool_outlook.Law(2e4, b, tau, 0.1, 10.0, "printed"), 20_000)
    assert len(found.pools) <= pool_outlook.MOST_POOLS + 1 and found.best in found.pools
    assert found.pools[[0, -1]].tolist() == [1, 300] and len(found.errors) == 300
    drawn = report.lines({"best": found.best, "pools": found.pools.tolist(), "crossings": found.crossings.tolist()})
    assert len(drawn) <= report.MOST_LINES and found.best in drawn and {1, 300} <= set(drawn)


def test_crossings_find_all_changes_between_two_points():
    steps = np.array([10, 13, 14, 900])
    found = pool_outlook.crossings(
        lambda n: int(np.searchsorted(steps, n, side="right")), np.array([5.0, 20, 1000]), np.array([0, 3, 4])
    )
    assert found == [(10, 1), (13, 2), (14, 3), (900, 4)]
