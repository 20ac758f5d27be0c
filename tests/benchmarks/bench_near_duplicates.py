"""Near duplicates by embedding against exact faiss and semhash: recall of planted pairs, seconds, peak memory.

python tests/benchmarks/bench_near_duplicates.py [--million] [--kinds clustered isotropic] [--folder DIR]

Every measurement is a process of its own. The rows rest in Arrow files of 50,000 float16 vectors of 512 numbers, mapped
by whoever reads them. One row in twenty is planted: its cosine with another row lies evenly between 0.952 and 0.995,
the threshold is 0.95. A pair is found if not both rows stay. `clustered` rows have 20,000 centres, a decaying spectrum
and a common mean (two rows at random have a cosine of about 0.5, as CLIP's have); `isotropic` rows have no structure,
the worst case of any partition. Of peers that would take hours a part is run and the rest extrapolated; it is said.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from apart import exponent, run_apart

from configs.methods.duplicates import NearDuplicates as Settings
from storage.exchange import Gathering, spill
from tasks.embed.vectors import pack, unpack
from tasks.select.near_duplicates import NearDuplicates

DIM, SHARD_ROWS, TAU = 512, 50_000, 0.95
QUERIES, EXACT_ROWS = 1000, 20_000


# ---------------------------------------------------------------------------------------------------------------- data
def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length one, float32."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def write_rows(folder: Path, kind: str, rows: int) -> Path:
    """`rows` vectors in shards, and `pairs.npy`: int64 `(planted, 2)`."""
    folder.mkdir(parents=True)
    shared = np.random.default_rng(99)
    strength = np.arange(1, DIM + 1, dtype=np.float32) ** -0.5
    mean = unit(shared.standard_normal((1, DIM)))
    centres = unit(shared.standard_normal((20_000, DIM), np.float32) * strength)
    size = min(SHARD_ROWS, rows // 2)
    sources: list[np.ndarray] = []
    pairs: list[np.ndarray] = []
    shards = rows // size
    for number in range(shards):
        rng = np.random.default_rng(number)
        vectors = unit(rng.standard_normal((size, DIM), np.float32))
        if kind == "clustered":
            inside = unit(rng.standard_normal((size, DIM), np.float32) * strength)
            of = (len(centres) * rng.random(size) ** 2).astype(np.int64)
            vectors = unit(0.67 * mean + 0.74 * unit(0.7 * centres[of] + 0.71 * inside))
        planted = size // 10
        if number < shards // 2:
            sources.append(vectors[:planted].copy())
        elif sources:
            near = sources.pop(0)
            away = rng.standard_normal(near.shape, np.float32)
            away = unit(away - near * np.einsum("nd,nd->n", away, near)[:, None])
            cosine = rng.uniform(0.952, 0.995, (planted, 1)).astype(np.float32)
            vectors[-planted:] = cosine * near + np.sqrt(1 - cosine**2) * away
            first = (number - shards // 2) * size
            pairs.append(
                np.column_stack([first + np.arange(planted), (number + 1) * size - planted + np.arange(planted)])
            )
        table = pa.table({"image_embedding": pack(vectors, np.ones(size, bool))})
        with (
            pa.OSFile(str(folder / f"{number:05d}.arrow"), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as writer,
        ):
            writer.write_table(table)
    np.save(folder / "pairs.npy", np.concatenate(pairs))
    return folder


def write_equal(folder: Path, rows: int) -> Path:
    """`rows` times one vector."""
    folder.mkdir(parents=True)
    table = pa.table(
        {
            "image_embedding": pack(
                np.tile(unit(np.arange(1.0, DIM + 1)[None]), (SHARD_ROWS, 1)), np.ones(SHARD_ROWS, bool)
            )
        }
    )
    for number in range(rows // SHARD_ROWS):
        with (
            pa.OSFile(str(folder / f"{number:05d}.arrow"), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as writer,
        ):
            writer.write_table(table)
    np.save(folder / "pairs.npy", np.array([[0, 1]]))
    return folder


def shards(folder: Path) -> Iterator[pa.Table]:
    """Tables of mapped vectors, in order."""
    for file in sorted(folder.glob("*.arrow")):
        yield pa.ipc.open_file(pa.memory_map(str(file))).read_all()


def matrix(folder: Path) -> np.ndarray:
    """All vectors, float32."""
    every = np.concatenate([unpack(shard["image_embedding"]) for shard in shards(folder)])
    return unit(every.astype(np.float32))


def found(keep: np.ndarray, pairs: np.ndarray) -> float:
    """Share of the planted pairs of which one row is dropped."""
    inside = pairs[(pairs < len(keep)).all(axis=1)]
    return float(1 - np.mean(keep[inside].all(axis=1)))


# --------------------------------------------------------------------------------------------------------------- tools
class Spills(NamedTuple):
    """Where the exchange spills: as much of a step as it needs."""

    folder: Path

    def file(self, name: str) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return str(path)


def ours(folder: Path, changes: dict[str, Any], spills: Path) -> tuple[np.ndarray, dict[str, float]]:
    """As the stage works, on two threads: summarise, fit, spill by cell, decide. Returns which rows stay."""
    step: Any = Spills(spills)
    method = NearDuplicates(Settings(**{"keep_by": None} | changes), seed=0)
    counts = [shard.num_rows for shard in shards(folder)]
    starts = np.cumsum([0, *counts])
    seconds = {}
    with ThreadPoolExecutor(2) as pool:
        at = time.perf_counter()
        summaries = list(pool.map(method.summarise, shards(folder)))
        state = method.fit(summaries, None)  # type: ignore[arg-type]
        seconds["fit"] = time.perf_counter() - at

        def leave(item: tuple[int, pa.Table]) -> None:
            number, shard = item
            rows = shard.append_column("at", pa.array(starts[number] + np.arange(shard.num_rows)))
            spill(step, "rows", str(number), [(rows, method.partition(rows, state))])

        at = time.perf_counter()
        list(pool.map(leave, enumerate(shards(folder))))
        seconds["partition"] = time.perf_counter() - at
        gathering = Gathering(step, "rows", [str(number) for number in range(len(counts))])
        keep = np.ones(starts[-1], bool)
        ranks = np.full(starts[-1], -np.inf, np.float32)

        def decide(bucket: int) -> None:
            rows = gathering.gather(bucket)
            assert rows is not None
            decided = method.decide(rows, state)
            keep[rows["at"].to_numpy()] = decided.keep
            if decided.rank is not None:
                ranks[rows["at"].to_numpy()] = decided.rank[:, 0]

        at = time.perf_counter()
        list(pool.map(decide, gathering.buckets()))
        seconds["decide"] = time.perf_counter() - at
    if method.ranked:
        keep[np.argsort(-ranks, kind="stable")[: int(len(keep) * (1 - changes["target_fraction"]))]] = False
    return keep, seconds


def faiss_exact(vectors: np.ndarray, queries: int | None) -> tuple[np.ndarray, float]:
    """Greedy over every pair that `IndexFlatIP.range_search` finds; the factor of the queries that were left out."""
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    keep = np.ones(len(vectors), bool)
    asked = len(vectors) if queries is None else queries
    limits, _, ids = index.range_search(vectors[len(vectors) - asked :], TAU - 1e-6)
    first = len(vectors) - asked
    for row in range(first, len(vectors)):  # pairs are symmetric: a row goes if a row before it stays
        before = ids[limits[row - first] : limits[row - first + 1]]
        keep[row] = not keep[before[before < row]].any()
    return keep, len(vectors) / asked


def semhash(vectors: np.ndarray, backend: str) -> np.ndarray:
    """Its self-deduplication over our vectors; its records are row numbers."""
    from semhash import SemHash

    class Encoder:
        def encode(self, inputs: Any, **_: Any) -> np.ndarray:
            return vectors[[int(row) for row in inputs]]

    names = [str(row) for row in range(len(vectors))]
    index = SemHash.from_embeddings(vectors, names, Encoder(), ann_backend=backend)
    kept = index.self_deduplicate(threshold=TAU).selected
    keep = np.zeros(len(vectors), bool)
    keep[[int(row) for row in kept]] = True
    return keep


def one(tool: str, folder: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """One measurement; compiling and imports are not timed."""
    pairs = np.load(folder / "pairs.npy")
    factor, steps = 1.0, {}
    if tool == "ours":
        warm = np.random.default_rng(0).standard_normal((3000, DIM)).astype(np.float32)
        with tempfile.TemporaryDirectory() as temporary:
            table = pa.table({"image_embedding": pack(unit(warm), np.ones(3000, bool))})
            method = NearDuplicates(Settings(**{"keep_by": None, "bucket_rows": 1000} | changes), seed=0)
            method.partition(table, method.fit([method.summarise(table)], None))  # type: ignore[arg-type]
            method.decide(table, {})
            at, cpu = time.perf_counter(), time.process_time()
            keep, steps = ours(folder, changes, Path(temporary))
            seconds, cpu = time.perf_counter() - at, time.process_time() - cpu
    else:
        vectors = matrix(folder)
        importlib.import_module(tool.split()[0])
        at, cpu = time.perf_counter(), time.process_time()
        if tool == "faiss":
            keep, factor = faiss_exact(vectors, QUERIES if len(vectors) > EXACT_ROWS else None)
        else:
            keep = semhash(vectors, tool.removeprefix("semhash "))
        seconds, cpu = time.perf_counter() - at, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    recall = None if factor > 1 else found(keep, pairs)
    told = {
        "tool": tool,
        "rows": len(keep),
        "seconds": seconds,
        "cpu": cpu,
        "factor": factor,
        "peak": peak,
        "recall": recall,
    }
    return told | {"kept": int(keep.sum()), "steps": {name: round(value, 1) for name, value in steps.items()}}


# --------------------------------------------------------------------------------------------------------------- table
def measure(tool: str, folder: Path, **changes: Any) -> dict[str, Any]:
    """One row of the table."""
    told = run_apart(__file__, tool, str(folder), json.dumps(changes))
    note = f"extrapolated x{told['factor']:,.0f}" if told["factor"] > 1 else json.dumps(told["steps"])
    recall = "" if told["factor"] > 1 else f"{told['recall']:.3f}"
    print(
        f"| {folder.name} | {tool} {json.dumps(changes) if changes else ''} | {told['rows']:,} | {recall} | "
        f"{told['kept']:,} | {told['seconds'] * told['factor']:,.2f} | "
        f"{told['cpu'] * told['factor']:,.2f} | {told['peak']:.2f} | {note} |",
        flush=True,
    )
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=3)
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--kinds", nargs="*", default=["clustered", "isotropic"])
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    if options.one:
        tool, folder, changes = options.one
        print(json.dumps(one(tool, Path(folder), json.loads(changes))))
        return
    with contextlib.ExitStack() as stack:
        root = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        print(
            "| rows of | tool | rows | recall | kept | seconds | CPU s | peak GiB | |\n|---|---|---|---|---|---|---|---|---|"
        )
        for kind in options.kinds:
            folder = write_rows(root / f"{kind}-8k", kind, 8000)
            for tool in ("ours", "faiss", "semhash usearch", "semhash basic"):
                measure(tool, folder)
            for changes in ({"groups": "components"}, {"groups": "semdedup"}, {"target_fraction": 0.8}):
                measure("ours", folder, **changes)
        for kind in options.kinds:
            sizes = [10_000, 100_000, *([1_000_000] if options.million else [])]
            folders = [write_rows(root / f"{kind}-{rows}", kind, rows) for rows in sizes]
            told = [measure("ours", folder) for folder in folders]
            for name in ("seconds", "cpu"):
                print(f"{name} grow with the rows to the power of {exponent(sizes, [one[name] for one in told]):.2f}")
            measure("ours", folders[1], groups="components")
            measure("ours", folders[1], target_fraction=0.8)
            measure("semhash usearch", folders[1])
            measure("faiss", folders[-1])
        if options.million:
            measure("ours", write_equal(root / "equal-100000", 100_000))
            measure("ours", write_equal(root / "equal-1000000", 1_000_000))


if __name__ == "__main__":
    main()
