"""DataLoader workers that do not inherit the threads of other tests' servers."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import BaseContext
from typing import Any


def clean(workers: int, preload: str = "tasks.emit.loader") -> BaseContext | None:
    """Workers from a server without threads: a fork of this process would inherit those of other tests' servers."""
    if not workers:
        return None
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    return context


def loader(mix: Any, workers: int) -> Any:
    """A DataLoader over the batches of a mix."""
    from torch.utils.data import DataLoader

    return DataLoader(mix, batch_size=None, num_workers=workers, multiprocessing_context=clean(workers))
