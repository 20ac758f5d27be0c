"""GAIS-style (reconstructed) selection: attention in closed form, training that repeats, what is kept, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.methods.diversity import GaisGraph, GaisNetwork, GaisScore
from tasks.select.gais import (
    build_graph,
    confidence,
    importance,
    keep_percentile,
    keep_top,
    scaled,
    scores,
    select,
    trained,
)
from tasks.select.gais_attention import arcs
from tasks.select.gais_graphs import Nodes, row_graph
from tasks.select.gais_network import Network, node_scores, steps
from tasks.select.gais_scores import above_percentile, aggregated, class_sizes, effectiveness, reduction

X = np.array([(0, 0), (0.1, 0), (0, 0.2), (1, 1), (0.9, 1), (0.5, 0.6)])
Y = np.array([0, 0, 0, 1, 1, 1])
IMPORTANCE = [0.532397, 0.588390, 0.771856, 0.745502, 0.674558, 0.829843]
QUICK = GaisNetwork(layers=1, hidden=4, heads=2, output_heads=1, epochs=4)


def blobs(n=240, d=5, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return ((rng.standard_normal((3, d)) * 2)[y] + rng.standard_normal((n, d))).astype(np.float32), y


def one_head(features=2):
    """One layer, one head, W = I, a_src = (1, 0), a_dst = (0, 1)."""
    import torch

    settings = {"layers": 1, "hidden": features, "heads": 1, "output_heads": 1}
    network = Network(GaisNetwork(**settings), features, 2, seed=0)
    with torch.no_grad():
        network.layers[0].lin.weight.copy_(torch.eye(features))
        network.layers[0].att_src[0, 0] = torch.eye(features)[0]
        network.layers[0].att_dst[0, 0] = torch.eye(features)[1]
    network.layers.eval()
    return network


def received(network, x, edges):
    import torch

    with torch.no_grad():
        looped, (alpha, *_) = network.attention(torch.tensor(x, dtype=torch.float32), arcs(edges, len(x)))
    return looped.numpy(), alpha.numpy()


def test_attention_of_the_worked_example():
    edges, _ = build_graph(X, Y, "mini_batch", similarity_threshold=0.5)
    looped, alpha = received(one_head(), X, edges)
    dense = np.zeros((6, 6))
    dense[looped[0], looped[1]] = alpha[:, 0]
    assert np.allclose(dense[[0, 1, 2], 0], [0.322043, 0.355913, 0.322043], atol=1e-6)
    assert np.allclose(dense[[0, 1, 2, 5], 2], [0.210354, 0.232477, 0.210354, 0.346815], atol=1e-6)
    assert np.allclose(dense[[2, 3, 4, 5], 5], [0.127769, 0.347313, 0.314262, 0.210656], atol=1e-6)
    assert np.allclose(dense.sum(axis=0), 1, atol=1e-6)
    assert np.allclose(dense.sum(axis=1), [0.854441, 0.944303, 0.982210, 1.143692, 1.034855, 1.040499], atol=1e-6)
    found = importance(looped, alpha, 6)
    assert np.allclose(found, IMPORTANCE, atol=1e-6) and found.dtype == np.float32
    assert found.sum() == pytest.approx(6 - np.trace(dense), abs=1e-5)
    mean = importance(looped, alpha, 6, per_edge=True)
    assert np.allclose(mean, [0.266199, 0.294195, 0.257285, 0.372751, 0.337279, 0.276614], atol=1e-6)


def test_torch_and_numpy_importance_are_the_same():
    import torch

    looped, alpha = received(one_head(), X, build_graph(X, Y, similarity_threshold=0.5)[0])
    for per_edge in (False, True):
        other = importance(torch.from_numpy(looped), torch.from_numpy(alpha), 6, per_edge=per_edge)
        assert np.allclose(other.numpy(), importance(looped, alpha, 6, per_edge=per_edge), atol=1e-7)
    with pytest.raises(ValueError, match="`attention` \\(3,\\)"):
        importance(looped, alpha[:3, 0], 6)


def test_selection_of_the_worked_example():
    value = np.array(IMPORTANCE)
    assert keep_top(value, Y, 0.34).tolist() == [1, 2, 3, 5]
    assert keep_percentile(value, Y, 0.6).tolist() == [2, 5]
    assert keep_percentile(np.ones(6), Y, 0.6).tolist() == [0, 3] == keep_top(np.ones(6), Y, 0.1).tolist()


def test_complete_graph_star_isolated_row_and_static_attention():
    n = 7
    complete = np.array([(i, j) for i in range(n) for j in range(n) if i != j]).T
    looped, alpha = received(one_head(), np.full((n, 2), 0.3), complete)
    assert np.allclose(alpha, 1 / n) and np.allclose(importance(looped, alpha, n), (n - 1) / n)
    star = np.array([(0, j) for j in range(1, n)] + [(j, 0) for j in range(1, n)]).T
    looped, alpha = received(one_head(), np.full((n + 1, 2), 0.3), star)  # the last row stays alone
    assert np.allclose(importance(looped, alpha, n + 1), [(n - 1) / 2, *[1 / n] * (n - 1), 0], atol=1e-6)
    x = np.random.default_rng(0).standard_normal((n, 2))
    looped, alpha = received(one_head(), x, complete)
    dense = np.zeros((n, n))
    dense[looped[0], looped[1]] = alpha[:, 0]
    assert all(np.array_equal(np.argsort(dense[:, i]), np.argsort(dense[:, 0])) for i in range(n))


@given(st.integers(0, 9), st.sampled_from(["mean", "median", "max", "product", "entropy", "magnitude"]))
def test_importance_is_never_negative_and_adds_up(seed, how):
    import torch

    x, y = blobs(60, seed=seed)
    nodes = row_graph(x, y, GaisGraph(similarity_threshold=0.8), seed)
    network = Network(GaisNetwork(layers=2, hidden=3, heads=2), 5, 3, seed=seed)
    network.layers.eval()
    with torch.no_grad():
        looped, alphas = network.attention(torch.tensor(x), arcs(nodes.edges, 60))
        joint = aggregated(alphas, looped, how)
    found = importance(looped, joint, 60).numpy()
    assert np.all(found >= 0) and np.all(np.isfinite(found))
    own = joint.mean(1)[looped[0] == looped[1]].sum()
    if how in ("mean", "product", "entropy", "magnitude"):
        assert found.sum() == pytest.approx(60 - float(own), abs=1e-3)
    assert np.all(importance(looped[:, :0], joint[:0], 60).numpy() == 0)


@given(st.integers(0, 9), st.sampled_from(["attention", "confidence", "both"]))
def test_relabelling_rows_relabels_their_scores(seed, score):
    x, y = blobs(50, seed=seed)
    x[7], y[7] = x[3], y[3]  # equal rows have equal neighbours here: neither is joined to the other only
    order = np.random.default_rng(seed).permutation(50)
    network = Network(QUICK, 5, 3, seed=seed)
    graph = GaisGraph(similarity_threshold=0.8)
    here, there = (
        node_scores(network, (a, b), row_graph(a, b, graph, 0), GaisScore(kind=score))
        for a, b in [(x, y), (x[order], y[order])]
    )
    assert np.allclose(here[order], there, atol=1e-5) and here[3] == pytest.approx(here[7], abs=1e-5)


def test_steps_hold_every_edge_once_and_change_no_score():
    x, y = blobs(240)
    nodes = row_graph(x, y, GaisGraph(batch_rows=30, similarity_threshold=0.8), 0)
    parts = steps(nodes, 500)
    assert len(parts) > 3 and sorted(np.concatenate([p.nodes for p in parts])) == list(range(240))
    back = np.concatenate([p.nodes[p.edges] for p in parts], axis=1)
    assert sorted(map(tuple, back.T.tolist())) == list(map(tuple, nodes.edges.T.tolist()))
    network = Network(QUICK, 5, 3, seed=0)
    whole = node_scores(network, (x, y), nodes, GaisScore())
    for part in parts:
        own = Nodes(nodes.rows[part.nodes], part.edges, np.ones(part.edges.shape[1], np.float32))
        assert np.allclose(whole[part.nodes], node_scores(network, (x, y), own, GaisScore()), atol=1e-5)


@pytest.mark.parametrize("score", ["attention", "confidence", "both"])
@pytest.mark.parametrize("graph", ["mini_batch", "chunks", "single_level", "multi_level", "multi_view", "none"])
def test_the_same_seed_keeps_the_same_rows_of_every_class(graph, score):
    x, y = blobs()
    first, again = (select(x, y, keep_ratio=0.1, graph=graph, score=score, network=QUICK, seed=4) for _ in range(2))
    assert np.array_equal(first, again) and first.dtype == np.int64
    assert np.bincount(y[first]).tolist() == [8, 8, 8] and len(set(first.tolist())) == 24
    assert np.array_equal(first, np.sort(first))


def test_training_does_not_touch_the_common_generator_or_settings():
    import torch

    torch.manual_seed(5)
    wanted, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(5)
    select(*blobs(60), network=QUICK)
    assert torch.equal(torch.rand(3), wanted) and torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_network_learns_and_a_mislabelled_row_comes_last():
    x, y = blobs(300)
    wrong = y.copy()
    wrong[0] = (y[0] + 1) % 3
    settings = GaisNetwork(layers=1, hidden=8, epochs=100, dropout=0, focus=0)
    own = scores(x, wrong, graph="none", score="confidence", network=settings)
    likeliest = scores(x, wrong, graph="none", score=GaisScore(kind="confidence", true_class=False), network=settings)
    assert np.mean(own) > 0.6 and own[0] < 0.2 < likeliest[0]
    assert confidence(np.log([[0.2, 0.8]])).tolist() == pytest.approx([0.8])
    assert confidence(np.log([[0.2, 0.8]]), np.array([0])).tolist() == pytest.approx([0.2])


@pytest.mark.parametrize(("kind", "part"), [("mini_batch", 0.2), ("single_level", 0.6), ("none", 0.95)])
def test_the_usual_network_learns(kind, part):
    import torch

    x, y = blobs(240, seed=1)
    x = scaled(x, x.min(axis=0), x.max(axis=0))
    training = trained(Network(GaisNetwork(epochs=40), 5, 3, seed=0), x, y, GaisGraph(kind=kind), 0)
    learned = training.run()
    learned.layers.eval()
    with torch.no_grad():
        right = [learned.forward(*step).argmax(1) == step[2] for step in training._learn]
    assert torch.cat(right).float().mean() > 0.8  # chance is a third
    assert training.best < part * training.losses[0]  # focal: small from the start


def test_training_goes_on_from_a_checkpoint_as_if_nothing_had_happened():
    x, y = blobs()
    graph, config = GaisGraph(), GaisNetwork(layers=1, hidden=4, heads=2, epochs=8)
    saved = []
    whole = trained(Network(config, 5, 3, seed=0), x, y, graph, 0)
    whole.run(saved.append)
    resumed = trained(Network(config, 5, 3, seed=0), x, y, graph, 0)
    resumed.restore(saved[3])
    assert resumed.epoch == 4
    resumed.run()
    assert resumed.losses == whole.losses and len(saved) == 8
    for name, value in whole.network.parameters().items():
        assert np.array_equal(value.detach().numpy(), resumed.network.parameters()[name].detach().numpy())


def test_training_stops_early_and_keeps_the_best_epoch():
    x, y = blobs(90)
    training = trained(
        Network(GaisNetwork(layers=1, hidden=8, patience=3, learning_rate=0.3), 5, 3, seed=0), x, y, GaisGraph(), 0
    )
    training.run()
    assert training.epoch < 500 and training.best == min(training.losses) < training.losses[-1]
    best = training._measured(training._stop)
    assert np.average([v for v, _ in best], weights=[n for _, n in best]) == pytest.approx(training.best)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array), st.floats(0.001, 1))
def test_every_class_keeps_its_share(y, ratio):
    value = np.random.default_rng(0).random(len(y)).astype(np.float32)
    kept = keep_top(value, y, ratio)
    counts = np.unique(y, return_counts=True)[1]
    assert len(kept) == class_sizes(counts, ratio).sum() == np.maximum(1, np.ceil(np.round(ratio * counts, 9))).sum()
    assert set(y[kept]) == set(y) and sorted(set(kept.tolist())) == kept.tolist()
    assert keep_top(value, y, 1.0).tolist() == list(range(len(y)))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array), st.floats(0, 0.99))
def test_the_percentile_keeps_as_many_as_are_above(y, q):
    value = np.random.default_rng(1).permutation(len(y)).astype(np.float32)
    kept = keep_percentile(value, y, q)
    assert len(kept) == above_percentile(np.unique(y, return_counts=True)[1], q).sum() and set(y[kept]) == set(y)


def test_effectiveness_is_accuracy_times_reduction():
    kept = keep_top(np.array(IMPORTANCE), Y, 0.34)
    assert kept.tolist() == [1, 2, 3, 5] and reduction(len(Y), len(kept)) == pytest.approx(1 / 3)
    assert effectiveness(0.9, reduction(len(Y), len(kept))) == pytest.approx(0.3)
    x, y = blobs(60)
    everything = select(x, y, keep_ratio=1.0, graph="single_level", network=QUICK)
    assert effectiveness(1.0, reduction(len(y), len(everything))) == 0
    assert reduction(0, 0) == 0


def test_a_product_that_is_a_hair_too_large_asks_for_no_more():
    assert class_sizes(np.array([30, 1, 0]), 0.1).tolist() == [3, 1, 0]


def test_rows_that_were_never_drawn_stay_only_where_a_class_has_no_other():
    value = np.array([1, -np.inf, -np.inf, -np.inf, 2], np.float32)
    y = np.array([0, 0, 0, 1, 2])
    assert keep_top(value, y, 1.0).tolist() == [0, 3, 4] == keep_percentile(value, y, 0.0).tolist()
    x, y = blobs(240)
    graph = GaisGraph(mode="sample", batch_rows=30, batches=2)
    found = scores(x, y, graph=graph, network=QUICK)
    assert 30 <= np.isfinite(found).sum() <= 60
    assert np.all(np.isfinite(found[select(x, y, graph=graph, keep_ratio=1.0, network=QUICK)]))


@pytest.mark.parametrize("graph", ["mini_batch", "chunks", "multi_level", "multi_view"])
def test_degenerate_rows_are_selected_by_class_and_index(graph):
    def kept(x, y, **settings):
        return select(x, y, graph=graph, network=QUICK, **settings).tolist()

    x, y = blobs(60)
    assert len(kept(np.zeros((30, 4)), np.arange(30) % 2, keep_ratio=0.2)) == 6  # rows of zeros, constant features
    assert len(kept(x, np.zeros(60, int), keep_ratio=0.1)) == 6  # one class: nothing to learn
    lonely = np.where(np.arange(60) == 17, 9, y)
    assert 17 in kept(x, lonely, keep_ratio=0.1)  # a class of one row
    assert kept(x[:1], y[:1]) == [0] and kept(x[:2], y[:2]) == [0, 1] and kept(x[:0], y[:0]) == []
    assert len(kept(np.float32(3e38) * np.sign(x), y)) == 3  # the range is beyond float32
    assert len(kept(x, np.array(["a", "b", "c"])[y])) == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad):
    x, y = blobs(30)
    x[4, 1] = bad
    with pytest.raises(ValueError, match="`x` holds NaN or infinity in row 4"):
        select(x, y)


@pytest.mark.parametrize("labels", [[0, None, 1], np.array([0, np.nan, 1])])
def test_a_missing_label_is_refused(labels):
    with pytest.raises(ValueError, match="`y` has no label in row 1"):
        select(X[:3], labels)


def test_wrong_arguments_are_named():
    for settings, name in [
        ({"keep_ratio": 0}, "keep_ratio"),
        ({"percentile": 1}, "percentile"),
        ({"graph": "x"}, "kind"),
    ]:
        with pytest.raises(ValueError, match=name):
            select(X, Y, **settings)
    with pytest.raises(ValueError, match="`y` is \\(3,\\)"):
        select(X, Y[:3])
    with pytest.raises(ValueError, match="`x` is float64 of shape \\(6,\\)"):
        select(X[:, 0], Y)
