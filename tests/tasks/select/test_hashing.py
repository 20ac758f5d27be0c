"""Keys of random projections and the pairs they make: the worked example, closed forms, bad input, linear growth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.select import hashing
from tasks.select.hashing import bucket_edges, random_planes, sign_keys

X = np.array([(0, 0), (0.1, 0), (0, 0.2), (1, 1), (0.9, 1), (0.5, 0.6)])
PLANES = np.array([(1, 0), (0, 1), (1, -1)], float)
KEYS = st.lists(st.integers(0, 6), max_size=60)


def test_the_worked_example():
    keys = sign_keys(X, PLANES, X.mean(axis=0))
    assert keys.tolist() == [1, 1, 0, 7, 6, 6] and keys.dtype == np.uint64
    assert bucket_edges(keys).tolist() == [[0, 4], [1, 5]]
    assert sign_keys(X, PLANES[:2], X.mean(axis=0)).tolist() == (keys >> np.uint64(1)).tolist() == [0, 0, 0, 3, 3, 3]


def test_a_tensor_gives_the_same_keys():
    import torch

    x = np.random.default_rng(0).standard_normal((500, 7)).astype(np.float32)
    planes, center = random_planes(40, 7, 1), x.mean(axis=0)
    assert np.array_equal(
        sign_keys(torch.from_numpy(x), torch.from_numpy(planes), center), sign_keys(x, planes, center)
    )


def test_keys_ignore_scale_and_mirror_into_their_complement():
    rng = np.random.default_rng(1)
    x, center, planes = rng.standard_normal((300, 5)), rng.standard_normal(5), random_planes(64, 5, 2)
    keys = sign_keys(x, planes, center)
    assert np.array_equal(keys, sign_keys(center + 7.5 * (x - center), planes, center))
    assert np.array_equal(~keys, sign_keys(2 * center - x, planes, center))


def test_bits_agree_as_often_as_the_angle_says():
    theta = np.pi / 3
    x = np.array([(1, 0), (np.cos(theta), np.sin(theta))])
    keys = np.concatenate([sign_keys(x, random_planes(64, 2, seed), np.zeros(2))[:, None] for seed in range(300)], 1)
    agree = 1 - np.bitwise_count(keys[0] ^ keys[1]).sum() / (64 * 300)
    assert abs(agree - 2 / 3) < 0.015
    triples = (keys[0] ^ keys[1]) & np.uint64(7)
    assert abs(np.mean(triples == 0) - 8 / 27) < 0.08


def test_a_row_does_not_depend_on_its_block(monkeypatch):
    x = np.random.default_rng(2).standard_normal((1000, 16)).astype(np.float32)
    whole = sign_keys(x, random_planes(12, 16, 0), np.zeros(16))
    monkeypatch.setattr(hashing, "BLOCK", 64)
    assert np.array_equal(whole, sign_keys(x, random_planes(12, 16, 0), np.zeros(16)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad):
    x = X.copy()
    x[4, 1] = bad
    with pytest.raises(ValueError, match="row 4"):
        sign_keys(x, PLANES, np.zeros(2))


def test_more_than_64_bits_are_refused():
    with pytest.raises(ValueError, match="`planes` is \\(65, 2\\).*64"):
        sign_keys(X, np.ones((65, 2)), np.zeros(2))
    with pytest.raises(ValueError, match="`x` is \\(6, 2\\)"):
        sign_keys(X, np.ones((3, 4)), np.zeros(2))
    assert sign_keys(np.zeros((0, 2)), PLANES, np.zeros(2)).shape == (0,)


def test_constant_rows_share_one_key():
    x = np.full((9, 3), 0.1, np.float32)
    assert set(sign_keys(x, random_planes(64, 3, 0), x[0]).tolist()) == {2**64 - 1}
    assert len(set(sign_keys(x, random_planes(64, 3, 0), x.mean(axis=0)).tolist())) == 1  # the mean is an ulp off


@given(KEYS)
def test_pairs_are_those_with_equal_keys(keys):
    wanted = [(i, j) for i in range(len(keys)) for j in range(i + 1, len(keys)) if keys[i] == keys[j]]
    edges = bucket_edges(np.array(keys, np.uint64), max_bucket=60)
    assert list(map(tuple, edges.T.tolist())) == wanted and edges.dtype == np.int64


@given(KEYS, st.integers(1, 5), st.integers(0, 9))
def test_a_capped_bucket_gives_every_row_enough_partners_and_no_more_work(keys, cap, seed):
    keys = np.array(keys, np.int64)
    edges = bucket_edges(keys, max_bucket=cap, seed=seed)
    assert np.all(edges[0] < edges[1]) and np.array_equal(keys[edges[0]], keys[edges[1]])
    assert edges.shape[1] == len(set(map(tuple, edges.T.tolist()))) <= len(keys) * cap
    degree = np.bincount(edges.ravel(), minlength=len(keys))
    sizes = np.array([np.sum(keys == key) for key in keys], np.int64)
    assert np.all(degree >= np.minimum(sizes - 1, cap))
    assert np.array_equal(edges, bucket_edges(keys, max_bucket=cap, seed=seed))


def test_partners_are_drawn_evenly():
    rows = np.arange(3000)
    drawn = hashing._drawn(len(rows), 10, 4, np.random.default_rng(0))
    assert all(len(set(row)) == 4 for row in drawn.tolist())
    assert np.all(np.abs(np.bincount(drawn.ravel(), minlength=10) - 1200) < 120)


def test_all_rows_equal_is_linear():
    edges = bucket_edges(np.zeros(100_000, np.uint64), max_bucket=8)
    degree = np.bincount(edges.ravel())
    assert edges.shape[1] <= 800_000 and len(degree) == 100_000 and degree.min() >= 8


def test_keys_must_be_whole_numbers():
    with pytest.raises(ValueError, match="`keys` is float64"):
        bucket_edges(np.zeros(3))
    with pytest.raises(ValueError, match="`max_bucket` is 0"):
        bucket_edges(np.zeros(3, int), max_bucket=0)
