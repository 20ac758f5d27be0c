"""Seeded permutations of 0..n-1 that are computed, not stored: any position by itself, forwards and backwards.

A balanced Feistel network over the next even number of bits, with cycle walking back into range (Black and Rogaway,
"Ciphers with Arbitrary Finite Domains", 2002). So a billion draws need no array of a billion entries, and each shard
finds the draws of its own rows without seeing another shard.
"""

from __future__ import annotations

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
    return _walk(np.ascontiguousarray(values, np.int64), n, _keys(seed), False)


def unpermute(values: np.ndarray, n: int, seed: int) -> np.ndarray:
    """The inverse of `permute`."""
    return _walk(np.ascontiguousarray(values, np.int64), n, _keys(seed)[::-1].copy(), True)


def _keys(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << 63, ROUNDS, dtype=np.int64).astype(np.uint64)


@njit(cache=True)
def _walk(values: np.ndarray, n: int, keys: np.ndarray, inverse: bool) -> np.ndarray:
    half = 1
    while (1 << (2 * half)) < n:
        half += 1
    mask = np.uint64((1 << half) - 1)
    shift = np.uint64(half)
    result = np.empty_like(values)
    for i in range(values.size):
        value = np.uint64(values[i])
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
                break
        result[i] = np.int64(value)
    return result


@njit(inline="always")
def _scramble(x: np.uint64) -> np.uint64:
    """The finaliser of splitmix64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
