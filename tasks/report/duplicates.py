"""Groups of duplicates: how large each one is, exactly, and which of them are shown.

A group is a keeper and the rows that one stage dropped in its favour. Both may lie in any block: a block counts what it
dropped by keeper and sends the counts to the block that holds the keeper, where they are added up in one number a row.
Memory is bounded by a block, however many rows are dropped, and nothing in Python is made per row or group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.shards import Shard
from tasks.report.gallery import places
from tasks.report.subject import codes, starts

NEEDED = ("stage", "keeper_file", "keeper_row")
STRIPS = 8
"""Groups shown of a stage at most."""
MEMBERS = 5
"""Dropped rows shown of a group."""
LARGEST = 5
"""Sizes told of the largest groups."""
KINDS = ("largest", "typical", "random")
ENDS = [2, 3, 4, 5, *(factor * 10**power for power in range(1, 13) for factor in (1, 2, 5))]
"""Largest sizes of the bins in which groups are told."""

COUNTS = pa.schema([("stage", pa.int16()), ("at", pa.int64()), ("dropped", pa.int64())])
"""`at`: the keeper's place in the ledger of its block."""
GROUPS = pa.schema(
    [
        ("stage", pa.int16()),
        ("dropped", pa.int64()),
        ("order", pa.uint64()),
        ("keeper_file", pa.string()),
        ("keeper_row", pa.int64()),
    ]
)
ROWS = pa.schema(
    [
        ("group", pa.int64()),
        ("order", pa.uint64()),
        ("file", pa.string()),
        ("row", pa.int64()),
        ("reason", pa.string()),
        ("score", pa.float32()),
    ]
)


class Sizes(NamedTuple):
    """How many groups there are of each size, keepers counted: int64 `(s,)` each, sizes ascending."""

    size: np.ndarray
    groups: np.ndarray


# ---------------------------------------------------------------------------------------------------------- every block
def file_places(blocks: Iterable[tuple[int, list[Shard]]]) -> pa.Table:
    """Where each input file lies: `file, block, at`, the place of its first row in the block's ledger."""
    lines = [(shard.file, number, at) for number, shards in blocks for shard, at in starts((number, shards))]
    names = ("file", "block", "at")
    columns = zip(*lines, strict=True) if lines else ((), (), ())
    kinds = (pa.string(), pa.int64(), pa.int64())
    return pa.table({n: pa.array(c, k) for n, c, k in zip(names, columns, kinds, strict=True)})


def by_keeper(ledger: pa.Table, stages: Sequence[str], where: pa.Table) -> tuple[pa.Table, np.ndarray]:
    """What one block dropped in favour of each keeper: `COUNTS`, and the block of each keeper, int64.

    Args:
        ledger: The columns `NEEDED` of the block's ledger.
        stages: Names of the stages; a line says its place in them.
        where: From `file_places`.
    """
    dropped = ledger.select(NEEDED).filter(ledger["keeper_row"].is_valid())
    (stage, names), (file, words) = codes(dropped["stage"]), codes(dropped["keeper_file"])
    if not dropped.num_rows:
        return COUNTS.empty_table(), np.empty(0, np.int64)
    stage = np.array([stages.index(name) if name in stages else -1 for name in names], np.int64)[stage]
    place = pc.fill_null(pc.index_in(pa.array(words, pa.string()), where["file"].combine_chunks()), -1).to_numpy()[file]
    known = (stage >= 0) & (place >= 0)
    place, stage = place[known], stage[known]
    at = where["at"].to_numpy()[place] + dropped["keeper_row"].to_numpy()[known]
    span = int(at.max(initial=0)) + 1
    key, count = np.unique((where["block"].to_numpy()[place] * len(stages) + stage) * span + at, return_counts=True)
    table = pa.table([pa.array(key // span % len(stages), pa.int16()), key % span, count], schema=COUNTS)
    return table, key // span // len(stages)


def measured(counts: pa.Table, shards: list[Shard], stages: int) -> Iterator[tuple[int, Sizes, pa.Table]]:
    """Of the groups whose keeper lies in one block, stage by stage: the stage, their sizes, those that may be shown.

    Args:
        counts: `COUNTS` from every block, for this one.
        shards: The block's files.
        stages: How many stages there are.
    """
    rows = sum(shard.rows for shard in shards)
    for stage in range(stages):
        dropped = np.zeros(rows, np.int64)
        for batch in counts.to_batches():  # views of mapped files
            mine = batch["stage"].to_numpy() == stage
            dropped[batch["at"].to_numpy()[mine]] += batch["dropped"].to_numpy()[mine]  # a batch has a keeper once
        at = np.flatnonzero(dropped)
        if len(at):
            yield stage, Sizes(*np.unique(dropped[at] + 1, return_counts=True)), _candidates(stage, at, dropped, shards)


def _candidates(stage: int, at: np.ndarray, dropped: np.ndarray, shards: list[Shard]) -> pa.Table:
    """The first `STRIPS` groups of every size by the hash of their keeper: the largest and any are among them."""
    begins = np.cumsum([0, *(shard.rows for shard in shards)])
    file = np.searchsorted(begins, at, side="right") - 1
    names = pa.DictionaryArray.from_arrays(pa.array(file, pa.int32()), pa.array([one.file for one in shards]))
    row = at - begins[file]
    _, order = places(pa.chunked_array([names]), row)
    by_size = np.lexsort((order, dropped[at]))
    sizes = dropped[at][by_size]
    shown = by_size[np.arange(len(at)) - np.searchsorted(sizes, sizes) < STRIPS]
    columns = [np.full(len(shown), stage, np.int16), dropped[at][shown], order[shown]]
    return pa.table([*columns, names.cast(pa.string()).take(pa.array(shown)), row[shown]], schema=GROUPS)


# ------------------------------------------------------------------------------------------------------------ in common
def summed(parts: Iterable[Sizes]) -> Sizes:
    """The sizes of the groups of all blocks."""
    found = [Sizes(np.empty(0, np.int64), np.empty(0, np.int64)), *parts]
    size, at = np.unique(np.concatenate([one.size for one in found]), return_inverse=True)
    groups = np.zeros(len(size), np.int64)
    np.add.at(groups, at, np.concatenate([one.groups for one in found]).astype(np.int64))
    return Sizes(size.astype(np.int64), groups)


def median(sizes: Sizes) -> int:
    """The size of the group in the middle; of an even number the smaller of the two."""
    return int(sizes.size[np.searchsorted(np.cumsum(sizes.groups), (sizes.groups.sum() + 1) // 2)])


def told(sizes: Sizes) -> dict[str, Any]:
    """What the report says of the sizes.

    Returns:
        `groups`; `rows`, keepers counted; `median`; `largest`: at most `LARGEST` sizes, descending; `bins`: lists of
        least size, largest size, groups.
    """
    at = np.searchsorted(ENDS, sizes.size)
    count = np.bincount(at, weights=sizes.groups).astype(np.int64).tolist()
    begins = [2, *(end + 1 for end in ENDS)]
    bins = [[begins[i], ENDS[i], n] for i, n in enumerate(count)]
    bins[-1][1] = int(sizes.size[-1])
    top = np.repeat(sizes.size[::-1][:LARGEST], np.minimum(sizes.groups[::-1][:LARGEST], LARGEST))[:LARGEST]
    return {
        "groups": int(sizes.groups.sum()),
        "rows": int((sizes.size * sizes.groups).sum()),
        "median": median(sizes),
        "largest": top.tolist(),
        "bins": bins,
    }


def shares(most: int) -> dict[str, int]:
    """How many groups of each of `KINDS` are shown where `most` rows of a reason are."""
    strips = min(STRIPS, most)
    largest = -(-strips // 4)
    typical = (strips - largest + 1) // 2
    return {"largest": largest, "typical": typical, "random": strips - largest - typical}


def choose(candidates: pa.Table, medians: Mapping[int, int], stages: Sequence[str], most: int) -> list[dict[str, Any]]:
    """The groups to show, from the candidates of all blocks: {stage, why, dropped, keeper: [file, row]}.

    `why` is one of `KINDS`: the largest; of median size; any, by the hash of the keeper, of other sizes if there are.

    Args:
        candidates: `GROUPS`.
        medians: Median size by the number of the stage.
        stages: Names of the stages.
        most: Rows that are shown of a reason.
    """
    chosen = []
    for stage, middle in sorted(medians.items()):
        mine = candidates.filter(pc.equal(candidates["stage"], stage))
        dropped, order = mine["dropped"].to_numpy(), mine["order"].to_numpy()
        typical = dropped == middle - 1
        ways = (np.lexsort((order, -dropped)), np.lexsort((order, ~typical)), np.lexsort((order, typical)))
        left = np.ones(len(order), bool)
        for why, way in zip(KINDS, ways, strict=True):
            fits = way[left[way] & (typical[way] | (why != "typical"))]
            picked = fits[: shares(most)[why]]
            left[picked] = False
            for line in mine.take(pa.array(picked)).to_pylist():
                keeper = [line["keeper_file"], line["keeper_row"]]
                chosen.append({"stage": stages[stage], "why": why, "dropped": line["dropped"], "keeper": keeper})
    return chosen


# -------------------------------------------------------------------------------------------------------------- members
def members(ledger: pa.Table, groups: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The rows of one block that may be shown of each of `groups`, at most `MEMBERS` of each: `ROWS`.

    Args:
        ledger: The columns `NEEDED` and `file, row, reason, score` of the block's ledger.
        groups: As `choose` returns them.
    """
    at = np.flatnonzero(np.isin(ledger["keeper_row"].fill_null(-1).to_numpy(), [one["keeper"][1] for one in groups]))
    near = ledger.take(pa.array(at))
    _, order = places(near["file"], near["row"].to_numpy())
    lines = [near[name].cast(pa.string()) for name in ("stage", "keeper_file")]
    row = near["keeper_row"].to_numpy()
    found = [ROWS.empty_table()]
    for number, one in enumerate(groups):
        mine = pc.and_(pc.equal(lines[0], one["stage"]), pc.equal(lines[1], one["keeper"][0])).fill_null(False)
        mine = np.flatnonzero(mine.to_numpy() & (row == one["keeper"][1]))
        mine = mine[np.argsort(order[mine])[:MEMBERS]]
        columns = {"group": np.full(len(mine), number), "order": order[mine]}
        columns |= {name: near[name].take(pa.array(mine)) for name in ("file", "row", "reason", "score")}
        found.append(pa.table(columns).select(ROWS.names).cast(ROWS))
    return pa.concat_tables(found)


def with_members(groups: Sequence[Mapping[str, Any]], found: pa.Table) -> list[dict[str, Any]]:
    """The groups with `members`, [file, row] each, and the `reason` of the first, from what all blocks found.

    A long group is represented by the rows with the smallest hashes; they stand by similarity, the most alike first.
    """
    lines: dict[int, list[dict[str, Any]]] = {number: [] for number in range(len(groups))}
    for line in found.sort_by([("group", "ascending"), ("order", "ascending")]).to_pylist():
        if len(lines[line["group"]]) < MEMBERS:
            lines[line["group"]].append(line)
    result = []
    for number, group in enumerate(groups):
        rows = sorted(lines[number], key=lambda line: -line["score"] if line["score"] is not None else np.inf)
        result.append({**group, "reason": rows[0]["reason"], "members": [[line["file"], line["row"]] for line in rows]})
    return result
