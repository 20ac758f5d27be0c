"""The ledger: what became of every input row, and why. Rows in = kept + dropped + quarantined, always."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LEDGER = pa.schema(
    [
        ("file", pa.string()),
        ("shard", pa.string()),
        ("row", pa.int64()),
        ("key", pa.string()),
        ("outcome", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("score", pa.float32()),
        ("keeper_file", pa.string()),
        ("keeper_row", pa.int64()),
        ("times_used", pa.int32()),
        ("first_step", pa.int64()),
    ]
)
QUARANTINE = pa.schema(
    [
        (n, pa.int64() if n == "row" else pa.string())
        for n in ("file", "shard", "row", "key", "stage", "reason", "detail")
    ]
)
DAMAGED_FILE = "damaged_file"
"""Reason of rows of a file that is quarantined as a whole."""
OUTCOMES = ("kept", "dropped", "quarantined")


@dataclass(frozen=True)
class Fate:
    """All that is known of the rows of one shard."""

    file: str
    shard: str
    keys: pa.Array | None
    """string `(n,)`"""
    rows: int
    failures: Sequence[tuple[str, pa.Table]]
    """Stage and its failures (`row, reason, detail`), in the order of the stages."""
    decisions: Sequence[tuple[str, pa.Table]]
    """Stage and its decisions (`row, keep, reason, score, keeper_file, keeper_row`), in order."""
    drawn: np.ndarray
    """int64: rows that the mix drew at least once."""
    in_batches: np.ndarray
    """int64: rows drawn at least once in a whole superbatch."""
    used: np.ndarray
    """int64: the row of every emitted use."""
    steps: np.ndarray
    """int64, parallel to `used`: the step of every use."""
    valued: tuple[np.ndarray, np.ndarray] | None = None
    """Rows that a sampler valued and passed over, int64, once a draw, and float32 what it went by; None: it told none.
    """


def ledger(fate: Fate) -> pa.Table:
    """One row per input row, in order: the columns of `LEDGER`."""
    n = fate.rows
    times = np.bincount(fate.used, minlength=n).astype(np.int32)
    first = np.full(n, np.iinfo(np.int64).max, np.int64)
    np.minimum.at(first, fate.used, fate.steps)
    # What applies to a row the latest is written first; earlier stages then overwrite it.
    drawn, whole = np.zeros(n, bool), np.zeros(n, bool)
    drawn[fate.drawn] = True
    whole[fate.in_batches] = True
    words = ["", "mix", "not_drawn", "sample", "tail"]
    stage = np.where(drawn, 3, 1)
    reason = np.where(drawn & ~whole, 4, 2)
    outcome = np.where(times > 0, 0, 1)
    stage[times > 0], reason[times > 0] = 0, 0
    score = _passed_over(fate)
    score[(outcome == 0) | (stage != 3) | (reason != 2)] = np.nan
    keeper_row = np.full(n, -1, np.int64)
    keeper_file = np.zeros(n, np.int64)
    for name, table in reversed(fate.decisions):
        gone = table.filter(pc.invert(table["keep"]))
        rows = gone["row"].to_numpy()
        outcome[rows], stage[rows] = 1, _word(words, name)
        reason[rows] = _codes(words, gone["reason"])
        score[rows] = pc.fill_null(gone["score"], float("nan")).to_numpy()
        keeper_file[rows] = _codes(words, gone["keeper_file"])
        keeper_row[rows] = pc.fill_null(gone["keeper_row"], -1).to_numpy()
    for name, table in reversed(fate.failures):
        rows = table["row"].to_numpy()
        outcome[rows], stage[rows], reason[rows] = 2, _word(words, name), _codes(words, table["reason"])
        score[rows], keeper_file[rows], keeper_row[rows] = np.nan, 0, -1
    return _table(fate, words, (outcome, stage, reason, score, keeper_file, keeper_row, times, first))


def _passed_over(fate: Fate) -> np.ndarray:
    """The highest value of a row's draws that a sampler passed over: float32 `(n,)`, NaN where there is none."""
    highest = np.full(fate.rows, -np.inf, np.float32)
    if fate.valued is not None:
        rows, values = fate.valued
        np.maximum.at(highest, rows[np.isfinite(values)], values[np.isfinite(values)])
    return np.where(np.isfinite(highest), highest, np.float32(np.nan))


def duplicate_file(file: str, shard: str, keys: pa.Array | None, rows: int, keeper: str) -> pa.Table:
    """The ledger of a file whose content stands in the run already, under the name `keeper`."""
    return _whole_file(file, shard, keys, rows, 1, "duplicate_file", keeper)


def damaged_file(file: str, shard: str, rows: int) -> pa.Table:
    """The ledger of a file whose content is damaged; `rows` as far as its footer tells, else 0."""
    return _whole_file(file, shard, None, rows, 2, DAMAGED_FILE, None)


def _whole_file(
    file: str, shard: str, keys: pa.Array | None, rows: int, outcome: int, reason: str, keeper: str | None
) -> pa.Table:
    words = ["", "ingest", reason, keeper or ""]
    ones = np.ones(rows, np.int64)
    nothing = np.full(rows, np.iinfo(np.int64).max)
    none = np.empty(0, np.int64)
    fate = Fate(file, shard, keys, rows, (), (), none, none, none, none)
    kept = np.arange(rows) if keeper else -ones
    score = np.full(rows, np.nan, np.float32)
    columns = (outcome * ones, ones, 2 * ones, score, (3 if keeper else 0) * ones, kept, 0 * ones, nothing)
    return _table(fate, words, columns)


def damaged(file: str, shard: str, detail: str) -> pa.Table:
    """The quarantine's record of a damaged file: one line, its row null."""
    line = {"file": file, "shard": shard, "stage": "ingest", "reason": DAMAGED_FILE, "detail": detail}
    return pa.Table.from_pylist([line], schema=QUARANTINE)


def quarantine(fate: Fate) -> pa.Table:
    """The quarantined rows of a shard in row order, each with the first stage that failed it: `QUARANTINE`."""
    seen = np.zeros(fate.rows, bool)
    parts = []
    for name, table in fate.failures:
        new = table.filter(pa.array(~seen[table["row"].to_numpy()]))
        seen[new["row"].to_numpy()] = True
        parts.append(new.append_column("stage", pa.array([name] * new.num_rows, pa.string())))
    if not parts:
        return QUARANTINE.empty_table()
    found = pa.concat_tables(parts).sort_by("row")
    n = found.num_rows
    keys = fate.keys.take(found["row"].combine_chunks()) if fate.keys is not None else pa.nulls(n, pa.string())
    columns = {"file": pa.array([fate.file] * n, pa.string()), "shard": pa.array([fate.shard] * n, pa.string())}
    columns |= {"key": keys} | {name: found[name] for name in ("row", "stage", "reason", "detail")}
    return pa.table([columns[name] for name in QUARANTINE.names], schema=QUARANTINE)


def tally(table: pa.Table) -> dict[str, int]:
    """Rows of a ledger by outcome, stage and reason, keyed `outcome|stage|reason`, and the uses in all under `used`."""
    counted = table.group_by(["outcome", "stage", "reason"]).aggregate([("row", "count")]).to_pylist()
    result = {f"{c['outcome']}|{c['stage'] or ''}|{c['reason'] or ''}": int(c["row_count"]) for c in counted}
    return result | {"used": int(pc.sum(table["times_used"]).as_py() or 0)}


def _word(words: list[str], name: str) -> int:
    if name not in words:
        words.append(name)
    return words.index(name)


def _codes(words: list[str], names: pa.ChunkedArray) -> np.ndarray:
    """Indices into `words`, which grows; null is 0."""
    encoded = pc.fill_null(names.cast(pa.string()), "").combine_chunks().dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    known = np.array([_word(words, name) for name in encoded.dictionary.to_pylist()], np.int64)
    return known[encoded.indices.to_numpy()] if len(encoded) else np.empty(0, np.int64)


def _table(fate: Fate, words: list[str], columns: tuple[np.ndarray, ...]) -> pa.Table:
    outcome, stage, reason, score, keeper_file, keeper_row, times, first = columns
    n = fate.rows
    values = pa.array(words, pa.string())

    def named(codes: np.ndarray) -> pa.Array:
        return values.take(pa.array(codes, pa.int64(), mask=codes == 0))

    return pa.table(
        [
            pa.array([fate.file], pa.string()).take(pa.array(np.zeros(n, np.int8))),
            pa.array([fate.shard], pa.string()).take(pa.array(np.zeros(n, np.int8))),
            pa.array(np.arange(n)),
            fate.keys if fate.keys is not None else pa.nulls(n, pa.string()),
            pa.array(OUTCOMES).take(pa.array(outcome)),
            named(stage),
            named(reason),
            pa.array(score, mask=np.isnan(score)),
            named(keeper_file),
            pa.array(keeper_row, pa.int64(), mask=keeper_row < 0) if len(keeper_row) else pa.nulls(0, pa.int64()),
            pa.array(times, pa.int32()),
            pa.array(first, pa.int64(), mask=np.asarray(times) == 0),
        ],
        schema=LEDGER,
    )
