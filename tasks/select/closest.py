"""The closest pairs of a cell go first, the worse row of each: what a target asks of greedy groups, for every size.

Pairs are taken level by level, the most alike first, and only rows that still stand are compared at the next level. So
a few million pairs are held at once, and as a rule two or three levels do.
"""

from __future__ import annotations

import numpy as np

from tasks.select.alike import BLOCK, Cell
from tasks.select.groups import take_turns
from tasks.select.linkage import Links

MOST_PAIRS = 1 << 22
"""Pairs of a level, about."""
SAMPLE = 256
"""Rows by which the level is estimated."""
LEAST = 0.0
"""Similarity below which nothing speaks against a row."""


def closest_first(cell: Cell) -> Links:
    """From the most alike pair down: where both rows stand, the later one goes and is linked with the earlier.

    As `tasks.select.groups.closest_first` over all pairs of a similarity above `LEAST`.
    """
    n = len(cell)
    link, similarity = np.full(n, -1, np.int64), np.full(n, -np.inf, np.float32)
    stands, most, above = np.arange(n), MOST_PAIRS, np.inf
    while len(stands) > 1 and above > LEAST:
        level = max(_level(cell, stands, most), LEAST)
        first, second, alike = _pairs(cell, stands, level)
        by = np.lexsort((second, first, -alike))
        take_turns(first[by], second[by], alike[by], link, similarity)
        left = stands[link[stands] < 0]
        most = MOST_PAIRS if len(left) < len(stands) else 8 * most
        stands, above = left, level
    return link, similarity


def _level(cell: Cell, rows: np.ndarray, most: int) -> float:
    """The similarity above which there are about so many pairs."""
    share = 2 * most / len(rows) ** 2
    if share >= 1:
        return LEAST
    sample = rows[np.unique(np.linspace(0, len(rows) - 1, SAMPLE).astype(np.int64))]
    found = np.concatenate(
        [cell.similarities(sample, rows[at : at + BLOCK]).ravel() for at in range(0, len(rows), BLOCK)]
    )
    place = len(found) - len(sample) - int(share * len(found))  # each of the sample is most alike itself
    return float(np.partition(found, max(0, place))[max(0, place)])


def _pairs(cell: Cell, rows: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of a similarity above the level: the earlier row, the later one, and how alike they are."""
    found: list[tuple[np.ndarray, ...]] = []
    for at in range(0, len(rows), BLOCK):
        for beside in range(at, len(rows), BLOCK):
            a, b = rows[at : at + BLOCK], rows[beside : beside + BLOCK]
            alike = cell.similarities(a, b)
            near = alike > level
            if at == beside:
                near = np.triu(near, 1)
            i, j = np.nonzero(near)
            found.append((a[i], b[j], alike[i, j]))
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))  # type: ignore[return-value]
