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

NEEDED = ("file", "row", "outcome", "stage", "reason")

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
