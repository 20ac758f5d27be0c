"""Zero-shot annotation against the floor, the bare matrix product: rows/s, GFLOP/s, memory; and a million rows once.

The floor is `torch.mm` alone, on all cores, at the block size that suits it best: no top-k, no softmax, no strings.
Rows are a sidecar's float16 embeddings in Arrow; what is timed is the annotator's own `run`, to its Arrow table.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import psutil
import pyarrow as pa

from configs.methods.annotate import ZeroShot
from configs.methods.embed import OpenClip
from tasks.annotate.entries import encode_vocabulary
from tasks.annotate.nearest import block_rows
from tasks.annotate.zero_shot import ZeroShotAnnotator
from tasks.embed.device import resolve_device
from tasks.embed.encoder import single_threads
from tasks.embed.vectors import field

CHECKED_ROWS = 200


def unit_classes(count: int, dim: int) -> np.ndarray:
    """Unit vectors, float32 `(count, dim)`."""
    vectors = np.random.default_rng(0).standard_normal((count, dim), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def sidecar(rows: int, dim: int, chunk: int = 50_000) -> pa.Table:
    """Unit embeddings as a sidecar has them, made chunk by chunk: float16 `(rows, dim)`."""
    whole = np.empty((rows, dim), "<f2")
    for first in range(0, rows, chunk):
        vectors = np.random.default_rng([1, first]).standard_normal((min(chunk, rows - first), dim), np.float32)
        whole[first : first + chunk] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(2 * dim), rows, [None, pa.py_buffer(whole)])
    return pa.table({"image_embedding": column}, schema=pa.schema([field("image_embedding", dim)]))


def annotator(classes: np.ndarray, device: str, **config) -> ZeroShotAnnotator:
    """An annotator with these class embeddings."""
    names = [f"concept {i}" for i in range(len(classes))]
    state = {"vocabulary": encode_vocabulary(names), "classes": classes, "logit_scale": np.array(100.0)}
    return ZeroShotAnnotator(ZeroShot(encoder=OpenClip(device=device), **config), state)


def product(classes: np.ndarray, rows: pa.Table, size: int, device: str) -> None:
    """The bare matrix product, block by block into one buffer."""
    import torch

    dim = classes.shape[1]
    vectors = np.frombuffer(rows["image_embedding"].chunk(0).buffers()[1], "<f2").reshape(-1, dim)
    right = torch.from_numpy(classes).to(device).T
    scores = torch.empty((size, len(classes)), device=device)
    for first in range(0, len(vectors) - size + 1, size):
        torch.mm(torch.from_numpy(vectors[first : first + size].astype(np.float32)).to(device), right, out=scores)
    if device == "cuda":
        torch.cuda.synchronize()


def product_by_threads(classes: np.ndarray, rows: pa.Table, size: int) -> None:
    """The same on a CPU, with as many blocks at once as there are cores, one thread each."""
    import torch

    vectors = np.frombuffer(rows["image_embedding"].chunk(0).buffers()[1], "<f2").reshape(-1, classes.shape[1])
    right, own = torch.from_numpy(classes).T, threading.local()

    def multiply(first: int) -> None:
        if not hasattr(own, "scores"):
            own.scores = torch.empty((size, len(classes)))
        torch.mm(torch.from_numpy(vectors[first : first + size].astype(np.float32)), right, out=own.scores)

    pool = single_threads(os.cpu_count() or 1)
    list(pool.map(multiply, range(0, len(vectors) - size + 1, size)))


def check_correct(classes: np.ndarray, rows: pa.Table, device: str) -> None:
    """Compare the concepts of some rows with a float64 product and a full sort."""
    few = rows.slice(0, CHECKED_ROWS)
    found = annotator(classes, device).run(few).table
    width = classes.shape[1]
    vectors = np.frombuffer(b"".join(few["image_embedding"].to_pylist()), "<f2").reshape(-1, width).astype(np.float64)
    scores = vectors @ classes.T.astype(np.float64)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    expected = [[f"concept {i}" for i in row] for row in order]
    same = sum(a == b for a, b in zip(found["concepts"].to_pylist(), expected))
    error = np.abs(np.array(found["confidences"].to_pylist()) - np.take_along_axis(scores, order, 1)).max()
    print(f"  {same} of {len(few)} rows as by brute force in float64, confidences within {error:.1e}")


class Cost(NamedTuple):
    """Seconds on the clock, and of CPU time: the latter hardly notices who else uses the machine."""

    wall: float
    cpu: float


def cost(work: Callable[[], object]) -> Cost:
    """What one call costs."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


class Watch:
    """The most memory that the process has while the block runs, above what it had before; sampled."""

    def __enter__(self) -> Watch:
        self._process, self._over = psutil.Process(), threading.Event()
        self.before = self.most = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, self._process.memory_info().rss)

    @property
    def grown(self) -> float:
        """MB."""
        return (self.most - self.before) / 1e6


def compare(arguments: argparse.Namespace, device: str) -> None:
    """Print one line for each way, and the ratios to the floor: the best of rounds taken in turn."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    classes, rows = unit_classes(arguments.concepts, arguments.dim), sidecar(arguments.rows, arguments.dim)
    check_correct(classes, rows, device)
    own = block_rows(len(classes), device)
    varied = np.random.default_rng(2).uniform(0, 0.2, len(classes))
    thresholds = {f"concept {i}": float(number) for i, number in enumerate(varied)}
    sizes = sorted({own, 128, 256, 512}) if device == "cpu" else sorted({own, 4096, 8192})
    ways: dict[str, Callable[[], object]] = {
        f"floor, blocks of {size}": (lambda size=size: product(classes, rows, size, device)) for size in sizes
    }
    if device == "cpu":
        ways |= {
            f"floor, {size}, a thread each": lambda size=size: product_by_threads(classes, rows, size) for size in sizes
        }
    ways["cosine, top 5"] = lambda: annotator(classes, device).run(rows)
    ways["softmax, top 5"] = lambda: annotator(classes, device, confidence="softmax", threshold=0.01).run(rows)
    ways["cosine, top 5, thresholds"] = lambda: annotator(classes, device, thresholds=thresholds).run(rows)
    ways["softmax, top 5, thresholds"] = lambda: annotator(
        classes, device, confidence="softmax", thresholds=thresholds
    ).run(rows)
    ways["cosine, top 100"] = lambda: annotator(classes, device, top_k=100, threshold=0.1).run(rows)
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    grown: dict[str, float] = {}
    for _ in range(arguments.rounds):
        for name, work in ways.items():
            with Watch() as watch:
                costs[name].append(cost(work))
            grown[name] = max(grown.get(name, 0), watch.grown)
    best = {name: Cost(min(c.wall for c in found), min(c.cpu for c in found)) for name, found in costs.items()}
    floor = Cost(*(min(c[i] for name, c in best.items() if name.startswith("floor")) for i in (0, 1)))
    for name, one in best.items():
        flops = 2 * arguments.rows * arguments.concepts * arguments.dim / one.wall
        print(
            f"  {name:28s} {arguments.rows / one.wall:9,.0f} rows/s {flops / 1e9:7,.0f} GFLOP/s; times the floor's "
            f"{one.wall / floor.wall:5.2f} on the clock, {one.cpu / floor.cpu:5.2f} of CPU; +{grown[name]:,.0f} MB"
        )


def large(arguments: argparse.Namespace, device: str) -> None:
    """Annotate one shard of very many rows, and say what memory that took beyond the shard itself."""
    classes, rows = unit_classes(arguments.concepts, arguments.dim), sidecar(arguments.large_rows, arguments.dim)
    method = annotator(classes, device)
    method.run(rows.slice(0, 5000))  # the libraries are loaded, the classes are on the device
    with Watch() as watch:
        seconds = cost(lambda: method.run(rows)).wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(
        f"  {len(rows):,} rows in one shard ({rows.nbytes / 1e6:,.0f} MB): {seconds:,.0f} s, {len(rows) / seconds:,.0f} rows/s,"
        f" +{watch.grown:,.0f} MB beyond the shard, peak of the process {peak:,.0f} MB"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--concepts", type=int, default=21_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large-rows", type=int, default=0, help="1000000: also annotate so many once, memory watched")
    arguments = parser.parse_args()
    device = resolve_device("auto")
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {device}, load {os.getloadavg()[0]:.1f}"
    )
    print(f"{arguments.rows:,} rows x {arguments.concepts:,} concepts x {arguments.dim} dimensions")
    if arguments.rows:
        compare(arguments, device)
    if arguments.large_rows:
        large(arguments, device)


if __name__ == "__main__":
    main()
