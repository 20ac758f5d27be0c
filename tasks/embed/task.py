"""Embed task."""

from __future__ import annotations

from typing import Any

from storage.shards import Shard
from storage.steps import Step
from storage.view import View
from tasks import embed, load
from tasks.embed.device import device_slot, resolve_device
from tasks.groups import annotate_shard, each, say, stage_task


@stage_task(name="embed", task_run_name="embed {step.kind} {label}")
def embed_shards(step: Step, view: View, config: Any, shards: list[Shard], label: str) -> dict[str, Any]:
    """Embed a group of shards, as the one owner of the device."""
    columns = tuple(name for name in ("image", "text") if name in view.inputs)
    with device_slot(resolve_device(getattr(config, "device", "cpu")), say):
        method = load(embed.METHODS, config, columns=columns)
        return each(shards, lambda shard: annotate_shard(step, view, method, shard))
