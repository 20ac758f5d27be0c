"""Rows of numbers as one fixed-size binary value each: written as they lie, read without a copy if possible."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa


def pack(rows: np.ndarray, valid: np.ndarray | None = None) -> pa.FixedSizeBinaryArray:
    """Rows as `fixed_size_binary(itemsize * w)`, null where not `valid`.

    Args:
        rows: `(n, w)` of any number type. What is below a null reaches the disk: let it not depend on what was there.
        valid: bool `(n,)`; None: all are.
    """
    whole = np.ascontiguousarray(rows)
    bitmap = None if valid is None or valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    buffers = [bitmap, pa.py_buffer(whole)]
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(whole.itemsize * whole.shape[1]), len(whole), buffers)


def unpack(column: pa.Array | pa.ChunkedArray, kind: Any) -> np.ndarray:
    """Rows of a fixed-size binary column: `(n, w)` of `kind`, zeros for nulls.

    A view of Arrow's memory, and then read-only, where there is one chunk without nulls.
    """
    if isinstance(column, pa.Array):
        return _chunk(column, np.dtype(kind))
    if column.num_chunks == 1:
        return _chunk(column.chunk(0), np.dtype(kind))
    rows = np.empty((len(column), column.type.byte_width // np.dtype(kind).itemsize), kind)
    at = 0
    for chunk in column.chunks:
        rows[at : at + len(chunk)] = _chunk(chunk, np.dtype(kind))
        at += len(chunk)
    return rows


def _chunk(array: Any, kind: np.dtype) -> np.ndarray:
    width = array.type.byte_width // kind.itemsize
    if len(array) == 0:  # an empty array may have no data buffer
        return np.empty((0, width), kind)
    start = array.offset * array.type.byte_width
    rows = np.frombuffer(array.buffers()[1], kind, count=len(array) * width, offset=start).reshape(-1, width)
    if array.null_count == 0:
        return rows
    return np.where(array.is_valid().to_numpy(zero_copy_only=False)[:, None], rows, kind.type(0))
