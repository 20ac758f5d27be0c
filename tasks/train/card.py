"""The card of a pocket model: what it is, how it was made, what it can and cannot do."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import yaml

from configs.pocket import Pocket

RECALLS = ("image_to_text@1", "image_to_text@5", "text_to_image@1", "text_to_image@5")

CARD = """---
{front}---
# Pocket: a two-tower model that knows emoji

An open_clip model small enough to lie in the repository: {parameters:,} parameters, {bytes:,} bytes in half
precision. It makes the demo, the tests and first steps work with embeddings that mean something, without a download.
For real data name a real model (`embed.model`, `embed.pretrained`).

```yaml
embed: {{kind: open_clip, model: pocket}}
```

## Recipe

- Picture tower: a ResNet with attention pooling, 64 x 64 pixels. Text tower: a transformer of width 64 over CLIP's
  tokens, {context} of them; the token table is more than half of the model. Embeddings of {dim} numbers.
- Weights from seed {seed}, no others' weights. {dictionary_steps:,} batches of {batch_size} words and definitions
  for the text tower alone (WordNet's nouns beside ImageNet-21k, from timm), then {steps:,} batches of pictures and
  captions for both, the dictionary going on beside them with weight {dictionary_weight}. CLIP's loss (arXiv
  2103.00020), AdamW, peak rate {learning_rate}, cosine schedule, float32.
- Pictures are moved, turned, scaled, mirrored where no side matters, recoloured, and lose a rectangle. Captions give
  way to another name of the emoji, lose a word, get the name of the emoji's group.
- Data: {rows:,} pictures of OpenMoji (CC BY-SA 4.0, openmoji.org) with their Unicode names, of which {rows_trained:,}
  were trained on. All variants (skin tone, hair, gender, direction) of {held_out:.0%} of the base emoji were held out
  (split seed {split_seed}).
- {cpu_minutes:.1f} CPU minutes on {machine}, torch computing with {workers}. Same seed, machine and
  library versions give the same bytes.

```sh
{command}
```

## Recall

The plainest picture of each base emoji; a hit: its caption (its picture) is among the k most alike of all {pictures}.
Measured on this file as a curation run uses it. Sizes, rates and augmentation had been chosen on another split.

| among {pictures} base emoji | image to text @1 | @5 | text to image @1 | @5 | cosine of pairs | of strangers |
|---|---|---|---|---|---|---|
| **held out** | {held_row} |
| trained on | {trained_row} |
| chance | {chance_row} |
{replicas}
{unread:.0%} of the held-out captions have a word that is in no name trained on: those are found by what the dictionary
says of it, by the rest of the caption, or not at all. Names that share their words with others (faces, moons, clocks,
signs) are found best, animals worst.

## Limits

- It knows emoji on white. Of photographs it tells colours and rough shapes.
- Texts beyond emoji names mean little to it; past {context} tokens they are cut off. English only.
- In the demo it embeds pictures that it was trained on: alignments there are those of a student who has seen the exam.
- Pictures of people follow Unicode: gender and skin tone are drawn details, no statement about anybody.

## Licence

Weights, code and config: Apache 2.0. Trained on pictures by the OpenMoji project (CC BY-SA 4.0), names from Unicode
CLDR by way of the `emoji` package, words and definitions from WordNet (Princeton University).
"""


def card(config: Pocket, architecture: dict[str, Any], facts: dict[str, Any], command: str) -> str:
    """The README.md of a model folder.

    Args:
        config: How it was trained.
        architecture: `model_cfg` of its open_clip_config.json.
        facts: `parameters, bytes, rows, rows_trained, cpu_minutes, recall` (of `measure`), `replicas` (a list of the
            held-out figures of trainings with other seeds and splits), `unread` (share of held-out captions).
        command: What made it.
    """
    held, seen = facts["recall"]["held_out"], facts["recall"]["trained_on"]
    pictures = held["pictures"]
    front = {"license": "apache-2.0", "library_name": "open_clip", "base_emoji": pictures, "recall": facts["recall"]}
    return CARD.format(
        **config.model_dump(),
        **{name: facts[name] for name in ("parameters", "bytes", "rows", "rows_trained", "cpu_minutes", "unread")},
        front=yaml.safe_dump(front, sort_keys=False),
        context=architecture["text_cfg"]["context_length"],
        dim=architecture["embed_dim"],
        machine=machine(),
        workers="1 thread" if config.threads == 1 else f"{config.threads} threads",
        command=command,
        pictures=pictures,
        held_row=_row(held),
        trained_row=_row(seen),
        chance_row=f"{1 / pictures:.3f} | {5 / pictures:.3f} | {1 / pictures:.3f} | {5 / pictures:.3f} | |",
        replicas=_replicas(facts["replicas"], held),
    )


def machine() -> str:
    """The processor as the system names it, and its cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()} ({os.cpu_count()} cores)"


def _row(figures: dict[str, float]) -> str:
    cosines = (f"{figures[name]:.2f}" for name in ("cosine_of_pairs", "cosine_of_strangers"))
    return " | ".join([*(f"{figures[name]:.3f}" for name in RECALLS), *cosines])


def _replicas(others: list[dict[str, float]], held: dict[str, float]) -> str:
    """What trainings with other seeds and other splits found, in one sentence; nothing where there were none."""
    if not others:
        return ""
    spans = ", ".join(
        f"{name} {min(runs):.3f} to {max(runs):.3f}"
        for name, runs in ((name, [held[name], *(other[name] for other in others)]) for name in RECALLS)
    )
    return f"\nWith {len(others)} further seeds and splits, {len(others) + 1} trainings in all, held out: {spans}.\n"
