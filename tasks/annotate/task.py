"""Annotate tasks: perhaps fit or build a state once and freeze it (a mined vocabulary), then annotate shards."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from storage import files, states
from storage.shards import Shard
from storage.steps import Step, parquet_bytes
from storage.view import View
from tasks import annotate, load
from tasks.embed.device import device_slot
from tasks.groups import annotate_shard, each, say, stage_task

VOCABULARY = "spill/vocabulary.npz"
"""In a step that builds a state: the names that it is for."""


def part_name(part: int) -> str:
    """The file of a step that holds a part of the state."""
    return f"spill/parts/{part:05d}.npz"


@stage_task(name="summarise", task_run_name="annotate: summarise {label}")
def summarise_shards(step: Step, view: View, config: Any, shards: list[Shard], label: str) -> dict[str, Any]:
    """Write each shard's summary for the fit."""
    method = load(annotate.METHODS, config)

    def work(shard: Shard) -> None:
        table = method.summarise(view.table(shard, method.needs))
        files.write_bytes(step.file(f"spill/summaries/{shard.digest}.parquet"), parquet_bytes(table))

    return each(shards, work)


@stage_task(name="fit", task_run_name="annotate: fit and freeze")
def fit_annotator(step: Step, config: Any, shards: list[Shard], target: str) -> None:
    """Fit on the shards' summaries and freeze the state at `target`."""
    method = load(annotate.METHODS, config)
    summaries = (step.read(f"spill/summaries/{shard.digest}") for shard in shards)
    states.save(target, method.fit(summaries))
    files.remove(step.file("spill"))


@stage_task(name="build", task_run_name="annotate: build {label}")
def build_parts(step: Step, config: Any, schema: pa.Schema | None, parts: list[int], label: str) -> dict[str, Any]:
    """Compute parts of the annotator's state; `schema` is of the columns it is for, None where there are no rows."""
    method = load(annotate.METHODS, config, state=states.load(step.file(VOCABULARY)))
    with device_slot(getattr(method, "device", "cpu"), say):
        if schema is not None:
            method.accept(schema)
        return each(parts, lambda part: states.save(step.file(part_name(part)), method.build(part)))


@stage_task(name="join", task_run_name="annotate: join and freeze")
def join_parts(step: Step, config: Any, parts: list[int], target: str) -> None:
    """Freeze the state made of all parts at `target`."""
    method = load(annotate.METHODS, config, state=states.load(step.file(VOCABULARY)))
    states.save(target, method.join(states.load(step.file(part_name(part))) for part in parts))
    files.remove(step.url)


@stage_task(name="annotate", task_run_name="annotate {step.kind} {label}")
def annotate_shards(
    step: Step, view: View, config: Any, state: str | None, shards: list[Shard], label: str
) -> dict[str, Any]:
    """Annotate a group of shards; `state` is the URL of the frozen state, if the method has one."""
    method = load(annotate.METHODS, config, state=states.load(state) if state else None)
    with device_slot(getattr(method, "device", "cpu"), say):
        return each(shards, lambda shard: annotate_shard(step, view, method, shard))
