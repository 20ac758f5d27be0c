"""Graph attention by sparse products: the values and gradients of torch-geometric's GATConv, its dropout too."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from tasks.select import gais_attention
from tasks.select.gais_attention import arcs, attend


def layer(units, heads, concat, dropout=0.0):
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        from torch_geometric.nn import GATConv
    torch.manual_seed(0)
    made = GATConv(5, units, heads=heads, concat=concat, dropout=dropout)
    with torch.no_grad():
        made.bias.copy_(torch.randn(len(made.bias)))
    return made


def edges(n, share):
    near = np.triu(np.random.default_rng(0).random((n, n)) < share, 1)
    near[:, -1] = False  # the last node is alone
    return np.stack(np.nonzero(near | near.T))


@pytest.mark.parametrize("pairs_an_edge", [0, 1000], ids=["by arcs", "by all pairs"])
@pytest.mark.parametrize(("units", "heads", "concat"), [(4, 3, True), (2, 2, False)])
def test_values_and_gradients_are_those_of_gatconv(monkeypatch, units, heads, concat, pairs_an_edge):
    import torch

    monkeypatch.setattr(gais_attention, "DENSE", pairs_an_edge)
    monkeypatch.setattr(gais_attention, "EDGES", 7)
    one, links = layer(units, heads, concat).eval(), edges(30, 0.2)
    found = []
    for ours in (False, True):
        x = torch.randn(30, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
        one.zero_grad()
        if ours:
            along = arcs(links, 30)
            out, alpha = attend(one, x, along)
            looped = np.stack((along.source, along.target))
        else:
            out, (looped, alpha) = one(x, torch.from_numpy(links), return_attention_weights=True)
            looped = looped.numpy()
        (out * torch.arange(out.numel()).reshape(out.shape).sin()).sum().backward()
        order = np.lexsort(looped)
        gradients = [x.grad, *(value.grad for value in one.parameters())]
        found.append(
            [looped[:, order], alpha.detach().numpy()[order], out.detach().numpy(), *(g.numpy() for g in gradients)]
        )
    for theirs, own in zip(*found, strict=True):
        assert theirs.shape == own.shape and np.allclose(theirs, own, atol=1e-5)
    assert np.abs(found[1][3]).max() > 0.1


def test_dropout_takes_its_share_of_attention_and_scales_the_rest():
    import torch

    torch.manual_seed(0)
    one, along, x = layer(2, 2, True, dropout=0.3), arcs(edges(60, 0.5), 60), torch.randn(60, 5)
    whole = attend(one.eval(), x, along)[1].detach()
    some = attend(one.train(), x, along)[1].detach()
    assert float((some == 0).float().mean()) == pytest.approx(0.3, abs=0.03)
    assert torch.allclose(some[some > 0], whole[some > 0] / 0.7)


def test_arcs_hold_every_edge_once_and_one_loop_a_node():
    along = arcs(np.array([[0, 1, 1, 2], [1, 0, 1, 0]]), 4)
    assert list(zip(along.source.tolist(), along.target.tolist(), strict=True)) == [
        *[(0, 0), (1, 0), (2, 0)],
        *[(0, 1), (1, 1), (2, 2), (3, 3)],
    ]
    assert along.start.tolist() == [0, 3, 5, 6, 7]
    assert arcs(np.zeros((2, 0), np.int64), 0).start.tolist() == [0]
