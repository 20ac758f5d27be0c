"""What GAIS-style (reconstructed) selection knows of all rows before it learns: classes, ranges, a bounded sample.

The sample is the rows with the lowest coins, and of each class at least `CLASS_ROWS`: it depends on no shard's size and
on no order. A shard hands on no more than a sixteenth of its rows, or `SHARD_ROWS`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.packed import pack, unpack

CLASS_ROWS = 16
SHARD_ROWS = 2048


class Known(NamedTuple):
    """What is known of all rows."""

    classes: pa.LargeStringArray
    """Labels in code-point order; empty for clusters."""
    counts: np.ndarray
    """int64 `(K,)`: usable rows of each class."""
    rows: int
    """Usable rows: with features, and a label unless they are clustered."""
    low: np.ndarray
    """float64 `(d,)`"""
    high: np.ndarray
    mean: np.ndarray
    x: np.ndarray
    """float32 `(s, d)`: features of the sample, by coin."""
    labels: pa.Array
    """large_string `(s,)`: its labels."""


def summary(x: np.ndarray, labels: pa.ChunkedArray, coins: np.ndarray, most: int) -> pa.Table:
    """One shard's usable rows in short: a line of ranges, one a class, one a sampled row.

    Args:
        x: float32 `(n, d)`, finite.
        labels: large_string, no nulls.
        coins: float64 `(n,)` in [0, 1), drawn for each row.
        most: Rows of the whole sample.
    """
    classes = labels.value_counts()
    names, counts = (pc.struct_field(classes, i) for i in range(2))
    wide = x.astype(np.float64)
    ranges = [wide.min(axis=0), wide.max(axis=0), wide.sum(axis=0)] if len(x) else [np.zeros(x.shape[1])] * 3
    codes = pc.index_in(labels, value_set=names).to_numpy() if len(x) else np.zeros(0, np.int64)
    sampled = lowest(coins, codes, min(most, max(SHARD_ROWS, len(x) // 16)))
    blank = pa.nulls(1 + len(names), pa.binary(4 * x.shape[1]))
    parts = {
        "label": [pa.nulls(1, pa.large_string()), names, labels.take(pa.array(sampled)).combine_chunks()],
        "rows": [pa.array([len(x)]), counts, pa.array(np.zeros(len(sampled), np.int64))],
        "coin": [pa.nulls(1 + len(names), pa.float64()), pa.array(coins[sampled])],
        "features": [blank, pack(x[sampled])],
    }
    columns = {name: pa.chunked_array([p.cast(parts[name][-1].type) for p in parts[name]]) for name in parts}
    rest = len(names) + len(sampled)
    for name, value in zip(("low", "high", "total"), ranges, strict=True):
        columns[name] = pa.chunked_array([pack(value[None]), pa.nulls(rest, pa.binary(8 * x.shape[1]))])
    return pa.table(columns)


def lowest(coins: np.ndarray, codes: np.ndarray, most: int) -> np.ndarray:
    """The rows with the `most` lowest coins, and of each class with the `CLASS_ROWS` lowest: int64, by coin."""
    order = np.argsort(coins, kind="stable")
    by_class = order[np.argsort(codes[order], kind="stable")]
    starts = np.flatnonzero(np.diff(codes[by_class], prepend=-1))
    place = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    wanted = np.zeros(len(order), bool)
    wanted[order[:most]] = True
    wanted[by_class[place < CLASS_ROWS]] = True
    return order[wanted[order]]


def gathered(summaries: Iterable[pa.Table], most: int) -> Known:
    """All summaries put together; memory is bounded by the sample, the classes and one summary."""
    total: dict[str, int] = {}
    rows, low, high, sums = 0, None, None, None
    kept: pa.Table | None = None
    for table in summaries:
        head = table.slice(0, 1)
        if not (here := head["rows"][0].as_py()):
            continue
        rows += here
        own = [unpack(head[name], np.float64)[0] for name in ("low", "high", "total")]
        low = own[0] if low is None else np.minimum(low, own[0])
        high = own[1] if high is None else np.maximum(high, own[1])
        sums = own[2] if sums is None else sums + own[2]
        counted = table.filter(pc.greater(table["rows"], 0)).slice(1)
        for name, count in zip(counted["label"].to_pylist(), counted["rows"].to_pylist(), strict=True):
            total[name] = total.get(name, 0) + count
        part = table.filter(pc.is_valid(table["coin"])).select(["label", "coin", "features"])
        kept = _pruned(part if kept is None else pa.concat_tables([kept, part]), most)
    names = sorted(total)
    nothing = np.zeros(0)
    return Known(
        pa.array(names, pa.large_string()),
        np.array([total[name] for name in names], np.int64),
        rows,
        nothing if low is None else low,
        nothing if high is None else high,
        nothing if sums is None else sums / rows,
        unpack(kept["features"], np.float32) if kept is not None else np.zeros((0, 0), np.float32),
        kept["label"].combine_chunks() if kept is not None else pa.array([], pa.large_string()),
    )


def _pruned(table: pa.Table, most: int) -> pa.Table:
    codes = table["label"].combine_chunks().dictionary_encode().indices.to_numpy()
    return table.take(pa.array(lowest(table["coin"].to_numpy(), codes, most)))
