"""Content read once from front to back: plain, gzip or zstd, told apart by how it begins."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from storage import files
from storage.broken import BrokenFile

MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
BLOCK = files.MiB


class Content:
    """The unpacked bytes of a file; remembers how far they were read."""

    def __init__(self, raw: _Raw) -> None:
        self._raw = raw
        self._reader = io.BufferedReader(raw, BLOCK)
        self.position = 0
        """Bytes of content read so far."""

    def read(self, count: int) -> bytes:
        """The next `count` bytes; fewer only at the end.

        Raises:
            BrokenFile: The packed content is damaged or breaks off.
            OSError: The file cannot be read now.
        """
        data = self._reader.read(count)
        self.position += len(data)
        return data

    def skip(self, count: int) -> int:
        """Read on without keeping anything; returns the bytes there were, fewer than `count` only at the end."""
        left = count
        while left and (data := self.read(min(left, BLOCK))):
            left -= len(data)
        return count - left

    def broken(self, why: str, position: int) -> BrokenFile:
        """The error for content that is wrong at `position`; of packed files the place is that of the packed bytes."""
        if self._raw.packing is None:
            return BrokenFile(why, position)
        return BrokenFile(f"{why}, {position:,} bytes into the content of the {self._raw.packing}", self._raw.place)


class _Source:
    """A file as Arrow's decompressors read it; keeps the error that reading raised, to tell it from damaged content."""

    closed = False

    def __init__(self, file: Any) -> None:
        self._file = file
        self.error: BaseException | None = None
        self.place = 0

    def read(self, count: int) -> bytes:
        try:
            data = bytes(self._file.read(count))
        except BaseException as error:
            self.error = error
            raise
        self.place += len(data)
        return data

    def tell(self) -> int:
        return self.place

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """The file is not ours to close."""


class _Raw(io.RawIOBase):
    def __init__(self, file: pa.NativeFile, packing: str | None) -> None:
        self.packing = packing
        self._source = _Source(file)
        self._unpacked = (
            file if packing is None else pa.CompressedInputStream(pa.PythonFile(self._source, "r"), packing)
        )

    @property
    def place(self) -> int:
        return self._source.place

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.packing is None:
            return int(self._unpacked.readinto(buffer))
        try:
            return int(self._unpacked.readinto(buffer))
        except (OSError, pa.ArrowException) as error:
            if self._source.error is not None:
                raise
            raise BrokenFile(f"the {self.packing} content is damaged or breaks off: {error}", self.place) from error


@contextmanager
def content(url: str) -> Iterator[Content]:
    """Open a file for reading its content once; whether it is packed, and how, its first bytes tell.

    Raises:
        OSError: The file cannot be opened now.
    """
    with files.reading(url) as file:
        head = bytes(file.read(max(map(len, MAGIC))))
        file.seek(0)
        packing = next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)
        if not head and url.endswith((".gz", ".tgz", ".zst")):
            raise BrokenFile("the file is empty, which no packed content is", 0)
        yield Content(_Raw(file, packing))
