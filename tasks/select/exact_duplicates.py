"""Exact duplicates: of all rows with one digest (of image bytes and text, of either alone) one is kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from storage.packed import unpack
from storage.states import Checkpoint, State
from tasks.select import Decisions, badness, best_first, bucket_count, keep_all, keeper_needs

BUCKET_ROWS = 1 << 18
COLUMNS = {"pair": "uid", "image": "image_digest", "text": "text_digest"}


class ExactDuplicates:
    """Rows meet by digest, so a bucket holds whole groups and the result does not depend on the buckets.

    With a target, a row's rank is its place in its group: all second copies stay longer than any third.
    """

    def __init__(self, config: Any, *, seed: int) -> None:
        del seed  # nothing is drawn
        self._column = COLUMNS[config.of]
        self._keep_by = config.keep_by
        self.ranked = config.target is not None
        self.needs: tuple[str, ...] = tuple(dict.fromkeys([self._column, *keeper_needs(config.keep_by)]))

    def summarise(self, rows: pa.Table) -> pa.Table:
        """The number of rows."""
        return pa.table({"rows": [rows.num_rows]})

    def fit(self, summaries: Iterable[pa.Table], checkpoint: Checkpoint) -> State:
        """The number of buckets."""
        return {"buckets": np.int64(bucket_count(summaries, BUCKET_ROWS))}

    def partition(self, rows: pa.Table, state: State) -> np.ndarray:
        """Bucket by the digest's first eight bytes: it is a digest, so buckets are even."""
        return (words(rows[self._column])["high"] % np.uint64(state["buckets"])).astype(np.int64)

    def decide(self, rows: pa.Table, state: State) -> Decisions:
        """Keep the best row of each digest; a row without digest is alone."""
        n = rows.num_rows
        decisions = keep_all(n)
        order = best_first(rows, self._keep_by)
        digest = words(rows[self._column])[order]
        _, first, group = np.unique(digest, return_index=True, return_inverse=True)
        nothing = ~rows[self._column].is_valid().to_numpy()[order]
        keeper = np.where(nothing, order, order[first][group])
        decisions.keeper[order] = np.where(keeper == order, -1, keeper)
        copies = decisions.keeper >= 0
        decisions.reason[copies] = "exact_duplicate"
        if not self.ranked:
            decisions.keep[:] = ~copies
            return decisions
        by_group = np.argsort(group, kind="stable")
        starts = np.searchsorted(group[by_group], np.arange(len(first)))
        place = np.empty(n, np.float32)
        place[order[by_group]] = np.arange(n) - starts[group[by_group]]
        place[~copies] = -np.inf
        return decisions._replace(rank=np.column_stack([place, badness(rows, self._keep_by)]))


def words(column: pa.ChunkedArray) -> np.ndarray:
    """Digests of 16 bytes as pairs of 64-bit words `(n,)`; of null rows zeros."""
    return np.ascontiguousarray(unpack(column, "<u8")).view([("high", "<u8"), ("low", "<u8")]).ravel()
