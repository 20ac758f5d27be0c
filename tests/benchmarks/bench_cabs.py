"""CABS at the paper's size: a superbatch of 20,480 rows to a batch of 4,096 on four workers, 12,253 Zipf concepts.

Run: python tests/benchmarks/bench_cabs.py

Checks first that the picks equal those of a plain Python heap of the same rule, built as the authors' code is (an
inverted index, every affected row's score anew after each pick), then prints the time of one superbatch, all workers.
"""

from __future__ import annotations

import heapq
import os
import platform
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from configs.methods import sample as methods
from tasks.sample.cabs import CabsDm, CabsFm
from tasks.sample.concepts import encode, row_frequencies
from tasks.sample.greedy import Rule, pick_greedily
from tasks.sample.targets import target_counts

CONCEPTS, WORKERS, REPEATS, CAP = 12_253, 4, 15, 10
CONFIG = methods.CabsDm(batch_size=4096, filter_ratio=0.8, world_size=WORKERS)


def superbatch(mean_labels: float, seed: int) -> list[list[str]]:
    """Returns rows of 1 + Poisson labels, concept i drawn in proportion to 1 / (i + 1)."""
    rng = np.random.default_rng(seed)
    p = 1 / np.arange(1, CONCEPTS + 1)
    lengths = 1 + rng.poisson(mean_labels - 1, CONFIG.superbatch)
    names = np.array([f"concept {i:05}" for i in rng.permutation(CONCEPTS)])
    labels = names[rng.choice(CONCEPTS, lengths.sum(), p=p / p.sum())].tolist()
    ends = np.cumsum(lengths).tolist()
    return [labels[end - length : end] for end, length in zip(ends, lengths.tolist(), strict=True)]


def python_heap(rows: list[list[int]], quota: int, targets: list[int], frequencies: list[int]) -> list[int]:
    """Returns the picks of one worker: a heap of (-score, row) whose stale entries are skipped."""
    holders: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        for c in set(row):
            holders.setdefault(c, []).append(i)
    counts = [0] * len(targets)

    def score(row: list[int]) -> float:
        total, full = 0.0, 0
        for c in row:
            t, n = targets[c], counts[c]
            total += (t - n) / t + 1 / frequencies[c] if n < t else -0.5
            full += n >= CAP
        return total / len(row) - 3.0 * full

    scores = {i: score(row) for i, row in enumerate(rows) if row}
    heap = [(-s, i) for i, s in scores.items()]
    heapq.heapify(heap)
    picks: list[int] = []
    while heap and len(picks) < quota:
        negative, i = heapq.heappop(heap)
        if scores.get(i) != -negative:
            continue
        picks.append(i)
        del scores[i]
        for c in rows[i]:
            counts[c] += 1
        for j in {j for c in rows[i] for j in holders[c]}:
            if j in scores and (fresh := score(rows[j])) != scores[j]:
                scores[j] = fresh
                heapq.heappush(heap, (-fresh, j))
    return picks


def best(call: Callable[[], object], repeats: int = REPEATS) -> tuple[float, float]:
    """Returns the least and the median of the call's times, ms."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return min(times), float(np.median(times))


def measure(mean_labels: float) -> None:
    """Checks and times superbatches of so many labels a row."""
    rows = superbatch(mean_labels, seed=0)
    share, quota = CONFIG.superbatch // WORKERS, CONFIG.batch_size // WORKERS
    arrow = pa.array(rows, pa.list_(pa.string()))
    words = arrow.flatten().dictionary_encode()
    tables = {
        "list<string>": pa.table({"concepts": arrow}),
        "list<dictionary>": pa.table({"concepts": pa.ListArray.from_arrays(arrow.offsets, words)}),
    }
    labels = encode(arrow)
    frequencies = row_frequencies(labels.offsets, labels.ids, labels.size)
    targets = target_counts(labels.size, CONFIG.batch_size)
    rule = Rule(repeats=True, cap=CAP, met=-0.5, penalty=1.0)

    def kernel() -> list[np.ndarray]:
        starts = range(0, CONFIG.superbatch, share)
        offsets = [labels.offsets[start : start + share + 1] for start in starts]
        return [pick_greedily(o, labels.ids, targets, frequencies, quota, rule)[0] for o in offsets]

    def threaded() -> list[np.ndarray]:
        parts = sampler._pick(labels, (targets, frequencies), 0)[0]
        return [part - rank * share for rank, part in enumerate(parts)]

    encoded = [labels.ids[i:j].tolist() for i, j in zip(labels.offsets[:-1], labels.offsets[1:], strict=True)]
    parts = [encoded[start : start + share] for start in range(0, CONFIG.superbatch, share)]
    t, f = targets.tolist(), frequencies.tolist()
    expected = [python_heap(part, quota, t, f) for part in parts]
    sampler, frequent = (
        CabsDm(CONFIG),
        CabsFm(methods.CabsFm(**CONFIG.model_dump(include={"batch_size", "world_size"}))),
    )
    assert [picks.tolist() for picks in kernel()] == [picks.tolist() for picks in threaded()] == expected
    for table in tables.values():
        batch, told = sampler.pick_and_account(table, 0)
        assert [(picks - rank * share).tolist() for rank, picks in enumerate(batch)] == expected
    print(
        f"{len(labels.ids) / CONFIG.superbatch:.2f} labels a row, {labels.size:,} concepts occur; picks equal the "
        f"Python heap's on all {WORKERS} workers; fill share {told.step['fill'] / CONFIG.batch_size:.1%}"
    )
    chosen = {
        name: np.concatenate([labels.ids[labels.offsets[i] : labels.offsets[i + 1]] for i in indices])
        for name, indices in (
            ("DM", np.concatenate(batch)),
            ("FM", np.concatenate(frequent.pick(tables["list<string>"], 0))),
            ("IID", np.arange(CONFIG.batch_size)),
        )
    }
    print("distinct concepts kept: " + ", ".join(f"{name} {len(np.unique(ids)):,}" for name, ids in chosen.items()))

    slow = best(lambda: [python_heap(part, quota, t, f) for part in parts], 3)
    timed = {"DM, ids, one thread": best(kernel), "DM, ids": best(threaded)}
    timed |= {f"DM, {name}": best(lambda table=table: sampler.pick(table, 0)) for name, table in tables.items()}
    timed |= {"FM, list<string>": best(lambda: frequent.pick(tables["list<string>"], 0))}
    print(f"{'':24}{'least ms':>10}{'median ms':>11}{'to Python heap':>16}")
    print(f"{'DM, Python heap, ids':24}{slow[0]:10.1f}{slow[1]:11.1f}{'1x':>16}")
    for name, (least, median) in timed.items():
        ratio = f"{slow[1] / median:.0f}x" if name.startswith("DM") else ""
        print(f"{name:24}{least:10.2f}{median:11.2f}{ratio:>16}")
    print()


def main() -> None:
    """Prints the table."""
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, ranks on all of them but where it says one thread"
    )
    print(
        f"B = {CONFIG.superbatch:,}, b = {CONFIG.batch_size:,}, {WORKERS} workers, {CONCEPTS:,} Zipf concepts, "
        f"cap {CAP}, released variant with fill\n"
    )
    for mean_labels in (3, 5):
        measure(mean_labels)


if __name__ == "__main__":
    main()
