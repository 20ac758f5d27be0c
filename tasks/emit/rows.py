"""The two passes: rows leave their shards for the parts they belong to, then each part is put in order and written.

Every needed row group of the input is read once. Memory is bounded by a slice of a row group in the first pass and by
a part in the second.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage import files, shards
from storage.exchange import GATHER_BYTES, cuts, spill, take
from storage.manifests import file_facts
from storage.shards import Shard
from storage.steps import Step
from storage.view import View
from tasks.emit.layout import Layout
from tasks.emit.schema import CONCEPTS, conform

POSITION = "__position"


def scatter(step: Step, view: View, shard: Shard, plan: pa.Table | None, layout: Layout, starts: np.ndarray) -> None:
    """First pass over one shard: read what is used of it, send every row to its part."""
    if plan is None:
        spill(step, "rows", shard.digest, [])
        return
    extras = view.table(shard, ("uid", *layout.scores, *(["concepts"] if layout.concepts else [])))

    def parts() -> Iterator[tuple[pa.Table, np.ndarray]]:
        for at, rows, mine in used_slices(shard, plan, layout.columns):
            part = np.searchsorted(starts, mine["position"].to_numpy(), side="right") - 1
            order = np.argsort(part, kind="stable")  # pictures are copied once, straight into the order of the parts
            mine, part = mine.take(pa.array(order)), part[order]
            local = mine["row"].to_numpy() - at
            table = _with_mix_columns(take(rows, local), mine, extras, shard, layout)
            yield table.append_column(POSITION, mine["position"]), part

    spill(step, "rows", shard.digest, parts())


def used_slices(shard: Shard, plan: pa.Table, columns: list[str]) -> Iterator[tuple[int, pa.Table, pa.Table]]:
    """Slices of the row groups that `plan` (sorted by row) touches: first input row, rows, their plan.

    A row that is used many times is given out in several slices of the plan, so that copies stay bounded too.
    """
    wanted = plan["row"].to_numpy()
    with files.reading(shard.url) as file:
        parquet = pq.ParquetFile(file)
        counts = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        used = np.unique(np.searchsorted(starts, wanted, side="right") - 1)
        size = shards.slice_rows(parquet.metadata)
        naming = shard.naming
        there = {*naming.schema(parquet.schema_arrow).names} - naming.left_out
        present = [name for name in columns if name in there]
        physical = naming.physical(present)
        for group in used.tolist():
            at = int(starts[group])
            for batch in parquet.iter_batches(size, row_groups=[group], columns=physical, use_threads=False):
                first, last = np.searchsorted(wanted, [at, at + batch.num_rows])
                rows = naming.table(pa.Table.from_batches([batch]), present)
                for begin, end in cuts(rows, wanted[first:last] - at, shards.SLICE_BYTES):
                    yield at, rows, plan.slice(first + begin, end - begin)
                at += batch.num_rows


def _with_mix_columns(rows: pa.Table, plan: pa.Table, extras: pa.Table, shard: Shard, layout: Layout) -> pa.Table:
    inputs = pa.schema([layout.schema.field(name) for name in layout.columns])
    table = conform(rows, inputs, layout.image)
    at = plan["row"]
    mine = extras.take(at)
    uids = mine["uid"].combine_chunks()
    made = {f"mix_{name}": plan[name] for name in ("step", "rank", "slot", "draw", "round", "weight", "row")}
    made["mix_file"] = pa.array([shard.file]).take(pa.array(np.zeros(plan.num_rows, np.int32)))
    made["mix_uid"] = _hex(uids)
    made |= {name: mine[name] for name in layout.scores}
    if layout.concepts:
        made[CONCEPTS.name] = mine["concepts"]
    columns = {name: table[name] for name in table.column_names} | made
    return pa.table([columns[field.name] for field in layout.schema], schema=layout.schema)


def _hex(uids: pa.Array | pa.ChunkedArray) -> pa.Array:
    """16-byte digests as 32 hexadecimal digits."""
    array = uids.chunk(0) if isinstance(uids, pa.ChunkedArray) else uids
    raw = np.frombuffer(array.buffers()[1], np.uint8)[16 * array.offset : 16 * (array.offset + len(array))]
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    text = np.stack([digits[raw >> 4], digits[raw & 15]], axis=1)
    offsets = np.arange(0, 32 * len(array) + 1, 32, dtype=np.int32)
    return pa.StringArray.from_buffers(len(array), pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(text)))


def write_part(step: Step, number: int, rows: pa.Table, layout: Layout) -> None:
    """Second pass for one part: order its rows and write them."""
    schema, group_rows = layout.schema, layout.row_group_rows
    order = np.argsort(rows[POSITION].to_numpy(), kind="stable")
    rows = rows.drop_columns([POSITION])
    rows = rows.combine_chunks() if rows.nbytes < GATHER_BYTES else rows
    per_write = max(1, int(64 * files.MiB // max(1.0, rows.nbytes / len(order)) // group_rows)) * group_rows
    url = layout.part_url(number)
    with files.publishing(url) as sink, pq.ParquetWriter(sink, schema, **_encoding(layout)) as out:
        for at in range(0, len(order), per_write):
            out.write_table(take(rows, order[at : at + per_write]), row_group_size=group_rows)
    step.commit(f"part-{number:05d}", rows=len(order), **file_facts(url))


def _encoding(layout: Layout) -> dict[str, Any]:
    """Writer options: encoded pictures neither shrink nor repeat, so they get no compression and no dictionary.

    With pictures row groups are small; there snappy costs a third less time than zstd for nearly the same bytes.
    Dictionaries are for text: numbers of ours hardly repeat within a row group.
    """
    leaves = pq.ParquetFile(pa.py_buffer(_empty(layout.schema))).schema
    paths = [leaves.column(i).path for i in range(len(leaves.names))]
    text = {leaves.column(i).path for i in range(len(paths)) if leaves.column(i).logical_type.type == "STRING"}
    pictures = {f"{layout.image}.bytes"}
    codec = "snappy" if layout.image else "zstd"
    return {
        "use_dictionary": [path for path in paths if path in text],
        "compression": {path: "none" if path in pictures else codec for path in paths},
    }


def _empty(schema: pa.Schema) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    return sink.getvalue()
