"""Shares of groups over steps: counts against brute force, from shards and from parts, few bins where rows are few."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from valued import leave

from storage import files
from storage.steps import Step, parquet_bytes
from tasks.report import sources

FIRST = np.array([0, 3, 5])


def test_largest_groups_first_then_by_name():
    assert sources.largest([5, 9, 5, 0], ["b", "z", "a", "none"], most=3) == [1, 2, 0]


@pytest.mark.parametrize(("rows", "steps", "bins"), [(64, 4, 4), (64, 100, 12), (3000, 100, 30), (10**6, 10**5, 60)])
def test_a_bin_holds_rows_enough_to_be_more_than_noise(rows, steps, bins):
    first = sources.bins_of(rows, steps)
    assert len(first) == bins + 1 and first[0] == 0 and first[-1] == steps and (np.diff(first) >= 1).all()


def test_counts_by_hand():
    group, step = np.array([0, 1, 1, 2, 7, 0, 1]), np.array([0, 0, 2, 3, 4, 5, 9])
    # Steps 5 and 9 are of no whole batch; groups 1 and 2 are shown, the others are one.
    assert sources.counted(group, step, [1, 2], FIRST).tolist() == [[2, 0], [0, 1], [1, 1]]
    assert sources.counted(group[:0], step[:0], [1, 2], FIRST).tolist() == [[0, 0]] * 3


def test_candidates_of_shards_and_picks_of_parts(tmp_path):
    rng = np.random.default_rng(0)
    group, draw = rng.integers(0, 12, 300), rng.permutation(300)
    step = Step(str(tmp_path), "sample", "iid", "0" * 12)
    for number, some in enumerate(np.array_split(np.arange(300), 3)):
        told = pa.table({"draw": draw[some], "group": pa.array(group[some], pa.int32())})
        files.write_bytes(step.file(f"shard{number}.parquet"), parquet_bytes(told))
    shown, first = [3, 0, 11], np.array([0, 10, 20, 29])  # superbatches of 10; the last is no whole one
    found = sources.candidates(step, ["shard0", "shard1", "shard2"], shown, first, 10)
    for line, mine in zip(found, [group == 3, group == 0, group == 11, ~np.isin(group, shown)], strict=True):
        assert line == [
            int((mine & (draw // 10 >= a) & (draw // 10 < b)).sum()) for a, b in [(0, 10), (10, 20), (20, 29)]
        ]
    assert sum(map(sum, found)) == 290
    plan = pa.table({"step": np.arange(290) // 10, "group": group[:290].astype(np.int32)})
    for number in range(2):
        leave(step, 2 * number, plan.slice(145 * number, 145), "part")
    taken = sources.picks(step, [145, 0, 145], shown, first)
    assert taken == sources.counted(group[:290], np.arange(290) // 10, shown, first).tolist()
    told = sources.told(["c", "a", "k"], 9, [found, found], taken, first)
    assert told["candidates"] == (2 * np.array(found)).tolist() and told["picks"] == taken
    assert (told["names"], told["others"], told["first"], told["steps"]) == (["c", "a", "k"], 9, [0, 10, 20], 29)
