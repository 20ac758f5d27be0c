"""MetaCLIP balancing: the worked example, two other forms of the same draw by Monte Carlo, and properties."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.annotate.captions import match
from tasks.mix.balance import entry_counts, entry_probabilities, keep_probabilities, p_to_t, t_to_p

METADATA = ["dog", "cat", "zebra", "dog on"]
TEXTS = [
    "a dog on grass",
    "dog, cat.",
    "zebra",
    "hotdog stand",
    "a dog",
    "cat and dog",
    "nothing here",
    "my cat",
    "Cat",
    "cat!",
]
MATCHES = [[0, 3], [0, 1], [2], [], [0], [0, 1], [], [1], [], [1]]
KEPT = [1, 0.75, 1, 0, 0.5, 0.75, 0, 0.5, 0, 0.5]

ROWS = st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=40)


def kept(rows, threshold, num_entries=10):
    return keep_probabilities(rows, entry_probabilities(entry_counts(rows, num_entries), threshold))


def test_the_worked_example():
    assert match(TEXTS, METADATA) == MATCHES
    counts = entry_counts(MATCHES, 4)
    assert counts.tolist() == [4, 4, 1, 1] and counts.dtype == np.int64
    p = entry_probabilities(counts, 2)
    assert p.tolist() == [0.5, 0.5, 1, 1]
    told = keep_probabilities(MATCHES, p)
    assert told.tolist() == KEPT and told.sum() == 5.0 and told.dtype == np.float64
    assert t_to_p(counts, 2) == 0.2 and p_to_t(counts, 0.2) == 1


def test_every_form_of_matches_is_the_same():
    p = [0.5, 0.5, 1, 1]
    offsets = np.array([0, 2, 4, 5, 5, 6, 8, 8, 9, 9, 10])
    ids = np.array([0, 3, 0, 1, 2, 0, 0, 1, 1, 1])
    forms = [
        (offsets, ids),
        (offsets.astype(np.int32), ids.astype(np.int32)),
        (offsets + 2, np.concatenate((np.full(2, 99), ids, np.full(3, -1)))),  # what no row holds is not looked at
        tuple(MATCHES),
        [np.array(row, np.int16) for row in MATCHES],
        [row or None for row in MATCHES],
        pa.array(MATCHES, pa.list_(pa.int32())),
        pa.array(MATCHES, pa.large_list(pa.uint16())),
        pa.array([[9], [9, 9], *MATCHES], pa.list_(pa.int64())).slice(2),
        pa.array([row or None for row in MATCHES], pa.list_(pa.int64())),
        pa.chunked_array([MATCHES[:3], MATCHES[3:]], pa.list_(pa.int8())),
        [row * 3 for row in MATCHES],  # repeats count once
    ]
    for form in forms:
        assert keep_probabilities(form, p).tolist() == KEPT
        assert entry_counts(form, 4).tolist() == [4, 4, 1, 1]
    wide = pa.array([[0, 1], None, [1, 1]], pa.list_(pa.int8(), 2))
    assert keep_probabilities(wide, [0.5, 0.25]).tolist() == [0.625, 0, 0.25]


def test_no_texts_and_no_entries():
    for nothing in ([], (np.zeros(1, np.int64), np.empty(0, np.int64)), pa.array([], pa.list_(pa.int64()))):
        assert keep_probabilities(nothing, []).tolist() == [] and entry_counts(nothing, 0).tolist() == []
    assert keep_probabilities([[], None], []).tolist() == [0, 0]
    assert entry_probabilities([], 5).tolist() == []


def test_an_entry_that_no_text_matches_is_tail_and_zero_and_infinity_are_defined():
    assert entry_probabilities([0, 3, 6], 3).tolist() == [1, 1, 0.5]
    assert entry_probabilities([0, 3, 6], 0).tolist() == [0, 0, 0]
    assert entry_probabilities([0, 3, 6], np.inf).tolist() == [1, 1, 1]
    assert entry_probabilities([0, 3, 6], 1.5).tolist() == [1, 0.5, 0.25]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: entry_probabilities([1, -2], 1), "`counts` holds -2; each must be a whole number of at least 0"),
        (lambda: entry_probabilities([1, 0.5], 1), "`counts` holds 0.5; each"),
        (lambda: entry_probabilities([1, np.nan], 1), "`counts` holds nan; each"),
        (lambda: entry_probabilities([[1]], 1), r"`counts` is int64 of shape \(1, 1\); it must be one row"),
        (lambda: entry_probabilities(["a"], 1), "`counts` is <U1 of shape"),
        (lambda: entry_probabilities([1], -1), "`threshold` is -1; it must be at least 0"),
        (lambda: entry_probabilities([1], np.nan), "`threshold` is nan; it must be at least 0"),
        (lambda: t_to_p([1], -1), "`threshold` is -1"),
        (lambda: t_to_p([0, 0], 1), "`counts` sums to 0; a tail share needs"),
        (lambda: p_to_t([], 0.5), "`counts` sums to 0"),
        (lambda: p_to_t([1], 1.5), r"`share` is 1.5; it must be in \[0, 1\]"),
        (lambda: p_to_t([1], np.nan), "`share` is nan"),
        (lambda: keep_probabilities([[0]], [1.5]), r"`probabilities` holds 1.5 at 0; each must be in \[0, 1\]"),
        (lambda: keep_probabilities([[0]], [0, np.nan]), "`probabilities` holds nan at 1"),
        (lambda: keep_probabilities([[0]], 0.5), r"`probabilities` has shape \(\)"),
        (lambda: keep_probabilities([[0, 4]], [1, 1]), r"`matches` holds 4; an id must be in \[0, 2\)"),
        (lambda: keep_probabilities([[-1]], [1, 1]), r"`matches` holds -1; an id must be in \[0, 2\)"),
        (lambda: keep_probabilities([[0.5]], [1]), "`matches` holds float64 of shape"),
        (lambda: keep_probabilities(["ab"], [1]), "`matches` holds <U1 of shape"),
        (lambda: keep_probabilities(pa.array(["ab"]), [1]), "`matches` is Arrow string; it must be a list of integers"),
        (lambda: keep_probabilities(pa.array([["a"]]), [1]), "`matches` is Arrow list<"),
        (lambda: keep_probabilities(pa.array([[0, None]]), [1]), "`matches` holds a null id"),
        (lambda: keep_probabilities((np.array([0, 2, 1]), np.array([0, 0])), [1]), "`matches` has offsets that do not"),
        (lambda: keep_probabilities((np.array([0, 3]), np.array([0, 0])), [1]), "`matches` has offsets that do not"),
    ],
)
def test_bad_arguments_are_named_with_value_and_rule(call, said):
    with pytest.raises(ValueError, match=said):
        call()


# ---------------------------------------------------------------------------------------------------------- properties
def brute(rows, threshold):
    """The definition, in plain Python."""
    count = [sum(e in row for row in rows) for e in range(10)]
    result = []
    for row in rows:
        lost = 1.0
        for e in set(row):
            lost *= 1 - (threshold / max(count[e], threshold) if threshold else 0)
        result.append(1 - lost)
    return result


@given(ROWS, st.sampled_from([0, 0.5, 1, 2, 3.7, 10, 100]))
def test_it_is_the_definition(rows, threshold):
    assert np.allclose(kept(rows, threshold), brute(rows, threshold), rtol=0, atol=1e-12)


@given(ROWS, st.integers(1, 12))
def test_a_tail_entry_always_keeps_and_no_match_never(rows, threshold):
    counts, told = entry_counts(rows, 10), kept(rows, threshold)
    for row, p in zip(rows, told):
        assert p == 1 if any(counts[e] <= threshold for e in row) else p < 1
        assert (p == 0) == (not row)


@given(ROWS, st.integers(1, 12))
def test_of_a_head_entry_at_least_t_are_expected_and_t_of_one_alone(rows, threshold):
    counts, told = entry_counts(rows, 10), kept(rows, threshold)
    for e in np.flatnonzero(counts > threshold):
        mine = [p for row, p in zip(rows, told) if e in row]
        assert sum(mine) >= threshold * (1 - 1e-12)
        if all(set(row) == {e} for row in rows if e in row):
            assert sum(mine) == pytest.approx(threshold, rel=1e-12)


@given(ROWS, st.floats(0, 50), st.floats(0, 50))
def test_a_larger_t_never_lowers_a_probability(rows, one, other):
    low, high = sorted((one, other))
    assert np.all(kept(rows, low) <= kept(rows, high))


@given(ROWS)
def test_t_of_the_largest_count_keeps_every_match_and_t_zero_none(rows):
    matched = [bool(row) for row in rows]
    largest = entry_counts(rows, 10).max()
    for threshold in (max(1, largest), largest + 7, np.inf):
        assert kept(rows, threshold).tolist() == matched
    assert not kept(rows, 0).any()


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30).filter(any), st.integers(0, 35))
def test_shares_and_thresholds_answer_each_other(counts, t):
    below = [c for c in counts if c < t]
    assert t_to_p(counts, t) == pytest.approx(sum(below) / sum(counts))
    if any(below):  # the share of all counts below t leads to the largest of them
        assert p_to_t(counts, t_to_p(counts, t)) == max(below)
    assert p_to_t(counts, 1) == max(counts) and t_to_p(counts, max(counts) + 1) == 1


# -------------------------------------------------------------------------------------- three forms, one distribution
def early_exit(rows, p, rng):
    """The paper's loop: a text stays at the first of its entries whose draw succeeds."""
    kept = np.zeros(len(rows), bool)
    for i, row in enumerate(rows):
        for e in row:
            if rng.random() < p[e]:
                kept[i] = True
                break
    return kept


def inverted_index(rows, p, rng):
    """One draw for every (entry, text) of the inverted index; the texts that appear are kept."""
    index = np.array([(e, i) for i, row in enumerate(rows) for e in row]).reshape(-1, 2)
    hit = rng.random(len(index)) < p[index[:, 0]]
    kept = np.zeros(len(rows), bool)
    kept[np.unique(index[hit, 1])] = True
    return kept


def product_formula(rows, p, rng):
    """One draw a text."""
    return rng.random(len(rows)) < keep_probabilities(rows, p)


@pytest.mark.parametrize("form", [early_exit, inverted_index, product_formula])
def test_three_forms_keep_each_text_as_often_and_as_many(form):
    """Relative frequency over 4,000 draws within 5 sigma of P, for 62 numbers: false alarms once in 30,000 seeds."""
    maker = np.random.default_rng(7)
    rows = MATCHES + [maker.choice(4, maker.integers(0, 4), replace=False).tolist() for _ in range(50)]
    p = entry_probabilities(entry_counts(rows, 4), 5)
    wanted = keep_probabilities(rows, p)
    rng, draws = np.random.default_rng(11), 4000
    seen = np.array([form(rows, p, rng) for _ in range(draws)])
    sigma = np.sqrt(wanted * (1 - wanted) / draws)
    assert np.all(np.abs(seen.mean(axis=0) - wanted) <= 5 * sigma)
    sizes, variance = seen.sum(axis=1), (wanted * (1 - wanted)).sum()
    assert abs(sizes.mean() - wanted.sum()) <= 5 * np.sqrt(variance / draws)
    assert sizes.var() == pytest.approx(variance, rel=0.15)  # the spread that is told beside the expected size
