"""What `explain` and the ledger tell of rows that a sampler by scores picked or passed over."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import config, digests, run

from flows import stages
from flows.explaining import explain_row
from storage import manifests

ROWS = 34
LOSSES = [float(i * 7 % 17) / 4 for i in range(ROWS)]  # two rows a value: some micro-batches have ties
UNKNOWN = 3
"""The row without a loss."""


def settings(place: Path, over: dict | None = None, **sample):
    """Two workers of 8 draws each a step, of each 4 of which the best 2 are taken: 2 steps, and 2 draws of tail."""
    wanted = {"kind": "max_loss", "from_input": True, "column": "loss", "superbatch_size": 16, "filter_ratio": 0.5}
    wanted |= {"micro_batch": 4, "world_size": 2} | sample
    base = {"input": {"image": None, "key": "key", "source": None}, "embed": None, "annotate": None}
    return config(place, {**base, "score": [], "select": [], "sample": wanted} | (over or {}))


@pytest.fixture
def place(tmp_path) -> Path:
    (tmp_path / "in").mkdir()
    losses = [None if i == UNKNOWN else loss for i, loss in enumerate(LOSSES)]
    rows = {"text": [f"text {i}" for i in range(ROWS)], "key": [f"k{i}" for i in range(ROWS)], "loss": losses}
    for number, half in enumerate((slice(0, 20), slice(20, ROWS))):
        table = pa.table({name: values[half] for name, values in rows.items()})
        pq.write_table(table, tmp_path / "in" / f"{number}.parquet")
    return tmp_path


def ledger_of(mix) -> list[dict]:
    return pq.read_table(Path(mix.url) / "ledger").to_pylist()


def explained(mix) -> dict[int, dict]:
    """Row -> the tables of `explain`, by title."""
    return {i: {one["title"]: one for one in explain_row(mix.url, f"k{i}")} for i in range(ROWS)}


@pytest.mark.parametrize("part_rows", [1 << 18, 16])
def test_explain_compares_each_draw_with_those_picked_of_its_micro_batch(place, monkeypatch, part_rows):
    monkeypatch.setattr(stages, "PARTITION_ROWS", part_rows)
    told = explained(run(settings(place)))
    row_of = {tables["mix"]["draws"][0]: row for row, tables in told.items()}
    assert sorted(row_of) == list(range(ROWS))
    for first in range(0, 32, 4):
        draws = range(first, first + 4)
        known = [-1.0 if row_of[draw] == UNKNOWN else LOSSES[row_of[draw]] for draw in draws]
        best = sorted(range(4), key=lambda i: -known[i])[:2]  # equal ones in order
        lowest = known[best[1]]
        where = f"(step {first // 16}, rank {first // 8 % 2}, micro-batch {first // 4 % 2})"
        for place_, draw in enumerate(draws):
            value = "none" if known[place_] < 0 else str(known[place_])
            word = "picked" if place_ in best else "not picked"
            tie = "; of equal ones the first are picked" if known[place_] == lowest and place_ not in best else ""
            said = f"{word}: loss {value}; the 2 picked of its 4 had {lowest} or more{tie} {where}"
            assert told[row_of[draw]]["sample/max_loss"][f"draw {draw}"] == said
    for draw in (32, 33):
        said = told[row_of[draw]]["sample/max_loss"][f"draw {draw}"]
        assert said == "not looked at: it is behind the last whole superbatch"


def test_of_many_draws_the_first_are_told(place):
    mix = run(settings(place, {"mix": {"budget": 4 * ROWS}}))
    for tables in explained(mix).values():
        draws, said = tables["mix"]["draws"], tables["sample/max_loss"]
        assert len(draws) > 5 and said["and"] == f"{len(draws) - 5} more draws"
        assert [*said] == ["title", *(f"draw {draw}" for draw in draws[:5]), "and"]


def test_samplers_without_values_are_not_spoken_for(place):
    mix = run(settings(place, kind="random", column=None))
    assert not any(title.startswith("sample") for tables in explained(mix).values() for title in tables)
    assert all(row["score"] is None for row in ledger_of(mix))


@pytest.mark.parametrize("part_rows", [1 << 18, 16])
def test_the_ledger_tells_by_what_rows_were_passed_over(place, monkeypatch, part_rows):
    monkeypatch.setattr(stages, "PARTITION_ROWS", part_rows)
    mix = run(settings(place))
    rows = ledger_of(mix)
    assert list(manifests.discrepancies(mix.url)) == []
    by = {why: [i for i, row in enumerate(rows) if row["reason"] == why] for why in (None, "not_drawn", "tail")}
    assert [len(by[why]) for why in (None, "not_drawn", "tail")] == [16, 16, 2]
    assert all(rows[i]["score"] is None for i in by[None] + by["tail"])
    assert UNKNOWN in by["not_drawn"] + by["tail"]
    for i in by["not_drawn"]:
        assert rows[i]["stage"] == "sample"
        assert rows[i]["score"] == (None if i == UNKNOWN else LOSSES[i])


def test_the_ledger_is_the_same_whatever_the_workers_and_parts(place, monkeypatch):
    seen = []
    for number, (part_rows, workers) in enumerate([(1 << 18, 1), (16, 1), (16, 3)]):
        monkeypatch.setattr(stages, "PARTITION_ROWS", part_rows)
        there = {"store": f"{place}/store{number}", "runner": {"workers": workers, "shards_per_task": 1}}
        mix = run(settings(place, there | {"emit": {"out": f"{place}/out{number}"}, "mix": {"budget": ROWS}}))
        seen.append(json.dumps(digests(Path(mix.url), "ledger")))
    assert len({*seen}) == 1
