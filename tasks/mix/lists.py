"""Group counts, the draw plan and the draw list between tasks and store."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage import files, states
from storage.exchange import SHARD
from storage.shards import Shard, as_label
from storage.steps import Step, parquet_bytes
from storage.view import View
from tasks import summaries
from tasks.mix import Group
from tasks.mix.draws import DrawPlan

EVERYTHING = "all"
NOTHING = "(none)"


def group_labels(view: View, group: str | None, shard: Shard) -> tuple[np.ndarray, pa.Array]:
    """Surviving rows of a shard, int64 `(n,)`, and their groups as strings; nulls are a group of their own."""
    if group is None:
        rows = np.flatnonzero(view.alive(shard))
        return rows, pa.array([EVERYTHING]).take(pa.array(np.zeros(len(rows), np.int32)))
    table = view.alive_rows(shard, (group,))
    labels = pc.fill_null(as_label(table[group]), NOTHING).combine_chunks()
    return table["row"].to_numpy(), labels


def summarise_groups(step: Step, view: View, method: Any, group: str | None, shard: Shard) -> None:
    """Write what a learned mixing law needs to know of a shard."""
    rows, labels = group_labels(view, group, shard)
    seen = view.table(shard, method.needs).take(pa.array(rows))
    summary = method.summarise(seen.add_column(0, "row", pa.array(rows)), labels)
    files.write_bytes(step.file(f"{summaries.FOLDER}/{shard.digest}.parquet"), parquet_bytes(summary))


def count_groups(step: Step, view: View, group: str | None, size_columns: tuple[str, ...], shard: Shard) -> None:
    """Write how many surviving rows of each group a shard has, and their sizes: the sums of `size_columns`."""
    rows, labels = group_labels(view, group, shard)
    table = view.table(shard, size_columns).take(pa.array(rows))
    sizes = [pc.fill_null(table[name], 0).cast(pa.int64()).to_numpy() for name in size_columns]
    size = np.sum(sizes, axis=0) if sizes else np.zeros(len(rows), np.int64)
    found = pa.table({"group": labels, "size": size}).group_by("group").aggregate([("size", "count"), ("size", "sum")])
    table = pa.table({"group": found["group"], "rows": found["size_count"], "size": found["size_sum"]}).sort_by("group")
    files.write_bytes(step.file(f"spill/counts/{shard.digest}.parquet"), parquet_bytes(table))


def _counts(step: Step, shard: Shard) -> dict[str, tuple[int, int]]:
    """Rows and size of each group of a shard."""
    table = step.read(f"spill/counts/{shard.digest}")
    numbers = zip(table["rows"].to_pylist(), table["size"].to_pylist(), strict=True)
    return dict(zip(table["group"].to_pylist(), numbers, strict=True))


def total_groups(step: Step, shards: list[Shard]) -> list[Group]:
    """All groups with their rows, in code-point order of the names."""
    total: dict[str, tuple[int, int]] = {}
    for shard in shards:
        for name, (rows, size) in _counts(step, shard).items():
            before = total.get(name, (0, 0))
            total[name] = before[0] + rows, before[1] + size
    return [Group(name, *total[name]) for name in sorted(total)]


def group_offsets(step: Step, names: list[str], shards: list[Shard]) -> np.ndarray:
    """Surviving rows of each group in earlier shards, int64 `(shards, groups)`."""
    index = {name: i for i, name in enumerate(names)}
    counts = np.zeros((len(shards), len(names)), np.int64)
    for shard in shards:
        for name, (rows, _) in _counts(step, shard).items():
            counts[shard.index, index[name]] = rows
    return np.cumsum(counts, axis=0) - counts


def shard_groups(view: View, group: str | None, names: list[str], shard: Shard) -> tuple[np.ndarray, np.ndarray]:
    """Surviving rows of a shard and the index of each one's group: two int64 `(n,)`."""
    rows, labels = group_labels(view, group, shard)
    return rows, pc.index_in(labels, pa.array(names, pa.string())).to_numpy(zero_copy_only=False).astype(np.int64)


def save_plan(
    step: Step, names: list[str], plan: DrawPlan, shards: list[Shard], told: dict[str, Any]
) -> dict[str, Any]:
    """Keep the plan and each shard's place in it; returns what the flow needs to know of it, `told` included."""
    facts = {"groups": names, "rows": plan.rows.tolist(), "counts": plan.counts.tolist(), "draws": plan.total, **told}
    state = {"counts": plan.counts, "rows": plan.rows, "seed": np.uint64(plan.seed)}
    states.save(step.file("plan.npz"), state | {"offsets": group_offsets(step, names, shards)})
    files.write_json(step.file("_plan.json"), facts)
    return facts


def plan_facts(step: Step) -> dict[str, Any] | None:
    """What `save_plan` returned, which writes it last; None before that."""
    return dict(files.read_json(step.file("_plan.json"))) if files.exists(step.file("_plan.json")) else None


def read_plan(step: Step) -> tuple[list[str], DrawPlan, np.ndarray]:
    """Names of the groups, the plan, and rows of each group in earlier shards: int64 `(shards, groups)`."""
    state = states.load(step.file("plan.npz"))
    names = files.read_json(step.file("_plan.json"))["groups"]
    return names, DrawPlan(state["counts"], state["rows"], int(state["seed"])), state["offsets"]


def write_part(step: Step, part: int, table: pa.Table | None, shards: list[Shard]) -> None:
    """Write one part of the draw list: `draw, round, shard, row, weight`."""
    if table is None:
        return
    table = table.sort_by("draw")
    digests = pa.DictionaryArray.from_arrays(table[SHARD].combine_chunks(), [shard.digest for shard in shards])
    columns = {name: table[name] for name in ("draw", "round")} | {"shard": digests}
    columns |= {name: table[name] for name in ("row", "weight")}
    files.write_bytes(step.file(f"part-{part:05d}.parquet"), parquet_bytes(pa.table(columns)))
