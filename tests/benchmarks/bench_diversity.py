"""Facility location against apricot and submodlib, one process each: objective, seconds, memory; and a million rows.

python tests/benchmarks/bench_diversity.py [--rows 1000 5000 10000] [--seeds 3] [--data mixture openmoji] [--peers …]
python tests/benchmarks/bench_diversity.py --million

The objective is that of all similarities for every method. Seconds are of the processor (all have one thread, so that
other work on the machine does not count), after a small warm-up that compiles what is compiled, from vectors to chosen
rows. Memory is the growth of the peak above what the vectors and imports take.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from apart import exponent, run_apart

DIM = 512
SHARE = 10


def mixture(rows: int, seed: int, dim: int = DIM) -> np.ndarray:
    """Unit rows, float32, around centres of very different popularity, one centre for fifty rows."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(2, rows // 50), dim)).astype(np.float32)
    share = rng.dirichlet(np.full(len(centres), 0.7))
    vectors = 0.7 * centres[rng.choice(len(centres), rows, p=share)]
    for at in range(0, rows, 8192):
        vectors[at : at + 8192] += rng.standard_normal((len(vectors[at : at + 8192]), dim), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def openmoji(rows: int, seed: int) -> np.ndarray:
    """Rows of the pocket model's embeddings of emoji pictures, drawn without replacement; made once."""
    kept = Path(tempfile.gettempdir()) / "mixwright-openmoji-embeddings.npy"
    if not kept.exists():
        np.save(kept, _embedded())
    vectors = np.load(kept)
    return vectors[np.random.default_rng(seed).permutation(len(vectors))[:rows]]


def _embedded() -> np.ndarray:
    from configs.loading import validate
    from flows.openmoji import write_openmoji
    from flows.pipeline import curate
    from flows.runners import PlainRunner
    from tasks.embed.vectors import unpack

    with tempfile.TemporaryDirectory() as folder:
        write_openmoji(f"{folder}/in")
        settings = {"name": "emoji", "store": f"{folder}/store", "input": {"path": f"{folder}/in"}}
        settings |= {"embed": {"kind": "open_clip", "model": "pocket"}, "emit": {"out": f"{folder}/out"}}
        curate(validate(settings), PlainRunner(2), lambda line: None)
        import pyarrow.parquet as pq

        found = [pq.read_schema(file) and file for file in sorted(Path(folder, "store").rglob("*.parquet"))]
        tables = [pq.read_table(file) for file in found if "image_embedding" in pq.read_schema(file).names]
        vectors = np.concatenate([unpack(table["image_embedding"]) for table in tables]).astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def ours(vectors: np.ndarray, wanted: int) -> np.ndarray:
    from tasks.select.facility_location import greedy

    return greedy(vectors, wanted).rows


def apricot(vectors: np.ndarray, wanted: int) -> np.ndarray:
    from apricot import FacilityLocationSelection

    return FacilityLocationSelection(wanted, metric="cosine", optimizer="lazy").fit(vectors).ranking


def apricot_sparse(vectors: np.ndarray, wanted: int) -> np.ndarray:
    from apricot import FacilityLocationSelection
    from sklearn.neighbors import kneighbors_graph

    # Of apricot 0.6.1 itself `n_neighbors` fails with this SciPy ('numpy.ndarray' has no `toarray`).
    graph = kneighbors_graph(vectors, 100, mode="distance", metric="cosine", include_self=True)
    graph.data = np.maximum(0, 1 - graph.data)
    return FacilityLocationSelection(wanted, metric="precomputed", optimizer="lazy").fit(graph.tocsr()).ranking


def submodlib(vectors: np.ndarray, wanted: int, **how: object) -> np.ndarray:
    from submodlib import FacilityLocationFunction

    function = FacilityLocationFunction(n=len(vectors), data=vectors, metric="cosine", **({"mode": "dense"} | how))
    return np.array([i for i, _ in function.maximize(budget=wanted, optimizer="LazyGreedy", show_progress=False)])


def submodlib_sparse(vectors: np.ndarray, wanted: int) -> np.ndarray:
    return submodlib(vectors, wanted, mode="sparse", num_neighbors=100)


def submodlib_clustered(vectors: np.ndarray, wanted: int) -> np.ndarray:
    return submodlib(vectors, wanted, mode="clustered", num_clusters=10)


METHODS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    function.__name__: function
    for function in (ours, apricot, apricot_sparse, submodlib, submodlib_sparse, submodlib_clustered)
}


def one(method: str, data: str, rows: int, seed: int) -> dict:
    """Figures of one run in this process."""
    from tasks.select.facility_location import objective

    warnings.simplefilter("ignore")
    METHODS[method](mixture(300, 0), 30)
    vectors = {"mixture": mixture, "openmoji": openmoji}[data](rows, seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _touch_memory()
    started, busy = time.perf_counter(), time.process_time()
    chosen = METHODS[method](vectors, len(vectors) // SHARE)
    seconds, cpu = time.perf_counter() - started, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    facts = {"seconds": seconds, "cpu": cpu, "peak": peak / 1024, "grown": (peak - before) / 1024}
    return facts | {"objective": objective(vectors, chosen), "rows": len(vectors), "chosen": len(np.unique(chosen))}


def _touch_memory() -> None:
    """Have another process use 2 GiB: a virtual machine may take seconds a GiB for memory long unused, at random."""
    subprocess.run([sys.executable, "-c", "import numpy; numpy.ones(2**28)"], check=True)


def interval(values: list[float]) -> str:
    """Mean, and the half width of its 95% interval (Student)."""
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{np.mean(values):.2f} ± {half:.2f}"


def compare(options: argparse.Namespace) -> None:
    """The table of all methods."""
    print("| data | rows | method | objective / ours, % | CPU s | wall s | times ours | peak MiB | above input MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for data in options.data:
        for rows in options.rows:
            base: list[dict] = []
            for method in ("ours", *options.peers):
                try:
                    runs = [
                        run_apart(__file__, json.dumps([method, data, rows, seed])) for seed in range(options.seeds)
                    ]
                except subprocess.CalledProcessError as error:
                    print(f"| {data} | {rows} | {method} | died: {error.returncode} |", flush=True)
                    continue
                base = base or runs
                pairs = list(zip(runs, base, strict=True))
                share = interval([100 * run["objective"] / mine["objective"] for run, mine in pairs])
                times = interval([run["cpu"] / mine["cpu"] for run, mine in pairs])
                memory = f"{max(r['peak'] for r in runs):.0f} | {max(r['grown'] for r in runs):.0f}"
                spent = " | ".join(interval([run[name] for run in runs]) for name in ("cpu", "seconds"))
                print(f"| {data} | {runs[0]['rows']} | {method} | {share} | {spent} | {times} | {memory} |", flush=True)


# ------------------------------------------------------------------------------------------------------- a million rows
def kind(name: str, rows: int, dim: int) -> dict:
    """Summarise, fit, partition and decide as a run does, on shards made on the fly; buckets wait on disk."""
    from configs.methods.representation import ClusterBalanced, FacilityLocation, KCenter
    from storage.exchange import ROW
    from tasks import load
    from tasks.embed.vectors import pack
    from tasks.select import METHODS as KINDS

    config = {section.model_fields["kind"].default: section for section in (FacilityLocation, KCenter, ClusterBalanced)}
    method = load(KINDS, config[name](target_fraction=0.1), seed=0)
    shards = [(at, min(50_000, rows - at)) for at in range(0, rows, 50_000)]
    centres = np.random.default_rng(0).standard_normal((2000, dim)).astype(np.float32)

    def shard(at: int, count: int, row: str) -> pa.Table:
        rng = np.random.default_rng([1, at])
        vectors = 0.7 * centres[rng.zipf(1.2, count) % 2000] + rng.standard_normal((count, dim), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        uid = pa.array([i.to_bytes(16, "little") for i in range(at, at + count)], pa.binary(16))
        columns = {"image_embedding": pack(vectors, np.ones(count, bool)), "uid": uid}
        return pa.table(columns | {row: np.arange(at, at + count)})

    started, busy, told = time.perf_counter(), time.process_time(), 0
    state = method.fit([method.summarise(shard(*one, "row")) for one in shards], None)
    with tempfile.TemporaryDirectory() as folder:
        if not hasattr(method, "partition"):
            told = sum(len(method.decide(shard(*one, ROW), state).rank) for one in shards)
        else:
            told = _by_bucket(method, state, folder, (shard(*one, ROW) for one in shards))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cpu": time.process_time() - busy, "seconds": time.perf_counter() - started, "peak": peak, "rows": told}


def _by_bucket(method: object, state: dict, folder: str, shards: object) -> int:
    import pyarrow.parquet as pq

    parts: dict[int, list[str]] = {}
    for number, rows in enumerate(shards):  # type: ignore[arg-type]
        bucket = method.partition(rows, state)  # type: ignore[attr-defined]
        for one_bucket in np.unique(bucket).tolist():
            path = f"{folder}/{number}-{one_bucket}.parquet"
            pq.write_table(rows.take(pa.array(np.flatnonzero(bucket == one_bucket))), path, compression="none")
            parts.setdefault(one_bucket, []).append(path)
    return sum(
        len(method.decide(pa.concat_tables([pq.read_table(p) for p in paths]), state).rank)  # type: ignore[attr-defined]
        for paths in parts.values()
    )


def million(sizes: list[int]) -> None:
    """Time, memory and exponent of every kind."""
    print("| kind | rows | CPU s | wall s | peak MiB | exponent |\n|---|---|---|---|---|---|")
    for name in ("facility_location", "k_center", "cluster_balanced"):
        runs = [run_apart(__file__, json.dumps([name, rows, 256])) for rows in sizes]
        power = exponent(sizes, [run["cpu"] for run in runs]) if len(sizes) > 1 else float("nan")
        for rows, run in zip(sizes, runs, strict=True):
            print(
                f"| {name} | {rows:,} | {run['cpu']:.1f} | {run['seconds']:.1f} | {run['peak']:.0f} | {power:.2f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 5000, 10_000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", nargs="+", default=["mixture"], choices=["mixture", "openmoji"])
    parser.add_argument("--peers", nargs="*", default=[name for name in METHODS if name != "ours"])
    parser.add_argument("--million", nargs="*", type=int, default=None, help="sizes; 100000 and 1000000 by themselves")
    parser.add_argument("--one", default=None)
    options = parser.parse_args()
    if options.one is not None:
        arguments = json.loads(options.one)
        print(json.dumps(one(*arguments) if arguments[0] in METHODS else kind(*arguments)))
    elif options.million is not None:
        million(options.million or [100_000, 1_000_000])
    else:
        compare(options)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # of the processes that measure
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (sys.path[0], os.environ.get("PYTHONPATH"))))
    main()
