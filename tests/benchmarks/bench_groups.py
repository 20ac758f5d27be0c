"""Groups that the input does not name, and the sample of a learned mix, on a million rows in twenty shards.

Run: python tests/benchmarks/bench_groups.py [rows] [clusters]

Clusters of 512 numbers a row, concept groups of Zipf captions, and what a learned law reads of texts of three groups:
summaries shard by shard, then the fit (of the learned law: the sample, its tokenizer and its tokens), then every
shard's labels. Summaries go through files, as in a run. CPU seconds of one process on one thread, and the peak of its
memory, each part in a process of its own.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from apart import run_apart
from synthetic import captions

from configs.methods.grouping import ClusterGroups, ConceptGroups
from configs.methods.learned import Aioli
from tasks import load
from tasks.embed.vectors import pack
from tasks.mix.samples import Samples
from tasks.score import METHODS

SHARDS, DIM = 20, 512


def shard(number: int, rows: int, what: str) -> pa.Table:
    """The rows of one shard, in the columns that `what` reads."""
    rng = np.random.default_rng(number)
    columns: dict[str, Any] = {"row": np.arange(rows), "uid": uids(rng, rows)}
    if what == "cluster":
        centres = np.random.default_rng(999).standard_normal((64, DIM), dtype=np.float32)
        vectors = centres[rng.integers(0, 64, rows)] + rng.standard_normal((rows, DIM), dtype=np.float32)
        columns["image_embedding"] = pack(vectors, np.ones(rows, bool))
    else:
        text = captions(rng, rows)
        columns |= {"text": text} if what == "learned" else {"concepts": pa.compute.split_pattern(text, " ")}
    return pa.table(columns)


def uids(rng: np.random.Generator, rows: int) -> pa.Array:
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), rows, [None, pa.py_buffer(rng.bytes(16 * rows))])


def measure(what: str, rows: int, clusters: int) -> dict[str, float]:
    """CPU seconds of summaries, fit and labels, bytes of the summaries, and the peak in MB."""
    told: dict[str, float] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        started = time.process_time()
        found = call()
        told[name] = told.get(name, 0.0) + time.process_time() - started
        return found

    each = rows // SHARDS
    labels = pa.array(["a", "b", "c"]).take(pa.array(np.arange(each) % 3))
    config = {"cluster": ClusterGroups(clusters=clusters), "concept_group": ConceptGroups()}.get(what)
    method = Samples(Aioli(batch_size=8, device="cpu"), "cpu") if config is None else load(METHODS, config)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{i:03d}.parquet") for i in range(SHARDS)]
        for number, file in enumerate(files):
            table = shard(number, each, what)
            args = (table,) if config else (table, labels)
            pq.write_table(timed("summaries", lambda args=args: method.summarise(*args)), file)
        told["spilled_mb"] = sum(file.stat().st_size for file in files) / 1e6

        class Again:
            def __iter__(self) -> Iterator[pa.Table]:
                return (pq.read_table(file) for file in files)

        if config is None:
            timed("fit", lambda: method.build(["a", "b", "c"], Again()))
        else:
            state = timed("fit", lambda: method.fit(Again()))
            fitted = load(METHODS, config, state=state)
            for number in range(SHARDS):
                table = shard(number, each, what)
                timed("labels", lambda table=table: fitted.run(table))
    return told | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
        return
    rows, clusters = (*sys.argv[1:], *["1000000", "64"][len(sys.argv) - 1 :])
    for what in ("cluster", "concept_group", "learned"):
        told = run_apart(__file__, what, rows, clusters)
        print(f"{what}: " + ", ".join(f"{name} {value:,.1f}" for name, value in told.items()))


if __name__ == "__main__":
    main()
