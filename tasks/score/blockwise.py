"""Work on blocks of logits, several at once on a CPU, each on one thread: the bytes do not depend on the cores."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import numpy as np

from tasks import stopping
from tasks.embed.encoder import single_threads
from tasks.embed.stream import ahead
from tasks.score.logits import Block

T = TypeVar("T")
Tell = Callable[[str], None]

IN_FLIGHT = 1 << 30
"""Bytes of logits that are made ahead, and as many again that are worked on, unless a single block has more."""

TELL_SECONDS = 20.0
"""Between two lines about how far a shard is."""


def silent(line: str) -> None:
    """Tell nobody."""


class LogitsScorer:
    """What scorers of logits have in common: they read what their source reads, and work where it does."""

    def __init__(self, config: Any, source: Any) -> None:
        """Note what is read; `source` is a `tasks.score.logits.LogitsSource`."""
        self.config, self.source = config, source
        self.needs, self.input_columns, self.libraries = source.needs, source.input_columns, source.libraries
        self.tell: Tell = silent

    @property
    def device(self) -> str:
        """`cpu` or `cuda`."""
        return self.source.device

    def check(self) -> None:
        """Raise a MixwrightError if the model cannot be there."""
        self.source.check()

    def depends_on(self) -> dict[str, Any]:
        """What the logits depend on."""
        return self.source.depends_on()


class Progress:
    """Tells now and then how many rows of a shard are done; `total` None: nobody knows yet how many there are."""

    def __init__(self, tell: Tell, total: int | None = None) -> None:
        self._tell, self._total, self._what = tell, total, ""
        self._done, self._last = 0, time.monotonic()

    def begin(self, what: str) -> None:
        """Rows are done again from the first; `what` goes before what is told."""
        self._what, self._done = what, 0

    def add(self, rows: int) -> None:
        """So many rows more are done."""
        stopping.check()
        self._done += rows
        if time.monotonic() - self._last >= TELL_SECONDS:
            of = f" of {self._total:,}" if self._total is not None else ""
            self._tell(f"{self._what}rows {self._done:,}{of}")
            self._last = time.monotonic()


def at_once(workers: int, size: int) -> int:
    """How many blocks of `size` bytes there may be at once for so many workers."""
    return max(1, min(workers, IN_FLIGHT // max(1, size)))


def worked(
    blocks: Iterable[Block], work: Callable[[Block], T], progress: Progress | None = None
) -> Iterator[tuple[np.ndarray, T]]:
    """The rows of each block and what `work` made of it, in the order of the blocks; `progress` hears of them."""
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
        made = result.result()
        if progress:
            progress.add(len(rows))
        yield rows, made


@cache
def worker_threads(count: int) -> ThreadPoolExecutor:
    """Threads in each of which torch computes with one thread, shared by the tasks of a process."""
    return single_threads(count)
