"""Budgets in bytes and tokens: as many whole batches as they have room for, by the mean size of each group's rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import config, run, write_corpus

from configs.errors import ConfigError
from tasks.mix import Group, Proportions
from tasks.mix.budgets import Budget, draws_within

PLAIN = {"select": [], "annotate": None, "sample": {"kind": "iid", "batch_size": 16, "filter_ratio": 0}}


def group(name: str, rows: int, size: int) -> Group:
    """Rows with `size` bytes each."""
    return Group(name, rows, rows * size)


def within(shares, sizes, amount, *, rows=100, max_epochs=None, batch=8, superbatch=8):
    groups = [group(chr(97 + i), rows, size) for i, size in enumerate(sizes)]
    found = Proportions(np.array([shares], float))
    return draws_within(Budget(None, amount, batch, superbatch), found, groups, max_epochs)


def test_the_most_whole_batches_that_fit():
    half = (0.5, 0.5)  # of 10 and 2 bytes: 48 a batch of 8
    assert within(half, (10, 2), 1000) == (20 * 8, [])
    assert within(half, (10, 2), 960) == (20 * 8, [])
    assert within(half, (10, 2), 959) == (19 * 8, [])
    assert within(half, (10, 2), 47) == (0, [])
    assert within(half, (10, 2), 960, superbatch=16) == (20 * 16, [])  # 8 of every 16 draws are emitted
    assert within(half, (10, 2), 10**15) == (10**15 // 48 * 8, [])


def test_what_is_drawn_must_have_a_size():
    with pytest.raises(ConfigError, match="no row that the mix draws has bytes or tokens"):
        within((0.5, 0.5), (0, 0), 10)
    with pytest.raises(ConfigError, match="no row that the mix draws has bytes or tokens"):
        within((1, 0), (0, 50), 10)


def test_rows_that_give_out_are_told_with_a_remedy_that_works():
    draws, warnings = within((0.5, 0.5), (10, 2), 10_000, max_epochs=2)
    assert draws == 400  # both groups twice: 2,400 bytes
    assert warnings == [
        "the budget is 10,000 bytes or tokens, but with `max_epochs` 2 the rows that have a share give about 2,400, "
        "and the mix is as large as that; set `mix.max_epochs` to 9, or lower the budget"
    ]
    draws, warnings = within((0.5, 0.5), (10, 2), 10_000, max_epochs=9)
    assert warnings == [] and draws // 8 == 10_000 // 48


def test_a_bound_that_shifts_shares_shifts_sizes():
    # The large rows give out: small ones take their place, so that more fit.
    draws, warnings = within((0.9, 0.1), (10, 1), 3000, rows=1000, max_epochs=0.2)
    assert warnings and draws == 400 // 8 * 8
    more, none = within((0.9, 0.1), (10, 1), 2100, rows=1000, max_epochs=0.2)
    assert none == [] and within((0.9, 0.1), (10, 1), 2100, rows=1000)[0] < more <= draws


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
