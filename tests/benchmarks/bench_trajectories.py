"""S2L: planted shapes recovered, a million trajectories through the select, proxies' speed, and what clusters hold.

python tests/benchmarks/bench_trajectories.py [--shapes] [--scale] [--proxies] [--real]

Seconds are of the processor, on one thread. Purity is the share of rows whose cluster is mostly of their own shape.
On real data the question is whether clusters tell sources apart: mutual information of cluster and source, in bits,
against the mean over 20 shuffles of the sources.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
from apart import exponent, run_apart

from configs.methods.proxies import LanguageProxy, PairProxy
from configs.methods.proxies import Trajectory as Proxy
from configs.methods.trajectories import Trajectories as Config
from storage.exchange import ROW
from storage.packed import pack, unpack

SHARD_ROWS = 50_000
T = 12


def planted(rows: int, shapes: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Trajectories around curves that fall from 3 by some depth at some pace, in groups of very different sizes."""
    rng = np.random.default_rng(seed)
    depth, pace = rng.uniform(0, 2.5, (shapes, 1)), rng.uniform(0.5, 8, (shapes, 1))
    curves = 3 - depth * (1 - np.exp(-pace * np.linspace(0, 1, T)))
    label = rng.choice(shapes, rows, p=rng.dirichlet(np.full(shapes, 0.7)))
    return (curves[label] + noise * rng.standard_normal((rows, T))).astype(np.float32), label


def purity(cluster: np.ndarray, label: np.ndarray) -> float:
    table = np.zeros((cluster.max() + 1, label.max() + 1), np.int64)
    np.add.at(table, (cluster, label), 1)
    return float(table.max(1).sum() / len(cluster))


def bench_shapes() -> None:
    from tasks.select.trajectory_clusters import assigned, centres_of

    print("planted shapes, 20,000 rows, 3 seeds: purity of clusters, of a random partition of the same sizes")
    for shapes, clusters, noise in [(2, 2, 0.1), (8, 8, 0.02), (8, 100, 0.02), (8, 100, 0.1), (8, 100, 0.3)]:
        found, chance = [], []
        for seed in range(3):
            points, label = planted(20_000, shapes, noise, seed)
            cluster, _ = assigned(points, centres_of(points, clusters, seed=seed))
            found.append(purity(cluster, label))
            chance.append(purity(np.random.default_rng(seed).permutation(cluster), label))
        told = f"{np.mean(found):.3f} (lowest {min(found):.3f})"
        print(f"  {shapes} shapes, K = {clusters:3d}, noise {noise:.2f}: {told}; {np.mean(chance):.3f}", flush=True)


def one(rows: int) -> dict:
    """The select over shards of trajectories, cut and all but the store."""
    from tasks.select.ranking import Ranks, find, keys, totals
    from tasks.select.trajectories import Trajectories

    method = Trajectories(Config(target_fraction=0.11), seed=0)

    def shard(number: int, place: str) -> pa.Table:
        count = min(SHARD_ROWS, rows - number * SHARD_ROWS)
        points, _ = planted(count, 50, 0.1, 5)
        points += np.random.default_rng(number).standard_normal(points.shape).astype(np.float32) * 0.05
        uid = np.random.default_rng([number, 1]).integers(0, 1 << 63, (count, 2), np.uint64)
        return pa.table({"trajectory": pack(points), "uid": pack(uid), place: np.arange(count)})

    def once(numbers: range) -> tuple[int, float]:
        spent, summaries, parts = 0.0, [], []
        for number in numbers:
            table = shard(number, "row")
            began = time.process_time()
            summaries.append(method.summarise(table))
            spent += time.process_time() - began
        began = time.process_time()
        state = method.fit(summaries, None)
        spent += time.process_time() - began
        for number in numbers:
            table = shard(number, ROW)
            began = time.process_time()
            told = method.decide(table, state)
            place = np.full(len(table), number, np.int32)
            parts.append(
                Ranks(keys(told.rank, place, table[ROW].to_numpy()), told.group, np.ones(len(place), np.int64))
            )
            spent += time.process_time() - began
        began = time.process_time()
        group, count, _ = totals(parts)
        wanted = -(-rows * 11 // 100)
        cut = find(parts, group, method.quotas(group, count, wanted), count, count)
        kept = sum(int(cut.stays(part.key, part.group).sum()) for part in parts)
        assert kept == wanted or numbers == range(1), (kept, wanted)
        return kept, spent + time.process_time() - began

    once(range(1))  # compiles what is compiled
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kept, seconds = once(range(-(-rows // SHARD_ROWS)))
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"rows": rows, "kept": kept, "seconds": seconds, "growth_mib": growth, "peak_mib": before / 1024 + growth}


def bench_scale() -> None:
    sizes = (10_000, 100_000, 1_000_000)
    found = [run_apart(__file__, str(rows)) for rows in sizes]
    for each in found:
        print(
            "  {rows:9,} x 12: {seconds:6.2f} s, {kept:,} kept, memory +{growth_mib:.0f} MiB".format(**each), flush=True
        )
    print(f"  exponent 10 k to 1 M: {exponent(sizes, [each['seconds'] for each in found]):.2f}")


def table_of(texts: list[str], source: list[str]) -> pa.Table:
    uid = pa.array([hashlib.md5(text.encode()).digest() for text in texts], pa.binary(16))
    return pa.table({"row": np.arange(len(texts)), "text": texts, "uid": uid, "source": source})


def labelled(rows: int, seed: int = 0) -> pa.Table:
    """Paragraphs of real text, and what they come from: licences, documentation, two chapters of manuals, packages."""
    import texts

    found: dict[str, list[str]] = {}
    for path in texts.sources():
        parts = path.parts
        kind = parts[3] if parts[1] == "usr" and parts[2] == "share" else "packages"
        kind = f"{kind}/{parts[4]}" if kind == "man" else kind
        if len(found.setdefault(kind, [])) < 4 * rows:
            found[kind] += list(texts.paragraphs(path))[:40]
    every = [(text, kind) for kind, own in found.items() for text in own]
    picked = np.random.default_rng(seed).permutation(len(every))[:rows]
    return table_of(*map(list, zip(*[every[i] for i in picked.tolist()], strict=True)))


def emoji() -> pa.Table:
    """OpenMoji pictures and names through the pocket model; sources as the corpus has them."""
    import pyarrow.parquet as pq

    from configs.loading import validate
    from flows.openmoji import write_openmoji
    from flows.pipeline import curate
    from flows.runners import PlainRunner

    kept = Path(tempfile.gettempdir()) / "mixwright-openmoji-pairs.parquet"
    if not kept.exists():
        with tempfile.TemporaryDirectory() as folder:
            write_openmoji(f"{folder}/in")
            settings = {"name": "emoji", "store": f"{folder}/store", "emit": {"out": f"{folder}/out"}}
            settings |= {"input": {"path": f"{folder}/in"}, "embed": {"kind": "open_clip", "model": "pocket"}}
            curate(validate(settings), PlainRunner(2), lambda line: None)
            files = sorted(Path(folder, "store/embed").rglob("*.parquet"))
            made = pa.concat_tables([pq.read_table(f) for f in files if "text_embedding" in pq.read_schema(f).names])
            pq.write_table(made.select(["image_embedding", "text_embedding", "alignment"]), kept)
    made = pq.read_table(kept)
    uid = pa.array([hashlib.md5(str(i).encode()).digest() for i in range(len(made))], pa.binary(16))
    return made.append_column("uid", uid).append_column("row", pa.array(np.arange(len(made))))


def trajectories(config: Proxy, rows: pa.Table) -> tuple[np.ndarray, float, float]:
    """Losses `(n, T)`, and the seconds of training and of measuring."""
    from tasks.score.trajectory import Trajectory

    method = Trajectory(config)
    began = time.process_time()
    state = method.fit([method.summarise(rows)])
    trained = time.process_time() - began
    began = time.process_time()
    column = Trajectory(config, state=state).run(rows).table["trajectory"]
    return unpack(column, "<f4"), trained, time.process_time() - began


def bench_proxies(rows: int) -> None:
    import torch

    trajectories(Proxy(proxy=LanguageProxy(max_length=16), epochs=0.1, checkpoints=2), labelled(64))  # imports
    torch.zeros(1)
    for width, length in ((64, 64), (128, 128)):
        config = Proxy(proxy=LanguageProxy(width=width, max_length=length), epochs=1, checkpoints=8, device="cpu")
        _, trained, measured = trajectories(config, labelled(rows))
        told = f"{rows / trained:8.0f} rows/s learned from, {rows / measured:8.0f} rows/s measured at 8 checkpoints"
        print(f"  language, width {width}, {length} tokens: {told}", flush=True)
    rng = np.random.default_rng(0)
    columns = {
        f"{name}_embedding": pack(rng.standard_normal((20_000, 512)).astype("<f2")) for name in ("image", "text")
    }
    pairs = pa.table(
        {"row": np.arange(20_000), "uid": pack(rng.integers(0, 1 << 63, (20_000, 2), np.uint64)), **columns}
    )
    _, trained, measured = trajectories(Proxy(proxy=PairProxy(), epochs=1, checkpoints=8, device="cpu"), pairs)
    print(f"  pairs, 512 numbers, width 128: {20_000 / trained:8.0f} rows/s, {20_000 / measured:8.0f} rows/s")


def bits(cluster: np.ndarray, label: np.ndarray) -> float:
    """Mutual information in bits."""
    table = np.zeros((cluster.max() + 1, label.max() + 1))
    np.add.at(table, (cluster, label), 1 / len(cluster))
    expected = table.sum(1, keepdims=True) * table.sum(0)
    known = table > 0
    return float((table[known] * np.log2(table[known] / expected[known])).sum())


def against_chance(name: str, points: np.ndarray, label: np.ndarray, clusters: int) -> None:
    from tasks.select.trajectory_clusters import assigned, centres_of

    cluster, _ = assigned(points, centres_of(points, clusters))
    rng = np.random.default_rng(0)
    shuffled = [bits(cluster, rng.permutation(label)) for _ in range(20)]
    shares = np.bincount(label) / len(label)
    entropy = -float((shares * np.log2(shares)).sum())
    # The same with the last loss alone: is there more in a trajectory than in where it ends?
    last, _ = assigned(points[:, -1:], centres_of(np.ascontiguousarray(points[:, -1:]), clusters))
    print(
        f"  {name}: {bits(cluster, label):.3f} bits of {entropy:.2f}; shuffled {np.mean(shuffled):.3f} ± "
        f"{np.std(shuffled):.3f}; by the last loss alone {bits(last, label):.3f}; purity {purity(cluster, label):.3f}, "
        f"largest source {shares.max():.3f}",
        flush=True,
    )


def bench_real(rows: int) -> None:
    table = labelled(rows)
    names, label = np.unique(table["source"].to_pylist(), return_inverse=True)
    print(f"  texts: {len(table):,} paragraphs of {', '.join(names)}")
    proxy = LanguageProxy(width=64, max_length=64, vocabulary=2000)
    points, _, _ = trajectories(Proxy(proxy=proxy, epochs=4, checkpoints=T, batch_size=32, device="cpu"), table)
    print(
        "  mean loss by source, first and last: "
        + ", ".join(
            f"{name} {points[label == i, 0].mean():.2f} {points[label == i, -1].mean():.2f}"
            for i, name in enumerate(names)
        )
    )
    against_chance("texts, source of a paragraph", points, label, 100)
    pairs = emoji()
    points, _, _ = trajectories(Proxy(proxy=PairProxy(), epochs=10, checkpoints=T, device="cpu"), pairs)
    # Skin tones make near copies: does the pair's own alignment, in quarters, say the same as its trajectory?
    order = np.argsort(np.argsort(pairs["alignment"].to_numpy()))
    against_chance("emoji, quarter of the alignment", points, order * 4 // len(order), 100)


def main() -> None:
    if "--one" in sys.argv:
        print(json.dumps(one(int(sys.argv[-1]))))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("shapes", "scale", "proxies", "real"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--rows", type=int, default=3000, help="of real texts")
    asked = parser.parse_args()
    everything = not (asked.shapes or asked.scale or asked.proxies or asked.real)
    if asked.shapes or everything:
        bench_shapes()
    if asked.scale or everything:
        bench_scale()
    if asked.proxies or everything:
        bench_proxies(asked.rows)
    if asked.real or everything:
        bench_real(asked.rows)


if __name__ == "__main__":
    main()
