"""What a report is about and where its parts are gathered; and the ledger as the gathering tasks read it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.curate import Report
from storage import files
from storage.shards import Shard
from storage.steps import Step
from storage.view import View
from tasks.emit.layout import Block

CODED = ("file", "outcome", "stage", "reason", "keeper_file")
"""Columns with few distinct values: read as codes, so that a million rows are a few megabytes."""


@dataclass(frozen=True)
class Picking:
    """How the batches were picked, as far as a report tells of it."""

    kind: str
    """Of the sampler."""
    mixed: Step
    """The mix's step, with the draws of each shard."""
    superbatch: int
    """Draws of one step."""
    micro_batch: int
    """Consecutive draws that are compared with each other."""
    taken: int
    """Rows picked of each micro-batch."""
    alpha: float | None
    """What diversity counts for, of samplers that have it."""
    groups: int
    """How many there are."""
    sources: tuple[tuple[int, str], ...]
    """Number and name of the groups that are told one by one; empty where there is only one group."""


@dataclass(frozen=True)
class Weighing:
    """How the weights of rows are summed, as far as it does not follow from the rows."""

    sizes: tuple[str, ...]
    """What the rows of a group are measured in: `bytes`, `tokens`."""
    cells: str | None
    """The column by which near copies are found; None: there is none."""
    bits: int
    """Hyperplanes, where it holds embeddings."""
    buckets: int
    """That weights by copy are summed in."""


@dataclass(frozen=True)
class Subject:
    """What the tasks of a report need to know. Small: it travels to all of them."""

    step: Step
    """Where they leave what they found for each other; removed when the report stands."""
    mix: str
    """Folder of the mix."""
    view: View
    repeated: frozenset[str]
    """Files with the content of another one: they have no sidecars of their own."""
    damaged: frozenset[str]
    """Files that are not read."""
    scores: tuple[str, ...]
    """Columns whose distribution is shown."""
    selects: tuple[tuple[str, Step], ...]
    """Selects in order, each with its name in the ledger."""
    sample: Step
    """The sampler's step, with what it says of its batches if it chooses by concepts."""
    parts: tuple[int, ...]
    """Rows of each part of the batch plan."""
    steps: int
    """Batches of the whole plan."""
    picking: Picking
    weighing: Weighing
    capped: bool
    """Whether the sampler voids rows with a concept that it has often enough."""
    settings: Report
    max_pixels: int
    """Pictures that claim more are not decoded."""

    def ledger(self, number: int, columns: tuple[str, ...]) -> pa.Table:
        """Columns of one part of the ledger, in its order; those of `CODED` dictionary-encoded, in one chunk each."""
        url = files.join(self.mix, "ledger", f"part-{number:05d}.parquet")
        coded = [name for name in columns if name in CODED]
        with files.reading(url) as file:
            table = pq.ParquetFile(file, read_dictionary=coded).read(columns=list(columns), use_threads=False)
        return table.unify_dictionaries()

    @property
    def stages(self) -> list[str]:
        """Names of the stages that drop rows in favour of others."""
        return ["ingest", *(label for label, _ in self.selects)]

    def own(self, block: Block) -> list[tuple[Shard, int]]:
        """The block's shards that have sidecars, each with the place of its first row in the block's ledger."""
        apart = self.repeated | self.damaged
        return [(shard, at) for shard, at in starts(block) if shard.file not in apart]


def starts(block: Block) -> list[tuple[Shard, int]]:
    """The block's files in order, each with the place of its first row in the block's ledger."""
    at, found = 0, []
    for shard in block[1]:
        found.append((shard, at))
        at += shard.rows
    return found


def codes(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """A dictionary-encoded column as int64 codes, -1 for null, and what they stand for."""
    if column.num_chunks == 0:
        return np.empty(0, np.int64), []
    words = column.chunk(0).dictionary.to_pylist()
    parts = [pc.fill_null(chunk.indices.cast(pa.int64()), -1).to_numpy() for chunk in column.chunks]
    return np.concatenate(parts), words
