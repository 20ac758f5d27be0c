"""JEST's sampler against explicit matrices: time and memory of one superbatch; then many rows, superbatch by superbatch.

Run: python tests/benchmarks/bench_jest.py [--rows 1000000]

Checks first that greedy picks are those of `select_joint` on the matrices in float64. Each way is measured in a process
of its own, so that peaks of memory are its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from bench_zero_shot import Watch

from configs.methods import sample as methods
from tasks.embed.vectors import field, pack
from tasks.sample.jest import Jest, select_joint

DIM, SUPERBATCH, BATCH, CHUNKS = 512, 4096, 819, 16
TOWER = {"logit_scale": 12.0, "logit_bias": -6.0}


def related(count: int, seed: int) -> list[np.ndarray]:
    """Images and texts of pairs that are more or less alike: unit float32 `(count, DIM)` each."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((count, DIM), np.float32)
    texts = images + rng.uniform(0.3, 3, (count, 1)).astype(np.float32) * rng.standard_normal((count, DIM), np.float32)
    return [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (images, texts)]


def table(count: int, seed: int = 0) -> pa.Table:
    """A superbatch as the stage passes it: sidecars of the learner, list columns of the reference."""
    columns, fields = [], []
    for name, rows in zip(("image_embedding", "text_embedding"), related(count, seed), strict=True):
        columns.append(pack(rows, np.ones(count, bool)))
        fields.append(field(name, DIM))
    for name, rows in zip(("clean_image", "clean_text"), related(count, seed + 1), strict=True):
        offsets = np.arange(0, count * DIM + 1, DIM, dtype=np.int32)
        columns.append(pa.ListArray.from_arrays(offsets, rows.ravel()))
        fields.append(pa.field(name, pa.list_(pa.float32())))
    return pa.table(columns, schema=pa.schema(fields))


def sampler(**over: object) -> Jest:
    """The sampler that is measured."""
    base = {"superbatch_size": SUPERBATCH, "filter_ratio": 0.8, "chunks": CHUNKS, "learner": TOWER}
    base["reference"] = TOWER | {"image": "clean_image", "text": "clean_text"}
    config = methods.Jest(**base | over)
    assert config.batch_size == BATCH
    return Jest(config)


def explicit(rows: pa.Table, dtype: type) -> list[np.ndarray]:
    """The learner's and the reference's sigmoid losses of all pairs: `(B, B)` of `dtype` each."""
    found = []
    for names in (("image_embedding", "text_embedding"), ("clean_image", "clean_text")):
        vectors = []
        for name in names:
            column = rows[name].combine_chunks()
            flat = (
                np.frombuffer(column.buffers()[1], "<f2") if name.endswith("embedding") else column.flatten().to_numpy()
            )
            unit = flat.reshape(-1, DIM).astype(dtype)
            vectors.append(unit / np.linalg.norm(unit, axis=1, keepdims=True))
        logits = TOWER["logit_scale"] * (vectors[0] @ vectors[1].T) + TOWER["logit_bias"]
        np.fill_diagonal(logits, -logits.diagonal())
        found.append(np.logaddexp(0, logits, dtype=dtype))
    return found


def peak() -> float:
    """The most memory this process has had, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def one(way: str, repeats: int = 3) -> None:
    """Measure one way on one superbatch and print a line."""
    rows = table(SUPERBATCH)
    sampler(greedy=True).pick(table(SUPERBATCH, 5), 0)  # libraries are loaded, threads started
    ways: dict[str, Callable[[], object]] = {
        "sampler, sigmoid": lambda: sampler().pick(rows, 0),
        "sampler, softmax": lambda: sampler(
            form="softmax",
            learner={"logit_scale": 12.0},
            reference={"logit_scale": 12.0, "image": "clean_image", "text": "clean_text"},
        ).pick(rows, 0),
        "explicit float32": lambda: select_joint(*explicit(rows, np.float32), BATCH, chunks=CHUNKS),
        "explicit float64": lambda: select_joint(*explicit(rows, np.float64), BATCH, chunks=CHUNKS),
    }
    times, grown = [], 0.0
    for _ in range(repeats):
        start, cpu = time.perf_counter(), time.process_time()
        with Watch() as watch:
            ways[way]()
        times.append((time.perf_counter() - start, time.process_time() - cpu))
        grown = max(grown, watch.grown)
    wall, cpu = min(times)
    print(f"{way:20}{wall:8.2f} s{cpu:8.2f} s of CPU{grown:8,.0f} MB beyond the superbatch", flush=True)


def agree() -> None:
    """Compare greedy picks with those of float64 matrices."""
    rows = table(SUPERBATCH, 2)
    found = sampler(greedy=True).pick(rows, 0)[0]
    exact = select_joint(*explicit(rows, np.float64), BATCH, chunks=CHUNKS, greedy=True)
    same, common = np.count_nonzero(found == exact), len(np.intersect1d(found, exact))
    print(f"greedy picks: {same} of {BATCH} the same in the same place, {common} picked by both", flush=True)


def many(count: int) -> None:
    """Pick from very many rows, one superbatch after the other."""
    method, start, least = sampler(), time.perf_counter(), np.inf
    spent = first = 0.0
    for step in range(-(-count // SUPERBATCH)):
        rows = table(SUPERBATCH, 2 * step)
        begun = time.perf_counter()
        picks = method.pick(rows, step)[0]
        spent += time.perf_counter() - begun
        least = min(least, len(np.unique(picks)))
        first = peak() if step == 0 else first
    done = (step + 1) * SUPERBATCH
    print(
        f"{done:,} rows in {step + 1} superbatches: {spent:,.0f} s picking ({done / spent:,.0f} rows/s), "
        f"{time.perf_counter() - start - spent:,.0f} s making rows; {least:.0f} distinct picks at least; "
        f"peak of the process {peak():,.0f} MB, {peak() - first:,.0f} MB more than after the first superbatch"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=0, help="1000000: also pick from so many rows")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}")
    print(f"B = {SUPERBATCH:,}, D = {DIM}, b = {BATCH}, {CHUNKS} chunks")
    jobs: list[tuple[Callable[..., None], tuple[object, ...]]] = [(agree, ())]
    jobs += [(one, (way,)) for way in ("sampler, sigmoid", "sampler, softmax", "explicit float32", "explicit float64")]
    jobs += [(many, (arguments.rows,))] if arguments.rows else []
    for work, given in jobs:
        process = multiprocessing.get_context("spawn").Process(target=work, args=given)
        process.start()
        process.join()


if __name__ == "__main__":
    main()
