"""Which rows of which groups a batch has: counts by group, and a stream of rows for each."""

from __future__ import annotations

import numpy as np


class Streams:
    """For each group its rows without end: every epoch is a permutation of its own.

    Attributes:
        places: int64 `(m,)`: rows taken of each so far; the whole state.
    """

    def __init__(self, rows: list[np.ndarray], seed: list[int]) -> None:
        self._rows, self._seed = rows, seed
        self._orders: list[tuple[int, np.ndarray]] = [(-1, np.zeros(0, np.int64))] * len(rows)
        self.places = np.zeros(len(rows), np.int64)

    def take(self, counts: np.ndarray) -> list[np.ndarray]:
        """The next rows of each group, as many as `counts` `(m,)` says: int64 each."""
        none = np.zeros(0, np.int64)
        taken = [self._next(group, count) if count else none for group, count in enumerate(counts.tolist())]
        self.places = self.places + counts
        return taken

    def _next(self, group: int, count: int) -> np.ndarray:
        place, parts = int(self.places[group]), [np.zeros(0, np.int64)]
        while count:
            epoch, start = divmod(place, len(self._rows[group]))
            part = self._epoch(group, epoch)[start : start + count]
            parts.append(part)
            place, count = place + len(part), count - len(part)
        return np.concatenate(parts)

    def _epoch(self, group: int, epoch: int) -> np.ndarray:
        if self._orders[group][0] != epoch:
            order = np.random.default_rng([*self._seed, group, epoch]).permutation(self._rows[group])
            self._orders[group] = (epoch, order)
        return self._orders[group][1]


def drawn_counts(shares: np.ndarray, rows: int, seed: list[int]) -> np.ndarray:
    """Rows of each group in a batch if every row's group is drawn at random: int64 `(m,)`, of sum `rows`."""
    return np.random.default_rng(seed).multinomial(rows, shares)


def composed_counts(shares: np.ndarray, rows: int, owed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each group in a batch by largest remainder, int64 `(m,)` of sum `rows`, and what each is owed then.

    Args:
        shares: float64 `(m,)`, non-negative with sum one.
        rows: Of the batch.
        owed: float64 `(m,)`: rows that earlier batches owe each group (less than zero: that it had too many).
    """
    wanted = shares * rows + owed
    # A group that was owed whole numbers gets them: sums of floats are off by less than this.
    counts = np.maximum(np.floor(wanted + 1e-9), 0).astype(np.int64)
    short = rows - int(counts.sum())
    order = np.argsort(counts - wanted, kind="stable")  # those who get too little first
    if short > 0:
        counts[order[:short]] += 1
    while short < 0:  # groups that had too many before leave others too much now
        last = next(g for g in order[::-1].tolist() if counts[g])
        counts[last] -= 1
        short += 1
        order = np.argsort(counts - wanted, kind="stable")
    return counts, wanted - counts
