"""The order in which trainers meet the batches of a mix: its own, or shuffled within windows of steps.

A mix of `steps` steps for W ranks has T = steps * W units, u = step * W + mix_rank. An epoch is a sequence of the
positions 0 … T - 1; everything here follows from a position and the seed alone. So a pass can begin anywhere and be
shared by any number of ranks: the state of training is one number, the positions that all ranks together have consumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Order(NamedTuple):
    """The order of the units in every epoch."""

    steps: int
    mix_ranks: int
    window: int
    """Steps that change places with one another; 0 or 1: none do."""
    seed: int

    @property
    def units(self) -> int:
        """Units of an epoch, T."""
        return self.steps * self.mix_ranks

    def stretches(self, positions: range, epoch: int) -> Iterator[list[int]]:
        """Yields the units at ascending `positions`, those of a window together; positions from T on begin again.

        Steps move as wholes: the ranks' batches of a step were sampled together and stay together. A unit of an earlier
        window never comes after one of a later window.
        """
        if self.window <= 1:
            yield from ([position % self.units] for position in positions)
            return
        window, at = self.window, 0
        while at < len(positions):
            lap, position = divmod(positions[at], self.units)
            index = position // self.mix_ranks // window
            first = index * window
            size = min(window, self.steps - first)
            order = first + np.random.default_rng([self.seed, epoch, index]).permutation(size)
            end = lap * self.units + (first + len(order)) * self.mix_ranks
            mine = np.arange(positions[at], min(end, positions.stop), positions.step) - lap * self.units
            step, rank = np.divmod(mine, self.mix_ranks)
            yield (order[step - first] * self.mix_ranks + rank).tolist()
            at += len(mine)


def share(units: int, consumed: int, world_size: int, drop_last: bool) -> int:
    """Batches of each rank where `consumed` of an epoch's `units` are behind all ranks; all ranks get as many.

    A remainder is left out, or filled up with units from the beginning of the epoch.
    """
    left = max(0, units - consumed)
    return left // world_size if drop_last else -(-left // world_size)
