"""What the law of pools says around some samples seen: each pool's error over a range, and where the best changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tasks.select.pool_law import Variant, best_pool, in_order, predicted_errors

POINTS = 97
"""Numbers of samples seen at which pools are compared, evenly spaced on a log axis."""
MOST_POOLS = 24
"""Pools that are compared over the range, of more buckets those of every so many."""
HALVINGS = 40


class Law(NamedTuple):
    """All that the law needs but the samples seen."""

    scale: float
    exponents: np.ndarray
    """float64 `(M,)`, as `half_lives`."""
    half_lives: np.ndarray
    floor: float
    pool_size: float
    variant: Variant


class Outlook(NamedTuple):
    """What is predicted."""

    errors: np.ndarray
    """float64 `(M,)`: at the budget, of the pools of 1 to M buckets."""
    best: int
    """Buckets of the best pool at the budget."""
    pools: np.ndarray
    """int64 `(P,)`: the pools that are compared over the range, by their buckets; all, or every so many."""
    samples: np.ndarray
    """float64 `(T,)`: samples seen, ascending."""
    curves: np.ndarray
    """float64 `(T, P)`: errors there."""
    crossings: np.ndarray
    """float64 `(C, 2)`: the first whole number of samples seen from which another pool is the best, and which."""


def outlook(law: Law, samples_seen: int) -> Outlook:
    """What the law says at `samples_seen`, and from before the first repetition to far beyond it.

    The range goes from half a bucket, or a quarter of the budget, to 20 passes over everything, or four budgets.
    """
    errors, best = best_pool(samples_seen, *law[:5], variant=law.variant)
    count, size = len(errors), law.pool_size
    pools = np.arange(1, count + 1)
    if count > MOST_POOLS:
        pools = np.unique(np.append(np.linspace(1, count, MOST_POOLS).round().astype(np.int64), best))
    b, tau = in_order(law.exponents, law.half_lives)

    def errors_at(samples: np.ndarray) -> np.ndarray:
        each = [(law.scale, b[:m], tau[:m], law.floor, size) for m in pools]
        return np.column_stack([predicted_errors(samples, *one, variant=law.variant) for one in each])

    ends = max(1.0, min(size / 2, samples_seen / 4)), max(20 * size * count, 4.0 * samples_seen)
    samples = np.geomspace(*ends, POINTS)
    curves = errors_at(samples)
    found = crossings(lambda n: int(np.argmin(errors_at(np.array([n]))[0])), samples, np.argmin(curves, axis=1))
    changes = np.array([[n, pools[place]] for n, place in found], np.float64).reshape(-1, 2)
    return Outlook(errors, best, pools, samples, curves, changes)


def crossings(best: Callable[[float], int], samples: np.ndarray, known: np.ndarray) -> list[tuple[float, int]]:
    """Where `best` changes, to a whole number of samples, and to what.

    Args:
        best: Of a number of samples seen.
        samples: float64 `(T,)`, ascending.
        known: What `best` is at each.
    """
    found = []
    for i in range(1, len(samples)):
        low, here = float(samples[i - 1]), int(known[i - 1])
        while here != known[i]:
            high, there = float(samples[i]), int(known[i])
            for _ in range(HALVINGS):
                middle = np.floor((low + high) / 2)
                if middle <= low or middle >= high:
                    break
                if (seen := best(middle)) == here:
                    low = middle
                else:
                    high, there = middle, seen
            found.append((float(np.ceil(high)), there))
            low, here = high, there
    return found
