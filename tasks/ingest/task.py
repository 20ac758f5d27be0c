"""Ingest tasks: convert what is no Parquet; digest new shards, give rows their identity, find the unusable ones."""

from __future__ import annotations

import time
from typing import Any

import pyarrow as pa

from storage.broken import BrokenFile
from storage.manifests import file_facts
from storage.shards import InputFile, Memory, footer, shard_digest
from storage.steps import Step
from tasks import ingest, load
from tasks.groups import each, stage_task
from tasks.ingest.conversion import convert
from tasks.ingest.identities import identify

ROWS_A_BYTE, MOST_BELIEVED = 64, 1 << 24
"""Most rows that a damaged file is believed to have, for its size and whatever its size."""


@stage_task(name="convert", task_run_name="convert {step.kind} {label}")
def convert_units(step: Step, config: Any, units: list[InputFile], label: str) -> dict[str, Any]:
    """Convert units of one input into Parquet shards in the store."""
    reader = load(ingest.METHODS, config)
    return each(units, lambda unit: convert(step, reader, unit))


@stage_task(name="ingest", task_run_name="ingest {label}")
def ingest_files(step: Step, roles: dict[str, str], files: list[InputFile], label: str) -> dict[str, Any]:
    """Read each shard once; publish its sidecar and remember its digest, or that it is damaged."""
    memory = Memory(step.store)

    def work(entry: InputFile) -> None:
        started = time.perf_counter()
        try:
            found = identify(entry, roles)
        except BrokenFile as broken:
            memory.remember(entry, *_what_is_known(entry), broken=str(broken))
            return
        digest = shard_digest(found.digest, entry.naming)
        step.publish(digest, found.sidecar, list(found.failures), time.perf_counter() - started)
        memory.remember(entry, found.digest, found.sidecar.num_rows, found.schema)

    return each(files, work)


def _what_is_known(entry: InputFile) -> tuple[str, int, pa.Schema]:
    """Digest, rows and schema of a damaged file, the last two as far as its footer tells them.

    A number of rows that the file's bytes can hardly hold is not believed: the ledger would have a line for each.
    """
    content = str(file_facts(entry.url)["digest"])
    try:
        rows, schema = footer(entry.url)
    except (pa.ArrowException, OSError):
        return content, 0, pa.schema([])
    believed = 0 <= rows <= min(entry.size * ROWS_A_BYTE, MOST_BELIEVED)
    return content, rows if believed else 0, schema
