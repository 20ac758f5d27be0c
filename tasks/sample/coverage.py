"""What concept-aware samplers are held to account for: concepts per batch, and wanted against achieved counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from configs.methods.batches import Batches
from storage import files
from storage.steps import Step, parquet_bytes
from tasks.sample.concepts import Labels, label_counts

STEPS = pa.schema(
    [
        ("step", pa.int64()),
        ("rows", pa.int32()),
        ("fill", pa.int32()),
        ("bare", pa.int32()),
        ("offered_bare", pa.int32()),
        ("concepts", pa.int32()),
        ("iid_concepts", pa.int32()),
        ("offered_concepts", pa.int32()),
        ("rare", pa.int32()),
        ("iid_rare", pa.int32()),
        ("offered_rare", pa.int32()),
    ]
)
"""One row a batch: its rows; rows that are only fill; rows without a concept, in the batch and in the superbatch;
distinct concepts in it, in the batch that IID would have made of the same superbatch (its first b rows), and in the
superbatch; the same three numbers of rare concepts: those in so few rows of the superbatch that IID is expected to keep
less than one of them, F < B / b."""

CONCEPTS = pa.schema(
    [("concept", pa.string()), ("offered", pa.int64()), ("wanted", pa.float64()), ("achieved", pa.int64())]
)
"""One row a concept, summed over superbatches: labels in the superbatches, the sampler's target counts (null for a
sampler that has none), labels in the batches."""


SECTION = "section.json"
"""Beside the plan: the sampler's section with the weights that a file held, for those who sample again."""


class Account(NamedTuple):
    """Of one superbatch."""

    step: dict[str, int]
    """Keys: those of `STEPS` but `step`."""
    concepts: pa.Table
    """Columns of `CONCEPTS`."""


def account(
    labels: Labels,
    frequencies: np.ndarray,
    picks: Sequence[np.ndarray],
    config: Batches,
    *,
    targets: np.ndarray | None = None,
    fill: int = 0,
) -> Account:
    """Returns what a sampler did with one superbatch.

    Args:
        labels: Of the superbatch, with its words.
        frequencies: F, int64 `(V,)`.
        picks: Row indices, one array per rank.
        config: Sizes of superbatch and batch.
        targets: t, `(V,)`.
        fill: Rows that are only fill.
    """
    rows, iid = np.concatenate(picks), np.arange(config.batch_size)
    achieved, of_iid = (label_counts(labels.offsets, labels.ids, labels.size, some) for some in (rows, iid))
    rare = frequencies * config.batch_size < config.superbatch
    bare = np.diff(labels.offsets) == 0
    step = {"rows": len(rows), "fill": fill, "bare": int(bare[rows].sum()), "offered_bare": int(bare.sum())}
    for name, held in (("", achieved > 0), ("iid_", of_iid > 0), ("offered_", frequencies > 0)):
        step |= {f"{name}concepts": int(held.sum()), f"{name}rare": int((held & rare).sum())}
    words = pa.array(np.arange(labels.size)) if labels.words is None else labels.words
    columns = {
        "concept": words.cast(pa.string()),
        "offered": np.bincount(labels.ids, minlength=labels.size),
        "wanted": pa.nulls(labels.size) if targets is None else targets,
        "achieved": achieved,
    }
    return Account(step, pa.table([pa.array(columns[f.name]).cast(f.type) for f in CONCEPTS], schema=CONCEPTS))


def summed(tables: Iterable[pa.Table]) -> pa.Table:
    """Sums by concept, in code-point order: the columns of `CONCEPTS`."""
    every = pa.concat_tables([CONCEPTS.empty_table(), *tables])
    sums = [(name, "sum") for name in ("offered", "wanted", "achieved")]
    total = every.group_by("concept", use_threads=False).aggregate(sums)
    return total.rename_columns(CONCEPTS.names).cast(CONCEPTS).sort_by("concept")


def leave(step: Step, part: int, first: int, accounts: Sequence[Account]) -> None:
    """Write the accounts of one part of the batch plan, whose first batch is number `first`."""
    lines = [{"step": first + number, **one.step} for number, one in enumerate(accounts)]
    for name, table in (
        ("steps", pa.Table.from_pylist(lines, schema=STEPS)),
        ("concepts", summed(one.concepts for one in accounts)),
    ):
        files.write_bytes(step.file(f"coverage/{name}-{part:05d}.parquet"), parquet_bytes(table))


def read_concepts(step: Step, parts: int) -> pa.Table:
    """The columns of `CONCEPTS`, summed part by part of a batch plan; empty where the sampler left none."""
    total = CONCEPTS.empty_table()
    for name in (f"coverage/concepts-{part:05d}" for part in range(parts)):
        if files.exists(step.file(f"{name}.parquet")):
            total = summed([total, step.read(name)])
    return total
