"""Small mixes whose row groups and parts cut through the batches."""

from __future__ import annotations

import io
import json

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

COLUMNS = ["mix_draw", "text"]


def png(value: int) -> bytes:
    """A red picture."""
    out = io.BytesIO()
    Image.new("RGBA", (4, 3), (value, 0, 0, 255)).save(out, "PNG")
    return out.getvalue()


def rows(steps: int, per_rank: int, ranks: int, seed: int = 0) -> pa.Table:
    """A mix in batch order; the rows of a rank's batch vary around `per_rank`, as CABS without filling gives."""
    rng = np.random.default_rng(seed)
    step, rank, slot = [], [], []
    for s in range(steps):
        for k in range(ranks):
            for j in range(int(rng.integers(1, 2 * per_rank))):
                step.append(s), rank.append(k), slot.append(j)
    n = len(step)
    images = [None if i == 1 else {"bytes": png(i % 256), "path": f"{i}.png"} for i in range(n)]
    return pa.table(
        {
            "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "text": [f"row {i}" for i in range(n)],
            "tags": [["a"] * (i % 3) for i in range(n)],
            "count": pa.array([None if i == 0 else i for i in range(n)], pa.int32()),
            "score": pa.array([None if i == 0 else i / 2 for i in range(n)], pa.float32()),
            "mix_step": pa.array(step, pa.int64()),
            "mix_rank": pa.array(rank, pa.int32()),
            "mix_slot": pa.array(slot, pa.int32()),
            "mix_draw": pa.array(range(n), pa.int64()),
            "mix_weight": pa.array(np.ones(n), pa.float32()),
            "mix_file": ["web/0.parquet"] * n,
            "mix_row": pa.array(range(100, 100 + n), pa.int64()),
            "mix_uid": [f"{i:032x}" for i in range(n)],
        }
    )


def spoil(texts: list[str], row: int) -> pa.Array:
    """The texts, with one that is not UTF-8 in a row."""
    data = pa.array([b"\xff\xfe" if i == row else text.encode() for i, text in enumerate(texts)], pa.binary())
    return pa.Array.from_buffers(pa.string(), len(data), data.buffers())


def build(url, steps=7, ranks=2, *, part_rows=23, group_rows=5, statistics=True) -> pa.Table:
    """Write a mix; its rows."""
    return write(url, rows(steps, 4, ranks), steps, ranks, part_rows, group_rows, statistics)


def write(url, table, steps, ranks, part_rows=23, group_rows=5, statistics=True) -> pa.Table:
    """Write a table in batch order as a mix."""
    fs, path = fsspec.core.url_to_fs(str(url))
    fs.makedirs(f"{path}/data", exist_ok=True)
    for part, begin in enumerate(range(0, len(table), part_rows)):
        with fs.open(f"{path}/data/part-{part:05d}.parquet", "wb") as out:
            pq.write_table(table.slice(begin, part_rows), out, row_group_size=group_rows, write_statistics=statistics)
    manifest = {
        "batches": {"steps": steps, "batch_size": 4 * ranks, "world_size": ranks},
        "columns": {"image": "image", "text": "text"},
    }
    fs.pipe_file(f"{path}/mix.json", json.dumps(manifest).encode())
    return table


def units(table: pa.Table, ranks: int) -> list[list[int]]:
    """Brute force: the draws of each (step, rank), in order."""
    found: dict[int, list[int]] = {}
    for row in table.select(["mix_step", "mix_rank", "mix_draw"]).to_pylist():
        found.setdefault(row["mix_step"] * ranks + row["mix_rank"], []).append(row["mix_draw"])
    return [found[unit] for unit in sorted(found)]


def draws(batches) -> list[list[int]]:
    """The draws of each batch."""
    return [batch["mix_draw"].tolist() for batch in batches]
