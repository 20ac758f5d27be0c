"""Perceptual duplicates against imagededup, on clip art and stamps with planted edits; and a million hashes.

python tests/benchmarks/bench_image_duplicates.py [--seeds 3] [--originals 250] [--rates 10 100] [--distances 4 10]
python tests/benchmarks/bench_image_duplicates.py --million [--rows 10000 100000 1000000] [--distance 4]

Each original is planted once per edit. Recall is the share of edited copies within a distance of their original. False
are pairs of originals within that distance that are not nearly equal pixel by pixel. imagededup reads no transparency:
it runs on the pictures as they are, and once more on copies that were put over white for it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from apart import exponent, run_apart
from PIL import Image
from scipy import stats

from configs.methods.duplicates import Perceptual as Config
from tasks.embed.decode import decode
from tasks.embed.reasons import BadImage
from tasks.score.image_hash import ImageHasher, unpack
from tasks.select.perceptual import Perceptual

CORPORA = {
    "OpenClipart": "/usr/share/openclipart/png",  # Debian: openclipart-png
    "Tux Paint": "/usr/share/tuxpaint/stamps",  # Debian: tuxpaint-stamps-default
}
MAX_PIXELS = 4_000_000
SAME_PIXELS = 8.0
"""Root of the mean square difference, in levels of 64 x 64 RGB, below which two originals count as copies."""
WORKERS = 2


def _jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    def edit(picture: Image.Image) -> Image.Image:
        sink = io.BytesIO()
        picture.save(sink, "JPEG", quality=quality)
        return Image.open(sink)

    return edit


def _scaled(factor: float) -> Callable[[Image.Image], Image.Image]:
    def edit(picture: Image.Image) -> Image.Image:
        size = tuple(max(1, round(side * factor)) for side in picture.size)
        return picture.resize(size, Image.Resampling.LANCZOS)

    return edit


def _cropped(picture: Image.Image) -> Image.Image:
    x, y = round(picture.width * 0.02), round(picture.height * 0.02)
    return picture.crop((x, y, picture.width - x, picture.height - y))


def _other_hue(picture: Image.Image) -> Image.Image:
    hue, saturation, value = picture.convert("HSV").split()
    return Image.merge("HSV", (hue.point(lambda h: (h + 32) % 256), saturation, value)).convert("RGB")


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half": _scaled(0.5),
    "quarter": _scaled(0.25),
    "q75": _jpeg(75),
    "q50": _jpeg(50),
    "q30": _jpeg(30),
    "crop 2%": _cropped,
    "hue": _other_hue,
    "flip": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


class Planted(NamedTuple):
    """One corpus: original i is file i; its copy by edit e is file (e + 1) * n + i."""

    folder: Path
    flat: Path
    names: list[str]
    alike: np.ndarray
    """bool `(n, n)`: originals that are nearly equal pixel by pixel."""


def plant(source: str, folder: Path, originals: int, seed: int) -> Planted:
    """Write originals as they are, and over white, and their edited copies, which are over white in both folders."""
    files = sorted(Path(source).rglob("*.png"))
    random.Random(seed).shuffle(files)
    kept: list[tuple[bytes, Image.Image]] = []
    for file in files:
        with contextlib.suppress(BadImage):
            data = file.read_bytes()
            kept.append((data, decode(data, MAX_PIXELS)))
        if len(kept) == originals:
            break
    raw, flat = folder / "raw", folder / "flat"
    raw.mkdir(parents=True)
    flat.mkdir()
    names = []
    for i, (data, picture) in enumerate(kept):
        names.append(f"{i:06d}.png")
        (raw / names[-1]).write_bytes(data)
        picture.save(flat / names[-1], compress_level=1)
    for e, edit in enumerate(EDITS.values(), 1):
        for i, (_, picture) in enumerate(kept):
            copy = edit(picture)
            jpeg = isinstance(copy.fp, io.BytesIO) if hasattr(copy, "fp") else False
            names.append(f"{e * len(kept) + i:06d}.{'jpg' if jpeg else 'png'}")
            if jpeg:
                (raw / names[-1]).write_bytes(copy.fp.getvalue())
            else:
                copy.save(raw / names[-1], compress_level=1)
            os.link(raw / names[-1], flat / names[-1])
    small = np.stack([np.asarray(p.resize((64, 64), Image.Resampling.BOX), np.float32).ravel() for _, p in kept])
    square = np.einsum("nd,nd->n", small, small)
    difference = np.maximum(square[:, None] + square[None] - 2 * small @ small.T, 0) / small.shape[1]
    columns = {"image": pa.array([(raw / name).read_bytes() for name in names], pa.binary())}
    pq.write_table(pa.table(columns), folder / "pictures.parquet", row_group_size=100)
    return Planted(raw, flat, names, difference < SAME_PIXELS**2)


class Hashes(NamedTuple):
    """What a program made of one corpus."""

    words: np.ndarray
    """uint64 `(files, words)`"""
    known: np.ndarray
    """bool `(files,)`: whether there is a hash."""
    mirrored: np.ndarray | None
    hashing: float
    """Seconds, files read and decoded."""
    search: float
    """Seconds from hashes to pairs."""


def ours(planted: Planted, **settings: object) -> Hashes:
    """From Parquet to hashes and on to decisions."""
    config = Config(**settings)
    started = time.perf_counter()
    with pq.ParquetFile(planted.folder.parent / "pictures.parquet") as file:
        slices = (pa.Table.from_batches([batch]) for batch in file.iter_batches(batch_size=500))
        hasher = ImageHasher(config.sketch.model_copy(update={"decode_threads": WORKERS}))
        rows = hasher.run(slices).table
    hashing = time.perf_counter() - started
    n = rows.num_rows
    rows = rows.append_column("uid", pa.array([i.to_bytes(16, "big") for i in range(n)], pa.binary(16)))
    method = Perceptual(config, seed=0)
    started = time.perf_counter()
    method.decide(rows, {})
    search = time.perf_counter() - started
    known = rows[config.sketch.spread_column].to_numpy() >= config.min_spread
    mirrored = unpack(rows[config.sketch.mirrored_column]) if config.flips else None
    return Hashes(unpack(rows[config.sketch.column]), known, mirrored, hashing, search)


def theirs(name: str, folder: Path, names: list[str]) -> Hashes:
    """imagededup's hashes of the files in a folder, and its search at the distance it searches at by default."""
    from imagededup import methods

    method = getattr(methods, name)(verbose=False)
    with _silence():
        started = time.perf_counter()
        found = method.encode_images(folder, num_enc_workers=WORKERS)
        hashing = time.perf_counter() - started
        started = time.perf_counter()
        method.find_duplicates(encoding_map=found, max_distance_threshold=10, num_dist_workers=WORKERS)
        search = time.perf_counter() - started
    words = np.array([[int(found.get(name) or "0", 16)] for name in names], np.uint64)
    return Hashes(words, np.array([name in found for name in names]), None, hashing, search)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    import logging
    import warnings

    logging.disable(logging.INFO)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def distances(hashes: Hashes, planted: Planted) -> tuple[np.ndarray, np.ndarray]:
    """Of copies `(edits, n)` to their originals, and of pairs of originals that are not alike `(pairs,)`; inf: no hash."""
    n = len(planted.alike)
    a, copies = hashes.words[:n], hashes.words.reshape(-1, n, hashes.words.shape[1])[1:]
    known = hashes.known.reshape(-1, n)
    apart = np.bitwise_count(copies ^ a).sum(axis=2).astype(float)
    between = np.bitwise_count(a[:, None] ^ a[None]).sum(axis=2).astype(float)
    if hashes.mirrored is not None:
        other = hashes.mirrored[:n]
        apart = np.minimum(apart, np.bitwise_count(copies ^ other).sum(axis=2))
        crossed = np.bitwise_count(a[:, None] ^ other[None]).sum(axis=2)
        between = np.minimum(between, np.minimum(crossed, crossed.T))
    apart[~(known[1:] & known[0])] = np.inf
    between[~(known[0][:, None] & known[0])] = np.inf
    return apart, between[np.triu(~planted.alike, 1)]


METHODS: dict[str, Callable[[Planted], Hashes]] = {
    "phash": lambda p: ours(p),
    "dhash": lambda p: ours(p, hash="dhash"),
    "ahash": lambda p: ours(p, hash="ahash"),
    "whash": lambda p: ours(p, hash="whash"),
    "phash, 256 bits": lambda p: ours(p, hash_size=16, max_distance=24),
    "phash, flips": lambda p: ours(p, flips=True),
    "imagededup PHash": lambda p: theirs("PHash", p.folder, p.names),
    "imagededup DHash": lambda p: theirs("DHash", p.folder, p.names),
    "imagededup AHash": lambda p: theirs("AHash", p.folder, p.names),
    "imagededup WHash": lambda p: theirs("WHash", p.folder, p.names),
    "imagededup PHash, over white": lambda p: theirs("PHash", p.flat, p.names),
    "imagededup DHash, over white": lambda p: theirs("DHash", p.flat, p.names),
    "imagededup AHash, over white": lambda p: theirs("AHash", p.flat, p.names),
    "imagededup WHash, over white": lambda p: theirs("WHash", p.flat, p.names),
}


def recalls(apart: np.ndarray, false: np.ndarray, n: int, choice: tuple[str, float]) -> list[float]:
    """Distance, false pairs per 1,000 pictures, and recall of every edit, at a distance or at a rate of false pairs."""
    kind, value = choice
    distance = int(value)
    if kind == "rate":
        rates = [np.sum(false <= d) / n * 1000 for d in range(129)]
        distance = max((d for d, rate in enumerate(rates) if rate <= value), default=-1)
    return [distance, np.sum(false <= distance) / n * 1000, *(apart <= distance).mean(axis=1)]


def interval(values: np.ndarray) -> str:
    """Mean over seeds and half the width of its 95% interval (Student's t)."""
    if len(values) < 2:
        return f"{values.mean():.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.3f} ±{half:.3f}"


def against_imagededup(options: argparse.Namespace) -> None:
    choices = [("rate", rate) for rate in options.rates] + [("distance", d) for d in options.distances]
    for corpus, source in CORPORA.items():
        if options.corpus not in (None, corpus):
            continue
        figures: dict[tuple[str, tuple[str, float]], list[list[float]]] = {}
        seconds: dict[str, list[tuple[float, float]]] = {}
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                planted = plant(source, Path(folder) / "in", options.originals, seed)
                for name, method in METHODS.items():
                    hashes = method(planted)
                    apart, false = distances(hashes, planted)
                    seconds.setdefault(name, []).append((hashes.hashing, hashes.search))
                    for choice in choices:
                        found = recalls(apart, false, len(planted.alike), choice)
                        figures.setdefault((name, choice), []).append(found)
        print(f"\n## {corpus}: {options.originals} originals, {len(planted.names)} pictures, {options.seeds} seeds")
        for choice in choices:
            told = f"at most {choice[1]:g} false pairs per 1,000" if choice[0] == "rate" else f"distance {choice[1]:g}"
            print(f"\n{told}\n\n| | d | false | {' | '.join(EDITS)} |\n|---|---|---|{'---|' * len(EDITS)}")
            for name in METHODS:
                rows = np.array(figures[name, choice])
                cells = [interval(column) for column in rows[:, 2:].T]
                print(f"| {name} | {rows[:, 0].mean():.1f} | {rows[:, 1].mean():.0f} | {' | '.join(cells)} |")
        print("\n| | hashing, s | search, s |\n|---|---|---|")
        for name, times in seconds.items():
            print(f"| {name} | {' | '.join(interval(np.array(column)) for column in zip(*times, strict=True))} |")
        sys.stdout.flush()


def one(rows: int, distance: int, seed: int = 0) -> dict[str, float]:
    """Decide on random hashes of 64 bits, one in twenty a near copy of another."""
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 1 << 64, rows, np.uint64)
    copies = rows // 20
    source = rng.integers(0, rows - copies, copies)
    flips = np.zeros(copies, np.uint64)
    for _ in range(distance):  # up to `distance` different bits: one may be chosen twice, and is left as it is then
        flips |= np.uint64(1) << rng.integers(0, 64, copies, np.uint64)
    words[rows - copies :] = words[source] ^ flips
    table = pa.table(
        {
            "uid": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(16), rows, [None, pa.py_buffer(rng.integers(0, 1 << 64, 2 * rows, np.uint64))]
            ),
            "phash_64": pa.FixedSizeBinaryArray.from_buffers(pa.binary(8), rows, [None, pa.py_buffer(words)]),
            "phash_64_spread": pa.array(np.full(rows, 50, np.float32)),
        }
    )
    method = Perceptual(Config(keep_by=None, max_distance=distance), seed=0)
    method.decide(table.slice(0, 1000), {})  # compiles
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, busy = time.perf_counter(), time.process_time()
    told = method.decide(table, {})
    times = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - busy}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = float((~told.keep[rows - copies :]).mean())
    return {"rows": rows, **times, "more_mib": (peak - before) / 1024, "peak_mib": peak / 1024, "found": found}


def million(options: argparse.Namespace) -> None:
    figures = [run_apart(__file__, str(rows), str(options.distance)) for rows in options.rows]
    print("| rows | seconds | CPU seconds | peak, MiB | more than before, MiB | near copies found |")
    print("|---|---|---|---|---|---|")
    for f in figures:
        print(
            f"| {f['rows']:,} | {f['seconds']:.3f} | {f['cpu']:.3f} | {f['peak_mib']:.0f} | {f['more_mib']:.0f} | "
            f"{f['found']:.5f} |"
        )
    print(f"exponent (CPU seconds) {exponent(options.rows, [f['cpu'] for f in figures]):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--originals", type=int, default=250)
    parser.add_argument("--corpus", choices=CORPORA, help="one corpus alone")
    parser.add_argument("--rates", type=float, nargs="*", default=[10, 100])
    parser.add_argument("--distances", type=int, nargs="*", default=[4, 10])
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--distance", type=int, default=4)
    parser.add_argument("--one", type=int, nargs=2, metavar=("ROWS", "DISTANCE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*options.one)))
    elif options.million:
        million(options)
    else:
        against_imagededup(options)


if __name__ == "__main__":
    main()
