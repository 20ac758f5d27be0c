"""Threshold: keep rows whose score reaches a cut: given, found as a global quantile, or met as a target."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from storage.states import Checkpoint, State
from tasks.select import Decisions, keep_all
from tasks.select.ranking import ordered


class Threshold:
    """Rows without a score (null or NaN) are dropped."""

    def __init__(self, config: Any, *, seed: int) -> None:
        del seed  # nothing is drawn
        self._score: str = config.score
        self._minimum: float | None = config.minimum
        self._keep_fraction: float | None = config.keep_fraction
        self.ranked = config.target is not None
        self.needs: tuple[str, ...] = (config.score,)

    def summarise(self, rows: pa.Table) -> pa.Table:
        """The scores, as float32."""
        return pa.table({"score": self._values(rows)})

    def fit(self, summaries: Iterable[pa.Table], checkpoint: Checkpoint) -> State:
        """The cut: `minimum`, or the score of row ceil(keep_fraction * n); n counts null scores, too."""
        if self.ranked:
            return {}
        if self._keep_fraction is None:
            return {"cut": np.float32(self._minimum)}
        return {"cut": np.float32(kth_largest(summaries, self._keep_fraction))}

    def decide(self, rows: pa.Table, state: State) -> Decisions:
        """Keep the rows at or above the cut."""
        decisions = keep_all(rows.num_rows)
        score = self._values(rows)
        decisions.score[:] = score
        if self.ranked:
            decisions.keep[:] = ~np.isnan(score)
            decisions.reason[:] = np.where(decisions.keep, "below_threshold", "no_score")
            return decisions._replace(rank=np.where(decisions.keep, -score, np.inf).astype(np.float32))
        decisions.keep[:] = score >= np.float32(state["cut"])
        decisions.reason[~decisions.keep] = "below_threshold"
        decisions.reason[np.isnan(score)] = "no_score"
        return decisions

    def _values(self, rows: pa.Table) -> np.ndarray:
        return rows.column(self._score).to_numpy().astype(np.float32)


def kth_largest(summaries: Iterable[pa.Table], fraction: float) -> float:
    """The score of row ceil(fraction * n) in descending order, exactly; -inf if fewer rows than that have a score.

    Two passes: one histogram over the upper 16 bits of the scores (in an order-preserving integer form), one that
    collects only the scores in the bin that holds the answer. So memory is bounded by a shard and one bin.

    Args:
        summaries: Tables with `score: float32`, NaN for none; iterated twice.
        fraction: In (0, 1].
    """
    histogram, total = np.zeros(1 << 16, np.int64), 0
    for table in summaries:
        score = table["score"].to_numpy()
        total += len(score)
        histogram += np.bincount(ordered(score[~np.isnan(score)]) >> 16, minlength=1 << 16)
    # A product such as 0.1 * 30 = 3.0000000000000004 must not ask for a fourth row.
    wanted = int(np.ceil(round(fraction * total, 9)))
    above = np.cumsum(histogram[::-1])[::-1]
    bins = np.flatnonzero(above >= wanted)
    if wanted == 0 or len(bins) == 0:
        return float("-inf")
    target = int(bins[-1])
    rank = wanted - int(above[target] - histogram[target])
    inside = []
    for table in summaries:
        score = table["score"].to_numpy()
        score = score[~np.isnan(score)]
        inside.append(score[(ordered(score) >> 16) == target])
    values = np.concatenate(inside)
    return float(np.partition(values, len(values) - rank)[len(values) - rank])
