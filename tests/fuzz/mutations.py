"""Damage to bytes of any format, the same for the same seed: what disks, networks and malice do to files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    15,
    16,
    127,
    128,
    255,
    256,
    1000,
    32767,
    32768,
    65535,
    65536,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
)
NUMBERS += (2**63 - 1, 2**63, 2**64 - 1)
HEAD = 256
"""Bytes in which a file's claims usually stand: every third place is there."""
LONGEST = 4_000_000
"""No mutation makes a file longer than this."""


def mutated(data: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    """`data` after one to four mutations; `others` are files to splice with."""
    for _ in range(min(int(rng.geometric(0.6)), 4)):
        name = MUTATIONS[rng.integers(len(MUTATIONS))]
        data = name(data, rng, others)[:LONGEST] if data else noise(data, rng, others)
    return data


def flip_bits(data, rng, others):
    """A few bits anywhere, or many."""
    out = bytearray(data)
    for at in _places(rng, len(data), int(rng.choice([1, 1, 1, 2, 5, 100]))):
        out[at] ^= 1 << rng.integers(8)
    return bytes(out)


def set_bytes(data, rng, others):
    out = bytearray(data)
    for at in _places(rng, len(data), int(rng.integers(1, 9))):
        out[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.integers(256)])
    return bytes(out)


def set_number(data, rng, others):
    """A field of 1 to 8 bytes becomes a number that sizes and offsets are rarely tested with, or is off by a little."""
    width, order = int(rng.choice([1, 2, 2, 3, 4, 4, 4, 8])), ("little", "big")[rng.integers(2)]
    at = _place(rng, max(len(data) - width, 1))
    now = int.from_bytes(data[at : at + width], order)
    near = (now + int(rng.integers(-3, 4)), now * 2, now // 2, len(data), len(data) - at, now << 8)
    number = near[rng.integers(len(near))] if rng.random() < 0.4 else NUMBERS[rng.integers(len(NUMBERS))]
    return data[:at] + (number % 256**width).to_bytes(width, order) + data[at + width :]


def cut(data, rng, others):
    """The end is missing, or the beginning."""
    at = int(rng.integers(len(data)))
    return data[at:] if rng.random() < 0.1 else data[:at]


def drop(data, rng, others):
    start, stop = _slice(rng, len(data))
    return data[:start] + data[stop:]


def repeat(data, rng, others):
    """A part comes several times, up to thousands of times."""
    start, stop = _slice(rng, len(data))
    times = int(rng.choice([2, 3, 10, 100, 3000]))
    return data[:stop] + data[start:stop] * min(times, LONGEST // max(stop - start, 1)) + data[stop:]


def swap(data, rng, others):
    """Two parts change places."""
    a, b, c, d = sorted(int(rng.integers(len(data) + 1)) for _ in range(4))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def move(data, rng, others):
    """A part overwrites another place."""
    start, stop = _slice(rng, len(data))
    at = _place(rng, len(data))
    return data[:at] + data[start:stop] + data[at + stop - start :]


def splice(data, rng, others):
    """The head of one file, the tail of another."""
    other = others[rng.integers(len(others))] if others else data
    at = int(rng.integers(len(data)))
    start = min(at, len(other)) if rng.random() < 0.5 else int(rng.integers(len(other) + 1))
    return data[:at] + other[start:]


def insert(data, rng, others):
    """A part of another file in the middle of one."""
    other = others[rng.integers(len(others))] if others else data
    start, stop = _slice(rng, len(other))
    at = _place(rng, len(data))
    return data[:at] + other[start:stop] + data[at:]


def noise(data, rng, others):
    """A part becomes noise."""
    start, stop = _slice(rng, max(len(data), 8))
    return data[:start] + rng.integers(0, 256, stop - start, np.uint8).tobytes() + data[stop:]


def zeros(data, rng, others):
    """A hole: what a lost block of a disk looks like."""
    start, stop = _slice(rng, len(data))
    return data[:start] + bytes(stop - start) + data[stop:]


MUTATIONS = (
    flip_bits,
    flip_bits,
    set_bytes,
    set_number,
    set_number,
    cut,
    drop,
    repeat,
    swap,
    move,
    splice,
    insert,
    noise,
    zeros,
)


def _place(rng, size):
    return int(rng.integers(min(size, HEAD) if rng.random() < 1 / 3 else size))


def _places(rng, size, count):
    return [_place(rng, size) for _ in range(count)]


def _slice(rng, size):
    """A part: often some bytes, sometimes most of the file."""
    if not size:
        return 0, 0
    length = min(int(2 ** rng.uniform(0, np.log2(size + 1))), size)
    start = min(_place(rng, size), size - length)
    return start, start + length
