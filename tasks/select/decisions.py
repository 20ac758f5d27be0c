"""Decisions between methods and the store: row identities are added on the way in, resolved on the way out."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage import exchange, files
from storage.exchange import ROW, SHARD
from storage.shards import Shard
from storage.states import State
from storage.steps import Step, parquet_bytes
from storage.view import View
from tasks.select import Decisions, targets

TRAVELLING = pa.schema(
    [
        (SHARD, pa.int32()),
        (ROW, pa.int64()),
        ("keep", pa.bool_()),
        ("reason", pa.string()),
        ("score", pa.float32()),
        ("keeper_shard", pa.int32()),
        ("keeper_row", pa.int64()),
    ]
)


def rows_of(view: View, shard: Shard, needs: tuple[str, ...]) -> pa.Table:
    """The alive rows of a shard with `needs`, `__shard` and `__row`."""
    rows = view.alive_rows(shard, needs)
    place = pa.array(np.full(rows.num_rows, shard.index), pa.int32())
    return rows.rename_columns([ROW, *needs]).append_column(SHARD, place)


def decisions_table(rows: pa.Table, decisions: Decisions) -> pa.Table:
    """Decisions as rows that can travel: the keeper's index becomes its shard and row."""
    shard, row = rows.column(SHARD).to_numpy(), rows.column(ROW).to_numpy()
    known = decisions.keeper >= 0
    at = np.where(known, decisions.keeper, 0)
    nothing = np.zeros(1, np.int64)
    return pa.table(
        [
            pa.array(shard, pa.int32()),
            pa.array(row, pa.int64()),
            pa.array(decisions.keep),
            pa.array(decisions.reason, pa.string(), mask=decisions.keep),
            pa.array(decisions.score, pa.float32(), mask=np.isnan(decisions.score)),
            pa.array((shard if len(shard) else nothing)[at], pa.int32(), mask=~known),
            pa.array((row if len(row) else nothing)[at], pa.int64(), mask=~known),
        ],
        schema=TRAVELLING,
    )


def decided(step: Step, method: Any, config: Any, state: State, source: str, rows: pa.Table) -> Decisions | None:
    """What the method decides on a bucket or shard; None if it ranks rows: then the ranks are kept under `source`."""
    decisions: Decisions = method.decide(rows, state)
    if decisions.counts:
        files.write_json(step.file(f"spill/counts/{source}.json"), dict(decisions.counts))
    if not targets.is_ranked(method):
        return decisions
    targets.write_ranks(step, method, config, source, rows, decisions)
    return None


def send_home(step: Step, source: str, rows: pa.Table, decisions: Decisions | None) -> None:
    """Send the decisions on one bucket's rows towards their shards, if there are any yet."""
    if decisions is not None:
        table = decisions_table(rows, decisions)
        exchange.spill(step, "decisions", source, [(table, table[SHARD].to_numpy())])


def counts(step: Step) -> dict[str, int]:
    """What decisions counted, summed over buckets and shards."""
    total: Counter[str] = Counter()
    for name in files.names(step.file("spill/counts")):
        total.update(files.read_json(step.file(f"spill/counts/{name}")))
    return dict(total)


def publish_decisions(step: Step, shard: Shard, table: pa.Table | None, names: pa.Array | None) -> None:
    """Write one shard's decisions in row order; `names` are the files of all shards, None: keepers are in this one."""
    table = (TRAVELLING.empty_table() if table is None else table).sort_by(ROW)
    at = table["keeper_shard"].combine_chunks()
    if names is None:
        names, at = pa.array([shard.file]), pc.if_else(pc.is_null(at), at, pa.scalar(0, pa.int32()))
    columns = {
        "shard": pa.DictionaryArray.from_arrays(np.zeros(table.num_rows, np.int32), [shard.digest]),
        "row": table[ROW],
        "keep": table["keep"],
        "reason": table["reason"],
        "score": table["score"],
        "keeper_file": names.take(at),
        "keeper_row": table["keeper_row"],
    }
    files.write_bytes(step.file(f"{shard.digest}.parquet"), parquet_bytes(pa.table(columns)))
    reasons = Counter(table["reason"].drop_null().to_pylist())
    step.commit(shard.digest, rows=table.num_rows, kept=int(np.sum(table["keep"].to_numpy())), reasons=reasons)
