"""Seeded permutations of 0..n-1 that are computed, not stored: any position by itself, forwards and backwards.

A balanced Feistel network over the next even number of bits, with cycle walking back into range (Black and Rogaway,
"Ciphers with Arbitrary Finite Domains", 2002). So a billion draws need no array of a billion entries, and each shard
finds the draws of its own rows without seeing another shard.
"""

from __future__ import annotations

import numpy as np
from numba import njit

ROUNDS = 6
SEED_BYTES = 16
"""Of a seed in `keys_each`."""


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
    values: np.ndarray, sizes: np.ndarray, every: np.ndarray, which: np.ndarray, *, inverse: bool = False
) -> np.ndarray:
    """`permute`, or with `inverse` `unpermute`, each value by a permutation of its own: int64 `(n,)`.

    Args:
        values: int64 `(n,)`, each in [0, its size).
        sizes: int64 `(n,)`: size of each value's range, 1 or more.
        every: uint64 `(permutations, 6)`, their `keys`.
        which: int64 `(n,)`: the permutation of each value.
    """
    if not len(values):
        return np.empty(0, np.int64)
    step = -1 if inverse else 1
    table = np.ascontiguousarray(every[:, ::step])
    return _walk_each(np.ascontiguousarray(values, np.int64), sizes, table, which, inverse)


def keys(seed: int) -> np.ndarray:
    """The keys of the permutation that a seed names: uint64 `(6,)`."""
    return np.random.default_rng(seed).integers(0, 1 << 63, ROUNDS, dtype=np.int64).astype(np.uint64)


def keys_each(seeds: bytes) -> np.ndarray:
    """The `keys` of many seeds, without a generator for each, which is most of the time: uint64 `(n, 6)`.

    They are NumPy's: `SeedSequence` hashes a seed into the state of a PCG64 (O'Neill, "PCG: A Family of Simple Fast
    Space-Efficient Statistically Good Algorithms for Random Number Generation", 2014), whose numbers lose their lowest
    bit. NumPy keeps both as they are (NEP 19).

    Args:
        seeds: `SEED_BYTES` of each, the most significant first.
    """
    words = np.frombuffer(seeds, ">u4").reshape(-1, 4)[:, ::-1].T.astype(np.uint32)  # the least significant first
    start_high, start_low, stream_high, stream_low = _seeded(words)
    odd_high = stream_high << np.uint64(1) | stream_low >> np.uint64(63)
    odd_low = stream_low << np.uint64(1) | np.uint64(1)
    high, low = _add(odd_high, odd_low, start_high, start_low)
    high, low = _advance(high, low, odd_high, odd_low)
    found = np.empty((len(high), ROUNDS), np.uint64)
    for number in range(ROUNDS):
        high, low = _advance(high, low, odd_high, odd_low)
        mixed, turn = high ^ low, high >> np.uint64(58)
        found[:, number] = (mixed >> turn | mixed << (-turn & np.uint64(63))) >> np.uint64(1)
    return found


def _seeded(words: np.ndarray) -> list[np.ndarray]:
    """`SeedSequence(seed).generate_state(4)` of many seeds at once, which are uint32 `(4, n)`: four uint64 `(n,)`."""
    key = _Key(0x43B0D7E5, 0x931E8875)
    pool = [key.hashed(word) for word in words]
    for source in range(4):
        for target in range(4):
            if source != target:
                mixed: np.ndarray = np.uint32(0xCA01F9DD) * pool[target] - np.uint32(0x4973F715) * key.hashed(
                    pool[source]
                )
                pool[target] = mixed ^ mixed >> np.uint32(16)
    key = _Key(0x8B51F9DD, 0x58F38DED)
    halves = [key.hashed(pool[number % 4]).astype(np.uint64) for number in range(8)]
    return [low | high << np.uint64(32) for low, high in zip(halves[::2], halves[1::2], strict=True)]


class _Key:
    """What a SeedSequence hashes words with: another number for each."""

    def __init__(self, start: int, factor: int) -> None:
        self._value, self._factor = start, factor

    def hashed(self, word: np.ndarray) -> np.ndarray:
        """The hash of the next word, uint32 `(n,)`."""
        word = word ^ np.uint32(self._value)
        self._value = self._value * self._factor & 0xFFFFFFFF
        word = word * np.uint32(self._value)
        return word ^ word >> np.uint32(16)


def _advance(high: np.ndarray, low: np.ndarray, odd_high: np.ndarray, odd_low: np.ndarray) -> tuple:
    """The next state of generators, times PCG64's factor plus their own odd number, modulo 2^128: two uint64 `(n,)`."""
    by_high, by_low = np.uint64(0x2360ED051FC65DA4), np.uint64(0x4385DF649FCCF645)
    half, lower = np.uint64(32), np.uint64(0xFFFFFFFF)
    a, b, c, d = low >> half, low & lower, by_low >> half, by_low & lower
    inner = (b * d >> half) + (a * d & lower)
    carried = inner + b * c  # below 2^64: 2^33 - 2 and (2^32 - 1)^2
    product_high = a * c + (a * d >> half) + (carried >> half)
    return _add(product_high + high * by_low + low * by_high, low * by_low, odd_high, odd_low)


def _add(high: np.ndarray, low: np.ndarray, more_high: np.ndarray, more_low: np.ndarray) -> tuple:
    """Sums modulo 2^128: two uint64 `(n,)`."""
    total = low + more_low
    return high + more_high + (total < low), total


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
