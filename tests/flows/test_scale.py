"""A million rows and more than 2 GiB of pictures: bounded memory, few task runs, each row group read once in emit."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

GiB = 1 << 30


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_million_rows(tmp_path, monkeypatch):
    import bench_scale
    from synthetic import write_synthetic

    from tasks.emit import rows as emit_rows

    reads: Counter[tuple[str, int]] = Counter()
    current = threading.local()
    slices, batches = emit_rows.used_slices, pq.ParquetFile.iter_batches

    def naming(shard, plan, columns):
        current.file = shard.file
        yield from slices(shard, plan, columns)
        current.file = None

    def counting(self, *args, row_groups=None, **kwargs):
        if row_groups is not None and getattr(current, "file", None):  # the report reads some for its pictures
            reads[current.file, row_groups[0]] += 1
        return batches(self, *args, row_groups=row_groups, **kwargs)

    monkeypatch.setattr(emit_rows, "used_slices", naming)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counting)
    write_synthetic(tmp_path / "in", 20, 50_000, 2400)
    figures = bench_scale.measure(tmp_path, 1_000_000, 2400, workers=2)
    print(figures)
    counts = figures["counts"]
    assert counts["rows_in"] == 1_000_000 == counts["kept"] + counts["dropped"] + counts["quarantined"]
    assert figures["image_bytes"] > 2 * GiB and counts["emitted"] > 500_000
    assert figures["task_runs"] < 300
    assert figures["own"] < 3 * GiB  # two workers: two parts of 0.5 GB being ordered, slices of 64 MiB, the interpreter
    assert len(reads) == 500 and set(reads.values()) == {1}
