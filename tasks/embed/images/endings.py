"""Whether a file ends before its own structure says so: tells what was cut off from what is damaged."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from tasks.embed.images.boxes import boxes
from tasks.embed.images.directory import Directory

MOST_BLOCKS = 1_000_000
_marker = re.compile(rb"\xff[^\x00\x01\xd0-\xd9\xff]")


def ends_early(kind: str, data: bytes) -> bool:
    """Whether a file of a format (Pillow's name) lacks its end; False for formats whose structure does not tell."""
    return kind in _ENDINGS and _ENDINGS[kind](data)


def _png(data: bytes) -> bool:
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IEND":
            return False
        at += 12 + length
    return True


def _jpeg(data: bytes) -> bool:
    at = 2
    while found := _marker.search(data, at):
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
        if data[found.end() - 1] == 0xDA:
            return data.find(b"\xff\xd9", at) < 0
    return True


def _gif(data: bytes) -> bool:
    at, inside = 13 + _colours(data, 10), False
    for _ in range(MOST_BLOCKS):
        if at >= len(data):
            return True
        if inside:  # a frame or an extension: blocks, the last of them empty
            inside, at = data[at] > 0, at + 1 + data[at]
        elif data[at] == 0x3B:
            return False
        else:
            inside, at = True, at + (11 + _colours(data, at + 9) if data[at] == 0x2C else 2)
    return False


def _colours(data: bytes, at: int) -> int:
    """Bytes of the palette that the flags at a place announce."""
    return 3 << (data[at] & 7) + 1 if at < len(data) and data[at] & 0x80 else 0


def _webp(data: bytes) -> bool:
    return int.from_bytes(data[4:8], "little") + 8 > len(data)


def _tiff(data: bytes) -> bool:
    return Directory(data).ends_early()


def _boxes(data: bytes) -> bool:
    return max((end for _, _, end in boxes(data, 0, len(data))), default=0) > len(data)


def _jpeg2000(data: bytes) -> bool:
    return (data.startswith(b"\0") and _boxes(data)) or not data.rstrip(b"\0").endswith(b"\xff\xd9")


_ENDINGS: dict[str, Callable[[bytes], bool]] = {
    "PNG": _png,
    "JPEG": _jpeg,
    "GIF": _gif,
    "WEBP": _webp,
    "TIFF": _tiff,
    "AVIF": _boxes,
    "HEIF": _boxes,
    "JPEG2000": _jpeg2000,
}
