import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import exchange
from storage.steps import Step


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(0, 3))
def test_split_keeps_every_row_and_its_order(buckets, offset):
    table = pa.table({"row": np.arange(len(buckets) + offset)}).slice(offset)
    parts = list(exchange.split(table, np.array(buckets, np.int64)))
    assert [b for b, _ in parts] == sorted(set(buckets))
    for bucket, part in parts:
        assert part["row"].to_pylist() == [i + offset for i, b in enumerate(buckets) if b == bucket]


@pytest.fixture(params=["local", "memory"])
def step(request, tmp_path):
    base = str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"
    return Step(base, "select", "probe", "f")


def test_every_row_arrives_once_in_source_order(step):
    rng = np.random.default_rng(0)
    sent = {}
    for source in ("b", "a"):
        tables = []
        for _ in range(3):
            n = int(rng.integers(0, 50))
            table = pa.table(
                {"v": rng.integers(0, 1000, n), "s": pa.array([f"{source}{i}" for i in range(n)], pa.string())}
            )
            tables.append((table, rng.integers(0, 4, n)))
        sent[source] = tables
        exchange.spill(step, "x", source, tables)
    assert exchange.spilled(step, "x") == {"a", "b"}
    gathering = exchange.Gathering(step, "x", ["a", "b"])
    for bucket in range(4):
        wanted = [row for s in ("a", "b") for t, k in sent[s] for row in t.filter(pa.array(k == bucket)).to_pylist()]
        got = gathering.gather(bucket)
        assert (got.to_pylist() if got else []) == wanted
    assert gathering.gather(99) is None
    step.finish(rows=1)
    assert step.is_done() and exchange.spilled(step, "x") == set()


def test_a_source_without_rows_is_a_source(step):
    exchange.spill(step, "x", "empty", [])
    assert exchange.Gathering(step, "x", ["empty"]).buckets() == []


def test_take_gathers_more_than_two_gibibytes():
    chunk = bytes(1 << 20)
    table = pa.table({"image": pa.chunked_array([pa.array([chunk])])})
    rows = np.zeros((2 << 10) + 300, np.int64)  # 2.3 GiB of one repeated picture
    got = exchange.take(table, rows)
    assert got.num_rows == len(rows) and got["image"].num_chunks > 2
    assert sum(len(c.buffers()[2]) for c in got["image"].chunks) > 2 << 30
    assert got["image"][len(rows) - 1].as_py() == chunk
