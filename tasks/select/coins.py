"""A coin for every row: a uniform number made of its uid, its row number and a seed, and of no other row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from storage.packed import unpack


def coins(uids: np.ndarray, rows: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """A uniform number in [0, 1) for every row, of nothing but its uid, its row number and the keys: float64 `(n,)`.

    Args:
        uids: uint64 `(n, 2)`.
        rows: int64 `(n,)`, row numbers within the files, so that copies in one file have coins of their own.
        keys: uint64 `(2,)`, from the seed.
    """
    mixed = scramble(scramble(uids[:, 0] ^ keys[0]) ^ uids[:, 1])
    mixed = scramble(mixed ^ scramble(rows.astype(np.uint64) ^ keys[1]))
    return (mixed >> np.uint64(11)) * 2.0**-53


def scramble(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uid_halves(uids: pa.ChunkedArray) -> np.ndarray:
    """128-bit uids as two words each: uint64 `(n, 2)`."""
    return unpack(uids, "<u8")
