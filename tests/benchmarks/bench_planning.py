"""Planning a mix: ten million rows in a hundred shards, a thousand groups of very different size, eight rounds.

Run: python tests/benchmarks/bench_planning.py

First the array functions on all rows: proportions to counts under a bound, every shard's draws, and the rows behind a
million draws. Then the tasks themselves (count, plan, draw, order) on a million rows in twenty-five Parquet shards.
CPU seconds of one process on one thread, and the peak of its memory, each part in a process of its own. Checks that
every draw is made once.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from apart import run_apart
from blake3 import blake3

GROUPS, ROUNDS = 1_000, 8
ARRAYS = (10_000_000, 100)
TASKS = (1_000_000, 25)


class Clock:
    """CPU seconds by name."""

    def __init__(self) -> None:
        self.told: dict[str, float] = {}

    def __call__(self, name: str, call: Callable[[], Any]) -> Any:
        started = time.process_time()
        result = call()
        self.told[name] = self.told.get(name, 0.0) + time.process_time() - started
        return result

    def end(self, **more: float) -> dict[str, float]:
        """What was measured, and the most memory in MB that was ever taken."""
        return self.told | more | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}


def labels(rows: int, shards: int) -> list[np.ndarray]:
    """The groups of each shard's rows: int64 `(rows / shards,)`."""
    shares = 0.9 * np.random.default_rng(0).dirichlet(np.full(GROUPS, 0.5)) + 0.1 / GROUPS
    return [np.random.default_rng(1 + i).choice(GROUPS, rows // shards, p=shares) for i in range(shards)]


def rounds() -> np.ndarray:
    """Proportions that have nothing to do with the rows."""
    return np.random.default_rng(99).dirichlet(np.ones(GROUPS), ROUNDS)


def arrays(rows: int, shards: int) -> dict[str, float]:
    """Plan and draw without reading or writing."""
    from tasks.mix import Proportions
    from tasks.mix.allotting import allot
    from tasks.mix.draws import DrawPlan, shard_draws

    clock, groups = Clock(), labels(rows, shards)
    by_shard = np.array([np.bincount(one, minlength=GROUPS) for one in groups])
    total, before = by_shard.sum(axis=0), np.cumsum(by_shard, axis=0) - by_shard
    shard_draws(DrawPlan(np.ones((1, 1), np.int64), np.ones(1, np.int64), 0), *np.zeros((3, 1), np.int64))  # compile
    found, names = Proportions(rounds()), [f"{i:04}" for i in range(GROUPS)]
    counts, _ = clock("allot", lambda: allot(found, names, total, rows, 4))
    plan, seen, some = DrawPlan(counts, total, 0), np.zeros(rows, bool), np.arange(rows // shards)
    for shard, mine in enumerate(groups):
        drawn = clock("draws of all shards", lambda m=mine, b=before[shard]: shard_draws(plan, some, m, b))
        seen[drawn["draw"].to_numpy()] = True
    clock("rows behind 1 M draws", lambda: plan.rows_of(np.arange(min(rows, 1_000_000))))
    assert seen[: plan.total].all() and not seen[plan.total :].any()
    return clock.end(draws=plan.total)


def tasks(rows: int, shards: int) -> dict[str, float]:
    """The tasks of the mix step, one after the other, on real files."""
    from configs.methods.mix import Static
    from storage.exchange import PARTITION_ROWS
    from storage.shards import Shard
    from storage.steps import Step
    from storage.view import View
    from tasks.mix import task
    from tasks.mix.budgets import Budget

    clock, names = Clock(), np.array([f"group {i:04}" for i in range(GROUPS)])
    with tempfile.TemporaryDirectory() as folder:
        every = []
        for index, mine in enumerate(labels(rows, shards)):
            path = Path(folder, f"{index:03}.parquet")
            pq.write_table(pa.table({"domain": names[mine]}), path)
            every.append(Shard(index, path.name, str(path), blake3(path.read_bytes()).hexdigest(16), len(mine)))
        step, view = Step(f"{folder}/store", "mix", "static", "0"), View({"domain": "domain"})
        mix = [dict(zip(names.tolist(), row, strict=True)) for row in rounds().tolist()]
        config = Static(proportions=mix, max_epochs=4)
        budget = Budget(rows, None, 1024, 1024)
        clock("count", lambda: task.count_shards.fn(step, view, "domain", (), every, ""))
        plan = clock("plan", lambda: task.plan_mix.fn(step, config, 0, budget, every))
        clock("draw", lambda: task.draw_shards.fn(step, view, "domain", PARTITION_ROWS, every, ""))
        parts = list(range(-(-plan["draws"] // PARTITION_ROWS)))
        clock("order", lambda: task.order_draws.fn(step, every, parts, ""))
        drawn = [pq.read_table(step.file(f"part-{part:05d}.parquet"))["draw"].to_numpy() for part in parts]
        assert np.array_equal(np.concatenate(drawn), np.arange(plan["draws"]))
    return clock.end(draws=plan["draws"])


if __name__ == "__main__":
    if "--one" in sys.argv:
        print(json.dumps({"arrays": arrays, "tasks": tasks}[sys.argv[2]](int(sys.argv[3]), int(sys.argv[4]))))
    else:
        for part, (rows, shards) in (("arrays", ARRAYS), ("tasks", TASKS)):
            told = run_apart(__file__, part, str(rows), str(shards))
            print(f"{part}: {rows:,} rows, {shards} shards, {GROUPS:,} groups, {ROUNDS} rounds")
            for name, value in told.items():
                print(f"  {name:<24}{value:>14,.2f}")
