"""What concept-aware samplers say of their batches, made up, for tests of the report."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from storage import files
from storage.steps import Step, parquet_bytes
from tasks.sample.coverage import CONCEPTS, STEPS


def labels(words=("common", "middle", "rare"), offered=(80, 15, 5), wanted=(30.0, 30.0, 20.0), achieved=(20, 15, 5)):
    """What a sampler says of its labels."""
    return pa.table([list(words), offered, wanted or [None] * len(words), achieved], schema=CONCEPTS)


def batches(steps, seed=0, **fixed):
    """What a sampler says of its batches, made up."""
    rng = np.random.default_rng(seed)
    columns = {name: rng.integers(10, 100, steps) for name in STEPS.names} | {"step": np.arange(steps)}
    columns |= {"rows": np.full(steps, 64), "fill": np.zeros(steps, int), "bare": np.zeros(steps, int)}
    columns |= {name: np.full(steps, value) for name, value in fixed.items()}
    return pa.table(columns).cast(STEPS)


def leave(step: Step, number: int, told: pa.Table, counts: pa.Table) -> None:
    """Write them as the sample stage does for one part of the batch plan."""
    for name, table in (("steps", told), ("concepts", counts)):
        files.write_bytes(step.file(f"coverage/{name}-{number:05d}.parquet"), parquet_bytes(table))
