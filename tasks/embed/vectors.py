"""Embeddings at rest: float16 rows of one width as Arrow fixed-size binary, read without a copy."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from storage import packed


def field(name: str, dim: int) -> pa.Field:
    """The schema field of a column of vectors: `fixed_size_binary(2 * dim)`, width and type in its metadata."""
    return pa.field(name, pa.binary(2 * dim), metadata={"dim": str(dim), "dtype": "float16"})


def pack(vectors: np.ndarray, valid: np.ndarray) -> pa.FixedSizeBinaryArray:
    """Vectors as an Arrow array of little-endian float16, null where not `valid`.

    Args:
        vectors: float `(n, D)`; rows that are not valid may hold anything.
        valid: bool `(n,)`.
    """
    if vectors.ndim != 2 or vectors.shape[1] < 1 or valid.shape != vectors.shape[:1]:
        raise ValueError(f"`vectors` is {vectors.shape} and `valid` {valid.shape}; they must be (n, D >= 1) and (n,)")
    # Null slots are zeroed: the bytes below a null reach the disk and must not depend on what was there before.
    return packed.pack(np.where(valid[:, None], vectors, 0).astype("<f2"), valid)


def unpack(array: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Vectors of a fixed-size binary column: float16 `(n, D)`, rows of zeros for nulls.

    A view of Arrow's memory, and then read-only, where there is one chunk without nulls.
    """
    if not pa.types.is_fixed_size_binary(array.type) or array.type.byte_width % 2:
        raise ValueError(f"`array` is {array.type}; it must be fixed_size_binary of an even width")
    return packed.unpack(array, "<f2")
