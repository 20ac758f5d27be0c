"""What a language model makes of each row: loss and entropy of its response's tokens, and the gradient's norm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from configs.methods.utility import TokenLosses as Section
from tasks import Failure, Result
from tasks.score.blockwise import LogitsScorer, Progress, worked
from tasks.score.causal_lm import CausalLmLogits
from tasks.score.logits import Block


class TokenLosses(LogitsScorer):
    """`<name>_loss`, `<name>_entropy`: nats a token, means over the response; `<name>_gradient_norm`: of the loss by
    the weights of the last layer.

    All float32, null where a row has no logits or its response no token that is predicted. Prompts are not counted.
    """

    def __init__(self, config: Section) -> None:
        super().__init__(config, CausalLmLogits(config.logits))
        self.provides: tuple[str, ...] = tuple(f"{config.name}_{one}" for one in ("loss", "entropy", "gradient_norm"))

    def run(self, rows: pa.Table) -> Result:
        """Score one shard."""
        failures: list[Failure] = []
        values = np.full((len(rows), len(self.provides)), np.nan, np.float32)
        self.source.tell = self.tell
        blocks = self.source.blocks(rows, failures, hidden=True)
        for members, found in worked(blocks, measured, Progress(self.tell, len(rows))):
            values[members] = found
            failures += unpredicted(members[np.isnan(found[:, 0])])
        columns: dict[str, Any] = {
            name: pa.array(values[:, at], mask=np.isnan(values[:, 0])) for at, name in enumerate(self.provides)
        }
        return Result(pa.table(columns), sorted(failures))


def measured(block: Block) -> np.ndarray:
    """Loss, entropy and gradient norm of a block's rows: float32 `(B, 3)`, NaN where nothing is predicted."""
    import torch

    from tasks.score.predictions import gradient_norms, predictions

    found = torch.full((len(block.rows), 3), torch.nan, device=block.logits.device)
    for part in predictions(block):
        logs = torch.log_softmax(part.logits, 2)
        chances = logs.exp()
        found[part.rows, 0] = part.losses(logs)
        found[part.rows, 1] = part.mean(-torch.einsum("bnv,bnv->bn", chances, logs))
        del logs
        found[part.rows, 2] = gradient_norms(part.errors(chances), part.inputs)
    return found.cpu().numpy()


def unpredicted(rows: np.ndarray) -> list[Failure]:
    """Failures of rows whose response is a single token that nothing stands before."""
    return [
        Failure(int(row), "no_tokens", "nothing stands before the only token, so that none predicts it") for row in rows
    ]
