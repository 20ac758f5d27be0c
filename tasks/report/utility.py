"""What a sampler that goes by numbers of single draws leaves behind: how they are distributed, what decided, extremes.

From `values-{part}.parquet` beside the batch plan, see `ValuingSampler`; read part by part, twice: first for the range
of each value, then for exact counts in common bins. UDS is of arXiv 2510.16882: total = intra + alpha * inter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from configs.errors import Defect
from storage.exchange import SHARD
from storage.files import names as names_in
from storage.steps import Step
from tasks.report import scores
from tasks.report.coverage import POINTS

FIXED = ("draw", "round", "row", SHARD, "group", "picked")
"""Columns of every such file; the others are the values, the last of which decides."""
TERMS = ("intra", "inter", "total")
ENDS = {"high": -1, "low": 1}
"""Kinds of extreme rows, with the sign that makes the most extreme one the least."""


class Row(NamedTuple):
    """One row at an end of the values: where it is, the draw that put it there, and what was told of that draw."""

    file: str
    row: int
    draw: int
    picked: bool
    values: dict[str, float | None]


def found(sample: Step, parts: Sequence[int], steps: int, size: int, micro: int) -> dict[str, Any] | None:
    """What the values of a sampler say, or None if it left none, or not of all parts.

    Args:
        sample: The sampler's step in the store.
        parts: Rows of each part of the batch plan.
        steps: Batches of the whole plan.
        size: Draws of a superbatch.
        micro: Draws that are compared with each other: consecutive ones, of one superbatch.

    Returns:
        `values`: names, the last one decides; `draws, picked`: how many; `missing`: draws without a finite number, by
        value; `means`: by value of candidates and of picks, None of none; `distributions`: as `tasks.report.scores`
        makes them; `over`: see `Steps`; `terms`: see `Terms`, None where the values are others than `TERMS`.

    Raises:
        Defect: A part holds no whole micro-batches, or draws of other steps.
    """
    there = {*names_in(sample.url)}
    numbers = [number for number, rows in enumerate(parts) if rows]
    if not steps or not numbers or any(f"values-{number:05d}.parquet" not in there for number in numbers):
        return None

    def tables() -> Iterator[pa.Table]:
        return (sample.read(f"values-{number:05d}") for number in numbers)

    values, bounds = _bounds(tables())
    counted: dict[str, dict[str, list[int]]] = {}
    sums, over, terms = Sums(values), Steps(steps, size), Terms(micro)
    is_uds = values == TERMS
    for table in tables():
        picked = table["picked"].to_numpy()
        told = {name: table[name].to_numpy().astype(np.float64) for name in values}
        counted = scores.merge([counted, {n: scores.histogram(told[n], picked, b) for n, b in bounds.items()}])
        sums.add(told, picked)
        if is_uds:
            over.add(table["draw"].to_numpy(), told["inter"], picked)
            terms.add(told, picked)
    shapes = [{"name": name, "edges": bounds[name].tolist(), **counted[name]} for name in values if name in bounds]
    more = {"over": over.told() if is_uds else None, "terms": terms.told() if is_uds else None}
    return {"values": list(values), **sums.told(), "distributions": shapes, **more}


def _bounds(tables: Iterable[pa.Table]) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Names of the values, and the edges of the bins of those of which there is a finite one."""
    spans: dict[str, list[scores.Span]] = {}
    for table in tables:
        for name in (name for name in table.column_names if name not in FIXED):
            one = scores.span([table[name].to_numpy().astype(np.float64)])
            spans.setdefault(name, []).extend([one] if one else [])
    return tuple(spans), {name: scores.edges(some) for name, some in spans.items() if some}


def extremes(sample: Step, parts: Sequence[int], most: int, file_of: Callable[[int], str]) -> dict[str, list[Row]]:
    """The rows with the highest and the lowest finite value that decides, `most` each, none twice; those first.

    A row that was drawn several times counts by its most extreme draw.

    Args:
        sample, parts: As in `found`, which returned something.
        most: Rows of each kind.
        file_of: Name of the file of a shard.
    """
    tables = [_extreme(sample.read(f"values-{number:05d}"), 2 * most) for number, rows in enumerate(parts) if rows]
    if not most or not tables:
        return {end: [] for end in ENDS}
    every = pa.concat_tables(tables)
    names = [name for name in every.column_names if name not in FIXED]
    high = _ends(every, "high", most)
    low = [at for at in _ends(every, "low", 2 * most) if not {_key(every, at)} & {_key(every, one) for one in high}]
    return {
        end: [_row(every, at, names, file_of) for at in some] for end, some in (("high", high), ("low", low[:most]))
    }


def _extreme(table: pa.Table, most: int) -> pa.Table:
    """The draws of one part that may be shown."""
    at = sorted({*_ends(table, "high", most), *_ends(table, "low", most)})
    return table.take(pa.array(at, pa.int64()))


def _ends(table: pa.Table, end: str, most: int) -> list[int]:
    """Places of the draws at one end, the most extreme first, of each row the first; of equal ones the earlier draw."""
    value, draw = table[table.column_names[-1]].to_numpy().astype(np.float64) * ENDS[end], table["draw"].to_numpy()
    at = np.flatnonzero(np.isfinite(value))
    at = at[np.lexsort((draw[at], value[at]))]
    row, shard = table["row"].to_numpy()[at], table[SHARD].to_numpy()[at].astype(np.int64)
    _, first = np.unique(shard * (row.max(initial=0) + 1) + row, return_index=True)
    return [int(one) for one in at[np.sort(first)[:most]]]


def _key(table: pa.Table, at: int) -> tuple[int, int]:
    return table[SHARD][at].as_py(), table["row"][at].as_py()


def _row(table: pa.Table, at: int, names: Sequence[str], file_of: Callable[[int], str]) -> Row:
    line = table.slice(at, 1).to_pylist()[0]
    values = {name: line[name] if np.isfinite(line[name]) else None for name in names}
    return Row(file_of(line[SHARD]), line["row"], line["draw"], line["picked"], values)


class Sums:
    """Draws, picks, and means by value."""

    def __init__(self, values: Sequence[str]) -> None:
        self.draws, self.picked = 0, 0
        self.known = {name: np.zeros(2, np.int64) for name in values}
        self.sums = {name: np.zeros(2) for name in values}

    def add(self, told: dict[str, np.ndarray], picked: np.ndarray) -> None:
        """Count one part."""
        self.draws += len(picked)
        self.picked += int(picked.sum())
        for name, value in told.items():
            finite = np.isfinite(value)
            for place, some in enumerate((finite, finite & picked)):
                self.known[name][place] += some.sum()
                self.sums[name][place] += value[some].sum()

    def told(self) -> dict[str, Any]:
        """`draws, picked, missing, means`, see `found`."""
        means = {name: _ratios(self.sums[name], self.known[name]) for name in self.sums}
        missing = {name: self.draws - int(known[0]) for name, known in self.known.items()}
        return {"draws": self.draws, "picked": self.picked, "missing": missing, "means": means}


class Steps:
    """Means of the distance from what was picked before, `inter`, over the steps of the batch plan.

    `told` gives `steps`; `first`: of each bin its first step; `bins`: means of candidates and of picks; `low, high`:
    extremes of candidates. None where a bin has no finite number.
    """

    def __init__(self, steps: int, size: int) -> None:
        self.steps, self.size = steps, size
        self.first = first_steps(steps)
        bins = len(self.first) - 1
        self.known, self.sums = np.zeros((2, bins), np.int64), np.zeros((2, bins))
        self.low, self.high = np.full(bins, np.inf), np.full(bins, -np.inf)

    def add(self, draw: np.ndarray, value: np.ndarray, picked: np.ndarray) -> None:
        """Count one part."""
        bins = len(self.first) - 1
        at = bin_of(draw // self.size, self.first)
        finite = np.isfinite(value)
        for place, some in enumerate((finite, finite & picked)):
            self.known[place] += np.bincount(at[some], minlength=bins)
            self.sums[place] += np.bincount(at[some], value[some], minlength=bins)
        np.minimum.at(self.low, at[finite], value[finite])
        np.maximum.at(self.high, at[finite], value[finite])

    def told(self) -> dict[str, Any]:
        """See the class."""
        means = [_ratios(*pair) for pair in zip(self.sums, self.known, strict=True)]
        ends = [[float(one) if np.isfinite(one) else None for one in some] for some in (self.low, self.high)]
        return {
            "steps": self.steps,
            "first": self.first[:-1].tolist(),
            "bins": dict(zip(("candidates", "picks"), means, strict=True)),
            "low": {"candidates": ends[0]},
            "high": {"candidates": ends[1]},
        }


class Terms:
    """What each term of UDS has to do with the picks, over the micro-batches whose terms are all finite.

    `told` gives `batches`, and `left_out` those that are not; `size`: candidates of each; `picks` in them;
    `agree`: how many of those each term alone would have picked too, and what `chance` would have; `correlation`: mean
    Spearman rank correlation of each term with the total, None where one of them is constant in all; `spread`: root
    mean square of the standard deviations within micro-batches of intra and of total - intra, which is alpha * inter.
    """

    def __init__(self, micro: int) -> None:
        self.micro = micro
        self.counts = dict.fromkeys(("batches", "left_out", "picks", "intra", "inter"), 0)
        self.chance = 0.0
        self.variance = dict.fromkeys(("intra", "inter"), 0.0)
        self.correlation = {name: [0.0, 0] for name in ("intra", "inter")}

    def add(self, told: dict[str, np.ndarray], picked: np.ndarray) -> None:
        """Count one part: whole micro-batches, in the order of their draws."""
        if len(picked) % self.micro:
            raise Defect(f"{len(picked)} draws have values; they are no whole micro-batches of {self.micro}")
        terms = {name: value.reshape(-1, self.micro) for name, value in told.items()}
        finite = np.logical_and.reduce([np.isfinite(one).all(axis=1) for one in terms.values()])
        terms = {name: one[finite] for name, one in terms.items()}
        taken = picked.reshape(-1, self.micro)[finite]
        each = taken.sum(axis=1)
        self.counts["batches"] += len(taken)
        self.counts["left_out"] += int((~finite).sum())
        self.counts["picks"] += int(each.sum())
        self.chance += float((each**2).sum() / self.micro)
        for name in ("intra", "inter"):
            order = np.argsort(-terms[name], axis=1, kind="stable")
            self.counts[name] += int((np.take_along_axis(taken, order, 1) & _first(each, self.micro)).sum())
            rho = spearman(terms[name], terms["total"])
            self.correlation[name][0] += float(rho[~np.isnan(rho)].sum())
            self.correlation[name][1] += int((~np.isnan(rho)).sum())
        parts = {"intra": terms["intra"], "inter": terms["total"] - terms["intra"]}
        self.variance = {name: old + float(parts[name].var(axis=1).sum()) for name, old in self.variance.items()}

    def told(self) -> dict[str, Any]:
        """See the class."""
        batches = max(1, self.counts["batches"])
        return {
            **{name: self.counts[name] for name in ("batches", "left_out", "picks")},
            "size": self.micro,
            "agree": {name: self.counts[name] for name in ("intra", "inter")} | {"chance": self.chance},
            "correlation": {name: _ratio(*pair) for name, pair in self.correlation.items()},
            "spread": {name: float(np.sqrt(one / batches)) for name, one in self.variance.items()},
        }


def spearman(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation row by row, float64 `(n,)`, of finite `(n, m)` each; NaN where one is constant."""
    from scipy.stats import rankdata

    if not one.size:
        return np.full(len(one), np.nan)
    a, b = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (rankdata(one, axis=1), rankdata(other, axis=1)))
    both = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.divide((a * b).sum(axis=1), both, out=np.full(len(both), np.nan), where=both > 0)


def first_steps(steps: int, points: int = POINTS) -> np.ndarray:
    """The first step of each of at most `points` bins of nearly as many steps, and the end of the last one."""
    bins = min(points, steps)
    return -(-np.arange(bins + 1) * steps // bins)


def bin_of(step: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The bin of each step, int64; `first` from `first_steps`.

    Raises:
        Defect: A step is beyond the plan.
    """
    if len(step) and not (0 <= step.min() and step.max() < first[-1]):
        raise Defect(f"the batch plan has {first[-1]} steps, but step {step.max()} is told of")
    return np.searchsorted(first, step, side="right") - 1


def _first(each: np.ndarray, size: int) -> np.ndarray:
    return np.arange(size) < each[:, None]


def _ratios(totals: np.ndarray, counts: np.ndarray) -> list[float | None]:
    return [_ratio(*pair) for pair in zip(totals.tolist(), counts.tolist(), strict=True)]


def _ratio(total: float, count: float) -> float | None:
    return float(total / count) if count else None
