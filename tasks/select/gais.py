"""GAIS-style (reconstructed): graph attention-based instance selection, as pure functions over arrays.

After Rustamov, Zaitouny, Damseh and Zaki (arXiv 2412.19201) and Rustamov, Zaitouny and Zaki (arXiv 2502.20293). Only
the abstracts and second-hand summaries of the papers were at hand: graphs, network and scores are a reconstruction,
which claims none of the papers' figures. Rows become nodes, alike rows are joined, a graph attention network learns
to classify them, and what it attends to (or is sure of) stays, class by class.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from configs.methods.diversity import GaisGraph, GaisNetwork, GaisScore
from tasks.select.gais_blocks import held_out
from tasks.select.gais_graphs import row_graph
from tasks.select.gais_scores import confidence, importance, keep_percentile, keep_top, row_scores

__all__ = ["build_graph", "confidence", "importance", "keep_percentile", "keep_top", "scores", "select"]


def build_graph(
    x: ArrayLike, y: ArrayLike, kind: str = "mini_batch", *, seed: int = 0, **settings: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Edges in both directions, int64 `(2, E)`, sorted and each once, and their weights, float32 `(E,)`.

    Args:
        x: float `(n, d)`, finite; taken as it is, nothing is scaled.
        y: Labels `(n,)`; `mini_batch` deals its batches by them.
        kind: `mini_batch`, `chunks`, `single_level`, `multi_level`, `multi_view` or `none`.
        seed: Of batches, windows and planes.
        settings: Further fields of `configs.methods.diversity.GaisGraph`.
    """
    features, labels, _ = checked(x, y)
    graph = GaisGraph(kind=kind, **settings)
    nodes = row_graph(features, labels, graph, seed)
    edges = nodes.rows[nodes.edges]
    # Two rows may meet in several batches or windows: the pair is one edge all the same.
    code, first = np.unique(edges[0] * max(1, len(features)) + edges[1], return_index=True)
    return np.stack(np.divmod(code, max(1, len(features)))), nodes.weights[first]


def select(
    x: ArrayLike,
    y: ArrayLike,
    *,
    keep_ratio: float = 0.04,
    percentile: float | None = None,
    graph: str | GaisGraph = "mini_batch",
    score: str | GaisScore = "attention",
    network: GaisNetwork | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> np.ndarray:
    """Which rows stay, sorted int64 `(m,)`: the best max(1, ceil(keep_ratio * n_c)) of each class.

    Args:
        x: float `(n, d)`, finite; scaled to [0, 1] by feature here.
        y: Labels `(n,)`, numbers or strings, none missing.
        keep_ratio: In (0, 1].
        percentile: Instead: rows above this quantile, in [0, 1), of their class's scores, one at least.
        graph: A kind of graph, or all its settings. `none` leaves the network without edges.
        score: `attention`, `confidence` or `both`, or all its settings.
        network: The network and its training; None: as the authors' sibling code has them.
        seed: The same seed gives the same rows.
        device: Where torch computes.
    """
    if not 0 < keep_ratio <= 1:
        raise ValueError(f"`keep_ratio` is {keep_ratio}; it must be in (0, 1]")
    if percentile is not None and not 0 <= percentile < 1:
        raise ValueError(f"`percentile` is {percentile}; it must be in [0, 1)")
    value = scores(x, y, graph=graph, score=score, network=network, seed=seed, device=device)
    _, labels, _ = checked(x, y)
    if percentile is not None:
        return keep_percentile(value, labels, percentile)
    return keep_top(value, labels, keep_ratio)


def scores(
    x: ArrayLike,
    y: ArrayLike,
    *,
    graph: str | GaisGraph = "mini_batch",
    score: str | GaisScore = "attention",
    network: GaisNetwork | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> np.ndarray:
    """Score of every row, float32 `(n,)`, the higher the better; -inf for rows in no batch. Arguments as `select`.

    A tenth of each class is held out of training, as a graph of its own, to stop by. With one class there is nothing
    to learn: scores are those of the network as it was drawn.
    """
    from tasks.select.gais_network import Network, node_scores

    features, labels, classes = checked(x, y)
    if not len(features):
        return np.zeros(0, np.float32)
    graph = GaisGraph(kind=graph) if isinstance(graph, str) else graph
    score = GaisScore(kind=score) if isinstance(score, str) else score
    features = scaled(features, features.min(axis=0), features.max(axis=0))
    drawn = Network(network or GaisNetwork(), features.shape[1], len(classes), seed=seed, device=device)
    if len(classes) > 1:
        trained(drawn, features, labels, graph, seed).run()
    nodes = row_graph(features, labels, graph, seed)
    return row_scores(node_scores(drawn, (features, labels), nodes, score), nodes.rows, len(features))


def trained(network: Any, x: np.ndarray, y: np.ndarray, graph: GaisGraph, seed: int) -> Any:
    """A `Training` of `network` on scaled rows, ready to run; a stratified part is held out to stop by."""
    from tasks.select.gais_training import Training

    out = held_out(y, network.config.validation, seed)
    parts = [(x[rows], y[rows], row_graph(x[rows], y[rows], graph, seed)) for rows in (~out, out)]
    return Training(network, parts[0], parts[1] if out.any() else None, seed=seed)


def scaled(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Features moved to [0, 1] by their range, float32; a constant feature becomes 0."""
    low, high = np.asarray(low, np.float64) / 2, np.asarray(high, np.float64) / 2  # halves: no range overflows
    return ((x / 2 - low) / np.where(high > low, high - low, 1)).astype(np.float32)


def checked(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features float `(n, d)`, class codes int64 `(n,)` and the classes, sorted.

    Raises:
        ValueError: For shapes that do not fit, for NaN or infinity in `x`, and for a missing label.
    """
    features, labels = np.asarray(x), np.asarray(y)
    if features.ndim != 2 or features.shape[1] < 1 or features.dtype.kind not in "fiub":
        raise ValueError(f"`x` is {features.dtype} of shape {features.shape}; it must be numbers (n, d >= 1)")
    if labels.shape != features.shape[:1]:
        raise ValueError(f"`y` is {labels.shape}; it must have one label for each of the {len(features)} rows")
    features = features if features.dtype in (np.float32, np.float64) else features.astype(np.float32)
    if not (finite := np.isfinite(features).all(axis=1)).all():
        raise ValueError(f"`x` holds NaN or infinity in row {int(np.argmin(finite))}; leave such rows out first")
    missing = labels != labels if labels.dtype.kind == "f" else np.zeros(len(labels), bool)
    if labels.dtype.kind == "O":
        missing = np.array([label is None or label != label for label in labels], bool)
    if missing.any():
        raise ValueError(f"`y` has no label in row {int(np.argmax(missing))}; leave such rows out first")
    classes, codes = np.unique(labels, return_inverse=True)
    return features, codes.astype(np.int64), classes
