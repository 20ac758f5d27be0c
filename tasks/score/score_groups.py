"""Buckets of equal size by a score as groups: what a mix takes more of, or learns what it is worth.

The borders are exact, over all rows; rows of one score that a border divides go by a coin made of their uid, so that
the same rows have the same groups however they are cut into shards. A row without a score has a label of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from storage.states import Checkpoint, State
from tasks import Result
from tasks.score.clusters import labels
from tasks.select.coins import coins, uid_halves
from tasks.select.pool_buckets import buckets_of, edges, row_keys

COLUMN, KEY, UID = "score_group", "key", "uid"
WITHOUT = "(no score)"


class ScoreGroups:
    """A fitted scorer: `score_group`, a dictionary of strings, in every row; "alignment 1 of 5" are the best."""

    provides: tuple[str, ...] = (COLUMN,)
    sketches: tuple[str, ...] = (COLUMN,)
    remedy = "Groups by score need that score: list what makes it under `score`."

    def __init__(self, config: Any, *, state: State | None = None) -> None:
        self._config, self._state = config, state
        self.needs: tuple[str, ...] = (config.score, UID)

    def summarise(self, rows: pa.Table) -> pa.Table:
        """The keys of the rows that have a score: `key: uint64`."""
        keys, known = self._keys(rows)
        return pa.table({KEY: keys[known]})

    def fit(self, summaries: Iterable[pa.Table], checkpoint: Checkpoint | None = None) -> State:
        """`lowest`: the lowest key of each bucket, best first, uint64; fewer buckets where there are fewer rows."""
        rows = sum(table.num_rows for table in summaries)
        if not rows:
            return {"lowest": np.zeros(0, np.uint64)}
        return {"lowest": edges(_Keys(summaries), rows, min(rows, self._config.buckets))}

    def run(self, rows: pa.Table) -> Result:
        """The label of every row."""
        lowest = (self._state or {"lowest": np.zeros(0, np.uint64)})["lowest"]
        count, (keys, known) = len(lowest), self._keys(rows)
        code = np.full(len(keys), -1)
        if count:
            code[known] = buckets_of(keys[known], lowest)
        names = [f"{self._config.score} {number + 1} of {count}" for number in range(count)]
        return Result(pa.table({COLUMN: labels(code, names, WITHOUT)}), [])

    def _keys(self, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """A key of every row, uint64 `(n,)`, and whether it has a score: bool `(n,)`."""
        score = rows[self._config.score].to_numpy().astype(np.float32)
        known = ~np.isnan(score)
        words = np.random.SeedSequence([self._config.seed, 73]).generate_state(2, np.uint64)
        coin = coins(uid_halves(rows[UID]), np.zeros(len(score), np.int64), words)
        return row_keys(np.where(known, score, 0), coin), known


class _Keys:
    """The keys of all summaries, at every iteration."""

    def __init__(self, summaries: Iterable[pa.Table]) -> None:
        self._summaries = summaries

    def __iter__(self) -> Iterator[np.ndarray]:
        return (table[KEY].to_numpy() for table in self._summaries)
