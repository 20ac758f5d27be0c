"""The exact cut of ranked selects over N rows in parts of 100,000: seconds and peak memory against sorting all at once.

python tests/benchmarks/bench_targets.py --rows 10000000
"""

from __future__ import annotations

import argparse
import tempfile
import time

import numpy as np
import psutil
import pyarrow as pa

from configs.methods.select import Threshold
from storage.exchange import ROW, SHARD
from storage.steps import Step
from tasks.select import Decisions, targets

PART = 100_000


class Method:
    """A ranked select of any kind."""

    ranked = True


class Grouped(Method):
    """The same with equal shares of 1,000 groups."""

    def quotas(self, groups: np.ndarray, rows: np.ndarray, wanted: int | None) -> np.ndarray:
        return rows * (wanted or 0) // rows.sum()


def write(step: Step, method: Method, config: Threshold, rows: int, ties: int) -> list[str]:
    """Ranks of so many rows; returns their sources."""
    rng = np.random.default_rng(0)
    for part in range(rows // PART):
        size = rng.integers(1_000, 100_000, PART)
        table = pa.table(
            {
                SHARD: pa.array(np.full(PART, part), pa.int32()),
                ROW: np.arange(PART),
                "image_bytes": size,
                "text_bytes": size,
            }
        )
        rank = (rng.integers(0, ties, PART) / ties).astype(np.float32)
        group = rng.integers(0, 1000, PART) if hasattr(method, "quotas") else None
        nothing = np.full(PART, "", object), rank, np.full(PART, -1, np.int64)
        targets.write_ranks(
            step, method, config, str(part), table, Decisions(np.ones(PART, bool), *nothing, rank, group)
        )
    return [str(part) for part in range(rows // PART)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    print("| case | seconds to find the cut | seconds to settle | kept | MiB more |\n|---|---|---|---|---|")
    for name, method, wanted, ties in (
        ("rows, distinct ranks", Method(), {"target_rows": rows // 3}, 1 << 23),
        ("rows, all ranks equal", Method(), {"target_rows": rows // 3}, 1),
        ("bytes", Method(), {"target_bytes": rows * 10_000}, 1 << 23),
        ("rows of 1,000 groups", Grouped(), {"target_rows": rows // 3}, 1 << 23),
    ):
        config = Threshold(**wanted)
        with tempfile.TemporaryDirectory() as folder:
            step = Step(folder, "select", "bench", "f")
            sources = write(step, method, config, rows, ties)
            before, started = psutil.Process().memory_info().rss, time.perf_counter()
            facts = targets.cut(step, method, config, {}, sources)
            found = time.perf_counter()
            cut = targets.the_cut(step)
            for source in sources:
                targets.settle(step, cut, source)
            ended = time.perf_counter()
            more = (psutil.Process().memory_info().rss - before) / 2**20
        print(f"| {name} | {found - started:.1f} | {ended - found:.1f} | {facts['kept']:,} | {more:.0f} |", flush=True)


if __name__ == "__main__":
    main()
