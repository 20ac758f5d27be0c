"""Which rows the galleries show: the same ones in every run, chosen without looking at more than a block at a time.

Every row has a hash of its file and number; the smallest hashes are shown. Rows are taken by stretches of
`STRETCH_ROWS` consecutive ones, at most `PER_STRETCH` of each, and all galleries go through the stretches in the same
order: so a hundred pictures cost a few row groups. The choice does not depend on how files are divided into blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from storage.fingerprints import digest
from tasks.report.subject import codes

STRETCH_ROWS = 1024
PER_STRETCH = 3
GROUPS = 6
"""Groups of duplicates shown for a reason: half of them the largest, half any."""
MEMBERS = 5
"""Dropped rows shown of a group."""

NEEDED = ("file", "row", "outcome", "stage", "reason", "keeper_file", "keeper_row")

ROWS = pa.schema(
    [
        ("outcome", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("turn", pa.int64()),
        ("stretch", pa.uint64()),
        ("order", pa.uint64()),
        ("file", pa.string()),
        ("row", pa.int64()),
    ]
)
GROUPED = pa.schema(
    [
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("block", pa.int64()),
        ("keeper", pa.uint64()),
        ("keeper_file", pa.string()),
        ("keeper_row", pa.int64()),
        ("dropped", pa.int64()),
        ("order", pa.uint64()),
        ("file", pa.string()),
        ("row", pa.int64()),
    ]
)


def places(files: pa.ChunkedArray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hash of each row's stretch and of the row itself, uint64 `(n,)` each.

    Args:
        files: Dictionary-encoded string `(n,)`, no nulls.
        rows: int64 `(n,)`.
    """
    code, names = codes(files)
    seeds = np.array([int(digest(name.encode())[:16], 16) for name in names], np.uint64)
    base = seeds[code] if len(code) else np.empty(0, np.uint64)
    number = rows.astype(np.uint64)
    return _mixed(base ^ _mixed(number // np.uint64(STRETCH_ROWS))), _mixed(base + _mixed(number))


def _mixed(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64: a bijection that scatters neighbours."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def row_candidates(ledger: pa.Table, most: int) -> pa.Table:
    """The rows of one block that may be shown, at most `most` of each outcome, stage and reason: `ROWS`.

    Args:
        ledger: The columns `NEEDED` of the block's ledger.
        most: Rows in a gallery.
    """
    stretch, order = places(ledger["file"], ledger["row"].to_numpy())
    fates = [codes(ledger[name]) for name in ("outcome", "stage", "reason")]
    group = np.zeros(ledger.num_rows, np.int64)
    for code, names in fates:
        group = group * (len(names) + 1) + code + 1
    turns, picked = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for one in np.unique(group).tolist():
        rows, turn = _first(np.flatnonzero(group == one), stretch, order, most)
        picked.append(rows)
        turns.append(turn)
    at = np.concatenate(picked)
    told = ledger.select(["outcome", "stage", "reason", "file", "row"]).take(pa.array(at))
    told = told.append_column("turn", pa.array(np.concatenate(turns)))
    told = told.append_column("stretch", pa.array(stretch[at])).append_column("order", pa.array(order[at]))
    return told.select(ROWS.names).cast(ROWS)


def _first(rows: np.ndarray, stretch: np.ndarray, order: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `most` of `rows`, and their turn: a stretch gives `PER_STRETCH` rows, then waits for its next turn."""
    enough = most * STRETCH_ROWS  # rows of so many whole stretches, or more: no row beyond can be among the first
    if len(rows) > enough:
        rows = rows[stretch[rows] <= np.partition(stretch[rows], enough)[enough]]
    rows = rows[np.lexsort((order[rows], stretch[rows]))]
    _, begins, lengths = np.unique(stretch[rows], return_index=True, return_counts=True)
    turn = (np.arange(len(rows)) - np.repeat(begins, lengths)) // PER_STRETCH
    chosen = np.lexsort((order[rows], stretch[rows], turn))[:most]
    return rows[chosen], turn[chosen]


def group_candidates(ledger: pa.Table, block: int) -> pa.Table:
    """The groups of duplicates in one block that may be shown, one line a member: `GROUPED`.

    Args:
        ledger: The columns `NEEDED` of the block's ledger.
        block: The block's number.
    """
    having = np.flatnonzero(ledger["keeper_row"].is_valid().to_numpy())
    dropped = ledger.take(pa.array(having))
    _, keeper = places(dropped["keeper_file"], dropped["keeper_row"].to_numpy())
    _, order = places(dropped["file"], dropped["row"].to_numpy())
    stages, reasons = codes(dropped["stage"]), codes(dropped["reason"])
    kind = stages[0] * (len(reasons[1]) + 1) + reasons[0]
    lines, sizes = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for one in np.unique(kind).tolist():
        rows = np.flatnonzero(kind == one)
        names, first, rank, count = np.unique(keeper[rows], return_index=True, return_inverse=True, return_counts=True)
        del first
        largest = np.lexsort((names, -count))[:GROUPS]
        for group in sorted({*largest.tolist(), *range(min(GROUPS, len(names)))}):
            members = rows[rank == group]
            members = members[np.argsort(order[members])[:MEMBERS]]
            lines.append(members)
            sizes.append(np.full(len(members), count[group]))
    at = np.concatenate(lines)
    table = dropped.select(["stage", "reason", "keeper_file", "keeper_row", "file", "row"]).take(pa.array(at))
    table = table.append_column("keeper", pa.array(keeper[at])).append_column("order", pa.array(order[at]))
    table = table.append_column("dropped", pa.array(np.concatenate(sizes)))
    return table.append_column("block", pa.array(np.full(len(at), block))).select(GROUPED.names).cast(GROUPED)


def choose_rows(candidates: pa.Table, most: int) -> list[dict[str, Any]]:
    """The galleries, from the candidates of all blocks: {outcome, stage, reason, rows: [[file, row], ...]}."""
    keys = [("outcome", "ascending"), ("stage", "ascending"), ("reason", "ascending")]
    ordered = candidates.sort_by([*keys, ("turn", "ascending"), ("stretch", "ascending"), ("order", "ascending")])
    found: dict[tuple[str, str, str], list[list[Any]]] = {}
    for line in ordered.select(["outcome", "stage", "reason", "file", "row"]).to_pylist():
        rows = found.setdefault((line["outcome"], line["stage"] or "", line["reason"] or ""), [])
        if len(rows) < most:
            rows.append([line["file"], line["row"]])
    return [{"outcome": o, "stage": s, "reason": r, "rows": rows} for (o, s, r), rows in found.items()]


def choose_groups(candidates: pa.Table) -> list[dict[str, Any]]:
    """The groups, from the candidates of all blocks: {stage, reason, keeper: [file, row], members: [[file, row], ...]}.

    Of each reason half are the largest as far as the candidates tell, half those with the smallest hashes.
    """
    kinds: dict[tuple[str, str], dict[int, list[dict[str, Any]]]] = {}
    for line in candidates.to_pylist():
        kinds.setdefault((line["stage"], line["reason"]), {}).setdefault(line["keeper"], []).append(line)
    chosen = []
    for (stage, reason), groups in sorted(kinds.items()):
        by_size = sorted(groups, key=lambda keeper: (-_dropped(groups[keeper]), keeper))
        largest = by_size[: GROUPS // 2]
        others = [keeper for keeper in sorted(groups) if keeper not in largest][: GROUPS - len(largest)]
        for keeper in [*largest, *others]:
            lines = sorted(groups[keeper], key=lambda line: line["order"])[:MEMBERS]
            kept = [lines[0]["keeper_file"], lines[0]["keeper_row"]]
            members = [[line["file"], line["row"]] for line in lines]
            chosen.append({"stage": stage, "reason": reason, "keeper": kept, "members": members})
    return chosen


def _dropped(lines: list[dict[str, Any]]) -> int:
    """Dropped rows of one group; every block gave its number with each of its lines."""
    return sum({line["block"]: line["dropped"] for line in lines}.values())


def members_in(ledger: pa.Table, groups: list[dict[str, Any]]) -> list[int]:
    """How many rows of one block each of `groups` has: exact, whatever the candidates told.

    Args:
        ledger: The columns `NEEDED` of the block's ledger.
        groups: As `choose_groups` returns them.
    """
    rows = ledger["keeper_row"].fill_null(-1).to_numpy()
    near = np.flatnonzero(np.isin(rows, [group["keeper"][1] for group in groups]))
    names = ("stage", "reason", "keeper_file", "keeper_row")
    few = ledger.take(pa.array(near))
    plain = pa.table({name: few[name].cast(pa.int64() if name == "keeper_row" else pa.string()) for name in names})
    counted = plain.group_by(list(names)).aggregate([([], "count_all")]).to_pylist()
    found = {tuple(line[name] for name in names): int(line["count_all"]) for line in counted}
    return [found.get((group["stage"], group["reason"], *group["keeper"]), 0) for group in groups]
