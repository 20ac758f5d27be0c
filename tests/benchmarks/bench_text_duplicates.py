"""Near-duplicate texts, Parquet to Parquet, head to head: ours, datatrove, datasketch, rensa; and how time grows.

python tests/benchmarks/bench_text_duplicates.py [--rows 20000] [--folder DIR] [--tools NAME…]
python tests/benchmarks/bench_text_duplicates.py --grow 10000 100000 1000000

All of the first have 112 hashes in 14 bands of 8 and word 5-grams; `verified` ones compare signatures at 0.8 as well.
Needs the extra `peers`; datatrove 0.10.1 needs xxhash < 4, and spacy for its default tokeniser (`datatrove-spacy`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apart import exponent
from texts import sets_of, write_planted, write_zipf

BANDS, SLOTS, HASHES, NGRAM, WORKERS = 14, 8, 112, 5, 2
BINS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Pairs within 0.05 of each are counted together."""


def ours(folder: Path, out: Path, **select: object) -> None:
    """The whole pipeline without Prefect: identities, signatures, select, mix, batches, ledger, report."""
    from configs.loading import validate
    from flows.pipeline import curate
    from flows.runners import PlainRunner

    config = {
        "store": f"{out}/store",
        "input": {"path": f"{folder}/in", "image": None},
        "select": [{"kind": "minhash"} | select],
        "sample": {"kind": "iid", "batch_size": 256},
        "emit": {"out": f"{out}/mixes"},
        "runner": {"workers": WORKERS},
    }
    log: list[str] = []
    curate(validate(config), PlainRunner(WORKERS), log.append)
    print(*(line for line in log if "by the formula" in line), sep="\n", file=sys.stderr)
    # By the ledger: the last rows, too few for a batch, are in no part though nothing dropped them.
    ledger = pa.concat_tables(pq.read_table(file) for file in (out / "mixes").rglob("ledger/*.parquet"))
    stays = ledger.filter(pc.fill_null(pc.not_equal(ledger["reason"], "near_duplicate_text"), True))
    ids = {file.name: pq.read_table(file)["id"].to_numpy() for file in (folder / "in").iterdir()}
    kept = [ids[row["file"]][row["row"]] for row in stays.select(["file", "row"]).to_pylist()]
    pq.write_table(pa.table({"id": kept}), out / "00000.parquet")


def equal(folder: Path, out: Path) -> None:
    """As datatrove does it: every candidate is alike, one row of each chain stays."""
    ours(folder, out, keep_by="first", groups="components", verify=False, **given())


def verified(folder: Path, out: Path) -> None:
    ours(folder, out, keep_by="first", **given())


def defaults(folder: Path, out: Path) -> None:
    ours(folder, out)


def given() -> dict[str, object]:
    return {"bands": BANDS, "band_rows": SLOTS, "sketch": {"num_perm": HASHES, "ngram": NGRAM}}


def datatrove(folder: Path, out: Path, language: str = "grt") -> None:
    """Its four stages; `grt` is a language that it cuts at white space, the fastest tokeniser it has."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import minhash
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter

    config = minhash.MinhashConfig(n_grams=NGRAM, num_buckets=BANDS, hashes_per_bucket=SLOTS)
    reader, files = ParquetReader(f"{folder}/in"), len(list((folder / "in").iterdir()))
    place = {name: f"{out}/stages/{name}" for name in ("signatures", "buckets", "remove")}
    stages = [
        (files, [reader, minhash.MinhashDedupSignature(place["signatures"], config, language)]),
        (BANDS, [minhash.MinhashDedupBuckets(place["signatures"], place["buckets"], config=config)]),
        (1, [minhash.MinhashDedupCluster(place["buckets"], place["remove"], config)]),
        (files, [reader, minhash.MinhashDedupFilter(place["remove"]), ParquetWriter(str(out))]),
    ]
    for number, (tasks, pipeline) in enumerate(stages):
        log = f"{out}/stages/log{number}"
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=WORKERS, logging_dir=log).run()


def datatrove_spacy(folder: Path, out: Path) -> None:
    datatrove(folder, out, "en")


def tokens(text: str) -> list[str]:
    words = re.findall(r"[^\W_]+", text.lower())
    return [" ".join(words[at : at + NGRAM]) for at in range(max(1, len(words) - NGRAM + 1))]


def written(folder: Path, out: Path, duplicates: Callable[[list[str]], list[bool]]) -> None:
    """Read all, keep what is no duplicate, write."""
    table = pa.concat_tables(pq.read_table(file) for file in sorted((folder / "in").iterdir()))
    keep = ~np.array(duplicates(table["text"].to_pylist()))
    pq.write_table(table.filter(pa.array(keep)), out / "00000.parquet")


def datasketch(folder: Path, out: Path) -> None:
    """Row by row: kept if no kept row is a candidate."""
    from datasketch import MinHash, MinHashLSH

    def duplicates(texts: list[str]) -> list[bool]:
        index, found = MinHashLSH(params=(BANDS, SLOTS), num_perm=HASHES), []
        for at, text in enumerate(texts):
            signature = MinHash(num_perm=HASHES, seed=1)
            signature.update_batch([token.encode() for token in tokens(text)])
            found.append(bool(index.query(signature)))
            if not found[-1]:
                index.insert(str(at), signature)
        return found

    written(folder, out, duplicates)


def rensa(folder: Path, out: Path) -> None:
    """Its deduplicator, which compares candidates at 0.8."""
    from rensa import RMinHashDeduplicator

    def duplicates(texts: list[str]) -> list[bool]:
        index = RMinHashDeduplicator(threshold=0.8, num_perm=HASHES, use_lsh=True, num_bands=BANDS, seed=1)
        return [not kept for kept in index.add_pairs((str(at), tokens(text)) for at, text in enumerate(texts))]

    written(folder, out, duplicates)


TOOLS: dict[str, Callable[[Path, Path], None]] = {
    "ours, as datatrove": equal,
    "ours, verified": verified,
    "ours, defaults": defaults,
    "datatrove": datatrove,
    "datatrove-spacy": datatrove_spacy,
    "datasketch": datasketch,
    "rensa, verified": rensa,
}


def measured(arguments: list[str]) -> tuple[dict, float]:
    """What a process of its own says, and the most memory it and its children had together, in MiB."""
    process = subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)
    peak, over = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        parent = psutil.Process(process.pid)
        while not over.wait(0.05):
            with contextlib.suppress(psutil.Error):
                every = [parent, *parent.children(recursive=True)]
                peak = max(peak, sum(one.memory_info().rss for one in every))

    watcher = threading.Thread(target=watch)
    watcher.start()
    told = process.communicate()[0]
    over.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{arguments} ended with {process.returncode}")
    return json.loads(told.splitlines()[-1]), peak / 2**20


def one(name: str, folder: Path) -> None:
    """Run one tool; its log goes to stderr."""
    out = folder / "out" / re.sub(r"\W+", "-", name)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    started = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        TOOLS[name](folder, out)
    seconds = time.perf_counter() - started
    kept = [row for file in sorted(out.glob("*.parquet")) for row in pq.read_table(file)["id"].to_pylist()]
    print(json.dumps({"seconds": seconds, "kept": [int(row) for row in kept]}))


def most_alike(rows: np.ndarray, texts: list[str]) -> np.ndarray:
    """The exact Jaccard similarity of each of `rows` with the text most alike to it, float64 `(r,)`."""
    from scipy.sparse import csr_matrix

    sets = sets_of(texts)
    sizes = np.array([len(own) for own in sets])
    columns = np.unique(np.concatenate(sets), return_inverse=True)[1]
    matrix = csr_matrix((np.ones(len(columns), np.float32), columns, np.append(0, np.cumsum(sizes))))
    result = np.zeros(len(rows))
    for at in range(0, len(rows), 500):
        part = rows[at : at + 500]
        both = (matrix[part] @ matrix.T).tocoo()
        share = both.data / (sizes[part][both.row] + sizes[both.col] - both.data)
        share[part[both.row] == both.col] = 0
        np.maximum.at(result[at : at + 500], both.row, share)
    return result


def compare(folder: Path, rows: int, names: list[str]) -> None:
    """Run the tools one after the other and print a table."""
    shutil.rmtree(folder / "in", ignore_errors=True)
    texts, pairs, exact = write_planted(folder / "in", rows)
    size = sum(map(len, texts)) / 2**20
    print(f"{len(texts):,} texts, {size:.0f} MiB, {len(pairs):,} planted near duplicates")
    bins = [np.abs(exact - level) <= 0.05 for level in BINS]
    formula = [np.mean(1 - (1 - exact[near] ** SLOTS) ** BANDS) for near in bins]
    print("| tool | s | MiB | dropped | to a text >= 0.8 | >= 0.7 | " + " | ".join(map(str, BINS)) + " |")
    print("|---" * (6 + len(BINS)) + "|")
    print("| by the formula | | | | | | " + " | ".join(f"{share:.3f}" for share in formula) + " |")
    for name in names:
        facts, memory = measured(["--one", name, "--folder", str(folder)])
        dropped = np.ones(len(texts), bool)
        dropped[facts["kept"]] = False
        found = dropped[pairs].any(axis=1)
        alike = most_alike(np.flatnonzero(dropped), texts)
        shares = [f"{np.mean(found[near]):.3f}" for near in bins]
        precision = " | ".join(f"{np.mean(alike >= level):.3f}" for level in (0.8, 0.7))
        head = f"| {name} | {facts['seconds']:.1f} | {memory:,.0f} | {dropped.sum():,} | {precision} | "
        print(head + " | ".join(shares) + " |", flush=True)


def grown(folder: Path, sizes: list[int]) -> None:
    """Our default settings on ever more synthetic texts."""
    seconds = []
    for rows in sizes:
        place = folder / str(rows)
        write_zipf(place / "in", rows, files=20)
        facts, memory = measured(["--grown", str(rows), "--folder", str(place)])
        seconds.append(facts["seconds"])
        print(f"{rows:,} rows: {facts}, {memory:,.0f} MiB", flush=True)
    print(f"time grows with the power {exponent(sizes, seconds):.2f} of rows")


def grown_one(folder: Path) -> None:
    """Run ours and print what each stage took."""
    from configs.loading import validate
    from flows.pipeline import curate
    from flows.runners import PlainRunner

    shutil.rmtree(folder / "store", ignore_errors=True)
    shutil.rmtree(folder / "out", ignore_errors=True)
    config = {
        "store": f"{folder}/store",
        "input": {"path": f"{folder}/in", "image": None},
        "select": [{"kind": "minhash"}],
        "sample": {"kind": "iid", "batch_size": 256},
        "emit": {"out": f"{folder}/out"},
        "runner": {"workers": WORKERS},
    }
    started, log = time.perf_counter(), []  # type: ignore[var-annotated]
    mix = curate(validate(config), PlainRunner(WORKERS), log.append)
    seconds = time.perf_counter() - started
    print(*(line for line in log if "by the formula" in line), sep="\n", file=sys.stderr)
    stages = {name: round(took, 1) for name, took in mix.seconds.items()}
    print(json.dumps({"seconds": round(seconds, 1), "stages": stages, "counts": mix.manifest["counts"]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--tools", nargs="*", default=[name for name in TOOLS if name != "datatrove-spacy"])
    parser.add_argument("--grow", type=int, nargs="*")
    parser.add_argument("--one")
    parser.add_argument("--grown")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if options.one:
            one(options.one, folder)
        elif options.grown:
            grown_one(folder)
        elif options.grow:
            grown(folder, options.grow)
        else:
            compare(folder, options.rows, options.tools)


if __name__ == "__main__":
    main()
