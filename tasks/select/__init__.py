"""Select rows: map (summarise), reduce (fit), map (partition, decide). Selects run in order; each sees what is left.

A method is a class built as `Method(config, seed=seed)`. Rows arrive in the order of (file, row), so that "lowest
index" is "lowest (file, row)". Hooks that a method does not need it leaves out: without `partition`, `decide` sees a
shard; with it, one bucket, which may hold rows of any shard.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from storage.states import Checkpoint, State


class Decisions(NamedTuple):
    """What `decide` says of every row it was given."""

    keep: np.ndarray
    """bool `(n,)`"""
    reason: np.ndarray
    """str `(n,)`: why a row is dropped; empty where it is kept."""
    score: np.ndarray
    """float32 `(n,)`: the value decided on, NaN where there is none."""
    keeper: np.ndarray
    """int64 `(n,)`: index of the row that stands for a dropped one, -1 where there is none."""


class Select(Protocol):
    """A selection. All but `needs` and `decide` are optional; `forecast` and `told` come as a pair."""

    needs: tuple[str, ...]

    def summarise(self, rows: pa.Table) -> pa.Table:
        """A small table about one shard's rows."""
        ...

    def fit(self, summaries: Iterable[pa.Table], checkpoint: Checkpoint) -> State:
        """What `partition` and `decide` need to know of all rows; `summaries` can be iterated more than once."""
        ...

    def forecast(self, rows: pa.Table, state: State) -> dict[str, float]:
        """What is to be expected of `decide` for one shard's rows, as numbers that can be summed over shards."""
        ...

    def told(self, state: State, sums: dict[str, float]) -> str:
        """One line about the summed forecasts; it is logged, and kept with the sums, before anything is decided."""
        ...

    def partition(self, rows: pa.Table, state: State) -> np.ndarray:
        """Bucket of every row, int64 `(n,)`, 0 or more."""
        ...

    def decide(self, rows: pa.Table, state: State) -> Decisions:
        """Decide on the rows of one shard, or of one bucket if the method partitions."""
        ...


METHODS: dict[str, str] = {
    "exact_duplicates": "tasks.select.exact_duplicates:ExactDuplicates",
    "threshold": "tasks.select.threshold:Threshold",
    "near_duplicates": "tasks.select.near_duplicates:NearDuplicates",
    "balance": "tasks.select.balance:Balance",
}


def keep_all(n: int) -> Decisions:
    """Decisions that keep `n` rows, to be changed in place."""
    return Decisions(np.ones(n, bool), np.full(n, "", object), np.full(n, np.nan, np.float32), np.full(n, -1, np.int64))


def best_first(rows: pa.Table, keep_by: str | None) -> np.ndarray:
    """Order of preference: highest `keep_by` first (nulls and NaN last), then lowest index; int64 `(n,)`."""
    index = np.arange(rows.num_rows)
    if keep_by is None:
        return index
    score = rows.column(keep_by).to_numpy().astype(np.float64)
    return np.lexsort((index, -np.where(np.isnan(score), -np.inf, score)))


def bucket_count(summaries: Iterable[pa.Table], rows_per_bucket: int) -> int:
    """How many buckets of about `rows_per_bucket` the summarised rows (`rows: int64`) fill; one at least."""
    total = sum(int(n) for table in summaries for n in table["rows"].to_numpy())
    return max(1, -(-total // rows_per_bucket))
