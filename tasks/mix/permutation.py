"""Seeded permutations of 0..n-1 that are computed, not stored: any position by itself, forwards and backwards.

A balanced Feistel network over the next even number of bits, with cycle walking back into range (Black and Rogaway,
"Ciphers with Arbitrary Finite Domains", 2002). So a billion draws need no array of a billion entries, and each shard
finds the draws of its own rows without seeing another shard.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

ROUNDS = 6


def permute(values: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Where the permutation of 0..n-1 sends `values`: int64, same shape.

    Args:
        values: int64 in [0, n).
        n: Size of the permuted range, 1 or more.
        seed: Any non-negative integer; names the permutation.
    """
    return _walk(np.ascontiguousarray(values, np.int64), n, keys(seed), False)


def unpermute(values: np.ndarray, n: int, seed: int) -> np.ndarray:
    """The inverse of `permute`."""
    return _walk(np.ascontiguousarray(values, np.int64), n, keys(seed)[::-1].copy(), True)


def permute_each(
    values: np.ndarray, sizes: np.ndarray, every: Sequence[np.ndarray], which: np.ndarray, *, inverse: bool = False
) -> np.ndarray:
    """`permute`, or with `inverse` `unpermute`, each value by a permutation of its own: int64 `(n,)`.

    Args:
        values: int64 `(n,)`, each in [0, its size).
        sizes: int64 `(n,)`: size of each value's range, 1 or more.
        every: `keys` of the permutations.
        which: int64 `(n,)`: the permutation of each value.
    """
    if not len(values):
        return np.empty(0, np.int64)
    step = -1 if inverse else 1
    table = np.ascontiguousarray(np.stack(every)[:, ::step])
    return _walk_each(np.ascontiguousarray(values, np.int64), sizes, table, which, inverse)


def keys(seed: int) -> np.ndarray:
    """The keys of the permutation that a seed names: uint64 `(6,)`."""
    return np.random.default_rng(seed).integers(0, 1 << 63, ROUNDS, dtype=np.int64).astype(np.uint64)


@njit(cache=True, nogil=True)
def _walk(values: np.ndarray, n: int, keys: np.ndarray, inverse: bool) -> np.ndarray:
    half = _half(n)
    result = np.empty_like(values)
    for i in range(values.size):
        result[i] = _step(values[i], n, half, keys, inverse)
    return result


@njit(cache=True, nogil=True)
def _walk_each(values: np.ndarray, sizes: np.ndarray, keys: np.ndarray, which: np.ndarray, inverse: bool) -> np.ndarray:
    result = np.empty_like(values)
    for i in range(values.size):
        result[i] = _step(values[i], sizes[i], _half(sizes[i]), keys[which[i]], inverse)
    return result


@njit(inline="always")
def _half(n: int) -> int:
    """Bits of half a value."""
    half = 1
    while (1 << (2 * half)) < n:
        half += 1
    return half


@njit(inline="always")
def _step(start: int, n: int, half: int, keys: np.ndarray, inverse: bool) -> np.int64:
    """Where one value goes."""
    mask = np.uint64((1 << half) - 1)
    shift = np.uint64(half)
    value = np.uint64(start)
    while True:
        left, right = value >> shift, value & mask
        if inverse:
            left, right = right, left
        for key in keys:
            left, right = right, left ^ (_scramble(right ^ key) & mask)
        if inverse:
            left, right = right, left
        value = (left << shift) | right
        if value < np.uint64(n):
            return np.int64(value)


@njit(inline="always")
def _scramble(x: np.uint64) -> np.uint64:
    """The finaliser of splitmix64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
