"""Score task."""

from __future__ import annotations

from typing import Any

from storage.shards import Shard
from storage.steps import Step
from storage.view import View
from tasks import load, score
from tasks.groups import annotate_shard, each, stage_task


@stage_task(name="score", task_run_name="score {step.kind} {label}")
def score_shards(step: Step, view: View, config: Any, shards: list[Shard], label: str) -> dict[str, Any]:
    """Score a group of shards."""
    method = load(score.METHODS, config)
    return each(shards, lambda shard: annotate_shard(step, view, method, shard))
