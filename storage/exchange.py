"""The exchange: rows leave by shard and arrive by bucket, with memory bounded by either.

Each source writes one Arrow file of record batches and an index bucket -> batches; gathering a bucket maps those files
and picks its batches. Spills live in `<step>/spill/<name>` until the step's commit point is written.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage import files, together
from storage.shards import as_binary
from storage.steps import Step

# Positions travel with rows under names that no column of a user has a reason to bear.
SHARD, ROW = "__shard", "__row"

PARTITION_ROWS = 1 << 18
"""Rows of a partition of a global step: what is in memory at once there, whatever the size of the data set."""

GATHER_BYTES = 1 << 30
"""Most bytes gathered by one `take`: Arrow's `binary` overflows at 2 GiB."""


def spilled(step: Step, exchange: str) -> set[str]:
    """Names of the sources that are written whole."""
    folder = step.file(f"spill/{exchange}")
    return {name[:-5] for name in files.names(folder) if name.endswith(".json")}


def spill(step: Step, exchange: str, source: str, tables: Iterable[tuple[pa.Table, np.ndarray]]) -> None:
    """Write one source: tables and, row by row, the bucket (int) each row goes to. Order within a bucket is kept."""
    url = step.file(f"spill/{exchange}/{source}.arrow")
    index: dict[int, list[int]] = {}
    batches = 0
    with files.publishing(url) as sink:
        writer: pa.ipc.RecordBatchFileWriter | None = None
        for table, buckets in tables:
            writer = writer or pa.ipc.new_file(sink, table.schema)
            for bucket, part in split(table, buckets):
                for batch in part.to_batches():
                    writer.write_batch(batch)
                    index.setdefault(bucket, []).append(batches)
                    batches += 1
        if writer:
            writer.close()
    files.write_json(step.file(f"spill/{exchange}/{source}.json"), {str(k): v for k, v in index.items()})


def split(table: pa.Table, buckets: np.ndarray) -> Iterable[tuple[int, pa.Table]]:
    """The rows of `table` by bucket, ascending, order within a bucket kept."""
    if not len(buckets):
        return
    if np.any(buckets[1:] < buckets[:-1]):  # rows that come in bucket order are not copied
        order = np.argsort(buckets, kind="stable")
        table, buckets = take(table, order), buckets[order]
    values, starts = np.unique(buckets, return_index=True)
    ends = np.append(starts[1:], len(buckets))
    for bucket, start, end in zip(values.tolist(), starts.tolist(), ends.tolist(), strict=True):
        yield bucket, table.slice(start, end - start)


def take(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """Rows of `table` by index, gathered in slices under 1 GiB."""
    if len(rows) == 0:
        return table.slice(0, 0)
    parts = [table.take(pa.array(rows[first:last])) for first, last in cuts(table, rows, GATHER_BYTES)]
    return parts[0] if len(parts) == 1 else pa.concat_tables(parts)


def cuts(table: pa.Table, rows: np.ndarray, limit: int) -> list[tuple[int, int]]:
    """`rows` (indices into `table`) in consecutive ranges of at most `limit` bytes, one row at least each."""
    ends = np.cumsum(row_bytes(table)[rows])
    result, first = [], 0
    while first < len(rows):
        before = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + limit, side="right")))
        result.append((first, last))
        first = last
    return result


def row_bytes(table: pa.Table) -> np.ndarray:
    """Bytes of every row, float64 `(n,)`: exact for text, bytes and images, the mean for other columns."""
    total = np.zeros(table.num_rows)
    for column in table.columns:
        kind = column.type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            column = as_binary(column)
            kind = column.type
        if kind in (pa.binary(), pa.large_binary(), pa.string(), pa.large_string()):
            total += pc.fill_null(pc.binary_length(column), 0).to_numpy() + 8
        elif table.num_rows:
            total += column.nbytes / table.num_rows
    return total


class Gathering:
    """The reading side of one exchange: indexes are read once, then any bucket is gathered."""

    def __init__(self, step: Step, exchange: str, sources: list[str]) -> None:
        self._folder = step.file(f"spill/{exchange}")
        self._batches: dict[int, list[tuple[str, list[int]]]] = {}
        found = together.read(self._folder, [f"{source}.json" for source in sources])
        for source in sources:
            for bucket, batches in found[f"{source}.json"].items():
                self._batches.setdefault(int(bucket), []).append((source, batches))

    def buckets(self) -> list[int]:
        """Buckets that received a row, ascending."""
        return sorted(self._batches)

    def gather(self, bucket: int) -> pa.Table | None:
        """The rows of `bucket`, source after source in the given order; None if there are none.

        The table's buffers are views of the mapped files where these are local.
        """
        found = []
        for source, batches in self._batches.get(bucket, []):
            with files.reading(f"{self._folder}/{source}.arrow", memory_map=True) as file:
                reader = pa.ipc.open_file(file)
                found += [reader.get_batch(i) for i in batches]
        return pa.Table.from_batches(found) if found else None
