import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.mix import draws as drawing
from tasks.mix.draws import DrawPlan, largest_remainder, round_counts, rows_keys, seed_of, shard_draws
from tasks.mix.permutation import keys


def test_the_worked_example_of_largest_remainder():
    assert largest_remainder(np.array([0.5, 0.3, 0.2]), 7).tolist() == [4, 2, 1]
    assert largest_remainder(np.full(4, 0.25), 6).tolist() == [2, 2, 1, 1]
    assert largest_remainder(np.array([0.1, 0.9]), 30).tolist() == [3, 27]
    assert largest_remainder(np.full(3, 1 / 3), 640_000_001).tolist() == [213_333_334, 213_333_334, 213_333_333]


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=12), st.integers(0, 10**6) | st.integers(10**8, 10**10))
def test_counts_add_up_and_stay_within_one(shares, total):
    proportions = np.array(shares) / sum(shares)
    counts = largest_remainder(proportions, total)
    assert counts.sum() == total and np.all(np.abs(counts - proportions * total) < 1 + 1e-6)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(0, 200), st.integers(1, 3), st.integers(0, 99))
def test_every_draw_is_made_once_from_its_group_in_its_round(rows, draws, rounds, seed):
    rng = np.random.default_rng(seed)
    proportions = rng.dirichlet(np.ones(len(rows)), rounds)
    plan = DrawPlan(round_counts(proportions, draws), np.array(rows), seed)
    seen = np.full(draws, -1)
    ends = np.cumsum(plan.counts.sum(axis=1))
    for group, size in enumerate(rows):
        which, draw, in_round = plan.draws_of(group, np.arange(size))
        assert np.all(seen[draw] == -1)
        seen[draw] = group
        times = np.bincount(which, minlength=size)
        assert np.ptp(times) <= 1  # without replacement until used up
        assert np.array_equal(np.searchsorted(ends, draw, side="right"), in_round)
        assert np.array_equal(np.bincount(in_round, minlength=rounds), plan.counts[:, group])
    assert np.all(seen >= 0)


def test_shards_find_the_same_draws_together_and_apart():
    plan = DrawPlan(np.array([[30, 20], [10, 40]]), np.array([20, 30]), 7)
    groups = np.random.default_rng(0).permutation(np.repeat([0, 1], [20, 30]))
    whole = shard_draws(plan, np.arange(50), groups, np.zeros(2, np.int64))
    first = shard_draws(plan, np.arange(25), groups[:25], np.zeros(2, np.int64))
    before = np.bincount(groups[:25], minlength=2)
    second = shard_draws(plan, np.arange(25, 50), groups[25:], before)
    apart = {r["draw"]: r for r in first.to_pylist() + second.to_pylist()}
    assert [apart[i] for i in range(100)] == whole.to_pylist()


def test_weights_are_share_drawn_over_share_there():
    plan = DrawPlan(np.array([[50, 50]]), np.array([10, 90]), 0)
    assert plan.weights().tolist() == [[5.0, pytest.approx(0.5 / 0.9)]]


def test_many_groups_in_slices_are_the_groups_one_by_one(monkeypatch):
    """All groups of a shard at once, or slice by slice, and each group alone: the same draws."""
    rng = np.random.default_rng(5)
    rows = rng.integers(1, 30, 40)
    counts = rng.integers(0, 40, (5, 40))
    counts[:, 7] = 0
    plan = DrawPlan(counts, rows, 11)
    groups = rng.permutation(np.repeat(np.arange(40), rows))
    whole = shard_draws(plan, np.arange(len(groups)), groups, np.zeros(40, np.int64))
    assert np.array_equal(whole["draw"].to_numpy(), np.arange(plan.total))
    assert whole["weight"].to_numpy().tolist() == plan.weights()[whole["round"], whole["group"]].tolist()
    for group in range(40):
        which, draw, in_round = plan.draws_of(group, np.arange(rows[group]))
        mine = whole.take(np.sort(draw))
        order = np.argsort(draw)
        assert mine["round"].to_pylist() == in_round[order].tolist() and set(mine["group"].to_pylist()) <= {group}
        assert mine["row"].to_pylist() == np.flatnonzero(groups == group)[which[order]].tolist()
    for size in (1, 97, 1500):
        monkeypatch.setattr(drawing, "SLICE", size)
        assert shard_draws(plan, np.arange(len(groups)), groups, np.zeros(40, np.int64)).equals(whole)
    assert shard_draws(plan, np.arange(0), groups[:0], np.zeros(40, np.int64)).num_rows == 0


def test_orders_are_those_of_earlier_versions():
    """Online samplers that were saved go on by them."""
    plan = DrawPlan(np.array([[3, 4], [5, 2]]), np.array([4, 3]), 7)
    groups, ordinals = plan.rows_of(np.arange(14))
    assert groups.tolist() == [1, 1, 0, 1, 0, 1, 0, 1, 0, 0, 1, 0, 0, 0]
    assert ordinals.tolist() == [1, 2, 2, 2, 3, 0, 1, 0, 1, 2, 1, 0, 0, 3]


@given(
    counts=st.lists(st.lists(st.integers(0, 30), min_size=3, max_size=3), min_size=1, max_size=3),
    rows=st.lists(st.integers(1, 12), min_size=3, max_size=3),
    seed=st.integers(0, 5),
)
def test_rows_of_draws_is_the_inverse_of_draws_of_rows(counts, rows, seed):
    plan = DrawPlan(np.array(counts), np.array(rows), seed)
    groups, ordinals = plan.rows_of(np.arange(plan.total))
    for group, size in enumerate(rows):
        which, draw, _ = plan.draws_of(group, np.arange(size))
        assert (groups[draw] == group).all() and ordinals[draw].tolist() == which.tolist()
    assert len(plan.rows_of(np.empty(0, np.int64))[0]) == 0


@given(st.integers(0, 2**63), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**9)), max_size=4))
def test_keys_of_many_orders_are_those_of_each(seed, orders):
    groups, passes = np.array(orders, np.int64).reshape(-1, 2).T
    found = rows_keys(seed, groups, passes)
    assert found.tolist() == [keys(seed_of(seed, "rows", *one)).tolist() for one in orders]


def test_keys_of_a_pass_are_made_once_though_slices_are_many(monkeypatch):
    """More groups than a slice holds: each has its keys made in one slice, or in the two that it is cut into."""
    rows, made = np.full(60, 7), []
    plan = DrawPlan(rows[None] * 5, rows, 3)
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(60), 7))

    def counted(seed, group, number):
        made.append(len(group))
        return rows_keys(seed, group, number)

    monkeypatch.setattr(drawing, "SLICE", 150)
    monkeypatch.setattr(drawing, "rows_keys", counted)
    assert shard_draws(plan, np.arange(420), groups, np.zeros(60, np.int64)).num_rows == plan.total
    assert len(made) == plan.total // 150 and plan.total // 7 <= sum(made) <= plan.total // 7 + 5 * len(made)
