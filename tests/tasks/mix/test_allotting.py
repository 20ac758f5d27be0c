"""From proportions to counts under a bound: sums, bounds, UniMax by its own algorithm, and what is told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.mix import Proportions
from tasks.mix.allotting import allot
from tasks.mix.draws import capped_counts, filled, most_draws, round_counts


@st.composite
def mixes(draw):
    """Proportions by round, some 0; draws; and bounds."""
    groups, rounds = draw(st.integers(1, 8)), draw(st.integers(1, 5))
    weights = st.lists(st.sampled_from([0, 0, 1, 2, 3, 0.37, 11, 1e-9]), min_size=groups, max_size=groups).filter(any)
    shares = np.array([draw(weights) for _ in range(rounds)], float)
    most = np.array(draw(st.lists(st.integers(0, 60), min_size=groups, max_size=groups)))
    return shares / shares.sum(axis=1, keepdims=True), draw(st.integers(0, 300)), most


@given(mixes())
def test_sums_bounds_and_zeros(mix):
    shares, draws, most = mix
    counts = capped_counts(shares, draws, most)
    assert counts.shape == shares.shape and (counts >= 0).all() and (counts[shares == 0] == 0).all()
    assert (counts.sum(axis=0) <= most).all() and counts.sum() <= draws
    if counts.sum() < draws:  # then every group with a share is used up
        with_share = (shares > 0).any(axis=0)
        assert (counts.sum(axis=0) == most)[with_share].all()


@given(mixes())
def test_it_is_round_counts_where_nothing_binds(mix):
    shares, draws, most = mix
    wanted = round_counts(shares, draws)
    for bound in (None, wanted.sum(axis=0), wanted.sum(axis=0) + most):
        assert np.array_equal(capped_counts(shares, draws, bound), wanted)


@given(
    rows=st.lists(st.integers(1, 500), min_size=3, max_size=3),
    rounds=st.integers(1, 6),
    data=st.data(),
)
def test_a_bounded_group_lasts_to_the_last_round(rows, rounds, data):
    """Its rounds are cut by one factor, to a row; the rounds keep their length where the others have room."""
    weights = st.lists(st.floats(0.1, 1), min_size=4, max_size=4)
    shares = np.array([data.draw(weights) for _ in range(rounds)])
    shares /= shares.sum(axis=1, keepdims=True)
    draws = 2000
    most = np.array([*rows, draws])  # the last group has room for all
    planned, counts = round_counts(shares, draws), capped_counts(shares, draws, most)
    assert counts.sum(axis=1).tolist() == planned.sum(axis=1).tolist()
    first = np.flatnonzero(planned.sum(axis=0) > most)
    for group in first:
        wanted = planned[:, group] * most[group] / planned[:, group].sum()
        assert (np.abs(counts[:, group] - wanted) < 1).all()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(0, 200), st.integers(0, 20), st.integers(0, 7))
def test_more_room_or_more_draws_never_take_from_the_whole(rows, draws, more, which):
    most, shares = np.array(rows), np.arange(1.0, len(rows) + 1)
    shares /= shares.sum()
    before = filled(shares, draws, most)
    assert filled(shares, draws + more, most).sum() >= before.sum()
    assert (filled(shares, draws + more, most) >= before - 1).all()  # to one, by rounding
    wider = most.copy()
    wider[which % len(rows)] += more
    assert filled(shares, draws, wider).sum() >= before.sum()


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.integers(0, 250), st.randoms())
def test_the_order_of_groups_changes_nothing_but_order(rows, draws, random):
    """Shares are such that no two remainders tie: ties go to the first."""
    most = np.array(rows)
    shares = np.sqrt(np.arange(2.0, len(rows) + 2)) * np.pi
    shares /= shares.sum()
    order = np.array(random.sample(range(len(rows)), len(rows)))
    assert np.array_equal(
        capped_counts(shares[order][None], draws, most[order])[0], capped_counts(shares[None], draws, most)[0][order]
    )


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=9), st.data())
def test_water_stands_at_one_level(weights, data):
    """Of those that are not full all have, per share, as much as each other, to one draw; those that are have less."""
    shares = np.array(weights) / sum(weights)
    room = np.array(data.draw(st.lists(st.integers(0, 10**6), min_size=len(weights), max_size=len(weights))))
    total = data.draw(st.integers(0, 10**6))
    counts = filled(shares, total, room)
    assert counts.sum() == min(total, room.sum()) and (counts <= room).all()
    free = counts < room
    if free.any():
        least, greatest = ((counts + 1) / shares)[free].min(), ((counts - 1) / shares)[free].max()
        assert greatest <= least * (1 + 1e-9)
        assert ((counts - 1) / shares).max() <= least * (1 + 1e-9)


# --------------------------------------------------------------------------------------------------------------- UniMax
def unimax(sizes, budget, epochs):
    """Algorithm 1 of the paper: languages by ascending size, each gets an even part of what is left, or all it may."""
    order, left, given_ = np.argsort(sizes, kind="stable"), float(budget), np.zeros(len(sizes))
    for done, i in enumerate(order):
        even = left / (len(sizes) - done)
        given_[i] = sizes[i] * epochs if sizes[i] * epochs < even else even
        left -= given_[i]
    return given_


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=12), st.integers(0, 20_000), st.integers(1, 9))
def test_even_shares_under_a_bound_are_unimax(rows, draws, epochs):
    sizes = np.array(rows)
    even = Proportions(np.full((1, len(rows)), 1 / len(rows)))
    counts, _ = allot(even, [str(i) for i in range(len(rows))], sizes, draws, epochs)
    assert np.all(np.abs(counts[0] - unimax(sizes, draws, epochs)) < 1 + 1e-6)
    assert counts.sum() == min(draws, epochs * sizes.sum())


def test_the_worked_example_of_unimax():
    """10 and 30 rows may be drawn 4 times: 40 and 120; of 300 draws even parts are 100, 40 is less, then 130 and 130,
    of which 120 is less."""
    counts, told = allot(Proportions(np.full((1, 3), 1 / 3)), ["a", "b", "c"], np.array([10, 30, 60]), 300, 4)
    assert counts.tolist() == [[40, 120, 140]] and told["epochs"] == [4, 4, pytest.approx(140 / 60)]


# ----------------------------------------------------------------------------------------------------------- what is told
def test_what_is_bounded_and_where_it_goes_is_told():
    counts, told = allot(
        Proportions(np.array([[0.5, 0.3, 0.2]]), notes=["as found"]), ["a", "b", "c"], np.array([10, 100, 100]), 100, 2
    )
    assert counts.tolist() == [[20, 48, 32]] and told["planned"] == [[0.5, 0.3, 0.2]] and told["warnings"] == []
    assert told["notes"] == [
        "as found",
        "`max_epochs` is 2: a was to have 50 draws (50.0%, 5 epochs) and has 20 (2 epochs)",
        "of other groups' rows come the 30 draws that they fall short by: b (+18), c (+12)",
    ]


def test_a_budget_that_cannot_be_met_is_told_with_the_remedy_and_the_remedy_works():
    shares, names, rows = Proportions(np.array([[0.75, 0.25, 0]])), ["a", "b", "c"], np.array([10, 20, 1000])
    counts, told = allot(shares, names, rows, 100, 2)
    assert counts.tolist() == [[20, 40, 0]]
    assert told["warnings"] == [
        "the budget takes 100 draws, but with `max_epochs` 2 the 30 rows that have a share give 60, and the mix is as "
        "large as that; set `mix.max_epochs` to 4, or lower the budget"
    ]
    assert told["notes"][-1] == "of other groups' rows come 15 of the 55 draws that they fall short by: b (+15)"
    again, told = allot(shares, names, rows, 100, 4)
    assert again.sum() == 100 and told["warnings"] == []


def test_many_groups_take_few_lines():
    rows = np.r_[np.full(500, 1), np.full(500, 1000)]
    _, told = allot(Proportions(np.full((1, 1000), 1e-3)), [str(i) for i in range(1000)], rows, 10_000, 3)
    assert len(told["notes"]) == 10 and told["notes"][8] == (
        "`max_epochs` is 3: 492 more groups were to have 4,920 draws and have 1,476"
    )
    assert told["notes"][9].endswith(" and 492 more groups (+3,444)")


def test_no_bound_and_no_draws_tell_nothing():
    for draws, epochs in ((100, None), (0, 4), (0, 0.01)):
        counts, told = allot(Proportions(np.array([[1.0]])), ["all"], np.array([5]), draws, epochs)
        assert counts.sum() == draws and told["notes"] == told["warnings"] == []


def test_draws_that_a_round_cannot_place_go_to_others():
    """Round 0 has a alone, round 1 b alone: what a falls short by b takes, behind it and before it."""
    shares = np.array([[1.0, 0], [0, 1]])
    assert capped_counts(shares, 20, np.array([4, 50])).tolist() == [[4, 0], [0, 16]]
    assert capped_counts(shares, 20, np.array([50, 4])).tolist() == [[16, 0], [0, 4]]
    assert capped_counts(shares, 20, np.array([3, 4])).tolist() == [[3, 0], [0, 4]]


def test_bounds_are_whole_draws():
    assert most_draws(np.array([10, 3, 0, 10**12]), 0.7).tolist() == [7, 2, 0, 7 * 10**11]
    assert most_draws(np.array([100, 10**11]), 0.29).tolist() == [29, 29 * 10**9]  # as floats a little less
    assert most_draws(np.array([10**12]), 1e300)[0] >= 1 << 62


def test_a_great_many_groups_and_extreme_shares():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(20_000, 0.01))
    room = rng.integers(0, 10**7, 20_000)
    counts = filled(shares, 10**10, room)
    assert counts.sum() == 10**10 and (counts <= room).all()
    tiny = filled(np.array([1.0, 5e-324]), 100, np.array([40, 1000]))
    assert tiny.tolist() == [40, 60]
