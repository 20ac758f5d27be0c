"""k-center: brute force, plain farthest-first, order, bad input, and the select kind."""

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from clumps import clumps, unit

from configs.methods.representation import KCenter
from tasks.embed.vectors import pack
from tasks.select import k_center
from tasks.select.k_center import farthest_first, radius


def plain(vectors, first):
    """Farthest-first row by row: the order, and each row's distance when it is taken."""
    rows = unit(vectors.astype(np.float64))
    near, order, distance = rows @ rows[first], [first], [2.0]
    near[first] = np.inf
    while len(order) < len(rows):
        order.append(int(near.argmin()))
        distance.append(np.sqrt(max(0, 2 - 2 * near[order[-1]])))
        near = np.maximum(near, rows @ rows[order[-1]])
        near[order[-1]] = np.inf
    return np.array(order), np.array(distance)


@pytest.mark.parametrize("pool", [1, 16, 256, 1000])
def test_pools_do_not_matter(monkeypatch, pool):
    monkeypatch.setattr(k_center, "POOL", pool)
    vectors = clumps(300, 24, 15, seed=1)
    taken = farthest_first(vectors)
    order, distance = plain(vectors, taken.rows[0])
    assert np.mean(taken.rows == order) > 0.98 and np.allclose(taken.gain, distance, atol=2e-3)


@pytest.mark.parametrize("seed", range(6))
def test_the_radius_is_at_most_twice_the_best_one(seed):
    vectors = np.random.default_rng(seed).standard_normal((10, 3))
    order = farthest_first(vectors).rows
    for k in (1, 2, 3, 4):
        best = min(radius(vectors, np.array(some)) for some in combinations(range(10), k))
        assert radius(vectors, order[:k]) <= 2 * best + 1e-6


def test_the_next_distance_is_the_radius_of_those_before():
    vectors = clumps(300, 16, 9, seed=2)
    taken = farthest_first(vectors)
    for k in (1, 7, 100, 299):
        assert taken.gain[k] == pytest.approx(radius(vectors, taken.rows[:k]), abs=1e-3)
    assert taken.gain[0] == k_center.FARTHEST and np.all(np.diff(taken.gain) <= 0)


def test_orders_are_nested_and_do_not_depend_on_the_order_of_rows():
    vectors = clumps(700, 32, 12, seed=3)
    whole = farthest_first(vectors)
    assert sorted(whole.rows) == list(range(700))
    for k in (1, 33, 200):
        assert np.array_equal(farthest_first(vectors, k).rows, whole.rows[:k])
    shuffled = np.random.default_rng(0).permutation(700)
    assert np.array_equal(shuffled[farthest_first(vectors[shuffled], 70).rows], whole.rows[:70])


def test_the_parent_is_the_nearest_of_the_rows_before():
    vectors = clumps(300, 16, 10, seed=4)
    taken = farthest_first(vectors)
    similarity = unit(vectors) @ unit(vectors).T
    for at in range(1, 300):
        best = similarity[taken.rows[at], taken.rows[:at]].max()
        assert similarity[taken.rows[at], taken.parent[at]] == pytest.approx(best, abs=1e-5)
    assert taken.parent[0] == -1


def test_copies_and_bad_input_stand_last():
    same = farthest_first(np.ones((100_000, 4), np.float32))
    assert same.rows.tolist() == list(range(100_000)) and not same.gain[1:].any() and np.all(same.parent[1:] == 0)
    for vectors in (np.zeros((5, 3)), np.full((5, 3), np.nan)):
        taken = farthest_first(vectors)
        assert taken.rows.tolist() == [0, 1, 2, 3, 4] and not taken.gain.any() and np.all(taken.parent == -1)
    assert len(farthest_first(np.zeros((0, 3))).rows) == 0
    assert farthest_first(np.ones((1, 3)), 10).rows.tolist() == [0]
    mixed = np.array([[0, 0], [1, 0], [np.nan, 1], [-1, 0], [1, 0]])
    assert set(farthest_first(mixed, 2).rows) == {1, 3} and farthest_first(mixed).gain.tolist() == [2, 2, 0, 0, 0]


def table(vectors):
    return pa.table({"image_embedding": pack(vectors, np.ones(len(vectors), bool))})


def test_a_cut_through_all_cells_leaves_no_row_farther_than_the_cut():
    vectors = clumps(1200, 16, 40, seed=7).astype(np.float16)
    select, rows = k_center.KCenter(KCenter(target_rows=10, bucket_rows=200), seed=3), table(vectors)
    state = select.fit([select.summarise(rows.slice(at, 300)) for at in range(0, 1200, 300)], None)
    cells = select.partition(rows, state)
    assert len(np.unique(cells)) > 2
    rank = np.empty(1200)
    for cell in np.unique(cells):
        inside = np.flatnonzero(cells == cell)
        rank[inside] = select.decide(rows.take(pa.array(inside)), state).rank[:, 0]
    order = np.argsort(rank, kind="stable")
    for k in (50, 400):
        assert radius(vectors, order[:k]) <= -rank[order[k]] + 1e-3


def test_rows_without_a_direction_have_a_reason_of_their_own():
    vectors = clumps(50, 8, 5, seed=8)
    vectors[[3, 9]] = 0
    told = k_center.KCenter(KCenter(target_rows=10), seed=3).decide(table(vectors), {})
    assert np.flatnonzero(told.reason == "no_direction").tolist() == [3, 9] and told.keeper[3] == told.keeper[9] == -1
    assert {"no_direction", "near_a_centre"} == set(told.reason) == set(KCenter.reasons)
