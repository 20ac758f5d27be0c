"""The budget of a mix: so many draws, or as many whole batches as bytes or tokens have room for.

Sizes are known by group, on the mean of its rows; so a budget in bytes or tokens is met on average over the draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from configs.errors import ConfigError
from tasks.mix import Group, Proportions
from tasks.mix.allotting import allot


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


def draws_within(budget: Budget, found: Proportions, groups: Sequence[Group], max_epochs: float | None) -> int:
    """Draws of the whole batches that `budget.size` has room for, by the mean size of each group's rows."""
    names, rows = [group.name for group in groups], np.array([group.rows for group in groups], np.int64)
    sizes = np.array([group.size for group in groups]) / np.maximum(1, rows)

    def counts_of(steps: int) -> np.ndarray:
        return allot(found, names, rows, steps * budget.superbatch, max_epochs)[0].sum(axis=0)

    return whole_batches(counts_of, sizes, budget.size or 0, budget.batch, budget.superbatch) * budget.superbatch


def whole_batches(
    counts_of: Callable[[int], np.ndarray], sizes: np.ndarray, amount: float, batch: int, superbatch: int
) -> int:
    """The most batches whose expected size does not exceed `amount`; 0 if not even one fits.

    Args:
        counts_of: Draws by group, int64 `(groups,)`, of a mix of so many batches; fewer where rows give out.
        sizes: float64 `(groups,)`: mean bytes or tokens of a row of each group.
        amount: Bytes or tokens that the emitted rows may have together.
        batch: Rows of a batch.
        superbatch: Draws that are made for it.

    Raises:
        ConfigError: No row has a size, so any number of batches would do.
    """

    def size(steps: int) -> float:
        return float(counts_of(steps) @ sizes) * batch / superbatch

    if not sizes.any():
        raise ConfigError("no row has bytes or tokens, which the budget of the mix counts; give `mix.budget` in rows")
    low, high = 0, 1
    while size(high) <= amount:
        if int(counts_of(high).sum()) < high * superbatch:  # `max_epochs` lets no more be drawn
            return high
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) <= amount else (low, middle)
    return low
