"""One batch on its way to the model: decoded and tokenised by a pool of threads into tensors of fixed size."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tasks.embed.decode import decoded
from tasks.embed.encoder import Encoder
from tasks.embed.reasons import BadImage
from tasks.embed.texts import read_texts

if TYPE_CHECKING:
    import torch

Failed = dict[int, tuple[str, str]]
"""Row of the batch -> reason and detail."""

ROWS_PER_JOB = 16
"""Rows that a decoding thread takes at a time."""


class Batch:
    """Consecutive rows of a shard, in slots of tensors of fixed size.

    A slot without a row, or whose row has a null or fails, holds a black picture and an empty text: what is in one slot
    never changes the shape of a computation, nor the result in another slot.

    Attributes:
        first: Index in the shard of the first row.
        sizes: int32 `(n, 2)`, width and height of the pictures.
        valid: bool `(n,)`, rows that have all they need and have not failed; settled by `inputs`.
        failed: Why rows failed; settled by `inputs`.
    """

    def __init__(self, first: int, table: pa.Table, size: int, encoder: Encoder, max_pixels: int) -> None:
        self.first = first
        self.sizes = np.zeros((len(table), 2), np.int32)
        present = {name: table[name].is_valid().to_numpy() for name in table.column_names}
        self.valid = np.all(list(present.values()), axis=0)
        self.failed: Failed = {}
        for row in np.flatnonzero(np.any(list(present.values()), axis=0) & ~self.valid).tolist():
            name = next(name for name in present if not present[name][row])
            self.failed[row] = (f"missing_{name}", f"the row has no {name}")
        self._table, self._size = table, size
        self._encoder, self._max_pixels = encoder, max_pixels
        self._pixels = encoder.pixel_buffer(size) if "image" in present else None
        self._text: Future[tuple[torch.Tensor, Failed]] | None = None
        self._images: list[Future[Failed]] = []

    def start(self, pool: Executor) -> Batch:
        """Hand the work to the pool; returns the batch itself."""
        if "text" in self._table.column_names:
            self._text = pool.submit(self._tokenise)
        if self._pixels is not None:
            pixels, starts = self._pixels.numpy(), range(0, len(self._table), ROWS_PER_JOB)
            self._images = [pool.submit(self._decode, start, pixels) for start in starts]
        return self

    def inputs(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Pixels uint8 `(size, H, W, 3)` and tokens int64 `(size, L)`, once the pool is done with them."""
        tokens = None
        if self._text is not None:
            tokens, failed = self._text.result()
            self.failed = failed | self.failed
        for job in self._images:
            self.failed = job.result() | self.failed
        self.valid[list(self.failed)] = False
        del self._table  # the encoded bytes have served
        return self._pixels, tokens

    def _tokenise(self) -> tuple[torch.Tensor, Failed]:
        texts, broken = read_texts(self._table["text"])
        padding = [""] * (self._size - len(texts))
        failed = {row: ("undecodable_text", detail) for row, detail in broken.items()}
        return self._encoder.tokens([text or "" for text in texts] + padding), failed

    def _decode(self, start: int, pixels: np.ndarray) -> Failed:
        failed: Failed = {}
        for row, data in enumerate(self._table["image"].slice(start, ROWS_PER_JOB), start):
            if not data.is_valid:
                continue
            try:
                with decoded(data.as_py(), self._max_pixels) as picture:
                    pixels[row] = self._encoder.pixels(picture)
                    self.sizes[row] = picture.size
            except BadImage as error:
                failed[row] = (error.reason, str(error))
        return failed
