"""The pocket model: built from its folder's config, trained with checkpoints."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from configs.pocket import Pocket
from storage import files
from tasks.train.bases import hold_out
from tasks.train.dictionary import entries
from tasks.train.pairs import read_pairs
from tasks.train.training import Training

CONFIG = "open_clip_config.json"
TOLD_EVERY = 50
"""Steps between two lines of the log."""

Tell = Callable[[str], None]


class Trained(NamedTuple):
    """A model and what it was trained on."""

    model: Any
    keys: list[str]
    bases: list[str]
    held: np.ndarray
    """Which rows of the corpus were held out, bool `(n,)`."""
    cpu_seconds: float
    """Process time of all parts of the training."""


def build(folder: str | Path, seed: int) -> tuple[Any, list[Any], Any]:
    """The model that a folder's open_clip_config.json describes, with weights drawn from `seed`.

    Returns:
        The model; the steps that make a Pillow picture one of its size; its tokenizer.
    """
    import open_clip
    import torch
    from open_clip.model import set_model_preprocess_cfg
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = open_clip.CLIP(**config["model_cfg"])
    set_model_preprocess_cfg(model, {**config["preprocess_cfg"], "size": model.visual.image_size})
    transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False).transforms
    return model, transform[:-2], open_clip.SimpleTokenizer(context_length=model.context_length)


def train(
    config: Pocket, corpus: pa.Table, other_names: Mapping[str, list[str]], checkpoint: str, tell: Tell
) -> Trained:
    """Train on what is not held out; where `checkpoint` exists, go on from it.

    Args:
        config: How.
        corpus: As `read_pairs` takes it.
        other_names: Key -> further names of a picture.
        checkpoint: File of the state between steps, for runs to come.
        tell: Takes lines for the log.
    """
    from safetensors.torch import load

    started = time.process_time()
    with threads(config.threads):
        model, transform, tokenize = build(config.architecture, config.seed)
        pairs = read_pairs(corpus, transform, other_names)
        held = hold_out(pairs.bases, config.held_out, config.split_seed)
        training = Training(config, model, tokenize, pairs.take(np.flatnonzero(~held)), entries())
        spent = 0.0
        if files.exists(checkpoint):
            tensors = load(files.read_bytes(checkpoint))
            spent = float(tensors.pop("cpu_seconds"))
            training.restore(tensors)
            tell(f"going on after step {training.done} of {training.steps}")
        spent = _go_on(training, spent, started, checkpoint, tell)
    return Trained(model.eval(), pairs.keys, pairs.bases, held, spent)


def _go_on(training: Training, before: float, started: float, checkpoint: str, tell: Tell) -> float:
    """Do the steps that are left and return the CPU seconds of all parts.

    Args:
        training: Perhaps begun.
        before: CPU seconds of its earlier parts.
        started: Process time at which this part began.
        checkpoint: See `train`.
        tell: See `train`.
    """
    import torch
    from safetensors.torch import save

    losses: list[float] = []
    seconds = before
    while training.done < training.steps:
        losses.append(training.advance())
        seconds, last = before + time.process_time() - started, training.done == training.steps
        if last or training.done % TOLD_EVERY == 0:
            tell(f"step {training.done} of {training.steps}: loss {np.mean(losses):.3f}, {seconds:.0f} s of CPU")
            losses.clear()
        if last or training.done % training.config.checkpoint_every == 0:
            spent = torch.tensor(seconds, dtype=torch.float64)
            files.write_bytes(checkpoint, save({**training.tensors(), "cpu_seconds": spent}))
    return seconds


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch compute with `count` threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
