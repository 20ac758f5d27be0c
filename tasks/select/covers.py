"""Masks under which alike bit strings agree: of all strings that differ in few bits, two are equal under one at least.

Give every bit a vector of d + 1 entries over a finite field of q elements, and take as a mask, for every direction, the
bits whose vectors are not orthogonal to it. The vectors of any d bits leave a direction free, so one mask has none of
them. Of the bits a mask keeps (q - 1) / q or more, however large d is: q = 2 is the covering code of Pagh,
"CoveringLSH: Locality-sensitive Hashing without False Negatives", arXiv 1507.03225. Masks number
(q^(d + 1) - 1) / (q - 1). Strings may be cut first: of p parts one differs in d / p bits at most.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np

ENTROPY = 0.8
"""Of hashes of pictures, bits worth counting, neither even nor independent: by how often two agree in 16 bits, 0.80
on clip art and 0.89 on drawn and photographed stamps, look-alikes left out."""
MOST_KEYS = 800
"""Masks, at most: a row takes 16 bytes of disk for each while rows are linked."""
COMPANY = 0.05
"""Rows that a row may meet by chance. From one on, chance joins nearly all rows into one group."""
FIELDS = {q: np.array([[a * b % q for b in range(q)] for a in range(q)]) for q in (2, 3, 5, 7)} | {
    4: np.array([[0, 0, 0, 0], [0, 1, 2, 3], [0, 2, 3, 1], [0, 3, 1, 2]])
}
"""Products of a field's elements."""
TRIES = 30
"""Ways to give bits their vectors, of which the one that makes masks most equally long is taken."""


def fitting(count: int, bits: int, distance: int) -> np.ndarray:
    """The fewest masks under which one of `count` strings meets few by chance, uint64 `(T, ceil(bits / 64))`.

    Where `MOST_KEYS` of them do not suffice: those under which one meets fewest.
    """
    found = sorted((cover(bits, distance, *choice) for choice in choices(distance)), key=len)
    few = [company(count, masks) for masks in found]
    enough = [n for n, value in enumerate(few) if value <= COMPANY]
    return found[enough[0] if enough else int(np.argmin(few))]


def company(count: int, masks: np.ndarray) -> float:
    """How many of `count` strings one meets by chance under all masks together, about."""
    return float(count * np.sum(2.0 ** (-ENTROPY * np.bitwise_count(masks).sum(axis=1))))


def choices(distance: int) -> list[tuple[int, int]]:
    """Parts and fields that make at most `MOST_KEYS` masks."""
    every = product(range(1, distance + 2), sorted(FIELDS))
    return [(parts, q) for parts, q in every if parts * _directions(distance // parts, q) <= MOST_KEYS]


def _directions(distance: int, q: int) -> int:
    return (q ** (distance + 1) - 1) // (q - 1)


@lru_cache
def cover(bits: int, distance: int, parts: int, q: int) -> np.ndarray:
    """Masks by a field of `q` elements over each of `parts`: uint64 `(T, ceil(bits / 64))`."""
    kept = _kept(distance // parts, q)
    width = -(-bits // parts)
    rng = np.random.default_rng(0)
    ways = [rng.permutation(len(kept))[np.arange(width) % len(kept)] for _ in range(TRIES)]
    best = kept[:, min(ways, key=lambda way: np.sum(2.0 ** (-ENTROPY * kept[:, way].sum(axis=1))))]
    table = np.zeros((parts, len(kept), -(-bits // 64) * 64), bool)
    for part in range(parts):  # neighbours, which are alike in worth, in different parts
        of_part = np.arange(part, bits, parts)
        table[part][:, of_part] = best[:, : len(of_part)]
    return np.packbits(table.reshape(-1, table.shape[2]), axis=1, bitorder="little").view("<u8")


def _kept(distance: int, q: int) -> np.ndarray:
    """Directions by vectors, both one of each line through nought: whether they are not orthogonal, bool `(N, N)`."""
    vectors = np.array(list(product(range(q), repeat=distance + 1)))
    leading = np.take_along_axis(vectors, (vectors != 0).argmax(axis=1)[:, None], axis=1)[:, 0]
    vectors = vectors[leading == 1]
    total = np.zeros((len(vectors), len(vectors)), np.int64)
    for entry in vectors.T:
        term = FIELDS[q][entry[:, None], entry]
        total = total ^ term if q == 4 else (total + term) % q
    return total != 0
