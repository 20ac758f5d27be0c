"""The boxes of ISO base media files (ISO 14496-12), AVIF and HEIC among them, and of JPEG 2000 ones."""

from __future__ import annotations

import struct
from collections.abc import Iterator


def boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of each box from `at` to `end`; the last one may claim to end later."""
    end = min(end, len(data))
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1 and at + 16 <= end:
            size, start = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        stop = at + size if size else end
        if stop < start:
            return
        yield kind, start, stop
        at = stop
