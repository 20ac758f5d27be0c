"""Skills that mean the same become one: those whose vectors are near, by the commonest one's name.

How the paper (arXiv 2503.14917) merges is not known beyond its threshold, 0.9: both rules here are reconstructions.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numba import njit

from tasks.select.alike import Cell


def merge(
    vectors: np.ndarray, counts: np.ndarray, threshold: float, rule: Literal["greedy", "components"] = "greedy"
) -> np.ndarray:
    """Returns which skill each becomes, int64 `(n,)`: the commonest (ties: the first) of those that are merged.

    What is merged goes by the commonest one's name and vector; merging what is left once more changes nothing.

    Args:
        vectors: float `(n, h)`, unit rows; a row of zeros is merged with none, unless everything is.
        counts: int `(n,)`, rows with each skill.
        threshold: Cosines above it are near. At most -1 merges everything, above 1 nothing.
        rule: `greedy`: the commonest skill takes in all that are near it, then the commonest of the rest does.
            `components`: whatever a chain of near skills joins.

    Raises:
        ValueError: `rule` is neither.
    """
    if rule not in ("greedy", "components"):
        raise ValueError(f"`rule` is {rule!r}; it must be one of greedy, components")
    order = np.argsort(-np.asarray(counts), kind="stable")
    leader = np.arange(len(order))
    if threshold <= -1:
        leader[:] = 0
    elif threshold <= 1:
        there = np.flatnonzero(np.any(vectors[order] != 0, axis=1))
        own = np.arange(len(there))
        if len(there):
            cell = Cell([vectors[order[there]]], floor=threshold, cut=threshold)
            for first, second in cell.pairs():  # the second ascending: what comes before is settled
                found = cell.edges(first, second)
                near = found.similarity > np.float32(threshold)
                _join(found.i[near], found.j[near], own, rule == "components")
        leader[there] = there[_ends(own)]
    result = np.empty(len(order), np.int64)
    result[order] = order[leader]
    return result


@njit(cache=True, nogil=True)
def _join(i: np.ndarray, j: np.ndarray, leader: np.ndarray, chains: bool) -> None:
    """Take in near pairs `i < j`, ascending by i."""
    for e in range(len(i)):
        a, b = i[e], j[e]
        if chains:
            while leader[a] != a:
                leader[a] = leader[leader[a]]
                a = leader[a]
            while leader[b] != b:
                leader[b] = leader[leader[b]]
                b = leader[b]
            leader[max(a, b)] = min(a, b)
        elif leader[a] == a and leader[b] == b:
            leader[b] = a


def _ends(leader: np.ndarray) -> np.ndarray:
    """Where each chain of leaders ends."""
    while np.any(leader != leader[leader]):
        leader = leader[leader]
    return leader
