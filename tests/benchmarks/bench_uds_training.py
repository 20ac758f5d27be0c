"""UDS against random rows while a tiny language model is trained from nothing: held-out loss, and where time goes.

Run: OMP_NUM_THREADS=1 python tests/benchmarks/bench_uds_training.py [--seeds 5] [--candidates 8 32]

A sanity run, no proof: some 250,000 weights, real text of five kinds (docstrings, READMEs, licences, changelogs,
manuals; of installed packages and this machine's documentation), without near-duplicates. Every text is cut to the same
length, so that none is chosen for its length. In each step all methods see the same candidates from the same weights to
begin with, and train on the same number of rows, but `full`, which trains on all of them. The memory counts as in the
published setting: alpha is scaled so that alpha times sqrt(T V) / 2 is what it is there. Seeds are of weights and order;
differences are paired by seed, intervals are Student's. `all` is with the optimizer's step and reading rows.
"""

from __future__ import annotations

import argparse
import ast
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1]))
from texts import paragraphs, sets_of, sources
from tiny_lm import tiny_model, tiny_tokenizer

from tasks.sample.selector import selector
from tasks.sample.stopwatch import Stopwatch
from tasks.score.uds import alpha_factor

VOCAB, LENGTH, WIDTH, LAYERS = 1000, 64, 64, 2
PUBLISHED = 1.5e-3 * alpha_factor(512, 152_064)
ALPHA = PUBLISHED / alpha_factor(LENGTH, VOCAB)
HELD_OUT, PER_SOURCE, RATE = 400, 700, 3e-3
SETTINGS = {(8, 2): 300, (32, 8): 120}
"""Candidates and rows taken of a step: steps."""
METHODS = ("full", "random", "max_loss", "uds")


def kind_of(path: Path) -> str | None:
    """What kind of text a file of documentation is, by its name."""
    name = path.name.lower()
    for kind, words in (
        ("licence", ("licen", "copying", "copyright", "notice")),
        ("changelog", ("changelog", "news", "changes", "history")),
        ("readme", ("readme", "metadata")),
    ):
        if any(word in name for word in words):
            return kind
    return "licence" if "common-licenses" in str(path) else "manual" if "/man/" in str(path) else None


def docstrings(path: Path) -> Iterator[str]:
    """Docstrings of a Python file that are long enough."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = " ".join((ast.get_docstring(node) or "").split())
            if len(text) > 250:
                yield text


def corpus() -> tuple[list[str], list[str]]:
    """Texts and their kinds, shuffled: none shares a fifth of its five-word shingles with those before it."""
    found = [
        ("docstring", text) for path in sorted(Path(ast.__file__).parent.glob("*.py")) for text in docstrings(path)
    ]
    found += [(kind, text) for path in sources() if (kind := kind_of(path)) for text in list(paragraphs(path))[:20]]
    order = np.random.default_rng(0).permutation(len(found))
    counts: dict[str, int] = defaultdict(int)
    seen: set[int] = set()
    kept = []
    for at in order.tolist():
        kind, text = found[at]
        if counts[kind] >= PER_SOURCE:
            continue
        shingles = set(sets_of([text])[0].tolist())
        if len(shingles & seen) <= 0.2 * len(shingles):
            counts[kind] += 1
            kept.append((text, kind))
        seen |= shingles
    # Kinds with many texts filled up first: shuffled once more, held-out ones are as the others.
    again = np.random.default_rng(1).permutation(len(kept)).tolist()
    return [kept[at][0] for at in again], [kept[at][1] for at in again]


def tokens() -> tuple[torch.Tensor, list[str]]:
    """Rows of as many tokens each, int64 `(n, LENGTH)`, held-out ones first, and their kinds."""
    texts, kinds = corpus()
    tokenizer = tiny_tokenizer(texts[HELD_OUT:], VOCAB)
    rows = [tokenizer(text, truncation=True, max_length=LENGTH)["input_ids"] for text in texts]
    whole = [at for at, row in enumerate(rows) if len(row) == LENGTH]
    return torch.tensor([rows[at] for at in whole]), [kinds[at] for at in whole]


def train(method: str, rows: torch.Tensor, share: tuple[int, int], seed: int) -> tuple[float, dict[str, float], list]:
    """Held-out loss at the end, the seconds of each part, and the rows that were trained on."""
    size, k = share
    net = tiny_model(VOCAB, VOCAB, WIDTH, LAYERS, LENGTH, seed).train()
    with torch.no_grad():
        for weights in net.parameters():
            if weights.ndim > 1:
                weights *= 0.1  # the initial weights of tests are large
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE)
    options = {"vocab_size": VOCAB, "max_length": LENGTH, "alpha": ALPHA, "seed": seed}
    chosen = selector("random" if method == "full" else method, size if method == "full" else k, **options)
    chosen._watch = Stopwatch(time.process_time)  # what else runs on the machine does not count
    rng, taken = np.random.default_rng(seed), []
    begun = time.process_time()
    for step in range(SETTINGS[share]):
        at = torch.from_numpy(HELD_OUT + rng.choice(len(rows) - HELD_OUT, size, replace=False))
        part = chosen.choose(lambda row, **given: net(**given), {"input_ids": rows[at], "labels": rows[at], "row": at})
        taken += part.pop("row").tolist()
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 20)
        with chosen.training():
            net(**part).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    told = chosen.timing() | {"cpu_seconds": time.process_time() - begun}
    net.eval()
    with torch.no_grad():
        losses = [net(input_ids=part, labels=part).loss.item() for part in rows[:HELD_OUT].split(50)]
    return float(np.mean(losses)), told, taken


def interval(values: list[float]) -> str:
    """Mean and half the 95% interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{np.mean(values):+.4f} ± {half:.4f}"


def main() -> None:
    """Print a table a setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--candidates", type=int, nargs="*", default=[size for size, _ in SETTINGS])
    given = parser.parse_args()
    seeds = range(given.seeds)
    rows, kinds = tokens()
    here = np.array(kinds)
    shares = {kind: float(np.mean(here[HELD_OUT:] == kind)) for kind in sorted(set(kinds))}
    print(f"{len(rows) - HELD_OUT} texts of {LENGTH} tokens to train on, {HELD_OUT} held out; ", end="")
    print(f"{', '.join(f'{kind} {share:.0%}' for kind, share in shares.items())}; torch {torch.__version__}")
    for share, steps in SETTINGS.items():
        if share[0] not in given.candidates:
            continue
        print(f"\n{share[1]} of {share[0]} rows, {steps} steps, {len(seeds)} seeds; alpha {ALPHA:.4f}", flush=True)
        print(
            f"{'':9} {'held-out loss':>18} {'less random, 95%':>20}   CPU ms a step: scoring, SVD, distance, training; all"
        )
        found = {method: [train(method, rows, share, seed) for seed in seeds] for method in METHODS}
        for method, runs in found.items():
            losses = [loss for loss, _, _ in runs]
            less = [loss - other for loss, (other, _, _) in zip(losses, found["random"], strict=True)]
            parts = [
                1e3 * np.median([told[f"{name}_seconds"] for _, told, _ in runs]) / steps
                for name in ("scoring", "nuclear_norm", "distance", "training")
            ]
            beside = "" if method == "random" else interval(less)
            print(f"{method:9} {interval(losses):>18} {beside:>20}   ", end="")
            cpu = 1e3 * np.median([told["cpu_seconds"] for _, told, _ in runs]) / steps
            print(f"{'  '.join(f'{part:6.1f}' for part in parts)}; {cpu:.1f}", flush=True)
        for method in METHODS[1:]:
            names, counts = np.unique(here[[row for _, _, taken in found[method] for row in taken]], return_counts=True)
            told = ", ".join(f"{n} {c:.0%}" for n, c in zip(names, counts / counts.sum(), strict=True))
            print(f"taken by {method}: {told}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
