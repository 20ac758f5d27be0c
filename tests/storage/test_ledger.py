import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from storage import ledger
from storage.steps import FAILURES

DECISIONS = pa.schema(
    [("row", pa.int64()), ("keep", pa.bool_()), ("reason", pa.string()), ("score", pa.float32())]
    + [("keeper_file", pa.string()), ("keeper_row", pa.int64())]
)


def fate(n, failed=(), dropped=(), drawn=(), whole=(), used=(), keys=None):
    failures = pa.table([list(failed), ["bad"] * len(failed), ["detail"] * len(failed)], schema=FAILURES)
    alive = [r for r in range(n) if r not in failed]
    rows = [
        {"row": r, "keep": r not in dropped, "reason": "dup" if r in dropped else None}
        | {"score": 0.5 if r in dropped else None, "keeper_file": "f" if r in dropped else None}
        | {"keeper_row": 0 if r in dropped else None}
        for r in alive
    ]
    as_ints = [np.array(list(v), np.int64) for v in (drawn, whole, used, range(len(used)))]
    decided = pa.Table.from_pylist(rows, schema=DECISIONS)
    return ledger.Fate("f", "s", keys, n, [("embed", failures)], [("select/dup", decided)], *as_ints)


def test_each_row_has_the_first_thing_that_befell_it():
    told = ledger.ledger(fate(6, failed=[0], dropped=[1], drawn=[2, 3, 4], whole=[3, 4], used=[4, 4])).to_pylist()
    assert [(r["outcome"], r["stage"], r["reason"]) for r in told] == [
        ("quarantined", "embed", "bad"),
        ("dropped", "select/dup", "dup"),
        ("dropped", "sample", "tail"),
        ("dropped", "sample", "not_drawn"),
        ("kept", None, None),
        ("dropped", "mix", "not_drawn"),
    ]
    assert told[4]["times_used"] == 2 and told[4]["first_step"] == 0 and told[5]["first_step"] is None
    assert told[1]["keeper_file"] == "f" and told[1]["keeper_row"] == 0 and told[1]["score"] == 0.5
    assert told[0]["keeper_row"] is None


subsets = st.sets(st.integers(0, 19))


@given(subsets, subsets, subsets, subsets, subsets)
def test_the_outcomes_add_up(failed, dropped, drawn, whole, used):
    alive = set(range(20)) - failed - dropped
    drawn &= alive
    whole &= drawn
    used &= whole
    table = ledger.ledger(fate(20, sorted(failed), sorted(dropped - failed), drawn, whole, used))
    told = ledger.tally(table)
    assert table.num_rows == 20 and told.pop("used") == len(used)
    assert sum(told.values()) == 20
    assert sum(n for k, n in told.items() if k.startswith("kept")) == len(used)
    assert sum(n for k, n in told.items() if k.startswith("quarantined")) == len(failed)


def test_a_row_that_was_passed_over_has_the_highest_of_its_values():
    told = fate(8, failed=[0], dropped=[1], drawn=[2, 3, 4, 5, 6], whole=[2, 3, 4, 5], used=[2])
    values = [(0, 9), (1, 9), (2, 9), (3, -2), (3, -1), (3, -3), (3, np.nan), (4, np.nan), (5, np.inf), (6, 9), (7, 9)]
    rows, numbers = zip(*values, strict=True)
    valued = (np.array(rows, np.int64), np.array(numbers, np.float32))
    with_values = ledger.ledger(ledger.Fate(**{**vars(told), "valued": valued}))
    assert with_values["score"].to_pylist() == [None, 0.5, None, -1.0, None, None, None, None]
    without = ledger.ledger(told)
    assert without["score"].to_pylist() == [None, 0.5, *[None] * 6]
    assert without.drop_columns("score").equals(with_values.drop_columns("score"))


def test_quarantine_names_the_first_stage_only():
    twice = fate(4, failed=[2])
    failures = [twice.failures[0], ("score", twice.failures[0][1])]
    both = ledger.Fate(**{**vars(twice), "failures": failures})
    assert [r["stage"] for r in ledger.quarantine(both).to_pylist()] == ["embed"]


def test_a_repeated_file_is_dropped_as_a_whole():
    table = ledger.duplicate_file("b", "s", pa.array(["x", "y"]), 2, "a").to_pylist()
    assert [(r["outcome"], r["reason"], r["keeper_file"], r["keeper_row"], r["key"]) for r in table] == [
        ("dropped", "duplicate_file", "a", 0, "x"),
        ("dropped", "duplicate_file", "a", 1, "y"),
    ]


def test_no_rows():
    assert ledger.ledger(fate(0)).num_rows == 0
