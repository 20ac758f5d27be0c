"""Matrix products on one thread each: tasks run side by side on the threads of a process, and fill its cores.

A product on all cores waits for its slowest thread, by spinning: on two busy cores that took ten times as long as one
thread, and two tasks that multiply at once make each other busy. numpy's BLAS has one setting for the whole process.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_lock = threading.Lock()
_users = 0
_before: list[int] = []


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block, products take one thread; the last of those inside restores what was set."""
    global _users, _before
    with _lock:
        if _users == 0:
            _before = [library.num_threads for library in _libraries()]
            _set([1] * len(_before))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _set(_before)


def _set(threads: list[int]) -> None:
    for library, count in zip(_libraries(), threads, strict=True):
        library.set_num_threads(count)


@cache
def _libraries() -> list[Any]:
    """The loaded BLAS libraries."""
    from threadpoolctl import ThreadpoolController

    return list(ThreadpoolController().select(user_api="blas").lib_controllers)
