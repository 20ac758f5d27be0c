"""What a picture may cost: its pixels, against the configured limit and against the bytes that are to hold them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.embed.reasons import BadImage

FREE_PIXELS = 4_000_000
"""Pictures up to this size cost so little that nobody asks whether their bytes can hold them."""
PIXELS_PER_BYTE = 10_000
"""Larger pictures with fewer bytes show nothing: a blank PNG of 1 bit a pixel has 8,256, photographs have 1 to 100."""
SLOW_PIXELS = 4_000_000
"""Limit for what Pillow decodes in Python, at up to a microsecond a number, all threads waiting."""
PIXELS_AT_ONCE = 64_000_000
"""What all threads of a process together may hold decoded."""


def check_size(width: int, height: int, limit: int, where: str = "") -> None:
    """Raise BadImage (`too_many_pixels`) for a picture beyond the limit."""
    if width * height > limit:
        raise BadImage("too_many_pixels", f"{width} x {height} pixels; at most {limit} are allowed{where}")


class Hollow(BadImage):
    """Raised for a picture with more pixels than its bytes can hold: a bomb, or the beginning of a large picture."""

    def __init__(self, pixels: int, size: int) -> None:
        super().__init__("image_bomb", f"claims {pixels} pixels, which {size} bytes cannot hold")


def check_ratio(pixels: int, data: bytes, per_byte: int = PIXELS_PER_BYTE) -> None:
    """Raise Hollow for a large picture with more than `per_byte` pixels a byte."""
    if pixels > max(FREE_PIXELS, per_byte * len(data)):
        raise Hollow(pixels, len(data))


def check_count(count: int, limit: int, what: str) -> None:
    """Raise BadImage (`image_bomb`) for a file built from too many parts: reading them takes longer than its pixels."""
    if count > limit:
        raise BadImage("image_bomb", f"over {limit} {what}")


class Room:
    """Lets pictures in while their pixels together are no more than `size`; a larger one goes in alone."""

    def __init__(self, size: int) -> None:
        self._size, self._taken = size, 0
        self._changed = threading.Condition()

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Wait for room and hold it meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + pixels <= self._size)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


ROOM = Room(PIXELS_AT_ONCE)
"""Shared by the process: not the size of a picture but several large ones at once exhaust memory."""
