"""Select tasks: summarise and partition shards, fit once, decide on buckets or shards, bring decisions home."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from storage import files
from storage.exchange import Gathering, spill
from storage.shards import Shard
from storage.states import Checkpoint
from storage.states import load as load_state
from storage.states import save as save_state
from storage.steps import Step
from storage.view import View
from tasks import load, select
from tasks.groups import each, stage_task, tell
from tasks.select import linking, targets
from tasks.select.decisions import decided, decisions_table, publish_decisions, rows_of, send_home
from tasks.select.forecasts import sum_forecasts, write_forecast
from tasks.summaries import Summaries, write_summary


@stage_task(name="summarise", task_run_name="select {step.kind}: summarise {label}")
def summarise_shards(step: Step, view: View, config: Any, seed: int, shards: list[Shard], label: str) -> dict[str, Any]:
    """Write each shard's summary."""
    method = load(select.METHODS, config, seed=seed)
    return each(shards, lambda shard: write_summary(step, view, method, shard))


@stage_task(name="fit", task_run_name="select {step.kind}: fit")
def fit_select(step: Step, config: Any, seed: int, shards: list[Shard]) -> None:
    """Fit on the summaries of all shards."""
    method = load(select.METHODS, config, seed=seed)
    checkpoint = Checkpoint(step.file("checkpoint.npz"), tell)
    save_state(step.file("state.npz"), method.fit(Summaries(step, shards), checkpoint))
    files.remove(checkpoint.url)


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


@stage_task(name="key", task_run_name="select {step.kind}: keys of {label}")
def key_shards(
    step: Step, view: View, config: Any, seed: int, shards: list[Shard], buckets: int, label: str
) -> dict[str, Any]:
    """Send the keys of each shard's rows to their buckets."""
    method, state = load(select.METHODS, config, seed=seed), load_state(step.file("state.npz"))

    def work(shard: Shard) -> None:
        linking.spill_keys(step, method, state, shard, rows_of(view, shard, method.needs), buckets)

    return each(shards, work)


@stage_task(name="link", task_run_name="select {step.kind}: link {label}")
def link_buckets(step: Step, sources: list[str], buckets: list[int], label: str) -> dict[str, Any]:
    """Link the rows that share a key."""
    keyed = Gathering(step, linking.KEYS, sources)
    return each(buckets, lambda bucket: linking.link_bucket(step, bucket, keyed.gather(bucket)))


@stage_task(name="join", task_run_name="select {step.kind}: join links")
def join_links(step: Step, buckets: list[int]) -> None:
    """Join all links into components."""
    linking.join(step, buckets)


@stage_task(name="meet", task_run_name="select {step.kind}: bring together {label}")
def meet_shards(step: Step, view: View, config: Any, seed: int, shards: list[Shard], label: str) -> dict[str, Any]:
    """Send rows that have company to its bucket; decide on the others at once."""
    method, state = load(select.METHODS, config, seed=seed), load_state(step.file("state.npz"))
    links = linking.Links(step)

    def work(shard: Shard) -> None:
        joined, buckets, alone = links.divide(rows_of(view, shard, targets.needs(method, config)))
        send_home(step, shard.digest, alone, decided(step, method, config, state, shard.digest, alone))
        spill(step, "rows", shard.digest, [(joined, buckets)])

    return each(shards, work)


@stage_task(name="partition", task_run_name="select {step.kind}: partition {label}")
def partition_shards(step: Step, view: View, config: Any, seed: int, shards: list[Shard], label: str) -> dict[str, Any]:
    """Send each shard's rows to their buckets."""
    method, state = load(select.METHODS, config, seed=seed), load_state(step.file("state.npz"))

    def work(shard: Shard) -> None:
        rows = rows_of(view, shard, targets.needs(method, config))
        spill(step, "rows", shard.digest, [(rows, method.partition(rows, state))])

    return each(shards, work)


@stage_task(name="decide", task_run_name="select {step.kind}: decide on buckets {label}")
def decide_buckets(
    step: Step, config: Any, seed: int, sources: list[str], buckets: list[int], label: str
) -> dict[str, Any]:
    """Decide bucket by bucket; send the decisions back towards their shards."""
    method, state = load(select.METHODS, config, seed=seed), load_state(step.file("state.npz"))
    gathering = Gathering(step, "rows", sources)

    def work(bucket: int) -> None:
        rows = gathering.gather(bucket)
        if rows is not None:
            send_home(step, str(bucket), rows, decided(step, method, config, state, str(bucket), rows))

    return each(buckets, work)


@stage_task(name="decide", task_run_name="select {step.kind}: decide {label}")
def decide_shards(step: Step, view: View, config: Any, seed: int, shards: list[Shard], label: str) -> dict[str, Any]:
    """Decide shard by shard."""
    method, state = load(select.METHODS, config, seed=seed), load_state(step.file("state.npz"))

    def work(shard: Shard) -> None:
        rows = rows_of(view, shard, targets.needs(method, config))
        decisions = decided(step, method, config, state, shard.digest, rows)
        if decisions is not None:
            publish_decisions(step, shard, decisions_table(rows, decisions), None)

    return each(shards, work)


@stage_task(name="cut", task_run_name="select {step.kind}: find the cut")
def cut_ranks(step: Step, config: Any, seed: int, sources: list[str]) -> None:
    """Find which ranked rows stay."""
    method, state = load(select.METHODS, config, seed=seed), load_state(step.file("state.npz"))
    targets.cut(step, method, config, state, sources)


@stage_task(name="settle", task_run_name="select {step.kind}: settle {label}")
def settle_sources(step: Step, sources: list[str], label: str) -> dict[str, Any]:
    """Decide on ranked rows by the cut; send the decisions towards their shards."""
    found = targets.the_cut(step)
    return each(sources, lambda source: send_home(step, source, *targets.settle(step, found, source)))


@stage_task(name="collect", task_run_name="select {step.kind}: collect {label}")
def collect_decisions(step: Step, sources: list[str], every: list[Shard], shards: list[Shard], label: str) -> dict:
    """Publish each shard's decisions, gathered from buckets (and shards) in the order of `sources`."""
    home = Gathering(step, "decisions", sources)
    names = pa.array([shard.file for shard in every], pa.string())
    return each(shards, lambda shard: publish_decisions(step, shard, home.gather(shard.index), names))
