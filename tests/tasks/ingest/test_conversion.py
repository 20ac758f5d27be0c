"""Conversion: units become whole shards or are noted as damaged, whatever happens on the way."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from storage import files
from storage.broken import BrokenFile
from storage.naming import Naming
from storage.shards import InputFile, read
from storage.steps import Step
from tasks import Failure
from tasks.ingest import Slice, TypesChanged, conversion
from tasks.ingest.conversion import convert, shards_of, unit_id
from tasks.ingest.identities import content_digest, told_before

UNIT = InputFile("big.jsonl", "file:///in/big.jsonl", 10, "1", Naming(columns=(("text", "t"),)))


class Scripted:
    """A reader that gives out what it is told, and notes with which types it was asked."""

    in_place = False

    def __init__(self, *readings):
        self.readings, self.asked = list(readings), []

    def read(self, unit, types):
        self.asked.append(dict(types))
        for item in self.readings.pop(0):
            if isinstance(item, Exception):
                raise item
            yield item


def rows(first: int, last: int, *failed: int) -> Slice:
    values = [None if row in failed else f"r{row}" for row in range(first, last)]
    return Slice(pa.table({"t": pa.array(values, pa.string())}), [Failure(row, "bad", f"row {row}") for row in failed])


@pytest.fixture
def step(tmp_path):
    return Step(str(tmp_path), "ingest", "jsonl", "f")


def test_slices_become_row_groups_of_one_shard(step):
    convert(step, Scripted([rows(0, 3), rows(3, 5, 4)]), UNIT)
    (shard,) = shards_of(step, UNIT, step.facts(unit_id(UNIT)))
    assert shard.file == "big.jsonl" and read(shard, ["text"])["text"].to_pylist() == ["r0", "r1", "r2", "r3", None]
    assert told_before(shard) == [Failure(4, "bad", "row 4")]


def test_a_large_unit_becomes_several_shards_with_rows_counted_in_each(step, monkeypatch):
    monkeypatch.setattr(conversion, "PART_ROWS", 4)
    convert(step, Scripted([rows(0, 2, 1), rows(2, 4), rows(4, 6, 5), rows(6, 7)]), UNIT)
    shards = shards_of(step, UNIT, step.facts(unit_id(UNIT)))
    assert [shard.file for shard in shards] == ["big.jsonl#00000", "big.jsonl#00001"]
    assert [told_before(shard) for shard in shards] == [[Failure(1, "bad", "row 1")], [Failure(1, "bad", "row 5")]]
    assert [t for shard in shards for t in read(shard, ["text"])["text"].to_pylist()] == [
        "r0", None, "r2", "r3", "r4", None, "r6",
    ]  # fmt: skip


def test_wider_types_start_the_unit_again(step):
    wider = {"n": pa.float64()}
    reader = Scripted([rows(0, 2), TypesChanged(wider)], [rows(0, 2), rows(2, 3)])
    convert(step, reader, UNIT)
    assert reader.asked == [{}, wider] and step.facts(unit_id(UNIT))["parts"][0]["rows"] == 3


def test_types_that_never_settle_are_an_error_and_no_commit(step):
    with pytest.raises(RuntimeError, match=r"big.jsonl was read 20 times"):
        convert(step, Scripted(*([TypesChanged({})] for _ in range(20))), UNIT)
    assert step.committed() == set()


def test_a_damaged_unit_is_noted_and_none_of_its_rows_used(step):
    convert(step, Scripted([rows(0, 3), BrokenFile("the tar breaks off", 512)]), UNIT)
    facts = step.facts(unit_id(UNIT))
    assert facts["broken"] == "the tar breaks off (at byte 512)" and shards_of(step, UNIT, facts) == []


def test_a_unit_that_cannot_be_read_now_leaves_no_commit(step):
    with pytest.raises(OSError, match="connection"):
        convert(step, Scripted([rows(0, 3), OSError(5, "connection reset")]), UNIT)
    assert step.committed() == set()


def test_a_unit_without_rows_has_no_shards(step):
    convert(step, Scripted([]), UNIT)
    assert shards_of(step, UNIT, step.facts(unit_id(UNIT))) == []


def test_the_same_rows_with_other_failures_are_another_content(step):
    other = InputFile("b.jsonl", "file:///in/b.jsonl", 10, "1")
    convert(step, Scripted([rows(0, 3, 1)]), UNIT)
    again = rows(0, 3, 1)
    convert(step, Scripted([again._replace(failures=[Failure(1, "worse", "")])]), other)
    first, second = (shards_of(step, unit, step.facts(unit_id(unit)))[0] for unit in (UNIT, other))
    assert Path(files.absolute(first.url)).read_bytes() == Path(files.absolute(second.url)).read_bytes()
    assert content_digest(first) != content_digest(second)
