"""A flow that trains on a mix: what `train_when_published.yaml` starts whenever one is published."""

from __future__ import annotations

from pathlib import PurePosixPath

from prefect import flow


@flow(name="train", flow_run_name="train-{mix}")
def train(mix: str, out: str = "demo/trained", steps: int = 0, every: int = 50) -> str:
    """Train CLIP on a mix; returns the file of the weights.

    Args:
        mix: The version folder of a mix: the `url` of the event `mixwright.mix.published`.
        out: Folder of trainings, one folder a version.
        steps: Batches; 0: all there are.
        every: Batches between checkpoints.
    """
    from examples.train_clip import train as train_clip

    folder = f"{out}/{PurePosixPath(mix).name}"
    train_clip(mix, folder, steps=steps, every=every)
    return f"{folder}/model.safetensors"
