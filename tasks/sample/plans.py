"""The batch plan: draws with what the sampler needs to know go in, batches come out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from storage import files
from storage.exchange import SHARD, spill, take
from storage.shards import Shard
from storage.steps import Step, parquet_bytes
from storage.view import View
from tasks.sample import coverage
from tasks.sample.coverage import Account

CARRIED = ("draw", "round", "row", "weight", "group", SHARD)


def attach(step: Step, mix: Step, view: View, needs: tuple[str, ...], part_rows: int, shard: Shard) -> None:
    """Send the draws of one shard to their parts, each with the columns of `needs` of its row."""
    draws = mix.read(shard.digest)
    draws = draws.append_column(SHARD, pa.array(np.full(draws.num_rows, shard.index), pa.int32())).select(CARRIED)
    if needs:
        needed = take(view.table(shard, needs), draws["row"].to_numpy())
        for name in needs:
            told = needed.schema.field(name)  # a sketch's metadata says how it was made
            draws = draws.append_column(pa.field(name, told.type, metadata=told.metadata), needed[name])
    spill(step, "draws", shard.digest, [(draws, draws["draw"].to_numpy() // part_rows)])


def pick_part(
    step: Step, method: Any, config: Any, part_rows: int, part: int, draws: pa.Table | None, shards: list[Shard]
) -> None:
    """Write one part of the batch plan: the picks of its whole superbatches, in batch order."""
    size = config.superbatch
    draws = draws.sort_by("draw") if draws is not None else None
    steps = (draws.num_rows if draws is not None else 0) // size
    first = part * (part_rows // size)
    picks, ranks, slots, lengths = [], [], [], []
    accounts: list[Account] = []
    values: list[dict[str, np.ndarray]] = []
    for number in range(steps):
        superbatch = draws.slice(number * size, size).select(method.needs)  # type: ignore[union-attr]
        if hasattr(method, "pick_and_account"):
            per_rank, told = method.pick_and_account(superbatch, first + number)
            accounts.append(told)
        elif hasattr(method, "pick_and_value"):
            per_rank, numbers = method.pick_and_value(superbatch, first + number)
            values.append(numbers)
        else:
            per_rank = method.pick(superbatch, first + number)
        picks += [number * size + indices for indices in per_rank]
        ranks += [np.full(len(indices), rank) for rank, indices in enumerate(per_rank)]
        slots += [np.arange(len(indices)) for indices in per_rank]
        lengths.append(sum(len(indices) for indices in per_rank))
    if not steps or draws is None:
        step.commit(f"part-{part:05d}", rows=0, steps=0, groups={})
        return
    taken = np.concatenate(picks)
    chosen = draws.select(CARRIED).take(pa.array(taken))
    digests = pa.DictionaryArray.from_arrays(chosen[SHARD].combine_chunks(), [shard.digest for shard in shards])
    columns = {
        "step": pa.array(np.repeat(first + np.arange(steps), lengths), pa.int64()),
        "rank": pa.array(np.concatenate(ranks), pa.int32()),
        "slot": pa.array(np.concatenate(slots), pa.int32()),
        "draw": chosen["draw"],
        "shard": digests,
        **{name: chosen[name] for name in ("row", "round", "weight", "group", SHARD)},
    }
    files.write_bytes(step.file(f"part-{part:05d}.parquet"), parquet_bytes(pa.table(columns)))
    if accounts:
        coverage.leave(step, part, first, accounts)
    if values:
        told = _valued(draws.slice(0, steps * size), taken, values)
        files.write_bytes(step.file(f"values-{part:05d}.parquet"), parquet_bytes(told))
    counts = np.bincount(chosen["group"].to_numpy())
    step.commit(f"part-{part:05d}", rows=chosen.num_rows, steps=steps, groups=dict(enumerate(counts.tolist())))


def _valued(draws: pa.Table, taken: np.ndarray, values: list[dict[str, np.ndarray]]) -> pa.Table:
    """What a sampler went by: one row a draw of whole superbatches, in order, picked or not.

    Args:
        draws: These draws.
        taken: Which of them were picked: indices.
        values: By superbatch, name -> float32 `(B,)`.
    """
    picked = np.zeros(draws.num_rows, bool)
    picked[taken] = True
    columns = {name: draws[name] for name in ("draw", "round", "row", SHARD, "group")} | {"picked": pa.array(picked)}
    for name in values[0]:
        columns[name] = pa.array(np.concatenate([numbers[name] for numbers in values]), pa.float32())
    return pa.table(columns)
