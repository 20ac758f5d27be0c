"""Annotate tasks: perhaps fit once and freeze (a mined vocabulary), then annotate shards."""

from __future__ import annotations

from typing import Any

from storage import files, states
from storage.shards import Shard
from storage.steps import Step, parquet_bytes
from storage.view import View
from tasks import annotate, load
from tasks.groups import annotate_shard, each, stage_task


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


@stage_task(name="annotate", task_run_name="annotate {step.kind} {label}")
def annotate_shards(
    step: Step, view: View, config: Any, state: str | None, shards: list[Shard], label: str
) -> dict[str, Any]:
    """Annotate a group of shards; `state` is the URL of the frozen state, if the method has one."""
    method = load(annotate.METHODS, config, state=states.load(state) if state else None)
    return each(shards, lambda shard: annotate_shard(step, view, method, shard))
