"""What concept-aware samplers are held to account for: concepts per batch, and wanted against achieved counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa

STEPS = pa.schema(
    [
        ("step", pa.int64()),
        ("rows", pa.int32()),
        ("fill", pa.int32()),
        ("concepts", pa.int32()),
        ("iid_concepts", pa.int32()),
        ("offered_concepts", pa.int32()),
        ("rare", pa.int32()),
        ("iid_rare", pa.int32()),
        ("offered_rare", pa.int32()),
    ]
)
"""One row a batch: its rows; rows that are only fill; distinct concepts in it, in the batch that IID would have made of
the same superbatch (its first b rows), and in the superbatch; the same three numbers of rare concepts: those in so few
rows of the superbatch that IID is expected to keep less than one of them, F < B / b."""

CONCEPTS = pa.schema(
    [("concept", pa.string()), ("offered", pa.int64()), ("wanted", pa.float64()), ("achieved", pa.int64())]
)
"""One row a concept, summed over superbatches: labels in the superbatches, the sampler's target counts (null for a
sampler that has none), labels in the batches."""


class Account(NamedTuple):
    """Of one superbatch."""

    step: dict[str, int]
    """Keys: those of `STEPS` but `step`."""
    concepts: pa.Table
    """Columns of `CONCEPTS`."""


def summed(tables: Iterable[pa.Table]) -> pa.Table:
    """Sums by concept, in code-point order: the columns of `CONCEPTS`."""
    every = pa.concat_tables([CONCEPTS.empty_table(), *tables])
    sums = [(name, "sum") for name in ("offered", "wanted", "achieved")]
    total = every.group_by("concept", use_threads=False).aggregate(sums)
    return total.rename_columns(CONCEPTS.names).cast(CONCEPTS).sort_by("concept")
