"""Scores of GAIS-style (reconstructed) selection, and which rows of each class they keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


def importance(edge_index: Any, attention: Any, num_nodes: int, *, per_edge: bool = False) -> Any:
    """The attention that each node receives as a source from other nodes, float32 `(n,)`; self loops do not count.

    imp_j = sum over i != j of the attention that target i pays source j; 0 for a node without neighbours.

    Args:
        edge_index: int `(2, E)`, sources above targets, self loops among them or not; NumPy or torch.
        attention: float `(E,)` or `(E, heads)`, of which the mean over heads counts; NumPy or torch, as `edge_index`.
        num_nodes: n.
        per_edge: The mean over a node's edges instead of the sum.
    """
    if edge_index.shape[1:] != attention.shape[:1] or edge_index.shape[0] != 2 or len(attention.shape) not in (1, 2):
        shapes = f"`edge_index` is {tuple(edge_index.shape)}, `attention` {tuple(attention.shape)}"
        raise ValueError(f"{shapes}; they must be (2, E) and (E,) or (E, heads)")
    if isinstance(edge_index, np.ndarray):
        value = attention.mean(axis=1) if attention.ndim == 2 else attention
        other = edge_index[0] != edge_index[1]
        source = edge_index[0][other]
        total = np.bincount(source, value[other], minlength=num_nodes)
        edges = np.bincount(source, minlength=num_nodes)
        return (total / np.maximum(edges, 1) if per_edge else total).astype(np.float32)
    value = (attention.mean(dim=1) if attention.ndim == 2 else attention).float()
    source, other = edge_index[0], edge_index[0] != edge_index[1]
    total = value.new_zeros(num_nodes).index_add_(0, source, value * other)
    edges = value.new_zeros(num_nodes).index_add_(0, source, other.to(value.dtype))
    return total / edges.clamp(min=1) if per_edge else total


def aggregated(attentions: Sequence[torch.Tensor], edge_index: torch.Tensor, how: str) -> torch.Tensor:
    """The attention of several layers `(E, heads)` put together by edge and head, `(E, heads)`.

    `product` is scaled to a sum of 1 a target again; `entropy` weighs a layer by 1 / (1 + its mean entropy a target),
    `magnitude` by its root mean square.
    """
    import torch

    every = torch.stack(list(attentions))
    if how in ("mean", "max"):
        return every.mean(0) if how == "mean" else every.amax(0)
    if how == "median":
        return every.median(0).values
    if how == "product":
        joint = every.prod(0)
        sums = joint.new_zeros(int(edge_index.max()) + 1 if edge_index.numel() else 0, joint.shape[1])
        return joint / sums.index_add_(0, edge_index[1], joint)[edge_index[1]].clamp(min=1e-30)
    if how == "entropy":
        targets = max(1, len(torch.unique(edge_index[1])))
        weight = 1 / (1 - (every * every.clamp(min=1e-30).log()).sum(dim=(1, 2)) / (targets * every.shape[2]))
    elif how == "magnitude":
        weight = every.square().mean(dim=(1, 2)).sqrt()
    else:
        known = "entropy, magnitude, max, mean, median, product"
        raise ValueError(f"`how` is {how!r}; known ways to put layers together: {known}")
    return torch.einsum("l,leh->eh", weight / weight.sum(), every)


def confidence(log_probabilities: Any, y: Any = None) -> Any:
    """Probability of each row's likeliest class, or of its own where labels are given: float `(n,)`, NumPy or torch.

    Args:
        log_probabilities: float `(n, K)`.
        y: int `(n,)`: with it, rows that look mislabelled come last.
    """
    z = log_probabilities
    if isinstance(z, np.ndarray):
        return np.exp(z.max(axis=1) if y is None else z[np.arange(len(z)), y])
    return (z.amax(dim=1) if y is None else z.gather(1, y[:, None])[:, 0]).exp()


def row_scores(scores: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """Mean score of each row's nodes, float32 `(n,)`; -inf for a row without a node."""
    count = np.bincount(rows, minlength=n)
    total = np.bincount(rows, scores, minlength=n)
    return np.where(count > 0, total / np.maximum(count, 1), -np.inf).astype(np.float32)


def class_sizes(counts: np.ndarray, keep_ratio: float) -> np.ndarray:
    """Rows to keep of each class: max(1, ceil(keep_ratio * n_c)), int64 `(K,)`; 0 of an empty class."""
    # A product such as 0.1 * 30 = 3.0000000000000004 must not ask for a fourth row.
    wanted = np.ceil(np.round(keep_ratio * np.asarray(counts, np.float64), 9)).astype(np.int64)
    return np.minimum(np.maximum(wanted, 1), counts)


def above_percentile(counts: np.ndarray, percentile: float) -> np.ndarray:
    """How many of n_c different scores are above their `percentile` quantile, one at least: int64 `(K,)`."""
    counts = np.asarray(counts, np.int64)
    below = np.floor(np.round(percentile * (counts - 1), 9)).astype(np.int64)
    return np.minimum(np.maximum(counts - 1 - below, 1), counts)


def keep_top(scores: np.ndarray, y: np.ndarray, keep_ratio: float) -> np.ndarray:
    """The best max(1, ceil(keep_ratio * n_c)) rows of each class, sorted int64; ties to the lower index.

    A row with a score of -inf stays only as the one row of a class without any better.
    """
    kept = []
    for c in np.unique(y):
        members = np.flatnonzero(y == c)
        best = members[np.argsort(-scores[members], kind="stable")[: class_sizes(np.array(len(members)), keep_ratio)]]
        kept.append(best[: max(1, int(np.isfinite(scores[best]).sum()))])
    return np.sort(np.concatenate(kept)) if kept else np.zeros(0, np.int64)


def keep_percentile(scores: np.ndarray, y: np.ndarray, percentile: float) -> np.ndarray:
    """The rows of each class above the `percentile` quantile of its scores, sorted int64; else its best row."""
    kept = []
    for c in np.unique(y):
        members = np.flatnonzero(y == c)
        own = scores[members].astype(np.float64)
        # Rows never seen are below all others, and no quantile can be taken between infinities.
        finite = np.where(np.isneginf(own), np.min(own[np.isfinite(own)], initial=0.0) - 1, own)
        above = members[(finite > np.quantile(finite, percentile)) & np.isfinite(own)]
        kept.append(above if len(above) else members[[own.argmax()]])
    return np.sort(np.concatenate(kept)) if kept else np.zeros(0, np.int64)


def reduction(given: int, kept: int) -> float:
    """R = 1 - kept / given, the share of the rows left out; 0 of no rows (spec, section 8)."""
    return 1 - kept / given if given else 0.0


def effectiveness(accuracy: float, reduction: float) -> float:
    """E = accuracy * reduction: the measure's usual formula, as the papers' is not known (spec, section 8)."""
    return accuracy * reduction


def shared_out(counts: np.ndarray, wanted: int) -> np.ndarray:
    """`wanted` rows over classes of `counts` rows, int64 `(K,)`: the sum is exact (all rows if there are fewer).

    Adams's method: ceil(lambda * n_c), so each class has one row as long as there are enough, the largest first; more
    rows never take one from a class.
    """
    counts = np.asarray(counts, np.int64)
    wanted = min(max(0, int(wanted)), int(counts.sum()))
    low, high = 0.0, 1.0
    for _ in range(64):
        middle = (low + high) / 2
        low, high = (middle, high) if np.ceil(middle * counts).sum() <= wanted else (low, middle)
    sizes = np.minimum(np.ceil(low * counts), counts).astype(np.int64)
    for _ in range(64):  # classes that get their next row at the same lambda, the largest first
        left = wanted - int(sizes.sum())
        open_ = np.flatnonzero(sizes < counts)
        if not left:
            break
        order = open_[np.lexsort((open_, -counts[open_], sizes[open_] / counts[open_]))]
        sizes[order[:left]] += 1
    return sizes
