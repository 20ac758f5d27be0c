"""Losses of pairs of an image and a text, from the unit vectors of two towers, some rows against a block of others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.methods.sample import Towers
from tasks.embed.columns import scale_to_unit, unit_rows
from tasks.embed.encoder import single_threads
from tasks.embed.vectors import unpack

if TYPE_CHECKING:
    import torch

Form: TypeAlias = Literal["sigmoid", "softmax"]

BLOCK_ROWS = 1024
"""Rows compared with the chosen ones at once by one thread: what its caches hold, and the same on every machine."""


class Pairs:
    """The pairs of n images with n texts as one model sees them.

    Attributes:
        count: n.
    """

    def __init__(self, images: np.ndarray, texts: np.ndarray, towers: Towers, form: Form) -> None:
        """`images` and `texts`: float32 `(n, D)`, unit rows."""
        import torch

        self.count = len(images)
        self._images, self._texts = torch.from_numpy(images), torch.from_numpy(texts)
        self._scale, self._bias, self._form = towers.logit_scale, towers.logit_bias, form

    def own(self) -> np.ndarray:
        """L_ii: float64 `(n,)`."""
        logits = np.einsum("nd,nd->n", self._images.numpy(), self._texts.numpy(), dtype=np.float64) * self._scale
        return np.logaddexp(0, -(logits + self._bias)) if self._form == "sigmoid" else -logits

    def given(self, new: np.ndarray, first: int) -> np.ndarray:
        """What `given` returns of one model, for the rows of the block that begins at `first`: float64 `(2, rows)`.

        Of losses the sum is returned, of logits (softmax form) the log-sum-exp.
        """
        import torch

        chosen = torch.from_numpy(new)
        block = slice(first, first + BLOCK_ROWS)
        with torch.inference_mode():
            return torch.stack(
                [
                    self._reduced(self._images[chosen] @ self._texts[block].T),
                    self._reduced(self._texts[chosen] @ self._images[block].T),
                ]
            ).numpy()

    def _reduced(self, cosines: torch.Tensor) -> torch.Tensor:
        """Over the chosen, `(k, rows)` -> float64 `(rows,)`; overwrites `cosines`."""
        import torch

        logits = cosines.mul_(self._scale)
        if self._form == "softmax":
            return logits.logsumexp(0).double()
        return torch.nn.functional.softplus(logits.add_(self._bias)).sum(0, dtype=torch.float64)


def given(pairs: Sequence[Pairs], new: np.ndarray) -> np.ndarray:
    """What the images, and the texts, of `new` add to the loss of each row, model by model: float64 `(models, 2, n)`.

    Every block of rows is computed by one thread, so nothing depends on how many there are.
    """
    starts = range(0, pairs[0].count, BLOCK_ROWS)
    blocks = _threads().map(lambda first: np.stack([one.given(new, first) for one in pairs]), starts)
    return np.concatenate(list(blocks), axis=2)


def unit_vectors(column: pa.ChunkedArray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of a column, float32 `(n, D)`, zeros where a row has none; and which rows have one, bool `(n,)`."""
    if pa.types.is_fixed_size_binary(column.type):
        unit = scale_to_unit(unpack(column))[0]
        return unit, np.asarray(unit.any(axis=1))
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        lengths = pc.list_value_length(column)
        widths, counts = np.unique(lengths.drop_null().to_numpy(), return_counts=True)
        if np.count_nonzero(widths) > 1:  # a stray vector at the head must not make all others strays
            usual = int(widths[np.argmax(np.where(widths > 0, counts, 0))])
            column = pc.if_else(pc.equal(lengths, usual), column, pa.scalar(None, column.type))
    unit, problems = unit_rows(column, name)
    sound = np.ones(len(unit), bool)
    sound[list(problems)] = False
    return unit, sound


@cache
def _threads() -> ThreadPoolExecutor:
    """Threads in each of which torch computes with one thread, shared by the tasks of a process."""
    return single_threads(os.cpu_count() or 1)
