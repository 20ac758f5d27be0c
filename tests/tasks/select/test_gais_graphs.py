"""GAIS-style (reconstructed) graphs: the worked example of every kind, blocks and quotas, what thresholds may change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from configs.methods.diversity import GaisGraph
from tasks.select import gais_graphs
from tasks.select.gais import build_graph
from tasks.select.gais_blocks import chunks, class_quotas, cover, held_out, sample
from tasks.select.gais_graphs import shared_pairs as shared
from tasks.select.gais_graphs import similar_pairs, similarity
from tasks.select.hashing import bucket_edges, sign_keys

X = np.array([(0, 0), (0.1, 0), (0, 0.2), (1, 1), (0.9, 1), (0.5, 0.6)])
Y = np.array([0, 0, 0, 1, 1, 1])
LABELS = st.lists(st.integers(0, 3), min_size=1, max_size=80).map(np.array)
ROWS = arrays(np.float64, st.tuples(st.integers(1, 12), st.just(3)), elements=st.integers(-4, 4).map(float))
KINDS = ["mini_batch", "chunks", "single_level", "multi_level", "multi_view"]


def pairs(edges):
    return [(i, j) for i, j in edges.T.tolist() if i < j]


def test_similarity_of_the_worked_example():
    upper = similarity(X, "euclidean")[np.triu_indices(6, 1)]
    assert np.allclose(
        upper,
        [0.909091, 0.833333, 0.414214, 0.426373, 0.561474, 0.817256, 0.426373, 0.438476, 0.581020, 0.438476, 0.453688]
        + [0.609640, 0.909091, 0.609640, 0.638698],
        atol=1e-6,
    )
    assert similarity(X, "manhattan")[0, 5] == pytest.approx(1 / 2.1)
    assert similarity(X, "cosine")[1, 2] == 0 and similarity(X, "cosine")[3, 4] == pytest.approx(0.998618, abs=1e-6)
    assert np.all(similarity(X, "cosine")[0] == 0)  # a row of zeros is like none


@pytest.mark.parametrize(
    ("threshold", "edges"),
    [
        (0.5, [(0, 1), (0, 2), (1, 2), (2, 5), (3, 4), (3, 5), (4, 5)]),
        (0.7, [(0, 1), (0, 2), (1, 2), (3, 4), (4, 5)]),
    ],
)
def test_mini_batch_of_the_worked_example(threshold, edges):
    found, weights = build_graph(X, Y, "mini_batch", similarity_threshold=threshold)
    assert pairs(found) == edges and np.all(weights == 1) and weights.dtype == np.float32
    assert sorted(map(tuple, found.T)) == sorted(map(tuple, found[::-1].T))  # both directions


def test_the_sibling_s_rule_counts_rows_as_pairs_with_themselves():
    found, _ = build_graph(X, Y, "mini_batch", similarity_threshold=0.5, include_diagonal=True)
    assert found.shape[1] == 16 and np.sum(found[0] == found[1]) == 6


def test_levels_and_views_of_the_worked_example():
    keys = sign_keys(X, np.array([(1, 0), (0, 1), (1, -1)], float), X.mean(axis=0))
    levels = {"kind": "multi_level", "bits": (3, 2, 1)}
    close = [(0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5)]
    found, weights = shared([keys], GaisGraph(**levels, agreement=0.5), 0)
    assert pairs(found) == close and np.allclose(weights, [1, 0.5, 0.5, 0.5, 0.5, 1])
    assert pairs(shared([keys], GaisGraph(**levels, agreement=0.6), 0)[0]) == [(0, 1), (4, 5)]
    assert pairs(shared([keys], GaisGraph(kind="single_level", bits=(3,)), 0)[0]) == [(0, 1), (4, 5)]
    views = [np.array([0, 0, 0, 1, 1, 1], np.uint64), np.array([0, 0, 0, 1, 1, 0], np.uint64)]
    every = {"kind": "multi_view", "bits": (1,)}
    strict = [(0, 1), (0, 2), (1, 2), (3, 4)]
    assert pairs(shared(views, GaisGraph(**every, agreement=1), 0)[0]) == strict
    loose = shared(views, GaisGraph(**every, agreement=0.5), 0)[0]
    assert sorted(pairs(loose)) == sorted(strict + [(0, 5), (1, 5), (2, 5), (3, 5), (4, 5)])


@given(ROWS, st.floats(0, 0.99))
def test_the_threshold_takes_its_share_of_pairs(x, threshold):
    similar = similarity(x, "euclidean")
    count = len(x) * (len(x) - 1) // 2
    found = similar_pairs(similar, threshold).shape[1]
    assert found <= (1 - threshold) * count + 1
    if len(np.unique(similar[np.triu_indices(len(x), 1)])) == count:  # no ties
        assert found >= (1 - threshold) * count - 1
    assert set(pairs(similar_pairs(similar, 0.99))) <= set(pairs(similar_pairs(similar, threshold)))


@given(ROWS, st.sampled_from(KINDS), st.integers(0, 5))
def test_every_graph_is_simple_and_undirected(x, kind, seed):
    found, weights = build_graph(x, np.arange(len(x)) % 2, kind, seed=seed)
    every = list(map(tuple, found.T.tolist()))
    assert every == sorted(set(every)) == sorted((j, i) for i, j in every) and found.dtype == np.int64
    assert all(i != j for i, j in every) and weights.shape == (len(every),) and np.all(weights > 0)
    again, _ = build_graph(x, np.arange(len(x)) % 2, kind, seed=seed)
    assert np.array_equal(found, again)


def blobs(n=400, d=6, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    return (rng.standard_normal((3, d)) * 2)[y] + rng.standard_normal((n, d)), y


@pytest.mark.parametrize(
    ("kind", "loose", "tight"),
    [
        ("mini_batch", {"similarity_threshold": 0.8}, {"similarity_threshold": 0.95}),
        ("single_level", {"bits": (4,), "max_bucket": 400}, {"bits": (9,), "max_bucket": 400}),
        ("multi_level", {"agreement": 0.2, "max_bucket": 400}, {"agreement": 0.8, "max_bucket": 400}),
        ("multi_view", {"agreement": 0.3, "max_bucket": 400}, {"agreement": 0.7, "max_bucket": 400}),
    ],
)
def test_a_tighter_threshold_only_takes_edges_away(kind, loose, tight):
    x, y = blobs()
    more, fewer = (set(map(tuple, build_graph(x, y, kind, **s)[0].T.tolist())) for s in (loose, tight))
    assert fewer < more and fewer


def test_pairs_are_told_apart_by_sorting(monkeypatch):
    keys = [np.arange(200, dtype=np.uint64) // np.uint64(30 + view) for view in range(2)]
    graph = GaisGraph(kind="single_level", tables=2, max_bucket=7)
    wanted = set().union(*(map(tuple, bucket_edges(key, max_bucket=7, seed=i).T) for i, key in enumerate(keys)))
    monkeypatch.setattr(np, "unique", None)  # it hashes, which takes ten times as long for millions of pairs
    assert list(map(tuple, shared(keys, graph, 0)[0].T)) == sorted(wanted)


@pytest.mark.parametrize("diagonal", [False, True])
def test_places_of_few_rows_alone_are_kept(diagonal):
    gais_graphs._kept_places.cache_clear()
    for n, kept in [(3, 1), (gais_graphs.KEPT_ROWS, 2), (gais_graphs.KEPT_ROWS + 1, 2)]:
        similar_pairs(np.eye(n, dtype=np.float32), 0.5, diagonal)
        assert gais_graphs._kept_places.cache_info().currsize == kept


def test_no_edge_leaves_its_batch_or_bucket():
    x, y = blobs()
    batch = np.empty(400, int)
    for place, rows in enumerate(cover(y, 60, 5)):
        batch[rows] = place
    found, _ = build_graph(x, y, "mini_batch", batch_rows=60, seed=5)
    assert found.shape[1] and np.array_equal(batch[found[0]], batch[found[1]])


@given(LABELS, st.integers(2, 30), st.integers(0, 3))
def test_cover_deals_every_row_once_and_evenly(y, batch_rows, seed):
    batches = cover(y, batch_rows, seed)
    assert sorted(np.concatenate(batches)) == list(range(len(y))) and len(batches) == -(-len(y) // batch_rows)
    for of in [None, *np.unique(y)]:
        counts = [len(rows) if of is None else int(np.sum(y[rows] == of)) for rows in batches]
        assert max(counts) - min(counts) <= 1


@given(LABELS, st.integers(2, 30), st.integers(1, 4))
def test_sample_draws_stratified_batches(y, batch_rows, batches):
    drawn = sample(y, batch_rows, batches, 1)
    assert [len(set(rows.tolist())) for rows in drawn] == [min(batch_rows, len(y))] * batches
    classes, counts = np.unique(y, return_counts=True)
    for rows in drawn:
        assert np.all(np.abs([np.sum(y[rows] == c) for c in classes] - counts * len(rows) / len(y)) < 1)


def test_quotas_and_chunks_of_the_worked_example():
    assert class_quotas(np.array([70, 25, 5]), 20).tolist() == [14, 5, 1]
    assert class_quotas(np.array([71, 26, 3]), 20).tolist() == [14, 5, 1]
    order = np.random.default_rng(3).permutation(10)
    assert [sorted(order[a:b]) for a, b in [(0, 4), (3, 7), (6, 10)]] == [c.tolist() for c in chunks(10, 4, 1, 3)]
    assert [len(c) for c in chunks(11, 4, 1, 0)] == [4, 4, 4, 2] and [len(c) for c in chunks(3, 4, 1, 0)] == [3]
    assert chunks(0, 4, 1, 0) == cover(np.zeros(0, int), 4, 0) == sample(np.zeros(0, int), 4, 0, 0) == []


@given(LABELS, st.sampled_from([0.0, 0.1, 0.5, 0.9]))
def test_no_class_is_held_out_whole(y, share):
    out = held_out(y, share, 0)
    assert set(y[~out]) == set(y) and np.sum(out) <= share * len(y) + 0.5 * len(set(y))


@pytest.mark.parametrize("kind", KINDS)
def test_degenerate_rows_have_a_graph(kind):
    equal = np.full((120, 3), 0.1, np.float32)
    found, _ = build_graph(equal, np.zeros(120, int), kind, max_bucket=7)
    if kind in ("mini_batch", "chunks"):
        assert found.shape == (2, 0)  # no pair is above the cut that all pairs are at
    else:
        assert np.bincount(found[0], minlength=120).min() >= 7 and found.shape[1] <= 2 * 7 * 120 * 4
    assert build_graph(np.zeros((1, 2)), [0], kind)[0].shape == (2, 0)
    assert build_graph(np.zeros((0, 2)), [], kind)[0].shape == (2, 0)


@pytest.mark.parametrize(
    "bad",
    [{"bits": (65,)}, {"bits": (4, 4)}, {"kind": "single_level", "bits": (8, 4)}, {"similarity_threshold": 1.0}]
    + [{"kind": "chunks", "overlap": 1000}, {"agreement": 0}],
)
def test_settings_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValidationError):
        GaisGraph(**{"kind": "multi_level", **bad})
