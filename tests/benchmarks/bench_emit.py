"""Emit against plain pyarrow, on the same rows in the same order with the same writer options.

    python tests/benchmarks/bench_emit.py [--rows 300000] [--repeats 3]

Peers: (a) `pyarrow.parquet.write_table` of the finished rows from memory: nothing but writing; (b) what a user would
write by hand: read the input, `take` in batch order, write; it holds the whole data set in memory. Emit works with two
workers and bounded memory and also publishes safely (temporary, fsync, rename, digest). Goal: at least 0.8 of (a).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from synthetic import VOCABULARY, settings, write_synthetic

from configs.loading import validate
from flows.pipeline import Mix, curate
from flows.runners import PlainRunner
from tasks.emit import rows as emit_rows

PASSES = ("locate", "measure", "scatter", "write")


def emit_seconds(folder: Path) -> tuple[float, Mix]:
    """Seconds of both passes alone; select, mix and sample are in the store already, ledger and report are not counted."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    marks: dict[str, float] = {}
    config = validate(settings(folder))

    def log(line: str) -> None:
        marks[line.strip().split(":")[0].rpartition(", ")[2]] = time.perf_counter()

    mix = curate(config, PlainRunner(2), log)
    return marks["write"] - marks.get("sample", marks.get("pick", 0.0)), mix


def plain_write(mix: Mix, target: Path, options: dict, rows_per_group: int) -> float:
    files = sorted(Path(mix.url, "data").glob("*.parquet"))
    total = 0.0
    for file in files:
        table = pq.read_table(file).combine_chunks()
        started = time.perf_counter()
        with open(target, "wb") as sink:
            pq.write_table(table, sink, row_group_size=rows_per_group, **options)
            os.fsync(sink.fileno())
        total += time.perf_counter() - started
    return total


def by_hand(folder: Path, mix: Mix, target: Path, options: dict, rows_per_group: int) -> float:
    place = pq.read_table(Path(mix.url, "data"), columns=["mix_file", "mix_row"])
    started = time.perf_counter()
    files = sorted((folder / "in").iterdir())
    tables = [pq.read_table(file, columns=["image", "text", "source"]) for file in files]
    first = np.concatenate([[0], np.cumsum([t.num_rows for t in tables])])
    index = {file.name: i for i, file in enumerate(files)}
    codes = place["mix_file"].combine_chunks().dictionary_encode()
    codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
    shard = np.array([index[name] for name in codes.dictionary.to_pylist()])[codes.indices.to_numpy()]
    order = first[shard] + place["mix_row"].to_numpy()
    whole = pa.concat_tables(tables)
    step = 100_000
    known = {k: v for k, v in options.items() if k == "use_dictionary"}
    known = {"use_dictionary": [c for c in ("text", "source")]} if known else {}
    for number, at in enumerate(range(0, len(order), step)):
        part = whole.take(pa.array(order[at : at + step]))
        with open(f"{target}.{number}", "wb") as sink:
            pq.write_table(
                part,
                sink,
                row_group_size=rows_per_group,
                compression={"image": "none", "text": "snappy", "source": "snappy"},
                **known,
            )
            os.fsync(sink.fileno())
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_synthetic(folder / "in", 6, options.rows // 6, 2400)
        (folder / "vocabulary.txt").write_text("\n".join(VOCABULARY.to_pylist()))
        captured: dict = {}
        original = emit_rows._encoding
        emit_rows._encoding = lambda layout: captured.setdefault("options", original(layout))
        _, mix = emit_seconds(folder)
        emit_rows._encoding = original
        ours, write, hand = [], [], []
        for _ in range(options.repeats):
            ours.append(emit_seconds(folder)[0])
            write.append(plain_write(mix, folder / "plain.parquet", captured["options"], 100))
            hand.append(by_hand(folder, mix, folder / "hand.parquet", captured["options"], 100))
        size = sum(f.stat().st_size for f in Path(mix.url, "data").glob("*.parquet"))
    best = [statistics.median(x) for x in (ours, write, hand)]
    print(f"{mix.emitted:,} rows, {size / 2**20:,.0f} MiB, {os.cpu_count()} cores, median of {options.repeats}")
    for name, seconds in zip(("emit, 2 workers", "(a) plain write", "(b) by hand"), best, strict=True):
        print(f"  {name:16s} {seconds:6.2f} s {size / 2**20 / seconds:8,.0f} MiB/s")
    print(f"  emit / (a) {best[1] / best[0]:.2f} (goal 0.8)   emit / (b) {best[2] / best[0]:.2f}")


if __name__ == "__main__":
    main()
