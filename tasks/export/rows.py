"""Rows of a mix as samples: key, picture, caption, and everything else as JSON."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.errors import MixError
from storage import files
from storage.shards import slice_rows
from tasks.emit.texts import first_undecodable, undecodable


class Sample(NamedTuple):
    """One row, as every format carries it."""

    key: str
    """`step-rank-slot`, zero-padded: unique in a mix, and sorted as text it is in batch order."""
    image: bytes | None
    """The encoded picture, byte for byte."""
    text: str | None
    rest: str
    """The other columns as a JSON object: the user's key and source, `mix_*`, scores, all that passed through."""


@dataclass(frozen=True)
class Source:
    """The mix that is exported."""

    url: str
    """Folder of a version."""
    parts: tuple[tuple[str, int], ...]
    """Name of each part within it and the first of its rows, in batch order."""
    rows: int
    image: str | None
    """The image column."""
    text: str | None
    """The text column."""


def samples(source: Source, begin: int, end: int) -> Iterator[Sample]:
    """Yields rows `begin` to `end` of the mix in batch order; holds a slice of one row group at a time.

    Raises:
        MixError: A text is not UTF-8.
    """
    for number, (name, first) in enumerate(source.parts):
        after = source.parts[number + 1][1] if number + 1 < len(source.parts) else source.rows
        if after > begin and first < end:
            for table in _slices(files.join(source.url, name), max(0, begin - first), min(after, end) - first):
                yield from _samples(table, source)


def _slices(url: str, begin: int, end: int) -> Iterator[pa.Table]:
    """Yields rows `begin` to `end` of one part, slice by slice; other row groups are not read."""
    with files.reading(url) as file:
        parquet = pq.ParquetFile(file)
        size, at = slice_rows(parquet.metadata), 0
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if at < end and at + rows > begin:
                here = at
                for batch in parquet.iter_batches(size, row_groups=[group], use_threads=False):
                    low, high = max(begin - here, 0), min(end - here, batch.num_rows)
                    if low < high:
                        yield pa.Table.from_batches([batch.slice(low, high - low)])
                    here += batch.num_rows
            at += rows


def _samples(table: pa.Table, source: Source) -> Iterator[Sample]:
    """Yields the rows of a slice.

    Raises:
        MixError: A text is not UTF-8.
    """
    try:
        images, paths = _images(table, source.image)
        texts = table[source.text].to_pylist() if source.text else [None] * table.num_rows
        rest = table.drop_columns([name for name in (source.image, source.text) if name]).to_pylist()
    except UnicodeDecodeError as error:
        name, at, found = first_undecodable(table)
        origin = table.select(["mix_file", "mix_row"]).slice(at, 1).to_pylist()[0]
        raise MixError(undecodable(name, origin, found)) from error
    for image, path, text, row in zip(images, paths, texts, rest, strict=True):
        if path is not None:
            row = {**row, source.image: path}
        yield Sample(key_of(row), image, text, _json(row))


def key_of(row: dict[str, Any]) -> str:
    """The key of a row of a mix."""
    return f"{row['mix_step']:08d}-{row['mix_rank']:05d}-{row['mix_slot']:07d}"


def _images(table: pa.Table, column: str | None) -> tuple[list[bytes | None], list[str | None]]:
    """Encoded pictures and their paths."""
    if column is None:
        return [None] * table.num_rows, [None] * table.num_rows
    pictures = table[column]
    return pc.struct_field(pictures, "bytes").to_pylist(), pc.struct_field(pictures, "path").to_pylist()


def _json(row: dict[str, Any]) -> str:
    try:
        return _dumped(row)
    except ValueError:  # JSON knows no NaN and no infinity
        return _dumped(_finite(row))


def _dumped(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain)


def _plain(value: Any) -> str:
    """What JSON has no type for: bytes in base64, times and decimals in their usual notation."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
