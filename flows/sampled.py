"""A sample of the input's rows as an input of its own: some row groups of files spread over all, in order.

Deterministic: the same files give the same rows. What is in memory is the sample.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.curate import Curate
from configs.inputs import Columns
from flows.scanning import Scan
from storage import files
from storage.broken import BrokenFile, parquet_errors
from storage.shards import InputFile

MOST_FILES = 32
"""Files that are looked into."""
GROUPS = 4
"""Row groups that are read of each, at most, as long as they have the rows."""


@dataclass(frozen=True)
class Piece:
    """Rows of one file."""

    entry: InputFile
    section: int
    """Index of the input that the file belongs to."""
    table: pa.Table
    """All columns, under the names that they have in the file."""
    group_rows: int
    """Rows of the file's first row group."""


def usable(found: Scan) -> list[InputFile]:
    """The Parquet files that have rows and can be read, in the order of `file`."""
    bad = {*found.damaged, *found.unreadable}
    return [entry for entry in found.entries if entry.file not in bad and found.rows.get(entry.file, 0) > 0]


def take(found: Scan, wanted: int) -> list[Piece]:
    """About so many rows, from files that are spread evenly over all rows; all rows if there are no more.

    Raises:
        OSError: A file cannot be read now.
    """
    entries = usable(found)
    rows = np.array([found.rows[entry.file] for entry in entries], np.int64)
    quotas = _quotas(rows, wanted)
    pieces = []
    for entry, quota in zip(entries, quotas, strict=True):
        if quota:
            with suppress(BrokenFile):  # the run will quarantine it
                pieces.append(_read(entry, found.section_of[entry.file], int(quota)))
    return pieces


def _quotas(rows: np.ndarray, wanted: int) -> np.ndarray:
    """Rows to be taken of each file: int64 `(files,)`.

    All of them take part in proportion where they are few; else those that stand at evenly spaced rows.
    """
    total = int(rows.sum())
    if wanted >= total:
        return rows
    if len(rows) <= MOST_FILES:
        ends = np.cumsum(rows) * wanted // total
        return np.diff(ends, prepend=0)
    ends = np.cumsum(rows)
    places = np.searchsorted(ends, (np.arange(MOST_FILES) + 0.5) * total / MOST_FILES, side="right")
    shares = np.bincount(places, minlength=len(rows)) * wanted / MOST_FILES
    return np.minimum(rows, np.ceil(shares).astype(np.int64))


def _read(entry: InputFile, section: int, quota: int) -> Piece:
    """The first rows of a few row groups that are evenly spread over the file."""
    with files.reading(entry.url) as file, parquet_errors(entry.size):
        parquet = pq.ParquetFile(file)
        lengths = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
        if quota >= sum(lengths):
            return Piece(entry, section, parquet.read(use_threads=False), max(1, lengths[0]))
        count = min(len(lengths), max(GROUPS, -(-quota * len(lengths) // sum(lengths))))
        chosen = sorted({i * len(lengths) // count for i in range(count)})
        found: list[pa.Table] = []
        left = quota
        for number, group in enumerate(chosen):
            share = -(-left // (len(chosen) - number))
            head = next(parquet.iter_batches(batch_size=max(1, share), row_groups=[group], use_threads=False), None)
            if head is not None:
                found.append(pa.Table.from_batches([head]))
                left -= head.num_rows
        return Piece(entry, section, pa.concat_tables(found), max(1, lengths[0]))


def named(piece: Piece, columns: list[str]) -> pa.Table:
    """Columns of a piece under the run's names."""
    return piece.entry.naming.table(piece.table, columns)


def rows_of(pieces: list[Piece]) -> int:
    """Rows of all pieces."""
    return sum(piece.table.num_rows for piece in pieces)


def thinned(pieces: list[Piece], wanted: int) -> list[Piece]:
    """Evenly spaced rows of all pieces, `wanted` of them."""
    total, at, found = rows_of(pieces), 0, []
    places = np.arange(wanted) * total // max(1, wanted)
    for piece in pieces:
        mine = places[(places >= at) & (places < at + piece.table.num_rows)] - at
        at += piece.table.num_rows
        if len(mine):
            found.append(Piece(piece.entry, piece.section, piece.table.take(pa.array(mine)), piece.group_rows))
    return found


def write(config: Curate, pieces: list[Piece], shards: int, folder: str) -> tuple[list[dict[str, Any]], int]:
    """Write pieces as about `shards` Parquet files; returns the inputs that name them, and how many files there are.

    Files of different columns stay apart, so there may be more than were asked for.
    """
    alike: dict[tuple[int, pa.Schema], list[Piece]] = {}
    for piece in pieces:
        alike.setdefault((piece.section, piece.table.schema.remove_metadata()), []).append(piece)
    total, count, written = rows_of(pieces), 0, set()
    for (section, schema), some in alike.items():
        table = pa.concat_tables([piece.table.replace_schema_metadata(None).cast(schema) for piece in some])
        number = max(1, round(shards * table.num_rows / max(1, total)))
        written.add(section)
        ends = [i * table.num_rows // number for i in range(number + 1)]
        for begin, end in pairwise(ends):
            url = files.join(folder, f"in-{section}", f"{count:05d}.parquet")
            with files.publishing(url) as sink:
                pq.write_table(table.slice(begin, end - begin), sink, row_group_size=some[0].group_rows)
            count += 1
    return [_input(config.inputs[section], folder, section) for section in sorted(written)], count


def _input(section: Columns, folder: str, number: int) -> dict[str, Any]:
    """The section of an input whose rows are in Parquet files of the sample."""
    kept = ("name", "image", "text", "key", "source", "exclude", "unsupported")
    given = {name: getattr(section, name) for name in kept}
    return given | {"kind": "parquet", "path": files.join(folder, f"in-{number}")}
