"""Work on blocks of logits, several at once on a CPU, each on one thread: the bytes do not depend on the cores."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import numpy as np

from tasks.embed.encoder import single_threads
from tasks.embed.stream import ahead
from tasks.score.logits import Block

T = TypeVar("T")

IN_FLIGHT = 1 << 30
"""Bytes of logits that are made ahead, and as many again that are worked on, unless a single block has more."""


def at_once(workers: int, size: int) -> int:
    """How many blocks of `size` bytes there may be at once for so many workers."""
    return max(1, min(workers, IN_FLIGHT // max(1, size)))


def worked(blocks: Iterable[Block], work: Callable[[Block], T]) -> Iterator[tuple[np.ndarray, T]]:
    """The rows of each block and what `work` made of it, in the order of the blocks."""
    source = iter(blocks)
    first = next(source, None)
    if first is None:
        return
    workers = 1 if first.logits.device.type == "cuda" else os.cpu_count() or 1
    waiting = at_once(workers, first.logits.nbytes)  # later blocks are no larger, but for rows that failed in the first
    blocks = itertools.chain([first], source)
    del first
    pool = worker_threads(workers)
    for rows, result in ahead(((block.rows, pool.submit(work, block)) for block in blocks), waiting):
        yield rows, result.result()


@cache
def worker_threads(count: int) -> ThreadPoolExecutor:
    """Threads that score, the process's own."""
    return single_threads(count)
