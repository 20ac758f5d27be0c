"""Which rows of a sample come first: by two keys, one row of each pair of keys, whatever order rows came in."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def firsts(outer: np.ndarray, inner: np.ndarray, rows: pa.Table) -> np.ndarray:
    """Indices of one row of each pair of keys, by `outer` and then by `inner`: int64 `(k,)`.

    Of rows with equal keys (the same picture twice, with two captions) the first by its columns is taken, texts by
    code point, so that the order of shards has no say.

    Args:
        outer: Numbers `(n,)`.
        inner: Numbers `(n,)`.
        rows: `n` rows, of columns that have an order.
    """
    order = np.lexsort((inner, outer))
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(outer[order]) != 0) | (np.diff(inner[order]) != 0)
    if first.all():
        return order
    run = np.cumsum(first)
    again = np.flatnonzero(~first)
    tied = np.union1d(again, again - 1)
    which = rows.take(pa.array(order[tied])).append_column("", pa.array(run[tied]))
    by = [(name, "ascending") for name in ("", *rows.column_names)]
    order[tied] = order[tied][pc.sort_indices(which, sort_keys=by).to_numpy()]
    return order[first]


def places(outer: np.ndarray) -> np.ndarray:
    """The place of each row among those with its key, from 0; `outer` is sorted: int64 `(n,)`."""
    starts = np.flatnonzero(np.diff(outer, prepend=outer[:1] - 1))
    return np.arange(len(outer)) - np.repeat(starts, np.diff(starts, append=len(outer)))
