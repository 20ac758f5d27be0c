"""Balancing a million rows of five concepts each, out of 50,000 Zipf concepts, in twenty shards.

Run: python tests/benchmarks/bench_balance.py

Prints rows/s of the select on strings (summarise, fit, decide), of its pure functions on ids, and of the plain Python
loop of MetaCLIP's code on the same lists (count, then draw entry by entry with early exit), as strings and as ids; each
in a process of its own with the peak of its memory, best of three. Reading, and making Python lists of what was read,
is not timed. Checks that probabilities are equal and that each keeps what is expected.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.methods import select as methods

ROWS, SHARDS, LABELS, CONCEPTS, THRESHOLD = 1_000_000, 20, 5, 50_000, 200
CONFIG = methods.Balance(threshold=THRESHOLD)


def write_shards(folder: Path) -> None:
    """Twenty shards: row number, concepts as strings, the same as ids, uid."""
    rng = np.random.default_rng(0)
    p = 1 / np.arange(1, CONCEPTS + 1)
    names = pa.array([f"concept {i:05}" for i in rng.permutation(CONCEPTS)])
    count = ROWS // SHARDS
    for number in range(SHARDS):
        ids = pa.array(rng.choice(CONCEPTS, count * LABELS, p=p / p.sum()).astype(np.int32))
        offsets = np.arange(0, count * LABELS + 1, LABELS, dtype=np.int32)
        uids = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), count, [None, pa.py_buffer(rng.bytes(16 * count))])
        columns = {"__row": np.arange(count), "concepts": pa.ListArray.from_arrays(offsets, names.take(ids))}
        columns |= {"ids": pa.ListArray.from_arrays(offsets, ids), "uid": uids}
        pq.write_table(pa.table(columns), folder / f"{number:02}.parquet")


def shards(folder: Path, *columns: str) -> Iterator[pa.Table]:
    """The shards' columns, one shard in memory at a time."""
    return (pq.read_table(file, columns=list(columns)) for file in sorted(folder.glob("*.parquet")))


class Clock:
    """Seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, call: Callable[[], object]) -> object:
        """What `call` returns; its time is added to `name`."""
        start = time.perf_counter()
        result = call()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        return result


def mixwright(folder: Path) -> dict:
    """The select, as its tasks call it."""
    from tasks.select.balance import Balance

    method, clock, names = Balance(CONFIG, seed=0), Clock(), ("__row", "concepts", "uid")
    first = next(shards(folder, *names)).slice(0, 10)
    method.decide(first, method.fit([method.summarise(first)], None))  # type: ignore[arg-type]  # compiles
    base = peak()
    summaries = [clock("summarise", lambda t=t: method.summarise(t)) for t in shards(folder, *names)]
    state = clock("fit", lambda: method.fit(summaries, None))  # type: ignore[arg-type]
    sums = [clock("forecast", lambda t=t: method.forecast(t, state)) for t in shards(folder, *names)]
    decided = [clock("decide", lambda t=t: method.decide(t, state)) for t in shards(folder, *names)]
    total = {name: sum(one[name] for one in sums) for name in sums[0]}
    line = method.told(state, total)
    score = np.concatenate([one.score for one in decided])
    kept = int(sum(one.keep.sum() for one in decided))
    return {"seconds": clock.seconds, "base": base, "peak": peak(), "score": score, "kept": kept, "told": line} | total


def pure(folder: Path) -> dict:
    """The functions on lists of ids, with one draw a row."""
    from tasks.mix.balance import entry_counts, entry_probabilities, keep_probabilities

    clock, rng = Clock(), np.random.default_rng(0)
    first = next(shards(folder, "ids"))["ids"].slice(0, 10)
    keep_probabilities(first, entry_probabilities(entry_counts(first, CONCEPTS), 1))  # compiles
    base, scores = peak(), []
    counts = sum(clock("count", lambda t=t: entry_counts(t["ids"], CONCEPTS)) for t in shards(folder, "ids"))
    p = clock("probabilities", lambda: entry_probabilities(counts, THRESHOLD))

    def draw(table: pa.Table) -> int:
        scores.append(keep_probabilities(table["ids"], p))
        return int(np.sum(rng.random(table.num_rows) < scores[-1]))

    kept = sum(clock("draw", lambda t=t: draw(t)) for t in shards(folder, "ids"))
    return {"seconds": clock.seconds, "base": base, "peak": peak(), "score": np.concatenate(scores), "kept": kept}


def metaclip(folder: Path, column: str) -> dict:
    """Their loop: count each entry once a text, then draw entry by entry until one succeeds."""
    clock, rng, base = Clock(), random.Random(0), peak()
    count: dict = {}
    kept = 0

    def add(rows: list) -> None:
        for row in rows:
            for entry in set(row):
                count[entry] = count.get(entry, 0) + 1

    def draw(rows: list) -> int:
        number = 0
        for row in rows:
            for entry in set(row):
                if rng.random() < p[entry]:
                    number += 1
                    break
        return number

    def probabilities(rows: list) -> list[float]:
        result = []
        for row in rows:
            lost = 1.0
            for entry in set(row):
                lost *= 1 - p[entry]
            result.append(1 - lost)
        return result

    for table in shards(folder, column):
        rows = table[column].to_pylist()
        clock("count", lambda rows=rows: add(rows))
    p = clock("probabilities", lambda: {e: THRESHOLD / max(c, THRESHOLD) for e, c in count.items()})
    for table in shards(folder, column):
        rows = table[column].to_pylist()
        kept += clock("draw", lambda rows=rows: draw(rows))  # type: ignore[operator]
    highest = peak()
    score = np.concatenate([probabilities(table[column].to_pylist()) for table in shards(folder, column)])
    return {"seconds": clock.seconds, "base": base, "peak": highest, "score": score, "kept": kept}


def peak() -> float:
    """Highest resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def alone(call: Callable, *arguments: object) -> Any:
    """What `call` returns in a new process: a fork would start with its parent's memory as its peak."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(call, arguments)


def best(call: Callable, *arguments: object) -> dict:
    """The fastest of three."""
    return min((alone(call, *arguments) for _ in range(3)), key=lambda one: sum(one["seconds"].values()))


def main() -> None:
    """Prints the table."""
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, one worker")
    print(f"{ROWS:,} rows in {SHARDS} shards, {LABELS} labels a row of {CONCEPTS:,} Zipf concepts, t = {THRESHOLD}\n")
    with tempfile.TemporaryDirectory() as folder:
        alone(write_shards, Path(folder))
        ours = best(mixwright, Path(folder))
        others = {"pure functions, ids": best(pure, Path(folder))}
        others |= {f"Python loop, {column}": best(metaclip, Path(folder), column) for column in ("concepts", "ids")}
    for other in others.values():
        assert np.allclose(other["score"], ours["score"], atol=1e-6)
        assert abs(other["score"].sum() - ours["expected"]) < 1e-6 * ours["expected"]
        assert abs(other["kept"] - ours["expected"]) < 5 * ours["variance"] ** 0.5
    assert abs(ours["kept"] - ours["expected"]) < 5 * ours["variance"] ** 0.5
    print(f"{ours['told']}; kept {ours['kept']:,}; probabilities equal\n")
    ours["seconds"], ahead = {k: s for k, s in ours["seconds"].items() if k != "forecast"}, ours["seconds"]["forecast"]
    print(f"{'':28}{'s':>8}{'rows/s':>12}{'to loop':>8}{'peak MB':>9}{'of it base':>12}")
    slow = sum(others["Python loop, ids"]["seconds"].values())
    for name, one in ({"select, strings": ours} | others).items():
        seconds = sum(one["seconds"].values())
        figures = f"{seconds:8.2f}{ROWS / seconds:12,.0f}{slow / seconds:7.1f}x{one['peak']:9,.0f}{one['base']:12,.0f}"
        print(f"{name:28}{figures}  " + ", ".join(f"{k} {s:.2f}" for k, s in one["seconds"].items()))
    print(f"{'forecast, beside it':28}{ahead:8.2f}{ROWS / ahead:12,.0f}")


if __name__ == "__main__":
    main()
