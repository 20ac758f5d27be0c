"""Where every used row goes: positions in batch order, parts under a size, and the way from shards to parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage import files, states
from storage.exchange import SHARD, spill
from storage.shards import Shard
from storage.steps import Step
from storage.view import View
from tasks.emit.schema import ADDED, CONCEPTS

BLOCK_ROWS = 1 << 20
"""About how many input rows a block of consecutive files holds: the unit of the ledger's parts."""


Block = tuple[int, list[Shard]]
"""A block's number and its files."""


@dataclass(frozen=True)
class Layout:
    """What both passes need to know of the mix that is written."""

    url: str
    """Folder of this version of the mix."""
    schema_bytes: bytes
    """The mix's Arrow schema, serialised: tasks on other machines get plain bytes."""
    image: str | None
    scores: tuple[str, ...]
    part_bytes: int
    row_group_rows: int

    @property
    def schema(self) -> pa.Schema:
        """The mix's schema."""
        return pa.ipc.read_schema(pa.py_buffer(self.schema_bytes))

    @property
    def columns(self) -> list[str]:
        """The mix's columns that may stand in an input file."""
        made = {*ADDED.names, CONCEPTS.name, *self.scores}
        return [name for name in self.schema.names if name not in made]

    @property
    def concepts(self) -> bool:
        """Whether the rows' concepts are written."""
        return CONCEPTS.name in self.schema.names

    def part_url(self, number: int) -> str:
        """Where a part is written."""
        return files.join(self.url, "data", f"part-{number:05d}.parquet")


def blocks(entries: list[Shard]) -> list[list[Shard]]:
    """Consecutive input files in blocks of about `BLOCK_ROWS` rows; depends on the data alone."""
    result: list[list[Shard]] = []
    rows = 0
    for entry in entries:
        if not result or rows + entry.rows > BLOCK_ROWS:
            result.append([])
            rows = 0
        result[-1].append(entry)
        rows += entry.rows
    return result


def locate(step: Step, plan: Step, part: str, offset: int, block_of: np.ndarray) -> None:
    """Give the rows of one part of the batch plan their positions in the mix and send them to their shards' blocks."""
    table = plan.read(part)
    table = table.drop_columns(["shard", "group"])
    position = pa.array(offset + np.arange(table.num_rows), pa.int64())
    table = table.append_column("position", position)
    spill(step, "plan", part, [(table, block_of[table[SHARD].to_numpy()])])


def locate_values(step: Step, plan: Step, part: str, block_of: np.ndarray) -> None:
    """Send what the sampler went by (`row, value`, the last of its values) of draws that it passed over to blocks."""
    table = plan.read(part)
    table = table.filter(pc.invert(table["picked"]))
    value = table.column_names[-1]
    table = table.select(["row", SHARD, value]).rename_columns(["row", SHARD, "value"])
    spill(step, "values", part, [(table, block_of[table[SHARD].to_numpy()])])


def rows_of_shard(plan: pa.Table | None, shard: Shard) -> pa.Table | None:
    """The planned rows of one shard by input row, then position; None if it has none."""
    if plan is None:
        return None
    mine = plan.filter(pa.compute.equal(plan[SHARD], shard.index))
    return mine.sort_by([("row", "ascending"), ("position", "ascending")]) if mine.num_rows else None


def measure(step: Step, view: View, block: Block, plan: pa.Table | None, layout: Layout) -> None:
    """Bytes that one block contributes to every row group of the mix."""
    number, shards = block
    total = np.zeros(0, np.float64)
    for shard in shards:
        rows = rows_of_shard(plan, shard)
        if rows is None:
            continue
        known = view.table(shard, ("image_bytes", "text_chars"))
        # Encoded sizes understate repeated texts; two bytes a character stand between ASCII and CJK.
        sizes = known["image_bytes"].to_numpy() + 2 * known["text_chars"].to_numpy() + _other_bytes(shard, view)
        if layout.concepts:
            sizes = sizes + view.table(shard, ("concepts",)).nbytes / max(1, shard.rows)
        group = rows["position"].to_numpy() // layout.row_group_rows
        mine = np.bincount(group, weights=sizes[rows["row"].to_numpy()])
        total = _add(total, mine)
    states.save(step.file(f"spill/sizes/{number:05d}.npz"), {"bytes": np.ceil(total).astype(np.int64)})


def _add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    result = longer.copy()
    result[: len(shorter)] += shorter
    return result


def _other_bytes(shard: Shard, view: View) -> float:
    """Mean bytes of a row besides its image, from the footer."""
    image = shard.naming.in_file(view.inputs["image"]) if "image" in view.inputs else None
    with files.reading(shard.url) as file:
        metadata = pq.read_metadata(file)
    total = 0
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        for j in range(group.num_columns):
            column = group.column(j)
            if image is None or column.path_in_schema.split(".")[0] != image:
                total += column.total_uncompressed_size
    return total / max(1, metadata.num_rows) + 64


def part_starts(step: Step, block_count: int, rows: int, layout: Layout) -> np.ndarray:
    """First position of every part, int64: parts are whole row groups and hold at most `part_bytes`.

    A single row group above the limit is a part by itself.
    """
    group_rows, part_bytes = layout.row_group_rows, layout.part_bytes
    sizes = np.zeros(-(-rows // group_rows), np.int64)
    for block in range(block_count):
        mine = states.load(step.file(f"spill/sizes/{block:05d}.npz"))["bytes"]
        sizes[: len(mine)] += mine
    starts, filled = [], part_bytes + 1
    for group, size in enumerate(sizes.tolist()):
        if filled + size > part_bytes:
            starts.append(group * group_rows)
            filled = 0
        filled += size
    return np.array(starts, np.int64)
