"""What a training leaves: a model folder that open_clip loads, measured as it is used, with its card."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from configs.methods.embed import OpenClip
from configs.pocket import Pocket
from storage import files
from storage.fingerprints import digest, fingerprint, source_digest, versions
from tasks.embed.open_clip import OpenClipEmbedder
from tasks.embed.vectors import unpack
from tasks.train.bases import plainest
from tasks.train.card import card
from tasks.train.pocket import CONFIG, Tell, Trained, train
from tasks.train.recall import recall

WEIGHTS, CARD = "open_clip_model.safetensors", "README.md"
LIBRARIES = ("torch", "open_clip_torch", "timm", "pillow", "torchvision", "numpy")


class Workshop(NamedTuple):
    """What a training works on and where."""

    corpus: pa.Table
    """Columns `image, text, key, source`."""
    other_names: Mapping[str, list[str]]
    """Key -> further names of a picture."""
    work: str
    """Folder of checkpoints and models, by fingerprint."""
    tell: Tell
    """Takes lines for the log."""


def make(config: Pocket, shop: Workshop, out: str, command: str) -> dict[str, Any]:
    """Train, or find trained, the model that `config` describes and publish it with its card in the folder `out`.

    Args:
        config: How.
        shop: What it is trained on, and where.
        out: Receives the config, the weights and, written last, the card.
        command: What a reader types to do the same.

    Returns:
        What the card tells.
    """
    trained, folder = _trained(config, shop)
    facts: dict[str, Any] = {"recall": measure(folder, trained, shop.corpus), "replicas": []}
    for more in range(1, config.other_seeds + 1):
        seeds = {"seed": config.seed + more, "split_seed": config.split_seed + more}
        other, beside = _trained(config.model_copy(update=seeds), shop)
        facts["replicas"].append(measure(beside, other, shop.corpus)["held_out"])
    for name in (CONFIG, WEIGHTS):
        files.write_bytes(files.join(out, name), files.read_bytes(files.join(folder, name)))
    facts |= {
        "parameters": sum(p.numel() for p in trained.model.parameters()),
        "bytes": files.size(files.join(out, WEIGHTS)),
        "rows": len(trained.held),
        "rows_trained": int((~trained.held).sum()),
        "cpu_minutes": trained.cpu_seconds / 60,
        "unread": unread(shop, trained),
    }
    architecture = json.loads(files.read_bytes(files.join(folder, CONFIG)))["model_cfg"]
    files.write_bytes(files.join(out, CARD), card(config, architecture, facts, command).encode())
    return facts


def _trained(config: Pocket, shop: Workshop) -> tuple[Trained, str]:
    """The trained model and the folder that it is in."""
    parts = {
        "config": config.output_fields(),
        "architecture": digest((Path(config.architecture) / CONFIG).read_bytes()),
        "images": digest(b"".join(row["bytes"] for row in shop.corpus["image"].to_pylist())),
        "names": [shop.corpus[name].to_pylist() for name in ("text", "key", "source")],
        "other_names": dict(shop.other_names),
        "libraries": versions(LIBRARIES),
        "source": source_digest("tasks.train.pocket"),
    }
    folder = files.join(files.absolute(shop.work), fingerprint(parts))
    trained = train(config, shop.corpus, shop.other_names, files.join(folder, "checkpoint.safetensors"), shop.tell)
    write_model(trained, config.architecture, files.join(folder, "model"))
    return trained, files.join(folder, "model")


def unread(shop: Workshop, trained: Trained) -> float:
    """Share of the held-out base emoji whose caption has a word that no name of a training picture has."""
    texts = shop.corpus["text"].to_pylist()
    read: set[str] = set()
    for row in np.flatnonzero(~trained.held):
        read.update(words(" ".join([texts[row], *shop.other_names.get(trained.keys[row], ())])))
    held = plainest(trained.keys, trained.bases, trained.held)
    return float(np.mean([not words(texts[row]) <= read for row in held]))


def words(text: str) -> set[str]:
    """The words of a text, in lower case."""
    return set(re.findall(r"[^\W_]+", text.lower()))


def write_model(trained: Trained, architecture: str, folder: str) -> None:
    """Publish the weights, in half precision, and the config in `folder`."""
    import torch
    from safetensors.torch import save

    state = {name: tensor.contiguous() for name, tensor in trained.model.state_dict().items()}
    halves = {name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in state.items()}
    files.write_bytes(files.join(folder, WEIGHTS), save(halves, metadata={"format": "pt"}))
    files.write_bytes(files.join(folder, CONFIG), (Path(architecture) / CONFIG).read_bytes())


def measure(folder: str, trained: Trained, corpus: pa.Table) -> dict[str, dict[str, float]]:
    """Recall of the model in `folder` among the plainest pictures of bases: `held_out` and, as many, `trained_on`.

    The embeddings are those that a curation run gets. `trained_on` is every so-manieth base of the training rows.
    """
    held = plainest(trained.keys, trained.bases, trained.held)
    seen = plainest(trained.keys, trained.bases, ~trained.held)
    seen = seen[np.arange(len(held)) * len(seen) // len(held)] if len(seen) > len(held) else seen
    embedder = OpenClipEmbedder(OpenClip(model=f"local-dir:{folder}", device="cpu", batch_size=64))
    return {name: _figures(embedder, corpus.take(rows)) for name, rows in (("held_out", held), ("trained_on", seen))}


def _figures(embedder: OpenClipEmbedder, rows: pa.Table) -> dict[str, float]:
    table = pa.table({"image": pa.array([row["bytes"] for row in rows["image"].to_pylist()]), "text": rows["text"]})
    made = embedder.run(table).table
    image, text = (unpack(made[name]).astype(np.float32) for name in ("image_embedding", "text_embedding"))
    pairs = float((image * text).sum(axis=1).mean())
    strangers = (float((image @ text.T).sum()) - pairs * len(image)) / max(1, len(image) * (len(image) - 1))
    return {"pictures": len(image), **recall(image, text), "cosine_of_pairs": pairs, "cosine_of_strangers": strangers}
