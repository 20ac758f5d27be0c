"""A million synthetic pairs as real Parquet, written fast: cheap embeddings, Zipf captions, sparse pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

VOCABULARY = pa.array([f"concept{i:05d}" for i in range(12_253)])
DIM = 32


def write_synthetic(folder: Path, shards: int, rows: int, image_bytes: int) -> Path:
    """`shards` files of `rows` rows with pictures of about `image_bytes` bytes (mostly zeros: they compress on disk).

    One row in twenty is an exact copy of the row before it, one in twenty has nearly its embedding.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(shards):
        rng = np.random.default_rng(number)
        table = pa.table(
            {
                "image": pictures(rng, number * rows, rows, image_bytes),
                "text": captions(rng, rows),
                "source": pa.array(["web", "books", "art"]).take(pa.array(rng.integers(0, 3, rows))),
                "emb": embeddings(rng, rows),
            }
        )
        copies = np.arange(rows)
        copies[20::20] -= 1
        pq.write_table(table.take(pa.array(copies)), folder / f"{number:05d}.parquet", row_group_size=2000)
    return folder


def pictures(rng: np.random.Generator, first: int, rows: int, size: int) -> pa.Array:
    """Binary `(rows,)`: a distinct head, then zeros; sizes vary by half."""
    sizes = rng.integers(size // 2, size + size // 2, rows)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    data = np.zeros(offsets[-1], np.uint8)
    head = (first + np.arange(rows)).astype("<u8").view(np.uint8).reshape(rows, 8)
    data[(offsets[:-1, None] + np.arange(8)).ravel()] = head.ravel()
    whole = pa.LargeBinaryArray.from_buffers(pa.large_binary(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(data)])
    return whole.cast(pa.binary()) if offsets[-1] < 1 << 31 else whole


def captions(rng: np.random.Generator, rows: int) -> pa.Array:
    """Five words each from a Zipf vocabulary."""
    rank = 1 / np.arange(1, len(VOCABULARY) + 1)
    words = rng.choice(len(VOCABULARY), (5, rows), p=rank / rank.sum())
    return pc.binary_join_element_wise(*(VOCABULARY.take(pa.array(row)) for row in words), " ")


def embeddings(rng: np.random.Generator, rows: int) -> pa.Array:
    """Fixed-size lists of float32; every twentieth is nearly the one before it."""
    vectors = rng.standard_normal((rows, DIM)).astype(np.float32)
    vectors[10::20] = vectors[9::20][: len(vectors[10::20])] + 0.01
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM)


def settings(folder: Path, workers: int = 2) -> dict:
    """A run through every stage over `folder/in`."""
    return {
        "name": "scale",
        "store": f"{folder}/store",
        "input": {"path": f"{folder}/in", "source": "source", "exclude": ["emb"]},
        "embed": {"kind": "columns", "image": "emb", "text": "emb"},
        "annotate": {"kind": "captions", "vocabulary": f"{folder}/vocabulary.txt"},
        "score": [{"kind": "alignment"}],
        "select": [
            {"kind": "exact_duplicates"},
            {"kind": "near_duplicates", "threshold": 0.98, "keep_by": None},
            {"kind": "threshold", "score": "alignment", "keep_fraction": 0.99},
        ],
        "sample": {"kind": "cabs_dm", "batch_size": 4096, "filter_ratio": 0.2},
        "emit": {"out": f"{folder}/out"},
        "runner": {"workers": workers},
    }
