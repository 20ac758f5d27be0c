"""The graph attention network of GAIS-style (reconstructed) selection: torch-geometric's GATConv, trained to classify.

Layers as the authors' sibling code has them; on a CPU `gais_attention` does their sums. A step takes as many
components of the graph as `STEP_EDGES` allows, so a small graph is trained on as a whole and a large one never needs
more memory. torch computes with one thread: sums come in one order, and the same seed gives the same weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from configs.methods.diversity import GaisNetwork, GaisScore
from tasks.select.gais_graphs import Nodes
from tasks.select.gais_scores import aggregated, confidence, importance

if TYPE_CHECKING:
    import torch

    from tasks.select.gais_attention import Arcs

STEP_EDGES = 1 << 16
"""Edges and nodes of one step, about: one component at least. Messages are 512 bytes an edge at the defaults."""


@contextmanager
def steady(seed: int | list[int]) -> Iterator[None]:
    """Within the block torch draws from `seed` and computes in one thread, in an order that is the same every time."""
    import torch

    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    number = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(1))
    with torch.random.fork_rng():
        torch.manual_seed(number)
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(torch.cuda.is_available())  # needless on a CPU with one thread, and slower
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(strict)


class Step(NamedTuple):
    """Components of a graph that go through the network together."""

    nodes: np.ndarray
    """int64 `(m,)`: which nodes of the graph."""
    edges: np.ndarray
    """int64 `(2, e)`: pairs of places in `nodes`."""


def steps(nodes: Nodes, budget: int = STEP_EDGES) -> list[Step]:
    """The graph in steps of about `budget` edges and nodes; no edge is lost, since no component is divided."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, edges = len(nodes.rows), nodes.edges
    if n + edges.shape[1] <= budget:
        return [Step(np.arange(n), edges)] if n else []
    links = coo_array((np.ones(edges.shape[1], np.int8), (edges[0], edges[1])), shape=(n, n))
    count, part = connected_components(links, directed=False)
    cost = np.bincount(part, minlength=count) + np.bincount(part[edges[0]], minlength=count)
    step = ((np.cumsum(cost) - cost) // budget)[part]
    step_of_edge = step[edges[0]]
    order, edge_order = np.argsort(step, kind="stable"), np.argsort(step_of_edge, kind="stable")
    place = np.empty(n, np.int64)
    result = []
    for number in np.unique(step):
        inside = order[slice(*np.searchsorted(step[order], [number, number + 1]))]
        place[inside] = np.arange(len(inside))
        own = edge_order[slice(*np.searchsorted(step_of_edge[edge_order], [number, number + 1]))]
        result.append(Step(inside, place[edges[:, own]]))
    return result


class Network:
    """Hidden GATConv layers, heads concatenated, each followed by ELU; an output layer with its heads averaged.

    Attributes:
        layers: The GATConv layers (`torch.nn.ModuleList`), the output layer last; on `device`.
    """

    def __init__(self, config: GaisNetwork, features: int, classes: int, *, seed: int, device: str = "cpu") -> None:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's, about its own `jit`
            from torch_geometric.nn import GATConv
        self.config, self.device = config, device
        width, drop = config.heads * config.hidden, config.attention_dropout
        with steady([seed, 0]):
            hidden = [
                GATConv(width if place else features, config.hidden, heads=config.heads, dropout=drop)
                for place in range(config.layers)
            ]
            output = GATConv(width, classes, heads=config.output_heads, concat=False, dropout=drop)
            self.layers = torch.nn.ModuleList([*hidden, output]).to(device)
        self.scale = torch.nn.Parameter(torch.ones(classes, device=device), requires_grad=config.class_scale)

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Everything that is learned, by name."""
        learned = {f"layers.{name}": value for name, value in self.layers.named_parameters()}
        return learned | ({"scale": self.scale} if self.config.class_scale else {})

    def forward(self, x: torch.Tensor, along: Arcs, y: torch.Tensor) -> torch.Tensor:
        """Log-probabilities `(n, K)`; `y` is read by `class_scale` alone."""
        import torch

        from tasks.select.gais_attention import attend

        h = self._dropped(x)
        for layer in self.layers[:-1]:
            h = self._dropped(torch.nn.functional.elu(attend(layer, h, along)[0]))
        logits = attend(self.layers[-1], h, along)[0]
        if self.config.class_scale:
            logits = logits * self.scale[y][:, None]
        return torch.log_softmax(logits, dim=1)

    def attention(self, x: torch.Tensor, along: Arcs) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Edges and self loops `(2, A)`, sources above targets, and the attention `(A, heads)` of each hidden layer."""
        import torch

        from tasks.select.gais_attention import attend

        h, found = x, []
        for layer in self.layers[:-1]:
            h, alpha = attend(layer, h, along)
            h = torch.nn.functional.elu(h)
            found.append(alpha)
        return torch.from_numpy(np.stack((along.source, along.target))).to(x.device), found

    def _dropped(self, h: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.nn.functional.dropout(h, self.config.dropout, training=self.layers.training)


def node_scores(network: Network, data: tuple[np.ndarray, np.ndarray], nodes: Nodes, score: GaisScore) -> np.ndarray:
    """Score of every node, float32 `(N,)`, the higher the better, without dropout.

    Args:
        data: `x` float32 `(n, d)` and `y` int64 `(n,)`, by row.
    """
    import torch

    x, y = data
    result = np.zeros(len(nodes.rows), np.float32)
    network.layers.eval()
    with steady([0]), torch.no_grad():
        for step in steps(nodes):
            inputs, along, labels = tensors(network, x, y, nodes.rows[step.nodes], step.edges)
            value: Any = 1.0
            if score.kind != "confidence":
                looped, alphas = network.attention(inputs, along)
                joint = aggregated(alphas, looped, score.layers)
                value = importance(looped, joint, len(inputs), per_edge=score.per_edge)
            if score.kind != "attention":
                z = network.forward(inputs, along, labels)
                value = value * confidence(z, labels if score.true_class else None)
            result[step.nodes] = value.cpu().numpy()
    return result


def tensors(
    network: Network, x: np.ndarray, y: np.ndarray, rows: np.ndarray, edges: np.ndarray
) -> tuple[torch.Tensor, Arcs, torch.Tensor]:
    """Features, arcs and labels of some rows, the tensors on the network's device."""
    import torch

    from tasks.select.gais_attention import arcs

    inputs, labels = (
        torch.from_numpy(np.ascontiguousarray(a)).to(network.device) for a in (x[rows].astype(np.float32), y[rows])
    )
    return inputs, arcs(edges, len(rows)), labels


def restored(network: Network, state: dict[str, Any]) -> Network:
    """`network` with the weights that `state` holds as `network/<name>`."""
    import torch

    with torch.no_grad():
        for name, parameter in network.parameters().items():
            parameter.copy_(torch.from_numpy(state[f"network/{name}"]))
    return network
