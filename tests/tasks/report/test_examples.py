"""Which rows show a concept: against brute force, for any order of shards, used or dropped as they should be."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tasks.report import examples, gallery

MORE, LESS = ["up", "top"], ["down", "nowhere"]
FILES = [("a.parquet", 3000), ("b.parquet", 40), ("c.parquet", 1), ("d.parquet", 0)]


TINY = [(f"{i}.parquet", 1 + i % 4) for i in range(5)]


def corpus(seed=0, share=0.3, files=FILES):
    """Shards of concept lists, some null, some with repeats, and their parts of the ledger."""
    rng = np.random.default_rng(seed)
    for name, rows in files:
        words = [[w for w in (*MORE, "down", "other", "up") if rng.random() < share] for _ in range(rows)]
        lists = pa.chunked_array([pa.array([w or None for w in words], pa.list_(pa.string()))])
        outcome = [("kept", "dropped", "quarantined")[i] for i in rng.integers(0, 3, rows)]
        uses = [int(rng.integers(1, 4)) if one == "kept" else 0 for one in outcome]
        columns = {"file": pa.array([name] * rows, pa.string()).dictionary_encode(), "row": np.arange(rows)}
        columns |= {
            "outcome": pa.array(outcome, pa.string()).dictionary_encode(),
            "times_used": pa.array(uses, pa.int32()),
        }
        yield lists, pa.table(columns)


def chosen(shards):
    found = [examples.candidates(lists, ledger, MORE, LESS) for lists, ledger in shards]
    assert all(one.num_rows <= examples.MOST * 4 for one in found)
    return examples.choose(pa.concat_tables(found))


@pytest.mark.parametrize(
    ("share", "files", "seed"),
    [(0.001, FILES, 0), (0.3, FILES, 0), (1.0, FILES, 0), *((0.6, TINY, seed) for seed in range(30))],
)
def test_against_brute_force_and_any_order(share, files, seed):
    shards = list(corpus(seed, share, files))
    best = {}
    for lists, ledger in shards:
        stretch, order = gallery.places(ledger["file"], ledger["row"].to_numpy())
        turns = {}
        at = np.lexsort((order, stretch)).tolist()
        words, lines = lists.to_pylist(), ledger.to_pylist()
        for i in at:
            for name in {*(words[i] or [])} & {*MORE, *LESS}:
                line = lines[i]
                if name in MORE and not line["times_used"]:
                    continue
                tier = 0 if name in MORE else ("dropped", "kept", "quarantined").index(line["outcome"])
                turn = turns[name, tier] = turns.get((name, tier), -1) + 1
                best.setdefault(name, []).append((tier, turn, stretch[i], order[i], line["file"], line["row"]))
    expected = {name: [[*line[4:]] for line in sorted(lines)[:3]] for name, lines in best.items()}
    assert chosen(shards) == expected == chosen(reversed(shards))
    if share == 0.3:
        assert expected.keys() == {*MORE, "down"}
        assert {file for file, _ in expected["up"]} >= {"a.parquet", "b.parquet"}  # not all of one file


def test_more_shows_used_rows_and_less_dropped_ones():
    shards = list(corpus(seed=1))
    fates = {(line["file"], line["row"]): line for _, ledger in shards for line in ledger.to_pylist()}
    found = chosen(shards)
    for name in MORE:
        assert len(found[name]) == 3 and all(fates[tuple(place)]["times_used"] for place in found[name])
    assert [fates[tuple(place)]["outcome"] for place in found["down"]] == ["dropped"] * 3


def test_nothing_to_look_for_or_at():
    lists, ledger = next(corpus())
    assert examples.candidates(lists, ledger, [], []).num_rows == 0
    assert examples.candidates(lists, ledger, ["absent"], []).schema == examples.CANDIDATES
    assert examples.choose(examples.CANDIDATES.empty_table()) == {}
