"""For every row of a cell a better row that it is linked with, and how alike: three rules.

Rows come best first. Each rule returns `link: int64 (m,)`, a lower index or -1, and `similarity: float32 (m,)`, -inf
where there is no link. At any cut the rows with a similarity of at least the cut go, and `followed` names what stands
for them; `greedy` is bound to the one cut that it was made for.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from tasks.select.alike import BLOCK, Cell, Edges
from tasks.select.groups import persistence

MOST_EDGES = 1 << 22
"""Edges gathered before they are replaced by a spanning forest."""
DENSE = 64
"""Pairs for each row of two blocks, above which their spanning tree costs less than to work out every pair."""

Links = tuple[np.ndarray, np.ndarray]


def greedy(cell: Cell, cut: float) -> Links:
    """A free row becomes a keeper and takes every free row that reaches the cut; so each is alike its own keeper.

    Rows taken are linked with their keeper, the earliest if several could take them; keepers with the most alike of
    the keepers before them, where it reaches the cell's floor.
    """
    link, similarity = _unlinked(len(cell))
    free = np.arange(len(cell))
    while len(free):
        block, free = free[:BLOCK], free[BLOCK:]
        _take(*cell.edges(block, block), cut, link, similarity)
        heads = block[similarity[block] < cut]
        for at in range(0, len(free), BLOCK):
            _take(*cell.edges(heads, free[at : at + BLOCK]), cut, link, similarity)
        free = free[similarity[free] < cut]
    return link, similarity


def semdedup(cell: Cell) -> Links:
    """The most alike of all rows before a row, whether or not that one stays: SemDeDup's rule (arXiv 2303.09540)."""
    link, similarity = _unlinked(len(cell))
    for a, b in cell.pairs():
        if np.isfinite(cell.floor):
            _most_alike(*cell.edges(a, b), link, similarity)
            continue
        found = cell.similarities(a, b)
        if a[0] == b[0]:
            found[np.tril_indices(len(a))] = -np.inf
        first = found.argmax(axis=0)
        highest = found[first, np.arange(len(b))]
        more = highest > similarity[b]
        link[b[more]], similarity[b[more]] = a[first[more]], highest[more]
    return link, similarity


def components(cell: Cell) -> Links:
    """Single linkage: of two groups that meet, the worse one's best row is linked with the better one's.

    At any cut (from the cell's floor up) this keeps the best row of every connected component. Where pairs are many,
    only the maximum spanning trees of two blocks at a time are held, which is enough: memory grows with the rows.
    """
    gathered: list[Edges] = []
    held = 0
    for a, b in cell.pairs():
        few = cell.few_edges(a, b, DENSE * (len(a) + len(b))) if np.isfinite(cell.floor) else None
        gathered.append(_forest(cell, a, b) if few is None else few)
        held += len(gathered[-1].i)
        if held > MOST_EDGES:
            link, similarity = _single(gathered, len(cell))
            met = np.flatnonzero(link >= 0)
            gathered, held = [Edges(link[met], met, similarity[met])], len(met)
    return _single(gathered, len(cell))


def _single(gathered: list[Edges], n: int) -> Links:
    """Single linkage over edges. Its own links, taken as edges, join the same groups at every similarity."""
    if not gathered:
        return _unlinked(n)
    i, j, alike = (np.concatenate(values) for values in zip(*gathered, strict=True))
    link, similarity = persistence((i, j, alike), np.arange(n), n)
    return link, np.where(link >= 0, similarity, np.float32(-np.inf))


def followed(link: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """The row that stands for each row: itself if it is not `gone`, else where its links lead; int64 `(m,)`."""
    stands = np.where(gone, link, np.arange(len(link)))
    while np.any(gone[stands]):  # links lead to lower indices, and each round halves what is left of the way
        stands = stands[stands]
    return stands


def _unlinked(n: int) -> Links:
    return np.full(n, -1, np.int64), np.full(n, -np.inf, np.float32)


def _forest(cell: Cell, a: np.ndarray, b: np.ndarray) -> Edges:
    """A maximum spanning tree of one block, or of the pairs of a row of each of two blocks, from the floor up."""
    found = np.ascontiguousarray(cell.similarities(a, b))
    if a[0] == b[0]:
        i, j = _tree_inside(found)
        i, j = np.minimum(i, j), np.maximum(i, j)
    else:
        i, j = _tree_across(found, np.ascontiguousarray(found.T))
    similarity = cell.each(a[i], b[j])
    near = similarity >= cell.floor
    return Edges(a[i][near], b[j][near], similarity[near])


@njit(cache=True, nogil=True)
def _take(
    i: np.ndarray, j: np.ndarray, alike: np.ndarray, cut: float, link: np.ndarray, similarity: np.ndarray
) -> None:
    """Pairs in ascending order of `i`: whether a row is a keeper is settled when its own pairs come."""
    for e in range(len(i)):
        if similarity[i[e]] >= cut or similarity[j[e]] >= cut:
            continue
        if alike[e] > similarity[j[e]]:
            link[j[e]], similarity[j[e]] = i[e], alike[e]


@njit(cache=True, nogil=True)
def _most_alike(i: np.ndarray, j: np.ndarray, alike: np.ndarray, link: np.ndarray, similarity: np.ndarray) -> None:
    for e in range(len(i)):
        if alike[e] > similarity[j[e]]:
            link[j[e]], similarity[j[e]] = i[e], alike[e]


@njit(cache=True, nogil=True)
def _tree_inside(alike: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prim's algorithm on a symmetric matrix `(m, m)`: the ends of m - 1 edges."""
    m = len(alike)
    best, via, inside = np.full(m, -np.inf, np.float32), np.zeros(m, np.int64), np.zeros(m, np.bool_)
    i, j = np.empty(m - 1, np.int64), np.empty(m - 1, np.int64)
    current = 0
    for step in range(m - 1):
        inside[current] = True
        following = -1
        for v in range(m):
            if inside[v]:
                continue
            if alike[current, v] > best[v]:
                best[v], via[v] = alike[current, v], current
            if following < 0 or best[v] > best[following]:
                following = v
        i[step], j[step] = via[following], following
        current = following
    return i, j


@njit(cache=True, nogil=True)
def _tree_across(alike: np.ndarray, turned: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prim's algorithm between rows and columns of `alike (p, q)`, `turned` its transpose: p + q - 1 edges."""
    p, q = alike.shape
    best, via, inside = np.full(p + q, -np.inf, np.float32), np.zeros(p + q, np.int64), np.zeros(p + q, np.bool_)
    i, j = np.empty(p + q - 1, np.int64), np.empty(p + q - 1, np.int64)
    current = 0
    for step in range(p + q - 1):
        inside[current] = True
        row, start = (alike[current], p) if current < p else (turned[current - p], 0)
        for v in range(len(row)):
            if not inside[start + v] and row[v] > best[start + v]:
                best[start + v], via[start + v] = row[v], current
        following = -1
        for v in range(p + q):
            if not inside[v] and (following < 0 or best[v] > best[following]):
                following = v
        i[step], j[step] = min(via[following], following), max(via[following], following) - p
        current = following
    return i, j
