"""The selects of a run: fit, forecast; rows meet in shards, cells or by common keys; decide, cut, collect."""

from __future__ import annotations

from typing import Any

from flows.planning import Planned
from flows.run import HEAVY, Run
from flows.stages import run_global
from storage import files, states, together
from storage.exchange import Gathering, spilled
from storage.shards import Shard
from storage.steps import Step
from tasks.select import linking, targets
from tasks.select.decisions import counts
from tasks.select.forecasts import EXCHANGE, FORECAST
from tasks.select.task import (
    collect_decisions,
    cut_ranks,
    decide_buckets,
    decide_shards,
    fit_select,
    forecast_shards,
    join_links,
    key_shards,
    link_buckets,
    meet_shards,
    partition_shards,
    settle_sources,
    sum_select,
    summarise_shards,
)


def select(run: Run, planned: list[Planned], every: list[Shard]) -> None:
    """Run the selects in order."""
    for one in planned:
        facts = run_global(run, one.step, one.label, lambda one=one: select_one(run, one, every))  # type: ignore[misc]
        run.log(f"{one.label}: kept {facts['kept']:,} of {facts['rows']:,} rows")
        if "told" in facts:
            run.notes.append(f"{one.label}: {facts['told']}; kept are {facts['kept']:,}")
        for warning in facts["warnings"]:
            run.warn("select", f"{one.label}: {warning}")


def select_one(run: Run, planned: Planned, every: list[Shard]) -> dict[str, Any]:
    """Do one select over all shards; returns what its commit point is to say."""
    step, method = planned.step, planned.method
    common = {"step": step, "config": planned.config, "seed": run.config.seed}
    if not files.exists(step.file("state.npz")):
        fit(run, planned, every, common)
    foretold = hasattr(method, "forecast") and getattr(method, "forecasts", True)
    forecast = forecast_one(run, planned, every) if foretold else {}
    if todo := left(every, step.committed()):
        decide(run, planned, every, todo, common)
    return summed(planned, every) | forecast


def left(every: list[Shard], done: set[str]) -> list[Shard]:
    """The shards whose digests are not among those done."""
    return [shard for shard in every if shard.digest not in done]


def decide(run: Run, planned: Planned, every: list[Shard], todo: list[Shard], common: dict[str, Any]) -> None:
    """Decide on all rows, and publish the decisions of the shards that have none yet."""
    step, method, digests = planned.step, planned.method, [shard.digest for shard in every]
    if hasattr(method, "keys"):
        sources = digests + decide_linked(run, planned, every, common)
    elif hasattr(method, "partition"):
        sources = decide_in_buckets(run, planned, every, common)
    elif targets.is_ranked(method):
        sources = digests
        run.each(decide_shards, "shards", left(every, targets.ranked(step)), view=planned.view, **common)
    else:
        run.each(decide_shards, "shards", todo, view=planned.view, **common)
        return
    if targets.is_ranked(method):
        settle(run, step, sources, common)
    # `sources` names the decided buckets (and shards); the groups are of shards.
    run.each(collect_decisions, "shards", todo, step=step, sources=sources, every=every)


def fit(run: Run, planned: Planned, every: list[Shard], common: dict[str, Any]) -> None:
    """Fit the method on summaries of all shards, if it wants to know of all rows."""
    if hasattr(planned.method, "fit"):
        run.each(summarise_shards, "shards", every, view=planned.view, **common)
        run.once(fit_select, shards=every, **common)
    else:
        states.save(planned.step.file("state.npz"), {})


def decide_in_buckets(run: Run, planned: Planned, every: list[Shard], common: dict[str, Any]) -> list[str]:
    """Let rows meet in the buckets that the method names, and decide there; returns the buckets' names."""
    waiting = left(every, spilled(planned.step, "rows"))
    run.each(partition_shards, "shards", waiting, view=planned.view, **common)
    return decide_gathered(run, planned, every, common)


def decide_linked(run: Run, planned: Planned, every: list[Shard], common: dict[str, Any]) -> list[str]:
    """Let rows meet that have a key in common, directly or through others; returns the names of their buckets."""
    step, digests = planned.step, [shard.digest for shard in every]
    if not files.exists(step.file(f"spill/{linking.LINKS}")):
        buckets = max(1, -(-sum(shard.rows for shard in every) // linking.KEYED_ROWS))
        unkeyed = left(every, spilled(step, linking.KEYS))
        run.each(key_shards, "shards", unkeyed, view=planned.view, buckets=buckets, **common)
        known, linked = Gathering(step, linking.KEYS, digests).buckets(), linking.linked(step)
        unlinked = [bucket for bucket in known if str(bucket) not in linked]
        run.each(link_buckets, "buckets", unlinked, step=step, sources=digests)
        run.once(join_links, step=step, buckets=known)
    run.each(meet_shards, "shards", left(every, spilled(step, "rows")), view=planned.view, **common)
    return decide_gathered(run, planned, every, common)


def decide_gathered(run: Run, planned: Planned, every: list[Shard], common: dict[str, Any]) -> list[str]:
    """Decide bucket by bucket on the rows that were sent there; returns the buckets' names."""
    step, digests = planned.step, [shard.digest for shard in every]
    buckets = Gathering(step, "rows", digests).buckets()
    ready = targets.ranked(step) if targets.is_ranked(planned.method) else spilled(step, "decisions")
    undecided = [bucket for bucket in buckets if str(bucket) not in ready]
    run.each(decide_buckets, "buckets", undecided, HEAVY, sources=digests, **common)
    return [str(bucket) for bucket in buckets]


def settle(run: Run, step: Step, sources: list[str], common: dict[str, Any]) -> None:
    """Find the cut through ranked rows, and decide by it."""
    if not files.exists(step.file(targets.CUT_TOLD)):
        run.once(cut_ranks, sources=sources, **common)
    ready = spilled(step, "decisions")
    run.each(settle_sources, "sources", [source for source in sources if source not in ready], step=step)


def summed(planned: Planned, every: list[Shard]) -> dict[str, Any]:
    """Rows, kept rows, reasons, what the cut says, and warnings."""
    step, method = planned.step, planned.method
    facts = together.facts(step, [shard.digest for shard in every])
    reasons: dict[str, int] = {}
    for one in facts:
        for reason, rows in one["reasons"].items():
            reasons[reason] = reasons.get(reason, 0) + rows
    kept: dict[str, Any] = {"rows": sum(f["rows"] for f in facts), "kept": sum(f["kept"] for f in facts)}
    counted = counts(step)
    warnings = linking.warnings(counted) + (method.warnings(counted) if hasattr(method, "warnings") else [])
    if targets.is_ranked(method):
        kept["cut"] = files.read_json(step.file(targets.CUT_TOLD))
        warnings += targets.warnings(kept["cut"])
    return kept | {"reasons": reasons, "warnings": warnings}


def forecast_one(run: Run, planned: Planned, every: list[Shard]) -> dict[str, Any]:
    """Say what a fitted select is expected to keep: worked out once, before it decides. Returns the facts."""
    step = planned.step
    common = {"step": step, "config": planned.config, "seed": run.config.seed}
    if not files.exists(step.file(FORECAST)):
        run.each(forecast_shards, "shards", left(every, spilled(step, EXCHANGE)), view=planned.view, **common)
        run.once(sum_select, shards=every, **common)
    facts = dict(files.read_json(step.file(FORECAST)))
    run.log(f"{planned.label}: {facts['told']}")
    return facts
