"""Ten million rows of concept lists through the flow: column annotation, CABS-DM, emit; time by stage and memory.

Run: python tests/benchmarks/bench_concepts.py [--rows 1000000 10000000] [--folder DIR]

Each size in a process of its own: shards of 250,000 short texts with five labels of 12,253 Zipf concepts, superbatches
of 20,480 to 4,096 on four ranks.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from apart import exponent, run_apart
from bench_scale import Memory
from synthetic import VOCABULARY

from configs.loading import validate
from flows.pipeline import curate
from flows.runners import PlainRunner
from storage import manifests

SHARD = 250_000


def write(folder: Path, rows: int) -> None:
    """Write the shards."""
    folder.mkdir(parents=True)
    share = np.cumsum(1 / np.arange(1, len(VOCABULARY) + 1))
    for number in range(rows // SHARD):
        rng = np.random.default_rng(number)
        lengths = rng.integers(1, 10, SHARD)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        ids = np.searchsorted(share, rng.random(offsets[-1]) * share[-1]).astype(np.int32)
        words = pa.DictionaryArray.from_arrays(ids, VOCABULARY).cast(pa.string())
        text = pa.array(np.arange(number * SHARD, (number + 1) * SHARD)).cast(pa.string())
        table = pa.table({"text": text, "classes": pa.ListArray.from_arrays(pa.array(offsets), words)})
        pq.write_table(table, folder / f"{number:05d}.parquet", row_group_size=50_000)


def measure(folder: Path) -> dict:
    """Run once."""
    config = validate(
        {
            "name": "concepts",
            "store": str(folder / "store"),
            "input": {"path": str(folder / "in"), "image": None},
            "annotate": {"kind": "column"},
            "sample": {"kind": "cabs_dm", "batch_size": 4096, "filter_ratio": 0.8, "world_size": 4},
            "emit": {"out": str(folder / "out")},
        }
    )
    log: list[str] = []
    started = time.perf_counter()
    with Memory() as memory:
        mix = curate(config, PlainRunner(2), log.append)
    wall = time.perf_counter() - started
    assert next(manifests.discrepancies(mix.url, hashes=False), None) is None
    return {"wall": wall, "seconds": mix.seconds, "own": memory.own, "emitted": mix.emitted, "tasks": mix.task_runs}


def main() -> None:
    """Prints a block a size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--one", type=Path)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.one)))
        return
    sampled = []
    for rows in asked.rows:
        with tempfile.TemporaryDirectory(dir=asked.folder) as place:
            write(Path(place) / "in", rows)
            got = run_apart(__file__, place)
        sampled.append(got["seconds"]["sample"])
        stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in got["seconds"].items())
        print(f"{rows:,} rows: {got['wall']:.1f} s ({stages}); {got['emitted']:,} rows emitted, {got['tasks']} tasks")
        print(
            f"  sample {rows / got['seconds']['sample']:,.0f} rows/s; own memory at most {got['own'] / 2**30:.2f} GiB"
        )
    if len(sampled) > 1:
        print(f"sample: time grows with rows to the power {exponent(asked.rows, sampled):.3f}")


if __name__ == "__main__":
    main()
