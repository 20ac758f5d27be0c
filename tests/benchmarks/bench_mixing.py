"""Mixing laws in a sanity run (not a proof): test perplexity of small language models at equal steps; and overhead.

python tests/benchmarks/bench_mixing.py [--steps 840] [--seeds 3] [--methods aioli,doremi,...] [--small] [--overhead]

Three groups of real text that a Debian machine with this project's packages has: Python source without docstrings (its
standard library), docstrings (numpy, scipy, torch) and Debian changelogs, in pieces of 240 characters. One file in
eight is for the test alone, so no file is learned from and tested on, nor a piece that both hold. Every final model
has the same number of steps; those of Aioli and Skill-It are measured as they come out of their own run, those of
DoReMi, DoGE and the fitted law are trained with the proportions that were learned, from the start. What a method spends
besides those steps is told. Perplexities are of tokens of one tokenizer a seed; differences are to the stratified mix
of the same seed, with 95 % t-intervals over seeds. Seconds are of the processor.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import hashlib
import json
import os
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa

from configs.methods import learned
from storage.states import Checkpoint
from tasks import load, mix
from tasks.mix import Group
from tasks.mix.group_proxy import GroupProxy, group_losses
from tasks.mix.proxy_texts import TextCorpus
from tasks.mix.samples import Built, Samples

CHARACTERS = 240
SECTIONS = {
    "aioli": learned.Aioli,
    "doremi": learned.Doremi,
    "doge": learned.Doge,
    "skill_it": learned.SkillIt,
    "mixing_law": learned.MixingLaw,
}
ONLINE = ("aioli", "skill_it")
"""Whose own run is the one that is measured."""


# ---------------------------------------------------------------------------------------------------------------- texts
def files(kind: str) -> list[Path]:
    paths = sysconfig.get_paths()
    if kind == "changelogs":
        return sorted(p for p in Path("/usr/share/doc").glob("*/changelog.Debian.gz") if not p.is_symlink())
    if kind == "code":
        found = sorted(Path(paths["stdlib"]).rglob("*.py"))
        return [path for path in found if not {"site-packages", "test", "tests"} & set(path.parts)]
    return [
        path
        for package in ("numpy", "scipy", "torch")
        for path in sorted((Path(paths["purelib"]) / package).rglob("*.py"))
        if "tests" not in path.parts
    ]


def read(kind: str, path: Path) -> str:
    """What a file holds of a kind: its docstrings, its code without them, or all."""
    raw = path.read_bytes()
    if kind == "changelogs":
        return gzip.decompress(raw).decode(errors="ignore")
    try:
        text = raw.decode()
        tree = ast.parse(text)
    except (UnicodeDecodeError, SyntaxError):
        return ""
    places = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                places.append((first.lineno, first.end_lineno, first.value.value))
    if kind == "docstrings":
        return "\n\n".join(doc for *_, doc in sorted(places))
    lines = text.splitlines()
    for first, last, _ in places:
        lines[first - 1 : last] = [""] * (last - first + 1)
    return "\n".join(line for line in lines if line.strip())


def pieces(text: str) -> Iterator[str]:
    """Whole lines, up to so many characters."""
    part: list[str] = []
    size = 0
    for line in text.splitlines():
        if size + len(line) > CHARACTERS and part:
            yield "\n".join(part)
            part, size = [], 0
        part.append(line.rstrip()[:CHARACTERS])
        size += len(part[-1]) + 1
    if size > CHARACTERS // 2:
        yield "\n".join(part)


def corpus(one_in: int) -> tuple[dict[str, list[str]], dict[str, list[str]], dict[str, list[int]]]:
    """Of each kind distinct pieces to learn from, those of the test, and what file each of the former is from.

    Args:
        one_in: Of all kinds one file in so many is read; so the groups' sizes are to each other as they are.
    """
    train: dict[str, list[str]] = {}
    test: dict[str, list[str]] = {}
    origin: dict[str, list[int]] = {}
    for kind in ("changelogs", "code", "docstrings"):
        seen: dict[str, int] = {}
        tested: dict[str, None] = {}
        for number, path in enumerate(files(kind)):
            coin = int.from_bytes(hashlib.md5(str(path).encode()).digest()[:4], "big")
            if coin % one_in:
                continue
            for piece in pieces(read(kind, path)):
                if coin // one_in % 8:
                    seen.setdefault(piece, number)
                else:
                    tested[piece] = None
        if not seen or not tested:
            sys.exit(f"there are no texts of the kind {kind!r} here")
        test[kind] = list(tested)
        train[kind] = [piece for piece in seen if piece not in tested]
        origin[kind] = [seen[piece] for piece in train[kind]]
    return train, test, origin


def table_of(train: dict[str, list[str]]) -> tuple[pa.Table, pa.Array]:
    texts = [text for part in train.values() for text in part]
    uid = pa.array([hashlib.md5(text.encode()).digest() for text in texts], pa.binary(16))
    return pa.table({"text": texts, "uid": uid}), pa.array([name for name, part in train.items() for _ in part])


# ------------------------------------------------------------------------------------------------------------- spending
class Meter:
    """Steps and seconds of all proxies, by what was done."""

    def __init__(self) -> None:
        self.reset()
        for name in ("train", "gradients", "validation_gradient", "apply", "losses"):
            setattr(GroupProxy, name, self._timed(name, getattr(GroupProxy, name)))

    def reset(self) -> None:
        self.seconds = dict.fromkeys(("train", "gradients", "validation_gradient", "apply", "losses"), 0.0)
        self.steps, self.measured, self.began = 0, 0, time.process_time()

    @property
    def spent(self) -> float:
        return time.process_time() - self.began

    def _timed(self, name: str, work: Callable) -> Callable:
        def timed(proxy: GroupProxy, *arguments, **named):
            began, step = time.process_time(), proxy.step
            result = work(proxy, *arguments, **named)
            self.seconds[name] += time.process_time() - began
            self.steps += proxy.step - step
            self.measured += name == "losses"
            return result

        return timed


# ----------------------------------------------------------------------------------------------------------------- runs
def section(kind: str, options: argparse.Namespace, seed: int, **over):
    proxy = learned.LanguageMixProxy(
        max_length=options.length, vocabulary=options.vocabulary, width=options.width, layers=2, heads=2
    )
    common = {"proxy": proxy, "steps": options.steps, "rounds": options.rounds, "batch_size": options.batch}
    common |= {"learning_rate": 3e-3, "train_rows": 12_000, "validation_rows": options.validation}
    own = {"aioli": {"sweeps": 2, "burst_steps": 4}, "mixing_law": {"rounds": 1, "runs": 6}}.get(kind, {})
    return SECTIONS[kind](**common | own | {"proxy_seed": seed, "device": "cpu"} | over)


def learn(kind: str, config, built: Built, groups: list[Group], seed: int) -> tuple[mix.Proportions, GroupProxy]:
    """What a method says, and its proxy as its last training left it."""
    method, kept = load(mix.METHODS, config, seed=seed), []
    follow = method.follow
    # The sample and the tokenizer are the same for all methods of a seed; the run's last model is wanted too.
    method._samples.build = lambda names, summaries: built
    method.follow = lambda course: (follow(course), kept.append(course.proxy))
    with tempfile.TemporaryDirectory() as folder:
        found = method.learn(groups, [], Checkpoint(f"{folder}/checkpoint.npz"))
    if found.warnings or not kept:
        print(f"  {kind}, seed {seed}: {'; '.join(found.warnings)}", flush=True)
    return found, kept[0] if kept else built.proxy


def sanity(options: argparse.Namespace) -> None:
    train, test, _ = corpus(options.one_in)
    rows, labels = table_of(train)
    names = sorted(train)
    groups = [Group(name, len(train[name])) for name in names]
    natural = np.array([group.rows for group in groups]) / len(labels)
    told = ", ".join(
        f"{n} {len(train[n]):,} pieces (share {s:.3f}, test {len(test[n]):,})" for n, s in zip(names, natural)
    )
    print(f"groups: {told}")
    meter, found = Meter(), {}
    for seed in range(options.seeds):
        config = section("aioli", options, seed)
        samples = Samples(config, "cpu")
        built = samples.build(names, [samples.summarise(rows, labels)])
        assert built.proxy is not None and built.learned == names, built.told
        tested = [test[name][: options.tested] for name in names]
        unseen = TextCorpus(built.proxy._corpus.model, [[], [], []], tested, seed, "cpu")
        for kind in options.methods:
            meter.reset()
            found[kind, seed] = one(kind, options, seed, built, groups, natural)
            spent = meter.spent, meter.steps - options.steps, meter.measured
            proxy, shares = found[kind, seed]
            assert proxy.step == options.steps
            losses = group_losses(unseen, proxy._weights, "cpu")
            found[kind, seed] = {"losses": losses, "shares": shares, "spent": spent}
            print(
                json.dumps(
                    {
                        "method": kind,
                        "seed": seed,
                        "losses": losses.round(4).tolist(),
                        "proportions": shares.round(3).tolist(),
                        "seconds": round(spent[0], 1),
                    }
                ),
                flush=True,
            )
    show(options, names, found)


def one(kind, options, seed, built, groups, natural) -> tuple[GroupProxy, np.ndarray]:
    """A final model of so many steps, and the proportions that it was trained with, on average."""
    if kind in ("stratified", "natural"):
        shares = np.full(3, 1 / 3) if kind == "stratified" else natural
        proxy = built.proxy.fresh(options.steps)
        proxy.train(shares, options.steps)
        return proxy, shares
    # A law is fitted to shorter runs, for it takes six of them.
    config = section(kind, options, seed, **({"steps": options.steps // 4} if kind == "mixing_law" else {}))
    said, last = learn(kind, config, built, groups, seed)
    shares = said.rounds.mean(0)
    if kind in ONLINE:
        return last, shares
    proxy = built.proxy.fresh(options.steps)
    proxy.train(shares, options.steps)
    return proxy, shares


def interval(values: np.ndarray) -> str:
    """Mean and half of its 95 % t-interval."""
    from scipy.stats import t

    if len(values) < 2:
        return f"{values.mean():+.2f}"
    return f"{values.mean():+.2f} ± {t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5:.2f}"


def show(options, names, found) -> None:
    seeds = range(options.seeds)
    of = {k: np.array([found[k, seed]["losses"] for seed in seeds]) for k in options.methods}
    averages = {
        "exp of mean": {k: np.exp(losses.mean(1)) for k, losses in of.items()},
        "mean of exp": {k: np.exp(losses).mean(1) for k, losses in of.items()},
    }
    steps = f"{options.steps} steps of {options.batch} rows, {options.seeds} seeds"
    print(f"\nTest perplexity, {steps}; difference to stratified with 95 % t-interval\n")
    heads = [*names, "exp of mean loss", "difference", "mean of exp", "difference", "proportions"]
    heads += ["extra steps", "validations", "seconds"]
    print(f"| method | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")
    for kind in options.methods:
        cells = [f"{value:.2f}" for value in np.exp(of[kind]).mean(0)]
        for average in averages.values():
            base = average.get("stratified")
            same = kind == "stratified" or base is None
            cells += [f"{average[kind].mean():.2f}", "" if same else interval(average[kind] - base)]
        every = [found[kind, seed] for seed in seeds]
        cells.append(" ".join(f"{value:.3f}" for value in np.mean([e["shares"] for e in every], axis=0)))
        seconds, extra, measured = np.mean([e["spent"] for e in every], axis=0)
        print(f"| {kind} | {' | '.join([*cells, f'{extra:.0f}', f'{measured:.0f}', f'{seconds:.1f}'])} |", flush=True)


# ------------------------------------------------------------------------------------------------------------- overhead
def overhead(options: argparse.Namespace) -> None:
    """Seven groups, one round of Aioli that is bursts alone: what it takes besides training and validation."""
    train, _, origin = corpus(options.one_in)
    cut = {"changelogs": 3, "code": 2, "docstrings": 2}
    parts: dict[str, list[str]] = {}
    for kind, texts in train.items():
        for text, file in zip(texts, origin[kind]):
            parts.setdefault(f"{kind} {file % cut[kind]}", []).append(text)
    rows, labels = table_of(parts)
    names = sorted(parts)
    steps = 2 * 4 * len(names)
    config = section("aioli", options, 0, steps=steps, rounds=1, sweeps=2, burst_steps=4, eta=0.2)
    began = time.process_time()
    samples = Samples(config, "cpu")
    built = samples.build(names, [samples.summarise(rows, labels)])
    made = time.process_time() - began
    groups, meter = [Group(name, len(parts[name])) for name in names], Meter()
    built.proxy.fresh(steps).train(np.full(7, 1 / 7), 3)
    print(f"7 groups, one round of Aioli: {steps} steps of {options.batch} rows; sample and tokenizer {made:.2f} s")
    found = []
    for _ in range(3):
        meter.reset()
        learn("aioli", config, built, groups, 0)
        whole, own = meter.spent, dict(meter.seconds)
        meter.reset()
        built.proxy.fresh(steps).train(np.full(7, 1 / 7), steps)
        plain = meter.spent
        rest = whole - own["train"] - own["losses"]
        found.append((own["train"], own["losses"], rest, plain))
        print(
            "  bursts {:.2f} s, validation {:.2f} s, all else {:.3f} s; as many plain steps {:.2f} s".format(*found[-1])
        )
    bursts, _, rest, plain = np.min(found, axis=0)  # other work on the machine only adds
    print(
        f"all else is {100 * rest / bursts:.1f} % of the bursts; bursts and all else {100 * ((bursts + rest) / plain - 1):+.1f} % of plain training"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=840, help="of every final model")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--methods", default="stratified,natural,aioli,doremi,doge,skill_it", help="mixing_law is one too"
    )
    parser.add_argument("--small", action="store_true", help="two minutes: few steps, two seeds, fewer texts")
    parser.add_argument("--overhead", action="store_true", help="seconds of one round of Aioli, 7 groups")
    parser.add_argument("--rounds", type=int, default=6, help="that proportions are learned for; `steps` is a multiple")
    parser.add_argument("--batch", type=int, default=32, help="with 8 the noise of training hides all else")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--length", type=int, default=64, help="tokens of a piece")
    parser.add_argument("--vocabulary", type=int, default=512)
    parser.add_argument("--validation", type=int, default=48, help="rows of each group")
    parser.add_argument("--tested", type=int, default=400, help="rows of each group")
    parser.add_argument("--one-in", type=int, default=8, help="of so many files one is read")
    options = parser.parse_args()
    options.methods = options.methods.split(",")
    if options.small:
        options.steps, options.rounds, options.seeds, options.one_in, options.tested = 96, 2, 2, 32, 100
    overhead(options) if options.overhead else sanity(options)


if __name__ == "__main__":
    main()
