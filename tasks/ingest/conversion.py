"""From what is no Parquet (tars, JSON lines, folders of pictures, data sets) to Parquet shards in the store, once.

A unit becomes `<id>-00000.parquet`, … with the rows that could not be used beside each, and, written last, `<id>.json`;
`id` is a digest of the unit's URL, size and stamp, so a unit that has changed is another unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage import files
from storage.broken import BrokenFile
from storage.fingerprints import fingerprint
from storage.shards import InputFile
from storage.steps import FAILURES, Step, parquet_bytes
from tasks import Failure
from tasks.ingest import Reader, Slice, Types, TypesChanged

PART_ROWS = 1 << 18
PART_BYTES = 512 * files.MiB
"""Most rows and, but for its last slice, bytes of a shard made here: sidecars are read a shard at a time."""

MOST_READINGS = 20
"""Each further reading knows wider types of fields; there are only a few widths."""


def unit_id(unit: InputFile) -> str:
    """Name of the unit's files in the store."""
    return fingerprint({"url": unit.url, "size": unit.size, "stamp": unit.stamp})


def convert(step: Step, reader: Reader, unit: InputFile) -> None:
    """Convert one unit; one whose content is damaged is noted as such.

    Raises:
        OSError: The unit cannot be read now, or the store not be written.
    """
    types: Types = {}
    for _ in range(MOST_READINGS):
        try:
            parts = list(write_parts(step, unit_id(unit), reader.read(unit, types)))
        except TypesChanged as changed:
            types = changed.types
        except BrokenFile as broken:
            return step.commit(unit_id(unit), file=unit.file, parts=[], broken=str(broken))
        else:
            return step.commit(unit_id(unit), file=unit.file, parts=parts, broken=None)
    raise RuntimeError(f"{unit.file} was read {MOST_READINGS} times and its fields still change: {dict(types)}")


def write_parts(step: Step, name: str, slices: Iterator[Slice]) -> Iterator[dict[str, Any]]:
    """Write the shards of one unit; yields what is to be known of each."""
    number = at = 0
    found = next(slices, None)
    while found is not None:
        part = f"{name}-{number:05d}"
        failed: list[Failure] = []
        rows = size = 0
        schema = found.table.schema
        with (
            files.publishing(step.file(f"{part}.parquet")) as sink,
            pq.ParquetWriter(sink, schema, compression=_codecs(schema)) as writer,
        ):
            while found is not None and rows < PART_ROWS and size < PART_BYTES:
                writer.write_table(found.table, row_group_size=max(1, found.table.num_rows))
                failed += [Failure(f.row - at, f.reason, f.detail) for f in found.failures]
                rows, size = rows + found.table.num_rows, size + found.table.nbytes
                found = next(slices, None)
        if failed:
            table = pa.Table.from_pylist([failure._asdict() for failure in sorted(failed)], schema=FAILURES)
            files.write_bytes(step.file(f"{part}.failures.parquet"), parquet_bytes(table))
        yield {"name": part, "rows": rows, "bytes": files.size(step.file(f"{part}.parquet")), "failed": len(failed)}
        number, at = number + 1, at + rows


def _codecs(schema: pa.Schema) -> dict[str, str]:
    """Pictures are compressed already."""
    leaves = pq.ParquetFile(pa.py_buffer(parquet_bytes(schema.empty_table()))).schema
    paths = [leaves.column(i).path for i in range(len(leaves.names))]
    return {path: "none" if path.endswith(".bytes") else "zstd" for path in paths}


def shards_of(step: Step, unit: InputFile, facts: dict[str, Any]) -> list[InputFile]:
    """The shards that a unit has become; several are numbered: `big.jsonl#00001`."""
    parts = facts["parts"]
    names = [unit.file] if len(parts) == 1 else [f"{unit.file}#{number:05d}" for number in range(len(parts))]
    return [
        InputFile(
            file=name,
            url=step.file(f"{part['name']}.parquet"),
            size=part["bytes"],
            stamp=unit_id(unit),
            naming=unit.naming,
            failures=step.file(f"{part['name']}.failures.parquet") if part["failed"] else None,
        )
        for name, part in zip(names, parts, strict=True)
    ]
