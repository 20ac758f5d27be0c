"""MixBatches against plain pyarrow reading of the same columns, and against a plain loop of Pillow.

    python tests/benchmarks/bench_loader.py [--rows 1000000] [--repeats 7]

Peers read the parts row group by row group in one thread, as the loader does in each process. (a) text and numbers:
a million rows, row groups of 10,000, batches of 1,024, as tensors and lists and as Arrow tables; the peer also with the
same conversion to Python. (b) encoded pictures, row groups of 100, batches of 256. (c) the same pictures decoded and
shrunk to tensors with 0, 1 and 2 workers and with threads; the peer is `Image.open(…).convert("RGB")` in a loop.
(d) what shuffling costs: row groups read and held. Contents are compared first. Each repeat measures every way once,
in turn; the figures are the mean with its 95 % interval, and the ratio that of each repeat's pair. Where one thread
does everything, (a) and (b), time is the processor's, which a busy machine changes least. Peak memory: one process a
way, and its workers.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from apart import run_apart
from PIL import Image
from synthetic import captions
from torch.utils.data import DataLoader

from tasks.emit import reading
from tasks.emit.loader import MixBatches

TEXT = ["text", "source", "alignment", "mix_weight", "mix_draw"]
WORKERS: list[int] = []
"""Peaks of DataLoader workers, MiB."""
T95 = {2: 12.7, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}


def write_mix(folder: Path, rows: int, batch: int, group: int, picture: Callable[[int], bytes] | None) -> Path:
    """A mix of one rank as `emit` writes it, in parts of at most 250,000 rows."""
    (folder / "data").mkdir(parents=True)
    for number, first in enumerate(range(0, rows, 250_000)):
        count = min(250_000, rows - first)
        rng, at = np.random.default_rng(number), np.arange(first, first + count)
        columns: dict[str, Any] = {"text": captions(rng, count)}
        if picture:
            kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            columns["image"] = pa.array([{"bytes": picture(i), "path": None} for i in at.tolist()], kind)
        columns |= {
            "source": pa.array(["web", "books", "art"]).take(pa.array(rng.integers(0, 3, count))),
            "alignment": rng.random(count, np.float32),
            "mix_step": at // batch,
            "mix_rank": np.zeros(count, np.int32),
            "mix_slot": (at % batch).astype(np.int32),
            "mix_draw": at,
            "mix_weight": np.ones(count, np.float32),
            "mix_file": pa.array(["web/00000.parquet"]).take(pa.array(np.zeros(count, np.int32))),
            "mix_row": at,
        }
        codecs = dict.fromkeys(columns, "snappy" if picture else "zstd") | {"image.bytes": "none"}
        codecs = {name: codec for name, codec in codecs.items() if name != "image"} | {"image.path": "snappy"}
        pq.write_table(
            pa.table(columns),
            folder / f"data/part-{number:05d}.parquet",
            row_group_size=group,
            use_dictionary=["text", "source", "mix_file"],
            compression=codecs if picture else "zstd",
        )
    steps = -(-rows // batch)
    names = [path.name for path in sorted((folder / "data").iterdir())]
    counted = {f"data/{name}": {"rows": pq.read_metadata(folder / "data" / name).num_rows} for name in names}
    manifest = {"batches": {"steps": steps, "batch_size": batch, "world_size": 1}, "columns": {"image": "image"}}
    manifest["files"] = counted
    (folder / "mix.json").write_text(json.dumps(manifest))
    return folder


def jpeg(number: int) -> bytes:
    """A smooth picture of 256 x 256 pixels, about 10 kB."""
    rng = np.random.default_rng(number % 64)
    small = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8))
    out = io.BytesIO()
    small.resize((256, 256), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()


def shrink(image: Image.Image) -> torch.Tensor:
    """Pixels as training wants them, uint8 `(3, 64, 64)`."""
    return torch.from_numpy(np.array(image.resize((64, 64)))).permute(2, 0, 1)


def groups(folder: Path, columns: list[str]) -> Iterator[pa.Table]:
    """Plain pyarrow."""
    for part in sorted((folder / "data").iterdir()):
        with pq.ParquetFile(part) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=columns, use_threads=False)


def plain(folder: Path, columns: list[str]) -> int:
    return sum(table.num_rows for table in groups(folder, columns))


def by_iter_batches(folder: Path, columns: list[str], batch: int) -> int:
    rows = 0
    for part in sorted((folder / "data").iterdir()):
        with pq.ParquetFile(part) as file:
            rows += sum(b.num_rows for b in file.iter_batches(batch, columns=columns, use_threads=False))
    return rows


def plain_python(folder: Path, columns: list[str]) -> int:
    """With what training cannot do without: numbers as tensors, text as str."""
    rows = 0
    for table in groups(folder, columns):
        for name in columns:
            column = table[name]
            number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
            made: Any = torch.from_numpy(np.array(column.to_numpy())) if number else column.to_pylist()
        rows += len(made)
    return rows


def plain_pictures(folder: Path) -> int:
    return sum(len(table["image"].combine_chunks().field("bytes").to_pylist()) for table in groups(folder, ["image"]))


def plain_pillow(folder: Path, batch: int) -> int:
    rows, ready = 0, []
    for table in groups(folder, ["image"]):
        for data in table["image"].combine_chunks().field("bytes").to_pylist():
            ready.append(shrink(Image.open(io.BytesIO(data)).convert("RGB")))
            if len(ready) == batch:
                rows, ready = rows + len(torch.stack(ready)), []
    return rows + len(ready)


def ours(folder: Path, columns: list[str], workers: int = 0, **options: Any) -> int:
    mix = MixBatches(folder, columns=columns, **options)
    stream = iter(mix if not workers else DataLoader(mix, batch_size=None, num_workers=workers))
    rows = 0
    for number, batch in enumerate(stream):
        rows += batch.num_rows if options.get("as_arrow") else len(next(iter(batch.values())))
        if workers and number == len(mix) // 2:
            WORKERS.extend(peak(worker.pid) for worker in stream._workers)
    return rows


def peak(pid: int | str = "self") -> int:
    """The most memory that a process has had, MiB; pages shared with the process it was forked from count too."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def ways(folder: Path) -> dict[str, dict[str, Callable[[], int]]]:
    """Group -> name -> what is measured; the first of a group is what the others are compared with."""
    text, pictures = folder / "text", folder / "pictures"
    shuffled = {"shuffle_window": 64, "seed": 1}
    return {
        "(a) text and numbers, Arrow": {
            "pyarrow, read_row_group": lambda: plain(text, TEXT),
            "pyarrow, iter_batches": lambda: by_iter_batches(text, TEXT, 1024),
            "loader, as_arrow": lambda: ours(text, TEXT, as_arrow=True),
            "loader, as_arrow, window 64": lambda: ours(text, TEXT, as_arrow=True, **shuffled),
            "loader, tensors and lists": lambda: ours(text, TEXT),
            "loader, numbers only": lambda: ours(text, TEXT[2:]),
        },
        "(a) text and numbers, Python": {
            "pyarrow, tensors and lists": lambda: plain_python(text, TEXT),
            "loader, tensors and lists ": lambda: ours(text, TEXT),
        },
        "(b) encoded pictures": {
            "pyarrow, list of bytes": lambda: plain_pictures(pictures),
            "loader, decode=False": lambda: ours(pictures, ["image"], decode=False),
            "pyarrow, Arrow": lambda: plain(pictures, ["image"]),
            "loader, as_arrow ": lambda: ours(pictures, ["image"], as_arrow=True),
        },
        "(c) decoded pictures": {
            "Pillow in a loop": lambda: plain_pillow(pictures, 256),
            "loader": lambda: ours(pictures, ["image"], transform=shrink),
            "loader, 2 threads": lambda: ours(pictures, ["image"], transform=shrink, decode_threads=2),
            "loader, 1 worker": lambda: ours(pictures, ["image"], 1, transform=shrink),
            "loader, 2 workers": lambda: ours(pictures, ["image"], 2, transform=shrink),
        },
    }


def same_contents(folder: Path) -> None:
    """Stop unless the loader gives what plain reading gives."""
    whole = pa.concat_tables(groups(folder / "text", TEXT))
    assert pa.concat_tables(MixBatches(folder / "text", columns=TEXT, as_arrow=True)).equals(whole)
    lists = [batch["text"] for batch in MixBatches(folder / "text", columns=["text"])]
    assert list(chain.from_iterable(lists)) == whole["text"].to_pylist()
    pictures = pa.concat_tables(groups(folder / "pictures", ["image"]))["image"].combine_chunks().field("bytes")
    files = [batch["image"] for batch in MixBatches(folder / "pictures", columns=["image"], decode=False)]
    assert list(chain.from_iterable(files)) == pictures.to_pylist()
    for batch in MixBatches(folder / "pictures", columns=["image", "mix_draw"], transform=shrink):
        for draw, made in list(zip(batch["mix_draw"].tolist(), batch["image"], strict=True))[:8]:
            assert torch.equal(made, shrink(Image.open(io.BytesIO(pictures[draw].as_py())).convert("RGB")))


def reads(folder: Path, columns: list[str], window: int) -> tuple[float, float]:
    """Row groups read per row group there is, and the most bytes held, for one pass."""
    count, held = 0, 0
    read, hold = reading.Part.read, reading.Reader._hold

    def counting(self: Any, group: int, asked: Any) -> pa.Table:
        nonlocal count
        count += 1
        return read(self, group, asked)

    def noting(self: Any, group: Any, again: bool) -> None:
        nonlocal held
        hold(self, group, again)
        held = max(held, sum(self._held.values()))

    reading.Part.read, reading.Reader._hold = counting, noting  # type: ignore[method-assign]
    for _ in MixBatches(folder, columns=columns, as_arrow=True, shuffle_window=window):
        pass
    reading.Part.read, reading.Reader._hold = read, hold  # type: ignore[method-assign]
    there = sum(pq.read_metadata(part).num_row_groups for part in (folder / "data").iterdir())
    return count / there, held / 2**20


def interval(values: list[float]) -> str:
    spread = T95.get(len(values), 2.2) * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):6.3f} ± {spread:5.3f}"


def one(folder: Path, name: str) -> None:
    """Peak memory of one way in this process and its workers."""
    next(way[name] for way in ways(folder).values() if name in way)()
    print(json.dumps({"mine": peak(), "worker": max(WORKERS, default=0)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=976 * 1024)
    parser.add_argument("--pictures", type=int, default=32 * 256)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", default="abcd", help="letters of what is measured")
    parser.add_argument("--wall", action="store_true", help="wall time in (a) and (b) too: for a quiet machine")
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "WAY"))
    options = parser.parse_args()
    if options.one:
        return one(Path(options.one[0]), options.one[1])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_mix(folder / "text", options.rows, 1024, 10_000, None)
        write_mix(folder / "pictures", options.pictures, 256, 100, jpeg)
        same_contents(folder)
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {options.repeats} repeats, mean ± 95 %")
        for title, group in ways(folder).items():
            if title[1] not in options.only:
                continue
            rows = options.rows if "text" in title else options.pictures
            clock = time.perf_counter if "(c)" in title or options.wall else time.process_time
            seconds: dict[str, list[float]] = {name: [] for name in group}
            for _ in range(options.repeats):
                for name, way in group.items():
                    started = clock()
                    assert way() == rows, name
                    seconds[name].append(clock() - started)
            print(title)
            base = next(iter(seconds.values()))
            for name, taken in seconds.items():
                ratio = interval([b / t for b, t in zip(base, taken, strict=True)])
                memory = run_apart(__file__, str(folder), name)
                print(
                    f"  {name:28s} {interval(taken)} s   ratio {ratio}   peak MiB {memory['mine']}, {memory['worker']}"
                )
        for window in (0, 16, 64, 1024) if "d" in options.only else ():
            for what, limit in (("text", 128), ("text", 8), ("pictures", 128), ("pictures", 8)):
                reading.HOLD_BYTES = limit * 2**20
                columns = TEXT if what == "text" else ["image"]
                times, held = reads(folder / what, columns, window)
                print(
                    f"(d) {what:8s} window {window:4d} limit {limit:3d} MiB: read {times:.2f} times, held {held:.1f} MiB"
                )
    return None


if __name__ == "__main__":
    sys.exit(main())
