"""UDS over many draws: seconds and memory of the sampler, beside the plain loop and the products that it cannot avoid.

Run: python tests/benchmarks/bench_samplers.py [--million]

Sketches have 1,024 float32 numbers, the buffer 1,024 places. `sampler` picks superbatch by superbatch; `loop` calls the
memory buffer for every micro-batch; `floor` is only the products of all candidates with a full buffer, in float64.
Each way is measured in a process of its own with one thread; picks of sampler and loop are compared first. `--million`
also picks from 1,000,000 draws, in parts of 32,768 as the stage does, with this machine's threads.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import time

import numpy as np
import pyarrow as pa
from apart import run_apart

from configs.methods.scored import Uds as Section
from storage.packed import pack

DIM, CAPACITY = 1024, 1024
SHARES = ((8, 1), (256, 64))
SUPERBATCH = 2048
PART = 1 << 15


def draws(count: int, seed: int) -> pa.Table:
    """Scores as the stage brings them to draws: sketches around a few centres, of lengths about 1e5."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((64, DIM), np.float32)
    sketches = centres[rng.integers(0, 64, count)] * 3000 + rng.standard_normal((count, DIM), np.float32) * 500
    return pa.table({"intra": rng.gamma(9, 100, count).astype(np.float32), "sketch": pack(sketches)})


def sampler(size: int, taken: int):
    """The sampler, for micro-batches of `size`."""
    from tasks.sample.uds import Uds

    return Uds(Section(superbatch_size=SUPERBATCH, filter_ratio=1 - taken / size, micro_batch=size, alpha=1e-3))


def by_sampler(tables: list[pa.Table], size: int, taken: int) -> list[int]:
    """Picks of the sampler."""
    method, picks = sampler(size, taken), []
    for number, table in enumerate(tables):
        picks += (number * SUPERBATCH + method.pick(table, number)[0]).tolist()
    return picks


def by_loop(tables: list[pa.Table], size: int, taken: int) -> list[int]:
    """Picks micro-batch by micro-batch."""
    from storage.packed import unpack
    from tasks.score.uds import MemoryBuffer, top_k, utility_diversity

    buffer, picks = MemoryBuffer(CAPACITY, DIM), []
    for number, table in enumerate(tables):
        intra, sketches = table["intra"].to_numpy(), unpack(table["sketch"], np.float32)
        for first in range(0, SUPERBATCH, size):
            ours = slice(first, first + size)
            total = utility_diversity(intra[ours], buffer.mean_distance(sketches[ours]), 1e-3)
            found = first + top_k(total, taken)
            buffer.push(sketches[found])
            picks += (number * SUPERBATCH + found).tolist()
    return picks


def floor(tables: list[pa.Table], size: int, taken: int) -> list[int]:
    """Products of every candidate with a full buffer, 256 at a time."""
    import torch

    kept = torch.zeros(CAPACITY, DIM, dtype=torch.float64)
    for _ in range(len(tables) * SUPERBATCH // 256):
        torch.ones(256, DIM, dtype=torch.float64) @ kept.T
    return []


WAYS = {"sampler": by_sampler, "loop": by_loop, "floor": floor}


def peak() -> float:
    """The most memory this process has had, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def one(way: str, size: int, taken: int, steps: int) -> dict[str, object]:
    """CPU seconds of one way on some superbatches, behind others that fill the buffer and start the libraries."""
    tables = [draws(SUPERBATCH, seed) for seed in range(steps)]
    WAYS[way](tables[:1], size, taken)
    start = time.process_time()
    picks = WAYS[way](tables, size, taken)
    return {"seconds": time.process_time() - start, "picks": picks}


def million(size: int, taken: int, count: int) -> dict[str, object]:
    """Seconds and memory of very many draws, part after part."""
    method, steps, spent, cpu, before = sampler(size, taken), 0, 0.0, 0.0, 0.0
    for part in range(-(-count // PART)):
        table = draws(min(PART, count - part * PART), part)
        begun, used = time.perf_counter(), time.process_time()
        for first in range(0, table.num_rows // SUPERBATCH * SUPERBATCH, SUPERBATCH):
            picks, _ = method.pick_and_value(table.slice(first, SUPERBATCH), steps)
            assert len(np.unique(picks[0])) == SUPERBATCH * taken // size
            steps += 1
        spent, cpu = spent + time.perf_counter() - begun, cpu + time.process_time() - used
        before = before or peak()
    state = sum(np.asarray(array).nbytes for array in method.state_dict().values())
    facts = {"draws": steps * SUPERBATCH, "seconds": spent, "cpu": cpu, "peak": peak(), "first": before}
    return facts | {"state": state / 1e6}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--million", action="store_true", help="also pick from 1,000,000 draws")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        way, *numbers = arguments.one
        told = million(*map(int, numbers)) if way == "million" else one(way, *map(int, numbers))
        print(json.dumps(told))
        return
    print(f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}, one thread", flush=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    for size, taken in SHARES:
        found = {way: run_apart(__file__, way, str(size), str(taken), "6") for way in WAYS}
        same = np.mean(np.array(found["sampler"]["picks"]) == np.array(found["loop"]["picks"]))
        print(f"micro-batches of {size}, {taken} taken: {same:.2%} of picks are those of the loop", flush=True)
        for way, told in found.items():
            rate = told["seconds"] / (6 * SUPERBATCH)
            print(f"  {way:10}{rate * 1e6:8.1f} µs of CPU a draw, {rate * 1e6:6.0f} s a million", flush=True)
    for size, taken in SHARES if arguments.million else ():
        told = run_apart(__file__, "million", str(size), str(taken), "1000000")
        print(
            f"micro-batches of {size}, {taken} taken: {told['draws']:,} draws in {told['seconds']:.0f} s "
            f"({told['cpu']:.0f} s of CPU); peak of the process {told['peak']:,.0f} MB, "
            f"{told['peak'] - told['first']:,.0f} MB more than after the first part; state {told['state']:.1f} MB",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
