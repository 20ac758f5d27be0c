"""Rows that show a concept: of those whose share rose the ones that are used, of those whose share fell dropped ones.

Found block by block and shard by shard, so that memory is bounded by a shard; from different files if there are any,
and by the hashes of `tasks.report.gallery`, so that the choice depends on neither the blocks nor the workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.report.concepts import flat
from tasks.report.gallery import places
from tasks.report.subject import codes

MOST = 3
"""Rows shown of a concept."""
NEEDED = ("file", "row", "outcome", "times_used")
ORDER = ("tier", "turn", "stretch", "order")
CANDIDATES = pa.schema(
    [
        ("concept", pa.string()),
        ("tier", pa.int8()),
        ("turn", pa.int64()),
        ("stretch", pa.uint64()),
        ("order", pa.uint64()),
        ("file", pa.string()),
        ("row", pa.int64()),
    ]
)
"""`tier`: the lower the better; `turn`: how many rows of the same file and tier come first."""

TIERS = {"dropped": 0, "kept": 1}
"""Of concepts with a smaller share, by outcome; what is quarantined comes last, its picture may be no picture."""


def candidates(concepts: pa.ChunkedArray, ledger: pa.Table, more: Sequence[str], less: Sequence[str]) -> pa.Table:
    """At most `MOST` rows of one shard for each concept: `CANDIDATES`.

    Args:
        concepts: list<string> `(n,)`, nulls allowed.
        ledger: The columns `NEEDED` of the shard's part of the ledger, `(n,)`.
        more: Concepts whose share rose.
        less: Concepts whose share fell.
    """
    values, rows = flat(concepts)
    names = [*more, *less]
    codes = pc.index_in(values, pa.array(names, pa.string())).fill_null(-1).to_numpy()
    found = [CANDIDATES.empty_table()]
    for code, name in enumerate(names):
        mine = ledger.take(pa.array(np.unique(rows[codes == code])))
        if code < len(more):
            mine = mine.filter(pc.greater(mine["times_used"], 0))
        found.append(_first(mine, name, by_outcome=code >= len(more)))
    return pa.concat_tables(found)


def _first(ledger: pa.Table, concept: str, *, by_outcome: bool) -> pa.Table:
    """The best rows of one shard that hold `concept`."""
    stretch, order = places(ledger["file"], ledger["row"].to_numpy())
    tier = np.zeros(ledger.num_rows, np.int8)
    if by_outcome:
        outcome, words = codes(ledger["outcome"])
        tier = np.array([TIERS.get(word, len(TIERS)) for word in words], np.int8)[outcome]
    at = np.lexsort((order, stretch, tier))[:MOST]
    turn = np.arange(len(at)) - np.searchsorted(tier[at], tier[at])
    columns = {"concept": pa.array([concept] * len(at), pa.string()), "tier": tier[at], "turn": turn}
    columns |= {"stretch": stretch[at], "order": order[at]}
    columns |= {name: ledger[name].take(pa.array(at)) for name in ("file", "row")}
    return pa.table(columns).select(CANDIDATES.names).cast(CANDIDATES)


def choose(found: pa.Table) -> dict[str, list[list[Any]]]:
    """Concept -> at most `MOST` of its rows, [file, row] each, from the candidates of all shards."""
    chosen: dict[str, list[list[Any]]] = {}
    for line in found.sort_by([(name, "ascending") for name in ORDER]).to_pylist():
        rows = chosen.setdefault(line["concept"], [])
        if len(rows) < MOST:
            rows.append([line["file"], line["row"]])
    return chosen
