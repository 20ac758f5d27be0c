"""Which rows are shown: against brute force, for any division into blocks, few stretches of many rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tasks.report import gallery
from tasks.report.gallery import PER_STRETCH, STRETCH_ROWS


def ledger(files, seed=0, reasons=("below_threshold", "near_duplicate", "tail", None)):
    """A ledger of files (name, rows): every row has one of `reasons`."""
    rng = np.random.default_rng(seed)
    parts = []
    for name, rows in files:
        which = rng.integers(0, len(reasons), rows)
        reason = [reasons[i] for i in which]
        columns = {
            "file": [name] * rows,
            "row": np.arange(rows),
            "outcome": ["dropped" if r else "kept" for r in reason],
            "stage": [f"select/{r}" if r else None for r in reason],
            "reason": reason,
        }
        parts.append(pa.table(columns))
    return coded(pa.concat_tables(parts))


def coded(table):
    """As `Subject.ledger` reads it."""
    for name in ("file", "outcome", "stage", "reason"):
        at = table.column_names.index(name)
        column = table[name].cast(pa.string()).dictionary_encode()
        table = table.set_column(at, name, column.unify_dictionaries())
    return table


FILES = [("a.parquet", 3000), ("b/0.parquet", 5000), ("b/1.parquet", 10), ("c.parquet", 1500)]


def in_blocks(table, lengths):
    at = 0
    for length in lengths:
        yield coded(table.slice(at, length))
        at += length


def chosen(blocks, most):
    return gallery.choose_rows(pa.concat_tables(gallery.row_candidates(b, most) for b in blocks), most)


@pytest.mark.parametrize("most", [1, 12, 60])
def test_rows_do_not_depend_on_the_blocks(most):
    table = ledger(FILES)
    whole = chosen([table], most)
    assert chosen(in_blocks(table, [8000, 1510]), most) == whole
    assert chosen(in_blocks(table, [3000, 5000, 10, 1500]), most) == whole
    assert all(len(one["rows"]) == most and len({tuple(r) for r in one["rows"]}) == most for one in whole)
    assert {one["reason"] for one in whole} == {"", "below_threshold", "near_duplicate", "tail"}


def test_rows_against_brute_force():
    table, most = ledger(FILES), 12
    stretch, order = gallery.places(table["file"], table["row"].to_numpy())
    lines = table.to_pylist()
    for one in chosen([table], most):
        mine = [i for i, line in enumerate(lines) if (line["reason"] or "") == one["reason"]]
        mine.sort(key=lambda i: (stretch[i], order[i]))
        turns, seen = {}, {}
        for i in mine:
            turns[i] = seen.get(stretch[i], 0) // PER_STRETCH
            seen[stretch[i]] = seen.get(stretch[i], 0) + 1
        best = sorted(mine, key=lambda i: (turns[i], stretch[i], order[i]))[:most]
        assert one["rows"] == [[lines[i]["file"], lines[i]["row"]] for i in best]


def test_galleries_share_stretches():
    table = ledger([(f"{i}.parquet", 40 * STRETCH_ROWS) for i in range(5)])
    touched = {(f, row // STRETCH_ROWS) for one in chosen([table], 12) for f, row in one["rows"]}
    assert len(touched) == 12 // PER_STRETCH


def test_rare_reasons_are_shown_in_full():
    table = ledger([("a", 50)], reasons=("x",))
    (one,) = chosen([table], 60)
    assert sorted(row for _, row in one["rows"]) == list(range(50))


def test_no_rows():
    empty = ledger([("a", 0)])
    assert chosen([empty], 12) == []


def test_the_choice_is_not_biased_to_the_beginning():
    rows = [
        row for seed in range(60) for _, row in chosen([ledger([(f"f{seed}", 20_000)], reasons=(None,))], 12)[0]["rows"]
    ]
    assert 8_500 < np.mean(rows) < 11_500
