"""Concept counts before and after curation, block by block, and what is told of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

COUNTS = pa.schema([("concept", pa.string()), ("before", pa.int64()), ("after", pa.int64())])

MOST_NAMED = 500
"""Concepts whose counts are kept for the page, if the settings do not ask for more."""
FLOOR = 10
"""A concept whose share has changed is named only if it occurs, or would occur with its old share, so many times in
the mix: below, chance alone makes large ratios."""


def count(concepts: pa.ChunkedArray, times_used: np.ndarray) -> pa.Table:
    """Occurrences of each concept among some rows, and among their uses: the columns of `COUNTS`.

    Args:
        concepts: list<string> `(n,)`, nulls allowed, repeats counted.
        times_used: int `(n,)`.
    """
    values, rows = flat(concepts)
    table = pa.table(
        {
            "concept": values,
            "before": pa.array(np.ones(len(rows), np.int64)),
            "after": pa.array(np.asarray(times_used, np.int64)[rows]),
        }
    )
    return merge([table])


def flat(concepts: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """All concepts of list<string> rows end to end, and the row of each, int64."""
    lists = concepts.combine_chunks()
    lists = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
    return pc.list_flatten(lists).cast(pa.string()), pc.list_parent_indices(lists).to_numpy()


def merge(tables: Iterable[pa.Table]) -> pa.Table:
    """Sums by concept: most frequent before first, then by code point."""
    every = pa.concat_tables([COUNTS.empty_table(), *tables])
    sums = every.group_by("concept").aggregate([("before", "sum"), ("after", "sum")])
    sums = sums.select(["concept", "before_sum", "after_sum"]).rename_columns(COUNTS.names).cast(COUNTS)
    return sums.sort_by([("before", "descending"), ("concept", "ascending")])


def told(counts: pa.Table, top: int) -> dict[str, Any]:
    """What the report says of the concepts.

    Args:
        counts: As `merge` returns it.
        top: How many of the commonest are named.

    Returns:
        `names, before, after`: lists of the commonest; `distinct_before, distinct_after, total_before, total_after`;
        `curve_before, curve_after`: (rank, occurrences) pairs; `more, less`: lists of `changed`.
    """
    shown = counts.slice(0, top).to_pydict()
    before, after = counts["before"].to_numpy(), counts["after"].to_numpy()
    more, less = changed(counts)
    return {
        "names": shown["concept"],
        "before": shown["before"],
        "after": shown["after"],
        "distinct_before": counts.num_rows,
        "distinct_after": int(np.count_nonzero(after)),
        "total_before": int(before.sum()),
        "total_after": int(after.sum()),
        "curve_before": curve(before),
        "curve_after": curve(after),
        "more": more,
        "less": less,
    }


def curve(counts: np.ndarray, points: int = 120) -> list[list[int]]:
    """The rank-frequency curve: [rank, occurrences] at `points` ranks or fewer, evenly spaced on a log axis."""
    ordered = np.sort(counts[counts > 0])[::-1]
    if not len(ordered):
        return []
    ranks = np.unique(np.round(np.geomspace(1, len(ordered), points)).astype(np.int64))
    return [[rank, n] for rank, n in zip(ranks.tolist(), ordered[ranks - 1].tolist(), strict=True)]


def changed(counts: pa.Table, most: int = 8) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The concepts whose share of all occurrences rose the most, and those whose share fell the most.

    Returns:
        Two lists of {concept, before, after, ratio}: shares of one, and after / before (None where before is nothing).
    """
    before, after = counts["before"].to_numpy(), counts["after"].to_numpy()
    if not before.sum() or not after.sum():
        return [], []
    expected = before * (after.sum() / before.sum())
    # Half an occurrence on both sides, so that "gone" is the more telling the more of it there was.
    change = np.log((after + 0.5) / (expected + 0.5))
    told = np.flatnonzero(np.maximum(after, expected) >= FLOOR)
    order = told[np.lexsort((told, -np.abs(change[told])))]
    kinds = (order[change[order] > 0][:most], order[change[order] < 0][:most])
    more, less = ([_share(counts, int(i), before, after) for i in kind] for kind in kinds)
    return sorted(more, key=_ratio, reverse=True), sorted(less, key=_ratio)


def _ratio(share: dict[str, Any]) -> float:
    return float("inf") if share["ratio"] is None else float(share["ratio"])


def _share(counts: pa.Table, at: int, before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    old, new = before[at] / before.sum(), after[at] / after.sum()
    ratio = float(new / old) if old else None
    return {"concept": counts["concept"][at].as_py(), "before": float(old), "after": float(new), "ratio": ratio}
