"""Concept counts before and after curation, block by block."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

COUNTS = pa.schema([("concept", pa.string()), ("before", pa.int64()), ("after", pa.int64())])


def count(concepts: pa.ChunkedArray, times_used: np.ndarray) -> pa.Table:
    """Occurrences of each concept among some rows, and among their uses: the columns of `COUNTS`.

    Args:
        concepts: list<string> `(n,)`, nulls allowed, repeats counted.
        times_used: int `(n,)`.
    """
    lists = concepts.combine_chunks()
    lists = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
    values, rows = pc.list_flatten(lists), pc.list_parent_indices(lists).to_numpy()
    table = pa.table(
        {
            "concept": values.cast(pa.string()),
            "before": pa.array(np.ones(len(rows), np.int64)),
            "after": pa.array(np.asarray(times_used, np.int64)[rows]),
        }
    )
    return merge([table])


def merge(tables: Iterable[pa.Table]) -> pa.Table:
    """Sums by concept: most frequent before first, then by code point."""
    every = pa.concat_tables([COUNTS.empty_table(), *tables])
    sums = every.group_by("concept").aggregate([("before", "sum"), ("after", "sum")])
    sums = sums.select(["concept", "before_sum", "after_sum"]).rename_columns(COUNTS.names).cast(COUNTS)
    return sums.sort_by([("before", "descending"), ("concept", "ascending")])
