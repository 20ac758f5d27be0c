"""Groups of duplicates: sizes and choice against brute force, for any division into blocks, in bounded memory."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from tasks.report import duplicates
from tasks.report.duplicates import COUNTS, GROUPS, MEMBERS, Sizes, choose, file_places, measured, shares, told

FILES = [("a.parquet", 3000), ("b/0.parquet", 5000), ("b/1.parquet", 10), ("c.parquet", 1500)]
STAGES = ["ingest", "select/x", "select/y"]
CODED = ("file", "stage", "reason", "keeper_file")
DIVISIONS = [[4], [2, 2], [1, 1, 1, 1]]


def coded(table):
    """As `Subject.ledger` reads it."""
    for name in CODED:
        at = table.column_names.index(name)
        column = table[name].cast(pa.string()).dictionary_encode()
        table = table.set_column(at, name, column.unify_dictionaries())
    return table


def ledger(files, seed=0):
    """A ledger in which two selects drop rows in favour of Zipf-distributed ones of any file; others are not dropped."""
    rng = np.random.default_rng(seed)
    parts = []
    for name, rows in files:
        which = rng.integers(0, 4, rows)
        alike = which < 2
        keeper = rng.integers(0, len(files), rows)
        columns = {
            "file": [name] * rows,
            "row": np.arange(rows),
            "stage": [["select/x", "select/y", "mix", None][i] for i in which],
            "reason": [["near", "exact", "not_drawn", None][i] for i in which],
            "score": pa.array(rng.random(rows), pa.float32(), mask=which != 0),
            "keeper_file": pa.array([files[i][0] for i in keeper], pa.string(), mask=~alike),
            "keeper_row": pa.array(
                np.minimum(rng.zipf(1.5, rows), [files[i][1] - 1 for i in keeper]), pa.int64(), mask=~alike
            ),
        }
        parts.append(pa.table(columns))
    return coded(pa.concat_tables(parts))


def in_blocks(files, table, division):
    """The files in blocks, and the ledger of each."""
    shards = [SimpleNamespace(file=name, rows=rows) for name, rows in files]
    blocks, at, first = [], 0, 0
    for number, length in enumerate(division):
        mine = shards[first : first + length]
        rows = sum(shard.rows for shard in mine)
        blocks.append((number, mine, coded(table.slice(at, rows))))
        at, first = at + rows, first + length
    return blocks


def found(files, table, division, most=12):
    """Sizes by stage, the groups with their members: as the tasks of a report go about it, without a store."""
    blocks = in_blocks(files, table, division)
    where = file_places((number, shards) for number, shards, _ in blocks)
    sent = [duplicates.by_keeper(one, STAGES, where) for _, _, one in blocks]
    sizes, candidates = {}, [GROUPS.empty_table()]
    for number, shards, _ in blocks:
        counts = pa.concat_tables([COUNTS.empty_table(), *(t.filter(pa.array(to == number)) for t, to in sent)])
        for stage, size, some in measured(counts, shards, len(STAGES)):
            sizes.setdefault(stage, []).append(size)
            candidates.append(some)
    total = {stage: duplicates.summed(parts) for stage, parts in sizes.items()}
    medians = {stage: duplicates.median(one) for stage, one in total.items()}
    groups = choose(pa.concat_tables(candidates), medians, STAGES, most)
    members = pa.concat_tables([duplicates.members(one, groups) for _, _, one in blocks])
    return total, duplicates.with_members(groups, members)


def truth(table):
    """(stage, keeper file, keeper row) -> the rows that name it."""
    groups = {}
    for line in table.to_pylist():
        if line["keeper_row"] is not None:
            groups.setdefault((line["stage"], line["keeper_file"], line["keeper_row"]), []).append(line)
    return groups


@pytest.mark.parametrize("division", DIVISIONS)
def test_sizes_are_exact(division):
    table = ledger(FILES)
    total, _ = found(FILES, table, division)
    groups = truth(table)
    for stage, sizes in total.items():
        mine = Counter(len(rows) + 1 for key, rows in groups.items() if key[0] == STAGES[stage])
        assert dict(zip(sizes.size.tolist(), sizes.groups.tolist(), strict=True)) == mine
        every = sorted(mine.elements())
        facts = told(sizes)
        assert facts["groups"] == len(every) and facts["rows"] == sum(every)
        assert facts["largest"] == every[::-1][:5] and facts["median"] == every[(len(every) - 1) // 2]
        assert sum(n for *_, n in facts["bins"]) == len(every) and facts["bins"][-1][1] == every[-1]
        for low, high, n in facts["bins"]:
            assert n == sum(low <= size <= high for size in every)
    assert [*total] == [1, 2]


@pytest.mark.parametrize("division", DIVISIONS)
def test_groups_are_the_largest_typical_ones_and_others(division):
    table = ledger(FILES, seed=3)
    total, groups = found(FILES, table, division)
    assert groups == found(FILES, table, [4])[1]  # whatever the blocks
    known = truth(table)
    for stage in ("select/x", "select/y"):
        mine = [one for one in groups if one["stage"] == stage]
        assert Counter(one["why"] for one in mine) == shares(12) == {"largest": 2, "typical": 3, "random": 3}
        assert len({tuple(one["keeper"]) for one in mine}) == len(mine)
        sizes = sorted((len(rows) for key, rows in known.items() if key[0] == stage), reverse=True)
        middle = duplicates.median(total[STAGES.index(stage)]) - 1
        for one in mine:
            rows = known[(stage, *one["keeper"])]
            assert one["dropped"] == len(rows) and len(one["members"]) == min(MEMBERS, len(rows))
            by_place = {(line["file"], line["row"]): line for line in rows}
            lines = [by_place[tuple(place)] for place in one["members"]]
            assert {line["reason"] for line in lines} == {one["reason"]}
            alike = [line["score"] for line in lines if line["score"] is not None]
            assert alike == sorted(alike, reverse=True) and len(alike) == (len(lines) if stage == "select/x" else 0)
        assert [one["dropped"] for one in mine if one["why"] == "largest"] == sizes[:2]
        assert {one["dropped"] for one in mine if one["why"] == "typical"} == {middle}
        assert middle not in {one["dropped"] for one in mine if one["why"] == "random"}


@pytest.mark.parametrize("most", range(10))
def test_no_more_strips_than_settings_ask_for(most):
    assert sum(shares(most).values()) == min(most, duplicates.STRIPS) and min(shares(most).values()) >= 0
    _, groups = found(FILES, ledger(FILES), [4], most)
    assert Counter(one["stage"] for one in groups) == (
        {"select/x": min(8, most), "select/y": min(8, most)} if most else {}
    )


def test_fewer_groups_than_wanted():
    table = ledger([("a", 12)], seed=1)
    _, groups = found([("a", 12)], table, [1])
    assert {(one["stage"], *one["keeper"]) for one in groups} == {*truth(table)}


def test_files_that_repeat_others_and_rows_without_keeper():
    lines = [("a", i, None, None, None) for i in range(5)] + [("b", i, "ingest", "a", i) for i in range(5)]
    names = ("file", "row", "stage", "keeper_file", "keeper_row")
    table = coded(
        pa.table(
            [pa.array(c, pa.int64() if n.endswith("row") else pa.string()) for n, c in zip(names, zip(*lines))],
            names=names,
        )
        .append_column("reason", pa.array([None] * 5 + ["duplicate_file"] * 5, pa.string()))
        .append_column("score", pa.nulls(10, pa.float32()))
    )
    total, groups = found([("a", 5), ("b", 5)], table, [1, 1])
    assert total[0].size.tolist() == [2] and total[0].groups.tolist() == [5]
    assert len(groups) == 5 and all(one["members"] == [["b", one["keeper"][1]]] for one in groups)
    nothing, none = found([("a", 5)], coded(table.slice(0, 5)), [1])
    assert nothing == {} and none == []


def test_the_choice_is_by_hash_not_by_place():
    n = 8_000
    sizes = []
    for seed in range(12):
        name = f"f{seed}"
        keeper = np.repeat(np.arange(0, n, 2), 1)
        lines = {"file": [name] * n, "row": np.arange(n), "stage": ["select/x", None] * (n // 2)}
        lines |= {"reason": ["near", None] * (n // 2), "score": pa.nulls(n, pa.float32())}
        lines |= {"keeper_file": [name, None] * (n // 2), "keeper_row": [*np.ravel([[k + 1, None] for k in keeper])]}
        table = pa.table({**lines, "keeper_row": pa.array(lines["keeper_row"], pa.int64())})
        sizes += [one["keeper"][1] for one in found([(name, n)], coded(table), [1], 8)[1]]
    assert 3_200 < np.mean(sizes) < 4_800


def test_memory_is_that_of_a_block():
    """A million rows that all go, in favour of keepers of every frequency: arrays, and nothing per row in Python."""
    n = 1 << 20
    keeper = np.minimum(np.random.default_rng(0).zipf(1.2, n), n - 1)
    stage = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), ["select/x"])
    file = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), ["a"])
    table = pa.table({"stage": stage, "keeper_file": file, "keeper_row": keeper})
    shards = [SimpleNamespace(file="a", rows=n)]
    tracemalloc.start()
    counts, to = duplicates.by_keeper(table, STAGES, file_places([(0, shards)]))
    (_, sizes, candidates), *_ = measured(counts, shards, len(STAGES))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (sizes.size - 1) @ sizes.groups == n and not to.any() and candidates.num_rows < 20_000
    assert peak < 160 * n


@pytest.mark.parametrize(
    ("size", "bins"), [(2, [[2, 2, 1]]), (6, [[2, 2, 0], [3, 3, 0], [4, 4, 0], [5, 5, 0], [6, 6, 1]])]
)
def test_bins_end_with_the_largest(size, bins):
    assert told(Sizes(np.array([size]), np.array([1])))["bins"] == bins


@pytest.mark.parametrize(("groups", "middle"), [([2, 2], 2), ([1, 2], 5), ([2, 1], 2), ([0, 1], 5)])
def test_the_median_is_that_of_the_groups(groups, middle):
    assert duplicates.median(Sizes(np.array([2, 5]), np.array(groups))) == middle
