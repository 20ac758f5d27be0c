"""Texts for a proxy: how they become tokens, and what their loss is."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from mix_samples import KINDS, SMALL, built, config, kinds, mixed

from tasks.mix import proxy_texts
from tasks.mix.group_proxy import group_losses
from tasks.mix.proxy_texts import TextCorpus, TextSource
from tasks.score.proxy_language import NewModel


def tables(texts):
    return [pa.table({"text": pa.array(part, pa.large_string())}) for part in texts]


@pytest.fixture(scope="module")
def corpus():
    found = kinds(40)
    train, held = ([found[name][cut] for name in KINDS] for cut in (slice(0, 32), slice(32, 40)))
    return TextSource(SMALL).corpus(tables(train), tables(held), 0, "cpu")


def by_hand(corpus, weights, texts):
    """Mean loss over the tokens of some texts, one at a time, with logits of every position."""
    total, count = 0.0, 0
    for text, ids in zip(texts, corpus.model.ids(texts), strict=True):
        whole = torch.tensor([[*corpus.model.begin, *ids, *corpus.model.end][:32]])
        logits = corpus.model.logits(weights, whole[:, :-1], torch.ones(1, whole.shape[1] - 1, dtype=torch.bool))
        shares = torch.softmax(logits.double(), dim=1)
        found = shares[torch.arange(len(shares)), whole[0, 1:]]
        total -= float(found.log().sum())
        count += len(shares)
        assert text
    return total / count


def test_a_groups_loss_is_the_mean_over_its_tokens(corpus):
    weights = {n: torch.from_numpy(w) for n, w in corpus.initial().items()}
    weights["tokens"] = 3 * weights["tokens"]
    losses = group_losses(corpus, weights, "cpu")
    held = [kinds(40)[name][32:] for name in KINDS]
    assert np.allclose(losses, [by_hand(corpus, weights, part) for part in held], atol=1e-5)
    batch = np.concatenate([corpus.train[2][:5], corpus.train[0][:3]])
    value, count = corpus.loss(weights, batch, np.arange(5))
    assert np.isclose(float(value) / count, by_hand(corpus, weights, kinds(40)["prose"][:5]), atol=1e-5)


def test_pieces_are_the_batch_by_length(corpus, monkeypatch):
    batch = np.concatenate([corpus.train[2][:9], corpus.train[1][:4]])
    for least in (1, 4, 20):
        pieces = corpus.pieces(batch, np.arange(13), least)
        assert np.array_equal(np.sort(np.concatenate(pieces)), np.arange(13)) and len(pieces) == min(13, least)
        lengths = corpus._lengths[batch[np.concatenate(pieces)]]
        assert (np.diff(lengths) >= 0).all()
    assert np.array_equal(np.sort(np.concatenate(corpus.held_pieces(corpus.held[0]))), corpus.held[0])
    monkeypatch.setattr(proxy_texts, "LOGITS", 32 * corpus.model.vocabulary)  # as many as one row has
    assert len(corpus.pieces(batch, np.arange(13))) == 13


def test_no_groups_size_decides_on_the_tokens_of_another(monkeypatch):
    found = kinds(120)
    monkeypatch.setattr(proxy_texts, "TOKENIZER_CHARACTERS", 2000)
    source = TextSource(SMALL)

    def tokens(code):
        corpus = source.corpus(tables([code, found["names"]]), tables([code[:2], found["names"][:2]]), 0, "cpu")
        return corpus.model.ids(found["names"][:5])

    assert tokens(found["code"][:60]) == tokens(found["code"]) != tokens(found["prose"])


def test_a_text_is_cut_at_the_models_length():
    corpus = TextSource(SMALL).corpus(tables([["word " * 400] * 3]), tables([["a b", "word " * 400]]), 0, "cpu")
    assert corpus._lengths.max() == 32 and corpus._lengths.min() < 32
    weights = {n: torch.from_numpy(w) for n, w in corpus.initial().items()}
    assert np.isfinite(group_losses(corpus, weights, "cpu")).all()


def test_texts_are_read_a_slice_at_a_time_to_the_same_tokens(monkeypatch):
    found = kinds(40)
    train, held = ([found[name][cut] for name in KINDS] for cut in (slice(0, 32), slice(32, 40)))

    def tokens():
        corpus = TextSource(SMALL).corpus(tables(train), tables(held), 0, "cpu")
        return corpus._encoded.ids.tolist(), corpus._encoded.offsets.tolist(), [len(rows) for rows in corpus.train]

    whole, read, real = tokens(), [], NewModel.ids
    listed = TextCorpus(TextSource(SMALL).corpus(tables(train), tables(held), 0, "cpu").model, train, held, 0, "cpu")
    assert listed._encoded.ids.tolist() == whole[0]
    rows = pa.table({"text": pa.array([*found["prose"][:20], None, "", *found["code"][:9]])})
    payload, usable = TextSource(SMALL).payload(rows)
    monkeypatch.setattr(proxy_texts, "SLICE", 5)
    monkeypatch.setattr(proxy_texts, "FIRST_SLICE", 3)
    monkeypatch.setattr(NewModel, "ids", lambda self, texts: read.append(len(texts)) or real(self, texts))
    assert tokens() == whole and max(read) == 5 and sum(read) == 120
    column, asked = proxy_texts.read_column, []
    monkeypatch.setattr(proxy_texts, "read_column", lambda part, *rest: asked.append(len(part)) or column(part, *rest))
    again, same = TextSource(SMALL).payload(rows)
    assert again.equals(payload) and np.array_equal(same, usable) and usable.sum() == 29 and max(asked) == 5


def test_other_texts_can_be_measured_by_the_same_model():
    proxy = built(config(), *mixed()).proxy
    model = proxy._corpus.model
    held = [["abc"], ["some more text", "and this"], ["return x"]]
    other = TextCorpus(model, [[], [], []], held, 0, "cpu")
    weights = {n: torch.from_numpy(w) for n, w in proxy.weights().items()}
    assert group_losses(other, weights, "cpu").shape == (3,)
