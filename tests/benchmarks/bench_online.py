"""CABS over ten million rows of concept lists: time a row, and memory, for 1 and 10 million.

Run: python tests/benchmarks/bench_online.py [--rows 1000000 10000000]

Each size runs in a process of its own: five labels a row of 50,000 Zipf concepts, superbatches of 20,480 to 4,096 on
four ranks (rank 0 is timed, as a trainer of four is), one epoch. Prints rows/s, the peak of the process's memory, the
part of it that the concepts themselves take (8 bytes a row, 4 a label), and the exponent of time in rows.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import numpy as np
import pyarrow as pa
from apart import exponent, run_apart

VOCABULARY, LABELS = 50_000, 5


def measure(rows: int, kind: str) -> dict[str, float]:
    """Time of one epoch, and memory in MiB before and after it."""
    from configs.methods.sample import CabsDm, CabsFm
    from tasks.sample.concepts import Labels
    from tasks.sample.online import ConceptBatchSampler

    rng = np.random.default_rng(0)
    share = np.cumsum(1 / np.arange(1, VOCABULARY + 1))
    ids = np.empty(rows * LABELS, np.int32)
    for start in range(0, len(ids), 1 << 20):
        drawn = rng.random(min(1 << 20, len(ids) - start)) * share[-1]
        ids[start : start + len(drawn)] = np.searchsorted(share, drawn)
    words = pa.array([f"concept {i:05}" for i in range(VOCABULARY)], pa.large_string())
    labels = Labels(np.arange(0, len(ids) + 1, LABELS, dtype=np.int64), ids, VOCABULARY, words)
    section = {"cabs_dm": CabsDm, "cabs_fm": CabsFm}[kind](batch_size=4096, filter_ratio=0.8, world_size=4)
    next(iter(ConceptBatchSampler(labels, section, rank=0)))  # compiled, or read from numba's cache
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sampler = ConceptBatchSampler(labels, section, rank=0)
    started, picked = time.perf_counter(), 0
    for batch in sampler:
        picked += len(batch)
    seconds = time.perf_counter() - started
    assert picked == len(sampler) * 1024
    held = (ids.nbytes + labels.offsets.nbytes) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "steps": len(sampler), "before": before, "peak": peak, "held": held}


def main() -> None:
    """Prints a line a size and sampler."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--one", nargs=2)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(int(asked.one[0]), asked.one[1])))
        return
    for kind in ("cabs_dm", "cabs_fm"):
        times = []
        for rows in asked.rows:
            got = run_apart(__file__, str(rows), kind)
            times.append(got["seconds"])
            print(
                f"{kind} {rows:>12,} rows: {got['seconds']:6.2f} s, {rows / got['seconds']:>12,.0f} rows/s, "
                f"{1e3 * got['seconds'] / got['steps']:.2f} ms a step; peak {got['peak']:,.0f} MiB, "
                f"{got['peak'] - got['before']:,.0f} of it while sampling, {got['held']:,.0f} the concepts themselves"
            )
        if len(times) > 1:
            print(f"{kind}: time grows with rows to the power {exponent(asked.rows, times):.3f}")


if __name__ == "__main__":
    main()
