"""What a night costs over a folder that grows by a shard, and what cleaning costs at 100,000 shards.

python tests/benchmarks/bench_nights.py nights [--rows 1000000] [--shards 20] [--folder DIR]
python tests/benchmarks/bench_nights.py clean [--shards 100000] [--folder DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import tempfile
import time
from pathlib import Path

from bench_scale import Memory
from synthetic import VOCABULARY, settings, write_synthetic

from configs.loading import validate
from flows.gc import Rules, clean
from flows.pipeline import curate
from flows.runners import PlainRunner
from storage import manifests, mixes
from storage.fingerprints import digest


def nights(folder: Path, rows: int, shards: int, image_bytes: int) -> None:
    """The first night, one with a shard more, one with nothing new; then cleaning. Prints seconds by stage."""
    if not (folder / "in").exists():
        write_synthetic(folder / "in", shards + 1, rows // shards, image_bytes)
    late = folder / "in" / f"{shards:05d}.parquet"
    late.rename(folder / "late.parquet")
    (folder / "vocabulary.txt").write_text("\n".join(VOCABULARY.to_pylist()))
    config = validate(settings(folder))
    table: dict[str, list[float]] = {}
    for night in range(3):
        if night == 1:
            (folder / "late.parquet").rename(late)
        started = time.perf_counter()
        with Memory() as memory:
            mix = curate(config, PlainRunner(2), lambda line: None)
        for stage, seconds in [*mix.seconds.items(), ("all", time.perf_counter() - started)]:
            table.setdefault(stage, [0.0] * 3)[night] = seconds
        print(f"night {night + 1}: {mix.task_runs} task runs, own memory at most {memory.own / 2**20:,.0f} MiB")
    print(f"{'seconds':28s} {'first':>9s} {'a shard more':>13s} {'nothing new':>12s}")
    for stage, (first, more, again) in table.items():
        print(f"  {stage:26s} {first:9.1f} {more:13.1f} {again:12.1f}")
    started = time.perf_counter()
    print(clean(config, Rules(keep=1, grace_days=-1), lambda line: None).message)
    print(f"  in {time.perf_counter() - started:.2f} s")
    assert list(manifests.discrepancies(mix.url, hashes=False)) == []


def cleaning(folder: Path, shards: int) -> None:
    """Clean a store of empty files: 5 per-shard steps that a mix needs, half of whose shards it does not need."""
    store = folder / "store"
    names = [digest(str(number).encode()) for number in range(shards)]
    steps = [("embed", "columns"), ("annotate", "captions"), ("score", "alignment"), ("score", "other")]
    steps = [("ingest", "parquet"), *steps]
    started = time.perf_counter()
    for stage, kind in steps:
        place = store / stage / kind / digest(kind.encode())
        place.mkdir(parents=True)
        for name in names:
            for ending in ("parquet", "json"):
                (place / f"{name}.{ending}").touch()
    (store / "ingest/_files").mkdir()
    for name in names:
        (store / f"ingest/_files/{name}.json").touch()
    kept = names[: shards // 2]
    url = folder / "out/scale" / ("0" * 12)
    mixes.register(str(store), str(url), "scale", "0" * 12)
    manifest = {
        "parents": [{"file": f"{name}.parquet", "digest": name, "rows": 1000} for name in kept],
        "steps": [{"stage": s, "kind": k, "fingerprint": digest(k.encode())} for s, k in steps],
        "reuses": {"notes": kept, "converted": {}, "states": []},
    }
    manifests.publish(str(url), manifest)
    print(f"{shards:,} shards, {(len(steps) * 2 + 1) * shards:,} files made in {time.perf_counter() - started:.0f} s")
    config = validate(settings(folder))
    for what, dry_run in (("dry run", True), ("half of the shards removed", False), ("nothing to remove", False)):
        started = time.perf_counter()
        with Memory() as memory:
            done = clean(config, Rules(grace_days=-1, dry_run=dry_run), lambda line: None)
        seconds = time.perf_counter() - started
        print(f"{what}: {seconds:.1f} s, resident at most {memory.resident / 2**20:,.0f} MiB; {done.message}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["nights", "clean"])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=0)
    parser.add_argument("--image-bytes", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if options.what == "clean":
            cleaning(folder, options.shards or 100_000)
        else:
            for name in ("store", "out"):
                shutil.rmtree(folder / name, ignore_errors=True)
            nights(folder, options.rows, options.shards or 20, options.image_bytes)


if __name__ == "__main__":
    main()
