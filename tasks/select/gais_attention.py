"""One layer of graph attention by sparse matrix products: what torch-geometric's GATConv computes, in less memory.

GATConv writes down a message of heads x units numbers for every edge, several times a step: 40 MB each for a batch of
1,000 rows with 80,000 edges. Here edges are sorted by target, attention is a number an edge and head, and messages
are summed as they are read: a step takes a tenth of the time on a CPU. Elsewhere than on a CPU GATConv runs itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

EDGES = 1 << 14
"""Edges whose two ends are multiplied at a time."""
DENSE = 16
"""Products of all pairs of nodes are taken where there are at most so many pairs an edge."""


class Arcs(NamedTuple):
    """Edges and a self loop for every node, sorted by target; every target has one at least."""

    source: np.ndarray
    """int64 `(A,)`"""
    target: np.ndarray
    """int64 `(A,)`"""
    start: np.ndarray
    """int64 `(n + 1,)`: where the arcs of each target begin."""
    narrow: tuple[np.ndarray, np.ndarray]
    """`source` and `start` as int32, as sparse matrices want them."""

    @property
    def n(self) -> int:
        """Nodes."""
        return len(self.start) - 1


def arcs(edges: np.ndarray, n: int) -> Arcs:
    """`edges` int64 `(2, E)` among `n` nodes, with each node's self loop once."""
    proper = edges[:, edges[0] != edges[1]]
    every = np.concatenate((proper, np.tile(np.arange(n), (2, 1))), axis=1)
    source, target = np.divmod(np.sort(every[1] * max(1, n) + every[0]), max(1, n))[::-1]
    start = np.searchsorted(target, np.arange(n + 1))
    return Arcs(source, target, start, (source.astype(np.int32), start.astype(np.int32)))


def attend(layer: Any, x: torch.Tensor, along: Arcs) -> tuple[torch.Tensor, torch.Tensor]:
    """What the GATConv `layer` makes of the nodes `x` `(n, F)`: `(n, F')`, and its attention `(A, heads)` along arcs.

    Attention is as GATConv gives it back: in training, after dropout.
    """
    if x.device.type != "cpu":
        edges = torch.from_numpy(np.stack((along.source, along.target))).to(x.device)
        layer.add_self_loops = False  # they are among the arcs
        out, (_, alpha) = layer(x, edges, return_attention_weights=True)
        return out, alpha
    h = layer.lin(x).view(-1, layer.heads, layer.out_channels)
    to_source, to_target = ((h * part).sum(dim=-1).t() for part in (layer.att_src, layer.att_dst))
    mask = None
    if layer.training and layer.dropout:
        kept = 1 - layer.dropout
        mask = (torch.rand(layer.heads, len(along.source)) < kept).float().div_(kept)
    out, alpha = _Attend.apply(h.transpose(0, 1), to_source, to_target, mask, along, layer.negative_slope)
    out = out.transpose(0, 1)
    out = out.reshape(len(x), -1) if layer.concat else out.mean(dim=1)
    return out + layer.bias, alpha.t()


class _Attend(torch.autograd.Function):
    """Attention and the sums that it weighs, with gradients in closed form."""

    @staticmethod
    def forward(
        ctx: Any, h: Any, to_source: Any, to_target: Any, mask: Any, along: Arcs, slope: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        h, to_source, to_target = (np.ascontiguousarray(value.detach().numpy()) for value in (h, to_source, to_target))
        alpha, rising = _attention(to_source, to_target, along, slope)
        kept = alpha if mask is None else alpha * mask.numpy()
        ctx.arrays = (h, kept, alpha, rising, mask, along)
        told = torch.from_numpy(kept)
        ctx.mark_non_differentiable(told)
        return torch.from_numpy(_summed(kept, h, along)), told

    @staticmethod
    def backward(ctx: Any, g: Any, _: Any) -> Any:
        h, kept, alpha, rising, mask, along = ctx.arrays
        g = np.ascontiguousarray(g.numpy())
        arriving = _products(g, h, along)
        if mask is not None:
            arriving *= mask.numpy()
        found = (_summed(kept, g, along, back=True), *_attention_gradients(arriving, alpha, rising, along))
        return *(torch.from_numpy(value) for value in found), None, None, None


def _attention(
    to_source: np.ndarray, to_target: np.ndarray, along: Arcs, slope: float
) -> tuple[np.ndarray, np.ndarray]:
    """alpha_ji = softmax over the sources j of target i of LeakyReLU(s_j + t_i), `(heads, A)`; LeakyReLU's slopes."""
    alpha = to_source.take(along.source, axis=1)
    alpha += to_target.take(along.target, axis=1)
    rising = np.where(alpha > 0, np.float32(1), np.float32(slope))
    alpha *= rising
    alpha -= np.maximum.reduceat(alpha, along.start[:-1], axis=1).take(along.target, axis=1)
    np.exp(alpha, out=alpha)
    alpha *= (1 / np.add.reduceat(alpha, along.start[:-1], axis=1)).take(along.target, axis=1)
    return alpha, rising


def _attention_gradients(
    arriving: np.ndarray, alpha: np.ndarray, rising: np.ndarray, along: Arcs
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of s and t, float32 `(heads, n)`; `arriving`, the gradient of alpha, is used up."""
    arriving *= alpha
    arriving -= alpha * np.add.reduceat(arriving, along.start[:-1], axis=1).take(along.target, axis=1)
    arriving *= rising
    of_source = np.stack([np.bincount(along.source, one, minlength=along.n) for one in arriving])
    return of_source.astype(np.float32), np.add.reduceat(arriving, along.start[:-1], axis=1)


def _summed(weights: np.ndarray, values: np.ndarray, along: Arcs, *, back: bool = False) -> np.ndarray:
    """Each target's weighted sum of its sources' values `(heads, n, C)`; `back`: each source's of its targets'."""
    from scipy.sparse import csc_array, csr_array

    kind = csc_array if back else csr_array  # one's columns are the other's rows
    return np.stack(
        [
            kind((weight, *along.narrow), shape=(along.n, along.n)) @ value
            for weight, value in zip(weights, values, strict=True)
        ]
    )


def _products(at_target: np.ndarray, at_source: np.ndarray, along: Arcs) -> np.ndarray:
    """The inner product of the two ends of every arc, float32 `(heads, A)`."""
    found = np.empty((len(at_target), len(along.source)), np.float32)
    if along.n**2 <= DENSE * len(along.source):
        place = along.target * along.n + along.source
        for head, (one, other) in enumerate(zip(at_target, at_source, strict=True)):
            (one @ other.T).take(place, out=found[head])
        return found
    for head, (one, other) in enumerate(zip(at_target, at_source, strict=True)):
        for at in range(0, len(along.source), EDGES):
            some = slice(at, at + EDGES)
            np.einsum("ec,ec->e", one[along.target[some]], other[along.source[some]], out=found[head, some])
    return found
