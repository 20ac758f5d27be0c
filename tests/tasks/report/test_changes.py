"""What one mix has that the one before it had not."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.ledger import LEDGER
from tasks.report import changes

WHY = [("kept", None, None), ("dropped", "select/threshold", "below_threshold"), ("dropped", "mix", "not_drawn")]
WHY += [("quarantined", "embed", "truncated_image")]


def write_ledger(mix, shards: list[tuple[str, list[int]]], cut: list[int]) -> list[dict]:
    """A ledger in parts that begin at the shards `cut`; a row's code says what became of it. Returns the parents."""
    parts: dict[int, list[dict]] = {}
    for number, (digest, codes) in enumerate(shards):
        part = sum(number >= at for at in cut)
        lines = parts.setdefault(part, [])
        for row, code in enumerate(codes):
            outcome, stage, reason = WHY[code]
            fate = {"outcome": outcome, "stage": stage, "reason": reason, "times_used": int(not code)}
            lines.append({"file": digest, "shard": digest, "row": row} | fate)
    (mix / "ledger").mkdir(parents=True)
    for part, lines in parts.items():
        pq.write_table(pa.Table.from_pylist(lines, schema=LEDGER), mix / "ledger" / f"part-{part:05d}.parquet")
    return [{"file": digest, "digest": digest, "rows": len(codes)} for digest, codes in shards]


def compared(folder, before, now, cut_before=(), cut_now=()) -> dict:
    old = write_ledger(folder / "a", before, cut_before)
    new = write_ledger(folder / "b", now, cut_now)
    urls = [str(folder / name) for name in "ab"]
    there = [changes.places(one, changes.part_rows(url)) for one, url in zip((old, new), urls)]
    joined, tally = changes.joined(*there), Counter()
    for part in sorted(set(joined["part"].to_pylist())):
        tally.update(changes.compare(*urls, joined.filter(pa.compute.equal(joined["part"], part))))
    return changes.rows_told(tally, sum(code == 0 for _, codes in now for code in codes))


def test_rows_by_hand(tmp_path):
    before = [("a", [0, 0, 1, 2]), ("b", [0, 3]), ("c", [0, 0])]
    now = [("a", [0, 1, 0, 0]), ("b", [0, 3]), ("d", [0, 1, 0])]
    assert compared(tmp_path, before, now, cut_before=[1]) == {
        "stayed": 2,
        "came": 4,
        "left": 3,
        "why_came": {"new": 2, "mix: not_drawn": 1, "select/threshold: below_threshold": 1},
        "why_left": {"gone": 2, "select/threshold: below_threshold": 1},
    }


shards = st.dictionaries(
    st.sampled_from("abcdefgh"), st.lists(st.integers(0, 3), min_size=0, max_size=5), min_size=1, max_size=6
)


@settings(max_examples=40)
@given(shards, shards, st.lists(st.integers(1, 6), max_size=2), st.lists(st.integers(1, 6), max_size=2))
def test_rows_as_sets_tell(tmp_path_factory, before, now, cut_before, cut_now):
    for name in before.keys() & now.keys():
        now[name] = (now[name] + [0] * 5)[: len(before[name])]  # one content has one number of rows
    told = compared(
        tmp_path_factory.mktemp("m"), sorted(before.items()), sorted(now.items()), {*cut_before}, {*cut_now}
    )
    then, here = (
        {(name, row) for name, codes in one.items() for row, code in enumerate(codes) if code == 0}
        for one in (before, now)
    )
    assert (told["stayed"], told["came"], told["left"]) == (len(then & here), len(here - then), len(then - here))
    assert sum(told["why_came"].values()) == told["came"] and sum(told["why_left"].values()) == told["left"]
    assert told["why_left"].get("gone", 0) == sum(name not in now for name, _ in then)
    assert told["why_came"].get("new", 0) == sum(name not in before for name, _ in here)


def test_groups_that_come_and_go_have_a_share_of_nothing():
    before = [{"group": "web", "achieved": 0.5}, {"group": "art", "achieved": 0.25}, {"group": "old", "achieved": 0.25}]
    now = [{"group": "web", "achieved": 0.6}, {"group": "art", "achieved": 0.25}, {"group": "new", "achieved": 0.15}]
    assert changes.groups_told(before, now) == [
        {"group": "old", "before": 0.25, "now": 0.0},
        {"group": "new", "before": 0.0, "now": 0.15},
        {"group": "web", "before": 0.5, "now": 0.6},
    ]
    many = [{"group": f"{i:05d}", "achieved": 1e-4 if i < 999 else 0.9} for i in range(1000)]
    assert [one["group"] for one in changes.groups_told([], many)] == ["00999"]


def test_settings_that_change_nothing_of_the_mix_are_not_told():
    before = {"seed": 0, "runner": {"workers": 2}, "select": [{"kind": "threshold", "minimum": 0.1}]}
    now = {"seed": 1, "runner": {"workers": 4}, "select": [{"kind": "threshold", "minimum": 0.2}, {"kind": "x"}]}
    assert changes.settings_told(before, now) == [
        {"setting": "seed", "before": 0, "now": 1},
        {"setting": "select.0.minimum", "before": 0.1, "now": 0.2},
        {"setting": "select.1.kind", "before": None, "now": "x"},
    ]


def told(names: list[str], after: list[int], distinct: int | None = None) -> dict:
    return {"names": names, "after": after, "distinct_before": distinct or len(names)}


def test_concepts_that_rise_fall_come_and_go():
    found = changes.concepts_told(told(["cat", "dog", "eel"], [50, 40, 10]), told(["cat", "dog", "fox"], [25, 60, 15]))
    assert [one["concept"] for one in found["more"]] == ["fox", "dog"]
    assert [one["concept"] for one in found["less"]] == ["eel", "cat"]
    assert found["more"][0]["ratio"] is None and found["less"][0]["ratio"] == 0
    assert found["more"][1] == {"concept": "dog", "before": 0.4, "after": 0.6, "ratio": pytest.approx(1.5)}


def test_a_concept_below_the_other_reports_horizon_is_left_out():
    before, now = told(["cat", "dog"], [50, 50], distinct=900), told(["cat", "fox"], [50, 50])
    found = changes.concepts_told(before, now)
    assert {one["concept"] for one in (*found["more"], *found["less"])} <= {"cat", "dog"}
    assert changes.concepts_told(None, now) == {"more": [], "less": []}


def test_more_shards_than_a_part_holds_are_found_where_they_are():
    parents = [{"digest": f"{i}", "rows": n} for i, n in enumerate([3, 0, 2, 4, 0, 1])]
    assert changes.places(parents, [5, 5]) == {
        "0": (0, 0, 3),
        "1": (0, 3, 0),
        "2": (0, 3, 2),
        "3": (1, 0, 4),
        "4": (1, 4, 0),
        "5": (1, 4, 1),
    }
    assert changes.joined({}, {}).num_rows == 0 and np.all(changes.PLACES.names)
