"""Exact duplicates: of all rows with one uid (the same image bytes and text) one is kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from storage.states import Checkpoint, State
from tasks.select import Decisions, best_first, bucket_count, keep_all

BUCKET_ROWS = 1 << 18


class ExactDuplicates:
    """Rows meet by uid, so a bucket holds whole groups and the result does not depend on the buckets."""

    def __init__(self, config: Any, *, seed: int) -> None:
        del seed  # nothing is drawn
        self._keep_by: str | None = config.keep_by
        self.needs: tuple[str, ...] = ("uid", *([config.keep_by] if config.keep_by else []))

    def summarise(self, rows: pa.Table) -> pa.Table:
        """The number of rows."""
        return pa.table({"rows": [rows.num_rows]})

    def fit(self, summaries: Iterable[pa.Table], checkpoint: Checkpoint) -> State:
        """The number of buckets."""
        return {"buckets": np.int64(bucket_count(summaries, BUCKET_ROWS))}

    def partition(self, rows: pa.Table, state: State) -> np.ndarray:
        """Bucket by the uid's first eight bytes: it is a digest, so buckets are even."""
        return (_words(rows)["high"] % np.uint64(state["buckets"])).astype(np.int64)

    def decide(self, rows: pa.Table, state: State) -> Decisions:
        """Keep the best row of each uid."""
        decisions = keep_all(rows.num_rows)
        order = best_first(rows, self._keep_by)
        _, first, group = np.unique(_words(rows)[order], return_index=True, return_inverse=True)
        decisions.keeper[order] = order[first][group]
        decisions.keep[:] = decisions.keeper == np.arange(rows.num_rows)
        decisions.keeper[decisions.keep] = -1
        decisions.reason[~decisions.keep] = "exact_duplicate"
        return decisions


def _words(rows: pa.Table) -> np.ndarray:
    """Uids as pairs of 64-bit words `(n,)`."""
    packed = rows.column("uid").combine_chunks()
    array = packed.chunk(0) if isinstance(packed, pa.ChunkedArray) else packed
    raw = np.frombuffer(array.buffers()[1], np.uint8) if len(array) else np.empty(0, np.uint8)
    raw = raw[16 * array.offset : 16 * (array.offset + len(array))]
    return np.ascontiguousarray(raw).view([("high", "<u8"), ("low", "<u8")])
