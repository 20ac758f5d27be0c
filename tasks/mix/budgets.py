"""The budget of a mix: so many draws, or as many whole batches as bytes or tokens have room for.

Sizes are known by group, on the mean of its rows; so a budget in bytes or tokens is met on average over the draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from configs.errors import ConfigError
from tasks.mix import Group, Proportions
from tasks.mix.draws import capped_counts, most_draws


@dataclass(frozen=True)
class Budget:
    """What a mix may have."""

    draws: int | None
    """None: every surviving row once, or `size`."""
    size: int | None
    """Bytes or tokens to emit."""
    batch: int
    superbatch: int
    """Rows of a batch, and draws that are made for it."""


def draws_within(
    budget: Budget, found: Proportions, groups: Sequence[Group], max_epochs: float | None
) -> tuple[int, list[str]]:
    """Draws of the whole batches that `budget.size` has room for, by the mean size of each group's rows; and warnings.

    Raises:
        ConfigError: What is drawn has no size, so any number of batches would do.
    """
    rows, wanted = np.array([group.rows for group in groups], np.int64), budget.size or 0
    sizes = np.array([group.size for group in groups]) / np.maximum(1, rows)
    most = None if max_epochs is None else most_draws(rows, max_epochs)
    mean = float(found.rounds.mean(axis=0) @ sizes)
    if mean <= 0:
        raise ConfigError(
            "no row that the mix draws has bytes or tokens, which its budget counts; give `mix.budget` in rows"
        )

    def size(steps: int) -> float:
        counts = capped_counts(found.rounds, steps * budget.superbatch, most)
        return float(counts.sum(axis=0) @ sizes) * budget.batch / budget.superbatch

    high = int(2 * wanted / (mean * budget.batch)) + 2
    if most is not None:
        drawn = (found.rounds > 0).any(axis=0)
        there = int(min(most[drawn].sum(dtype=np.float64), 2.0**62)) // budget.superbatch
        if there <= high and (reached := size(there)) <= wanted:
            epochs = (max_epochs or 0) * wanted / max(1.0, reached)
            return there * budget.superbatch, [
                f"the budget is {wanted:,} bytes or tokens, but with `max_epochs` {max_epochs:g} the rows that have a "
                f"share give about {reached:,.0f}, and the mix is as large as that; set `mix.max_epochs` to "
                f"{math.ceil(epochs):,}, or lower the budget"
            ]
        high = min(high, there)
    return most_batches(size, wanted, high) * budget.superbatch, []


def most_batches(size: Callable[[int], float], amount: float, high: int) -> int:
    """The most steps below `high` whose `size`, which grows with them, does not exceed `amount`; 0 if none fits."""
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) <= amount else (low, middle)
    return low
