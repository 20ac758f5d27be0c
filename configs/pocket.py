"""The pocket model: where the shipped one rests, and how one is trained."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from configs.section import Section

FOLDER = Path(__file__).parent / "models" / "pocket"
"""An open_clip model folder: `open_clip_config.json`, `open_clip_model.safetensors`, and the card, `README.md`."""


class Pocket(Section):
    """Training of a pocket model."""

    operational: ClassVar[frozenset[str]] = frozenset({"architecture", "other_seeds", "checkpoint_every"})

    architecture: str = Field(
        str(FOLDER), description="Folder whose open_clip_config.json says what is built; it counts by its contents."
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Seed of the first weights, of batches and augmentation.")
    split_seed: int = Field(0, ge=0, le=2**32 - 1, description="Seed of the choice of held-out base emoji.")
    other_seeds: int = Field(
        0, ge=0, le=20, description="Further trainings, with the next seeds and splits, to see how far recall varies."
    )
    held_out: float = Field(0.1, gt=0, lt=1, description="Share of the base emoji held out, with all their variants.")
    dictionary_steps: int = Field(1000, ge=0, description="Batches of words and definitions before the first picture.")
    dictionary_weight: float = Field(0.3, ge=0, description="Weight of the dictionary's loss beside the pictures'.")
    steps: int = Field(2000, ge=1, description="Batches of pictures and captions.")
    batch_size: int = Field(128, ge=2, le=65536, description="Pairs in a batch.")
    learning_rate: float = Field(2e-3, gt=0, description="Peak: linear up to it, then a cosine down.")
    warmup: int = Field(40, ge=0, description="Steps up to the peak.")
    weight_decay: float = Field(0.1, ge=0, description="Of matrices and kernels; the token table has none.")
    balance: float = Field(
        0.5,
        ge=0,
        le=1,
        description="A base with n variants is drawn as often as n^(1 - balance) plain ones: 0 as they occur, 1 all "
        "bases alike.",
    )
    other_names: float = Field(0.5, ge=0, le=1, description="How often another name stands in for the caption.")
    threads: int = Field(1, ge=1, le=64, description="Threads of torch; another number gives other last bits.")
    checkpoint_every: int = Field(100, ge=1, description="Steps between two checkpoints.")
