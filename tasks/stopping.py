"""A run that is to end: who is long at work looks here between two pieces, and stops with what is done kept."""

from __future__ import annotations

import threading

from configs.errors import Interrupted

_told = threading.Event()


def stop() -> None:
    """Have all work in this process end at its next look."""
    _told.set()


def go_on() -> None:
    """Forget it: another run begins."""
    _told.clear()


def is_told() -> bool:
    """Whether the work in this process is to end."""
    return _told.is_set()


def check() -> None:
    """Raise Interrupted if the work is to end."""
    if _told.is_set():
        raise Interrupted("the run was interrupted; what is finished stays, the same command goes on from there")
