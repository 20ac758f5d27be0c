"""Closest pairs first in a cell: against all pairs at once, whatever the levels."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.select import closest, groups
from tasks.select.alike import Cell


def rows(seed, n=400, dim=12, clusters=9):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dim))
    vectors = centres[rng.integers(0, clusters, n)] + 0.4 * rng.standard_normal((n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("most", [50, 3000, 1 << 22])
@pytest.mark.parametrize("seed", range(3))
def test_levels_change_nothing(monkeypatch, seed, most):
    monkeypatch.setattr(closest, "MOST_PAIRS", most)
    monkeypatch.setattr(closest, "BLOCK", 128)
    vectors = rows(seed)
    link, similarity = closest.closest_first(Cell([vectors]))
    every = Cell([vectors]).similarities(np.arange(400), np.arange(400))
    i, j = np.nonzero(np.triu(every > 0, 1))
    wanted, alike = groups.closest_first((i, j, every[i, j]), np.arange(400), 400)
    assert np.mean(link == wanted) > 0.99  # a last bit of a product may turn a pair round
    assert np.array_equal(similarity == -np.inf, link < 0)
    assert np.allclose(np.sort(similarity[link >= 0])[-100:], np.sort(alike[wanted >= 0])[-100:], atol=1e-5)
    gone = np.flatnonzero(link >= 0)
    assert np.allclose(similarity[gone], np.sum(vectors[gone] * vectors[link[gone]], axis=1), atol=1e-5)
    assert (link[gone] < gone).all()


def test_no_pair_is_left_at_any_cut():
    vectors = rows(7)
    _, similarity = closest.closest_first(Cell([vectors]))
    for cut in (0.3, 0.7, 0.95):
        stands = vectors[~(similarity >= cut)].astype(np.float64)
        alike = stands @ stands.T - 2 * np.eye(len(stands))
        assert alike.max() < cut + 1e-5


def test_equal_and_opposed_rows_and_one_row(monkeypatch):
    monkeypatch.setattr(closest, "MOST_PAIRS", 2)
    vectors = np.array([[1, 0], [1, 1e-4], [-1, 0], [0, 1]], np.float32)
    link, _ = closest.closest_first(Cell([vectors]))
    assert link.tolist()[:3] == [-1, 0, -1]
    assert closest.closest_first(Cell([vectors[:1]]))[0].tolist() == [-1]
