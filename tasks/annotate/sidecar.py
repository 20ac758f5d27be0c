"""The annotate sidecar: the concepts of each row, and how sure the annotator is of each."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

SCHEMA = pa.schema([("concepts", pa.list_(pa.string())), ("confidences", pa.list_(pa.float32()))])
"""`concepts`: null where the row failed, empty where there are none, repeats where the annotator counts objects.
`confidences`: parallel to `concepts`, or null where the annotator has none."""


def sidecar(concepts: pa.Array, counts: np.ndarray, missing: np.ndarray, scores: pa.Array | None = None) -> pa.Table:
    """The sidecar of a shard.

    Args:
        concepts: strings `(sum(counts),)`, row after row.
        counts: int `(n,)`, concepts of each row; 0 where `missing`.
        missing: bool `(n,)`, rows that get null.
        scores: float32 parallel to `concepts`; None for an annotator without confidences.
    """
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    mask = pa.array(missing, pa.bool_())
    lists = pa.ListArray.from_arrays(offsets, concepts.cast(pa.string()), mask=mask)
    if scores is None:
        confidences = pa.nulls(len(counts), pa.list_(pa.float32()))
    else:
        confidences = pa.ListArray.from_arrays(offsets, scores.cast(pa.float32()), mask=mask)
    return pa.table([lists, confidences], schema=SCHEMA)
