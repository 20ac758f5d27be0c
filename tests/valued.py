"""What samplers that go by numbers of single draws leave behind, made up, for tests of the report."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa

from storage import files
from storage.exchange import SHARD
from storage.steps import Step, parquet_bytes
from tasks.report import utility

KINDS = {"draw": pa.int64(), "round": pa.int32(), "row": pa.int64(), SHARD: pa.int32(), "group": pa.int32()}


def draws(count, micro=4, taken=1, seed=0, alpha=0.5, rows=1000, **fixed):
    """Values of `count` draws as UDS tells them: of every `micro` the `taken` with the highest total are picked."""
    rng = np.random.default_rng(seed)
    columns = {"draw": np.arange(count), "round": np.zeros(count), "row": rng.permutation(max(rows, count))[:count]}
    columns |= {SHARD: np.zeros(count), "group": rng.integers(0, 3, count)}
    columns |= {"intra": 100 + 10 * rng.standard_normal(count), "inter": 20 + 5 * rng.random(count)}
    columns |= {name: np.asarray(value, np.float64) for name, value in fixed.items()}
    total = fixed.get("total", columns["intra"] + alpha * columns["inter"])
    rank = np.argsort(np.argsort(-np.asarray(total, np.float64).reshape(-1, micro), axis=1, kind="stable"), axis=1)
    columns |= {"picked": fixed.get("picked", (rank < taken).ravel()), "total": total}
    return table(columns)


def table(columns):
    """`columns` as a sampler writes them, the values last."""
    names = [*KINDS, "picked", *(name for name in columns if name not in (*KINDS, "picked"))]
    kinds = KINDS | {"picked": pa.bool_()}
    return pa.table({name: pa.array(np.asarray(columns[name])).cast(kinds.get(name, pa.float32())) for name in names})


def leave(step: Step, number: int, told: pa.Table, name: str = "values") -> None:
    """Write it as the sample stage does for one part of the batch plan."""
    files.write_bytes(step.file(f"{name}-{number:05d}.parquet"), parquet_bytes(told))


def item(row, **changes):
    """A row as the report shows it."""
    line = {"file": "a/0.parquet", "row": row, "outcome": "kept", "reason": None, "times_used": 1, "bytes": 9}
    return (
        line
        | {"score": None, "head": None, "key": None, "caption": f"words {row}", "told": None, "detail": None}
        | changes
    )


def uds(folder, kind="uds", micro=8, taken=2, alpha=0.5, steps=10, **fixed):
    """What a run finds of made-up values."""
    step = Step(str(folder), "sample", kind, "0" * 12)
    told = draws(steps * 40, micro=micro, taken=taken, alpha=alpha, **fixed)
    leave(step, 0, told)
    found = utility.found(step, [told.num_rows], steps, 40, micro)
    rows = utility.extremes(step, [1], 12, str)
    ends = {
        end: [item(i) | one._asdict() | {"file": "a/0.parquet", "row": i} for i, one in enumerate(some)]
        for end, some in rows.items()
    }
    facts = {"kind": kind, "micro_batch": micro, "taken": taken, "alpha": alpha, "rows": ends}
    return json.loads(json.dumps(found | facts, allow_nan=False))


def over_groups(name):
    """Groups over steps, one of them called `name`."""
    return {
        "names": ["web", name],
        "others": 3,
        "steps": 40,
        "first": [0, 10, 20],
        "candidates": [[60, 40, 50], [20, 40, 25], [20, 20, 25]],
        "picks": [[10, 5, 0], [10, 15, 30], [5, 5, 0]],
    }
