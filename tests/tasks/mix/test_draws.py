import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.mix import Group
from tasks.mix.draws import DrawPlan, largest_remainder, round_counts, shard_draws
from tasks.mix.static import StaticMix


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


class Config:
    def __init__(self, proportions):
        self.proportions = proportions


def test_static_proportions():
    groups = [Group("a", 30), Group("b", 10)]
    assert StaticMix(Config(None), seed=0).plan(groups, 8, None).rounds.tolist() == [[0.75, 0.25]]
    assert StaticMix(Config({"a": 1, "b": 3}), seed=0).plan(groups, 8, None).rounds.tolist() == [[0.25, 0.75]]
    with pytest.raises(ValueError, match="names 'c', but no row of that group survived selection; the groups are a, b"):
        StaticMix(Config({"a": 1, "c": 1}), seed=0).plan(groups, 8, None)
    with pytest.raises(ValueError, match="one of the groups needs a share above 0"):
        StaticMix(Config({"a": 0}), seed=0).plan(groups, 8, None)


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
