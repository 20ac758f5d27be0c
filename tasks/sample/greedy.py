"""The greedy loop of CABS diversity maximisation (arXiv 2511.20643) over rows of concept ids in CSR form.

A score never rises while counts grow: each of its terms falls, and rounding is monotone too. So the score a row had
when last looked at bounds the one it has now, and only the row that leads a tournament of these scores needs a fresh
look: if its score, added up anew in list order, is the one it leads by, no other row beats it. Of equal scores the left
one leads, which is the lower row. These are the picks of computing every score anew before every pick, ties included,
without an inverted index and for a fraction of the work.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

NO_CAP = int(np.iinfo(np.int64).max)


class Rule(NamedTuple):
    """What a concept is worth to a row once its target or cap is reached."""

    repeats: bool
    """Whether a concept counts as often as a row repeats it."""
    cap: int
    """A concept counted this often is full."""
    met: float
    """Value of a concept whose target is met, at most 0."""
    penalty: float
    """What a label of a full concept costs its row, in units of 3: inf voids the row, 1 puts it behind."""


@njit(cache=True, nogil=True, inline="always", error_model="numpy")
def _score(row: int, offsets: np.ndarray, ids: np.ndarray, value: np.ndarray, excess: np.ndarray) -> float:
    """Returns the mean value of a row's labels minus 3 for each of a full concept: means span 2.5, so that decides."""
    total = 0.0
    over = 0.0
    for at in range(offsets[row], offsets[row + 1]):
        total += value[ids[at]]
        over += excess[ids[at]]
    return total / (offsets[row + 1] - offsets[row]) - 3.0 * over


@njit(cache=True, nogil=True, error_model="numpy")
def pick_greedily(
    offsets: np.ndarray, ids: np.ndarray, targets: np.ndarray, frequencies: np.ndarray, quota: int, rule: Rule
) -> tuple[np.ndarray, int]:
    """Returns up to `quota` rows in order of selection, and how many of them held no full concept (they come first).

    Args:
        offsets: int64 `(n + 1,)`; row i holds `ids[offsets[i]:offsets[i + 1]]`. Rows without concepts are never picked.
        ids: Concepts, each below V; repeats within a row count as often as they occur.
        targets: int64 `(V,)`, wanted count of each concept.
        frequencies: int64 `(V,)`, in how many rows each concept occurs.
        quota: Rows wanted.
        rule: See `Rule`.
    """
    rarity = 1.0 / np.maximum(1, frequencies)
    value = np.where(targets > 0, 1.0 + rarity, rule.met)
    excess = np.zeros(len(targets))
    counts = np.zeros(len(targets), np.int64)

    leaves = 1
    while leaves < len(offsets) - 1:
        leaves *= 2
    tree = np.full(2 * leaves, -np.inf)  # node i is the larger of nodes 2i and 2i + 1; row i is node leaves + i
    left = 0
    for row in range(len(offsets) - 1):
        if offsets[row + 1] > offsets[row]:
            tree[leaves + row] = _score(row, offsets, ids, value, excess)
            left += 1
    for node in range(leaves - 1, 0, -1):
        tree[node] = max(tree[2 * node], tree[2 * node + 1])

    picks = np.empty(min(quota, left), np.int64)
    picked = 0
    within = 0
    while picked < len(picks) and tree[1] > -np.inf:
        node = 1
        while node < leaves:
            node = 2 * node + (tree[2 * node] != tree[1])
        row = node - leaves
        score = _score(row, offsets, ids, value, excess)
        if score == tree[1]:
            picks[picked] = row
            picked += 1
            within += score >= -0.5  # one label of a full concept makes it -1 or less
            for at in range(offsets[row], offsets[row + 1]):
                c = ids[at]
                counts[c] += 1
                unmet = targets[c] - counts[c]
                value[c] = unmet / targets[c] + rarity[c] if unmet > 0 else rule.met
                if counts[c] >= rule.cap:
                    excess[c] = rule.penalty
            score = -np.inf
        tree[node] = score
        while node > 1:
            score = max(score, tree[node ^ 1])
            node //= 2
            tree[node] = score
    return picks[:picked], within
