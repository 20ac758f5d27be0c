"""Groups from pairs: greedy, components and single linkage against plain loops and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tasks.select.groups import closest_first, components, greedy, persistence


def graph(seed, n=60, edges=90):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, n, (2, edges))
    apart = first != second
    first, second = first[apart], second[apart]
    _, once = np.unique(np.sort(np.stack([first, second]), axis=0), axis=1, return_index=True)
    similarity = rng.integers(50, 100, len(once)).astype(np.float32) / 100
    return (first[once], second[once], similarity), rng.permutation(n), n


@pytest.mark.parametrize("seed", range(5))
def test_greedy_is_the_plain_loop(seed):
    pairs, order, n = graph(seed)
    alike = {}
    for a, b, s in zip(*pairs):
        alike[int(a), int(b)] = alike[int(b), int(a)] = s
    wanted = np.full(n, -1)
    taken = np.zeros(n, bool)
    for row in order:
        if not taken[row]:
            taken[row] = True
            for other in order:
                if not taken[other] and (row, other) in alike:
                    taken[other], wanted[other] = True, row
    keeper, similarity = greedy(pairs, order, n)
    assert keeper.tolist() == wanted.tolist()
    for row in np.flatnonzero(keeper >= 0):
        assert similarity[row] == alike[int(row), int(keeper[row])]
    assert np.isnan(similarity[keeper < 0]).all()


@pytest.mark.parametrize("seed", range(5))
def test_linkage_gives_the_components_of_every_threshold(seed):
    pairs, order, n = graph(seed)
    keeper, similarity = persistence(pairs, order, n)
    place = np.argsort(order)
    for threshold in (0.5, 0.63, 0.77, 0.9, 1.01):
        near = pairs[2] >= np.float32(threshold)
        links = coo_array((np.ones(near.sum()), (pairs[0][near], pairs[1][near])), shape=(n, n))
        _, label = connected_components(links, directed=False)
        best = {c: min(np.flatnonzero(label == c), key=lambda row: place[row]) for c in range(label.max() + 1)}
        stays = np.isnan(similarity) | (similarity < np.float32(threshold))
        assert np.array_equal(stays, [best[c] == row for row, c in enumerate(label)])
        top, _ = components((pairs[0][near], pairs[1][near], pairs[2][near]), order, n)
        assert top.tolist() == [-1 if best[c] == row else best[c] for row, c in enumerate(label)]
    gone = keeper >= 0
    assert (place[keeper[gone]] < place[gone]).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_closest_pairs_go_first_and_no_pair_is_left(seed):
    pairs, order, n = graph(seed)
    place = np.argsort(order)
    keeper, similarity = closest_first(pairs, order, n)
    alike = {frozenset((int(a), int(b))): s for a, b, s in zip(*pairs)}
    gone = np.flatnonzero(keeper >= 0)
    assert all(alike[frozenset((int(row), int(keeper[row])))] == similarity[row] for row in gone)
    assert (place[keeper[gone]] < place[gone]).all()
    for threshold in (0.55, 0.7, 0.9):
        stays = ~(similarity >= np.float32(threshold))
        left = (pairs[2] >= np.float32(threshold)) & stays[pairs[0]] & stays[pairs[1]]
        assert not left.any()
        up = stays[keeper[gone]] | (similarity[keeper[gone]] <= similarity[gone])
        assert up.all()  # a keeper outlives the rows it stands for, or goes by a pair that is less alike


def test_no_rows_and_no_pairs():
    nothing = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    for rule in (greedy, components, persistence, closest_first):
        for n in (0, 3):
            keeper, similarity = rule(nothing, np.arange(n), n)
            assert keeper.tolist() == [-1] * n and np.isnan(similarity).all()
