"""GAIS-style (reconstructed) selection of many labelled rows through the flow: time, CPU time, rows/s, memory.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_gais_scale.py
    [--rows 10000 100000 1000000] [--dim 64] [--graphs mini_batch single_level …] [--equal] [--folder DIR]

Each size and graph in a process of its own: shards of 50,000 captions with vectors around the centre of one of ten
classes (`--equal`: one vector for all rows), 4 % of which stay. The network learns from 2,000 rows whatever the size,
with `--epochs` at most; that part of the time does not grow, scoring does. CPU seconds are those of the whole run.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from apart import exponent, run_apart
from bench_scale import Memory

from configs.loading import validate
from flows.pipeline import curate
from flows.runners import PlainRunner
from storage import manifests

SHARD, CLASSES = 50_000, 10


def write(folder: Path, rows: int, dim: int, equal: bool) -> None:
    """Write the shards; the last one may be shorter."""
    folder.mkdir(parents=True)
    centres = np.random.default_rng(0).standard_normal((CLASSES, dim), np.float32)
    for number, first in enumerate(range(0, rows, SHARD)):
        rng = np.random.default_rng([1, number])
        size = min(SHARD, rows - first)
        y = rng.integers(0, CLASSES, size)
        vectors = np.ones((size, dim), np.float32)
        if not equal:
            vectors = centres[y] + 1.5 * rng.standard_normal((size, dim), np.float32)
        table = pa.table(
            {
                "text": pa.array(np.arange(first, first + size)).cast(pa.string()),
                "source": pa.array([f"class {i}" for i in range(CLASSES)]).take(pa.array(y)),
                "emb": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim),
            }
        )
        pq.write_table(table, folder / f"{number:05d}.parquet", row_group_size=10_000)


def measure(folder: Path, graph: str, epochs: int) -> dict:
    """Run once."""
    gais = {"kind": "gais", "features": "text", "graph": {"kind": graph}, "network": {"epochs": epochs}}
    config = validate(
        {
            "name": "gais",
            "store": str(folder / "store"),
            "input": {"path": str(folder / "in"), "image": None, "source": "source", "exclude": ["emb"]},
            "embed": {"kind": "columns", "text": "emb"},
            "select": [gais],
            "sample": {"kind": "iid", "batch_size": 10},  # of the rows that stay few miss the last batch
            "emit": {"out": str(folder / "out")},
        }
    )
    log: list[str] = []
    with Memory() as memory:
        started, used = time.perf_counter(), time.process_time()
        mix = curate(config, PlainRunner(2), log.append)
        wall, used = time.perf_counter() - started, time.process_time() - used
    assert next(manifests.discrepancies(mix.url, hashes=False), None) is None
    select = sum(seconds for step, seconds in mix.seconds.items() if step.startswith("select"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    facts = {"wall": wall, "cpu": used, "select": select, "own": memory.own, "peak": peak}
    return facts | {"kept": mix.manifest["counts"]["kept"]}


def main() -> None:
    """Prints a line a size and graph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--equal", action="store_true", help="all vectors alike")
    parser.add_argument("--graphs", nargs="+", default=["mini_batch", "single_level", "multi_level", "multi_view"])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--folder", type=Path, default=None, help="where shards and the store go for the while")
    parser.add_argument("--one", nargs=3, metavar=("FOLDER", "GRAPH", "EPOCHS"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        folder, graph, epochs = asked.one
        print(json.dumps(measure(Path(folder), graph, int(epochs))))
        return
    print(
        "| graph | rows | kept | select s | of all s | CPU s | rows/s of select | own memory GiB | peak RSS GiB |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    for graph in asked.graphs:
        taken = []
        for rows in asked.rows:
            with tempfile.TemporaryDirectory(dir=asked.folder) as place:
                write(Path(place) / "in", rows, asked.dim, asked.equal)
                got = run_apart(__file__, place, graph, str(asked.epochs))
            taken.append(got["cpu"])
            print(
                f"| {graph} | {rows:,} | {got['kept']:,} | {got['select']:.1f} | {got['wall']:.1f} | {got['cpu']:.1f} "
                f"| {rows / got['select']:,.0f} | {got['own'] / 2**30:.2f} | {got['peak'] / 2**30:.2f} |",
                flush=True,
            )
        if len(taken) > 1:
            print(f"\n{graph}: CPU time grows with rows to the power {exponent(asked.rows, taken):.2f}\n")


if __name__ == "__main__":
    main()
