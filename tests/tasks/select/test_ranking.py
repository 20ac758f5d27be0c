"""The exact cut: against sorting all rows, over any parts, groups, sizes and ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import StageError
from tasks.select import ranking
from tasks.select.ranking import Ranks, find, keys, totals
from tasks.select.targets import standing


def parts(seed, n, groups, ties, columns=1, most_size=1):
    rng = np.random.default_rng(seed)
    rank = rng.integers(0, ties, (n, columns)).astype(np.float32) - 3
    rank[rng.random((n, columns)) < 0.1] = -np.inf
    shard, row = rng.integers(0, 5, n).astype(np.int32), rng.permutation(n).astype(np.int64) + (1 << 33)
    group = rng.choice([-7, 0, 1 << 40, 9], n) if groups else np.zeros(n, np.int64)
    return Ranks(
        keys(rank, shard, row), group.astype(np.int64), rng.integers(0 if most_size > 1 else 1, most_size + 1, n)
    )


def split(ranks, count):
    cuts = np.linspace(0, len(ranks.size), count + 1).astype(int)
    return [Ranks(*(one[a:b] for one in ranks)) for a, b in zip(cuts[:-1], cuts[1:])]


def by_sorting(ranks, group, quota):
    """Per group: rows by key while the running sum of sizes does not exceed the quota."""
    stays = np.zeros(len(ranks.size), bool)
    for g, q in zip(group, quota):
        inside = np.flatnonzero(ranks.group == g)
        inside = inside[np.lexsort(ranks.key[inside].T[::-1])]
        stays[inside[np.cumsum(ranks.size[inside]) <= q]] = True
    return stays


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(0, 300),
    groups=st.booleans(),
    ties=st.sampled_from([1, 4, 1000]),
    columns=st.integers(1, 3),
    most_size=st.sampled_from([1, 5, 1 << 31]),
    share=st.floats(0, 1.2),
    count=st.integers(1, 4),
    at_once=st.sampled_from([0, 1, 20, 1 << 20]),
    bins=st.sampled_from([1 << 10, 1 << 22]),
)
def test_the_cut_is_that_of_sorting_everything(seed, n, groups, ties, columns, most_size, share, count, at_once, bins):
    ranks = parts(seed, n, groups, ties, columns, most_size)
    split_up = split(ranks, count)
    group, rows, size = totals(split_up)
    assert rows.sum() == n and size.sum() == ranks.size.sum()
    quota = (size * share).astype(np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "SORTED_ROWS", max(at_once, len(group)))
        patch.setattr(ranking, "BINS", bins)
        cut = find(split_up, group, quota, rows, size)
    stays = cut.stays(ranks.key, ranks.group)
    # The first row that does not fit ends a group, also where a later, smaller one would.
    assert np.array_equal(stays, by_sorting(ranks, group, quota))
    if most_size == 1:
        assert stays.sum() == np.minimum(quota, rows).sum()


def test_very_many_groups_are_refused_in_one_sentence_before_anything_is_counted():
    class Untouched:
        def __iter__(self):
            raise AssertionError("the rows were read")

    group = np.arange(ranking.MOST_GROUPS + 1)
    ones = np.ones(len(group), np.int64)
    with pytest.raises(StageError, match="in 100,001 groups, each with its own quota, and there may be 100,000: take"):
        find(Untouched(), group, ones, ones * 2, ones * 2)
    assert find([], group[:0], ones[:0], ones[:0], ones[:0]).group.size == 0


def test_ranks_are_numbers_and_zeros_are_equal():
    with pytest.raises(ValueError, match="`rank` is NaN in row 1"):
        keys(np.array([0, np.nan]), np.zeros(2, np.int32), np.arange(2))
    key = keys(np.array([0.0, -0.0, np.inf, -np.inf]), np.zeros(4, np.int32), np.zeros(4, np.int64))
    assert np.array_equal(key[0], key[1]) and key[3, 0] < key[0, 0] < key[2, 0]


def test_keepers_are_followed_to_a_row_that_stays():
    keeper = np.array([-1, 0, 1, 2, -1, 4, 4])
    kept = np.array([True, False, False, True, False, False, True])
    assert standing(keeper, kept).tolist() == [0, 0, 0, 3, -1, -1, 6]
    chain = np.arange(-1, 999)
    assert (standing(chain, np.arange(1000) == 0) == 0).all()
