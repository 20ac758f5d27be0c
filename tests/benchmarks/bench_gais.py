"""GAIS-style (reconstructed) instance selection on KEEL's balanced data sets, against random rows, CNN and ENN.

Every data set is split into five stratified folds once a seed. On the training rows of a fold, features scaled to
[0, 1] by them, each method picks its rows; logistic regression, 5-NN and a random forest learn from these alone and
are tested on the rows of the fold that nothing has seen. Methods of one ratio keep the same number of rows of every
class, max(1, ceil(ratio * n_c)), so that only *which* rows differs:

  mini_batch, single_level, multi_level, multi_view   graphs of GAIS-2, rows by the attention they receive
  chunks      GAIS-1: overlapping windows, rows by confidence in their own class
  no edges    the same network without any edge, rows by confidence
  random      rows drawn at random, class by class

CNN (Hart 1968, written here; and imbalanced-learn's) and ENN (imbalanced-learn's) keep as many rows as they please.
imbalanced-learn's CNN balances two classes: it leaves the smallest class whole and condenses each other class against
that class alone. `sampling_strategy="all"` would leave one row of the smallest class, so its default stands. Its ENN
cleans all classes, by the majority of three neighbours as Wilson has it.

Effectiveness is accuracy x reduction, reduction the share of the rows left out. Ranks are means over data sets, 1 the
best, "by accuracy" among methods of one size only. Seconds are of one core, a selection, training included. The
figures are of this reconstruction: they say nothing about those of the papers.

Data sets are skipped whose smallest class would keep less than one row at the least ratio, whose rows are nearly all
copies, or that are larger than --max-rows (a training on all pairs of a batch takes seconds at 600 rows, and each data
set takes 15 of them for every method). What was skipped is printed.

Examples:
  python tests/benchmarks/bench_gais.py --quick                   two data sets, one seed, 30 epochs: does it work?
  python tests/benchmarks/bench_gais.py --out rows.csv            all of it: hours; stop it and start it again at will
  python tests/benchmarks/bench_gais.py --out rows.csv --max-rows 700 --layers 1 --hidden 16 --trees 25 --budget 1200
                                                                  20 minutes of one core
  python tests/benchmarks/bench_gais.py --out rows.csv --budget 0 --json table.json             tables of what is there
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from keel import Fold, Problem, problems
from ranks import interval, ranking

from configs.methods.diversity import GaisGraph, GaisNetwork
from tasks.select import gais_scores
from tasks.select.gais import keep_top, scores

CLASSIFIERS = ("logistic", "5-NN", "forest")
GAIS = {
    "mini_batch": (GaisGraph(kind="mini_batch"), "attention"),
    "single_level": (GaisGraph(kind="single_level"), "attention"),
    # At the default agreement, 0.5, nested levels join the very pairs of `single_level`; at 0.2 those that share 8 bits.
    "multi_level": (GaisGraph(kind="multi_level", agreement=0.2), "attention"),
    "multi_view": (GaisGraph(kind="multi_view"), "attention"),
    "chunks": (GaisGraph(kind="chunks"), "confidence"),
    "no edges": (GaisGraph(kind="none"), "confidence"),
}
SAME_SIZE = [*GAIS, "random"]
OWN_SIZE = ["CNN (Hart)", "CNN (imblearn)", "ENN"]


def condensed(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Hart's condensed nearest neighbours, int64: rows are added until 1-NN on them is right about all other rows."""
    order = np.random.default_rng(seed).permutation(len(y))
    nearest, label = np.full(len(y), np.inf), np.full(len(y), -1)
    kept = np.zeros(len(y), bool)

    def add(row: int) -> None:
        distance = ((x - x[row]) ** 2).sum(axis=1)
        closer = distance < nearest
        nearest[closer], label[closer] = distance[closer], y[row]
        kept[row] = True

    for c in np.unique(y):
        add(int(order[y[order] == c][0]))
    grown = True
    while grown:
        grown = False
        for row in order:
            if label[row] != y[row] and not kept[row]:
                add(int(row))
                grown = True
    return np.flatnonzero(kept)


def imblearn_condensed(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Rows that imbalanced-learn's CNN keeps, int64."""
    from imblearn.under_sampling import CondensedNearestNeighbour

    method = CondensedNearestNeighbour(random_state=seed)
    method.fit_resample(x, y)
    return np.unique(method.sample_indices_)


def edited(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Rows that imbalanced-learn's ENN keeps, int64; all where it would keep none."""
    from imblearn.under_sampling import EditedNearestNeighbours

    method = EditedNearestNeighbours(sampling_strategy="all", n_neighbors=3, kind_sel="mode")
    method.fit_resample(x, y)
    return np.unique(method.sample_indices_)


REDUCE: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "CNN (Hart)": condensed,
    "CNN (imblearn)": imblearn_condensed,
    "ENN": edited,
    "all rows": lambda x, y, seed: np.arange(len(y)),
}


def accuracies(fold: Fold, rows: np.ndarray, seed: int, trees: int) -> dict[str, float]:
    """Share of the test rows that each classifier, taught by `rows` alone, is right about."""
    from sklearn.dummy import DummyClassifier
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    x, y = fold.x[rows], fold.y[rows]
    made: list[Any] = [
        LogisticRegression(max_iter=1000),
        KNeighborsClassifier(min(5, len(rows))),
        RandomForestClassifier(trees, random_state=seed),
    ]
    if len(np.unique(y)) < 2:  # ENN may clean away all classes but one
        made = [DummyClassifier()] * len(made)
    return {name: one.fit(x, y).score(fold.test_x, fold.test_y) for name, one in zip(CLASSIFIERS, made)}


def selections(fold: Fold, seed: int, asked: argparse.Namespace) -> Iterator[tuple[str, float, np.ndarray, float]]:
    """Method, ratio (0 where the method has its own), the rows it keeps, and its seconds."""
    x, y = fold.x, fold.y
    for name in SAME_SIZE:
        started = time.process_time()
        if name == "random":
            value = np.random.default_rng(seed).random(len(y)).astype(np.float32)
        else:
            graph, score = GAIS[name]
            value = scores(x, y, graph=graph, score=score, network=asked.network, seed=seed)
        seconds = time.process_time() - started
        for ratio in asked.ratios:
            yield name, ratio, keep_top(value, y, ratio), seconds
    for name, reduce in REDUCE.items():
        started = time.process_time()
        rows = reduce(x, y, seed)
        yield name, 0.0, rows, time.process_time() - started


def measured(one: Problem, seed: int, asked: argparse.Namespace) -> pd.DataFrame:
    """A row for every fold, method and ratio."""
    found = []
    for number, fold in enumerate(one.folds(seed)):
        for name, ratio, rows, seconds in selections(fold, seed, asked):
            row = {"set": one.name, "seed": seed, "fold": number, "method": name, "ratio": ratio}
            row |= {"rows": len(fold.y), "kept": len(rows), "seconds": seconds}
            found.append(row | accuracies(fold, rows, seed, asked.trees))
    return pd.DataFrame(found)


def summary(results: pd.DataFrame, ratio: float) -> tuple[pd.DataFrame, dict[str, float]]:
    """A row a method, means over data sets (each the mean of its folds, seeds, classifiers); and the tests."""
    some = results[results["ratio"].isin([0.0, ratio])].copy()
    some["accuracy"] = some[list(CLASSIFIERS)].mean(axis=1)
    some["reduction"] = [gais_scores.reduction(*sizes) for sizes in some[["rows", "kept"]].to_numpy()]
    some["effectiveness"] = gais_scores.effectiveness(some["accuracy"], some["reduction"])
    columns = ["accuracy", "reduction", "effectiveness", *CLASSIFIERS, "seconds"]
    by_set = some.groupby(["method", "set"])[columns].mean()
    table = by_set.groupby("method").mean().loc[[*SAME_SIZE, *OWN_SIZE, "all rows"]]
    accuracy, effectiveness = (by_set[name].unstack("method") for name in ("accuracy", "effectiveness"))
    exact = ranking(accuracy[SAME_SIZE].to_numpy().round(9))
    table["rank"] = pd.Series(exact.means, SAME_SIZE)
    small = ranking(effectiveness[SAME_SIZE + OWN_SIZE].to_numpy().round(9))
    table["effective_rank"] = pd.Series(small.means, SAME_SIZE + OWN_SIZE)
    for name in table.index.drop("random"):
        beyond = (accuracy[name] - accuracy["random"]).to_numpy()
        table.loc[name, ["beyond", "low", "high"]] = [beyond.mean(), *interval(beyond)]
        table.loc[name, ["better", "worse"]] = [(beyond > 1e-9).sum(), (beyond < -1e-9).sum()]
    tests = {"sets": len(accuracy), "friedman_p": exact.p, "critical": exact.critical}
    return table, tests | {"effective_friedman_p": small.p, "effective_critical": small.critical}


def markdown(table: pd.DataFrame, tests: dict[str, float], ratio: float) -> str:
    """The summary as it is read."""
    lines = [
        f"### {ratio:g} of each class, {tests['sets']} data sets\n",
        "| method | accuracy % | reduction % | effectiveness % | rank by accuracy | rank by effectiveness "
        "| points beyond random [95 %] | better / worse sets | logistic / 5-NN / forest % | CPU s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in table.iterrows():
        cells = [str(name), *(f"{100 * row[key]:.1f}" for key in ("accuracy", "reduction", "effectiveness"))]
        cells += ["" if np.isnan(row[key]) else f"{row[key]:.2f}" for key in ("rank", "effective_rank")]
        known = not np.isnan(row["beyond"])
        cells.append(f"{100 * row['beyond']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]" if known else "")
        cells.append(f"{row['better']:.0f} / {row['worse']:.0f}" if known else "")
        cells += [" / ".join(f"{100 * row[key]:.1f}" for key in CLASSIFIERS), f"{row['seconds']:.3f}"]
        lines.append("| " + " | ".join(cells) + " |")
    for what, key in (("accuracy", ""), ("effectiveness", "effective_")):
        lines.append(
            f"\nRanks by {what}: Friedman p = {tests[key + 'friedman_p']:.2g}; two of them differ at 5 % (Nemenyi) if "
            f"further apart than {tests[key + 'critical']:.2f}."
        )
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="these data sets only, whatever their size")
    parser.add_argument("--max-rows", type=int, default=1000, help="skip larger data sets (default: 1000)")
    parser.add_argument("--seeds", type=int, default=3, help="splits, and draws of everything (default: 3)")
    parser.add_argument(
        "--ratios", type=float, nargs="+", default=[0.04, 0.1, 0.3], help="kept (default: 0.04 0.1 0.3)"
    )
    parser.add_argument("--trees", type=int, default=100, help="of the random forest (default: 100)")
    parser.add_argument("--layers", type=int, default=3, help="hidden layers of the network (default: 3)")
    parser.add_argument("--hidden", type=int, default=32, help="units a head (default: 32)")
    parser.add_argument(
        "--epochs", type=int, default=500, help="at most; 30 without progress end it too (default: 500)"
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=np.inf,
        help="begin no data set after so many CPU seconds; tables of what is done",
    )
    parser.add_argument("--out", type=Path, help="CSV of every fold; one that is there is gone on with: same options!")
    parser.add_argument("--json", type=Path, help="also write the tables to this file")
    parser.add_argument("--quick", action="store_true", help="two data sets, one seed, 30 epochs")
    asked = parser.parse_args()
    if asked.quick:
        asked.sets, asked.seeds, asked.epochs = asked.sets or ["iris", "wine"], 1, 30
    asked.network = GaisNetwork(layers=asked.layers, hidden=asked.hidden, epochs=asked.epochs)
    return asked


def chosen(asked: argparse.Namespace) -> list[Problem]:
    """The data sets to run; says which are skipped, and why."""
    every = problems()
    if asked.sets:
        return [one for one in every if one.name in asked.sets]
    reasons = {one.name: one.unfit(min(asked.ratios), asked.max_rows) for one in every}
    for name, reason in reasons.items():
        if reason:
            print(f"skipped {name}: {reason}")
    return [one for one in every if not reasons[one.name]]


def gathered(every: list[Problem], asked: argparse.Namespace) -> pd.DataFrame:
    """All results, seed after seed; what `--out` holds already is not done again."""
    parts = [pd.read_csv(asked.out)] if asked.out and asked.out.exists() else []
    done = {(name, seed) for part in parts for name, seed in part[["set", "seed"]].drop_duplicates().to_numpy()}
    started = time.process_time()
    for seed, one in ((seed, one) for seed in range(asked.seeds) for one in every):
        if (one.name, seed) in done or time.process_time() - started >= asked.budget:
            continue
        parts.append(measured(one, seed, asked))
        if asked.out:
            parts[-1].to_csv(asked.out, mode="a", header=not asked.out.exists(), index=False)
        print(f"seed {seed}, {one.name}: {time.process_time() - started:,.0f} CPU s so far", flush=True)
    results = pd.concat(parts) if parts else pd.DataFrame({"set": []})
    return results[results["set"].isin([one.name for one in every])]


def main() -> None:
    """Measure, print a table a ratio."""
    import torch

    asked = arguments()
    torch.set_num_threads(1)
    x, y = np.eye(8), np.arange(8) % 2
    scores(x, y, network=GaisNetwork(epochs=1))  # the libraries are loaded, and so below
    for reduce in REDUCE.values():
        reduce(x, y, 0)
    results = gathered(chosen(asked), asked)
    if results.empty:
        print("nothing was measured: no table")
        return
    seeds = results.groupby("set", sort=False)["seed"].nunique()
    print(f"\nData sets (seeds of five folds each): {', '.join(f'{name} ({n})' for name, n in seeds.items())}")
    print(f"Network: {asked.network}")
    found = {}
    for ratio in asked.ratios:
        table, tests = summary(results, ratio)
        print(f"\n{markdown(table, tests, ratio)}")
        found[f"{ratio:g}"] = tests | {"methods": json.loads(table.to_json(orient="index"))}
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
