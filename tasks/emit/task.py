"""Emit tasks: locate rows, measure and lay out parts, scatter shards, write parts, account for every row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from storage.exchange import Gathering
from storage.shards import Shard
from storage.states import load as load_state
from storage.states import save as save_state
from storage.steps import Step
from storage.view import View
from tasks.emit.accounts import Sources, account
from tasks.emit.layout import Block, Layout, locate, locate_values, measure, part_starts, rows_of_shard
from tasks.emit.rows import scatter, write_part
from tasks.groups import each, stage_task


@stage_task(name="locate", task_run_name="emit: locate {label}")
def locate_rows(
    step: Step, plan: Step, parts: list[tuple[str, int]], block_of: list[int], label: str
) -> dict[str, Any]:
    """Give planned rows their positions; `parts` are names of the batch plan with their first position."""
    blocks = np.array(block_of, np.int64)
    return each(parts, lambda part: locate(step, plan, part[0], part[1], blocks))


@stage_task(name="locate values", task_run_name="emit: locate values of {label}")
def locate_passed_over(step: Step, plan: Step, parts: list[str], block_of: list[int], label: str) -> dict[str, Any]:
    """Send what a sampler went by to the ledger's blocks; `parts` are names of its values beside the batch plan."""
    blocks = np.array(block_of, np.int64)
    return each(parts, lambda part: locate_values(step, plan, part, blocks))


@stage_task(name="measure", task_run_name="emit: measure {label}")
def measure_blocks(
    step: Step, view: View, layout: Layout, parts: list[str], blocks: list[Block], label: str
) -> dict[str, Any]:
    """Add up the bytes that blocks of files give to the mix."""
    plan = Gathering(step, "plan", parts)
    return each(blocks, lambda block: measure(step, view, block, plan.gather(block[0]), layout))


@stage_task(name="lay out", task_run_name="emit: lay out parts")
def lay_out(step: Step, layout: Layout, block_count: int, rows: int) -> dict[str, Any]:
    """Decide where each part begins."""
    starts = part_starts(step, block_count, rows, layout)
    save_state(step.file("starts.npz"), {"starts": starts})
    return {"parts": len(starts)}


@stage_task(name="scatter", task_run_name="emit: read {label}")
def scatter_shards(
    step: Step, view: View, layout: Layout, parts: list[str], shards: list[tuple[int, Shard]], label: str
) -> dict[str, Any]:
    """First pass: send the used rows of shards (each with its block) to their parts."""
    plan, starts = Gathering(step, "plan", parts), load_state(step.file("starts.npz"))["starts"]

    gathered: dict[int, pa.Table | None] = {}

    def work(item: tuple[int, Shard]) -> None:
        block, shard = item
        if block not in gathered:  # shards come in order: one block at a time
            gathered.clear()
            gathered[block] = plan.gather(block)
        scatter(step, view, shard, rows_of_shard(gathered[block], shard), layout, starts)

    return each(shards, work)


@stage_task(name="write", task_run_name="emit: write {label}")
def write_parts(step: Step, layout: Layout, every: list[Shard], parts: list[int], label: str) -> dict[str, Any]:
    """Second pass: order and write parts."""
    rows = Gathering(step, "rows", [shard.digest for shard in every])
    return each(parts, lambda part: write_part(step, part, rows.gather(part), layout))


@stage_task(name="account", task_run_name="emit: account for {label}")
def account_blocks(
    step: Step, layout: Layout, sources: Sources, parts: list[str], valued: list[str], blocks: list[Block], label: str
) -> dict[str, Any]:
    """Write the ledger of blocks of files; `valued` names the parts of the sampler's values."""
    plan, values = Gathering(step, "plan", parts), Gathering(step, "values", valued)

    def work(block: Block) -> None:
        account(step, layout, sources, block, plan.gather(block[0]), values.gather(block[0]))

    return each(blocks, work)
