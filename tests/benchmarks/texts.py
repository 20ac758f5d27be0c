"""Paragraphs of real text that every Linux machine with Python has, and edited copies of known similarity among them."""

from __future__ import annotations

import gzip
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.score.shingles import shingles

NAMES = re.compile(r"(copyright|changelog|news|readme|license|copying|notice|metadata|authors)", re.IGNORECASE)
SUFFIXES = (".md", ".rst", ".txt")
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
NGRAM = 5


def sources() -> Iterator[Path]:
    """Documentation, licences and manuals, in the order of their paths."""
    for folder in ("/usr/share/common-licenses", "/usr/share/doc", "/usr/share/man/man1", "/usr/share/man/man3"):
        yield from sorted(path for path in Path(folder).rglob("*") if path.is_file() and not path.is_symlink())
    packages = Path(sysconfig.get_paths()["purelib"])
    yield from sorted(p for p in packages.rglob("*") if p.is_file() and (p.suffix in SUFFIXES or NAMES.match(p.stem)))


def paragraphs(path: Path) -> Iterator[str]:
    """Paragraphs of 40 to 400 words; shorter ones are joined with what follows."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = raw[:2_000_000].decode()
    except (UnicodeDecodeError, gzip.BadGzipFile):
        return
    text = re.sub(r"(?m)^[.'].*$", "", text) if "/man/" in str(path) else text
    words: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        words += block.split()
        if len(words) >= 40:
            yield " ".join(words[:400])
            words = []


def corpus(rows: int, seed: int) -> list[str]:
    """A seeded sample of all paragraphs."""
    rng = np.random.default_rng(seed)
    found: list[str] = []
    for path in sources():
        found += list(paragraphs(path))[:40]
    return [found[i] for i in np.sort(rng.permutation(len(found))[:rows]).tolist()]


def sets_of(texts: list[str]) -> list[np.ndarray]:
    """The distinct shingles of each text."""
    hashes, starts = shingles(texts, "words", NGRAM)
    return [np.unique(hashes[a:b]) for a, b in zip(starts[:-1], starts[1:], strict=True)]


def edited(text: str, level: float, words: list[str], rng: np.random.Generator) -> str:
    """A copy of about that Jaccard similarity: words replaced here and there, or the end of the text replaced."""
    own = text.split()
    size = len(own) - NGRAM + 1
    changed = size * (1 - level) / (1 + level)
    single = int(changed // NGRAM)
    spots = np.linspace(NGRAM, size - NGRAM, single + 2).astype(int)[1:-1] if rng.random() < 0.5 else []
    tail = round(changed - NGRAM * len(spots))
    for at in [*spots, *range(len(own) - tail, len(own))]:
        own[int(at)] = words[rng.integers(len(words))]
    return " ".join(own)


def write_planted(folder: Path, rows: int, seed: int = 0, files: int = 4) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Write the corpus with planted copies, shuffled; one row in five that has its words for itself gets one.

    Returns:
        Texts; pairs (row, row) int64 `(P, 2)`; the exact Jaccard similarity of each, float64 `(P,)`.
    """
    rng = np.random.default_rng(seed)
    texts = corpus(rows, seed)
    sets = sets_of(texts)
    values, counts = np.unique(np.concatenate(sets), return_counts=True)
    alone = [i for i, own in enumerate(sets) if (counts[np.searchsorted(values, own)] == 1).mean() > 0.9]
    words = sorted({word for text in texts[:2000] for word in text.split()})
    originals = rng.permutation(alone)[: len(texts) // 5]
    levels = np.array(LEVELS)[np.arange(len(originals)) % len(LEVELS)]
    copies = [edited(texts[i], level, words, rng) for i, level in zip(originals.tolist(), levels, strict=True)]
    order = rng.permutation(len(texts) + len(copies))
    place = np.argsort(order)
    pairs = np.stack([place[originals], place[len(texts) + np.arange(len(copies))]], 1)
    texts = [(texts + copies)[i] for i in order.tolist()]
    sets = sets_of(texts)
    exact = [len(np.intersect1d(sets[a], sets[b])) / len(np.union1d(sets[a], sets[b])) for a, b in pairs.tolist()]
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(np.array_split(np.arange(len(texts)), files)):
        table = pa.table({"id": pa.array([str(i) for i in part]), "text": [texts[i] for i in part.tolist()]})
        pq.write_table(table, folder / f"{number:05d}.parquet")
    return texts, pairs, np.array(exact)


def write_zipf(folder: Path, rows: int, files: int) -> None:
    """Texts of 20 to 60 Zipf words; one in ten is its predecessor with another last word, one in twenty a copy."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = np.array([f"term{i}" for i in range(200_000)])
    for number in range(files):
        rng = np.random.default_rng(number)
        count = rows // files
        lengths = rng.integers(20, 61, count)
        words = vocabulary[np.minimum(rng.zipf(1.2, lengths.sum()), len(vocabulary)) - 1]
        texts = [" ".join(part) for part in np.split(words, np.cumsum(lengths)[:-1])]
        for at in range(10, count, 10):
            texts[at] = texts[at - 1] + " other"
        for at in range(15, count, 20):
            texts[at] = texts[at - 1]
        pq.write_table(pa.table({"text": texts}), folder / f"{number:05d}.parquet")
