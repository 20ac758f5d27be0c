"""Ingest task: digest new files, give every row its identity, quarantine rows without content."""

from __future__ import annotations

import time
from typing import Any

from storage.shards import InputFile, Memory
from storage.steps import Step
from tasks import ingest, load
from tasks.groups import each, stage_task


@stage_task(name="ingest", task_run_name="ingest {label}")
def ingest_files(step: Step, config: Any, files: list[InputFile], label: str) -> dict[str, Any]:
    """Read each file once; publish its sidecar and remember its digest."""
    method, memory = load(ingest.METHODS, config), Memory(step.store)

    def work(entry: InputFile) -> None:
        started = time.perf_counter()
        content, schema, sidecar, failures = method.read(entry.url)
        step.publish(content, sidecar, list(failures), time.perf_counter() - started)
        memory.remember(entry, content, sidecar.num_rows, schema)

    return each(files, work)
