"""How long the select `pools` takes for a million rows: python tests/benchmarks/bench_pools.py [rows] [buckets].

CPU seconds of one thread; the arrays alone, as the tasks call them shard by shard.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
import pyarrow as pa

from configs.methods.pools import Pools as Config
from storage.states import Checkpoint
from tasks.select import pools

SHARD = 100_000


def shard(number: int) -> pa.Table:
    """Rows with normal scores and random uids."""
    rng = np.random.default_rng(number)
    packed = rng.integers(0, 256, (SHARD, 16), dtype=np.uint8).tobytes()
    uid = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), SHARD, [None, pa.py_buffer(packed)])
    return pa.table({"alignment": rng.normal(0.25, 0.05, SHARD).astype(np.float32), "uid": uid})


def main(rows: int = 1_000_000, buckets: int = 10) -> None:
    """Summarise, fit, decide."""
    law = {"utilities": np.linspace(-0.2, -0.1, buckets).tolist(), "half_lives": [4.0] * buckets}
    config = Config(buckets=buckets, samples_seen=3 * rows, scale=1e6 / rows * buckets, floor=0.1, **law)
    method = pools.Pools(config, seed=0)
    shards = [shard(number) for number in range(rows // SHARD)]
    began = time.process_time()
    summaries = [method.summarise(one) for one in shards]
    summarised = time.process_time()
    state = method.fit(summaries, Checkpoint("memory://none"))
    fitted = time.process_time()
    kept = sum(int(method.decide(one, state).keep.sum()) for one in shards)
    decided = time.process_time()
    print(f"{rows:,} rows, {buckets} buckets: {kept:,} kept ({int(state['best'])} buckets)")
    print(f"summarise {summarised - began:.2f} s, fit {fitted - summarised:.2f} s, decide {decided - fitted:.2f} s")
    before = time.process_time()
    pools.predicted_error(10**12, 0.02, np.linspace(-0.2, -0.1, 10), np.full(10, 1e6), 0.1, 1)
    print(f"one error at 1e12 samples of 10 buckets of one: {1000 * (time.process_time() - before):.1f} ms")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
