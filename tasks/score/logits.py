"""Where logits come from: models that make a matrix of logits for every row, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from tasks import Failure

if TYPE_CHECKING:
    import torch


class Block(NamedTuple):
    """Some rows in the model; what is not `there` is padding."""

    rows: np.ndarray
    """int64 `(B,)`: indices into the shard."""
    logits: torch.Tensor
    """float `(B, N, V)`, on the model's device, finite wherever `there`."""
    there: torch.Tensor
    """bool `(B, N)`: positions of tokens, prompt and response."""
    responses: torch.Tensor
    """bool `(B, N)`: positions of tokens of the response."""
    tokens: torch.Tensor | None
    """int64 `(B, N)`, of a language model: logits at position t are of the token at t + 1."""
    hidden: torch.Tensor | None
    """float `(B, N, H)`, if asked for: what the last layer makes logits of."""


class LogitsSource(Protocol):
    """A model that has logits for rows; built from its section of `configs.methods.logits`, loaded at first use."""

    needs: tuple[str, ...]
    """Columns that it reads. With `image` among them, `blocks` gets an iterator over slices of the shard."""
    input_columns: tuple[str, ...]
    """Those of `needs` that are columns of the input by the name the user gave."""
    libraries: tuple[str, ...]
    """Distributions that make the numbers."""
    device: str
    """`cpu` or `cuda`."""

    def check(self) -> None:
        """Raise a MixwrightError if the model cannot be there: a missing extra, folder or vocabulary. Loads nothing."""
        ...

    def depends_on(self) -> dict[str, Any]:
        """What the numbers depend on besides the configuration: weights, tokenizer, device."""
        ...

    def shape(self) -> tuple[int, int]:
        """`(T, V)`: most positions of a row, and the vocabulary. Loads the model."""
        ...

    def blocks(
        self, rows: pa.Table | Iterator[pa.Table], failures: list[Failure], *, hidden: bool = False
    ) -> Iterator[Block]:
        """All rows, but those that are null in every needed column, or that fail and are added to `failures`.

        Blocks are of a size that memory has room for, and made up of the shard's own rows alone.
        """
        ...


SOURCES: dict[str, str] = {
    "causal_lm": "tasks.score.causal_lm:CausalLmLogits",
    "pair_tokens": "tasks.score.pair_tokens:PairTokenLogits",
}
