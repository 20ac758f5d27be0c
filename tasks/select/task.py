"""Select tasks: summarise and partition shards, fit once, decide on buckets or shards, bring decisions home."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from storage.exchange import Gathering, spill
from storage.shards import Shard
from storage.states import Checkpoint
from storage.states import load as load_state
from storage.states import save as save_state
from storage.steps import Step
from storage.view import View
from tasks import load, select
from tasks.groups import each, stage_task
from tasks.select.decisions import (
    Summaries,
    bucket_decisions,
    decisions_table,
    publish_decisions,
    rows_of,
    write_summary,
)
from tasks.select.forecasts import sum_forecasts, write_forecast


@stage_task(name="summarise", task_run_name="select {step.kind}: summarise {label}")
def summarise_shards(step: Step, view: View, config: Any, seed: int, shards: list[Shard], label: str) -> dict[str, Any]:
    """Write each shard's summary."""
    method = load(select.METHODS, config, seed=seed)
    return each(shards, lambda shard: write_summary(step, view, method, shard))


@stage_task(name="fit", task_run_name="select {step.kind}: fit")
def fit_select(step: Step, config: Any, seed: int, shards: list[Shard]) -> None:
    """Fit on the summaries of all shards."""
    method = load(select.METHODS, config, seed=seed)
    state = method.fit(Summaries(step, shards), Checkpoint(step.file("checkpoint.npz")))
    save_state(step.file("state.npz"), state)


@stage_task(name="forecast", task_run_name="select {step.kind}: forecast {label}")
def forecast_shards(step: Step, view: View, config: Any, seed: int, shards: list[Shard], label: str) -> dict[str, Any]:
    """Write what the method expects of each shard."""
    method, state = load(select.METHODS, config, seed=seed), load_state(step.file("state.npz"))
    return each(shards, lambda shard: write_forecast(step, view, method, state, shard))


@stage_task(name="sum forecasts", task_run_name="select {step.kind}: sum forecasts")
def sum_select(step: Step, config: Any, seed: int, shards: list[Shard]) -> None:
    """Sum the forecasts of all shards."""
    method, state = load(select.METHODS, config, seed=seed), load_state(step.file("state.npz"))
    sum_forecasts(step, method, state, shards)


@stage_task(name="partition", task_run_name="select {step.kind}: partition {label}")
def partition_shards(step: Step, view: View, config: Any, seed: int, shards: list[Shard], label: str) -> dict[str, Any]:
    """Send each shard's rows to their buckets."""
    method, state = load(select.METHODS, config, seed=seed), load_state(step.file("state.npz"))

    def work(shard: Shard) -> None:
        rows = rows_of(view, shard, method.needs)
        spill(step, "rows", shard.digest, [(rows, method.partition(rows, state))])

    return each(shards, work)


@stage_task(name="decide", task_run_name="select {step.kind}: decide on buckets {label}")
def decide_buckets(
    step: Step, config: Any, seed: int, sources: list[str], buckets: list[int], label: str
) -> dict[str, Any]:
    """Decide bucket by bucket; send the decisions back towards their shards."""
    method, state = load(select.METHODS, config, seed=seed), load_state(step.file("state.npz"))
    rows = Gathering(step, "rows", sources)
    return each(buckets, lambda bucket: bucket_decisions(step, method, state, bucket, rows.gather(bucket)))


@stage_task(name="collect", task_run_name="select {step.kind}: collect {label}")
def collect_decisions(step: Step, buckets: list[int], every: list[Shard], shards: list[Shard], label: str) -> dict:
    """Publish each shard's decisions, gathered from the buckets."""
    home = Gathering(step, "decisions", [str(bucket) for bucket in buckets])
    names = pa.array([shard.file for shard in every], pa.string())
    return each(shards, lambda shard: publish_decisions(step, shard, home.gather(shard.index), names))


@stage_task(name="decide", task_run_name="select {step.kind}: decide {label}")
def decide_shards(step: Step, view: View, config: Any, seed: int, shards: list[Shard], label: str) -> dict[str, Any]:
    """Decide shard by shard."""
    method, state = load(select.METHODS, config, seed=seed), load_state(step.file("state.npz"))

    def work(shard: Shard) -> None:
        rows = rows_of(view, shard, method.needs)
        publish_decisions(step, shard, decisions_table(rows, method.decide(rows, state)), None)

    return each(shards, work)
