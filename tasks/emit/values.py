"""What training gets from columns of a batch: tensors, lists, pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from tasks.embed.reasons import BadImage

MAX_PIXELS = 178_956_970
"""Pillow's own alarm. What went into a mix has usually passed the embedder's lower limit before."""


class Undecoded(ValueError):
    """Raised when the picture of the row `row` of a batch does not decode; `args[0]` says why."""

    def __init__(self, row: int, why: str) -> None:
        super().__init__(why)
        self.row = row


def tensor_or_list(column: pa.ChunkedArray) -> torch.Tensor | list[Any]:
    """Numbers and booleans as a tensor `(n,)`, a float null is NaN; with other nulls, and every other type, a list."""
    whole = pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)
    if pa.types.is_floating(column.type) or (whole and not column.null_count):
        values = column.to_numpy()
        return torch.from_numpy(values if values.flags.writeable else np.array(values))  # Arrow's memory is read-only
    return column.to_pylist()


def encoded(column: pa.ChunkedArray) -> list[bytes | None]:
    """The files of an image column, HF's struct or plain binary."""
    data = pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
    return data.to_pylist()


class Pictures:
    """Pictures of an image column, decoded and transformed, in several threads if asked for."""

    def __init__(self, transform: Callable[[Any], Any] | None, pool: ThreadPoolExecutor | None) -> None:
        self._transform, self._pool = transform, pool

    def __call__(self, column: pa.ChunkedArray) -> Any:
        """RGB pictures, or what the transform makes of them, stacked if those are tensors; None for a null.

        Raises:
            Undecoded: One does not decode.
        """
        files = encoded(column)
        made = list((self._pool.map if self._pool else map)(self._one, range(len(files)), files))
        tensors = [item for item in made if isinstance(item, torch.Tensor)]
        return torch.stack(tensors) if tensors and len(tensors) == len(made) else made

    def _one(self, row: int, data: bytes | None) -> Any:
        from tasks.embed.decode import decode

        if data is None:
            return None
        try:
            image = decode(data, MAX_PIXELS)
        except BadImage as error:
            raise Undecoded(row, f"{error.reason}: {error}") from error
        return image if self._transform is None else self._transform(image)


@contextmanager
def decoders(transform: Callable[[Any], Any] | None, threads: int) -> Iterator[Pictures]:
    """`Pictures` with a pool of threads (0: in the caller's), which ends with the block."""
    if not threads:
        yield Pictures(transform, None)
        return
    pool = ThreadPoolExecutor(threads, "decode")
    try:
        yield Pictures(transform, pool)
    finally:
        pool.shutdown(cancel_futures=True)


def compact(table: pa.Table) -> pa.Table:
    """The same rows in memory of their own: pickling a slice of a row group would send the whole of it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)
    return pa.ipc.open_stream(sink.getvalue()).read_all()
