"""Exports against their floor: the same pictures and texts put into tars by `tarfile` from memory, nothing else done.

    python tests/benchmarks/bench_export.py [rows] [workers]

Prints rows/s and MB/s of the pictures: of the floor, of the writing, of the reading back, for each format. The seconds
are of the processor, all threads together: a busy machine changes them little.
"""

from __future__ import annotations

import io
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))

from exported import table

from configs.export import Export
from flows.runners import PlainRunner
from storage import files
from storage.manifests import file_facts
from tasks import load
from tasks.export import METHODS
from tasks.export.plan import cuts, survey
from tasks.export.rows import samples
from tasks.export.task import check_shards, export_shards, fact_file

SHARDS = 8


def write_mix(folder: Path, rows: int, picture_bytes: int = 30_000) -> tuple[str, float]:
    """A mix of random bytes that begin as JPEGs do, 100 rows a group, and the MB of its pictures."""
    import json

    (folder / "data").mkdir(parents=True)
    made = table(rows)
    rng = np.random.default_rng(0)
    sizes = rng.integers(picture_bytes // 2, picture_bytes * 3 // 2, rows)
    pictures = [{"bytes": b"\xff\xd8\xff" + rng.bytes(int(size)), "path": None} for size in sizes]
    kind = made.schema.field("image").type
    made = made.set_column(0, "image", pa.array(pictures, kind))
    pq.write_table(made, folder / "data/part-00000.parquet", row_group_size=100, compression="none")
    manifest = {
        "name": "bench",
        "version": "0",
        "counts": {"emitted": rows},
        "columns": {"image": "image", "text": "caption"},
        "files": {"data/part-00000.parquet": file_facts(str(folder / "data/part-00000.parquet"))},
    }
    (folder / "mix.json").write_text(json.dumps(manifest))
    return str(folder), float(sizes.sum()) / 1e6


def floor(mix: str, out: Path) -> float:
    """Processor seconds to put the same members into one tar, all of them in memory already."""
    extent = survey(mix)
    held = list(samples(extent.source, 0, extent.source.rows))
    started = time.process_time()
    with tarfile.open(out, "w") as tar:
        for sample in held:
            for suffix, data in (("jpg", sample.image or b""), ("txt", b"a caption"), ("json", sample.rest.encode())):
                member = tarfile.TarInfo(f"{sample.key}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return time.process_time() - started


def measure(mix: str, out: Path, kind: str, workers: int) -> tuple[float, float]:
    """Processor seconds of writing and of reading back, libraries imported before."""
    config = Export.model_validate({"kind": kind, "shards": SHARDS, "workers": workers})
    exporter, extent = load(METHODS, config), survey(mix)
    __import__(exporter.package)
    shards = list(enumerate(cuts(extent, SHARDS, exporter.shard_bytes, exporter.row_bytes)))
    calls = [
        {"source": extent.source, "out": str(out), "config": config, "shards": [one], "label": ""} for one in shards
    ]
    runner, seconds = PlainRunner(workers), []
    for task in (export_shards, check_shards):
        started = time.process_time()
        for outcome in runner.run(task, calls, lambda _: None):
            if isinstance(outcome, BaseException):
                raise outcome
        seconds.append(time.process_time() - started)
        if task is export_shards:
            facts = [files.read_json(fact_file(str(out), number)) for number, _ in shards]
            for name, content in exporter.index(facts).items():
                (out / name).write_bytes(content)
    return seconds[0], seconds[1]


def main(rows: int = 10_000, workers: int = 2) -> None:
    """Measure once each and print."""
    with tempfile.TemporaryDirectory() as name:
        mix, size = write_mix(Path(name, "mix"), rows)
        lowest = floor(mix, Path(name, "floor.tar"))
        print(f"{rows} rows, {size:.0f} MB of pictures, {SHARDS} shards, {workers} workers")
        print(f"floor, tarfile from memory:           {rows / lowest:8,.0f} rows/s {size / lowest:7,.0f} MB/s")
        for kind in METHODS:
            for what, seconds in zip(("write", "check"), measure(mix, Path(name, kind), kind, workers), strict=True):
                told = f"{kind} {what}:".ljust(38)
                ratio = f"x{lowest / seconds:.2f} of the floor"
                print(f"{told}{rows / seconds:8,.0f} rows/s {size / seconds:7,.0f} MB/s  {ratio}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
