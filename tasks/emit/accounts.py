"""Accounting at the end of a run: the ledger and quarantine of one block of input files, from what the store says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from storage import files, ledger, shards
from storage.exchange import SHARD
from storage.ledger import Fate
from storage.shards import Shard
from storage.steps import Step, parquet_bytes
from storage.view import View
from tasks.emit.layout import Block, Layout, rows_of_shard


@dataclass(frozen=True)
class Sources:
    """Where the fate of rows is written down."""

    view: View
    labels: dict[str, str]
    """Fingerprint of a per-shard step or select -> its name in the ledger, `select/threshold` for one."""
    mix: Step
    whole_draws: int
    """Draws in whole superbatches; the rest is the tail."""
    keeper_of: dict[str, str]
    """Duplicate file -> the file of the same content that stands for it."""
    damaged: dict[str, str]
    """File that is quarantined as a whole -> why."""


def account(
    step: Step, layout: Layout, sources: Sources, block: Block, plan: pa.Table | None, values: pa.Table | None = None
) -> None:
    """Write one part of the ledger and of the quarantine, and their tally as commit point.

    Args:
        plan: The planned rows of the block; None if there are none.
        values: What `tasks.emit.layout.locate_values` sent to the block.
    """
    number, entries = block
    ledgers, quarantined = [], []
    for entry in entries:
        if entry.file in sources.damaged:
            ledgers.append(ledger.damaged_file(entry.file, entry.digest, entry.rows))
            quarantined.append(ledger.damaged(entry.file, entry.digest, sources.damaged[entry.file]))
        elif entry.file in sources.keeper_of:
            keys, keeper = keys_of(sources.view, entry), sources.keeper_of[entry.file]
            ledgers.append(ledger.duplicate_file(entry.file, entry.digest, keys, entry.rows, keeper))
        else:
            fate = fate_of(sources, entry, rows_of_shard(plan, entry), values)
            ledgers.append(ledger.ledger(fate))
            quarantined.append(ledger.quarantine(fate))
    table, bad = pa.concat_tables(ledgers), pa.concat_tables([ledger.QUARANTINE.empty_table(), *quarantined])
    written = {"ledger": table} | ({"quarantine": bad} if bad.num_rows else {})
    for name, rows in written.items():
        files.write_bytes(files.join(layout.url, name, f"part-{number:05d}.parquet"), parquet_bytes(rows))
    step.commit(f"block-{number:05d}", tally=ledger.tally(table), rows=table.num_rows, written=sorted(written))


def fate_of(sources: Sources, shard: Shard, plan: pa.Table | None, values: pa.Table | None = None) -> Fate:
    """All that the store knows of the rows of one shard."""
    view, draws = sources.view, sources.mix.read(shard.digest, ["draw", "row"])
    rows, whole = draws["row"].to_numpy(), draws["draw"].to_numpy() < sources.whole_draws
    nothing = np.empty(0, np.int64)
    valued = None
    if values is not None:
        mine = values.filter(pa.compute.equal(values[SHARD], shard.index))
        valued = mine["row"].to_numpy(), mine["value"].to_numpy()
    return Fate(
        file=shard.file,
        shard=shard.digest,
        keys=keys_of(view, shard),
        rows=shard.rows,
        failures=[(sources.labels[s.fingerprint], s.failures(shard.digest)) for s in view.failing],
        decisions=[(sources.labels[s.fingerprint], s.read(shard.digest)) for s in view.decisions],
        drawn=rows,
        in_batches=rows[whole],
        used=plan["row"].to_numpy() if plan else nothing,
        steps=plan["step"].to_numpy() if plan else nothing,
        valued=valued,
    )


def keys_of(view: View, shard: Shard) -> pa.Array | None:
    """The user's keys as strings, or None where there is no key column."""
    if "key" not in view.inputs:
        return None
    keys = shards.as_label(shards.read(shard, [view.inputs["key"]]).column(0)).combine_chunks()
    return keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys
