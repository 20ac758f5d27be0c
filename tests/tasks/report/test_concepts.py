"""Concept counts: sums over blocks, the curve, and which shares changed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tasks.report import concepts


def table(**counts):
    before, after = zip(*counts.values(), strict=True)
    return concepts.merge([pa.table([list(counts), before, after], schema=concepts.COUNTS)])


def test_counts_uses_repeats_and_nulls():
    lists = pa.chunked_array([[["a", "b", "a"], None], [[], ["b"], ["c"]]], pa.list_(pa.string()))
    found = concepts.count(lists, np.array([2, 5, 7, 1, 0]))
    assert found.to_pylist() == [
        {"concept": "a", "before": 2, "after": 4},
        {"concept": "b", "before": 2, "after": 3},
        {"concept": "c", "before": 1, "after": 0},
    ]


def test_sums_do_not_depend_on_the_division():
    rng = np.random.default_rng(0)
    lists = pa.chunked_array([[[f"w{i}" for i in rng.integers(0, 30, 3)] for _ in range(200)]])
    uses = rng.integers(0, 3, 200)
    whole = concepts.count(lists, uses)
    parts = [concepts.count(lists.slice(at, 37), uses[at : at + 37]) for at in range(0, 200, 37)]
    assert concepts.merge(parts).equals(whole)
    assert concepts.merge([]).num_rows == 0


def test_curve_has_the_ends_and_falls():
    counts = np.random.default_rng(1).zipf(1.4, 50_000)
    curve = concepts.curve(counts)
    assert len(curve) <= 120 and curve[0] == [1, counts.max()] and curve[-1] == [50_000, counts.min()]
    assert all(a[0] < b[0] and a[1] >= b[1] for a, b in zip(curve, curve[1:]))
    ordered = np.sort(counts)[::-1]
    assert all(ordered[rank - 1] == n for rank, n in curve)
    assert concepts.curve(np.zeros(5, int)) == [] and concepts.curve(np.array([0, 3])) == [[1, 3]]


def test_changed_by_hand():
    # Of 1,000 occurrences 200 are left: with its old share `rare` would occur 0.8 times, which tells nothing.
    counts = table(common=(496, 40), risen=(100, 80), gone=(200, 0), same=(200, 80), rare=(4, 0))
    more, less = concepts.changed(counts)
    assert [(one["concept"], one["ratio"]) for one in more] == [("risen", 4.0), ("same", 2.0)]
    assert [one["concept"] for one in less] == ["gone", "common"]
    assert less[0]["ratio"] == 0 and less[1]["ratio"] == pytest.approx(0.2 / 0.496)
    assert more[0]["before"] == pytest.approx(0.1) and more[0]["after"] == pytest.approx(0.4)


def test_changed_leaves_out_what_chance_explains_and_keeps_a_limit():
    counts = table(**{f"c{i:02d}": (100, 10 + i) for i in range(40)}, once=(1, 9))
    more, less = concepts.changed(counts, most=3)
    assert len(more) == len(less) == 3 and "once" not in [one["concept"] for one in more]
    assert [one["concept"] for one in more] == ["c39", "c38", "c37"]
    assert [one["concept"] for one in less] == ["c00", "c01", "c02"]


def test_changed_where_one_side_is_empty():
    assert concepts.changed(table(a=(3, 0))) == ([], [])
    assert concepts.changed(concepts.COUNTS.empty_table()) == ([], [])
    new = concepts.changed(table(a=(50, 50), b=(0, 50)))[0]
    assert new[0] == {"concept": "b", "before": 0.0, "after": 0.5, "ratio": None}


def test_told_names_the_commonest_and_counts_all():
    counts = table(**{f"c{i}": (10 - i, i % 2) for i in range(10)})
    told = concepts.told(counts, 3)
    assert told["names"] == ["c0", "c1", "c2"] and told["after"] == [0, 1, 0]
    assert (told["distinct_before"], told["distinct_after"]) == (10, 5)
    assert (told["total_before"], told["total_after"]) == (55, 5)
