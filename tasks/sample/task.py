"""Sample tasks: bring to each draw the columns that the sampler needs, then pick batches superbatch by superbatch."""

from __future__ import annotations

from typing import Any

from storage.exchange import Gathering
from storage.shards import Shard
from storage.states import load as load_state
from storage.states import save as save_state
from storage.steps import Step
from storage.view import View
from tasks import load, sample
from tasks.groups import each, stage_task
from tasks.sample.plans import attach, pick_part


@stage_task(name="attach", task_run_name="sample {step.kind}: attach {label}")
def attach_shards(
    step: Step, mix: Step, view: View, config: Any, part_rows: int, shards: list[Shard], label: str
) -> dict[str, Any]:
    """Send each shard's draws, with the needed columns, to the parts of the batch plan."""
    needs = load(sample.METHODS, config, seed=0).needs
    return each(shards, lambda shard: attach(step, mix, view, needs, part_rows, shard))


@stage_task(name="pick", task_run_name="sample {step.kind}: pick {label}")
def pick_parts(
    step: Step, config: Any, seed: int, part_rows: int, every: list[Shard], parts: list[int], label: str
) -> dict[str, Any]:
    """Pick the batches of some parts, each on its own."""
    method = load(sample.METHODS, config, seed=seed)
    draws = Gathering(step, "draws", [shard.digest for shard in every])
    return each(parts, lambda part: pick_part(step, method, config, part_rows, part, draws.gather(part), every))


@stage_task(name="pick", task_run_name="sample {step.kind}: pick in order, part {part}")
def pick_in_order(step: Step, config: Any, seed: int, part_rows: int, every: list[Shard], part: int) -> dict[str, Any]:
    """Pick the batches of one part from the sampler's state behind the part before it."""
    method = load(sample.METHODS, config, seed=seed)
    if part:
        method.load_state_dict(load_state(step.file(f"state-{part - 1:05d}.npz")))
    draws = Gathering(step, "draws", [shard.digest for shard in every])
    pick_part(step, method, config, part_rows, part, draws.gather(part), every)
    save_state(step.file(f"state-{part:05d}.npz"), method.state_dict())
    return {"items": 1}
