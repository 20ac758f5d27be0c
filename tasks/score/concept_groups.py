"""Concepts as groups: the commonest of all rows, or given ones; a row belongs to the rarest of them that it has.

The commonest are counted in rows, ties by code point. Of two concepts in equally many rows the later by code point is
the rarer. Rows with none of them are a group of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.errors import ConfigError
from storage.states import Checkpoint, State
from tasks import Result
from tasks.annotate.numbers import with_matches
from tasks.mix.balance import entry_counts
from tasks.score.clusters import labels
from tasks.select.balance import encoded, packed, summed, unpacked

COLUMN, CONCEPTS = "concept_group", "concepts"
NAMED = 3


class ConceptGroups:
    """A fitted scorer: `concept_group`, a dictionary of strings, in every row."""

    needs: tuple[str, ...] = (CONCEPTS,)
    provides: tuple[str, ...] = (COLUMN,)
    sketches: tuple[str, ...] = (COLUMN,)
    remedy = "Groups by concept need concepts: add `annotate`, or take groups that the input names."

    def __init__(self, config: Any, *, state: State | None = None) -> None:
        self._config, self._state = config, state

    def summarise(self, rows: pa.Table) -> pa.Table:
        """The rows that hold each concept: `concept: large_string`, `rows: int64`."""
        offsets, codes, words = encoded(rows[CONCEPTS])
        return pa.table({"concept": words, "rows": entry_counts((offsets, codes), len(words))})

    def fit(self, summaries: Iterable[pa.Table], checkpoint: Checkpoint | None = None) -> State:
        """The concepts that are groups, from the commonest to the rarest, packed; and `counts`, rows of each.

        Raises:
            ConfigError: One of them is called as the rows without one are.
        """
        total = summed(summaries)
        concepts, counts = total["concept"].combine_chunks(), total["rows"].to_numpy()
        order = np.argsort(-counts, kind="stable")  # in code-point order as they come
        if self._config.concepts is None:
            chosen = order[: self._config.count]
        else:
            given = pa.array(self._config.concepts, pa.large_string())
            chosen = order[pc.is_in(concepts, given).to_numpy(zero_copy_only=False)[order]]
        names = concepts.take(pa.array(chosen))
        missing = sorted({*(self._config.concepts or [])} - {*names.to_pylist()})
        if missing and checkpoint:
            told = "; ".join(with_matches(concept, concepts.to_pylist()) for concept in missing[:NAMED])
            more = f"; and {len(missing) - NAMED:,} more" if len(missing) > NAMED else ""
            checkpoint.tell(f"score/concept_group: no row has {told}{more}")
        if self._config.others in names.to_pylist():
            raise ConfigError(
                f"`others` is {self._config.others!r}, which is a concept that is a group itself; give the group of "
                "rows without a concept another name"
            )
        return {"counts": counts[chosen]} | packed(names)

    def run(self, rows: pa.Table) -> Result:
        """The rows' labels, none null."""
        state = self._state or packed(pa.array([], pa.large_string()))
        names = unpacked(state)
        offsets, codes, words = encoded(rows[CONCEPTS])
        rank = pc.fill_null(pc.index_in(words, value_set=names), -1).to_numpy().astype(np.int64)
        found = np.full(rows.num_rows, -1, np.int64)
        there = np.flatnonzero(np.diff(offsets) > 0)
        if len(there):
            found[there] = np.maximum.reduceat(rank[codes], offsets[there])
        return Result(pa.table({COLUMN: labels(found, names.to_pylist(), self._config.others)}), [])
