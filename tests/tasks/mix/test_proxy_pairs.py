"""Pairs for a proxy: what their losses are, in training and against the references."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from mix_samples import pair_rows

from configs.methods.proxies import PairProxy
from tasks.embed.vectors import unpack
from tasks.mix import proxy_pairs
from tasks.mix.group_proxy import group_losses
from tasks.mix.proxy_pairs import PairSource


@pytest.fixture
def corpus(monkeypatch):
    """Twenty rows of each of three kinds to learn from, five to be measured on, and four of each kind as references."""
    monkeypatch.setattr(proxy_pairs, "REFERENCES", 12)
    rows = pair_rows(25)[0].select(["image_embedding", "text_embedding"])
    train = [rows.slice(25 * k, 20) for k in range(3)]
    held = [rows.slice(25 * k + 20, 5) for k in range(3)]
    corpus = PairSource(PairProxy(width=6)).corpus(train, held, 0, "cpu")
    table = pa.concat_tables([*train, *held])
    vectors = [unpack(table[name]).astype(np.float64) for name in ("image_embedding", "text_embedding")]
    return corpus, [v / np.linalg.norm(v, axis=1, keepdims=True) for v in vectors]


def adapted(corpus, vectors):
    weights = corpus.initial()
    points = [v @ weights[n] for v, n in zip(vectors, ("image_embedding", "text_embedding"))]
    return [p / np.linalg.norm(p, axis=1, keepdims=True) for p in points], float(np.exp(weights["scale"][0]))


def tensors(corpus):
    return {n: torch.from_numpy(w) for n, w in corpus.initial().items()}


def test_every_group_is_measured_against_the_same_references(corpus):
    corpus, vectors = corpus
    (image, text), scale = adapted(corpus, vectors)
    references = np.concatenate([np.arange(20 * k, 20 * k + 4) for k in range(3)])
    losses = []
    for row in range(60, 75):
        right = scale * image[row] @ text[row]
        sides = (scale * text[references] @ image[row], scale * image[references] @ text[row])
        losses.append(np.mean([np.logaddexp.reduce([right, *wrong]) - right for wrong in sides]))
    expected = np.reshape(losses, (3, 5)).mean(1)
    assert np.allclose(group_losses(corpus, tensors(corpus), "cpu"), expected, atol=1e-4)


def test_a_groups_part_of_the_training_loss_has_the_whole_batch_against_it(corpus):
    corpus, vectors = corpus
    (image, text), scale = adapted(corpus, vectors)
    batch = np.array([3, 21, 45, 8, 50])
    logits = scale * image[batch] @ text[batch].T
    each = [(np.logaddexp.reduce(logits[i]) + np.logaddexp.reduce(logits[:, i])) / 2 - logits[i, i] for i in range(5)]
    value, count = corpus.loss(tensors(corpus), batch, np.array([0, 3]))
    assert count == 2 and np.isclose(float(value), each[0] + each[3], atol=1e-4)
    value, count = corpus.loss(tensors(corpus), batch, corpus.pieces(batch, np.arange(5), 4)[0])
    assert count == 5 and np.isclose(float(value), np.sum(each), atol=1e-4)
    known = corpus._learner.loss(tensors(corpus), batch)[0]  # as the proxy of trajectories learns
    assert np.isclose(float(value), float(known), atol=1e-4)


def test_a_row_that_is_drawn_twice_is_not_against_itself(corpus):
    corpus, _ = corpus
    weights = tensors(corpus)
    once, _ = corpus.loss(weights, np.array([3, 21]), np.array([0]))
    twice, _ = corpus.loss(weights, np.array([3, 21, 3]), np.array([0]))
    assert np.isclose(float(once), float(twice), atol=1e-6)


def test_a_reference_is_not_against_itself(corpus):
    corpus, _ = corpus
    value, _ = corpus.held_loss(tensors(corpus), np.array([0]))
    others, _ = corpus.held_loss(tensors(corpus), np.array([10]))
    assert np.isfinite(float(value)) and float(others) > 0
    assert len(corpus._known["image_embedding"]) == 12
