"""Captions matched against a vocabulary of 20,000 names of up to three words, on one core; and a vocabulary mined.

Run: taskset -c 0 python tests/benchmarks/bench_captions.py [--rows 100000] [--shards 1]

Captions are made of the names of ImageNet-21k and of emoji, their words and common words, drawn by Zipf's law, about 11
words each, with punctuation, capitals and, in one of 25, letters beyond ASCII. Checks first that what is found equals
what a brute-force search of a sample finds, then prints captions a second through the annotator, Arrow table to Arrow
table, beside one call of the automaton a caption.
"""

from __future__ import annotations

import argparse
import os
import platform
import threading
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from configs.methods.annotate import Captions
from tasks.annotate.captions import CaptionAnnotator, space
from tasks.annotate.cleaning import clean
from tasks.annotate.sidecar import sidecar

TERMS, SAMPLE, REPEATS = 20_000, 300, 5
COMMON = "a the of in on with and at for to is by from this an photo picture new sale image".split()


def names() -> list[str]:
    """Real names: first lemmas of ImageNet-21k, class names of ImageNet-1k, names of emoji."""
    import emoji
    from open_clip import IMAGENET_CLASSNAMES
    from timm.data import ImageNetInfo

    lemmas = [text.split(", ")[0] for text in ImageNetInfo("imagenet-21k").label_descriptions()]
    return [
        *lemmas,
        *IMAGENET_CLASSNAMES,
        *(entry["en"].strip(":").replace("_", " ") for entry in emoji.EMOJI_DATA.values()),
    ]


def captions(units: list[str], rows: int, seed: int) -> pa.Table:
    """A table of `text`."""
    rng = np.random.default_rng(seed)
    p = 1 / np.arange(1, len(units) + 1)
    lengths = 1 + rng.poisson(8, rows)
    words = np.array(units, object)[rng.choice(len(units), lengths.sum(), p=p / p.sum())].tolist()
    ends = np.cumsum(lengths).tolist()
    texts = [" ".join(words[end - length : end]) for end, length in zip(ends, lengths.tolist(), strict=True)]
    for row in range(0, rows, 3):
        texts[row] = texts[row].capitalize() + "."
    for row in range(0, rows, 5):
        texts[row] = texts[row].replace(" ", ", ", 1)
    for row in range(0, rows, 25):
        texts[row] += " – CAFÉ"
    return pa.table({"text": texts})


def one_by_one(table: pa.Table, vocabulary: list[str]) -> Callable[[], pa.Table]:
    """Annotating with one call of the automaton for each caption, as this annotator once did."""
    from ahocorasick_rs import AhoCorasick

    automaton = AhoCorasick([f" {entry} " for entry in vocabulary])

    def run() -> pa.Table:
        texts = [space(text.lower()) for text in table["text"].to_pylist()]
        found = [sorted({m[0] for m in automaton.find_matches_as_indexes(text, overlapping=True)}) for text in texts]
        counts = np.fromiter(map(len, found), np.int64, len(found))
        indices = pa.array(np.fromiter((index for row in found for index in row), np.int64, counts.sum()))
        return sidecar(pa.array(vocabulary).take(indices), counts, np.zeros(len(found), bool))

    return run


def rss() -> float:
    """Resident memory, MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class Peak:
    """The most resident memory while it is open, MB above what was there before."""

    def __enter__(self) -> Peak:
        self.start = self.most = rss()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, rss())

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def growth(self) -> float:
        return self.most - self.start


def fastest(call: Callable[[], object]) -> tuple[float, float]:
    """The least wall time and the least CPU time of a call, seconds; they differ where others use the core."""
    times = []
    for _ in range(REPEATS):
        wall, spent = time.perf_counter(), time.process_time()
        call()
        times.append((time.perf_counter() - wall, time.process_time() - spent))
    return min(wall for wall, _ in times), min(spent for _, spent in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="captions of a shard")
    parser.add_argument(
        "--shards", type=int, default=1, help="shards annotated and mined one after the other at the end"
    )
    arguments = parser.parse_args()
    pa.set_cpu_count(1)
    rng = np.random.default_rng(0)
    found = [name for name in dict.fromkeys(map(str.lower, names())) if len(name.split()) <= 3]
    vocabulary = [str(name) for name in rng.permutation(found)[:TERMS]]
    words = list(dict.fromkeys(word for name in found for word in name.split()))
    units = COMMON + [str(unit) for unit in rng.permutation(words + found)]
    table = captions(units, arguments.rows, seed=1)
    size = sum(map(len, map(str.encode, table["text"].to_pylist())))
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores allowed, load {os.getloadavg()[0]:.1f}")
    print(f"{len(table):,} captions of {size / len(table):.0f} bytes, {len(vocabulary):,} terms")

    started = time.perf_counter()
    settings = Captions(vocabulary="-", cleaning="names")
    method = CaptionAnnotator(settings, CaptionAnnotator(settings).from_text("\n".join(vocabulary)))
    print(f"state and automaton: {time.perf_counter() - started:.2f} s")

    sample = table.slice(0, SAMPLE)
    texts = [space(text.lower()) for text in sample["text"].to_pylist()]
    brute = [[entry for entry in vocabulary if f" {entry} " in text] for text in texts]
    print("equal to brute force:", method.run(sample).table["concepts"].to_pylist() == brute)

    with Peak() as peak:
        result = method.run(table).table
    wall, spent = fastest(lambda: method.run(table))
    old = one_by_one(table, vocabulary)
    alone, alone_spent = fastest(old)
    same = result.equals(old())
    hits = len(result["concepts"].combine_chunks().flatten()) / len(result)
    print(
        f"annotated: {len(table) / spent:,.0f} captions/s of CPU time ({len(table) / wall:,.0f} of wall time), ", end=""
    )
    print(f"{size / spent / 1e6:.1f} MB/s, {hits:.1f} concepts a caption")
    print(f"  memory +{peak.growth:.0f} MB, of which result {result.nbytes / 1e6:.0f} MB")
    print(
        f"one call a caption: {len(table) / alone_spent:,.0f} captions/s of CPU time ({len(table) / alone:,.0f}); ",
        end="",
    )
    print(f"ratio {alone_spent / spent:.1f}; equal: {same}")

    miner = CaptionAnnotator(Captions(max_words=3))
    with Peak() as peak:
        summary = miner.summarise(table)
    wall, spent = fastest(lambda: miner.summarise(table))
    print(f"mined: {len(table) / spent:,.0f} captions/s of CPU time ({len(table) / wall:,.0f}), ", end="")
    print(f"memory +{peak.growth:.0f} MB, {len(summary):,} phrases of up to 3 words")

    listed = names()
    started = time.perf_counter()
    cleaned = clean(listed)
    print(f"cleaned: {len(listed):,} names to {len(cleaned.concepts):,} in {time.perf_counter() - started:.2f} s")
    if arguments.shards > 1:
        long_run(method, units, arguments.rows, arguments.shards)


def long_run(method: CaptionAnnotator, units: list[str], rows: int, shards: int) -> None:
    """Annotate and mine shard after shard: does memory stay where it is?"""
    miner, summaries = CaptionAnnotator(Captions(max_words=3)), []
    spent, resident = {"annotate": 0.0, "mine": 0.0}, []
    for shard in range(shards):
        table = captions(units, rows, seed=shard)
        started = time.process_time()
        method.run(table)
        spent["annotate"] += time.process_time() - started
        started = time.process_time()
        summaries.append(miner.summarise(table))
        spent["mine"] += time.process_time() - started
        resident.append(f"{rss():.0f}")
    started = time.process_time()
    phrases = len(miner.fit(summaries)["why"])
    for what, seconds in spent.items():
        print(f"{shards} shards, {rows * shards:,} captions: {what} {seconds:.1f} s, {rows * shards / seconds:,.0f}/s")
    print(f"fit of {shards} summaries: {time.process_time() - started:.2f} s, {phrases:,} phrases")
    print(f"resident after each shard, MB: {' '.join(resident)}")


if __name__ == "__main__":
    main()
