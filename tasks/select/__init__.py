"""Select rows: map (summarise), reduce (fit), map (partition, decide). Selects run in order; each sees what is left.

A method is a class built as `Method(config, seed=seed)`. Rows arrive in the order of (file, row), so that "lowest
index" is "lowest (file, row)". Hooks that a method does not need it leaves out: without `partition` or `keys`,
`decide` sees a shard; with one of them, a bucket, which may hold rows of any shard.

A select that works towards a size is `ranked`: it says for each row how much speaks against it, and the exact cut over
all buckets and shards is found in `tasks.select.ranking`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from configs.methods.targets import KeepBy
from storage.states import Checkpoint, State

GROUP = "__group"
"""Column that `decide` of a method with `keys` gets beside its needs: int64, equal for rows that may be alike."""


class Decisions(NamedTuple):
    """What `decide` says of every row it was given."""

    keep: np.ndarray
    """bool `(n,)`; of a ranked select False where a row goes whatever the target."""
    reason: np.ndarray
    """str `(n,)`: why a row is dropped, or would be; empty where nothing speaks against it."""
    score: np.ndarray
    """float32 `(n,)`: the value decided on, of kept rows too where it is known; NaN where there is none."""
    keeper: np.ndarray
    """int64 `(n,)`: index of the row that stands for a dropped one, -1 where there is none."""
    rank: np.ndarray | None = None
    """float32 `(n,)` or `(n, k)`, of ranked selects: the higher, the earlier a row goes, ties by the next column, then
    the latest (file, row) first; -inf where nothing speaks against it; never NaN."""
    group: np.ndarray | None = None
    """int64 `(n,)`, of ranked selects: what `quotas` are for; None: one quota for all."""
    counts: Mapping[str, int] = {}
    """What `warnings` tells of, summed over all calls."""


class Select(Protocol):
    """A selection. All but `needs` and `decide` are optional; `forecast` and `told` come as a pair."""

    needs: tuple[str, ...]
    ranked: bool
    """Whether `decide` ranks rows for a target or quotas; False if left out."""
    forecasts: bool
    """Whether `forecast` is to be asked; True if left out."""

    def check(self) -> None:
        """Raise ConfigError, before any work, if something that the method needs is not installed."""
        ...

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

    def keys(self, rows: pa.Table, state: State) -> np.ndarray:
        """Instead of `partition`: uint64 `(n, T)`; rows with an equal key in one column meet, and what they meet too.

        They are in one call of `decide` and have one number in the column `__group`, 0 or more. Rows without company
        have numbers of their own below 0.
        """
        ...

    def decide(self, rows: pa.Table, state: State) -> Decisions:
        """Decide on the rows of one shard, or of one bucket if the method partitions."""
        ...

    def quotas(self, groups: np.ndarray, rows: np.ndarray, wanted: int | None) -> np.ndarray:
        """Rows to keep of each group, int64 `(G,)`, of a ranked select whose decisions have groups.

        Args:
            groups: int64 `(G,)`, ascending.
            rows: int64 `(G,)`: rows of each that may be kept.
            wanted: The target in rows; None without one.
        """
        ...

    def group_names(self, groups: np.ndarray, state: State) -> list[str]:
        """What people call the groups."""
        ...

    def warnings(self, counts: dict[str, int]) -> list[str]:
        """What to warn of, given the sums of `Decisions.counts`."""
        ...


METHODS: dict[str, str] = {
    "exact_duplicates": "tasks.select.exact_duplicates:ExactDuplicates",
    "threshold": "tasks.select.threshold:Threshold",
    "perceptual": "tasks.select.perceptual:Perceptual",
    "near_duplicates": "tasks.select.near_duplicates:NearDuplicates",
    "balance": "tasks.select.balance:Balance",
    "minhash": "tasks.select.minhash:MinHash",
    "facility_location": "tasks.select.facility_location:FacilityLocation",
    "k_center": "tasks.select.k_center:KCenter",
    "cluster_balanced": "tasks.select.cluster_balanced:ClusterBalanced",
    "gais": "tasks.select.gais_select:Gais",
    "trajectories": "tasks.select.trajectories:Trajectories",
    "pools": "tasks.select.pools:Pools",
}


def keep_all(n: int) -> Decisions:
    """Decisions that keep `n` rows, to be changed in place."""
    return Decisions(np.ones(n, bool), np.full(n, "", object), np.full(n, np.nan, np.float32), np.full(n, -1, np.int64))


RULES: dict[str, tuple[str, ...]] = {
    "first": (),
    "longest_text": ("text_chars",),
    "largest_image": ("width", "height"),
    "most_bytes": ("image_bytes",),
}
"""Rules for the keeper and the columns they need; any other name is a score."""


def keeper_rules(keep_by: KeepBy) -> list[str]:
    """The rules in order of precedence."""
    return [keep_by] if isinstance(keep_by, str) else list(keep_by or [])


def keeper_needs(keep_by: KeepBy) -> tuple[str, ...]:
    """Columns that the rules need."""
    return tuple(dict.fromkeys(name for rule in keeper_rules(keep_by) for name in RULES.get(rule, (rule,))))


def badness(rows: pa.Table, keep_by: KeepBy) -> np.ndarray:
    """What speaks against a row as keeper, float32 `(n, k)`, one column a rule: minus its value; inf for null and NaN.

    Columns for `Decisions.rank`, to the right of what is decided on: comparable over buckets.
    """
    columns = [np.zeros((rows.num_rows, 0), np.float32)]
    for rule in keeper_rules(keep_by):
        if not (names := RULES.get(rule, (rule,))):
            continue
        value = np.ones(rows.num_rows)
        for name in names:
            value = value * rows.column(name).to_numpy().astype(np.float64)
        columns.append(np.where(np.isnan(value), np.inf, -value).astype(np.float32)[:, None])
    return np.hstack(columns)


def ranks_by_score(rows: pa.Table, decisions: Decisions, keep_by: KeepBy) -> np.ndarray:
    """Ranks by what speaks against rows, their score, then by the worse row: float32 `(n, k)`."""
    against = np.where(decisions.reason != "", decisions.score, -np.inf).astype(np.float32)
    return np.hstack([against[:, None], badness(rows, keep_by)])


def best_first(rows: pa.Table, keep_by: KeepBy) -> np.ndarray:
    """Order of preference: best by the rules first (nulls and NaN last), then lowest index; int64 `(n,)`."""
    against = badness(rows, keep_by)
    return np.lexsort((np.arange(rows.num_rows), *against.T[::-1]))


def bucket_count(summaries: Iterable[pa.Table], rows_per_bucket: int) -> int:
    """How many buckets of about `rows_per_bucket` the summarised rows (`rows: int64`) fill; one at least."""
    total = sum(int(n) for table in summaries for n in table["rows"].to_numpy())
    return max(1, -(-total // rows_per_bucket))
