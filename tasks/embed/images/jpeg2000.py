"""A cheap look at JPEG 2000 files (ITU T.800): what OpenJPEG would allocate before it reads a single pixel.

It makes structures for every tile, precinct, code block and quality layer that the headers ask for, filled or not:
4 KB can ask for seven gigabytes and half a minute.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tasks.embed.images.boxes import boxes
from tasks.embed.images.limits import check_count, check_ratio, check_size
from tasks.embed.reasons import BadImage

TILES = 4_096
"""Each costs 11 KB."""
PRECINCTS = 100_000
"""Each costs 1.6 KB; 64 megapixels in colour, in tiles of 128 x 128, have 74,000."""
BLOCKS = 500_000
"""Each costs 360 bytes; 64 megapixels in colour, in code blocks of 32 x 32, have 250,000."""
PACKETS = 5_000_000
"""Precincts times quality layers."""
SEGMENTS = 100_000

SIZ, COD, COC, SOT, SOD, EOC = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9


def check_jpeg2000(data: bytes, max_pixels: int) -> None:
    """Raise BadImage for a codestream whose structures are beyond the limits, ValueError for one that is not found."""
    start = 0
    if data.startswith(b"\0"):
        start = next((at for kind, at, _ in boxes(data, 0, len(data)) if kind == b"jp2c"), len(data))
    size: _Size | None = None
    layers = 1
    for number, (marker, at, length) in enumerate(_segments(data, start)):
        check_count(number, SEGMENTS, "segments")
        body = data[at : at + length]
        if marker == SIZ and len(body) >= 36:
            size = _Size(body)
            check_size(size.width, size.height, max_pixels)
            check_ratio(size.width * size.height, data)
            check_count(size.tiles, TILES, "tiles")
            if not 1 <= size.components <= 4:
                raise BadImage("unsupported_image", f"{size.components} components; 1 to 4 are read")
        elif marker == COD and len(body) >= 10 and size:
            layers = max(layers, int.from_bytes(body[2:4], "big"))
            _check_coding(body[5:], body[0] & 1, size, layers)
        elif marker == COC and len(body) >= 7 and size:
            at = 1 if size.components < 257 else 2
            _check_coding(body[at + 1 :], body[at] & 1, size, layers)
    if size is None:
        raise ValueError("no size of a codestream")


class _Size:
    """What the first segment says: pixels, tiles, components."""

    def __init__(self, body: bytes) -> None:
        right, bottom, left, top, wide, high, tile_left, tile_top, self.components = struct.unpack_from(">8IH", body, 2)
        self.width, self.height = max(right - left, 0), max(bottom - top, 0)
        self.tiles = -(-(right - tile_left) // max(wide, 1)) * -(-(bottom - tile_top) // max(high, 1))


def _check_coding(style: bytes, precincts: int, size: _Size, layers: int) -> None:
    """A coding style: levels, width and height of code blocks, two flags, and sizes of precincts if it has them."""
    levels = style[0]
    across, down = style[1] % 16 + 2, style[2] % 16 + 2
    blocks = areas = 0
    for resolution in range(min(levels, 32) + 1):
        width, height = (side >> (levels - resolution) for side in (size.width, size.height))
        byte = style[5 + resolution] if precincts and len(style) > 5 + resolution else 0xFF
        wide, high = byte & 15, byte >> 4
        areas += size.tiles + (width >> wide) * (height >> high)
        blocks += size.tiles + (width >> min(wide, across)) * (height >> min(high, down))
    check_count(size.components * areas, PRECINCTS, "precincts")
    check_count(size.components * blocks, BLOCKS, "code blocks")
    check_count(size.components * areas * layers, PACKETS, "packets")


def _segments(data: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """Marker, start and length of the content of the segments of a codestream, of its tile-parts too."""
    at += 2
    after = len(data)
    while at + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == EOC or (marker == SOD and after <= at):
            return
        if marker == SOD:
            at = after
            continue
        if marker == SOT and at + 12 <= len(data):
            part = int.from_bytes(data[at + 6 : at + 10], "big")
            after = at + part if part >= 14 else len(data)
        if length < 2:
            return
        yield marker, at + 4, length - 2
        at += 2 + length
