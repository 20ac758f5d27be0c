"""Mix tasks: count groups, plan proportions once, let every shard find its draws, put the draw list in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from storage import files
from storage.exchange import SHARD, Gathering, spill
from storage.shards import Shard
from storage.states import Checkpoint
from storage.steps import Step
from storage.view import View
from tasks import load, mix
from tasks.embed.device import device_slot
from tasks.groups import each, say, stage_task, tell
from tasks.mix.allotting import allot
from tasks.mix.budgets import Budget, draws_within
from tasks.mix.draws import DrawPlan, shard_draws
from tasks.mix.lists import (
    count_groups,
    plan_facts,
    read_plan,
    save_plan,
    shard_groups,
    summarise_groups,
    total_groups,
    write_part,
)
from tasks.summaries import Summaries


@stage_task(name="count", task_run_name="mix {step.kind}: count groups {label}")
def count_shards(
    step: Step, view: View, group: str | None, sizes: tuple[str, ...], shards: list[Shard], label: str
) -> dict[str, Any]:
    """Count each shard's surviving rows by group, and what the columns `sizes` of these rows sum up to."""
    return each(shards, lambda shard: count_groups(step, view, group, sizes, shard))


@stage_task(name="summarise", task_run_name="mix {step.kind}: summarise {label}")
def summarise_mixed(
    step: Step, view: View, config: Any, seed: int, group: str | None, shards: list[Shard], label: str
) -> dict[str, Any]:
    """Write what a learned mixing law needs to know of each shard."""
    method = load(mix.METHODS, config, seed=seed)
    return each(shards, lambda shard: summarise_groups(step, view, method, group, shard))


@stage_task(name="plan", task_run_name="mix {step.kind}: plan")
def plan_mix(step: Step, config: Any, seed: int, budget: Budget, shards: list[Shard]) -> dict[str, Any]:
    """Plan proportions and counts once; a plan that is there, from a run that broke off behind it, is kept."""
    if planned := plan_facts(step):
        return planned
    groups = total_groups(step, shards)
    names, rows = [group.name for group in groups], np.array([group.rows for group in groups], np.int64)
    total = int(rows.sum()) if budget.draws is None else budget.draws
    if not groups:
        return save_plan(step, names, DrawPlan(np.zeros((1, 0), np.int64), rows, seed), shards, {})
    method, checkpoint = load(mix.METHODS, config, seed=seed), Checkpoint(step.file("checkpoint.npz"), tell)
    if hasattr(method, "learn"):
        with device_slot(method.device, say):
            found = method.learn(groups, Summaries(step, shards), checkpoint)
    else:
        found = method.plan(groups, total, checkpoint)
    warnings: list[str] = []
    if budget.size is not None:
        total, warnings = draws_within(budget, found, groups, config.max_epochs)
    counts, told = allot(found, names, rows, total, config.max_epochs)
    told["warnings"] += warnings
    facts = save_plan(step, names, DrawPlan(counts, rows, seed), shards, told)
    files.remove(checkpoint.url)
    return facts


@stage_task(name="draw", task_run_name="mix {step.kind}: draw {label}")
def draw_shards(
    step: Step, view: View, group: str | None, part_rows: int, shards: list[Shard], label: str
) -> dict[str, Any]:
    """Find each shard's draws: kept by shard for the sampler, spilled by part for the draw list."""
    names, plan, offsets = read_plan(step)

    def work(shard: Shard) -> None:
        rows, groups = shard_groups(view, group, names, shard)
        draws = shard_draws(plan, rows, groups, offsets[shard.index])
        step.publish(shard.digest, draws, [], 0.0)
        place = pa.array(np.full(draws.num_rows, shard.index), pa.int32())
        spill(step, "draws", shard.digest, [(draws.append_column(SHARD, place), draws["draw"].to_numpy() // part_rows)])

    return each(shards, work)


@stage_task(name="order", task_run_name="mix {step.kind}: order draws {label}")
def order_draws(step: Step, every: list[Shard], parts: list[int], label: str) -> dict[str, Any]:
    """Write parts of the draw list, in order."""
    spilled = Gathering(step, "draws", [shard.digest for shard in every])
    return each(parts, lambda part: write_part(step, part, spilled.gather(part), every))
