"""Derived mixes: proportions that the rows of the groups speak for; one round, nothing is learned or drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from storage.states import Checkpoint
from tasks.mix import Group, Proportions
from tasks.mix.balance import p_to_t, t_to_p


def natural_shares(rows: np.ndarray) -> np.ndarray:
    """Shares in proportion to rows: float64 `(m,)`.

    Args:
        rows: int `(m,)`, 0 or more, not all 0.

    Raises:
        ValueError: A count is negative, or none is above 0.
    """
    counts = _counts(rows)
    return counts / counts.sum()


def uniform_shares(rows: np.ndarray) -> np.ndarray:
    """The same share for every group that has rows: float64 `(m,)`; arguments and errors of `natural_shares`."""
    there = _counts(rows) > 0
    return there / there.sum()


def temperature_shares(rows: np.ndarray, temperature: float) -> np.ndarray:
    """Shares in proportion to rows ** (1 / T): float64 `(m,)` (mT5, arXiv 2010.11934, section 3.1, with alpha = 1 / T).

    Args:
        rows: int `(m,)`, 0 or more, not all 0.
        temperature: T > 0: 1 is natural, infinity uniform; below 1 large groups gain.

    Raises:
        ValueError: A count is negative, none is above 0, or T is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"`temperature` is {temperature}; it must be above 0")
    counts = _counts(rows)
    # By logarithms, as rows ** 1000 is no float; the largest group has weight 1.
    size = np.log(np.where(counts > 0, counts, 1))
    weights = np.where(counts > 0, np.exp((size - size.max()) / temperature), 0.0)
    return weights / weights.sum()


def balance_shares(rows: np.ndarray, threshold: float) -> np.ndarray:
    """Shares in proportion to min(rows, t): float64 `(m,)` (MetaCLIP, arXiv 2309.16671, with groups for entries).

    Args:
        rows: int `(m,)`, 0 or more, not all 0.
        threshold: t > 0, in rows.

    Raises:
        ValueError: A count is negative, none is above 0, or t is not above 0.
    """
    if not threshold > 0:
        raise ValueError(f"`threshold` is {threshold}; it must be above 0")
    counts = _counts(rows)
    weights = np.minimum(counts, threshold)  # rows times `tasks.mix.balance.entry_probabilities`
    return weights / weights.sum()


class NaturalMix:
    """Groups as they occur."""

    def __init__(self, config: Any, *, seed: int) -> None:
        del config, seed  # nothing to set, nothing drawn

    def plan(self, groups: Sequence[Group], draws: int, checkpoint: Checkpoint) -> Proportions:
        """See `Mixer`."""
        return Proportions(natural_shares(_rows(groups))[None])


class UniformMix:
    """The same share for every group."""

    def __init__(self, config: Any, *, seed: int) -> None:
        del config, seed  # nothing to set, nothing drawn

    def plan(self, groups: Sequence[Group], draws: int, checkpoint: Checkpoint) -> Proportions:
        """See `Mixer`."""
        return Proportions(uniform_shares(_rows(groups))[None])


class TemperatureMix:
    """Between natural and uniform."""

    def __init__(self, config: Any, *, seed: int) -> None:
        del seed  # nothing is drawn here
        self._temperature: float = config.temperature

    def plan(self, groups: Sequence[Group], draws: int, checkpoint: Checkpoint) -> Proportions:
        """See `Mixer`."""
        return Proportions(temperature_shares(_rows(groups), self._temperature)[None])


class UnimaxMix(UniformMix):
    """UniMax (Chung et al., arXiv 2304.09151, algorithm 1), in rows where the paper counts characters.

    The shares are even. That no group is drawn more than `max_epochs` times, and that what it falls short by goes
    evenly to the others, is what `tasks.mix.draws.capped_counts` makes of even shares, whatever the budget turns out
    to be.
    """


class BalanceMix:
    """Groups of more than t rows count as t."""

    def __init__(self, config: Any, *, seed: int) -> None:
        del seed  # nothing is drawn here
        self._threshold: float | None = config.threshold
        self._tail_share: float = config.tail_share  # None where there is a threshold

    def plan(self, groups: Sequence[Group], draws: int, checkpoint: Checkpoint) -> Proportions:
        """See `Mixer`."""
        rows = _rows(groups)
        t = p_to_t(rows, self._tail_share) if self._threshold is None else self._threshold
        note = (
            f"balance: t = {t:,.12g} (tail share {t_to_p(rows, t):.2f}): {int((rows > t).sum()):,} of {len(rows):,} "
            "groups are thinned to t"
        )
        return Proportions(balance_shares(rows, t)[None], [note])


def _rows(groups: Sequence[Group]) -> np.ndarray:
    return np.array([group.rows for group in groups], np.int64)


def _counts(rows: np.ndarray) -> np.ndarray:
    """`rows` as float64 `(m,)`."""
    counts = np.asarray(rows, np.float64)
    if (counts < 0).any():
        raise ValueError(f"`rows` holds {counts.min():g}; each must be at least 0")
    if not counts.any():
        raise ValueError("`rows` is 0 in every group; one must have rows")
    return counts
