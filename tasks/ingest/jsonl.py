"""Lines of JSON, plain, gzip or zstd: each line that is not blank is a row, each field of its object a column.

Where `input.image` names a field, it holds paths of picture files, relative to the JSONL file and inside its folder.
The column becomes the pictures themselves.
"""

from __future__ import annotations

import posixpath
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import Any, ClassVar

import pyarrow as pa

from storage import shards
from storage.files import MiB
from storage.shards import InputFile
from storage.streams import Content, content
from tasks.ingest import Slice, Types, fields
from tasks.ingest.pictures import LOT, Folder
from tasks.ingest.records import LONGEST, PEEKED, Row, Unusable, bare, head, parse, slices

SUFFIXES = tuple(f"{name}{packed}" for name in (".jsonl", ".ndjson") for packed in ("", ".gz", ".zst"))
BLOCK = 4 * MiB


class JsonlReader:
    """Reads JSONL files."""

    in_place: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        self._path: str = config.path
        self._image: str | None = config.image
        self._types = {config.image: fields.IMAGE} if config.image is not None else {}
        # A file none of whose lines can be used has columns too: without any there are no rows.
        self._least = dict.fromkeys(config.roles.values(), fields.NULL) | self._types

    def units(self) -> list[InputFile]:
        """The files; see `Reader`."""
        return shards.find(self._path, SUFFIXES)

    def peek(self, unit: InputFile) -> pa.Schema:
        """The fields of the first hundred lines, no picture opened; see `Reader`."""
        with content(unit.url) as stream, closing(_rows(stream)) as rows:
            first = list(islice(rows, PEEKED))
        types, unseen = self._types, {}
        if self._image is not None and any(self._image in row.record for row in first):
            unseen = {self._image: None}
        elif self._image is not None and any(row.failed is None for row in first):
            types = {name: kind for name, kind in types.items() if name != self._image}
        return head((row._replace(record=row.record | unseen) for row in first), types, self._least)

    def read(self, unit: InputFile, types: Types) -> Iterator[Slice]:
        """The lines; see `Reader`."""
        with content(unit.url) as stream:
            rows: Iterable[Row] = _rows(stream)
            if self._image is not None:
                rows = _with_pictures(rows, self._image, Folder(posixpath.dirname(unit.url)))
            yield from slices(rows, {**self._least, **types})


def _rows(stream: Content) -> Generator[Row]:
    for position, line in lines(stream):
        try:
            if line is None:
                raise Unusable("line_too_long", f"more than {LONGEST:,} bytes")
            value = parse(line)
            if not isinstance(value, dict):
                raise Unusable("not_an_object", f"a JSON {_NAMES[type(value)]}")
        except Unusable as unusable:
            detail = f"{unusable.detail}, in the line at byte {position:,}"
            yield Row({}, 0, Unusable(unusable.reason, detail))
        else:
            yield Row(value, len(line or b""))


_NAMES = {list: "list", str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}


def lines(stream: Content) -> Iterator[tuple[int, bytes | None]]:
    """Lines that are not blank, each with its position in the content; None for one of more than `LONGEST` bytes."""
    parts: list[bytes] = []
    start = length = 0
    while block := stream.read(BLOCK):
        *whole, last = block.split(b"\n")
        for line in whole:
            line_bytes = length + len(line)
            if parts:
                line, parts = b"".join([*parts, line]), []
            if line_bytes > LONGEST:
                yield start, None
            elif line.strip():
                yield start, line
            start += line_bytes + 1
            length = 0
        length += len(last)
        # Of a line that is too long already only the beginning is kept.
        if last and length - len(last) <= LONGEST:
            parts.append(last)
    if length > LONGEST:
        yield start, None
    elif (line := b"".join(parts)).strip():
        yield start, line


def _with_pictures(rows: Iterable[Row], field: str, folder: Folder) -> Iterator[Row]:
    """Rows whose `field`, a path, is replaced by the picture that stands there."""
    waiting = iter(rows)
    while lot := list(islice(waiting, LOT)):
        names = [row.record.get(field) for row in lot]
        found = folder.fetch([name if isinstance(name, str) else None for name in names])
        for row, name, data in zip(lot, names, found, strict=True):
            if row.failed is not None:
                yield row
            elif isinstance(data, bytes):
                yield Row(row.record | {field: fields.Picture(data, bare(str(name)))}, row.size + len(data))
            else:
                failed = data
                if name is not None and not isinstance(name, str):
                    failed = Unusable("image_path_not_text", f"`{field}` is {fields.text(name)[:200]}, no path")
                yield Row(row.record | {field: None}, row.size, failed)
