"""Summaries of shards: in order, again at every iteration, whole or by column."""

from __future__ import annotations

import pyarrow as pa
import pytest

from storage import files
from storage.shards import Shard
from storage.steps import Step, parquet_bytes
from tasks.by_column import only
from tasks.summaries import FOLDER, Summaries


def test_columns_alone_are_read_in_order_and_again(tmp_path, monkeypatch):
    step = Step(str(tmp_path), "select", "pools", "f" * 32)
    shards = [Shard(i, f"{i}.parquet", f"{i}.parquet", f"{9 - i}", 2) for i in range(3)]
    tables = [pa.table({"key": [i, i], "text": ["long", "texts"]}) for i in range(3)]
    for shard, table in zip(shards, tables, strict=True):
        files.write_bytes(step.file(f"{FOLDER}/{shard.digest}.parquet"), parquet_bytes(table))
    summaries = Summaries(step, shards)
    assert [*summaries] == tables
    keys, asked = only(summaries, "key"), []
    read = Step.read
    monkeypatch.setattr(Step, "read", lambda *given: asked.append(given[2]) or read(*given))
    for _ in range(2):
        assert [*keys] == [table.select(["key"]) for table in tables]
    assert asked == [["key"]] * 6
    assert only(tables, "key") is tables  # a plain list is as it is


def test_a_column_that_is_not_there_is_an_error(tmp_path):
    step, shard = Step(str(tmp_path), "select", "pools", "f" * 32), Shard(0, "a", "a", "0", 1)
    files.write_bytes(step.file(f"{FOLDER}/0.parquet"), parquet_bytes(pa.table({"key": [1]})))
    with pytest.raises(pa.ArrowInvalid):
        list(Summaries(step, [shard]).only("words"))
