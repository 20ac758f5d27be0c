"""Facility location: brute force, dense greedy, order, bad input, and the select kind over cells and shards."""

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from clumps import clumps, unit
from pydantic import ValidationError

from configs.methods.representation import FacilityLocation
from tasks.embed.vectors import pack
from tasks.select import covering, facility_location
from tasks.select.facility_location import greedy, objective


def dense(vectors, order):
    """By the whole matrix: what each row of `order` adds after those before it, and the most that any row would add."""
    similarity = np.maximum(unit(vectors.astype(np.float64)) @ unit(vectors.astype(np.float64)).T, 0)
    cover, gains, best = np.zeros(len(vectors)), [], []
    for row in order:
        every = np.maximum(similarity - cover, 0).sum(axis=1)
        gains.append(every[row])
        best.append(every.max())
        cover = np.maximum(cover, similarity[row])
    return np.array(gains), np.array(best)


def dense_greedy(vectors, wanted):
    """The objective that greedy by the whole matrix reaches."""
    order = []
    similarity = np.maximum(unit(vectors.astype(np.float64)) @ unit(vectors.astype(np.float64)).T, 0)
    cover = np.zeros(len(vectors))
    for _ in range(wanted):
        order.append(int(np.maximum(similarity - cover, 0).sum(axis=1).argmax()))
        cover = np.maximum(cover, similarity[order[-1]])
    return cover.sum()


def test_each_row_taken_adds_the_most():
    vectors = clumps(600, 64, 30, seed=1)
    taken = greedy(vectors, 200)
    gains, best = dense(vectors, taken.rows)
    assert np.allclose(gains, best, atol=1e-4) and np.allclose(taken.gain, gains, atol=1e-3)


@pytest.mark.parametrize("memory", [1 << 20, 1 << 18])
def test_with_little_memory_the_objective_is_that_of_dense_greedy(memory):
    vectors = clumps(800, 64, 30, seed=1)
    taken = greedy(vectors, 80, memory=memory)
    assert objective(vectors, taken.rows) >= dense_greedy(vectors, 80) * 0.999
    assert taken.gain.sum() == pytest.approx(objective(vectors, taken.rows), rel=0.02)


def test_where_columns_have_to_be_fetched_little_more_than_one_pass_is_fetched(monkeypatch):
    fetched, matmul = [], np.matmul
    monkeypatch.setattr(np, "matmul", lambda a, b, out: (fetched.append(len(a)), matmul(a, b, out=out)))
    vectors = unit(clumps(1500, 256, 60, seed=9))  # every gain shrinks with every row taken: most bounds are stale
    ample = greedy(vectors, 150)
    assert not fetched
    for memory in (1 << 23, 1 << 21, 1 << 19):
        fetched.clear()
        taken = greedy(vectors, 150, memory=memory)
        assert 0 < sum(fetched) < 1.6 * 1500
        assert objective(vectors, taken.rows) >= 0.999 * objective(vectors, ample.rows)
        assert memory < 1 << 23 or np.array_equal(taken.rows, ample.rows), "lists that fit leave out nothing"


def test_bounded_memory_holds_columns_and_lists_to_it(monkeypatch):
    vectors, seen = clumps(2000, 32, 20, seed=2), []
    lists = covering._by_lists
    monkeypatch.setattr(covering, "_by_lists", lambda *a: (seen.append(a[1].nbytes + a[2].nbytes), lists(*a))[1])
    memory = 1 << 20
    taken = greedy(vectors, memory=memory)
    assert seen and max(seen) < memory * 1.3
    assert sorted(taken.rows) == list(range(2000))


@pytest.mark.parametrize("seed", range(6))
def test_greedy_reaches_its_bound_of_the_best_subset(seed):
    vectors = np.random.default_rng(seed).standard_normal((9, 3))
    for k in (1, 2, 3, 4):
        best = max(objective(vectors, np.array(some)) for some in combinations(range(9), k))
        assert objective(vectors, greedy(vectors, k).rows) >= (1 - 1 / np.e) * best - 1e-6
    assert objective(vectors, greedy(vectors, 1).rows) == pytest.approx(
        max(objective(vectors, np.array([i])) for i in range(9)), abs=1e-5
    )


def test_a_hand_made_case():
    vectors = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, -1]], np.float32)
    taken = greedy(vectors)
    assert taken.rows.tolist() == [1, 3, 0, 2]  # 0.8 + 1 + 0.96, then what points the other way
    assert np.allclose(taken.gain, [2.76, 1, 0.2, 0.04], atol=1e-6) and taken.parent.tolist() == [-1, -1, 1, 1]


def test_orders_are_nested_monotone_and_do_not_depend_on_the_order_of_rows():
    vectors = clumps(700, 32, 12, seed=3)
    whole = greedy(vectors)
    assert sorted(whole.rows) == list(range(700)) and np.all(np.diff(whole.gain) <= 0)
    for k in (1, 33, 200):
        assert np.array_equal(greedy(vectors, k).rows, whole.rows[:k])
    shuffled = np.random.default_rng(0).permutation(700)
    again = shuffled[greedy(vectors[shuffled], 70).rows]
    assert len(np.intersect1d(again, whole.rows[:70])) >= 69
    place = np.argsort(whole.rows)
    linked = whole.parent >= 0
    assert np.all(place[whole.parent[linked]] < place[whole.rows[linked]])


def test_the_parent_is_the_most_similar_of_the_rows_before():
    vectors = clumps(300, 16, 10, seed=4)
    taken = greedy(vectors)
    similarity = unit(vectors) @ unit(vectors).T
    for at in range(1, 300):
        row, before = taken.rows[at], taken.rows[:at]
        best = similarity[row, before].max()
        if best > 1e-3:
            assert similarity[row, taken.parent[at]] >= best - 1e-4


def test_equal_rows_count_as_many_and_the_copies_go_first():
    vectors = clumps(60, 8, 6, seed=5)
    repeated = np.concatenate((vectors, np.tile(vectors[7], (40, 1))))
    taken = greedy(repeated)
    assert taken.rows[-40:].tolist() == list(range(60, 100)) and np.all(taken.gain[-40:] == 0)
    assert np.all(taken.parent[-40:] == 7)
    assert np.array_equal(taken.rows[:60], greedy(vectors, weight=1 + 40.0 * (np.arange(60) == 7)).rows)
    same = greedy(np.ones((100_000, 4), np.float32))
    assert same.rows.tolist() == list(range(100_000)) and same.gain[0] == 100_000 and not same.gain[1:].any()


def test_bad_input():
    for vectors in (np.zeros((5, 3)), np.full((5, 3), np.nan), np.full((5, 3), np.inf)):
        taken = greedy(vectors)
        assert taken.rows.tolist() == [0, 1, 2, 3, 4] and not taken.gain.any() and np.all(taken.parent == -1)
    assert len(greedy(np.zeros((0, 3))).rows) == 0
    assert greedy(np.ones((1, 3)), 10).rows.tolist() == [0]
    mixed = np.array([[0, 0], [np.nan, 1], [3e38, 3e38], [1e-40, 0]], np.float32)
    assert set(greedy(mixed, 2).rows) == {2, 3}


def method(**changes):
    return facility_location.FacilityLocation(FacilityLocation(**{"target_rows": 10} | changes), seed=3)


def table(vectors, **columns):
    return pa.table({"image_embedding": pack(vectors, np.ones(len(vectors), bool))} | columns)


def test_the_ranks_of_one_cell_are_the_greedy_order():
    rows = table(clumps(500, 16, 10, seed=6))
    told = method().decide(rows, {})
    order = np.lexsort(told.rank.T[::-1])
    taken = greedy(clumps(500, 16, 10, seed=6).astype(np.float16))
    assert np.array_equal(order, taken.rows) and told.keep.all() and set(told.reason) == {"well_represented"}
    assert np.allclose(told.score[order], taken.gain, rtol=1e-6) and np.isfinite(told.rank).all()
    assert np.array_equal(told.keeper[order], taken.parent)


def test_of_equal_rows_the_preferred_one_stays():
    rows = table(np.tile([1.0, 0.0], (4, 1)), s=pa.array([0.1, 0.9, None, 0.9]))
    told = method(keep_by="s").decide(rows, {})
    assert np.lexsort(told.rank.T[::-1])[0] == 1 and told.keeper.tolist() == [1, -1, 1, 1]


def test_cells_together_are_greedy_for_the_sum_over_cells():
    vectors = clumps(1200, 16, 40, seed=7).astype(np.float16)
    select, rows = method(bucket_rows=200), table(vectors)
    state = select.fit([select.summarise(rows.slice(at, 300)) for at in range(0, 1200, 300)], None)
    cells = select.partition(rows, state)
    assert len(np.unique(cells)) > 2
    found, gains = [], []
    for cell in np.unique(cells):
        inside = np.flatnonzero(cells == cell)
        told = select.decide(rows.take(pa.array(inside)), state)
        found.append(told.rank[:, 0])
        gains.append(told.score)
    rank = np.concatenate(found)
    for k in (10, 120, 400):
        kept = np.argsort(rank, kind="stable")[:k]
        # No other k rows that greedy may take in the cells have a larger sum.
        assert np.isclose(np.concatenate(gains)[kept].sum(), np.sort(np.concatenate(gains))[-k:].sum())


def test_an_oversize_cell_is_divided_and_rows_without_a_direction_are_told():
    vectors = clumps(1000, 8, 10, seed=8)
    vectors[5], vectors[6] = 0, 0
    select = method(bucket_rows=50)
    told = select.decide(table(vectors), {})
    assert told.counts["no_direction"] == 2 and "2 rows" in select.warnings(dict(told.counts))[0]
    assert np.isfinite(told.rank).all() and set(np.argsort(told.rank[:, 0])[-2:]) <= set(
        np.flatnonzero(told.score == 0)
    )
    assert told.score[5] == 0 and told.keeper[5] == -1
    assert np.flatnonzero(told.reason == "no_direction").tolist() == [5, 6]
    assert set(told.reason) == {"no_direction", "well_represented"}


def test_no_rows_and_no_target():
    empty = table(np.zeros((0, 4)))
    select = method()
    state = select.fit([select.summarise(empty)], None)
    assert len(select.partition(empty, state)) == 0 and len(select.decide(empty, state).keep) == 0
    with pytest.raises(ValidationError, match="no size to work towards; give one of `target_rows`"):
        FacilityLocation()
    with pytest.raises(ValidationError, match="at most one"):
        FacilityLocation(target_rows=3, target_fraction=0.5)
