"""A million rows and more than 2 GiB of pictures through every stage: rows per second, memory, task runs.

python tests/benchmarks/bench_scale.py [--rows 1000000] [--image-bytes 2400] [--prefect] [--folder DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

import psutil
from synthetic import VOCABULARY, settings, write_synthetic

from configs.loading import validate
from flows.pipeline import curate
from flows.runners import PlainRunner
from storage import manifests


class Memory:
    """Peak of this process's own (anonymous) memory and of all that is resident, mapped files included."""

    def __init__(self) -> None:
        self.own = self.resident = 0
        self._stop = threading.Event()

    def __enter__(self) -> Memory:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._stop.wait(0.02):
            info = process.memory_info()
            self.own, self.resident = max(self.own, info.rss - info.shared), max(self.resident, info.rss)


def measure(folder: Path, rows: int, image_bytes: int, workers: int) -> dict:
    """Run once; returns figures."""
    (folder / "vocabulary.txt").write_text("\n".join(VOCABULARY.to_pylist()))
    config = validate(settings(folder, workers))
    log: list[str] = []
    started = time.perf_counter()
    with Memory() as memory:
        mix = curate(config, PlainRunner(workers), log.append)
    wall = time.perf_counter() - started
    assert list(manifests.discrepancies(mix.url)) == []
    facts = mix.manifest["counts"]
    return {
        "wall": wall,
        "stages": mix.seconds,
        "own": memory.own,
        "resident": memory.resident,
        "task_runs": mix.task_runs,
        "counts": facts,
        "bytes": sum(f["bytes"] for f in mix.manifest["files"].values()),
        "image_bytes": rows * image_bytes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--image-bytes", type=int, default=2400)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not (folder / "in").exists():
            write_synthetic(folder / "in", options.shards, options.rows // options.shards, options.image_bytes)
        shutil.rmtree(folder / "store", ignore_errors=True)
        shutil.rmtree(folder / "out", ignore_errors=True)
        figures = measure(folder, options.rows, options.image_bytes, options.workers)
    print(f"{options.rows:,} rows, {figures['image_bytes'] / 2**30:.2f} GiB of pictures, {os.cpu_count()} cores")
    for stage, seconds in figures["stages"].items():
        print(f"  {stage:28s} {seconds:8.1f} s {options.rows / max(seconds, 1e-9):12,.0f} rows/s")
    print(f"  {'all':28s} {figures['wall']:8.1f} s {options.rows / figures['wall']:12,.0f} rows/s")
    print(f"  own memory at most {figures['own'] / 2**20:,.0f} MiB, resident {figures['resident'] / 2**20:,.0f} MiB")
    print(f"  {figures['task_runs']} task runs; {figures['counts']}; {figures['bytes'] / 2**30:.2f} GiB written")


if __name__ == "__main__":
    main()
