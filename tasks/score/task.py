"""Score tasks: perhaps learn once from all shards, then score shard by shard."""

from __future__ import annotations

from typing import Any

from storage import files, states
from storage.shards import Shard
from storage.states import Checkpoint
from storage.steps import Step
from storage.view import View
from tasks import load, score
from tasks.embed.device import device_slot
from tasks.groups import annotate_shard, each, say, stage_task, tell
from tasks.summaries import Summaries, write_summary


@stage_task(name="summarise", task_run_name="score {step.kind}: summarise {label}")
def summarise_scored(step: Step, view: View, config: Any, shards: list[Shard], label: str) -> dict[str, Any]:
    """Write each shard's summary for the fit."""
    method = load(score.METHODS, config)
    return each(shards, lambda shard: write_summary(step, view, method, shard))


@stage_task(name="fit", task_run_name="score {step.kind}: learn")
def fit_score(step: Step, config: Any, shards: list[Shard]) -> None:
    """Learn from the summaries of all shards; where it broke off before, go on."""
    method, checkpoint = load(score.METHODS, config), step.file("checkpoint.npz")
    with device_slot(getattr(method, "device", "cpu"), say):
        states.save(step.file("state.npz"), method.fit(Summaries(step, shards), Checkpoint(checkpoint, tell)))
    files.remove(checkpoint)
    files.remove(step.file("spill"))


@stage_task(name="score", task_run_name="score {step.kind} {label}")
def score_shards(
    step: Step, view: View, config: Any, shards: list[Shard], label: str, state: str | None = None
) -> dict[str, Any]:
    """Score a group of shards; `state` is where what the scorer has learned is."""
    method = load(score.METHODS, config, **({"state": states.load(state)} if state else {}))
    if hasattr(method, "tell"):
        method.tell = tell
    with device_slot(getattr(method, "device", "cpu"), say):
        return each(shards, lambda shard: annotate_shard(step, view, method, shard))
