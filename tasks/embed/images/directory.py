"""The first directory of a TIFF file (TIFF 6.0, BigTIFF): where the pixels are and how they are cut up."""

from __future__ import annotations

import struct
from typing import NamedTuple

WIDTH, HEIGHT, COMPRESSION, SAMPLES = 256, 257, 259, 277
STRIP_OFFSETS, STRIP_SIZES = 273, 279
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_SIZES = 322, 323, 324, 325

MOST_ENTRIES = 4_096
"""More are not looked at."""
_FORMATS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


class Entry(NamedTuple):
    """One tag: which, how many values of which type, and where they begin in the file."""

    tag: int
    kind: int
    values: int
    at: int

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return self.values * struct.calcsize(_FORMATS.get(self.kind, "B"))


class Directory:
    """Entries of the first directory, as far as they can be read.

    Attributes:
        claimed: How many entries it says that it has.
        whole: Whether it lies inside the file.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._order = data, "<" if data[:1] == b"I" else ">"
        self.claimed, self.whole = 0, False
        self.entries: list[Entry] = []
        big = data[2:4] in (b"+\0", b"\0+")
        word, head, wide, long = (16, 8, 20, "Q") if big else (8, 2, 12, "I")
        if len(data) < word:
            return
        (start,) = struct.unpack_from(self._order + long, data, word // 2)
        if start + head > len(data):
            return
        (self.claimed,) = struct.unpack_from(self._order + ("Q" if big else "H"), data, start)
        self.whole = start + head + self.claimed * wide <= len(data)
        first = start + head
        for at in range(first, min(len(data) - wide + 1, first + min(self.claimed, MOST_ENTRIES) * wide), wide):
            tag, kind, count = struct.unpack_from(f"{self._order}HH{long}", data, at)
            entry = Entry(tag, kind, count, at + wide - word // 2)
            if entry.size > word // 2:
                entry = entry._replace(at=struct.unpack_from(self._order + long, data, entry.at)[0])
            self.entries.append(entry)

    def count(self, *tags: int) -> int:
        """The most values that one of the tags has."""
        return max((entry.values for entry in self.entries if entry.tag in tags), default=0)

    def largest(self, tag: int) -> int:
        """The largest first value among the entries of a tag, which may occur more than once; 0 without one."""
        return max((self.values(entry, 1)[0] for entry in self.entries if entry.tag == tag and entry.values), default=0)

    def values(self, entry: Entry, limit: int) -> tuple[int, ...]:
        """Up to `limit` whole numbers of an entry; zeros if they are not numbers or lie outside the file."""
        count = min(entry.values, limit)
        layout = f"{self._order}{count}{_FORMATS.get(entry.kind, 'B')}"
        if entry.kind not in _FORMATS or entry.at + struct.calcsize(layout) > len(self._data):
            return (0,) * count
        return struct.unpack_from(layout, self._data, entry.at)

    def ends_early(self) -> bool:
        """Whether the directory, its values, or a strip or tile that it lists lie beyond the end of the file."""
        for offsets, sizes in ((STRIP_OFFSETS, STRIP_SIZES), (TILE_OFFSETS, TILE_SIZES)):
            found = {entry.tag: self.values(entry, 65_536) for entry in self.entries if entry.tag in (offsets, sizes)}
            pieces = zip(found.get(offsets, ()), found.get(sizes, ()), strict=False)
            if any(start + size > len(self._data) for start, size in pieces):
                return True
        return not self.whole or any(entry.at + entry.size > len(self._data) for entry in self.entries)
