"""Records without a schema (JSON objects, samples of tars) to tables of one schema, whatever the slicing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa

from storage import files
from storage.shards import SLICE_BYTES
from tasks import Failure
from tasks.ingest import Slice, Types, TypesChanged, fields

SLICE_ROWS = 8192
MOST_FIELDS = 1000
"""Most columns of a unit; a row with a field beyond them fails. Keys of a dictionary that stand as field names do."""
DEEPEST = 100
"""Most brackets of a JSON value that are open at once."""
LONGEST = 64 * files.MiB
"""Most bytes of a JSON value or a caption. What they become in memory is many times as much."""
LARGEST = 1 << 30
"""Most bytes of a sample or of a picture's file: Arrow's binary columns end at twice that."""

PEEKED = 100

PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic", "heif", "jxl", "jp2")
"""Extensions of pictures, the preferred first. Whether we can decode them is found out later."""


class Unusable(Exception):
    """Raised when one row cannot be used: why, as `tasks.Failure` has it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Row(NamedTuple):
    """One record on its way to a table."""

    record: dict[str, Any]
    """Field -> JSON value, bytes or `fields.Picture`. Of a row that failed, what can be told (its key, for one)."""
    size: int
    """About how many bytes it takes."""
    failed: Unusable | None = None


def slices(rows: Iterable[Row], types: Types) -> Iterator[Slice]:
    """Rows in slices of about 64 MiB and at most 8,192 rows, all of one schema; one, of no row, if there are none.

    A slice's types are known before it goes out. If a later one needs wider types, the rest is read for its types
    alone, so one more reading is always enough.

    Args:
        rows: In order. Errors that they raise pass.
        types: Fields that are there in any case, in front of others, and the least types that they have.

    Raises:
        TypesChanged: See above.
    """
    known, at, begun = dict(types), 0, False
    groups = _grouped(rows, dict.fromkeys(types))
    for group in groups:
        wider = widened(known, group)
        if begun and wider != known:
            for rest in groups:
                wider = widened(wider, rest)
            raise TypesChanged(wider)
        known, begun = wider, True
        failures = [
            Failure(at + number, row.failed.reason, row.failed.detail) for number, row in enumerate(group) if row.failed
        ]
        at += len(group)
        yield Slice(_emptied(group, known), failures)
    if not begun:
        yield Slice(table([], known), [])


def head(rows: Iterable[Row], types: Types, least: Types) -> pa.Schema:
    """The columns that the first hundred rows show.

    Args:
        rows: In order.
        types: Fields that are there in any case.
        least: Fields to say there are if not one of the rows can be used: nothing is known of them then.
    """
    first = list(islice(rows, PEEKED))
    usable = any(row.failed is None for row in first)
    return next(slices(first, types if usable else {**least, **types})).table.schema


def _emptied(group: list[Row], types: Types) -> pa.Table:
    """The table of a group, which is then empty: we still hold it while the next group is read."""
    made = table([row.record for row in group], types)
    group.clear()
    return made


def _grouped(rows: Iterable[Row], names: dict[str, None]) -> Iterator[list[Row]]:
    """Rows by the slice; those that would bring a field too many have failed. `names` are the fields so far."""
    group: list[Row] = []
    size = 0
    for row in rows:
        if not row.record.keys() <= names.keys():
            if len(names.keys() | row.record.keys()) > MOST_FIELDS:
                detail = f"it has {len(row.record)} fields; with those before it, more than {MOST_FIELDS}"
                key = {name: value for name, value in row.record.items() if name in names and type(value) is str}
                row = Row(key, 0, Unusable("too_many_fields", detail))
            names.update(dict.fromkeys(row.record))
        if group and (len(group) == SLICE_ROWS or size + row.size > SLICE_BYTES):
            yield group
            group, size = [], 0
        group.append(row)
        size += row.size
    if group:
        yield group


def widened(types: Types, group: Iterable[Row]) -> dict[str, pa.DataType]:
    """`types` so that the records of `group` fit: new fields behind, in order of appearance."""
    records = [row.record for row in group]
    names = dict.fromkeys(types) | dict.fromkeys(name for record in records for name in record)
    return {
        name: fields.join(types.get(name, fields.NULL), fields.of([record.get(name) for record in records]))
        for name in names
    }


def table(records: Iterable[Mapping[str, Any]], types: Types) -> pa.Table:
    """Records as a table; a field that one lacks is null."""
    records = list(records)
    columns = [fields.array([record.get(name) for record in records], kind) for name, kind in types.items()]
    return pa.Table.from_arrays(columns, schema=pa.schema(list(types.items())))


_NUMBERS = {"NaN": None, "Infinity": float("inf"), "-Infinity": float("-inf")}
_decoder: Any = json.JSONDecoder(parse_constant=_NUMBERS.__getitem__)
_scan: Callable[[str, int], tuple[Any, int]] = _decoder.scan_once
_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.?)*+"?|([\[{])|([\]}])', re.DOTALL)


def parse(data: bytes) -> Any:
    """The JSON value that `data` is, in UTF-8; of a key that repeats, the last value.

    `NaN`, which is no JSON but which pandas writes for missing values, is null; infinities are floats.

    Raises:
        Unusable: `text_not_utf8`, also for half a surrogate pair in an escape; `invalid_json`, also for brackets
            deeper than `DEEPEST`.
    """
    text = decode(data).strip(" \t\r\n")
    if data.count(b"{") + data.count(b"[") > DEEPEST and _is_deep(text):
        raise Unusable("invalid_json", f"brackets are open more than {DEEPEST} deep")
    try:
        value, end = _scan(text, 0)
        if end != len(text):
            raise json.JSONDecodeError("Extra data", text, end)
    except StopIteration as stop:
        raise Unusable("invalid_json", f"no value at character {stop.value}, {text[:20]!r}") from None
    except json.JSONDecodeError as error:
        raise Unusable("invalid_json", f"{error.msg} at character {error.pos}") from None
    except ValueError as error:  # a number of thousands of digits
        raise Unusable("invalid_json", str(error)) from None
    if b"\\ud" in data or b"\\uD" in data:
        try:
            fields.text(value).encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start]
            raise Unusable("text_not_utf8", f"\\u{ord(half):04x} is half of a surrogate pair") from None
    return value


def _is_deep(text: str) -> bool:
    depth = 0
    for found in _BRACKETS.finditer(text):
        depth += (found[1] is not None) - (found[2] is not None)
        if depth > DEEPEST:
            return True
    return False


def decode(data: bytes) -> str:
    """`data` as text, without the byte order mark of UTF-8.

    Raises:
        Unusable: `text_not_utf8`.
    """
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise Unusable("text_not_utf8", f"byte {data[error.start]:#04x} at {error.start} is not UTF-8") from None


def bare(name: str) -> str:
    """The last part of a path of any system, fit to be shown and to be a file's name: never a way anywhere."""
    last = re.split(r"[/\\]", name)[-1]
    plain = "".join(character for character in last if character.isprintable())
    return "" if plain in (".", "..") else plain.encode()[-200:].decode(errors="ignore")


def extension(name: str) -> str:
    """What follows the last dot, in lower case; empty if there is none."""
    return name.rpartition("/")[2].rpartition(".")[2].lower() if "." in name.rpartition("/")[2] else ""
