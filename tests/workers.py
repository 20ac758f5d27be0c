"""DataLoader workers that do not inherit the threads of other tests' servers."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import BaseContext


def clean(workers: int, preload: str = "tasks.emit.loader") -> BaseContext | None:
    """Workers from a server without threads: a fork of this process would inherit those of other tests' servers."""
    if not workers:
        return None
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    return context
