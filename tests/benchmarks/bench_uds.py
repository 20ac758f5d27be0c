"""UDS's two scores of one sample against the released way: `svdvals` and full Fourier transforms. Error, time, memory.

Run: OMP_NUM_THREADS=1 python tests/benchmarks/bench_uds.py [--seeds 5] [--device cuda] [--shape 256x32000]

On a CPU seconds are of one thread's CPU time, on CUDA of the clock; each way's best of some rounds in turn. Ratios are geometric means over the seeds
with the 95% interval of Student's t. Errors are against a float64 SVD, and float64 transforms, of the same float32
logits: the largest of the seeds. Memory is beyond the logits, the largest of the seeds.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import time
from collections.abc import Callable
from statistics import fmean, stdev
from typing import TypeAlias

import numpy as np
import torch
from bench_zero_shot import Watch
from scipy.stats import t as student

from tasks.score import nuclear
from tasks.score.uds import LogitSketch, MemoryBuffer, nuclear_norm

SHAPES = {"128x4096": (128, 4096), "256x32000": (256, 32000), "512x50257": (512, 50257)}
Scores: TypeAlias = Callable[[torch.Tensor, LogitSketch], tuple[torch.Tensor, torch.Tensor]]
LENGTH = 512
"""T: what the released code pads to."""


def gaussian(rng: np.random.Generator, rows: int, tokens: int) -> np.ndarray:
    """Independent numbers: all singular values alike."""
    return rng.standard_normal((rows, tokens))


def language(rng: np.random.Generator, rows: int, tokens: int) -> np.ndarray:
    """As of a language model: 768 hidden numbers of falling variance, and logits that all positions have in common."""
    scales = np.arange(1, 769) ** -0.5
    hidden, heads = rng.standard_normal((rows, 768)) * scales, rng.standard_normal((768, tokens))
    return 3 * (hidden @ heads) / np.linalg.norm(scales) + 2 * rng.standard_normal(tokens) - 30


def steep(rng: np.random.Generator, rows: int, tokens: int) -> np.ndarray:
    """Singular values that fall as 1, 1/4, 1/9, ..."""
    left, _ = np.linalg.qr(rng.standard_normal((rows, rows)))
    return (left * np.arange(1.0, rows + 1) ** -2) @ rng.standard_normal((rows, tokens))


def rank_one(rng: np.random.Generator, rows: int, tokens: int) -> np.ndarray:
    """A multiple of one row at every position."""
    return rng.standard_normal((rows, 1)) * rng.standard_normal(tokens)


def repeated(rng: np.random.Generator, rows: int, tokens: int) -> np.ndarray:
    """The same row at every position."""
    return np.tile(rng.standard_normal(tokens), (rows, 1))


def offset(rng: np.random.Generator, rows: int, tokens: int) -> np.ndarray:
    """A large number added to every logit."""
    return rng.standard_normal((rows, tokens)) + 1e4


def offsets(rng: np.random.Generator, rows: int, tokens: int) -> np.ndarray:
    """A large number added to every logit, of another size at each position."""
    return rng.standard_normal((rows, tokens)) + 1e4 * rng.standard_normal((rows, 1))


KINDS = (gaussian, language, steep, rank_one, repeated, offset, offsets)


def released(logits: torch.Tensor, sketch: LogitSketch) -> tuple[torch.Tensor, torch.Tensor]:
    """Both scores of `(1, N, V)` as UDS's public code computes them."""
    intra = torch.linalg.svdvals(logits).sum(-1)
    signs = [
        torch.as_tensor(s, dtype=logits.dtype, device=logits.device) for s in (sketch.length_signs, sketch.vocab_signs)
    ]
    index = [torch.as_tensor(i, device=logits.device) for i in (sketch.length_index, sketch.vocab_index)]
    factors = [math.sqrt(len(s) / len(i)) for s, i in zip(signs, index, strict=True)]
    padded = torch.nn.functional.pad(logits, (0, 0, 0, len(signs[0]) - logits.shape[1]))
    waves = factors[1] * torch.fft.fft(padded * signs[1], dim=-1).real[..., index[1]]
    both = factors[0] * torch.fft.fft(waves * signs[0][:, None], dim=-2).real[..., index[0], :]
    return intra, both.flatten(1)


def ours(logits: torch.Tensor, sketch: LogitSketch) -> tuple[torch.Tensor, torch.Tensor]:
    """Both scores of `(1, N, V)`."""
    return nuclear_norm(logits), sketch.project(logits)


def seconds(work: Scores, given: tuple[torch.Tensor, LogitSketch]) -> float:
    """What one call took."""
    cuda = given[0].is_cuda
    clock = time.perf_counter if cuda else time.process_time
    start = clock()
    work(*given)
    if cuda:
        torch.cuda.synchronize()
    return clock() - start


def grown(work: Scores, given: tuple[torch.Tensor, LogitSketch]) -> float:
    """MB that one call needed at its peak."""
    if given[0].is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work(*given)
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with Watch() as watch:
        work(*given)
    return watch.grown


def interval(values: list[float]) -> str:
    """The geometric mean, and its 95% interval."""
    logs = np.log(values)
    half = student.ppf(0.975, len(logs) - 1) * stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else math.nan
    return f"{math.exp(fmean(logs)):5.1f}x [{math.exp(fmean(logs) - half):4.1f}, {math.exp(fmean(logs) + half):4.1f}]"


def compare(shape: str, kind: Callable[..., np.ndarray], seeds: int, device: str) -> None:
    """Measure one kind of logits of one shape and print a line."""
    rows, tokens = SHAPES[shape]
    rounds = max(2, 5_000_000 // (rows * tokens))
    spent, memory, errors, single = [], [], [], 0
    for seed in range(seeds):
        sketch = LogitSketch(LENGTH, tokens, seed=seed)
        made = kind(np.random.default_rng(seed), rows, tokens)
        logits = torch.from_numpy(made)[None].to(device, torch.float32)
        given = logits, sketch
        found = [way(*given) for way in (ours, released)]  # tables are made once a run
        times = [[seconds(way, given) for way in (ours, released)] for _ in range(rounds)]
        spent.append([min(side) for side in zip(*times, strict=True)])
        memory.append([grown(way, given) for way in (ours, released)])
        exact = released(logits.double(), sketch)
        norms = [abs(float(intra) / float(exact[0]) - 1) for intra, _ in found]
        errors.append([*norms, float((found[0][1] - exact[1]).norm() / exact[1].norm())])
        norm, bound = nuclear._norm_by_float32(nuclear._Matrix(logits[0], None))
        single += bool(bound <= nuclear._TOLERANCE * norm)
    ms = [1e3 * fmean(side) for side in zip(*spent, strict=True)]
    mb, worst = ([max(side) for side in zip(*each, strict=True)] for each in (memory, errors))
    print(
        f"{shape:10} {kind.__name__:9}{ms[0]:8.1f} ms{ms[1]:9.1f} ms  {interval([b / a for a, b in spent])}"
        f"  error {worst[0]:.0e} (svdvals {worst[1]:.0e}), sketch {worst[2]:.0e}; {mb[0]:.0f} MB ({mb[1]:.0f} MB)"
        f"; float32 in {single} of {seeds}",
        flush=True,
    )


def distances(device: str) -> None:
    """Measure the buffer: 8 candidates against 1,024 vectors of 1,024 numbers, and pushing one."""
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.standard_normal((1032, 1024), np.float32)).to(device)
    buffer = MemoryBuffer(1024, 1024)
    buffer.push(z[:1024])

    spent = []
    for _ in range(200):
        start = time.perf_counter()
        buffer.mean_distance(z[1024:])
        buffer.push(z[1024:1025])
        if device == "cuda":
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - start)
    best, middle = 1e3 * min(spent), 1e3 * float(np.median(spent))
    print(f"buffer: {best:.2f} ms at best, {middle:.2f} ms in the middle, for 8 against 1,024 vectors of 1,024 numbers")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--shape", choices=tuple(SHAPES), help="only this one")
    parser.add_argument("--kind", choices=[kind.__name__ for kind in KINDS], help="only this one")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else platform.machine()
    print(
        f"{name}, torch {torch.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {arguments.seeds} seeds"
    )
    for shape in SHAPES:
        for kind in KINDS:
            if arguments.shape in (None, shape) and arguments.kind in (None, kind.__name__):
                compare(shape, kind, arguments.seeds, arguments.device)
    distances(arguments.device)


if __name__ == "__main__":
    main()
