"""Where passes over a mix begin, told between a training process and its DataLoader workers.

A DataLoader hands a copy of its data set to every worker, for every pass or, with `persistent_workers`, for all passes.
What is said to the data set afterwards (`set_epoch`), and which of the passes took up a loaded state, must reach the
other processes: a few numbers in shared memory do that, as torch shares tensors with workers however they are started.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.utils.data import get_worker_info

EPOCH, RESUME, TAKER, LOADS, BEGAN, WORKERS = range(6)
"""The epoch; positions consumed before its next pass, -1 if nothing was loaded; which pass has taken that up, 0 if none
has; how often something was loaded; what was consumed before its latest pass began, -1 if none has; that pass's
workers."""
NOBODY = -2


class Begin(NamedTuple):
    """Where a pass begins."""

    epoch: int
    consumed: int
    """Positions of the epoch that all ranks together have consumed before."""


class Passes:
    """The beginnings of passes; copies in worker processes share it, copies made by pickle alone do not."""

    def __init__(self, epoch: int) -> None:
        """`epoch`: of the first pass."""
        self._told = torch.tensor([epoch, -1, 0, 0, -1, 0]).share_memory_()
        self._taken = 0  # the number of the load that this process took up last

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Share the memory again where pickle has copied it."""
        self.__dict__.update(state)
        if not self._told.is_shared():
            self._told = self._told.clone().share_memory_()

    @property
    def epoch(self) -> int:
        """The epoch of the next pass."""
        return int(self._told[EPOCH])

    @property
    def workers(self) -> int:
        """Worker processes of the epoch's latest pass; 0 where it runs in this process, or none has begun."""
        return int(self._told[WORKERS])

    def set_epoch(self, epoch: int) -> None:
        """Name the epoch of the next pass; what was loaded for another one is dropped."""
        if epoch != self.epoch:
            self._put(Begin(epoch, -1))

    def load(self, begin: Begin) -> None:
        """The next pass, and no later one, begins there."""
        self._told[LOADS] += 1
        self._told[TAKER] = 0
        self._put(begin)

    def _put(self, begin: Begin) -> None:
        self._told[EPOCH], self._told[RESUME] = begin
        self._told[BEGAN], self._told[WORKERS] = -1, 0

    def begin(self, otherwise: int) -> Begin:
        """Where the pass begins that begins now: what was loaded, once, and `otherwise` in later passes."""
        info = get_worker_info()
        # The workers of a pass have this number in common; persistent ones keep it, hence `_taken`.
        me = NOBODY if info is None else info.seed - info.id + 1
        loaded, loads = int(self._told[RESUME]), int(self._told[LOADS])
        mine = loaded >= 0 and self._taken != loads and int(self._told[TAKER]) in (0, me)
        if mine:
            self._told[TAKER], self._taken = me, loads
        return self.began(Begin(self.epoch, loaded if mine else otherwise))

    def began(self, begin: Begin) -> Begin:
        """`begin`, noted as the beginning of the latest pass."""
        info = get_worker_info()
        self._told[BEGAN], self._told[WORKERS] = begin.consumed, info.num_workers if info else 0
        return begin

    def latest(self, otherwise: int) -> Begin:
        """Where the epoch's latest pass began; where the next one will if none has."""
        for known in (int(self._told[BEGAN]), int(self._told[RESUME])):
            if known >= 0:
                return Begin(self.epoch, known)
        return Begin(self.epoch, otherwise)
