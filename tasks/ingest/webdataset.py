"""Webdataset tars, as streams: consecutive members of one basename are a sample.

The format: A. Aizman, G. Maltby, T. Breuel, "High Performance I/O For Large Scale Deep Learning", 2020. The basename
ends at the first dot behind the last slash; what follows is the extension. As `webdataset` does, members are left out
whose name begins with a dot, has none, or is framed by `__`; and folders. A sample becomes one row:

- `key`: the basename;
- `image`: the picture of the first extension in `records.PICTURES`; another picture stays a column of bytes;
- `text`: the member `txt`;
- the fields of the member `json`, each a column; a `json` that is no object is text in the column `json`;
- any other member is a column called by its extension: text for those in `TEXTS`, bytes for others (`npy`,
  `seg.png`).

A field of `json` that is called like one of the columns above or like a member of its sample gets `_json` behind its
name; a member of the extension `image`, `text` or `key` gets `_member`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any, ClassVar

import pyarrow as pa

from storage import shards
from storage.shards import InputFile
from storage.streams import content
from tasks.ingest import Slice, Types, fields, tars
from tasks.ingest.records import (
    LARGEST,
    LONGEST,
    MOST_FIELDS,
    PICTURES,
    Row,
    Unusable,
    bare,
    decode,
    head,
    parse,
    slices,
)
from tasks.ingest.tars import Member

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst")
TEXTS = ("txt", "text", "transcript", "caption", "cls", "cls2", "class", "count", "index", "inx", "id", "json", "jsn")
"""Last parts of the extensions of members that are text."""
COLUMNS = ("image", "text", "key")


class WebdatasetReader:
    """Reads tars of samples."""

    in_place: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        self._path: str = config.path
        self._pictures = config.image is not None
        here = {"image": fields.IMAGE, "text": fields.TEXT, "key": fields.TEXT}
        self._types = {name: kind for name, kind in here.items() if name in ("key", config.image, config.text)}
        # A column that plays a role is there in every tar, even if no sample of one has it.
        self._least = dict.fromkeys(config.roles.values(), fields.NULL) | self._types

    def units(self) -> list[InputFile]:
        """The tars; see `Reader`."""
        return shards.find(self._path, SUFFIXES)

    def peek(self, unit: InputFile) -> pa.Schema:
        """The columns of the first hundred samples; see `Reader`."""
        with closing(self._rows(unit.url)) as rows:
            return head(rows, self._types, self._least)

    def read(self, unit: InputFile, types: Types) -> Iterator[Slice]:
        """The samples; see `Reader`."""
        return slices(self._rows(unit.url), {**self._least, **types})

    def _rows(self, url: str) -> Generator[Row]:
        sample: _Sample | None = None
        with content(url) as stream:
            for member in tars.members(stream):
                place = _place(member.name)
                if place is None or member.kind == "a folder":
                    continue
                key, extension = place
                if sample is not None and sample.key != key:
                    yield sample.row()
                    sample = None
                sample = sample or _Sample(key)
                if (self._pictures or extension not in PICTURES) and sample.takes(extension, member):
                    sample.add(extension, member.name, stream.read(member.size))
            if sample is not None:
                yield sample.row()


def _place(name: str) -> tuple[str, str] | None:
    """Basename and extension, in lower case, of a member that belongs to a sample."""
    folder, slash, last = name.rpartition("/")
    base, dot, extension = last.partition(".")
    if not base or not dot or (base.startswith("__") and last.endswith("__")):
        return None
    return folder + slash + base, extension.lower()


class _Sample:
    """The members of one basename."""

    def __init__(self, key: str) -> None:
        self.key = key
        self._members: dict[str, tuple[str, bytes]] = {}
        self._size = 0
        self._failed: Unusable | None = None

    def takes(self, extension: str, member: Member) -> bool:
        """Whether the data of a member is to be read; if not, the sample has failed."""
        named = f"member {member.name[-200:]!r} at byte {member.at:,}"
        limit = LONGEST if extension.rpartition(".")[2] in TEXTS else LARGEST
        if member.kind is not None:
            self._fail("member_not_a_file", f"{named} is {member.kind}, which is not followed")
        elif extension in self._members:
            self._fail("duplicate_member", f"{named}: the sample has one of this extension already")
        elif member.size > limit or self._size + member.size > LARGEST:
            self._fail("member_too_large", f"{named} has {member.size:,} bytes; at most {limit:,} are read")
        elif len(self._members) >= MOST_FIELDS:
            self._fail("too_many_fields", f"{named} is one of more than {MOST_FIELDS} members")
        self._size += member.size
        return self._failed is None

    def add(self, extension: str, name: str, data: bytes) -> None:
        """Keep what was read of a member."""
        self._members[extension] = name, data

    def _fail(self, reason: str, detail: str) -> None:
        self._failed = self._failed or Unusable(reason, detail)
        self._members.clear()

    def row(self) -> Row:
        """The sample as a row."""
        try:
            if self._failed is None:
                return Row({"key": self.key, **self._record()}, self._size)
        except Unusable as unusable:
            self._failed = unusable
        return Row({"key": self.key}, 0, self._failed)

    def _record(self) -> dict[str, Any]:
        record: dict[str, Any] = {}
        members = dict(self._members)
        picture = next((extension for extension in PICTURES if extension in members), None)
        if picture is not None:
            name, data = members.pop(picture)
            record["image"] = fields.Picture(data, bare(name))
        described = parse(members.pop("json")[1]) if "json" in members else {}
        for extension, (name, data) in members.items():
            column = "text" if extension == "txt" else extension + "_member" * (extension in COLUMNS)
            is_text = extension.rpartition(".")[2] in TEXTS
            try:
                record[column] = decode(data) if is_text else data
            except Unusable as unusable:
                raise Unusable(unusable.reason, f"{unusable.detail}, in member {name[-200:]!r}") from None
        if not isinstance(described, dict):
            return record | {"json": fields.text(described)}
        for name, value in described.items():
            while name in record or name in COLUMNS:
                name += "_json"
            record[name] = value
        return record
