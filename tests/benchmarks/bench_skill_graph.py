"""The score by a graph of skills over N rows in shards: seconds and peak memory of fit and run; the products it saves.

The peer is what the formula says: cosines of rows and skills, S, times the adjacency A, by numpy and scipy, A sparse or
dense; on a subset, since S alone has N times n numbers.

python tests/benchmarks/bench_skill_graph.py --rows 1000000 --skills 50000
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from configs.methods.skills import SkillGraph as Config
from storage.steps import parquet_bytes
from tasks.annotate.entries import decode_vocabulary
from tasks.embed.vectors import pack, unpack
from tasks.score import skills
from tasks.score.skill_graph import SkillGraph, adjacency, merge, scores

SHARD = 20_000
PER_ROW = 5


def shards(rows: int, size: int, dim: int) -> Iterator[pa.Table]:
    """Rows with 5 skills each, by Zipf's law, and embeddings about the mean of their skills'."""
    centres = np.random.default_rng(0).standard_normal((size, dim)).astype(np.float32)
    chance = 1 / np.arange(10, size + 10)
    names = pa.array([f"skill {i:06d}" for i in range(size)])
    for number in range(rows // SHARD):
        rng = np.random.default_rng(number + 1)
        ids = rng.choice(size, (SHARD, PER_ROW), p=chance / chance.sum())
        vectors = centres[ids].mean(axis=1) + rng.standard_normal((SHARD, dim), np.float32) / 2
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        offsets = pa.array(np.arange(0, SHARD * PER_ROW + 1, PER_ROW), pa.int32())
        yield pa.table(
            {
                "row": np.arange(SHARD),
                "concepts": pa.ListArray.from_arrays(offsets, names.take(pa.array(ids.ravel()))),
                "text_embedding": pack(vectors, np.ones(SHARD, bool)),
            }
        )


class Timed:
    """CPU seconds and the most memory so far, told when the block ends."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        self.started, self.wall = time.process_time(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        cpu, wall = time.process_time() - self.started, time.perf_counter() - self.wall
        print(f"| {self.what} | {cpu:.2f} | {wall:.2f} | {peak:,.0f} |", flush=True)


class Stored:
    """Tables in files, read again at every iteration."""

    def __init__(self, folder: Path) -> None:
        self._paths = sorted(folder.iterdir())

    def __iter__(self) -> Iterator[pa.Table]:
        return (pq.read_table(path) for path in self._paths)


def products(config: Config, state: dict, rows: pa.Table, found: np.ndarray, size: int) -> None:
    """Scores of some rows by S A, against those by one dot product."""
    words = pa.array(decode_vocabulary(state["skills"]), pa.large_string())
    labels, _ = skills.read(rows["concepts"], config.row_skills)
    weights = adjacency(skills.known(labels, words), size)
    vectors = np.random.default_rng(0).standard_normal((size, unpack(rows["text_embedding"]).shape[1]))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    few = skills.units(unpack(rows["text_embedding"])[:1000])
    with Timed(f"peer: S, then S A with a sparse A of {weights.nnz:,} entries, summed; 1,000 rows"):
        full = np.asarray((few @ vectors.T) @ weights).sum(axis=1)
    with Timed("S, then S times the row sums of A; 1,000 rows"):
        short = scores(few @ vectors.T, weights)
    with Timed("one dot product with g; 1,000 rows"):
        collapsed = (few * (np.asarray(weights.sum(axis=1)).ravel() @ vectors)).sum(axis=1)
    some = min(size, 8000)
    dense = weights[:some, :some].toarray()
    with Timed(f"peer: S, then S A with a dense A, {some:,} skills; 1,000 rows"):
        (few @ vectors[:some].T @ dense).sum(axis=1)
    print(f"\nlargest difference from S A: {abs(short - full).max():.1e}, {abs(collapsed - full).max():.1e}")
    print(f"scores of the run: {len(found):,}, {found.min():.4f} to {found.max():.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--skills", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--min-cooccurrence", type=int, default=1)
    given = parser.parse_args()
    config = Config(min_cooccurrence=given.min_cooccurrence, largest=given.skills)
    method, found = SkillGraph(config), []
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(given.threads):
        cpu = 0.0
        warm = [method.summarise(next(shards(SHARD, 100, given.dim)))]
        SkillGraph(config, state=method.fit(warm)).run(next(shards(SHARD, 100, given.dim)))  # compiles what numba does
        for number, table in enumerate(shards(given.rows, given.skills, given.dim)):
            began = time.process_time()
            Path(folder, f"{number:05d}").write_bytes(parquet_bytes(method.summarise(table)))
            cpu += time.process_time() - began
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        print(f"{given.rows:,} rows, {given.skills:,} skills, {PER_ROW} a row, {given.dim} dimensions, {config}\n")
        print("| | CPU s | s | peak MiB |\n|---|---|---|---|")
        print(f"| summaries, {size / 2**20:,.0f} MiB | {cpu:.2f} | | |")
        with Timed("fit"):
            state = method.fit(Stored(Path(folder)))
        with Timed(f"of it: merging {given.skills:,} vectors"):
            merge(np.random.default_rng(0).standard_normal((given.skills, given.dim)), np.ones(given.skills), 0.9)
        scorer, cpu = SkillGraph(config, state=state), 0.0
        for table in shards(given.rows, given.skills, given.dim):
            began = time.process_time()
            found.append(scorer.run(table).table[config.name].to_numpy())
            cpu += time.process_time() - began
        print(f"| run | {cpu:.2f} | | |")
        products(config, state, next(shards(SHARD, given.skills, given.dim)), np.concatenate(found), len(state["rows"]))


if __name__ == "__main__":
    main()
