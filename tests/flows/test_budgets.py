"""Budgets in bytes and tokens: as many whole batches as they have room for, by the mean size of each group's rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import config, run, write_corpus

from configs.errors import ConfigError
from tasks.mix.budgets import whole_batches

PLAIN = {"select": [], "annotate": None, "sample": {"kind": "iid", "batch_size": 16, "filter_ratio": 0}}


def even(steps: int) -> np.ndarray:
    """Half of each batch of 8 from either group."""
    return np.array([steps * 4, steps * 4])


def test_the_most_whole_batches_that_fit():
    sizes = np.array([10.0, 2.0])
    assert whole_batches(even, sizes, 1000, 8, 8) == 20  # 48 a batch: 960 and 1,008
    assert whole_batches(even, sizes, 960, 8, 8) == 20
    assert whole_batches(even, sizes, 959, 8, 8) == 19
    assert whole_batches(even, sizes, 47, 8, 8) == 0
    assert whole_batches(lambda steps: 2 * even(steps), sizes, 960, 8, 16) == 20  # 8 of every 16 draws are emitted
    with pytest.raises(ConfigError, match="no row has bytes or tokens"):
        whole_batches(even, np.zeros(2), 10, 8, 8)


def test_rows_that_give_out_end_the_search():
    assert whole_batches(lambda steps: np.minimum(even(steps), 12), np.array([1.0, 1.0]), 1e9, 8, 8) >= 3


def data(mix) -> pa.Table:
    return pa.concat_tables(pq.read_table(f) for f in sorted(Path(mix.url, "data").glob("*.parquet")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Six shards."""
    place = tmp_path_factory.mktemp("budgets")
    write_corpus(place / "in", shards=6)
    return place


@pytest.mark.parametrize("unit", ["bytes", "tokens"])
def test_a_budget_in_bytes_or_tokens_is_met_to_a_batch_or_so(folder, unit):
    def size(row) -> int:
        return len(row["text"].split()) if unit == "tokens" else len(row["text"]) + len(row["image"]["bytes"])

    every = [size(row) for row in data(run(config(folder, PLAIN))).to_pylist()]
    amount = round(2.5 * sum(every))
    shares = {"web": 0.6, "books": 0.3, "art": 0.1}
    mix = run(config(folder, PLAIN | {"mix": {"proportions": shares, f"budget_{unit}": amount}}))
    emitted = [size(row) for row in data(mix).to_pylist()]
    assert sum(emitted) == pytest.approx(amount, rel=0.02) and len(emitted) % 16 == 0
    drawn = data(mix)["source"].to_pylist()
    assert {name: round(drawn.count(name) / len(drawn), 2) for name in shares} == shares


def test_two_budgets_are_one_too_many(folder):
    with pytest.raises(ConfigError, match="`budget` and `budget_bytes` are given; give at most one budget"):
        config(folder, {"mix": {"budget": 3, "budget_bytes": 3}})
