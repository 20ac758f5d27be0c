"""Very many shards: what planning costs with 10,000 and 100,000 of them, and a whole run over thousands of tiny ones.

    python tests/benchmarks/bench_many_shards.py simulated [--shards 100000]
    python tests/benchmarks/bench_many_shards.py real [--shards 5000] [--profile]

`simulated`: the metadata alone. Files, notes and commit points of all shards are there, as an earlier run would have
left them; `check`, a dry run, the way to the first task, and a rerun that finds all done are timed, each in a process
of its own, whose memory is told. `real`: every stage over shards of ten rows; then the rerun and the dry run.
Goals at 100,000: under a minute each, under 300 task runs, bounded memory.
"""

from __future__ import annotations

import argparse
import base64
import cProfile
import json
import multiprocessing
import os
import pstats
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import synthetic
from bench_scale import Memory

from configs.curate import Curate
from configs.loading import validate
from flows import pipeline, planning, scanning, taking
from flows.forecast import forecast
from flows.freezing import frozen_url
from flows.runners import PlainRunner
from storage import files, shards
from storage.fingerprints import digest
from tasks.ingest import PROVIDES

ROWS = 10
WORDS = np.array([f"word{i:03d}" for i in range(300)])


def settings(folder: Path, workers: int) -> Curate:
    """Every stage, three selects; the vectors come with the rows."""
    (folder / "vocabulary.txt").write_text("\n".join(WORDS))
    smaller = {"kind": "cabs_dm", "batch_size": 64, "filter_ratio": 0.5}
    input_ = {"path": f"{folder}/in", "exclude": ["emb"]}
    return validate(synthetic.settings(folder, workers) | {"name": "many", "input": input_, "sample": smaller})


def table(rng: np.random.Generator) -> pa.Table:
    """A tiny shard."""
    texts = [" ".join(words) for words in WORDS[rng.integers(0, len(WORDS), (ROWS, 4))]]
    vectors = rng.standard_normal((ROWS, 16)).astype(np.float32)
    return pa.table({"image": [rng.bytes(40) for _ in texts], "text": texts, "emb": list(vectors)})


def write_input(folder: Path, count: int, distinct: bool) -> None:
    """`count` shards in folders of a thousand; of one content unless they are to be `distinct`."""
    rng, sink = np.random.default_rng(0), pa.BufferOutputStream()
    pq.write_table(table(rng), sink)
    same = sink.getvalue().to_pybytes()
    for number in range(count):
        place = folder / "in" / f"{number // 1000:03d}"
        place.mkdir(parents=True, exist_ok=True)
        name = place / f"{number % 1000:03d}.parquet"
        if distinct:
            pq.write_table(table(rng), name)
        else:
            name.write_bytes(same)


def pretend(folder: Path, config: Curate) -> None:
    """Leave behind what a finished run would, as far as planning and a cached rerun look at it."""
    found = scanning.scan(config)
    schema = shards.footer(found.entries[0].url)[1]
    memory = Path(config.store) / "ingest" / "_files"
    memory.mkdir(parents=True)
    noted = json.dumps(
        {
            "rows": ROWS,
            "schema": base64.b64encode(schema.serialize()).decode(),
            "broken": None,
            "pyarrow": pa.__version__,
        }
    )[1:]
    for entry in found.entries:
        told = {"url": entry.url, "size": entry.size, "stamp": entry.stamp, "digest": digest(entry.url.encode())}
        (memory / shards._note_of(entry)).write_text(json.dumps(told)[:-1] + ", " + noted)
    found = scanning.scan(config)
    every = taking.known_shards(found).every
    state = frozen_url(config)
    files.write_bytes(state, b"no more than its digest is looked at")
    files.write_bytes(state.removesuffix(".npz") + ".tsv", b"")
    planned, view = pipeline.plan_per_shard(config, digest(files.read_bytes(state)), every)
    view = planning.input_view(config).after(planning.ingest_step(config), PROVIDES)
    steps = [planning.ingest_step(config), *(one.step for one in planned)]
    for step in steps:
        Path(step.url).mkdir(parents=True, exist_ok=True)
        for shard in every:
            facts = {"rows": ROWS, "failures": 0, "seconds": 0.01, "digest": shard.digest}
            Path(step.file(f"{shard.digest}.json")).write_text(json.dumps(facts))
    _, view = pipeline.plan_per_shard(config, digest(files.read_bytes(state)), every)
    selects, view = planning.select_steps(config, view, every)
    rows = len(every) * ROWS
    for one in selects:
        one.step.finish(rows=rows, kept=rows, reasons={})
    mixing = planning.mix_step(config, view, every)
    mixing.step.finish(draws=rows, rows=[rows], counts=[[rows]], groups=["all"])
    sampling = planning.sample_step(config, view, mixing.step)
    sampling.step.finish(parts=[], rows=0, steps=0, whole_draws=0, groups={}, unseen="")
    entries = taking.known_shards(found).entries
    writing = planning.emit_step(config, view, sampling.step, entries, planning.ingest_step(config))
    url = files.join(config.emit.out, config.name, writing.fingerprint[:12])
    parents = [{"file": e.file, "digest": e.digest, "rows": e.rows} for e in entries]
    counts = {"rows_in": rows, "kept": rows, "dropped": 0, "quarantined": 0, "emitted": rows, "parts": 0}
    told = {"name": config.name, "version": url.rpartition("/")[2], "config": {}, "parent": None, "batches": {}}
    files.write_json(files.join(url, "mix.json"), {**told, "files": {}, "parents": parents, "counts": counts})
    files.write_json(files.join(url, "report", "report.json"), {"settings": config.report.model_dump(mode="json")})


class First(Exception):
    """Raised at the first task."""


class Stopping:
    """A runner that gets as far as the first task."""

    def run(self, task: Any, calls: list[dict[str, Any]], done: Any) -> list[Any]:
        raise First(f"{task.name}: {len(calls)} tasks")


def check(config: Curate) -> str:
    """`mixwright check`."""
    return f"{len(pipeline.examine(config)[0].entries):,} files"


def plan(config: Curate) -> str:
    """`--dry-run`."""
    return "; ".join(" ".join(row) for row in forecast(config).rows[:2])


def start(config: Curate) -> str:
    """A run up to its first task: with fewer selects, so that the mix is to be made anew."""
    try:
        pipeline.curate(config.model_copy(update={"select": config.select[:1]}), Stopping(), lambda line: None)
    except First as reached:
        return str(reached)
    return "nothing to do"


def cached(config: Curate) -> str:
    """A run that finds everything done."""
    mix = pipeline.curate(config, Stopping(), lambda line: None)
    return f"{mix.task_runs} task runs, {len(mix.manifest['parents']):,} parents"


def apart(name: str, folder: Path, workers: int, profile: bool, answer: Any) -> None:
    """In a process of its own: seconds, peak memory in MiB, what it said."""
    config = settings(folder, workers)
    profiler = cProfile.Profile()
    before = psutil.Process().memory_info().rss
    began, used = time.perf_counter(), time.process_time()
    if profile:
        profiler.enable()
    with Memory() as memory:
        told = globals()[name](config)
    profiler.disable()
    took, used = time.perf_counter() - began, time.process_time() - used
    if profile:
        pstats.Stats(profiler).sort_stats("cumulative").print_stats(35)
    answer.put((took, used, before / 2**20, max(memory.own, before) / 2**20, told))


def timed(name: str, folder: Path, workers: int = 2, profile: bool = False) -> None:
    """Print one line of figures."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=apart, args=(name, folder, workers, profile, answer))
    process.start()
    took, used, before, peak, told = answer.get(timeout=3600)
    process.join()
    print(
        f"  {name:8s} {took:7.1f} s ({used:.1f} s of CPU), {peak:6.0f} MiB at most, {before:4.0f} MiB before; {told}",
        flush=True,
    )


def whole(config: Curate) -> str:
    """Every stage."""
    mix = pipeline.curate(config, PlainRunner(config.runner.workers), lambda line: None)
    spent = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in mix.seconds.items())
    return f"{mix.task_runs} task runs, {mix.emitted:,} rows; {spent}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["simulated", "real"])
    parser.add_argument("--shards", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        count = options.shards or (100_000 if options.mode == "simulated" else 5_000)
        if not (folder / "in").exists():
            write_input(folder, count, options.mode == "real")
        if options.mode == "simulated" and not (folder / "store").exists():
            pretend(folder, settings(folder, options.workers))
        print(f"{count:,} shards of {ROWS} rows, {os.cpu_count()} cores", flush=True)
        names: list[str] = ["check", "plan", "start", "cached"] if options.mode == "simulated" else ["whole", "cached"]
        for name in names if not options.only else options.only.split(","):
            timed(name, folder, options.workers, options.profile)


if __name__ == "__main__":
    main()
