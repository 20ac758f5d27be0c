"""Train task."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from prefect import get_run_logger

from configs.pocket import Pocket
from storage import files
from tasks.groups import stage_task


@stage_task(name="train", task_run_name="train pocket")
def train_pocket(
    config: Pocket, shards: list[str], other_names: dict[str, list[str]], places: dict[str, str], command: str
) -> dict[str, Any]:
    """Train the model and publish it in `places["out"]`; checkpoints go to `places["work"]`."""
    from tasks.train.publish import Workshop, make

    corpus = pa.concat_tables(files.read_table(shard) for shard in shards).combine_chunks()
    shop = Workshop(corpus, other_names, places["work"], get_run_logger().info)
    return make(config, shop, places["out"], command)
