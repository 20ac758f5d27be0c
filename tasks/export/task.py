"""Export tasks: write shards, and read them back."""

from __future__ import annotations

from typing import Any

from configs.export import Export
from storage import files
from tasks import load
from tasks.export import METHODS
from tasks.export.checking import check_shard
from tasks.export.rows import Source, samples
from tasks.groups import each, stage_task

STATE = "_export"
"""Folder within an export that is being written: its plan, and the facts of every finished shard."""
Shard = tuple[int, tuple[int, int]]
"""Number of a shard, its first row and the row after its last."""


def fact_file(out: str, number: int) -> str:
    """Where the facts of a finished shard are."""
    return files.join(out, STATE, f"{number:05d}.json")


@stage_task(name="export", task_run_name="export: write {label}")
def export_shards(source: Source, out: str, config: Export, shards: list[Shard], label: str) -> dict[str, Any]:
    """Write shards of an export; the facts of each, written after it, say that it is whole."""
    exporter = load(METHODS, config)

    def write(shard: Shard) -> None:
        number, (begin, end) = shard
        facts = exporter.write(files.join(out, exporter.name(number)), samples(source, begin, end))
        files.write_json(fact_file(out, number), {**facts, "rows": end - begin})

    return each(shards, write)


@stage_task(name="check export", task_run_name="export: read back {label}")
def check_shards(source: Source, out: str, config: Export, shards: list[Shard], label: str) -> dict[str, Any]:
    """Compare shards with the mix, row by row."""
    exporter = load(METHODS, config)
    return each(shards, lambda shard: check_shard(exporter, out, shard[0], source, shard[1]))
