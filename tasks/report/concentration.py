"""How the weight of a mix is spread over its rows, its groups, and rows that are copies of one another.

The weight of a row is how often it is used; n are the rows that are used at least once. Summed block by block; weights
by copy travel by the exchange, so that memory is bounded by a block or a bucket.

Exact copies have one `uid`. Near copies are estimated by cells: rows whose embeddings lie on the same side of each of
`bits` random hyperplanes through a mean of them count as one. Two rows at the angle t about it share a cell with
probability (1 - t / pi)^bits, so of the pairs that are nearly alike some are missed, and few others are taken for
copies. Where there are no embeddings, digests stand for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage import files, packed, states
from storage.exchange import Gathering, spill
from storage.shards import Shard
from storage.steps import Step, parquet_bytes
from storage.view import View
from tasks.embed import vectors
from tasks.emit.layout import Block
from tasks.mix import ess
from tasks.mix.ess import Sums
from tasks.report.subject import Subject
from tasks.select.hashing import random_planes, sign_keys

EMBEDDINGS = ("image_embedding", "text_embedding")
DIGESTS = ("image_digest", "text_digest")
SIZES = {"bytes": ("image_bytes", "text_bytes"), "tokens": ("tokens",)}
"""What the rows of a group may be measured in, and the columns that are summed for it."""
SPARE_BITS = 6
"""Cells are so many powers of two more than rows: of rows that are alike in nothing 1 in 64 shares one by chance."""
FEWEST_BITS, MOST_BITS = 16, 48
CENTER_SHARDS, CENTER_ROWS = 8, 512
"""Shards, and rows of each, that the middle of the embeddings is taken from."""
SCRAMBLE = np.uint64(0x9E3779B97F4A7C15)
COUNTS = ("kept", "uses", "squares", "most", "draws", "drawn")
"""By group: rows used, their uses, the sum of the squares, the largest; draws in whole batches, and rows drawn."""


def cell_column(view: View) -> str | None:
    """The column by which near copies are found; None where there is none."""
    return next((name for name in (*EMBEDDINGS, *DIGESTS) if name in view.sidecars), None)


def cell_bits(rows: int) -> int:
    """Hyperplanes for so many rows."""
    return int(np.clip(int(max(1, rows) - 1).bit_length() + SPARE_BITS, FEWEST_BITS, MOST_BITS))


def leave_center(subject: Subject, shards: Sequence[Shard]) -> None:
    """Leave behind the mean of some embeddings, of shards at equal distances: the hyperplanes pass through it."""
    name, total, count = subject.weighing.cells or "", np.zeros(0), 0
    for number in np.unique(np.linspace(0, len(shards) - 1, CENTER_SHARDS).astype(int)).tolist() if shards else []:
        column = subject.view.table(shards[number], (name,))[name]
        some = np.flatnonzero(column.is_valid().to_numpy())
        some = some[:: max(1, -(-len(some) // CENTER_ROWS))]
        rows = vectors.unpack(column.take(pa.array(some))).astype(np.float64)
        total, count = total + rows.sum(axis=0) if count else rows.sum(axis=0), count + len(rows)
    states.save(subject.step.file("center.npz"), {"center": (total / max(1, count)).astype(np.float32)})


def survey(subject: Subject, block: Block, uses: np.ndarray) -> dict[str, Any]:
    """Leave behind the block's weights by group and by copy; returns rows by weight and draws, JSON-ready.

    Args:
        subject: What the report is about.
        block: Its number and its files.
        uses: int `(rows,)`: how often each row of the block is used.
    """
    number, groups = block[0], subject.picking.groups
    names = (*COUNTS, *subject.weighing.sizes)
    total = {name: np.zeros(groups) for name in names}
    copies: list[pa.Table] = []
    cells: list[pa.Table] = []
    drawn_sums = [Sums()]
    used: list[np.ndarray] = [np.zeros(0, np.int64)]
    center = _center(subject)
    for shard, at in subject.own(block):
        mine = uses[at : at + shard.rows].astype(np.int64)
        group, draws = _drawn(subject, shard)
        rows = np.flatnonzero(mine)
        for name, values in _by_group(group, draws, mine, groups).items():
            total[name] = np.maximum(total[name], values) if name == "most" else total[name] + values
        for name in subject.weighing.sizes:
            sizes = _sizes(subject.view, shard, SIZES[name])
            total[name] += np.bincount(group[rows], (sizes * mine)[rows], groups)
        used.append(mine[rows])
        drawn_sums.append(ess.sums(mine[draws > 0]))
        exact = _keys(subject.view, shard, "uid", rows)
        copies.append(_summed(exact, mine[rows]))
        if subject.weighing.cells:
            near = _near(subject, shard, rows, exact, center)
            cells.append(_summed(near, mine[rows]))
    _leave(subject.step, f"weights-{number:05d}", pa.table(total))
    for name, tables in (("copies", copies), ("cells", cells)):
        spill(subject.step, name, f"{number:05d}", _in_buckets(tables, subject.weighing.buckets))
    values, counts = np.unique(np.concatenate(used), return_counts=True)
    return {"uses": [values.tolist(), counts.tolist()], "drawn": list(ess.merged(drawn_sums))}


def gather(subject: Subject, block_count: int, surveys: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What all blocks say together: `groups`, lists by name; `rows`, `drawn`, `exact` and `near` (or None), `Sums` as
    lists; and `top`, what the heaviest hundredth of the rows holds.

    Args:
        subject: What the report is about.
        block_count: Blocks that were surveyed.
        surveys: From `survey`, of all of them.
    """
    groups: dict[str, np.ndarray] = {}
    for number in range(block_count):
        for name, column in zip(*_columns(subject.step.read(f"weights-{number:05d}")), strict=True):
            old = groups.get(name, np.zeros(len(column)))
            groups[name] = np.maximum(old, column) if name == "most" else old + column
    found = [one for one in surveys]
    values, counts = _tallied([one["uses"] for one in found])
    rows = Sums(
        int(counts.sum()), float(values @ counts), float((values * values) @ counts), float(values.max(initial=0))
    )
    blocks = [f"{number:05d}" for number in range(block_count)]
    near = _copies(subject.step, "cells", blocks) if subject.weighing.cells else None
    return {
        "groups": {name: column.tolist() for name, column in groups.items()},
        "rows": list(rows),
        "drawn": list(ess.merged(Sums(*one["drawn"]) for one in found)),
        "exact": list(_copies(subject.step, "copies", blocks)),
        "near": near and list(near),
        "top": ess.top_share(values, counts),
    }


def _columns(table: pa.Table) -> tuple[list[str], list[np.ndarray]]:
    return table.column_names, [column.to_numpy() for column in table.columns]


def _tallied(parts: Sequence[Sequence[Sequence[int]]]) -> tuple[np.ndarray, np.ndarray]:
    """Distinct weights, ascending, and the rows of each, float64 both."""
    values = np.concatenate([np.zeros(0), *(np.array(one, np.float64) for one, _ in parts)])
    counts = np.concatenate([np.zeros(0), *(np.array(one, np.float64) for _, one in parts)])
    known, at = np.unique(values, return_inverse=True)
    return known, np.bincount(at, counts, len(known))


def _drawn(subject: Subject, shard: Shard) -> tuple[np.ndarray, np.ndarray]:
    """The group of each row of a shard, -1 where it was not drawn, and its draws in whole batches: int64 `(rows,)`."""
    how = subject.picking
    table = how.mixed.read(shard.digest, ["draw", "row", "group"])
    row, group = table["row"].to_numpy(), np.full(shard.rows, -1, np.int64)
    group[row] = table["group"].to_numpy()
    whole = table["draw"].to_numpy() < how.superbatch * subject.steps
    return group, np.bincount(row[whole], minlength=shard.rows)


def _by_group(group: np.ndarray, draws: np.ndarray, uses: np.ndarray, groups: int) -> dict[str, np.ndarray]:
    """The sums of `COUNTS`, float64 `(groups,)` each."""
    used, drawn, most = uses > 0, draws > 0, np.zeros(groups)
    mine = group[used]
    weights = uses[used].astype(np.float64)
    np.maximum.at(most, mine, weights)
    found = [
        np.bincount(mine, minlength=groups).astype(np.float64),
        np.bincount(mine, weights, groups),
        np.bincount(mine, weights * weights, groups),
        most,
        np.bincount(group[drawn], draws[drawn].astype(np.float64), groups),
        np.bincount(group[drawn], minlength=groups).astype(np.float64),
    ]
    return dict(zip(COUNTS, found, strict=True))


def _sizes(view: View, shard: Shard, columns: Sequence[str]) -> np.ndarray:
    """Bytes or tokens of each row of a shard, float64 `(rows,)`; 0 where they are not known."""
    table = view.table(shard, tuple(name for name in columns if name in view.sidecars))
    return np.sum([pc.fill_null(one, 0).to_numpy().astype(np.float64) for one in table.columns], axis=0)


def _center(subject: Subject) -> np.ndarray | None:
    if subject.weighing.cells not in EMBEDDINGS:
        return None
    return states.load(subject.step.file("center.npz"))["center"]


def _keys(view: View, shard: Shard, name: str, rows: np.ndarray) -> np.ndarray:
    """The first 64 bits of a column of digests at some rows, uint64 `(n,)`: two of a billion share them by chance."""
    column = view.table(shard, (name,))[name].take(pa.array(rows))
    return packed.unpack(column, "<u8")[:, 0]


def _near(subject: Subject, shard: Shard, rows: np.ndarray, exact: np.ndarray, center: np.ndarray | None) -> np.ndarray:
    """What near copies among some rows have in common, uint64 `(n,)`; rows without it are copies of their own only."""
    how, name = subject.weighing, subject.weighing.cells or ""
    column = subject.view.table(shard, (name,))[name].take(pa.array(rows))
    if center is None:
        keys = packed.unpack(column, "<u8")[:, 0]
    else:
        found = vectors.unpack(column)
        keys = sign_keys(found, random_planes(how.bits, len(center), 0), center)
    return np.where(column.is_valid().to_numpy(), keys, exact)


def _summed(keys: np.ndarray, weights: np.ndarray) -> pa.Table:
    """Weights by key, each key once, so that a cell that holds everything is one row: `key`, `weight`."""
    known, at = np.unique(keys, return_inverse=True)
    summed = np.bincount(at, weights, len(known)).astype(np.float64)  # of no rows numpy gives whole numbers
    return pa.table({"key": known.astype(np.uint64), "weight": summed})


def _in_buckets(tables: Sequence[pa.Table], buckets: int) -> Iterable[tuple[pa.Table, np.ndarray]]:
    for table in tables:
        scrambled = (table["key"].to_numpy() * SCRAMBLE) >> np.uint64(32)  # keys of hyperplanes leave high bits empty
        yield table, (scrambled % np.uint64(buckets)).astype(np.int64)


def _copies(step: Step, exchange: str, blocks: list[str]) -> Sums:
    """The sums of the weights by copy; memory is bounded by a bucket."""
    arrived = Gathering(step, exchange, blocks)
    parts = []
    for bucket in arrived.buckets():
        table = arrived.gather(bucket)
        if table is not None:
            parts.append(ess.sums(_summed(table["key"].to_numpy(), table["weight"].to_numpy())["weight"].to_numpy()))
    return ess.merged(parts)


def _leave(step: Step, name: str, table: pa.Table) -> None:
    files.write_bytes(step.file(f"{name}.parquet"), parquet_bytes(table))
