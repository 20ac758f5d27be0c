"""Where an export's shards begin and end, from the footers of the mix alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from configs.errors import MixError
from storage import files, manifests, objects
from tasks.export.rows import Source

FOOTERS = 16
"""Footers read at the same time."""


class Extent(NamedTuple):
    """A mix and how its bytes lie over its rows."""

    source: Source
    at: np.ndarray
    """First row of every row group and, last, the rows of the mix: int64 (G + 1,)."""
    size: np.ndarray
    """Bytes of the mix before each of these rows: int64 (G + 1,)."""


def survey(url: str) -> Extent:
    """The mix at `url`, whose footers are read, no rows.

    Raises:
        MixError: It is no mix, or its parts do not have the rows that its manifest counts.
    """
    folder = manifests.resolve(url)
    manifest = manifests.read(folder)
    names = manifests.in_batch_order(name for name in manifest["files"] if name.startswith("data/part-"))

    def groups(name: str) -> list[tuple[int, int]]:
        with files.reading(files.join(folder, name)) as file:
            footer = pq.read_metadata(file)
        found = (footer.row_group(i) for i in range(footer.num_row_groups))
        return [(group.num_rows, group.total_byte_size) for group in found]

    with objects.threads(FOOTERS) as pool:
        parts = list(pool.map(groups, names))
    counted = np.array([group for part in parts for group in part], np.int64).reshape(-1, 2)
    before = np.concatenate([np.zeros((1, 2), np.int64), counted.cumsum(0)])
    firsts = np.concatenate([[0], np.cumsum([sum(rows for rows, _ in part) for part in parts])]).astype(np.int64)
    rows = int(before[-1, 0])
    if rows != manifest["counts"]["emitted"] or not rows:
        raise MixError(f"{folder} has {rows} rows in data/; its mix.json counts {manifest['counts']['emitted']}")
    columns: dict[str, Any] = manifest["columns"]
    located = tuple(zip(names, firsts[:-1].tolist(), strict=True))
    return Extent(Source(folder, located, rows, columns.get("image"), columns.get("text")), before[:, 0], before[:, 1])


def cuts(extent: Extent, shards: int | None, shard_bytes: int, row_bytes: int) -> list[tuple[int, int]]:
    """First row and the row after the last of every shard; their numbers of rows differ by one at most.

    Args:
        extent: The mix.
        shards: So many shards; null: the fewest whose estimated size is at most `shard_bytes`.
        shard_bytes: See `shards`; a single row may be larger.
        row_bytes: About what a row takes beside its content.
    """
    rows = extent.source.rows
    count = min(shards, rows) if shards else 1
    while True:
        edges = np.arange(count + 1) * rows // count
        largest = np.diff(np.interp(edges, extent.at, extent.size + extent.at * row_bytes)).max()
        if shards or largest <= shard_bytes or count == rows:
            return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
        count = min(rows, max(count + 1, int(count * min(largest / shard_bytes, 1e6))))
