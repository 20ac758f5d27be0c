"""Shingles: the n-grams of a text's tokens as 64-bit hashes, the set that MinHash compares texts by.

Texts are normalised first (NFKC and case folding, as in Unicode's caseless matching). `words`: runs of letters, digits
and their marks; a character of a script that is written without spaces (Han, kana, Thai, Lao, Khmer, Burmese, Tibetan)
and a pictograph is a token of its own; everything else only separates. `characters`: every character, runs of white
space as one. A text of fewer than n tokens has one shingle, all its tokens; one without any token has one too, made of
its characters: so every text has a shingle, and those two kinds are alike only if they are equal.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Literal

import numpy as np
from numba import njit

Tokens = Literal["words", "characters"]

SEPARATOR, WORD, ALONE, MARK, IGNORED = range(5)
"""What a character does: ends a token, goes on with one, is one, goes on with any, nothing."""

UNSPACED = (
    *((0x0E00, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x2FDF), (0x3005, 0x3007)),
    *((0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F)),
    *((0xF900, 0xFAFF), (0x1AFF0, 0x1B16F), (0x20000, 0x3FFFF)),
)
"""Blocks of the scripts that are written without spaces: first and last code point."""

EMPTY_SALT = np.uint64(0x9E3779B97F4A7C15)


def normalised(text: str) -> str:
    """The text after NFKC and case folding."""
    if text.isascii():
        return text.lower()
    # Folding can undo the normal form ("ΐ" becomes three characters), hence twice.
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


@cache
def classes(tokens: Tokens) -> np.ndarray:
    """What every code point does under a tokeniser, uint8 `(0x110000,)`."""
    meaning = {"L": WORD, "N": WORD, "M": MARK, "So": ALONE, "Co": ALONE, "Cn": ALONE, "Cf": IGNORED}
    if tokens == "characters":
        meaning = dict.fromkeys("LNMPS", ALONE) | {"Co": ALONE, "Cn": ALONE, "Cf": IGNORED}
    found = [unicodedata.category(chr(point)) for point in range(0x110000)]
    table = np.array([meaning.get(name, meaning.get(name[0], SEPARATOR)) for name in found], np.uint8)
    for first, last in UNSPACED:
        block = table[first : last + 1]
        block[block == WORD] = ALONE
    table[0xFE00:0xFE10] = IGNORED  # how a pictograph is drawn
    return table


def shingles(texts: Sequence[str], tokens: Tokens, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the shingles of all texts, uint64 `(m,)`, repeats included, and where each text's begin, `(len + 1,)`.

    Args:
        texts: As they are; no more together than memory holds 12 times.
        tokens: The tokeniser.
        n: Tokens of a shingle.
    """
    plain = [normalised(text) for text in texts]
    ends = np.zeros(len(plain) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, plain), np.int64, len(plain)), out=ends[1:])
    points = np.frombuffer("".join(plain).encode("utf-32-le"), "<u4")
    hashes = np.empty(len(points) + len(plain), np.uint64)
    starts = _hash(points, ends, classes(tokens), tokens == "characters", n, hashes)
    return hashes[: starts[-1]], starts


@njit(cache=True, inline="always")
def _mixed(value: np.uint64) -> np.uint64:
    """The finaliser of SplitMix64: every bit of the input reaches every bit of the output."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@njit(cache=True, nogil=True)
def _hash(
    points: np.ndarray, ends: np.ndarray, table: np.ndarray, spaces: bool, n: int, hashes: np.ndarray
) -> np.ndarray:
    """Write the shingles of text after text into `hashes`; returns where each text's begin.

    A text of c characters has at most max(1, c) shingles, so what is written never overtakes what `hashes` holds.
    """
    starts = np.zeros(len(ends), np.int64)
    basis = np.uint64(0xCBF29CE484222325)
    for text in range(len(ends) - 1):
        first = starts[text]
        count = _token_hashes(points[ends[text] : ends[text + 1]], table, spaces, hashes[first:])
        if count == 0:
            value = EMPTY_SALT
            for at in range(ends[text], ends[text + 1]):
                value = _mixed(value ^ np.uint64(points[at]))
            hashes[first] = _mixed(value)
        for at in range(max(1, count - n + 1) if count else 0):
            value = basis
            for token in range(at, min(at + n, count)):
                value = _mixed(value * np.uint64(3) + hashes[first + token])
            hashes[first + at] = value
        starts[text + 1] = first + max(1, count - n + 1)
    return starts


@njit(cache=True, nogil=True)
def _token_hashes(points: np.ndarray, table: np.ndarray, spaces: bool, hashes: np.ndarray) -> int:
    """Write the hashes of one text's tokens; returns how many there are. `spaces`: gaps between tokens are tokens."""
    basis, prime = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
    count, inside, gap = 0, SEPARATOR, False
    for at in range(len(points)):
        point = points[at]
        kind = table[point]
        if kind == IGNORED:
            continue
        if kind == SEPARATOR:
            gap, inside = True, SEPARATOR
            continue
        if kind == MARK and inside == SEPARATOR:
            continue
        if kind == ALONE or (kind == WORD and inside != WORD):
            if spaces and gap and count:
                hashes[count] = basis
                count += 1
            hashes[count] = basis
            count, gap, inside = count + 1, False, kind
        hashes[count - 1] = (hashes[count - 1] ^ np.uint64(point)) * prime  # FNV-1a; shingles mix it
    return count
