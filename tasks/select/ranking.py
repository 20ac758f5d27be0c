"""The exact cut of ranked selects: of each group the first rows up to a quota, with memory bounded by one part.

A row's key is its rank, column by column, then its place (shard, row): all keys differ, so a cut meets any number of
rows exactly. The cut is found by radix: a histogram of the keys' leading digits says in which bin the quota ends, the
next pass looks at that bin alone, until so few rows are left that they are sorted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from configs.errors import StageError

SORTED_ROWS = 1 << 20
"""Rows that are sorted at once."""
BINS = 1 << 22
"""Bins of a histogram, over all groups, above which digits have 8 bits instead of 16."""
MOST_GROUPS = 100_000
"""Most groups that are cut: their histograms take about 600 MB."""


class Ranks(NamedTuple):
    """Rows of one part, in any order."""

    key: np.ndarray
    """uint32 `(n, w)`, the most significant word first: the smaller, the longer a row stays."""
    group: np.ndarray
    """int64 `(n,)`"""
    size: np.ndarray
    """int64 `(n,)`: what a row counts, 1 for rows."""


class Cut(NamedTuple):
    """Where the groups are cut."""

    group: np.ndarray
    """int64 `(G,)`, ascending"""
    key: np.ndarray
    """uint32 `(G, w)`: the first key of each that does not stay."""
    whole: np.ndarray
    """bool `(G,)`: all rows stay, whatever `key` says."""

    def stays(self, key: np.ndarray, group: np.ndarray) -> np.ndarray:
        """Which rows stay, bool `(n,)`; `group` holds known groups alone."""
        at = np.searchsorted(self.group, group)
        return self.whole[at] | _below(key, self.key[at])


def keys(rank: np.ndarray, shard: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Keys of rows, uint32 `(n, k + 3)`.

    Args:
        rank: float32 `(n,)` or `(n, k)`, no NaN.
        shard: int32 `(n,)`
        row: int64 `(n,)`

    Raises:
        ValueError: A rank is NaN.
    """
    ranks = rank[:, None] if rank.ndim == 1 else rank
    if np.isnan(ranks).any():
        raise ValueError(
            f"`rank` is NaN in row {int(np.flatnonzero(np.isnan(ranks).any(axis=1))[0])}; ranks are numbers"
        )
    place = [shard.astype(np.uint32), (row >> 32).astype(np.uint32), (row & 0xFFFFFFFF).astype(np.uint32)]
    return np.column_stack([ordered(ranks.astype(np.float32)), *place])


def ordered(values: np.ndarray) -> np.ndarray:
    """Float32 as uint32 whose integer order is the numeric order; -0.0 counts as 0.0."""
    bits = (values + np.float32(0)).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def totals(parts: Iterable[Ranks]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups ascending, their rows and their sizes: int64 `(G,)` each."""
    group, rows, size = (np.empty(0, np.int64) for _ in range(3))
    for part in parts:
        group, at = np.unique(np.concatenate([group, part.group]), return_inverse=True)
        ones = np.ones(len(part.group), np.int64)
        rows = _added(at, np.concatenate([rows, ones]), len(group))
        size = _added(at, np.concatenate([size, part.size]), len(group))
    return group, rows, size


def find(parts: Iterable[Ranks], group: np.ndarray, quota: np.ndarray, rows: np.ndarray, size: np.ndarray) -> Cut:
    """The cut that keeps of each group the first rows by key, as many as do not exceed its quota.

    Args:
        parts: Every row once; iterated several times.
        group: int64 `(G,)`, ascending, with `rows` and `size` as of `totals`.
        quota: int64 `(G,)`, in the unit of `Ranks.size`.

    Raises:
        StageError: There are more than `MOST_GROUPS` groups.
    """
    if len(group) > MOST_GROUPS:
        raise StageError(
            f"the rows of this select are in {len(group):,} groups, each with its own quota, and there may be "
            f"{MOST_GROUPS:,}: take fewer clusters or classes"
        )
    whole = quota >= size
    left, count = quota.astype(np.int64), rows.astype(np.int64)
    bits = 16 if len(group) << 16 <= BINS else 8
    fixed = np.zeros((len(group), 0), np.uint32)
    while int(count[~whole].sum()) > SORTED_ROWS:
        amount, number = (np.zeros((len(group), 1 << bits), np.int64) for _ in range(2))
        for part, at, digits in _open(parts, group, whole, fixed, bits):
            bins = at << bits | digits[:, fixed.shape[1]]
            amount += _added(bins, part.size, amount.size).reshape(amount.shape)
            number += np.bincount(bins, minlength=number.size).reshape(number.shape)
        reached = np.cumsum(amount, axis=1)
        chosen = np.minimum((reached <= left[:, None]).sum(axis=1), (1 << bits) - 1)
        each = np.arange(len(group))
        left = left - np.where(chosen > 0, reached[each, chosen - 1], 0)
        count = number[each, chosen]
        fixed = np.column_stack([fixed, chosen.astype(np.uint32)])
    return Cut(group, _sorted_cut(parts, group, whole, fixed, bits, left), whole)


def _sorted_cut(
    parts: Iterable[Ranks], group: np.ndarray, whole: np.ndarray, fixed: np.ndarray, bits: int, left: np.ndarray
) -> np.ndarray:
    """The first key of each group that does not stay, among the rows that share its `fixed` digits."""
    found = [(part.key, at, part.size) for part, at, _ in _open(parts, group, whole, fixed, bits)]
    width = found[0][0].shape[1] if found else 1
    first = np.zeros((len(group), width), np.uint32)
    if whole.all():
        return first
    key, at, size = (np.concatenate([one[i] for one in found]) for i in range(3))
    order = np.lexsort((*key.T[::-1], at))
    key, at, size = key[order], at[order], size[order]
    reached = np.cumsum(size)
    starts = np.searchsorted(at, np.arange(len(group)))
    before = np.where(starts > 0, reached[np.maximum(starts, 1) - 1], 0)
    goes = reached - before[at] > left[at]
    index = np.flatnonzero(goes)
    groups, where = np.unique(at[index], return_index=True)
    first[groups] = key[index[where]]
    return first


def _open(
    parts: Iterable[Ranks], group: np.ndarray, whole: np.ndarray, fixed: np.ndarray, bits: int
) -> Iterator[tuple[Ranks, np.ndarray, np.ndarray]]:
    """The rows that are still undecided: they share their group's `fixed` digits; with the group's index and digits."""
    for part in parts:
        at = np.searchsorted(group, part.group)
        mask = ~whole[at]
        digits = _digits(part.key, bits)
        for level in range(fixed.shape[1]):
            mask &= digits[:, level] == fixed[at, level]
        yield Ranks(part.key[mask], part.group[mask], part.size[mask]), at[mask], digits[mask]


def _digits(key: np.ndarray, bits: int) -> np.ndarray:
    """Keys as digits of 8 or 16 bits, int64 `(n, w * 32 / bits)`, the most significant first."""
    return np.ascontiguousarray(key.astype(">u4")).view(">u2" if bits == 16 else "u1").astype(np.int64)


def _added(at: np.ndarray, values: np.ndarray, length: int) -> np.ndarray:
    """Sums of int64 values by index, exact."""
    result = np.zeros(length, np.int64)
    np.add.at(result, at, values)
    return result


def _below(key: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Whether keys come before limits, word by word: bool `(n,)`."""
    below, equal = np.zeros(len(key), bool), np.ones(len(key), bool)
    for word in range(key.shape[1]):
        below |= equal & (key[:, word] < limit[:, word])
        equal &= key[:, word] == limit[:, word]
    return below
