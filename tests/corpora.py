"""Small real corpora, configurations over them, and what a run leaves behind."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3
from PIL import Image

from configs.curate import Curate
from configs.loading import merged, validate
from flows.pipeline import Mix, curate
from flows.runners import PlainRunner

WORDS = np.array([f"w{i:03d}" for i in range(200)])


def png(seed: int, side: int = 8) -> bytes:
    """A small real picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def rows(count: int, seed: int) -> dict[str, Any]:
    """Columns of a small real shard: pictures, Zipf captions, keys, sources, embeddings of two towers."""
    rng = np.random.default_rng(seed)
    words = np.minimum(rng.zipf(1.3, (count, 4)) - 1, len(WORDS) - 1)
    image = rng.standard_normal((count, 16)).astype(np.float32)
    text = image + rng.standard_normal((count, 16)).astype(np.float32)
    return {
        "image": [png(seed * 100_000 + i) for i in range(count)],
        "text": [" ".join(WORDS[row]) for row in words],
        "key": [f"k-{seed}-{i}" for i in range(count)],
        "source": [("web", "books", "art")[i] for i in rng.integers(0, 3, count)],
        "image_emb": list(image),
        "text_emb": list(text),
        "quality": rng.random(count),
    }


def write_corpus(folder: Path, shards: int = 7, count: int = 60) -> Path:
    """A corpus with duplicates of every kind and a few bad rows: `folder` with `shards` Parquet files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(shards):
        columns = rows(count, seed=number + 1)
        columns["image"][3], columns["text"][3] = columns["image"][4], columns["text"][4]  # exact duplicate
        columns["image_emb"][5] = columns["image_emb"][6]  # near duplicate
        columns["image"][7] = None
        columns["text"][8] = "  "
        pq.write_table(pa.table(columns), folder / f"{number:05d}.parquet", row_group_size=25)
    return folder


BASE: dict[str, Any] = {
    "name": "mix",
    "input": {"key": "key", "source": "source"},
    "embed": {"kind": "columns", "image": "image_emb", "text": "text_emb"},
    "annotate": {"kind": "captions", "min_count": 2, "max_words": 1},
    "score": [{"kind": "alignment"}],
    "select": [
        {"kind": "exact_duplicates"},
        {"kind": "near_duplicates", "threshold": 0.99, "bucket_rows": 64},
        {"kind": "threshold", "score": "alignment", "keep_fraction": 0.8},
    ],
    "sample": {"kind": "cabs_dm", "batch_size": 16, "filter_ratio": 0.5},
    "emit": {"part_bytes": 20_000},
}


def config(folder: Path, over: dict[str, Any] | None = None, where: str | None = None) -> Curate:
    """A configuration over the corpus in `folder/in`, with store and mixes beside it (or under the URL `where`)."""
    base = where or str(folder)
    places = {"store": f"{base}/store", "input": {"path": f"{base}/in"}, "emit": {"out": f"{base}/out"}}
    return validate(merged(merged(BASE, places), over or {}))


def run(settings: Curate, log: list[str] | None = None) -> Mix:
    """Run the pipeline without Prefect."""
    return curate(settings, PlainRunner(settings.runner.workers), (log if log is not None else []).append)


def digests(folder: Path, *parts: str) -> dict[str, str]:
    """Digest of every file below `folder/part`, for each of `parts`."""
    found = sorted(file for part in parts for file in (folder / part).rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): blake3(file.read_bytes()).hexdigest() for file in found}


def sidecars(store: Path) -> dict[str, str]:
    """Digests of what a run leaves in its store, commit points (which carry times) left out."""
    return {name: d for name, d in digests(store, "").items() if name.endswith((".parquet", ".npz"))}
