"""A cheap look at AVIF files: how large the container says the pictures are, and how large the coded ones are.

libavif takes the size from the container, lets the AV1 decoder allocate what the coded picture claims, then scales one
to the other: 10 x 10 pixels can cost a gigabyte. (AVIF 1.1; HEIF, ISO 23008-12; AV1 bitstream specification, 5.3, 5.5.)
"""

from __future__ import annotations

from collections.abc import Iterator

from tasks.embed.images.boxes import boxes
from tasks.embed.images.limits import FREE_PIXELS, check_count, check_size
from tasks.embed.reasons import BadImage

ITEMS = 1_000
UNITS = 10_000
"""Parts of a coded picture, among which its sequence headers are looked for."""
DEPTH = 6
"""How deep the sample table of a track lies: moov, trak, mdia, minf, stbl."""


def check_avif(data: bytes, max_pixels: int) -> None:
    """Raise BadImage if a picture, as claimed or as coded, or a grid of them, is beyond the limit."""
    claimed = 0
    for kind, payload in _payloads(data):
        for width, height in _coded_sizes(payload) if kind == b"av01" else [_claimed_size(kind, payload)]:
            check_size(width, height, max_pixels)
            if kind == b"ispe":
                claimed = max(claimed, width * height)
            elif claimed and width * height > max(FREE_PIXELS, 4 * claimed):
                raise BadImage("image_bomb", f"{width} x {height} pixels inside, of which {claimed} are claimed")


def _payloads(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    for kind, start, end in boxes(data, 0, len(data)):
        if kind == b"meta":
            yield from _items(data, start + 4, end)
        elif kind == b"moov":
            yield from _first_frames(data, start, end, 1)


def _first_frames(data: bytes, start: int, end: int, depth: int) -> Iterator[tuple[bytes, bytes]]:
    """The first sample of each track."""
    for kind, at, stop in boxes(data, start, end):
        if kind == b"stbl":
            found = {kind: data[at:stop] for kind, at, stop in boxes(data, at, stop)}
            wide = 8 if b"co64" in found else 4
            offset = _number(found.get(b"co64", found.get(b"stco", b"")), 8, wide)
            sizes = found.get(b"stsz", b"")
            yield b"av01", data[offset : offset + (_number(sizes, 4, 4) or _number(sizes, 12, 4))]
        elif kind in (b"trak", b"mdia", b"minf") and depth < DEPTH:
            yield from _first_frames(data, at, stop, depth + 1)


def _items(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    """Claims, coded pictures and grids, each with its kind, put together from where the location box says."""
    found = {kind: data[at:stop] for kind, at, stop in boxes(data, start, end)}
    for holder, at, stop in boxes(found.get(b"iprp", b""), 0, len(data)):
        if holder == b"ipco":
            properties = found[b"iprp"][at:stop]
            yield from ((kind, properties[at:stop]) for kind, at, stop in boxes(properties, 0, stop) if kind == b"ispe")
    kinds = dict(_item_kinds(found.get(b"iinf", b"")))
    for item, method, extents in _locations(found.get(b"iloc", b"")):
        if kinds.get(item) in (b"av01", b"grid"):
            source = found.get(b"idat", b"") if method == 1 else data
            yield kinds[item], b"".join(source[at : at + size if size else None] for at, size in extents)


def _item_kinds(info: bytes) -> Iterator[tuple[int, bytes]]:
    for number, (kind, at, _) in enumerate(boxes(info, 8 if info[:1] != b"\0" else 6, len(info))):
        check_count(number, ITEMS, "items")
        wide = 4 if info[at : at + 1] == b"\3" else 2
        if kind == b"infe":
            yield _number(info, at + 4, wide), info[at + 6 + wide : at + 10 + wide]


def _locations(table: bytes) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Item, construction method, and offset and size of its extents."""
    version = _number(table, 0, 1)
    widths = [nibble for byte in table[4:6] for nibble in (byte >> 4, byte & 15)]
    if len(widths) < 4:
        return
    offset_width, size_width, base_width, index_width = [*widths[:3], widths[3] if version else 0]
    wide = 4 if version == 2 else 2
    count, at = _number(table, 6, wide), 6 + wide
    for number in range(count):
        check_count(number, ITEMS, "items")
        item, at = _number(table, at, wide), at + wide
        method = _number(table, at, 2) & 15 if version else 0
        at += 4 if version else 2
        base, extent_count = _number(table, at, base_width), _number(table, at + base_width, 2)
        at += base_width + 2
        check_count(extent_count, ITEMS, "extents")
        extents = []
        for _ in range(extent_count):
            at += index_width
            extents.append((base + _number(table, at, offset_width), _number(table, at + offset_width, size_width)))
            at += offset_width + size_width
        yield item, method, extents
        if at > len(table):
            return


def _claimed_size(kind: bytes, payload: bytes) -> tuple[int, int]:
    """Width and height that a grid is to have, or that a property says."""
    wide = 2 if kind == b"grid" and not _number(payload, 1, 1) & 1 else 4
    return _number(payload, 4, wide), _number(payload, 4 + wide, wide)


def _coded_sizes(payload: bytes) -> Iterator[tuple[int, int]]:
    """Largest width and height that each sequence header of an AV1 stream allows."""
    at = units = 0
    while at < len(payload):
        head, at = payload[at], at + 1 + (payload[at] >> 2 & 1)
        size = len(payload) - at
        if head & 2:
            size = shift = 0
            while at < len(payload) and shift < 56:
                size |= (payload[at] & 127) << shift
                at, shift = at + 1, shift + 7
                if payload[at - 1] < 128:
                    break
        if head >> 3 & 15 == 1:
            try:
                yield _sequence_size(_Bits(payload[at : at + min(size, 1024)]))
            except EOFError:  # cut off: the decoder will find out too
                return
        at += size
        units += 1
        check_count(units, UNITS, "parts of a coded picture")


def _sequence_size(bits: _Bits) -> tuple[int, int]:
    bits.take(4)
    if bits.take(1):  # a still picture with the short header
        bits.take(5)
    else:
        model = delay_width = 0
        if bits.take(1):
            bits.take(64)
            if bits.take(1):
                bits.take_exponential()
            if model := bits.take(1):
                delay_width = bits.take(5) + 1
                bits.take(42)
        delays = bits.take(1)
        for _ in range(bits.take(5) + 1):
            bits.take(12)
            bits.take(1 if bits.take(5) > 7 else 0)
            if model and bits.take(1):
                bits.take(2 * delay_width + 1)
            if delays and bits.take(1):
                bits.take(4)
    wide, high = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(wide) + 1, bits.take(high) + 1


class _Bits:
    """Bits from the highest on."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise EOFError
        self._left -= count
        return self._value >> self._left & ((1 << count) - 1)

    def take_exponential(self) -> None:
        """Skip a number that begins with as many zeros as it has digits."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        self.take(zeros)


def _number(data: bytes, at: int, width: int) -> int:
    """A big-endian number; 0 beyond the end."""
    return int.from_bytes(data[at : at + width], "big") if at + width <= len(data) else 0
