"""The graph of skills: the worked example by hand, and what must hold of any graph, score and merging."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import StageError
from tasks.score import skills
from tasks.score.skill_graph import ablated, adjacency, degrees, direction, merge, scores

LIN, QUAD, GEO = range(3)
PROBLEMS = [[LIN, QUAD], [LIN, QUAD, GEO], [GEO], [LIN]]
SIMILARITY = np.array([[0.9, 0.1, 0], [0.3, 0.8, 0.1], [0.1, 0.2, 0.7]])
GOLDEN = {
    "unordered": (
        [[0.428571, 0.5, 0.25], [0.5, 0.285714, 0.25], [0.25, 0.25, 0.285714]],
        [1.178571, 1.035714, 0.785714],
        [1.164286, 1.260714, 0.875],
    ),
    "ordered": (
        [[0.428571, 0.25, 0.125], [0.25, 0.285714, 0.125], [0.125, 0.125, 0.285714]],
        [0.803571, 0.660714, 0.535714],
        [0.789286, 0.823214, 0.5875],
    ),
}
PARTS = ["full", "nodes", "edges", "none"]
SIZE = 6
sets = st.lists(st.lists(st.integers(0, SIZE - 1), max_size=8), min_size=1, max_size=12)
conventions = st.sampled_from(["unordered", "ordered"])


def full_scores(similarity, weights):
    """The row sums of the whole product S A, as the paper has it."""
    return (similarity @ weights.toarray()).sum(axis=1)


def unit(rng, count, dim=5):
    vectors = rng.standard_normal((count, dim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def csr(rows):
    return np.cumsum([0, *map(len, rows)]), np.array([i for row in rows for i in row], np.int64)


# ---------------------------------------------------------------------------------------------------------------- graph
@pytest.mark.parametrize("pairs", ["unordered", "ordered"])
def test_worked_example(pairs):
    matrix, sums, expected = GOLDEN[pairs]
    weights = adjacency(PROBLEMS, 3, pairs=pairs)
    np.testing.assert_allclose(weights.toarray(), matrix, atol=1e-6)
    np.testing.assert_allclose(weights.sum(axis=1), sums, atol=1e-6)
    found = scores(SIMILARITY, weights)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.argsort(-found).tolist() == [1, 0, 2]


def test_lists_come_in_four_ways_and_repeats_count_once():
    expected = adjacency(PROBLEMS, 4).toarray()
    repeated = [[*row, *row[:1]] for row in PROBLEMS]
    arrow = pa.array(repeated, pa.list_(pa.int32()))
    for given_ in (repeated, arrow, pa.chunked_array([arrow[:2], arrow[2:]]), csr(repeated)):
        assert (adjacency(given_, 4).toarray() == expected).all()
    assert not expected[3].any()  # a skill that nobody has


@given(sets, conventions, st.integers(1, 3))
def test_weights_of_skills_and_of_pairs_sum_to_one_each(rows, pairs, least):
    weights = adjacency(rows, SIZE, pairs=pairs, min_cooccurrence=least).toarray()
    nodes, edges = np.diag(weights), weights - np.diag(np.diag(weights))
    assert (weights >= 0).all() and (weights == weights.T).all()
    assert nodes.sum() == pytest.approx(1 if any(rows) else 0)
    joined = [(i, j) for i in range(SIZE) for j in range(i) if sum(i in row and j in row for row in rows) >= least]
    assert {(i, j) for i, j in np.argwhere(edges).tolist() if j < i} == set(joined)
    assert edges.sum() / (2 if pairs == "unordered" else 1) == pytest.approx(1 if joined else 0)


@given(sets, conventions, st.permutations(range(SIZE)), st.integers(2, 4))
def test_names_of_skills_and_copies_of_all_rows_do_not_matter(rows, pairs, order, times):
    weights = adjacency(rows, SIZE, pairs=pairs).toarray()
    renamed = adjacency([[order[i] for i in row] for row in rows], SIZE, pairs=pairs).toarray()
    np.testing.assert_allclose(renamed[np.ix_(order, order)], weights, rtol=1e-12)
    np.testing.assert_allclose(adjacency(rows * times, SIZE, pairs=pairs).toarray(), weights, rtol=1e-12)


def test_a_skill_that_meets_none_and_a_graph_that_is_complete():
    weights = adjacency([[0, 1], [2], [2]], 3).toarray()
    assert weights[2].tolist() == [0, 0, 0.5]
    complete = adjacency([[i, j] for i in range(5) for j in range(i)], 5)
    np.testing.assert_allclose(complete.sum(axis=1), np.full(5, 0.2 + 0.4))


@given(sets, conventions, st.sampled_from(PARTS), st.integers(1, 3))
def test_row_sums_come_from_sums_of_counts(rows, pairs, parts, least):
    meetings = skills.Meetings(SIZE, least)
    for part in (rows[:3], rows[3:]):
        meetings.add(*csr([list(dict.fromkeys(row)) for row in part]))
    weights = ablated(adjacency(rows, SIZE, pairs=pairs, min_cooccurrence=least), parts)
    expected = weights.toarray().sum(axis=1)
    np.testing.assert_allclose(degrees(meetings.rows, meetings.met(), pairs, parts), expected, atol=1e-12)


def test_pairs_are_counted_in_pieces_and_have_an_end(monkeypatch):
    rng = np.random.default_rng(0)
    rows = [rng.choice(40, 5, replace=False).tolist() for _ in range(300)]
    monkeypatch.setattr(skills, "HELD", 50)
    meetings = skills.Meetings(40, 2)
    for at in range(0, 300, 7):
        meetings.add(*csr(rows[at : at + 7]))
    expected = adjacency(rows, 40, min_cooccurrence=2).toarray().sum(axis=1)
    np.testing.assert_allclose(degrees(meetings.rows, meetings.met()), expected, atol=1e-12)
    monkeypatch.setattr(skills, "MOST_PAIRS", 10)
    with pytest.raises(StageError, match="more than 10 pairs of skills for `min_cooccurrence` 2; set it to 1"):
        skills.Meetings(40, 2).add(*csr(rows[:30]))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (([[0, 3]], 3), "holds 3; it must be below 3"),
        (([[-1]], 3), "holds -1"),
        ((csr([[0, 3]]), 3), r"`ids` go from 0 to 3; they must be in \[0, 3\)"),
        (([[0]], 0), "`num_skills` is 0"),
    ],
)
def test_what_is_no_skill(arguments, told):
    with pytest.raises(ValueError, match=told):
        adjacency(*arguments)


def test_unknown_choices():
    weights = adjacency(PROBLEMS, 3)
    with pytest.raises(ValueError, match="`pairs` is 'both'"):
        adjacency(PROBLEMS, 3, pairs="both")
    with pytest.raises(ValueError, match="`parts` is 'some'; it must be one of full, nodes, edges, none"):
        ablated(weights, "some")
    with pytest.raises(ValueError, match="`rule` is 'all'"):
        merge(np.eye(2), np.ones(2), 0.9, "all")


# --------------------------------------------------------------------------------------------------------------- scores
@given(sets, conventions, st.sampled_from(PARTS), st.integers(0, 99))
def test_one_dot_product_is_the_row_sum_of_the_full_product(rows, pairs, parts, seed):
    rng = np.random.default_rng(seed)
    vectors, texts = unit(rng, SIZE), unit(rng, 20)
    weights = ablated(adjacency(rows, SIZE, pairs=pairs), parts)
    expected = full_scores(texts @ vectors.T, weights)
    np.testing.assert_allclose(scores(texts @ vectors.T, weights), expected, atol=1e-12)
    np.testing.assert_allclose(texts @ direction(vectors, weights), expected, atol=1e-12)


def test_what_points_along_g_is_best_equal_rows_are_equal_and_none_is_nought():
    rng = np.random.default_rng(1)
    vectors = unit(rng, SIZE)
    towards = direction(vectors, adjacency([[0, 1], [1, 2, 3], [5]], SIZE))
    best = towards / np.linalg.norm(towards)
    texts = np.vstack([unit(rng, 500), best])
    found = texts @ towards
    assert found.argmax() == 500 and found[500] == pytest.approx(np.linalg.norm(towards))
    assert (np.argsort(texts @ best) == np.argsort(found)).all()
    twice = scores(np.vstack([SIMILARITY, SIMILARITY[:1]]), adjacency(PROBLEMS, 3))
    assert twice[0] == twice[3]
    assert scores(np.zeros((1, 3)), adjacency(PROBLEMS, 3)) == [0]


def test_a_skill_that_is_more_frequent_lifts_what_is_near_it():
    near_geo, near_lin = SIMILARITY[2:3], SIMILARITY[:1]
    gaps = []
    for more in range(4):
        weights = adjacency(PROBLEMS + [[GEO]] * more, 3)
        gaps.append(float((scores(near_geo, weights) - scores(near_lin, weights))[0]))
    assert gaps == sorted(gaps) and gaps[0] < gaps[-1]


def test_ablations():
    weights = adjacency(PROBLEMS, 3)
    np.testing.assert_allclose(scores(SIMILARITY, ablated(weights, "none")), SIMILARITY.mean(axis=1))
    np.testing.assert_allclose(scores(SIMILARITY, ablated(weights, "nodes")), SIMILARITY @ [3 / 7, 2 / 7, 2 / 7])
    together = scores(SIMILARITY, ablated(weights, "nodes")) + scores(SIMILARITY, ablated(weights, "edges"))
    np.testing.assert_allclose(together, scores(SIMILARITY, weights))


# -------------------------------------------------------------------------------------------------------------- merging
def test_a_chain_is_one_component_but_greedy_merges_about_the_commonest():
    angles = np.deg2rad([0, 20, 40, 90])
    vectors = np.column_stack([np.cos(angles), np.sin(angles)])
    assert merge(vectors, np.array([5, 1, 3, 1]), 0.9).tolist() == [0, 0, 2, 3]
    assert merge(vectors, np.array([1, 9, 3, 1]), 0.9).tolist() == [1, 1, 1, 3]
    assert merge(vectors, np.array([5, 1, 3, 1]), 0.9, "components").tolist() == [0, 0, 0, 3]


@given(st.integers(0, 999), st.floats(-0.5, 0.99), st.sampled_from(["greedy", "components"]))
def test_merging_once_is_merging_twice(seed, threshold, rule):
    rng = np.random.default_rng(seed)
    vectors, counts = unit(rng, 30, 3), rng.integers(1, 9, 30)
    vectors[7] = 0
    into = merge(vectors, counts, threshold, rule)
    kept = np.unique(into)
    assert (into[kept] == kept).all() and into[7] == 7
    again = merge(vectors[kept], np.bincount(into, counts)[kept], threshold, rule)
    assert (again == np.arange(len(kept))).all()
    assert (counts[into] >= counts).all()


@given(st.integers(0, 999), st.floats(-0.5, 0.99), st.sampled_from(["greedy", "components"]))
def test_merging_is_what_the_plain_loop_does(seed, threshold, rule):
    rng = np.random.default_rng(seed)
    vectors, counts = unit(rng, 25, 3), rng.integers(1, 4, 25)
    near = vectors @ vectors.T > threshold
    expected = np.full(25, -1)
    for leader in np.argsort(-counts, kind="stable"):
        if expected[leader] < 0:
            reached = near[leader]
            for _ in range(25 if rule == "components" else 0):
                reached = reached | near[reached].any(axis=0)
            expected[reached & (expected < 0)] = leader
            expected[leader] = leader
    assert merge(vectors, counts, threshold, rule).tolist() == expected.tolist()


@pytest.mark.parametrize("rule", ["greedy", "components"])
def test_thresholds_beyond_cosines(rule):
    vectors = np.vstack([np.eye(3), -np.eye(3), np.eye(3)])
    counts = np.array([1, 1, 4, 1, 1, 1, 1, 1, 1])
    assert merge(vectors, counts, 1.01, rule).tolist() == list(range(9))
    assert merge(vectors, counts, -1, rule).tolist() == [2] * 9
    assert merge(np.zeros((2, 4)), np.ones(2), 0.5, rule).tolist() == [0, 1]
    assert merge(np.eye(3), np.ones(3), 0.0, rule).tolist() == [0, 1, 2]  # above the threshold, not at it


def test_merging_more_than_a_block_of_skills():
    rng = np.random.default_rng(0)
    centres = unit(rng, 1500, 48).astype(np.float32)
    noisy = np.vstack([centres, centres + rng.standard_normal((3000, 48)).reshape(2, 1500, 48).sum(0) * 0.01])
    counts = np.concatenate([np.full(1500, 9), rng.integers(1, 5, 1500)])
    into = merge(noisy / np.linalg.norm(noisy, axis=1, keepdims=True), counts, 0.9)
    assert (into == np.tile(np.arange(1500), 2)).all()
