"""What a language model predicts of the responses in a block, a few rows at a time in float32: losses and gradients.

The gradient of a row's mean token cross-entropy by the weights of the last layer has a closed form: with delta_t the
predicted probabilities less the token that came, and h_t what the last layer sees, it is G = 1/n sum_t delta_t h_t^T,
`(V, H)`. No backward pass is needed, nor G itself. Where a model scales or caps what its last layer gives, G is that of
the scaled output, without the factor; where the layer's weights are the embedding's too, their other use is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from tasks.score.logits import Block

CHUNK = 64 << 20
"""Bytes of float32 logits at once, unless a single row has more."""


class Predictions(NamedTuple):
    """Some rows of a block, and of their positions those from the first to the last that predict a response's token."""

    rows: slice
    """Which of the block."""
    logits: torch.Tensor
    """float32 `(b, n, V)`; not to be changed: they may be the block's own."""
    targets: torch.Tensor
    """int64 `(b, n)`: the token that came."""
    counted: torch.Tensor
    """bool `(b, n)`: the token that came is of the response."""
    inputs: torch.Tensor
    """float32 `(b, n, H)`: h_t / n, zeros where not `counted`, so that G is sum_t delta_t inputs_t^T; H is 0 if the
    block has no hidden states."""

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean of `(b, n)` over each row's counted positions: `(b,)`, NaN where there are none."""
        return torch.where(self.counted, values, 0).sum(1) / self.counted.sum(1)

    def losses(self, logs: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy in nats, `(b,)`, of log-probabilities `(b, n, V)`."""
        return self.mean(-logs.gather(2, self.targets[..., None])[..., 0])

    def errors(self, probabilities: torch.Tensor) -> torch.Tensor:
        """delta_t of every position, zeros where not counted: float32 `(b, n, V)`, in the place of `probabilities`."""
        delta = probabilities.scatter_add_(2, self.targets[..., None], -torch.ones_like(probabilities[..., :1]))
        delta[~self.counted] = 0
        return delta


def predictions(block: Block) -> Iterator[Predictions]:
    """The rows of a block in order. A row whose response is its first token alone has nothing `counted`."""
    if block.tokens is None:
        raise ValueError("`block` has no tokens; losses are of language models")
    counted = block.responses[:, 1:]
    columns = torch.nonzero(counted.any(0)).flatten()
    first, last = (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, 0)
    size = max(1, CHUNK // max(1, 4 * (last - first) * block.logits.shape[2]))
    for start in range(0, len(counted), size):
        rows = slice(start, start + size)
        asked, logits = counted[rows, first:last], block.logits[rows, first:last].float()
        inner = logits[..., :0] if block.hidden is None else block.hidden[rows, first:last].float()
        inputs = torch.where(asked[..., None], inner, 0) / asked.sum(1).clamp(min=1)[:, None, None]
        yield Predictions(rows, logits, block.tokens[rows, first + 1 : last + 1], asked, inputs)


def gradient_norms(delta: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """|sum_t delta_t inputs_t^T|_F of each row: `(b,)`, from the products of the deltas and of the inputs.

    Its square is sum_ts (delta_t . delta_s) (inputs_t . inputs_s): two small matrices in place of one `(V, H)`.

    Args:
        delta: float32 `(b, n, V)`.
        inputs: float32 `(b, n, H)`.
    """
    products = (delta @ delta.mT).double() * (inputs @ inputs.mT).double()
    return products.sum((1, 2)).clamp(min=0).sqrt().float()
